"""Interrupt controllers to and from the PIC, IOAPIC, LAPIC, LAPIC_REGS, ISA_IRQ and PCI_LINK records.

Registers of the local APIC by offset: SDM vol. 3A, table 11-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from emu.devices import ioapic, lapic, pic8259
from emu.devices.lapic_timer import DEADLINE, TimerState
from emu.devices.pic8259 import CASCADE
from emu.devices.pic8259_chip import (
    ICW1,
    ICW1_IC4,
    ICW1_LTIM,
    ICW1_SNGL,
    ICW4_AEOI,
    ICW4_SFNM,
    ICW4_UPM,
    Chip,
    ChipState,
)
from xenbridge.wire import hvm
from xenbridge.wire.hvm import Record, build_record
from xenbridge.wire.hvm_devices import PINS
from xenbridge.wire.schema import Values

#: Bits of the PIC record's `mode`.
_ISR, _POLL, _AEOI, _ROTATE, _SFNM, _SPECIAL, _MASTER = (1 << n for n in range(7))
#: Of its `init`: ICW4 and no ICW3 belong to the sequence.
_IC4, _SNGL = 4, 8
#: An I/O APIC and a local APIC of Xen's guests.
IOAPIC_BASE: Final = 0xFEC00000
#: ns a count of the local APIC's timer in Xen (APIC_BUS_CYCLE_NS, xen/arch/x86/hvm/vlapic.c).
TIMER_TICK: Final = 10
_HARDWARE_OFF, _SOFTWARE_OFF = 1, 2
#: Offset in the register page to the field of the state that has the same bits.
_PLAIN: Final = {0x80: "tpr", 0xD0: "ldr", 0xE0: "dfr", 0xF0: "svr", 0x280: "esr"}
_MASKS: Final = {0x100: "isr", 0x180: "tmr", 0x200: "irr"}


# -- 8259


def chip_state(values: Values, lines: int, *, master: bool) -> ChipState:
    """`lines`: levels of the chip's inputs. A latched edge is a high input here."""
    init, mode = values["init"], values["mode"]
    expects = (init & 3) + 1 if init & 3 else 0
    elcr = values["elcr"] & ~(1 << CASCADE) if master else values["elcr"]
    return ChipState(
        inputs=values["irr"] | lines, edges=values["irr"] & ~elcr, isr=values["isr"], imr=values["imr"],
        icw1=ICW1 | (ICW1_SNGL if expects and init & _SNGL else 0) | (0 if expects and not init & _IC4 else ICW1_IC4),
        icw2=values["irq_base"], icw3=1 << CASCADE if master else CASCADE,
        icw4=ICW4_UPM | (ICW4_AEOI if mode & _AEOI else 0) | (ICW4_SFNM if mode & _SFNM else 0),
        expects=expects, ready=True, lowest=(init >> 4) - 1 & 7, read_isr=bool(mode & _ISR), poll=bool(mode & _POLL),
        special_mask=bool(mode & _SPECIAL), rotate_aeoi=bool(mode & _ROTATE), elcr=elcr,
    )  # fmt: skip


def chip_values(state: ChipState, *, master: bool) -> Values:
    """The PIC record of one chip."""
    chip = Chip(master)
    chip.state = state
    init = 0
    if state.expects:
        init = state.expects - 1 | (_IC4 if state.icw1 & ICW1_IC4 else 0) | (_SNGL if state.icw1 & ICW1_SNGL else 0)
    flags = (
        (_ISR, state.read_isr), (_POLL, state.poll), (_AEOI, bool(state.icw4 & ICW4_AEOI)),
        (_ROTATE, state.rotate_aeoi), (_SFNM, bool(state.icw4 & ICW4_SFNM)), (_SPECIAL, state.special_mask),
        (_MASTER, master),
    )  # fmt: skip
    elcr = 0xFF if state.icw1 & ICW1_LTIM else state.elcr
    return {
        "irr": chip.irr, "imr": state.imr, "isr": state.isr, "irq_base": state.icw2 & 0xF8,
        "init": init | (state.lowest + 1 & 7) << 4, "mode": sum(bit for bit, on in flags if on),
        "elcr": elcr | (1 << CASCADE if master else 0), "int_output": chip.request() is not None,
    }  # fmt: skip


