"""One private mapping of all RAM and ROM, where its parts stand (chipsets move them), which pages were written."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from emu.pages import GROUP, PAGE, ZERO, Pages
from emu.record import dataclass, replace
from emu.subject import MemoryUnavailable
from emu.typed import Literal

_ZEROS = ZERO * GROUP
#: C's, over addresses: half a megabyte of zeros are told without a copy of it, and without Python for each page.
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes, _memcmp.restype = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t), ctypes.c_int
#: Promise no host memory before the guest touches it (Linux, asm-generic/mman.h; CPython 3.11 has no name for it).
MAP_NORESERVE = 0x4000 if sys.platform == "linux" else 0
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
    """RAM and ROM. Pages the guest never touches cost no host memory.

    `save` takes time and memory by the pages written since the last `save` or `restore`. They are known by a mark each:
    writes of the host mark theirs here, CPUs mark theirs where they can (`add_writer`). Where a CPU cannot, and where
    somebody holds a window, pages are compared instead."""

    def __init__(self, parts: Sequence[Part]) -> None:
        ordered = sorted(parts, key=lambda p: p.base)
        for part in ordered:
            if part.base % PAGE or part.size % PAGE or part.size <= 0:
                raise ValueError(f"{part.name}: {part.base:#x}+{part.size:#x} is not whole pages")
        self.size = sum(p.size for p in ordered)
        self._map = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        self._bytes = memoryview(self._map)
        self.view = self._bytes.toreadonly()  #: all bytes, in order of address
        self._count = self.size // PAGE
        #: A byte a page of the mapping, not 0: written since `_base`, which is what all memory was then.
        self._marks = mmap.mmap(-1, self._count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._base = Pages.zeros(self._count)
        self._writers: list[Callable[[], None] | None] = []  # for each CPU: have it mark anew; None: it cannot mark
        self._windows: set[tuple[int, int]] = set()  # (first page, end) that are written past us
        self._start = ctypes.addressof(ctypes.c_uint8.from_buffer(self._map))
        self._parts: dict[str, tuple[Part, int]] = {}
        offset = 0
        for part in ordered:
            if part.name in self._parts:
                raise ValueError(f"two parts are called {part.name}")
            self._parts[part.name] = part, offset
            self._put(offset, part.content)
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
            at, written = offset + place.skip, None
            if place.writes is not None:
                # What takes them is no memory that a CPU marks.
                written = self._parts[place.writes[0]][1] + place.writes[1]
                self._windows.add((written // PAGE, (written + place.size) // PAGE))
            regions.append(Region(place.base, place.size, place.kind, place.part, self._start + at, at, written))
        for low, high in pairwise(regions):
            if low.base + low.size > high.base:
                raise ValueError(f"{high.name} at {high.base:#x} overlaps {low.name}")
        self.regions = tuple(regions)

    def follow(self, regions: Sequence[Region]) -> None:
        """Have the map of `regions`, which are another memory's of the same parts. Nobody is told."""
        for region in regions:
            if region.written is not None:
                self._windows.add((region.written // PAGE, (region.written + region.size) // PAGE))
        self.regions = tuple(replace(r, host_address=self._start + r.offset) for r in regions)

    @property
    def parts(self) -> frozenset[str]:
        """The names of all parts, mapped or not."""
        return frozenset(self._parts)

    def part(self, name: str) -> memoryview:
        """The bytes of a part, wherever it stands, to be looked at. Raises KeyError when there is none of this name."""
        part, offset = self._parts[name]
        return self.view[offset : offset + part.size]

    def ram(self) -> Iterator[memoryview]:
        """The bytes of each part that is RAM, mapped or not."""
        for name, (part, _) in self._parts.items():
            if part.kind == "ram":
                yield self.part(name)

    def _put(self, offset: int, data: bytes | memoryview) -> None:
        """Write to the mapping, and mark it."""
        if data:
            self._bytes[offset : offset + len(data)] = data
            first, end = offset // PAGE, (offset + len(data) - 1) // PAGE + 1
            self._marks[first:end] = b"\1" * (end - first)

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
        for place in self.regions:
            at = address - place.base
            if at >= 0 and at + length <= place.size:
                start = place.offset + at
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
        region = self._find(address)
        if region is not None and address + len(data) <= region.base + region.size:
            self._put(region.offset + address - region.base, data)
            for tell in self.on_write:
                tell(address, len(data))
            return
        have = self.available(address, len(data))
        if have < len(data):
            raise MemoryUnavailable(address + have, "no memory at this physical address")
        done = 0
        while done < len(data):
            region = self._find(address + done)
            assert region is not None
            start = region.offset + address + done - region.base
            count = min(len(data) - done, region.offset + region.size - start)
            self._put(start, data[done : done + count])
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
        """The live bytes of the region that begins at physical `base` now. `save` compares them, whoever writes."""
        for region in self.regions:
            if region.base == base:
                self._windows.add((region.offset // PAGE, (region.offset + region.size) // PAGE))
                return self._bytes[region.offset : region.offset + region.size]
        raise KeyError(f"no region begins at {base:#x}")

    def live(self, name: str) -> memoryview:
        """The live bytes of a part, wherever it stands. `save` compares them, whoever writes. Raises KeyError when
        there is none of this name."""
        part, offset = self._parts[name]
        self._windows.add((offset // PAGE, (offset + part.size) // PAGE))
        return self._bytes[offset : offset + part.size]

    def unmarked(self) -> tuple[tuple[int, int], ...]:
        """(first page, end) of what is written past the marks: windows, and what takes the place of writes to ROM."""
        return tuple(self._windows)

    def changed(self, name: str, at: int, count: int) -> None:
        """Tell the engines of bytes of a part that were changed through `live`, wherever they stand now."""
        offset = self._parts[name][1] + at
        self._tell(offset, offset + count)

    def write_part(self, name: str, at: int, data: bytes) -> None:
        """As the host writes a part's bytes from its byte `at` on, wherever it stands. Raises KeyError when there is
        none of this name."""
        start = self._parts[name][1] + at
        self._put(start, data)
        self._tell(start, start + len(data))

    # -- all of it as a value

    def add_writer(self, mark_writes: Callable[[int, int, int], Callable[[], None] | None]) -> None:
        """Tell a CPU of this memory where to mark what it writes: `mark_writes` is `Executor.mark_writes`."""
        marks = ctypes.addressof(ctypes.c_uint8.from_buffer(self._marks))
        self._writers.append(mark_writes(self._start, self._count, marks))

    @property
    def exact(self) -> bool:
        """Written pages are known; else `save` compares all."""
        return bool(self._writers) and None not in self._writers

    @property
    def written(self) -> int:
        """How many pages are known to have been written since the last `save` or `restore`."""
        return self._marks[:].count(b"\1")

    def _suspects(self) -> Iterator[int]:
        """The pages that may differ from `_base`, in any order, some more than once."""
        if not self.exact:
            yield from self._unless_zeros(0, self._count)
            return
        for first, end in self._windows:
            yield from self._unless_zeros(first, end)
        at = self._marks.find(b"\1")
        while at >= 0:
            yield at
            at = self._marks.find(b"\1", at + 1)

    def _unless_zeros(self, first: int, end: int) -> Iterator[int]:
        """Of these pages, those of groups that do not consist of zeros, as they have always done: a frame buffer has
        thousands of pages, most of which nobody ever draws on."""
        for group in range(first // GROUP, (end + GROUP - 1) // GROUP):
            low, high = max(first, group * GROUP), min(end, (group + 1) * GROUP)
            if not self._base.empty(group) or _memcmp(self._start + low * PAGE, _ZEROS, (high - low) * PAGE):
                yield from range(low, high)

    def _settle(self, base: Pages) -> None:
        """What the memory holds now is `base`: mark what is written from here on."""
        self._base = base
        self._marks[:] = bytes(self._count)
        for rearm in self._writers:
            if rearm is not None:
                rearm()

    def agree(self, saved: Pages) -> None:
        """`saved` is known to be what the memory holds now: its pages are shared from here on."""
        self._settle(saved)

    def save(self) -> Pages:
        """All RAM and ROM, in order of address."""
        base, changes = self._base, {}
        for index in self._suspects():
            page = self._map[index * PAGE : (index + 1) * PAGE]
            if page != base.page(index):
                changes[index] = ZERO if page == ZERO else page
        if changes or self._marks.find(b"\1") >= 0:
            self._settle(base.replaced(changes))
        return self._base

    def restore(self, saved: Pages) -> None:
        """Only what differs is written. Raises ValueError when `saved` is of a machine with other memory."""
        if saved.count != self._count:
            raise ValueError(f"the state holds {len(saved)} bytes of memory, this machine has {self.size}")
        written = []
        for index in sorted({*self._suspects(), *self._base.unlike(saved)}):
            at, page = index * PAGE, saved.page(index)
            if self._map[at : at + PAGE] != page:
                self._bytes[at : at + PAGE] = page
                written.append(index)
        self._settle(saved)
        self._tell_pages(written)

    def _tell_pages(self, indexes: Sequence[int]) -> None:
        """Tell the engines, once for each run of neighbours, wherever it is mapped. `indexes` are in order."""
        first = end = -1
        for index in (*indexes, self._count + 1):
            if index == end:
                end += 1
                continue
            if first >= 0:
                self._tell(first * PAGE, end * PAGE)
            first, end = index, index + 1

    def _tell(self, start: int, stop: int) -> None:
        """Bytes [start, stop) of the mapping have changed."""
        for region in self.regions:
            first, end = max(start, region.offset), min(stop, region.offset + region.size)
            if first < end:
                for tell in self.on_write:
                    tell(region.base + first - region.offset, end - first)

    def clear(self, contents: Sequence[Part]) -> None:
        """Power-on: zeros, and each part's content where it has one. Gives the host its pages back."""
        try:
            self._map.madvise(mmap.MADV_DONTNEED)
        except OSError:  # a hypervisor's pages stand in the mapping, which are not the host's to take
            for start in range(0, self.size, PAGE * GROUP):
                end = min(start + PAGE * GROUP, self.size)
                self._bytes[start:end] = bytes(end - start)
        self._settle(Pages.zeros(self._count))
        for part in contents:
            self._put(self._parts[part.name][1], part.content)
        for region in self.regions:
            for tell in self.on_write:
                tell(region.base, region.size)
