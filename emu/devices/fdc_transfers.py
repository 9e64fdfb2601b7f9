"""The 82077AA's commands that touch sectors: read, write, scan, verify, read track, read ID, format.

Source: Intel 82077AA data sheet, 5.1 "Data transfer commands", "Read ID", tables of ST1, ST2 and of the result
phase's C, H, R, N. Each sector is found when its ID field passes the head, and is done when its data field has.
"""

from __future__ import annotations

from collections.abc import Sequence

from emu.clock import Clock
from emu.devices.dma8237 import DmaPair
from emu.devices.fdc82077_registers import (
    BC,
    CM,
    DD,
    DE,
    DOR_DMAGATE,
    EIS,
    EN,
    IC_ABNORMAL,
    MA,
    ND,
    NW,
    OR,
    SEEK_END,
    SH,
    SN,
    WC,
    Operation,
    State,
)
from emu.devices.floppy_drive import HASTE, FloppyDrive, SectorId
from emu.media import DiskError
from emu.typed import Protocol

READ_TRACK, WRITE, READ, WRITE_DELETED, READ_ID, READ_DELETED, FORMAT = 0x02, 0x05, 0x06, 0x09, 0x0A, 0x0C, 0x0D
SCAN_EQUAL, VERIFY, SCAN_LOW, SCAN_HIGH = 0x11, 0x16, 0x19, 0x1D
_SCANS = (SCAN_EQUAL, SCAN_LOW, SCAN_HIGH)
_WRITES = (WRITE, WRITE_DELETED)

#: Opcode without MT, MFM and SK: (bytes of the command, which of bits 7-5 it has).
TRANSFERS = {
    READ_TRACK: (9, 0x40), WRITE: (9, 0xC0), READ: (9, 0xE0), WRITE_DELETED: (9, 0xC0), READ_ID: (2, 0x40),
    READ_DELETED: (9, 0xE0), FORMAT: (6, 0x40), SCAN_EQUAL: (9, 0xE0), VERIFY: (9, 0xE0), SCAN_LOW: (9, 0xE0),
    SCAN_HIGH: (9, 0xE0),
}  # fmt: skip


class Chip(Protocol):
    """What the transfers need of the chip around them."""

    state: State

    @property
    def rate(self) -> int: ...
    def selected(self, unit: int) -> FloppyDrive | None: ...
    def turning(self, unit: int) -> FloppyDrive | None: ...
    def step_ns(self, steps: int) -> int: ...
    def set_interrupt(self, level: bool) -> None: ...
    def finish(self, results: Sequence[int], interrupt: bool = True) -> None: ...


