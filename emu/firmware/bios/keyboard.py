"""The keyboard: scan codes that IRQ 1 brings become keystrokes in the buffer, INT 16h hands them out.

Source: IBM PS/2 and PC BIOS Interface Technical Reference, "Interrupt 16h", "Interrupt 09h", "BIOS Data Area".
"""

from __future__ import annotations

from emu.firmware.bios import bda
from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.keys import CODES, EXTENDED, KEYPAD, KEYPAD_DIGITS, LETTERS, NOTHING

#: 40:17, shift states; 40:18, keys that are down; 40:96.
RIGHT_SHIFT, LEFT_SHIFT, CTRL, ALT, SCROLL, NUM, CAPS, INSERT = (1 << i for i in range(8))
LEFT_CTRL, LEFT_ALT, SYSTEM_REQUEST = 0x01, 0x02, 0x04
LAST_E1, LAST_E0, RIGHT_CTRL, RIGHT_ALT = 0x01, 0x02, 0x04, 0x08
#: Locks by scan code: the bit in 40:17, and in 40:18 while the key is down.
LOCKS = {0x3A: CAPS, 0x45: NUM, 0x46: SCROLL}
DELETE, PRINT, BREAK = 0x53, 0x37, 0x46
WARM = 0x1234
RESTART = (0xF000, 0xE05B)
SUPPORTED = 0x30  #: INT 16h, AH=09h: AH=0Ah and the functions of enhanced keyboards


