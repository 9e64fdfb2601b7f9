"""A stream of a machine whose interrupt controllers a hypervisor has: what was acknowledged ahead of its delivery is a
request there, and goes on being one here."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bridges import Driven, until
from emu.engine import EngineError
from emu.ledger import Costs
from emu.machine import Machine, MachineConfig, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig
from emu.x86.state import RFLAGS_IF
from machines import rom
from xenbridge.ioreq import Type, write
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.probe import make_kvm
from xenbridge.signals import Signals
from xenbridge.xen.files import open_file
from xenbridge.xen.stream_files import load_file, save_file

#: IRQ 0 at 100 Hz and IRQ 8's handler, which nothing asks for. Five ticks, then interrupts off until the word at 514h
#: is set, then ten more; {wait} is executed between two of them.
GUEST = """
    mov sp, 0x7c00
    mov word [8 * 4], tick
    mov word [8 * 4 + 2], 0xf000
    mov word [0x70 * 4], clock
    mov word [0x70 * 4 + 2], 0xf000
    xor eax, eax
    mov [0x500], eax
    mov [0x504], eax
    mov [0x510], eax
    mov [0x514], eax
    mov al, 0x11
    out 0x20, al
    out 0xa0, al
    mov al, 8
    out 0x21, al
    mov al, 0x70
    out 0xa1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, {icw4}
    out 0x21, al
    out 0xa1, al
    mov al, 0xfe
    out 0xa1, al
    mov al, 0xfa
    out 0x21, al
    mov al, 0x34
    out 0x43, al
    mov ax, 11932
    out 0x40, al
    mov al, ah
    out 0x40, al
first:
    sti
    {wait}
    cli
    cmp dword [0x500], 5
    jb first
    inc dword [0x510]
late:
    cmp dword [0x514], 0
    je late
again:
    sti
    {wait}
    cli
    cmp dword [0x500], 15
    jb again
    mov al, 7
    out 0xf4, al
    hlt
tick:
    inc dword [0x500]
    jmp eoi
clock:
    inc dword [0x504]
    push ax
    mov al, {eoi}
    out 0xa0, al
    pop ax
eoi:
    push ax
    mov al, {eoi}
    out 0x20, al
    pop ax
    iret
