"""The guest's registers and memory as gdb has them, for the parts that look at both."""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import gdb

from .cpu import Cpu, Segment
from .decode import LONGEST
from .layout import Layout
from .memory import Memory, Results

#: In the order in which instructions number them.
GENERAL = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
#: The stub's packet for many places at once (docs/packets.md).
GATHER = "qv2e.Memory:"
#: And the one that asks whether all of that is as it was.
SAME = "qv2e.Same:"
#: Bytes of code that are read at once for `Guest.code`, and how many such blocks are kept.
BLOCK, BLOCKS = 256, 256
T = TypeVar("T")
#: What `maintenance packet` says of the answer.
_RECEIVED = re.compile(r'^received: "m([0-9a-f;]*)"$', re.MULTILINE)
_YES = 'received: "1"'
#: The D or B bit and G of the access rights as *_attr have them (SDM vol. 3C, table 25-2).
_BIG, _GRANULAR = 1 << 14, 1 << 15


class Guest:
    """One inferior. Memory is read once a stop: a backtrace asks for the same bytes many times."""

    order = SEGMENTS

    def __init__(self) -> None:
        self._memory = Memory(self._fetch, self._gather, self._same)
        self._question = 0  #: CRC-32 of what the last `GATHER` has asked for, and of its answer
        self._deaf: int | None = None  #: number of the connection to a stub that does not answer `GATHER`
        self._layouts: dict[Any, Layout] = {}
        self._tables: tuple[int, int, int, int] = (0, 0, 0, 0)
        self._remembered = Results(self._memory)
        self._code: dict[int, bytes | None] = {}  #: by the number of the block
        #: called where registers and memory may have been written
        self.flushed: list[Callable[[], None]] = []
        for event in (gdb.events.cont, gdb.events.stop, gdb.events.memory_changed, gdb.events.exited):
            event.connect(self.forget)

    def forget(self, event: object = None) -> None:
        """Memory may have changed."""
        self._memory.forget()

    # -- memory

    def read(self, linear: int, length: int) -> bytes | None:
        """None where one of the bytes cannot be read; the stub never touches a device for it."""
        return self._memory.read(linear, length)

    def code(self, linear: int) -> bytes | None:
        """The instruction there, and perhaps more, as it once was: for who sees by other means whether that still
        stands there. None where it cannot be read."""
        block, at = divmod(linear, BLOCK)
        if block not in self._code:
            if len(self._code) >= BLOCKS:
                self._code.clear()
            first = block * BLOCK
            self._code[block] = self._fetch(first, BLOCK + LONGEST) or self._fetch(first, BLOCK)
        data = self._code[block]
        return None if data is None else data[at : at + LONGEST]

    def forget_code(self, linear: int) -> None:
        """Something else stands there."""
        self._code.pop(linear // BLOCK, None)

    def stands(self, code: Mapping[int, bytes]) -> bool:
        """These bytes, by their addresses, are what stands there. What does not is forgotten as `code`."""
        self.prefetch((linear, len(data)) for linear, data in code.items())
        wrong = [linear for linear, data in code.items() if self.read(linear, len(data)) != data]
        for linear in wrong:
            self.forget_code(linear)
        return not wrong

    def flush(self) -> None:
        """Registers and memory may have been written."""
        self.forget()
        for called in self.flushed:
            called()

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """These (linear, length) will be read: ask for all of them at once."""
        self._memory.prefetch(ranges)

    def unchanged(self) -> bool:
        """All memory that was read before `forget` is as it was."""
        return self._memory.unchanged()

    def remembered(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gives, or has given where it would read the same: `key` is all else that it goes by."""
        return self._remembered((self._tables, key), make)

    @property
    def tables(self) -> tuple[int, int, int, int]:
        """Base and limit of the GDT and of the LDT, of the frame that `cpu` was last asked for in protected mode."""
        return self._tables

    def _fetch(self, linear: int, length: int) -> bytes | None:
        try:
            data: bytes = gdb.selected_inferior().read_memory(linear, length).tobytes()
        except gdb.error:  # MemoryError, and what a trace frame has not collected
            return None
        return data

    def _gather(self, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        if not _may_ask():
            return None
        connection = getattr(gdb.selected_inferior(), "connection_num", None)  # since gdb 11
        if self._deaf is not None and connection == self._deaf:
            return None
        asked = ";".join(f"{linear:x},{length:x}" for linear, length in ranges)
        try:
            text = gdb.execute(f"maintenance packet {GATHER}{asked}", to_string=True)
        except gdb.error:
            return None
        answer = _RECEIVED.search(text)
        if answer is None:
            self._deaf = connection
            return None
        self._question = zlib.crc32(f"{asked}m{answer[1]}".encode())
        return [bytes.fromhex(part) for part in answer[1].split(";")]

    def _same(self) -> bool:
        if not _may_ask():
            return False
        try:
            return _YES in gdb.execute(f"maintenance packet {SAME}{self._question:x}", to_string=True)
        except gdb.error:
            return False

    # -- registers

    def layout(self, frame: Any) -> Layout:
        """Of a gdb.Frame or gdb.PendingFrame."""
        architecture = frame.architecture()  # gdb makes one object of each
        layout = self._layouts.get(architecture)
        if layout is None:
            layout = self._layouts[architecture] = Layout(architecture)
        return layout

    def cpu(self, frame: Any) -> Cpu | None:
        """The registers of a gdb.Frame or gdb.PendingFrame, None in 64-bit code and where eip is shown as an offset.
        Raises gdb.error where the target is not v2e's, or the frame does not know them."""
        layout = self.layout(frame)
        read = functools.partial(layout.value, frame)
        mode = layout.need(frame, "mode")
        if mode == 64:
            return None
        segments = []
        for name in SEGMENTS:
            selector, base, limit, attr = (read(name + part) for part in ("", "_base", "_limit", "_attr"))
            big = mode == 32 if name == "cs" else bool((attr or 0) & _BIG)
            segments.append(Segment(selector, base, big, limit, attr))
        flags, cr0 = read("eflags"), read("cr0")
        protected = bool((cr0 or 0) & 1) and not (flags or 0) >> 17 & 1
        cpl = (segments[1].selector or 0) & 3 if protected else 3 if (flags or 0) >> 17 & 1 else 0
        general = [read(name) for name in GENERAL]
        cpu = Cpu(general, segments, layout.need(frame, "ip"), flags, protected, cpl, cr0)
        if cpu.pc != layout.need(frame, "eip"):
            return None
        if protected:
            self._tables = self._read_tables(frame)
        return cpu

    def moved(self, frame: Any, cpu: Cpu) -> Cpu:
        """The registers of a frame whose segments, control registers and tables are those of `cpu`."""
        layout = self.layout(frame)
        general = [layout.value(frame, name) for name in GENERAL]
        ip, flags = layout.need(frame, "ip"), layout.value(frame, "eflags")
        return Cpu(general, cpu.segments, ip, flags, cpu.protected, cpu.cpl, cpu.cr0)

    def _read_tables(self, frame: Any) -> tuple[int, int, int, int]:
        """Base and limit of the GDT and of the LDT."""
        gdtr, ldtr = frame.read_register("gdtr"), frame.read_register("ldtr")
        usable = int(ldtr["selector"]) & ~3
        return (
            int(gdtr["base"]) & 0xFFFFFFFF,
            int(gdtr["limit"]) & 0xFFFF,
            int(ldtr["base"]) & 0xFFFFFFFF,
            int(ldtr["limit"]) & 0xFFFFFFFF if usable else 0,
        )

    def descriptor(self, selector: int) -> Segment | None:
        """What loading `selector` in protected mode gives by the tables (SDM vol. 3A, 3.4.5), None where it faults."""
        base, limit = self._tables[2:] if selector & 4 else self._tables[:2]
        index = selector & 0xFFF8
        if not selector & ~3:
            return None
        if index + 7 > limit:
            return None
        data = self.read((base + index) & 0xFFFFFFFF, 8)
        if data is None:
            return None
        low, high = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:], "little")
        if not high & 1 << 15 or not high & 1 << 12:  # absent, or a system descriptor
            return None
        limit = low & 0xFFFF | high & 0xF0000
        attr = high >> 8 & 0xF0FF
        return Segment(
            selector,
            low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000,
            bool(attr & _BIG),
            limit << 12 | 0xFFF if attr & _GRANULAR else limit,
            attr,
        )


def _may_ask() -> bool:
    """The stub may be asked by a packet of our own.

    Connection.send_packet (gdb 12) drops the frames, which gdb is just making. `gdb.execute` does not, but then runs
    the commands of the breakpoint that was hit, whose turn comes only when the stop has been shown.
    """
    return not any(point.commands for point in gdb.breakpoints() or ())
