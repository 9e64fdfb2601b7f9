"""Which interrupt of a hypervisor's controllers a guest takes first, and each of them once."""

from __future__ import annotations

import random
import time

import pytest

from bridges import Driven, until
from kept_guests import guest
from xenbridge.signals import Signals


def test_a_higher_interrupt_at_the_delivery_of_a_lower_has_it_come_once(kind: str, signals: Signals) -> None:
    """The engine has delivered IRQ 4 when IRQ 0 comes, and the bridge has not been told yet: IRQ 4 is served, once."""
    body = """
    mov al, 0xee
    out 0x21, al
    mov dword [0x510], 0x600D
    sti
wait_both:
    cmp dword [0x504], 1
    jb wait_both
    cmp dword [0x500], 2
    jb wait_both
    cli
    """
    driven = Driven(kind, guest(body, 0), signals)
    bridge, acknowledge, met = driven.keeper.bridge, driven.keeper.acknowledge, list[int]()

    def beaten() -> int:
        if driven.keeper.pending_vector() == 12 and not met:
            for level in (True, False):
                bridge.set_line(0, level)
            time.sleep(0.02)
        met.append(acknowledge())
        return met[-1]

    driven.keeper.acknowledge = beaten  # type: ignore[method-assign]
    driven.start()
    assert until(lambda: driven.word(0x510) == 0x600D)
    bridge.set_line(4, True)
    assert driven.end(60).code == 7
    assert (driven.word(0x504), met.count(12)) == (1, 1)
    driven.close()


#: Interrupts off until the word at 514h is set; then the order in which two handlers are is left at 520h, a digit each:
#: 1 and 3 the begin and the end of IRQ 1's, 2 that of IRQ 6, which is lower, and held back by it until its EOI.
BOTH_LATE = """
    mov word [9 * 4], keyboard
    mov word [9 * 4 + 2], 0xf000
    mov word [14 * 4], diskette
    mov word [14 * 4 + 2], 0xf000
    xor eax, eax
    mov [0x514], eax
    mov [0x520], eax
    mov al, 0xbd
    out 0x21, al
    mov dword [0x510], 0x1234
late:
    cmp dword [0x514], 0
    je late
    sti
both:
    cmp dword [0x520], 0xff
    jbe both
    mov ecx, 100000
behind:
    dec ecx
    jnz behind
    cli
    jmp done
keyboard:
    shl dword [0x520], 4
    or byte [0x520], 1
    sti
    mov ecx, 100000
in_handler:
    dec ecx
    jnz in_handler
    cli
    shl dword [0x520], 4
    or byte [0x520], 3
    jmp eoi
diskette:
    shl dword [0x520], 4
    or byte [0x520], 2
    jmp eoi
done:
"""


def test_a_higher_interrupt_comes_before_one_that_a_guest_has_kept_waiting(kind: str, signals: Signals) -> None:
    """The owner decides at the delivery, whatever it had acknowledged while the guest's interrupts were off."""
    driven = Driven(kind, guest(BOTH_LATE, 0), signals)
    bridge = driven.keeper.bridge
    driven.start()
    assert until(lambda: driven.word(0x510) == 0x1234, 20)
    for line, vector in ((6, 14), (1, 9)):
        bridge.set_line(line, True)
        assert until(lambda vector=vector: driven.keeper.pending_vector() == vector)  # type: ignore[misc]
    driven.machine.memory.write(0x514, b"\1")
    assert driven.end().code == 7
    assert driven.word(0x520) == 0x132
    assert sum(event.kind == "interrupt" for event in driven.machine.journal) == 2
    driven.close()


#: Handlers of IRQ 1, 6, 8 and 14 count at 520h, 524h, 528h and 52Ch, and the guest has its interrupts off and on.
ON_AND_OFF = """
    mov bl, 8
    call init
    mov al, 0x11
    out 0xa0, al
    mov al, 0x70
    out 0xa1, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0xa1, al
    mov al, 0xbe
    out 0xa1, al
    mov al, 0xb9
    out 0x21, al
    mov si, 0x520
    xor eax, eax
    mov [0x520], eax
    mov [0x524], eax
    mov [0x528], eax
    mov [0x52c], eax
    mov [0x514], eax
    mov word [9 * 4], irq1
    mov word [9 * 4 + 2], 0xf000
    mov word [14 * 4], irq6
    mov word [14 * 4 + 2], 0xf000
    mov word [0x70 * 4], irq8
    mov word [0x70 * 4 + 2], 0xf000
    mov word [0x76 * 4], irq14
    mov word [0x76 * 4 + 2], 0xf000
    mov dword [0x510], 0x1234
on_and_off:
    sti
    nop
    nop
    cli
    mov ecx, 3000
off:
    dec ecx
    jnz off
    cmp dword [0x514], 0
    je on_and_off
    jmp ended
irq1:
    inc dword [0x520]
    jmp eoi
irq6:
    inc dword [0x524]
    jmp eoi
irq8:
    inc dword [0x528]
    jmp of_slave
irq14:
    inc dword [0x52c]
of_slave:
    push ax
    mov al, 0x20
    out 0xa0, al
    pop ax
    jmp eoi
ended:
"""


@pytest.mark.slow_variants
def test_lines_that_rise_together_are_each_handled_once_by_a_guest_that_turns_interrupts_off_and_on(
    kind: str, signals: Signals
) -> None:
    """Whichever is in hand when another comes: none is lost, and none comes twice."""
    driven, dice = Driven(kind, guest(ON_AND_OFF, 0), signals), random.Random(7)
    bridge, counters = driven.keeper.bridge, {1: 0x520, 6: 0x524, 8: 0x528, 14: 0x52C}
    driven.start()
    assert until(lambda: driven.word(0x510) == 0x1234, 20)
    risen = dict.fromkeys(counters, 0)
    for _ in range(100):
        lines = dice.sample(sorted(counters), dice.randrange(1, 5))
        for line in lines:
            bridge.set_line(line, True)
            risen[line] += 1
            time.sleep(dice.choice((0, 0, 0.0002, 0.001)))
        if not until(lambda: all(driven.word(at) >= risen[line] for line, at in counters.items()), 10):
            break
        for line in lines:
            bridge.set_line(line, False)
    time.sleep(0.05)
    driven.machine.memory.write(0x514, b"\1")
    assert driven.end().code == 7
    assert {line: driven.word(at) for line, at in counters.items()} == risen
    driven.close()
