"""What it means that the machine has stopped: which breakpoints are met, what they do, and the Stop in words."""

from __future__ import annotations

from collections.abc import Callable

from emu.breakpoints import Counted
from emu.engine import Access, WatchHit
from emu.followers import Followers
from emu.inspector import MAX_INSTRUCTION, DebuggerError
from emu.machine import Machine
from emu.machine_exits import LIMIT, MachineExit, MachineStop
from emu.points import Points
from emu.stops import BreakKind, Breakpoint, Stop, StopKind, fault_chain
from emu.x86 import disasm
from emu.x86.modes import code_bits

#: Exits behind which events are told of; the others are the guest's end.
_CATCHING = (MachineStop.LIMIT, MachineStop.REQUEST, MachineStop.BREAKPOINT, MachineStop.WATCHPOINT, MachineStop.EVENT)
#: Exits after which the screen will not change any more: `text:` is matched once again.
_LAST_LOOK = (MachineStop.DEADLOCK, MachineStop.STANDSTILL, MachineStop.SHUTDOWN, MachineStop.POWEROFF)


def hit_words(hit: WatchHit, where: str) -> str:
    """What stands behind the watchpoints' numbers; `where` is CS:IP behind the access."""
    verb = "wrote" if hit.access is Access.WRITE else "read"
    place = f"physical {hit.address:#x}" if hit.watch.physical else f"{hit.address:#x}"
    return f": {verb} {hit.value:#x} ({hit.size} bytes) at {place}, now at {where}"


