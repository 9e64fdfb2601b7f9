"""virtio-blk as a driver finds it: negotiation, requests of any cut, and drivers that break every rule of the rings."""

from __future__ import annotations

import random
import struct

import pytest

from emu.clock import Clock
from emu.devices import virtio_blk as blk
from emu.devices import virtio_pci as vp
from emu.devices.pci import COMMAND
from emu.devices.virtqueue import INDIRECT, NEXT, WRITE
from emu.media import Disk, DiskError

SECTORS = 64
MEMORY = 1 << 20
#: Where the driver below has its things.
RING, HEADER, DATA, STATUS, TABLE = 0x1000, 0x8000, 0x10000, 0x9000, 0xA000
SIZE = 256


class Ram:
    """1 MiB; nothing beyond it."""

    def __init__(self) -> None:
        self.bytes = bytearray(MEMORY)

    def reaches(self, address: int, length: int) -> bool:
        return address + length <= MEMORY

    def read(self, address: int, length: int) -> bytes | None:
        return bytes(self.bytes[address : address + length]) if self.reaches(address, length) else None

    def write(self, address: int, data: bytes) -> bool:
        if not self.reaches(address, len(data)):
            return False
        self.bytes[address : address + len(data)] = data
        return True


class Driver:
    """A driver of the legacy interface, or with `modern` of the other."""

    def __init__(self, *, modern: bool = False, features: int = 0, disk: Disk | None = None) -> None:
        self.ram, self.now, self.levels = Ram(), 0, [False]
        self.clock = Clock(lambda: self.now)
        pattern = b"".join(bytes((n,)) * 512 for n in range(SECTORS))
        self.disk = disk or Disk.from_bytes(pattern)
        self.chip = blk.VirtioBlk(self.clock, self.ram, self.disk, 0)
        self.chip.on_intx = self.levels.append
        self.chip.config_write(COMMAND, 7, 2)
        self.modern, self.heads = modern, 0
        if modern:
            self.start_modern(features | vp.VERSION_1)
        else:
            self.chip.write_legacy(0x12, 3, 1)
            self.chip.write_legacy(4, features, 4)
            self.chip.write_legacy(8, RING >> 12, 4)
            self.chip.write_legacy(0x12, 7, 1)
        queue = self.chip._state.queues[0]
        self.available, self.used = queue.available, queue.used

    def start_modern(self, features: int) -> None:
        write = self.chip.write_modern
        write(0x14, 3, 1)
        for half in range(2):
            write(8, half, 4)
            write(0xC, features >> 32 * half & 0xFFFFFFFF, 4)
        write(0x14, 0xB, 1)
        assert self.status & vp.FEATURES_OK
        write(0x20, RING, 8)
        write(0x28, RING + 0x1000, 4)
        write(0x2C, 0, 4)
        write(0x30, RING + 0x2000, 8)
        write(0x1C, 1, 2)
        write(0x14, 0xF, 1)

    @property
    def status(self) -> int:
        return self.chip.peek_legacy(0x12, 1)

    def descriptor(
        self, index: int, address: int, length: int, flags: int, following: int = 0, table: int = RING
    ) -> None:
        self.ram.write(table + 16 * index, struct.pack("<QIHH", address, length, flags, following))

    def kick(self, head: int = 0) -> None:
        """Make a chain available, notify, and let the device work."""
        self.ram.write(self.available + 4 + 2 * (self.heads % SIZE), struct.pack("<H", head))
        self.heads += 1
        self.ram.write(self.available + 2, struct.pack("<H", self.heads & 0xFFFF))
        self.notify()

    def notify(self) -> None:
        if self.modern:
            self.chip.write_modern(vp.NOTIFY_AT, 0, 2)
        else:
            self.chip.write_legacy(0x10, 0, 2)
        for _ in range(4):
            self.now += 1000
            self.clock.run_due()

    def request(self, kind: int, sector: int, data: list[tuple[int, int]], writes: bool) -> int:
        """A well formed request; returns its status."""
        self.ram.write(HEADER, struct.pack("<IIQ", kind, 0, sector))
        self.ram.write(STATUS, b"\xee")
        self.descriptor(0, HEADER, 16, NEXT, 1)
        for n, (address, length) in enumerate(data, 1):
            self.descriptor(n, address, length, NEXT | (WRITE if writes else 0), n + 1)
        self.descriptor(len(data) + 1, STATUS, 1, WRITE)
        self.kick()
        return self.ram.bytes[STATUS]

    def last_used(self) -> tuple[int, int, int]:
        """(index of the ring, head, bytes written)."""
        (index,) = struct.unpack("<H", self.ram.bytes[self.used + 2 : self.used + 4])
        at = self.used + 4 + 8 * ((index - 1) % SIZE)
        head, length = struct.unpack("<II", self.ram.bytes[at : at + 8])
        return index, head, length


