"""The bridge to the LAPIC, PIC, I/O APIC and PIT in Linux's KVM, by its vCPU 0, which is borrowed from the guest.

KVM has no call for an access on a guest's behalf. While the emulator has the guest its vCPU has nothing to do: it is
given the code of xenbridge.kvm.parked, where one KVM_RUN makes one access, by KVM's own devices, with all their side
effects. To hear of interrupts a thread has it halt there with interrupts on; KVM prioritises and acknowledges, the
vector's stub says the vector, and a byte in a pipe, which raises SIGIO, tells whoever the guest belongs to.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import threading
from collections.abc import Sequence
from typing import Final

from emu.devices.lapic import EXTINT, MASKED
from emu.devices.pic8259_chip import ICW1
from emu.engine import MemoryRegion
from emu.layout import PIC_MASTER, PIC_SLAVE
from emu.x86.cpuid import MODELS, CpuModel
from emu.x86.msrs import APIC_BASE
from emu.x86.state import RFLAGS_IF, CpuState
from xenbridge.bridge import TIMER_AND_LAPIC, BridgeError, Devices, Owned
from xenbridge.ioreq import DATA_OFFSET, LAYOUT, Ioreq, State, Type, unpack
from xenbridge.kvm import abi, parked
from xenbridge.kvm.abi import KvmError, ioctl
from xenbridge.kvm.cpuid import cpuid_entries
from xenbridge.kvm.devices import ioapic_state, lapic_state, pic_state, pit_state
from xenbridge.kvm.kick import SIGNAL
from xenbridge.kvm.requests import MASKS, make_requests
from xenbridge.kvm.unacknowledge import drop_spurious, put_back, service_of, shows_in_service, slave_asks
from xenbridge.kvm.vcpu import AT_INJECTED, INTERRUPTED, Vcpu
from xenbridge.kvm.vm import Slot, Vm, slots_of
from xenbridge.service import Service

OWNED: Final = (
    *TIMER_AND_LAPIC,
    Owned("pic0", Type.PIO, 0x20, 0x21),
    Owned("pic1", Type.PIO, 0xA0, 0xA1),
    Owned("elcr", Type.PIO, 0x4D0, 0x4D1),
    Owned("ioapic", Type.COPY, 0xFEC00000, 0xFEC000FF),
)
LINES: Final = 24
#: Calls the thread that listens back. Another one than that of a guest's own vCPU, which may be pending in a thread
#: that makes requests.
CALL: Final = SIGNAL + 1
#: Seconds that the vCPU may take to come back when it is called.
PATIENCE: Final = 10.0
#: RIP and RFLAGS alone.
_PLACE, _PLACE_AT = struct.Struct("<2Q"), abi.AT_REGS + abi.Regs.rip.offset
_WORD: Final = struct.Struct("<Q")
_RSP_AT: Final = abi.AT_REGS + abi.Regs.rsp.offset
_RESERVED_FLAG: Final = 2
LAPIC_ID, LINT0 = 0x20, 0x350  #: offsets in the local APIC's page (SDM vol. 3A, table 11-1)
_OPEN: Final = (EXTINT << 8).to_bytes(4, "little")
_TOLD: Final = b"\1"
_COMMAND, _COMMANDS = PIC_MASTER, 0xFF ^ PIC_MASTER ^ PIC_SLAVE  #: what both ports have, in which bits
_MOST: Final = 64  #: bytes read at a time, more than ever wait


def _refusal(request: Ioreq) -> BridgeError:
    """What is wrong with a request that was not made."""
    if not any(owned.holds(request) for owned in OWNED):
        space = "port" if request.type is Type.PIO else "address"
        return BridgeError(f"{space} {request.address:#x} is no device of the hypervisor")
    if request.size not in MASKS or request.indirect or request.count != 1:
        return BridgeError("a request is for one element of 1, 2 or 4 bytes")
    return BridgeError(f"a request is handed over in state {State.READY}, and this one is in state {request.state}")


class KvmBridge:
    """A virtual machine whose interrupt controllers and timer are in the kernel; see `xenbridge.bridge.MachineBridge`.

    Its vCPU is the guest's until `borrow`. Raises KvmError where it cannot be had. `close` ends it."""

    def __init__(
        self, regions: Sequence[MemoryRegion] = (), model: CpuModel | None = None, *, reinject: bool = False,
        wired: bool = False,
    ) -> None:  # fmt: skip
        """`regions`: the guest's memory, for one that runs natively too. `reinject`: see Vm.add_devices. `wired`: the
        8259 leads to the CPU without a local APIC between, as on an isapc."""
        #: what the borrowed vCPU executes
        self.parked_code = parked.code()
        self._page = ctypes.c_uint8.from_buffer(self.parked_code)
        self.vm = Vm()
        try:
            self.vm.add_devices(reinject=reinject)
            self.cpu = Vcpu(self.vm, cpuid_entries(model or MODELS["max"].with_apic()))
        except KvmError:
            self.vm.close()
            raise
        self._initial, self._initial_lapic = self.vm.kept(), abi.LapicState()
        self._lapic_as_made(wired)
        host = ctypes.addressof(self._page)
        self.vm.place((*slots_of(regions, a20=True), Slot(parked.BASE, parked.SIZE, host, False)))
        # CALL ends KVM_RUN and stays pending, as it is blocked outside, and it alone: a signal to the vCPU of a guest
        # on the same thread would end each of our entries. struct kvm_signal_mask: the length, and what is blocked.
        blocked = (1 << 64) - 1 & ~(1 << CALL - 1)
        ioctl(self.cpu.fd, "SET_SIGNAL_MASK", ctypes.create_string_buffer(struct.pack("<IQ", 8, blocked)))
        self._page_of_run = self.cpu.page
        self._shows = self._tried()  # the local APIC shows what is in service
        self.made_by = make_requests(self.cpu, OWNED)  #: what makes the accesses
        self._make = self.made_by.make
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.events = 0  #: interrupts acknowledged
        self.calls = 0  #: how often the vCPU was called back while it waited for one
        self._borrowed = self._wanted = self._listening = False
        self._state = CpuState()
        self._halted = False
        self._vector: int | None = None
        self._service = Service.NONE  # where the vector in hand is in service; NONE: nothing is heard beside it
        self._came: int | None = None  # what the thread leaves
        self._rose = False  # a line, while a vector is in hand
        self._error = ""
        self._called = False  # the thread is to come back
        self._lines = threading.Lock()  # a chip that is read, changed and written is not driven meanwhile
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._ends = False
        self._thread = threading.Thread(target=self._listener, name="v2e-kvm-bridge", daemon=True)
        self._thread.start()

    def _lapic_as_made(self, wired: bool) -> None:
        """The local APIC as RESET leaves it. KVM's of the first vCPU lets the 8259 through at LINT0, for firmware that
        does not ask for it (KVM_X86_QUIRK_LINT0_REENABLED), where a CPU's masks it (SDM vol. 3A, 11.4.7.1)."""
        page = self._initial_lapic
        ioctl(self.cpu.fd, "GET_LAPIC", page)
        page.regs[LINT0 : LINT0 + 4] = _OPEN if wired else MASKED.to_bytes(4, "little")
        ioctl(self.cpu.fd, "SET_LAPIC", page)

    def _tried(self) -> bool:
        self.cpu.finish(lambda reason: None)
        state = self.cpu.state()
        self._load(parked.parked(state))
        shows = shows_in_service(self.cpu)
        self._load(state)
        return shows

    @property
    def owned(self) -> tuple[Owned, ...]:
        return OWNED

    @property
    def descriptor(self) -> int:
        return self._reader

    @property
    def lines(self) -> int:
        return LINES

    @property
    def borrowed(self) -> bool:
        return self._borrowed

    @property
    def requests(self) -> int:
        """Accesses made."""
        return self.made_by.made

    # -- the guest's registers meanwhile

    def cpu_state(self) -> CpuState:
        """The guest's registers, which are not in the vCPU while it is borrowed."""
        state = self._state.copy()
        state.halted = self._halted
        return state

    def load_cpu(self, state: CpuState) -> None:
        """What the guest goes on with when it is given the vCPU back."""
        self._state, self._halted = state.copy(), state.halted

    # -- borrowing

    def borrow(self) -> None:
        """See Bridge. The vCPU must not be running."""
        if self._borrowed:
            raise BridgeError("the vCPU has been borrowed already")
        try:
            mode = ctypes.c_uint32()
            ioctl(self.cpu.fd, "GET_MP_STATE", mode)
            self.cpu.finish(lambda reason: None)
            self._state, self._halted = self.cpu.state(), mode.value == abi.HALTED
            if self._halted:
                ioctl(self.cpu.fd, "SET_MP_STATE", ctypes.c_uint32(abi.RUNNABLE))
            self._load(parked.parked(self._state))
        except KvmError as error:
            raise BridgeError(str(error)) from None
        self._borrowed, self._wanted, self._vector, self._came = True, False, None, None

    def _load(self, state: CpuState) -> None:
        """Registers for the vCPU, with the kernel's APIC base and task priority, which are the local APIC's."""
        live = self.cpu.live
        state.cr8, state.msrs[APIC_BASE] = live.cr8, self.cpu.apic_base
        self.cpu.load(state)

    def give_back(self, *, halted: bool | None = None) -> None:
        """See Bridge; without `halted` it is as it was, or as `load_cpu` has it."""
        if not self._borrowed:
            return
        halts = self._halted if halted is None else halted
        self.listen(False)
        try:
            state = self._state
            if self._vector is not None and not (state.rflags & RFLAGS_IF and not state.shadow):
                self.put_back()
            self._load(state.copy())
            if self._vector is not None:
                self.cpu.inject(self._vector)
                self._vector = None
                self._told()
                halts = False
            if halts:
                ioctl(self.cpu.fd, "SET_MP_STATE", ctypes.c_uint32(abi.HALTED))
        except KvmError as error:
            raise BridgeError(str(error)) from None
        self._borrowed = False

    # -- requests

    def submit(self, request: Ioreq) -> int:
        """See Bridge."""
        data: int = LAYOUT.unpack(self.exchange(request.pack()))[1]
        return data

    def exchange(self, raw: bytes) -> bytes:
        """As `submit`, of the 32 bytes of a request; those of its answer."""
        if self._listening:
            self._call_back()
        elif not self._borrowed:
            raise BridgeError("the vCPU is the guest's: nothing can be requested now")
        answer: bytes = self._make(raw)
        refused = answer.__class__ is not bytes
        if refused:
            self.made_by.unanswered(answer)
        elif raw[0] & _COMMANDS == _COMMAND and raw[DATA_OFFSET] & ICW1 and self._is_command(raw):
            with self._lines:
                self.vm.drive_int()
        if self._wanted:
            self._hear()
        if refused:
            raise _refusal(unpack(raw))
        return answer

    @staticmethod
    def _is_command(raw: bytes) -> bool:
        """A write to the port of an 8259's ICW1."""
        request = unpack(raw)
        return request.type is Type.PIO and not request.reads and request.address in (PIC_MASTER, PIC_SLAVE)

    def set_line(self, irq: int, level: bool) -> None:
        """See MachineBridge. From any thread."""
        if not 0 <= irq < LINES:
            raise BridgeError(f"interrupt line {irq} does not exist: there are 0 to {LINES - 1}")
        with self._lines:
            self.vm.set_line(irq, level)
        if level and self._vector is not None and not self._rose:
            self._rose = True  # what the vCPU may not hear of: see `look`
            os.write(self._writer, _TOLD)

    def replace_timer(self, on: bool) -> None:
        """See PcBridge."""
        self.put_back()
        try:
            with self._lines:
                if self.vm.replace_timer(on) and on and (pic := self.vm.pic(0)).irr & 1:
                    pic.irr &= ~1 & 0xFF
                    self.vm.set_pic(0, pic)
        except KvmError as error:
            raise BridgeError(str(error)) from None
        self._hear()

    def init_lapic(self, *, off: bool = False) -> None:
        """See PcBridge. Not by KVM's own IA32_APIC_BASE, with which it would answer no request for the page."""
        self.put_back()
        page, initial = abi.LapicState(), bytes(self._initial_lapic.regs)
        try:
            ioctl(self.cpu.fd, "GET_LAPIC", page)
            number = bytes(page.regs[LAPIC_ID : LAPIC_ID + 4])
            page.regs[:] = initial
            page.regs[LAPIC_ID : LAPIC_ID + 4] = number
            if off:
                page.regs[LINT0 : LINT0 + 4] = _OPEN
            ioctl(self.cpu.fd, "SET_LAPIC", page)
        except KvmError as error:
            raise BridgeError(str(error)) from None
        self._hear()

    # -- as a whole

    def devices(self, now: int) -> Devices:
        """See MachineBridge. A vCPU that waits for an interrupt is called back for the moment."""
        self._call_back()
        page = abi.LapicState()
        try:
            ioctl(self.cpu.fd, "GET_LAPIC", page)
            pit, port61 = pit_state(self.vm.pit(), now)
            pic, ioapic = pic_state(self.vm.pic(0), self.vm.pic(1)), ioapic_state(self.vm.ioapic())
        except KvmError as error:
            raise BridgeError(str(error)) from None
        self._hear()
        return Devices(pic, lapic_state(bytes(page.regs), self.cpu.apic_base, now), ioapic, pit, port61)

    def reset(self) -> None:
        """See MachineBridge: as they were when they were made."""
        self.put_back()
        try:
            self.vm.restore(self._initial)
            ioctl(self.cpu.fd, "SET_LAPIC", self._initial_lapic)
        except KvmError as error:
            raise BridgeError(str(error)) from None
        self._hear()

    # -- events

    def listen(self, on: bool) -> None:
        """See Bridge."""
        self._wanted = on
        if on:
            self._hear()
        else:
            self._call_back()

    def _hear(self) -> None:
        """Let the vCPU wait for an interrupt, if one is wanted; beside one that waits to be taken, for a higher one."""
        hears = self._vector is None or self._service is not Service.NONE
        if self._borrowed and self._wanted and hears and not self._listening:
            self._listening = True
            self._go.release()

    def _call_back(self) -> None:
        """Have the vCPU at rest, the thread waiting. An interrupt may come first, and is kept."""
        if not self._listening:
            return
        self._called = True
        self.calls += 1
        # Not by immediate_exit, with which KVM would not look whether an interrupt waits, however long it has.
        assert self._thread.ident is not None
        signal.pthread_kill(self._thread.ident, CALL)
        self._come_back()

    def _come_back(self) -> None:
        """The thread gives the vCPU back."""
        if not self._back.acquire(timeout=PATIENCE):
            raise BridgeError(f"the borrowed vCPU did not come back in {PATIENCE:.0f} s")
        self._is_back()

    def _is_back(self) -> None:
        """The vCPU is at rest, and what it has left is taken over."""
        self._called = self._listening = False
        if self._error:
            raise BridgeError(self._error)
        came, self._came = self._came, None
        if came is None:
            return
        try:
            self._decide(came)
        except KvmError as error:
            raise BridgeError(str(error)) from None

    def _decide(self, came: int) -> None:
        """Keep `came`, or what is in hand, which is in service, so that KVM gives nothing below it: `came` is higher.
        But what the 8259 has comes before all of the local APIC (Linux, arch/x86/kvm/irq.c: kvm_cpu_get_interrupt)."""
        kept = self._vector
        found = service_of(self.vm, self.cpu.fd, came)
        if kept is None:
            self._vector, self._service = came, found
        elif found is Service.LAPIC and self._service is Service.PIC:
            self._unacknowledge(came)
            self._service = Service.NONE  # or it would come again at once
        else:
            self._unacknowledge(kept)
            self._vector, self._service = came, found
        self._rose = self._service is Service.PIC  # one may have come before it was in hand

    def take(self) -> int | None:
        """See Bridge. Without waiting: a vCPU that listens goes on listening."""
        vector = self.look() if self._vector is None else self._vector
        self._vector = None
        if not self._listening:  # else it may tell of the next one
            self._told()
        self._hear()
        return vector

    def look(self) -> int | None:
        """See MachineBridge."""
        # In this order: the thread gives the vCPU back before it writes.
        self._told()
        if self._listening and self._back.acquire(blocking=False):
            self._is_back()
        self._decide_again()
        self._hear()
        return self._vector

    def _decide_again(self) -> None:
        """A line has risen beside the vector in hand. Where that is not in service, or holds back the slave's further
        requests by the cascade, the vCPU hears of nothing: it is put back, and KVM gives what is to be the first."""
        rose, self._rose = self._rose, False
        if not rose or self._vector is None:
            return
        try:
            if self._service is Service.NONE or slave_asks(self.vm, self._vector):
                self.put_back()
        except KvmError as error:
            raise BridgeError(str(error)) from None

    def _told(self) -> None:
        """Read the pipe empty."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, _MOST)

    def put_back(self) -> None:
        """See MachineBridge. Raises BridgeError."""
        self._call_back()
        if (vector := self._vector) is not None:
            try:
                self._unacknowledge(vector)
            except KvmError as error:
                raise BridgeError(str(error)) from None
            self._vector = None
            self._told()

    def _unacknowledge(self, vector: int) -> None:
        with self._lines:
            put_back(self.vm, self.cpu.fd, vector)

    # -- the thread that listens

    def _listener(self) -> None:
        """It has the vCPU from `_go` to `_back`."""
        signal.pthread_sigmask(signal.SIG_BLOCK, (CALL,))
        while True:
            self._go.acquire()
            if self._ends:
                return
            try:
                self._wait_for_interrupt()
            except KvmError as error:
                self._error = str(error)
            told = self._came is not None or bool(self._error)
            self._back.release()
            if told:
                os.write(self._writer, _TOLD)

    def _wait_for_interrupt(self) -> None:
        """Have the vCPU halt until an interrupt comes, which is left in `_came`, or until it is called."""
        while True:
            served = None if self._shows else self.vm.pic(0).isr
            vector = self._taken()
            if vector is None:
                self._rest()
                return
            with self._lines:
                spurious = drop_spurious(self.vm, self.cpu.fd, vector, served)
            if not spurious:
                self._came = vector
                self.events += 1
                return
            if self._called:
                return

    def _taken(self) -> int | None:
        """The vector of the next interrupt; None: the vCPU was called before one came."""
        cpu, page = self.cpu, self._page_of_run
        # With IF set already: what waits is acknowledged before the first instruction, called back or not.
        _PLACE.pack_into(page, _PLACE_AT, parked.LISTEN, RFLAGS_IF | _RESERVED_FLAG)
        _WORD.pack_into(page, _RSP_AT, parked.STACK)
        cpu.mark_dirty(abi.SYNC_REGS)
        while True:
            reason = cpu.run()
            if reason in (INTERRUPTED, abi.EXIT_INTR):
                while signal.sigtimedwait((CALL,), 0) is not None:
                    pass
                if not self._called:
                    continue  # a signal of an earlier call
                if not page[AT_INJECTED]:
                    # It may have been delivered, and the call have come before the vector's stub could say it.
                    return parked.vector_at(_WORD.unpack_from(page, _PLACE_AT)[0])
                # KVM has acknowledged it, and the call came before the entry that would have delivered it.
                vector = page[AT_INJECTED + 1]
                cpu.withdraw()
                self._rest()
                return vector
            if reason == abi.EXIT_IO and (access := cpu.pio()).port == parked.BELL:
                return cpu.pio_data(access)[0]
            raise KvmError(f"the borrowed vCPU ended with {abi.EXIT_NAMES.get(reason, str(reason))}")

    def _rest(self) -> None:
        """Out of HLT: a vCPU that is halted for the kernel would not make an access."""
        ioctl(self.cpu.fd, "SET_MP_STATE", ctypes.c_uint32(abi.RUNNABLE))

    def close(self) -> None:
        """See MachineBridge."""
        if self._ends:
            return
        if self._listening:
            self._call_back()
        self._ends = True
        self._go.release()
        self._thread.join(PATIENCE)
        self.cpu.close()
        self.vm.close()
        for end in (self._reader, self._writer):
            os.close(end)
