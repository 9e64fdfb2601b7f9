"""Where Unicorn 2.1.4 keeps its CPU: offsets, structures and bits of `struct uc_struct`, `CPUState` and `CPUX86State`.

From Unicorn 2.1.4's include/uc_priv.h, qemu/include/hw/core/cpu.h and qemu/target/i386/cpu.h, as the x86-64 Linux
builds on PyPI lay them out. `emu.unicorn_overlay` proves them at start-up.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_uint8, c_uint16, c_uint32, c_uint64

from emu.typed import Final
from emu.x86.cpuid import APIC, LM, RDRAND, SVM, TSC_DEADLINE, VME, X2APIC

VERSION: Final = "2.1.4"

# Offsets in struct uc_struct.
UC_CPU = 0x1B8  #: CPUState *cpu
UC_TCG = 0x300  #: TCGContext *tcg_ctx
UC_INVALID_ERROR = 0x590  #: int invalid_error: what uc_emu_start will return; not 0: the main loop ends
#: In TCGContext: tb_phys_invalidate_count, the number of translations dropped so far.
TCG_INVALIDATED = 0xD8

# Offsets in CPUState.
CPU_EXIT_REQUEST = 0x15  #: bool exit_request: the main loop returns before the next translation
CPU_CFLAGS_NEXT = 0x18  #: uint32_t cflags_next_tb: of the next translation, its length in instructions; -1: any
CPU_INTERRUPT_REQUEST = 0x1C
CPU_ENV_POINTER = 0x128  #: void *env_ptr, followed by IcountDecr *icount_decr_ptr
CPU_HALTED = 0x8198
CPU_CAN_DO_IO = 0x819C  #: uint32_t can_do_io: not 0 while a device may be accessed
CPU_EXCEPTION_INDEX = 0x81A0  #: int32_t exception_index: the exception the main loop is to deliver, or -1
CPU_UC = 0x81A8  #: struct uc_struct *uc
CPU_ENV = 0x8A50  #: CPUX86State itself, in X86CPU
CPU_DEBUG_HANDLER = 0xA788  #: CPUClass.debug_excp_handler of the class that each X86CPU has behind it
#: From env: CPUNegativeOffsetState.icount_decr; its high half < 0 makes translations give way.
ENV_ICOUNT_DECR = -0x10
#: From env: CPUTLBDescFast of each of the three MMU modes, just before.
ENV_TLB = -0x40

# hflags and hflags2 (qemu/target/i386/cpu.h, HF_*, HF2_*).
HF_CPL = 3 << 0
HF_INHIBIT_IRQ = 1 << 3
HF_CS32 = 1 << 4
HF_SS32 = 1 << 5
HF_ADDSEG = 1 << 6
HF_PE = 1 << 7
HF_MP_SHIFT = 9  #: CR0.MP, EM, TS (bits 1 to 3) are copied to bits 9 to 11
HF_MP_EM_TS = 7 << HF_MP_SHIFT
HF_LMA = 1 << 14
HF_CS64 = 1 << 15
HF_GUEST = 1 << 21  #: an SVM guest: intercepts are looked at
HF_OSFXSR = 1 << 22
HF_SMAP = 1 << 23
HF_IOBPT = 1 << 24  #: a breakpoint on ports is enabled in DR7
HF2_GIF = 1 << 0
HF2_NMI = 1 << 2
HF2_VINTR = 1 << 3

CPU_INTERRUPT_NMI = 0x200  #: delivered wherever HF2_NMI allows
CPU_INTERRUPT_VIRQ = 0x100  #: a virtual interrupt: delivered from the VMCB where IF and the shadow allow
ANY_LENGTH = 0xFFFFFFFF
#: How many instructions a translation of the portable loop has at most. Of some, FXCH among them, Unicorn's translator
#: keeps temporaries to the end, and writes on behind the 512 that it has room for.
PORTABLE_LENGTH = 64
CC_OP_EFLAGS = 1  #: cc_op when cc_src holds the arithmetic flags themselves
NO_EXCEPTION = -1  #: old_exception outside the delivery of one
DOUBLE_FAULT = 8  #: old_exception after a triple fault

#: Where the hidden page with `Control` is mapped: past 40 bits no page-table entry of this CPU reaches, and without
#: paging linear addresses outside 64-bit mode have 32 bits.
HIDDEN_PAGE = 1 << 51
#: One past the largest physical address the guest reaches.
PHYSICAL_END = 1 << 40


class EnvSegment(ctypes.Structure):
    """SegmentCache. `flags` is the high dword of a descriptor with the base and limit bits undefined."""

    _fields_ = (("selector", c_uint32), ("base", c_uint64), ("limit", c_uint32), ("flags", c_uint32))
    selector: int
    base: int
    limit: int
    flags: int


class FpReg(ctypes.Structure):
    """One x87 register: an 80-bit value in 16 bytes."""

    _fields_ = (("low", c_uint64), ("high", c_uint16), ("_pad", c_uint8 * 6))
    low: int
    high: int


class XmmReg(ctypes.Structure):
    """One vector register: its XMM part and the rest of 64 bytes."""

    _fields_ = (("low", c_uint64), ("high", c_uint64), ("_rest", c_uint8 * 48))
    low: int
    high: int


class Env(ctypes.Structure):
    """CPUX86State, as far as it is used. While a run lasts, `eflags` lacks the arithmetic flags and DF (they are in
    cc_* and df); between runs it is whole."""

    _fields_ = (
        ("regs", c_uint64 * 16),
        ("eip", c_uint64),
        ("eflags", c_uint64),
        ("cc_dst", c_uint64),
        ("cc_src", c_uint64),
        ("cc_src2", c_uint64),
        ("cc_op", c_uint32),
        ("df", c_int32),  # 1 while DF is clear, -1 while it is set
        ("hflags", c_uint32),
        ("hflags2", c_uint32),
        ("segs", EnvSegment * 6),  # ES CS SS DS FS GS
        ("ldt", EnvSegment),
        ("tr", EnvSegment),
        ("gdt", EnvSegment),
        ("idt", EnvSegment),
        ("cr", c_uint64 * 9),
        ("a20_mask", c_int32),
        ("_bounds", c_uint8 * 0x5C),
        ("efer", c_uint64),
        ("_mark", c_uint32),
        ("fpstt", c_uint32),
        ("fpus", c_uint16),
        ("fpuc", c_uint16),
        ("fptags", c_uint8 * 8),  # by physical register, 1 = empty
        ("_align", c_uint8 * 4),
        ("fpregs", FpReg * 8),  # by physical register
        ("fpop", c_uint16),
        ("fpcs", c_uint16),
        ("fpds", c_uint16),
        ("_align2", c_uint16),
        ("fpip", c_uint64),
        ("fpdp", c_uint64),
        ("_status", c_uint8 * 0x28),
        ("mxcsr", c_uint32),
        ("_align3", c_uint32),
        ("xmm", XmmReg * 32),
        ("_masks", c_uint8 * (0x12C0 - 0xB38)),
        ("sysenter_cs", c_uint32),
        ("_align4", c_uint32),
        ("sysenter_esp", c_uint64),
        ("sysenter_eip", c_uint64),
        ("star", c_uint64),
        ("vm_hsave", c_uint64),
        ("lstar", c_uint64),
        ("cstar", c_uint64),
        ("fmask", c_uint64),
        ("kernelgsbase", c_uint64),
        ("_tsc", c_uint64 * 3),
        ("tsc_aux", c_uint64),
        ("xcr0", c_uint64),
        ("_more_msrs", c_uint8 * (0x14A0 - 0x1330)),
        ("pat", c_uint64),
        ("_gap", c_uint8 * (0x1508 - 0x14A8)),
        ("error_code", c_int32),
        ("exception_is_int", c_int32),
        ("exception_next_eip", c_uint64),
        ("dr", c_uint64 * 8),
        ("_breakpoints", c_uint64 * 4),
        ("old_exception", c_int32),
        ("_align5", c_uint32),
        ("vm_vmcb", c_uint64),
        ("_tsc_offset", c_uint64),
        ("intercept", c_uint64),  # of instructions, from exit code 60h on, and ...
        ("_intercept_cr_read", c_uint16),
        ("intercept_cr_write", c_uint16),  # ... of MOV to a control register
        ("_svm", c_uint8 * (0x15B4 - 0x159C)),
        ("v_tpr", c_uint8),
        ("_common", c_uint8 * (0x1600 - 0x15B5)),
        ("features", c_uint64 * 8),  # CPUID words in the order of FeatureWord
        ("_more", c_uint8 * (0x18B0 - 0x1640)),
        ("mtrr_fixed", c_uint64 * 11),
        ("mtrr_deftype", c_uint64),
        ("mtrr_var", c_uint64 * 16),  # PHYSBASE0, PHYSMASK0, PHYSBASE1, ...
    )
    regs: ctypes.Array[c_uint64]
    eip: int
    eflags: int
    cc_dst: int
    cc_src: int
    cc_src2: int
    cc_op: int
    df: int
    hflags: int
    hflags2: int
    segs: ctypes.Array[EnvSegment]
    ldt: EnvSegment
    tr: EnvSegment
    gdt: EnvSegment
    idt: EnvSegment
    cr: ctypes.Array[c_uint64]
    a20_mask: int
    efer: int
    fpstt: int
    fpus: int
    fpuc: int
    fptags: ctypes.Array[c_uint8]
    fpregs: ctypes.Array[FpReg]
    fpop: int
    fpcs: int
    fpds: int
    fpip: int
    fpdp: int
    mxcsr: int
    xmm: ctypes.Array[XmmReg]
    sysenter_cs: int
    error_code: int
    exception_is_int: int
    exception_next_eip: int
    dr: ctypes.Array[c_uint64]
    old_exception: int
    vm_vmcb: int
    intercept: int
    intercept_cr_write: int
    star: int
    lstar: int
    cstar: int
    fmask: int
    sysenter_esp: int
    sysenter_eip: int
    tsc_aux: int
    xcr0: int
    v_tpr: int
    features: ctypes.Array[c_uint64]


#: Unicorn's numbers of the CPU models of `emu.x86.cpuid` (include/unicorn/x86.h, uc_cpu_x86).
CPU_MODELS: Final = {"486": 7, "pentium": 8, "pentium2": 9, "pentium3": 10, "qemu64": 0, "max": 19}
#: Indexes of Env.features (qemu/target/i386/cpu.h, FeatureWord): the words of `emu.x86.cpuid.CpuModel`.
FEATURES: Final = {"edx1": 0, "ecx1": 1, "ebx7": 2, "ecx7": 3, "edx8": 6, "ecx8": 7}
#: Bits in which Unicorn's words differ from the models': it always sets LM in 64-bit mode, and what is taken out.
FEATURES_CHANGED: Final = {"edx1": APIC | VME, "ecx1": RDRAND | X2APIC | TSC_DEADLINE, "edx8": LM | APIC, "ecx8": SVM}

#: MSR number -> field of Env, for those the engine keeps and executes RDMSR and WRMSR on (SDM vol. 4, tables 2-2, 2-3).
MSR_FIELDS: Final[dict[int, str]] = {
    0x174: "sysenter_cs",
    0x175: "sysenter_esp",
    0x176: "sysenter_eip",
    0x277: "pat",
    0x2FF: "mtrr_deftype",
    0xC0000081: "star",
    0xC0000082: "lstar",
    0xC0000083: "cstar",
    0xC0000084: "fmask",
    0xC0000102: "kernelgsbase",
    0xC0000103: "tsc_aux",
}
#: Those kept in arrays: MSR number -> (field, index).
MSR_ARRAYS: Final[dict[int, tuple[str, int]]] = {
    **{0x200 + i: ("mtrr_var", i) for i in range(16)},
    **{
        msr: ("mtrr_fixed", i)
        for i, msr in enumerate((0x250, 0x258, 0x259, 0x268, 0x269, 0x26A, 0x26B, 0x26C, 0x26D, 0x26E, 0x26F))
    },
}


def offset_of(structure: type[ctypes.Structure], field: str) -> int:
    """Where `field` is in `structure`, in bytes."""
    value: int = getattr(structure, field).offset
    return value
