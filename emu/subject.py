"""What can be inspected: a running machine, a live Xen domain, or a file. Values may be unknown."""

from __future__ import annotations

from collections.abc import Collection

from emu.typed import Protocol, runtime_checkable
from emu.views import DeviceView, PictureView, RegionView, ScreenView
from emu.x86.registers import MSRS
from emu.x86.state import CpuState

#: How the parts of a register's name say which field of a segment or table it is.
_FIELDS = {"base": "base", "limit": "limit", "attr": "access"}
#: What a register that is made from others needs.
_DERIVED = {"mode": "cs.width", "cpl": "cpl"}


def is_unknown(register: str, unknown: Collection[str]) -> bool:
    """True for a register of `emu.x86.registers.REGISTERS` that depends on something in `unknown`: names as those of
    `Subject.unknown`."""
    if not unknown:
        return False
    stem, _, part = register.partition("_")
    word = _DERIVED.get(register, f"{stem}.{_FIELDS[part]}" if part in _FIELDS else register)
    return word in unknown or stem in unknown or (register in MSRS and "msrs" in unknown)


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
        """Names of state this subject cannot know: a core has no hidden state. "cs" is all of CS, "cs.base" and
        "cs.access" a part of it, "gdtr" a table register; "cs.width" is whether the next instruction is 16, 32 or 64
        bits wide, "cpl" the privilege level, "msrs" every model-specific register."""

    def read_physical(self, address: int, length: int) -> bytes:
        """RAM and ROM. Raises MemoryUnavailable at the first byte that is neither."""

    def readable_physical(self, address: int, length: int) -> int:
        """How many of `length` bytes from physical `address` are RAM or ROM, from the first on."""

    def write_physical(self, address: int, data: bytes) -> None:
        """RAM and ROM, as a debugger writes. Raises MemoryUnavailable, with nothing written."""

    def check_write(self, address: int, data: bytes) -> None:
        """Raises MemoryUnavailable where `write_physical` would; writes nothing."""

    def load_cpu(self, state: CpuState, cpu: int = 0) -> None: ...

    def memory_map(self) -> tuple[RegionView, ...]: ...

    def port_map(self) -> tuple[RegionView, ...]: ...

    def devices(self) -> tuple[DeviceView, ...]: ...

    def screen(self) -> ScreenView: ...
    def picture(self) -> PictureView: ...


@runtime_checkable
class Several(Protocol):
    """A subject of several vCPUs, of which one is shown as the only one. `about` says which, in a few words."""

    @property
    def shown(self) -> int: ...

    @property
    def about(self) -> str: ...

    def vcpus(self) -> tuple[int, ...]:
        """Their numbers, ascending."""

    def show(self, cpu: int) -> None:
        """From now on `cpu` is the one that is shown. Raises ValueError where there is none of that number."""
