"""The map of RAM and ROM may change between two runs: what is executed and accessed is what stands there now."""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import CODE, real_state
from emu.engine import EngineError, ExitReason
from emu.firmware.payload import flat_gdt, flat_state
from emu.memory import Part, PhysicalMemory, Place
from emu.unicorn_engine import UnicornEngine
from emu.x86.state import CR0_PE, CR0_PG, Segment

SHADOW = 0xF0000
SIZE = 0x4000


class Ports:
    """No ports; MMIO reads 5Ah."""

    def __init__(self) -> None:
        self.on_out = lambda: None

    def port_in(self, port: int, size: int) -> int:
        return 0

    def port_out(self, port: int, size: int, value: int) -> None:
        self.on_out()

    def mmio_read(self, address: int, size: int) -> int:
        return int.from_bytes(b"\x5a" * size, "little")

    def mmio_write(self, address: int, size: int, value: int) -> None:
        pass

    def answers(self, address: int) -> bool:
        return True


@pytest.fixture(params=["fast", "gate"])
def shadowed(request, monkeypatch):
    """(memory, engine, ports): 64 KiB of RAM at 0; a ROM and RAM that may stand at F0000h, of which the ROM does."""
    if request.param == "gate":
        monkeypatch.setenv("V2E_ENGINE", "gate")
    memory = PhysicalMemory(
        [
            Part(0, 0x10000, "ram", "low"),
            Part(SHADOW, SIZE, "rom", "rom", assemble("bits 16\nmov ax, 1111h\nhlt")),
            Part(SHADOW, SIZE, "ram", "shadow", assemble("bits 16\nmov ax, 2222h\nhlt"), mapped=False),
        ]
    )
    ports = Ports()
    engine = UnicornEngine(memory.regions, ports, ports, timestamp=lambda: 0)
    yield memory, engine, ports
    engine.close()


def place(memory: PhysicalMemory, engine: UnicornEngine, *shadow: Place) -> None:
    memory.place([Place(0, 0x10000, "low", "ram"), *shadow])
    engine.remap(memory.regions)


ROM = Place(SHADOW, SIZE, "rom", "rom")
RAM = Place(SHADOW, SIZE, "shadow", "ram")
READ_ONLY = Place(SHADOW, SIZE, "shadow", "rom")
COPY = Place(SHADOW, SIZE, "rom", "rom", writes=("shadow", 0))


def ax_at_shadow(engine: UnicornEngine) -> int:
    state = real_state()
    state.cs, state.rip = Segment(0xF000, SHADOW, 0xFFFF, 0x9B), 0
    engine.load(state)
    assert engine.run(10).reason is ExitReason.HALT
    return engine.state().regs[0] & 0xFFFF


def run(memory: PhysicalMemory, engine: UnicornEngine, source: str) -> int:
    """AX after `source`, which runs in low RAM with DS F000h."""
    memory.write(CODE, assemble(f"bits 16\nmov ax, 0xf000\nmov ds, ax\n{source}\nhlt", CODE))
    engine.memory_changed(CODE, 0x100)
    engine.load(real_state())
    assert engine.run(100_000).reason is ExitReason.HALT
    return engine.state().regs[0] & 0xFFFF


def test_the_code_executed_is_that_of_the_memory_that_stands_there_now(shadowed):
    memory, engine, _ = shadowed
    seen = []
    for what in (ROM, RAM, READ_ONLY, COPY, RAM, ROM):
        place(memory, engine, what)
        seen.append(ax_at_shadow(engine))
    assert seen == [0x1111, 0x2222, 0x2222, 0x1111, 0x2222, 0x1111]


def test_writes_reach_ram_only_where_they_are_enabled(shadowed):
    memory, engine, _ = shadowed
    write = "mov word [100h], 4321h\nmov ax, [100h]"
    place(memory, engine, READ_ONLY)
    assert run(memory, engine, write) == 0
    assert memory.part("shadow")[0x100:0x102] == b"\0\0"
    place(memory, engine, RAM)
    assert run(memory, engine, write) == 0x4321
    place(memory, engine, READ_ONLY)
    assert run(memory, engine, "mov ax, [100h]") == 0x4321


def test_reads_from_rom_and_writes_to_ram_copy_a_rom_onto_itself(shadowed):
    memory, engine, _ = shadowed
    place(memory, engine, COPY)
    run(memory, engine, f"mov es, ax\nxor si, si\nxor di, di\nmov cx, {SIZE // 2}\ncld\nrep movsw")
    assert bytes(memory.part("shadow")) == bytes(memory.part("rom"))
    place(memory, engine, RAM)
    assert ax_at_shadow(engine) == 0x1111


def test_a_write_to_ram_behind_a_rom_is_not_read_back(shadowed):
    memory, engine, _ = shadowed
    place(memory, engine, COPY)
    assert run(memory, engine, "mov word [200h], 8765h\nmov ax, [200h]") == 0
    assert memory.part("shadow")[0x200:0x202] == b"\x65\x87"


def test_what_leaves_the_map_becomes_io_and_comes_back(shadowed):
    memory, engine, _ = shadowed
    place(memory, engine)
    assert run(memory, engine, "mov ax, [0]") == 0x5A5A
    place(memory, engine, ROM)
    assert run(memory, engine, "mov ax, [1]") == 0x1111


def test_the_host_s_writes_reach_translations_after_a_remap(shadowed):
    memory, engine, _ = shadowed
    memory.on_write.append(engine.memory_changed)
    place(memory, engine, RAM)
    assert ax_at_shadow(engine) == 0x2222
    memory.write(SHADOW, assemble("bits 16\nmov ax, 3333h\nhlt"))
    assert ax_at_shadow(engine) == 0x3333


def test_a_remap_in_the_middle_of_an_instruction_is_refused(shadowed):
    memory, engine, ports = shadowed
    ports.on_out = lambda: engine.remap(memory.regions)
    memory.write(CODE, assemble("bits 16\nout 80h, al\nhlt", CODE))
    engine.load(real_state())
    with pytest.raises(EngineError, match="inside a callback"):
        engine.run(5)


@pytest.mark.parametrize("present", [0, 1])
def test_a_paged_guest_sees_nothing_of_a_remap(shadowed, present):
    """Its page tables map something else, or nothing, where memory comes and goes: no fault, no accessed bit."""
    memory, engine, _ = shadowed
    table, directory = 0x3000, 0x2000
    memory.write(directory, (table | 3).to_bytes(4, "little"))
    for page in range(256):
        there = 3 if page < 0x10 else 2 | present
        memory.write(table + 4 * page, (page << 12 & 0xF000 | there).to_bytes(4, "little"))
    memory.write(CODE, assemble("bits 32\nnop\nhlt", CODE))
    state = flat_state(CODE, 0x4000)
    memory.write(0x4000, flat_gdt())
    state.cr0, state.cr2, state.cr3 = CR0_PG | CR0_PE, 0x12345678, directory
    engine.load(state)
    before = engine.state()
    for what in (ROM, RAM, READ_ONLY, COPY, RAM):
        place(memory, engine, what)
    place(memory, engine)
    assert engine.state() == before
    tables = memory.read(table, 0x400)
    assert not any(tables[at] & 0x20 for at in range(0, 0x400, 4))
    assert engine.run(10).reason is ExitReason.HALT
