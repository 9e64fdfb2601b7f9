"""PCI of a pc asked by a guest: the probe prints the same here, under QEMU's TCG and under Bochs 2.7."""

from __future__ import annotations

import pytest

from probes import QEMU_TIME, Difference, checks, explained, ours, peer

IMAGE, CHECKS = "pc_pci", 34
DIFFERENCES = (
    Difference(
        IMAGE, "QEMU", ("pm-base",),
        "bit 0 of a base of I/O space reads 1 (PCI 2.1, 6.2.5.1; PIIX4, PMBA), which QEMU leaves as it was written",
    ),
    Difference(
        IMAGE, "Bochs", ("busmaster-off",),
        "a function answers no I/O before its command register has bit 0 (PCI 2.1, 6.2.2)",
    ),
    Difference(
        IMAGE, "Bochs", ("pirq-written",),
        "bits 3 to 0 of a routing register keep what is written while bit 7 routes nothing (PIIX3, PIRQRC)",
    ),
)  # fmt: skip


@pytest.mark.parametrize("name", ["QEMU", "Bochs"])
def test_pci_tells_what_the_peers_tell(name: str) -> None:
    mine = checks(ours(IMAGE, machine="pc").debugcon_text())
    theirs = peer(name, IMAGE, QEMU_TIME, machine="pc", cpu="qemu64")
    assert len(mine) == CHECKS
    assert mine.keys() == theirs.keys()
    assert {check for check in mine if mine[check] != theirs[check]} == explained(DIFFERENCES, IMAGE, name)
