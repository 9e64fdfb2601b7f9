"""The portable loop's checks of what Unicorn leaves out, before an instruction executes: segments and near branches.

With the C helper emu/native/checks.c makes them; both follow `emu.x86.operands` and the SDM sections named there.

The gate (`emu.unicorn_thunks`) compares the segment caches and the mode with those seen last. While they are the same
and harmless, that is all; otherwise it calls `_check` here before each instruction, which answers with the exception to
raise in its place. What is harmless: 64-bit mode, and segments of 4 GiB that may be read and written. In the level
`auto` also 64 KiB segments of real and V86 mode, and null selectors in ES, FS and GS beside flat segments: those are
what ordinary code runs with, and asking Python before each instruction is fifty times slower.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_uint64, c_void_p
from enum import IntEnum
from typing import Final

from emu.engine import CheckLevel
from emu.record import replace
from emu.unicorn_bases import Bases
from emu.unicorn_control import CHECKED_MODE, INSTEAD, Control
from emu.unicorn_layout import HF_ADDSEG, HF_CPL, HF_CS64, HF_LMA, HF_PE, Env, EnvSegment, offset_of
from emu.unicorn_overlay import Overlay
from emu.x86.operands import CS, DS, SS, Branch, Instruction, decode
from emu.x86.precedence import FAR_CALL, FAR_JUMP, GROUP_5, GROUP_6, LTR, comes_first, undefined
from emu.x86.segcheck import (
    FLAT,
    VECTOR_AC,
    VECTOR_GP,
    Violation,
    alignment_checked,
    far_branch,
    fetch,
    harmless,
    misaligned,
    operands,
    target,
)
from emu.x86.state import RFLAGS_VM

_CHECKER = ctypes.CFUNCTYPE(c_uint64, c_void_p, c_uint64)
TSS_MAP = 0x66  #: offset of the I/O map base in a 32- or 64-bit TSS (SDM vol. 3A, 8.2.1, 8.7)
#: In real and V86 mode CS may be read and written, whatever its cache says; limits hold (SDM vol. 3A, 21.1.1).
REAL_CODE_RIGHTS: Final = 0x93
PRIVILEGED: Final = frozenset((0x6C, 0x6D))
MASK32 = (1 << 32) - 1
LONGEST = 15
RING_3: Final = 3
VECTOR_UD: Final = 6


class Far(IntEnum):
    """The far transfers, by the numbers of emu/native/tasks.c."""

    JUMP = 1
    CALL = 2
    INTERRUPT_RETURN = 3
    RETURN = 4


#: But for group 5.
_FAR: Final = {0x9A: Far.CALL, 0xEA: Far.JUMP, 0xCA: Far.RETURN, 0xCB: Far.RETURN, 0xCF: Far.INTERRUPT_RETURN}


def far_kind(instruction: Instruction) -> Far | None:
    """Which far transfer it is; None for another instruction."""
    if instruction.opcode == GROUP_5 and instruction.rm is None:
        return {FAR_CALL: Far.CALL, FAR_JUMP: Far.JUMP}.get(instruction.reg)
    return _FAR.get(instruction.opcode)


def _calls_far(instruction: Instruction) -> bool:
    return far_kind(instruction) is Far.CALL


def _without_frame(instruction: Instruction) -> Instruction:
    kept = tuple(r for r in instruction.references if r.segment != SS or not r.write)
    return replace(instruction, references=kept)


class _Cache:
    """A descriptor cache, copied when it changes: `access` as `emu.x86.state.Segment` has it."""

    __slots__ = ("access", "base", "limit")

    def __init__(self, segment: EnvSegment) -> None:
        self.base: int = segment.base
        self.limit: int = segment.limit
        self.access: int = segment.flags >> 8 & 0xF0FF


class Checks:
    """The checker of one engine. `read_linear` returns as many of the bytes asked for as are mapped memory; `failed`
    takes an exception that must not leave a callback."""

    def __init__(
        self,
        overlay: Overlay,
        control: Control,
        level: CheckLevel,
        read_linear: Callable[[int, int], bytes],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._ov, self._control, self._level = overlay, control, level
        self._read, self._failed = read_linear, failed
        self._caches: list[_Cache] = []
        #: Limit and flags of each segment register, live, and as seen last.
        self._live = [
            c_uint64.from_address(overlay.env_address + offset_of(Env, "segs") + ctypes.sizeof(EnvSegment) * i + 16)
            for i in range(6)
        ]
        self._raw: list[int] = []
        self._bases = Bases(tuple(overlay.env.segs))
        self._registers = (c_uint64 * 8).from_address(overlay.env_address)
        self._bits = self._stack_bits = 16
        self._vm = False
        #: asks `emu.unicorn_transfers` for a far transfer: as of the helper's
        self.transfer: Callable[[int, int, int], int] | None = None
        self._instead = False  # the instruction has been done
        self._callback = _CHECKER(self._check)
        if level is not CheckLevel.OFF:
            control.checker = ctypes.cast(self._callback, c_void_p).value or 0

    def _port_allowed(self, port: int, size: int) -> bool:
        """Every bit of the TSS's map for the ports must be 0, and the map is read two bytes at a time, both within the
        TSS's limit (SDM vol. 1, 19.5.2)."""
        tr = self._ov.env.tr
        kind = tr.flags >> 8 & 0x9D
        if kind != 0x89 or tr.limit < TSS_MAP + 1:
            return False
        start = int.from_bytes(self._read(tr.base + TSS_MAP, 2), "little") + (port >> 3)
        if start + 1 > tr.limit:
            return False
        bits = int.from_bytes(self._read(tr.base + start & MASK32, 2), "little") >> (port & 7)
        return not bits & (1 << size) - 1

    def _check(self, _uc: int, address: int) -> int:
        try:
            env = self._ov.env
            vm = bool(env.eflags & RFLAGS_VM)
            control = self._control
            if env.hflags & HF_CS64:
                self._bases.hide()
            elif self._show_bases():  # this translation was made for registers without
                control.remaining += 1
                return INSTEAD
            raw = [env_cache.value for env_cache in self._live]
            if raw != self._raw or env.hflags & CHECKED_MODE != control.mode or vm != self._vm:
                self._classify(raw, vm)
            if not control.checks:
                return 0
            self._instead = False
            found = self._violation(address)
            if self._instead:
                return INSTEAD
            return 0 if found is None else found.vector | found.code << 32
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._failed(error)
            return 0

    def _show_bases(self) -> bool:
        """True when translations made until now are of no use, as Unicorn took it that no register has a base."""
        env = self._ov.env
        if not self._bases.show() or env.hflags & HF_CS64:
            return False
        env.hflags |= HF_ADDSEG
        return True

    def run_ended(self) -> None:
        """To be called when Unicorn returns."""
        self._show_bases()

    def _classify(self, raw: list[int], vm: bool) -> None:
        env, control = self._ov.env, self._control
        self._raw = raw
        for i, value in enumerate(raw):
            control.caches[i] = value
        control.mode = env.hflags & CHECKED_MODE
        self._vm = vm
        self._caches = [_Cache(segment) for segment in env.segs]
        code, stack = self._caches[CS], self._caches[SS]
        self._bits, self._stack_bits = (32 if c.access & 0x4000 else 16 for c in (code, stack))
        real = not env.hflags & HF_PE or vm
        if real:
            code.access = code.access & 0x4000 | REAL_CODE_RIGHTS
        if env.hflags & HF_CS64:
            control.checks = 0
        elif self._level is CheckLevel.FULL:
            control.checks = 1
        elif real:
            usual = all(c.access & 0x80 and c.limit >= 0xFFFF and c.access & 0xE == 2 for c in self._caches)
            control.checks = 0 if usual else 1
        else:
            control.checks = 0
            for i, cache in enumerate(self._caches):
                if harmless(cache, code=i == CS):
                    continue
                if i not in (CS, SS, DS) and not cache.access & 0x80:
                    continue
                control.checks = 1

    def _violation(self, address: int) -> Violation | None:
        env = self._ov.env
        code = self._caches[CS]
        instruction = decode(self._read(address, LONGEST), self._bits, self._stack_bits)
        limited = code.limit != FLAT
        if limited:
            found = fetch(code, env.eip, instruction.length)
            if found is not None:
                return found
        if undefined(instruction):
            return Violation(VECTOR_UD)
        if instruction.opcode in PRIVILEGED:
            found = self._privileged(instruction)
            if found is not None:
                return found
        protected = env.hflags & HF_PE and not self._vm
        far = far_kind(instruction) if protected else None
        if limited and not protected:
            instruction = far_branch(instruction)
        loads_task = protected and instruction.opcode == GROUP_6 and instruction.reg == LTR
        if not (instruction.references or far or loads_task or (instruction.branch is not None and limited)):
            return None
        regs = [value & MASK32 for value in self._registers]
        found = None
        cpl = env.hflags & HF_CPL
        if not comes_first(instruction, cr0=env.cr[0], cr4=env.cr[4], rflags=env.eflags, cpl=cpl):
            found = self._operands(instruction, regs)
            if found is None and loads_task:
                return self._null_task(instruction, regs)
        if found is None and far is not None and not env.hflags & HF_LMA:
            return self._transfer(far, instruction, regs)
        if found is not None or instruction.branch is None or not limited:
            return found
        return self._branch(instruction, env.eip, regs)

    def _operands(self, instruction: Instruction, regs: list[int]) -> Violation | None:
        env = self._ov.env
        if not self._vm and env.hflags & HF_PE and _calls_far(instruction):
            instruction = _without_frame(instruction)  # which may go to another stack, and is behind the selector
        found = operands(self._caches, regs, instruction)
        if found is None and env.hflags & HF_CPL == RING_3 and alignment_checked(env.cr[0], env.eflags):
            bases = [segment.base for segment in env.segs]
            found = Violation(VECTOR_AC) if misaligned(bases, regs, instruction) else None
        return found

    def _null_task(self, instruction: Instruction, regs: list[int]) -> Violation | None:
        """LTR of a null selector is #GP(0) (SDM vol. 2A, LTR), which Unicorn loads."""
        if instruction.rm is not None:
            selector = regs[instruction.rm]
        else:
            reference = instruction.references[0]
            linear = self._ov.env.segs[reference.segment].base + reference.address(regs) & MASK32
            data = self._read(linear, 2)
            if len(data) < 2:
                return None
            selector = int.from_bytes(data, "little")
        return None if selector & 0xFFFC else Violation(VECTOR_GP)

    def _transfer(self, kind: Far, instruction: Instruction, regs: list[int]) -> Violation | None:
        """A far transfer of protected mode: what Unicorn does otherwise is done here, as with the C helper."""
        if self.transfer is None:
            return None
        env, size = self._ov.env, instruction.operand_size
        following = env.eip + (instruction.length or 0) & MASK32
        if kind is Far.INTERRUPT_RETURN:
            return self._answered(self.transfer(kind, size, following))
        if kind is Far.RETURN:
            return self._answered(self.transfer(kind, size, instruction.immediate & 0xFFFF))
        if instruction.opcode == GROUP_5:
            reference = instruction.references[0]
            linear = env.segs[reference.segment].base + reference.address(regs) & MASK32
            pointer = self._read(linear, size + 2)
            if len(pointer) < size + 2:
                return None  # a page fault, of the instruction's own
            value = int.from_bytes(pointer, "little")
        else:
            value = instruction.immediate
        offset, selector = value & (1 << 8 * size) - 1, value >> 8 * size
        wide = size >> 2 << 32 if kind is Far.CALL else 0
        return self._answered(self.transfer(kind, selector | offset << 32, following | wide))

    def _answered(self, answer: int) -> Violation | None:
        if answer == INSTEAD:
            self._instead = True
        return Violation(answer & 0xFF, answer >> 32) if answer and answer != INSTEAD else None

    def _privileged(self, instruction: Instruction) -> Violation | None:
        """INS: Unicorn writes its operand once before it asks for the port."""
        env = self._ov.env
        if instruction.repeat and not env.regs[1] & instruction.address_mask:
            return None
        above = env.hflags & HF_CPL > env.eflags >> 12 & 3
        if env.hflags & HF_PE and (self._vm or above):
            size = instruction.operand_size if instruction.opcode & 1 else 1
            if not self._port_allowed(env.regs[2] & 0xFFFF, size):
                return Violation(VECTOR_GP)
        return None

    def _branch(self, instruction: Instruction, ip: int, regs: list[int]) -> Violation | None:
        env = self._ov.env
        loaded = None
        if instruction.branch is Branch.RETURN or (instruction.branch is Branch.OPERAND and instruction.rm is None):
            reference = instruction.references[0]
            base = env.segs[reference.segment].base
            linear = base + reference.address(regs) & MASK32
            data = self._read(linear, instruction.operand_size)
            if len(data) < instruction.operand_size:
                return None
            loaded = int.from_bytes(data, "little")
        flags = self._ov.call.read_eflags(self._ov.env_address) if instruction.branch is not Branch.ALWAYS else 0
        to = target(instruction, ip, regs, flags, loaded)
        return None if to is None or to <= self._caches[CS].limit else Violation(VECTOR_GP)
