"""Names for addresses, from `nm` listings and nasm map files.

An nm listing (GNU binutils, `nm` and `nm -S`) has `ADDRESS [SIZE] LETTER NAME` a line, hex without prefix. A nasm map
(nasm manual, 8.1.4, `[map symbols FILE]`) has `REAL VIRTUAL NAME` under `---- Section` and `VALUE NAME` under
`---- No Section`, where the values are constants. Addresses are taken as linear ones.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from pathlib import Path

from repl.textfile import NotText, read_text

_NM = re.compile(r"^\s*([0-9a-fA-F]{4,16})\s+(?:[0-9a-fA-F]{4,16}\s+)?([A-Za-z?-])\s+(\S+)$")
_MAP_SYMBOL = re.compile(r"^\s*[0-9a-fA-F]+\s+([0-9a-fA-F]+)\s+(\S+)$")
_MAP_CONSTANT = re.compile(r"^\s*([0-9a-fA-F]+)\s+(\S+)$")
#: A name is shown for an address at most this many bytes behind it.
NEAR = 0x1000


class SymbolError(Exception):
    """A symbol file cannot be used; one sentence."""


class Symbols:
    """Names and addresses loaded in a session."""

    def __init__(self) -> None:
        self._by_name: dict[str, int] = {}
        self._ordered: list[tuple[int, str]] = []  # sorted; code and data only, no constants

    def __len__(self) -> int:
        return len(self._by_name)

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._by_name))

    def lookup(self, name: str) -> int | None:
        return self._by_name.get(name)

    def describe(self, address: int) -> str:
        """`name` or `name+0x12` for an address at or shortly behind a symbol, else an empty string."""
        at = bisect_right(self._ordered, (address, "\U0010ffff")) - 1
        if at < 0 or address - self._ordered[at][0] > NEAR:
            return ""
        base, name = self._ordered[at]
        return name if base == address else f"{name}+{address - base:#x}"

    def add(self, addresses: dict[str, int], constants: dict[str, int] | None = None) -> None:
        """Add names; a name known already gets the new value."""
        self._by_name.update(constants or {})
        self._by_name.update(addresses)
        merged = {name: address for address, name in self._ordered}
        merged.update(addresses)
        self._ordered = sorted((address, name) for name, address in merged.items())

    def load(self, path: Path, offset: int = 0) -> int:
        """Load an nm listing or nasm map, `offset` bytes added to each address. Returns how many names it had.

        Raises SymbolError when the file cannot be read or holds no symbol.
        """
        try:
            text = read_text(path, "replace")
        except OSError as error:
            raise SymbolError(f"cannot read {str(path)!r}: {error.strerror}") from None
        except NotText:
            raise SymbolError(f"{str(path)!r} is not text: give what nm prints, or a nasm map") from None
        addresses, constants = parse_nasm_map(text) if "NASM Map file" in text[:200] else (parse_nm(text), {})
        if not addresses and not constants:
            raise SymbolError(f"{str(path)!r} has no symbols in nm's format or a nasm map's")
        self.add({name: address + offset for name, address in addresses.items()}, constants)
        return len(addresses) + len(constants)


def parse_nm(text: str) -> dict[str, int]:
    """Name to address of the lines in nm's format; undefined symbols (U) and other lines are skipped."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        if match := _NM.match(line):
            found[match[3]] = int(match[1], 16)
    return found


def parse_nasm_map(text: str) -> tuple[dict[str, int], dict[str, int]]:
    """Name to virtual address, and name to value of constants, of a nasm map file."""
    addresses: dict[str, int] = {}
    constants: dict[str, int] = {}
    in_symbols = in_constants = False
    for line in text.splitlines():
        if line.startswith("----"):
            in_constants = "No Section" in line
        elif line.startswith("-- "):
            in_symbols = line.startswith("-- Symbols")
        elif not in_symbols:
            continue
        elif in_constants and (match := _MAP_CONSTANT.match(line)):
            constants[match[2]] = int(match[1], 16)
        elif not in_constants and (match := _MAP_SYMBOL.match(line)):
            addresses[match[2]] = int(match[1], 16)
    return addresses, constants
