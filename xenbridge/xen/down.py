"""The registers of a vCPU that is down, as behind HLT with interrupts off: Xen has no CPU record of it any more.

Its guest context (struct vcpu_guest_context of x86-64, 5168 bytes; Xen 4.17, xen/include/public/arch-x86/xen.h) has
registers, selectors and control registers. Hidden parts are as they were known where the selector is the same, else as
a load of the selector gives them; tables and MSRs as they were known.
"""

from __future__ import annotations

import ctypes as c
import struct
from typing import Final

from emu.x86.descriptors import load_selector
from emu.x86.registers import RegisterError
from emu.x86.state import CpuState
from xenbridge.xen.domain import Domain

_SIZE: Final = 5168
#: r15 to rdi; rip, cs, rflags, rsp, ss, es, ds, fs, gs in words of 64 bits, with the error code before.
_USER: Final = struct.Struct("<15QQQH6xQQH6xH6xH6xH6xH6x")
_USER_AT, _CONTROL_AT = 520, 4984
#: The order of `_USER`, as indexes of `emu.x86.state.GENERAL`.
_ORDER: Final = (15, 14, 13, 12, 5, 3, 11, 10, 9, 8, 0, 1, 2, 6, 7)
_SP: Final = 4


def state_of(domain: Domain, known: CpuState) -> CpuState:
    """The registers of vCPU 0, whose state was `known` before it ran. Raises XenError."""
    buffer = c.create_string_buffer(_SIZE)
    domain.call("xc_vcpu_getcontext", 0, buffer)
    *general, _, rip, cs, rflags, rsp, ss, es, ds, fs, gs = _USER.unpack_from(buffer, _USER_AT)
    state = known.copy()
    for value, index in zip(general, _ORDER, strict=True):
        state.regs[index] = value
    state.rip, state.rflags, state.regs[_SP] = rip, rflags | 2, rsp
    state.cr0, _, state.cr2, state.cr3, state.cr4 = struct.unpack_from("<5Q", buffer, _CONTROL_AT)

    def read(address: int, length: int) -> bytes | None:
        have = domain.memory.readable(address, length) if address >= 0 else 0
        return domain.memory.read(address, length) if have == length else None

    for name, selector in (("cs", cs), ("ss", ss), ("es", es), ("ds", ds), ("fs", fs), ("gs", gs)):
        if state.segment(name).selector != selector:
            try:
                load_selector(state, name, selector, read)
            except RegisterError:
                state.segment(name).selector = selector
    return state
