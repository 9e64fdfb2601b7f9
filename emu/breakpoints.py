"""What a hit of breakpoints amounts to: conditions, ignore counts, actions, and the words for those that stop."""

from __future__ import annotations

from emu.stops import Breakpoint, ConditionFailed


class Counted:
    """The breakpoints met at one place, as they are added: which of them stop, and what could not be evaluated."""

    def __init__(self) -> None:
        self.stops: list[int] = []
        self._why: list[str] = []

    def add(self, point: Breakpoint) -> bool:
        """`point` is met; True when it stops. Its condition comes first, then its counts, then its action. What cannot
        be evaluated stops: passing on would hide that it never holds."""
        try:
            if point.condition is not None and not point.condition.holds():
                return False
            point.hits += 1
            if point.ignore > 0:
                point.ignore -= 1
                return False
            if point.action is not None:
                point.action()
                return False
        except ConditionFailed as error:
            self._why.append(f"{point.id}: {error}")
        self.stops.append(point.id)
        return True

    def names(self, what: str) -> str:
        """ "breakpoint 1, 2"."""
        return f"{what} {', '.join(map(str, dict.fromkeys(self.stops)))}"

    @property
    def failures(self) -> str:
        """What could not be evaluated, to stand behind the sentence of the stop."""
        return f"; {'; '.join(self._why)}" if self._why else ""
