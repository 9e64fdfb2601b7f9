"""One ATA hard disk on its cable: registers, PIO data phases, power modes. The commands are in ide_commands.

Sources: AT Attachment with Packet Interface - 4 to 6 (T13 1153D, 1321D, 1410D): "Register delivered" protocols
(ATA-6, clause 9), register descriptions (clause 7), power management (6.9), LBA and CHS addressing (6.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from emu.clock import Clock
from emu.media import SECTOR, Disk, DiskError
from emu.record import dataclass, field
from emu.typed import Protocol

# status register
BSY, DRDY, DF, DSC, DRQ, CORR, IDX, ERR = (1 << i for i in range(7, -1, -1))
# error register; bit 6 is UNC on reads and WP on writes
UNC = WP = 0x40
IDNF, ABRT = 0x10, 0x04
DIAGNOSTIC_PASSED = 0x01
# device register
DEV, LBA = 0x10, 0x40
# command block registers, by offset; the lists in State are indexed by offset - 1
FEATURES, COUNT, LOW, MID, HIGH, DEVICE, COMMAND = range(1, 8)

#: From a command's write until the device has its answer: a drive whose cache holds what is asked for.
COMMAND_NS = 20_000
#: From the end of a DRQ block until the next one is ready, or the written one is stored.
BLOCK_NS = 2_000
#: SRST and EXECUTE DEVICE DIAGNOSTIC.
RESET_NS = 100_000
#: A sector of DMA. Multiword mode 2 takes 30,000 (16.7 MB/s); a driver that polls would spend that executing.
DMA_SECTOR_NS = 1_000
DMA_SECTORS = 128  #: sectors moved at a time
MAX_MULTIPLE = 128
MAX_LBA28 = (1 << 28) - 1


@dataclass(slots=True)
class DriveState:
    """`registers` are features, count, low, mid and high as last written, `previous` what they held before (48-bit
    commands). A data phase has `direction` "in" or "out", `buffer` and `position` in it (bytes); `lba` is the first
    sector of the block in `buffer`, `remaining` counts sectors from it on, `block` is the most in one DRQ block. `next`
    is what the timer does when BSY ends. `standby` is the standby timer's period, ns, 0 off."""

    registers: list[int] = field(default_factory=lambda: [0] * 5)
    previous: list[int] = field(default_factory=lambda: [0] * 5)
    device: int = 0
    status: int = DRDY | DSC
    error: int = DIAGNOSTIC_PASSED
    intrq: bool = False
    command: int = 0
    next: str = ""
    direction: str = ""
    buffer: bytes | bytearray = b""
    position: int = 0
    lba: int = 0
    remaining: int = 0
    block: int = 1
    heads: int = 16
    sectors: int = 63
    multiple: int = 0
    power: str = "active"
    standby: int = 0
    write_cache: bool = True
    look_ahead: bool = True
    revert: bool = False
    pio_mode: int = 0
    dma_mode: int = 0  #: 20h + n: multiword DMA mode n; 40h + n: Ultra DMA
    scratch: bytes = bytes(SECTOR)


class DmaEngine(Protocol):
    """A host's bus master, as a drive that holds DMARQ sees it."""

    def ready(self, to_memory: bool) -> bool:
        """It will move data in this direction now."""

    def to_memory(self, data: bytes) -> int:
        """Returns how many bytes were taken."""

    def from_memory(self, length: int) -> bytes:
        """At most `length` bytes."""


