"""What policies cost: `python -m bench.policies [NAME ...]`, a table for each workload, and a plot of cost against N.

Each workload runs under the reference hypervisor by each policy, in this process. Its exits are taken down once, and
replayed for every fixed dwell and for a clairvoyant (docs/policies.md). Costs are the ledger's, so they are the same on
every machine; the seconds, of processor time, are this one's. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import guests
from bench.assets import AssetMissing, linux
from bench.kernels import APPEND
from bench.traces import Hindsight, Recorder, Run, hindsight, run
from emu.firmware.roms import FirmwareError
from repl.curves import Curve, write_curves
from repl.harness import MissingTool, assemble
from repl.plots import PlotError

HERE = Path(__file__).parent
IMAGES = HERE.parent / "tests" / "images"
NTLDR_BYTES = 20 * 16 * 63 * 512  #: of a geometry that all BIOSes agree on
FLOPPY_BYTES, DISK_BYTES = 1440 << 10, 4 << 20
FLOPPY_SECTORS, DISK_SECTORS, PIO_SECTORS = 72, 256, 1024
MILLION = 1e6


@dataclass(frozen=True)
class Workload:
    """`options(folder)` makes its guest and gives the words of `v2e run`; it has run at the event `until`."""

    name: str
    options: Callable[[Path], list[str]]
    until: str = "exit"


def _rom(work: str, folder: Path) -> list[str]:
    source = folder / f"{work}.asm"
    source.write_text(f'%define WORK {work}\n%include "policies.asm"\n')
    return ["--machine", "isapc", "--firmware", str(assemble(source, folder / f"{work}.rom", (HERE,)))]


def _load(drive: str, sectors: int, size: int, folder: Path) -> list[str]:
    source = folder / f"{drive}.asm"
    source.write_text(f'%define DRIVE {drive}\nSECTORS equ {sectors}\nSIZE equ {size}\n%include "load.asm"\n')
    image = assemble(source, folder / f"{drive}.img", (HERE,))
    return ["--machine", "isapc", "--firmware", "seabios", f"--{drive}", str(image)]


def _post(folder: Path) -> list[str]:
    return ["--machine", "isapc", "--firmware", "seabios", "--disk", str(guests.exit_disk(folder / "exit.img"))]


def _pio(folder: Path) -> list[str]:
    disk = guests.blank_disk(folder / "blank.img", PIO_SECTORS)
    return [*_rom("pio", folder), "--disk", str(disk)]


def _ntldr_like(folder: Path) -> list[str]:
    image = assemble(IMAGES / "ntldr_like.asm", folder / "ntldr_like.img")
    image.write_bytes(image.read_bytes().ljust(NTLDR_BYTES, b"\0"))
    return ["--disk", str(image)]


def _linux(folder: Path) -> list[str]:
    return ["--machine", "isapc", "--kernel", str(linux("i386").kernel), "--append", APPEND]


WORKLOADS = (
    Workload("tour", lambda folder: []),
    Workload("NTLDR-like loader", _ntldr_like),
    Workload("Linux 686 to its first text", _linux, "serial:Linux version"),
    Workload("IDE PIO boot", lambda folder: _load("disk", DISK_SECTORS, DISK_BYTES, folder)),
    Workload("IDE PIO loader", _pio),
    Workload("INT 13h floppy boot", lambda folder: _load("floppy", FLOPPY_SECTORS, FLOPPY_BYTES, folder)),
    Workload("SeaBIOS POST", _post, "pc:0x7c00"),
    Workload("planar VGA fill", lambda folder: _rom("planar", folder)),
    Workload("phased", lambda folder: _rom("phased", folder)),
    Workload("PIT polling", lambda folder: _rom("pit", folder)),
    Workload("serial output", lambda folder: _rom("serial", folder)),
)
COLUMNS = ("exits", "hops", "emulated", "native", "Mcycles", "to best N", "seconds")


def policy_of(dwell: int) -> str:
    """The word of a fixed dwell; none at all is native, and one that no gap is longer than emulated."""
    if dwell == 0:
        return "native"
    return f"dwell:{dwell}" if dwell <= 1_000_000_000 else "emulated"


def measure(workload: Workload, folder: Path) -> tuple[Hindsight, list[Run]]:
    """The workload under native, some fixed dwells, those around the best of them, emulated, and learn; each with the
    same result, or an AssertionError."""
    options = workload.options(folder)
    recorder = Recorder()
    native = run(options, workload.until, "native", recorder)
    seen = hindsight(recorder, native.ledger)
    around = sorted({seen.best, seen.best // 2, 2 * seen.best})
    policies = dict.fromkeys(("native", "dwell:100", *map(policy_of, around), "emulated", "learn"))
    runs = [run(options, workload.until, policy) for policy in policies]
    for one in runs:
        if one.fingerprint != native.fingerprint:
            raise AssertionError(f"{workload.name} comes to another result under {one.policy}")
    return seen, runs


def lines(workload: Workload, seen: Hindsight, runs: Sequence[Run]) -> list[str]:
    """The workload's table."""
    cheapest = min((one for one in runs if one.policy != "learn"), key=lambda one: one.ledger.cycles)
    best, least = cheapest.policy, cheapest.ledger.cycles
    header = "".join(f"{column:>12}" for column in COLUMNS)
    rows = [f"{workload.name + ': ' + str(seen.touches) + ' exits where native':<40}", f"{'':16}{header}"]
    for one in runs:
        ledger = one.ledger
        hops = ledger.hops_in + ledger.hops_out
        mark = "*" if one.policy == best else " "
        rows.append(
            f"{one.policy:<15}{mark}{sum(ledger.exits.values()):>12}{hops:>12}{ledger.emulated:>12}{ledger.native:>12}"
            f"{ledger.cycles / MILLION:>12.2f}{ledger.cycles / least:>11.3f}x{one.seconds:>12.2f}"
        )
    rows.append(f"{'clairvoyant':<16}{'':48}{seen.clairvoyant / MILLION:>12.2f}{seen.clairvoyant / least:>11.3f}x")
    return rows


def curve(workload: Workload, seen: Hindsight, runs: Sequence[Run]) -> Curve:
    """Cost against N of the workload, with learn's line."""
    learned = next(one for one in runs if one.policy == "learn").ledger.cycles
    points = tuple((dwell, cost / MILLION) for dwell, cost in seen.curve if dwell <= 1 << 20)
    marks = (("learn", learned / MILLION), ("clairvoyant", seen.clairvoyant / MILLION))
    return Curve(workload.name, "N, instructions emulated behind an exit", "cost, million cycles", points, marks)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns an exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.policies", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only workloads whose name contains NAME")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the curves of cost against N as PNG")
    options = parser.parse_args(arguments)
    chosen = [one for one in WORKLOADS if not options.names or any(name in one.name for name in options.names)]
    if not chosen:
        parser.error(f"no workload is called so: {', '.join(one.name for one in WORKLOADS)}")
    curves = []
    with tempfile.TemporaryDirectory(prefix="v2e-bench-") as folder:
        for workload in chosen:
            try:
                seen, runs = measure(workload, Path(folder))
            except (MissingTool, FirmwareError, AssetMissing) as missing:
                print(f"bench: {workload.name} is left out: {missing}", file=sys.stderr)
                continue
            print("\n".join(lines(workload, seen, runs)), "\n", sep="", flush=True)
            curves.append(curve(workload, seen, runs))
    if options.plot is not None and curves:
        try:
            write_curves(curves, options.plot)
        except PlotError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
