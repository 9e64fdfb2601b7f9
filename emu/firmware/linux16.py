"""Starting a Linux bzImage by its real-mode setup code, which asks the firmware what the machine has.

Offsets, names and rules are those of the kernel's Documentation/arch/x86/boot.rst ("Memory Layout", "The Real-Mode
Kernel Header", "Special Command Line Options", "Running the Kernel").
"""

from __future__ import annotations

import struct

from emu.firmware.kernelrom import FIRMWARE_KEPT, AfterPost, enter_linux
from emu.firmware.linux import (
    CMD_LINE_PTR,
    HIGH,
    LOADER_TYPE,
    LOADER_UNDEFINED,
    LOADFLAGS,
    RAMDISK_IMAGE,
    check_cmdline,
    end_of,
    parse,
    place_initrd,
)
from emu.firmware.payload import KernelError

VID_MODE, HEAP_END_PTR = 0x1FA, 0x224
CAN_USE_HEAP = 0x80  #: LOADFLAGS: HEAP_END_PTR says where the heap ends
#: "As low as possible" in conventional memory, above what the ROM itself works in. The setup code has the first 32 KiB
#: of its segment, heap and stack go up to HEAP_END; the command line has the segment behind.
SETUP, SETUP_MAX, HEAP_END, CMD_LINE = 0x10000, 0x8000, 0xE000, 0x20000
#: Values of "vga=" that are words.
MODES = {"normal": 0xFFFF, "ext": 0xFFFE, "ask": 0xFFFD}


def load(name: str, image: bytes, initrd: bytes, append: str, memory: int) -> AfterPost:
    """What a boot loader does for a bzImage on a PC with `memory` bytes of RAM, whose firmware is there; `initrd` may
    be empty.

    Raises KernelError when `image` is no bzImage, or kernel, initrd or command line do not fit."""
    header = parse(name, image)
    line = check_cmdline(name, header, append)
    setup, code = bytearray(image[: header.setup]), image[header.setup :]
    if len(setup) > SETUP_MAX:
        raise KernelError(f"kernel {name} has {len(setup)} bytes of setup code, and {SETUP_MAX} is the most there is")
    free = memory - FIRMWARE_KEPT
    end = end_of(header, code)
    if end > free:
        raise KernelError(
            f"kernel {name} needs memory up to {end:#x}, and of {memory >> 20} MiB a firmware keeps the last: "
            f"give --memory {-(-(end + FIRMWARE_KEPT) >> 20)}M or more"
        )
    where = place_initrd(name, header, end, len(initrd), free) if initrd else 0
    setup[LOADER_TYPE] = LOADER_UNDEFINED
    setup[LOADFLAGS] |= CAN_USE_HEAP
    struct.pack_into("<H", setup, HEAP_END_PTR, HEAP_END - 0x200)
    struct.pack_into("<I", setup, CMD_LINE_PTR, CMD_LINE)
    struct.pack_into("<II", setup, RAMDISK_IMAGE, where, len(initrd))
    if (mode := _video_mode(append)) is not None:
        struct.pack_into("<H", setup, VID_MODE, mode)
    pieces = [(SETUP, bytes(setup)), (CMD_LINE, line), (HIGH, code)]
    if initrd:
        pieces.append((where, initrd))
    return AfterPost(f"Linux {header.release}".rstrip(), tuple(pieces), enter_linux(SETUP >> 4, HEAP_END))


def _video_mode(append: str) -> int | None:
    """The mode that "vga=" asks the setup code for, which does not read the command line for it. Raises KernelError."""
    found = [word.removeprefix("vga=") for word in append.split() if word.startswith("vga=")]
    if not found:
        return None
    text = found[-1]
    try:
        mode = MODES[text] if text in MODES else int(text, 8 if text[:1] == "0" and text.isdigit() else 0)
    except ValueError:
        raise KernelError(f"--append has vga={text}: {', '.join(MODES)} or a number is needed") from None
    if not 0 <= mode <= 0xFFFF:
        raise KernelError(f"--append has vga={text}: a mode's number has 16 bits")
    return mode
