"""virtio-blk on the machine `pc`: SeaBIOS boots from it, a ROM of our own drives it as it drives QEMU's."""

from __future__ import annotations

import pytest

from asm import assemble
from emu.machine import Machine, MachineConfig, MachineError, MachineStop, build_machine
from emu.media import Disk
from machines import READING, seabios_pc
from oracles import OracleMissing, assemble_image, run_qemu

pytestmark = pytest.mark.slow

PATTERN = b"".join(n.to_bytes(4, "little") * 128 for n in range(4 * 16 * 63))


def test_seabios_boots_from_it_and_reads_by_int_13h():
    disk = Disk.from_bytes(assemble(READING).ljust(1 << 20, b"\0"))
    machine = seabios_pc(b"\0", disks=(), virtio=(disk,))
    end = machine.run(100_000_000)
    assert end.reason is MachineStop.EXIT and end.code == 0x55, machine.debugcon_text()
    assert "virtio-blk" in machine.debugcon_text()
    view = {f.name: f for f in next(d for d in machine.devices() if d.name == "virtio0").fields}
    assert view["status"].text == "ACKNOWLEDGE DRIVER FEATURES_OK DRIVER_OK"


def probed(**config: object) -> Machine:
    disk = Disk.from_bytes(PATTERN)
    machine = build_machine(
        MachineConfig(machine="pc", memory=16 << 20, firmware=assemble_image("pc_virtio"), virtio=(disk,), **config)  # type: ignore[arg-type]
    )
    end = machine.run(20_000_000)
    assert end.reason is MachineStop.EXIT and end.code == 0x10, end
    return machine


def test_a_driver_of_our_own_finds_what_it_finds_under_qemu():
    """QEMU without MSI-X vectors, as there are none here."""
    try:
        theirs = run_qemu(
            assemble_image("pc_virtio"), PATTERN, machine="pc", cpu="qemu64", drive="if=none,id=d",
            arguments=("-device", "virtio-blk-pci,drive=d,vectors=0"), complaint="Looped descriptor",
        )  # fmt: skip
    except OracleMissing as missing:
        pytest.skip(str(missing))
    lines = list(theirs.lines)
    # QEMU says after an error that it has written the whole buffer. "The device MUST write at least len bytes" of it
    # (VIRTIO 1.2, 2.7.8.1): that is the status alone.
    failed = lines.index("legacy: read beyond the end 00000001") + 1
    assert lines[failed] == "legacy: written 00000401"
    lines[failed] = "legacy: written 00000001"
    assert probed().debugcon_text().splitlines() == lines


def test_slices_leave_no_trace_in_the_driver():
    assert probed().fingerprint() == probed(slice=997).fingerprint()


def test_an_isapc_has_no_place_for_it():
    with pytest.raises(MachineError, match="PCI"):
        build_machine(MachineConfig(firmware=b"\xf4" * 0x10000, virtio=(Disk.from_bytes(PATTERN),)))


def test_slices_leave_no_trace_in_a_boot_with_system_management_mode():
    """SeaBIOS reads the virtio disk by SMIs and RSM; its VGA BIOS comes from a ROM BAR."""
    seen = []
    for piece in (None, 997, 123_456):
        disk = Disk.from_bytes(assemble(READING).ljust(1 << 20, b"\0"))
        machine = seabios_pc(b"\0", disks=(), virtio=(disk,), slice=piece)
        assert machine.run(100_000_000).code == 0x55
        seen.append(machine.fingerprint())
    assert seen[0] == seen[1] == seen[2]


def test_a_state_taken_in_the_middle_of_the_boot_continues_equally():
    one, other = (
        seabios_pc(b"\0", disks=(), virtio=(Disk.from_bytes(assemble(READING).ljust(1 << 20, b"\0")),)) for _ in "12"
    )
    for at in (405_700, 3_000_000, 7_120_000):
        one.run(at)
        other.restore(one.save())
        assert other.fingerprint() == one.fingerprint()
    for machine in (one, other):
        assert machine.run(100_000_000).code == 0x55
    assert one.fingerprint() == other.fingerprint()
