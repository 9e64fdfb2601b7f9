"""Real loaders boot to the same instant, memory and devices whoever executes: without a hypervisor, and on the model by
each policy."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

import oracles
from boots.machines import walk
from boots.plain import End, booted, end_of, machine_with, options_for
from boots.table import BOOTS, Boot
from emu.machine import MachineStop
from emu.transitions import Transitions
from emu.x86.vmentry import VTX2006
from repl.boot_machine import BootMachine

POLICIES = ("native", "dwell:20", "dwell:1000", "learn")
#: Row and firmware of each boot, and the policies under which it is not left to `make soak`. Those take 3 to 30 s of
#: processor time beside a run without a hypervisor; what is left out takes as long, or moves 10,000 times and more.
ROWS = (
    ("post", "builtin", POLICIES),
    ("post", "seabios", ("native", "dwell:1000", "learn")),
    ("syslinux", "builtin", POLICIES),
    ("syslinux", "seabios", ("native", "dwell:1000", "learn")),
    ("memdisk raw", "builtin", ("native", "dwell:1000")),
    ("core.img", "builtin", ("native", "dwell:1000", "learn")),
    ("grub floppy", "builtin", ("native", "learn")),
    ("memtest86+", "builtin", ("native",)),
    ("ipxe.lkrn", "seabios", ("native", "learn")),
    ("linux 686", "none", ("native",)),
    ("linux amd64 on pc", "none", ("native",)),
)


def _ntldr_like(out: Path) -> Path:
    out.write_bytes(oracles.assemble_image("ntldr_like").ljust(NTLDR_SIZE, b"\0"))
    return out


#: The loader with segments that are not linear, which tests/emu/test_ntldr_like.py has under each policy.
NTLDR_SIZE = 20 * 16 * 63 * 512
NTLDR = Boot("NTLDR-like", "exit", 600, (("--disk", _ntldr_like),))
#: So many places are drawn for each one at which the state has to be one that can be entered.
DRAWN = 20


def _rows() -> list[object]:
    rows: list[object] = []
    for name, firmware, chosen in ROWS:
        for policy in POLICIES:
            quick = name == "post" and firmware == "builtin" and policy == "dwell:20"
            marks = [] if quick else [pytest.mark.slow] if policy in chosen else [pytest.mark.slow, pytest.mark.soak]
            rows.append(pytest.param(name, firmware, policy, id=f"{name} {firmware} {policy}", marks=marks))
    return rows


def _row(name: str) -> Boot:
    return next(row for row in (*BOOTS, NTLDR) if row.name == name)


def _transitions(machine: BootMachine) -> Transitions:
    transitions = machine.debugger.machine.transitions
    assert transitions is not None
    return transitions


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "firmware", "policy"), _rows())
def test_a_boot_is_the_same_to_the_byte_under_the_model(
    name: str, firmware: str, policy: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    boot = _row(name)
    options, expected = booted(boot, firmware, tmp_path_factory)
    machine = machine_with(boot, options, "--hypervisor", "model", "--policy", policy)
    walk(boot, machine)
    if policy == "native":
        assert _transitions(machine).ledger.native > 0
    assert end_of(machine) == expected
    machine.close()


#: Row, firmware, the policy that is disturbed, and how many forced moves there and back. Those that are not left to
#: `make soak` take 2 to 10 s of processor time.
TRIPS = (
    ("syslinux", "builtin", "emulated", 100),
    ("core.img", "builtin", "emulated", 100),
    ("core.img", "builtin", "native", 100),
    (NTLDR.name, "builtin", "emulated", 100),
    *(
        pytest.param(*row, 1000, marks=pytest.mark.soak)
        for row in (
            ("syslinux", "builtin", "emulated"), ("syslinux", "builtin", "native"),
            ("syslinux", "seabios", "emulated"), ("syslinux", "seabios", "native"),
            ("core.img", "builtin", "emulated"), ("core.img", "builtin", "native"),
            (NTLDR.name, "builtin", "emulated"), (NTLDR.name, "builtin", "native"),
            ("grub floppy", "builtin", "emulated"), ("memtest86+", "builtin", "emulated"),
            ("ipxe.lkrn", "seabios", "emulated"), ("linux 686", "none", "emulated"),
            ("linux amd64 on pc", "none", "emulated"),
        )
    ),
)  # fmt: skip


def _enterable(plain: BootMachine, end: int, numbers: random.Random, count: int) -> list[int]:
    """`count` places, drawn from a run up to instruction `end`, at which the state can be entered. They are drawn until
    there are so many, evenly over the run."""
    machine, found = plain.debugger.machine, set[int]()
    places = sorted(numbers.sample(range(1, end - 1000), min(DRAWN * count, end - 1001)))
    for place in places:
        assert machine.run(place).reason is MachineStop.LIMIT
        machine.service()
        state = machine.executor.state()
        if not state.smm and VTX2006.enterable(state, machine.memory.try_read):
            found.add(place)
    assert len(found) >= count, f"of {len(places)} places {len(found)} can be entered"
    return sorted(numbers.sample(sorted(found), count))


@pytest.fixture(scope="module")
def places_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, int], tuple[list[str], list[int], End]]:
    """Options of a row under a firmware, so many places at which its state can be entered with its end behind them, and
    what it is there without a hypervisor: each is looked for once."""

    @functools.cache
    def found(name: str, firmware: str, count: int) -> tuple[list[str], list[int], End]:
        boot = _row(name)
        options = options_for(boot, firmware, tmp_path_factory.mktemp("trips"))
        plain = machine_with(boot, options)
        plain.run()
        end = plain.retired - 1  # an instant of the guest's: the boot may end while it idles
        plain.close()
        plain = machine_with(boot, options)
        places = _enterable(plain, end, random.Random(count), count)
        plain.debugger.machine.run(end)
        expected = plain.debugger.fingerprint(), plain.screen
        plain.close()
        return options, [*places, end], expected

    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "firmware", "policy", "count"), TRIPS)
def test_round_trips_at_any_place_of_a_boot_change_nothing(
    name: str, firmware: str, policy: str, count: int,
    places_of: Callable[[str, str, int], tuple[list[str], list[int], End]],
) -> None:  # fmt: skip
    """A move to the other CPU and one back, of one instruction or some, as often as is said, wherever the state can be
    entered: to native execution where all is emulated, and to the emulator where the policy is to be native."""
    numbers = random.Random(f"{name} {policy} {count}")
    options, places, expected = places_of(name, firmware, count)
    held = machine_with(_row(name), options, "--hypervisor", "model", "--policy", policy)
    machine, transitions = held.debugger.machine, _transitions(held)
    moves = {True: 0, False: 0}
    for place, following in pairwise(places):
        assert machine.run(place).reason is MachineStop.LIMIT
        machine.service()
        state, native = transitions.state(), transitions.native
        assert not transitions.vcpu.refused(state)
        transitions.force(not native)
        assert transitions.native is not native
        assert transitions.state() == state
        moves[native] += 1
        machine.run(min(place + numbers.choice((1, 2, 100)), following))
        if not native or not transitions.vcpu.refused(transitions.state()):
            transitions.force(native)
            assert transitions.native is native
        transitions.force(None)
    assert sum(moves.values()) == count
    assert moves[False] == count if policy == "emulated" else moves[True] > count // 4
    machine.run(places[-1])
    assert (held.debugger.fingerprint(), held.screen) == expected
    held.close()
