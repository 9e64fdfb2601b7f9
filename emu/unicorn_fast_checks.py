"""The tables of emu.x86.operands in the form in which the C helper's decoder reads them (emu/native/checks.h)."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable
from ctypes import c_char, c_uint8, c_uint16, c_uint32
from struct import pack

from emu.typed import Final
from emu.x86 import operands, vectors

#: No register, in a reference or for ModRM.
NONE: Final = 0xFF
#: The letters of tables that stand for others.
_OTHERS: Final = {"group": b"G", "x87": b"X", "sse": b"S"}
_UNKNOWN: Final = ("", "")


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
        ("extensions", c_uint16 * 4 * 256),
        ("fences", c_uint16 * 8 * 2),
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
        ("condition", c_uint8), ("repeat", c_uint8), ("count", c_uint8), ("extension", c_uint16),
        ("lock", c_uint8), ("form", c_uint8), ("relative", c_uint8), ("unknown", c_uint8), ("stack_size", c_uint8),
        ("narrow", c_uint8), ("wide", c_uint8),
        ("references", Reference * 80),
    )  # fmt: skip


@functools.cache
def _spec(access_and_size: str, immediate: str = "") -> bytes:
    """A `Spec`."""
    letters = _OTHERS.get(access_and_size) or access_and_size.encode()
    return letters.ljust(2, b"\0") + immediate.encode().ljust(1, b"\0")


def _specs(entries: Iterable[str]) -> bytes:
    return b"".join([_spec(entry) for entry in entries])


def instruction_maps() -> Maps:
    """The tables, to be kept as long as the helper may decode. They are put together as bytes: field by field ctypes
    took 2 ms of each start."""
    bytes_of: dict[str, bytes] = {"modrm": b""}
    for name, table, without in (
        ("one_byte", operands.ONE_BYTE, frozenset[int]()), ("two_byte", operands.TWO_BYTE, operands.NO_MODRM_0F),
    ):  # fmt: skip
        known = [_UNKNOWN if opcode in without else table.get(opcode, _UNKNOWN) for opcode in range(256)]
        bytes_of[name] = b"".join([_spec(*entry) for entry in known])
        bytes_of["modrm"] += bytes([access_and_size != "" for access_and_size, _ in known])
    for name, tables in (("groups", operands.GROUPS), ("sse", operands.SSE)):
        bytes_of[name] = b"".join([pack("<I", opcode) + _specs(entries) for opcode, entries in tables.items()])
    bytes_of["x87"] = b"".join([_specs(entries) for entries in operands.X87])
    extensions = [vectors.TWO_BYTE.get(opcode, "") for opcode in range(256)]
    bytes_of["extensions"] = b"".join(
        [pack("<4H", *(vectors.EXTENSIONS[letter] for letter in letters.ljust(4, "-"))) for letters in extensions]
    )
    fences = vectors.FENCES_MEMORY, vectors.FENCES_REGISTER
    bytes_of["fences"] = pack("<16H", *(vectors.EXTENSIONS[letter] for letters in fences for letter in letters))
    maps = bytearray(ctypes.sizeof(Maps))
    for name, data in bytes_of.items():
        field = getattr(Maps, name)
        if len(data) != field.size:
            raise ValueError(f"the table {name} of instructions has {len(data)} bytes, not {field.size}")
        maps[field.offset : field.offset + len(data)] = data
    return Maps.from_buffer(maps)