class Drive:
    """Device 0 or 1 of a channel. `changed` is called when INTRQ may have changed."""

    def __init__(
        self,
        clock: Clock,
        disk: Disk,
        index: int,
        name: str,
        changed: Callable[[], None],
        commands: Mapping[int, Callable[[Drive], None]],
    ) -> None:
        self._clock, self.disk, self.index, self._changed, self._commands = clock, disk, index, changed, commands
        self._timer = clock.timer(f"{name}.{index}", self._due)
        self._standby_timer = clock.timer(f"{name}.standby{index}", self._standby_due)
        geometry = disk.geometry()
        self.dma: DmaEngine | None = None  #: without one DMA commands are aborted
        #: the power-on translation (IDENTIFY DEVICE words 1, 3 and 6)
        self.geometry = geometry if geometry.heads <= 16 else disk.drive_geometry()
        self.state = DriveState()
        self.power_on()

    def power_on(self) -> None:
        self._timer.cancel()
        self._standby_timer.cancel()
        self.state = DriveState(heads=self.geometry.heads, sectors=self.geometry.sectors)
        self.put_signature()

    @property
    def cylinders(self) -> int:
        """Of the current translation."""
        s = self.state
        if (s.heads, s.sectors) == (self.geometry.heads, self.geometry.sectors):
            return min(self.geometry.cylinders, 0xFFFF)
        return min(self.disk.sectors // (s.heads * s.sectors), 0xFFFF)

    # -- reset

    def begin_reset(self) -> None:
        """SRST is set: what ran is forgotten."""
        s = self.state
        self._timer.cancel()
        s.status, s.intrq, s.next, s.direction = BSY, False, "", ""
        s.buffer, s.position = b"", 0

    def end_reset(self) -> None:
        """SRST is cleared: BSY stays for the diagnostics."""
        self._later("reset", RESET_NS)

    def begin_diagnostic(self) -> None:
        """EXECUTE DEVICE DIAGNOSTIC runs on both devices."""
        self.begin_reset()
        self._later("diagnostic", RESET_NS)

    def put_signature(self) -> None:
        """What a device without the PACKET feature set shows after reset and diagnostics (ATA-6, 9.12)."""
        s = self.state
        s.registers, s.previous = [0, 1, 1, 0, 0], [0] * 5
        s.device, s.error, s.status = 0, DIAGNOSTIC_PASSED, DRDY | DSC

    def _finish_reset(self, diagnostic: bool) -> None:
        s = self.state
        self.put_signature()
        if not diagnostic:
            s.power = "active"
            if s.revert:
                s.heads, s.sectors, s.multiple = self.geometry.heads, self.geometry.sectors, 0
                s.write_cache = s.look_ahead = True
        s.intrq = diagnostic and self.index == 0
        self._changed()

    # -- registers

    def write_register(self, offset: int, value: int) -> None:
        """Features to high. Ignored while BSY: the standard leaves the outcome open."""
        s = self.state
        if not s.status & BSY:
            s.previous[offset - 1] = s.registers[offset - 1]
            s.registers[offset - 1] = value

    def read_register(self, offset: int, high_order: bool) -> int:
        """Error to device."""
        s = self.state
        if offset == FEATURES:
            return s.error
        if offset == DEVICE:
            return s.device
        return (s.previous if high_order else s.registers)[offset - 1]

    def read_status(self) -> int:
        """With the side effect: the interrupt is acknowledged."""
        s = self.state
        if s.intrq:
            s.intrq = False
            self._changed()
        return s.status

    def write_command(self, value: int) -> None:
        s = self.state
        if s.status & BSY or s.power == "sleep":
            return
        s.command, s.intrq, s.direction = value, False, ""
        s.status = BSY
        self._changed()
        self._later("execute", COMMAND_NS)

    # -- time

    def _later(self, what: str, delay: int) -> None:
        s = self.state
        s.next, s.status = what, BSY
        self._timer.arm(self._clock.now + delay)

    def _due(self, _deadline: int) -> None:
        s = self.state
        what, s.next = s.next, ""
        if what == "execute":
            s.error, s.status = 0, BSY
            handler = self._commands.get(s.command)
            if handler is None:
                self.fail(ABRT)
            else:
                handler(self)
            self._arm_standby()
        elif what == "load":
            self._load()
        elif what == "store":
            self._store()
        elif what == "dma":
            self._transfer()
        else:
            self._finish_reset(what == "diagnostic")

    def _arm_standby(self) -> None:
        s = self.state
        if s.standby and s.power in ("active", "idle"):
            self._standby_timer.arm(self._clock.now + s.standby)
        else:
            self._standby_timer.cancel()

    def _standby_due(self, _deadline: int) -> None:
        s = self.state
        if s.status & BSY or s.direction:
            self._arm_standby()
        else:
            s.power = "standby"

    # -- the ends of a command

    def done(self) -> None:
        s = self.state
        s.status, s.direction = DRDY | DSC, ""
        self._interrupt()

    def fail(self, error: int, status: int = 0) -> None:
        s = self.state
        s.error, s.status, s.direction = error, DRDY | DSC | ERR | status, ""
        self._interrupt()

    def _interrupt(self) -> None:
        self.state.intrq = True
        self._changed()

    # -- addresses

    def address(self, ext: bool) -> int | None:
        """The LBA in the registers; None for a CHS address outside the current translation."""
        s = self.state
        low, mid, high = s.registers[2:]
        if ext:
            return low | mid << 8 | high << 16 | s.previous[2] << 24 | s.previous[3] << 32 | s.previous[4] << 40
        if s.device & LBA:
            return low | mid << 8 | high << 16 | (s.device & 15) << 24
        cylinder, head = mid | high << 8, s.device & 15
        if not 1 <= low <= s.sectors or head >= s.heads or cylinder >= self.cylinders:
            return None
        return (cylinder * s.heads + head) * s.sectors + low - 1

    def put_address(self, lba: int, ext: bool) -> None:
        """Registers point to the sector last transferred, or the one that failed."""
        s = self.state
        if ext:
            s.registers[2:] = [lba & 255, lba >> 8 & 255, lba >> 16 & 255]
            s.previous[2:] = [lba >> 24 & 255, lba >> 32 & 255, lba >> 40 & 255]
        elif s.device & LBA:
            s.registers[2:] = [lba & 255, lba >> 8 & 255, lba >> 16 & 255]
            s.device = s.device & 0xF0 | lba >> 24 & 15
        else:
            track, sector = divmod(lba, s.sectors)
            cylinder, head = divmod(track, s.heads)
            s.registers[2:] = [sector + 1, cylinder & 255, cylinder >> 8 & 255]
            s.device = s.device & 0xF0 | head

    def count(self, ext: bool) -> int:
        """Sectors asked for; 0 means 256, or 65536 with 48-bit commands."""
        s = self.state
        if ext:
            return (s.registers[1] | s.previous[1] << 8) or 65536
        return s.registers[1] or 256

    def _put_count(self, remaining: int, ext: bool) -> None:
        self.state.registers[1] = remaining & 255
        if ext:
            self.state.previous[1] = remaining >> 8 & 255

    # -- data phases

    def begin(self, direction: str, block: int) -> None:
        """A data command whose registers say which sectors."""
        s = self.state
        s.power = "active"
        ext = is_ext(s.command)
        lba = self.address(ext)
        s.remaining, s.block, s.direction = self.count(ext), block, direction
        if lba is None or lba >= self.disk.sectors:
            self.fail(IDNF)
            return
        if direction == "out" and self.disk.write_protected:
            self.fail(WP | ABRT)
            return
        s.lba = lba
        if direction == "in":
            self._load()
        else:
            self._room(interrupt=False)

    def begin_dma(self, direction: str) -> None:
        """READ DMA ("dma in") or WRITE DMA ("dma out"): the data moves when the host's engine is started."""
        s = self.state
        if self.dma is None:
            self.fail(ABRT)
            return
        s.power = "active"
        ext = is_ext(s.command)
        lba, count = self.address(ext), self.count(ext)
        s.remaining = count
        if lba is None or lba + count > self.disk.sectors:
            if lba is not None:
                self.put_address(self.disk.sectors, ext)
            self.fail(IDNF)
        elif direction == "dma out" and self.disk.write_protected:
            self.fail(WP | ABRT)
        else:
            s.lba, s.direction, s.status = lba, direction, DRDY | DSC | DRQ
            self.dma_started()

    def dma_started(self) -> None:
        """The engine may be ready now: a waiting transfer takes the time of its sectors."""
        s = self.state
        to_memory = s.direction == "dma in"
        if self.dma is not None and (to_memory or s.direction == "dma out") and self.dma.ready(to_memory):
            s.next = "dma"
            self._timer.arm(self._clock.now + s.remaining * DMA_SECTOR_NS)

    def _transfer(self) -> None:
        """All sectors, or as far as the medium and the host's table go. One that has moved in part only counts as not
        moved; the drive then waits for more room, as DMARQ stays."""
        s, dma = self.state, self.dma
        if dma is None or not dma.ready(s.direction == "dma in"):
            return  # stopped meanwhile; the drive holds DMARQ
        while s.remaining:
            count = min(s.remaining, DMA_SECTORS)
            try:
                if s.direction == "dma in":
                    data = self._readable(count)
                    count = len(data) // SECTOR
                    moved = dma.to_memory(data) // SECTOR
                else:
                    data = dma.from_memory(count * SECTOR)
                    moved = len(data) // SECTOR
                    self.disk.write(s.lba, data[: moved * SECTOR])
            except DiskError as error:
                self._failed(error)
                return
            if moved:
                self._advance(moved)
            if moved < count:
                return
        if s.direction == "dma out" and not s.write_cache:
            try:
                self.disk.flush()
            except DiskError:
                self.fail(ABRT, DF)
                return
        self.done()

    def _readable(self, count: int) -> bytes:
        """The next `count` sectors, or those before the first that cannot be read. Raises DiskError when it is the
        first of them."""
        s = self.state
        try:
            return self.disk.read(s.lba, count)
        except DiskError as error:
            if error.lba is None or error.lba <= s.lba:
                raise
            return self.disk.read(s.lba, error.lba - s.lba)

    def send(self, data: bytes) -> None:
        """One block that is not sectors of the medium: IDENTIFY DEVICE, READ BUFFER."""
        s = self.state
        s.remaining, s.direction = 0, "in"
        s.buffer, s.position, s.status = data, 0, DRDY | DSC | DRQ
        self._interrupt()

    def accept(self) -> None:
        """One block that does not go to the medium: WRITE BUFFER."""
        s = self.state
        s.remaining, s.direction = 0, "out"
        s.buffer, s.position, s.status = bytearray(SECTOR), 0, DRDY | DSC | DRQ

    def _load(self) -> None:
        s = self.state
        count = min(s.block, s.remaining)
        if s.lba + count > self.disk.sectors:
            self._stop_at(self.disk.sectors, IDNF)
            return
        try:
            s.buffer = self.disk.read(s.lba, count)
        except DiskError as error:
            self._failed(error)
            return
        s.position, s.status = 0, DRDY | DSC | DRQ
        self._interrupt()

    def _room(self, interrupt: bool) -> None:
        """Ask for the next block to write. The first is asked for without an interrupt (ATA-6, 9.6)."""
        s = self.state
        s.buffer, s.position = bytearray(min(s.block, s.remaining) * SECTOR), 0
        s.status = DRDY | DSC | DRQ
        if interrupt:
            self._interrupt()

    def _store(self) -> None:
        s = self.state
        if not s.remaining:
            s.scratch = bytes(s.buffer)
            self.done()
            return
        fits = min(len(s.buffer) // SECTOR, self.disk.sectors - s.lba)
        try:
            self.disk.write(s.lba, bytes(s.buffer[: fits * SECTOR]))
            if not s.write_cache:
                self.disk.flush()
        except DiskError as error:
            self._failed(error)
            return
        if fits * SECTOR < len(s.buffer):
            self._stop_at(self.disk.sectors, IDNF)
            return
        self._advance(fits)
        if s.remaining:
            self._room(interrupt=True)
        else:
            self.done()

    def block_ended(self) -> None:
        """The host has moved the last byte of a DRQ block."""
        s = self.state
        if s.direction == "out":
            self._later("store", BLOCK_NS)
            return
        if s.remaining:
            self._advance(len(s.buffer) // SECTOR)
        if s.remaining:
            self._later("load", BLOCK_NS)
        else:
            s.status, s.direction = DRDY | DSC, ""

    def _advance(self, count: int) -> None:
        s = self.state
        ext = is_ext(s.command)
        s.lba += count
        s.remaining -= count
        self.put_address(s.lba - 1, ext)
        self._put_count(s.remaining, ext)

    def _failed(self, error: DiskError) -> None:
        """The medium: with the address of the first sector that could not be moved (ATA-6, error outputs)."""
        s = self.state
        at = s.lba if error.lba is None else error.lba
        if s.direction in ("in", "dma in"):
            self._stop_at(at, UNC)
        else:
            self._stop_at(at, ABRT, DF)

    def _stop_at(self, lba: int, error: int, status: int = 0) -> None:
        s = self.state
        ext = is_ext(s.command)
        self._put_count(s.remaining - (lba - s.lba), ext)
        self.put_address(lba, ext)
        self.fail(error, status)


def is_ext(command: int) -> bool:
    """A command of the 48-bit address feature set."""
    return command in (0x24, 0x25, 0x27, 0x29, 0x34, 0x35, 0x39, 0x42, 0xEA)
