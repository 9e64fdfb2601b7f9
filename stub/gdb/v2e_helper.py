"""Runs inside gdb: keeps gdb's idea of the CPU in step with the mode that v2e's guest is in.

The stub describes the registers and the architecture of the mode the CPU is in at the time it is asked. gdb asks once.
This script makes it ask again when the register `mode` has changed at a stop, before gdb shows where the guest stopped;
breakpoints and watchpoints stay. It also drops cached registers after one was written, since a write to `cs` or `ip`
moves others. And it makes `info registers GROUP` know the system registers and segments: gdb's own i386 code puts
every register that is no number of the FPU into the group `general`, whatever a target description says.
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


#: The groups that gdb cannot know of: all of `names` that the target has.
SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs")
GROUPS = {
    "general": (
        *("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip"),
        *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)), "rip"),
        *("eflags", *SEGMENTS, "ip", "mode", "cpl"),
    ),
    "segment": (
        *(name + part for name in SEGMENTS for part in ("", "_base", "_limit", "_attr")),
        *("gdtr", "idtr", "ldtr", "tr"),
    ),
    "system": (
        *("gdtr", "idtr", "ldtr", "tr", "cr0", "cr2", "cr3", "cr4", "cr8", "efer"),
        *("dr0", "dr1", "dr2", "dr3", "dr6", "dr7"),
        *("apic_base", "sysenter_cs", "sysenter_esp", "sysenter_eip", "pat", "star", "lstar", "cstar", "fmask"),
        "kernel_gs_base",
    ),
}


class InfoRegisters(gdb.Command):  # type: ignore[misc]  # only gdb knows its own module
    """List of integer registers and their contents, for selected stack frame.
    One or more register names as argument means describe the given registers.
    One or more register group names as argument means describe the registers
    in the named register groups. Of v2e's guests: general, segment, system."""

    def __init__(self) -> None:
        super().__init__("info registers", gdb.COMMAND_DATA)

    def invoke(self, argument: str, from_tty: bool) -> None:
        # `info all-registers` does the same as the command replaced here, but for what it shows without argument.
        words = [part for word in (argument.split() or ["general"]) for part in self.expand(word, bool(argument))]
        try:
            gdb.execute(f"info all-registers {' '.join(words)}", from_tty)
        except gdb.error as error:
            raise gdb.GdbError(str(error)) from None

    def expand(self, word: str, asked: bool) -> list[str]:
        """The registers of one of our groups, in the target's order; any other word as it is."""
        if not asked or word not in GROUPS:
            return [word]
        names = self.names()
        # A target that is not v2e's is shown as gdb shows it.
        return [name for name in names if name in GROUPS[word]] if "cs_attr" in names else [word]

    def names(self) -> list[str]:
        """Of the registers that the target has."""
        try:
            architecture = gdb.selected_frame().architecture()
        except gdb.error:
            return []
        return [register.name for register in architecture.registers() if register.name]

    def complete(self, text: str, word: str) -> list[str]:
        return [name for name in (*self.names(), *GROUPS, "float", "vector", "all") if name.startswith(word)]


ModeFollower().connect()
InfoRegisters()
