"""The portable loop's #DE of the one division that the host's own instruction does not survive, without the C helper.

Unicorn has EDX:EAX divided by the host's IDIV of 64 bits, which for -2**63 by -1 raises SIGFPE: the process would end.
The gate (`emu.unicorn_thunks`) asks here before each instruction while EDX:EAX is -2**63; with the C helper that is
emu/native/division.c. LOCK before IDIV, which is #UD on a CPU, is no exception: Unicorn divides.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_uint64, c_void_p
from typing import Final

from emu.unicorn_control import Control
from emu.unicorn_layout import HF_CPL, HF_CS32, HF_CS64
from emu.unicorn_overlay import Overlay
from emu.x86.division import SIZE, lowest_divided
from emu.x86.paging import walk
from emu.x86.state import CpuState

_ASKED = ctypes.CFUNCTYPE(c_uint64)
LONGEST: Final = 15  #: bytes of an instruction
USER: Final = 3


class Divisions:
    """The divisions of one engine. `read_linear` returns as many of the bytes asked for as are mapped memory;
    `read_physical` bytes of memory, None where there is none; `failed` takes an exception that must not leave a
    callback."""

    def __init__(
        self,
        overlay: Overlay,
        control: Control,
        state: Callable[[], CpuState],
        read_linear: Callable[[int, int], bytes],
        read_physical: Callable[[int, int], bytes | None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._env, self._control, self._state = overlay.env, control, state
        self._read, self._physical, self._failed = read_linear, read_physical, failed
        self._callback = _ASKED(self._asked)
        #: of the function that the gate calls: not 0 when the instruction is to raise #DE
        self.address = ctypes.cast(self._callback, c_void_p).value or 0

    def _asked(self) -> int:
        try:
            return int(self._overflows())
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._failed(error)
            return 1

    def _overflows(self) -> bool:
        env = self._env
        bits = 64 if env.hflags & HF_CS64 else 32 if env.hflags & HF_CS32 else 16
        bases = [segment.base for segment in env.segs]
        code = self._read(self._control.last, LONGEST)
        found = lowest_divided(code, bits, env.eip, list(env.regs), bases)
        if found is None:
            return False
        if found.linear is None:
            return True
        # The page fault of an operand comes first, and is Unicorn's to raise.
        pages = (walk(self._state(), self._physical, found.linear + byte) for byte in (0, SIZE - 1))
        ring3 = env.hflags & HF_CPL == USER
        return all(page.physical is not None and (page.user or not ring3) for page in pages)
