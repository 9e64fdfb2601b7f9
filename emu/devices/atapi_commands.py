"""The packets a CD-ROM drive carries out, by operation code.

Sources: MMC-3 (T10 1363D) clause 5 "Commands for CD/DVD devices", 5.20 "READ CD", 5.23 "READ TOC/PMA/ATIP"; SPC-2 (T10
1236D) clause 7 for INQUIRY, REQUEST SENSE, TEST UNIT READY, PREVENT ALLOW MEDIUM REMOVAL; SFF-8020i for MODE SENSE page
2Ah. A disc is one session of one data track.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.devices.ide_cdrom import (
    FRAME,
    INVALID_FIELD,
    MEDIUM_CHANGED,
    NO_SENSE,
    OUT_OF_RANGE,
    REMOVAL_PREVENTED,
    WRONG_TRACK_MODE,
    Cdrom,
    PacketError,
    msf,
)

LEAD_OUT = 0xAA
DATA_TRACK = 0x14  #: ADR 1, control 4: a data track, copying prohibited
SPEED = 4 * 176  #: kB/s


def _word(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 2], "big")


def _long(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 4], "big")


def _test_unit_ready(drive: Cdrom, packet: bytes) -> bytes:
    drive.need_medium()
    return b""


def _request_sense(drive: Cdrom, packet: bytes) -> bytes:
    """A unit attention is reported here too; what was reported is forgotten."""
    s = drive.state
    key, code, qualifier = s.sense if s.sense != NO_SENSE else s.attention
    if s.sense == NO_SENSE:
        s.attention = NO_SENSE
    s.sense = NO_SENSE
    return bytes((0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, qualifier, 0, 0, 0, 0))[: packet[4]]


def _inquiry(drive: Cdrom, packet: bytes) -> bytes:
    if packet[1] & 3 or packet[2]:
        raise PacketError(INVALID_FIELD)
    head = bytes((5, 0x80, 0, 0x21, 31, 0, 0, 0))  # CD-ROM, removable, ATAPI response format
    return (head + b"V2E     " + b"CD-ROM          " + b"1.0 ")[: packet[4]]


def _start_stop(drive: Cdrom, packet: bytes) -> bytes:
    """LoEj with Start loads the disc, without ejects it."""
    s = drive.state
    if packet[4] & 2:
        load = bool(packet[4] & 1)
        if not load and s.prevented:
            raise PacketError(REMOVAL_PREVENTED)
        if not load:
            drive.eject()
        elif s.open:
            s.attention, s.event, s.open = MEDIUM_CHANGED, 2, False
    return b""


def _prevent_allow(drive: Cdrom, packet: bytes) -> bytes:
    drive.state.prevented = bool(packet[4] & 1)
    return b""


def _read_capacity(drive: Cdrom, packet: bytes) -> bytes:
    drive.need_medium()
    return (drive.frames - 1).to_bytes(4, "big") + FRAME.to_bytes(4, "big")


def _read_10(drive: Cdrom, packet: bytes) -> bytes:
    drive.begin_frames(_long(packet, 2), _word(packet, 7))
    return b""


def _read_12(drive: Cdrom, packet: bytes) -> bytes:
    drive.begin_frames(_long(packet, 2), _long(packet, 6))
    return b""


def _read_fields(drive: Cdrom, lba: int, count: int, packet: bytes) -> bytes:
    expected = packet[1] >> 2 & 7
    form = packet[9] & 0xF8
    if expected not in (0, 2):  # any, or mode 1
        raise PacketError(WRONG_TRACK_MODE)
    if packet[9] & 0x06 or packet[10] & 7:  # C2 error bits and sub-channels are not on the image
        raise PacketError(INVALID_FIELD)
    header = packet[9] >> 5 & 3
    form = form & ~0x60 | (0x20 if header & 1 else 0)
    if not form:
        drive.need_medium()
        return b""
    drive.begin_frames(lba, count, form)
    return b""


def _read_cd(drive: Cdrom, packet: bytes) -> bytes:
    return _read_fields(drive, _long(packet, 2), int.from_bytes(packet[6:9], "big"), packet)


def _read_cd_msf(drive: Cdrom, packet: bytes) -> bytes:
    start, end = (_lba(packet[at : at + 3]) for at in (3, 6))
    if start < 0 or end < start:
        raise PacketError(INVALID_FIELD)
    return _read_fields(drive, start, end - start, packet)


def _lba(part: bytes) -> int:
    return (part[0] * 60 + part[1]) * 75 + part[2] - 150


def _seek(drive: Cdrom, packet: bytes) -> bytes:
    drive.need_medium()
    if _long(packet, 2) >= drive.frames:
        raise PacketError(OUT_OF_RANGE)
    return b""


def _address(lba: int, as_msf: bool) -> bytes:
    return bytes((0, *msf(lba))) if as_msf else lba.to_bytes(4, "big")


def _read_toc(drive: Cdrom, packet: bytes) -> bytes:
    """Format 0: tracks, 1: sessions, 2: the lead-in's full table. Old drivers have the format in byte 9, bits 7-6."""
    drive.need_medium()
    as_msf, first, length = bool(packet[1] & 2), packet[6], _word(packet, 7)
    kind = packet[2] & 15 or packet[9] >> 6
    if kind == 0:
        if 1 < first != LEAD_OUT:
            raise PacketError(INVALID_FIELD)
        body = b"\1\1"
        if first <= 1:
            body += bytes((0, DATA_TRACK, 1, 0)) + _address(0, as_msf)
        body += bytes((0, DATA_TRACK, LEAD_OUT, 0)) + _address(drive.frames, as_msf)
    elif kind == 1:
        body = b"\1\1" + bytes((0, DATA_TRACK, 1, 0)) + _address(0, as_msf)
    elif kind == 2:
        points = ((0xA0, (1, 0, 0)), (0xA1, (1, 0, 0)), (0xA2, msf(drive.frames)), (1, msf(0)))
        body = b"\1\1" + b"".join(bytes((1, DATA_TRACK, 0, point, 0, 0, 0, 0, *at)) for point, at in points)
    else:
        raise PacketError(INVALID_FIELD)
    return (len(body).to_bytes(2, "big") + body)[:length]


