"""`python -m bench`: measures every figure on both sides and prints the table."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bench import loops, raw_figures, requests, udbserver
from bench.figures import FIGURES, Figure, start_up
from bench.sides import BenchError, FigureUnavailable, Side, sides

#: Exit statuses, as those of `v2e`: 0 all was measured, 2 wrong usage or a missing program.
MEASURED, UNUSABLE = 0, 2


def sample(figure: Figure, sides: Sequence[Side], repetitions: int, folder: Path) -> dict[str, list[float]]:
    """`repetitions` samples of each side, in turns, so that a busy host hits both."""
    values: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in range(repetitions):
        for side in sides:
            values[side.name].append(figure.measure(side, folder))
    return values


def row(figure: Figure | raw_figures.RawFigure, medians: dict[str, float]) -> str:
    """One line of the table: the medians, v2e's as a multiple of QEMU's, and that of QEMU's deterministic mode."""
    both = [medians[name] for name in ("v2e", "QEMU") if name in medians]
    cells = f"{figure.name:<36}{figure.unit:>8}" + "".join(f"{value:>11.4g}" for value in both)
    ratio = f"{both[0] / both[1]:>9.2f}x" if len(both) == 2 else ""
    others = [f"QEMU -icount shift=0: {medians['icount']:.4g}"] if "icount" in medians else []
    others += [f"udbserver: {medians['udbserver']:.4g}"] if "udbserver" in medians else []
    more = f" ({', '.join(others)} {figure.unit})" if others else ""
    return f"{cells}{ratio}{more}  {'more' if figure.higher_is_better else 'less'} is better{_aim(figure)}"


def _aim(figure: Figure | raw_figures.RawFigure) -> str:
    return f"; aim: {figure.aim}" if figure.aim else ""


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(UNUSABLE, f"v2e bench: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns an exit status."""
    parser = _Parser(prog="v2e bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="samples of each figure (default 5)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only figures whose name contains TEXT")
    parser.add_argument("--json", action="store_true", help="print the samples as JSON")
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error(f"--runs {options.runs}: 1 is the least")
    chosen = [figure for figure in FIGURES if options.only in figure.name]
    chosen_raw = [figure for figure in raw_figures.FIGURES if options.only in figure.name]
    chosen_loops = [loop for loop in loops.LOOPS if options.only in loop.name]
    posting = options.only in requests.NAME
    if not chosen and not chosen_raw and not chosen_loops and not posting:
        names = ", ".join((*(f.name for f in (*FIGURES, *raw_figures.FIGURES, *loops.LOOPS)), requests.NAME))
        parser.error(f"--only {options.only!r} matches no figure: {names}")
    if shutil.which("gdb") is None:
        print("bench: gdb is not installed (Debian: apt-get install gdb)", file=sys.stderr)
        return UNUSABLE
    both = shutil.which("qemu-system-i386") is not None
    if not both:
        print("bench: QEMU is not installed (Debian: apt-get install qemu-system-x86): v2e alone", file=sys.stderr)
    measured = sides(("v2e", "qemu") if both else ("v2e",))
    running = (*measured, *sides(("icount",))) if both else measured
    third: tuple[Side, ...] = ()
    if chosen_raw or any(figure.udbserver for figure in chosen):
        try:
            third = (udbserver.side(),)
        except FigureUnavailable as missing:
            print(f"bench: no figures of udbserver: {missing}", file=sys.stderr)
    results = []
    if not options.json:
        names = "".join(f"{side.name:>11}" for side in measured)
        print(f"{f'median of {options.runs}':<36}{'unit':>8}{names}{'ratio' if both else '':>10}")
    try:
        with tempfile.TemporaryDirectory(prefix="v2e-bench-") as folder:
            for side in measured:
                start_up(side, Path(folder))  # not counted: brings programs and their files into memory
            for figure in chosen:
                try:
                    by = running if figure.icount else (*measured, *third) if figure.udbserver else measured
                    samples = sample(figure, by, options.runs, Path(folder))
                except FigureUnavailable as missing:
                    print(f"bench: {figure.name} is left out: {missing}", file=sys.stderr)
                    continue
                results.append({"name": figure.name, "unit": figure.unit, "samples": samples})
                if not options.json:
                    medians = {name: statistics.median(values) for name, values in samples.items()}
                    print(row(figure, medians), flush=True)
            for raw, samples in raw_figures.samples(chosen_raw, (*measured, *third), options.runs, Path(folder)):
                results.append({"name": raw.name, "unit": raw.unit, "samples": samples})
                if not options.json:
                    print(row(raw, {name: statistics.median(v) for name, v in samples.items()}), flush=True)
            if chosen_loops and not options.json:
                print(f"loops, beside {', '.join(side.name for side in running[1:]) or 'nothing'}")
            for loop in chosen_loops:
                samples = loops.sample(loop, running, options.runs, Path(folder))
                results.append({"name": loop.name, "unit": "MIPS", "samples": samples})
                if not options.json:
                    print(loops.row(loop, samples), flush=True)
            if posting:
                rates = [requests.rate() for _ in range(options.runs)]
                results.append({"name": requests.NAME, "unit": "1/s", "samples": {"v2e": rates}})
                if not options.json:
                    print(requests.row(rates, statistics.median(rates)), flush=True)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return UNUSABLE
    if options.json:
        print(json.dumps(results, indent=1))
    return MEASURED


if __name__ == "__main__":
    sys.exit(main())
