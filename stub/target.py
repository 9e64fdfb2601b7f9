"""What a target must offer the stub, and the optional capabilities, each a protocol of its own.

A packet is answered, and advertised, only when the target implements the protocol that its handler requires. All
methods are called on one thread, the one that owns the target.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from emu.quiet import Quiet
from emu.record import dataclass, field

#: gdb's own signal numbers (gdb's include/gdb/signals.def), not the host's.
SIGNAL_NONE, SIGNAL_INT, SIGNAL_TRAP, SIGNAL_ABRT = 0, 2, 5, 6


class TargetError(Exception):
    """The target refuses; one sentence says what and why."""


# -- the target description


@dataclass(frozen=True, slots=True)
class Bits:
    """A named bit field of a flags type, `low` to `high` inclusive."""

    name: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class FlagsType:
    """Named bits of a register of `size` bytes."""

    id: str
    size: int
    fields: tuple[Bits, ...]


@dataclass(frozen=True, slots=True)
class EnumType:
    """Named values of a register of `size` bytes."""

    id: str
    size: int
    values: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class StructType:
    """(name, type) members, packed in this order."""

    id: str
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class UnionType:
    """(name, type) views of the same bytes."""

    id: str
    fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class VectorType:
    """`count` elements of `type`."""

    id: str
    type: str
    count: int


Type = FlagsType | EnumType | StructType | UnionType | VectorType


@dataclass(frozen=True, slots=True)
class Register:
    """A register as the client sees it: `bits` wide (a multiple of 8), little-endian. `type` names a predefined type or
    one of its feature's. `expedited`: sent along with every stop reply. `saved`: gdb saves and restores it around
    calls that it makes in the guest."""

    name: str
    bits: int
    type: str = "int"
    group: str = ""
    expedited: bool = False
    saved: bool = True
    size: int = field(init=False)  #: in bytes

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", self.bits // 8)


@dataclass(frozen=True, slots=True)
class Feature:
    """A named set of registers with the types they use."""

    name: str
    registers: tuple[Register, ...]
    types: tuple[Type, ...] = ()


@dataclass(frozen=True)
class Description:
    """An architecture and its registers, numbered through all features from 0."""

    architecture: str
    features: tuple[Feature, ...]
    registers: tuple[Register, ...] = field(init=False)
    expedited: tuple[Register, ...] = field(init=False)
    expedited_keys: tuple[str, ...] = field(init=False)  #: what a stop reply calls them: number and colon
    expedited_form: str = field(init=False)  #: all of them in a stop reply, a `%s` for each value in hex
    #: how a stop reply begins the program counter (the register of type code_ptr), and its digits; None: it does not
    pc_key: tuple[bytes, int] | None = field(init=False, compare=False)
    texts: list[str] = field(init=False, compare=False)  #: the document that was made of it, or none yet

    def __post_init__(self) -> None:
        registers = tuple(r for f in self.features for r in f.registers)
        object.__setattr__(self, "registers", registers)
        object.__setattr__(self, "expedited", tuple(r for r in registers if r.expedited))
        keys = tuple(f"{number:x}:" for number, register in enumerate(registers) if register.expedited)
        object.__setattr__(self, "expedited_keys", keys)
        object.__setattr__(self, "texts", [])
        pcs = [
            (f";{n:x}:".encode(), 2 * r.size) for n, r in enumerate(registers) if r.expedited and r.type == "code_ptr"
        ]
        object.__setattr__(self, "pc_key", pcs[0] if pcs else None)
        object.__setattr__(self, "expedited_form", "".join(f"{key}%s;" for key in keys))

    def standard(self) -> Description:
        """Only what a client knows without having read the description: gdb's own features."""
        return Description(self.architecture, tuple(f for f in self.features if f.name.startswith("org.gnu.gdb.")))


# -- stops


class StopReason(enum.Enum):
    """The reasons that a stop reply can name; the value is its word there."""

    __hash__ = object.__hash__  # that of Enum is Python's, and asked at each stop

    NONE = ""
    SWBREAK = "swbreak"
    HWBREAK = "hwbreak"
    WATCH = "watch"
    RWATCH = "rwatch"
    AWATCH = "awatch"


@dataclass(frozen=True, slots=True)
class StopReport:
    """Why the target stands still. `signal` is gdb's number; `address` (linear) goes with the watchpoint reasons.
    `exit_code` is not None when the guest has ended by itself. `note` is a sentence for the person, "" for none."""

    signal: int = SIGNAL_TRAP
    reason: StopReason = StopReason.NONE
    address: int = 0
    exit_code: int | None = None
    thread: int = 1
    note: str = ""


