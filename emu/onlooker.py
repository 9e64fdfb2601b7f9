"""The debugger's interface over what is no machine of ours: what a subject has, and of one that is only looked at, the
refusal of all that runs or writes."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import TYPE_CHECKING, cast

from emu.catches import Catch
from emu.debugger import Debugger
from emu.inspector import READ_ONLY, DebuggerError, Inspector
from emu.journal import Event
from emu.machine import Machine
from emu.packed import Flat
from emu.quiet import Quiet
from emu.steering import Steering
from emu.stops import BreakKind, Breakpoint, Condition, Stop, StopKind
from emu.subject import Several, Subject
from emu.views import EntryView, LastingView, RegisterView, SegmentView
from emu.x86.cpuid import DEFAULT_MODEL, MODELS
from emu.x86.msrs import msrs_of
from emu.x86.state import CpuState

if TYPE_CHECKING:
    from emu.lasting import Lasting
    from emu.x86.vmentry import Rules

NO_MACHINE = "this is only looked at: no machine is behind it that could run, be written, or say more"

#: What the rules of native entry ask for.
_ENTRY = ("cs.access", "cs.limit", "ss.access", "tr", "gdtr", "efer")


class _Nobody:
    """In the machine's place, as far as who executes is asked."""

    transitions = None


class _Nothing:
    """In place of what tells of handlers that do not come back, where no handler runs that is stepped through."""

    def add_listener(self, told: Callable[[LastingView], None]) -> None:
        pass

    def remove_listener(self, told: Callable[[LastingView], None]) -> None:
        pass

    def renew(self) -> None:
        pass


class Visitor(Debugger):
    """The views, by what the subject has: nobody counts instructions or keeps a journal."""

    source = "the file"  #: where values come from, in words
    lasting = cast("Lasting", _Nothing())

    def _stood(self) -> CpuState:
        return self.cpu()

    def live_cpu(self) -> CpuState:
        return self.cpu()

    def flat_cpu(self) -> Flat | None:
        return None

    def quiet_looks(self) -> Quiet | None:
        return None

    def begin_quiet(self, run: int = 0, watches: Container[int] = ()) -> Quiet | None:
        return None

    @property
    def retired(self) -> int | None:
        return None

    @property
    def virtual_ns(self) -> int | None:
        return None

    def events(self) -> tuple[Event, ...]:
        return ()

    def msr_names(self) -> Mapping[str, int]:
        """Those that the subject knows, by the names they have on the CPU model with the most."""
        if "msrs" in self.unknown():
            return {}
        named = {msr.number: msr.name for msr in msrs_of(MODELS[DEFAULT_MODEL].with_apic()).values()}
        return {named.get(number, f"msr_{number:x}"): number for number in sorted(self.cpu().msrs)}

    def msrs(self) -> tuple[RegisterView, ...]:
        self.need("msrs")
        held = self.cpu().msrs
        return tuple(RegisterView(name, 64, held[n], f"{n:x}h") for name, n in self.msr_names().items())

    def msr(self, number: int) -> int:
        self.need("msrs")
        value = self.cpu().msrs.get(number)
        if value is None:
            raise DebuggerError(f"MSR {number:#x} is not in {self.source}")
        return value

    def native_segments(self, rules: Rules) -> tuple[SegmentView, ...]:
        self.need(*_ENTRY)
        return super().native_segments(rules)

    def why(self, rules: Rules) -> EntryView:
        self.need(*_ENTRY)
        return EntryView(
            rules.name, rules.title, tuple(str(broken) for broken in rules.broken(self.cpu(), self._try_physical))
        )


class Onlooker(Visitor):
    """`about`: a sentence that says what is looked at; it is the reason why the guest stands still.

    What is not overridden here asks for the machine, and is refused with it."""

    def __init__(self, subject: Subject, about: str) -> None:
        Inspector.__init__(self, subject)
        self.steering = Steering(_Nobody())  # type: ignore[arg-type]
        self.step_whole_repeats = self.step_into_interrupts = False
        self.poll = lambda: False
        self._breakpoints: dict[int, Breakpoint] = {}
        self._passing: list[Breakpoint] = []
        self._action, self._acting, self._unarmed = None, False, False
        self.last_stop = Stop(StopKind.PAUSED, about, self.linear_pc() or 0, 0)

    @property
    def machine(self) -> Machine:  # type: ignore[override]
        raise DebuggerError(NO_MACHINE)

    def show_vcpu(self, cpu: int) -> None:
        super().show_vcpu(cpu)
        if isinstance(self.subject, Several):
            self.last_stop = Stop(StopKind.PAUSED, self.subject.about, self.linear_pc() or 0, 0)

    def request_stop(self) -> None:
        """Nothing runs."""

    # -- what is refused

    def add_breakpoint(
        self,
        kind: BreakKind,
        address: int,
        length: int = 1,
        *,
        owner: str = "prompt",
        temporary: bool = False,
        spec: str = "",
        condition: Condition | None = None,
        action: Callable[[], None] | None = None,
        passes: bool = False,
    ) -> Breakpoint:
        raise DebuggerError(READ_ONLY)

    def add_catch(
        self,
        catch: Catch,
        *,
        owner: str = "prompt",
        temporary: bool = False,
        condition: Condition | None = None,
        action: Callable[[], None] | None = None,
    ) -> Breakpoint:
        raise DebuggerError(READ_ONLY)

    def _arm_watches(self) -> None:
        """There are none."""

    def _begin(self, action: object) -> None:
        if hasattr(action, "close"):
            action.close()
        raise DebuggerError(READ_ONLY)

    def write_msr(self, number: int, value: int) -> None:
        raise DebuggerError(READ_ONLY)
