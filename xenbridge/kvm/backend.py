"""What one host's KVM can do, as probed, and the rules that follow: which states may run natively on it."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Final

from emu.record import dataclass
from emu.x86.modes import REAL_LIMIT, Mode
from emu.x86.state import (
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    EFER_LMA,
    RFLAGS_VM,
    CpuState,
)
from emu.x86.vmentry import Broken, Rules

CR4_OSXSAVE: Final = 1 << 18
DR7_ENABLES: Final = 0xFF
SOURCE: Final = "as probed; v2e doctor has all of it"
LIMITS: Final = "a limit of the engine: docs/kvm.md"


EVERYWHERE: Final = frozenset((16, 32, 64))  #: in code of each width


class Kind(enum.Enum):
    """States that a KVM may or may not be able to run. The value is the words for it."""

    REAL = "real mode"
    BIG_REAL = "big real mode"
    PROTECTED16 = "16-bit protected mode with based segments"
    PROTECTED32 = "32-bit protected mode, flat"
    BASED32 = "32-bit protected mode with based segments"
    RING3 = "32-bit protected mode, ring 3"
    V86 = "virtual-8086 mode"
    PAGED32 = "32-bit paging"
    PAGED32_RING3 = "32-bit paging, ring 3"
    PAE = "PAE paging"
    PAE_RING3 = "PAE paging, ring 3"
    LONG = "64-bit mode"
    LONG_RING3 = "64-bit mode, ring 3"
    COMPATIBILITY = "compatibility mode"
    COMPATIBILITY_RING3 = "compatibility mode, ring 3"


class Way(enum.Enum):
    """How an interrupt may reach its handler. The value is the words for it."""

    PLAIN = "by a gate as wide as the code"
    TRAP = "through a trap gate"
    GATE16 = "through a 16-bit gate"
    SMALL = "to a stack of 16-bit addresses"
    BASED = "to a handler's stack with a base"
    CONFORMING = "to a handler in a conforming segment"
    HIGH_ESP = "with more than 16 bits in ESP"


def kind_of(state: CpuState) -> Kind:
    """Which of them a state is one of."""
    if not state.cr0 & CR0_PE:
        s = state
        limit = max(s.cs.limit, s.ds.limit, s.es.limit, s.ss.limit, s.fs.limit, s.gs.limit)
        return Kind.BIG_REAL if limit > REAL_LIMIT else Kind.REAL
    if state.rflags & RFLAGS_VM:
        return Kind.V86
    user = state.ss.dpl == 3
    if state.efer & EFER_LMA:
        if state.cs.long:
            return Kind.LONG_RING3 if user else Kind.LONG
        return Kind.COMPATIBILITY_RING3 if user else Kind.COMPATIBILITY
    if state.cr0 & CR0_PG:
        if state.cr4 & CR4_PAE:
            return Kind.PAE_RING3 if user else Kind.PAE
        return Kind.PAGED32_RING3 if user else Kind.PAGED32
    if not state.cs.big:
        return Kind.PROTECTED16
    if user:
        return Kind.RING3
    return Kind.BASED32 if state.cs.base or state.ss.base or state.ds.base else Kind.PROTECTED32


#: Kinds of paging that an instruction of ring 0 turns on without an exit: that of IA-32e mode needs a WRMSR before.
PAGED: Final = frozenset((Kind.PAGED32, Kind.PAGED32_RING3, Kind.PAE, Kind.PAE_RING3))
NEXT_TO_PAGING: Final = frozenset((Kind.PROTECTED16, Kind.PROTECTED32, Kind.BASED32))
#: Of each mode what its states are by `kind_of`. Big real mode may be one by CS.D alone, with the limits of real mode.
KINDS_OF: Final[Mapping[Mode, frozenset[Kind]]] = {
    Mode.REAL: frozenset((Kind.REAL,)),
    Mode.BIG_REAL: frozenset((Kind.REAL, Kind.BIG_REAL)),
    Mode.PROTECTED16: PAGED | {Kind.PROTECTED16},
    Mode.PROTECTED32: PAGED | {Kind.PROTECTED32, Kind.BASED32, Kind.RING3},
    Mode.V86: frozenset((Kind.V86,)),
    Mode.LONG64: frozenset((Kind.LONG, Kind.LONG_RING3)),
    Mode.COMPAT32: frozenset((Kind.COMPATIBILITY, Kind.COMPATIBILITY_RING3)),
    Mode.COMPAT16: frozenset((Kind.COMPATIBILITY, Kind.COMPATIBILITY_RING3)),
}


@dataclass(frozen=True, slots=True)
class Backend:
    """What was found. `modules` are the kernel's ("kvm_intel"), empty where they are not told."""

    modules: tuple[str, ...]
    #: a program of a few instructions came to its end, with the right result, and a plain interrupt to its handler
    runs: frozenset[Kind]
    breaks: frozenset[int]  #: widths of code (16, 32, 64) in which hardware breakpoints stop
    steps: frozenset[int]  #: the same of single steps
    watches: bool  #: data watchpoints stop
    msr_exits: bool  #: RDMSR and WRMSR end a run
    sees_tables: bool  #: page tables written by others take effect
    sets_tsc: bool  #: the time-stamp counter can be set
    exit_ns: int  #: what a port access costs, to the process and back
    refuses: tuple[tuple[str, frozenset[int]], ...]  #: family of instructions, and in which widths it is refused
    #: of kinds that run: the ways on which an interrupt or exception does not arrive as the SDM says
    misdelivers: tuple[tuple[Kind, tuple[Way, ...]], ...] = ()

    @property
    def name(self) -> str:
        return "+".join(self.modules) or "unknown module"

    def rules(self) -> Rules:
        """The rule set `kvm`."""
        never = {
            mode: f"{mode.label} mode does not run on this host's KVM ({self.name}; {SOURCE})"
            for mode, kinds in KINDS_OF.items()
            if all(map(self.unsafe, kinds))
        }
        return Rules("kvm", f"this host's KVM as probed ({self.name})", self.check, never=never)

    def check(self, state: CpuState) -> Iterator[Broken]:
        """Every reason not to run `state` natively here."""
        kind = kind_of(state)
        if kind not in self.runs:
            yield Broken("cr0", f"{kind.value} does not run on this host's KVM ({self.name})", SOURCE)
        elif wrong := self.wrong_ways(kind):
            yield Broken("cr0", f"in {kind.value} {self.name} delivers interrupts wrongly {wrong}", SOURCE)
        elif self.unsafe(kind):
            yield Broken("cr0", f"from {kind.value} a guest can turn on paging, which {self.name} ignores", SOURCE)
        if state.smm:
            yield Broken("smm", "system management mode is the emulator's", LIMITS)
        if state.nmi_pending:
            yield Broken("nmi", "an NMI is pending, which the emulator delivers", LIMITS)
        if state.cr4 & CR4_OSXSAVE:
            yield Broken(
                "cr4", f"CR4 {state.cr4:#x} has OSXSAVE, and what XCR0 adds to SSE is not carried over", LIMITS
            )
        if state.dr[7] & DR7_ENABLES and not self.breaks_everywhere:
            yield Broken("dr7", f"DR7 {state.dr[7]:#x} enables breakpoints, which do not stop here", SOURCE)

    def unsafe(self, kind: Kind) -> bool:
        """It does not run, or the next instruction may go where KVM does not follow, or an interrupt or exception
        arrive wrongly: by tables that the guest may write at any time, and exceptions are delivered with no exit."""
        return kind not in self.runs or (kind in NEXT_TO_PAGING and not self.pages) or bool(self.wrong_ways(kind))

    def wrong_ways(self, kind: Kind) -> str:
        """The ways on which interrupts arrive wrongly in a kind, in words; empty: none that keeps it from running."""
        ways = next((ways for wrong, ways in self.misdelivers if wrong is kind), ())
        return ", ".join(way.value for way in ways if way is not Way.HIGH_ESP)

    @property
    def loses_esp(self) -> bool:
        """An interrupt in real mode clears the upper half of ESP."""
        return any(Way.HIGH_ESP in ways for _, ways in self.misdelivers)

    @property
    def runs_all(self) -> bool:
        """A guest can come nowhere natively that does not run."""
        return not any(map(self.unsafe, Kind))

    def findings(self) -> tuple[tuple[str, bool | None, str], ...]:
        """For `v2e doctor`: (subject, whether all is there, sentence); None for what is merely absent."""
        missing = [kind.value for kind in Kind if kind not in self.runs]
        modes = f"{len(self.runs)} of {len(Kind)} kinds of state run natively"
        wrong = [f"{kind.value} ({', '.join(way.value for way in ways)})" for kind, ways in self.misdelivers]
        refused = [f"{name} ({_widths(widths)})" for name, widths in self.refuses]
        stops = [
            ("hardware breakpoints", self.breaks == EVERYWHERE), ("single steps", self.steps == EVERYWHERE),
            ("data watchpoints", self.watches), ("exits for MSRs", self.msr_exits),
            ("a TSC that is set", self.sets_tsc), ("page tables that others write", self.sees_tables),
        ]  # fmt: skip
        works = [name for name, ok in stops if ok]
        lacks = [name for name, ok in stops if not ok]
        return (
            ("kvm", bool(self.runs), f"{self.name}, a port access takes {self.exit_ns / 1000:.1f} us"),
            ("kvm modes", None if missing else True, f"{modes}; not: {'; '.join(missing)}" if missing else modes),
            ("kvm interrupts", None if wrong else True,
             f"wrong, so emulated: {'; '.join(wrong)}" if wrong else "arrive by every way that was tried"),
            ("kvm instructions", None if refused else True,
             f"refused, so emulated: {', '.join(refused)}" if refused else "all that were tried are executed"),
            ("kvm has", None if lacks else True,
             f"{', '.join(works) or 'nothing'}" + (f"; not: {', '.join(lacks)}" if lacks else "")),
        )  # fmt: skip

    @property
    def pages(self) -> bool:
        """All kinds of paging run. KVM tells of no write to CR0, so where one does not run, the modes before it are not
        safe either."""
        return self.runs >= PAGED

    @property
    def breaks_everywhere(self) -> bool:
        """Hardware breakpoints stop in code of every width that runs."""
        return self.breaks == EVERYWHERE


def _widths(widths: frozenset[int]) -> str:
    if widths == EVERYWHERE:
        return "everywhere"
    return "in " + " and ".join(f"{width}-bit" for width in sorted(widths)) + " code"
