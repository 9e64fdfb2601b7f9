"""The bridge to Xen's interrupt controllers and timers for a machine whose other devices are wired to them."""

from __future__ import annotations

from typing import Final

from emu.devices.pic8259 import Pic8259Pair
from emu.irq import IntrPin
from xenbridge import convert_irqs, convert_timers
from xenbridge.bridge import BridgeError, Devices
from xenbridge.ioreq import LAYOUT, READS, State, unpack
from xenbridge.wire import hvm
from xenbridge.wire.hvm_devices import PINS
from xenbridge.xen.bridge import XenBridge
from xenbridge.xen.context import ContextError
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import XenError

ISA_LINES: Final = 16
#: Those records that make up the devices.
_DEVICES: Final = frozenset(hvm.CODES[name] for name in ("PIC", "IOAPIC", "LAPIC", "LAPIC_REGS", "PIT", "RTC"))


class XenMachineBridge(XenBridge):
    """See `xenbridge.bridge.MachineBridge`. The domain is paused, or borrowed, while its devices are looked at."""

    def __init__(self, domain: Domain) -> None:
        """The domain's devices as they are now are what `reset` gives. Raises BridgeError."""
        super().__init__(domain)
        self.domain = domain
        try:
            self._initial = [record for record in domain.records() if record.code in _DEVICES]
        except (XenError, ContextError) as error:
            raise BridgeError(str(error)) from None

    @property
    def lines(self) -> int:
        """Those of Xen's I/O APIC."""
        return PINS

    def exchange(self, raw: bytes) -> bytes:
        """As `submit`, of the 32 bytes of a request; those of its answer."""
        request = unpack(raw)
        data = self.submit(request)
        bits = State.ANSWERED | READS * request.reads
        return LAYOUT.pack(request.address, data, 1, request.size, request.port, 0, bits, request.type)

    def set_line(self, irq: int, level: bool) -> None:
        """See MachineBridge. Lines above 15 are the INTx of PCI devices to Xen, four a device (hvm_pci_intx_gsi,
        xen/include/asm-x86/hvm/irq.h)."""
        if not 0 <= irq < PINS:
            raise BridgeError(f"interrupt line {irq} does not exist: there are 0 to {PINS - 1}")
        domain, call = self.domain, self.domain.libraries.device_model
        try:
            if irq < ISA_LINES:
                call["set_isa_irq_level"](domain.domid, irq, level)
            else:
                device, pin = divmod(irq - ISA_LINES, 4)
                call["set_pci_intx_level"](domain.domid, 0, 0, device, pin, level)
            if level:
                self.rose()
        except XenError as error:
            raise BridgeError(str(error)) from None

    def look(self) -> int | None:
        """See MachineBridge."""
        try:
            self._vector_that_came()
            self._decide_again()
            self._hear()
        except XenError as error:
            raise BridgeError(str(error)) from None
        return self._vector

    def records(self) -> tuple[hvm.Record, ...]:
        """The domain's context. Raises BridgeError."""
        try:
            return tuple(hvm.Record(*record) for record in self.domain.records())
        except (XenError, ContextError) as error:
            raise BridgeError(str(error)) from None

    def devices(self, now: int) -> Devices:
        """See MachineBridge. How far counts have gone is in no record of Xen's (`xenbridge.uncounted`)."""
        records = self.records()
        pic = convert_irqs.pic_state(records, Pic8259Pair(IntrPin()).save())
        lapic = convert_irqs.lapic_state(records, now)
        ioapic = convert_irqs.ioapic_state(records, convert_irqs.isa_lines(records))
        timer = convert_timers.pit_state(records, now)
        if pic is None or lapic is None or ioapic is None or timer is None:
            raise BridgeError(f"domain {self.domain.domid} has not all of a PC's interrupt controllers and timers")
        return Devices(pic, lapic, ioapic, *timer, counted=False)

    def reset(self) -> None:
        """See MachineBridge."""
        self.put_back()
        try:
            self._load(*self._initial)
        except (XenError, ContextError) as error:
            raise BridgeError(str(error)) from None
