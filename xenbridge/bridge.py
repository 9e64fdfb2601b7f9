"""Requests and events: how the emulator reaches the LAPIC and the PIT of a hypervisor while it has the guest's vCPU.

The request is an access that the emulator submits on the guest's behalf, in Xen's ioreq layout; it has the side effects
of the guest's own. The event is an interrupt that the hypervisor has for the guest, by a descriptor that raises SIGIO.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from emu.layout import LAPIC
from xenbridge.ioreq import Ioreq, Type

if TYPE_CHECKING:
    from emu.devices import ioapic, lapic, pic8259, pit8254


class BridgeError(Exception):
    """One sentence: a request that cannot be made, or a hypervisor that did not answer."""


class Owner(enum.Enum):
    """Whose device it is."""

    HYPERVISOR = "hypervisor"
    USERSPACE = "userspace"


@dataclass(frozen=True, slots=True)
class Owned:
    """Registers of a device and who has them; `first` to `last` are ports or physical addresses."""

    name: str
    type: Type
    first: int
    last: int
    owner: Owner = Owner.HYPERVISOR

    def holds(self, request: Ioreq) -> bool:
        """All of the request's one element is in here."""
        inside = self.first <= request.address and request.address + request.size - 1 <= self.last
        return self.type is request.type and inside


#: What the request is for, whoever the hypervisor is: the 8254 with its gate, and the LAPIC's page.
TIMER_AND_LAPIC: Final = (
    Owned("pit", Type.PIO, 0x40, 0x43),
    Owned("port61", Type.PIO, 0x61, 0x61),
    Owned("lapic", Type.COPY, LAPIC, LAPIC + 0xFFF),
)


@dataclass(frozen=True, slots=True)
class Devices:
    """The hypervisor's devices at one instant, as states of the models in emu/devices. `counted`: how far the 8254's
    counters and the local APIC's timer have counted is known; else they are as at their beginning."""

    pic: pic8259.State
    lapic: lapic.State
    ioapic: ioapic.State
    pit: pit8254.State
    port61: pit8254.Port61State
    counted: bool = True


class Bridge(Protocol):
    """The hypervisor of one guest. All methods are called on one thread, that of the guest's machine."""

    @property
    def owned(self) -> tuple[Owned, ...]:
        """The table of who owns which device."""

    @property
    def descriptor(self) -> int:
        """Readable, and with O_ASYNC a SIGIO, when an interrupt has been acknowledged for the guest. `take` reads it
        empty."""

    def borrow(self) -> None:
        """The vCPU's registers are the emulator's from now on, and its LAPIC and PIT stay the hypervisor's. Raises
        BridgeError."""

    def submit(self, request: Ioreq) -> int:
        """Make one access as the guest would; returns what it read, 0 for a write. Raises BridgeError for one that is
        not for a device of the hypervisor, or that was not answered."""

    def listen(self, on: bool) -> None:
        """Whether the guest can take an interrupt now: its IF is set, and no shadow covers the next instruction. While
        it can, the hypervisor prioritises what is pending, acknowledges it and makes the descriptor readable."""

    def take(self) -> int | None:
        """The vector that has been acknowledged and is to be delivered next, the one that was looked at last, or None.
        It is given once."""

    def give_back(self, *, halted: bool = False) -> None:
        """The vCPU runs natively again, from the registers it has been given meanwhile; `halted`: in HLT. An interrupt
        that has been acknowledged and not taken is delivered there."""


class MachineBridge(Bridge, Protocol):
    """One whose controllers the emulator's other devices can be wired to."""

    @property
    def events(self) -> int:
        """Interrupts that were acknowledged."""

    @property
    def lines(self) -> int:
        """How many interrupt lines there are."""

    def exchange(self, raw: bytes) -> bytes:
        """As `submit`, of a request's 32 bytes; those of its answer. Raises IoreqError for bytes that are none."""

    def set_line(self, irq: int, level: bool) -> None:
        """Drive an interrupt line: 0 to 15 at the PIC, all at the I/O APIC, where line 0 is input 2. From any thread.
        Raises BridgeError for another."""

    def look(self) -> int | None:
        """What `take` gives now, which waits on. The owner decides it anew: what was acknowledged before gives way to a
        higher one that has come meanwhile, for which the descriptor has become readable again, and is requested as if
        it had not been. What has been delivered must have been taken."""

    def put_back(self) -> None:
        """The interrupt that has been acknowledged and not taken is pending again, as if it had not been: for a guest
        that can take none any more and is about to look at its controllers, or to change them."""

    def devices(self, now: int) -> Devices:
        """Their state, to look at, without side effects; what counts is as of `now`, ns on the looker's clock."""

    def reset(self) -> None:
        """Power-on of the devices."""

    def close(self) -> None:
        """Give everything back."""


@runtime_checkable
class PcBridge(MachineBridge, Protocol):
    """One whose devices stand beside others of a `pc` that are the machine's own."""

    def replace_timer(self, on: bool) -> None:
        """The HPET's legacy replacement (IA-PC HPET 1.0a, 2.4.2) takes line 0 from the 8254, which counts on, or gives
        it back. Of the tick that waits to be taken, or is requested, nothing is left. Raises BridgeError."""

    def init_lapic(self, *, off: bool = False) -> None:
        """INIT: the local APIC's registers are as after RESET, but for its ID and where it is (SDM vol. 3A, 11.4.7.3).
        Of what it has asked for nothing is left. `off`: it is switched off by IA32_APIC_BASE too, and the 8259 leads to
        the CPU (11.4.3), until it is called without. Raises BridgeError."""
