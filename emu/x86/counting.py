"""Loops that do nothing but count, as delays are: by LOOP, or by DEC or INC of a register that JNZ looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emu.record import dataclass
from emu.x86.rounds import WHOLE, Step
from emu.x86.state import GENERAL, CpuState

#: A longer round is no delay.
LONGEST = 16
#: What changes nothing but its own destination: a round of these alone leaves the CPU as it was, but for the counter.
_PLAIN = frozenset(("nop", "pause", "jmp", "in", "out", "mov", "loop", "dec", "inc", "jne"))
_IMMEDIATE, _MEMORY = 2, 3  # capstone.x86.X86_OP_IMM, X86_OP_MEM


@dataclass(frozen=True, slots=True)
class Count:
    """A loop that counts: `register` is the 64-bit name of its counter, of which `bits` count by `by` (1 or -1) to 0.
    `branch` is the linear address of the branch that leaves it, `name` the counter's name in it."""

    branch: int
    register: str
    bits: int
    by: int
    name: str

    def near_its_end(self, state: CpuState) -> bool:
        """Set the counter, which stands before a round, so that this round is the last. False: it is already."""
        mask = (1 << self.bits) - 1
        at = GENERAL.index(self.register)
        value = state.regs[at] & ~mask | -self.by & mask
        if value == state.regs[at]:
            return False
        # a 32-bit result clears the upper half, as that of each round does
        state.regs[at] = value & mask if self.bits == 32 else value
        return True


def counting(steps: Sequence[Step]) -> Count | None:
    """The loop of which `steps` is one round (places and bytes are looked at alone), if it does nothing but count. Any
    number of its places may come again: what is within it counts to an end of its own."""
    import capstone  # its import costs more than most runs need

    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    codes: dict[int, Any] = {}
    for step in steps:
        if step.linear not in codes:
            engine = capstone.Cs(capstone.CS_ARCH_X86, modes[step.bits])
            engine.detail = True
            found = next(iter(engine.disasm(step.code, step.linear, 1)), None)
            if found is None or not _is_plain(found):
                return None
            codes[step.linear] = found
    before = {b.linear: codes[a.linear] for a, b in zip(steps, [*steps[1:], steps[0]], strict=True)}
    branches = [c for c in codes.values() if c.mnemonic in ("loop", "jne")]
    counters = [c if c.mnemonic == "loop" else before[c.address] for c in branches]
    leaving = [n for n, c in enumerate(branches) if not _within(c, codes)]
    # each register that counts is one that a branch behind it looks at, so that what is within is left with 0 in it
    steppers = [c for c in codes.values() if c.mnemonic in ("dec", "inc", "loop")]
    if len(leaving) != 1 or sorted(c.address for c in steppers) != sorted(c.address for c in counters):
        return None
    branch, counter = branches[leaving[0]], counters[leaving[0]]
    if counter.mnemonic == "loop":
        bits = 8 * counter.addr_size
        name, by = {16: "cx", 32: "ecx", 64: "rcx"}[bits], -1
    else:
        bits, name, by = 8 * counter.operands[0].size, str(counter.op_str), 1 if counter.mnemonic == "inc" else -1
    if (register := WHOLE.get(name)) is None or name in ("ah", "bh", "ch", "dh"):
        return None
    for code in codes.values():
        if code is not counter and register in {WHOLE.get(code.reg_name(r)) for r in code.regs_access()[1]}:
            return None
    return Count(branch.address, register, bits, by, name)


def _is_plain(code: Any) -> bool:
    if code.mnemonic not in _PLAIN or any(operand.type == _MEMORY for operand in code.operands):
        return False
    return bool(code.mnemonic != "mov" or code.operands[1].type == _IMMEDIATE)


def _within(code: Any, codes: dict[int, Any]) -> bool:
    """A branch back, both of whose sides are in the loop."""
    target = code.operands[0].imm
    return bool(target <= code.address and target in codes and code.address + code.size in codes)
