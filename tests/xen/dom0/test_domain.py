"""A domain of ours on a real Xen: its memory, registers, and the requests of its guest."""

import contextlib

import pytest

from emu.subject import MemoryUnavailable
from machines import COM1, WINDOW, differences, until, word
from xenbridge.ioreq import Type, read, write
from xenbridge.xen.bridge import XenBridge
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import XenError
from xenbridge.xen.server import accessing, pause_between_accesses


def test_the_sector_runs_to_its_end_with_the_hypervisors_ticks(ticks) -> None:
    guest, board = ticks
    assert guest.run(lambda: board.text.endswith("."), 30)
    assert board.text == "Atickkcit~."
    assert word(guest, 0x600) == 20


def test_ports_memory_and_repeated_strings_are_requests_of_the_guest(ticks) -> None:
    guest, board = ticks
    assert guest.run(lambda: "~" in board.text, 30)
    assert (word(guest, 0x602), word(guest, 0x604, 4)) == (0xBEEF, 0xCAFEF00D)
    assert board.written == [(Type.COPY, WINDOW + 0x10, 4, 0x11223344)]
    first, read, *_ = guest.requests
    assert (first.type, first.address, first.size, first.reads, first.data & 0xFF) == (Type.PIO, COM1, 1, False, 0x41)
    assert (read.address, read.size, read.reads) == (0x5E, 2, True)
    strings = [request for request in guest.requests if request.indirect]
    assert sum(request.count for request in strings) == 8
    assert {request.down for request in strings} == {False, True}


def test_an_access_that_waits_for_a_device_model_is_seen_and_waited_for(ticks) -> None:
    guest, board = ticks
    assert not accessing(guest.domain)
    guest.domain.resume()
    assert until(lambda: accessing(guest.domain))
    assert board.text == ""  # nobody has served it yet
    other = Domain(guest.domain.libraries, guest.domain.domid)  # as a device model of somebody else's
    assert accessing(other)
    assert not pause_between_accesses(other, 0.1)
    other.resume()
    assert pause_between_accesses(guest.domain, 10)
    assert board.text.startswith("A")
    assert not accessing(guest.domain)
    assert not accessing(other)


def test_registers_hidden_parts_included_are_what_was_loaded(ticks) -> None:
    guest, _ = ticks
    wanted = guest.domain.cpu_state()
    wanted.regs[:] = [0x1111_0000 + index for index in range(16)]
    wanted.ds.base, wanted.ds.limit, wanted.ds.access = 0x12340, 0xFFFFFFFF, 0xC093
    wanted.gdtr.base, wanted.gdtr.limit = 0x5432, 0x37
    wanted.idtr.base, wanted.idtr.limit = 0x1000, 0x3FF
    wanted.fpu.st[0], wanted.fpu.xmm[3] = 0x3FFF_8000_0000_0000_0000, 0x0123456789ABCDEF_0011223344556677
    wanted.msrs[0xC0000081] = 0x23_0010_0000_0000
    guest.domain.load_cpu(wanted)
    assert differences(guest.domain.cpu_state(), wanted) == {}


def test_memory_is_read_and_written_across_pages_and_ends_where_the_domain_has_none(ticks) -> None:
    guest, _ = ticks
    memory = guest.domain.memory
    memory.write(0x1FFC, b"abcdefgh")
    assert memory.read(0x1FFA, 12) == b"\0\0abcdefgh\0\0"
    assert memory.readable(0x9FF00, 0x1000) == 0x100
    with pytest.raises(MemoryUnavailable) as caught:
        memory.read(0x9FF00, 0x200)
    assert caught.value.address == 0xA0000
    with pytest.raises(MemoryUnavailable):
        memory.write(0x9FFFE, b"xyz!")
    assert memory.read(0x9FFFE, 2) == b"\0\0"


def test_a_destroyed_domain_is_gone_in_a_sentence(ticks) -> None:
    guest, _ = ticks
    guest.domain.destroy()
    with pytest.raises(XenError, match=rf"^domain {guest.domain.domid} has been destroyed$"):
        guest.domain.states()
    with pytest.raises(XenError, match=r"has been destroyed$"):
        guest.domain.cpu_state()
    guest.server.close()
    with pytest.raises(XenError, match=rf"^there is no domain {guest.domain.domid}$"):
        guest.domain.states()


def test_memory_of_a_new_domain_is_zero_whoever_had_the_pages_before(libraries) -> None:
    """Xen hands on what a living domain gave back as it is."""
    pages = list(range(64))
    other = Domain.create(libraries, len(pages) * 0x1000)
    try:
        other.memory.write(0, b"\xa5" * (len(pages) * 0x1000))
        other.depopulate(pages)
        domain = Domain.create(libraries, 1 << 20)
        try:
            assert domain.memory.read(0, 0xA0000).count(0) == 0xA0000
        finally:
            domain.destroy()
    finally:
        other.destroy()


def test_a_vcpu_whose_guest_has_used_xsave_is_read_and_loaded_as_any_other(ticks) -> None:
    """From then on Xen keeps the FPU in another record too, which has to agree. XCR0 is loaded: QEMU's CPU does not let
    Xen have a guest's XSETBV."""
    guest, _ = ticks
    domain = guest.domain
    assert domain.xcr0() == 1
    domain.load_xcr0(3)
    assert domain.xcr0() == 3
    changed = domain.cpu_state()
    changed.fpu.xmm[3], changed.fpu.fcw, changed.regs[3] = 0x1234 << 64, 0x27F, 0x55
    domain.load_cpu(changed)
    assert differences(domain.cpu_state(), changed) == {}
    domain.load_xcr0(1)
    assert (domain.xcr0(), domain.cpu_state().fpu) == (1, changed.fpu)
    with contextlib.closing(XenBridge(domain)) as bridge:
        bridge.borrow()
        bridge.submit(write(Type.PIO, 0x21, 1, 0xA5))
        assert bridge.submit(read(Type.PIO, 0x21, 1)) == 0xA5
        bridge.give_back(paused=True)
        assert differences(domain.cpu_state(), changed) == {}
