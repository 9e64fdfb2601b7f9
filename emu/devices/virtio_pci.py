"""A virtio device on PCI: the transitional transport, with the ports of the legacy interface and the modern registers.

Source: Virtual I/O Device (VIRTIO) 1.2 ("VIRTIO" below): 2.1 device status, 2.2 feature bits, 2.4 device reset, 4.1
virtio over PCI bus (4.1.3 configuration layout, 4.1.4 capabilities, 4.1.4.3 common configuration, 4.1.4.5 ISR status,
4.1.4.9 PCI configuration access, 4.1.4.10 legacy interface), 3.1 device initialization. Interrupts are INTx: there is
no MSI-X capability, as of QEMU's devices with `vectors=0`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence

from emu.clock import Clock
from emu.devices.pci import COMMAND, Bar, Dma, PciFunction, PciState
from emu.devices.virtqueue import BadQueue, Chain, QueueState, Virtqueue, legacy_layout
from emu.record import dataclass, field
from emu.views import DeviceView, FieldView

VENDOR_VIRTIO = 0x1AF4
# Device status (2.1).
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 0x01, 0x02, 0x04, 0x08, 0x40, 0x80
_STATUS_NAMES = (
    (ACKNOWLEDGE, "ACKNOWLEDGE"), (DRIVER, "DRIVER"), (FEATURES_OK, "FEATURES_OK"), (DRIVER_OK, "DRIVER_OK"),
    (NEEDS_RESET, "DEVICE_NEEDS_RESET"), (FAILED, "FAILED"),
)  # fmt: skip
# Feature bits of every device (6).
ANY_LAYOUT, INDIRECT_DESC, EVENT_IDX, VERSION_1 = 1 << 27, 1 << 28, 1 << 29, 1 << 32
# ISR status (4.1.4.5).
QUEUE_INTERRUPT, CONFIG_INTERRUPT = 1, 2
NO_VECTOR = 0xFFFF
# Capability types (4.1.4), and where the structures are in BAR 4, each in a page of its own.
CAP_COMMON, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI = 1, 2, 3, 4, 5
COMMON_AT, ISR_AT, DEVICE_AT, NOTIFY_AT, PAGE = 0x0000, 0x1000, 0x2000, 0x3000, 0x1000
MODERN_BAR, MODERN_SIZE = 4, 0x4000
COMMON_SIZE = 0x38
NOTIFY_MULTIPLIER = 4
VENDOR_CAPABILITY = 0x09
#: Where the capabilities are in configuration space; the last is the window of 4.1.4.9.
CAP_BASE, PCI_CAP = 0x40, 0x84
#: The legacy header without MSI-X (4.1.4.10), the device's configuration behind it.
LEGACY_HEADER = 0x14
LEGACY_PAGE = 12  #: a queue's address is a number of pages there
_MASK64 = (1 << 64) - 1


@dataclass(slots=True)
class State:
    """`features` are the driver's; `*_select` what the banked registers show; `isr` the two causes; `broken` a
    sentence: the driver broke a rule, and nothing is done until it resets the device; `kicked` queues have been
    notified of, `config` is what of the device's configuration was written."""

    pci: PciState = field(default_factory=lambda: PciState(b""))
    features: int = 0
    device_select: int = 0
    driver_select: int = 0
    queue_select: int = 0
    status: int = 0
    isr: int = 0
    broken: str = ""
    kicked: list[bool] = field(default_factory=list)
    queues: list[QueueState] = field(default_factory=list)


