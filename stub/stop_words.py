"""What a stop says to a gdb user, and a step that does not come to one.

Breakpoints that gdb has set are told by what and where they are, as gdb numbers them by itself; those of `monitor` and
of the prompt by the number that `monitor breaks` shows, and by whose they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from emu.stops import Met, Stop, StopKind
from emu.views import LastingView

#: Stops that breakpoints are the cause of.
_BY_POINTS = frozenset((StopKind.BREAKPOINT, StopKind.WATCHPOINT, StopKind.CATCH))
#: Those that gdb has asked for, so that its own message says enough.
_ASKED = frozenset((StopKind.PAUSED, StopKind.STEP, StopKind.INTERRUPTED))
_CANNOT = {"condition": "cannot be evaluated", "commands": "cannot be carried out"}


def stop_words(stop: Stop, owner: str) -> str:
    """A sentence; "" where gdb's own message says all. `owner` is the name of gdb's breakpoints."""
    others = [met for met in stop.met if met.owner != owner]
    parts = [_head(stop, others)] if stop.kind not in _ASKED else []
    for met in stop.met:
        if met.failed and met.owner == owner:
            parts.append(f"the {met.failed} of the breakpoint at {met.address:#x} {_CANNOT[met.failed]}: {met.why}")
        elif met.failed:
            parts.append(f"{_named(met)}: {met.why}" if len(others) > 1 else met.why)
    return "; ".join(filter(None, parts))


def _head(stop: Stop, others: Sequence[Met]) -> str:
    if stop.kind not in _BY_POINTS:
        return stop.happened or stop.text
    if others:
        return f"{stop.kind.value} {' and '.join(map(_named, others))}{stop.happened}"
    return "" if stop.kind is StopKind.BREAKPOINT else f"a {stop.kind.value}{stop.happened}"


def _named(met: Met) -> str:
    return f"{met.id} of {'monitor' if met.owner == 'monitor' else f'the {met.owner}'}"


def lasting_words(view: LastingView) -> str:
    """Of a step that waits for a handler: what is the case, and what to do."""
    return (
        f"the step goes on: {view.summary}. Ctrl-C stops it there; "
        "with `monitor handlers into` a step stops in a handler instead of running through it"
    )
