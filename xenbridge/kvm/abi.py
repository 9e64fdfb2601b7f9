"""KVM's system-call interface: request numbers, structures and offsets of x86-64 (linux/kvm.h, asm/kvm.h, Linux 6.1).

The numbers are part of Linux's stable interface (Documentation/virt/kvm/api.rst). tests/xenbridge/kvm/test_abi.py
compares each with the system's headers where these are installed, and with their documented sizes everywhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
from ctypes import c_uint8 as u8
from ctypes import c_uint16 as u16
from ctypes import c_uint32 as u32
from ctypes import c_uint64 as u64
from typing import Any, Final

DEVICE: Final = "/dev/kvm"
API_VERSION: Final = 12  #: KVM_GET_API_VERSION has answered so since 2.6.22


class KvmError(Exception):
    """KVM cannot be had, or a request of it failed; the text says which, and what to do. `number` is the errno."""

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.number = number


class Regs(ctypes.Structure):
    """struct kvm_regs."""

    NAMES = (
        "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
        "rip", "rflags",
    )  # fmt: skip
    _fields_ = [(name, u64) for name in NAMES]


class Segment(ctypes.Structure):
    """struct kvm_segment. `limit` is in bytes."""

    _fields_ = [
        ("base", u64), ("limit", u32), ("selector", u16), ("type", u8), ("present", u8), ("dpl", u8), ("db", u8),
        ("s", u8), ("l", u8), ("g", u8), ("avl", u8), ("unusable", u8), ("padding", u8),
    ]  # fmt: skip


class Dtable(ctypes.Structure):
    """struct kvm_dtable."""

    _fields_ = [("base", u64), ("limit", u16), ("padding", u16 * 3)]


class Sregs(ctypes.Structure):
    """struct kvm_sregs. `interrupt_bitmap` has the vector that was injected and is not delivered, at most one."""

    SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
    _fields_ = [
        *((name, Segment) for name in SEGMENTS), ("gdt", Dtable), ("idt", Dtable), ("cr0", u64), ("cr2", u64),
        ("cr3", u64), ("cr4", u64), ("cr8", u64), ("efer", u64), ("apic_base", u64), ("interrupt_bitmap", u64 * 4),
    ]  # fmt: skip


class VcpuEvents(ctypes.Structure):
    """struct kvm_vcpu_events: what is pending, and what blocks it."""

    _fields_ = [
        ("exception_injected", u8), ("exception_nr", u8), ("exception_has_error_code", u8), ("exception_pending", u8),
        ("exception_error_code", u32),
        ("interrupt_injected", u8), ("interrupt_nr", u8), ("interrupt_soft", u8), ("interrupt_shadow", u8),
        ("nmi_injected", u8), ("nmi_pending", u8), ("nmi_masked", u8), ("nmi_pad", u8),
        ("sipi_vector", u32), ("flags", u32),
        ("smi_smm", u8), ("smi_pending", u8), ("smi_smm_inside_nmi", u8), ("smi_latched_init", u8),
        ("reserved", u8 * 27), ("exception_has_payload", u8), ("exception_payload", u64),
    ]  # fmt: skip


class DebugRegs(ctypes.Structure):
    """struct kvm_debugregs."""

    _fields_ = [("db", u64 * 4), ("dr6", u64), ("dr7", u64), ("flags", u64), ("reserved", u64 * 9)]


class MemoryRegion(ctypes.Structure):
    """struct kvm_userspace_memory_region. A `size` of 0 deletes the slot."""

    _fields_ = [("slot", u32), ("flags", u32), ("guest", u64), ("size", u64), ("host", u64)]


class DirtyLog(ctypes.Structure):
    """struct kvm_dirty_log: `bitmap` is the address of a bit for each page of the slot."""

    _fields_ = [("slot", u32), ("padding", u32), ("bitmap", u64)]


class GuestDebug(ctypes.Structure):
    """struct kvm_guest_debug."""

    _fields_ = [("control", u32), ("pad", u32), ("debugreg", u64 * 8)]


class EnableCap(ctypes.Structure):
    """struct kvm_enable_cap."""

    _fields_ = [("cap", u32), ("flags", u32), ("args", u64 * 4), ("pad", u8 * 64)]


class CpuidEntry(ctypes.Structure):
    """struct kvm_cpuid_entry2."""

    _fields_ = [
        ("function", u32), ("index", u32), ("flags", u32), ("eax", u32), ("ebx", u32), ("ecx", u32), ("edx", u32),
        ("padding", u32 * 3),
    ]  # fmt: skip


class CpuidHead(ctypes.Structure):
    """struct kvm_cpuid2, before its entries."""

    _fields_ = [("count", u32), ("padding", u32)]


class MsrsHead(ctypes.Structure):
    """struct kvm_msrs, before its entries."""

    _fields_ = [("count", u32), ("pad", u32)]


class MsrEntry(ctypes.Structure):
    """struct kvm_msr_entry."""

    _fields_ = [("index", u32), ("reserved", u32), ("data", u64)]


class MsrRange(ctypes.Structure):
    """struct kvm_msr_filter_range: `bitmap` is the address of a bit for each register, 1 for the kernel's."""

    _fields_ = [("flags", u32), ("count", u32), ("base", u32), ("bitmap", u64)]


