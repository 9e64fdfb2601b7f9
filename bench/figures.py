"""The figures: what is measured, how, in which unit, and which way is better."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import gdb_figures as gdb
from bench import guests, kernels
from bench.sides import Bus, FigureUnavailable, Side, resident
from repl.harness import MissingTool

#: Full screens drawn.
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
    udbserver: bool = False  #: measured on udbserver too


def start_up(side: Side, folder: Path) -> float:
    """Process start to the end of a ROM whose first instructions end the run, s."""
    return side.run(str(guests.exit_rom(folder / "exit.rom")), None)


def seabios(side: Side, folder: Path) -> float:
    """Process start to the end of a boot sector whose first instructions end the run, s."""
    return side.run("seabios", guests.exit_disk(folder / "exit.img"))


def memory(side: Side, folder: Path) -> float:
    """Resident memory of a 64 MiB machine that waits at reset for gdb, MiB."""
    with side.serve("seabios", None) as served:
        time.sleep(0.2)
        return resident(served.pid)


def _fill(side: Side, folder: Path, write_mode: int | None) -> float:
    """ms a frame."""
    many = PLANAR_FRAMES if write_mode is not None else CHAINED_FRAMES
    return side.timed(str(guests.fill_rom(folder / "fill.rom", write_mode=write_mode, frames=many)), None) / many * 1000


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
    """16 MiB of the first hard disk by READ SECTORS, polling and REP INSW, s."""
    image = guests.blank_disk(folder / "blank.img", READ_COMMANDS * guests.COMMAND_SECTORS)
    return side.timed(str(guests.read_rom(folder / "read.rom", READ_COMMANDS)), image)


def _read_pc_disk(side: Side, folder: Path, bus: Bus) -> float:
    image = guests.blank_disk(folder / "blank.img", READ_COMMANDS * guests.COMMAND_SECTORS)
    try:
        rom = guests.pc_disk_rom(folder / "read.rom", READ_COMMANDS, virtio=bus == "virtio")
    except MissingTool as missing:
        raise FigureUnavailable(str(missing)) from None
    return side.timed(str(rom), image, bus)


def read_disk_by_dma(side: Side, folder: Path) -> float:
    """16 MiB of the first hard disk of a pc by READ DMA, 128 KiB a command, s."""
    return _read_pc_disk(side, folder, "pci")


def read_disk_by_virtio(side: Side, folder: Path) -> float:
    """The same by virtio-blk, 128 KiB a request."""
    return _read_pc_disk(side, folder, "virtio")


FIGURES = (
    Figure("start-up to the first instruction", "s", False, start_up, "0.25 s"),
    Figure("reset to 7C00h under SeaBIOS", "s", False, seabios, "1.5x QEMU's"),
    Figure("attach", "ms", False, gdb.attach, udbserver=True),
    Figure(f"stepi {gdb.STEPS}", "insns/s", True, gdb.stepi_many, "2x QEMU's", udbserver=True),
    Figure("single stepi", "1/s", True, gdb.stepi_single, "2x QEMU's", udbserver=True),
    Figure(f"stepi {gdb.STEPS} with the helper", "insns/s", True, gdb.stepi_many_helped, "2x QEMU's without"),
    Figure("single stepi with the helper", "1/s", True, gdb.stepi_single_helped, "2x QEMU's without"),
    Figure("next over a loop of one line", "turns/s", True, gdb.next_over_loop, "2x QEMU's"),
    Figure("breakpoint hits with ignore", "1/s", True, gdb.breakpoint_hits, udbserver=True),
    Figure("breakpoint hits with a condition", "1/s", True, gdb.condition, "20x QEMU's", udbserver=True),
    Figure("watchpoint hits", "1/s", True, gdb.watch_hits, "1x QEMU's", udbserver=True),
    Figure("dump of 64 MiB", "MB/s", True, gdb.dump, "1x QEMU's", udbserver=True),
    Figure("restore of 62 MiB", "MB/s", True, gdb.restore),
    Figure("find in 16 MiB", "MB/s", True, gdb.find),
    Figure("planar fill, write mode 0", "ms", False, fill_write_mode_0, "5x QEMU's"),
    Figure("planar fill, write mode 2", "ms", False, fill_write_mode_2, "5x QEMU's"),
    Figure("256-colour fill", "ms", False, fill_chained, "5x QEMU's"),
    Figure("16 MiB from the disk by PIO", "s", False, read_disk),
    Figure("16 MiB from the disk by DMA", "s", False, read_disk_by_dma),
    Figure("16 MiB from the disk by virtio", "s", False, read_disk_by_virtio),
    Figure("decompression of Linux 686", "s", False, kernels.decompression, "1x QEMU's", icount=True),
    Figure("Linux 686 to userspace", "s", False, kernels.to_userspace, "1x QEMU's, whole boot 1.2x", icount=True),
    Figure(
        "Linux 686 on pc to userspace",
        "s",
        False,
        kernels.to_userspace_on_pc,
        "1x QEMU's, whole boot 1.2x",
        icount=True,
    ),
    Figure(
        "Linux amd64 on pc to userspace",
        "s",
        False,
        kernels.amd64_to_userspace_on_pc,
        "1x QEMU's, whole boot 1.5x",
        icount=True,
    ),
    Figure("memory of an idle 64 MiB machine", "MiB", False, memory, "150 MiB"),
)
