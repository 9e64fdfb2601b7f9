"""What a machine has no place for of a stream, and a stream of a machine, in sentences: nothing goes in silence."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Final

from emu.x86.cpuid import CpuModel
from emu.x86.msrs import msrs_of
from emu.x86.state import CR4_OSXSAVE, EFER_LMA, CpuState
from xenbridge.convert_checks import check_xcr0
from xenbridge.convert_cpu import SAVED_MSRS
from xenbridge.convert_fpu import SSE_STATE, X87_STATE, check_xsave, xcr0_here
from xenbridge.wire import hvm
from xenbridge.wire.hvm import Record

#: Records that Xen writes of Hyper-V's interface, for a guest that it is shown to (`viridian` of xl.cfg).
_VIRIDIAN: Final = ("VIRIDIAN_DOMAIN", "VIRIDIAN_VCPU")


def absent(records: tuple[Record, ...], cpu: int, *, ours: bool) -> Iterator[str]:
    """What the machine has no place for, or the stream no record of. `ours`: it is one of v2e's, which has no I/O APIC
    of an isapc."""
    others = sum(record.code == hvm.CPU_CODE and record.instance != cpu for record in records)
    if others:
        yield f"the domain has {others + 1} vCPUs, the machine one: only vCPU {cpu} is loaded"
    # Xen writes them for each domain or vCPU (HVM_REGISTER_SAVE_RESTORE in xen/arch/x86/hvm).
    for name in ("PIC", "PIT", "RTC", *(() if ours else ("IOAPIC",)), "LAPIC", "LAPIC_REGS"):
        of = "" if "LAPIC" not in name else f" of vCPU {cpu}"
        if hvm.find(records, name, cpu if of else 0) is None:
            yield f"the stream has no record {name}{of}: it is as at power-on, and the guest may wait for ever"


def unplaced(records: tuple[Record, ...], cpu: int) -> Iterator[str]:
    """What the stream has and the machine not, but for the other vCPUs. Raises WireError, and ConvertError for an XCR0
    that no CPU can have."""
    if (state := hvm.find(records, "CPU_XSAVE", cpu)) is not None:
        yield from _xsave(state, hvm.find(records, "CPU", cpu))
    if any(record.name in _VIRIDIAN and any(record.data) for record in records):
        yield (
            "Hyper-V's interface to the guest, which the domain has (VIRIDIAN records), is not here: what the guest "
            "asks of it does nothing"
        )
    if (checks := hvm.find(records, "VMCE_VCPU", cpu)) is not None:
        values = checks.values()
        if any(values[name] for name in ("mci_ctl2_bank0", "mci_ctl2_bank1", "mcg_ext_ctl")):
            yield "the guest's settings of machine checks (VMCE_VCPU) are left out: none is ever raised here"
    for code in sorted({record.code for record in records if record.layout is None}):
        sizes = [len(record.data) for record in records if record.code == code]
        yield f"records of type {code}, which is not known, are left out: {len(sizes)} with {sum(sizes)} bytes"


def _xsave(record: Record, cpu: Record | None) -> Iterator[str]:
    """The emulator has no YMM registers. A guest that has not set OSXSAVE cannot read XCR0."""
    check_xsave(record)
    values = record.values()
    xcr0 = values["xcr0"]
    check_xcr0(xcr0)
    if beyond := values["xstate_bv"] & ~(X87_STATE | SSE_STATE):
        yield (
            f"registers of XSAVE's components {beyond:#x} (4: the upper halves of YMM) are left out, as the emulator "
            "has x87 and SSE alone: what a guest does with them, as by AVX's instructions, is #UD here"
        )
    if xcr0 != (here := xcr0_here(xcr0)) and cpu is not None and cpu.values()["cr4"] & CR4_OSXSAVE:
        yield f"XCR0 = {xcr0:#x} in the stream is {here:#x} here, as XGETBV says"
    host = values["xfeature_mask"]
    if more := values["xcr0_accum"] & ~host:
        yield (
            f"XSAVE's components {more:#x} are in xcr0_accum and not in xfeature_mask ({host:#x}), what the host that "
            "saved it had"
        )


def ended(requests: Sequence[int], timers: Container[int]) -> Iterator[str]:
    """`requests` of these IRQs that are dropped; `timers` are the IRQs whose device the stream has."""
    for why, irqs in (
        ("as their devices' state is not in the stream", [irq for irq in requests if irq not in timers]),
        ("as no timer of the stream drives them now", [irq for irq in requests if irq in timers]),
    ):
        if irqs:
            yield f"requests of IRQ {', '.join(map(str, irqs))} are dropped, {why}"


def beyond(cpu: CpuState, model: CpuModel) -> Iterator[str]:
    """What the loaded CPU has on that a `model` does not have, and nothing on it could have turned on: a bit of CR4 or
    EFER belongs to what CPUID tells (SDM vol. 3A, 2.5 and table 2-1)."""
    known = model.efer_bits | (EFER_LMA if model.long_mode else 0)
    for name, value, bits in (("CR4", cpu.cr4, model.cr4_bits), ("EFER", cpu.efer, known)):
        if more := value & ~bits:
            yield f"{name} = {value:#x} in the file has bits {more:#x}, which --cpu {model.name} does not have"


def unsaved(cpu: CpuState, model: CpuModel) -> Iterator[str]:
    """What of the CPU, which is a `model`, is not in a stream: Xen takes no other MSRs than its records have
    (hvm_load_cpu_msrs, xen/arch/x86/hvm/hvm.c of 4.17, refuses a domain for one)."""
    lost = [f"{number:#x} ({msr.name})" for number, msr in sorted(msrs_of(model).items())
            if number not in SAVED_MSRS and cpu.msrs.get(number, msr.reset) != msr.reset]  # fmt: skip
    if lost:
        yield f"nor is MSR {', '.join(lost)} in the stream, which is as at power-on where it is loaded"
    if cpu.xcr0 != X87_STATE and not cpu.cr4 & CR4_OSXSAVE:
        yield f"nor is XCR0 = {cpu.xcr0:#x} in the stream, which is 1 where it is loaded: CR4.OSXSAVE is clear"
    if not cpu.a20:
        yield "nor is it in the stream that address line 20 is masked"
