"""Watchpoints for Unicorn: linear ranges kept translated to the physical ones its memory hooks know.

Unicorn's memory hooks compare the first physical byte of an access. So each watched linear range is widened downwards
by the longest access less one, cut at page boundaries, translated, and hooked; a callback computes the linear address
back and compares for real. The translation is made again when CR0, CR3, CR4 or the A20 gate change, and when one of
the page-table entries it came from is written. The guest's own data breakpoints (DR0 to DR3), which Unicorn ignores,
are watched in the same way; those on ports are compared behind each access that a port callback makes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_int, c_int64, c_uint64, c_void_p

from emu.engine import Access, Watch, WatchHit
from emu.record import dataclass
from emu.typed import Final, Protocol
from emu.unicorn_callbacks import Callbacks
from emu.unicorn_control import Control
from emu.unicorn_layout import HF_IOBPT
from emu.unicorn_overlay import Overlay
from emu.unicorn_shared import MET_WRITE, Met, Watched
from emu.x86.paging import translate, walk
from emu.x86.state import CR0_PG, CpuState

#: The engine splits accesses into ones of at most 8 bytes; 16 leaves room.
LONGEST_ACCESS: Final = 16
PAGE: Final = 0x1000
ENTRY_SIZE: Final = 8  #: of a page-table entry; a 4-byte one's neighbour is watched too
#: Unicorn's hook types (include/unicorn/unicorn.h): reads are seen after the access, writes before it.
HOOK_READ_AFTER: Final = 1 << 13
HOOK_WRITE: Final = 1 << 11
DR7_WRITE, DR7_IO, DR7_READ_WRITE = 1, 2, 3  #: R/W fields of DR7
CR4_DE: Final = 1 << 3
DR6_B: Final = 0xF
#: LEN fields of DR7, bytes (SDM vol. 3B, 18.2.4; 10b is undefined outside 64-bit mode, and 8 here)
_LENGTHS: Final = (1, 2, 8, 4)
MEM_WRITE: Final = 17  #: the callback's `type` of a write

_MEMORY = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_uint64, c_int, c_int64, c_void_p)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A hooked range: what begins at `physical` is seen at `linear`."""

    watch: Watch
    trap: int | None  #: the number of the guest's debug register, None for a watchpoint of ours
    physical: int
    linear: int


class Loop(Protocol):
    """What a run loop does for memory hooks."""

    keeps_pc: bool  #: EIP is in a hook what the instruction has made it
    met: Met | None  #: the first access to what is `watched`; None: the callback is told of each

    def memory_hook(self, callback: int, number: int, watched: Watched | None = None) -> tuple[int, int]: ...
    def forget_hooks(self) -> None: ...
    def flush(self) -> None: ...


