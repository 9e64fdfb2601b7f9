"""Pictures of every kind of mode beside QEMU's screendump of the same boot sector: the same pixels."""

from __future__ import annotations

import pytest

import screendump
from asm import assemble
from emu.machine import MachineStop
from emu.views import PictureView
from machines import seabios_debugger

#: Boot sectors halt within 20 million instructions.
BUDGET = 60_000_000
PLANES = "\n".join(f"SET 0x3C4, 2, {1 << plane}\nFILL 0xA000, {{bytes}}, {37 * plane + 1}" for plane in range(4))
VBE = """
        VBE 4, 0
        VBE 1, {width}
        VBE 2, {height}
        VBE 3, {bits}
        VBE 4, {enable}
        {more}
        xor bp, bp
.bank:  mov dx, 0x1CE
        mov ax, 5
        out dx, ax
        mov dx, 0x1D0
        mov ax, bp
        out dx, ax
        mov ax, 0xA000
        mov es, ax
        mov bx, bp
        xor di, di
        xor cx, cx
        call pattern
        inc bp
        cmp bp, {banks}
        jne .bank
"""


def sector(code: str) -> bytes:
    return assemble(f'%include "vga_picture.inc"\nPICTURE\n{code}\nDONE')


def ours(image: bytes) -> PictureView:
    machine = seabios_debugger(image).machine
    exit = machine.run(BUDGET)
    assert exit.reason is MachineStop.DEADLOCK, exit
    return machine.picture()


def vbe(width: int, height: int, bits: int, *, enable: int = 1, more: str = "") -> str:
    size = width * height * ((bits + 7) // 8)
    return "MODE 3\n" + VBE.format(
        width=width, height=height, bits=bits, enable=enable, more=more, banks=-(-size // 65536)
    )


IMAGES = {
    "text": "MODE 3\nNO_CURSOR\nFILL 0xB800, 4000, 3\nATTRIBUTE 0x10, 0",
    "text, two fonts": "MODE 3\nmov ax, 0x1112\nmov bl, 1\nint 0x10\nMODE 3\nmov ax, 0x1102\nmov bl, 1\nint 0x10\n"
    "NO_CURSOR\nSET 0x3C4, 3, 4\nFILL 0xB800, 4000, 3\nATTRIBUTE 0x10, 0",
    "text, 50 rows": "MODE 3\nmov ax, 0x1112\nmov bl, 0\nint 0x10\nNO_CURSOR\nFILL 0xB800, 8000, 9\nATTRIBUTE 0x10, 0",
    "text, start address": "MODE 3\nNO_CURSOR\nFILL 0xB800, 16000, 3\nATTRIBUTE 0x10, 0\nSET 0x3D4, 13, 200",
    "4": "MODE 4\nFILL 0xB800, 16384, 5",
    "6": "MODE 6\nFILL 0xB800, 16384, 5",
    "Dh": "MODE 0x0D\n" + PLANES.format(bytes=8000),
    "10h": "MODE 0x10\n" + PLANES.format(bytes=28000),
    "12h": "MODE 0x12\n" + PLANES.format(bytes=38400),
    "12h, colour planes": "MODE 0x12\n" + PLANES.format(bytes=38400) + "\nATTRIBUTE 0x12, 5",
    "12h, scrolled and split": "MODE 0x12\n" + PLANES.format(bytes=65535)
    + "\nSET 0x3D4, 12, 0x10\nSET 0x3D4, 13, 0x23\nSET 0x3D4, 0x18, 0x90\nSET 0x3D4, 7, 0x2E\nSET 0x3D4, 9, 0",
    "13h": "MODE 0x13\nFILL 0xA000, 64000, 7",
    "13h, start address": "MODE 0x13\nFILL 0xA000, 64000, 7\nSET 0x3D4, 13, 100",
    "X": "MODE 0x13\nSET 0x3C4, 4, 6\nSET 0x3D4, 0x14, 0\nSET 0x3D4, 0x17, 0xE3\n" + PLANES.format(bytes=16000),
    "X, 320x240": "MODE 0x13\nSET 0x3C4, 4, 6\nSET 0x3D4, 0x14, 0\nSET 0x3D4, 0x17, 0xE3\nSET 0x3D4, 0x11, 0x2C\n"
    "SET 0x3D4, 6, 0x0D\nSET 0x3D4, 7, 0x3E\nSET 0x3D4, 0x10, 0xEA\nSET 0x3D4, 0x11, 0xAC\nSET 0x3D4, 0x12, 0xDF\n"
    + PLANES.format(bytes=19200),
    "VBE by INT 10h": "mov ax, 0x4F02\nmov bx, 0x0112\nint 0x10\nFILL 0xA000, 65535, 5",
    "VBE by INT 10h, 800x600": "mov ax, 0x4F02\nmov bx, 0x0103\nint 0x10\nFILL 0xA000, 65535, 5",
    "VBE 8": vbe(640, 480, 8),
    "VBE 16": vbe(800, 600, 16),
    "VBE 24": vbe(640, 480, 24),
    "VBE 32": vbe(640, 480, 32),
    "VBE 32, panned": vbe(320, 200, 32, more="VBE 6, 512\nVBE 8, 16\nVBE 9, 20"),
}  # fmt: skip


def both(code: str) -> tuple[PictureView, bytes, list[int]]:
    """Our picture, QEMU's pixels, and the numbers of those that differ."""
    image = sector(code)
    picture = ours(image)
    width, height, pixels = screendump.qemu_picture(disk=image.ljust(1 << 20, b"\0"))
    assert (picture.width, picture.height) == (width, height)
    mine = picture.pixels
    return picture, pixels, [i // 3 for i in range(0, len(pixels), 3) if pixels[i : i + 3] != mine[i : i + 3]]


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_the_picture_is_qemus(name: str) -> None:
    picture, _, differ = both(IMAGES[name])
    across = picture.width
    assert not differ, f"{len(differ)} pixels of {name}, the first at {differ[0] % across},{differ[0] // across}"


@pytest.mark.slow
def test_qemu_continues_more_characters_into_the_ninth_dot() -> None:
    # IBM: the line graphics characters C0h to DFh; QEMU takes B0h to BFh for such too. One of each fills the screen.
    draw = "mov ax, 0xB800\nmov es, ax\nmov ax, 0x0700\nxor di, di\nmov cx, 2000\n.cell: stosw\ninc al\nloop .cell\n"
    picture, _, differ = both("MODE 3\nNO_CURSOR\n" + draw + "ATTRIBUTE 0x10, 4")
    columns = [pixel % picture.width for pixel in differ]
    codes = {(pixel // picture.width // 16 * 80 + pixel % picture.width // 9) & 0xFF for pixel in differ}
    assert differ
    assert {column % 9 for column in columns} == {8}
    assert codes <= set(range(0xB0, 0xC0))


@pytest.mark.slow
def test_qemu_leaves_the_low_bits_of_15_bit_colours_clear() -> None:
    # a level of 31 of 31 is 248 of 255 there, 255 here; its 16-bit colours are as ours
    picture, theirs, differ = both(vbe(640, 480, 15))
    assert differ
    assert bytes(level & 0xF8 for level in picture.pixels) == theirs
