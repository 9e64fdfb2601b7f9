"""A guest with its interrupts off for long, whose PIC and PIT are a hypervisor's: what comes of the ticks meanwhile."""

from __future__ import annotations

import time

import pytest

from bridges import PIT_HZ, Driven
from emu.engine import EngineError
from kept_guests import guest
from repl.cli import run_parser
from repl.natively import keeper_of
from xenbridge.kept import BridgeKeeper
from xenbridge.signals import Signals

#: Interrupts off for ten periods of 37 ms or more, then 16 ticks with them on.
LATE = """
    mov ecx, 320000000
    cli
wait_off:
    dec ecx
    jnz wait_off
    mov dword [0x500], 0
    mov dword [0x518], 16
    sti
wait_on:
    cmp dword [0x500], 16
    jb wait_on
    cli
"""


def late_ticks(signals: Signals, fate: str) -> tuple[float, float]:
    """When a late guest has its first tick, and when its last of 16, in periods of its PIT."""
    options = run_parser().parse_args(
        ["--machine", "isapc", "--hypervisor", "kvm", "--devices-in", "hypervisor", "--clock", "host",
         "--missed-ticks", fate]
    )  # fmt: skip
    make = keeper_of(options, None)
    assert make is not None
    try:
        keeper = make()
    except EngineError as error:
        pytest.skip(str(error))
    assert isinstance(keeper, BridgeKeeper)
    driven, times = Driven("kvm", guest(LATE, 44240), signals, keeper), []
    acknowledge = keeper.acknowledge

    def acknowledged() -> int:
        times.append(time.monotonic())
        return acknowledge()

    keeper.acknowledge = acknowledged  # type: ignore[method-assign]
    begun = time.monotonic()
    driven.start()
    assert driven.end(60).code == 7
    driven.close()
    assert len(times) >= 16
    first, last = ((at - begun) * PIT_HZ / 44240 for at in (times[0], times[-1]))
    assert first > 8
    return first, last


@pytest.mark.slow
def test_missed_ticks_that_are_kept_come_in_a_bunch(signals: Signals) -> None:
    """`--missed-ticks kept`: what a late guest has not taken comes behind the acknowledge of the one before, faster
    than the PIT counts, at 27 Hz. A busy host takes its time over them, so one of five guests has to show it: at
    the PIT's pace none could."""
    assert any(last - first < 10 for first, last in (late_ticks(signals, "kept") for _ in range(5)))


@pytest.mark.slow
def test_missed_ticks_that_are_dropped_never_come(signals: Signals) -> None:
    """All but two come at the PIT's pace."""
    first, last = late_ticks(signals, "dropped")
    assert last - first > 16 - 4


@pytest.mark.slow
def test_ticks_do_not_come_in_a_bunch_behind_a_stretch_without_interrupts(kind: str, signals: Signals) -> None:
    """The PIT counts on for some 100 periods with IF clear. The PIC keeps one request of them, and one may have been
    acknowledged before: what comes behind that comes at the PIT's pace."""
    body = """
    mov ecx, 40000000
    cli
wait_off:
    dec ecx
    jnz wait_off
    mov dword [0x500], 0
    sti
wait_on:
    cmp dword [0x500], 20
    jb wait_on
    cli
    """
    driven, times = Driven(kind, guest(body), signals), []
    acknowledge = driven.keeper.acknowledge

    def acknowledged() -> int:
        times.append(time.monotonic())
        return acknowledge()

    driven.keeper.acknowledge = acknowledged  # type: ignore[method-assign]
    begun = time.monotonic()
    driven.start()
    assert driven.end(60).code == 7
    assert (times[-1] - begun) * PIT_HZ / 1193 > 40
    for number, at in enumerate(times[-20:]):
        assert (at - times[-20]) * PIT_HZ / 1193 > number - 2
    driven.close()


@pytest.mark.slow_variants
def test_an_interrupt_acknowledged_while_the_guest_turned_them_off_has_the_vector_of_its_delivery(
    kind: str, signals: Signals
) -> None:
    """With IF clear the controller is programmed anew: what had been acknowledged for the old vector comes by the new
    one, never by the old."""
    body = """
    sti
    cli
    mov ecx, 20000000
wait_off:
    dec ecx
    jnz wait_off
    xor eax, eax
    mov [0x500], eax
    mov [0x50c], eax
    mov bl, 0x20
    call init
    sti
wait_moved:
    cmp dword [0x50c], 3
    jb wait_moved
    cli
    """
    driven = Driven(kind, guest(body), signals)
    driven.start()
    assert driven.end(60).code == 7
    assert (driven.word(0x500), driven.word(0x50C) >= 3) == (0, True)
    driven.close()
