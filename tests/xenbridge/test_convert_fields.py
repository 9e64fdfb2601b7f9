"""Every field of every record that a machine has a place for comes back as it went in; which have none is a list.

The fields are those of the schemas (xenbridge/wire), so that a new one has to be thought of. What goes in is in some
case another value than a machine's at power-on, so that a field which conversion drops, either way, is a difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from emu.firmware.roms import builtin_bios
from emu.machine import Machine, MachineConfig, build_machine
from emu.x86.state import Fpu
from xen_samples import sample
from xenbridge import convert
from xenbridge.convert_checks import ConvertError
from xenbridge.convert_fpu import build_fxsave
from xenbridge.wire import hvm
from xenbridge.wire.hvm import Record, build_record
from xenbridge.wire.hvm_cpu import SEGMENTS, TABLES
from xenbridge.wire.stream import V2E_LAYOUT
from xenbridge.xen.files import parse_file

Fields = dict[str, Any]
#: Records with nothing in them that a machine keeps: tests/xenbridge/test_convert_notices.py.
NOT_KEPT = {"CPU_XSAVE", "VIRIDIAN_DOMAIN", "VIRIDIAN_VCPU", "VMCE_VCPU"}
#: Fields that are not carried over, as patterns, and why.
ELSEWHERE = {
    r"HEADER\..*": "of who saved it",
    r"CPU\.(msr_flags|pad0|error_code)": "unused; of an event that was on its way",
    r"CPU\.pending_event": "test_convert_events.py",
    r"PIC/[01]\.int_output": "made of the others",
    r"IOAPIC\.(base_address|redirtbl\[(2[4-9]|3.|4.)\])": "fixed; inputs that a PC has not",
    r"LAPIC\.(x2apic_id|rsvd_zero)": "from Xen 4.21",
    r"LAPIC_REGS\.(030|0a0|390)": "version, PPR and current count: made of others",
    r"PCI_IRQ\..*": "PCI devices are as at power-on",
    r"PCI_LINK\.pad0|PIT\.pad0|RTC\.(pad0|rtc_offset)": "unused",
    r"HPET\.(res\d|timers\[.\]\.(fsb|res4))": "reserved",
    r"MTRR\.msr_mtrr_cap": "the model's",
    r"TSC_ADJUST\..*": "it carries the TSC here",
    r"V2E\.(version|_res1|uarts\[.\]\._pad)": "fixed",
}
#: Offsets of the local APIC's registers (SDM vol. 3A, table 11-1).
APIC = (
    0x20, 0x30, 0x80, 0xA0, 0xD0, 0xE0, 0xF0, *range(0x100, 0x280, 0x10), 0x280, 0x300, 0x310,
    *range(0x320, 0x380, 0x10), 0x380, 0x390, 0x3E0,
)  # fmt: skip
FPU = Fpu(0x27F, 0x3881, 0x81, 0x123, mxcsr=0x1FA1, fip=0x7FFF_1234_5678, fdp=0x7FFF_8765_4321,
          st=[0x3FFF_8000_0000_0000_0000 + n for n in range(8)], xmm=[0xA0 << 120 | n for n in range(16)])  # fmt: skip
SHORT_FPU = Fpu(0x37E, 0, 0x42, 0x55, mxcsr=0x9F80, fip=0x1234, fcs=0x10, fdp=0x5678, fds=0x18,
                st=[n + 1 for n in range(8)], xmm=[n + 1 << 64 for n in range(16)])  # fmt: skip
GENERAL = ("rax", "rbx", "rcx", "rdx", "rbp", "rsi", "rdi", "rsp", *(f"r{n}" for n in range(8, 16)))
LONG_DATA, LONG_CODE, TSS, LDT = 0xC93, 0xA9B, 0x8B, 0x82  #: as Xen has access rights
FIXED_TYPES = (0, 1, 4, 5, 6)


def _segments(base: int) -> Fields:
    """Every selector, base, limit and right another one."""
    out: Fields = {}
    for n, name in enumerate(SEGMENTS):
        rights = {"cs": LONG_CODE, "tr": TSS, "ldtr": LDT}.get(name, LONG_DATA | (n & 1) << 8)
        out |= {f"{name}_sel": 8 * n + 8 | (4 if name in ("fs", "gs") else 0), f"{name}_arbytes": rights}
        out |= {
            f"{name}_base": base + 0x1000 * n,
            f"{name}_limit": (0x100 + n << 12 | 0xFFF) if rights & 0x800 else 0x100 + n,
        }
    for n, name in enumerate(TABLES):
        limit = (0x100 + n << 12 | 0xFFF) if rights & 0x800 else 0x100 + n
        out |= {f"{name}_base": base + 0x1000 * n, f"{name}_limit": limit}
    for n, name in enumerate(TABLES):
        out |= {f"{name}_base": base + 0x20000 + 0x1000 * n, f"{name}_limit": 0x7F0 + n}
    return out


def _channel(**values: int) -> Fields:
    return {"count": 0x10000, "latched_count": 0, "count_latched": 0, "status_latched": 0, "status": 0, "read_state": 3,
            "write_state": 3, "write_latch": 0, "rw_mode": 3, "mode": 3, "bcd": 0, "gate": 1} | values  # fmt: skip


def _registers(**values: int) -> dict[int, int]:
    return {int(name[1:], 16): value for name, value in values.items()}


#: A 64-bit guest in the midst of everything.
LONG: dict[str, Fields] = {
    "CPU": {
        **{name: 0x1111_0000_0000_0000 + n for n, name in enumerate(GENERAL)}, **_segments(0xFFFF_8000_0000_0000),
        "fpu_regs": build_fxsave(FPU), "flags": 1, "rip": 0xFFFF_8000_0123_4567, "rflags": 0x3246 | 0x40000,
        "cr0": 0x80050033, "cr2": 0x7FFF_0000_0002, "cr3": 0x123000, "cr4": 0x6B0, "msr_efer": 0xD01,
        "dr0": 0x7F00_0000_0001, "dr1": 0x7F00_0000_0002, "dr2": 0x7F00_0000_0003, "dr3": 0x7F00_0000_0004,
        "dr6": 0xFFFF4FF2, "dr7": 0x33300455, "sysenter_cs": 0x10, "sysenter_esp": 0xFFFF_8000_0000_1001,
        "sysenter_eip": 0xFFFF_8000_0000_1002, "shadow_gs": 0xFFFF_8000_0000_1003, "msr_lstar": 0xFFFF_8000_0000_1004,
        "msr_star": 0x0023_0010_0000_1005, "msr_cstar": 0xFFFF_8000_0000_1006, "msr_syscall_mask": 0x47700,
        "msr_tsc_aux": 0x1007, "tsc": 0x1234_5678_9ABC,
    },
    # A request of the 8254's, whose line is high; others end with their devices.
    "PIC/0": {"irr": 1, "imr": 0xA1, "isr": 4, "irq_base": 0x30, "init": 0x30, "mode": 0x51, "elcr": 0x0C},
    "PIC/1": {"irr": 0, "imr": 0x5B, "isr": 0x20, "irq_base": 0x38, "init": 0x60, "mode": 0x21, "elcr": 0xA0},
    "IOAPIC": {"ioregsel": 0x12, "id": 5, "redirtbl": [
        *((n + 1) << 56 | 1 << 16 | (n & 5) << 11 | (n & 1) << 15 | (n & 1) << 14 | (n & 1) << 13 | 0x40 + n
          for n in range(24)), *[1 << 16] * 24]},
    "LAPIC": {"apic_base_msr": 0xFEE00900, "disabled": 0, "timer_divisor": 16, "tdt_msr": 0},
    "LAPIC_REGS": _registers(
        x020=3 << 24, x080=0x50, x0d0=0x04000000, x0e0=0x0FFFFFFF, x0f0=0x1E7, x110=2, x120=4, x170=8, x180=0, x190=2,
        x1b0=0x10, x1d0=0x20, x220=0x40, x240=0x80, x270=0x100, x280=0x40, x300=0x8C041, x310=0x05000000, x320=0x20051,
        x330=0x10052, x340=0x10053, x350=0x18754, x360=0x10455, x370=0x10056, x380=0x123456, x3e0=3,
    ),
    "ISA_IRQ": {"lines": 1},
    "PCI_LINK": {"route": [3, 5, 10, 11]},
    "PIT": {"channels": [
        _channel(count=0x2345, latched_count=0x1122, count_latched=3, mode=2),
        _channel(count=1234, bcd=1, mode=3, write_state=4, write_latch=0x77, read_state=4),
        _channel(count=0x56, rw_mode=1, read_state=1, write_state=1, mode=0, gate=0, status_latched=1, status=0xD0),
    ], "speaker_data_on": 1},
    "RTC": {"cmos_data": bytes((0x11, 0x21, 0x12, 0x22, 0x13, 0x23, 4, 0x15, 0x06, 0x24, 0x26, 0x42, 0x20, 0x80)),
            "cmos_index": 0x0C},
    "HPET": {"capability": 20_000_000 << 32 | 0x8086A201, "config": 1, "isr": 2, "mc64": 0x1_2345_6789, "timers": [
        {"config": 0xF0000000000030 | n << 9 | (4, 0x0C, 2)[n], "cmp": 0x9_0000_0000 + n} for n in range(3)],
        "period": [0x5000, 0x5001, 0x5002]},
    "PMTIMER": {"tmr_val": 0x89ABCDEF, "pm1a_sts": 0x100, "pm1a_en": 0x20},
    "MTRR": {
        "msr_pat_cr": 0x0105_0406_0007_0107, "msr_mtrr_def_type": 0xC06,
        "msr_mtrr_var": [(0x100000 * (n + 1) | FIXED_TYPES[n // 2 % 5]) if not n & 1 else 0xF_FFF0_0800 - n * 0x1000
                         for n in range(16)],
        "msr_mtrr_fixed": [sum(FIXED_TYPES[(n + 1 + byte * (n % 3 + 1)) % 5] << 8 * byte for byte in range(8))
                           for n in range(11)],
    },
    "CPU_MSR": {"msrs": [{"index": 0x1A0, "_rsvd": 0, "val": 0x40801 | 1 << 12}]},
    "V2E": {"flags": 0b01000, "lapic_tick": 7, "uarts": [
        {"ier": 0x05, "fcr": 0xC1, "lcr": 0x1B, "mcr": 0x0B, "scr": 0x5A, "divisor": 0x000C},
        {"ier": 0x02, "fcr": 0x81, "lcr": 0x07, "mcr": 0x06, "scr": 0xA5, "divisor": 0x1203},
    ]},
}  # fmt: skip
#: What the others cannot have beside it.
FLAT: dict[str, Fields] = {
    "CPU": {
        **{name: 0x1111_0000 + n for n, name in enumerate(GENERAL[:8])}, **dict.fromkeys(GENERAL[8:], 0),
        **_segments(0x400000), "cs_arbytes": LONG_CODE & ~0x200 | 0x400,
        "fpu_regs": build_fxsave(SHORT_FPU), "rip": 0x1234_5678, "rflags": 0x10A46, "cr0": 0x60000013,
        "cr4": 0x10, "msr_efer": 0x800, "dr6": 0xFFFF8FF0, "dr7": 0x2400,
    },
    "PIC/0": {"irr": 1, "imr": 0xFE, "isr": 0, "irq_base": 0x50, "init": 0x06, "mode": 0x4E, "elcr": 4},
    "PIC/1": {"irr": 1, "imr": 0xEF, "isr": 1, "irq_base": 0x58, "init": 0x00, "mode": 0x10, "elcr": 0},
    "LAPIC": {"apic_base_msr": 0xFEE00900, "disabled": 2, "timer_divisor": 4, "tdt_msr": 0x7_0000_1234_5678},
    "LAPIC_REGS": {**LONG["LAPIC_REGS"], 0xF0: 0xEF, 0x320: 0x40061, 0x380: 0, 0x3E0: 1},
    "ISA_IRQ": {"lines": 0x101},
    "PCI_LINK": {"route": [0, 9, 0, 15]},
    "PIT": {"channels": [
        _channel(count=0x9A00, rw_mode=2, read_state=2, write_state=2, mode=4, count_latched=2, latched_count=0x3400,
                 bcd=0, gate=0, status_latched=1, status=0xE8),
        _channel(count=0x21, rw_mode=1, read_state=1, write_state=1, mode=5, count_latched=1, latched_count=0x33,
                 status_latched=1, status=0xD4, gate=0),
        _channel(count=9876, bcd=1, mode=1, count_latched=2, latched_count=0x99AA, read_state=4, write_state=4,
                 write_latch=0x66, status_latched=1, status=0xF3),
    ], "speaker_data_on": 0},
    "RTC": {"cmos_data": bytes((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0x2A, 0x56, 0xF0, 0x80)), "cmos_index": 0x33},
    "HPET": {"config": 2, "isr": 5, "mc64": 0x7777_8888_9999},
    "V2E": {"flags": 0b10100, "lapic_tick": 10},
}  # fmt: skip
#: What remains.
HALTED: dict[str, Fields] = {
    "CPU": {"ldtr_arbytes": 2, "tr_arbytes": 0x28B},
    "PIC/0": {"irr": 0},
    "ISA_IRQ": {"lines": 0},
    "LAPIC": {"apic_base_msr": 0xFEF00900},
    "LAPIC_REGS": {**LONG["LAPIC_REGS"], **{at: 1 << 16 + (at >> 4 & 15) for at in range(0x100, 0x280, 0x10)}},
    "PIT": LONG["PIT"] | {"channels": [
        _channel(count=8765, bcd=1, mode=0, write_state=4, write_latch=0x55), *LONG["PIT"]["channels"][1:],
    ]},
    "V2E": {"flags": 1},
}  # fmt: skip
CASES: dict[str, Mapping[str, Fields]] = {
    "long": LONG,
    "flat": {name: fields | FLAT.get(name, {}) for name, fields in LONG.items()},
    "halted": {name: fields | HALTED.get(name, {}) for name, fields in LONG.items()},
}


def built() -> Machine:
    return build_machine(MachineConfig(machine="pc", memory=2 << 20, firmware=builtin_bios(), bios=True))


def _record(key: str, fields: Fields, like: Mapping[str, Record]) -> Record:
    """`fields` in the place of those of the sample's."""
    name, _, instance = key.partition("/")
    if name == "LAPIC_REGS":
        page = bytearray(like[key].data)
        for at, value in fields.items():
            page[int(at) : int(at) + 4] = value.to_bytes(4, "little")
        return Record(hvm.CODES[name], 0, bytes(page))
    values = like[key].values() if key in like else {"msrs": []}
    if name == "HPET":
        fields = fields | {"timers": [{"fsb": 0, "res4": 0} | timer for timer in fields["timers"]]}
    return build_record(name, values | fields, int(instance or 0))


