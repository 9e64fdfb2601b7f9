"""What a CPU met from outside while it ran, in order: enough to have another CPU run the same way, without devices.

An access is what an instruction asked of a port, of a device's memory or of a claimed MSR, with the answer, and with
what the device did meanwhile (DMA, the A20 gate). Everything else happens between two instructions. Instants are
counts of retired instructions: those before the instruction that makes the access, or before which something happens.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.engine import Executor
from emu.memory import Region
from emu.record import dataclass, field
from emu.typed import Protocol
from emu.x86.state import CpuState


class Played(Protocol):
    """What a tape is played to."""

    @property
    def executor(self) -> Executor: ...
    def interrupt(self, vector: int) -> None:
        """Deliver the external interrupt `vector` before the next instruction."""

    def write(self, physical: int, data: bytes) -> None:
        """The host writes guest memory."""

    def write_part(self, name: str, at: int, data: bytes) -> None:
        """The host writes the part `name` of memory from its byte `at` on, wherever it is mapped."""

    def remap(self, regions: tuple[Region, ...]) -> None:
        """The map of RAM and ROM is now that of `regions`, which are another memory's."""

    def skip(self, skipped: int) -> None:
        """Idle time has passed: `skipped` is that of emu.clock.Clock, in ns."""

    def apic_base(self, value: int | None) -> None:
        """IA32_APIC_BASE is `value` from now on."""


#: Something that happens to a CPU from outside.
Effect = Callable[[Played], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What an instruction asks for: `kind` is in, out, read, write (of memory), rdmsr or wrmsr, `place` the port, the
    physical address or the number of the MSR, `size` in bytes, `value` what is written."""

    kind: str
    place: int
    size: int
    value: int | None = None

    def __str__(self) -> str:
        written = "" if self.value is None else f" of {self.value:#x}"
        where = {"in": "port ", "out": "port ", "rdmsr": "MSR ", "wrmsr": "MSR "}.get(self.kind, "physical ")
        return f"{self.kind}{written} at {where}{self.place:#x} ({self.size} bytes)"


@dataclass(slots=True)
class Access:
    """A request with its instant; `answer` is what was read, for MSRs None where the access is #GP(0)."""

    retired: int
    request: Request
    answer: int | None = None
    effects: list[Effect] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Happening:
    """An effect between two instructions."""

    retired: int
    effect: Effect


class Tape:
    """Accesses and happenings since it was cleared, each in its order."""

    def __init__(self) -> None:
        self.accesses: list[Access] = []
        self.happenings: list[Happening] = []
        self._open: Access | None = None
        self.recording = True

    def clear(self) -> None:
        """Nothing has been met yet."""
        self.accesses, self.happenings, self._open = [], [], None

    def begin(self, retired: int, request: Request) -> None:
        """An instruction makes an access; until `end` all that happens is its doing."""
        if self.recording:
            self._open = Access(retired, request)
            self.accesses.append(self._open)

    def end(self, answer: int | None = None) -> None:
        """The access has been answered."""
        if self._open is not None:
            self._open.answer = answer
            self._open = None

    def note(self, retired: int, effect: Effect) -> None:
        """Something happens now, `retired` instructions since reset."""
        if not self.recording:
            return
        if self._open is not None:
            self._open.effects.append(effect)
        else:
            self.happenings.append(Happening(retired, effect))


def loaded(state: CpuState) -> Effect:
    """The CPU has been given `state`."""
    held = state.copy()
    return lambda played: played.executor.load(held.copy())
