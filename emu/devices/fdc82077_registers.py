"""The 82077AA's registers and status bytes: their bits, the chip's state, and how a front end shows it."""

from __future__ import annotations

from emu.devices.floppy_drive import DriveState
from emu.record import dataclass, field
from emu.views import FieldView

# digital output register
DOR_SELECT, DOR_NRESET, DOR_DMAGATE = 0x03, 0x04, 0x08
# main status register
RQM, DIO, NON_DMA, CMD_BSY = 0x80, 0x40, 0x20, 0x10
# data rate select register
DSR_RESET, DSR_POWER_DOWN = 0x80, 0x40
# status register 0
IC_ABNORMAL, IC_INVALID, IC_POLL, SEEK_END, EQUIPMENT = 0x40, 0x80, 0xC0, 0x20, 0x10
# status register 1
EN, DE, OR, ND, NW, MA = 0x80, 0x20, 0x10, 0x04, 0x02, 0x01
# status register 2
CM, DD, WC, SH, SN, BC = 0x40, 0x20, 0x10, 0x08, 0x04, 0x02
# status register 3; bits 5 and 3 read 1
ST3_WP, ST3_T0 = 0x40, 0x10
# configure
EIS, EFIFO, POLL_OFF = 0x40, 0x20, 0x10
#: Data rates by bits 1-0 of DSR and CCR, kbit/s.
RATES = (500, 300, 250, 1000)

_MSR_NAMES = ("DRV0 BUSY", "DRV1 BUSY", "DRV2 BUSY", "DRV3 BUSY", "CMD BSY", "NON DMA", "DIO", "RQM")


@dataclass(slots=True)
class Operation:
    """A data command on its way: its bytes, and `step`, what its timer ends. `c` to `n` move from sector to sector;
    `index` is the sector found on the track; `count` the sectors done; `hit` False once a scan byte differed."""

    code: int
    mt: bool
    mfm: bool
    skip: bool
    unit: int
    head: int
    c: int = 0
    h: int = 0
    r: int = 0
    n: int = 0
    eot: int = 0
    dtl: int = 0
    step: str = ""
    index: int = 0
    count: int = 0
    st1: int = 0
    st2: int = 0
    ended: bool = False


@dataclass(slots=True)
class State:
    """`phase` is "command", "execute" or "result"; `bytes_in` the command so far, `results` what is still to be read.
    `interrupts` are (ST0, PCN) that SENSE INTERRUPT STATUS will report; `resets` the polls after a reset. In a PIO
    data phase `buffer` from `position` on goes `direction` "in" (to the host) or "out"."""

    dor: int = 0
    tdr: int = 0
    rate: int = 2
    phase: str = "command"
    bytes_in: list[int] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    interrupts: list[tuple[int, int]] = field(default_factory=list)
    interrupt: bool = False
    operation: Operation | None = None
    direction: str = ""
    buffer: bytes = b""
    position: int = 0
    step_rate: int = 0
    head_unload: int = 0
    head_load: int = 0
    non_dma: bool = False
    config: int = EFIFO
    pretrk: int = 0
    lock: bool = False
    perpendicular: int = 0
    pcn: list[int] = field(default_factory=lambda: [0] * 4)
    seeks: list[tuple[int, int] | None] = field(default_factory=lambda: [None] * 4)
    last_eot: int = 0
    loaded_until: int = -1
    drives: list[DriveState | None] = field(default_factory=list)

    def msr(self) -> int:
        """The main status register."""
        value = sum(1 << i for i, seek in enumerate(self.seeks) if seek is not None)
        if not self.dor & DOR_NRESET:
            return 0
        if self.phase == "command":
            return value | RQM | (CMD_BSY if self.bytes_in else 0)
        if self.phase == "result":
            return value | RQM | DIO | CMD_BSY
        value |= CMD_BSY | (NON_DMA if self.non_dma else 0)
        if self.direction:
            value |= RQM | (DIO if self.direction == "in" else 0)
        return value


def fields_of(s: State) -> list[FieldView]:
    """The chip's registers decoded."""
    msr, config = s.msr(), s.config
    status = " ".join(name for i, name in enumerate(_MSR_NAMES) if msr >> i & 1)
    flags = [text for bit, text in ((EIS, "implied seek"), (POLL_OFF, "polling disabled")) if config & bit]
    flags.append("FIFO disabled" if config & EFIFO else f"FIFO threshold {(config & 15) + 1}")
    motors = " ".join(str(i) for i in range(4) if s.dor >> 4 + i & 1) or "none"
    drives = " ".join(str(i) for i in range(4) if s.perpendicular >> 2 + i & 1) or "none"
    reset = "" if s.dor & DOR_NRESET else ", in reset"
    gate = "DMA gate on" if s.dor & DOR_DMAGATE else "DMA gate off"
    return [
        FieldView("DOR", s.dor, f"drive {s.dor & 3}, motors on: {motors}, {gate}{reset}"),
        FieldView("MSR", msr, status),
        FieldView("data rate", RATES[s.rate], "kbit/s"),
        FieldView("phase", s.phase, s.operation.step if s.operation else ""),
        FieldView("command", bytes(s.bytes_in).hex(" ")),
        FieldView("results", bytes(s.results).hex(" ")),
        FieldView("INT", s.interrupt, " ".join(f"ST0={st0:02x} PCN={pcn}" for st0, pcn in s.interrupts)),
        FieldView("specify", s.step_rate, f"SRT {s.step_rate} HUT {s.head_unload} HLT {s.head_load}, "
                  + ("PIO" if s.non_dma else "DMA")),
        FieldView("configure", config, ", ".join(flags) + (", locked" if s.lock else "")),
        FieldView("TDR", s.tdr, f"tape drive {s.tdr}" if s.tdr else "no tape drive"),
        FieldView("PRETRK", s.pretrk, "first track with write precompensation"),
        FieldView("perpendicular", s.perpendicular, f"drives {drives}, GAP {s.perpendicular >> 1 & 1} WGATE "
                  f"{s.perpendicular & 1}"),
        FieldView("last EOT", s.last_eot),
        FieldView("PCN", " ".join(map(str, s.pcn))),
    ]  # fmt: skip
