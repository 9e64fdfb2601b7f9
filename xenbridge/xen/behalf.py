"""Steps over instructions that TF does not step: those that Xen itself executes, and those in whose pushed flags TF
would show.

IN, OUT, INS, OUTS, plain accesses to memory of devices, CPUID and the waiting of HLT are the borrowed vCPU's, so they
reach whoever is there; moves of control registers, STI, PUSHF and real mode's INT are made in the CPU record and the
guest's stack. Others are refused. Opcodes: SDM vol. 2D, appendix A.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from emu.x86 import paging
from emu.x86.modes import code_bits
from emu.x86.operands import Instruction
from emu.x86.state import CR0_PE, CR0_PG, EFER_LMA, EFER_LME, RFLAGS_IF, RFLAGS_VM, CpuState
from xenbridge.bridge import BridgeError
from xenbridge.ioreq import Ioreq, Type
from xenbridge.xen.bridge import XenBridge
from xenbridge.xen.device_memory import make, reached
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import XenError
from xenbridge.xen.memory import PAGE
from xenbridge.xen.pushes import interrupt, push_flags
from xenbridge.xen.strings import iterate
from xenbridge.xen.wake import Wake, Woken

T = TypeVar("T")
LONGEST: Final = 15
PHYSICAL_BITS: Final = 40
_PREFIXES: Final = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_OPERAND_SIZE: Final = 0x66
_CR4_UMIP: Final = 1 << 11  #: SMSW is for CPL 0
#: Seconds after which who waits for an interrupt looks whether somebody waits for him.
_LONG_WAIT: Final = 0.5
#: What is neither made here nor stepped by TF.
_REFUSED: Final = {b"\x0f\x08": "INVD", b"\x0f\x09": "WBINVD", b"\x0f\x30": "WRMSR", b"\x0f\x32": "RDMSR"}
_HLT, _PUSHF, _CPUID, _STI = b"\xf4", b"\x9c", b"\x0f\xa2", b"\xfb"
_INTERRUPTS: Final = (b"\xcc", b"\xcd", b"\xce", b"\xf1")
_MADE: Final = frozenset((*_REFUSED, *_INTERRUPTS, _HLT, _PUSHF, _CPUID, _STI, b"\x0f\x20", b"\x0f\x22", b"\x0f\x06"))


class _Parts(NamedTuple):
    """An instruction's prefixes, its REX prefix, where its opcode begins, and the bytes from there on."""

    prefixes: bytes
    rex: int
    start: int
    rest: bytes

    @property
    def opcode(self) -> bytes:
        return self.rest[:2] if self.rest[0] == 0x0F else self.rest[:1]

    @property
    def is_port(self) -> bool:
        return self.rest[0] & 0xFC in (0xE4, 0xEC)

    @property
    def is_string(self) -> bool:
        """INS or OUTS."""
        return self.rest[0] & 0xFC == 0x6C

    @property
    def is_status(self) -> bool:
        """LMSW or SMSW of a register."""
        return self.opcode == b"\x0f\x01" and self.rest[2] & 0xF8 in (0xE0, 0xF0)


def _parts(code: bytes, long64: bool) -> _Parts:
    start = next((index for index, byte in enumerate(code) if byte not in _PREFIXES), len(code))
    prefixes, rex = code[:start], 0
    if long64 and start < len(code) and code[start] & 0xF0 == 0x40:
        rex, start = code[start], start + 1
    return _Parts(prefixes, rex, start, code[start:] + bytes(3))


def concerns(code: bytes, long64: bool) -> bool:
    """`Behalf.make` has to be asked about this instruction before TF steps it."""
    parts = _parts(code, long64)
    return parts.opcode in _MADE or parts.is_port or parts.is_string or parts.is_status


