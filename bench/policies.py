"""What policies cost: `python -m bench.policies [NAME ...]`, a table for each workload, and a plot of cost against N.

Each workload runs under the reference hypervisor by each policy, in this process: a whole boot, or its first so many
instructions where the table says so. The exits of the native run are taken down, and replayed for every fixed dwell and
for a clairvoyant (docs/policies.md); all else are runs. Costs are the ledger's, so they are the same on every machine;
the seconds, of processor time, are this one's. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import guests, loaders
from bench.assets import AssetMissing, linux
from bench.initramfs import userspace
from bench.kernels import APPEND, PC_APPEND
from bench.traces import LIMIT, Hindsight, Recorder, Run, hindsight, run
from emu.debugger import StopKind
from emu.firmware.roms import FirmwareError
from repl.curves import Curve, write_curves
from repl.harness import HarnessError, assemble
from repl.plots import PlotError

HERE = Path(__file__).parent
IMAGES = HERE.parent / "tests" / "images"
NTLDR_BYTES = 20 * 16 * 63 * 512  #: of a geometry that all BIOSes agree on
FLOPPY_BYTES, DISK_BYTES = 1440 << 10, 4 << 20
FLOPPY_SECTORS, DISK_SECTORS, PIO_SECTORS = 72, 256, 1024
#: iPXE has made 400,000 polls of the PIT by then, by which it calibrates its clock; five millions more are to come.
IPXE_FIRST = 180_000_000
#: The 64-bit kernel decompresses itself for 4,500 million instructions; then come its devices.
AMD64_FIRST = 4_650_000_000
MILLION = 1e6


@dataclass(frozen=True)
class Workload:
    """`options(folder)` makes its guest and gives the words of `v2e run`; it has run at the event `until`, or, where
    there is `first`, behind so many instructions."""

    name: str
    options: Callable[[Path], list[str]]
    until: str = "exit"
    first: int | None = None

    @property
    def length(self) -> str:
        """How much of it is run, in words."""
        return "whole" if self.first is None else f"first {self.first / MILLION:,.6g} million instructions"


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


def _linux_amd64(folder: Path) -> list[str]:
    files, initrd = linux("amd64"), folder / "initrd"
    initrd.write_bytes(userspace(files.busybox.read_bytes()))
    words = ["--machine", "pc", "--memory", "256M", "--kernel", str(files.kernel), "--initrd", str(initrd)]
    return [*words, "--append", PC_APPEND]


def _floppy(firmware: str, build: Callable[[Path], Path], folder: Path) -> list[str]:
    image = build(folder / f"{build.__name__}.img")
    return ["--machine", "isapc", "--firmware", firmware, "--floppy", str(image)]


def _grub(folder: Path) -> list[str]:
    return ["--machine", "isapc", "--firmware", "builtin", "--disk", str(loaders.core_disk(folder / "core.img"))]


def _syslinux(firmware: str) -> Callable[[Path], list[str]]:
    return lambda folder: _floppy(firmware, loaders.prompt_floppy, folder)


def _memtest(folder: Path) -> list[str]:
    return _floppy("builtin", lambda out: loaders.memtest(), folder)


WORKLOADS = (
    Workload("tour", lambda folder: []),
    Workload("NTLDR-like loader", _ntldr_like),
    Workload("SYSLINUX, SeaBIOS", _syslinux("seabios"), "text:boot:"),
    Workload("SYSLINUX, built-in BIOS", _syslinux("builtin"), "text:boot:"),
    Workload("GRUB to its shell", _grub, "text:GNU GRUB[^$]*grub>$"),
    Workload("memtest86+ to its screen", _memtest, "text:Memtest86\\+ v6"),
    Workload("iPXE", lambda folder: _floppy("seabios", loaders.ipxe_floppy, folder), first=IPXE_FIRST),
    Workload("Linux 686 to its first text", _linux, "serial:Linux version"),
    Workload("Linux amd64", _linux_amd64, first=AMD64_FIRST),
    Workload("IDE PIO boot", lambda folder: _load("disk", DISK_SECTORS, DISK_BYTES, folder)),
    Workload("IDE PIO loader", _pio),
    Workload("INT 13h floppy boot", lambda folder: _load("floppy", FLOPPY_SECTORS, FLOPPY_BYTES, folder)),
    Workload("SeaBIOS POST", _post, "pc:0x7c00"),
    Workload("planar VGA fill", lambda folder: _rom("planar", folder)),
    Workload("phased", lambda folder: _rom("phased", folder)),
    Workload("PIT polling", lambda folder: _rom("pit", folder)),
    Workload("serial output", lambda folder: _rom("serial", folder)),
)
SUMMARY = (
    "workload", "run", "exits if native", "native", "dwell:100", "best fixed N", "emulated", "learn", "learn / best",
    "best replayed", "clairvoyant",
)  # fmt: skip
COLUMNS = ("exits", "hops", "emulated", "native", "Mcycles", "to best N", "seconds")


def policy_of(dwell: int) -> str:
    """The word of a fixed dwell; none at all is native, and one that no gap is longer than emulated."""
    if dwell == 0:
        return "native"
    return f"dwell:{dwell}" if dwell <= 1_000_000_000 else "emulated"


def measure(workload: Workload, folder: Path) -> tuple[Hindsight, list[Run]]:
    """The workload under native, some fixed dwells, emulated, and learn; each with the same result and to the end that
    is meant, or an AssertionError. Of the dwells the cheapest has been run with half and twice it."""
    options = workload.options(folder)
    recorder = Recorder()
    limit = workload.first or LIMIT
    native = run(options, workload.until, "native", recorder, limit=limit)
    if (native.stop.kind is StopKind.LIMIT) is not (workload.first is not None):
        raise AssertionError(f"{workload.name} ends with: {native.stop.text}")
    seen = hindsight(recorder, native.ledger)
    done = {"native": native}

    def under(policies: Iterable[str]) -> None:
        for policy in policies:
            if policy not in done:
                done[policy] = run(options, workload.until, policy, limit=limit)

    under(("dwell:100", policy_of(seen.best // 2), policy_of(seen.best), policy_of(2 * seen.best), "emulated"))
    while any(policy not in done for policy in beside(cheapest([*done.values()]))):
        under(beside(cheapest([*done.values()])))
    under(("learn",))
    for one in done.values():
        if one.fingerprint != native.fingerprint:
            raise AssertionError(f"{workload.name} comes to another result under {one.policy}")
    return seen, sorted(done.values(), key=_place)


def _place(one: Run) -> tuple[int, int]:
    """In a table: by the dwell, and learn last."""
    order = {"native": 0, "emulated": 2, "learn": 3}
    return order.get(one.policy, 1), dwell_of(one.policy) or 0


def dwell_of(policy: str) -> int | None:
    """Of a policy with a number; None: another one."""
    return int(policy.removeprefix("dwell:")) if policy.startswith("dwell:") else None


def beside(one: Run) -> tuple[str, ...]:
    """The policies of half and twice its dwell, if it has a number."""
    dwell = dwell_of(one.policy)
    return () if dwell is None else (policy_of(dwell // 2), policy_of(2 * dwell))


def cheapest(runs: Sequence[Run]) -> Run:
    """Of those with a fixed dwell."""
    return min((one for one in runs if one.policy != "learn"), key=lambda one: one.ledger.cycles)


def lines(workload: Workload, seen: Hindsight, runs: Sequence[Run]) -> list[str]:
    """The workload's table."""
    fixed = cheapest(runs)
    best, least = fixed.policy, fixed.ledger.cycles
    header = "".join(f"{column:>12}" for column in COLUMNS)
    rows = [f"{workload.name} ({workload.length}): {seen.touches} exits where native", f"{'':16}{header}"]
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