@pytest.mark.parametrize("modern", (False, True))
def test_reads_and_writes_reach_the_disk_and_interrupt(modern):
    d = Driver(modern=modern)
    assert d.request(blk.T_IN, 5, [(DATA, 1024)], True) == blk.OK
    assert d.ram.read(DATA, 1024) == b"\5" * 512 + b"\6" * 512
    assert d.last_used() == (1, 0, 1025) and d.levels[-1]
    assert d.chip.read_legacy(0x13, 1) == 1 and not d.levels[-1] and d.chip.read_legacy(0x13, 1) == 0
    d.ram.write(DATA, b"new!" * 128)
    assert d.request(blk.T_OUT, 9, [(DATA, 512)], False) == blk.OK
    assert d.disk.read(9, 1) == b"new!" * 128 and d.last_used() == (2, 0, 1)


def test_data_may_be_cut_anywhere_and_header_and_status_too():
    d = Driver()
    d.ram.write(HEADER, struct.pack("<IIQ", blk.T_IN, 0, 1))
    cuts = [(HEADER, 3, 0), (HEADER + 3, 13, 0), (DATA, 1, WRITE), (DATA + 1, 1000, WRITE), (DATA + 1001, 24, WRITE)]
    for n, (address, length, flags) in enumerate(cuts):
        d.descriptor(n, address, length, flags | (NEXT if n < len(cuts) - 1 else 0), n + 1)
    d.kick()
    assert d.ram.read(DATA, 1025) == b"\1" * 512 + b"\2" * 512 + b"\0"


def test_identity_flush_and_unknown_types():
    d = Driver()
    assert d.request(blk.T_GET_ID, 0, [(DATA, 20)], True) == blk.OK
    assert d.ram.read(DATA, 20) == b"v2e-virtio0".ljust(20, b"\0")
    assert d.request(blk.T_FLUSH, 0, [], False) == blk.OK
    assert d.request(0x99, 0, [], False) == blk.UNSUPPORTED


@pytest.mark.parametrize(("sector", "length"), ((SECTORS, 512), (SECTORS - 1, 1024), (1 << 63, 512), (0, 100)))
@pytest.mark.parametrize("kind", (blk.T_IN, blk.T_OUT))
def test_sectors_that_the_disk_has_not_are_errors_of_the_request(sector, length, kind):
    d = Driver()
    before = d.disk.save()
    assert d.request(kind, sector, [(DATA, length)], kind == blk.T_IN) == blk.IOERR
    assert d.disk.save() == before and not d.chip._state.broken
    assert d.request(blk.T_IN, 1, [(DATA, 512)], True) == blk.OK


def test_a_host_that_fails_is_an_error_of_the_request(monkeypatch):
    d = Driver()

    def failing(*_: object) -> bytes:
        raise DiskError("no")

    for name in ("read", "write", "flush"):
        monkeypatch.setattr(d.disk, name, failing)
    assert d.request(blk.T_IN, 0, [(DATA, 512)], True) == blk.IOERR
    assert d.request(blk.T_OUT, 0, [(DATA, 512)], False) == blk.IOERR
    assert d.request(blk.T_FLUSH, 0, [], False) == blk.IOERR


def test_a_protected_disk_says_so_and_refuses():
    d = Driver(disk=Disk.from_bytes(bytes(512 * SECTORS), protected=True))
    assert d.chip.peek_legacy(0, 4) & blk.RO
    assert d.request(blk.T_OUT, 0, [(DATA, 512)], False) == blk.IOERR


def test_features_that_were_not_offered_are_not_taken_and_the_modern_interface_needs_version_1():
    d = Driver(modern=True)
    d.chip.write_modern(0x14, 0, 1)
    assert d.status == 0
    d.chip.write_modern(0x14, 3, 1)
    d.chip.write_modern(8, 0, 4)
    d.chip.write_modern(0xC, 0xFFFFFFFF, 4)
    assert d.chip.read_modern(0xC, 4) == d.chip.offered & 0xFFFFFFFF
    d.chip.write_modern(0x14, 0xB, 1)
    assert not d.status & vp.FEATURES_OK


