"""What this project knows of the inside of Unicorn 2.1.4: offsets, internal functions, and the proof that both hold.

Unicorn's public API has no descriptor caches, pending exceptions or interrupt requests. They are read and written in
place, through ctypes structures laid over `struct uc_struct`, `CPUState` and `CPUX86State` (Unicorn 2.1.4,
include/uc_priv.h, qemu/include/hw/core/cpu.h, qemu/target/i386/cpu.h). The offsets are those of the x86-64 Linux
builds; nothing above this module knows one. `Overlay` verifies each at start-up by values written through the public
API, and raises EngineError on any mismatch.

The caller passes the loaded library and the handle in, so that this file does not import unicorn.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import c_int, c_int32, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any, Final

from emu.engine import EngineError

VERSION: Final = "2.1.4"

# Offsets in struct uc_struct.
UC_CPU = 0x1B8  #: CPUState *cpu
UC_TCG = 0x300  #: TCGContext *tcg_ctx
#: In TCGContext: tb_phys_invalidate_count, the number of translations dropped so far.
TCG_INVALIDATED = 0xD8

# Offsets in CPUState.
CPU_EXIT_REQUEST = 0x15
CPU_INTERRUPT_REQUEST = 0x1C
CPU_ENV_POINTER = 0x128  #: void *env_ptr, followed by IcountDecr *icount_decr_ptr
CPU_HALTED = 0x8198
CPU_UC = 0x81A8  #: struct uc_struct *uc
CPU_ENV = 0x8A50  #: CPUX86State itself, in X86CPU
#: From env: CPUNegativeOffsetState.icount_decr; its high half < 0 makes translations give way.
ENV_ICOUNT_DECR = -0x10

# Offsets in CPUX86State.
ENV_EFLAGS = 0x88
ENV_HFLAGS = 0xB0
ENV_SEGS = 0xB8  #: 24 bytes each: selector, base (at 8), limit (at 16), flags
ENV_CR = 0x1A8

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
HF_OSFXSR = 1 << 22
HF_SMAP = 1 << 23
HF2_GIF = 1 << 0
HF2_NMI = 1 << 2
HF2_VINTR = 1 << 3

CPU_INTERRUPT_VIRQ = 0x100
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
    """CPUX86State, as far as it is used. `eflags` lacks the arithmetic flags and DF, which are kept in cc_* and df."""

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
        ("_more_msrs", c_uint8 * (0x14A0 - 0x1328)),
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
        ("_svm", c_uint8 * (0x15B4 - 0x1588)),
        ("v_tpr", c_uint8),
        ("_common", c_uint8 * (0x18B0 - 0x15B5)),
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
    v_tpr: int


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


def _function(library: Any, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of the library with a prototype of its own (the binding's are left alone)."""
    try:
        function = library[name]
    except AttributeError as error:
        raise EngineError(
            f"this build of Unicorn does not export {name}; install unicorn {VERSION} from PyPI"
        ) from error
    function.restype, function.argtypes = result, arguments
    made: Callable[..., Any] = function
    return made


