"""Probes: images that print lines of "name value" about devices, run here and by the peers, and where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pytest

import oracles
from emu.machine import Machine, MachineConfig, build_machine

#: Instructions; much above what any probe takes.
LIMIT = 3_000_000_000
#: QEMU's virtual time goes by instructions, and its clock by virtual time, so that it gives the same each time.
QEMU_TIME = ("-icount", "shift=4,sleep=off", "-rtc", "base=2020-01-01,clock=vm")


@dataclass(frozen=True)
class Difference:
    """Checks of `image` that `peer` does not print as we do; `why` says who is right, by which source."""

    image: str
    peer: str
    checks: tuple[str, ...]
    why: str


def checks(text: str) -> dict[str, str]:
    """Value by name."""
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if " " in line)


def ours(image: str, **config: object) -> Machine:
    """The machine after tests/images/<image>.asm has ended as its firmware."""
    options: dict[str, object] = {"memory": 2 << 20, "firmware": oracles.assemble_image(image), "shadow": False}
    machine = build_machine(MachineConfig(**{**options, **config}))  # type: ignore[arg-type]
    assert machine.run(LIMIT).code == 0, machine.debugcon_text()[-200:]
    return machine


def peer(
    name: str,
    image: str,
    arguments: Sequence[str] = (),
    disk: bytes | None = None,
    floppy: bytes | None = None,
    machine: str = "isapc",
    cpu: str = "qemu64,-apic",
) -> dict[str, str]:
    """What `name`, QEMU or Bochs, prints; skips the test where it is not installed. `arguments`, `machine` and `cpu`
    are for QEMU alone."""
    rom = oracles.assemble_image(image)
    try:
        result = (
            oracles.run_qemu(rom, disk, floppy=floppy, machine=machine, cpu=cpu, arguments=arguments)
            if name == "QEMU"
            else oracles.run_bochs(rom, disk, floppy=floppy)
        )
    except oracles.OracleMissing as missing:
        pytest.skip(str(missing))
    return checks("\n".join(result.lines))


def explained(table: Iterable[Difference], image: str, name: str) -> set[str]:
    """The checks that differ according to `table`."""
    return {check for d in table if (d.image, d.peer) == (image, name) for check in d.checks}