def _read_header(drive: Cdrom, packet: bytes) -> bytes:
    lba = _long(packet, 2)
    _seek(drive, packet)
    return (bytes((1, 0, 0, 0)) + _address(lba, bool(packet[1] & 2)))[: _word(packet, 7)]


def _read_sub_channel(drive: Cdrom, packet: bytes) -> bytes:
    """No audio plays; the position is that of the disc's begin."""
    drive.need_medium()
    body = b""
    if packet[2] & 0x40:
        if packet[3] != 1:
            raise PacketError(INVALID_FIELD)
        as_msf = bool(packet[1] & 2)
        body = bytes((1, DATA_TRACK, 1, 1)) + _address(0, as_msf) + _address(0, as_msf)
    return (bytes((0, 0x15)) + len(body).to_bytes(2, "big") + body)[: _word(packet, 7)]


def _read_disc_information(drive: Cdrom, packet: bytes) -> bytes:
    drive.need_medium()
    body = bytearray(34)
    body[0:2] = (32).to_bytes(2, "big")
    body[2] = 0x0E  # finalized, last session complete
    body[3:7] = bytes((1, 1, 1, 1))
    body[7] = 0x20  # unrestricted use
    body[16:24] = b"\xff" * 8
    return bytes(body)[: _word(packet, 7)]


#: Feature code, persistent and current bits, data (MMC-3, 5.6 and clause 4.3).
_FEATURES: tuple[tuple[int, int, bytes], ...] = (
    (0x0000, 3, b"\0\x08\1\0"),  # profile list: CD-ROM, current
    (0x0001, 0x0B, b"\0\0\0\2\0\0\0\0"),  # core, ATAPI
    (0x0002, 3, b"\0\0\0\0"),  # morphing
    (0x0003, 3, b"\x29\0\0\0"),  # removable medium, tray: lock, eject
    (0x0010, 1, FRAME.to_bytes(4, "big") + b"\0\1\0\0"),  # random readable
    (0x001E, 1, b"\0\0\0\0"),  # CD read
    (0x0100, 3, b""),  # power management
)


