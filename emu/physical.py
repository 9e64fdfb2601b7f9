"""Physical memory as a debugger reads and writes it: RAM and ROM, and the VGA's window without side effects."""

from __future__ import annotations

from collections.abc import Iterator

from emu import layout
from emu.devices.vga_memory import DisplayMemory
from emu.memory import PhysicalMemory
from emu.subject import MemoryUnavailable

_WINDOW_END = layout.VGA_WINDOW + layout.VGA_WINDOW_SIZE


class Physical:
    """What the addresses of `memory` show, those of the VGA's window through `display` where no memory is before it."""

    def __init__(self, memory: PhysicalMemory, display: DisplayMemory) -> None:
        self._memory = memory
        self._display = display

    def _shows_display(self, address: int) -> bool:
        """The VGA answers there: no memory of a chipset is in front of its window."""
        return _meets_window(address, 1) and not self._memory.available(address, 1)

    def read(self, address: int, length: int) -> bytes:
        """What the CPU would read, without side effects; of the VGA's window too."""
        if address >= _WINDOW_END or address + length <= layout.VGA_WINDOW:  # as `_meets_window`, asked most often
            return self._memory.read(address, length)
        return b"".join(
            bytes(self._display.peek(at - layout.VGA_WINDOW + i, 1) for i in range(count))
            if self._shows_display(at)
            else self._memory.read(at, count)
            for at, count in _split(address, length)
        )

    def readable(self, address: int, length: int) -> int:
        readable = 0
        for at, count in _split(address, length):
            part = count if self._shows_display(at) else self._memory.available(at, count)
            readable += part
            if part < count:
                break
        return readable

    def check(self, address: int, data: bytes) -> None:
        """Raises MemoryUnavailable where `write` would: there is no memory, or the VGA takes nothing there now. What is
        read there can be written, as what was saved of memory is restored."""
        have = self.readable(address, len(data))
        if have < len(data):
            raise MemoryUnavailable(address + have, "no memory at this physical address")
        if not _meets_window(address, len(data)):
            return
        for at, count in _split(address, len(data)):
            if self._shows_display(at):
                for byte in range(at, at + count):
                    offset = byte - layout.VGA_WINDOW
                    if not self._display.takes(offset) and self._display.peek(offset, 1) != data[byte - address]:
                        raise MemoryUnavailable(byte, "the VGA as it is set takes nothing that is written there")

    def write(self, address: int, data: bytes) -> None:
        """As the CPU would write to the VGA's window, as the host writes elsewhere. Raises MemoryUnavailable with
        nothing written."""
        if not _meets_window(address, len(data)):
            self._memory.write(address, data)
            return
        self.check(address, data)
        for at, count in _split(address, len(data)):
            part = data[at - address : at - address + count]
            if self._shows_display(at):
                for offset, byte in enumerate(part, at - layout.VGA_WINDOW):
                    if self._display.takes(offset):  # what it does not take is what is read there
                        self._display.write(offset, byte, 1)
            else:
                self._memory.write(at, part)


def _meets_window(address: int, length: int) -> bool:
    return address < _WINDOW_END and address + length > layout.VGA_WINDOW


def _split(address: int, length: int) -> Iterator[tuple[int, int]]:
    """(address, bytes) of the parts of a physical range before, in and behind the VGA's window."""
    end = address + length
    for edge in (layout.VGA_WINDOW, layout.VGA_WINDOW + layout.VGA_WINDOW_SIZE, end):
        if address < min(edge, end):
            yield address, min(edge, end) - address
            address = min(edge, end)
