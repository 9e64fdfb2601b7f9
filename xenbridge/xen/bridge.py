"""The bridge to a real Xen, which has no call for a request: the guest's own vCPU is borrowed to make the access.

Its registers are saved and it runs parking.asm, where it waits in an access to a port of ours, using no CPU. A request
is the answer to that access; an interrupt is an access to another such port, whose event channel raises SIGIO.
"""

from __future__ import annotations

import contextlib
import enum
import struct
import time
from collections.abc import Callable, Sequence
from typing import Final

from emu.x86.state import RFLAGS_IF, CpuState
from xenbridge.bridge import TIMER_AND_LAPIC, BridgeError, Owned
from xenbridge.ioreq import Ioreq, Type
from xenbridge.service import Service
from xenbridge.xen import context
from xenbridge.xen.channels import Channels, Patience, take_any
from xenbridge.xen.context import Record
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import XenError
from xenbridge.xen.memory import WRITE, Pages
from xenbridge.xen.parking import BASE, BELL, BOX, DOOR, FRAMES, code, parked_state
from xenbridge.xen.server import IoreqServer, pause_between_accesses
from xenbridge.xen.unacknowledge import behind_cascade, gives_way, put_back, service_of

_ADDRESS, _VALUE, _VECTOR, _WOKEN, _ANSWER = (BOX + 4 * index for index in range(5))
_NOTHING, _LISTEN, _LEAVE, _CPUID, _COPY = 0, 13, 14, 15, 16
#: By kind of access and its direction; the size's position follows.
_DOES: Final = {(Type.PIO, True): 1, (Type.PIO, False): 4, (Type.COPY, True): 7, (Type.COPY, False): 10}
_SIZES: Final = {1: 0, 2: 1, 4: 2}
#: Seconds that the vCPU may take for what it is asked to do; under emulation it takes milliseconds.
PATIENCE: Final = 10.0
#: Seconds without an event after which it is asked whether the domain is still there.
_LOOK_FOR_LIFE: Final = 0.5
#: Seconds between two looks at whether the vCPU has halted, which raises no event.
_LOOK: Final = 0.0005
#: What a port that is ours gives to a guest that reads it by itself.
_NOBODY: Final = 0xFF
#: Xen's own devices besides the timer and the LAPIC: all of them are reached the same way.
OWNED: Final = (
    *TIMER_AND_LAPIC,
    Owned("pic0", Type.PIO, 0x20, 0x21),
    Owned("pic1", Type.PIO, 0xA0, 0xA1),
    Owned("elcr", Type.PIO, 0x4D0, 0x4D1),
    Owned("rtc", Type.PIO, 0x70, 0x71),
    Owned("ioapic", Type.COPY, 0xFEC00000, 0xFEC00FFF),
    Owned("hpet", Type.COPY, 0xFED00000, 0xFED003FF),
)


class _At(enum.Enum):
    """Where the vCPU is."""

    GUEST = "guest"  #: in the guest's code, or paused there
    DOOR = "door"
    LISTENING = "listening"


