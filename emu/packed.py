"""A CPU's state in one flat structure, which two CPUs share so that a move between them takes nothing apart in Python.

The layout is that of emu/native/packed.h: little-endian, each field at a multiple of its size. Units and meaning are
those of `emu.x86.state.CpuState`. It has what a hypervisor's CPU may change; the rest (system management mode, the
other MSRs) stays with the emulator meanwhile.
"""

from __future__ import annotations

import ctypes
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64

from emu.typed import Final, Protocol
from emu.x86 import msrs as m
from emu.x86.state import SEGMENTS, CpuState, Fpu, Segment, Table

#: What may have stayed the same since a state was packed; all else always counts as changed.
PART_FPU, PART_DEBUG, PART_MSRS, PART_TSC = 1, 2, 4, 8
#: The MSRs in their order.
MSRS: Final = (
    m.SYSENTER_CS, m.SYSENTER_ESP, m.SYSENTER_EIP, m.STAR, m.LSTAR, m.CSTAR, m.FMASK, m.KERNEL_GS_BASE, m.TSC_AUX,
)  # fmt: skip
FX_SIZE: Final = 512  #: bytes of an FXSAVE image
# Where things are in it (SDM vol. 1, 10.5.1).
FX_MXCSR, FX_ST, FX_XMM = 24, 32, 160
_NAMES: Final = (*SEGMENTS, "ldtr", "tr")


class PackedSegment(ctypes.Structure):
    """struct packed_segment: a descriptor cache, `access` in the layout of Segment.access."""

    _fields_ = (
        ("base", c_uint64), ("limit", c_uint32), ("selector", c_uint32), ("access", c_uint32), ("pad", c_uint32),
    )  # fmt: skip
    base: int
    limit: int
    selector: int
    access: int


class PackedTable(ctypes.Structure):
    """struct packed_table: GDTR or IDTR."""

    _fields_ = (("base", c_uint64), ("limit", c_uint64))
    base: int
    limit: int


class Packed(ctypes.Structure):
    """struct packed. `fx` is as FXSAVE64 stores it, with the abridged tags, MXCSR_MASK and what is reserved 0; `fcs`
    and `fds` are the selectors that it has no place for."""

    _fields_ = (
        ("regs", c_uint64 * 16), ("rip", c_uint64), ("rflags", c_uint64), ("segments", PackedSegment * 8),
        ("gdtr", PackedTable), ("idtr", PackedTable),
        ("cr0", c_uint64), ("cr2", c_uint64), ("cr3", c_uint64), ("cr4", c_uint64), ("cr8", c_uint64),
        ("efer", c_uint64), ("dr", c_uint64 * 8), ("msrs", c_uint64 * len(MSRS)), ("tsc_adjust", c_uint64),
        ("shadow", c_uint8), ("nmi_blocked", c_uint8), ("halted", c_uint8), ("a20", c_uint8), ("_pad", c_uint8 * 4),
        ("fcs", c_uint16), ("fds", c_uint16), ("_pad2", c_uint16 * 2), ("fx", c_uint8 * FX_SIZE),
    )  # fmt: skip
    regs: ctypes.Array[c_uint64]
    rip: int
    rflags: int
    segments: ctypes.Array[PackedSegment]
    gdtr: PackedTable
    idtr: PackedTable
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    efer: int
    dr: ctypes.Array[c_uint64]
    msrs: ctypes.Array[c_uint64]
    tsc_adjust: int
    shadow: int
    nmi_blocked: int
    halted: int
    a20: int
    fcs: int
    fds: int
    fx: ctypes.Array[c_uint8]


class Flat(ctypes.Structure):
    """struct flat: a state as a debugger looks at it. `code_bits` is the width of the next instruction
    (`emu.x86.modes.code_bits`), `tags` the whole x87 tag word (`emu.x86.registers.full_tag_word`)."""

    _fields_ = (
        ("cpu", Packed), ("linear_pc", c_uint64), ("pat", c_uint64), ("apic_base", c_uint64),
        ("code_bits", c_uint32), ("cpl", c_uint32), ("tags", c_uint32), ("_pad", c_uint32),
    )  # fmt: skip
    apic_base: int


