"""What makes a run the same run, for any guest: however it is sliced, flushed, stopped from a thread, broken into,
watched, saved and restored. Each function runs a `Guest` in one of these ways and compares it with the plain run."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from emu.debugger import Debugger, StopKind
from emu.engine import Access, Watch
from emu.machine import Machine, MachineStop
from emu.unicorn_engine import UnicornEngine
from emu.until import parse_until
from emu.views import FingerprintView


def resident() -> int:
    """Bytes of this process in the host's memory (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def run_to(debugger: Debugger, retired: int) -> None:
    """Until so many instructions have retired in all."""
    debugger.set_until(parse_until(f"insns:{retired}"))
    debugger.begin_continue()
    stop = debugger.run()
    assert stop.kind is StopKind.EVENT, stop.text


@dataclass
class Guest:
    """`make` builds the machine, with these fields of its MachineConfig; `finish` runs it from wherever it is to the
    end of the comparison, and raises AssertionError when it gets elsewhere. `begin` is how many instructions have
    retired in a machine just made."""

    make: Callable[..., Debugger]
    finish: Callable[[Debugger], object]
    begin: int = 0
    _plain: FingerprintView | None = field(default=None, repr=False)

    def end(self, debugger: Debugger) -> FingerprintView:
        """Finish, close the machine, and tell what it came to."""
        self.finish(debugger)
        fingerprint = debugger.fingerprint()
        debugger.machine.close()
        return fingerprint

    def plain(self) -> FingerprintView:
        """What it comes to when nobody interferes; run once."""
        if self._plain is None:
            self._plain = self.end(self.make())
        return self._plain

    def points(self, count: int, seed: int) -> list[int]:
        """Random instants of the plain run, in order."""
        return sorted(random.Random(seed).sample(range(self.begin + 1, self.plain().retired), count))


def engine(machine: Machine) -> UnicornEngine:
    assert isinstance(machine.executor, UnicornEngine)
    return machine.executor


def check_slices(guest: Guest, length: int) -> None:
    assert guest.end(guest.make(slice=length)) == guest.plain()


def check_flushes(guest: Guest, count: int, seed: int = 1) -> None:
    """All translations are dropped at `count` random instants."""
    debugger = guest.make()
    for retired in guest.points(count, seed):
        run_to(debugger, retired)
        engine(debugger.machine)._loop.flush()
    assert guest.end(debugger) == guest.plain()


def check_asynchronous_stops(guest: Guest, count: int, most_runs: int = 200) -> None:
    """A thread asks for a stop again and again, through as many runs as it takes to be obeyed at `count` instants."""
    obeyed = 0
    for _ in range(most_runs):
        debugger = guest.make()
        obeyed += _stopped_by_a_thread(debugger.machine, guest.plain().retired)
        assert guest.end(debugger) == guest.plain()
        if obeyed >= count:
            return
    raise AssertionError(f"{obeyed} stops in {most_runs} runs, not {count}")


def _stopped_by_a_thread(machine: Machine, end: int) -> int:
    """Run nearly to `end` under requests to stop; at how many instants one was obeyed."""
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            machine.request_stop()
            time.sleep(2e-5)

    thread = threading.Thread(target=ask)
    thread.start()
    places = set()
    try:
        while (exit := machine.run(end - 1000)).reason is MachineStop.REQUEST:
            places.add(machine.executor.retired)
    finally:
        over.set()
        thread.join()
    assert exit.reason is MachineStop.LIMIT
    machine.run(machine.executor.retired)  # takes the last request with it
    return len(places)


def check_saving(guest: Guest, count: int, seed: int = 1, fresh: int = 25) -> None:
    """At `count` random instants the machine is saved, goes on a little, and is put back, every `fresh`th time into a
    new machine."""
    rng = random.Random(seed)
    debugger = guest.make()
    for number, retired in enumerate(guest.points(count, seed)):
        run_to(debugger, retired)
        state = debugger.save()
        assert state.retired == retired
        if number % fresh:
            debugger.machine.run(retired + rng.choice((1, 2, 30, 1000)))
        else:
            debugger.machine.close()
            debugger = guest.make()
        debugger.restore(state)
        assert debugger.save() == state
    assert guest.end(debugger) == guest.plain()


