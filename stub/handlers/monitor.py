"""qRcmd: gdb's `monitor`. A few words of our own about the session; all else is a command of the injected runner."""

from __future__ import annotations

from collections.abc import Callable

from emu.record import dataclass
from stub import messages
from stub.handlers.base import Answer, Context, Handler, Monitor
from stub.offers import offers
from stub.target import ShowsPc, TargetError


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the stub itself: returns what to print."""

    usage: str
    help: str
    run: Callable[[Context, list[str]], str]


def show_pc(context: Context, words: list[str]) -> str:
    """`monitor pc`, `monitor pc linear`, `monitor pc offset`."""
    target = context.target
    if not offers(target, ShowsPc):
        raise TargetError("this target knows only one kind of program counter")
    if words and (len(words) > 1 or words[0] not in ("linear", "offset")):
        raise TargetError("monitor pc takes `linear` or `offset`")
    if words:
        target.pc_is_offset = words[0] == "offset"
    if target.pc_is_offset:
        return "eip is the offset in CS; breakpoints are linear addresses. `monitor pc linear` changes that.\n"
    return "eip is the linear address CS base + offset; the offset is $ip. `monitor pc offset` changes that.\n"


def physical(context: Context, words: list[str]) -> str:
    """`monitor phys`, `monitor phys on`, `monitor phys off`."""
    if words and (len(words) > 1 or words[0] not in ("on", "off")):
        raise TargetError("monitor phys takes `on` or `off`")
    if words:
        context.physical = words[0] == "on"
    if context.physical:
        return "addresses of memory are physical; those of breakpoints stay linear. `monitor phys off` changes that.\n"
    return "addresses of memory are linear. `monitor phys on` changes that.\n"


def detaching(context: Context, words: list[str]) -> str:
    """`monitor detach`, `monitor detach run`, `monitor detach stop`."""
    if words and (len(words) > 1 or words[0] not in ("run", "stop")):
        raise TargetError("monitor detach takes `run` or `stop`")
    if words:
        context.stays_stopped = words[0] == "stop"
    if context.stays_stopped:
        return "detaching leaves the guest stopped. `monitor detach run` changes that.\n"
    return "detaching lets the guest run on. `monitor detach stop` changes that.\n"


COMMANDS = {
    "pc": Command(
        "pc [linear|offset]", "what eip shows: the linear address (the default) or the offset in CS", show_pc
    ),
    "detach": Command("detach [run|stop]", "whether the guest runs on when this client detaches", detaching),
    "phys": Command("phys [on|off]", "whether addresses of memory are physical, for this client", physical),
}


def help_text() -> str:
    rows = "".join(f"  {command.usage:<24} {command.help}\n" for command in COMMANDS.values())
    return f"Commands of the gdb connection:\n{rows}"


def monitor(context: Context, message: messages.MonitorCommand) -> Answer:
    words = message.text.split()
    command = COMMANDS.get(words[0]) if words else None
    if command is not None:
        try:
            return Monitor("", command.run(context, words[1:]))
        except TargetError as error:
            return Monitor("", failure=str(error))
    if not words or words == ["help"]:
        return Monitor("help" if context.has_runner else "", help_text())
    if not context.has_runner:
        return Monitor("", failure=f"{words[0]!r} is no command here: try `monitor help`")
    return Monitor(message.text)


HANDLERS = (
    Handler(
        (("qRcmd,HEX", "gdb's `monitor`: a word of the connection, or a command of the prompt"),),
        messages.MonitorCommand,
        monitor,
    ),
)
