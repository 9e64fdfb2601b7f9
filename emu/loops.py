"""The loop that a guest is in: found by running ahead on the machine itself, with devices only looked at.

As in `emu.foresight` the instructions really run and are taken back. Devices answer with what a look without side
effects gives, and no time passes for them: what is seen is what the guest will do until an interrupt comes or a device
changes.
"""

from __future__ import annotations

from collections.abc import Iterable

from emu.endings import Endings
from emu.engine import Exit, ExitReason, Fault
from emu.machine import Machine
from emu.record import dataclass, field
from emu.runaway import read_linear
from emu.stops import fault_chain
from emu.x86 import disasm
from emu.x86.counting import LONGEST, Count, counting
from emu.x86.modes import code_bits
from emu.x86.repeats import plain_counter
from emu.x86.rounds import Met, Step
from emu.x86.state import GENERAL, CpuState
from emu.x86.statediff import Difference, differences
from emu.x86.undelivered import undelivered

#: Instructions looked at, those of repeated string instructions counted once, and rounds that must be alike.
REACH, ROUNDS = 3072, 3
#: Rounds that are looked at closely until one ends where it began.
TRIES = 8
#: What iterations of repeated string instructions may cost in all, in runs of the engine; and how many of them one run
#: makes where nothing but the count ends them, which cost a run more for each so many.
REPEATED, TOGETHER, CHEAP = 1 << 18, 1 << 16, 256
RESETS = "the keyboard controller is about to reset the CPU"
RCX, RSP = GENERAL.index("rcx"), GENERAL.index("rsp")
_GOES_ON = frozenset((ExitReason.BUDGET, ExitReason.REQUEST, ExitReason.WATCHPOINT, ExitReason.EVENT))
_STOPS_WITHIN = frozenset((*_GOES_ON, ExitReason.BREAKPOINT))


@dataclass(slots=True)
class Round:
    """One round of a loop. `changed` is how the CPU's state differs behind it, `stored` the physical pages whose bytes
    do, and `written` the addresses of these; `halts` says that it has a HLT, behind which it was let go on; `faults`
    are those raised in it; `counted` the loops within that only count, and were carried to their last round. `closes`
    says that it ends where it began."""

    steps: list[Step]
    changed: list[Difference] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    written: frozenset[int] = frozenset()
    halts: bool = False
    faults: list[Fault] = field(default_factory=list)
    counted: list[Count] = field(default_factory=list)
    closes: bool = False


@dataclass(frozen=True, slots=True)
class Ahead:
    """What was seen: the loop, or None and in `ended` why there is none. `death` is how the guest ends, if it does, and
    `why` says more of it; `gone` instructions before that can still be executed."""

    round: Round | None
    ended: str = ""
    death: str = ""
    why: tuple[str, ...] = ()
    gone: int = 0


class _End(Exception):
    """The look ahead cannot go on; a sentence."""


class _Death(Exception):
    """Nothing follows: how the guest ends, in words, and why."""

    def __init__(self, death: str, *why: str) -> None:
        self.death, self.why = death, why