def test_the_window_in_configuration_space_reaches_the_modern_registers():
    """VIRTIO 1.2, 4.1.4.9."""
    d = Driver(modern=True)
    c = d.chip
    at, kinds = c.config[0x34], {}
    while at:
        kinds[c.config[at + 3]] = at
        at = c.config[at + 1]
    assert sorted(kinds) == [1, 2, 3, 4, 5]
    window = kinds[5]
    for offset, value, size in ((4, 4, 1), (8, vp.DEVICE_AT, 4), (12, 4, 4)):
        c.config_write(window + offset, value, size)
    assert c.config_load(window + 16, 4) == SECTORS
    c.config_write(window + 8, 0x14, 4)
    c.config_write(window + 12, 1, 4)
    c.config_write(window + 16, 0, 1)
    assert d.status == 0
    for at, size in ((0xFFFFFFFC, 4), (0x3FFE, 4), (0, 3), (1, 2)):
        c.config_write(window + 8, at, 4)
        c.config_write(window + 12, size, 4)
        c.config_load(window + 16, 4)
        c.config_write(window + 16, 0xFFFFFFFF, 4)


def test_interrupts_are_suppressed_by_flag_and_by_index():
    d = Driver()
    d.ram.write(d.available, b"\1")
    d.request(blk.T_IN, 0, [(DATA, 512)], True)
    assert not d.levels[-1]
    d = Driver(features=vp.EVENT_IDX)
    event = d.available + 4 + 2 * SIZE
    d.ram.write(event, struct.pack("<H", 1))  # interrupt when the second is given
    d.request(blk.T_IN, 0, [(DATA, 512)], True)
    assert not d.levels[-1]
    d.request(blk.T_IN, 0, [(DATA, 512)], True)
    assert d.levels[-1]
    avail_event = d.used + 4 + 8 * SIZE
    assert struct.unpack("<H", d.ram.bytes[avail_event : avail_event + 2]) == (2,)


def test_nothing_is_touched_without_bus_mastering_or_before_driver_ok():
    d = Driver()
    d.chip.config_write(COMMAND, 3, 2)
    assert d.request(blk.T_IN, 0, [(DATA, 512)], True) == 0xEE
    d.chip.config_write(COMMAND, 7, 2)
    d.now += 1000
    d.clock.run_due()
    assert d.ram.bytes[STATUS] == blk.OK
    d = Driver(modern=True)
    d.chip.write_modern(0x14, 0xB, 1)
    assert d.request(blk.T_IN, 0, [(DATA, 512)], True) == 0xEE


def test_an_indirect_table_is_followed():
    d = Driver(features=vp.INDIRECT_DESC)
    d.ram.write(HEADER, struct.pack("<IIQ", blk.T_IN, 0, 7))
    d.descriptor(0, TABLE, 48, INDIRECT)
    d.descriptor(0, HEADER, 16, NEXT, 2, TABLE)
    d.descriptor(2, DATA, 512, NEXT | WRITE, 1, TABLE)
    d.descriptor(1, STATUS, 1, WRITE, 0, TABLE)
    d.kick()
    assert d.ram.read(DATA, 512) == b"\7" * 512 and d.ram.bytes[STATUS] == blk.OK


def loop(d: Driver) -> None:
    d.descriptor(0, HEADER, 16, NEXT, 1)
    d.descriptor(1, HEADER, 16, NEXT, 0)


def chain_of_257(d: Driver) -> None:
    d.descriptor(0, TABLE, 16 * 300, INDIRECT)
    for n in range(300):
        d.descriptor(n, DATA, 16, NEXT if n < 299 else WRITE, n + 1, TABLE)


def readable_behind_writable(d: Driver) -> None:
    d.descriptor(0, DATA, 16, NEXT | WRITE, 1)
    d.descriptor(1, HEADER, 16, 0)


def nested(d: Driver) -> None:
    d.descriptor(0, TABLE, 16, INDIRECT)
    d.descriptor(0, TABLE, 16, INDIRECT, 0, TABLE)


BAD = {
    "loop": loop,
    "too long": chain_of_257,
    "next beyond the table": lambda d: d.descriptor(0, HEADER, 16, NEXT, 256),
    "unmapped": lambda d: d.descriptor(0, MEMORY - 8, 16, 0),
    "unmapped, 64 bits": lambda d: d.descriptor(0, (1 << 64) - 8, 0xFFFFFFFF, 0),
    "oversize": lambda d: d.descriptor(0, 0, 0xFFFFFFFF, WRITE),
    "no bytes": lambda d: d.descriptor(0, HEADER, 0, 0),
    "order": readable_behind_writable,
    "indirect of no whole table": lambda d: d.descriptor(0, TABLE, 17, INDIRECT),
    "indirect of nothing": lambda d: d.descriptor(0, TABLE, 0, INDIRECT),
    "indirect with next": lambda d: d.descriptor(0, TABLE, 16, INDIRECT | NEXT, 1),
    "indirect in indirect": nested,
    "indirect table unmapped": lambda d: d.descriptor(0, 1 << 40, 16, INDIRECT),
    "indirect loop": lambda d: (
        d.descriptor(0, TABLE, 16, INDIRECT), d.descriptor(0, HEADER, 16, NEXT, 0, TABLE)
    ),
    "no status byte": lambda d: d.descriptor(0, HEADER, 16, 0),
    "short header": lambda d: (d.descriptor(0, HEADER, 8, NEXT, 1), d.descriptor(1, STATUS, 1, WRITE)),
}  # fmt: skip


