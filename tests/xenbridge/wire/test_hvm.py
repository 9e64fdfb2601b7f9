"""HVM save contexts: real ones, built ones, and ones that are not what they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xen_samples import sample
from xenbridge.wire.errors import WireError
from xenbridge.wire.hvm import (
    CODES,
    LAYOUTS,
    OPEN_ENDED,
    Record,
    build_context,
    build_record,
    find,
    parse_context,
)
from xenbridge.wire.hvm_cpu import CPU

#: Lengths in Xen 4.17's public headers, as a real Xen writes them.
LENGTHS = {
    "HEADER": 24, "CPU": 1032, "PIC": 8, "IOAPIC": 400, "LAPIC": 24, "LAPIC_REGS": 1024, "PCI_IRQ": 16, "ISA_IRQ": 8,
    "PCI_LINK": 8, "PIT": 56, "RTC": 24, "HPET": 1048, "PMTIMER": 8, "MTRR": 240, "VIRIDIAN_DOMAIN": 32,
    "VIRIDIAN_VCPU": 216, "VMCE_VCPU": 32, "TSC_ADJUST": 8,
}  # fmt: skip


@pytest.mark.parametrize("name", LENGTHS)
def test_records_have_the_lengths_of_xens_headers(name):
    assert LAYOUTS[CODES[name]][0].size == LENGTHS[name]


def test_the_lapic_record_has_a_form_of_32_bytes_too():
    assert [layout.size for layout in LAYOUTS[CODES["LAPIC"]]] == [24, 32]


#: Field to offset in the CPU record, from the public header.
CPU_OFFSETS = {
    "fpu_regs": 0, "rax": 512, "rip": 640, "rflags": 648, "cr0": 656, "dr0": 688, "cs_sel": 736, "cs_limit": 768,
    "cs_base": 808, "cs_arbytes": 888, "sysenter_cs": 920, "msr_efer": 992, "tsc": 1008, "pending_event": 1016,
    "error_code": 1020, "flags": 1024,
}  # fmt: skip


def test_the_cpu_record_has_xens_offsets():
    offsets = {field.name: field.offset for field in CPU.fields()}
    assert {name: offsets[name] for name in CPU_OFFSETS} == CPU_OFFSETS


def test_a_real_context_is_built_again_bit_for_bit():
    data = sample("s_hvmctx.bin")
    records = parse_context(data)
    assert len(records) == 17
    again = tuple(build_record(r.name, r.values(), r.instance) for r in records)
    assert build_context(again) == data


def test_a_real_context_says_what_its_program_had_done():
    records = parse_context(sample("s_hvmctx.bin"))
    cpu, pit, pic = (find(records, name).values() for name in ("CPU", "PIT", "PIC"))
    assert (cpu["rip"], cpu["rflags"], cpu["es_base"], cpu["cs_arbytes"]) == (0x7C8F, 0x206, 0xD0000, 0x9B)
    assert (pit["channels"][0]["count"], pit["channels"][0]["mode"], pit["channels"][1]["mode"]) == (0x2000, 2, 0xFF)
    assert (pic["imr"], pic["irq_base"]) == (0xDE, 8)


def _bytes_of(code):
    layout = LAYOUTS[code][0]
    return st.binary(min_size=layout.size, max_size=layout.size).map(lambda data: Record(code, 0, data))


#: Any bytes are a record of fixed length.
records_of_any_type = st.one_of(*(_bytes_of(code) for code in LAYOUTS if code not in OPEN_ENDED and code != 1))
unknown_records = st.builds(Record, st.integers(21, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=64))


#: What is known there is one of, of an instance.
any_records = st.lists(
    st.one_of(records_of_any_type, unknown_records),
    max_size=6,
    unique_by=lambda record: (record.code, record.instance if record.code in LAYOUTS else id(record)),
)


@given(any_records)
def test_any_records_come_back_as_they_were(records):
    header = parse_context(sample("s_hvmctx.bin"))[0]
    data = build_context([header, *records])
    assert parse_context(data) == (header, *records)
    assert build_context(parse_context(data)) == data


@given(records_of_any_type)
def test_any_record_is_built_again_from_its_fields(record):
    assert build_record(record.name, record.values()) == record


@given(st.binary(min_size=32, max_size=32))
def test_a_lapic_record_of_32_bytes_is_built_again(data):
    record = Record(CODES["LAPIC"], 0, data)
    assert build_record("LAPIC", record.values()) == record


def test_more_msrs_than_any_xen_has_are_refused():
    many = build_record("CPU_MSR", {"msrs": [{"index": 1, "val": 0}] * 4097})
    with pytest.raises(WireError, match="CPU_MSR, count at offset 0x0: 4097 entries"):
        many.values()


@given(st.lists(st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)), max_size=5))
def test_msrs_come_back(pairs):
    msrs = [{"index": index, "_rsvd": 0, "val": value} for index, value in pairs]
    assert build_record("CPU_MSR", {"msrs": msrs}).values()["msrs"] == msrs


@given(st.binary(min_size=600, max_size=700))
def test_an_xsave_record_of_any_length_comes_back(data):
    record = Record(CODES["CPU_XSAVE"], 0, data)
    assert build_record("CPU_XSAVE", record.values()) == record


def test_a_record_that_is_cut_names_itself_the_field_and_the_offset():
    data = sample("s_hvmctx.bin")
    with pytest.raises(WireError) as caught:
        parse_context(data[:0x2A0])
    assert (caught.value.record, caught.value.field, caught.value.offset) == ("CPU", "length", 0x24)


def test_a_known_record_of_another_length_is_of_another_xen():
    header = parse_context(sample("s_hvmctx.bin"))[0]
    data = build_context([header, Record(CODES["CPU"], 0, bytes(1040))])
    with pytest.raises(WireError, match=r"CPU at offset 0x28: 1040 bytes, where 1032 are known: .* another Xen"):
        parse_context(data)


def test_a_short_record_names_the_field_that_is_missing():
    header = parse_context(sample("s_hvmctx.bin"))[0]
    data = build_context([header, Record(CODES["CPU"], 0, bytes(650))])
    with pytest.raises(WireError) as caught:
        parse_context(data)
    assert (caught.value.field, caught.value.offset) == ("rflags", 0x28 + 648)


def test_a_newer_header_is_refused():
    data = bytearray(sample("s_hvmctx.bin"))
    data[12] = 2
    with pytest.raises(WireError, match="HEADER, version at offset 0xc: 2: only version 1 is known, so a newer Xen"):
        parse_context(data)


def test_bytes_behind_the_last_record_are_refused():
    data = sample("s_hvmctx.bin")
    with pytest.raises(WireError, match=f"END at offset {len(data):#x}: 3 bytes follow"):
        parse_context(data + bytes(3))


def test_a_length_of_4_gib_takes_no_memory():
    data = bytearray(sample("s_hvmctx.bin"))
    data[0x24:0x28] = b"\xff" * 4
    with pytest.raises(WireError, match="CPU, length at offset 0x24: 4294967295 bytes, of which 4072 are there"):
        parse_context(data)


def test_a_field_that_does_not_fit_is_named():
    values = parse_context(sample("s_hvmctx.bin"))[1].values()
    with pytest.raises(WireError, match="CPU, rip at offset 0x280"):
        build_record("CPU", values | {"rip": 1 << 64})
    del values["cr3"]
    with pytest.raises(WireError, match="CPU, cr3 at offset 0x2a0"):
        build_record("CPU", values)


@given(st.integers(0, 4111), st.integers(0, 7))
def test_a_context_with_a_bit_turned_is_read_or_refused_with_an_offset_inside(at, bit):
    data = bytearray(sample("s_hvmctx.bin"))
    data[at] ^= 1 << bit
    try:
        assert build_context(parse_context(data)) == data
    except WireError as error:
        assert 0 <= error.offset <= len(data)


@given(st.integers(0, 4111))
def test_a_context_that_is_cut_anywhere_is_refused(length):
    with pytest.raises(WireError) as caught:
        parse_context(sample("s_hvmctx.bin")[:length])
    assert 0 <= caught.value.offset <= length


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    try:
        parse_context(data)
    except WireError as error:
        assert 0 <= error.offset <= len(data)


@pytest.mark.parametrize(("name", "instance"), [("CPU", 0), ("LAPIC", 0), ("PIC", 1), ("HEADER", 0)])
def test_a_second_record_of_one_instance_is_refused_with_its_place(name, instance):
    """Which of the two counts would be a guess; Xen writes one."""
    records = parse_context(sample("s_hvmctx.bin"))
    again = next(r for r in records if (r.name, r.instance) == (name, instance))
    at = len(sample("s_hvmctx.bin")) - 8 + 2
    with pytest.raises(WireError, match=f"^{name}, instance at offset {at:#x}: {instance}: it has a record already"):
        parse_context(build_context((*records, again)))
    other = Record(77, 0, b"")
    assert parse_context(build_context((*records, other, other)))[-2:] == (other, other)


def test_a_context_that_lacks_its_end_says_so():
    data = sample("s_hvmctx.bin")[:-8]
    with pytest.raises(WireError, match=f"^END at offset {len(data):#x}: it is missing"):
        parse_context(data)
