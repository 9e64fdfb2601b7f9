"""Drivers' polls of the clocks of machine pc: no alarm where the clock runs; where it does not, what would make it run.

The oracles: QEMU, of whether the clock comes to where the guest waits for it; and the guest itself, which leaves its
loop when what the details name has been changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from emu.debugger import Debugger
from emu.progress import Watch
from emu.stops import Stop, StopKind
from machines import pc
from oracles import OracleMissing, assemble_image, run_qemu

PIECE = 20_000  #: instructions between two samples
#: Instructions in which any of the clocks has come to where its guest waits for it, and the RTC's within a second.
SHORT, SECONDS = 1_000_000, 130_000_000
READS = {0: 300_000, 1: 300_000, 2: 300_000}  #: more than any of QEMU's clocks takes; the RTC's more
#: Of one that moves, on a fast host too, where a read takes 0.2 us: it is left when it has. Of one that stands.
RTC_READS, RTC_STANDS = 40_000_000, 1_500_000


class Running(NamedTuple):
    """A guest of tests/images/clock_polls.asm whose clock runs."""

    title: str
    clock: int
    how: int
    name: str
    longest: int = SHORT
    qemu: bool = True


class Still(NamedTuple):
    """One whose clock stands still: the parts of the detail that says why, and what it says must be done."""

    title: str
    clock: int
    how: int
    details: tuple[str, ...]
    mend: Callable[[Debugger], None]
    longest: int = SHORT
    qemu: bool = True


def rtc(*writes: tuple[int, int]) -> Callable[[Debugger], None]:
    def write(run: Debugger) -> None:
        for register, value in writes:
            run.port_out(0x70, 1, register)
            run.port_out(0x71, 1, value)

    return write


def hpet(run: Debugger) -> None:
    assert run.machine.board.chipset is not None
    run.machine.board.chipset.hpet.write(0x10, 1, 4)


def lapic(run: Debugger) -> None:
    assert run.machine.board.chipset is not None
    run.machine.board.chipset.lapic.write(0x380, 100_000, 4)


def one_shot(run: Debugger) -> None:
    assert run.machine.board.chipset is not None
    run.machine.board.chipset.lapic.write(0x320, 0x10030, 4)
    lapic(run)


RUNNING = (
    Running("ACPI timer", 0, 0, "the ACPI timer"),
    Running("HPET", 1, 0, "the HPET's main counter"),
    Running("LAPIC one-shot", 2, 0, "the local APIC's timer"),
    Running("LAPIC periodic", 2, 3, "the local APIC's timer"),
    Running("x2APIC one-shot", 2, 4, "the local APIC's timer"),
    Running("RTC second", 3, 0, "the real-time clock", SECONDS),
    Running("TSC deadline", 2, 6, "the local APIC's timer", qemu=False),  # TCG has none
    # QEMU's is 244 us of a second of the host's, which a host that does something else may miss
    Running("RTC update in progress", 4, 0, "the real-time clock", SECONDS, qemu=False),
    Running("RTC periodic flag", 5, 0, "the real-time clock"),
    Running("RTC alarm flag", 6, 0, "the real-time clock", SECONDS),
)
SET = "SET (bit 7 of its register B) is 1, and must become 0"
DIVIDER = "the divider bits of its register A (6 to 4) are 110b, and must become 010b"
STILL = (
    Still("HPET disabled", 1, 1, ("the HPET's main counter", "ENABLE", "at FED00010h) is 0, and must become 1"), hpet),
    Still("LAPIC without a count", 2, 1, ("the local APIC's timer", "its initial count is 0"), lapic),
    Still("LAPIC at its end", 2, 2, ("the local APIC's timer", "counted down in one-shot mode"), lapic),
    Still("x2APIC without a count", 2, 5, ("the local APIC's timer", "its initial count is 0"),
          lambda run: run.write_msr(0x838, 100_000)),
    Still("LAPIC by the TSC", 2, 7, ("the local APIC's timer", "TSC-deadline mode (bits 18:17", "always 0"), one_shot,
          qemu=False),
    Still("RTC second, SET", 3, 1, ("the real-time clock", SET), rtc((11, 2)), SECONDS),
    Still("RTC second, divider", 3, 2, ("the real-time clock", DIVIDER), rtc((10, 0x26)), SECONDS),
    Still("RTC update in progress, SET", 4, 1, ("the real-time clock", SET), rtc((11, 2)), SECONDS),
    Still("RTC update in progress, divider", 4, 2, ("the real-time clock", DIVIDER), rtc((10, 0x26)), SECONDS),
    Still("RTC periodic flag, no rate", 5, 1, ("the periodic flag", "the rate (bits 3 to 0 of its register A) is 0"),
          rtc((10, 0x26))),
    # QEMU's periodic flag does not mind the divider
    Still("RTC periodic flag, divider", 5, 2, ("the periodic flag", DIVIDER), rtc((10, 0x26)), qemu=False),
    Still("RTC alarm flag, no alarm", 6, 1, ("the alarm flag", "the alarm (its registers 1, 3 and 5) is at no time"),
          rtc((1, 0xFF), (3, 0xFF), (5, 0xFF)), SECONDS),
)  # fmt: skip


def started(one: Running | Still) -> Debugger:
    run = Debugger(pc(assemble_image("clock_polls", CLOCK=one.clock, HOW=one.how)))
    run.begin_continue()
    return run


def pumped(run: Debugger, instructions: int) -> Stop | None:
    """Run until it ends, or is noticed to get nowhere, at most so many instructions further."""
    end = run.machine.executor.retired + instructions
    stop = None
    while stop is None and run.progress.noticed is None and run.machine.executor.retired < end:
        stop = run.pump(PIECE)
    return stop


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest is looked at after 2 ms of its time, in place of a second."""
    monkeypatch.setattr(Watch, "PERIOD", 2_000_000)
    monkeypatch.setattr(Watch, "INTERVAL", PIECE)


