"""Whether the guest gets anywhere, and whether two CPUs do the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repl.command import Argument, CommandError, Result, command
from repl.kinds import COUNT, SECOND

if TYPE_CHECKING:
    from repl.session import Session

Args = Mapping[str, Any]


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
    resumes=True,
)  # fmt: skip
def lockstep(session: Session, args: Args) -> Result:
    try:
        view = session.call(lambda: session.debugger.lockstep(args["count"], args["second"]))
    except KeyboardInterrupt:
        session.worker.interrupt()  # it ends at the next block
        raise CommandError("lockstep was stopped") from None
    return Result((view, session.call(session.position)))


@command(
    "stuck", "transitions", "say whether the guest gets anywhere, and if not what it waits for",
    aliases=("why stuck", "info stuck"), looks=True,
    details=(
        "The next instructions are carried out and taken back, with devices only looked at. A loop is shown with its\n"
        "ways out: the branch, what decides it, the port, device or memory word that it comes from with its value,\n"
        "and what would have to change. A loop that ends by itself is told from one that waits.\n"
        "Told too are a halted CPU with what could wake it; faults and interrupts that come without end; a CPU that\n"
        "executes zeros, memory that nobody wrote; native entries that fail again and again, with the rules that are\n"
        "broken; a loop that polls a clock which runs, or waits for what the handler of an interrupt that comes again\n"
        "and again will have written, and so is not stuck; and a guest that has ended, or is about to, with what is\n"
        "wrong on the way to its handlers.\n"
        "While the guest runs this is noticed after a second of its time, a storm of faults or interrupts after\n"
        "80,000 of them, as an event of kind `stuck`, which stays in the journal."
    ),
)  # fmt: skip
def stuck(session: Session, args: Args) -> Result:
    return Result((session.debugger.why_stuck(),))
