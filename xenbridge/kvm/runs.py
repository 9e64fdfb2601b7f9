"""Entering KVM and what it exits with: the part of the native CPU that runs. See `xenbridge.kvm.cpu`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final, cast

from emu.engine import EngineError, Exit, ExitReason, MsrDevice
from emu.vcpu import ExitCause, Place, VmExit
from emu.x86.modes import Mode, mode_of
from emu.x86.msrs import FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_ADJUST
from emu.x86.state import CR0_PE, CR0_PG, EFER_LMA, RFLAGS_IF, RFLAGS_VM, CpuState
from emu.x86.vmentry import TYPE_CODE, Broken, Judged
from xenbridge.kvm import abi
from xenbridge.kvm import state as parts
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.accesses import Accesses
from xenbridge.kvm.backend import Backend
from xenbridge.kvm.cpuid import cpuid_entries
from xenbridge.kvm.hop import FastVcpu, make_vcpu
from xenbridge.kvm.kick import Kicker
from xenbridge.kvm.strays import Strays
from xenbridge.kvm.vcpu import INTERRUPTED
from xenbridge.kvm.vm import Vm, slots_of

#: What a guest may change natively: they are in the segment registers, or read at each way out.
NATIVE_MSR_ACCESS: Final = (FS_BASE, GS_BASE, KERNEL_GS_BASE)
BREAKPOINTS: Final = 4  #: of the CPU's debug registers
#: ns; a stretch is never shorter, so that the guest gets on however close the next timer is.
SHORTEST: Final = 20_000
#: ns; a stretch that nothing bounds ends after this, so that whoever waits for it is never shut out.
LONGEST: Final = 100_000_000
#: ns; how often the state is looked at where a guest can come to modes that this KVM does not run.
WATCHED: Final = 1_000_000
NEVER: Final = 1 << 62  #: ns
NOTHING_FORBIDDEN: Final = (), frozenset[Mode]()
MASK16, MASK32, MASK64 = (1 << 16) - 1, (1 << 32) - 1, (1 << 64) - 1
#: kHz: the machine's time-stamp counter counts virtual nanoseconds.
TSC_KHZ: Final = 1_000_000
CR8_MASK: Final = 0xF
SHUT_DOWN_PC: Final = 0xFFFFFFF0  #: where a CPU is that SVM's shutdown has made KVM reset
#: How a run ends in which an interrupt was delivered: its controller is to be told.
INTERRUPTED_BY: Final = Exit(ExitReason.REQUEST, 0, detail="interrupt delivered")


class Runs:
    """A vCPU of KVM that can be entered. `backend` is what the host's KVM can; `notice` is told when it vanishes.
    Raises EngineError where it cannot be had."""

    def __init__(self, place: Place, backend: Backend, notice: Callable[[str], None] = lambda text: None) -> None:
        self._place, self.backend, self.rules, self._notice = place, backend, backend.rules(), notice
        try:
            self._vm = Vm()
            try:
                self._vm.filter_msrs(NATIVE_MSR_ACCESS)
                self._cpu = make_vcpu(self._vm, cpuid_entries(place.model))
                if self._vm.offers("TSC_CONTROL"):
                    self._cpu.scale_tsc(TSC_KHZ)
                self._kicker = Kicker(self._cpu.fd, self._cpu.immediate_exit)
                self._accesses = Accesses(self._cpu, place.io, place.mmio, place.regions)
            except BaseException:
                self._vm.close()
                raise
        except KvmError as error:
            raise EngineError(f"--hypervisor kvm: {error}") from error
        self._judged = Judged(lambda state: self.rules.enterable(state))
        self._fast = self._cpu if isinstance(self._cpu, FastVcpu) else None
        if self._fast is not None:
            self._fast.reads(filtered=backend.msr_exits, tsc=not backend.sets_tsc)
        self._forbidden: tuple[tuple[tuple[int, int], ...], frozenset[Mode]] = NOTHING_FORBIDDEN
        self._strays = None if backend.runs_all else Strays(backend, notice)
        self._period = LONGEST if backend.runs_all else WATCHED
        self.interrupt_taken_at = 0
        self.instruction_pc = 0
        self.retired = 0
        self.gone = ""  #: why KVM cannot be used any more
        self._a20 = True
        self._map_stale = True  # the slots are not those of the regions yet
        self._tables_stale = False  # somebody else has written memory, perhaps page tables
        self._unfinished = False  # an access was answered, KVM has to complete its instruction
        self._live = self._cpu.live
        self._checked = b""  # segments and control registers that were found enterable
        self._vouched = False  # whoever gave the state has found it enterable
        self._priority = 0  # CR8 as it was told of last
        self._stop = False
        self._vector: int | None = None
        self._taken: int | None = None
        self._injected: int | None = None  # given to KVM, which delivers it when it runs
        self._points: frozenset[int] = frozenset()
        self._others = ""  # stops that are set and cannot be kept
        self._debugging = False
        self._holding = False  # no interrupt is to be delivered now
        #: see Cpu.resuming: of the CPU before, where an interrupt came ahead of an instruction to be resumed from
        self._resuming: tuple[int, int, bool] | None = None
        self._packed = False  # the state was given packed, and nobody has given another one since
        self._laid = False  # all beside the state is as it is to be when the next one is given packed
        self._left = False  # what is not packed, XCR0, is as the guest left it by `hand_over`
        self._fresh = True  # nothing has run since the state was given or somebody stopped the CPU
        self._task_priority: Callable[[int], None] | None = None
        self._claimed: dict[int, MsrDevice] = {}
        self._apic_base: MsrDevice | None = None  # of them IA32_APIC_BASE's
        self._sets_tsc, self._loses_esp = backend.sets_tsc, backend.loses_esp
        self._first_page = 0
        self._pages = 0
        self._ran = False
        self._free = False  # it has run, more than single steps, since a state was given

    # -- entry

    @property
    def strayed(self) -> str:
        """See Straying."""
        return "" if self._strays is None else self._strays.text

    def refused(self, state: CpuState) -> tuple[Broken, ...]:
        """See Vcpu."""
        if self.gone:
            return (Broken("kvm", self.gone, "the kernel's answer"),)
        return self.rules.broken(state)

    def enterable(self, state: CpuState) -> bool:
        """See Vcpu."""
        return not self.gone and self._judged.enterable(state)

    def _forbids(self) -> bool:
        ranges, modes = self._forbidden
        if self._live.mode in modes:
            return True
        pc = self._live.linear_pc if ranges else 0
        return any(first <= pc <= last for first, last in ranges)

    def enter(self, budget: int, deadline: int | None, *, skip_breakpoint: bool) -> VmExit:
        """See Vcpu. With a budget of 1 it is a single step, which is counted."""
        if self._stop:
            self._stop = False
            self._cpu.immediate_exit.value = 0
            return self._stopped(ExitReason.REQUEST)
        try:
            if self._live.nmi_pending:
                return self._made(ExitCause.REFUSED, 0, before=True, detail="the delivery of an NMI")
            if why := self._unenterable():
                return self._failed(why)
            if self._forbidden != NOTHING_FORBIDDEN and self._forbids():
                return self._made(ExitCause.FORBIDDEN, 0, before=True)
            self._map()
            if budget == 1:
                return self._step()
            if self._points and skip_breakpoint and self._fresh and self.linear_pc in self._points:
                exit = self._pass()
                if exit.stop is None or exit.stop.reason is not ExitReason.BUDGET:
                    return exit
            return self._go_on(deadline)
        except KvmError as error:
            self._lose(error)
            return self._failed(self.gone)

    def _pass(self) -> VmExit:
        """Execute the instruction at a breakpoint. An interrupt waits for that: were it delivered first, its handler
        would return to the breakpoint, which would be met a second time. Behind it the state may be a wrong one."""
        self._finish()
        self._withdraw()
        self._holding = True
        try:
            exit = self._step()
        finally:
            self._holding = False
        if exit.stop is not None and exit.stop.reason is ExitReason.BUDGET and (why := self._unenterable()):
            return self._failed(why, exit.elapsed)
        return exit

    def _go_on(self, deadline: int | None) -> VmExit:
        """Run to an exit. A breakpoint that is to be passed is passed, once."""
        before = 0
        self._free = True
        while True:
            if self._points or self._debugging:
                self._debug(0, self._points)
            exit = self._run(deadline)
            if before:
                exit = exit._replace(elapsed=exit.elapsed + before)
            if exit.stop is None or exit.stop.reason is not ExitReason.BREAKPOINT:
                return exit
            resuming, self._resuming = self._resuming, None
            if resuming is None or resuming[:2] != (self.linear_pc, self._live.rsp):
                return exit
            before = exit.elapsed
            exit = self._pass()
            before += exit.elapsed
            if exit.stop is None or exit.stop.reason is not ExitReason.BUDGET:
                return exit._replace(elapsed=before)

    def _unenterable(self) -> str:
        """Why the state, as it is now, must not run here: KVM does not tell of writes to control registers and loads of
        segments, so a guest may have come natively to what it could not have been entered in."""
        segments = self._live.segments
        vouched, self._vouched = self._vouched, False  # for the state as it was given, and no later one
        if segments == self._checked:
            return ""
        if not vouched:
            self._finish()
            if broken := self.refused(self.live()):
                return "; ".join(map(str, broken))
        self._checked = segments
        return ""

    def _mode_before(self) -> Mode:
        """Of the state that was found enterable last. Of its RFLAGS nothing is left: data in CS is V86's."""
        if not self._checked:  # a state was given since
            return self._live.mode
        (es, cs, ss, ds, fs, gs, *_, cr0, _, _, _, _, efer) = parts.unpack_sregs(self._checked)
        vm = RFLAGS_VM if cr0 & CR0_PE and not efer & EFER_LMA and not cs.type & TYPE_CODE else 0
        return mode_of(CpuState(rflags=vm, es=es, cs=cs, ss=ss, ds=ds, fs=fs, gs=gs, cr0=cr0, efer=efer))

    def _step(self) -> VmExit:
        self._debug(abi.DEBUG_SINGLESTEP, ())
        exit = self._run(None, NEVER)
        self._finish()  # else the step of this instruction would end the next run
        if exit.cause is not ExitCause.REFUSED and (exit.stop is None or exit.stop.reason is not ExitReason.REQUEST):
            self.retired += 1
        return exit

    def _debug(self, control: int, points: Iterable[int]) -> None:
        addresses = sorted(points)
        if addresses:
            control |= abi.DEBUG_USE_HW_BP
        if control or self._debugging:
            self._cpu.set_debug(control, addresses)
        self._debugging = bool(control)

    def _map(self) -> None:
        """Bring the slots, and what KVM derives from page tables, to this instant."""
        if self._map_stale:
            self._vm.place(slots_of(self._accesses.regions, a20=self._a20))
            self._map_stale = False
            if self._fast is not None:
                self._fast.watch_pages()
        if self._tables_stale:
            self._tables_stale = False
            if not self.backend.sees_tables and self.live().cr0 & CR0_PG:
                self._vm.refresh()

    def _run(self, deadline: int | None, longest: int = LONGEST) -> VmExit:
        """Enter until there is an exit to tell, or `longest` ns have passed. A step ends when it is made, however long
        this process has not had the CPU meanwhile: else it would be counted without."""
        elapsed = 0
        cpu, kicker = self._cpu, self._kicker
        left = longest if deadline is None else min(longest, max(SHORTEST, deadline - self._place.timestamp()))
        while True:
            if elapsed and (why := self._unenterable()):
                return self._failed(why, elapsed)
            if self._forbidden != NOTHING_FORBIDDEN and self._forbids():
                return self._made(ExitCause.FORBIDDEN, elapsed, before=True)
            if self._loses_esp and self._vector is not None and (why := self._would_lose()):
                return self._made(ExitCause.REFUSED, elapsed, before=True, detail=why)
            cpu.want_window(self._vector is not None and not self._holding and not self._inject())
            if self._live.halted:
                return self._made(ExitCause.STOPPED, elapsed, stop=Exit(ExitReason.HALT, 0))
            begun = time.monotonic_ns()
            kicker.begin(max(1, min(left - elapsed, self._period)), begun)
            try:
                reason = cpu.run()
            finally:
                kicker.end()
                elapsed += time.monotonic_ns() - begun
                self._fresh, self._unfinished, self._ran = False, False, True
            if self._strays is not None and self._live.segments != self._checked:
                self._strays.look(self._live, time.monotonic_ns() - begun, self._mode_before)
            delivered = self._injected is not None and self._delivered()
            exit = self._met(reason, elapsed, left)
            if delivered and exit is None:
                return self._made(ExitCause.INTERRUPT, elapsed, stop=INTERRUPTED_BY)
            if exit is not None:
                return exit._replace(stop=INTERRUPTED_BY) if delivered and exit.stop is None else exit

    # -- interrupts

    def _would_lose(self) -> str:
        """Why this KVM must not deliver what INTR asks for; empty: it may. An injection that is under way stays."""
        if self._holding or self._injected is not None or self._live.cr0 & CR0_PE or self._live.rsp <= MASK16:
            return ""
        if not self.interruptible():
            return ""
        return f"an interrupt in real mode with ESP {self._live.rsp:#x}, whose upper half it clears"

    def _inject(self) -> bool:
        """Have KVM deliver what INTR asks for when it runs next. False: it cannot be delivered yet."""
        self._finish()
        if self._injected is not None:
            if self._injected == self._vector:
                return True
            self._withdraw()
        if not self.interruptible() or self._cpu.injected or self._vector is None:
            return False
        self._cpu.inject(self._vector)
        self._injected, self._live.halted = self._vector, False
        return True

    def _delivered(self) -> bool:
        """KVM has run: whether it has delivered what was injected. Then the controller is told."""
        if self._cpu.interrupting:
            return False
        self._taken, self.interrupt_taken_at = self._injected, self.retired
        self._injected = self._vector = None
        return True

    def _withdraw(self) -> None:
        """Take back what is half delivered: nothing of a delivery that was not finished has happened, and INTR still
        asks for it. A faulting instruction faults again."""
        if self._injected is not None or self._cpu.injected:
            self._cpu.withdraw()
        self._injected = None

    # -- exits

    def _met(self, reason: int, elapsed: int, left: int) -> VmExit | None:
        """What an exit of KVM's is; None: it goes on."""
        if reason in (abi.EXIT_IO, abi.EXIT_MMIO):
            return self._serve(reason, elapsed)
        if reason in (INTERRUPTED, abi.EXIT_INTR):
            self._kicker.drain()
            if self._stop:
                self._stop = False
                self._cpu.immediate_exit.value = 0
                return self._stopped(ExitReason.REQUEST, elapsed)
            self._cpu.immediate_exit.value = 0
            return self._stopped(ExitReason.BUDGET, elapsed) if elapsed >= left else None
        if reason == abi.EXIT_HLT:
            self._live.halted = True
            return self._made(ExitCause.HLT, elapsed, stop=Exit(ExitReason.HALT, 0))
        if reason == abi.EXIT_IRQ_WINDOW:
            return None
        if reason == abi.EXIT_DEBUG:
            return self._debug_exit(elapsed)
        if reason in (abi.EXIT_RDMSR, abi.EXIT_WRMSR):
            return self._msr_exit(elapsed, reason == abi.EXIT_WRMSR)
        if reason == abi.EXIT_SET_TPR:
            self._tell_priority()
            return None
        if reason == abi.EXIT_INTERNAL_ERROR:
            return self._refusal(elapsed)
        if reason == abi.EXIT_SHUTDOWN:
            return self._shutdown(elapsed)
        if reason == abi.EXIT_FAIL_ENTRY:
            return self._failed(f"the CPU says reason {self._cpu.entry_failure():#x}", elapsed)
        name = abi.EXIT_NAMES.get(reason, str(reason))
        return self._made(ExitCause.REFUSED, elapsed, before=True, detail=f"what ended in KVM's exit {name}")

    def _made(
        self, cause: ExitCause, elapsed: int, *, address: int = 0, write: bool = False, before: bool = False,
        detail: str = "", stop: Exit | None = None, pc: int | None = None,
    ) -> VmExit:  # fmt: skip
        if self._task_priority is not None:
            self._tell_priority()
        where = self.linear_pc if pc is None else pc
        return VmExit(cause, where, self._live.mode, address, write, before, detail, elapsed, stop)

    def _stopped(self, reason: ExitReason, elapsed: int = 0, executed: int = 0) -> VmExit:
        if reason is not ExitReason.BUDGET:
            self._fresh = True
        return self._made(ExitCause.STOPPED, elapsed, stop=Exit(reason, executed))

    def _failed(self, why: str, elapsed: int = 0) -> VmExit:
        return self._made(ExitCause.ENTRY_FAILED, elapsed, before=True, detail=why)

    def _debug_exit(self, elapsed: int) -> VmExit | None:
        if not self._points or self.linear_pc not in self._points:
            return self._stopped(ExitReason.BUDGET, elapsed, 1)
        return self._stopped(ExitReason.BREAKPOINT, elapsed)

    def _refusal(self, elapsed: int) -> VmExit:
        suberror, code = self._cpu.internal()
        detail = f"the instruction {code.hex(' ')}" if code else f"what ended in KVM's internal error {suberror}"
        return self._made(ExitCause.REFUSED, elapsed, before=True, detail=detail)

    def _shutdown(self, elapsed: int) -> VmExit:
        """A triple fault, or a mode that this KVM does not run. The state is that before the instruction, which the
        emulator executes again and so finds the truth; but SVM loses it, and KVM resets the CPU then."""
        if self.linear_pc & MASK32 == SHUT_DOWN_PC:
            return self._stopped(ExitReason.SHUTDOWN, elapsed)
        return self._made(ExitCause.REFUSED, elapsed, before=True, detail="what ended in a shutdown")

    def _msr_exit(self, elapsed: int, write: bool) -> VmExit:
        """The instruction is the emulator's. KVM must not believe that it is still to complete it."""
        number = self._cpu.msr()
        before = self._whole()
        self._cpu.finish(self._answer)
        self._give(before)
        name = "WRMSR" if write else "RDMSR"
        return self._made(
            ExitCause.REFUSED, elapsed, address=number, write=write, before=True, detail=f"{name} of {number:#x}"
        )

    def _serve(self, reason: int, elapsed: int) -> VmExit:
        pc = self.instruction_pc = self.linear_pc
        self._unfinished = True
        address, write = self._accesses.serve(reason)
        cause = ExitCause.PIO if reason == abi.EXIT_IO else ExitCause.MMIO
        return self._made(cause, elapsed, address=address, write=write, pc=pc)

    def _answer(self, reason: int) -> None:
        """A further access of an instruction that is being completed."""
        self._accesses.serve(reason)

    def _finish(self) -> None:
        """Have KVM complete what was answered. Where it has vanished, what it told last is the state."""
        if self._unfinished:
            self._unfinished = False
            try:
                self._cpu.finish(self._answer)
            except KvmError as error:
                self._lose(error)

    # -- state

    def live(self) -> CpuState:
        """See Cpu. Of the FPU, debug registers and MSRs it has what was known last."""
        return cast(CpuState, self._live)

    @property
    def linear_pc(self) -> int:
        """See Cpu."""
        return self._live.linear_pc

    def interruptible(self) -> bool:
        """See Cpu."""
        self._finish()
        state = self.live()
        return bool(state.rflags & RFLAGS_IF) and not state.shadow

    def _whole(self) -> CpuState:
        try:
            state = self._cpu.state()
        except KvmError as error:
            self._lose(error)
            return self._cpu.quick_state()
        if self._free and not self.backend.sets_tsc:
            # The guest has seen the host's counter: whoever goes on counts on from there, so that it never goes back.
            state.msrs[TSC_ADJUST] = self._ahead(self._cpu.tsc)
        return state

    def _ahead(self, tsc: int) -> int:
        """How far the counter is ahead of the machine's when it shows `tsc`."""
        return tsc - self._place.timestamp() & MASK64

    def _give(self, state: CpuState) -> None:
        try:
            self._cpu.load(state)
        except KvmError as error:
            self._lose(error)
        self._fresh, self._checked = True, b""
        self._free = self._packed = self._laid = self._left = self._vouched = False
        self._resuming = None

    def _tell_priority(self) -> None:
        value = self._live.cr8
        if value != self._priority and self._task_priority is not None:
            self._priority = value
            self._task_priority(value)

    def _lose(self, error: KvmError) -> None:
        if not self.gone:
            self.gone = f"KVM is gone: {error}"
            self._notice(f"{self.gone}; the guest goes on in the emulator")
