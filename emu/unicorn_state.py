"""CpuState to and from Unicorn's live CPU structure, hidden parts included."""

from __future__ import annotations

import ctypes
import functools
import struct

from emu.typed import Final
from emu.unicorn_layout import (
    CC_OP_EFLAGS,
    CPU_INTERRUPT_NMI,
    FEATURES,
    HF2_NMI,
    HF2_VINTR,
    HF_ADDSEG,
    HF_CPL,
    HF_CS32,
    HF_CS64,
    HF_INHIBIT_IRQ,
    HF_LMA,
    HF_MP_EM_TS,
    HF_MP_SHIFT,
    HF_OSFXSR,
    HF_PE,
    HF_SMAP,
    HF_SS32,
    MSR_ARRAYS,
    MSR_FIELDS,
    NO_EXCEPTION,
    Env,
    EnvSegment,
    offset_of,
)
from emu.unicorn_overlay import Overlay
from emu.x86.cpuid import SSE
from emu.x86.state import CR0_PE, EFER_LMA, RFLAGS_DF, RFLAGS_VM, SEGMENTS, CpuState, Fpu, Segment, Table

ARITHMETIC_FLAGS: Final = 0x8D5  #: OF SF ZF AF PF CF (SDM vol. 1, 3.4.3.1)
RFLAGS_KEPT: Final = 0x3F7FD7  #: every defined flag; bit 1 is always set
CR0_ET: Final = 1 << 4
CR4_OSFXSR: Final = 1 << 9
CR4_SMAP: Final = 1 << 21
ACCESS_BITS: Final = 0xF0FF
ACCESS_PRESENT: Final = 1 << 7
SYSTEM_TYPE: Final = 0x1F  #: type and S
ACCESSED: Final = 1  #: in the type of code and data
CODE_OR_DATA: Final = 0x90  #: S and P
UNUSABLE: Final = 1 << 16  #: access rights bit of VMX for a segment register that holds no descriptor
FSW_TOP: Final = 7 << 11
DR7_FIXED: Final = 1 << 10
AVAILABLE_TSS: Final = (1, 9)  #: types, S included
TSS_BUSY: Final = 2  #: in the type of a TSS (SDM vol. 3A, 8.2.2)
#: MSRs after RESET where not 0: PAT (SDM vol. 3A, 12.12.4).
SYSENTER_CS: Final = 0x174  #: which the engine keeps from Unicorn
MSR_RESET: Final = {0x277: 0x0007040600070406}

_SEGMENT_NAMES: Final = (*SEGMENTS, "ldtr", "tr")
_MASK64: Final = (1 << 64) - 1

# Reading field by field through ctypes takes four times as long as unpacking the same bytes.
_HEAD_END: Final = offset_of(Env, "a20_mask") + 4
_HEAD: Final = struct.Struct("<16QQQ32x2I" + 10 * "I4xQ2I" + "9Qi")
assert _HEAD.size == _HEAD_END, "the layout of Env and what is unpacked from it have come apart"
_SEGMENT_AT: Final = 20  #: index of ES's selector among the values of _HEAD
_CR_AT: Final = _SEGMENT_AT + 10 * 4
_FPREGS: Final = struct.Struct("<" + 8 * "QH6x")
_XMM: Final = struct.Struct("<" + 16 * "2Q48x")
#: The FPU and the SSE registers of a model without AVX.
_FPU_AT: Final = offset_of(Env, "fpstt")
_FPU_SIZE: Final = offset_of(Env, "xmm") + _XMM.size - _FPU_AT
_DR_AT: Final = offset_of(Env, "dr")
_DR: Final = struct.Struct("<8Q")
_SEGS_AT: Final = offset_of(Env, "segs")
_SEGS: Final = struct.Struct("<" + 8 * "I4xQII")
_MSR_BLOCKS: Final = tuple(
    (offset_of(Env, first), struct.Struct(form), msrs)
    for first, form, msrs in (
        ("sysenter_cs", "<I4x3Q8x4Q24xQ", (0x174, 0x175, 0x176, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084,
                                           0xC0000102, 0xC0000103)),
        ("pat", "<Q", (0x277,)),
        ("mtrr_fixed", "<28Q", (*(m for m, (name, _) in MSR_ARRAYS.items() if name == "mtrr_fixed"), 0x2FF,
                                *range(0x200, 0x210))),
    )
)  # fmt: skip


