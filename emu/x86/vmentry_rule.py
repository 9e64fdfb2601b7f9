"""A rule of VM entry that a CPU state breaks, and what the rules of several files share."""

from __future__ import annotations

from emu.record import dataclass
from emu.x86.register_writes import ACCESS_UNUSABLE
from emu.x86.state import Segment


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that does not hold: `register` is what would have to be loaded anew ("ss", "cr0", "rflags"), `text` says
    it with the values, `source` is the rule's section."""

    register: str
    text: str
    source: str
    unloaded: bool = False  #: it holds only if no descriptor has been loaded into the register (see `unless_loaded`)

    def __str__(self) -> str:
        return f"{self.text} ({self.source})"


def usable(segment: Segment) -> bool:
    """The cache can be used for accesses. A cache of a null selector has no rights at all."""
    access = segment.access
    return not access & ACCESS_UNUSABLE and bool(access & 0xFF)


def canonical(address: int) -> bool:
    """An address of 48 bits, sign-extended."""
    return address >> 47 in (0, 0x1FFFF)
