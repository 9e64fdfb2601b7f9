"""Callers for gdb: an unwinder for 16-bit code, and for 32-bit code of which gdb knows no line; names in backtraces."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gdb.frames
import gdb.unwinder
from gdb.FrameDecorator import FrameDecorator

import gdb

from .cpu import BP, SP, Cpu
from .decode import CS, SS
from .frames import Caller, Frames, How
from .guest import GENERAL, SEGMENTS, Guest
from .layout import Layout, Stop
from .steps import Step, step_of

#: Registers that are the same in all frames of one stack; those of callers are given in addition.
SHARED = ("cr2", "cr3", "cr4", "efer", "cpl", "gdtr", "idtr", "ldtr", "tr")
#: What is told from the innermost frame to a caller that is the same again.
SAME = (
    *(*GENERAL, "eip", "ip", "eflags", "mode", "cr0"),
    *(name + part for name in SEGMENTS for part in ("", "_base", "_limit", "_attr")),
    *(*SHARED, "icount"),
)
#: Frames of one backtrace; gdb ends at a frame that is its own caller, and this ends what goes in larger circles.
DEEPEST = 200
#: Ends of stacks whose descriptions are kept.
ENDS = 64
NAME = "v2e"
#: The number of no frame of a trace.
LIVE = -1


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


def is_live() -> bool:
    """gdb shows the guest, and no frame of a trace (`tfind`). No event tells of it."""
    number = gdb.convenience_variable("trace_frame")
    return number is None or int(number) == LIVE


def _is_ours(cpu: Cpu) -> bool:
    """A frame without a caller is ours to say so of."""
    return not cpu.segments[CS].big or cpu.general[BP] is None


def _has_symbols(big: bool, pc: int) -> bool:
    """gdb knows a line there, and by what it has read it knows callers better."""
    return big and gdb.find_pc_line(pc).symtab is not None


@dataclass(slots=True)
class _Answer:
    """What was said of the guest's innermost frame at `stop`: `info`, of gdb's type UnwindInfo, or None: the frame is
    gdb's.
    `address` is the frame's for gdb, `shared` are registers of it for add_saved_register. `cpu` is the CPU there; where
    the guest has been stepped since that was `looked` at, as much of it as has stayed: all but general registers, IP
    and flags."""

    stop: Stop
    layout: Layout
    info: Any
    address: int
    cpu: Cpu
    caller: Caller | None
    shared: list[tuple[Any, Any]]
    top: int | None  #: linear address of the top of the stack
    looked: bool = True


class Unwinder(gdb.unwinder.Unwinder):  # type: ignore[misc]  # only gdb knows its own module
    """Answers gdb's question who called.

    gdb asks of the innermost frame at each stop, those between the steps of `stepi 1000` among them, to tell frames
    apart. Where the guest has executed one instruction since the last answer, and that has done what an instruction
    does which stays in its frame (steps.py), the frame is the same, and so is the answer. Before a stop is shown to
    anybody, it is looked for anew; what an instruction does not change is then as it was, if those that were taken to
    have been executed do stand there. Asked again of a stop that is shown, as gdb does when it was told to forget what
    it knows, the unwinder knows nothing either.
    """

    def __init__(self, guest: Guest) -> None:
        super().__init__(NAME)
        self._guest = guest
        self._frames = Frames(guest.read, guest.descriptor, guest.prefetch, guest.remembered)
        #: how callers were found, by their linear pc and the top of their stack
        self.marks: dict[tuple[int, int], How] = {}
        #: the innermost frame, with the tables of its selectors, and who called it, at the last look
        self._last: tuple[tuple[object, ...], Caller | None] | None = None
        self._answer: _Answer | None = None
        self._ends: dict[tuple[Layout, int, int | None], Any] = {}
        self._end_info: Any = None  #: what was said last of the innermost frame, if that nobody called it
        self._ran = False  #: the guest may have run since the last answer
        self._shown = True  #: this stop is shown: an answer has to be one that was looked for
        self._executed: dict[
            int, bytes
        ] = {}  #: instructions since the last look, as far as is known, by their addresses
        self._levels = hasattr(gdb.PendingFrame, "level")  # since gdb 11

    def connect(self) -> None:
        """Listen to gdb."""
        events = gdb.events
        events.cont.connect(self._on_cont)
        events.stop.connect(self._on_stop)
        for name in ("memory_changed", "register_changed", "exited", "new_objfile", "clear_objfiles", "free_objfile"):
            if hasattr(events, name):
                getattr(events, name).connect(self.forget)
        self._guest.flushed.append(self.forget)

    def forget(self, event: object = None) -> None:
        """Registers, memory or symbols are others than at the last answer, though no instruction was executed."""
        self._answer = None

    def _on_cont(self, event: object) -> None:
        self._ran, self._shown = True, False
        self.marks.clear()

    def _on_stop(self, event: object) -> None:
        self._shown = True
        if self._answer is not None and not self._answer.looked:
            gdb.invalidate_cached_frames()

    def __call__(self, pending: Any) -> Any:
        try:
            level = pending.level() if self._levels else 0
            if level:
                return self._outer(pending, level)
            layout = self._guest.layout(pending)
            stop = layout.stop(pending) if self._levels else None
            live = is_live()
            # A trace's frame may be of the very instruction at which the guest stands, with less memory.
            answer, before = self._answer if live else None, None
            if stop is not None and answer is not None and answer.layout is layout:
                if stop == answer.stop and not self._ran:
                    if not self._shown:
                        return answer.info
                    if not answer.looked:
                        before = answer.cpu
                elif (step := self._stayed(answer, stop)) is not None:
                    if not self._shown:
                        return self._continued(pending, answer, stop, step)
                    before = answer.cpu
            return self._look(pending, layout, stop, before, live)
        except gdb.error:
            return None  # a register that this frame does not know, or a target that is not v2e's

    def _stayed(self, answer: _Answer, stop: Stop) -> Step | None:
        """The instruction that was executed from the answer to `stop`; None where that is not one that has stayed in
        its frame."""
        count, pc, sp = answer.stop
        if stop[0] != count + 1 or answer.top is None:
            return None
        code = self._guest.code(pc)
        step = None if code is None else step_of(code, answer.cpu.segments[CS].big)
        mask = 0xFFFFFFFF if answer.cpu.segments[SS].big else 0xFFFF
        if step is None or not step.fits(stop[1] - pc, stop[2] - sp, mask):
            self._guest.forget_code(pc)
            return None
        if answer.caller is not None and answer.top <= answer.caller.slot < answer.top + step.moved:
            return None  # it has taken its return address away
        if _has_symbols(answer.cpu.segments[CS].big, stop[1]):
            return None
        assert code is not None, "it was decoded"
        self._executed[pc] = code[: step.length]
        return step

    def _continued(self, pending: Any, answer: _Answer, stop: Stop, step: Step) -> Any:
        """The answer as it has become."""
        caller, layout = answer.caller, answer.layout
        if caller is not None:
            # What the caller has of its own stands on the stack. The rest are the registers as they are.
            known = caller.with_registers(self._guest.moved(pending, answer.cpu))
            if known is not caller:
                answer.info = self._info(pending, layout, answer.address, known, answer.shared, stop)
                answer.caller = known
            self._mark(known)
        assert answer.top is not None, "it was compared"
        answer.top += step.moved
        answer.stop, answer.looked, self._ran = stop, False, False
        return answer.info

    def _look(self, pending: Any, layout: Layout, stop: Stop | None, before: Cpu | None, live: bool) -> Any:
        """Look who called the innermost frame, the guest's if it is `live`. `before`: the CPU earlier in the same
        frame, if what was executed since stands there."""
        # gdb asks about the innermost frame first whenever the guest has run, also where no event says so (`nexti 5`).
        self._guest.forget()
        last, self._answer, self._end_info, self._ran = self._answer, None, None, False
        executed, self._executed = self._executed, {}
        if before is not None and not self._guest.stands(executed):
            before = None
        mode = layout.need(pending, "mode")
        if mode == 64 or _has_symbols(mode == 32, layout.need(pending, "eip")):
            return None
        cpu = self._guest.cpu(pending) if before is None else self._guest.moved(pending, before)
        if cpu is None:
            return None
        key = (*cpu.general, *cpu.segments, cpu.ip, cpu.flags, cpu.protected, cpu.cpl, cpu.cr0, self._guest.tables)
        caller = self._innermost(cpu, key)
        shared, info, address = [], None, 0
        if caller is not None:
            # These are not told with a stop, and do not change within a frame.
            shared = last.shared if last is not None and before is not None else []
            shared, address = shared or layout.kept(pending, SHARED), frame_address(cpu, caller.slot)
            info = self._info(pending, layout, address, caller, shared, stop)
        elif _is_ours(cpu):  # else gdb's own way is the chain of frame pointers
            info = self._end_info = self._first_end(pending, layout, cpu)
        if stop is not None and live:
            self._answer = _Answer(stop, layout, info, address, cpu, caller, shared, cpu.stack)
        return info

    def _outer(self, pending: Any, level: int) -> Any:
        """Who called a caller."""
        if level == 1 and self._end_info is not None:
            # The innermost frame over again, which is where the stack ends: gdb looks at nothing but what tells frames
            # apart.
            return self._end_info
        cpu = self._guest.cpu(pending)
        if cpu is None or _has_symbols(cpu.segments[CS].big, cpu.pc or 0):
            return None
        layout = self._guest.layout(pending)
        caller = self._frames.caller(cpu) if level < DEEPEST else None
        if caller is not None:
            address = frame_address(cpu, caller.slot)
            return self._info(pending, layout, address, caller, layout.kept(pending, (*SHARED, "icount")), None)
        return self._end(pending, layout, cpu, SAME) if level >= DEEPEST or _is_ours(cpu) else None

    def _innermost(self, cpu: Cpu, key: tuple[object, ...]) -> Caller | None:
        """The caller, by the last look where that would be made again: gdb asks more than once at a stop."""
        last = self._last
        if last is not None and last[0] == key and self._guest.unchanged():
            return last[1]
        self._last = None  # what comes next may end in an error
        caller = self._frames.caller(cpu)
        self._last = key, caller
        return caller

    def _first_end(self, pending: Any, layout: Layout, cpu: Cpu) -> Any:
        """The same of the innermost frame. What its caller, which it is itself, is told of registers is not looked at
        (`_outer`) but for its place: so what was made there once is as good again."""
        if not self._levels:
            return self._end(pending, layout, cpu, SAME)
        key = layout, outermost(cpu), cpu.pc
        if key not in self._ends:
            if len(self._ends) >= ENDS:
                self._ends.clear()
            self._ends[key] = self._end(pending, layout, cpu, ("eip",))
        return self._ends[key]

    def _end(self, pending: Any, layout: Layout, cpu: Cpu, names: tuple[str, ...]) -> Any:
        """Of a frame that nobody called: gdb's own end of a stack is not to be had by an unwinder; a frame that is its
        own caller, with the registers of these `names`, is one, too."""
        info = pending.create_unwind_info(FrameId(outermost(cpu)))
        for register, value in layout.kept(pending, names):
            info.add_saved_register(register, value)
        return info

    def _info(
        self,
        pending: Any,
        layout: Layout,
        address: int,
        caller: Caller,
        shared: list[tuple[Any, Any]],
        stop: Stop | None,
    ) -> Any:
        info = pending.create_unwind_info(FrameId(address))
        above = caller.cpu
        values: list[tuple[str, int | None]] = [
            *zip(GENERAL, above.general, strict=True),
            ("eip", above.pc),
            ("ip", above.ip),
            ("eflags", above.flags),
            ("cr0", above.cr0),
            ("mode", 32 if above.segments[CS].big else 16),
        ]
        for name, segment in zip(SEGMENTS, above.segments, strict=True):
            values += ((name, segment.selector), (f"{name}_base", segment.base))
            values += ((f"{name}_limit", segment.limit), (f"{name}_attr", segment.attr))
        if stop is not None:
            values.append(("icount", stop[0]))
        add = info.add_saved_register
        for register, value in layout.saved(pending, values):
            add(register, value)
        for register, value in shared:
            add(register, value)
        self._mark(caller)
        return info

    def _mark(self, caller: Caller) -> None:
        above = caller.cpu
        if above.pc is not None and above.stack is not None:
            self.marks[above.pc, above.stack] = caller.how


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
    unwinder.connect()
    gdb.invalidate_cached_frames()