class _Look:
    """Runs ahead, an instruction at a time."""

    def __init__(self, machine: Machine, stepping: bool) -> None:
        """`stepping` over loops that only count."""
        self.machine, self.executor, self.stepping = machine, machine.executor, stepping
        self.trail: list[int] = []  #: the linear addresses of the instructions executed
        self._counts: dict[tuple[int, ...], Count | None] = {}  # by a round's places
        self.counted: list[Count] = []
        self.met: list[Met] = []
        self.faults: list[Fault] = []
        self.halted = False
        self.spent = 0  #: of REPEATED
        self._together = False  # iterations are made in one run
        self._endings, self._ending = Endings(machine), ""

    def fault(self, fault: Fault) -> None:
        """An exception or software interrupt is about to be delivered."""
        self.faults.append(fault)
        if self._together:
            self.executor.request_stop()  # at its handler's first instruction

    def port(self, place: int, size: int, value: int, write: bool) -> None:
        self._meet(Met("port", place, size, value, write, self.machine.ports.owner(place) or ""))
        if write and not self._ending and (ends := self._endings.of(place, size, value)):
            at = self.executor.instruction_pc
            self._ending = f"the write of {value:#x} to port {place:#x} at {at:#x} {ends}"
            self.executor.request_stop()

    def memory(self, place: int, size: int, value: int, write: bool) -> None:
        entry = self.machine.mmio.find(place)
        self._meet(Met("memory", place, size, value, write, "" if entry is None else entry.name))

    def _meet(self, met: Met) -> None:
        self.met.append(met)
        if self._together:
            self.executor.request_stop()

    def one(self) -> None:
        """One instruction, a repeated string instruction as a whole."""
        self.trail.append(self.executor.linear_pc)
        self._one()
        if self.stepping and self.executor.linear_pc <= self.trail[-1]:
            self._step_over()

    def _step_over(self) -> None:
        """Behind a branch back: where it is that of a loop which only counts, and that has gone round some times, the
        round that begins here is made its last."""
        trail, pc = self.trail, self.executor.linear_pc
        length = next((n for n in range(1, min(LONGEST, len(trail)) + 1) if trail[-n] == pc and _alike(trail, n)), 0)
        if not length:
            return
        places = tuple(trail[-length:])
        state = self.executor.state()
        if places not in self._counts:
            steps = [Step(at, self.code(at), code_bits(state), state) for at in places]
            self._counts[places] = counting(steps)
        count = self._counts[places]
        if count is not None and count.branch == places[-1] and count.near_its_end(state):
            self.executor.load(state)
            self.counted.append(count)

    def _one(self) -> None:
        executor = self.executor
        if executor.halted:
            self._wake()
        linear = executor.linear_pc
        self._run(linear)
        if executor.linear_pc == linear and executor.halted is False:
            state = executor.state()
            raw, bits = self.code(linear), code_bits(state)
            if disasm.is_rep_string(raw, bits):
                self._repeat(linear, plain_counter(raw, bits))

    def _repeat(self, linear: int, counter: int) -> None:
        """To the end of a repeated string instruction. `counter`: the bits of its count, where nothing else ends it."""
        executor, alone = self.executor, 0
        while executor.linear_pc == linear:
            if self.spent >= 2 * REPEATED or alone > TOGETHER:
                raise _End(f"the instruction at {linear:#x} repeats itself")
            left = executor.state().regs[RCX] & (1 << counter) - 1 if counter else 0
            count = min(left - 1, TOGETHER)
            self.spent += 1 + max(count, 0) // CHEAP
            if count <= 1:
                alone += 1
                self._run(linear)
                continue
            self._together, met = True, len(self.met)
            try:
                self._run(linear, count, _STOPS_WITHIN)
            finally:
                self._together = False
            if len(self.met) != met:
                counter = 0  # each iteration asks a device, or is where no memory is

    def _run(self, linear: int, count: int = 1, going: frozenset[ExitReason] = _GOES_ON) -> Exit:
        exit = self.executor.run(count, skip_breakpoint=True)
        if exit.reason is ExitReason.REQUEST and not exit.executed:
            # asked for before: the machine's own `run` asks in each round whether it was meant so
            exit = self.executor.run(count, skip_breakpoint=True)
        if self._ending:
            raise _End(self._ending)
        if exit.reason is ExitReason.HALT:
            self.halted = True
        elif exit.reason is ExitReason.SHUTDOWN:
            raise _Death("a triple fault: " + fault_chain(exit.faults), *reasons(self.machine, exit.faults))
        elif exit.reason not in going:
            raise _End(f"the CPU ends at {linear:#x}: {exit.reason.value} {exit.detail}".rstrip())
        return exit

    def _wake(self) -> None:
        """As an interrupt whose handler changes nothing would."""
        if not self.executor.interruptible():
            raise _Death(f"HLT before {self.executor.linear_pc:#x} with interrupts off, where nothing wakes the CPU")
        state = self.executor.state()
        state.halted = False
        self.executor.load(state)

    def code(self, linear: int) -> bytes:
        """The bytes of the instruction at a linear address, as far as they can be read."""
        return read_linear(self.machine, self.executor.state(), linear, disasm.MAX_INSTRUCTION)

    def round(self, length: int) -> Round:
        """One round, looked at closely."""
        before, memory = self.executor.state(), self.machine.memory.save()
        self.faults.clear()
        self.counted.clear()
        found = Round([])
        for _ in range(length):
            state = self.executor.state()
            self.met = []
            step = Step(state.linear_pc, self.code(state.linear_pc), code_bits(state), state)
            self.one()
            step.met, step.following = self.met, self.executor.linear_pc
            found.steps.append(step)
        after = self.machine.memory.save()
        found.changed = list(differences(_awake(before), _awake(self.executor.state())))
        found.stored = [n for n in after.unlike(memory) if after.page(n) != memory.page(n)]
        found.written = frozenset(
            n << 12 | at
            for n in found.stored
            for at, (one, other) in enumerate(zip(after.page(n), memory.page(n), strict=True))
            if one != other
        )
        found.halts, found.faults = self.halted, list(self.faults)
        found.counted = list(dict.fromkeys(self.counted))
        found.closes = self.executor.linear_pc == found.steps[0].linear
        return found


