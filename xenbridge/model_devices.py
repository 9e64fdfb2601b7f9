"""The LAPIC, PIC, I/O APIC and PIT of the reference hypervisor, and how requests reach them: bytes in, bytes out.

The devices are instances of its own, of the models in emu/devices; nothing of them is on the machine's buses. What a
request does is what the guest's own access does, as it is the same model that answers. Time is the machine's event
queue, so that an interrupt is an entry of it, and arrives at its exact instant. So what a poll will give is known ahead
here as in userspace: the engines answer it, and the ledger counts it, as if it had been asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final

from emu.bus import BusDevice
from emu.clock import Clock
from emu.devices.pic8259 import Pic8259Pair
from emu.devices.pit8254 import Pit8254
from emu.devices.shared_ports import SharedPorts
from emu.irq import IntrPin
from emu.keeper import Keeper
from xenbridge.bridge import BridgeError
from xenbridge.ioreq import LAYOUT, State, Type, unpack
from xenbridge.submitted import Submitted

#: Bytes of the register window that a device answers from its first address on.
_PORTS: Final = {0x20: 2, 0xA0: 2, 0x40: 4, 0x61: 1, 0x4D0: 2}
PAGE: Final = 0x1000


class ModelDevices(Keeper):
    """The hypervisor's side. `exchange` is its door: nothing else reaches a device, but looks."""

    hypervisor: ClassVar[bool] = True

    def __init__(self) -> None:
        self.requests = 0  #: answered so far, but for those that an engine has answered ahead
        self._places: dict[Type, list[tuple[int, int, BusDevice]]] = {Type.PIO: [], Type.COPY: []}

    # -- what it has

    def pic(self, pin: IntrPin, shared: SharedPorts | None) -> Pic8259Pair:
        """See Keeper. An engine may answer for it as for the machine's own, and counts apart what it does."""
        return Pic8259Pair(pin, shared)

    def pit(self, clock: Clock, irq0: Callable[[bool], None], shared: SharedPorts | None) -> Pit8254:
        """See Keeper. As of the PIC."""
        if shared is not None:
            shared.kept = 1
        return Pit8254(clock, irq0, shared)

    def ports(self, first: int, device: BusDevice) -> BusDevice:
        """See Keeper."""
        return self._place(Type.PIO, first, _PORTS[first], device)

    def memory(self, first: int, device: BusDevice) -> BusDevice:
        """See Keeper. A device whose page the guest moves is found at the new place."""
        return self._place(Type.COPY, first, PAGE, device)

    def _place(self, type: Type, first: int, count: int, device: BusDevice) -> BusDevice:
        places = [place for place in self._places[type] if type is Type.PIO or place[2] is not device]
        places.append((first, count, device))
        self._places[type] = places
        return Submitted(type, first, self.exchange, lambda address, size: self._look(type, address, size))

    # -- requests

    def _find(self, type: Type, address: int, size: int) -> tuple[int, BusDevice]:
        """The offset and the device."""
        for first, count, device in self._places.get(type, ()):
            if first <= address and address + size <= first + count:
                return address - first, device
        space = "port" if type is Type.PIO else "address"
        raise BridgeError(f"{space} {address:#x} is no device of the hypervisor")

    def exchange(self, raw: bytes) -> bytes:
        """Answer the 32 bytes of a request with those of an answered one. Raises BridgeError, IoreqError."""
        request = unpack(raw)
        if request.state is not State.READY or request.indirect or request.count != 1:
            raise BridgeError("a request is for one element, given by its value, and in state ready")
        offset, device = self._find(request.type, request.address, request.size)
        self.requests += 1
        data = request.data & request.mask
        if request.reads:
            data = device.read(offset, request.size)
        else:
            device.write(offset, data, request.size)
        bits = State.ANSWERED | request.reads << 5
        return LAYOUT.pack(request.address, data, 1, request.size, request.port, 0, bits, request.type)

    def _look(self, type: Type, address: int, size: int) -> int:
        offset, device = self._find(type, address, size)
        return device.peek(offset, size)
