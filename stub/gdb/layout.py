"""The registers of one of gdb's architectures, found once: gdb looks for a name among all of them each time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gdb

#: What tells that the guest has not run, or has gone on by one instruction: how many have retired, and where it is.
_STOP = ("icount", "eip", "esp")
#: Where the guest stands: instructions retired, linear program counter, stack pointer.
Stop = tuple[int, int, int]


class Layout:
    """Reads the registers of a gdb.Frame or gdb.PendingFrame of this architecture, and makes values of them."""

    def __init__(self, architecture: Any) -> None:
        #: gdb.RegisterDescriptor by name, since gdb 10
        self._named: dict[str, Any] = {}
        if hasattr(architecture, "registers"):
            self._named = {register.name: register for register in architecture.registers() if register.name}
        self._types: dict[str, Any] = {}
        #: the last value made of each register
        self._made: dict[str, tuple[int, Any]] = {}
        self._counts = all(name in self._named for name in _STOP)

    def stop(self, frame: Any) -> Stop | None:
        """Of the innermost frame; None where the target does not say how many instructions have retired."""
        if not self._counts:
            return None
        named, read = self._named, frame.read_register
        try:
            count, pc, sp = (int(read(named[name])) for name in _STOP)
        except gdb.error:
            return None
        return count, pc & 0xFFFFFFFF, sp & 0xFFFFFFFF

    def value(self, frame: Any, name: str) -> int | None:
        """32 bits of it; None where the frame does not know it. Raises gdb.error where there is no such register."""
        try:
            value = frame.read_register(self._named.get(name, name))
            if name not in self._types:
                self._types[name] = value.type
            return int(value) & 0xFFFFFFFF
        except gdb.error as error:
            if "optimized out" in str(error) or "saved" in str(error):
                return None
            raise
        except ValueError:
            raise gdb.error(f"the target has no register {name}") from None

    def need(self, frame: Any, name: str) -> int:
        """The same. Raises gdb.error where the frame does not know it, too."""
        value = self.value(frame, name)
        if value is None:
            raise gdb.error(f"register {name} is not known in this frame")
        return value

    def saved(self, frame: Any, values: Iterable[tuple[str, int | None]]) -> list[tuple[Any, Any]]:
        """What UnwindInfo.add_saved_register takes, of those values that are known, and of registers that there are.
        `frame`: any."""
        pairs = []
        for name, value in values:
            if value is None or (kind := self._type_of(frame, name)) is None:
                continue
            known = self._made.get(name)
            if known is None or known[0] != value:
                data = (value & (1 << 8 * kind.sizeof) - 1).to_bytes(kind.sizeof, "little")
                known = self._made[name] = value, gdb.Value(data, kind)
            pairs.append((self._named.get(name, name), known[1]))
        return pairs

    def kept(self, frame: Any, names: Iterable[str]) -> list[tuple[Any, Any]]:
        """The same of registers that are in the caller what they are in `frame`, as far as it knows them."""
        pairs = []
        for name in names:
            register = self._named.get(name, name)
            try:
                value = frame.read_register(register)
                if not value.is_optimized_out:
                    pairs.append((register, value))
            except (gdb.error, ValueError):
                continue  # no such register in this mode, or not known in this frame
        return pairs

    def _type_of(self, frame: Any, name: str) -> Any:
        """None if the target has no such register."""
        if name not in self._types:
            try:
                self._types[name] = frame.read_register(self._named.get(name, name)).type
            except (gdb.error, ValueError):
                return None
        return self._types[name]
