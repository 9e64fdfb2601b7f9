"""Packets that ask for too much, on the real machine: each is refused or cut to measure, at once and at no cost."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from emu.debugger import Debugger
from emu.machine import MachineConfig, build_machine
from emu.points import MAX_WATCH
from emu.worker import Worker
from machines import rom
from stub.adapter import DebuggerTarget
from stub.packet import PACKET_SIZE
from stub.session import Session
from stub_fakes import GDB_FEATURES, Client

PATIENCE = 60  #: seconds until a test that hangs fails, on a busy host too
HUGE = "f" * 16
REFUSED = [
    f"Z2,500,{HUGE}", f"Z3,{HUGE},{HUGE}", f"Z4,0,{MAX_WATCH + 1:x}", "Z2,500,0", f"Z0,{HUGE}{HUGE},1", "Z0,7c00",
    f"m{HUGE},{HUGE}", f"x{HUGE},1", f"M{HUGE},1:00", f"M0,{HUGE}:00",
    f"X0,{HUGE}:a", "M0,1:0",
    "vCont", "vCont;", "vCont;q", "vCont;s:9", "vCont;r", "vCont;r1",
    "vCont;r1,2,3", "vCont;r7c05,7c00", "vCont;C", "vCont;s:p2.1", "cdead0000", "sdead0000",
    "S", f"Hg{HUGE}", "Hx1", f"T{HUGE}",
    f"p{HUGE}", "Hgp1.", "Hgp", "D;2", "vKill;0", "vAttach;1", "vAttach;7", "vRun;", "qAttached:2",
    "P0=", f"P{HUGE}=00", "G", "G00", "G000", "G" + "00" * 1000,
    "qXfer:features:read:none:0,1", "qXfer:features:read:target.xml:x,1", "qRcmd,0",
]  # fmt: skip
#: Taken as far as it goes.
CUT = [f"m0,{HUGE}", f"mfffffff0,{HUGE}", f"x0,{HUGE}", "xfffffff0,ffffffff",
       f"qXfer:features:read:target.xml:0,{HUGE}",
       f"qXfer:features:read:target.xml:{HUGE},{HUGE}", f"Z0,{HUGE},1", f"Z1,{HUGE},{HUGE}",
       f"vCont;r{HUGE},{HUGE}", "vRun" + ";41" * 10000]  # fmt: skip


class Asker:
    """A client whose packets are handled on the machine's thread, as by a server."""

    def __init__(self) -> None:
        firmware = rom("cli\nl: inc eax\ninc dword [0x500]\njmp l")
        debugger = Debugger(build_machine(MachineConfig(memory=1 << 20, firmware=firmware, shadow=False)))
        self.worker = Worker(debugger)
        self.worker.start()
        self.errors: list[Exception] = []
        self.client = Client(Session(DebuggerTarget(debugger, self.worker), on_error=self.errors.append))

    def one(self, packet: str) -> bytes:
        return self.worker.call(lambda: self.client.one(packet), PATIENCE)


@pytest.fixture
def client() -> Iterator[Asker]:
    asker = Asker()
    asker.one(GDB_FEATURES + ";error-message+")
    yield asker
    asker.worker.close()
    assert asker.errors == []


@pytest.mark.parametrize("packet", REFUSED)
def test_is_refused_in_words(client: Asker, packet: str) -> None:
    assert client.one(packet).startswith(b"E."), packet
    assert client.one("qC") == b"QC1"


@pytest.mark.parametrize("packet", CUT, ids=[packet[:40] for packet in CUT])
def test_is_answered_in_measure(client: Asker, packet: str) -> None:
    client.one("!")  # vRun is for extended mode
    tracemalloc.start()
    try:
        answer = client.one(packet)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert answer[:1] != b"E"
    assert len(answer) <= PACKET_SIZE
    assert client.one("qC") == b"QC1"


def test_the_longest_watchpoint_that_is_taken_works(client: Asker) -> None:
    assert client.one(f"Z2,0,{MAX_WATCH:x}") == b"OK"
    assert client.one("vCont;c").startswith(b"T05watch:500;")
