"""How a layout's bytes become values: by one `struct` of Python's for all its fields, derived from the schema.

construct's own parsers go field by field, 20 to 50 times as slow, and a file of a large domain, or a hostile one, has
millions of small records.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from construct import Array, Bytes, FormatField, Renamed
from construct import Struct as Fields


class Decoder:
    """Of a construct Struct whose fields have fixed size: integers of one byte order, bytes, lists of either or of such
    structs. `size` is in bytes."""

    def __init__(self, fields: Fields) -> None:
        """Raises TypeError for a field of another kind, and for two byte orders."""
        orders: set[str] = set()
        form = "".join(_form(part, orders) for part in fields.subcons)
        if len(orders) > 1:
            raise TypeError("a layout has one byte order")
        self._struct: Final = struct.Struct((orders.pop() if orders else "<") + form)
        self._plain: Final = not any(_nested(part) for part in fields.subcons)
        self._names: Final = tuple(part.name for part in fields.subcons)
        self._fields: Final = fields
        self.size: Final = self._struct.size

    def values(self, data: bytes) -> dict[str, Any]:
        """Of exactly `size` bytes."""
        flat = self._struct.unpack(data)
        if self._plain:
            return dict(zip(self._names, flat, strict=True))
        return _gather(self._fields, flat, 0)[0]


def _bare(part: Any) -> Any:
    while isinstance(part, Renamed):
        part = part.subcon
    return part


def _nested(part: Any) -> bool:
    return isinstance(_bare(part), Array | Fields)


def _form(part: Any, orders: set[str]) -> str:
    """Python's format of one field, without its byte order, which is added to `orders` where it matters."""
    part = _bare(part)
    if isinstance(part, FormatField):
        if part.length > 1:
            orders.add(part.fmtstr[0])
        return str(part.fmtstr[1:])
    if isinstance(part, Bytes):
        return f"{part.length}s"
    if isinstance(part, Array):
        return _form(part.subcon, orders) * int(part.count)
    if isinstance(part, Fields):
        return "".join(_form(sub, orders) for sub in part.subcons)
    raise TypeError(f"no field of fixed size is known that is a {type(part).__name__}")


def _gather(fields: Fields, flat: tuple[Any, ...], at: int) -> tuple[dict[str, Any], int]:
    """The values of `fields` from flat value `at` on, and the place behind them."""
    found: dict[str, Any] = {}
    for part in fields.subcons:
        found[part.name], at = _one(_bare(part), flat, at)
    return found, at


def _one(part: Any, flat: tuple[Any, ...], at: int) -> tuple[Any, int]:
    if isinstance(part, Fields):
        return _gather(part, flat, at)
    if not isinstance(part, Array):
        return flat[at], at + 1
    inner = _bare(part.subcon)
    if not isinstance(inner, Array | Fields):
        return list(flat[at : at + part.count]), at + part.count
    items = []
    for _ in range(part.count):
        item, at = _one(inner, flat, at)
        items.append(item)
    return items, at
