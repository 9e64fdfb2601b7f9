"""Exits that do not end the native CPU's run are the same exits: the guest, and the ledger, do not know of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from emu.devices.shared_ports import SharedPorts
from emu.firmware.roms import tour_rom
from emu.ledger import Costs
from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig, Transitions
from emu.vcpu import ExitCause
from machines import TIMER_100US, rom
from xenbridge.model import make_model

#: What the guest does, and how often each exit is to be counted. Each access is of one instruction.
TICKED = (
    "mov word [0x20], h\nmov word [0x22], 0xf000\nmov ss, ax\nmov sp, 0x7000\n"
    + TIMER_100US
    + "sti\nmov si, 3000\nw: xor eax, eax\ncpuid\ndec si\njnz w\nmov al, 1\nout 0xf4, al\n"
    "h: push ax\nmov al, 0x20\nout 0x20, al\npop ax\niret"
)
POLLS = "mov cx, 5000\nw: in al, 0x64\ntest al, 1\nout 0x80, al\nloop w\nmov al, 1\nout 0xf4, al"
STRING = (
    "mov word [0x100], h\nmov word [0x102], 0xf000\nmov ss, ax\nmov sp, 0x7000\n"
    "mov di, 0x4000\nmov es, ax\nmov dx, 0x1f0\nmov cx, 300\nrep insb\n"  # an empty channel
    "mov ax, 0xb800\nmov es, ax\nmov ds, ax\nxor si, si\nmov di, 0x100\nmov cx, 200\nrep movsb\n"  # both are MMIO
    "mov si, 0\nmov dx, 0x80\nmov cx, 50\nrep outsb\nint 0x40\nmov al, 1\nout 0xf4, al\nh: iret"
)


def machine_of(firmware: bytes, *, resident: bool) -> Machine:
    native = NativeConfig(make_model(), policy_named("native", Costs()), Costs())
    machine = build_machine(MachineConfig(memory=1 << 20, firmware=firmware, shadow=False, native=native))
    if not resident:
        transitions_of(machine)._resident = None
    return machine


def transitions_of(machine: Machine) -> Transitions:
    assert isinstance(machine.transitions, Transitions)
    return machine.transitions


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Machine, Machine]]:
    made = tuple(machine_of(request.param, resident=resident) for resident in (True, False))
    yield made  # type: ignore[misc]
    for machine in made:
        machine.close()


@pytest.mark.parametrize(
    "pair",
    [pytest.param(tour_rom(), marks=pytest.mark.slow), rom(POLLS), rom(STRING), rom(TICKED)],
    ids=["tour", "polls", "strings", "interrupts"],
    indirect=True,
)
def test_guest_and_ledger_are_the_same_as_with_runs_that_end(pair: tuple[Machine, Machine]) -> None:
    found = []
    for machine in pair:
        assert machine.run(2_000_000).reason is MachineStop.EXIT
        ledger = transitions_of(machine).ledger
        counts = +ledger.exits, ledger.hops_in, ledger.hops_out, ledger.native, ledger.emulated, ledger.caught
        found.append((machine.fingerprint(), counts, [str(event) for event in machine.journal]))
    assert found[0] == found[1]


def test_each_instruction_is_an_exit_however_it_is_answered() -> None:
    machine = machine_of(rom(POLLS), resident=True)
    assert machine.run(200_000).reason is MachineStop.EXIT
    ledger = transitions_of(machine).ledger
    assert ledger.caught + ledger.exits[ExitCause.PIO] == 10_001
    assert ledger.exits[ExitCause.PIO] > 9_900
    machine.close()


def test_interrupts_neither_add_nor_take_exits() -> None:
    """There are 3,000 CPUIDs, with ticks between them."""
    machine = machine_of(rom(TICKED), resident=True)
    assert machine.run(2_000_000).reason is MachineStop.EXIT
    ledger = transitions_of(machine).ledger
    assert sum(1 for event in machine.journal if event.kind == "interrupt") > 0
    assert ledger.exits[ExitCause.CPUID] == 3_000
    machine.close()


@pytest.mark.parametrize("slice_", [1, 2, 3, 7])
def test_exits_are_counted_once_however_runs_are_cut(slice_: int) -> None:
    """Runs end before, at and behind each of the three CPUIDs and MOVs from CR0 and CR3 of a round; they read, so that
    each is made in one run with what follows where that is not cut. The state at reset cannot be entered, so the exits
    come later."""
    code = (
        "mov cx, 40\nn: loop n\nmov si, 60\nw: xor eax, eax\ncpuid\nmov ebx, cr0\ncpuid\nmov ecx, cr0\nmov eax, cr3\n"
        "cpuid\ndec si\njnz w\nmov al, 1\nout 0xf4, al"
    )
    machine = machine_of(rom(code), resident=True)
    executor, stop = machine.executor, MachineStop.LIMIT
    while stop is MachineStop.LIMIT:
        stop = machine.run(executor.retired + slice_).reason
    assert stop is MachineStop.EXIT
    exits = transitions_of(machine).ledger.exits
    assert (exits[ExitCause.CPUID], exits[ExitCause.CR]) == (180, 180)
    machine.close()


def test_what_is_remembered_of_states_is_what_the_rules_say() -> None:
    """Through every mode of the tour, twice: the second time from memory."""
    machine = machine_of(tour_rom(), resident=True)
    transitions = transitions_of(machine)
    transitions.force(False)
    seen = set()
    for place in range(16, 87_000, 499):
        machine.run(place)
        allowed = not transitions.vcpu.refused(transitions.state())
        for _ in range(2):
            assert transitions.vcpu.enterable(transitions.emulator.live()) is allowed
        seen.add(allowed)
    assert seen == {True, False}
    machine.close()


@pytest.mark.parametrize("policy", ["dwell:20", "learn"])
def test_a_policy_that_decides_at_each_exit_is_asked_at_each(policy: str) -> None:
    """The native CPU may not answer ahead then: nothing is counted that nobody was asked about."""
    machine = machine_of(rom(POLLS), resident=True)
    transitions = transitions_of(machine)
    transitions.set_policy(policy_named(policy, Costs()))
    assert machine.run(200_000).reason is MachineStop.EXIT
    assert transitions._resident is not None
    assert not transitions._resident.take_exits()
    assert ledger_sum(transitions) == 10_001
    machine.close()


def ledger_sum(transitions: Transitions) -> int:
    return transitions.ledger.caught + transitions.ledger.exits[ExitCause.PIO]


def test_traced_ports_are_all_seen_by_whoever_traces() -> None:
    machine = machine_of(rom(POLLS), resident=True)
    machine.run(1000)
    seen: Counter[int] = Counter()
    machine.ports.trace = lambda port, size, value, write: seen.update((port,))
    assert machine.run(200_000).reason is MachineStop.EXIT
    assert seen[0x64] + seen[0x80] > 9_000
    assert isinstance(machine.board.shared_ports, SharedPorts)
    machine.close()
