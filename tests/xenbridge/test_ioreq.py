"""Requests in Xen's layout (public/hvm/ioreq.h), by struct."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenbridge.ioreq import SIZE, Ioreq, IoreqError, State, Type, read, unpack, write

REQUESTS = st.builds(
    Ioreq,
    type=st.sampled_from(Type), address=st.integers(0, 2**64 - 1), size=st.sampled_from((1, 2, 4, 8)),
    reads=st.booleans(), data=st.integers(0, 2**64 - 1), count=st.integers(0, 2**32 - 1), indirect=st.booleans(),
    down=st.booleans(), state=st.sampled_from(State), port=st.integers(0, 2**32 - 1),
)  # fmt: skip


def test_a_request_has_the_bytes_of_the_header() -> None:
    request = Ioreq(Type.COPY, 0xFEE00080, 4, True, 0x11223344, 2, True, True, State.READY, 7)
    assert request.pack().hex(" ", 8) == "8000e0fe00000000 4433221100000000 0200000004000000 0700000000007101"


@given(REQUESTS)
def test_bytes_and_values_are_each_others_inverse(request) -> None:
    assert len(request.pack()) == SIZE == 32
    assert unpack(request.pack()) == request


@given(st.binary(min_size=0, max_size=40))
def test_any_bytes_are_a_request_or_refused(raw) -> None:
    try:
        request = unpack(raw)
    except IoreqError:
        return
    assert request.pack()[:28] == raw[:28]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ((30, 5), r"^an I/O request at offset 0x0 is none: 5 is not a valid State$"),
        ((31, 9), r"is none: 9 is not a valid Type$"),
        ((20, 3), r"is for 3 bytes: 1, 2, 4 or 8 are possible$"),
    ],
)
def test_what_no_request_has_is_refused(change, sentence) -> None:
    raw = bytearray(read(Type.PIO, 0x40, 1).pack())
    raw[change[0]] = change[1]
    with pytest.raises(IoreqError, match=sentence):
        unpack(raw)


def test_a_cut_off_request_is_refused() -> None:
    with pytest.raises(IoreqError, match=r"^an I/O request has 32 bytes, and 31 are there$"):
        unpack(write(Type.PIO, 0x40, 1, 5).pack()[:31])
