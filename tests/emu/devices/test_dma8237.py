"""The DMA controllers against the 8237A data sheet (Intel 231466) and the PC/AT's wiring of the pair."""

from __future__ import annotations

import pytest

from emu.devices.dma8237 import DmaPair, Moved

PAGES = {0: 6, 1: 2, 2: 0, 3: 1, 5: 0xA, 6: 8, 7: 9}  #: offsets from 81h
DEMAND, SINGLE, BLOCK, CASCADE = 0x00, 0x40, 0x80, 0xC0
TO_MEMORY, FROM_MEMORY = 0x04, 0x08
AUTOINIT, DOWN = 0x10, 0x20


class Bench:
    """16 MiB of memory and a device on every channel, which gives `feeds[channel]` or takes `takes[channel]` bytes."""

    def __init__(self) -> None:
        self.memory = bytearray(1 << 24)
        self.dma = DmaPair(lambda at, n: bytes(self.memory[at : at + n]), self._store)
        self.feeds: dict[int, bytes] = {}
        self.takes: dict[int, int] = {}
        self.moves: list[tuple[int, Moved]] = []
        for channel in (0, 1, 2, 3, 5, 6, 7):
            self.dma.connect(channel, lambda channel=channel: self._serve(channel))
        self.dma.high.write(0xB << 1, CASCADE, 1)
        self.dma.high.write(0xA << 1, 0, 1)

    def _store(self, at: int, data: bytes) -> None:
        self.memory[at : at + len(data)] = data

    def _serve(self, channel: int) -> None:
        if channel in self.feeds:
            moved = self.dma.transfer(channel, self.feeds.pop(channel))
        elif channel in self.takes:
            moved = self.dma.transfer(channel, None, self.takes.pop(channel))
        else:
            return
        self.moves.append((channel, moved))

    def out(self, channel: int, register: int, value: int) -> None:
        if channel < 4:
            self.dma.low.write(register, value, 1)
        else:
            self.dma.high.write(register << 1, value, 1)

    def inb(self, channel: int, register: int) -> int:
        return self.dma.low.read(register, 1) if channel < 4 else self.dma.high.read(register << 1, 1)

    def program(self, channel: int, address: int, count: int, mode: int) -> None:
        """`count` as the register has it: transfers - 1."""
        n, unit = channel & 3, 2 if channel > 3 else 1
        self.dma.pages.write(PAGES[channel], address >> 16, 1)
        self.out(channel, 0xC, 0)
        for value in (address // unit & 0xFF, address // unit >> 8 & 0xFF):
            self.out(channel, 2 * n, value)
        for value in (count & 0xFF, count >> 8):
            self.out(channel, 2 * n + 1, value)
        self.out(channel, 0xB, mode | n)
        self.out(channel, 0xA, n)

    def word(self, channel: int, register: int) -> int:
        self.out(channel, 0xC, 0)
        return self.inb(channel, register) | self.inb(channel, register) << 8

    def feed(self, channel: int, data: bytes) -> Moved | None:
        self.feeds[channel] = data
        self.dma.request(channel, True)
        self.dma.request(channel, False)
        return self.moves[-1][1] if self.moves else None


@pytest.mark.parametrize("channel", [0, 1, 2, 3])
def test_a_byte_channel_moves_a_block_to_its_page(channel):
    bench = Bench()
    bench.program(channel, 0x123456, 7, SINGLE | TO_MEMORY)
    assert bench.feed(channel, b"12345678") == Moved(8, b"", True)
    assert bench.memory[0x123455:0x12345F] == b"\x0012345678\0"


@pytest.mark.parametrize("channel", [5, 6, 7])
def test_a_word_channel_counts_words_and_ignores_the_page_s_low_bit(channel):
    bench = Bench()
    bench.program(channel, 0x32468, 3, SINGLE | TO_MEMORY)
    bench.dma.pages.write(PAGES[channel], 3, 1)
    bench.feed(channel, b"abcdefgh")
    assert bench.memory[0x32468:0x32470] == b"abcdefgh"
    assert bench.word(channel, 2 * (channel & 3) + 1) == 0xFFFF


def test_the_end_masks_the_channel_and_shows_in_the_status_until_read():
    bench = Bench()
    bench.program(2, 0x1000, 1, SINGLE | TO_MEMORY)
    bench.feed(2, b"xyz")
    assert bench.memory[0x1000:0x1003] == b"xy\0"
    assert bench.inb(2, 0xF) == 0xF
    assert bench.dma.low.peek(8, 1) == 0x04
    assert bench.inb(2, 8) == 0x04
    assert bench.inb(2, 8) == 0


def test_a_masked_channel_waits_and_is_served_when_unmasked():
    bench = Bench()
    bench.program(2, 0x1000, 1, SINGLE | TO_MEMORY)
    bench.out(2, 0xA, 4 | 2)
    bench.feeds[2] = b"ab"
    bench.dma.request(2, True)
    assert bench.moves == []
    assert bench.inb(2, 8) == 0x40  # requests show whatever the mask says
    bench.out(2, 0xA, 2)
    assert bench.moves == [(2, Moved(2, b"", True))]


@pytest.mark.parametrize("why", ["disabled", "no cascade", "cascade masked", "second disabled"])
def test_what_keeps_the_first_controller_from_the_bus(why):
    bench = Bench()
    bench.program(2, 0x1000, 1, SINGLE | TO_MEMORY)
    undo = {
        "disabled": (0, 8, 4, 0), "second disabled": (4, 8, 4, 0),
        "cascade masked": (4, 0xA, 4, 0), "no cascade": (4, 0xB, DEMAND, CASCADE),
    }[why]  # fmt: skip
    bench.out(*undo[:3])
    bench.feeds[2] = b"ab"
    bench.dma.request(2, True)
    assert bench.moves == []
    bench.out(undo[0], undo[1], undo[3])
    assert len(bench.moves) == 1


def test_autoinitialize_reloads_and_leaves_the_channel_unmasked():
    bench = Bench()
    bench.program(1, 0x20000, 3, SINGLE | TO_MEMORY | AUTOINIT)
    bench.feed(1, b"abcd")
    assert (bench.word(1, 2), bench.word(1, 3), bench.inb(1, 0xF)) == (0, 3, 0xD)
    bench.feed(1, b"wxyz")
    assert bench.memory[0x20000:0x20004] == b"wxyz"


def test_addresses_go_down():
    bench = Bench()
    bench.program(3, 0x3003, 3, SINGLE | TO_MEMORY | DOWN)
    bench.feed(3, b"abcd")
    assert bench.memory[0x3000:0x3004] == b"dcba"
    assert bench.word(3, 6) == 0x2FFF
    bench.program(5, 0x4006, 3, SINGLE | FROM_MEMORY | DOWN)
    bench.memory[0x4000:0x4008] = b"ABCDEFGH"
    bench.takes[5] = 8
    bench.dma.request(5, True)
    assert bench.moves[-1][1].data == b"GHEFCDAB"


def test_addresses_wrap_in_the_page():
    bench = Bench()
    bench.program(2, 0x5FFFE, 3, SINGLE | TO_MEMORY)
    bench.feed(2, b"abcd")
    assert bench.memory[0x5FFFE:0x60002] == b"ab\0\0"
    assert bench.memory[0x50000:0x50002] == b"cd"


def test_a_device_that_pauses_goes_on_where_it_was():
    bench = Bench()
    bench.program(2, 0x1000, 1023, DEMAND | TO_MEMORY)
    assert bench.feed(2, b"a" * 512) == Moved(512, b"", False)
    assert bench.word(2, 5) == 511
    assert bench.feed(2, b"b" * 600) == Moved(512, b"", True)
    assert bench.memory[0x11FF:0x1201] == b"ab"


def test_verify_counts_and_writes_nothing():
    bench = Bench()
    bench.program(2, 0x1000, 3, SINGLE)
    assert bench.feed(2, b"abcd").tc
    assert not any(bench.memory[0x1000:0x1004])


def test_memory_to_memory_copies_fills_and_keeps_the_last_byte():
    bench = Bench()
    bench.memory[0x1000:0x1010] = bytes(range(16))
    bench.program(0, 0x1000, 0xF, BLOCK | FROM_MEMORY)
    bench.program(1, 0x2000, 0xF, BLOCK | TO_MEMORY)
    bench.out(0, 8, 0x01)
    bench.out(0, 9, 4)
    assert bench.memory[0x2000:0x2010] == bytes(range(16))
    assert bench.inb(0, 0xD) == 15
    assert bench.inb(0, 8) == 0x02  # channel 1's terminal count; the request is taken
    bench.program(0, 0x1005, 0xF, BLOCK | FROM_MEMORY)
    bench.program(1, 0x2000, 0xF, BLOCK | TO_MEMORY)
    bench.out(0, 8, 0x03)  # channel 0 address hold
    bench.out(0, 9, 4)
    assert bench.memory[0x2000:0x2010] == b"\5" * 16
    assert bench.word(0, 0) == 0x1005


def test_memory_to_memory_goes_byte_by_byte_where_the_blocks_overlap():
    bench = Bench()
    bench.memory[0x1000] = 0xAA
    bench.program(0, 0x1000, 0xF, BLOCK | FROM_MEMORY)
    bench.program(1, 0x1001, 0xF, BLOCK | TO_MEMORY)
    bench.out(0, 8, 0x01)
    bench.out(0, 9, 4)
    assert bench.memory[0x1000:0x1012] == b"\xaa" * 17 + b"\0"


def test_a_software_request_is_not_masked_and_finds_a_floating_bus():
    bench = Bench()
    bench.program(3, 0x1000, 3, BLOCK | TO_MEMORY)
    bench.out(3, 0xA, 4 | 3)
    bench.out(3, 9, 4 | 3)
    assert bench.memory[0x1000:0x1005] == b"\xff\xff\xff\xff\0"
    assert bench.inb(3, 8) == 0x08


def waiting(bench: Bench, *channels: int, second: bool = False) -> list[int]:
    """All request while the first controller, or the `second`, is disabled; in which order are they served?"""
    port, state = (4, bench.dma.state.high) if second else (0, bench.dma.state.low)
    bench.out(port, 8, state.command | 4)
    bench.moves.clear()
    for channel in channels:
        bench.feeds[channel] = b"ab"
        bench.dma.request(channel, True)
    bench.out(port, 8, state.command & ~4)
    for channel in channels:
        bench.dma.request(channel, False)
    return [channel for channel, _ in bench.moves]


def test_priorities_fixed_and_rotating():
    bench = Bench()
    for channel in range(4):
        bench.program(channel, 0x1000 * channel, 0xFFFF, SINGLE | TO_MEMORY)
    assert waiting(bench, 3, 2, 1, 0) == [0, 1, 2, 3]
    assert waiting(bench, 3, 1) == [1, 3]
    bench.out(0, 8, 0x10)
    assert waiting(bench, 1) == [1]  # now the lowest
    assert waiting(bench, 0, 1, 2, 3) == [2, 3, 0, 1]


def test_a_service_of_the_first_controller_rotates_the_cascade_to_the_end_of_the_second():
    """8237A, "Rotating Priority": the last channel to get service becomes the lowest; for the second, channel 4."""
    bench = Bench()
    for channel in (1, 2, 5, 7):
        bench.program(channel, 0x1000 * channel, 0xFFFF, SINGLE | TO_MEMORY)
    bench.out(4, 8, 0x10)
    assert waiting(bench, 2, 7, second=True) == [2, 7]
    assert waiting(bench, 1, second=True) == [1]
    assert waiting(bench, 1, 2, 5, 7, second=True) == [5, 7, 1, 2]


def test_the_flip_flop_is_each_controller_s_own():
    bench = Bench()
    bench.out(0, 0xC, 0)
    bench.out(4, 0xC, 0)
    bench.out(0, 0, 0x34)
    bench.out(5, 2, 0x78)
    bench.out(0, 0, 0x12)
    bench.out(5, 2, 0x56)
    assert (bench.word(0, 0), bench.word(5, 2)) == (0x1234, 0x5678)


def test_master_clear_masks_all_and_keeps_addresses():
    bench = Bench()
    bench.program(2, 0x1234, 9, SINGLE | TO_MEMORY)
    bench.out(0, 8, 0x10)
    bench.inb(2, 4)
    bench.out(0, 0xD, 0)
    assert (bench.inb(0, 0xF), bench.dma.state.low.command, bench.dma.state.low.flip_flop) == (0xF, 0, False)
    assert (bench.word(2, 4), bench.word(2, 5)) == (0x1234, 9)
    bench.out(0, 0xE, 0)
    assert bench.inb(0, 0xF) == 0


def test_inverted_requests():
    bench = Bench()
    bench.program(2, 0x1000, 1, SINGLE | TO_MEMORY)
    bench.dma.request(2, True)
    bench.feeds[2] = b"ab"
    bench.out(0, 8, 0x40)
    assert bench.moves == []
    bench.dma.request(2, False)
    assert len(bench.moves) == 1


def test_a_device_may_transfer_only_while_it_is_acknowledged():
    bench = Bench()
    bench.program(2, 0x1000, 1, SINGLE | TO_MEMORY)
    assert bench.dma.transfer(2, b"ab") == Moved(0, b"", False)
    assert not any(bench.memory[0x1000:0x1002])


def test_page_registers_that_no_channel_uses_are_plain_memory():
    bench = Bench()
    for offset in range(15):
        bench.dma.pages.write(offset, 0xA0 + offset, 1)
    assert [bench.dma.pages.read(offset, 1) for offset in range(15)] == [0xA0 + offset for offset in range(15)]


def test_the_state_is_a_value():
    bench, other = Bench(), Bench()
    bench.program(2, 0x123456, 0x10, SINGLE | TO_MEMORY)
    bench.feed(2, b"abc")
    other.dma.restore(bench.dma.save())
    assert other.dma.save() == bench.dma.save()
    bench.feed(2, b"d")
    assert other.dma.save() != bench.dma.save()
    assert any("write to memory" in field.text for field in other.dma.view().fields)
