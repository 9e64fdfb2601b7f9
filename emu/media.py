"""Disk images: a raw file under a copy-on-write overlay, or written through; geometry; errors in one sentence."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from emu.named import NamedTuple
from emu.record import dataclass, field

SECTOR = 512


class MediaError(Exception):
    """An image cannot be used; one sentence names it and says what to do."""


class DiskError(Exception):
    """The host failed to read or write sectors; a drive reports it to its guest. `lba` is the first sector that could
    not be moved, where that is known."""

    def __init__(self, text: str, lba: int | None = None) -> None:
        super().__init__(text)
        self.lba = lba


class Geometry(NamedTuple):
    """Cylinders, heads (tracks a cylinder), sectors a track; sectors are numbered from 1."""

    cylinders: int
    heads: int
    sectors: int


@dataclass(slots=True)
class DiskState:
    """The overlay: what the guest has written, by sector. Empty for a disk written through."""

    overlay: dict[int, bytes] = field(default_factory=dict)


class Disk:
    """A medium of `sectors` sectors of 512 bytes. Made by `open` or `from_bytes`."""

    def __init__(self, name: str, fd: int | None, data: bytes, sectors: int, *, write: bool, protected: bool) -> None:
        self.name, self.sectors = name, sectors
        self.write_through = write
        self.write_protected = protected  #: the guest's writes fail, as with a set write-protect jumper
        self._fd, self._data = fd, data
        self._size = sectors * SECTOR  # bytes that the host has; a last sector that is not whole reads zeros behind
        #: told the sentence of the first DiskError; the guest sees a device error each time
        self.on_error: Callable[[str], None] | None = None
        self._overlay: dict[int, bytes] = {}

    @classmethod
    def open(cls, path: str | os.PathLike[str], write: bool = False) -> Disk:
        """The raw image at `path`. Without `write` the file is opened read-only and the guest's writes stay in memory.
        Raises MediaError."""
        name = os.fspath(path)
        try:
            mode = os.stat(name).st_mode
        except FileNotFoundError:
            raise MediaError(f"{name}: no such image; check the path") from None
        except OSError as error:
            raise MediaError(f"{name}: cannot be reached ({error.strerror}); check the path") from None
        if stat.S_ISDIR(mode):
            raise MediaError(f"{name} is a directory; give the image file in it")
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise MediaError(f"{name} is neither a file nor a block device; give a raw disk image")
        try:
            fd = os.open(name, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
        except OSError as error:
            what = "written; make it writable, or run without --write" if write else "read; change its permissions"
            raise MediaError(f"{name}: {error.strerror}: it must be {what}") from None
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
            _check_size(name, size)
        except MediaError:
            os.close(fd)
            raise
        except OSError as error:
            os.close(fd)
            raise MediaError(f"{name}: its size cannot be told ({error.strerror}); give a raw disk image") from None
        disk = cls(name, fd, b"", -(-size // SECTOR), write=write, protected=False)
        disk._size = size
        return disk

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "memory", *, protected: bool = False) -> Disk:
        """An image in memory, under an overlay. Raises MediaError for a size that no disk has."""
        _check_size(name, len(data))
        sectors = -(-len(data) // SECTOR)
        return cls(name, None, bytes(data).ljust(sectors * SECTOR, b"\0"), sectors, write=False, protected=protected)

    def read(self, lba: int, count: int) -> bytes:
        """`count` sectors from `lba`. Raises DiskError, and ValueError beyond the end, which a drive must prevent."""
        self._check_range(lba, count)
        base = self._host_read(lba, count)
        if not self._overlay:
            return base
        out = bytearray(base)
        for i in range(count):
            changed = self._overlay.get(lba + i)
            if changed is not None:
                out[i * SECTOR : (i + 1) * SECTOR] = changed
        return bytes(out)

    def write(self, lba: int, data: bytes) -> None:
        """Whole sectors from `lba`. Raises DiskError; with write-through, sectors before the failed one are written
        and none after it."""
        count, odd = divmod(len(data), SECTOR)
        if odd:
            raise ValueError(f"{len(data)} bytes are no whole sectors")
        self._check_range(lba, count)
        if self.write_protected:
            raise DiskError(f"{self.name} is write-protected", lba)
        if not self.write_through:
            for i in range(count):
                self._overlay[lba + i] = bytes(data[i * SECTOR : (i + 1) * SECTOR])
            return
        assert self._fd is not None
        for i in range(count):
            sector = data[i * SECTOR : (i + 1) * SECTOR]
            try:
                written = os.pwrite(self._fd, sector, (lba + i) * SECTOR)
            except OSError as error:
                raise self._error(f"sector {lba + i} cannot be written: {error.strerror}", lba + i) from None
            if written != SECTOR:
                raise self._error(f"sector {lba + i} was written in part; the host's disk may be full", lba + i)
            self._size = max(self._size, (lba + i + 1) * SECTOR)

    def flush(self) -> None:
        """Written sectors are on the host's medium on return. Raises DiskError. Nothing to do for an overlay."""
        if self.write_through and self._fd is not None:
            try:
                os.fsync(self._fd)
            except OSError as error:
                raise self._error(f"cannot be flushed: {error.strerror}") from None

    def geometry(self) -> Geometry:
        """The translation its contents were made with, from the partition table or the BIOS parameter block; else the
        customary one for the size. Heads may exceed the 16 of an ATA drive: see `drive_geometry`."""
        first = self.read(0, 1)
        found = _partition_geometry(first) or _bpb_geometry(first)
        if found is not None and found[0] * found[1] <= self.sectors:
            heads, sectors = found
            return Geometry(min(self.sectors // (heads * sectors), 1 << 16), heads, sectors)
        return self.drive_geometry()

    def bpb_geometry(self) -> tuple[int, int] | None:
        """Heads and sectors a track from a DOS boot sector; None without one."""
        return _bpb_geometry(self.read(0, 1))

    def drive_geometry(self) -> Geometry:
        """The default CHS translation an ATA drive of this size reports: at most 16383/16/63 (ATA-4, 6.2), never more
        sectors than there are."""
        sectors = min(63, self.sectors)
        heads = min(16, self.sectors // sectors)
        return Geometry(min(self.sectors // (heads * sectors), 16383), heads, sectors)

    def save(self) -> DiskState:
        return DiskState(dict(self._overlay))

    def restore(self, state: DiskState) -> None:
        """The overlay as it was. What a written-through disk has in its file stays."""
        self._overlay = dict(state.overlay)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _error(self, text: str, lba: int | None = None) -> DiskError:
        sentence = f"{self.name}: {text}"
        if self.on_error is not None:
            self.on_error(sentence)
            self.on_error = None
        return DiskError(sentence, lba)

    def _check_range(self, lba: int, count: int) -> None:
        if lba < 0 or count < 0 or lba + count > self.sectors:
            raise ValueError(f"sectors {lba} to {lba + count - 1}: {self.name} has {self.sectors}")

    def _host_read(self, lba: int, count: int) -> bytes:
        if self._fd is None:
            return self._data[lba * SECTOR : (lba + count) * SECTOR]
        wanted = count * SECTOR
        try:
            data = os.pread(self._fd, wanted, lba * SECTOR)
        except OSError as error:
            raise self._error(f"sector {lba} cannot be read: {error.strerror}", lba) from None
        if len(data) < min(wanted, self._size - lba * SECTOR):
            missing = lba + len(data) // SECTOR
            raise self._error(f"sector {missing} is missing; the file has become shorter", missing)
        return data.ljust(wanted, b"\0")


def _check_size(name: str, size: int) -> None:
    if size == 0:
        raise MediaError(f"{name} is empty; a disk image has at least one sector of {SECTOR} bytes")


def _partition_geometry(sector: bytes) -> tuple[int, int] | None:
    """(heads, sectors) from the end of an MBR partition whose CHS and LBA fields agree with it."""
    if sector[510:512] != b"\x55\xaa":
        return None
    for at in range(446, 510, 16):
        entry = sector[at : at + 16]
        start, length = int.from_bytes(entry[8:12], "little"), int.from_bytes(entry[12:16], "little")
        if entry[0] & 0x7F or not entry[4] or not start or not length:
            continue
        heads, sectors = entry[5] + 1, entry[6] & 0x3F
        if not sectors or heads == 1 or heads > 255:
            continue
        if all(
            cylinder >= 1022 or (cylinder * heads + head) * sectors + number - 1 == lba
            for (head, number, cylinder), lba in ((_chs(entry[1:4]), start), (_chs(entry[5:8]), start + length - 1))
        ):
            return heads, sectors
    return None


def _chs(packed: bytes) -> tuple[int, int, int]:
    """Head, sector, cylinder of a partition entry's three bytes."""
    return packed[0], packed[1] & 0x3F, packed[1] << 2 & 0x300 | packed[2]


def _bpb_geometry(sector: bytes) -> tuple[int, int] | None:
    """(heads, sectors) from a DOS boot sector (FAT specification 1.03: BPB_SecPerTrk, BPB_NumHeads)."""
    jump = sector[0] == 0xE9 or (sector[0] == 0xEB and sector[2] == 0x90)
    sectors, heads = int.from_bytes(sector[24:26], "little"), int.from_bytes(sector[26:28], "little")
    if not jump or sector[11:13] != b"\x00\x02" or not 1 <= sectors <= 63 or not 1 <= heads <= 255:
        return None
    return heads, sectors
