"""What `python -m bench.bridge` measures is what it says."""

from __future__ import annotations

import shutil

import pytest

from bench import bridge as bench
from emu.machine import MachineConfig
from xenbridge.model_bridge import ModelBridge


def test_a_guest_that_ends_its_interrupts_exits_for_each_only_where_the_controller_is_userspaces() -> None:
    if shutil.which("nasm") is None:
        pytest.skip("nasm is not installed (Debian: apt-get install nasm)")
    image = bench.rom(*bench.GUESTS["PIO: PIC's EOI"])
    found = {
        place: bench.run(
            MachineConfig(machine="pc", memory=2 << 20, firmware=image, shadow=False), keeper, "native", 100_000
        )
        for place, keeper in bench.PLACES
    }
    assert found["userspace"].exits > 950 and found["hypervisor"].exits < 10
    assert found["hypervisor"].inside + found["hypervisor"].requests == 1000
    assert found["userspace"].instructions == found["hypervisor"].instructions


def test_requests_are_measured_in_turns_and_an_event_comes_each_time() -> None:
    bridge = ModelBridge()
    bridge.borrow()
    times = bench.in_turns(bench.requests(bridge), rounds=2)
    assert set(times) == set(bench.REQUESTS) and min(times.values()) > 0
    assert bench.event(bridge) > 0 and bench.called_back(bridge) > 0
    assert bridge.events >= bench.EVENTS
    bridge.close()
