"""What commands act on: the debugger and its thread, symbols, snapshots, and what this front end may do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from emu.debugger import Debugger
from emu.inspector import DebuggerError
from emu.machine import MachineState
from emu.record import dataclass, field
from emu.stops import Condition, ConditionFailed, Stop
from emu.subject import MemoryUnavailable
from emu.worker import Worker
from emu.x86.modes import code_bits
from emu.x86.registers import REGISTERS
from repl.command import CommandError, Result, Table
from repl.expr import SEGMENT_REGISTERS, Expression, ExpressionError, evaluate
from repl.options import READ, input_named
from repl.shown import PositionView
from repl.symbols import SymbolError, Symbols

T = TypeVar("T")

#: Whose breakpoints are whose, as `breaks` names it: the prompt's, and those of gdb's `monitor`.
PROMPT, MONITOR = "prompt", "monitor"
#: What a command may fail with: each is one sentence for the user.
FAILURES = (CommandError, ExpressionError, DebuggerError, MemoryUnavailable, SymbolError, OSError)


@dataclass
class Snapshots:
    """Machine states saved under names, in memory, for the length of the session."""

    states: dict[str, MachineState] = field(default_factory=dict)


class Session:
    """One front end's view of one debugging session.

    `waits`: a command that makes the guest run returns when it has stopped (scripts); otherwise at once (the prompt,
    which announces stops when they come). Where `may_resume` is false, `resumed_by` says who runs the guest. Where
    `may_change` is false, only commands that look are for here. Breakpoints set here are `owner`'s.
    `inputs` are files that the machine was made of, which no command writes to.
    """

    def __init__(
        self,
        debugger: Debugger,
        worker: Worker,
        table: Table,
        *,
        waits: bool = True,
        may_resume: bool = True,
        may_change: bool = True,
        resumed_by: str = "",
        owner: str = PROMPT,
        symbols: Symbols | None = None,
        snapshots: Snapshots | None = None,
        inputs: Sequence[str] = (),
    ) -> None:
        self.debugger, self.worker, self.table = debugger, worker, table
        self.waits, self.may_resume, self.resumed_by = waits, may_resume, resumed_by
        self.may_change = may_change
        self.owner = owner
        self.inputs = inputs
        self.symbols = symbols or Symbols()
        self.snapshots = snapshots or Snapshots()
        self.scope = DebuggerScope(debugger, self.symbols)
        self.examined = ("x", 0)  #: format and unit `x` used last; unit 0: not yet

    def shared(self, *, may_resume: bool, resumed_by: str, may_change: bool = True, owner: str = PROMPT) -> Session:
        """A session for another front end of the same machine, with the same symbols and snapshots."""
        return Session(
            self.debugger, self.worker, self.table, may_resume=may_resume, may_change=may_change, resumed_by=resumed_by,
            owner=owner, symbols=self.symbols, snapshots=self.snapshots, inputs=self.inputs,
        )  # fmt: skip

    def check_written(self, path: Path) -> None:
        """Raises CommandError for a file that the machine was made of."""
        if input_named(path, self.inputs):
            raise CommandError(f"{str(path)!r} {READ}")

    def call(self, work: Callable[[], T]) -> T:
        """Run `work` on the machine's thread, between two instructions."""
        return self.worker.call(work)

    def execute(self, line: str) -> Result:
        """Run one command line. Raises one of FAILURES."""
        return self.table.execute(self, line)

    def resume(self, begin: Callable[[], None]) -> Result:
        """Make the guest run. With `waits`, the result shows why it stopped; Ctrl-C stops it."""
        if self.worker.running:
            raise CommandError("the guest runs already; `stop` or Ctrl-C stops it")
        self.worker.resume(begin)
        if not self.waits:
            return Result()
        try:
            stop = self.worker.wait()
        except KeyboardInterrupt:
            self.worker.interrupt()
            stop = self.worker.wait()
        assert stop is not None  # without a timeout
        return self.stop_result(stop)

    def stop_result(self, stop: Stop) -> Result:
        """What is shown at a stop: why, and where."""
        return Result((stop, self.call(self.position)))

    # -- on the machine's thread

    def position(self) -> PositionView:
        """Where the CPU is and what comes next."""
        cpu = self.debugger.cpu()
        try:
            following = self.debugger.disassemble(count=1)
        except (MemoryUnavailable, DebuggerError):
            following = ()
        debugger, linear = self.debugger, self.debugger.linear_pc()
        return PositionView(
            debugger.mode_label(), cpu.cs.selector, cpu.rip, linear, debugger.retired, debugger.virtual_ns,
            debugger.running, "" if linear is None else self.symbols.describe(linear),
            following[0] if following else None,
        )  # fmt: skip

    def evaluate(self, text: str) -> int:
        """The value of an expression. Raises ExpressionError."""
        return evaluate(text, self.scope)

    def condition(self, text: str) -> Condition:
        """An expression as what a breakpoint depends on: holds where it is not 0. Raises ExpressionError."""
        expression, scope = Expression(text), LiveScope(self.debugger, self.symbols)
        expression.check(scope)

        def holds() -> bool:
            try:
                return expression.value(scope) != 0
            except ExpressionError as error:
                raise ConditionFailed(f"`{text}` cannot be evaluated: {error}") from None

        return Condition(text, holds)

    def write_register(self, name: str, value: int) -> None:
        """Set a register or a named part of one; a part's neighbours keep their bits. Negative values are stored in
        two's complement. Raises CommandError, or DebuggerError where the CPU does not allow the value."""
        register = REGISTERS.get(name)
        if register is not None:
            if not -(1 << register.bits - 1) <= value < 1 << register.bits:
                raise CommandError(f"{name} has {register.bits} bits: {value:#x} does not fit")
            value &= (1 << register.bits) - 1
        self.debugger.write_register(name, value)

    def address(self, text: str) -> int:
        """A linear address: an expression within what the current mode can address. Raises ExpressionError."""
        value = self.evaluate(text)
        top = (1 << 64) - 1 if self.debugger.cpu().long64 else (1 << 32) - 1
        if not 0 <= value <= top:
            raise ExpressionError(f"address {text.strip()} = {value:#x} is out of range: {top:#x} is the last one")
        return value


