"""XCR0 goes with a state into KVM and out of it (SDM vol. 1, 13.3); with CR4.OSXSAVE a state is the emulator's."""

from __future__ import annotations

import pytest

from emu.debugger import Debugger
from emu.engine import EngineError
from emu.ledger import Costs
from emu.machine import MachineConfig, MachineStop, build_machine
from emu.policies import policy_named
from emu.stops import BreakKind, StopKind
from emu.stuck import explain
from emu.transitions import NativeConfig
from emu.x86.state import CR4_OSXSAVE, CpuState
from machines import rom
from native_cpu import Native
from xenbridge.kvm import probe_programs as programs
from xenbridge.kvm.backend import Backend, Kind
from xenbridge.kvm.probe import make_kvm

SET = "mov eax, cr4\nor eax, 0x40600\nmov cr4, eax\nxor ecx, ecx\nxor edx, edx\nmov eax, {value}\nxsetbv\n"
SHOW = "xor ecx, ecx\nxgetbv\nout 0x99, al\n"


def real(xcr0: int = 1) -> CpuState:
    state = programs.state_of(Kind.REAL, programs.memory())
    state.xcr0 = xcr0
    return state


def out(native: Native) -> int:
    """What the guest writes next to port 99h. Skips where this KVM does not execute what comes before."""
    native.ports.clear()
    exit = native.cpu.enter(1 << 60, None, skip_breakpoint=False)
    if not native.ports:
        pytest.skip(f"this KVM: {exit.detail}")
    (port, _, value), *_ = native.ports
    assert port == 0x99 and value is not None
    return value


@pytest.mark.parametrize("value", [3, 7])
def test_what_a_guest_sets_natively_is_in_the_state(native: Native, value: int) -> None:
    native.program(f"{SET.format(value=value)}out 0x99, al\nhlt", real(), 16)
    assert out(native) == value
    assert native.cpu.hand_over() is None  # it is not packed
    state = native.cpu.state()
    assert (state.xcr0, state.cr4 & CR4_OSXSAVE) == (value, CR4_OSXSAVE)


def test_a_state_that_has_another_comes_back_whole(native: Native) -> None:
    """`check` asks KVM anew."""
    for value in (3, 1, 3):
        state = real(value)
        native.cpu.load(state)
        assert native.cpu.check(state) == []
        assert (native.cpu.state().xcr0, native.cpu.live().xcr0) == (value, value)


def test_what_a_state_has_is_what_the_guest_reads_once_it_can(native: Native) -> None:
    for value in (7, 3, 1):
        native.program(f"mov eax, cr4\nor eax, 0x40000\nmov cr4, eax\n{SHOW}hlt", real(value), 16)
        assert out(native) == value
        state = native.cpu.state()
        assert state.xcr0 == value


#: Sets XCR0 to 7 and hides it again, by clearing CR4.OSXSAVE, with no exit in between; behind the reset, which the
#: byte at 500h tells, it is shown.
HIDDEN = f"""
    cmp byte [0x500], 0x5a
    je shown
    mov byte [0x500], 0x5a
{SET.format(value=7)}
    and eax, 0
    mov cr4, eax
    {{pause}}
    mov dx, 0xcf9
    mov al, 2
    out dx, al
    mov al, 6
    out dx, al
    jmp $
shown:
    in al, 0x61
    mov cx, 2000
    loop $
    mov eax, 0x40600
    mov cr4, eax
    {SHOW.replace("0x99, al", "0xe9, al")}
    mov al, 0x11
    out 0xf4, al
    hlt
"""


@pytest.mark.parametrize("pause", ["", "in al, 0x61\nmov cx, 2000\nloop $"], ids=["native", "emulated"])
@pytest.mark.parametrize("policy", ["native", "dwell:1000"])
def test_what_is_hidden_at_a_reset_does_not_outlive_it(backend: Backend, policy: str, pause: str) -> None:
    """SDM vol. 3A, table 10-1: XCR0 is 1 behind RESET. No exit tells that it was set."""
    if Kind.REAL not in backend.runs:
        pytest.skip(f"{backend.name} does not run real mode")
    try:
        native = NativeConfig(make_kvm(lambda notice: None), policy_named(policy, Costs()), Costs())
    except EngineError as error:
        pytest.skip(str(error))
    body = HIDDEN.format(pause=pause)
    machine = build_machine(MachineConfig(machine="pc", firmware=rom(body), cpu="max", native=native))
    end = machine.run(1 << 60)
    assert (end.reason, machine.debugcon_text()) == (MachineStop.EXIT, "\x01")
    machine.close()


#: As HIDDEN, shown again behind the second NOP, where somebody looks.
KEPT = f"""
{SET.format(value=7)}
    xor eax, eax
    mov cr4, eax
    {{pause}}
    nop
    nop
    in al, 0x61
    mov cx, 2000
    loop $
    mov eax, 0x40600
    mov cr4, eax
    {SHOW.replace("0x99, al", "0xe9, al")}
    mov al, 0x11
    out 0xf4, al
    hlt
"""


@pytest.mark.parametrize("before", ["", "in al, 0x61"], ids=["native", "emulated"])
@pytest.mark.parametrize("policy", ["native", "dwell:1000"])
@pytest.mark.parametrize("looks", [0, 1, 2])
def test_what_is_hidden_stays_behind_a_look_ahead(backend: Backend, looks: int, policy: str, before: str) -> None:
    if Kind.REAL not in backend.runs:
        pytest.skip(f"{backend.name} does not run real mode")
    try:
        native = NativeConfig(make_kvm(lambda notice: None), policy_named(policy, Costs()), Costs())
    except EngineError as error:
        pytest.skip(str(error))
    firmware = rom(KEPT.format(pause=before))
    session = Debugger(build_machine(MachineConfig(firmware=firmware, cpu="max", native=native)))
    point = session.add_breakpoint(BreakKind.EXECUTE, 0xF0000 + firmware.index(b"\x90\xe4\x61"))
    session.begin_continue()
    assert session.run().kind is StopKind.BREAKPOINT
    for _ in range(looks):
        view = explain(session.machine)
        assert "ends the run with code" in view.summary
    session.remove_breakpoint(point.id)
    session.begin_continue()
    assert session.run().kind is StopKind.EXIT
    assert session.machine.debugcon_text() == "\x07"
    session.machine.close()


@pytest.mark.parametrize("policy", ["native", "dwell:1000", "emulated"])
def test_a_guest_that_sets_it_reads_it_wherever_it_is(backend: Backend, policy: str) -> None:
    if Kind.REAL not in backend.runs:
        pytest.skip(f"{backend.name} does not run real mode")
    show = "in al, 0x61\nmov cx, 2000\nloop $\nxor ecx, ecx\nxgetbv\nadd al, '0'\nout 0xe9, al\n"
    body = f"{SET.format(value=7)}{show * 3}{SET.format(value=3)}{show * 2}mov al, 0x11\nout 0xf4, al\nhlt\n"
    try:
        native = NativeConfig(make_kvm(lambda notice: None), policy_named(policy, Costs()), Costs())
    except EngineError as error:
        pytest.skip(str(error))
    machine = build_machine(MachineConfig(firmware=rom(body), cpu="max", native=native))
    end = machine.run(1 << 60)
    assert (end.reason, machine.debugcon_text()) == (MachineStop.EXIT, "77733")
    machine.close()
