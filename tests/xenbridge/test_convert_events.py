"""An event that was on its way into a CPU of Xen's when it was saved: what the machine that it is loaded into does."""

from __future__ import annotations

import pytest

from asm import assemble
from emu.devices import pic8259
from emu.devices.pic8259_chip import ChipState
from emu.firmware.roms import builtin_bios
from emu.machine import Machine, MachineConfig, build_machine
from xen_files import with_records
from xen_samples import sample
from xenbridge import convert, convert_irqs
from xenbridge.wire import hvm, stream
from xenbridge.xen.files import parse_file


def built(machine: str = "pc") -> Machine:
    return build_machine(MachineConfig(machine=machine, memory=2 << 20, firmware=builtin_bios(), bios=True))


def test_an_interrupt_on_its_way_into_the_cpu_is_given_back_to_its_controller():
    data = sample("s_stream.bin")
    parsed = stream.parse_stream(data)
    at = parsed.find(stream.HVM_CONTEXT).offset
    records = list(hvm.parse_context(data, at, at + parsed.find(stream.HVM_CONTEXT).length))
    for n, record in enumerate(records):
        values = record.values()
        if record.name == "CPU":
            records[n] = hvm.build_record("CPU", values | {"pending_event": 0x80000008})
        if record.name == "PIC" and not record.instance:
            records[n] = hvm.build_record("PIC", values | {"isr": 1})
    body = hvm.build_context(records)
    source = parse_file(data[:at] + body + data[at + len(body) :])
    machine = built()
    convert.load(machine, source)
    machine.run(1)
    assert machine.cpu_state().rip in (0x7C9A, 0x7C9E)  # the handler of IRQ 0


def acknowledged(vector, kind=0, mode=0, level=False, besides=0):
    """The sample, with `vector` on its way into a CPU whose handler of any IRQ counts at 500h and ends it. `mode`: bits
    of both PIC records, `level`: all inputs are level triggered, `besides`: what else the slave has in service."""
    loop = assemble("bits 16\nl: sti\n nop\n nop\n jmp l", 0x7C00)
    handler = assemble(
        "bits 16\ninc word [0x500]\npush ax\nmov al,0x20\nout 0xa0,al\nout 0x20,al\npop ax\niret", 0x6000
    )
    irq = vector - 0x70 + 8 if vector >= 0x70 else vector - 8

    def change(records):
        for record in records:
            values = record.values()
            if record.name == "CPU":
                values |= dict.fromkeys(("cs_sel", "cs_base", "ds_sel", "ds_base", "ss_sel", "ss_base"), 0)
                values |= {"rip": 0x7C00, "rflags": 0x202, "rsp": 0x5000, "pending_event": 1 << 31 | kind << 8 | vector}
            if record.name == "PIC":
                served = 0 if kind else 1 << irq >> 8 * record.instance & 0xFF | besides * record.instance
                if irq >= 8 and not record.instance and not kind:
                    served = 4
                values |= {"irr": 0, "imr": 0xFB * (irq >= 8 and not record.instance), "init": 0,
                           "isr": 0 if mode & AEOI else served, "irq_base": 0x70 if record.instance else 8,
                           "mode": mode | 0x40 * (not record.instance), "elcr": 0xF8 * level}  # fmt: skip
            named = record.name in ("CPU", "PIC")
            yield hvm.build_record(record.name, values, record.instance) if named else record

    parsed = parse_file(with_records(lambda records: list(change(records))))
    return parsed, {0: (0x6000).to_bytes(4, "little") * 256, 0x6000: handler, 0x7C00: loop}


AEOI, SFNM = 4, 16  #: bits of a PIC record's `mode`


def loaded(kind, source, code):
    """A machine with the stream, and with the code that goes with it."""
    machine = built(kind)
    assert not any("on its way" in notice for notice in convert.load(machine, source))
    for at, data in code.items():
        machine.memory.write(at, data)
    machine.memory.write(0x500, bytes(2))
    return machine


@pytest.mark.slow_variants(keep=12)
@pytest.mark.parametrize("kind", ["pc", "isapc"])
@pytest.mark.parametrize("vector", [0x0B, 0x0C, 0x70, 0x72, 0x73, 0x76])
@pytest.mark.parametrize(("mode", "level"), [(0, False), (AEOI, False), (0, True), (AEOI, True)])
def test_an_irq_on_its_way_into_the_cpu_is_handled_once_though_its_line_is_low(kind, vector, mode, level):
    machine = loaded(kind, *acknowledged(vector, 0, mode, level))
    machine.run(machine.executor.retired + 400)
    pic = machine.board.pic.save()
    assert machine.memory.read(0x500, 2) == b"\1\0"
    assert (pic.master.isr, pic.slave.isr) == (0, 0)
    assert (pic.master.once, pic.slave.once) == (0, 0)
    irq = vector - 0x70 + 8 if vector >= 0x70 else vector - 8
    assert not (pic.slave if irq >= 8 else pic.master).inputs >> (irq & 7) & 1  # its next edge is one


