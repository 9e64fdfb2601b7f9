"""What the guests of the tests see of us, and the sectors they boot."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from emu.debugger import Debugger
from emu.record import fields
from emu.x86.state import CpuState
from pausing import run_for
from xenbridge.ioreq import Type
from xenbridge.xen.channels import Patience
from xenbridge.xen.guest import Guest
from xenbridge.xen.libraries import Libraries

COM1, PROBE, WINDOW = 0x3F8, 0x5E, 0xD0000
#: Where ticks.asm has the number of its last tick, a word.
LAST_TICK = 0x7DFA


class Board:
    """A serial port that keeps what is sent, a port and a page that give constants and keep what is written."""

    def __init__(self) -> None:
        self.text = ""
        self.written: list[tuple[Type, int, int, int]] = []

    def read(self, type: Type, address: int, size: int) -> int:
        return 0xBEEF if type is Type.PIO else 0xCAFEF00D

    def write(self, type: Type, address: int, size: int, value: int) -> None:
        if (type, address) == (Type.PIO, COM1):
            self.text += chr(value)
        else:
            self.written.append((type, address, size, value))


def sector(name: str) -> bytes:
    """The bytes of NAME.asm, which tools/dom0_image.py has assembled."""
    return (Path(__file__).parent / f"{name}.bin").read_bytes()


def booted(libraries: Libraries, name: str) -> tuple[Guest, Board]:
    """A domain of ours about to execute the sector's first instruction."""
    board = Board()
    guest = Guest(libraries, board)
    guest.server.claim(Type.PIO, COM1, COM1 + 7)
    guest.server.claim(Type.PIO, PROBE, PROBE + 1)
    guest.server.claim(Type.COPY, WINDOW, WINDOW + 0xFFF)
    guest.boot(sector(name))
    return guest, board


@contextlib.contextmanager
def served(guest: Guest) -> Iterator[None]:
    """Its device model answers meanwhile, on a thread of its own: for tests in which another process has the domain.
    Without it no step would end, as Xen tells each device model of a monitor that comes."""
    ends = threading.Event()

    def serve() -> None:
        while not ends.is_set():
            guest.channels.take(0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def until(met: Callable[[], object], every: float = 0.01, seconds: float = 60.0) -> bool:
    """Look until it is `met`. False after so many seconds: a minute is no pace that is asked of anything, and what does
    not come in it is a defect."""
    patience = Patience(seconds)
    while not (held := met()) and not patience.over:
        time.sleep(every)
    return bool(held)


def run_until(debugger: Debugger, met: Callable[[], object]) -> None:
    """Run the machine for half a second each until it is `met`, at which it is paused."""

    def ran() -> object:
        run_for(debugger, 0.5)
        return met()

    assert until(ran)


def word(guest: Guest, address: int, size: int = 2) -> int:
    """What is in the guest's memory."""
    return int.from_bytes(guest.domain.memory.read(address, size), "little")


def differences(one: CpuState, other: CpuState) -> dict[str, tuple]:
    """By name, where two states of a CPU are not the same."""
    pairs = {field.name: (getattr(one, field.name), getattr(other, field.name)) for field in fields(one)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
