"""What a person does in gdb, timed inside a real gdb: attach, step, breakpoints, watchpoints, memory.

A stock gdb (`-nx`, no helper) on both sides, but for the figures that say so."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from bench import guests
from bench.sides import BenchError, FigureUnavailable, Side
from repl.harness import MissingTool
from stub.gdb import helper_path

DUMP_BYTES = 64 << 20
#: All but the first MiB and the last, of which parts are not RAM or the guest's own.
RESTORED_BYTES = 62 << 20
RESTORED_AT = 0x100000
STEPS, SINGLE_STEPS = 1000, 300
HITS, WATCH_HITS = 1000, 300
#: Hits of a breakpoint whose condition does not hold; the stub's own evaluation makes more of them in a second.
CONDITION_HITS, FAST_CONDITION_HITS = 500, 20_000
#: `find` looks for a pattern that is nowhere in so many bytes, where the guest never writes.
FIND_BYTES = 16 << 20
GDB_SECONDS = 300


def in_gdb(address: str, folder: Path, prepare: str, timed: str, amount: float) -> tuple[float, float]:
    """Run gdb in batch mode; returns (seconds that `timed` took inside gdb, amount a second)."""
    script = folder / "bench.gdb"
    script.write_text(
        "set pagination off\nset confirm off\nset width 0\n"
        f"{prepare.format(address=address)}\n"
        "python\nimport gdb, time\nbegin = time.perf_counter()\n"
        f"{timed.format(address=address)}\n"
        "print('SECONDS', time.perf_counter() - begin)\nend\nkill\n"
    )
    command = ["gdb", "-q", "-nx", "-batch", "-x", str(script)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=GDB_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"gdb was not done in {GDB_SECONDS} s") from None
    found = re.search(r"^SECONDS (\S+)$", done.stdout, re.MULTILINE)
    if found is None:
        raise BenchError(f"gdb did not finish: {(done.stdout + done.stderr).strip()[-400:]}")
    seconds = float(found[1])
    return seconds, amount / seconds


#: To the loop of the boot sector, as a user would.
TO_BOOT = f"target remote {{address}}\nbreak *{guests.BOOT_ADDRESS:#x}\ncontinue\ndelete\n"
TO_LOOP = f"{TO_BOOT}stepi 3\n"


def attach(side: Side, folder: Path) -> float:
    """`target remote` at reset, ms."""
    with side.serve("seabios", None) as served:
        return in_gdb(served.address, folder, "", "gdb.execute('target remote {address}', to_string=True)", 1)[0] * 1000


def _in_loop(side: Side, folder: Path, timed: str, amount: float, helped: bool = False) -> float:
    """`helped`: v2e's gdb has the helper, as `v2e gdb` loads it; the other side's has none."""
    helper = f"source {helper_path()}\n" if helped and side.name == "v2e" else ""
    with side.serve("seabios", guests.loop_disk(folder / "loop.img")) as served:
        return in_gdb(served.address, folder, helper + TO_LOOP, timed, amount)[1]


def stepi_many(side: Side, folder: Path, helped: bool = False) -> float:
    """Instructions a second of one `stepi 1000`."""
    return _in_loop(side, folder, f"gdb.execute('stepi {STEPS}', to_string=True)", STEPS, helped)


def stepi_single(side: Side, folder: Path, helped: bool = False) -> float:
    """`stepi` commands a second."""
    timed = f"for _ in range({SINGLE_STEPS}): gdb.execute('stepi', to_string=True)"
    return _in_loop(side, folder, timed, SINGLE_STEPS, helped)


def stepi_many_helped(side: Side, folder: Path) -> float:
    """The same with the helper: in a loop that never returns, where the search for a caller is longest."""
    return stepi_many(side, folder, helped=True)


def stepi_single_helped(side: Side, folder: Path) -> float:
    """`stepi` commands a second with the helper, in the same loop."""
    return stepi_single(side, folder, helped=True)


def breakpoint_hits(side: Side, folder: Path) -> float:
    """Hits a second of a breakpoint that gdb passes over by `ignore`."""
    timed = (
        f"gdb.execute('break *{guests.LOOP_ADDRESS:#x}', to_string=True)\n"
        f"gdb.execute('ignore $bpnum {HITS}', to_string=True)\n"
        "gdb.execute('continue', to_string=True)"
    )
    return _in_loop(side, folder, timed, HITS)


def condition(side: Side, folder: Path) -> float:
    """Hits a second of a breakpoint whose condition, on ECX, holds at the last of them. gdb lets the stub decide where
    the stub can."""
    hits = FAST_CONDITION_HITS if side.name == "v2e" else CONDITION_HITS
    timed = (
        f"gdb.execute('break *{guests.LOOP_ADDRESS:#x} if $ecx == {hits}', to_string=True)\n"
        "gdb.execute('continue', to_string=True)\n"
        f"assert int(gdb.parse_and_eval('$ecx')) == {hits}"
    )
    return _in_loop(side, folder, timed, hits)


def watch_hits(side: Side, folder: Path) -> float:
    """Stops a second of a write watchpoint on the loop's counter."""
    timed = f"for _ in range({WATCH_HITS}): gdb.execute('continue', to_string=True)"
    with side.serve("seabios", guests.loop_disk(folder / "loop.img")) as served:
        watch = f"{TO_LOOP}watch *(int *){guests.COUNTER_ADDRESS:#x}\n"
        return in_gdb(served.address, folder, watch, timed, WATCH_HITS)[1]


