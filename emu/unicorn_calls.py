"""INT n of real mode and of IA-32e mode, noted by the C helper and told of later, many at once (emu/native/calls.c)."""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_uint32, c_uint64, c_void_p

from emu.engine import Call
from emu.typed import Any, Final

KEPT: Final = 256


class Noted(ctypes.Structure):
    """struct call."""

    _fields_ = (
        ("counted", c_uint64), ("linear", c_uint64), ("ip", c_uint64), ("cs", c_uint32), ("vector", c_uint32),
    )  # fmt: skip
    counted: int
    linear: int
    ip: int
    cs: int
    vector: int


class _Shared(ctypes.Structure):
    """struct calls."""

    _fields_ = (
        ("engine", c_void_p), ("python", c_void_p), ("room", c_int64), ("noted", c_uint64), ("call", Noted * KEPT),
    )  # fmt: skip
    room: int
    noted: int
    call: ctypes.Array[Noted]


class Calls:
    """Those of one engine, a CallNotes. `engine` is the helper's record of it, `hook` what all are told to that are not
    noted here."""

    def __init__(self, engine: int | None, hook: Any) -> None:
        self._shared = _Shared(engine=engine, python=ctypes.cast(hook, c_void_p).value)
        self._told = 0  # of those that were noted
        self._forgotten = 0  # of those that were noted

    @property
    def address(self) -> int:
        """The hook's user data."""
        return ctypes.addressof(self._shared)

    @property
    def room(self) -> int:
        """See CallNotes."""
        return self._shared.room

    @room.setter
    def room(self, count: int) -> None:
        self._shared.room = count

    def take(self, before: int | None = None) -> tuple[int, list[Call]]:
        """See CallNotes."""
        noted = self._shared.noted
        if noted == self._told:
            return 0, []
        first = max(self._told, noted - KEPT)
        lost, found = first - self._told, []
        for number in range(first, noted):
            call = self._shared.call[number % KEPT]
            if before is not None and call.counted > before:
                noted = number
                break
            found.append(Call(call.counted - 1, call.vector, call.cs, call.ip))
        self._told = noted
        return lost, found

    def forget(self) -> None:
        """What comes is no consequence of the calls up to now."""
        self._forgotten = self._shared.noted

    def last(self, counted: int) -> Noted | None:
        """The call that was noted when so many instructions had been counted, if that was the last one."""
        noted = self._shared.noted
        if noted == self._forgotten:
            return None
        call = self._shared.call[(noted - 1) % KEPT]
        return call if call.counted == counted else None
