"""Callers for gdb: an unwinder for 16-bit code, and for 32-bit code of which gdb knows no line; names in backtraces."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import gdb.frames
import gdb.unwinder
from gdb.FrameDecorator import FrameDecorator

import gdb

from .cpu import BP, SP, Cpu
from .decode import CS, SS
from .frames import Caller, Frames, How
from .guest import GENERAL, SEGMENTS, Guest

#: Registers that are the same in all frames of one stack; those of callers are given in addition.
SHARED = (*("cr2", "cr3", "cr4", "efer", "cpl", "gdtr", "idtr", "ldtr", "tr"),)
#: Frames of one backtrace; gdb ends at a frame that is its own caller, and this ends what goes in larger circles.
DEEPEST = 200
NAME = "v2e"


class FrameId:
    """What tells frames apart, in the form that gdb.unwinder takes."""

    def __init__(self, sp: int) -> None:
        self.sp = gdb.Value(sp)
        self.pc = gdb.Value(0)


def frame_address(cpu: Cpu, slot: int) -> int:
    """The frame's address for gdb: that of the return address, and above bit 32, which gdb does not show, a rank.

    gdb takes a caller whose frame lies lower than the called one's for a corrupt stack. But a BIOS has its own stack
    above the caller's, and a kernel's may be anywhere: the BIOS area ranks lowest, then the rings from 0, and behind
    them virtual-8086 mode, whose BIOS a monitor in ring 0 may have interrupted.
    """
    virtual = not cpu.protected and cpu.cpl == 3
    bios = not cpu.protected and 0xA0000 <= slot < 0x100000
    return (1 + cpu.cpl + virtual - bios) << 40 | slot


def outermost(cpu: Cpu) -> int:
    """The address of a frame that nobody called."""
    return frame_address(cpu, (cpu.segments[SS].base or 0) + 0x10000)


def _is_ours(cpu: Cpu) -> bool:
    """A frame without a caller is ours to say so of."""
    return not cpu.segments[CS].big or cpu.general[BP] is None


class Unwinder(gdb.unwinder.Unwinder):  # type: ignore[misc]  # only gdb knows its own module
    """Answers gdb's question who called."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(NAME)
        self._guest = guest
        self._frames = Frames(guest.read, guest.descriptor, guest.prefetch, guest.remembered)
        #: how callers were found, by their linear pc and the top of their stack
        self.marks: dict[tuple[int, int], How] = {}
        #: the innermost frame, with the tables of its selectors, and who called it, at the last look
        self._last: tuple[tuple[object, ...], Caller | None] | None = None

    def __call__(self, pending: Any) -> Any:
        # gdb asks about the innermost frame first whenever the guest has run, also where no event says so (`nexti 5`).
        innermost = not hasattr(pending, "level") or not pending.level()
        if innermost:
            self._guest.forget()
        try:
            cpu = self._guest.cpu(pending)
        except gdb.error:
            return None  # a register that this frame does not know, or a target that is not v2e's
        if cpu is None or (cpu.segments[CS].big and gdb.find_pc_line(cpu.pc).symtab is not None):
            return None
        key = (*cpu.general, *cpu.segments, cpu.ip, cpu.flags, cpu.protected, cpu.cpl, cpu.cr0, self._guest.tables)
        if not innermost and self._last is not None and self._last == (key, None):
            # The innermost frame over again, which is where the stack ends: gdb looks at nothing but what tells frames
            # apart.
            return pending.create_unwind_info(FrameId(outermost(cpu))) if _is_ours(cpu) else None
        caller = self._innermost(cpu, key) if innermost else self._frames.caller(cpu)
        if caller is None and not _is_ours(cpu):
            return None  # gdb's own way is the chain of frame pointers
        return self._answer(pending, cpu, caller)

    def _innermost(self, cpu: Cpu, key: tuple[object, ...]) -> Caller | None:
        """The caller, by the last look where that would be made again: gdb asks three times at a stop of `stepi`."""
        last = self._last
        if last is not None and last[0] == key and self._guest.unchanged():
            return last[1]
        self._last = None  # what comes next may end in an error
        caller = self._frames.caller(cpu)
        self._last = key, caller
        return caller

    def _answer(self, pending: Any, cpu: Cpu, caller: Caller | None) -> Any:
        level = pending.level() if hasattr(pending, "level") else 0
        if caller is None or level >= DEEPEST:
            # gdb's own end of a stack is not to be had by an unwinder; a frame that is its own caller is one, too.
            info = pending.create_unwind_info(FrameId(outermost(cpu)))
            parts = (name + part for name in SEGMENTS for part in ("", "_base", "_limit", "_attr"))
            for name in (*GENERAL, "eip", "ip", "eflags", "mode", "cr0", *parts, *SHARED):
                self._keep(pending, info, name)
            return info
        info = pending.create_unwind_info(FrameId(frame_address(cpu, caller.slot)))
        above = caller.cpu
        values = dict(zip(GENERAL, above.general, strict=True))
        values |= {
            "eip": above.pc,
            "ip": above.ip,
            "eflags": above.flags,
            "cr0": above.cr0,
            "mode": 32 if above.segments[CS].big else 16,
        }
        for name, segment in zip(self._guest.order, above.segments, strict=True):
            values |= {name: segment.selector, f"{name}_base": segment.base}
            values |= {f"{name}_limit": segment.limit, f"{name}_attr": segment.attr}
        for name, value in values.items():
            kind = self._guest.type_of(pending, name)
            if value is not None and kind is not None:
                data = (value & (1 << 8 * kind.sizeof) - 1).to_bytes(kind.sizeof, "little")
                info.add_saved_register(name, gdb.Value(data, kind))
        for name in SHARED:
            self._keep(pending, info, name)
        if above.pc is not None and above.stack is not None:
            self.marks[above.pc, above.stack] = caller.how
        return info

    def _keep(self, pending: Any, info: Any, name: str) -> None:
        """The caller's register is this frame's."""
        try:
            value = pending.read_register(name)
            if not value.is_optimized_out:
                info.add_saved_register(name, value)
        except (gdb.error, ValueError):
            return  # no such register in this mode, or not known in this frame


