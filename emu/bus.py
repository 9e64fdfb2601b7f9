"""The port and MMIO maps: who answers an address; read, write, and peek without side effects."""

from __future__ import annotations

from collections.abc import Callable

from emu.record import dataclass
from emu.typed import Protocol


class BusDevice(Protocol):
    """What devices look like to a bus. `offset` counts from the range's first address; `size` is 1, 2, 4 (MMIO: 8)
    and never more than the width the range was mapped with. Values are unsigned."""

    def read(self, offset: int, size: int) -> int: ...
    def write(self, offset: int, value: int, size: int) -> None: ...
    def peek(self, offset: int, size: int) -> int:
        """What a read would return, with no side effect."""


#: Told (port or address, size, value, is_write) of an access.
Told = Callable[[int, int, int, bool], None]


@dataclass(frozen=True, slots=True)
class Range:
    """`count` addresses from `first`; `width`: the widest access the device takes whole, wider ones are split;
    `masters`: bus masters reach it too; `kept`: it is a hypervisor's, which has the device itself."""

    first: int
    count: int
    name: str
    device: BusDevice
    width: int
    masters: bool = False
    kept: bool = False


class BusConflict(Exception):
    """Two devices claim one address."""


class Ports:
    """The 64 KiB of I/O ports. An unclaimed port reads all ones and swallows writes, as a floating ISA bus does. There
    is one more, 10000h, which no instruction reaches: the CPU itself does, as the 386 reached its coprocessor by
    addresses above the ports (80386 Hardware Reference Manual, chapter 5)."""

    def __init__(self) -> None:
        self.ranges: list[Range] = []
        self._map: list[Range | None] = [None] * 0x10001
        self._claims: list[Range] = []
        self._trace: Callable[[int, int, int, bool], None] | None = None
        self._sealed: Callable[[], None] | None = None
        self._looked_at: Told | None = None
        #: told `unwatched` when it may have changed
        self.on_watch: Callable[[bool], None] = lambda unwatched: None

    @property
    def unwatched(self) -> bool:
        """Accesses may be answered ahead: nobody wants to know of each, and the devices are there."""
        return self._trace is None and self._sealed is None and self._looked_at is None

    @property
    def trace(self) -> Callable[[int, int, int, bool], None] | None:
        """Told (port, size, value, is_write) of each access when set; for the journal and port breakpoints."""
        return self._trace

    @trace.setter
    def trace(self, told: Callable[[int, int, int, bool], None] | None) -> None:
        self._trace = told
        self.on_watch(self.unwatched)

    @property
    def sealed(self) -> Callable[[], None] | None:
        """While set, nothing is read or written: it is called instead, and reads give all ones."""
        return self._sealed

    @sealed.setter
    def sealed(self, called: Callable[[], None] | None) -> None:
        self._sealed = called
        self.on_watch(self.unwatched)

    @property
    def looked_at(self) -> Told | None:
        """While set, reads give what `peek` does, nothing is written, and it is told of each access."""
        return self._looked_at

    @looked_at.setter
    def looked_at(self, told: Told | None) -> None:
        self._looked_at = told
        self.on_watch(self.unwatched)

    def map(self, first: int, count: int, device: BusDevice, name: str, width: int = 1, *, kept: bool = False) -> None:
        """Raises BusConflict when a port is taken."""
        entry = Range(first, count, name, device, width, kept=kept)
        for port in range(first, first + count):
            taken = self._map[port]
            if taken is not None:
                raise BusConflict(f"port {port:#x} of {name} belongs to {taken.name}")
            self._map[port] = entry
        if first < 0x10000:  # nobody is shown what no instruction reaches
            self.ranges.append(entry)
            self.ranges.sort(key=lambda r: r.first)

    def claim(self, first: int, count: int, device: BusDevice, name: str, width: int = 1) -> None:
        """As `map`, for a range whose place the guest chooses: of it, the ports that are free."""
        entry = Range(first, count, name, device, width)
        for port in range(first, min(first + count, 0x10000)):
            if self._map[port] is None:
                self._map[port] = entry
        self._claims.append(entry)
        self.ranges = sorted([*self.ranges, entry], key=lambda r: r.first)

    def release_claims(self) -> None:
        """Give back all that `claim` took."""
        for entry in self._claims:
            for port in range(entry.first, min(entry.first + entry.count, 0x10000)):
                if self._map[port] is entry:
                    self._map[port] = None
        self.ranges = [entry for entry in self.ranges if entry not in self._claims]
        self._claims.clear()

    def port_in(self, port: int, size: int) -> int:
        if self._sealed is not None:
            self._sealed()
            return (1 << 8 * size) - 1
        if self._looked_at is not None:
            value = self._peeked(port, size)
            self._looked_at(port, size, value, False)
            return value
        entry = self._map[port]
        if size == 1 or (entry is not None and entry.width >= size and port + size <= entry.first + entry.count):
            value = 0xFFFFFFFF >> (32 - 8 * size) if entry is None else entry.device.read(port - entry.first, size)
        else:
            value = 0
            for i in range(size):
                part = self._map[(port + i) & 0xFFFF]
                byte = 0xFF if part is None else part.device.read((port + i & 0xFFFF) - part.first, 1)
                value |= byte << 8 * i
        if self._trace is not None:
            self._trace(port, size, value, False)
        return value

    def port_out(self, port: int, size: int, value: int) -> None:
        if self._sealed is not None:
            self._sealed()
            return
        if self._looked_at is not None:
            self._looked_at(port, size, value, True)
            return
        if self._trace is not None:
            self._trace(port, size, value, True)
        entry = self._map[port]
        if size == 1 or (entry is not None and entry.width >= size and port + size <= entry.first + entry.count):
            if entry is not None:
                entry.device.write(port - entry.first, value, size)
            return
        for i in range(size):
            part = self._map[(port + i) & 0xFFFF]
            if part is not None:
                part.device.write((port + i & 0xFFFF) - part.first, value >> 8 * i & 0xFF, 1)

    def peek(self, port: int, size: int = 1) -> int | None:
        """What a read would give, without side effects; None when nothing answers."""
        entry = self._map[port]
        return None if entry is None else entry.device.peek(port - entry.first, size)

    def _peeked(self, port: int, size: int) -> int:
        """What `port_in` would give."""
        entry = self._map[port]
        if entry is not None and (size == 1 or (entry.width >= size and port + size <= entry.first + entry.count)):
            return entry.device.peek(port - entry.first, size)
        if size == 1:
            return 0xFF
        return sum(self._peeked(port + i & 0xFFFF, 1) << 8 * i for i in range(size))

    def owner(self, port: int) -> str | None:
        entry = self._map[port]
        return None if entry is None else entry.name

    def kept(self, port: int) -> bool:
        """A hypervisor has the device."""
        entry = self._map[port]
        return entry is not None and entry.kept


