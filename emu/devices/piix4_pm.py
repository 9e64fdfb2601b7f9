"""ACPI power management of the Intel 82371AB (PIIX4), function 3, and the APM ports B2h and B3h.

Source: Intel 82371AB data sheet 290562, the registers of function 3 by their names, 11.6.2 (PM timer), and ACPI 1.0b,
4.7.3 (PM1 event and control, PM timer). That the APM commands F1h and F0h switch SCI_EN is a firmware's work on a
board with SMM; QEMU's PIIX4 does it in the device (hw/acpi/piix4.c), and so does this one, as SeaBIOS counts on it.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.clock import Clock
from emu.devices.pci import PciFunction, PciState
from emu.record import dataclass, field, replace
from emu.views import DeviceView, FieldView

#: Hz: a quarter of the 14.318 MHz crystal.
FREQUENCY = 3_579_545
_SECOND = 1_000_000_000

PMBA, DEVACTB, PMREGMISC, SMBBA, SMBHSTCFG = 0x40, 0x58, 0x80, 0x90, 0xD2
APMC_EN = 1 << 25  #: DEVACTB: a write to B2h makes an SMI
PM_SIZE, SMB_SIZE = 64, 16
#: PM I/O registers.
PMSTS, PMEN, PMCNTRL, PMTMR, GPSTS, GPEN = 0x00, 0x02, 0x04, 0x08, 0x0C, 0x0E
# PMSTS
TMROF, GBL, PWRBTN, RTC_STS, RSM = 0x0001, 0x0020, 0x0100, 0x0400, 0x8000
STATUS_BITS, ENABLE_BITS = TMROF | GBL | PWRBTN | RTC_STS | RSM | 0x0010, TMROF | GBL | PWRBTN | RTC_STS
# PMCNTRL
SCI_EN, SUS_EN, SUS_TYP = 0x0001, 0x2000, 0x1C00
#: SUS_TYP 000b: soft off or suspend to disk.
SOFT_OFF = 0
#: Commands that ACPI's FADT offers in SMI_CMD.
ACPI_ENABLE, ACPI_DISABLE = 0xF1, 0xF0
#: Host status: DEV_ERR, as no SMBus device answers; INUSE reads 0 before it is taken.
SMB_DEV_ERR, SMB_START = 0x04, 0x40


def ticks_at(now: int) -> int:
    """PM timer clocks since virtual time 0, at instant `now` (ns)."""
    return now * FREQUENCY // _SECOND


@dataclass(slots=True)
class State:
    """`registers` are those of PM I/O that only keep what is written, by offset; `apm` is B2h and B3h."""

    pci: PciState = field(default_factory=lambda: PciState(b""))
    status: int = 0
    enable: int = 0
    control: int = 0
    registers: bytes = bytes(PM_SIZE)
    smbus: bytes = bytes(SMB_SIZE)
    apm: bytes = bytes(2)
    ahead: int = 0  #: what the PM timer shows more than `ticks_at`, where another hypervisor had the machine before


class PowerManagement(PciFunction):
    """8086:7113. `sci(level)` is IRQ 9; `power_off` ends the run; `smi` asks for system management mode, and without it
    the device says from reset on that a firmware has set SMM up already, so that none tries."""

    def __init__(
        self,
        clock: Clock,
        sci: Callable[[bool], None],
        power_off: Callable[[], None],
        on_decode: Callable[[], None],
        smi: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(
            "piix4-pm", "Intel 82371AB power management", (0x8086, 0x7113), 0x068000, revision=3, pin=1, command=0x0001
        )
        self._clock, self._sci, self._power_off, self._on_decode, self._smi = clock, sci, power_off, on_decode, smi
        self._timer = clock.timer("piix4-pm", self._overflow)
        self._state = State()
        self.preset(0x06, 0x0280, 2, clears=0x7800)
        self.preset(0x3C, 9, 1, writable=0xFF)
        self.preset(PMBA, 1, 4, writable=0xFFC0)
        for offset in range(0x44, 0x80, 4):  # counters, device resources and activity: no effect without SMM
            self.preset(offset, 0, 4, writable=0xFFFFFFFF)
        if smi is None:
            self.preset(DEVACTB, APMC_EN, 4, writable=0xFFFFFFFF)
        self.preset(PMREGMISC, 0, 1, writable=0x01)
        self.preset(SMBBA, 1, 4, writable=0xFFF0)
        self.preset(SMBHSTCFG, 0, 1, writable=0x0F)
        self.preset(0xD3, 0, 3, writable=0xFFFFFF)  # slave command and shadow addresses
        self.pm, self.smbus, self.apm = PmPorts(self), SmBusPorts(self), ApmPorts(self)
        self._changed()  # the timer runs from power-on

    # -- decoding

    @property
    def pm_base(self) -> int | None:
        """Where the 64 PM ports are."""
        base = self.word(PMBA) & 0xFFC0
        return base if self.config[PMREGMISC] & 1 and base else None

    @property
    def smbus_base(self) -> int | None:
        """Where the 16 SMBus ports are."""
        base = self.word(SMBBA) & 0xFFF0
        return base if self.config[SMBHSTCFG] & 1 and base else None

    def configured(self, offset: int, size: int) -> None:
        if offset + size > PMBA:
            self._on_decode()

    # -- PM timer and SCI

    def _ticks(self) -> int:
        return ticks_at(self._clock.now) + self._state.ahead

    def _overflow(self, _deadline: int) -> None:
        """Bit 23 of the timer has changed (ACPI 1.0b, 4.7.3.3)."""
        self._state.status |= TMROF
        self._changed()

    def _changed(self) -> None:
        s = self._state
        if not s.status & TMROF:
            tick = ((self._ticks() >> 23) + 1 << 23) - s.ahead
            self._timer.wakes = bool(s.enable & TMROF)
            self._timer.arm(-(-tick * _SECOND // FREQUENCY))
        self._sci(bool(s.control & SCI_EN and s.status & s.enable & ENABLE_BITS))

    def press_power_button(self) -> None:
        """PWRBTN# falls."""
        self._state.status |= PWRBTN
        self._changed()

    def read_pm(self, offset: int) -> int:
        """A byte, without side effects."""
        s = self._state
        if offset < PMEN:
            return s.status >> 8 * offset & 0xFF
        if offset < PMCNTRL:
            return s.enable >> 8 * (offset - PMEN) & 0xFF
        if offset < PMCNTRL + 2:
            return s.control >> 8 * (offset - PMCNTRL) & 0xFF
        if PMTMR <= offset < PMTMR + 4:
            return (self._ticks() & 0xFFFFFF) >> 8 * (offset - PMTMR) & 0xFF
        return s.registers[offset]

    def write_pm(self, offset: int, value: int) -> None:
        """A byte."""
        s = self._state
        if offset < PMEN:
            s.status &= ~(value << 8 * offset)
        elif offset < PMCNTRL:
            shift = 8 * (offset - PMEN)
            s.enable = (s.enable & ~(0xFF << shift) | value << shift) & ENABLE_BITS
        elif offset < PMCNTRL + 2:
            shift = 8 * (offset - PMCNTRL)
            s.control = (s.control & ~(0xFF << shift) | value << shift) & (SCI_EN | 2 | SUS_TYP)
            if shift and value << 8 & SUS_EN and s.control & SUS_TYP == SOFT_OFF:
                self._power_off()
        elif GPSTS <= offset < GPEN:
            pass  # no general purpose event ever happens, so there is none to clear
        elif not PMTMR <= offset < PMTMR + 4:
            self._keep(offset, value)
        self._changed()

    def _keep(self, offset: int, value: int) -> None:
        registers = bytearray(self._state.registers)
        registers[offset] = value
        self._state.registers = bytes(registers)

    # -- SMBus, on which nothing is

    def read_smbus(self, offset: int) -> int:
        return self._state.smbus[offset]

    def write_smbus(self, offset: int, value: int) -> None:
        registers = bytearray(self._state.smbus)
        if offset == 0:
            registers[0] &= ~value  # status: writing 1 clears
        else:
            registers[offset] = value & ~SMB_START if offset == 2 else value
            if offset == 2 and value & SMB_START:
                registers[0] |= SMB_DEV_ERR
        self._state.smbus = bytes(registers)

    # -- APM

    def read_apm(self, offset: int) -> int:
        return self._state.apm[offset]

    def write_apm(self, offset: int, value: int) -> None:
        s = self._state
        apm = bytearray(s.apm)
        apm[offset] = value
        s.apm = bytes(apm)
        if offset:
            return
        if value in (ACPI_ENABLE, ACPI_DISABLE):
            s.control = s.control & ~SCI_EN | (SCI_EN if value == ACPI_ENABLE else 0)
            self._changed()
        elif self._smi is not None and self.asks_smi(value):
            self._smi()

    def asks_smi(self, value: int) -> bool:
        """Written to APM control, `value` makes a system management interrupt."""
        own = value in (ACPI_ENABLE, ACPI_DISABLE)
        return self._smi is not None and not own and bool(self.word(DEVACTB, 4) & APMC_EN)

    # -- state

    def reset(self) -> None:
        super().reset()
        self._state = State()
        self._changed()
        self._on_decode()

    def save(self) -> State:
        return replace(self._state, pci=self.save_pci())

    def restore(self, state: State) -> None:
        """The timer comes back with the clock, SCI with the interrupt controllers."""
        self._state = replace(state)
        self.restore_pci(state.pci)
        self._on_decode()

    def view(self) -> DeviceView:
        s = self._state
        where = "not decoded" if self.pm_base is None else f"ports {self.pm_base:x}h-{self.pm_base + PM_SIZE - 1:x}h"
        fields = (
            *self.pci_fields(),
            FieldView("PMSTS", s.status, _flags(s.status)),
            FieldView("PMEN", s.enable, _flags(s.enable)),
            FieldView("PMCNTRL", s.control, "ACPI (SCI_EN)" if s.control & SCI_EN else "legacy"),
            FieldView("PMTMR", self._ticks() & 0xFFFFFF, "3.579545 MHz, 24 bits"),
            FieldView("APMC", s.apm[0], f"APMS {s.apm[1]:02x}h"),
        )
        return DeviceView("piix4-pm", self.chip, f"PCI 00:01.3, {where}", fields)


