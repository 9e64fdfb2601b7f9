"""What a write to a control, debug or segment register does, which values the CPU refuses (SDM vol. 2, MOV CR, DR)."""

from __future__ import annotations

from emu.x86 import flags
from emu.x86.modes import Mode, mode_of
from emu.x86.paging import MAX_PHYSICAL_BITS, is_canonical
from emu.x86.state import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    RFLAGS_VM,
    CpuState,
    Segment,
)


class RegisterError(Exception):
    """The CPU does not allow the value in the register; one sentence says why."""


CR0_ET, CR0_NW, CR0_CD = 1 << 4, 1 << 29, 1 << 30
CR4_LA57, CR4_PCIDE, CR4_CET = 1 << 12, 1 << 17, 1 << 23
#: Always set in DR6: bits 31:16, 11:4 (SDM vol. 3B, 18.2.3); in DR7: bit 10 (18.2.4); in RFLAGS: bit 1.
DR6_FIXED, DR7_FIXED, RFLAGS_FIXED = 0xFFFF0FF0, 0x400, 0x2
ACCESS_G, ACCESS_UNUSABLE = 1 << 15, 1 << 16
#: What VMX and the CPU put into the caches of a virtual-8086 task (SDM vol. 3C, 27.3.1.2).
V86_ACCESS = 0xF3


def fits(name: str, value: int, bits: int) -> int:
    """`value` as an unsigned number of `bits` bits; a negative one is taken in two's complement."""
    if not -(1 << bits - 1) <= value < 1 << bits:
        raise RegisterError(f"{name} has {bits} bits: {value:#x} does not fit")
    return value & (1 << bits) - 1


def _reserved(name: str, value: int, allowed: int) -> None:
    wrong = value & ~allowed
    if wrong:
        raise RegisterError(f"{name} = {value:#x} sets reserved bits {wrong:#x}: the CPU would raise #GP(0)")


def _long(state: CpuState) -> bool:
    return bool(state.efer & EFER_LMA)


def canonical(name: str, value: int, state: CpuState) -> int:
    """`value` where it is a linear address the CPU can hold in any mode (SDM vol. 1, 3.3.7.1)."""
    if not is_canonical(value, state):
        width = 57 if state.cr4 & CR4_LA57 else 48
        raise RegisterError(f"{name} = {value:#x} is not canonical: bits 63 to {width - 1} must be equal")
    return value


def linear_address(name: str, value: int, state: CpuState) -> int:
    """`value` where it is a linear address in the present mode: canonical in IA-32e mode, else 32 bits."""
    if _long(state):
        return canonical(name, value, state)
    if value >> 32:
        raise RegisterError(f"{name} = {value:#x} needs IA-32e mode: outside it linear addresses have 32 bits")
    return value


def write_rip(state: CpuState, value: int) -> None:
    """RIP: canonical in 64-bit mode, 32 bits elsewhere."""
    if state.long64:
        canonical("rip", value, state)
    elif value >> 32:
        raise RegisterError(f"rip = {value:#x} needs 64-bit mode: elsewhere the instruction pointer has 32 bits")
    state.rip = value


def write_rflags(state: CpuState, value: int) -> None:
    """RFLAGS. Bit 1 stays set; VM changes only together with all segment registers (IRET, task switch), so not here."""
    _reserved("rflags", value, flags.mask(flags.EFLAGS) | RFLAGS_FIXED)
    if (value ^ state.rflags) & RFLAGS_VM:
        raise RegisterError("VM in rflags cannot be changed alone: IRET, an interrupt or a task switch changes it")
    state.rflags = value | RFLAGS_FIXED


def write_cr0(state: CpuState, value: int) -> None:
    """MOV to CR0 (SDM vol. 2B, MOV CR, exceptions; vol. 3A, 2.5 and 10.8.5 for what PG does to EFER.LMA).

    Undefined bits among the low 32 are dropped and ET stays set, as the CPU does.
    """
    if value >> 32:
        _reserved("cr0", value, 0xFFFFFFFF)
    if value & CR0_PG and not value & CR0_PE:
        raise RegisterError(f"cr0 = {value:#x} sets PG without PE: the CPU would raise #GP(0)")
    if value & CR0_NW and not value & CR0_CD:
        raise RegisterError(f"cr0 = {value:#x} sets NW without CD: the CPU would raise #GP(0)")
    if not value & CR0_PE and state.rflags & RFLAGS_VM:
        raise RegisterError("PE in cr0 cannot be cleared in virtual-8086 mode: VM in rflags is set")
    if not value & CR0_WP and state.cr4 & CR4_CET:
        raise RegisterError("WP in cr0 cannot be cleared while CET in cr4 is set: the CPU would raise #GP(0)")
    if (value ^ state.cr0) & CR0_PG:
        if value & CR0_PG:
            _enable_paging(state)
        else:
            _disable_paging(state)
    state.cr0 = value & flags.mask(flags.CR0) | CR0_ET


