"""Who keeps the interrupt controllers and timers: the machine's own process, or a hypervisor that has them itself.

A board has its keeper make them, and reaches them by the faces that it gives: the devices themselves here, something
that submits each access where a hypervisor keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from emu.bus import BusDevice
from emu.clock import Clock
from emu.devices.pic8259 import Pic8259Pair
from emu.devices.pit8254 import Pit8254, Port61
from emu.devices.shared_ports import SharedPorts
from emu.engine import Executor
from emu.irq import InterruptController, IntrPin
from emu.typed import TYPE_CHECKING, Any, ClassVar
from emu.x86.cpuid import CpuModel

if TYPE_CHECKING:
    # Loaded for machines that have them: 1 ms of the start of others.
    from emu.devices.ioapic import IoApic
    from emu.devices.lapic import Lapic, Message


class Keeper:
    """The machine's own process. One of them belongs to one machine, whose board calls each method that makes a device
    at most once, in the order in which they stand here; a machine without a local APIC has no `lapic` and `ioapic`."""

    #: A hypervisor has the devices, so that each access has to reach it.
    hypervisor: ClassVar[bool] = False
    #: The hypervisor has the clock of ports 70h and 71h too.
    has_rtc: ClassVar[bool] = False
    #: A state saved before can be put back into them.
    restorable: ClassVar[bool] = True
    #: They go by the machine's clock and by nothing else, so that what they will do is known ahead.
    foreseen: ClassVar[bool] = True
    #: `service` is to be called between two instructions
    due = False

    #: Readable, and with O_ASYNC a SIGIO, when `ring` is to be called; None: everything comes by itself.
    descriptor: int | None = None
    #: Addresses of bytes that a signal's handler in C sets to 1, in this order, before `ring` is called: `due`, and
    #: what stops the CPU. There until the machine is closed.
    flags: tuple[int, ...] = ()
    #: Called by `ring`, from a signal's handler too: who waits for the machine's sake is to look.
    wake: Callable[[], None] = staticmethod(lambda: None)

    #: Told in a sentence that the devices are gone: the machine is to end.
    failed: Callable[[str], None] = staticmethod(lambda sentence: None)

    #: Called behind each access that has taken the host's time.
    keep_time: Callable[[], None] = staticmethod(lambda: None)

    def ring(self) -> None:
        """Something has come. From any thread, or a signal's handler."""

    def service(self) -> None:
        """Bring the CPU's INTR to this instant."""

    def ahead(self, on: bool) -> None:
        """While it is on, the CPU looks ahead, or is put back to where it was before: of what it does in its registers
        alone, as WRMSR and CR8, a hypervisor's devices are told nothing."""

    def attach(self, executor: Executor) -> None:
        """The machine is built, and this is its CPU."""

    def undelivered_put_back(self) -> AbstractContextManager[object]:
        """While it is entered, no interrupt is in service that the CPU has not taken: what was acknowledged ahead is
        requested again, and nothing else is acknowledged. For a state that goes elsewhere, where nobody would know."""
        return nullcontext()

    def kept_states(self, states: Mapping[str, Any], now: int) -> dict[str, Any]:
        """Of the board's device states those that the hypervisor knows better, and of devices that it has besides, at
        `now` (ns). For whoever has entered `undelivered_put_back`."""
        return {}

    def close(self) -> None:
        """The machine is closed."""

    def pic(self, pin: IntrPin, shared: SharedPorts | None) -> Pic8259Pair:
        """The two 8259. An engine may answer for the master in `shared`, unless only a hypervisor can."""
        return Pic8259Pair(pin, shared)

    def lapic(self, clock: Clock, pin: IntrPin, tsc: Callable[[], int], model: CpuModel) -> Lapic:
        """The local APIC of a CPU that is a `model`."""
        from emu.devices.lapic import Lapic

        return Lapic(clock, pin, tsc, model)

    def ioapic(self, pin: IntrPin, send: Callable[[Message], bool]) -> IoApic:
        """The I/O APIC."""
        from emu.devices.ioapic import IoApic

        return IoApic(pin, send)

    def pit(self, clock: Clock, irq0: Callable[[bool], None], shared: SharedPorts | None) -> Pit8254:
        """The 8254. An engine may answer for it in `shared`, unless only a hypervisor can."""
        return Pit8254(clock, irq0, shared)

    def port61(self, pit: Pit8254, clock: Clock) -> Port61:
        """System control port B."""
        return Port61(pit, clock)

    def timer_replaced(self, on: bool) -> None:
        """An HPET takes ISA line 0 from the 8254, or gives it back. What `pit` was given to drive it by has heard."""

    def ports(self, first: int, device: BusDevice) -> BusDevice:
        """What the port bus is given for a device of the keeper's whose first port is `first`."""
        return device

    def memory(self, first: int, device: BusDevice) -> BusDevice:
        """The same of the MMIO bus, by the physical address of the first register."""
        return device

    def rtc(self, device: BusDevice) -> BusDevice:
        """What the port bus is given for ports 70h and 71h; `device` has the clock and its RAM."""
        return device

    def besides(self) -> Sequence[tuple[int, int, BusDevice, str]]:
        """What an isapc has of the hypervisor's besides, in memory: the first address, bytes, the face, its name."""
        return ()

    def controller(self, controller: InterruptController) -> InterruptController:
        """What drives the CPU's INTR, where `controller` is the one of the devices that does."""
        return controller
