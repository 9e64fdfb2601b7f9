"""qSearch, qCRC, the memory map, physical addresses and QEMU's words for them, from packets."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from emu.debugger import Debugger
from emu.firmware import tour
from emu.machine import MachineConfig, build_machine
from emu.subject import MemoryUnavailable
from emu.views import RegionView
from emu.worker import Worker
from machines import debugger as make_debugger
from machines import rom
from stub.adapter import DebuggerTarget
from stub.adapter_sweep import swept
from stub.handlers import search
from stub.packet import escape
from stub.session import Session
from stub.target import TargetError
from stub_fakes import GDB_FEATURES, RAM, BareTarget, Client, FakeTarget, client


def searched(target: FakeTarget, address: int, length: int, pattern: bytes) -> bytes:
    peer = client(target)
    peer.ask(GDB_FEATURES + ";error-message+")
    return peer.one(b"qSearch:memory:%x;%x;" % (address, length) + escape(pattern))


@pytest.mark.parametrize(
    ("at", "pattern"),
    [
        (0, b"\x55\xaa"),
        (search.PIECE - 1, b"\x55\xaa"),
        (search.PIECE - 3, b"four"),
        (RAM - 4, b"last"),
        (0x1234, b"#$}*;:"),
        (0x777, bytes(300)),
    ],
)
def test_a_pattern_is_found_where_it_is(at: int, pattern: bytes) -> None:
    target = FakeTarget()
    target.memory[:] = b"\x11" * RAM
    target.memory[at : at + len(pattern)] = pattern
    assert searched(target, 0, RAM, pattern) == b"1,%x" % at
    assert searched(target, at, len(pattern), pattern) == b"1,%x" % at
    assert searched(target, at + 1, RAM - at - 1, pattern) == b"0"
    assert searched(target, 0, at + len(pattern) - 1, pattern) == b"0"


def test_what_cannot_be_read_joins_nothing_and_hides_nothing_behind_it() -> None:
    class Holed(FakeTarget):
        """The page at 1000h is missing."""

        def read_memory(self, address: int, length: int) -> bytes:
            if 0x1000 <= address < 0x2000:
                raise TargetError("a hole")
            end = 0x1000 if address < 0x1000 else RAM
            return super().read_memory(address, min(length, end - address))

    target = Holed()
    target.memory[:] = bytes(RAM)
    target.memory[0xFFE:0x1000] = b"\x01\x02"
    target.memory[0x2000:0x2002] = b"\x03\x04"
    target.memory[0x2800:0x2804] = b"\x01\x02\x03\x04"
    assert searched(target, 0x800, 0x2100, b"\x01\x02\x03\x04") == b"1,2800"
    assert searched(target, 0xFFF, 0x2000, b"\x03\x04\x02") == b"0"


def test_searches_that_make_no_sense_are_refused_in_words() -> None:
    target = FakeTarget()
    assert searched(target, 0, 16, b"").startswith(b"E.there is no pattern")
    assert searched(target, 0, 1 << 40, b"no such words").startswith(b"E.up to 0x81eff4 is all that one packet may")
    peer = client()
    assert peer.one("qSearch:memory:0;10").startswith(b"E.malformed packet: a search has an address, a length")
    assert peer.one("qSearch:stars:0;10;a") == b""
    assert peer.one("qCRC:0,10000000000").startswith(b"E.0x10000000000 bytes are too many")


def crc_by_bits(data: bytes) -> int:
    """As the manual words it: 04C11DB7h, from all ones on, the highest bit first."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc >> 31 else crc << 1) & 0xFFFFFFFF
    return crc


def test_the_checksum_is_the_one_that_gdb_computes() -> None:
    target = FakeTarget()
    peer = client(target)
    target.memory[0:9] = b"123456789"
    # the catalogue's check value of CRC-32/MPEG-2, which is this one
    assert peer.one("qCRC:0,9") == b"C376e6e7"
    assert peer.one("qCRC:0,0") == b"Cffffffff"
    for at, length in ((0, 1), (7, 300), (search.PIECE - 5, 10)):
        assert peer.one(f"qCRC:{at:x},{length:x}") == b"C%x" % crc_by_bits(target.memory[at : at + length])


