"""A machine to and from Xen's streams: it goes on as it would have gone on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asm import assemble
from emu.devices import ioapic, lapic
from emu.devices.lapic_timer import TimerState
from emu.devices.pic8259 import Pic8259Pair
from emu.devices.pic8259_chip import ChipState
from emu.devices.pit8254 import pulses_at
from emu.firmware.roms import builtin_bios, tour_rom
from emu.irq import IntrPin
from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.media import Disk
from emu.x86.state import CpuState, Fpu, Segment, Table
from machines import READING, pc, rom, timer
from xen_files import save_stream, with_records
from xen_samples import sample
from xenbridge import convert, convert_irqs, convert_timers
from xenbridge.convert_checks import ConvertError
from xenbridge.convert_cpu import cpu_state, cpu_values
from xenbridge.convert_fpu import build_fxsave, parse_fxsave
from xenbridge.wire import hvm
from xenbridge.xen.files import parse_file

FOREVER = 1 << 40


@pytest.mark.parametrize(("lines", "inputs"), [(0, 0), (1, 4), (2, 2), (4, 0), (5, 4), (0xFFFF, 0xFFFE)])
def test_isa_lines_are_at_the_io_apics_inputs_as_a_pc_has_them(lines, inputs):
    """MultiProcessor Specification 1.4, table 5-1: the 8254 at input 2, and nothing at 0; no device has line 2."""
    records = hvm.parse_context(sample("s_hvmctx.bin"))
    assert convert_irqs.ioapic_state(records, lines).inputs == inputs


def built(machine="pc", **config) -> Machine:
    options = {"memory": 2 << 20, "firmware": builtin_bios(), "bios": True, **config}
    return build_machine(MachineConfig(machine=machine, **options))


def saved(machine):
    out = bytearray()
    convert.save_stream(machine, out.extend)
    return parse_file(bytes(out))


# -- a domain of a real Xen

TICK_NS = 0x2000 * 1_000_000_000 / 1_193_182


@pytest.mark.parametrize("kind", ["pc", "isapc"])
def test_a_real_domain_goes_on_ticking_at_its_rate(kind):
    machine = built(kind)
    convert.load(machine, parse_file(sample("s_stream.bin")))
    state = machine.cpu_state()
    assert (state.rip, state.es.base, state.rflags) == (0x7C8F, 0xD0000, 0x206)
    rounds, ticks = (int.from_bytes(machine.memory.read(at, 2), "little") for at in (0x610, 0x614))
    assert (rounds, ticks) == (0x2B, 0x2B)
    machine.run(1500)
    elapsed = machine.clock.now
    gained = int.from_bytes(machine.memory.read(0x614, 2), "little") - ticks
    assert gained == int(elapsed / TICK_NS) > 100
    # it was woken for the save, as Xen does, and has counted that round
    assert int.from_bytes(machine.memory.read(0x610, 2), "little") - rounds in (gained, gained + 1)


def test_a_real_domain_keeps_its_time_stamp_counter_and_clock():
    machine = built()
    convert.load(machine, parse_file(sample("s_stream.bin")))
    assert machine.executor.time_stamp() == 0x5930045B
    fields = {f.name: f.value for f in machine.board.rtc.view().fields}
    assert (fields["date"], fields["time"]) == ("2026-11-22", "09:16:24")


# -- our own streams: the same end from any point


def finish(machine, said=""):
    stop = machine.run(FOREVER)
    return stop.reason, stop.code, said + machine.debugcon_text()


def tour(kind):
    return build_machine(MachineConfig(machine=kind, memory=64 << 20, firmware=tour_rom(), shadow=False))


def reading():
    return built(memory=4 << 20, disks=(Disk.from_bytes(assemble(READING).ljust(1 << 20, b"\0")),))


def points(make, parts):
    machine = make()
    stop = machine.run(FOREVER)
    assert stop.reason is MachineStop.EXIT
    return [machine.executor.retired * n // parts for n in range(1, parts)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pc", "isapc"])
def test_the_tour_saved_anywhere_goes_through_its_modes_to_the_same_end(kind):
    whole = tour(kind)
    end = whole.run(FOREVER)
    text = whole.serial_text()
    assert "tour: done" in text
    modes = set()
    for point in points(lambda: tour(kind), 9):
        first = tour(kind)
        first.run(point)
        source, said = saved(first), first.serial_text()
        modes.add((source.cpu_state().cr0 & 1, source.cpu_state().long64))
        second = tour(kind)
        convert.load(second, source)
        stop = second.run(FOREVER)
        assert (stop.reason, stop.code, said + second.serial_text()) == (end.reason, end.code, text), point
    assert {protected for protected, _ in modes} == {0, 1}


@pytest.mark.slow
def test_a_boot_by_bios_services_saved_anywhere_reads_its_disk_and_ends_the_same():
    whole = reading()
    end = whole.run(FOREVER)
    assert (end.reason, end.code) == (MachineStop.EXIT, 0x55)
    for point in points(reading, 7):
        first = reading()
        first.run(point)
        second = reading()
        convert.load(second, saved(first))
        stop = second.run(FOREVER)
        assert (stop.reason, stop.code) == (MachineStop.EXIT, 0x55), point


def test_a_stream_is_the_same_when_it_is_saved_again_at_once():
    first = reading()
    first.run(20_000)
    source = saved(first)
    second = reading()
    convert.load(second, source)
    again = saved(second)
    assert again.cpu_state().copy() == source.cpu_state().copy()
    ours, theirs = ({r.name + str(r.instance): r.values() for r in s.records} for s in (source, again))
    ours["LAPIC_REGS0"].clear(), theirs["LAPIC_REGS0"].clear()
    assert theirs["TSC_ADJUST0"] != {}
    del ours["TSC_ADJUST0"], theirs["TSC_ADJUST0"]
    assert theirs == ours
    assert {f: source.data[at : at + 4096] for f, at in source.pages.items()} == {
        f: again.data[at : at + 4096] for f, at in again.pages.items()
    }


WAITS = f"""
    mov ss, ax
    mov sp, 0x7000
    mov word [0x20], tick
    mov word [0x22], 0xf000
    {timer(119)}
    sti
    hlt
    cmp word [0x500], 1
    jne bad
    mov al, 3
    out 0xf4, al
