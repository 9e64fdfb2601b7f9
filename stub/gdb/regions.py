"""Keeps gdb's map of memory to the times when it is true.

The stub's map is of physical memory: ROM cannot be written, and registers of devices are left out, so that gdb refuses
them. gdb asks for it once and keeps it. While paging is on other things may be at these linear addresses, so gdb is
left without a map then, and asks the stub for every address. Regions that the user has defined by `mem` stay.
"""

from __future__ import annotations

import re
from typing import Any

import gdb

from .guest import Guest
from .selection import selected_register

#: Of CR0 (SDM vol. 3, 2.5).
PG = 1 << 31
#: What `info mem` says of whose regions are in use, and the number of each.
_TARGET, _NONE = "provided by the target", "no memory regions defined"
_NUMBER = re.compile(r"^(\d+)\s+[yn]\s", re.MULTILINE)


class Regions:
    """Watches CR0.PG at each stop."""

    def __init__(self) -> None:
        self.paging: bool | None = None  #: at the last stop
        self.sure = False  #: no register was written since the innermost frame was asked
        self.taken = False  #: the target's regions are not in use, by our doing

    def connect(self, guest: Guest) -> None:
        """Listen to gdb."""
        guest.flushed.append(self.doubt)
        gdb.events.register_changed.connect(self.doubt)
        gdb.events.stop.connect(self.follow)
        gdb.events.before_prompt.connect(self.follow)  # covers connecting, and CR0 written by hand
        gdb.events.exited.connect(self.on_exited)

    def follow(self, event: object = None) -> None:
        """Take the target's regions away when paging goes on, and have them back when it goes off: what the user does
        between is the user's."""
        if self.sure and self.paging is not None and self.paging == is_paging_selected():
            return
        paging = is_paging()
        self.sure = paging is not None
        if paging is None or paging == self.paging:
            return
        self.paging = paging
        if paging:
            self.take()
        else:
            self.give_back()

    def doubt(self, event: object = None) -> None:
        """A register may have been written, of another frame than the selected one."""
        self.sure = False

    def on_exited(self, event: object) -> None:
        self.paging = None
        self.give_back()

    def take(self) -> None:
        """By their numbers: without any, gdb asks the user whether all are meant."""
        try:
            text = gdb.execute("info mem", to_string=True)
            if _TARGET in text and _NONE not in text:
                gdb.execute(f"delete mem {' '.join(_NUMBER.findall(text))}", to_string=True)
                self.taken = True
        except gdb.error as error:
            gdb.write(f"v2e: the map of memory does not hold under paging ({error}): `delete mem' takes it away.\n")

    def give_back(self) -> None:
        """Regions that the user has defined meanwhile are theirs."""
        if self.taken:
            self.taken = False
            if _NONE in gdb.execute("info mem", to_string=True):
                gdb.execute("mem auto", to_string=True)


def is_paging_selected() -> bool | None:
    """The same by the selected frame, which may be a caller's."""
    mode = selected_register("mode")
    if mode == 64:
        return True
    cr0 = selected_register("cr0")
    return None if cr0 is None else bool(cr0 & PG)


def is_paging() -> bool | None:
    """None where the target has no such registers, or runs."""
    try:
        frame: Any = gdb.newest_frame()
        # 64-bit mode has paging; it is said with every stop, CR0 would have to be asked for.
        return int(frame.read_register("mode")) == 64 or bool(int(frame.read_register("cr0")) & PG)
    except (gdb.error, ValueError):
        return None


def install(guest: Guest) -> None:
    """Connect to gdb's events."""
    Regions().connect(guest)
