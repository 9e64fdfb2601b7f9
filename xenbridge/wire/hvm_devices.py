"""The other records of an HVM save context: header, interrupt controllers, timers, and what a vCPU has besides."""

from __future__ import annotations

from construct import Array, Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct

from xenbridge.wire.hvm_cpu import SOURCE
from xenbridge.wire.schema import Layout

HEADER_MAGIC, HEADER_VERSION = 0x54381286, 1
PINS = 48  #: of Xen's I/O APIC

HEADER = Layout(
    "HEADER",
    SOURCE + ", struct hvm_save_header",
    "magic" / Int32ul * "54381286h",
    "version" / Int32ul * "1",
    "changeset" / Int64ul * "of the hypervisor that saved, all ones where it is not known",
    "cpuid" / Int32ul * "CPUID leaf 1, EAX",
    "gtsc_khz" / Int32ul * "the guest's TSC frequency",
)
PIC = Layout(
    "PIC",
    SOURCE + ", struct hvm_hw_vpic (instance 0 master, 1 slave)",
    "irr" / Int8ul,
    "imr" / Int8ul,
    "isr" / Int8ul,
    "irq_base" / Int8ul * "vector of IR0",
    "init" / Int8ul * "3:0 next ICW (1 to 3, 0 none), IC4 and SNGL; 7:4 the input with the highest priority",
    "mode" / Int8ul * "0 reads ISR, 1 poll, 2 AEOI, 3 rotate in AEOI, 4 SFNM, 5 special mask mode, 6 master",
    "elcr" / Int8ul,
    "int_output" / Int8ul,
)
IOAPIC = Layout(
    "IOAPIC",
    SOURCE + ", struct hvm_hw_vioapic",
    "base_address" / Int64ul,
    "ioregsel" / Int32ul,
    "id" / Int32ul,
    "redirtbl" / Array(PINS, Int64ul) * "as the 82093AA's redirection entries",
)
_LAPIC_SOURCE = SOURCE + ", struct hvm_hw_lapic"
_LAPIC_FIELDS = (
    "apic_base_msr" / Int64ul,
    "disabled" / Int32ul * "1 by hardware, 2 by software",
    "timer_divisor" / Int32ul * "counts of 10 ns a tick",
    "tdt_msr" / Int64ul * "IA32_TSC_DEADLINE",
)
LAPIC = Layout("LAPIC", _LAPIC_SOURCE, *_LAPIC_FIELDS)
LAPIC_X2 = Layout("LAPIC", _LAPIC_SOURCE + " from 4.21", *_LAPIC_FIELDS, "x2apic_id" / Int32ul, "rsvd_zero" / Int32ul)
LAPIC_REGS = Layout(
    "LAPIC_REGS",
    SOURCE + ", struct hvm_hw_lapic_regs",
    "data" / Bytes(1024) * "the register page's first 1 KiB: a register each 10h bytes",
)
PCI_IRQ = Layout(
    "PCI_IRQ", SOURCE + ", struct hvm_hw_pci_irqs", "lines" / Array(2, Int64ul) * "bit device * 4 + INTx#: asserted"
)
ISA_IRQ = Layout("ISA_IRQ", SOURCE + ", struct hvm_hw_isa_irqs", "lines" / Int64ul * "bit n: ISA IRQ n is high")
PCI_LINK = Layout(
    "PCI_LINK",
    SOURCE + ", struct hvm_hw_pci_link",
    "route" / Array(4, Int8ul) * "the ISA IRQ of PIRQA to PIRQD, 0 none",
    "pad0" / Bytes(4),
)
PIT_CHANNEL = Struct(
    "count" / Int32ul,
    "latched_count" / Int16ul,
    "count_latched" / Int8ul,
    "status_latched" / Int8ul,
    "status" / Int8ul,
    "read_state" / Int8ul,
    "write_state" / Int8ul,
    "write_latch" / Int8ul,
    "rw_mode" / Int8ul,
    "mode" / Int8ul,
    "bcd" / Int8ul,
    "gate" / Int8ul,
)
PIT = Layout(
    "PIT",
    SOURCE + ", struct hvm_hw_pit",
    "channels" / Array(3, PIT_CHANNEL) * "mode FFh: not programmed",
    "speaker_data_on" / Int32ul,
    "pad0" / Int32ul,
)
RTC = Layout(
    "RTC",
    SOURCE + ", struct hvm_hw_rtc",
    "cmos_data" / Bytes(14) * "the MC146818's own registers",
    "cmos_index" / Int8ul,
    "pad0" / Int8ul,
    "rtc_offset" / Int64ul * "unused",
)
HPET_TIMER = Struct("config" / Int64ul, "cmp" / Int64ul, "fsb" / Int64ul, "res4" / Int64ul)
HPET = Layout(
    "HPET",
    SOURCE + ", struct hvm_hw_hpet",
    "capability" / Int64ul * "bits 63:32 are the period in fs",
    "res0" / Int64ul,
    "config" / Int64ul,
    "res1" / Int64ul,
    "isr" / Int64ul,
    "res2" / Bytes(200),
    "mc64" / Int64ul * "main counter",
    "res3" / Int64ul,
    "timers" / Array(3, HPET_TIMER),
    "res5" / Bytes(672),
    "period" / Array(3, Int64ul) * "of the timers in periodic mode",
)
PMTIMER = Layout(
    "PMTIMER",
    SOURCE + ", struct hvm_hw_pmtimer",
    "tmr_val" / Int32ul,
    "pm1a_sts" / Int16ul,
    "pm1a_en" / Int16ul,
)
MTRR = Layout(
    "MTRR",
    SOURCE + ", struct hvm_hw_mtrr",
    "msr_pat_cr" / Int64ul,
    "msr_mtrr_var" / Array(16, Int64ul) * "PHYSBASE0, PHYSMASK0, PHYSBASE1, ...",
    "msr_mtrr_fixed" / Array(11, Int64ul) * "64K_00000, 16K_80000, 16K_A0000, 4K_C0000, ...",
    "msr_mtrr_cap" / Int64ul,
    "msr_mtrr_def_type" / Int64ul,
)
VIRIDIAN_DOMAIN = Layout(
    "VIRIDIAN_DOMAIN",
    SOURCE + ", struct hvm_viridian_domain_context",
    *(name / Int64ul for name in ("hypercall_gpa", "guest_os_id", "time_ref_count", "reference_tsc")),
)
CPU_XSAVE = Layout(
    "CPU_XSAVE",
    SOURCE + ", struct hvm_hw_cpu_xsave; the XSAVE area follows",
    *(name / Int64ul for name in ("xfeature_mask", "xcr0", "xcr0_accum")),
    "fpu_sse" / Bytes(512) * "as FXSAVE's",
    "xstate_bv" / Int64ul,
    "xcomp_bv" / Int64ul,
    "reserved" / Bytes(48),
)
VIRIDIAN_VCPU = Layout(
    "VIRIDIAN_VCPU",
    SOURCE + ", struct hvm_viridian_vcpu_context",
    "vp_assist_msr" / Int64ul,
    "vp_assist_pending" / Int8ul,
    "pad" / Bytes(7),
    "simp_msr" / Int64ul,
    "sint_msr" / Array(16, Int64ul),
    "stimer_config_msr" / Array(4, Int64ul),
    "stimer_count_msr" / Array(4, Int64ul),
)
VMCE_VCPU = Layout(
    "VMCE_VCPU",
    SOURCE + ", struct hvm_vmce_vcpu",
    *(name / Int64ul for name in ("caps", "mci_ctl2_bank0", "mci_ctl2_bank1", "mcg_ext_ctl")),
)
TSC_ADJUST = Layout("TSC_ADJUST", SOURCE + ", struct hvm_tsc_adjust", "tsc_adjust" / Int64ul)
CPU_MSR = Layout("CPU_MSR", SOURCE + ", struct hvm_msr; `count` entries follow", "count" / Int32ul, "_rsvd" / Int32ul)
MSR_ENTRY = Layout(
    "CPU_MSR entry",
    SOURCE + ", struct hvm_one_msr",
    "index" / Int32ul,
    "_rsvd" / Int32ul,
    "val" / Int64ul,
)
