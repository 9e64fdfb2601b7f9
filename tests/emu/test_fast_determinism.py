"""SeaBIOS runs alike under both run loops and at any slice; what the engine answers by itself changes nothing."""

from __future__ import annotations

import os

import pytest

from asm import assemble
from emu.debugger import BreakKind, Debugger, StopKind
from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.unicorn_engine import HELPER, UnicornEngine
from emu.until import parse_until
from emu.views import FingerprintView
from machines import seabios_debugger

pytestmark = pytest.mark.skipif(
    isinstance(HELPER, str), reason=f"there is no helper: {HELPER if isinstance(HELPER, str) else ''}"
)

#: Where the comparison ends: in the firmware's work, behind its option ROMs and the disk.
RETIRED = 7_000_000
LENGTHS = (13, 777, 1000, 12345, 10**6, 10**8)


def run(monkeypatch: pytest.MonkeyPatch, loop: str, trace: bool = False, **config: object) -> FingerprintView:
    monkeypatch.setenv("V2E_ENGINE", loop)
    debugger = seabios_debugger(bytes(510) + b"\x55\xaa", **config)
    executor = debugger.machine.executor
    assert isinstance(executor, UnicornEngine)
    assert executor.run_loop == loop
    if trace:
        debugger.machine.ports.trace = lambda port, size, value, is_write: None
    run_to(debugger, RETIRED)
    fingerprint = debugger.fingerprint()
    debugger.machine.close()
    return fingerprint


def run_to(debugger: Debugger, retired: int) -> None:
    debugger.set_until(parse_until(f"insns:{retired}"))
    debugger.begin_continue()
    assert debugger.run().kind is StopKind.EVENT


def test_both_loops_give_the_same_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "fast") == run(monkeypatch, "gate")


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS)
def test_the_length_of_slices_changes_nothing(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    assert run(monkeypatch, "fast", slice=length) == run(monkeypatch, "fast")


def test_asking_devices_at_each_access_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # A trace of port accesses must see each of them, so nothing is answered ahead.
    assert run(monkeypatch, "fast", trace=True) == run(monkeypatch, "fast")


def test_flushes_at_many_instants_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2E_ENGINE", "fast")
    debugger = seabios_debugger(bytes(510) + b"\x55\xaa")
    executor = debugger.machine.executor
    assert isinstance(executor, UnicornEngine)
    for retired in range(100_000, RETIRED, 137_777):
        run_to(debugger, retired)
        executor._loop.flush()
    run_to(debugger, RETIRED)
    assert debugger.fingerprint() == run(monkeypatch, "fast")


def test_a_breakpoint_meets_what_single_steps_meet_in_firmware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2E_ENGINE", "fast")
    steps = seabios_debugger(bytes(512))
    run_to(steps, 400_000)
    seen = []
    for _ in range(3000):
        seen.append((steps.machine.executor.retired, steps.machine.executor.linear_pc))
        steps.begin_step(1)
        steps.run()
    counts: dict[int, int] = {}
    for _, pc in seen:
        counts[pc] = counts.get(pc, 0) + 1
    counts.pop(seen[0][1])  # a continue from there would pass over it
    for pc in sorted(counts, key=lambda pc: counts[pc])[:3]:
        other = seabios_debugger(bytes(512))
        run_to(other, 400_000)
        other.add_breakpoint(BreakKind.EXECUTE, pc)
        met = []
        for _ in range(counts[pc]):
            other.begin_continue()
            assert other.run().kind is StopKind.BREAKPOINT
            met.append(other.machine.executor.retired)
        assert met == [retired for retired, at in seen if at == pc]


def test_without_the_helper_the_engine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import emu.unicorn_engine as module

    monkeypatch.delenv("V2E_ENGINE", raising=False)
    monkeypatch.setattr(module, "HELPER", "it was not built")
    debugger = seabios_debugger(bytes(512))
    assert debugger.machine.executor.notice == "the engine runs without its C helper, slower: it was not built"
    assert os.environ.get("V2E_ENGINE") is None


def test_polls_of_several_ports_in_turn_do_not_end_each_others_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2E_ENGINE", "fast")
    asked: list[int] = []
    port_in = Machine.port_in

    def counted(machine: Machine, port: int, size: int) -> int:
        asked.append(port)
        return port_in(machine, port, size)

    monkeypatch.setattr(Machine, "port_in", counted)
    source = "bits 16\nmov cx, 500\nl: in al, 0x64\nin al, 0x92\nin al, 0x70\nloop l\nmov al, 0\nout 0xf4, al"
    code = assemble(source, 0)
    rom = code.ljust(0xFFF0, b"\xff") + bytes.fromhex("ea000000f0").ljust(16, b"\xff")
    machine = build_machine(MachineConfig(memory=1 << 20, firmware=rom))
    assert machine.run(100_000).reason is MachineStop.EXIT
    assert set(asked) == {0x64, 0x92, 0x70}
    assert len(asked) < 100
