"""What a stream of a machine on Xen has of Xen's devices: the clock's registers and the APICs too, which an isapc has
not, and an interrupt that Xen was about to deliver as a request."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from emu.devices.ioapic import MASK
from emu.firmware.roms import builtin_bios
from emu.keeper import Keeper
from emu.machine import Machine, MachineConfig, build_machine
from xen_samples import sample
from xenbridge import convert
from xenbridge.wire import hvm
from xenbridge.wire.hvm import Record, build_record
from xenbridge.xen.files import parse_file
from xenbridge.xen.kept import XenKeeper

CLOCK = bytes((0x11, 0, 0x12, 0, 0x13, 0, 4, 0x15, 0x06, 0x24, 0x26, 0x42, 0x20, 0x80))
TICK, SELF = 0x08, 0x31  #: vectors: IRQ 0 of the 8259, and one of the local APIC's


def records(event: int = 0) -> tuple[Record, ...]:
    """The sample's, with IRQ 0 and 31h in service, and `event` on its way into the CPU."""
    out = []
    for record in hvm.parse_context(sample("s_hvmctx.bin")):
        values = record.values()
        if record.name == "CPU":
            values |= {"pending_event": event}
        elif record.name == "PIC" and not record.instance:
            values |= {"isr": 1, "irr": 0, "irq_base": 8, "mode": 0x40}
        elif record.name == "RTC":
            values |= {"cmos_data": CLOCK}
        elif record.name == "IOAPIC":
            values["redirtbl"][5] = MASK | 0x77
        elif record.name == "LAPIC_REGS":
            page = bytearray(record.data)
            page[0x110:0x114] = (1 << SELF - 32).to_bytes(4, "little")
            page[0x80] = 0x50
            out.append(Record(record.code, 0, bytes(page)))
            continue
        out.append(build_record(record.name, values, record.instance))
    return tuple(out)


def machine(keeper: type[Keeper] = Keeper) -> Machine:
    config = MachineConfig(machine="isapc", memory=1 << 20, firmware=builtin_bios(), bios=True, keeper=keeper)
    return build_machine(config)


def kept(found: tuple[Record, ...], *, borrowed: bool) -> dict[str, Any]:
    keeper = XenKeeper.__new__(XenKeeper)
    keeper.xen = SimpleNamespace(records=lambda: found, borrowed=borrowed)  # type: ignore[assignment]
    return keeper.kept_states(machine().save().devices, 0)


def test_they_are_xens() -> None:
    states = kept(records(), borrowed=True)
    assert set(states) == {"pic", "lapic", "ioapic", "rtc"}
    assert bytes(states["rtc"].ram[:14]) == CLOCK
    assert (states["lapic"].tpr, states["ioapic"].entries[5]) == (0x50, MASK | 0x77)


@pytest.mark.parametrize(("vector", "borrowed", "kind", "back"), [
    (TICK, False, 0, True), (SELF, False, 0, True), (TICK, True, 0, False), (TICK, False, 2, False),
])  # fmt: skip
def test_an_interrupt_that_xen_was_about_to_deliver_is_a_request(
    vector: int, borrowed: bool, kind: int, back: bool
) -> None:
    """Of a vCPU that is the guest's: a borrowed one has none, what was acknowledged for it has been put back."""
    states = kept(records(1 << 31 | kind << 8 | vector), borrowed=borrowed)
    pic, lapic = states["pic"].master, states["lapic"]
    served = {name for name, bit in (("pic", pic.isr & 1), ("lapic", lapic.isr >> SELF & 1)) if bit}
    asked = {name for name, bit in (("pic", pic.edges & 1), ("lapic", lapic.irr >> SELF & 1)) if bit}
    given = {"pic" if vector == TICK else "lapic"} if back else set()
    assert (served, asked) == ({"pic", "lapic"} - given, given)


class Knowing(Keeper):
    """A keeper that knows better, as one of Xen's does."""

    def kept_states(self, states: Mapping[str, Any], now: int) -> dict[str, Any]:
        return kept(records(), borrowed=True)


def test_a_stream_has_what_the_keeper_knows_better() -> None:
    pieces: list[bytes] = []
    convert.save_stream(machine(Knowing), pieces.append)
    found = parse_file(b"".join(pieces)).records
    rtc, ioapic, apic = (hvm.find(found, name) for name in ("RTC", "IOAPIC", "LAPIC_REGS"))
    assert rtc is not None and ioapic is not None and apic is not None
    assert rtc.values()["cmos_data"] == CLOCK
    assert ioapic.values()["redirtbl"][5] == MASK | 0x77
    assert apic.data[0x80] == 0x50
    assert len([record for record in found if record.name == "LAPIC"]) == 1
