"""The private port: takes a service's frame, has the service done, notes it as an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emu.devices.copied import copied
from emu.firmware.bios import frame as frames
from emu.firmware.bios.boot import Boot
from emu.firmware.bios.disk import Disks
from emu.firmware.bios.frame import Frame
from emu.firmware.bios.hardware import Hardware
from emu.firmware.bios.keyboard import Keys
from emu.firmware.bios.post import Post
from emu.firmware.bios.serial import Lines
from emu.firmware.bios.state import BiosState
from emu.firmware.bios.system import System
from emu.firmware.bios.time import Time
from emu.firmware.bios.video import Video
from emu.views import DeviceView, FieldView

POST = 0x100


class BiosServices:
    """Mapped at layout.BIOS_SERVICE, four ports: a dword written is SS and SP of a frame. What a service keeps beyond
    a call is in the guest's memory, as its frame or in the BIOS data areas; `state` is the rest."""

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self.state = BiosState()
        self._asked: Frame | None = None  #: for the last time
        video, keys, lines = Video(hardware), Keys(hardware), Lines(hardware)
        disks = Disks(hardware, self)
        boot = Boot(hardware, self, disks, video.say)
        system, time = System(hardware), Time(hardware)
        self._services: dict[int, Callable[[Frame], None]] = {
            0x09: keys.pressed,
            0x10: video.service,
            0x11: system.equipment,
            0x12: system.memory_size,
            0x13: disks.service,
            0x14: lines.serial,
            0x15: system.service,
            0x16: keys.service,
            0x17: lines.printer,
            0x18: boot.next,
            0x19: boot.first,
            0x1A: time.service,
            0x40: disks.service,
            0x74: system.mouse.byte_came,
            POST: Post(hardware, disks).run,
        }

    def read(self, offset: int, size: int) -> int:
        """All ones, as where nothing is."""
        return (1 << 8 * size) - 1

    peek = read

    def write(self, offset: int, value: int, size: int) -> None:
        """Anything but a dword at the first port does nothing."""
        if offset or size != 4:
            return
        frame = Frame(self._hardware, (value >> 16) * 16 + (value & 0xFFFF))
        service = self._services.get(frame.number)
        if service is None:
            return
        service(frame)
        frame.flush(self._hardware)
        self.state.calls += 1
        self._asked = frame
        if frame.action == frames.RETURN and frame.name:
            self._hardware.note(_sentence(frame.number, frame.name, frame.result, frame.failed))

    def awaits(self, linear: int) -> str | None:
        """The call, in words, that is not done until the byte there says so; None if it is another byte, or another
        call than the last one that was asked for."""
        f = self._asked
        if f is None or f.linear != linear or not f.name:
            return None
        now = Frame(self._hardware, linear)
        if now.was not in (frames.SLEEP, frames.SOON) or now.number != f.number:
            return None
        return f"INT {f.number:02X}h ({f.name[0] % f.name[1:]})"

    def reset(self) -> None:
        self.state = BiosState()

    def save(self) -> BiosState:
        return copied(self.state)

    def restore(self, state: BiosState) -> None:
        self.state = copied(state)

    def view(self) -> DeviceView:
        s = self.state
        emulated = "none" if s.emulation is None else s.emulation.text
        return DeviceView(
            "bios",
            "built-in BIOS",
            "port C90h",
            (FieldView("calls", s.calls), FieldView("boot attempt", s.attempt), FieldView("emulated drive", emulated)),
        )


def _sentence(number: int, name: tuple[Any, ...], result: tuple[Any, ...], failed: bool) -> Callable[[], str]:
    """What makes the text of an event: nobody may ever look at it."""

    def text() -> str:
        came = f" -> {result[0] % result[1:]}" if result else ", failed" if failed else ""
        where = f"INT {number:02X}h " if number < POST else ""
        return f"{where}{name[0] % name[1:]}{came}"

    return text