def keyed(records: tuple[Record, ...]) -> dict[str, Record]:
    return {f"{r.name}/{r.instance}" if r.name == "PIC" else r.name: r for r in records}


def source(case: Mapping[str, Fields], params: Mapping[int, int] | None = None) -> Any:
    """A stream that is open, as `convert.load` asks it."""
    like = keyed(tuple(hvm.parse_context(sample("s_hvmctx.bin"))))
    records = {key: _record(key, fields, like) for key, fields in case.items() if key != "V2E"}
    uarts = [{"_pad": 0} | uart for uart in case["V2E"]["uarts"]]
    return SimpleNamespace(
        records=tuple((like | records).values()), pages={7: 0}, params=params or {},
        ours=case["V2E"] | {"uarts": uarts}, read_physical=lambda address, length: bytes(length),
    )  # fmt: skip


def flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from flat(f"{name}.{key}", part)
    elif isinstance(value, list):
        for n, part in enumerate(value):
            yield from flat(f"{name}[{n}]", part)
    else:
        yield name, value


def fields_of(records: tuple[Record, ...], ours: Mapping[str, Any]) -> dict[str, Any]:
    """By path, of each record and of v2e's own."""
    found: dict[str, Any] = dict(flat("V2E", dict(ours)))
    for key, record in keyed(records).items():
        if record.name == "LAPIC_REGS":
            found |= {f"{key}.{at:03x}": int.from_bytes(record.data[at : at + 4], "little") for at in APIC}
        else:
            found |= flat(key, record.values())
    return found


