"""The PCI VGA of `pc`: SeaBIOS runs the VGA BIOS from its ROM BAR, the frame buffer stands where its BAR says."""

from __future__ import annotations

import pytest

from asm import assemble
from emu import layout
from emu.devices.pci import BAR0, COMMAND, MEMORY_SPACE
from emu.machine import Machine, MachineStop
from emu.media import Disk
from machines import READING, pc, rom, seabios_pc
from oracles import OracleMissing, assemble_image, run_qemu


def ours() -> Machine:
    image = assemble_image("vga_pci")
    machine = seabios_pc(b"", disks=(Disk.from_bytes(image.ljust(1 << 20, b"\0")),))
    end = machine.run(200_000_000)
    assert end.reason is MachineStop.EXIT and end.code == 0x10, (end, machine.debugcon_text()[-2000:])
    return machine


def test_a_boot_sector_finds_what_it_finds_under_qemu():
    image = assemble_image("vga_pci").ljust(1 << 20, b"\0")
    try:
        theirs = list(run_qemu(disk=image, machine="pc", cpu="qemu64").lines)
    except OracleMissing as missing:
        pytest.skip(str(missing))
    # Nobody answers: a master abort reads ones (PCI 2.1, 3.7.4.1), where QEMU reads zeros.
    theirs[theirs.index("not decoded 00000000")] = "not decoded FFFFFFFF"
    said = ours().debugcon_text().splitlines()
    said = said[said.index("function 80001000") :]
    assert [line for line in said if not line.startswith(("VBE mode", "set VGA mode"))] == theirs


def test_the_vga_bios_runs_from_the_rom_bar_and_its_text_is_on_the_screen():
    machine = seabios_pc(assemble(READING))
    assert machine.run(200_000_000).code == 0x55
    assert "Running option rom at c000:0003" in machine.debugcon_text()
    assert any("boot sector reached" in row for row in machine.screen().rows)


def moved(machine: Machine, base: int) -> list[tuple[int, int]]:
    """(base, size) of the pieces of the frame buffer after its BAR has been set to `base`."""
    assert machine.board.chipset is not None
    vga = machine.board.chipset.vga
    vga.config_write(BAR0, base, 4)
    vga.config_write(COMMAND, MEMORY_SPACE, 2)
    machine.service()
    return [(r.base, r.size) for r in machine.memory.regions if r.name == "vga"]


def test_the_frame_buffer_moves_and_what_else_answers_there_comes_first():
    machine = pc(rom("hlt"), memory=32 << 20)
    machine.display.memory[0x1000:0x1004] = b"abcd"
    size = layout.VGA_MEMORY
    assert moved(machine, 0x80000000) == [(0x80000000, size)]
    assert machine.read_physical(0x80001000, 4) == b"abcd"
    assert moved(machine, 0x01000000) == []  # RAM
    # the I/O APIC, the HPET and the local APIC
    assert moved(machine, 0xFE000000) == [
        (0xFE000000, 0xC00000), (0xFEC01000, 0xFF000), (0xFED01000, 0xFF000), (0xFEE01000, 0x1FF000),
    ]  # fmt: skip
    assert moved(machine, 0xFF000000) == [(0xFF000000, size - 0x10000)]  # the firmware is at the top
    assert moved(machine, 0) == []


def test_code_in_a_frame_buffer_that_moves_is_executed_and_dropped():
    program = """
        mov ebx, 0x90000000
        lgdt [cs:gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 8:0xf0000 + flat
        bits 32
    flat:
        mov ax, 16
        mov ds, ax
        mov byte [ebx], 0xb0        ; mov al, n; jmp back
        mov byte [ebx + 2], 0xe9
        mov dword [ebx + 3], 0xf0000 + back - 0x90000007
        mov byte [ebx + 1], 5
        jmp ebx
    back:
        out 0xe9, al
        inc byte [ebx + 1]
        cmp al, 7
        jb near go
        mov al, 1
        out 0xf4, al
        hlt
    go:
        jmp ebx
    gdtr:
        dw 23
        dd 0xf0000 + gdt
    gdt:
        dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
    """
    machine = pc(rom(program))
    moved(machine, 0x90000000)
    assert machine.run(1000).reason is MachineStop.EXIT
    assert machine.debugcon_text() == "\5\6\7"


def test_a_moved_frame_buffer_is_saved_and_restored():
    one, other = (pc(rom("hlt")) for _ in range(2))
    moved(one, 0xA0000000)
    one.display.memory[5] = 7
    other.restore(one.save())
    assert other.read_physical(0xA0000005, 1) == b"\7" and other.memory_map() == one.memory_map()
    assert other.fingerprint() == one.fingerprint()
    one.reset()
    assert not any(r.name == "vga" and r.kind == "ram" for r in one.memory.regions)
