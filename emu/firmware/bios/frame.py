"""A service's frame on the guest's stack: the caller's registers, and what the ROM is to do next.

Its layout is at the head of bios.asm. Only what a service has changed is written back.
"""

from __future__ import annotations

from typing import Any

from emu.firmware.bios.hardware import Hardware

SIZE = 56
RETURN, SLEEP, SOON, CALL, HANDLER, EXCHANGE = range(6)
CARRY, ZERO, INTERRUPTS = 0x0001, 0x0040, 0x0200


def _field(offset: int, size: int) -> Any:
    def get(frame: Frame) -> int:
        return int.from_bytes(frame.data[offset : offset + size], "little")

    def put(frame: Frame, value: int) -> None:
        frame.data[offset : offset + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    return property(get, put)


class Frame:
    """`name` is a format and its values that say what was called, `result` what came of it, both made text when
    somebody looks."""

    __slots__ = ("_before", "data", "linear", "name", "result")

    action = _field(0, 1)
    step = _field(1, 1)
    call_ax = _field(2, 2)
    scratch = _field(4, 4)
    reply = _field(8, 4)
    es, ds = _field(12, 2), _field(14, 2)
    edi, esi, ebp = _field(16, 4), _field(20, 4), _field(24, 4)
    ebx, edx, ecx, eax = _field(32, 4), _field(36, 4), _field(40, 4), _field(44, 4)
    di, si, bp = _field(16, 2), _field(20, 2), _field(24, 2)
    bx, dx, cx, ax = _field(32, 2), _field(36, 2), _field(40, 2), _field(44, 2)
    bl, bh, dl, dh = _field(32, 1), _field(33, 1), _field(36, 1), _field(37, 1)
    cl, ch, al, ah = _field(40, 1), _field(41, 1), _field(44, 1), _field(45, 1)
    number = _field(48, 2)
    ip, cs, flags = _field(50, 2), _field(52, 2), _field(54, 2)

    def __init__(self, hardware: Hardware, linear: int) -> None:
        self.linear = linear
        self._before = hardware.read(linear, SIZE)
        self.data = bytearray(self._before)
        self.data[0] = RETURN
        self.name: tuple[Any, ...] = ()
        self.result: tuple[Any, ...] = ()

    @property
    def was(self) -> int:
        """What the ROM was to do next."""
        return self._before[0]

    @property
    def carry(self) -> bool:
        return bool(self.flags & CARRY)

    @carry.setter
    def carry(self, on: bool) -> None:
        self.flags = self.flags & ~CARRY | CARRY * on

    @property
    def zero(self) -> bool:
        return bool(self.flags & ZERO)

    @zero.setter
    def zero(self, on: bool) -> None:
        self.flags = self.flags & ~ZERO | ZERO * on

    @property
    def failed(self) -> bool:
        """The service has set CF, which its caller had not."""
        return self.carry and not self._before[54] & CARRY

    def fail(self, ah: int) -> None:
        """Return CF set and a code in AH."""
        self.ah = ah
        self.carry = True

    def succeed(self, ah: int = 0) -> None:
        self.ah = ah
        self.carry = False

    def call(self, pointer: int, ax: int, step: int) -> None:
        """Have the ROM call the far pointer (offset in the low word) with AX, and ask again at `step`."""
        self.action, self.scratch, self.call_ax, self.step = CALL, pointer, ax, step

    def sleep(self) -> None:
        """Ask again behind the next interrupt."""
        self.action = SLEEP

    def soon(self) -> None:
        """Ask again some instructions later."""
        self.action = SOON

    def flush(self, hardware: Hardware) -> None:
        """Write what has changed, one range."""
        before, data = self._before, self.data
        if data == before:
            return
        first = next(i for i in range(SIZE) if data[i] != before[i])
        last = next(i for i in range(SIZE - 1, -1, -1) if data[i] != before[i])
        hardware.write(self.linear + first, bytes(data[first : last + 1]))
