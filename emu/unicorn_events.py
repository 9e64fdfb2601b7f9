"""Stops that are no linear addresses: on classes of instructions and physical addresses, behind changes of mode.

The C helper finds the instructions when it translates them (emu/native/events.c) and looks for changes where they can
come from. The portable loop goes instruction by instruction while such a stop is set, and asks before each.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable

from emu.engine import Change
from emu.typed import Final
from emu.unicorn_control import Control
from emu.unicorn_layout import HF_CS32, HF_CS64, HF_LMA, HF_PE
from emu.unicorn_memory import GuestMemory
from emu.unicorn_overlay import Overlay
from emu.x86.classes import InstructionClass, classify
from emu.x86.paging import translate
from emu.x86.state import RFLAGS_VM, CpuState

_MODE: Final = HF_PE | HF_LMA | HF_CS64 | HF_CS32
LONGEST: Final = 15  #: bytes of an instruction
REMEMBERED: Final = 4096  #: instructions that were classified
PAGE: Final = 0x1000
LTR: Final = InstructionClass.LTR


class EventStops:
    """`live` reads as the CPU's state, `read_linear` gives as many of the bytes asked for as are mapped memory."""

    def __init__(
        self,
        overlay: Overlay,
        control: Control,
        memory: GuestMemory,
        live: CpuState,
        read_linear: Callable[[int, int], bytes],
    ) -> None:
        self._ov, self._env, self._control, self._memory = overlay, overlay.env, control, memory
        self._live, self._read = live, read_linear
        self._physical: frozenset[int] = frozenset()
        self._table = (ctypes.c_uint64 * 1)()
        self._ranges: tuple[tuple[int, int], ...] = ()
        self._range_table = (ctypes.c_uint64 * 1)()
        self._class = 0  # of the instruction asked about last
        self._known: dict[tuple[bytes, int], int] = {}  # classes of instructions, by their bytes and the code's width

    @property
    def any(self) -> bool:
        """Something is stopped at."""
        return bool(self._control.classes or self._physical or self._ranges or self._control.changes)

    def replace(self, classes: int, physical: Iterable[int], changes: Change) -> bool:
        """Stop at these. True when translations have to be made anew for it."""
        wanted, control = frozenset(physical), self._control
        control.changes = int(changes)
        if (classes, wanted) == (control.classes, self._physical):
            return False
        control.classes, self._physical = classes, wanted
        self.remapped()
        return True

    def keep_out(self, ranges: Iterable[tuple[int, int]]) -> bool:
        """Stop before each instruction in one of the (first, last) ranges of linear addresses too. True when
        translations have to be made anew for it."""
        wanted = tuple(ranges)
        if wanted == self._ranges:
            return False
        self._ranges, self._control.range_count = wanted, 0
        self._range_table = (ctypes.c_uint64 * max(1, 2 * len(wanted)))(*(end for pair in wanted for end in pair))
        self._control.ranges, self._control.range_count = ctypes.addressof(self._range_table), len(wanted)
        return True

    def remapped(self) -> None:
        """The map of memory is another: find the physical addresses in it."""
        places = [first for at in sorted(self._physical) for first, _ in self._memory.ranges(at, 1)]
        self._control.physical_count = 0
        self._table = (ctypes.c_uint64 * max(1, len(places)))(*places)
        self._control.physical, self._control.physical_count = ctypes.addressof(self._table), len(places)

    def see(self) -> None:
        """A run begins: what is changed behind it is changed from now."""
        self._control.seen_mode, self._control.seen_task = self._mode(), self._task()

    def changed(self) -> Change:
        """What of that which is watched has changed since."""
        control = self._control
        if self._class & LTR:
            self._class, control.seen_task = 0, self._task()
        mode = Change.MODE if control.seen_mode != self._mode() else Change.NONE
        task = Change.TASK if control.seen_task != self._task() else Change.NONE
        return (mode | task) & Change(control.changes)

    @property
    def task(self) -> int:
        """The selector of TR that changes are compared with."""
        return self._control.seen_task & 0xFFFF

    def _mode(self) -> int:
        return self._env.hflags & _MODE | self._env.eflags & RFLAGS_VM

    def _task(self) -> int:
        return (self._env.tr.base << 16 | self._env.tr.selector & 0xFFFF) & (1 << 64) - 1

    def met(self, linear: int) -> bool:
        """For the portable loop: a stop is at the instruction at `linear`, the next one."""
        hflags = self._env.hflags
        bits = 64 if hflags & HF_CS64 else 32 if hflags & HF_CS32 else 16
        code = self._read(linear, LONGEST)
        if (found := self._known.get((code, bits))) is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            found = self._known[code, bits] = classify(code, bits)
        self._class = found
        if found & self._control.classes:
            return True
        if self._ranges and any(first <= linear <= last for first, last in self._ranges):
            return True
        return bool(self._physical) and self.physical_address(linear) in self._physical

    def code(self, linear: int) -> bytes:
        """The bytes at `linear`, as many as an instruction may have and are mapped."""
        physical = self.physical_address(linear) if linear % PAGE <= PAGE - LONGEST else None
        data = None if physical is None else self._memory.read(physical, LONGEST)
        return self._read(linear, LONGEST) if data is None else data

    def physical_address(self, linear: int) -> int | None:
        """Where the byte at `linear` is; None where nothing is mapped."""
        return translate(self._live, self._memory.read, linear)