@runtime_checkable
class Target(Protocol):
    """The least a target is: something with threads that stands still or runs."""

    @property
    def running(self) -> bool:
        """True while it executes, on whoever's behalf."""

    def set_listener(self, listener: Callable[[StopReport], None] | None) -> None:
        """`listener(report)` is called at each stop, on the target's thread; None takes it away."""

    def report(self) -> StopReport:
        """Why it stands still now."""

    def halt(self) -> None:
        """Stand still when this returns; nothing happens if it does already."""

    def threads(self) -> tuple[int, ...]:
        """Ids of its threads (one a CPU), from 1."""

    def thread_name(self, thread: int) -> str:
        """What to call the thread."""

    def thread_text(self, thread: int) -> str:
        """What the thread is doing, in a few words."""


@runtime_checkable
class Tells(Protocol):
    """Says something while it runs: `O` packets."""

    def set_teller(self, told: Callable[[str], None] | None) -> None:
        """`told(sentence)` is called on the target's thread, in the midst of a run; None takes it away."""


@runtime_checkable
class SelectsThread(Protocol):
    """Several threads: registers and memory are those of the one that is selected."""

    def selected(self) -> int:
        """The thread's id."""

    def select(self, thread: int) -> None:
        """`thread` is one of `threads`."""


@runtime_checkable
class HasRegisters(Protocol):
    """`g` `G` `p` `P`, the target description and expedited registers."""

    def describe(self) -> Description:
        """The registers as they are to be seen in the present mode."""

    def read_registers(self, thread: int, registers: Sequence[Register]) -> Sequence[bytes | None]:
        """The value of each of these of a description, little-endian; None for one that cannot be known."""

    def write_register(self, thread: int, register: Register, data: bytes, row: bool = False) -> None:
        """`data` has the register's size. `row`: directly behind the write of a register before it in the description,
        as gdb restores what it has saved. Raises TargetError where the CPU does not allow the value."""

    def write_pc(self, thread: int, address: int) -> None:
        """Continue at `address`, in the form in which the PC is shown. Raises TargetError."""


@runtime_checkable
class Expedites(Protocol):
    """Tells all registers, or the expedited ones of a stop reply, in less time than `read_registers` takes for them."""

    def expedite(self, thread: int, description: Description) -> str | None:
        """`description.expedited_form` with their values; None where `read_registers` is to be asked."""

    def tell_all(self, thread: int, description: Description) -> bytes | None:
        """The values of `description.registers` in hex, one behind another; None where `read_registers` is to be
        asked."""


@runtime_checkable
class HasMemory(Protocol):
    """`m` `M` `x` `X`. Never touches devices."""

    def read_memory(self, address: int, length: int) -> bytes:
        """At most `length` bytes, up to the first that cannot be read. Raises TargetError when the first cannot."""

    def write_memory(self, address: int, data: bytes) -> None:
        """Raises TargetError, with nothing written."""


@runtime_checkable
class HasPhysicalMemory(Protocol):
    """`monitor phys` and `Qqemu.PhyMemMode`: the same of physical addresses."""

    def read_physical(self, address: int, length: int) -> bytes:
        """As `HasMemory.read_memory`."""

    def write_physical(self, address: int, data: bytes) -> None:
        """As `HasMemory.write_memory`."""


#: (address, bytes, work). `work` is in units of some 50 us of a slow host; no bytes: looked at, and nothing found.
Swept = tuple[int, bytes, int]


@runtime_checkable
class SweepsMemory(Protocol):
    """Memory looked through without asking for each page: `qSearch:memory`, `qCRC`."""

    def sweep(self, address: int, length: int, physical: bool) -> Iterator[Swept]:
        """All of the range that can be read, in order, in pieces. Raises TargetError."""


@dataclass(frozen=True, slots=True)
class SpecialRange:
    """Linear addresses [start, end) that are ROM to the CPU now (`readable`), or registers that no look touches."""

    start: int
    end: int
    readable: bool


@runtime_checkable
class MapsMemory(Protocol):
    """`qXfer:memory-map:read`."""

    def special_ranges(self) -> Sequence[SpecialRange] | None:
        """In ascending order, none over another. None while page tables say what linear addresses are."""


@runtime_checkable
class StepsIntoInterrupts(Protocol):
    """`Qqemu.sstep`: whether a step that meets an interrupt stops at the handler's first instruction."""

    steps_into_interrupts: bool


@runtime_checkable
class Continues(Protocol):
    """`c` `C`, `vCont;c` and Ctrl-C."""

    def resume(self) -> None:
        """Run; the listener is told of the stop. Raises TargetError."""

    def interrupt(self) -> None:
        """Ask a running target to stop. The listener is told."""


