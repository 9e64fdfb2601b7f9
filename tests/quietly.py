"""Quiet steps asked for as a debugger's C does, and plain steps beside them."""

from __future__ import annotations

import ctypes
from collections import Counter

from emu.debugger import Debugger
from emu.quiet import Quiet

_STEP = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_LOOK = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
#: What came of a step (emu/native/quiet.h).
REFUSED, MADE, ENDED = range(3)


def look(quiet: Quiet, linear: int, length: int) -> bytes | None:
    """Memory by C; None where it takes Python to say."""
    at = _LOOK(quiet.look)(ctypes.addressof(quiet), linear, length)
    return None if at is None else ctypes.string_at(at, length)


def begin(session: Debugger) -> Quiet:
    """As C has it until `session.end_quiet`."""
    quiet = session.begin_quiet()
    assert quiet is not None
    return quiet


def step_plainly(session: Debugger, count: int = 1) -> None:
    """So many steps, each as a client's packet makes it."""
    for _ in range(count):
        if session.single_step() is None:
            session.begin_step()
            session.run()


def step_quietly(session: Debugger, count: int, piece: int) -> Counter[int]:
    """The same where that can be quiet, at most `piece` on end; what came of each step."""
    came: Counter[int] = Counter()
    while count:
        quiet, step = begin(session), None
        for _ in range(min(count, piece)):
            step = _STEP(quiet.step)(ctypes.addressof(quiet))
            came[step] += 1
            if step != MADE:
                break
            count -= 1
        session.end_quiet(step == ENDED)
        if step != MADE:
            step_plainly(session)
            count -= 1
    return came
