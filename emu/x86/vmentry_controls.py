"""What VT-x asks of a guest's control registers, MSRs, tables, RIP, RFLAGS and non-register state.

Sections are those of the SDM, vol. 3C, chapter 26: 26.3.1.1, .3, .4 and .5. Segments are in `emu.x86.vmentry`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from emu.x86 import flags
from emu.x86.paging import MAX_PHYSICAL_BITS
from emu.x86.state import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    RFLAGS_IF,
    RFLAGS_VM,
    RFLAGS_ZERO,
    CpuState,
)
from emu.x86.vmentry_rule import Broken, canonical

CONTROLS: Final = "SDM 3C 26.3.1.1"
ACTIVITY: Final = "SDM 3C 26.3.1.5"
#: The flag that is always 1 (SDM vol. 1, 3.4.3).
RFLAGS_ONE = 1 << 1
#: Of CR4 no CPU of Intel's has other bits (SDM vol. 3A, 2.5). Which of them one has is in its CPUID.
CR4_RESERVED = ~flags.mask(flags.CR4)
CR4_PCIDE, CR4_CET = 1 << 17, 1 << 23
#: SCE, LME, LMA and NXE are all that IA32_EFER has (SDM vol. 3A, 2.2.1).
EFER_RESERVED_INTEL = ~(1 << 0 | EFER_LME | EFER_LMA | 1 << 11)
#: Of IA32_PAT's bytes: UC, WC, WT, WP, WB and UC- (SDM vol. 3A, table 12-10).
PAT_TYPES: Final = frozenset((0, 1, 4, 5, 6, 7))
#: Bits of a VMCS's interruptibility state (SDM vol. 3C, table 24-3); above them all are reserved.
BLOCKED_BY_STI, BLOCKED_BY_MOV_SS, BLOCKED_BY_SMI, BLOCKED_BY_NMI, IN_ENCLAVE = (1 << bit for bit in range(5))
INTERRUPTIBILITY_RESERVED: Final = ~0x1F


def control_rules(state: CpuState) -> Iterator[Broken]:
    """What VT-x of each age asks of control registers, tables, RIP, RFLAGS and activity."""
    long = bool(state.efer & EFER_LMA)
    if state.cr0 & CR0_PG and not state.cr0 & CR0_PE:
        yield Broken("cr0", f"CR0 {state.cr0:#x} has PG without PE", CONTROLS)
    if state.cr0 & CR0_PG and long != bool(state.efer & EFER_LME):
        yield Broken("efer", f"EFER {state.efer:#x}: LMA is not LME with paging on", CONTROLS)
    if long and not state.cr4 & CR4_PAE:
        yield Broken("cr4", f"CR4 {state.cr4:#x} has no PAE in IA-32e mode", CONTROLS)
    if long and not state.cr0 & CR0_PG:
        yield Broken("cr0", f"CR0 {state.cr0:#x} has no PG in IA-32e mode", CONTROLS)
    if reserved := state.cr4 & CR4_RESERVED:
        yield Broken("cr4", f"CR4 {state.cr4:#x} has reserved bits {reserved:#x}", CONTROLS)
    if state.cr4 & CR4_PCIDE and not long:
        yield Broken("cr4", f"CR4 {state.cr4:#x} has PCIDE outside IA-32e mode", CONTROLS)
    if state.cr4 & CR4_CET and not state.cr0 & CR0_WP:
        yield Broken("cr4", f"CR4 {state.cr4:#x} has CET and CR0 {state.cr0:#x} no WP", CONTROLS)
    if state.cr3 >> MAX_PHYSICAL_BITS:
        yield Broken("cr3", f"CR3 {state.cr3:#x} has more than {MAX_PHYSICAL_BITS} bits", CONTROLS)
    if (dr7 := state.dr[7]) >> 32:
        yield Broken("dr7", f"DR7 {dr7:#x} has more than 32 bits", CONTROLS)
    for name, address in zip(("sysenter_esp", "sysenter_eip"), state.sysenter, strict=True):
        if not canonical(address):
            yield Broken(name, f"{name.upper()} {address:#x} is not canonical", CONTROLS)
    for name, table in (("gdtr", state.gdtr), ("idtr", state.idtr)):
        if table.limit > 0xFFFF:
            yield Broken(name, f"{name.upper()} limit {table.limit:#x} is above 0xffff", "SDM 3C 26.3.1.3")
        if not canonical(table.base):
            yield Broken(name, f"{name.upper()} base {table.base:#x} is not canonical", "SDM 3C 26.3.1.3")
    running = "SDM 3C 26.3.1.4"
    if not state.long64:
        if state.rip >> 32:
            yield Broken("rip", f"RIP {state.rip:#x} has more than 32 bits outside 64-bit mode", running)
    elif state.rip >> 48 not in (0, 0xFFFF):  # bit 47 may differ: the first fetch faults, not the entry
        yield Broken("rip", f"RIP {state.rip:#x} is not canonical: bits 63 to 48 differ", running)
    if state.rflags & RFLAGS_ZERO & (1 << 64) - 1 or not state.rflags & RFLAGS_ONE:
        yield Broken("rflags", f"RFLAGS {state.rflags:#x} has reserved bits set, or bit 1 clear", running)
    if state.rflags & RFLAGS_VM and (long or not state.cr0 & CR0_PE):
        yield Broken("rflags", "RFLAGS.VM is set outside protected mode", running)
    if state.halted and state.ss.dpl:
        yield Broken("ss", f"halted with SS.DPL {state.ss.dpl}, not 0", ACTIVITY)
    yield from interruptibility_rules(interruptibility(state), state.rflags, state.halted)


def msr_rules(state: CpuState) -> Iterator[Broken]:
    """What a CPU asks that loads IA32_EFER and IA32_PAT at VM entry; those of 2006 had no such controls."""
    if reserved := state.efer & EFER_RESERVED_INTEL:
        yield Broken("efer", f"EFER {state.efer:#x} has reserved bits {reserved:#x}", f"{CONTROLS}, load IA32_EFER")
    for index, kind in enumerate(state.pat.to_bytes(8, "little")):
        if kind not in PAT_TYPES:
            text = f"PAT {state.pat:#x}: PA{index} is {kind}, no memory type"
            yield Broken("pat", text, f"{CONTROLS}, load IA32_PAT")


def interruptibility(state: CpuState) -> int:
    """The interruptibility state with which a hypervisor enters `state`, which does not know what made its shadow.
    STI leaves IF set: with IF clear it was MOV SS or POP SS. Else it is said to be STI's, which blocks less."""
    shadow = (BLOCKED_BY_STI if state.rflags & RFLAGS_IF else BLOCKED_BY_MOV_SS) if state.shadow else 0
    return shadow | (BLOCKED_BY_NMI if state.nmi_blocked else 0)


