"""The PIIX3 IDE function with its bus master: descriptor tables in memory, one engine a channel.

Source: Intel 82371SB data sheet 290550, chapter 2: function 1 (IDETIM, BMIBA) and its ports (BMICX, BMISX, BMIDTPX);
Programming Interface for Bus Master IDE Controller 1.0 (SFF-8038i): physical region descriptors, the meaning of the
status bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from emu.devices.ide import IdeChannel
from emu.devices.pci import Bar, Dma, PciFunction, PciState
from emu.record import dataclass, field
from emu.views import DeviceView, FieldView

# Command register.
START, TO_MEMORY = 0x01, 0x08
# Status register.
ACTIVE, ERROR, INTERRUPT, CAPABLE = 0x01, 0x02, 0x04, 0x60
#: Descriptor: base, byte count (0 is 64 KiB), end of table.
PRD_SIZE, EOT = 8, 0x80


@dataclass(slots=True)
class ChannelState:
    """`cursor` is the address of the descriptor in use, `used` bytes of it are done; None before the first."""

    command: int = 0
    status: int = 0
    table: int = 0
    cursor: int | None = None
    used: int = 0
    finished: bool = False  #: the last descriptor is used up


@dataclass(slots=True)
class State:
    """Both channels."""

    pci: PciState
    channels: list[ChannelState] = field(default_factory=lambda: [ChannelState(), ChannelState()])


class Engine:
    """The bus master of one channel; what an IDE drive asks by DMARQ. `masters` says that the function may master."""

    def __init__(self, dma: Dma, masters: Callable[[], bool]) -> None:
        self._dma, self._masters = dma, masters
        self.state = ChannelState()
        #: tells the channel that the engine has been started
        self.on_start: Callable[[], None] = lambda: None

    def ready(self, to_memory: bool) -> bool:
        """It is started in this direction, and has not failed."""
        s = self.state
        return bool(
            s.command & START
            and s.status & ACTIVE
            and not s.status & ERROR
            and bool(s.command & TO_MEMORY) == to_memory
            and self._masters()
        )

    def interrupt(self) -> None:
        """The channel's interrupt line rose."""
        self.state.status |= INTERRUPT

    def room(self) -> tuple[int, int] | None:
        """(address, length) of what is left of the descriptor in use; None when there is none, or it cannot be read."""
        s = self.state
        while not s.finished:
            at = s.table if s.cursor is None else s.cursor
            descriptor = self._dma.read(at, PRD_SIZE)
            if descriptor is None:
                s.status |= ERROR
                s.status &= ~ACTIVE
                return None
            base = int.from_bytes(descriptor[:4], "little") & ~1
            count = (int.from_bytes(descriptor[4:6], "little") & 0xFFFE) or 0x10000
            s.cursor = at
            if s.used < count:
                return base + s.used, count - s.used
            s.cursor, s.used = at + PRD_SIZE, 0
            s.finished = bool(descriptor[7] & EOT)
        return None

    def _moved(self, count: int) -> None:
        self.state.used += count

    def to_memory(self, data: bytes) -> int:
        """Store `data` along the table; returns how many bytes had room. ACTIVE ends with the table."""
        done = 0
        while done < len(data) and (place := self.room()) is not None:
            address, length = place
            piece = data[done : done + length]
            if not self._dma.write(address, piece):
                self._abort()
                break
            self._moved(len(piece))
            done += len(piece)
        self._end()
        return done

    def from_memory(self, length: int) -> bytes:
        """At most `length` bytes along the table."""
        out = bytearray()
        while len(out) < length and (place := self.room()) is not None:
            address, left = place
            data = self._dma.read(address, min(left, length - len(out)))
            if data is None:
                self._abort()
                break
            self._moved(len(data))
            out += data
        self._end()
        return bytes(out)

    def _abort(self) -> None:
        self.state.status = self.state.status & ~ACTIVE | ERROR

    def _end(self) -> None:
        """After a transfer: ACTIVE falls when the last region has been used up (SFF-8038i)."""
        if not self.state.status & ERROR:
            self.room()
            if self.state.finished:
                self.state.status &= ~ACTIVE

    # -- registers

    def read(self, offset: int) -> int:
        s = self.state
        if offset == 0:
            return s.command
        if offset == 2:
            return s.status
        return s.table >> 8 * (offset - 4) & 0xFF if offset >= 4 else 0

    def write(self, offset: int, value: int) -> None:
        s = self.state
        if offset == 0:
            started = value & START and not s.command & START
            s.command = value & (START | TO_MEMORY)
            if started:
                s.cursor, s.used, s.finished = None, 0, False
                s.status |= ACTIVE
                self.on_start()
            elif not value & START:
                s.status &= ~ACTIVE
        elif offset == 2:
            s.status = s.status & ~(value & (ERROR | INTERRUPT)) & ~CAPABLE | value & CAPABLE
        elif offset >= 4:
            shift = 8 * (offset - 4)
            s.table = (s.table & ~(0xFF << shift) | value << shift) & 0xFFFFFFFC