@runtime_checkable
class Steps(Protocol):
    """`s` `S` and `vCont;s`."""

    def step(self, thread: int) -> None:
        """One instruction; the listener is told of the stop, also of one within this call. Raises TargetError."""


@runtime_checkable
class StepsQuietly(Protocol):
    """Steps, runs to watchpoints, looks at memory and stores to it by C, for one thread."""

    def quiet_looks(self) -> Quiet | None:
        """Looks and stores alone, until something else is asked of the target. None: not now."""

    def begin_quiet(self, *, runs: bool) -> Quiet | None:
        """Steps besides, or runs. Nothing else is asked of the target until `end_quiet`. None: not now; nothing has
        begun."""

    def end_quiet(self, begun: bool) -> None:
        """`begun`: a step or run was that did not end quietly; `Steps.step` or `Continues.resume` is called next, and
        goes on with it."""

    def quiet_watches(self) -> tuple[tuple[StopReason, int, int], ...]:
        """The watchpoints by which a run may end quietly, as they were inserted (reason, address, bytes): the first of
        these that an access meets is what the stop is reported by."""

    def brief_places(self, description: Description) -> Sequence[tuple[int, int]] | None:
        """Of each expedited register of a description where its value is in `Quiet.brief`: the first byte, and how
        many. None where `read_registers` is to be asked."""


@runtime_checkable
class StepsRange(Protocol):
    """`vCont;r`."""

    def step_range(self, thread: int, start: int, end: int) -> None:
        """Step until the PC leaves [start, end), at least once. Raises TargetError."""


@runtime_checkable
class Reverses(Protocol):
    """`bs` `bc`."""

    def reverse_step(self, thread: int) -> None:
        """One instruction back; the listener is told of the stop. Raises TargetError."""

    def reverse_resume(self) -> None:
        """Back to the last stop that there would have been; the listener is told. Raises TargetError."""


@runtime_checkable
class SoftwareBreakpoints(Protocol):
    """`Z0` `z0`."""

    def insert_software_breakpoint(self, address: int) -> None:
        """Called once for an address until it is removed. Raises TargetError."""

    def remove_software_breakpoint(self, address: int) -> None: ...


@runtime_checkable
class HardwareBreakpoints(Protocol):
    """`Z1` `z1`."""

    def insert_hardware_breakpoint(self, address: int) -> None:
        """Called once for an address until it is removed. Raises TargetError."""

    def remove_hardware_breakpoint(self, address: int) -> None: ...


@dataclass(frozen=True, slots=True)
class PointHooks:
    """What a breakpoint depends on and does. `holds` is asked at each hit whether it is to count (None: always); with
    `act`, that is done and the target runs on. Both may raise TargetError: then the target stops there, and says so.
    `key` identifies them: equal keys, equal hooks."""

    key: object
    holds: Callable[[], bool] | None
    act: Callable[[], None] | None


@runtime_checkable
class ConditionalPoints(Protocol):
    """Conditions and commands of `Z0` and `Z1`. The looks are for hooks: quick, and true at that moment only."""

    def set_hooks(self, reason: StopReason, address: int, hooks: PointHooks | None) -> None:
        """For a breakpoint that has been inserted; `reason` is SWBREAK or HWBREAK. None takes them away."""

    def register_reader(self, register: Register) -> Callable[[], int]:
        """What gives one of the description's registers, as a number, each time that it is called."""

    def glance(self, address: int, length: int) -> bytes:
        """Memory. Raises TargetError where one of the bytes cannot be read."""


@runtime_checkable
class Watchpoints(Protocol):
    """`Z2` `Z3` `Z4` and their `z`. `reason` is WATCH, RWATCH or AWATCH."""

    def insert_watchpoint(self, reason: StopReason, address: int, length: int) -> None:
        """Called once for equal arguments until they are removed. Raises TargetError."""

    def remove_watchpoint(self, reason: StopReason, address: int, length: int) -> None: ...


@runtime_checkable
class Restarts(Protocol):
    """`R`, `vRun`."""

    def restart(self) -> None:
        """Back to power-on, standing still."""


@runtime_checkable
class Kills(Protocol):
    """`k`, `vKill`."""

    def kill(self) -> None:
        """The client wants the guest ended for good."""


@runtime_checkable
class Detaches(Protocol):
    """`D`."""

    def detach(self) -> None:
        """The client leaves: let the guest run on."""


@runtime_checkable
class ShowsPc(Protocol):
    """`monitor pc`: two conventions of what the PC register shows."""

    pc_is_offset: bool  #: False: the linear address CS base + offset; True: the offset in CS
