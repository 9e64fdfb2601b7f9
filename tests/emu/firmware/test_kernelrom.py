"""The kernel ROM: started behind POST by a firmware, here and under QEMU, and what is refused before."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

import emu.firmware
import oracles
from bzimage import bzimage
from emu.firmware import kernelrom, linux16, multiboot
from emu.firmware.kernels import load_after_post, load_kernel_after_post
from emu.firmware.payload import KernelError
from emu.firmware.roms import FirmwareError, find_firmware
from emu.stops import StopKind
from repl.boot_machine import BootMachine
from repl.harness import assemble

MIB = 1 << 20
MEMORY = 16 * MIB
BOCHS = "/usr/share/bochs/BIOS-bochs-legacy"
VGABIOS = "/usr/share/vgabios/vgabios.bin"

#: A kernel that says where its setup code was entered, and what it finds of its file at 100000h and in its header.
SETUP = """
bits 16
org 0x200
    times 0x26c - 0x200 - ($ - $$) db 0     ; the header, whose jump leads behind it
start:
    pushf                   ; interrupts are off
    pop ax
    and ax, 0x200
    call hex
    mov ax, cs
    call hex
    mov ax, ds
    call hex
    mov ax, ss
    call hex
    mov ax, es
    call hex
    mov ax, fs
    call hex
    mov ax, gs
    call hex
    mov ax, sp
    call hex
    mov ax, [0x210]         ; loader, loadflags
    call hex
    mov ax, [0x224]         ; heap end
    call hex
    mov ax, [0x1fa]         ; video mode
    call hex
    mov eax, [0x228]        ; command line
    shr eax, 4
    mov es, ax
    xor si, si
.line:
    es lodsb
    out 0xe9, al
    test al, al
    jnz .line
    mov si, 0x218           ; initrd: eight bytes through the BIOS, from where and how large
    call copy
    mov ax, [0x21c]
    call hex
    mov si, code
    call copy
    mov al, 0
    out 0xf4, al
    cli
    hlt
copy:                       ; INT 15h AH=87h: eight bytes of what [si] points to
    push ds
    pop es
    mov eax, [si]
    mov [gdt + 0x12], ax
    shr eax, 16
    mov [gdt + 0x14], al
    mov [gdt + 0x17], ah
    mov eax, ds
    shl eax, 4
    add eax, copied
    mov [gdt + 0x1a], ax
    shr eax, 16
    mov [gdt + 0x1c], al
    mov cx, 4
    mov si, gdt
    mov ah, 0x87
    int 0x15
    mov si, copied
    mov cx, 8
.out:
    lodsb
    out 0xe9, al
    loop .out
    ret
hex:
    mov cx, 4
.digit:
    rol ax, 4
    push ax
    and al, 15
    add al, '0'
    cmp al, '9'
    jbe .put
    add al, 7
.put:
    out 0xe9, al
    pop ax
    loop .digit
    mov al, ' '
    out 0xe9, al
    ret
code: dd 0x100000
copied: times 8 db 0
gdt: times 16 db 0
    dw 0xffff, 0
    db 0, 0x93, 0, 0
    dw 0xffff, 0
    db 0, 0x93, 0, 0
    times 16 db 0
    times 0xa00 - 0x200 - ($ - $$) db 0
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A bzImage whose setup code is SETUP."""
    source = tmp_path_factory.mktemp("kernel") / "setup.asm"
    source.write_text(SETUP)
    code = assemble(source, source.with_suffix(".bin")).read_bytes()
    image = bytearray(bzimage(code=b"the code".ljust(4096, b"\0"), setup_sects=4))
    image[0x26C:0xA00] = code[0x6C:]
    return bytes(image)


def options(firmware: str, machine: str, files: dict[str, bytes], folder: Path) -> list[str]:
    """Those of `v2e run` for "kernel" and the other files, its initrds."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    words = ["--machine", machine, "--memory", "16M", "--firmware", firmware]
    if firmware == BOCHS:
        if not Path(BOCHS).exists() or not Path(VGABIOS).exists():
            pytest.skip("bochsbios or vgabios is not installed: make setup, as root, installs them")
        words += ["--option-rom", VGABIOS]
    else:
        try:
            find_firmware(firmware, machine)
        except FirmwareError as error:
            pytest.skip(str(error))
    words += ["--kernel", str(folder / "kernel")]
    for name in files:
        words += [] if name == "kernel" else ["--initrd", str(folder / name)]
    return words


