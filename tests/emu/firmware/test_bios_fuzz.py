"""No registers, packets or data areas make a service raise in Python, or work without an end in one answer."""

from __future__ import annotations

import random
import sys
from types import FrameType

import pytest

from bios_frames import SEGMENT, WAITS, Services
from emu.firmware.bios import frame as frames
from emu.media import Disk

pytestmark = pytest.mark.slow

#: Function calls of Python in one answer, some 0.5 s: ten a sector of the 65,535 that INT 13h AH=42h can move take two
#: thirds of it, a boot device's messages in a graphics mode and a row of 256 characters a fifth.
MOST_CALLS = 1_000_000
QUESTIONS = 6  #: of one call: no CPU is between them, so waits do not end

WORDS = (0, 1, 2, 3, 4, 0x10, 0x1A, 0x7F, 0x80, 0x81, 0xE0, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFF0, 0xFFFF)
SEGMENTS = (0x0000, 0x0040, 0x4000, 0x5000, 0x9FC0, 0xA000, 0xB800, 0xC000, 0xF000, 0xFFFF)
DRIVES = (0, 1, 2, 0x7F, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0xE0, 0xE1, 0xFF)
MODES = (0, 1, 2, 3, 4, 5, 6, 7, 0x0D, 0x0E, 0x0F, 0x10, 0x11, 0x12, 0x13)
VBE_MODES = (0x100, 0x101, 0x102, 0x103, 0x10D, 0x112, 0x115, 0x4101, 0x4115, 0x142)
#: Interrupts by how often they are tried; the ROM's POST and boot services too.
NUMBERS = (
    *(0x10,) * 8, *(0x13,) * 8, *(0x15,) * 3, *(0x1A,) * 2, 0x09, 0x11, 0x12, 0x14, 0x16, 0x17, 0x18, 0x19,
    0x40, 0x74, 0x100,
)  # fmt: skip
FUNCTIONS = {
    0x10: (*range(0x14), 0x1A, 0x1B, 0x1C, *(0x4F,) * 4, *(0x13,) * 2, 0x0C, 0x0D),
    0x13: (*range(0x19), *range(0x41, 0x4F)),
    0x15: (0x24, 0x4F, 0x83, 0x86, 0x87, 0x88, 0x8A, 0xC0, 0xC1, 0xC2, 0xC2, 0xE8),
    0x1A: (*range(8), *(0xB1,) * 4),
}


class TooMuch(BaseException):
    """One answer has taken more calls than it may; no service catches it."""


class Meter:
    """Counts calls of functions while it is entered: the same on every host, unlike time."""

    def __init__(self) -> None:
        self.calls = self.most = 0

    def __enter__(self) -> None:
        self.calls = 0
        sys.setprofile(self._count)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        self.most = max(self.most, self.calls)

    def _count(self, frame: FrameType, event: str, argument: object) -> None:
        self.calls += event in ("call", "c_call")
        if self.calls > MOST_CALLS:
            sys.setprofile(None)
            raise TooMuch


def word(r: random.Random) -> int:
    return r.choice((r.choice(WORDS), r.getrandbits(16), r.getrandbits(8), r.getrandbits(8) << 8))


def registers(r: random.Random, number: int) -> dict[str, int]:
    """Such as get beyond the first check often."""
    values = {name: word(r) for name in ("bx", "cx", "dx", "si", "di", "bp")}
    values |= {"es": r.choice(SEGMENTS), "ds": r.choice(SEGMENTS), "flags": r.getrandbits(16)}
    ah = r.choice(FUNCTIONS.get(number, tuple(range(0x14))))
    values["ax"] = ah << 8 | r.choice((r.getrandbits(8), r.randrange(0x20), r.randrange(4)))
    if number in (0x13, 0x40):
        values["dx"] = values["dx"] & 0xFF00 & r.choice((0xFFFF, 0x0100)) | r.choice(DRIVES)
    elif number in (0x14, 0x17):
        values["dx"] &= 3
    elif ah == 0x4F and values["ax"] == 0x4F02 and r.random() < 0.8:
        values["bx"] = r.choice(VBE_MODES)
    elif number == 0x10 and ah == 0:
        values["ax"] = r.choice(MODES) | r.choice((0, 0x80))
    elif number == 0x15 and ah == 0xE8:
        values |= {"edx": 0x534D4150, "ecx": r.choice((20, 24, 0)), "ax": 0xE800 | r.choice((1, 0x20, 0x81))}
    return values


def packet(r: random.Random) -> bytes:
    """A disk address packet, or what else a caller may have at DS:SI."""
    size = r.choice((0, 2, 16, 24, 26, 30, 66, 74, 0xFF))
    fields = [size, r.choice((0, 1, 0x7F, 0x80, 0xFFFF)), word(r), r.choice((*SEGMENTS, 0xFFFF))]
    fields += [r.randrange(20000), 0, 0, 0] if r.random() < 0.7 else [word(r) for _ in range(4)]
    return b"".join(field.to_bytes(2, "little") for field in fields + [word(r) for _ in range(12)])


def services(machine: str) -> Services:
    sector = b"\xfa\xf4".ljust(446, b"\0") + bytes([0x80, 1, 1, 0, 0x0C, 15, 63, 18, *b"\xf0\x03\0\0\xe0\x46\0\0"])
    disk = sector.ljust(510, b"\0") + b"\x55\xaa"
    disks = [Disk.from_bytes(disk.ljust(20 * 16 * 63 * 512, b"\0")), Disk.from_bytes(bytes(512))]
    virtio = [Disk.from_bytes(bytes(1 << 20)) for _ in range(3)] if machine == "pc" else []
    return Services(
        machine=machine, disks=disks, virtio=virtio, floppies=[Disk.from_bytes(bytes(1474560))],
        cdroms=[Disk.from_bytes(bytes(64 * 2048))],
    )  # fmt: skip


@pytest.mark.parametrize("machine", ["pc", "isapc"])
@pytest.mark.parametrize(("seed", "trials"), [(1, 300), (2, 1000), pytest.param(3, 3000, marks=pytest.mark.soak)])
def test_services_answer_whatever_they_are_asked(machine: str, seed: int, trials: int) -> None:
    r = random.Random(f"{machine} {seed}")
    bios, meter = services(machine), Meter()
    fresh = bios.machine.save()
    for trial in range(trials):
        if trial % 100 == 0:
            bios.machine.restore(fresh)
        number = r.choice(NUMBERS)
        values = registers(r, number)
        if r.random() < 0.1:
            # A guest may write to the private port by itself, or interrupt a service and change its frame.
            values |= {"step": r.getrandbits(8), "scratch": r.getrandbits(32), "reply": r.getrandbits(32)}
        if r.random() < 0.1:
            bios.memory.write(0x400 + r.randrange(0x100), r.randbytes(r.choice((1, 2, 4))))
        at = values["ds"] * 16 + values["si"]
        if at + 40 < SEGMENT * 16 or SEGMENT * 16 + 100 < at < 0x9F000:
            bios.memory.write(at, packet(r))
        bios.begin(number, **values)
        for _ in range(QUESTIONS):
            try:
                with meter:
                    frame = bios.ask()
            except (Exception, TooMuch) as error:
                said = {name: hex(value) for name, value in values.items()}
                raise AssertionError(f"trial {trial}: service {number:02X}h of {said}: {error!r}") from error
            if frame.action == frames.RETURN:
                break
            assert frame.action in WAITS
        # What is written of a call nobody may ever look at; here somebody does.
        assert all(event.text for event in list(bios.machine.journal)[-1:])
    assert meter.most > 1000
