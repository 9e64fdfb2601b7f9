"""Runs recorded sessions of gdb, changed by chance, in one process: `python tests/soak_sessions.py [--sessions N]`.

With `--exchanged` each is one of `mutated_exchanges.py`: C answers what it can, and is compared with Python; with
`--exact` that C is a library built to find what it reads or writes beyond its room. A line each thousand of them says
what the process has come to hold. Exit status 1 for findings: an error within a session, something left behind, and,
which end the run, a hang and memory that grows. `--first NUMBER --sessions 1` makes one of them again.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import sys
import time
import traceback
from pathlib import Path

from mutated_exchanges import ExchangeGround
from mutated_sessions import Ground
from stub.known import Library, load_library
from stub_machine import resident

#: Between two lines. What the first so many leave is what is loaded and kept for all.
EVERY = 1_000
#: That much more may be in memory in the end (bytes), and so many more objects be there.
GROWTH, OBJECTS = 16 << 20, 2_000
#: s, on a busy host too, which 50 sessions never take.
HANG, ARMED = 300, 50


def answers(ground: Ground) -> dict[str, list[bytes]]:
    """What each recording is answered, unchanged."""
    return {name: ground.play(pieces) for name, pieces in ground.mutator.whole.items()}


def soak(ground: Ground, first: int, count: int) -> str:
    """Why it is no success; "" if it is."""
    before, state = answers(ground), ground.debugger.machine.fingerprint()
    begin, slowest, findings = time.monotonic(), (0.0, 0), 0
    held: tuple[int, int] | None = None
    for done, number in enumerate(range(first, first + count), 1):
        if done % ARMED == 1:
            faulthandler.dump_traceback_later(HANG, exit=True)
        started = time.process_time()
        try:
            ground.session(number)
        except Exception:
            findings += 1
            print(f"session {number}:\n{traceback.format_exc()}", flush=True)
        slowest = max(slowest, (time.process_time() - started, number))
        if done % EVERY == 0 or done == count:
            gc.collect()
            now = resident(), len(gc.get_objects())
            held = held or now
            print(
                f"{done} sessions, {time.monotonic() - begin:.0f} s (CPU {time.process_time():.0f} s), "
                f"{now[0] / 1e6:.1f} MB resident ({(now[0] - held[0]) / 1e6:+.1f}), {now[1]} objects "
                f"({now[1] - held[1]:+}), slowest {slowest[0]:.2f} s (session {slowest[1]})",
                flush=True,
            )
            if now[0] - held[0] > GROWTH or now[1] - held[1] > OBJECTS:
                return "the process grows"
    faulthandler.cancel_dump_traceback_later()
    if answers(ground) != before:
        return "recordings are answered in another way than before"
    if ground.debugger.machine.fingerprint() != state:
        return "the machine is not what it was"
    ground.close()
    return f"{findings} findings" if findings else ""


def main() -> int:
    """Returns an exit status: 0, 1 at a finding."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=100_000, metavar="N", help="how many (default 100,000)")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="the first one (default 0)")
    parser.add_argument("--exchanged", action="store_true", help="sessions of which C answers what it can")
    parser.add_argument("--exact", type=Path, metavar="LIBRARY", help="the same by this library, with more noise")
    options = parser.parse_args()
    if options.exact is not None:
        ground: Ground = ExchangeGround(Library(options.exact), exact=True)
    elif not options.exchanged:
        ground = Ground()
    elif (library := load_library()) is not None:
        ground = ExchangeGround(library)
    else:
        parser.error("stub/native was not built here: tools/setup builds it")
    finding = soak(ground, options.first, options.sessions)
    if isinstance(ground, ExchangeGround):
        print(f"by C: {dict(ground.came)}")
    print(finding or "no finding", flush=True)
    return bool(finding)


if __name__ == "__main__":
    sys.exit(main())
