"""The bridge to a real Xen and the domain around it: records, the guest that goes on, and what is left behind.

What holds for the bridges of all hypervisors is in test_bridges.py and test_bridge_*.py of tests/xenbridge, which run
here too.
"""

import struct
import time

import pytest

from machines import LAST_TICK, differences, until, word
from xenbridge.bridge import BridgeError
from xenbridge.ioreq import Type, read, write
from xenbridge.xen import context
from xenbridge.xen.bridge import XenBridge

LAPIC = 0xFEE00000
TPR, EOI, SVR, ICR, LVT_TIMER, INITIAL, CURRENT, DIVIDE, ISR, IRR = (
    LAPIC + offset for offset in (0x80, 0xB0, 0xF0, 0x300, 0x320, 0x380, 0x390, 0x3E0, 0x100, 0x200)
)


@pytest.fixture
def bridge(ticks):
    """The vCPU is borrowed where ticks.asm halts between two ticks, none of which is its last."""
    guest, board = ticks
    guest.domain.memory.write(LAST_TICK, b"\xff\xff")
    assert guest.run(lambda: "~" in board.text, 30)
    assert until(lambda: word(guest, 0x600) and "blocked" in guest.domain.states())
    bridge = XenBridge(guest.domain)
    bridge.borrow()
    yield bridge
    bridge.close()


def port(bridge, address: int, value: int | None = None) -> int:
    return bridge.submit(read(Type.PIO, address, 1) if value is None else write(Type.PIO, address, 1, value))


def lapic(bridge, address: int, value: int | None = None) -> int:
    return bridge.submit(read(Type.COPY, address, 4) if value is None else write(Type.COPY, address, 4, value))


def test_a_request_reads_what_the_hypervisor_has_in_its_record(bridge, ticks) -> None:
    guest, _ = ticks
    registers = guest.domain.record(context.LAPIC_REGS).data
    for offset in (0x20, 0x30, 0x80, 0xF0, 0x350, 0x360):
        assert lapic(bridge, LAPIC + offset) == struct.unpack_from("<I", registers, offset)[0]
    assert port(bridge, 0x21) == 0xFE
    assert guest.domain.record(context.PIC).data[1] == 0xFE


def test_the_task_priority_register_is_written(bridge, ticks) -> None:
    guest, _ = ticks
    lapic(bridge, TPR, 0x50)
    assert struct.unpack_from("<I", guest.domain.record(context.LAPIC_REGS).data, 0x80)[0] == 0x50
    assert lapic(bridge, TPR) == 0x50


def test_a_mask_in_the_interrupt_controller_holds_the_ticks_back(bridge, ticks) -> None:
    guest, _ = ticks
    port(bridge, 0x21, 0xFF)
    bridge.give_back()
    before = word(guest, 0x600)
    time.sleep(0.3)
    assert word(guest, 0x600) - before <= 1  # one may have been acknowledged before
    bridge.borrow()
    port(bridge, 0x21, 0xFE)
    bridge.give_back()
    assert until(lambda: word(guest, 0x600) - before > 3)


def test_a_vcpu_that_is_woken_for_nothing_as_it_halts_halts_again(bridge, ticks) -> None:
    """As by a tick that is masked: behind it the vCPU halts again, and no interrupt rings."""
    guest, _ = ticks
    port(bridge, 0x21, 0xFF)
    assert bridge.cpu_state().halted
    states, seen = guest.domain.states, []

    def woken_once():
        now = states()
        if "paused" in now:
            seen.append(now)
            return now - {"blocked"} if len(seen) == 1 else now
        return now

    guest.domain.states = woken_once
    try:
        bridge.give_back()
    finally:
        guest.domain.states = states
    assert len(seen) == 2
    before = word(guest, 0x600)
    bridge.borrow()
    port(bridge, 0x21, 0xFE)
    bridge.give_back()
    assert until(lambda: word(guest, 0x600) - before > 3)


@pytest.mark.timeout(120)
def test_masked_ticks_at_a_kilohertz_are_no_obstacle_to_halting(bridge, ticks) -> None:
    guest, _ = ticks
    for byte in (0x34, 0xA9, 0x04):  # counter 0, mode 2, every 1,193 clocks
        port(bridge, 0x43 if byte == 0x34 else 0x40, byte)
    for _ in range(30):
        port(bridge, 0x21, 0xFE)
        port(bridge, 0x21, 0xFF)
        bridge.give_back()
        bridge.borrow()
    port(bridge, 0x21, 0xFE)
    bridge.give_back()
    before = word(guest, 0x600)
    assert until(lambda: word(guest, 0x600) > before)


def test_the_guest_continues_where_it_was_and_loses_nothing(bridge, ticks) -> None:
    guest, board = ticks
    halts = 0
    while halts < 5:
        halts += bridge.cpu_state().halted
        lapic(bridge, LAPIC + 0x30)
        bridge.give_back()
        time.sleep(0.02)
        bridge.borrow()
    last = word(guest, 0x600) + 5
    guest.domain.memory.write(LAST_TICK, last.to_bytes(2, "little"))
    bridge.give_back()
    assert guest.run(lambda: board.text.endswith("."), 30)
    assert word(guest, 0x600) == last


def test_registers_loaded_meanwhile_are_the_guests(bridge, ticks) -> None:
    guest, _ = ticks
    state = bridge.cpu_state()
    state.regs[3] = 0x12345678
    state.ds.limit, state.ds.access = 0xFFFFFFFF, 0x8093  # Xen derives G from the limit
    bridge.load_cpu(state)
    bridge.give_back(paused=True)
    assert set(differences(guest.domain.cpu_state(), state)) <= {"halted"}  # a tick may have come meanwhile


def test_nothing_of_ours_stays_in_the_domain(bridge, ticks) -> None:
    guest, _ = ticks
    pages = guest.domain.pages()
    bridge.close()
    assert guest.domain.pages() == pages - 2


def test_a_domain_destroyed_meanwhile_is_said(bridge, ticks) -> None:
    guest, _ = ticks
    guest.domain.destroy()
    with pytest.raises(BridgeError, match=rf"^domain {guest.domain.domid} has been destroyed$"):
        lapic(bridge, TPR)
