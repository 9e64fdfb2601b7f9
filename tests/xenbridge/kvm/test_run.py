"""Whole guests under `--hypervisor kvm`: what they show is what they show without. Skipped where KVM cannot be had."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from asm import assemble
from emu.debugger import Debugger
from emu.firmware.roms import builtin_bios, tour_rom
from emu.inspector import DebuggerError
from emu.ledger import Costs
from emu.machine import MachineConfig, build_machine
from emu.media import Disk
from emu.policies import policy_named
from emu.stops import Stop, StopKind
from emu.transitions import NativeConfig, Transitions
from emu.until import parse_until
from emu.vcpu import ExitCause
from machines import seabios
from repl.cli import main
from xenbridge.kvm.backend import Backend
from xenbridge.kvm.cpu import KvmVcpu
from xenbridge.kvm.probe import make_kvm

#: Prints by the BIOS, waits for three ticks, reads a sector, ends.
SECTOR = """
    bits 16
    org 0x7c00
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7c00
    mov si, text
next:
    lodsb
    test al, al
    jz printed
    mov ah, 0xe
    mov bx, 7
    int 0x10
    jmp next
printed:
    mov ah, 0
    int 0x1a
    mov bx, dx
later:
    mov ah, 0
    int 0x1a
    sub dx, bx
    cmp dx, 3
    jb later
    xor ax, ax
    mov es, ax
    mov ax, 0x0201
    mov cx, 2
    mov dx, 0x80
    mov bx, 0x8000
    int 0x13
    mov al, [0x8000]
    out 0xf4, al
text: db 'hello from a boot sector', 0
    times 510-($-$$) db 0
    dw 0xaa55
    db 0x2a
