"""Memory by which firmware says that something has come is told by its name. Names and addresses are those of the IBM
PS/2 and PC BIOS Interface Technical Reference, "BIOS Data Area"."""

from __future__ import annotations

import re

import pytest

from asm import assemble
from emu.awaited import firmware_word
from emu.debugger import Debugger
from emu.firmware.roms import builtin_bios
from emu.machine import MachineConfig, build_machine
from emu.media import Disk
from emu.stuck import explain
from machines import debugger, rom


def stand(source: str) -> Debugger:
    run = debugger(rom(source))
    run.set_limit(2_000)
    run.begin_continue()
    run.run()
    return run


def sector(source: str) -> bytes:
    return assemble(f"org 0x7c00\n{source}\ntimes 510-($-$$) db 0\ndw 0xaa55")


def test_a_wait_for_a_key_by_the_built_in_bios_names_the_call() -> None:
    """Behind a restore, too, and not where the byte is another call's."""
    disk = Disk.from_bytes(sector("xor ah, ah\nint 0x16").ljust(1 << 20, b"\0"))
    session = Debugger(build_machine(MachineConfig(firmware=builtin_bios(), bios=True, disks=(disk,))))
    session.set_limit(10_000_000)
    session.begin_continue()
    while session.pump(200_000) is None and session.progress.noticed is None:
        pass
    if session.running:
        session.stop()
    saved = session.save()
    for _ in range(2):
        view = explain(session.machine)
        assert "INT 16h (read a keystroke) is done" in view.summary
        assert any(text.endswith("the built-in BIOS must write it") for text in view.details)
        session.restore(saved)
    place = next(source for source in re.findall(r"linear (0x[0-9a-f]+)", view.summary))
    session.machine.write_physical(int(place, 16) + 48, b"\x13")
    assert "INT 1" not in explain(session.machine).summary
    session.machine.close()


@pytest.mark.parametrize(
    ("wait", "told"),
    [
        ("mov ax, [0x41a]\ncmp ax, [0x41c]\nje w", "the tail of the keyboard's buffer"),
        ("test byte [0x43e], 0x80\njz w", "the diskette's interrupt flag"),
        ("test byte [0x4a0], 0x80\njz w", "the wait flag"),
    ],
)
def test_a_wait_for_a_variable_of_the_bios_names_it(wait: str, told: str) -> None:
    session = stand(f"w: {wait}")
    view = explain(session.machine)
    assert view.verdict == "waits"
    assert f"({told})" in view.summary
    session.machine.close()


def test_in_protected_mode_memory_is_nobodys_variable() -> None:
    assert firmware_word(stand("jmp $").machine, 0x41C, 1)
    session = stand("lgdt [cs:gdt]\nmov eax, cr0\nor al, 1\nmov cr0, eax\njmp $\ngdt: dw 0\ndd 0")
    assert firmware_word(session.machine, 0x41C, 1) is None
