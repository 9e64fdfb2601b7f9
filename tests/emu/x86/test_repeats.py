"""Whether a repeated string instruction has an iteration left (SDM vol. 2B, REP; vol. 2A, 2.1.1)."""

from __future__ import annotations

import pytest

from emu.x86.repeats import behind_iteration, plain_counter


@pytest.mark.parametrize(
    ("code", "bits", "count", "length"),
    [
        ("f3a4", 32, 0, 2), ("f3a4", 32, 1, 0), ("f3a4", 32, 0x10000, 0), ("f3a4", 16, 0x10000, 2),
        ("67f3a4", 32, 0x10000, 3), ("67f3a4", 16, 0x10000, 0), ("f3a4", 64, 1 << 32, 0), ("67f348ab", 64, 1 << 32, 4),
        ("2ef266af", 32, 0, 4), ("f36c", 32, 0, 2), ("f36f", 32, 0, 2), ("f390", 32, 0, None), ("a4", 32, 0, None),
        ("f3", 32, 0, None), ("", 32, 0, None), ("f348a4", 32, 0, None), ("f3a8", 32, 0, None),
    ],
)  # fmt: skip
def test_a_repeat_has_ended_when_its_counter_is_zero(code: str, bits: int, count: int, length: int | None) -> None:
    assert behind_iteration(bytes.fromhex(code), bits, count) == length


@pytest.mark.parametrize(
    ("code", "bits", "counter"),
    [("f3a4", 16, 16), ("67f3a4", 16, 32), ("f367ab", 32, 16), ("f2ad", 32, 32), ("f348ab", 64, 64), ("67f3aa", 64, 32),
     ("f3a6", 16, 0), ("f2ae", 32, 0), ("f36e", 16, 0), ("f36c", 16, 0), ("a4", 16, 0), ("f390", 32, 0), ("f3", 16, 0)],
)  # fmt: skip
def test_what_only_its_count_ends_is_repeated_plainly(code: str, bits: int, counter: int) -> None:
    assert plain_counter(bytes.fromhex(code), bits) == counter
