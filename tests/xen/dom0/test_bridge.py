"""Requests and events of the bridge on a real Xen: what they do equals what the guest's own accesses do."""

import signal
import struct
import time

import pytest

from machines import differences, word
from xenbridge.bridge import BridgeError
from xenbridge.ioreq import Type, read, write
from xenbridge.signals import Signals
from xenbridge.xen import context
from xenbridge.xen.bridge import XenBridge

LAPIC = 0xFEE00000
TPR, EOI, SVR, ICR, LVT_TIMER, INITIAL, CURRENT, DIVIDE, ISR, IRR = (
    LAPIC + offset for offset in (0x80, 0xB0, 0xF0, 0x300, 0x320, 0x380, 0x390, 0x3E0, 0x100, 0x200)
)


def until(met, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not (held := met()) and time.monotonic() < end:
        time.sleep(0.001)
    return bool(held)


@pytest.fixture
def bridge(ticks):
    """The vCPU is borrowed where ticks.asm halts between two ticks."""
    guest, board = ticks
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


def test_a_latched_counter_of_the_timer_stands_while_the_counter_goes_on(bridge) -> None:
    def latched() -> int:
        port(bridge, 0x43, 0x00)
        low = port(bridge, 0x40)
        time.sleep(0.002)
        return low | port(bridge, 0x40) << 8

    values = {latched() for _ in range(8)}
    assert len(values) > 4
    assert all(0 <= value < 65536 for value in values)


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


def test_an_interrupt_is_acknowledged_by_its_owner_and_ended_by_the_guest(bridge) -> None:
    bridge.listen(True)
    vector = None
    end = time.monotonic() + 10
    while vector is None and time.monotonic() < end:
        vector = bridge.take()
    bridge.listen(False)
    assert vector == 8
    port(bridge, 0x20, 0x0B)  # OCW3: read the in-service register
    assert port(bridge, 0x20) == 1
    port(bridge, 0x20, 0x20)
    assert port(bridge, 0x20) == 0


def taken(bridge, seconds: float = 10.0) -> int | None:
    end = time.monotonic() + seconds
    bridge.listen(True)
    while (vector := bridge.take()) is None and time.monotonic() < end:
        time.sleep(0.001)
    bridge.listen(False)
    return vector


def test_a_self_ipi_is_requested_delivered_and_ended(bridge) -> None:
    port(bridge, 0x21, 0xFF)
    lapic(bridge, SVR, 0x1FF)
    lapic(bridge, ICR, 0x0004_0061)  # to itself, fixed, vector 61h
    assert lapic(bridge, IRR + 0x30) == 1 << 1
    assert taken(bridge) == 0x61
    assert (lapic(bridge, IRR + 0x30), lapic(bridge, ISR + 0x30)) == (0, 1 << 1)
    lapic(bridge, EOI, 0)
    assert lapic(bridge, ISR + 0x30) == 0


def test_the_task_priority_holds_an_interrupt_back(bridge) -> None:
    port(bridge, 0x21, 0xFF)
    lapic(bridge, SVR, 0x1FF)
    lapic(bridge, TPR, 0x70)
    lapic(bridge, ICR, 0x0004_0061)
    assert taken(bridge, 0.3) is None
    lapic(bridge, TPR, 0x50)
    assert taken(bridge) == 0x61
    lapic(bridge, EOI, 0)


def test_the_higher_priority_is_delivered_first(bridge) -> None:
    port(bridge, 0x21, 0xFF)
    lapic(bridge, SVR, 0x1FF)
    for vector in (0x51, 0x91, 0x71):
        lapic(bridge, ICR, 0x0004_0000 | vector)
    assert [taken(bridge), lapic(bridge, EOI, 0), taken(bridge), lapic(bridge, EOI, 0), taken(bridge)] == [
        0x91, 0, 0x71, 0, 0x51,
    ]  # fmt: skip


def test_the_lapic_timer_counts_down_and_interrupts_once(bridge) -> None:
    port(bridge, 0x21, 0xFF)
    lapic(bridge, SVR, 0x1FF)
    lapic(bridge, DIVIDE, 0xB)
    lapic(bridge, LVT_TIMER, 0x0000_0041)
    lapic(bridge, INITIAL, 2_000_000)  # at 100 MHz, Xen's bus clock: 20 ms
    assert 0 < lapic(bridge, CURRENT) < 2_000_000
    assert taken(bridge) == 0x41
    assert lapic(bridge, CURRENT) == 0
    lapic(bridge, EOI, 0)
    assert taken(bridge, 0.2) is None


def test_each_interrupt_is_one_signal_on_the_event_channel(bridge) -> None:
    told, vectors = [], []
    with Signals() as signals:
        signals.add(bridge.descriptor, lambda: told.append(True))
        bridge.listen(True)
        end = time.monotonic() + 20
        while len(vectors) < 10 and time.monotonic() < end:
            if not told:
                signal.sigtimedwait([], 0.05)
            told.clear()
            if (vector := bridge.take()) is not None:
                vectors.append(vector)
                port(bridge, 0x20, 0x20)
        bridge.listen(False)
        count = signals.count
        signals.remove(bridge.descriptor)
    assert vectors == [8] * 10
    assert 10 <= count <= 11


def test_the_guest_continues_where_it_was_and_loses_nothing(bridge, ticks) -> None:
    guest, board = ticks
    halts = 0
    while halts < 5 and word(guest, 0x600) < 15:
        halts += bridge.cpu_state().halted
        lapic(bridge, LAPIC + 0x30)
        bridge.give_back()
        time.sleep(0.02)
        bridge.borrow()
    bridge.give_back()
    assert halts
    assert guest.run(lambda: board.text.endswith("."), 30)
    assert word(guest, 0x600) == 20


def test_registers_loaded_meanwhile_are_the_guests(bridge, ticks) -> None:
    guest, _ = ticks
    state = bridge.cpu_state()
    state.regs[3] = 0x12345678
    state.ds.limit, state.ds.access = 0xFFFFFFFF, 0x8093  # Xen derives G from the limit
    bridge.load_cpu(state)
    bridge.give_back(paused=True)
    assert set(differences(guest.domain.cpu_state(), state)) <= {"halted"}  # a tick may have come meanwhile


def test_other_ports_and_sizes_are_refused(bridge) -> None:
    with pytest.raises(BridgeError, match=r"^port 0x3f8 is no device of the hypervisor$"):
        port(bridge, 0x3F8)
    with pytest.raises(BridgeError, match=r"^a request is for one element"):
        bridge.submit(read(Type.COPY, LAPIC, 8))
    with pytest.raises(BridgeError, match=r"has been borrowed already$"):
        bridge.borrow()


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
