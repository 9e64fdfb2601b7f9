"""What a bridge has acknowledged ahead for a guest that cannot take it yet: it is put back, or gives way to what comes
first, on every hypervisor."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator

import pytest

from bridges import (
    EOI,
    ICR,
    IRR,
    ISR,
    LVT_TIMER,
    MASTER,
    PATIENCE,
    SELF,
    SLAVE,
    in_service,
    in_service_of_lapic,
    initialise,
    kinds,
    lapic,
    made,
    port,
    requested,
    start_pit,
    taken,
    until,
)
from xenbridge.bridge import MachineBridge

KINDS = kinds()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bridge(kind: str) -> Iterator[MachineBridge]:
    with made(kind) as found:
        initialise(found)
        yield found


def test_nothing_is_acknowledged_while_the_guest_can_take_no_interrupt(bridge: MachineBridge) -> None:
    port(bridge, 0x21, 0xFE)
    start_pit(bridge, 1193)
    assert until(lambda: bool(requested(bridge) & 1))
    time.sleep(0.05)
    assert bridge.take() is None
    assert (requested(bridge) & 1, in_service(bridge)) == (1, 0)


@pytest.mark.parametrize("irq", [0, 6, 14])
def test_what_was_acknowledged_too_early_can_be_put_back(bridge: MachineBridge, irq: int) -> None:
    """The guest has turned its interrupts off meanwhile: to it nothing has been acknowledged."""
    port(bridge, 0x21, 0xFF & ~(1 << irq if irq < 8 else 0x04))
    port(bridge, 0xA1, 0xFF & ~(1 << (irq & 7)) if irq >= 8 else 0xFF)
    if irq:
        bridge.set_line(irq, True)
    else:
        start_pit(bridge, 1193, mode=4)  # once; Xen's has no interrupt of mode 0 (pit_load_count, emul-i8254.c)
    before = bridge.events
    bridge.listen(True)
    assert until(lambda: bridge.events > before)
    bridge.listen(False)
    bridge.put_back()
    assert bridge.take() is None
    assert in_service(bridge) == 0
    assert requested(bridge) & (1 << irq if irq < 8 else 0x04)
    assert taken(bridge) == (MASTER + irq if irq < 8 else SLAVE + irq - 8)
    assert in_service(bridge) == (1 << irq if irq < 8 else 0x04)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("irq", [5, 10])
def test_a_level_that_is_put_back_is_requested_while_its_line_is_high(
    bridge: MachineBridge, irq: int, held: bool
) -> None:
    port(bridge, 0x4D0 + (irq >> 3), 1 << (irq & 7))
    port(bridge, 0x21, 0xFF & ~(1 << irq if irq < 8 else 0x04))
    port(bridge, 0xA1, 0xFF & ~(1 << (irq & 7)) if irq >= 8 else 0xFF)
    before = bridge.events
    bridge.set_line(irq, True)
    bridge.listen(True)
    assert until(lambda: bridge.events > before)
    bridge.listen(False)
    bridge.set_line(irq, held)
    bridge.put_back()
    assert in_service(bridge) == 0
    vector = MASTER + irq if irq < 8 else SLAVE + irq - 8
    assert taken(bridge, PATIENCE if held else 0.3) == (vector if held else None)
    bridge.set_line(irq, False)


def test_a_request_that_icw1_drops_is_no_spurious_interrupt_later(bridge: MachineBridge) -> None:
    """The guest programs its controllers with interrupts off, and cannot have acknowledged anything meanwhile; the
    hypervisor is given time to do so behind each step. Nothing is in service afterwards, nor requested."""
    for irq in (6, 14):
        initialise(bridge, 0)
        port(bridge, 0xA1, 0)
        before = bridge.events
        bridge.set_line(irq, True)
        bridge.listen(True)
        assert until(lambda before=before: bridge.events > before)  # type: ignore[misc]
        for address, value in ((0x20, 0x11), (0xA0, 0x11), (0x21, 0x20), (0xA1, 0x28), (0x21, 4), (0xA1, 2),
                               (0x21, 1), (0xA1, 1), (0x21, 0xFE), (0xA1, 0xFF)):  # fmt: skip
            bridge.put_back()  # as a machine does before an access
            port(bridge, address, value)
            time.sleep(0.01)
        assert bridge.take() is None
        bridge.listen(False)
        bridge.set_line(irq, False)
        assert (bridge.take(), in_service(bridge), requested(bridge)) == (None, 0, 0)
        assert [lapic(bridge, IRR + 0x10 * n) | lapic(bridge, ISR + 0x10 * n) for n in range(8)] == [0] * 8
        start_pit(bridge, 1193, mode=4)  # as above
        assert taken(bridge) == 0x20
        port(bridge, 0x20, 0x20)


def test_an_interrupt_of_the_local_apic_can_be_put_back(bridge: MachineBridge) -> None:
    lapic(bridge, ICR, SELF | 0x61)
    before = bridge.events
    bridge.listen(True)
    assert until(lambda: bridge.events > before)
    bridge.put_back()
    bridge.listen(False)
    bridge.put_back()
    assert bridge.take() is None
    assert lapic(bridge, IRR + 0x30) == 1 << 1
    assert taken(bridge) == 0x61


@pytest.mark.parametrize(("low", "high"), [(6, 1), (6, 10), (14, 1), (14, 8)])
def test_a_higher_interrupt_that_comes_while_a_lower_one_waits_is_taken_first(
    bridge: MachineBridge, kind: str, low: int, high: int
) -> None:
    """The guest cannot take the lower one yet: to it nothing is acknowledged, and only the higher is in service when
    that has been taken, until its end."""
    vectors = {irq: MASTER + irq if irq < 8 else SLAVE + irq - 8 for irq in (low, high)}
    port(bridge, 0x21, 0xFF & ~0x04 & ~sum(1 << irq for irq in (low, high) if irq < 8))
    port(bridge, 0xA1, 0xFF & ~sum(1 << irq - 8 for irq in (low, high) if irq >= 8))
    bridge.listen(True)
    bridge.set_line(low, True)
    assert until(lambda: bridge.look() == vectors[low])
    bridge.set_line(high, True)
    told, _, _ = select.select([bridge.descriptor], [], [], PATIENCE)
    assert told == [bridge.descriptor]
    assert until(lambda: bridge.look() == vectors[high])
    assert bridge.take() == vectors[high]
    time.sleep(0.05)
    assert bridge.take() is None
    bridge.listen(False)
    assert in_service(bridge) == (1 << high if high < 8 else 0x04)
    ends = [0x20] if high < 8 else [0xA0, 0x20]
    for address in ends:
        port(bridge, address, 0x20)
    assert taken(bridge) == vectors[low]
    for address in (0xA0, 0x20) if low >= 8 else (0x20,):
        port(bridge, address, 0x20)
    assert (taken(bridge, 0.1), in_service(bridge)) == (None, 0)


def test_in_special_fully_nested_mode_a_put_back_leaves_the_slaves_other_interrupt_in_service(
    bridge: MachineBridge,
) -> None:
    """8259A, "The Special Fully Nested Mode": a higher request of a slave in service passes the master."""
    for address, value in ((0x20, 0x11), (0x21, MASTER), (0x21, 4), (0x21, 0x11), (0x21, 0xFB), (0xA1, 0xBE)):
        port(bridge, address, value)
    bridge.set_line(14, True)
    assert taken(bridge) == SLAVE + 6
    before = bridge.events
    bridge.listen(True)
    bridge.set_line(8, True)
    assert until(lambda: bridge.events > before)
    bridge.listen(False)
    bridge.put_back()
    assert in_service(bridge) == 4
    port(bridge, 0xA0, 0x0B)
    assert port(bridge, 0xA0) == 0x40
    assert taken(bridge) == SLAVE
    port(bridge, 0xA0, 0x0B)
    assert port(bridge, 0xA0) == 0x41
    for line in (8, 14):
        bridge.set_line(line, False)


def test_with_automatic_eoi_a_higher_line_is_taken_before_one_that_waits(bridge: MachineBridge, kind: str) -> None:
    """Nothing is in service, so that the lower ones pass too: they do not come first."""
    for address, value in ((0x20, 0x11), (0x21, MASTER), (0x21, 4), (0x21, 3), (0x21, 0xFF & ~0xC2)):
        port(bridge, address, value)
    bridge.listen(True)
    bridge.set_line(6, True)
    assert until(lambda: bridge.look() == MASTER + 6)
    bridge.set_line(7, True)
    assert until(lambda: bridge.look() == MASTER + 6)
    bridge.set_line(1, True)
    assert until(lambda: bridge.look() == MASTER + 1)
    bridge.listen(False)
    assert [taken(bridge) for _ in range(3)] == [MASTER + 1, MASTER + 6, MASTER + 7]
    assert taken(bridge, 0.1) is None


def test_nothing_is_acknowledged_between_a_put_back_and_the_access_that_it_is_for(bridge: MachineBridge) -> None:
    """An EOI of the guest's would end that in the place of its own."""
    port(bridge, 0x21, 0xFF & ~0x42)
    bridge.set_line(6, True)
    assert taken(bridge) == MASTER + 6
    bridge.listen(True)
    bridge.put_back()
    bridge.set_line(1, True)
    time.sleep(0.02)
    port(bridge, 0x20, 0x20)
    assert until(lambda: bridge.look() == MASTER + 1)
    bridge.listen(False)
    bridge.put_back()
    assert in_service(bridge) == 0
    for line in (1, 6):
        bridge.set_line(line, False)


