"""A sample of the bad files that `make soak` reads a million of, bounded by their number; machines loaded from some."""

from __future__ import annotations

import pytest

from emu.firmware.roms import builtin_bios
from emu.machine import MachineConfig, build_machine
from xen_fuzzing import case, look, places, run, seeds
from xenbridge import convert
from xenbridge.convert_checks import ConvertError
from xenbridge.wire.errors import WireError
from xenbridge.xen.files import parse_file

PART = 10_000
WHOLE = 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_bad_files_are_looked_at_or_refused_with_the_place_and_cost_no_memory(part: int) -> None:
    outcomes = run(part * PART, PART)
    # both ways are taken by many: neither is the changes too weak nor too wild
    assert outcomes["refused"] > PART // 10 < outcomes["read"]


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("part", range(10))
def test_a_million_bad_files_are_looked_at_or_refused(part: int) -> None:
    run(part * WHOLE // 10, WHOLE // 10)


def test_a_case_is_the_same_each_time_and_cases_differ() -> None:
    first = [case(number) for number in range(50)]
    assert [case(number) for number in range(50)] == first
    assert len({bytes(data) for data in first}) > 45
    assert all(look(seed) == "read" for seed in seeds())
    assert all(len(places(seed)) > 20 for seed in range(len(seeds())))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
def test_a_machine_is_loaded_from_a_bad_stream_and_runs_or_is_as_it_was(part: int) -> None:
    machine = build_machine(MachineConfig(machine="pc", memory=1 << 20, firmware=builtin_bios(), bios=True))
    machine.idle = lambda ns: False  # one that halts until an interrupt may do so for ever
    fresh = machine.save()
    loaded = refused = 0
    for number in range(part * 1000, part * 1000 + 1000):
        try:
            file = parse_file(case(number))
        except WireError:
            continue
        try:
            convert.load(machine, file)
        except (ConvertError, WireError):
            refused += 1
            assert machine.save() == fresh, number
            continue
        loaded += 1
        machine.run(machine.executor.retired + 200)
        machine.devices()
        machine.restore(fresh)
    assert loaded > 70
    assert refused > 50
