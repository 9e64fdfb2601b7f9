"""What can be inspected: a running machine, a live Xen domain, or a file. Values may be unknown."""

from __future__ import annotations

from typing import Protocol

from emu.views import DeviceView, PictureView, RegionView, ScreenView
from emu.x86.state import CpuState


class MemoryUnavailable(Exception):
    """No memory can be read or written at `address` (physical, or linear where the text says so)."""

    def __init__(self, address: int, why: str) -> None:
        super().__init__(f"{address:#x}: {why}")
        self.address, self.why = address, why


class Subject(Protocol):
    """Inspection only. Reading never has side effects on the guest or its devices."""

    read_only: bool

    def cpu_count(self) -> int: ...

    def cpu_state(self, cpu: int = 0) -> CpuState: ...

    def unknown(self, cpu: int = 0) -> frozenset[str]:
        """Names of state this subject cannot know ("cs.base", "gdtr"): a core has no hidden state."""

    def read_physical(self, address: int, length: int) -> bytes:
        """RAM and ROM. Raises MemoryUnavailable at the first byte that is neither."""

    def readable_physical(self, address: int, length: int) -> int:
        """How many of `length` bytes from physical `address` are RAM or ROM, from the first on."""

    def write_physical(self, address: int, data: bytes) -> None:
        """RAM and ROM, as a debugger writes. Raises MemoryUnavailable, with nothing written."""

    def load_cpu(self, state: CpuState, cpu: int = 0) -> None: ...

    def memory_map(self) -> tuple[RegionView, ...]: ...

    def port_map(self) -> tuple[RegionView, ...]: ...

    def devices(self) -> tuple[DeviceView, ...]: ...

    def screen(self) -> ScreenView: ...
    def picture(self) -> PictureView: ...
