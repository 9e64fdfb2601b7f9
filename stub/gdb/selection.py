"""Has gdb read registers anew without losing the frame that the user has selected."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import gdb


def selected_level() -> int:
    """How many callers up from the innermost frame, 0 also where there is no frame."""
    level = 0
    with contextlib.suppress(gdb.error):
        frame = gdb.selected_frame().newer()
        while frame is not None:
            level, frame = level + 1, frame.newer()
    return level


def selected_register(name: str) -> int | None:
    """Of the selected frame, which a gdb.Frame would have to be made for, and callers found; None where it has none."""
    try:
        return int(gdb.parse_and_eval(f"${name}"))
    except (gdb.error, ValueError):
        return None


@contextlib.contextmanager
def kept_selection() -> Iterator[None]:
    """What is done inside may drop all frames; the one selected is so again, by its level, if there are as many."""
    level = selected_level()
    yield
    if not level:
        return
    with contextlib.suppress(gdb.error):
        frame = gdb.newest_frame()
        for _ in range(level):
            frame = frame.older()
            if frame is None:
                return
        frame.select()


def drop_registers() -> None:
    """Make gdb read all registers again, and memory that it has cached as stack or code."""
    with kept_selection():
        for command in ("maintenance flush register-cache", "flushregs"):  # the second is the name before gdb 11
            with contextlib.suppress(gdb.error):
                gdb.execute(command, to_string=True)
                break
        with contextlib.suppress(gdb.error):  # unknown before gdb 11
            gdb.execute("maintenance flush dcache", to_string=True)