def kept(path: str) -> bool:
    name = path.partition(".")[0]
    return name not in NOT_KEPT and name != "CPU_MSR" and not any(re.fullmatch(one, path) for one in ELSEWHERE)


def saved(machine: Machine) -> Any:
    pieces: list[bytes] = []
    convert.save_stream(machine, pieces.append)
    return parse_file(b"".join(pieces))


def loaded(case: Mapping[str, Fields], params: Mapping[int, int] | None = None) -> Machine:
    machine = built()
    convert.load(machine, source(case, params))
    return machine


@pytest.mark.parametrize("name", CASES)
def test_every_field_comes_back(name: str) -> None:
    given = source(CASES[name])
    before = fields_of(given.records, given.ours)
    out = saved(loaded(CASES[name]))
    after = fields_of(out.records, out.ours)
    lost = {path: (value, after.get(path)) for path, value in before.items() if kept(path) and after.get(path) != value}
    assert lost == {}


def test_each_of_them_is_in_some_case_other_than_at_power_on() -> None:
    """Or a field that is dropped would come back all the same."""
    machine = built()
    fresh = saved(machine)
    same = {path for path, value in fields_of(fresh.records, fresh.ours).items() if kept(path)}
    first = fields_of(fresh.records, fresh.ours)
    for case in CASES.values():
        given = source(case)
        found = fields_of(given.records, given.ours)
        same -= {path for path in same if found[path] != first[path]}
    assert same == {"CPU.flags"}  # FPU_INITIALISED


