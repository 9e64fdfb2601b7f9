"""Keeps gdb's idea of the CPU in step with the mode that the guest is in.

The stub describes the registers and the architecture of the mode the CPU is in at the time it is asked. gdb asks once.
This makes it ask again when the register `mode` has changed at a stop, before gdb shows where the guest stopped;
breakpoints and watchpoints stay, and so does the selected frame. It also drops cached registers after one was written,
since a write to `cs` or `ip` moves others, after a `monitor` command, which may write any, and after a call of one of
the guest's functions, behind which gdb takes `icount` for what it was before.
"""

from __future__ import annotations

import gdb

from .guest import Guest
from .selection import drop_registers, kept_selection, selected_register

#: The architecture that the stub's description names in each mode.
ARCHITECTURES = {16: "i8086", 32: "i386", 64: "i386:x86-64"}
#: gdb runs a user-defined command of this name behind each `monitor`.
HOOK = "hookpost-monitor"


class ModeFollower:
    """Watches `mode` (16, 32 or 64) at each stop."""

    def __init__(self) -> None:
        self.mode: int | None = None
        self.able = True
        self.busy = False
        self.sure = False  #: no register was written since the innermost frame was asked
        self.called = False  #: gdb has called a function of the guest's since the last prompt

    def connect(self, guest: Guest) -> None:
        """Listen to gdb."""
        guest.flushed.append(self.doubt)
        gdb.events.stop.connect(self.on_stop)
        gdb.events.exited.connect(self.on_exited)
        gdb.events.before_prompt.connect(self.on_prompt)
        gdb.events.register_changed.connect(self.on_register_changed)
        gdb.events.inferior_call.connect(self.on_call)

    def read_mode(self) -> int | None:
        """The width of the next instruction, None where the target has no such register or runs.

        The innermost frame's: in a caller that the user has selected, `mode` is the caller's.
        """
        try:
            return int(gdb.newest_frame().read_register("mode"))
        except (gdb.error, ValueError):
            return None

    def refresh(self) -> None:
        """Fetch the description again if the mode is another one."""
        if self.busy or (self.sure and self.mode is not None and self.mode == selected_register("mode")):
            return
        mode = self.read_mode()
        self.sure = mode is not None
        if mode is None or mode == self.mode:
            return
        # The first mode seen is the one that gdb has been told of when it connected, unless the guest has run since.
        stale = self.mode is not None or gdb.newest_frame().architecture().name() != ARCHITECTURES.get(mode)
        self.mode = mode
        if stale and self.able and not self.has_file():
            self.fetch()

    def has_file(self) -> bool:
        """Whether the user has given gdb a description, which is then not ours to take away."""
        try:
            return '"' in gdb.execute("show tdesc filename", to_string=True)
        except gdb.error:
            return False

    def fetch(self) -> None:
        """`unset tdesc filename` makes gdb read the target's own description anew."""
        self.busy = True
        try:
            with kept_selection():
                gdb.execute("unset tdesc filename", to_string=True)
        except gdb.error as error:
            self.able = False
            gdb.write(
                f"v2e: this gdb cannot read a target description again ({error}): use `set architecture` yourself"
                " when the CPU's mode changes.\n"
            )
        finally:
            self.busy = False

    def doubt(self) -> None:
        """A register may have been written, of another frame than the selected one."""
        self.sure = False

    def on_stop(self, event: object) -> None:
        self.refresh()

    def on_call(self, event: object) -> None:
        self.called = True

    def on_prompt(self) -> None:
        if self.called:
            self.called = False
            drop_registers()
        # Covers what is no stop: connecting, and a mode changed by writing a register.
        self.refresh()

    def on_exited(self, event: object) -> None:
        self.mode = None

    def on_register_changed(self, event: object) -> None:
        self.doubt()
        # At once: a script run by `gdb -batch` has no event loop, and what is posted there ends gdb by a fault.
        drop_registers()


class Dropped(gdb.Command):  # type: ignore[misc]  # only gdb knows its own module
    """Read the guest's registers again. gdb keeps them until the guest runs."""

    NAME = "flush-v2e-registers"

    def __init__(self, guest: Guest) -> None:
        super().__init__(self.NAME, gdb.COMMAND_OBSCURE)
        self._guest = guest

    def invoke(self, argument: str, from_tty: bool) -> None:
        self._guest.flush()
        drop_registers()


def follow_monitor(guest: Guest) -> None:
    """Drop cached registers behind `monitor`, however it was abbreviated; a hook of the user's own stays."""
    Dropped(guest)
    try:
        gdb.execute(f"show user {HOOK}", to_string=True)
    except gdb.error:
        gdb.execute(f"define {HOOK}\n{Dropped.NAME}\nend", to_string=True)


def install(guest: Guest) -> None:
    """Connect to gdb's events."""
    ModeFollower().connect(guest)
    follow_monitor(guest)
