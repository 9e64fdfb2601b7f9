"""A machine's interrupt controllers, timers and clock kept by Xen, in the domain that its native vCPU is of.

While the emulator has the guest the vCPU is borrowed, and an access is a request; while the guest runs natively they
are Xen's business alone. `lent` and `natively` are where that changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from emu.bus import BusDevice
from emu.clock import Clock, Timer
from emu.devices.pit8254 import Pit8254
from emu.devices.shared_ports import SharedPorts
from emu.engine import EngineError
from emu.layout import IOAPIC, LAPIC, RTC
from emu.x86.state import CpuState
from xenbridge import convert_irqs as irqs
from xenbridge import convert_timers as timers
from xenbridge.bridge import BridgeError
from xenbridge.convert_cpu import EXTERNAL, pending_event
from xenbridge.ioreq import Type, read, unpack, write
from xenbridge.kept import BridgeKeeper
from xenbridge.mirrors import MirroredIoApic
from xenbridge.submitted import Submitted
from xenbridge.wire import hvm
from xenbridge.xen.context import ContextError
from xenbridge.xen.domain import EMULATE_ALL, Domain
from xenbridge.xen.guest import virtual_wire
from xenbridge.xen.libraries import Libraries, XenError
from xenbridge.xen.machine_bridge import XenMachineBridge

PAGE: Final = 0x1000
#: Registers of the clock that are Xen's; the RAM behind them is a device model's (RTC_CMOS_SIZE, hvm/rtc.c).
CLOCK_REGISTERS: Final = 14
_INDEX_MASK: Final = 0x7F  #: bit 7 of port 70h masks NMIs
_INDEX_AT: Final = 14  #: of `cmos_index` in the RTC record
#: ns of the machine's time between two looks for what comes before a vector that waits: at first, and at most.
_LOOK_FIRST, _LOOK_LAST = 1_000_000, 10_000_000


class ClockPorts:
    """Ports 70h and 71h: the clock's registers are the hypervisor's, the RAM behind them the machine's, and which of
    them is meant is the hypervisor's to know, as the native guest tells nobody else."""

    def __init__(
        self, own: BusDevice, exchange: Callable[[bytes], bytes], look: Callable[[int], int], lent: Callable[[], bool]
    ) -> None:  # fmt: skip
        """`look` gives one of Xen's registers without side effects. `lent` says whether the emulator has the guest:
        what the native guest's accesses are for the machine is what Xen has left to it."""
        self._own, self._exchange, self._look, self._lent = own, exchange, look, lent
        self._index = 0

    def select(self, index: int) -> None:
        """The native guest has selected this register."""
        self._index = index & _INDEX_MASK
        self._own.write(0, index, 1)

    @property
    def _xens(self) -> bool:
        return self._index < CLOCK_REGISTERS and self._lent()

    def read(self, offset: int, size: int) -> int:
        if offset and self._xens:
            return unpack(self._exchange(read(Type.PIO, RTC + 1, 1).pack())).data
        return self._own.read(offset, size)

    def write(self, offset: int, value: int, size: int) -> None:
        if not offset:
            self.select(value)
            if self._lent():
                self._exchange(write(Type.PIO, RTC, 1, value).pack())
        elif self._xens:
            self._exchange(write(Type.PIO, RTC + 1, 1, value).pack())
        else:
            self._own.write(offset, value, size)

    def peek(self, offset: int, size: int) -> int:
        return self._look(self._index) if offset and self._index < CLOCK_REGISTERS else self._own.peek(offset, size)


