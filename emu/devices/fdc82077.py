"""The Intel 82077AA floppy disk controller in PC/AT mode: ports, command and result phases, reset, seeks, interrupts.

Source: Intel 82077AA data sheet (order number 290166): 2.1 "Status, data and control registers", "Reset", 4.0
"Controller phases", 5.0 "Command set/descriptions", table 5-1. The commands that touch sectors are in fdc_transfers.
READY is not a signal of the chip: without a turning diskette there are no index pulses, and a command waits for them
until the host resets the chip. The FIFO of the PIO mode holds a sector, so INT rises once for each.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

from emu.clock import Clock
from emu.devices.dma8237 import DmaPair
from emu.devices.fdc82077_registers import (
    DOR_DMAGATE,
    DOR_NRESET,
    DOR_SELECT,
    DSR_RESET,
    EFIFO,
    EQUIPMENT,
    IC_ABNORMAL,
    IC_INVALID,
    IC_POLL,
    POLL_OFF,
    RATES,
    SEEK_END,
    ST3_T0,
    ST3_WP,
    State,
    fields_of,
)
from emu.devices.fdc_transfers import TRANSFERS, Transfers
from emu.devices.floppy_drive import HASTE, FloppyDrive
from emu.media import Disk
from emu.views import DeviceView, FieldView

# ports from 3F0h on
DOR, TDR, MSR_DSR, FIFO, DIR_CCR = 2, 3, 4, 5, 7
DMA_CHANNEL = 2
VERSION = 0x90  #: of an 82077AA (and an enhanced 765B)
#: RECALIBRATE gives up after 79 step pulses.
RECALIBRATE_STEPS = 79
#: From the end of a reset to the poll's interrupt.
RESET_NS = 250_000
#: From a command's last byte to its result, where nothing has to move.
COMMAND_NS = 10_000


class Face:
    """The ports from 3F0h + `first`, as a bus device."""

    def __init__(self, chip: Fdc82077, first: int) -> None:
        self._chip, self._first = chip, first

    def read(self, offset: int, size: int) -> int:
        return self._chip.read(self._first + offset, size)

    def write(self, offset: int, value: int, size: int) -> None:
        self._chip.write(self._first + offset, value, size)

    def peek(self, offset: int, size: int) -> int:
        return self._chip.peek(self._first + offset, size)


class Fdc82077:
    """`registers` are ports 3F2h-3F5h, `change` is 3F7h. `irq` gets the INT pin behind the DMA gate. `disks`: up to
    two drives, each with its diskette."""

    def __init__(self, clock: Clock, irq: Callable[[bool], None], dma: DmaPair, disks: Sequence[Disk] = ()) -> None:
        self._clock, self._irq = clock, irq
        self.registers, self.change = Face(self, DOR), Face(self, DIR_CCR)
        self.drives = [FloppyDrive(disk) for disk in disks]
        self._reset_timer = clock.timer("fdc.reset", self._reset_done)
        self._result_timer = clock.timer("fdc.command", self._execute)
        self._seek_timers = [clock.timer(f"fdc.seek{i}", partial(self._seek_done, i)) for i in range(4)]
        self.state = State()
        self._transfers = Transfers(self, clock, dma, DMA_CHANNEL)
        self.reset()

    def reset(self) -> None:
        """The RESET pin: DOR clear, so that the chip stays in reset until software sets its bit 2."""
        self._stop()
        self.state = State()
        for drive in self.drives:
            drive.power_on()
        self._drive_irq()

    def save(self) -> State:
        state = copy.deepcopy(self.state)
        state.drives = [drive.save() for drive in self.drives]
        return state

    def restore(self, state: State) -> None:
        """Timers come back with the clock. Raises ValueError for a state with other drives."""
        if len(state.drives) != len(self.drives):
            raise ValueError(f"the saved state has {len(state.drives)} floppy drives, this machine {len(self.drives)}")
        self.state = copy.deepcopy(state)
        for drive, saved in zip(self.drives, state.drives, strict=True):
            if saved is not None:
                drive.restore(saved)
        self.state.drives = []
        self._drive_irq()

    # -- what the transfers need

    @property
    def rate(self) -> int:
        """kbit/s."""
        return RATES[self.state.rate]

    def selected(self, unit: int) -> FloppyDrive | None:
        """The drive that answers as `unit`: present, and selected by DOR."""
        return self.drives[unit] if unit < len(self.drives) and self.state.dor & DOR_SELECT == unit else None

    def turning(self, unit: int) -> FloppyDrive | None:
        """The same with its motor on, so that index pulses come."""
        return self.selected(unit) if self.state.dor & 0x10 << unit else None

    def step_ns(self, steps: int) -> int:
        """The step rate is 16 - SRT ms at 500 kbit/s, and scales with the rate; the drive is hasty."""
        return abs(steps) * (16 - self.state.step_rate) * 500_000_000 // self.rate // HASTE

    def set_interrupt(self, level: bool) -> None:
        self.state.interrupt = level
        self._drive_irq()

    def finish(self, results: Sequence[int], interrupt: bool = True) -> None:
        """To the result phase."""
        s = self.state
        s.phase, s.results, s.operation, s.direction = "result", list(results), None, ""
        s.bytes_in = []
        if interrupt:
            self.set_interrupt(True)

    def _drive_irq(self) -> None:
        s = self.state
        self._irq(s.interrupt and bool(s.dor & DOR_DMAGATE))

    # -- reset

    def _stop(self) -> None:
        for timer in (self._reset_timer, self._result_timer, *self._seek_timers):
            timer.cancel()
        self._transfers.stop()

    def _software_reset(self) -> None:
        """By DOR or DSR. SPECIFY's values, data rate and perpendicular drives stay; LOCK keeps FIFO and PRETRK."""
        self._stop()
        s = self.state
        kept = (s.config & 0x2F, s.pretrk) if s.lock else (EFIFO, 0)
        self.state = State(
            dor=s.dor, tdr=s.tdr, rate=s.rate, step_rate=s.step_rate, head_unload=s.head_unload,
            head_load=s.head_load, non_dma=s.non_dma, config=kept[0], pretrk=kept[1], lock=s.lock,
            perpendicular=s.perpendicular & 0x3C,
        )  # fmt: skip
        self._drive_irq()

    def _leave_reset(self) -> None:
        self._reset_timer.arm(self._clock.now + RESET_NS)

    def _reset_done(self, _deadline: int) -> None:
        """The poll finds that all four drives have changed from not ready to ready."""
        s = self.state
        if not s.config & POLL_OFF:
            s.interrupts = [(IC_POLL | unit, s.pcn[unit]) for unit in range(4)]
            self.set_interrupt(True)

    # -- ports

    def peek(self, offset: int, size: int) -> int:
        s = self.state
        if offset == DOR:
            return s.dor
        if offset == TDR:
            return s.tdr
        if offset == MSR_DSR:
            return s.msr()
        if offset == DIR_CCR:
            # bits 6-0 are not driven in AT mode
            unit = s.dor & DOR_SELECT
            drive = self.turning(unit)
            return 0x7F | (0x80 if drive is not None and drive.state.changed else 0)
        if s.phase == "result":
            return s.results[0]
        return s.buffer[s.position] if s.direction == "in" else 0

    def read(self, offset: int, size: int) -> int:
        value = self.peek(offset, size)
        s = self.state
        if offset != FIFO or not s.dor & DOR_NRESET:
            return value
        if s.phase == "result":
            if s.interrupt and not s.interrupts:
                self.set_interrupt(False)
            s.results.pop(0)
            if not s.results:
                s.phase = "command"
        elif s.direction == "in":
            s.position += 1
            if s.position == len(s.buffer):
                self._transfers.pio_done()
        return value

    def write(self, offset: int, value: int, size: int) -> None:
        s = self.state
        value &= 0xFF
        if offset == DOR:
            self._write_dor(value)
        elif offset == TDR:
            s.tdr = value & 3
        elif offset == MSR_DSR:
            s.rate = value & 3
            if value & DSR_RESET:
                self._software_reset()
                if self.state.dor & DOR_NRESET:
                    self._leave_reset()
        elif offset == DIR_CCR:
            s.rate = value & 3
        elif s.dor & DOR_NRESET:
            self._write_fifo(value)

    def _write_dor(self, value: int) -> None:
        was, self.state.dor = self.state.dor, value
        if was & DOR_NRESET and not value & DOR_NRESET:
            self._software_reset()
        elif value & DOR_NRESET and not was & DOR_NRESET:
            self._leave_reset()
        self._drive_irq()
        self._transfers.motors_changed()

    def _write_fifo(self, value: int) -> None:
        s = self.state
        if s.phase == "execute" and s.direction == "out":
            self._transfers.pio_byte(value)
            return
        if s.phase != "command":
            return
        s.bytes_in.append(value)
        if len(s.bytes_in) < _length(s.bytes_in[0]):
            return
        s.phase = "execute"
        self._result_timer.arm(self._clock.now + COMMAND_NS)

    # -- commands

    def _execute(self, _deadline: int) -> None:
        s = self.state
        code = s.bytes_in[0]
        if _is_transfer(code):
            self._transfers.begin(s.bytes_in)
            return
        handler = _COMMANDS.get(code)
        if handler is None:
            self.finish([IC_INVALID], interrupt=False)
            return
        results = handler(self, s.bytes_in[1:])
        if results is None:
            s.bytes_in, s.phase = [], "command"
        else:
            self.finish(results, interrupt=False)

    def _specify(self, args: list[int]) -> None:
        s = self.state
        s.step_rate, s.head_unload = args[0] >> 4, args[0] & 15
        s.head_load, s.non_dma = args[1] >> 1, bool(args[1] & 1)

    def _sense_drive(self, args: list[int]) -> list[int]:
        unit = args[0] & 3
        drive = self.selected(unit)
        status = 0x28 | args[0] & 7
        if drive is not None:
            status |= (ST3_T0 if drive.state.cylinder == 0 else 0) | (ST3_WP if drive.disk.write_protected else 0)
        return [status]

    def _sense_interrupt(self, args: list[int]) -> list[int]:
        s = self.state
        if not s.interrupts:
            return [IC_INVALID]
        found = s.interrupts.pop(0)
        self.set_interrupt(False)
        if s.interrupts and s.interrupts[0][0] & IC_POLL != IC_POLL:
            self.set_interrupt(True)  # another drive has ended its seek: an edge of its own
        return list(found)

    def _version(self, args: list[int]) -> list[int]:
        return [VERSION]

    def _configure(self, args: list[int]) -> None:
        s = self.state
        s.config, s.pretrk = args[1] & 0x7F, args[2]
        if s.config & POLL_OFF and self._reset_timer.deadline is not None:
            self._reset_timer.cancel()

    def _lock(self, on: bool, args: list[int]) -> list[int]:
        self.state.lock = on
        return [0x10 if on else 0]

    def _perpendicular(self, args: list[int]) -> None:
        """The drive bits change only with OW, bit 7."""
        s = self.state
        s.perpendicular = args[0] & 0x3F if args[0] & 0x80 else s.perpendicular & 0x3C | args[0] & 3

    def _dumpreg(self, args: list[int]) -> list[int]:
        s = self.state
        return [
            *s.pcn, s.step_rate << 4 | s.head_unload, s.head_load << 1 | s.non_dma, s.last_eot,
            s.lock << 7 | s.perpendicular, s.config, s.pretrk,
        ]  # fmt: skip

    # -- seeks

    def _recalibrate(self, args: list[int]) -> None:
        unit = args[0] & 3
        drive = self.selected(unit)
        steps = RECALIBRATE_STEPS if drive is None else min(drive.state.cylinder, RECALIBRATE_STEPS)
        found = drive is not None and drive.state.cylinder <= RECALIBRATE_STEPS
        self._seek(unit, -steps, 0, SEEK_END | unit | (0 if found else IC_ABNORMAL | EQUIPMENT))

    def _seek_to(self, args: list[int]) -> None:
        unit = args[0] & 3
        self._seek(unit, args[1] - self.state.pcn[unit], args[1], SEEK_END | args[0] & 7)

    def _relative_seek(self, inwards: bool, args: list[int]) -> None:
        unit = args[0] & 3
        steps = args[1] if inwards else -args[1]
        self._seek(unit, steps, self.state.pcn[unit] + steps & 0xFF, SEEK_END | args[0] & 7)

    def _seek(self, unit: int, steps: int, pcn: int, st0: int) -> None:
        if (drive := self.selected(unit)) is not None:
            drive.step(steps)
        self.state.seeks[unit] = (st0, pcn)
        self._seek_timers[unit].arm(self._clock.now + max(COMMAND_NS, self.step_ns(steps)))

    def _seek_done(self, unit: int, _deadline: int) -> None:
        s = self.state
        seek, s.seeks[unit] = s.seeks[unit], None
        if seek is not None:
            s.pcn[unit] = seek[1]
            s.interrupts.append(seek)
            self.set_interrupt(True)

    # -- view

    def view(self) -> DeviceView:
        fields = fields_of(self.state)
        for i, drive in enumerate(self.drives):
            f, s = drive.format, drive.state
            change = ", changed" if s.changed else ""
            where = f"head at {s.cylinder}{change}, {drive.disk.name}"
            fields.append(FieldView(f"drive {i}", f"{f.cylinders}/{f.heads}/{f.sectors}", where))
        return DeviceView("fdc", "Intel 82077AA", "ports 3F2h-3F5h, 3F7h", tuple(fields))


