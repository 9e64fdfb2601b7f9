"""A machine to and from what Xen keeps of a domain: the HVM save context, and the stream with the memory.

What has no place in Xen's records belongs to the device model, which in Xen's world saves it by itself: `LEFT_OUT`
says it in words, for whoever saves or loads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from emu import layout
from emu.clock import NS_PER_INSTRUCTION, Clock
from emu.configuration import cpu_model
from emu.devices.hpet import Hpet
from emu.devices.i440fx import PAM0, READ, WRITE
from emu.devices.i440fx import SEGMENTS as SHADOWS
from emu.devices.lapic import DEFAULT_BASE, ENABLED, LVT_NAMES, MASKED, TIMER, X2APIC, Lapic
from emu.devices.lapic import State as LapicState
from emu.devices.piix3 import PIRQRC, ROUTE_OFF
from emu.devices.piix4_pm import PMBA, PMEN, PMREGMISC, STATUS_BITS, ticks_at
from emu.devices.uart16550_registers import LCR_DLAB, LCR_WORD
from emu.irq import IntrPin
from emu.machine import Machine, MachineState
from emu.pages import PAGE
from emu.record import replace
from emu.x86.cpuid import X2APIC as X2APIC_FEATURE
from emu.x86.cpuid import CpuModel
from emu.x86.msrs import TSC_ADJUST
from emu.x86.state import CR4_OSXSAVE
from xenbridge import convert_irqs as irqs
from xenbridge import convert_timers as timers
from xenbridge.bridge import BridgeError
from xenbridge.convert_checks import ConvertError, check_cpu, known_msrs
from xenbridge.convert_cpu import (
    EXTERNAL,
    context_cpu,
    cpu_values,
    mtrr_record,
    pending_event,
    take_ours,
)
from xenbridge.convert_fpu import xsave_record
from xenbridge.convert_notices import absent, beyond, ended, unplaced, unsaved
from xenbridge.wire import hvm, stream
from xenbridge.wire.hvm import Record, build_record
from xenbridge.wire.hvm_devices import HEADER_MAGIC, HEADER_VERSION
from xenbridge.wire.schema import Values

#: The virtual TSC counts a nanosecond.
TSC_KHZ: Final = 1_000_000
#: What a stream of ours says it comes from: the release whose layouts it has.
XEN: Final = (4, 17)
_WORD: Final = (1 << 64) - 1
_HLT: Final = b"\xf4"
#: xen/include/public/hvm/params.h, HVM_PARAM_ACPI_IOPORTS_LOCATION: 1 is B000h, else 1F40h.
ACPI_PORTS, ACPI_OLD, ACPI_NEW = 19, 0x1F40, 0xB000
#: Registers of a UART by their offset (NS16550A data sheet, table II), and what of their state is kept.
DATA, IER, FCR, LCR, MCR, SCR = 0, 1, 2, 3, 4, 7
_UART: Final = ("ier", "fcr", "lcr", "mcr", "scr", "divisor")
_NMI, _EXCEPTION = 2, 3  #: types of a pending event, beside EXTERNAL
#: Exceptions that an instruction raises again when it is executed again, as nothing of it was carried out: faults, and
#: #DF, whose first fault comes again (SDM vol. 3A, 6.5 and table 6-1).
_FAULTS: Final = frozenset((0, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 19, 21))
#: #BP and #OF, which SVM gives as exceptions.
_BY_INSTRUCTIONS: Final = frozenset((3, 4))
#: What is not carried over, of a machine of each kind.
LEFT_OUT: Final = (
    "Xen's records have no place for the display, keyboard, mouse, disks, diskettes, the parallel port, DMA, "
    "CMOS RAM and PCI registers: these are as at power-on where the stream is loaded"
)


class Source(Protocol):
    """What a machine is loaded from: a stream that is open."""

    @property
    def records(self) -> tuple[Record, ...]: ...
    @property
    def pages(self) -> Mapping[int, int]: ...
    @property
    def params(self) -> Mapping[int, int]: ...
    @property
    def ours(self) -> Values | None: ...
    def read_physical(self, address: int, length: int) -> bytes: ...


# -- out of a machine


def _clock(state: MachineState) -> Clock:
    clock = Clock(lambda: state.retired)
    clock.skipped = state.clock.skipped
    return clock


def context_of(state: MachineState, model: CpuModel) -> tuple[Record, ...]:
    """The records of a machine's state. Raises ConvertError for a CPU in system management mode."""
    cpu, devices = state.cpu, state.devices
    if cpu.smm:
        raise ConvertError("the CPU is in system management mode, which Xen has no records for: let it leave first")
    clock = _clock(state)
    now, adjust = clock.now, cpu.msrs.get(TSC_ADJUST, 0)
    tsc = now + adjust & _WORD
    header = {
        "magic": HEADER_MAGIC, "version": HEADER_VERSION, "changeset": _WORD, "cpuid": model.signature,
        "gtsc_khz": TSC_KHZ,
    }  # fmt: skip
    records = [
        build_record("HEADER", header), build_record("CPU", cpu_values(cpu, tsc)), *irqs.pic_records(devices["pic"]),
    ]  # fmt: skip
    apic = Lapic(clock, IntrPin(), lambda: tsc, model)
    if "lapic" in devices:
        apic.restore(devices["lapic"])
        records.append(irqs.ioapic_record(devices["ioapic"]))
    if "piix3" in devices:
        bridge = devices["piix3"]
        routed = {n: bridge.pci.config[PIRQRC + n] for n in range(4)}
        to = {n: 0 if value & ROUTE_OFF else value & 15 for n, value in routed.items()}
        lines = irqs.line_records(bridge.isa, bridge.asserted, to)
    else:
        lines = irqs.line_records([False] * 16, [], {})
    if "lapic" not in devices:
        # An isapc's 8259 is wired to the CPU: in Xen that is a local APIC that lets it through.
        apic.restore(LapicState(DEFAULT_BASE | ENABLED | 1 << 8, lvt=[MASKED] * len(LVT_NAMES)))
        apic.virtual_wire()
    records += [*irqs.lapic_records(apic.save(), apic.timer.current(), apic.ppr), *lines]
    records += [timers.pit_record(devices["pit"], devices["port61"]), timers.rtc_record(devices["rtc"])]
    if "hpet" in devices:
        events = Hpet(clock, lambda n, level: None, (lambda level: None, lambda level: None))
        events.restore(devices["hpet"])
        pm = devices["piix4-pm"]
        records.append(timers.hpet_record(devices["hpet"], events.counter))
        records.append(timers.pm_record(ticks_at(now) + pm.ahead, pm.status, pm.enable))
    records.append(mtrr_record(cpu.msrs))
    if cpu.cr4 & CR4_OSXSAVE:  # Xen refuses the record on a host without XSAVE, where no such guest could go on
        records.append(xsave_record(cpu))
    return (*records, build_record("TSC_ADJUST", {"tsc_adjust": adjust}))


