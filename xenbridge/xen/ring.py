"""The monitor of a domain: Xen stops a vCPU at each debug exception and tells of it in a ring that is mapped here.

Sources: Xen 4.17, xen/include/public/vm_event.h (interface version 7) and io/ring.h.
"""

from __future__ import annotations

import ctypes as c
import select
import struct
from typing import Final, NamedTuple

from emu.x86.modes import code_bits
from emu.x86.state import EFER_LMA
from xenbridge.xen import context
from xenbridge.xen.channels import Channels, Patience
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import XenError
from xenbridge.xen.wake import Wake

#: HVM_PARAM_MONITOR_RING_PFN, and a frame for it where nobody has set one: libxc's special page 2.
_RING_PARAM, _RING_FRAME = 28, 0xFEFFA
_PAGE: Final = 0x1000
#: Of the ring: producer and consumer counts, then entries.
_REQ_PROD, _REQ_EVENT, _RSP_PROD, _ENTRIES, _ENTRY_SIZE, _COUNT = 0, 4, 8, 64, 400, 8
#: Of an entry: version, flags, reason, vcpu.
_HEAD: Final = struct.Struct("<4I")
_VERSION, _DEBUG_EXCEPTION = 7, 9
_PAUSED, _SET_REGISTERS = 1 << 0, 1 << 8
#: Of the registers in an entry (struct vm_event_regs_x86): RFLAGS, DR6, DR7, RIP, CR0, CR2, CR3, CR4; EFER; CS base; CS
#: and SS as limits of 20 bits and 12 bits of attributes.
_REGISTERS: Final = 56
_GENERAL: Final = struct.Struct("<16Q")
_RFLAGS: Final = _REGISTERS + 128
_CONTROL: Final = struct.Struct("<8Q")
_EFER, _BASES, _CS, _SS = _REGISTERS + 216, _REGISTERS + 264, _REGISTERS + 296, _REGISTERS + 300
_SEGMENT_BASES: Final = struct.Struct("<4I2Q")  #: CS, SS, DS, ES, FS, GS
#: Of the attributes, as in a CPU record: L and D/B.
_LONG, _BIG = 1 << 20 + 9, 1 << 20 + 10
_LOOK_FOR_LIFE: Final = 0.5


class Event(NamedTuple):
    """A debug exception that the vCPU stands at. `entry` is the ring's; `bits` is the width of the code there, `bases`
    are those of ES, CS, SS, DS, FS and GS."""

    entry: int
    rip: int
    bases: tuple[int, ...]
    rflags: int
    cr0: int
    cr3: int
    cr4: int
    efer: int
    bits: int
    stack_bits: int
    regs: tuple[int, ...]

    @property
    def long64(self) -> bool:
        return self.bits == 64

    @property
    def cs_base(self) -> int:
        return self.bases[1]


