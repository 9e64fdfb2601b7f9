"""When the CPU goes native and when it stays emulated: the policies, and the protocol that a learning one fits.

An exit costs thousands of instructions, and one seldom comes alone. A policy says how long the CPU remains emulated
behind an access that is an exit, in the hope that the next one comes within it and costs nothing.
"""

from __future__ import annotations

import re
from typing import Protocol

from emu.vcpu import Site, VmExit

#: Instructions, the most that `dwell:` takes: ten seconds of virtual time.
LONGEST_DWELL = 1_000_000_000


class PolicyError(ValueError):
    """There is no such policy; the text says what there is."""


class Policy(Protocol):
    """Decides. `hit` and `missed` tell it what came of the decision it took at `site`."""

    name: str  #: as `--policy` takes it
    enters: bool  #: False: the CPU never goes native

    def dwell(self, exit: VmExit) -> int:
        """At an exit, or at an access that would have been one: how many instructions the CPU is to remain emulated.
        0: not at all, the hypervisor goes on by itself (behind an access that is emulated: go native at once)."""

    def hit(self, site: Site, gap: int) -> None:
        """The next access came `gap` instructions later, and found the CPU still emulated."""

    def missed(self, site: Site, gap: int) -> None:
        """The next access came `gap` instructions later, and was an exit."""

    def shown(self) -> tuple[str, ...]:
        """What it knows, in lines for people."""


class Emulated:
    """Never native."""

    name, enters = "emulated", False

    def dwell(self, exit: VmExit) -> int:
        return 0

    def hit(self, site: Site, gap: int) -> None: ...
    def missed(self, site: Site, gap: int) -> None: ...

    def shown(self) -> tuple[str, ...]:
        return ("everything is emulated",)


class Native:
    """Native wherever the state can be entered; the hypervisor handles each exit by itself."""

    enters = True

    def __init__(self, name: str = "native") -> None:
        self.name = name

    def dwell(self, exit: VmExit) -> int:
        return 0

    def hit(self, site: Site, gap: int) -> None: ...
    def missed(self, site: Site, gap: int) -> None: ...

    def shown(self) -> tuple[str, ...]:
        return ("native wherever the state can be entered",)


class Dwell:
    """Emulated for a fixed number of instructions behind each access."""

    enters = True

    def __init__(self, instructions: int) -> None:
        self.name, self._instructions = f"dwell:{instructions}", instructions

    def dwell(self, exit: VmExit) -> int:
        return self._instructions

    def hit(self, site: Site, gap: int) -> None: ...
    def missed(self, site: Site, gap: int) -> None: ...

    def shown(self) -> tuple[str, ...]:
        return (f"emulated for {self._instructions} instructions behind each exit",)


#: The forms that `policy_named` takes.
FORMS = ("emulated", "native", "auto", "dwell:N")


def policy_named(text: str) -> Policy:
    """The policy that `--policy` and the command `policy` name. `auto` is another word for `native`. Raises
    PolicyError."""
    if text == "emulated":
        return Emulated()
    if text in ("native", "auto"):
        return Native(text)
    if match := re.fullmatch(r"dwell:([0-9]{1,12})", text):
        if 1 <= (count := int(match[1])) <= LONGEST_DWELL:
            return Dwell(count)
        raise PolicyError(f"a dwell of {match[1]} instructions: use 1 to {LONGEST_DWELL}")
    raise PolicyError(f"no policy is called {text!r}: use {', '.join(FORMS[:-1])} or {FORMS[-1]}")