def interruptibility_rules(blocking: int, rflags: int, halted: bool) -> Iterator[Broken]:
    """Which rules an interruptibility state breaks beside these RFLAGS, where no event is injected, the hypervisor is
    not in system management mode and nothing runs in an enclave."""
    words = f"interruptibility state {blocking:#x}"
    sti, mov_ss = blocking & BLOCKED_BY_STI, blocking & BLOCKED_BY_MOV_SS
    if halted and (sti or mov_ss):
        yield Broken("rflags", "halted in the shadow of STI or MOV SS", ACTIVITY)
    if reserved := blocking & INTERRUPTIBILITY_RESERVED:
        yield Broken("rflags", f"{words} has reserved bits {reserved:#x}", ACTIVITY)
    if sti and mov_ss:
        yield Broken("rflags", f"{words} blocks by both STI and MOV SS", ACTIVITY)
    if sti and not rflags & RFLAGS_IF:
        yield Broken("rflags", f"{words} blocks by STI, and RFLAGS {rflags:#x} has IF clear", ACTIVITY)
    if blocking & BLOCKED_BY_SMI:
        yield Broken("rflags", f"{words} blocks by SMI outside system management mode", ACTIVITY)
    if blocking & IN_ENCLAVE:
        yield Broken("rflags", f"{words} is an enclave's, and there is none", ACTIVITY)
