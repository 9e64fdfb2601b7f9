"""The 256 words of IDENTIFY DEVICE (ATA-6, T13 1410D, 8.15, table 27)."""

from __future__ import annotations

import zlib

from emu.devices.ide_drive import MAX_LBA28, MAX_MULTIPLE, Drive

MODEL = "V2E ATA DISK"
FIRMWARE = "1.0"


def identify_data(drive: Drive) -> bytes:
    """512 bytes, words little-endian, with the integrity word."""
    s, disk, native = drive.state, drive.disk, drive.geometry
    words = [0] * 256
    words[0] = 0x0040  # ATA device, not removable
    words[1], words[3], words[6] = min(native.cylinders, 16383), native.heads, native.sectors
    # the same image has the same serial number in every run
    _put_text(words, 10, 10, f"V2E{zlib.crc32(disk.read(0, 1)):08X}{drive.index}")
    _put_text(words, 23, 4, FIRMWARE)
    _put_text(words, 27, 20, MODEL)
    words[47] = 0x8000 | MAX_MULTIPLE
    words[49] = 0x2E00  # standby timer as specified, IORDY supported and may be disabled, LBA
    if drive.dma is not None:
        words[49] |= 0x0100
    words[50] = 0x4000
    words[51] = 0x0200  # PIO mode 2
    words[53] = 0x0003  # words 54-58 and 64-70 are valid
    current = drive.cylinders * s.heads * s.sectors
    words[54:59] = [drive.cylinders, s.heads, s.sectors, current & 0xFFFF, current >> 16]
    words[59] = 0x0100 | s.multiple if s.multiple else 0
    lba28 = min(disk.sectors, MAX_LBA28)
    words[60], words[61] = lba28 & 0xFFFF, lba28 >> 16
    if drive.dma is not None:
        words[53] |= 0x0004  # word 88 is valid
        words[63] = 0x0007 | (0x100 << (s.dma_mode & 7) if s.dma_mode & 0x20 else 0)  # multiword DMA modes 0-2
        words[65] = words[66] = 120  # shortest and recommended multiword DMA cycle, ns
        words[88] = 0x0007 | (0x100 << (s.dma_mode & 7) if s.dma_mode & 0x40 else 0)  # Ultra DMA modes 0-2
    words[64] = 0x0003  # PIO modes 3 and 4
    words[67] = words[68] = 120  # shortest PIO cycle without and with IORDY, ns
    words[80] = 0x007E  # ATA-1 to ATA-6
    words[82] = 0x7068  # NOP, READ and WRITE BUFFER, look-ahead, write cache, power management
    words[83] = 0x7400  # FLUSH CACHE EXT, FLUSH CACHE, 48-bit addresses
    words[84] = 0x4000
    words[85] = 0x7008 | (0x40 if s.look_ahead else 0) | (0x20 if s.write_cache else 0)
    words[86] = 0x3400
    words[87] = 0x4000
    words[93] = 0x6001 if drive.index == 0 else 0x6100  # hardware reset result: 80-conductor cable, passed
    for i in range(4):
        words[100 + i] = disk.sectors >> 16 * i & 0xFFFF
    data = bytearray(b"".join(word.to_bytes(2, "little") for word in words))
    data[510] = 0xA5
    data[511] = -sum(data[:511]) & 0xFF
    return bytes(data)


def _put_text(words: list[int], first: int, count: int, text: str) -> None:
    """ASCII, padded with blanks, the first character of each pair in the high byte."""
    padded = text.ljust(2 * count)[: 2 * count]
    for i in range(count):
        words[first + i] = ord(padded[2 * i]) << 8 | ord(padded[2 * i + 1])
