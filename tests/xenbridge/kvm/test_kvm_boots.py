"""Real loaders and kernels boot under kvm to the event that they boot to without, as far as the host's KVM carries
them; what it does not carry is skipped, and says why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from boots.machines import walk
from boots.plain import machine_with, options_for
from boots.table import BOOTS, MILLION, Boot
from emu.x86.cpuid import MODELS
from repl.boot_machine import BootMachine
from shared import once
from xenbridge.kvm.backend import Backend, Kind
from xenbridge.kvm.probe import host_costs

pytestmark = pytest.mark.slow

POLICIES = ("native", "dwell:1000", "learn")
#: What `learn` goes by: of the host's own prices a KVM that executes slowly leaves nothing to learn.
PRICES = "exit=75000"
#: The longest that a boot may be native, in units of the row's budget at 100 ns an instruction.
PATIENCE = 10


class Row(NamedTuple):
    """A boot of the table. `slow`: the policies that are not left to `make soak`. `needs`: the kinds of state in which
    it does most of its work. `heavy`: the policies by which it executes a hundred million instructions and more
    natively. `rest`: the event, empty for the boot's own, behind which the screen stays as it is, so that it and COM1
    must be those of the emulator; None: what is shown is the time and the CPU's speed. `varies`: what of the screen's
    text is the time's, which is left out. What a boot `says` on COM1 must be the emulator's to the letter, the digest
    that a userspace computes too; of the rest that a kernel says there much is measured."""

    name: str
    firmware: str
    slow: tuple[str, ...] = ()
    needs: tuple[Kind, ...] = (Kind.REAL,)
    heavy: tuple[str, ...] = ()
    rest: str | None = None
    varies: str = ""


#: Behind the map of memory that its last command prints it prompts again.
SYSLINUX: Final = r"text:reserved[^$]*boot:\s*$"
#: The last line of GRUB's menu.
COUNTDOWN: Final = r"text:executed automatically in \d+s\."
#: It waits two seconds for the key.
IPXE: Final = r"text:Press Ctrl-B for the iPXE command line\.\.\."
#: The last that it shows before it tests, five seconds later; and the speeds that it has measured, of the CPU, its
#: caches and the memory, with the blanks that right-align them.
MEMTEST: Final = r"text:<Enter> to start testing"
SPEEDS: Final = r"(?<=CLK/Temp:) *[\d.]+ ?[MG]Hz *| +[\d.]+ [KMG]B/s *"
ROWS = (
    Row("post", "builtin", POLICIES, rest=""),
    Row("syslinux", "builtin", POLICIES, rest=SYSLINUX),
    Row("syslinux", "seabios", ("dwell:1000",), heavy=("native",), rest=SYSLINUX),
    Row("memdisk raw", "builtin", rest=""),
    Row("core.img", "builtin", rest=""),
    Row("grub floppy", "builtin", rest=COUNTDOWN, varies=r"in \d+s\."),
    Row("isolinux disk", "builtin", rest=""),
    Row("memtest86+", "builtin", needs=(Kind.COMPATIBILITY,), heavy=POLICIES, rest=MEMTEST, varies=SPEEDS),
    Row("ipxe.lkrn", "seabios", heavy=("native", "dwell:1000"), rest=IPXE),
    Row("linux 686", "none", needs=(Kind.PAGED32, Kind.PAGED32_RING3), heavy=POLICIES),
    Row("linux amd64 on pc", "none", needs=(Kind.LONG, Kind.LONG_RING3), heavy=POLICIES),
)


def _rows() -> list[object]:
    return [
        pytest.param(
            row, policy, id=f"{row.name} {row.firmware} {policy}", marks=[pytest.mark.soak] * (policy not in row.slow)
        )
        for row in ROWS
        for policy in POLICIES
    ]


def _shown(boot: Boot, row: Row, machine: BootMachine) -> tuple[object, ...]:
    """What must be the same whoever executes, behind the walk to the event and to the screen's rest."""
    walk(boot, machine)
    serial = machine.debugger.machine.serial_text()
    said = tuple(found[0] for found in (re.search(pattern, serial) for pattern in boot.says) if found is not None)
    if row.rest is None:
        return said
    if row.rest:
        machine.run(until=row.rest)
    if row.varies:
        return said, _lasting(row, machine.screen), machine.debugger.machine.serial_text()
    return said, machine.debugger.machine.screen(), machine.debugger.machine.serial_text()


def _lasting(row: Row, screen: str) -> str:
    """A screen's text without what is the time's."""
    return re.sub(row.varies, "", screen)


#: As the emulator has it.
MEMTEST_SCREEN: Final = """\
      Memtest86+ v6.10      │ Intel Core Processor (Haswell)
CLK/Temp: 1000MHz           │ Pass   %
L1 Cache:   32KB   781 MB/s │ Test   %
Memory  :   64MB   781 MB/s │ Pattern:
"""


@pytest.mark.parametrize(
    ("found", "other", "same"),
    [
        ("1000MHz ", " 998MHz ", True), ("1000MHz ", "2.80 GHz", True), ("  781 MB/s", " 12.4 GB/s", True),
        ("   64MB", "   63MB", False), ("Haswell", "Skylake", False), ("32KB", "48KB", False),
        ("│ Test", "│ Tset", False),
    ],
)  # fmt: skip
def test_of_memtest86_s_screen_the_speeds_are_left_out_and_nothing_else(found: str, other: str, same: bool) -> None:
    (row,) = (row for row in ROWS if row.name == "memtest86+")
    changed = MEMTEST_SCREEN.replace(found, other)
    assert changed != MEMTEST_SCREEN
    assert (_lasting(row, changed) == _lasting(row, MEMTEST_SCREEN)) is same


def _skip_what_it_does_not_carry(backend: Backend, row: Row, policy: str) -> None:
    missing = [kind.value for kind in row.needs if kind not in backend.runs]
    if missing:
        pytest.skip(f"{backend.name} does not run {' and '.join(missing)}, where this boot does its work")
    costs = host_costs(MODELS["max"])
    if policy in row.heavy and costs is not None and costs.native > costs.emulated:
        pytest.skip(
            f"{backend.name} takes {costs.native} cycles for an instruction and the emulator {costs.emulated}: "
            "the hundreds of millions that are native here would take minutes to hours"
        )


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("row", "policy"), _rows())
def test_a_boot_comes_as_far_as_without(
    backend: Backend, row: Row, policy: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _skip_what_it_does_not_carry(backend, row, policy)
    boot = next(one for one in BOOTS if one.name == row.name)
    plain, expected = once(tmp_path_factory, f"shown, {row}", lambda folder: _plain(boot, row, folder))
    options = [*plain, "--hypervisor", "kvm", "--policy", policy]
    if policy == "learn":
        options += ["--costs", PRICES]
    machine = BootMachine(options, until=boot.event, limit=PATIENCE * boot.budget * MILLION)
    shown = _shown(boot, row, machine)
    transitions = machine.debugger.machine.transitions
    assert transitions is not None and transitions.ledger.hops_in > 0
    machine.close()
    assert shown == expected


def _plain(boot: Boot, row: Row, folder: Path) -> tuple[list[str], tuple[object, ...]]:
    """Options of the row, and what must be the same, of the boot without a hypervisor; one boot for all policies."""
    options = options_for(boot, row.firmware, folder)
    emulated = machine_with(boot, options)
    shown = _shown(boot, row, emulated)
    emulated.close()
    return options, shown
