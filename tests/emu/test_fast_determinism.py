"""SeaBIOS runs alike under both run loops and at any slice; what the engine answers by itself changes nothing."""

from __future__ import annotations

import os
from typing import Any

import pytest

from asm import assemble
from emu import layout
from emu.answers import CpuPorts
from emu.debugger import Debugger, StopKind
from emu.engine import Access, CheckLevel, Watch
from emu.firmware import tour
from emu.machine import MachineConfig, MachineStop, build_machine
from emu.unicorn_engine import HELPER, UnicornEngine
from emu.views import FingerprintView
from machines import reading_debugger, seabios_debugger
from reproducible import (
    Guest,
    check_asynchronous_stops,
    check_breakpoints,
    check_flushes,
    check_saving,
    check_slices,
    check_watchpoints,
    run_to,
    stack_watch,
)

pytestmark = pytest.mark.skipif(
    isinstance(HELPER, str), reason=f"there is no helper: {HELPER if isinstance(HELPER, str) else ''}"
)

#: Where the comparison ends: in the firmware's work, behind its option ROMs and the disk.
RETIRED = 7_000_000


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


@pytest.mark.slow
def test_both_loops_give_the_same_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "fast") == run(monkeypatch, "gate")


def test_asking_devices_at_each_access_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # A trace of port accesses must see each of them, so nothing is answered ahead.
    assert run(monkeypatch, "fast", trace=True) == run(monkeypatch, "fast")


def test_the_consoles_text_is_the_same_whoever_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def printed(waiting: bool) -> tuple[str, bytes, int]:
        monkeypatch.setenv("V2E_ENGINE", "fast")
        sunk, asked = bytearray(), [0]
        debugger = seabios_debugger(bytes(510) + b"\x55\xaa", debugcon_out=sunk.extend)
        machine = debugger.machine
        port_out = machine.ports.port_out

        def counted(port: int, size: int, value: int) -> None:
            asked[0] += port == layout.DEBUGCON_SEABIOS
            port_out(port, size, value)

        monkeypatch.setattr(machine.ports, "port_out", counted)
        if waiting:
            machine.outputs.on_text = lambda name: None
        assert machine.run(RETIRED).reason is MachineStop.LIMIT
        assert machine.board.debugcon.save().written == len(sunk)
        return machine.debugcon_text(), bytes(sunk), asked[0]

    text, sunk, asked = printed(waiting=True)
    assert (text.encode("latin-1"), asked) == (sunk, len(sunk))
    found, found_sunk, found_asked = printed(waiting=False)
    assert (found, found_sunk) == (text, sunk)
    assert found_asked < asked / 4


# -- the fast loop against itself, to the end of the boot sector


def finish(debugger: Debugger) -> None:
    debugger.set_until(None)
    debugger.set_limit(50_000_000)
    debugger.begin_continue()
    stop = debugger.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0x55), stop.text


@pytest.fixture(scope="module")
def boot() -> Guest:
    return Guest(reading_debugger, finish)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2E_ENGINE", "fast")


in_fast_loop = pytest.mark.usefixtures("fast")


@in_fast_loop
@pytest.mark.parametrize(
    "length", [*(pytest.param(n, marks=pytest.mark.slow) for n in (13, 777)), 1000, 12345, 10**6, 10**8]
)
def test_the_length_of_slices_changes_nothing(boot: Guest, length: int) -> None:
    check_slices(boot, length)


@in_fast_loop
def test_flushes_at_200_instants_change_nothing(boot: Guest) -> None:
    check_flushes(boot, 200)


@in_fast_loop
@pytest.mark.slow
def test_5000_stops_from_a_thread_change_nothing(boot: Guest) -> None:
    check_asynchronous_stops(boot, 5000)


#: In SeaBIOS's protected-mode work, in its real-mode work, and in the VGA BIOS and boot sector.
STARTS = (400_000, 3_000_000, 6_800_000)


