"""Layouts are decoded as construct itself decodes them."""

from __future__ import annotations

import random

import pytest
from construct import Array, Byte, Bytes, CString, Int16ub, Int16ul, Int32ul, Struct

from xenbridge.wire import core, decoding, hvm, hvm_devices, ioreq, pages, stream, xl
from xenbridge.wire.schema import Layout

LAYOUTS = sorted(
    {id(part): part for module in (core, hvm, hvm_devices, ioreq, pages, stream, xl) for part in vars(module).values()
     if isinstance(part, Layout)}.values(),
    key=lambda layout: layout.name,
)  # fmt: skip


def plain(value):
    """construct's containers as dicts and lists, without the entry that it adds."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if name != "_io"}
    return [plain(part) for part in value] if isinstance(value, list) else value


def theirs(fields, data):
    return plain(fields.parse(data))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_any_bytes_have_the_values_that_construct_gives(layout):
    for seed in range(20):
        data = random.Random(seed).randbytes(layout.size)
        values = layout.parse(data)
        assert values == theirs(layout._struct, data)
        assert list(values) == [field.name for field in layout.fields()]
        assert layout.build(values) == data


def test_lists_of_lists_and_structs_within_structs_too():
    inner = Struct("a" / Byte, "b" / Array(2, Int16ul))
    fields = Struct(
        "x" / Array(2, Array(3, inner)), "y" / inner, "z" / Array(2, Bytes(3)), "w" / Array(2, Array(2, Byte))
    )
    decoder = decoding.Decoder(fields)
    data = random.Random(1).randbytes(decoder.size)
    assert decoder.size == fields.sizeof()
    assert decoder.values(data) == theirs(fields, data)


@pytest.mark.parametrize(
    ("fields", "why"),
    [(Struct("a" / Int16ub, "b" / Int32ul), "one byte order"), (Struct("a" / CString("ascii")), "no field of fixed")],
)
def test_what_cannot_be_decoded_so_is_refused_when_the_layout_is_made(fields, why):
    with pytest.raises(TypeError, match=why):
        decoding.Decoder(fields)