@dataclass
class Steps:
    """What single steps from one instant on pass: (retired, linear address) of each instruction but those in whose
    place an interrupt came, which are in `interrupted`."""

    start: int
    end: int = 0
    passed: list[tuple[int, int]] = field(default_factory=list)
    interrupted: set[int] = field(default_factory=set)


def single_steps(guest: Guest, start: int, count: int) -> Steps:
    debugger = guest.make()
    run_to(debugger, start)
    machine, executor, steps = debugger.machine, debugger.machine.executor, Steps(start)
    for _ in range(count):
        machine.service()
        if machine.interrupt_due or executor.halted:
            steps.interrupted.add(executor.retired)
        else:
            steps.passed.append((executor.retired, executor.linear_pc))
        assert machine.run(executor.retired + 1).reason is MachineStop.LIMIT
    steps.end = executor.retired
    machine.close()
    return steps


def check_breakpoints(guest: Guest, start: int, steps: int, count: int, seed: int = 1) -> None:
    """Breakpoints stop, `count` times or more, exactly where single steps from `start` on pass them."""
    walked = single_steps(guest, start, steps)
    often = Counter(pc for _, pc in walked.passed)
    for (_, one), (_, next_) in zip(walked.passed, walked.passed[1:], strict=False):
        if one == next_:  # a repeated string instruction is met on arrival only
            often.pop(one, None)
    often.pop(walked.passed[0][1], None)
    chosen: set[int] = set()
    candidates = sorted(often)
    random.Random(seed).shuffle(candidates)
    while sum(often[pc] for pc in chosen) < count:
        assert candidates, f"{steps} steps from {start} on pass too few addresses"
        chosen.add(candidates.pop())
    debugger = guest.make()
    run_to(debugger, start)
    machine, executor = debugger.machine, debugger.machine.executor
    executor.set_breakpoints(chosen)
    met = []
    while (exit := machine.run(walked.end, skip_breakpoint=True)).reason is MachineStop.BREAKPOINT:
        met.append((executor.retired, executor.linear_pc))
    assert exit.reason is MachineStop.LIMIT
    expected = [(retired, pc) for retired, pc in walked.passed if pc in chosen]
    assert [hit for hit in met if hit[0] not in walked.interrupted] == expected
    assert len(expected) >= count
    executor.set_breakpoints(())
    assert guest.end(debugger) == guest.plain()


def check_watchpoints(guest: Guest, start: int, watches: tuple[Watch, ...], count: int) -> None:
    """The first `count` accesses to what is watched, from `start` on, end a run where they end a single step."""
    results = []
    for stepping in (False, True):
        debugger = guest.make()
        run_to(debugger, start)
        machine, executor, hits = debugger.machine, debugger.machine.executor, []
        executor.set_watchpoints(watches)
        while len(hits) < count and executor.retired < guest.plain().retired:
            exit = machine.run(executor.retired + 1 if stepping else guest.plain().retired)
            if exit.reason is MachineStop.WATCHPOINT:
                assert exit.exit is not None and exit.exit.hit is not None
                hit = exit.exit.hit
                hits.append((executor.retired, executor.linear_pc, hit.address, hit.size, hit.value, hit.access))
            else:
                assert exit.reason is MachineStop.LIMIT
        assert len(hits) == count
        results.append(hits)
        executor.set_watchpoints(())
        assert guest.end(debugger) == guest.plain()
    assert results[0] == results[1]


def stack_watch(guest: Guest, start: int, size: int = 256) -> Watch:
    """Of the bytes below the top of the stack at an instant."""
    debugger = guest.make()
    run_to(debugger, start)
    state = debugger.machine.cpu_state()
    debugger.machine.close()
    top = state.regs[4] if state.ss.big else state.regs[4] & 0xFFFF
    return Watch(state.ss.base + top - size, size, Access.BOTH)
