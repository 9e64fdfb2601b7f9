"""An HVM save context: records, each with a type, an instance (the vCPU, or the chip) and a length.

Source: Xen 4.17, xen/include/public/hvm/save.h (struct hvm_save_descriptor) and arch-x86/hvm/save.h. The first record
is HEADER, the last END. Records of a type that is not known are kept as bytes; a known type of another length than
its layout's is of another Xen, and refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from construct import Int16ul, Int32ul

from xenbridge.wire import hvm_devices as devices
from xenbridge.wire.errors import WireError
from xenbridge.wire.hvm_cpu import CPU
from xenbridge.wire.schema import Buffer, Layout, Values

DESCRIPTOR = Layout(
    "HVM record header",
    "Xen 4.17, xen/include/public/hvm/save.h, struct hvm_save_descriptor",
    "typecode" / Int16ul,
    "instance" / Int16ul * "the vCPU, or which of several chips",
    "length" / Int32ul * "of what follows, in bytes",
)

END_CODE, HEADER_CODE, CPU_CODE = 0, 1, 2
#: Type code to the layouts it has had, the oldest first.
LAYOUTS: Mapping[int, tuple[Layout, ...]] = MappingProxyType({
    HEADER_CODE: (devices.HEADER,), CPU_CODE: (CPU,), 3: (devices.PIC,), 4: (devices.IOAPIC,),
    5: (devices.LAPIC, devices.LAPIC_X2), 6: (devices.LAPIC_REGS,), 7: (devices.PCI_IRQ,), 8: (devices.ISA_IRQ,),
    9: (devices.PCI_LINK,), 10: (devices.PIT,), 11: (devices.RTC,), 12: (devices.HPET,), 13: (devices.PMTIMER,),
    14: (devices.MTRR,), 15: (devices.VIRIDIAN_DOMAIN,), 16: (devices.CPU_XSAVE,), 17: (devices.VIRIDIAN_VCPU,),
    18: (devices.VMCE_VCPU,), 19: (devices.TSC_ADJUST,), 20: (devices.CPU_MSR,),
})  # fmt: skip
#: Types whose layout is a beginning, behind which more follows.
OPEN_ENDED = frozenset((16, 20))
CODES: Mapping[str, int] = MappingProxyType({layouts[0].name: code for code, layouts in LAYOUTS.items()})
#: What a record may have at most: instances are 16 bits wide, and no domain has a context this large.
MAX_RECORDS = 1 << 16
#: MSRs that one CPU_MSR record may have: Xen 4.17 saves about ten.
MAX_MSRS = 1 << 12


def name_of(code: int) -> str:
    """ "CPU", or "type 77" for one that is not known."""
    return LAYOUTS[code][0].name if code in LAYOUTS else "END" if code == END_CODE else f"type {code}"


@dataclass(frozen=True)
class Record:
    """One record; `offset` is that of its data in the file it came from."""

    code: int
    instance: int
    data: bytes
    offset: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        return name_of(self.code)

    @property
    def layout(self) -> Layout | None:
        """By type and length; None for a type that is not known. Raises WireError for a length that is not."""
        layouts = LAYOUTS.get(self.code)
        if layouts is None:
            return None
        for layout in layouts:
            if layout.size == len(self.data) or (self.code in OPEN_ENDED and layout.size <= len(self.data)):
                return layout
        if len(self.data) < layouts[0].size:
            layouts[0].short(self.offset, len(self.data))
        known = " or ".join(str(layout.size) for layout in layouts)
        raise WireError(self.name, "", self.offset, f"{len(self.data)} bytes, where {known} are known: it was saved by "
                        "another Xen than 4.17 to 4.21")  # fmt: skip

    def values(self) -> Values:
        """The fields; an unknown type has one, `data`. Raises WireError."""
        layout = self.layout
        if layout is None:
            return {"data": self.data}
        values = layout.parse(self.data)
        if self.code == CODES["CPU_MSR"]:
            self._check_msrs(values["count"])
            at, size = devices.CPU_MSR.size, devices.MSR_ENTRY.size
            places = range(at, len(self.data), size)
            values["msrs"] = [devices.MSR_ENTRY.parse(self.data, place) for place in places]
        elif self.code in OPEN_ENDED:
            values["rest"] = self.data[layout.size :]
        return values

    def check(self) -> None:
        """Raises WireError where `values` would, without the cost of making them."""
        if self.layout is not None and self.code == CODES["CPU_MSR"]:
            self._check_msrs(devices.CPU_MSR.parse(self.data)["count"])

    def _check_msrs(self, count: int) -> None:
        size, first = devices.MSR_ENTRY.size, devices.CPU_MSR.size
        if len(self.data) != first + count * size:
            raise WireError(self.name, "count", self.offset, f"{count} entries of {size} bytes in {len(self.data)} "
                            f"bytes, of which {first} are before them")  # fmt: skip
        if count > MAX_MSRS:
            raise WireError(self.name, "count", self.offset, f"{count} entries, of which {MAX_MSRS} are more than any "
                            "Xen has")  # fmt: skip


def build_record(name: str, values: Mapping[str, Any], instance: int = 0) -> Record:
    """A record of a known type. Raises WireError for a field that is missing or does not fit."""
    code = CODES[name]
    layout = LAYOUTS[code][0]
    if name == "LAPIC" and "x2apic_id" in values:
        layout = devices.LAPIC_X2
    values, tail = dict(values), b""
    if name == "CPU_MSR":
        entries = values.pop("msrs", [])
        values.setdefault("_rsvd", 0)
        values["count"] = len(entries)
        tail = b"".join(devices.MSR_ENTRY.build({"_rsvd": 0, **entry}) for entry in entries)
    elif code in OPEN_ENDED:
        tail = values.pop("rest", b"")
    return Record(code, instance, layout.build(values) + tail)


def parse_context(data: Buffer, start: int = 0, end: int | None = None) -> tuple[Record, ...]:
    """The records from HEADER to END, without END, of bytes `start` to `end`, all of which they must be.

    Raises WireError."""
    stop = len(data) if end is None else end
    records: list[Record] = []
    seen: set[tuple[int, int]] = set()
    at = start
    while True:
        if at >= stop and records:
            raise WireError(name_of(END_CODE), "", at, "it is missing")
        head = DESCRIPTOR.parse(data, at, stop)
        code, length = head["typecode"], head["length"]
        if not records and code != HEADER_CODE:
            raise WireError("HVM context", "typecode", at, f"it begins with {name_of(code)}, not with HEADER")
        at += DESCRIPTOR.size
        if length > stop - at:
            raise WireError(name_of(code), "length", at - 4, f"{length} bytes, of which {max(0, stop - at)} are there")
        if code == END_CODE:
            break
        if len(records) >= MAX_RECORDS:
            raise WireError(name_of(code), "", at, f"more than {MAX_RECORDS} records")
        record = Record(code, head["instance"], bytes(data[at : at + length]), at)
        _check(record)
        if (code, record.instance) in seen and code in LAYOUTS:
            raise WireError(record.name, "instance", at - 6, f"{record.instance}: it has a record already")
        seen.add((code, record.instance))
        records.append(record)
        at += length
    if length or at != stop:
        raise WireError("END", "", at, f"{stop - at} bytes follow the last record")
    return tuple(records)


def _check(record: Record) -> None:
    record.check()
    if record.code != HEADER_CODE:
        return
    values = record.values()
    if values["magic"] != devices.HEADER_MAGIC:
        raise WireError("HEADER", "magic", record.offset, f"{values['magic']:#x}, not {devices.HEADER_MAGIC:#x}")
    if values["version"] != devices.HEADER_VERSION:
        raise WireError("HEADER", "version", record.offset + 4, f"{values['version']}: only version "
                        f"{devices.HEADER_VERSION} is known, so a newer Xen saved it")  # fmt: skip


def build_context(records: Iterable[Record]) -> bytes:
    """The bytes of `records` with END behind them."""
    out = bytearray()
    for record in (*records, Record(END_CODE, 0, b"")):
        head = {"typecode": record.code, "instance": record.instance, "length": len(record.data)}
        out += DESCRIPTOR.build(head) + record.data
    return bytes(out)


def find(records: Iterable[Record], name: str, instance: int = 0) -> Record | None:
    """The record of that name and instance."""
    code = CODES[name]
    return next((r for r in records if r.code == code and r.instance == instance), None)