def next_over_loop(side: Side, folder: Path) -> float:
    """Turns a second of a loop of one source line that `next` steps over."""
    try:
        image, symbols = guests.count_disk(folder), guests.count_symbols(folder)
    except MissingTool as missing:
        raise FigureUnavailable(str(missing)) from None
    to_line = f"{TO_BOOT}symbol-file {symbols}\nstepi 2\n"
    timed = "gdb.execute('next', to_string=True)\nassert 'done' in gdb.execute('info symbol $pc', to_string=True)"
    with side.serve("seabios", image) as served:
        return in_gdb(served.address, folder, to_line, timed, guests.COUNT_TURNS)[1]


def dump(side: Side, folder: Path) -> float:
    """`dump binary memory` of all 64 MiB, MB/s."""
    timed = f"gdb.execute('dump binary memory {folder}/memory.dump 0 {DUMP_BYTES}', to_string=True)"
    with side.serve("seabios", None) as served:
        rate = in_gdb(served.address, folder, "target remote {address}", timed, DUMP_BYTES / 1e6)[1]
    if (folder / "memory.dump").stat().st_size != DUMP_BYTES:
        raise BenchError(f"{side.name}: the dump is not {DUMP_BYTES} bytes long")
    return rate


def restore(side: Side, folder: Path) -> float:
    """`restore` of 62 MiB, MB/s."""
    (folder / "memory.restore").write_bytes(bytes(range(256)) * (RESTORED_BYTES // 256))
    timed = f"gdb.execute('restore {folder}/memory.restore binary {RESTORED_AT:#x}', to_string=True)"
    with side.serve("seabios", None) as served:
        return in_gdb(served.address, folder, "target remote {address}", timed, RESTORED_BYTES / 1e6)[1]


def find(side: Side, folder: Path) -> float:
    """`find` of eight bytes that are not in 16 MiB, MB/s."""
    first = 0x1000000
    timed = (
        f"said = gdb.execute('find /g {first:#x}, +{FIND_BYTES:#x}, 0x1122334455667788', to_string=True)\n"
        "assert 'not found' in said, said"
    )
    with side.serve("seabios", None) as served:
        return in_gdb(served.address, folder, "target remote {address}", timed, FIND_BYTES / 1e6)[1]
