"""Starting a Linux bzImage by the 32-bit and the 16-bit boot protocol: setup header, zero page, command line, initrd.

Offsets, names and rules are those of the kernel's Documentation/arch/x86/boot.rst ("The Real-Mode Kernel Header",
"32-bit Boot Protocol", "Memory Layout", "Running the Kernel") and zero-page.rst.
"""

from __future__ import annotations

import struct

from emu.firmware.payload import (
    CONVENTIONAL_USABLE,
    PAGE,
    KernelError,
    Payload,
    flat_gdt,
    flat_state,
    memory_map,
)
from emu.record import dataclass

# Offsets in the file, and, from SETUP_SECTS on, in the zero page too.
EXT_MEM_K, ALT_MEM_K, E820_ENTRIES = 0x002, 0x1E0, 0x1E8
SETUP_SECTS, BOOT_FLAG, JUMP, MAGIC, VERSION = 0x1F1, 0x1FE, 0x200, 0x202, 0x206
KERNEL_VERSION, LOADER_TYPE, LOADFLAGS, CODE32_START = 0x20E, 0x210, 0x211, 0x214
RAMDISK_IMAGE, RAMDISK_SIZE, CMD_LINE_PTR, INITRD_ADDR_MAX = 0x218, 0x21C, 0x228, 0x22C
RELOCATABLE, XLOADFLAGS, CMDLINE_SIZE, PREF_ADDRESS, INIT_SIZE = 0x234, 0x236, 0x238, 0x258, 0x260
E820_TABLE = 0x2D0
BOOT_SIGNATURE = 0xAA55
HEADER_MAGIC = b"HdrS"
LOADED_HIGH = 1  #: LOADFLAGS: the protected-mode part belongs at 100000h
LOADER_UNDEFINED = 0xFF  #: LOADER_TYPE of a loader without a number of its own
#: The least that has a 32-bit command line pointer.
OLDEST = 0x0202
SECTOR = 512
DEFAULT_SETUP_SECTS = 4  #: what a 0 stands for
DEFAULT_CMDLINE, DEFAULT_INITRD_MAX = 255, 0x37FFFFFF  #: before versions 2.06 and 2.03
#: Where we put things, all below CONVENTIONAL_USABLE and above what the first page and a small stack may use.
ZERO_PAGE, GDT, CMD_LINE = 0x90000, 0x91000, 0x92000
CMD_LINE_MAX = CONVENTIONAL_USABLE - CMD_LINE - 1
HIGH = 0x100000


@dataclass(frozen=True, slots=True)
class Header:
    """The setup header's fields that a loader acts on. Addresses are physical, sizes in bytes."""

    version: int  #: 0x020F is 2.15
    setup: int  #: bytes of boot sector and setup code, before the protected-mode part
    end: int  #: offset at which the header ends
    release: str  #: the kernel's own words, or empty
    entry: int
    initrd_max: int  #: highest address an initrd may occupy
    cmdline_max: int  #: characters, without the NUL
    pref_address: int
    init_size: int  #: from `pref_address`, what the kernel needs before it knows the memory map; 0: it does not say


def is_linux(image: bytes) -> bool:
    """True for a file with the boot flag and the setup header's signature."""
    return image[BOOT_FLAG : BOOT_FLAG + 2] == b"\x55\xaa" and image[MAGIC : MAGIC + 4] == HEADER_MAGIC


def parse(name: str, image: bytes) -> Header:
    """The header of a bzImage. Raises KernelError for a file that is none, too old, or truncated."""
    if not is_linux(image) or len(image) < INIT_SIZE + 4:
        raise KernelError(f"kernel {name} has no Linux setup header at {BOOT_FLAG:#x}: name a bzImage")
    version = _word(image, VERSION)
    shown = f"{version >> 8}.{version & 0xFF:02}"
    if version < OLDEST:
        raise KernelError(f"kernel {name} speaks boot protocol {shown}, and 2.02 is the oldest that can be started")
    if not image[LOADFLAGS] & LOADED_HIGH:
        raise KernelError(f"kernel {name} is a zImage for 10000h (loadflags {image[LOADFLAGS]:#x}): build a bzImage")
    setup = ((image[SETUP_SECTS] or DEFAULT_SETUP_SECTS) + 1) * SECTOR
    declared = _long(image, 0x1F4) * 16 if version >= 0x0204 else 0
    if len(image) <= setup or len(image) - setup < declared:
        raise KernelError(
            f"kernel {name} is truncated: it has {len(image)} bytes and its header asks for {setup + declared}"
        )
    return Header(
        version,
        setup,
        JUMP + 2 + image[JUMP + 1],
        _release(image, setup),
        _long(image, CODE32_START),
        _long(image, INITRD_ADDR_MAX) if version >= 0x0203 else DEFAULT_INITRD_MAX,
        _long(image, CMDLINE_SIZE) if version >= 0x0206 else DEFAULT_CMDLINE,
        struct.unpack_from("<Q", image, PREF_ADDRESS)[0] if version >= 0x020A else HIGH,
        _long(image, INIT_SIZE) if version >= 0x020A else 0,
    )


