"""A CPU's registers as far as they are known in a frame. Knows no gdb."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .decode import CS, SS

#: General registers as instructions number them.
AX, CX, DX, BX, SP, BP, SI, DI = range(8)
#: Bits of a segment's type (SDM vol. 3A, table 3-1); E is of data segments alone.
_CODE, _EXPANDS_DOWN = 8, 4
#: `read(linear, length)`: guest memory without side effects, None where there is none.
Read = Callable[[int, int], "bytes | None"]
#: A segment's limit and access rights in virtual-8086 mode: 64 KiB of writable data at DPL 3, 16 bits wide.
V86_LIMIT, V86_ATTR = 0xFFFF, 0xF3


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment register's selector and what the CPU has cached for it. `big`: the D or B bit. `limit` (in bytes) and
    `attr` (access rights as v2e's *_attr have them) are carried along for who is shown them."""

    selector: int | None
    base: int | None
    big: bool = False
    limit: int | None = None
    attr: int | None = None

    def holds(self, offset: int) -> bool:
        """Whether the byte at `offset` is within the limit (SDM vol. 3A, 5.3); True where limit or rights are not
        known."""
        if self.limit is None or self.attr is None:
            return True
        if self.attr & (_CODE | _EXPANDS_DOWN) == _EXPANDS_DOWN:
            return self.limit < offset <= (0xFFFFFFFF if self.big else 0xFFFF)
        return offset <= self.limit

    def real(self, selector: int) -> Segment:
        """After a load of `selector` in real mode, which leaves limit and rights as they are (big real mode)."""
        selector &= 0xFFFF
        return Segment(selector, selector << 4, self.big, self.limit, self.attr)  # `replace` takes three times as long

    @classmethod
    def virtual(cls, selector: int | None) -> Segment:
        """What IRET to virtual-8086 mode makes of any segment register (SDM vol. 3A, 20.2.5; vol. 3C, 26.3.1.2)."""
        selector = None if selector is None else selector & 0xFFFF
        return cls(selector, None if selector is None else selector << 4, False, V86_LIMIT, V86_ATTR)


#: `load(selector)`: what a protected-mode CPU would cache, None where the tables do not say.
Load = Callable[[int], "Segment | None"]


@dataclass(slots=True)
class Cpu:
    """Registers as far as they are known. `general` in the order of their encoding, `segments` likewise (ES to GS).
    `protected` is CR0.PE without EFLAGS.VM; `cr0` its bits, PG among them."""

    general: list[int | None]
    segments: list[Segment]
    ip: int
    flags: int | None = None
    protected: bool = False
    cpl: int = 0
    cr0: int | None = None

    @property
    def pc(self) -> int | None:
        """The linear address of the next instruction."""
        base = self.segments[CS].base
        return None if base is None else (base + self.ip) & 0xFFFFFFFF

    @property
    def stack(self) -> int | None:
        """The linear address of the top of the stack."""
        base, offset = self.segments[SS].base, self.general[SP]
        if base is None or offset is None:
            return None
        return (base + (offset if self.segments[SS].big else offset & 0xFFFF)) & 0xFFFFFFFF
