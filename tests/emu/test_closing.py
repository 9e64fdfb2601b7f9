"""A machine that another thread runs is not freed under it: closing is refused in a sentence, so are runs behind it.

Each test is a process of its own: what it is about ended with a segmentation fault."""

from __future__ import annotations

import threading

import pytest

from emu.debugger import Debugger
from emu.engine import EngineError
from emu.firmware.roms import tour_rom
from emu.ledger import Costs
from emu.machine import Machine, MachineConfig, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig
from xenbridge.model import make_model

LOOP = b"\xeb\xfe"  #: jmp $
AT = 0x7C00


def looping(policy: str | None) -> Machine:
    """About to execute a loop without an end."""
    native = None if policy is None else NativeConfig(make_model(), policy_named(policy, Costs()), Costs())
    machine = build_machine(MachineConfig(memory=1 << 20, firmware=tour_rom(), shadow=False, native=native))
    state = machine.cpu_state()
    state.cs.selector = state.cs.base = 0
    state.rip = AT
    machine.load_cpu(state)
    machine.memory.write(AT, LOOP)
    return machine


@pytest.mark.parametrize("policy", [None, "native", "emulated"])
def test_it_is_not_closed_while_a_thread_runs_it_and_is_when_that_has_stopped(policy: str | None) -> None:
    machine = looping(policy)
    debugger, ends, runs = Debugger(machine), threading.Event(), threading.Event()
    debugger.poll = ends.is_set
    debugger.begin_continue()

    def run() -> None:
        while not ends.is_set():
            assert debugger.pump(1 << 40) is None

    machine.clock.timer("test", lambda now: runs.set()).arm(machine.clock.now + 1_000_000)
    thread = threading.Thread(target=run)
    thread.start()
    runs.wait()
    try:
        with pytest.raises(EngineError, match=r"^close\(\) was called while the (machine|CPU) runs: "):
            machine.close()
        assert thread.is_alive()
    finally:
        ends.set()
        machine.request_stop()
        thread.join()
    debugger.stop()
    machine.close()


def test_a_machine_that_has_been_closed_runs_no_more_and_is_closed_once() -> None:
    machine = looping(None)
    machine.run(machine.executor.retired + 10)
    machine.close()
    machine.close()
    with pytest.raises(EngineError, match=r"^the CPU has been closed$"):
        machine.run(machine.executor.retired + 10)