class Seldom:
    """What was read last of the parts that seldom change, MSRs and FPU: their bytes in Unicorn's structure, and the
    values. As long as the bytes are the same they are neither taken apart nor, for equal values, written again."""

    __slots__ = ("fpu", "fpu_bytes", "msr_bytes", "msrs", "written")

    def __init__(self) -> None:
        self.msr_bytes = self.fpu_bytes = b""
        self.msrs: dict[int, int] = {}
        self.written: dict[int, int] = {}  #: `msrs` but for what the engine keeps from Unicorn
        self.fpu = Fpu()


def _msr_bytes(overlay: Overlay) -> bytes:
    at = overlay.env_address
    return b"".join([ctypes.string_at(at + offset, block.size) for offset, block, _ in _MSR_BLOCKS])


def _fpu_bytes(overlay: Overlay) -> bytes:
    return ctypes.string_at(overlay.env_address + _FPU_AT, _FPU_SIZE)


def _msrs_of(data: bytes) -> dict[int, int]:
    msrs: dict[int, int] = {}
    at = 0
    for _, block, numbers in _MSR_BLOCKS:
        msrs.update(zip(numbers, block.unpack_from(data, at), strict=True))
        at += block.size
    return msrs


def _copied(fpu: Fpu) -> Fpu:
    return Fpu(
        fpu.fcw, fpu.fsw, fpu.ftw, fpu.fop, fpu.fip, fpu.fcs, fpu.fdp, fpu.fds, fpu.mxcsr, fpu.st.copy(), fpu.xmm.copy()
    )


def read_state(overlay: Overlay, *, halted: bool, seldom: Seldom | None = None) -> CpuState:
    """A copy of the whole state, between runs: Unicorn collects the flags into env.eflags when it leaves a run, and
    distributes them when it begins one. `halted` is kept by the engine: Unicorn forgets it when it starts. `seldom` is
    what the engine has of the call before."""
    env = overlay.env
    head = _HEAD.unpack(ctypes.string_at(overlay.env_address, _HEAD_END))
    hflags, hflags2 = head[18:20]
    es, cs, ss, ds, fs, gs, ldtr, tr = (
        Segment(head[at], head[at + 1], head[at + 2], _access(head[at + 3]))
        for at in range(_SEGMENT_AT, _SEGMENT_AT + 32, 4)
    )
    if tr.present and tr.access & SYSTEM_TYPE in AVAILABLE_TSS:
        tr.access |= TSS_BUSY  # a loaded TSS is busy (SDM vol. 2A, LTR); Unicorn says so in memory only
    cs.access, ss.access = accessed(cs.access), accessed(ss.access)
    at = _SEGMENT_AT + 32
    dr = list(_DR.unpack(ctypes.string_at(overlay.env_address + _DR_AT, _DR.size)))
    dr[4] = dr[5] = 0
    seldom = seldom or Seldom()
    if (data := _msr_bytes(overlay)) != seldom.msr_bytes:
        seldom.msr_bytes, seldom.msrs = data, _msrs_of(data)
        seldom.written = {n: value for n, value in seldom.msrs.items() if n != SYSENTER_CS}
    if (data := _fpu_bytes(overlay)) != seldom.fpu_bytes:
        seldom.fpu_bytes, seldom.fpu = data, _read_fpu(overlay)
    return CpuState(
        list(head[:16]), head[16], head[17] | 2, es, cs, ss, ds, fs, gs, ldtr, tr,
        Table(head[at + 1], head[at + 2]), Table(head[at + 5], head[at + 6]),
        head[_CR_AT], head[_CR_AT + 2], head[_CR_AT + 3], head[_CR_AT + 4], env.v_tpr & 0xF, dr, env.efer,
        seldom.msrs.copy(), _copied(seldom.fpu), halted, bool(hflags & HF_INHIBIT_IRQ), bool(hflags2 & HF2_NMI),
        bool(overlay.request.value & CPU_INTERRUPT_NMI), a20=bool(head[-1] & 1 << 20), xcr0=env.xcr0,
    )  # fmt: skip


