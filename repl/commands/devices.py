"""Devices, screen and keyboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repl.command import Argument, CommandError, Result, command
from repl.kinds import DEVICE, KEYS, MOUSE, NUMBER, PNG, PORT, TYPED
from repl.plots import PlotError, write_png
from repl.shown import ValueView

if TYPE_CHECKING:
    from repl.session import Session

Args = Mapping[str, Any]

_PORT_SIZES = {"": 1, "b": 1, "h": 2, "w": 2, "l": 4, "d": 4}
#: What `irq` shows of the journal.
INTERRUPT_KINDS = ("interrupt", "exception", "int")
RECENT = 12


@command(
    "screen", "devices", "show what the display shows; with --png write it to FILE as a picture",
    Argument("png", PNG, optional=True, form="--png FILE"),
    details="A graphics mode is drawn on a terminal with colours, and named elsewhere. Each dot and scan line of the "
    "mode is a pixel of the picture; what blinks is shown lit.", looks=0, effect="--png writes a file where v2e runs",
)  # fmt: skip
def screen(session: Session, args: Args) -> Result:
    if args["png"] is not None:
        session.check_written(args["png"])
        try:
            write_png(session.debugger.picture(), args["png"])
        except PlotError as error:
            raise CommandError(str(error)) from None
        return Result()
    view = session.debugger.screen()
    return Result((session.debugger.picture() if view.mode.startswith("graphics") else view,))


@command(
    "type", "devices", "type TEXT on the guest's keyboard (US layout)", Argument("text", TYPED),
    details="`type root\\n` ends with Enter. Quotes keep blanks at the ends; \\t \\b \\e: Tab, Backspace, Escape.",
)  # fmt: skip
def type_text(session: Session, args: Args) -> Result:
    session.debugger.type_text(args["text"])
    return Result()


@command(
    "key", "devices", "press keys: joined by + at once, divided by blanks one after another", Argument("keys", KEYS),
    aliases=("sendkey",), details="`key ctrl+alt+delete`, `key down down enter`.",
)  # fmt: skip
def key(session: Session, args: Args) -> Result:
    session.debugger.press(args["keys"])
    return Result()


@command(
    "mouse", "devices", "move and click the PS/2 mouse", Argument("action", MOUSE),
    details="`mouse move 10 -5` (counts to the right and up), `mouse wheel 1`, `mouse click left`; `down` and `up` "
    "hold a button: left, right, middle, side, extra.",
)  # fmt: skip
def mouse(session: Session, args: Args) -> Result:
    session.debugger.move_mouse(args["action"])
    return Result()


@command("dev", "devices", "show the devices; with NAME one of them, its registers decoded",
         Argument("name", DEVICE, optional=True), aliases=("info device", "info devices"), looks=True)  # fmt: skip
def dev(session: Session, args: Args) -> Result:
    if args["name"] is not None:
        return Result((session.debugger.device(args["name"]),))
    return Result((session.debugger.devices(),))


@command("irq", "devices", "show the interrupt controllers, and the last interrupts and exceptions", looks=True)
def irq(session: Session, args: Args) -> Result:
    controllers = [v for v in session.debugger.devices() if "8259" in v.chip or "APIC" in v.chip.upper()]
    events = [e for e in session.debugger.events() if e.kind in INTERRUPT_KINDS]
    return Result((*controllers, tuple(events[-RECENT:])))


@command("serial", "devices", "show what the guest has sent to COM1", looks=True)
def serial(session: Session, args: Args) -> Result:
    text = session.debugger.machine.serial_text().replace("\r\n", "\n")
    return Result(text="".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text).rstrip("\n"))


def _size(args: Args, word: str) -> int:
    if args["slash"] not in _PORT_SIZES:
        raise CommandError(f"{word}/{args['slash']}: the size is /b for 1, /w for 2 or /l for 4 bytes")
    return _PORT_SIZES[args["slash"]]


@command(
    "in", "devices", "read I/O port PORT as the CPU would, with the side effects on the device",
    Argument("port", PORT), slash="b|w|l", aliases=("inp", "i"),
)  # fmt: skip
def port_in(session: Session, args: Args) -> Result:
    size = _size(args, "in")
    value = session.debugger.port_in(args["port"], size)
    return Result((ValueView(f"port {args['port']:#x}", value, 8 * size),))


@command(
    "out", "devices", "write VALUE to I/O port PORT as the CPU would", Argument("port", PORT),
    Argument("value", NUMBER), slash="b|w|l", aliases=("outp", "o"),
)  # fmt: skip
def port_out(session: Session, args: Args) -> Result:
    size, value = _size(args, "out"), args["value"]
    if not 0 <= value < 1 << 8 * size:
        raise CommandError(f"{value:#x} does not fit in {size} byte{'s' * (size > 1)}: write out/w or out/l")
    session.debugger.port_out(args["port"], size, value)
    return Result()
