"""The PCI VGA of `pc`: SeaBIOS runs the VGA BIOS from its ROM BAR, the frame buffer stands where its BAR says."""

from __future__ import annotations

import pytest

from asm import assemble
from emu import layout
from emu.devices.pci import BAR0, COMMAND, MEMORY_SPACE
from emu.firmware.roms import builtin_bios
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    # the firmware is at the top, and 1 MiB lower for resets with A20 masked
    assert moved(machine, 0xFF000000) == [(0xFF000000, size - 0x110000), (0xFFF00000, 0xF0000)]
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


def test_a_frame_buffer_that_moves_under_paging_disturbs_no_exception():
    """The engine takes out and puts in memory that the guest's page tables do not map; CR2 and what is being delivered
    stay, and the next exception is delivered as ever."""
    program = """
        lgdt [cs:gdtr]
        lidt [cs:idtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 8:0xf0000 + flat
        bits 32
    flat:
        mov ax, 16
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, 0x7000
        mov dword [0x1000 + 8 * 3], 0x80000 + handler
        mov dword [0x1004 + 8 * 3], 0xf8e00     ; the rest of the gate: offset F0000h, 32-bit interrupt
        mov edi, 0x10000                ; only the first 4 MiB are mapped
        mov ecx, 1024
        xor eax, eax
        rep stosd
        mov dword [0x10000], 0x83
        mov eax, 0x10000
        mov cr3, eax
        mov cr2, eax
        mov eax, 0x10
        mov cr4, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        mov ecx, 3
    again:
        mov ebx, 0
        call command                    ; not decoded
        mov ebx, 2
        call command                    ; decoded
        int3
        loop again
        mov eax, cr2
        cmp eax, 0x10000
        sete al
        out 0xf4, al
        hlt
    command:
        mov eax, 0x80001004
        mov dx, 0xcf8
        out dx, eax
        mov dx, 0xcfc
        mov eax, ebx
        out dx, ax
        ret
    handler:
        mov al, '!'
        out 0xe9, al
        iret
    gdtr:
        dw 23
        dd 0xf0000 + gdt
    gdt:
        dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
    idtr:
        dw 0x7ff
        dd 0x1000
    """
    machine = pc(rom(program))
    moved(machine, 0x90000000)
    end = machine.run(20_000)
    assert (end.reason, end.code, machine.debugcon_text()) == (MachineStop.EXIT, 1, "!!!")


def test_the_built_in_bios_tells_where_the_frame_buffer_is():
    disk = Disk.from_bytes(assemble_image("vga_pci").ljust(1 << 20, b"\0"))
    machine = pc(builtin_bios(), memory=16 << 20, bios=True, disks=(disk,))
    assert machine.run(100_000_000).code == 0x10
    said = machine.debugcon_text().splitlines()
    for line in ("PhysBasePtr is BAR 0 00000001", "moved CAFE1234", "dispi ID 0000B0C5", "colour 5 00020103"):
        assert line in said, said
