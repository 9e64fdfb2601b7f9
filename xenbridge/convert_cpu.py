"""A CPU's state to and from the CPU, MTRR, TSC_ADJUST and CPU_MSR records of an HVM save context.

Access rights have bits 15:12 of the descriptor at 11:8 in Xen's records (xen/arch/x86/include/asm/hvm/hvm.h,
segment_attributes), and a segment that cannot be used is one that is not present.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from emu.x86 import msrs as m
from emu.x86.register_writes import ACCESS_UNUSABLE
from emu.x86.state import PAT_RESET, CpuState, Fpu, Segment, Table
from xenbridge.convert_fpu import area_fpu, build_fxsave, parse_fxsave, xcr0_here
from xenbridge.wire import hvm
from xenbridge.wire.errors import WireError
from xenbridge.wire.hvm import Record, build_record
from xenbridge.wire.hvm_cpu import CPU, FPU_INITIALISED, PENDING_VALID, SEGMENTS
from xenbridge.wire.schema import Values

#: rax to r15 as the CPU encodes them: their places in CpuState.regs.
_GENERAL: Final = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
_DEBUG: Final = (0, 1, 2, 3, 6, 7)
#: Field of the CPU record to the MSR that it is.
_MSRS: Final = {
    "sysenter_cs": m.SYSENTER_CS, "sysenter_esp": m.SYSENTER_ESP, "sysenter_eip": m.SYSENTER_EIP,
    "shadow_gs": m.KERNEL_GS_BASE, "msr_lstar": m.LSTAR, "msr_star": m.STAR, "msr_cstar": m.CSTAR,
    "msr_syscall_mask": m.FMASK, "msr_tsc_aux": m.TSC_AUX,
}  # fmt: skip
PAT, MTRR_CAP, MTRR_DEF_TYPE, MTRR_FIRST = 0x277, 0xFE, 0x2FF, 0x200
#: MSRs that are in a stream, as fields of the CPU, MTRR, LAPIC and TSC_ADJUST records or by the segments' bases.
SAVED_MSRS: Final = frozenset((
    *_MSRS.values(), PAT, MTRR_CAP, MTRR_DEF_TYPE, *range(MTRR_FIRST, MTRR_FIRST + 2 * m.VARIABLE_RANGES),
    *m.FIXED_RANGES, m.APIC_BASE, m.TSC, m.TSC_ADJUST, m.EFER, m.FS_BASE, m.GS_BASE,
))  # fmt: skip
_WORD = (1 << 64) - 1


def _access(rights: int) -> int:
    access = rights & 0xFF | (rights & 0xF00) << 4
    return access if access & 0x80 else access | ACCESS_UNUSABLE


def _rights(access: int) -> int:
    rights = access & 0xFF | access >> 4 & 0xF00
    return rights & ~0x80 if access & ACCESS_UNUSABLE else rights


def cpu_state(values: Values) -> CpuState:
    """What the CPU record alone says."""
    state = CpuState(
        regs=[values[name] for name in _GENERAL], rip=values["rip"], rflags=values["rflags"] | 2,
        gdtr=Table(values["gdtr_base"], values["gdtr_limit"]), idtr=Table(values["idtr_base"], values["idtr_limit"]),
        cr0=values["cr0"], cr2=values["cr2"], cr3=values["cr3"], cr4=values["cr4"], efer=values["msr_efer"],
        msrs={number: values[name] for name, number in _MSRS.items()},
    )  # fmt: skip
    for name in SEGMENTS:
        segment = Segment(
            values[f"{name}_sel"] & 0xFFFF, values[f"{name}_base"], values[f"{name}_limit"],
            _access(values[f"{name}_arbytes"]),
        )  # fmt: skip
        setattr(state, name, segment)
    for n in _DEBUG:
        state.dr[n] = values[f"dr{n}"]
    state.fpu = parse_fxsave(values["fpu_regs"]) if values["flags"] & FPU_INITIALISED else Fpu()
    return state


def cpu_values(state: CpuState, tsc: int) -> Values:
    """The CPU record of `state`. What it has no field for: interrupt shadow, NMI blocking, HLT, A20, SMM."""
    values = CPU.empty()
    values.update(zip(_GENERAL, state.regs, strict=True))
    values.update(
        fpu_regs=build_fxsave(state.fpu), rip=state.rip, rflags=state.rflags, cr0=state.cr0, cr2=state.cr2,
        cr3=state.cr3, cr4=state.cr4, msr_efer=state.efer, tsc=tsc & _WORD, flags=FPU_INITIALISED,
    )  # fmt: skip
    values.update({name: state.msrs.get(number, 0) for name, number in _MSRS.items()})
    for name in SEGMENTS:
        segment = state.segment(name)
        values[f"{name}_sel"], values[f"{name}_base"] = segment.selector, segment.base
        values[f"{name}_limit"], values[f"{name}_arbytes"] = segment.limit, _rights(segment.access)
    for name, table in (("gdtr", state.gdtr), ("idtr", state.idtr)):
        values[f"{name}_base"], values[f"{name}_limit"] = table.base, table.limit
    values.update({f"dr{n}": state.dr[n] for n in _DEBUG})
    return values


#: Type of a pending event: an interrupt.
EXTERNAL: Final = 0


def pending_event(values: Values) -> tuple[int, int] | None:
    """(vector, type as in VM-entry interruption information) of the event that was on its way into the CPU."""
    event = values["pending_event"]
    return (event & 0xFF, event >> 8 & 7) if event & PENDING_VALID else None


def other_msrs(records: tuple[Record, ...], cpu: int) -> dict[int, int]:
    """The MSRs of a vCPU's other records."""
    found: dict[int, int] = {}
    if (record := hvm.find(records, "MTRR", cpu)) is not None:
        values = record.values()
        found[PAT], found[MTRR_DEF_TYPE] = values["msr_pat_cr"], values["msr_mtrr_def_type"]
        found.update((MTRR_FIRST + n, value) for n, value in enumerate(values["msr_mtrr_var"]))
        found.update(zip(m.FIXED_RANGES, values["msr_mtrr_fixed"], strict=True))
    if (record := hvm.find(records, "CPU_MSR", cpu)) is not None:
        found.update((entry["index"], entry["val"]) for entry in record.values()["msrs"])
    return found


