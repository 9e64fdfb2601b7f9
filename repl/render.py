"""Views to text, coloured or plain, and to JSON."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

from emu.journal import Event
from emu.stops import BreakKind, Breakpoint, Stop, StopKind
from emu.views import (
    DeviceView,
    DivergenceView,
    EntryView,
    FingerprintView,
    InstructionView,
    LedgerView,
    LockstepView,
    PageWalkView,
    PictureView,
    RegionView,
    RegistersView,
    RegisterView,
    ScreenView,
    SegmentView,
    StuckView,
    TableEntryView,
    TransitionsView,
)
from repl.command import Result
from repl.plots import half_blocks
from repl.shown import CodeView, FindingView, MemoryView, PositionView, ValueView

#: SGR codes (ECMA-48, 8.3.117) by what they stand for.
_COLOURS = {"head": "1", "differs": "1;31", "note": "2", "here": "1;32", "name": "36", "error": "31", "good": "32"}
#: This many table entries of one content in a row are shown as the first and the last.
_FOLD = 4
_SGR = re.compile(r"\x1b\[[0-9;]*m")


def wants_colour(stream: TextIO) -> bool:
    """True for a terminal that shows colour, unless NO_COLOR says no (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in (None, "", "dumb")


def printable(text: str) -> str:
    """`text` without control characters, which a guest could use against the terminal."""
    return "".join(c if c.isprintable() else "." for c in text)


class Style:
    """Colours, or none. `columns` is how wide pictures may be drawn, 0: not at all; `truecolour`: in 24-bit colours."""

    def __init__(self, colour: bool = False, columns: int = 0, *, truecolour: bool = False) -> None:
        self.colour, self.columns, self.truecolour = colour, columns, truecolour

    def __call__(self, kind: str, text: str) -> str:
        return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m" if self.colour and text else text


def terminal_style(stream: TextIO) -> Style:
    """What `stream` can show: colours and pictures on a terminal that has them."""
    if not wants_colour(stream):
        return Style()
    truecolour = os.environ.get("COLORTERM") in ("truecolor", "24bit")
    return Style(True, shutil.get_terminal_size().columns, truecolour=truecolour)


def width(text: str) -> int:
    """Characters shown, colours not counted."""
    return len(_SGR.sub("", text))


def aligned(rows: Iterable[Sequence[str]], gap: str = "  ") -> list[str]:
    """Rows of cells as lines, columns aligned left; columns without text and blanks at line ends are dropped."""
    rows = [list(row) for row in rows]
    used = sorted({i for row in rows for i, cell in enumerate(row) if cell})
    rows = [[row[i] for i in used if i < len(row)] for row in rows]
    columns = len(used)
    widths = [max((width(row[i]) for row in rows if i < len(row) - 1), default=0) for i in range(columns)]
    return [gap.join(cell + " " * (widths[i] - width(cell)) for i, cell in enumerate(row)).rstrip() for row in rows]


def hexadecimal(value: int, bits: int | None = 32) -> str:
    """Hex digits for `bits`; more where the value needs them."""
    return f"{value:0{(bits or 32) // 4}x}"


def _wide(*values: int | None) -> int:
    return 64 if any(v is not None and v > 0xFFFFFFFF for v in values) else 32


# -- one function a view; a list of equal views is given at once, so that columns align


def _segments(views: Sequence[SegmentView], style: Style) -> list[str]:
    bits = _wide(*(v.base for v in views), *(v.table_base for v in views))
    tables = any(v.table_base is not None or v.table_access is not None for v in views)
    head = ["", "sel", " base", " limit", " access", "rights"]
    native = any(v.native for v in views)
    head += ["native"] if native else []
    head += ["table: base", "limit", "access", ""] if tables else []
    rows = [[style("head", cell) for cell in head]]
    for view in views:

        def cell(field: str, text: str, view: SegmentView = view) -> str:
            if field in view.unknown:
                return style("note", " " + "?" * len(text))
            return style("differs", "*" + text) if field in view.differs else " " + text

        def table(field: str, value: int | None, digits: int, view: SegmentView = view) -> str:
            text = "-" if value is None else hexadecimal(value, digits)
            return style("differs", text) if field in view.differs and value is not None else text

        selector = "????" if "selector" in view.unknown else f"{view.selector:04x}"
        rows.append([
            style("name", view.name), selector, cell("base", hexadecimal(view.base, bits)),
            cell("limit", hexadecimal(view.limit)), cell("access", f"{view.access:04x}"), view.text,
        ])  # fmt: skip
        if native:
            rows[-1].append(style("good" if view.native == "yes" else "differs", view.native))
        if tables:
            rows[-1] += [
                table("base", view.table_base, bits),
                table("limit", view.table_limit, 32),
                table("access", view.table_access, 16),
            ]
        rows[-1].append(style("note", view.note))
    return aligned(rows)


def _entries(views: Sequence[TableEntryView], style: Style) -> list[str]:
    rows = [[style("head", c) for c in ("index", "sel", "raw", "kind", "")]]
    shown = 0
    while shown < len(views):
        view = views[shown]
        alike = 1
        while shown + alike < len(views) and views[shown + alike].raw == view.raw:
            alike += 1
        detail = "" if view.text == view.kind else view.text
        rows.append([str(view.index), f"{view.selector:04x}", view.raw.hex(), style("name", view.kind), detail])
        if alike >= _FOLD:
            last = views[shown + alike - 1]
            rows.append([str(last.index), f"{last.selector:04x}", style("note", f"... {alike - 1} more like it")])
            shown += alike
        else:
            shown += 1
    return aligned(rows)


def _register_list(views: Sequence[RegisterView], style: Style) -> list[str]:
    # Upper halves are shown where one of them is in use.
    wide = _wide(*(v.value for v in views))
    return aligned([style("name", v.name), _digits(v.value, min(v.bits, wide)), v.text] for v in views)


def _digits(value: int | None, bits: int) -> str:
    """Question marks for what is unknown."""
    return "?" * (bits // 4) if value is None else hexadecimal(value, bits)


def _registers(views: Sequence[RegistersView], style: Style) -> list[str]:
    lines = []
    for view in views:
        cells = [f"{style('name', f'{r.name:<6}')} {_digits(r.value, r.bits)}" for r in view.registers]
        lines.append(f"{style('head', view.mode)}, linear pc {_digits(view.linear_pc, 32)}")
        lines += aligned(cells[at : at + 4] for at in range(0, len(cells), 4))
        lines.append(f"{style('name', 'flags')}  {view.flags or '-'}")
        lines += [f"{style('name', name)} {value:#x}" for name, value in view.extra.items()]
    return lines


def _page_walks(views: Sequence[PageWalkView], style: Style) -> list[str]:
    lines = []
    for view in views:
        rows = [
            [style("name", v.level), f"[{v.index}]", f"at {hexadecimal(v.address)}", hexadecimal(v.entry, 64), v.text]
            for v in view.levels
        ]
        lines += aligned(rows)
        linear = hexadecimal(view.linear, _wide(view.linear))
        if view.physical is None:
            lines.append(f"linear {linear} is not mapped: {style('differs', view.fault)}")
            continue
        page = f"{view.page_size >> 10} KiB page" if view.page_size else "no paging"
        rights = f"{'user' if view.user else 'supervisor'} r{'w' if view.writable else '-'}"
        rights += "x" if view.executable else "-"
        rights = f", {rights}" if view.levels else ""
        fault = f"; {style('differs', view.fault)}" if view.fault else ""
        lines.append(f"linear {linear} -> physical {hexadecimal(view.physical, _wide(view.physical))}: "
                     f"{page}{rights}{fault}")  # fmt: skip
    return lines


def _code(views: Sequence[CodeView], style: Style) -> list[str]:
    return [line for view in views for line in _instructions(view.instructions, style, view)]


def _instructions(views: Sequence[InstructionView], style: Style, around: CodeView | None = None) -> list[str]:
    rows = []
    for view in views:
        far = label = ""
        if around is not None and view.offset <= around.limit:
            far = f"{around.selector:04x}:{hexadecimal(view.offset, 16 if view.offset < 65536 else 32)}"
        if around is not None and view.linear in around.labels:
            label = style("note", f"<{around.labels[view.linear]}>")
        text = style("here", view.text) if view.current else view.text
        linear = hexadecimal(view.linear, _wide(view.linear))
        rows.append(["=>" if view.current else "  ", linear, far, view.raw.hex(), text, label])
    return aligned(rows)


def _value_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:#x}" if isinstance(value, int) else printable(str(value))


def _devices(views: Sequence[DeviceView], style: Style) -> list[str]:
    lines = []
    for view in views:
        lines.append(f"{style('head', view.name)}: {view.chip}, {view.where}")
        lines += aligned(
            ["  " + style("name", field.name), _value_text(field.value), printable(field.text)] for field in view.fields
        )
    return lines


def _screens(views: Sequence[ScreenView], style: Style) -> list[str]:
    lines = []
    for view in views:
        cursor = f", cursor at row {view.cursor[0]}, column {view.cursor[1]}" if view.cursor else ""
        title = f"-- {view.mode}{cursor} "
        across = max((len(row) for row in view.rows), default=0)
        lines.append(style("note", title.ljust(across, "-")))
        shown = [printable(row).rstrip() for row in view.rows]
        while shown and not shown[-1]:
            shown.pop()
        lines += shown
        lines.append(style("note", "-" * max(across, len(title))))
    return lines


def _pictures(views: Sequence[PictureView], style: Style) -> list[str]:
    lines = []
    for view in views:
        drawn = f", {view.width}x{view.height} dots" if view.pixels else ""
        lines.append(style("note", f"-- {view.mode}{drawn} --"))
        if style.columns:
            lines += half_blocks(view, style.columns, truecolour=style.truecolour)
    return lines


def _regions(views: Sequence[RegionView], style: Style) -> list[str]:
    ports = all(v.kind == "port" for v in views)
    bits = 16 if ports else _wide(*(v.last for v in views))
    return aligned(
        [
            f"{hexadecimal(v.first, bits)}-{hexadecimal(v.last, bits)}", style("name", v.kind), v.name,
            *([v.owner] if v.owner else []),
        ]
        for v in views
    )  # fmt: skip


def _fingerprints(views: Sequence[FingerprintView], style: Style) -> list[str]:
    return [
        line
        for v in views
        for line in aligned([
            [style("name", "retired"), str(v.retired)], [style("name", "virtual ns"), str(v.virtual_ns)],
            [style("name", "ram"), v.ram], [style("name", "cpu"), v.cpu], [style("name", "devices"), v.devices],
        ])
    ]  # fmt: skip


def _events(views: Sequence[Event], style: Style) -> list[str]:
    return aligned([f"{v.retired:>12}", style("name", v.kind), printable(v.text)] for v in views)


def _entry_checks(views: Sequence[EntryView], style: Style) -> list[str]:
    lines = []
    for view in views:
        verdict = style("differs", "no") if view.broken else style("good", "yes")
        lines.append(f"{style('name', view.rules)} ({view.title}): {verdict}")
        lines += [f"  {text}" for text in view.broken]
        if view.ahead:
            lines.append(style("note", f"  ahead: {view.ahead}"))
    return lines


def _divergence(view: DivergenceView, style: Style) -> list[str]:
    code = view.instruction.text if view.instruction is not None else "?"
    where = f"{view.selector:04x}:{hexadecimal(view.offset, 16 if view.offset < 65536 else 32)}"
    linear = hexadecimal(view.linear, _wide(view.linear))
    lines = [
        f"{style('here', where)} linear {linear}, {view.retired} instructions from reset: {style('differs', code)}"
    ]
    rows = [["", style("name", view.first), style("name", view.second)]]
    for d in view.differences:
        rows.append([style("name", d.name), hexadecimal(d.first, d.bits), hexadecimal(d.second, d.bits)])
    lines += aligned(rows) if view.differences else []
    return [*lines, *([sentence(view.what)] if view.what else [])]


def _locksteps(views: Sequence[LockstepView], style: Style) -> list[str]:
    lines = []
    for view in views:
        masked = f", {view.masked} of them but for undefined flags" if view.masked else ""
        verdict = style("differs", "they part") if view.divergence is not None else style("good", "no difference")
        lines.append(f"{view.first} and {view.second}: {verdict} in {view.compared} instructions{masked}")
        if view.divergence is not None:
            lines += _divergence(view.divergence, style)
        else:
            lines.append(sentence(view.ended))
    return lines


def _stuck(views: Sequence[StuckView], style: Style) -> list[str]:
    lines = []
    for view in views:
        lines.append(style("differs" if view.stuck else "good", sentence(view.summary)))
        lines += [f"  {text}" for text in view.details]
        lines += _instructions(view.code, style)
    return lines


def _transitions(views: Sequence[TransitionsView], style: Style) -> list[str]:
    lines = []
    for view in views:
        who = f"native, on {view.hypervisor}" if view.native else "emulated"
        lines.append(f"the CPU is {style('good' if view.native else 'name', who)}; rules {view.rules}")
        forced = f", but {view.forced} is forced" if view.forced else ""
        lines.append(f"policy {style('name', view.policy)}{forced}")
        lines += [style("note", f"  {line}") for line in view.policy_state]
        if view.forbidden:
            lines.append(f"forbidden: {', '.join(view.forbidden)}")
        if view.obstacle:
            lines.append(f"kept emulated: {view.obstacle}")
        if view.refused:
            lines.append("the state cannot be entered:")
            lines += [f"  {text}" for text in view.refused]
        if view.last:
            lines.append("last transitions:")
            lines += aligned(
                [f"  {v.retired:>12}", "native" if v.native else "emulated", hexadecimal(v.pc, _wide(v.pc)), v.reason]
                for v in view.last
            )
    return lines


def _ledgers(views: Sequence[LedgerView], style: Style) -> list[str]:
    lines = []
    for view in views:
        costs = dict(view.costs)
        exits = sum(count for _, count in view.exits)
        rows = [["", "count", "cycles each", "cycles"]]
        for name, count, each in (
            ("exits", exits, costs["exit"]),
            ("hops to native", view.hops_in, costs["hop"]),
            ("hops to the emulator", view.hops_out, costs["hop"]),
            ("instructions native", view.native, costs["native"]),
            ("instructions emulated", view.emulated, costs["emulated"]),
            *([("in the hypervisor", view.inside, costs["inside"])] if view.inside else []),
            *([("requests", view.requests, costs["request"])] if view.requests else []),
        ):
            rows.append([style("name", name), f"{count:>12}", f"{each:>11}", f"{count * each:>16}"])
        rows.append([style("head", "in all"), "", "", f"{view.cycles:>16}"])
        lines += aligned(rows)
        if view.exits:
            lines.append("exits by cause: " + ", ".join(f"{name} {count}" for name, count in view.exits))
        lines.append(f"accesses caught by the emulator: {view.caught}; refusals of an entry: {view.failed}")
    return lines


def _breakpoints(views: Sequence[Breakpoint], style: Style) -> list[str]:
    rows = []
    for v in views:
        kind = v.kind.value
        length = "" if v.kind in (BreakKind.EXECUTE, BreakKind.CATCH) else f"{v.length} byte{'s' * (v.length > 1)}"
        state = [*(["once"] if v.temporary else []), *([] if v.enabled else ["disabled"])]
        state += [f"{v.hits} hit{'s' * (v.hits > 1)}"] if v.hits else []
        state += [f"ignores {v.ignore}"] if v.ignore else []
        spec = f"({v.spec})" if v.spec and v.spec != f"{v.address:#x}" and v.catch is None else ""
        where = hexadecimal(v.address, _wide(v.address)) if v.catch is None else v.spec
        state += [f"if {v.condition.text}"] if v.condition is not None else []
        owner = "" if v.owner == "prompt" else f"by {v.owner}"
        rows.append([str(v.id), style("name", kind), where, length, spec,
                     " ".join([owner, ", ".join(state)]).strip()])  # fmt: skip
    return aligned(rows)


_BAD_STOPS = (StopKind.SHUTDOWN, StopKind.DEADLOCK, StopKind.FAILURE)


def _stops(views: Sequence[Stop], style: Style) -> list[str]:
    # A step's own sentence says nothing that the position does not.
    return [
        style("differs" if view.kind in _BAD_STOPS else "head", sentence(view.text))
        for view in views
        if view.kind is not StopKind.STEP
    ]


def sentence(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def _positions(views: Sequence[PositionView], style: Style) -> list[str]:
    lines = []
    for v in views:
        if v.running:
            lines.append(f"the guest runs: {v.mode}, {v.retired} instructions")
            continue
        far = f"{v.selector:04x}:{hexadecimal(v.offset, 16 if v.offset < 65536 else _wide(v.offset))}"
        label = f" <{v.label}>" if v.label else ""
        code = f"  {v.next.text}" if v.next else ""
        lines.append(f"{style('here', far)} linear {_digits(v.linear, _wide(v.linear))}{label} [{v.mode}]{code}")
    return lines


_UNIT_DIGITS = {1: 2, 2: 4, 4: 8, 8: 16}


def _memory(views: Sequence[MemoryView], style: Style) -> list[str]:
    lines = []
    for view in views:
        lines += _strings(view, style) if view.format == "s" else _units(view, style)
        if view.lost is not None:
            lines.append(style("note", f"{hexadecimal(view.lost, _wide(view.lost))}: cannot be read"))
    return lines


def _strings(view: MemoryView, style: Style) -> list[str]:
    lines, address = [], view.address
    for piece in view.data.removesuffix(b"\0").split(b"\0"):
        text = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in piece)
        lines.append(f'{style("name", hexadecimal(address, _wide(address)))}  "{text}"')
        address += len(piece) + 1
    return lines


def _units(view: MemoryView, style: Style) -> list[str]:
    units = [int.from_bytes(view.data[at : at + view.unit], "little") for at in range(0, len(view.data), view.unit)]
    cells = [_unit(unit, view.unit, view.format) for unit in units]
    column = max(map(len, cells))
    across = {"t": max(1, 8 // view.unit), "a": 2, "c": 8}.get(view.format, 16 // view.unit)
    lines = []
    for at in range(0, len(cells), across):
        address = view.address + at * view.unit
        text = " ".join(cell.rjust(column) for cell in cells[at : at + across])
        raw = view.data[at * view.unit : (at + across) * view.unit]
        shown = "".join(chr(b) if 32 <= b < 127 else "." for b in raw)
        row = f"{style('name', hexadecimal(address, _wide(address)))}  {text}"
        if view.format == "x":
            full = across * (column + 1) - 1
            row += " " * (full - len(text)) + "  " + style("note", shown)
        lines.append(row.rstrip())
    if view.address in view.labels and lines:
        lines.insert(0, style("note", f"<{view.labels[view.address]}>"))
    return lines


def _unit(value: int, size: int, format: str) -> str:
    bits = 8 * size
    signed = value - (1 << bits) if value >> bits - 1 else value
    if format == "c":
        byte = value & 0xFF
        return f"{value} {chr(byte)!r}" if 32 <= byte < 127 else str(value)
    return {
        "x": f"{value:0{_UNIT_DIGITS[size]}x}", "d": str(signed), "u": str(value), "o": f"0{value:o}",
        "t": f"{value:0{bits}b}", "a": f"{value:#x}",
    }[format]  # fmt: skip


def _values(views: Sequence[ValueView], style: Style) -> list[str]:
    rows = []
    for v in views:
        name = f"{style('name', v.name)} = " if v.name else ""
        if v.value < 0:
            rows.append(f"{name}{v.value} = -{-v.value:#x}")
        else:
            number = f"0x{hexadecimal(v.value, v.bits)}" if v.bits else f"{v.value:#x}"
            rows.append(f"{name}{number} = {v.value}")
    return rows


def _findings(views: Sequence[FindingView], style: Style) -> list[str]:
    words = {True: style("good", "ok"), False: style("error", "bad"), None: style("note", "-")}
    return aligned([words[v.ok], style("name", v.name), v.text] for v in views)


_RENDERERS: dict[type, Callable[[Any, Style], list[str]]] = {
    SegmentView: _segments, TableEntryView: _entries, RegisterView: _register_list, RegistersView: _registers,
    PageWalkView: _page_walks, CodeView: _code, InstructionView: _instructions, DeviceView: _devices,
    ScreenView: _screens, PictureView: _pictures, RegionView: _regions, FingerprintView: _fingerprints, Event: _events,
    Breakpoint: _breakpoints, Stop: _stops, PositionView: _positions, MemoryView: _memory, ValueView: _values,
    FindingView: _findings, EntryView: _entry_checks, TransitionsView: _transitions, LedgerView: _ledgers,
    LockstepView: _locksteps, StuckView: _stuck,
}  # fmt: skip


def view_lines(view: object, style: Style) -> list[str]:
    """One view, or a tuple of equal views as one table, as lines."""
    views: tuple[Any, ...] = view if isinstance(view, tuple) else (view,)
    return _RENDERERS[type(views[0])](views, style) if views else []


def result_text(result: Result, style: Style) -> str:
    """A command's result as text, without a newline at its end."""
    lines = [line for view in result.views for line in view_lines(view, style)]
    return "\n".join([*lines, *([result.text] if result.text else [])])


# -- JSON


def plain(value: object) -> Any:
    """`value` as JSON has it: dataclasses as objects, bytes as hex, enumerations by value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {name: plain(member) for name, member in members.items() if not callable(member)}
    if isinstance(value, re.Pattern):
        return value.pattern
    if isinstance(value, enum.Flag):
        return [member.name.lower() for member in value if member.name]
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value


def _tagged(view: object) -> Any:
    if isinstance(view, tuple):
        return [_tagged(item) for item in view]
    if isinstance(view, PictureView):  # the pixels are what `screen --png` is for
        return {"view": "screen", "mode": view.mode, "rows": [], "width": view.width, "height": view.height}
    name = type(view).__name__.removesuffix("View").lower()
    return {"view": name, **plain(view)}


def result_json(line: str, result: Result) -> str:
    """A command's result as one JSON document in one line: command, views (each says which it is), text."""
    document: dict[str, Any] = {"command": line.strip(), "views": [_tagged(view) for view in result.views]}
    if result.text:
        document["text"] = result.text
    return json.dumps(document)


def error_json(line: str, error: str) -> str:
    """A failed command as one JSON document in one line."""
    return json.dumps({"command": line.strip(), "error": error})
