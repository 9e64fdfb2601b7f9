"""Random accesses to ports, with interrupts that they unmask, mask and end, do the same in both run loops and in any
slices, to the last bit of CPU, memory and devices."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from asm import assemble
from emu.catches import Catch, CatchKind
from emu.debugger import Debugger
from emu.machine import MachineConfig, build_machine
from emu.stops import StopKind
from emu.views import FingerprintView
from random_ports import program
from run_loops import loop, needs_helper

SEEDS = range(1, 5)
LIMIT = 400_000
MACHINES = ("isapc", "pc")


class Outcome(NamedTuple):
    fingerprint: FingerprintView
    printed: str
    ended: str
    interrupts: int


def outcome(firmware: bytes, machine: str, name: str, length: int | None, *, caught: bool = False) -> Outcome:
    with loop(name):
        made = build_machine(MachineConfig(memory=1 << 20, firmware=firmware, machine=machine, slice=length))  # type: ignore[arg-type]
    run = Debugger(made)
    if caught:
        run.add_catch(Catch(CatchKind.PORT, 0x1234, 0x1234, text="port"))
    run.set_limit(LIMIT)
    run.begin_continue()
    stop = run.run()
    interrupts = int.from_bytes(made.memory.read(0x900, 4), "little")
    found = Outcome(made.fingerprint(), made.debugcon_text(), f"{stop.kind} {stop.text}", interrupts)
    made.close()
    assert stop.kind in (StopKind.EXIT, StopKind.LIMIT), stop.text
    return found


def compare(seed: int) -> Outcome:
    firmware, machine = assemble(program(seed)), MACHINES[seed % 2]
    expected = outcome(firmware, machine, "fast", None)
    assert outcome(firmware, machine, "gate", None) == expected
    assert outcome(firmware, machine, "fast", 13) == expected
    assert outcome(firmware, machine, "fast", None, caught=True) == expected
    return expected


@pytest.mark.slow_variants
@needs_helper
@pytest.mark.parametrize("seed", SEEDS)
def test_both_loops_do_the_same_with_random_ports(seed: int) -> None:
    assert compare(seed).fingerprint.retired > 5000


@needs_helper
@pytest.mark.parametrize("machine", MACHINES)
def test_interrupts_come_in_them(machine: str) -> None:
    """Else nothing would be compared of what masks and ends them."""
    assert sum(outcome(assemble(program(seed)), machine, "fast", None).interrupts for seed in SEEDS) > 100


@pytest.mark.slow
@needs_helper
@pytest.mark.parametrize("seed", range(SEEDS.stop, SEEDS.stop + 12))
def test_both_loops_do_the_same_with_more_random_ports(seed: int) -> None:
    compare(seed)