class Keys:
    """INT 16h, and what IRQ 1's handler does with a scan code."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware

    # -- IRQ 1

    def pressed(self, f: Frame) -> None:
        """AL is a scan code of set 1. Interrupts that keys cause are called by the ROM."""
        if f.step:
            return
        h = self._hardware
        scan, prefix = f.al, h.byte(bda.KEYBOARD_MODE)
        if scan in (0xE0, 0xE1):
            h.put(bda.KEYBOARD_MODE, prefix | (LAST_E0 if scan == 0xE0 else LAST_E1))
            return
        if prefix & LAST_E1:
            # Pause: E1h and two codes, of which the second is Num Lock's; then their breaks.
            if scan & 0x7F == 0x45:
                h.put(bda.KEYBOARD_MODE, prefix & ~LAST_E1)
            return
        extended = bool(prefix & LAST_E0)
        if extended:
            h.put(bda.KEYBOARD_MODE, prefix & ~LAST_E0)
        if not self._shift(scan, extended) and not scan & 0x80:
            self._make(f, scan, extended)

    def _shift(self, scan: int, extended: bool) -> bool:
        """A key that only changes states; True when it was one."""
        h, down, code = self._hardware, not scan & 0x80, scan & 0x7F
        states, keys = h.byte(bda.SHIFT), h.byte(bda.SHIFT + 1)
        mode = h.byte(bda.KEYBOARD_MODE)
        if code in (0x2A, 0x36):
            if extended:
                return True  # the shifts that keyboards wrap around editing keys
            bit = LEFT_SHIFT if code == 0x2A else RIGHT_SHIFT
            states = states | bit if down else states & ~bit
        elif code in (0x1D, 0x38):
            side, right = (LEFT_CTRL, RIGHT_CTRL) if code == 0x1D else (LEFT_ALT, RIGHT_ALT)
            if extended:
                mode = mode | right if down else mode & ~right
            else:
                keys = keys | side if down else keys & ~side
            state = CTRL if code == 0x1D else ALT
            states = states | state if keys & side or mode & right else states & ~state
            if code == 0x38 and not down and (digits := h.byte(bda.ALT_DIGITS)):
                h.put(bda.ALT_DIGITS, 0)
                self.store(digits)
        elif code in LOCKS and not extended and not (code == 0x46 and states & CTRL):
            bit = LOCKS[code]
            if down and not keys & bit:
                states ^= bit
            keys = keys | bit if down else keys & ~bit
            leds = (states >> 4 & 7) | h.byte(bda.KEYBOARD_LEDS) & 0xF8
            h.put(bda.KEYBOARD_LEDS, leds)
        else:
            if code == 0x52 and not states & ALT:
                if down and not keys & INSERT:
                    states ^= INSERT
                keys = keys | INSERT if down else keys & ~INSERT
                h.put(bda.SHIFT, states)
                h.put(bda.SHIFT + 1, keys)
            return False
        h.put(bda.SHIFT, states)
        h.put(bda.SHIFT + 1, keys)
        h.put(bda.KEYBOARD_MODE, mode)
        return True

    def _make(self, f: Frame, scan: int, extended: bool) -> None:
        h = self._hardware
        states = h.byte(bda.SHIFT)
        if scan == DELETE and states & CTRL and states & ALT:
            h.put(bda.WARM_START, WARM, 2)
            (f.cs, f.ip), f.flags = RESTART, 0
            return
        if scan == BREAK and (extended or states & CTRL):
            h.put(bda.BREAK_FLAG, h.byte(bda.BREAK_FLAG) | 0x80)
            for end in (bda.KEY_HEAD, bda.KEY_TAIL):
                h.put(end, h.word(bda.KEY_BUFFER_START), 2)
            self.store(0)
            f.call(h.dword(0x1B * 4), 0, 1)
            return
        if scan == PRINT and extended:
            f.call(h.dword(0x05 * 4), 0, 1)
            return
        if scan == 0x54:
            f.call(h.dword(0x15 * 4), 0x8500, 1)
            return
        if states & ALT and not extended and scan in KEYPAD_DIGITS:
            h.put(bda.ALT_DIGITS, h.byte(bda.ALT_DIGITS) * 10 + KEYPAD_DIGITS[scan])
            return
        codes = (EXTENDED if extended else CODES).get(scan)
        if codes is None:
            return
        shift = bool(states & (LEFT_SHIFT | RIGHT_SHIFT))
        if (scan in LETTERS and states & CAPS) or (scan in KEYPAD and not extended and states & NUM):
            shift = not shift
        code = codes.alt if states & ALT else codes.ctrl if states & CTRL else codes.shift if shift else codes.plain
        if code != NOTHING:
            self.store(code)

    def store(self, code: int) -> bool:
        """Put a keystroke into the buffer; False when it is full."""
        h = self._hardware
        head, tail = h.word(bda.KEY_HEAD), h.word(bda.KEY_TAIL)
        following = self._after(tail)
        if following == head:
            return False
        h.put(0x400 + tail, code, 2)
        h.put(bda.KEY_TAIL, following, 2)
        return True

    def _after(self, pointer: int) -> int:
        h = self._hardware
        return h.word(bda.KEY_BUFFER_START) if pointer + 2 >= h.word(bda.KEY_BUFFER_LIMIT) else pointer + 2

    # -- INT 16h

    def service(self, f: Frame) -> None:
        h, ah = self._hardware, f.ah
        if ah in (0x00, 0x10):
            f.name = ("read a keystroke",)
            code = self._take(remove=True)
            if code is None:
                f.sleep()
                return
            f.ax = code if ah else _plain(code)
            f.result = ("%04Xh%s", f.ax, _shown(f.al))
        elif ah in (0x01, 0x11):
            f.name = ("is a keystroke there",)
            code = self._take(remove=False)
            f.zero = code is None
            f.flags |= 0x0200
            if code is not None:
                f.ax = code if ah == 0x11 else _plain(code)
                f.result = ("%04Xh%s", f.ax, _shown(f.al))
        elif ah in (0x02, 0x12):
            f.name = ("shift states",)
            f.al = h.byte(bda.SHIFT)
            if ah == 0x12:
                keys, mode = h.byte(bda.SHIFT + 1), h.byte(bda.KEYBOARD_MODE)
                f.ah = keys & 0x73 | (keys & SYSTEM_REQUEST) << 5 | mode & (RIGHT_CTRL | RIGHT_ALT)
            f.result = ("%02Xh", f.al)
        elif ah == 0x03:
            f.name = ("set typematic rate: %02Xh, delay %02Xh", f.bl, f.bh)
        elif ah == 0x05:
            f.name = ("store a keystroke: %04Xh", f.cx)
            f.al = 0 if self.store(f.cx) else 1
        elif ah == 0x09:
            f.name = ("functions supported",)
            f.al = SUPPORTED
        elif ah == 0x0A:
            f.name = ("keyboard's ID",)
            f.bx = 0x41AB
        elif ah == 0x92:
            f.name = ("are there functions 10h to 12h",)
            f.ah = 0x80
        else:
            f.name = ("function %02Xh, which does not exist", ah)

    def _take(self, remove: bool) -> int | None:
        h = self._hardware
        head = h.word(bda.KEY_HEAD)
        if head == h.word(bda.KEY_TAIL):
            return None
        code = h.word(0x400 + head)
        if remove:
            h.put(bda.KEY_HEAD, self._after(head), 2)
        return code


def _plain(code: int) -> int:
    """As the functions for the 84-key keyboard tell it."""
    if code >> 8 == 0xE0:
        return (0x3500 if code & 0xFF == ord("/") else 0x1C00) | code & 0xFF
    return code & 0xFF00 if code & 0xFF in (0xE0, 0xF0) and code >> 8 else code


def _shown(character: int) -> str:
    return f" {chr(character)!r}" if 0x20 < character < 0x7F else ""
