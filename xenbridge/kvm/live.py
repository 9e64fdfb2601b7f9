"""The vCPU's state in place: what reads as a CpuState, each attribute from the page that KVM_RUN fills in."""

from __future__ import annotations

import ctypes
import mmap
from typing import Final, Protocol

from emu.x86.modes import Mode, mode_of
from emu.x86.msrs import TSC_ADJUST
from emu.x86.state import CR0_PE, EFER_LMA, RFLAGS_VM, CpuState, Fpu, Segment, Table
from xenbridge.kvm import abi
from xenbridge.kvm import state as parts

_RIP_AT: Final = abi.AT_REGS + abi.Regs.rip.offset
_RFLAGS_AT: Final = abi.AT_REGS + abi.Regs.rflags.offset
_SHADOW_AT: Final = abi.AT_EVENTS + abi.VcpuEvents.interrupt_shadow.offset
_MASKED_AT: Final = abi.AT_EVENTS + abi.VcpuEvents.nmi_masked.offset
SEGMENTS_END: Final = abi.AT_SREGS + parts.SREGS_SIZE


class Beside(Protocol):
    """What of a state is not in the page, as it was known last."""

    @property
    def fpu(self) -> Fpu: ...
    @property
    def dr(self) -> list[int]: ...
    @property
    def msrs(self) -> dict[int, int]: ...
    @property
    def smbase(self) -> int: ...
    @property
    def xcr0(self) -> int: ...
    @property
    def tsc_adjust(self) -> int: ...


class Known:
    """See Beside."""

    def __init__(self) -> None:
        state = CpuState()
        self.fpu, self.dr, self.msrs, self.smbase = Fpu(), state.dr, state.msrs, state.smbase
        self.xcr0 = state.xcr0

    @property
    def tsc_adjust(self) -> int:
        """IA32_TSC_ADJUST."""
        return self.msrs.get(TSC_ADJUST, 0)


class LiveState:
    """Of the vCPU whose kvm_run is `page`; what is not there is `beside`."""

    smm = smm_nmi = False  #: system management mode is never entered here

    def __init__(self, page: mmap.mmap, beside: Beside) -> None:
        self._page, self.beside = page, beside
        word = ctypes.c_uint64.from_buffer
        self._rip, self._rflags = word(page, _RIP_AT), word(page, _RFLAGS_AT)
        self._rsp = word(page, abi.AT_REGS + abi.Regs.rsp.offset)
        sregs = abi.AT_SREGS
        self._cs_base = word(page, sregs + abi.Sregs.cs.offset + abi.Segment.base.offset)
        self._cr0, self._cr2 = word(page, sregs + abi.Sregs.cr0.offset), word(page, sregs + abi.Sregs.cr2.offset)
        self._cr3, self._cr4 = word(page, sregs + abi.Sregs.cr3.offset), word(page, sregs + abi.Sregs.cr4.offset)
        self._cr8, self._efer = word(page, sregs + abi.Sregs.cr8.offset), word(page, sregs + abi.Sregs.efer.offset)
        self._mode: tuple[bytes, int, Mode] = b"", 0, Mode.REAL
        # What KVM is not told.
        self.halted = self.nmi_pending = False
        self.a20 = True

    fpu = property(lambda self: self.beside.fpu)
    dr = property(lambda self: self.beside.dr)
    msrs = property(lambda self: self.beside.msrs)
    smbase = property(lambda self: self.beside.smbase)
    xcr0 = property(lambda self: self.beside.xcr0)
    sysenter, pat = CpuState.sysenter, CpuState.pat  #: of its MSRs

    @property
    def mode(self) -> Mode:
        """See emu.x86.modes.mode_of; found again only when segments or control registers have changed."""
        segments, vm = self._page[abi.AT_SREGS : SEGMENTS_END], self._rflags.value & RFLAGS_VM
        if self._mode[0] != segments or self._mode[1] != vm:
            self._mode = segments, vm, mode_of(self)  # type: ignore[arg-type]
        return self._mode[2]

    @property
    def segments(self) -> bytes:
        """Segments, tables and control registers as one value to compare."""
        return self._page[abi.AT_SREGS : SEGMENTS_END]

    @property
    def regs(self) -> list[int]:
        return parts.unpack_regs(self._page[abi.AT_REGS : abi.AT_SREGS])[0]

    rip = property(lambda self: self._rip.value)
    rsp = property(lambda self: self._rsp.value)
    rflags = property(lambda self: self._rflags.value)
    cr0 = property(lambda self: self._cr0.value)
    cr2 = property(lambda self: self._cr2.value)
    cr3 = property(lambda self: self._cr3.value)
    cr4 = property(lambda self: self._cr4.value)
    efer = property(lambda self: self._efer.value)

    @property
    def cr8(self) -> int:
        value: int = self._cr8.value
        return value

    @cr8.setter
    def cr8(self, value: int) -> None:
        self._cr8.value = value

    @property
    def shadow(self) -> bool:
        return bool(self._page[_SHADOW_AT])

    @property
    def nmi_blocked(self) -> bool:
        return bool(self._page[_MASKED_AT])

    def segment(self, name: str) -> Segment:
        """The segment register `name` (es cs ss ds fs gs ldtr tr)."""
        return parts.segment_at(self._page, abi.AT_SREGS, name)

    es = property(lambda self: self.segment("es"))
    cs = property(lambda self: self.segment("cs"))
    ss = property(lambda self: self.segment("ss"))
    ds = property(lambda self: self.segment("ds"))
    fs = property(lambda self: self.segment("fs"))
    gs = property(lambda self: self.segment("gs"))
    ldtr = property(lambda self: self.segment("ldtr"))
    tr = property(lambda self: self.segment("tr"))

    @property
    def gdtr(self) -> Table:
        return parts.table_at(self._page, abi.AT_SREGS, 0)

    @property
    def idtr(self) -> Table:
        return parts.table_at(self._page, abi.AT_SREGS, 1)

    @property
    def long64(self) -> bool:
        """See CpuState."""
        return bool(self._efer.value & EFER_LMA) and self.cs.long

    @property
    def linear_pc(self) -> int:
        """See CpuState."""
        rip: int = self._rip.value
        if self._efer.value & EFER_LMA and self.mode is Mode.LONG64:
            return rip
        return self._cs_base.value + rip & 0xFFFFFFFF

    @property
    def cpl(self) -> int:
        """See CpuState."""
        if not self._cr0.value & CR0_PE:
            return 0
        return 3 if self._rflags.value & RFLAGS_VM else self.ss.dpl
