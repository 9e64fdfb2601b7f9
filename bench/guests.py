"""The guests that are measured: a ROM and two boot sectors, small enough to be written as bytes."""

from __future__ import annotations

from pathlib import Path

#: Where a boot sector is loaded (BIOS Boot Specification 1.01, 6.5.1).
BOOT_ADDRESS = 0x7C00
#: The loop of `loop_disk`: an address it passes through once a turn.
LOOP_ADDRESS = BOOT_ADDRESS + 4
ROM_SIZE = 0x10000
SECTOR = 512
#: One cylinder of the geometry that firmware assumes: 16 heads of 63 sectors.
DISK_SECTORS = 16 * 63

#: mov al, 0; out 0f4h, al; hlt: the debug-exit port ends the run with status 1
EXIT_CODE = bytes.fromhex("b000 e6f4 f4".replace(" ", ""))
#: cli; xor ecx, ecx; turn: inc ecx; mov [8000h], ecx; add ax, cx; nop; jmp turn
LOOP_CODE = bytes.fromhex("fa 6631c9 6641 66890e0080 01c8 90 ebf4".replace(" ", ""))


def exit_rom(path: Path) -> Path:
    """A ROM whose first instructions, at the reset vector, end the run."""
    path.write_bytes(EXIT_CODE.rjust(ROM_SIZE - 16 + len(EXIT_CODE), b"\xff").ljust(ROM_SIZE, b"\xff"))
    return path


def disk(path: Path, code: bytes) -> Path:
    """A hard disk whose boot sector is `code`."""
    sector = code.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"
    path.write_bytes(sector.ljust(DISK_SECTORS * SECTOR, b"\0"))
    return path


def exit_disk(path: Path) -> Path:
    """A boot sector that ends the run."""
    return disk(path, EXIT_CODE)


def loop_disk(path: Path) -> Path:
    """A boot sector that runs for ever with interrupts off."""
    return disk(path, LOOP_CODE)
