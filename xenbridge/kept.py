"""A machine's interrupt controllers and timers kept by a hypervisor behind a bridge, on the host's clock.

The machine's buses have something that submits; its devices drive the hypervisor's lines; what the hypervisor has
acknowledged for the guest is what INTR asks for. An interrupt comes as a signal: `ring` stops the machine before its
next instruction, where it is looked at, and the engine delivers it when IF, shadow and priority allow. While the guest
accesses what the hypervisor keeps, as a handler does several times, no interrupt is listened for: each access would
have to call the vCPU back from its wait, which takes ten times as long as the access. A guest that
turns its interrupts off before has it put back as soon as it looks at its controllers, or changes them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

from emu.bus import BusDevice
from emu.clock import Clock, Timer
from emu.devices.ioapic import IoApic
from emu.devices.lapic import Lapic, Message
from emu.devices.pic8259 import Pic8259Pair
from emu.devices.pit8254 import Pit8254, Port61
from emu.devices.shared_ports import SharedPorts
from emu.engine import Executor
from emu.irq import InterruptController, IntrPin
from emu.keeper import Keeper
from emu.x86.cpuid import CpuModel
from xenbridge.bridge import BridgeError, MachineBridge, PcBridge
from xenbridge.ioreq import DATA_OFFSET, STATE_OFFSET, State, Type
from xenbridge.mirrors import MirroredIoApic, MirroredLapic, MirroredPic, MirroredPit, MirroredPort61, Mirrors
from xenbridge.submitted import Submitted

_STATE_BITS = 15
#: First ports of devices that no acknowledge shows in: the 8254 and port 61h.
TIMER_PORTS = (0x40, 0x61)


class BridgeKeeper(Keeper):
    """One machine's. `bridge` is borrowed from now on, and closed with the machine."""

    hypervisor: ClassVar[bool] = True
    restorable: ClassVar[bool] = False
    foreseen: ClassVar[bool] = False
    #: ns of the guest's time from an access, or an interrupt taken, until the next one is listened for; 0: at once
    pause: ClassVar[int] = 20_000

    def __init__(self, bridge: MachineBridge) -> None:
        self.bridge = bridge
        bridge.borrow()
        self.descriptor = bridge.descriptor
        self._mirrors = Mirrors(bridge)
        self._pin: IntrPin | None = None
        self._executor: Executor | None = None
        #: what INTR asks for. It changes only where the pin is updated behind it: who looked at the bridge in between
        #: would have the event, and the engine would never hear of it.
        self._waiting: int | None = None
        self._due = ctypes.c_uint8()
        self._pause: Timer | None = None  # armed while no interrupt is listened for

    @property
    def due(self) -> bool:  # type: ignore[override]
        """See Keeper. A byte that the signal's handler sets."""
        return bool(self._due.value)

    # -- what the board is given

    def pic(self, pin: IntrPin, shared: SharedPorts | None) -> Pic8259Pair:
        """See Keeper."""
        self._pin = pin
        return MirroredPic(pin, self._mirrors)

    def lapic(self, clock: Clock, pin: IntrPin, tsc: Callable[[], int], model: CpuModel) -> Lapic:
        """See Keeper."""
        self._mirrors.clock = clock
        return MirroredLapic(clock, pin, tsc, model, self._mirrors, self._exchange, self._init_lapic)

    def ioapic(self, pin: IntrPin, send: Callable[[Message], bool]) -> IoApic:
        """See Keeper."""
        return MirroredIoApic(pin, self._mirrors)

    def pit(self, clock: Clock, irq0: Callable[[bool], None], shared: SharedPorts | None) -> Pit8254:
        """See Keeper. It drives nothing: the hypervisor's does."""
        self._mirrors.clock = clock
        if self.pause:
            self._pause = clock.timer("bridge", self._paused)
        return MirroredPit(clock, self._mirrors)

    def port61(self, pit: Pit8254, clock: Clock) -> Port61:
        """See Keeper."""
        return MirroredPort61(pit, clock, self._mirrors)

    def timer_replaced(self, on: bool) -> None:
        """See Keeper."""
        self._have(lambda bridge: bridge.replace_timer(on))

    def ahead(self, on: bool) -> None:
        """See Keeper."""
        self._mirrors.ahead = on

    def _init_lapic(self, off: bool) -> None:
        self._have(lambda bridge: bridge.init_lapic(off=off))

    def _have(self, change: Callable[[PcBridge], None]) -> None:
        """Nothing to be done where the machine is no `pc`, and in a look ahead."""
        if isinstance(self.bridge, PcBridge) and not self._mirrors.ahead:
            assert self._pin is not None
            self._pin.settle()
            try:
                change(self.bridge)
            except BridgeError as error:
                self.failed(f"the devices in the hypervisor are lost: {error}")
            self._look()

    def ports(self, first: int, device: BusDevice) -> BusDevice:
        """See Keeper."""
        exchange = self._exchange_with_timer if first in TIMER_PORTS else self._exchange
        return Submitted(Type.PIO, first, exchange, lambda address, size: device.peek(address - first, size))

    def memory(self, first: int, device: BusDevice) -> BusDevice:
        """See Keeper."""
        return Submitted(Type.COPY, first, self._exchange, lambda address, size: device.peek(address - first, size))

    def controller(self, controller: InterruptController) -> InterruptController:
        """See Keeper."""
        return self

    def attach(self, executor: Executor) -> None:
        """See Keeper."""
        self._executor = executor
        stop = executor.stop_flag
        self.flags = (ctypes.addressof(self._due),) if stop is None else (ctypes.addressof(self._due), stop)
        self.bridge.listen(True)

    # -- requests

    def _exchange(self, raw: bytes) -> bytes:
        return self._exchanged(raw, controller=True)

    def _exchange_with_timer(self, raw: bytes) -> bytes:
        return self._exchanged(raw, controller=False)

    def _exchanged(self, raw: bytes, *, controller: bool) -> bytes:
        """`controller`: what has been acknowledged shows in the device, or the access may change it."""
        assert self._pin is not None
        self._pin.settle()
        try:
            self._hush()
            if controller:
                self.bridge.put_back()
            answer = self.bridge.exchange(raw)
        except BridgeError as error:
            return self._lost(error, raw)
        self.keep_time()
        self._look()
        return answer

    def _hush(self) -> None:
        """Listen for no interrupt for a while. What comes meanwhile waits in the hypervisor's controllers. Raises
        BridgeError."""
        pause = self._pause
        if pause is not None and pause.deadline is None:
            assert self._mirrors.clock is not None
            pause.arm(self._mirrors.clock.now + self.pause)
            self.bridge.listen(False)

    def _paused(self, now: int) -> None:
        """The while is over."""
        try:
            self.bridge.listen(True)
        except BridgeError as error:
            self.failed(f"the devices in the hypervisor are lost: {error}")

    def _lost(self, error: BridgeError, raw: bytes) -> bytes:
        """The hypervisor does not answer: as where nothing is, and the machine ends."""
        self.failed(f"the devices in the hypervisor are lost: {error}")
        bits = State.ANSWERED | raw[STATE_OFFSET] & ~_STATE_BITS
        return b"".join((raw[:DATA_OFFSET], b"\xff" * 8, raw[DATA_OFFSET + 8 : STATE_OFFSET], bytes((bits, raw[-1]))))

    def _look(self) -> None:
        """Drive INTR by what has come."""
        assert self._pin is not None
        try:
            self._waiting = self.bridge.look()
        except BridgeError as error:
            self._waiting = None
            self.failed(f"the devices in the hypervisor are lost: {error}")
        self._pin.update()

    # -- events

    def ring(self) -> None:
        """The bridge's descriptor has become readable. From any thread, or a signal's handler: the machine stops
        before its next instruction, and goes on behind `service`."""
        self._due.value = 1
        if self._executor is not None:
            self._executor.request_stop()
        self.wake()

    def service(self) -> None:
        """See Keeper."""
        self._due.value = 0
        self._look()

    def pending_vector(self) -> int | None:
        """See InterruptController: what has been acknowledged, and waits."""
        return self._waiting

    def last_for_now(self) -> bool:
        """See InterruptController. The next one comes by a signal."""
        return True

    def acknowledge(self) -> int:
        """See InterruptController: it has been delivered. From now on the next one is listened for."""
        vector, self._waiting = self._waiting, None
        assert vector is not None, "the engine delivers what waits"
        try:
            # In this order: what came for a vCPU that is called back may take the place of one that is not taken.
            self.bridge.take()
            self._hush()
        except BridgeError as error:
            self.failed(f"the devices in the hypervisor are lost: {error}")
        return vector

    @contextmanager
    def undelivered_put_back(self) -> Iterator[None]:
        """See Keeper. Raises BridgeError."""
        assert self._pin is not None
        self._pin.settle()
        if self._pause is not None:
            self._pause.cancel()  # its end would have the next one acknowledged
        self.bridge.listen(False)
        self.bridge.put_back()
        self._look()
        try:
            yield
        finally:
            self.bridge.listen(self._has_guest)
            self._look()

    @property
    def _has_guest(self) -> bool:
        """What comes for the guest is for the emulator."""
        return True

    def close(self) -> None:
        """See Keeper."""
        self.bridge.close()
