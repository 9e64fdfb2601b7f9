"""How timers and APICs are wired is the same wherever they are, and as in QEMU: a guest finds out and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from commandline import v2e
from machines import rom
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


def needs(place: str) -> None:
    """Skips the test where it cannot be had."""
    if place.startswith("kvm"):
        try:
            Vm().close()
        except KvmError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="module")
def wanted() -> tuple[str, ...]:
    """What QEMU's TCG prints. An "hpet" of it is there when it is asked for."""
    try:
        lines = run_qemu(assemble_image("wiring"), machine="pc,hpet=on", cpu="qemu64").lines
    except OracleMissing as missing:
        pytest.skip(str(missing))
    assert lines[-1] == "done" and {line.split()[-1] for line in lines[:-1]} == {"03", "some", "none", "counts"}
    return lines


@pytest.mark.slow_variants
@pytest.mark.parametrize("place", PLACES)
def test_the_8254_the_hpet_and_the_local_apic_reach_the_cpu_as_in_qemu(
    place: str, wanted: tuple[str, ...], tmp_path: Path
) -> None:
    """The 8254 is at input 2 of the I/O APIC (MultiProcessor Specification 1.4, table 5-1), and cut off while an HPET
    replaces it (IA-PC HPET 1.0a, 2.4.2); vectors of the local APIC arrive, where an 8259's would be too."""
    needs(place)
    rom = tmp_path / "wiring.rom"
    rom.write_bytes(assemble_image("wiring"))
    process = v2e("--firmware", rom, *PLACES[place], "--until", "exit")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, tuple(out.splitlines()), err) == (3, wanted, "")


#: Prints bits 17:16 of the local APIC's entry for its timer and bit 8 of SVR; sets others, has the keyboard controller
#: reset the CPU, and prints them again.
AGAIN = """
    lgdt [cs:pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov cx, 8
    mov ds, cx
    and al, 0xfe
    mov cr0, eax
    xor ax, ax
    mov ds, ax
    a32 mov ebx, [dword 0xfee00320]
    shr ebx, 16
    lea eax, [ebx + '0']
    out 0xe9, al
    a32 mov eax, [dword 0xfee000f0]
    shr eax, 8
    and al, 1
    add al, '0'
    out 0xe9, al
    cmp byte [0x700], 0x5a
    mov byte [0x700], 0x5a
    jne first
    mov al, 0x11
    out 0xf4, al
first:
    a32 mov dword [dword 0xfee000f0], 0x1ff
    a32 mov dword [dword 0xfee00320], 0x20055
    a32 mov dword [dword 0xfee00380], 1000000
    mov al, 0xfe
    out 0x64, al
    hlt
    hlt
align 8
gdt:
    dq 0, 0x00cf93000000ffff
pointer:
    dw 15
    dd 0xf0000 + gdt
"""


@pytest.mark.parametrize("place", PLACES)
def test_init_resets_the_local_apic(place: str, tmp_path: Path) -> None:
    """SDM vol. 3A, 11.4.7.3: the entries of the vector table are masked, and it is off by software."""
    needs(place)
    image = tmp_path / "again.rom"
    image.write_bytes(rom(AGAIN))
    process = v2e("--firmware", image, *PLACES[place], "--until", "exit")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0x23, "1010", "")
