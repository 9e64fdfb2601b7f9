"""How the gate has system instructions done by `emu.unicorn_system`, without the C helper's replaced functions.

RDTSC, RDTSCP, SYSCALL and SYSENTER have hooks of Unicorn's. RDMSR, WRMSR, RDPMC and MOV to CR4 are intercepted as for
an SVM guest (AMD64 APM vol. 2, 15.9): the exit arrives as an exception of number 100h + exit code, with EIP at the
instruction. SYSRET and SYSEXIT fault, as Unicorn is shown neither EFER.SCE nor IA32_SYSENTER_CS.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from ctypes import c_void_p
from typing import Final

from emu.unicorn_callbacks import MASK32
from emu.unicorn_control import Control
from emu.unicorn_layout import DOUBLE_FAULT, HF_CS64, HF_GUEST, HF_INHIBIT_IRQ, NO_EXCEPTION
from emu.unicorn_memory import GuestMemory
from emu.unicorn_overlay import Overlay
from emu.unicorn_state import CR4_OSFXSR
from emu.unicorn_system import (
    EXECUTE,
    GET_TSC,
    GET_TSCP,
    GP,
    MASK64,
    MOV_CR4,
    MOV_CR8,
    RDMSR,
    RDPMC,
    RFLAGS_RF,
    SYSCALL,
    SYSENTER,
    SYSEXIT,
    SYSRET,
    UD,
    WRMSR,
    System,
)
from emu.unicorn_thunks import CodePages, system_hook
from emu.x86.state import RFLAGS_TF

HOOK_INSN: Final = 1 << 1  #: include/unicorn/unicorn.h, UC_HOOK_INSN
#: Instruction numbers of an INSN hook (include/unicorn/x86.h, UC_X86_INS_*).
INSN_RDTSC, INSN_RDTSCP, INSN_SYSCALL, INSN_SYSENTER = 608, 609, 699, 700
#: Exit codes (AMD64 APM vol. 2, appendix C) as exceptions, and the bits that ask for them (VMCB, 00Ch to 010h).
EXIT_WRITE_CR4, EXIT_WRITE_CR8, EXIT_RDPMC, EXIT_MSR, EXIT_SHUTDOWN = 0x114, 0x118, 0x16F, 0x17C, 0x17F
INTERCEPT: Final = 1 << (EXIT_RDPMC - 0x160) | 1 << (EXIT_MSR - 0x160)
INTERCEPT_CR_WRITE: Final = 1 << 4 | 1 << 8
MSR_MAP_SIZE: Final = 0x2000  #: two bits an MSR: all are intercepted (APM vol. 2, 15.11)
PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
REX: Final = range(0x40, 0x50)
REX_W, REX_B = 8, 1
LONGEST: Final = 15
DB: Final = 1
DR6_BS: Final = 1 << 14
#: The vectors after which another fault makes a double fault, of those that are raised here.
CONTRIBUTORY: Final = frozenset((GP,))


class Intercepts:
    """The intercepts of one engine. `read_linear` returns as many of the bytes asked for as are mapped memory; `free`
    is the physical address of MSR_MAP_SIZE bytes that nothing uses."""

    def __init__(
        self,
        overlay: Overlay,
        control: Control,
        code: CodePages,
        system: System,
        memory: GuestMemory,
        read_linear: Callable[[int, int], bytes],
        free: int,
    ) -> None:
        self._ov, self._env, self._control, self._system = overlay, overlay.env, control, system
        self._read = read_linear
        self._map = mmap.mmap(-1, MSR_MAP_SIZE)
        self._map.write(b"\xff" * MSR_MAP_SIZE)
        host = ctypes.addressof(ctypes.c_uint8.from_buffer(self._map))
        memory.map_host(free, MSR_MAP_SIZE, host, "the map of MSRs")
        control.msr_map = free
        self._env.intercept, self._env.intercept_cr_write = INTERCEPT, INTERCEPT_CR_WRITE
        self._env.hflags |= HF_GUEST
        self._transfers = EXECUTE(self._transfer)
        for number, operation, function in (
            (INSN_RDTSC, GET_TSC, system.callback),
            (INSN_RDTSCP, GET_TSCP, system.callback),
            (INSN_SYSCALL, SYSCALL, self._transfers),
            (INSN_SYSENTER, SYSENTER, self._transfers),
        ):
            thunk = system_hook(
                callback=ctypes.cast(function, c_void_p).value or 0,
                operation=operation,
                env=overlay.env_address,
                raise_exception=overlay.call.raise_exception_address,
            )
            overlay.add_hook(HOOK_INSN, code.place(thunk), instruction=number)

    def _transfer(self, operation: int, _operand: int) -> int:
        """SYSCALL or SYSENTER; Unicorn adds the instruction's length to EIP behind the hook."""
        env = self._env
        prefixes, _, _ = self._decode()
        length = prefixes + 2
        answer = self._system.execute(operation, length)
        if not answer:
            env.eip = env.eip - length & MASK64
        return answer

    def _decode(self) -> tuple[int, int, bytes]:
        """The instruction at EIP: the number of prefixes, REX (0: none), the bytes from the opcode on."""
        env = self._env
        long64 = env.hflags & HF_CS64
        code = self._read(env.eip if long64 else env.segs[1].base + env.eip & MASK32, LONGEST)
        at = rex = 0
        while at < len(code) and (code[at] in PREFIXES or (long64 and code[at] in REX)):
            rex = code[at] if code[at] in REX else 0
            at += 1
        return at, rex, code[at:]

    def take(self, vector: int) -> int:
        """An exception that Unicorn raised on its own: the vector to deliver now, or -1 when the instruction has been
        done after all."""
        if vector == EXIT_SHUTDOWN:
            # A triple fault of an SVM guest; without one Unicorn leaves the run with this value.
            self._env.old_exception = DOUBLE_FAULT
            self._ov.call.emu_stop(self._ov.uc)
            return -1
        operation, operand, length = self._asked(vector)
        if not operation:
            return vector
        env = self._env
        answer = self._system.execute(operation, operand)
        if operation == MOV_CR4 and not answer:
            self._ov.call.update_cr4(self._ov.env_address, operand)
            env.cr[4] |= operand & CR4_OSFXSR  # as emu/native/system.c
        if operation == MOV_CR8 and not answer:
            env.v_tpr = operand
        if answer:
            return self._instead(answer & 0xFF, answer >> 32)
        if operation not in (SYSRET, SYSEXIT):
            env.eip = env.eip + length & (MASK64 if env.hflags & HF_CS64 else MASK32)
        trapped = env.eflags & RFLAGS_TF
        env.eflags &= ~RFLAGS_RF
        env.hflags &= ~HF_INHIBIT_IRQ
        env.old_exception, env.error_code = NO_EXCEPTION, 0
        if trapped:
            env.dr[6] |= DR6_BS
            return self._instead(DB, 0)
        return -1

    def _instead(self, vector: int, code: int) -> int:
        env = self._env
        self._ov.exception_index.value = vector
        env.error_code, env.exception_is_int, env.exception_next_eip = code, 0, 0
        env.old_exception = vector if vector in CONTRIBUTORY else NO_EXCEPTION
        return vector

    def _asked(self, vector: int) -> tuple[int, int, int]:
        """The operation that the exception stands for (0: none), its operand, and the instruction's length."""
        env = self._env
        known = (UD, GP, EXIT_WRITE_CR4, EXIT_WRITE_CR8, EXIT_RDPMC, EXIT_MSR)
        if vector not in known or (env.exception_is_int and vector < 0x100):
            return 0, 0, 0
        prefixes, rex, code = self._decode()
        size = 2 if rex & REX_W else 1
        if vector == EXIT_MSR:
            return WRMSR if env.error_code else RDMSR, 0, prefixes + 2
        if vector == EXIT_RDPMC:
            return RDPMC, 0, prefixes + 2
        if vector in (EXIT_WRITE_CR4, EXIT_WRITE_CR8):
            value = env.regs[code[2] & 7 | (8 if rex & REX_B else 0)]
            operation = MOV_CR4 if vector == EXIT_WRITE_CR4 else MOV_CR8
            return operation, value if env.hflags & HF_CS64 else value & MASK32, prefixes + 3
        if vector == UD and code[:2] == b"\x0f\x07":
            return SYSRET, size, 0
        if vector == GP and code[:2] == b"\x0f\x35" and not env.error_code:
            return SYSEXIT, size, 0
        return 0, 0, 0
