"""Between emulator and native CPU: whether the state can go there, and whether two CPUs do the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repl.command import Argument, CommandError, Result, command
from repl.kinds import COUNT, RULES, SECOND

if TYPE_CHECKING:
    from repl.session import Session

Args = Mapping[str, Any]


@command(
    "why", "transitions", "say whether a CPU's virtualisation can run the present state natively, and if not why",
    Argument("rules", RULES, optional=True), aliases=("info why",),
    details=(
        "RULES: vtx2006 is VT-x without unrestricted guest, where real mode must look like virtual 8086 mode; vtx has\n"
        "unrestricted guest; svm is AMD's. Without RULES each is asked. Every rule that is broken is said with its\n"
        "values and its section, and which of the next instructions will make the state enterable, if one does.\n"
        "The look ahead changes nothing of the guest and stops before the first access to a device."
    ),
)  # fmt: skip
def why(session: Session, args: Args) -> Result:
    from emu.x86 import vmentry

    name = args["rules"]
    if name is not None and name not in vmentry.RULES:
        raise CommandError(f"no rules are called {name!r}: use one of {', '.join(vmentry.RULES)}")
    chosen = vmentry.RULES.values() if name is None else (vmentry.RULES[name],)
    return Result((tuple(session.debugger.why(rules) for rules in chosen),))


@command(
    "lockstep", "transitions", "go on by COUNT instructions that a second CPU runs too, and compare",
    Argument("count", COUNT), Argument("second", SECOND, optional=True),
    details=(
        "The second CPU has memory of its own and is given what the first one met of devices and interrupts.\n"
        "Registers, hidden segment state and written memory are compared; at the first difference the guest\n"
        "stands before the instruction behind which the two part, and both values are shown. Flags that are\n"
        "undefined behind an instruction are not compared there. Breakpoints do not end it. docs/lockstep.md\n"
        "SECOND: without it the hypervisor's CPU, where there is a hypervisor; else `emulator`, another instance in\n"
        "slices of 10,007 instructions with all checks, `hooked`, the same with a breakpoint and a watchpoint that\n"
        "nothing meets, or `portable`, the loop that needs no C helper."
    ),
)  # fmt: skip
def lockstep(session: Session, args: Args) -> Result:
    return Result((session.debugger.lockstep(args["count"], args["second"]), session.position()))


@command(
    "stuck", "transitions", "say whether the guest gets anywhere, and if not what it waits for",
    aliases=("why stuck", "info stuck"),
    details=(
        "The next instructions are carried out and taken back, with devices only looked at. A loop is shown with its\n"
        "ways out: the branch, what decides it, the port, device or memory word that it comes from with its value,\n"
        "and what would have to change. Faults and interrupts that come without end, and a CPU that is halted, are\n"
        "told too. While the guest runs this is noticed after a second of its time, as an event of kind `stuck`."
    ),
)  # fmt: skip
def stuck(session: Session, args: Args) -> Result:
    return Result((session.debugger.why_stuck(),))
