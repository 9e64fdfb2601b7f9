"""What a core says of a CPU, and what it does not.

A core's vcpu_guest_context of an HVM domain has the registers, selectors, CR0, CR2 to CR4, debug registers, the FPU and
the bases of FS and GS (Xen 4.17, xen/arch/x86/domctl.c, arch_get_info_guest), no other hidden state and no MSR.
"""

from __future__ import annotations

from emu.x86.state import CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, RFLAGS_VM, SEGMENTS, CpuState, Segment
from xenbridge.convert_fpu import parse_fxsave
from xenbridge.wire.schema import Values

_GENERAL = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
_EFER_LME = 1 << 8
#: Access rights of every segment in virtual 8086 mode: data, read/write, accessed, DPL 3 (SDM vol. 3C, 26.3.1.2).
_V86 = 0xF3
_LONG_CODE, _DEFAULT_32 = 0x2000, 0x4000


def gs_base(values: Values) -> int:
    """The base of GS: which field has it goes by CS & 3 in every mode, as Xen's ring_0 looks at no more."""
    base: int = values["gs_base_user" if values["cs"] & 3 else "gs_base_kernel"]
    return base


def core_cpu(values: Values) -> tuple[CpuState, frozenset[str]]:
    """The state, and the names of what in it means nothing (`emu.subject.Subject.unknown`). What the architecture says
    of it is used: bases in virtual 8086 mode, that 64-bit code runs where RIP needs more than 32 bits."""
    cr = values["ctrlreg"]
    state = CpuState(
        regs=[values[name] for name in _GENERAL], rip=values["rip"], rflags=values["rflags"] | 2, cr0=cr[0], cr2=cr[2],
        cr3=cr[3], cr4=cr[4], dr=list(values["debugreg"]),
    )  # fmt: skip
    state.fpu = parse_fxsave(values["fpu_ctxt"])
    for name in SEGMENTS:
        state.__setattr__(name, Segment(values[name], 0, 0, 0))
    unknown = {"gdtr", "idtr", "ldtr", "tr", "cr8", "msrs", "cs.width", "cpl"}
    unknown |= {f"{name}.{part}" for name in SEGMENTS for part in ("base", "limit", "access")}
    protected = bool(state.cr0 & CR0_PE)
    state.fs.base, state.gs.base = values["fs_base"], gs_base(values)
    unknown -= {"fs.base", "gs.base"}
    if state.rip >> 32:
        # only 64-bit mode has such addresses; there the bases of CS, DS, ES and SS are 0 (SDM vol. 3A, 3.4.4)
        state.efer, state.cs.access = EFER_LMA | _EFER_LME, _LONG_CODE
        unknown -= {"cs.width", "cs.base", "ds.base", "es.base", "ss.base"}
    elif not protected or not state.cr0 & CR0_PG or not state.cr4 & CR4_PAE:
        state.efer = 0  # IA-32e mode needs all three (SDM vol. 3A, 10.8.5)
        if protected and state.rflags & RFLAGS_VM:
            unknown -= {"cs.width", "cpl"}
            for name in SEGMENTS:
                selector = values[name]
                state.__setattr__(name, Segment(selector, selector << 4, 0xFFFF, _V86))
                unknown -= {f"{name}.{part}" for part in ("base", "limit", "access")}
        if not protected:
            unknown.discard("cpl")
    else:
        unknown.add("efer")
    if protected and "cs.width" in unknown:
        state.cs.access = _DEFAULT_32  # how wide registers are shown, no more
    return state, frozenset(unknown)