def said(words: list[str]) -> str:
    """The last line of what the kernel printed on port E9h, until it ended the run."""
    machine = BootMachine(words, until="exit", limit=300_000_000)
    try:
        stop = machine.run()
        assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
        return machine.debugcon.splitlines()[-1]
    finally:
        machine.close()


def said_under_qemu(machine: str, arguments: list[str]) -> str:
    try:
        result = oracles.run_qemu(machine=machine, cpu="qemu64", arguments=arguments)
    except oracles.OracleMissing as missing:
        pytest.skip(str(missing))
    assert result.status == 1
    return result.debugcon.splitlines()[-1]


def with_our_rom(folder: Path, start: kernelrom.AfterPost) -> list[str]:
    """QEMU's arguments: the ROM and its file, as v2e gives them to its own machine."""
    (folder / "rom").write_bytes(kernelrom.rom())
    (folder / "file").write_bytes(start.file())
    return ["-option-rom", str(folder / "rom"), "-fw_cfg", f"name={kernelrom.FILE},file={folder / 'file'}"]


def test_the_rom_is_its_source_assembled_and_its_bytes_sum_up_to_0(tmp_path: Path):
    folder = Path(emu.firmware.__file__).parent
    assembled = assemble(folder / "kernelrom.asm", tmp_path / "rom").read_bytes()
    rom = kernelrom.rom()
    assert (rom[:-1], assembled[-1]) == (assembled[:-1], 0)
    assert sum(rom) & 0xFF == 0
    assert (rom[:2], rom[2] * 512) == (b"\x55\xaa", len(rom))


@pytest.mark.parametrize("machine", ["isapc", "pc"])
def test_a_multiboot_image_is_handed_behind_post_what_qemus_loader_hands_it(machine: str, tmp_path: Path):
    files = {"kernel": oracles.assemble_image("multiboot"), "one": b"module\0", "two": b", another\0"}
    ours = said([*options("seabios", machine, files, tmp_path), "--append", "one two"])
    modules = f"{tmp_path / 'one'},{tmp_path / 'two'}"
    theirs = ["-kernel", f"{tmp_path / 'kernel'}", "-initrd", modules, "-append", "one two"]
    assert ours == said_under_qemu(machine, theirs)
    assert " two module, another" in ours
    start = load_after_post("kernel", files["kernel"], [("1", b"module\0"), ("2", b", another\0")], "one two", MEMORY)
    assert ours == said_under_qemu(machine, with_our_rom(tmp_path, start))


@pytest.mark.parametrize(("firmware", "machine"), [(BOCHS, "isapc"), ("builtin", "isapc"), ("builtin", "pc")])
def test_firmwares_that_do_not_read_fw_cfg_start_it_too(firmware: str, machine: str, tmp_path: Path):
    files = {"kernel": oracles.assemble_image("multiboot"), "one": b"module\0"}
    assert said([*options(firmware, machine, files, tmp_path), "--append", "last"]).endswith(
        "last module0000000000000001"
    )


@pytest.mark.parametrize("machine", ["isapc", "pc"])
def test_linux_is_entered_in_real_mode_as_boot_rst_says(machine: str, kernel: bytes, tmp_path: Path):
    files = {"kernel": kernel, "initrd": b"ramdisk!"}
    ours = said([*options("seabios", machine, files, tmp_path), "--append", "vga=0x317 quiet"])
    # IF, CS, DS, SS, ES, FS, GS, SP; loader and flags; heap; mode; command line; initrd; code
    assert ours == (
        "0000 1020 1000 1000 1000 1000 1000 E000 81FF DE00 0317 vga=0x317 quiet\0ramdisk!0008 the code"
    )  # fmt: skip
    start = load_after_post("kernel", kernel, [("initrd", b"ramdisk!")], "vga=0x317 quiet", MEMORY)
    assert ours == said_under_qemu(machine, with_our_rom(tmp_path, start))


