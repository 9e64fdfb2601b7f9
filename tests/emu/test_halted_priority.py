"""A halted CPU whose interrupts are behind the local APIC's priority alone ends the run at once, in words that say so.

What wakes is decided by the same guest with an hour of idling in place of foresight, cut to 10 ms.
"""

from __future__ import annotations

import pytest

from emu import machine as machines
from emu.debugger import Debugger
from emu.keeper import Keeper
from emu.ledger import Costs
from emu.machine import MachineConfig, MachineExit, MachineStop, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig
from machines import TIMER_100US, rom
from xenbridge.model import make_model
from xenbridge.model_devices import ModelDevices

AN_HOUR = "HLT, and no interrupt for an hour of virtual time"
COUNT = 0x600
#: ns from power-on on until every device has come to rest: the keyboard tests itself.
QUIET = 3_000_000
VECTOR = 0x45
ONE_SHOT, PERIODIC = 0, 1 << 17
NMI = 0x400
TPR, SVR, SELF_IPI, TIMER, LINT0, INITIAL, DIVIDE = 0x808, 0x80F, 0x83F, 0x832, 0x835, 0x838, 0x83E


def msr(number: int, value: int) -> str:
    return f"mov ecx, {number:#x}\nmov eax, {value:#x}\nxor edx, edx\nwrmsr\n"


#: x2APIC mode, in which real mode reaches the local APIC, switched on by software.
ON = "mov ecx, 0x1b\nrdmsr\nor ah, 0xc\nwrmsr\n" + msr(SVR, 0x1FF)


def guest(priority: int, ticking: str, before: str = "") -> bytes:
    """Halts with interrupts on and TPR `priority` while `ticking`; its handler counts at COUNT and sends no EOI."""
    return rom(
        "mov ss, ax\nmov sp, 0x7000\nmov cx, 256\nmov di, 0\n"
        "vectors: mov word [di], handler\nmov word [di + 2], cs\nadd di, 4\nloop vectors\n"
        + ON + before + f"mov byte [{COUNT}], 0\n" + ticking + msr(TPR, priority)
        + "sti\nhlt\nmov al, 7\nout 0xf4, al\n",
        f"handler: inc byte [{COUNT}]\niret\n",
    )  # fmt: skip


def lapic_timer(mode: int) -> str:
    """Each 100 us, or once."""
    return msr(DIVIDE, 0x0B) + msr(TIMER, mode | VECTOR) + msr(INITIAL, 100_000)


def through_lint0(entry: int) -> str:
    """The 8254 each 100 us by way of the 8259 and LINT0."""
    return msr(LINT0, entry) + TIMER_100US


#: A vector of class 5 is taken and stays in service.
SERVED = "sti\n" + msr(SELF_IPI, 0x51) + "cli\n"


def run(
    firmware: bytes, *, foreseen: bool, keeper: type[Keeper] = Keeper, policy: str | None = None
) -> tuple[MachineExit, int, int]:
    """How it ends, the interrupts it had, and virtual time in ns."""
    native = None if policy is None else NativeConfig(make_model(), policy_named(policy, Costs()), Costs())
    machine = build_machine(
        MachineConfig(machine="pc", memory=2 << 20, firmware=firmware, shadow=False, keeper=keeper, native=native)
    )
    if not foreseen:
        machine.board.holds_back = lambda timer: False  # type: ignore[method-assign]
    found = machine.run(100_000), machine.memory.read(COUNT, 1)[0], machine.clock.now
    machine.close()
    return found


TICKING = {
    "periodic": (lapic_timer(PERIODIC), ""),
    "behind one in service": (lapic_timer(PERIODIC), SERVED),
    "LINT0 fixed": (through_lint0(VECTOR), ""),
    "LINT0 ExtINT": (through_lint0(0x700), ""),
    "LINT0 NMI": (through_lint0(NMI), ""),
}


@pytest.mark.slow_variants(keep=8)
@pytest.mark.parametrize("priority", [0, 0x3F, 0x40, 0x45, 0xF0])
@pytest.mark.parametrize("kind", TICKING)
def test_a_run_ends_at_once_exactly_where_the_priority_holds_all_back(
    kind: str, priority: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "IDLE_LIMIT_NS", 10_000_000)
    ticking, before = TICKING[kind]
    firmware = guest(priority, ticking, before)
    exit, woken, waited = run(firmware, foreseen=False)
    ours, count, ended = run(firmware, foreseen=True)
    assert exit.reason is ours.reason is (MachineStop.EXIT if woken else MachineStop.DEADLOCK)
    assert count == woken
    passes = kind in ("LINT0 ExtINT", "LINT0 NMI")  # the priority is of fixed vectors (SDM vol. 3A, 11.8.3.1)
    assert woken == (passes or (priority < 0x40 and not before))
    if not woken:
        assert exit.detail == AN_HOUR
        assert ended <= QUIET < waited
        by = "0x50 (vector 0x51 is in service)" if before and priority < 0x50 else f"{priority:#04x} (TPR)"
        behind = f"vector 0x45 waits behind the local APIC's priority {by}"  # it came while the keyboard tested itself
        assert ours.detail == f"HLT, and all that ticks is masked or held back; {behind}"


def test_a_shot_that_was_fired_into_the_priority_is_named() -> None:
    wait = "mov cx, 0xffff\nspin: loop spin\n"
    exit, count, ended = run(guest(0x70, msr(TPR, 0x70) + lapic_timer(ONE_SHOT) + wait), foreseen=True)
    assert (exit.reason, count) == (MachineStop.DEADLOCK, 0)
    assert exit.detail == (
        "HLT, and no device will ever interrupt; vector 0x45 waits behind the local APIC's priority 0x70 (TPR)"
    )
    assert ended < QUIET


@pytest.mark.parametrize("policy", ["native", "emulated"])
def test_devices_in_the_model_are_foreseen_as_the_machines_own(policy: str) -> None:
    firmware = guest(0xF0, lapic_timer(PERIODIC))
    assert run(firmware, foreseen=True, keeper=ModelDevices, policy=policy) == run(firmware, foreseen=True)


def test_why_stuck_names_the_priority_and_what_waits_behind_it() -> None:
    wait = "mov cx, 0xffff\nspin: loop spin\n"
    firmware = guest(0x70, msr(TPR, 0x70) + lapic_timer(PERIODIC) + wait)
    debugger = Debugger(build_machine(MachineConfig(machine="pc", memory=2 << 20, firmware=firmware, shadow=False)))
    debugger.set_limit(100_000)
    debugger.begin_continue()
    debugger.run()
    view = debugger.why_stuck()
    assert view.verdict == "halted"
    assert "waits for an interrupt" in view.summary
    assert "vector 0x45 waits behind the local APIC's priority 0x70 (TPR)" in view.details
    debugger.machine.close()
