"""KvmVcpu: KVM's CPU as the machine's native one, an `emu.vcpu.Vcpu`.

Accesses to devices are answered here and completed by KVM with the next entry, or with a KVM_RUN that ends at once when
the state is wanted. KVM executes HLT by itself. RDMSR and WRMSR end a stretch before they are executed, as do
instructions that it cannot execute: those are the emulator's. It counts no instructions: what passes is wall time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from ctypes import addressof, c_uint64
from itertools import chain

from emu.engine import Change, EngineError, Exit, Fault, MemoryRegion, MsrDevice, Watch
from emu.packed import PART_TSC, Packing
from emu.vcpu import ExitCause, VmExit
from emu.x86.classes import InstructionClass
from emu.x86.modes import Mode
from emu.x86.msrs import APIC_BASE, TSC
from emu.x86.state import CR4_OSXSAVE, CpuState
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.hop import (
    A20_MASKED,
    AGAIN,
    CR8_SHIFT,
    HALTED,
    MORE,
    NO_ROOM,
    PARTS_MASK,
    PARTS_SHIFT,
    PIECES_SHIFT,
    REFUSED,
    UNFINISHED,
    UNUSUAL,
)
from xenbridge.kvm.runs import BREAKPOINTS, CR8_MASK, LONGEST, MASK64, NOTHING_FORBIDDEN, WATCHED, Runs
from xenbridge.kvm.vm import PAGE


class KvmVcpu(Runs):
    """See emu.vcpu.Vcpu."""

    name = "kvm"
    title = "Linux's KVM"
    counts = translates = real_is_v86 = False
    exiting = InstructionClass.HLT

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
        watched = self._forbidden != NOTHING_FORBIDDEN or not self.backend.runs_all
        self._period = WATCHED if watched else LONGEST

    def exits_at(self, code: bytes, state: CpuState) -> tuple[ExitCause, int, bool] | None:
        """See Vcpu."""
        return None if state.cpl else (ExitCause.HLT, 0, False)

    def complete(self, exit: VmExit) -> Exit:
        """See Vcpu. No exit of this one is completed by it."""
        raise EngineError(f"kvm leaves {exit.cause.value} to the emulator")

    # -- state

    def state(self) -> CpuState:
        """See Cpu."""
        self._finish()
        self._withdraw()
        return self._whole()

    def load(self, state: CpuState) -> None:
        """See Cpu."""
        self._finish()
        self._withdraw()
        self._give(state)
        if self.backend.sets_tsc:
            self._cpu.try_msr(TSC, self.time_stamp())
        self.set_a20(state.a20)
        self._live.halted, self._live.nmi_pending = state.halted, state.nmi_pending
        self._priority = state.cr8
        if self._task_priority is not None:
            self._task_priority(state.cr8 & CR8_MASK)

    def share(self, packing: Packing, rest: Callable[[], CpuState]) -> bool:
        """See Sharing. Not where WRMSR is KVM's: what is not packed would change without a word."""
        if self._fast is None or not self.backend.msr_exits:
            return False
        self._fast.share(packing.packed, *packing.packer)
        self._packing, self._rest, self._over = packing, rest, self._fast.over
        return True

    def take_over(self, retired: int) -> bool:
        """See Sharing."""
        packing = self._packing
        if packing.odd and not packing.packable():
            return False
        if self._apic_base is not None:
            self._tell_apic_base(self._apic_base)
        came = self._over()
        if came or not self._laid:
            return came != MORE and self._take_rest(retired, came)
        self.retired, self._laid, self._left = retired, False, False
        return True

    def _tell_apic_base(self, device: MsrDevice) -> None:
        assert self._fast is not None, "packed states are shared only where the library moves them"
        self._fast.hop.apic_base = device.read_msr(APIC_BASE) or 0

    def _take_rest(self, retired: int, came: int) -> bool:
        """What is left to do of `take_over` where `over` has answered `came`: the state before was not left by
        `hand_over`, or there is something that is seldom met."""
        fast, live = self._fast, self._live
        assert fast is not None, "packed states are shared only where the library moves them"
        fast.beside.given, self._resuming = self._rest, None
        self._fresh = self._packed = self._tables_stale = self._vouched = True
        live.halted = live.nmi_pending = self._free = False
        if not self._left:
            fast.load_xcr0(1)  # else it would not be packed
        self.retired, self._priority = retired, came >> CR8_SHIFT
        self._laid = self._left = False
        if came & UNUSUAL or not self._a20:
            live.halted = came & HALTED != 0
            self.set_a20(not came & A20_MASKED)
            if came & REFUSED:
                self._lose(fast.failed())
        if self._sets_tsc:
            fast.try_msr(TSC, self.time_stamp())
        return True

    def forget(self) -> None:
        """See Sharing."""
        self._laid = self._left = False

    def hand_over(self) -> int | None:
        """See Sharing."""
        fast, live = self._fast, self._live
        if fast is None or not self._packed or self._taken is not None or live.nmi_pending:
            return None
        if self.gone or self._accesses.redirected or self._resuming is not None:
            return None
        if live.cr4 & CR4_OSXSAVE or fast.has_xcr0:  # XCR0 is not packed
            return None
        # RAN, IS_HALTED and A20_OPEN as shifts of truth values, which Python is quicker with than with choices.
        how = self._ran << 1 | live.halted << 2 | self._a20 << 3
        came = fast.leave(how | self._unfinished)
        while came & AGAIN:
            if came < 0:
                self._lose(fast.failed())
                return None
            self._answer(fast.reason)
            came = fast.leave(how | UNFINISHED)
        self._vector = self._injected = None
        self._unfinished = self._ran = False
        parts, written = came >> PARTS_SHIFT & PARTS_MASK, came >> PIECES_SHIFT
        if self._free and not self._sets_tsc:
            fast.packed.tsc_adjust = self._ahead(fast.hop.tsc)
            parts |= PART_TSC
        # Most states that come next have nothing that is seldom met: what is beside them is made ready here, as nothing
        # is left for it to take but these, and a hop in is to cost little more than its system call.
        live.halted = self._free = False
        self._fresh = self._tables_stale = self._vouched = True
        fast.beside.given = self._rest
        self._left = True
        self._laid = self._a20 and not (self._sets_tsc or self._priority)
        if written == NO_ROOM:
            pieces = [(region.host_address, region.size) for region in self._accesses.regions]
            everything = (c_uint64 * (2 * len(pieces)))(*chain.from_iterable(pieces))
            self._packing.host_changed(addressof(everything), len(pieces))
        elif written:
            self._packing.host_changed(fast.pieces, written)
        return parts

    def check(self, expected: CpuState) -> list[str]:
        """Read everything back from KVM and compare it with `expected`: what differs, in words."""
        return self._cpu.check(expected)

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

    @property
    def resuming(self) -> tuple[int, int, bool] | None:
        """See Cpu."""
        return self._resuming

    def resume(self, place: tuple[int, int, bool]) -> None:
        """See Cpu."""
        self._resuming = place

    @property
    def behind(self) -> int:
        """See Cpu. KVM does not tell."""
        return (1 << 64) - 1

    def go_on_behind(self, pc: int) -> None:
        """See Cpu."""

    def set_retired(self, count: int) -> None:
        """See Cpu."""
        self.retired = count

    def request_stop(self) -> None:
        """See Cpu."""
        self._stop = True
        self._kicker.kick()

    # -- interrupts

    def set_interrupt(self, vector: int | None, *, last: bool = False) -> None:
        """See Cpu."""
        if vector is not None and self._vector is None and not self._live.halted:
            self._kicker.kick()  # a run that goes on must look at it
        self._vector = vector

    def take_interrupt(self) -> int | None:
        """See Cpu."""
        taken, self._taken = self._taken, None
        return taken

    def on_task_priority(self, callback: Callable[[int], None] | None) -> None:
        """See Cpu."""
        self._task_priority = callback

    def set_task_priority(self, value: int) -> None:
        """See Cpu."""
        self._cpu.set_cr8(value & CR8_MASK)
        self._priority = value & CR8_MASK

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
        self._resuming = None

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
        """See Cpu. The machine's; the host's where KVM does not let it be set."""
        if not self.backend.sets_tsc:
            return self._cpu.read_msr(TSC) or 0
        return self._place.timestamp() + self._live.beside.tsc_adjust & MASK64

    def on_time_stamp(self, callback: Callable[[], None] | None) -> None:
        """See Cpu. A write to it is the emulator's."""

    def claim_msr(self, number: int, device: MsrDevice) -> None:
        """See Cpu. RDMSR and WRMSR are the emulator's, which knows the devices too."""
        self._claimed[number] = device
        if number == APIC_BASE:
            self._apic_base = device

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