def test_a_level_that_is_put_back_for_once_is_an_ordinary_level_when_its_line_rises():
    """It ends with its line then, not with its acknowledge."""
    source, _ = acknowledged(0x0D, level=True)
    machine = built()
    convert.load(machine, source)
    line = machine.board.pic.line(5)
    assert machine.board.pic.save().master.once == 1 << 5
    line.set(True)
    assert machine.board.pic.save().master.once == 0
    assert machine.board.pic.acknowledge() == 0x0D
    assert machine.board.pic.chips[0].irr == 1 << 5
    line.set(False)
    assert machine.board.pic.chips[0].irr == 0


@pytest.mark.parametrize("high", [False, True])
def test_a_request_is_for_once_only_where_its_line_has_fallen(high):
    """A line that is still high asks by itself, as long as it is."""
    chip = ChipState(isr=2, inputs=2 * high, icw2=8, icw4=1, ready=True, elcr=2)
    pic = pic8259.State(chip, ChipState())
    assert convert_irqs.give_back(9, pic, None)
    assert (chip.isr, chip.inputs, chip.once) == (0, 2, 0 if high else 2)


@pytest.mark.parametrize("kind", ["pc", "isapc"])
def test_in_special_fully_nested_mode_the_slaves_other_interrupt_stays_in_service(kind):
    """IRQ 14's handler was interrupted by IRQ 8: the master's cascade is in service for both."""
    machine = loaded(kind, *acknowledged(0x70, 0, SFNM, besides=0x40))
    pic = machine.board.pic.save()
    assert (pic.master.isr, pic.slave.isr) == (4, 0x40)
    machine.run(machine.executor.retired + 400)
    assert machine.memory.read(0x500, 2) == b"\1\0"
    assert machine.board.pic.save().slave.isr == 0x40


@pytest.mark.parametrize("nested", [False, True])
def test_without_another_of_the_slaves_the_cascade_is_not_in_service_any_more(nested):
    source, _ = acknowledged(0x70, 0, SFNM * nested)
    machine = built()
    convert.load(machine, source)
    pic = machine.board.pic.save()
    assert (pic.master.isr, pic.slave.isr, pic.master.edges & 4) == (0, 0, 4)


@pytest.mark.parametrize(("instruction", "vector", "type"), [
    ("int 0x60", 0x60, 4), ("int3", 3, 6), ("int3", 3, 3), ("into", 4, 6), ("into", 4, 3), ("db 0xf1", 1, 5),
])  # fmt: skip
def test_an_int_whose_delivery_was_broken_off_is_executed_again(instruction, vector, type):
    """As Xen does, and without a word: RIP is still at it."""
    source, code = acknowledged(vector, type)
    machine = loaded("pc", source, code)
    machine.memory.write(0x7C00, assemble(f"bits 16\n{instruction}\nnext: hlt", 0x7C00))
    state = machine.cpu_state()
    state.rflags |= 0x800  # OF
    machine.load_cpu(state)
    machine.run(machine.executor.retired + 3)
    assert machine.memory.read(0x500, 2) == b"\1\0"


def test_a_fault_whose_delivery_was_broken_off_is_raised_again_and_said():
    source, code = acknowledged(0, 3)
    machine = built()
    notices = convert.load(machine, source)
    assert ("exception 0x00 was on its way into the CPU: the instruction at 0000:7c00 is executed again, and raises it "
            "if it was the one that did") in notices  # fmt: skip
    for at, data in code.items():
        machine.memory.write(at, data)
    machine.memory.write(0x500, bytes(2))
    machine.memory.write(0x7C00, assemble("bits 16\naam 0", 0x7C00))
    machine.run(machine.executor.retired + 2)
    assert machine.memory.read(0x500, 2) == b"\1\0"
    assert machine.memory.read(0x4FFA, 2) == b"\x00\x7c"  # where it returns to


@pytest.mark.parametrize("vector", [1, 18])
def test_a_trap_or_an_abort_is_named_where_it_is_not_delivered(vector):
    source, _ = acknowledged(vector, kind=3)
    assert (
        f"exception {vector:#04x} was on its way into the CPU, and is not delivered: no instruction raises it again"
        in convert.load(built(), source)
    )
