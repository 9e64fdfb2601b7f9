"""What stands on the machine's buses for a device of a hypervisor's: each access is submitted to it, as an ioreq."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from xenbridge.bridge import BridgeError
from xenbridge.ioreq import DATA_OFFSET, LAYOUT, STATE_OFFSET, State, Type

_STATE_BITS: Final = 15
_READS: Final = State.READY | 0x20
_MASKS: Final = {size: (1 << 8 * size) - 1 for size in (1, 2, 4, 8)}


class Submitted:
    """A BusDevice. `exchange` is handed a request's 32 bytes and gives those of its answer; `look` gives what a read of
    so many bytes at an address would, with no side effect. `first`: the address of the first register."""

    def __init__(
        self, type: Type, first: int, exchange: Callable[[bytes], bytes], look: Callable[[int, int], int]
    ) -> None:
        self._type, self._first, self._exchange, self._look = type, first, exchange, look

    def read(self, offset: int, size: int) -> int:
        """Raises BridgeError when the hypervisor does not answer."""
        answer = self._exchange(LAYOUT.pack(self._first + offset, 0, 1, size, 0, 0, _READS, self._type))
        return self._checked(answer) & _MASKS[size]

    def write(self, offset: int, value: int, size: int) -> None:
        """Raises BridgeError when the hypervisor does not answer."""
        self._checked(self._exchange(LAYOUT.pack(self._first + offset, value, 1, size, 0, 0, State.READY, self._type)))

    def peek(self, offset: int, size: int) -> int:
        """What a read would give."""
        return self._look(self._first + offset, size)

    @staticmethod
    def _checked(answer: bytes) -> int:
        """The data of an answer."""
        if answer[STATE_OFFSET] & _STATE_BITS != State.ANSWERED:
            raise BridgeError(f"a request was handed back in state {answer[STATE_OFFSET] & _STATE_BITS}, unanswered")
        return int.from_bytes(answer[DATA_OFFSET : DATA_OFFSET + 8], "little")