class Internals:
    """Unicorn's functions, public and internal, as typed callables. Those taking `cpu` or `env` want addresses."""

    def __init__(self, library: Any) -> None:
        def f(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
            return _function(library, name, result, *arguments)

        p, u32, u64 = c_void_p, c_uint32, c_uint64
        self.emu_start = f("uc_emu_start", c_int, p, u64, u64, u64, c_size_t)
        self.emu_stop = f("uc_emu_stop", c_int, p)
        self.hook_add = f("uc_hook_add", c_int, p, p, c_int, p, p, u64, u64)
        self.hook_del = f("uc_hook_del", c_int, p, c_size_t)
        self.mem_map_ptr = f("uc_mem_map_ptr", c_int, p, u64, c_size_t, u32, p)
        self.mem_unmap = f("uc_mem_unmap", c_int, p, u64, c_size_t)
        self.mmio_map = f("uc_mmio_map", c_int, p, u64, c_size_t, p, p, p, p)
        self.strerror = f("uc_strerror", ctypes.c_char_p, c_int)
        self.reg_write = f("uc_reg_write", c_int, p, c_int, p)
        self.find_region = f("find_memory_mapping_x86_64", p, p, u64)
        self.set_readonly = f("memory_region_set_readonly_x86_64", None, p, ctypes.c_bool)
        self.ram_address = f("qemu_ram_addr_from_host_x86_64", u64, p, p)
        self.invalidate_range = f("tb_invalidate_phys_range_x86_64", None, p, u64, u64)
        self.tb_flush = f("tb_flush_x86_64", None, p)
        self.tlb_flush = f("tlb_flush_x86_64", None, p)
        self.read_eflags = f("helper_read_eflags_x86_64", u64, p)
        self.update_dr7 = f("cpu_x86_update_dr7_x86_64", None, p, u32)
        self.load_mxcsr = f("helper_ldmxcsr_x86_64", None, p, u32)
        self.load_fcw = f("helper_fldcw_x86_64", None, p, u32)
        self._address: dict[str, int] = {}
        for name in (
            "uc_emu_stop",
            "x86_cpu_do_interrupt_x86_64",
            "raise_exception_err_x86_64",
            "cpu_loop_exit_noexc_x86_64",
        ):
            self._address[name] = ctypes.cast(library[name], c_void_p).value or 0

    def address(self, name: str) -> int:
        return self._address[name]

    @property
    def emu_stop_address(self) -> int:
        return self._address["uc_emu_stop"]

    @property
    def do_interrupt_address(self) -> int:
        return self._address["x86_cpu_do_interrupt_x86_64"]


class Overlay:
    """The live structures of one engine. Raises EngineError when anything is not where this file says."""

    def __init__(self, library: Any, handle: int) -> None:
        self.call = Internals(library)
        self.uc = handle
        self.cpu = _peek(handle + UC_CPU, "the CPU's address")
        self.env_address = self.cpu + CPU_ENV
        for at, expected, what in (
            (self.cpu + CPU_UC, handle, "CPUState.uc"),
            (self.cpu + CPU_ENV_POINTER, self.env_address, "CPUState.env_ptr"),
            (self.cpu + CPU_ENV_POINTER + 8, self.env_address + ENV_ICOUNT_DECR, "CPUState.icount_decr_ptr"),
        ):
            _expect(_peek(at, what), expected, what)
        self.env: Env = Env.from_address(self.env_address)
        self.request = c_uint32.from_address(self.cpu + CPU_INTERRUPT_REQUEST)
        self.halted = c_uint32.from_address(self.cpu + CPU_HALTED)
        self.invalidated_address = _peek(handle + UC_TCG, "the translator's address") + TCG_INVALIDATED
        self.invalidated = c_uint64.from_address(self.invalidated_address)

    def verify(self, registers: dict[str, int], write_msr: Callable[[int, int], None]) -> None:
        """Write a different value to everything through the public API and look where it lands. `registers` maps the
        names used here to the API's register numbers. The CPU is left in disorder: load a state afterwards."""
        env = self.env
        _expect(env.hflags & (HF_LMA | HF_CS64 | HF_PE), HF_LMA | HF_CS64 | HF_PE, "hflags")
        _expect(env.efer, 0x500, "EFER")
        _expect(env.old_exception, NO_EXCEPTION, "old_exception")
        _expect((env.dr[6], env.dr[7]), (0xFFFF0FF0, 0x400), "DR6 and DR7")
        _expect(env.hflags2 & HF2_GIF, HF2_GIF, "hflags2")
        _expect(env.a20_mask, -1, "the A20 mask")
        value = c_uint64(0)
        for number, (name, read) in enumerate(_PROBES.items()):
            wide = 0x0000_5A00_1234_0000 | number << 4
            value.value = wide
            self.call.reg_write(self.uc, registers[name], ctypes.byref(value))
            width = _PROBE_BITS.get(name, 64)
            _expect(read(env) & (1 << width) - 1, wide & (1 << width) - 1, name.upper())
        value.value = 0x246 | 1 << 10
        self.call.reg_write(self.uc, registers["eflags"], ctypes.byref(value))
        _expect(env.eflags & 0x200, 0x200, "EFLAGS")
        _expect((env.df, env.cc_op, env.cc_src & 0x44), (-1, CC_OP_EFLAGS, 0x44), "the lazy flags")
        _expect(self.call.read_eflags(self.env_address) & 0x646, 0x646, "the flags computed")
        xmm = (c_uint64 * 2)(0x1122334455667788, 0x99AABBCCDDEEFF00)
        for name, index in (("xmm0", 0), ("xmm15", 15)):
            self.call.reg_write(self.uc, registers[name], xmm)
            _expect((env.xmm[index].low, env.xmm[index].high), (xmm[0], xmm[1]), name.upper())
        st = (c_uint64 * 2)(0xC000000000000000, 0x4001)
        for name, index in (("fp0", 0), ("fp7", 7)):
            self.call.reg_write(self.uc, registers[name], st)
            _expect((env.fpregs[index].low, env.fpregs[index].high), (st[0], st[1]), name.upper())
        for msr, field in MSR_FIELDS.items():
            probe = 0x5A00 | msr & 0xFF
            write_msr(msr, probe)
            _expect(getattr(env, field), probe, f"MSR {msr:#x}")
        for msr, (field, index) in MSR_ARRAYS.items():
            probe = 0x5A0000 | msr
            write_msr(msr, probe)
            _expect(getattr(env, field)[index], probe, f"MSR {msr:#x}")

    def segments(self) -> tuple[EnvSegment, ...]:
        """ES CS SS DS FS GS LDTR TR, live."""
        env = self.env
        return (*env.segs, env.ldt, env.tr)


_PROBES: Final[dict[str, Callable[[Env], int]]] = {
    **{
        name: (lambda env, i=i: env.regs[i])  # type: ignore[misc]
        for i, name in enumerate(
            ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
             "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
        )
    },
    "fs_base": lambda env: env.segs[4].base,
    "gs_base": lambda env: env.segs[5].base,
    "cr2": lambda env: env.cr[2],
    "dr0": lambda env: env.dr[0],
    "dr3": lambda env: env.dr[3],
    "fpcw": lambda env: env.fpuc,
    "mxcsr": lambda env: env.mxcsr,
    "fip": lambda env: env.fpip,
    "fdp": lambda env: env.fpdp,
    "fcs": lambda env: env.fpcs,
    "fds": lambda env: env.fpds,
    "fop": lambda env: env.fpop,
}  # fmt: skip
_PROBE_BITS: Final = {"fpcw": 16, "mxcsr": 32, "fcs": 16, "fds": 16, "fop": 11, "fip": 32, "fdp": 32}
#: The registers `verify` writes, by the API's names in lower case.
PROBE_NAMES: Final = (*_PROBES, "eflags", "xmm0", "xmm15", "fp0", "fp7")


def _peek(address: int, what: str) -> int:
    """Eight bytes of this process, without risking a crash where nothing is mapped."""
    try:
        memory = os.open("/proc/self/mem", os.O_RDONLY)
    except OSError as error:
        raise EngineError("/proc/self/mem cannot be read; the engine needs Linux with /proc mounted") from error
    try:
        data = os.pread(memory, 8, address)
    except OSError:
        data = b""
    finally:
        os.close(memory)
    if len(data) != 8:
        raise _mismatch(what)
    return int.from_bytes(data, "little")


def _expect(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise _mismatch(f"{what} (found {found!r}, expected {expected!r})")


def _mismatch(what: str) -> EngineError:
    return EngineError(
        f"this build of Unicorn keeps its CPU elsewhere than release {VERSION} from PyPI does: {what}; "
        f"reinstall it with pip install --force-reinstall unicorn=={VERSION}"
    )
