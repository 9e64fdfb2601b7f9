"""A real gdb on a guest under kvm: register `engine` says who executes, and `ledger` what KVM does not count."""

from __future__ import annotations

import pytest

from machines import CALLED, calling, rom_text
from repl.harness import Gdb
from xenbridge.kvm.backend import Backend, Kind

LOOP = rom_text(calling("mov es, ax"))


@pytest.fixture(autouse=True)
def carries(backend: Backend) -> None:
    if not backend.runs >= {Kind.REAL, Kind.BIG_REAL}:
        pytest.skip(f"{backend.name} does not run real mode")
    if not backend.breaks_everywhere:
        pytest.skip(f"{backend.name} does not stop at hardware breakpoints in all modes")


@pytest.mark.boot(firmware=LOOP, options=("--hypervisor", "kvm"))
def test_engine_says_who_executes_and_the_ledger_what_is_not_counted(gdb: Gdb) -> None:
    gdb.cmd(f"hbreak *{CALLED:#x}")
    assert "Breakpoint 1, " in gdb.cmd("continue")
    assert gdb.cmd("p $engine").strip().endswith("native")
    assert "emulated is forced" in gdb.cmd("monitor emulate")
    gdb.cmd("stepi")
    assert gdb.cmd("p $engine").strip().endswith("emulator")
    assert "Breakpoint 1, " in gdb.cmd("continue")
    assert gdb.cmd("p $engine").strip().endswith("emulator")
    assert "native is forced" in gdb.cmd("monitor native")
    gdb.cmd("stepi")
    assert gdb.cmd("p $engine").strip().endswith("native")
    counted = gdb.value("*(short *)0x500")
    assert "Breakpoint 1, " in gdb.cmd("continue")
    assert gdb.value("*(short *)0x500") == counted + 1, "once around"
    ledger = gdb.cmd("monitor ledger").splitlines()
    (row,) = [line for line in ledger if line.startswith("instructions native")]
    assert row.split()[2:4] == ["not", "counted"] and row.split()[-1] == "-"
    assert "in all is without native instructions, which this hypervisor does not count" in ledger
