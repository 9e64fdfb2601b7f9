"""Keys and the pointing device by the built-in BIOS: what SeaBIOS makes of the same input in the same machine."""

from __future__ import annotations

import functools

import pytest

from emu.firmware.roms import builtin_bios
from emu.machine import Machine, MachineConfig, build_machine
from emu.media import Disk
from machines import seabios
from oracles import assemble_image

SIZE = 20 * 16 * 63 * 512
KEYS = """
    a shift+a ctrl+a alt+a capslock b shift+b capslock 1 shift+1 ctrl+2 alt+1 f1 shift+f1 ctrl+f1 alt+f1 f11 ctrl+f12
    left ctrl+left alt+left home insert insert delete pageup ctrl+end up kp7 kp5 numlock kp7 kp. numlock enter
    ctrl+enter kpenter alt+kpenter kp/ tab shift+tab ctrl+tab backspace ctrl+backspace space [ ctrl+[ \\ - ctrl+- alt+-
    kp* kp- rctrl+c ralt+x rshift+z printscreen ctrl+pause pause q esc
"""
MOUSE = ("move 5 3", "move -7 2", "down left", "up left", "move 300 0", "down right")
#: Lines of SeaBIOS that are not ours, and why.
DIFFERENT = {
    # the 5 of the keypad is F0h to the functions of enhanced keyboards (IBM, table of keystrokes)
    "key A=4C00 B=0000": "key A=4CF0 B=0000",
}


def until(machine: Machine, text: str) -> None:
    """Run in pieces until `text` was printed, whether the CPU sleeps or not."""
    for _ in range(2000):
        if text in machine.debugcon_text():
            return
        machine.run(machine.executor.retired + (300 if machine.executor.halted else 100_000))
    raise AssertionError(machine.debugcon_text()[-500:])


@functools.cache
def said(which: str) -> list[str]:
    """What the image prints."""
    disk = Disk.from_bytes(assemble_image("bios_input").ljust(SIZE, b"\0"))
    if which == "builtin":
        config = MachineConfig(memory=16 << 20, firmware=builtin_bios(), bios=True, disks=[disk])
    else:
        rom, vga = seabios()
        config = MachineConfig(memory=16 << 20, firmware=rom, fw_cfg={"vgaroms/vgabios.bin": vga}, disks=[disk])
    machine = build_machine(config)
    until(machine, "\nkeys")
    for key in KEYS.split():
        machine.feed("keys", key)
        machine.run(machine.executor.retired + 8000)
    until(machine, "status")
    for action in MOUSE:
        machine.feed("mouse", action)
        machine.run(machine.executor.retired + 20_000)
    until(machine, "\noff F0")
    return machine.debugcon_text().partition("\nkeys\n")[2].splitlines()


@pytest.mark.slow
def test_keys_and_packets_are_those_of_seabios() -> None:
    theirs = [DIFFERENT.get(line, line) for line in said("seabios")]
    # Insert's state is bit 7 of 40:17, which SeaBIOS leaves alone; the second stroke ends it.
    theirs[theirs.index("key A=52E0 B=0000")] = "key A=52E0 B=0080"
    assert said("builtin") == theirs


@pytest.mark.slow
def test_each_key_and_each_packet_comes_once() -> None:
    lines = said("builtin")
    keys = [key for key in KEYS.split() if key not in ("capslock", "numlock", "printscreen", "pause")]
    assert len([line for line in lines if line.startswith("key ")]) == len(keys)
    assert lines.count("break") == lines.count("print screen") == 1
    assert [line for line in lines if line.startswith("packet")][:2] == [
        "packet A=0008 B=0005 C=0003", "packet A=0018 B=00F9 C=0002"
    ]  # fmt: skip
