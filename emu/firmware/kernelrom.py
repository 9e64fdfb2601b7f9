"""The kernel ROM, an option ROM that starts a kernel when a firmware's POST is over, and the file that it is given."""

from __future__ import annotations

import struct

from emu.firmware.assembled import assembled
from emu.record import dataclass

#: In fw_cfg, where the ROM looks for it; "opt/" is for files that are not QEMU's own (its docs/specs/fw_cfg.rst).
FILE = "opt/v2e/kernel"
#: Of the end of RAM, what a firmware may keep for its tables and itself. SeaBIOS takes 256 KiB.
FIRMWARE_KEPT = 1 << 20
_LINUX, _MULTIBOOT = 1, 2  #: KIND_ of kernelrom.asm


@dataclass(frozen=True, slots=True)
class AfterPost:
    """`pieces` are (physical address, bytes), in the order in which the ROM puts them; `last` is its last record."""

    name: str
    pieces: tuple[tuple[int, bytes], ...]
    last: bytes

    def file(self) -> bytes:
        """As the head of kernelrom.asm describes it."""
        parts = [struct.pack("<II", address, len(data)) + data for address, data in self.pieces if data]
        return b"".join([*parts, bytes(8), self.last])


def enter_linux(segment: int, stack: int) -> bytes:
    """The last record for setup code at `segment`, with SP at `stack`."""
    return struct.pack("<5I", _LINUX, segment, stack, 0, 0)


def enter_multiboot(entry: int, information: int, map_address: int, map_room: int) -> bytes:
    """The last record for an image whose boot information is in place, but for what the firmware knows of memory: the
    map goes to `map_address`, where `map_room` bytes are."""
    return struct.pack("<5I", _MULTIBOOT, entry, information, map_address, map_room)


def rom() -> bytes:
    """The assembled ROM, its bytes summing up to 0 as a firmware demands."""
    image = assembled("kernelrom.bin")
    return image[:-1] + bytes((-sum(image) & 0xFF,))
