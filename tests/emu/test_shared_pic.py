"""What a timer interrupt's handler asks of the master 8259, answered by the helper as the device would answer it, and
runs that go on behind the delivery."""

from __future__ import annotations

import pytest

from emu.debugger import Debugger
from emu.stops import StopKind
from machines import debugger, programs_pics, rom
from reaching import run_reaching
from run_loops import needs_helper

#: IRQ 0 every 30 CLK pulses, handled as Linux does it (mask, EOI, unmask), every other time by a specific EOI; COM1's
#: transmitter interrupts with each turn, RTC's periodic interrupt comes through the slave. The turns mask at random,
#: hold interrupts back, look at IRR and ISR, and in the end go through special mask mode, rotation and automatic EOI.
BODY = (
    """
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7000
    mov word [0x20 * 4], timer
    mov word [0x20 * 4 + 2], cs
    mov word [0x24 * 4], serial
    mov word [0x24 * 4 + 2], cs
    mov word [0x28 * 4], clock
    mov word [0x28 * 4 + 2], cs
    mov di, 0x1000
    cld
    mov bl, 1                   ; ICW4: 8086 mode
    call program
    mov al, 0x34
    out 0x43, al
    mov al, 30
    out 0x40, al
    mov al, 0
    out 0x40, al
    mov al, 0x0B                ; register B: 24 hours, periodic interrupt
    out 0x70, al
    mov al, 0x42
    out 0x71, al
    mov al, 0x0A
    out 0x70, al
    mov al, 0x23                ; 8192 Hz
    out 0x71, al
    mov dx, 0x3FC
    mov al, 8                   ; OUT2 lets COM1 interrupt
    out dx, al
    mov cx, 400
    sti
turn:
    mov ax, cx
    imul ax, 25173
    add ax, 13849
    mov si, ax
    test si, 0x0100
    jz no_mask
    mov al, ah
    and al, 0x11                ; IRQ 0, IRQ 4
    out 0x21, al
    times 30 nop
    in al, 0x21
    stosb
no_mask:
    test si, 0x0200
    jz no_serial
    mov dx, 0x3F9
    mov al, 0
    out dx, al
    mov al, 2                   ; the empty transmitter interrupts
    out dx, al
no_serial:
    test si, 0x0400
    jz no_hold
    cli
    times 40 nop
    mov al, 0x0A
    out 0x20, al
    in al, 0x20
    stosb
    mov al, 0
    out 0x21, al
    sti
    nop
no_hold:
    mov al, 0
    out 0x21, al
    call wait_a_little
    cmp cx, 100
    jne not_special
    mov al, 0x68                ; special mask mode
    out 0x20, al
not_special:
    cmp cx, 60
    jne not_back
    mov al, 0x48
    out 0x20, al
    mov al, 0xC3                ; IR3 is the lowest
    out 0x20, al
not_back:
    cmp cx, 30
    jne not_automatic
    cli
    mov bl, 3                   ; automatic EOI
    call program
    sti
not_automatic:
    dec cx
    jnz near turn
    cli
    mov al, 0x0B
    out 0x20, al
    in al, 0x20
    stosb
    mov ax, [0x600]
    stosw
    mov al, 0
    out 0xf4, al
    hlt

wait_a_little:
    push cx
    mov cx, 120
    loop $
    pop cx
    ret

program:                        ; BL: ICW4
"""
    + programs_pics("bl")
    + """

timer:
    push ax
    in al, 0x21
    push ax
    or al, 1
    out 0x21, al
    inc word [0x600]
    mov al, 0x20
    test byte [0x600], 1
    jz ended
    mov al, 0x60
ended:
    out 0x20, al
    pop ax
    out 0x21, al
    pop ax
    iret

serial:
    push ax
    push dx
    mov dx, 0x3FA
    in al, dx
    inc word [0x602]
    mov al, 0x0B
    out 0x20, al
    in al, 0x20
    stosb
    mov al, 0x20
    out 0x20, al
    pop dx
    pop ax
    iret

clock:                          ; the first access is the master's, which no one has told of the slave's acknowledge
    push ax
    inc word [0x604]
    mov al, 4
    out 0x21, al
    mov al, 0x0B
    out 0x20, al
    in al, 0x20
    stosb
    mov al, 0x20
    out 0x20, al
    out 0xA0, al
    mov al, 0x0C
    out 0x70, al
    in al, 0x71
    mov al, 0
    out 0x21, al
    pop ax
    iret
"""
)


def run(monkeypatch: pytest.MonkeyPatch, loop: str, **config: object) -> tuple[Debugger, list[int]]:
    """The machine behind BODY, and the ports whose accesses reached Python."""
    return run_reaching(monkeypatch, loop, BODY, **config)


def story(made: Debugger) -> tuple[object, ...]:
    machine = made.machine
    return made.fingerprint(), machine.save().devices, list(machine.journal)


@pytest.mark.slow_variants
@needs_helper
@pytest.mark.parametrize("length", [None, pytest.param(1, marks=pytest.mark.slow), 13, 1000])
def test_both_loops_and_any_slice_give_the_same(monkeypatch: pytest.MonkeyPatch, length: int | None) -> None:
    gate, _ = run(monkeypatch, "gate")
    fast, _ = run(monkeypatch, "fast", slice=length)
    assert story(fast) == story(gate)


@needs_helper
def test_the_program_meets_all_three_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = run(monkeypatch, "fast")
    counts = [int.from_bytes(made.machine.memory.read(at, 2), "little") for at in (0x600, 0x602, 0x604)]
    assert counts[0] > 20
    assert counts[1] > 50
    assert counts[2] > 3


@needs_helper
def test_few_accesses_reach_python(monkeypatch: pytest.MonkeyPatch) -> None:
    _, reached = run(monkeypatch, "fast")
    _, all_of_them = run(monkeypatch, "gate")
    assert reached.count(0x21) < all_of_them.count(0x21) / 2


@needs_helper
def test_traced_accesses_all_reach_python_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, reached = run(monkeypatch, "fast", traced=True)
    gate, all_of_them = run(monkeypatch, "gate", traced=True)
    assert reached == all_of_them
    assert story(fast) == story(gate)


@pytest.mark.slow
@needs_helper
def test_saved_anywhere_it_goes_on_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = story(run(monkeypatch, "fast")[0])
    monkeypatch.setenv("V2E_ENGINE", "fast")
    one, other = debugger(rom(BODY)), debugger(rom(BODY))
    at = 0
    while at < 70_000:
        at += 997
        one.machine.run(at)
        other.machine.restore(one.machine.save())
        one, other = other, one
    one.set_limit(10_000_000)
    one.begin_continue()
    assert one.run().kind is StopKind.EXIT
    assert (one.fingerprint(), one.machine.save().devices) == expected[:2]
