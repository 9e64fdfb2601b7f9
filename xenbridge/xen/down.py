"""The registers of a vCPU that is down, as behind HLT with interrupts off: Xen has no CPU record of it any more.

Its guest context (struct vcpu_guest_context of x86-64; Xen 4.17, xen/include/public/arch-x86/xen.h, filled by
arch_get_info_guest, xen/arch/x86/domctl.c) has registers, selectors, control and debug registers, the FPU with SSE, and
the bases of FS and GS. Other hidden parts are as they were known where the selector is the same, else as a load of the
selector gives them; tables, MSRs, EFER and CR8 as they were known.
"""

from __future__ import annotations

import ctypes as c
from typing import Final

from emu.x86.descriptors import load_selector
from emu.x86.register_writes import DR6_FIXED, DR7_FIXED
from emu.x86.registers import RegisterError
from emu.x86.state import GENERAL, SEGMENTS, CpuState
from xenbridge.xen.domain import Domain

#: Of `flags`: fpu_ctxt is the guest's (VGCF_i387_valid).
_FPU_VALID: Final = 1


def state_of(domain: Domain, known: CpuState) -> CpuState:
    """The registers of vCPU 0, whose state was `known` before it ran. Raises XenError."""
    # What most runs never need: construct takes 0.1 s to load.
    from xenbridge.convert_fpu import parse_fxsave
    from xenbridge.wire.core import CONTEXT
    from xenbridge.xen.core_cpu import gs_base

    buffer = c.create_string_buffer(CONTEXT.size)
    domain.call("xc_vcpu_getcontext", 0, buffer)
    values = CONTEXT.parse(buffer.raw)
    state = known.copy()
    state.regs = [values[name] for name in GENERAL]
    state.rip, state.rflags = values["rip"], values["rflags"] | 2
    state.cr0, _, state.cr2, state.cr3, state.cr4 = values["ctrlreg"][:5]
    state.dr = list(values["debugreg"])
    state.dr[6], state.dr[7] = state.dr[6] | DR6_FIXED, state.dr[7] | DR7_FIXED
    if values["flags"] & _FPU_VALID:
        state.fpu = parse_fxsave(values["fpu_ctxt"])

    def read(address: int, length: int) -> bytes | None:
        have = domain.memory.readable(address, length) if address >= 0 else 0
        return domain.memory.read(address, length) if have == length else None

    for name in SEGMENTS:
        if state.segment(name).selector != values[name]:
            try:
                load_selector(state, name, values[name], read)
            except RegisterError:
                state.segment(name).selector = values[name]
    state.fs.base, state.gs.base = values["fs_base"], gs_base(values)
    return state
