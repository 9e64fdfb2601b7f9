"""Linux kernel images for tests: a setup header around code that is not Linux."""

from __future__ import annotations

import struct


def bzimage(
    *, version: int = 0x020F, setup_sects: int = 4, code: bytes = bytes(4096), loadflags: int = 1, init_size: int = 0
) -> bytes:
    """A kernel by the table "The Real-Mode Kernel Header" of boot.rst."""
    image = bytearray((setup_sects + 1) * 512)
    image[0x1F1] = setup_sects
    struct.pack_into("<I", image, 0x1F4, len(code) // 16)
    image[0x1FE:0x206] = b"\x55\xaa\xeb\x6aHdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<H", image, 0x20E, 0x300)
    image[0x500:0x510] = b"6.1.0-test (me)\0"
    image[0x211] = loadflags
    struct.pack_into("<I", image, 0x214, 0x100000)
    struct.pack_into("<I", image, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<I", image, 0x238, 2047)
    struct.pack_into("<QI", image, 0x258, 0x1000000, init_size)
    return bytes(image) + code