"""
LIMIT = 50_000_000


def debugger(config: MachineConfig, policy: str | None, notice: Callable[[str], None] = lambda text: None) -> Debugger:
    """Under kvm with a policy; None: without a hypervisor."""
    if policy is not None:
        config.native = NativeConfig(make_kvm(notice), policy_named(policy, Costs()), Costs())
    made = Debugger(build_machine(config))
    made.set_limit(LIMIT)
    made.machine.native_limit = 60_000_000_000
    return made


def run(made: Debugger) -> Stop:
    made.begin_continue()
    return made.run()


def transitions(made: Debugger) -> Transitions:
    found = made.machine.transitions
    assert found is not None
    return found


def sector_config(firmware: str) -> MachineConfig:
    disk = Disk.from_bytes(assemble(SECTOR).ljust(1 << 20, b"\0"))
    if firmware == "builtin":
        return MachineConfig(firmware=builtin_bios(), bios=True, memory=16 << 20, disks=(disk,))
    bios, vga = seabios()
    return MachineConfig(firmware=bios, memory=16 << 20, fw_cfg={"vgaroms/vgabios.bin": vga}, disks=(disk,))


@pytest.mark.slow_variants
@pytest.mark.parametrize(
    "policy", [pytest.param("native", marks=pytest.mark.slow), "dwell:50", "dwell:2000", "learn", "emulated"]
)
def test_the_tour_shows_and_sends_the_same(backend: Backend, policy: str) -> None:
    shown = []
    for chosen in (None, policy):
        made = debugger(MachineConfig(firmware=tour_rom()), chosen)
        stop = run(made)
        assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
        shown.append((made.machine.screen(), made.machine.serial_text()))
        if chosen == "native":
            ledger = transitions(made).ledger
            assert ledger.exits[ExitCause.PIO] and ledger.exits[ExitCause.MMIO], "it ran natively"
        made.machine.close()
    assert shown[0] == shown[1]


@pytest.mark.parametrize(("firmware", "policy"), [("builtin", "native"), ("builtin", "dwell:500")])
def test_a_boot_sector_prints_waits_and_reads(backend: Backend, firmware: str, policy: str) -> None:
    made = debugger(sector_config(firmware), policy)
    stop = run(made)
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0x2A), stop.text
    assert "hello from a boot sector" in "\n".join(made.machine.screen().rows)
    made.machine.close()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ("native", "learn"))
def test_seabios_boots_a_sector(backend: Backend, policy: str) -> None:
    made = debugger(sector_config("seabios"), policy)
    stop = run(made)
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0x2A), stop.text
    made.machine.close()


def test_a_breakpoint_stops_natively_and_emulated(backend: Backend) -> None:
    if not backend.breaks_everywhere:
        pytest.skip("this KVM does not stop at hardware breakpoints in all modes")
    made = debugger(sector_config("builtin"), "native")
    made.set_until(parse_until("pc:0x7c00"))
    stop = run(made)
    assert stop.kind is StopKind.EVENT and made.read_register("pc") == 0x7C00
    assert transitions(made).native
    made.set_until(None)
    transitions(made).force(False)
    made.begin_step(2)
    assert made.run().kind is StopKind.STEP and made.machine.executor.linear_pc == 0x7C04
    transitions(made).force(True)
    made.begin_step(1)
    made.run()
    assert transitions(made).native and made.machine.executor.linear_pc == 0x7C06
    made.machine.close()


def test_a_count_of_instructions_is_no_event_here(backend: Backend) -> None:
    made = debugger(MachineConfig(firmware=tour_rom()), "native")
    with pytest.raises(DebuggerError, match="kvm does not count instructions"):
        made.set_until(parse_until("insns:1000"))
    made.machine.close()


def test_a_limit_ends_a_native_loop_by_time(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    rom = assemble(
        "bits 16\norg 0\nstart: jmp start\ntimes 0xfff0-($-$$) db 0\njmp 0xf000:start\ntimes 0x10000-($-$$) db 0"
    )
    monkeypatch.setattr("emu.points.LEAST_NATIVE_NS", 200_000_000)
    made = debugger(MachineConfig(firmware=rom, memory=1 << 20, shadow=False), "native")
    made.set_limit(1000)
    stop = run(made)
    assert stop.kind is StopKind.LIMIT and "0.2 s of native time" in stop.text
    made.machine.close()


@pytest.mark.slow
def test_a_kvm_that_vanishes_in_mid_run_leaves_the_guest_to_the_emulator(backend: Backend) -> None:
    said: list[str] = []
    made = debugger(MachineConfig(firmware=tour_rom()), "native", said.append)
    made.set_until(parse_until("serial:tour: real"))
    assert run(made).kind is StopKind.EVENT
    vcpu = transitions(made).vcpu
    assert isinstance(vcpu, KvmVcpu) and transitions(made).native
    gone = os.open("/dev/null", os.O_RDWR)
    os.dup2(gone, vcpu._cpu.fd)  # every request of KVM is refused from here on
    os.close(gone)
    made.set_until(None)
    stop = run(made)
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    assert made.machine.serial_text().endswith("tour: done\r\n")
    said = [line for line in said if "the guest came natively to" not in line]  # where this KVM does not run all modes
    assert len(said) == 1 and "KVM is gone" in said[0] and "goes on in the emulator" in said[0]
    assert not transitions(made).native
    made.machine.close()


def test_steps_are_counted_and_go_where_the_emulator_goes(backend: Backend) -> None:
    places = []
    for policy in (None, "native"):
        made = debugger(MachineConfig(firmware=tour_rom()), policy)
        path = []
        for _ in range(15):  # up to REP STOSB, of which KVM may do several iterations in a step
            made.begin_step(1)
            assert made.run().kind is StopKind.STEP
            path.append(made.machine.executor.linear_pc)
        assert made.machine.executor.retired == 15
        places.append(path)
        made.machine.close()
    assert places[0] == places[1]


def test_why_knows_the_hosts_kvm_and_a_run_under_it_asks_it(
    backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "-c", "why kvm"]) == 0
    line = f"kvm (this host's KVM as probed ({backend.name})): yes"
    assert capsys.readouterr().out.splitlines() == [line]
    assert main(["run", "--hypervisor", "kvm", "-c", "why"]) == 0
    assert line in capsys.readouterr().out.splitlines()


def test_doctor_prints_what_the_probe_found(backend: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    text = capsys.readouterr().out
    for name, _, sentence in backend.findings()[1:]:
        assert f" {name} " in text and sentence in text


def test_catches_that_only_the_emulator_keeps_keep_it_emulated(backend: Backend) -> None:
    made = debugger(MachineConfig(firmware=tour_rom()), "native")
    made.machine.caught_interrupt = lambda vector: None
    assert "interrupts are caught" in transitions(made).obstacle()
    made.set_until(parse_until("serial:tour: real"))
    assert run(made).kind is StopKind.EVENT
    assert not transitions(made).native and not transitions(made).ledger.hops_in
    made.machine.close()


def test_the_hosts_clock_lets_emulated_instructions_take_their_time(backend: Backend) -> None:
    """A clock that runs a thousand times as fast is seen in the guest's time."""
    times = []
    for factor in (0, 1000):
        config = MachineConfig(firmware=tour_rom())
        clock = (lambda: time.monotonic_ns() * 1000) if factor else None
        config.native = NativeConfig(make_kvm(), policy_named("emulated", Costs()), Costs(), clock)
        made = Debugger(build_machine(config))
        made.set_until(parse_until("serial:tour: real"))
        assert run(made).kind is StopKind.EVENT
        times.append(made.machine.clock.now)
        made.machine.close()
    assert times[1] > 10 * times[0]