SLOW = pytest.mark.slow


def titled(cases: tuple[Running, ...] | tuple[Still, ...]) -> list[object]:
    return [pytest.param(one, id=one.title, marks=[SLOW] if one.longest == SECONDS else []) for one in cases]


@pytest.mark.parametrize("one", titled(RUNNING))
def test_no_alarm_comes_of_a_poll_of_a_clock_that_runs(one: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    if one.longest == SECONDS:
        monkeypatch.setattr(Watch, "PERIOD", 200_000_000)
    run = started(one)
    assert pumped(run, 100_000) is None
    view = run.why_stuck()
    assert (view.verdict, view.stuck) == ("clock", False), view
    assert f"waits for a clock, {one.name}: " in view.summary
    told = [text for text in view.details if text.endswith(f": {one.name} runs, and changes it by itself")]
    assert told and not any("must change it" in text for text in view.details), view.details
    stop = pumped(run, one.longest)
    assert stop is not None and stop.kind is StopKind.EXIT
    assert run.progress.looks > 0
    assert [e.text for e in run.machine.journal if e.kind == "stuck"] == []
    run.machine.close()


@pytest.mark.parametrize("one", STILL, ids=[one.title for one in STILL])
def test_a_poll_of_a_clock_that_stands_still_is_an_alarm_that_says_why(one: Still) -> None:
    run = started(one)
    assert pumped(run, SHORT) is None
    assert len([e for e in run.machine.journal if e.kind == "stuck"]) == 1
    view = run.why_stuck()
    assert (view.verdict, view.stuck) == ("waits", True), view
    (told,) = (text for text in view.details if " stands still: " in text)
    assert all(part in told for part in one.details), told
    assert not any("must change it" in text for text in view.details), view.details
    run.machine.close()


@pytest.mark.parametrize("one", titled(STILL))
def test_what_is_said_to_stop_a_clock_is_what_stops_it(one: Still, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started(one)
    assert pumped(run, SHORT) is None
    one.mend(run)
    run.progress.forget()
    if one.longest == SECONDS:
        monkeypatch.setattr(Watch, "PERIOD", 200_000_000)
    stop = pumped(run, one.longest)
    assert stop is not None and stop.kind is StopKind.EXIT, run.why_stuck()
    run.machine.close()


@pytest.mark.slow
@pytest.mark.parametrize("one", [one for one in (*RUNNING, *STILL) if one.qemu], ids=lambda one: one.title)
def test_qemu_s_clock_does_the_same(one: Running | Still) -> None:
    reads = READS.get(one.clock, RTC_READS if isinstance(one, Running) else RTC_STANDS)
    try:
        result = run_qemu(
            assemble_image("clock_polls", CLOCK=one.clock, HOW=one.how, READS=reads), machine="pc",
            cpu="qemu64,+x2apic" if one.how >= 4 else "qemu64",
        )  # fmt: skip
    except OracleMissing as missing:
        pytest.skip(str(missing))
    assert result.lines == ("moved" if isinstance(one, Running) else "stands",)
