"""The records of an HVM context as devices to look at: by the models of this project where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emu.clock import Clock
from emu.devices.hpet import Hpet
from emu.devices.ioapic import IoApic
from emu.devices.lapic import Lapic
from emu.devices.pic8259 import Pic8259Pair
from emu.devices.pit8254 import Pit8254, Port61
from emu.devices.rtc146818 import Rtc
from emu.irq import IntrPin
from emu.views import DeviceView, FieldView
from emu.x86.cpuid import DEFAULT_MODEL, MODELS
from xenbridge import convert_irqs as irqs
from xenbridge import convert_timers as timers
from xenbridge.convert_cpu import pending_event
from xenbridge.uncounted import lapic_view, pit_view, port61_view
from xenbridge.wire import hvm
from xenbridge.wire.hvm import Record

#: Shown by a device's own view, or as the CPU's registers.
_BY_DEVICE = frozenset(("PIC", "IOAPIC", "LAPIC", "LAPIC_REGS", "PIT", "RTC", "HPET"))
#: At most so many bytes of a record that has no fields.
_SHOWN_BYTES = 32
_EVENT_TYPES = ("external interrupt", "reserved", "NMI", "exception", "software interrupt", "privileged exception",
                "software exception", "other")  # fmt: skip


def views(records: tuple[Record, ...], cpu: int) -> tuple[DeviceView, ...]:
    """Devices first, then each other record of the domain and of this vCPU."""
    found = [*_devices(records, cpu)]
    for record in records:
        if record.name in _BY_DEVICE or (_of_cpu(record) and record.instance != cpu):
            continue
        found.append(_cpu_view(record) if record.code == hvm.CPU_CODE else _record_view(record))
    return tuple(found)


def _of_cpu(record: Record) -> bool:
    """Its instance is a vCPU."""
    return record.name in ("CPU", "MTRR", "CPU_XSAVE", "VIRIDIAN_VCPU", "VMCE_VCPU", "TSC_ADJUST", "CPU_MSR")


def _nothing(*_: Any) -> None:
    """No line leads anywhere."""


def _devices(records: tuple[Record, ...], cpu: int) -> Iterator[DeviceView]:
    clock = Clock(lambda: 0)
    pic = Pic8259Pair(IntrPin())
    if (chips := irqs.pic_state(records, pic.save())) is not None:
        pic.restore(chips)
        yield pic.view()
    pit = Pit8254(clock, _nothing)
    if (found := timers.pit_state(records, 0)) is not None:
        counters, port = found
        pit.restore(counters)
        port61 = Port61(pit, clock)
        port61.restore(port)
        yield pit_view(pit.view(), _not_programmed(records))
        yield port61_view(port61.view(), port.value)
    rtc = Rtc(clock, _nothing)
    if (time := timers.rtc_state(records, rtc.save(), 0)) is not None:
        rtc.restore(time)
        yield rtc.view()
    apic = Lapic(clock, IntrPin(), lambda: 0, MODELS[DEFAULT_MODEL].with_apic())
    if (local := irqs.lapic_state(records, 0, cpu)) is not None:
        apic.restore(local)
        yield lapic_view(apic.view())
    io = IoApic(IntrPin(), lambda message: False)
    if (inputs := irqs.ioapic_state(records, irqs.isa_lines(records))) is not None:
        io.restore(inputs)
        yield io.view()
    hpet = Hpet(clock, _nothing, (_nothing, _nothing))
    if (events := timers.hpet_state(records, 0)) is not None:
        hpet.restore(events)
        yield hpet.view()


def _not_programmed(records: tuple[Record, ...]) -> tuple[str, ...]:
    """The names of the 8254's counters that have had no control word."""
    record = hvm.find(records, "PIT")
    channels = [] if record is None else record.values()["channels"]
    return tuple(f"counter {n}" for n, c in enumerate(channels) if c["mode"] == timers.NOT_PROGRAMMED)


def _cpu_view(record: Record) -> DeviceView:
    values = record.values()
    event = pending_event(values)
    text = "none"
    if event is not None:
        vector, kind = event
        text = f"{_EVENT_TYPES[kind]} {vector:#04x}"
    fields = (
        FieldView("TSC", values["tsc"]),
        FieldView("event", values["pending_event"], text),
        FieldView("error code", values["error_code"]),
        FieldView("flags", values["flags"], "FPU initialised" if values["flags"] & 1 else "FPU not initialised"),
    )
    return DeviceView("cpu", f"record CPU of vCPU {record.instance}", "what is no register of it", fields)


def _record_view(record: Record) -> DeviceView:
    """Any record, field by field."""
    name = record.name.lower().replace(" ", "-")
    instance = f", instance {record.instance}" if record.instance else ""
    where = f"offset {record.offset:#x}, {len(record.data)} bytes{instance}"
    fields = tuple(_fields(record.values()))
    return DeviceView(name, f"record {record.name}", where, fields)


def _fields(values: dict[str, Any], prefix: str = "") -> Iterator[FieldView]:
    for name, value in values.items():
        if name.startswith(("_", "pad", "res")):
            continue
        yield from _field(prefix + name, value)


def _field(name: str, value: Any) -> Iterator[FieldView]:
    if isinstance(value, dict):
        yield from _fields(value, f"{name}.")
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from _field(f"{name}[{n}]", item)
    elif isinstance(value, bytes):
        more = f" ... {len(value)} bytes" if len(value) > _SHOWN_BYTES else ""
        yield FieldView(name, value[:_SHOWN_BYTES].hex() + more)
    else:
        yield FieldView(name, value)
