"""Breakpoints of DR0 to DR3 on execution where CS has a base, for the portable loop: emu/native/steps.c in Python.

Unicorn ends a translation before the linear address in a debug register, and then compares the register with EIP
(QEMU 5.0.1, target/i386/bpt_helper.c, breakpoint_handler): where the two differ it goes back to the same place
for ever.
So the pointer to that function, which each CPU has of its own, leads to machine code of ours that asks here first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_uint64, c_void_p
from typing import Final

from emu.unicorn_layout import CPU_DEBUG_HANDLER, HF_CS64
from emu.unicorn_overlay import Overlay
from emu.unicorn_thunks import CodePages, breakpoint_handler

DR6_B: Final = 0xF
DR7_ENABLES: Final = 0xFF
MASK32: Final = (1 << 32) - 1
_ASKED = ctypes.CFUNCTYPE(c_uint64, c_void_p)


class ExecutionBreakpoints:
    """Those of one engine. `failed` takes an exception that must not leave a callback. Where the C helper is loaded its
    own function is there already, and stays."""

    def __init__(self, overlay: Overlay, code: CodePages, failed: Callable[[BaseException], None]) -> None:
        self._env, self._failed = overlay.env, failed
        self._callback = _ASKED(self._asked)
        slot, original = c_uint64.from_address(overlay.cpu + CPU_DEBUG_HANDLER), overlay.call.breakpoint_handler_address
        if slot.value != original:
            return
        thunk = breakpoint_handler(
            callback=ctypes.cast(self._callback, c_void_p).value or 0,
            env=overlay.env_address,
            raise_exception=overlay.call.raise_exception_address,
            original=original,
        )
        slot.value = code.place(thunk)

    def _asked(self, _cpu: int) -> int:
        """1 when #DB is to be raised, with DR6 as it is to be."""
        try:
            return self._met()
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._failed(error)
            return 0

    def _met(self) -> int:
        env = self._env
        base, dr = env.segs[1].base, env.dr
        if env.hflags & HF_CS64 or not base or not dr[7] & DR7_ENABLES:
            return 0
        linear = base + env.eip & MASK32
        found = sum(1 << n for n in range(4) if not dr[7] >> 16 + 4 * n & 3 and dr[n] == linear)
        if not found:
            return 0
        dr[6] = dr[6] & ~DR6_B | found
        return 1