class XenKeeper(BridgeKeeper):
    """One machine's, with the domain, which is destroyed with it."""

    has_rtc: ClassVar[bool] = True
    pause: ClassVar[int] = 0  #: the guest may be given its vCPU back before

    def __init__(self, libraries: Libraries) -> None:
        """A domain without memory whose vCPU is borrowed. Raises EngineError."""
        self.libraries = libraries
        self._clock_ports: ClockPorts | None = None
        self._doubt: Timer | None = None  # armed while a vector waits beside which the vCPU is deaf
        self._every = _LOOK_FIRST
        try:
            self.domain = Domain.create_bare(libraries, 0, EMULATE_ALL)
            try:
                virtual_wire(self.domain)
                self.domain.load_cpu(CpuState())
                self.xen = XenMachineBridge(self.domain)
                super().__init__(self.xen)
            except BaseException:
                self.domain.destroy()
                raise
        except (XenError, ContextError, BridgeError) as error:
            raise EngineError(f"--hypervisor xen: {error}") from error

    # -- what the board is given

    def pit(self, clock: Clock, irq0: Callable[[bool], None], shared: SharedPorts | None) -> Pit8254:
        """See Keeper."""
        self._doubt = clock.timer("xen", self._look_again)
        return super().pit(clock, irq0, shared)

    def rtc(self, device: BusDevice) -> BusDevice:
        """See Keeper."""
        self._clock_ports = ClockPorts(
            device, self._exchange, lambda index: self._record("RTC")[index], lambda: self.xen.borrowed
        )
        return self._clock_ports

    def besides(self) -> Sequence[tuple[int, int, BusDevice, str]]:
        """See Keeper: the vCPU has a local APIC, which brings the 8259's interrupts too, and the domain an I/O APIC."""
        assert self._pin is not None
        ioapic = MirroredIoApic(self._pin, self._mirrors)
        return (
            (IOAPIC, PAGE, self.memory(IOAPIC, ioapic), "ioapic"),
            (LAPIC, PAGE, Submitted(Type.COPY, LAPIC, self._exchange, self._look_at_lapic), "lapic"),
        )

    def _look_at_lapic(self, address: int, size: int) -> int:
        at = address - LAPIC
        return int.from_bytes(self._record("LAPIC_REGS")[at : at + size], "little")

    def _record(self, name: str) -> bytes:
        record = hvm.find(self.xen.records(), name)
        return b"" if record is None else record.data

    # -- who has the guest

    def lent(self) -> None:
        """The emulator has it, and its vCPU is borrowed. Raises BridgeError."""
        self.bridge.listen(True)
        if self._clock_ports is not None:
            self._clock_ports.select(self._record("RTC")[_INDEX_AT])
        self._look()

    def _look(self) -> None:
        """See BridgeKeeper. While a vector waits beside which Xen's timers and clock would not be heard, they are
        looked for: the guest has its interrupts off meanwhile, and takes the highest when they are on again."""
        super()._look()
        if (doubt := self._doubt) is None:
            return
        try:
            doubts = self._waiting is not None and self.xen.deaf
        except BridgeError as error:
            self.failed(f"the devices in the hypervisor are lost: {error}")
            return
        if not doubts:
            doubt.cancel()
            self._every = _LOOK_FIRST
        elif doubt.deadline is None:
            assert self._mirrors.clock is not None
            doubt.arm(self._mirrors.clock.now + self._every)
            self._every = min(2 * self._every, _LOOK_LAST)

    def _look_again(self, now: int) -> None:
        """The while is over."""
        if self.xen.borrowed and self._waiting is not None:
            try:
                self.xen.doubt()
            except BridgeError as error:
                self.failed(f"the devices in the hypervisor are lost: {error}")
            self._look()

    def natively(self) -> None:
        """It is about to be given its vCPU back, by which Xen delivers what waits. Raises BridgeError."""
        if self._doubt is not None:
            self._doubt.cancel()
        self.bridge.listen(False)
        if self._pin is not None:
            self._pin.settle()
            self._waiting = None
            self._pin.update()

    def kept_states(self, states: Mapping[str, Any], now: int) -> dict[str, Any]:
        """See Keeper. Raises BridgeError."""
        records = self.xen.records()
        pic, lapic = irqs.pic_state(records, states["pic"]), irqs.lapic_state(records, now)
        cpu = hvm.find(records, "CPU")
        if cpu is not None and not self.xen.borrowed and (event := pending_event(cpu.values())) is not None:
            vector, kind = event
            if kind == EXTERNAL:  # Xen was about to deliver it when the domain was paused
                irqs.give_back(vector, pic, lapic)
        found = {
            "pic": pic, "lapic": lapic, "ioapic": irqs.ioapic_state(records, irqs.isa_lines(records)),
            "rtc": timers.rtc_state(records, states["rtc"], now),
        }  # fmt: skip
        return {name: state for name, state in found.items() if state is not None}

    @property
    def _has_guest(self) -> bool:
        return self.xen.borrowed

    def close(self) -> None:
        """See Keeper."""
        super().close()
        self.domain.destroy()
        self.libraries.close()
