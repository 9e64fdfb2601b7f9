"""A machine's memory as a domain's: frames of the domain, mapped in the place of this process's own pages."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Sequence
from typing import Final

from emu.engine import MemoryRegion
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import XenError
from xenbridge.xen.memory import AT_ONCE, PAGE, WRITE

#: HVMMEM_ram_ro of xen/include/public/hvm/hvm_op.h: writes of the guest are dropped.
_READ_ONLY: Final = 1
_FIXED: Final = 0x10  #: MAP_FIXED (Linux, asm-generic/mman-common.h)


def _pieces(region: MemoryRegion) -> Iterator[tuple[int, list[int]]]:
    """(host address, frames) of parts of a region that are mapped at one time."""
    first, end = region.base // PAGE, (region.base + region.size) // PAGE
    for start in range(first, end, AT_ONCE):
        yield region.host_address + (start - first) * PAGE, list(range(start, min(start + AT_ONCE, end)))


class GuestMemory:
    """Gives the domain memory at the regions' addresses, with what they hold, and maps it over them: from then on the
    guest and this process share it. Raises XenError, with all as it was."""

    def __init__(self, domain: Domain, regions: Sequence[MemoryRegion]) -> None:
        self._domain = domain
        #: by host address the bytes there, and what they held where they may not be mapped, and so not be read
        self._mapped: dict[int, tuple[int, bytes | None]] = {}
        try:
            for region in regions:
                for host, frames in _pieces(region):
                    self._share(host, frames)
                if region.kind == "rom":
                    domain.libraries.device_model["set_mem_type"](
                        domain.domid, _READ_ONLY, region.base // PAGE, region.size // PAGE
                    )
        except XenError:
            self.close()
            raise

    def _share(self, host: int, frames: list[int]) -> None:
        size = len(frames) * PAGE
        held = ctypes.string_at(host, size)
        self._domain.populate(frames)
        self._mapped[host] = size, held
        errors = self._domain.libraries.map_over(self._domain.domid, frames, WRITE, host, _FIXED)
        if any(errors):
            raise XenError(f"memory of domain {self._domain.domid} at {frames[0] * PAGE:#x} cannot be mapped")
        self._mapped[host] = size, None
        ctypes.memmove(host, held, size)

    def close(self) -> None:
        """Give this process pages of its own again, with what the guest has left in them."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
        )  # fmt: skip
        own = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _FIXED
        for host, (size, before) in self._mapped.items():
            held = ctypes.string_at(host, size) if before is None else before
            libc.mmap(host, size, WRITE, own, -1, 0)
            ctypes.memmove(host, held, size)
        self._mapped.clear()
