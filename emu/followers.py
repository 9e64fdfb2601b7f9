"""Who is told behind each instruction that the CPU executes, for as long as he wants to be."""

from __future__ import annotations

from collections.abc import Callable


class Followers:
    """True while there are any."""

    __slots__ = ("_all", "_told")

    def __init__(self) -> None:
        self._all: list[Callable[[], bool]] = []
        self._told = 0  # what the CPU had retired when they were told last

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, told: Callable[[], bool], retired: int) -> None:
        """`told` is called behind each instruction that follows, until it gives False; once, however often it was
        added. `retired`: what the CPU has retired."""
        self._told = retired
        if told not in self._all:
            self._all.append(told)

    def clear(self) -> None:
        self._all.clear()

    def tell(self, retired: int) -> None:
        """The CPU stands between two instructions, and has retired `retired`: none or one more than the last time."""
        if retired != self._told:
            self._told = retired
            self._all = [told for told in self._all if told()]
