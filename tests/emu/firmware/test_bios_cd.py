"""CDs booted by El Torito, in each emulation: the loader finds what SeaBIOS under QEMU's TCG would show it."""

from __future__ import annotations

import struct

import pytest

from asm import assemble
from bios_calls import Answer, Call, answers, sector
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
        mov al, [0xA003]                ; the controller
        mov ah, [0xA008]                ; the drive of it
        call hex4_16
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


def disc(media: int, loader: bytes = b"") -> bytes:
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
    loader = loader or assemble(LOADER.replace('"guest.inc"', f'"{IMAGES}/guest.inc"'))
    frames[IMAGE * FRAME : IMAGE * FRAME + len(loader)] = loader
    return bytes(frames)


def ours(media: int, loader: bytes = b"") -> str:
    cd = Disk.from_bytes(disc(media, loader))
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


PARTITION = bytes((0x80, 1, 1, 0, 6, 15, 63, 3)) + struct.pack("<II", 63, 3969)


def asked(media: int, *calls: Call) -> list[Answer]:
    """By a boot sector with the partition that gives an emulated disk its geometry."""
    code = sector(list(calls))
    return answers(ours(media, code[:446] + PARTITION + code[462:]))


@pytest.mark.parametrize("media", [NO_EMULATION, DISKETTE, HARD_DISK])
def test_drive_7f_is_whatever_is_emulated(media: int) -> None:
    """El Torito 1.0, INT 13h AH=4Bh: "DL 7Fh: terminate all emulations"; afterwards there is none to end."""
    drive = {NO_EMULATION: 0xE0, DISKETTE: 0, HARD_DISK: 0x80}[media]
    status, ended, again, gone = asked(
        media, Call(0x13, 0x4B01, dx=0x7F), Call(0x13, 0x4B00, dx=0x7F), Call(0x13, 0x4B01, dx=0x7F),
        Call(0x13, 0x4B01, dx=drive),
    )  # fmt: skip
    assert [(a.ah, a.carry) for a in (status, ended, again, gone)] == [(0, 0), (0, 0), (1, 1), (1, 1)]


LOCK, UNLOCK, STATUS = 0x4500, 0x4501, 0x4502


def test_locks_of_a_cd_count_and_a_locked_tray_stays_shut() -> None:
    """EDD 3.0, AH=45h and 46h: B0h not locked, B1h locked, 255 locks at most (B4h)."""
    got = asked(
        NO_EMULATION,
        *(Call(0x13, ax, dx=0xE0) for ax in (UNLOCK, LOCK, LOCK, UNLOCK, STATUS, 0x4600, UNLOCK, STATUS, UNLOCK)),
        Call(0x13, 0x4900, dx=0xE0), Call(0x13, 0x4600, dx=0xE0), Call(0x13, 0x4900, dx=0xE0),
    )  # fmt: skip
    assert [(a.ah, a.carry) for a in got] == [
        (0xB0, 1), (0, 0), (0, 0), (0, 0), (0, 0), (0xB1, 1), (0, 0), (0, 0), (0xB0, 1), (0, 0), (0, 0), (6, 1)
    ]  # fmt: skip
    assert [a.ax & 0xFF for a in got[1:5]] == [1, 1, 1, 1]
    assert [a.ax & 0xFF for a in got[6:8]] == [0, 0]


def test_the_256th_lock_is_refused() -> None:
    code = """
        bits 16
        org 0x7c00
        xor bx, bx
    more:
        mov ax, 0x4500
        mov dl, 0xE0
        int 0x13
        jc over
        inc bx
        jmp more
    over:
        mov al, ah
        out 0xe9, al
        mov al, bl
        out 0xe9, al
        mov al, 0
        out 0xf4, al
        times 2048 - ($ - $$) db 0
    """
    cd = Disk.from_bytes(disc(NO_EMULATION, assemble(code)))
    config = MachineConfig(machine="pc", memory=16 << 20, firmware=builtin_bios(), bios=True, cdroms=[cd], boot="cdrom")
    run = build_machine(config)
    assert run.run(50_000_000).reason is MachineStop.EXIT
    assert [ord(c) for c in run.debugcon_text()] == [0xB4, 255]
