"""Random instructions leave the same registers, defined flags and memory here and under Bochs.

A block that differs is named with its instructions; `random_streams` makes the same image from the same seed again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

import oracles
from asm import assemble
from cpu.random_floats import Floats
from cpu.random_integers import Integers
from cpu.random_segments import Segments
from cpu.random_simd import Mmx, Sse
from cpu.random_streams import ROM_SIZE, Stream
from cpu.random_x87 import X87
from cpu.random_x87_faults import X87Faults
from emu.debugger import Debugger
from emu.engine import CheckLevel, Fault
from emu.machine import MachineConfig, build_machine
from run_loops import loop, needs_helper

KINDS: dict[str, type[Stream]] = {"integers": Integers, "x87": X87, "mmx": Mmx, "sse": Sse, "segments": Segments}
KINDS |= {"floats": Floats, "x87faults": X87Faults}
IMAGES = [(kind, mode) for kind, stream in KINDS.items() for mode in stream.modes]
#: What runs in every test, how many instructions an image of each kind executes at least, and all of them; one in so
#: many is distinct.
SEEDS = (1, 2)
AT_LEAST = {
    "integers": 5500,
    "x87": 6500,
    "mmx": 7500,
    "sse": 6900,
    "segments": 4200,
    "floats": 4500,
    "x87faults": 4000,
}
IN_ALL, DISTINCT = 100_000, 3
#: The portable loop executes half a million instructions a second.
PORTABLE = [("integers", mode) for mode in Integers.modes] + [("x87", "protected32"), ("sse", "protected16")]
PORTABLE += [("mmx", "real"), ("segments", "protected32")]
LIMIT = 20_000_000


@dataclass
class Executed:
    """What was executed of a stream: how many instructions, and which by their bytes. One that repeats counts once."""

    instructions: int = 0
    distinct: set[bytes] = field(default_factory=set)

    def add(self, executed: tuple[bytes, ...]) -> None:
        self.instructions += len(executed)
        self.distinct.update(executed)


def compare(kind: str, mode: str, seed: int, **shape: int) -> Executed:
    """The stream of this kind, mode and seed leaves the same here and under Bochs; what of it was executed."""
    stream = KINDS[kind](mode, seed, **shape)
    image = assemble(stream.text())
    rom = image[:ROM_SIZE]
    expected = oracles.bochs(rom).lines
    machine = build_machine(MachineConfig(memory=16 << 20, firmware=rom, checks=CheckLevel.FULL))
    run = Debugger(machine)
    faults = first_faults(run)
    run.set_limit(LIMIT)
    run.begin_continue()
    run.run()
    found = tuple(line for line in machine.debugcon_text().splitlines() if line)
    machine.close()
    for number, (theirs, ours) in enumerate(zip(expected, found, strict=False)):
        block = number % stream.blocks
        assert ours == theirs, f"{kind}, {mode}, seed {seed}, line {number}: {stream.block_text(block)}"
    assert len(found) == len(expected) == stream.blocks * stream.passes + stream.sums
    executed, blocks = Executed(), stream.found_blocks(image)
    for number in range(stream.blocks * stream.passes):
        executed.add(blocks[number % stream.blocks].before(faults[number]))
    return executed


def first_faults(run: Debugger) -> list[int | None]:
    """Filled while it runs, a value a line: the offset in CS of the first exception since the one before."""
    machine = run.machine
    faults: list[int | None] = []
    first: list[int] = []

    def fault(fault: Fault) -> None:
        first.append(fault.rip)

    def port(number: int, _size: int, value: int, is_write: bool) -> None:
        if is_write and (number, value) == (0xE9, 10):
            faults.append(first[0] if first else None)
            first.clear()

    machine.executor.on_fault(fault)
    machine.ports.trace = port
    return faults


@needs_helper
@pytest.mark.parametrize("seed", [SEEDS[0], *(pytest.param(seed, marks=pytest.mark.slow) for seed in SEEDS[1:])])
@pytest.mark.parametrize(("kind", "mode"), IMAGES)
def test_random_instructions_do_what_bochs_does(kind: str, mode: str, seed: int) -> None:
    executed = compare(kind, mode, seed)
    print(f"{kind}, {mode}: {executed.instructions} instructions compared, {len(executed.distinct)} distinct")
    assert executed.instructions >= AT_LEAST[kind]
    assert len(executed.distinct) * DISTINCT >= executed.instructions


@pytest.mark.slow_variants
@needs_helper
@pytest.mark.parametrize(("kind", "mode"), PORTABLE)
def test_random_instructions_do_it_in_the_portable_loop_too(kind: str, mode: str) -> None:
    with loop("gate"):
        executed = compare(kind, mode, 1, blocks=40, passes=1, sparse=True)
    assert executed.instructions >= 500


@pytest.mark.slow
@needs_helper
@pytest.mark.parametrize(("kind", "mode"), IMAGES)
def test_more_random_instructions_do_what_bochs_does(kind: str, mode: str, more_seed: int) -> None:
    compare(kind, mode, more_seed)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "more_seed" in metafunc.fixturenames:
        count = metafunc.config.getoption("--streams")
        metafunc.parametrize("more_seed", range(SEEDS[-1] + 1, SEEDS[-1] + 1 + count))


def test_the_same_seed_makes_the_same_stream() -> None:
    assert Integers("real", 7, blocks=3).text() == Integers("real", 7, blocks=3).text()
    assert Integers("real", 7, blocks=3).text() != Integers("real", 8, blocks=3).text()


def test_the_sample_is_of_100000_executed_instructions() -> None:
    assert sum(AT_LEAST[kind] for kind, _ in IMAGES) * len(SEEDS) >= IN_ALL
