"""What a write of a register means that gdb makes to have its saved registers back.

gdb saves all registers when it calls a function of the guest's, lets the guest run, and writes back all that are
others then or that it does not know any more; a write that is refused ends the call without its value. gdb 13 does so
on x86 whatever `save-restore` in the target description says (i386_register_reggroup_p in its i386-tdep.c). Two kinds
of what it writes then are not what the CPU is to have: `icount` and `engine`, which the call itself has changed, and
registers that had moved with another one that was written (`ip` with `eip`, `ds_base` with `ds`), which gdb had not
asked for again when it saved them.

gdb restores by `P` of one register after another, in the description's order, with nothing between; behind a write that
a person has asked for it reads all registers. So a write by itself always means what it says.

A selector that was saved may be one which no table has any more, and that of TR is null before its first load: it is
given back without a load where that is refused, and its cache by the writes behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

#: Values that are remembered, as many calls as may be begun and not ended at once.
REMEMBERED = 4096
#: The program counter as gdb knows it: the first register of those that say where the CPU is, so that it is written
#: first when registers are restored.
COUNTERS = frozenset(("eip", "rip"))
#: Calls whose registers are remembered whole.
BEGUN = 16
#: Registers that change by themselves, and are none of the CPU's.
FREE = frozenset(("icount", "engine"))


class Restored:
    """Remembers what a client may have saved. Values are as they go over the line, in hex, by registers' names."""

    def __init__(self) -> None:
        #: (register, a value it had) to what was written when it had that, in the order of these writes
        self._had: dict[tuple[str, bytes], tuple[str, bytes]] = {}
        self._moved: tuple[int | None] | None = None  #: instructions retired when the program counter was written
        self._begun: deque[Mapping[str, bytes]] = deque(maxlen=BEGUN)  #: all registers before that

    def wrote(self, name: str, retired: int | None, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
        """`name` was written, after `retired` instructions: all registers before and behind that."""
        if name in COUNTERS:
            self._moved = (retired,)
            self._begun.append(before)
        written = after.get(name)
        for other, value in before.items():
            if other != name and (other in FREE or value != after.get(other)):
                self._had.pop((other, value), None)
                self._had[other, value] = name, written or b""
        while len(self._had) > REMEMBERED:
            del self._had[next(iter(self._had))]

    def is_saved(self, name: str, data: bytes, retired: int | None, now: Mapping[str, bytes]) -> bool:
        """A write of `data` to `name` gives back what was saved of it, and not what it is to have. `now`: all
        registers."""
        source = self._had.get((name, data))
        if source is None:
            return False
        return name in FREE or (self._moved == (retired,) and now.get(source[0]) == source[1])

    def was_at_a_call(self, name: str, data: bytes) -> bool:
        """`name` had this value when the program counter was written, as for a call of one of the last."""
        return any(registers.get(name) == data for registers in self._begun)
