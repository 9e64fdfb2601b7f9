"""CPU states with anything in them, for tests that compare two ways to read or write one."""

from __future__ import annotations

import random

from emu.x86 import msrs as m
from emu.x86.state import CpuState, Fpu, Segment, Table

RFLAGS = 0x3F7FD7


def _segment(rng: random.Random, kind: int, *, busy: bool = False) -> Segment:
    access = rng.getrandbits(4) | kind | rng.getrandbits(2) << 5 | rng.getrandbits(4) << 12
    access |= rng.choice((0x80, 0x10000))
    if busy:
        access = rng.choice((0x8B, 0x83))
    return Segment(rng.getrandbits(16), rng.getrandbits(64), rng.getrandbits(32), access)


def any_state(seed: int) -> CpuState:
    """Anything in everything that is packed; not one that a CPU could execute from."""
    rng = random.Random(seed)
    state = CpuState(regs=[rng.getrandbits(64) for _ in range(16)], rip=rng.getrandbits(64))
    state.rflags = rng.getrandbits(22) & RFLAGS | 2
    for name in ("es", "cs", "ss", "ds", "fs", "gs"):
        setattr(state, name, _segment(rng, 0x10))
    state.ldtr, state.tr = _segment(rng, 0), _segment(rng, 0, busy=True)
    state.gdtr, state.idtr = (Table(rng.getrandbits(64), rng.getrandbits(16)) for _ in range(2))
    state.cr0 = rng.getrandbits(32) & ~(1 << 31) | 0x10
    state.cr2, state.cr3, state.cr4 = rng.getrandbits(64), rng.getrandbits(32) & ~0xFFF, rng.getrandbits(22)
    state.cr8, state.efer = rng.getrandbits(4), rng.choice((0, 1, 0x500, 0x501, 0xD01))
    state.dr = [*(rng.getrandbits(64) for _ in range(4)), 0, 0, 0xFFFF0FF0 | rng.getrandbits(4), 0x400]
    fpu = Fpu(rng.getrandbits(12) & ~0xC0 | 0x40, rng.getrandbits(16), rng.getrandbits(8), rng.getrandbits(11))
    fpu.fip, fpu.fcs, fpu.fdp, fpu.fds = (rng.getrandbits(n) for n in (64, 16, 64, 16))
    fpu.mxcsr = rng.getrandbits(16)
    fpu.st = [rng.getrandbits(80) for _ in range(8)]
    fpu.xmm = [rng.getrandbits(128) for _ in range(16)]
    state.fpu = fpu
    state.msrs = {
        m.SYSENTER_CS: rng.getrandbits(16), m.STAR: rng.getrandbits(64), m.KERNEL_GS_BASE: rng.getrandbits(47),
        m.TSC_AUX: rng.getrandbits(32), m.SYSENTER_ESP: rng.getrandbits(47), m.FMASK: rng.getrandbits(22),
    }  # fmt: skip
    state.shadow, state.nmi_blocked, state.halted = (rng.random() < 0.5 for _ in range(3))
    state.a20 = rng.random() < 0.8
    return state
