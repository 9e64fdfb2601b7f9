"""The ACPI tables of `--machine pc`, as fw_cfg files that a firmware links: RSDP, RSDT, FADT, FACS, DSDT, MADT, HPET.

Source: ACPI 1.0b, 5.2 (tables), ACPI 2.0, 5.2.10 (MADT), IA-PC HPET 1.0a, 3.2.4; the linker commands are described in
SeaBIOS's src/fw/romfile_loader.h.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from emu import layout
from emu.firmware.acpi_dsdt import dsdt_body
from emu.record import dataclass, field

RSDP_FILE, TABLES_FILE, LOADER_FILE = "etc/acpi/rsdp", "etc/acpi/tables", "etc/table-loader"
#: Linker commands and zones.
ALLOCATE, ADD_POINTER, ADD_CHECKSUM = 1, 2, 3
ZONE_HIGH, ZONE_FSEG = 1, 2
ENTRY = 128
OEM, TABLE_OEM, CREATOR = b"V2E   ", b"V2EPC   ", b"V2E "
HEADER = 36
#: The word with the segment of the extended BIOS data area, whose first byte is its size in KiB (IBM PS/2 and PC BIOS
#: Interface Technical Reference, "BIOS data area").
BDA_EBDA, EBDA, EBDA_KIB = 0x40E, 0x9FC00, 1
#: WBINVD works, C1 is supported; the power button is a fixed one, there is no sleep button; the PM timer has 24 bits.
FADT_FLAGS = 0x0001 | 0x0004 | 0x0020


def _name(text: str) -> bytes:
    return text.encode("ascii").ljust(56, b"\0")


@dataclass(slots=True)
class _Linker:
    """Tables one behind the other in one file, and the commands that make them find each other."""

    tables: bytearray = field(default_factory=bytearray)
    commands: bytearray = field(default_factory=bytearray)

    def command(self, layout_: str, *values: object) -> None:
        self.commands += struct.pack("<I" + layout_, *values).ljust(ENTRY, b"\0")

    def add(self, signature: bytes, revision: int, body: bytes) -> int:
        """Where the table is in the file."""
        self.tables += bytes(-len(self.tables) % 16)
        at, length = len(self.tables), HEADER + len(body)
        self.tables += struct.pack(
            "<4sIBB6s8sI4sI", signature, length, revision, 0, OEM, TABLE_OEM, 1, CREATOR, 1
        )  # fmt: skip
        self.tables += body
        return at

    def point(self, where: str, at: int, to: str) -> None:
        """The 32-bit offset at `at` of the file `where` becomes the address in the file `to`."""
        self.command("56s56sIB", ADD_POINTER, _name(where), _name(to), at, 4)

    def checksum(self, where: str, at: int, start: int, length: int) -> None:
        self.command("56sIII", ADD_CHECKSUM, _name(where), at, start, length)


def _fadt(facs: int, dsdt: int) -> bytes:
    base = layout.ACPI_PM
    return struct.pack(
        "<IIBBHIBBBB8I8B4H8BI",
        facs, dsdt, 1, 0, layout.IRQ_SCI, layout.APM_CONTROL, 0xF1, 0xF0, 0, 0,
        base, 0, base + 4, 0, 0, base + 8, base + 0x0C, 0,
        4, 2, 0, 4, 4, 0, 0, 0,
        0x0FFF, 0x0FFF, 0, 0,
        0, 0, 0, 0, layout.RTC_CENTURY, 0, 0, 0, FADT_FLAGS,
    )  # fmt: skip


def _madt() -> bytes:
    """One CPU, the IOAPIC, the PIT on input 2, PCI's interrupts level triggered and high active, NMI on LINT1."""
    body = struct.pack("<II", layout.LAPIC, 1)
    body += struct.pack("<BBBBI", 0, 8, 0, 0, 1)
    body += struct.pack("<BBBBII", 1, 12, 0, 0, layout.IOAPIC, 0)
    body += struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0)
    for irq in (5, 9, 10, 11):
        body += struct.pack("<BBBBIH", 2, 10, 0, irq, irq, 0x000D)
    return body + struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)


