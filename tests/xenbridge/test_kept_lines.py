"""Devices of the machine beside those of a hypervisor's: lines, looks ahead, resets, and whose signal it is."""

from __future__ import annotations

import pytest

from bridges import Driven, until
from emu.foresight import foresee
from emu.loops import find_loop
from emu.machine import MachineStop
from kept_guests import COUNTING, guest
from machines import rom
from xenbridge.signals import Signals


def test_a_device_of_the_machine_interrupts_by_the_hypervisors_lines(kind: str, signals: Signals) -> None:
    """The transmitter of COM1 is empty: the port is userspace's, IRQ 4 the hypervisor's."""
    body = """
    mov al, 0xef
    out 0x21, al
    mov dx, 0x3fc
    mov al, 8
    out dx, al
    mov dx, 0x3f9
    mov al, 2
    out dx, al
wait_port:
    sti
    hlt
    cli
    cmp dword [0x504], 1
    jb wait_port
    """
    driven = Driven(kind, guest(body, 0), signals)
    driven.start()
    assert driven.end().code == 7
    assert driven.word(0x508) & 0xFF == 0x02  # IIR: transmitter holding register empty
    driven.close()


def test_the_signal_stops_the_machine_that_the_descriptor_belongs_to(kind: str, signals: Signals) -> None:
    """Two machines in one process; only one of them has a timer that ticks."""
    ticking = Driven(kind, guest(COUNTING, 4773, wait="nop", ticks=50), signals)
    silent = Driven(kind, rom("sti\nagain:\ninc dword [0x500]\ncmp dword [0x510], 0\nje again\nhlt"), signals)
    silent.machine.memory.write(0x510, bytes(4))
    silent.start()
    ticking.start()
    assert ticking.end().code == 7
    assert silent.keeper.bridge.events == 0 and not silent.keeper.due
    assert until(lambda: silent.word(0x500) > 1000)
    assert silent.end(0.0).reason is MachineStop.REQUEST
    silent.close()
    ticking.close()


@pytest.mark.slow
def test_a_look_ahead_reaches_no_device_of_the_hypervisors_and_the_run_goes_on(kind: str, signals: Signals) -> None:
    """A guest that polls for long is looked at to say whether it gets anywhere."""
    driven = Driven(kind, rom("again: in al, 0x61\njmp again"), signals)
    driven.start()
    assert driven.end(0.2).reason is MachineStop.REQUEST
    before, pic = driven.machine.cpu_state(), driven.machine.board.pic.save()
    found = find_loop(driven.machine).round
    assert found is not None and len(found.steps) == 2
    foresee(driven.machine, lambda state: False)
    assert (driven.machine.cpu_state(), driven.machine.board.pic.save()) == (before, pic)
    driven.start()
    assert driven.end(0.2).reason is MachineStop.REQUEST
    driven.close()


def test_a_look_ahead_tells_the_hypervisor_of_no_line(kind: str, signals: Signals) -> None:
    """Behind it the devices are put back, and say their levels again: IRQ 4 has not risen again by that, and IRQ 12,
    which the mouse does not ask for, is left as the hypervisor has it."""
    body = """
    mov dx, 0x3fc
    mov al, 8
    out dx, al
    mov dx, 0x3f9
    mov al, 2
    out dx, al
    jmp $
    """
    driven = Driven(kind, guest(body, 0), signals)
    driven.start()
    assert driven.end(0.2).reason is MachineStop.REQUEST
    pic, bridge, told = driven.machine.board.pic, driven.keeper.bridge, []
    assert pic.raised[4] == 1
    bridge.set_line(12, True)
    before, set_line = pic.save().slave, bridge.set_line
    assert before.edges >> 4 & 1

    def tell(irq: int, level: bool) -> None:
        told.append((irq, level))
        set_line(irq, level)

    bridge.set_line = tell  # type: ignore[method-assign]
    assert find_loop(driven.machine).round is not None
    assert (told, pic.raised[4], pic.save().slave) == ([], 1, before)
    driven.close()


def test_a_reset_of_the_machine_is_one_of_the_hypervisors(kind: str, signals: Signals) -> None:
    """Behind the devices nothing is reset again, and a line that one of them holds high by then stays so."""
    driven = Driven(kind, guest("jmp $", 0), signals)
    bridge, board, done = driven.keeper.bridge, driven.machine.board, list[str]()
    reset, set_line, com1 = bridge.reset, bridge.set_line, board.com1.reset
    bridge.reset = lambda: (done.append("reset"), reset())  # type: ignore[method-assign,assignment]
    bridge.set_line = lambda irq, level: (done.append(f"{irq} {level}"), set_line(irq, level))  # type: ignore

    def com1_asks() -> None:
        com1()
        board.pic.set_irq(4, True)

    board.com1.reset = com1_asks  # type: ignore[method-assign]
    board.reset()
    assert [text for text in done if text in ("reset", "4 True", "4 False")] == ["reset", "4 True"]
    board.pic.set_irq(4, True)
    assert done.count("4 True") == 1
    driven.close()
