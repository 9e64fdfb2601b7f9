"""The demo of `make demo`: the tour under a real gdb, as an annotated transcript; without gdb, at v2e's own prompt."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from emu.firmware import tour
from repl.harness import Gdb, GdbError, HarnessError, Server
from stub.gdb import helper_path

WIDTH = 112

#: What a reader should look at, by the tour's name of the stop.
REMARKS = {
    "real": "Real mode, behind the far jump at the reset vector: every base is selector * 16, every limit 64 KiB.",
    "big-real": "Real mode again, but segment caches loaded in protected mode are still there: 4 GiB limits that no "
    "selector explains. v2e marks them.",
    "pm16": "16-bit protected mode. The bases are not selector * 16, so a debugger that multiplies would be lost; "
    "gdb's $pc is the linear address and its disassembly is right.",
    "pm32": "32-bit protected mode, flat segments.",
    "pse": "Paging with 4 MiB pages is on: CR0.PG and CR4.PSE.",
    "pae": "Paging with PAE: 64-bit entries in a three-level table.",
    "v86": "Virtual-8086 mode: EFLAGS.VM is set, CPL is 3, bases are selector * 16 under paging.",
    "long64": "64-bit mode: EFER.LMA and CS.L are set, gdb has switched to x86-64 by itself.",
    "compat": "Compatibility mode: long mode is active, but this code segment is a 32-bit one.",
    "real-again": "Back in real mode, the whole way down.",
}
REGISTERS_32 = "eax ecx edx ebx esp ebp esi edi eip eflags cs ss ds es"
REGISTERS_64 = "rax rcx rdx rbx rsp rbp rsi rdi rip eflags cs ss ds es"


def say(text: str) -> None:
    """A line of ours between those of the tools."""
    print(
        "\n".join(textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")) if text else "", flush=True
    )


def typed(gdb: Gdb, command: str) -> str:
    """Type `command` to gdb and show what a person would see."""
    print(f"(gdb) {command}")
    text = gdb.cmd(command)
    print(text.rstrip(), flush=True)
    return text


def registers(gdb: Gdb) -> None:
    """gdb's own `info registers`, the general ones of the mode it believes the CPU to be in."""
    try:
        gdb.cmd("info registers rip")
    except GdbError:
        typed(gdb, f"info registers {REGISTERS_32}")
    else:
        typed(gdb, f"info registers {REGISTERS_64}")


def with_gdb() -> int:
    """The tour in a server process, driven through gdb. Returns an exit status."""
    stops = tour.stops()
    with tempfile.TemporaryDirectory(prefix="v2e-demo-") as folder:
        server = Server([])
        try:
            gdb = Gdb(Path(folder) / "packets.log")
            try:
                drive(gdb, server, stops)
            finally:
                gdb.close()
            status = server.wait()
        finally:
            server.close()
    print()
    say(f"The guest wrote 0 to the debug-exit port, so v2e ended with (0 << 1) | 1 = {status}.")
    return 0 if status == 1 else 1


def drive(gdb: Gdb, server: Server, stops: tuple[tour.TourStop, ...]) -> None:
    """The session itself."""
    say(f"$ {server}")
    say(f"A stock gdb, with v2e's helper, attaches to the CPU at its reset vector ({server.address}).")
    typed(gdb, f"source {helper_path()}")
    typed(gdb, f"target remote {server.address}")
    typed(gdb, "x/i $pc")
    for stop in stops:
        typed(gdb, f"tbreak *{stop.linear:#x}")
    for number, stop in enumerate(stops, 1):
        print()
        say(f"--- {number} of {len(stops)}: {stop.mode_label} " + "-" * 60)
        say(REMARKS.get(stop.name, ""))
        typed(gdb, "continue")
        typed(gdb, "x/3i $pc")
        registers(gdb)
        typed(gdb, "monitor sreg")
        pc = gdb.value("$pc")
        if pc != stop.linear:
            raise HarnessError(f"gdb stands at {pc:#x} and not at {stop.linear:#x}, where {stop.mode_label} begins")
    print()
    say("--- the end " + "-" * 60)
    say("What the guest shows on its screen by now:")
    typed(gdb, "monitor screen")
    typed(gdb, "continue")


def without_gdb() -> int:
    """The same stops at v2e's own prompt. Returns an exit status."""
    say("gdb is not installed (Debian: apt-get install gdb), so this is v2e's own prompt, from a script.")
    commands = []
    for stop in tour.stops():
        commands += [f"tbreak {stop.linear:#x}", "continue", "u", "regs", "sreg"]
    arguments = [word for command in [*commands, "screen", "continue"] for word in ("-c", command)]
    done = subprocess.run([sys.executable, "-m", "repl.cli", "run", *arguments], check=False)
    return 0 if done.returncode in (0, 1) else done.returncode


def main() -> int:
    """Returns an exit status."""
    begin = time.monotonic()
    try:
        status = with_gdb() if shutil.which("gdb") else without_gdb()
    except HarnessError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    say(f"Done in {time.monotonic() - begin:.1f} s.")
    return status


if __name__ == "__main__":
    sys.exit(main())
