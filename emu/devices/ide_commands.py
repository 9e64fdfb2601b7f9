"""The ATA commands a PIO hard disk carries out, by opcode; what is not here is aborted, as the standard wants.

Source: ATA-6 (T13 1410D) clause 8, one function a command; opcodes 94h-99h, 1xh, 21h, 31h, 41h, 7xh, 91h: ATA-1 to 4.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.devices.ide_drive import ABRT, DF, IDNF, LBA, MAX_LBA28, MAX_MULTIPLE, UNC, Drive, is_ext
from emu.devices.ide_identify import identify_data
from emu.media import DiskError

SECOND = 1_000_000_000
MINUTE = 60 * SECOND


def _read_sectors(drive: Drive) -> None:
    drive.begin("in", 1)


def _write_sectors(drive: Drive) -> None:
    drive.begin("out", 1)


def _read_dma(drive: Drive) -> None:
    drive.begin_dma("dma in")


def _write_dma(drive: Drive) -> None:
    drive.begin_dma("dma out")


def _read_multiple(drive: Drive) -> None:
    if drive.state.multiple:
        drive.begin("in", drive.state.multiple)
    else:
        drive.fail(ABRT)


def _write_multiple(drive: Drive) -> None:
    if drive.state.multiple:
        drive.begin("out", drive.state.multiple)
    else:
        drive.fail(ABRT)


def _set_multiple(drive: Drive) -> None:
    """A power of two up to the maximum of IDENTIFY DEVICE word 47; 0 disables."""
    count = drive.state.registers[1]
    if count & (count - 1) or count > MAX_MULTIPLE:
        drive.state.multiple = 0
        drive.fail(ABRT)
    else:
        drive.state.multiple = count
        drive.done()


def _verify(drive: Drive) -> None:
    """Reads without transferring; stops at the first sector that cannot be read."""
    s = drive.state
    s.power = "active"
    ext = is_ext(s.command)
    lba, count = drive.address(ext), drive.count(ext)
    if lba is None or lba >= drive.disk.sectors:
        drive.fail(IDNF)
        return
    good = min(count, drive.disk.sectors - lba)
    for at in range(lba, lba + good, 256):
        try:
            drive.disk.read(at, min(256, lba + good - at))
        except DiskError as error:
            drive.put_address(at if error.lba is None else error.lba, ext)
            drive.fail(UNC)
            return
    if good < count:
        drive.put_address(drive.disk.sectors, ext)
        drive.fail(IDNF)
        return
    drive.put_address(lba + count - 1, ext)
    s.registers[1] = 0
    drive.done()


def _seek(drive: Drive) -> None:
    lba = drive.address(ext=False)
    if lba is None or lba >= drive.disk.sectors:
        drive.fail(IDNF)
    else:
        drive.done()


def _recalibrate(drive: Drive) -> None:
    """To cylinder 0: the registers then hold CHS 0/0/1, or LBA 0."""
    drive.put_address(0, ext=False)
    drive.done()


def _identify(drive: Drive) -> None:
    drive.send(identify_data(drive))


def _initialize_parameters(drive: Drive) -> None:
    """A CHS translation of `count` sectors and device bits 3-0 + 1 heads."""
    s = drive.state
    sectors, heads = s.registers[1], (s.device & 15) + 1
    if not 1 <= sectors <= 63 or heads * sectors > drive.disk.sectors:
        drive.fail(ABRT)
        return
    s.heads, s.sectors = heads, sectors
    drive.done()


def _flush(drive: Drive) -> None:
    try:
        drive.disk.flush()
    except DiskError:
        drive.fail(ABRT, DF)
    else:
        drive.done()


def _set_features(drive: Drive) -> None:
    s = drive.state
    subcommand, count = s.registers[0], s.registers[1]
    if subcommand in (0x02, 0x82):
        s.write_cache = subcommand == 0x02
        if not s.write_cache:
            _flush(drive)
            return
    elif subcommand in (0xAA, 0x55):
        s.look_ahead = subcommand == 0xAA
    elif subcommand in (0xCC, 0x66):
        s.revert = subcommand == 0xCC
    elif subcommand == 0x03 and (count in (0, 1) or 0x08 <= count <= 0x0C):
        s.pio_mode = count & 7 if count >= 8 else 0  # 00001b mmm: PIO flow control mode; 0 and 1: the default
    elif subcommand == 0x03 and drive.dma is not None and (count in range(0x20, 0x23) or count in range(0x40, 0x43)):
        s.dma_mode = count
    else:
        drive.fail(ABRT)
        return
    drive.done()


def _nop(drive: Drive) -> None:
    """Always aborted; that is its use (ATA-6, 8.18)."""
    drive.fail(ABRT)


def _native_max(drive: Drive) -> None:
    """The last sector, as LBA. Needs the LBA bit."""
    s = drive.state
    if not s.device & LBA:
        drive.fail(ABRT)
        return
    ext = is_ext(s.command)
    last = drive.disk.sectors - 1
    drive.put_address(last if ext else min(last, MAX_LBA28), ext)
    drive.done()


def _power(mode: str) -> Callable[[Drive], None]:
    def run(drive: Drive) -> None:
        drive.state.power = mode
        drive.done()

    return run


def _timed_power(mode: str) -> Callable[[Drive], None]:
    """IDLE and STANDBY also set the standby timer from the count register (ATA-6, table 9)."""

    def run(drive: Drive) -> None:
        s = drive.state
        count = s.registers[1]
        if count <= 240:
            s.standby = count * 5 * SECOND
        elif count <= 251:
            s.standby = (count - 240) * 30 * MINUTE
        elif count == 252:
            s.standby = 21 * MINUTE
        elif count == 255:
            s.standby = 21 * MINUTE + 15 * SECOND
        else:
            s.standby = 8 * 60 * MINUTE  # 253: 8 to 12 hours; 254: reserved
        s.power = mode
        drive.done()

    return run


def _check_power(drive: Drive) -> None:
    s = drive.state
    s.registers[1] = {"active": 0xFF, "idle": 0x80}.get(s.power, 0x00)
    drive.done()


def _read_buffer(drive: Drive) -> None:
    drive.send(drive.state.scratch)


def _write_buffer(drive: Drive) -> None:
    drive.accept()


#: EXECUTE DEVICE DIAGNOSTIC (90h) is the channel's: both devices run it.
COMMANDS: dict[int, Callable[[Drive], None]] = {
    0x00: _nop,
    **dict.fromkeys(range(0x10, 0x20), _recalibrate),
    0x20: _read_sectors, 0x21: _read_sectors, 0x24: _read_sectors,
    0xC8: _read_dma, 0xC9: _read_dma, 0x25: _read_dma,
    0xCA: _write_dma, 0xCB: _write_dma, 0x35: _write_dma,
    0x27: _native_max, 0xF8: _native_max,
    0x29: _read_multiple, 0xC4: _read_multiple,
    0x30: _write_sectors, 0x31: _write_sectors, 0x34: _write_sectors,
    0x39: _write_multiple, 0xC5: _write_multiple,
    0x40: _verify, 0x41: _verify, 0x42: _verify,
    **dict.fromkeys(range(0x70, 0x80), _seek),
    0x91: _initialize_parameters,
    0xC6: _set_multiple,
    0x94: _power("standby"), 0xE0: _power("standby"),
    0x95: _power("idle"), 0xE1: _power("idle"),
    0x96: _timed_power("standby"), 0xE2: _timed_power("standby"),
    0x97: _timed_power("idle"), 0xE3: _timed_power("idle"),
    0x98: _check_power, 0xE5: _check_power,
    0x99: _power("sleep"), 0xE6: _power("sleep"),
    0xE4: _read_buffer, 0xE8: _write_buffer,
    0xE7: _flush, 0xEA: _flush,
    0xEC: _identify,
    0xEF: _set_features,
}  # fmt: skip
