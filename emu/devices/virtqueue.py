"""A split virtqueue: descriptor chains taken from the driver's ring in guest memory, used ones given back.

Source: Virtual I/O Device (VIRTIO) 1.2 ("VIRTIO" below): 2.7 split virtqueues (2.7.5 descriptor table and indirect
descriptors, 2.7.6 available ring, 2.7.7 interrupt suppression, 2.7.8 used ring, 2.7.10 notification suppression),
2.7.2 the layout of the legacy interface. All fields are little-endian.

Everything in the rings is the driver's to write, and may be nonsense: whatever breaks a rule raises `BadQueue`, before
anything of the chain has had an effect.
"""

from __future__ import annotations

from emu.devices.pci import Dma
from emu.record import dataclass

# Descriptor flags (2.7.5).
NEXT, WRITE, INDIRECT = 1, 2, 4
DESCRIPTOR = 16  #: bytes
NO_INTERRUPT = 1  #: flag of the available ring
USED_ALIGN = 4096  #: of the used ring in the legacy layout (2.7.2)


class BadQueue(Exception):
    """The driver broke a rule; one sentence says which."""


@dataclass(slots=True)
class QueueState:
    """`size` is what the driver chose; `taken` and `given` count buffers modulo 65536, `signalled` is `given` at the
    last interrupt."""

    size: int
    enabled: bool = False
    descriptors: int = 0
    available: int = 0
    used: int = 0
    taken: int = 0
    given: int = 0
    signalled: int = 0


@dataclass(frozen=True, slots=True)
class Chain:
    """One buffer: (address, length) of what the device reads, and of what it writes."""

    head: int
    readable: tuple[tuple[int, int], ...]
    writable: tuple[tuple[int, int], ...]


def legacy_layout(state: QueueState, base: int) -> None:
    """Put the three parts where the legacy interface has them behind `base` (2.7.2)."""
    state.descriptors = base
    state.available = base + DESCRIPTOR * state.size
    end = state.available + 6 + 2 * state.size
    state.used = -(-end // USED_ALIGN) * USED_ALIGN


class Virtqueue:
    """`indirect` and `event_index` are the features of these names, as negotiated."""

    def __init__(self, dma: Dma, state: QueueState) -> None:
        self._dma, self.state = dma, state
        self.indirect = self.event_index = False

    # -- memory

    def _load(self, address: int, size: int) -> int:
        data = self._dma.read(address, size)
        if data is None:
            raise BadQueue(f"no memory at {address:#x}, where the queue is")
        return int.from_bytes(data, "little")

    def _store(self, address: int, value: int, size: int) -> None:
        if not self._dma.write(address, value.to_bytes(size, "little")):
            raise BadQueue(f"no memory at {address:#x}, where the queue is")

    # -- the driver's ring

    def take(self) -> Chain | None:
        """The next buffer that the driver has made available; None when there is none. Raises BadQueue."""
        s = self.state
        waiting = self._load(s.available + 2, 2) - s.taken & 0xFFFF
        if not waiting:
            return None
        if waiting > s.size:
            raise BadQueue(f"{waiting} buffers are available in a queue of {s.size}")
        head = self._load(s.available + 4 + 2 * (s.taken % s.size), 2)
        chain = self._chain(head)
        s.taken = s.taken + 1 & 0xFFFF
        return chain

    def ask_for_kicks(self) -> None:
        """Tell the driver to notify of the next buffer (2.7.10: avail_event)."""
        s = self.state
        if self.event_index:
            self._store(s.used + 4 + 8 * s.size, s.taken, 2)

    def _chain(self, head: int) -> Chain:
        s = self.state
        parts: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        table, size, index, seen = s.descriptors, s.size, head, 0
        while True:
            if index >= size:
                raise BadQueue(f"descriptor {index} is beyond its table of {size}")
            seen += 1
            if seen > s.size:
                raise BadQueue(f"a chain has more descriptors than the queue's {s.size}, or loops")
            at = table + DESCRIPTOR * index
            raw = self._load(at, DESCRIPTOR)
            address, length, flags, following = (
                raw & (1 << 64) - 1,
                raw >> 64 & 0xFFFFFFFF,
                raw >> 96 & 0xFFFF,
                raw >> 112,
            )
            if flags & INDIRECT:
                if not self.indirect or table != s.descriptors or flags & NEXT or length % DESCRIPTOR or not length:
                    raise BadQueue(f"descriptor {index} refers to an indirect table that may not be there")
                table, size, index, seen = address, length // DESCRIPTOR, 0, seen - 1
                continue
            self._check(index, address, length)
            writes = bool(flags & WRITE)
            if parts[1] and not writes:
                raise BadQueue(f"descriptor {index} is for the device to read, behind one for it to write")
            parts[writes].append((address, length))
            if not flags & NEXT:
                return Chain(head, tuple(parts[0]), tuple(parts[1]))
            index = following

    def _check(self, index: int, address: int, length: int) -> None:
        if not length:
            raise BadQueue(f"descriptor {index} has no bytes")
        if not self._dma.reaches(address, length):
            raise BadQueue(f"descriptor {index} has {length} bytes at {address:#x}, where memory is not")

    # -- the device's ring

    def give(self, chain: Chain, written: int) -> bool:
        """Put a buffer on the used ring, into which `written` bytes have gone. True: the driver is to be interrupted.
        Raises BadQueue."""
        s = self.state
        self._store(s.used + 4 + 8 * (s.given % s.size), chain.head | written << 32, 8)
        s.given = s.given + 1 & 0xFFFF
        self._store(s.used + 2, s.given, 2)
        if not self.event_index:
            return not self._load(s.available, 2) & NO_INTERRUPT
        # 2.7.7.2: used_event lies in what was given since the last interrupt.
        event = self._load(s.available + 4 + 2 * s.size, 2)
        wanted = s.given - event - 1 & 0xFFFF < (s.given - s.signalled & 0xFFFF)
        if wanted:
            s.signalled = s.given
        return wanted
