"""Instructions that a hypervisor is exited to by are told to a policy that learns while the CPU is emulated.

The guest is none the wiser, and the policy sees what it would of a native CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu.engine import Change, ExitReason
from emu.ledger import Costs
from emu.machine import Machine, MachineConfig, build_machine
from emu.policies import Policy, policy_named
from emu.rental import FOR_GOOD
from emu.transitions import NativeConfig
from emu.unicorn_engine import HELPER, UnicornEngine
from emu.unicorn_helper import Helper
from emu.vcpu import ExitCause, Site, VmExit
from emu.x86.classes import InstructionClass
from emu.x86.modes import Mode
from emu.x86.vmentry import VTX, VTX2006, Rules
from machines import protected, rom
from xenbridge.model import make_model

pytestmark = pytest.mark.skipif(
    not isinstance(HELPER, Helper), reason="the portable loop tells of no instructions: see Executor.tell_instructions"
)
DESCRIPTORS = "dq 0x00cf9b000000ffff\n dq 0x00cf93000000ffff\n dq 0x00cffb000000ffff\n dq 0x00cff3000000ffff"
#: In flat 32-bit code each kind of them, once a turn, beside accesses and what is none; the RDMSR on two pages.
EACH = """
    bits 32
start32:
    mov ax, 0x10
    mov ds, ax
    mov ss, ax
    mov esp, 0x7000
    mov ebp, 20
turn:
    cpuid
    mov ecx, 0x10
    rdmsr
    mov ecx, 0x1b
    rdmsr
    wrmsr
    mov eax, cr0
    mov cr0, eax
    clts
    smsw ax
    lmsw ax
    mov cr2, eax
    mov eax, cr3
    mov cr3, eax
    mov eax, cr4
    mov cr4, eax
    mov eax, dr7
    mov dr7, eax
    invlpg [0x5000]
    wbinvd
    sidt [0x600]
    lidt [0x600]
    out 0x70, al
    rep cpuid
    mov ecx, 0x10
    jmp two_pages
    times 0x1fff-($-$$) db 0x90
two_pages:
    rdmsr
    mov ecx, 30
spin:
    loop spin
    dec ebp
    jnz turn
done:
    jmp done
"""
LENGTH = 20 * 120 + 4000  #: instructions, in which it comes to an end


class Seen:
    """Takes down the touches behind which the CPU is emulated for ever, or never."""

    name, enters, learns, sees_all, fixed = "seen", True, True, True, None

    def __init__(self, dwell: int) -> None:
        self._dwell = dwell
        self.touches: list[tuple[Site, int]] = []  #: with the gap behind it

    def dwell(self, exit: VmExit, native: bool) -> int:
        return self._dwell

    def hit(self, site: Site, gap: int) -> None:
        self.touches.append((site, gap))

    def missed(self, site: Site, gap: int, emulated: int, counted: bool) -> None:
        self.touches.append((site, gap))

    def moved(self) -> None: ...

    def shown(self) -> tuple[str, ...]:
        return ()

    def in_protected_mode(self) -> list[tuple[Site, int]]:
        return [touch for touch in self.touches if touch[0].mode is Mode.PROTECTED32]


def made(policy: Policy, code: str, rules: Rules = VTX2006, slice: int | None = None) -> Machine:
    firmware = rom(protected("dword 8:0xf0000+start32", DESCRIPTORS), code)
    native = NativeConfig(make_model(rules), policy, Costs())
    return build_machine(MachineConfig(firmware=firmware, memory=1 << 20, shadow=False, slice=slice, native=native))


def ran(policy: Policy, code: str = EACH, rules: Rules = VTX2006, slice: int | None = None) -> Machine:
    machine = made(policy, code, rules, slice)
    machine.run(LENGTH)
    return machine


@pytest.mark.parametrize("rules", [VTX2006, VTX], ids=["2006", "later"])
def test_the_emulator_tells_of_what_a_native_cpu_exits_for_and_of_nothing_else(rules: Rules) -> None:
    """The same touches, in the same order and distances, whoever executes: docs/policies.md has that of a trace."""
    native, emulated = Seen(0), Seen(FOR_GOOD)
    for policy in (native, emulated):
        ran(policy, rules=rules).close()
    causes = {site.cause for site, _ in native.in_protected_mode()}
    assert causes == {ExitCause.CPUID, ExitCause.MSR, ExitCause.CR, ExitCause.DR, ExitCause.CACHE, ExitCause.PIO}
    in_real_mode = [site.cause for site, _ in native.touches if site.mode is Mode.REAL]
    assert in_real_mode == ([ExitCause.DESCRIPTOR, ExitCause.CR, ExitCause.CR] if rules is VTX2006 else [ExitCause.CR])
    assert len(native.touches) > 20 * 15
    assert emulated.touches == native.touches


@pytest.mark.parametrize("slice", [1, 7, 1000])
def test_telling_changes_neither_the_guest_nor_where_it_is_cut(slice: int) -> None:
    told, untold = Seen(FOR_GOOD), policy_named("emulated", Costs())
    first, second = ran(told, slice=slice), ran(untold, slice=slice)
    assert first.fingerprint() == second.fingerprint() == ran(untold).fingerprint()
    whole = Seen(FOR_GOOD)
    ran(whole).close()
    assert told.touches == whole.touches
    first.close(), second.close()


def test_an_instruction_that_is_stopped_at_is_told_once_when_it_is_executed() -> None:
    whole, stepped = Seen(FOR_GOOD), Seen(FOR_GOOD)
    ran(whole).close()
    machine = made(stepped, EACH)
    cpu = machine.transitions
    assert cpu is not None
    cpu.set_event_stops(int(InstructionClass.CPUID | InstructionClass.RDMSR), (), Change.NONE)
    stops = 0
    while (left := LENGTH - cpu.retired) > 0:
        exit = cpu.run(left, skip_breakpoint=True)
        if exit.reason is ExitReason.BREAKPOINT:
            stops += 1
            told = len(stepped.touches)
            assert cpu.run(1, skip_breakpoint=True).executed == 1
            assert len(stepped.touches) == told + 1
    assert stops == 20 * 5
    assert stepped.touches == whole.touches
    machine.close()


@pytest.mark.parametrize("policy", ["native", "emulated", "dwell:100"])
def test_who_does_not_learn_is_not_told(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    tell = UnicornEngine.tell_instructions

    def telling(self: UnicornEngine, classes: int, told: Callable[[bytes], None]) -> None:
        asked.append(classes)
        tell(self, classes, lambda code: pytest.fail(f"told of {code.hex()}"))

    monkeypatch.setattr(UnicornEngine, "tell_instructions", telling)
    machine = ran(policy_named(policy, Costs()))
    assert asked == [0]
    machine.close()


def test_another_policy_is_told_or_not_from_then_on() -> None:
    first, second = Seen(FOR_GOOD), Seen(FOR_GOOD)
    machine = made(first, EACH)
    assert machine.transitions is not None
    machine.run(300)
    count = len(first.touches)
    machine.transitions.set_policy(policy_named("dwell:1000000", Costs()))
    machine.run(600)
    machine.transitions.set_policy(second)
    machine.run(LENGTH)
    assert count == len(first.touches) > 10 and len(second.touches) > 10
    machine.close()


#: Of the reads the first is Python's, and the helper has the others told in a heap.
POLLS = """
    bits 32
