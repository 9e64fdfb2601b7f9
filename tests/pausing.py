"""Runs of a machine that end after some time of the host's, on the thread that owns it."""

from __future__ import annotations

import threading

from emu.debugger import Debugger
from emu.stops import Stop


def run_for(debugger: Debugger, seconds: float) -> Stop:
    """Continue for so long, or to a stop of the guest's own.

    A stop that is asked for ends the piece that runs, once. So what ends the loop is that it has been asked for, noted
    before it is: the thread that asks may still live when the piece has come back, and another piece would have nobody
    left to end it."""
    asked = threading.Event()

    def ask() -> None:
        asked.set()
        debugger.machine.request_stop()

    timer = threading.Timer(seconds, ask)
    debugger.begin_continue()
    timer.start()
    try:
        while (stop := debugger.pump()) is None and not asked.is_set():
            pass
    finally:
        timer.cancel()
        timer.join()
    return stop or debugger.stop()
