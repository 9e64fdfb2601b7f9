"""Streams between the emulator and a real Xen, both ways: what the guest says is as if nobody had moved it."""

import struct

import pytest
from counting import ALL, DIVISOR, LIMIT, said
from streams import Guests, Served

from emu.firmware.roms import builtin_bios
from emu.machine import Machine, MachineConfig, build_machine
from emu.media import Disk
from emu.x86.state import CR4_OSXSAVE, Fpu
from machines import Board, sector
from xenbridge.xen import context
from xenbridge.xen.files import open_file
from xenbridge.xen.stream_files import load_file, save_file

MEMORY = 2 << 20
FOREVER = 1 << 40


def counting(image: bool = True) -> Machine:
    """An emulated PC with count.asm on its disk."""
    disks = (Disk.from_bytes(sector("count").ljust(1 << 20, b"\0")),) if image else ()
    return build_machine(MachineConfig(machine="pc", memory=MEMORY, firmware=builtin_bios(), bios=True, disks=disks))


def lines(text: str) -> int:
    return text.count("\n")


def run_to(machine: Machine, count: int) -> str:
    """Run until it has said so many lines; all it has said."""
    while lines(text := machine.serial_text()) < count:
        machine.run(machine.executor.retired + 500)
    return text


@pytest.fixture
def guests(libraries):
    opened = Guests(libraries)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """What it had said, and the stream that was saved then."""
    machine, path = counting(), tmp_path_factory.mktemp("ours") / "ours.save"
    text = run_to(machine, 10)
    save_file(machine, path)
    return text, path


def test_a_stream_of_ours_is_restored_by_xen_and_ticks_on_to_the_same_end(libraries, guests, emulated) -> None:
    before, path = emulated
    board = Board()
    with Served(guests.restore(path, MEMORY), board) as restored:
        domain = restored.domain
        assert domain.cpu_state().linear_pc in range(0x7C00, 0x7E00)
        assert domain.memory.read(0x7C00, 512) == sector("count")
        counter = domain.record(context.PIT).data
        assert struct.unpack_from("<I", counter)[0] == DIVISOR
        domain.memory.write(LIMIT, ALL)
        assert restored.run(lambda: board.text.endswith("end\n"), 60)
    assert before + board.text == said()


def test_a_stream_of_xens_is_inspected_and_continued_in_the_emulator_to_the_same_end(
    guests, emulated, tmp_path
) -> None:
    """The domain came from the emulator, and goes back."""
    before, path = emulated
    board, again = Board(), tmp_path / "xens.save"
    with Served(guests.restore(path, MEMORY), board) as restored:
        assert restored.run(lambda: lines(board.text) >= 10, 60)
        guests.save(restored, again)
    file = open_file(again)
    assert file.about == "save stream of Xen 4.17"
    assert file.read_physical(0x7C00, 512) == sector("count")
    assert {view.name for view in file.devices()} >= {"pit", "lapic", "rtc"}
    machine = counting(image=False)
    load_file(machine, again)
    middle = board.text
    machine.memory.write(LIMIT, ALL)
    machine.run(FOREVER)
    assert before + middle + machine.serial_text() == said()


def test_xcr0_goes_into_xen_with_the_registers_that_xsave_has(guests, tmp_path) -> None:
    """A guest of ours with OSXSAVE, by Xen's own check of the record; and back."""
    machine, path = counting(), tmp_path / "xsave.save"
    state = machine.cpu_state()
    state.cr4, state.xcr0, state.fpu.xmm[5] = state.cr4 | CR4_OSXSAVE, 3, 0x1234 << 64
    machine.load_cpu(state)
    assert not [notice for notice in save_file(machine, path) if "XCR0" in notice]
    with Served(guests.restore(path, MEMORY), Board()) as restored:
        record = next(r for r in restored.domain.records() if r.code == context.CPU_XSAVE)
        assert int.from_bytes(record.data[8:16], "little") == 3
        again = restored.domain.cpu_state()
    assert (again.fpu.xmm[5], again.cr4 & CR4_OSXSAVE) == (0x1234 << 64, CR4_OSXSAVE)


def test_components_that_an_area_leaves_out_are_initial_in_a_domain_and_stay_so(guests, tmp_path) -> None:
    """Their bytes are in Xen's records all the same, of both kinds; a register that is changed brings none back."""
    machine, path = counting(), tmp_path / "initial.save"
    state = machine.cpu_state()
    state.cr4, state.xcr0, state.fpu.xmm[5], state.fpu.st[2] = state.cr4 | CR4_OSXSAVE, 3, 0x1234 << 64, 0x4000 << 64
    machine.load_cpu(state)
    save_file(machine, path)
    data = bytearray(path.read_bytes())
    record = next(r for r in open_file(path).records if r.name == "CPU_XSAVE")
    at = record.offset + 24 + 512
    data[at : at + 8] = bytes(8)  # XSTATE_BV
    path.write_bytes(data)
    assert open_file(path).cpu_state().fpu == Fpu()
    with Served(guests.restore(path, MEMORY), Board()) as restored:
        domain = restored.domain
        raw = next(r.data for r in context.split(domain._context()) if r.code == context.CPU)
        assert context.cpu_state(raw).fpu.xmm[5] == 0x1234 << 64
        for _ in range(2):
            found = domain.cpu_state()
            assert found.fpu == Fpu()
            found.regs[0] ^= 0x5555
            domain.load_cpu(found)
        assert domain.cpu_state().regs[0] == state.regs[0]


def test_the_records_of_a_stream_of_ours_are_what_xen_gives_back(guests, emulated) -> None:
    """All that the paused domain's context has in common with the stream's, but for what goes on counting."""
    _, path = emulated
    file = open_file(path)
    with Served(guests.restore(path, MEMORY), Board()) as restored:
        state, records = restored.domain.cpu_state(), restored.domain.records()
    given = file.cpu_state()
    given.msrs, state.msrs = {}, {}
    given.halted = state.halted
    assert state == given
    kept = {(r.code, r.instance): r.data for r in file.records}
    got = {(r.code, r.instance): r.data for r in records}
    assert {key for key in kept if key not in got} == set()
    assert got[context.PIC, 0] == kept[context.PIC, 0]
    assert got[context.PIC, 1] == kept[context.PIC, 1]
