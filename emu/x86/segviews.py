"""Segment registers beside their tables: what the CPU has cached, what the selector's descriptor says now."""

from __future__ import annotations

from collections.abc import Collection

from emu.views import SegmentView
from emu.x86.descriptors import (
    ACCESS_P,
    ACCESS_S,
    ReadLinear,
    access_text,
    is_gate,
    kind_of,
    parse_descriptor,
    parse_gate,
    read_descriptor,
    same_rights,
)
from emu.x86.modes import REAL_LIMIT, Mode, mode_of
from emu.x86.register_writes import ACCESS_UNUSABLE, RegisterError
from emu.x86.state import EFER_LMA, SEGMENTS, CpuState, Segment

SHOWN = (*SEGMENTS, "ldtr", "tr")
_FIELDS = ("selector", "base", "limit", "access")


def segment_views(
    state: CpuState, read_linear: ReadLinear, unknown: Collection[str] = frozenset()
) -> tuple[SegmentView, ...]:
    """ES CS SS DS FS GS LDTR TR, each compared with its table, or in real and V86 mode with selector * 16 and 64 KiB.

    `unknown` holds names of state that the subject does not have ("cs.base", "cs" for all of CS, "gdtr"). What the
    CPU itself changes (accessed, busy) and what 64-bit mode ignores is not a difference (SDM vol. 3A, 3.4.4).
    """
    return tuple(_view(state, name, read_linear, unknown) for name in SHOWN)


def _view(state: CpuState, name: str, read_linear: ReadLinear, unknown: Collection[str]) -> SegmentView:
    segment = state.segment(name)
    hidden = tuple(field for field in _FIELDS if name in unknown or f"{name}.{field}" in unknown)
    mode = mode_of(state)
    long_mode = bool(state.efer & EFER_LMA)
    table: tuple[int | None, int | None, int | None] = (None, None, None)
    if mode.real_addressing and name in SEGMENTS:
        differs, notes = _compare_real(segment, mode, hidden)
    elif mode.real_addressing and mode is not Mode.V86:
        differs, notes = (), ["not used in real mode"]
    else:
        table, differs, notes = _compare_table(state, name, read_linear, hidden, unknown)
    if "access" in hidden:
        text = "unknown"
    elif segment.access & ACCESS_UNUSABLE or not segment.access & 0xFF:
        text = "unusable"
    else:
        text = access_text(segment.access, long_mode)
    return SegmentView(
        name, segment.selector, segment.base, segment.limit, segment.access, text, *table, differs,
        "; ".join(notes), hidden,
    )  # fmt: skip


def _compare_real(segment: Segment, mode: Mode, hidden: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    differs, notes = [], []
    if not {"base", "selector"} & set(hidden) and segment.base != segment.selector << 4:
        differs.append("base")
        notes.append("base is not selector*16")
    if "limit" not in hidden and segment.limit != REAL_LIMIT:
        differs.append("limit")
        notes.append("limit is not 64 KiB" + ("" if mode is Mode.V86 else ": big real mode"))
    return tuple(differs), notes


def _compare_table(
    state: CpuState, name: str, read_linear: ReadLinear, hidden: tuple[str, ...], unknown: Collection[str]
) -> tuple[tuple[int | None, int | None, int | None], tuple[str, ...], list[str]]:
    segment = state.segment(name)
    ignored, notes = _ignored(state, name)
    nothing = (None, None, None)
    if "selector" in hidden:
        return nothing, (), ["selector is unknown", *notes]
    if not segment.selector & 0xFFFC:
        usable = segment.access & ACCESS_P and not segment.access & ACCESS_UNUSABLE and "access" not in hidden
        left = "null selector; the cache is from an earlier load" if usable else "null selector"
        return nothing, (), [left, *notes]
    needed = "ldtr" if segment.selector & 4 else "gdtr"
    if any(word == needed or word.startswith(needed + ".") for word in unknown):
        return nothing, (), [f"{needed.upper()} is unknown", *notes]
    long_mode = bool(state.efer & EFER_LMA)
    try:
        raw = read_descriptor(state, segment.selector, read_linear, system=name in ("ldtr", "tr"))
    except RegisterError as error:
        return nothing, (), [str(error), *notes]
    entry = parse_descriptor(raw)
    if not any(raw[:8]):
        notes.insert(0, "the table's entry is empty now")
    elif is_gate(entry.access):
        gate = parse_gate(raw[:8])
        notes.insert(0, f"the table holds a {kind_of(gate.access, long_mode)} there now")
        wrong = () if "access" in hidden else ("access",)
        return (None, None, gate.access), wrong, notes
    elif bool(entry.access & ACCESS_S) != (name in SEGMENTS):
        notes.insert(0, f"the table holds a {kind_of(entry.access, long_mode)} there now")
    pairs = (("base", segment.base, entry.base), ("limit", segment.limit, entry.limit))
    skip = {*hidden, *ignored}
    differs = [field for field, cached, now in pairs if cached != now and field not in skip]
    if "access" not in hidden and not same_rights(segment.access, entry.access):
        differs.append("access")
    return (entry.base, entry.limit, entry.access), tuple(differs), notes


def _ignored(state: CpuState, name: str) -> tuple[tuple[str, ...], list[str]]:
    """The cached fields that 64-bit mode does not use, and the note that says so (SDM vol. 3A, 3.4.4)."""
    if not state.long64 or name not in SEGMENTS:
        return (), []
    if name in ("fs", "gs"):
        return ("base", "limit"), [f"64-bit mode: base is the {name.upper()} base MSR's, limit is ignored"]
    return ("base", "limit"), ["base and limit are ignored in 64-bit mode"]
