"""Memory by which a PC's firmware says that something has come: what it is called, and who writes it."""

from __future__ import annotations

from emu.machine import Machine
from emu.x86.state import CR0_PE

#: The BIOS data area's variables that software waits for: what each is, and who writes it (IBM PS/2 and PC BIOS
#: Interface Technical Reference, "BIOS Data Area").
_KEY = "the keyboard's handler (INT 09h) must write it: a key must be pressed"
_VARIABLES = (
    (range(0x417, 0x419), "the keyboard's shift states", _KEY),
    (range(0x41A, 0x41C), "the head of the keyboard's buffer", "who takes a keystroke (INT 16h) must write it"),
    (range(0x41C, 0x41E), "the tail of the keyboard's buffer", _KEY),
    (range(0x43E, 0x43F), "the diskette's interrupt flag", "the diskette's handler (INT 0Eh) must set its bit 7"),
    (range(0x440, 0x441), "the diskette motor's time-out", "the tick's handler (INT 08h) must count it down"),
    (range(0x471, 0x472), "the break flag", "the keyboard's handler must set its bit 7: Ctrl-Break must be pressed"),
    (range(0x48E, 0x48F), "the fixed disk's interrupt flag", "the fixed disk's handler (INT 76h) must write it"),
    (range(0x4A0, 0x4A1), "the wait flag", "the RTC's handler (INT 70h) must set its bit 7"),
)


def firmware_word(machine: Machine, linear: int, size: int) -> tuple[str, str] | None:
    """What these bytes are called, and who must write them; None where they are none of a firmware's, as far as can be
    told: the data area is known in real mode alone."""
    state = machine.executor.state()
    if state.cr0 & CR0_PE:
        return None
    for place, name, who in _VARIABLES:
        if linear < place.stop and place.start < linear + size:
            return name, who
    if (waits := machine.board.awaits(linear)) is None:
        return None
    return f"where the built-in BIOS says whether {waits} is done", "the built-in BIOS must write it"
