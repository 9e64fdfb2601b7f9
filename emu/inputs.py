"""A person's input: given to the devices, recorded with its instant, fed again from a record."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from emu.board import Board
from emu.clock import Clock
from emu.configuration import MachineError
from emu.devices.keyboard import UnknownKey
from emu.devices.mouse import UnknownAction
from emu.record import dataclass


@dataclass(frozen=True, slots=True)
class InputRecord:
    """A person's input, stamped with the virtual time (ns) at which the guest could first see it."""

    virtual_ns: int
    kind: str  #: "keys" (names), "text", "mouse" (an action) or "serial"
    data: str


class Inputs:
    """`records` is what has been fed so far."""

    def __init__(self, board: Board, clock: Clock) -> None:
        self._board, self._clock = board, clock
        self.records: list[InputRecord] = []
        self._waiting: deque[InputRecord] = deque()
        self._timer = clock.timer("host.replay", self._due, host=True)

    def feed(self, kind: str, data: str) -> None:
        """A person's input now: `keys` (names joined by '+', strokes by blanks), `text` typed on the keyboard,
        `mouse` (see Mouse.do), or `serial`. Recorded. Raises MachineError for a key that does not exist."""
        record = InputRecord(self._clock.now, kind, data)
        self._apply(record)
        self.records.append(record)

    def replay(self, records: Sequence[InputRecord]) -> None:
        """Feed recorded inputs at their instants."""
        self._waiting = deque(sorted(records, key=lambda r: r.virtual_ns))
        if self._waiting:
            self._timer.arm(self._waiting[0].virtual_ns)

    def _due(self, _deadline: int) -> None:
        while self._waiting and self._waiting[0].virtual_ns <= self._clock.now:
            self._apply(self._waiting.popleft())
        if self._waiting:
            self._timer.arm(self._waiting[0].virtual_ns)

    def _apply(self, record: InputRecord) -> None:
        try:
            if record.kind == "serial":
                self._board.com1.receive(record.data.encode("latin-1", "replace"))
            elif record.kind == "text":
                self._board.keyboard.type_text(record.data)
            elif record.kind == "mouse":
                self._board.mouse.do(record.data)
            else:
                strokes = [stroke.split("+") for stroke in record.data.split()]
                for keys in strokes:
                    self._board.keyboard.check(keys)
                for keys in strokes:
                    self._board.keyboard.chord(keys)
        except UnknownKey as error:
            raise MachineError(f"no key is called {error.args[0]!r}, so nothing was typed") from None
        except UnknownAction as error:
            raise MachineError(str(error)) from None