class Watchpoints:
    """The watchpoints of one engine. `stale` asks the run loop for a new translation."""

    def __init__(
        self,
        overlay: Overlay,
        control: Control,
        loop: Loop,
        state: Callable[[], CpuState],
        live: CpuState,
        read_physical: Callable[[int, int], bytes | None],
        callbacks: Callbacks,
    ) -> None:
        """`live` reads as the CPU's state, of which `state` makes a copy."""
        self._ov, self._control, self._loop, self._ports = overlay, control, loop, callbacks
        self._state, self._live, self._read = state, live, read_physical
        self._watches: tuple[Watch, ...] = ()
        self._placed: tuple[Watch, ...] = ()  # those that have hooks
        self._moved = False  # what has hooks may be elsewhere now
        self._hooks: list[int] = []
        self._pieces: dict[int, _Piece] = {}
        self._hit: WatchHit | None = None  # the first since the last run, unless `_first` still has that
        self._first = loop.met
        self.stale = False
        self._dr6 = 0  # before `_met`
        self._callbacks = _MEMORY(self._access), _MEMORY(self._entry)
        self._on_access, self._on_entry = (ctypes.cast(c, c_void_p).value or 0 for c in self._callbacks)

    @property
    def active(self) -> bool:
        return bool(self._watches)

    @property
    def placed(self) -> bool:
        """Something is hooked, or is to be."""
        return bool(self._watches or self._hooks)

    def replace(self, watches: tuple[Watch, ...]) -> None:
        """Watch exactly `watches`."""
        if watches == self._watches:
            return
        self._watches = watches
        self._forget_hit()
        # Hooks are compiled into translations, so they change when the CPU runs: gdb takes its watchpoints out at each
        # stop and puts the same ones in again.
        self.stale = self._moved or watches != self._placed

    def outdated(self) -> None:
        """Linear addresses may lead elsewhere than they did."""
        self._moved = self.stale = True

    @property
    def hit(self) -> bool:
        """There was a hit since `take_hit`."""
        return self._hit is not None or ((met := self._first) is not None and met.kind != 0)

    def take_hit(self) -> WatchHit | None:
        """The first hit since the last call."""
        hit, met = self._hit, self._first
        if hit is None and met is not None and met.kind:
            hit = self.hit_of(met.number, met.linear, met.size, met.value, met.kind == MET_WRITE)
        self._forget_hit()
        return hit

    def _forget_hit(self) -> None:
        self._hit = None
        if self._first is not None:
            self._first.kind = 0

    def hit_of(self, number: int, linear: int, size: int, value: int, is_write: bool) -> WatchHit:
        """That of hook `number`."""
        return WatchHit(self._pieces[number].watch, linear, size, value, Access.WRITE if is_write else Access.READ)

    def translate(self) -> None:
        """Hook where the watched ranges are now."""
        self.stale = self._moved = False
        self._placed = self._watches
        control, env = self._control, self._ov.env
        control.dr7 = dr7 = env.dr[7] & 0xFFFFFFFF
        if not (self._watches or self._hooks or dr7 & 0xFF):
            self._ports.after_port = None
            control.ports = False
            control.paging = 0  # what was watched may have been nowhere
            env.hflags &= ~HF_IOBPT
            return
        on_ports = any(_enabled(env.dr[7], n) == DR7_IO for n in range(4))
        self._ports.after_port = self._port if on_ports else None
        control.ports = on_ports
        env.hflags &= ~HF_IOBPT  # Unicorn's own compares otherwise: see emu/native/ports.c
        wanted: list[tuple[Watch, int | None]] = [(watch, None) for watch in self._watches]
        wanted += [(watch, number) for number, watch in data_breakpoints(list(env.dr))]
        if not wanted and not self._hooks:
            return
        self._hit = self.take_hit()  # while its number means something
        for hook in self._hooks:
            self._ov.call.hook_del(self._ov.uc, hook)
        self._hooks.clear()
        self._loop.forget_hooks()
        self._pieces.clear()
        control.cr0, control.cr3, control.cr4 = env.cr[0], env.cr[3], env.cr[4]
        for i in range(4):
            control.dr[i] = env.dr[i]
        control.paging = 1 if wanted else 0
        if wanted:
            state = self._state()
            entries: set[int] = set()
            for watch, trap in wanted:
                self._place(watch, trap, state, entries)
            for entry in entries:
                self._hook(HOOK_WRITE, self._on_entry, entry - LONGEST_ACCESS + 1, entry + ENTRY_SIZE - 1)
        # Memory hooks are compiled into translations.
        self._loop.flush()

    def _hook(
        self, kind: int, callback: int, first: int, last: int, number: int = 0, watched: Watched | None = None
    ) -> None:
        address, data = self._loop.memory_hook(callback, number, watched)
        self._hooks.append(self._ov.add_hook(kind, address, first, last, user_data=data))

    def _place(self, watch: Watch, trap: int | None, state: CpuState, entries: set[int]) -> None:
        width = (1 << 64) - 1 if state.long64 else (1 << 32) - 1
        first, end = watch.address - LONGEST_ACCESS + 1, watch.address + watch.length
        kinds = (HOOK_READ_AFTER if Access.READ in watch.access else 0) | (
            HOOK_WRITE if Access.WRITE in watch.access else 0
        )
        while first < end:
            length = min(end - first, PAGE - first % PAGE)
            linear = first & width
            if state.cr0 & CR0_PG and not watch.physical:
                entries.update(level.address for level in walk(state, self._read, linear).levels)
            physical = linear if watch.physical else translate(state, self._read, linear)
            if physical is not None:
                number = len(self._pieces) + 1
                self._pieces[number] = _Piece(watch, trap, physical, linear)
                # A breakpoint of the guest's own is an exception, and for Python to raise.
                watched = Watched(watch.address, watch.length, physical, linear) if trap is None else None
                self._hook(kinds, self._on_access, physical, physical + length - 1, number, watched)
            first += length

    def _access(self, _uc: int, kind: int, address: int, size: int, value: int, number: int) -> None:
        if kind != MEM_WRITE and not self._loop.keeps_pc:
            from emu.unicorn_far_return import far_return

            target = far_return(self._state(), self.read_linear)
            if target is not None:
                self._ov.env.eip = target
        piece = self._pieces[number]
        watch, linear = piece.watch, piece.linear + address - piece.physical
        if linear >= watch.address + watch.length or linear + size <= watch.address:
            return
        if piece.trap is not None:
            self._met(1 << piece.trap)
            return
        if self._hit is None:
            self._hit = self.hit_of(number, linear, size, value & (1 << 8 * size) - 1, kind == MEM_WRITE)
        self._control.halt_run = 1

    def _met(self, which: int) -> None:
        """Raise #DB behind the running instruction, or iteration of a repeated one, with these of DR6.B0 to B3: what
        was met there, not what was before (SDM vol. 3B, 18.2.3: they may be cleared)."""
        dr, control = self._ov.env.dr, self._control
        if not control.trap:
            self._dr6 = dr[6]
            dr[6] &= ~DR6_B
        dr[6] |= which
        control.trap = 1

    def untrap(self) -> None:
        """The instruction that met a breakpoint of the guest's own ends with a fault: it is not reported (SDM vol. 3B,
        17.3.1.2: the trap is behind the instruction that accesses)."""
        self._control.trap = 0
        self._ov.env.dr[6] = self._dr6

    def _port(self, port: int, size: int) -> None:
        """An instruction has accessed `size` ports from `port` (SDM vol. 3B, 18.2.5)."""
        env = self._ov.env
        which = 0
        for number in range(4):
            length = _LENGTHS[env.dr[7] >> 18 + 4 * number & 3]
            first = env.dr[number] & ~(length - 1)
            if _enabled(env.dr[7], number) == DR7_IO and first < port + size and port < first + length:
                which |= 1 << number
        if which and env.cr[4] & CR4_DE:
            self._met(which)

    def _entry(self, _uc: int, _kind: int, _address: int, _size: int, _value: int, _data: int) -> None:
        self.outdated()
        self._control.halt_run = 1

    def read_linear(self, linear: int, length: int) -> bytes:
        """As many of `length` bytes from `linear` as are mapped memory, a page at once. Regions end with pages."""
        out = b""
        while len(out) < length:
            at = linear + len(out)
            physical = translate(self._live, self._read, at)
            data = None if physical is None else self._read(physical, min(length - len(out), PAGE - at % PAGE))
            if data is None:
                break
            out += data
        return out


def _enabled(dr7: int, number: int) -> int | None:
    """R/W of breakpoint `number`; None when it is not enabled."""
    return dr7 >> 16 + 4 * number & 3 if dr7 >> 2 * number & 3 else None


def data_breakpoints(dr: list[int]) -> list[tuple[int, Watch]]:
    """The enabled data breakpoints of debug registers `dr` (DR0 to DR7), by number (SDM vol. 3B, 18.2.4, 18.2.5)."""
    found = []
    for number in range(4):
        kind = _enabled(dr[7], number)
        if kind in (DR7_WRITE, DR7_READ_WRITE):
            length = _LENGTHS[dr[7] >> 18 + 4 * number & 3]
            access = Access.WRITE if kind == DR7_WRITE else Access.BOTH
            found.append((number, Watch(dr[number] & ~(length - 1), length, access)))
    return found
