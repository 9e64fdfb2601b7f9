"""What an acknowledge that is taken back leaves in the records of Xen's controllers."""

from __future__ import annotations

from typing import Any

import pytest

from xenbridge.ioreq import Ioreq, Type
from xenbridge.service import Service
from xenbridge.xen import context
from xenbridge.xen.context import Record
from xenbridge.xen.unacknowledge import behind_cascade, gives_way, put_back, service_of

LEVEL, AEOI, SFNM, SPECIAL_MASK = 0x40, 4, 16, 32


class Domain:
    """Two 8259 and a LAPIC's page as a domain's records, and what was done to them."""

    domid = 7

    def __init__(self, master: bytes, slave: bytes, in_service: int | None = None, held: bool = False) -> None:
        self.page = bytearray(1024)
        self.held = held
        self.messages: list[tuple[int, int, int]] = []
        self.accesses: list[tuple[int, int]] = []
        self.loaded: dict[int, bytes] = {}
        self.device_model = {"inject_msi": lambda *message: self.messages.append(message)}
        self._pics = (master, slave)
        if in_service is not None:
            self.page[0x100 + (in_service >> 5 << 4) + (in_service >> 3 & 3)] |= 1 << (in_service & 7)

    @property
    def libraries(self) -> Any:
        return self

    def records(self) -> list[Record]:
        return [*(Record(context.PIC, n, pic) for n, pic in enumerate(self._pics)), self.record(context.LAPIC_REGS)]

    def record(self, code: int) -> Record:
        return Record(code, 0, bytes(self.page))

    def load(self, *records: Record) -> None:
        self.loaded.update({record.instance: record.data for record in records})

    def access(self, request: Ioreq) -> int:
        assert request.type is Type.COPY
        self.accesses.append((request.address, request.data))
        if self.held:  # the I/O APIC sends it again
            self.page[0x200 + 0x30] |= 1 << 1
        return 0


def pic(
    irr: int = 0, isr: int = 0, base: int = 8, mode: int = 0, elcr: int = 0, imr: int = 0, highest: int = 0
) -> bytes:  # fmt: skip
    return bytes((irr, imr, isr, base, highest << 4, mode, elcr, 0))


def done(domain: Domain, vector: int) -> Domain:
    put_back(domain, domain.access, domain.load, vector)  # type: ignore[arg-type]
    return domain


def test_an_edge_of_the_master_is_requested_and_int_is_driven() -> None:
    domain = done(Domain(pic(irr=0x02, isr=0x40), pic(base=0x70)), 14)
    assert domain.loaded == {0: bytes((0x42, 0, 0, 8, 0, 0, 0, 1))}
    assert (domain.accesses, domain.messages) == ([], [])


def test_one_of_the_slave_comes_by_the_cascade() -> None:
    domain = done(Domain(pic(isr=0x04, elcr=0x04), pic(isr=0x40, base=0x70)), 0x76)
    assert domain.loaded == {1: bytes((0x40, 0, 0, 0x70, 0, 0, 0, 1)), 0: bytes((4, 0, 0, 8, 0, 0, 4, 1))}


@pytest.mark.parametrize(("mode", "besides", "left"), [(SFNM, 0x80, 4), (SFNM, 0, 0), (0, 0x80, 0)])
def test_the_cascade_stays_in_service_for_the_slaves_other_interrupt_where_that_can_be(mode, besides, left) -> None:
    domain = done(Domain(pic(isr=0x04, mode=mode), pic(isr=0x40 | besides, base=0x70)), 0x76)
    assert domain.loaded == {
        1: bytes((0x40, 0, besides, 0x70, 0, 0, 0, 1)), 0: bytes((4, 0, left, 8, 0, mode, 0, 1)),
    }  # fmt: skip


@pytest.mark.parametrize("irr", [0, LEVEL])
def test_a_level_is_requested_as_long_as_it_is_there(irr) -> None:
    domain = done(Domain(pic(irr=irr, isr=0x40, elcr=0x40), pic(base=0x70)), 14)
    assert domain.loaded == {0: bytes((irr, 0, 0, 8, 0, 0, 0x40, 1 if irr else 0))}


def test_automatic_eoi_has_left_nothing_in_service() -> None:
    domain = done(Domain(pic(mode=AEOI), pic(base=0x70)), 9)
    assert domain.loaded == {0: bytes((2, 0, 0, 8, 0, AEOI, 0, 1))}


