"""Memory and code: looking never has side effects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emu.subject import MemoryUnavailable
from emu.views import InstructionView
from repl.command import Argument, CommandError, Result, command
from repl.kinds import ADDRESS, EXPRESSION, NUMBER, PATH, VALUE
from repl.shown import CodeView, MemoryView, ValueView

if TYPE_CHECKING:
    from repl.session import Session

Args = Mapping[str, Any]

_FORMATS = "xduotacsi"
_UNITS = {"b": 1, "h": 2, "w": 4, "g": 8}
#: At most this many bytes, and this many instructions, are shown by one command.
MAX_BYTES = 1 << 20
MAX_INSTRUCTIONS = 10_000
_MAX_STRING = 4096


def parse_format(text: str, default: tuple[str, int]) -> tuple[int, str, int]:
    """gdb's /NFU: how many, the format letter, the unit in bytes. Raises CommandError naming the letter."""
    match = re.fullmatch(r"(\d*)([a-z]*)", text.lower())
    if match is None:
        raise CommandError(f"/{text} is no format: write a count, then letters, as in /16xb")
    format, unit = default[0], 0
    count = int(match[1] or 1)
    for letter in match[2]:
        if letter in _UNITS:
            unit = _UNITS[letter]
        elif letter in _FORMATS:
            format = letter
        else:
            raise CommandError(
                f"/{text}: {letter!r} is neither a format ({' '.join(_FORMATS)}) nor a unit ({' '.join(_UNITS)})"
            )
    if count < 1:
        raise CommandError(f"/{text} asks for no units: 1 is the least")
    if format in "cs":
        unit = unit or 1
    elif format == "a":
        unit = unit or 4
    return count, format, unit or default[1] or 4


def _code(session: Session, address: int | None, count: int, bits: int | None, word: str) -> Result:
    if count > MAX_INSTRUCTIONS:
        raise CommandError(f"{count} instructions are too many for one command: {MAX_INSTRUCTIONS} is the most")
    debugger = session.debugger
    instructions = debugger.disassemble(address, count, bits)
    cpu = debugger.cpu()
    limit = (1 << 64) - 1 if cpu.long64 else cpu.cs.limit
    if not {"cs", "cs.base", "cs.limit"}.isdisjoint(debugger.unknown()):
        limit = -1  # which offset an address has is unknown
    view = CodeView(instructions, cpu.cs.selector, limit, _labels(session, [i.linear for i in instructions]))
    return Result((view,), again=f"{word} {_behind(instructions):#x}" if instructions else "")


def _behind(instructions: tuple[InstructionView, ...]) -> int:
    return instructions[-1].linear + len(instructions[-1].raw)


def _labels(session: Session, addresses: list[int]) -> dict[int, str]:
    named = ((a, session.symbols.describe(a)) for a in addresses)
    return {a: name for a, name in named if name}


