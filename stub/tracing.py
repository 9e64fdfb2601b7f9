"""A trace experiment: its tracepoints and variables, and the frames collected. It is the target's, not a connection's.

"Debugging with GDB", sections "Tracepoints" and "Tracepoint Packets". A frame is what one hit has collected; numbers
count from 0, the oldest that is still there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from emu.record import dataclass, field
from stub.target import TargetError
from stub.trace_messages import TraceAction

#: Tracepoints that one instruction may have, as the guest and who waits are held up by all of them.
AT_ONE_PLACE = 10
#: What a client may define, so that it costs bounded memory.
POINTS, ACTIONS, VARIABLES, SOURCE, STEPS = 1000, 100, 1000, 1 << 16, 1_000_000
#: Bytes of frames: gdbserver's default, and the most that can be asked for. Frames, as each costs more than its bytes.
DEFAULT_SIZE, MAX_SIZE, MAX_FRAMES = 5 << 20, 16 << 20, 200_000
#: The number of `$trace_timestamp`, a variable that gdb knows by its name: microseconds, here of virtual time.
TIMESTAMP, TIMESTAMP_NAME = 1, "trace_timestamp"
_MASK = (1 << 64) - 1
#: A block of a trace file has a length of 16 bits ("Trace File Format").
BLOCK = 0xFFFF


@dataclass(slots=True)
class Variable:
    """A trace state variable; values have 64 bits."""

    number: int
    name: str
    initial: int
    value: int
    builtin: bool = False


@dataclass(slots=True, eq=False)
class Tracepoint:
    """One place of one tracepoint. `texts` are the actions as the client wrote them, `sources` what the person typed,
    by kind; `complete`: all actions have come. `steps` are those of while-stepping, which have actions of their own;
    `stepping`: the first of these has come. `hits` count from the start, `usage` is in bytes of frames; `installed` is
    what the target calls it, and `removals` counts how often it was no longer that."""

    number: int
    address: int
    enabled: bool
    passes: int
    condition: bytes
    steps: int = 0
    actions: list[TraceAction] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    step_actions: list[TraceAction] = field(default_factory=list)
    step_texts: list[str] = field(default_factory=list)
    stepping: bool = False
    sources: dict[str, bytearray] = field(default_factory=dict)
    complete: bool = True
    hits: int = 0
    usage: int = 0
    installed: int | None = None
    removals: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What one hit of tracepoint `tracepoint`, or a step behind it, has collected at `address`. `registers` is the
    target's snapshot of all, None if none were; `memory` has pieces, `variables` (number, value); `size` is in bytes of
    a trace file."""

    tracepoint: int
    address: int
    registers: object | None
    memory: tuple[tuple[int, bytes], ...]
    variables: tuple[tuple[int, int], ...]
    size: int

    def read(self, address: int, length: int) -> bytes:
        """Bytes from `address` on, as far as they were collected, at most `length`; b"" where the first was not."""
        out = bytearray()
        while len(out) < length:
            at = address + len(out)
            piece = next((data[at - start :] for start, data in self.memory if start <= at < start + len(data)), b"")
            if not piece:
                break
            out += piece[: length - len(out)]
        return bytes(out)

    def encoded(self, registers: bytes) -> bytes:
        """As a trace file has it ("Trace File Format"), with the bytes of `registers` if there are any."""
        blocks = b"R" + registers if self.registers is not None else b""
        for start, data in self.memory:
            for at in range(0, len(data), BLOCK):
                piece = data[at : at + BLOCK]
                blocks += b"M" + (start + at & _MASK).to_bytes(8, "little") + len(piece).to_bytes(2, "little") + piece
        for number, value in self.variables:
            blocks += b"V" + number.to_bytes(4, "little") + (value & _MASK).to_bytes(8, "little")
        return self.tracepoint.to_bytes(2, "little") + len(blocks).to_bytes(4, "little") + blocks