def test_linux_finds_behind_bochs_bios_what_it_finds_behind_seabios(kernel: bytes, tmp_path: Path):
    files = {"kernel": kernel, "initrd": b"ramdisk!"}
    first, second = (said(options(firmware, "isapc", files, tmp_path)) for firmware in ("seabios", BOCHS))
    assert first == second


def test_the_rom_alone_leaves_the_firmware_without_a_boot_device(tmp_path: Path):
    (tmp_path / "rom").write_bytes(kernelrom.rom())
    words = ["--firmware", "seabios", "--option-rom", str(tmp_path / "rom")]
    machine = BootMachine(words, until="text:No bootable device", limit=300_000_000)
    machine.run()
    machine.close()


@pytest.mark.parametrize(
    ("append", "mode"),
    [("", 0xFFFF), ("vga=ask quiet", 0xFFFD), ("vga=ext", 0xFFFE), ("vga=ask vga=791", 791), ("vga=017", 15)],
)
def test_vga_goes_into_the_header_as_the_setup_code_does_not_read_it(append: str, mode: int):
    image = bytearray(bzimage())
    image[0x1FA:0x1FC] = b"\xff\xff"
    setup = linux16.load("k", bytes(image), b"", append, 32 * MIB).pieces[0][1]
    assert struct.unpack_from("<H", setup, 0x1FA)[0] == mode


@pytest.mark.parametrize(
    ("image", "initrd", "append", "says"),
    [
        (b"hello" * 100, b"", "", "neither a Linux bzImage .* nor a multiboot image"),
        (bzimage(init_size=30 * MIB), b"", "", "a firmware keeps the last: give --memory 47M or more"),
        (bzimage(init_size=4096), bytes(32 * MIB), "", "the initrd has 33554432 bytes"),
        (bzimage(setup_sects=64), b"", "", "33280 bytes of setup code"),
        (bzimage()[:-16], b"", "", "is truncated"),
        (bzimage(), b"", "vga=big", "vga=big: normal, ext, ask or a number"),
        (bzimage(), b"", "vga=65536", "a mode's number has 16 bits"),
    ],
)
def test_what_cannot_be_started_is_refused_in_a_sentence(image: bytes, initrd: bytes, append: str, says: str):
    with pytest.raises(KernelError, match=says) as caught:
        load_after_post("k", image, [("initrd", initrd)] if initrd else [], append, 32 * MIB)
    assert "\n" not in str(caught.value)


def test_a_multiboot_image_below_1_mib_is_where_the_firmware_is():
    image = bytearray(oracles.assemble_image("multiboot"))
    header, start, end, bss_end, entry = struct.unpack_from("<5I", image, 12)
    struct.pack_into("<5I", image, 12, *(address - 0xF0000 for address in (header, start, end, bss_end, entry)))
    multiboot.load("k", bytes(image), [], "", MEMORY)
    with pytest.raises(KernelError, match="not free RAM: 15 MiB are there, so give more --memory, or link it at 0x100"):
        multiboot.load_after_post("k", bytes(image), [], "", MEMORY)


def test_a_kernel_compressed_by_gzip_is_decompressed(tmp_path: Path):
    (tmp_path / "kernel").write_bytes(oracles.assemble_image("multiboot"))
    subprocess.run(["gzip", "-k", tmp_path / "kernel"], check=True)
    plain, packed = (load_kernel_after_post(tmp_path / name, [], "", MEMORY) for name in ("kernel", "kernel.gz"))
    assert plain.pieces[0] == packed.pieces[0]
    whole = (tmp_path / "kernel.gz").read_bytes()
    (tmp_path / "kernel.gz").write_bytes(whole[:-100])
    with pytest.raises(KernelError, match="looks compressed by gzip and cannot be read") as caught:
        load_kernel_after_post(tmp_path / "kernel.gz", [], "", MEMORY)
    assert "\n" not in str(caught.value)