def _get_configuration(drive: Cdrom, packet: bytes) -> bytes:
    first, kind = _word(packet, 2), packet[1] & 3
    if kind == 3:
        raise PacketError(INVALID_FIELD)
    present = not drive.state.open
    body = b""
    for code, flags, data in _FEATURES:
        current = flags & 2 or (present and flags & 1)
        if (kind == 2 and code != first) or (kind != 2 and code < first) or (kind == 1 and not current):
            continue
        if code == 0 and not present:
            data = data[:2] + b"\0\0"
        mark = flags & ~1 | (1 if current else 0)
        body += code.to_bytes(2, "big") + bytes((mark, len(data))) + data
    profile = 8 if present else 0
    head = (4 + len(body)).to_bytes(4, "big") + bytes(2) + profile.to_bytes(2, "big")
    return (head + body)[: _word(packet, 7)]


def _get_event(drive: Cdrom, packet: bytes) -> bytes:
    """Polled only. Media events: 2 new media, 3 removed; bit 1 of the status says that a disc is there."""
    s = drive.state
    if not packet[1] & 1:
        raise PacketError(INVALID_FIELD)
    if not packet[4] & 0x10:
        return bytes((0, 2, 0x80, 0x10))[: _word(packet, 7)]
    event, s.event = s.event, 0
    status = 1 if s.open else 2
    return bytes((0, 6, 4, 0x10, event, status, 0, 0))[: _word(packet, 7)]


_PAGES = {
    0x01: bytes((0x01, 6, 0, 5, 0, 0, 0, 0)),  # error recovery: five retries
    0x0D: bytes((0x0D, 6, 0, 0, 0, 60, 0, 75)),  # 60 seconds a minute, 75 frames a second
    0x0E: bytes((0x0E, 14, 4, 0, 0, 0, 0, 75, 1, 0xFF, 2, 0xFF, 0, 0, 0, 0)),
}


def _capabilities(drive: Cdrom) -> bytes:
    lock = 0x29 | (2 if drive.state.prevented else 0)  # tray; may be locked, and is
    body = bytes((0, 0, 0x00, 0x00, lock, 0)) + SPEED.to_bytes(2, "big") + b"\0\2" + b"\0\x80"
    return bytes((0x2A, 18)) + (body + SPEED.to_bytes(2, "big")).ljust(18, b"\0")


def _mode_sense(drive: Cdrom, packet: bytes) -> bytes:
    page, control = packet[2] & 0x3F, packet[2] >> 6
    if control == 3:
        raise PacketError((5, 0x39, 0x00))  # saving parameters is not supported
    pages = {**_PAGES, 0x2A: _capabilities(drive)}
    if page != 0x3F and page not in pages:
        raise PacketError(INVALID_FIELD)
    body = b"".join(data for code, data in pages.items() if page in (code, 0x3F))
    if control == 1:  # nothing can be changed
        body = b"".join(d[:2] + bytes(len(d) - 2) for code, d in pages.items() if page in (code, 0x3F))
    medium = 0x70 if drive.state.open else 0x01
    return ((6 + len(body)).to_bytes(2, "big") + bytes((medium, 0, 0, 0, 0, 0)) + body)[: _word(packet, 7)]


def _mechanism_status(drive: Cdrom, packet: bytes) -> bytes:
    return bytes((0, 0x10 if drive.state.open else 0, 0, 0, 0, 1, 0, 0))[: _word(packet, 8)]


def _nothing(drive: Cdrom, packet: bytes) -> bytes:
    """SET CD SPEED and STOP PLAY change nothing that a guest can see."""
    return b""


PACKETS: dict[int, Callable[[Cdrom, bytes], bytes]] = {
    0x00: _test_unit_ready,
    0x03: _request_sense,
    0x12: _inquiry,
    0x1B: _start_stop,
    0x1E: _prevent_allow,
    0x25: _read_capacity,
    0x28: _read_10,
    0x2B: _seek,
    0x42: _read_sub_channel,
    0x43: _read_toc,
    0x44: _read_header,
    0x46: _get_configuration,
    0x4A: _get_event,
    0x4E: _nothing,
    0x51: _read_disc_information,
    0x5A: _mode_sense,
    0xA8: _read_12,
    0xB9: _read_cd_msf,
    0xBB: _nothing,
    0xBD: _mechanism_status,
    0xBE: _read_cd,
}
