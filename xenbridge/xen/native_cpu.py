"""XenVcpu: a domain's vCPU as the machine's native one, an `emu.vcpu.Vcpu` over memory that both share.

It counts no instructions: what passes is wall time. Breakpoints, watchpoints and single steps are the emulator's, as
are system management mode and A20 masked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from emu.engine import Change, EngineError, Exit, Fault, MemoryRegion, MsrDevice, Watch
from emu.vcpu import ExitCause, Place, VmExit
from emu.x86.modes import Mode
from emu.x86.msrs import TSC_ADJUST
from emu.x86.state import CpuState
from emu.x86.vmentry import SVM, VTX, Broken, Rules
from xenbridge.xen.context import ContextError
from xenbridge.xen.libraries import Libraries, XenError
from xenbridge.xen.native_runs import MASK64, NativeRuns

_CPUINFO: Final = Path("/proc/cpuinfo")
_LIMITS: Final = "docs/xen.md"


def rules_of(base: Rules) -> Rules:
    """What Xen's vCPU enters: what the CPU does, as far as Xen's CPU record can say it."""

    def check(state: CpuState) -> Iterator[Broken]:
        yield from base.check(state)
        if state.smm:
            yield Broken("smm", "system management mode is the emulator's", _LIMITS)
        if not state.a20:
            yield Broken("a20", "A20 is masked, which no domain knows", _LIMITS)
        if state.nmi_pending or state.nmi_blocked:
            yield Broken("nmi", "NMIs are pending or blocked, which is no part of Xen's CPU record", _LIMITS)
        if state.shadow:
            yield Broken("rflags", "the shadow of STI or MOV SS is no part of Xen's CPU record", _LIMITS)

    return Rules("xen", f"a domain of Xen on {base.title}", check, never=base.never)


def make_xen(notice: Callable[[str], None]) -> Callable[[Place], XenVcpu]:
    """Makes the native CPU of a machine. Raises EngineError with a sentence outside of dom0."""
    try:
        libraries = Libraries()
    except XenError as error:
        raise EngineError(f"--hypervisor xen: {error}") from error
    return lambda place: XenVcpu(place, rules_here(), libraries, notice)


def rules_here() -> Rules:
    """What a vCPU enters on this host."""
    try:
        intel = "GenuineIntel" in _CPUINFO.read_text()
    except OSError:
        intel = False
    return rules_of(VTX if intel else SVM)


class XenVcpu(NativeRuns):
    """See emu.vcpu.Vcpu."""

    name = "xen"
    title = "a domain of Xen"
    counts = translates = real_is_v86 = False
    exiting = 0  # Xen answers all of them by itself
    _others = ""  # stops that are set and cannot be kept
    _points: frozenset[int] = frozenset()

    def unable(self) -> str:
        """See Vcpu. What is lost is for `enter` to say: no other CPU can go on with it."""
        if self.gone:
            return "" if self.lost else self.gone
        if self._points:
            return "breakpoints are set, at which Xen does not stop a domain"
        return f"{self._others} are set, which only the emulator keeps" if self._others else ""

    def forbid(self, ranges: Sequence[tuple[int, int]], modes: Collection[Mode]) -> None:
        """See Vcpu. It cannot exit there: it is only kept from being entered there."""

    def exits_at(self, code: bytes, state: CpuState) -> tuple[ExitCause, int, bool] | None:
        """See Vcpu."""
        return None

    def complete(self, exit: VmExit) -> Exit:
        """See Vcpu. No exit of this one is completed by it."""
        raise EngineError(f"xen leaves {exit.cause.value} to the emulator")

    def state(self) -> CpuState:
        """See Cpu."""
        self._settled()
        state = self.live().copy()
        if not self.gone:
            self._kept, self._ran = state.copy(), False
        if self._injected is not None:  # nothing of it has happened, and INTR asks for it still
            self._give_again(state)
        return state

    def _settled(self) -> None:
        try:
            self._settle()
        except (XenError, ContextError) as error:
            self._lose(error)

    def _give_again(self, state: CpuState) -> None:
        try:
            self._give(state)
        except (XenError, ContextError) as error:
            self._lose(error)

    def load(self, state: CpuState) -> None:
        """See Cpu."""
        self._settled()
        self._kept, self._ran = state.copy(), False
        if self.gone:
            return
        try:
            if self.domain_halts and not state.halted:
                self._unblock()
        except (XenError, ContextError) as error:
            self._lose(error)
        self._give_again(state.copy())

    @property
    def domain_halts(self) -> bool:
        """To Xen the vCPU waits for an interrupt."""
        return "blocked" in self.domain.states()

    @property
    def cs_ip(self) -> tuple[int, int]:
        """See Cpu."""
        state = self.live()
        return state.cs.selector, state.rip

    @property
    def halted(self) -> bool:
        """See Cpu."""
        return self._halted

    def undisturbed(self) -> bool:
        """See Cpu. Never: a step is for `enter`."""
        return False

    @property
    def resuming(self) -> tuple[int, int, bool] | None:
        """See Cpu."""
        return None

    def resume(self, place: tuple[int, int, bool]) -> None:
        """See Cpu."""

    @property
    def behind(self) -> int:
        """See Cpu. Xen does not tell."""
        return MASK64

    def go_on_behind(self, pc: int) -> None:
        """See Cpu."""

    def set_retired(self, count: int) -> None:
        """See Cpu."""
        self.retired = count

    def request_stop(self) -> None:
        """See Cpu."""
        self._stop = True
        self._wake.set()

    # -- interrupts

    def set_interrupt(self, vector: int | None, *, last: bool = False) -> None:
        """See Cpu. A stretch that goes on looks at it within a millisecond or ten."""
        self._vector = vector

    def take_interrupt(self) -> int | None:
        """See Cpu."""
        taken, self._taken = self._taken, None
        return taken

    def on_task_priority(self, callback: Callable[[int], None] | None) -> None:
        """See Cpu. CR8 is that of Xen's LAPIC, which is off."""

    def set_task_priority(self, value: int) -> None:
        """See Cpu."""
        self._kept.cr8 = value

    def raise_nmi(self) -> None:
        """See Cpu. The emulator delivers it."""
        self._kept.nmi_pending, self._halted = True, False
        self._moved()
        self._wake.set()

    def on_fault(self, callback: Callable[[Fault], None] | None) -> None:
        """See Cpu. Xen does not tell of exceptions that it delivers."""

    # -- memory

    def set_a20(self, enabled: bool) -> None:
        """See Cpu. Masked, the state is not entered again."""
        self._kept.a20 = enabled
        self._moved()

    def memory_changed(self, physical: int, length: int) -> None:
        """See Cpu. The domain executes from memory itself."""

    def remap(self, regions: Sequence[MemoryRegion]) -> None:
        """See Cpu. Raises EngineError where the map changes: a domain's memory stands where it was put."""
        now = [(r.base, r.size, r.kind, r.host_address) for r in regions]
        if now != [(r.base, r.size, r.kind, r.host_address) for r in self._place.regions]:
            raise EngineError("--hypervisor xen: the map of memory changes, which a domain's does not")

    def mark_writes(self, host_address: int, pages: int, marks: int) -> Callable[[], None] | None:
        """See Cpu. Xen does not tell which pages were written."""
        return None

    def trace_pages(self, host_address: int, pages: int) -> None:
        """See Vcpu."""

    def take_written(self) -> Iterable[int] | None:
        """See Vcpu. None, it cannot tell, where it has run."""
        wrote, self._wrote = self._wrote, False
        return None if wrote else ()

    # -- debugging

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        """See Cpu."""
        self._points = frozenset(linear)

    def set_event_stops(self, classes: int, physical: Iterable[int], changes: Change) -> None:
        """See Cpu."""
        self._set_other("stops at instructions, places or modes", bool(classes) or bool(tuple(physical) or changes))

    def set_watchpoints(self, watches: Iterable[Watch]) -> None:
        """See Cpu."""
        self._set_other("watchpoints", any(True for _ in watches))

    def _set_other(self, words: str, wanted: bool) -> None:
        others = [word for word in self._others.split(" and ") if word and word != words]
        self._others = " and ".join([*others, words] if wanted else others)

    # -- system registers

    def time_stamp(self) -> int:
        """See Cpu. The machine's; while it runs natively the guest sees the host's, set to this at each entry."""
        return self._place.timestamp() + self.live().msrs.get(TSC_ADJUST, 0) & MASK64

    def on_time_stamp(self, callback: Callable[[], None] | None) -> None:
        """See Cpu. Xen does not tell of it."""

    def claim_msr(self, number: int, device: MsrDevice) -> None:
        """See Cpu. MSRs that devices have are Xen's while it runs natively: no machine with such devices runs so."""

    def read_msr(self, number: int) -> int | None:
        """See Cpu. Of those that a state has."""
        return self.state().msrs.get(number)

    def write_msr(self, number: int, value: int) -> bool:
        """See Cpu. Of those that a state has."""
        state = self.state()
        if number not in state.msrs:
            return False
        state.msrs[number] = value
        self._give_again(state)
        return True

    def close(self) -> None:
        """See Cpu. The domain is destroyed; the machine's memory keeps what it holds."""
        for step in (self._server.close, self._channels.close, self._memory.close, self.domain.destroy):
            try:
                step()
            except XenError:
                continue
        self._wake.close()
        self._libraries.close()
