"""PCI configuration: mechanism 1 (CF8h-CFFh), bus 0, and what every function has: config space, BARs, an INTx pin.

Source: PCI Local Bus Specification 2.1 ("PCI" below): 3.7.4.1 configuration mechanism #1, 6.1-6.2 configuration space,
6.2.5.1 address maps (sizing a BAR by writing ones). Port CF9h, between the two registers, is the chipset's reset
control and passes through.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.record import dataclass
from emu.typed import Protocol
from emu.views import DeviceView, FieldView

# Offsets in the configuration header (PCI, figure 6-1).
VENDOR, DEVICE, COMMAND, STATUS, REVISION, CLASS, HEADER_TYPE = 0x00, 0x02, 0x04, 0x06, 0x08, 0x09, 0x0E
BAR0, ROM_BAR, SUBSYSTEM_VENDOR, SUBSYSTEM, CAPABILITIES, INTERRUPT_LINE, INTERRUPT_PIN = (
    0x10,
    0x30,
    0x2C,
    0x2E,
    0x34,
    0x3C,
    0x3D,
)
# Command register (PCI, table 6-1).
IO_SPACE, MEMORY_SPACE, BUS_MASTER, INTX_DISABLE = 0x0001, 0x0002, 0x0004, 0x0400
STATUS_CAPABILITIES = 0x0010
#: CONFADD: bit 31 enables configuration cycles.
ENABLE = 1 << 31
ONES = 0xFFFFFFFF
#: What QEMU gives its devices, by which SeaBIOS knows that it may ask for fw_cfg (QEMU docs/specs/pci-ids.rst).
SUBSYSTEM_ID = (0x1AF4, 0x1100)


class Face(Protocol):
    """What stands behind a BAR."""

    def read(self, offset: int, size: int) -> int: ...
    def write(self, offset: int, value: int, size: int) -> None: ...
    def peek(self, offset: int, size: int) -> int: ...


class Dma(Protocol):
    """Physical memory as a PCI bus master reaches it: where nothing answers its cycle is aborted."""

    def read(self, address: int, length: int) -> bytes | None:
        """None: a master abort, somewhere in the range."""

    def write(self, address: int, data: bytes) -> bool:
        """False: a master abort, with nothing written. ROM takes the cycle, and keeps what it has."""

    def reaches(self, address: int, length: int) -> bool:
        """Something answers every byte of the range."""


@dataclass(frozen=True, slots=True)
class Bar:
    """`size` bytes, a power of two; `width` is the widest access that `face` takes whole. `memory` names the RAM that
    stands there instead of a face (a frame buffer, a ROM)."""

    size: int
    io: bool
    face: Face | None
    width: int = 4
    prefetchable: bool = False
    memory: str = ""
    rom: bool = False  #: that memory takes no writes


@dataclass(frozen=True, slots=True)
class Window:
    """A BAR that is decoded now."""

    base: int
    bar: Bar
    name: str


@dataclass(slots=True)
class PciState:
    """The 256 bytes of configuration space, and the INTx line."""

    config: bytes
    intx: bool = False


class PciFunction:
    """One function. `on_map` is called when what its BARs decode may have changed, `on_intx(level)` drives its pin."""

    def __init__(
        self,
        name: str,
        chip: str,
        ids: tuple[int, int],
        class_code: int,
        *,
        revision: int = 0,
        header: int = 0,
        pin: int = 0,
        command: int = 0,
        subsystem: tuple[int, int] = SUBSYSTEM_ID,
    ) -> None:
        """`class_code` is base class, sub-class and interface; `command` the bits of that register that can be set;
        `pin` 0 none, 1-4 INTA# to INTD#."""
        self.name, self.chip = name, chip
        self.on_map: Callable[[], None] = lambda: None
        self.on_intx: Callable[[bool], None] = lambda level: None
        self.bars: dict[int, Bar] = {}
        self.rom: Bar | None = None
        self.intx = False
        self._initial = bytearray(256)
        self._writable = bytearray(256)
        self._clears = bytearray(256)  # bits that writing 1 clears
        self.config = bytearray(256)
        self.preset(VENDOR, ids[0], 2)
        self.preset(DEVICE, ids[1], 2)
        self.preset(REVISION, revision, 1)
        self.preset(CLASS, class_code, 3)
        self.preset(HEADER_TYPE, header, 1)
        self.preset(SUBSYSTEM_VENDOR, subsystem[0], 2)
        self.preset(SUBSYSTEM, subsystem[1], 2)
        self.preset(INTERRUPT_PIN, pin, 1)
        self.preset(COMMAND, 0, 2, writable=command)
        if pin:
            self.preset(INTERRUPT_LINE, 0, 1, writable=0xFF)

    def preset(self, offset: int, value: int, size: int, *, writable: int = 0, clears: int = 0) -> None:
        """What `size` bytes from `offset` hold after reset, which bits of them can be written, and which are cleared
        by writing 1."""
        for store, bits in ((self._initial, value), (self._writable, writable), (self._clears, clears)):
            store[offset : offset + size] = bits.to_bytes(size, "little")
        self.config[offset : offset + size] = value.to_bytes(size, "little")

    def add_bar(self, index: int, bar: Bar) -> None:
        """BAR `index` (0-5)."""
        self.bars[index] = bar
        kind = 1 if bar.io else 8 if bar.prefetchable else 0
        self.preset(BAR0 + 4 * index, kind, 4, writable=ONES & ~(bar.size - 1))

    def add_rom(self, bar: Bar) -> None:
        """The expansion ROM; its own bit 0 enables it (PCI, 6.2.5.2)."""
        self.rom = bar
        self.preset(ROM_BAR, 0, 4, writable=ONES & ~(bar.size - 1) | 1)

    def add_capability(self, offset: int, number: int, body: bytes, *, writable: bytes = b"") -> None:
        """A capability at `offset`, before those that were added earlier (PCI 2.2, 6.7)."""
        head = bytes((number, self._initial[CAPABILITIES]))
        for i, byte in enumerate(head + body):
            mask = writable[i - 2] if i >= 2 and i - 2 < len(writable) else 0
            self.preset(offset + i, byte, 1, writable=mask)
        self.preset(CAPABILITIES, offset, 1)
        self.preset(STATUS, self.word(STATUS) | STATUS_CAPABILITIES, 2)

    # -- configuration

    def word(self, offset: int, size: int = 2) -> int:
        return int.from_bytes(self.config[offset : offset + size], "little")

    def config_read(self, offset: int, size: int) -> int:
        """Without side effects."""
        return self.word(offset, size)

    def config_load(self, offset: int, size: int) -> int:
        """As the bus reads, for chips whose registers do something then."""
        return self.config_read(offset, size)

    def config_write(self, offset: int, value: int, size: int) -> None:
        """Of each byte, the bits that can be written."""
        for i, byte in enumerate(value.to_bytes(size, "little"), offset):
            mask, old = self._writable[i], self.config[i]
            self.config[i] = (old & ~mask | byte & mask) & ~(byte & self._clears[i])
        if offset < ROM_BAR + 4 and offset + size > COMMAND:
            self.on_map()
        if offset <= COMMAND + 1 < offset + size:
            self._drive()
        self.configured(offset, size)

    def configured(self, offset: int, size: int) -> None:
        """For chips that act on their registers."""

    def windows(self) -> list[Window]:
        """The BARs decoded now. Address 0 and one that wraps decode nothing, as on QEMU."""
        found, command = [], self.word(COMMAND)
        for index, bar in self.bars.items():
            base = self.word(BAR0 + 4 * index, 4) & ONES & ~(bar.size - 1)
            top = 0x10000 if bar.io else 1 << 32
            if command & (IO_SPACE if bar.io else MEMORY_SPACE) and base and base + bar.size <= top:
                found.append(Window(base, bar, self.name))
        value = self.word(ROM_BAR, 4)
        if self.rom is not None and command & MEMORY_SPACE and value & 1:
            base = value & ~(self.rom.size - 1) & ONES
            if base and base + self.rom.size <= 1 << 32:
                found.append(Window(base, self.rom, self.name))
        return found

    @property
    def masters(self) -> bool:
        """It may access memory by itself."""
        return bool(self.word(COMMAND) & BUS_MASTER)

    # -- INTx

    def set_intx(self, level: bool) -> None:
        self.intx = level
        self._drive()

    def _drive(self) -> None:
        self.on_intx(self.intx and not self.word(COMMAND) & INTX_DISABLE)

    # -- state

    def reset(self) -> None:
        self.config[:] = self._initial
        self.intx = False
        self._drive()
        self.on_map()

    def save_pci(self) -> PciState:
        return PciState(bytes(self.config), self.intx)

    def restore_pci(self, state: PciState) -> None:
        """The lines it drives come back with their receivers."""
        self.config[:] = state.config
        self.intx = state.intx
        self.on_map()

    def pci_fields(self) -> tuple[FieldView, ...]:
        ids = f"{self.word(VENDOR):04x}:{self.word(DEVICE):04x}"
        command = self.word(COMMAND)
        names = ((IO_SPACE, "I/O"), (MEMORY_SPACE, "memory"), (BUS_MASTER, "bus master"), (INTX_DISABLE, "no INTx"))
        fields = [
            FieldView("ID", ids, f"class {self.word(CLASS, 3):06x}, revision {self.config[REVISION]}"),
            FieldView("command", command, " ".join(text for bit, text in names if command & bit) or "off"),
        ]
        for index, bar in self.bars.items():
            value, kind = self.word(BAR0 + 4 * index, 4), "ports" if bar.io else "memory"
            fields.append(FieldView(f"BAR{index}", value, f"{bar.size:#x} bytes of {kind}"))
        if self.rom is not None:
            on = "enabled" if self.word(ROM_BAR, 4) & 1 else "disabled"
            fields.append(FieldView("ROM", self.word(ROM_BAR, 4), f"{self.rom.size:#x} bytes, {on}"))
        if self.config[INTERRUPT_PIN]:
            pin = f"INT{chr(64 + self.config[INTERRUPT_PIN])}# {'asserted' if self.intx else 'inactive'}"
            fields.append(FieldView("interrupt", self.config[INTERRUPT_LINE], pin))
        return tuple(fields)


