"""Running a domain as a machine's native CPU: entry, what it stops with, and how its accesses are completed.

The domain has Xen's LAPIC alone, switched off; every other device is the machine's, behind one ioreq server. At an
access the domain is paused, the device answers, and the vCPU takes the answer when it is entered next. Xen says nothing
of HLT, nor of an interrupt window: so the vCPU is looked at, and who waits is heard, every few milliseconds.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Final

from emu.engine import EngineError, Exit, ExitReason
from emu.vcpu import ExitCause, Place, VmExit
from emu.x86.modes import mode_of
from emu.x86.msrs import TSC_ADJUST
from emu.x86.state import CR4_OSXSAVE, RFLAGS_IF, CpuState
from emu.x86.vmentry import Broken, Rules
from xenbridge.ioreq import Ioreq, Type
from xenbridge.xen import context
from xenbridge.xen.channels import Channels, Patience, serve_until
from xenbridge.xen.context import ContextError, Record
from xenbridge.xen.domain import Domain
from xenbridge.xen.down import state_of
from xenbridge.xen.guest_memory import GuestMemory
from xenbridge.xen.libraries import Libraries, XenError
from xenbridge.xen.memory import PAGE
from xenbridge.xen.parking import parked_state
from xenbridge.xen.server import IoreqServer, serve
from xenbridge.xen.wake import Wake

MASK64: Final = (1 << 64) - 1
#: A frame of ours, where a vCPU is while Xen finishes an access of its: OUT 5Ch, AL, and JMP to itself.
_SPIN, _SPIN_CODE = 0xFEFE0000, b"\xe6\x5c\xeb\xfe"
#: ns; a stretch is no shorter, so that the guest gets on, and no longer, so that who waits is heard.
SHORTEST, LONGEST = 1_000_000, 100_000_000
#: Seconds between two looks at whether the vCPU halts, or an interrupt can be delivered: at first, and at most.
_LOOK_FIRST, _LOOK_LAST = 0.001, 0.01
_SETTLING: Final = 0.0003  #: seconds that a vCPU runs to take an answer
_PATIENCE: Final = 10.0
#: KiB that the domain may have beyond its memory, for pages of ours.
_SPARE: Final = 1 << 20
_APIC_BASE: Final = struct.Struct("<QIIQ")
#: IA32_APIC_BASE without the enable bit; both bits of `disabled` of struct hvm_hw_lapic.
_APIC_OFF, _DISABLED = 0xFEE00100, 3
_APIC_ON: Final = 0xFEE00900
_SVR, _SVR_ON = 0xF0, 0x1FF
_WAKING_VECTOR: Final = 0xF0
#: How a run ends in which an interrupt was delivered: its controller is to be told.
_INTERRUPTED_BY: Final = Exit(ExitReason.REQUEST, 0, detail="interrupt delivered")
_STI: Final = 0xFB


class _Devices:
    """What the ioreq server asks: the machine's buses."""

    def __init__(self, place: Place) -> None:
        self._io, self._mmio = place.io, place.mmio

    def read(self, type: Type, address: int, size: int) -> int:
        return self._io.port_in(address, size) if type is Type.PIO else self._mmio.mmio_read(address, size)

    def write(self, type: Type, address: int, size: int, value: int) -> None:
        if type is Type.PIO:
            self._io.port_out(address, size, value)
        else:
            self._mmio.mmio_write(address, size, value)


