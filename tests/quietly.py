"""Quiet steps and runs asked for as a debugger's C does, and plain ones beside them."""

from __future__ import annotations

import ctypes
from collections import Counter

from emu.debugger import Debugger
from emu.quiet import Quiet

STEP = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
TAKE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_PUT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint64)
_LOOK = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)
#: What came of a step or a run (emu/native/quiet.h).
REFUSED, MADE, ENDED, MET = range(4)
#: Of all numbers, for runs that may end by any watchpoint.
ANY = range(1 << 30)


def look(quiet: Quiet, linear: int, length: int) -> bytes | None:
    """Memory by C; None where it takes Python to say."""
    at = _LOOK(quiet.look)(ctypes.addressof(quiet), linear, length)
    return None if at is None else ctypes.string_at(at, length)


def put(quiet: Quiet, linear: int, data: bytes) -> bool:
    """Store by C; False where it takes Python to say."""
    return bool(_PUT(quiet.put)(ctypes.addressof(quiet), linear, data, len(data)))


def begin(session: Debugger) -> Quiet:
    """As C has it until `session.end_quiet`."""
    quiet = session.begin_quiet()
    assert quiet is not None
    return quiet


def same(one: Debugger, other: Debugger) -> None:
    """Nothing tells them apart."""
    assert one.fingerprint() == other.fingerprint()
    assert (one.retired, one.virtual_ns, one.last_stop) == (other.retired, other.virtual_ns, other.last_stop)
    assert one.events() == other.events()
    assert one.cpu() == other.cpu()
    assert [p.hits for p in one.breakpoint_list()] == [p.hits for p in other.breakpoint_list()]


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
            step = STEP(quiet.step)(ctypes.addressof(quiet))
            came[step] += 1
            if step != MADE:
                break
            count -= 1
        session.end_quiet(step == ENDED)
        if step != MADE:
            step_plainly(session)
            count -= 1
    return came


def run_plainly(session: Debugger, count: int = 1) -> None:
    """So many runs to whatever ends them, each as a client's packet makes it."""
    for _ in range(count):
        session.begin_continue()
        session.run()


def run_quietly(session: Debugger, count: int, piece: int, *, run: int = 2000) -> Counter[int]:
    """The same where they begin quietly, at most `piece` on end and `run` instructions long; what came of each."""
    came: Counter[int] = Counter()
    while count:
        quiet, made = session.begin_quiet(run, ANY), None
        assert quiet is not None
        at = ctypes.addressof(quiet)
        for _ in range(min(count, piece)):
            made = STEP(quiet.go)(at)
            came[made] += 1
            if made != MET:
                break
            TAKE(quiet.take)(at)
            count -= 1
        session.end_quiet(made == ENDED)
        if made != MET:
            run_plainly(session)
            count -= 1
    return came
