"""Making the guest run, and stopping it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repl.command import Argument, Result, command
from repl.kinds import ADDRESS, COUNT, HANDLERS, REPEATS

if TYPE_CHECKING:
    from repl.session import Session

Args = Mapping[str, Any]


@command("continue", "run", "let the guest run until something stops it", aliases=("c", "cont"), resumes=True)
def continue_guest(session: Session, args: Args) -> Result:
    return session.resume(session.debugger.begin_continue)


@command(
    "step", "run", "execute COUNT instructions (default 1)", Argument("count", COUNT, optional=True),
    aliases=("s", "stepi", "si"), resumes=True,
    details="Interrupts that come meanwhile run through their handlers. Enter repeats.",
)  # fmt: skip
def step(session: Session, args: Args) -> Result:
    count = args["count"] or 1
    result = session.resume(lambda: session.debugger.begin_step(count))
    return Result(result.views, again=f"step {count}")


@command(
    "next", "run", "execute one instruction, but a CALL, INT, LOOP or REP as a whole",
    aliases=("n", "nexti", "ni"), resumes=True,
)  # fmt: skip
def next_instruction(session: Session, args: Args) -> Result:
    return Result(session.resume(session.debugger.begin_over).views, again="next")


@command(
    "handlers", "run", "whether a step that meets an interrupt runs over its handler or into it",
    Argument("over or into", HANDLERS, optional=True),
    details="`over`, the default, runs through the handler and stops behind it. Without an argument it says which.",
    looks=0,
)  # fmt: skip
def handlers(session: Session, args: Args) -> Result:
    if (choice := args["over or into"]) is not None:
        session.debugger.step_into_interrupts = choice == "into"
    return Result(text="into" if session.debugger.step_into_interrupts else "over")


@command(
    "repeats", "run", "whether a step takes one iteration of a repeated string instruction or the whole",
    Argument("each or whole", REPEATS, optional=True),
    details="`each` is the default. It holds for steps of gdb too. Without an argument it says which.", looks=0,
)  # fmt: skip
def repeats(session: Session, args: Args) -> Result:
    if (choice := args["each or whole"]) is not None:
        session.debugger.step_whole_repeats = choice == "whole"
    return Result(text="whole" if session.debugger.step_whole_repeats else "each")


@command("until", "run", "run to ADDRESS, or to a breakpoint", Argument("address", ADDRESS), aliases=("advance",),
         resumes=True)  # fmt: skip
def until(session: Session, args: Args) -> Result:
    return session.resume(lambda: session.debugger.begin_until(args["address"]))


@command("stop", "run", "stop the running guest", aliases=("interrupt", "halt"), front=True)
def stop(session: Session, args: Args) -> Result:
    if not session.worker.running:
        return Result(text="the guest is stopped already")
    session.worker.interrupt()
    return Result()


@command(
    "status",
    "run",
    "say where the CPU is, and why the guest stands still",
    aliases=("where", "info status"),
    looks=True,
)
def status(session: Session, args: Args) -> Result:
    position = session.position()
    return Result((position,) if session.debugger.running else (session.debugger.last_stop, position))


@command("reset", "run", "power off and on: memory, devices and counters at zero; breakpoints stay",
         aliases=("system_reset",))  # fmt: skip
def reset(session: Session, args: Args) -> Result:
    session.debugger.reset()
    return Result((session.position(),))