class Named(FrameDecorator):  # type: ignore[misc]
    """A frame as backtraces show it: code without a symbol by its segment and offset, and what is not certain."""

    def __init__(self, base: Any, mark: str, place: str) -> None:
        super().__init__(base)
        self._mark, self._place = mark, place

    def function(self) -> Any:
        name = super().function()
        if isinstance(name, int):
            symbol = gdb.execute(f"info symbol {name:#x}", to_string=True)
            name = None if symbol.startswith("No symbol") else symbol.split()[0]
        name = name or self._place
        return f"{name} [{self._mark}]" if self._mark else name


class Names:
    """The frame filter that decorates what the unwinder has found."""

    def __init__(self, unwinder: Unwinder, guest: Guest) -> None:
        self.name, self.priority, self.enabled = NAME, 100, True
        self._unwinder, self._guest = unwinder, guest

    def filter(self, frames: Iterator[Any]) -> Iterator[Any]:
        """gdb's frame filter protocol."""
        return map(self._named, itertools.islice(frames, DEEPEST))

    def _named(self, decorated: Any) -> Any:
        frame = decorated.inferior_frame()
        try:
            cpu = self._guest.cpu(frame)
        except gdb.error:
            return decorated
        if cpu is None or cpu.pc is None or cpu.stack is None or cpu.general[SP] is None:
            return decorated
        if cpu.segments[CS].big and gdb.find_pc_line(cpu.pc).symtab is not None:
            return decorated
        how = self._unwinder.marks.get((cpu.pc, cpu.stack), How.WAY) if frame.level() else How.WAY
        selector = cpu.segments[CS].selector
        return Named(decorated, how.value, f"{selector:04x}:{cpu.ip:04x}" if selector is not None else "??")


def install(guest: Guest) -> None:
    """Register both with gdb, in place of those of an earlier load."""
    unwinder = Unwinder(guest)
    gdb.unwinder.register_unwinder(None, unwinder, replace=True)
    gdb.frame_filters[NAME] = Names(unwinder, guest)
    gdb.events.cont.connect(lambda event: unwinder.marks.clear())
    gdb.invalidate_cached_frames()
