"""What the reference hypervisor charges control registers and counters as, and the moves that loading a state makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from emu.debugger import Debugger
from emu.ledger import Costs
from emu.machine import Machine, MachineConfig, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig, Transitions
from emu.vcpu import ExitCause
from emu.x86.state import CpuState, Segment
from emu.x86.vmentry import VTX, VTX2006
from machines import rom
from xenbridge.model import make_model

CODE = 0x8000


@pytest.fixture
def machine() -> Iterator[Machine]:
    native = NativeConfig(make_model(), policy_named("native", Costs()), Costs())
    made = build_machine(MachineConfig(memory=1 << 20, firmware=rom(""), native=native))
    yield made
    made.close()


def transitions_of(machine: Machine) -> Transitions:
    assert machine.transitions is not None
    return machine.transitions


def flat() -> CpuState:
    """32-bit code in ring 0 at CODE, with an IDT of no entries: an exception is a triple fault."""
    state = CpuState(rip=CODE, cr0=0x11)
    state.cs = Segment(8, 0, 0xFFFFFFFF, 0xC09B)
    for name in ("ss", "ds", "es", "fs", "gs"):
        setattr(state, name, Segment(16, 0, 0xFFFFFFFF, 0xC093))
    state.idtr.limit = 0
    return state


def long() -> CpuState:
    """64-bit code, by the page tables that `run` makes."""
    state = flat()
    state.cr0, state.cr3, state.cr4, state.efer = 0x80000011, 0x1000, 0x20, 0x500
    state.cs = Segment(8, 0, 0xFFFFFFFF, 0xA09B)
    return state


def run(machine: Machine, state: CpuState, code: str, count: int) -> Counter[ExitCause]:
    """The exits of `count` instructions that begin with `code`, native where that can be."""
    transitions = transitions_of(machine)
    for at, entry in ((0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x83)):
        machine.write_physical(at, entry.to_bytes(8, "little"))
    machine.write_physical(CODE, bytes.fromhex(code) + b"\x90" * 16)
    transitions.load(state)
    transitions.force(True)
    machine.run(transitions.retired + count)
    return +transitions.ledger.exits


@pytest.mark.parametrize(
    ("made", "code", "cause"),
    [
        (flat, "0f33", ExitCause.RDPMC),
        (flat, "0f22c0", ExitCause.CR),  # mov cr0, eax
        (long, "0f22d8", ExitCause.CR),  # mov cr3, rax
        (long, "0f20d8", ExitCause.CR),
        (long, "440f22c0", ExitCause.CR),  # mov cr8, rax
        (long, "440f20c0", ExitCause.CR),
        (long, "0f22d0", None),  # mov cr2, rax
        (long, "0f20d0", None),
        (flat, "0f20c0", None),  # mov eax, cr0
    ],
)
def test_which_registers_are_exits(
    machine: Machine, made: Callable[[], CpuState], code: str, cause: ExitCause | None
) -> None:
    """SDM vol. 3C, 25.1.3: MOV to CR2 is none, MOV to CR8 one; RDPMC has a reason of its own (appendix C: 15, not
    28)."""
    state = made()
    state.regs[0] = {"0f22c0": state.cr0, "0f22d8": state.cr3}.get(code, 5)
    found = run(machine, state, code, 4)
    assert found == (Counter() if cause is None else Counter({cause: 1}))
    assert transitions_of(machine).ledger.native == 4


@pytest.mark.parametrize("code", ["440f22d0", "440f22d8", "0f22c8"])
def test_a_control_register_that_is_not_raises_before_the_exit(machine: Machine, code: str) -> None:
    """CR10, CR11, CR1 (SDM vol. 3C, 25.1.1): #UD, here behind an IDT without entries, and no exit for CR access."""
    assert ExitCause.CR not in run(machine, long(), code, 1)


def test_v86_as_the_emulator_enters_it_can_be_entered(machine: Machine) -> None:
    """By IRET, which loads F3h and 64 KiB everywhere (SDM vol. 3A, 21.2.1), and behind each load of a segment there."""
    transitions, state = transitions_of(machine), flat()
    # EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS
    frame = (
        0,
        CODE + 0x100 >> 4,
        0x20002,
        0xFFE,
        0x700,
        0x710,
        0x720,
        0x730,
        0x740,
    )
    state.regs[4], state.regs[0] = 0x7000, 0x1234
    machine.write_physical(0x7000, b"".join(word.to_bytes(4, "little") for word in frame))
    machine.write_physical(CODE, b"\xcf")
    # mov ds, ax; push es; pop ss; jmp 0x811:0
    machine.write_physical(CODE + 0x100, bytes.fromhex("8ed8 06 17 ea00001108").ljust(0x20, b"\x90"))
    transitions.load(state)
    transitions.force(False)
    for _ in range(7):
        machine.run(transitions.retired + 1)
        for now in (transitions.state(), transitions.live()):
            assert now.rflags & 1 << 17
            assert [str(b) for b in (*VTX2006.broken(now), *VTX.broken(now))] == []
    assert (now.cs.selector, now.ss.selector, now.ds.selector) == (0x811, 0x710, 0x1234)


def test_a_state_that_cannot_be_entered_hops_out_when_it_is_loaded(machine: Machine) -> None:
    transitions = transitions_of(machine)
    run(machine, flat(), "", 1)
    before = transitions.ledger.hops_in, transitions.ledger.hops_out
    enterable = transitions.state()
    transitions.load(enterable)
    assert transitions.native and (transitions.ledger.hops_in, transitions.ledger.hops_out) == before
    enterable.tr.access = 0x10000
    transitions.load(enterable)
    assert not transitions.native
    assert (transitions.ledger.hops_in, transitions.ledger.hops_out) == (before[0], before[1] + 1)
    assert transitions.history[-1].reason == "given a state that cannot be entered"


def test_what_is_forbidden_here_is_not_native_any_more(machine: Machine) -> None:
    """The next instruction is emulated, and that is what is said before it is."""
    run(machine, flat(), "", 1)
    steering = Debugger(machine).steering
    assert steering.native and steering.view().native
    steering.forbid([(CODE + 0x100, CODE + 0x1FF)], [])
    assert steering.native
    steering.forbid([(CODE, CODE + 0xFF)], [])
    view = steering.view()
    assert (steering.native, view.native) == (False, False)
    assert view.obstacle == f"{CODE:#x}-{CODE + 0xFF:#x} is forbidden"
    native = transitions_of(machine).ledger.native
    machine.run(transitions_of(machine).retired + 1)
    assert transitions_of(machine).ledger.native == native
    steering.allow_all()
    steering.force(True)
    assert steering.native and steering.view().native
    steering.force(None)
    steering.set_policy(policy_named("emulated", Costs()))
    assert not steering.native