def summary(rows: Sequence[tuple[Workload, Hindsight, Sequence[Run]]]) -> list[str]:
    """The table of all workloads, as docs/policies.md has it: a row each, in million cycles."""
    table = ["| " + " | ".join(SUMMARY) + " |", "|---" * len(SUMMARY) + "|"]
    for workload, seen, runs in rows:
        costs = {one.policy: one.ledger.cycles for one in runs}
        fixed = cheapest(runs)
        dwell = {"native": "0", "emulated": "no end"}.get(fixed.policy, fixed.policy.removeprefix("dwell:"))
        native, hundred, best, emulated, learn, replayed, least = (
            f"{cycles / MILLION:,.{1 if cycles >= 10 * MILLION else 2}f}"
            for cycles in (
                costs["native"], costs["dwell:100"], fixed.ledger.cycles, costs["emulated"], costs["learn"],
                seen.best_cost, seen.clairvoyant,
            )
        )  # fmt: skip
        ratio = f"{costs['learn'] / fixed.ledger.cycles:.3f}"
        cells = (
            workload.name, workload.length, f"{seen.touches:,}", native, hundred, f"{best} ({dwell})", emulated, learn,
            ratio, f"{replayed} ({seen.best})", least,
        )  # fmt: skip
        table.append("| " + " | ".join(cells) + " |")
    return table


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
    rows = []
    with tempfile.TemporaryDirectory(prefix="v2e-bench-") as folder:
        for workload in chosen:
            try:
                seen, runs = measure(workload, Path(folder))
            except (HarnessError, FirmwareError, AssetMissing) as missing:
                print(f"bench: {workload.name} is left out: {missing}", file=sys.stderr)
                continue
            print("\n".join(lines(workload, seen, runs)), "\n", sep="", flush=True)
            rows.append((workload, seen, runs))
    print("\n".join(summary(rows)))
    if options.plot is not None and rows:
        try:
            write_curves([curve(*row) for row in rows], options.plot)
        except PlotError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
