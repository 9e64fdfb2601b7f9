"""Services of the built-in BIOS called as its ROM calls them, by a frame in memory, but with no CPU between."""

from __future__ import annotations

from emu.firmware.bios import frame as frames
from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.roms import builtin_bios
from emu.machine import Machine, MachineConfig, build_machine
from emu.media import Disk

SIZE = 20 * 16 * 63 * 512
SEGMENT = 0x3000  #: of the stack that frames are on
WAITS = (frames.SLEEP, frames.SOON, frames.CALL, frames.HANDLER, frames.EXCHANGE)


class Memory(Hardware):
    """What Frame asks of the hardware, over a machine's memory."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def read(self, address: int, length: int) -> bytes:
        return self._machine.read_physical(address, length)

    def write(self, address: int, data: bytes) -> None:
        self._machine.write_physical(address, data)


class Services:
    """A machine behind its POST, halted by the boot sector."""

    def __init__(self, **config: object) -> None:
        sector = b"\xfa\xf4".ljust(510, b"\0") + b"\x55\xaa"
        options: dict[str, object] = {"memory": 4 << 20, "disks": [Disk.from_bytes(sector.ljust(SIZE, b"\0"))]}
        self.machine = build_machine(MachineConfig(firmware=builtin_bios(), bios=True, **options | config))  # type: ignore[arg-type]
        while not any(event.text.startswith("INT 19h bootstrap") for event in self.machine.journal):
            self.machine.run(self.machine.executor.retired + 100_000)
        self.memory = Memory(self.machine)
        self._port = self.machine.board.device_table["bios"]
        self.asked = 0  #: how often the last call wrote to the private port

    def begin(self, number: int, **registers: int) -> int:
        """The frame of a call in memory; its linear address."""
        at = SEGMENT * 16
        self.memory.write(at, bytes(frames.SIZE))
        frame = Frame(self.memory, at)
        frame.number = number
        for name, value in registers.items():
            setattr(frame, name, value)
        frame.flush(self.memory)
        return at

    def ask(self) -> Frame:
        """One write to the private port, and the frame that comes of it."""
        self._port.write(0, SEGMENT << 16, 4)  # type: ignore[attr-defined]
        frame = Frame(self.memory, SEGMENT * 16)
        frame.data[0] = self.memory.read(SEGMENT * 16, 1)[0]
        return frame

    def call(self, number: int, most: int = 100_000, **registers: int) -> Frame:
        """A whole call that waits for nothing but its own next piece."""
        self.begin(number, **registers)
        for self.asked in range(1, most):
            frame = self.ask()
            if frame.action == frames.RETURN:
                return frame
            assert frame.action == frames.SOON
        raise AssertionError(f"not done when asked {most} times")