@dataclass(slots=True)
class HostState:
    """CONFADD."""

    address: int = 0


class PciHost:
    """Ports CF8h-CFFh, to be mapped with width 4. `functions` maps (device, function) of bus 0; `passed` is the device
    at CF9h, for byte accesses."""

    def __init__(self, passed: Face) -> None:
        self.functions: dict[tuple[int, int], PciFunction] = {}
        self._passed = passed
        self._address = 0

    def add(self, device: int, function: int, chip: PciFunction) -> None:
        """Raises ValueError when the place is taken."""
        if (device, function) in self.functions:
            raise ValueError(f"PCI 00:{device:02x}.{function} is taken")
        self.functions[device, function] = chip

    def windows(self) -> list[Window]:
        """All BARs decoded now, in order of device and function: the first claims what overlaps."""
        return [window for _, chip in sorted(self.functions.items()) for window in chip.windows()]

    def _target(self, offset: int, size: int) -> tuple[PciFunction | None, int]:
        address = self._address
        if not address & ENABLE or address >> 16 & 0xFF or offset + size > 8:
            return None, 0
        chip = self.functions.get((address >> 11 & 31, address >> 8 & 7))
        return chip, address & 0xFC | offset & 3

    def read(self, offset: int, size: int) -> int:
        if offset == 1 and size == 1:
            return self._passed.read(0, 1)
        chip, register = self._target(offset, size)
        return self.peek(offset, size) if offset < 4 or chip is None else chip.config_load(register, size)

    def peek(self, offset: int, size: int) -> int:
        if offset < 4:
            if offset == 0 and size == 4:
                return self._address
            return self._passed.peek(0, 1) if offset == 1 and size == 1 else ONES >> 32 - 8 * size
        chip, register = self._target(offset, size)
        # A master abort of a read gives all ones (PCI, 3.7.4.1).
        return ONES >> 32 - 8 * size if chip is None else chip.config_read(register, size)

    def write(self, offset: int, value: int, size: int) -> None:
        if offset < 4:
            if offset == 0 and size == 4:
                self._address = value & 0x80FFFFFC
            elif offset == 1 and size == 1:
                self._passed.write(0, value, 1)
            return
        chip, register = self._target(offset, size)
        if chip is not None:
            chip.config_write(register, value, size)

    def reset(self) -> None:
        self._address = 0

    def save(self) -> HostState:
        return HostState(self._address)

    def restore(self, state: HostState) -> None:
        self._address = state.address

    def view(self) -> DeviceView:
        address = self._address
        where = f"bus {address >> 16 & 255}, device {address >> 11 & 31}, function {address >> 8 & 7}"
        fields = [FieldView("CONFADD", address, f"{where}, register {address & 0xFC:02x}h")]
        for (device, function), chip in sorted(self.functions.items()):
            ids = f"{chip.word(VENDOR):04x}:{chip.word(DEVICE):04x}"
            fields.append(FieldView(f"00:{device:02x}.{function}", ids, f"{chip.name}: {chip.chip}"))
        return DeviceView("pci", "PCI host, configuration mechanism 1", "ports CF8h-CFFh", tuple(fields))
