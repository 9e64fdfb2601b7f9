"""INT 1Ah, AH=B1h: the PCI BIOS, by real-mode calls.

Source: PCI SIG, "PCI BIOS Specification" 2.1. The 32-bit entry (BIOS32) is not there.
"""

from __future__ import annotations

from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.pci_setup import PciConfig

SUCCESSFUL, NOT_SUPPORTED, BAD_VENDOR, NOT_FOUND, BAD_REGISTER = 0x00, 0x81, 0x83, 0x86, 0x87
SIZES = (1, 2, 4)


class PciBios:
    """`service` takes a frame with AH=B1h. Without a PCI bus no function is there."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._config = PciConfig(hardware)

    def service(self, f: Frame) -> None:
        al = f.al
        if not self._hardware.pci:
            f.name = ("PCI BIOS function %02Xh: there is no PCI bus", al)
            f.carry = True
        elif al == 0x01:
            f.name = ("PCI BIOS present",)
            f.edx, f.al, f.bx, f.cl = 0x20494350, 0x01, 0x0210, 0
            f.succeed()
            f.result = ("2.1, last bus 0",)
        elif al == 0x02:
            f.name = ("find PCI device: %04X:%04X, index %d", f.dx, f.cx, f.si)
            if f.dx == 0xFFFF:
                f.fail(BAD_VENDOR)
                return
            self._find(f, f.cx << 16 | f.dx, 0, 0xFFFFFFFF)
        elif al == 0x03:
            f.name = ("find PCI class: %06X, index %d", f.ecx & 0xFFFFFF, f.si)
            self._find(f, (f.ecx & 0xFFFFFF) << 8, 8, 0xFFFFFF00)
        elif 0x08 <= al <= 0x0D:
            self._access(f, SIZES[(al - 8) % 3], al >= 0x0B)
        else:
            f.name = ("PCI BIOS function %02Xh, which does not exist", al)
            f.fail(NOT_SUPPORTED)

    def _find(self, f: Frame, wanted: int, register: int, mask: int) -> None:
        found = [d for d in self._config.functions() if self._config.read(d, register, 4) & mask == wanted]
        if f.si >= len(found):
            f.fail(NOT_FOUND)
            f.result = ("none",)
            return
        f.bh, f.bl = 0, found[f.si]
        f.succeed()
        f.result = ("device %d, function %d", f.bl >> 3, f.bl & 7)

    def _access(self, f: Frame, size: int, write: bool) -> None:
        bus, devfn, register = f.bh, f.bl, f.di
        where = (bus, devfn >> 3, devfn & 7, register)
        value = f.ecx & (1 << 8 * size) - 1
        if write:
            f.name = ("write PCI register: %d:%d.%d, %02Xh, %0*X", *where, 2 * size, value)
        else:
            f.name = ("read PCI register: %d:%d.%d, %02Xh", *where)
        if register > 0xFF or register % size:
            f.fail(BAD_REGISTER)
            return
        if write:
            self._config.write(devfn, register, value, size, bus)
        else:
            value = self._config.read(devfn, register, size, bus)
            f.ecx = f.ecx & ~((1 << 8 * size) - 1) | value
            f.result = ("%0*X", 2 * size, value)
        f.succeed()
