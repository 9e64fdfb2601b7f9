"""An HVM domain of Xen: made here or by xl, paused, looked into, loaded, and destroyed."""

from __future__ import annotations

import ctypes as c
import errno
from typing import Final, Protocol

from emu.x86.state import CpuState
from xenbridge.xen import context
from xenbridge.xen.channels import Channels
from xenbridge.xen.context import ContextError, Record
from xenbridge.xen.libraries import CreateDomain, DomainInfo, Libraries, XenError
from xenbridge.xen.memory import PAGE, DomainMemory

#: Flags of xc_dominfo_t, by bit.
STATES: Final = ("dying", "crashed", "shutdown", "paused", "blocked", "running", "hvm", "debugged", "xenstore", "hap")
#: SHUTDOWN_* of xen/include/public/sched.h, by number.
_REASONS: Final = ("poweroff", "reboot", "suspend", "crash", "watchdog", "soft reset")
_CDF_HVM, _CDF_HAP = 1, 2
#: XEN_X86_EMU_*: LAPIC, HPET, PM timer, RTC, I/O APIC, PIC, standard VGA, IOMMU, PIT, and PIRQ are Xen's to emulate.
_EMULATION: Final = 0x3FF
EMULATE_LAPIC: Final = 1
EMULATE_ALL: Final = _EMULATION
#: The range of PC firmware and display memory, which is nobody's RAM.
_HOLE: Final = range(0xA0000 // PAGE, 0x100000 // PAGE)
#: "v2e" and zeros: by it a domain that was left behind is recognised.
HANDLE: Final = b"v2e".ljust(16, b"\0")
#: Bytes for Xen's own page tables of the domain's memory.
_POOL: Final = 2 << 20
#: KiB beyond its RAM that a domain may have: pages of the bridge and of the monitor.
_SPARE: Final = 1024
TRIGGER_NMI: Final = 0
#: HVM_PARAM_TIMER_MODE of 4.17, hvm/params.h.
TIMER_MODE_PARAM: Final = 10


class AccessServer(Protocol):
    """What of an ioreq server concerns those who change a vCPU's registers."""

    id: int
    channels: Channels

    @property
    def busy(self) -> bool: ...


class Domain:
    """One domain by its number. Our own hold on it is one pause, whoever else may have paused it besides."""

    def __init__(self, libraries: Libraries, domid: int, *, ours: bool = False) -> None:
        """Attach to a domain that exists. Raises XenError where there is none, or where it is no HVM domain."""
        self.libraries, self.domid = libraries, domid
        self.ours = ours
        self.held = ours  # a new domain is paused once by Xen
        self.memory = DomainMemory(libraries, domid)
        self.servers: list[AccessServer] = []  #: those of ours that are set up
        if "hvm" not in self.states():
            raise XenError(f"domain {domid} is no HVM domain: only those have a PC's registers and devices")

    @classmethod
    def create(cls, libraries: Libraries, memory: int) -> Domain:
        """A paused HVM domain with one vCPU and `memory` bytes of RAM from address 0 on, without the PC's hole.

        Its RAM is zero, as an emulated machine's: pages that a living domain gave back Xen hands on as they are
        (xen/common/page_alloc.c, free_domheap_pages scrubs those of the dying alone). Its vCPU has no state yet:
        `load_cpu` before `resume`. Raises XenError."""
        domain = cls.create_bare(libraries, memory, _EMULATION)
        try:
            frames = [frame for frame in range(memory // PAGE) if frame not in _HOLE]
            domain.populate(frames)
            domain.memory.clear(frames)
        except XenError:
            domain.destroy()
            raise
        return domain

    @classmethod
    def create_bare(cls, libraries: Libraries, memory: int, emulation: int = EMULATE_LAPIC) -> Domain:
        """The same without memory, of which it may have so many bytes, and with those devices of Xen's (XEN_X86_EMU_*,
        of which 4.17 takes all or the LAPIC alone). Raises XenError."""
        wanted = CreateDomain(
            flags=_CDF_HVM | _CDF_HAP, max_vcpus=1, max_evtchn_port=1023, max_grant_frames=4, max_maptrack_frames=4,
            grant_opts=1,
        )  # fmt: skip
        wanted.arch.emulation_flags = emulation
        wanted.handle[:] = HANDLE
        control, domid = libraries.control, c.c_uint32(0)
        control["xc_domain_create"](c.byref(domid), c.byref(wanted))
        try:
            number = domid.value
            control["xc_domain_max_vcpus"](number, 1)
            control["xc_set_paging_mempool_size"](number, _POOL)
            domain = cls(libraries, number, ours=True)
            domain.allow(memory)
            return domain
        except XenError:
            control["xc_domain_destroy"](domid.value)
            raise

    def allow(self, memory: int) -> None:
        """It may have so many bytes of memory, and what v2e has in it besides. Raises XenError."""
        self.call("xc_domain_setmaxmem", memory // 1024 + _SPARE)

    @property
    def serving(self) -> tuple[Channels, ...]:
        """What brings the requests to those device models of it that are ours."""
        return tuple(server.channels for server in self.servers)

    # -- what Xen says of it

    def _info(self) -> DomainInfo:
        info = DomainInfo()
        try:
            found = self.libraries.control["xc_domain_getinfo"](self.domid, 1, c.byref(info))
        except XenError as error:
            if error.errno != errno.ESRCH:
                raise
            found = 0
        # Xen answers with the next domain where there is none of this number.
        if found != 1 or info.domid != self.domid:
            raise XenError(f"there is no domain {self.domid}", errno.ESRCH)
        if info.bits & 1:  # Xen keeps its number while memory of it is mapped
            raise self._destroyed()
        return info

    def call(self, name: str, *args: object) -> int:
        """What a call of libxenctrl on it returns. Raises XenError: where the call failed because the domain is gone
        meanwhile, which each answers with a number of its own, with the sentence that says so."""
        try:
            return int(self.libraries.control[name](self.domid, *args))
        except XenError:
            self._check_alive()
            raise

    def _check_alive(self) -> None:
        self._info()
        try:
            self._context()
        except XenError as error:
            # Xen calls a domain dying only when its end is complete; from its beginning on it has no context
            # (hvm_save of Xen 4.17).
            if error.errno in (errno.EINVAL, errno.ESRCH):
                raise self._destroyed() from None

    def _destroyed(self) -> XenError:
        return XenError(f"domain {self.domid} has been destroyed", errno.ESRCH)

    def states(self) -> frozenset[str]:
        """Those of STATES that hold. Raises XenError when the domain is gone."""
        bits = self._info().bits
        return frozenset(name for bit, name in enumerate(STATES) if bits >> bit & 1)

    def shutdown_reason(self) -> str:
        """Why a domain that is shut down is so."""
        number = int(self._info().shutdown_reason)
        return _REASONS[number] if number < len(_REASONS) else f"reason {number}"

    def vcpus(self) -> int:
        return int(self._info().max_vcpu_id) + 1

    def pages(self) -> int:
        """How many pages of memory it has."""
        return int(self._info().pages)

    def last_frame(self) -> int:
        """The highest frame of its physical memory map that has memory."""
        last = c.c_ulong()
        self.call("xc_domain_maximum_gpfn", c.byref(last))
        return last.value

    # -- running

    def pause(self) -> None:
        """Returns when none of its vCPUs runs."""
        if not self.held:
            self.call("xc_domain_pause")
            self.held = True

    def resume(self) -> None:
        """Take back our pause. Raises XenError, as when the domain is gone."""
        if self.held:
            self.held = False
            self.call("xc_domain_unpause")

    def destroy(self) -> None:
        """End it, and give its memory back to Xen. One that is gone already is no error."""
        try:
            self.libraries.control["xc_domain_destroy"](self.domid)
        except XenError as error:
            if error.errno != errno.ESRCH:
                raise

    def send_nmi(self, cpu: int = 0) -> None:
        """An NMI, which wakes a vCPU that halts."""
        self.call("xc_domain_send_trigger", TRIGGER_NMI, cpu)

    def set_param(self, index: int, value: int) -> None:
        self.call("xc_hvm_param_set", index, value)

    def param(self, index: int) -> int:
        value = c.c_uint64()
        self.call("xc_hvm_param_get", index, c.byref(value))
        return value.value

    # -- memory map

    def populate(self, frames: list[int]) -> None:
        """Give it memory at these frames."""
        numbers = (c.c_uint64 * len(frames))(*frames)
        self.call("xc_domain_populate_physmap_exact", len(frames), 0, 0, numbers)

    def depopulate(self, frames: list[int]) -> None:
        """Take the memory at these frames away."""
        numbers = (c.c_uint64 * len(frames))(*frames)
        self.call("xc_domain_decrease_reservation_exact", len(frames), 0, numbers)

    # -- context

    def records(self) -> list[Record]:
        """Its whole HVM context, each CPU record's FPU as the vCPU goes on with it. Raises XenError, or ContextError
        for one that cannot be read."""
        self._info()  # a domain that is gone may have a context yet
        try:
            return context.restored(context.split(self._context()))
        except XenError:
            self._check_alive()
            raise

    def _context(self) -> bytes:
        get = self.libraries.control["xc_domain_hvm_getcontext"]
        length = get(self.domid, None, 0)
        buffer = c.create_string_buffer(length)
        used = get(self.domid, buffer, length)
        return buffer.raw[:used]

    def load(self, *changed: Record) -> None:
        """Replace these records. A vCPU whose CPU record is not loaded with the others would not run any more
        (hvm_load marks all others as down), so those go along as they are."""
        wanted = {(record.code, record.instance): record for record in changed}
        records = [
            wanted.pop((record.code, record.instance), record)
            for record in self.records()
            if record.code in (context.HEADER, context.CPU, context.CPU_XSAVE)
            or (record.code, record.instance) in wanted
        ]
        # A vCPU that never had a state has no CPU record either.
        raw = context.join(context.agreed([*records, *wanted.values()]))
        self.call("xc_domain_hvm_setcontext", raw, len(raw))

    def record(self, code: int, instance: int = 0) -> Record:
        """One record of its context. Raises ContextError where it has none such."""
        for record in self.records():
            if (record.code, record.instance) == (code, instance):
                return record
        raise ContextError(f"domain {self.domid} has no record {code} of instance {instance}")

    def cpu_record(self, cpu: int = 0) -> bytes:
        """The CPU record; that of a vCPU without a state is all zeros."""
        for record in self.records():
            if (record.code, record.instance) == (context.CPU, cpu):
                return record.data
        return bytes(context.CPU_LENGTH)

    def load_cpu_record(self, data: bytes, cpu: int = 0) -> None:
        self.load(Record(context.CPU, cpu, data))

    def xcr0(self, cpu: int = 0) -> int:
        """XCR0 of a vCPU; of one that has never executed XSETBV, which Xen has no record of, as after RESET."""
        return next(
            (context.xcr0(r.data) for r in self.records() if (r.code, r.instance) == (context.CPU_XSAVE, cpu)), 1
        )

    def load_xcr0(self, value: int, cpu: int = 0) -> None:
        """Load XCR0, as far as the host has its components. Raises XenError."""
        if value != self.xcr0(cpu):
            found = (r.data for r in self.records() if (r.code, r.instance) == (context.CPU_XSAVE, cpu))
            self.load(Record(context.CPU_XSAVE, cpu, context.with_xcr0(next(found, b""), value)))

    def cpu_state(self, cpu: int = 0) -> CpuState:
        """The registers of a vCPU of the paused domain."""
        state = context.cpu_state(self.cpu_record(cpu))
        state.halted = "blocked" in self.states()
        return state

    def load_cpu(self, state: CpuState, cpu: int = 0) -> None:
        """Load registers. Whether it halts stays as it is: Xen has no way to say so."""
        record = bytearray(context.with_cpu_state(self.cpu_record(cpu), state))
        # XEN_X86_FPU_INITIALISED: without it Xen resets the FPU
        record[context.FLAGS_OFFSET] |= 1
        self.load_cpu_record(bytes(record), cpu)
