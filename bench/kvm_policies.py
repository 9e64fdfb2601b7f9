"""Policies on this host's KVM: `python -m bench.kvm_policies [NAME ...]`, a table for each workload.

Each policy goes by the host's own prices, which `--hypervisor kvm` measures before a run; `learn` by those of the
reference hypervisor too, where a native instruction is the cheaper one whatever this KVM takes for it. Seconds are this
host's, of processor time and by the clock, each the least of some runs in turns. What the guest shows and sends has to
be what it is without a hypervisor.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.policies import WORKLOADS, Workload
from emu.debugger import Debugger
from emu.engine import EngineError
from emu.ledger import Ledger
from emu.machine import build_machine
from emu.until import parse_until
from repl.cli import run_parser
from repl.machine_options import machine_config

NAMES = ("tour", "NTLDR-like loader", "SYSLINUX, built-in BIOS", "SYSLINUX, SeaBIOS")
#: The reference hypervisor's prices, in the words of `--costs`.
REFERENCE = "exit=75000"
#: The words of each row behind `v2e run`; the first is what the others are compared with.
ROWS: dict[str, tuple[str, ...]] = {
    "no hypervisor": (),
    "emulated": ("--hypervisor", "kvm", "--policy", "emulated"),
    "dwell:10000": ("--hypervisor", "kvm", "--policy", "dwell:10000"),
    "dwell:1000": ("--hypervisor", "kvm", "--policy", "dwell:1000"),
    "dwell:100": ("--hypervisor", "kvm", "--policy", "dwell:100"),
    "native": ("--hypervisor", "kvm", "--policy", "native"),
    "learn": ("--hypervisor", "kvm", "--policy", "learn"),
    "learn, reference prices": ("--hypervisor", "kvm", "--policy", "learn", "--costs", REFERENCE),
}
LIMIT = 400_000_000  #: emulated instructions
LONGEST_NS = 300_000_000_000  #: of native execution
SLOW = 3.0  #: s; what takes longer is run once
COLUMNS = ("exits", "hops", "emulated", "Mcycles", "CPU s", "s", "outcome")


class Ran(NamedTuple):
    """A run: its ledger (None without a hypervisor), seconds of processor time and by the clock, what was shown and
    sent and what kind of end it came to, and that end in words."""

    ledger: Ledger | None
    cpu: float
    wall: float
    outcome: tuple[str, str, str]
    end: str


def run(workload: Workload, options: Sequence[str], words: Sequence[str]) -> Ran:
    """The workload of these `options` by a row's words. Raises EngineError where there is no KVM."""
    config = machine_config(run_parser().parse_args([*words, *options]))
    debugger = Debugger(build_machine(config))
    machine = debugger.machine
    try:
        debugger.set_until(parse_until(workload.until))
        debugger.set_limit(LIMIT)
        machine.native_limit = LONGEST_NS  # the limit has set another
        debugger.begin_continue()
        wall, cpu = time.perf_counter(), time.process_time()
        stop = debugger.run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        ledger = None if machine.transitions is None else machine.transitions.ledger
        # An event is met somewhere in a loop that waits: only what kind of end it was is the guest's.
        return Ran(ledger, cpu, wall, (machine.screen().text, machine.serial_text(), stop.kind.name), stop.text)
    finally:
        machine.close()


def measure(workload: Workload, folder: Path, turns: int) -> dict[str, Ran]:
    """Each row, with the least seconds of its turns."""
    options, found = workload.options(folder), dict[str, Ran]()
    for _ in range(turns):
        for name, words in ROWS.items():
            before = found.get(name)
            if before is not None and before.wall > SLOW:
                continue
            one = run(workload, options, words)
            if before is not None:
                one = one._replace(cpu=min(one.cpu, before.cpu), wall=min(one.wall, before.wall))
            found[name] = one
    return found


def lines(workload: Workload, found: dict[str, Ran]) -> list[str]:
    """The workload's table, as docs/kvm.md has it."""
    rows = [f"| {workload.name} | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    first = next(iter(found.values()))
    for name, one in found.items():
        ledger, same = one.ledger, "the same" if one.outcome == first.outcome else f"ANOTHER: {one.end}"
        counts = ["", "", "", ""]
        if ledger is not None:
            exits, cycles = sum(ledger.exits.values()), ledger.cost / 1e6
            counts = [f"{exits:,}", f"{ledger.hops:,}", f"{ledger.emulated:,}", f"{cycles:,.1f}"]
        rows.append("| " + " | ".join([name, *counts, f"{one.cpu:.2f}", f"{one.wall:.2f}", same]) + " |")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns an exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.kvm_policies", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only workloads whose name contains NAME: {NAMES}")
    parser.add_argument("--turns", type=int, default=3, help="runs of each policy")
    options = parser.parse_args(arguments)
    chosen = [
        one
        for one in WORKLOADS
        if one.name in NAMES and (not options.names or any(name in one.name for name in options.names))
    ]
    with tempfile.TemporaryDirectory(prefix="v2e-bench-") as folder:
        for workload in chosen:
            try:
                found = measure(workload, Path(folder), options.turns)
            except EngineError as missing:
                print(f"bench: {missing}", file=sys.stderr)
                return 2
            print("\n".join(lines(workload, found)), "\n", sep="", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
