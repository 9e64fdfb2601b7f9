"""Convenience functions: `$seg(SELECTOR, OFFSET)` and `$lin(...)`, linear addresses for gdb's expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gdb

from .cpu import Segment
from .guest import SEGMENTS, Guest

MASK64 = (1 << 64) - 1


class SegFunction(gdb.Function):  # type: ignore[misc]  # only gdb knows its own module
    """$seg(SELECTOR, OFFSET): the linear address of OFFSET in the segment SELECTOR.
    In real and virtual-8086 mode the base is SELECTOR * 16; in protected mode the
    descriptor tables say it, as they are now in memory; in 64-bit mode it is 0, as for
    CS, DS, ES and SS ($lin has the bases of FS and GS). `x/8i $seg(0xf000, 0xe05b)'.
    An offset that is outside the descriptor's limit gives an address all the same, and
    a warning, once for each selector."""

    def __init__(self, guest: Guest) -> None:
        super().__init__("seg")
        self._guest = guest
        self._warned: set[Segment] = set()

    def invoke(self, *arguments: Any) -> int:
        if len(arguments) != 2:
            raise gdb.GdbError("$seg takes a selector and an offset: $seg(0xf000, 0xe05b)")
        return guarded(self._linear, *arguments)

    def _linear(self, selector: Any, offset: Any) -> int:
        number = unsigned(selector)
        if not 0 <= number <= 0xFFFF:
            raise gdb.GdbError(f"a selector has 16 bits: {number:#x} has more")
        if protected_mode():
            if long_mode():
                return unsigned(offset)
            self._guest.cpu(gdb.selected_frame())  # reads where the tables are
            segment = self._guest.descriptor(number)
            if segment is None or segment.base is None:
                raise gdb.GdbError(f"selector {number:04x} names no present segment in the tables")
            self._warn(segment, unsigned(offset))
            return (segment.base + unsigned(offset)) & 0xFFFFFFFF
        return ((number << 4) + unsigned(offset)) & 0xFFFFFFFF

    def _warn(self, segment: Segment, offset: int) -> None:
        """Of an offset that the CPU would refuse: once, as gdb evaluates an expression again and again."""
        if segment.holds(offset) or segment in self._warned:
            return
        self._warned.add(segment)
        gdb.write(
            f"warning: offset {offset:#x} is outside the limit {segment.limit:#x} of selector {segment.selector:04x}, "
            "where the CPU raises #GP or #SS; the address is base + offset all the same\n",
            gdb.STDERR,
        )


class LinFunction(gdb.Function):  # type: ignore[misc]
    """$lin("SEGMENT", OFFSET): the linear address of OFFSET in what a segment register
    has cached, whatever mode or tables say. $lin(OFFSET) is in CS.
    `x/4xb $lin("ds", $esi)', `x/s $lin("es", $di)'."""

    def __init__(self) -> None:
        super().__init__("lin")

    def invoke(self, *arguments: Any) -> int:
        return guarded(self._linear, *arguments)

    def _linear(self, *arguments: Any) -> int:
        if len(arguments) not in (1, 2):
            raise gdb.GdbError('$lin takes an offset in CS, or a segment register\'s name and an offset: $lin("ds", 4)')
        protected_mode()  # says so if there is no target
        name = arguments[0].string() if len(arguments) == 2 else "cs"
        if name.lstrip("$") not in SEGMENTS:
            raise gdb.GdbError(f"{name!r} is no segment register: {', '.join(SEGMENTS)}")
        base = int(gdb.parse_and_eval(f"(unsigned long long)${name.lstrip('$')}_base")) if not flat(name) else 0
        return (base + unsigned(arguments[-1])) & (MASK64 if long_mode() else 0xFFFFFFFF)


def protected_mode() -> bool:
    """CR0.PE without EFLAGS.VM. Raises gdb.GdbError without a target of v2e's."""
    if gdb.parse_and_eval("$cs_base").type.code == gdb.TYPE_CODE_VOID:
        raise gdb.GdbError("no v2e is connected that has segments")
    # Without a cast: gdb refuses one of flags to an integer of another width, and CR0 has 64 bits in 64-bit mode.
    return bool(int(gdb.parse_and_eval("$cr0")) & 1) and not int(gdb.parse_and_eval("$eflags")) >> 17 & 1


def flat(name: str) -> bool:
    """Whether 64-bit mode ignores the segment's base (SDM vol. 1, 3.2.4)."""
    return name.lstrip("$") not in ("fs", "gs") and long_mode()


def long_mode() -> bool:
    """64-bit mode: linear addresses have 64 bits, else 32 (SDM vol. 1, 3.3.7)."""
    return int(gdb.parse_and_eval("$mode")) == 64


def unsigned(value: Any) -> int:
    """An argument as the offset it is: gdb's $bx is a signed type of 16 bits, 8000h and more negative to it."""
    kind = value.type.strip_typedefs()
    if kind.code not in (gdb.TYPE_CODE_INT, gdb.TYPE_CODE_CHAR, gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_ENUM):
        raise gdb.GdbError(f"selectors and offsets are integers, which a value of type `{value.type}' is not")
    return int(value) & ((1 << 8 * int(kind.sizeof)) - 1)


def guarded(function: Callable[..., int], *arguments: Any) -> int:
    """gdb prints a traceback for every exception but its GdbError."""
    try:
        return function(*arguments)
    except (RuntimeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise gdb.GdbError(str(error)) from None


def install(guest: Guest) -> None:
    """Register both with gdb."""
    SegFunction(guest)
    LinFunction()
