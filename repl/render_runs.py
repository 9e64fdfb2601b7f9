"""Views of how a run goes as text: where it is, why it stopped, who executes, how two CPUs compare."""

from __future__ import annotations

from collections.abc import Sequence

from emu.journal import Event
from emu.stops import BreakKind, Breakpoint, Stop, StopKind
from emu.views import DivergenceView, FingerprintView, LedgerView, LockstepView, StuckView, TransitionsView
from repl.render_cpu import instructions
from repl.shown import PositionView
from repl.style import Renderer, Style, aligned, digits, hexadecimal, printable, sentence, wide

#: What else there is to say of whoever has set a breakpoint.
_NUMBERED = {"gdb": ", which has another number for it"}
_BAD_STOPS = (StopKind.SHUTDOWN, StopKind.DEADLOCK, StopKind.FAILURE)


def _positions(views: Sequence[PositionView], style: Style) -> list[str]:
    lines = []
    for v in views:
        if v.running:
            lines.append(f"the guest runs: {v.mode}, {v.retired} instructions")
            continue
        far = f"{v.selector:04x}:{hexadecimal(v.offset, 16 if v.offset < 65536 else wide(v.offset))}"
        label = f" <{v.label}>" if v.label else ""
        code = f"  {v.next.text}" if v.next else ""
        lines.append(f"{style('here', far)} linear {digits(v.linear, wide(v.linear))}{label} [{v.mode}]{code}")
    return lines


def _stops(views: Sequence[Stop], style: Style) -> list[str]:
    # A step's own sentence says nothing that the position does not.
    return [
        style("differs" if view.kind in _BAD_STOPS else "head", sentence(view.text))
        for view in views
        if view.kind is not StopKind.STEP
    ]


def _breakpoints(views: Sequence[Breakpoint], style: Style) -> list[str]:
    rows = []
    for v in views:
        kind = v.kind.value
        length = "" if v.kind in (BreakKind.EXECUTE, BreakKind.CATCH) else f"{v.length} byte{'s' * (v.length > 1)}"
        state = [*(["once"] if v.temporary else []), *([] if v.enabled else ["disabled"])]
        state += [f"{v.hits} hit{'s' * (v.hits > 1)}"] if v.hits else []
        state += [f"ignores {v.ignore}"] if v.ignore else []
        spec = f"({v.spec})" if v.spec and v.spec != f"{v.address:#x}" and v.catch is None else ""
        where = hexadecimal(v.address, wide(v.address)) if v.catch is None else v.spec
        state += [f"if {v.condition.text}"] if v.condition is not None else []
        owner = "" if v.owner == "prompt" else f"by {v.owner}{_NUMBERED.get(v.owner, '')}"
        rows.append([str(v.id), style("name", kind), where, length, spec,
                     " ".join([owner, ", ".join(state)]).strip()])  # fmt: skip
    return aligned(rows)


def _events(views: Sequence[Event], style: Style) -> list[str]:
    return aligned([f"{v.retired:>12}", style("name", v.kind), printable(v.text)] for v in views)


def _fingerprints(views: Sequence[FingerprintView], style: Style) -> list[str]:
    return [
        line
        for v in views
        for line in aligned([
            [style("name", "retired"), str(v.retired)], [style("name", "virtual ns"), str(v.virtual_ns)],
            [style("name", "ram"), v.ram], [style("name", "cpu"), v.cpu], [style("name", "devices"), v.devices],
        ])
    ]  # fmt: skip


def _stuck(views: Sequence[StuckView], style: Style) -> list[str]:
    lines = []
    for view in views:
        lines.append(style("differs" if view.stuck else "good", sentence(view.summary)))
        lines += [f"  {text}" for text in view.details]
        lines += instructions(view.code, style)
    return lines