class MsrFilter(ctypes.Structure):
    """struct kvm_msr_filter: what `ranges` do not cover is the kernel's, or with DENY the user's."""

    DENY = 1
    _fields_ = [("flags", u32), ("ranges", MsrRange * 16)]


class DeviceAttribute(ctypes.Structure):
    """struct kvm_device_attr."""

    _fields_ = [("flags", u32), ("group", u32), ("attribute", u64), ("address", u64)]


class Xcr(ctypes.Structure):
    """struct kvm_xcr."""

    _fields_ = [("xcr", u32), ("reserved", u32), ("value", u64)]


class Xcrs(ctypes.Structure):
    """struct kvm_xcrs, of which XCR0 is the only one that there is."""

    _fields_ = [("count", u32), ("flags", u32), ("xcrs", Xcr * 16), ("padding", u64 * 16)]


class IrqLevel(ctypes.Structure):
    """struct kvm_irq_level."""

    _fields_ = [("irq", u32), ("level", u32)]


class RoutingHead(ctypes.Structure):
    """struct kvm_irq_routing, before its entries."""

    _fields_ = [("count", u32), ("flags", u32)]


class RoutingEntry(ctypes.Structure):
    """struct kvm_irq_routing_entry of type IRQCHIP: the line `gsi` is the input `pin` of `chip`, numbered as by
    Irqchip. It may lead to one input of each chip."""

    IRQCHIP = 1
    _fields_ = [("gsi", u32), ("type", u32), ("flags", u32), ("pad", u32), ("chip", u32), ("pin", u32),
                ("reserved", u32 * 6)]  # fmt: skip


class PitConfig(ctypes.Structure):
    """struct kvm_pit_config: with SPEAKER port 61h is the kernel's too."""

    SPEAKER = 1
    _fields_ = [("flags", u32), ("pad", u32 * 15)]


class ReinjectControl(ctypes.Structure):
    """struct kvm_reinject_control: whether ticks of the PIT that found the one before not acknowledged come later."""

    _fields_ = [("pit_reinject", u8), ("reserved", u8 * 31)]


class PicState(ctypes.Structure):
    """struct kvm_pic_state, of one 8259."""

    NAMES = (
        "last_irr", "irr", "imr", "isr", "priority_add", "irq_base", "read_reg_select", "poll", "special_mask",
        "init_state", "auto_eoi", "rotate_on_auto_eoi", "special_fully_nested_mode", "init4", "elcr", "elcr_mask",
    )  # fmt: skip
    _fields_ = [(name, u8) for name in NAMES]


class Irqchip(ctypes.Structure):
    """struct kvm_irqchip; `chip` is 0 for the master 8259, 1 for the slave, 2 for the I/O APIC, whose state this leaves
    as bytes."""

    _fields_ = [("chip", u32), ("pad", u32), ("pic", PicState), ("reserved", u8 * 496)]