@pytest.mark.parametrize("held", [False, True])
def test_one_of_the_lapic_is_ended_and_sent_again_unless_a_level_does_it(held) -> None:
    domain = done(Domain(pic(), pic(base=0x70), in_service=0x61, held=held), 0x61)
    assert domain.accesses == [(0xFEE000B0, 0)]
    assert domain.messages == ([] if held else [(7, 0xFEE00000, 0x61)])
    assert domain.loaded == {}


@pytest.mark.parametrize(
    ("master", "int_is_high"),
    [
        (pic(irr=0x01, isr=0x20, elcr=0x20, imr=0x01), 0),  # what is left is masked
        (pic(irr=0x80, isr=0x22, elcr=0x20), 0),  # or below what is in service
        (pic(irr=0x80, isr=0x22, elcr=0x20, highest=7), 1),  # but where priorities are rotated
        (pic(irr=0x80, isr=0x22, elcr=0x20, imr=0x02, mode=SPECIAL_MASK), 1),
    ],
)
def test_int_is_high_for_a_request_that_the_8259_would_give_and_for_no_other(master: bytes, int_is_high: int) -> None:
    """Xen would die of one that is high for none (BUG_ON in vpic_intack). A level that has fallen is put back."""
    assert done(Domain(master, pic(base=0x70)), 13).loaded[0][7] == int_is_high


def test_what_waits_at_the_slave_comes_when_the_level_before_it_has_fallen() -> None:
    domain = done(Domain(pic(isr=0x04, elcr=0x04), pic(irr=0x80, isr=0x40, base=0x70, elcr=0x40)), 0x76)
    assert (domain.loaded[1][7], domain.loaded[0][0], domain.loaded[0][7]) == (1, 4, 1)


@pytest.mark.parametrize(
    ("master", "slave", "vector", "gives"),
    [
        (pic(irr=0x02, isr=0x40), pic(base=0x70), 14, True),
        (pic(irr=0x80, isr=0x40), pic(base=0x70), 14, False),
        (pic(irr=0x02, isr=0x40, imr=0x02), pic(base=0x70), 14, False),
        (pic(irr=0x82, mode=AEOI), pic(base=0x70), 14, True),
        (pic(irr=0x80, mode=AEOI), pic(base=0x70), 14, False),
        (pic(isr=0x04), pic(irr=0x01, isr=0x40, base=0x70), 0x76, True),  # held back by the cascade
        (pic(isr=0x04), pic(irr=0x80, isr=0x40, base=0x70), 0x76, False),
        (pic(irr=0x02, isr=0x04), pic(isr=0x40, base=0x70), 0x76, True),
        (pic(isr=0x40), pic(base=0x70), 0x33, False),  # nobody's
    ],
)
def test_a_vector_gives_way_to_what_the_8259_would_give_first(
    master: bytes, slave: bytes, vector: int, gives: bool
) -> None:
    assert gives_way(Domain(master, slave).records(), vector) is gives


@pytest.mark.parametrize(
    ("master", "slave", "vector", "held"),
    [
        (pic(isr=0x04), pic(isr=0x10, base=0x70), 0x74, True),
        (pic(isr=0x04), pic(isr=0x01, base=0x70), 0x70, False),  # nothing of the slave's is higher
        (pic(isr=0x04), pic(isr=0x10, base=0x70, highest=4), 0x74, False),
        (pic(isr=0x04, mode=SFNM), pic(isr=0x10, base=0x70), 0x74, False),  # the cascade lets it through
        (pic(isr=0x10), pic(base=0x70), 0x0C, False),  # the master's own
        (pic(), pic(base=0x70), 0x74, False),
        (pic(), pic(isr=0x10, base=0x70), 0x74, False),  # ended at the master alone, which holds nothing back then
    ],
)
def test_what_the_cascade_holds_back(master: bytes, slave: bytes, vector: int, held: bool) -> None:
    assert behind_cascade(Domain(master, slave).records(), vector) is held


@pytest.mark.parametrize(
    ("master", "in_lapic", "found"),
    [
        (pic(isr=0x40), None, Service.PIC),
        (pic(mode=AEOI), None, Service.NONE),
        (pic(isr=0x40, mode=SPECIAL_MASK), None, Service.NONE),
        (pic(), 14, Service.LAPIC),
    ],
)
def test_who_has_a_vector_in_service(master: bytes, in_lapic: int | None, found: Service) -> None:
    assert service_of(Domain(master, pic(base=0x70), in_lapic).records(), 14) is found


def test_a_domain_without_an_8259_has_nothing_to_take_back() -> None:
    assert service_of([], 14) is Service.NONE
    assert not gives_way([], 14)
