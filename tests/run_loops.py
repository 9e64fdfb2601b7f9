"""Bare CPUs in either run loop, and programs that have to end alike in both, at every slice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bare_cpu import BareCpu, bare_cpu
from emu.engine import CheckLevel, ExitReason
from emu.unicorn_engine import HELPER

#: For modules whose tests need both loops.
needs_helper = pytest.mark.skipif(
    isinstance(HELPER, str), reason=f"there is no helper: {HELPER if isinstance(HELPER, str) else ''}"
)


def run_without_the_helper(file: str, keywords: str) -> str:
    """What pytest says of the tests of `file` that `keywords` choose, in a process that has not loaded the helper.

    Where it is loaded, its replacements of Unicorn's functions serve the portable loop too. Raises where one fails."""
    environment = os.environ | {"V2E_ENGINE": "gate"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", keywords, file]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


SLICES = (1, 2, 3, 7, 13, 1000, 1_000_000)


@contextmanager
def loop(name: str) -> Iterator[None]:
    """Engines made in here have that run loop."""
    before = os.environ.get("V2E_ENGINE")
    os.environ["V2E_ENGINE"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["V2E_ENGINE"]
        else:
            os.environ["V2E_ENGINE"] = before


def make(name: str, source: str, bits: int, checks: CheckLevel = CheckLevel.AUTO) -> BareCpu:
    with loop(name):
        cpu = bare_cpu(source, bits, checks=checks)
    assert cpu.engine.run_loop == name
    return cpu


def outcome(cpu: BareCpu, size: int, limit: int = 2_000_000) -> tuple[object, ...]:
    exit = cpu.run(limit, slice=size)
    return exit.reason, cpu.engine.retired, cpu.engine.state(), cpu.memory.save(), cpu.outs, cpu.ins, cpu.faults


def both_agree(source: str, bits: int, prepare: Callable[[BareCpu], None] = lambda cpu: None) -> tuple[object, ...]:
    """The outcome, after it was the same under both loops at every slice."""
    results = []
    for name, sizes in (("gate", (1_000_000,)), ("fast", SLICES)):
        for size in sizes:
            cpu = make(name, source, bits)
            prepare(cpu)
            results.append(outcome(cpu, size))
            cpu.engine.close()
    assert all(result == results[0] for result in results)
    assert results[0][0] is ExitReason.HALT
    return results[0]


FAULTING = """
    mov word [0], h
    mov word [2], 0
    mov word [0x18], h
    mov word [0x1a], 0
    mov cx, 60
l:  inc ax
    add bx, ax
    xor dl, dl
    test cl, 3
    jz d
    db 0x0f, 0x0b
    jmp n
d:  nop
    div dl
n:  inc si
    loop l
    hlt
h:  push bp
    mov bp, sp
    add word [bp+2], 2
    pop bp
    inc di
    iret
"""
