"""The CPU record of an HVM save context: every register, hidden segment state and FPU."""

from __future__ import annotations

from construct import Bytes, Int32ul, Int64ul

from xenbridge.wire.schema import Layout

SOURCE = "Xen 4.17, xen/include/public/arch-x86/hvm/save.h"

GENERAL = (
    "rax", "rbx", "rcx", "rdx", "rbp", "rsi", "rdi", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr")
TABLES = ("idtr", "gdtr")
#: Of `flags`: fpu_regs has been loaded by the guest.
FPU_INITIALISED = 1
#: Of `pending_event`.
PENDING_ERROR, PENDING_VALID = 1 << 11, 1 << 31

CPU = Layout(
    "CPU",
    SOURCE + ", struct hvm_hw_cpu",
    "fpu_regs" / Bytes(512) * "FXSAVE area; byte 511 is the width of FIP and FDP: 8, or 4 with FCS and FDS",
    *(name / Int64ul for name in GENERAL),
    "rip" / Int64ul * "offset in CS",
    "rflags" / Int64ul,
    *(name / Int64ul for name in ("cr0", "cr2", "cr3", "cr4")),
    *(name / Int64ul for name in ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7")),
    *(f"{name}_sel" / Int32ul for name in SEGMENTS),
    *(f"{name}_limit" / Int32ul * "bytes, granularity applied" for name in (*SEGMENTS, *TABLES)),
    *(f"{name}_base" / Int64ul for name in (*SEGMENTS, *TABLES)),
    *(f"{name}_arbytes" / Int32ul * "bits 7:0 type S DPL P, 11:8 AVL L D/B G" for name in SEGMENTS),
    *(name / Int64ul for name in ("sysenter_cs", "sysenter_esp", "sysenter_eip")),
    "shadow_gs" / Int64ul * "KERNEL_GS_BASE",
    "msr_flags" / Int64ul * "unused",
    "msr_lstar" / Int64ul,
    "msr_star" / Int64ul,
    "msr_cstar" / Int64ul,
    "msr_syscall_mask" / Int64ul * "FMASK",
    "msr_efer" / Int64ul,
    "msr_tsc_aux" / Int64ul,
    "tsc" / Int64ul * "what RDTSC gave",
    "pending_event" / Int32ul * "bits 7:0 vector, 10:8 type, 11 error code valid, 31 valid",
    "error_code" / Int32ul,
    "flags" / Int32ul * "bit 0: fpu_regs is initialised",
    "pad0" / Int32ul,
)
