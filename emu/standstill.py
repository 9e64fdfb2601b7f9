"""Notices a machine that comes to no instruction, however often its CPU is let on. What is asked for from outside does
not change when, nor does how the runs are sliced."""

from __future__ import annotations

from emu.engine import Exit
from emu.machine_exits import MachineExit, MachineStop
from emu.typed import Final

#: Interrupts one behind the other, or runs, in which nothing retires, until the machine says so. Of an 8259 or a local
#: APIC 16 may come so; one that is level triggered and ends automatically comes for ever through a gate that leaves IF
#: set. Such a guest may yet fault where its stack ends, which is why there are so many: 1.5 MiB of 32-bit frames.
MOST: Final = 1 << 17


class Standstill:
    """What has come since the last instruction."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self.reached = False  #: `interrupts` has something to tell
        self.forget()

    def forget(self) -> None:
        """The machine is at another instant, or anew at one."""
        self._delivered_at, self._delivered = -1, 0  # instructions retired at interrupts, and how many came there
        self._run_at, self._runs = -1, 0  # virtual ns at which runs retire nothing, and how many have
        self.reached = False

    def delivered(self, retired: int) -> None:
        """An interrupt was delivered when so many instructions had retired."""
        if retired != self._delivered_at:
            self._delivered_at, self._delivered = retired, 0
        self._delivered += 1
        if self._delivered == self._most:
            self.reached = True

    def interrupts(self) -> MachineExit:
        """The end of a machine that delivers interrupts only. They are counted anew if it is let on."""
        self.reached, self._delivered = False, 0
        detail = f"{self._most} interrupts were delivered one behind the other, with not one instruction between them"
        return MachineExit(MachineStop.STANDSTILL, detail=detail)

    def nothing(self, now: int, exit: Exit) -> MachineExit | None:
        """A run that began at `now` (virtual ns) has retired and delivered nothing: it was stopped for a device. Where
        there is no end of such runs, that of the machine."""
        if now != self._run_at:
            self._run_at, self._runs = now, 0
        self._runs += 1
        if self._runs < self._most:
            return None
        self._runs = 0
        detail = f"{self._most} runs one behind the other have retired no instruction, the last: {exit.reason.value}"
        return MachineExit(MachineStop.STANDSTILL, exit, detail=detail)
