"""A machine saved while a disk's transfer by bus-master DMA or virtio is on its way continues as if it had not been."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.guests import pc_disk_rom
from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.media import Disk
from repl.harness import MissingTool

COMMANDS, SECTORS = 2, 512
CONTENT = b"".join(n.to_bytes(4, "little") * 128 for n in range(SECTORS))
POINTS, LIMIT = 12, 100_000_000


def machine(folder: Path, *, virtio: bool) -> Machine:
    try:
        rom = pc_disk_rom(folder / "disk.rom", COMMANDS, virtio=virtio)
    except MissingTool as missing:
        pytest.skip(str(missing))
    drive = {"virtio" if virtio else "disks": (Disk.from_bytes(CONTENT),)}
    return build_machine(MachineConfig(machine="pc", memory=2 << 20, firmware=rom.read_bytes(), **drive))  # type: ignore[arg-type]


def finished(run: Machine) -> object:
    end = run.run(LIMIT)
    assert (end.reason, end.code) == (MachineStop.EXIT, 0)
    return run.fingerprint()


def busy(run: Machine) -> bool:
    """The first IDE function's bus master is active, as its view has it."""
    view = next(d for d in run.devices() if d.name == "piix3-ide")
    return any("active" in f.text for f in view.fields)


@pytest.mark.slow
@pytest.mark.parametrize("virtio", [False, True], ids=["bus-master", "virtio"])
def test_saved_in_a_transfer_and_restored_elsewhere_it_ends_the_same(tmp_path: Path, virtio: bool) -> None:
    whole = machine(tmp_path, virtio=virtio)
    expected = finished(whole)
    assert whole.read_physical(0x20000 if virtio else 0x10000, 512) == CONTENT[256 * 512 :][:512]
    chosen, active = random.Random(4), 0
    run = machine(tmp_path, virtio=virtio)
    points = sorted(chosen.sample(range(1, whole.executor.retired), POINTS))
    for at in points:
        assert run.run(at).reason is MachineStop.LIMIT
        active += not virtio and busy(run)
        other = machine(tmp_path, virtio=virtio)
        other.restore(run.save())
        assert finished(other) == expected
        other.close()
    assert finished(run) == expected
    assert virtio or active >= POINTS // 3