_Command = Callable[[Fdc82077, list[int]], "list[int] | None"]

#: Opcodes with all their bits: what they do. Those in fdc_transfers have bits of their own.
_COMMANDS: dict[int, _Command] = {
    0x03: Fdc82077._specify,
    0x04: Fdc82077._sense_drive,
    0x07: Fdc82077._recalibrate,
    0x08: Fdc82077._sense_interrupt,
    0x0E: Fdc82077._dumpreg,
    0x0F: Fdc82077._seek_to,
    0x10: Fdc82077._version,
    0x12: Fdc82077._perpendicular,
    0x13: Fdc82077._configure,
    0x14: lambda chip, args: chip._lock(False, args),
    0x94: lambda chip, args: chip._lock(True, args),
    0x8F: lambda chip, args: chip._relative_seek(False, args),
    0xCF: lambda chip, args: chip._relative_seek(True, args),
}
_LENGTHS = {0x03: 3, 0x04: 2, 0x07: 2, 0x0F: 3, 0x12: 2, 0x13: 4, 0x8F: 3, 0xCF: 3}


def _is_transfer(code: int) -> bool:
    return code & 0x1F in TRANSFERS and not code & 0xE0 & ~TRANSFERS[code & 0x1F][1]


def _length(code: int) -> int:
    """Bytes of a command, the first included. An invalid one is its first byte alone."""
    return TRANSFERS[code & 0x1F][0] if _is_transfer(code) else _LENGTHS.get(code, 1)