def test_the_records_are_those_of_the_schema() -> None:
    """Of each layout all fields are compared, or named in `ELSEWHERE`."""
    given = source(LONG)
    found = fields_of(given.records, given.ours)
    for layouts in hvm.LAYOUTS.values():
        name = layouts[0].name
        if name in NOT_KEPT or name in ("CPU_MSR", "LAPIC_REGS"):
            continue
        key = "PIC/0" if name == "PIC" else name
        for field in layouts[0].fields():
            assert any(path.startswith(f"{key}.{field.name}") for path in found), (name, field.name)
    assert {field.name for field in V2E_LAYOUT.fields()} >= set(given.ours)
    for pattern in ELSEWHERE:
        assert pattern.startswith(("V2E", "LAPIC")) or any(re.fullmatch(pattern, path) for path in found), pattern


@pytest.mark.parametrize(("location", "base"), [(1, 0xB000), (0, 0x1F40)])
def test_the_ports_of_the_pm_timer_come_back(location: int, base: int) -> None:
    """HVM_PARAM_ACPI_IOPORTS_LOCATION."""
    machine = loaded(LONG, {convert.ACPI_PORTS: location})
    assert machine.board.chipset is not None
    assert machine.board.chipset.pm.pm_base == base
    assert saved(machine).params.get(convert.ACPI_PORTS, 0) == location