def test_a_lower_interrupt_that_comes_while_a_higher_one_waits_is_taken_behind_it(bridge: MachineBridge) -> None:
    port(bridge, 0x21, 0xFF & ~0x42)
    bridge.listen(True)
    bridge.set_line(1, True)
    assert until(lambda: bridge.look() == MASTER + 1)
    bridge.set_line(6, True)
    time.sleep(0.05)
    assert bridge.look() == MASTER + 1
    assert bridge.take() == MASTER + 1
    port(bridge, 0x20, 0x20)
    assert taken(bridge) == MASTER + 6
    port(bridge, 0x20, 0x20)
    assert (taken(bridge, 0.1), in_service(bridge)) == (None, 0)


def test_of_the_local_apic_too_the_higher_is_taken_first(bridge: MachineBridge, kind: str) -> None:
    lapic(bridge, LVT_TIMER, 0x10000)
    lapic(bridge, 0xFEC00000, 0x10 + 2 * 5)
    lapic(bridge, 0xFEC00010, 0x51)
    lapic(bridge, 0xFEC00000, 0x10 + 2 * 6)
    lapic(bridge, 0xFEC00010, 0x91)
    bridge.listen(True)
    bridge.set_line(5, True)
    assert until(lambda: bridge.look() == 0x51)
    if not in_service_of_lapic(bridge, 0x51):
        pytest.skip(f"this host's {kind} keeps no in-service register of the local APIC")
    bridge.set_line(6, True)
    assert until(lambda: bridge.look() == 0x91)
    assert bridge.take() == 0x91
    lapic(bridge, EOI, 0)
    assert taken(bridge) == 0x51
    lapic(bridge, EOI, 0)
    assert taken(bridge, 0.1) is None


