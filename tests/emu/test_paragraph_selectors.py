"""Protected mode whose code selector is the paragraph of its base runs natively, and what CR0.PE leaves does not."""

from __future__ import annotations

import pytest

from emu.catches import ENTRY_CLASSES, Catch, CatchKind
from emu.debugger import BreakKind, Debugger
from emu.ledger import Costs
from emu.machine import MachineConfig, build_machine
from emu.policies import policy_named
from emu.stops import StopKind
from emu.transitions import NativeConfig
from emu.x86.modes import Mode
from emu.x86.vmentry import VTX2006
from machines import rom
from xenbridge.model import make_model

#: A GDT at 1000h: 08h is 64 KiB of data at 0, 7C0h is 64 KiB of code at 7C00h, where seven instructions turn for ever.
GUEST = """
    cld
    mov es, ax
    mov si, data
    mov di, 0x1008
    mov cx, 4
    cs rep movsw
    mov di, 0x17c0
    mov cx, 4
    cs rep movsw
    mov di, 0x7c00
    mov cx, turning.end - turning
    cs rep movsb
    o32 lgdt [cs:register]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    nop
    jmp 0x7c0:0
    data: dw 0xffff, 0, 0x9300, 0
    code: dw 0xffff, 0x7c00, 0x9b00, 0
turning:
    mov ax, 8
    mov ds, ax
    mov ss, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    .w: inc dword [0x500]
    jmp .w
    .end:
    register: dw 0x7c7
    dd 0x1000
"""


@pytest.fixture
def run() -> Debugger:
    native = NativeConfig(make_model(VTX2006), policy_named("native", Costs()), Costs())
    made = Debugger(build_machine(MachineConfig(firmware=rom(GUEST), memory=1 << 20, shadow=False, native=native)))
    made.set_limit(20_000)
    return made


def continued(run: Debugger) -> StopKind:
    run.begin_continue()
    return run.run().kind


def test_such_code_runs_natively(run: Debugger) -> None:
    assert continued(run) is StopKind.LIMIT
    transitions = run.machine.transitions
    assert transitions is not None
    assert run.mode() is Mode.PROTECTED16 and transitions.native
    assert not run.why(VTX2006).broken
    assert transitions.ledger.native > 19_000
    run.machine.close()


def test_it_does_not_while_cs_is_what_real_mode_has_loaded(run: Debugger) -> None:
    run.add_catch(Catch(CatchKind.UNENTERABLE, classes=int(ENTRY_CLASSES), rules=VTX2006))
    assert continued(run) is StopKind.CATCH
    assert run.mode() is Mode.PROTECTED16 and run.cpu().cs.selector == 0xF000
    entry = run.why(VTX2006)
    assert any("CS 0xf000 is as real mode has loaded it" in text for text in entry.broken)
    assert "loads" in entry.ahead and "behind it the state can be entered" in entry.ahead
    run.machine.close()


def test_what_the_table_says_now_decides(run: Debugger) -> None:
    run.add_breakpoint(BreakKind.EXECUTE, 0x7C0D)
    assert continued(run) is StopKind.BREAKPOINT
    assert not run.why(VTX2006).broken
    run.machine.write_physical(0x17C3, b"\0")
    assert [text for text in run.why(VTX2006).broken if "as real mode has loaded it" in text]
    run.machine.close()
