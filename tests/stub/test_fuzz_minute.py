"""A minute of fuzzing in each run of the tests, whatever the host's speed: parts that run side by side.

Time is the process's own on the CPU, so that a busy host gets as much as an idle one. Inputs come of fixed seeds: a run
makes the first so many of them, and what is found names one. `V2E_FUZZ_SECONDS` in the environment is another length.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator

import pytest

from mutated_sessions import Ground
from stub.agent import CODES
from stub_fuzzing import AGENT, LOOKS_ON, PACKETS, RAW, SEPARATOR, SESSIONS, Finding, feed, seeds

pytestmark = pytest.mark.slow
SECONDS = float(os.environ.get("V2E_FUZZ_SECONDS", "60"))
PARTS = 3  #: of each of the two kinds
APART = 1 << 32  #: between the first seeds of two parts
EVERY = sorted({packet.encode("latin-1") for packets in SESSIONS.values() for packet in packets} | {b"arrive"})
SEEDS = [data for _, data in seeds()]


def fuzz(part: int, one: Callable[[int], None]) -> int:
    """`one` with a part's seeds, for its share of SECONDS; how many."""
    end = time.process_time() + SECONDS / (2 * PARTS)
    seed = first = part * APART
    while time.process_time() < end:
        try:
            one(seed)
        except Exception as error:
            raise Finding(f"seed {seed:#x}: {error}") from error
        seed += 1
    return seed - first


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes lost, doubled, and put in."""
    out = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0:
                del out[at : at + rng.randrange(6)]
            case 1:
                out[at:at] = rng.randbytes(rng.randrange(5))
            case 2:
                out[at:at] = out[at : at + rng.randrange(40)]
            case 3:
                out[at:at] = rng.choice((b"0", b"ffffffff", b"ffffffffffffffff", b"-1", b",", b";", b":", b"\3"))
    return bytes(out)


def made(seed: int) -> bytes:
    """An input for `feed`: packets in an order of their own, a known session damaged, noise, a program."""
    rng = random.Random(seed)
    match rng.randrange(4):
        case 0:
            packets = [damaged(rng, rng.choice(EVERY)) for _ in range(rng.randrange(1, 60))]
            return bytes((rng.choice((PACKETS, LOOKS_ON)),)) + SEPARATOR.join(packets)
        case 1:
            return damaged(rng, rng.choice(SEEDS))
        case 2:
            return bytes((RAW,)) + rng.randbytes(rng.randrange(2000))
    code = bytearray()
    for _ in range(rng.randrange(60)):
        number = rng.choice((*CODES, 0x22, 0x22, 0x23, 0x28))
        code.append(number)
        code += rng.randrange(60).to_bytes(size, "big") if (size := CODES[number].operand) else b""
    return bytes((AGENT,)) + bytes(code)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    ground = Ground()
    yield ground
    ground.close()


@pytest.mark.parametrize("part", range(PARTS))
def test_ten_seconds_of_packets_noise_and_programs(part: int) -> None:
    assert fuzz(part, lambda seed: feed(made(seed))) > 0


@pytest.mark.parametrize("part", range(PARTS))
def test_ten_seconds_of_changed_sessions_on_the_real_machine(ground: Ground, part: int) -> None:
    assert fuzz(PARTS + part, ground.session) > 0


def test_what_is_found_names_its_seed() -> None:
    def fails(seed: int) -> None:
        if seed == 2 * APART + 1:
            raise Finding("an error within the session")

    with pytest.raises(Finding, match="seed 0x200000001: an error within the session"):
        fuzz(2, fails)


def test_a_seed_is_the_same_input_each_time_and_all_kinds_are_made() -> None:
    inputs = [made(seed) for seed in range(200)]
    assert inputs == [made(seed) for seed in range(200)]
    assert {data[0] for data in inputs if data} >= {RAW, PACKETS, LOOKS_ON, AGENT}