class Behalf:
    """Makes one instruction of a paused domain, if it is one of those."""

    def __init__(self, domain: Domain, wake: Wake | None = None) -> None:
        """What sets `wake` ends the waiting in HLT."""
        self._domain, self._wake = domain, wake
        self._bridge: XenBridge | None = None

    def _code(self, state: CpuState) -> bytes:
        """The bytes at the next instruction, as far as they are memory."""
        code = b""
        while len(code) < LONGEST:
            physical = self._physical(state, state.linear_pc + len(code))
            if physical is None:
                break
            piece = min(LONGEST - len(code), PAGE - physical % PAGE)
            have = self._domain.memory.readable(physical, piece)
            code += self._domain.memory.read(physical, have)
            if have < piece:
                break
        return code

    def _physical(self, state: CpuState, linear: int) -> int | None:
        return paging.translate(state, self._word, linear, PHYSICAL_BITS)

    def _physical_for(self, state: CpuState, linear: int, *, writes: bool) -> int | None:
        """As `_physical`; None too where the page is not for the guest to read, or to write (SDM vol. 3A, 4.6.1)."""
        if state.cr0 & CR0_PG:
            walk = paging.walk(state, self._word, linear, PHYSICAL_BITS)
            if (state.cpl == 3 and not walk.user) or (writes and not walk.writable):
                return None
        return self._physical(state, linear)

    def _word(self, address: int, length: int) -> bytes | None:
        memory = self._domain.memory
        return memory.read(address, length) if memory.readable(address, length) == length else None

    def _write(self, state: CpuState, linear: int, data: bytes) -> bool:
        """Write within a page, as the guest may; False where that would fault."""
        physical = self._physical_for(state, linear, writes=True)
        crosses = linear % PAGE + len(data) > PAGE
        if crosses or physical is None or self._domain.memory.readable(physical, len(data)) < len(data):
            return False
        self._domain.memory.write(physical, data)
        return True

    def make(self) -> bool:
        """False for an instruction that TF steps. Raises XenError for one that is refused, or not answered, and Woken
        where the wake was set before an interrupt came, or it takes long: then the vCPU halts."""
        state = self._domain.cpu_state()
        if state.halted:
            self._await_interrupt(state)
            return True
        code = self._code(state)
        parts = _parts(code, code_bits(state) == 64)
        word = parts.opcode
        if name := _REFUSED.get(word):
            raise _cannot(name, state)
        if word in _INTERRUPTS:
            return self._interrupt(state, parts)
        wide = ((code_bits(state) == 16) != (_OPERAND_SIZE in parts.prefixes) and 2) or 4
        advance = self._made(state, code, parts, wide)
        if advance is None:
            return False
        mask = (1 << 64) - 1 if state.long64 else 0xFFFFFFFF if state.cs.big else 0xFFFF
        state.rip = (state.rip + advance) & mask
        if word == _HLT:
            self._await_interrupt(state)
        else:
            self._domain.load_cpu(state)
        return True

    def _made(self, state: CpuState, code: bytes, parts: _Parts, wide: int) -> int | None:
        """How many bytes the vCPU goes on by, when the instruction is done in `state`; None: TF steps it."""
        found = reached(
            state, code, lambda linear, writes: self._physical_for(state, linear, writes=writes),
            self._domain.memory.readable,
        )  # fmt: skip
        if found is not None and not parts.is_string:
            return self._device_memory(state, *found)
        if parts.is_string:
            return self._string(state, parts, min(wide, 4) if parts.rest[0] & 1 else 1)
        length = self._port(state, parts.rest, wide) if parts.is_port else self._other(state, parts, wide)
        return parts.start + length if length else None

    def _other(self, state: CpuState, parts: _Parts, wide: int) -> int:
        """The length without prefixes of what needs no port, 0: TF steps it."""
        word, rest = parts.opcode, parts.rest
        if word == _CPUID:
            leaf, part = state.regs[0] & 0xFFFFFFFF, state.regs[1] & 0xFFFFFFFF
            eax, ebx, ecx, edx = self._by_borrowed(lambda bridge: bridge.cpuid(leaf, part))
            state.regs[0], state.regs[1], state.regs[2], state.regs[3] = eax, ecx, edx, ebx
            return 2
        if word == _HLT and not state.cpl:
            if not state.rflags & RFLAGS_IF:
                raise XenError(f"HLT at {state.linear_pc:#x} with interrupts off: nothing wakes the vCPU")
            return 1
        if word == _STI and (not state.cr0 & CR0_PE or state.cpl <= state.rflags >> 12 & 3):
            # Its shadow is no part of Xen's CPU record, so it is a step of its own, whatever waits.
            state.rflags |= RFLAGS_IF
            return 1
        if word == _PUSHF:
            size = 8 if state.long64 and wide == 4 else wide
            return int(push_flags(state, size, lambda linear, data: self._write(state, linear, data)))
        if word in (b"\x0f\x20", b"\x0f\x22"):
            return _control(state, rest, parts.rex)
        if word == b"\x0f\x06" and not state.cpl:
            state.cr0 &= ~8
            return 2
        if parts.is_status:
            return _machine_status(state, rest[2], wide)
        return 0

    def _interrupt(self, state: CpuState, parts: _Parts) -> bool:
        """INT n and its kind in real mode: elsewhere TF steps them, which is behind their handler."""
        if state.cr0 & CR0_PE or state.rflags & RFLAGS_VM:
            return False
        entry = interrupt(state, parts.rest, parts.start, lambda linear, data: self._write(state, linear, data))
        if entry is None or (vector := self._word(entry, 4)) is None:
            return False
        state.rip, selector = int.from_bytes(vector[:2], "little"), int.from_bytes(vector[2:], "little")
        state.cs.selector, state.cs.base = selector, selector << 4
        self._domain.load_cpu(state)
        return True

    # -- the borrowed vCPU

    def _borrowed(self) -> XenBridge:
        """Borrow it. Raises XenError."""
        try:
            self._bridge = self._bridge or XenBridge(self._domain)
            self._bridge.borrow()
        except BridgeError as error:
            raise XenError(str(error)) from None
        return self._bridge

    def _by_borrowed(self, work: Callable[[XenBridge], T]) -> T:
        """What it does, given back paused. Raises XenError."""
        bridge = self._borrowed()
        try:
            try:
                return work(bridge)
            finally:
                bridge.give_back(paused=True)
        except BridgeError as error:
            raise XenError(str(error)) from None

    def _may_use_ports(self, state: CpuState) -> None:
        """Raises XenError where the TSS has to be asked: always in virtual 8086 mode, whatever IOPL is (SDM vol. 1,
        19.5.2)."""
        if state.cr0 & CR0_PE and (state.rflags & RFLAGS_VM or state.cpl > state.rflags >> 12 & 3):
            raise XenError(f"the port access at {state.linear_pc:#x} depends on the TSS and cannot be stepped")

    def _string(self, state: CpuState, parts: _Parts, size: int) -> int:
        """An iteration of INS or OUTS; how many bytes the vCPU goes on by."""
        self._may_use_ports(state)

        def move(reads: bool, port: int, linear: int) -> bool:
            physical = self._physical_for(state, linear, writes=reads)
            if physical is None or linear % PAGE + size > PAGE or (held := self._word(physical, size)) is None:
                return False
            request = Ioreq(Type.PIO, port, size, reads, 0 if reads else int.from_bytes(held, "little"))
            # Before the access, which cannot be taken back.
            if reads and not self._write(state, linear, held):
                return False
            value = self._by_borrowed(lambda bridge: bridge.submit_any(request))
            return not reads or self._write(state, linear, value.to_bytes(size, "little"))

        done = iterate(state, parts.prefixes, parts.rest[0], size, move)
        if done is None:
            raise _cannot("INS" if parts.rest[0] < 0x6E else "OUTS", state)
        return parts.start + 1 if done else 0

    def _device_memory(self, state: CpuState, instruction: Instruction, physical: int) -> int:
        """An access to memory of a device; how many bytes the vCPU goes on by."""

        def access(reads: bool, size: int, value: int) -> int:
            request = Ioreq(Type.COPY, physical, size, reads, value)
            return self._by_borrowed(lambda bridge: bridge.submit_any(request))

        if (advance := make(state, instruction, access)) is None:
            raise _cannot(f"the access to {physical:#x}", state)
        return advance

    def _port(self, state: CpuState, rest: bytes, wide: int) -> int:
        """IN or OUT; the length without prefixes. Whether the guest may is for its CPU to say."""
        self._may_use_ports(state)
        in_dx, writes, size = bool(rest[0] & 8), bool(rest[0] & 2), wide if rest[0] & 1 else 1
        port = state.regs[2] & 0xFFFF if in_dx else rest[1]
        mask = (1 << 8 * size) - 1
        request = Ioreq(Type.PIO, port, size, not writes, state.regs[0] & mask)
        value = self._by_borrowed(lambda bridge: bridge.submit_any(request))
        if not writes:
            kept = 0 if size == 4 else state.regs[0] & ~mask
            state.regs[0] = kept | value
        return 1 if in_dx else 2

    def _await_interrupt(self, state: CpuState) -> None:
        """The vCPU halts before what `state` says is next: wait for the interrupt that ends it. It is delivered when
        the vCPU runs. Raises Woken when the wake is set first, or it takes too long; then it still halts there."""
        bridge = self._borrowed()
        came = False
        try:
            bridge.load_cpu(state)
            bridge.listen(True)
            came = self._hear(bridge)
        except BridgeError as error:
            raise XenError(str(error)) from None
        finally:
            try:
                bridge.give_back(halted=not came, paused=True)
            except BridgeError as error:
                raise XenError(str(error)) from None
        if not came:
            raise Woken

    def _hear(self, bridge: XenBridge) -> bool:
        """Wait for an interrupt; False where the wake is set first, or it takes too long for who has one."""
        poll = select.poll()
        poll.register(bridge.descriptor, select.POLLIN)
        if self._wake is not None:
            poll.register(self._wake.descriptor, select.POLLIN)
        end = None if self._wake is None else time.monotonic() + _LONG_WAIT
        while not bridge.arrived():
            left = None if end is None else max(0.0, end - time.monotonic()) * 1000
            ready = poll.poll(left)
            if not ready or any(descriptor != bridge.descriptor for descriptor, _ in ready):
                return bridge.arrived()
        return True

    def close(self) -> None:
        """Take what is ours out of the domain."""
        if self._bridge is not None:
            self._bridge.close()
            self._bridge = None


def _cannot(name: str, state: CpuState) -> XenError:
    return XenError(f"{name} at {state.linear_pc:#x} is executed by Xen and cannot be stepped: run past it")


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
    """LMSW and SMSW of a register; the length, 0 where the CPU would not do it: TF shows the guest's own exception."""
    register, stores = form & 7, form & 0xF8 == 0xE0
    if state.cpl and (not stores or state.cr4 & _CR4_UMIP):
        return 0
    if stores:
        kept = state.regs[register] & ~0xFFFF if wide == 2 else 0
        state.regs[register] = kept | state.cr0 & (0xFFFF if wide == 2 else 0xFFFFFFFF)
    else:
        # LMSW sets PE and never clears it.
        state.cr0 = state.cr0 & ~0xE | state.regs[register] & 0xF
    return 3
