"""Small machines for tests: ROMs from a few lines of nasm, real firmware from Debian packages."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from asm import assemble
from emu.debugger import Debugger
from emu.firmware.roms import FirmwareError, find_firmware, find_vga_rom, read_rom
from emu.machine import Machine, MachineConfig, build_machine
from emu.media import Disk


def rom_text(body: str, data: str = "") -> str:
    """The source of a 64 KiB ROM: real mode, CS F000h, interrupts off, DS 0; `body` runs first, `data` follows it."""
    return f"""
        bits 16
        org 0
        start:
        cli
        xor ax, ax
        mov ds, ax
        {body}
        {data}
        times 0xfff0-($-$$) db 0xf4
        bits 16
        jmp 0xf000:start
        times 0x10000-($-$$) db 0
        """


def protected(start: str, descriptors: str) -> str:
    """Code for `rom_text` that jumps in protected mode to `start`, SELECTOR:LABEL, with a stack at 0:7000h until then;
    `descriptors` are those of its GDT behind the null one."""
    return f"""
        mov ss, ax
        mov sp, 0x7000
        lgdt [cs:pointer]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp {start}
    align 8
    gdt:
        dq 0
        {descriptors}
    pointer:
        dw $-gdt-1
        dd 0xf0000+gdt
    """


def calling(setup: str = "") -> str:
    """Code for `rom_text`, behind `setup` a loop that counts at 500h and calls CALLED, which counts at 502h."""
    return f"""
        {setup}
        mov ss, ax
        mov sp, 0x1000
    again:
        inc word [0x500]
        call work
        mov cx, 5
    spin:
        loop spin
        jmp again
    times 0x100-($-$$) nop
    work:
        inc word [0x502]
        ret
    """


CALLED = 0xF0100


@functools.cache
def rom(body: str, data: str = "") -> bytes:
    """The ROM of `rom_text`."""
    return assemble(rom_text(body, data))


def debugger(firmware: bytes, **config: object) -> Debugger:
    """A debugger on a 1 MiB isapc with `firmware` as true ROM."""
    options: dict[str, object] = {"memory": 1 << 20, "shadow": False, **config}
    return Debugger(build_machine(MachineConfig(firmware=firmware, **options)))  # type: ignore[arg-type]


@functools.cache
def seabios() -> tuple[bytes, bytes]:
    """SeaBIOS and SeaVGABIOS; skips when the package is missing."""
    try:
        return read_rom(find_firmware("seabios")), read_rom(find_vga_rom())
    except FirmwareError as error:
        pytest.skip(str(error))


def seabios_debugger(sector: bytes, **config: object) -> Debugger:
    """SeaBIOS on isapc with a hard disk whose first sector is `sector`."""
    bios, vga = seabios()
    disk = Disk.from_bytes(sector.ljust(1 << 20, b"\0"))
    options: dict[str, object] = {
        "memory": 16 << 20,
        "fw_cfg": {"vgaroms/vgabios.bin": vga},
        "disks": (disk,),
        **config,
    }
    return Debugger(build_machine(MachineConfig(firmware=bios, **options)))  # type: ignore[arg-type]


def pc(firmware: bytes, **config: object) -> Machine:
    """A machine `pc` of 2 MiB."""
    options: dict[str, object] = {"memory": 2 << 20, **config}
    return build_machine(MachineConfig(machine="pc", firmware=firmware, **options))  # type: ignore[arg-type]


def seabios_pc(sector: bytes, **config: object) -> Machine:
    """SeaBIOS on pc with a hard disk whose first sector is `sector`; skips when the package is missing."""
    try:
        bios, vga = read_rom(find_firmware("seabios", "pc")), read_rom(find_vga_rom("pc"))
    except FirmwareError as error:
        pytest.skip(str(error))
    disk = Disk.from_bytes(sector.ljust(1 << 20, b"\0"))
    options: dict[str, object] = {"memory": 64 << 20, "vga_rom": vga, "disks": (disk,)}
    return pc(bios, **{**options, **config})


def pic(vector: int = 8, mask: int = 0xFE) -> str:
    """Code: the first 8259 at `vector`; interrupt requests whose bit of `mask` is 0 pass."""
    words = (0x20, 0x11), (0x21, vector), (0x21, 4), (0x21, 1), (0x21, mask)
    return "".join(f"mov al, {value:#x}\nout {port:#x}, al\n" for port, value in words)


def programs_pics(icw4: str) -> str:
    """A subroutine's code: both 8259 with vectors from 20h and 28h on, `icw4` a byte or a register, nothing masked."""
    return f"""
    mov al, 0x11
    out 0x20, al
    out 0xA0, al
    mov al, 0x20
    out 0x21, al
    mov al, 0x28
    out 0xA1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xA1, al
    mov al, {icw4}
    out 0x21, al
    out 0xA1, al
    mov al, 0
    out 0x21, al
    out 0xA1, al
    ret
"""


def timer(count: int, vector: int = 8) -> str:
    """As `pic`, and counter 0 of the 8254 in mode 2, with a pulse each `count` (0: 65536) of its clocks."""
    low, high = count & 0xFF, count >> 8
    second = f"mov al, {high}\n" if high != low else ""
    return f"{pic(vector)}mov al, 0x34\nout 0x43, al\nmov al, {low}\nout 0x40, al\n{second}out 0x40, al\n"


#: A pulse each 100 us.
TIMER_100US = timer(119)

#: A boot sector that prints by INT 10h, reads itself by INT 13h, waits for a tick and ends the run with 55h.
READING = """
    bits 16
    org 0x7c00
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    sti
    mov si, text
print:
    lodsb
    or al, al
    jz read
    mov ah, 0x0e
    mov bx, 7
    int 0x10
    jmp print
read:
    mov ax, 0x0201
    mov cx, 1
    mov dx, 0x80
    mov bx, 0x8000
    int 0x13
    mov ax, [0x46c]
wait_tick:
    hlt
    cmp ax, [0x46c]
    je wait_tick
    mov al, [0x81fe]
    out 0xf4, al
    hlt
text: db 'boot sector reached', 0
    times 510-($-$$) db 0
    dw 0xaa55
"""


def reading_debugger(**config: object) -> Debugger:
    """SeaBIOS with READING as its boot sector."""
    return seabios_debugger(assemble(READING), **config)


def syslinux(name: str) -> bytes:
    """A file of Debian's syslinux-common; skips when it is missing."""
    for path in sorted(Path("/usr/lib/syslinux").rglob(name)):
        return path.read_bytes()
    pytest.skip(f"{name} is not installed: apt-get install syslinux-common")
