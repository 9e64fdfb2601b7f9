"""`python -m bench.turns`: gdb's steps and watchpoint hits, sessions held open side by side and asked in turns, by the
processor time of gdb and of the stub, which a busy host changes less than the clock.

Another version of v2e, in a folder of its own, is one more side: its name is the folder. With `--helper` the gdbs of
v2e have its helper, each that of its own version.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import gdb_figures, guests
from bench.sides import BenchError, Qemu, Side, V2e
from stub.gdb import helper_path

ROOT = Path(__file__).resolve().parent.parent

#: What is done at the prompt, by its name: before it is timed, how often in a turn, and how gdb is asked for so many.
KINDS = {
    "stepi": ("", 50, "for _ in range({n}): gdb.execute('stepi', to_string=True)"),
    "stepi N": ("", 150, "gdb.execute('stepi {n}', to_string=True)"),
    "watch": (
        f"watch *(int *){guests.COUNTER_ADDRESS:#x}",
        50,
        "for _ in range({n}): gdb.execute('continue', to_string=True)",
    ),
}


class Elsewhere(V2e):
    """The v2e in a folder."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        object.__setattr__(self, "name", folder)

    @property
    def environment(self) -> dict[str, str]:
        """That of its programs, which find its modules first."""
        return {**super().environment, "PYTHONPATH": str(Path(self.name).absolute()), "PYTHONSAFEPATH": "1"}


def helper_of(side: Side) -> str:
    """What has gdb load the side's helper, if it has one."""
    if isinstance(side, Elsewhere):
        return f"source {Path(side.name).absolute() / helper_path().relative_to(ROOT)}\n"
    return f"source {helper_path()}\n" if isinstance(side, V2e) else ""


def processor_time(pid: int) -> float:
    """Of all its threads, us (the first number of /proc/PID/task/TID/schedstat)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e3


class Session:
    """A gdb at a side's loop, which does what it is told by a pipe."""

    def __init__(self, name: str, gdb: subprocess.Popen[str], pid: int) -> None:
        self.name, self._gdb, self._pid = name, gdb, pid
        self.samples: list[tuple[float, float, float]] = []

    def turn(self, command: str, count: int) -> tuple[float, float, float]:
        """us each, of `count`: of the clock, of gdb, of the stub."""
        assert self._gdb.stdin is not None and self._gdb.stdout is not None
        gdb, stub, begin = processor_time(self._gdb.pid), processor_time(self._pid), time.perf_counter()
        self._gdb.stdin.write(f"python {command}\necho DONE\\n\n")
        self._gdb.stdin.flush()
        while (line := self._gdb.stdout.readline()) != "DONE\n":
            if not line:
                raise BenchError(f"gdb ended before {self.name} was measured")
        seconds = time.perf_counter() - begin
        gdb, stub = processor_time(self._gdb.pid) - gdb, processor_time(self._pid) - stub
        return seconds * 1e6 / count, gdb / count, stub / count


@contextlib.contextmanager
def session(side: Side, folder: Path, prepare: str, *, helped: bool = False) -> Iterator[Session]:
    """At the loop of the boot sector; `helped`: with the helper."""
    with side.serve("seabios", guests.loop_disk(folder / "loop.img")) as served:
        gdb = subprocess.Popen(
            ["gdb", "-q", "-nx"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert gdb.stdin is not None
            gdb.stdin.write("set prompt\nset pagination off\nset confirm off\nset width 0\n")
            gdb.stdin.write(helper_of(side) if helped else "")
            gdb.stdin.write(f"{gdb_figures.TO_LOOP.format(address=served.address)}{prepare}\n")
            yield Session(side.name, gdb, served.pid)
        finally:
            gdb.kill()
            gdb.communicate()


def main() -> int:
    """Returns an exit status: 0, or 2 when something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.turns", description=__doc__)
    parser.add_argument("folders", nargs="*", help="folders with other versions of v2e, built")
    parser.add_argument("--turns", type=int, default=15, metavar="N", help="turns of each side (default 15)")
    parser.add_argument("--only", choices=tuple(KINDS), help="this alone")
    parser.add_argument("--helper", action="store_true", help="load v2e's helper in its gdbs")
    options = parser.parse_args()
    sides: list[Side] = [*map(Elsewhere, options.folders), V2e(), Qemu()]
    print(
        f"{'us each, median (a tenth is below)':<42}{'clock':>14}{'gdb':>14}{'stub':>14}{'both':>14}{'QEMU/both':>12}"
    )
    try:
        for kind in [options.only] if options.only else KINDS:
            prepare, count, command = KINDS[kind]
            command = command.format(n=count)
            with contextlib.ExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="v2e-bench-")))
                sessions = [
                    stack.enter_context(session(side, folder, prepare, helped=options.helper)) for side in sides
                ]
                for one in sessions:
                    one.turn(command, count)  # what is made once is made
                for _ in range(max(1, options.turns)):
                    for one in sessions:
                        one.samples.append(one.turn(command, count))
            _show(kind, sessions)
    except (BenchError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


def _show(kind: str, sessions: list[Session]) -> None:
    def both(one: Session) -> float:
        return statistics.median(gdb + stub for _, gdb, stub in one.samples)

    for one in sessions:
        columns = [*zip(*one.samples, strict=True), [gdb + stub for _, gdb, stub in one.samples]]
        cells = "".join(
            f"{f'{statistics.median(column):.0f} ({sorted(column)[len(column) // 10]:.0f})':>14}" for column in columns
        )
        name = os.path.basename(one.name.rstrip("/")) if "/" in one.name else one.name
        print(f"{kind:<12}{name:<30}{cells}{both(sessions[-1]) / both(one):>11.2f}x", flush=True)


if __name__ == "__main__":
    sys.exit(main())