class MonitorRing:
    """The monitor of one domain, of which Xen has one. What belongs to a vCPU is about vCPU 0."""

    def __init__(self, domain: Domain) -> None:
        """Raises XenError, as when somebody else monitors the domain."""
        self._domain = domain
        self._channels = Channels(domain.libraries)
        self._port = 0
        self._taken = 0  # requests taken from the ring
        self._proved = self._listens = False
        if not domain.param(_RING_PARAM):
            domain.set_param(_RING_PARAM, _RING_FRAME)
        port = c.c_uint32()
        try:
            self._address = domain.libraries.monitor_enable(domain.domid, c.byref(port))
        except XenError as error:
            self._channels.close()
            raise XenError(f"domain {domain.domid} cannot be stepped: {error}", error.errno) from None
        self._ring = memoryview((c.c_ubyte * _PAGE).from_address(self._address)).cast("B")
        # SHARED_RING_INIT of io/ring.h: the page may be that of a monitor before us.
        struct.pack_into("<4I48x", self._ring, 0, 0, 1, 0, 1)
        try:
            self._port = self._channels.bind(domain.domid, port.value, lambda: None)
        except XenError:
            self.close()
            raise

    def listen(self, on: bool) -> None:
        """Stop the vCPU at debug exceptions, the guest's own included, which it then does not get."""
        if on is self._listens:
            return
        self._domain.call("xc_monitor_debug_exceptions", on, True)
        self._listens = on

    def _word(self, offset: int) -> int:
        return int(struct.unpack_from("<I", self._ring, offset)[0])

    def waiting(self) -> Event | None:
        """The event that has come and was not taken yet, if there is one. Raises XenError for one of another kind."""
        if self._word(_REQ_PROD) == self._taken & 0xFFFFFFFF:
            return None
        at = _ENTRIES + self._taken % _COUNT * _ENTRY_SIZE
        self._taken += 1
        # Xen tells of the next one only when the count passes this.
        struct.pack_into("<I", self._ring, _REQ_EVENT, self._taken + 1 & 0xFFFFFFFF)
        version, _, reason, _ = _HEAD.unpack_from(self._ring, at)
        if (version, reason) != (_VERSION, _DEBUG_EXCEPTION):
            raise XenError(f"Xen tells of an event {reason} in version {version}, not of a step in version {_VERSION}")
        rflags, _, _, rip, cr0, _, cr3, cr4 = _CONTROL.unpack_from(self._ring, _RFLAGS + at)
        efer = int(struct.unpack_from("<Q", self._ring, _EFER + at)[0])
        cs, ss, ds, es, fs, gs = _SEGMENT_BASES.unpack_from(self._ring, _BASES + at)
        code, stack = self._word(_CS + at), self._word(_SS + at)
        bits = 64 if efer & EFER_LMA and code & _LONG else 32 if code & _BIG else 16
        regs = _GENERAL.unpack_from(self._ring, _REGISTERS + at)
        event = Event(
            at, rip, (es, cs, ss, ds, fs, gs), rflags, cr0, cr3, cr4, efer, bits, 32 if stack & _BIG else 16, regs
        )
        if not self._proved:
            self._prove(event)
        return event

    def _prove(self, event: Event) -> None:
        """The layout of an entry is known from a header; what it says of the first is compared with the CPU record."""
        state = context.cpu_state(self._domain.cpu_record())
        bases = tuple(state.segment(name).base & 0xFFFFFFFF for name in ("es", "cs", "ss", "ds"))
        has = state.rip, bases, state.rflags, state.cr0, state.cr3, state.cr4, state.efer, code_bits(state), state.regs
        told = event.rip, event.bases[:4], event.rflags, event.cr0, event.cr3, event.cr4, event.efer, event.bits
        if has != (*told, list(event.regs)):
            raise XenError("Xen's monitor has other registers than the CPU record: its layout is not the one of 4.17")
        self._proved = True

    def wait(self, patience: Patience, wake: Wake | None = None) -> Event | None:
        """The next event; None when none came while there is `patience`, or `wake` was set. Device models of ours are
        served meanwhile. Raises XenError when the domain is gone."""
        domain = self._domain
        channels = (self._channels, *domain.serving)
        poll = select.poll()
        for one in channels:
            poll.register(one.descriptor, select.POLLIN)
        if wake is not None:
            poll.register(wake.descriptor, select.POLLIN)
        while (event := self.waiting()) is None:
            ready = poll.poll(max(int(min(patience.left, _LOOK_FOR_LIFE) * 1000 + 0.999), 0))
            if wake is not None and any(descriptor == wake.descriptor for descriptor, _ in ready):
                return self.waiting()
            for one in channels:
                one.take()
            if not ready:
                if "shutdown" in domain.states():
                    raise XenError(f"domain {domain.domid} has shut down in a step")
                if patience.over:
                    return None
        return event

    def answer(self, event: Event, *, rflags: int | None = None) -> None:
        """The vCPU may go on from the event, when the domain does; with other RFLAGS where they are given."""
        answer = bytearray(self._ring[event.entry : event.entry + _ENTRY_SIZE])
        flags = _PAUSED
        if rflags is not None:
            struct.pack_into("<Q", answer, _RFLAGS, rflags)
            flags |= _SET_REGISTERS
        struct.pack_into("<I", answer, 4, flags)
        put = self._word(_RSP_PROD)
        slot = _ENTRIES + put % _COUNT * _ENTRY_SIZE
        self._ring[slot : slot + _ENTRY_SIZE] = bytes(answer)
        struct.pack_into("<I", self._ring, _RSP_PROD, put + 1 & 0xFFFFFFFF)
        self._channels.notify(self._port)

    def close(self) -> None:
        """Let go. A domain that is gone is no error."""
        for step in (self._off, self._unbind):
            try:
                step()
            except XenError:
                continue
        self._channels.close()
        self._ring.release()
        libc = c.CDLL(None)
        libc.munmap.argtypes = (c.c_void_p, c.c_size_t)
        libc.munmap(self._address, _PAGE)

    def _off(self) -> None:
        self._domain.libraries.control["xc_monitor_disable"](self._domain.domid)

    def _unbind(self) -> None:
        if self._port:
            self._channels.unbind(self._port)
            self._port = 0
