"""Steps over instructions that Xen itself executes for the guest: there TF's exception would come to the guest.

IN and OUT are made by the borrowed vCPU, so they reach whoever has the port; moves of control registers are made in the
CPU record. Others are refused. Opcodes: SDM vol. 2D, appendix A.
"""

from __future__ import annotations

from typing import Final

from emu.x86 import paging
from emu.x86.modes import code_bits
from emu.x86.state import CR0_PE, CR0_PG, EFER_LMA, EFER_LME, CpuState
from xenbridge.bridge import BridgeError
from xenbridge.ioreq import Ioreq, Type
from xenbridge.xen.bridge import XenBridge
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import XenError
from xenbridge.xen.memory import PAGE

_PREFIXES: Final = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_OPERAND_SIZE: Final = 0x66
_LONGEST: Final = 15
_PHYSICAL_BITS: Final = 40
#: What is neither made here nor stepped by TF.
_REFUSED: Final = {
    b"\x6c": "INS", b"\x6d": "INS", b"\x6e": "OUTS", b"\x6f": "OUTS", b"\xf4": "HLT", b"\x0f\x08": "INVD",
    b"\x0f\x09": "WBINVD", b"\x0f\x30": "WRMSR", b"\x0f\x32": "RDMSR", b"\x0f\xa2": "CPUID",
}  # fmt: skip


class Behalf:
    """Makes one instruction of a paused domain, if it is one of those."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._bridge: XenBridge | None = None

    def _code(self, state: CpuState) -> bytes:
        """The bytes at the next instruction, as far as they are memory."""
        code = b""
        while len(code) < _LONGEST:
            linear = state.linear_pc + len(code)
            physical = paging.translate(state, self._word, linear, _PHYSICAL_BITS)
            if physical is None:
                break
            piece = min(_LONGEST - len(code), PAGE - physical % PAGE)
            have = self._domain.memory.readable(physical, piece)
            code += self._domain.memory.read(physical, have)
            if have < piece:
                break
        return code

    def _word(self, address: int, length: int) -> bytes | None:
        memory = self._domain.memory
        return memory.read(address, length) if memory.readable(address, length) == length else None

    def make(self) -> bool:
        """False for an instruction that TF steps. Raises XenError for one that is refused, or not answered."""
        state = self._domain.cpu_state()
        code = self._code(state)
        start = next((index for index, byte in enumerate(code) if byte not in _PREFIXES), len(code))
        rex = 0
        if code_bits(state) == 64 and start < len(code) and code[start] & 0xF0 == 0x40:
            rex, start = code[start], start + 1
        prefixes, rest = code[:start], code[start:] + bytes(3)
        word = rest[:2] if rest[0] == 0x0F else rest[:1]
        if name := _REFUSED.get(word):
            raise XenError(f"{name} at {state.linear_pc:#x} is executed by Xen and cannot be stepped: run past it")
        wide = ((code_bits(state) == 16) != (_OPERAND_SIZE in prefixes) and 2) or 4
        if rest[0] & 0xF4 == 0xE4 and rest[0] & 0xFC in (0xE4, 0xEC):
            length = self._port(state, rest, wide)
        elif word in (b"\x0f\x20", b"\x0f\x22") and (change := _control(state, rest, rex)):
            length = change
        elif word == b"\x0f\x06":
            state.cr0 &= ~8
            length = 2
        elif word == b"\x0f\x01" and rest[2] & 0xF8 in (0xE0, 0xF0):
            length = _machine_status(state, rest[2], wide)
        else:
            return False
        mask = (1 << 64) - 1 if state.long64 else 0xFFFFFFFF if state.cs.big else 0xFFFF
        state.rip = (state.rip + start + length) & mask
        self._domain.load_cpu(state)
        return True

    def _port(self, state: CpuState, rest: bytes, wide: int) -> int:
        """IN or OUT by the borrowed vCPU; the length without prefixes. Whether the guest may is for its CPU to say."""
        if state.cr0 & CR0_PE and state.cpl > state.rflags >> 12 & 3:
            raise XenError(f"the port access at {state.linear_pc:#x} depends on the TSS and cannot be stepped")
        in_dx, writes, size = bool(rest[0] & 8), bool(rest[0] & 2), wide if rest[0] & 1 else 1
        port = state.regs[2] & 0xFFFF if in_dx else rest[1]
        mask = (1 << 8 * size) - 1
        request = Ioreq(Type.PIO, port, size, not writes, state.regs[0] & mask)
        self._bridge = self._bridge or XenBridge(self._domain)
        try:
            self._bridge.borrow()
            try:
                value = self._bridge.submit_any(request)
            finally:
                self._bridge.give_back(paused=True)
        except BridgeError as error:
            raise XenError(str(error)) from None
        if not writes:
            kept = 0 if size == 4 else state.regs[0] & ~mask
            state.regs[0] = kept | value
        return 1 if in_dx else 2

    def close(self) -> None:
        """Take what is ours out of the domain."""
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None


def _control(state: CpuState, rest: bytes, rex: int) -> int:
    """MOV to or from CR0, CR2, CR3, CR4 (SDM vol. 2B); the length, 0 for another register, or where the CPU would not
    take the value: there TF shows the guest's own exception."""
    number, register = rest[2] >> 3 & 7 | (rex & 4) << 1, rest[2] & 7 | (rex & 1) << 3
    names = {0: "cr0", 2: "cr2", 3: "cr3", 4: "cr4"}
    if number not in names or state.cpl:
        return 0
    if rest[1] == 0x20:
        state.regs[register] = getattr(state, names[number])
        return 3
    value = state.regs[register] & ((1 << 64) - 1 if state.long64 else 0xFFFFFFFF)
    if number == 0:
        if value & CR0_PG and not value & CR0_PE:
            return 0
        # Paging and long mode: EFER.LMA follows (SDM vol. 3A, 10.8.5).
        if value & CR0_PG and state.efer & EFER_LME:
            state.efer |= EFER_LMA
        else:
            state.efer &= ~EFER_LMA
        value |= 0x10  # ET
    setattr(state, names[number], value)
    return 3


def _machine_status(state: CpuState, form: int, wide: int) -> int:
    """LMSW and SMSW of a register; the length."""
    register = form & 7
    if form & 0xF8 == 0xE0:
        kept = state.regs[register] & ~0xFFFF if wide == 2 else 0
        state.regs[register] = kept | state.cr0 & (0xFFFF if wide == 2 else 0xFFFFFFFF)
    else:
        # LMSW sets PE and never clears it.
        state.cr0 = state.cr0 & ~0xE | state.regs[register] & 0xF
    return 3