@pytest.mark.parametrize("rotates", [False, True])
def test_an_acknowledge_with_automatic_eoi_can_be_put_back(bridge: MachineBridge, kind: str, rotates: bool) -> None:
    """Nothing is in service then, and the request is there again; as with a rotation the priorities are."""
    if kind == "xen":
        pytest.skip("tests/xenbridge/xen/test_unacknowledge.py")
    if kind == "kvm" and rotates:
        pytest.skip("KVM does not tell how the priorities were before it rotated them")
    for address, value in ((0x20, 0x11), (0x21, MASTER), (0x21, 4), (0x21, 3), (0x21, 0xFF & ~0x42)):
        port(bridge, address, value)
    if rotates:
        port(bridge, 0x20, 0x80)
    before = bridge.events
    bridge.set_line(1, True)
    bridge.listen(True)
    assert until(lambda: bridge.events > before)
    bridge.listen(False)
    bridge.put_back()
    assert (in_service(bridge), requested(bridge) & 0x42) == (0, 2)
    bridge.set_line(6, True)
    assert (taken(bridge), taken(bridge), taken(bridge, 0.1)) == (MASTER + 1, MASTER + 6, None)


def test_a_vector_that_an_8259_has_too_is_taken_put_back_and_taken(bridge: MachineBridge) -> None:
    """Whatever shows where it is in service: also those of IRQ 7 and 15, which an 8259 has for nothing at times."""
    for base, command in ((0x20, 0x20), (0x28, 0xA0)):
        for address, value in ((command, 0x11), (command + 1, base), (command + 1, 4 if base == 0x20 else 2),
                               (command + 1, 1), (command + 1, 0xFF)):  # fmt: skip
            port(bridge, address, value)
    for vector in (0x26, 0x27, 0x2E, 0x2F):
        lapic(bridge, ICR, SELF | vector)
        before = bridge.events
        bridge.listen(True)
        assert until(lambda before=before: bridge.events > before)  # type: ignore[misc]
        bridge.listen(False)
        bridge.put_back()
        assert (in_service(bridge), requested(bridge)) == (0, 0)
        assert taken(bridge) == vector
        lapic(bridge, EOI, 0)
        assert taken(bridge, 0.05) is None


@pytest.mark.parametrize("automatic", [False, True])
def test_a_vector_of_a_masked_8259_that_ends_by_itself_is_put_back_into_the_local_apic(
    bridge: MachineBridge, automatic: bool
) -> None:
    for address, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 3 if automatic else 1), (0x21, 0xFF)):
        port(bridge, address, value)
    lapic(bridge, ICR, SELF | 0x23)
    before = bridge.events
    bridge.listen(True)
    assert until(lambda: bridge.events > before)
    bridge.listen(False)
    bridge.put_back()
    assert (requested(bridge), lapic(bridge, IRR + 0x10)) == (0, 1 << 3)
    assert taken(bridge) == 0x23
