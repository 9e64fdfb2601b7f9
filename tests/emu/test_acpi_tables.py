"""The AML assembler against encodings of the ACPI specification, and our DSDT against iasl where it is there."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess

import pytest

from emu.firmware import aml
from emu.firmware.acpi import ROOM, acpi_files, placed_tables
from emu.firmware.acpi_dsdt import dsdt_body


def test_eisa_ids_are_packed_as_the_specification_prints_them():
    """ACPI 1.0b, 16.2.3, and every DSDT: PNP0A03 is 41 D0 0A 03."""
    assert aml.eisa_id("PNP0A03") == bytes.fromhex("0c41d00a03")


@pytest.mark.parametrize(
    ("length", "lead"), [(62, "3f"), (63, "4104"), (0xFFD, "4fff"), (0xFFE, "810001"), (0xFFFFC, "8fffff")]
)
def test_package_lengths_count_themselves(length, lead):
    """ACPI 1.0b, 16.2.4: one byte up to 63, then 4 bits in the lead byte and 8 in each that follows."""
    body = bytes(length)
    assert aml.package_length(body) == bytes.fromhex(lead) + body


def test_names_have_padded_segments_and_prefixes():
    assert aml.name_string("_HID") == b"_HID"
    assert aml.name_string("\\_SB.PCI0") == b"\\\x2e_SB_PCI0"
    assert aml.name_string("\\_SB.PCI0.ISA") == b"\\\x2f\x03_SB_PCI0ISA_"
    with pytest.raises(ValueError, match="at most 4"):
        aml.name_string("LONGER")


def test_the_files_are_the_same_each_time_and_their_commands_name_them():
    files = acpi_files()
    assert files == acpi_files()
    for at in range(0, len(files["etc/table-loader"]), 128):
        kind, name = struct.unpack_from("<I56s", files["etc/table-loader"], at)
        assert kind in (1, 2, 3) and name.rstrip(b"\0").decode() in files


def test_without_firmware_the_tables_are_found_as_the_specification_says():
    """ACPI 1.0b, 5.2.4.1 (RSDP: in the first KiB of the EBDA, at a 16-byte boundary), 5.2.5 to 5.2.8: from there on
    by pointers, each table with its signature and a sum of 0."""
    tables = 0x7FF0000
    memory = bytearray(0x8000000)
    for address, data in placed_tables(tables):
        memory[address : address + len(data)] = data
    ebda = int.from_bytes(memory[0x40E:0x410], "little") << 4
    rsdp = next(at for at in range(ebda, ebda + 1024, 16) if memory[at : at + 8] == b"RSD PTR ")
    assert sum(memory[rsdp : rsdp + 20]) & 0xFF == 0

    def long(at: int) -> int:
        return int.from_bytes(memory[at : at + 4], "little")

    def table(at: int, signature: bytes) -> int:
        assert tables <= at < tables + ROOM and memory[at : at + 4] == signature
        assert sum(memory[at : at + long(at + 4)]) & 0xFF == 0
        return at

    rsdt = table(long(rsdp + 16), b"RSDT")
    listed = [long(at) for at in range(rsdt + 36, rsdt + long(rsdt + 4), 4)]
    fadt, _, _ = (table(at, name) for at, name in zip(listed, (b"FACP", b"APIC", b"HPET"), strict=True))
    table(long(fadt + 40), b"DSDT")
    facs = long(fadt + 36)
    assert facs % 64 == 0 and memory[facs : facs + 4] == b"FACS"


def test_iasl_reads_the_dsdt_and_finds_nothing_wrong(tmp_path):
    iasl = shutil.which("iasl")
    if iasl is None:
        pytest.skip("iasl is not installed: apt-get install acpica-tools")
    body = dsdt_body()
    table = bytearray(
        struct.pack("<4sIBB6s8sI4sI", b"DSDT", 36 + len(body), 1, 0, b"V2E   ", b"V2EPC   ", 1, b"V2E ", 1)
    )
    table += body
    table[9] = -sum(table) & 0xFF
    (tmp_path / "dsdt.aml").write_bytes(table)
    subprocess.run([iasl, "-d", "dsdt.aml"], cwd=tmp_path, capture_output=True, check=True)
    again = subprocess.run([iasl, "dsdt.dsl"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert re.search(r"0 Errors, 0 Warnings", again.stdout), again.stdout
