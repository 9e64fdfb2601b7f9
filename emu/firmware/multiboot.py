"""Starting a multiboot image: ELF files and those with load addresses in their header ("a.out kludge").

Offsets, names and rules are those of the Multiboot Specification 0.6.96, sections 3.1 (header), 3.2 (machine state) and
3.3 (boot information).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from emu.firmware.kernelrom import FIRMWARE_KEPT, AfterPost, enter_multiboot
from emu.firmware.payload import PAGE, KernelError, Payload, flat_gdt, flat_state, memory_map

MAGIC, MAGIC_FOR_KERNEL = 0x1BADB002, 0x2BADB002
SEARCHED = 8192  #: the header lies within so many bytes, at a multiple of 4
FLAG_PAGE_ALIGN, FLAG_MEMORY, FLAG_VIDEO, FLAG_ADDRESSES = 1 << 0, 1 << 1, 1 << 2, 1 << 16
#: Of flags 0 to 15 those that a loader must understand and that we do; the video mode is a wish that may be unheard.
KNOWN = FLAG_PAGE_ALIGN | FLAG_MEMORY | FLAG_VIDEO
INFO_MEMORY, INFO_CMDLINE, INFO_MODULES, INFO_MMAP, INFO_LOADER = 1 << 0, 1 << 2, 1 << 3, 1 << 6, 1 << 9
INFO_SIZE = 88
ELF_MAGIC, PT_LOAD, ELFCLASS32, EM_386 = b"\x7fELF", 1, 1, 3
LOADER_NAME = b"v2e\0"
#: The boot information: a page at 90000h, where its strings and lists follow it, and the GDT in the page before.
INFO, GDT = 0x90000, 0x8F000
INFO_END = 0x9FC00
#: The same behind a firmware, which may keep more at the end of conventional memory; and how much room its map has.
INFO_AFTER_POST, MAP_ROOM = 0x20000, 128 * 24
HIGH = 0x100000


def find_header(image: bytes) -> int | None:
    """The offset of a header with a right checksum, else None."""
    for at in range(0, min(len(image), SEARCHED) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", image, at)
        if magic == MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
            return at
    return None


def load(
    name: str, image: bytes, modules: Sequence[tuple[str, bytes]], append: str, memory: int, kept: int = 0
) -> Payload:
    """What a boot loader does for a multiboot image; `modules` are (string, bytes).

    Raises KernelError when `image` is none, is truncated, asks for what there is not, or does not fit."""
    pieces, entry, placed = _place(name, image, modules, append, memory, GDT)
    ranges = b"".join(struct.pack("<IQQI", 20, *part) for part in memory_map(memory, kept))
    information, _ = _information(name, placed, append, INFO, ranges)
    # lower memory is what conventional RAM has, upper what follows 1 MiB up to the first hole, both in KiB
    struct.pack_into("<II", information, 4, memory_map(memory)[0][1] >> 10, (memory - HIGH) >> 10)
    pieces += [(GDT, flat_gdt()), (INFO, bytes(information))]
    state = flat_state(entry, GDT, eax=MAGIC_FOR_KERNEL, ebx=INFO, esp=GDT)
    return Payload(f"multiboot {name}", tuple(pieces), state)


def load_after_post(
    name: str, image: bytes, modules: Sequence[tuple[str, bytes]], append: str, memory: int
) -> AfterPost:
    """The same behind a firmware, which knows what memory there is.

    Raises KernelError as `load`, and for an image that is not all above 1 MiB, as the firmware is below."""
    pieces, entry, placed = _place(name, image, modules, append, memory - FIRMWARE_KEPT, 0)
    information, where = _information(name, placed, append, INFO_AFTER_POST, bytes(MAP_ROOM))
    pieces += [(INFO_AFTER_POST - PAGE, flat_gdt()), (INFO_AFTER_POST, bytes(information))]
    return AfterPost(f"multiboot {name}", tuple(pieces), enter_multiboot(entry, INFO_AFTER_POST, where, MAP_ROOM))


_Pieces = list[tuple[int, bytes]]
_Modules = list[tuple[int, int, str]]  # first address, address behind, string


def _place(
    name: str, image: bytes, modules: Sequence[tuple[str, bytes]], append: str, memory: int, low_end: int
) -> tuple[_Pieces, int, _Modules]:
    """Image and modules in memory, the entry, and where the modules are. Below 1 MiB there is room up to `low_end`."""
    at = find_header(image)
    if at is None:
        raise KernelError(f"kernel {name} has no multiboot header in its first {SEARCHED} bytes: name another file")
    flags = struct.unpack_from("<I", image, at + 4)[0]
    if unknown := flags & 0xFFFF & ~KNOWN:
        raise KernelError(
            f"kernel {name} requires multiboot features {unknown:#x}: page alignment, memory and video "
            "mode are all there is"
        )
    if not append.isascii() or "\0" in append:
        raise KernelError(f"--append {append!r} holds what is not ASCII: a kernel's command line is ASCII")
    pieces, entry = _kludge(name, image, at) if flags & FLAG_ADDRESSES else _elf(name, image)
    for address, data in pieces:
        if not ((address >= HIGH and address + len(data) <= memory) or address + len(data) <= low_end):
            raise KernelError(
                f"kernel {name} has a part at {address:#x} to {address + len(data):#x}, which is not free RAM: "
                f"{-(-memory >> 20)} MiB are there, so give more --memory, or link it at {HIGH:#x}"
            )
    end = max(address + len(data) for address, data in pieces)
    where = max(HIGH, end + PAGE - 1 & -PAGE)
    placed = []
    for string, data in modules:
        if where + len(data) > memory:
            raise KernelError(
                f"the module {string} has {len(data)} bytes and {max(0, memory - where)} are free behind "
                f"kernel {name}: give --memory {-(-(where + len(data)) >> 20)}M or more"
            )
        pieces.append((where, data))
        placed.append((where, where + len(data), string))
        where = where + len(data) + PAGE - 1 & -PAGE
    return pieces, entry, placed


def _kludge(name: str, image: bytes, at: int) -> tuple[list[tuple[int, bytes]], int]:
    """By the header's own addresses (3.1.3)."""
    header, start, load_end, bss_end, entry = struct.unpack_from("<5I", image.ljust(at + 32, b"\0"), at + 12)
    first = at - (header - start)
    length = load_end - start if load_end else len(image) - first
    if first < 0 or start > header or length <= 0:
        raise KernelError(f"kernel {name} has senseless load addresses {start:#x} to {load_end:#x} in its header")
    if first + length > len(image):
        raise KernelError(
            f"kernel {name} is truncated: it has {len(image)} bytes and its header asks for {first + length}"
        )
    size = max(length, bss_end - start if bss_end else 0)
    _check_size(name, size)
    return [(start, image[first : first + length].ljust(size, b"\0"))], entry


