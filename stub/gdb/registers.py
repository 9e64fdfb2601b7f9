"""`info registers GROUP` with the groups that gdb's own i386 code does not know: general, segment, system.

That code puts every register that is no number of the FPU into the group `general`, whatever a target description says.
"""

from __future__ import annotations

import gdb

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
        *("kernel_gs_base", "engine", "icount"),
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


def install(guest: object) -> None:
    """Take the place of gdb's command."""
    InfoRegisters()
