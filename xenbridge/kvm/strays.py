"""Finds out that a guest has come natively to a state that this host's KVM runs wrongly.

KVM tells of no write to CR0, so between two looks at the state, at exits and each millisecond, nobody can keep a guest
from there. What is left is to say so: what it executed since the look before may be wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from emu.x86.state import CR0_PE, CpuState
from xenbridge.kvm.backend import Backend, Kind, kind_of
from xenbridge.kvm.live import LiveState


class Strays:
    """Of one vCPU. `notice` is told the first time."""

    def __init__(self, backend: Backend, notice: Callable[[str], None]) -> None:
        self._backend, self._notice = backend, notice
        self._real = not backend.unsafe(Kind.REAL) and not backend.unsafe(Kind.BIG_REAL)
        self.count = 0
        self._last = ""

    def look(self, live: LiveState, elapsed: int) -> None:
        """Behind a stretch of `elapsed` ns that began in a state which runs."""
        if self._real and not live.cr0 & CR0_PE:
            return  # without a look at its segments
        kind = kind_of(cast(CpuState, live))
        if not self._backend.unsafe(kind):
            return
        self.count += 1
        name = self._backend.name
        why = f"from which {name} turns on no paging" if kind in self._backend.runs else f"which {name} runs wrongly"
        self._last = (
            f"came natively to {kind.value}, {why}, and was found at {live.linear_pc:#x}: what it executed in the "
            f"{elapsed / 1e6:.1f} ms before may be wrong"
        )
        if self.count == 1:
            self._notice(f"the guest {self._last}; `forbid real` and `forbid big real` keep real mode emulated")

    @property
    def text(self) -> str:
        """How often, and the last one; empty: never."""
        times = "once" if self.count == 1 else f"{self.count} times"
        return f"{times}, the last time it {self._last}" if self.count else ""
