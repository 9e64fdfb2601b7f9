"""When the CPU goes native and when it stays emulated: the policies, and the protocol that a learning one fits.

An exit costs thousands of instructions, and one seldom comes alone. A policy says how long the CPU remains emulated
behind an access that is an exit, in the hope that the next one comes within it and costs nothing.
"""

from __future__ import annotations

import re

from emu.learning import LEARN, Learn
from emu.ledger import Costs
from emu.typed import Protocol
from emu.vcpu import Site, VmExit

#: Instructions, the most that `dwell:` takes: ten seconds of virtual time.
LONGEST_DWELL = 1_000_000_000


class PolicyError(ValueError):
    """There is no such policy; the text says what there is."""


class Policy(Protocol):
    """Decides. `hit` and `missed` tell it what came of the decision it took at `site`."""

    name: str  #: as `--policy` takes it
    enters: bool  #: False: the CPU never goes native
    learns: bool  #: False: `hit`, `missed` and `moved` need not be told
    sees_all: bool  #: instructions of the emulator are touches too, where a native CPU exits for them; else accesses

    @property
    def fixed(self) -> int | None:
        """What `dwell` says at every exit; None: it depends."""

    def dwell(self, exit: VmExit, native: bool) -> int:
        """At an exit, `native`, or at an access that would have been one: how many instructions the CPU is to remain
        emulated. 0: not at all, the hypervisor goes on by itself (behind an access that is emulated: go native)."""

    def hit(self, site: Site, gap: int) -> None:
        """The next access came `gap` instructions later, and found the CPU still emulated."""

    def missed(self, site: Site, gap: int, emulated: int, counted: bool) -> None:
        """The next access came `gap` instructions later, `emulated` of them emulated, and was an exit. Not `counted`:
        the others are estimated from the time that they took."""

    def moved(self) -> None:
        """The CPU is emulated now, or another instant has come, for a reason that was no decision of the policy's."""

    def shown(self) -> tuple[str, ...]:
        """What it knows, in lines for people."""


class Emulated:
    """Never native."""

    name, enters, learns, sees_all, fixed = "emulated", False, False, False, 0

    def dwell(self, exit: VmExit, native: bool) -> int:
        return 0

    def hit(self, site: Site, gap: int) -> None: ...
    def missed(self, site: Site, gap: int, emulated: int, counted: bool) -> None: ...
    def moved(self) -> None: ...

    def shown(self) -> tuple[str, ...]:
        return ("everything is emulated",)


class Native:
    """Native wherever the state can be entered; the hypervisor handles each exit by itself."""

    enters, learns, sees_all, fixed = True, False, False, 0

    def __init__(self, name: str = "native") -> None:
        self.name = name

    def dwell(self, exit: VmExit, native: bool) -> int:
        return 0

    def hit(self, site: Site, gap: int) -> None: ...
    def missed(self, site: Site, gap: int, emulated: int, counted: bool) -> None: ...
    def moved(self) -> None: ...

    def shown(self) -> tuple[str, ...]:
        return ("native wherever the state can be entered",)


class Dwell:
    """Emulated for a fixed number of instructions behind each access."""

    enters, learns, sees_all = True, False, False

    def __init__(self, instructions: int) -> None:
        self.name, self.fixed = f"dwell:{instructions}", instructions

    def dwell(self, exit: VmExit, native: bool) -> int:
        return self.fixed

    def hit(self, site: Site, gap: int) -> None: ...
    def missed(self, site: Site, gap: int, emulated: int, counted: bool) -> None: ...
    def moved(self) -> None: ...

    def shown(self) -> tuple[str, ...]:
        return (f"emulated for {self.fixed} instruction{'s' * (self.fixed > 1)} behind each exit",)


#: The forms that `policy_named` takes.
FORMS = ("emulated", "native", "auto", "learn", "dwell:N")


def policy_named(text: str, costs: Costs) -> Policy:
    """The policy that `--policy` and the command `policy` name; `learn` goes by `costs`. `auto` is another word for
    `native`. Raises PolicyError."""
    if text == LEARN:
        if not costs.exit:
            raise PolicyError("learn weighs emulation against exits: one that costs nothing leaves nothing to decide")
        return Learn(costs)
    if text == "emulated":
        return Emulated()
    if text in ("native", "auto"):
        return Native(text)
    if match := re.fullmatch(r"dwell:([0-9]+)", text):
        # int() refuses thousands of digits in words of its own
        if len(match[1]) <= 12 and 1 <= (count := int(match[1])) <= LONGEST_DWELL:
            return Dwell(count)
        given = match[1] if len(match[1]) <= 24 else f"{match[1][:21]}..."
        raise PolicyError(f"a dwell of {given} instructions: use 1 to {LONGEST_DWELL}")
    raise PolicyError(f"no policy is called {text!r}: use {', '.join(FORMS[:-1])} or {FORMS[-1]}")