"""
EOI, NOP_OCW2 = 0x20, 0x40
TICK, CLOCK = 8, 0x70  #: vectors
KINDS = ("model", "kvm")
MASK_TICKS = write(Type.PIO, 0x21, 1, 0xFB).pack()
BEHIND_HLT = 0x8001  #: `rom` fills with them
LATE = 0x510  #: the guest has its interrupts off


def firmware(wait: str = "nop", *, automatic: bool = False) -> bytes:
    return rom(GUEST.format(wait=wait, icw4=3 if automatic else 1, eoi=NOP_OCW2 if automatic else EOI))


def stopped_with_a_tick_kept(driven: Driven) -> None:
    """Run it until the guest has its interrupts off, and a tick has been acknowledged for it."""
    driven.start()
    assert until(lambda: driven.word(LATE) == 1 and driven.keeper.pending_vector() == TICK)
    driven.machine.request_stop()
    driven.end()


def emulated(code: bytes, path: Path) -> Machine:
    machine = build_machine(MachineConfig(firmware=code, shadow=False, memory=1 << 20))
    load_file(machine, path)
    machine.memory.write(0x514, b"\1")
    return machine


def ends(machine: Machine) -> int:
    code = machine.run(machine.executor.retired + 100_000_000).code
    assert code is not None
    return code


@pytest.mark.parametrize("automatic", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tick_that_is_kept_for_a_guest_is_a_request_in_its_stream(
    kind: str, automatic: bool, signals: Signals, tmp_path: Path
) -> None:
    code, path = firmware(automatic=automatic), tmp_path / "kept.save"
    driven = Driven(kind, code, signals)
    stopped_with_a_tick_kept(driven)
    save_file(driven.machine, path)
    driven.close()
    pic = next(view for view in open_file(path).devices() if view.name == "pic")
    found = {field.name: field.value for field in pic.fields}
    assert (found["master ISR"], int(found["master IRR"]) & 1) == (0, 1)
    assert ends(emulated(code, path)) == 7


@pytest.mark.parametrize("kind", KINDS)
def test_an_irq_of_the_slave_that_is_kept_for_a_guest_is_a_request_of_both_8259(
    kind: str, signals: Signals, tmp_path: Path
) -> None:
    """Of the cascade too nothing is in service."""
    code, path = firmware(), tmp_path / "kept.save"
    driven = Driven(kind, code, signals)
    bridge = driven.keeper.bridge
    stopped_with_a_tick_kept(driven)
    with driven.keeper.undelivered_put_back():
        bridge.exchange(MASK_TICKS)
    bridge.set_line(8, True)
    assert until(lambda: bridge.look() == CLOCK)
    save_file(driven.machine, path)
    driven.close()
    master, slave = (dict(record.values()) for record in open_file(path).records if record.name == "PIC")
    assert (master["isr"], slave["isr"], master["irr"] & 4, slave["irr"]) == (0, 0, 4, 1)


@pytest.mark.parametrize("wait", ["nop", "hlt"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_machine_that_was_saved_goes_on_with_the_tick_that_is_kept(
    kind: str, wait: str, signals: Signals, tmp_path: Path
) -> None:
    driven = Driven(kind, firmware(wait), signals)
    stopped_with_a_tick_kept(driven)
    save_file(driven.machine, tmp_path / "kept.save")
    save_file(driven.machine, tmp_path / "again.save")
    driven.machine.memory.write(0x514, b"\1")
    driven.start()
    assert driven.end(60).code == 7
    driven.close()


@pytest.mark.parametrize("policy", ["native", "dwell:1000"])
def test_a_guest_on_kvm_that_is_saved_at_any_instant_loses_no_tick(
    policy: str, signals: Signals, tmp_path: Path
) -> None:
    """One that KVM was given to deliver, and had not, is a request in the stream, and comes once here."""
    costs = Costs()
    try:
        native = NativeConfig(make_kvm(lambda notice: None), policy_named(policy, costs), costs, time.monotonic_ns)
    except (KvmError, EngineError) as error:
        pytest.skip(str(error))
    code, path = firmware(), tmp_path / "native.save"
    driven = Driven("kvm", code, signals, native=native)
    for _ in range(20):
        driven.start()
        time.sleep(0.003)
        driven.machine.request_stop()
        driven.end()
        save_file(driven.machine, path)
    assert ends(emulated(code, path)) == 7
    driven.machine.memory.write(0x514, b"\1")
    driven.start()
    assert driven.end(60).code == 7
    assert 15 <= driven.word(0x500) == sum(event.kind == "interrupt" for event in driven.machine.journal)
    driven.close()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_acknowledged_while_a_state_is_taken(kind: str, signals: Signals) -> None:
    """The end of the while in which nothing is listened for, behind an access, falls into it."""
    driven = Driven(kind, firmware(), signals)
    stopped_with_a_tick_kept(driven)
    machine, keeper = driven.machine, driven.keeper
    keeper._hush()
    with keeper.undelivered_put_back():
        machine.clock.skip_to(machine.clock.now + keeper.pause)
        machine.service()
        time.sleep(0.05)
        assert keeper.bridge.look() is None
        assert keeper.bridge.devices(0).pic.master.isr == 0
    assert until(lambda: keeper.bridge.look() == TICK)
    driven.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_halted_guest_whose_tick_has_come_is_behind_its_hlt_in_the_stream(
    kind: str, signals: Signals, tmp_path: Path
) -> None:
    """Where the stream is loaded the tick is delivered behind it, as here; before it, another would be waited for."""
    driven, path = Driven(kind, firmware("hlt"), signals), tmp_path / "halted.save"
    machine = driven.machine
    stopped_with_a_tick_kept(driven)
    state = machine.cpu_state()
    state.halted, state.rip, state.rflags = True, BEHIND_HLT, state.rflags | RFLAGS_IF
    machine.load_cpu(state)
    save_file(machine, path)
    cpu = next(record for record in open_file(path).records if record.name == "CPU")
    assert cpu.values()["rip"] == BEHIND_HLT
    driven.close()
