"""Where two states of a CPU differ, by name: registers, hidden segment state, MSRs, FPU, what no register shows."""

from __future__ import annotations

from collections.abc import Iterator

from emu.record import fields
from emu.x86.state import GENERAL, CpuState, Fpu, Segment, Table

#: (name, first value, second value)
Difference = tuple[str, int, int]


def differences(one: CpuState, other: CpuState) -> Iterator[Difference]:
    """Each value that is not the same in both: `rax`, `ss.base`, `gdtr.limit`, `msr 0x10`, `fpu.st3`, `shadow`."""
    for f in fields(one):
        ours, theirs = getattr(one, f.name), getattr(other, f.name)
        if ours != theirs:
            yield from _inside(f.name, ours, theirs)


def _inside(name: str, one: object, other: object) -> Iterator[Difference]:
    if isinstance(one, Segment | Table | Fpu):
        for f in fields(one):
            ours, theirs = getattr(one, f.name), getattr(other, f.name)
            if ours != theirs:
                yield from _inside(f"{name}.{f.name}", ours, theirs)
    elif isinstance(one, dict) and isinstance(other, dict):
        for number in sorted({*one, *other}):
            if one.get(number) != other.get(number):
                yield f"msr {number:#x}", one.get(number, 0), other.get(number, 0)
    elif isinstance(one, list) and isinstance(other, list):
        for number, (ours, theirs) in enumerate(zip(one, other, strict=True)):
            if ours != theirs:
                yield _element(name, number), ours, theirs
    elif isinstance(one, int) and isinstance(other, int):
        yield name, int(one), int(other)


def _element(name: str, number: int) -> str:
    if name == "regs":
        return GENERAL[number]
    return f"{name}{number}"
