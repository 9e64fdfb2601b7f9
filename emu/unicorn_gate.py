"""The run loop for any platform: a CODE hook in machine code before every instruction (emu/unicorn_thunks.py)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Final

from emu.unicorn_callbacks import MASK32, Callbacks
from emu.unicorn_control import EMPTY, Control
from emu.unicorn_division import Divisions
from emu.unicorn_execution import ExecutionBreakpoints
from emu.unicorn_layout import ANY_LENGTH, HF_CS64, PORTABLE_LENGTH
from emu.unicorn_overlay import Overlay
from emu.unicorn_shadow import Shadows
from emu.unicorn_shared import Met, Watched
from emu.unicorn_system import System
from emu.unicorn_thunks import CodePages, gate, port_check

#: Above this many bytes all translations are dropped instead of those of the range.
FLUSH_ALL: Final = 1 << 20
#: REP and REPNE, and the string instructions they repeat (SDM vol. 2B, "REP"): INS OUTS MOVS CMPS STOS LODS SCAS.
REPEATS: Final = frozenset((0xF2, 0xF3))
STRING_OPCODES: Final = frozenset((*range(0x6C, 0x70), *range(0xA4, 0xA8), *range(0xAA, 0xB0)))
PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
REX: Final = range(0x40, 0x50)
LONGEST_INSTRUCTION: Final = 15
HOOK_CODE, HOOK_INSN = 1 << 2, 1 << 1  #: include/unicorn/unicorn.h, UC_HOOK_CODE, UC_HOOK_INSN


class GateLoop:
    """`read_linear` gives as many of the bytes at a linear address as are mapped memory. `repeat` is the address of a
    function to call for an interrupt before the instruction that was executed last, `divisions` has that of the one to
    ask before a division."""

    name = "gate"
    met: Met | None = None  # each access is told
    longest = PORTABLE_LENGTH
    keeps_pc = False  # Unicorn sets it back before it calls a memory hook

    def __init__(
        self,
        overlay: Overlay,
        control: Control,
        code: CodePages,
        callbacks: Callbacks,
        read_linear: Callable[[int, int], bytes],
        repeat: int,
        divisions: Divisions,
    ) -> None:
        self._ov, self._control, self._read, self._divisions = overlay, control, read_linear, divisions
        self._shadows = Shadows(overlay.env, control, read_linear, callbacks.failed)
        self.run_ended: Callable[[], None] | None = None  #: called when Unicorn returns
        self.run_end = memoryview(bytearray(8)).cast(
            "q"
        )  #: instructions retired when the run has none left: one number
        place = code.place
        self._execution = ExecutionBreakpoints(overlay, code, callbacks.failed)
        addresses = {
            "control": ctypes.addressof(control), "repeat": repeat, "divide": divisions.address,
            "shadow": self._shadows.address,
            **overlay.gate_addresses(),
        }  # fmt: skip
        overlay.add_hook(HOOK_CODE, place(gate(**addresses)))
        for number, function in callbacks.ports:
            callback = ctypes.cast(function, ctypes.c_void_p).value or 0
            checked = place(port_check(callback=callback, **overlay.port_check_addresses()))
            overlay.add_hook(HOOK_INSN, checked, instruction=number)

    def tell(self, classes: int) -> None:
        """See Executor.tell_instructions: it would have to look at each instruction for that, and tells of none."""

    def note_answers(self) -> None:
        """Each access is asked for."""

    def take_answered(self) -> tuple[int, int]:
        """There are none."""
        return 0, 0

    def take_kept(self) -> int:
        """There are none."""
        return 0

    def serve_ports(self, address: int | None) -> bool:
        """Each access is asked for."""
        return False

    def serve(self, system: System) -> None:
        """`emu.unicorn_intercepts` has the system instructions done."""

    def enter(self) -> int:
        """Run until the gate or Unicorn stops; uc_emu_start's error code."""
        self._control.invalidated = self._ov.invalidated.value
        env = self._ov.env
        if self._ov.cflags_next.value == ANY_LENGTH:
            self._ov.cflags_next.value = PORTABLE_LENGTH
        code: int = self._ov.call.emu_start(self._ov.uc, env.eip, 0, 0, 0)
        if not env.hflags & HF_CS64:
            env.eip &= 0xFFFFFFFF  # Unicorn has 64 bits of it behind a Jcc that goes beyond 4 GiB
        self._shadows.run_ended()
        if self.run_ended is not None:
            self.run_ended()
        return code

    def forget(self) -> None:
        """The CPU has been given another state. The gate compares it all before each instruction."""

    def hold(self, port: int, value: int, floor: int, answered: bool, kept: bool) -> None:
        """Each access is asked for."""

    def stream(self, port: int, data: bytes, taken: Callable[[int], None], sizes: int) -> None:
        """Each access is asked for."""

    def collect(self, port: int, room: int, written: Callable[[bytes], None], sizes: int) -> None:
        """Each access is told."""

    def repeating(self) -> bool:
        """True when the breakpoint just met is on a string instruction that goes on repeating."""
        env = self._ov.env
        long64 = env.hflags & HF_CS64
        pc = env.eip if long64 else env.segs[1].base + env.eip & MASK32
        if self._control.last & (EMPTY if long64 else MASK32) != pc:
            return False
        repeats = False
        for byte in self._read(pc, LONGEST_INSTRUCTION):
            if byte in REPEATS:
                repeats = True
            elif byte not in PREFIXES and not (long64 and byte in REX):
                return repeats and byte in STRING_OPCODES
        return False

    def breakpoints_changed(self) -> None:
        """The gate looks each address up."""

    def memory_changed(self, ranges: Sequence[tuple[int, int]], *, running: bool) -> None:
        """Drop the translations made from the ranges. While an instruction runs, its own goes on to the end."""
        if not running and sum(end - first for first, end in ranges) > FLUSH_ALL:
            self.flush()
            return
        for first, end in ranges:
            self._ov.call.invalidate_range(self._ov.uc, first, end)

    def instruction_pc(self) -> int:
        """The linear address of the instruction that is executing: the gate counted it last."""
        return self._control.last

    def mark_writes(
        self, host: int, pages: int, marks: int, places: Sequence[tuple[int, int, int, int]]
    ) -> Callable[[], None] | None:
        """Unicorn's own code stores without a trace."""
        return None

    def trace_writes(self, marks: int) -> Callable[[], None] | None:
        """As `mark_writes`."""
        return None

    def flush(self) -> None:
        """Drop all translations."""
        self._ov.call.tb_flush(self._ov.cpu)

    def memory_hook(self, callback: int, number: int, watched: Watched | None = None) -> tuple[int, int]:
        """What to give Unicorn for a memory hook: the function, and its user data."""
        return callback, number

    def forget_hooks(self) -> None:
        """Unicorn has what it needs."""

    def close(self) -> None:
        """The machine code goes with its pages."""
