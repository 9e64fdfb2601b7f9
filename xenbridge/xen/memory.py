"""A domain's physical memory, mapped from dom0: read and written without the guest's knowledge."""

from __future__ import annotations

import ctypes
import mmap
from types import TracebackType
from typing import Final

from emu.subject import MemoryUnavailable
from xenbridge.xen.libraries import Libraries, XenError

PAGE: Final = 0x1000
READ, WRITE = mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE
#: Pages mapped at one time: a dump of the whole memory must not need a list of all of them.
AT_ONCE: Final = 256


class Pages:
    """Frames of a domain as a view of bytes; a context manager that unmaps them. `absent` is the index of the first
    frame behind which there is no memory, `count` where there is none such. Raises XenError, as for a domain that is
    gone."""

    def __init__(self, libraries: Libraries, domid: int, frames: list[int], protection: int) -> None:
        self._libraries, self._count = libraries, len(frames)
        self.address, errors = libraries.map_pages(domid, frames, protection)
        self.absent = next((index for index, error in enumerate(errors) if error), len(frames))
        self.view = memoryview((ctypes.c_ubyte * (self._count * PAGE)).from_address(self.address)).cast("B")

    def close(self) -> None:
        if self._count:
            self.view.release()
            self._libraries.unmap_pages(self.address, self._count)
            self._count = 0

    def __enter__(self) -> Pages:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class DomainMemory:
    """RAM and ROM of one domain by physical address. A page of a device, or of nothing, is no memory."""

    def __init__(self, libraries: Libraries, domid: int) -> None:
        self._libraries, self._domid = libraries, domid

    def _pages(self, address: int, length: int, protection: int) -> Pages:
        first, last = address // PAGE, (address + length - 1) // PAGE
        return Pages(self._libraries, self._domid, list(range(first, last + 1)), protection)

    def readable(self, address: int, length: int) -> int:
        """How many of `length` bytes are memory, from the first on."""
        done = 0
        while done < length:
            piece = min(length - done, AT_ONCE * PAGE - (address + done) % PAGE)
            with self._pages(address + done, piece, READ) as pages:
                have = max(pages.absent * PAGE - (address + done) % PAGE, 0)
            if have < piece:
                return done + have
            done += piece
        return done

    def read(self, address: int, length: int) -> bytes:
        """Raises MemoryUnavailable at the first byte that is no memory."""
        out = bytearray()
        while len(out) < length:
            start = address + len(out)
            piece, skip = min(length - len(out), AT_ONCE * PAGE - start % PAGE), start % PAGE
            with self._pages(start, piece, READ) as pages:
                have = pages.absent * PAGE - skip
                if have < piece:
                    raise MemoryUnavailable(start + max(have, 0), "the domain has no memory there")
                out += pages.view[skip : skip + piece]
        return bytes(out)

    def write(self, address: int, data: bytes) -> None:
        """Raises MemoryUnavailable, with nothing written."""
        if not data:
            return
        have = self.readable(address, len(data))
        if have < len(data):
            raise MemoryUnavailable(address + have, "the domain has no memory there")
        done = 0
        while done < len(data):
            start = address + done
            piece, skip = min(len(data) - done, AT_ONCE * PAGE - start % PAGE), start % PAGE
            with self._pages(start, piece, WRITE) as pages:
                if pages.absent * PAGE - skip < piece:
                    raise MemoryUnavailable(start, "the domain's memory cannot be written")
                pages.view[skip : skip + piece] = data[done : done + piece]
            done += piece

    def clear(self, frames: list[int]) -> None:
        """Write zeros to whole pages, by frame number. Raises MemoryUnavailable at the first that is no memory."""
        for start in range(0, len(frames), AT_ONCE):
            some = frames[start : start + AT_ONCE]
            with Pages(self._libraries, self._domid, some, WRITE) as pages:
                if pages.absent < len(some):
                    raise MemoryUnavailable(some[pages.absent] * PAGE, "the domain's memory cannot be written")
                ctypes.memset(pages.address, 0, len(some) * PAGE)


__all__ = ["AT_ONCE", "PAGE", "READ", "WRITE", "DomainMemory", "Pages", "XenError"]
