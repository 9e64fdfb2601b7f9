"""Requests as the C library makes them, against the same ones by Python."""

from __future__ import annotations

import itertools
import random
import select
import struct
import threading
from collections.abc import Iterator

import pytest

from bridges import ICR, LAPIC, SVR, TPR, port
from xenbridge.bridge import BridgeError, Owned
from xenbridge.ioreq import LAYOUT, Ioreq, State, Type, read, write
from xenbridge.kvm import abi, hop, parked
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.bridge import OWNED, KvmBridge
from xenbridge.kvm.requests import FastRequests, Requests
from xenbridge.kvm.vcpu import INTERRUPTED


@pytest.fixture
def bridge() -> Iterator[KvmBridge]:
    try:
        found = KvmBridge()
    except KvmError as error:
        pytest.skip(str(error))
    found.borrow()
    yield found
    found.close()


@pytest.fixture
def both(bridge: KvmBridge) -> tuple[Requests, Requests]:
    """By Python, and by C, of one vCPU."""
    if hop.LIBRARY is None:
        pytest.skip("the C library of xenbridge.kvm was not built")
    return Requests(bridge.cpu, OWNED), FastRequests(bridge.cpu, OWNED, hop.LIBRARY)


#: Registers that read as they were written, or that nothing changes meanwhile; with what may be written.
STEADY = (
    (Type.PIO, 0x21, 1, 0xFF), (Type.PIO, 0xA1, 1, 0xFF), (Type.PIO, 0x4D0, 1, 0xF8),
    (Type.COPY, TPR, 4, 0xFF), (Type.COPY, SVR, 4, 0x1FF), (Type.COPY, LAPIC + 0xD0, 4, 0xFF000000),
    (Type.COPY, LAPIC + 0x3E0, 4, 0xB), (Type.COPY, 0xFEC00000, 4, 0x3F), (Type.COPY, 0xFEC00010, 4, 0),
    (Type.COPY, LAPIC + 0x30, 4, 0), (Type.COPY, ICR + 0x10, 4, 0xFF000000),
)  # fmt: skip


def test_both_give_the_same_bytes_for_the_same_registers(both: tuple[Requests, Requests]) -> None:
    """What one has written the other reads, and an answer has the port of the vCPU's channel as the request did."""
    python, c = both
    chosen = random.Random(7)
    for count in range(400):
        kind, address, size, mask = chosen.choice(STEADY)
        writer, other = (python, c) if count & 1 else (c, python)
        if mask:
            value = chosen.getrandbits(32) & mask | chosen.getrandbits(32) << 32
            done = writer.exchange(Ioreq(kind, address, size, False, value, port=count).pack())
            assert done == Ioreq(kind, address, size, False, 0, state=State.ANSWERED, port=count).pack()
        asked = Ioreq(kind, address, size, True, 0xDEAD_BEEF_DEAD_BEEF, port=count).pack()
        assert writer.exchange(asked) == other.exchange(asked)
    assert python.made + c.made > 1000


def test_both_leave_alone_what_is_not_the_usual_request(both: tuple[Requests, Requests]) -> None:
    """No access is made for one: every value of the field that is not served, and a place beside or across the end."""
    usual = {"address": 0x21, "data": 0, "count": 1, "size": 1, "port": 0, "pad": 0, "bits": 0x21, "type": 0}

    def raw(**other: int) -> bytes:
        return LAYOUT.pack(*(usual | other).values())

    cases = [raw(type=type) for type in range(2, 256)]
    cases += [raw(bits=bits) for bits in range(256) if bits not in (0x01, 0x21)]
    cases += [raw(count=count) for count in (0, 2, 0xFFFFFFFF)]
    cases += [raw(size=size) for size in (0, 3, 5, 8, 16, 0x80000001, 0xFFFFFFFF)]
    cases += [raw(address=address) for address in (0, 0x1F, 0x22, 0x3F, 0x44, 0x60, 0x62, 0x4D2, 0x10021, 1 << 63)]
    cases += [raw(address=address, type=1) for address in (LAPIC - 1, LAPIC + 0x1000, 0xFEC00100, (1 << 64) - 1)]
    cases += [raw(address=0x21, size=2), raw(address=0x43, size=2), raw(address=LAPIC + 0xFFE, size=4, type=1)]
    for case, requests in itertools.product(cases, both):
        assert requests.exchange(case) is None
    assert [requests.made for requests in both] == [0, 0]