start32:
    mov ebp, 50
turn:
    in al, 0x61
    in al, 0x61
    mov eax, cr3
    mov cr3, eax
    in al, 0x61
    in al, 0x61
    cpuid
    dec ebp
    jnz turn
done:
    jmp done
"""


def test_accesses_that_are_told_in_heaps_are_not_taken_for_such_instructions() -> None:
    seen = Seen(FOR_GOOD)
    ran(seen, POLLS).close()
    causes = [site.cause for site, _ in seen.in_protected_mode()]
    assert causes.count(ExitCause.CPUID) in (49, 50) and causes.count(ExitCause.CR) in range(99, 103)
    assert causes.count(ExitCause.PIO) == 200
    turn = causes.index(ExitCause.CPUID)
    pair = [ExitCause.PIO] * 2
    assert causes[turn : turn + 8] == [ExitCause.CPUID, *pair, ExitCause.CR, ExitCause.CR, *pair, ExitCause.CPUID]


#: Ring 3 may execute CPUID; of RDMSR it has #GP(0), before any exit (SDM vol. 3C, 25.1.1).
RING3 = """
    bits 32
start32:
    mov ax, 0x10
    mov ds, ax
    mov ss, ax
    mov esp, 0x7000
    lidt [cs:0xf0000+idt]
    push 0x23
    push 0x6000
    push 2
    push 0x1b
    push 0xf0000+user
    iretd
user:
    cpuid
    rdmsr
    times 16 nop
refused:
    jmp refused
idt:
    dw 0
    dd 0
"""


def test_of_another_ring_only_what_it_may_execute_is_told() -> None:
    seen = Seen(FOR_GOOD)
    machine = ran(seen, RING3)
    sites = [site for site, _ in seen.in_protected_mode()]
    assert [site.cause for site in sites].count(ExitCause.MSR) == 0
    assert machine.transitions is not None and machine.transitions.ledger.caught >= 1
    machine.close()


#: As a kernel that changes its own code flushes its TLB: each turn is far shorter than any dwell worth its price.
FLUSHES = """
    bits 32
start32:
    mov ax, 0x10
    mov ds, ax
    mov edx, 8
phase:
    mov ebp, 300
flush:
    mov eax, cr3
    mov cr3, eax
    mov ecx, 250
.spin:
    loop .spin
    dec ebp
    jnz flush
    mov ecx, 60000
.pause:
    loop .pause
    dec edx
    jnz phase
done:
    jmp done
"""
FLUSHES_LENGTH = 8 * (300 * 255 + 60000)


def test_writes_to_a_control_register_in_turn_are_learned_as_what_they_are() -> None:
    """Of which nobody was told once, so that each dwell was followed by an exit. Each phase is worth one exit and two
    hops to leave and come back, and no more."""
    machine = made(policy_named("learn", Costs()), FLUSHES)
    machine.run(FLUSHES_LENGTH)
    assert machine.transitions is not None
    ledger = machine.transitions.ledger
    assert ledger.caught > 4000
    assert sum(ledger.exits.values()) <= 2 * 8 and ledger.hops_out <= 2 * 8
    machine.close()
