"""Xen's dump-core files."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xen_samples import sample
from xenbridge.wire import core
from xenbridge.wire.errors import WireError

SIZE = 41079


def test_a_real_core_is_built_again_bit_for_bit():
    data = sample("s_dump.core")
    assert core.rebuild(data, core.parse_core(data)) == data


def test_a_real_core_says_what_its_program_had_done():
    data = sample("s_dump.core")
    parsed = core.parse_core(data)
    (vcpu,) = parsed.vcpus
    assert (vcpu["rip"], vcpu["rsp"], vcpu["es"], vcpu["rflags"]) == (0x7C8F, 0x7C00, 0xD000, 0x206)
    assert data[parsed.pages[0] + 0x610] == data[parsed.pages[0] + 0x614] == 0x2B
    assert (parsed.version["major_version"], parsed.version["minor_version"]) == (4, 17)


def test_a_vcpu_has_the_size_of_xens_structure():
    assert core.CONTEXT.size == 5168


@given(st.integers(0, (1 << 64) - 1))
def test_any_vcpu_is_built_again(seed):
    data = random.Random(seed).randbytes(5168)
    assert core.CONTEXT.build(core.CONTEXT.parse(data)) == data


def test_what_is_between_the_sections_is_kept():
    data = bytearray(sample("s_dump.core"))
    parsed = core.parse_core(data)
    headers = range(parsed.header["e_shoff"], parsed.header["e_shoff"] + len(parsed.sections) * core.SECTION.size)
    used = {*range(core.ELF_HEADER.size), *headers}
    used |= {at for s in parsed.sections if s.type for at in range(s.offset, s.offset + s.size)}
    free = [at for at in range(len(data)) if at not in used]
    assert free
    for at in free:
        data[at] = 0xA5
    assert core.rebuild(data, core.parse_core(data)) == data


def test_more_notes_than_any_core_has_are_refused():
    data = bytearray(sample("s_dump.core"))
    note = core.NOTE.build({"namesz": 0, "descsz": 0, "type": 77})
    number = next(n for n, s in enumerate(core.parse_core(data).sections) if s.name == ".note.Xen")
    at = core.parse_core(data).header["e_shoff"] + number * core.SECTION.size
    head = core.SECTION.parse(data, at)
    head["sh_offset"], head["sh_size"] = len(data), len(note) * (core.MAX_NOTES + 1)
    data[at : at + core.SECTION.size] = core.SECTION.build(head)
    with pytest.raises(WireError, match=f"note at offset {len(data) + len(note) * core.MAX_NOTES:#x}: more than 4096"):
        core.parse_core(data + note * (core.MAX_NOTES + 1))


def changed(at, value):
    data = bytearray(sample("s_dump.core"))
    data[at : at + len(value)] = value
    return data


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (4, b"\1", "not a little-endian ELF64 file"),
        (16, b"\2", "e_type at offset 0x10"),
        (40, b"\xff" * 8, "e_shoff"),
        (58, b"\0", "e_shentsize"),
        (60, b"\xff\xff", "e_shoff"),
        (62, b"\7", "e_shstrndx"),
        (0x1E0, b"\xed", "only cores of HVM domains"),
        (0x1E8, b"\xff" * 8, r"\.xen_prstatus"),
        (0x1F0, b"\xff" * 8, r"\.xen_pfn"),
        (0x1F8, b"\0" * 8, "xch_page_size"),
        (0x160, b"\xff" * 8, "sh_size of section 4"),
    ],
)
def test_what_xen_would_not_write_is_refused(at, value, why):
    with pytest.raises(WireError, match=why):
        core.parse_core(changed(at, value))


def moved(name, to):
    """The sample's core with the section of that name at that one's place."""
    data = bytearray(sample("s_dump.core"))
    parsed = core.parse_core(data)
    numbers = {section.name: n for n, section in enumerate(parsed.sections)}
    head = parsed.sections[numbers[name]].head | {"sh_offset": parsed.sections[numbers[to]].offset}
    at = parsed.header["e_shoff"] + numbers[name] * core.SECTION.size
    data[at : at + core.SECTION.size] = core.SECTION.build(head)
    return data


@pytest.mark.parametrize(("name", "to"), [(".note.Xen", ".xen_prstatus"), (".xen_pfn", ".xen_pages")])
def test_sections_that_overlap_are_refused(name, to):
    with pytest.raises(WireError, match=rf"^section header, sh_offset of section \d at offset 0x[0-9a-f]+: {name} and "
                       rf"{to} overlap|^section header, .*: {to} and {name} overlap"):  # fmt: skip
        core.parse_core(moved(name, to))


def test_a_core_whose_headers_lie_in_a_section_is_refused():
    data = bytearray(sample("s_dump.core"))
    parsed = core.parse_core(data)
    at = parsed.header["e_shoff"] + 2 * core.SECTION.size
    data[at : at + core.SECTION.size] = core.SECTION.build(parsed.sections[2].head | {"sh_offset": 64})
    with pytest.raises(WireError, match=r"the section headers and \.note\.Xen overlap"):
        core.parse_core(data)


def test_a_note_whose_name_is_too_long_is_named_for_that():
    with pytest.raises(
        WireError, match=r"^note, namesz at offset 0x1c0: 4294967295 bytes are beyond the section's end"
    ):
        core.parse_core(changed(0x1C0, b"\xff" * 4))


def test_a_newer_format_is_refused():
    at = sample("s_dump.core").index((1).to_bytes(8, "little"), 0x700)
    data = changed(at + 4, b"\1")
    with pytest.raises(WireError, match=r"only 0.1 is known, so a newer Xen wrote it"):
        core.parse_core(data)


@given(st.integers(0, SIZE - 1), st.integers(0, 7))
def test_a_core_with_a_bit_turned_is_read_or_refused_with_an_offset_inside(at, bit):
    data = bytearray(sample("s_dump.core"))
    data[at] ^= 1 << bit
    try:
        parsed = core.parse_core(data)
        assert all(0 <= place <= len(data) - 4096 for place in parsed.pages.values())
    except WireError as error:
        assert 0 <= error.offset <= len(data)


@given(st.integers(0, SIZE - 1))
def test_a_core_that_is_cut_is_refused(length):
    with pytest.raises(WireError) as caught:
        core.parse_core(sample("s_dump.core")[:length])
    assert 0 <= caught.value.offset <= SIZE


@given(st.binary(max_size=200))
def test_any_bytes_behind_a_magic_are_refused(data):
    with pytest.raises(WireError):
        core.parse_core(b"\x7fELF\2\1" + data)


@pytest.mark.parametrize("more", [1, 5000])
def test_a_core_that_is_too_long_is_refused_where_it_should_end(more):
    data = sample("s_dump.core")
    with pytest.raises(WireError, match=f"{more} bytes follow the last section") as refused:
        core.parse_core(data + bytes(more))
    assert refused.value.offset == len(data)
