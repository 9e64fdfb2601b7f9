"""Storms: one exception or one interrupt that comes again and again, with hardly an instruction in between."""

from __future__ import annotations

from collections import Counter

from emu.machine import Machine
from emu.named import NamedTuple
from emu.stops import VECTOR_NAMES
from emu.views import StuckView

#: A storm: so many of the last events of the journal are one interrupt (or fault), at most so many instructions apart.
STORM_SHARE, STORM_EVENTS, STORM_APART = 0.9, 100, 500
#: Events of the journal that are looked at.
LAST = 256


class Raging(NamedTuple):
    """What comes again and again: the `kind` and `text` of its events (`emu.journal`), how many of the last ones are
    it, and the mean of the instructions between two."""

    kind: str
    text: str
    times: int
    apart: float


def raging(machine: Machine) -> Raging | None:
    """The event that hardly anything comes between any more: an exception at one instruction, an interrupt, or INT n at
    one place, which a program may well mean. None: there is no such event."""
    events = [e for e in machine.journal.last(LAST) if e.kind in ("interrupt", "exception", "int")]
    if len(events) < STORM_EVENTS:
        return None
    if machine.executor.retired - events[-1].retired > STORM_APART * 10:
        return None  # over
    (kind, text), count = Counter((e.kind, e.text) for e in events).most_common(1)[0]
    alike = [e.retired for e in events if (e.kind, e.text) == (kind, text)]
    apart = (alike[-1] - alike[0]) / max(1, count - 1)
    if count < STORM_SHARE * len(events) or apart > STORM_APART or count < STORM_EVENTS:
        return None
    return Raging(kind, text, count, apart)


def storm(machine: Machine) -> StuckView | None:
    """What keeps the CPU from anything else; None: nothing does."""
    found = raging(machine)
    if found is None or found.kind == "int":
        return None
    often = f"{found.times} times, every {found.apart:.0f} instructions"
    if found.kind == "interrupt":
        from emu.pending import tick_rate

        vector = int(found.text.split()[1], 16)
        return StuckView(
            "interrupts", f"the interrupt with vector {vector:#04x} comes without end: {often}",
            (tick_rate(machine, vector) or
             "its handler must quiet the device before it ends the interrupt: a line that stays active interrupts "
             "again at once", *masked(machine)),
        )  # fmt: skip
    vector = int(found.text.split()[0], 16)
    name = VECTOR_NAMES[vector] if vector < len(VECTOR_NAMES) else f"exception {vector:#x}"
    return StuckView(
        "faults", f"{name} is raised again and again{found.text.removeprefix(f'{vector:#04x}')}, {often}",
        ("its handler returns to the instruction without having removed the cause",),
    )  # fmt: skip


def masked(machine: Machine) -> tuple[str, ...]:
    """What the 8259 pair lets through."""
    fields = {f.name: f for f in machine.board.pic.view().fields}
    told = [f"{name} {field.text}" for name, field in fields.items() if "IMR" in name and field.text]
    return (f"8259: {'; '.join(told)}",) if told else ()
