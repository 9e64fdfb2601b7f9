"""A request on the guest's behalf gives what the guest's own access gives: one list of accesses, made in both ways."""

import struct

import pytest

from machines import booted, until, word
from xenbridge.ioreq import Type, read, write
from xenbridge.xen.bridge import XenBridge
from xenbridge.xen.domain import Domain

IN, OUT, LOAD, STORE, DELIVER = range(5)  #: as accesses.asm has them
DONE, COUNT, TABLE = 0xFF8, 0xFFC, 0x1000
LAPIC = 0xFEE00000
ID, VERSION, TPR, PPR, EOI, SVR, ICR, LVT_TIMER, INITIAL, CURRENT, DIVIDE = (
    LAPIC + offset for offset in (0x20, 0x30, 0x80, 0xA0, 0xB0, 0xF0, 0x300, 0x320, 0x380, 0x390, 0x3E0)
)
#: The doublewords of ISR and IRR that vector 61h is in.
ISR, IRR = LAPIC + 0x130, LAPIC + 0x230
SELF_IPI = 0x0004_0061

#: (what to do, address, value); none gives what depends on the time.
ACCESSES = {
    "lapic registers": [
        (LOAD, ID, 0), (LOAD, VERSION, 0), (STORE, SVR, 0x1FF), (LOAD, SVR, 0), (STORE, TPR, 0x5A), (LOAD, TPR, 0),
        (LOAD, PPR, 0), (STORE, TPR, 0), (LOAD, PPR, 0), (STORE, ID, 0x0F000000), (LOAD, ID, 0), (LOAD, EOI, 0),
    ],
    "lapic timer": [
        (STORE, SVR, 0x1FF), (STORE, LVT_TIMER, 0x0001_0041), (LOAD, LVT_TIMER, 0), (STORE, DIVIDE, 0xB),
        (LOAD, DIVIDE, 0), (STORE, INITIAL, 0xFFFFFFFF), (LOAD, INITIAL, 0), (STORE, INITIAL, 0), (LOAD, CURRENT, 0),
        (STORE, LVT_TIMER, 0xFFFFFFFF), (LOAD, LVT_TIMER, 0),
    ],
    "self-IPI and EOI": [
        (STORE, SVR, 0x1FF), (STORE, TPR, 0), (STORE, ICR, SELF_IPI), (LOAD, IRR, 0), (LOAD, ISR, 0), (LOAD, PPR, 0),
        (DELIVER, 0, 0), (LOAD, IRR, 0), (LOAD, ISR, 0), (LOAD, PPR, 0), (STORE, ICR, SELF_IPI), (LOAD, IRR, 0),
        (DELIVER, 0, 0), (STORE, EOI, 0), (LOAD, ISR, 0), (DELIVER, 0, 0), (LOAD, ISR, 0), (STORE, EOI, 0),
        (LOAD, ISR, 0), (LOAD, PPR, 0),
    ],
    # A task priority in the class of the vector itself is left out: QEMU's SVM takes the virtual interrupt there too
    # (target/i386/cpu.h, ctl_has_irq, >= for the APM's >), Xen does not, and the guest stands still between the two.
    "task priority": [
        (STORE, SVR, 0x1FF), (STORE, TPR, 0x70), (STORE, ICR, SELF_IPI), (LOAD, IRR, 0), (LOAD, PPR, 0),
        (DELIVER, 0, 0), (STORE, TPR, 0x5F), (DELIVER, 0, 0), (LOAD, PPR, 0), (STORE, EOI, 0), (LOAD, PPR, 0),
    ],
    "interrupt controller": [
        (OUT, 0x20, 0x11), (OUT, 0x21, 8), (OUT, 0x21, 4), (OUT, 0x21, 1), (IN, 0x21, 0), (OUT, 0x21, 0xFB),
        (IN, 0x21, 0), (OUT, 0xA1, 0x5A), (IN, 0xA1, 0), (OUT, 0x20, 0x0B), (IN, 0x20, 0), (OUT, 0x21, 0xFF),
        (IN, 0x21, 0), (IN, 0x4D0, 0), (OUT, 0x4D1, 0x0E), (IN, 0x4D1, 0),
    ],
    # counter 0 in mode 0 and counter 2 in mode 2: status by read-back
    "timer": [
        (OUT, 0x43, 0x30), (OUT, 0x40, 0xFF), (OUT, 0x40, 0xFF), (OUT, 0x43, 0xE2), (IN, 0x40, 0),
        (OUT, 0x61, 0), (OUT, 0x43, 0xB4), (OUT, 0x43, 0xE8), (IN, 0x42, 0), (OUT, 0x42, 0x34), (OUT, 0x42, 0x12),
        (OUT, 0x43, 0xE8), (IN, 0x42, 0), (IN, 0x43, 0),
    ],
}  # fmt: skip


def by_the_guest(libraries, accesses) -> list[int]:
    """The results of a domain that makes them itself."""
    guest, _ = booted(libraries, "accesses")
    with guest:
        rows = b"".join(struct.pack("<4I", *row, 0) for row in accesses)
        guest.domain.memory.write(TABLE, rows)
        guest.domain.memory.write(COUNT, struct.pack("<I", len(accesses)))
        guest.domain.resume()
        until(lambda: word(guest, DONE, 4))
        left = word(guest, COUNT, 4)
        assert word(guest, DONE, 4) == 1, f"it stands in front of the last {left} accesses, or in the one before"
        done = guest.domain.memory.read(TABLE, len(rows))
    return [result for *_, result in struct.iter_unpack("<4I", done)]


def on_its_behalf(libraries, accesses) -> list[int]:
    """The results of requests, of a domain that is about to begin."""
    guest, _ = booted(libraries, "accesses")
    with guest:
        bridge = XenBridge(guest.domain)
        bridge.borrow()
        try:
            return [_request(guest.domain, bridge, *row) for row in accesses]
        finally:
            bridge.close()


def _request(domain: Domain, bridge: XenBridge, does: int, address: int, value: int) -> int:
    if does == DELIVER:
        bridge.listen(True)
        # A vCPU that halts has found nothing due.
        assert until(lambda: bridge.arrived() or "blocked" in domain.states())
        vector = bridge.take()
        bridge.listen(False)
        return vector or 0
    type, size = (Type.PIO, 1) if does in (IN, OUT) else (Type.COPY, 4)
    return bridge.submit(read(type, address, size) if does in (IN, LOAD) else write(type, address, size, value))


@pytest.mark.parametrize("name", ACCESSES)
def test_requests_give_what_the_guests_own_accesses_give(libraries, name) -> None:
    own = by_the_guest(libraries, ACCESSES[name])
    assert on_its_behalf(libraries, ACCESSES[name]) == own
    assert len(set(own)) > 2  # the accesses do tell something


def test_the_guests_own_accesses_are_those_of_the_datasheets(libraries) -> None:
    """So that both are not wrong in the same way: SDM vol. 3A, 11.8.3 and 11.8.4."""
    own = by_the_guest(libraries, ACCESSES["self-IPI and EOI"])
    assert own[3:10] == [2, 0, 0, 0x61, 0, 2, 0x60]
    assert own[10:] == [0, 2, 0, 0, 0, 0x61, 2, 0, 0, 0]
