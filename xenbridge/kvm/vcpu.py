"""A KVM vCPU's file descriptor: KVM_RUN, what it exits with, and its state, of which only what changed is moved.

Registers, segments and pending events travel in the page that KVM_RUN shares (KVM_CAP_SYNC_REGS), so they cost no
system call; the FPU, the debug registers and MSRs take one each way, the way in only when they changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from emu.record import fields
from emu.x86.msrs import TSC
from emu.x86.state import CR4_OSXSAVE, CpuState, Fpu
from xenbridge.kvm import abi
from xenbridge.kvm import state as parts
from xenbridge.kvm.abi import KvmError, ioctl
from xenbridge.kvm.live import Known, LiveState
from xenbridge.kvm.vm import Vm

#: What `Vcpu.run` says when KVM_RUN was interrupted by a signal or by immediate_exit.
INTERRUPTED: Final = -1
_PIO: Final = struct.Struct("<BBHIQ")
_MMIO: Final = struct.Struct("<Q8sIB")
_MSR: Final = struct.Struct("<B7xIIQ")
_INTERNAL: Final = struct.Struct("<II")
_DEBUG_EXIT: Final = struct.Struct("<IIQQQ")
_MSR_ENTRY: Final = struct.Struct("<I4xQ")
_MSR_VALUE: Final = struct.Struct("<8xQ")
_MSRS_HEAD: Final = ctypes.sizeof(abi.MsrsHead)
_REGS_END: Final = abi.AT_REGS + parts.REGS.size
_SREGS_END: Final = abi.AT_SREGS + parts.SREGS_SIZE
_EVENTS_END: Final = abi.AT_EVENTS + parts.EVENTS_SIZE
_NMI_INJECTED: Final = abi.AT_EVENTS + abi.VcpuEvents.nmi_injected.offset
_NMI_PENDING: Final = abi.AT_EVENTS + abi.VcpuEvents.nmi_pending.offset
#: That an interrupt is injected and not delivered, behind it its vector, and whether INT n made it.
AT_INJECTED: Final = abi.AT_EVENTS + abi.VcpuEvents.interrupt_injected.offset


class Pio(NamedTuple):
    """A port access: `times` `size` bytes, a repeated string instruction has more than one. `at`: where the
    data are in kvm_run."""

    write: bool
    size: int
    port: int
    times: int
    at: int


class MmioAccess(NamedTuple):
    """An access of `size` bytes to physical `address`, where no slot is, or a write to a ROM's slot."""

    address: int
    size: int
    write: bool
    value: int