def test_many_ranges_are_read_in_one_packet_each_as_far_as_it_goes() -> None:
    target = FakeTarget()
    peer = client(target)
    peer.ask(GDB_FEATURES + ";error-message+")
    target.memory[0x500:0x504], target.memory[RAM - 1] = b"abcd", 0
    assert peer.one(f"qv2e.Memory:500,2;{RAM:x},4;501,3;{RAM - 1:x},4;500,0") == b"m6162;;626364;00;"
    assert peer.one(f"qv2e.Memory:{RAM:x},4") == b"m"
    assert peer.one("qv2e.Memory:500").startswith(b"E.malformed packet: there is no comma")
    assert peer.one("qv2e.Memory:0,1ffff").startswith(b"E.one packet gathers 1024 ranges and 64512 bytes at most")
    assert peer.one("qv2e.Memory:" + ";".join(["0,1"] * 1025)).startswith(b"E.one packet gathers")
    assert len(peer.one("qv2e.Memory:" + ";".join(["0,3f"] * 1024))) == 1 + 1024 * 0x3F * 2 + 1023


def test_a_checksum_over_what_cannot_be_read_is_refused_and_named() -> None:
    assert client().one(f"qCRC:{RAM - 16:x},20") == b"E.0x20000: not mapped"


# -- physical addresses


def test_physical_mode_reaches_every_packet_that_names_memory_and_ends_with_the_client() -> None:
    target = FakeTarget()
    peer = client(target)
    target.memory[:] = bytes(RAM)
    target.memory[0x1500:0x1504] = b"abcd"
    assert peer.one("qqemu.PhyMemMode") == b"0"
    assert peer.one("m500,4") == b"00000000"
    assert peer.one("Qqemu.PhyMemMode:1") == b"OK"
    assert peer.one("qqemu.PhyMemMode") == b"1"
    assert peer.one("m500,4") == b"61626364"
    assert peer.one("x500,4") == b"babcd"
    peer.one(GDB_FEATURES)
    assert peer.one("Qqemu.PhyMemMode:2") == b"E.PhyMemMode is 0 or 1, not 2"
    assert peer.one("qqemu.PhyMemMode") == b"1"
    assert peer.one("qSearch:memory:0;1000;abcd") == b"1,500"
    assert peer.one("qCRC:500,4") == b"C%x" % crc_by_bits(b"abcd")
    assert peer.one("M500,1:41") == b"OK"
    assert peer.one("X501,1:B") == b"OK"
    assert target.memory[0x1500:0x1504] == b"ABcd"
    assert client(target).one("m1500,4") == b"41426364", "another client's addresses are linear"
    assert peer.one("Qqemu.PhyMemMode:0") == b"OK"
    assert peer.one("m1500,4") == b"41426364"


def monitored(peer: Client, command: str) -> str:
    answers = peer.ask(b"qRcmd," + command.encode().hex().encode())
    return "".join(bytes.fromhex(a[1:].decode()).decode() if a[:1] == b"O" and a != b"OK" else "" for a in answers)


def test_monitor_phys_is_the_same_switch() -> None:
    peer = client()
    assert "are linear" in monitored(peer, "phys")
    assert "are physical" in monitored(peer, "phys on")
    assert peer.one("qqemu.PhyMemMode") == b"1"
    assert "takes `on` or `off`" in monitored(peer, "phys maybe")
    assert "are linear" in monitored(peer, "phys off")
    assert peer.one("qqemu.PhyMemMode") == b"0"


def test_a_target_without_physical_addresses_has_no_such_packets() -> None:
    peer = client(BareTarget())
    assert peer.one("qqemu.PhyMemMode") == b""
    assert peer.one("Qqemu.PhyMemMode:1") == b""
    assert "only one kind of address" in monitored(peer, "phys on")


# -- QEMU's steps


def test_sstep_says_and_sets_what_a_step_does_with_interrupts() -> None:
    target = FakeTarget()
    peer = client(target)
    assert peer.one("qqemu.Supported") == b"sstepbits;sstep;PhyMemMode"
    assert peer.one("qqemu.sstepbits") == b"ENABLE=1,NOIRQ=2,NOTIMER=4"
    assert peer.one("qqemu.sstep") == b"0x7"
    assert peer.one("Qqemu.sstep=5") == b"OK"
    assert target.steps_into_interrupts
    assert peer.one("qqemu.sstep") == b"0x5"
    assert peer.one("Qqemu.sstep=7") == b"OK"
    assert not target.steps_into_interrupts
    for refused in ("0", "1", "3", "8", "f"):
        assert peer.one(f"Qqemu.sstep={refused}").startswith(b"E.")
    assert peer.one("Qqemu.sstep=").startswith(b"E.malformed packet")
    # pwndbg asks so whether it speaks to QEMU; QEMU takes either letter
    assert peer.one("Qqemu.sstepbits") == b"ENABLE=1,NOIRQ=2,NOTIMER=4"
    for unknown in ("Qqemu.stars=1", "qqemu.stars", "qqemu.", "Qqemu.8"):
        assert peer.one(unknown) == b""


