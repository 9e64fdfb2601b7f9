"""KvmVcpu: KVM's CPU as the machine's native one, an `emu.vcpu.Vcpu`.

Accesses to devices are answered here and completed by KVM with the next entry, or with a KVM_RUN that ends at once when
the state is wanted. KVM executes HLT by itself. RDMSR and WRMSR end a stretch before they are executed, as do
instructions that it cannot execute: those are the emulator's. It counts no instructions: what passes is wall time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, cast

from emu.engine import Change, EngineError, Exit, ExitReason, Fault, MemoryRegion, MsrDevice, Watch
from emu.vcpu import ExitCause, Place, VmExit
from emu.x86.modes import Mode
from emu.x86.msrs import FS_BASE, GS_BASE, KERNEL_GS_BASE
from emu.x86.state import CR0_PG, RFLAGS_IF, CpuState
from emu.x86.vmentry import Broken
from xenbridge.kvm import abi
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.accesses import Accesses
from xenbridge.kvm.backend import Backend
from xenbridge.kvm.cpuid import cpuid_entries
from xenbridge.kvm.kick import Kicker
from xenbridge.kvm.vcpu import INTERRUPTED, Vcpu
from xenbridge.kvm.vm import PAGE, Vm, slots_of

#: What a guest may change natively: they are in the segment registers, or read at each way out.
NATIVE_MSR_ACCESS: Final = (FS_BASE, GS_BASE, KERNEL_GS_BASE)
BREAKPOINTS: Final = 4  #: of the CPU's debug registers
#: ns; a stretch is never shorter, so that the guest gets on however close the next timer is.
SHORTEST: Final = 20_000
#: ns; a stretch that nothing bounds ends after this, so that whoever waits for it is never shut out.
LONGEST: Final = 100_000_000
#: ns; how often the state is looked at where a guest can come to modes that this KVM does not run.
WATCHED: Final = 1_000_000
NOTHING_FORBIDDEN: Final = (), frozenset[Mode]()
MASK32: Final = (1 << 32) - 1
CR8_MASK: Final = 0xF
SHUT_DOWN_PC: Final = 0xFFFFFFF0  #: where a CPU is that SVM's shutdown has made KVM reset


class KvmVcpu:
    """See emu.vcpu.Vcpu. `backend` is what the host's KVM can. Raises EngineError where it cannot be had."""

    name = "kvm"
    title = "Linux's KVM"
    counts = False

    def __init__(self, place: Place, backend: Backend) -> None:
        self._place, self.backend, self.rules = place, backend, backend.rules()
        try:
            self._vm = Vm()
            try:
                self._vm.filter_msrs(NATIVE_MSR_ACCESS)
                self._cpu = Vcpu(self._vm, cpuid_entries(place.model))
                self._kicker = Kicker(self._cpu.fd, self._cpu.immediate_exit)
                self._accesses = Accesses(self._cpu, place.io, place.mmio, place.regions)
            except BaseException:
                self._vm.close()
                raise
        except KvmError as error:
            raise EngineError(f"--hypervisor kvm: {error}") from error
        self._forbidden: tuple[tuple[tuple[int, int], ...], frozenset[Mode]] = NOTHING_FORBIDDEN
        self._period = LONGEST if backend.pages else WATCHED
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
        self._priority = 0  # CR8 as it was told of last
        self._stop = False
        self._vector: int | None = None
        self._taken: int | None = None
        self._injected = False  # acknowledged, KVM delivers it when it runs
        self._points: frozenset[int] = frozenset()
        self._others = ""  # stops that are set and cannot be kept
        self._debugging = False
        self._fresh = True  # nothing has run since the state was given or somebody stopped the CPU
        self._task_priority: Callable[[int], None] | None = None
        self._claimed: dict[int, MsrDevice] = {}
        self._first_page = 0
        self._pages = 0
        self._ran = False

    # -- entry

    def refused(self, state: CpuState) -> tuple[Broken, ...]:
        """See Vcpu."""
        if self.gone:
            return (Broken("kvm", self.gone, "the kernel's answer"),)
        return self.rules.broken(state)

    def enterable(self, state: CpuState) -> bool:
        """See Vcpu."""
        return not self.gone and self.rules.enterable(state)

    def unable(self) -> str:
        """See Vcpu."""
        if self.gone:
            return self.gone
        if self._others:
            return f"{self._others} are set, which only the emulator keeps"
        if len(self._points) > BREAKPOINTS:
            return f"{len(self._points)} breakpoints are set and the CPU has {BREAKPOINTS}"
        if self._points and not self.backend.breaks_everywhere:
            return "breakpoints are set, at which this host's KVM does not stop in all modes"
        return ""

    def forbid(self, ranges: Sequence[tuple[int, int]], modes: Collection[Mode]) -> None:
        """See Vcpu. It cannot exit there: the place is looked at at each exit, and every millisecond."""
        self._forbidden = tuple(ranges), frozenset(modes)
        watched = self._forbidden != NOTHING_FORBIDDEN or not self.backend.pages
        self._period = WATCHED if watched else LONGEST

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
                exit = self._step()
                if exit.stop is None or exit.stop.reason is not ExitReason.BUDGET:
                    return exit
            self._debug(0, self._points)
            return self._run(deadline)
        except KvmError as error:
            self._lose(error)
            return self._failed(self.gone)

    def _unenterable(self) -> str:
        """Why the state, as it is now, must not run here: KVM does not tell of writes to control registers and loads of
        segments, so a guest may have come natively to what it could not have been entered in."""
        segments = self._live.segments
        if segments == self._checked:
            return ""
        self._finish()
        if broken := self.refused(self.live()):
            return "; ".join(map(str, broken))
        self._checked = segments
        return ""

    def _step(self) -> VmExit:
        self._debug(abi.DEBUG_SINGLESTEP, ())
        exit = self._run(None)
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
        if self._tables_stale:
            self._tables_stale = False
            if not self.backend.sees_tables and self.live().cr0 & CR0_PG:
                self._vm.refresh()

    def _run(self, deadline: int | None) -> VmExit:
        """Enter until there is an exit to tell."""
        elapsed = 0
        cpu, kicker = self._cpu, self._kicker
        left = LONGEST if deadline is None else min(LONGEST, max(SHORTEST, deadline - self._place.timestamp()))
        while True:
            if elapsed and (why := self._unenterable()):
                return self._failed(why, elapsed)
            if self._forbidden != NOTHING_FORBIDDEN and self._forbids():
                return self._made(ExitCause.FORBIDDEN, elapsed, before=True)
            if self._vector is not None and not self._injected and self._deliver():
                return self._made(ExitCause.INTERRUPT, elapsed, stop=Exit(ExitReason.REQUEST, 0, detail="interrupt"))
            cpu.want_window(self._vector is not None and not self._injected)
            kicker.begin(max(1, min(left - elapsed, self._period)))
            begun = time.monotonic_ns()
            try:
                reason = cpu.run()
            finally:
                kicker.end()
                elapsed += time.monotonic_ns() - begun
                self._moved()
            if (exit := self._met(reason, elapsed, left)) is not None:
                return exit

    def _moved(self) -> None:
        """The vCPU may have executed something."""
        self._fresh, self._unfinished, self._ran = False, False, True
        if self._injected and not self._cpu.injected:
            self._injected = False

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
        self._drop_injection()
        detail = f"the instruction {code.hex(' ')}" if code else f"what ended in KVM's internal error {suberror}"
        return self._made(ExitCause.REFUSED, elapsed, before=True, detail=detail)

    def _shutdown(self, elapsed: int) -> VmExit:
        """A triple fault, or a mode that this KVM does not run. The state is that before the instruction, which the
        emulator executes again and so finds the truth; but SVM loses it, and KVM resets the CPU then."""
        if self.linear_pc & MASK32 == SHUT_DOWN_PC:
            return self._stopped(ExitReason.SHUTDOWN, elapsed)
        self._drop_injection()
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

    def _drop_injection(self) -> None:
        """A delivery was not finished: it has not begun. Nothing was lost but an acknowledged interrupt, which is
        delivered by the emulator from INTR again."""
        if self._cpu.injected:
            self._cpu.withdraw()

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
        """Have KVM complete what was answered."""
        if self._unfinished:
            self._unfinished = False
            self._cpu.finish(self._answer)

    def complete(self, exit: VmExit) -> Exit:
        """See Vcpu. No exit of this one is completed by it."""
        raise EngineError(f"kvm leaves {exit.cause.value} to the emulator")

    # -- state

    def state(self) -> CpuState:
        """See Cpu. An interrupt that was acknowledged is delivered first, with the handler's first instruction."""
        self._finish()
        if self._injected:
            self._settle()
        return self._whole()

    def _whole(self) -> CpuState:
        try:
            return self._cpu.state()
        except KvmError as error:
            self._lose(error)
            return self._cpu.quick_state()

    def _settle(self) -> None:
        """Have KVM deliver what was acknowledged."""
        try:
            self._map()
            self._debug(abi.DEBUG_SINGLESTEP, ())
            self._cpu.immediate_exit.value = 0
            while (reason := self._cpu.run()) in (INTERRUPTED, abi.EXIT_INTR):
                # A timer of the run before, or somebody who wants a stop: that is for `enter`, which looks at the flag.
                self._kicker.drain()
                self._cpu.immediate_exit.value = 0
            self._moved()
            if reason in (abi.EXIT_IO, abi.EXIT_MMIO):
                self._answer(reason)
                self._cpu.finish(self._answer)
        except KvmError as error:
            self._lose(error)
        self._injected = False

    def live(self) -> CpuState:
        """See Cpu. Of the FPU, debug registers and MSRs it has what was known last."""
        return cast(CpuState, self._live)

    def load(self, state: CpuState) -> None:
        """See Cpu."""
        self._finish()
        self._injected = False
        self._give(state)
        self.set_a20(state.a20)
        self._live.halted, self._live.nmi_pending = state.halted, state.nmi_pending
        self._priority = state.cr8
        if self._task_priority is not None:
            self._task_priority(state.cr8 & CR8_MASK)

    def _give(self, state: CpuState) -> None:
        try:
            self._cpu.load(state)
        except KvmError as error:
            self._lose(error)
        self._fresh, self._checked = True, b""

    def check(self, expected: CpuState) -> list[str]:
        """Read everything back from KVM and compare it with `expected`: what differs, in words."""
        return self._cpu.check(expected)

    def _lose(self, error: KvmError) -> None:
        self.gone = f"KVM is gone: {error}"

    @property
    def linear_pc(self) -> int:
        """See Cpu."""
        return self._live.linear_pc

    @property
    def cs_ip(self) -> tuple[int, int]:
        """See Cpu."""
        state = self.live()
        return state.cs.selector, state.rip

    @property
    def halted(self) -> bool:
        """See Cpu."""
        return self._live.halted

    def undisturbed(self) -> bool:
        """See Cpu. Never: a step is for `enter`."""
        return False

    def set_retired(self, count: int) -> None:
        """See Cpu."""
        self.retired = count

    def request_stop(self) -> None:
        """See Cpu."""
        self._stop = True
        self._kicker.kick()

    # -- interrupts

    def _deliver(self) -> bool:
        """Have KVM deliver the interrupt that is asked for when it runs next, if it can be delivered now."""
        self._finish()
        if not self.interruptible() or self._vector is None or self._cpu.injected:
            return False
        self._cpu.inject(self._vector)
        self._taken, self.interrupt_taken_at = self._vector, self.retired
        self._vector, self._injected, self._live.halted = None, True, False
        self._fresh = False
        return True

    def set_interrupt(self, vector: int | None, *, last: bool = False) -> None:
        """See Cpu."""
        if vector is not None and self._vector is None and not self._live.halted:
            self._kicker.kick()  # a run that goes on must look at it
        self._vector = vector

    def take_interrupt(self) -> int | None:
        """See Cpu."""
        taken, self._taken = self._taken, None
        return taken

    def interruptible(self) -> bool:
        """See Cpu."""
        self._finish()
        state = self.live()
        return bool(state.rflags & RFLAGS_IF) and not state.shadow and not self._injected

    def on_task_priority(self, callback: Callable[[int], None] | None) -> None:
        """See Cpu."""
        self._task_priority = callback

    def set_task_priority(self, value: int) -> None:
        """See Cpu."""
        self._cpu.set_cr8(value & CR8_MASK)
        self._priority = value & CR8_MASK

    def _tell_priority(self) -> None:
        value = self._live.cr8
        if value != self._priority and self._task_priority is not None:
            self._priority = value
            self._task_priority(value)

    def raise_nmi(self) -> None:
        """See Cpu. The emulator delivers it."""
        self._live.nmi_pending, self._live.halted = True, False
        self._kicker.kick()

    def on_fault(self, callback: Callable[[Fault], None] | None) -> None:
        """See Cpu. KVM does not tell of exceptions that it delivers."""

    # -- memory

    def set_a20(self, enabled: bool) -> None:
        """See Cpu."""
        if enabled is not self._a20:
            self._a20 = self._live.a20 = enabled
            self._map_stale = True

    def memory_changed(self, physical: int, length: int) -> None:
        """See Cpu. KVM executes from memory itself; what it may have derived from it are page tables."""
        self._tables_stale = True

    def remap(self, regions: Sequence[MemoryRegion]) -> None:
        """See Cpu."""
        self._accesses.regions, self._map_stale = regions, True

    def mark_writes(self, host_address: int, pages: int, marks: int) -> Callable[[], None] | None:
        """See Cpu. KVM's log is asked for at a hop, not at each save."""
        return None

    def trace_pages(self, host_address: int, pages: int) -> None:
        """See Vcpu."""
        self._first_page, self._pages = host_address // PAGE, pages

    def take_written(self) -> Iterable[int] | None:
        """See Vcpu."""
        if not self._ran:
            return ()
        self._ran = False
        pages = {page - self._first_page for page in self._accesses.redirected}
        self._accesses.redirected.clear()
        try:
            for host, size in self._vm.written():
                first = host // PAGE - self._first_page
                pages.update(range(first, first + size // PAGE))
        except KvmError as error:
            self._lose(error)
            return None
        return sorted(page for page in pages if 0 <= page < self._pages)

    # -- debugging

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        """See Cpu."""
        self._points = frozenset(linear)

    def set_event_stops(self, classes: int, physical: Iterable[int], changes: Change) -> None:
        """See Cpu."""
        wanted = bool(classes) or bool(tuple(physical)) or bool(changes)
        self._set_other("stops at instructions, places or modes", wanted)

    def set_watchpoints(self, watches: Iterable[Watch]) -> None:
        """See Cpu."""
        self._set_other("watchpoints", any(True for _ in watches))

    def _set_other(self, words: str, wanted: bool) -> None:
        others = [word for word in self._others.split(" and ") if word and word != words]
        self._others = " and ".join([*others, words] if wanted else others)

    # -- system registers

    def time_stamp(self) -> int:
        """See Cpu. The machine's: KVM shows the host's, where it cannot be set."""
        return self._place.timestamp()

    def on_time_stamp(self, callback: Callable[[], None] | None) -> None:
        """See Cpu. A write to it is the emulator's."""

    def claim_msr(self, number: int, device: MsrDevice) -> None:
        """See Cpu. RDMSR and WRMSR are the emulator's, which knows the devices too."""
        self._claimed[number] = device

    def read_msr(self, number: int) -> int | None:
        """See Cpu. Of those that a state has."""
        device = self._claimed.get(number)
        return self.state().msrs.get(number) if device is None else device.read_msr(number)

    def write_msr(self, number: int, value: int) -> bool:
        """See Cpu. Of those that a state has."""
        if (device := self._claimed.get(number)) is not None:
            return device.write_msr(number, value)
        state = self.state()
        if number not in state.msrs:
            return False
        state.msrs[number] = value
        self._give(state)
        return True

    def close(self) -> None:
        """See Cpu."""
        self._kicker.close()
        self._cpu.close()
        self._vm.close()
