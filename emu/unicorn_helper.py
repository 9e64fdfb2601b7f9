"""The C helper (emu/native) seen from Python: loading it before Unicorn, and proving that it does what it should.

It replaces internal functions of libunicorn by being loaded first, so `load` has to be called before Unicorn's library
is opened (`emu.unicorn_library`).
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_uint32, c_uint64, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES

from emu.devices.shared_ports import SharedPorts
from emu.devices.vga_memory import Shared
from emu.engine import EngineError
from emu.native import sources_checksum
from emu.typed import Any, Final
from emu.unicorn_control import EMPTY, STOP_BUDGET, Control, offset
from emu.unicorn_fast_checks import instruction_maps
from emu.unicorn_layout import (
    CPU_CAN_DO_IO,
    CPU_CFLAGS_NEXT,
    CPU_ENV,
    CPU_EXCEPTION_INDEX,
    CPU_EXIT_REQUEST,
    CPU_HALTED,
    CPU_INTERRUPT_REQUEST,
    ENV_ICOUNT_DECR,
    ENV_TLB,
    HIDDEN_PAGE,
    UC_CPU,
    UC_INVALID_ERROR,
    UC_TCG,
    VERSION,
    Env,
    offset_of,
)
from emu.unicorn_overlay import Overlay
from emu.unicorn_shared import Cells, Layout, Statistics

ENV_RSP: Final = 0x20
PAGE: Final = 0x1000
#: GNU build ID of libunicorn.so.2 in the wheel of VERSION for x86-64 Linux with glibc.
BUILD_ID: Final = bytes.fromhex("44285d3e80527122e9e361928189385906ec813e")

#: Why there is no helper when that is as asked.
FORCED: Final = "V2E_ENGINE=gate asks for that"

PORT_IN = ctypes.CFUNCTYPE(c_uint32, c_uint32, c_int)
PORT_OUT = ctypes.CFUNCTYPE(None, c_uint32, c_int, c_uint32)

#: NOP; NOP; IN AL,80h; NOP; INC BYTE of the next instruction, a NOP in the same block; and a jump to itself.
_PROOF = bytes.fromhex("90 90 e480 90 fe0500000000 90 ebfe")
_PROOF_AT = 0x800
_HLT = 0xF4
_PROOF_STORED = _PROOF_AT + 11
#: Runs of so many instructions, and where each must end.
_PROOF_RUNS = {1: 1, 2: 4, 50: 12}


class Helper:
    """The loaded library. Raises EngineError when it does not fit this Unicorn."""

    def __init__(self, library: ctypes.CDLL) -> None:
        def f(name: str, result: Any, *arguments: Any) -> Any:
            function = getattr(library, f"v2e_fast_{name}")
            function.restype, function.argtypes = result, arguments
            return function

        self.library = library
        p = c_void_p
        self.open = f("open", c_char_p, c_char_p, p)
        self.too_late = f("too_late", c_int)
        self.sources = f("sources", c_uint32)
        self._page = f("page", p, c_uint64)
        self._page_back = f("page_back", None, p)
        self.attach = f("attach", p, p, p, p, c_uint32, c_uint64, PORT_IN, PORT_OUT)
        self.detach = f("detach", None, p)
        self.system = f("system", None, p, p)
        self.run = f("run", c_int, p)
        #: Without types of its arguments, as ctypes takes longer to apply three than for all the rest of a call.
        self.go, self.go_few = library.v2e_fast_go, library.v2e_fast_go_few
        self.go.restype = self.go_few.restype = c_int
        self.stopped_code = f("stopped_code", c_int, p, p)
        self.class_of = f("class_of", c_uint32, c_char_p, c_int, c_int)
        self.tell = f("tell", None, p, c_uint32, p)
        self.breakpoints = f("breakpoints", None, p)
        self.memory_changed = f("memory_changed", None, p, c_uint64, c_uint64)
        self.flush = f("flush", None, p)
        self.mark_writes = f("mark_writes", None, p, c_uint64, c_uint64, p, p, c_uint32)
        self.rearm = f("rearm", None, p)
        self.instruction_pc = f("instruction_pc", c_uint64, p)
        self.trace_writes = f("trace_writes", None, p, p)
        self.physical_changed = f("physical_changed", None, p, c_uint64, c_uint64)
        self.transfers = f("transfers", c_int, p, p)
        self.gate_unsure = f("gate_unsure", c_int, p, c_uint32)
        self.code_seen = f("code_seen", c_int, p, c_uint64, c_uint32, c_char_p)
        self.statistics = f("statistics", None, p, p)
        self.checks = f("checks", None, p, c_int, c_uint32)
        #: the tables of instructions, which the library refers to
        self._maps = instruction_maps()
        library.v2e_decode_maps(ctypes.byref(self._maps))
        self.decode = library.v2e_decode
        self.control = f("control", c_uint64)
        self.ports = f("ports", None, p, p)
        self.ports_layout = f("ports_layout", c_uint64)
        self.memory_read = ctypes.cast(library.v2e_mmio_read, c_void_p).value or 0
        self.memory_write = ctypes.cast(library.v2e_mmio_write, c_void_p).value or 0
        self.display = f("display", None, p, p, c_uint64, c_uint64)
        self.display_read = ctypes.cast(library.v2e_vga_read, c_void_p).value or 0
        self.display_write = ctypes.cast(library.v2e_vga_write, c_void_p).value or 0
        library.v2e_vga_layout.restype = c_uint64
        self.display_layout: Callable[[], int] = library.v2e_vga_layout
        self.call_hook_address = ctypes.cast(library.v2e_fast_call, c_void_p).value or 0
        self.memory_hook_address = ctypes.cast(library.v2e_fast_memory_hook, c_void_p).value or 0
        self._refusal: str | None = None  # empty once it is proved to work

    def page(self, env: int) -> memoryview | None:
        """A page of zeros near `env`, the address of a CPU's state, for as long as somebody holds it."""
        address = self._page(env)
        if address is None:
            return None
        page = (ctypes.c_uint8 * PAGE).from_address(address)
        weakref.finalize(page, self._page_back, address).atexit = False
        return memoryview(page).cast("B")

    def agree(self) -> None:
        """Raises EngineError when it was built from other sources than this package's."""
        sizes = ctypes.sizeof(Control) << 48 | ctypes.sizeof(Layout) << 32 | ctypes.sizeof(Cells) << 16
        if (
            self.sources() not in (0, sources_checksum())
            or self.control() != sizes | offset("mode")
            or self.ports_layout() != ctypes.sizeof(SharedPorts)
            or self.display_layout() != ctypes.sizeof(Shared) << 32 | offset_of(Shared, "direct")
        ):
            raise EngineError("the helper was built from other sources than this package's; install it again")

    def _fit(self, unicorn_path: str) -> None:
        env = [offset_of(Env, name) for name in ("eip", "eflags", "hflags", "cr")]
        names = ("segs", "dr", "error_code", "tsc_aux", "cc_op", "old_exception", "fpstt", "fpuc", "fpregs", "cc_src")
        names_of_floats = ("mxcsr", "fpus", "fptags", "fpop", "fpcs", "fpds", "fpip", "fpdp")
        more = [offset_of(Env, name) for name in (*names, *names_of_floats)]
        layout = Layout(
            UC_CPU, UC_TCG, UC_INVALID_ERROR, CPU_EXIT_REQUEST, CPU_CFLAGS_NEXT, CPU_INTERRUPT_REQUEST, CPU_CAN_DO_IO,
            CPU_EXCEPTION_INDEX, CPU_HALTED, CPU_ENV, *env, ENV_RSP, *more, ENV_ICOUNT_DECR, ENV_TLB,
        )  # fmt: skip
        missing = self.open(unicorn_path.encode(), ctypes.byref(layout))
        if missing is not None:
            raise EngineError(f"this build of Unicorn does not export {missing.decode()}")
        with open(unicorn_path, "rb") as file:
            if BUILD_ID not in file.read(0x1000):
                raise EngineError(f"{unicorn_path} is not the library in PyPI's wheel of unicorn {VERSION}")

    def fit(self, path: str) -> None:
        """Find Unicorn's functions in its library, loaded from `path`. Has to come before the first engine is made,
        as Unicorn calls the helper from then on."""
        try:
            self._fit(path)
        except EngineError as error:
            self._refusal = str(error)

    def prove(self, overlay: Overlay, control: Control, page: memoryview) -> None:
        """Once in a process: execute a few instructions of which every mechanism has its share, on a new engine whose
        hidden page is `page`. Raises EngineError when the helper is not to be used."""
        if self._refusal is None:
            try:
                self._prove(overlay, control, page)
                self._refusal = ""
            except EngineError as error:
                self._refusal = str(error)
        if self._refusal:
            raise EngineError(self._refusal)

    def _prove(self, overlay: Overlay, control: Control, page: memoryview) -> None:
        seen: list[int] = []

        def read(_port: int, _size: int) -> int:
            seen.append(control.remaining)
            return 0

        env = overlay.env
        before = env.eip
        page[_PROOF_AT : _PROOF_AT + len(_PROOF)] = _PROOF
        # Unicorn itself allows device accesses again when it leaves a block; the first instruction here is HLT.
        allowed = c_uint32.from_address(overlay.cpu + CPU_CAN_DO_IO)
        page[_PROOF_AT - 1] = _HLT
        env.eip, allowed.value = HIDDEN_PAGE + _PROOF_AT - 1, 0
        overlay.call.emu_start(overlay.uc, env.eip, 0, 0, 0)
        overlay.halted.value = 0
        if allowed.value != 1:
            raise EngineError(f"Unicorn {VERSION} keeps can_do_io elsewhere than the helper thinks")
        cells, port_in = Cells(), PORT_IN(read)
        engine = self.attach(
            overlay.uc, ctypes.addressof(control), ctypes.addressof(cells), 64, 0, port_in, PORT_OUT()
        )  # fmt: skip
        if not engine:
            raise EngineError("the helper has no memory left")
        env.eip, control.dr7 = HIDDEN_PAGE + _PROOF_AT, env.dr[7] & 0xFFFFFFFF
        places, reasons = [], []
        for part in _PROOF_RUNS:
            control.remaining, control.reason = part, 0
            self.run(engine)
            places.append(env.eip - HIDDEN_PAGE - _PROOF_AT)
            reasons.append(control.reason)
        counts = Statistics()
        self.statistics(engine, ctypes.byref(counts))
        found = (
            places,
            reasons,
            page[_PROOF_STORED],
            seen,
            counts.retried > 0,
            counts.unwound > 0,
            counts.begun >= counts.made > 0,
        )
        self.detach(overlay.uc)
        overlay.call.tb_flush(overlay.cpu)
        page[_PROOF_AT - 1 : _PROOF_AT + len(_PROOF)] = bytes(1 + len(_PROOF))
        env.eip, control.remaining, control.reason, control.last = before, 0, 0, EMPTY
        expected = (list(_PROOF_RUNS.values()), [STOP_BUDGET] * 3, 0x91, [0], True, True, True)
        if found != expected:
            raise EngineError(f"Unicorn does not call the helper as it should ({found!r} instead of {expected!r})")


def load() -> Helper | str:
    """The helper, loaded; or the sentence that says why there is none. Nothing of Unicorn is touched."""
    if os.environ.get("V2E_ENGINE", "") == "gate":
        return FORCED
    machine = os.uname().machine
    # The module `platform` would read through the interpreter's file for the second.
    glibc = "CS_GNU_LIBC_VERSION" in os.confstr_names and (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    if sys.platform != "linux" or machine != "x86_64" or not glibc:
        return f"it is for x86-64 Linux with glibc, not for {machine} {sys.platform}"
    stem = os.path.join(os.path.dirname(__file__), "native", "_fast")
    path = next((stem + suffix for suffix in EXTENSION_SUFFIXES if os.path.exists(stem + suffix)), None)
    if path is None:
        return "it was not built; install a C compiler and then this package again"
    try:
        helper = Helper(ctypes.CDLL(path))
        helper.agree()
        # Only now Unicorn, when it is loaded, is to find these functions before its own.
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except EngineError as error:
        return str(error)
    except (OSError, AttributeError) as error:
        return f"{path} cannot be loaded: {error}"
    if helper.too_late():
        return "unicorn was imported before emu.unicorn_engine; import that first"
    return helper


HELPER: Final = load()
