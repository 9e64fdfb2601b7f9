"""The VGA's display memory as the CPU sees it at A0000h-BFFFFh: windows, planes, latches, write and read modes.

Sources: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (VGA): sequencer registers 2 and 4, graphics
controller; FreeVGA, "Accessing the Display Memory". The same in C, for the fast run loop, is emu/native/vga.c: both
work on one structure, `Shared`, and are tested to be equal.

A location of the four 64 KiB planes is a plane and an offset o in it. In `memory` the four bytes of one offset stand
side by side, plane 0 first, at `place(o)`. The low two bits of o come last there, crossed with the top two, so that
the bytes which chain-4 addresses one after another (plane from address bits 1-0, these replaced by bits 15-14) stand
one after another too: this is what lets the linear frame buffer, the banks of VBE and chain-4 be plain memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_uint8, c_uint32, c_uint64

from emu.typed import Final

SIZE: Final = 0x20000  #: of the window at A0000h
PLANES: Final = 0x40000  #: bytes of the four planes of a VGA
#: graphics register 6 bits 3-2: the part of the window that is decoded, as offset and length
WINDOWS: Final = ((0, 0x20000), (0, 0x10000), (0x10000, 0x8000), (0x18000, 0x8000))
FLOATING: Final = 0xFF

SR4_ODD_EVEN_OFF, SR4_CHAIN_4 = 0x04, 0x08
GR5_READ_MODE, GR5_ODD_EVEN = 0x08, 0x10
GR6_CHAIN_ODD_EVEN = 0x02
MISC_RAM = 0x02


def place(offset: int) -> int:
    """Where in memory the four bytes at `offset` of the planes are, plane 0 first. Offsets past FFFFh go on in the
    next 256 KiB."""
    return (offset & ~0xFFFF) << 2 | ((offset ^ offset >> 14) & 3) << 16 | offset & 0xFFFC


def spread(planes: int) -> int:
    """A byte of ones for each plane whose bit is set in `planes`, plane 0 in the low byte."""
    return sum(0xFF << 8 * plane for plane in range(4) if planes >> plane & 1)


_SPREAD: Final = tuple(spread(planes) for planes in range(16))


class Shared(ctypes.Structure):
    """struct display of emu/native/vga.h: what the registers make of an access, ready for use. 32-bit values hold a
    byte for each plane. Of display memory's accesses change `latch` only.

    The DAC's part is that of `emu.devices.vga`, which keeps it here for an engine to take what is written to ports 3C8h
    and 3C9h: firmware sets all of a palette, three bytes a colour, with each mode."""

    _fields_ = (
        ("memory", c_uint64), ("engine", c_uint64), ("ram", c_uint64), ("mask", c_uint32), ("latch", c_uint32),
        ("first", c_uint32), ("length", c_uint32), ("bank", c_uint32), ("map_mask", c_uint32), ("set_reset", c_uint32),
        ("enable_set_reset", c_uint32), ("compare", c_uint32), ("care", c_uint32), ("bit_mask", c_uint32),
        ("chain_4", c_uint8), ("odd_even_write", c_uint8), ("odd_even_read", c_uint8), ("odd_even_address", c_uint8),
        ("write_mode", c_uint8), ("read_mode", c_uint8), ("rotate", c_uint8), ("function", c_uint8),
        ("read_map", c_uint8), ("direct", c_uint8), ("pad", c_uint8 * 6),
        ("dac_bits", c_uint8), ("dac_index", c_uint8), ("dac_component", c_uint8), ("dac_reading", c_uint8),
        ("dac_written", c_uint8), ("dac_latch", c_uint8 * 3), ("dac", c_uint8 * 768),
    )  # fmt: skip
    memory: int  #: host address of display memory
    engine: int  #: of the C helper: struct engine, or 0; `ram` is memory's place in Unicorn's numbering of RAM
    ram: int
    mask: int  #: size of memory, a power of two, less 1
    latch: int
    first: int  #: of the decoded part in the 128 KiB
    length: int  #: 0: nothing is decoded
    bank: int  #: added to addresses in the window
    map_mask: int
    set_reset: int
    enable_set_reset: int
    compare: int
    care: int
    bit_mask: int
    chain_4: int
    odd_even_write: int
    odd_even_read: int
    odd_even_address: int
    write_mode: int
    read_mode: int
    rotate: int
    function: int
    read_map: int
    direct: int  #: the window is plain memory: chain-4, and no register changes what is written or read
    dac_bits: int  #: those of a component that exist; 0: nothing is to be taken
    dac_index: int  #: the colour that is written next
    dac_component: int
    dac_reading: int  #: the address was written for reads
    dac_written: int  #: an engine has taken something since the device looked
    dac_latch: ctypes.Array[c_uint8]
    dac: ctypes.Array[c_uint8]


class DisplayMemory:
    """Mapped at A0000h, 128 KiB; wide accesses are made of bytes, the lowest address first.

    `memory` is at least 256 KiB, a power of two. `remapped` is called when `direct`, or what is behind a direct window,
    has changed; `written` with (place, bytes) of what is written by way of this class.
    """

    def __init__(
        self,
        memory: memoryview | bytearray,
        remapped: Callable[[], None] = lambda: None,
        written: Callable[[int, int], None] = lambda _place, _count: None,
    ) -> None:
        if len(memory) < PLANES or len(memory) & len(memory) - 1:
            raise ValueError(f"display memory of {len(memory)} bytes: a power of two from {PLANES} on is needed")
        self.memory = memory
        self.remapped, self.written = remapped, written
        self.shared = Shared(mask=len(memory) - 1)
        self.shared.memory = ctypes.addressof(c_uint8.from_buffer(memory))

    @property
    def size(self) -> int:
        """Bytes of display memory."""
        return len(self.memory)

    def program(
        self, sequencer: Sequence[int], graphics: Sequence[int], misc: int, vbe: tuple[int, bool] | None = None
    ) -> None:
        """The registers have changed. `vbe`: its bank (of 64 KiB window addresses) and whether pixels are packed, which
        forces chain-4 with all planes; None while it is off."""
        s = self.shared
        before = (s.direct, s.first, s.length, s.bank)
        packed = vbe is not None and vbe[1]
        s.first, s.length = WINDOWS[1 if vbe is not None else graphics[6] >> 2 & 3]
        if not misc & MISC_RAM:
            s.length = 0
        s.bank = vbe[0] << 16 if vbe is not None else 0
        s.chain_4 = bool(packed or sequencer[4] & SR4_CHAIN_4)
        s.map_mask = _SPREAD[15 if packed else sequencer[2]]
        s.odd_even_write = not sequencer[4] & SR4_ODD_EVEN_OFF
        s.odd_even_read = bool(graphics[5] & GR5_ODD_EVEN)
        s.odd_even_address = bool(graphics[6] & GR6_CHAIN_ODD_EVEN)
        s.set_reset, s.enable_set_reset = _SPREAD[graphics[0]], _SPREAD[graphics[1]]
        s.compare, s.care = _SPREAD[graphics[2]], _SPREAD[graphics[7]]
        s.rotate, s.function = graphics[3] & 7, graphics[3] >> 3 & 3
        s.read_map, s.bit_mask = graphics[4], graphics[8] * 0x01010101
        s.write_mode, s.read_mode = graphics[5] & 3, bool(graphics[5] & GR5_READ_MODE)
        plain = (s.map_mask & s.bit_mask, s.enable_set_reset, s.write_mode, s.rotate, s.function)
        s.direct = bool(packed or (s.chain_4 and plain == (0xFFFFFFFF, 0, 0, 0, 0)))
        after = (s.direct, s.first, s.length, s.bank)
        if before != after and (before[0] or after[0]):
            self.remapped()

    # -- the CPU's accesses

    def _place(self, address: int) -> int:
        """Of an address in the window that is not chained."""
        s = self.shared
        if s.odd_even_address:
            # a higher bit takes the place of bit 0, which selects the plane
            address = address & 0xFFFE | address >> 16 & 1
        return place((address & 0xFFFF) + s.bank) & s.mask

    def read(self, offset: int, size: int) -> int:
        return sum(self._read(offset + i, latching=True) << 8 * i for i in range(size))

    def peek(self, offset: int, size: int) -> int:
        """As `read`, with the latches left alone."""
        return sum(self._read(offset + i, latching=False) << 8 * i for i in range(size))

    def _read(self, offset: int, *, latching: bool) -> int:
        s = self.shared
        address = offset - s.first
        if not 0 <= address < s.length:
            return FLOATING
        at = address + s.bank & s.mask if s.chain_4 else self._place(address)
        word = int.from_bytes(self.memory[at & ~3 : (at & ~3) + 4], "little")
        if latching and not s.direct:
            s.latch = word
        if s.chain_4:
            return self.memory[at]
        if s.read_mode:
            differs = (word ^ s.compare) & s.care
            return ~(differs | differs >> 8 | differs >> 16 | differs >> 24) & 0xFF
        plane = s.read_map & 2 | address & 1 if s.odd_even_read else s.read_map
        return word >> 8 * plane & 0xFF

    def write(self, offset: int, value: int, size: int) -> None:
        for i in range(size):
            self._write(offset + i, value >> 8 * i & 0xFF)

    def takes(self, offset: int) -> bool:
        """A write there is decoded, and what is written decides a bit of some plane at least."""
        s = self.shared
        address = offset - s.first
        if not 0 <= address < s.length:
            return False
        if s.direct:
            return True
        bits = s.map_mask & (self._modify(0) ^ self._modify(0xFF))
        if s.chain_4:
            bits &= 0xFF << 8 * (address + s.bank & s.mask & 3)
        elif s.odd_even_write:
            bits &= 0xFF00FF00 if address & 1 else 0x00FF00FF
        return bits != 0

    def _write(self, offset: int, value: int) -> None:
        s = self.shared
        address = offset - s.first
        if not 0 <= address < s.length:
            return
        planes = s.map_mask
        if s.chain_4:
            at = address + s.bank & s.mask
            if s.direct:
                self.memory[at] = value
                self.written(at, 1)
                return
            planes &= 0xFF << 8 * (at & 3)
            at &= ~3
        else:
            at = self._place(address)
            if s.odd_even_write:
                planes &= 0xFF00FF00 if address & 1 else 0x00FF00FF
        old = int.from_bytes(self.memory[at : at + 4], "little")
        new = old & ~planes | self._modify(value) & planes
        self.memory[at : at + 4] = new.to_bytes(4, "little")
        self.written(at, 4)

    def _modify(self, value: int) -> int:
        """What the graphics controller makes of a byte for the four planes."""
        s = self.shared
        latch = s.latch
        if s.write_mode == 1:
            return latch
        mask = s.bit_mask
        if s.write_mode == 2:
            data = _SPREAD[value & 15]
        else:
            rotated = (value >> s.rotate | value << 8 - s.rotate & 0xFF) * 0x01010101
            if s.write_mode == 0:
                data = rotated & ~s.enable_set_reset | s.set_reset & s.enable_set_reset
            else:
                data, mask = s.set_reset, mask & rotated
        if s.function == 1:
            data &= latch
        elif s.function == 2:
            data |= latch
        elif s.function == 3:
            data ^= latch
        return data & mask | latch & ~mask