bad:
    mov al, 4
    out 0xf4, al
tick:
    inc word [0x500]
    mov al, 0x20
    out 0x20, al
    iret
"""


def test_a_cpu_that_is_halted_goes_on_being_halted():
    def machine():
        return build_machine(MachineConfig(memory=1 << 20, firmware=rom(WAITS), shadow=False))

    first = machine()
    while not first.executor.halted:
        first.run(first.executor.retired + 1)
    source = saved(first)
    assert source.cpu_state().halted
    cpu = hvm.find(source.records, "CPU").values()
    at = cpu["cs_base"] + cpu["rip"] & 0xFFFFF
    assert source.read_physical(at, 1) == b"\xf4"  # Xen, which has no record of it, executes the HLT
    second = machine()
    convert.load(second, source)
    assert second.run(FOREVER).code == 3


APIC_TIMER = """
    mov ss, ax
    mov sp, 0x7000
    mov word [0x40*4], tick
    mov word [0x40*4+2], 0xf000
    lgdt [cs:gdt_at]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 8
    mov ds, bx
    mov dword [dword 0xfee000f0], 0x1ff
    mov dword [dword 0xfee003e0], 0x0b
    mov dword [dword 0xfee00320], 0x20040
    mov dword [dword 0xfee00380], 100000
    and al, 0xfe
    mov cr0, eax
    sti
again:
    hlt
    jmp again
tick:
    inc word [es:0x500]
    mov dword [dword 0xfee000b0], 0
    iret
