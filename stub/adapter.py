"""A Debugger, and the Worker that owns its machine, as a target. The linear program counter rule lives here.

gdb knows no CS: it compares `eip` with the addresses of its breakpoints and decodes at it. So `eip` is the linear
address CS base + offset, and the offset is the register `ip`; `pc_is_offset` turns that round for clients that add the
base themselves. All methods run on the thread that owns the machine, except where they say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from emu.debugger import BreakKind, Debugger, DebuggerError, StopKind
from emu.quiet import Quiet
from emu.stops import Condition, ConditionFailed
from emu.subject import MemoryUnavailable, is_unknown
from emu.worker import Worker
from emu.x86.modes import code_bits
from emu.x86.state import CR0_PG, SEGMENTS, CpuState
from stub.adapter_stops import TellingTarget
from stub.adapter_sweep import swept
from stub.adapter_trace import OWNER, TracingTarget
from stub.features import target_xml
from stub.flat import FlatTeller
from stub.registers import BriefTeller, X86Register
from stub.restored import Restored
from stub.target import (
    Description,
    PointHooks,
    Register,
    SpecialRange,
    StopReason,
    StopReport,
    Swept,
    TargetError,
)
from stub.tracing import Experiment

T = TypeVar("T")
#: Registers that are looked at in place, as a copy of the CPU's state costs more.
FEW = 16
_WATCH_KINDS = {
    StopReason.WATCH: BreakKind.WRITE,
    StopReason.RWATCH: BreakKind.READ,
    StopReason.AWATCH: BreakKind.ACCESS,
}
#: Stops after which there is nothing to run on.
_ENDS = frozenset((StopKind.EXIT, StopKind.POWEROFF, StopKind.SHUTDOWN, StopKind.DEADLOCK, StopKind.FAILURE))


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (DebuggerError, MemoryUnavailable) as error:
        raise TargetError(str(error)) from None


def _evaluated(fn: Callable[[], T]) -> Callable[[], T]:
    """`fn`, which raises TargetError, for the debugger."""

    def evaluated() -> T:
        try:
            return fn()
        except TargetError as error:
            raise ConditionFailed(str(error)) from None

    return evaluated


#: Registers whose load goes through a descriptor table.
SELECTORS = frozenset((*SEGMENTS, "ldtr", "tr"))


class DebuggerTarget(TracingTarget, TellingTarget):
    """Implements every protocol of `stub.target`."""

    def __init__(self, debugger: Debugger, worker: Worker, *, on_kill: Callable[[], None] = lambda: None) -> None:
        """`on_kill` is called, on the machine's thread, when a client has killed the guest."""
        self._debugger = debugger
        self._worker = worker
        self._on_kill = on_kill
        self._listener: Callable[[StopReport], None] | None = None
        self._told: Callable[[str], None] | None = None
        self._descriptions: dict[int, Description] = {}
        self._software: dict[int, int] = {}  #: linear address to breakpoint id
        self._hardware: dict[int, int] = {}
        self._watches: dict[tuple[StopReason, int, int], int] = {}
        #: of the description that was asked for last
        self._teller: BriefTeller | None = None
        self._often = False  #: it has told more than once
        self._flat_teller: FlatTeller | None = None
        self.pc_is_offset = False
        self._restored = Restored()
        self._threads = tuple(n + 1 for n in debugger.vcpu_numbers())
        self.experiment = Experiment(self.microseconds)

    def prepare(self) -> None:
        """Make what the first client reads when it comes, on any thread: the description of the mode at reset."""
        target_xml(self.describe_bits(16))

    # -- Target

    @property
    def running(self) -> bool:
        return self._debugger.running

    def select(self, thread: int) -> None:
        if thread - 1 != self._debugger.shown_vcpu:
            self._debugger.show_vcpu(thread - 1)

    def halt(self) -> None:
        if self._debugger.running:
            self._debugger.stop()

    def threads(self) -> tuple[int, ...]:
        return self._threads

    def thread_name(self, thread: int) -> str:
        return f"CPU {thread - 1}"

    def thread_text(self, thread: int) -> str:
        if len(self._threads) > 1 and thread != (before := self.selected()):
            self.select(thread)
            try:
                return self.thread_text(thread)
            finally:
                self.select(before)
        state = self._debugger.cpu_in_place()
        return f"{self._debugger.mode_label()} mode{', halted' if state.halted else ''}"

    # -- registers

    def describe(self) -> Description:
        return self.describe_bits(code_bits(self._debugger.cpu()))

    def read_registers(self, thread: int, registers: Sequence[Register]) -> Sequence[bytes | None]:
        debugger = self._debugger
        state = debugger.cpu_in_place() if len(registers) <= FEW else debugger.cpu()
        unknown = debugger.unknown()
        if unknown or debugger.retired is None:
            return [None if self._is_unknown(r, unknown) else self._value(state, r) for r in registers]
        return [self._value(state, register) for register in registers]

    def expedite(self, thread: int, description: Description) -> str | None:
        debugger, teller = self._debugger, self._teller
        retired = debugger.retired
        if self.pc_is_offset or debugger.steering.possible or debugger.unknown() or retired is None:
            return None
        if teller is None or teller.description is not description:
            teller = self._teller = BriefTeller(description)
        elif not self._often:
            self._often = True
            debugger.flat_cpu()  # has the engine tell it in less time from now on
        return teller.tell(debugger.cpu_in_place(), retired)

    def tell_all(self, thread: int, description: Description) -> bytes | None:
        debugger, teller = self._debugger, self._flat_teller
        if self.pc_is_offset or debugger.steering.possible or debugger.unknown():
            return None
        flat, retired = debugger.flat_cpu(), debugger.retired
        if flat is None or retired is None:
            return None
        if teller is None or teller.description is not description:
            teller = self._flat_teller = FlatTeller(description)
        return teller.tell(flat, retired)

    def _is_unknown(self, register: Register, unknown: frozenset[str]) -> bool:
        assert isinstance(register, X86Register)
        if register.is_count:
            return self._debugger.retired is None
        if register.is_pc:
            return False  # gdb cannot connect without: where CS's base is unknown it is the offset, as `ip`
        return any(is_unknown(part.name, unknown) for part in register.parts)

    def write_register(self, thread: int, register: Register, data: bytes, row: bool = False) -> None:
        """Of what is there already: does nothing. gdb writes back all registers behind a call of a function of the
        guest's, and a segment register would be loaded anew by that; see `stub.restored` for the rest of them."""
        self._may_write()
        assert isinstance(register, X86Register)
        value, debugger = int.from_bytes(data, "little"), self._debugger
        (now,) = self.read_registers(thread, (register,))
        if data == now:
            return
        before, written = self._all_registers(thread), data.hex().encode("ascii")
        if row and self._restored.is_saved(register.name, written, debugger.retired, before):
            return
        self._write(thread, register, value, row and self._restored.was_at_a_call(register.name, written))
        self._restored.wrote(register.name, debugger.retired, before, self._all_registers(thread))

    def _all_registers(self, thread: int) -> dict[str, bytes]:
        """Their values in hex, as `g` tells them."""
        description = self.describe()
        registers = description.registers
        told = self.tell_all(thread, description)
        if told is None:
            pairs = zip(self.read_registers(thread, registers), registers, strict=True)
            told = "".join("xx" * r.size if value is None else value.hex() for value, r in pairs).encode("ascii")
        values, start = {}, 0
        for register in registers:
            end = start + 2 * register.size
            values[register.name], start = told[start:end], end
        return values

    def _write(self, thread: int, register: X86Register, value: int, saved: bool) -> None:
        """`saved`: it has had the value, and a selector is given back even if it cannot be loaded now."""
        if register.is_engine:
            raise TargetError("engine says who executes: `monitor native` and `monitor emulate` change that")
        if register.is_count:
            raise TargetError("icount says how many instructions have retired: it cannot be written")
        if register.is_pc:
            self.write_pc(thread, value)
            return
        if register.name == "ip":
            self._write_offset(value)
            return
        for part in register.parts:
            new = value >> part.low & (1 << part.bits) - 1
            if len(register.parts) > 1 and new == part.read(self._debugger.cpu()):
                continue  # gdb writes a struct whole when one member changes
            with _refusals():
                try:
                    self._debugger.write_register(part.name, new)
                except DebuggerError:
                    if not saved or part.name not in SELECTORS:
                        raise
                    self._debugger.write_selector(part.name, new)

    def write_pc(self, thread: int, address: int) -> None:
        self._may_write()
        state = self._debugger.cpu()
        if self.pc_is_offset or state.long64:
            self._write_offset(address)
        else:
            self._write_offset((address - state.cs.base) & 0xFFFFFFFF, f"linear address {address:#x}")

    def _write_offset(self, offset: int, shown: str = "") -> None:
        """In CS; `shown`: what of the client's is out of reach where the CPU could not fetch from there."""
        state = self._debugger.cpu()
        if not state.long64 and offset > state.cs.limit:
            raise TargetError(self._unreachable(state, shown or f"offset {offset:#x}"))
        with _refusals():
            self._debugger.write_register("rip", offset)

    def _unreachable(self, state: CpuState, what: str) -> str:
        base, limit = state.cs.base, state.cs.limit
        return (
            f"{what} is out of reach of CS {state.cs.selector:04x} (base {base:#x}, limit {limit:#x}, "
            f"so linear {base:#x} to {(base + limit) & 0xFFFFFFFF:#x}): write cs or cs_base first"
        )

    def _may_write(self) -> None:
        if self._debugger.running:
            raise TargetError("the guest runs: interrupt it before writing registers")
        if self._debugger.read_only:
            raise TargetError("this subject is read-only")

    # -- memory

    def read_memory(self, address: int, length: int) -> bytes:
        debugger = self._debugger
        if not length:
            return b""
        try:
            return debugger.read_linear(address, length)
        except MemoryUnavailable:
            with self._refusals_at(debugger.translate):
                # One byte at least, so that the first that cannot be read is named.
                return debugger.read_linear(address, max(1, debugger.readable(address, length)))

    def write_memory(self, address: int, data: bytes) -> None:
        self._memory_may_be_written()
        try:
            self._debugger.write_linear(address, data)
        except MemoryUnavailable:
            with self._refusals_at(self._debugger.translate):
                self._debugger.write_linear(address, data)

    def read_physical(self, address: int, length: int) -> bytes:
        debugger = self._debugger
        if not length:
            return b""
        with self._refusals_at(lambda address: address):
            # One byte at least, so that the first that cannot be read is named.
            return debugger.read_physical(address, max(1, debugger.subject.readable_physical(address, length)))

    def sweep(self, address: int, length: int, physical: bool) -> Iterator[Swept]:
        with _refusals():
            yield from swept(self._debugger.runs(address, length, physical=physical), self._debugger.read_physical)

    def write_physical(self, address: int, data: bytes) -> None:
        self._memory_may_be_written()
        with self._refusals_at(lambda address: address):
            self._debugger.write_physical(address, data)

    def _memory_may_be_written(self) -> None:
        if self._debugger.read_only:
            raise TargetError("this subject is read-only")

    @contextmanager
    def _refusals_at(self, place: Callable[[int], int | None]) -> Iterator[None]:
        """As `_refusals`; where a device's registers are, that is said. `place` gives the physical address."""
        try:
            with _refusals():
                yield
        except TargetError as error:
            cause = error.__context__
            if isinstance(cause, MemoryUnavailable) and (physical := place(cause.address)) is not None:
                subject = self._debugger.subject
                for region in () if subject.readable_physical(physical, 1) else subject.memory_map():
                    if region.kind == "mmio" and region.first <= physical <= region.last:
                        raise TargetError(
                            f"{cause.address:#x}: registers of {region.name}, which no look and no change of memory "
                            "touches: `monitor map` shows where devices are, `monitor dev` what they hold"
                        ) from None
            raise

    def special_ranges(self) -> Sequence[SpecialRange] | None:
        if self._debugger.cpu().cr0 & CR0_PG:
            return None
        subject = self._debugger.subject
        found: list[SpecialRange] = []
        for region in subject.memory_map():
            readable = region.kind == "rom"
            if not readable and (region.kind != "mmio" or subject.readable_physical(region.first, 1)):
                continue  # RAM, and the display's memory, which can be looked at
            start, end = max(region.first, found[-1].end if found else 0), region.last + 1
            if end <= start:
                continue  # within those before
            if found and found[-1].end == start and found[-1].readable == readable:
                start = found.pop().start
            found.append(SpecialRange(start, end, readable))
        return found

    @property
    def steps_into_interrupts(self) -> bool:
        return self._debugger.step_into_interrupts

    @steps_into_interrupts.setter
    def steps_into_interrupts(self, into: bool) -> None:
        self._debugger.step_into_interrupts = into

    # -- control

    def resume(self) -> None:
        self._begin(self._debugger.begin_continue)

    def step(self, thread: int) -> None:
        try:
            self._worker.step()
        except DebuggerError as error:
            raise TargetError(str(error)) from None

    def quiet_looks(self) -> Quiet | None:
        return self._debugger.quiet_looks()

    def begin_quiet(self, *, runs: bool) -> Quiet | None:
        return self._worker.begin_quiet(runs=runs, watches=self._watches.values())

    def quiet_watches(self) -> tuple[tuple[StopReason, int, int], ...]:
        return tuple(self._watches)

    def end_quiet(self, begun: bool) -> None:
        self._debugger.end_quiet(begun)

    def brief_places(self, description: Description) -> Sequence[tuple[int, int]] | None:
        debugger, teller = self._debugger, self._teller
        if self.pc_is_offset or debugger.steering.possible or debugger.unknown():
            return None
        return teller.places if teller is not None and teller.description is description else None

    def step_range(self, thread: int, start: int, end: int) -> None:
        self._begin(lambda: self._debugger.begin_range(start, end))

    def _begin(self, begin: Callable[[], None]) -> None:
        try:
            self._worker.resume(begin)
        except DebuggerError as error:
            raise TargetError(str(error)) from None

    def interrupt(self) -> None:
        self._worker.interrupt()

    def restart(self) -> None:
        with _refusals():
            self._debugger.reset()

    def kill(self) -> None:
        self._on_kill()

    def detach(self) -> None:
        if not self._debugger.running and not self._debugger.read_only and self._debugger.last_stop.kind not in _ENDS:
            self.resume()

    # -- breakpoints: owned by the debugger, under gdb's name

    def insert_software_breakpoint(self, address: int) -> None:
        self._insert(self._software, address)

    def remove_software_breakpoint(self, address: int) -> None:
        self._drop(self._software.pop(address))

    def insert_hardware_breakpoint(self, address: int) -> None:
        self._insert(self._hardware, address)

    def remove_hardware_breakpoint(self, address: int) -> None:
        self._drop(self._hardware.pop(address))

    def _insert(self, points: dict[int, int], address: int) -> None:
        if (left := points.pop(address, None)) is not None:
            self._drop(left)  # a client that has gone left it, to stay until then
        points[address] = self._add(BreakKind.EXECUTE, address, 1)

    def set_hooks(self, reason: StopReason, address: int, hooks: PointHooks | None) -> None:
        points = self._software if reason is StopReason.SWBREAK else self._hardware
        condition = action = None
        if hooks is not None:
            if hooks.holds is not None:
                condition = Condition("evaluated for gdb", _evaluated(hooks.holds))
            if hooks.act is not None:
                action = _evaluated(hooks.act)
        with _refusals():
            self._debugger.set_condition(points[address], condition, action)

    def register_reader(self, register: Register) -> Callable[[], int]:
        assert isinstance(register, X86Register)
        state, read = self._debugger.live_cpu(), register.read
        if register.is_engine:
            return lambda: int(self._debugger.steering.native)
        if register.is_count:
            return lambda: self._debugger.retired or 0
        if register.is_pc:
            return lambda: state.rip if self.pc_is_offset else state.linear_pc
        return lambda: read(state)

    def glance(self, address: int, length: int) -> bytes:
        try:
            return self._debugger.glance(address, length)
        except MemoryUnavailable:
            with self._refusals_at(self._debugger.place):
                return self._debugger.glance(address, length)

    def insert_watchpoint(self, reason: StopReason, address: int, length: int) -> None:
        kind = _WATCH_KINDS[reason]
        back = self._debugger.put_back(kind, address, length, OWNER)
        self._watches[reason, address, length] = self._add(kind, address, length) if back is None else back.id
        self._watches = dict(sorted(self._watches.items(), key=lambda watch: watch[1]))

    def remove_watchpoint(self, reason: StopReason, address: int, length: int) -> None:
        self._drop(self._watches.pop((reason, address, length)))

    def _add(self, kind: BreakKind, address: int, length: int) -> int:
        try:
            return self._debugger.add_breakpoint(kind, address, length, owner=OWNER).id
        except DebuggerError as error:
            raise TargetError(str(error)) from None

    def _drop(self, id: int) -> None:
        with suppress(DebuggerError):  # the prompt may have deleted it meanwhile
            self._debugger.remove_breakpoint(id)
