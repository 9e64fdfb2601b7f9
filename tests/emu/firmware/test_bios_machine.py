"""The built-in BIOS in its machine: events, states saved while a service waits, resets, the default firmware."""

from __future__ import annotations

import pytest

from asm import assemble
from emu.firmware.roms import builtin_bios
from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.media import Disk
from emu.unicorn_helper import HELPER
from machines import seabios_debugger, seabios_pc
from oracles import assemble_image
from repl.cli import main

SIZE = 20 * 16 * 63 * 512


def machine(image: bytes, **config: object) -> Machine:
    """With a disk that begins with `image`."""
    options: dict[str, object] = {"memory": 16 << 20, "disks": [Disk.from_bytes(image.ljust(SIZE, b"\0"))], **config}
    return build_machine(MachineConfig(firmware=builtin_bios(), bios=True, **options))  # type: ignore[arg-type]


def test_each_call_is_an_event_with_its_arguments() -> None:
    run = machine(assemble_image("hello_mbr"))
    assert run.run(50_000_000).reason is MachineStop.EXIT
    calls = [event.text for event in run.journal if event.kind == "bios"]
    assert "INT 13h read: drive 80h, cylinder 0, head 0, sector 2, 1 sector, buffer 0000:8000 -> ok" in calls
    assert "INT 13h extended read: drive 80h, LBA 1, 1 sector, buffer 0000:9000 -> ok" in calls
    assert calls[-1] == "INT 10h teletype: 0Ah"
    assert run.screen().rows[2].rstrip() == "hello from sector 2"


def test_a_call_that_fails_says_its_code() -> None:
    sector = assemble(
        "bits 16\norg 0x7c00\nmov ax, 0x0201\nmov cx, 0\nmov dx, 0x80\nint 0x13\nmov al, ah\nout 0xf4, al\n"
        "times 510-($-$$) db 0\ndw 0xaa55"
    )
    run = machine(sector)
    assert run.run(50_000_000).code == 1
    said = [event.text for event in run.journal if event.kind == "bios"][-1]
    assert said == (
        "INT 13h read: drive 80h, cylinder 0, head 0, sector 0, 1 sector, buffer 0000:0000 -> error 01h"
    )  # fmt: skip


WAITING = """
    bits 16
    org 0x7c00
    xor ax, ax
    mov ds, ax
    mov ah, 0x86                    ; two waits, by the clock and by looking again, and one for a key
    mov cx, 1
    mov dx, 0
    int 0x15
    mov ah, 0x86
    mov cx, 0
    mov dx, 1500
    int 0x15
    mov ah, 0
    int 0x16
    out 0xe9, al
    mov al, 0
    out 0xf4, al
    times 510-($-$$) db 0
    dw 0xaa55
"""


