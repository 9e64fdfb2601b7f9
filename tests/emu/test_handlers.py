"""The look for an interrupt whose handler changes what a loop waits for ends in time, whatever stops its runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clock_guests import FLAGGED_TICKS
from emu import handlers
from emu.debugger import Debugger
from emu.engine import Exit
from emu.handlers import Writer, writer_of
from emu.points import BreakKind
from machines import debugger, rom

#: The flag that FLAGGED_TICKS waits for.
FLAG = ((0x9002, 1),)
#: Its tick never sets it.
IN_VAIN = FLAGGED_TICKS.format(3000).replace("inc word [0x9000]", "nop")


def stand(source: str, instructions: int = 20_000) -> Debugger:
    run = debugger(rom(source))
    run.set_limit(instructions)
    run.begin_continue()
    run.run()
    run.set_limit(None)
    return run


def counted(run: Debugger, monkeypatch: pytest.MonkeyPatch, then: Callable[[int], None] | None = None) -> list[Exit]:
    """The runs of the engine from now on; `then` is told how many there have been, before each."""
    exits: list[Exit] = []
    real = run.machine.executor.run

    def engine(budget: int, *, skip_breakpoint: bool = False) -> Exit:
        if then is not None:
            then(len(exits))
        exits.append(real(budget, skip_breakpoint=skip_breakpoint))
        return exits[-1]

    monkeypatch.setattr(run.machine.executor, "run", engine)
    return exits


def test_points_on_the_loop_do_not_make_the_look_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each arrival at one ends a run: 2.7 million of them were made."""
    run = stand(IN_VAIN)
    run.add_breakpoint(BreakKind.EXECUTE, run.machine.executor.linear_pc)
    run.add_breakpoint(BreakKind.READ, 0x9002)
    for _ in range(2):
        run.begin_continue()
        run.run()
    before = run.fingerprint()
    exits = counted(run, monkeypatch)
    assert writer_of(run.machine, FLAG) is None
    assert len(exits) == handlers.RUNS
    assert run.fingerprint() == before
    run.machine.close()


def test_without_points_the_bound_is_that_of_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    run = stand(IN_VAIN)
    exits = counted(run, monkeypatch)
    assert writer_of(run.machine, FLAG) is None
    assert 2 * handlers.TIMES <= len(exits) < handlers.RUNS
    run.machine.close()


def test_a_request_to_stop_ends_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """One from before it does not."""
    run = stand(FLAGGED_TICKS.format(3000))
    machine = run.machine
    machine.request_stop()
    found = writer_of(machine, FLAG)
    assert isinstance(found, Writer) and found.vector == 8
    exits = counted(run, monkeypatch, lambda runs: machine.request_stop() if runs == 10 else None)
    assert writer_of(machine, FLAG) is None
    assert len(exits) == 11
    machine.close()


def test_an_interrupt_wakes_the_loop_that_halts() -> None:
    """As most have it that wait for one; the flag is set when it has come 200 times."""
    run = stand(FLAGGED_TICKS.format(200).replace("w: ", "w: hlt\n"), 498)
    assert not run.machine.executor.halted
    come = int.from_bytes(run.machine.read_physical(0x9000, 2), "little")
    assert 3 <= come < 100, "seen to come, and no storm"
    view = run.why_stuck()
    assert view.verdict == "clock" and "the byte at linear 0x9002" in view.summary, view
    assert any(f"what is waited for within {200 - come} more interrupts" in text for text in view.details), view
    run.machine.close()


def test_a_handler_that_halts_with_interrupts_off_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    run = stand(
        FLAGGED_TICKS.format(200).replace(
            "inc word [0x9000]", "inc word [0x9000]\ncmp word [0x9000], 9\njne m\nhlt\nm: nop"
        ),
        150,
    )
    exits = counted(run, monkeypatch)
    assert writer_of(run.machine, FLAG) is None
    assert len(exits) < 50
    run.machine.close()