class XenBridge:
    """Borrows vCPU 0 of a domain that has only one; see `xenbridge.bridge.Bridge`.

    `close` gives the vCPU back and takes all that is ours out of the domain."""

    def __init__(self, domain: Domain) -> None:
        """Raises BridgeError for a domain with more than one vCPU: the others would run while one is borrowed."""
        if (count := domain.vcpus()) != 1:
            raise BridgeError(f"domain {domain.domid} has {count} vCPUs: the bridge borrows the only one of a domain")
        self._domain = domain
        self.requests = self._events = 0
        self._doors, self._bells = Channels(domain.libraries), Channels(domain.libraries)
        self._door: IoreqServer | None = None
        self._bell: IoreqServer | None = None
        self._pages: Pages | None = None
        self._ring = 0  # the port by which whoever waits for interrupts is told to look
        self._at = _At.GUEST
        self._at_door = self._at_bell = False
        self._wanted = False  # somebody wants to hear of interrupts
        self._vector: int | None = None
        self._came: int | None = None  # what has been acknowledged beside it, or before anything was in hand
        self._service: Service | None = None  # where the vector in hand is; None: nobody has asked
        self._deaf = False  # where the service is known: the cascade's hides others, see `deaf`
        self._rose = False  # somebody may ask beside the vector in hand
        self._record = b""
        self._halted = self._shadow = False
        self._closed = False

    @property
    def owned(self) -> tuple[Owned, ...]:
        return OWNED

    @property
    def descriptor(self) -> int:
        return self._bells.descriptor

    @property
    def channels(self) -> tuple[Channels, ...]:
        """What is to be served while the vCPU is the guest's: it may access our ports by itself."""
        return self._doors, self._bells

    @property
    def borrowed(self) -> bool:
        return self._at is not _At.GUEST

    @property
    def events(self) -> int:
        """Interrupts that were acknowledged."""
        self.arrived()
        return self._events

    # -- the guest's registers meanwhile

    @property
    def record(self) -> bytes:
        """The CPU record that they are in; its TSC is that of the moment at which the vCPU was borrowed."""
        return self._record

    def cpu_state(self) -> CpuState:
        """The guest's registers, which are not in the vCPU while it is borrowed."""
        state = context.cpu_state(self._record)
        state.halted = self._halted
        return state

    def load_cpu(self, state: CpuState) -> None:
        self._record = context.with_cpu_state(self._record, state)
        self._shadow, self._halted = state.shadow, state.halted

    # -- borrowing

    def _set_up(self) -> None:
        """Pages and servers, once for a domain."""
        if self._door is not None:
            return
        domain = self._domain
        domain.populate(FRAMES)
        domain.memory.write(BASE, code())
        self._pages = Pages(domain.libraries, domain.domid, FRAMES[:1], WRITE)
        self._door = IoreqServer(domain, self._doors, self._knocked)
        self._door.claim(Type.PIO, DOOR, DOOR)
        self._bell = IoreqServer(domain, self._bells, self._rung)
        self._bell.claim(Type.PIO, BELL, BELL)
        self._ring = self._bells.bell()
        while self._bells.take():  # a channel has an event when it is bound, which is about nothing
            pass

    def _knocked(self, request: Ioreq) -> None:
        if self.borrowed:
            self._at_door = True
        elif self._door is not None:
            self._door.answer(_NOBODY)

    def _rung(self, request: Ioreq) -> None:
        if self.borrowed:
            self._at_bell = True
            self._events += 1
        elif self._bell is not None:
            self._bell.answer(_NOBODY)

    def _word(self, offset: int) -> int:
        assert self._pages is not None
        return int(struct.unpack_from("<I", self._pages.view, offset)[0])

    def _put(self, offset: int, value: int) -> None:
        assert self._pages is not None
        struct.pack_into("<I", self._pages.view, offset, value)

    def borrow(self) -> None:
        """See Bridge. The domain is paused for a moment; an NMI of ours wakes a vCPU that halts."""
        if self.borrowed:
            raise BridgeError(f"the vCPU of domain {self._domain.domid} has been borrowed already")
        domain = self._domain
        try:
            self._still()
            self._park(domain.cpu_record(), "blocked" in domain.states())
            if self._halted:
                domain.send_nmi()
            domain.resume()
            if self._halted:
                self._until_woken()
            else:
                self._until_door()
        except XenError as error:
            raise BridgeError(str(error)) from None

    def borrow_amid(self, state: CpuState, finish: Callable[[], None]) -> None:
        """As `borrow`, of a paused vCPU in an IN or OUT that `finish` answers: Xen finishes it in registers of ours.
        `state` is the guest's behind it."""
        try:
            self._park(context.with_cpu_state(self._domain.cpu_record(), state), halted=False)
            finish()
            self._domain.resume()
            self._until_door()
        except XenError as error:
            raise BridgeError(str(error)) from None

    def _park(self, record: bytes, halted: bool) -> None:
        """Load the paused vCPU with registers of ours; those of the guest are `record`."""
        self._set_up()
        event = int(struct.unpack_from("<I", record, context.PENDING_OFFSET)[0])
        self._record, self._halted, self._shadow = context.without_event(record), halted, False
        self._at_door = self._at_bell = self._wanted = self._rose = False
        self._came, self._service = None, None
        # Xen was about to deliver it: it is acknowledged, and nothing of it has happened to the guest.
        self._vector = event & 0xFF if event & context.PENDING_KIND == context.PENDING_VALID else None
        self._put(_WOKEN, 0)
        self._domain.load_cpu_record(context.without_event(context.with_cpu_state(record, parked_state())))
        self._at = _At.LISTENING if halted else _At.DOOR

    def _still(self) -> None:
        """Pause the domain where no access of the guest waits for a device model."""
        if not pause_between_accesses(self._domain, PATIENCE):
            raise BridgeError(f"domain {self._domain.domid} waits for its device model, which does not answer")

    def _until(self, met: Callable[[], bool], channels: Sequence[Channels], what: str) -> None:
        """Wait for events until `met`. A domain that is destroyed raises none, so it is looked at now and then."""
        patience = Patience(PATIENCE)
        while not met():
            if not take_any((*channels, *self._others()), _LOOK_FOR_LIFE):
                states = self._domain.states()
                if "shutdown" in states:
                    raise BridgeError(f"domain {self._domain.domid} has shut down while its vCPU was borrowed")
                if patience.over:
                    raise BridgeError(f"the borrowed vCPU of domain {self._domain.domid} did not {what}")

    def _others(self) -> list[Channels]:
        """Those of the domain's device models that are ours, which are served meanwhile."""
        mine = (self._doors, self._bells)
        return [server.channels for server in self._domain.servers if server.channels not in mine]

    def _load(self, *records: Record) -> None:
        """Load records of the domain. A vCPU that stands at the door begins its code anew, as with the load it loses
        what the access there is answered."""
        if self._at is not _At.DOOR:
            self._domain.load(*records)
            return
        parked = context.with_cpu_state(self._domain.cpu_record(), parked_state())
        self._domain.load(*records, Record(context.CPU, 0, context.without_event(parked)))
        self._do(_NOTHING)
        self._until_door()

    def _until_door(self) -> None:
        """Wait until the vCPU stands at the door."""
        self._until(lambda: self._at_door, (self._doors,), "come back")
        self._at = _At.DOOR

    def _do(self, what: int) -> None:
        assert self._door is not None
        self._at_door = False
        self._door.answer(what)

    # -- requests

    def submit(self, request: Ioreq) -> int:
        """See Bridge."""
        if not any(owned.holds(request) for owned in OWNED):
            space = "port" if request.type is Type.PIO else "address"
            raise BridgeError(f"{space} {request.address:#x} is no device of the hypervisor")
        return self.submit_any(request)

    def submit_any(self, request: Ioreq) -> int:
        """As `submit`, for a device of anybody: one of a device model is answered by that."""
        if not self.borrowed:
            raise BridgeError(f"the vCPU of domain {self._domain.domid} is the guest's: nothing can be requested now")
        size = _SIZES.get(request.size)
        if size is None or request.indirect or request.count != 1:
            raise BridgeError("a request is for one element of 1, 2 or 4 bytes")
        try:
            self._call_back()
            value = self._access(request, size)
            self._hear()
        except XenError as error:
            raise BridgeError(str(error)) from None
        return value

    def _access(self, request: Ioreq, size: int) -> int:
        """Have the vCPU, which is at the door, make it."""
        self._put(_ADDRESS, request.address)
        self._put(_VALUE, request.data & request.mask)
        self._do(_DOES[request.type, request.reads] + size)
        self._until_door()
        self.requests += 1
        return self._word(_VALUE) & request.mask if request.reads else 0

    def cpuid(self, leaf: int, part: int) -> tuple[int, int, int, int]:
        """EAX, EBX, ECX and EDX that the guest's CPUID gives for EAX and ECX. Raises BridgeError."""
        assert self._pages is not None
        try:
            self._call_back()
            self._put(_ADDRESS, part)
            self._put(_VALUE, leaf)
            self._do(_CPUID)
            self._until_door()
            eax, ebx, ecx, edx = struct.unpack_from("<4I", self._pages.view, _ANSWER)
            self._hear()
        except XenError as error:
            raise BridgeError(str(error)) from None
        return eax, ebx, ecx, edx

    def copy(self, address: int) -> None:
        """Have it write two bytes to memory from `address` on by a repeated MOVS. Raises BridgeError."""
        try:
            self._call_back()
            self._put(_ADDRESS, address)
            self._do(_COPY)
            self._until_door()
            self._hear()
        except XenError as error:
            raise BridgeError(str(error)) from None

    # -- events

    def listen(self, on: bool) -> None:
        """See Bridge."""
        self._wanted = on
        try:
            if on:
                self._hear()
            else:
                self._call_back()
        except XenError as error:
            raise BridgeError(str(error)) from None

    def _hear(self) -> None:
        """Let the vCPU wait for an interrupt, if one is wanted; beside one that waits to be taken, for a higher one."""
        if self._wanted and self._at is _At.DOOR and (self._vector is None or self._holds_lower_ones()):
            self._put(_WOKEN, 0)
            self._do(_LISTEN)
            self._at = _At.LISTENING

    def _holds_lower_ones(self) -> bool:
        """Xen gives nothing below the vector in hand, which is in service."""
        return self._serves() is not Service.NONE

    def _serves(self) -> Service:
        """Where the vector in hand is in service."""
        assert self._vector is not None
        if self._service is None:
            records = self._domain.records()
            self._service = service_of(records, self._vector)
            self._deaf = behind_cascade(records, self._vector)
        return self._service

    @property
    def deaf(self) -> bool:
        """The vCPU does not hear of all that comes before the vector in hand: beside one that is not in service it does
        not listen, and by the cascade's service it hears of no other of the slave's. Of Xen's timers and clock no line
        of the machine's tells, so somebody has to look. Raises BridgeError."""
        try:
            if self._vector is None:
                return False
            service = self._serves()
            return service is Service.NONE or (service is Service.PIC and self._deaf)
        except XenError as error:
            raise BridgeError(str(error)) from None

    def doubt(self) -> None:
        """Have `look` see whether another comes before the vector in hand by now. A vCPU that does not listen is sent
        through its code for that: Xen's timers ask at entries alone (pt_update_irq, xen/arch/x86/hvm/vpt.c of 4.17).
        Raises BridgeError."""
        self._rose = True
        if self._at is _At.DOOR:
            try:
                self._do(_NOTHING)
                self._until_door()
            except XenError as error:
                raise BridgeError(str(error)) from None

    def _answer_bell(self) -> None:
        """The vCPU is at the bell: learn the vector, and send it to the door."""
        assert self._bell is not None
        self._came, self._at_bell = self._word(_VECTOR), False
        self._bell.answer()
        self._until_door()

    def _decide(self) -> None:
        """Of what has come and what was in hand, which is lower, one is to be in hand. The vCPU is at the door, and no
        NMI is on its way to it, which would end an access that it makes.

        Xen is to say it, which gives what the 8259 has before all of the local APIC (hvm_vcpu_has_pending_irq,
        xen/arch/x86/hvm/irq.c of 4.17): so both are requested again, last come first, as an EOI ends the highest."""
        came, self._came = self._came, None
        if came is None:
            return
        kept = self._vector
        if kept is None:
            self._vector, self._service = came, None
            self._rose = True  # as one may have done before it was in hand
            return
        of_lapic = service_of(self._domain.records(), came) is Service.LAPIC
        self._unacknowledge(came)
        if of_lapic and self._service is Service.PIC:
            self._service = Service.NONE  # or it would come again at once
            return
        self._unacknowledge(kept)
        self._vector = None

    def _decide_again(self) -> None:
        """Somebody asks beside the vector in hand. Where that is not in service, or holds back the slave's further
        requests by the cascade, the vCPU hears of nothing: it is requested again if another is to be the first."""
        rose, self._rose = self._rose, False
        if not rose or self._vector is None:
            return
        if gives_way(self._domain.records(), self._vector):
            self.put_back()

    def _unacknowledge(self, vector: int) -> None:
        put_back(self._domain, lambda one: self._access(one, _SIZES[one.size]), self._load, vector)

    def _call_back(self) -> None:
        """Have the vCPU at the door. An interrupt may come first, and is kept."""
        if self._at is _At.LISTENING:
            while self._bells.take():
                pass
            if self._at_bell:
                self._answer_bell()
                self._decide()
                return
            self._domain.send_nmi()
            self._until_woken()

    def _until_woken(self) -> None:
        """Wait for our NMI. An interrupt may come before it; then the NMI finds the vCPU at the door, in an access that
        is answered with nothing to do for it to be taken."""
        while not (self._at_door and self._word(_WOKEN)):
            if self._at_door:
                self._do(_NOTHING)
            self._until(lambda: self._at_door or self._at_bell, (self._doors, self._bells), "wake")
            if self._at_bell:
                self._answer_bell()
        self._at = _At.DOOR
        self._decide()

    def arrived(self) -> bool:
        """An interrupt has come since `listen`, and `take` or `give_back` will have it. A descriptor that can be read
        may be about nothing."""
        while self.borrowed and not self._at_bell and self._bells.take():
            pass
        return self._at_bell or self._vector is not None

    def rose(self) -> None:
        """Somebody asks for an interrupt by a line, of which a vCPU that has one in hand may not hear: whoever waits at
        the descriptor looks. From any thread. Raises XenError."""
        if self._vector is not None and not self._rose and self._ring:
            self._rose = True
            self._bells.notify(self._ring)

    def take(self) -> int | None:
        """See Bridge."""
        try:
            vector = self._vector_that_came() if self._vector is None else self._vector
            self._vector = None
            self._hear()
        except XenError as error:
            raise BridgeError(str(error)) from None
        return vector

    def _vector_that_came(self) -> int | None:
        """Without waiting: a vCPU that listens goes on listening."""
        if self.arrived() and self._at_bell:
            self._answer_bell()
            self._decide()
        return self._vector

    def put_back(self) -> None:
        """See MachineBridge. Raises BridgeError."""
        if not self.borrowed:
            return
        try:
            self._call_back()
            vector, self._vector = self._vector, None
            if vector is not None:
                self._unacknowledge(vector)
        except XenError as error:
            raise BridgeError(str(error)) from None

    # -- giving back

    def give_back(self, *, halted: bool | None = None, paused: bool = False, time_stamp: int | None = None) -> None:
        """See Bridge; without `halted` it is as it was, or as `load_cpu` has it. With `paused` it does not run yet.
        `time_stamp`: the TSC; without it, it has gone on."""
        if not self.borrowed:
            return
        domain = self._domain
        halts = self._halted if halted is None else halted
        try:
            self._call_back()
            if not self._interruptible:
                self.put_back()
            if halts and self._vector is None:
                halts = self._halt()
            else:
                halts = False
                self._leave()
            domain.pause()
            record = bytearray(self._record)
            # What the vCPU has now is what the guest would read.
            tsc = slice(context.TSC_OFFSET, context.TSC_OFFSET + 8)
            record[tsc] = domain.cpu_record()[tsc] if time_stamp is None else time_stamp.to_bytes(8, "little")
            if self._vector is not None:
                struct.pack_into("<I", record, context.PENDING_OFFSET, context.PENDING_VALID | self._vector)
                self._vector = None
            domain.load_cpu_record(bytes(record))
            self._at = _At.GUEST
            if not paused:
                domain.resume()
        except XenError as error:
            raise BridgeError(str(error)) from None

    @property
    def _interruptible(self) -> bool:
        return bool(struct.unpack_from("<Q", self._record, context.RFLAGS_OFFSET)[0] & RFLAGS_IF) and not self._shadow

    def _leave(self) -> None:
        """Out of the read at the door, which Xen would finish in the registers that are loaded next, into a write,
        which it finishes in none. It is paused there."""
        self._do(_LEAVE)
        self._until_door()
        self._domain.pause()
        assert self._door is not None
        self._door.answer()

    def _halt(self) -> bool:
        """Have the vCPU halt in code of ours, so that it halts in the guest's too: Xen has no way to say so. False
        where an interrupt came first, which is kept."""
        self._wanted = True
        self._hear()
        self._wanted = False
        patience = Patience(PATIENCE)
        while True:
            while self._bells.take():
                pass
            if self._at_bell:
                self._answer_bell()
                self._decide()
                self._leave()
                return False
            if "blocked" in self._domain.states():
                self._domain.pause()
                if "blocked" in self._domain.states():
                    return True
                # Something woke it before the pause: an interrupt, which is on its way to the bell, or a tick that is
                # masked, behind which it halts again (pt_timer_fn of Xen 4.17 kicks the vCPU whatever the mask is).
                self._domain.resume()
            if patience.over:
                raise BridgeError(f"the borrowed vCPU of domain {self._domain.domid} did not halt")
            time.sleep(_LOOK)

    def close(self) -> None:
        """Give the vCPU back, paused if it was borrowed, and take our pages and ports out of the domain."""
        if self._closed:
            return
        self._closed = True
        gone = False
        try:
            self.give_back(paused=True)
        except BridgeError:
            gone = True
        for server in (self._door, self._bell):
            if server is not None:
                server.close()
        self._door = self._bell = None
        if self._pages is not None:
            self._pages.close()
            self._pages = None
            if not gone:
                with contextlib.suppress(XenError):  # of a domain that was destroyed when the guest had the vCPU
                    self._domain.depopulate(FRAMES)
        self._doors.close()
        self._bells.close()