def _enable_paging(state: CpuState) -> None:
    if not state.efer & EFER_LME:
        return
    if not state.cr4 & CR4_PAE:
        raise RegisterError("PG in cr0 with LME in efer needs PAE in cr4: the CPU would raise #GP(0)")
    if state.cs.long:
        raise RegisterError("PG in cr0 with LME in efer cannot be set while CS.L is set: the CPU would raise #GP(0)")
    if state.tr.present and state.tr.type in (1, 3):
        raise RegisterError("PG in cr0 with LME in efer cannot be set with a 16-bit TSS in TR: #GP(0)")
    state.efer |= EFER_LMA


def _disable_paging(state: CpuState) -> None:
    if state.long64:
        raise RegisterError("PG in cr0 cannot be cleared in 64-bit mode: go through compatibility mode")
    if state.cr4 & CR4_PCIDE:
        raise RegisterError("PG in cr0 cannot be cleared while PCIDE in cr4 is set: the CPU would raise #GP(0)")
    state.efer &= ~EFER_LMA


def write_cr3(state: CpuState, value: int) -> None:
    """CR3: 32 bits outside IA-32e mode, else no bit above the physical address width."""
    if _long(state):
        _reserved("cr3", value, (1 << MAX_PHYSICAL_BITS) - 1)
    elif value >> 32:
        raise RegisterError(f"cr3 = {value:#x} needs IA-32e mode: outside it cr3 has 32 bits")
    state.cr3 = value


def write_cr4(state: CpuState, value: int) -> None:
    """MOV to CR4 (SDM vol. 2B, MOV CR, exceptions)."""
    _reserved("cr4", value, flags.mask(flags.CR4))
    changed = value ^ state.cr4
    if _long(state) and changed & CR4_PAE:
        raise RegisterError("PAE in cr4 cannot be cleared in IA-32e mode: the CPU would raise #GP(0)")
    if _long(state) and changed & CR4_LA57:
        raise RegisterError("LA57 in cr4 cannot be changed in IA-32e mode: the CPU would raise #GP(0)")
    if changed & value & CR4_PCIDE and not (_long(state) and not state.cr3 & 0xFFF):
        raise RegisterError("PCIDE in cr4 needs IA-32e mode and bits 11:0 of cr3 clear: the CPU would raise #GP(0)")
    if value & CR4_CET and not state.cr0 & CR0_WP:
        raise RegisterError("CET in cr4 needs WP in cr0: the CPU would raise #GP(0)")
    state.cr4 = value


def write_efer(state: CpuState, value: int) -> None:
    """WRMSR to IA32_EFER (SDM vol. 3A, 2.2.1 and 10.8.5): LME is fixed while paging is on, LMA is the CPU's."""
    _reserved("efer", value, flags.mask(flags.EFER))
    changed = value ^ state.efer
    if changed & EFER_LME and state.cr0 & CR0_PG:
        raise RegisterError("LME in efer cannot be changed while PG in cr0 is set: the CPU would raise #GP(0)")
    if changed & EFER_LMA:
        raise RegisterError("LMA in efer cannot be written: it follows LME in efer and PG in cr0")
    state.efer = value


def write_dr(state: CpuState, number: int, value: int) -> None:
    """MOV to DR0-3, DR6, DR7; the fixed bits of DR6 and DR7 stay as they are (SDM vol. 3B, 18.2)."""
    if number in (6, 7):
        _reserved(f"dr{number}", value, 0xFFFFFFFF)
        table, fixed = (flags.DR6, DR6_FIXED) if number == 6 else (flags.DR7, DR7_FIXED)
        value = value & flags.mask(table) | fixed
    elif value >> 32 and not _long(state):
        raise RegisterError(f"dr{number} = {value:#x} needs IA-32e mode: outside it debug addresses have 32 bits")
    state.dr[number] = value


def write_pat(state: CpuState, number: int, value: int) -> None:
    """IA32_PAT: eight bytes, each a memory type 0, 1, 4, 5, 6 or 7 (SDM vol. 3A, 12.12.2)."""
    for index, kind in enumerate(value.to_bytes(8, "little")):
        if kind not in (0, 1, 4, 5, 6, 7):
            raise RegisterError(f"pat = {value:#x}: PA{index} is {kind}, not a memory type (0, 1, 4, 5, 6, 7)")
    state.msrs[number] = value


