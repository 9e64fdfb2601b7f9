"""Views of the CPU as text: registers, segments, descriptor tables, paging, code."""

from __future__ import annotations

from collections.abc import Sequence

from emu.views import (
    EntryView,
    InstructionView,
    PageWalkView,
    RegistersView,
    RegisterView,
    SegmentView,
    TableEntryView,
    VcpuView,
)
from repl.shown import CodeView
from repl.style import Renderer, Style, aligned, digits, hexadecimal, wide

#: This many table entries of one content in a row are shown as the first and the last.
_FOLD = 4


def _segments(views: Sequence[SegmentView], style: Style) -> list[str]:
    bits = wide(*(v.base for v in views), *(v.table_base for v in views))
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
    bits = wide(*(v.value for v in views))
    return aligned([style("name", v.name), digits(v.value, min(v.bits, bits)), v.text] for v in views)


def _registers(views: Sequence[RegistersView], style: Style) -> list[str]:
    lines = []
    for view in views:
        cells = [f"{style('name', f'{r.name:<6}')} {digits(r.value, r.bits)}" for r in view.registers]
        lines.append(f"{style('head', view.mode)}, linear pc {digits(view.linear_pc, 32)}")
        lines += aligned(cells[at : at + 4] for at in range(0, len(cells), 4))
        lines.append(f"{style('name', 'flags')}  {view.flags or '-'}")
        lines += [f"{style('name', name)} {value:#x}" for name, value in view.extra.items()]
    return lines


def _vcpus(views: Sequence[VcpuView], style: Style) -> list[str]:
    rows = []
    for view in views:
        far = f"{view.selector:04x}:{hexadecimal(view.offset, 16 if view.offset < 65536 else wide(view.offset))}"
        rows.append([
            f"{style('here', '*') if view.shown else ' '} {style('name', f'vCPU {view.number}')}", far,
            f"linear {digits(view.linear_pc, 32)}", view.mode, f"CR3 {hexadecimal(view.cr3, wide(view.cr3))}",
        ])  # fmt: skip
    return aligned(rows)


def _page_walks(views: Sequence[PageWalkView], style: Style) -> list[str]:
    lines = []
    for view in views:
        rows = [
            [style("name", v.level), f"[{v.index}]", f"at {hexadecimal(v.address)}", hexadecimal(v.entry, 64), v.text]
            for v in view.levels
        ]
        lines += aligned(rows)
        linear = hexadecimal(view.linear, wide(view.linear))
        if view.physical is None:
            lines.append(f"linear {linear} is not mapped: {style('differs', view.fault)}")
            continue
        page = f"{view.page_size >> 10} KiB page" if view.page_size else "no paging"
        rights = f"{'user' if view.user else 'supervisor'} r{'w' if view.writable else '-'}"
        rights += "x" if view.executable else "-"
        rights = f", {rights}" if view.levels else ""
        fault = f"; {style('differs', view.fault)}" if view.fault else ""
        lines.append(f"linear {linear} -> physical {hexadecimal(view.physical, wide(view.physical))}: "
                     f"{page}{rights}{fault}")  # fmt: skip
    return lines


def _code(views: Sequence[CodeView], style: Style) -> list[str]:
    return [line for view in views for line in instructions(view.instructions, style, view)]


def instructions(views: Sequence[InstructionView], style: Style, around: CodeView | None = None) -> list[str]:
    """A line each; with far addresses and labels where `around` says in which segment they are."""
    rows = []
    for view in views:
        far = label = ""
        if around is not None and view.offset <= around.limit:
            far = f"{around.selector:04x}:{hexadecimal(view.offset, 16 if view.offset < 65536 else 32)}"
        if around is not None and view.linear in around.labels:
            label = style("note", f"<{around.labels[view.linear]}>")
        text = style("here", view.text) if view.current else view.text
        linear = hexadecimal(view.linear, wide(view.linear))
        rows.append(["=>" if view.current else "  ", linear, far, view.raw.hex(), text, label])
    return aligned(rows)


def _entry_checks(views: Sequence[EntryView], style: Style) -> list[str]:
    lines = []
    for view in views:
        verdict = style("differs", "no") if view.broken else style("good", "yes")
        lines.append(f"{style('name', view.rules)} ({view.title}): {verdict}")
        lines += [f"  {text}" for text in view.broken]
        if view.ahead:
            lines.append(style("note", f"  ahead: {view.ahead}"))
    return lines


RENDERERS: dict[type, Renderer] = {
    SegmentView: _segments, TableEntryView: _entries, RegisterView: _register_list, RegistersView: _registers,
    PageWalkView: _page_walks, CodeView: _code, InstructionView: instructions, EntryView: _entry_checks,
    VcpuView: _vcpus,
}  # fmt: skip
