"""Keeps gdb's idea of the CPU in step with the mode that the guest is in.

The stub describes the registers and the architecture of the mode the CPU is in at the time it is asked. gdb asks once.
This makes it ask again when the register `mode` has changed at a stop, before gdb shows where the guest stopped;
breakpoints and watchpoints stay. It also drops cached registers after one was written, since a write to `cs` or `ip`
moves others.
"""

from __future__ import annotations

import gdb


class ModeFollower:
    """Watches `mode` (16, 32 or 64) at each stop."""

    def __init__(self) -> None:
        self.mode: int | None = None
        self.able = True
        self.busy = False

    def connect(self) -> None:
        """Listen to gdb."""
        gdb.events.stop.connect(self.on_stop)
        gdb.events.exited.connect(self.on_exited)
        gdb.events.before_prompt.connect(self.on_prompt)
        gdb.events.register_changed.connect(self.on_register_changed)

    def read_mode(self) -> int | None:
        """The width of the next instruction, None where the target has no such register or runs."""
        try:
            value = gdb.parse_and_eval("$mode")
            return None if value.type.code == gdb.TYPE_CODE_VOID else int(value)
        except gdb.error:
            return None

    def refresh(self) -> None:
        """Fetch the description again if the mode is another one."""
        if self.busy:
            return
        mode = self.read_mode()
        if mode is None or mode == self.mode:
            return
        known, self.mode = self.mode is not None, mode
        # The first mode seen is the one that gdb has just been told of when it connected.
        if known and self.able:
            self.fetch()

    def fetch(self) -> None:
        """`unset tdesc filename` makes gdb read the target's own description anew."""
        self.busy = True
        try:
            gdb.execute("unset tdesc filename", to_string=True)
        except gdb.error as error:
            self.able = False
            gdb.write(
                f"v2e: this gdb cannot read a target description again ({error}): use `set architecture` yourself"
                " when the CPU's mode changes.\n"
            )
        finally:
            self.busy = False

    def on_stop(self, event: object) -> None:
        self.refresh()

    def on_prompt(self) -> None:
        # Covers what is no stop: connecting, and a mode changed by writing a register.
        self.refresh()

    def on_exited(self, event: object) -> None:
        self.mode = None

    def on_register_changed(self, event: object) -> None:
        # Not now: gdb is in the middle of the assignment.
        gdb.post_event(self.drop_registers)

    def drop_registers(self) -> None:
        """Make gdb read all registers again."""
        for command in ("maintenance flush register-cache", "flushregs"):  # the second is the name before gdb 11
            try:
                gdb.execute(command, to_string=True)
                return
            except gdb.error:
                continue


def install(guest: object) -> None:
    """Connect to gdb's events."""
    ModeFollower().connect()
