"""Connects gdb to a v2e that has no file for it, without gdb's warning that there is none.

gdb asks the target which file its process executes, and warns where the target has no answer. A machine has none: an
empty answer, or the name of what is no program for gdb, brings another warning or the architecture of that file.
"""

from __future__ import annotations

import re

import gdb

#: What gdb 13 says, and all versions since 7.12 (exec_file_locate_attach); other words are shown.
_NO_FILE = re.compile(
    r"^warning: No executable has been specified and target does not support\n"
    r"determining executable automatically\.  Try using the \"file\" command\.\n",
    re.MULTILINE,
)
#: Set where this part has been loaded, for scripts that have to know.
LOADED = "_v2e_connects"


class Connect(gdb.Command):  # type: ignore[misc]  # only gdb knows its own module
    """`target extended-remote ADDRESS' for a machine, which needs no executable file.
    Usage: v2e-connect ADDRESS"""

    NAME = "v2e-connect"

    def __init__(self) -> None:
        super().__init__(self.NAME, gdb.COMMAND_RUNNING)

    def invoke(self, argument: str, from_tty: bool) -> None:
        try:
            text = gdb.execute(f"target extended-remote {argument}", from_tty, True)
        except gdb.error as error:
            raise gdb.GdbError(str(error)) from None
        gdb.write(_NO_FILE.sub("", text))


def install(guest: object) -> None:
    """Define the command."""
    Connect()
    gdb.set_convenience_variable(LOADED, 1)
