"""A CPU that has run off into memory of zeros: `00 00` is `add [bx+si], al` or `add [eax], al`, and goes on and on."""

from __future__ import annotations

from emu.inspector import PHYSICAL_BITS
from emu.machine import Machine
from emu.x86 import paging
from emu.x86.modes import code_bits
from emu.x86.state import CpuState

#: Bytes ahead that are looked at first, and that must be zeros at least: 256 instructions that no program has.
GLANCE, ENOUGH = 64, 512
#: Bytes in each direction that are looked at; a segment of 16-bit code has no more.
REACH = 1 << 16
_PAGE = 0x1000


def read_linear(machine: Machine, state: CpuState, linear: int, length: int) -> bytes:
    """Up to `length` bytes of memory at a linear address, as far as they can be read without side effects."""
    found, memory = bytearray(), machine.memory
    while len(found) < length:
        at = linear + len(found)
        physical = paging.translate(state, memory.try_read, at, PHYSICAL_BITS)
        count = min(0x1000 - at % 0x1000, length - len(found))
        if physical is None or not (count := memory.available(physical, count)):
            break
        found += memory.read(physical, count)
    return bytes(found)


def glance(machine: Machine) -> bool:
    """The next bytes that the CPU executes are zeros: it may have run off. Cheap."""
    executor = machine.executor
    return not any(data := read_linear(machine, executor.live(), executor.linear_pc, GLANCE)) and len(data) == GLANCE


def zeros(machine: Machine) -> tuple[int, int] | None:
    """The first and last linear address of the zeros that the CPU executes, as far as `REACH` goes; None: it does not,
    or there are few."""
    if not glance(machine):
        return None
    state = machine.executor.state()
    pc = state.linear_pc
    if code_bits(state) == 16:
        offset = pc - state.cs.base & 0xFFFF
        below, above = offset, REACH - offset
    else:
        below, above = min(pc, REACH), REACH
    up = _upwards(machine, state, pc, above)
    ahead = up
    if up == above and code_bits(state) == 16:  # IP goes round
        ahead += _upwards(machine, state, state.cs.base, below)
    if ahead < ENOUGH:
        return None
    return pc - _downwards(machine, state, pc, below), pc + up - 1


def _upwards(machine: Machine, state: CpuState, linear: int, length: int) -> int:
    """How many bytes from `linear` on are zeros."""
    data = read_linear(machine, state, linear, length)
    return len(data) - len(data.lstrip(b"\0"))


def _downwards(machine: Machine, state: CpuState, linear: int, length: int) -> int:
    """How many bytes right below `linear` are zeros."""
    found = 0
    while found < length:
        count = min((linear - found - 1) % _PAGE + 1, length - found)
        data = read_linear(machine, state, linear - found - count, count)
        alike = len(data) - len(data.rstrip(b"\0")) if len(data) == count else 0
        found += alike
        if alike < count:
            break
    return found
