"""What a machine's board has of devices that a hypervisor keeps: lines that lead there, and a state to look at.

A mirror is the model of the chip, whose state is taken from the hypervisor when somebody looks: views, peeks and what
is saved are the hypervisor's. Nothing that a mirror would do by itself reaches anybody.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.clock import Clock
from emu.devices.ioapic import IoApic
from emu.devices.ioapic import State as IoApicState
from emu.devices.lapic import EXTINT, LINT0, LINT1, NMI, R_LVT_TIMER, R_SVR, R_TPR, Lapic
from emu.devices.lapic import State as LapicState
from emu.devices.pic8259 import Pic8259Pair
from emu.devices.pic8259 import State as PicState
from emu.devices.pit8254 import Pit8254, Port61, Port61State
from emu.devices.pit8254 import State as PitState
from emu.irq import IntrPin
from emu.layout import ELCR, LAPIC
from emu.views import DeviceView
from emu.x86.cpuid import CpuModel
from xenbridge import uncounted
from xenbridge.bridge import Devices, MachineBridge
from xenbridge.ioreq import Type, write

ISA_LINES = 16
_PRIORITY_SHIFT = 4  #: CR8 is bits 7:4 of the TPR (SDM vol. 3A, 11.8.6)


class Mirrors:
    """Where those of one machine look. `clock` is the machine's."""

    def __init__(self, bridge: MachineBridge) -> None:
        self.bridge = bridge
        self.clock: Clock | None = None
        self.ahead = False  #: see Keeper.ahead

    def look(self) -> Devices:
        """The hypervisor's devices as they are now."""
        return self.bridge.devices(0 if self.clock is None else self.clock.now)


class MirroredPic(Pic8259Pair):
    """Both 8259. The machine's devices drive their lines here: at the hypervisor's controllers, both kinds at once."""

    def __init__(self, pin: IntrPin, mirrors: Mirrors) -> None:
        self._mirrors = mirrors
        #: as the hypervisor has them; None: perhaps
        self._levels: list[bool | None] = [False] * 16
        super().__init__(pin)

    def set_irq(self, n: int, level: bool) -> None:
        """See Pic8259Pair. The level that a line has is no news: devices say it with each byte, and when they are put
        back to where they were."""
        if level == self._levels[n]:
            return
        self.raised[n] += level
        self._mirrors.bridge.set_line(n, level)
        self._levels[n] = level

    def _settle(self) -> None:
        self._pin.settle()
        state = self._mirrors.look().pic
        for chip, found in zip(self._chips, (state.master, state.slave), strict=True):
            chip.state = found

    def pending_vector(self) -> int | None:
        """See Pic8259Pair. What INTR asks for is the keeper's."""
        return None

    def _write_elcr(self, index: int, value: int) -> None:
        self._mirrors.bridge.exchange(write(Type.PIO, ELCR + index, 1, value).pack())

    def reset(self) -> None:
        """Power-on, of all of the hypervisor's devices at once."""
        self._mirrors.bridge.reset()
        self.raised = [0] * 16
        # Whether a level outlives it is the hypervisor's matter: the next that a device says is told.
        self._levels = [None if level else level for level in self._levels]

    def forget_edges(self) -> None:
        """See Pic8259Pair. The hypervisor resets its own, and levels that were told it are not told again."""

    def restore(self, state: PicState) -> None:
        """The hypervisor's state is not taken back."""


