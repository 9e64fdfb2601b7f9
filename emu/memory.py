"""One private mapping of all RAM and ROM, and the physical addresses its parts stand at."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from emu.subject import MemoryUnavailable

PAGE = 0x1000
CHUNK = 0x10000  #: restore compares and writes in pieces of this size
Kind = Literal["ram", "rom"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part to be mapped: `size` bytes (whole pages) at physical `base`, beginning with `content`."""

    base: int
    size: int
    kind: Kind
    name: str
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Region:
    """A mapped part. `host_address` is where its bytes are in this process, `offset` where in the mapping."""

    base: int
    size: int
    kind: Kind
    name: str
    host_address: int
    offset: int


class PhysicalMemory:
    """RAM and ROM. Pages the guest never touches cost no host memory."""

    def __init__(self, parts: Sequence[Part]) -> None:
        ordered = sorted(parts, key=lambda p: p.base)
        for part in ordered:
            if part.base % PAGE or part.size % PAGE or part.size <= 0:
                raise ValueError(f"{part.name}: {part.base:#x}+{part.size:#x} is not whole pages")
        for low, high in pairwise(ordered):
            if low.base + low.size > high.base:
                raise ValueError(f"{high.name} at {high.base:#x} overlaps {low.name}")
        self._size = sum(p.size for p in ordered)
        self._map = mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._map)
        start = ctypes.addressof(ctypes.c_uint8.from_buffer(self._map))
        regions, offset = [], 0
        for part in ordered:
            regions.append(Region(part.base, part.size, part.kind, part.name, start + offset, offset))
            self.view[offset : offset + len(part.content)] = part.content
            offset += part.size
        self.regions: tuple[Region, ...] = tuple(regions)
        #: told (physical, length) of each write by the host, so that engines drop stale translations
        self.on_write: list[Callable[[int, int], None]] = []

    def _find(self, address: int) -> Region | None:
        for region in self.regions:
            if region.base <= address < region.base + region.size:
                return region
        return None

    def available(self, address: int, length: int) -> int:
        """How many of the `length` bytes from physical `address` are RAM or ROM, from the first on."""
        done = 0
        while done < length and (region := self._find(address + done)) is not None:
            done = min(length, region.base + region.size - address)
        return done

    def read(self, address: int, length: int) -> bytes:
        """Raises MemoryUnavailable at the first byte that is neither RAM nor ROM."""
        region = self._find(address)
        if region is not None and address + length <= region.base + region.size:
            start = region.offset + address - region.base
            return bytes(self.view[start : start + length])
        out = bytearray()
        while len(out) < length:
            region = self._find(address + len(out))
            if region is None:
                raise MemoryUnavailable(address + len(out), "no memory at this physical address")
            start = region.offset + address + len(out) - region.base
            out += self.view[start : min(start + length - len(out), region.offset + region.size)]
        return bytes(out)

    def try_read(self, address: int, length: int) -> bytes | None:
        """As read, but None where read raises."""
        try:
            return self.read(address, length)
        except MemoryUnavailable:
            return None

    def write(self, address: int, data: bytes) -> None:
        """As the host writes: ROM too. Raises MemoryUnavailable with nothing written."""
        have = self.available(address, len(data))
        if have < len(data):
            raise MemoryUnavailable(address + have, "no memory at this physical address")
        done = 0
        while done < len(data):
            region = self._find(address + done)
            assert region is not None
            start = region.offset + address + done - region.base
            count = min(len(data) - done, region.offset + region.size - start)
            self.view[start : start + count] = data[done : done + count]
            done += count
        for tell in self.on_write:
            tell(address, len(data))

    def write_ram(self, address: int, data: bytes) -> None:
        """As a bus master writes: what is ROM stays. Raises MemoryUnavailable with nothing written."""
        have = self.available(address, len(data))
        if have < len(data):
            raise MemoryUnavailable(address + have, "no memory at this physical address")
        done = 0
        while done < len(data):
            region = self._find(address + done)
            assert region is not None
            count = min(len(data) - done, region.base + region.size - address - done)
            if region.kind == "ram":
                self.write(address + done, data[done : done + count])
            done += count

    def window(self, base: int) -> memoryview:
        """The live bytes of the region that begins at physical `base`."""
        for region in self.regions:
            if region.base == base:
                return self.view[region.offset : region.offset + region.size]
        raise KeyError(f"no region begins at {base:#x}")

    def save(self) -> bytes:
        """All RAM and ROM bytes, in order of address."""
        return bytes(self.view)

    def restore(self, data: bytes) -> None:
        """Only what differs is written. Raises ValueError when `data` is of a machine with other memory."""
        if len(data) != self._size:
            raise ValueError(f"the state holds {len(data)} bytes of memory, this machine has {self._size}")
        source = memoryview(data)
        for region in self.regions:
            end = region.offset + region.size
            for start in range(region.offset, end, CHUNK):
                stop = min(start + CHUNK, end)
                if self.view[start:stop] != source[start:stop]:
                    self.view[start:stop] = source[start:stop]
                    for tell in self.on_write:
                        tell(region.base + start - region.offset, stop - start)

    def clear(self, contents: Sequence[Part]) -> None:
        """Power-on: zeros, and each part's content where it has one. Gives the host its pages back."""
        self._map.madvise(mmap.MADV_DONTNEED)
        for part in contents:
            window = self.window(part.base)
            window[: len(part.content)] = part.content
        for region in self.regions:
            for tell in self.on_write:
                tell(region.base, region.size)