# -- the memory map


def memory_map(peer: Client) -> list[tuple[str, int, int]]:
    """(kind, start, end) of each row."""
    text = peer.one("qXfer:memory-map:read::0,ffff")
    assert text[:1] == b"l"
    body = re.sub("<!DOCTYPE.*?>\n", "", text[1:].decode(), flags=re.DOTALL)
    rows = [(e.get("type", ""), int(e.get("start", ""), 0), int(e.get("length", ""), 0)) for e in
            ElementTree.fromstring(body).iter("memory")]  # fmt: skip
    return [(kind, start, start + length) for kind, start, length in rows]


#: An end of 2 to the 64th is 0 to gdb, and shown as 0x100000000.
TOP = (1 << 64) - 1


def test_the_map_has_every_address_once_but_those_of_devices() -> None:
    assert memory_map(client()) == [
        ("ram", 0, 0x10000), ("rom", 0x10000, 0x18000), ("ram", 0x18020, 0x1F000), ("rom", 0x1F000, RAM),
        ("ram", RAM, TOP),
    ]  # fmt: skip


def test_no_row_is_longer_than_the_64_bits_that_gdb_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = client()
    monkeypatch.setattr(type(peer.session.target), "special_ranges", lambda target: ())
    assert memory_map(peer) == [("ram", 0, TOP)]


# -- on the machine

#: Switches paging on, with page 0 at 0 and at 400000h: 4 MiB pages.
PAGED = """
    bits 16
    cli
    xor ax, ax
    mov ds, ax
    mov dword [0x8000], 0x83
    mov dword [0x8004], 0x83
    mov eax, cr4
    or al, 0x10
    mov cr4, eax
    mov eax, 0x8000
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000001
    mov cr0, eax
l:  jmp l
"""


class Asker:
    """A client whose packets are handled on the machine's thread."""

    def __init__(self) -> None:
        config = MachineConfig(machine="pc", memory=1 << 20, firmware=rom(PAGED), shadow=False)
        self.debugger = Debugger(build_machine(config))
        self.worker = Worker(self.debugger)
        self.worker.start()
        self.client = Client(Session(DebuggerTarget(self.debugger, self.worker)))

    def one(self, packet: str) -> bytes:
        return self.worker.call(lambda: self.client.one(packet), 20)


@pytest.fixture
def pc() -> Iterator[Asker]:
    asker = Asker()
    asker.one(GDB_FEATURES + ";error-message+")
    yield asker
    asker.worker.close()
    asker.debugger.machine.close()


def test_registers_of_devices_are_refused_by_name_and_not_touched(pc: Asker) -> None:
    for region in pc.debugger.subject.memory_map():
        if region.kind != "mmio" or pc.debugger.subject.readable_physical(region.first, 1):
            continue  # the display's memory can be looked at
        for packet in (f"m{region.first:x},4", f"x{region.first:x},4", f"M{region.first:x},1:00"):
            answer = pc.one(packet)
            assert answer.startswith(f"E.{region.first:#x}: registers of {region.name}".encode()), (packet, answer)
    named = {region.name for region in pc.debugger.subject.memory_map() if region.kind == "mmio"}
    assert {"ioapic", "hpet"} <= named


def test_the_machine_has_a_map_until_paging_moves_addresses_about(pc: Asker) -> None:
    rows = pc.worker.call(lambda: memory_map(pc.client), 20)
    roms = [(start, end) for kind, start, end in rows if kind == "rom"]
    assert (0xFFFF0000, 1 << 32) in roms
    assert any(start <= 0xF0000 and end == 0x100000 for start, end in roms)
    pc.worker.call(lambda: pc.debugger.machine.run(100), 20)
    pc.debugger.forget()
    assert pc.one("qXfer:memory-map:read::0,ffff").startswith(b"E.paging is on: ")