def accessed(access: int) -> int:
    """Of CS or SS the access rights as a load leaves them: accessed (SDM vol. 3A, 3.4.5.1). Unicorn marks what MOV, POP
    and LSS load, and forgets it in far transfers, returns and interrupts."""
    return access | ACCESSED if access & CODE_OR_DATA == CODE_OR_DATA else access


@functools.lru_cache(256)
def _access(flags: int) -> int:
    """A segment's access rights, of the flags that Unicorn keeps of it."""
    access = flags >> 8 & ACCESS_BITS
    return access if access & ACCESS_PRESENT else access | UNUSABLE


def _read_fpu(overlay: Overlay) -> Fpu:
    env = overlay.env
    top = env.fpstt & 7
    fpu = Fpu(fcw=env.fpuc, fsw=env.fpus & ~FSW_TOP | top << 11, mxcsr=env.mxcsr)
    fpu.ftw = sum(1 << i for i, empty in enumerate(bytes(env.fptags)) if not empty)
    fpu.fop, fpu.fip, fpu.fcs, fpu.fdp, fpu.fds = env.fpop, env.fpip, env.fpcs, env.fpdp, env.fpds
    words = _FPREGS.unpack(ctypes.string_at(overlay.env_address + offset_of(Env, "fpregs"), _FPREGS.size))
    registers = [low | high << 64 for low, high in zip(words[::2], words[1::2], strict=True)]
    fpu.st = registers[top:] + registers[:top]
    words = _XMM.unpack(ctypes.string_at(overlay.env_address + offset_of(Env, "xmm"), _XMM.size))
    fpu.xmm = [low | high << 64 for low, high in zip(words[::2], words[1::2], strict=True)]
    return fpu


def write_state(overlay: Overlay, state: CpuState, seldom: Seldom) -> None:
    """Replace the whole state (all but `halted`), recompute what Unicorn derives from it, and drop its TLB. `seldom` is
    what the engine has of the state that it read last."""
    env, call, address = overlay.env, overlay.call, overlay.env_address
    env.regs[:] = [value & _MASK64 for value in state.regs]
    env.eip = state.rip
    env.eflags = rflags = state.rflags & RFLAGS_KEPT | 2
    env.cc_src, env.cc_dst, env.cc_src2, env.cc_op = rflags & ARITHMETIC_FLAGS, 0, 0, CC_OP_EFLAGS
    env.df = -1 if rflags & RFLAGS_DF else 1
    _write_segments(address, state)
    env.gdt.base, env.gdt.limit = state.gdtr.base, state.gdtr.limit
    env.idt.base, env.idt.limit = state.idtr.base, state.idtr.limit
    env.cr[0], env.cr[2], env.cr[3], env.cr[4] = state.cr0 | CR0_ET, state.cr2, state.cr3, state.cr4
    env.v_tpr = state.cr8 & 0xF
    env.efer, env.xcr0 = state.efer, state.xcr0
    if list(env.dr) != state.dr:
        call.update_dr7(address, DR7_FIXED)  # takes the old breakpoints out before their addresses go
        for i in (0, 1, 2, 3, 6):
            env.dr[i] = state.dr[i]
        call.update_dr7(address, state.dr[7] & 0xFFFFFFFF)
    if not seldom.written.items() <= state.msrs.items() or _msr_bytes(overlay) != seldom.msr_bytes:
        _write_msrs(overlay, state.msrs)
    if not _same_fpu(state.fpu, seldom.fpu) or _fpu_bytes(overlay) != seldom.fpu_bytes:
        _write_fpu(overlay, state.fpu)
    env.a20_mask = -1 if state.a20 else ~(1 << 20)
    env.hflags = env.hflags & ~HF_DERIVED | _hflags(state, env)
    # VINTR makes reads of CR8 return v_tpr; without it they ask an APIC that is not there.
    env.hflags2 = env.hflags2 & ~HF2_NMI | HF2_VINTR | (HF2_NMI if state.nmi_blocked else 0)
    env.old_exception, env.error_code, env.exception_is_int = NO_EXCEPTION, 0, 0
    overlay.request.value = CPU_INTERRUPT_NMI if state.nmi_pending else 0
    call.tlb_flush(overlay.cpu)


