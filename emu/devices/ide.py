"""An ATA channel with one or two drives in PIO: the host's registers, device selection, INTRQ, the data port.

Sources: ATA-4 (T13 1153D) 9.16 "Single device configurations", ATA-6 (T13 1410D) clauses 7 "Interface register
definitions", 9.2 "Software reset protocol", 9.10 "EXECUTE DEVICE DIAGNOSTIC protocol". The data port is 16 bits wide
on the cable; 32-bit accesses take two words, as local-bus and PCI host adapters do. An empty channel floats: reads
give FFh.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.clock import Clock
from emu.devices.copied import copied
from emu.devices.ide_commands import COMMANDS
from emu.devices.ide_drive import COMMAND, DEV, DEVICE, DRQ, DmaEngine, Drive, DriveState
from emu.media import Disk
from emu.record import dataclass, field
from emu.typed import TYPE_CHECKING, Protocol
from emu.views import DeviceView, FieldView

if TYPE_CHECKING:
    from emu.devices.ide_cdrom import Cdrom

# device control register
NIEN, SRST, HOB = 0x02, 0x04, 0x80
DIAGNOSTIC = 0x90
FLOATING = 0xFF
#: Bytes that `readable` gives at once: they are copied each time an access interrupts the reading.
AHEAD = 4096

#: Where the two of an AT stand.
_PORTS = {"ide0": "ports 1F0h-1F7h, 3F6h, IRQ 14", "ide1": "ports 170h-177h, 376h, IRQ 15"}
_STATUS_NAMES = ("ERR", "IDX", "CORR", "DRQ", "DSC", "DF", "DRDY", "BSY")
_ERROR_NAMES = ("AMNF", "TK0NF", "ABRT", "MCR", "IDNF", "MC", "UNC/WP", "ICRC")


@dataclass(slots=True)
class State:
    """`control` is the device control register; `drives` has None where no device is."""

    selected: int = 0
    control: int = 0
    drives: list[DriveState | None] = field(default_factory=lambda: [None, None])


class BusMaster(DmaEngine, Protocol):
    """The bus master of this channel."""

    on_start: Callable[[], None]

    def interrupt(self) -> None:
        """INTRQ rose."""


class ControlFace:
    """The control block: one port, alternate status on reads and device control on writes."""

    def __init__(self, channel: IdeChannel) -> None:
        self._channel = channel

    def read(self, offset: int, size: int) -> int:
        return self._channel.alternate_status()

    def write(self, offset: int, value: int, size: int) -> None:
        self._channel.write_control(value & 0xFF)

    def peek(self, offset: int, size: int) -> int:
        return self._channel.alternate_status()


class IdeChannel:
    """The command block: eight ports, to be mapped with width 4 so that offset 0 takes 16- and 32-bit accesses whole.
    `control` is the port at 3F6h. `irq` gets INTRQ of the selected device, unless nIEN."""

    def __init__(
        self,
        clock: Clock,
        irq: Callable[[bool], None],
        drives: tuple[Disk | None, Disk | None],
        name: str = "ide0",
        packet: tuple[bool, bool] = (False, False),
    ) -> None:
        """`packet`: which of the drives are CD-ROM drives."""
        self._irq, self.name = irq, name
        self.control = ControlFace(self)
        self.cdroms: list[Cdrom] = []
        self._drives = tuple(
            None
            if disk is None
            else self._cdrom(clock, disk, i)
            if packet[i]
            else Drive(clock, disk, i, name, self._drive_irq, COMMANDS)
            for i, disk in enumerate(drives)
        )
        self._engine: BusMaster | None = None
        self._level = False  # of `irq`, for its rising edges
        self._selected = 0
        self._control = 0
        #: who answers data and register accesses: the selected device, or device 0 for an absent device 1
        self._active: Drive | None = None
        #: the last read of the status register had the effect of clearing INTRQ
        self.acknowledged = False
        self._select(0)

    def _cdrom(self, clock: Clock, disk: Disk, index: int) -> Cdrom:
        from emu.devices.atapi_commands import PACKETS
        from emu.devices.ide_cdrom import Cdrom

        drive = Cdrom(clock, disk, index, self.name, self._drive_irq, PACKETS)
        self.cdroms.append(drive)
        return drive

    def reset(self) -> None:
        """Power-on (and the hardware reset line)."""
        for drive in self._drives:
            if drive is not None:
                drive.power_on()
        self._control = 0
        self._select(0)

    def save(self) -> State:
        return State(self._selected, self._control, [None if d is None else copied(d.state) for d in self._drives])

    def restore(self, state: State) -> None:
        """Drives INTRQ to its saved level; timers come back with the clock. Raises ValueError when the state is of a
        channel with other devices."""
        present = [d is not None for d in self._drives]
        if present != [d is not None for d in state.drives]:
            raise ValueError(f"{self.name}: the saved channel has other devices than this one")
        self._control = state.control
        for drive, saved in zip(self._drives, state.drives, strict=True):
            if drive is not None and saved is not None:
                drive.state = copied(saved)
        self._select(state.selected)

    # -- selection and interrupt

    def _select(self, index: int) -> None:
        self._selected = index
        # ATA-4, 9.16.1: device 0 answers for an absent device 1; the reverse is not so
        self._active = self._drives[index] or (self._drives[0] if index else None)
        self._drive_irq()

    def attach_dma(self, engine: BusMaster) -> None:
        """Give the drives a bus master."""
        self._engine = engine
        for drive in self._drives:
            if drive is not None:
                drive.dma = engine
        engine.on_start = self._dma_started

    def _dma_started(self) -> None:
        drive = self._drives[self._selected]
        if drive is not None:
            drive.dma_started()

    def _drive_irq(self) -> None:
        drive = self._drives[self._selected]
        level = drive is not None and drive.state.intrq and not self._control & NIEN
        if level and not self._level and self._engine is not None:
            self._engine.interrupt()
        self._level = level
        self._irq(level)

    # -- the data port

    def _read_data(self, size: int) -> int:
        drive = self._active
        if drive is None:
            return 0xFFFFFFFF >> 32 - 8 * size
        s = drive.state
        if not s.status & DRQ or s.direction != "in":
            return 0
        start = s.position
        end = start + (size if size > 1 else 2)  # an 8-bit access still moves a word
        s.position = end
        value = int.from_bytes(s.buffer[start : start + size], "little")
        if end >= len(s.buffer):
            drive.block_ended()
        return value

    def _write_data(self, value: int, size: int) -> None:
        drive = self._drives[self._selected]
        if drive is None:
            return
        s = drive.state
        if not s.status & DRQ or s.direction != "out":
            return
        start = s.position
        end = min(start + (size if size > 1 else 2), len(s.buffer))
        assert isinstance(s.buffer, bytearray)
        s.buffer[start:end] = value.to_bytes(4, "little")[: end - start]
        s.position = end
        if end == len(s.buffer):
            drive.block_ended()

    # -- the data port in blocks: what an engine may do by itself, without the last word, with which things happen

    def readable(self) -> bytes:
        """What further 16- and 32-bit reads of the data port would give, up to the last word of the block, as far as
        `AHEAD` goes."""
        drive = self._active
        if drive is None or not drive.state.status & DRQ or drive.state.direction != "in":
            return b""
        s = drive.state
        return bytes(s.buffer[s.position : s.position + min(_before_last_word(s), AHEAD)])

    def taken(self, count: int) -> None:
        """As if `count` of those bytes had been read."""
        if self._active is not None:
            self._active.state.position += count

    def room(self) -> int:
        """How many bytes may be written to the data port, by 16- and 32-bit accesses, before the last word of the
        block."""
        drive = self._drives[self._selected]
        if drive is None or not drive.state.status & DRQ or drive.state.direction != "out":
            return 0
        return _before_last_word(drive.state)

    def written(self, data: bytes) -> None:
        """As if `data`, at most `room()` bytes, had been written."""
        drive = self._drives[self._selected]
        if drive is not None:
            s = drive.state
            assert isinstance(s.buffer, bytearray)
            s.buffer[s.position : s.position + len(data)] = data
            s.position += len(data)

    # -- the ports

    def read(self, offset: int, size: int) -> int:
        if offset == 0:
            return self._read_data(size)
        if size > 1:  # 8-bit registers: the bus splits the access
            return int.from_bytes(bytes(self.read(offset + i, 1) for i in range(size)), "little")
        if offset == COMMAND and (drive := self._drives[self._selected]) is not None:
            self.acknowledged = drive.state.intrq
            return drive.read_status()
        return self._register(offset)

    def peek(self, offset: int, size: int) -> int:
        if offset == 0:
            drive = self._active
            if drive is None:
                return 0xFFFFFFFF >> 32 - 8 * size
            s = drive.state
            return int.from_bytes(s.buffer[s.position : s.position + size], "little") if s.direction == "in" else 0
        return int.from_bytes(bytes(self._register(offset + i) for i in range(size) if offset + i < 8), "little")

    def _register(self, offset: int) -> int:
        """Without side effects."""
        if offset == COMMAND:
            return self.alternate_status()
        if self._active is None:
            return FLOATING
        if offset == DEVICE and self._selected and self._drives[1] is None:
            return self._active.read_register(offset, False) | DEV
        return self._active.read_register(offset, bool(self._control & HOB))

    def alternate_status(self) -> int:
        drive = self._drives[self._selected]
        if drive is not None:
            return drive.state.status
        # device 0 answers 00h for the status of an absent device 1; with no device 0 the bus floats
        return FLOATING if self._active is None else 0

    def write(self, offset: int, value: int, size: int) -> None:
        if offset == 0:
            self._write_data(value, size)
            return
        if size > 1:
            for i in range(size):
                self.write(offset + i, value >> 8 * i & 0xFF, 1)
            return
        value &= 0xFF
        self._control &= ~HOB  # a write to the command block ends the view of the high order bytes
        if offset == COMMAND:
            self._write_command(value)
        elif offset == DEVICE:
            for drive in self._drives:
                if drive is not None:
                    drive.state.device = value
            self._select(1 if value & DEV else 0)
        else:  # both devices latch what the host writes
            for drive in self._drives:
                if drive is not None:
                    drive.write_register(offset, value)

    def _write_command(self, value: int) -> None:
        if self._control & SRST:
            return
        if value == DIAGNOSTIC:
            for drive in self._drives:
                if drive is not None and drive.state.power != "sleep":
                    drive.begin_diagnostic()
            self._select(0)
        elif (selected := self._drives[self._selected]) is not None:
            selected.write_command(value)

    def write_control(self, value: int) -> None:
        was, self._control = self._control, value & (NIEN | SRST | HOB)
        if value & SRST and not was & SRST:
            for drive in self._drives:
                if drive is not None:
                    drive.begin_reset()
            self._select(0)
        elif was & SRST and not value & SRST:
            for drive in self._drives:
                if drive is not None:
                    drive.end_reset()
        self._drive_irq()

    # -- view

    def view(self) -> DeviceView:
        control = " ".join(n for bit, n in ((NIEN, "nIEN"), (SRST, "SRST"), (HOB, "HOB")) if self._control & bit)
        fields = [FieldView("selected", self._selected), FieldView("device control", self._control, control)]
        for i, drive in enumerate(self._drives):
            fields += [FieldView(f"device {i}", "absent")] if drive is None else _drive_fields(i, drive)
        return DeviceView(self.name, "ATA channel", _PORTS.get(self.name, "8 ports and a control port"), tuple(fields))


def _before_last_word(s: DriveState) -> int:
    """Bytes of the block that are left, but for its last word, or its last byte where the length is odd."""
    return max(len(s.buffer) - s.position - 1, 0) & ~1


def _drive_fields(index: int, drive: Drive) -> list[FieldView]:
    from emu.devices.ide_cdrom import Cdrom

    s = drive.state
    if isinstance(drive, Cdrom):
        return _cdrom_fields(index, drive)
    geometry = f"{drive.cylinders}/{s.heads}/{s.sectors}"
    left = len(s.buffer) - s.position
    phase = f"data {s.direction}, {left} bytes of the block left, {s.remaining} sectors" if s.direction else "idle"
    task = "features count low mid high"
    return [
        # a path comes last: it may be long
        FieldView(
            f"device {index}", "disk", f"{drive.disk.sectors} sectors, CHS {geometry}, {s.power}, {drive.disk.name}"
        ),
        FieldView(f"{index}.status", s.status, _bits(s.status, _STATUS_NAMES)),
        FieldView(f"{index}.error", s.error, _bits(s.error, _ERROR_NAMES) if s.status & 1 else "diagnostic code"),
        FieldView(f"{index}.task file", bytes(s.registers).hex(" "), task),
        FieldView(f"{index}.device", s.device, "LBA" if s.device & 0x40 else "CHS"),
        FieldView(f"{index}.command", s.command, phase),
        FieldView(f"{index}.INTRQ", s.intrq),
    ]


def _cdrom_fields(index: int, drive: Cdrom) -> list[FieldView]:
    s = drive.state
    tray = "tray open" if s.open else "tray closed"
    left = len(s.buffer) - s.position
    phase = f"data {s.direction}, {left} bytes of the block left, {s.frames} frames" if s.direction else "idle"
    return [
        FieldView(f"device {index}", "CD-ROM", f"{drive.frames} frames, {tray}, {drive.disk.name}"),
        FieldView(f"{index}.status", s.status, _bits(s.status, _STATUS_NAMES)),
        FieldView(f"{index}.error", s.error, f"sense key {s.error >> 4}" if s.status & 1 else ""),
        FieldView(f"{index}.interrupt reason", s.registers[1], _bits(s.registers[1], ("CoD", "IO", "REL"))),
        FieldView(f"{index}.byte count", s.registers[3] | s.registers[4] << 8),
        FieldView(f"{index}.packet", s.packet.hex(" "), phase),
        FieldView(f"{index}.sense", "/".join(f"{part:02x}" for part in s.sense)),
        FieldView(f"{index}.INTRQ", s.intrq),
    ]


def _bits(value: int, names: tuple[str, ...]) -> str:
    return " ".join(name for i, name in enumerate(names) if value >> i & 1)
