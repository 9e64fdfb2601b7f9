"""Watchpoints for Unicorn: linear ranges kept translated to the physical ones its memory hooks know.

Unicorn's memory hooks compare the first physical byte of an access. So each watched linear range is widened downwards
by the longest access less one, cut at page boundaries, translated, and hooked; a callback computes the linear address
back and compares for real. The translation is made again when CR0, CR3, CR4 or the A20 gate change, and when one of
the page-table entries it came from is written.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_int, c_int64, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Final

from emu.engine import Access, Watch, WatchHit
from emu.unicorn_overlay import Overlay
from emu.unicorn_thunks import Control
from emu.x86.paging import translate, walk
from emu.x86.state import CR0_PG, CpuState

#: The engine splits accesses into ones of at most 8 bytes; 16 leaves room.
LONGEST_ACCESS: Final = 16
PAGE: Final = 0x1000
#: Unicorn's hook types (include/unicorn/unicorn.h): reads are seen after the access, writes before it.
HOOK_READ_AFTER: Final = 1 << 13
HOOK_WRITE: Final = 1 << 11
MEM_WRITE: Final = 17  #: the callback's `type` of a write

_MEMORY = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_uint64, c_int, c_int64, c_void_p)


@dataclass(frozen=True, slots=True)
class _Piece:
    """`length` bytes at `physical` seen at `linear`, hooked for the watches in `watches`."""

    physical: int
    linear: int
    length: int


class Watchpoints:
    """The watchpoints of one engine. `stale` asks the run loop for a new translation."""

    def __init__(
        self,
        overlay: Overlay,
        control: Control,
        state: Callable[[], CpuState],
        read_physical: Callable[[int, int], bytes | None],
    ) -> None:
        self._ov, self._control = overlay, control
        self._state, self._read = state, read_physical
        self._watches: tuple[Watch, ...] = ()
        self._hooks: list[int] = []
        self._pieces: dict[int, tuple[Watch, _Piece]] = {}
        self.hit: WatchHit | None = None  #: the first since the last run
        self.stale = False
        self._on_access = _MEMORY(self._access)
        self._on_entry = _MEMORY(self._entry)

    @property
    def active(self) -> bool:
        return bool(self._watches)

    def replace(self, watches: tuple[Watch, ...]) -> None:
        """Watch exactly `watches`."""
        if watches == self._watches:
            return
        self._watches, self.hit = watches, None
        self.translate()

    def take_hit(self) -> WatchHit | None:
        """The first hit since the last call."""
        hit, self.hit = self.hit, None
        return hit

    def translate(self) -> None:
        """Hook where the watched ranges are now."""
        self.stale = False
        if not self._watches and not self._hooks:
            return
        for hook in self._hooks:
            self._ov.call.hook_del(self._ov.uc, hook)
        self._hooks.clear()
        self._pieces.clear()
        control, env = self._control, self._ov.env
        control.cr0, control.cr3, control.cr4 = env.cr[0], env.cr[3], env.cr[4]
        control.paging = 1 if self._watches else 0
        if self._watches:
            state = self._state()
            entries: set[int] = set()
            for watch in self._watches:
                self._place(watch, state, entries)
            for entry in entries:
                self._hooks.append(self._ov.add_hook(HOOK_WRITE, self._on_entry, entry - LONGEST_ACCESS + 1, entry + 7))
        # Memory hooks are compiled into translations.
        self._ov.call.tb_flush(self._ov.cpu)

    def _place(self, watch: Watch, state: CpuState, entries: set[int]) -> None:
        width = (1 << 64) - 1 if state.long64 else (1 << 32) - 1
        first, end = watch.address - LONGEST_ACCESS + 1, watch.address + watch.length
        kinds = (HOOK_READ_AFTER if Access.READ in watch.access else 0) | (
            HOOK_WRITE if Access.WRITE in watch.access else 0
        )
        while first < end:
            length = min(end - first, PAGE - first % PAGE)
            linear = first & width
            if state.cr0 & CR0_PG:
                entries.update(level.address for level in walk(state, self._read, linear).levels)
            physical = translate(state, self._read, linear)
            if physical is not None:
                number = len(self._pieces) + 1
                self._pieces[number] = (watch, _Piece(physical, linear, length))
                self._hooks.append(
                    self._ov.add_hook(kinds, self._on_access, physical, physical + length - 1, user_data=number)
                )
            first += length

    def _access(self, _uc: int, kind: int, address: int, size: int, value: int, number: int) -> None:
        watch, piece = self._pieces[number]
        linear = piece.linear + address - piece.physical
        if self.hit is None and linear < watch.address + watch.length and linear + size > watch.address:
            access = Access.WRITE if kind == MEM_WRITE else Access.READ
            self.hit = WatchHit(watch, linear, size, value & (1 << 8 * size) - 1, access)
        if self.hit is not None:
            self._control.halt_run = 1

    def _entry(self, _uc: int, _kind: int, _address: int, _size: int, _value: int, _data: int) -> None:
        self.stale = True
        self._control.halt_run = 1

    def read_linear(self, linear: int, length: int) -> bytes:
        """As many of `length` bytes from `linear` as are mapped memory."""
        state, out = self._state(), bytearray()
        while len(out) < length:
            physical = translate(state, self._read, linear + len(out))
            data = None if physical is None else self._read(physical, 1)
            if data is None:
                break
            out += data
        return bytes(out)
