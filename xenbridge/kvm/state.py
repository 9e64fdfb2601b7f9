"""CpuState to and from KVM's structures, as bytes: each part apart, so that only what changed is moved.

What has no place there: FCS and FDS, which 64-bit FXSAVE does not have (SDM vol. 1, 10.5.1), XCR0, SMM and the address
mask of A20, which is the virtual machine's (`xenbridge.kvm.vm`).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from typing import Final

from emu.x86 import msrs as m
from emu.x86.register_writes import ACCESS_UNUSABLE
from emu.x86.state import CpuState, Fpu, Segment, Table
from xenbridge.kvm import abi

_MASK64: Final = (1 << 64) - 1
REGS: Final = struct.Struct("<18Q")
#: Where each of emu.x86.state.GENERAL, then RIP and RFLAGS, stand in kvm_regs.
_GENERAL: Final = (0, 2, 3, 1, 6, 7, 4, 5, *range(8, 16))
_SEGMENT: Final = struct.Struct("<QIH9Bx")
_TABLE: Final = struct.Struct("<QH6x")
_SEGMENTS: Final = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr")  #: in the order of kvm_sregs
_SEGMENTS_SIZE: Final = 8 * _SEGMENT.size
_CONTROL: Final = struct.Struct("<7Q32x")  #: CR0, CR2, CR3, CR4, CR8, EFER, APIC base
_CONTROL_AT: Final = _SEGMENTS_SIZE + 2 * _TABLE.size
SREGS_SIZE: Final = _CONTROL_AT + _CONTROL.size
_DEBUG: Final = struct.Struct("<4QQQQ72x")
_EVENTS: Final = struct.Struct("<4BI8BII4B27xBQ")
EVENTS_SIZE: Final = _EVENTS.size
assert REGS.size == ctypes.sizeof(abi.Regs) and ctypes.sizeof(abi.Sregs) == SREGS_SIZE
assert _DEBUG.size == ctypes.sizeof(abi.DebugRegs) and ctypes.sizeof(abi.VcpuEvents) == EVENTS_SIZE

# The legacy area of XSAVE, and XSTATE_BV (SDM vol. 1, 10.5.1 and 13.4).
_FX_HEAD: Final = struct.Struct("<HHBxHQQI")
_FX_ST, _FX_XMM, XSTATE_BV = 32, 160, 512
_X87_AND_SSE: Final = 3
FX_SIZE: Final = XSTATE_BV + 8
FSW_TOP_SHIFT: Final = 11

#: MSRs that a guest's instructions use or change without RDMSR and WRMSR, which all end a native stretch.
NATIVE_MSRS: Final = (
    m.SYSENTER_CS, m.SYSENTER_ESP, m.SYSENTER_EIP, m.STAR, m.LSTAR, m.CSTAR, m.FMASK, m.KERNEL_GS_BASE, m.TSC_AUX,
)  # fmt: skip


def pack_regs(state: CpuState) -> bytes:
    """struct kvm_regs."""
    rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, *rest = state.regs
    return REGS.pack(rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, *rest, state.rip, state.rflags)


def unpack_regs(data: bytes, state: CpuState) -> None:
    """Set the general registers, RIP and RFLAGS."""
    rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags = REGS.unpack(data)
    state.regs = [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15]
    state.rip, state.rflags = rip, rflags


def pack_segment(s: Segment) -> bytes:
    """struct kvm_segment."""
    a = s.access
    unusable = a & ACCESS_UNUSABLE
    return _SEGMENT.pack(
        s.base, s.limit, s.selector, a & 0xF, 0 if unusable else a >> 7 & 1, a >> 5 & 3, a >> 14 & 1, a >> 4 & 1,
        a >> 13 & 1, a >> 15 & 1, a >> 12 & 1, 1 if unusable else 0,
    )  # fmt: skip


def unpack_segment(data: bytes) -> Segment:
    """A descriptor cache of kvm_sregs."""
    base, limit, selector, kind, present, dpl, db, s, long, g, avl, unusable = _SEGMENT.unpack(data)
    access = kind | s << 4 | dpl << 5 | present << 7 | avl << 12 | long << 13 | db << 14 | g << 15
    return Segment(selector, base, limit, access | ACCESS_UNUSABLE if unusable else access)


def pack_sregs(state: CpuState) -> bytes:
    """struct kvm_sregs, with no interrupt on its way."""
    parts = [pack_segment(getattr(state, name)) for name in _SEGMENTS]
    parts += [_TABLE.pack(table.base, table.limit) for table in (state.gdtr, state.idtr)]
    apic = state.msrs.get(m.APIC_BASE, m.APIC_BASE_RESET)
    parts.append(_CONTROL.pack(state.cr0, state.cr2, state.cr3, state.cr4, state.cr8, state.efer, apic))
    return b"".join(parts)


def unpack_sregs(data: bytes, state: CpuState) -> None:
    """Set segments, tables, control registers and EFER. The APIC's base stays: only a WRMSR changes it."""
    size = _SEGMENT.size
    for i, name in enumerate(_SEGMENTS):
        setattr(state, name, unpack_segment(data[i * size : (i + 1) * size]))
    state.gdtr = Table(*_TABLE.unpack_from(data, _SEGMENTS_SIZE))
    state.idtr = Table(*_TABLE.unpack_from(data, _SEGMENTS_SIZE + _TABLE.size))
    state.cr0, state.cr2, state.cr3, state.cr4, state.cr8, state.efer, _ = _CONTROL.unpack_from(data, _CONTROL_AT)


