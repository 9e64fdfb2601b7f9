"""Frames of a domain's memory that stay mapped, for those who look at the same ones again and again."""

from __future__ import annotations

from typing import Final

from xenbridge.xen.domain import Domain
from xenbridge.xen.memory import PAGE, READ, Pages

#: So many stay mapped.
_KEPT: Final = 64


class Frames:
    """A context manager that unmaps them. To be used while nobody changes the domain's memory map."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._frames: dict[int, Pages] = {}

    def _view(self, frame: int) -> memoryview | None:
        """The bytes of a frame; None where the domain has no memory."""
        pages = self._frames.get(frame)
        if pages is None:
            if len(self._frames) >= _KEPT:
                self._frames.pop(next(iter(self._frames))).close()
            pages = self._frames[frame] = Pages(self._domain.libraries, self._domain.domid, [frame], READ)
        return pages.view if pages.absent else None

    def read(self, address: int, length: int) -> bytes:
        """As many of the `length` bytes from physical `address` on as are memory, from the first on."""
        out = b""
        while len(out) < length and (view := self._view((address + len(out)) // PAGE)) is not None:
            skip = (address + len(out)) % PAGE
            out += bytes(view[skip : skip + length - len(out)])
        return out

    def readable(self, address: int, length: int) -> int:
        """How many of `length` bytes are memory, from the first on."""
        return len(self.read(address, length))

    def word(self, address: int, length: int) -> bytes | None:
        """All of the bytes, or None: for page walks."""
        data = self.read(address, length)
        return data if len(data) == length else None

    def __enter__(self) -> Frames:
        return self

    def __exit__(self, *error: object) -> None:
        for pages in self._frames.values():
            pages.close()
        self._frames.clear()
