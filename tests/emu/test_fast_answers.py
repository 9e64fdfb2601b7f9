"""What the fast loop answers ahead of Python: held answers, streams and collected output, told in order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bare_cpu import TABLES, BareCpu
from emu.engine import ExitReason
from emu.x86.state import CpuState
from run_loops import SLICES, make, needs_helper

pytestmark = needs_helper


def polling(count: int) -> str:
    return f"mov cx, {count}\nl: in al, 0x61\nadd bl, al\nadc bh, 0\nloop l\nout 0x80, al\nin al, 0x61\nadd si, ax\nhlt"


@pytest.mark.parametrize("size", SLICES)
def test_a_held_answer_ends_at_its_count_and_with_any_other_access(size: int) -> None:
    def prepare(cpu: BareCpu) -> None:
        level = [0]

        def read(port: int, _size: int) -> int:
            now = cpu.engine.retired
            value = now // 20 + level[0] & 0xFF
            cpu.engine.hold_input(port, value, (now // 20 + 1) * 20)
            return value

        cpu.on_in = read
        cpu.on_out = lambda *_: level.__setitem__(0, 100)

    results = []
    for name, length in (("gate", 1000), ("fast", size)):
        cpu = make(name, polling(100), 16)
        prepare(cpu)
        assert cpu.run(slice=length).reason is ExitReason.HALT
        results.append((cpu.engine.retired, cpu.engine.state(), cpu.memory.save()))
        asked = len(cpu.ins)
    assert results[0] == results[1]
    if size > 100:
        assert asked < 40


@pytest.mark.parametrize("size", SLICES)
def test_a_stream_is_read_once_and_what_was_taken_is_told_before_anything_else(size: int) -> None:
    source = "mov cx, 50\nmov di, 0x3000\nmov dx, 0x511\nrep insb\nout 0x80, al\nmov cx, 30\nrep insb\nhlt"
    data = bytes(range(1, 200))
    told: list[int] = []
    at = [0]

    def skip(count: int) -> None:
        at[0] += count

    def read(port: int, _size: int) -> int:
        value = data[at[0]]
        at[0] += 1
        cpu.engine.stream_input(port, data[at[0] :], skip)
        return value

    cpu = make("fast", source, 16)
    cpu.on_in = read
    cpu.on_out = lambda *_: told.append(at[0])
    while cpu.engine.run(size).reason is not ExitReason.HALT:
        assert cpu.read(0x3000, at[0]) == data[: at[0]]
    assert cpu.read(0x3000, 80) == data[:80]
    assert (told, at) == ([50], [80])


#: What the Fifo gives.
FIFO_BYTES = bytes(i * 7 & 0xFF for i in range(3 * 4096))
#: 600 bytes to port 402h, one to E9h, five to 402h, a read; then the same bytes again.
PRINTING = (
    "mov bp, 2\nagain: mov dx, 0x402\nmov cx, 600\nl: out dx, al\ninc al\nloop l\nout 0xe9, al\n"
    "times 5 out dx, al\nin al, 0x80\nadd bl, al\ndec bp\njnz again\nhlt"
)


@pytest.mark.parametrize("size", SLICES)
def test_collected_output_is_told_in_order_before_anything_else(size: int) -> None:
    def story(name: str, length: int) -> tuple[list[tuple[int, int]], CpuState, int]:
        seen: list[tuple[int, int]] = []
        asked = [0]
        cpu = make(name, PRINTING, 16)

        def write(port: int, _size: int, value: int) -> None:
            asked[0] += 1
            seen.append((port, value))
            if port == 0x402:
                cpu.engine.stream_output(port, 512, lambda data: seen.extend((0x402, byte) for byte in data))

        def read(port: int, _size: int) -> int:
            seen.append((port, -1))
            return len(seen) & 0xFF  # what the guest gets depends on what was told before

        cpu.on_out, cpu.on_in = write, read
        at = 0
        while cpu.engine.run(length).reason is not ExitReason.HALT:
            assert cpu.engine.retired > at
            at = cpu.engine.retired
        return seen, cpu.engine.state(), asked[0]

    seen, state, _ = story("gate", 1000)
    found, found_state, asked = story("fast", size)
    assert (found, found_state) == (seen, state)
    assert len(seen) == 2 * (600 + 1 + 5 + 1)
    if size > 10_000:
        assert asked == 2 * (2 + 1 + 1)  # 512 are kept at a time


def test_words_are_not_collected() -> None:
    cpu = make("fast", "mov dx, 0x402\nout dx, al\nout dx, ax\nout dx, al\nhlt", 16)
    seen: list[object] = []

    def write(port: int, size: int, value: int) -> None:
        seen.append(size)
        if size == 1:
            cpu.engine.stream_output(port, 512, seen.append)

    cpu.on_out = write
    assert cpu.engine.run(100).reason is ExitReason.HALT
    assert seen == [1, 2, 1]


class Fifo:
    """A device on port 1F0h that streams both ways by words and double-words, but for the last of `events` bytes each
    way; `log` has the positions at which other ports were accessed."""

    def __init__(self, cpu: BareCpu, events: int) -> None:
        self.cpu, self.events, self.got, self.at = cpu, events, bytearray(), 0
        self.asked = 0
        self.log: list[tuple[int, int, int]] = []
        cpu.on_in, cpu.on_out = self.read, self.write

    def _offer_input(self) -> None:
        left = self.events - self.at % self.events - 2
        self.cpu.engine.stream_input(0x1F0, FIFO_BYTES[self.at : self.at + left], self._taken, 2 | 4)

    def _taken(self, count: int) -> None:
        self.at += count

    def read(self, port: int, size: int) -> int:
        if port != 0x1F0:
            self.log.append((self.cpu.engine.retired, self.at, len(self.got)))
            return 0
        self.asked += 1
        value = int.from_bytes(FIFO_BYTES[self.at : self.at + size], "little")
        self.at += size
        self._offer_input()
        return value

    def write(self, port: int, size: int, value: int) -> None:
        if port != 0x1F0:
            self.log.append((self.cpu.engine.retired, self.at, len(self.got)))
            return
        self.asked += 1
        self.got += value.to_bytes(4, "little")[:size]
        room = self.events - len(self.got) % self.events - 2
        self.cpu.engine.stream_output(0x1F0, room, self.got.extend, 2 | 4)


STREAMING = """
    mov dx, 0x1f0
    mov di, 0x3000
    mov cx, 200
    rep insw
    out 0x80, al
    mov cx, 77
    rep insd
    in al, dx
    stosb
    in ax, dx
    in al, 0x60
    mov cx, 300
    rep insd
    mov si, 0x3000
    mov cx, 201
    rep outsw
    in al, 0x60
    mov cx, 99
    rep outsd
    out dx, al
    out dx, eax
    mov cx, 250
    rep outsd
    out dx, ax
    in ax, dx
    out dx, ax
    hlt
