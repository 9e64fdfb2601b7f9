"""Random instructions leave the same registers, defined flags and memory here and under Bochs.

A block that differs is named with its instructions; `random_streams` makes the same image from the same seed again.
"""

from __future__ import annotations

import pytest

import oracles
from asm import assemble
from cpu.random_streams import MODES, Stream
from emu.debugger import Debugger
from emu.engine import CheckLevel, Fault
from emu.machine import MachineConfig, build_machine

#: Three modes of 250 blocks of 30 instructions, seven times: 157,500, less what follows an exception in its block.
FIRST_SEED = 1
#: What each mode executes at least of the first seed: 100,000 in all.
AT_LEAST = 100_000 // len(MODES) + 1
LIMIT = 20_000_000
#: Instructions from the end of a line to the first of the next block, at most: the end of `digest`, the end of a pass,
#: and BLOCK.
BETWEEN = 3 + 2 + 5


def compare(mode: str, seed: int) -> int:
    """How many instructions of the stream were executed and compared; those that repeat count once."""
    stream = Stream(mode, seed)
    text = stream.text()
    rom = assemble(text)
    expected = oracles.bochs(rom).lines
    run = Debugger(build_machine(MachineConfig(memory=16 << 20, firmware=rom, checks=CheckLevel.FULL)))
    executed = count_executed(run, stream)
    run.set_limit(LIMIT)
    run.begin_continue()
    run.run()
    found = tuple(line for line in run.machine.debugcon_text().splitlines() if line)
    run.machine.close()
    assert len(expected) == stream.blocks * stream.passes + 4
    for number, (theirs, ours) in enumerate(zip(expected, found, strict=False)):
        block = number % stream.blocks
        assert ours == theirs, f"{mode}, seed {seed}, pass {number // stream.blocks}: {stream.block_text(block)}"
    assert len(found) == len(expected)
    print(f"{mode}, seed {seed}: {sum(executed)} instructions compared")
    return sum(executed)


def count_executed(run: Debugger, stream: Stream) -> list[int]:
    """Filled while it runs, a number a block: the instructions before its exception, or all."""
    machine = run.machine
    lengths, executed = stream.lengths(), []
    began, faulted = [0], [-1]

    def fault(fault: Fault) -> None:
        if faulted[0] < 0:
            faulted[0] = fault.retired

    def port(number: int, _size: int, value: int, is_write: bool) -> None:
        if not is_write or (number, value) != (0xE9, 10):
            return
        if len(executed) < stream.blocks * stream.passes:
            length = lengths[len(executed) % stream.blocks]
            before = faulted[0] - began[0] - BETWEEN
            executed.append(length if faulted[0] < 0 else max(0, min(length, before)))
        began[0], faulted[0] = machine.executor.retired, -1

    machine.executor.on_fault(fault)
    machine.ports.trace = port
    return executed


@pytest.mark.parametrize("mode", MODES)
def test_random_instructions_do_what_bochs_does(mode: str) -> None:
    assert compare(mode, FIRST_SEED) >= AT_LEAST


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_more_random_instructions_do_what_bochs_does(mode: str, more_seed: int) -> None:
    compare(mode, more_seed)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "more_seed" in metafunc.fixturenames:
        count = metafunc.config.getoption("--streams")
        metafunc.parametrize("more_seed", range(FIRST_SEED + 1, FIRST_SEED + 1 + count))


def test_the_same_seed_makes_the_same_stream() -> None:
    assert Stream("real", 7, blocks=3).text() == Stream("real", 7, blocks=3).text()
    assert Stream("real", 7, blocks=3).text() != Stream("real", 8, blocks=3).text()
