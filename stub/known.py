"""`stub.exchange` by a C library (stub/native), which the interpreter does not run for."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import c_int32, c_int64, c_uint16, c_uint32, c_uint64, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from stub.exchange import Exchanged, Known
from stub.native import sources_checksum

#: Packets answered in one call (MOST).
MOST = 256
_ENDED = -1


class _Exchange(ctypes.Structure):
    """struct exchange of stub/native/known.c."""

    _fields_ = (
        ("until", c_uint64), ("fd", c_int32), ("table_size", c_uint32), ("size", c_uint32), ("answered", c_uint32),
        ("unsent", c_uint32), ("_pad", c_uint32), ("table", ctypes.c_char_p), ("data", c_void_p),
        ("which", c_uint16 * MOST),
    )  # fmt: skip


class Library:
    """The C library. Raises OSError or AttributeError where it is not there or not whole, ValueError where it was built
    from other sources."""

    def __init__(self, path: Path) -> None:
        # It waits for packets, so it leaves Python's lock to others.
        library = ctypes.CDLL(str(path))
        layout, sources = library.v2e_known_layout, library.v2e_known_sources
        layout.restype, sources.restype = c_uint64, c_uint32
        if layout() != ctypes.sizeof(_Exchange) << 32 | MOST or sources() not in (0, sources_checksum()):
            raise ValueError("stub/native was built from other sources than this package's; install it again")
        self.answer = library.v2e_known_answer
        self.answer.restype = c_int64


def load_library() -> Library | None:
    """The library; None where it was not built."""
    folder = Path(__file__).parent / "native"
    path = next((p for suffix in EXTENSION_SUFFIXES if (p := folder / f"_known{suffix}").exists()), None)
    if path is None:
        return None
    try:
        return Library(path)
    except (OSError, AttributeError, ValueError):
        return None


class Exchanger:
    """For the socket `fd`, with room for `size` bytes that come."""

    def __init__(self, library: Library, fd: int, size: int) -> None:
        self._room = ctypes.create_string_buffer(size)
        self._exchange = _Exchange(fd=fd, size=size, data=ctypes.addressof(self._room))
        self._answer, self._at = library.answer, ctypes.byref(self._exchange)

    def exchange(self, answers: Mapping[bytes, Known], until: float) -> Exchanged:
        """As `stub.exchange.exchange`, but that it may come back sooner."""
        exchange = self._exchange
        exchange.table = table = b"".join([answer.entry for answer in answers.values()])
        exchange.table_size, exchange.until = len(table), int(until * 1e9)
        got = self._answer(self._at)
        if exchange.answered:
            packets = list(answers)
            answered = [packets[number] for number in exchange.which[: exchange.answered]]
        else:
            answered = []
        if got > 0:
            return Exchanged(answered, ctypes.string_at(self._room, got))
        if exchange.unsent:
            framed = answers[answered[-1]].framed
            return Exchanged(answered, unsent=framed[len(framed) - exchange.unsent :])
        return Exchanged(answered, ended=got == _ENDED)