class VirtioPci(PciFunction, ABC):
    """Subclasses handle the buffers. `offered` are feature bits, `queues` the sizes of the queues; `latency` is the
    virtual time, ns, from a notification to the first buffer and from one buffer to the next."""

    def __init__(
        self,
        clock: Clock,
        dma: Dma,
        name: str,
        chip: str,
        ids: tuple[int, int],
        class_code: int,
        *,
        offered: int,
        queues: Sequence[int],
        config_size: int,
        latency: int,
    ) -> None:
        """`ids`: the transitional PCI device ID and the virtio device ID."""
        super().__init__(
            name, chip, (VENDOR_VIRTIO, ids[0]), class_code, pin=1, command=0x0507, subsystem=(VENDOR_VIRTIO, ids[1])
        )
        self._clock, self._dma, self._sizes, self._latency = clock, dma, tuple(queues), latency
        self._config_size = config_size
        self.offered = offered | ANY_LAYOUT | INDIRECT_DESC | EVENT_IDX | VERSION_1
        self._timer = clock.timer(name, self._due)
        self._state = State()
        self._queues: list[Virtqueue] = []
        legacy = 1 << (LEGACY_HEADER + config_size - 1).bit_length()
        self.add_bar(0, Bar(legacy, True, LegacyFace(self)))
        self.add_bar(MODERN_BAR, Bar(MODERN_SIZE, False, ModernFace(self), width=8))
        for n, (kind, at, size) in enumerate(
            ((CAP_COMMON, COMMON_AT, COMMON_SIZE), (CAP_ISR, ISR_AT, 1), (CAP_DEVICE, DEVICE_AT, config_size))
        ):
            self._capability(CAP_BASE + 16 * n, kind, at, size)
        self._capability(CAP_BASE + 48, CAP_NOTIFY, NOTIFY_AT, NOTIFY_MULTIPLIER * len(queues), NOTIFY_MULTIPLIER)
        self.add_capability(
            PCI_CAP, VENDOR_CAPABILITY, bytes((20, CAP_PCI)) + bytes(16),
            writable=bytes((0, 0, 0xFF)) + bytes(3) + b"\xff" * 12,
        )  # fmt: skip
        self._initialise()

    def _capability(self, offset: int, kind: int, at: int, size: int, multiplier: int | None = None) -> None:
        tail = b"" if multiplier is None else multiplier.to_bytes(4, "little")
        body = (
            bytes((16 + len(tail), kind, MODERN_BAR, 0, 0, 0)) + at.to_bytes(4, "little") + size.to_bytes(4, "little")
        )
        self.add_capability(offset, VENDOR_CAPABILITY, body + tail)

    # -- for subclasses

    def negotiated(self, bit: int) -> bool:
        """The driver has accepted a feature."""
        return bool(self._state.features & bit)

    @abstractmethod
    def handle(self, chain: Chain) -> int:
        """Do what a buffer asks for; returns how many bytes were written into it. Raises BadQueue."""

    @abstractmethod
    def read_config(self, offset: int) -> int:
        """A byte of the device's configuration, within its size."""

    def write_config(self, offset: int, value: int) -> None:
        """A byte of it is written. Nothing can be changed there unless a device says so."""

    def forget(self) -> None:
        """The device was reset."""

    # -- queues

    def _initialise(self) -> None:
        """Device reset (2.4; 4.1.4.3.1: status reads 0 when it is done, which is at once)."""
        self._timer.cancel()
        self._adopt(State(queues=[QueueState(size) for size in self._sizes], kicked=[False] * len(self._sizes)))
        self.set_intx(False)
        self.forget()

    def _adopt(self, state: State) -> None:
        self._state = state
        self._queues = [Virtqueue(self._dma, queue) for queue in state.queues]
        self._features_changed()

    def _features_changed(self) -> None:
        for queue in self._queues:
            queue.indirect = self.negotiated(INDIRECT_DESC)
            queue.event_index = self.negotiated(EVENT_IDX)

    def _selected(self) -> QueueState | None:
        s = self._state
        return s.queues[s.queue_select] if s.queue_select < len(s.queues) else None

    def kick(self, queue: int) -> None:
        """The driver notifies of buffers in `queue`."""
        if queue < len(self._queues):
            self._state.kicked[queue] = True
            self._plan()

    def _ready(self) -> bool:
        """Buffers may be used. Legacy drivers may give some before they set DRIVER_OK (3.1.2)."""
        s = self._state
        return not s.broken and self.masters and bool(s.status & DRIVER_OK or not self.negotiated(VERSION_1))

    def _plan(self) -> None:
        if any(self._state.kicked) and self._ready() and self._timer.deadline is None:
            self._timer.arm(self._clock.now + self._latency)

    def _due(self, _deadline: int) -> None:
        """One buffer of the first queue that has one."""
        s = self._state
        if not self._ready():
            return
        for n, queue in enumerate(self._queues):
            if not s.kicked[n]:
                continue
            if not queue.state.enabled:
                s.kicked[n] = False
                continue
            try:
                chain = queue.take()
                if chain is None:
                    queue.ask_for_kicks()
                    s.kicked[n] = False
                    continue
                if queue.give(chain, self.handle(chain)):
                    self._interrupt(QUEUE_INTERRUPT)
            except BadQueue as error:
                self._break(str(error))
                return
            break
        self._plan()

    def _break(self, sentence: str) -> None:
        """The device cannot go on (2.1.2); the status bit is of the modern interface only."""
        s = self._state
        s.broken = sentence
        if self.negotiated(VERSION_1):
            s.status |= NEEDS_RESET
            if s.status & DRIVER_OK:
                self._interrupt(CONFIG_INTERRUPT)

    def _interrupt(self, cause: int) -> None:
        self._state.isr |= cause
        self.set_intx(True)

    def read_isr(self) -> int:
        """Reading it clears it, and lowers INTx."""
        isr, self._state.isr = self._state.isr, 0
        self.set_intx(False)
        return isr

    def configured(self, offset: int, size: int) -> None:
        if offset <= COMMAND < offset + size:
            self._plan()
        if offset < PCI_CAP + 20 and offset + size > PCI_CAP + 16:
            self._through_config(self.word(PCI_CAP + 16, 4))

    # -- the window in configuration space (4.1.4.9)

    def _through(self) -> tuple[int, int] | None:
        """(offset in BAR 4, size) of the access that it stands for."""
        at, size = self.word(PCI_CAP + 8, 4), self.word(PCI_CAP + 12, 4)
        sound = self.config[PCI_CAP + 4] == MODERN_BAR and size in (1, 2, 4)
        return (at, size) if sound and not at % size and at + size <= MODERN_SIZE else None

    def _through_config(self, value: int) -> None:
        if (where := self._through()) is not None:
            at, size = where
            self.write_modern(at, value & (1 << 8 * size) - 1, size)

    def config_load(self, offset: int, size: int) -> int:
        if offset < PCI_CAP + 20 and offset + size > PCI_CAP + 16 and (where := self._through()) is not None:
            at, width = where
            self.config[PCI_CAP + 16 : PCI_CAP + 16 + width] = self.read_modern(at, width).to_bytes(width, "little")
        return super().config_load(offset, size)

    # -- registers, common to both interfaces

    def set_status(self, value: int, *, modern: bool) -> None:
        """A byte was written to the device status. 0 resets."""
        s = self._state
        if not value:
            self._initialise()
            return
        if modern and value & FEATURES_OK and not s.status & FEATURES_OK and not self.negotiated(VERSION_1):
            value &= ~FEATURES_OK  # 6.1: without VERSION_1 the modern interface is not for this driver
        s.status = value | s.status & NEEDS_RESET
        self._plan()

    def set_features(self, half: int, value: int) -> None:
        """The driver's bits 32 * `half` on. Bits that were not offered are not taken (3.1.1, step 5, then fails)."""
        s = self._state
        if s.status & FEATURES_OK or half > 1:
            return
        s.features = (s.features & ~(0xFFFFFFFF << 32 * half) | value << 32 * half) & self.offered
        self._features_changed()

    # -- registers of the modern interface

    def _common(self) -> bytes:
        s = self._state
        q = self._selected() or QueueState(0)
        fields = (
            (s.device_select, 4), (self.offered >> 32 * s.device_select & 0xFFFFFFFF if s.device_select < 2 else 0, 4),
            (s.driver_select, 4), (s.features >> 32 * s.driver_select & 0xFFFFFFFF if s.driver_select < 2 else 0, 4),
            (NO_VECTOR, 2), (len(self._queues), 2), (s.status, 1), (0, 1), (s.queue_select, 2), (q.size, 2),
            (NO_VECTOR, 2), (q.enabled, 2), (s.queue_select if q.size else 0, 2),
            (q.descriptors, 8), (q.available, 8), (q.used, 8),
        )  # fmt: skip
        return b"".join(int(value).to_bytes(size, "little") for value, size in fields)

    def read_modern(self, offset: int, size: int) -> int:
        """BAR 4."""
        if offset == ISR_AT:
            return self.read_isr()
        return self.peek_modern(offset, size)

    def peek_modern(self, offset: int, size: int) -> int:
        """The same, without side effects."""
        page, at = offset & ~(PAGE - 1), offset & PAGE - 1
        if page == ISR_AT:
            return self._state.isr if not at else 0
        if page == DEVICE_AT:
            return self._config(at, size)
        data = self._common() if page == COMMON_AT else b""
        return int.from_bytes(data[at : at + size], "little")

    def _config(self, at: int, size: int) -> int:
        known = range(at, min(at + size, self._config_size))
        return int.from_bytes(bytes(self.read_config(i) for i in known), "little")

    def write_modern(self, offset: int, value: int, size: int) -> None:
        """BAR 4. A notification is the write itself, whatever its value (4.1.4.4)."""
        page, at = offset & ~(PAGE - 1), offset & PAGE - 1
        if page == NOTIFY_AT:
            self.kick(at // NOTIFY_MULTIPLIER)
        elif page == DEVICE_AT:
            for i in range(at, min(at + size, self._config_size)):
                self.write_config(i, value >> 8 * (i - at) & 0xFF)
        elif page == COMMON_AT:
            self._write_common(at, value, size)

    def _write_common(self, at: int, value: int, size: int) -> None:
        """Fields take accesses of their own width, 64-bit ones halves too (4.1.3.1); others do nothing."""
        s = self._state
        if (at, size) == (0x00, 4):
            s.device_select = value
        elif (at, size) == (0x08, 4):
            s.driver_select = value
        elif (at, size) == (0x0C, 4):
            self.set_features(s.driver_select, value)
        elif (at, size) == (0x14, 1):
            self.set_status(value, modern=True)
        elif (at, size) == (0x16, 2):
            s.queue_select = value
        elif (queue := self._selected()) is not None and not queue.enabled:
            self._write_queue(queue, at, value, size)

    def _write_queue(self, queue: QueueState, at: int, value: int, size: int) -> None:
        if (at, size) == (0x18, 2):
            if 0 < value <= self._sizes[self._state.queue_select] and not value & value - 1:
                queue.size = value
        elif (at, size) == (0x1C, 2):
            queue.enabled = value == 1
        elif 0x20 <= at < COMMON_SIZE and size in (4, 8) and at & size - 1 == 0:
            name = ("descriptors", "available", "used")[at - 0x20 >> 3]
            shift = 8 * (at & 7)
            mask = (1 << 8 * size) - 1
            setattr(queue, name, (getattr(queue, name) & ~(mask << shift) | value << shift) & _MASK64)

    # -- registers of the legacy interface

    def read_legacy(self, offset: int, size: int) -> int:
        """BAR 0."""
        if offset == 0x13:
            return self.read_isr()
        return self.peek_legacy(offset, size)

    def peek_legacy(self, offset: int, size: int) -> int:
        """The same, without side effects."""
        s = self._state
        if offset >= LEGACY_HEADER:
            return self._config(offset - LEGACY_HEADER, size)
        q = self._selected()
        page = q.descriptors >> LEGACY_PAGE if q is not None and q.enabled else 0
        fields = (
            (self.offered & 0xFFFFFFFF, 4), (s.features & 0xFFFFFFFF, 4), (page & 0xFFFFFFFF, 4),
            (0 if q is None else q.size, 2), (s.queue_select, 2), (0, 2), (s.status, 1), (s.isr, 1),
        )  # fmt: skip
        data = b"".join(int(value).to_bytes(width, "little") for value, width in fields)
        return int.from_bytes(data[offset : offset + size], "little")

    def write_legacy(self, offset: int, value: int, size: int) -> None:
        """BAR 0."""
        s = self._state
        if offset >= LEGACY_HEADER:
            for i in range(min(size, self._config_size + LEGACY_HEADER - offset)):
                self.write_config(offset - LEGACY_HEADER + i, value >> 8 * i & 0xFF)
        elif (offset, size) == (0x04, 4):
            self.set_features(0, value)
        elif (offset, size) == (0x08, 4):
            if (queue := self._selected()) is not None:
                queue.enabled = bool(value)
                legacy_layout(queue, value << LEGACY_PAGE)
        elif (offset, size) == (0x0E, 2):
            s.queue_select = value
        elif (offset, size) == (0x10, 2):
            self.kick(value)
        elif (offset, size) == (0x12, 1):
            self.set_status(value, modern=False)

    # -- state

    def reset(self) -> None:
        super().reset()
        self._initialise()

    def save(self) -> State:
        saved = copy.deepcopy(self._state)
        saved.pci = self.save_pci()
        return saved

    def restore(self, state: State) -> None:
        """The timer comes back with the clock, the interrupt line with its receivers."""
        self._adopt(copy.deepcopy(state))
        self.restore_pci(state.pci)

    def fields(self) -> list[FieldView]:
        """What every virtio device shows."""
        s = self._state
        kind = "modern" if self.negotiated(VERSION_1) else "legacy"
        found = [
            *self.pci_fields(),
            FieldView("status", s.status, " ".join(name for bit, name in _STATUS_NAMES if s.status & bit) or "reset"),
            FieldView("features", s.features, f"{kind} driver, offered {self.offered:#x}"),
            FieldView("ISR", s.isr, "queue" if s.isr & QUEUE_INTERRUPT else ""),
        ]
        if s.broken:
            found.append(FieldView("broken", s.broken, "nothing is done until the driver resets the device"))
        for n, q in enumerate(s.queues):
            text = f"descriptors {q.descriptors:#x}, available {q.available:#x}, used {q.used:#x}"
            found.append(FieldView(f"queue {n}", q.given, f"of {q.size} {'' if q.enabled else 'disabled '}{text}"))
        return found

    def view(self) -> DeviceView:
        return DeviceView(self.name, self.chip, "PCI", tuple(self.fields()))


class LegacyFace:
    """BAR 0. Each field is accessed by its own width; the bus splits what is wider."""

    def __init__(self, chip: VirtioPci) -> None:
        self._chip = chip

    def read(self, offset: int, size: int) -> int:
        return self._chip.read_legacy(offset, size)

    def peek(self, offset: int, size: int) -> int:
        return self._chip.peek_legacy(offset, size)

    def write(self, offset: int, value: int, size: int) -> None:
        self._chip.write_legacy(offset, value, size)


class ModernFace:
    """BAR 4."""

    def __init__(self, chip: VirtioPci) -> None:
        self._chip = chip

    def read(self, offset: int, size: int) -> int:
        return self._chip.read_modern(offset, size)

    def peek(self, offset: int, size: int) -> int:
        return self._chip.peek_modern(offset, size)

    def write(self, offset: int, value: int, size: int) -> None:
        self._chip.write_modern(offset, value, size)
