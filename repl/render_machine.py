"""Views of the machine around the CPU as text: devices, the display, maps, bytes of memory, values."""

from __future__ import annotations

from collections.abc import Sequence

from emu.views import DeviceView, PictureView, RegionView, ScreenView
from repl.plots import half_blocks
from repl.shown import FindingView, MemoryView, ValueView
from repl.style import Renderer, Style, aligned, hexadecimal, printable, wide

_UNIT_DIGITS = {1: 2, 2: 4, 4: 8, 8: 16}


def _devices(views: Sequence[DeviceView], style: Style) -> list[str]:
    lines = []
    for view in views:
        lines.append(f"{style('head', view.name)}: {view.chip}, {view.where}")
        lines += aligned(
            ["  " + style("name", field.name), _value_text(field.value), printable(field.text)] for field in view.fields
        )
    return lines


def _value_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:#x}" if isinstance(value, int) else printable(str(value))


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
    bits = 16 if ports else wide(*(v.last for v in views))
    return aligned(
        [
            f"{hexadecimal(v.first, bits)}-{hexadecimal(v.last, bits)}", style("name", v.kind), v.name,
            *([v.owner] if v.owner else []),
        ]
        for v in views
    )  # fmt: skip


def _memory(views: Sequence[MemoryView], style: Style) -> list[str]:
    lines = []
    for view in views:
        lines += _strings(view, style) if view.format == "s" else _units(view, style)
        if view.lost is not None:
            lines.append(style("note", f"{hexadecimal(view.lost, wide(view.lost))}: cannot be read"))
    return lines


def _strings(view: MemoryView, style: Style) -> list[str]:
    lines, address = [], view.address
    for piece in view.data.removesuffix(b"\0").split(b"\0"):
        text = "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in piece)
        lines.append(f'{style("name", hexadecimal(address, wide(address)))}  "{text}"')
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
        row = f"{style('name', hexadecimal(address, wide(address)))}  {text}"
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


RENDERERS: dict[type, Renderer] = {
    DeviceView: _devices, ScreenView: _screens, PictureView: _pictures, RegionView: _regions, MemoryView: _memory,
    ValueView: _values, FindingView: _findings,
}  # fmt: skip