def frame_size(registers: int, memory: list[tuple[int, bytes]], variables: int) -> int:
    """The bytes that `Frame.encoded` gives; `registers` are those of the registers, 0 for none."""
    pieces = sum(len(data) + 11 * -(-len(data) // BLOCK) for _, data in memory)
    return 6 + (1 + registers if registers else 0) + pieces + 13 * variables


class FrameBuffer:
    """The frames, at most `capacity` bytes of them. `circular`: the oldest make room for new ones."""

    def __init__(self) -> None:
        self.capacity, self.circular = DEFAULT_SIZE, False
        self.frames: deque[Frame] = deque()
        self.used = self.emptied = 0
        self.created = 0  #: since the start, those that had to make room among them

    def clear(self) -> None:
        self.emptied += 1
        self.frames.clear()
        self.used = self.created = 0

    def resize(self, capacity: int) -> None:
        """Raises TargetError for what is too much, or less than there is."""
        if not 1 <= capacity <= MAX_SIZE:
            raise TargetError(f"a trace buffer of {capacity} bytes: 1 to {MAX_SIZE} are possible")
        if capacity < self.used:
            raise TargetError(f"the trace buffer holds {self.used} bytes already: `tstart` empties it")
        self.capacity = capacity

    def add(self, frame: Frame) -> bool:
        """False where it has no room."""
        if frame.size > self.capacity or (self._over(frame) and not self.circular):
            return False
        while self._over(frame):
            self.used -= self.frames.popleft().size
        self.frames.append(frame)
        self.used += frame.size
        self.created += 1
        return True

    def _over(self, frame: Frame) -> bool:
        return self.used + frame.size > self.capacity or len(self.frames) >= MAX_FRAMES

    def number(self, frame: Frame | None) -> int:
        """The number of a frame, -1 for None and for one that is no longer there."""
        return next((n for n, each in enumerate(self.frames) if each is frame), -1)

    def after(self, frame: Frame | None) -> Iterator[tuple[int, Frame]]:
        """The frames behind this one, all behind None, with their numbers."""
        start = self.number(frame) + 1
        return zip(range(start, len(self.frames)), islice(self.frames, start, None), strict=False)


class Experiment:
    """See the module's head. `clock` gives virtual microseconds since reset."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.buffer = FrameBuffer()
        self.points: dict[tuple[int, int], Tracepoint] = {}
        self.variables: dict[int, Variable] = {}
        self.read_only: tuple[tuple[int, int], ...] = ()
        self.running = False
        self.stays = False  #: it goes on without its client
        self.reason, self.text, self.culprit = "tnotrun", "", 0  #: why it does not run, and which tracepoint's doing
        self.started = self.stopped = 0
        self.user = self.notes = b""
        self.on_stop: Callable[[], None] = lambda: None  #: called at each end, also in the middle of a hit
        self.clear()

    def clear(self) -> None:
        """`QTinit`: nothing is defined, nothing was collected."""
        self.points.clear()
        self.variables = {TIMESTAMP: Variable(TIMESTAMP, TIMESTAMP_NAME, 0, 0, True)}
        self.read_only = ()
        self.buffer.clear()
        self.reason, self.text, self.culprit = "tnotrun", "", 0

    def point(self, number: int, address: int) -> Tracepoint:
        """Raises TargetError for one that is not defined."""
        found = self.points.get((number, address))
        if found is None:
            raise TargetError(f"there is no tracepoint {number} at {address:#x}")
        return found

    def start(self) -> None:
        """From nothing: no hits, no frames, variables at their initial values."""
        self.buffer.clear()
        for point in self.points.values():
            point.hits = point.usage = 0
        for variable in self.variables.values():
            variable.value = variable.initial
        self.running, self.reason, self.text, self.culprit = True, "", "", 0
        self.started, self.stopped = self._clock(), 0

    def stop(self, reason: str, text: str = "", culprit: int = 0) -> None:
        """`reason` is a word of qTStatus's answer. Nothing happens if it does not run."""
        if self.running:
            self.running, self.reason, self.text, self.culprit = False, reason, text, culprit
            self.stopped = self._clock()
            self.on_stop()

    def value(self, number: int) -> int:
        """Of a variable, as 64 bits without a sign. Raises TargetError for one that is not defined."""
        variable = self._variable(number)
        if variable.builtin and variable.name == TIMESTAMP_NAME:
            return self._clock() & _MASK
        return variable.value

    def set_value(self, number: int, value: int) -> None:
        """Raises TargetError for a variable that is not defined."""
        self._variable(number).value = value & _MASK

    def _variable(self, number: int) -> Variable:
        variable = self.variables.get(number)
        if variable is None:
            raise TargetError(f"there is no trace state variable {number}")
        return variable
