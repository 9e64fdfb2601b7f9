"""The emulator beside a vCPU on a clock of the test's own: what an access took, and what comes due in it."""

from __future__ import annotations

import pytest

from emu.engine import ExitReason
from emu.ledger import Costs
from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig, Transitions
from machines import rom
from xenbridge.model import make_model


class Host:
    """A clock that goes on only when it is told to."""

    now = 0

    def __call__(self) -> int:
        return self.now


def built(host: Host | None, policy: str = "emulated") -> tuple[Machine, Transitions]:
    """`host`: its clock; without it the guest's time is the virtual clock's."""
    native = NativeConfig(make_model(), policy_named(policy, Costs()), Costs(), host)
    machine = build_machine(
        MachineConfig(
            firmware=rom("mov dx, 0x899\nagain: inc dword [0x500]\nout dx, al\njmp again"), shadow=False, native=native
        )
    )
    assert machine.transitions is not None
    machine.run(8)
    return machine, machine.transitions


def test_a_look_ahead_is_not_cut_behind_an_access(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, transitions = built(Host())
    asked: list[bool] = []
    monkeypatch.setattr(transitions.emulator, "request_stop", lambda: asked.append(True))
    transitions.quiet(True)
    transitions.keep_time()
    transitions.quiet(False)
    assert not asked
    transitions.keep_time()
    assert asked == [True]
    machine.close()


@pytest.mark.parametrize(("policy", "host"), [("native", Host()), ("native", None), ("emulated", None)])
def test_what_a_native_access_takes_and_a_virtual_clock_cut_no_run_of_the_emulators(
    monkeypatch: pytest.MonkeyPatch, policy: str, host: Host | None
) -> None:
    """An access of the native CPU has ended its run by itself: a stop of the emulator's would wait for the run behind
    the next move. And on the virtual clock an access takes no time."""
    machine, transitions = built(host, policy)
    while policy == "native" and not transitions.native and machine.executor.retired < 1000:
        machine.run(machine.executor.retired + 1)
    assert transitions.native is (policy == "native")
    asked: list[bool] = []
    monkeypatch.setattr(transitions.emulator, "request_stop", lambda: asked.append(True))
    transitions.keep_time()
    assert (asked, transitions._shortened) == ([], False)
    machine.close()


def test_a_timer_that_came_due_in_an_access_fires_at_once() -> None:
    host = Host()
    machine, transitions = built(host)
    fired: list[int] = []
    machine.clock.timer("test", lambda _: fired.append(machine.executor.retired)).arm(machine.clock.now + 50_000)
    start = machine.executor.retired

    class Slow:
        """A device whose access takes the host 100 us."""

        def read(self, offset: int, size: int) -> int:
            return 0

        def write(self, offset: int, value: int, size: int) -> None:
            host.now += 100_000
            transitions.keep_time()

        def peek(self, offset: int, size: int) -> int:
            return 0

    machine.ports.map(0x899, 1, Slow(), "slow")
    machine.run(start + 1000)
    assert len(fired) == 1
    assert fired[0] - start <= 3
    machine.close()


class Running(Host):
    """A clock that goes on by 7 us each time that somebody looks at it, as if all else took no time."""

    def __call__(self) -> int:
        self.now += 7_000
        return self.now


def test_the_guests_time_goes_on_with_all_that_is_done_between_two_runs_of_the_emulator() -> None:
    """What the machine, the policy and the devices do between them takes the host's time, which the guest's may not
    fall behind: a kernel's timer goes on meanwhile."""
    host = Running()
    machine, _ = built(host)
    begun, at, runs = host.now, machine.clock.now, 0

    class Ending:
        """A device each access of which ends the run."""

        def read(self, offset: int, size: int) -> int:
            return 0

        def write(self, offset: int, value: int, size: int) -> None:
            nonlocal runs
            runs += 1
            machine.executor.request_stop()

        def peek(self, offset: int, size: int) -> int:
            return 0

    machine.ports.map(0x899, 1, Ending(), "ending")
    machine.run(machine.executor.retired + 300)
    assert runs == 100
    # It has all of the host's time but for what was looked at before the first run, and behind the last.
    assert 0 <= host.now - begun - (machine.clock.now - at) <= 3 * 7_000
    machine.close()


def test_a_guest_that_waits_for_an_event_waits_as_long_as_the_host() -> None:
    """It halts, and something wakes it before its next timer is due."""
    host = Host()
    native = NativeConfig(make_model(), policy_named("emulated", Costs()), Costs(), host)
    machine = build_machine(
        MachineConfig(firmware=rom("sti\nagain: hlt\njmp again"), shadow=False, native=native)
    )  # fmt: skip
    machine.clock.timer("test", lambda _: None).arm(90_000_000)

    def woken(wait: int | None) -> bool:
        host.now += 3_000_000
        return False

    machine.idle = woken
    machine.run(1_000)
    before = machine.clock.now
    assert machine.run(1_000).reason is MachineStop.REQUEST
    assert machine.clock.now - before == 3_000_000
    machine.close()


def test_a_guest_that_is_stopped_is_not_behind_when_it_goes_on() -> None:
    host = Host()
    machine, _ = built(host)
    before, retired = machine.clock.now, machine.executor.retired
    host.now += 10**12
    machine.run(retired + 100)
    machine.step()
    assert machine.clock.now - before == (machine.executor.retired - retired) * 10
    machine.close()


def test_a_stop_for_the_keeper_is_not_taken_for_the_end_of_an_access() -> None:
    machine, transitions = built(Host())
    while transitions.run(1).reason is ExitReason.REQUEST:
        pass
    for due in (True, False):
        transitions.due = lambda due=due: due  # type: ignore[misc]
        transitions._shortened = False
        run = transitions.emulator.run

        def shortened(budget: int, *, skip_breakpoint: bool = False, run=run):  # type: ignore[no-untyped-def]
            transitions.emulator.run = run  # type: ignore[method-assign]
            transitions.keep_time()
            return run(budget, skip_breakpoint=skip_breakpoint)

        transitions.emulator.run = shortened  # type: ignore[method-assign]
        assert transitions.run(100).reason is (ExitReason.REQUEST if due else ExitReason.BUDGET)
    machine.close()
