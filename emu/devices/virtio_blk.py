"""The virtio block device: read, write, flush and identify, on one queue.

Source: Virtual I/O Device (VIRTIO) 1.2 ("VIRTIO" below), 5.2 block device: 5.2.3 feature bits, 5.2.4 configuration
layout, 5.2.6 device operation. PCI IDs: 4.1.2.1 and 4.1.2.3, as QEMU's virtio-blk-pci has them.
"""

from __future__ import annotations

from collections.abc import Iterator

from emu.clock import Clock
from emu.devices.pci import Dma
from emu.devices.virtio_pci import VirtioPci
from emu.devices.virtqueue import BadQueue, Chain
from emu.media import SECTOR, Disk, DiskError
from emu.views import FieldView

# Feature bits (5.2.3).
SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH = 1 << 2, 1 << 4, 1 << 5, 1 << 6, 1 << 9
# Request types, and what the status byte says (5.2.6).
T_IN, T_OUT, T_FLUSH, T_GET_ID = 0, 1, 4, 8
OK, IOERR, UNSUPPORTED = 0, 1, 2
HEADER, ID_SIZE = 16, 20
QUEUE = 256
CONFIG_SIZE = 0x3C  #: up to and with what discarding and secure erasure have, which are not offered
#: Virtual time from one request to the next.
LATENCY_NS = 5000
#: Sectors moved at once: a request may ask for as much as the guest's memory has.
PIECE = 2048


class VirtioBlk(VirtioPci):
    """1AF4:1001. `disk` is the medium; `number` makes its name and its serial number."""

    def __init__(self, clock: Clock, dma: Dma, disk: Disk, number: int) -> None:
        self.disk = disk
        self._serial = f"v2e-virtio{number}".encode().ljust(ID_SIZE, b"\0")
        geometry = disk.drive_geometry()
        self._config_space = b"".join(
            value.to_bytes(size, "little")
            for value, size in (
                (disk.sectors, 8), (0, 4), (QUEUE - 2, 4),  # capacity, size_max (not offered), seg_max
                (geometry.cylinders, 2), (geometry.heads, 1), (geometry.sectors, 1),
                (SECTOR, 4),  # blk_size; what follows belongs to features that are not offered
            )
        ).ljust(CONFIG_SIZE, b"\0")  # fmt: skip
        super().__init__(
            clock, dma, f"virtio{number}", "virtio block device", (0x1001, 2), 0x010000,
            offered=SEG_MAX | GEOMETRY | BLK_SIZE | FLUSH | (RO if disk.write_protected else 0),
            queues=(QUEUE,), config_size=CONFIG_SIZE, latency=LATENCY_NS,
        )  # fmt: skip

    def read_config(self, offset: int) -> int:
        return self._config_space[offset]

    def handle(self, chain: Chain) -> int:
        """Header and data as the driver has cut them (2.7.4: framing says nothing); the last byte is the status."""
        if _total(chain.readable) < HEADER or not chain.writable:
            raise BadQueue("a block request has no whole header or no byte for its status")
        header = self._gather(chain.readable, 0, HEADER)
        kind, sector = int.from_bytes(header[:4], "little"), int.from_bytes(header[8:], "little")
        room = _total(chain.writable) - 1
        written = 0
        try:
            if kind == T_IN:
                status, written = self._read(sector, chain, room)
            elif kind == T_OUT:
                status = self._write(sector, chain)
            elif kind == T_FLUSH:
                self.disk.flush()
                status = OK
            elif kind == T_GET_ID:
                status, written = OK, min(room, ID_SIZE)
                self._scatter(chain, 0, self._serial[:written])
            else:
                status = UNSUPPORTED
        except DiskError:
            status, written = IOERR, 0
        self._scatter(chain, room, bytes((status,)))
        return written + 1

    def _inside(self, sector: int, length: int) -> bool:
        return not length % SECTOR and sector + length // SECTOR <= self.disk.sectors

    def _read(self, sector: int, chain: Chain, length: int) -> tuple[int, int]:
        if not self._inside(sector, length):
            return IOERR, 0
        for at in range(0, length, PIECE * SECTOR):
            count = min(PIECE * SECTOR, length - at) // SECTOR
            self._scatter(chain, at, self.disk.read(sector + at // SECTOR, count))
        return OK, length

    def _write(self, sector: int, chain: Chain) -> int:
        length = _total(chain.readable) - HEADER
        if not self._inside(sector, length):
            return IOERR
        for at in range(0, length, PIECE * SECTOR):
            data = self._gather(chain.readable, HEADER + at, min(PIECE * SECTOR, length - at))
            self.disk.write(sector + at // SECTOR, data)
        return OK

    # -- a chain's bytes in a row; that memory is there was seen when it was taken

    def _gather(self, parts: tuple[tuple[int, int], ...], skip: int, length: int) -> bytes:
        return b"".join(self._dma.read(address, count) or bytes(count) for address, count in _cut(parts, skip, length))

    def _scatter(self, chain: Chain, skip: int, data: bytes) -> None:
        done = 0
        for address, count in _cut(chain.writable, skip, len(data)):
            self._dma.write(address, data[done : done + count])
            done += count

    def fields(self) -> list[FieldView]:
        text = "read-only" if self.disk.write_protected else "writable"
        return [*super().fields(), FieldView("disk", text, f"{self.disk.sectors} sectors, {self.disk.name}")]


def _total(parts: tuple[tuple[int, int], ...]) -> int:
    return sum(length for _, length in parts)


def _cut(parts: tuple[tuple[int, int], ...], skip: int, length: int) -> Iterator[tuple[int, int]]:
    """(address, bytes) of the range of `length` bytes from byte `skip` on."""
    for address, size in parts:
        first = min(skip, size)
        count = min(size - first, length)
        if count:
            yield address + first, count
        skip -= first
        length -= count
