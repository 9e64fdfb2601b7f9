"""INT 15h, AH=C2h, and IRQ 12: the pointing device.

Source: IBM PS/2 and PC BIOS Interface Technical Reference, "Interrupt 15h, AH=C2h" and "Extended BIOS data area".
"""

from __future__ import annotations

from emu import layout
from emu.firmware.bios import bda
from emu.firmware.bios.frame import EXCHANGE, HANDLER, Frame
from emu.firmware.bios.hardware import Hardware

INVALID_FUNCTION, INVALID_INPUT, INTERFACE_ERROR, NO_HANDLER = 0x01, 0x02, 0x03, 0x05
ACK = 0xFA
#: The 8042's command byte: translation, system flag, interrupts; bit 5 holds the pointing device's clock.
DEVICE_OFF, DEVICE_ON = 0x65, 0x47
#: MOUSE_FLAGS_1: bits 2-0 the index in the packet; MOUSE_FLAGS_2: bit 7 a handler is there, bits 2-0 packet size - 1.
HANDLER_THERE = 0x80
AUX_BYTE = 0x21  #: status of the 8042: a byte is there, and it is the pointing device's
RATES = (10, 20, 40, 60, 80, 100, 200)
NAMES = {
    0: "off or on",
    1: "reset",
    2: "sample rate",
    3: "resolution",
    4: "type",
    5: "initialize",
    6: "status",
    7: "handler",
}


class Mouse:
    """Each exchange with the device is the ROM's; the frame's step counts them."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware

    def service(self, f: Frame) -> None:
        h, al, bh = self._hardware, f.al, f.bh
        name = NAMES.get(al, "function, which does not exist")
        f.name = (f"pointing device {name} (C2%02Xh, BH=%02Xh)", al, bh)
        on = self._is_on()
        after = DEVICE_ON if on else DEVICE_OFF
        if al == 0x00 and bh <= 1:
            if bh and not h.byte(bda.MOUSE_FLAGS_2) & HANDLER_THERE:
                f.fail(NO_HANDLER)
                return
            self._exchange(f, [(0xF4 if bh else 0xF5, 1)], DEVICE_ON if bh else DEVICE_OFF)
        elif al in (0x01, 0x05):
            if al == 0x05 and not f.step:
                if not 1 <= bh <= 8:
                    f.fail(INVALID_INPUT)
                    return
                h.put(bda.MOUSE_FLAGS_1, 0)
                h.put(bda.MOUSE_FLAGS_2, h.byte(bda.MOUSE_FLAGS_2) & ~7 | bh - 1)
            if self._exchange(f, [(0xFF, 3)], DEVICE_OFF):
                f.bl, f.bh = f.reply >> 8 & 0xFF, f.reply >> 16 & 0xFF
        elif al == 0x02 and bh < len(RATES):
            self._exchange(f, [(0xF3, 1), (RATES[bh], 1)], after)
        elif al == 0x03 and bh < 4:
            self._exchange(f, [(0xE8, 1), (bh, 1)], after)
        elif al == 0x04:
            if self._exchange(f, [(0xF2, 2)], after):
                f.bh = f.reply >> 8 & 0xFF
        elif al == 0x06 and bh == 0:
            if self._exchange(f, [(0xE9, 4)], after):
                f.bl, f.cl, f.dl = f.reply >> 8 & 0xFF, f.reply >> 16 & 0xFF, f.reply >> 24
                f.ch = f.dh = 0
        elif al == 0x06 and bh in (1, 2):
            self._exchange(f, [(0xE5 + bh, 1)], after)
        elif al == 0x07:
            pointer = f.es << 16 | f.bx
            h.put(bda.MOUSE_HANDLER, pointer, 4)
            flags = h.byte(bda.MOUSE_FLAGS_2) & ~HANDLER_THERE
            h.put(bda.MOUSE_FLAGS_2, flags | HANDLER_THERE if pointer else flags)
            f.succeed()
        else:
            f.fail(INVALID_INPUT if al in NAMES else INVALID_FUNCTION)

    def _is_on(self) -> bool:
        """Its interrupt is on: 40:.. has no bit for it, the EBDA has one that IBM leaves reserved."""
        return bool(self._hardware.byte(bda.MOUSE_FLAGS_1) & 0x40)

    def _exchange(self, f: Frame, commands: list[tuple[int, int]], after: int) -> bool:
        """The next of `commands` (byte, replies expected). True when all are done and were acknowledged: then the
        last replies are in the frame."""
        if f.step:
            # The frame is the guest's memory: its step may be anything.
            expected = commands[f.step - 1][1] if f.step <= len(commands) else None
            if f.scratch >> 8 & 0xFF != expected or f.reply & 0xFF != ACK:
                f.fail(INTERFACE_ERROR)
                return False
        if f.step < len(commands):
            byte, expected = commands[f.step]
            f.scratch = byte | expected << 8 | after << 16
            f.step += 1
            f.action = EXCHANGE
            return False
        h = self._hardware
        flags = h.byte(bda.MOUSE_FLAGS_1) & ~0x40
        h.put(bda.MOUSE_FLAGS_1, flags | 0x40 * (after == DEVICE_ON))
        f.succeed()
        return True

    def byte_came(self, f: Frame) -> None:
        """IRQ 12: when a packet is whole, its handler is called."""
        h = self._hardware
        if f.step or h.inb(layout.KBC_COMMAND) & AUX_BYTE != AUX_BYTE:
            return
        byte = h.inb(layout.KBC_DATA)
        second = h.byte(bda.MOUSE_FLAGS_2)
        if not second & HANDLER_THERE:
            return
        first = h.byte(bda.MOUSE_FLAGS_1)
        index = first & 7
        h.put(bda.MOUSE_PACKET + index, byte)
        whole = index >= second & 7
        h.put(bda.MOUSE_FLAGS_1, first & ~7 | (0 if whole else index + 1))
        if whole:
            f.name = ("pointing device handler: packet %s", h.read_bytes(bda.MOUSE_PACKET, (second & 7) + 1).hex())
            f.step, f.action, f.scratch = 1, HANDLER, h.dword(bda.MOUSE_HANDLER)