def _hpet() -> bytes:
    return struct.pack("<IBBBBQBHB", layout.HPET_ID, 0, 64, 0, 0, layout.HPET, 0, 100, 0)


def acpi_files() -> dict[str, bytes]:
    """The three files, by name."""
    linker = _Linker()
    tables = TABLES_FILE
    facs = len(linker.tables)
    linker.tables += struct.pack("<4sIIIII", b"FACS", 64, 0, 0, 0, 0).ljust(64, b"\0")
    linker.command("56sIB", ALLOCATE, _name(RSDP_FILE), 16, ZONE_FSEG)
    linker.command("56sIB", ALLOCATE, _name(tables), 64, ZONE_HIGH)
    made: list[int] = []

    def add(signature: bytes, revision: int, body: bytes) -> int:
        made.append(linker.add(signature, revision, body))
        return made[-1]

    dsdt = add(b"DSDT", 1, dsdt_body())
    fadt = add(b"FACP", 1, _fadt(facs, dsdt))
    listed = [fadt, add(b"APIC", 1, _madt()), add(b"HPET", 1, _hpet())]
    rsdt = add(b"RSDT", 1, struct.pack(f"<{len(listed)}I", *listed))
    linker.point(tables, fadt + HEADER, tables)
    linker.point(tables, fadt + HEADER + 4, tables)
    for i in range(len(listed)):
        linker.point(tables, rsdt + HEADER + 4 * i, tables)
    for at in made:
        length = int.from_bytes(linker.tables[at + 4 : at + 8], "little")
        linker.checksum(tables, at + 9, at, length)
    rsdp = struct.pack("<8sB6sBI", b"RSD PTR ", 0, OEM, 0, rsdt)
    linker.point(RSDP_FILE, 16, tables)
    linker.checksum(RSDP_FILE, 8, 0, len(rsdp))
    return {RSDP_FILE: rsdp, tables: bytes(linker.tables), LOADER_FILE: bytes(linker.commands)}


def e820_file(memory: int) -> bytes:
    """etc/e820: RAM below 4 GiB, as pairs of 64-bit base and length, and a type (1 RAM)."""
    return struct.pack("<QQI", 0, memory, 1)


#: How much RAM at its end is kept for the tables where no firmware finds a place for them.
ROOM = 0x10000


def linked(files: Mapping[str, bytes], addresses: Mapping[str, int]) -> dict[str, bytes]:
    """What a firmware makes of `acpi_files` that it has put at `addresses`, by name: the commands carried out."""
    made = {name: bytearray(files[name]) for name in addresses}
    commands = files[LOADER_FILE]
    for at in range(0, len(commands), ENTRY):
        kind, name = struct.unpack_from("<I56s", commands, at)
        data = made[name.rstrip(b"\0").decode("ascii")]
        if kind == ADD_POINTER:
            other, offset, size = struct.unpack_from("<56sIB", commands, at + 60)
            value = int.from_bytes(data[offset : offset + size], "little")
            value += addresses[other.rstrip(b"\0").decode("ascii")]
            data[offset : offset + size] = value.to_bytes(size, "little")
        elif kind == ADD_CHECKSUM:
            offset, start, length = struct.unpack_from("<III", commands, at + 60)
            data[offset] = data[offset] - sum(data[start : start + length]) & 0xFF
    return {name: bytes(data) for name, data in made.items()}


def placed_tables(tables: int) -> list[tuple[int, bytes]]:
    """(physical address, bytes) of the tables with nothing of a firmware's but an extended BIOS data area, where ACPI
    1.0b, 5.2.4.1, has the RSDP looked for first; they stand at `tables`, ROOM bytes of RAM."""
    rsdp = EBDA + 16
    made = linked(acpi_files(), {RSDP_FILE: rsdp, TABLES_FILE: tables})
    return [
        (BDA_EBDA, (EBDA >> 4).to_bytes(2, "little")),
        (EBDA, bytes((EBDA_KIB,))),
        (rsdp, made[RSDP_FILE]),
        (tables, made[TABLES_FILE]),
    ]
