"""A borrowed bridge to a domain of ours, for the tests that hold for the bridges of all hypervisors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from machines import booted
from xenbridge.xen.libraries import Libraries
from xenbridge.xen.machine_bridge import XenMachineBridge


@contextmanager
def made_xen() -> Iterator[XenMachineBridge]:
    """Borrowed where its guest is about to execute its first instruction, its interrupts off."""
    libraries = Libraries()
    guest, _ = booted(libraries, "ticks")
    try:
        bridge = XenMachineBridge(guest.domain)
        bridge.borrow()
        try:
            yield bridge
        finally:
            bridge.close()
    finally:
        guest.close()
        libraries.close()
