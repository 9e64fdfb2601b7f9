"""How many requests a second a front end's thread can post to the thread of a stopped machine, and have answered."""

from __future__ import annotations

import time

from emu.debugger import Debugger
from emu.machine import MachineConfig, build_machine
from emu.worker import Worker

NAME = "posted requests"
REQUESTS = 20_000


def rate() -> float:
    """One sample, 1/s: requests that do nothing, each waited for."""
    machine = build_machine(MachineConfig(memory=1 << 20, firmware=b"\xf4" * 0x10000))
    worker = Worker(Debugger(machine))
    worker.start()
    try:
        begin = time.perf_counter()
        for _ in range(REQUESTS):
            worker.call(lambda: None)
        return REQUESTS / (time.perf_counter() - begin)
    finally:
        worker.close()


def row(samples: list[float], median: float) -> str:
    """One line; QEMU has no such thing to compare."""
    return f"{NAME:<36}{'1/s':>8}{median:>11.4g}  more is better; aim: 15,000, least seen {min(samples):.4g}"
