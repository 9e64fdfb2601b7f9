"""A view of timers whose counts no record tells says so, and shows what was programmed."""

from __future__ import annotations

from typing import cast

from emu.devices.ioapic import IoApic
from emu.devices.lapic import Lapic
from emu.devices.pic8259 import Pic8259Pair
from emu.devices.pit8254 import Pit8254, Port61
from emu.irq import IntrPin
from emu.views import FieldView
from emu.x86.cpuid import DEFAULT_MODEL, MODELS
from virtual_time import VirtualTime
from xenbridge.bridge import Devices, MachineBridge
from xenbridge.mirrors import MirroredLapic, MirroredPit, MirroredPort61, Mirrors

MODEL = MODELS[DEFAULT_MODEL].with_apic()
MILLISECOND = 1_000_000


class Hypervisor:
    """A bridge whose devices are looked at a millisecond after they were programmed."""

    def __init__(self, *, counted: bool) -> None:
        time, pin = VirtualTime(), IntrPin()
        pit = Pit8254(time.clock, lambda level: None)
        lapic = Lapic(time.clock, pin, lambda: 0, MODEL)
        port61 = Port61(pit, time.clock)
        for port, value in ((3, 0x34), (0, 0x40), (0, 0x9C)):
            pit.write(port, value, 1)
        port61.write(0, 3, 1)
        lapic.write(0x3E0, 0x0B, 4)
        lapic.write(0x380, 5 * MILLISECOND, 4)
        time.advance(MILLISECOND)
        self.clock = time.clock
        self._made = pit, lapic, port61, counted

    def devices(self, now: int) -> Devices:
        pit, lapic, port61, counted = self._made
        pic, ioapic = Pic8259Pair(IntrPin()), IoApic(IntrPin(), lambda message: False)
        return Devices(pic.save(), lapic.save(), ioapic.save(), pit.save(), port61.save(), counted=counted)

    def views(self) -> dict[str, dict[str, FieldView]]:
        """What the mirrors of its devices show, by device and field."""
        mirrors, clock = Mirrors(cast(MachineBridge, self)), VirtualTime().clock
        mirrors.clock = clock
        clock.skip_to(self.clock.now)
        pit = MirroredPit(clock, mirrors)
        lapic = MirroredLapic(clock, IntrPin(), lambda: 0, MODEL, mirrors, lambda raw: raw, lambda: None)
        shown = pit.view(), lapic.view(), MirroredPort61(pit, clock, mirrors).view()
        return {view.name: {field.name: field for field in view.fields} for view in shown}


def test_counts_that_a_hypervisor_tells_are_shown() -> None:
    views = Hypervisor(counted=True).views()
    assert views["lapic"]["current count"].value == 4 * MILLISECOND
    # 1,193 pulses of CLK in a millisecond, the first of which loads the count (8254 data sheet, "Mode 2")
    assert views["pit"]["counter 0 CE"].value == 0x9C40 - 1192
    assert views["pit"]["counter 0 pins"].value == "GATE=1 OUT=1"
    assert "speaker data" in views["port61"]["value"].text


def test_counts_that_no_record_tells_are_unknown_and_what_was_programmed_is_shown() -> None:
    views = Hypervisor(counted=False).views()
    for name, field in (("lapic", "current count"), ("pit", "counter 0 CE")):
        assert (views[name][field].value, views[name][field].text) == ("unknown", "not in the record")
    assert views["lapic"]["initial count"].value == 5 * MILLISECOND
    assert views["pit"]["counter 0"].text.startswith("mode 2 rate generator")
    assert views["pit"]["counter 0 CR"].value == 0x9C40
    assert views["pit"]["counter 0 pins"].value == "GATE=1 OUT unknown"
    assert (views["port61"]["value"].value, views["port61"]["value"].text) == (3, "outputs unknown")
