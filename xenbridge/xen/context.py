"""A domain's HVM context as records, and the CPU record as registers, by struct: what control of a domain needs.

Source: Xen 4.17, xen/include/public/arch-x86/hvm/save.h (struct hvm_hw_cpu, 1032 bytes, little-endian).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from emu.x86.state import CpuState, Fpu, Segment, Table

END, HEADER, CPU, PIC, IOAPIC, LAPIC, LAPIC_REGS, PIT, RTC, CPU_XSAVE = 0, 1, 2, 3, 4, 5, 6, 10, 11, 16
_HEAD: Final = struct.Struct("<HHI")  #: typecode, instance, length
CPU_LENGTH: Final = 1032
GENERAL_OFFSET, RIP_OFFSET, RFLAGS_OFFSET, FLAGS_OFFSET = 512, 640, 648, 1024
#: rip, rflags, cr0, cr2, cr3, cr4, dr0-3, dr6, dr7
_CONTROL: Final = struct.Struct("<12Q")
#: General registers in Xen's order, as indexes of `emu.x86.state.GENERAL`.
_ORDER: Final = (0, 3, 1, 2, 5, 6, 7, 4, 8, 9, 10, 11, 12, 13, 14, 15)
_SEGMENTS: Final = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr")
_SELECTORS, _LIMITS, _BASES, _RIGHTS = 736, 768, 808, 888
CS_BASE_OFFSET: Final = _BASES
_MSR_OFFSETS: Final = {
    0x174: 920, 0x175: 928, 0x176: 936,  # SYSENTER_CS, ESP, EIP
    0xC0000102: 944, 0xC0000082: 960, 0xC0000081: 968, 0xC0000083: 976, 0xC0000084: 984,  # GS base, LSTAR to FMASK
    0xC0000103: 1000,  # TSC_AUX
}  # fmt: skip
_EFER, TSC_OFFSET, PENDING_OFFSET = 992, 1008, 1016
#: `pending_event`: an external interrupt that is delivered at the next entry; the vector is in the low byte.
PENDING_VALID: Final = 1 << 31
#: What tells an external interrupt from other events: valid, and type 0 in bits 10:8.
PENDING_KIND: Final = PENDING_VALID | 0x700
#: In a CPU_XSAVE record (struct hvm_hw_cpu_xsave): the host's components, XCR0, all that XCR0 has had, then the area
#: with its header, which begins with XSTATE_BV.
_XCR0: Final = struct.Struct("<3Q")
_XSAVE_AREA, _XSTATE_BV = 24, 24 + 512
XSAVE_LENGTH: Final = _XSTATE_BV + 64
_X87, _SSE = 1, 2
_X87_AND_SSE: Final = _X87 | _SSE
_AVX, _AVX_LENGTH = 4, 256
#: In an FXSAVE area (SDM vol. 1, table 10-2); FCW, with which it begins, after FNINIT.
_MXCSR, _ST, _XMM, _XMM_END = 24, 32, 160, 416
_AFTER_FNINIT: Final = 0x37F
#: Descriptor attributes are 12 bits in the record: bits 7:0 as in a descriptor, 11:8 its G, D/B, L and AVL.
UNUSABLE: Final = 1 << 16
_FXSAVE: Final = struct.Struct("<HHBxHIHxxIHxxII")  #: SDM vol. 1, table 10-2, without REX.W


class ContextError(Exception):
    """One sentence: what a context lacks, with the record and its offset."""


class Record(NamedTuple):
    """One record of a context; `instance` is the vCPU's number or the chip's."""

    code: int
    instance: int
    data: bytes


def split(raw: bytes) -> list[Record]:
    """The records, END excluded. Raises ContextError where one is cut short or END is missing."""
    records: list[Record] = []
    offset = 0
    while offset + _HEAD.size <= len(raw):
        code, instance, length = _HEAD.unpack_from(raw, offset)
        if code == END:
            return records
        start = offset + _HEAD.size
        if start + length > len(raw):
            raise ContextError(f"record {code} at {offset:#x} has {length} bytes, {len(raw) - start} are there")
        records.append(Record(code, instance, raw[start : start + length]))
        offset = start + length
    raise ContextError(f"the context ends at {offset:#x} without its last record")


def join(records: list[Record]) -> bytes:
    """The context that holds `records`, END included."""
    parts = [_HEAD.pack(code, instance, len(data)) + data for code, instance, data in records]
    return b"".join([*parts, _HEAD.pack(END, 0, 0)])


def restored(records: list[Record]) -> list[Record]:
    """The records with each CPU record's FXSAVE area as XRSTOR makes it of the vCPU's CPU_XSAVE: a component that
    XSTATE_BV leaves out is in its initial state, and what is in the area of it, which Xen has in both records, is of
    some time before (SDM vol. 1, 13.8.1 and 13.9)."""
    has = {r.instance: r.data[_XSTATE_BV] for r in records if r.code == CPU_XSAVE and len(r.data) >= XSAVE_LENGTH}
    out = []
    for record in records:
        if record.code == CPU and ~(bits := has.get(record.instance, _X87_AND_SSE)) & _X87_AND_SSE:
            data = bytearray(record.data)
            if not bits & _X87:
                data[:_MXCSR] = _AFTER_FNINIT.to_bytes(_MXCSR, "little")
                data[_ST:_XMM] = bytes(_XMM - _ST)
            if not bits & _SSE:
                data[_XMM:_XMM_END] = bytes(_XMM_END - _XMM)
            record = Record(record.code, record.instance, bytes(data))
        out.append(record)
    return out


def agreed(records: list[Record]) -> list[Record]:
    """The records with each CPU_XSAVE's legacy area as the vCPU's CPU record has it. Without CPU_XSAVE Xen would reset
    what is beyond that area, and with it the area in the CPU record would not be loaded."""
    fpu = {record.instance: record.data[:512] for record in records if record.code == CPU}
    out = []
    for record in records:
        if record.code == CPU_XSAVE and record.instance in fpu and len(record.data) >= XSAVE_LENGTH:
            data = bytearray(record.data)
            data[_XSAVE_AREA:_XSTATE_BV] = fpu[record.instance]
            data[_XSTATE_BV] |= _X87_AND_SSE
            record = Record(record.code, record.instance, bytes(data))
        out.append(record)
    return out


def xcr0(record: bytes) -> int:
    """XCR0 of a CPU_XSAVE record."""
    return int(_XCR0.unpack_from(record)[1])


def with_xcr0(record: bytes, value: int) -> bytes:
    """A CPU_XSAVE record with another XCR0, as far as the host has its components; b"" makes one. Xen takes no more in
    XCR0 or XSTATE_BV than XCR0 has had, and as long an area as that says (validate_xstate, xen/arch/x86/xstate.c)."""
    out = bytearray(record.ljust(XSAVE_LENGTH, b"\0"))
    host, _, had = _XCR0.unpack_from(out)
    value &= host if record else value
    had |= value | _X87_AND_SSE
    _XCR0.pack_into(out, 0, host or had, value, had)
    return bytes(out.ljust(XSAVE_LENGTH + _AVX_LENGTH if had & _AVX else 0, b"\0"))


def cpu_state(record: bytes) -> CpuState:
    """The registers of a CPU record; the interrupt shadow and whether it halts are not in it.

    Raises ContextError for a record of another length."""
    if len(record) != CPU_LENGTH:
        raise ContextError(f"a CPU record has {CPU_LENGTH} bytes, this one {len(record)}")
    state = CpuState()
    general = struct.unpack_from("<16Q", record, GENERAL_OFFSET)
    for value, index in zip(general, _ORDER, strict=True):
        state.regs[index] = value
    control = _CONTROL.unpack_from(record, RIP_OFFSET)
    state.rip, state.rflags, state.cr0, state.cr2, state.cr3, state.cr4 = control[:6]
    state.dr[:4], state.dr[6], state.dr[7] = control[6:10], control[10], control[11]
    selectors, limits = struct.unpack_from("<8I", record, _SELECTORS), struct.unpack_from("<10I", record, _LIMITS)
    bases, rights = struct.unpack_from("<10Q", record, _BASES), struct.unpack_from("<8I", record, _RIGHTS)
    for name, selector, limit, base, right in zip(_SEGMENTS, selectors, limits[:8], bases[:8], rights, strict=True):
        access = right & 0xFF | (right & 0xF00) << 4
        setattr(state, name, Segment(selector, base, limit, access if access & 0x80 else access | UNUSABLE))
    state.idtr, state.gdtr = Table(bases[8], limits[8]), Table(bases[9], limits[9])
    state.efer = struct.unpack_from("<Q", record, _EFER)[0]
    state.msrs = {msr: struct.unpack_from("<Q", record, offset)[0] for msr, offset in _MSR_OFFSETS.items()}
    state.fpu = _fpu(record)
    return state


def with_cpu_state(record: bytes, state: CpuState) -> bytes:
    """`record` with the registers of `state`; what is no register of it (TSC, pending event) stays."""
    out = bytearray(record)
    struct.pack_into("<16Q", out, GENERAL_OFFSET, *(state.regs[index] for index in _ORDER))
    debug = (*state.dr[:4], state.dr[6], state.dr[7])
    _CONTROL.pack_into(out, RIP_OFFSET, state.rip, state.rflags, state.cr0, state.cr2, state.cr3, state.cr4, *debug)
    segments = [state.segment(name) for name in _SEGMENTS]
    struct.pack_into("<8I", out, _SELECTORS, *(segment.selector for segment in segments))
    tables = ((state.idtr.base, state.idtr.limit), (state.gdtr.base, state.gdtr.limit))
    ranges = [*((segment.base, segment.limit) for segment in segments), *tables]
    struct.pack_into("<10I", out, _LIMITS, *(limit for _, limit in ranges))
    struct.pack_into("<10Q", out, _BASES, *(base for base, _ in ranges))
    struct.pack_into("<8I", out, _RIGHTS, *(_rights(segment.access) for segment in segments))
    struct.pack_into("<Q", out, _EFER, state.efer)
    for msr, offset in _MSR_OFFSETS.items():
        if msr in state.msrs:
            struct.pack_into("<Q", out, offset, state.msrs[msr])
    if _fpu(record) != state.fpu:  # else what Xen keeps in its unused bytes stays
        _put_fpu(out, state.fpu)
    return bytes(out)


def without_event(record: bytes) -> bytes:
    """`record` with nothing to be delivered at the next entry."""
    return record[:PENDING_OFFSET] + bytes(4) + record[PENDING_OFFSET + 4 :]


def _rights(access: int) -> int:
    return 0 if access & UNUSABLE else access & 0xFF | access >> 4 & 0xF00


def _fpu(record: bytes) -> Fpu:
    fcw, fsw, ftw, fop, fip, fcs, fdp, fds, mxcsr, _ = _FXSAVE.unpack_from(record, 0)
    st = [int.from_bytes(record[32 + 16 * i : 42 + 16 * i], "little") for i in range(8)]
    xmm = [int.from_bytes(record[160 + 16 * i : 176 + 16 * i], "little") for i in range(16)]
    return Fpu(fcw, fsw, ftw, fop, fip, fcs, fdp, fds, mxcsr, st, xmm)


def _put_fpu(out: bytearray, fpu: Fpu) -> None:
    mask = struct.unpack_from("<I", out, 28)[0]
    _FXSAVE.pack_into(
        out, 0, fpu.fcw, fpu.fsw, fpu.ftw, fpu.fop, fpu.fip & 0xFFFFFFFF, fpu.fcs, fpu.fdp & 0xFFFFFFFF, fpu.fds,
        fpu.mxcsr, mask,
    )  # fmt: skip
    for i in range(8):
        out[32 + 16 * i : 42 + 16 * i] = fpu.st[i].to_bytes(10, "little")
    for i in range(16):
        out[160 + 16 * i : 176 + 16 * i] = fpu.xmm[i].to_bytes(16, "little")
