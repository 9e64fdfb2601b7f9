"""Finds the events that breakpoints wait for, while the guest runs, and says in words what happened.

Nothing is looked at that no breakpoint asks for. What happens in the middle of an instruction is noted, and the machine
asked to stop behind it; what has to be seen before an instruction is an engine's stop, of which this decides whether it
is one that was meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from emu.catches import Catch, CatchKind
from emu.clock import NS_PER_INSTRUCTION
from emu.engine import Access, Change, Exit, Fault, Watch
from emu.machine import Machine
from emu.stops import VECTOR_NAMES, Breakpoint
from emu.until import TAIL
from emu.x86 import disasm
from emu.x86.classes import InstructionClass, classify
from emu.x86.modes import Mode, code_bits, mode_of
from emu.x86.state import CpuState

LONGEST = 15  #: bytes of an instruction
RAX, RCX, RDX = 0, 1, 2
#: The consoles whose text is matched, by their event.
_CONSOLES = {CatchKind.SERIAL: "serial", CatchKind.DEBUGCON: "debugcon"}
ENTRIES = (CatchKind.ENTERABLE, CatchKind.UNENTERABLE)
_CHANGES = {CatchKind.MODE: Change.MODE, CatchKind.TASK: Change.TASK}


class Catcher:
    """Of one debugger. `running`: an action goes on, so that what happens is the guest's doing. `glance` reads linear
    memory as the guest has it now, None where it cannot be read; `place` gives a linear address's physical one."""

    def __init__(
        self,
        machine: Machine,
        running: Callable[[], bool],
        glance: Callable[[int, int], bytes | None],
        place: Callable[[int], int | None],
    ) -> None:
        self._machine, self._running, self._glance, self._place = machine, running, glance, place
        self._points: dict[CatchKind, list[Breakpoint]] = {}
        self.armed = False  #: some event is looked for
        #: what has happened and was not looked at yet
        self.pending: list[tuple[Breakpoint, str]] = []
        self.classes = 0  #: of instructions that may be events
        self.physical: frozenset[int] = frozenset()  #: addresses at which execution is one
        self._changes = Change.NONE
        self._traces = False  # ports
        self._mode: Mode | None = None
        self._begun = -1  # instructions retired where counts have been told of
        self._sent: dict[str, int] = {}  #: characters of each console that were matched
        self._entry: dict[int, bool] = {}  # whether the state could be entered, by a breakpoint's rules
        self._entry_timer = machine.clock.timer("host.entry", lambda deadline: self._look_at_entry(), host=True)
        self._entry_timer.wakes = False
        self._shown: dict[int, bool] = {}  #: whether the screen showed a breakpoint's text when it was looked at last

    # -- what to look for

    def arm(self, points: Iterable[Breakpoint]) -> None:
        """Look for what these breakpoints, of which some may be of other kinds, wait for."""
        before, self._points = self._points, {}
        for point in points:
            if point.catch is not None and point.enabled:
                self._points.setdefault(point.catch.kind, []).append(point)
        if not before and not self._points:
            return  # a breakpoint of another kind, as gdb sets and takes away at each stop
        wanted = [point.catch for found in self._points.values() for point in found if point.catch is not None]
        machine = self._machine
        entries = self._has(*ENTRIES)
        machine.caught_fault = self._fault if entries or self._has(CatchKind.INT, CatchKind.EXCEPTION) else None
        machine.caught_interrupt = self._interrupt if entries or self._has(CatchKind.INTERRUPT) else None
        if self._has(CatchKind.PORT) != self._traces:
            self._traces = not self._traces
            machine.ports.trace = self._port if self._traces else None
        if not entries:
            self._entry.clear()
        self._shown = {p.id: self._shown.get(p.id, self._matches(p)) for p in self._of(CatchKind.SCREEN)}
        for kind, name in _CONSOLES.items():
            if kind in self._points:
                self._sent.setdefault(name, machine.outputs.total[name])
            else:
                self._sent.pop(name, None)
        classes = 0
        for catch in wanted:
            classes |= catch.classes
        executed = frozenset(
            catch.first for catch in wanted
            if catch.kind is CatchKind.PHYSICAL and catch.access is None and catch.first is not None
        )  # fmt: skip
        changes = Change.NONE
        for kind, change in _CHANGES.items():
            if kind in self._points:
                changes |= change
        if (classes, executed, changes) != (self.classes, self.physical, self._changes):
            self.classes, self.physical, self._changes = classes, executed, changes
            machine.executor.set_event_stops(classes, executed, changes)
        self.armed = bool(self._points)
        self.begin()

    def _has(self, *kinds: CatchKind) -> bool:
        return any(kind in self._points for kind in kinds)

    def _of(self, kind: CatchKind) -> list[Breakpoint]:
        return self._points.get(kind, [])

    @property
    def reads_text(self) -> bool:
        """What the guest's consoles send is matched."""
        return bool(self._sent)

    @property
    def looks_at_screen(self) -> bool:
        return CatchKind.SCREEN in self._points

    def watches(self) -> Iterator[tuple[Watch, Breakpoint]]:
        """What is to be watched by the engine."""
        for point in self._of(CatchKind.PHYSICAL):
            catch = point.catch
            if catch is not None and catch.access is not None and catch.first is not None and catch.last is not None:
                yield Watch(catch.first, catch.last - catch.first + 1, catch.access, physical=True), point

    def counts(self) -> Iterator[int]:
        """Where a run has to end: instructions retired."""
        retired = self._machine.executor.retired
        for point in self._of(CatchKind.COUNT):
            if point.catch is not None and point.catch.first is not None and point.catch.first > retired:
                yield point.catch.first

    def begin(self) -> None:
        """The guest is about to run, or was given another state: changes count from here, and nothing is pending."""
        self.pending.clear()
        self._begun = self._machine.executor.retired
        if self._changes:
            self._mode = mode_of(self._machine.executor.live())
        if self._has(*ENTRIES):
            self._entry = {point.id: self._enterable(point) for kind in ENTRIES for point in self._of(kind)}
            self._look_soon(NS_PER_INSTRUCTION)  # the first instruction is not looked at before it

    # -- what happens while the guest runs

    def _happened(self, point: Breakpoint, text: str) -> None:
        if not self._running():
            return  # a person's own access, or a look ahead
        self.pending.append((point, text))
        self._machine.request_stop()

    def _fault(self, fault: Fault) -> None:
        self._look_soon(NS_PER_INSTRUCTION)  # it counts as an instruction
        name = VECTOR_NAMES[fault.vector] if fault.vector < len(VECTOR_NAMES) else f"vector {fault.vector:#04x}"
        code = "" if fault.code is None else f"({fault.code:#x})"
        what = f"exception {name}{code}" if fault.is_exception else f"INT {fault.vector:#04x}"
        during = "" if fault.interrupt is None else f" in delivering interrupt {fault.interrupt:#04x}"
        cr2 = f" with CR2 {fault.cr2:#x}" if fault.vector == 14 and not fault.software else ""
        hint = f" ({fault.hint})" if fault.hint else ""
        for point in self._of(CatchKind.EXCEPTION if fault.is_exception else CatchKind.INT):
            if point.catch is not None and point.catch.covers(fault.vector):
                self._happened(point, f"{what}{cr2}{during} at {fault.cs:04x}:{fault.rip:04x}{hint}")

    def _interrupt(self, vector: int) -> None:
        self._look_soon(0)
        for point in self._of(CatchKind.INTERRUPT):
            if point.catch is not None and point.catch.covers(vector):
                self._happened(point, f"hardware interrupt {vector:#04x}")

    def _port(self, port: int, size: int, value: int, write: bool) -> None:
        access = Access.WRITE if write else Access.READ
        for point in self._of(CatchKind.PORT):
            catch = point.catch
            if catch is not None and catch.covers(port, size) and catch.access is not None and catch.access & access:
                what = f"OUT of {value:#x} to" if write else f"IN of {value:#x} from"
                self._happened(point, f"{what} port {port:#x} ({size} byte{'s' * (size > 1)})")

    def text_sent(self, name: str) -> None:
        """A console has sent something: is what a breakpoint waits for complete by it?"""
        if name not in self._sent:
            return
        outputs = self._machine.outputs
        new = outputs.total[name] - self._sent[name]
        self._sent[name] = outputs.total[name]
        text = outputs.text(name)[-(new + TAIL) :]
        for kind, console in _CONSOLES.items():
            for point in self._of(kind) if console == name else ():
                pattern = point.catch.pattern if point.catch is not None else None
                if pattern is not None and any(m.end() > len(text) - new for m in pattern.finditer(text)):
                    self._happened(point, f"{name} sent {pattern.pattern!r}")

    # -- whether the state can be entered

    def _enterable(self, point: Breakpoint) -> bool:
        rules = point.catch.rules if point.catch is not None else None
        machine = self._machine
        return rules is not None and rules.enterable(machine.executor.live(), machine.memory.try_read)

    def _look_soon(self, ns: int) -> None:
        """Ask whether the state can be entered when `ns` of virtual time have passed, behind an instruction."""
        if self._running() and self._has(*ENTRIES):
            self._entry_timer.arm(self._machine.clock.now + ns)

    def _look_at_entry(self) -> None:
        for point, text in self._entered():
            self._happened(point, text)

    def _entered(self) -> list[tuple[Breakpoint, str]]:
        """What has become so since it was looked at last."""
        found = []
        for kind in ENTRIES:
            for point in self._of(kind):
                now = self._enterable(point)
                before, self._entry[point.id] = self._entry.get(point.id, now), now
                rules = point.catch.rules if point.catch is not None else None
                if now is before or now is not (kind is CatchKind.ENTERABLE) or rules is None:
                    continue
                text = f"the state can be entered by {rules.name}"
                if not now:
                    why = rules.broken(self._machine.executor.live(), self._machine.memory.try_read)[0]
                    text = f"the state cannot be entered any more by {rules.name}: {why}"
                found.append((point, text))
        return found

    def look_at_screen(self) -> None:
        """It may have changed: does it show what it did not?"""
        for point in self._of(CatchKind.SCREEN):
            shows = self._matches(point)
            if shows and not self._shown[point.id] and point.catch is not None and point.catch.pattern is not None:
                self._happened(point, f"the screen shows {point.catch.pattern.pattern!r}")
            self._shown[point.id] = shows

    def _matches(self, point: Breakpoint) -> bool:
        pattern = point.catch.pattern if point.catch is not None else None
        return pattern is not None and pattern.search(self._machine.screen().text) is not None

    # -- what is seen where the guest stands

    def take(self, exit: Exit | None) -> list[tuple[Breakpoint, str]]:
        """What has happened, and is forgotten here; what the engine's `exit` says of changes, and counts reached, among
        it."""
        found, self.pending = self.pending, []
        if exit is not None and exit.change:
            found += self._changed(exit)
        if self._entry:
            found += self._entered()
        if self.counted:
            retired = self._machine.executor.retired
            self._begun = retired
            found += [
                (point, f"{retired} instructions retired")
                for point in self._of(CatchKind.COUNT)
                if point.catch is not None and point.catch.first == retired
            ]
        return found

    @property
    def counted(self) -> bool:
        """A count is reached, and was not told of."""
        retired = self._machine.executor.retired
        return retired != self._begun and any(
            point.catch is not None and point.catch.first == retired for point in self._of(CatchKind.COUNT)
        )

    def _changed(self, exit: Exit) -> list[tuple[Breakpoint, str]]:
        state = self._machine.executor.live()
        found = []
        before, self._mode = self._mode, mode_of(state)
        if exit.change & Change.MODE and before is not None and self._mode is not before:
            text = f"mode switch: {before.label} to {self._mode.label}"
            found += [(point, text) for point in self._of(CatchKind.MODE)]
        if exit.change & Change.TASK:
            text = f"task switch: TR {exit.task:04x} to {state.tr.selector:04x}"
            found += [(point, text) for point in self._of(CatchKind.TASK)]
        return found

    def here(self) -> list[tuple[Breakpoint, str]]:
        """The events that the next instruction is about to be."""
        state = self._machine.executor.live()
        pc = state.linear_pc
        found = []
        if self.physical:
            physical = self._place(pc)
            for point in self._of(CatchKind.PHYSICAL):
                if point.catch is not None and point.catch.access is None and point.catch.first == physical:
                    found.append((point, f"execution at physical {physical:#x}"))
        if self.classes:
            code, bits = self._code(pc), code_bits(state)
            classes = classify(code, bits)
            if classes & self.classes:
                for points in self._points.values():
                    for point in points:
                        if point.catch is not None and point.catch.rules is not None:
                            self._look_soon(NS_PER_INSTRUCTION)
                        elif point.catch is not None and point.catch.classes & classes:
                            text = self._instruction(point.catch, state, code, bits, classes)
                            if text:
                                found.append((point, text))
        return found

    def _code(self, pc: int) -> bytes:
        """The bytes of the instruction, and what follows it."""
        return self._glance(pc, LONGEST) or self._glance(pc, min(LONGEST, 0x1000 - pc % 0x1000)) or b""

    def _instruction(self, catch: Catch, state: CpuState, code: bytes, bits: int, classes: int) -> str:
        """What the instruction is about to do, "" when that is not what was meant."""
        if catch.kind is CatchKind.MSR:
            number, write = state.regs[RCX] & 0xFFFFFFFF, bool(classes & InstructionClass.WRMSR)
            access = Access.WRITE if write else Access.READ
            if not catch.covers(number) or catch.access is None or not catch.access & access:
                return ""
            value = state.regs[RAX] & 0xFFFFFFFF | (state.regs[RDX] & 0xFFFFFFFF) << 32
            return f"WRMSR of {value:#x} to MSR {number:#x}" if write else f"RDMSR of MSR {number:#x}"
        shown = next(iter(disasm.decode(code, state.linear_pc, bits, state.rip, 1, current=None)), None)
        text = shown.text if shown is not None else catch.kind.value
        if catch.kind is not CatchKind.CR:
            return f"about to execute {text}"
        from emu.x86.control import written_control

        number, old, new = written_control(code, bits, state, self._glance)
        if not catch.covers(number) or (catch.mask and new is not None and not (old ^ new) & catch.mask):
            return ""
        return f"about to execute {text}: CR{number} {old:#x} to {'?' if new is None else f'{new:#x}'}"