class Meeting(Points):
    """See the module's head."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self._passed_at = -1  # instructions retired at the breakpoint passed last
        self._plain = 0  # steps that an action may do by itself before it asks for the next
        self.evaluated = 0  #: conditions and actions that were evaluated, which take the host's time and no guest's
        self._followers = Followers()
        self._met: Stop | None = None  #: that of the breakpoints `_passed` has looked at last

    def _here(self) -> tuple[int, int]:
        """Linear PC and linear stack pointer: where a handler must come back to."""
        state = self.machine.cpu_state()
        return state.linear_pc, (state.regs[4] if state.long64 else (state.ss.base + state.regs[4]) & 0xFFFFFFFF)

    def _stop_at(self, kind: StopKind, text: str, **more: object) -> Stop:
        executor = self.machine.executor
        return Stop(kind, text, executor.linear_pc, executor.retired, **more)  # type: ignore[arg-type]

    def _stop_by(self, kind: StopKind, counted: Counted, happened: str, hit: WatchHit | None = None) -> Stop:
        """The stop of breakpoints, whose kind is also what the sentence calls them; `happened` stands behind that."""
        text = f"{counted.names(kind.value)}{happened}{counted.failures}"
        return self._stop_at(
            kind, text, breakpoints=counted.stops, hit=hit, happened=happened, met=tuple(dict.fromkeys(counted.met))
        )

    def _where(self) -> str:
        cs, ip = self.machine.executor.cs_ip
        return f"{cs:04x}:{ip:04x}"

    def _count(self, counted: Counted, point: Breakpoint) -> bool:
        """As `counted.add`. What it evaluates may take long: whoever waits is looked for before the next step."""
        if point.condition is not None or point.action is not None:
            self.evaluated += 1
            self._plain = 0
        return counted.add(point)

    def follow(self, told: Callable[[], bool]) -> None:
        """Call `told` behind each instruction that the CPU executes from here on, those of handlers among them, until
        it gives False; also asked for from within an action of a breakpoint. Raises DebuggerError where instructions
        are not counted."""
        self.check_follow()
        self._followers.add(told, self.machine.executor.retired)
        self._plain = 0  # what an action does by itself

    def check_follow(self) -> None:
        """Raises what `follow` raises."""
        transitions = self.machine.transitions
        if transitions is not None and not transitions.vcpu.counts:
            raise DebuggerError(f"{transitions.vcpu.name} does not count instructions, so none can be followed")

    def _passed(self) -> bool:
        """True when none of the breakpoints just met stops: the machine goes on by itself."""
        self.forget()
        self._met = self._breakpoint_here()
        if self._met is None:
            self._passed_at = self.machine.executor.retired
            if self._followers:
                self.machine.request_stop()  # the run is longer than an instruction
        return self._met is None

    def _pass_here(self) -> Counted:
        """Those that never stop are met, if they were not at this very instant; they stop where they cannot be
        evaluated."""
        counted = Counted()
        pc, retired = self.machine.executor.linear_pc, self.machine.executor.retired
        for point in self._passing:
            if point.address == pc and point.met_at != retired:
                if self._amid_repeats(point, retired - point.met_at):
                    continue
                regs = self.machine.executor.live().regs
                point.met_at, point.begun = retired, (regs[1], regs[6], regs[7])
                back = point.owed is not None and point.owed == self._here()
                if back:
                    point.owed = None
                else:
                    self._count(counted, point)
        return counted

    def _amid_repeats(self, point: Breakpoint, count: int) -> bool:
        """A repeated string instruction goes on that was met when it began: each of the `count` instructions retired
        since has counted CX down by one and moved SI or DI by an element."""
        if point.met_at < 0 or count < 0:
            return False
        state = self.machine.executor.live()
        counter, *indices = ((then - state.regs[n]) & 0xFFFF for n, then in zip((1, 6, 7), point.begun, strict=True))
        if counter != count & 0xFFFF:
            return False
        moves = {sign * size * count & 0xFFFF for size in (1, 2, 4, 8) for sign in (1, -1)}
        if moves.isdisjoint(indices):
            return False
        code = self.try_glance(point.address, MAX_INSTRUCTION) or b""
        return disasm.is_rep_string(code, code_bits(state))

    def _owe(self) -> None:
        """The guest goes on from here: does an interrupt come before an instruction that was met already?"""
        self.machine.service()
        pc, retired = self.machine.executor.linear_pc, self.machine.executor.retired
        for point in self._passing:
            if point.address == pc and point.met_at == retired and self.machine.interrupt_due:
                point.owed = self._here()

    def _forget_passed(self) -> None:
        for point in self._breakpoints.values():
            point.met_at, point.owed = -1, None
        self._followers.clear()

    def _breakpoint_here(self) -> Stop | None:
        """The Stop of the enabled breakpoints at the linear PC whose ignore counts are used up."""
        pc = self.machine.executor.linear_pc
        counted: Counted | None = self._pass_here() if self._passing else None
        for point in self._breakpoints.values():
            if point.address == pc and point.enabled and point.kind is BreakKind.EXECUTE and not point.passes:
                counted = counted or Counted()
                self._count(counted, point)
        if counted is not None and counted.stops:
            return self._stop_by(StopKind.BREAKPOINT, counted, f" at {self._where()}")
        if (self._catcher.classes or self._catcher.physical) and (caught := self._caught(self._catcher.here())):
            return caught
        if self._until is not None and self._until.kind == "pc" and self._until.value == pc:
            return self._stop_at(StopKind.EVENT, f"{self._until.spec} at {self._where()}")
        return None

    def _limit_stop(self) -> Stop | None:
        if self._until is None and self._limit is None:
            return None
        retired = self.machine.executor.retired
        if self._until is not None and self._until.kind == "insns" and retired >= self._until.value:
            return self._stop_at(StopKind.EVENT, f"{retired} instructions retired")
        if self.machine.native_over:
            seconds = (self.machine.native_limit or 0) / 1e9
            return self._stop_at(
                StopKind.LIMIT, f"the budget of {seconds:g} s of native time ran out at {self._where()}"
            )
        if self._limit is not None and retired >= self._limit:
            return self._stop_at(StopKind.LIMIT, f"the budget of {self._limit} instructions ran out at {self._where()}")
        return None

    def _classify(self, exit: MachineExit) -> Stop | None:
        """The Stop an exit of the machine means, None when the action goes on."""
        if (
            self._catcher.armed
            and exit.reason in _CATCHING
            and (caught := self._caught(self._catcher.take(exit.exit))) is not None
        ):
            return caught
        if exit is LIMIT:
            return self._limit_stop()
        if exit.reason in _LAST_LOOK and self._screen_matches():
            return self._stop_at(StopKind.EVENT, f"{self._until_spec()} at {self._where()}")
        match exit.reason:
            case MachineStop.LIMIT:
                return self._limit_stop()
            case MachineStop.REQUEST:
                if self._until_met and self._until is not None:
                    return self._stop_at(StopKind.EVENT, f"{self._until.spec} at {self._where()}")
                return None
            case MachineStop.BREAKPOINT:
                met, self._met = self._met, None
                if met is None and (met := self._breakpoint_here()) is None:
                    self._passed_at = self.machine.executor.retired
                return met
            case MachineStop.WATCHPOINT:
                return self._watch_stop(exit)
            case MachineStop.EVENT:
                return None  # of a change that no breakpoint counts
            case MachineStop.EXIT:
                return self._stop_at(StopKind.EXIT, f"the guest ended with code {exit.code}", exit_code=exit.code)
            case MachineStop.POWEROFF:
                return self._stop_at(StopKind.POWEROFF, "the guest powered off")
            case MachineStop.SHUTDOWN:
                faults = exit.exit.faults if exit.exit else ()
                return self._stop_at(StopKind.SHUTDOWN, "triple fault: " + fault_chain(faults), faults=faults)
            case MachineStop.DEADLOCK:
                return self._stop_at(StopKind.DEADLOCK, f"{exit.detail} at {self._where()}: nothing can wake the CPU")
            case MachineStop.STANDSTILL:
                return self._stop_at(StopKind.DEADLOCK, f"{exit.detail} at {self._where()}")
            case MachineStop.FAILURE:
                return self._stop_at(StopKind.FAILURE, f"{exit.detail} at {self._where()}")

    def _caught(self, events: list[tuple[Breakpoint, str]]) -> Stop | None:
        """The Stop of events that happened, or are about to; None when none of them counts."""
        if not events:
            return None
        counted, words = Counted(), []
        for point, text in events:
            if self._count(counted, point):
                words.append(text)
        if not counted.stops:
            return None
        return self._stop_by(StopKind.CATCH, counted, f": {'; '.join(dict.fromkeys(words))}; now at {self._where()}")

    def _watch_stop(self, exit: MachineExit) -> Stop | None:
        hit = exit.exit.hit if exit.exit else None
        if hit is None:
            return None
        counted = Counted()
        for id in self._watch_ids.get(hit.watch, ()):
            self._count(counted, self._breakpoints[id])
        if not counted.stops:
            return None
        return self._stop_by(StopKind.WATCHPOINT, counted, hit_words(hit, self._where()), hit=hit)
