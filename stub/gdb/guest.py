"""The guest's registers and memory as gdb has them, for the parts that look at both."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import gdb

from .cpu import Cpu, Segment
from .memory import Memory

#: In the order in which instructions number them.
GENERAL = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
#: The stub's packet for many places at once (docs/packets.md).
GATHER = "qv2e.Memory:"
#: Looks whose results are remembered.
REMEMBERED = 4
T = TypeVar("T")
#: What `maintenance packet` says of the answer.
_RECEIVED = re.compile(r'^received: "m([0-9a-f;]*)"$', re.MULTILINE)
#: The D or B bit and G of the access rights as *_attr have them (SDM vol. 3C, table 25-2).
_BIG, _GRANULAR = 1 << 14, 1 << 15


class Guest:
    """One inferior. Memory is read once a stop: a backtrace asks for the same bytes many times."""

    order = SEGMENTS

    def __init__(self) -> None:
        self._memory = Memory(self._fetch, self._gather)
        self._deaf: int | None = None  #: number of the connection to a stub that does not answer `GATHER`
        self._types: dict[str, Any] = {}
        self._tables: tuple[int, int, int, int] = (0, 0, 0, 0)
        self._remembered: dict[object, tuple[object, Any, dict[int, bytes | None]]] = {}
        for event in (gdb.events.cont, gdb.events.stop, gdb.events.memory_changed, gdb.events.exited):
            event.connect(self.forget)

    def forget(self, event: object = None) -> None:
        """Memory may have changed."""
        self._memory.forget()

    # -- memory

    def read(self, linear: int, length: int) -> bytes | None:
        """None where one of the bytes cannot be read; the stub never touches a device for it."""
        return self._memory.read(linear, length)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """These (linear, length) will be read: ask for all of them at once."""
        self._memory.prefetch(ranges)

    def unchanged(self) -> bool:
        """All memory that was read before `forget` is as it was."""
        return self._memory.unchanged()

    def remembered(self, key: object, make: Callable[[], T]) -> T:
        """What `make` gives, or has given where it would read the same: `key` is all else that it goes by."""
        known = self._remembered.get(key)
        if known is not None and known[0] == self._tables and self._memory.holds(known[2]):
            made: T = known[1]
            return made
        made, lines = self._memory.noting(make)
        if len(self._remembered) >= REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = self._tables, made, lines
        return made

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
        # Connection.send_packet (gdb 12) drops the frames, which gdb is just making. `gdb.execute` does not, but then
        # runs the commands of the breakpoint that was hit, whose turn comes only when the stop has been shown.
        if any(point.commands for point in gdb.breakpoints() or ()):
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
        return [bytes.fromhex(part) for part in answer[1].split(";")]

    # -- registers

    def type_of(self, frame: Any, name: str) -> Any:
        """The register's type, None if the target has no such register."""
        if name not in self._types:
            try:
                self._types[name] = frame.read_register(name).type
            except (gdb.error, ValueError):
                return None
        return self._types[name]

    def _value(self, frame: Any, name: str) -> int | None:
        """None where the frame does not know it. Raises gdb.error where the target has no such register."""
        try:
            value = frame.read_register(name)
            self._types.setdefault(name, value.type)
            return None if value.is_optimized_out else int(value) & 0xFFFFFFFF
        except gdb.error as error:
            if "optimized out" in str(error) or "saved" in str(error):
                return None
            raise
        except ValueError:
            raise gdb.error(f"the target has no register {name}") from None

    def _need(self, frame: Any, name: str) -> int:
        value = self._value(frame, name)
        if value is None:
            raise gdb.error(f"register {name} is not known in this frame")
        return value

    def cpu(self, frame: Any) -> Cpu | None:
        """The registers of a gdb.Frame or gdb.PendingFrame, None in 64-bit code and where eip is shown as an offset.
        Raises gdb.error where the target is not v2e's, or the frame does not know them."""
        mode = self._need(frame, "mode")
        if mode == 64:
            return None
        segments = []
        for name in SEGMENTS:
            selector, base, limit, attr = (self._value(frame, name + part) for part in ("", "_base", "_limit", "_attr"))
            big = mode == 32 if name == "cs" else bool((attr or 0) & _BIG)
            segments.append(Segment(selector, base, big, limit, attr))
        flags = self._value(frame, "eflags")
        cr0 = self._value(frame, "cr0")
        protected = bool((cr0 or 0) & 1) and not (flags or 0) >> 17 & 1
        cpl = (segments[1].selector or 0) & 3 if protected else 3 if (flags or 0) >> 17 & 1 else 0
        cpu = Cpu(
            [self._value(frame, name) for name in GENERAL],
            segments,
            self._need(frame, "ip"),
            flags,
            protected,
            cpl,
            cr0,
        )
        if cpu.pc != self._need(frame, "eip"):
            return None
        if protected:
            self._tables = self._read_tables(frame)
        return cpu

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
