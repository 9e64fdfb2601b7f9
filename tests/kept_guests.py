"""Guests whose PIC and PIT are a hypervisor's, and native CPUs for them."""

from __future__ import annotations

import time

import pytest

from emu.engine import EngineError
from emu.ledger import Costs
from emu.policies import policy_named
from emu.transitions import NativeConfig
from machines import rom
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.probe import make_kvm

#: The 8259 at vectors 8 and 70h with IRQ 0 alone, and counter 0 in mode 2 with a period of {count} CLK pulses;
#: {wait} is executed between two ticks, of which there are {ticks}.
GUEST = """
    xor eax, eax
    mov [0x500], eax
    mov [0x504], eax
    mov word [8 * 4], tick
    mov word [8 * 4 + 2], 0xf000
    mov word [12 * 4], port
    mov word [12 * 4 + 2], 0xf000
    mov word [0x20 * 4], moved
    mov word [0x20 * 4 + 2], 0xf000
    mov sp, 0x7c00
    mov bl, 8
    call init
    mov al, 0x34
    out 0x43, al
    mov al, {count} & 0xff
    out 0x40, al
    mov al, {count} >> 8
    out 0x40, al
    {body}
    mov al, 7
    out 0xf4, al
    hlt
"""
HANDLERS = """
init:
    mov al, 0x11
    out 0x20, al
    mov al, bl
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    ret
tick:
    push eax
    inc dword [0x500]
    mov eax, [0x500]
    cmp eax, [0x518]
    jne counted
    mov al, 0xff
    out 0x21, al
counted:
    pop eax
    jmp eoi
port:
    inc dword [0x504]
    push ax
    push dx
    mov dx, 0x3fa
    in al, dx
    mov [0x508], al
    pop dx
    pop ax
    jmp eoi
moved:
    inc dword [0x50c]
eoi:
    push ax
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
"""
#: The handler masks IRQ 0 at the last tick, before its EOI: where the host is late another one would come before the
#: loop has looked, and another behind that one.
COUNTING = """
    mov dword [0x518], {ticks}
again:
    sti
    {wait}
    cli
    cmp dword [0x500], {ticks}
    jb again
"""
TICKS = 200


def guest(body: str, count: int = 1193, **words: object) -> bytes:
    return rom(GUEST.format(count=count, body=body.format(count=count, **words)), HANDLERS)


def on_kvm(policy: str) -> NativeConfig:
    """A CPU of KVM's by this policy, on the host's clock. Skips the test where there is none."""
    costs = Costs()
    try:
        return NativeConfig(make_kvm(lambda notice: None), policy_named(policy, costs), costs, time.monotonic_ns)
    except (KvmError, EngineError) as error:
        pytest.skip(str(error))
