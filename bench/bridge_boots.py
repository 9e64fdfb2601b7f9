"""Boots with interrupt controllers and timers in the hypervisor beside the same in userspace: exits, requests, seconds.

`python -m bench.bridge_boots [--kvm] [--seconds N] [NAME ...]`: rows of the table in tests/boots, each a process of its
own. A row that does not come to its event says why. Nothing is asserted. Needs a checkout, as the table is the tests'.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.boots import tests
from bench.sides import BenchError

#: Rows and the firmware of each, where no names are given.
ROWS = (("post", "seabios"), ("syslinux", "seabios"), ("core.img", "seabios"), ("linux 686", "seabios"))
MODEL = ("--hypervisor", "model")
#: Both places by one clock, that of the kernel's timers.
KVM = ("--hypervisor", "kvm", "--clock", "host")
POLICIES = ("native", "dwell:1000", "learn")
PLACES = ("userspace", "hypervisor")
SECONDS = 300.0


class Found(NamedTuple):
    """One run's ledger; `seconds` are those of the process."""

    exits: int
    hops: int
    requests: int
    inside: int
    cycles: int
    seconds: float


def measure(options: Sequence[str], event: str, budget: int, seconds: float) -> Found:
    """`v2e run` with these options to the event, within so many instructions and seconds. Raises BenchError with what
    came instead."""
    command = [sys.executable, "-m", "repl.cli", "run", *options, "--until", event, "--limit", str(budget)]
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            [*command, "--json", "-c", "ledger"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BenchError(f"did not come to {event} in {seconds:g} s") from None
    took = time.perf_counter() - begin
    if done.returncode not in (0, 1):
        said = done.stderr.strip().splitlines()
        raise BenchError(f"status {done.returncode}: {said[-1] if said else 'nothing was said'}")
    ledger = json.loads(done.stdout)["views"][0]
    exits = sum(count for _, count in ledger["exits"])
    return Found(exits, ledger["hops_in"], ledger["requests"], ledger["inside"], ledger["cycles"], took)


def lines(
    title: str, options: Sequence[str], event: str, budget: int, native: Sequence[str], seconds: float
) -> Iterator[str]:
    """Each policy and place of one boot on the hypervisor that `native` names."""
    for policy in POLICIES:
        for place in PLACES:
            head = f"{title:<22}{native[1]:<7}{policy:<12}{place:<12}"
            try:
                found = measure(
                    [*options, *native, "--policy", policy, "--devices-in", place], event, budget, seconds
                )  # fmt: skip
            except BenchError as error:
                yield f"{head}{error}"
                continue
            yield (
                f"{head}{found.exits:>9}{found.hops:>8}{found.requests:>10}{found.inside:>9}"
                f"{found.cycles / 1e6:>10.0f}{found.seconds:>9.1f}"
            )


def main(arguments: Sequence[str]) -> int:
    """Returns an exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.bridge_boots", description=__doc__)
    parser.add_argument("--kvm", action="store_true", help="on KVM, instead of the model")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="N", help="the longest that a row may take")
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows of the table (default: those of docs/bridge.md)")
    chosen = parser.parse_args(arguments)
    if (tried := tests()) is None:
        return 2
    table, machines, skipped = tried
    boots: dict[str, Any] = {boot.name: boot for boot in table.BOOTS}
    if unknown := set(chosen.names) - set(boots):
        print(f"bench: no boot is called {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    rows = [(name, boots[name].firmwares[0]) for name in chosen.names] or ROWS
    print(
        f"{'boot':<22}{'on':<7}{'policy':<12}{'devices in':<12}{'exits':>9}{'hops':>8}{'requests':>10}{'inside':>9}"
        f"{'Mcycles':>10}{'s':>9}"
    )
    for name, firmware in rows:
        boot, title = boots[name], f"{name} ({firmware})"
        with tempfile.TemporaryDirectory() as folder:
            try:
                options = machines.options_of(boot, firmware, Path(folder))
            except skipped as reason:
                print(f"{title:<22} {reason}")
                continue
            found = lines(
                title, options, boot.event, boot.budget * 1_000_000, KVM if chosen.kvm else MODEL, chosen.seconds
            )
            for line in found:
                print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