def test_what_the_map_leaves_out_is_what_is_refused_as_a_device_s(pc: Asker) -> None:
    rows = pc.worker.call(lambda: memory_map(pc.client), 20)
    left_out = [(end, start) for (_, _, end), (_, start, _) in pairwise(rows) if end != start]
    assert {0xFEC00000, 0xFED00000, 0xFEE00000} <= {start for start, _ in left_out}  # I/O APIC, HPET, LAPIC
    for start, end in left_out:
        assert all(b": registers of " in pc.one(f"m{address:x},1") for address in (start, end - 1))
    for _, start, end in rows:
        assert not any(b": registers of " in pc.one(f"m{address:x},1") for address in (start, end - 1))


def test_ranges_that_touch_are_one_row_and_those_that_overlap_are_told_once(
    pc: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions = [
        ("ram", 0, 0x9FFFF), ("rom", 0xC0000, 0xCFFFF), ("rom", 0xD0000, 0xDFFFF), ("mmio", 0xE0000, 0xE0FFF),
        ("mmio", 0xE0800, 0xE17FF), ("mmio", 0xE0900, 0xE09FF), ("rom", 0xE1800, 0xE1FFF),
    ]  # fmt: skip
    views = tuple(RegionView(first, last, kind, f"r{first:x}") for kind, first, last in regions)
    monkeypatch.setattr(pc.debugger.machine, "memory_map", lambda: views)
    monkeypatch.setattr(pc.debugger.machine, "readable_physical", lambda address, length: 0)
    assert pc.worker.call(lambda: memory_map(pc.client), 20) == [
        ("ram", 0, 0xC0000), ("rom", 0xC0000, 0xE0000), ("rom", 0xE1800, 0xE2000), ("ram", 0xE2000, TOP),
    ]  # fmt: skip


def test_physical_addresses_are_those_behind_the_page_tables(pc: Asker) -> None:
    pc.worker.call(lambda: pc.debugger.machine.run(100), 20)
    pc.debugger.forget()
    assert pc.one("M500,2:aa55") == b"OK"
    assert pc.one("m400500,2") == b"aa55"
    assert pc.one("m800500,2").startswith(b"E.0x800500: not mapped")
    assert pc.one("Qqemu.PhyMemMode:1") == b"OK"
    assert pc.one("m500,2") == b"aa55"
    assert pc.one("m400500,2").startswith(b"E.0x400500: no memory")
    assert pc.one("qSearch:memory:400;200;" + "\xaa\x55") == b"1,500"
    assert pc.one("m8000,4") == b"a3000000"  # the table: present, written, accessed, 4 MiB


# -- how much one packet may cost


class Counter:
    """How often the subject's memory is asked."""

    def __init__(self, asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        machine = asker.debugger.machine
        for name in ("read_physical", "readable_physical"):
            monkeypatch.setattr(machine, name, self._counted(getattr(machine, name)))

    def _counted(self, function: Callable[[int, int], object]) -> Callable[[int, int], object]:
        def counted(address: int, length: int) -> object:
            self.asked += 1
            return function(address, length)

        return counted


def test_a_search_passes_holes_of_physical_memory_at_once(pc: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    count = Counter(pc, monkeypatch)
    assert pc.one("qSearch:memory:10000000;10000000;abc") == b"0"
    assert pc.one("qSearch:memory:10000000;efffffff;" + "\xff\xff\xff\xff\xff" * 40) == b"0"
    assert count.asked < 100


def test_a_search_passes_what_page_tables_do_not_map_at_once(pc: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    pc.worker.call(lambda: pc.debugger.machine.run(100), 20)
    pc.debugger.forget()
    assert pc.one("M500,3:616263") == b"OK"
    count = Counter(pc, monkeypatch)
    assert pc.one("qSearch:memory:800000;ff7fffff;abc") == b"0"
    assert pc.one("qSearch:memory:200000;100000000;abc") == b"1,400500"
    assert count.asked < 100


def test_tables_that_map_all_of_memory_over_and_over_are_refused_in_words_and_bounded(
    pc: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    pc.worker.call(lambda: pc.debugger.machine.run(100), 20)
    pc.debugger.forget()
    # The directory is a table of itself: every page of it is a table or a page of the first MiB.
    pc.debugger.machine.write_physical(0x8000, b"\x03\x80\0\0" * 1024)
    count = Counter(pc, monkeypatch)
    answer = pc.one("qSearch:memory:0;ffffffff;abc")
    assert re.match(rb"E\.up to 0x[0-9a-f]+ is all that one packet may look through: ", answer)
    assert count.asked < 50_000
    assert pc.one("qCRC:0,4000000").startswith(b"E.up to 0x")
    assert pc.one("qCRC:0,4000001") == b"E.0x4000001 bytes are too many for one packet: ask for 0x4000000 at most"
    assert pc.one("qC") == b"QC1"


def test_a_checksum_ends_at_the_first_byte_that_cannot_be_read(pc: Asker) -> None:
    assert pc.one("qCRC:ffff0,20").startswith(b"E.0x100000: ")


def test_what_is_found_lies_across_pages_and_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = random.Random(1).randbytes(0x8000)
    order = [5, 6, 1, 0, 7, 2, 3, 4]
    linear = b"".join(memory[n * 0x1000 : (n + 1) * 0x1000] for n in order)
    monkeypatch.setattr("stub.adapter_sweep.PIECE", 0x1800)
    runs = [(i * 0x1000, n * 0x1000, 0x1000) for i, n in enumerate(order)]
    runs.insert(3, (0x3000, 0, 0))
    pieces = list(swept(iter(runs), lambda at, length: memory[at : at + length]))
    assert b"".join(data for _, data, _ in pieces) == linear
    assert [at for at, data, _ in pieces if data] == [0, 0x1800, 0x3000, 0x4800, 0x6000, 0x7800]
    assert all(linear[at : at + len(data)] == data for at, data, _ in pieces)


def test_a_write_that_the_vga_does_not_take_is_refused_with_nothing_written(pc: Asker) -> None:
    nowhere = b"the VGA as it is set takes nothing that is written there"
    assert pc.one("M9fffe,2:0000") == b"OK"
    for packet, first in (("Ma0000,1:55", 0xA0000), ("M9fffe,3:112233", 0xA0000), ("Mb8000,2:ff07", 0xB8001)):
        assert pc.one(packet) == b"E.%#x: %b" % (first, nowhere)
    assert pc.one("m9fffe,2") == b"0000"
    assert pc.one("Ma0000,2:ffff") == b"OK"  # what is read there, as in a file that `dump` has made
    pc.one("Qqemu.PhyMemMode:1")
    assert pc.one("Ma0000,1:55") == b"E.%#x: %b" % (0xA0000, nowhere)
    assert pc.one("Mbfffe,4:ffffffff").startswith(b"E.0xc0000: ")


def test_a_write_over_pages_that_lie_apart_is_refused_before_any_of_it_is_made() -> None:
    """Linear pages 10h and 11h are physical 5000h and A0000h; where the VGA takes what is written, both are written."""
    debugger = make_debugger(tour.rom(), memory=1 << 20)
    tables = {0x1000: 0x2003, 0x2040: 0x5003, 0x2044: 0xA0003}
    for address, entry in tables.items():
        debugger.write_physical(address, entry.to_bytes(4, "little"))
    for name, value in (("cr3", 0x1000), ("cr0", 0x80000011)):
        debugger.write_register(name, value)
    with pytest.raises(MemoryUnavailable, match="0x11000: the VGA as it is set"):
        debugger.write_linear(0x10FFE, b"1234")
    assert debugger.read_physical(0x5FFE, 2) == bytes(2)
    debugger.write_linear(0x10FFE, b"12\xff\xff")
    assert debugger.read_physical(0x5FFE, 2) == b"12"
    debugger.machine.close()


def test_memory_is_the_same_only_by_the_name_of_what_was_gathered_last_and_whole() -> None:
    """The checksum names the question and its answer."""
    peer = client(FakeTarget())

    def gathered(ranges: bytes) -> int:
        return zlib.crc32(ranges + peer.one(b"qv2e.Memory:" + ranges))

    first = gathered(b"500,4")
    assert peer.one(f"qv2e.Same:{first:x}") == b"1"
    assert peer.one(f"qv2e.Same:{first ^ 1:x}") == b"0"
    second = gathered(b"600,4")
    assert (peer.one(f"qv2e.Same:{first:x}"), peer.one(f"qv2e.Same:{second:x}")) == (b"0", b"1")
    part = gathered(b"%x,4" % (RAM - 2))
    assert (peer.one(f"qv2e.Same:{part:x}"), peer.one(f"qv2e.Same:{second:x}")) == (b"0", b"0")
