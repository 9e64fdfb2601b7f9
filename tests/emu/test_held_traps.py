"""A data breakpoint of the guest's own that MOV SS meets waits for the next instruction (SDM vol. 3A, 6.8.3), whoever
executes that."""

from __future__ import annotations

import pytest

from emu.debugger import Debugger
from emu.ledger import parse_costs
from emu.machine import MachineConfig, build_machine
from emu.policies import policy_named
from emu.stops import StopKind
from emu.transitions import NativeConfig
from emu.unicorn_helper import HELPER
from machines import rom
from xenbridge.model import make_model

TIMES = 400
#: 600h is what SS is loaded from, under DR0; 500h counts the #DB behind `mov sp`, 502h all others.
SOURCE = f"""
    mov ss, ax
    mov sp, 0x7000
    mov word [1*4], debug
    mov word [1*4+2], 0xf000
    mov dword [0x600], 0
    mov eax, 0x600
    mov dr0, eax
    mov eax, 0x70001
    mov dr7, eax
    mov cx, {TIMES}
again:
    test cl, 3
    jnz load
    out 0x80, al
load:
    mov ss, [0x600]
    mov sp, 0x7000
behind:
    nop
    loop again
    mov al, 0
    out 0xf4, al
debug:
    push bp
    mov bp, sp
    cmp word [bp+2], behind
    jne other
    inc word [0x500]
    jmp over
other:
    inc word [0x502]
over:
    pop bp
    iret
"""


@pytest.mark.skipif(isinstance(HELPER, str), reason=f"the C helper's: {HELPER}")
@pytest.mark.parametrize("policy", ["", "native", "dwell:1", "dwell:7", "dwell:13"])
def test_it_comes_behind_the_next_instruction_under_any_policy(policy: str) -> None:
    native, prices = None, parse_costs("exit=75000")
    if policy:
        native = NativeConfig(make_model(), policy_named(policy, prices), prices, None, lambda text: None)
    run = Debugger(build_machine(MachineConfig(memory=1 << 20, firmware=rom(SOURCE), native=native)))
    run.set_limit(100_000)
    run.begin_continue()
    stop = run.run()
    assert stop.kind is StopKind.EXIT, stop.text
    assert [int.from_bytes(run.read_linear(at, 2), "little") for at in (0x500, 0x502)] == [TIMES, 0]
    run.machine.close()
