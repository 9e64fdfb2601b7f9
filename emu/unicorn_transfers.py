"""Transfers of control that Unicorn gets wrong, executed here: tasks, call gates, stacks with limits, V86 extensions.

The SDM's pseudo-code is in `emu.x86` (`tasks`, `delivery`, `farcalls`, `virtual8086`). This file decides which events
are so unusual that it is asked, and carries the state in and out. Exceptions and INT n come by the INTR hook
(`emu.unicorn_faults`); far CALL, JMP, RETF, IRET and interrupts by the C helper (`emu/native/tasks.c`), which asks only
where it matters. Ordinary gates, with stacks of 4 GiB, stay with Unicorn.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_uint32, c_uint64, c_void_p
from functools import partial

from emu.typed import TYPE_CHECKING, Final
from emu.unicorn_control import INSTEAD, Control
from emu.unicorn_layout import CPU_INTERRUPT_VIRQ, HF_CPL, HF_LMA, HF_PE, HF_SMAP, NO_EXCEPTION, EnvSegment
from emu.unicorn_memory import GuestMemory
from emu.unicorn_overlay import Overlay
from emu.unicorn_state import read_state, write_transfer
from emu.x86.msrs import canonical
from emu.x86.segcheck import VECTOR_DB, VECTOR_GP, VECTOR_SS, alignment_checked, within, writable
from emu.x86.state import CR0_PG, CR4_PVI, CR4_VME, RFLAGS_TF, RFLAGS_VIF, RFLAGS_VIP, RFLAGS_VM, TASK_GATE, WITH_CODE

# What of `emu.x86` executes such a transfer is loaded with the first one.
if TYPE_CHECKING:
    from emu.x86.core import Core

#: What the helper asks about: emu/native/tasks.c.
KIND_JUMP, KIND_CALL, KIND_IRET, KIND_RETF, KIND_INTERRUPT = range(1, 6)
#: `Control.suppress`: the event has been delivered here; or `Refusal` is to be raised in its place.
SUPPRESS_DONE, SUPPRESS_RAISE = 1, 2
LEAVE_LOOK: Final = 2  #: `Control.leave`: segment caches may have changed
FLAT_LIMIT: Final = (1 << 32) - 1
MMU_KERNEL, MMU_KERNEL_SMAP = 2, 0  #: MMU_KNOSMAP_IDX, MMU_KSMAP_IDX of qemu/target/i386/cpu.h
LONGEST: Final = 15
MASK64: Final = (1 << 64) - 1
RING_3: Final = 3
RSP: Final = 4
IST_1, RSP_0 = 36, 4  #: in the 64-bit TSS: the first slot of the interrupt stack table, and ring 0's stack
RFLAGS_IOPL: Final = 3 << 12
DR6_BS: Final = 1 << 14
RFLAGS_OUTSIDE_READ_EFLAGS: Final = 3 << 16  #: RF and VM

TRANSFER = ctypes.CFUNCTYPE(c_uint64, c_void_p, c_uint32, c_uint64, c_uint64)


class Refusal(ctypes.Structure):
    """What machine code raises when `Control.suppress` is SUPPRESS_RAISE."""

    _fields_ = (("vector", c_uint32), ("code", c_uint32))
    vector: int
    code: int


class Transfers:
    """Those of one engine. `write_physical` stores into RAM and drops translations; `read_linear` returns as many
    bytes as are mapped; `failed` takes an exception that must not leave a callback. `unsure`, of the address of the
    CPU's state and a vector, is 0 where `_refusal` has nothing to say (emu/native/gates.c)."""

    def __init__(
        self,
        overlay: Overlay,
        control: Control,
        memory: GuestMemory,
        write_physical: Callable[[int, bytes], None],
        read_linear: Callable[[int, int], bytes],
        failed: Callable[[BaseException], None],
        unsure: Callable[[int, int], int],
    ) -> None:
        self._ov, self._control, self._failed = overlay, control, failed
        self._read, self._write, self._linear = memory.read, write_physical, read_linear
        self._unsure = unsure
        self.refusal = Refusal()
        #: set while a fault raised here is on its way to the recorder
        self.raising = False
        #: told of each task switch that is done here
        self.switched: Callable[[], None] | None = None
        self.callback = TRANSFER(self._asked)

    # -- state

    def _core(self, external: int = 0) -> Core:
        from emu.x86.core import Core

        ov = self._ov
        state = read_state(ov, halted=False)
        state.rflags = ov.call.read_eflags(ov.env_address) & ~RFLAGS_OUTSIDE_READ_EFLAGS | (
            ov.env.eflags & RFLAGS_OUTSIDE_READ_EFLAGS | 2
        )
        core = Core(state, self._read, self._write, external)
        core.cpl = ov.env.hflags & HF_CPL
        return core

    def _commit(self, core: Core) -> None:
        write_transfer(self._ov, core.state, core.cpl)
        self._control.leave |= LEAVE_LOOK

    def _attempt(self, core: Core, action: Callable[[], bool | None]) -> tuple[int, int] | bool:
        """Do it: True done, False not to be done here, or the vector and code to raise."""
        from emu.x86.core import CpuFault

        task = core.state.tr
        try:
            if action() is False:
                return False
            self._commit(core)
            if core.state.tr is not task and self.switched is not None:
                self.switched()
            if core.debug_trap:
                return VECTOR_DB, 0
            return True
        except CpuFault as fault:
            if core.state.tr is not task:
                self._commit(core)  # the new task's fault
            if fault.cr2 is not None:
                self._ov.env.cr[2] = fault.cr2
            return fault.vector, fault.code

    # -- exceptions and software interrupts

    def event(self, vector: int, *, software: bool, external: bool, code: int | None) -> None:
        """The INTR hook's event, recorded, with EIP at its instruction: deliver it here when it is unusual, and tell
        the delivering thunk by `Control.suppress`."""
        env = self._ov.env
        self.raising = False
        if env.hflags & HF_LMA:
            unsure = self._unsure(self._ov.env_address, vector)
            if unsure and (refusal := self._refusal(vector, software, int(external))):
                self._finish(refusal)
            return
        if not env.hflags & HF_PE:
            if not self._frame_fits():
                self._finish((VECTOR_SS, 0))
            return
        saved = env.exception_next_eip if software else env.eip
        virtual = bool(env.eflags & RFLAGS_VM)
        refused = vector == VECTOR_GP and not software and not code
        # With VIF and VIP both set no instruction begins: the refusal is that of the boundary (SDM vol. 3A, 20.3.2).
        if refused and env.cr[4] & (CR4_VME | CR4_PVI) and ~env.eflags & (RFLAGS_VIF | RFLAGS_VIP):
            from emu.x86.virtual8086 import INT_N, emulate, opcode

            core = self._core()
            data, stepped = self._linear(core.state.linear_pc, LONGEST), env.eflags & RFLAGS_TF
            result = self._attempt(core, partial(emulate, core, data))
            # TF was set when the instruction began; of INT n it is the handler's (SDM vol. 2A, INT n)
            if result is True and stepped and opcode(data)[0] != INT_N:
                env.dr[6] |= DR6_BS
                result = VECTOR_DB, 0
            if result and result != (VECTOR_GP, 0):  # that one is on its way
                self._finish(result)
                env.old_exception = NO_EXCEPTION
                return
        if software and virtual and env.cr[4] & CR4_VME and self._int_n():
            from emu.x86.virtual8086 import redirect, redirected

            core = self._core()
            core.state.rip = saved
            if redirected(core, vector):
                self._finish(self._attempt(core, partial(redirect, core, vector)))
                return
        if self._usual(vector):
            return
        from emu.x86.delivery import deliver

        core = self._core(int(external))
        core.state.rip = saved
        self._finish(self._attempt(core, partial(deliver, core, vector, code, software=software)))

    def _finish(self, result: tuple[int, int] | bool) -> None:
        if isinstance(result, tuple):
            self.refusal.vector, self.refusal.code = result
            self.raising = True
            self._control.suppress = SUPPRESS_RAISE
            if result[0] == VECTOR_DB:
                self._ov.env.old_exception = NO_EXCEPTION
        else:
            self._ov.env.old_exception = NO_EXCEPTION
            self._control.suppress = SUPPRESS_DONE

    def _int_n(self) -> bool:
        from emu.x86.virtual8086 import INT_N, opcode

        env = self._ov.env
        return opcode(self._linear(env.segs[1].base + env.eip, LONGEST))[0] == INT_N

    # -- what is usual

    def _frame_fits(self) -> bool:
        """True when FLAGS, CS and IP of real mode can be pushed, which nothing asks else. Where they cannot it is #SS,
        which cannot either, and after #DF the CPU shuts down (SDM vol. 2A, INT n; vol. 3A, 6.15, interrupt 8)."""
        env = self._ov.env
        stack, sp = env.segs[2], env.regs[RSP]
        access = stack.flags >> 8 & 0xF0FF
        return all(writable(access) and within(stack.limit, access, sp - 2 * (n + 1) & 0xFFFF, 2) for n in range(3))

    def _peek(self, linear: int, length: int) -> int | None:
        """Guest memory whose translation is cached by Unicorn, without side effects."""
        env = self._ov.env
        if linear & 0xFFF > 0x1000 - length:
            return None
        index = MMU_KERNEL_SMAP if env.hflags & HF_SMAP else MMU_KERNEL
        host = self._ov.call.to_host(self._ov.env_address, linear & FLAT_LIMIT, 0, index)
        return int.from_bytes(ctypes.string_at(host, length), "little") if host else None

    def _descriptor(self, selector: int) -> int | None:
        env = self._ov.env
        table = env.ldt if selector & 4 else env.gdt
        if selector | 7 > table.limit:
            return None
        return self._peek(table.base + (selector & 0xFFF8), 8)

    def _usual(self, vector: int) -> bool:
        """True when Unicorn delivers `vector` rightly: by an interrupt or trap gate to a stack without limits."""
        env = self._ov.env
        if vector * 8 + 7 > env.idt.limit:
            return True
        gate = self._peek(env.idt.base + vector * 8, 8)
        if gate is None or gate >> 40 & 0x1F == TASK_GATE:
            return False
        if not gate >> 47 & 1 or gate >> 40 & 0x1F not in (6, 7, 14, 15):
            return True
        if not gate >> 43 & 1 and gate >> 48:  # of 16 bits, whose last word Unicorn takes for a part of EIP
            return False
        code = self._descriptor(gate >> 16 & 0xFFFF)
        if code is None:
            return False
        limit = code & 0xFFFF | code >> 32 & 0xF0000
        if (gate & 0xFFFF | (gate >> 48 << 16 if gate >> 43 & 1 else 0)) > (
            limit << 12 | 0xFFF if code >> 55 & 1 else limit
        ):
            return False
        cpl, dpl = env.hflags & HF_CPL, code >> 45 & 3
        if code >> 42 & 1 or dpl >= cpl:
            # the frame of ring 3 on its own stack is an access of the program's, and Unicorn's is the supervisor's
            plain = not env.cr[0] & CR0_PG and not alignment_checked(env.cr[0], env.eflags)
            return _flat(env.segs[2]) and (cpl < RING_3 or plain)
        tr = env.tr
        wide = 4 if tr.flags >> 8 & 8 else 2
        at = tr.base + 2 * wide * dpl + wide
        selector = self._peek(at + wide, 2)
        if selector is None or not selector & 0xFFFC or 2 * wide * dpl + 2 * wide + 1 > tr.limit:
            return False
        stack = self._descriptor(selector)
        # present, writable, expand-up, the handler's ring, G, and a limit of 4 GiB
        return (
            stack is not None
            and selector & 3 == dpl
            and stack >> 40 & 0xFE == 0x92 | dpl << 5
            and bool(stack >> 55 & 1)
            and stack & 0xFFFF == 0xFFFF
            and stack >> 48 & 0xF == 0xF
        )

    def _refusal(self, vector: int, software: bool, ext: int) -> tuple[int, int] | None:
        """IA-32e mode: the vector and code of the fault by which an event ends whose stack or whose handler's address
        is not canonical, or whose frame ring 3 may not push on the stack that it stays on, if nothing comes before that
        (SDM vol. 2A, INT n, 64-bit IDT gates); that is Unicorn's. The new SS, which the code names, is null."""
        env = self._ov.env
        gate = self._bytes(env.idt.base + vector * 16, 16)
        cpl = env.hflags & HF_CPL
        if gate is None or gate >> 40 & 0x1F not in (14, 15) or not gate >> 47 & 1:
            return None
        if software and gate >> 45 & 3 < cpl:
            return None
        selector, slot = gate >> 16 & 0xFFFF, gate >> 32 & 7
        table = env.ldt if selector & 4 else env.gdt
        if not selector & 0xFFFC or selector | 7 > table.limit:
            return None
        code = self._bytes(table.base + (selector & 0xFFF8), 8)
        # a present code segment, with L set and D clear
        if code is None or code >> 43 & 3 != 3 or code >> 47 & 1 == 0 or code >> 53 & 3 != 1 or code >> 45 & 3 > cpl:
            return None
        ring = cpl if code >> 42 & 1 else code >> 45 & 3
        stack: int | None = env.regs[RSP]
        if slot or ring < cpl:
            at = IST_1 + 8 * (slot - 1) if slot else RSP_0 + 8 * ring
            if at + 7 > env.tr.limit:
                return None
            stack = self._bytes(env.tr.base + at, 8)
        if stack is None:
            return None
        if not canonical(stack & ~15 & MASK64):
            return VECTOR_SS, ext
        target = gate & 0xFFFF | (gate >> 48 & 0xFFFF_FFFF_FFFF) << 16
        if not canonical(target):
            return VECTOR_GP, ext
        if ring < RING_3 or slot or not env.cr[0] & CR0_PG:
            return None
        return self._pushed(stack & ~15 & MASK64, 6 if vector in WITH_CODE and not software else 5)

    def _pushed(self, top: int, count: int) -> tuple[int, int] | None:
        """The #PF of as many pushes of 8 bytes as an access of ring 3's, which Unicorn makes as the supervisor."""
        from emu.x86.core import CpuFault

        core = self._core()
        try:
            for number in range(count):
                core.probe(top - 8 * (number + 1), 8, write=True, user=True)
        except CpuFault as fault:
            self._ov.env.cr[2] = fault.cr2 or 0
            return fault.vector, fault.code
        return None

    def _bytes(self, linear: int, length: int) -> int | None:
        """Guest memory at a linear address, where all of it is mapped."""
        data = self._linear(linear & MASK64, length)
        return int.from_bytes(data, "little") if len(data) == length else None

    # -- the helper's questions

    def _asked(self, _env: int, kind: int, a: int, b: int) -> int:
        try:
            return self._answer(kind, a, b)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._failed(error)
            return 0

    def far(self, kind: int, a: int, b: int) -> int:
        """The same of the portable loop, before the instruction executes."""
        return self._asked(0, kind, a, b)

    def _refused(self, vector: int, code: int) -> int:
        """The answer that has it raised."""
        self.raising = True
        return vector | code << 32

    def _answer(self, kind: int, a: int, b: int) -> int:
        if kind == KIND_INTERRUPT:
            a = self._control.vector
            if self._ov.env.hflags & HF_LMA:
                refusal = self._refusal(a, False, 1)
                return self._refused(*refusal) if refusal else 0
            if not self._ov.env.hflags & HF_PE:
                return 0 if self._frame_fits() else self._refused(VECTOR_SS, 0)
            if self._usual(a):
                return 0
            from emu.x86.delivery import deliver

            core = self._core(1)
            action: Callable[[], bool | None] = partial(deliver, core, a, None, software=False)
        else:
            from emu.x86.farcalls import far_return, interrupt_return, transfer
            from emu.x86.tasks import Source

            core = self._core()
            source = Source.JUMP if kind == KIND_JUMP else Source.CALL
            if kind in (KIND_JUMP, KIND_CALL):
                core.state.rip = b & FLAT_LIMIT
                action = partial(transfer, core, a & 0xFFFF, source, a >> 32, 4 if b >> 32 else 2)
            elif kind == KIND_IRET:
                core.state.rip = b if core.state.rflags & 1 << 14 else core.state.rip
                action = partial(interrupt_return, core, a)
            else:
                action = partial(far_return, core, a, b)
        result = self._attempt(core, action)
        if isinstance(result, tuple):
            return self._refused(*result)
        if result and kind == KIND_INTERRUPT:
            self._ov.request.value &= ~CPU_INTERRUPT_VIRQ
        return INSTEAD if result else 0


def _flat(segment: EnvSegment) -> bool:
    return segment.limit == FLAT_LIMIT and not segment.flags >> 10 & 1