class NativeRuns:
    """A domain that can be entered. `notice` is told when it vanishes. Raises EngineError where it cannot be had."""

    def __init__(self, place: Place, rules: Rules, libraries: Libraries, notice: Callable[[str], None]) -> None:
        self._place, self.rules, self._notice = place, rules, notice
        self._libraries = libraries
        self.gone = ""  #: why the domain cannot be used any more
        self.retired = self.instruction_pc = self.interrupt_taken_at = 0
        self._stop = self._halted = False
        self._ran = False  # since its state was last known: loaded, or read
        self._wrote = False  # it may have written to memory that nobody was told of
        self._leaving = False  # the vCPU is on its way through code of ours
        self._vector: int | None = None
        self._taken: int | None = None
        self._injected: int | None = None
        self._answer: int | None = None  # what the access reads that the vCPU has to take yet
        self._request: Ioreq | None = None
        self._record = b""  # the CPU record of the paused vCPU; empty: it has to be read
        self._state: CpuState | None = None  # the same, read
        self._before = CpuState()  # the state from which it ran last
        self._kept = CpuState()  # what Xen does not have, as it was loaded
        self._wake = Wake()
        self._devices = _Devices(place)
        try:
            self.domain = self._domain_for(sum(region.size for region in place.regions) + _SPARE)
            try:
                self._memory = GuestMemory(self.domain, place.regions)
                self._channels = Channels(libraries)
                self._server = IoreqServer(self.domain, self._channels, self._asked)
                self._prepare()
            except BaseException:
                self.domain.destroy()
                raise
        except (XenError, ContextError) as error:
            raise EngineError(f"--hypervisor xen: {error}") from error

    def _domain_for(self, memory: int) -> Domain:
        """A paused domain that may have so many bytes."""
        return Domain.create_bare(self._libraries, memory)

    def _prepare(self) -> None:
        """All its accesses that are not to memory come to us."""
        self.domain.populate([_SPIN // PAGE])
        self.domain.memory.write(_SPIN, _SPIN_CODE)
        self._server.claim(Type.PIO, 0, 0xFFFF)
        self._claim_memory(_SPIN, PAGE)
        self._lapic(on=False)

    def _claim_memory(self, ours: int, size: int) -> None:
        """All of it where there is none, but for pages of ours."""
        for first, last in self._holes(ours, size):
            self._server.claim(Type.COPY, first, last)

    def _holes(self, ours: int, size: int) -> list[tuple[int, int]]:
        """(first, last) physical addresses below 4 GiB without memory."""
        holes, at = [], 0
        taken = ((r.base, r.base + r.size) for r in self._place.regions)
        for base, end in sorted((*taken, (ours, ours + size), (1 << 32, 1 << 32))):
            if base > at:
                holes.append((at, base - 1))
            at = max(at, end)
        return holes

    def _lapic(self, *, on: bool) -> None:
        """Switch Xen's LAPIC on, masked, or off."""
        registers = bytearray(self.domain.record(context.LAPIC_REGS).data)
        struct.pack_into("<I", registers, _SVR, _SVR_ON if on else 0xFF)
        for offset in range(0x200, 0x280, 0x10):  # IRR
            struct.pack_into("<I", registers, offset, 0)
        head = bytearray(self.domain.record(context.LAPIC).data)
        base, disabled = (_APIC_ON, 0) if on else (_APIC_OFF, _DISABLED)
        struct.pack_into("<QI", head, 0, base, disabled)
        self.domain.load(Record(context.LAPIC, 0, bytes(head)), Record(context.LAPIC_REGS, 0, bytes(registers)))

    def _unblock(self) -> None:
        """The paused vCPU halts: to Xen it waits for an interrupt, so one comes, and is taken back before it runs."""
        self._lapic(on=True)
        self.domain.libraries.device_model["inject_msi"](self.domain.domid, 0xFEE00000, _WAKING_VECTOR)
        self._lapic(on=False)

    # -- state of the paused vCPU

    def _whole(self) -> CpuState:
        """Its state as Xen has it, with what Xen has not as it was loaded."""
        if self._state is None:
            if not self._record:
                self._record = self.domain.cpu_record()
            self._state = self._completed(self._record)
            self._state.halted = self._halted
        return self._state

    def _completed(self, record: bytes) -> CpuState:
        state, kept = context.cpu_state(record), self._kept
        state.cr8, state.a20, state.smbase = kept.cr8, kept.a20, kept.smbase
        state.nmi_pending = kept.nmi_pending
        state.xcr0 = self._xcr0(state)
        state.msrs = {**kept.msrs, **state.msrs}
        if self._ran:
            tsc = int.from_bytes(record[context.TSC_OFFSET : context.TSC_OFFSET + 8], "little")
            # The guest has seen the host's counter: whoever goes on counts on from there.
            state.msrs[TSC_ADJUST] = tsc - self._place.timestamp() & MASK64
        return state

    def _give(self, state: CpuState) -> None:
        record = bytearray(context.with_cpu_state(self.domain.cpu_record(), state))
        struct.pack_into("<I", record, context.PENDING_OFFSET, 0)
        struct.pack_into("<Q", record, context.TSC_OFFSET, self._time_stamp(state))
        record[context.FLAGS_OFFSET] |= 1  # XEN_X86_FPU_INITIALISED
        self.domain.load_cpu_record(bytes(record))
        self._load_xcr0(state)
        self._kept, self._halted, self._injected = state, state.halted, None
        self._moved()

    def _xcr0(self, state: CpuState) -> int:
        """Of the vCPU whose CPU record says `state`. A guest without OSXSAVE cannot change it."""
        return self.domain.xcr0() if state.cr4 & CR4_OSXSAVE else self._kept.xcr0

    def _load_xcr0(self, state: CpuState) -> None:
        if state.cr4 & CR4_OSXSAVE:
            self.domain.load_xcr0(state.xcr0)

    def _time_stamp(self, state: CpuState) -> int:
        return self._place.timestamp() + state.msrs.get(TSC_ADJUST, 0) & MASK64

    def _moved(self) -> None:
        self._record, self._state = b"", None

    def live(self) -> CpuState:
        """See Cpu. Of a domain that is gone, what was known last."""
        return self._kept if self.gone else self._guarded(self._whole)

    @property
    def linear_pc(self) -> int:
        """See Cpu."""
        return self.live().linear_pc

    def interruptible(self) -> bool:
        """See Cpu. Behind STI it is not: Xen does not tell of the shadow."""
        state = self.live()
        if not state.rflags & RFLAGS_IF:
            return False
        before = self.domain.memory.read(state.linear_pc - 1, 1) if self._readable(state.linear_pc - 1) else b""
        return before != bytes([_STI]) or state.halted

    def _readable(self, linear: int) -> bool:
        return linear >= 0 and self.domain.memory.readable(linear, 1) == 1

    # -- entry

    def refused(self, state: CpuState) -> tuple[Broken, ...]:
        """See Vcpu."""
        if self.gone:
            return (Broken("xen", self.gone, "Xen's answer"),)
        return self.rules.broken(state)

    def enterable(self, state: CpuState) -> bool:
        """See Vcpu."""
        return not self.gone and self.rules.enterable(state)

    def enter(self, budget: int, deadline: int | None, *, skip_breakpoint: bool) -> VmExit:
        """See Vcpu. A single instruction is the emulator's."""
        if self._stop or self._wake.taken():
            self._stop = False
            return self._stopped(ExitReason.REQUEST)
        try:
            exit = self._entered(budget, deadline)
        except (XenError, ContextError) as error:
            self._lose(error)
            exit = self._made(ExitCause.ENTRY_FAILED, 0, before=True, detail=self.gone)
        if self.lost:
            return self._made(ExitCause.STOPPED, 0, stop=Exit(ExitReason.FAILURE, 0, detail=self.gone))
        return exit

    @property
    def lost(self) -> bool:
        """The domain is gone, and what it has done since its state was known must not be done again."""
        return bool(self.gone) and self._ran

    def _entered(self, budget: int, deadline: int | None) -> VmExit:
        if self._kept.nmi_pending:
            return self._made(ExitCause.REFUSED, 0, before=True, detail="the delivery of an NMI")
        if budget == 1:
            self._settle()
            return self._made(ExitCause.REFUSED, 0, before=True, detail="one instruction alone")
        if broken := () if self._request is not None else self.refused(self._whole()):
            return self._made(ExitCause.ENTRY_FAILED, 0, before=True, detail="; ".join(map(str, broken)))
        return self._run(deadline)

    def _run(self, deadline: int | None) -> VmExit:
        left = LONGEST if deadline is None else min(LONGEST, max(SHORTEST, deadline - self._place.timestamp()))
        elapsed, look = 0, _LOOK_FIRST
        while True:
            if self._vector is not None:
                self._settle()
                if self.interruptible():
                    self._inject(self._vector)
            if self._halted:
                return self._made(ExitCause.HLT, elapsed, stop=Exit(ExitReason.HALT, 0))
            begun = time.monotonic_ns()
            woken = self._stretch(min(look, max(left - elapsed, 0) / 1e9 + 1e-4))
            elapsed += time.monotonic_ns() - begun
            if (exit := self._met(elapsed)) is not None:
                return exit
            if woken:
                self._stop = False
                return self._stopped(ExitReason.REQUEST, elapsed)
            if elapsed >= left:
                return self._stopped(ExitReason.BUDGET, elapsed)
            look = _LOOK_FIRST if self._vector is not None else min(2 * look, _LOOK_LAST)

    def _stretch(self, seconds: float) -> bool:
        """Let the vCPU run until it accesses a device, or at most so long; True: somebody waits. It is paused then."""
        domain, end = self.domain, time.monotonic() + seconds
        request, answer = self._request, self._answer
        if self._answer is not None:
            self._server.answer(self._answer)
            self._answer = None
        if self._request is None:
            self._before = self._whole()
        self._request, self._ran, self._wrote = None, True, True
        self._moved()
        domain.resume()
        woken = False
        while not self._accessing and not woken and (left := end - time.monotonic()) > 0:
            woken = serve_until(self._wake.descriptor, self._heard, left, once=True)
        domain.pause()
        while not self._accessing and self._channels.take():  # an access that came while it was being paused
            pass
        if request is not None and not self._accessing and self._server.untaken:
            # It was given no processor, and stands in the access yet, whose end is done in the registers it has then.
            self._request, self._answer = request, answer
        return woken and self._wake.taken()

    @property
    def _heard(self) -> tuple[Channels, ...]:
        """What events come by while it runs."""
        return (self._channels,)

    @property
    def _accessing(self) -> bool:
        """The vCPU is in an access that nobody has answered, or that it has not taken the answer of."""
        return self._request is not None

    def _asked(self, request: Ioreq) -> None:
        """The ioreq server has a request."""
        self.domain.pause()
        if self._leaving:
            self._leaving = False
        else:
            self._request = request

    def _met(self, elapsed: int) -> VmExit | None:
        """What the paused vCPU stands at is; None: nothing."""
        if self._answer is not None:  # it stands where it stood
            return None
        delivered = self._delivered()
        if self._request is not None:
            exit = self._serve(self._request, elapsed)
        else:
            states = self.domain.states()
            if "shutdown" in states:
                return self._shut_down(elapsed)
            self._halted = "blocked" in states
            if not self._halted:
                return self._made(ExitCause.INTERRUPT, elapsed, stop=_INTERRUPTED_BY) if delivered else None
            exit = self._made(ExitCause.HLT, elapsed, stop=Exit(ExitReason.HALT, 0))
        return exit._replace(stop=_INTERRUPTED_BY) if delivered else exit

    def _serve(self, request: Ioreq, elapsed: int) -> VmExit:
        pc = self.instruction_pc = self.linear_pc
        self._answer = serve(self.domain, self._devices, request)
        cause = ExitCause.PIO if request.type is Type.PIO else ExitCause.MMIO
        return self._made(cause, elapsed, address=request.address, write=not request.reads, pc=pc)

    def _shut_down(self, elapsed: int) -> VmExit:
        """HLT with interrupts off, or a triple fault: to Xen the domain has ended."""
        reason = self.domain.shutdown_reason()
        self._kept = state_of(self.domain, self._before)
        self._kept.xcr0 = self._xcr0(self._kept)
        if reason == "poweroff":
            self._kept.halted = self._halted = True
            self.gone, self._ran = "the domain has shut down, at HLT with interrupts off", False
            return self._made(ExitCause.HLT, elapsed, stop=Exit(ExitReason.HALT, 0))
        self._lose(XenError(f"it has shut down ({reason})"))
        self._ran = False
        return self._stopped(ExitReason.SHUTDOWN, elapsed)

    # -- interrupts

    def _inject(self, vector: int) -> None:
        """Have Xen deliver it when the vCPU is entered next."""
        if self._injected == vector:
            return
        if self._halted:
            self._unblock()
        record = bytearray(self.domain.cpu_record())
        struct.pack_into("<I", record, context.PENDING_OFFSET, context.PENDING_VALID | vector)
        self.domain.load_cpu_record(bytes(record))
        self._injected, self._halted = vector, False
        self._moved()

    def _delivered(self) -> bool:
        """What was injected is delivered: the vCPU has run, and Xen's record has no event any more."""
        if self._injected is None:
            return False
        self._record = self.domain.cpu_record()
        if struct.unpack_from("<I", self._record, context.PENDING_OFFSET)[0] & context.PENDING_VALID:
            return False
        self._taken, self.interrupt_taken_at = self._injected, self.retired
        self._injected = self._vector = None
        return True

    # -- accesses that the vCPU is in

    def _settle(self) -> None:
        """Bring the paused vCPU between two instructions, the access that was answered done."""
        patience = Patience(_PATIENCE)
        while (request := self._request) is not None:
            if self._answer is None:
                self._answer = serve(self.domain, self._devices, request)
            if request.type is Type.PIO and not request.indirect:
                self._finish_port(request)
            else:
                self._stretch(_SETTLING)  # in its own registers: what comes next may run too
            if self._request is not None and patience.over:
                raise XenError("the vCPU does not come out of an access")

    def _finish_port(self, request: Ioreq) -> None:
        """IN or OUT: Xen has gone on to the next instruction, and puts what was read into RAX when the vCPU runs. For
        that it runs in code of ours, which ends in an OUT: of that nothing is left to do."""
        domain, state, value = self.domain, self._behind(request), self._answer or 0
        parked = parked_state()
        parked.rip = _SPIN
        record = bytearray(context.with_cpu_state(domain.cpu_record(), parked))
        struct.pack_into("<I", record, context.PENDING_OFFSET, 0)
        domain.load_cpu_record(bytes(record))
        self._server.answer(value)
        self._answer, self._request, self._leaving = None, None, True
        domain.resume()
        if not self._channels.wait(lambda: not self._leaving, _PATIENCE):
            raise XenError("the vCPU does not take an answer")
        self._server.answer()
        self._give(state)

    def _behind(self, request: Ioreq) -> CpuState:
        """The state behind an IN or OUT that the vCPU is in, and that has been answered."""
        state = self._whole().copy()
        if request.reads:
            kept = 0 if request.size == 4 else state.regs[0] & ~request.mask
            state.regs[0] = kept | (self._answer or 0) & request.mask
        return state

    # -- exits

    def _made(
        self, cause: ExitCause, elapsed: int, *, address: int = 0, write: bool = False, before: bool = False,
        detail: str = "", stop: Exit | None = None, pc: int | None = None,
    ) -> VmExit:  # fmt: skip
        state = self.live()
        where = state.linear_pc if pc is None else pc
        return VmExit(cause, where, mode_of(state), address, write, before, detail, elapsed, stop)

    def _stopped(self, reason: ExitReason, elapsed: int = 0) -> VmExit:
        return self._made(ExitCause.STOPPED, elapsed, stop=Exit(reason, 0))

    def _guarded(self, read: Callable[[], CpuState]) -> CpuState:
        try:
            return read()
        except (XenError, ContextError) as error:
            self._lose(error)
            return self._kept

    def _lose(self, error: Exception) -> None:
        if not self.gone:
            self.gone = f"Xen's domain is gone: {error}"
            self._notice(self.gone if self._ran else f"{self.gone}; the guest goes on in the emulator")
