"""The PC: builds memory, buses, devices and an engine, runs them together, saves and restores the whole."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial

from emu import layout
from emu.answers import CpuPorts
from emu.board import Board
from emu.bus import Mmio, Ports, Range, Told
from emu.clock import NS_PER_INSTRUCTION, Clock, ClockState
from emu.configuration import MACHINES, MachineConfig, MachineError, cpu_model, memory_parts
from emu.devices.ticks import Ticks
from emu.devices.vga_memory import DisplayMemory
from emu.engine import Call, EngineError, Executor, Exit, ExitReason, Fault, MmioBus, PortIo, SharedDisplay, WatchHit
from emu.inputs import InputRecord, Inputs
from emu.irq import InterruptController, IntrPin
from emu.journal import Journal
from emu.machine_exits import EXIT_STOPS, LIMIT, MachineExit, MachineStop
from emu.machine_state import MachineState, digest, media_of
from emu.memory import PhysicalMemory
from emu.outputs import Outputs
from emu.physical import Physical
from emu.screen import screen_view
from emu.standstill import Standstill
from emu.subject import MemoryUnavailable
from emu.typed import TYPE_CHECKING, Any, cast
from emu.views import DeviceView, FingerprintView, PictureView, RegionView, ScreenView
from emu.x86.cpuid import MODELS
from emu.x86.msrs import TSC_ADJUST
from emu.x86.state import CR0_CACHE, CpuState

if TYPE_CHECKING:
    from emu.firmware.payload import Payload
    from emu.quiet import Begun, Quiet, QuietHit
    from emu.transitions import Transitions
    from emu.vcpu import ExitCause

#: Devices may tick for ever and never interrupt in ways that are not foreseen; only the alarm clock is slower.
IDLE_LIMIT_NS = 3600 * 1_000_000_000
RDX = 2  #: in CpuState.regs
_BUDGET, _WATCHPOINT = ExitReason.BUDGET, ExitReason.WATCHPOINT
MOST_UNTOLD = 1 << 30  #: events of a run that the journal may be told of later
MOST_QUIET = 1 << 30  #: steps that `begin_quiet` allows at most


class Machine:
    """Memory, a board of devices and an engine. Everything but `request_stop` belongs to one thread.

    Implements `emu.subject.Subject`."""

    read_only = False

    def __init__(self, config: MachineConfig, make_executor: Callable[[Machine], Executor]) -> None:
        self.config = config
        self.memory = PhysicalMemory(memory_parts(config))
        self.ports = Ports()
        self.mmio = Mmio()
        self.journal = Journal()
        self.pin = IntrPin()
        self.outputs = Outputs()
        self.cpu_ports = CpuPorts(self.ports, self.outputs)
        #: asked to let the host's time pass while the CPU is idle: (ns of virtual time, None: until something happens)
        #: -> True when it passed. Without it idle time is skipped.
        self.idle: Callable[[int | None], bool] | None = None
        self._hops = False  #: a run is made in which its CPU may be native
        self._stop = False
        self._ended: MachineExit | None = None
        self._reset: str | None = None
        self._last: MachineState | None = None  # saved last or restored from
        self._awake_at = 0  # virtual ns at which the CPU last executed
        self.standstill = Standstill()
        self.display = DisplayMemory(self.memory.live("vga"))
        self._physical = Physical(self.memory, self.display)
        #: who has the interrupt controllers and timers
        self.keeper = config.keeper()
        try:
            self.executor = make_executor(self)
        except BaseException:
            self.keeper.close()
            raise
        self.display.remapped = self.executor.display_changed
        self.clock = Clock(lambda: self.executor.retired)
        self.clock.on_replan = self.executor.request_stop
        self.memory.on_write.append(self.executor.memory_changed)
        self.memory.add_writer(self.executor.mark_writes)
        self.board = Board(
            config, self.clock, self.ports, self.mmio, self.memory, self.executor, self.pin, self.display,
            self.outputs, self, self._note, self.keeper,
        )  # fmt: skip
        self.inputs = Inputs(self.board, self.clock)
        self.cpu_ports.attach(self.board, self.clock, self.executor)
        #: what drives INTR
        self.controller: InterruptController = self.board.controller
        self.pin.connect(self.controller, self.executor)
        #: told of each fault and software interrupt before its delivery
        self.caught_fault: Callable[[Fault], None] | None = None
        self._caught_interrupt: Callable[[int], None] | None = None
        self.pin.on_delivery = self._on_interrupt
        self.pin.may_go_on = self._may_go_on
        self.executor.on_fault(self._on_fault)
        self._ticks = self._make_ticks()
        self._calls, self._notes_calls = self.executor.call_notes(), False
        #: who executes, where that is a question
        self.transitions: Transitions | None = None
        self.native_ns = 0  #: spent by a vCPU that does not count its instructions
        self.native_limit: int | None = None  #: of `native_ns`, at which `run` ends with LIMIT
        if config.native is not None:
            self._attach(cast("Transitions", self.executor))
        if self.board.chipset is not None:
            self.board.chipset.smm.told = lambda text: self.journal.add(self.executor.retired, "smm", text)
        self.keeper.failed = self._keeper_failed
        self.keeper.attach(self.executor)
        if config.payload is not None:
            self.executor.load(self._place(config.payload))

    # -- building

    def _place(self, payload: Payload) -> CpuState:
        if self.board.chipset is not None:
            self.board.chipset.set_up()
        for address, data in payload.pieces:
            self.memory.write(address, data)
        return payload.state.copy()

    def _make_ticks(self) -> Ticks | None:
        """Edges of IRQ 0 within runs: where the 8259 alone drives INTR, and nobody but the emulator executes."""
        board = self.board
        if self.config.native is not None or self.keeper.hypervisor or board.chipset is not None:
            return None
        stop = self.executor.request_stop
        ticks = Ticks(self.clock, board.pit, board.pic, board.shared_ports, self._ticked_within, stop)
        self.pin.before_settle = ticks.catch_up
        return ticks

    def _attach(self, transitions: Transitions) -> None:
        self.transitions = transitions
        transitions.told = lambda retired, text: self.journal.add_lazy(retired, "transition", text)
        transitions.deadline = lambda: self.clock.horizon
        transitions.spent = self._spent
        transitions.watched = self._watched
        transitions.due = lambda: self.keeper.due
        self.keeper.keep_time = transitions.keep_time

    def _spent(self, ns: int) -> None:
        """A vCPU that does not count its instructions has run for so long, or the emulator for so much longer."""
        clock = self.clock
        clock.skip_to(clock.now + ns)
        self.native_ns += ns
        if clock.horizon is not None and clock.now >= clock.horizon:
            self.executor.request_stop()  # a timer is due before the budget is used up

    def _watched(self) -> str:
        """What is to be told of that only a CPU that is exact tells."""
        if self.caught_fault is not None:
            return "exceptions are caught, which only the emulator tells of"
        return "" if self._caught_interrupt is None else "interrupts are caught, which only the emulator tells of"

    @property
    def native_over(self) -> bool:
        """The bound of native execution has been reached."""
        return self.native_limit is not None and self.native_ns >= self.native_limit

    # -- what the CPU reaches

    def timestamp(self) -> int:
        """The TSC: one count a virtual nanosecond."""
        return self.clock.now

    def _note(self, kind: str, text: Callable[[], str]) -> None:
        self.pin.settle()  # an interrupt that was taken before comes first
        self.journal.add_lazy(self.executor.retired, kind, text)

    def _on_fault(self, fault: Fault) -> None:
        kind = "int" if fault.software else "exception"
        code = "" if fault.code is None else f" error {fault.code:#x}"
        cr2 = f" cr2 {fault.cr2:#x}" if fault.vector == 14 and not fault.software else ""
        if fault.interrupt is None:
            self.pin.settle()  # an interrupt that was taken before comes first
        elif self._ticks is not None:
            self._ticks.catch_up()  # and so do those before the one that is being delivered
        during = "" if fault.interrupt is None else f" in delivering interrupt {fault.interrupt:#04x}"
        where = f"{fault.cs:04x}:{fault.rip:x}" + (f" ({fault.hint})" if fault.hint else "")
        self.journal.add(fault.retired, kind, f"{fault.vector:#04x}{code}{cr2}{during} at {where}")
        if self.caught_fault is not None:
            self.caught_fault(fault)
        if self._notes_calls and self._calls is not None:
            self._calls.room = self._room  # used up, or less now

    @property
    def _room(self) -> int:
        """Events that may be told of later, of each of the two kinds that are, before the journal is looked at."""
        return min((self.journal.due - self.journal.added - 1) // 2, MOST_UNTOLD)

    def _tell_calls(self) -> None:
        """Have the journal know of each INT n up to now."""
        if self._ticks is not None:
            self._ticks.catch_up()
        self._take_calls(None)

    def _take_calls(self, before: int | None) -> None:
        if self._calls is None:
            return
        lost, calls = self._calls.take(before)
        if calls:
            self.journal.add_lost(lost)
            for call in calls:
                self.journal.add_untold(call.retired, "int", partial(_call_text, call))

    def _ticked_within(self, retired: int, vector: int) -> None:
        """As `_ticked`, of what came in a run when so many instructions had retired."""
        self._take_calls(retired)
        self.journal.add_untold(retired, "interrupt", f"vector {vector:#04x}")
        self.standstill.delivered(retired)

    def _ticked(self, retired: int, vector: int) -> None:
        self.journal.add(retired, "interrupt", f"vector {vector:#04x}")
        self.standstill.delivered(retired)

    def _on_interrupt(self, vector: int) -> None:
        self._ticked(self.executor.interrupt_taken_at, vector)
        if self._caught_interrupt is not None:
            self._caught_interrupt(vector)

    @property
    def caught_interrupt(self) -> Callable[[int], None] | None:
        """Told of each hardware interrupt, where it has been delivered."""
        return self._caught_interrupt

    @caught_interrupt.setter
    def caught_interrupt(self, told: Callable[[int], None] | None) -> None:
        self._caught_interrupt = told
        if self._ticks is not None:
            self._ticks.withdraw()
        self.pin.settle()
        self.pin.update()

    def _may_go_on(self) -> bool:
        return self._caught_interrupt is None and self.controller.last_for_now()

    def kept(self, cause: ExitCause, address: int) -> bool:
        """An access to this port, or by MMIO to this physical address, is for a device of the hypervisor's."""
        from emu.vcpu import ExitCause  # 2 ms, and of machines with a hypervisor alone

        return self.ports.kept(address) if cause is ExitCause.PIO else self.mmio.kept(address)

    # -- what devices ask of the machine

    def request_reset(self, kind: str) -> None:
        """`cpu` (INIT-like) or `system`, after the running instruction."""
        self._reset = "system" if "system" in (kind, self._reset) else "cpu"
        self.executor.request_stop()

    def exit(self, code: int) -> None:
        self._ended = MachineExit(MachineStop.EXIT, code=code)
        self.executor.request_stop()

    def _keeper_failed(self, sentence: str) -> None:
        self._ended = MachineExit(MachineStop.FAILURE, detail=sentence)
        self.executor.request_stop()

    def power_off(self) -> None:
        self._ended = MachineExit(MachineStop.POWEROFF)
        self.executor.request_stop()

    # -- running

    def seal(self, touched: Callable[[], None] | None) -> None:
        """From now on no access reaches a device: `touched` is called instead. None: the devices are there again."""
        self.ports.sealed = self.mmio.sealed = touched
        self.keeper.ahead(touched is not None)
        if self.transitions is not None:
            self.transitions.quiet(touched is not None)

    def look(self, ports: Told | None, memory: Told | None) -> None:
        """From now on accesses to devices do nothing: reads give what a look without side effects gives, and `ports`
        or `memory` is told (place, size, value, is_write) of each. None: the devices are there again."""
        self.ports.looked_at, self.mmio.looked_at = ports, memory
        self.keeper.ahead(ports is not None)
        if self.transitions is not None:
            self.transitions.quiet(ports is not None)

    def request_stop(self) -> None:
        """From any thread or signal handler: `run` returns REQUEST before the next instruction."""
        self._stop = True
        self.executor.request_stop()

    def service(self) -> None:
        """Bring the devices to this instant: interrupts taken are acknowledged, due timers fire, resets happen."""
        self.pin.settle()
        if self.keeper.due:
            self.keeper.service()
        self.clock.run_due()
        if self._reset is not None:
            kind, self._reset = self._reset, None
            self._do_reset(kind)
        if (chipset := self.board.chipset) is not None:
            if sentence := chipset.smm.service():
                self._ended = MachineExit(MachineStop.SHUTDOWN, detail=sentence)
            chipset.apply()

    @property
    def interrupt_due(self) -> bool:
        """True when an interrupt will be delivered before the next instruction. Call `service` first."""
        return self.controller.pending_vector() is not None and self.executor.interruptible()

    def run(
        self, until: int, *, skip_breakpoint: bool = False, passed: Callable[[], bool] | None = None
    ) -> MachineExit:
        """Run until `until` instructions have retired in all, or something stops it. With `skip_breakpoint` a
        breakpoint on the first instruction executed is passed over; any other one is where `passed` says True."""
        if (transitions := self.transitions) is None:
            return self._run(until, skip_breakpoint, passed)
        transitions.keeps_pace(True)
        self._hops = True
        try:
            return self._run(until, skip_breakpoint, passed)
        finally:
            self._hops = False
            transitions.keeps_pace(False)

    def _run(self, until: int, skip_breakpoint: bool, passed: Callable[[], bool] | None) -> MachineExit:
        executor, clock, standstill, calls = self.executor, self.clock, self.standstill, self._calls
        cap = self.config.slice or (1 << 62)
        hit = False
        while True:
            self.service()
            if self._ended is not None:
                ended, self._ended = self._ended, None
                return ended
            if self._stop:
                self._stop = False
                return MachineExit(MachineStop.REQUEST)
            if standstill.reached:
                return standstill.interrupts()
            before = executor.retired
            budget = min(until - before, cap)
            if budget <= 0 or self.native_over:
                return LIMIT
            deadline = clock.next_deadline()
            if executor.halted and not self.interrupt_due:
                if (blocked := self._idle(deadline)) is not None:
                    return blocked
                continue
            now = self._awake_at = before * NS_PER_INSTRUCTION + clock.skipped
            ticks = None
            if hit:  # behind a breakpoint that was passed the next one may be near, and a run is to begin at once
                hit = False
            elif executor.passes_edges and self._ticks is not None and self._goes_on(self._ticks):
                ticks = self._ticks
                deadline = ticks.deadline
            if deadline is not None:
                budget = min(budget, -((now - deadline) // NS_PER_INSTRUCTION))
            clock.horizon = deadline
            if calls is not None and self.caught_fault is None:
                self._notes_calls, calls.room, self.journal.first = True, self._room, self._tell_calls
            try:
                exit = executor.run(budget, skip_breakpoint=skip_breakpoint)
            finally:
                if ticks is not None:
                    ticks.end()
                if self._notes_calls:
                    self._take_calls(None)
                    self._end_notes()
            if skip_breakpoint and executor.retired != before:
                skip_breakpoint = False
            idle = not exit.executed and not exit.detail and exit.reason is not _WATCHPOINT
            if idle and (stands := standstill.nothing(now, exit)) is not None:
                return stands
            if exit.reason is not _BUDGET and exit.reason in EXIT_STOPS:
                self.pin.settle()
                if passed is not None and exit.reason is ExitReason.BREAKPOINT and passed():
                    skip_breakpoint = hit = True
                    continue
                return MachineExit(EXIT_STOPS[exit.reason], exit, detail=exit.detail)

    def _end_notes(self) -> None:
        self._notes_calls, self.journal.first = False, None
        if self._calls is not None:
            self._calls.room = 0

    def _goes_on(self, ticks: Ticks) -> bool:
        """The run that begins may go on behind ticks: nobody is told of each, nor woken by so many."""
        return self._caught_interrupt is None and ticks.begin(self._room)

    def step(self) -> MachineExit | None:
        """One instruction, whatever breakpoint is on it, where nothing comes before it: as `run` would with
        `skip_breakpoint`, in a fraction of the time. None: something does, nothing was done, and it is for `run`."""
        if not self._undisturbed():
            return None
        start, deadline = self.executor.retired, self.clock.next_deadline()
        now = start * NS_PER_INSTRUCTION + self.clock.skipped
        if deadline is not None and deadline <= now:
            return None
        self.clock.horizon, self._awake_at = deadline, now
        return self._stepped(self.executor.run(1, skip_breakpoint=True), start)

    def _undisturbed(self) -> bool:
        """Nothing comes before the next instruction, but timers that are due. The chipset's registers say so too, what
        they say of the map is done."""
        if self._stop or self._ended is not None or self._reset is not None or not self.executor.undisturbed():
            return False
        if (chipset := self.board.chipset) is not None:
            if chipset.smm.due:
                return False
            chipset.apply()
        return True

    def _stepped(self, exit: Exit, start: int) -> MachineExit:
        """What a step's `exit` of the engine means, before which `start` instructions had retired."""
        executor, deadline, now = self.executor, self.clock.horizon, self._awake_at
        if exit.reason is _BUDGET:
            # Whatever else the instruction did to the machine would have asked for the run's end.
            if deadline is None or deadline > now + NS_PER_INSTRUCTION:
                return LIMIT
        elif exit.reason in EXIT_STOPS:
            self.pin.settle()
            return MachineExit(EXIT_STOPS[exit.reason], exit, detail=exit.detail)
        return self.run(start + 1, skip_breakpoint=executor.retired == start)

    def begin_quiet(self, steps: bool, run: int = 0) -> Quiet | None:
        """Have the engine ready for quiet steps (`emu.quiet`) and runs of at most `run` instructions until `end_quiet`;
        with `steps` False for looks alone. None: it makes none."""
        if (quiet := self.executor.quiet_steps()) is None:
            return None
        count = 0
        if steps and self._undisturbed():
            start, deadline = self.executor.retired, self.clock.next_deadline()
            now = start * NS_PER_INSTRUCTION + self.clock.skipped
            # Behind each of them the next timer is still to come.
            count = MOST_QUIET if deadline is None else min(MOST_QUIET, (deadline - now - 1) // NS_PER_INSTRUCTION)
            self.clock.horizon = deadline
        return quiet.begin_quiet(max(0, count), min(run, self.config.slice or run), self.memory.regions)

    def end_quiet(self, last: int | None) -> None:
        """Before the last step or run that was made `last` instructions had retired; None: none was. There may be one
        that is for `finish_quiet`."""
        quiet = self.executor.quiet_steps()
        assert quiet is not None, "what ends has begun"
        quiet.end_quiet()
        if last is not None:
            self._awake_at = last * NS_PER_INSTRUCTION + self.clock.skipped

    def _finished(self, begun: Begun) -> Exit:
        quiet = self.executor.quiet_steps()
        assert quiet is not None, "what is finished has begun"
        self._awake_at = begun.before * NS_PER_INSTRUCTION + self.clock.skipped
        return quiet.finish_quiet(begun)

    def finish_quiet(self, begun: Begun) -> MachineExit:
        """What `step` gives, of a quiet step."""
        return self._stepped(self._finished(begun), begun.before)

    def finish_run(self, begun: Begun, until: int, passed: Callable[[], bool] | None) -> MachineExit:
        """What `run` gives, which skips a breakpoint on the first instruction, of a quiet run that it would have
        begun."""
        exit = self._finished(begun)
        skip = self.executor.retired == begun.before
        if exit.reason in EXIT_STOPS:
            self.pin.settle()
            if passed is None or exit.reason is not ExitReason.BREAKPOINT or not passed():
                return MachineExit(EXIT_STOPS[exit.reason], exit, detail=exit.detail)
            skip = True
        return self.run(until, skip_breakpoint=skip, passed=passed)

    def hit_of(self, hit: QuietHit) -> WatchHit:
        """What has ended a quiet run; before anything else is asked."""
        quiet = self.executor.quiet_steps()
        assert quiet is not None, "what has ended has begun"
        return quiet.hit_of(hit)

    def _idle(self, deadline: int | None) -> MachineExit | None:
        """The CPU is halted. Carry it to `deadline` (ns), or say why it will sleep for ever."""
        chipset, resets = self.board.chipset, self.board.kbc.resets_ahead
        if not (resets or self.executor.interruptible() or (chipset is not None and chipset.unmaskable())):
            return MachineExit(MachineStop.DEADLOCK, detail="HLT with interrupts off")
        if self.idle is not None:
            wait = None if deadline is None else deadline - self.clock.now
            passed = self.idle(wait)
            if self.transitions is not None and (late := self.transitions.lateness()):
                self.clock.skip_to(self.clock.now + late)
            if not passed:
                self._stop = False
                return MachineExit(MachineStop.REQUEST)
        elif not resets and (self.board.deaf or not self.clock.can_wake(self.board.holds_back)):
            # a timer may tick into the mask a million times a second, without end
            priority = self.board.priority
            why = f"all that ticks is masked{' or held back' if priority else ' or waits for an EOI'}"
            if not self.clock.can_wake():
                why = "no device will ever interrupt"
            elif self.board.deaf:
                why = "every interrupt is masked"
            behind = f"; {priority}" if priority else ""
            return MachineExit(MachineStop.DEADLOCK, detail=f"HLT, and {why}{behind}")
        elif self.clock.now - self._awake_at > IDLE_LIMIT_NS and not self.board.rtc.alarm_enabled:
            return MachineExit(MachineStop.DEADLOCK, detail="HLT, and no interrupt for an hour of virtual time")
        if deadline is not None:
            self.clock.skip_to(deadline)
        return None

    def _do_reset(self, kind: str) -> None:
        self.journal.add(self.executor.retired, "reset", kind)
        state, before = CpuState(), self.executor.state()
        state.a20 = before.a20
        payload = self.config.payload
        if payload is not None and kind == "cpu":
            kind = "system"  # no firmware is there to tell an INIT from a reset: both start the payload anew
        state.regs[RDX] = MODELS[self.config.cpu].signature
        if kind == "cpu":
            # INIT leaves FPU, XCR0, MSRs, SMBASE and the cache bits of CR0 as they are (SDM vol. 3A, table 10-1).
            state.fpu, state.msrs, state.xcr0, state.smbase = before.fpu, before.msrs, before.xcr0, before.smbase
            state.cr0 = state.cr0 & ~CR0_CACHE | before.cr0 & CR0_CACHE
            if self.board.chipset is not None:
                self.board.chipset.lapic.init()
        else:
            state.a20 = True
            state.msrs[TSC_ADJUST] = -self.clock.now % (1 << 64)  # RESET clears the TSC
            (self.board.power_on if kind == "power-on" else self.board.reset)()
            if self.board.chipset is not None:
                self.board.chipset.apply()
            for part in memory_parts(self.config):
                if part.content and part.mapped:
                    self.memory.write(part.base, part.content)
            if payload is not None:
                state = self._place(payload)
        self._forget_rest()
        self._load(state)
        self.pin.update()

    def _load(self, state: CpuState) -> None:
        """Replace the CPU's state, and show the chipset whether it is one of system management mode."""
        self.executor.load(state)
        if self.board.chipset is not None:
            self.board.chipset.smm.loaded(state.smm)

    def reset(self) -> None:
        """Power-on: memory cleared, devices and CPU reset, counters at zero."""
        self._ended = self._reset = None
        self._stop = False
        self.memory.clear(memory_parts(self.config))
        self.executor.set_retired(0)
        self.standstill.forget()
        self.clock.restore(ClockState())
        self._awake_at = self.native_ns = 0
        self._do_reset("power-on")
        self.journal.clear()
        self.outputs.clear()

    # -- input

    def feed(self, kind: str, data: str) -> None:
        """A person's input now: see Inputs.feed."""
        self.inputs.feed(kind, data)
        self.journal.add(self.executor.retired, "input", f"{kind} {data!r}")

    # -- the whole as a value

    def _device_states(self) -> dict[str, Any]:
        states = {name: device.save() for name, device in self.board.device_table.items()}
        states.update({name: disk.save() for name, disk in media_of(self.config)})
        return states

    def save(self) -> MachineState:
        """Everything that decides how the run goes on. Parts that did not change since the last state are the same
        objects in both, so a state is to be kept and looked at, not changed."""
        self.service()
        devices, cpu, clock = self._device_states(), self.executor.state(), self.clock.save()
        state = MachineState(self.executor.retired, cpu, clock, self.memory.save(), devices)
        self._last = state.shared_with(self._last)
        return self._last

    def restore(self, state: MachineState) -> None:
        """Continue from `state`. Raises ValueError or KeyError when it is of a differently built machine, MachineError
        where a hypervisor has devices whose state cannot be put back."""
        if not self.keeper.restorable:
            raise MachineError("the interrupt controllers and timers are the hypervisor's, which takes no state back")
        self._forget_rest()
        self.look_back(state)

    def _forget_rest(self) -> None:
        """The CPU's next state is not one that it had before a look ahead."""
        if self.transitions is not None:
            self.transitions.forget_rest()

    def look_back(self, state: MachineState) -> None:
        """Continue from `state`, since which the CPU has run without its devices (`seal`, `look`): those that a
        hypervisor has are as they were. Raises as `restore` does for one of another machine."""
        self.keeper.ahead(True)
        try:
            self._put_back(state)
        finally:
            self.keeper.ahead(False)
        self.pin.update()

    def _put_back(self, state: MachineState) -> None:
        self.memory.restore(state.memory)
        self.executor.set_retired(state.retired)
        self.executor.load(state.cpu)
        self.executor.take_interrupt()
        self.standstill.forget()
        self.clock.restore(state.clock)
        self._awake_at = self.clock.now
        for name, device in self.board.device_table.items():
            device.restore(state.devices[name])
        if self.board.chipset is not None:
            self.board.chipset.smm.loaded(state.cpu.smm)
            self.board.chipset.apply()
        for name, disk in media_of(self.config):
            disk.restore(state.devices[name])
        self._ended = self._reset = None
        self._last = state

    def fingerprint(self) -> FingerprintView:
        """Hashes of RAM, CPU and devices, BLAKE2b-128."""
        import hashlib  # of use here alone, and slow to load

        self.service()
        ram = hashlib.blake2b(digest_size=16)
        for part in self.memory.ram():
            ram.update(part)
        states = sorted(self.board.device_table.items())
        named = [(name, device.save()) for name, device in states]
        named += [(name, disk.save()) for name, disk in media_of(self.config)]
        return FingerprintView(
            self.executor.retired, self.clock.now, ram.hexdigest(), digest(self.executor.state()), digest(named)
        )

    # -- Subject

    def cpu_count(self) -> int:
        return 1

    def cpu_state(self, cpu: int = 0) -> CpuState:
        self.service()
        return self.executor.state()

    def unknown(self, cpu: int = 0) -> frozenset[str]:
        return frozenset()

    def read_physical(self, address: int, length: int) -> bytes:
        return self._physical.read(address, length)

    def readable_physical(self, address: int, length: int) -> int:
        return self._physical.readable(address, length)

    def write_physical(self, address: int, data: bytes) -> None:
        self._physical.write(address, data)

    def check_write(self, address: int, data: bytes) -> None:
        self._physical.check(address, data)

    def load_cpu(self, state: CpuState, cpu: int = 0) -> None:
        if state.xcr0 != self.executor.state().xcr0:
            self._forget_rest()
        self._load(state)
        self.pin.update()

    def memory_map(self) -> tuple[RegionView, ...]:
        memory = [RegionView(r.base, r.base + r.size - 1, r.kind, r.name) for r in self.memory.regions]
        memory += [self._range("mmio", r) for r in (*self.mmio.ranges, *self.mmio.claims)]
        return tuple(sorted(memory, key=lambda r: r.first))

    def port_map(self) -> tuple[RegionView, ...]:
        return tuple(self._range("port", r) for r in self.ports.ranges)

    def _range(self, kind: str, entry: Range) -> RegionView:
        owner = "hypervisor" if entry.kept else "userspace"
        return RegionView(entry.first, entry.first + entry.count - 1, kind, entry.name, owner)

    def devices(self) -> tuple[DeviceView, ...]:
        self.service()
        return tuple(device.view() for device in self.board.device_table.values())

    def screen(self) -> ScreenView:
        return screen_view(self.board.vga.state, self.display.memory)

    def picture(self) -> PictureView:
        from emu.picture import picture  # drawing is for those who look

        return picture(self.board.vga.state, self.display.memory)

    def output(self, name: str) -> str:
        """What `serial`, `serial2`, `parallel` or `debugcon` has sent, as Latin-1 text."""
        return self.outputs.text(name)

    def serial_text(self) -> str:
        return self.outputs.text("serial")

    def debugcon_text(self) -> str:
        return self.outputs.text("debugcon")

    def close(self) -> None:
        """Free what it holds. Raises EngineError while another thread runs it: the CPU would go on in freed memory."""
        if self._hops:
            raise EngineError("close() was called while the machine runs: stop it first, and wait for its run's end")
        self.executor.close()
        self.keeper.close()


def _call_text(call: Call) -> str:
    return f"{call.vector:#04x} at {call.cs:04x}:{call.ip:x}"


def build_machine(config: MachineConfig) -> Machine:
    """A machine on the emulator. Raises MachineError, or EngineError when Unicorn is not the build v2e knows."""
    from emu.unicorn_engine import UnicornEngine

    model = cpu_model(config)

    def emulator(machine: Machine, io: PortIo, mmio: MmioBus) -> Executor:
        return UnicornEngine(
            machine.memory.regions,
            io,
            mmio,
            timestamp=machine.timestamp,
            checks=config.checks,
            model=model,
            display=SharedDisplay(
                layout.VGA_WINDOW,
                layout.VGA_WINDOW_SIZE,
                ctypes.addressof(machine.display.shared),
                machine.display.shared.memory,
            ),
            tick=NS_PER_INSTRUCTION,
        )

    def make(machine: Machine) -> Executor:
        if config.native is None:
            return emulator(machine, machine.cpu_ports, machine.mmio)
        from emu.transitions import Transitions
        from emu.vcpu import Place

        place = Place(
            machine.memory.regions, machine.cpu_ports, machine.mmio, machine.timestamp, NS_PER_INSTRUCTION,
            config.checks, model, machine.kept if machine.keeper.hypervisor else None,
        )  # fmt: skip
        return Transitions(partial(emulator, machine), place, config.native, machine.memory.unmarked)

    return Machine(config, make)


__all__ = [
    "MACHINES",
    "InputRecord",
    "Machine",
    "MachineConfig",
    "MachineError",
    "MachineExit",
    "MachineState",
    "MachineStop",
    "MemoryUnavailable",
    "build_machine",
]