def test_what_no_record_of_the_machines_own_shows_is_in_the_cpu() -> None:
    """CR8 is the APIC's TPR, and an MSR of CPU_MSR one of the model's; a machine writes neither of them."""
    state = loaded(LONG).cpu_state()
    assert (state.cr8, state.msrs[0x1A0]) == (5, 0x41801)


def test_an_nmi_on_its_way_into_the_cpu_is_pending() -> None:
    event = 1 << 31 | 2 << 8 | 2
    assert loaded({**LONG, "CPU": LONG["CPU"] | {"pending_event": event}}).cpu_state().nmi_pending


def test_an_interrupt_of_the_local_apic_on_its_way_into_the_cpu_is_requested_again() -> None:
    """31h is in service (offset 110h, bit 17), and nothing higher; it is no more, and a request."""
    registers = dict.fromkeys(range(0x100, 0x280, 0x10), 0) | {0x110: 1 << 17}
    case = {
        **LONG, "CPU": LONG["CPU"] | {"pending_event": 1 << 31 | 0x31}, "LAPIC_REGS": LONG["LAPIC_REGS"] | registers,
    }  # fmt: skip
    page = keyed(saved(loaded(case)).records)["LAPIC_REGS"].data
    assert int.from_bytes(page[0x110:0x114], "little") == 0
    assert int.from_bytes(page[0x210:0x214], "little") == 1 << 17


def test_an_update_of_the_clock_that_was_in_progress_is_over() -> None:
    """UIP is a moment's, of a clock whose second begins anew."""
    data = bytearray(LONG["RTC"]["cmos_data"])
    data[0xA] |= 0x80
    out = saved(loaded({**LONG, "RTC": LONG["RTC"] | {"cmos_data": bytes(data)}}))
    assert keyed(out.records)["RTC"].values()["cmos_data"][0xA] == data[0xA] & 0x7F


@pytest.mark.parametrize(("name", "levels"), [("flat", [True, True]), ("halted", [False, False])])
def test_the_hpet_knows_the_lines_that_it_displaces(name: str, levels: list[bool]) -> None:
    """Those of the 8254 and the clock, which are at the controllers again when legacy replacement ends."""
    machine = loaded(CASES[name])
    assert machine.board.chipset is not None
    assert machine.board.chipset.hpet.save().displaced == levels


@pytest.mark.parametrize("base", [1 << 40 | 0x900, 0xFEE00B00, 0xFEE00500])
def test_a_base_of_the_local_apic_that_wrmsr_would_refuse_is_refused(base: int) -> None:
    """Beyond the physical addresses, with a reserved bit, with x2APIC mode and not enabled (SDM vol. 3A, 11.4.4)."""
    with pytest.raises(ConvertError, match=f"IA32_APIC_BASE = {base:#x} in the file"):
        loaded({**LONG, "LAPIC": LONG["LAPIC"] | {"apic_base_msr": base}})
