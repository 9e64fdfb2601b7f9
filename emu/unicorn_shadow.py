"""The portable loop's shadows of STI and of loading SS (SDM vol. 3A, 6.8.3; vol. 2B, STI), as emu/native/shadow.c.

Unicorn begins a shadow behind each STI, whatever IF was, and none within another. The gate (`emu.unicorn_thunks`) asks
here before an instruction that is in one. Translations are of one state of the shadow, so an instruction that is to
begin one of its own is translated anew, as if in none; `Control.hold` keeps interrupts off it meanwhile.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_uint64, c_void_p
from enum import Enum
from typing import Final

from emu.unicorn_control import Control
from emu.unicorn_layout import HF_CS64, HF_INHIBIT_IRQ, Env
from emu.x86.classes import split

PAGE: Final = 0x1000
LONGEST: Final = 15
STI, POP_SS, MOV_SREG, SS = 0xFB, 0x17, 0x8E, 2
IF_BEFORE: Final = 2  #: of EFLAGS's second byte: IF
#: What the gate is answered.
GO_ON, LEAVE = 0, 1
_SHADOW = ctypes.CFUNCTYPE(c_uint64, c_void_p, c_uint64)


class Kind(Enum):
    """What begins a shadow."""

    STI = "sti"
    STACK = "ss"  #: MOV SS and POP SS


def kind_of(code: bytes, *, long64: bool) -> Kind | None:
    """That of the instruction which begins `code`; None for another one."""
    _, op, _ = split(code, 64 if long64 else 32)
    if op[:1] == bytes((STI,)):
        return Kind.STI
    if (op[:1] == bytes((POP_SS,)) and not long64) or (
        op[:1] == bytes((MOV_SREG,)) and len(op) > 1 and op[1] >> 3 & 7 == SS
    ):
        return Kind.STACK
    return None


class Shadows:
    """Those of one engine. `read_linear` gives as many of the bytes at a linear address as are mapped memory, `failed`
    takes an exception that must not leave a callback."""

    def __init__(
        self,
        env: Env,
        control: Control,
        read_linear: Callable[[int, int], bytes],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._env, self._control, self._read, self._failed = env, control, read_linear, failed
        self._callback = _SHADOW(self._asked)
        self.address = ctypes.cast(self._callback, c_void_p).value or 0  #: of the function that the gate calls

    def _asked(self, _uc: int, pc: int) -> int:
        try:
            return self._begins_anew(pc)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._failed(error)
            return GO_ON

    def _kind(self, pc: int) -> Kind | None:
        """Nothing behind the page is looked at, which may be absent."""
        return kind_of(self._read(pc, min(LONGEST, PAGE - pc % PAGE)), long64=bool(self._env.hflags & HF_CS64))

    def _begins_anew(self, pc: int) -> int:
        """The instruction at linear `pc` is in a shadow: whether it is to be translated as if it were in none."""
        env, kind = self._env, self._kind(pc)
        if self._is_false():
            env.hflags &= ~HF_INHIBIT_IRQ
            return LEAVE if kind else GO_ON
        if kind is None or not self._own(pc, kind):
            return GO_ON
        env.hflags &= ~HF_INHIBIT_IRQ
        self._control.hold = 1
        return LEAVE

    def _own(self, pc: int, kind: Kind) -> bool:
        """Whether the instruction has a shadow of its own within the one that it is in: where the two are of different
        kinds. The byte before tells, as no shadow outlives a jump; shadow.c says where that may err."""
        return pc % PAGE == 0 or (kind is Kind.STACK) == (self._read(pc - 1, 1) == bytes((STI,)))

    def _is_false(self) -> bool:
        """The instruction executed last was STI with IF set."""
        return bool(self._control.flags_before & IF_BEFORE) and self._kind(self._control.last) is Kind.STI

    def run_ended(self) -> None:
        """Unicorn returns: what is seen of the shadow is right."""
        env, control = self._env, self._control
        if control.hold:
            control.hold = 0
            env.hflags |= HF_INHIBIT_IRQ
        elif env.hflags & HF_INHIBIT_IRQ and self._is_false():
            env.hflags &= ~HF_INHIBIT_IRQ