@pytest.mark.parametrize("modern", (False, True))
@pytest.mark.parametrize("fault", BAD)
def test_bad_chains_break_the_device_until_it_is_reset(fault, modern):
    d = Driver(modern=modern, features=vp.INDIRECT_DESC)
    before, disk = bytes(d.ram.bytes[DATA:]), d.disk.save()
    BAD[fault](d)
    d.kick()
    assert d.chip._state.broken and d.last_used()[0] == 0
    assert bytes(d.ram.bytes[DATA:]) == before and d.disk.save() == disk
    assert bool(d.status & vp.NEEDS_RESET) == modern
    assert bool(d.chip.read_legacy(0x13, 1) & vp.CONFIG_INTERRUPT) == modern
    assert d.request(blk.T_IN, 1, [(DATA, 512)], True) == 0xEE  # nothing is done any more
    d.chip.write_legacy(0x12, 0, 1)
    assert not d.chip._state.broken and d.status == 0


def test_an_indirect_descriptor_that_was_not_negotiated_breaks_the_device():
    d = Driver()
    d.descriptor(0, TABLE, 16, INDIRECT)
    d.kick()
    assert "indirect" in d.chip._state.broken


@pytest.mark.parametrize("what", ("head", "index", "ring"))
def test_a_bad_ring_breaks_the_device(what):
    d = Driver()
    if what == "ring":
        d.chip.write_legacy(8, 0xFFFFFFFF, 4)
        d.kick()
    elif what == "head":
        d.kick(SIZE)
    else:
        d.ram.write(d.available + 2, struct.pack("<H", SIZE + 1))
        d.notify()
    assert d.chip._state.broken


def test_a_state_is_restored_in_the_middle_of_a_request():
    one, other = Driver(), Driver()
    one.ram.write(HEADER, struct.pack("<IIQ", blk.T_IN, 0, 3))
    one.descriptor(0, HEADER, 16, NEXT, 1)
    one.descriptor(1, DATA, 512, NEXT | WRITE, 2)
    one.descriptor(2, STATUS, 1, WRITE)
    one.ram.write(one.available + 2, struct.pack("<HH", 1, 0))
    one.chip.write_legacy(0x10, 0, 2)  # notified, not yet done
    other.ram.bytes[:] = one.ram.bytes
    other.chip.restore(one.chip.save())
    other.clock.restore(one.clock.save())
    assert other.chip.save() == one.chip.save()
    for d in (one, other):
        d.now += 1000
        d.clock.run_due()
    assert other.ram.bytes == one.ram.bytes and one.ram.read(DATA, 512) == b"\3" * 512
    assert other.chip.save() == one.chip.save()


def test_random_rings_and_registers_never_raise():
    """Whatever a driver writes, the device answers or breaks, within bounds of time and memory."""
    for seed in range(60):
        rnd = random.Random(seed)
        d = Driver(modern=bool(seed & 1), features=vp.INDIRECT_DESC | vp.EVENT_IDX)
        addresses = (0, HEADER, DATA, TABLE, MEMORY - 4, MEMORY, 1 << 40, (1 << 64) - 1)
        for _ in range(40):
            for table in (RING, TABLE):
                for index in range(6):
                    d.descriptor(
                        index, rnd.choice(addresses), rnd.choice((0, 1, 16, 48, 512, 1024, 1 << 31)),
                        rnd.randrange(8), rnd.randrange(7), table,
                    )  # fmt: skip
            d.ram.write(HEADER, struct.pack("<IIQ", rnd.choice((0, 1, 4, 8, 9)), 0, rnd.choice((0, 63, 64, 1 << 60))))
            d.kick(rnd.randrange(8))
            for _ in range(4):
                write = rnd.choice((d.chip.write_legacy, d.chip.write_modern))
                size = rnd.choice((1, 2, 4, 8))
                write(rnd.randrange(0x60), rnd.getrandbits(8 * size), size)
            d.chip.read_modern(rnd.randrange(vp.MODERN_SIZE), 4)
            d.chip.view()
            if rnd.randrange(4) == 0:
                d.chip.write_legacy(0x12, 0, 1)
                d.chip.write_legacy(8, RING >> 12, 4)
                d.heads = 0