def _examine(session: Session, args: Args, space: str) -> Result:
    word = "x" if space == "linear" else "xp"
    count, format, unit = parse_format(args["slash"], session.examined)
    address = args["address"]
    if format == "i":
        if space == "physical":
            raise CommandError("instructions are shown at linear addresses: use x/i or u")
        session.examined = ("i", session.examined[1])
        return _code(session, address, count, None, f"x/{count}i")
    if address is None:
        raise CommandError(f"{word} needs ADDRESS: {word}[/NFU] ADDRESS")
    session.examined = (format, unit)
    wanted = count * (_MAX_STRING if format == "s" else unit)
    if wanted > MAX_BYTES:
        raise CommandError(f"{wanted} bytes are too many for one command: {MAX_BYTES} is the most")
    have = _readable(session, address, wanted, space)
    read = session.debugger.read_linear if space == "linear" else session.debugger.read_physical
    data = read(address, have)
    data = _strings(data, count) if format == "s" else data[: have // unit * unit]
    if not data:
        raise MemoryUnavailable(address + have, "no memory behind this address")
    cut = have < wanted and not (format == "s" and data.endswith(b"\0"))
    labels = _labels(session, [address])
    view = MemoryView(space, address, unit, format, data, labels, address + have if cut else None)
    return Result((view,), again=f"{word}/{count}{format}{_letter(unit)} {address + len(data):#x}")


def _letter(unit: int) -> str:
    return next(letter for letter, size in _UNITS.items() if size == unit)


def _readable(session: Session, address: int, length: int, space: str) -> int:
    """How many bytes can be read from `address` on. Raises MemoryUnavailable when there are none."""
    if space == "linear":
        have = session.debugger.readable(address, length)
        why = "not mapped" if session.debugger.translate(address) is None else "no memory behind this address"
    else:
        have = session.debugger.subject.readable_physical(address, length)
        why = "no memory at this physical address"
    if have == 0:
        raise MemoryUnavailable(address, why)
    return have


def _strings(data: bytes, count: int) -> bytes:
    """The first `count` strings of `data`, with their NULs."""
    end = 0
    for _ in range(count):
        at = data.find(b"\0", end)
        if at < 0:
            return data
        end = at + 1
    return data[:end]


_X_DETAILS = (
    "As in gdb: N is a count; F one of x hex, d signed, u unsigned, o octal, t binary, a address, c character,\n"
    "s string, i instruction; U one of b 1, h 2, w 4, g 8 bytes. Format and unit stay for the next time.\n"
    "`x/16xb 0x7c00`, `x/s es:di`, `x/8i`. Enter goes on behind what was shown."
)


@command("x", "memory", "examine memory at linear ADDRESS", Argument("address", ADDRESS, optional=True),
         slash="NFU", details=_X_DETAILS, looks=True)  # fmt: skip
def x(session: Session, args: Args) -> Result:
    return _examine(session, args, "linear")


@command(
    "xp", "memory", "examine physical memory", Argument("address", NUMBER), slash="NFU", details=_X_DETAILS, looks=True
)
def xp(session: Session, args: Args) -> Result:
    if args["address"] < 0:
        raise CommandError(f"physical address {args['address']} is out of range: 0 is the first one")
    return _examine(session, args, "physical")


@command(
    "u", "memory", "disassemble COUNT instructions at ADDRESS (default: the next ones)",
    Argument("address", ADDRESS, optional=True), slash="COUNT", aliases=("disasm", "disassemble", "unassemble"),
    details=(
        "Decoded by the width of the current CS, or by the one given: `u/8` shows 8 instructions, `u/8:16` decodes\n"
        "them as 16-bit code (16, 32 or 64). Enter goes on behind what was shown."
    ), looks=True,
)  # fmt: skip
def u(session: Session, args: Args) -> Result:
    match = re.fullmatch(r"(\d*)(?::(16|32|64))?", args["slash"])
    if match is None:
        raise CommandError(f"u/{args['slash']} is not understood: write u/8, or u/8:16 to decode as 16-bit code")
    count = int(match[1] or 8)
    if count < 1:
        raise CommandError("u/0 asks for no instructions: 1 is the least")
    bits = int(match[2]) if match[2] else None
    return _code(session, args["address"], count, bits, f"u/{args['slash'] or count}")


@command(
    "write", "memory", "write VALUES to linear ADDRESS",
    Argument("address", ADDRESS), Argument("value", VALUE, many=True), slash="U", aliases=("setmem", "writemem"),
    details=(
        'Each value is one unit (U: b 1, h 2, w 4, g 8 bytes; default b) or text in double quotes, as in\n'
        '`write/h 0x7dfe 0xaa55` and `write es:di "MZ\\0"`. ROM is written too; devices are not reached.'
    ),
)  # fmt: skip
def write(session: Session, args: Args) -> Result:
    unit = _UNITS.get(args["slash"] or "b")
    if unit is None:
        raise CommandError(f"write/{args['slash']}: the unit is one of {' '.join(_UNITS)}")
    data = b""
    for value in args["value"]:
        if isinstance(value, bytes):
            data += value
            continue
        if not -(1 << 8 * unit - 1) <= value < 1 << 8 * unit:
            raise CommandError(f"{value:#x} does not fit in {unit} byte{'s' * (unit > 1)}: choose a wider unit")
        data += (value & (1 << 8 * unit) - 1).to_bytes(unit, "little")
    session.debugger.write_linear(args["address"], data)
    return Result()


@command(
    "print", "memory", "evaluate EXPRESSION", Argument("expression", EXPRESSION), aliases=("p", "calc", "eval", "?"),
    details=(
        "Numbers: 31744, 0x7c00, 7c00h, 0b101, 'A'. seg:off gives the linear address; two bare numbers are hex\n"
        "(0:7c00). Registers with or without $, symbols, [memory] with byte, word, dword or qword in front (default:\n"
        "the code's width), + - * / % & | << >> ~ and parentheses: `print word [es:di+2] << 4`."
    ), looks=True,
)  # fmt: skip
def print_value(session: Session, args: Args) -> Result:
    return Result((ValueView("", args["expression"]),))


@command(
    "symbols", "memory", "load symbols from FILE, OFFSET added to each address (without FILE: how many there are)",
    Argument("file", PATH, optional=True), Argument("offset", NUMBER, optional=True), aliases=("symbol-file",),
    details="FILE is what `nm` prints, or the map file of nasm's `[map symbols FILE]`.", looks=0,
)  # fmt: skip
def symbols(session: Session, args: Args) -> Result:
    if args["file"] is None:
        return Result(text=f"{len(session.symbols)} symbols")
    count = session.symbols.load(args["file"], args["offset"] or 0)
    return Result(text=f"{count} symbols from {args['file']}")


@command("map", "memory", "show the maps of physical memory and of I/O ports", aliases=("info map",), looks=True)
def show_map(session: Session, args: Args) -> Result:
    subject = session.debugger.subject
    maps = (subject.memory_map(), subject.port_map())
    return Result(maps) if any(maps) else Result(text="there is neither memory nor a port in it")