def mtrr_record(msrs: Mapping[int, int]) -> Record:
    """MTRRs and PAT; a CPU without them has those of RESET."""
    return build_record("MTRR", {
        "msr_pat_cr": msrs.get(PAT, PAT_RESET),
        "msr_mtrr_var": [msrs.get(MTRR_FIRST + n, 0) for n in range(2 * m.VARIABLE_RANGES)],
        "msr_mtrr_fixed": [msrs.get(n, 0) for n in m.FIXED_RANGES],
        "msr_mtrr_cap": m.VARIABLE_RANGES | 1 << 8 | 1 << 10,
        "msr_mtrr_def_type": msrs.get(MTRR_DEF_TYPE, 0),
    })  # fmt: skip


def context_cpu(records: tuple[Record, ...], cpu: int = 0) -> CpuState:
    """The CPU of a context, with what its other records say of it: MSRs, CR8 (the APIC's TPR), XCR0 and the FPU, as Xen
    loads CPU_XSAVE behind CPU. Raises WireError where there is no such vCPU."""
    record = hvm.find(records, "CPU", cpu)
    if record is None:
        raise WireError("HVM context", "CPU", records[0].offset if records else 0, f"it has no vCPU {cpu}")
    state = cpu_state(record.values())
    state.msrs.update(other_msrs(records, cpu))
    if (regs := hvm.find(records, "LAPIC_REGS", cpu)) is not None:
        state.cr8 = regs.data[0x80] >> 4
    if (xsave := hvm.find(records, "CPU_XSAVE", cpu)) is not None:
        values = xsave.values()
        state.xcr0, state.fpu = xcr0_here(values["xcr0"]), area_fpu(values)
    if (lapic := hvm.find(records, "LAPIC", cpu)) is not None:
        state.msrs[m.APIC_BASE] = lapic.values()["apic_base_msr"]
    return state


def take_ours(cpu: CpuState, ours: Values) -> None:
    """What a stream of v2e's says besides Xen's records (wire.stream.V2E_LAYOUT)."""
    flags = ours["flags"]
    cpu.halted, cpu.shadow = bool(flags & 1), bool(flags & 4)
    cpu.nmi_blocked, cpu.nmi_pending = bool(flags & 8), bool(flags & 16)
    if flags & 1 and flags & 2:
        cpu.rip += 1