def _write_msrs(overlay: Overlay, msrs: dict[int, int]) -> None:
    """Only what differs: most loads are of a CPU that another one has been for a while, and MSRs seldom change."""
    env = overlay.env
    for offset, block, numbers in _MSR_BLOCKS:
        values = block.unpack(ctypes.string_at(overlay.env_address + offset, block.size))
        for msr, value in zip(numbers, values, strict=True):
            if value != (wanted := msrs.get(msr, MSR_RESET.get(msr, 0))):
                if msr in MSR_FIELDS:
                    setattr(env, MSR_FIELDS[msr], wanted)
                else:
                    field, index = MSR_ARRAYS[msr]
                    getattr(env, field)[index] = wanted


def _same_fpu(a: Fpu, b: Fpu) -> bool:
    """As a == b, in a fraction of the time."""
    return (
        a.st == b.st and a.xmm == b.xmm
        and (a.fcw, a.fsw, a.ftw, a.fop, a.fip) == (b.fcw, b.fsw, b.ftw, b.fop, b.fip)
        and (a.fcs, a.fdp, a.fds, a.mxcsr) == (b.fcs, b.fdp, b.fds, b.mxcsr)
    )  # fmt: skip


def _write_segments(env_address: int, state: CpuState) -> None:
    """ES CS SS DS FS GS LDTR TR, at once."""
    values: list[int] = []
    for s in (state.es, state.cs, state.ss, state.ds, state.fs, state.gs, state.ldtr, state.tr):
        access = s.access & ACCESS_BITS
        if s.access & UNUSABLE:
            access &= ~ACCESS_PRESENT
        values += (s.selector, s.base, s.limit, access << 8)
    if state.tr.present and state.tr.access & SYSTEM_TYPE in (3, 11):
        values[-1] &= ~(TSS_BUSY << 8)  # Unicorn takes only an available TSS for a loaded one
    ctypes.memmove(env_address + _SEGS_AT, _SEGS.pack(*values), _SEGS.size)


def _write_segment(target: EnvSegment, source: Segment) -> None:
    access = source.access & ACCESS_BITS
    if source.access & UNUSABLE:
        access &= ~ACCESS_PRESENT
    target.selector, target.base, target.limit, target.flags = source.selector, source.base, source.limit, access << 8


_HF_CODE: Final = HF_CPL | HF_CS32 | HF_SS32 | HF_ADDSEG | HF_LMA | HF_CS64
HF_DERIVED: Final = _HF_CODE | HF_INHIBIT_IRQ | HF_PE | HF_MP_EM_TS | HF_OSFXSR | HF_SMAP


