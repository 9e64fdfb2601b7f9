"""A board's ports and MMIO that tell of each access before it is made, which is or would be an exit of a native CPU."""

from __future__ import annotations

from collections.abc import Callable

from emu.engine import MmioBus, PortIo
from emu.typed import Final
from emu.vcpu import ExitCause

__all__: Final = ["Note", "NotedMemory", "NotedPorts"]

#: Told of an access: its cause, the port or physical address, and whether it writes.
Note = Callable[[ExitCause, int, bool], None]


class NotedPorts:
    """A board's ports (`PortIo`)."""

    def __init__(self, io: PortIo, note: Note) -> None:
        self._io, self._note = io, note

    def port_in(self, port: int, size: int) -> int:
        self._note(ExitCause.PIO, port, False)
        return self._io.port_in(port, size)

    def port_out(self, port: int, size: int, value: int) -> None:
        self._note(ExitCause.PIO, port, True)
        self._io.port_out(port, size, value)


class NotedMemory:
    """A board's MMIO (`MmioBus`). Whether anything answers at an address is no access."""

    def __init__(self, bus: MmioBus, note: Note) -> None:
        self._bus, self._note = bus, note

    def mmio_read(self, address: int, size: int) -> int:
        self._note(ExitCause.MMIO, address, False)
        return self._bus.mmio_read(address, size)

    def mmio_write(self, address: int, size: int, value: int) -> None:
        self._note(ExitCause.MMIO, address, True)
        self._bus.mmio_write(address, size, value)

    def answers(self, address: int) -> bool:
        return self._bus.answers(address)
