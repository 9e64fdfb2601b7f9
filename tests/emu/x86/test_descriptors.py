"""Descriptors and gates: parsing, building, naming (SDM vol. 3A, 3.4.5, 3.5, 5.8.3, 6.11, 6.14.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.x86 import descriptors
from emu.x86.descriptors import (
    Descriptor,
    Gate,
    access_text,
    build_descriptor,
    build_gate,
    idt_entries,
    ivt_entries,
    kind_of,
    parse_descriptor,
    parse_gate,
    table_entries,
)


def quad(value: int) -> bytes:
    return value.to_bytes(8, "little")


# Values every boot loader's author knows: flat code and data, 64 KiB segments, 64-bit code.
KNOWN = [
    (0x00CF9A000000FFFF, 0, 0xFFFFFFFF, 0xC09A, "code32 r-x DPL 0"),
    (0x00CF93000000FFFF, 0, 0xFFFFFFFF, 0xC093, "data32 rw- DPL 0 accessed"),
    (0x00CFFA000000FFFF, 0, 0xFFFFFFFF, 0xC0FA, "code32 r-x DPL 3"),
    (0x00009A0F0000FFFF, 0xF0000, 0xFFFF, 0x009A, "code16 r-x DPL 0"),
    (0x00AF9A000000FFFF, 0, 0xFFFFFFFF, 0xA09A, "code64 r-x DPL 0"),
    (0x00209A0000000000, 0, 0, 0x209A, "code64 r-x DPL 0"),
    (0x12009634567800FF, 0x12345678, 0xFF, 0x0096, "data16 rw- expand-down DPL 0"),
    (0x000F910000001234, 0, 0xF1234, 0x0091, "data16 r-- DPL 0 accessed"),
    (0x00009C0000001234, 0, 0x1234, 0x009C, "code16 --x conforming DPL 0"),
    (0x0000120000001234, 0, 0x1234, 0x0012, "data16 rw- DPL 0 not present"),
    (0x00008B0012340067, 0x1234, 0x67, 0x008B, "tss32 busy DPL 0"),
    (0x0000E20012340067, 0x1234, 0x67, 0x00E2, "ldt DPL 3"),
]


@pytest.mark.parametrize(("value", "base", "limit", "access", "text"), KNOWN)
def test_known_descriptors_parse_build_and_read_in_words(
    value: int, base: int, limit: int, access: int, text: str
) -> None:
    raw = quad(value)
    assert parse_descriptor(raw) == Descriptor(base, limit, access)
    assert build_descriptor(Descriptor(base, limit, access)) == raw
    assert access_text(access) == text


def test_a_wide_descriptor_has_a_64_bit_base() -> None:
    raw = quad(0x8A008934567800FF) + (0xFFFF8001).to_bytes(8, "little")
    assert parse_descriptor(raw) == Descriptor(0xFFFF80018A345678, 0xFF, 0x0089)


@given(st.binary(min_size=8, max_size=8))
def test_any_descriptor_survives_parse_and_build(raw: bytes) -> None:
    assert build_descriptor(parse_descriptor(raw)) == raw


@given(st.binary(min_size=12, max_size=12))
def test_any_wide_descriptor_survives_parse_and_build(raw: bytes) -> None:
    wide = raw + bytes(4)
    assert build_descriptor(parse_descriptor(wide), wide=True) == wide


@given(
    st.sampled_from([0x84, 0x85, 0x86, 0x87, 0x8C, 0x8E, 0xEF, 0x0E]),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 31),
)
def test_any_gate_survives_build_and_parse(access: int, selector: int, offset: int, count: int) -> None:
    kind = access & 0xF
    gate = Gate(
        selector,
        0 if kind == 5 else offset if kind & 8 else offset & 0xFFFF,
        access,
        count if kind in (4, 12) else 0,
    )
    assert parse_gate(build_gate(gate)) == gate


@given(st.integers(0, 0xFFFF), st.integers(0, (1 << 64) - 1), st.integers(0, 7))
def test_any_64_bit_gate_survives_build_and_parse(selector: int, offset: int, ist: int) -> None:
    gate = Gate(selector, offset, 0x8E, ist=ist)
    assert parse_gate(build_gate(gate, wide=True)) == gate


@pytest.mark.parametrize(
    ("descriptor", "wide", "sentence"),
    [
        (Descriptor(0, 0x100000, 0x92), False, "limit 0x100000 is above 0xfffff and needs G"),
        (Descriptor(0, 0xFFFF0, 0x8092), False, "limit 0xffff0 does not end in fff within 4 GiB, as G asks"),
        (Descriptor(1 << 32, 0, 0x92), False, "base 0x100000000 does not fit a descriptor of 8 bytes"),
        (Descriptor(1 << 64, 0, 0x89), True, "base 0x10000000000000000 does not fit a descriptor of 16 bytes"),
        (Descriptor(0, 0, 0x10092), False, "access rights 0x10092 have bits 0x10000 that no descriptor holds"),
    ],
)
def test_what_no_descriptor_can_hold_is_refused(descriptor: Descriptor, wide: bool, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        build_descriptor(descriptor, wide)


def test_a_gate_offset_must_fit_its_type() -> None:
    with pytest.raises(ValueError, match="offset 0x10000 does not fit a gate of 16 bits"):
        build_gate(Gate(8, 0x10000, 0x86))


@pytest.mark.parametrize("size", [0, 7, 9, 17])
def test_only_8_and_16_bytes_are_a_descriptor(size: int) -> None:
    with pytest.raises(ValueError, match=f"not {size}"):
        parse_descriptor(bytes(size))
    with pytest.raises(ValueError, match=f"not {size}"):
        parse_gate(bytes(size))


# SDM vol. 3A, table 3-2, system-segment and gate-descriptor types, both columns.
TABLE_3_2 = [
    (0, "reserved type 0", "reserved type 0"),
    (1, "tss16 available", "reserved type 1"),
    (2, "ldt", "ldt"),
    (3, "tss16 busy", "reserved type 3"),
    (4, "call gate 16", "reserved type 4"),
    (5, "task gate", "reserved type 5"),
    (6, "interrupt gate 16", "reserved type 6"),
    (7, "trap gate 16", "reserved type 7"),
    (8, "reserved type 8", "reserved type 8"),
    (9, "tss32 available", "tss64 available"),
    (10, "reserved type 10", "reserved type 10"),
    (11, "tss32 busy", "tss64 busy"),
    (12, "call gate 32", "call gate 64"),
    (13, "reserved type 13", "reserved type 13"),
    (14, "interrupt gate 32", "interrupt gate 64"),
    (15, "trap gate 32", "trap gate 64"),
]


@pytest.mark.parametrize(("number", "legacy", "long"), TABLE_3_2)
def test_system_types_are_named_as_table_3_2_does(number: int, legacy: str, long: str) -> None:
    assert kind_of(0x80 | number) == legacy
    assert kind_of(0x80 | number, long_mode=True) == long


# SDM vol. 3A, table 3-1, code- and data-segment types.
TABLE_3_1 = [
    "data16 r-- DPL 0", "data16 r-- DPL 0 accessed", "data16 rw- DPL 0", "data16 rw- DPL 0 accessed",
    "data16 r-- expand-down DPL 0", "data16 r-- expand-down DPL 0 accessed",
    "data16 rw- expand-down DPL 0", "data16 rw- expand-down DPL 0 accessed",
    "code16 --x DPL 0", "code16 --x DPL 0 accessed", "code16 r-x DPL 0", "code16 r-x DPL 0 accessed",
    "code16 --x conforming DPL 0", "code16 --x conforming DPL 0 accessed",
    "code16 r-x conforming DPL 0", "code16 r-x conforming DPL 0 accessed",
]  # fmt: skip


@pytest.mark.parametrize(("number", "text"), list(enumerate(TABLE_3_1)))
def test_segment_types_are_named_as_table_3_1_does(number: int, text: str) -> None:
    assert access_text(0x90 | number) == text


def test_access_text_names_unusable_and_the_reserved_l_with_d() -> None:
    assert access_text(0x10000) == "unusable"
    assert access_text(0x100F3) == "unusable"
    assert access_text(0x609A) == "code64 r-x DPL 0 L and D both set"
    assert access_text(0x40F2) == "data32 rw- DPL 3"


def test_a_gdt_lists_null_segments_gates_and_what_the_limit_cuts() -> None:
    raw = (
        quad(0)
        + quad(0x00CF9A000000FFFF)
        + build_gate(Gate(8, 0x12345678, 0xEC, count=3))
        + build_gate(Gate(0x28, 0, 0xE5))
        + quad(0x0000890012340067)
        + b"\1\2\3"
    )
    null, code, gate, task, tss, cut = table_entries(raw, 0x1000, False)
    assert (null.kind, null.base, null.access) == ("null", None, None)
    assert (code.index, code.selector, code.kind, code.base, code.limit) == (1, 8, "code32", 0, 0xFFFFFFFF)
    assert (gate.selector, gate.kind, gate.base, gate.limit) == (0x10, "call gate 32", 0x12345678, None)
    assert (gate.target, gate.access, gate.text) == (8, 0xEC, "call gate 32 DPL 3, 3 parameters")
    assert (task.kind, task.base, task.target) == ("task gate", None, 0x28)
    assert (tss.kind, tss.base, tss.limit, tss.text) == ("tss32 available", 0x1234, 0x67, "tss32 available DPL 0")
    assert (cut.kind, cut.raw) == ("truncated", b"\1\2\3")
    assert cut.text == "cut short by the table's limit: 3 of 8 bytes at 0x1028"


def test_in_ia32e_mode_system_descriptors_take_two_slots() -> None:
    tss = build_descriptor(Descriptor(0xFFFF800000001000, 0x67, 0x8B), wide=True)
    gate = build_gate(Gate(8, 0xFFFFFFFF81000000, 0x8C), wide=True)
    raw = quad(0) + quad(0x00AF9A000000FFFF) + tss + gate + quad(0x00CF92000000FFFF)
    entries = table_entries(raw, 0, True)
    assert [(e.selector, e.kind, e.base) for e in entries] == [
        (0, "null", None),
        (0x08, "code64", 0),
        (0x10, "tss64 busy", 0xFFFF800000001000),
        (0x20, "call gate 64", 0xFFFFFFFF81000000),
        (0x30, "data32", 0),
    ]
    assert table_entries(raw[:0x18], 0, True)[-1].kind == "truncated"
    assert len(table_entries(raw, 0, False)) == 7


def test_an_idt_lists_gates_of_each_kind() -> None:
    raw = (
        build_gate(Gate(8, 0x1234, 0x86))
        + build_gate(Gate(8, 0x12345678, 0x8E))
        + build_gate(Gate(0x10, 0x12345678, 0xEF))
        + build_gate(Gate(0x18, 0, 0x85))
        + quad(0)
        + quad(0x00CF9A000000FFFF)
        + build_gate(Gate(8, 0x10, 0x0E))
        + bytes(5)
    )
    entries = idt_entries(raw, False)
    assert [(e.index, e.kind, e.base, e.target) for e in entries] == [
        (0, "interrupt gate 16", 0x1234, 8),
        (1, "interrupt gate 32", 0x12345678, 8),
        (2, "trap gate 32", 0x12345678, 0x10),
        (3, "task gate", None, 0x18),
        (4, "null", None, None),
        (5, "code32", None, None),
        (6, "interrupt gate 32", 0x10, 8),
        (7, "truncated", None, None),
    ]
    assert entries[2].text == "trap gate 32 DPL 3"
    assert entries[5].text == "code32 r-x DPL 0: not a gate"
    assert entries[6].text == "interrupt gate 32 DPL 0 not present"


def test_a_long_mode_idt_has_16_byte_gates_with_ist() -> None:
    raw = build_gate(Gate(8, 0xFFFF800012345678, 0x8E, ist=3), wide=True) * 2
    first, second = idt_entries(raw, True)
    assert (first.kind, first.base, first.target) == ("interrupt gate 64", 0xFFFF800012345678, 8)
    assert first.text == "interrupt gate 64 DPL 0, IST 3"
    assert (second.index, second.selector) == (1, 1)


def test_the_ivt_lists_segment_and_offset() -> None:
    first, second, cut = ivt_entries(bytes.fromhex("53ff00f0 34127856 00"))
    assert (first.kind, first.base, first.target, first.text) == ("vector", 0xFF53, 0xF000, "f000:ff53")
    assert (second.index, second.selector, second.text) == (1, 1, "5678:1234")
    assert cut.kind == "truncated"
    assert ivt_entries(bytes(6), 0x400)[1].text == "cut short by the table's limit: 2 of 4 bytes at 0x404"


def test_only_call_gates_have_a_parameter_count() -> None:
    raw = bytearray(build_gate(Gate(8, 0x1234, 0x86)))
    raw[4] = 5
    assert parse_gate(bytes(raw)).count == 0
    raw[5] = 0x84
    assert parse_gate(bytes(raw)).count == 5
    raw[5] = 0x8E
    assert parse_gate(bytes(raw)).count == 0


@pytest.mark.parametrize(
    ("cached", "table", "same"),
    [
        (0x93, 0x92, True),
        (0x93, 0x90, False),
        (0x8B, 0x89, True),
        (0x83, 0x81, True),
        (0x8B, 0x81, False),
        (0x82, 0x80, False),
        (0x93, 0x4092, False),
        (0x93, 0x13, False),
    ],
)
def test_only_accessed_and_busy_may_differ_between_cache_and_table(cached: int, table: int, same: bool) -> None:
    assert descriptors.same_rights(cached, table) is same
