"""The loops of the CPU: MIPS of v2e beside QEMU's TCG and QEMU's TCG that counts (`-icount shift=0`), in one run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.guests import BEGIN_CODE, END_CODE, EXIT_CODE, ROM_SIZE
from bench.sides import Side


@dataclass(frozen=True)
class Loop:
    """`body` is 16-bit code with 32-bit operands that counts ECX down to 0; `instructions` are executed in a turn.

    The turns take a second and more on each side: what a run costs once, such as a first look at a guest that seems to
    get nowhere (0.1 s), is no part of a rate."""

    name: str
    body: bytes
    instructions: int
    turns: int


LOOPS = (
    # add eax, ebx; xor ebx, eax; dec ecx; jnz
    Loop("tight loop", bytes.fromhex("6601d8 6631c3 6649 75f6"), 4, 480_000_000),
    # mov eax, [3000h]; add eax, ebx; mov [3000h], eax; add eax, [3004h]; dec ecx; jnz
    Loop("memory loop", bytes.fromhex("66a10030 6601d8 66a30030 6603060430 6649 75ec"), 6, 240_000_000),
    # call next; dec ecx; jnz; jmp out; next: ret
    Loop("call loop", bytes.fromhex("e80600 6649 75f9 eb01 c3"), 4, 60_000_000),
)
#: jmp far f000:0000
RESET = bytes.fromhex("ea000000f0")


def rom(path: Path, loop: Loop, turns: int) -> Path:
    """A ROM that makes so many turns between its marks and ends the run."""
    code = BEGIN_CODE + bytes.fromhex("66b9") + turns.to_bytes(4, "little") + loop.body + END_CODE + EXIT_CODE
    path.write_bytes(code.ljust(ROM_SIZE - 16, b"\xff") + RESET.ljust(16, b"\xff"))
    return path


def mips(side: Side, folder: Path, loop: Loop) -> float:
    """Millions of instructions a second."""
    seconds = side.timed(str(rom(folder / "loop.rom", loop, loop.turns)), None)
    return loop.turns * loop.instructions / seconds / 1e6


def sample(loop: Loop, sides: Sequence[Side], repetitions: int, folder: Path) -> dict[str, list[float]]:
    """`repetitions` samples of each side, in turns."""
    samples: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in range(repetitions):
        for side in sides:
            samples[side.name].append(mips(side, folder, loop))
    return samples


def row(loop: Loop, samples: dict[str, list[float]]) -> str:
    """One line: the median of each side, and v2e's as a multiple of each other one's."""
    medians = {name: statistics.median(values) for name, values in samples.items()}
    ours = medians.pop("v2e")
    others = "".join(f"{value:>11.4g}{ours / value:>9.2f}x" for value in medians.values())
    return f"{loop.name:<36}{'MIPS':>8}{ours:>11.4g}{others}  more is better; aim: 0.65x of QEMU, 1x of -icount"
