"""The PC/AT's pair of Intel 8237A DMA controllers with the 74LS612 page registers; blocks move whole, not byte by byte.

Sources: Intel 8237A data sheet (order number 231466): "DMA operation" (idle and active cycle, single, block, demand,
cascade, memory-to-memory, autoinitialize, priority), "Register description", figure 5 (register codes); IBM PC/AT
Technical Reference, "System board, DMA": channels 0-3 move bytes within 64 KiB, 5-7 words within 128 KiB, channel 4
cascades the first controller into the second, page register addresses. The mask register can be read at the port that
writes all mask bits, as in the chip sets (Intel 82371FB, "DWAMR"); the 8237A leaves that code illegal.

A transfer takes no virtual time: what a device is slower than is the device's business. A device that has no more data
holds READY in a block transfer, so that the rest waits for it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from emu.devices.dma8237_registers import (
    AUTOINIT,
    CASCADE,
    DECREMENT,
    DISABLE,
    DREQ_LOW,
    HOLD_0,
    KIND,
    MEM_TO_MEM,
    READ,
    ROTATE,
    TRANSFER,
    WRITE,
    PairState,
    State,
    controller_fields,
)
from emu.views import DeviceView

#: Which page register (port - 80h) belongs to channel 0-7 (IBM PC/AT Technical Reference, "Page register addresses").
PAGE_OF = (0x7, 0x3, 0x1, 0x2, 0xF, 0xB, 0x9, 0xA)
FLOATING = 0xFF


@dataclass(frozen=True, slots=True)
class Moved:
    """What a transfer did: `count` bytes moved; `data` from memory when it went to the device; `tc` the terminal
    count pin."""

    count: int
    data: bytes
    tc: bool


_NOTHING = Moved(0, b"", False)


class ControllerFace:
    """The sixteen registers of one controller; `shift` 1 for the second, whose registers are two ports apart."""

    def __init__(self, pair: DmaPair, second: bool, shift: int) -> None:
        self._pair, self._second, self._shift = pair, second, shift

    def read(self, offset: int, size: int) -> int:
        return self._pair.read_register(self._second, offset >> self._shift)

    def write(self, offset: int, value: int, size: int) -> None:
        self._pair.write_register(self._second, offset >> self._shift, value & 0xFF)

    def peek(self, offset: int, size: int) -> int:
        return self._pair.peek_register(self._second, offset >> self._shift)


class PageFace:
    """Ports 81h to 8Fh."""

    def __init__(self, pair: DmaPair) -> None:
        self._pair = pair

    def read(self, offset: int, size: int) -> int:
        return self._pair.state.pages[offset + 1]

    def write(self, offset: int, value: int, size: int) -> None:
        self._pair.state.pages[offset + 1] = value & 0xFF

    def peek(self, offset: int, size: int) -> int:
        return self.read(offset, size)


class DmaPair:
    """`low` are ports 00h-0Fh, `high` C0h-DFh, `pages` 81h-8Fh.

    A device connects to a channel (0-3, 5-7) with what is called when it is acknowledged, raises DREQ with `request`,
    and moves data with `transfer` inside that call. Memory is reached by `read_memory(address, length)` and
    `write_memory(address, data)`, physical, of any length within 16 MiB, which never fail.
    """

    def __init__(self, read_memory: Callable[[int, int], bytes], write_memory: Callable[[int, bytes], None]) -> None:
        self._read_memory, self._write_memory = read_memory, write_memory
        self._acknowledge: dict[int, Callable[[], None]] = {}
        self.low, self.high = ControllerFace(self, False, 0), ControllerFace(self, True, 1)
        self.pages = PageFace(self)
        self.state = PairState()
        self._serving: int | None = None
        self._moved = False
        self.reset()

    def reset(self) -> None:
        """The RESET pin: command, status, request and temporary registers and the flip-flop clear, all channels
        masked; the other registers are undefined at power-on, here 0. Devices drop DREQ at the same reset."""
        self.state = PairState()

    def save(self) -> PairState:
        return copy.deepcopy(self.state)

    def restore(self, state: PairState) -> None:
        self.state = copy.deepcopy(state)

    # -- devices

    def connect(self, channel: int, acknowledge: Callable[[], None]) -> None:
        """`acknowledge` is DACK: the device may `transfer` while it runs."""
        self._acknowledge[channel] = acknowledge

    def request(self, channel: int, level: bool) -> None:
        """The DREQ line of `channel`."""
        self._controller(channel).channels[channel & 3].line = level
        self._serve()

    def transfer(self, channel: int, data: bytes | None, length: int = 0) -> Moved:
        """Move `data` to memory, or `length` bytes from it (None), in the direction the channel's mode says, up to
        the terminal count. Only inside `acknowledge`; word channels move whole words, and an odd byte stays.

        A verify transfer counts and moves nothing. Data against the mode's direction is counted too: both sides of
        the bus drive or none does, and memory keeps what it has.
        """
        if self._serving != channel:
            return _NOTHING
        return self._move(channel, data, length if data is None else len(data))

    # -- service

    def _controller(self, channel: int) -> State:
        return self.state.high if channel >= 4 else self.state.low

    def _wanting(self, exclude: set[int]) -> int | None:
        """The channel with the highest priority that may be served, in the PC's numbering."""
        high = self.state.high
        if high.command & DISABLE:
            return None
        for n in _order(high):
            if n:
                if 4 + n not in exclude and self._wants(high, n):
                    return 4 + n
            elif (found := self._wanting_low(exclude)) is not None:
                return found
        return None

    def _wanting_low(self, exclude: set[int]) -> int | None:
        """The same in the first controller, whose hold request must get through channel 4."""
        low, cascade = self.state.low, self.state.high.channels[0]
        if low.command & DISABLE or cascade.masked or cascade.mode & KIND != CASCADE:
            return None
        return next((n for n in _order(low) if n not in exclude and self._wants(low, n)), None)

    def _wants(self, s: State, n: int) -> bool:
        """The mask register disables DREQ only; a software request cannot be masked."""
        ch = s.channels[n]
        return ch.mode & KIND != CASCADE and (ch.requested or (self._active(s, n) and not ch.masked))

    def _active(self, s: State, n: int) -> bool:
        return s.channels[n].line != bool(s.command & DREQ_LOW)

    def _serve(self) -> None:
        if self._serving is not None:
            return  # what a device changes while it is served is looked at when it is done
        done: set[int] = set()
        while (channel := self._wanting(done)) is not None:
            s = self._controller(channel)
            ch = s.channels[channel & 3]
            self._serving, self._moved = channel, False
            try:
                if channel == 0 and s.command & MEM_TO_MEM:
                    self._memory_to_memory()
                    done.add(channel)
                elif ch.requested:
                    self._float(channel)
                elif (acknowledge := self._acknowledge.get(channel)) is not None:
                    acknowledge()
            finally:
                self._serving = None
            if self._moved:
                s.last = channel & 3
                if channel < 4:
                    self.state.high.last = 0
            else:
                done.add(channel)  # the device has nothing now

    def _float(self, channel: int) -> None:
        """A software request: no device drives the bus."""
        ch = self._controller(channel).channels[channel & 3]
        left = (ch.count + 1) * (2 if channel >= 4 else 1)
        self._move(channel, bytes((FLOATING,)) * left if ch.mode & TRANSFER == WRITE else None, left)

    def _move(self, channel: int, data: bytes | None, length: int) -> Moved:
        s = self._controller(channel)
        ch = s.channels[channel & 3]
        word = 2 if channel >= 4 else 1
        units = min(length // word, ch.count + 1)
        if not units:
            return _NOTHING
        kind = ch.mode & TRANSFER
        out = b""
        if kind == WRITE and data is not None:
            self._put(channel, data[: units * word])
        elif data is None:
            out = self._get(channel, units) if kind == READ else bytes((FLOATING,)) * (units * word)
        self._moved = True
        return Moved(units * word, out, self._advance(s, channel & 3, units))

    def _pieces(self, channel: int, units: int) -> list[tuple[int, int, int]]:
        """(physical address, first unit, units) of each run that does not wrap in the channel's 64 Ki units; when
        addresses go down, the run's address is its lowest."""
        ch = self._controller(channel).channels[channel & 3]
        word = 2 if channel >= 4 else 1
        page = (self.state.pages[PAGE_OF[channel]] & ~(word - 1)) << 16
        pieces, done, at = [], 0, ch.address
        while done < units:
            if ch.mode & DECREMENT:
                run = min(units - done, at + 1)
                pieces.append((page | (at - run + 1) * word, done, run))
                at = at - run & 0xFFFF
            else:
                run = min(units - done, 0x10000 - at)
                pieces.append((page | at * word, done, run))
                at = at + run & 0xFFFF
            done += run
        return pieces

    def _put(self, channel: int, data: bytes) -> None:
        word = 2 if channel >= 4 else 1
        down = self._controller(channel).channels[channel & 3].mode & DECREMENT
        for address, first, units in self._pieces(channel, len(data) // word):
            piece = data[first * word : (first + units) * word]
            self._write_memory(address, _reversed(piece, word) if down else piece)

    def _get(self, channel: int, units: int) -> bytes:
        word = 2 if channel >= 4 else 1
        down = self._controller(channel).channels[channel & 3].mode & DECREMENT
        out = b""
        for address, _, run in self._pieces(channel, units):
            piece = self._read_memory(address, run * word)
            out += _reversed(piece, word) if down else piece
        return out

    def _advance(self, s: State, n: int, units: int) -> bool:
        """Address and count after `units` transfers; True at the terminal count, when the count rolls over."""
        ch = s.channels[n]
        tc = units > ch.count
        ch.address = (ch.address - units if ch.mode & DECREMENT else ch.address + units) & 0xFFFF
        ch.count = ch.count - units & 0xFFFF
        if tc:
            self._end_of_process(s, n)
        return tc

    def _end_of_process(self, s: State, n: int) -> None:
        """EOP: a channel that reloads goes on, any other masks itself."""
        ch = s.channels[n]
        ch.done, ch.requested = True, False
        if ch.mode & AUTOINIT:
            ch.address, ch.count = ch.base_address, ch.base_count
        else:
            ch.masked = True

    def _memory_to_memory(self) -> None:
        """Channel 0's memory through the temporary register to channel 1's, until channel 1's count ends.

        With address hold one byte fills the destination. Both count; channel 0 rolls over silently.
        """
        s = self.state.low
        source, target = s.channels[0], s.channels[1]
        units = target.count + 1
        hold = bool(s.command & HOLD_0)
        if hold:
            data = self._get(0, 1) * units
            self._put(1, data)
        elif self._overlap(units):
            # each byte is written before the next is read
            data = b""
            for address, to in zip(self._addresses(0, units), self._addresses(1, units), strict=True):
                data = self._read_memory(address, 1)
                self._write_memory(to, data)
        else:
            data = self._get(0, units)
            self._put(1, data)
        s.temporary = data[-1]
        source.requested, self._moved = False, True
        if not hold:
            source.address = (source.address - units if source.mode & DECREMENT else source.address + units) & 0xFFFF
        ended = units > source.count
        source.count = source.count - units & 0xFFFF
        if ended and source.mode & AUTOINIT:
            source.address, source.count = source.base_address, source.base_count
        self._advance(s, 1, units)

    def _overlap(self, units: int) -> bool:
        return any(
            a < d + target and d < a + source
            for a, _, source in self._pieces(0, units)
            for d, _, target in self._pieces(1, units)
        )

    def _addresses(self, channel: int, units: int) -> Iterator[int]:
        down = self.state.low.channels[channel].mode & DECREMENT
        for address, _, run in self._pieces(channel, units):
            yield from range(address + run - 1, address - 1, -1) if down else range(address, address + run)

    # -- registers

    def peek_register(self, second: bool, register: int) -> int:
        s = self.state.high if second else self.state.low
        if register < 8:
            ch = s.channels[register >> 1]
            return (ch.count if register & 1 else ch.address) >> (8 if s.flip_flop else 0) & 0xFF
        if register == 8:
            requests = [ch.requested or self._active(s, i) for i, ch in enumerate(s.channels)]
            requests[0] |= second and self._low_wants()
            return sum((1 << i if ch.done else 0) | (0x10 << i if requests[i] else 0)
                       for i, ch in enumerate(s.channels))  # fmt: skip
        if register == 0xD:
            return s.temporary
        if register == 0xF:
            return sum(1 << i for i, ch in enumerate(s.channels) if ch.masked)
        return FLOATING

    def _low_wants(self) -> bool:
        low = self.state.low
        return not low.command & DISABLE and any(self._wants(low, n) for n in range(4))

    def read_register(self, second: bool, register: int) -> int:
        value = self.peek_register(second, register)
        s = self.state.high if second else self.state.low
        if register < 8:
            s.flip_flop = not s.flip_flop
        elif register == 8:
            for ch in s.channels:
                ch.done = False
        return value

    def write_register(self, second: bool, register: int, value: int) -> None:
        s = self.state.high if second else self.state.low
        ch = s.channels[value & 3]
        on = bool(value & 4)
        if register < 8:
            self._write_word(s, register, value)
        elif register == 8:
            s.command = value
        elif register == 9:
            ch.requested = on
        elif register == 0xA:
            ch.masked = on
        elif register == 0xB:
            ch.mode = value & 0xFC
        elif register == 0xC:
            s.flip_flop = False
        elif register == 0xD:
            self._master_clear(s)
        else:
            for i, channel in enumerate(s.channels):
                channel.masked = register == 0xF and bool(value >> i & 1)
        self._serve()

    def _write_word(self, s: State, register: int, value: int) -> None:
        """Base and current register are written together, a byte at a time."""
        ch = s.channels[register >> 1]
        shift = 8 if s.flip_flop else 0
        s.flip_flop = not s.flip_flop
        keep, new = 0xFFFF ^ 0xFF << shift, value << shift
        if register & 1:
            ch.base_count, ch.count = ch.base_count & keep | new, ch.count & keep | new
        else:
            ch.base_address, ch.address = ch.base_address & keep | new, ch.address & keep | new

    def _master_clear(self, s: State) -> None:
        s.command, s.temporary, s.flip_flop, s.last = 0, 0, False, 3
        for ch in s.channels:
            ch.masked, ch.requested, ch.done = True, False, False

    # -- view

    def view(self) -> DeviceView:
        s = self.state
        pages = [s.pages[register] for register in PAGE_OF]
        fields = controller_fields(s.low, 0, pages[:4]) + controller_fields(s.high, 4, pages[4:])
        return DeviceView("dma", "two Intel 8237A, 74LS612", "ports 00h-0Fh, 81h-8Fh, C0h-DFh", tuple(fields))


def _order(s: State) -> list[int]:
    """The channels of a controller, highest priority first."""
    start = (s.last + 1) & 3 if s.command & ROTATE else 0
    return [(start + i) & 3 for i in range(4)]


def _reversed(data: bytes, word: int) -> bytes:
    """The units of `word` bytes in reverse order; the bytes of a unit stay."""
    if word == 1:
        return data[::-1]
    out = bytearray(len(data))
    out[0::2], out[1::2] = data[-2::-2], data[::-2]
    return bytes(out)
