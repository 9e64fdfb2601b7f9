"""The one error of this room: bytes that are not what their format says."""

from __future__ import annotations


class WireError(Exception):
    """`record` and `field` name what could not be read ("" for none), `offset` is where in the file, in bytes."""

    def __init__(self, record: str, field: str, offset: int, why: str) -> None:
        place = ", ".join(part for part in (record, field) if part)
        super().__init__(f"{place} at offset {offset:#x}: {why}")
        self.record, self.field, self.offset, self.why = record, field, offset, why
