"""What of a CPU's state from a file no CPU can be in: a file says anything, an engine must not be given it."""

from __future__ import annotations

from emu.x86 import flags
from emu.x86.cpuid import CpuModel
from emu.x86.msrs import APIC_BASE, TSC, TSC_ADJUST, canonical, msrs_of
from emu.x86.register_writes import CR0_CD, CR0_NW, DR6_FIXED, DR7_FIXED, RFLAGS_FIXED
from emu.x86.state import CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, RFLAGS_VM, SEGMENTS, CpuState

#: XSAVE's components (SDM vol. 1, 13.1).
_X87, _SSE, _AVX, _MPX, _AVX512 = 1, 2, 4, 0x18, 0xE0
#: Kept beside the registers, or made from other state.
_ELSEWHERE = frozenset((APIC_BASE, TSC, TSC_ADJUST))


class ConvertError(Exception):
    """A state cannot be carried over; one sentence."""


def _refuse(name: str, value: int, why: str) -> ConvertError:
    return ConvertError(f"{name} = {value:#x} in the file {why}")


def check_cpu(state: CpuState) -> None:
    """Raises ConvertError for a state that the CPU cannot be in (SDM vol. 3A, 2.5, 4.1, 5.1; 26.3.1 of vol. 3C)."""
    for name, value, known in (
        ("CR0", state.cr0, flags.mask(flags.CR0)),
        ("CR4", state.cr4, flags.mask(flags.CR4)),
        ("EFER", state.efer, flags.mask(flags.EFER)),
        ("RFLAGS", state.rflags, flags.mask(flags.EFLAGS) | RFLAGS_FIXED),
        ("MXCSR", state.fpu.mxcsr, flags.mask(flags.MXCSR)),
        ("DR6", state.dr[6], flags.mask(flags.DR6) | DR6_FIXED),
        ("DR7", state.dr[7], flags.mask(flags.DR7) | DR7_FIXED),
    ):
        if value & ~known:
            raise _refuse(name, value, f"has bits {value & ~known:#x}, which are reserved")
    protected, paging = bool(state.cr0 & CR0_PE), bool(state.cr0 & CR0_PG)
    if paging and not protected:
        raise _refuse("CR0", state.cr0, "has PG without PE")
    if state.cr0 & CR0_NW and not state.cr0 & CR0_CD:
        raise _refuse("CR0", state.cr0, "has NW without CD")
    long_mode = bool(state.efer & EFER_LMA)
    if long_mode != bool(paging and state.efer & EFER_LME):
        raise _refuse("EFER", state.efer, f"has LMA {long_mode:d}, where LME and paging make it {not long_mode:d}")
    if long_mode and not state.cr4 & CR4_PAE:
        raise _refuse("CR4", state.cr4, "has no PAE in IA-32e mode")
    if state.rflags & RFLAGS_VM and (long_mode or not protected):
        raise _refuse("RFLAGS", state.rflags, "has VM in a mode that has none")
    if state.cr3 >> 52:
        raise _refuse("CR3", state.cr3, "is beyond the physical addresses that there are")
    if state.long64 and state.cs.big:
        raise _refuse("access rights of CS", state.cs.access, "have both L and D/B")
    if state.long64 and not canonical(state.rip):
        raise _refuse("RIP", state.rip, "is not canonical")
    if not state.long64 and state.rip >> 32:
        raise _refuse("RIP", state.rip, "has more than 32 bits outside 64-bit mode")
    for name in (*SEGMENTS, "ldtr", "tr"):
        base = state.segment(name).base
        if not canonical(base) if long_mode else base >> 32:
            raise _refuse(f"the base of {name.upper()}", base, "is no linear address of its mode")
    for table, limit in (("GDTR", state.gdtr.limit), ("IDTR", state.idtr.limit)):
        if limit >> 16:
            raise _refuse(f"the limit of {table}", limit, "has more than 16 bits")
    for table, base in (("GDTR", state.gdtr.base), ("IDTR", state.idtr.base)):
        if not canonical(base) if long_mode else base >> 32:
            raise _refuse(f"the base of {table}", base, "is no linear address of its mode")


def check_xcr0(xcr0: int) -> None:
    """Raises ConvertError for a value at which XSETBV raises #GP (SDM vol. 1, 13.3)."""
    for wrong, why in (
        (not xcr0 & _X87, "has no x87"),
        (xcr0 & _AVX and not xcr0 & _SSE, "has AVX without SSE"),
        (xcr0 & _AVX512 and not xcr0 & _AVX, "has AVX-512 without AVX"),
        (xcr0 & _AVX512 not in (0, _AVX512), "has not all of AVX-512"),
        (xcr0 & _MPX not in (0, _MPX), "has one half of MPX"),
    ):
        if wrong:
            raise _refuse("XCR0", xcr0, why)


def known_msrs(found: dict[int, int], model: CpuModel) -> tuple[dict[int, int], list[int]]:
    """Those that `model` has, and the numbers of the others that are not 0. Raises ConvertError for a value that WRMSR
    would refuse."""
    have = msrs_of(model)
    kept: dict[int, int] = {}
    strange: list[int] = []
    for number, value in found.items():
        if number in _ELSEWHERE:
            continue
        if (msr := have.get(number)) is None:
            strange += [number] if value else []
        elif msr.write is not None:
            accepted = msr.write(value, msr.reset)
            if accepted is None:
                raise ConvertError(f"MSR {number:#x} ({msr.name}) = {value:#x} in the file: WRMSR would raise #GP(0)")
            kept[number] = accepted
    return kept, strange
