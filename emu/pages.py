"""All of a machine's memory at one instant, as a value whose pages are shared with the instants before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from emu.typed import Final

PAGE: Final = 0x1000
#: Pages are kept in tuples of so many: a state that differs from the last by one page has one new tuple of these, one
#: new tuple of groups, and the page.
GROUP: Final = 128
ZERO: Final = bytes(PAGE)
_ZEROS: Final = (ZERO,) * GROUP


class Pages:
    """Immutable. Pages of zeros are all one object, and those that did not change between two states are the same
    object in both, so that states are compared and told apart by what changed."""

    __slots__ = ("_groups", "count")

    def __init__(self, groups: tuple[tuple[bytes, ...], ...], count: int) -> None:
        self._groups, self.count = groups, count

    @classmethod
    def zeros(cls, count: int) -> Pages:
        """`count` pages of zeros."""
        whole, rest = divmod(count, GROUP)
        return cls((_ZEROS,) * whole + ((_ZEROS[:rest],) if rest else ()), count)

    def page(self, index: int) -> bytes:
        return self._groups[index // GROUP][index % GROUP]

    def empty(self, group: int) -> bool:
        """True when all pages of that group are zeros and have always been."""
        return self._groups[group] is _ZEROS

    def replaced(self, changes: Mapping[int, bytes]) -> Pages:
        """The same but for the pages whose index is in `changes`."""
        if not changes:
            return self
        fresh: dict[int, list[bytes]] = {}
        for index, page in changes.items():
            number = index // GROUP
            if number not in fresh:
                fresh[number] = list(self._groups[number])
            fresh[number][index % GROUP] = page
        groups = list(self._groups)
        for number, pages in fresh.items():
            groups[number] = tuple(pages)
        return Pages(tuple(groups), self.count)

    def unlike(self, other: Pages) -> Iterator[int]:
        """Indexes of the pages that are not the same object in both; the others are surely equal. In order."""
        for number, (ours, theirs) in enumerate(zip(self._groups, other._groups, strict=True)):
            if ours is not theirs:
                for index, (one, another) in enumerate(zip(ours, theirs, strict=True)):
                    if one is not another:
                        yield number * GROUP + index

    def __len__(self) -> int:
        """In bytes."""
        return self.count * PAGE

    def __bytes__(self) -> bytes:
        return b"".join(page for group in self._groups for page in group)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pages):
            return NotImplemented
        return self._groups == other._groups  # objects that are the same are not looked into

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[object, ...]:
        held = {
            number * GROUP + i: page
            for number, group in enumerate(self._groups)
            if group is not _ZEROS
            for i, page in enumerate(group)
            if page is not ZERO
        }
        return _unpickled, (self.count, held)

    def __repr__(self) -> str:
        held = sum(page is not ZERO for group in self._groups if group is not _ZEROS for page in group)
        return f"<{self.count} pages of memory, {held} not zero>"


def _unpickled(count: int, held: dict[int, bytes]) -> Pages:
    return Pages.zeros(count).replaced(held)