class LapicState(ctypes.Structure):
    """struct kvm_lapic_state: the register page, a register each 16 bytes."""

    _fields_ = [("regs", u8 * 0x400)]


class PitChannelState(ctypes.Structure):
    """struct kvm_pit_channel_state; `count_load_time` is the host's clock in ns."""

    _fields_ = [
        ("count", u32), ("latched_count", u16), ("count_latched", u8), ("status_latched", u8), ("status", u8),
        ("read_state", u8), ("write_state", u8), ("write_latch", u8), ("rw_mode", u8), ("mode", u8), ("bcd", u8),
        ("gate", u8), ("count_load_time", ctypes.c_int64),
    ]  # fmt: skip


class PitState2(ctypes.Structure):
    """struct kvm_pit_state2. With HPET_LEGACY counter 0 interrupts nobody."""

    HPET_LEGACY = 1

    _fields_ = [("channels", PitChannelState * 3), ("flags", u32), ("reserved", u32 * 9)]


# -- request numbers: direction, size of the structure, type 0xAE, number (asm-generic/ioctl.h)


def _number(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | 0xAE << 8 | number


def _plain(number: int) -> int:
    return _number(0, number, 0)


def _writes(number: int, what: type[Any]) -> int:
    return _number(1, number, ctypes.sizeof(what))


def _reads(number: int, what: type[Any]) -> int:
    return _number(2, number, ctypes.sizeof(what))


def _both(number: int, what: type[Any]) -> int:
    return _number(3, number, ctypes.sizeof(what))


XSAVE_SIZE: Final = 4096

#: By their names in linux/kvm.h, without KVM_.
REQUESTS: Final[dict[str, int]] = {
    "GET_API_VERSION": _plain(0x00),
    "CREATE_VM": _plain(0x01),
    "CHECK_EXTENSION": _plain(0x03),
    "GET_VCPU_MMAP_SIZE": _plain(0x04),
    "GET_SUPPORTED_CPUID": _both(0x05, CpuidHead),
    "CREATE_VCPU": _plain(0x41),
    "GET_DIRTY_LOG": _writes(0x42, DirtyLog),
    "SET_USER_MEMORY_REGION": _writes(0x46, MemoryRegion),
    "SET_TSS_ADDR": _plain(0x47),
    "SET_IDENTITY_MAP_ADDR": _writes(0x48, u64),
    "RUN": _plain(0x80),
    "CREATE_IRQCHIP": _plain(0x60),
    "IRQ_LINE": _writes(0x61, IrqLevel),
    "GET_IRQCHIP": _both(0x62, Irqchip),
    "SET_IRQCHIP": _reads(0x63, Irqchip),  # so in the header, whatever its direction is
    "SET_GSI_ROUTING": _writes(0x6A, RoutingHead),
    "REINJECT_CONTROL": _plain(0x71),
    "CREATE_PIT2": _writes(0x77, PitConfig),
    "GET_REGS": _reads(0x81, Regs),
    "SET_REGS": _writes(0x82, Regs),
    "GET_SREGS": _reads(0x83, Sregs),
    "SET_SREGS": _writes(0x84, Sregs),
    "GET_MSRS": _both(0x88, MsrsHead),
    "SET_MSRS": _writes(0x89, MsrsHead),
    "SET_SIGNAL_MASK": _writes(0x8B, u32),
    "GET_LAPIC": _reads(0x8E, LapicState),
    "SET_LAPIC": _writes(0x8F, LapicState),
    "SET_CPUID2": _writes(0x90, CpuidHead),
    "GET_MP_STATE": _reads(0x98, u32),
    "SET_MP_STATE": _writes(0x99, u32),
    "SET_GUEST_DEBUG": _writes(0x9B, GuestDebug),
    "GET_PIT2": _reads(0x9F, PitState2),
    "SET_PIT2": _writes(0xA0, PitState2),
    "GET_VCPU_EVENTS": _reads(0x9F, VcpuEvents),
    "SET_VCPU_EVENTS": _writes(0xA0, VcpuEvents),
    "GET_DEBUGREGS": _reads(0xA1, DebugRegs),
    "SET_DEBUGREGS": _writes(0xA2, DebugRegs),
    "SET_TSC_KHZ": _plain(0xA2),
    "GET_TSC_KHZ": _plain(0xA3),
    "ENABLE_CAP": _writes(0xA3, EnableCap),
    "GET_XSAVE": _number(2, 0xA4, XSAVE_SIZE),
    "SET_XSAVE": _number(1, 0xA5, XSAVE_SIZE),
    "GET_XCRS": _reads(0xA6, Xcrs),
    "SET_XCRS": _writes(0xA7, Xcrs),
    "X86_SET_MSR_FILTER": _writes(0xC6, MsrFilter),
    "SET_DEVICE_ATTR": _writes(0xE1, DeviceAttribute),
    "HAS_DEVICE_ATTR": _writes(0xE3, DeviceAttribute),
}
RUN: Final = REQUESTS["RUN"]

#: Capabilities, for KVM_CHECK_EXTENSION and KVM_ENABLE_CAP, without KVM_CAP_.
CAPS: Final[dict[str, int]] = {
    "IRQCHIP": 0,
    "USER_MEMORY": 3,
    "EXT_CPUID": 7,
    "NR_MEMSLOTS": 10,
    "SET_GUEST_DEBUG": 23,
    "REINJECT_CONTROL": 24,
    "IRQ_ROUTING": 25,
    "PIT2": 33,
    "PIT_STATE2": 35,
    "VCPU_EVENTS": 41,
    "DEBUGREGS": 50,
    "XSAVE": 55,
    "XCRS": 56,
    "TSC_CONTROL": 60,
    "SYNC_REGS": 74,
    "READONLY_MEM": 81,
    "VCPU_ATTRIBUTES": 127,
    "IMMEDIATE_EXIT": 136,
    "X86_USER_SPACE_MSR": 188,
    "X86_MSR_FILTER": 189,
}
#: Without these there is no engine here.
NEEDED: Final = (
    "USER_MEMORY", "EXT_CPUID", "SET_GUEST_DEBUG", "VCPU_EVENTS", "DEBUGREGS", "XSAVE", "SYNC_REGS", "READONLY_MEM",
    "IMMEDIATE_EXIT",
)  # fmt: skip

# KVM_EXIT_*: kvm_run.exit_reason.
EXIT_IO, EXIT_DEBUG, EXIT_HLT, EXIT_MMIO, EXIT_IRQ_WINDOW, EXIT_SHUTDOWN = 2, 4, 5, 6, 7, 8
EXIT_FAIL_ENTRY, EXIT_INTR, EXIT_SET_TPR, EXIT_INTERNAL_ERROR, EXIT_SYSTEM_EVENT = 9, 10, 11, 17, 24
EXIT_RDMSR, EXIT_WRMSR = 29, 30
EXIT_NAMES: Final[dict[int, str]] = {
    0: "UNKNOWN", 1: "EXCEPTION", 2: "IO", 3: "HYPERCALL", 4: "DEBUG", 5: "HLT", 6: "MMIO", 7: "IRQ_WINDOW_OPEN",
    8: "SHUTDOWN", 9: "FAIL_ENTRY", 10: "INTR", 11: "SET_TPR", 12: "TPR_ACCESS", 16: "NMI", 17: "INTERNAL_ERROR",
    24: "SYSTEM_EVENT", 29: "X86_RDMSR", 30: "X86_WRMSR",
}  # fmt: skip
INTERNAL_EMULATION: Final = 1  #: suberror: an instruction that KVM cannot execute

# struct kvm_run, offsets in bytes.
RUN_WINDOW, RUN_IMMEDIATE_EXIT, RUN_REASON, RUN_READY, RUN_IF, RUN_CR8, RUN_APIC_BASE, RUN_UNION = (
    0,
    1,
    8,
    12,
    13,
    16,
    24,
    32,
)
RUN_VALID, RUN_DIRTY, RUN_SYNC = 288, 296, 304
#: kvm_valid_regs and kvm_dirty_regs, and where in the sync area each stands.
SYNC_REGS, SYNC_SREGS, SYNC_EVENTS = 1, 2, 4
AT_REGS: Final = RUN_SYNC
AT_SREGS: Final = AT_REGS + ctypes.sizeof(Regs)
AT_EVENTS: Final = AT_SREGS + ctypes.sizeof(Sregs)

# Flags.
MEM_LOG_DIRTY, MEM_READONLY = 1, 2
DEBUG_ENABLE, DEBUG_SINGLESTEP, DEBUG_USE_HW_BP = 1, 2, 0x20000
EVENT_NMI_PENDING, EVENT_SHADOW = 1, 4  #: KVM_VCPUEVENT_VALID_*
SHADOW_MOV_SS, SHADOW_STI = 1, 2  #: KVM_X86_SHADOW_INT_*
RUNNABLE, HALTED = 0, 3  #: KVM_MP_STATE_*
MSR_EXIT_ALL: Final = 7  #: KVM_MSR_EXIT_REASON_INVAL, _UNKNOWN and _FILTER
MSR_RANGE_READ, MSR_RANGE_WRITE = 1, 2
TSC_GROUP, TSC_OFFSET = 0, 0  #: KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET
CPUID_INDEXED: Final = 1  #: KVM_CPUID_FLAG_SIGNIFCANT_INDEX

_libc = ctypes.CDLL(None, use_errno=True)
#: ioctl(2); it lets other threads run meanwhile. -1 and ctypes.get_errno() for an error.
call = _libc.ioctl
call.restype, call.argtypes = ctypes.c_int, (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
timer_create, timer_settime, timer_delete = _libc.timer_create, _libc.timer_settime, _libc.timer_delete
timer_create.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
timer_settime.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
timer_delete.argtypes = (ctypes.c_void_p,)


def ioctl(fd: int, request: str, argument: Any = None) -> int:
    """The request of this name in REQUESTS; `argument` is a number, or a structure, which is passed by its address.
    What the kernel answers. Raises KvmError with the kernel's reason."""
    passed = argument if argument is None or isinstance(argument, int) else ctypes.addressof(argument)
    answer: int = call(fd, REQUESTS[request], passed)
    if answer < 0:
        number = ctypes.get_errno()
        raise KvmError(f"KVM_{request} failed: {os.strerror(number)}", number)
    return answer


def open_device(path: str = DEVICE) -> int:
    """The device's file descriptor. Raises KvmError with a sentence that says what stands in the way."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise KvmError(why_closed(path, error.errno or 0), error.errno or 0) from error
    try:
        version = ioctl(fd, "GET_API_VERSION")
        missing = [name for name in NEEDED if ioctl(fd, "CHECK_EXTENSION", CAPS[name]) <= 0]
    except KvmError as error:
        os.close(fd)
        raise KvmError(f"{path} does not answer as KVM does: {error}; use --hypervisor model", error.number) from error
    if version != API_VERSION or missing:
        os.close(fd)
        lacks = f"lacks {', '.join(missing)}" if missing else f"has interface {version}, not {API_VERSION}"
        raise KvmError(f"the KVM of this host {lacks}: use --hypervisor model")
    return fd


def why_closed(path: str, number: int) -> str:
    """What stands in the way of using the device, by the errno that says so."""
    other = "or use --hypervisor model"
    match number:
        case errno.ENOENT:
            return f"{path} is not there: load the module kvm_intel or kvm_amd, {other}"
        case errno.EACCES | errno.EPERM:
            return f"{path} may not be opened by this user: join the group that owns it, {other}"
        case errno.EBUSY:
            return f"{path} is busy, another hypervisor has the CPU's virtualisation: end it, {other}"
        case errno.ENODEV | errno.ENXIO:
            return f"{path} has no driver behind it: load the module kvm_intel or kvm_amd, {other}"
    return f"{path} cannot be opened ({os.strerror(number)}): use --hypervisor model"
