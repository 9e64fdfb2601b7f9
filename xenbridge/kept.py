"""A machine's interrupt controllers and timers kept by a hypervisor behind a bridge, on the host's clock.

The machine's buses have something that submits; its devices drive the hypervisor's lines; what the hypervisor has
acknowledged for the guest is what INTR asks for. An interrupt comes as a signal: `ring` stops the machine before its
next instruction, where it is looked at, and the engine delivers it when IF, shadow and priority allow. A guest that
turns its interrupts off before has it put back as soon as it looks at its controllers, or changes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from emu.bus import BusDevice
from emu.clock import Clock
from emu.devices.ioapic import IoApic
from emu.devices.lapic import Message
from emu.devices.pic8259 import Pic8259Pair
from emu.devices.pit8254 import Pit8254
from emu.devices.shared_ports import SharedPorts
from emu.engine import Executor
from emu.irq import InterruptController, IntrPin
from emu.keeper import Keeper
from xenbridge.bridge import MachineBridge
from xenbridge.ioreq import Type
from xenbridge.submitted import Submitted

ISA_LINES = 16


class BridgedPic(Pic8259Pair):
    """Where the machine's devices drive their lines: the hypervisor's controllers, both kinds at once."""

    def __init__(self, pin: IntrPin, bridge: MachineBridge) -> None:
        self._bridge = bridge
        super().__init__(pin)

    def set_irq(self, n: int, level: bool) -> None:
        """See Pic8259Pair."""
        self.raised[n] += level
        self._bridge.set_line(n, level)


class BridgedIoApic(IoApic):
    """The lines that only the I/O APIC has."""

    def __init__(self, pin: IntrPin, bridge: MachineBridge) -> None:
        self._bridge = bridge
        super().__init__(pin, lambda message: False)

    def set_irq(self, n: int, level: bool) -> None:
        """See IoApic. The others have come by the 8259's."""
        if n >= ISA_LINES:
            self._bridge.set_line(n, level)


class BridgeKeeper(Keeper):
    """One machine's. `bridge` is borrowed from now on, and closed with the machine."""

    hypervisor: ClassVar[bool] = True

    def __init__(self, bridge: MachineBridge) -> None:
        self.bridge = bridge
        bridge.borrow()
        #: called by `ring`, from a signal's handler: somebody who waits for the machine's sake is to look
        self.wake: Callable[[], None] = lambda: None
        self._pin: IntrPin | None = None
        self._executor: Executor | None = None
        #: what INTR asks for. It changes only where the pin is updated behind it: who looked at the bridge in between
        #: would have the event, and the engine would never hear of it.
        self._waiting: int | None = None

    # -- what the board is given

    def pic(self, pin: IntrPin, shared: SharedPorts | None) -> Pic8259Pair:
        """See Keeper."""
        self._pin = pin
        return BridgedPic(pin, self.bridge)

    def ioapic(self, pin: IntrPin, send: Callable[[Message], bool]) -> IoApic:
        """See Keeper."""
        return BridgedIoApic(pin, self.bridge)

    def pit(self, clock: Clock, irq0: Callable[[bool], None], shared: SharedPorts | None) -> Pit8254:
        """See Keeper. It drives nothing: the hypervisor's does."""
        return Pit8254(clock, lambda level: None)

    def ports(self, first: int, device: BusDevice) -> BusDevice:
        """See Keeper."""
        return Submitted(Type.PIO, first, self._exchange, lambda address, size: device.peek(address - first, size))

    def memory(self, first: int, device: BusDevice) -> BusDevice:
        """See Keeper."""
        return Submitted(Type.COPY, first, self._exchange, lambda address, size: device.peek(address - first, size))

    def controller(self, controller: InterruptController) -> InterruptController:
        """See Keeper."""
        return self

    def attach(self, executor: Executor) -> None:
        """See Keeper."""
        self._executor = executor
        self.bridge.listen(True)

    # -- requests

    def _exchange(self, raw: bytes) -> bytes:
        assert self._pin is not None
        self._pin.settle()
        self.bridge.put_back()
        answer = self.bridge.exchange(raw)
        self._look()
        return answer

    def _look(self) -> None:
        """Drive INTR by what has come."""
        assert self._pin is not None
        self._waiting = self.bridge.look()
        self._pin.update()

    # -- events

    def ring(self) -> None:
        """The bridge's descriptor has become readable. From any thread, or a signal's handler: the machine stops
        before its next instruction, and goes on behind `service`."""
        self.due = True
        if self._executor is not None:
            self._executor.request_stop()
        self.wake()

    def service(self) -> None:
        """See Keeper."""
        self.due = False
        self._look()

    def pending_vector(self) -> int | None:
        """See InterruptController: what has been acknowledged, and waits."""
        return self._waiting

    def last_for_now(self) -> bool:
        """See InterruptController. The next one comes by a signal."""
        return True

    def acknowledge(self) -> int:
        """See InterruptController: it has been delivered. From now on the next one is listened for."""
        vector = self.bridge.take()
        assert vector is not None, "the engine delivers what waits"
        self._waiting = None
        return vector

    def close(self) -> None:
        """See Keeper."""
        self.bridge.close()
