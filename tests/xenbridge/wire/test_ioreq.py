"""Request pages."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenbridge.wire import ioreq
from xenbridge.wire.errors import WireError


def test_a_request_has_the_layout_that_xen_gives_it():
    data = struct.pack("<QQIIIHBB", 0x3F8, 0x41, 1, 1, 7, 0, ioreq.READY | ioreq.READ, ioreq.PIO)
    values = ioreq.IOREQ.parse(data)
    assert (values["addr"], values["data"], values["bits"], values["type"]) == (0x3F8, 0x41, 0x21, 0)
    assert ioreq.IOREQ.build(values) == data
    assert ioreq.IOREQ.size == 32


@given(st.integers(0, (1 << 64) - 1))
def test_any_page_is_built_again(seed):
    page = random.Random(seed).randbytes(4096)
    for layout in (ioreq.IOREQ_PAGE, ioreq.BUFFERED_PAGE):
        assert layout.size == 4096
        assert layout.build(layout.parse(page)) == page


@given(st.binary(min_size=8, max_size=8))
def test_any_buffered_request_is_built_again(data):
    assert ioreq.build_buffered(ioreq.parse_buffered(data)) == data


def ring(first, entries):
    slots = [bytes(8)] * ioreq.BUFFERED_SLOTS
    for n, entry in enumerate(entries):
        slots[(first + n) % ioreq.BUFFERED_SLOTS] = entry
    page = {"read_pointer": first, "write_pointer": first + len(entries) & 0xFFFFFFFF, "buf_ioreq": slots}
    return ioreq.BUFFERED_PAGE.build(page)


def entry(addr, data, size=1):
    return ioreq.build_buffered({"type": 1, "dir": 0, "size": size, "addr": addr, "data": data})


@pytest.mark.parametrize("first", [0, 510, 0xFFFFFFFF // 511 * 511 + 3])
def test_what_waits_in_the_ring_is_given_in_order_also_round_its_end(first):
    first &= 0xFFFFFFFF
    found = ioreq.pending(ring(first, [entry(0xA0000, 1), entry(0xA0001, 2), entry(0xA0002, 3)]))
    assert [(e["addr"], e["data"]) for e in found] == [(0xA0000, 1), (0xA0001, 2), (0xA0002, 3)]


def test_a_write_of_8_bytes_takes_two_slots():
    (found,) = ioreq.pending(ring(0, [entry(0xB8000, 0x11111111, 8), entry(0xB8000, 0x22222222, 8)]))
    assert (found["size"], found["data"]) == (8, 0x2222222211111111)
    with pytest.raises(WireError, match="second half"):
        ioreq.pending(ring(0, [entry(0xB8000, 1, 8)]))


def test_pointers_further_apart_than_the_ring_are_refused():
    page = bytearray(ring(0, []))
    page[4:8] = (512).to_bytes(4, "little")
    with pytest.raises(WireError, match="512 entries are said to wait, of 511"):
        ioreq.pending(page)


def test_an_address_or_size_that_does_not_fit_is_refused():
    with pytest.raises(WireError, match="addr"):
        entry(1 << 20, 0)
    with pytest.raises(WireError, match="size"):
        entry(0, 0, 3)