def _elf(name: str, image: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """By the program headers of a 32-bit ELF file (Tool Interface Standard ELF 1.2, book I, 2)."""
    if image[:4] != ELF_MAGIC:
        raise KernelError(f"kernel {name} has a multiboot header without addresses, and is no ELF file")
    kind, machine = image[4], int.from_bytes(image[18:20], "little")
    if kind != ELFCLASS32 or machine != EM_386 or len(image) < 52:
        raise KernelError(f"kernel {name} is an ELF file of class {kind} for machine {machine}: 32-bit x86 is needed")
    entry, table = struct.unpack_from("<II", image, 24)
    entry_size, count = struct.unpack_from("<HH", image, 42)
    if table + entry_size * count > len(image) or entry_size < 32:
        raise KernelError(f"kernel {name} is truncated: its program headers end at {table + entry_size * count:#x}")
    pieces = []
    for number in range(count):
        fields = struct.unpack_from("<6I", image, table + number * entry_size)
        kind, offset, linear, physical, size, in_memory = fields
        if kind != PT_LOAD or not in_memory:
            continue
        if offset + size > len(image):
            raise KernelError(
                f"kernel {name} is truncated: it has {len(image)} bytes and a segment ends at {offset + size}"
            )
        _check_size(name, in_memory)
        if linear <= entry < linear + in_memory and linear != physical:
            entry += physical - linear
            linear = physical
        pieces.append((physical, image[offset : offset + size].ljust(in_memory, b"\0")))
    if not pieces:
        raise KernelError(f"kernel {name} is an ELF file with nothing to load")
    return pieces, entry


def _check_size(name: str, size: int) -> None:
    if size > 3 << 30:
        raise KernelError(f"kernel {name} asks for {size} bytes of memory in one piece: 3G is the most a machine has")


def _information(name: str, modules: _Modules, append: str, base: int, ranges: bytes) -> tuple[bytearray, int]:
    """The boot information at `base` with all it points to (3.3), lower and upper memory left 0, and the address of the
    map of memory in it, which is `ranges`."""
    tail = bytearray()

    def put(data: bytes) -> int:
        tail.extend(bytes(-len(tail) % 4))
        tail.extend(data)
        return base + INFO_SIZE + len(tail) - len(data)

    line = put(f"{name} {append}".rstrip().encode("ascii", "replace") + b"\0")
    strings = [put(string.encode("ascii", "replace") + b"\0") for _, _, string in modules]
    listed = put(b"".join(struct.pack("<4I", a, b, s, 0) for (a, b, _), s in zip(modules, strings, strict=True)))
    where, loader = put(ranges), put(LOADER_NAME)
    info = bytearray(INFO_SIZE)
    flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MMAP | INFO_LOADER
    struct.pack_into("<I", info, 0, flags)
    struct.pack_into("<III", info, 16, line, len(modules), listed)
    struct.pack_into("<II", info, 44, len(ranges), where)
    struct.pack_into("<I", info, 64, loader)
    if INFO_SIZE + len(tail) > INFO_END - INFO:
        raise KernelError(f"--append and the modules' names take {len(tail)} bytes, too many: shorten them")
    return info + tail, where
