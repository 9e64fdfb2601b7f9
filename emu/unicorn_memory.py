"""The guest's physical memory as Unicorn sees it: RAM, ROM, MMIO everywhere else, and stale translations."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, Protocol

from emu.engine import EngineError
from emu.unicorn_callbacks import Callbacks
from emu.unicorn_layout import PHYSICAL_END
from emu.unicorn_overlay import Overlay

PAGE: Final = 0x1000
PROT_ALL: Final = 7  #: UC_PROT_ALL
#: Holes end and begin at these: the display's window, which may be served by others than the rest.
CUTS: Final = (0xA0000, 0xC0000)


class MappedRegion(Protocol):
    """A range of physical memory backed by this process's: `host_address` is where its bytes are."""

    @property
    def base(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def kind(self) -> str:
        """`ram`, or `rom`: guest writes are discarded."""

    @property
    def name(self) -> str: ...
    @property
    def host_address(self) -> int: ...


class GuestMemory:
    """The map of one engine. Raises EngineError when Unicorn refuses a region."""

    def __init__(self, overlay: Overlay, regions: Sequence[MappedRegion], callbacks: Callbacks) -> None:
        self._ov, self._regions = overlay, tuple(regions)
        call, uc = overlay.call, overlay.uc
        #: host address, number and marks of the pages whose writes are noted
        self._marked = 0, 0, 0
        #: (base, size, address in Unicorn's own numbering of RAM, by which it finds translations)
        self._ram: list[tuple[int, int, int]] = []
        # Until the first block is freed Unicorn numbers a new one behind the smallest (find_ram_offset in its exec.c),
        # so that two may have the same numbers. From then on it looks for a gap.
        page = mmap.mmap(-1, PAGE)
        self.map_host(0, PAGE, ctypes.addressof(ctypes.c_uint8.from_buffer(page)), "a spare page")
        overlay.check(call.mem_unmap(uc, 0, PAGE), "unmap a spare page")
        for region in self._regions:
            self.map_host(region.base, region.size, region.host_address, region.name)
            if region.kind == "rom":
                # The memory system then discards writes, which keeps translations and bytes as they are; Unicorn's
                # own protection would ask a hook and write all the same.
                call.set_readonly(call.find_region(uc, region.base), True)
            self._ram.append((region.base, region.size, call.ram_address(uc, region.host_address)))
        numbers = sorted((number, number + size) for _, size, number in self._ram)
        if any(one[1] > other[0] for one, other in pairwise(numbers)):
            raise EngineError(f"unicorn numbers two pieces of RAM alike: {numbers}")
        for first, end in _holes(self._regions):
            code = call.mmio_map(uc, first, end - first, callbacks.mmio_read, first, callbacks.mmio_write, first)
            overlay.check(code, f"map I/O at {first:#x}")

    def serve(self, base: int, size: int, read: int, write: int, data: int) -> None:
        """Let functions of C answer the MMIO hole [base, base + size), with `data` as their user data. See
        uc_mmio_map."""
        call, uc = self._ov.call, self._ov.uc
        self._ov.check(call.mem_unmap(uc, base, size), f"unmap I/O at {base:#x}")
        self._ov.check(call.mmio_map(uc, base, size, read, data, write, data), f"map I/O at {base:#x}")

    def map_host(self, base: int, size: int, host_address: int, name: str) -> None:
        """Back physical [base, base + size) by this process's memory."""
        code = self._ov.call.mem_map_ptr(self._ov.uc, base, size, PROT_ALL, host_address)
        self._ov.check(code, f"map {name} at {base:#x}+{size:#x}")

    def ranges(self, physical: int, length: int) -> list[tuple[int, int]]:
        """Where in Unicorn's numbering of RAM the bytes are: [first, end) of each part."""
        found = []
        for base, size, ram in self._ram:
            first, end = max(physical, base), min(physical + length, base + size)
            if first < end:
                found.append((ram + first - base, ram + end - base))
        return found

    def places(self) -> list[tuple[int, int, int]]:
        """(base, size, address in this process) of each region."""
        return [(region.base, region.size, region.host_address) for region in self._regions]

    @property
    def numbered(self) -> int:
        """The end of Unicorn's numbering of RAM."""
        return max((ram + size for _, size, ram in self._ram), default=0)

    def read(self, address: int, length: int) -> bytes | None:
        """Bytes of RAM or ROM; None where there is neither, or where the range leaves a region."""
        for region in self._regions:
            if region.base <= address and address + length <= region.base + region.size:
                return ctypes.string_at(region.host_address + address - region.base, length)
        return None

    def write(self, address: int, data: bytes) -> list[tuple[int, int]]:
        """Store into RAM, as a guest's write would: ROM and holes take nothing. Returns what `ranges` does."""
        for region in self._regions:
            if region.base <= address and address + len(data) <= region.base + region.size:
                if region.kind == "rom":
                    return []
                host = region.host_address + address - region.base
                ctypes.memmove(host, data, len(data))
                self._mark(host, len(data))
                return self.ranges(address, len(data))
        return []

    def mark_writes(self, host: int, pages: int, marks: int) -> None:
        """Have `write` set the byte at `marks` of each of the `pages` pages from `host` that it stores to."""
        self._marked = host, pages, marks

    def _mark(self, host: int, length: int) -> None:
        first, pages, marks = self._marked
        for page in range((host - first) // PAGE, (host + length - 1 - first) // PAGE + 1):
            if 0 <= page < pages:
                ctypes.memset(marks + page, 1, 1)


def _holes(regions: Sequence[MappedRegion]) -> Iterator[tuple[int, int]]:
    """The physical ranges [first, end) below PHYSICAL_END that no region covers."""
    at = 0
    for region in sorted(regions, key=lambda r: r.base):
        yield from _cut(at, region.base)
        at = region.base + region.size
    if at > PHYSICAL_END:
        raise EngineError(f"a region ends at {at:#x}, past the {PHYSICAL_END:#x} bytes this CPU can address")
    yield from _cut(at, PHYSICAL_END)


def _cut(first: int, end: int) -> Iterator[tuple[int, int]]:
    while first < end:
        stop = min((cut for cut in (*CUTS, end) if cut > first), default=end)
        yield first, min(stop, end)
        first = stop