def reasons(machine: Machine, faults: Iterable[Fault]) -> tuple[str, ...]:
    """What is wrong on the way to the handlers of faults that were not delivered."""
    state = machine.executor.state()

    def read(linear: int, length: int) -> bytes | None:
        data = read_linear(machine, state, linear, length)
        return data if len(data) == length else None

    vectors = [v for f in faults for v in (f.interrupt, f.vector) if v is not None]
    found = [text for vector in dict.fromkeys(vectors) if (text := undelivered(state, vector, read))]
    stack = state.regs[RSP]
    where = f"the stack is at {state.ss.selector:04x}:{stack:x} (linear {state.ss.base + stack:#x})"
    return tuple(found) or (f"IDTR and the gates are in order; {where}",)


def _awake(state: CpuState) -> CpuState:
    state.halted = False
    return state


def find_loop(machine: Machine) -> Ahead:
    """The loop that the guest goes round in, where the next instructions are one. Nothing of the guest changes. Where
    the guest only counts, or does so within a longer loop, it is the loop around that, if there is one."""
    ahead = _find(machine, stepping=False)
    if ahead.death or (ahead.round is not None and counting(ahead.round.steps) is None):
        return ahead
    around = _find(machine, stepping=True)
    return ahead if around.round is None else around


def _find(machine: Machine, *, stepping: bool) -> Ahead:
    executor = machine.executor
    saved, events, added = machine.save(), tuple(machine.journal), machine.journal.added
    look, caught = _Look(machine, stepping), machine.caught_fault
    machine.caught_fault = look.fault
    machine.look(look.port, look.memory)
    try:
        if machine.board.kbc.resets_ahead:
            raise _End(RESETS)
        executor.set_interrupt(None)
        for _ in range(REACH):
            look.one()
            look.met.clear()  # what was met counts in a round alone
            if look.spent >= REPEATED:
                break  # some rounds have been seen, if there are any
        for _ in range(TRIES):
            if not (length := _period(look.trail)):
                return Ahead(None, f"the next {len(look.trail)} instructions are no loop")
            if (found := look.round(length)).closes:
                return Ahead(found)
            # what was about to be left looked like one: the last rounds of a loop that counts, or of one stepped over
        return Ahead(None, f"the next {len(look.trail)} instructions are no loop")
    except _End as end:
        return Ahead(None, str(end))
    except _Death as end:
        return Ahead(None, death=end.death, why=end.why, gone=len(look.trail) - 1)
    finally:
        machine.look(None, None)
        machine.caught_fault = caught
        machine.look_back(saved)
        machine.journal.put(events)
        machine.journal.added = added


def _period(trail: list[int]) -> int:
    """The shortest length whose last ROUNDS repetitions end `trail`; 0: none."""
    for length in range(1, len(trail) // ROUNDS + 1):
        if trail[-1] == trail[-1 - length] and _alike(trail, length):
            return length
    return 0


def _alike(trail: list[int], length: int) -> bool:
    """The last ROUNDS rounds of `length` are alike."""
    last = trail[-length:]
    return len(trail) >= ROUNDS * length and all(
        trail[-length * (n + 1) : -length * n] == last for n in range(1, ROUNDS)
    )
