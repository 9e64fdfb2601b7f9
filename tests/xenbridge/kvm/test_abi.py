"""The numbers of KVM's interface, beside the system's headers and its documentation."""

from __future__ import annotations

import ctypes
import errno
import subprocess
from pathlib import Path

import pytest

from xenbridge.kvm import abi

HEADER = Path("/usr/include/linux/kvm.h")
#: struct kvm_...: our structure, and its size as Documentation/virt/kvm/api.rst lays it out.
STRUCTURES = {
    "regs": (abi.Regs, 0x90),
    "segment": (abi.Segment, 0x18),
    "dtable": (abi.Dtable, 0x10),
    "sregs": (abi.Sregs, 0x138),
    "vcpu_events": (abi.VcpuEvents, 0x40),
    "debugregs": (abi.DebugRegs, 0x80),
    "userspace_memory_region": (abi.MemoryRegion, 0x20),
    "dirty_log": (abi.DirtyLog, 0x10),
    "guest_debug": (abi.GuestDebug, 0x48),
    "enable_cap": (abi.EnableCap, 0x68),
    "cpuid_entry2": (abi.CpuidEntry, 0x28),
    "cpuid2": (abi.CpuidHead, 8),
    "msrs": (abi.MsrsHead, 8),
    "msr_entry": (abi.MsrEntry, 0x10),
    "msr_filter_range": (abi.MsrRange, 0x18),
    "msr_filter": (abi.MsrFilter, 0x188),
    "device_attr": (abi.DeviceAttribute, 0x18),
    "xcr": (abi.Xcr, 0x10),
    "xcrs": (abi.Xcrs, 0x188),
    "irq_level": (abi.IrqLevel, 8),
    "irq_routing": (abi.RoutingHead, 8),
    "irq_routing_entry": (abi.RoutingEntry, 0x30),
    "pit_config": (abi.PitConfig, 0x40),
    "reinject_control": (abi.ReinjectControl, 0x20),
    "pic_state": (abi.PicState, 0x10),
    "irqchip": (abi.Irqchip, 0x208),
    "lapic_state": (abi.LapicState, 0x400),
    "pit_channel_state": (abi.PitChannelState, 0x18),
    "pit_state2": (abi.PitState2, 0x70),
}
OFFSETS = {
    "offsetof(struct kvm_run, immediate_exit)": abi.RUN_IMMEDIATE_EXIT,
    "offsetof(struct kvm_run, exit_reason)": abi.RUN_REASON,
    "offsetof(struct kvm_run, ready_for_interrupt_injection)": abi.RUN_READY,
    "offsetof(struct kvm_run, if_flag)": abi.RUN_IF,
    "offsetof(struct kvm_run, cr8)": abi.RUN_CR8,
    "offsetof(struct kvm_run, apic_base)": abi.RUN_APIC_BASE,
    "offsetof(struct kvm_run, io)": abi.RUN_UNION,
    "offsetof(struct kvm_run, mmio)": abi.RUN_UNION,
    "offsetof(struct kvm_run, kvm_valid_regs)": abi.RUN_VALID,
    "offsetof(struct kvm_run, kvm_dirty_regs)": abi.RUN_DIRTY,
    "offsetof(struct kvm_run, s.regs.regs)": abi.AT_REGS,
    "offsetof(struct kvm_run, s.regs.sregs)": abi.AT_SREGS,
    "offsetof(struct kvm_run, s.regs.events)": abi.AT_EVENTS,
}
CONSTANTS = {
    "KVM_EXIT_IO": abi.EXIT_IO,
    "KVM_EXIT_DEBUG": abi.EXIT_DEBUG,
    "KVM_EXIT_HLT": abi.EXIT_HLT,
    "KVM_EXIT_MMIO": abi.EXIT_MMIO,
    "KVM_EXIT_IRQ_WINDOW_OPEN": abi.EXIT_IRQ_WINDOW,
    "KVM_EXIT_SHUTDOWN": abi.EXIT_SHUTDOWN,
    "KVM_EXIT_FAIL_ENTRY": abi.EXIT_FAIL_ENTRY,
    "KVM_EXIT_INTR": abi.EXIT_INTR,
    "KVM_EXIT_SET_TPR": abi.EXIT_SET_TPR,
    "KVM_EXIT_INTERNAL_ERROR": abi.EXIT_INTERNAL_ERROR,
    "KVM_EXIT_SYSTEM_EVENT": abi.EXIT_SYSTEM_EVENT,
    "KVM_EXIT_X86_RDMSR": abi.EXIT_RDMSR,
    "KVM_EXIT_X86_WRMSR": abi.EXIT_WRMSR,
    "KVM_INTERNAL_ERROR_EMULATION": abi.INTERNAL_EMULATION,
    "KVM_MEM_LOG_DIRTY_PAGES": abi.MEM_LOG_DIRTY,
    "KVM_MEM_READONLY": abi.MEM_READONLY,
    "KVM_GUESTDBG_ENABLE": abi.DEBUG_ENABLE,
    "KVM_GUESTDBG_SINGLESTEP": abi.DEBUG_SINGLESTEP,
    "KVM_GUESTDBG_USE_HW_BP": abi.DEBUG_USE_HW_BP,
    "KVM_VCPUEVENT_VALID_NMI_PENDING": abi.EVENT_NMI_PENDING,
    "KVM_VCPUEVENT_VALID_SHADOW": abi.EVENT_SHADOW,
    "KVM_X86_SHADOW_INT_MOV_SS": abi.SHADOW_MOV_SS,
    "KVM_X86_SHADOW_INT_STI": abi.SHADOW_STI,
    "(KVM_MSR_EXIT_REASON_INVAL|KVM_MSR_EXIT_REASON_UNKNOWN|KVM_MSR_EXIT_REASON_FILTER)": abi.MSR_EXIT_ALL,
    "KVM_MSR_FILTER_READ": abi.MSR_RANGE_READ,
    "KVM_MSR_FILTER_WRITE": abi.MSR_RANGE_WRITE,
    "KVM_MSR_FILTER_DEFAULT_DENY": abi.MsrFilter.DENY,
    "KVM_VCPU_TSC_CTRL": abi.TSC_GROUP,
    "KVM_VCPU_TSC_OFFSET": abi.TSC_OFFSET,
    "KVM_CPUID_FLAG_SIGNIFCANT_INDEX": abi.CPUID_INDEXED,
    "KVM_PIT_SPEAKER_DUMMY": abi.PitConfig.SPEAKER,
    "KVM_IRQ_ROUTING_IRQCHIP": abi.RoutingEntry.IRQCHIP,
    "KVM_PIT_FLAGS_HPET_LEGACY": abi.PitState2.HPET_LEGACY,
    "KVM_MP_STATE_RUNNABLE": abi.RUNNABLE,
    "KVM_MP_STATE_HALTED": abi.HALTED,
    "KVM_SYNC_X86_REGS": abi.SYNC_REGS,
    "KVM_SYNC_X86_SREGS": abi.SYNC_SREGS,
    "KVM_SYNC_X86_EVENTS": abi.SYNC_EVENTS,
    "KVM_API_VERSION": abi.API_VERSION,
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_has_its_documented_size(name: str) -> None:
    structure, size = STRUCTURES[name]
    assert ctypes.sizeof(structure) == size


def test_all_numbers_are_those_of_the_systems_headers(tmp_path: Path) -> None:
    if not HEADER.is_file():
        pytest.skip(f"{HEADER} is not installed (Debian package linux-libc-dev)")
    expected = {f"sizeof(struct kvm_{name})": size for name, (_, size) in STRUCTURES.items()}
    for name, (structure, _) in STRUCTURES.items():
        for field, *_ in structure._fields_:
            if _in_header(name, field):
                offset = getattr(structure, field).offset
                expected[f"offsetof(struct kvm_{name}, {_header_field(name, field)})"] = offset
    expected |= OFFSETS | CONSTANTS
    expected |= {f"KVM_{name}": number for name, number in abi.REQUESTS.items()}
    expected |= {f"KVM_CAP_{name}": number for name, number in abi.CAPS.items()}
    lines = "\n".join(f'printf("%lu\\n", (unsigned long)({text}));' for text in expected)
    source = tmp_path / "numbers.c"
    source.write_text(
        f"#include <stddef.h>\n#include <stdio.h>\n#include <linux/kvm.h>\nint main(void) {{\n{lines}\nreturn 0; }}\n"
    )
    program = tmp_path / "numbers"
    try:
        built = subprocess.run(["gcc", "-o", program, source], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("gcc is not installed")
    assert not built.returncode, built.stderr
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    assert dict(zip(expected, map(int, said), strict=True)) == expected


#: Fields whose names are ours, or whose place in the header is inside another structure.
RENAMED = {
    ("userspace_memory_region", "guest"): "guest_phys_addr",
    ("userspace_memory_region", "size"): "memory_size",
    ("userspace_memory_region", "host"): "userspace_addr",
    ("dirty_log", "bitmap"): "dirty_bitmap",
    ("guest_debug", "debugreg"): "arch.debugreg",
    ("cpuid2", "count"): "nent",
    ("msrs", "count"): "nmsrs",
    ("msr_filter_range", "count"): "nmsrs",
    ("device_attr", "attribute"): "attr",
    ("device_attr", "address"): "addr",
    ("xcrs", "count"): "nr_xcrs",
    ("irq_routing", "count"): "nr",
    ("irq_routing_entry", "chip"): "u.irqchip.irqchip",
    ("irq_routing_entry", "pin"): "u.irqchip.pin",
    ("irqchip", "chip"): "chip_id",
    ("irqchip", "pic"): "chip.pic",
}
NESTED = ("exception", "interrupt", "nmi", "smi")


def _header_field(name: str, field: str) -> str:
    if name == "vcpu_events" and field not in ("exception_has_payload", "exception_payload"):
        for part in NESTED:
            if field.startswith(f"{part}_"):
                return f"{part}.{field.removeprefix(f'{part}_')}"
    return RENAMED.get((name, field), field)


def _in_header(name: str, field: str) -> bool:
    """`reserved` grows and shrinks with Linux."""
    return not field.startswith(("pad", "reserved"))


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOENT, "is not there"), (errno.EACCES, "may not be opened by this user"), (errno.EBUSY, "is busy")],
)
def test_a_device_that_cannot_be_opened_is_said_in_one_sentence(
    number: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(number, "no")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(abi.KvmError) as caught:
        abi.open_device()
    assert said in str(caught.value) and "--hypervisor model" in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.number == number


def test_a_file_that_is_no_device_is_not_taken_for_one(tmp_path: Path) -> None:
    other = tmp_path / "kvm"
    other.write_text("")
    with pytest.raises(abi.KvmError, match="does not answer as KVM does"):
        abi.open_device(str(other))
