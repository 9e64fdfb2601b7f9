"""The guests that are measured: a ROM and two boot sectors, small enough to be written as bytes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from repl.harness import MissingTool, assemble

#: Where a boot sector is loaded (BIOS Boot Specification 1.01, 6.5.1).
BOOT_ADDRESS = 0x7C00
#: The loop of `loop_disk`: an address it passes through once a turn, and where it writes its count (ECX) then.
LOOP_ADDRESS = BOOT_ADDRESS + 4
COUNTER_ADDRESS = 0x8000
COUNT_TURNS = 2000  #: of the loop that `count_disk` and `count_symbols` have
ROM_SIZE = 0x10000
SECTOR = 512
#: One cylinder of the geometry that firmware assumes: 16 heads of 63 sectors.
DISK_SECTORS = 16 * 63

#: mov al, 0; out 0f4h, al; hlt: the debug-exit port ends the run with status 1
EXIT_CODE = bytes.fromhex("b000 e6f4 f4".replace(" ", ""))
#: mov al, 'b'; out 0e9h, al, and the same with 'e': what is timed begins, and ends
BEGIN_CODE, END_CODE = bytes.fromhex("b062 e6e9"), bytes.fromhex("b065 e6e9")
#: cli; xor ecx, ecx; turn: inc ecx; mov [8000h], ecx; add ax, cx; nop; jmp turn
LOOP_CODE = bytes.fromhex("fa 6631c9 6641 66890e0080 01c8 90 ebf4".replace(" ", ""))
#: The same in flat 32-bit code: cli; nop; xor ecx, ecx; turn: inc ecx; mov [8000h], ecx; add eax, ecx; nop; jmp turn
FLAT_LOOP_CODE = bytes.fromhex("fa 90 31c9 41 890d00800000 01c8 90 ebf4".replace(" ", ""))


def exit_rom(path: Path) -> Path:
    """A ROM whose first instructions, at the reset vector, end the run."""
    path.write_bytes(EXIT_CODE.rjust(ROM_SIZE - 16 + len(EXIT_CODE), b"\xff").ljust(ROM_SIZE, b"\xff"))
    return path


#: Of a mode's screen: bytes of each plane of 640 by 480, bytes of 320 by 200.
PLANE_BYTES, CHAINED_BYTES = 640 * 480 // 8, 320 * 200
#: Ports and values, words to 3C4h and 3CEh: sequencer running, all planes, memory mode, A0000h, mode, all bits.
_VGA_WORDS = "0300 0f02 {memory:02x}04 0506 {mode:02x}05 ff08"


def fill_rom(path: Path, *, write_mode: int | None, frames: int) -> Path:
    """A ROM that fills the screen of the VGA `frames` times between its marks, a byte at a time (REP STOSB), and ends
    the run: planes in `write_mode`, or, with None, 256 chained colours."""
    memory, mode = (0x06, write_mode) if write_mode is not None else (0x0E, 0x40)
    words = [bytes.fromhex(word) for word in _VGA_WORDS.format(memory=memory, mode=mode).split()]
    code = bytes.fromhex("fa bac203 b0e3 ee")  # cli; misc output: memory on
    for number, word in enumerate(words):
        code += b"\xba" + (b"\xc4\x03" if number < 3 else b"\xce\x03") + b"\xb8" + word[::-1] + b"\xef"
    count = PLANE_BYTES if write_mode is not None else CHAINED_BYTES
    # mov ax, 0a000h; mov es, ax; mov bp, frames; cld; turn: xor di, di; mov cx, count; mov ax, bp; rep stosb; dec bp
    code += BEGIN_CODE + bytes.fromhex("b800a0 8ec0 bd") + frames.to_bytes(2, "little") + bytes.fromhex("fc 31ff b9")
    code += count.to_bytes(2, "little") + bytes.fromhex("89e8 f3aa 4d 75f4") + END_CODE + EXIT_CODE
    return _from_reset(path, code)


#: Of one READ SECTORS command: a count of 0 (ATA-6, 8.27.4).
COMMAND_SECTORS = 256
#: To before the number of commands: cli; cld; es and si 0; mov bp, commands
_READ_START = bytes.fromhex("fafc 31c0 8ec0 31f6 bd")
_READ_CODE = bytes.fromhex(
    "baf603 b002 ee baf601 b0e0 ee"  # 3F6h: nIEN; 1F6h: device 0, LBA
    "baf201 b000 ee 42 ee"  # command: count 0, LBA bits 7-0: 0
    "42 89f0 ee 42 88e0 ee 4242 b020 ee"  # LBA bits 23-8: si; READ SECTORS
    "bb0001"  # mov bx, 256
    "ec a880 75fb a808 741b"  # sector: in al, dx; while BSY; without DRQ to the end's hlt
    "b2f0 bf0080 b90001 f36d b2f7"  # di 8000h, cx 256; rep insw; dx 1F7h again
    "4b 75e8 46 4d 75cc"  # dec bx, to sector; inc si; dec bp, to command
)


def _from_reset(path: Path, code: bytes) -> Path:
    """A ROM that executes `code`, at most 496 bytes, from the reset vector on."""
    start = ROM_SIZE - 0x200
    jump = b"\xe9" + (start - (ROM_SIZE - 16) - 3 & 0xFFFF).to_bytes(2, "little")
    path.write_bytes((b"\xff" * start + code).ljust(ROM_SIZE - 16, b"\xff") + jump.ljust(16, b"\xff"))
    return path


def read_rom(path: Path, commands: int) -> Path:
    """A ROM that reads `commands` times 256 sectors of the first disk by PIO, polling, between its marks, and ends the
    run."""
    start = BEGIN_CODE + _READ_START + commands.to_bytes(2, "little")
    return _from_reset(path, start + _READ_CODE + END_CODE + EXIT_CODE)


def pc_disk_rom(path: Path, commands: int, *, virtio: bool) -> Path:
    """A ROM for `pc` that reads `commands` times 256 sectors of the first disk by bus-master DMA, or of a virtio disk,
    between its marks, and ends the run. Raises MissingTool without nasm."""
    source = path.with_suffix(".asm")
    defines = f"%define COMMANDS {commands}\n" + ("%define VIRTIO\n" if virtio else "")
    source.write_text(f'{defines}%include "disk_pc.asm"\n')
    return assemble(source, path, (Path(__file__).parent,))


def blank_disk(path: Path, sectors: int) -> Path:
    """A hard disk of zeros."""
    with open(path, "wb") as file:
        file.truncate(sectors * SECTOR)
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


def _count(folder: Path, name: str, *options: str) -> Path:
    source = Path(__file__).with_name("count.asm")
    if shutil.which("nasm") is None:
        raise MissingTool(f"{source.name} cannot be assembled: nasm is not installed (Debian: apt-get install nasm)")
    command = ["nasm", *options, f"-DTURNS={COUNT_TURNS}", "-o", str(folder / name), str(source)]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
    return folder / name


def count_disk(folder: Path) -> Path:
    """A boot sector with a loop of one source line. Raises MissingTool."""
    return disk(folder / "count.img", _count(folder, "count.bin", "-f", "bin").read_bytes())


def count_symbols(folder: Path) -> Path:
    """The lines of the same, an ELF file. Raises MissingTool."""
    part = _count(folder, "count.o", "-f", "elf32", "-g", "-F", "dwarf")
    if shutil.which("ld") is None:
        raise MissingTool("count.elf cannot be linked: ld is not installed (Debian: apt-get install binutils)")
    command = ["ld", "-m", "elf_i386", "-Ttext", hex(BOOT_ADDRESS), "-o", str(folder / "count.elf"), str(part)]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
    return folder / "count.elf"