class Transfers:
    """The data part of the chip. Its state is the operation in the chip's."""

    def __init__(self, chip: Chip, clock: Clock, dma: DmaPair, channel: int) -> None:
        self._chip, self._clock, self._dma, self._channel = chip, clock, dma, channel
        self._timer = clock.timer("fdc.transfer", self._due)
        self._moved = 0  # of the DMA request under way
        self._data: bytes | None = None
        self._wanted = 0
        self._got = b""
        dma.connect(channel, self._acknowledged)

    def stop(self) -> None:
        self._timer.cancel()

    # -- begin

    def begin(self, command: list[int]) -> None:
        s = self._chip.state
        code = command[0]
        op = s.operation = Operation(
            code & 0x1F, bool(code & 0x80), bool(code & 0x40), bool(code & 0x20), command[1] & 3, command[1] >> 2 & 1
        )
        if op.code == FORMAT:
            op.n, op.eot, op.dtl = command[2], command[3], command[5]
        elif op.code != READ_ID:
            op.c, op.h, op.r, op.n, op.eot, _, op.dtl = command[2:]
        s.last_eot = op.eot
        wait = 0
        if s.config & EIS and op.code not in (FORMAT, READ_ID):
            steps = op.c - s.pcn[op.unit]
            if (drive := self._chip.selected(op.unit)) is not None:
                drive.step(steps)
            s.pcn[op.unit] = op.c
            wait = self._chip.step_ns(steps)
        now = self._clock.now
        if now > s.loaded_until:
            wait = max(wait, (s.head_load or 128) * 1_000_000_000 // self._chip.rate // HASTE)
        self._later("settle", now + wait)

    def _later(self, step: str, when: int) -> None:
        op = self._chip.state.operation
        assert op is not None
        op.step = step
        self._timer.arm(when)

    def motors_changed(self) -> None:
        """Index pulses may have begun: a command that waits for them goes on."""
        op = self._chip.state.operation
        if op is not None and op.step == "wait" and self._chip.turning(op.unit) is not None:
            self._search(op)

    def _due(self, _deadline: int) -> None:
        op = self._chip.state.operation
        assert op is not None
        drive = self._chip.turning(op.unit)
        if op.step == "settle":
            self._search(op)
        elif drive is None:
            op.step = "wait"
        elif op.step == "id":
            self._found(op, drive)
        elif op.step == "data":
            self._passed(op, drive)
        elif op.step == "window":
            self._fail(op, st1=OR)
        elif op.step == "index":
            self._format_begins(op, drive)
        elif op.step == "formatted":
            self._formatted(op, drive)
        else:
            self._not_found(op, drive)

    # -- the search for an ID field

    def _search(self, op: Operation) -> None:
        drive = self._chip.turning(op.unit)
        if drive is None:
            op.step = "wait"  # no index pulses: only a reset or the motor ends this
            return
        now = self._clock.now
        if op.code in (*_WRITES, FORMAT) and drive.disk.write_protected:
            self._fail(op, st1=NW)
            return
        if op.code == FORMAT:
            self._later("index", drive.next_index(now))
            return
        ids = self._ids(op, drive)
        if not ids:
            self._later("lost", drive.next_index(now, 2))
            return
        passes = drive.passes(now, len(ids), self._chip.rate)
        if op.code == READ_TRACK:
            # from the index hole on, in the order on the track
            target: int | None = op.count if op.count < len(ids) else 0
            if op.count == 0:
                passes = drive.passes(drive.next_index(now), len(ids), self._chip.rate)
        elif op.code == READ_ID:
            target = passes[0][1]
        else:
            wanted = SectorId(op.c, op.h, op.r, op.n)
            target = ids.index(wanted) if wanted in ids else None
        if target is None:
            self._later("lost", drive.next_index(now, 2))
            return
        op.index = target
        self._later("id", next(when for when, index in passes if index == target))

    def _density(self, op: Operation) -> int:
        """The rate, kbit/s; negative for single density (FM)."""
        return self._chip.rate if op.mfm else -self._chip.rate

    def _ids(self, op: Operation, drive: FloppyDrive) -> tuple[SectorId, ...]:
        """The ID fields that can be read now."""
        return drive.ids(op.head, self._density(op))

    def _not_found(self, op: Operation, drive: FloppyDrive) -> None:
        """Two index pulses have passed."""
        ids = self._ids(op, drive)
        if not ids:
            self._fail(op, st1=MA)
            return
        on_track = ids[-1].c
        st2 = 0 if on_track == op.c else BC if on_track == 0xFF else WC
        self._fail(op, st1=ND, st2=st2)

    def _found(self, op: Operation, drive: FloppyDrive) -> None:
        ids = self._ids(op, drive)
        if op.index >= len(ids):
            self._search(op)  # the data rate has changed meanwhile
            return
        if op.code == READ_ID:
            op.c, op.h, op.r, op.n = ids[op.index]
            self._end(op)
            return
        end = self._clock.now + drive.data_ns(_size(op), self._chip.rate)
        if op.code in _WRITES:
            self._fetch(op, self._length(op), end)
        else:
            self._later("data", end)

    def _length(self, op: Operation) -> int:
        """Bytes of a sector that the host moves: with N = 0, DTL says how many."""
        return min(op.dtl, 128) if op.n == 0 and op.code not in _SCANS else _size(op)

    # -- a sector has passed

    def _passed(self, op: Operation, drive: FloppyDrive) -> None:
        s = self._chip.state
        if op.code in _WRITES:
            # what the host did not give after TC is zeros
            data = s.buffer.ljust(_size(op), b"\0")
            try:
                drive.write(op.head, op.index, data, deleted=op.code == WRITE_DELETED)
            except DiskError:
                self._fail(op, st1=DE, st2=DD)
                return
            self._next(op)
            return
        try:
            data = drive.read(op.head, op.index, _size(op))
        except DiskError:
            self._fail(op, st1=DE, st2=DD)
            return
        if op.code == READ_TRACK:
            ids = self._ids(op, drive)
            if op.index < len(ids) and ids[op.index] != (op.c, op.h, op.r, op.n):
                op.st1 |= ND
        else:
            marked = drive.is_deleted(op.head, op.index)
            if marked != (op.code == READ_DELETED):
                op.st2 |= CM
                if op.skip:
                    self._next(op, skipped=True)
                    return
        if op.code == VERIFY:
            self._next(op)
        elif op.code in _SCANS:
            s.buffer = data
            self._fetch(op, self._length(op), self._clock.now + drive.data_ns(_size(op), self._chip.rate))
        else:
            self._give(op, data[: self._length(op)], drive)

    def _next(self, op: Operation, skipped: bool = False) -> None:
        """The sector is done. On to the next one, or to the end."""
        op.count += 1
        scan = op.code in _SCANS
        track_ends = (op.count if op.code == READ_TRACK else op.r + _stride(op) - 1) >= op.eot
        if op.r > op.eot and op.code != READ_TRACK:
            track_ends = False  # EOT is behind: the search will find no such sector
        last = track_ends and not (op.mt and not op.head)
        marked = bool(op.st2 & CM) and not op.skip
        met = scan and not skipped and not op.st2 & SN
        if op.code == VERIFY and self._verify_is_done(op, last):
            op.ended = True
        if op.ended or marked or met:
            # behind the other kind of data mark: "Address not incremented. Next sector not searched for."
            if not marked:
                self._step_address(op, track_ends)
            self._end(op)
        elif last and scan:
            self._end(op)
        elif last and op.code == READ_TRACK:
            self._end(op, st0=IC_ABNORMAL if op.st1 else 0)
        elif last:
            self._step_address(op, track_ends)
            self._fail(op, st1=EN)
        else:
            self._step_address(op, track_ends)
            self._search(op)

    def _verify_is_done(self, op: Operation, last: bool) -> bool:
        """VERIFY's proper end: SC sectors (in DTL's place) with EC set, EOT without."""
        counts = bool(self._chip.state.bytes_in[1] & 0x80)
        return op.count >= op.dtl if counts else last

    def _step_address(self, op: Operation, track_ends: bool) -> None:
        """C, H and R of the sector after this one (data sheet, "Result phase table")."""
        if not track_ends:
            op.r = op.r + _stride(op) & 0xFF
            return
        op.r = 1
        if op.mt:
            if op.head:
                op.c = op.c + 1 & 0xFF
            op.head ^= 1
            op.h ^= 1
        else:
            op.c = op.c + 1 & 0xFF

    # -- data to and from the host

    def _give(self, op: Operation, data: bytes, drive: FloppyDrive) -> None:
        """A sector to the host."""
        s = self._chip.state
        if s.non_dma and data:
            s.buffer, s.position, s.direction = data, 0, "in"
            self._chip.set_interrupt(True)
            self._later("window", self._clock.now + HASTE * drive.data_ns(_size(op), self._chip.rate))
            return
        if self._request(op, data, len(data)) < len(data) and not op.ended:
            self._fail(op, st1=OR)
        else:
            self._next(op)

    def _fetch(self, op: Operation, length: int, end: int) -> None:
        """Bytes from the host; they must be there at `end`."""
        s = self._chip.state
        if s.non_dma and length:
            self._got, s.position, s.direction = b"", length, "out"
            self._chip.set_interrupt(True)
            self._later("window", max(end, self._clock.now + HASTE * length * 8_000_000 // self._chip.rate))
            return
        if self._request(op, None, length) < length and not op.ended:
            self._fail(op, st1=OR)
            return
        self._arrived(op, self._got, end)

    def _arrived(self, op: Operation, data: bytes, end: int) -> None:
        s = self._chip.state
        if op.code in _SCANS:
            self._compare(op, s.buffer, data)
        elif op.code == FORMAT:
            s.buffer = data
            self._later("formatted", end)
        else:
            s.buffer = data
            self._later("data", end)

    def _request(self, op: Operation, data: bytes | None, length: int) -> int:
        """DREQ until the bytes have moved, as far as the DMA controller serves it. How many moved."""
        self._data, self._wanted, self._moved, self._got = data, length, 0, b""
        if self._chip.state.dor & DOR_DMAGATE:
            self._dma.request(self._channel, True)
            self._dma.request(self._channel, False)
        self._wanted = 0
        return self._moved

    def _acknowledged(self) -> None:
        op = self._chip.state.operation
        left = self._wanted - self._moved
        if op is None or left <= 0 or op.ended:
            return
        piece = None if self._data is None else self._data[self._moved :]
        moved = self._dma.transfer(self._channel, piece, left)
        self._moved += moved.count
        self._got += moved.data
        op.ended = moved.tc

    def pio_done(self) -> None:
        """The host has read the last byte of a sector."""
        s = self._chip.state
        s.direction = ""
        self._chip.set_interrupt(False)
        assert s.operation is not None
        self._timer.cancel()
        self._next(s.operation)

    def pio_byte(self, value: int) -> None:
        """A byte of data from the host."""
        s = self._chip.state
        op = s.operation
        assert op is not None
        self._got += bytes((value,))
        if len(self._got) < s.position:
            return
        s.direction = ""
        self._timer.cancel()
        self._chip.set_interrupt(False)
        self._arrived(op, self._got, self._clock.now)

    # -- scan and format

    def _compare(self, op: Operation, disk: bytes, host: bytes) -> None:
        """Byte by byte; FFh on either side matches anything."""
        pairs = [(d, h) for d, h in zip(disk, host, strict=False) if d != 0xFF and h != 0xFF]
        if all(d == h for d, h in pairs):
            op.st2 = op.st2 & ~SN | SH
        elif (op.code == SCAN_LOW and all(d <= h for d, h in pairs)) or (
            op.code == SCAN_HIGH and all(d >= h for d, h in pairs)
        ):
            op.st2 &= ~(SN | SH)
        else:
            op.st2 = op.st2 & ~SH | SN
        self._next(op)

    def _format_begins(self, op: Operation, drive: FloppyDrive) -> None:
        self._fetch(op, 4 * op.eot, drive.next_index(self._clock.now))

    def _formatted(self, op: Operation, drive: FloppyDrive) -> None:
        data = self._chip.state.buffer
        ids = tuple(SectorId(*data[i : i + 4]) for i in range(0, len(data) // 4 * 4, 4))
        # what does not fit on the track would overwrite its beginning
        room = drive.revolution_ns * HASTE * self._chip.rate // 8_000_000
        fit = room // (_size(op) + 62)
        try:
            drive.format_track(op.head, ids[:fit], self._density(op), op.dtl, _size(op))
        except DiskError:
            self._fail(op, st1=DE, st2=DD)
            return
        self._end(op)

    # -- the end

    def _fail(self, op: Operation, st1: int, st2: int = 0) -> None:
        op.st1 |= st1
        op.st2 |= st2
        self._end(op, st0=IC_ABNORMAL)

    def _end(self, op: Operation, st0: int = 0) -> None:
        s = self._chip.state
        self._timer.cancel()
        s.buffer, s.direction = b"", ""
        # HUT is in units of 16 ms at 500 kbit/s, 0 the longest
        s.loaded_until = self._clock.now + (s.head_unload or 16) * 8_000_000_000 // self._chip.rate
        if s.config & EIS and op.code not in (FORMAT, READ_ID):
            st0 |= SEEK_END
        st0 |= op.head << 2 | op.unit
        self._chip.finish([st0, op.st1, op.st2, op.c, op.h, op.r, op.n])


def _stride(op: Operation) -> int:
    """SCAN's STP, in DTL's place, says whether every sector or every second one is read."""
    return 2 if op.code in _SCANS and op.dtl == 2 else 1


def _size(op: Operation) -> int:
    """Bytes of a sector's data field."""
    return 128 << (op.n & 7)