def pic_state(records: tuple[Record, ...], like: pic8259.State) -> pic8259.State | None:
    """Both chips; `like` has the wires of the machine. None where the records are not there."""
    master, slave = (hvm.find(records, "PIC", n) for n in range(2))
    if master is None or slave is None:
        return None
    lines = isa_lines(records)
    return pic8259.State(
        chip_state(master.values(), lines & 0xFF, master=True), chip_state(slave.values(), lines >> 8, master=False),
        [list(wires) for wires in like.lines],
    )  # fmt: skip


def isa_lines(records: tuple[Record, ...]) -> int:
    """Bit n: ISA IRQ n is high."""
    record = hvm.find(records, "ISA_IRQ")
    return 0 if record is None else record.values()["lines"] & 0xFFFF


def rewire(pic: pic8259.State, lines: int) -> list[int]:
    """The machine's own lines come in the place of the file's: `lines` are the IRQs that are high. Requests of the
    others end; gives the IRQs of those that were not masked."""
    dropped = []
    for state, first in ((pic.master, 0), (pic.slave, 8)):
        chip = Chip(not first)
        chip.state = state
        high = lines >> first & 0xFF
        asked = chip.irr & ~state.imr & ~high
        dropped += [first + n for n in range(8) if asked >> n & 1 and first + n != CASCADE]
        state.inputs, state.edges = high, state.edges & high
    slave = Chip(False)
    slave.state = pic.slave
    if slave.request() is not None:
        pic.master.inputs |= 1 << CASCADE
        pic.master.edges |= 1 << CASCADE
    return dropped


def pic_records(state: pic8259.State) -> list[Record]:
    """Both chips' records."""
    return [
        build_record("PIC", chip_values(state.master, master=True), 0),
        build_record("PIC", chip_values(state.slave, master=False), 1),
    ]


# -- I/O APIC


def ioapic_state(records: tuple[Record, ...], lines: int) -> ioapic.State | None:
    """Inputs 24 to 47, which only Xen's has, are left out. `lines`: the ISA IRQs that are high."""
    record = hvm.find(records, "IOAPIC")
    if record is None:
        return None
    values = record.values()
    inputs = lines & ~5 | (4 if lines & 1 else 0)  # the 8254 is on input 2
    entries = [entry & (ioapic.ENTRY_BITS | ioapic.READ_ONLY) for entry in values["redirtbl"][: ioapic.INPUTS]]
    return ioapic.State(values["ioregsel"] & 0xFF, values["id"] & 15, inputs, entries)


def open_beyond(records: tuple[Record, ...]) -> list[int]:
    """Inputs beyond the 82093AA's that are not masked."""
    record = hvm.find(records, "IOAPIC")
    table = [] if record is None else record.values()["redirtbl"]
    return [n for n, entry in enumerate(table) if n >= ioapic.INPUTS and not entry & ioapic.MASK]


def ioapic_record(state: ioapic.State) -> Record:
    """Inputs 24 to 47 are masked."""
    table = [*state.entries, *[ioapic.MASK] * (PINS - ioapic.INPUTS)]
    values = {"base_address": IOAPIC_BASE, "ioregsel": state.select, "id": state.id, "redirtbl": table}
    return build_record("IOAPIC", values)


# -- local APIC


def _word(page: bytes, at: int) -> int:
    return int.from_bytes(page[at : at + 4], "little")


def lapic_state(records: tuple[Record, ...], now: int, cpu: int = 0, tick: int = TIMER_TICK) -> lapic.State | None:
    """The timer's count begins anew at `now` (ns), as it does in Xen. `tick`: ns a count."""
    record, page = hvm.find(records, "LAPIC", cpu), hvm.find(records, "LAPIC_REGS", cpu)
    if record is None or page is None:
        return None
    values, data = record.values(), page.data
    base = values["apic_base_msr"]
    x2apic = base & (lapic.ENABLED | lapic.X2APIC) == lapic.ENABLED | lapic.X2APIC
    state = lapic.State(base, id=_word(data, 0x20) if x2apic else data[0x23])
    for at, name in _PLAIN.items():
        setattr(state, name, _word(data, at))
    for at, name in _MASKS.items():
        setattr(state, name, sum(_word(data, at + 16 * n) << 32 * n for n in range(8)))
    state.icr = _word(data, 0x310) << 32 | _word(data, 0x300)
    state.lvt = [_word(data, 0x320 + 16 * n) for n in range(6)]
    timer = state.lvt[lapic.TIMER]
    state.timer = TimerState(
        timer >> 17 & 3, bool(timer & lapic.MASKED), _word(data, 0x3E0) & 0xB, _word(data, 0x380), now,
        values["tdt_msr"], tick,
    )  # fmt: skip
    return state


