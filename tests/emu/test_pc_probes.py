"""A ROM that probes PCI, PAM, the APICs, PM timer and HPET prints the same here, under QEMU's TCG and under Bochs."""

from __future__ import annotations

import pytest

from emu.machine import MachineConfig, MachineStop, build_machine
from oracles import OracleMissing, assemble_image, run_bochs, run_qemu

pytestmark = pytest.mark.slow

#: Lines of QEMU 7.2 that are not ours, and why.
DIFFERENT = {
    # QEMU has zeros there as ROM ("pc.rom"). No device of the board answers, which reads all ones (82441FX data sheet,
    # PAM[6:0]: "accesses are forwarded to PCI"; PCI 2.1, 3.7.4.1 and 6.3.1: a master abort reads ones).
    "pam other segment 00000000": "pam other segment FFFFFFFF",
    # QEMU sends and delivers vectors below 16. "Send illegal vector" is SDM vol. 3A, 11.5.3.
    "esr send vector 00000000": "esr send vector 00000020",
}


#: The same of Bochs 2.7.
BOCHS_DIFFERENT = {
    # Bochs shows no remote IRR: "set to 1 when local APICs accept the level interrupt" (82093AA data sheet, 3.2.4).
    "level sent 00008045": "level sent 0000C045",
    "unmasked level 00008045": "unmasked level 0000C045",
    # It forgets the line behind the EOI: "the I/O APIC ... if the line is still asserted, sends it again" (3.2.4).
    "level twice 00000045": "level twice 00000045 00000045",
    # It reports a vector that was received; the ICR was written with it ("Send Illegal Vector", SDM vol. 3A, 11.5.3).
    "esr send vector 00000040": "esr send vector 00000020",
}


def ours(**config: object) -> tuple[tuple[str, ...], object]:
    rom = assemble_image("pc_apic")
    machine = build_machine(MachineConfig(machine="pc", memory=16 << 20, firmware=rom, **config))  # type: ignore[arg-type]
    end = machine.run(20_000_000)
    assert end.reason is MachineStop.EXIT, end
    return tuple(machine.debugcon_text().splitlines()), machine.fingerprint()


@pytest.fixture(scope="module")
def fast() -> tuple[tuple[str, ...], object]:
    """What it prints, and its end, in one piece."""
    return ours()


def test_the_probe_prints_what_it_prints_under_qemu(fast):
    try:
        theirs = run_qemu(assemble_image("pc_apic"), machine="pc", cpu="qemu64").lines
    except OracleMissing as missing:
        pytest.skip(str(missing))
    lines, _ = fast
    assert lines == tuple(DIFFERENT.get(line, line) for line in theirs)
    assert lines[-1] == "done"


def test_the_probe_prints_what_it_prints_under_bochs(fast):
    try:
        theirs = run_bochs(assemble_image("pc_apic")).lines
    except OracleMissing as missing:
        pytest.skip(str(missing))
    lines, _ = fast
    assert set(BOCHS_DIFFERENT) <= set(theirs)
    assert lines == tuple(BOCHS_DIFFERENT.get(line, line) for line in theirs)


@pytest.mark.slow
def test_slices_leave_no_trace_in_the_probe(fast):
    assert fast == ours(slice=997) == ours(slice=13)


@pytest.mark.slow
def test_both_run_loops_print_the_same(fast, monkeypatch):
    monkeypatch.setenv("V2E_ENGINE", "gate")
    assert ours() == fast
