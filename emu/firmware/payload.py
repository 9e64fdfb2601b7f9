"""What a machine without firmware starts in: bytes in memory and the CPU's state, as a boot loader leaves them."""

from __future__ import annotations

import struct

from emu import layout
from emu.record import dataclass
from emu.typed import TYPE_CHECKING
from emu.x86.state import CR0_PE, CpuState, Segment, Table

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 0x1000
#: Conventional RAM ends here for whom is told: the last KiB is where PCs keep their extended BIOS data area.
CONVENTIONAL_USABLE = 0x9FC00
CODE_SELECTOR = 0x10
DATA_SELECTOR = 0x18
#: Access rights of the flat segments: granularity, 32-bit, present, accessed (SDM vol. 3A, 3.4.5).
CODE_ACCESS = 0xC09B
DATA_ACCESS = 0xC093
#: Entries of the memory map (ACPI 6.4, table 15.4).
E820_RAM, E820_RESERVED = 1, 2
MAX_FILE = 1 << 30


class KernelError(Exception):
    """One sentence: which file cannot be started, and what to do."""


@dataclass(frozen=True, slots=True)
class Payload:
    """`pieces` are (physical address, bytes), all inside RAM; `state` is the CPU at the first instruction."""

    name: str
    pieces: tuple[tuple[int, bytes], ...]
    state: CpuState


def read_file(path: Path, what: str) -> bytes:
    """A whole regular file. Raises KernelError for one that is missing, empty, unreadable or over 1 GiB."""
    try:
        if path.is_dir():
            raise KernelError(f"{what} {path} is a directory: name a file")
        if path.exists() and not path.is_file():
            raise KernelError(f"{what} {path} is not a regular file: name one")
        size = path.stat().st_size
        if size == 0:
            raise KernelError(f"{what} {path} is empty: name another file")
        if size > MAX_FILE:
            raise KernelError(f"{what} {path} has {size} bytes, more than {MAX_FILE}: name another file")
        return path.read_bytes()
    except OSError as error:
        raise KernelError(f"{what} {path} cannot be read: {error.strerror}") from error


def memory_map(memory: int, kept: int = 0) -> list[tuple[int, int, int]]:
    """(base, length, type) of `memory` bytes of RAM and `kept` more behind it that are not the kernel's, in order of
    address, without the holes."""
    return [
        (0, CONVENTIONAL_USABLE, E820_RAM),
        (CONVENTIONAL_USABLE, layout.CONVENTIONAL_END - CONVENTIONAL_USABLE, E820_RESERVED),
        *([(layout.EXTENDED_BASE, memory - layout.EXTENDED_BASE, E820_RAM)] if memory > layout.EXTENDED_BASE else []),
        *([(memory, kept, E820_RESERVED)] if kept else []),
    ]


def flat_gdt() -> bytes:
    """A GDT with CODE_SELECTOR and DATA_SELECTOR flat, and null descriptors before them."""
    return struct.pack("<4Q", 0, 0, _flat(CODE_ACCESS), _flat(DATA_ACCESS))


def _flat(access: int) -> int:
    """A descriptor of base 0 and limit FFFFFh pages (SDM vol. 3A, figure 3-8)."""
    return 0xFFFF | (access & 0xFF) << 40 | 0xF << 48 | (access >> 12) << 52


def flat_state(entry: int, gdt: int, **registers: int) -> CpuState:
    """32-bit protected mode, flat, without paging, interrupts off; `registers` are eax, ebx, esi and so on."""
    order = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
    data = Segment(DATA_SELECTOR, 0, 0xFFFFFFFF, DATA_ACCESS)
    state = CpuState(rip=entry, cr0=0x10 | CR0_PE)  # ET, caches on
    state.regs = [registers.get(name, 0) for name in order] + [0] * 8
    state.cs = Segment(CODE_SELECTOR, 0, 0xFFFFFFFF, CODE_ACCESS)
    for name in ("es", "ss", "ds", "fs", "gs"):
        setattr(state, name, Segment(data.selector, data.base, data.limit, data.access))
    state.gdtr = Table(gdt, len(flat_gdt()) - 1)
    state.idtr = Table(0, 0)
    return state
