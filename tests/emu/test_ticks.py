"""IRQ 0 from counter 0 of the 8254 in runs of the helper, which passes the edges of OUT by itself: the same as by
Python's timer, which the portable loop has, to the instruction."""

from __future__ import annotations

import pytest

from emu.debugger import Debugger
from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.stops import BreakKind, StopKind
from machines import TIMER_100US, debugger, rom
from run_loops import needs_helper
from tick_programs import COUNTS, LIMIT, plain, program


def begun(
    monkeypatch: pytest.MonkeyPatch, loop: str, body: str, *, limit: int = 1_000_000, **config: object
) -> Debugger:
    monkeypatch.setenv("V2E_ENGINE", loop)
    made = debugger(rom(body), **config)
    assert made.machine.executor.run_loop == loop
    made.set_limit(limit)
    return made


def story(made: Debugger, *, run: bool = True) -> tuple[object, ...]:
    """How the machine ends, and all that it and the journal then hold."""
    end: object = None
    if run:
        made.begin_continue()
        stop = made.run()
        end = stop.kind, stop.text
    machine = made.machine
    # when a storm is noticed, which no guest sees, depends on when the journal hears of interrupts
    told = [(e.retired * (e.kind != "stuck"), e.kind, e.text) for e in machine.journal]
    seen = end, made.fingerprint(), machine.save().devices, told
    machine.close()
    return seen


#: 3028: an interrupt is taken while the status of the counter is latched.
SEEDS = [3028, *range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 40))]


@pytest.mark.slow_variants
@needs_helper
@pytest.mark.parametrize("seed", SEEDS)
def test_any_program_sees_the_same_ticks_in_both_loops_and_any_slices(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    body = program(seed)
    expected = story(begun(monkeypatch, "gate", body, limit=LIMIT))
    for length in (None, 13, 1009):
        assert story(begun(monkeypatch, "fast", body, limit=LIMIT, slice=length)) == expected, f"slice {length}"


@needs_helper
@pytest.mark.parametrize("seed", [3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (5, 8, 21))])
def test_saved_and_restored_anywhere_they_go_on_alike(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    body = program(seed)
    whole = begun(monkeypatch, "fast", body)
    expected = story(whole)
    one, other = begun(monkeypatch, "fast", body), begun(monkeypatch, "fast", body)
    for at in range(317, whole.machine.executor.retired, 317):
        one.machine.run(at)
        other.machine.restore(one.machine.save())
        one, other = other, one
    assert story(one)[:3] == expected[:3]
    other.machine.close()


def runs_of(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> list[int]:
    """The budgets that the engine is given, as they come."""
    budgets: list[int] = []
    run = machine.executor.run

    def counted(budget: int, *, skip_breakpoint: bool = False) -> object:
        budgets.append(budget)
        return run(budget, skip_breakpoint=skip_breakpoint)

    monkeypatch.setattr(machine.executor, "run", counted)
    return budgets


@needs_helper
def test_a_run_goes_on_behind_many_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = begun(monkeypatch, "fast", plain(30, 900))
    budgets = runs_of(monkeypatch, made.machine)
    made.begin_continue()
    assert made.run().kind is StopKind.EXIT
    ticks = int.from_bytes(made.machine.memory.read(0x502, 2), "little")
    assert ticks > 300
    assert len(budgets) < ticks / 20
    assert made.machine.board.pic.raised[0] == ticks


@needs_helper
def test_all_interrupts_of_a_run_are_in_the_journal_at_their_instants(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the helper has room for, with an exception's event in each turn."""
    body = plain(30, 90, turn="mov cx, 1000\nloop $\nint3\n")
    fast, gate = begun(monkeypatch, "fast", body), begun(monkeypatch, "gate", body)
    told = story(fast)
    assert told == story(gate)
    kinds = {event.kind for event in fast.machine.journal}
    assert {"interrupt", "int"} <= kinds


@needs_helper
@pytest.mark.parametrize("where", ["handler", "watched", "caught"])
def test_whoever_stops_at_ticks_is_stopped_at_each(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """At the handler, where it counts, and where each interrupt is told of: the same counts of instructions."""
    body, seen = plain(30, 20), {}
    for loop in ("fast", "gate"):
        made = begun(monkeypatch, loop, body)
        machine, counts = made.machine, []
        if where == "caught":
            machine.caught_interrupt = lambda vector, m=machine, c=counts: c.append((vector, m.executor.retired))
            story(made)
        else:
            if where == "handler":
                made.add_breakpoint(BreakKind.EXECUTE, 0xF0000 + rom(body).index(COUNTS))
            else:
                made.add_breakpoint(BreakKind.WRITE, 0x502, 2)
            made.begin_continue()
            while (stop := made.run()).kind is not StopKind.EXIT:
                counts.append((stop.kind, machine.executor.retired))
                made.begin_continue()
        seen[loop] = counts
    assert len(seen["fast"]) > 5
    assert seen["fast"] == seen["gate"]


@needs_helper
def test_a_stop_that_is_asked_for_between_ticks_shows_the_devices_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind any number of instructions, in one run from the beginning: OUT, the counter, the requests, the timers."""
    body = plain(9, 30)
    for at in range(20_000, 20_900, 53):
        states = []
        for loop in ("fast", "gate"):
            made = begun(monkeypatch, loop, body)
            made.machine.run(at)
            saved = made.machine.save()
            states.append((saved.devices, saved.clock, list(made.machine.journal), made.machine.clock.next_deadline()))
            made.machine.close()
        assert states[0] == states[1], at


def test_ticks_come_in_the_journal_before_a_fault_in_the_delivery_of_a_later_one() -> None:
    """Those of the same run, which nobody was told of yet."""
    guest = (
        "mov ss, ax\nmov sp, 0x7000\nmov word [0x20], h\nmov [0x22], cs\n" + TIMER_100US + "sti\nmov ecx, 60000\n"
        "l: a32 loop l\nlidt [cs:z]\nw: jmp w\nz: dw 0, 0, 0\nh: push ax\nmov al, 0x20\nout 0x20, al\npop ax\niret"
    )
    machine = build_machine(MachineConfig(firmware=rom(guest)))
    assert machine.run(1_000_000).reason is MachineStop.SHUTDOWN
    times = [event.retired for event in machine.journal]
    machine.close()
    assert len(times) > 4 and times == sorted(times)
