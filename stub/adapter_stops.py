"""What a debugger's stops are to gdb, and what is told while the guest runs."""

from __future__ import annotations

from collections.abc import Callable

from emu.debugger import Debugger, Stop, StopKind
from emu.engine import Access
from emu.record import replace
from emu.views import LastingView
from emu.worker import Worker
from stub.adapter_trace import OWNER
from stub.stop_words import lasting_words, stop_words
from stub.target import SIGNAL_ABRT, SIGNAL_INT, SIGNAL_TRAP, StopReason, StopReport

_ACCESSES = {
    StopReason.WATCH: (Access.WRITE,),
    StopReason.RWATCH: (Access.READ,),
    StopReason.AWATCH: (Access.READ, Access.WRITE),
}
_SIGNALS = {
    StopKind.SHUTDOWN: SIGNAL_ABRT,
    StopKind.DEADLOCK: SIGNAL_ABRT,
    StopKind.FAILURE: SIGNAL_ABRT,
}
#: Stops that gdb has asked for, or that its own message says enough about.
_PLAIN = {
    StopKind.PAUSED: StopReport(),
    StopKind.STEP: StopReport(),
    StopKind.INTERRUPTED: StopReport(SIGNAL_INT),
}


class TellingTarget:
    """The part of DebuggerTarget that tells of stops: `set_listener` and `report` of Target, `selected`, and Tells.
    Breakpoints of gdb's are `_software`, `_hardware` (linear address to the debugger's number) and `_watches`."""

    _debugger: Debugger
    _worker: Worker
    _listener: Callable[[StopReport], None] | None
    _told: Callable[[str], None] | None
    _software: dict[int, int]
    _hardware: dict[int, int]
    _watches: dict[tuple[StopReason, int, int], int]
    _threads: tuple[int, ...]

    def set_listener(self, listener: Callable[[StopReport], None] | None) -> None:
        self._worker.remove_listener(self._stopped)
        self._listener = listener
        if listener is not None:
            self._worker.add_listener(self._stopped, steps=False)

    def set_teller(self, told: Callable[[str], None] | None) -> None:
        lasting = self._debugger.lasting
        lasting.remove_listener(self._lasts)
        self._told = told
        if told is not None:
            lasting.add_listener(self._lasts)

    def _lasts(self, view: LastingView) -> None:
        if self._told is not None:
            self._told(lasting_words(view))

    def _stopped(self, stop: Stop) -> None:
        if self._listener is not None:
            self._listener(self._report(stop))

    def selected(self) -> int:
        return self._debugger.shown_vcpu + 1

    def report(self) -> StopReport:
        report = self._report(self._debugger.last_stop)
        return report if len(self._threads) == 1 else replace(report, thread=self.selected())

    def _report(self, stop: Stop) -> StopReport:
        if (plain := _PLAIN.get(stop.kind)) is not None:
            return plain if not stop.met else replace(plain, note=stop_words(stop, OWNER))
        signal = _SIGNALS.get(stop.kind, SIGNAL_TRAP)
        match stop.kind:
            case StopKind.EXIT | StopKind.POWEROFF:
                return StopReport(signal, exit_code=stop.exit_code or 0, note=stop_words(stop, OWNER))
            case StopKind.BREAKPOINT:
                return self._breakpoint_report(stop)
            case StopKind.WATCHPOINT:
                return self._watch_report(stop)
        return StopReport(signal, note=stop_words(stop, OWNER))

    def _breakpoint_report(self, stop: Stop) -> StopReport:
        for reason, points in ((StopReason.SWBREAK, self._software), (StopReason.HWBREAK, self._hardware)):
            if points.get(stop.linear_pc) in stop.breakpoints:
                return StopReport(reason=reason, note=stop_words(stop, OWNER))
        # Those of others: gdb would pass over a reason that it knows no breakpoint for.
        return StopReport(note=stop_words(stop, OWNER))

    def _watch_report(self, stop: Stop) -> StopReport:
        hit = stop.hit
        if hit is not None:
            for (reason, address, length), _ in self._watches.items():
                near = address < hit.address + hit.size and hit.address < address + length
                if near and hit.access in _ACCESSES[reason]:
                    return StopReport(reason=reason, address=max(address, hit.address))
        return StopReport(note=stop_words(stop, OWNER))
