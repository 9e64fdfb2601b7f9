"""`python -m bench.checks`: what the checks of segments and alignment cost loops, and their translation, in CPU time.

Each loop runs on two engines of one process in turns, without the checks (`--checks off`) and with them (`full`).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from emu.engine import CheckLevel, ExitReason
from emu.memory import Part, PhysicalMemory
from emu.unicorn_engine import UnicornEngine
from emu.x86.state import CR0_PE, EFER_LMA, EFER_LME, CpuState, Segment

RAM = 1 << 20
CODE, DATA, STACK, TABLES = 0x1000, 0x4000, 0x8000, 0x10000
CR0_PG, CR4_PAE_OSFXSR, LARGE = 1 << 31, 0x220, 0x83
FLAT = 0xFFFFFFFF
HLT = 0xF4
#: Bytes of code that are executed once, for what translation costs.
STRAIGHT = 0x2000


@dataclass(frozen=True)
class Loop:
    """`body` in code of `bits` bits, `instructions` of them; EBX and ESI point to data, ECX counts down."""

    name: str
    bits: int
    body: str
    instructions: int


_COUNT16, _COUNT32, _COUNT64 = "6649 75", "49 75", "ffc9 75"
LOOPS = (
    # add eax, edx; xor edx, eax
    Loop("32-bit, registers", 32, "01d0 31c2" + _COUNT32, 4),
    # mov eax, [ebx]; add eax, edx; mov [ebx+4], eax; add eax, [ebx+8]
    Loop("32-bit, memory", 32, "8b03 01d0 894304 034308" + _COUNT32, 6),
    # lock add [ebx], eax; lock inc dword [ebx]
    Loop("32-bit, LOCK", 32, "f00103 f0ff03" + _COUNT32, 4),
    # movups xmm0, [ebx]; movups [esi], xmm0; movss xmm1, [ebx+16]
    Loop("32-bit, SSE anywhere", 32, "0f1003 0f1106 f30f104b10" + _COUNT32, 5),
    # movaps xmm0, [ebx]; movaps [esi], xmm0
    Loop("32-bit, SSE aligned, copy", 32, "0f2803 0f2906" + _COUNT32, 4),
    # movdqa xmm0, [ebx]; paddd xmm0, [ebx+16]; pxor xmm0, [ebx+32]; movdqa [esi], xmm0
    Loop("32-bit, SSE aligned, sums", 32, "660f6f03 660ffe4310 660fef4320 660f7f06" + _COUNT32, 6),
    # mulps xmm0, [ebx]; addps xmm1, xmm0
    Loop("32-bit, SSE aligned, floats", 32, "0f5903 0f58c8" + _COUNT32, 4),
    # mov rax, [rbx]; add rax, rdx; mov [rbx+8], rax; add rax, [rbx+16]
    Loop("64-bit, memory", 64, "488b03 4801d0 48894308 48034310" + _COUNT64, 6),
    # movaps xmm0, [rbx]; movaps [rsi], xmm0
    Loop("64-bit, SSE aligned, copy", 64, "0f2803 0f2906" + _COUNT64, 4),
    # movdqa xmm0, [rbx]; paddd xmm0, [rbx+16]; pxor xmm0, [rbx+32]; movdqa [rsi], xmm0
    Loop("64-bit, SSE aligned, sums", 64, "660f6f03 660ffe4310 660fef4320 660f7f06" + _COUNT64, 6),
    # mov ax, [bx]; add ax, dx; mov [bx+2], ax; add ax, [bx+4]
    Loop("real mode, words in memory", 16, "8b07 01d0 894702 034704" + _COUNT16, 6),
)  # fmt: skip


class _NoDevices:
    """No port is there."""

    def port_in(self, _port: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def port_out(self, _port: int, _size: int, _value: int) -> None:
        return


def program(loop: Loop) -> bytes:
    """The loop, with a branch back to its beginning, and HLT behind it."""
    body = bytes.fromhex(loop.body)
    return body + (-len(body) - 1 & 0xFF).to_bytes(1, "little") + bytes((HLT,))


def start(bits: int, turns: int) -> CpuState:
    """The CPU before the loop: real mode, or flat segments; in 64-bit mode the first 2 MiB are mapped to themselves."""
    state = CpuState(rip=CODE, cr0=0x60000010, cr4=CR4_PAE_OSFXSR)
    state.regs[1], state.regs[3], state.regs[6], state.regs[4] = turns, DATA, DATA + 0x100, STACK
    if bits == 16:
        state.cs = Segment(0, 0, 0xFFFF, 0x9B)
        return state
    state.cr0 |= CR0_PE
    state.cs = Segment(8, 0, FLAT, 0xA09B if bits == 64 else 0xC09B)
    for name in ("es", "ss", "ds", "fs", "gs"):
        setattr(state, name, Segment(16, 0, FLAT, 0xC093))
    if bits == 64:
        state.cr0 |= CR0_PG
        state.cr3, state.efer = TABLES, EFER_LME | EFER_LMA
    return state


class Bare:
    """A CPU with RAM and nothing else, with the checks of `level`."""

    def __init__(self, level: CheckLevel) -> None:
        self.memory = PhysicalMemory([Part(0, RAM, "ram", "ram")])
        self.engine = UnicornEngine(self.memory.regions, _NoDevices(), None, timestamp=lambda: 0, checks=level)
        self.memory.on_write.append(self.engine.memory_changed)
        for table, entry in ((0, TABLES + 0x1003), (0x1000, TABLES + 0x2003), (0x2000, LARGE)):
            self.memory.write(TABLES + table, entry.to_bytes(8, "little"))

    def seconds(self, code: bytes, bits: int, turns: int) -> float:
        """CPU time of `code` to its HLT."""
        self.memory.write(CODE, code)
        self.engine.load(start(bits, turns))
        before = time.process_time()
        exit = self.engine.run(1 << 40)
        taken = time.process_time() - before
        if exit.reason is not ExitReason.HALT:
            raise RuntimeError(f"the loop ended with {exit.reason.value}, {exit.faults}")
        return taken


def sample(sides: Sequence[Bare], code: bytes, bits: int, turns: int, rounds: int) -> list[list[float]]:
    """CPU times of each side, in turns, the order changing with each round."""
    samples: list[list[float]] = [[] for _ in sides]
    for side in sides:
        side.seconds(code, bits, 1)
    for number in range(rounds):
        order = range(len(sides))
        for i in order if number % 2 else reversed(order):
            samples[i].append(sides[i].seconds(code, bits, turns))
    return samples


def _row(name: str, instructions: int, off: list[float], full: list[float]) -> str:
    middle, other = statistics.median(off), statistics.median(full)
    ratio = statistics.median(a / b for a, b in zip(full, off, strict=True))
    return f"| {name} | {1e9 * middle / instructions:.3f} | {1e9 * other / instructions:.3f} | {ratio:.3f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.checks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--turns", type=int, default=10_000_000, help="of each loop")
    options = parser.parse_args()
    sides = Bare(CheckLevel.OFF), Bare(CheckLevel.FULL)
    print("| loop | off, ns an instruction | full | full / off |\n|---|---|---|---|")
    for loop in LOOPS:
        off, full = sample(sides, program(loop), loop.bits, options.turns, options.rounds)
        print(_row(loop.name, loop.instructions * options.turns, off, full), flush=True)
    for bits in (32, 64):  # written anew, it is translated anew: mov eax, [ebx]; movaps xmm0, [ebx]
        for name, code in (("MOV", "8b03"), ("MOVAPS", "0f2803")):
            body = bytes.fromhex(code) * (STRAIGHT // len(bytes.fromhex(code)))
            off, full = sample(sides, body + bytes((HLT,)), bits, 1, options.rounds)
            count = len(body) // len(bytes.fromhex(code))
            print(_row(f"{bits}-bit {name}, translated and executed once", count, off, full), flush=True)


if __name__ == "__main__":
    main()
