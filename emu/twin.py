"""Two CPUs seen as one: an emulator and a hypervisor's vCPU over one guest, of which one is active at a time.

What is set (lines, breakpoints, callbacks) reaches the active one, or both; state, counters and what was written to
memory move when the other becomes active. Who is active, and when, is decided in `emu.transitions`.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ctypes import addressof, c_uint8
from typing import Any, cast

from emu.engine import CallNotes, Change, Cpu, Executor, Fault, MemoryRegion, MsrDevice, QuietSteps, Watch
from emu.packed import Packing
from emu.unicorn_engine import UnicornEngine
from emu.vcpu import Lending, Resident, Sharing, Vcpu
from emu.x86.state import CpuState

PAGE = 0x1000


class _Live:
    """The state in place of whichever CPU is active when it is asked."""

    def __init__(self, active: Callable[[], Cpu]) -> None:
        self._active = active

    def __getattr__(self, name: str) -> Any:
        return getattr(self._active().live(), name)


class Twin:
    """The part of an Executor that is no decision. `unmarked` gives the (first page, end) of the guest's memory that
    somebody writes past the CPUs."""

    def __init__(
        self,
        emulator: Executor,
        vcpu: Vcpu,
        regions: Sequence[MemoryRegion],
        unmarked: Callable[[], Iterable[tuple[int, int]]],
    ) -> None:
        self.emulator, self.vcpu = emulator, vcpu
        self.name = f"{emulator.name}+{vcpu.name}"
        self.notice, self.unkept = emulator.notice, emulator.unkept
        self.interrupt_taken_at = 0
        self._active: Cpu = emulator
        self.native = False  #: the vCPU is the active one
        self.answers_ahead, self.passes_edges = True, False
        self._resident = vcpu if isinstance(vcpu, Resident) else None
        self._lending = vcpu if isinstance(vcpu, Lending) else None
        self._remains = False  # the vCPU's exits do not end its runs
        self._shared_ports: int | None = None  # address of the structure that answers ports
        self._regions, self._unmarked = regions, unmarked
        self._start = 0  # host address of page 0
        self._traces: mmap.mmap | None = None  # pages that the emulator has written since the last move
        self._traced = False  # the emulator tells what it writes
        self._moving = False  # a CPU is given a state that the other had: nothing has happened to the guest
        self._stop = False
        self._points: frozenset[int] = frozenset()  # linear addresses of breakpoints
        self._vector: int | None = None
        self._last = False
        self._taken: tuple[int, int] | None = None  # delivered by the CPU that was active before, and when
        self._live = _Live(lambda: self._active)
        # The two where both are engines of Unicorn's: asked at each move, of classes that Python takes long to ask.
        alike = isinstance(emulator, UnicornEngine) and isinstance(vcpu, UnicornEngine)
        self._engines = cast(tuple[UnicornEngine, UnicornEngine], (emulator, vcpu)) if alike else None
        packing = emulator.packing() if isinstance(vcpu, Sharing) else None
        self._sharing: tuple[Packing, Sharing] | None = None
        self._take_over: Callable[[int], bool] | None = None  # of the vCPU that shares
        if packing is not None and isinstance(vcpu, Sharing) and vcpu.share(packing, emulator.state):
            self._sharing, self._take_over = (packing, vcpu), vcpu.take_over

    # -- moving

    def _activate(self, target: Cpu, retired: int) -> None:
        """Move everything to `target`, which is not the active one, between two instructions, `retired` of which have
        retired."""
        if target is not self.emulator:
            if self._take_over is not None and self._take_over(retired):
                self._active, self.native, self.answers_ahead = target, True, False
                if self._vector is not None:
                    target.set_interrupt(self._vector)
                return
        elif self._sharing is not None and self._back(*self._sharing, retired):
            return
        # There is more to move now than what is packed.
        source = self._active
        if (vector := source.take_interrupt()) is not None:
            # INTR is low behind it until the controller has heard of it.
            self._taken, self._vector = (vector, source.interrupt_taken_at), None
        if self._engines is not None:
            emulator, vcpu = self._engines
            start = self._start
            unmarked = tuple((start + first * PAGE, start + end * PAGE) for first, end in self._unmarked())
            if not (vcpu.adopt(emulator, unmarked) if target is vcpu else emulator.adopt(vcpu, unmarked)):
                self._share_memory(source, target)
            self._now(target)
        else:
            source.set_interrupt(None)
            self._share_memory(source, target)
            resuming, behind = source.resuming, source.behind
            target.set_retired(retired)
            self._now(target)
            state = source.state()
            self._moving = True
            try:
                target.load(state)
            finally:
                self._moving = False
            target.go_on_behind(behind)
            if resuming is not None:
                target.resume(resuming)
        if self._lending is not None and target is self.emulator:
            self._lending.lend()
        if self._vector is not None:
            target.set_interrupt(self._vector, last=self._last and target is self.emulator)

    def _back(self, packing: Packing, sharing: Sharing, retired: int) -> bool:
        """Go to the emulator by the packed state that both share. False, with nothing done: there is more to move."""
        parts = sharing.hand_over()
        if parts is None:
            return False
        emulator = self.emulator
        emulator.set_retired(retired)
        self._active, self.native, self.answers_ahead = emulator, False, True
        packing.unpack(parts)
        if self._vector is not None:
            emulator.set_interrupt(self._vector, last=self._last)
        return True

    def _now(self, active: Cpu) -> None:
        self._active = active
        self.native = active is self.vcpu
        self.answers_ahead = not self.native or self._remains

    def _remain(self, on: bool) -> None:
        """Have the vCPU, if it can, not return from exits behind which it goes on natively."""
        if self._resident is not None and on is not self._remains:
            self._remains = on
            self._resident.remain(on, self._shared_ports)
            self.answers_ahead = not self.native or on

    @property
    def _answering(self) -> Executor | None:
        """Who answers ports ahead now."""
        if not self.native:
            return self.emulator
        return cast(Executor, self.vcpu) if self._remains else None

    def _share_memory(self, source: Cpu, target: Cpu) -> None:
        """Tell `target` of the pages that `source` has written since it became active."""
        translates = self.vcpu.translates
        if target is self.vcpu and not translates:
            target.memory_changed(0, 0)
            return
        pages = self._written() if source is self.emulator else self.vcpu.take_written()
        if pages is None:
            for region in self._regions:
                target.memory_changed(region.base, region.size)
            return
        for first, end in (*_runs(pages), *(self._unmarked() if translates else ())):
            start, stop = self._start + first * PAGE, self._start + end * PAGE
            for region in self._regions:
                low = max(start, region.host_address)
                high = min(stop, region.host_address + region.size)
                if low < high:
                    target.memory_changed(region.base + low - region.host_address, high - low)

    def _written(self) -> list[int] | None:
        traces = self._traces
        if traces is None or not self._traced:
            return None
        pages = []
        at = traces.find(b"\1")
        while at >= 0:
            pages.append(at)
            at = traces.find(b"\1", at + 1)
        for page in pages:
            traces[page] = 0
        return pages

    # -- the CPU

    @property
    def instruction_pc(self) -> int:
        """See Cpu."""
        return self._active.instruction_pc

    @property
    def retired(self) -> int:
        """See Cpu."""
        return self._active.retired

    @property
    def linear_pc(self) -> int:
        """See Cpu."""
        return self._active.linear_pc

    @property
    def cs_ip(self) -> tuple[int, int]:
        """See Cpu."""
        return self._active.cs_ip

    @property
    def halted(self) -> bool:
        """See Cpu."""
        return self._active.halted

    def request_stop(self) -> None:
        """See Cpu. The flag is set first and the active CPU looked for behind it; `run` does it the other way round."""
        self._stop = True
        self._active.request_stop()

    @property
    def stop_flag(self) -> int | None:
        """See Executor. The emulator's: a native CPU is stopped by `request_stop` alone."""
        return self.emulator.stop_flag

    def state(self) -> CpuState:
        """See Cpu."""
        return self._active.state()

    def live(self) -> CpuState:
        """See Cpu. Of whichever CPU is active when it is looked at."""
        return cast(CpuState, self._live)

    def load(self, state: CpuState) -> None:
        """See Cpu. A state that the vCPU cannot enter is the emulator's."""
        if self.native and self.vcpu.refused(state):
            self._to_emulator_without_state()
        self._active.load(state)

    def forget_rest(self) -> None:
        """What a vCPU that shares has of the guest's and does not pack is not the guest's any more, as behind RESET."""
        if self._sharing is not None:
            self._sharing[1].forget()

    def _to_emulator_without_state(self) -> None:
        self._share_memory(self.vcpu, self.emulator)
        self.emulator.set_retired(self.vcpu.retired)
        self.vcpu.set_interrupt(None)
        self._now(self.emulator)
        if self._lending is not None:
            self._lending.lend()
        self.emulator.set_interrupt(self._vector, last=self._last)

    def undisturbed(self) -> bool:
        """See Cpu."""
        return self._taken is None and self._active.undisturbed()

    @property
    def resuming(self) -> tuple[int, int, bool] | None:
        """See Cpu."""
        return self._active.resuming

    @property
    def behind(self) -> int:
        """See Cpu."""
        return self._active.behind

    def go_on_behind(self, pc: int) -> None:
        """See Cpu."""
        self._active.go_on_behind(pc)

    def resume(self, place: tuple[int, int, bool]) -> None:
        """See Cpu."""
        self._active.resume(place)

    def set_retired(self, count: int) -> None:
        """See Cpu."""
        self._active.set_retired(count)

    # -- interrupts

    def set_interrupt(self, vector: int | None, *, last: bool = False) -> None:
        """See Cpu. A hypervisor has each delivery acknowledged at its instant."""
        self._vector, self._last = vector, last
        self._active.set_interrupt(vector, last=last and self._active is self.emulator)

    def take_interrupt(self) -> int | None:
        """See Cpu."""
        if self._taken is not None:
            (vector, self.interrupt_taken_at), self._taken = self._taken, None
            return vector
        if (taken := self._active.take_interrupt()) is not None:
            self.interrupt_taken_at = self._active.interrupt_taken_at
        return taken

    def interruptible(self) -> bool:
        """See Cpu."""
        return self._active.interruptible()

    def set_task_priority(self, value: int) -> None:
        """See Cpu."""
        self._active.set_task_priority(value)

    def on_task_priority(self, callback: Callable[[int], None] | None) -> None:
        """See Cpu."""

        def told(value: int) -> None:
            if callback is not None and not self._moving:
                callback(value)

        for cpu in (self.emulator, self.vcpu):
            cpu.on_task_priority(told)

    def raise_nmi(self) -> None:
        """See Cpu."""
        self._active.raise_nmi()

    def on_rsm(self, callback: Callable[[], None] | None) -> None:
        """See Executor. System management mode is the emulator's."""
        self.emulator.on_rsm(callback)

    def on_fault(self, callback: Callable[[Fault], None] | None) -> None:
        """See Cpu."""
        for cpu in (self.emulator, self.vcpu):
            cpu.on_fault(callback)

    # -- memory

    def set_a20(self, enabled: bool) -> None:
        """See Cpu."""
        self._active.set_a20(enabled)

    def memory_changed(self, physical: int, length: int) -> None:
        """See Cpu."""
        self.emulator.memory_changed(physical, length)
        self.vcpu.memory_changed(physical, length)

    def remap(self, regions: Sequence[MemoryRegion]) -> None:
        """See Cpu."""
        self._regions = regions
        self.emulator.remap(regions)
        self.vcpu.remap(regions)

    def display_changed(self) -> None:
        """See Executor."""
        self.emulator.display_changed()

    def packing(self) -> Packing | None:
        """See Executor. It has two CPUs already."""
        return None

    def quiet_steps(self) -> QuietSteps | None:
        """See Executor. Each of its steps may be the other CPU's."""
        return None

    def call_notes(self) -> CallNotes | None:
        """See Executor. The CPU that is not emulated tells of each."""
        return None

    def mark_writes(self, host_address: int, pages: int, marks: int) -> Callable[[], None] | None:
        """See Cpu."""
        rearms = [cpu.mark_writes(host_address, pages, marks) for cpu in (self.emulator, self.vcpu)]
        self._start = host_address
        self._traces = mmap.mmap(-1, pages)
        self._traced = self.emulator.trace_writes(addressof(c_uint8.from_buffer(self._traces))) is not None
        self.vcpu.trace_pages(host_address, pages)
        known = [rearm for rearm in rearms if rearm is not None]
        if len(known) < len(rearms):
            return None

        def rearm() -> None:
            for each in known:
                each()

        return rearm

    def trace_writes(self, marks: int) -> Callable[[], None] | None:
        """See Executor. There is one to be told, and that is this class."""
        return None

    # -- ports answered ahead: not by a vCPU whose exits end its runs

    def hold_input(
        self, port: int, value: int, until: int | None, *, answered: bool = True, kept: bool = False
    ) -> None:
        """See Executor."""
        if (cpu := self._answering) is not None:
            cpu.hold_input(port, value, until, answered=answered, kept=kept)
        elif kept and self._resident is not None:  # the access is no exit
            self._resident.hold_input(port, value, until, answered=answered, kept=kept)

    def tell_instructions(self, classes: int, told: Callable[[bytes], None]) -> None:
        """See Executor."""
        self.emulator.tell_instructions(classes, told)

    def note_answers(self) -> None:
        """See Executor."""
        self.emulator.note_answers()

    def take_answered(self) -> tuple[int, int]:
        """See Executor."""
        return self.emulator.take_answered()

    def take_kept(self) -> int:
        """See Executor. Each CPU's are told to the ledger."""
        return 0

    def serve_ports(self, address: int | None) -> None:
        """See Executor."""
        self._shared_ports = address
        self.emulator.serve_ports(address)
        if self._resident is not None and self._remains:
            self._resident.remain(True, address)

    def stream_input(self, port: int, data: bytes, taken: Callable[[int], None], sizes: int = 1) -> None:
        """See Executor."""
        if (cpu := self._answering) is not None:
            cpu.stream_input(port, data, taken, sizes)

    def stream_output(self, port: int, room: int, written: Callable[[bytes], None], sizes: int = 1) -> None:
        """See Executor."""
        if (cpu := self._answering) is not None:
            cpu.stream_output(port, room, written, sizes)

    # -- debugging

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        """See Cpu."""
        points = tuple(linear)
        self._points = frozenset(points)
        self.emulator.set_breakpoints(points)
        self.vcpu.set_breakpoints(points)

    def set_event_stops(self, classes: int, physical: Iterable[int], changes: Change) -> None:
        """See Cpu."""
        places = tuple(physical)
        self.emulator.set_event_stops(classes, places, changes)
        self.vcpu.set_event_stops(classes, places, changes)

    def set_watchpoints(self, watches: Iterable[Watch]) -> None:
        """See Cpu."""
        wanted = tuple(watches)
        self.emulator.set_watchpoints(wanted)
        self.vcpu.set_watchpoints(wanted)

    # -- system registers

    def time_stamp(self) -> int:
        """See Cpu."""
        return self._active.time_stamp()

    def on_time_stamp(self, callback: Callable[[], None] | None) -> None:
        """See Cpu."""

        def told() -> None:
            if callback is not None and not self._moving:
                callback()

        for cpu in (self.emulator, self.vcpu):
            cpu.on_time_stamp(told)

    def claim_msr(self, number: int, device: MsrDevice) -> None:
        """See Cpu."""
        self.emulator.claim_msr(number, device)
        self.vcpu.claim_msr(number, device)

    def msr_names(self) -> Mapping[str, int]:
        """See Executor."""
        return self.emulator.msr_names()

    def read_msr(self, number: int) -> int | None:
        """See Cpu."""
        return self._active.read_msr(number)

    def write_msr(self, number: int, value: int) -> bool:
        """See Cpu."""
        return self._active.write_msr(number, value)

    def close(self) -> None:
        """See Cpu."""
        self.emulator.close()
        self.vcpu.close()


def _runs(pages: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(first, end) of the runs of neighbours among `pages`, which are in order."""
    first = end = -1
    for page in pages:
        if page != end:
            if first >= 0:
                yield first, end
            first = page
        end = page + 1
    if first >= 0:
        yield first, end