class Vcpu:
    """The vCPU 0 of a virtual machine. `cpuid` are the entries of the leaves it shows. Raises KvmError."""

    def __init__(self, vm: Vm, cpuid: Sequence[abi.CpuidEntry]) -> None:
        self.vm = vm
        self.fd = ioctl(vm.fd, "CREATE_VCPU", 0)
        try:
            self._map = mmap.mmap(self.fd, vm.run_size)
        except OSError as error:
            os.close(self.fd)
            raise KvmError(f"the vCPU's page cannot be mapped: {error.strerror}", error.errno or 0) from error
        self._run = memoryview(self._map)
        self.immediate_exit = ctypes.c_uint8.from_buffer(self._map, abi.RUN_IMMEDIATE_EXIT)
        self._window = ctypes.c_uint8.from_buffer(self._map, abi.RUN_WINDOW)
        self._reason = ctypes.c_uint32.from_buffer(self._map, abi.RUN_REASON)
        self._dirty = ctypes.c_uint64.from_buffer(self._map, abi.RUN_DIRTY)
        self._if_flag = ctypes.c_uint8.from_buffer(self._map, abi.RUN_IF)
        self._ready = ctypes.c_uint8.from_buffer(self._map, abi.RUN_READY)
        # Where the local APIC is the user's, KVM_RUN takes CR8 from here, past what was set before.
        self._run_cr8 = ctypes.c_uint64.from_buffer(self._map, abi.RUN_CR8)
        self._apic_base = ctypes.c_uint64.from_buffer(self._map, abi.AT_SREGS + abi.Sregs.apic_base.offset)
        # Every KVM_RUN leaves registers, segments and events in the page.
        ctypes.c_uint64.from_buffer(self._map, abi.RUN_VALID).value = abi.SYNC_REGS | abi.SYNC_SREGS | abi.SYNC_EVENTS
        self._cpuid(cpuid)
        self.tsc = 0  #: the time-stamp counter behind the last `read_back`
        self._xcr0: int | None = 1 if vm.offers("XCRS") else None  # what KVM has; None: it does not tell
        self._takes_xcr0 = True  # that has been what a state was to have
        self._begin([n for n in parts.NATIVE_MSRS if self.read_msr(n) is not None])

    def _begin(self, known: Sequence[int]) -> None:
        """Take the state that the vCPU was made with. `known` are those of state.NATIVE_MSRS that this KVM has."""
        self._known = Known()
        #: the state in place
        self.live = LiveState(self._map, self._known)
        self._xsave = bytearray(abi.XSAVE_SIZE)
        self._xsave_buffer = (ctypes.c_uint8 * abi.XSAVE_SIZE).from_buffer(self._xsave)
        self._fx = b""  # x87 and SSE state as KVM has it
        self._debug = bytearray(ctypes.sizeof(abi.DebugRegs))
        self._debug_buffer = (ctypes.c_uint8 * len(self._debug)).from_buffer(self._debug)
        self._debug_seen = b""
        self._msr_numbers = tuple(known)
        self._msrs = bytearray(_msr_list((n, 0) for n in (*known, TSC)))
        self._msr_buffer = (ctypes.c_uint8 * len(self._msrs)).from_buffer(self._msrs)
        self._msrs_seen = b""
        self._xsave_at, self._debug_at, self._msr_at = map(
            ctypes.addressof, (self._xsave_buffer, self._debug_buffer, self._msr_buffer)
        )
        self.read_back()

    def _cpuid(self, entries: Sequence[abi.CpuidEntry]) -> None:
        size = ctypes.sizeof(abi.CpuidHead) + len(entries) * ctypes.sizeof(abi.CpuidEntry)
        table = ctypes.create_string_buffer(bytes(abi.CpuidHead(len(entries))) + b"".join(map(bytes, entries)), size)
        ioctl(self.fd, "SET_CPUID2", table)

    # -- running

    def run(self) -> int:
        """KVM_RUN once: the exit's reason (abi.EXIT_*), or INTERRUPTED. Raises KvmError when KVM cannot go on."""
        if abi.call(self.fd, abi.RUN, 0) < 0:
            number = ctypes.get_errno()
            if number not in (errno.EINTR, errno.EAGAIN):
                raise KvmError(f"KVM_RUN failed: {os.strerror(number)}", number)
            return INTERRUPTED
        return self._reason.value

    @property
    def reason(self) -> int:
        """What the last KVM_RUN ended with (abi.EXIT_*), where it was not interrupted."""
        return self._reason.value

    def finish(self, serve: Callable[[int], None]) -> None:
        """Have KVM complete the instruction whose access was answered; `serve` is given further exits of the same
        instruction. Afterwards the state is one between two instructions."""
        asked = self.immediate_exit.value
        self.immediate_exit.value = 1
        while (reason := self.run()) in (abi.EXIT_IO, abi.EXIT_MMIO):
            serve(reason)
        self.immediate_exit.value = asked

    def want_window(self, wanted: bool) -> None:
        """Exit with EXIT_IRQ_WINDOW as soon as an interrupt could be delivered."""
        self._window.value = wanted

    @property
    def window(self) -> bool:
        """An interrupt would be delivered before the next instruction."""
        return bool(self._ready.value and self._if_flag.value)

    def inject(self, vector: int) -> None:
        """The next run begins with the delivery of the external interrupt `vector`.

        By the page, as everything that is pending: KVM_INTERRUPT would be undone by events that wait there to be taken
        over, those of a state that was loaded or of another injection that was withdrawn."""
        self._map[AT_INJECTED : AT_INJECTED + 3] = bytes((1, vector, 0))  # not a software interrupt
        self._dirty.value |= abi.SYNC_EVENTS

    # -- exits

    def pio(self) -> Pio:
        """What EXIT_IO is about."""
        direction, size, port, count, at = _PIO.unpack_from(self._run, abi.RUN_UNION)
        return Pio(bool(direction), size, port, count, at)

    def pio_data(self, access: Pio) -> memoryview:
        """The bytes that are written, or to be filled in."""
        return self._run[access.at : access.at + access.size * access.times]

    def mmio(self) -> MmioAccess:
        """What EXIT_MMIO is about."""
        address, data, size, write = _MMIO.unpack_from(self._run, abi.RUN_UNION)
        return MmioAccess(address, size, bool(write), int.from_bytes(data[:size], "little"))

    def answer_mmio(self, size: int, value: int) -> None:
        """What a read gives."""
        at = abi.RUN_UNION + 8
        self._run[at : at + size] = value.to_bytes(size, "little")

    def msr(self) -> int:
        """The number of the register that EXIT_RDMSR or EXIT_WRMSR is about."""
        number: int = _MSR.unpack_from(self._run, abi.RUN_UNION)[2]
        return number

    def internal(self) -> tuple[int, bytes]:
        """EXIT_INTERNAL_ERROR's suberror, and the bytes of the instruction where KVM says them."""
        suberror, count = _INTERNAL.unpack_from(self._run, abi.RUN_UNION)
        at = abi.RUN_UNION + _INTERNAL.size + 8
        if suberror != abi.INTERNAL_EMULATION or count < 3 or not self._run[at - 8] & 1:
            return suberror, b""
        length = min(self._run[at], 15)
        return suberror, bytes(self._run[at + 1 : at + 1 + length])

    def debug_exit(self) -> tuple[int, int, int]:
        """EXIT_DEBUG's exception vector, linear address and DR6."""
        exception, _, pc, dr6, _ = _DEBUG_EXIT.unpack_from(self._run, abi.RUN_UNION)
        return exception, pc, dr6

    def entry_failure(self) -> int:
        """EXIT_FAIL_ENTRY's hardware reason."""
        return int.from_bytes(self._run[abi.RUN_UNION : abi.RUN_UNION + 8], "little")

    # -- state

    def load(self, state: CpuState) -> None:
        """Have the vCPU continue from `state`. Raises KvmError when KVM refuses a part of it."""
        page, dirty = self._map, 0
        if (regs := parts.pack_regs(state)) != page[abi.AT_REGS : _REGS_END]:
            page[abi.AT_REGS : _REGS_END] = regs
            dirty = abi.SYNC_REGS
        if (sregs := parts.pack_sregs(state)) != page[abi.AT_SREGS : _SREGS_END]:
            page[abi.AT_SREGS : _SREGS_END] = sregs
            dirty |= abi.SYNC_SREGS
            self._run_cr8.value = state.cr8
        if parts.event_flags(state) != parts.event_flags_of(page, abi.AT_EVENTS):
            page[abi.AT_EVENTS : _EVENTS_END] = parts.pack_events(state)
            dirty |= abi.SYNC_EVENTS
        if dirty:
            self._dirty.value |= dirty
        if (debug := parts.pack_debug(state)) != self._debug_seen:
            self._debug[:] = debug
            self._debug_seen = debug
            self._call("SET_DEBUGREGS", self._debug_at)
        known = self._known
        if state.fpu is not known.fpu and state.fpu != known.fpu:
            parts.pack_fpu(state.fpu, self._xsave)
            self._call("SET_XSAVE", self._xsave_at)
            self._fx = bytes(self._xsave[: parts.FX_SIZE])
        self._load_msrs(state)
        self.load_xcr0(state.xcr0)
        known.fpu, known.dr, known.msrs = state.fpu, state.dr, state.msrs
        known.smbase, known.xcr0 = state.smbase, state.xcr0

    def _load_msrs(self, state: CpuState) -> None:
        values = state.msrs
        wanted = _msr_list((n, values.get(n, 0)) for n in self._msr_numbers)[_MSRS_HEAD:]
        if wanted != self._msrs_seen:
            changed = {n: values.get(n, 0) for n in self._msr_numbers if values.get(n, 0) != self._known.msrs.get(n, 0)}
            self._set_msrs(changed or {n: values.get(n, 0) for n in self._msr_numbers})
            self._msrs_seen = wanted

    def load_xcr0(self, value: int) -> None:
        """What it reads once the guest turns CR4.OSXSAVE on. A value that this KVM does not take stays the emulator's,
        as the guest does with that bit. Whatever KVM had last: a guest may have set it since, and hidden that."""
        if self._xcr0 is not None:
            xcrs = abi.Xcrs(1)
            xcrs.xcrs[0].value = value
            self._takes_xcr0 = False
            with contextlib.suppress(KvmError):
                ioctl(self.fd, "SET_XCRS", xcrs)
                self._xcr0, self._takes_xcr0 = value, True

    @property
    def has_xcr0(self) -> bool:
        """KVM had another one than after RESET when somebody last looked, or loaded it."""
        return self._xcr0 not in (None, 1)

    def _read_xcr0(self) -> int | None:
        if self._xcr0 is not None:
            xcrs = abi.Xcrs()
            ioctl(self.fd, "GET_XCRS", xcrs)
            self._xcr0 = xcrs.xcrs[0].value
        return self._xcr0

    def _call(self, request: str, address: int) -> None:
        if abi.call(self.fd, abi.REQUESTS[request], address) < 0:
            number = ctypes.get_errno()
            raise KvmError(f"KVM_{request} failed: {os.strerror(number)}", number)

    def read_back(self) -> None:
        """Take the parts that are not in the page from KVM, which may have changed them while it ran."""
        self._call("GET_XSAVE", self._xsave_at)
        fx = bytes(self._xsave[: parts.FX_SIZE])
        if fx != self._fx:
            self._fx, self._known.fpu = fx, parts.unpack_fpu(fx, self._known.fpu)
        self._call("GET_DEBUGREGS", self._debug_at)
        if self._debug != self._debug_seen:
            self._debug_seen = bytes(self._debug)
            self._known.dr = parts.unpack_debug(self._debug_seen)
        self._call("GET_MSRS", self._msr_at)
        self.tsc = int.from_bytes(self._msrs[-8:], "little")
        if (data := self._msrs[_MSRS_HEAD : -_MSR_ENTRY.size]) != self._msrs_seen:
            self._msrs_seen = bytes(data)
            known = zip(self._msr_numbers, _MSR_VALUE.iter_unpack(self._msrs_seen), strict=True)
            values = {number: value for number, (value,) in known}
            before = self._known.msrs
            self._known.msrs = {**before, **{n: v for n, v in values.items() if v or n in before}}

    def set_cr8(self, value: int) -> None:
        """What CR8 reads from the next run on."""
        if self.live.cr8 != value:
            self.live.cr8 = self._run_cr8.value = value
            self._dirty.value |= abi.SYNC_SREGS

    def quick_state(self) -> CpuState:
        """As `state`, with the FPU, debug registers and MSRs as they were known last."""
        page, live = self._map, self.live
        f = live.fpu
        regs, rip, rflags = parts.unpack_regs(page[abi.AT_REGS : _REGS_END])
        es, cs, ss, ds, fs, gs, ldtr, tr, gdtr, idtr, cr0, cr2, cr3, cr4, cr8, efer = parts.unpack_sregs(
            page[abi.AT_SREGS : _SREGS_END]
        )
        shadow, pending, blocked = parts.unpack_events(page[abi.AT_EVENTS : _EVENTS_END])
        return CpuState(
            regs, rip, rflags, es, cs, ss, ds, fs, gs, ldtr, tr, gdtr, idtr, cr0, cr2, cr3, cr4, cr8,
            live.dr.copy(), efer, live.msrs.copy(),
            Fpu(f.fcw, f.fsw, f.ftw, f.fop, f.fip, f.fcs, f.fdp, f.fds, f.mxcsr, f.st.copy(), f.xmm.copy()),
            live.halted, shadow, blocked, pending or live.nmi_pending, smbase=live.smbase, a20=live.a20,
            xcr0=live.xcr0,
        )  # fmt: skip

    def state(self) -> CpuState:
        """The state behind the last run or `finish`; what KVM does not have is as it was loaded."""
        self.read_back()
        state = self.quick_state()
        # A guest may have set it since it was loaded, and have hidden that.
        if (self._takes_xcr0 or state.cr4 & CR4_OSXSAVE) and (xcr0 := self._read_xcr0()) is not None:
            state.xcr0 = xcr0
        return state

    def check(self, expected: CpuState) -> list[str]:
        """Read everything from KVM anew, through the calls that do not use the page, and say in words what is not as in
        `expected`. Nothing of what KVM is thought to have is taken for it."""
        self.finish(lambda reason: None)
        state = self.state()
        if (xcr0 := self._read_xcr0()) is not None:
            state.xcr0 = xcr0
        regs, sregs, events = abi.Regs(), abi.Sregs(), abi.VcpuEvents()
        ioctl(self.fd, "GET_REGS", regs)
        ioctl(self.fd, "GET_SREGS", sregs)
        ioctl(self.fd, "GET_VCPU_EVENTS", events)
        state.regs, state.rip, state.rflags = parts.unpack_regs(bytes(regs))
        (
            state.es, state.cs, state.ss, state.ds, state.fs, state.gs, state.ldtr, state.tr, state.gdtr, state.idtr,
            state.cr0, state.cr2, state.cr3, state.cr4, state.cr8, state.efer,
        ) = parts.unpack_sregs(bytes(sregs))  # fmt: skip
        state.shadow, state.nmi_pending, state.nmi_blocked = parts.unpack_events(bytes(events))
        debug, xsave = abi.DebugRegs(), ctypes.create_string_buffer(abi.XSAVE_SIZE)
        ioctl(self.fd, "GET_DEBUGREGS", debug)
        ioctl(self.fd, "GET_XSAVE", xsave)
        state.dr, state.fpu = parts.unpack_debug(bytes(debug)), parts.unpack_fpu(xsave.raw[: parts.FX_SIZE], state.fpu)
        values = ((number, self.read_msr(number)) for number in parts.NATIVE_MSRS)
        state.msrs |= {n: value for n, value in values if value is not None and (value or n in state.msrs)}
        return [
            f"{field.name}: {getattr(expected, field.name)} was given and KVM has {getattr(state, field.name)}"
            for field in fields(state)
            if getattr(state, field.name) != getattr(expected, field.name)
        ]

    @property
    def nmi_waits(self) -> bool:
        """Behind the last run an NMI is pending, or half delivered."""
        return bool(self._map[_NMI_INJECTED] or self._map[_NMI_PENDING])

    @property
    def injected(self) -> bool:
        """Behind the last run something is half delivered."""
        return parts.injected(self._map[abi.AT_EVENTS : _EVENTS_END])

    @property
    def interrupting(self) -> bool:
        """Behind the last run an interrupt is injected and not delivered."""
        return bool(self._map[abi.AT_EVENTS + 8])

    @property
    def page(self) -> mmap.mmap:
        """struct kvm_run."""
        return self._map

    def mark_dirty(self, parts: int) -> None:
        """These parts of the page (abi.SYNC_*) have been written, and are the vCPU's from the next run on."""
        self._dirty.value |= parts

    @property
    def apic_base(self) -> int:
        """IA32_APIC_BASE behind the last run."""
        return self._apic_base.value

    def withdraw(self) -> None:
        """Take back what is half delivered: nothing of a delivery that was not finished has happened."""
        events = bytearray(self._run[abi.AT_EVENTS : _EVENTS_END])
        for at in (0, 3, 8, 12):
            events[at] = 0
        self._run[abi.AT_EVENTS : _EVENTS_END] = events
        self._dirty.value |= abi.SYNC_EVENTS

    # -- MSRs

    def read_msr(self, number: int) -> int | None:
        """The value; None: KVM does not know the register."""
        buffer = _msr_buffer({number: 0})
        if not ioctl(self.fd, "GET_MSRS", buffer):
            return None
        value: int = _MSR_VALUE.unpack_from(buffer, _MSRS_HEAD)[0]
        return value

    def _set_msrs(self, values: dict[int, int]) -> None:
        """Raises KvmError at the first that KVM refuses."""
        done = ioctl(self.fd, "SET_MSRS", _msr_buffer(values))
        if done < len(values):
            number, value = list(values.items())[done]
            raise KvmError(f"KVM refuses the value {value:#x} of MSR {number:#x}")

    def try_msr(self, number: int, value: int) -> bool:
        """Set it; False: KVM refuses."""
        try:
            self._set_msrs({number: value})
        except KvmError:
            return False
        return True

    def scale_tsc(self, khz: int) -> bool:
        """Have the time-stamp counter count so many times a millisecond; False: KVM refuses."""
        try:
            ioctl(self.fd, "SET_TSC_KHZ", khz)
        except KvmError:
            return False
        return True

    def set_debug(self, control: int, addresses: Sequence[int] = (), *, written: bool = False) -> None:
        """Single-step, or stop before the instructions at up to four linear addresses; with `written`, behind those
        that write a byte there."""
        debug = abi.GuestDebug(control | abi.DEBUG_ENABLE if control else 0)
        for i, address in enumerate(addresses):
            debug.debugreg[i] = address
            # Enabled globally; of execution or of writes, one byte (SDM vol. 3B, 18.2.4).
            debug.debugreg[7] |= 2 << 2 * i | int(written) << 16 + 4 * i
        if addresses:
            debug.debugreg[7] |= 1 << 10
        ioctl(self.fd, "SET_GUEST_DEBUG", debug)

    def close(self) -> None:
        """Give the vCPU back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _msr_list(values: Iterable[tuple[int, int]]) -> bytes:
    """struct kvm_msrs with its entries."""
    entries = [_MSR_ENTRY.pack(number, value) for number, value in values]
    return len(entries).to_bytes(_MSRS_HEAD, "little") + b"".join(entries)


def _msr_buffer(values: Mapping[int, int]) -> ctypes.Array[ctypes.c_char]:
    data = _msr_list(values.items())
    return ctypes.create_string_buffer(data, len(data))