@in_fast_loop
@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_breakpoints_stop_where_single_steps_pass(boot: Guest, start: int) -> None:
    check_breakpoints(boot, start, steps=60_000, count=5000)


@in_fast_loop
@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS[:2])  # the VGA BIOS has too few accesses left
def test_watchpoints_stop_where_they_stop_single_steps(boot: Guest, start: int) -> None:
    bios_data = Watch(0x400, 0x100, Access.BOTH)
    check_watchpoints(boot, start, (stack_watch(boot, start), bios_data), count=5000)


@in_fast_loop
@pytest.mark.slow
def test_1000_points_of_saving_and_restoring_change_nothing(boot: Guest) -> None:
    check_saving(boot, 1000)


# -- and through every mode of the CPU


def tour_debugger(**config: Any) -> Debugger:
    # Without checks, which are no part of the loop and take most of the time.
    config = {"memory": 4 << 20, "firmware": tour.rom(), "shadow": False, "checks": CheckLevel.OFF, **config}
    return Debugger(build_machine(MachineConfig(**config)))


def finish_tour(debugger: Debugger) -> None:
    debugger.set_until(None)
    debugger.set_limit(20_000_000)
    debugger.begin_continue()
    assert (stop := debugger.run()).kind is StopKind.EXIT, stop.text
    assert "tour: done" in debugger.machine.serial_text() + debugger.machine.debugcon_text() + debugger.screen().text


@pytest.fixture(scope="module")
def all_modes() -> Guest:
    return Guest(tour_debugger, finish_tour)


@in_fast_loop
@pytest.mark.parametrize("length", [pytest.param(13, marks=pytest.mark.slow), 777, 12345])
def test_the_length_of_slices_changes_nothing_in_any_mode(all_modes: Guest, length: int) -> None:
    check_slices(all_modes, length)


@pytest.mark.slow
@in_fast_loop
def test_saving_and_restoring_changes_nothing_in_any_mode(all_modes: Guest) -> None:
    check_saving(all_modes, 150)


@in_fast_loop
def test_flushes_change_nothing_in_any_mode(all_modes: Guest) -> None:
    check_flushes(all_modes, 100)


@pytest.mark.slow
@in_fast_loop
def test_all_modes_are_saved_exactly(all_modes: Guest) -> None:
    debugger = all_modes.make()
    for retired in all_modes.points(200, seed=3):
        run_to(debugger, retired)
        assert bytes(debugger.machine.memory.save()) == bytes(debugger.machine.memory.view)
    assert all_modes.end(debugger) == all_modes.plain()


def test_without_the_helper_the_engine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import emu.unicorn_parts as module

    monkeypatch.delenv("V2E_ENGINE", raising=False)
    monkeypatch.setattr(module, "HELPER", "it was not built")
    debugger = seabios_debugger(bytes(512))
    assert debugger.machine.executor.notice == "the engine runs without its C helper, slower: it was not built"
    assert os.environ.get("V2E_ENGINE") is None


def test_polls_of_several_ports_in_turn_do_not_end_each_others_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2E_ENGINE", "fast")
    asked: list[int] = []
    port_in = CpuPorts.port_in

    def counted(ports: CpuPorts, port: int, size: int) -> int:
        asked.append(port)
        return port_in(ports, port, size)

    monkeypatch.setattr(CpuPorts, "port_in", counted)
    source = "bits 16\nmov cx, 500\nl: in al, 0x64\nin al, 0x92\nin al, 0x70\nloop l\nmov al, 0\nout 0xf4, al"
    code = assemble(source, 0)
    rom = code.ljust(0xFFF0, b"\xff") + bytes.fromhex("ea000000f0").ljust(16, b"\xff")
    machine = build_machine(MachineConfig(memory=1 << 20, firmware=rom))
    assert machine.run(100_000).reason is MachineStop.EXIT
    assert set(asked) == {0x64, 0x92, 0x70}
    assert len(asked) < 100
