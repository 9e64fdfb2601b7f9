"""Polls of the model's own devices are answered ahead: the run and its ledger are as if each had been asked for.

The oracle is the same run with its ports traced, where every access reaches the device by way of Python.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from boots.machines import options_of
from boots.table import BOOTS
from emu.debugger import Debugger
from emu.firmware.roms import FirmwareError, find_firmware
from emu.ledger import Costs
from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig
from machines import TIMER_100US, rom
from repl.boot_machine import BootMachine
from run_loops import needs_helper
from xenbridge.model import make_model
from xenbridge.model_devices import ModelDevices

POLICIES = ("emulated", "native", "dwell:50", "dwell:5000")
TICKS = 40
#: Waits for counter 2 by port 61h, then for ticks: each reads counter 0 latched, halts, and lets REP INSB read port 61h
#: into RAM and into the display's window, an exit and accesses inside in one instruction. All that is read is added up.
POLLS = f"""
    mov ss, ax
    mov sp, 0x7000
    mov word [8 * 4], tick
    mov word [8 * 4 + 2], 0xf000
    {TIMER_100US}
    in al, 0x61
    and al, 0xfd
    or al, 1
    out 0x61, al
    mov al, 0xb0
    out 0x43, al
    mov ax, 5000
    out 0x42, al
    mov al, ah
    out 0x42, al
poll:
    in al, 0x61
    add [0x508], al
    test al, 0x20
    jz poll
    cld
    sti
again:
    mov al, 0
    out 0x43, al
    in al, 0x40
    mov ah, al
    in al, 0x40
    add [0x504], ax
    mov dx, 0x61
    mov cx, 0
    mov es, cx
    mov di, 0x600
    mov cx, 40
    rep insb
    mov cx, 0xb800
    mov es, cx
    mov di, 0
    mov cx, 3
    rep insb
    hlt
    cmp word [0x500], {TICKS}
    jb again
    mov al, 7
    out 0xf4, al
"""
#: As Linux ends a level: masked, ended, unmasked.
TICK = """
tick:
    inc word [0x500]
    push ax
    in al, 0x21
    mov ah, al
    or al, 1
    out 0x21, al
    mov al, 0x60
    out 0x20, al
    mov al, ah
    out 0x21, al
    pop ax
    iret
"""


def machine(policy: str, slice: int | None) -> Machine:
    native = NativeConfig(make_model(), policy_named(policy, Costs()), Costs())
    return build_machine(
        MachineConfig(
            firmware=rom(POLLS, TICK), shadow=False, memory=1 << 20, native=native, keeper=ModelDevices, slice=slice
        )
    )


def counted(made: Machine) -> tuple[object, ...]:
    transitions = made.transitions
    assert transitions is not None
    ledger = transitions.ledger
    story = [(t.retired, t.pc, t.native) for t in transitions.history]
    return made.fingerprint(), +ledger.exits, ledger.inside, ledger.requests, ledger.caught, ledger.cycles, story


def ran(policy: str, slice: int | None, *, traced: bool) -> tuple[tuple[object, ...], int]:
    """The run and its ledger, and how many requests reached the devices' keeper."""
    made = machine(policy, slice)
    if traced:
        made.ports.trace = lambda port, size, value, is_write: None
    assert made.run(5_000_000).reason is MachineStop.EXIT
    assert isinstance(made.keeper, ModelDevices)
    found = counted(made), made.keeper.requests
    made.close()
    return found


@pytest.fixture(scope="module")
def traced() -> Callable[[str], tuple[tuple[object, ...], int]]:
    """The oracle of a policy, which is run once."""
    return functools.cache(lambda policy: ran(policy, None, traced=True))


@pytest.mark.slow
@pytest.mark.parametrize("slice", [None, 1009])
@pytest.mark.parametrize("policy", POLICIES)
def test_answers_ahead_leave_no_trace_in_the_run_and_in_the_ledger(
    policy: str, slice: int | None, traced: Callable[[str], tuple[tuple[object, ...], int]]
) -> None:
    found, asked = ran(policy, slice, traced=False)
    expected, most = traced(policy)
    assert found == expected
    assert asked <= most


@pytest.mark.slow_variants
@needs_helper
@pytest.mark.parametrize("policy", POLICIES)
def test_few_accesses_inside_reach_python(policy: str) -> None:
    """Port 61h is asked again when the refresh toggle changes, each 15 us, which is 300 polls of 5 instructions."""
    made = machine(policy, None)
    assert made.run(5_000_000).reason is MachineStop.EXIT
    assert made.transitions is not None and isinstance(made.keeper, ModelDevices)
    ledger = made.transitions.ledger
    assert ledger.inside + ledger.requests > 80_000
    assert made.keeper.requests < (ledger.inside + ledger.requests) / 20
    made.close()


#: The count of the HPET's main counter before and behind HLT, whose time is skipped.
HPET_READS = f"""
    mov ss, ax
    mov sp, 0x7000
    mov word [8 * 4], tick
    mov word [8 * 4 + 2], 0xf000
    mov ecx, 0x1b
    rdmsr
    and ah, 0xf7
    wrmsr
    {TIMER_100US}
    o32 lgdt [cs:pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 8
    mov ds, bx
    and al, 0xfe
    mov cr0, eax
    mov ebx, 0xfed00000
    mov dword [ebx + 0x10], 1
    mov eax, [ebx + 0xf0]
    mov [0x1000], eax
    sti
    hlt
    mov eax, [ebx + 0xf0]
    mov [0x1004], eax
    mov al, 7
    out 0xf4, al
    align 8
gdt:
    dq 0, 0x008f92000000ffff
pointer:
    dw 15
    dd 0xf0000 + gdt
"""


@pytest.mark.parametrize("policy", ["emulated", "native"])
def test_the_hpet_counts_the_time_that_a_halted_cpu_skips(policy: str) -> None:
    """Its count, 10 ns each, is answered ahead by the time that was skipped; the tick comes within 100 us."""
    native = NativeConfig(make_model(), policy_named(policy, Costs()), Costs())
    made = build_machine(
        MachineConfig(
            machine="pc", firmware=rom(HPET_READS, TICK), memory=2 << 20, native=native, keeper=ModelDevices,
            shadow=False,
        )
    )  # fmt: skip
    assert made.run(100_000).reason is MachineStop.EXIT
    before, behind = (int.from_bytes(made.memory.read(at, 4), "little") for at in (0x1000, 0x1004))
    assert made.clock.skipped > 50_000
    assert 0 <= (behind - before) * 10 - made.clock.skipped < 2_000
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("policy", ["native", "dwell:1000"])
def test_seabios_and_its_ledger_are_the_same_with_each_poll_asked_for(policy: str, tmp_path: Path) -> None:
    boot = next(row for row in BOOTS if row.name == "post")
    try:
        find_firmware("seabios", boot.machine)
    except FirmwareError as error:
        pytest.skip(str(error))
    options = options_of(boot, "seabios", tmp_path)
    model = ("--hypervisor", "model", "--policy", policy, "--devices-in", "hypervisor")
    found = []
    for traced in (False, True):
        made = BootMachine([*options, *model], until=boot.event, limit=7_000_000)
        debugger: Debugger = made.debugger
        if traced:
            debugger.machine.ports.trace = lambda port, size, value, is_write: None
        debugger.machine.run(7_000_000)
        found.append(counted(debugger.machine))
        made.close()
    assert found[0] == found[1]
    assert found[0][2] > 50_000