def _hflags(state: CpuState, env: Env) -> int:
    """The bits of hflags that follow from the architectural state."""
    sse = env.features[FEATURES["edx1"]] & SSE  # a CPU without it has CR4.OSFXSR for FXSAVE
    value = state.cpl | (HF_INHIBIT_IRQ if state.shadow else 0)
    value |= (HF_PE if state.cr0 & CR0_PE else 0) | state.cr0 << HF_MP_SHIFT - 1 & HF_MP_EM_TS
    value |= (HF_OSFXSR if sse and state.cr4 & CR4_OSFXSR else 0) | (HF_SMAP if state.cr4 & CR4_SMAP else 0)
    if state.efer & EFER_LMA:
        value |= HF_LMA
    if state.long64:
        return value | HF_CS64 | HF_CS32 | HF_SS32
    value |= (HF_CS32 if state.cs.big else 0) | (HF_SS32 if state.ss.big else 0)
    flat = not (state.ds.base | state.es.base | state.ss.base)
    if not state.cr0 & CR0_PE or state.rflags & RFLAGS_VM or not state.cs.big or not flat:
        value |= HF_ADDSEG
    return value


def _write_fpu(overlay: Overlay, fpu: Fpu) -> None:
    env, call, address = overlay.env, overlay.call, overlay.env_address
    top = fpu.fsw >> 11 & 7
    env.fpstt, env.fpus = top, fpu.fsw & ~FSW_TOP
    call.load_fcw(address, fpu.fcw)
    call.load_mxcsr(address, fpu.mxcsr)
    env.fptags[:] = [not fpu.ftw >> i & 1 for i in range(8)]
    env.fpop, env.fpip, env.fpcs, env.fpdp, env.fpds = fpu.fop, fpu.fip, fpu.fcs, fpu.fdp, fpu.fds
    # Most of them hold it already.
    words = _FPREGS.unpack(ctypes.string_at(address + offset_of(Env, "fpregs"), _FPREGS.size))
    for i, value in enumerate(fpu.st):
        n = top + i & 7
        if words[2 * n] | words[2 * n + 1] << 64 != value:
            env.fpregs[n].low, env.fpregs[n].high = value & _MASK64, value >> 64 & 0xFFFF
    words = _XMM.unpack(ctypes.string_at(address + offset_of(Env, "xmm"), _XMM.size))
    for i, value in enumerate(fpu.xmm):
        if words[2 * i] | words[2 * i + 1] << 64 != value:
            env.xmm[i].low, env.xmm[i].high = value & _MASK64, value >> 64


def write_transfer(overlay: Overlay, state: CpuState, cpl: int) -> None:
    """Replace what a transfer of control or a task switch changes, and recompute what Unicorn derives from it. For
    callbacks: the FPU, the MSRs and pending events stay as they are."""
    env, call, address = overlay.env, overlay.call, overlay.env_address
    for i in range(8):
        env.regs[i] = state.regs[i] & _MASK64
    env.eip = state.rip
    env.eflags = rflags = state.rflags & RFLAGS_KEPT | 2
    env.cc_src, env.cc_dst, env.cc_src2, env.cc_op = rflags & ARITHMETIC_FLAGS, 0, 0, CC_OP_EFLAGS
    env.df = -1 if rflags & RFLAGS_DF else 1
    env.eflags = rflags & ~(ARITHMETIC_FLAGS | RFLAGS_DF)
    for name, target in zip(_SEGMENT_NAMES, overlay.segments(), strict=True):
        _write_segment(target, state.segment(name))
    if state.tr.present and state.tr.access & SYSTEM_TYPE in (3, 11):
        env.tr.flags &= ~(TSS_BUSY << 8)
    env.cr[0] = state.cr0 | CR0_ET
    if env.cr[3] != state.cr3:
        call.update_cr3(address, state.cr3)
    env.dr[6] = state.dr[6]
    if env.dr[7] != state.dr[7]:
        call.update_dr7(address, state.dr[7] & 0xFFFFFFFF)
    env.hflags = env.hflags & ~HF_DERIVED | _hflags(state, env) & ~HF_CPL | cpl
