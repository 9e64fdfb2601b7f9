"""Code decoded by the width of its own segment, with jumps that lead where the CPU would go.

gdb decodes everything by one architecture, that of the guest's present mode. This decodes by

- `set v2e code-width 16`, `32` or `64`, where the user says it; else (`auto`, the default)
- the width of the selected frame's code: `x/i` after `up` into a 16-bit caller of 32-bit code is 16-bit code.

And gdb takes the upper half of a 16-bit jump's target from the linear address it decodes at, which is wrong where the
base of CS is no multiple of 64 KiB. Here it is what the selected frame's CS base says.
"""

from __future__ import annotations

import re
from typing import Any

import gdb.disassembler

import gdb

from .decode import LONGEST, decode
from .guest import Guest

WIDTHS = {"i8086": 16, "i386": 32, "i386:x86-64": 64}


class Settings(gdb.Command):  # type: ignore[misc]  # only gdb knows its own module
    """Settings of v2e's helper."""

    def __init__(self, name: str) -> None:
        super().__init__(name, gdb.COMMAND_DATA, gdb.COMPLETE_NONE, True)


class CodeWidth(gdb.Parameter):  # type: ignore[misc]
    """Width of code that x/i and disassemble show: auto (of the selected frame's code), 16, 32 or 64."""

    set_doc = show_doc = "Width of the code that x/i and disassemble show: auto, 16, 32 or 64."

    def __init__(self) -> None:
        super().__init__("v2e code-width", gdb.COMMAND_DATA, gdb.PARAM_ENUM, ["auto", "16", "32", "64"])
        self.value = "auto"

    def get_set_string(self) -> str:
        return ""

    def get_show_string(self, value: str) -> str:
        return f"Code is decoded {'by the selected frame' if value == 'auto' else f'as {value}-bit code'}."


def architectures() -> dict[int, Any]:
    """gdb's architecture for each width, as far as they can be had; the user's `set architecture` stays."""
    before = gdb.parameter("architecture")
    found = {}
    for name, width in WIDTHS.items():
        try:
            gdb.execute(f"set architecture {name}", to_string=True)
            found[width] = gdb.selected_inferior().architecture()
        except gdb.error:
            continue
    gdb.execute(f"set architecture {before}", to_string=True)
    return found


class ByWidth(gdb.disassembler.Disassembler):  # type: ignore[misc]
    """gdb's own decoder with another width, where that is needed."""

    def __init__(self, guest: Guest, parameter: CodeWidth) -> None:
        super().__init__("v2e")
        self._guest, self._parameter = guest, parameter
        self._architectures = architectures()
        self._busy = False

    def __call__(self, info: Any) -> Any:
        own = WIDTHS.get(info.architecture.name())
        if self._busy or own is None:
            return None
        try:
            frame = gdb.selected_frame()
            width = int(frame.read_register("mode"))
            base = int(frame.read_register("cs_base")) & 0xFFFFFFFF if width == 16 else 0
        except (gdb.error, ValueError):
            return None  # no target, or none of v2e's
        if self._parameter.value != "auto":
            width = int(self._parameter.value)
        if width != own:
            result = self._decode_as(width, info.address)
        elif width == 16 and base & 0xFFFF:
            result = gdb.disassembler.builtin_disassemble(info)
        else:
            return None
        if result is None or width != 16:
            return result
        return gdb.disassembler.DisassemblerResult(result.length, self._led(result.string, info.address, base))

    def _decode_as(self, width: int, address: int) -> Any:
        architecture = self._architectures.get(width)
        if architecture is None:
            return None
        self._busy = True
        try:
            row = architecture.disassemble(address)[0]
        finally:
            self._busy = False
        return gdb.disassembler.DisassemblerResult(row["length"], row["asm"])

    def _led(self, text: str, address: int, base: int) -> str:
        """`text` with the target of a relative jump or call corrected to the one in the segment at `base`."""
        code = self._guest.read(address, LONGEST) if 0 <= address - base <= 0xFFFF else None
        i = None if code is None else decode(code, False)
        if i is None or not (
            0x70 <= i.opcode <= 0x7F or 0xE0 <= i.opcode <= 0xE3 or i.opcode in (0xE8, 0xE9, 0xEB)
            or 0x0F80 <= i.opcode <= 0x0F8F
        ):  # fmt: skip
            return text
        target = base + (address - base + i.length + i.immediate & 0xFFFF)
        symbol = str(gdb.execute(f"output/a (char *){target:#x}", to_string=True))
        return re.sub(r"0x[0-9a-f]+(?: <[^>]*>)?$", symbol.strip(), text)


def install(guest: Guest) -> None:
    """Register with gdb for all architectures."""
    Settings("set v2e")
    Settings("show v2e")
    gdb.disassembler.register_disassembler(ByWidth(guest, CodeWidth()), None)
