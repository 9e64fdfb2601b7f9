"""The tables of emu.x86.operands in the form in which the C helper's decoder reads them (emu/native/checks.h)."""

from __future__ import annotations

import ctypes
from ctypes import c_char, c_uint8, c_uint16, c_uint32
from typing import Final

from emu.x86 import operands, vectors

#: No register, in a reference or for ModRM.
NONE: Final = 0xFF
#: The letters of tables that stand for others.
_OTHERS: Final = {"group": b"G", "x87": b"X", "sse": b"S"}


class Spec(ctypes.Structure):
    """struct spec: access, size and immediate by their letters, NUL for none."""

    _fields_ = (("access", c_char), ("size", c_char), ("immediate", c_char))


class Group(ctypes.Structure):
    """One opcode whose operands depend on ModRM.reg."""

    _fields_ = (("opcode", c_uint32), ("specs", Spec * 8))


class Form(ctypes.Structure):
    """One opcode whose operands depend on the mandatory prefix: none, 66, F3, F2."""

    _fields_ = (("opcode", c_uint32), ("specs", Spec * 4))


class Maps(ctypes.Structure):
    """struct maps."""

    _fields_ = (
        ("one_byte", Spec * 256),
        ("two_byte", Spec * 256),
        ("modrm", c_uint8 * 256 * 2),
        ("groups", Group * len(operands.GROUPS)),
        ("x87", Spec * 8 * 8),
        ("sse", Form * len(operands.SSE)),
        ("extensions", c_uint8 * 4 * 256),
        ("fences", c_uint8 * 8 * 2),
    )


class Reference(ctypes.Structure):
    """struct reference: one memory operand. `kind`: 1 read, 2 written, 4 AL is added, 8 while the count is not 0."""

    _fields_ = (
        ("segment", c_uint8), ("kind", c_uint8), ("size", c_uint16), ("base", c_uint8), ("index", c_uint8),
        ("scale", c_uint8), ("bits", c_uint8), ("displacement", c_uint32), ("mask", c_uint32),
    )  # fmt: skip


class Instruction(ctypes.Structure):
    """struct instruction: what the decoder found."""

    _fields_ = (
        ("opcode", c_uint32), ("immediate", c_uint32), ("address_mask", c_uint32), ("stack_mask", c_uint32),
        ("length", c_uint8), ("operand_size", c_uint8), ("reg", c_uint8), ("rm", c_uint8), ("branch", c_uint8),
        ("condition", c_uint8), ("repeat", c_uint8), ("count", c_uint8), ("extension", c_uint8),
        ("references", Reference * 80),
    )  # fmt: skip


def _spec(access_and_size: str, immediate: str = "") -> Spec:
    if access_and_size in _OTHERS:
        return Spec(_OTHERS[access_and_size], b"\0", immediate.encode() or b"\0")
    letters = access_and_size.ljust(2, "\0").encode()
    return Spec(letters[:1], letters[1:2], immediate.encode() or b"\0")


def instruction_maps() -> Maps:
    """The tables, to be kept as long as the helper may decode."""
    maps = Maps()
    for number, (table, into) in enumerate(
        ((operands.ONE_BYTE, maps.one_byte), (operands.TWO_BYTE, maps.two_byte)),
    ):
        for opcode, (access_and_size, immediate) in table.items():
            if number and opcode in operands.NO_MODRM_0F:
                continue
            into[opcode] = _spec(access_and_size, immediate)
            maps.modrm[number][opcode] = access_and_size != ""
    for group, (opcode, entries) in zip(maps.groups, operands.GROUPS.items(), strict=True):
        group.opcode = opcode
        for reg, entry in enumerate(entries):
            group.specs[reg] = _spec(entry)
    for row, names in zip(maps.x87, operands.X87, strict=True):
        for reg, entry in enumerate(names):
            row[reg] = _spec(entry)
    for form, (opcode, by_prefix) in zip(maps.sse, operands.SSE.items(), strict=True):
        form.opcode = opcode
        for prefix, entry in enumerate(by_prefix):
            form.specs[prefix] = _spec(entry)
    for opcode, letters in vectors.TWO_BYTE.items():
        for prefix, letter in enumerate(letters):
            maps.extensions[opcode][prefix] = vectors.EXTENSIONS[letter]
    for row_of_fences, letters in zip(maps.fences, (vectors.FENCES_MEMORY, vectors.FENCES_REGISTER), strict=True):
        for reg, letter in enumerate(letters):
            row_of_fences[reg] = vectors.EXTENSIONS[letter]
    return maps