def _before_hlt(machine: Machine, state: MachineState) -> MachineState:
    """A halted CPU has no record: one that nothing is about to wake executes its HLT again."""
    cpu = state.cpu
    if not cpu.halted:
        return state
    at = cpu.linear_pc - 1
    if cpu.rip and machine.memory.available(at, 1) and machine.memory.read(at, 1) == _HLT and not cpu.cr0 >> 31:
        return replace(state, cpu=replace(cpu, rip=cpu.rip - 1))
    return state


def machine_frames(machine: Machine) -> Iterator[tuple[int, bytes]]:
    """Each page of RAM and ROM below the end of RAM, but for the display's window."""
    window = range(layout.VGA_WINDOW // PAGE, (layout.VGA_WINDOW + layout.VGA_WINDOW_SIZE) // PAGE)
    top = max(machine.config.memory, layout.BIOS_LOW_END)
    for frame in range(top // PAGE):
        if frame not in window and machine.memory.available(frame * PAGE, PAGE) == PAGE:
            yield frame, machine.memory.read(frame * PAGE, PAGE)


def save_stream(machine: Machine, write: Callable[[bytes], object]) -> list[str]:
    """Write a libxc stream of the machine, piece by piece. Gives what is not in it, a sentence each. Raises
    ConvertError before anything is written."""
    machine.service()
    wakes = machine.interrupt_due
    try:
        with machine.keeper.undelivered_put_back():
            saved = machine.save()
            kept = machine.keeper.kept_states(saved.devices, machine.clock.now)
    except BridgeError as error:
        raise ConvertError(f"the devices in the hypervisor are lost: {error}") from None
    saved = replace(saved, devices={**saved.devices, **kept})
    state = saved if wakes else _before_hlt(machine, saved)
    records = context_of(state, cpu_model(machine.config))
    now = state.retired * NS_PER_INSTRUCTION + state.clock.skipped
    write(stream.build_headers(*XEN) + stream.build_record(stream.STATIC_DATA_END))
    for piece in stream.build_pages(machine_frames(machine)):
        write(piece)
    tsc = {"mode": 0, "khz": TSC_KHZ, "nsec": now, "incarnation": 1, "_res1": 0}
    write(stream.build_record(stream.TSC, stream.TSC_INFO.build(tsc)))
    chipset = machine.board.chipset
    if chipset is not None and chipset.pm.pm_base == ACPI_NEW:
        write(stream.build_record(stream.HVM_PARAMS, stream.build_params({ACPI_PORTS: 1})))
    write(stream.build_record(stream.HVM_CONTEXT, hvm.build_context(records)))
    write(stream.build_record(stream.V2E, stream.V2E_LAYOUT.build(_ours(saved, state))))
    write(stream.build_record(stream.END))
    return [LEFT_OUT, *unsaved(state.cpu, cpu_model(machine.config))]


def _ours(saved: MachineState, written: MachineState) -> Values:
    """What Xen's records have no place for; `written` is the state that they have."""
    cpu = saved.cpu
    flags = (cpu.halted, written.cpu.rip != cpu.rip, cpu.shadow, cpu.nmi_blocked, cpu.nmi_pending)
    tick = saved.devices["lapic"].timer.tick if "lapic" in saved.devices else irqs.TIMER_TICK
    bits = sum(1 << n for n, on in enumerate(flags) if on)
    uarts = [{"_pad": 0, **{name: getattr(saved.devices[com], name) for name in _UART}} for com in ("com1", "com2")]
    return {"version": 1, "flags": bits, "lapic_tick": tick, "_res1": 0, "uarts": uarts}


# -- into a machine


def load(machine: Machine, source: Source, cpu: int = 0) -> list[str]:
    """Put the domain into a machine that has just been built. Gives what could not be carried over, a sentence each.
    Raises ConvertError with the machine as it was, or WireError for a record that is not what it says."""
    records = source.records
    if not source.pages or not records:
        raise ConvertError("only a save stream can be loaded, which has memory and the devices' state")
    notices = [
        LEFT_OUT,
        *absent(records, cpu, ours=source.ours is not None),
        *unplaced(records, cpu),
        *_fits(machine, source),
    ]
    model = cpu_model(machine.config)
    state = machine.save()
    loaded = context_cpu(records, cpu)
    check_cpu(loaded)
    msrs, strange = known_msrs(loaded.msrs, model)
    if strange:
        notices.append(f"not known by this CPU model: MSR {', '.join(f'{n:#x}' for n in strange)}")
    notices += beyond(loaded, model)
    now = state.retired * NS_PER_INSTRUCTION + state.clock.skipped
    record = hvm.find(records, "CPU", cpu)
    assert record is not None  # context_cpu has found it
    loaded.msrs = {**state.cpu.msrs, **msrs, TSC_ADJUST: record.values()["tsc"] - now & _WORD}
    loaded.smbase, loaded.a20 = state.cpu.smbase, state.cpu.a20
    if source.ours is not None:
        take_ours(loaded, source.ours)
    devices = dict(state.devices)
    notices += _load_devices(machine, devices, source, model, now)
    event = pending_event(record.values())
    if event is not None and event[1] == _NMI:
        loaded.nmi_pending = True
    machine.restore(replace(state, cpu=loaded, devices=devices))
    for frame in source.pages:
        if machine.memory.available(frame * PAGE, PAGE) == PAGE and not _in_window(frame):
            page = source.read_physical(frame * PAGE, PAGE)
            if page != machine.memory.read(frame * PAGE, PAGE):  # pages of zeros take no memory of the host's
                machine.memory.write(frame * PAGE, page)
    _set_uarts(machine, source.ours)
    _start_timers(machine)
    if event is not None:
        notices += _give_back(machine, *event)
    return notices


def _give_back(machine: Machine, vector: int, kind: int) -> Iterator[str]:
    """The event that was on its way into the CPU, when the devices have driven their lines: a line that falls takes its
    request with it. Gives what is lost, or may be.

    Of an exception or INT n, INT3 and INTO the instruction is executed again: RIP is still at it, as neither VT-x nor
    SVM moves it when the delivery is broken off. Xen itself leaves those of INT instructions out, saved or loaded
    (hvm_event_needs_reinjection, xen/arch/x86/hvm/hvm.c)."""
    if kind == EXTERNAL:
        pic, chipset = machine.board.pic, machine.board.chipset
        lines, apic = pic.save(), None if chipset is None else chipset.lapic.save()
        if not irqs.give_back(vector, lines, apic):
            yield f"no controller has interrupt {vector:#04x} in service, which was on its way into the CPU"
            return
        if chipset is not None and apic is not None:
            chipset.lapic.restore(apic)
        pic.restore(lines)
        machine.pin.update()
    elif kind == _EXCEPTION and vector in _FAULTS:
        cpu = machine.cpu_state()
        yield (f"exception {vector:#04x} was on its way into the CPU: the instruction at {cpu.cs.selector:04x}:"
               f"{cpu.rip:x} is executed again, and raises it if it was the one that did")  # fmt: skip
    elif kind == _EXCEPTION and vector not in _BY_INSTRUCTIONS:
        yield (f"exception {vector:#04x} was on its way into the CPU, and is not delivered: no instruction raises it "
               "again")  # fmt: skip


def _in_window(frame: int) -> bool:
    return layout.VGA_WINDOW <= frame * PAGE < layout.VGA_WINDOW + layout.VGA_WINDOW_SIZE


def _fits(machine: Machine, source: Source) -> list[str]:
    """Raises ConvertError where the machine has too little RAM; gives what is left out of other pages."""
    memory = machine.config.memory
    # Xen keeps its own pages, and the display's memory, in the last GiB below 4.
    inside = [frame for frame in source.pages if frame * PAGE < 3 << 30]
    if any(frame * PAGE >= 1 << 32 for frame in source.pages):
        raise ConvertError("the domain has memory above 4 GiB, which the machine cannot have")
    top = (max(inside, default=0) + 1) * PAGE
    if top > max(memory, layout.BIOS_LOW_END):
        raise ConvertError(f"the domain has memory up to {top:#x}, the machine {memory >> 20}M: add "
                           f"--memory {-(-top // (1 << 20))}M")  # fmt: skip
    outside = sorted(frame for frame in source.pages if frame * PAGE >= 3 << 30 or _in_window(frame))
    if not outside:
        return []
    return [f"{len(outside)} pages left out that are no RAM here, the first at {outside[0] * PAGE:#x}"]


def _load_devices(machine: Machine, devices: dict[str, object], source: Source, model: CpuModel, now: int) -> list[str]:
    """Replace in `devices`, which are the states of a machine at power-on, what the records say."""
    records, lines = source.records, 0
    notices: list[str] = []
    if (found := timers.pit_state(records, now)) is not None:
        devices["pit"], devices["port61"] = found
        lines |= found[0].counters[0].out << layout.IRQ_PIT
    if (rtc := timers.rtc_state(records, machine.board.rtc.save(), now)) is not None:
        devices["rtc"] = rtc
        lines |= rtc.interrupt << layout.IRQ_RTC
    if (pic := irqs.pic_state(records, machine.board.pic.save())) is not None:
        devices["pic"] = pic
        timed = {irq for irq, device in ((layout.IRQ_PIT, found), (layout.IRQ_RTC, rtc)) if device is not None}
        notices += ended(irqs.rewire(pic, lines), timed)
    if machine.board.chipset is None:
        apic = irqs.lapic_state(records, now)
        if apic is not None and (apic.isr or apic.irr or apic.timer.initial):
            notices.append("the local APIC is in use, which an isapc does not have: use --machine pc")
        return notices
    return notices + _load_chipset(machine, devices, source, model, now, lines)


def _load_chipset(
    machine: Machine, devices: dict[str, object], source: Source, model: CpuModel, now: int, lines: int
) -> list[str]:
    """`lines`: the ISA IRQs that are high now."""
    chipset, records = machine.board.chipset, source.records
    notices: list[str] = []
    assert chipset is not None  # a pc has it
    tick = irqs.TIMER_TICK if source.ours is None else source.ours["lapic_tick"] or irqs.TIMER_TICK
    if (apic := irqs.lapic_state(records, now, tick=tick)) is not None:
        _check_base(apic.base, model)
        devices["lapic"] = apic
    if (inputs := irqs.ioapic_state(records, lines)) is not None:
        devices["ioapic"] = inputs
        if beyond := irqs.open_beyond(records):
            notices.append(f"the I/O APIC has 24 inputs here: open in the stream are also {beyond}")
    if (hpet := timers.hpet_state(records, now)) is not None:
        devices["hpet"] = hpet
        hpet.displaced = [bool(lines >> n & 1) for n in (layout.IRQ_PIT, layout.IRQ_RTC)]
    bridge = chipset.isa.save()
    config = bytearray(bridge.pci.config)
    for n, irq in enumerate(irqs.routes(records)):
        config[PIRQRC + n] = irq & 15 or ROUTE_OFF
    bridge.pci = replace(bridge.pci, config=bytes(config))
    bridge.isa = [bool(lines >> n & 1) for n in range(16)]
    devices["piix3"] = bridge
    pm = chipset.pm.save()
    if (timer := timers.pm_timer(records, now)) is not None:
        pm.ahead, status, pm.enable = timer
        pm.status = status & STATUS_BITS
    if ACPI_PORTS in source.params:
        base = ACPI_NEW if source.params[ACPI_PORTS] == 1 else ACPI_OLD
        config = bytearray(pm.pci.config)
        config[PMBA : PMBA + 4] = (base | 1).to_bytes(4, "little")
        config[PMREGMISC] |= 1
        pm.pci = replace(pm.pci, config=bytes(config))
    devices["piix4-pm"] = pm
    shadows = chipset.bridge.save()
    devices["i440fx"] = replace(shadows, config=_shadowed(shadows.config, source.pages))
    return notices


def _check_base(base: int, model: CpuModel) -> None:
    """IA32_APIC_BASE as WRMSR would take it."""
    wrong = base >> model.physical_bits or base & 0x2FF or base & (X2APIC | ENABLED) == X2APIC
    if wrong or (base & X2APIC and not model.ecx1 & X2APIC_FEATURE):
        raise ConvertError(f"IA32_APIC_BASE = {base:#x} in the file: WRMSR would raise #GP(0)")


def _shadowed(config: bytes, pages: Mapping[int, int]) -> bytes:
    """A domain has RAM where a PC has ROM behind the PAM registers: each segment with a page in the stream is RAM."""
    found = bytearray(config)
    for base, size, register, shift in SHADOWS:
        if any(frame in pages for frame in range(base // PAGE, (base + size) // PAGE)):
            found[PAM0 + register] |= (READ | WRITE) << shift
    return bytes(found)


def _set_uarts(machine: Machine, ours: Values | None) -> None:
    """By their ports, so that any values are ones that a guest could have written. Those of a domain of Xen's, of which
    the stream says nothing, have 8 bits to a character: QEMU sends bytes whatever the line control says."""
    for n, com in enumerate((machine.board.com1, machine.board.com2)):
        uart = {"lcr": LCR_WORD, "divisor": 1} if ours is None else ours["uarts"][n]
        divisor = uart["divisor"]
        com.write(LCR, LCR_DLAB, 1)
        com.write(DATA, divisor & 0xFF, 1)
        com.write(IER, divisor >> 8, 1)
        com.write(LCR, uart["lcr"], 1)
        if not uart["lcr"] & LCR_DLAB:
            com.write(IER, uart.get("ier", 0), 1)
        com.write(FCR, uart.get("fcr", 0), 1)
        com.write(MCR, uart.get("mcr", 0), 1)
        com.write(SCR, uart.get("scr", 0), 1)


def _start_timers(machine: Machine) -> None:
    """Those of the devices whose timers come back with a clock, which a file has none of."""
    chipset = machine.board.chipset
    if chipset is None:
        return
    apic = chipset.lapic.save()
    chipset.lapic.timer.replan(masked=bool(apic.lvt[TIMER] & MASKED))
    chipset.hpet.write(0x10, chipset.hpet.peek(0x10, 4), 4)
    chipset.pm.write_pm(PMEN, chipset.pm.read_pm(PMEN))
    machine.pin.update()
