"""x87 and SSE state to and from FXSAVE and XSAVE areas: those of the CPU and CPU_XSAVE records, and of cores.

FXSAVE: SDM vol. 1, 10.5.1. XSAVE: the same, chapter 13. What Xen takes of a CPU_XSAVE record, in the standard form
alone: validate_xstate in xen/arch/x86/xstate.c and hvm_load_cpu_xsave_states in xen/arch/x86/hvm/hvm.c of 4.17.
"""

from __future__ import annotations

from typing import Final

from emu.x86.state import CpuState, Fpu
from xenbridge.wire.errors import WireError
from xenbridge.wire.hvm import Record, build_record
from xenbridge.wire.hvm_devices import CPU_XSAVE
from xenbridge.wire.schema import Values

#: XSAVE's components (SDM vol. 1, 13.1): XCR0 has bit 0 always, and AVX_STATE only with SSE_STATE.
X87_STATE, SSE_STATE, AVX_STATE = 1, 2, 4
_AVX_SIZE: Final = 256  #: bytes of AVX_STATE, behind the header
_AREA_SIZE: Final = 512 + 64 + _AVX_SIZE  #: of all that is known where it is
#: Of XCOMP_BV: the area is in the compacted form (13.4.3), in which x87 and SSE are where they are in the other.
_COMPACTED: Final = 1 << 63
#: FXSAVE: the offsets of its parts, and where Xen notes how wide FIP and FDP are.
_MXCSR_MASK: Final = 0xFFFF
_ST, _XMM, _WORD_SIZE = 32, 160, 511


def parse_fxsave(data: bytes) -> Fpu:
    """The state in an FXSAVE area of 512 bytes, in the 64-bit form unless byte 511 says 2 or 4."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    fpu = Fpu(number(0, 2), number(2, 2), number(4, 1), number(6, 2), mxcsr=number(24, 4))
    if data[_WORD_SIZE] in (2, 4):
        fpu.fip, fpu.fcs, fpu.fdp, fpu.fds = number(8, 4), number(12, 2), number(16, 4), number(20, 2)
    else:
        fpu.fip, fpu.fdp = number(8, 8), number(16, 8)
    fpu.st = [number(_ST + 16 * i, 10) for i in range(8)]
    fpu.xmm = [number(_XMM + 16 * i, 16) for i in range(16)]
    return fpu


def build_fxsave(fpu: Fpu) -> bytes:
    """In the 32-bit form where a selector is to be kept."""
    out = bytearray(512)
    short = bool(fpu.fcs or fpu.fds)
    parts = [(0, fpu.fcw, 2), (2, fpu.fsw, 2), (4, fpu.ftw, 1), (6, fpu.fop, 2), (24, fpu.mxcsr, 4),
             (28, _MXCSR_MASK, 4), (_WORD_SIZE, 4 if short else 8, 1)]  # fmt: skip
    if short:
        parts += [(8, fpu.fip & 0xFFFFFFFF, 4), (12, fpu.fcs, 2), (16, fpu.fdp & 0xFFFFFFFF, 4), (20, fpu.fds, 2)]
    else:
        parts += [(8, fpu.fip, 8), (16, fpu.fdp, 8)]
    parts += [(_ST + 16 * i, value, 10) for i, value in enumerate(fpu.st)]
    parts += [(_XMM + 16 * i, value, 16) for i, value in enumerate(fpu.xmm)]
    for at, value, size in parts:
        out[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    return bytes(out)


def area_fpu(values: Values) -> Fpu:
    """What XRSTOR makes of a CPU_XSAVE record's area: a component that XSTATE_BV leaves out is in its initial state,
    whatever bytes are there. MXCSR is one of SSE's in the compacted form; in the standard form it is read in any case
    (13.8.1 and 13.8.2)."""
    has, area, initial = values["xstate_bv"], parse_fxsave(values["fpu_sse"]), Fpu()
    fpu = area if has & X87_STATE else Fpu(mxcsr=area.mxcsr, xmm=area.xmm)
    if not has & SSE_STATE:
        fpu.xmm = initial.xmm
        if values["xcomp_bv"] & _COMPACTED:
            fpu.mxcsr = initial.mxcsr
    return fpu


def check_xsave(record: Record) -> None:
    """Raises WireError for a CPU_XSAVE record whose parts do not agree, at which Xen or XRSTOR (#GP) would fail. The
    compacted form is read, though Xen takes none, and whether xcr0_accum is a value for XCR0 is not asked."""
    values = record.values()
    has, had, compacted = values["xstate_bv"], values["xcr0_accum"], values["xcomp_bv"]

    def refuse(name: str, why: str) -> WireError:
        at = next(field.offset for field in CPU_XSAVE.fields() if field.name == name)
        return WireError(record.name, name, record.offset + at, why)

    for name, value in (("xcr0", values["xcr0"]), ("xstate_bv", has)):
        if more := value & ~had:
            raise refuse(name, f"{value:#x} has {more:#x}, which xcr0_accum ({had:#x}) does not have")
    size = len(record.data) - CPU_XSAVE.size + _AREA_SIZE - _AVX_SIZE
    if had & AVX_STATE and size < _AREA_SIZE:
        raise refuse("xcr0_accum", f"{had:#x} is an area of {_AREA_SIZE} bytes, of which {size} are there")
    if compacted and not compacted & _COMPACTED:
        raise refuse("xcomp_bv", f"{compacted:#x} is no compacted form, whose bit 63 is set, and not 0")
    if compacted and (more := has & ~compacted):
        raise refuse("xstate_bv", f"{has:#x} has {more:#x}, which xcomp_bv ({compacted:#x}) does not have")
    for n, byte in enumerate(values["reserved"]):
        if byte:
            error = refuse("reserved", f"it is {byte:#x}, where XRSTOR wants 0")
            raise WireError(record.name, "reserved", error.offset + n, error.why)


def xcr0_here(xcr0: int) -> int:
    """Which components of a stream's XCR0 a CPU here may have enabled."""
    here = xcr0 & (X87_STATE | SSE_STATE | AVX_STATE) | X87_STATE
    return here if here & SSE_STATE else X87_STATE


def xsave_record(cpu: CpuState) -> Record:
    """XCR0 and the XSAVE area of `cpu`, whose upper halves of YMM are zeros. XCR0_ACCUM has all that are in the area
    too, and decides how long it is (hvm_load_cpu_xsave_states and validate_xstate, xen/arch/x86 of 4.17)."""
    held = X87_STATE | SSE_STATE
    return build_record("CPU_XSAVE", {
        "xfeature_mask": cpu.xcr0 | held, "xcr0": cpu.xcr0, "xcr0_accum": cpu.xcr0 | held,
        "fpu_sse": build_fxsave(cpu.fpu), "xstate_bv": held, "xcomp_bv": 0, "reserved": bytes(48),
        "rest": bytes(_AVX_SIZE if cpu.xcr0 & AVX_STATE else 0),
    })  # fmt: skip
