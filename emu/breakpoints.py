"""What a hit of breakpoints amounts to: conditions, ignore counts, actions, and the words for those that stop."""

from __future__ import annotations

from emu.stops import Breakpoint, ConditionFailed, Met


class Counted:
    """The breakpoints met at one place, as they are added: which of them stop, and what could not be evaluated."""

    def __init__(self) -> None:
        self.met: list[Met] = []

    def add(self, point: Breakpoint) -> bool:
        """`point` is met; True when it stops. Its condition comes first, then its counts, then its action. What cannot
        be evaluated stops: passing on would hide that it never holds."""
        part, why = "condition", ""
        try:
            if point.condition is not None and not point.condition.holds():
                return False
            point.hits += 1
            if point.ignore > 0:
                point.ignore -= 1
                return False
            part = "commands"
            if point.action is not None:
                point.action()
                return False
        except ConditionFailed as error:
            why = str(error)
        self.met.append(Met(point.id, point.owner, point.address, part if why else "", why))
        return True

    @property
    def stops(self) -> tuple[int, ...]:
        """The numbers of those that stop."""
        return tuple(dict.fromkeys(met.id for met in self.met))

    def names(self, what: str) -> str:
        """ "breakpoint 1, 2"."""
        return f"{what} {', '.join(map(str, self.stops))}"

    @property
    def failures(self) -> str:
        """What could not be evaluated, to stand behind the sentence of the stop."""
        why = [f"{met.id}: {met.why}" for met in self.met if met.failed]
        return f"; {'; '.join(why)}" if why else ""
