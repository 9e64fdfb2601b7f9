"""An ATAPI CD-ROM drive on an ATA channel: signature, PACKET protocol in PIO, sense data. Packets: atapi_commands.

Sources: ATA-6 (T13 1410D) 8.23 "PACKET", 8.16 "IDENTIFY PACKET DEVICE", 8.10 "DEVICE RESET", 9.8 "PACKET command
protocol", 9.12 "Signature and persistence"; SPC-2 (T10 1236D) 7.20 "REQUEST SENSE"; MMC-3 (T10 1363D).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from emu.clock import Clock
from emu.devices.ide_commands import COMMANDS as DISK_COMMANDS
from emu.devices.ide_drive import ABRT, BLOCK_NS, COMMAND_NS, DEV, DRDY, DRQ, DSC, ERR, Drive, DriveState
from emu.media import SECTOR, Disk, DiskError
from emu.record import dataclass

FRAME = 2048  #: bytes of user data in a sector
# interrupt reason, in the count register
COD, IO = 0x01, 0x02
DEVICE_RESET, PACKET, IDENTIFY_PACKET = 0x08, 0xA0, 0xA1
PACKET_BYTES = 12
# sense keys, with additional sense code and qualifier
NO_SENSE = (0, 0, 0)
NO_MEDIUM = (2, 0x3A, 0x00)
TRAY_OPEN = (2, 0x3A, 0x02)
UNREADABLE = (3, 0x11, 0x00)
INVALID_COMMAND = (5, 0x20, 0x00)
OUT_OF_RANGE = (5, 0x21, 0x00)
INVALID_FIELD = (5, 0x24, 0x00)
WRONG_TRACK_MODE = (5, 0x64, 0x00)
REMOVAL_PREVENTED = (5, 0x53, 0x02)
WAS_RESET = (6, 0x29, 0x00)
MEDIUM_CHANGED = (6, 0x28, 0x00)


@dataclass(slots=True)
class CdromState(DriveState):
    """`data` is what of the packet's answer still goes out, before `frames` more from `lba`, each with `header` bytes
    and `trailer` zeros around it (READ CD). `limit` is the byte count limit. `attention` is a unit attention still
    to be reported, `event` the media event code to be."""

    packet: bytes = b""
    data: bytes = b""
    frames: int = 0
    form: int = 0x10
    limit: int = 0
    sense: tuple[int, int, int] = NO_SENSE
    attention: tuple[int, int, int] = WAS_RESET
    open: bool = False
    prevented: bool = False
    event: int = 2


class PacketError(Exception):
    """A packet ends with CHECK CONDITION; `args[0]` is (sense key, ASC, ASCQ)."""


class Cdrom(Drive):
    """A drive with the disc `disk`, whose frames are four sectors each. `packets`: what each operation code does."""

    state: CdromState

    def __init__(
        self,
        clock: Clock,
        disk: Disk,
        index: int,
        name: str,
        changed: Callable[[], None],
        packets: Mapping[int, Callable[[Cdrom, bytes], bytes]],
    ) -> None:
        self._packets = packets
        self.frames = -(-disk.sectors * SECTOR // FRAME)
        super().__init__(clock, disk, index, name, changed, _COMMANDS)

    def power_on(self) -> None:
        self._timer.cancel()
        self._standby_timer.cancel()
        self.state = CdromState()
        self.put_signature()

    def put_signature(self) -> None:
        """EB14h says that the device has the PACKET feature set; it is not ready for ATA commands."""
        s = self.state
        s.registers, s.previous = [0, 1, 1, 0x14, 0xEB], [0] * 5
        s.device, s.error, s.status = s.device & DEV, 0x01, 0

    def _finish_reset(self, diagnostic: bool) -> None:
        super()._finish_reset(diagnostic)
        s = self.state
        s.attention, s.sense = WAS_RESET, NO_SENSE

    def eject(self) -> None:
        """Open the tray, whether it is locked or not."""
        if not self.state.open:
            self.state.open, self.state.event = True, 3

    def take_change(self) -> bool:
        """True once after the medium may have changed: the unit attention is reported by this."""
        changed = self.state.attention == MEDIUM_CHANGED
        if changed:
            self.state.attention = NO_SENSE
        return changed

    def write_command(self, value: int) -> None:
        if value == DEVICE_RESET:  # taken even while busy
            self.begin_reset()
            self._later("reset", COMMAND_NS)
        else:
            super().write_command(value)

    def _due(self, deadline: int) -> None:
        s = self.state
        if s.next == "packet":
            s.next = ""
            self._execute()
        elif s.next == "block":
            s.next = ""
            self._send_block()
        elif s.next == "complete":
            s.next = ""
            self._complete()
        else:
            super()._due(deadline)

    # -- the PACKET command

    def accept_packet(self) -> None:
        """Ask for the packet, without an interrupt (IDENTIFY word 0, bits 6-5: DRQ within 50 us)."""
        s = self.state
        if s.registers[0] & 3:  # DMA and overlap are not here
            self.fail(ABRT)
            return
        s.limit = (s.registers[3] | s.registers[4] << 8) or 0xFFFE
        s.registers[1] = COD
        s.direction, s.buffer, s.position = "out", bytearray(PACKET_BYTES), 0
        s.status = DRDY | DSC | DRQ

    def block_ended(self) -> None:
        s = self.state
        if s.command != PACKET:
            super().block_ended()
        elif s.direction == "out":
            s.packet, s.direction = bytes(s.buffer), ""
            self._later("packet", COMMAND_NS)
        else:
            s.direction = ""
            self._later("block" if s.data or s.frames else "complete", BLOCK_NS)

    def _execute(self) -> None:
        s = self.state
        code = s.packet[0]
        s.error, s.frames, s.data = 0, 0, b""
        handler = self._packets.get(code)
        try:
            if s.attention != NO_SENSE and code not in (0x03, 0x12, 0x46, 0x4A):
                attention, s.attention = s.attention, NO_SENSE
                raise PacketError(attention)
            if handler is None:
                raise PacketError(INVALID_COMMAND)
            if code != 0x03:
                s.sense = NO_SENSE
            s.data = handler(self, s.packet)
        except PacketError as error:
            self._check(error.args[0])
            return
        if s.data or s.frames:
            self._send_block()
        else:
            self._complete()

    def _send_block(self) -> None:
        """Up to the byte count limit; only the last block may be of odd length."""
        s = self.state
        limit = s.limit & ~1 or 2
        try:
            while s.frames and len(s.data) < limit:
                s.data += self.frame(s.lba, s.form)
                s.lba, s.frames = s.lba + 1, s.frames - 1
        except DiskError:
            self._check(UNREADABLE)
            return
        s.buffer, s.data, s.position = s.data[:limit], s.data[limit:], 0
        s.registers[1] = IO
        s.registers[3], s.registers[4] = len(s.buffer) & 0xFF, len(s.buffer) >> 8
        s.direction, s.status = "in", DRDY | DSC | DRQ
        self._interrupt()

    def _complete(self) -> None:
        s = self.state
        s.registers[1] = COD | IO
        self.done()

    def _check(self, sense: tuple[int, int, int]) -> None:
        """CHECK CONDITION: the error register has the sense key."""
        s = self.state
        s.sense, s.data, s.frames = sense, b"", 0
        s.registers[1] = COD | IO
        s.error, s.status, s.direction = sense[0] << 4 | ABRT, DRDY | DSC | ERR, ""
        self._interrupt()

    # -- the disc

    def need_medium(self) -> None:
        """Raises PacketError with the tray open."""
        if self.state.open:
            raise PacketError(TRAY_OPEN)

    def begin_frames(self, lba: int, count: int, form: int = 0x10) -> None:
        """`count` frames follow the answer. `form` is READ CD's byte 9. Raises PacketError."""
        self.need_medium()
        if lba + count > self.frames:
            raise PacketError(OUT_OF_RANGE)
        s = self.state
        s.lba, s.frames, s.form = lba, count, form

    def frame(self, lba: int, form: int = 0x10) -> bytes:
        """A mode 1 sector's fields as READ CD selects them: sync, header, user data, EDC and ECC. Raises DiskError."""
        first = lba * FRAME // SECTOR
        count = min(FRAME // SECTOR, self.disk.sectors - first)
        user = self.disk.read(first, count).ljust(FRAME, b"\0")
        out = b""
        if form & 0x80:
            out += b"\0" + b"\xff" * 10 + b"\0"
        if form & 0x20:
            out += bytes((*(_bcd(part) for part in msf(lba)), 1))
        if form & 0x10:
            out += user
        if form & 0x08:
            # the image has no EDC and ECC; a drive that has corrected the data may give them as zeros
            out += bytes(288)
        return out

    def identify(self) -> None:
        self.send(identify_packet_data(self))

    def abort_with_signature(self) -> None:
        """What a packet device answers to IDENTIFY DEVICE and READ SECTORS."""
        self.put_signature()
        self.fail(ABRT)


def msf(lba: int) -> tuple[int, int, int]:
    """Minute, second, frame: 75 frames a second, from 2 s before the first sector (MMC-3, table 7)."""
    minute, rest = divmod(lba + 150, 60 * 75)
    return minute, rest // 75, rest % 75


def _bcd(value: int) -> int:
    return (value // 10 % 10) << 4 | value % 10


def identify_packet_data(drive: Cdrom) -> bytes:
    """512 bytes (ATA-6, table 30)."""
    words = [0] * 256
    words[0] = 0x85C0  # ATAPI, CD-ROM, removable, DRQ within 50 us, 12-byte packets
    for first, text in ((10, f"V2ECD{drive.index}".ljust(20)), (23, "1.0".ljust(8)), (27, "V2E CD-ROM".ljust(40))):
        for i in range(0, len(text), 2):
            words[first + i // 2] = ord(text[i]) << 8 | ord(text[i + 1])
    words[49] = 0x0A00  # LBA, IORDY; no DMA
    words[53] = 0x0002  # words 64-70 are valid
    words[64] = 0x0003
    words[67] = words[68] = 120
    words[80] = 0x0070  # ATA-4 to ATA-6
    words[82] = words[85] = 0x4210  # NOP, DEVICE RESET, PACKET
    words[83] = words[84] = words[87] = 0x4000
    return b"".join(word.to_bytes(2, "little") for word in words)


def _packet(drive: Drive) -> None:
    assert isinstance(drive, Cdrom)
    drive.accept_packet()


def _identify(drive: Drive) -> None:
    assert isinstance(drive, Cdrom)
    drive.identify()


def _abort(drive: Drive) -> None:
    assert isinstance(drive, Cdrom)
    drive.abort_with_signature()


#: Of the disk's commands a packet device has NOP, power management, FLUSH CACHE and SET FEATURES.
_COMMANDS: dict[int, Callable[[Drive], None]] = {
    **{code: DISK_COMMANDS[code] for code in (0x00, 0xE0, 0xE1, 0xE2, 0xE3, 0xE5, 0xE6, 0xE7, 0xEF)},
    PACKET: _packet,
    IDENTIFY_PACKET: _identify,
    0xEC: _abort,
    0x20: _abort,
}
