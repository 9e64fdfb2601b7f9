"""Services of the built-in BIOS asked one by one, against what the specifications say of each."""

from __future__ import annotations

from bios_calls import BLOCK, Answer, Call, answers, sector
from emu.firmware.roms import builtin_bios
from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.media import Disk

DISK, DISKETTE = 20 * 16 * 63 * 512, 1440 << 10


def asked(*calls: Call, block: bytes = b"", floppy: bytes | None = None) -> tuple[list[Answer], Machine]:
    """The answers to calls made from the boot sector of a disk, and the machine after them."""
    disk = Disk.from_bytes(sector(list(calls), block).ljust(DISK, b"\0"))
    floppies = () if floppy is None else (Disk.from_bytes(floppy),)
    config = MachineConfig(
        machine="pc", memory=16 << 20, firmware=builtin_bios(), bios=True, disks=[disk], floppies=floppies, boot="disk"
    )
    machine = build_machine(config)
    assert machine.run(100_000_000).reason is MachineStop.EXIT
    got = answers(machine.debugcon_text())
    assert len(got) == len(calls)
    return got, machine


def results(got: list[Answer]) -> list[tuple[int, int]]:
    return [(answer.ah, answer.carry) for answer in got]


def test_a_block_move_reads_registers_as_the_cpu_would() -> None:
    """INT 15h AH=87h from the HPET's capabilities (IA-PC HPET 1.0a, 2.3.4: period in fs, vendor 8086h) to 9000h."""

    def descriptor(base: int) -> bytes:
        return b"\xff\xff" + (base & 0xFFFFFF).to_bytes(3, "little") + b"\x93\0" + bytes((base >> 24,))

    table = bytes(16) + descriptor(0xFED00000) + descriptor(0x9000) + bytes(16)
    got, machine = asked(Call(0x15, 0x8700, cx=4), block=table)
    assert BLOCK == 0x600
    assert results(got) == [(0, 0)]
    data = machine.memory.read(0x9000, 8)
    assert (data[2:4], int.from_bytes(data[4:], "little")) == (b"\x86\x80", 10_000_000)
