"""`v2e run --devices-in hypervisor` with KVM: the guest's interrupt controllers and timers are the kernel's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asm import assemble
from commandline import v2e
from machines import seabios
from repl.boot_machine import open_debugger
from repl.harness import HarnessError
from xenbridge.kvm.backend import Backend
from xenbridge.kvm.bridge_probe import finding
from xenbridge.kvm.vm import Vm

KVM = ("--hypervisor", "kvm", "--devices-in", "hypervisor", "--clock", "host")


def ran(*arguments: str) -> tuple[int, str]:
    process = v2e(*KVM, *arguments)
    out, err = process.communicate(timeout=250)
    assert not [line for line in err.splitlines() if "the guest came natively to" not in line], err
    return process.returncode, out


@pytest.mark.parametrize(
    "policy", [*(pytest.param(policy, marks=pytest.mark.slow) for policy in ("emulated", "native")), "dwell:1000"]
)
def test_the_tour_counts_ticks_of_the_kernels_timer(backend: Backend, policy: str) -> None:
    status, out = ran("--policy", policy, "--until", "exit", "-c", "screen", "-c", "ledger")
    lines = re.findall(r"^tour: .*", out, re.MULTILINE)
    assert status == 1 and lines[-1] == "tour: done"
    ticks = [int(line.rsplit(" ", 1)[1]) for line in lines if "tick" in line]
    assert len(ticks) == 10 and ticks == sorted(set(ticks))
    assert re.search(r"^requests +[1-9]", out, re.MULTILINE)


#: A boot sector that waits for eight ticks of the BIOS's count, at 18.2 Hz, and says how far the count went.
SECTOR = """
    bits 16
    org 0x7c00
    xor ax, ax
    mov ds, ax
    mov bx, [0x46c]
    sti
again:
    mov ax, [0x46c]
    sub ax, bx
    cmp ax, 8
    jb again
    mov dx, 0xf4
    out dx, al
    hlt
    times 510-($-$$) db 0
    dw 0xaa55
"""


@pytest.mark.slow_variants
@pytest.mark.parametrize("machine", ["isapc", "pc"])
@pytest.mark.parametrize("policy", [pytest.param("native", marks=pytest.mark.slow), "dwell:1000", "learn"])
def test_seabios_boots_and_counts_ticks_where_its_cpu_and_its_timer_are_the_kernels(
    backend: Backend, policy: str, machine: str, tmp_path: Path
) -> None:
    """The POST programs the kernel's controllers from both CPUs, and waits for the kernel's PIT on both."""
    seabios()
    image = tmp_path / "disk.img"
    image.write_bytes(assemble(SECTOR).ljust(1 << 20, b"\0"))
    # At the costs of a host whose KVM executes code faster than the emulator, which a nested one may not.
    costs = ("--costs", "exit=20000,hop=20000,emulated=30,native=1") if policy == "learn" else ()
    status, out = ran("--machine", machine, "--firmware", "seabios", "--disk", str(image), "--policy", policy, *costs,
                      "--until", "exit", "-c", "why stuck", "-c", "ledger", "-c", "dev pic")  # fmt: skip
    assert status == 8 << 1 | 1
    assert "Booting from Hard Disk" in out
    assert all(re.search(rf"^{row} +[1-9]", out, re.MULTILINE) for row in ("exits", "hops to native", "requests"))
    assert re.search(r"^ +master base +0x8 ", out, re.MULTILINE)


def test_views_show_what_the_kernel_has(backend: Backend) -> None:
    status, out = ran("--policy", "emulated", "--until", "exit", "-c", "map", "-c", "dev pic", "-c", "dev pit",
                      "-c", "dev lapic", "-c", "dev port61")  # fmt: skip
    assert status == 1
    assert re.search(r"^0040-0043 +port +pit +hypervisor$", out, re.MULTILINE)
    # As the tour leaves them: vectors from 20h, IRQ 0 alone, counter 0 in mode 0.
    assert re.search(r"^ +master base +0x20 ", out, re.MULTILINE)
    assert re.search(r"^ +master IMR +0xfe ", out, re.MULTILINE)
    assert re.search(r"^ +counter 0 +0x30 +mode 0 ", out, re.MULTILINE)
    assert re.search(r"^ +LVT LINT0 +0x700 ", out, re.MULTILINE)


def test_a_state_is_not_put_back_into_the_kernel(backend: Backend) -> None:
    process = v2e(*KVM, "--policy", "emulated", "-c", "save", "-c", "restore")
    _, err = process.communicate(timeout=100)
    assert "which takes no state back" in err


def test_a_test_whose_machine_waits_for_no_clock_is_told(backend: Backend) -> None:
    with pytest.raises(HarnessError, match=r"^--devices-in hypervisor with kvm: its time is the host's"):
        open_debugger(KVM)


def test_the_doctor_says_what_of_the_bridge_works(backend: Backend) -> None:
    subject, ok, text = finding()
    assert (subject, ok) == ("kvm bridge", True), text


def test_a_kernel_without_controllers_is_said(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    offers = Vm.offers
    monkeypatch.setattr(Vm, "offers", lambda vm, cap: 0 if cap == "PIT2" else offers(vm, cap))
    subject, ok, text = finding()
    assert (subject, ok) == ("kvm bridge", None)
    assert text == "the KVM of this host has no interrupt controllers and timer: it lacks PIT2"
    with pytest.raises(HarnessError, match=r"^--devices-in hypervisor: the KVM of this host has no"):
        open_debugger(KVM)
