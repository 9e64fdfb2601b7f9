"""The size of the TLB, and so which of its entries go, follows what the guest does: equal runs are equal for a guest,
too, that changes its page tables without INVLPG, whatever time they take and however they are sliced."""

from __future__ import annotations

import time

import pytest

import oracles
from emu.debugger import Debugger
from emu.machine import MachineConfig, build_machine
from emu.stops import StopKind
from emu.unicorn_helper import HELPER

PIECE, NAP = 150_000, 0.03  # a window of Unicorn's own is 0.1 s

pytestmark = pytest.mark.skipif(isinstance(HELPER, str), reason=f"the C helper's: {HELPER}")


def outcome(nap: float = 0, cut: int = 0) -> object:
    rom = oracles.assemble_image("tlb_size")
    debugger = Debugger(build_machine(MachineConfig(memory=16 << 20, firmware=rom, slice=cut or None)))
    limit, stop = 0, None
    while stop is None or stop.kind is StopKind.LIMIT:
        limit += PIECE
        debugger.set_limit(limit)
        debugger.begin_continue()
        stop = debugger.run()
        time.sleep(nap)
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    found = debugger.machine.fingerprint()
    return debugger.machine.debugcon_text().strip(), found.retired, found.ram, found.cpu


def test_the_hosts_time_does_not_matter() -> None:
    first = outcome()
    assert isinstance(first, tuple) and 0 < int(first[0], 16) <= 400  # some entries went and some did not, or none
    assert outcome(nap=NAP) == first


@pytest.mark.parametrize("cut", [1000, 12345])
def test_slices_do_not_matter(cut: int) -> None:
    assert outcome(cut=cut) == outcome()
