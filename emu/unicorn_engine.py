"""UnicornEngine: the Executor that runs any x86 state in this process.

How it stays exact: Unicorn's own stop and count can end a run in the middle of an instruction. Here one of two run
loops does the counting, stopping, breakpoints and interrupts, and Unicorn is only ever told to stop where nothing of
an instruction has happened. The fast one is a C helper that does so at the beginning of each translated block
(`emu.unicorn_fast`); the other is a few lines of machine code before every instruction (`emu.unicorn_gate`). Both
count and stop alike. The environment variable V2E_ENGINE=gate asks for the second.

What it is put together from is in `emu.unicorn_parts`, its runs are in `emu.unicorn_running`; here is what the
debugger and the devices ask of it between and during them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from emu.engine import CallNotes, Change, EngineError, Exit, Fault, MemoryRegion, MsrDevice, QuietSteps, Watch, WatchHit
from emu.typed import TYPE_CHECKING, Final, cast
from emu.unicorn_callbacks import MASK32
from emu.unicorn_control import EMPTY
from emu.unicorn_fast import ALWAYS, FastLoop
from emu.unicorn_helper import HELPER, Helper
from emu.unicorn_layout import CPU_INTERRUPT_NMI, HF2_NMI, HF_CS64, HIDDEN_PAGE, NO_EXCEPTION, VERSION
from emu.unicorn_running import Running
from emu.unicorn_shared import Statistics
from emu.unicorn_state import read_state, write_state
from emu.x86.cpuid import CpuModel
from emu.x86.state import CR0_PE, CR0_PG, EFER_LMA, EFER_LME, CpuState, Segment

if TYPE_CHECKING:
    from emu.packed import Flat, Packed, Packing
    from emu.quiet import Begun, Quiet, QuietHit

__all__ = ["HELPER", "UnicornEngine"]

RDX: Final = 2
#: RSM behind any prefixes but LOCK, with which it is undefined (SDM vol. 2B, RSM).
RSM: Final = b"\x0f\xaa"
PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF2, 0xF3))
REX: Final = range(0x40, 0x50)
LONGEST: Final = 15  #: bytes of an instruction


class UnicornEngine(Running):
    """An Executor. `regions` must not overlap, be whole pages, and stay mapped until `close`. `mmio` None: holes read
    all ones. `timestamp` is what RDTSC returns before the guest writes it; it grows by `tick` with each instruction of
    a run (0: however it likes). `model` is the CPU's. `checks`: see `emu.unicorn_checks`. `translations` is how many
    translated blocks the fast loop keeps. `display` is served without a call of Python where that can be. `portable`
    has the loop that needs no helper. Raises EngineError when this Unicorn is not the one known here."""

    name = "unicorn"
    answers_ahead = True
    passes_edges = False
    _telling = 0  # classes of instructions

    def _begin(self, model: CpuModel) -> None:
        self._prove()
        reset = CpuState()
        reset.regs[RDX] = model.signature
        self.load(reset)

    def _prove(self) -> None:
        """Execute a few instructions in the hidden page and see that they are counted and stopped where they should."""
        program, at = b"\xff\xc0\xff\xc0\xff\xc0\xf4", 0x800  # inc eax, three times; hlt
        self._page[at : at + len(program)] = program
        state = CpuState(rip=HIDDEN_PAGE + at, cr0=0x60000010 | CR0_PE, efer=EFER_LME | EFER_LMA)
        state.cs = Segment(8, 0, MASK32, 0xA09B)
        self.load(state)
        story = [(exit := self.run(n)).reason.value + f" {exit.executed} {self._env.regs[0]}" for n in (2, 1, 9)]
        self._page[at : at + len(program)] = bytes(len(program))
        self._loop.flush()
        self.set_retired(0)
        expected = ["budget 2 2", "budget 1 3", "halt 1 3"]
        if story != expected:
            raise EngineError(
                f"unicorn {VERSION} does not count and stop as it should here ({story}, expected {expected}); "
                f"reinstall it with pip install --force-reinstall unicorn=={VERSION}"
            )

    @property
    def run_loop(self) -> str:
        """`fast` or `gate`."""
        return self._loop.name

    @property
    def statistics(self) -> Statistics | None:
        """What the fast loop did."""
        return self._loop.statistics() if isinstance(self._loop, FastLoop) else None

    # -- state

    def state(self) -> CpuState:
        """See Executor."""
        state = read_state(self._ov, halted=self._halted, seldom=self._seldom)
        state.smm, state.smm_nmi, state.smbase = self._smm, self._smm_nmi, self._smbase
        self._system.fill(state)
        return state

    def live(self) -> CpuState:
        """See Executor."""
        return cast(CpuState, self._live_state)

    def load(self, state: CpuState) -> None:
        """See Executor."""
        write_state(self._ov, state, self._seldom)
        self._system.loaded(state)
        self._nmi = state.nmi_pending
        wakes = state.nmi_pending and not state.nmi_blocked
        self._halted, self._shutdown = state.halted and not wakes, False
        self._smm, self._smm_nmi, self._smbase = state.smm, state.smm_nmi, state.smbase
        self._system.hidden.smm = state.smm
        self._begin_anew()

    def adopt(self, source: UnicornEngine, unmarked: Sequence[tuple[int, int]] | None = None) -> bool:
        """As `load(source.state())`, in a fraction of the time, where the state goes on and nothing has happened to the
        guest: nobody is told of MSRs or a task priority. With it go how many instructions have retired, `behind` and
        `resuming`, and INTR is low in both. `source` has the same CPU model. With `unmarked`, which is as of
        `Copier.memory`, what was made of memory that `source` has written is forgotten too; False: that is still to be
        told."""
        # This and `emu.unicorn_pack` are for two CPUs over one guest, and 1 ms of the start of one.
        from emu.unicorn_copy import BREAKPOINTS, NMI, SKIP, Copier, copy_state

        loop, other, told = self._loop, source._loop, False
        if isinstance(loop, FastLoop) and isinstance(other, FastLoop):
            handle = other.engine.value
            if (copier := self._copiers.get(handle)) is None:
                copier = self._copiers[handle] = Copier(loop, other)
            traces = source._memory.traces if unmarked is not None else 0
            told = traces != 0
            copier.memory(traces, unmarked if told and unmarked is not None else ())
            more = copier.copy()
            self._interrupted = self._returning = False
            self._faults.forget()
            if more & BREAKPOINTS or self._watch.placed or self._control.ports:
                self._watch.translate()
            self._nmi = more & NMI != 0
        else:
            copy_state(self._ov, source._ov)
            source.set_interrupt(None)
            self.set_retired(source.retired)
            self._begin_anew()
            self._control.last, more = source._control.last, SKIP
            self._nmi = bool(self._ov.request.value & CPU_INTERRUPT_NMI)
        self._system.adopt(source._system)
        wakes = self._nmi and not self._env.hflags2 & HF2_NMI
        self._halted, self._shutdown = source._halted and not wakes, False
        self._smm, self._smm_nmi, self._smbase = source._smm, source._smm_nmi, source._smbase
        self._system.hidden.smm = self._smm
        self._pack_halted()
        self.odd = self._nmi or self._halted or self._watch.stale  # else the next run begins like any other
        if more & SKIP and (resuming := source.resuming) is not None:
            self.resume(resuming)
        return told

    def _begin_anew(self) -> None:
        """The CPU's state is another."""
        control = self._control
        control.last = control.skip = EMPTY
        control.trap = 0
        self._interrupted, self._returning, self.odd = False, False, True
        self._faults.forget()
        self._loop.forget()
        self._watch.translate()

    # -- state, packed

    def packing(self) -> Packing | None:
        """See Executor. The portable loop has no helper that would do it."""
        if self._packer is None:
            if not isinstance(self._loop, FastLoop):
                return None
            from emu.unicorn_pack import Packer

            self._packer = Packer(self._loop, self._system.hidden)
            self.packed: Packed = self._packer.packed
            self.packer: tuple[int, int] = self._packer.function
            self._live_state.quick = self._packer.brief
        return self

    def quiet_steps(self) -> QuietSteps | None:
        """See Executor."""
        if self._quiet is None:
            if self.packing() is None or self._fast is None:
                return None
            from emu.unicorn_quiet import QuietEngine

            self._quiet = QuietEngine(self._fast, self._system.hidden)
        return self

    def call_notes(self) -> CallNotes | None:
        """See Executor."""
        return self._calls

    def begin_quiet(self, steps: int, run: int, regions: Sequence[MemoryRegion]) -> Quiet:
        """See emu.quiet."""
        assert self._quiet is not None, "who steps quietly has asked for QuietSteps"
        if steps and self.odd:  # as in `_run_oddly`
            self.odd = self._special()
        if self.odd or self._nmi:
            steps = 0
        self._live = int(steps > 0)
        return self._quiet.begin(steps, run, regions, self._halted)

    def end_quiet(self) -> None:
        """See emu.quiet."""
        self._live = 0
        if self._fast is not None and self._fast.unsettled:
            self._fast.settle()

    def finish_quiet(self, begun: Begun) -> Exit:
        """See emu.quiet."""
        assert self._fast is not None
        return self._helper_ended(self._fast, begun.ended, begun.budget, True)

    def hit_of(self, hit: QuietHit) -> WatchHit:
        """See emu.quiet."""
        return self._watch.hit_of(hit.number, hit.linear, hit.size, hit.value, bool(hit.is_write))

    def packable(self) -> bool:
        """See emu.packed.Packing."""
        if self._nmi or self._smm or self._returning or self._interrupted or self._shutdown:
            return False
        self._pack_halted()
        return True

    def pack(self) -> bool:
        """Pack by `packer`, if that can be; for who has no C of its own to call it from."""
        return self._packer is not None and self.packable() and self._packer.pack() != 0

    def look(self) -> Flat:
        """See emu.packed.Packing."""
        packer = self._packer
        assert packer is not None, "who looks has asked for a Packing"
        self._packs_halted = self._system.hidden.halted = self._halted
        packer.look()
        packer.flat.apic_base = self._system.apic_base()
        return packer.flat

    def unpack(self, parts: int) -> None:
        """See emu.packed.Packing."""
        packer = self._packer
        assert packer is not None, "what is unpacked has been packed"
        packer.unpack(parts)
        self._halted = bool(self.packed.halted)
        self._nmi = self._shutdown = self._interrupted = self._returning = False
        if parts & packer.tsc:
            self._system.take_tsc_adjust(self.packed.tsc_adjust)
        self._faults.forget()
        if parts & packer.debug or self._watch.placed:
            self._watch.translate()
        # The other CPU may have executed HLT: a plain run would begin behind it without having been woken.
        self.odd = self.odd or self._halted

    def host_changed(self, pieces: int, count: int) -> None:
        """See emu.packed.Packing."""
        assert self._packer is not None, "somebody else has run from what was packed"
        self._packer.host_changed(pieces, count)

    # -- interrupts

    def set_interrupt(self, vector: int | None, *, last: bool = False) -> None:
        """See Executor. TPR does not block it: an 8259 reaches the CPU past the local APIC (SDM vol. 3A, 11.8.3)."""
        control = self._control
        control.masked = 0
        if vector is None:
            control.interrupt = 0
        else:
            control.vector, control.last_for_now = vector, last
            control.interrupt = 1

    def take_interrupt(self) -> int | None:
        """See Executor."""
        if not self._control.taken:
            return None
        self._control.taken = 0
        # With the gate no instruction has begun since.
        self.interrupt_taken_at = self._control.taken_at if self._fast is not None else self.retired + self._live
        return self._control.taken_vector

    def on_task_priority(self, callback: Callable[[int], None] | None) -> None:
        """See Executor."""
        self._system.tell_task_priority = callback

    def set_task_priority(self, value: int) -> None:
        """See Executor."""
        self._env.v_tpr = value & 0xF

    def raise_nmi(self) -> None:
        """See Executor."""
        self._ov.request.value |= CPU_INTERRUPT_NMI
        self._nmi = self.odd = True
        if not self._env.hflags2 & HF2_NMI:
            self._halted = False
        self._control.stop = 1

    def on_rsm(self, callback: Callable[[], None] | None) -> None:
        """See Executor."""
        self._tell_rsm = callback

    def _resume(self) -> bool:
        """An instruction is undefined: is it RSM, in system management mode?"""
        if not self._smm:
            return False
        env = self._env
        code = self._read_linear(self.linear_pc, LONGEST)
        at = 0
        while at < len(code) and (code[at] in PREFIXES or (env.hflags & HF_CS64 and code[at] in REX)):
            at += 1
        if code[at : at + 2] != RSM:
            return False
        env.old_exception, env.error_code = NO_EXCEPTION, 0
        self._control.stop = 1
        if self._tell_rsm is not None:
            self._tell_rsm()
        return True

    # -- memory

    def set_a20(self, enabled: bool) -> None:
        """See Executor."""
        mask = -1 if enabled else ~(1 << 20)
        if self._env.a20_mask == mask:
            return
        self._env.a20_mask = mask
        self._call.tlb_flush(self._ov.cpu)
        if self._live:
            self._control.leave = 1
        if self._watch.active:
            self._watch.outdated()
            self.odd = True
            self._control.halt_run = 1

    def memory_changed(self, physical: int, length: int) -> None:
        """See Executor. Of an engine that was closed nothing is left to be changed."""
        if not self._end.alive:
            return
        if not (isinstance(self._loop, FastLoop) and self._loop.physical_changed(physical, length)):
            self._loop.memory_changed(self._memory.ranges(physical, length), running=bool(self._live))
        if self._live:
            self._control.leave = 1

    def remap(self, regions: Sequence[MemoryRegion]) -> None:
        """See Executor."""
        if self._live:
            raise EngineError("remap() was called inside a callback of a run")
        # For each page that it takes out or puts in Unicorn translates the same linear address, as the CPU would: with
        # paging that sets accessed bits, or faults, which counts as a fault of the guest that is being delivered.
        env, cr0 = self._env, self._env.cr[0]
        env.cr[0] = cr0 & ~CR0_PG
        try:
            enough = self._memory.remap(regions, self._drop)
        finally:
            env.cr[0] = cr0
        if self._marking is not None:
            self._loop.mark_writes(*self._marking, self._memory.places())
        if self._display is not None and isinstance(self._loop, FastLoop):
            self._loop.serve_display(self._memory, self._display)
        self._call.tlb_flush(self._ov.cpu)
        self._events.remapped()
        if not enough or not isinstance(self._loop, FastLoop):
            self._loop.flush()  # blocks of the gate may cross into what was taken out
        if self._watch.active:
            self._watch.outdated()
            self.odd = True

    def _drop(self, ranges: list[tuple[int, int]]) -> None:
        self._loop.memory_changed(ranges, running=False)

    def display_changed(self) -> None:
        """See Executor."""
        self._call.tlb_flush(self._ov.cpu)

    def mark_writes(self, host_address: int, pages: int, marks: int) -> Callable[[], None] | None:
        """See Executor."""
        self._marking = host_address, pages, marks
        self._memory.mark_writes(host_address, pages, marks)
        return self._loop.mark_writes(host_address, pages, marks, self._memory.places())

    def trace_writes(self, marks: int) -> Callable[[], None] | None:
        """See Executor."""
        self._memory.trace_writes(marks)
        return self._loop.trace_writes(marks)

    # -- ports

    def hold_input(
        self, port: int, value: int, until: int | None, *, answered: bool = True, kept: bool = False
    ) -> None:
        """See Executor."""
        self._loop.hold(port, value, ALWAYS if until is None else self._run_end[0] - 1 - until, answered, kept)

    def tell_instructions(self, classes: int, told: Callable[[bytes], None]) -> None:
        """See Executor."""
        self._callbacks.told_instruction = told
        if classes != self._telling:
            self._telling = classes
            self._loop.tell(classes)

    def note_answers(self) -> None:
        """See Executor."""
        self._loop.note_answers()

    def take_answered(self) -> tuple[int, int]:
        """See Executor."""
        return self._loop.take_answered()

    def take_kept(self) -> int:
        """See Executor."""
        return self._loop.take_kept()

    def serve_ports(self, address: int | None) -> None:
        """See Executor."""
        passes, self.passes_edges = self.passes_edges, self._loop.serve_ports(address)
        if self._live and passes and not self.passes_edges:
            self._control.stop = 1  # the run was not planned to end at the next edge

    def stream_input(self, port: int, data: bytes, taken: Callable[[int], None], sizes: int = 1) -> None:
        """See Executor."""
        self._loop.stream(port, data, taken, sizes)

    def stream_output(self, port: int, room: int, written: Callable[[bytes], None], sizes: int = 1) -> None:
        """See Executor."""
        self._loop.collect(port, room, written, sizes)

    # -- debugging

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        """See Executor."""
        if self._table.replace(linear):
            self._loop.breakpoints_changed()
        self._interrupted = self._returning = False

    def set_event_stops(self, classes: int, physical: Iterable[int], changes: Change) -> None:
        """See Executor."""
        if self._events.replace(classes, physical, changes):
            self._loop.flush()
        self._interrupted = self._returning = False

    def set_watchpoints(self, watches: Iterable[Watch]) -> None:
        """See Executor."""
        self._watch.replace(tuple(watches))
        self.odd = True

    def time_stamp(self) -> int:
        """See Executor."""
        return self._system.tsc()

    def on_time_stamp(self, callback: Callable[[], None] | None) -> None:
        """See Executor."""
        self._system.tell_time_stamp = callback

    def claim_msr(self, number: int, device: MsrDevice) -> None:
        """See Executor."""
        self._system.claim(number, device)

    def msr_names(self) -> Mapping[str, int]:
        """See Executor."""
        return self._system.msr_names()

    def read_msr(self, number: int) -> int | None:
        """See Executor."""
        return self._system.read_msr(number)

    def write_msr(self, number: int, value: int) -> bool:
        """See Executor."""
        self._loop.forget()
        return self._system.write_msr(number, value)

    def on_fault(self, callback: Callable[[Fault], None] | None) -> None:
        """See Executor."""
        self._faults.tell = callback

    def close(self) -> None:
        """See Executor. Once; behind it a run is refused. Raises EngineError while one is made, as another thread's: it
        would go on in memory that was freed."""
        if self._closed:
            return
        if self._live:
            raise EngineError("close() was called while the CPU runs: stop it first, and wait for its run's end")
        self._closed = self.odd = True
        if isinstance(HELPER, Helper):
            self._forget_transfers()
        self._loop.close()
        self._end()