def check_cmdline(name: str, header: Header, append: str) -> bytes:
    """The command line with its NUL. Raises KernelError when it is too long or not ASCII."""
    if not append.isascii() or "\0" in append:
        raise KernelError(f"--append {append!r} holds what is not ASCII: a kernel's command line is ASCII")
    most = min(header.cmdline_max, CMD_LINE_MAX)
    if len(append) > most:
        raise KernelError(f"--append has {len(append)} characters and kernel {name} takes {most}: shorten it")
    return append.encode() + b"\0"


def end_of(header: Header, code: bytes) -> int:
    """The address behind what the kernel uses before it knows the memory map. Beyond its file that is what its header
    asks for: decompression in place, BSS and early page tables."""
    return max(HIGH + len(code), header.pref_address + header.init_size if header.init_size else 0)


def load(name: str, image: bytes, initrd: bytes, append: str, memory: int, kept: int = 0) -> Payload:
    """What a boot loader does for a bzImage on a PC with `memory` bytes of RAM; `initrd` may be empty. For `kept` see
    `memory_map`.

    Raises KernelError when `image` is no bzImage, or kernel, initrd or command line do not fit.
    """
    header = parse(name, image)
    line = check_cmdline(name, header, append)
    code = image[header.setup :]
    end = end_of(header, code)
    if end > memory:
        raise KernelError(
            f"kernel {name} needs memory up to {end:#x}, and there are {memory >> 20} MiB: "
            f"give --memory {-(-end >> 20)}M or more"
        )
    pieces = [(HIGH, code), (GDT, flat_gdt()), (CMD_LINE, line)]
    where = 0
    if initrd:
        where = place_initrd(name, header, end, len(initrd), memory)
        pieces.append((where, initrd))
    pieces.append((ZERO_PAGE, _zero_page(image, header, where, len(initrd), memory_map(memory, kept))))
    # boot.rst: ESI the zero page; EBP, EDI and EBX zero; interrupts off; CS 10h and DS, ES, SS 18h flat.
    state = flat_state(header.entry, GDT, esi=ZERO_PAGE, esp=ZERO_PAGE)
    return Payload(f"Linux {header.release}".rstrip(), tuple(pieces), state)


def place_initrd(name: str, header: Header, end: int, size: int, memory: int) -> int:
    """Where `size` bytes go: as high as possible, as boot.rst recommends. Raises KernelError when they do not fit
    behind `end`."""
    top = min(memory, header.initrd_max + 1)
    where = (top - size) & -PAGE
    if where < end:
        need = -(-(end + PAGE + size) >> 20)
        what = (
            f"give --memory {need}M or more"
            if need << 20 <= header.initrd_max + 1
            else f"the kernel takes it below {header.initrd_max + 1:#x} only: make it smaller"
        )
        raise KernelError(
            f"the initrd has {size} bytes, and {max(0, top - end)} are free behind kernel {name} "
            f"in {memory >> 20} MiB: {what}"
        )
    return where


def _zero_page(
    image: bytes, header: Header, initrd: int, initrd_size: int, ranges: list[tuple[int, int, int]]
) -> bytes:
    page = bytearray(PAGE)
    page[SETUP_SECTS : header.end] = image[SETUP_SECTS : header.end]
    page[LOADER_TYPE] = LOADER_UNDEFINED
    extended = next((length for base, length, _ in ranges if base == HIGH), 0) >> 10
    struct.pack_into("<H", page, EXT_MEM_K, min(extended, 0xFFFF))
    struct.pack_into("<I", page, ALT_MEM_K, extended)
    struct.pack_into("<I", page, CMD_LINE_PTR, CMD_LINE)
    struct.pack_into("<II", page, RAMDISK_IMAGE, initrd, initrd_size)
    page[E820_ENTRIES] = len(ranges)
    for number, (base, length, kind) in enumerate(ranges):
        struct.pack_into("<QQI", page, E820_TABLE + 20 * number, base, length, kind)
    return bytes(page)


def _release(image: bytes, setup: int) -> str:
    pointer = _word(image, KERNEL_VERSION)
    at = JUMP + pointer
    if not pointer or at >= setup:
        return ""
    text = image[at : at + 256].split(b"\0")[0].split(b" ")[0]
    return text.decode("latin-1") if text.isascii() else ""


def _word(image: bytes, at: int) -> int:
    return int.from_bytes(image[at : at + 2], "little")


def _long(image: bytes, at: int) -> int:
    return int.from_bytes(image[at : at + 4], "little")
