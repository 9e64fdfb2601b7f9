"""The whole machine as one value, and what the values of two runs are compared by."""

from __future__ import annotations

from emu.clock import ClockState
from emu.configuration import MachineConfig
from emu.media import Disk
from emu.pages import Pages
from emu.record import dataclass, field
from emu.typed import Any
from emu.x86.state import CpuState


@dataclass(slots=True)
class MachineState:
    """The whole machine as one value: equal states continue equally."""

    retired: int
    cpu: CpuState
    clock: ClockState
    memory: Pages
    devices: dict[str, Any] = field(default_factory=dict)

    def shared_with(self, last: MachineState | None) -> MachineState:
        """The same with the objects of `last` for the parts that are equal."""
        if last is None:
            return self
        self.cpu = last.cpu if self.cpu == last.cpu else self.cpu
        self.clock = last.clock if self.clock == last.clock else self.clock
        for name, old in last.devices.items():
            if self.devices[name] == old:
                self.devices[name] = old
        if all(self.devices[name] is old for name, old in last.devices.items()):
            self.devices = last.devices
        return self


def media_of(config: MachineConfig) -> list[tuple[str, Disk]]:
    """Every medium under the name that its state has."""
    return (
        [(f"disk{i}", disk) for i, disk in enumerate(config.disks)]
        + [(f"floppy{i}", disk) for i, disk in enumerate(config.floppies)]
        + [(f"virtio-disk{i}", disk) for i, disk in enumerate(config.virtio)]
        + [(f"cdrom{i}", disk) for i, disk in enumerate(config.cdroms)]
    )


def digest(value: object) -> str:
    """BLAKE2b-128 of what a value shows of itself."""
    import hashlib  # of use here alone, and slow to load

    return hashlib.blake2b(repr(value).encode(), digest_size=16).hexdigest()
