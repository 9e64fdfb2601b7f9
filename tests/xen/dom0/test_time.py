"""What becomes of the timer's ticks while the vCPU is borrowed, for each policy of Xen's (HVM_PARAM_TIMER_MODE)."""

import time

import pytest

from machines import booted, until, word
from xenbridge.ioreq import Type, write
from xenbridge.xen.bridge import XenBridge
from xenbridge.xen.domain import TIMER_MODE_PARAM

#: Ticks a second of clock.asm, and seconds without the vCPU and behind its return.
HERTZ, AWAY, AFTER = 50, 1.0, 0.6
COUNT = 0x600
#: Seconds behind the return within which ticks that were kept come, one behind the other.
MOMENT = 0.2
#: Xen's HVMPTM_*: the first two keep ticks that are missed, the others drop them.
KEPT, DROPPED = {0: "delay for missed ticks", 1: "no delay"}, {2: "none pending", 3: "one pending"}


def served(bridge: XenBridge, seconds: float) -> int:
    """How many ticks are taken and ended as they come, as the emulator does it."""
    count, end = 0, time.monotonic() + seconds
    bridge.listen(True)
    while time.monotonic() < end:
        if bridge.take() is not None:
            count += 1
            bridge.submit(write(Type.PIO, 0x20, 1, 0x20))
        time.sleep(0.001)
    bridge.listen(False)
    return count


def ticks(libraries, mode: int, serving: bool) -> dict[str, float]:
    """In ticks: `due` while the vCPU was away, `taken` meanwhile, `bunched` at its return beyond those due then, and
    `lost` altogether."""
    guest, _ = booted(libraries, "clock")
    with guest:
        guest.domain.set_param(TIMER_MODE_PARAM, mode)
        guest.domain.resume()
        assert until(lambda: word(guest, COUNT, 4) >= 20)
        before, began = word(guest, COUNT, 4), time.monotonic()
        bridge = XenBridge(guest.domain)
        try:
            bridge.borrow()
            taken = served(bridge, AWAY) if serving else time.sleep(AWAY) or 0
            bridge.give_back()
            back = time.monotonic()
            time.sleep(MOMENT)
            first, seen = word(guest, COUNT, 4) - before, time.monotonic()
            time.sleep(AFTER)
            last, ended = word(guest, COUNT, 4) - before, time.monotonic()
        finally:
            bridge.close()
    measured = {
        "due": (back - began) * HERTZ, "taken": taken, "bunched": first - (seen - back) * HERTZ,
        "lost": (ended - began) * HERTZ - last - taken,
    }  # fmt: skip
    print(f"timer_mode {mode}, {'served' if serving else 'not served'}:", {n: round(v, 1) for n, v in measured.items()})
    return measured


@pytest.mark.parametrize("mode", KEPT)
def test_ticks_that_are_kept_come_one_behind_the_other_when_the_vcpu_is_back(libraries, mode) -> None:
    got = ticks(libraries, mode, serving=False)
    assert got["bunched"] > 0.8 * got["due"]
    assert got["lost"] < 0.1 * got["due"]


@pytest.mark.parametrize("mode", DROPPED)
def test_ticks_that_are_dropped_are_lost_and_do_not_come_bunched(libraries, mode) -> None:
    got = ticks(libraries, mode, serving=False)
    assert got["bunched"] < 0.2 * got["due"]
    assert got["lost"] > 0.6 * got["due"]


def test_an_emulator_that_takes_interrupts_as_they_come_loses_none(libraries) -> None:
    """And what it could not take in time comes at the return: a busy host makes it slow, not wrong."""
    got = ticks(libraries, 0, serving=True)
    assert got["taken"] > 5
    assert got["lost"] < 0.2 * got["due"]
