"""CpuState to and from KVM's structures, as bytes: each part apart, so that only what changed is moved.

What has no place there: FCS and FDS, which 64-bit FXSAVE does not have (SDM vol. 1, 10.5.1), XCR0, SMM and the address
mask of A20, which is the virtual machine's (`xenbridge.kvm.vm`).
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import struct
from typing import Final

from emu.x86 import msrs as m
from emu.x86.register_writes import ACCESS_UNUSABLE
from emu.x86.state import CpuState, Fpu, Segment, Table
from emu.x86.vmentry_controls import BLOCKED_BY_MOV_SS, BLOCKED_BY_STI, interruptibility
from xenbridge.kvm import abi

_MASK64: Final = (1 << 64) - 1
REGS: Final = struct.Struct("<18Q")
#: Where each of emu.x86.state.GENERAL, then RIP and RFLAGS, stand in kvm_regs.
_GENERAL: Final = (0, 2, 3, 1, 6, 7, 4, 5, *range(8, 16))
_SEGMENT: Final = struct.Struct("<QIH10s")  #: base, limit, selector, and the access rights, a byte each
_RIGHTS: Final = struct.Struct("<9Bx")
_TABLE: Final = struct.Struct("<QH6x")
_SEGMENTS: Final = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr")  #: in the order of kvm_sregs
_SEGMENTS_SIZE: Final = 8 * _SEGMENT.size
#: All of kvm_sregs; behind the tables are CR0, CR2, CR3, CR4, CR8, EFER and the APIC's base.
_SREGS: Final = struct.Struct("<" + 8 * "QIH10s" + 2 * "QH6x" + "7Q32x")
SREGS_SIZE: Final = _SREGS.size
_STARTS: Final = range(0, 32, 4)  #: of the segments among the values of _SREGS
_DEBUG: Final = struct.Struct("<4QQQQ72x")
_EVENTS: Final = struct.Struct("<4BI8BII4B27xBQ")
EVENTS_SIZE: Final = _EVENTS.size
assert REGS.size == ctypes.sizeof(abi.Regs) and ctypes.sizeof(abi.Sregs) == SREGS_SIZE
assert _DEBUG.size == ctypes.sizeof(abi.DebugRegs) and ctypes.sizeof(abi.VcpuEvents) == EVENTS_SIZE

# The legacy area of XSAVE, and XSTATE_BV (SDM vol. 1, 10.5.1 and 13.4).
_FX_HEAD: Final = struct.Struct("<HHBxHQQI")
_FX_ST, _FX_XMM, XSTATE_BV = 32, 160, 512
_ST: Final = struct.Struct("<" + 8 * "QH6x")
_XMM: Final = struct.Struct("<32Q")
_X87_AND_SSE: Final = 3
FX_SIZE: Final = XSTATE_BV + 8
AFTER_FNINIT: Final = (0x37F, 0, 0)  #: control and status word, abridged tags (SDM vol. 2A, FINIT)

#: MSRs that a guest's instructions use or change without RDMSR and WRMSR, which all end a native stretch.
NATIVE_MSRS: Final = (
    m.SYSENTER_CS, m.SYSENTER_ESP, m.SYSENTER_EIP, m.STAR, m.LSTAR, m.CSTAR, m.FMASK, m.KERNEL_GS_BASE, m.TSC_AUX,
)  # fmt: skip


def pack_regs(state: CpuState) -> bytes:
    """struct kvm_regs."""
    rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, *rest = state.regs
    return REGS.pack(rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, *rest, state.rip, state.rflags)


def unpack_regs(data: bytes) -> tuple[list[int], int, int]:
    """The general registers in the order of emu.x86.state.GENERAL, RIP and RFLAGS."""
    rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags = REGS.unpack(data)
    return [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15], rip, rflags


@functools.lru_cache(256)
def _rights(access: int) -> bytes:
    """The bytes of kvm_segment from `type` on, of a Segment's access rights."""
    a = access
    unusable = a & ACCESS_UNUSABLE
    return _RIGHTS.pack(
        a & 0xF, 0 if unusable else a >> 7 & 1, a >> 5 & 3, a >> 14 & 1, a >> 4 & 1, a >> 13 & 1, a >> 15 & 1,
        a >> 12 & 1, 1 if unusable else 0,
    )  # fmt: skip


