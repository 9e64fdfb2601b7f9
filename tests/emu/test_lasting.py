"""A step that runs through a handler which does not come back says so, once, at the same instruction of any run."""

from __future__ import annotations

import pytest

from emu import lasting
from emu.debugger import BreakKind, Debugger, StopKind
from emu.views import LastingView
from machines import TIMER_100US, debugger, rom, timer

#: Virtual ns that stand for `lasting.LONG` here.
SHORT = 300_000
MAIN = 0xF0100


def ticking(handler: str, main: str = "inc word [0x500]", timer: str = TIMER_100US) -> bytes:
    """A tick of `timer` runs `handler`, at F000:0200; `main` is at F000:0100 and again and again."""
    return rom(
        f"""
    mov ss, ax
    mov sp, 0x7000
    mov word [8*4], 0x200
    mov word [8*4+2], 0xf000
{timer}
    sti
    jmp main
    times 0x100 - ($ - $$) nop
main:
    {main}
    jmp main
    times 0x200 - ($ - $$) nop
    {handler}
    """
    )


#: A scheduler's, at its rudest: the tick's end, and on with something else.
SCHEDULES = "mov al, 0x20\nout 0x20, al\nsti\nother: inc dword [0x600]\njmp other"
#: The same, whose other task sleeps.
SLEEPS = "mov al, 0x20\nout 0x20, al\nsti\nother: hlt\njmp other"
RETURNS = "mov al, 0x20\nout 0x20, al\niret"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lasting, "LONG", SHORT)


def stuck_step(firmware: bytes, slice: int | None = None) -> tuple[Debugger, list[LastingView], int]:
    """Steps from MAIN until one does not end within four times SHORT; what was told of it, and the CPU's count as it
    was."""
    guest = debugger(firmware, slice=slice)
    told: list[LastingView] = []
    at: list[int] = []
    guest.lasting.add_listener(told.append)
    guest.lasting.add_listener(lambda view: at.append(guest.machine.executor.retired))
    point = guest.add_breakpoint(BreakKind.EXECUTE, MAIN)
    guest.begin_continue()
    guest.run()
    guest.remove_breakpoint(point.id)
    for _ in range(20_000):
        start = guest.machine.clock.now
        guest.begin_step()
        while (stop := guest.pump(10_000)) is None:
            if guest.machine.clock.now - start > 4 * SHORT:
                guest.stop()
                return guest, told, at[0] if at else -1
        assert stop.kind is StopKind.STEP
    raise AssertionError("every step has ended")


def test_a_step_into_a_handler_that_does_not_return_is_told_once() -> None:
    guest, told, _ = stuck_step(ticking(SCHEDULES))
    (view,) = told
    assert (view.vector, view.handler) == (8, "f000:0200")
    assert view.back.startswith("f000:01")
    assert view.instructions * 10 == view.ns >= SHORT
    assert view.ns < SHORT + 1000  # the first boundary behind it
    assert view.here.startswith("f000:02")
    assert [event.text for event in guest.machine.journal if event.kind == "handler"] == [view.summary]


def test_the_instruction_at_which_it_is_told_does_not_depend_on_slices() -> None:
    whole, sliced = (stuck_step(ticking(SCHEDULES), slice) for slice in (None, 997))
    assert whole[1:] == sliced[1:]


def test_what_is_told_changes_nothing_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told = stuck_step(ticking(SCHEDULES))[0]
    monkeypatch.setattr(lasting, "LONG", 1 << 60)
    silent, nothing, _ = stuck_step(ticking(SCHEDULES))
    assert nothing == []
    assert told.machine.executor.retired == silent.machine.executor.retired
    assert told.fingerprint() == silent.fingerprint()


def test_a_handler_in_which_the_cpu_sleeps_is_told_of_though_next_to_nothing_is_executed() -> None:
    _, (view,), _ = stuck_step(ticking(SLEEPS))
    assert view.vector == 8
    assert view.instructions < 1000 < view.ns // 10


def test_a_step_at_hlt_whose_interrupt_s_handler_does_not_return_is_told_of_too() -> None:
    _, (view,), _ = stuck_step(ticking(SLEEPS, main="hlt"))
    assert "come back to f000:01" in view.summary


def test_handlers_that_return_are_nothing_to_tell_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself takes less than LONG, all of them more."""
    monkeypatch.setattr(lasting, "LONG", 100)
    guest = debugger(ticking(RETURNS))
    told: list[LastingView] = []
    guest.lasting.add_listener(told.append)
    guest.begin_step(40_000)
    assert guest.run().kind is StopKind.STEP
    assert [event.kind for event in guest.machine.journal].count("interrupt") >= 3
    assert told == []


@pytest.mark.slow
def test_each_step_is_told_of() -> None:
    """A handler of 40,000 instructions comes back, too late for SHORT, to ticks that are 100,000 apart."""
    guest = debugger(ticking(f"push cx\nmov cx, 20000\nl: dec cx\njnz l\npop cx\n{RETURNS}", timer=timer(1193)))
    told: list[LastingView] = []
    guest.lasting.add_listener(told.append)
    steps = 0
    while len(told) < 2 and steps < 3_000:
        before = len(told)
        guest.begin_step(100)
        assert guest.run().kind is StopKind.STEP
        assert len(told) - before <= 1
        steps += 1
    assert [view.handler for view in told] == ["f000:0200"] * 2


@pytest.mark.slow_variants
@pytest.mark.parametrize("into", [True, False])
def test_steps_that_stop_in_handlers_wait_for_none(into: bool) -> None:
    guest = debugger(ticking(SCHEDULES))
    guest.step_into_interrupts = into
    told: list[LastingView] = []
    guest.lasting.add_listener(told.append)
    guest.begin_step(200_000)
    while guest.machine.clock.now < 2 * SHORT and guest.pump(10_000) is None:
        pass
    assert len(told) == (not into)
