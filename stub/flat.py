"""All registers of a description at once, in hex, from a CPU's flat state (`emu.packed.Flat`): the answer to `g`.

Each register is a piece of that structure's text, or several, or zeros where it is wider than what the CPU has. Which
pieces, is found once for a description.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from emu.packed import FX_MXCSR, FX_ST, FX_XMM, MSRS, Flat, Packed, PackedSegment, PackedTable
from emu.x86 import registers
from emu.x86.state import GENERAL, SEGMENTS
from stub.registers import X86Register
from stub.target import Description

#: FXSAVE's image (SDM vol. 1, 10.5.1): the x87 registers that are in it, where, and their bytes. FOP has 11 bits, the
#: others none.
_X87 = {"fctrl": (0, 2), "fstat": (2, 2), "fop": (6, 2), "fioff": (8, 4), "fooff": (16, 4)}

Place = tuple[int, int]  #: offset and bytes


def _at(structure: type[ctypes.Structure], name: str) -> Place:
    field: Any = getattr(structure, name)
    return field.offset, field.size


def _places() -> Iterator[tuple[str, Place]]:
    """Where in Flat the registers of `emu.x86.registers` are, by their names. `cpu` is the first of it."""
    regs, _ = _at(Packed, "regs")
    for number, name in enumerate(GENERAL):
        yield name, (regs + 8 * number, 8)
        if number < 8:
            yield f"e{name[1:]}", (regs + 8 * number, 4)
    yield "rip", _at(Packed, "rip")
    yield "eflags", (_at(Packed, "rflags")[0], 4)
    segments, _ = _at(Packed, "segments")
    for number, name in enumerate((*SEGMENTS, "ldtr", "tr")):
        start = segments + ctypes.sizeof(PackedSegment) * number
        for suffix, part in (("", "selector"), ("_base", "base"), ("_limit", "limit"), ("_attr", "access")):
            offset, size = _at(PackedSegment, part)
            yield name + suffix, (start + offset, size)
    for name in ("gdtr", "idtr"):
        for part in ("base", "limit"):
            offset, size = _at(PackedTable, part)
            yield f"{name}_{part}", (_at(Packed, name)[0] + offset, size)
    for name in ("cr0", "cr2", "cr3", "cr4", "cr8", "efer"):
        yield name, _at(Packed, name)
    for number in (0, 1, 2, 3, 6, 7):
        yield f"dr{number}", (_at(Packed, "dr")[0] + 8 * number, 8)
    for name, (msr, _) in registers.MSRS.items():
        yield name, (_at(Packed, "msrs")[0] + 8 * MSRS.index(msr), 8) if msr in MSRS else _at(Flat, name)
    fx, _ = _at(Packed, "fx")
    for number in range(8):
        yield f"st{number}", (fx + FX_ST + 16 * number, 10)
    for number in range(16):
        yield f"xmm{number}", (fx + FX_XMM + 16 * number, 16)
    for name, (offset, size) in (*_X87.items(), ("mxcsr", (FX_MXCSR, 4))):
        yield name, (fx + offset, size)
    yield "fiseg", _at(Packed, "fcs")
    yield "foseg", _at(Packed, "fds")
    yield "ftag", (_at(Flat, "tags")[0], 2)
    yield "mode", _at(Flat, "code_bits")
    yield "cpl", _at(Flat, "cpl")


class FlatTeller:
    """Tells all registers of a description. Those of `stub.registers.describe`, but for `engine`."""

    __slots__ = ("_form", "_pieces", "description")

    def __init__(self, description: Description) -> None:
        """Raises KeyError for a register that has no place in a flat state."""
        self.description = description
        places = dict(_places())
        places["icount"] = ctypes.sizeof(Flat), 8  # behind it
        form, slices = "", list[slice]()
        joins = False  # the last piece is the last thing in the form
        for register in description.registers:
            for offset, size, missing in self._parts(register, places):
                if joins and slices[-1].stop == 2 * offset:
                    slices[-1] = slice(slices[-1].start, 2 * (offset + size))
                else:
                    slices.append(slice(2 * offset, 2 * (offset + size)))
                    form += "%s"
                form += "00" * missing
                joins = not missing
        self._form, self._pieces = form, itemgetter(*slices)

    @staticmethod
    def _parts(register: object, places: dict[str, Place]) -> Iterator[tuple[int, int, int]]:
        """The register's pieces: offset, bytes, and bytes of zeros behind them."""
        assert isinstance(register, X86Register)
        if register.is_engine:
            raise KeyError(register.name)
        if register.is_count:
            yield *places[register.name], 0
        for part in register.parts:
            offset, size = _at(Flat, "linear_pc") if register.is_pc else places[part.name]
            taken = min(size, part.bits // 8)
            yield offset, taken, part.bits // 8 - taken

    def tell(self, state: Flat, retired: int) -> bytes:
        """As `g` has them; `retired` instructions have."""
        pieces: tuple[str, ...] = self._pieces(memoryview(state).cast("B").hex() + retired.to_bytes(8, "little").hex())
        return (self._form % pieces).encode("ascii")