@functools.lru_cache(256)
def _access(rights: bytes) -> int:
    """The way back."""
    kind, present, dpl, db, s, long, g, avl, unusable = _RIGHTS.unpack(rights)
    access: int = kind | s << 4 | dpl << 5 | present << 7 | avl << 12 | long << 13 | db << 14 | g << 15
    return access | ACCESS_UNUSABLE if unusable else access


def pack_segment(s: Segment) -> bytes:
    """struct kvm_segment."""
    return _SEGMENT.pack(s.base, s.limit, s.selector, _rights(s.access))


def unpack_segment(data: bytes) -> Segment:
    """A descriptor cache of kvm_sregs."""
    base, limit, selector, rights = _SEGMENT.unpack(data)
    return Segment(selector, base, limit, _access(rights))


def segment_at(page: mmap.mmap, sregs: int, name: str) -> Segment:
    """The descriptor cache of that name in the kvm_sregs at `sregs`."""
    base, limit, selector, rights = _SEGMENT.unpack_from(page, sregs + _SEGMENT.size * _SEGMENTS.index(name))
    return Segment(selector, base, limit, _access(rights))


def table_at(page: mmap.mmap, sregs: int, index: int) -> Table:
    """GDTR (0) or IDTR (1) in the kvm_sregs at `sregs`."""
    return Table(*_TABLE.unpack_from(page, sregs + _SEGMENTS_SIZE + index * _TABLE.size))


def pack_sregs(state: CpuState) -> bytes:
    """struct kvm_sregs, with no interrupt on its way."""
    values: list[int | bytes] = []
    for s in (state.cs, state.ds, state.es, state.fs, state.gs, state.ss, state.tr, state.ldtr):
        values += (s.base, s.limit, s.selector, _rights(s.access))
    gdtr, idtr = state.gdtr, state.idtr
    apic = state.msrs.get(m.APIC_BASE, m.APIC_BASE_RESET)
    return _SREGS.pack(
        *values, gdtr.base, gdtr.limit, idtr.base, idtr.limit,
        state.cr0, state.cr2, state.cr3, state.cr4, state.cr8, state.efer, apic,
    )  # fmt: skip


#: ES CS SS DS FS GS LDTR TR, GDTR, IDTR, CR0, CR2, CR3, CR4, CR8, EFER.
System = tuple[
    Segment, Segment, Segment, Segment, Segment, Segment, Segment, Segment, Table, Table, int, int, int, int, int, int
]


def unpack_sregs(data: bytes) -> System:
    """Segments, tables, control registers and EFER. The APIC's base is left out: only a WRMSR changes it."""
    v = _SREGS.unpack(data)
    cs, ds, es, fs, gs, ss, tr, ldtr = (Segment(v[at + 2], v[at], v[at + 1], _access(v[at + 3])) for at in _STARTS)
    return (
        es, cs, ss, ds, fs, gs, ldtr, tr, Table(v[32], v[33]), Table(v[34], v[35]),
        v[36], v[37], v[38], v[39], v[40], v[41],
    )  # fmt: skip


