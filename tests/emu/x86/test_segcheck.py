"""Segment checks, value by value, from SDM vol. 3A, 5.3 to 5.5 and table 3-1."""

from __future__ import annotations

import pytest

from emu.x86.operands import CS, DS, SS, decode
from emu.x86.segcheck import Violation, condition, fetch, harmless, operand, operands, target, within
from emu.x86.state import Segment

GP, STACK = Violation(13), Violation(12)
FLAT = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("limit", "access", "address", "size", "inside"),
    [
        (0xFFF, 0x4093, 0xFFC, 4, True),
        (0xFFF, 0x4093, 0xFFD, 4, False),
        (0, 0x4093, 0, 1, True),
        (0, 0x4093, 0, 2, False),
        (0xFFFF, 0x93, 0xFFFF, 2, False),
        (FLAT, 0xC093, 0xFFFFFFFF, 4, True),  # open in the SDM: 4 GiB segments wrap here
        (0xFFF, 0x4097, 0xFFF, 1, False),  # expand-down: above the limit
        (0xFFF, 0x4097, 0x1000, 4, True),
        (0xFFF, 0x4097, 0xFFFFFFFD, 4, False),
        (0xFFF, 0x97, 0xFFFE, 2, True),  # B = 0: up to FFFFh
        (0xFFF, 0x97, 0xFFFF, 2, False),
        (0xFFF, 0x97, 0x10000, 1, False),
        (FLAT, 0xC097, 0xFFFFFFFF, 1, False),  # the limit is the top: nothing is valid
    ],
)
def test_limits(limit: int, access: int, address: int, size: int, inside: bool) -> None:
    assert within(limit, access, address, size) is inside


@pytest.mark.parametrize(
    ("access", "read", "write"),
    [
        (0x91, None, GP),
        (0x93, None, None),
        (0x95, None, GP),
        (0x97, None, None),
        (0x99, GP, GP),
        (0x9B, None, GP),
        (0x9D, GP, GP),
        (0x9F, None, GP),
        (0x13, GP, GP),
        (0, GP, GP),
    ],
)
def test_types(access: int, read: Violation | None, write: Violation | None) -> None:
    down = access & 0xC == 4
    cache = Segment(8, 0, 0 if down else FLAT, access | 0xC000)
    assert operand(cache, DS, 0x100, 4, write=False, read=True) == read
    assert operand(cache, DS, 0x100, 4, write=True, read=False) == write


def test_the_stack_segment_faults_with_its_own_vector() -> None:
    assert operand(Segment(8, 0, 0xFF, 0x4093), SS, 0x100, 1, write=True, read=False) == STACK
    assert operand(Segment(8, 0, 0xFF, 0x4093), DS, 0x100, 1, write=True, read=False) == GP


@pytest.mark.parametrize(
    ("limit", "access", "code", "expected"),
    [
        (FLAT, 0xC093, False, True),
        (FLAT, 0xC09B, True, True),
        (FLAT, 0xC091, False, False),
        (FLAT, 0xC097, False, False),
        (FLAT, 0xC099, True, False),
        (0xFFFF, 0x93, False, False),
        (FLAT, 0xC013, False, False),
    ],
)
def test_only_whole_segments_are_harmless(limit: int, access: int, code: bool, expected: bool) -> None:
    assert harmless(Segment(8, 0, limit, access), code=code) is expected


def test_a_string_instruction_with_a_count_of_0_touches_nothing() -> None:
    caches = [Segment(8, 0, 0, 0x4093)] * 6
    movs = decode(bytes.fromhex("f3a5"), 32, 32)
    assert operands(caches, [0] * 8, movs) is None
    assert operands(caches, [0, 1, *[0] * 6], movs) == GP


def test_an_instruction_must_lie_within_its_segment() -> None:
    code = Segment(8, 0, 0xFFFF, 0x9B)
    assert fetch(code, 0xFFFE, 2) is None
    assert fetch(code, 0xFFFF, 2) == GP
    assert fetch(code, 0x10000, 1) == GP
    assert fetch(code, 0, None) == GP


@pytest.mark.parametrize(
    ("code", "regs", "flags", "loaded", "to"),
    [
        ("eb10", {}, 0, None, 0x112),
        ("ebfe", {}, 0, None, 0x100),
        ("7410", {}, 0x40, None, 0x112),
        ("7410", {}, 0, None, None),
        ("0f8500010000", {}, 0, None, 0x206),
        ("e2fe", {1: 2}, 0, None, 0x100),
        ("e2fe", {1: 1}, 0, None, None),
        ("e1fe", {1: 2}, 0, None, None),
        ("e1fe", {1: 2}, 0x40, None, 0x100),
        ("e3fe", {1: 0}, 0, None, 0x100),
        ("ffe0", {0: 0x12345678}, 0, None, 0x12345678),
        ("66ffe0", {0: 0x12345678}, 0, None, 0x5678),
        ("c3", {}, 0, 0x7654321, 0x7654321),
        ("90", {}, 0, None, None),
    ],
)
def test_branch_targets(code: str, regs: dict[int, int], flags: int, loaded: int | None, to: int | None) -> None:
    values = [regs.get(i, 0) for i in range(8)]
    assert target(decode(bytes.fromhex(code), 32, 32), 0x100, values, flags, loaded) == to


def test_conditions_follow_the_flags() -> None:
    cf, pf, zf, sf, of = 1, 4, 0x40, 0x80, 0x800
    assert [c for c in range(16) if condition(c, 0)] == [1, 3, 5, 7, 9, 11, 13, 15]
    assert [c for c in range(16) if condition(c, sf)] == [1, 3, 5, 7, 8, 11, 12, 14]
    assert [c for c in range(16) if condition(c, cf | pf | zf | sf | of)] == [0, 2, 4, 6, 8, 10, 13, 14]


def test_cs_is_the_number_the_sdm_gives_it() -> None:
    assert (CS, SS, DS) == (1, 2, 3)
