"""`info registers`, `info mem` and `info tlb` are in the text form of QEMU's monitor, to the character, in every paging
mode; and what reads them there, reads them here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

import oracles
import qemu_monitor
from emu.worker import Worker
from emu.x86.pagemap import Page, pages
from emu.x86.state import CR0_PG, CpuState
from machines import debugger
from repl import qemu_cpu
from repl.commands import all_commands
from repl.render import result_text
from repl.session import Session
from repl.style import Style

COMMANDS = ("info registers", "info mem", "info tlb")
KINDS = {"off": 0, "32-bit": 1, "PAE": 2, "four levels": 3}
#: With PAE QEMU shows bit 63 of the entry, XD, as one of the address, which it is not.
XD = re.compile(r"^([0-9a-f]{16}: )8", re.MULTILINE)


class Pair:
    """The same guest here and under QEMU."""

    def __init__(self, kind: int, folder: pytest.TempPathFactory) -> None:
        rom = oracles.assemble_image("paging", KIND=kind)
        loaded = "R8 =123456789abcdef0" if kind == 3 else "EAX=11111111"
        self.qemu = qemu_monitor.ask(rom, folder.mktemp("qemu"), COMMANDS, ("info registers", loaded))
        target = debugger(rom, machine="pc", memory=16 << 20)
        target.machine.run(200_000)
        self.worker = Worker(target)
        self.worker.start()
        self.session = Session(target, self.worker, all_commands())

    def said(self, command: str) -> str:
        return result_text(self.session.execute(command), Style())


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS.keys())
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(request.param, tmp_path_factory)
    yield made
    made.worker.close()
    made.session.debugger.machine.close()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_text_is_qemu_s(command: str, pair: Pair) -> None:
    expected = XD.sub(r"\g<1>0", pair.qemu[command])
    assert pair.said(command).strip("\n").splitlines() == expected.strip("\n").splitlines()


def test_pwndbg_reads_the_maps(pair: Pair) -> None:
    """Its reading: START-END SIZE RIGHTS, split at the first dash and blanks; one line `PG disabled` is none."""
    lines = pair.said("info mem").splitlines()
    if lines == ["PG disabled"]:
        return
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]+)-([0-9a-f]+) ([0-9a-f]+) ([u-][r-][w-])", line)
        assert match, line
        start, end, size = (int(match[n], 16) for n in (1, 2, 3))
        assert (end or 1 << 64) - start == size


def test_registers_are_found_by_name_and_segments_by_their_bases(pair: Pair) -> None:
    text = pair.said("info registers")
    assert re.search(r"CR3=0*10000\b", text)
    assert re.search(r"^EFER=[0-9a-f]{16}$", text, re.MULTILINE)
    assert re.search(r"^FS =0000 0+ 0000ffff 00009300", text, re.MULTILINE)
    assert re.search(r"^IDT= +0+ 0000ffff$", text, re.MULTILINE)


def test_in_real_mode_segments_are_not_decoded(say: Callable[[str], str]) -> None:
    text = say("info registers")
    assert re.search(r"^CS =f000 [0-9a-f]{8} 0000ffff 00009b00$", text, re.MULTILINE)
    assert say("info mem") == say("info tlb") == "PG disabled"


def test_tables_that_hold_themselves_end(monkeypatch: pytest.MonkeyPatch) -> None:
    state = CpuState(cr0=CR0_PG, cr3=0x1000)

    def read(address: int, length: int) -> bytes:
        """Tables whose first 64 entries of 1,024 are present."""
        first = (address & 0xFFF) // 4
        entries = (0x1007 * (index < 64) for index in range(first, first + length // 4))
        return b"".join(entry.to_bytes(4, "little") for entry in entries)

    assert sum(1 for _ in pages(state, read, 40)) == 64 * 64
    assert qemu_cpu.MAX_PAGES == 1 << 20
    monkeypatch.setattr(qemu_cpu, "MAX_PAGES", 1000)
    endless = iter(lambda: Page(0, 4096, 0, 7, True, True), None)
    assert qemu_cpu.tlb_text(state, endless).endswith("more than 1000 pages: the rest is left out)")


def test_tables_where_there_is_no_memory_map_nothing() -> None:
    assert list(pages(CpuState(cr0=CR0_PG, cr3=0x1000), lambda address, length: None, 40)) == []
