"""The Intel 82371SB (PIIX3) PCI-to-ISA bridge: PIRQ routing, and the ISA interrupt lines that it shares with PCI.

Source: Intel 82371SB data sheet 290550, chapter 2: registers of function 0, by their names (PIRQRC[A:D], XBCS,
MSTAT). How device pins reach PIRQA#-PIRQD# is the board's: here as on QEMU's pc, (device - 1 + pin) modulo 4.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.devices.pci import PciFunction, PciState
from emu.record import dataclass, field
from emu.views import DeviceView, FieldView

PIRQRC = 0x60
#: PIRQRC: 1 routes nothing.
ROUTE_OFF = 0x80
#: IRQs a PIRQ may be routed to (PIRQRC); the others are reserved and route nothing.
ROUTABLE = frozenset((3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15))


@dataclass(slots=True)
class State:
    """`isa`: levels of the 16 ISA lines as their own devices drive them; `asserted`: (device, pin) of PCI functions
    that hold their INTx line."""

    pci: PciState
    isa: list[bool] = field(default_factory=lambda: [False] * 16)
    asserted: list[tuple[int, int]] = field(default_factory=list)


class IsaBridge(PciFunction):
    """8086:7000. `irq(n, level)` drives ISA IRQ n: of its ISA devices and the PIRQs routed to it, ORed."""

    def __init__(self, irq: Callable[[int, bool], None]) -> None:
        super().__init__(
            "piix3", "Intel 82371SB PCI-ISA bridge", (0x8086, 0x7000), 0x060100, header=0x80, command=0x0108
        )  # fmt: skip
        self._irq = irq
        self._isa = [False] * 16
        self._asserted: set[tuple[int, int]] = set()
        # I/O, memory and bus master are hardwired to 1 (PCICMD).
        self.preset(0x04, 0x0007, 2, writable=0x0108)
        self.preset(0x06, 0x0200, 2, clears=0x7800)
        self.preset(0x4C, 0x4D, 1, writable=0xFF)  # ISA I/O recovery timer
        self.preset(0x4E, 0x03, 2, writable=0x01FF)  # X-bus chip select
        self.preset(PIRQRC, 0x80808080, 4, writable=0x8F8F8F8F)
        self.preset(0x69, 0x02, 1, writable=0xFE)  # top of memory
        self.preset(0x6A, 0, 2, writable=0x8011)  # miscellaneous status
        self.preset(0x70, 0x80, 1, writable=0xCF)  # motherboard IRQ routing
        self.preset(0x76, 0x0C0C, 2, writable=0x8787)  # motherboard DMA
        self.preset(0x78, 0x0002, 2, writable=0xFFFF)  # programmable chip select
        self.preset(0xA0, 0x08, 1, writable=0x1F)  # SMI control
        self.preset(0xA2, 0, 2, writable=0x01FF)  # SMI enable
        self.preset(0xA4, 0, 4, writable=0xFFFFFFFF)  # system event enable
        self.preset(0xA8, 0x0F, 1, writable=0xFF)  # fast off timer
        self.preset(0xAA, 0, 2, clears=0x01FF)  # SMI request

    def isa_line(self, n: int) -> Callable[[bool], None]:
        """What an ISA device drives IRQ `n` by."""

        def drive(level: bool) -> None:
            self._isa[n] = level
            self._update(n)

        return drive

    def pci_line(self, device: int, pin: int) -> Callable[[bool], None]:
        """What function of PCI device number `device` drives its `pin` (1-4) by."""

        def drive(level: bool) -> None:
            before = self._levels()
            if level:
                self._asserted.add((device, pin))
            else:
                self._asserted.discard((device, pin))
            self._apply(before)

        return drive

    def routed(self, pirq: int) -> int | None:
        """The IRQ that PIRQA#-PIRQD# (0-3) goes to."""
        value = self.config[PIRQRC + pirq]
        irq = value & 15
        return None if value & ROUTE_OFF or irq not in ROUTABLE else irq

    def _levels(self) -> list[bool]:
        levels = list(self._isa)
        for device, pin in self._asserted:
            irq = self.routed((device - 1 + pin - 1) & 3)
            if irq is not None:
                levels[irq] = True
        return levels

    def _update(self, n: int) -> None:
        self._irq(n, self._levels()[n] if self._asserted else self._isa[n])

    def _apply(self, before: list[bool]) -> None:
        for n, (old, new) in enumerate(zip(before, self._levels(), strict=True)):
            if old != new:
                self._irq(n, new)

    def config_write(self, offset: int, value: int, size: int) -> None:
        before = self._levels()
        super().config_write(offset, value, size)
        self._apply(before)

    def reset(self) -> None:
        before = self._levels()
        super().reset()
        self._apply(before)

    def save(self) -> State:
        return State(self.save_pci(), list(self._isa), sorted(self._asserted))

    def restore(self, state: State) -> None:
        """The levels at the interrupt controllers come back with them."""
        self._isa, self._asserted = list(state.isa), set(state.asserted)
        self.restore_pci(state.pci)

    def view(self) -> DeviceView:
        fields = [*self.pci_fields()]
        for i in range(4):
            irq = self.routed(i)
            text = "routed nowhere" if irq is None else f"IRQ {irq}"
            fields.append(FieldView(f"PIRQRC{'ABCD'[i]}", self.config[PIRQRC + i], text))
        high = " ".join(str(n) for n, level in enumerate(self._levels()) if level)
        fields.append(FieldView("lines", high or "none", "ISA IRQ lines that are high"))
        return DeviceView("piix3", self.chip, "PCI 00:01.0", tuple(fields))
