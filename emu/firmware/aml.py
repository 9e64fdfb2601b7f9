"""A small assembler of ACPI Machine Language: each function returns the bytes of one term.

Source: ACPI 1.0b chapter 16 ("AML grammar"), 6.4 (resource descriptors: small and large items).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence


def name_string(path: str) -> bytes:
    r"""`\_SB.PCI0`, `_HID`: segments are padded with underscores to four characters (16.2.2)."""
    root = b"\\" if path.startswith("\\") else b""
    parts = [part.ljust(4, "_").encode("ascii") for part in path.lstrip("\\").split(".") if part]
    if any(len(part) != 4 for part in parts):
        raise ValueError(f"{path}: a name segment has at most 4 characters")
    if not parts:
        return root + b"\0"
    prefix = b"" if len(parts) == 1 else b"\x2e" if len(parts) == 2 else b"\x2f" + bytes((len(parts),))
    return root + prefix + b"".join(parts)


def package_length(body: bytes) -> bytes:
    """PkgLength and the body; the length counts its own bytes (16.2.4)."""
    if len(body) + 1 < 64:
        return bytes((len(body) + 1,)) + body
    for extra in (1, 2, 3):
        total = len(body) + 1 + extra
        if total < 1 << 4 + 8 * extra:
            lead = extra << 6 | total & 15
            return bytes((lead,)) + (total >> 4).to_bytes(extra, "little") + body
    raise ValueError(f"a package of {len(body)} bytes is too long")


def integer(value: int) -> bytes:
    """The shortest constant."""
    if value in (0, 1):
        return bytes((value,))
    for prefix, size in ((0x0A, 1), (0x0B, 2), (0x0C, 4)):
        if value < 1 << 8 * size:
            return bytes((prefix,)) + value.to_bytes(size, "little")
    raise ValueError(f"{value:#x} is more than 32 bits")


def eisa_id(text: str) -> bytes:
    """`PNP0A03` as the compressed 32-bit ID (ASL's EISAID)."""
    letters = [ord(letter) - 0x40 for letter in text[:3]]
    packed = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(text[3:], 16)
    return b"\x0c" + packed.to_bytes(4, "big")


def name(path: str, value: bytes) -> bytes:
    """Name (PATH, VALUE)."""
    return b"\x08" + name_string(path) + value


def scope(path: str, *terms: bytes) -> bytes:
    """Scope (PATH) of terms."""
    return b"\x10" + package_length(name_string(path) + b"".join(terms))


def device(path: str, *terms: bytes) -> bytes:
    """Device (PATH) of terms."""
    return b"\x5b\x82" + package_length(name_string(path) + b"".join(terms))


def method(path: str, arguments: int, *terms: bytes) -> bytes:
    """Method (PATH, ARGUMENTS), not serialized."""
    return b"\x14" + package_length(name_string(path) + bytes((arguments,)) + b"".join(terms))


def package(*elements: bytes) -> bytes:
    """Package of elements."""
    return b"\x12" + package_length(bytes((len(elements),)) + b"".join(elements))


def buffer(data: bytes) -> bytes:
    """Buffer of just these bytes."""
    return b"\x11" + package_length(integer(len(data)) + data)


def returns(value: bytes) -> bytes:
    """Return (VALUE)."""
    return b"\xa4" + value


def store(source: bytes, target: bytes) -> bytes:
    """Store (SOURCE, TARGET)."""
    return b"\x70" + source + target


def bit_or(one: bytes, other: bytes, target: bytes) -> bytes:
    """Or (ONE, OTHER, TARGET)."""
    return b"\x7d" + one + other + target


def bit_and(one: bytes, other: bytes, target: bytes) -> bytes:
    """And (ONE, OTHER, TARGET)."""
    return b"\x7b" + one + other + target


def if_(condition: bytes, *terms: bytes) -> bytes:
    """If (CONDITION) of terms."""
    return b"\xa0" + package_length(condition + b"".join(terms))


def create_dword_field(source: bytes, index: int, path: str) -> bytes:
    """CreateDWordField (SOURCE, INDEX, PATH); the index is in bytes."""
    return b"\x8a" + source + integer(index) + name_string(path)


ARG0, LOCAL0, NOWHERE = b"\x68", b"\x60", b"\0"


def pci_region(path: str, offset: int, length: int) -> bytes:
    """OperationRegion in the PCI configuration space of the device around it."""
    return b"\x5b\x80" + name_string(path) + b"\x02" + integer(offset) + integer(length)


def byte_fields(region: str, names: Sequence[str]) -> bytes:
    """Field of byte access, no lock, preserve: consecutive bytes."""
    body = b"".join(name_string(n) + b"\x08" for n in names)
    return b"\x5b\x81" + package_length(name_string(region) + b"\x01" + body)


def resources(*items: bytes) -> bytes:
    """A resource template: the items and the end tag, whose checksum 0 counts as right (6.4.2.8)."""
    return buffer(b"".join(items) + b"\x79\0")


def io(base: int, count: int) -> bytes:
    """Fixed 16-bit-decoded ports (6.4.2.5)."""
    return struct.pack("<BBHHBB", 0x47, 1, base, base, 1, count)


def irq(*numbers: int) -> bytes:
    """Edge triggered, high active, exclusive: the two-byte form (6.4.2.1)."""
    return struct.pack("<BH", 0x22, sum(1 << n for n in numbers))


def interrupt(*numbers: int, level: bool = True) -> bytes:
    """Extended interrupt descriptor, consumer; level triggered, high active and shared, or edge (6.4.3.6)."""
    flags = 0x09 if level else 0x03
    return struct.pack(f"<BHBB{len(numbers)}I", 0x89, 2 + 4 * len(numbers), flags, len(numbers), *numbers)


def fixed_memory(base: int, size: int) -> bytes:
    """A 32-bit fixed range that can be written (6.4.3.4)."""
    return struct.pack("<BHBII", 0x86, 9, 1, base, size)


def bus_numbers(first: int, last: int) -> bytes:
    """WORD address space, bus numbers that are produced (6.4.3.5.3)."""
    return _space("<BHBBB5H", 0x88, 13, 2, 0, first, last)


def ports(first: int, last: int) -> bytes:
    """WORD address space, ports handed on to the bus."""
    return _space("<BHBBB5H", 0x88, 13, 1, 3, first, last)


def memory(first: int, last: int, *, cacheable: bool = False) -> bytes:
    """DWORD address space, memory handed on to the bus, read and write."""
    return _space("<BHBBB5I", 0x87, 23, 0, 3 if cacheable else 1, first, last)


def _space(layout: str, tag: int, length: int, kind: int, specific: int, first: int, last: int) -> bytes:
    # General flags: minimum and maximum are fixed, positive decode, producer.
    return struct.pack(layout, tag, length, kind, 0x0C, specific, 0, first, last, 0, last - first + 1)
