"""`stub.exchange` by a C library (stub/native), which the interpreter does not run for."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from ctypes import c_char_p, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from emu.quiet import Quiet
from stub.exchange import MOST_TOGGLES, Exchanged, Known, Talk
from stub.native import sources_checksum
from stub.packet import frame

#: Packets answered in one call (MOST).
MOST = 256
_ENDED = -1
#: Bytes of the longest answer that is made in C, and of what one call takes down.
ANSWER_SIZE, LOG_SIZE = 0x1000, 0x20000
_SAID = struct.Struct("=4I")  #: struct said
_SPAN = struct.Struct("=QQ")  #: struct span
_PIECE = struct.Struct("=3I")  #: struct piece


class _Talk(ctypes.Structure):
    """struct talk of stub/native/known.c."""

    _fields_ = (
        ("quiet", c_void_p), ("step", c_char_p), ("reply", c_char_p), ("pieces", c_char_p), ("toggles", c_void_p),
        ("step_size", c_uint32), ("reply_size", c_uint32), ("piece_count", c_uint32), ("looks", c_uint32),
        ("toggle_count", c_uint32), ("watched_count", c_uint32), ("go", c_char_p), ("watched", c_void_p),
        ("same", c_char_p), ("spans", c_char_p), ("go_size", c_uint32), ("same_size", c_uint32),
        ("span_count", c_uint32), ("_pad", c_uint32),
    )  # fmt: skip


class _Toggle(ctypes.Structure):
    """struct toggle."""

    _fields_ = (("off", c_char_p), ("on", c_char_p), ("off_size", c_uint32), ("on_size", c_uint32))


class _Watched(ctypes.Structure):
    """struct watched."""

    _fields_ = (
        ("address", c_uint64), ("length", c_uint64), ("head", c_char_p), ("head_size", c_uint32),
        ("accesses", c_uint32),
    )  # fmt: skip


class _Exchange(ctypes.Structure):
    """struct exchange."""

    _fields_ = (
        ("until", c_uint64), ("fd", c_int32), ("table_size", c_uint32), ("size", c_uint32), ("answered", c_uint32),
        ("unsent", c_uint32), ("begun", c_uint32), ("table", c_char_p), ("data", c_void_p), ("talk", c_void_p),
        ("answer", c_void_p), ("log", c_void_p),
        ("answer_size", c_uint32), ("log_size", c_uint32), ("logged", c_uint32), ("stepped", c_uint32),
        ("out", c_uint32), ("met", c_uint32), ("written", c_uint32), ("_pad", c_uint32),
    )  # fmt: skip


class Library:
    """The C library. Raises OSError or AttributeError where it is not there or not whole, ValueError where it was built
    from other sources."""

    def __init__(self, path: Path) -> None:
        # It waits for packets, so it leaves Python's lock to others.
        library = ctypes.CDLL(str(path))
        layout, sources = library.v2e_known_layout, library.v2e_known_sources
        layout.restype, sources.restype = c_uint64, c_uint32
        sizes = ctypes.sizeof(_Exchange) << 48 | ctypes.sizeof(_Talk) << 32 | ctypes.sizeof(Quiet) << 16 | MOST
        if layout() != sizes or sources() not in (0, sources_checksum()):
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
        self._room, self._made = ctypes.create_string_buffer(size), ctypes.create_string_buffer(ANSWER_SIZE)
        self._log = ctypes.create_string_buffer(LOG_SIZE)
        self._exchange = _Exchange(
            fd=fd, size=size, data=ctypes.addressof(self._room), answer=ctypes.addressof(self._made),
            answer_size=ANSWER_SIZE, log=ctypes.addressof(self._log), log_size=LOG_SIZE,
        )  # fmt: skip
        self._told: Talk | None = None  # what `_talk` says
        self._talk, self._toggles, self._watched = _Talk(), (_Toggle * 0)(), (_Watched * 0)()
        self._answer, self._at = library.answer, ctypes.byref(self._exchange)

    def exchange(self, answers: Mapping[bytes, Known], until: float, talk: Talk | None = None) -> Exchanged:
        """As `stub.exchange.exchange`, but that it may come back sooner, and does what `talk` says."""
        exchange = self._exchange
        exchange.table = table = b"".join([answer.entry for answer in answers.values()])
        exchange.table_size, exchange.until = len(table), int(until * 1e9)
        if talk is not self._told:
            self._tell(talk)
        got = self._answer(self._at)
        answered = self._said(list(answers.items())) if exchange.answered else []
        out = tuple(n for n in range(MOST_TOGGLES) if exchange.out >> n & 1) if exchange.out else ()
        data = ctypes.string_at(self._room, got) if got > 0 else b""
        unsent = b""
        if exchange.unsent:
            framed = frame(answered[-1][1])
            unsent = framed[len(framed) - exchange.unsent :]
        return Exchanged(
            answered, data, unsent, got == _ENDED, exchange.stepped, bool(exchange.begun), out, exchange.met,
            exchange.written,
        )  # fmt: skip

    def _tell(self, talk: Talk | None) -> None:
        self._told = talk
        if talk is None:
            self._exchange.talk = None
            return
        self._talk = _Talk(
            quiet=ctypes.addressof(talk.quiet), step=talk.step, reply=talk.reply, step_size=len(talk.step),
            pieces=b"".join(_PIECE.pack(*piece) for piece in talk.pieces), reply_size=len(talk.reply),
            piece_count=len(talk.pieces), looks=talk.looks, toggle_count=len(talk.toggles),
            go=talk.go, go_size=len(talk.go), watched_count=len(talk.watches),
            same=talk.same, same_size=len(talk.same), span_count=len(talk.spans),
            spans=b"".join(_SPAN.pack(linear, len(data)) + data for linear, data in talk.spans),
        )  # fmt: skip
        pairs = (_Toggle(off, on, len(off), len(on)) for off, on in talk.toggles)
        self._toggles = (_Toggle * len(talk.toggles))(*pairs)
        self._talk.toggles = ctypes.addressof(self._toggles)
        watched = (_Watched(w.address, w.length, w.head, len(w.head), w.accesses) for w in talk.watches)
        self._watched = (_Watched * len(talk.watches))(*watched)
        self._talk.watched = ctypes.addressof(self._watched)
        self._exchange.talk = ctypes.addressof(self._talk)

    def _said(self, table: list[tuple[bytes, Known]]) -> list[tuple[bytes, bytes]]:
        """What was answered, and by what."""
        said, log, at = [], ctypes.string_at(self._log, self._exchange.logged), 0
        while at < len(log):
            number, made, length, answer_length = _SAID.unpack_from(log, at)
            at += _SAID.size
            if made:
                middle, end = at + length, at + length + answer_length
                said.append((log[at:middle], log[middle + 1 : end - 3]))
                at = end
            else:
                packet, known = table[number]
                said.append((packet, known.payload))
        return said
