"""Values that only people's front ends show, beside those of `emu.views`."""

from __future__ import annotations

from emu.record import dataclass, field
from emu.views import InstructionView


@dataclass(frozen=True, slots=True)
class MemoryView:
    """Memory as `x` shows it. `unit` is in bytes, `format` one of x d u o t a c s (s: strings ending in NUL);
    `labels` gives a symbol for some addresses; `lost` is the first address that could not be read."""

    space: str  #: linear or physical
    address: int
    unit: int
    format: str
    data: bytes
    labels: dict[int, str] = field(default_factory=dict)
    lost: int | None = None


@dataclass(frozen=True, slots=True)
class ValueView:
    """A number somebody asked for; `bits` its width where it has one."""

    name: str
    value: int
    bits: int | None = None


@dataclass(frozen=True, slots=True)
class PositionView:
    """Where the CPU is: shown at stops, by `status`, and in the toolbar. None: unknown, or not counted."""

    mode: str
    selector: int
    offset: int
    linear: int | None
    retired: int | None
    virtual_ns: int | None
    running: bool
    label: str = ""
    next: InstructionView | None = None


@dataclass(frozen=True, slots=True)
class CodeView:
    """Instructions, with the symbols some of them have. Offsets up to `limit` are within CS, `selector`."""

    instructions: tuple[InstructionView, ...]
    selector: int
    limit: int
    labels: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FindingView:
    """One line of `v2e doctor`: `ok` is None for what is merely absent."""

    name: str
    ok: bool | None
    text: str