class Packing(Protocol):
    """An emulator that can be moved without a copy of its state being made in Python. Used between two runs."""

    packed: Packed  #: what it is about; the emulator owns it
    #: The addresses of a C function and of its one argument, `int pack(const void *)`: puts the state there and lowers
    #: INTR, as another CPU goes on. To be called where the emulator is `packable`, and 0, with nothing done, says that
    #: there is more to the state after all: a delivery that nobody has heard of, an NMI, system management mode, or an
    #: XCR0 that is not 1.
    packer: tuple[int, int]
    odd: bool  #: false: `packable` would say yes, and need not be asked

    def packable(self) -> bool:
        """There is no more to the state than what is packed: no NMI, no breakpoint to be passed, no system management
        mode; and XCR0 is 1."""

    def look(self) -> Flat:
        """The state between two runs, which stays as it is. The same object each time."""

    def unpack(self, parts: int) -> None:
        """Go on from what is there; the FPU, debug registers, MSRs and the time stamp's offset only where `parts`
        (PART_*) has them, as the others are what they were when it was packed."""

    def host_changed(self, pieces: int, count: int) -> None:
        """Another CPU has written guest memory: at the address `pieces` are `count` pairs of 64-bit words, an address
        in this process and bytes. Drop translations made from them."""


def pack_state(state: CpuState, packed: Packed) -> None:
    """Put what it has a place for into `packed`."""
    packed.regs = (c_uint64 * 16)(*state.regs)
    packed.rip, packed.rflags = state.rip, state.rflags
    for target, name in zip(packed.segments, _NAMES, strict=True):
        s = state.segment(name)
        target.base, target.limit, target.selector, target.access = s.base, s.limit, s.selector, s.access
    gdtr, idtr = state.gdtr, state.idtr
    packed.gdtr, packed.idtr = PackedTable(gdtr.base, gdtr.limit), PackedTable(idtr.base, idtr.limit)
    packed.cr0, packed.cr2, packed.cr3, packed.cr4 = state.cr0, state.cr2, state.cr3, state.cr4
    packed.cr8, packed.efer = state.cr8, state.efer
    packed.dr = (c_uint64 * 8)(*state.dr)
    packed.msrs = (c_uint64 * len(MSRS))(*(state.msrs.get(number, 0) for number in MSRS))
    packed.tsc_adjust = state.msrs.get(m.TSC_ADJUST, 0)
    packed.shadow, packed.nmi_blocked = state.shadow, state.nmi_blocked
    packed.halted, packed.a20 = state.halted, state.a20
    pack_fpu(state.fpu, packed)


def pack_fpu(fpu: Fpu, packed: Packed) -> None:
    """The FPU's part of `pack_state`."""
    head = (
        fpu.fcw.to_bytes(2, "little") + fpu.fsw.to_bytes(2, "little") + bytes((fpu.ftw, 0))
        + fpu.fop.to_bytes(2, "little") + fpu.fip.to_bytes(8, "little") + fpu.fdp.to_bytes(8, "little")
        + fpu.mxcsr.to_bytes(8, "little")
    )  # fmt: skip
    image = head + b"".join(value.to_bytes(16, "little") for value in (*fpu.st, *fpu.xmm))
    ctypes.memmove(packed.fx, image.ljust(FX_SIZE, b"\0"), FX_SIZE)
    packed.fcs, packed.fds = fpu.fcs, fpu.fds


def unpack_fpu(packed: Packed) -> Fpu:
    """The FPU's state."""
    image = bytes(packed.fx)

    def number(at: int, size: int) -> int:
        return int.from_bytes(image[at : at + size], "little")

    return Fpu(
        number(0, 2), number(2, 2), image[4], number(6, 2), number(8, 8), packed.fcs, number(16, 8), packed.fds,
        number(FX_MXCSR, 4), [number(FX_ST + 16 * i, 16) for i in range(8)],
        [number(FX_XMM + 16 * i, 16) for i in range(16)],
    )  # fmt: skip


def unpack_msrs(packed: Packed, rest: dict[int, int]) -> dict[int, int]:
    """The MSRs, with those that it does not have as in `rest`; one that `rest` does not know only where it is not 0."""
    values = zip(MSRS, packed.msrs, strict=True)
    return {**rest, **{number: value for number, value in values if value or number in rest}}


def unpack_state(packed: Packed, rest: CpuState) -> CpuState:
    """A copy of the state, with what is not packed as in `rest`."""
    es, cs, ss, ds, fs, gs, ldtr, tr = (Segment(s.selector, s.base, s.limit, s.access) for s in packed.segments)
    gdtr, idtr = packed.gdtr, packed.idtr
    return CpuState(
        list(packed.regs), packed.rip, packed.rflags, es, cs, ss, ds, fs, gs, ldtr, tr,
        Table(gdtr.base, gdtr.limit), Table(idtr.base, idtr.limit),
        packed.cr0, packed.cr2, packed.cr3, packed.cr4, packed.cr8, list(packed.dr), packed.efer,
        unpack_msrs(packed, rest.msrs), unpack_fpu(packed), bool(packed.halted), bool(packed.shadow),
        bool(packed.nmi_blocked), rest.nmi_pending, rest.smm, rest.smm_nmi, rest.smbase, bool(packed.a20),
        rest.xcr0,
    )  # fmt: skip