class MirroredLapic(Lapic):
    """The local APIC. CR8 is its task priority, wherever that is."""

    def __init__(
        self, clock: Clock, pin: IntrPin, tsc: Callable[[], int], model: CpuModel, mirrors: Mirrors,
        exchange: Callable[[bytes], bytes], init: Callable[[bool], None],
    ) -> None:  # fmt: skip
        """`init` makes INIT of the hypervisor's, which it is told to leave switched off."""
        self._mirrors, self._exchange, self._init = mirrors, exchange, init
        self._priority, self._counted = 0, True
        super().__init__(clock, pin, tsc, model)

    def set_task_priority(self, value: int) -> None:
        """See Lapic."""
        if value != self._priority and not self._mirrors.ahead:
            self._priority = value
            address = LAPIC + (R_TPR << 4)
            self._exchange(write(Type.COPY, address, 4, value << _PRIORITY_SHIFT).pack())

    def init(self) -> None:
        """See Lapic."""
        if not self._mirrors.ahead:
            self._init(not self.enabled)
            self._priority = 0

    def write_msr(self, number: int, value: int) -> bool:
        """See Lapic. In a look ahead INTR is nobody's: what the hypervisor has acknowledged waits."""
        return self._write_msr(number, value) if self._mirrors.ahead else super().write_msr(number, value)

    def _write_base(self, value: int) -> bool:
        """See Lapic. What is switched off loses its state (SDM vol. 3A, 11.4.3)."""
        before = self.enabled
        accepted = super()._write_base(value)
        if self.enabled != before:
            self.init()
        return accepted

    def virtual_wire(self) -> None:
        """See Lapic."""
        for register, value in ((R_SVR, 0x1FF), (R_LVT_TIMER + LINT0, EXTINT << 8), (R_LVT_TIMER + LINT1, NMI << 8)):
            self._exchange(write(Type.COPY, LAPIC + (register << 4), 4, value).pack())

    def _refresh(self) -> None:
        """What the hypervisor has; where the page is, and how it is reached, is known here."""
        devices = self._mirrors.look()
        self._counted = devices.counted
        state = devices.lapic
        state.base = self._state.base
        self._state = state
        self.timer.state = state.timer

    def peek(self, offset: int, size: int) -> int:
        """See Lapic."""
        self._refresh()
        return super().peek(offset, size)

    def save(self) -> LapicState:
        """See Lapic."""
        self._refresh()
        return super().save()

    def view(self) -> DeviceView:
        """See Lapic."""
        self._refresh()
        view = super().view()
        return view if self._counted else uncounted.lapic_view(view)

    def restore(self, state: LapicState) -> None:
        """The hypervisor's state is not taken back; where the page is, and how it is reached, is known here. What has
        changed that since the state is a look ahead, of which the hypervisor has not heard."""
        if self._state.base != state.base:
            self._state.base = state.base
            self.on_base()


class MirroredIoApic(IoApic):
    """The I/O APIC."""

    def __init__(self, pin: IntrPin, mirrors: Mirrors) -> None:
        self._mirrors = mirrors
        super().__init__(pin, lambda message: False)

    def set_irq(self, n: int, level: bool) -> None:
        """See IoApic. The others come by the 8259's."""
        if n >= ISA_LINES:
            self._mirrors.bridge.set_line(n, level)

    def peek(self, offset: int, size: int) -> int:
        """See IoApic."""
        self._state = self._mirrors.look().ioapic
        return super().peek(offset, size)

    def save(self) -> IoApicState:
        """See IoApic."""
        self._state = self._mirrors.look().ioapic
        return super().save()

    def view(self) -> DeviceView:
        """See IoApic."""
        self._state = self._mirrors.look().ioapic
        return super().view()

    def restore(self, state: IoApicState) -> None:
        """The hypervisor's state is not taken back."""


class MirroredPit(Pit8254):
    """The 8254."""

    def __init__(self, clock: Clock, mirrors: Mirrors) -> None:
        self._mirrors, self._counted = mirrors, True
        super().__init__(clock, lambda level: None)

    def _refresh(self) -> None:
        devices = self._mirrors.look()
        self._counters, self._counted = devices.pit.counters, devices.counted

    def peek(self, offset: int, size: int) -> int:
        """See Pit8254."""
        self._refresh()
        return super().peek(offset, size)

    def save(self) -> PitState:
        """See Pit8254."""
        self._refresh()
        return super().save()

    def view(self) -> DeviceView:
        """See Pit8254."""
        self._refresh()
        view = super().view()
        return view if self._counted else uncounted.pit_view(view)

    def restore(self, state: PitState) -> None:
        """The hypervisor's state is not taken back."""


class MirroredPort61(Port61):
    """System control port B."""

    def __init__(self, pit: Pit8254, clock: Clock, mirrors: Mirrors) -> None:
        self._mirrors = mirrors
        super().__init__(pit, clock)

    def peek(self, offset: int, size: int) -> int:
        """See Port61."""
        self._state = self._mirrors.look().port61
        return super().peek(offset, size)

    def save(self) -> Port61State:
        """See Port61."""
        self._state = self._mirrors.look().port61
        return super().save()

    def view(self) -> DeviceView:
        """See Port61."""
        devices = self._mirrors.look()
        self._state = devices.port61
        view = super().view()
        return view if devices.counted else uncounted.port61_view(view, self._state.value)

    def reset(self) -> None:
        """The hypervisor's is reset with the others."""

    def restore(self, state: Port61State) -> None:
        """The hypervisor's state is not taken back."""
