"""The figures: what is measured, how, in which unit, and which way is better."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import guests, kernels
from bench.sides import BenchError, Bus, FigureUnavailable, Side, resident
from repl.harness import MissingTool

DUMP_BYTES = 64 << 20
STEPS = 1000
SINGLE_STEPS = 300
HITS = 1000
GDB_SECONDS = 300
#: Full screens drawn, enough to be above the noise of two process starts.
PLANAR_FRAMES, CHAINED_FRAMES = 100, 1000
#: 16 MiB.
READ_COMMANDS = 128

Measure = Callable[[Side, Path], float]


@dataclass(frozen=True)
class Figure:
    """One row. `measure(side, folder)` gives one sample; `aim` is what the project asks of itself, as text."""

    name: str
    unit: str
    higher_is_better: bool
    measure: Measure
    aim: str = ""
    icount: bool = False  #: measured on QEMU with `-icount shift=0` too


def _gdb(address: str, folder: Path, prepare: str, timed: str, amount: float) -> tuple[float, float]:
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
TO_LOOP = f"target remote {{address}}\nbreak *{guests.BOOT_ADDRESS:#x}\ncontinue\ndelete\nstepi 3\n"


def start_up(side: Side, folder: Path) -> float:
    """Process start to the end of a ROM whose first instructions end the run, s."""
    return side.run(str(guests.exit_rom(folder / "exit.rom")), None)


def seabios(side: Side, folder: Path) -> float:
    """Process start to the end of a boot sector whose first instructions end the run, s."""
    return side.run("seabios", guests.exit_disk(folder / "exit.img"))


def attach(side: Side, folder: Path) -> float:
    """`target remote` at reset, ms."""
    with side.serve("seabios", None) as served:
        return _gdb(served.address, folder, "", "gdb.execute('target remote {address}', to_string=True)", 1)[0] * 1000


def memory(side: Side, folder: Path) -> float:
    """Resident memory of a 64 MiB machine that waits at reset for gdb, MiB."""
    with side.serve("seabios", None) as served:
        time.sleep(0.2)
        return resident(served.pid)


def _in_loop(side: Side, folder: Path, timed: str, amount: float) -> float:
    with side.serve("seabios", guests.loop_disk(folder / "loop.img")) as served:
        return _gdb(served.address, folder, TO_LOOP, timed, amount)[1]


def stepi_many(side: Side, folder: Path) -> float:
    """Instructions a second of one `stepi 1000`."""
    return _in_loop(side, folder, f"gdb.execute('stepi {STEPS}', to_string=True)", STEPS)


def stepi_single(side: Side, folder: Path) -> float:
    """`stepi` commands a second."""
    timed = f"for _ in range({SINGLE_STEPS}): gdb.execute('stepi', to_string=True)"
    return _in_loop(side, folder, timed, SINGLE_STEPS)


def breakpoint_hits(side: Side, folder: Path) -> float:
    """Hits a second of a breakpoint that gdb passes over by `ignore`."""
    timed = (
        f"gdb.execute('break *{guests.LOOP_ADDRESS:#x}', to_string=True)\n"
        f"gdb.execute('ignore $bpnum {HITS}', to_string=True)\n"
        "gdb.execute('continue', to_string=True)"
    )
    return _in_loop(side, folder, timed, HITS)


def dump(side: Side, folder: Path) -> float:
    """`dump binary memory` of all 64 MiB, MB/s."""
    timed = f"gdb.execute('dump binary memory {folder}/memory.dump 0 {DUMP_BYTES}', to_string=True)"
    with side.serve("seabios", None) as served:
        rate = _gdb(served.address, folder, "target remote {address}", timed, DUMP_BYTES / 1e6)[1]
    if (folder / "memory.dump").stat().st_size != DUMP_BYTES:
        raise BenchError(f"{side.name}: the dump is not {DUMP_BYTES} bytes long")
    return rate


def _fill(side: Side, folder: Path, write_mode: int | None) -> float:
    """ms a frame, process start not counted."""
    path, many = folder / "fill.rom", PLANAR_FRAMES if write_mode is not None else CHAINED_FRAMES
    seconds = [
        side.run(str(guests.fill_rom(path, write_mode=write_mode, frames=frames)), None) for frames in (1, 1 + many)
    ]
    return (seconds[1] - seconds[0]) / many * 1000


def fill_write_mode_0(side: Side, folder: Path) -> float:
    """A full screen of 640 by 480 in 16 colours, write mode 0, ms."""
    return _fill(side, folder, 0)


def fill_write_mode_2(side: Side, folder: Path) -> float:
    """The same in write mode 2, ms."""
    return _fill(side, folder, 2)


def fill_chained(side: Side, folder: Path) -> float:
    """A full screen of 320 by 200 in 256 chained colours, ms."""
    return _fill(side, folder, None)


def read_disk(side: Side, folder: Path) -> float:
    """16 MiB of the first hard disk by READ SECTORS, polling and REP INSW, s; process start not counted."""
    image = guests.blank_disk(folder / "blank.img", (READ_COMMANDS + 1) * guests.COMMAND_SECTORS)
    rom = folder / "read.rom"
    first, all_ = (side.run(str(guests.read_rom(rom, commands)), image) for commands in (1, 1 + READ_COMMANDS))
    return all_ - first


def _read_pc_disk(side: Side, folder: Path, bus: Bus) -> float:
    image = guests.blank_disk(folder / "blank.img", (READ_COMMANDS + 1) * guests.COMMAND_SECTORS)
    seconds = []
    for commands in (1, 1 + READ_COMMANDS):
        try:
            rom = guests.pc_disk_rom(folder / "read.rom", commands, virtio=bus == "virtio")
        except MissingTool as missing:
            raise FigureUnavailable(str(missing)) from None
        seconds.append(side.run(str(rom), image, bus))
    return seconds[1] - seconds[0]


def read_disk_by_dma(side: Side, folder: Path) -> float:
    """16 MiB of the first hard disk of a pc by READ DMA, 128 KiB a command, s; process start not counted."""
    return _read_pc_disk(side, folder, "pci")


def read_disk_by_virtio(side: Side, folder: Path) -> float:
    """The same by virtio-blk, 128 KiB a request."""
    return _read_pc_disk(side, folder, "virtio")


FIGURES = (
    Figure("start-up to the first instruction", "s", False, start_up, "0.25 s"),
    Figure("reset to 7C00h under SeaBIOS", "s", False, seabios),
    Figure("attach", "ms", False, attach),
    Figure(f"stepi {STEPS}", "insns/s", True, stepi_many, "above QEMU's"),
    Figure("single stepi", "1/s", True, stepi_single),
    Figure("breakpoint hits with ignore", "1/s", True, breakpoint_hits),
    Figure("dump of 64 MiB", "MB/s", True, dump),
    Figure("planar fill, write mode 0", "ms", False, fill_write_mode_0, "5x QEMU's"),
    Figure("planar fill, write mode 2", "ms", False, fill_write_mode_2, "5x QEMU's"),
    Figure("256-colour fill", "ms", False, fill_chained, "5x QEMU's"),
    Figure("16 MiB from the disk by PIO", "s", False, read_disk),
    Figure("16 MiB from the disk by DMA", "s", False, read_disk_by_dma),
    Figure("16 MiB from the disk by virtio", "s", False, read_disk_by_virtio),
    Figure("decompression of Linux 686", "s", False, kernels.decompression, "1x", icount=True),
    Figure("Linux 686 to userspace", "s", False, kernels.to_userspace, "1x", icount=True),
    Figure("Linux 686 on pc to userspace", "s", False, kernels.to_userspace_on_pc, "1.2x", icount=True),
    Figure("memory of an idle 64 MiB machine", "MiB", False, memory, "150 MiB"),
)
