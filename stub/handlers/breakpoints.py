"""Z, z: breakpoints and watchpoints. They live in the target, never in guest memory."""

from __future__ import annotations

from collections.abc import Sequence

from emu.record import dataclass
from stub import messages
from stub.exchange import MOST_TOGGLES
from stub.handlers.base import OK, UNSUPPORTED, Answer, Context, Handler, error_text
from stub.handlers.hooks import hooks_of
from stub.packet import frame
from stub.target import (
    PointHooks,
    StopReason,
    TargetError,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A packet's type number: what it is, how a stop names it, what it adds to qSupported."""

    what: str
    reason: StopReason
    feature: str = ""


#: "Packets", z0 to z4.
KINDS = {
    0: Kind("a software breakpoint", StopReason.SWBREAK, "swbreak+"),
    1: Kind("a hardware breakpoint", StopReason.HWBREAK, "hwbreak+"),
    2: Kind("a write watchpoint of KIND bytes", StopReason.WATCH),
    3: Kind("a read watchpoint of KIND bytes", StopReason.RWATCH),
    4: Kind("an access watchpoint of KIND bytes", StopReason.AWATCH),
}


#: What hooks add: conditions, and commands, by which gdb has `dprintf` done here (`set dprintf-style agent`).
CONDITIONAL = ("ConditionalBreakpoints+", "BreakpointCommands+")


def features(context: Context) -> tuple[str, ...]:
    found = tuple(k.feature for type, k in KINDS.items() if k.feature and _supported(context, type))
    return found + (CONDITIONAL if found and context.conditional is not None else ())


def _supported(context: Context, type: int) -> bool:
    able = context.software if type == 0 else context.hardware if type == 1 else context.watches
    return type in KINDS and able is not None


def _key(message: messages.InsertPoint | messages.RemovePoint) -> tuple[int, int, int]:
    """The kind of a breakpoint is the size of a patched instruction, which means nothing here."""
    return message.type, message.address, message.kind if message.type >= 2 else 0


def insert(context: Context, message: messages.InsertPoint) -> Answer:
    if not _supported(context, message.type):
        return UNSUPPORTED
    key = _key(message)
    try:
        hooks = _hooks(context, message)
        if key not in context.points:  # "the operations should be implemented in an idempotent way"
            _insert(context, key)
            context.points.add(key)
        if context.conditional is not None and message.type in (0, 1):
            context.conditional.set_hooks(KINDS[message.type].reason, message.address, hooks)
    except TargetError as error:
        return error_text(str(error))
    if message.persist:
        context.persistent.add(key)
    else:
        context.persistent.discard(key)
    return OK


def _hooks(context: Context, message: messages.InsertPoint) -> PointHooks | None:
    """The conditions and commands of the packet, read. Raises TargetError."""
    if not message.conditions and not message.commands:
        return None
    if context.conditional is None or message.type not in (0, 1):
        raise TargetError("only breakpoints have conditions and commands here: leave those of others to the client")
    return hooks_of(context, context.conditional, message.conditions, message.commands)


def remove(context: Context, message: messages.RemovePoint) -> Answer:
    if not _supported(context, message.type):
        return UNSUPPORTED
    key = _key(message)
    if key in context.points:
        context.points.discard(key)
        context.persistent.discard(key)
        _remove(context, key)
    return OK


def watches(context: Context) -> list[tuple[int, int, int]]:
    """The watchpoints (type, address, length) that this client has set, as many as a talk has."""
    return sorted(key for key in context.points if key[0] >= 2 and key not in context.persistent)[:MOST_TOGGLES]


def toggles(keys: Sequence[tuple[int, int, int]]) -> tuple[tuple[bytes, bytes], ...]:
    """Of each of these the packets that take it out and put it in again."""
    bodies = (b"%x,%x,%x" % key for key in keys)
    return tuple((frame(b"z" + body), frame(b"Z" + body)) for body in bodies)


def remove_all(context: Context) -> None:
    """Take away what this client has inserted, but for what is to stay."""
    for key in sorted(context.points - context.persistent):
        _remove(context, key)
    context.points.clear()
    context.persistent.clear()


def _insert(context: Context, key: tuple[int, int, int]) -> None:
    type, address, length = key
    if type == 0 and context.software is not None:
        context.software.insert_software_breakpoint(address)
    elif type == 1 and context.hardware is not None:
        context.hardware.insert_hardware_breakpoint(address)
    elif context.watches is not None:
        context.watches.insert_watchpoint(KINDS[type].reason, address, length)


def _remove(context: Context, key: tuple[int, int, int]) -> None:
    type, address, length = key
    if type == 0 and context.software is not None:
        context.software.remove_software_breakpoint(address)
    elif type == 1 and context.hardware is not None:
        context.hardware.remove_hardware_breakpoint(address)
    elif context.watches is not None:
        context.watches.remove_watchpoint(KINDS[type].reason, address, length)


HANDLERS = (
    Handler(
        (
            *((f"Z{type},ADDR,KIND", f"set {kind.what}") for type, kind in KINDS.items()),
            ("Z0,ADDR,KIND;EXPR;cmds:1,EXPR", "with conditions and commands, agent expressions run here; `Z1` too"),
        ),
        messages.InsertPoint,
        insert,
        features=features,
    ),
    Handler(
        tuple((f"z{type},ADDR,KIND", f"take away {kind.what}") for type, kind in KINDS.items()),
        messages.RemovePoint,
        remove,
    ),
)
