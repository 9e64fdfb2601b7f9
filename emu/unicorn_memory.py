"""The guest's physical memory as Unicorn sees it: RAM, ROM, MMIO everywhere else, and stale translations."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator, Sequence
from ctypes import c_int, c_int64, c_uint64, c_void_p
from functools import partial
from itertools import pairwise

from emu.engine import EngineError, MemoryRegion
from emu.record import dataclass
from emu.typed import Any, Final
from emu.unicorn_callbacks import Callbacks
from emu.unicorn_layout import PHYSICAL_END
from emu.unicorn_overlay import Overlay
from emu.unicorn_shared import Hole
from emu.x86.state import CR0_PG

PAGE: Final = 0x1000
PROT_ALL: Final = 7  #: UC_PROT_ALL
#: Memory that is not mapped from the start, such as the frame buffer of a PCI card.
LATER: Final = 64 << 20
#: Holes end and begin at the first two: the display's window, which may be served by others than the rest. So that a
#: change leaves distant holes alone (taking one out costs Unicorn time for each of its pages) they are cut at 1 MiB as
#: well, at multiples of 256 MiB, and of CUT in the GiB below 4 GiB, where cards' memory is placed: putting one in costs
#: Unicorn time for all that are there.
CUTS: Final = (0xA0000, 0xC0000, 0x100000, *range(256 << 20, (3 << 30) + 1, 256 << 20))
CUT: Final = 64 << 20


_WRITE = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_uint64, c_int, c_int64, c_void_p)
HOOK_WRITE: Final = 1 << 11  #: UC_HOOK_MEM_WRITE
LONGEST_ACCESS: Final = 16


def _store_elsewhere(
    region: MemoryRegion, host: int, _uc: int, _kind: int, address: int, size: int, value: int, _data: int
) -> None:
    """A memory hook: put what is written in `region` to the host's bytes from `host` on."""
    data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    first, end = max(address, region.base), min(address + size, region.base + region.size)
    if first < end:
        ctypes.memmove(host + first - region.base, data[first - address : end - address], end - first)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What stands at [base, end): memory of this process (`host` its address), or MMIO (`host` None)."""

    base: int
    end: int
    host: int | None
    readonly: bool
    name: str


class GuestMemory:
    """The map of one engine. Raises EngineError when Unicorn refuses a region."""

    def __init__(
        self,
        overlay: Overlay,
        regions: Sequence[MemoryRegion],
        callbacks: Callbacks,
        first: tuple[int, int] | None = None,
    ) -> None:
        """`first` are the addresses of functions of C that reads of devices' memory, and writes, reach first
        (emu/native/mmio.c)."""
        self._ov, self._callbacks, self._first = overlay, callbacks, first
        self._front: dict[int, Hole] = {}  # its data, by the first address
        self._regions: tuple[MemoryRegion, ...] = ()
        self._entries: tuple[_Entry, ...] = ()
        #: functions of C by the first address of the hole that they answer
        self._served: dict[int, tuple[int, int, int]] = {}
        #: host address, number and marks of the pages whose writes are noted
        self._marked = 0, 0, 0
        self._traces = 0
        #: (base, size, address in Unicorn's own numbering of RAM, by which it finds translations)
        self._ram: list[tuple[int, int, int]] = []
        self._places: list[tuple[int, int, int, int]] = []
        self._redirects: list[tuple[int, Any]] = []
        # Until the first block is freed Unicorn numbers a new one behind the smallest (find_ram_offset in its exec.c),
        # so that two may have the same numbers. From then on it looks for a gap.
        page = mmap.mmap(-1, PAGE)
        self.map_host(0, PAGE, ctypes.addressof(ctypes.c_uint8.from_buffer(page)), "a spare page")
        overlay.check(overlay.call.mem_unmap(overlay.uc, 0, PAGE), "unmap a spare page")
        self.remap(regions)

    def remap(
        self, regions: Sequence[MemoryRegion], drop: Callable[[list[tuple[int, int]]], None] | None = None
    ) -> bool:
        """Replace the map, not while Unicorn runs. `drop` is told the numbers of RAM that are taken out of it, as they
        are used again: translations made from them must go. False when that is not enough, and all must: memory hooks,
        which are looked for when a block is translated, have come or gone."""
        call, ov = self._ov.call, self._ov
        wanted = [
            _Entry(r.base, r.base + r.size, r.host_address, r.kind == "rom", r.name)
            for r in sorted(regions, key=lambda r: r.base)
        ]
        wanted += [_Entry(first, end, None, False, "I/O") for first, end in _holes(regions)]
        stays = set(wanted)
        gone = [entry for entry in self._entries if entry not in stays]
        if drop is not None:
            bases = {entry.base for entry in gone if entry.host is not None}
            drop([(number, number + size) for base, size, number in self._ram if base in bases])
        for entry in gone:
            ov.check(call.mem_unmap(ov.uc, entry.base, entry.end - entry.base), f"unmap {entry.name}")
        present = set(self._entries)
        for entry in wanted:
            if entry in present:
                continue
            if entry.host is None:
                self._map_hole(entry.base, entry.end - entry.base)
                continue
            self.map_host(entry.base, entry.end - entry.base, entry.host, entry.name)
            if entry.readonly:
                # The memory system then discards writes, which keeps translations and bytes as they are; Unicorn's
                # own protection would ask a hook and write all the same.
                call.set_readonly(call.find_region(ov.uc, entry.base), True)
        self._regions, self._entries = tuple(regions), tuple(wanted)
        hooked = bool(self._redirects)
        self._redirect()
        self._ram = [(r.base, r.size, call.ram_address(ov.uc, r.host_address)) for r in regions]
        numbers = sorted({(number, number + size) for _, size, number in self._ram})
        if any(one[1] > other[0] for one, other in pairwise(numbers)):
            raise EngineError(f"unicorn numbers two pieces of RAM alike: {numbers}")
        numbered = zip(regions, self._ram, strict=True)
        self._places = sorted((r.base, r.size, r.host_address, ram) for r, (_, _, ram) in numbered)
        return not hooked and not self._redirects

    def _redirect(self) -> None:
        """Hook the writes to regions that have them go elsewhere; Unicorn itself discards them."""
        for hook, _ in self._redirects:
            self._ov.call.hook_del(self._ov.uc, hook)
        self._redirects.clear()
        for region in self._regions:
            if region.written is not None:
                function = _WRITE(
                    partial(_store_elsewhere, region, region.host_address + region.written - region.offset)
                )
                first, last = region.base - LONGEST_ACCESS + 1, region.base + region.size - 1
                self._redirects.append((self._ov.add_hook(HOOK_WRITE, function, first, last), function))

    def _map_hole(self, base: int, size: int) -> None:
        call, uc = self._ov.call, self._ov.uc
        if (served := self._served.get(base)) is not None:
            read, write, data = served
            code = call.mmio_map(uc, base, size, read, data, write, data)
        elif self._first is None:
            code = call.mmio_map(uc, base, size, self._callbacks.mmio_read, base, self._callbacks.mmio_write, base)
        else:
            python = (ctypes.cast(f, c_void_p).value for f in (self._callbacks.mmio_read, self._callbacks.mmio_write))
            hole = self._front[base] = Hole(*python, base)
            (read, write), data = self._first, ctypes.addressof(hole)
            code = call.mmio_map(uc, base, size, read, data, write, data)
        self._ov.check(code, f"map I/O at {base:#x}")

    def serve(self, base: int, size: int, read: int, write: int, data: int) -> None:
        """Let functions of C answer the MMIO hole [base, base + size), which is one of ours, whenever no memory stands
        there; `data` is their user data. See uc_mmio_map."""
        if self._served.get(base) == (read, write, data):
            return
        self._served[base] = read, write, data
        if any(entry.host is None and (entry.base, entry.end) == (base, base + size) for entry in self._entries):
            self._ov.check(self._ov.call.mem_unmap(self._ov.uc, base, size), f"unmap I/O at {base:#x}")
            self._map_hole(base, size)

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

    def number(self, host: int) -> int | None:
        """Where in Unicorn's numbering of RAM the byte at this host address is; None where no region has it."""
        for region, (_, _, ram) in zip(self._regions, self._ram, strict=True):
            if region.host_address <= host < region.host_address + region.size:
                return ram + host - region.host_address
        return None

    def places(self) -> list[tuple[int, int, int, int]]:
        """(base, size, address in this process, number in Unicorn's RAM) of each region, that of low RAM, which holds
        most code, first."""
        return self._places

    @property
    def numbered(self) -> int:
        """The end of Unicorn's numbering of RAM, with room for what is mapped later."""
        return max((ram + size for _, size, ram in self._ram), default=0) + LATER

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
                host = region.host_address + address - region.base
                if region.written is not None:
                    ctypes.memmove(host + region.written - region.offset, data, len(data))
                if region.kind == "rom":
                    return []
                ctypes.memmove(host, data, len(data))
                self._mark(host, len(data))
                return self.ranges(address, len(data))
        return []

    @property
    def traces(self) -> int:
        """The address of the second marks; 0: there are none."""
        return self._traces

    def mark_writes(self, host: int, pages: int, marks: int) -> None:
        """Have `write` set the byte at `marks` of each of the `pages` pages from `host` that it stores to."""
        self._marked = host, pages, marks

    def trace_writes(self, marks: int) -> None:
        """Have `write` set a second byte, at `marks`."""
        self._traces = marks

    def _mark(self, host: int, length: int) -> None:
        first, pages, marks = self._marked
        for page in range((host - first) // PAGE, (host + length - 1 - first) // PAGE + 1):
            if 0 <= page < pages:
                ctypes.memset(marks + page, 1, 1)
                if self._traces:
                    ctypes.memset(self._traces + page, 1, 1)


def _holes(regions: Sequence[MemoryRegion]) -> Iterator[tuple[int, int]]:
    """The physical ranges [first, end) below PHYSICAL_END that no region covers, cut."""
    at = 0
    for region in sorted(regions, key=lambda r: r.base):
        yield from _cut(at, region.base)
        at = region.base + region.size
    if at > PHYSICAL_END:
        raise EngineError(f"a region ends at {at:#x}, past the {PHYSICAL_END:#x} bytes this CPU can address")
    yield from _cut(at, PHYSICAL_END)


def _cut(first: int, end: int) -> Iterator[tuple[int, int]]:
    while first < end:
        if first < CUTS[-1]:
            stop = min(cut for cut in CUTS if cut > first)
        elif first < 1 << 32:
            stop = first // CUT * CUT + CUT
        else:
            stop = end
        yield first, min(stop, end)
        first = stop


def code_reader(
    overlay: Overlay, memory: GuestMemory, read_linear: Callable[[int, int], bytes]
) -> Callable[[int, int], bytes]:
    """A reader of linear memory that is quick without paging."""
    env = overlay.env

    def read(linear: int, length: int) -> bytes:
        if env.a20_mask == -1 and not env.cr[0] & CR0_PG:
            for base, size, host, _ in memory.places():
                if base <= linear and linear + length <= base + size:
                    return ctypes.string_at(host + linear - base, length)
        return read_linear(linear, length)

    return read


def executed_reader(
    overlay: Overlay,
    seen: Callable[[int, int, int, Any], int],
    read_linear: Callable[[int, int], bytes],
) -> Callable[[int, int], bytes]:
    """A reader of code that is being executed, which the TLB leads to for the most part: `seen` (emu/native/paging.c)
    is asked first."""
    env, most = overlay.env_address, 16
    buffer = ctypes.create_string_buffer(most)

    def read(linear: int, length: int) -> bytes:
        if length <= most and seen(env, linear, length, buffer):
            return buffer.raw[:length]
        return read_linear(linear, length)

    return read
