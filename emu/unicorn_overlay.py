"""What this project knows of the inside of Unicorn 2.1.4: its internal functions, and the proof that its layout holds.

Unicorn's public API has no descriptor caches, pending exceptions or interrupt requests. They are read and written in
place, through the structures of `emu.unicorn_layout`. `Overlay` verifies each offset at start-up by values written
through the public API, and raises EngineError on any mismatch. Nothing above the `unicorn_*` modules knows one.

The caller passes the loaded library and the handle in, so that this file does not import unicorn.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import c_int, c_int32, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p

from emu.engine import EngineError
from emu.typed import Any, Final
from emu.unicorn_layout import (
    ANY_LENGTH,
    CPU_CFLAGS_NEXT,
    CPU_ENV,
    CPU_ENV_POINTER,
    CPU_EXCEPTION_INDEX,
    CPU_EXIT_REQUEST,
    CPU_HALTED,
    CPU_INTERRUPT_REQUEST,
    CPU_UC,
    ENV_ICOUNT_DECR,
    FEATURES,
    FEATURES_CHANGED,
    HF2_GIF,
    HF_CS64,
    HF_LMA,
    HF_PE,
    MSR_ARRAYS,
    MSR_FIELDS,
    NO_EXCEPTION,
    TCG_INVALIDATED,
    UC_CPU,
    UC_INVALID_ERROR,
    UC_TCG,
    VERSION,
    Env,
    EnvSegment,
    offset_of,
)
from emu.x86.cpuid import CpuModel
from emu.x86.state import CR4_OSXSAVE


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


def _address(function: Any) -> int:
    return ctypes.cast(function, c_void_p).value or 0


class Internals:
    """Unicorn's functions, public and internal, as typed callables. Those taking `cpu` or `env` want addresses."""

    def __init__(self, library: Any) -> None:
        def f(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
            return _function(library, name, result, *arguments)

        p, u32, u64 = c_void_p, c_uint32, c_uint64
        self.emu_start = f("uc_emu_start", c_int, p, u64, u64, u64, c_size_t)
        self.emu_stop = f("uc_emu_stop", c_int, p)
        self.hook_add = f("uc_hook_add", c_int, p, p, c_int, p, p, u64, u64)  # variadic: an INSN hook's number follows
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
        self.read_eflags = f("helper_read_eflags_x86_64", u64, p)  # in a callback, where env lacks the lazy flags
        self.to_host = f("tlb_vaddr_to_host_x86_64", p, p, u64, c_int, c_int)
        self.update_cr3 = f("cpu_x86_update_cr3_x86_64", None, p, u64)
        self.update_cr0 = f("cpu_x86_update_cr0_x86_64", None, p, u32)
        self.update_cr4 = f("cpu_x86_update_cr4_x86_64", None, p, u32)
        self.update_dr7 = f("cpu_x86_update_dr7_x86_64", None, p, u32)
        self.read_xcr = f("helper_xgetbv_x86_64", u64, p, u32)  # with CR4.OSXSAVE, else it raises #UD
        self.load_mxcsr = f("helper_ldmxcsr_x86_64", None, p, u32)
        self.load_fcw = f("helper_fldcw_x86_64", None, p, u32)
        # called by machine code only
        self.emu_stop_address = _address(self.emu_stop)
        self.do_interrupt_address = _address(f("x86_cpu_do_interrupt_x86_64", None, p))
        self.port_check_addresses = tuple(_address(f(f"helper_check_io{size}_x86_64", None, p, u32)) for size in "bwl")
        self.raise_exception_address = _address(f("raise_exception_err_x86_64", None, p, c_int, c_int))
        self.breakpoint_handler_address = _address(f("breakpoint_handler_x86_64", None, p))
        self.leave_address = _address(f("cpu_loop_exit_noexc_x86_64", None, p))


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
        self.cflags_next = c_uint32.from_address(self.cpu + CPU_CFLAGS_NEXT)
        self.exception_index = c_int32.from_address(self.cpu + CPU_EXCEPTION_INDEX)
        self.exit_request = c_uint8.from_address(self.cpu + CPU_EXIT_REQUEST)
        self.halted = c_uint32.from_address(self.cpu + CPU_HALTED)
        self.invalidated_address = _peek(handle + UC_TCG, "the translator's address") + TCG_INVALIDATED
        self.invalidated = c_uint64.from_address(self.invalidated_address)

    def verify(self, registers: dict[str, int], write_msr: Callable[[int, int], None], model: CpuModel) -> None:
        """Write a different value to everything through the public API and look where it lands. `registers` maps the
        names used here to the API's register numbers. The CPU is left in disorder: load a state afterwards."""
        env = self.env
        _expect(env.hflags & (HF_LMA | HF_CS64 | HF_PE), HF_LMA | HF_CS64 | HF_PE, "hflags")
        _expect(env.efer, 0x500, "EFER")
        _expect(env.old_exception, NO_EXCEPTION, "old_exception")
        _expect((env.dr[6], env.dr[7]), (0xFFFF0FF0, 0x400), "DR6 and DR7")
        _expect(env.hflags2 & HF2_GIF, HF2_GIF, "hflags2")
        _expect(env.a20_mask, -1, "the A20 mask")
        _expect(self.cflags_next.value, ANY_LENGTH, "cflags_next_tb")
        _expect((self.request.value, self.halted.value), (0, 0), "interrupt_request and halted")
        _expect(self.exception_index.value, NO_EXCEPTION, "exception_index")
        value = c_uint64(0)
        for number, (name, read) in enumerate(_PROBES.items()):
            wide = 0x0000_5A00_1234_0000 | number << 4
            value.value = wide
            self.call.reg_write(self.uc, registers[name], ctypes.byref(value))
            width = _PROBE_BITS.get(name, 64)
            _expect(read(env) & (1 << width) - 1, wide & (1 << width) - 1, name.upper())
        value.value = 0x246 | 1 << 10
        self.call.reg_write(self.uc, registers["eflags"], ctypes.byref(value))
        _expect(env.eflags & 0x646, 0x646, "EFLAGS")
        xmm = (c_uint64 * 2)(0x1122334455667788, 0x99AABBCCDDEEFF00)
        for name, index in (("xmm0", 0), ("xmm15", 15)):
            self.call.reg_write(self.uc, registers[name], xmm)
            _expect((env.xmm[index].low, env.xmm[index].high), (xmm[0], xmm[1]), name.upper())
        st = (c_uint64 * 2)(0xC000000000000000, 0x4001)
        for name, index in (("fp0", 0), ("fp7", 7)):
            self.call.reg_write(self.uc, registers[name], st)
            _expect((env.fpregs[index].low, env.fpregs[index].high), (st[0], st[1]), name.upper())
        for name, word in FEATURES.items():
            changed = FEATURES_CHANGED.get(name, 0)
            _expect(env.features[word] & ~changed, getattr(model, name) & ~changed, f"CPUID's word {name}")
        for msr, field in MSR_FIELDS.items():
            probe = 0x5A00 | msr & 0xFF
            write_msr(msr, probe)
            _expect(getattr(env, field), probe, f"MSR {msr:#x}")
        for msr, (field, index) in MSR_ARRAYS.items():
            probe = 0x5A0000 | msr
            write_msr(msr, probe)
            _expect(getattr(env, field)[index], probe, f"MSR {msr:#x}")

        env.cr[4], env.xcr0 = env.cr[4] | CR4_OSXSAVE, 0x5A0D
        _expect(self.call.read_xcr(self.env_address, 0), 0x5A0D, "XCR0")

    def set_features(self, model: CpuModel) -> None:
        """Let CPUID, and the instructions that Unicorn makes depend on it, be those of `model`."""
        for name, word in FEATURES.items():
            self.env.features[word] = getattr(model, name)

    def port_check_addresses(self) -> dict[str, Any]:
        """What `emu.unicorn_thunks.port_check` must know."""
        return {
            "env": self.env_address,
            "eflags": offset_of(Env, "eflags"),
            "hflags": offset_of(Env, "hflags"),
            "checks": self.call.port_check_addresses,
        }

    def gate_addresses(self) -> dict[str, int]:
        """What `emu.unicorn_thunks.gate` must know, by the names of its arguments."""
        return {
            "env": self.env_address,
            "invalidated": self.invalidated_address,
            "emu_stop": self.call.emu_stop_address,
            "segs": offset_of(Env, "segs"),
            "cpu": self.cpu,
            "raise_exception": self.call.raise_exception_address,
            "leave": self.call.leave_address,
            "eflags": offset_of(Env, "eflags"),
            "hflags": offset_of(Env, "hflags"),
            "cr": offset_of(Env, "cr"),
            "dr": offset_of(Env, "dr"),
            "error_code": offset_of(Env, "error_code"),
            "exception": CPU_EXCEPTION_INDEX - CPU_ENV,
            "request": CPU_INTERRUPT_REQUEST - CPU_ENV,
            "exit_request": CPU_EXIT_REQUEST - CPU_ENV,
            "invalid_error": UC_INVALID_ERROR,
            "task": offset_of(Env, "tr"),
            "length": CPU_CFLAGS_NEXT - CPU_ENV,
        }

    def check(self, code: int, what: str) -> None:
        """Raise EngineError when a call returned an error."""
        if code:
            raise EngineError(f"unicorn cannot {what}: {self.call.strerror(code).decode()}")

    def add_hook(
        self,
        kind: int,
        callback: Any,
        begin: int = 1,
        end: int = 0,
        *,
        instruction: int | None = None,
        user_data: int = 0,
    ) -> int:
        """A hook for linear or physical [begin, end] (everywhere when end < begin); returns its handle. `callback` is
        an address, or a ctypes function that the caller keeps alive."""
        hook = c_size_t()
        address = callback if isinstance(callback, int) else ctypes.cast(callback, c_void_p).value
        more = () if instruction is None else (c_int(instruction),)
        code = self.call.hook_add(self.uc, ctypes.byref(hook), kind, address, user_data, begin, end, *more)
        self.check(code, "add a hook")
        return hook.value

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