def write_apic_base(state: CpuState, number: int, value: int) -> None:
    """IA32_APIC_BASE: page-aligned base, BSP, EXTD only together with EN (SDM vol. 3A, 11.4.4 and 11.12.1)."""
    _reserved("apic_base", value, flags.mask(flags.APIC_BASE) | (1 << MAX_PHYSICAL_BITS) - 0x1000)
    if value & 1 << 10 and not value & 1 << 11:
        raise RegisterError(f"apic_base = {value:#x} sets EXTD without EN: the CPU would raise #GP(0)")
    state.msrs[number] = value


def write_mxcsr(state: CpuState, value: int) -> None:
    """MXCSR: bits 31:16 are reserved (SDM vol. 1, 10.2.3)."""
    _reserved("mxcsr", value, 0xFFFF)
    state.fpu.mxcsr = value


def write_base(state: CpuState, name: str, value: int) -> None:
    """A cached base: FS, GS, LDTR and TR may be canonical 64-bit, the others have 32 bits (SDM vol. 3C, 27.3.1.2)."""
    if name in ("fs", "gs", "ldtr", "tr"):
        canonical(f"{name}_base", value, state)
    state.segment(name).base = value


def write_limit(state: CpuState, name: str, value: int) -> None:
    """A cached limit in bytes. G follows where the limit leaves no choice (SDM vol. 3A, 3.4.5, segment limit field)."""
    segment = state.segment(name)
    if value >> 20:
        if value & 0xFFF != 0xFFF:
            raise RegisterError(
                f"{name}_limit = {value:#x} cannot exist: above 0xfffff a limit ends in fff (counted in 4 KiB pages)"
            )
        segment.access |= ACCESS_G
    elif value & 0xFFF != 0xFFF:
        segment.access &= ~ACCESS_G
    segment.limit = value


def write_access(state: CpuState, name: str, value: int) -> None:
    """Cached access rights in VMX layout: right kind for the register, G in agreement with the limit."""
    register = f"{name}_attr"
    _reserved(register, value, flags.mask(flags.ACCESS))
    segment = state.segment(name)
    if not value & ACCESS_UNUSABLE:
        why = _wrong_type(state, name, value)
        if why:
            raise RegisterError(f"{register} = {value:#x}: {why}")
        if value & ACCESS_G and segment.limit & 0xFFF != 0xFFF:
            raise RegisterError(f"{register} = {value:#x} sets G, but the limit {segment.limit:#x} does not end in fff")
        if not value & ACCESS_G and segment.limit >> 20:
            raise RegisterError(f"{register} = {value:#x} clears G, but the limit {segment.limit:#x} needs it")
    segment.access = value


def _wrong_type(state: CpuState, name: str, access: int) -> str:
    """Why a usable segment of these access rights cannot be in register `name` (SDM vol. 3C, 27.3.1.2), or ""."""
    kind, code = access & 0xF, bool(access & 8)
    if name == "ldtr":
        return "" if access & 0x1F == 2 else "LDTR holds only an LDT (S 0, type 2)"
    if name == "tr":
        return "" if not access & 0x10 and kind in (1, 3, 9, 11) else "TR holds only a TSS (S 0, type 1, 3, 9 or 11)"
    if not access & 0x10:
        return f"{name.upper()} holds only code and data segments (S 1)"
    if name == "cs" and not code and not (mode_of(state).real_addressing and kind & 0xE == 2):
        return "CS holds only code (type 8 to 15); in real and V86 mode also writable data (type 2, 3)"
    if name == "ss" and (code or not kind & 2):
        return "SS holds only writable data (type 2, 3, 6 or 7)"
    if name not in ("cs", "ss") and code and not kind & 2:
        return f"{name.upper()} cannot hold execute-only code"
    return ""


def write_selector(state: CpuState, name: str, value: int) -> None:
    """A selector as the CPU loads it without a table: real mode and V86 (SDM vol. 3A, 21.1.1 and 21.2.1).

    In real mode limit and access rights stay, so big real mode survives. In protected mode the descriptor table
    decides: `emu.x86.descriptors.load_selector`.
    """
    mode = mode_of(state)
    if name in ("ldtr", "tr"):
        raise RegisterError(f"{name} is loaded from the GDT: load_selector does it, or write {name}_base and its like")
    if not mode.real_addressing:
        raise RegisterError(f"{name} is loaded from a descriptor table in {mode.label} mode: load_selector does it")
    segment = state.segment(name)
    segment.selector, segment.base = value, value << 4
    if mode is Mode.V86:
        segment.limit, segment.access = 0xFFFF, V86_ACCESS


def null_segment(selector: int, dpl: int = 0) -> Segment:
    """What loading a null selector leaves: an unusable cache (SDM vol. 3A, 5.4.1)."""
    return Segment(selector, 0, 0, ACCESS_UNUSABLE | dpl << 5)
