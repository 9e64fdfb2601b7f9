"""The CPU's state seen in place, field by field as it is asked for: for conditions, which look at one or two of them.

A whole copy costs some 40 us, most of it for registers nobody asks about.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from emu.typed import Any, cast
from emu.unicorn_layout import CPU_INTERRUPT_NMI, HF2_NMI, HF_CS64, HF_INHIBIT_IRQ, Env, EnvSegment, offset_of
from emu.unicorn_overlay import Overlay
from emu.unicorn_state import AVAILABLE_TSS, SYSTEM_TYPE, TSS_BUSY, accessed
from emu.x86.paging import MAX_PHYSICAL_BITS
from emu.x86.state import RFLAGS_VM, RFLAGS_ZERO, CpuState, Segment, Table

_ACCESS_BITS = 0xF0FF  #: of the descriptor's second dword, shifted right by 8
_PRESENT = 1 << 7
_UNUSABLE = 1 << 16
#: ES CS SS DS FS GS LDTR TR GDTR IDTR.
_TABLES_SIZE = offset_of(Env, "cr") - offset_of(Env, "segs")
_RESERVED_OR_VM = RFLAGS_ZERO | RFLAGS_VM
_BIG = 1 << 22  #: D/B in the descriptor's second dword


class _LiveSegment:
    """Reads as a Segment does."""

    __slots__ = ("_source",)

    def __init__(self, source: EnvSegment) -> None:
        self._source = source

    @property
    def selector(self) -> int:
        return self._source.selector

    @property
    def base(self) -> int:
        return self._source.base

    @property
    def limit(self) -> int:
        return self._source.limit

    @property
    def access(self) -> int:
        access = self._source.flags >> 8 & _ACCESS_BITS
        return access if access & _PRESENT else access | _UNUSABLE

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Segment | _LiveSegment) and all(
            getattr(self, name) == getattr(other, name) for name in ("selector", "base", "limit", "access")
        )

    __hash__ = None  # type: ignore[assignment]  # as of a Segment, which may be changed

    type, dpl, present, big, long = Segment.type, Segment.dpl, Segment.present, Segment.big, Segment.long


class _LoadedSegment(_LiveSegment):
    """CS or SS: see `accessed` of emu.unicorn_state."""

    __slots__ = ()

    @property
    def access(self) -> int:
        return accessed(super().access)


class LiveState:
    """Reads as a CpuState does, between two runs. What has no place of its own here comes from a whole copy."""

    def __init__(
        self,
        overlay: Overlay,
        whole: Callable[[], CpuState],
        efer: Callable[[], int],
        halted: Callable[[], bool],
        smm: Callable[[], bool],
    ) -> None:
        self._env, self._whole, self._efer = overlay.env, whole, efer
        self._halted, self._smm, self._request = halted, smm, overlay.request
        #: what `brief` gives, in less time
        self.quick: Callable[[], tuple[int, ...]] | None = None
        self.regs, self._cr = overlay.env.regs, overlay.env.cr  #: views, not copies
        self._cs, self._ss = overlay.env.segs[1], overlay.env.segs[2]
        self._tables = (ctypes.c_char * _TABLES_SIZE).from_address(overlay.env_address + offset_of(Env, "segs"))
        es, cs, ss, *others = overlay.env.segs
        self.cs, self.ss = _LoadedSegment(cs), _LoadedSegment(ss)
        self.es, self.ds, self.fs, self.gs = map(_LiveSegment, (es, *others))

    cpl = CpuState.cpl

    @property
    def long64(self) -> bool:
        return bool(self._env.hflags & HF_CS64)

    @property
    def linear_pc(self) -> int:
        env = self._env
        return env.eip if env.hflags & HF_CS64 else self._cs.base + env.eip & 0xFFFFFFFF

    def brief(self) -> tuple[int, ...]:
        """See CpuState."""
        if self.quick is not None:
            return self.quick()
        env, cs, regs = self._env, self._cs, self.regs
        rip, wide = env.eip, env.hflags & HF_CS64
        pc = rip if wide else cs.base + rip & 0xFFFFFFFF
        bits = 64 if wide else 32 if cs.flags & _BIG else 16
        where = pc, rip, regs[4], regs[5], env.eflags | 2, cs.selector, self._ss.selector, bits
        return *where, *regs[:4], *regs[6:8], self._cr[0]

    @property
    def rip(self) -> int:
        return self._env.eip

    @property
    def rflags(self) -> int:
        return self._env.eflags | 2

    @property
    def cr0(self) -> int:
        return self._cr[0]

    @property
    def cr2(self) -> int:
        return self._cr[2]

    @property
    def cr3(self) -> int:
        return self._cr[3]

    @property
    def cr4(self) -> int:
        return self._cr[4]

    @property
    def dr(self) -> list[int]:
        found = list(self._env.dr)
        found[4] = found[5] = 0  # as in emu.unicorn_state
        return found

    @property
    def sysenter(self) -> tuple[int, int]:
        return self._env.sysenter_esp, self._env.sysenter_eip

    @property
    def pat(self) -> int:
        value: int = self._env.pat
        return value

    @property
    def a20(self) -> bool:
        return bool(self._env.a20_mask & 1 << 20)

    @property
    def efer(self) -> int:
        return self._efer()  # a bit of it is kept from Unicorn

    @property
    def halted(self) -> bool:
        return self._halted()

    @property
    def smm(self) -> bool:
        return self._smm()

    @property
    def nmi_pending(self) -> bool:
        return bool(self._request.value & CPU_INTERRUPT_NMI)

    @property
    def nmi_blocked(self) -> bool:
        return bool(self._env.hflags2 & HF2_NMI)

    @property
    def shadow(self) -> bool:
        return bool(self._env.hflags & HF_INHIBIT_IRQ)

    @property
    def gdtr(self) -> Table:
        return Table(self._env.gdt.base, self._env.gdt.limit)

    @property
    def idtr(self) -> Table:
        return Table(self._env.idt.base, self._env.idt.limit)

    @property
    def ldtr(self) -> Segment:
        return _copy(self._env.ldt)

    @property
    def tr(self) -> Segment:
        found = _copy(self._env.tr)
        if found.present and found.access & SYSTEM_TYPE in AVAILABLE_TSS:
            found.access |= TSS_BUSY  # as in emu.unicorn_state
        return found

    def entry_key(self) -> tuple[object, ...]:
        """All that decides whether a hypervisor's CPU can enter the state (emu.x86.vmentry), and little else: equal
        keys have equal answers."""
        env, cr = self._env, self._cr
        return (
            self._tables.raw, cr[0], cr[3] >> MAX_PHYSICAL_BITS, cr[4], self._efer(),
            env.eflags & _RESERVED_OR_VM, env.hflags & HF_INHIBIT_IRQ, env.eip >> 32, env.dr[6] >> 32, env.dr[7],
            env.sysenter_esp >> 47, env.sysenter_eip >> 47, env.pat, self._halted(), self._smm(),
            self._request.value & CPU_INTERRUPT_NMI,
        )  # fmt: skip

    def segment(self, name: str) -> Segment:
        """A segment register with its cache."""
        return cast(Segment, getattr(self, name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole(), name)


def _copy(source: EnvSegment) -> Segment:
    access = source.flags >> 8 & _ACCESS_BITS
    return Segment(source.selector, source.base, source.limit, access if access & _PRESENT else access | _UNUSABLE)
