"""A guest that comes natively to a mode that this host's KVM does not run right is told of; forbidden real mode keeps
it from there."""

from __future__ import annotations

from typing import cast

import pytest

from bare_cpu import CODE, real_state
from emu.debugger import Debugger
from emu.firmware.roms import tour_rom
from emu.ledger import Costs
from emu.machine import MachineConfig, build_machine
from emu.policies import policy_named
from emu.record import replace
from emu.stops import StopKind
from emu.transitions import NativeConfig, Transitions
from emu.vcpu import ExitCause
from emu.x86.modes import Mode, mode_of
from native_cpu import native_cpu
from xenbridge.kvm import probe_programs as programs
from xenbridge.kvm.backend import EVERYWHERE, Backend, Kind, Way
from xenbridge.kvm.live import LiveState
from xenbridge.kvm.probe import make_kvm
from xenbridge.kvm.strays import Strays

#: Executes real and protected mode, but 16-bit, and no paging.
SOME = Backend(
    ("kvm_some",), frozenset((Kind.REAL, Kind.BIG_REAL, Kind.PROTECTED32)), EVERYWHERE, EVERYWHERE, False, True, False,
    False, 1000, (),
)  # fmt: skip


def looked(backend: Backend, *kinds: Kind, before: Mode = Mode.REAL) -> tuple[Strays, list[str]]:
    said: list[str] = []
    strays = Strays(backend, said.append)
    for kind in kinds:
        strays.look(cast(LiveState, programs.state_of(kind, programs.memory())), 400_000, lambda: before)
    return strays, said


def test_modes_that_run_are_no_strays() -> None:
    strays, said = looked(SOME, Kind.REAL, Kind.BIG_REAL)
    assert (strays.text, said) == ("", [])
    assert looked(replace(SOME, runs=frozenset(Kind)), *Kind)[1] == []


@pytest.mark.parametrize("kind", [Kind.PROTECTED16, Kind.PROTECTED32, Kind.V86, Kind.PAE], ids=lambda kind: kind.value)
def test_a_mode_that_does_not_run_or_may_have_missed_paging_is_told_of_once_and_counted(kind: Kind) -> None:
    strays, said = looked(SOME, kind, Kind.REAL, kind)
    (line,) = said
    why = "from which kvm_some turns on no paging" if kind is Kind.PROTECTED32 else "which kvm_some runs wrongly"
    assert line.startswith(f"the guest came natively to {kind.value}, {why}, and was found at ")
    assert "in the 0.4 ms before may be wrong" in line and "`forbid real` and `forbid big real`" in line
    assert strays.text.startswith("2 times, the last time it came natively to")


@pytest.mark.parametrize("before", list(Mode), ids=lambda mode: mode.value)
def test_what_is_to_be_forbidden_is_the_mode_that_it_came_from(before: Mode) -> None:
    (line,) = looked(SOME, Kind.PROTECTED16, before=before)[1]
    real = before in (Mode.REAL, Mode.BIG_REAL)
    assert ("`forbid real` and `forbid big real` keep" in line) is real
    assert (f"; `forbid {before.value}` keeps the mode emulated from which it came" in line) is not real


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
def test_the_mode_that_a_guest_came_from_is_that_of_the_state_found_enterable(backend: Backend, kind: Kind) -> None:
    native = native_cpu(backend)
    state = programs.state_of(kind, native.memory)
    native.cpu.load(state)
    assert native.cpu._unenterable() == ""
    assert native.cpu._mode_before() is mode_of(state)
    native.cpu.close()


def test_a_mode_that_may_be_interrupted_wrongly_is_told_of_with_the_ways() -> None:
    backend = replace(SOME, runs=frozenset(Kind), misdelivers=((Kind.RING3, (Way.BASED,)),))
    (line,) = looked(backend, Kind.RING3)[1]
    assert "ring 3, in which kvm_some delivers interrupts wrongly to a handler's stack with a base, and was" in line


def test_it_is_found_at_the_first_exit_from_there(backend: Backend) -> None:
    """From real mode by MOV CR0 and a far jump, within one native stretch, on a KVM that is said not to run it."""
    if Kind.REAL not in backend.runs:
        pytest.skip(f"{backend.name} does not run real mode")
    native = native_cpu(replace(backend, runs=backend.runs - {Kind.PROTECTED16}))
    source = """
        lgdt [pointer]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp 8:there
    there:
        out 0x10, al
        hlt
    pointer:
        dw 15
        dd gdt
    gdt:
        dq 0
        dw 0xffff, 0
        db 0, 0x9b, 0, 0
    """
    native.program(source, real_state(), 16)
    assert native.cpu.strayed == ""
    exit = native.cpu.enter(1000, None, skip_breakpoint=False)
    assert (exit.cause, exit.address) == (ExitCause.PIO, 0x10)
    assert native.cpu.strayed.startswith("once, the last time it came natively to 16-bit protected mode")
    native.cpu.close()


def test_a_breakpoint_at_the_write_of_cr0_leaves_nothing_behind_it_to_kvm(backend: Backend) -> None:
    """The instruction at the breakpoint is a step of its own, behind which the state is looked at."""
    if Kind.REAL not in backend.runs or 16 not in backend.breaks & backend.steps:
        pytest.skip(f"{backend.name} does not run real mode, or does not stop in it")
    some = replace(backend, runs=backend.runs - {Kind.PROTECTED16})
    native = native_cpu(some)
    native.cpu.rules = some.rules()
    state = real_state()
    state.regs[0] = state.cr0 | 1
    native.program("mov cr0, eax\nout 0x10, al\nhlt", state, 16)
    native.cpu.set_breakpoints((CODE,))
    exit = native.cpu.enter(1000, None, skip_breakpoint=True)
    assert exit.cause is ExitCause.ENTRY_FAILED and Kind.PROTECTED16.value in exit.detail
    assert (native.ports, native.cpu.state().rip) == ([], CODE + 3)
    native.cpu.close()


def toured(*forbidden: Mode) -> Transitions:
    """The tour to its end."""
    config = MachineConfig(firmware=tour_rom())
    config.native = NativeConfig(make_kvm(), policy_named("native", Costs()), Costs())
    made = Debugger(build_machine(config))
    made.machine.native_limit = 60_000_000_000
    made.set_limit(50_000_000)
    transitions = made.machine.transitions
    assert transitions is not None
    transitions.forbid((), forbidden)
    made.begin_continue()
    stop = made.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    made.machine.close()
    return transitions


def strayed(transitions: Transitions) -> str:
    return str(getattr(transitions.vcpu, "strayed"))  # noqa: B009


@pytest.mark.slow
def test_where_both_real_modes_are_forbidden_the_tour_does_not_stray(backend: Backend) -> None:
    """Each of the two leads to protected mode; the tour's real mode is big at first."""
    if backend.runs_all:
        pytest.skip(f"{backend.name} runs every mode: there is nowhere to stray")
    assert strayed(toured())
    assert strayed(toured(Mode.REAL)), "by big real mode"
    assert strayed(toured(Mode.REAL, Mode.BIG_REAL)) == ""
