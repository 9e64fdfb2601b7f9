"""Many locations of the VGA's planes at once, past the registers that a CPU's access would pass."""

from __future__ import annotations

from emu.devices.vga_memory import DisplayMemory, place

HALF = 0x4000  #: offsets between two changes of how `place` spreads them

FEW = 4  #: offsets that are moved one by one: a character's width of pixels above all


class Planes:
    """Offsets count from 0 to FFFFh; each has four bytes, plane 0 first. Ranges that leave this wrap around."""

    def __init__(self, display: DisplayMemory) -> None:
        self._display = display

    def get(self, offset: int, count: int) -> bytearray:
        """4 * `count` bytes."""
        if count < FEW:
            memory = self._display.memory
            starts = [place(at & 0xFFFF) for at in range(offset, offset + count)]
            return bytearray(b"".join(bytes(memory[start : start + 4]) for start in starts))
        first = offset & ~3
        total = (offset + count + 3 & ~3) - first
        out = bytearray(4 * total)
        dwords = memoryview(out).cast("I")
        for at, n in _pieces(first, total):
            base, done = at & 0xFFFF, at - first
            for j in range(4):
                start = place(base + j)
                dwords[done + j : done + n : 4] = memoryview(bytes(self._display.memory[start : start + n])).cast("I")
        dwords.release()
        skip = offset - first
        return out[4 * skip : 4 * (skip + count)]

    def put(self, offset: int, data: bytes | bytearray) -> None:
        """`data` is what `get` gives."""
        count = len(data) // 4
        if count < FEW:
            for i in range(count):
                start = place(offset + i & 0xFFFF)
                self._display.memory[start : start + 4] = bytes(data[4 * i : 4 * i + 4])
                self._display.written(start, 4)
            return
        first = offset & ~3
        total = (offset + count + 3 & ~3) - first
        if first != offset or total != count:
            whole = self.get(first, total)
            whole[4 * (offset - first) : 4 * (offset - first) + len(data)] = data
            data = whole
        dwords = memoryview(bytes(data)).cast("I")
        for at, n in _pieces(first, total):
            base, done = at & 0xFFFF, at - first
            for j in range(4):
                start = place(base + j)
                self._display.memory[start : start + n] = dwords[done + j : done + n : 4].tobytes()
                self._display.written(start, n)


def _pieces(first: int, count: int) -> list[tuple[int, int]]:
    """(offset, how many) of a range, cut where `place` changes."""
    pieces, at, end = [], first, first + count
    while at < end:
        n = min(end - at, HALF - at % HALF)
        pieces.append((at, n))
        at += n
    return pieces
