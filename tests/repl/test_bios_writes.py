"""Sectors that a boot sector writes by INT 13h: in the image file with --write and only there, whichever firmware."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from asm import assemble
from commandline import v2e
from machines import seabios

SECTOR = 512
#: Writes three sectors from LBA 5 by CHS (cylinder 0, head 0, sector 6), on a disk two more at LBA 40 by AH=43h,
#: reads the first back and leaves by code 0 if each call succeeded and the bytes are there.
GUEST = """
        org 0x7c00
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
        cld
        mov [drive], dl
        mov di, 0x1000
        mov ax, 0xa55a
        mov cx, 5 * 256
        rep stosw
        mov ax, 0x0303
        mov bx, 0x1000
        mov cx, 0x0006
        mov dh, 0
        int 0x13
        jc failed
        test byte [drive], 0x80
        jz readback
        mov ah, 0x43
        mov al, 0
        mov dl, [drive]
        mov si, packet
        int 0x13
        jc failed
readback:
        mov ax, 0x0201
        mov bx, 0x3000
        mov cx, 0x0006
        mov dh, 0
        mov dl, [drive]
        int 0x13
        jc failed
        cmp word [0x3000 + 510], 0xa55a
        jne failed
        mov ah, 0
        mov dl, [drive]
        int 0x13
        mov al, 0
        out 0xf4, al
failed: mov al, ah
        or al, 1
        out 0xf4, al
drive:  db 0
        align 4
packet: db 16, 0
        dw 2, 0x1000, 0
        dq 40
        times 510 - ($ - $$) db 0
        dw 0xaa55
"""
NEW = b"\x5a\xa5" * (SECTOR // 2)


def written(image: Path, old: bytes) -> set[int]:
    """The sectors of `image` that are no more as in `old`; each of them is NEW."""
    now = image.read_bytes()
    assert len(now) == len(old)
    changed = {at // SECTOR for at in range(0, len(old), SECTOR) if now[at : at + SECTOR] != old[at : at + SECTOR]}
    assert all(now[at * SECTOR :][:SECTOR] == NEW for at in changed)
    return changed


def boot(image: Path, kind: str, firmware: str, *more: str) -> None:
    process: subprocess.Popen[str] = v2e(f"--{kind}", image, "--firmware", firmware, "--headless", *more)
    out, err = process.communicate("", 120)
    assert process.returncode == 1, (out, err)


@pytest.mark.parametrize(
    ("kind", "firmware", "machine"),
    [
        ("floppy", "builtin", "isapc"),
        ("disk", "builtin", "pc"),
        pytest.param("floppy", "seabios", "pc", marks=pytest.mark.slow),
        ("disk", "seabios", "isapc"),
        pytest.param("floppy", "builtin", "pc", marks=pytest.mark.slow),
        pytest.param("disk", "builtin", "isapc", marks=pytest.mark.slow),
        pytest.param("floppy", "seabios", "isapc", marks=pytest.mark.slow),
        pytest.param("disk", "seabios", "pc", marks=pytest.mark.slow),
    ],
)
def test_sectors_written_by_int_13h_are_in_the_file_with_write_only(tmp_path, kind, firmware, machine):
    if firmware == "seabios":
        seabios()  # or skip
    size = 1440 * 1024 if kind == "floppy" else 1 << 20
    old = assemble(GUEST) + bytes(size - SECTOR)
    image = tmp_path / f"{kind}.img"
    image.write_bytes(old)
    boot(image, kind, firmware, "--machine", machine)
    assert written(image, old) == set()
    boot(image, kind, firmware, "--machine", machine, "--write")
    assert written(image, old) == {5, 6, 7} | ({40, 41} if kind == "disk" else set())
