"""What a borrowed vCPU executes: two pages of flat 32-bit code that makes accesses and waits for interrupts.

An access is one instruction and an OUT to the port DOOR, which comes back to the process. An interrupt is taken by its
vector's stub, which says the vector at the port BELL. Both ports belong to nobody in the kernel.
"""

from __future__ import annotations

import mmap
import struct
from typing import Final

from emu.x86.state import CpuState, Segment, Table
from xenbridge.ioreq import Type

#: Below the pages that Vm keeps for KVM, where neither RAM nor a device of a machine is.
BASE: Final = 0xFEFE0000
SIZE: Final = 0x2000
DOOR, BELL = 0x5C, 0x5D
_IDT, _GDT, _STUBS, _CODE, _STACK = 0x0000, 0x0800, 0x1000, 0x1800, 0x1FF0
_STUB_SIZE: Final = 8
_SLOT: Final = 8  #: bytes of a piece of code
CODE32, DATA32 = 0x08, 0x10
#: The instruction of each kind of access: EAX is the value, EDX the port, EBX the address.
_ACCESSES: Final = {
    (Type.PIO, True, 1): "ec", (Type.PIO, True, 2): "66ed", (Type.PIO, True, 4): "ed",
    (Type.PIO, False, 1): "ee", (Type.PIO, False, 2): "66ef", (Type.PIO, False, 4): "ef",
    (Type.COPY, True, 1): "8a03", (Type.COPY, True, 2): "668b03", (Type.COPY, True, 4): "8b03",
    (Type.COPY, False, 1): "8803", (Type.COPY, False, 2): "668903", (Type.COPY, False, 4): "8903",
}  # fmt: skip
#: Where each access begins, by type, whether it reads, and size.
ENTRIES: Final = {access: BASE + _CODE + _SLOT * (n + 1) for n, access in enumerate(_ACCESSES)}
#: STI, HLT, and back to the HLT: interrupts are taken there.
LISTEN: Final = BASE + _CODE
STACK: Final = BASE + _STACK


def code() -> mmap.mmap:
    """The two pages, to be a memory slot at BASE."""
    page = mmap.mmap(-1, SIZE)
    # Descriptors: null, code and data, base 0, limit 4 GiB, 32 bits (SDM vol. 3A, 3.4.5).
    struct.pack_into("<QQQ", page, _GDT, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)
    for vector in range(256):
        at = _STUBS + _STUB_SIZE * vector
        # mov al, vector; out BELL, al; jmp $
        page[at : at + 6] = bytes((0xB0, vector, 0xE6, BELL, 0xEB, 0xFE))
        handler = BASE + at
        # A 32-bit interrupt gate, ring 0 (SDM vol. 3A, 6.11).
        gate = struct.pack("<HHBBH", handler & 0xFFFF, CODE32, 0, 0x8E, handler >> 16)
        page[_IDT + 8 * vector : _IDT + 8 * vector + 8] = gate
    page[_CODE : _CODE + 4] = b"\xfb\xf4\xeb\xfd"
    for access, text in _ACCESSES.items():
        piece = bytes.fromhex(text) + bytes((0xE6, DOOR))
        at = ENTRIES[access] - BASE
        page[at : at + len(piece)] = piece
    return page


def vector_at(rip: int) -> int | None:
    """The vector whose stub a CPU is in, with its RIP there; None: it is in none."""
    number = (rip - BASE - _STUBS) // _STUB_SIZE
    return number if 0 <= number < 256 else None


def parked(state: CpuState) -> CpuState:
    """The registers with which a vCPU that had `state` waits to make accesses: what the code does not use stays."""
    waiting = state.copy()
    waiting.rip, waiting.rflags, waiting.regs[4] = LISTEN, 2, STACK
    waiting.cr0, waiting.cr3, waiting.cr4, waiting.efer = 0x60000011, 0, 0, 0
    waiting.shadow = waiting.halted = waiting.nmi_pending = False
    waiting.nmi_blocked = True
    waiting.cs = Segment(CODE32, 0, 0xFFFFFFFF, 0xC09B)
    for name in ("ds", "es", "ss", "fs", "gs"):
        setattr(waiting, name, Segment(DATA32, 0, 0xFFFFFFFF, 0xC093))
    waiting.tr, waiting.ldtr = Segment(0x18, 0, 0x67, 0x8B), Segment(0, 0, 0xFFFF, 0x82)
    waiting.gdtr, waiting.idtr = Table(BASE + _GDT, 3 * 8 - 1), Table(BASE + _IDT, 256 * 8 - 1)
    return waiting