def _transitions(views: Sequence[TransitionsView], style: Style) -> list[str]:
    lines = []
    for view in views:
        who = f"native, on {view.hypervisor}" if view.native else "emulated"
        lines.append(f"the CPU is {style('good' if view.native else 'name', who)}; rules {view.rules}")
        forced = f", but {view.forced} is forced" if view.forced else ""
        lines.append(f"policy {style('name', view.policy)}{forced}")
        lines += [style("note", f"  {line}") for line in view.policy_state]
        if view.totals is not None:
            lines.append(_totals(view.totals))
        if view.noticed:
            lines.append(style("differs", view.noticed))
        if view.forbidden:
            lines.append(f"forbidden: {', '.join(view.forbidden)}")
        if view.obstacle:
            lines.append(f"kept emulated: {view.obstacle}")
        if view.refused:
            lines.append("the state cannot be entered:")
            lines += [f"  {text}" for text in view.refused]
        if view.strayed:
            lines.append(style("differs", f"strayed: {view.strayed}"))
        if view.last:
            lines.append("last transitions:")
            lines += aligned(
                [f"  {v.retired:>12}", "native" if v.native else "emulated", hexadecimal(v.pc, wide(v.pc)), v.reason]
                for v in view.last
            )
        if view.sites:
            lines.append("exit sites:")
            lines += [style("note", f"  {line}") for line in view.sites]
    return lines


def _totals(view: LedgerView) -> str:
    native = f"{view.native} instructions native" if view.counts else "native instructions not counted"
    exits, hops = sum(count for _, count in view.exits), view.hops_in + view.hops_out
    return f"in all: {native}, {view.emulated} emulated; {exits} exits, {hops} hops; {view.cycles} cycles"


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
        if not view.counts:
            native = next(row for row in rows if row[0] == style("name", "instructions native"))
            native[1:] = [f"{'not counted':>12}", f"{costs['native']:>11}", f"{'-':>16}"]
        rows.append([style("head", "in all"), "", "", f"{view.cycles:>16}"])
        lines += aligned(rows)
        if not view.counts:
            lines.append(style("note", "in all is without native instructions, which this hypervisor does not count"))
        if view.exits:
            lines.append("exits by cause: " + ", ".join(f"{name} {count}" for name, count in view.exits))
        lines.append(f"accesses caught by the emulator: {view.caught}; refusals of an entry: {view.failed}")
    return lines


def _locksteps(views: Sequence[LockstepView], style: Style) -> list[str]:
    lines = []
    for view in views:
        masked = f", {view.masked} of them but for undefined flags" if view.masked else ""
        if view.divergence is not None:
            verdict = f"{style('differs', 'they part')} behind {view.compared} equal instructions"
        else:
            verdict = f"{style('good', 'no difference')} in {view.compared} instructions"
        lines.append(f"{view.first} and {view.second}: {verdict}{masked}")
        if view.divergence is not None:
            lines += _divergence(view.divergence, style)
        else:
            lines.append(sentence(view.ended))
    return lines


def _divergence(view: DivergenceView, style: Style) -> list[str]:
    code = view.instruction.text if view.instruction is not None else "?"
    where = f"{view.selector:04x}:{hexadecimal(view.offset, 16 if view.offset < 65536 else 32)}"
    linear = hexadecimal(view.linear, wide(view.linear))
    lines = [
        f"{style('here', where)} linear {linear}, {view.retired} instructions from reset: {style('differs', code)}"
    ]
    rows = [["", style("name", view.first), style("name", view.second)]]
    for d in view.differences:
        rows.append([style("name", d.name), hexadecimal(d.first, d.bits), hexadecimal(d.second, d.bits)])
    lines += aligned(rows) if view.differences else []
    return [*lines, *([sentence(view.what)] if view.what else [])]


RENDERERS: dict[type, Renderer] = {
    FingerprintView: _fingerprints, Event: _events, Breakpoint: _breakpoints, Stop: _stops,
    PositionView: _positions, TransitionsView: _transitions, LedgerView: _ledgers, LockstepView: _locksteps,
    StuckView: _stuck,
}  # fmt: skip