@pytest.mark.slow
def test_a_state_saved_while_a_service_waits_continues_equally() -> None:
    sector = assemble(WAITING)
    first = machine(sector)
    states = []
    while not any(event.text.startswith("INT 19h") for event in first.journal):
        first.run(first.executor.retired + 1000)
    # Pieces of a few instructions, so that each of the three waits is met.
    while "INT 15h wait: 1500 us -> ok" not in [event.text for event in first.journal]:
        first.run(first.executor.retired + 500)
        states.append(first.save())
    for _ in range(5):
        first.run(first.executor.retired + 50)
        states.append(first.save())
    first.feed("keys", "k")
    assert first.run(states[-1].retired + 1_000_000).code == 0
    for state in (states[2], states[len(states) // 2], states[-8], states[-2]):
        other = machine(sector)
        other.restore(state)
        other.run(states[-1].retired)
        other.feed("keys", "k")
        assert other.run(states[-1].retired + 1_000_000).code == 0
        assert other.fingerprint() == first.fingerprint()
        other.close()


def test_a_wait_takes_as_long_as_asked_and_no_tick_more() -> None:
    sector = assemble(
        """
        bits 16
        org 0x7c00
        out 0xe9, al
        mov ah, 0x86
        mov cx, 0x000F
        mov dx, 0x4240                  ; a second
        int 0x15
        mov al, 0
        out 0xf4, al
        times 510-($-$$) db 0
        dw 0xaa55
        """
    )
    run = machine(sector)
    while not run.debugcon_text():
        run.run(run.executor.retired + 30)
    begin = run.clock.now
    assert run.run(50_000_000).code == 0
    assert 999_000_000 <= run.clock.now - begin <= 1_002_000_000


RESETS = """
    bits 16
    org 0x7c00
    xor ax, ax
    mov ds, ax
    mov al, 0xC0                        ; a byte of CMOS RAM counts the boots, NMI stays off
    out 0x70, al
    in al, 0x71
    inc al
    mov ah, al
    mov al, 0xC0
    out 0x70, al
    mov al, ah
    out 0x71, al
    add al, '0'
    out 0xe9, al
    cmp ah, 2
    je over
    mov word [0x467], resumed
    mov word [0x469], 0
    mov bl, 0x0A
    jmp reset
resumed:
    xor ax, ax
    mov ds, ax
    mov al, 'a'
    out 0xe9, al
    mov word [0x467], again
    mov bl, 0x05
    jmp reset
again:
    mov al, 'b'
    out 0xe9, al
    mov bl, 0                           ; boots anew
reset:
    mov al, 0x8F
    out 0x70, al
    mov al, bl
    out 0x71, al
    mov al, 0xFE
    out 0x64, al
    jmp $
over:
    mov al, 0
    out 0xf4, al
    times 510-($-$$) db 0
    dw 0xaa55
"""


@pytest.mark.parametrize("kind", ["isapc", "pc"])
def test_shutdown_codes_say_where_a_reset_of_the_cpu_goes_on(kind: str) -> None:
    run = machine(assemble(RESETS), machine=kind)
    assert run.run(50_000_000).code == 0
    assert run.debugcon_text() == "1ab2"


MASKED = """
    bits 16
    org 0x7c00
    xor ax, ax
    mov ds, ax
    inc byte [0x600]                    ; conventional RAM outlives a reset of the CPU
    mov al, [0x600]
    add al, '0'
    out 0xe9, al
    cmp al, '2'
    je over
    mov ax, 0x2400                      ; A20 off
    int 0x15
    RESET
    jmp $
over:
    mov al, 0
    out 0xf4, al
    times 510-($-$$) db 0
    dw 0xaa55
"""


@pytest.mark.parametrize("kind", ["isapc", "pc"])
@pytest.mark.parametrize("firmware", ["builtin", pytest.param("seabios", marks=pytest.mark.slow)])
@pytest.mark.parametrize("reset", ["mov al, 0xFE\nout 0x64, al", "mov al, 1\nout 0x92, al"])
def test_a_reset_of_the_cpu_finds_the_rom_with_a20_masked(kind: str, firmware: str, reset: str) -> None:
    sector = assemble(MASKED.replace("RESET", reset))
    if firmware == "seabios":
        run = seabios_debugger(sector).machine if kind == "isapc" else seabios_pc(sector)
    else:
        run = machine(sector, machine=kind)
    end = run.run(400_000_000)
    assert (end.code, run.debugcon_text()[-1:]) == (0, "2"), end


@pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")
def test_an_instruction_that_is_nowhere_with_a20_masked_says_so() -> None:
    run = machine(
        assemble(
            "bits 16\norg 0x7c00\nmov ax, 0x2400\nint 0x15\ncli\nlgdt [gdtr]\nmov eax, cr0\ninc ax\nmov cr0, eax\n"
            "jmp dword 8:0xFFC00000\ngdtr: dw 15\ndd gdt\ngdt: dq 0, 0x00CF9A000000FFFF\n"
            "times 510-($-$$) db 0\ndw 0xaa55"
        )
    )
    end = run.run(50_000_000)
    assert end.exit is not None
    assert end.exit.faults[0].vector == 6
    assert end.exit.faults[0].hint == "no RAM or ROM is there, with A20 masked (address bit 20 is 0)"


def test_ctrl_alt_delete_boots_anew() -> None:
    sector = assemble(
        "bits 16\norg 0x7c00\nmov al, '!'\nout 0xe9, al\nsti\nw: hlt\njmp w\ntimes 510-($-$$) db 0\ndw 0xaa55"
    )
    run = machine(sector)
    while not run.debugcon_text():
        run.run(run.executor.retired + 1000)
    run.feed("keys", "ctrl+alt+delete")
    for _ in range(400):
        if run.debugcon_text() == "!!":
            return
        run.run(run.executor.retired + (200 if run.executor.halted else 20_000))
    raise AssertionError(run.debugcon_text())


def test_an_image_needs_no_other_firmware(tmp_path, capsys) -> None:
    image = tmp_path / "hello.img"
    image.write_bytes(assemble_image("hello_mbr").ljust(SIZE, b"\0"))
    assert main(["run", str(image), "--until", "exit", "-c", "screen", "-c", "bios 2"]) == 1
    out, err = capsys.readouterr()
    assert "hello from sector 2" in out
    assert "INT 10h teletype: 0Dh" in out
    assert err == ""