class DebuggerScope:
    """Names and brackets by the debugger's machine. Implements `repl.expr.Scope`."""

    def __init__(self, debugger: Debugger, symbols: Symbols) -> None:
        self._debugger, self._symbols = debugger, symbols

    def register(self, name: str) -> int | None:
        """None where there is none of that name. Raises DebuggerError for one that is unknown."""
        return self._debugger.read_register(name) if name in REGISTERS else None

    def symbol(self, name: str) -> int | None:
        return self._symbols.lookup(name)

    def cached_base(self, register: str) -> int:
        self._debugger.need(f"{register}.base")
        return self._debugger.cpu().segment(register).base

    def segment_base(self, selector: int) -> int:
        """In real and V86 mode selector * 16. Else the cached base if a segment register holds the selector (that is
        what the CPU uses), then the descriptor table's."""
        if not 0 <= selector <= 0xFFFF:
            raise ExpressionError(f"segment {selector:#x} is out of range: 0xffff is the last one")
        if self._debugger.mode().real_addressing:
            return selector << 4
        cpu = self._debugger.cpu()
        for name in SEGMENT_REGISTERS:
            if (segment := cpu.segment(name)).selector == selector and selector & ~3:
                return segment.base
        entries = self._debugger.ldt() if selector & 4 else self._debugger.gdt()
        for entry in entries:
            if entry.selector & ~7 == selector & ~7 and entry.base is not None and entry.access and selector & ~3:
                return entry.base
        which = "LDT" if selector & 4 else "GDT"
        raise ExpressionError(f"selector {selector:#06x} names no segment in the {which}")

    def load(self, address: int, size: int) -> int:
        try:
            return int.from_bytes(self._debugger.read_linear(address, size), "little")
        except MemoryUnavailable as error:
            raise ExpressionError(f"cannot read {size} bytes at {address:#x}: {error.why}") from None

    def word_size(self) -> int:
        self._debugger.need("cs.width")
        return code_bits(self._debugger.cpu()) // 8


class LiveScope(DebuggerScope):
    """The same for conditions, which are evaluated at each hit: what they name is looked at in place."""

    def register(self, name: str) -> int | None:
        register = REGISTERS.get(name)
        return None if register is None else register.get(self._debugger.live_cpu())

    def cached_base(self, register: str) -> int:
        return self._debugger.live_cpu().segment(register).base

    def load(self, address: int, size: int) -> int:
        try:
            return int.from_bytes(self._debugger.glance(address, size), "little")
        except MemoryUnavailable as error:
            raise ExpressionError(f"cannot read {size} bytes at {address:#x}: {error.why}") from None

    def word_size(self) -> int:
        return code_bits(self._debugger.live_cpu()) // 8
