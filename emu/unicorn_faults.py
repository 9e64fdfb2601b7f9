"""Exceptions and software interrupts on their way to the guest's handlers: recorded, counted, put right.

These callbacks run before the thunks that deliver (`emu.unicorn_thunks`), between two instructions; asking the engine
to stop here is exact too.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable
from ctypes import c_int, c_uint32, c_void_p

from emu.engine import Fault
from emu.typed import Final
from emu.unicorn_callbacks import MASK32, Callbacks
from emu.unicorn_calls import Noted
from emu.unicorn_control import STOP_ASKED, STOP_BUDGET, Control
from emu.unicorn_layout import CPU_INTERRUPT_VIRQ, HF_CS32, HF_CS64, NO_EXCEPTION
from emu.unicorn_overlay import Overlay
from emu.unicorn_transfers import Transfers
from emu.x86.classes import split
from emu.x86.msrs import canonical
from emu.x86.repeats import behind_iteration
from emu.x86.state import CR0_PE, EFER_LMA, WITH_CODE

FAULTS_KEPT: Final = 8
LONGEST: Final = 15  #: bytes of an instruction
RCX: Final = 1
RSP: Final = 4
VECTOR_DB, VECTOR_NMI, VECTOR_UD, VECTOR_SS, VECTOR_GP, VECTOR_PF = 1, 2, 6, 12, 13, 14
#: Exceptions whose code names a selector and has EXT, bit 0, and IDT, bit 1 (SDM vol. 3A, 6.13): #TS #NP #SS #GP.
WITH_SELECTOR: Final = frozenset((10, 11, 12, 13))
CODE_EXT, CODE_IDT = 1 << 0, 1 << 1
#: Fault-class exceptions, whose pushed flags have RF set (SDM vol. 3A, table 6-1; vol. 3B, 17.3.1.1); and #DF, which
#: comes of two faults.
FAULT_CLASS: Final = frozenset((0, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 19, 21))
ICEBP: Final = b"\xf1"
#: The instructions of one byte that raise an exception as INT n raises an interrupt, by its vector: INT3 and INTO.
OWN_OPCODES: Final = {3: b"\xcc", 4: b"\xce"}
LOCK: Final = 0xF0
#: What is said where no instruction can be fetched.
NOWHERE: Final = "no RAM or ROM is there"
A20_MASKED: Final = "with A20 masked (address bit 20 is 0)"
RFLAGS_RF, DR7_GD, DR6_BD = 1 << 16, 1 << 13, 1 << 13

_INTR = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_void_p)
_INVALID = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)
_INTERRUPT = ctypes.CFUNCTYPE(None)


class Faults:
    """The recorder of one engine. `counted` returns the instructions counted so far, the running one included;
    `read_linear` as many of the bytes asked for as are mapped."""

    def __init__(
        self,
        overlay: Overlay,
        control: Control,
        callbacks: Callbacks,
        counted: Callable[[], int],
        read_linear: Callable[[int, int], bytes],
    ) -> None:
        self._ov, self._control, self._callbacks, self._counted = overlay, control, callbacks, counted
        self._read_linear = read_linear
        self._ring: deque[tuple[int, Fault]] = deque(maxlen=FAULTS_KEPT)  # with the instructions counted by then
        self.tell: Callable[[Fault], None] | None = None
        #: delivers what Unicorn does not; set when there is one
        self.transfers: Transfers | None = None
        #: asked first: the vector to deliver, or -1 when the instruction has been done after all
        self.intercept: Callable[[int], int] | None = None
        #: (instructions counted, linear address, software) of the event recorded last
        self._before: tuple[int, int, bool] | None = None
        #: asked of each #UD that no INT raised: True when it was RSM in system management mode, where the run ends
        self.resume: Callable[[], bool] | None = None
        #: forgets the data breakpoint that was met last
        self.untrap: Callable[[], None] | None = None
        #: how many instructions a translation may have, 0 where the loop sees to that itself
        self.longest = 0
        #: fetches beyond the limit of CS are refused here, where their page is absent
        self.limits = False
        #: (instructions counted, linear address) of the translation that is to be made again of one instruction
        self.alone: tuple[int, int] | None = None
        #: (instructions counted, linear address) at which an NMI waits to be delivered
        self.nmi: tuple[int, int] | None = None
        #: INT n that was noted when so many instructions had been counted, and not told here; None: there was none
        self.noted: Callable[[int], Noted | None] = lambda counted: None
        #: has that forget what was noted up to now
        self.forget_noted: Callable[[], object] = lambda: None
        #: the INTR hook, and the INSN_INVALID hook, by which #UD and `int 6` come
        self.on_exception = _INTR(self._hooked)
        self.on_invalid = _INVALID(self._invalid)
        #: the gate takes an interrupt before the instruction that was executed last
        self.on_interrupt = _INTERRUPT(self._interrupted)

    def chain(self) -> tuple[Fault, ...]:
        """The recorded faults of the instruction, or of the interrupt's delivery, that raised the last one."""
        return tuple(fault for now, fault in self._ring if now == self._ring[-1][0])

    def forget(self) -> None:
        """The CPU has been given another state: what was being delivered is not."""
        self._before = self.alone = None
        self._ring.clear()
        self.forget_noted()

    def _invalid(self, uc: int, _data: int) -> int:
        if self._exception(uc, VECTOR_UD, 0):
            return 0  # not handled here: the delivering hook comes next
        self._control.suppress = 0
        return 1

    def _hooked(self, uc: int, vector: int, data: int) -> None:
        self._exception(uc, vector, data)

    def _exception(self, _uc: int, vector: int, _data: int) -> bool:
        """False when nothing is to be delivered."""
        if self.longest:  # the translation that was to be of this length may be the one that could not be fetched
            self._ov.cflags_next.value = self.longest
        try:
            self._control.suppress = 0
            if vector == VECTOR_UD and self.resume is not None and not self._ov.env.exception_is_int and self.resume():
                self._control.suppress = 1
                self._stop(STOP_ASKED)
                return False
            if self.intercept is not None:
                vector = self.intercept(vector)
                if vector < 0:
                    self._control.suppress = 1
                    return False
            if vector == VECTOR_UD and not self._ov.env.exception_is_int and self._behind_icebp():
                vector = VECTOR_DB
            self._record(vector)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._callbacks.failed(error)
        if self._control.stop or self._control.halt_run:
            # The gate would stop at the handler's first instruction, the same place; but where the handler cannot
            # even be fetched the gate is never called.
            self._stop(STOP_ASKED)
        return True

    def _behind_icebp(self) -> bool:
        """ICEBP (F1), which Unicorn does not know, is a #DB behind it that changes no DR6 and asks for no DPL (SDM vol.
        2A, INT1). False, with nothing changed, when the instruction is another one."""
        env = self._ov.env
        bits = 64 if env.hflags & HF_CS64 else 32
        prefixes, op, _ = split(self._read_linear((0 if bits == 64 else env.segs[1].base) + env.eip, LONGEST), bits)
        if op[:1] != ICEBP or LOCK in prefixes:
            return False
        env.eip = env.eip + len(prefixes) + 1 & (1 << bits) - 1
        self._ov.exception_index.value = VECTOR_DB
        self._ov.env.eflags &= ~RFLAGS_RF
        return True

    def _stop(self, reason: int) -> None:
        self._control.reason = reason
        self._ov.call.emu_stop(self._ov.uc)

    def _record(self, vector: int) -> None:
        env, control, request = self._ov.env, self._control, self._ov.request
        software = env.exception_is_int != 0
        fetching, raised = False, self.transfers is not None and self.transfers.raising
        long64 = env.hflags & HF_CS64
        base, width = (0, (1 << 64) - 1) if long64 else (env.segs[1].base, MASK32)
        last = control.last & width
        if software:
            # Unicorn has moved EIP behind the instruction. A fault during the delivery must save its beginning; the
            # delivery itself saves exception_next_eip. RF is over when it begins to execute (SDM vol. 3B, 17.3.1.1).
            env.eip = last - base & width
            env.eflags &= ~RFLAGS_RF
        elif vector == VECTOR_GP and long64 and not env.error_code and not request.value & CPU_INTERRUPT_VIRQ:
            if not canonical(env.eip):
                fetching = not self._take_branch_back()
            elif self.longest and env.eip != last and not raised and not self._known_at(env.eip):
                self._try_alone(env.eip)
                return
            else:
                vector = self._by_stack_segment()
        linear = base + env.eip & width
        interrupt: int | None = None
        running = 1  # the instruction that raised it has been counted and has not retired
        external = False  # the event that the processor was delivering came from no INT instruction
        if request.value & CPU_INTERRUPT_VIRQ:
            # The delivery of an external interrupt faulted. It has been acknowledged, so it does not come again.
            request.value &= ~CPU_INTERRUPT_VIRQ
            running, external, interrupt = 0, True, control.vector
        elif self.nmi == (self._counted(), linear) and not software:
            # The delivery of an NMI faulted, before anything was executed.
            running, external, interrupt = 0, True, VECTOR_NMI
        elif fetching or (vector == VECTOR_PF and not software and linear != last and not raised):
            # An instruction fetch faulted: the gate has not seen this instruction.
            if self.longest and not self._known_at(linear):
                self._try_alone(linear)
                return
            if self.limits and not long64 and env.cr[2] - base & MASK32 > env.segs[1].limit:
                # beyond the limit of CS that is looked at first (SDM vol. 3A, table 6-2)
                self._ov.exception_index.value = vector = VECTOR_GP
                env.error_code = 0
            if control.trap:  # a data breakpoint of the one before comes first (SDM vol. 3A, table 6-2)
                self._ov.exception_index.value = vector = VECTOR_DB
                env.error_code = 0
            elif not control.remaining:
                self._leave_to_the_next_run()
                return
            else:
                control.remaining -= 1
        elif vector == VECTOR_DB and self._execution_breakpoint(linear):
            running = 0  # met before its instruction
        elif vector == VECTOR_DB and not software and linear == last:
            self._behind_iteration(linear)
        now = self._counted()
        if (call := self.noted(now)) is not None and not (self._ring and self._ring[-1][0] == now):
            self._ring.append((now, _called(call, env.cr[2])))  # its delivery faults
        if self._ring and self._ring[-1][0] == now and self._ring[-1][1].retired == now:
            running = 0  # a fault of the fault of an interrupt's delivery
        external = external or self._before == (now, linear, False)
        self._before = now, linear, software
        if vector in WITH_SELECTOR and not software:
            env.error_code = self._selector_code(env.error_code, external)
        pushes_code = env.cr[0] & CR0_PE and not software and vector in WITH_CODE
        fault = Fault(
            vector=vector,
            code=env.error_code & MASK32 if pushes_code else None,
            cs=env.segs[1].selector,
            rip=env.eip,
            linear=linear,
            cr2=env.cr[2],
            software=software,
            retired=now - running,
            interrupt=interrupt,
            by_own_opcode=software and vector in OWN_OPCODES and self._opcode(linear) == OWN_OPCODES[vector],
            hint=self._nowhere(linear) if vector == VECTOR_UD and not software else "",
        )
        self._ring.append((now, fault))
        if self.tell is not None:
            self.tell(fault)
        if vector == VECTOR_DB:
            env.dr[7] &= ~DR7_GD
            if not software:
                control.trap = 0  # DR6 has what else was met at this boundary
        elif not software and vector in FAULT_CLASS:
            env.eflags |= RFLAGS_RF
            if control.trap and self.untrap is not None:  # the access was of an instruction that has not been executed
                self.untrap()
        if self.transfers is not None:
            self.transfers.event(vector, software=software, external=external, code=fault.code)

    def _nowhere(self, linear: int) -> str:
        """That no memory is at `linear`, where the bus gives FFh: FF FF is no instruction. "" where some is."""
        if self._read_linear(linear, 1):
            return ""
        return NOWHERE if self._ov.env.a20_mask == -1 else f"{NOWHERE}, {A20_MASKED}"

    def _opcode(self, linear: int) -> bytes:
        """The first byte behind the prefixes of the instruction at `linear`."""
        bits = 64 if self._ov.env.hflags & HF_CS64 else 32
        return split(self._read_linear(linear, LONGEST), bits)[1][:1]

    def _known_at(self, linear: int) -> bool:
        """That the fault at `linear` is that of the one instruction there, or of the NMI that comes before it."""
        return (self._counted(), linear) in (self.alone, self.nmi)

    def _try_alone(self, linear: int) -> None:
        """The fetch that faulted may be of a later instruction of the translation that begins at `linear`: what comes
        before it is to be executed first."""
        self.alone = self._counted(), linear
        self._control.suppress = 1
        self._control.leave = 0  # the translation has been left
        self._ov.env.old_exception = NO_EXCEPTION
        self._ov.cflags_next.value = 1

    def _leave_to_the_next_run(self) -> None:
        """The fetch that faulted belongs to the next run, which will meet it again."""
        self._control.suppress = 1
        self._ov.env.old_exception = NO_EXCEPTION
        self._stop(STOP_BUDGET)

    def _by_stack_segment(self) -> int:
        """#SS in place of #GP when it is by way of the stack segment that an address is not canonical."""
        from emu.x86.canonical import by_stack_segment

        env = self._ov.env
        bases = [segment.base for segment in env.segs]
        if not by_stack_segment(self._read_linear(env.eip, LONGEST), list(env.regs), bases):
            return VECTOR_GP
        self._ov.exception_index.value = VECTOR_SS
        return VECTOR_SS

    def _branch(self) -> tuple[int, int] | None:
        """Of the instruction executed last, which went to an address that is not canonical: see `taken_back`."""
        from emu.x86.canonical import taken_back

        env = self._ov.env
        flags = self._ov.call.read_eflags(self._ov.env_address)
        return taken_back(self._read_linear(self._control.last, LONGEST), flags, env.regs[RCX])

    def branched(self) -> bool:
        """True when that instruction is the one that is at fault, a near branch."""
        return self._branch() is not None

    def _take_branch_back(self) -> bool:
        """A near branch faults itself. False when it is none, and fetching what follows it is what faults."""
        env = self._ov.env
        before = self._branch()
        if before is None:
            return False
        env.eip = self._control.last
        env.regs[RSP] = env.regs[RSP] + before[0] & (1 << 64) - 1
        env.regs[RCX] = before[1]
        return True

    def _execution_breakpoint(self, linear: int) -> bool:
        """True when DR6 reports an enabled execution breakpoint of DR0 to DR3 at `linear`."""
        dr = self._ov.env.dr
        return any(
            dr[6] >> n & 1 and dr[7] >> 2 * n & 3 and not dr[7] >> 16 + 4 * n & 3 and dr[n] == linear for n in range(4)
        )

    def _behind_iteration(self, linear: int) -> None:
        """An event comes behind an iteration of the instruction at `linear`, if that is a repeated one: RF is pushed as
        1 (SDM vol. 3B, 17.3.1.1). But behind the last one it has ended, and EIP is that of the next instruction, where
        Unicorn goes back to find that there is no iteration left."""
        env = self._ov.env
        bits = 64 if env.hflags & HF_CS64 else 32 if env.hflags & HF_CS32 else 16
        ended = behind_iteration(self._read_linear(linear, LONGEST), bits, env.regs[RCX])
        if ended == 0:
            env.eflags |= RFLAGS_RF
        elif ended:
            env.eip = env.eip + ended & (1 << bits) - 1

    def _interrupted(self) -> None:
        try:
            env = self._ov.env
            self._behind_iteration(env.eip if env.hflags & HF_CS64 else env.segs[1].base + env.eip & MASK32)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._callbacks.failed(error)

    def _selector_code(self, code: int, external: bool) -> int:
        """The code as the SDM has it: Unicorn leaves EXT out, and scales an index into a 64-bit IDT by 16."""
        if code & CODE_IDT and self._ov.env.efer & EFER_LMA:
            code = code >> 4 << 3 | CODE_IDT
        return code | CODE_EXT if external else code


def _called(call: Noted, cr2: int) -> Fault:
    return Fault(call.vector, None, call.cs, call.ip, call.linear, cr2, software=True, retired=call.counted - 1)
