"""A machine that was reset is one that was just built: the same states of memory, CPU, clock and devices."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from asm import assemble
from emu import layout
from emu.configuration import MachineConfig
from emu.firmware.roms import builtin_bios, find_firmware, find_vga_rom, read_rom
from emu.machine import Machine, build_machine
from emu.machine_state import MachineState
from emu.media import Disk
from machines import TIMER_100US, rom, seabios

#: Counts at 500h for ever, with the 8254's OUT low from the first instructions on.
COUNTING = rom("mov al, 0x30\n out 0x43, al\n again: inc word [0x500]\n jmp again")
TICKING = rom(f"{TIMER_100US}\n again: inc word [0x500]\n jmp again")


#: The same as a boot sector.
SECTOR = assemble("bits 16\n again: inc word [0x500]\n jmp again\n times 510-($-$$) db 0\n dw 0xaa55")


def media() -> dict[str, Any]:
    return {
        "disks": (Disk.from_bytes(SECTOR.ljust(1 << 20, b"\0")),),
        "floppies": (Disk.from_bytes(bytes(1440 << 10)),),
        "cdroms": (Disk.from_bytes(bytes(1 << 20)),),
    }


def bare(machine: str, firmware: bytes) -> MachineConfig:
    return MachineConfig(machine=machine, memory=2 << 20, firmware=firmware, **media())


def built_in(machine: str) -> MachineConfig:
    return MachineConfig(machine=machine, memory=16 << 20, firmware=builtin_bios(), bios=True, **media())


def with_seabios(machine: str) -> MachineConfig:
    bios, vga = seabios()  # or skips
    if machine == "isapc":
        return MachineConfig(memory=16 << 20, firmware=bios, fw_cfg={"vgaroms/vgabios.bin": vga}, **media())
    bios, vga = read_rom(find_firmware("seabios", machine)), read_rom(find_vga_rom(machine))
    virtio = (Disk.from_bytes(bytes(1 << 20)),)
    return MachineConfig(machine=machine, memory=16 << 20, firmware=bios, vga_rom=vga, virtio=virtio, **media())


CONFIGURATIONS: dict[str, Callable[[str], MachineConfig]] = {
    "counting": lambda machine: bare(machine, COUNTING),
    "ticking": lambda machine: bare(machine, TICKING),
    "built-in": built_in,
    "seabios": with_seabios,
}


def differences(one: MachineState, other: MachineState) -> list[str]:
    """What is not equal, and how."""
    names = sorted({*one.devices, *other.devices})
    pairs = {name: (one.devices.get(name), other.devices.get(name)) for name in names}
    pairs |= {"clock": (one.clock, other.clock), "cpu": (one.cpu, other.cpu)}
    pairs |= {"same memory": (True, one.memory == other.memory), "retired": (one.retired, other.retired)}
    return [f"{name}: {a} is not {b}" for name, (a, b) in pairs.items() if a != b]


@pytest.mark.parametrize("machine", ["isapc", "pc"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_reset_machine_is_as_a_fresh_one(machine: str, name: str) -> None:
    config = CONFIGURATIONS[name]
    fresh, reset = build_machine(config(machine)), build_machine(config(machine))
    built, print_built = fresh.save(), fresh.fingerprint()
    for instructions in (0, 7, 300_001, 3_000_000):
        reset.run(instructions)
        reset.reset()
        assert differences(built, reset.save()) == []
        assert reset.fingerprint() == print_built
    fresh.run(2_000_000)
    reset.run(2_000_000)
    assert reset.fingerprint() == fresh.fingerprint()


Read = Callable[[int, int], int]
Write = Callable[[int, int, int], None]


def places(machine: Machine) -> list[tuple[Read, Write, int, int]]:
    """All ports and registers in memory that devices have: how to read and write there, where, so many bytes."""
    ports = [port for r in machine.ports.ranges for port in range(r.first, r.first + r.count)]
    memory = [at for r in machine.mmio.ranges if r.name != "vga" for at in range(r.first, r.first + r.count, 4)]
    memory += [layout.LAPIC + at for at in range(0, 0x400, 16)] if machine.config.machine == "pc" else []
    return [
        *((machine.ports.port_in, machine.ports.port_out, port, 1) for port in ports),
        *((machine.mmio.mmio_read, machine.mmio.mmio_write, at, 4) for at in memory),
    ]


@pytest.mark.parametrize("machine", ["isapc", "pc"])
def test_whatever_was_done_to_devices(machine: str) -> None:
    fresh = build_machine(bare(machine, COUNTING))
    built = fresh.save()
    for seed in range(10):
        chance = random.Random(seed)
        touched = build_machine(bare(machine, COUNTING))
        all_places = places(touched)
        for turn in range(300):
            read, write, at, size = chance.choice(all_places)
            write(at, size, chance.choice((0, (1 << 8 * size) - 1, chance.getrandbits(8 * size))))
            read(at, size)
            if turn % 10 == 0:
                touched.run(touched.executor.retired + chance.choice((0, 1, 20, 2000)))
        touched.reset()
        assert differences(built, touched.save()) == [], seed
    fresh.run(200_000)
    touched.run(200_000)
    assert touched.fingerprint() == fresh.fingerprint()


@pytest.mark.parametrize("machine", ["isapc", "pc"])
def test_a_line_that_rises_by_a_reset_of_the_guest_s_is_no_request(machine: str) -> None:
    config = bare(machine, COUNTING)
    fresh, guest = build_machine(config), build_machine(config)
    guest.run(20)
    assert not guest.board.pic.chips[0].state.inputs & 1  # OUT of counter 0
    guest.request_reset("system")
    guest.service()
    assert guest.board.pic.chips[0].state.inputs & 1
    assert not guest.board.pic.chips[0].state.edges
    assert guest.board.pic.save() == fresh.board.pic.save()


def test_a_reset_of_the_guest_s_leaves_what_a_battery_and_no_pin_keeps() -> None:
    guest = build_machine(bare("isapc", COUNTING))
    for port, value in ((0x70, 0x40), (0x71, 0x5A), (0x3FF, 0xA5)):
        guest.ports.port_out(port, 1, value)
    guest.request_reset("system")
    guest.service()
    assert [guest.ports.port_in(port, 1) for port in (0x71, 0x3FF)] == [0x5A, 0xA5]
    guest.reset()
    guest.ports.port_out(0x70, 1, 0x40)
    assert [guest.ports.port_in(port, 1) for port in (0x71, 0x3FF)] == [0, 0]