def lapic_records(state: lapic.State, current: int, ppr: int) -> list[Record]:
    """`current`: the timer's count now; `ppr`: the processor priority."""
    page = bytearray(1024)

    def put(at: int, value: int) -> None:
        page[at : at + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")

    x2apic = state.base & (lapic.ENABLED | lapic.X2APIC) == lapic.ENABLED | lapic.X2APIC
    put(0x20, state.id if x2apic else state.id << 24)
    put(0x30, lapic.VERSION)
    put(0xA0, ppr)
    for at, name in _PLAIN.items():
        put(at, getattr(state, name))
    for at, name in _MASKS.items():
        for n in range(8):
            put(at + 16 * n, getattr(state, name) >> 32 * n)
    put(0x300, state.icr)
    put(0x310, state.icr >> 32)
    for n, entry in enumerate(state.lvt):
        put(0x320 + 16 * n, entry)
    timer = state.timer
    put(0x380, timer.initial)
    put(0x390, current)
    put(0x3E0, timer.divide)
    shift = (timer.divide & 3 | timer.divide >> 1 & 4) + 1 & 7
    values = {
        "apic_base_msr": state.base,
        "disabled": (0 if state.base & lapic.ENABLED else _HARDWARE_OFF)
        | (0 if state.svr & lapic.SOFTWARE_ENABLE else _SOFTWARE_OFF),
        "timer_divisor": 1 << shift,
        "tdt_msr": timer.target if timer.mode == DEADLINE else 0,
    }
    return [build_record("LAPIC", values), build_record("LAPIC_REGS", {"data": bytes(page)})]


# -- an event that was under way


def give_back(vector: int, pic: pic8259.State | None, apic: lapic.State | None) -> bool:
    """An interrupt that was acknowledged and not yet delivered becomes a request again. False where none of the
    controllers has it in service, or would not have it because it ends it by itself (automatic EOI)."""
    if apic is not None and apic.isr >> vector & 1:
        apic.isr &= ~(1 << vector)
        apic.irr |= 1 << vector
        return True
    if pic is None:
        return False
    for chip in (pic.master, pic.slave):
        bit = 1 << (vector & 7)
        if vector & 0xF8 == chip.icw2 & 0xF8 and (chip.isr & bit or chip.icw4 & ICW4_AEOI):
            chip.isr &= ~bit
            _request(chip, bit)
            # Two acknowledges made one: the slave's INT is the master's request again, or nothing asks it ever more.
            if chip is pic.slave:
                # In special fully nested mode it may have been in service before, for another of the slave's.
                if not (pic.master.icw4 & ICW4_SFNM and chip.isr):
                    pic.master.isr &= ~(1 << CASCADE)
                pic.master.inputs |= 1 << CASCADE  # which the slave's INT holds
                pic.master.edges |= 1 << CASCADE
            return True
    return False


def _request(chip: ChipState, bit: int) -> None:
    chip.once |= bit & ~chip.inputs  # of an edge whose line has fallen
    chip.inputs |= bit
    chip.edges |= bit


def routes(records: tuple[Record, ...]) -> list[int]:
    """The ISA IRQ of PIRQA to PIRQD, 0 none."""
    record = hvm.find(records, "PCI_LINK")
    return [0] * 4 if record is None else list(record.values()["route"])


def line_records(isa: list[bool], asserted: list[tuple[int, int]], config: Mapping[int, int]) -> list[Record]:
    """PCI_IRQ, ISA_IRQ and PCI_LINK of the PIIX3's lines: `asserted` are (device, pin 1 to 4), `config` PIRQ (0 to 3)
    to the IRQ that it goes to."""
    lines = sum(1 << device * 4 + pin - 1 for device, pin in asserted)
    return [
        build_record("PCI_IRQ", {"lines": [lines & (1 << 64) - 1, lines >> 64]}),
        build_record("ISA_IRQ", {"lines": sum(1 << n for n, level in enumerate(isa) if level)}),
        build_record("PCI_LINK", {"route": [config.get(n, 0) for n in range(4)], "pad0": bytes(4)}),
    ]
