"""`python -m bench.checkpoints`: what it takes to save and restore a machine, in microseconds, in this process."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from emu.machine import Machine, MachineConfig, build_machine

MEMORY = 64 << 20
PAGE = 0x1000
DIRTY = 1000
SAMPLES = 50
#: A JMP to itself at the reset vector.
FIRMWARE = bytes(0xFFF0) + b"\xeb\xfe" + bytes(14)


def median(action: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Microseconds of `action`, each time behind `before`."""
    samples = []
    for _ in range(SAMPLES):
        before()
        begin = time.perf_counter()
        action()
        samples.append(time.perf_counter() - begin)
    return statistics.median(samples) * 1e6


def dirty(machine: Machine, turn: list[int]) -> None:
    """Change a byte in each of DIRTY pages."""
    turn[0] += 1
    for number in range(DIRTY):
        machine.memory.write((1 << 20) + number * PAGE, turn[0].to_bytes(4, "little"))


def main() -> int:
    """Returns an exit status."""
    machine = build_machine(MachineConfig(memory=MEMORY, firmware=FIRMWARE))
    machine.run(1000)
    turn = [0]
    dirty(machine, turn)
    state = machine.save()
    rows = (
        ("memory alone, saved at rest", median(machine.memory.save)),
        ("saved at rest", median(machine.save)),
        ("restored at rest", median(lambda: machine.restore(state))),
        (f"saved after {DIRTY} pages were written", median(machine.save, lambda: dirty(machine, turn))),
        (
            f"restored after {DIRTY} pages were written",
            median(lambda: machine.restore(state), lambda: dirty(machine, turn)),
        ),
    )
    marked = "marked as they are written" if machine.memory.exact else "compared, all of them"
    print(f"a machine of {MEMORY >> 20} MiB, whose pages are {marked}")
    for name, value in rows:
        print(f"{name:<40}{value:>10.0f} us")
    machine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