"""


@pytest.mark.slow_variants(keep=7)
@pytest.mark.parametrize("size", SLICES)
@pytest.mark.parametrize("events", [8, 64, 512, 4096])
def test_streams_of_words_both_ways_are_told_before_anything_else(size: int, events: int) -> None:
    results, asked = [], []
    for name, length in (("gate", 1000), ("fast", size)):
        cpu = make(name, STREAMING, 16)
        fifo = Fifo(cpu, events)
        assert cpu.run(slice=length).reason is ExitReason.HALT
        results.append((cpu.engine.retired, cpu.engine.state(), cpu.memory.save(), fifo.log, fifo.at, fifo.got))
        asked.append(fifo.asked)
    assert results[0] == results[1]
    assert asked[0] > 1100
    if size > 1000 and events > 100:
        assert asked[1] < 50


def test_a_word_whose_destination_faults_stays_with_the_device() -> None:
    results = []
    for name in ("gate", "fast"):
        cpu = make(name, "mov dx, 0x1f0\nmov edi, 0x4ff0\nmov ecx, 20\nrep insw\nhlt", 64)
        cpu.write(TABLES + 0x3000 + 8 * 5, bytes(8))  # page 5000h is not present, and there are no handlers
        fifo = Fifo(cpu, 512)
        assert cpu.run().reason is ExitReason.SHUTDOWN
        assert cpu.read(0x4FF0, 16) == FIFO_BYTES[:16]
        results.append((fifo.at, cpu.engine.retired, [(fault.vector, fault.cr2) for fault in cpu.faults]))
    assert results[0] == results[1]
    assert (results[1][0], results[1][2][0]) == (16, (14, 0x5000))


def test_a_word_beyond_the_segments_limit_stays_with_the_device() -> None:
    cpu = make("fast", "mov dx, 0x1f0\nmov di, 0x3000\nmov cx, 20\nrep insw\nhlt", 16)
    cpu.write(13 * 4, (0x2000).to_bytes(4, "little"))
    cpu.write(0x2000, b"\xf4")
    state = cpu.engine.state()
    state.es = replace(state.es, limit=0x3007)
    cpu.engine.load(state)
    fifo = Fifo(cpu, 512)
    assert cpu.run().reason is ExitReason.HALT
    assert (fifo.at, cpu.engine.state().regs[1], [fault.vector for fault in cpu.faults]) == (8, 16, [13])
