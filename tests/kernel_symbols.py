"""What a debug package says of a 64-bit Linux kernel, from the kernel itself: names of functions, and ways out of them.

Names stand in its kallsyms, packed (Linux 6.1, scripts/kallsyms.c); the kernel's own unwinder goes by its ORC tables
(arch/x86/include/asm/orc_types.h), whose entries are here written as DWARF's call frame information.
"""

from __future__ import annotations

import bisect
import lzma
import re
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SECONDS = 240
#: ORC's numbers of registers, which the stack pointer of the caller is reckoned from, and DWARF's (System V ABI,
#: AMD64 supplement, figure 3.36).
ORC_UNDEFINED, ORC_PREV_SP = 0, 1
DWARF = {2: 1, 3: 5, 4: 6, 5: 7, 6: 10, 7: 13}  # DX, DI, BP, SP, R10, R13
RBP, RSP, RIP = 6, 7, 16
#: DW_CFA_* (DWARF 4, section 7.23).
ADVANCE4, OFFSET, UNDEFINED, SAME, DEF_CFA, OFFSET_SF = 0x04, 0x05, 0x07, 0x08, 0x0C, 0x11


@dataclass(frozen=True)
class Kernel:
    """An ELF image, uncompressed, with its sections by name: (address, bytes)."""

    elf: bytes
    sections: dict[str, tuple[int, bytes]]

    @classmethod
    def of(cls, bzimage: bytes) -> Kernel:
        """Of one that was compressed by xz (Linux Documentation/arch/x86/boot.rst, payload_offset)."""
        setup = ((bzimage[0x1F1] or 4) + 1) * 512
        offset, length = struct.unpack_from("<II", bzimage, 0x248)
        elf = lzma.LZMADecompressor().decompress(bzimage[setup + offset : setup + offset + length])
        table = struct.unpack_from("<Q", elf, 0x28)[0]
        size, count, names = struct.unpack_from("<HHH", elf, 0x3A)
        headers = [struct.unpack_from("<IIQQQQ", elf, table + size * n) for n in range(count)]
        base = headers[names][4]
        found = {}
        for name, kind, _, address, at, bytes_ in headers:
            text = elf[base + name : elf.index(b"\0", base + name)].decode("ascii")
            found[text] = address, b"" if kind == 8 else elf[at : at + bytes_]  # SHT_NOBITS
        return cls(elf, found)

    def functions(self) -> dict[str, int]:
        """Addresses by names: the first of those that share one."""
        found: dict[str, int] = {}
        for name, place in _Kallsyms(self.sections[".rodata"][1], self.sections[".text"][0]):
            if name[:1] in "tT":
                found.setdefault(name[1:], place)
        return found

    def orc(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """(address, register and offset of the caller's stack pointer, register and offset of its RBP, kind)."""
        address, places = self.sections[".orc_unwind_ip"]
        entries = self.sections[".orc_unwind"][1]
        for number, (place,) in enumerate(struct.iter_unpack("<i", places)):
            sp, bp, bits = struct.unpack_from("<hhH", entries, 6 * number)
            yield address + 4 * number + place, bits & 15, sp, bits >> 4 & 15, bp, bits >> 8 & 3


class _Kallsyms:
    """Iterates over (kind and name, address). `base` is what the kernel's offsets are from: where its text begins."""

    def __init__(self, data: bytes, base: int) -> None:
        self._data, self._base = data, base
        self._tokens = self._find_tokens()
        # The offsets, 32 bits each, their base, how many there are, and the names, each at a multiple of 8.
        at = data.index(struct.pack("<Q", base))
        self._count: int = struct.unpack_from("<I", data, at + 8)[0]
        self._names = at + 16
        self._offsets = at - -(-4 * self._count // 8) * 8

    def _find_tokens(self) -> list[str]:
        """256 of them, each ended by a zero byte, and behind them the table of where they begin. Digits stand for
        themselves."""
        data, digits = self._data, b"".join(b"%d\0" % digit for digit in range(10))
        for match in re.finditer(re.escape(digits), data):
            end = match.start()
            for _ in range(ord("0"), 256):
                end = data.index(b"\0", end) + 1
            places = struct.unpack_from("<256H", data, -(-end // 8) * 8)
            table = match.start() - places[ord("0")]
            if places[0] == 0 and table + places[255] == data.rindex(b"\0", 0, end - 1) + 1:
                return [data[table + at : data.index(b"\0", table + at)].decode("latin-1") for at in places]
        raise ValueError("this kernel has no kallsyms")

    def __iter__(self) -> Iterator[tuple[str, int]]:
        data, at = self._data, self._names
        for number in range(self._count):
            length = data[at]
            at += 1
            if length & 0x80:  # a second byte of the length
                length, at = length & 0x7F | data[at] << 7, at + 1
            name = "".join(self._tokens[token] for token in data[at : at + length])
            at += length
            (offset,) = struct.unpack_from("<i", data, self._offsets + 4 * number)
            yield name, offset if offset >= 0 else self._base - 1 - offset


def _leb(value: int, signed: bool = False) -> bytes:
    out = b""
    while True:
        byte, value = value & 0x7F, value >> 7
        if value == (-1 if signed and byte & 0x40 else 0) and not (signed and value == 0 and byte & 0x40):
            return out + bytes((byte,))
        out += bytes((byte | 0x80,))


def _rule(sp_register: int, sp: int, bp_register: int, bp: int, kind: int) -> bytes:
    """DWARF's words for an entry. Where the kernel's unwinder goes on through an interrupt's registers, this ends."""
    if kind or sp_register not in DWARF:
        return bytes((DEF_CFA, RSP, 8, UNDEFINED, RIP))
    rule = bytes((DEF_CFA, DWARF[sp_register])) + _leb(sp) + bytes((OFFSET, RIP, 1))
    if bp_register == ORC_PREV_SP:
        return rule + bytes((OFFSET_SF, RBP)) + _leb(bp // -8, signed=True)
    return rule + bytes((SAME if bp_register == ORC_UNDEFINED else UNDEFINED, RBP))


def frame_information(kernel: Kernel) -> bytes:
    """A section .debug_frame (DWARF 4, section 6.4.1)."""

    def unit(body: bytes) -> bytes:
        body += bytes(-(len(body) + 4) % 8)  # DW_CFA_nop
        return struct.pack("<I", len(body)) + body

    # version 1, no augmentation, offsets in units of 1 and -8, the return address is RIP
    out = unit(struct.pack("<I", 0xFFFFFFFF) + b"\1\0" + _leb(1) + _leb(-8, signed=True) + bytes((RIP,)))
    entries = list(kernel.orc())
    places = [entry[0] for entry in entries]
    for name in (".text", ".init.text"):
        start, data = kernel.sections[name]
        end = start + len(data)
        first = max(0, bisect.bisect_right(places, start) - 1)
        program, at = [], start
        for place, *what in entries[first : bisect.bisect_left(places, end)]:
            if place > at:
                program.append(struct.pack("<BI", ADVANCE4, place - at))
                at = place
            program.append(_rule(*what))
        out += unit(struct.pack("<IQQ", 0, start, end - start) + b"".join(program))
    return out


def write_symbols(bzimage: Path, folder: Path) -> tuple[Path, dict[str, int]]:
    """A file for gdb's `symbol-file`, and the functions in it."""
    kernel = Kernel.of(bzimage.read_bytes())
    whole, frames, words, out = (folder / name for name in ("vmlinux", "frames", "symbols", "vmlinux.debug"))
    whole.write_bytes(kernel.elf)
    frames.write_bytes(frame_information(kernel))
    functions = kernel.functions()
    lines = []
    for section in (".text", ".init.text"):
        start, data = kernel.sections[section]
        lines += [
            f"--add-symbol {name}={section}:{place - start:#x},global,function"
            for name, place in functions.items()
            if start <= place < start + len(data) and re.fullmatch(r"[\w.]+", name)
        ]
    words.write_text("\n".join(lines))
    command = ["objcopy", f"@{words}", "--only-keep-debug", "--add-section", f".debug_frame={frames}", whole, out]
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    whole.unlink()
    return out, functions
