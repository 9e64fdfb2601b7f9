"""The vCPU that is borrowed for requests is the guest's own: it goes on where it was, and its devices with it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from asm import assemble
from bridges import lapic, port, taken
from emu.layout import LAPIC
from emu.memory import Part, PhysicalMemory
from emu.x86.state import CpuState, Segment
from xenbridge.bridge import BridgeError
from xenbridge.kvm import abi
from xenbridge.kvm.backend import Backend, Kind
from xenbridge.kvm.bridge import KvmBridge

CODE = 0x7C00
#: Counts the ticks of the kernel's PIT at 500h, a millisecond each, and writes a port of ours behind each. The handler
#: returns with interrupts off, so that each HLT is ended by exactly one, however slow the host is.
GUEST = """
    mov word [8 * 4], tick
    mov word [8 * 4 + 2], 0
    mov al, 0x11
    out 0x20, al
    mov al, 8
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    mov al, 0x34
    out 0x43, al
    mov al, 0xa9
    out 0x40, al
    mov al, 4
    out 0x40, al
again:
    sti
    hlt
    cli
    out 0x99, al
    jmp again
tick:
    inc dword [0x500]
    push ax
    mov al, 0x20
    out 0x20, al
    mov bp, sp
    and word [bp + 6], ~0x200
    pop ax
    iret
"""


@pytest.fixture
def ticking(backend: Backend) -> Iterator[tuple[KvmBridge, PhysicalMemory]]:
    if Kind.REAL not in backend.runs:
        pytest.skip(f"{backend.name} does not run real mode")
    memory = PhysicalMemory([Part(0, 1 << 20, "ram", "ram")])
    memory.write(CODE, assemble(f"bits 16\n{GUEST}", CODE))
    bridge = KvmBridge(memory.regions, wired=True)
    state = CpuState(rip=CODE, rflags=2, cr0=0x10)
    state.cs = Segment(0, 0, 0xFFFF, 0x9B)
    state.regs[4], state.regs[3] = 0x7000, 0x12345678
    bridge.borrow()
    bridge.load_cpu(state)
    bridge.give_back()
    yield bridge, memory
    bridge.close()


def tick(bridge: KvmBridge) -> None:
    """Run the guest natively to the port that it writes behind a tick."""
    while (reason := bridge.cpu.run()) != abi.EXIT_IO:
        assert reason < 0, abi.EXIT_NAMES.get(reason)
    assert bridge.cpu.pio().port == 0x99


def count(memory: PhysicalMemory) -> int:
    return int.from_bytes(memory.read(0x500, 4), "little")


def test_the_guest_goes_on_where_it_was_and_loses_no_tick_that_was_requested(
    ticking: tuple[KvmBridge, PhysicalMemory],
) -> None:
    bridge, memory = ticking
    for number in range(1, 30):
        tick(bridge)
        assert count(memory) == number
        bridge.borrow()
        state = bridge.cpu_state()
        assert (state.regs[3], state.cs.selector, state.cr0 & 1) == (0x12345678, 0, 0)
        assert port(bridge, 0x21) == 0xFE
        lapic(bridge, LAPIC + 0x80, 0x10)
        lapic(bridge, LAPIC + 0x80, 0)
        time.sleep(0.002)  # the timer counts on: a tick is requested at the PIC
        bridge.give_back()
    assert bridge.cpu_state().regs[3] == 0x12345678


def test_an_interrupt_taken_by_the_emulator_is_not_the_guests_again(ticking: tuple[KvmBridge, PhysicalMemory]) -> None:
    bridge, memory = ticking
    tick(bridge)
    bridge.borrow()
    port(bridge, 0x43, 0x30)  # no more ticks but what is requested
    port(bridge, 0x21, 0xFF)
    port(bridge, 0x20, 0x20)
    lapic(bridge, LAPIC + 0xF0, 0x1FF)
    lapic(bridge, LAPIC + 0x300, 0x40061)
    assert taken(bridge) == 0x61
    bridge.give_back()
    assert count(memory) == 1


def test_an_acknowledged_interrupt_that_was_not_taken_is_delivered_to_the_guest(
    ticking: tuple[KvmBridge, PhysicalMemory],
) -> None:
    bridge, memory = ticking
    tick(bridge)
    bridge.borrow()
    state = bridge.cpu_state()
    state.rflags |= 0x200  # the emulator has executed the guest's STI
    bridge.load_cpu(state)
    bridge.listen(True)
    end = time.monotonic() + 5
    while bridge.look() is None and time.monotonic() < end:
        time.sleep(0.001)
    assert bridge.look() == 8
    bridge.give_back()
    before = count(memory)
    tick(bridge)
    assert count(memory) > before


def test_a_vcpu_that_halts_is_borrowed_and_halts_again(ticking: tuple[KvmBridge, PhysicalMemory]) -> None:
    bridge, memory = ticking
    tick(bridge)
    bridge.borrow()
    state = bridge.cpu_state()
    state.halted = True
    state.rflags |= 0x200
    bridge.load_cpu(state)
    bridge.give_back()
    bridge.borrow()
    assert bridge.cpu_state().halted
    bridge.give_back()
    before = count(memory)
    tick(bridge)
    assert count(memory) > before


def test_requests_of_a_guest_that_runs_are_refused(ticking: tuple[KvmBridge, PhysicalMemory]) -> None:
    bridge, _ = ticking
    with pytest.raises(BridgeError, match=r"^the vCPU is the guest's"):
        port(bridge, 0x21)
