"""A layout of fixed size: a construct schema with a name, a source, and errors that say field and offset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from construct import (
    Array,
    Bytes,
    ConstructError,
    Int8ul,
    Int16ub,
    Int16ul,
    Int32ub,
    Int32ul,
    Int64ub,
    Int64ul,
    Renamed,
    Struct,
)

from xenbridge.wire.decoding import Decoder
from xenbridge.wire.errors import WireError

#: The fields of one layout by name: int, bytes, or a list of either or of such mappings.
Values = dict[str, Any]


class Buffer(Protocol):
    """What bytes can be sliced from: bytes, a view of them, a file that is open. A slice may be a view or a copy."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> bytes | bytearray | memoryview: ...


_PLAIN = {
    id(Int8ul): "u8", id(Int16ul): "u16", id(Int32ul): "u32", id(Int64ul): "u64",
    id(Int16ub): "u16 big-endian", id(Int32ub): "u32 big-endian", id(Int64ub): "u64 big-endian",
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A row of a layout's table: offset and size in bytes."""

    name: str
    offset: int
    size: int
    type: str
    text: str


class Layout:
    """`fields` are construct fields of fixed size, little-endian where the layout does not say otherwise; each may
    carry a text (`field * "text"`). `source` is where the layout is specified."""

    def __init__(self, name: str, source: str, *fields: Any) -> None:
        self.name, self.source = name, source
        self._struct = Struct(*fields)
        self._decoder = Decoder(self._struct)
        self.size: int = self._decoder.size

    def fields(self) -> Iterator[Field]:
        """In the order of the bytes."""
        at = 0
        for part in self._struct.subcons:
            size = part.sizeof()
            yield Field(part.name, at, size, _type(part), str(part.docs))
            at += size

    def parse(self, data: Buffer, at: int = 0, end: int | None = None) -> Values:
        """The values at `at` of `data`, of which what is before `end` belongs to it. Raises WireError with the first
        field that is not wholly there."""
        stop = len(data) if end is None else min(end, len(data))
        if stop - at < self.size:
            self.short(at, max(0, stop - at))
        return self._decoder.values(bytes(data[at : at + self.size]))

    def short(self, at: int, length: int) -> NoReturn:
        """Only `length` bytes are there at offset `at`, less than the layout has: raises WireError."""
        field = next(f for f in self.fields() if f.offset + f.size > length)
        raise WireError(self.name, field.name, at + field.offset, "the data end within it")

    def build(self, values: Mapping[str, Any]) -> bytes:
        """The bytes of `values`. Raises WireError for a field that is missing or does not fit."""
        for field in self.fields():
            if field.name not in values:
                raise WireError(self.name, field.name, field.offset, "the value is missing")
        try:
            return bytes(self._struct.build(dict(values)))
        except ConstructError as error:
            path = str(error.path or "").rpartition("-> ")[2]
            at = next((f.offset for f in self.fields() if f.name == path.partition("[")[0]), 0)
            raise WireError(self.name, path, at, "the value does not fit") from None

    def empty(self) -> Values:
        """All zeros."""
        return self.parse(bytes(self.size))


def _type(part: Any) -> str:
    while isinstance(part, Renamed):
        part = part.subcon
    if id(part) in _PLAIN:
        return _PLAIN[id(part)]
    if isinstance(part, Array):
        return f"{_type(part.subcon)}[{part.count}]"
    if isinstance(part, Bytes):
        return f"u8[{part.length}]"
    return "{" + ", ".join(f"{_type(sub)} {sub.name}" for sub in part.subcons) + "}"
