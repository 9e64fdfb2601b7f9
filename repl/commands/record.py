"""What happened, and keeping states of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repl.command import Argument, CommandError, Result, command
from repl.kinds import COUNT, EVENT_KIND, NAME, PATH, SNAPSHOT

if TYPE_CHECKING:
    from repl.session import Session

Args = Mapping[str, Any]

_DEFAULT_EVENTS = 20
_DEFAULT_NAME = "default"


@command(
    "journal", "record", "show the last COUNT events (default 20), of one KIND",
    Argument("count", COUNT, optional=True), Argument("kind", EVENT_KIND, optional=True), aliases=("events",),
    looks=True,
)  # fmt: skip
def journal(session: Session, args: Args) -> Result:
    events = session.debugger.events()
    if args["kind"] is not None:
        events = tuple(e for e in events if e.kind == args["kind"])
    if not events:
        return Result(text="nothing has happened yet" if args["kind"] is None else f"no event of kind {args['kind']}")
    return Result((events[-(args["count"] or _DEFAULT_EVENTS) :],))


@command(
    "bios", "record", "show the last COUNT calls (default 20) of the built-in BIOS's services",
    Argument("count", COUNT, optional=True),
    details="Each with what it was asked and what came of it, as `journal` has them too. What only asks whether a key "
    "was pressed (INT 16h, AH=01h and 11h) while none was, and for ticks (INT 1Ah, AH=00h), is none.", looks=True,
)  # fmt: skip
def bios(session: Session, args: Args) -> Result:
    machine = session.debugger.machine
    calls = tuple(e for e in machine.journal if e.kind == "bios")
    if calls:
        return Result((calls[-(args["count"] or _DEFAULT_EVENTS) :],))
    there = any(device.name == "bios" for device in session.debugger.devices())
    return Result(text="no service has been called" if there else "the firmware is not the built-in BIOS")


@command(
    "fingerprint", "record", "print retired instructions, virtual time and hashes of RAM, CPU and devices",
    details="Two equal runs print the same.", looks=True,
)  # fmt: skip
def fingerprint(session: Session, args: Args) -> Result:
    return Result((session.debugger.fingerprint(),))


@command(
    "save", "record", "keep the machine's whole state in memory, under NAME", Argument("name", NAME, optional=True),
    aliases=("savevm",),
)  # fmt: skip
def save(session: Session, args: Args) -> Result:
    name = args["name"] or _DEFAULT_NAME
    state = session.snapshots.states[name] = session.debugger.save()
    return Result(text=f"saved {name!r} at {state.retired} instructions")


@command(
    "save-xen", "record", "write the machine to FILE as a save stream of Xen", Argument("file", PATH),
    details="`v2e run --load-xen FILE` continues it, `v2e inspect FILE` looks at it. What Xen has no records for "
    "(display, disks and other devices of the device model) is not in it.", effect="writes a file where v2e runs",
)  # fmt: skip
def save_xen(session: Session, args: Args) -> Result:
    from xenbridge.xen.files import FileError
    from xenbridge.xen.stream_files import save_file

    session.check_written(args["file"])
    try:
        notices = save_file(session.debugger.machine, args["file"])
    except FileError as error:
        raise CommandError(str(error)) from None
    return Result(text="\n".join((f"written to {args['file']}", *notices)))


@command(
    "restore", "record", "put the machine back into the state saved as NAME", Argument("name", SNAPSHOT, optional=True),
    aliases=("loadvm",),
)  # fmt: skip
def restore(session: Session, args: Args) -> Result:
    name = args["name"] or _DEFAULT_NAME
    state = session.snapshots.states.get(name)
    if state is None:
        known = ", ".join(sorted(session.snapshots.states)) or "none"
        raise CommandError(f"nothing is saved as {name!r}; there is: {known}")
    session.debugger.restore(state)
    return Result((session.position(),))
