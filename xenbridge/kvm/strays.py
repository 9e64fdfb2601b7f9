"""Finds out that a guest has come natively to a state that this host's KVM runs wrongly.

KVM tells of no write to CR0, so between two looks at the state, at exits and each millisecond, nobody can keep a guest
from there. What is left is to say so: what it executed since the look before may be wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from emu.x86.modes import Mode
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

    def look(self, live: LiveState, elapsed: int, before: Callable[[], Mode]) -> None:
        """Behind a stretch of `elapsed` ns that began in a state which runs, of the mode that `before` gives."""
        if self._real and not live.cr0 & CR0_PE:
            return  # without a look at its segments
        kind = kind_of(cast(CpuState, live))
        if not self._backend.unsafe(kind):
            return
        self.count += 1
        name, wrong = self._backend.name, self._backend.wrong_ways(kind)
        if kind not in self._backend.runs:
            why = f"which {name} runs wrongly"
        elif wrong:
            why = f"in which {name} delivers interrupts wrongly {wrong}"
        else:
            why = f"from which {name} turns on no paging"
        self._last = (
            f"came natively to {kind.value}, {why}, and was found at {live.linear_pc:#x}: what it executed in the "
            f"{elapsed / 1e6:.1f} ms before may be wrong"
        )
        if self.count == 1:
            mode = before()
            if mode in (Mode.REAL, Mode.BIG_REAL):
                way = "`forbid real` and `forbid big real` keep real mode emulated, from which it came"
            else:
                way = f"`forbid {mode.value}` keeps the mode emulated from which it came"
            self._notice(f"the guest {self._last}; {way}")

    @property
    def text(self) -> str:
        """How often, and the last one; empty: never."""
        times = "once" if self.count == 1 else f"{self.count} times"
        return f"{times}, the last time it {self._last}" if self.count else ""