"""
GDT = "align 8\ngdt: dq 0, 0x00cf93000000ffff\ngdt_at: dw 15\ndd 0xf0000 + gdt\n"


def test_an_apic_timer_of_ours_keeps_its_rate_and_one_of_xens_has_xens():
    def count(machine, virtual_ms):
        until = machine.clock.now + virtual_ms * 1_000_000
        before = int.from_bytes(machine.memory.read(0x500, 2), "little")
        while machine.clock.now < until:
            assert machine.run(machine.executor.retired + 4).reason is MachineStop.LIMIT
        return int.from_bytes(machine.memory.read(0x500, 2), "little") - before

    first = pc(rom(APIC_TIMER, GDT), shadow=False)
    assert count(first, 10) in (99, 100, 101)  # a count each ns: 100 us
    source = saved(first)
    second = pc(rom(APIC_TIMER, GDT), shadow=False)
    convert.load(second, source)
    assert count(second, 10) in (99, 100, 101)
    source.ours = None  # as if Xen had written it: a count each 10 ns
    third = pc(rom(APIC_TIMER, GDT), shadow=False)
    convert.load(third, source)
    assert count(third, 10) in (9, 10, 11, 12)


# -- what does not fit


def test_a_machine_with_too_little_memory_is_refused_and_stays_as_it_was():
    machine = built()
    before = machine.fingerprint()
    source = parse_file(save_stream(CpuState(cr0=0x10), {0x300: b"x"}))
    with pytest.raises(ConvertError, match="add --memory 4M"):
        convert.load(machine, source)
    assert machine.fingerprint() == before


def test_memory_above_4_gib_is_refused():
    source = parse_file(save_stream(CpuState(cr0=0x10), {0x100000: b"x"}))
    with pytest.raises(ConvertError, match="above 4 GiB"):
        convert.load(built(), source)


def test_pages_that_are_no_ram_here_are_left_out_and_said():
    source = parse_file(save_stream(CpuState(cr0=0x10), {7: b"code", 0xB8: b"screen", 0xFEFFF: b"xenstore"}))
    notices = convert.load(built(), source)
    assert "2 pages left out that are no RAM here, the first at 0xb8000" in notices


def test_a_context_without_memory_is_refused():
    with pytest.raises(ConvertError, match="only a save stream can be loaded"):
        convert.load(built(), parse_file(sample("s_hvmctx.bin")))


LONG64 = {"cr0": 0x80000011, "cr4": 0x20, "efer": 0x500, "cs": Segment(8, 0, 0xFFFFFFFF, 0xA09B)}


def test_64_bit_code_is_loaded():
    """What the refusals below are variants of."""
    machine, state = built(), CpuState()
    for name, value in LONG64.items():
        setattr(state, name, value)
    convert.load(machine, parse_file(save_stream(state, {7: b"x"})))
    assert machine.cpu_state().long64


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cr0": 0x80000000}, "PG without PE"),
        ({"cr0": 0x20000001}, "NW without CD"),
        ({"cr0": 1 << 40}, "reserved"),
        ({"cr4": 1 << 40}, "reserved"),
        ({"efer": 1 << 40}, "reserved"),
        ({"efer": 0x400}, "has LMA 1"),
        ({"cr0": 0x80000001, "efer": 0x100}, "has LMA 0"),
        ({"cr0": 0x80000001, "efer": 0x500}, "no PAE"),
        ({"rflags": 1 << 40}, "reserved"),
        ({"rflags": 0x20000}, "VM in a mode"),
        ({"rip": 1 << 40}, "more than 32 bits"),
        ({"cr3": 1 << 60}, "CR3"),
        ({"ds": Segment(0, 1 << 40)}, "the base of DS"),
        ({"fpu": Fpu(mxcsr=0x10000)}, "MXCSR = 0x10000"),
        ({"dr": [0, 0, 0, 0, 0, 0, 0xFFFF1FF0, 0x400]}, "DR6 = 0xffff1ff0"),
        ({"dr": [0, 0, 0, 0, 0, 0, 0xFFFF0FF0, 1 << 32]}, "DR7 = 0x100000000"),
        ({"gdtr": Table(0, 0x10000)}, "the limit of GDTR = 0x10000"),
        ({"idtr": Table(0, 0x10000)}, "the limit of IDTR = 0x10000"),
        ({"msrs": {0xC0000082: 1 << 60}}, "WRMSR would raise"),
        (LONG64 | {"rip": 1 << 60}, "RIP = 0x1000000000000000 in the file is not canonical"),
        (LONG64 | {"cs": Segment(8, 0, 0xFFFFFFFF, 0xE09B)}, "both L and D/B"),
        (LONG64 | {"fs": Segment(8, 1 << 60)}, "the base of FS"),
        (LONG64 | {"gdtr": Table(1 << 60, 0)}, "the base of GDTR"),
    ],
)
def test_a_cpu_that_cannot_be_is_refused(change, why):
    state = CpuState(cr0=0x10)
    for name, value in change.items():
        setattr(state, name, value)
    with pytest.raises(ConvertError, match=why):
        convert.load(built(), parse_file(save_stream(state, {7: b"x"})))


def test_a_domain_with_rom_areas_of_its_own_has_ram_there():
    machine = built()
    convert.load(machine, parse_file(save_stream(CpuState(cr0=0x10), {7: b"\xf4", 0xF0: b"bios", 0xC8: b"option"})))
    assert machine.memory.read(0xF0000, 4) == b"bios"
    assert machine.memory.read(0xC8000, 6) == b"option"
    kinds = {r.first: r.kind for r in machine.memory_map()}
    assert kinds[0xF0000] == "ram"


# -- each device by itself


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7),
       st.booleans(), st.booleans(), st.sampled_from([0, 2, 3, 4]))  # fmt: skip
def test_an_8259_comes_back(imr, isr, edges, base, lowest, special, read_isr, expects):
    state = ChipState(
        inputs=edges, edges=edges, isr=isr, imr=imr, icw1=0x11, icw2=base << 3, icw3=4, icw4=1, expects=expects,
        ready=True, lowest=lowest, read_isr=read_isr, special_mask=special,
    )  # fmt: skip
    values = hvm.build_record("PIC", convert_irqs.chip_values(state, master=True)).values()
    assert convert_irqs.chip_state(values, 0, master=True) == state


@given(st.lists(st.integers(0, (1 << 17) - 1), min_size=24, max_size=24), st.integers(0, 15), st.integers(0, 255))
def test_an_io_apic_comes_back(entries, id, select):
    entries = [entry & ~(1 << 12) for entry in entries]
    state = ioapic.State(select, id, 0, entries)
    assert convert_irqs.ioapic_state((convert_irqs.ioapic_record(state),), 0) == state


MASK = st.integers(0, (1 << 256) - 1)


@given(MASK, MASK, MASK, st.integers(0, 255), st.lists(st.integers(0, (1 << 17) - 1), min_size=6, max_size=6),
       st.integers(0, (1 << 32) - 1), st.integers(0, 255), st.booleans())  # fmt: skip
def test_a_local_apic_comes_back(isr, tmr, irr, tpr, lvt, initial, id, x2apic):
    base = lapic.DEFAULT_BASE | lapic.BSP | lapic.ENABLED | (lapic.X2APIC if x2apic else 0)
    state = lapic.State(base, id=id, tpr=tpr, isr=isr, tmr=tmr, irr=irr, lvt=lvt, svr=0x1FF, ldr=1 << 24)
    state.icr = initial << 32 | 0xC4500
    state.timer = TimerState(lvt[0] >> 17 & 3, bool(lvt[0] & lapic.MASKED), 0xB, initial, 5, 0, 10)
    records = tuple(convert_irqs.lapic_records(state, 0, 0))
    assert convert_irqs.lapic_state(records, 5) == state
    assert records[0].values()["timer_divisor"] == 1


@given(st.integers(0, 3).filter(bool), st.integers(0, 5), st.booleans(), st.integers(1, 0x10000), st.booleans())
def test_a_counter_comes_back_to_its_beginning(rw, mode, bcd, count, gate):
    channel = {
        "count": min(count, 10_000) if bcd else count, "latched_count": 0, "count_latched": 0, "status_latched": 0,
        "status": 0, "read_state": rw, "write_state": rw, "write_latch": 0, "rw_mode": rw, "mode": mode, "bcd": bcd,
        "gate": gate,
    }  # fmt: skip
    if rw == 1:
        channel["count"] = channel["count"] & 0xFF or 0x10000 if not bcd else channel["count"] % 100 or 10_000
    if rw == 2:
        channel["count"] = channel["count"] & 0xFF00 or 0x10000 if not bcd else channel["count"] // 100 * 100 or 10_000
    counter = convert_timers.counter_of(channel, 0)
    assert (counter.rw, counter.mode, counter.bcd, counter.gate) == (rw, mode, bcd, gate)
    assert convert_timers.channel_of(counter) == channel


@pytest.mark.parametrize("mode", [0, 2, 3])
@pytest.mark.parametrize(("rw", "written"), [
    (3, 0), (3, 0x9999), (3, 0x1234), (3, 0x0999), (3, 0x9A00), (3, 0xFFFF), (1, 0x99), (1, 0x12), (1, 0), (2, 0x99),
    (2, 0x12), (2, 0),
])  # fmt: skip
def test_a_count_that_xen_keeps_of_a_guest_in_bcd_goes_on_at_xens_rate(rw, written, mode):
    """Xen 4.17 counts what was written in binary, 0 as 65,536 (pit_load_count): of mode 2 that is the period."""
    count = (written << 8 if rw == 2 else written) or 0x10000
    channel = convert_timers.channel_of(_latched()) | {
        "count": count, "count_latched": 0, "read_state": rw, "write_state": rw, "rw_mode": rw, "mode": mode, "bcd": 1,
    }  # fmt: skip
    counter = convert_timers.counter_of(channel, 0)
    assert (counter.initial_count, counter.rw, counter.mode) == (count, rw, mode)
    assert counter.bcd == (count <= 10_000 and not (rw == 1 and count > 99) and not (rw == 2 and count % 100))


def test_a_counters_count_begins_where_it_is_loaded():
    """Not at power-on, from which it would have to be carried there."""
    counter = convert_timers.counter_of(convert_timers.channel_of(_latched()), 5_000_000)
    assert counter.pulse == pulses_at(5_000_000) > 0


def test_a_latched_count_and_half_written_one_come_back():
    counter = convert_timers.counter_of(convert_timers.channel_of(_latched()), 0)
    assert (counter.latch, counter.latch_left, counter.read_high, counter.first_byte) == (0x1234, 1, True, 0x56)


def _latched():
    from emu.devices.pit8254 import Counter

    counter = Counter(control=0x34, count_register=0x2000, written=True, first_byte=0x56)
    counter.latch, counter.latch_left, counter.read_high = 0x1234, 1, True
    return counter


@pytest.mark.parametrize(("byte", "high"), [(3, False), (4, True)])
def test_of_a_word_that_is_half_read_the_other_byte_comes(byte, high):
    counter = convert_timers.counter_of(
        convert_timers.channel_of(_latched()) | {"count_latched": 0, "read_state": byte}, 0
    )
    assert counter.read_high is high


def test_flags_that_the_clock_has_raised_come_back():
    record = hvm.build_record(
        "RTC", {"cmos_data": bytes(12) + b"\xff\x80", "cmos_index": 0, "pad0": 0, "rtc_offset": 0}
    )
    state = convert_timers.rtc_state((record,), built().board.rtc.save(), 0)
    assert state.ram[12] == 0x70  # PF, AF, UF; IRQF is what they and register B make (MC146818A, register C)


def test_a_request_of_the_slave_is_a_new_edge_at_the_master():
    slave = ChipState(inputs=1, edges=1, imr=0, icw1=0x11, icw2=0x70, icw3=2, icw4=1, ready=True)
    master = ChipState(imr=0, icw1=0x11, icw2=8, icw3=4, icw4=1, ready=True)
    pic = Pic8259Pair(IntrPin()).save()
    pic.master, pic.slave = master, slave
    assert convert_irqs.rewire(pic, 1 << 8) == []
    assert (master.inputs, master.edges) == (4, 4)


words = st.integers(0, (1 << 64) - 1)


@given(st.lists(st.integers(0, (1 << 80) - 1), min_size=8, max_size=8),
       st.lists(st.integers(0, (1 << 128) - 1), min_size=16, max_size=16), words, st.integers(0, 0xFFFF))  # fmt: skip
def test_an_fpu_comes_back(st_values, xmm, fip, fcs):
    fpu = Fpu(0x37F, 0x3800, 0x55, 7, fip & 0xFFFFFFFF if fcs else fip, fcs, 0, 0, 0x1F80, st_values, xmm)
    area = build_fxsave(fpu)
    assert len(area) == 512
    assert parse_fxsave(area) == fpu


@given(st.lists(words, min_size=16, max_size=16), words, st.integers(0, 0xFFFF), st.integers(0, (1 << 32) - 1),
       st.sampled_from([0x93, 0xC093, 0xA09B, 0x409B, 0xF3, 0x10082]))  # fmt: skip
def test_a_cpu_comes_back(regs, base, selector, limit, access):
    state = CpuState(regs=regs, cr0=0x31, msrs={0xC0000102: base})
    access = access & ~0x80 if access & 0x10000 else access
    state.fs = Segment(selector, base, limit, access)
    values = hvm.build_record("CPU", cpu_values(state, 7)).values()
    seen = cpu_state(values)
    assert (seen.regs, seen.fs, seen.rip, seen.msrs[0xC0000102]) == (regs, state.fs, state.rip, base)
    assert values["tsc"] == 7


def second_cpu(records):
    cpu = hvm.find(records, "CPU")
    return (*records, hvm.Record(cpu.code, 1, cpu.data))


def test_of_a_domain_with_two_vcpus_it_is_said_that_one_is_loaded():
    file = parse_file(with_records(second_cpu))
    assert file.about == "save stream of Xen 4.17, 2 vCPUs, of which 0 is shown"
    notices = convert.load(built(), file)
    assert "the domain has 2 vCPUs, the machine one: only vCPU 0 is loaded" in notices
    assert not any("vCPU" in notice for notice in convert.load(built(), parse_file(sample("s_stream.bin"))))


@pytest.mark.parametrize("name", ["PIC", "PIT"])
def test_a_stream_without_a_record_that_xen_always_writes_is_loaded_with_a_notice(name):
    file = parse_file(with_records(lambda records: [r for r in records if r.name != name]))
    absent = [notice for notice in convert.load(built(), file) if "no record" in notice]
    assert [notice.split(":")[0] for notice in absent] == [f"the stream has no record {name}"]


@pytest.mark.parametrize("kind", ["pc", "isapc"])
def test_a_domain_whose_interrupts_are_all_masked_ends_where_it_halts(kind):
    machine = built(kind)
    convert.load(machine, parse_file(with_records(lambda records: [r for r in records if r.name != "PIC"])))
    exit = machine.run(1500)
    assert (exit.reason, exit.detail) == (MachineStop.DEADLOCK, "HLT, and every interrupt is masked")
