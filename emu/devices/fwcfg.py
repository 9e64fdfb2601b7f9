"""QEMU's firmware configuration device: how a firmware learns its machine and gets its files.

Port interface as QEMU's docs/specs/fw_cfg.rst describes it: a 16-bit selector at offset 0 (write only), an 8-bit data
register at offset 1. Selecting an item rewinds it; reads past its end give 0. The DMA interface is a 64-bit big-endian
address register of its own ("Guest-side DMA Interface"); without it the ID item says so.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from emu.record import dataclass, replace
from emu.typed import Protocol
from emu.views import DeviceView, FieldView

# Item keys, from the specification's "Select" and "Signature, ID and file directory" sections and QEMU's
# include/standard-headers/linux/qemu_fw_cfg.h.
SIGNATURE = 0x00  #: "QEMU"
ID = 0x01  #: 32-bit feature bitmap: bit 0 the traditional interface, bit 1 DMA
NB_CPUS = 0x05
BOOT_MENU = 0x0E
MAX_CPUS = 0x0F
FILE_DIR = 0x19
FILE_FIRST = 0x20
KEY_MASK = 0x3FFF  #: bit 14 (write channel) and bit 15 (architecture-local) select the namespace
ARCH_LOCAL = 0x8000
IRQ0_OVERRIDE = ARCH_LOCAL + 2
#: The DMA access structure's control word.
DMA_ERROR, DMA_READ, DMA_SKIP, DMA_SELECT, DMA_WRITE = 1, 2, 4, 8, 16
#: What the DMA address register reads, most significant byte first.
DMA_SIGNATURE = b"QEMU CFG"
MAX_NAME = 56  #: bytes of a file's name with its NUL


@dataclass(slots=True)
class State:
    """`selected` is the key last written, `offset` the next byte to read, `address` the upper half of the DMA address
    register."""

    selected: int = 0
    offset: int = 0
    address: int = 0


class Memory(Protocol):
    """Physical memory, as a bus master reaches it."""

    def read(self, address: int, length: int) -> bytes | None:
        """None: nothing is there."""

    def write(self, address: int, data: bytes) -> bool:
        """False: nothing is there."""


class FwCfg:
    """`files` are offered through the directory in order of name; `cpus` is the number of processors."""

    def __init__(self, files: Mapping[str, bytes], cpus: int = 1, memory: Memory | None = None) -> None:
        """`memory` is what the DMA interface reaches; without it there is none."""
        self.dma = None if memory is None else DmaRegister(self, memory)
        items = {
            SIGNATURE: b"QEMU",
            ID: struct.pack("<I", 1 if memory is None else 3),
            NB_CPUS: struct.pack("<H", cpus),
            MAX_CPUS: struct.pack("<H", cpus),
            BOOT_MENU: struct.pack("<H", 0),
            IRQ0_OVERRIDE: struct.pack("<I", 1),
        }
        directory = bytearray(struct.pack(">I", len(files)))
        for key, (name, data) in enumerate(sorted(files.items()), FILE_FIRST):
            encoded = name.encode("ascii")
            if len(encoded) >= MAX_NAME:
                raise ValueError(f"fw_cfg file name {name!r} has {len(encoded)} bytes, {MAX_NAME - 1} is the most")
            directory += struct.pack(f">IHH{MAX_NAME}s", len(data), key, 0, encoded)
            items[key] = data
        items[FILE_DIR] = bytes(directory)
        self._items = items
        self._names = tuple(sorted(files))
        self._state = State()

    def reset(self) -> None:
        self._state = State()

    def _byte(self, advance: bool) -> int:
        state = self._state
        data = self._items.get(state.selected, b"")
        value = data[state.offset] if state.offset < len(data) else 0
        if advance and state.offset < len(data):
            state.offset += 1
        return value

    def read(self, offset: int, size: int) -> int:
        """Offset 1 is data; the selector reads all ones. A 16-bit read at offset 0 gives both ports' bytes."""
        if offset == 1:
            return self._byte(True)
        return 0xFF if size == 1 else 0xFF | self._byte(True) << 8

    def rest(self, most: int | None = None) -> bytes:
        """What further byte reads of the data port would give, as far as it goes, `most` bytes of it."""
        at = self._state.offset
        return self._items.get(self._state.selected, b"")[at : None if most is None else at + most]

    def skip(self, count: int) -> None:
        """As if `count` bytes had been read, at most what is left."""
        self._state.offset += count

    def peek(self, offset: int, size: int) -> int:
        if offset == 1:
            return self._byte(False)
        return 0xFF if size == 1 else 0xFF | self._byte(False) << 8

    def write(self, offset: int, value: int, size: int) -> None:
        """Only the 16-bit write of the selector does anything: data is read-only here, as in QEMU since 2.4."""
        if offset == 0 and size == 2:
            self.select(value)

    def select(self, key: int) -> None:
        self._state = State(key & (KEY_MASK | ARCH_LOCAL), 0, self._state.address)

    def save(self) -> State:
        return replace(self._state)

    def restore(self, state: State) -> None:
        self._state = replace(state)

    def view(self) -> DeviceView:
        state = self._state
        size = len(self._items.get(state.selected, b""))
        return DeviceView(
            "fw_cfg",
            "QEMU firmware configuration",
            "ports 510h-511h",
            (
                FieldView("selected", state.selected, f"item {state.selected:#06x}, {size} bytes"),
                FieldView("offset", state.offset, "next byte"),
                FieldView("files", len(self._names), ", ".join(self._names)),
            ),
        )


class DmaRegister:
    """The DMA address register: eight bytes, most significant first, to be mapped with width 4. A write of its lower
    half carries out the access structure at the address."""

    def __init__(self, config: FwCfg, memory: Memory) -> None:
        self._config, self._memory = config, memory

    def read(self, offset: int, size: int) -> int:
        return self.peek(offset, size)

    def peek(self, offset: int, size: int) -> int:
        return int.from_bytes(DMA_SIGNATURE[offset : offset + size], "little")

    def write(self, offset: int, value: int, size: int) -> None:
        """Only whole halves do anything."""
        if size != 4 or offset not in (0, 4):
            return
        half = int.from_bytes(value.to_bytes(4, "little"), "big")
        state = self._config._state
        if offset == 0:
            state.address = half
            return
        address, state.address = state.address << 32 | half, 0
        structure = self._memory.read(address, 16)
        if structure is None:
            return
        control, length, target = struct.unpack(">IIQ", structure)
        if control & DMA_SELECT:
            self._config.select(control >> 16)
        failed = False
        if control & DMA_READ:
            # Past the end of an item are zeros; no item is larger than what the guest's memory can take.
            data = self._config.rest(length)
            self._config.skip(len(data))
            failed = not self._fill(target, data, length)
        elif control & DMA_WRITE:
            failed = True  # no item can be written
        elif control & DMA_SKIP:
            self._config.skip(len(self._config.rest(length)))
        self._memory.write(address, struct.pack(">I", DMA_ERROR if failed else 0))

    def _fill(self, target: int, data: bytes, length: int) -> bool:
        """`data`, and zeros up to `length`, in pieces that a host can bear."""
        if not self._memory.write(target, data):
            return False
        at = len(data)
        while at < length:
            piece = min(length - at, 1 << 20)
            if not self._memory.write(target + at, bytes(piece)):
                return False
            at += piece
        return True
