"""Unicorn's shared library, opened and called without its Python binding: engines, their settings, their end.

The binding loads constants of nine architectures and a third of the standard library, five times what the library
takes. Here is what of its work is needed; hooks and memory are `emu.unicorn_overlay`'s. Names and numbers are those of
include/unicorn/unicorn.h and x86.h of the pinned release; the binding's are compared with them in the tests.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from ctypes import c_int, c_size_t, c_uint32, c_uint64, c_void_p
from importlib.util import find_spec

from emu.engine import EngineError
from emu.typed import Any, Final

ARCH_X86, MODE_64 = 4, 8
#: uc_hook_type
HOOK_INTR, HOOK_INSN_INVALID = 1, 1 << 14
#: uc_err
ERR_FETCH_UNMAPPED, ERR_FETCH_PROT = 8, 14
#: uc_control_type, and the bits above it: how many arguments follow, and that they are written.
CTL_USE_EXITS, CTL_EXITS, CTL_CPU_MODEL, CTL_TCG_BUFFER_SIZE = 4, 6, 7, 13
CTL_ARGUMENTS_SHIFT, CTL_WRITE = 26, 1 << 30
#: uc_x86_reg, of the registers that `emu.unicorn_overlay` writes to see where they land.
REGISTERS: Final = {
    "rax": 35, "rcx": 38, "rdx": 40, "rbx": 37, "rsp": 44, "rbp": 36, "rsi": 43, "rdi": 39,
    "r8": 106, "r9": 107, "r10": 108, "r11": 109, "r12": 110, "r13": 111, "r14": 112, "r15": 113,
    "eflags": 25, "fs_base": 250, "gs_base": 251, "cr2": 52, "dr0": 66, "dr3": 69, "fp0": 82, "fp7": 89,
    "xmm0": 122, "xmm15": 137, "fpcw": 246, "mxcsr": 249, "fip": 254, "fdp": 256, "fcs": 255, "fds": 257, "fop": 258,
}  # fmt: skip
REGISTER_MSR: Final = 248


class Library:
    """The loaded library. Raises ImportError when Unicorn is not installed, OSError when it cannot be loaded."""

    def __init__(self) -> None:
        spec = find_spec("unicorn")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("unicorn is not installed")
        self.path = os.path.join(spec.submodule_search_locations[0], "lib", "libunicorn.so.2")
        #: gives a function of its name; with [] instead of an attribute one of its own prototype
        self.functions: Any = _opened(self.path)
        self._open = self._function("uc_open", c_int, c_int, c_void_p)
        self._ctl = self._function("uc_ctl", c_void_p, c_int)  # variadic
        self._write = self._function("uc_reg_write", c_void_p, c_int, c_void_p)
        self._close = self._function("uc_close", c_void_p)

    def _function(self, name: str, *arguments: Any) -> Any:
        function = self.functions[name]
        function.argtypes = arguments
        return function

    @property
    def version(self) -> str:
        number = self.functions.uc_version(None, None)
        return f"{number >> 24}.{number >> 16 & 0xFF}.{number >> 8 & 0xFF}"

    def _checked(self, what: str, error: int) -> None:
        if error:
            raise EngineError(f"unicorn refuses to {what} (its error {error})")

    def new_engine(self, model: int, translations: int) -> int:
        """The handle of an x86 engine of CPU `model` (uc_cpu_x86) with room for `translations` bytes of them, which
        runs until it is stopped."""
        handle = c_void_p()
        self._checked("make an engine", self._open(ARCH_X86, MODE_64, ctypes.byref(handle)))
        self._set(handle, CTL_CPU_MODEL, c_int(model))
        self._set(handle, CTL_TCG_BUFFER_SIZE, c_uint32(translations))
        # Without this every run ends by a page walk to its `until` address, which clobbers CR2.
        self._set(handle, CTL_USE_EXITS, c_int(1))
        self._set(handle, CTL_EXITS, c_void_p(), c_size_t(0))
        return handle.value or 0

    def _set(self, handle: c_void_p, what: int, *values: Any) -> None:
        control = what | len(values) << CTL_ARGUMENTS_SHIFT | CTL_WRITE
        self._checked(f"change setting {what}", self._ctl(handle, control, *values))

    def write_msr(self, handle: int, number: int, value: int) -> None:
        """Set the model-specific register through the public interface."""
        self._checked(f"set MSR {number:#x}", self._write(handle, REGISTER_MSR, ctypes.byref(_Msr(number, value))))

    def close_with(self, owner: object, handle: int) -> weakref.finalize[..., Any]:
        """End the engine when `owner` is gone, or when what this gives is called."""
        return weakref.finalize(owner, self._close, handle)


def _opened(path: str) -> ctypes.CDLL:
    """The library at `path`, its functions bound when they are called: ctypes has all 38,000 symbols of Unicorn looked
    up at once, which takes 2 ms more. Raises OSError."""
    try:
        dlopen = ctypes.pythonapi["dlopen"]
    except AttributeError:
        return ctypes.CDLL(path)
    dlopen.restype, dlopen.argtypes = c_void_p, (ctypes.c_char_p, c_int)
    handle = dlopen(os.fsencode(path), os.RTLD_LAZY)
    return ctypes.CDLL(path, handle=handle)  # which opens it in its own way, and says what is wrong, if this is none


class _Msr(ctypes.Structure):
    """uc_x86_msr."""

    _fields_ = (("number", c_uint32), ("value", c_uint64))
