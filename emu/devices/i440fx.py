"""The Intel 82441FX (i440FX) host bridge: what stands at A0000h-FFFFFh is chosen by its PAM and SMRAM registers.

Source: Intel 440FX PCIset, 82441FX PMC data sheet 290549, chapter 3: PCI configuration registers, by their names.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.devices.pci import PciFunction, PciState
from emu.record import dataclass
from emu.views import DeviceView, FieldView

PMCCFG, DRAMT, PAM0, SMRAM = 0x50, 0x58, 0x59, 0x72
# Attributes of a PAM nibble.
READ, WRITE = 1, 2
# SMRAM register.
D_OPEN, D_CLS, D_LCK, G_SMRAME, C_BASE_SEG = 0x40, 0x20, 0x10, 0x08, 0x02

#: (base, size, PAM register, shift of its nibble), in order of address.
SEGMENTS = (
    *((0xC0000 + 0x4000 * i, 0x4000, 1 + i // 2, 4 * (i & 1)) for i in range(12)),
    (0xF0000, 0x10000, 0, 4),
)


@dataclass(frozen=True, slots=True)
class Segment:
    """Who answers `size` bytes from `base`: DRAM where `read`, `write`; else PCI, which is where the ROM is."""

    base: int
    size: int
    read: bool
    write: bool


class HostBridge(PciFunction):
    """82441FX, 8086:1237. `on_remap` is called when the answer of `segments` or `smram` changes."""

    def __init__(self, on_remap: Callable[[], None]) -> None:
        super().__init__(
            "i440fx", "Intel 82441FX host bridge", (0x8086, 0x1237), 0x060000, revision=2, command=0x0302
        )  # fmt: skip
        self._on_remap = on_remap
        self._in_smm = False
        # Memory access enable and bus master are hardwired to 1 (PCICMD); medium DEVSEL# timing (PCISTS).
        self.preset(0x04, 0x0006, 2, writable=0x0300)
        self.preset(0x06, 0x0280, 2, clears=0xF900)
        self.preset(0x0D, 0, 1, writable=0xF8)  # master latency timer
        self.preset(PMCCFG, 0, 2, writable=0xC39F)
        self.preset(0x52, 0, 1, writable=0xFF)  # DETURBO
        self.preset(0x53, 0x80, 1, writable=0xFC)  # data buffer control
        self.preset(0x54, 0, 4, writable=0xFFFFFFFF)  # auxiliary control, DRAM control: no effect on software
        self.preset(DRAMT, 0x10, 1, writable=0x7F)
        self.preset(PAM0, 0, 7, writable=0x33333333333330)
        self.preset(0x60, 0x0101010101010101, 8, writable=(1 << 64) - 1)  # DRAM row boundaries
        self.preset(0x68, 0, 1, writable=0xC0)  # fixed DRAM hole
        self.preset(0x70, 0, 1, writable=0xFF)  # multi-transaction timer
        self.preset(0x71, 0x10, 1, writable=0x1F)  # CPU latency timer
        self.preset(SMRAM, C_BASE_SEG, 1, writable=D_OPEN | D_CLS | D_LCK | G_SMRAME)
        self.preset(0x90, 0, 1, writable=0xFB)  # error command
        self.preset(0x91, 0, 1, clears=0x11)  # error status

    def configured(self, offset: int, size: int) -> None:
        if offset <= SMRAM < offset + size and self.config[SMRAM] & D_LCK:
            # Once set D_LCK stays until reset, D_OPEN is cleared, and all become read-only.
            self.config[SMRAM] &= ~D_OPEN
            self._writable[SMRAM] = D_CLS
        if (offset < PAM0 + 7 and offset + size > PAM0) or offset <= SMRAM < offset + size:
            self._on_remap()

    def segments(self) -> list[Segment]:
        """C0000h-FFFFFh in pieces."""
        found = []
        for base, size, register, shift in SEGMENTS:
            bits = self.config[PAM0 + register] >> shift
            found.append(Segment(base, size, bool(bits & READ), bool(bits & WRITE)))
        return found

    def set_smm(self, inside: bool) -> None:
        """SMIACT#: the CPU's accesses are those of system management mode."""
        if inside != self._in_smm:
            before, self._in_smm = self.smram, inside
            if self.smram != before:
                self._on_remap()

    @property
    def smram(self) -> bool:
        """A0000h-BFFFFh is SMM memory, not the display's, for the CPU as it is now."""
        bits = self.config[SMRAM]
        return bool(bits & G_SMRAME and (bits & D_OPEN or self._in_smm))

    def reset(self) -> None:
        self._writable[SMRAM] = D_OPEN | D_CLS | D_LCK | G_SMRAME
        self._in_smm = False
        super().reset()
        self._on_remap()

    def save(self) -> PciState:
        return self.save_pci()

    def restore(self, state: PciState) -> None:
        self.restore_pci(state)
        locked = self.config[SMRAM] & D_LCK
        self._writable[SMRAM] = D_CLS if locked else D_OPEN | D_CLS | D_LCK | G_SMRAME
        self._on_remap()

    def view(self) -> DeviceView:
        names = {0: "PCI", READ: "read DRAM, write PCI", WRITE: "read PCI, write DRAM", READ | WRITE: "DRAM"}
        fields = [*self.pci_fields()]
        for base, size, register, shift in SEGMENTS:
            bits = self.config[PAM0 + register] >> shift & 3
            fields.append(FieldView(f"PAM{register} {base:05X}-{base + size - 1:05X}", bits, names[bits]))
        bits = self.config[SMRAM]
        flags = ((D_OPEN, "open"), (D_CLS, "closed to data"), (D_LCK, "locked"), (G_SMRAME, "enabled"))
        fields.append(FieldView("SMRAM", bits, " ".join(text for bit, text in flags if bits & bit) or "disabled"))
        return DeviceView("i440fx", self.chip, "PCI 00:00.0", tuple(fields))
