"""The 8259's way into the CPU of a `pc`, the local APIC's LINT0, is the same wherever the devices are: masked at RESET,
and opened by a firmware (MultiProcessor Specification 1.4, 3.6.2.2)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asm import assemble
from commandline import v2e
from machines import rom, seabios
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.bridge import KvmBridge

WHERE = {
    "userspace": (),
    "model": ("--hypervisor", "model", "--devices-in", "hypervisor"),
    "kvm": ("--hypervisor", "kvm", "--devices-in", "hypervisor", "--clock", "host", "--policy", "emulated"),
}
END = "mov al, 1\nmov dx, 0xf4\nout dx, al\nhlt"
#: Waits for two ticks of the BIOS's count.
SECTOR = f"""
    bits 16
    org 0x7c00
    xor ax, ax
    mov ds, ax
    mov bx, [0x46c]
    sti
again:
    mov ax, [0x46c]
    sub ax, bx
    cmp ax, 2
    jb again
    {END}
    times 510-($-$$) db 0
    dw 0xaa55
"""
#: IRQ 0 by the 8259 at vector 8, with no local APIC asked; ends at the second tick, with 3 where none comes.
TICKING = f"""
    mov sp, 0x7c00
    mov word [8 * 4], tick
    mov word [8 * 4 + 2], 0xf000
    mov dword [0x500], 0
%macro put 2
    mov al, %2
    out %1, al
%endmacro
    put 0x20, 0x11
    put 0x21, 8
    put 0x21, 4
    put 0x21, 1
    put 0x21, 0xfe
    put 0x43, 0x34
    put 0x40, 0
    put 0x40, 0x10
    sti
    mov ecx, 30000000
again:
    cmp dword [0x500], 2
    jae done
    dec ecx
    jnz again
    mov al, 3
    out 0xf4, al
done:
    {END}
"""
TICK = """
tick:
    inc dword [0x500]
    push ax
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
"""


@pytest.fixture(params=WHERE)
def where(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param == "kvm":
        try:
            KvmBridge().close()
        except KvmError as error:
            pytest.skip(str(error))
    return WHERE[request.param]


def ran(*arguments: str) -> tuple[int, str]:
    process = v2e(*arguments, "--until", "exit", "-c", "dev lapic")
    out, err = process.communicate(timeout=250)
    assert "Traceback" not in err
    return process.returncode, out


def lint0(out: str) -> int:
    found = re.search(r"^ +LVT LINT0 +(0x[0-9a-f]+)", out, re.MULTILINE)
    assert found is not None, out
    return int(found[1], 16)


def image(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "image"
    path.write_bytes(data)
    return str(path)


def test_at_reset_it_is_masked(where: tuple[str, ...], tmp_path: Path) -> None:
    """SDM vol. 3A, 11.4.7.1."""
    status, out = ran(*where, "--firmware", image(tmp_path, rom(END)))
    assert (status, lint0(out)) == (3, 0x10000)


@pytest.mark.slow_variants(keep=3)
@pytest.mark.parametrize(("firmware", "opened"), [("builtin", 0x700), ("seabios", 0x8700)])
def test_a_firmware_opens_it_and_its_clock_ticks(
    where: tuple[str, ...], firmware: str, opened: int, tmp_path: Path
) -> None:
    if firmware == "seabios":
        seabios()
    disk = image(tmp_path, assemble(SECTOR).ljust(1 << 20, b"\0"))
    status, out = ran(*where, "--firmware", firmware, "--disk", disk)
    assert (status, lint0(out)) == (3, opened)


#: IA32_APIC_BASE bit 11 (SDM vol. 3A, 11.4.3).
SWITCHED_OFF = "mov ecx, 0x1b\nrdmsr\nand ah, ~8\nwrmsr\n"


@pytest.mark.slow_variants(keep=4)
@pytest.mark.parametrize(
    ("options", "before", "status"),
    [(("--machine", "pc"), "", 7), (("--machine", "isapc"), "", 3), (("--machine", "pc", "--cpu", "486"), "", 3),
     (("--machine", "pc"), SWITCHED_OFF, 3)],
    ids=["pc", "isapc", "486", "off"],
)  # fmt: skip
def test_a_guest_that_leaves_it_as_it_is_has_ticks_where_there_is_no_local_apic_alone(
    where: tuple[str, ...], options: tuple[str, ...], before: str, status: int, tmp_path: Path
) -> None:
    firmware = image(tmp_path, rom(before + TICKING, TICK))
    process = v2e(*where, *options, "--firmware", firmware, "--until", "exit")
    process.communicate(timeout=100)
    assert process.returncode == status


#: Switches it off behind `p`, at 7C04h.
AHEAD = f"""
    bits 16
    org 0x7c00
    xor ax, ax
    mov ds, ax
p:  nop
    {SWITCHED_OFF}
    nop
    jmp $
    times 510-($-$$) db 0
    dw 0xaa55
"""


def test_a_look_ahead_leaves_one_on_that_is_about_to_be_switched_off(where: tuple[str, ...], tmp_path: Path) -> None:
    """Which has an effect once it really does."""
    code = assemble(AHEAD)
    end = 0x7C00 + code.index(b"\x0f\x30\x90") + 2
    commands = ("b 0x7c04", "c", "dev lapic", "why stuck", "dev lapic", "why stuck", "delete 1", f"b {end:#x}", "c",
                "dev lapic")  # fmt: skip
    disk = image(tmp_path, code.ljust(1 << 20, b"\0"))
    given = (part for command in commands for part in ("-c", command))
    process = v2e(*where, "--machine", "pc", "--disk", disk, *given)
    out, err = process.communicate(timeout=100)
    assert "Traceback" not in err
    rows = [re.findall(rf"^ +{name} +(0x[0-9a-f]+)", out, re.MULTILINE) for name in ("SVR", "LVT LINT0", "LVT LINT1")]
    # KVM's LINT0 is open while it is off, which is how it lets the 8259 through.
    assert (rows[0], rows[1][:2], rows[2]) == (
        ["0x1ff", "0x1ff", "0xff"], ["0x700", "0x700"], ["0x400", "0x400", "0x10000"],
    ), out  # fmt: skip
