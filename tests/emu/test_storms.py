"""A guest that does nothing but fault, or be interrupted, is noticed by the count of it, long before a second of its
time has passed; the instants are the guest's own, and nothing of the run changes."""

from __future__ import annotations

import pytest

from emu.debugger import Debugger
from emu.progress import Watch
from machines import TIMER_100US, debugger, rom

HANDLED = "mov word [{vector} * 4], h\nmov word [{vector} * 4 + 2], 0xf000\nmov ss, ax\nmov sp, 0x7000\n"
UD = HANDLED.format(vector=6) + "ud2\nh: iret"
#: Events between two looks for a storm, a fortieth of what they are without tests, and twice what a look goes over.
FEWER = 500
#: A guest, what is said of it, and instructions within which it has to be.
STORMS = {
    "an opcode that does not exist": (UD, "#UD is raised again and again at f000:", 5_000),
    "a division by zero": (HANDLED.format(vector=0) + "xor cx, cx\nw: div cx\nh: iret", "#DE is raised again", 5_000),
    "a handler that works": (
        HANDLED.format(vector=6) + "ud2\nh: pusha\nmov cx, 20\nd: inc dword [0x500]\nloop d\npopa\niret",
        "#UD is raised again and again", 112_500,
    ),
    "a device that is not quieted": (
        HANDLED.format(vector=8) + TIMER_100US + "mov al, 0x14\nout 0x43, al\nmov al, 2\nout 0x40, al\nsti\nw: jmp w\n"
        "h: push ax\nmov al, 0x20\nout 0x20, al\npop ax\niret",
        "the interrupt with vector 0x08 comes without end", 350_000,
    ),
}  # fmt: skip


def run_for(source: str, instructions: int, **config: object) -> Debugger:
    run = debugger(rom(source), **config)
    run.set_limit(instructions)
    run.begin_continue()
    run.run()
    return run


def noticed_at(run: Debugger) -> list[int]:
    return [event.retired for event in run.machine.journal if event.kind == "stuck"]


@pytest.mark.slow_variants
@pytest.mark.parametrize(("source", "said", "within"), STORMS.values(), ids=STORMS)
def test_it_is_noticed_by_the_count_of_events(
    source: str, said: str, within: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watch, "EVENTS", FEWER)
    run = run_for(source, within)
    assert run.progress.noticed is not None and said in run.progress.noticed.summary
    assert run.progress.looks == ("interrupt" not in said), (
        "a fault is looked at ahead once, an interrupt needs no look"
    )
    assert run.machine.journal.added >= Watch.STORM * Watch.EVENTS
    run.machine.close()


@pytest.mark.parametrize("events", [FEWER, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_fault_loop_is_noticed_within_two_milliseconds_of_the_guests_time(
    events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And as it is without tests: two seconds of the host's time instead of a quarter of an hour."""
    assert 2 * Watch.EVENTS * Watch.STORM == 160_000, "instructions: two an event, some 10 ns each"
    monkeypatch.setattr(Watch, "EVENTS", events)
    run = run_for(UD, 17 * events // 2)
    assert [round(at, -2) for at in noticed_at(run)] == [8 * events], "the journal keeps it, whatever comes behind it"
    run.machine.close()


@pytest.mark.slow
def test_nothing_of_the_run_changes_and_the_instant_is_the_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "EVENTS", FEWER)
    instants, prints = [], []
    for piece in (None, 1979, 277):
        run = run_for(UD, 4_100, slice=piece)
        instants.append(noticed_at(run))
        prints.append(run.fingerprint())
        run.machine.close()
    assert len(instants[0]) == 1 and instants[1:] == instants[:1] * 2
    monkeypatch.setattr(Watch, "sample", lambda self: None)
    monkeypatch.setattr(Watch, "arm", lambda self, on: None)
    unnoticed = run_for(UD, 4_100)
    assert not noticed_at(unnoticed)
    assert prints == [unnoticed.fingerprint()] * 3
    unnoticed.machine.close()


def test_a_call_is_taken_for_a_storm_much_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs wait by INT n: it is looked at only when it has come a hundred times as often as it is asked for, and
    then ahead, as a loop is."""
    monkeypatch.setattr(Watch, "EVENTS", 300)
    source = HANDLED.format(vector=0x60) + "w: int 0x60\njmp w\nh: iret"
    run = run_for(source, 99 * 300 * 3)
    assert run.progress.noticed is None and run.progress.looks == 0
    run.set_limit(101 * 300 * 3)
    run.begin_continue()
    run.run()
    assert run.progress.noticed is not None and run.progress.looks == 1
    assert run.progress.noticed.verdict == "forever", run.progress.noticed
    run.machine.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "looks"),
    [
        pytest.param(HANDLED.format(vector=6) + "w: ud2\nud2\nud2\njmp w\nh: push bp\nmov bp, sp\n"
                     "add word [bp + 2], 2\npop bp\niret", 0, id="at several places"),
        pytest.param(HANDLED.format(vector=6) + "mov dword [0x500], 90000\nw: ud2\nsub dword [0x500], 1\njnz w\nhlt\n"
                     "h: push bp\nmov bp, sp\nadd word [bp + 2], 2\npop bp\niret", 2, id="and counts"),
        pytest.param(HANDLED.format(vector=6) + "w: ud2\ncmp eax, 0x70000000\njb w\nhlt\nh: push bp\nmov bp, sp\n"
                     "add word [bp + 2], 2\nrdtsc\npop bp\niret", 2, id="and read a clock"),
        pytest.param(HANDLED.format(vector=6) + "mov bx, 0\nud2\nh: inc bx\ntest bx, 0x3ff\njnz r\nmov al, '.'\n"
                     "out 0xe9, al\nr: iret", 0, id="and says something"),
    ],
)  # fmt: skip
def test_a_guest_whose_faults_lead_somewhere_is_left_alone(
    source: str, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watch, "EVENTS", 375)  # 3 times as many are more than the 1,024 rounds to a dot
    run = run_for(source, 30_000)
    assert run.machine.journal.added > 6 * 375
    assert run.progress.noticed is None and run.progress.looks == looks
    run.machine.close()


def test_a_step_or_a_breakpoint_in_a_storm_stops_where_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is asked to stop for a look in the middle of actions; they go on to their end."""
    places = []
    for events in (1, 20_000):
        monkeypatch.setattr(Watch, "EVENTS", events)
        run = run_for(UD, 1000)
        run.set_limit(None)
        path = []
        for _ in range(20):
            run.begin_step(7)
            run.run()
            path.append((run.machine.executor.retired, run.machine.executor.linear_pc))
        run.begin_until(0xF0016)
        run.run()
        path.append((run.machine.executor.retired, run.machine.executor.linear_pc))
        places.append(path)
        run.machine.close()
    assert places[0] == places[1]
