"""What the services of the BIOS reach of their machine: memory, ports, the display's memory, drives, time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emu.devices.floppy_drive import FloppyDrive
from emu.devices.ide_cdrom import Cdrom
from emu.devices.vga_memory import DisplayMemory
from emu.media import Disk
from emu.record import dataclass


@dataclass(slots=True)
class Hardware:
    """All of it is injected. `read_bytes` and `write_bytes` take physical addresses, as the bus sees them, and never
    fail; `block_read` and `block_write` reach devices' registers as well. `a20` says whether address bit 20 passes.
    `now` is virtual time in ns. `memory` is RAM in bytes, `pci` whether there is a PCI bus. The first `ata` of the
    disks are on the ATA channels, the others behind virtio-blk. `note` takes what makes the text of an event."""

    read_bytes: Callable[[int, int], bytes]
    write_bytes: Callable[[int, bytes], None]
    block_read: Callable[[int, int], bytes]
    block_write: Callable[[int, bytes], None]
    a20: Callable[[], bool]
    port_in: Callable[[int, int], int]
    port_out: Callable[[int, int, int], None]
    now: Callable[[], int]
    note: Callable[[Callable[[], str]], None]
    display: DisplayMemory
    floppies: Sequence[FloppyDrive]
    disks: Sequence[Disk]
    cdroms: Sequence[tuple[int, Cdrom]]  #: with their place, 0 to 3 from the primary channel's device 0 on
    memory: int
    pci: bool
    ata: int

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from an address as real-mode code forms it, at most 10FFEFh + length."""
        return self.read_bytes(address if self.a20() else address & ~(1 << 20), length)

    def write(self, address: int, data: bytes) -> None:
        self.write_bytes(address if self.a20() else address & ~(1 << 20), data)

    def byte(self, address: int) -> int:
        return self.read_bytes(address, 1)[0]

    def word(self, address: int) -> int:
        return int.from_bytes(self.read_bytes(address, 2), "little")

    def dword(self, address: int) -> int:
        return int.from_bytes(self.read_bytes(address, 4), "little")

    def put(self, address: int, value: int, size: int = 1) -> None:
        """`size` bytes, little-endian."""
        self.write_bytes(address, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def inb(self, port: int) -> int:
        """Of a port that may be counted from what the guest has in the BIOS data area: it wraps, as DX does."""
        return self.port_in(port & 0xFFFF, 1)

    def outb(self, port: int, value: int) -> None:
        self.port_out(port & 0xFFFF, 1, value & 0xFF)