class BusMasterPorts:
    """16 ports: 8 of the primary channel, 8 of the secondary."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines

    def read(self, offset: int, size: int) -> int:
        return self.peek(offset, size)

    def peek(self, offset: int, size: int) -> int:
        values = (self._engines[at >> 3].read(at & 7) for at in range(offset, offset + size))
        return int.from_bytes(bytes(values), "little")

    def write(self, offset: int, value: int, size: int) -> None:
        for i in range(size):
            at = offset + i
            self._engines[at >> 3].write(at & 7, value >> 8 * i & 0xFF)


class IdeFunction(PciFunction):
    """8086:7010. `channels` are the primary and the secondary; an absent one is None. They decode the legacy ports
    whatever IDETIM says."""

    def __init__(self, dma: Dma, channels: Sequence[IdeChannel | None]) -> None:
        super().__init__("piix3-ide", "Intel 82371SB IDE", (0x8086, 0x7010), 0x010180, command=0x0005)
        self.engines = tuple(Engine(dma, lambda: self.masters) for _ in range(2))
        self.preset(0x06, 0x0280, 2, clears=0x3800)
        self.preset(0x0D, 0, 1, writable=0xF0)
        self.preset(0x40, 0x8000_8000, 4, writable=0xF3FF_F3FF)  # IDETIM: both channels decoded
        self.preset(0x44, 0, 1, writable=0xFF)  # slave timing
        self.add_bar(4, Bar(16, True, BusMasterPorts(self.engines)))
        for engine, channel in zip(self.engines, channels, strict=True):
            if channel is not None:
                channel.attach_dma(engine)

    def reset(self) -> None:
        super().reset()
        for engine in self.engines:
            engine.state = ChannelState()

    def save(self) -> State:
        return State(self.save_pci(), [copy.copy(engine.state) for engine in self.engines])

    def restore(self, state: State) -> None:
        for engine, saved in zip(self.engines, state.channels, strict=True):
            engine.state = copy.copy(saved)
        self.restore_pci(state.pci)

    def view(self) -> DeviceView:
        fields = [*self.pci_fields()]
        for name, engine in zip(("primary", "secondary"), self.engines, strict=True):
            s = engine.state
            command = (
                f"{'started' if s.command & START else 'stopped'}, {'to' if s.command & TO_MEMORY else 'from'} memory"
            )
            flags = ((ACTIVE, "active"), (ERROR, "error"), (INTERRUPT, "interrupt"))
            fields.append(FieldView(f"{name} BMIC", s.command, command))
            fields.append(
                FieldView(f"{name} BMIS", s.status, " ".join(t for bit, t in flags if s.status & bit) or "idle")
            )
            fields.append(FieldView(f"{name} BMIDTP", s.table, "descriptor table"))
        return DeviceView("piix3-ide", self.chip, "PCI 00:01.1", tuple(fields))