class Mmio:
    """Physical addresses that are neither RAM nor ROM. Unclaimed ones read all ones and swallow writes."""

    def __init__(self) -> None:
        self.ranges: list[Range] = []
        self.claims: list[Range] = []  #: ranges whose place the guest chose
        self._last: Range | None = None  # of `ranges`, what `find` has found last
        self.sealed: Callable[[], None] | None = None  #: as of Ports
        self.looked_at: Told | None = None  #: as of Ports

    def map(
        self, first: int, count: int, device: BusDevice, name: str, width: int = 4, *, masters: bool = False,
        kept: bool = False,
    ) -> None:  # fmt: skip
        """`masters`: for bus masters as well. Raises BusConflict when an address is taken."""
        for other in self.ranges:
            if first < other.first + other.count and other.first < first + count:
                raise BusConflict(f"{name} at {first:#x} overlaps {other.name}")
        self.ranges.append(Range(first, count, name, device, width, masters, kept))
        self.ranges.sort(key=lambda r: r.first)

    def claim(
        self, first: int, count: int, device: BusDevice, name: str, width: int = 4, *, kept: bool = False
    ) -> None:
        """As `map`, for a range whose place the guest chooses: what is mapped, or was claimed before, comes first."""
        self.claims.append(Range(first, count, name, device, width, kept=kept))

    def release_claims(self) -> None:
        """Give back all that `claim` took."""
        self.claims.clear()

    def find(self, address: int) -> Range | None:
        if (last := self._last) is not None and last.first <= address < last.first + last.count:
            return last
        for entry in self.ranges:
            if entry.first <= address < entry.first + entry.count:
                self._last = entry
                return entry
        for entry in self.claims:
            if entry.first <= address < entry.first + entry.count:
                return entry
        return None

    def answers(self, address: int) -> bool:
        """See emu.engine.MmioBus."""
        first = address & ~0xFFF
        return any(r.first < first + 0x1000 and first < r.first + r.count for r in (*self.ranges, *self.claims))

    def mmio_read(self, address: int, size: int) -> int:
        if self.sealed is not None:
            self.sealed()
            return (1 << 8 * size) - 1
        if self.looked_at is not None:
            value = self._peeked(address, size)
            self.looked_at(address, size, value, False)
            return value
        entry = self.find(address)
        if entry is None:
            return (1 << 8 * size) - 1
        if entry.width >= size:
            return entry.device.read(address - entry.first, size)
        half = size // 2
        return self.mmio_read(address, half) | self.mmio_read(address + half, half) << 8 * half

    def mmio_write(self, address: int, size: int, value: int) -> None:
        if self.sealed is not None:
            self.sealed()
            return
        if self.looked_at is not None:
            self.looked_at(address, size, value, True)
            return
        entry = self.find(address)
        if entry is None:
            return
        if entry.width >= size:
            entry.device.write(address - entry.first, value, size)
            return
        half = size // 2
        self.mmio_write(address, half, value & ((1 << 8 * half) - 1))
        self.mmio_write(address + half, half, value >> 8 * half)

    def _peeked(self, address: int, size: int) -> int:
        """What `mmio_read` would give."""
        entry = self.find(address)
        if entry is None:
            return (1 << 8 * size) - 1
        if entry.width >= size:
            return entry.device.peek(address - entry.first, size)
        half = size // 2
        return self._peeked(address, half) | self._peeked(address + half, half) << 8 * half

    def kept(self, address: int) -> bool:
        """A hypervisor has the device."""
        entry = self.find(address)
        return entry is not None and entry.kept