def test_both_say_when_nobody_in_the_kernel_answers(bridge: KvmBridge, both: tuple[Requests, Requests]) -> None:
    """The I/O APIC's page has registers at the first bytes alone; the vCPU is given a place that is nobody's."""
    assert hop.LIBRARY is not None
    nowhere = [owned for owned in OWNED if owned.name != "ioapic"]
    nowhere.append(type(OWNED[0])("nothing", Type.COPY, 0xFED40000, 0xFED40FFF))
    for requests in (Requests(bridge.cpu, nowhere), FastRequests(bridge.cpu, nowhere, hop.LIBRARY)):
        with pytest.raises(BridgeError, match=r"^nobody in the kernel answers 0xfed40010: KVM ended with .*MMIO"):
            requests.exchange(read(Type.COPY, 0xFED40010, 4).pack())
        bridge.cpu.finish(lambda reason: None)


def test_bytes_that_are_no_request_are_refused(both: tuple[Requests, Requests]) -> None:
    for requests in both:
        for size in (0, 31, 33):
            with pytest.raises((ValueError, struct.error)):
                requests.exchange(bytes(size))
        assert requests.made == 0


def test_what_is_refused_is_said_and_not_done(bridge: KvmBridge) -> None:
    before = bridge.requests
    with pytest.raises(BridgeError, match=r"^a request is handed over in state 1, and this one is in state 2$"):
        bridge.exchange(Ioreq(Type.PIO, 0x21, 1, False, 0, state=State.IN_PROCESS).pack())
    with pytest.raises(BridgeError, match=r"^a request is for one element of 1, 2 or 4 bytes$"):
        bridge.exchange(write(Type.COPY, LAPIC, 8, 0).pack())
    assert bridge.requests == before
    port(bridge, 0x21, 0x5A)
    assert (port(bridge, 0x21), bridge.requests) == (0x5A, before + 2)


def test_the_code_that_a_vcpu_executes_comes_back_by_a_port_that_is_nobodys() -> None:
    ports = [owned for owned in OWNED if owned.type is Type.PIO]
    assert not any(owned.first <= number <= owned.last for owned in ports for number in (parked.DOOR, parked.BELL))


@pytest.mark.parametrize("offset", [0, 2])
def test_an_interrupt_that_was_delivered_when_its_vcpu_is_called_back_is_not_lost(
    bridge: KvmBridge, offset: int
) -> None:
    """KVM_RUN ends for the call between the delivery and the stub's instruction that says the vector."""
    run, page = bridge.cpu.run, bridge.cpu.page
    reached, called = threading.Event(), threading.Event()

    def interrupted() -> int:
        reached.set()
        assert called.wait(5)
        struct.pack_into("<Q", page, abi.AT_REGS + abi.Regs.rip.offset, parked.BASE + 0x1000 + 8 * 0x61 + offset)
        return INTERRUPTED

    bridge.cpu.run = interrupted  # type: ignore[method-assign]
    bridge.listen(True)
    assert reached.wait(5)
    threading.Timer(0.05, called.set).start()
    bridge.listen(False)
    bridge.cpu.run = run  # type: ignore[method-assign]
    assert (bridge.events, bridge.take()) == (1, 0x61)
    assert select.select([bridge.descriptor], [], [], 0)[0] == []


def test_a_vector_is_told_by_the_place_of_its_stub_alone() -> None:
    first = parked.BASE + 0x1000
    assert [parked.vector_at(first + at) for at in (-1, 0, 7, 8, 0x7FF, 0x800)] == [None, 0, 0, 1, 255, None]
    assert parked.vector_at(parked.LISTEN) is None


def test_more_ranges_than_there_is_room_for_are_refused(bridge: KvmBridge) -> None:
    if hop.LIBRARY is None:
        pytest.skip("the C library of xenbridge.kvm was not built")
    owned = [Owned(f"one{n}", Type.PIO, n, n) for n in range(17)]
    FastRequests(bridge.cpu, owned[:16], hop.LIBRARY)
    with pytest.raises(BridgeError, match=r"^17 ranges of one kind are owned: there is room for 16$"):
        FastRequests(bridge.cpu, owned, hop.LIBRARY)
