"""A disk that asks the BIOS's services prints the same by the built-in BIOS and by SeaBIOS under QEMU's TCG."""

from __future__ import annotations

import pytest

from emu.firmware.roms import builtin_bios
from emu.machine import MachineConfig, MachineStop, build_machine
from emu.media import Disk
from oracles import OracleMissing, assemble_image, run_qemu

SIZE = 20 * 16 * 63 * 512
#: Lines of SeaBIOS 1.16 that are not ours, and why.
DIFFERENT = {
    # EDD 3.0, AH=41h: "BX 55AAh"; anything else is another caller's function
    "extensions by a wrong word F0": "extensions by a wrong word F1",
    # EDD 3.0, "Disk address packet": "If this value is less than 16 then the request is rejected with CF=1 and AH=01h"
    "extended read with a short packet F0": "extended read with a short packet F1",
    # El Torito 1.0, INT 13h AX=4B01h: "Carry flag set if system is not in emulation mode"
    "emulation F0": "emulation F1",
    # PCI BIOS 2.1, 3.6.2: BAD_REGISTER_NUMBER for an odd register
    "PCI read odd F0": "PCI read odd F1",
}
#: On a pc SeaBIOS keeps the last 128 KiB of RAM for its ACPI tables, of which there are none here.
KEPT = {
    "extended memory A=3B80 F0": "extended memory A=3C00 F0",
    "E801 A=3B80 B=0000 C=3B80 D=0000 F0": "E801 A=3C00 B=0000 C=3C00 D=0000 F0",
    "E820 00001000000000000000EE000000000001000000": "E820 00001000000000000000F0000000000001000000",
    "E820 0000FE0000000000000002000000000002000000": "",
}


def ours(image: str, machine: str, size: int | None = None) -> tuple[list[str], object]:
    """The lines, and the fingerprint at the end. `size`: how many instructions the engine is asked for at a time."""
    disk = Disk.from_bytes(assemble_image(image).ljust(SIZE, b"\0"))
    config = MachineConfig(
        machine=machine, memory=16 << 20, firmware=builtin_bios(), bios=True, disks=[disk], slice=size
    )
    made = build_machine(config)
    end = made.run(400_000_000)
    assert end.reason is MachineStop.EXIT, f"{end}: {made.debugcon_text()[-300:]}"
    assert end.code == 0
    return [line for line in made.debugcon_text().splitlines() if line], made.fingerprint()


def theirs(image: str, machine: str) -> tuple[str, ...]:
    """What QEMU with SeaBIOS prints."""
    cpu = "qemu64" if machine == "pc" else "qemu64,-apic"
    try:
        return run_qemu(disk=assemble_image(image).ljust(SIZE, b"\0"), machine=machine, cpu=cpu).lines
    except OracleMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("machine", ["pc", "isapc"])
def test_services_answer_as_seabios_does(machine: str) -> None:
    known = {**DIFFERENT, **(KEPT if machine == "pc" else {})}
    expected = [known.get(line, line) for line in theirs("bios_probe", machine)]
    if machine == "isapc":
        # There is no PCI bus, and SeaBIOS says that there is one.
        expected = [line for line in expected if not line.startswith("PCI")]
    assert ours("bios_probe", machine)[0] == [line for line in expected if line]


@pytest.mark.parametrize("machine", [pytest.param("pc", marks=pytest.mark.slow), "isapc"])
def test_slices_leave_no_trace_in_the_services(machine: str) -> None:
    assert ours("bios_probe", machine) == ours("bios_probe", machine, 9973) == ours("bios_probe", machine, 101)


@pytest.mark.slow
def test_both_run_loops_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = ours("bios_probe", "pc")
    monkeypatch.setenv("V2E_ENGINE", "gate")
    assert ours("bios_probe", "pc") == fast


#: Lines of SeaVGABIOS that are not ours, and why.
VIDEO_DIFFERENT = {
    # IBM's table of mode 11h: CRTC 17h is C3h, all palette registers but the first white
    "mode 11 E3 010F0006 5F4F508254800B3E0040000000000000EA8CDF2800E704E3FF 000000000000050FFF "
    "003F003F003F003F003F003F003F003F01000F0000": "mode 11 E3 "
    "010F0006 5F4F508254800B3E0040000000000000EA8CDF2800E704C3FF "
    "000000000000050FFF 003F3F3F3F3F3F3F3F3F3F3F3F3F3F3F01000F0000",
    # IBM's cursor emulation: lines 6 and 7 of 8 are 13 and 14 of 16, with one line below
    "cursor lines 0E0F 090F 2000": "cursor lines 0D0E 090F 2000",
    # graphics have no attribute (IBM, AH=08h: "AH = attribute (alphanumeric modes only)")
    " character A=02DB": " character A=00DB",
    # VBE 3.0, 3.1: AL = 4Fh says that the function is there, AH = 03h that it fails in this mode
    "VBE window A=0305": "VBE window A=034F",
    "VBE window A=0305 D=0003": "VBE window A=034F D=0003",
    # there is no such mode: VBE 3.0, 4.5, AH = 01h
    "VBE set 177 A=004F": "VBE set 177 A=014F",
}


def _video(line: str) -> str:
    if line.startswith("mode 0"):
        # IBM's table: colour don't care is 0 in text
        line = line.replace(" 0000000000100E0FFF ", " 0000000000100E00FF ")
    return VIDEO_DIFFERENT.get(line, line)


def test_the_screens_services_answer_as_seavgabios_does() -> None:
    assert ours("bios_video", "pc")[0] == [_video(line) for line in theirs("bios_video", "pc")]


@pytest.mark.slow
def test_the_screens_services_are_the_same_for_an_isa_adapter() -> None:
    assert ours("bios_video", "isapc")[0] == ours("bios_video", "pc")[0]