def pack_events(state: CpuState) -> bytes:
    """struct kvm_vcpu_events: nothing is being delivered. CpuState does not know which instruction made a shadow: STI's
    blocks less, and nothing of a boot's code can tell."""
    return _EVENTS.pack(
        0, 0, 0, 0, 0,
        0, 0, 0, abi.SHADOW_STI if state.shadow else 0,
        0, state.nmi_pending, state.nmi_blocked, 0,
        0, abi.EVENT_NMI_PENDING | abi.EVENT_SHADOW, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip


def unpack_events(data: bytes, state: CpuState) -> None:
    """Set the interrupt shadow and what is known of NMIs."""
    values = _EVENTS.unpack(data)
    state.shadow, state.nmi_pending, state.nmi_blocked = (
        bool(values[8]),
        bool(values[9] or values[10]),
        bool(values[11]),
    )


def injected(events: bytes) -> bool:
    """An exception or interrupt is half delivered: what is between two instructions is not in the other parts."""
    return bool(events[0] or events[3] or events[8] or events[12])


def pack_debug(state: CpuState) -> bytes:
    """struct kvm_debugregs."""
    return _DEBUG.pack(*state.dr[:4], state.dr[6], state.dr[7] & 0xFFFFFFFF, 0)


def unpack_debug(data: bytes, state: CpuState) -> None:
    """Set DR0 to DR3, DR6 and DR7."""
    values = _DEBUG.unpack(data)
    state.dr = [*values[:4], 0, 0, values[4], values[5]]


def pack_fpu(fpu: Fpu, area: bytearray) -> None:
    """Put x87 and SSE state into an XSAVE area; its other components stay. FTW is the abridged tag byte in both."""
    _FX_HEAD.pack_into(area, 0, fpu.fcw, fpu.fsw, fpu.ftw, fpu.fop, fpu.fip, fpu.fdp, fpu.mxcsr)
    for i, value in enumerate(fpu.st):
        area[_FX_ST + 16 * i : _FX_ST + 16 * i + 10] = value.to_bytes(10, "little")
    area[_FX_XMM : _FX_XMM + 256] = b"".join(value.to_bytes(16, "little") for value in fpu.xmm)
    area[XSTATE_BV] |= _X87_AND_SSE


def unpack_fpu(area: bytes, before: Fpu) -> Fpu:
    """x87 and SSE state of an XSAVE area. A component that XSTATE_BV leaves out is as after FNINIT, or zeros; MXCSR
    is there always (SDM vol. 1, 13.8). FCS and FDS are those of `before` as long as no x87 instruction came."""
    fcw, fsw, ftw, fop, fip, fdp, mxcsr = _FX_HEAD.unpack_from(area)
    fpu = Fpu(mxcsr=mxcsr)
    if area[XSTATE_BV] & 1:
        fpu.fcw, fpu.fsw, fpu.ftw, fpu.fop, fpu.fip, fpu.fdp = fcw, fsw, ftw, fop, fip, fdp
        fpu.st = [int.from_bytes(area[_FX_ST + 16 * i : _FX_ST + 16 * i + 10], "little") for i in range(8)]
        if (fip, fdp, fop) == (before.fip, before.fdp, before.fop):
            fpu.fcs, fpu.fds = before.fcs, before.fds
    if area[XSTATE_BV] & 2:
        fpu.xmm = [int.from_bytes(area[_FX_XMM + 16 * i : _FX_XMM + 16 * i + 16], "little") for i in range(16)]
    return fpu


def native_msrs(values: Mapping[int, int], has: frozenset[int]) -> dict[int, int]:
    """Of the MSRs of a state those that `NATIVE_MSRS` names and the vCPU `has`, by number."""
    return {number: values.get(number, 0) for number in NATIVE_MSRS if number in has}