def pack_events(state: CpuState) -> bytes:
    """struct kvm_vcpu_events: nothing is being delivered."""
    return _EVENTS.pack(
        0, 0, 0, 0, 0,
        0, 0, 0, shadow_of(state),
        0, state.nmi_pending, state.nmi_blocked, 0,
        0, abi.EVENT_NMI_PENDING | abi.EVENT_SHADOW, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip


def shadow_of(state: CpuState) -> int:
    """Which instruction made the shadow, as KVM_X86_SHADOW_INT_*; 0: there is none. CpuState does not know; a wrong one
    would fail the entry (`interruptibility`), and nothing of a boot's code can tell those that are left."""
    blocking = interruptibility(state)
    return abi.SHADOW_STI if blocking & BLOCKED_BY_STI else abi.SHADOW_MOV_SS if blocking & BLOCKED_BY_MOV_SS else 0


def unpack_events(data: bytes) -> tuple[bool, bool, bool]:
    """The interrupt shadow, whether an NMI is pending, whether NMIs are blocked."""
    values = _EVENTS.unpack(data)
    return bool(values[8]), bool(values[9] or values[10]), bool(values[11])


def event_flags(state: CpuState) -> tuple[bool, bool, bool]:
    """What of the events is the guest's: the shadow, an NMI that is pending, and whether NMIs are blocked."""
    return state.shadow, state.nmi_pending, state.nmi_blocked


def event_flags_of(page: mmap.mmap, events: int) -> tuple[bool, bool, bool]:
    """The same of the kvm_vcpu_events at `events`."""
    return bool(page[events + 11]), bool(page[events + 13]), bool(page[events + 14])


def injected(events: bytes) -> bool:
    """An exception or interrupt is half delivered: what is between two instructions is not in the other parts."""
    return bool(events[0] or events[3] or events[8] or events[12])


def pack_debug(state: CpuState) -> bytes:
    """struct kvm_debugregs."""
    return _DEBUG.pack(*state.dr[:4], state.dr[6], state.dr[7] & 0xFFFFFFFF, 0)


def unpack_debug(data: bytes) -> list[int]:
    """DR0 to DR7, of which DR4 and DR5 are 0."""
    values = _DEBUG.unpack(data)
    return [*values[:4], 0, 0, values[4], values[5]]


def pack_fpu(fpu: Fpu, area: bytearray) -> None:
    """Put x87 and SSE state into an XSAVE area; its other components stay. FTW is the abridged tag byte in both."""
    _FX_HEAD.pack_into(area, 0, fpu.fcw, fpu.fsw, fpu.ftw, fpu.fop, fpu.fip, fpu.fdp, fpu.mxcsr)
    area[_FX_ST : _FX_ST + 128] = b"".join([value.to_bytes(16, "little") for value in fpu.st])
    area[_FX_XMM : _FX_XMM + 256] = b"".join([value.to_bytes(16, "little") for value in fpu.xmm])
    area[XSTATE_BV] |= _X87_AND_SSE


def unpack_fpu(area: bytes, before: Fpu) -> Fpu:
    """x87 and SSE state of an XSAVE area. A component that XSTATE_BV leaves out is as after FNINIT, or zeros; MXCSR
    is there always (SDM vol. 1, 13.8).

    The last instruction's FCS and FDS are those of `before` as long as no x87 instruction came. AMD's CPUs save no
    pointers at all while no exception is pending, unless CPUID says RstrFpErrPtrs (AMD64 APM vol. 3, Fn8000_0008): so
    where they are zeros and the FPU is not as FNINIT leaves it those of `before` stay."""
    fcw, fsw, ftw, fop, fip, fdp, mxcsr = _FX_HEAD.unpack_from(area)
    fpu = Fpu(mxcsr=mxcsr)
    if area[XSTATE_BV] & 1:
        fpu.fcw, fpu.fsw, fpu.ftw, fpu.fop, fpu.fip, fpu.fdp = fcw, fsw, ftw, fop, fip, fdp
        words = _ST.unpack_from(area, _FX_ST)
        fpu.st = [low | high << 64 for low, high in zip(words[::2], words[1::2], strict=True)]
        unsaved = not (fop or fip or fdp) and (fcw, fsw, ftw) != AFTER_FNINIT
        if unsaved or (fip, fdp, fop) == (before.fip, before.fdp, before.fop):
            fpu.fop, fpu.fip, fpu.fcs, fpu.fdp, fpu.fds = before.fop, before.fip, before.fcs, before.fdp, before.fds
    if area[XSTATE_BV] & 2:
        words = _XMM.unpack_from(area, _FX_XMM)
        fpu.xmm = [low | high << 64 for low, high in zip(words[::2], words[1::2], strict=True)]
    return fpu