def _flags(value: int) -> str:
    names = ((TMROF, "timer"), (GBL, "global"), (PWRBTN, "power button"), (RTC_STS, "RTC"), (RSM, "resume"))
    return " ".join(text for bit, text in names if value & bit) or "none"


class PmPorts:
    """64 ports; 16- and 32-bit accesses see one instant of the timer."""

    def __init__(self, chip: PowerManagement) -> None:
        self._chip = chip

    def read(self, offset: int, size: int) -> int:
        return self.peek(offset, size)

    def peek(self, offset: int, size: int) -> int:
        return int.from_bytes(bytes(self._chip.read_pm(offset + i) for i in range(size)), "little")

    def write(self, offset: int, value: int, size: int) -> None:
        for i in range(size):
            self._chip.write_pm(offset + i, value >> 8 * i & 0xFF)


class SmBusPorts:
    """16 ports of the SMBus host controller."""

    def __init__(self, chip: PowerManagement) -> None:
        self._chip = chip

    def read(self, offset: int, size: int) -> int:
        return self._chip.read_smbus(offset)

    def peek(self, offset: int, size: int) -> int:
        return self._chip.read_smbus(offset)

    def write(self, offset: int, value: int, size: int) -> None:
        self._chip.write_smbus(offset, value & 0xFF)


class ApmPorts:
    """B2h control, B3h status."""

    def __init__(self, chip: PowerManagement) -> None:
        self._chip = chip

    def read(self, offset: int, size: int) -> int:
        return self._chip.read_apm(offset)

    def peek(self, offset: int, size: int) -> int:
        return self._chip.read_apm(offset)

    def write(self, offset: int, value: int, size: int) -> None:
        self._chip.write_apm(offset, value & 0xFF)
