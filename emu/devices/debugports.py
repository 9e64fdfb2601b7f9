"""Debugging ports: the console at E9h and 402h, the exit port at F4h, the POST code port at 80h.

Sources: Bochs documentation, "port_e9_hack"; QEMU isa-debugcon and isa-debug-exit; IBM PC/AT Technical Reference, "I/O
address map" (80h, the manufacturing test port).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from emu.devices.shared_ports import SharedPorts
from emu.record import dataclass
from emu.views import DeviceView, FieldView

#: What the console reads as, so that software finds it.
CONSOLE_PRESENT = 0xE9


@dataclass(slots=True)
class ConsoleState:
    """`written` counts bytes."""

    written: int = 0


class DebugConsole:
    """What is written goes to `sink`; a read gives E9h. One device serves both ports."""

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self.state = ConsoleState()

    def read(self, offset: int, size: int) -> int:
        return CONSOLE_PRESENT

    def peek(self, offset: int, size: int) -> int:
        return CONSOLE_PRESENT

    def write(self, offset: int, value: int, size: int) -> None:
        self.written(bytes((value & 0xFF,)))

    def written(self, data: bytes) -> None:
        """So many writes of a byte, in this order."""
        self.state.written += len(data)
        self._sink(data)

    def reset(self) -> None:
        self.state = ConsoleState()

    def save(self) -> ConsoleState:
        return copy.copy(self.state)

    def restore(self, state: ConsoleState) -> None:
        self.state = copy.copy(state)

    def view(self) -> DeviceView:
        return DeviceView(
            "debugcon", "debug console", "ports E9h, 402h", (FieldView("bytes written", self.state.written),)
        )


@dataclass(slots=True)
class ExitState:
    """`code` is the last one written, None before any."""

    code: int | None = None


class DebugExit:
    """A write of a code asks for the end of the run: `exit(code)`. What becomes of the code is its receiver's. Reads
    give 0."""

    def __init__(self, exit: Callable[[int], None]) -> None:
        self._exit = exit
        self.state = ExitState()

    def read(self, offset: int, size: int) -> int:
        return 0

    def peek(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, value: int, size: int) -> None:
        self.state.code = value
        self._exit(value)

    def reset(self) -> None:
        self.state = ExitState()

    def save(self) -> ExitState:
        return copy.copy(self.state)

    def restore(self, state: ExitState) -> None:
        self.state = copy.copy(state)

    def view(self) -> DeviceView:
        code = "none" if self.state.code is None else self.state.code
        return DeviceView("debug-exit", "debug exit", "port F4h", (FieldView("code", code),))


@dataclass(slots=True)
class PostState:
    """`code` is the last byte written."""

    code: int = 0


class PostCode:
    """Keeps the last byte written; reads give it back."""

    def __init__(self, shared: SharedPorts | None = None) -> None:
        """The byte is kept in `shared`, which an engine may write for the guest."""
        self._shared = SharedPorts() if shared is None else shared

    def read(self, offset: int, size: int) -> int:
        return self._shared.post

    def peek(self, offset: int, size: int) -> int:
        return self._shared.post

    def write(self, offset: int, value: int, size: int) -> None:
        self._shared.post = value & 0xFF

    def reset(self) -> None:
        self._shared.post = 0

    def save(self) -> PostState:
        return PostState(self._shared.post)

    def restore(self, state: PostState) -> None:
        self._shared.post = state.code

    def view(self) -> DeviceView:
        code = self._shared.post
        return DeviceView("post", "POST code", "port 80h", (FieldView("code", code, f"{code:02x}h"),))
