"""How timers and APICs are wired is the same wherever they are, and as in QEMU: a guest finds out and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from commandline import v2e
from oracles import OracleMissing, assemble_image, run_qemu
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.vm import Vm

INSIDE = ("--devices-in", "hypervisor")
KVM = ("--hypervisor", "kvm", *INSIDE, "--clock", "host")
#: The places of the devices, and whose the CPU is meanwhile.
PLACES = {
    "userspace": (),
    "model": ("--hypervisor", "model", *INSIDE, "--policy", "emulated"),
    "model, native": ("--hypervisor", "model", *INSIDE, "--policy", "native"),
    "kvm": (*KVM, "--policy", "emulated"),
    "kvm, ticks kept": (*KVM, "--policy", "emulated", "--missed-ticks", "kept"),
}


@pytest.fixture(scope="module")
def wanted() -> tuple[str, ...]:
    """What QEMU's TCG prints. An "hpet" of it is there when it is asked for."""
    try:
        lines = run_qemu(assemble_image("wiring"), machine="pc,hpet=on", cpu="qemu64").lines
    except OracleMissing as missing:
        pytest.skip(str(missing))
    assert lines[-1] == "done" and {line.split()[-1] for line in lines[:-1]} == {"03", "some", "none", "counts"}
    return lines


@pytest.mark.parametrize("place", PLACES)
def test_the_8254_the_hpet_and_the_local_apic_reach_the_cpu_as_in_qemu(
    place: str, wanted: tuple[str, ...], tmp_path: Path
) -> None:
    """The 8254 is at input 2 of the I/O APIC (MultiProcessor Specification 1.4, table 5-1), and cut off while an HPET
    replaces it (IA-PC HPET 1.0a, 2.4.2); vectors of the local APIC arrive, where an 8259's would be too."""
    if place.startswith("kvm"):
        try:
            Vm().close()
        except KvmError as error:
            pytest.skip(str(error))
    rom = tmp_path / "wiring.rom"
    rom.write_bytes(assemble_image("wiring"))
    process = v2e("--firmware", rom, *PLACES[place], "--until", "exit")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, tuple(out.splitlines()), err) == (3, wanted, "")
