"""CDs booted by El Torito, in each emulation: the loader finds what SeaBIOS under QEMU's TCG would show it."""

from __future__ import annotations

import struct

import pytest

from asm import assemble
from emu.firmware.roms import builtin_bios
from emu.machine import MachineConfig, MachineStop, build_machine
from emu.media import Disk
from oracles import IMAGES, OracleMissing, run_qemu

FRAME = 2048
CATALOG, IMAGE, END = 19, 20, 2400
NO_EMULATION, DISKETTE, HARD_DISK = 0, 2, 4

LOADER = """
bits 16
org 0x7C00
        jmp 0:start
start:  xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7C00
        mov [drive], dl
        mov al, dl
        call hex2_16
        mov ah, 8
        mov dl, [drive]
        int 0x13
        push dx
        mov ax, cx
        call word_or_error
        pop ax
        mov al, 0                       ; QEMU's pc has a diskette drive
        call word_or_error
        mov ah, 0x41
        mov bx, 0x55AA
        mov dl, [drive]
        int 0x13
        mov ax, cx
        call word_or_error
        push word 0
        pop es
        mov ax, 0x0201
        mov bx, 0x9000
        mov cx, 2
        mov dh, 0
        mov dl, [drive]
        int 0x13
        mov ax, [0x9000]
        call word_or_error
        mov ax, 0x4B01
        mov si, 0xA000
        mov dl, [drive]
        int 0x13
        mov ax, [0xA000]
        call word_or_error
        mov ax, [0xA004]
        call hex4_16
        mov ax, [0xA00C]
        call hex4_16
        mov ax, [0xA00E]
        call hex4_16
        mov si, packet
        mov ah, 0x42
        mov dl, [drive]
        int 0x13
        mov ax, [0xB001]
        call word_or_error
        mov word [0xB000], 30
        mov si, 0xB000
        mov ah, 0x48
        mov dl, [drive]
        int 0x13
        mov ax, [0xB018]
        call word_or_error
        mov al, 0
        jmp finish16
word_or_error:
        pushf
        push ax
        mov al, ' '
        out 0xE9, al
        pop ax
        popf
        jnc hex4_16
        mov al, '-'
        out 0xE9, al
        ret
drive:  db 0
align 4
packet: db 16, 0
        dw 1, 0xB000, 0
        dq 16
%include "guest.inc"
GUEST_SERVICES 16
        times 446 - ($ - $$) db 0
        db 0x80, 1, 1, 0, 6, 15, 63, 3          ; 4 cylinders of 16 heads and 63 sectors
        dd 63, 3969
        times 510 - ($ - $$) db 0
        dw 0xAA55
        db 'sector two'
        times 2048 - ($ - $$) db 0
"""


def disc(media: int) -> bytes:
    """A CD whose boot image is the loader, as a diskette of 1440 KiB, a small hard disk, or itself."""
    frames = bytearray(END * FRAME)
    frames[16 * FRAME : 16 * FRAME + 7] = b"\1CD001\1"
    record = b"\0CD001\1EL TORITO SPECIFICATION".ljust(0x47, b"\0") + struct.pack("<I", CATALOG)
    frames[17 * FRAME : 17 * FRAME + len(record)] = record
    frames[18 * FRAME : 18 * FRAME + 7] = b"\xffCD001\1"
    validation = bytearray(b"\1".ljust(30, b"\0") + b"\x55\xaa")
    validation[28:30] = (-sum(struct.unpack("<16H", validation)) & 0xFFFF).to_bytes(2, "little")
    entry = struct.pack("<BBHBBHI", 0x88, media, 0, 0, 0, 4 if media == NO_EMULATION else 1, IMAGE)
    frames[CATALOG * FRAME : CATALOG * FRAME + 64] = bytes(validation) + entry.ljust(32, b"\0")
    loader = assemble(LOADER.replace('"guest.inc"', f'"{IMAGES}/guest.inc"'))
    frames[IMAGE * FRAME : IMAGE * FRAME + len(loader)] = loader
    return bytes(frames)


def ours(media: int) -> str:
    cd = Disk.from_bytes(disc(media))
    config = MachineConfig(machine="pc", memory=16 << 20, firmware=builtin_bios(), bios=True, cdroms=[cd], boot="cdrom")
    machine = build_machine(config)
    end = machine.run(50_000_000)
    assert end.reason is MachineStop.EXIT, (end, machine.screen().text)
    return machine.debugcon_text().strip()


@pytest.mark.parametrize("media", [NO_EMULATION, DISKETTE, HARD_DISK])
def test_a_loader_finds_what_it_finds_by_seabios(media: int) -> None:
    try:
        done = run_qemu(
            disk=disc(media), machine="pc", cpu="qemu64", drive="if=ide,index=2,media=cdrom", arguments=["-boot", "d"]
        )
    except OracleMissing as missing:
        pytest.skip(str(missing))
    assert ours(media) == done.debugcon.strip()
