"""Starts of a domain that may come to nothing for what is no matter of what is tested: made again, and told.

QEMU 7.2 may deliver an interrupt that Xen injects twice, and SeaBIOS then executes data (docs/xen.md, Tests).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from emu.x86.state import CpuState

#: Starts of one domain, the last of which has to do.
STARTS = 3
#: Where a PC's firmware and its boot sector have code in real mode: the sector, option ROMs, SeaBIOS.
CODE = (range(0x7C00, 0x7E00), range(0xC0000, 0x100000))


class Spoilt(Exception):
    """Why a start came to nothing."""


class Startable(Protocol):
    """A domain of a test's."""

    def destroy(self) -> None:
        """End it; one that is gone is no error."""


Domain = TypeVar("Domain", bound=Startable)


def astray(state: CpuState) -> str:
    """What is wrong with where this CPU executes; "" if nothing is. In protected mode are SeaBIOS where it sets itself
    up, and hvmloader, but for the dozen instructions by which it gets there."""
    if state.cr0 & 1 or any(state.linear_pc in code for code in CODE):
        return ""
    return f"it executes what is no code, at {state.cs.selector:04x}:{state.rip:04x}"


def started(make: Callable[[], Domain], settle: Callable[[Domain], None], tell: Callable[[str], None]) -> Domain:
    """A domain of `make` that `settle` has waited for. Where that raises Spoilt the domain is destroyed, `tell` hears
    why, and another is made; of the last one Spoilt is raised."""
    for number in range(1, STARTS + 1):
        domain = make()
        try:
            settle(domain)
            return domain
        except Spoilt as spoilt:
            domain.destroy()
            if number == STARTS:
                raise
            tell(f"start {number} of a domain: {spoilt}")
        except BaseException:
            domain.destroy()
            raise
    raise AssertionError("unreachable")
