"""One private mapping of all RAM and ROM, and the physical addresses its parts stand at, which chipsets change."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from emu.subject import MemoryUnavailable

PAGE = 0x1000
#: Promise no host memory before the guest touches it (Linux, asm-generic/mman.h; CPython 3.11 has no name for it).
MAP_NORESERVE = 0x4000 if sys.platform == "linux" else 0
CHUNK = 0x10000  #: restore compares and writes in pieces of this size
Kind = Literal["ram", "rom"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the mapping: `size` bytes (whole pages), beginning with `content`. It stands at physical `base`; with
    `mapped` False nowhere, until `PhysicalMemory.place` puts it somewhere."""

    base: int
    size: int
    kind: Kind
    name: str
    content: bytes = b""
    mapped: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """`size` bytes of the part `part` from its byte `skip` on, at physical `base`. `kind` "rom" drops the guest's
    writes; `writes` is (part, its first byte) that takes them instead (chipsets copy their ROM to RAM this way)."""

    base: int
    size: int
    part: str
    kind: Kind
    skip: int = 0
    writes: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """A mapped part. `host_address` is where its bytes are in this process, `offset` where in the mapping; `written`
    is the offset of what takes the guest's writes instead, None when there is nothing special about them."""

    base: int
    size: int
    kind: Kind
    name: str
    host_address: int
    offset: int
    written: int | None = None


class PhysicalMemory:
    """RAM and ROM. Pages the guest never touches cost no host memory."""

    def __init__(self, parts: Sequence[Part]) -> None:
        ordered = sorted(parts, key=lambda p: p.base)
        for part in ordered:
            if part.base % PAGE or part.size % PAGE or part.size <= 0:
                raise ValueError(f"{part.name}: {part.base:#x}+{part.size:#x} is not whole pages")
        self._size = sum(p.size for p in ordered)
        self._map = mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        self.view = memoryview(self._map)
        self._start = ctypes.addressof(ctypes.c_uint8.from_buffer(self._map))
        self._parts: dict[str, tuple[Part, int]] = {}
        offset = 0
        for part in ordered:
            if part.name in self._parts:
                raise ValueError(f"two parts are called {part.name}")
            self._parts[part.name] = part, offset
            self.view[offset : offset + len(part.content)] = part.content
            offset += part.size
        self.regions: tuple[Region, ...] = ()
        self.place([Place(p.base, p.size, p.name, p.kind) for p in ordered if p.mapped])
        #: told (physical, length) of each write by the host, so that engines drop stale translations
        self.on_write: list[Callable[[int, int], None]] = []

    def place(self, places: Sequence[Place]) -> None:
        """Replace the whole map. Raises ValueError for places that overlap or leave their part, KeyError for a part
        that does not exist. Nobody is told: the engine takes `regions` by itself."""
        regions = []
        for place in sorted(places, key=lambda p: p.base):
            part, offset = self._parts[place.part]
            if place.base % PAGE or place.size % PAGE or place.skip + place.size > part.size:
                raise ValueError(f"{place.part}: {place.base:#x}+{place.size:#x} is not whole pages of it")
            at = offset + place.skip
            written = None if place.writes is None else self._parts[place.writes[0]][1] + place.writes[1]
            regions.append(Region(place.base, place.size, place.kind, place.part, self._start + at, at, written))
        for low, high in pairwise(regions):
            if low.base + low.size > high.base:
                raise ValueError(f"{high.name} at {high.base:#x} overlaps {low.name}")
        self.regions = tuple(regions)

    def part(self, name: str) -> memoryview:
        """The live bytes of a part, wherever it stands. Raises KeyError when there is none of this name."""
        part, offset = self._parts[name]
        return self.view[offset : offset + part.size]

    def ram(self) -> Iterator[memoryview]:
        """The live bytes of each part that is RAM, mapped or not."""
        for name, (part, _) in self._parts.items():
            if part.kind == "ram":
                yield self.part(name)

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
        for part, offset in self._parts.values():
            end = offset + part.size
            for start in range(offset, end, CHUNK):
                stop = min(start + CHUNK, end)
                if self.view[start:stop] != source[start:stop]:
                    self.view[start:stop] = source[start:stop]
                    self._tell(start, stop)

    def _tell(self, start: int, stop: int) -> None:
        """Bytes [start, stop) of the mapping have changed: say at which addresses."""
        for region in self.regions:
            first, end = max(start, region.offset), min(stop, region.offset + region.size)
            if first < end:
                for tell in self.on_write:
                    tell(region.base + first - region.offset, end - first)

    def clear(self, contents: Sequence[Part]) -> None:
        """Power-on: zeros, and each part's content where it has one. Gives the host its pages back."""
        self._map.madvise(mmap.MADV_DONTNEED)
        for part in contents:
            self.part(part.name)[: len(part.content)] = part.content
        for region in self.regions:
            for tell in self.on_write:
                tell(region.base, region.size)
