"""System instructions of one engine: what Unicorn leaves out or gets wrong, in one implementation for both run loops.

RDMSR, WRMSR, RDPMC, RDTSC, RDTSCP, SYSCALL, SYSRET, SYSENTER, SYSEXIT, and MOV to CR0, CR3, CR4 and CR8. Each method
is called with the CPU at the instruction and answers 0 when it has been done, or the exception to raise in its place:
the vector, with the error code from bit 32 on. The fast loop calls from within the instruction (emu/native/system.c),
the gate from hooks and intercepts (`emu.unicorn_intercepts`). SDM and APM below: Intel's and AMD's manuals.

Unicorn is shown EFER.SCE and IA32_SYSENTER_CS as 0, so that its own SYSRET and SYSEXIT fault instead of acting; their
values are here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_uint32, c_uint64

from emu.engine import MsrDevice
from emu.typed import Final
from emu.unicorn_callbacks import MASK32, Callbacks
from emu.unicorn_control import Hidden
from emu.unicorn_layout import (
    CC_OP_EFLAGS,
    HF_ADDSEG,
    HF_CPL,
    HF_CS32,
    HF_CS64,
    HF_LMA,
    HF_PE,
    HF_SS32,
    MSR_ARRAYS,
    MSR_FIELDS,
)
from emu.unicorn_overlay import Overlay
from emu.unicorn_state import ARITHMETIC_FLAGS
from emu.x86 import msrs as m
from emu.x86.control_rules import Before, refuses_cr0, refuses_cr3, refuses_cr4
from emu.x86.cpuid import RDTSCP, SEP, TSC, CpuModel
from emu.x86.state import CR0_PG, EFER_LMA, EFER_LME, RFLAGS_DF, RFLAGS_IF, RFLAGS_VM, CpuState

#: What is asked of `System.execute`; emu/native/system.c has the same numbers.
RDMSR, WRMSR, RDPMC, MOV_CR4, SYSCALL, SYSENTER, SYSRET, SYSEXIT, GET_TSC, GET_TSCP = range(1, 11)
MOV_CR8, MOV_CR0, MOV_CR3, FLOATS = range(11, 15)
EXECUTE: Final = ctypes.CFUNCTYPE(c_uint64, c_uint32, c_uint64)

UD: Final = 6
GP: Final = 13
EFER_SCE: Final = 1 << 0
EFER_NXE: Final = 1 << 11
RFLAGS_RF: Final = 1 << 16
#: What SYSRET takes of R11: every flag but RF and VM (SDM vol. 2B, SYSRET).
SYSRET_FLAGS: Final = 0x3C7FD7
CR4_TSD, CR4_PCE = 1 << 2, 1 << 8
RAX, RCX, RDX, RSP, R11 = 0, 1, 2, 4, 11
CS, SS, FS, GS = 1, 2, 4, 5
MASK64: Final = (1 << 64) - 1
COUNTER_MASK: Final = (1 << 40) - 1
#: In the high dword of a descriptor: G, D/B and L; accessed code and data, present.
FLAG_G, FLAG_D, FLAG_L = 1 << 23, 1 << 22, 1 << 21
CODE_ACCESS, DATA_ACCESS = 0x9B, 0x93


class System:
    """The instructions of one engine. `timestamp` gives the time-stamp counter before any write to it, `retired` the
    instructions before the running one, `read_physical` bytes of memory, or None."""

    def __init__(
        self,
        overlay: Overlay,
        callbacks: Callbacks,
        model: CpuModel,
        timestamp: Callable[[], int],
        retired: Callable[[], int],
        read_physical: Callable[[int, int], bytes | None],
    ) -> None:
        self._read_physical = read_physical
        self._ov, self._env, self._callbacks, self.model = overlay, overlay.env, callbacks, model
        self._timestamp, self._retired = timestamp, retired
        self._msrs = m.msrs_of(model)
        #: those that are kept here, with their values after RESET
        self._own = {
            n: self._reset(n)
            for n in (*self._msrs, m.TSC_ADJUST, m.SYSENTER_CS)
            if n == m.SYSENTER_CS or not _in_unicorn(n)
        }
        #: MSRs that Unicorn has no place for, or must not know
        self._values: dict[int, int] = {}
        self._sce = 0  # EFER.SCE
        self.hidden = Hidden()  #: what Unicorn does not know, for those who pack the state
        self._claimed: dict[int, MsrDevice] = {}
        #: told when the guest has set the time-stamp counter
        self.tell_time_stamp: Callable[[], None] | None = None
        #: told what CR8 has been set to
        self.tell_task_priority: Callable[[int], None] | None = None
        self._operations: dict[int, Callable[[int], int]] = {
            RDMSR: self._rdmsr,
            WRMSR: self._wrmsr,
            RDPMC: self._rdpmc,
            MOV_CR4: self._mov_cr4,
            SYSCALL: self._syscall,
            SYSENTER: self._sysenter,
            SYSRET: self._sysret,
            SYSEXIT: self._sysexit,
            GET_TSC: self._rdtsc,
            GET_TSCP: self._rdtscp,
            MOV_CR8: self._mov_cr8,
            MOV_CR0: self._mov_cr0,
            MOV_CR3: self._mov_cr3,
            FLOATS: self._callbacks.floats,
        }
        #: for machine code and the C helper: (operation, operand) -> answer
        self.callback = EXECUTE(self.execute)

    def execute(self, operation: int, operand: int) -> int:
        """Do it. An exception of ours ends the run."""
        try:
            return self._operations[operation](operand)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._callbacks.failed(error)
            return 0

    def claim(self, number: int, device: MsrDevice) -> None:
        """See Executor.claim_msr."""
        self._claimed[number] = device

    # -- state

    def loaded(self, state: CpuState) -> None:
        """Unicorn has been given `state`: take what it must not know."""
        before = self._values.get(m.TSC_ADJUST)
        msrs = state.msrs
        self._values = {n: msrs.get(n, reset) for n, reset in self._own.items()}
        self._sce = state.efer & EFER_SCE
        self._env.efer &= ~EFER_SCE
        self._env.sysenter_cs = 0
        self._show()
        if before is not None and before != self._values[m.TSC_ADJUST] and self.tell_time_stamp is not None:
            self.tell_time_stamp()
        device, base = self._claimed.get(m.APIC_BASE), state.msrs.get(m.APIC_BASE)
        if device is not None and base is not None and base != device.read_msr(m.APIC_BASE):
            device.write_msr(m.APIC_BASE, base)
        if self.tell_task_priority is not None:
            self.tell_task_priority(state.cr8 & 0xF)

    def adopt(self, source: System) -> None:
        """Unicorn's CPU has been given the state that `source`'s has: as `loaded`, and nobody is told."""
        self._values, self._sce = source._values.copy(), source._sce
        self._show()

    def _reset(self, number: int) -> int:
        return self._msrs[number].reset if number in self._msrs else 0

    def fill(self, state: CpuState) -> None:
        """Add to `state`, read from Unicorn, what it does not know and is not as after RESET."""
        reset = self._own
        state.msrs.update({n: value for n, value in self._values.items() if value != reset[n]})
        device = self._claimed.get(m.APIC_BASE)
        if device is not None and (base := device.read_msr(m.APIC_BASE)) is not None:
            state.msrs[m.APIC_BASE] = base
        state.efer |= self._sce

    def apic_base(self) -> int:
        """IA32_APIC_BASE; of a CPU without it what `fill` leaves, its value after RESET."""
        device = self._claimed.get(m.APIC_BASE)
        if device is not None and (base := device.read_msr(m.APIC_BASE)) is not None:
            return base
        return self._values.get(m.APIC_BASE, m.APIC_BASE_RESET)

    def _show(self) -> None:
        """Have `hidden` show what is kept here."""
        hidden, values = self.hidden, self._values
        hidden.sce, hidden.sysenter_cs, hidden.tsc_adjust = self._sce, values[m.SYSENTER_CS], values[m.TSC_ADJUST]

    def take_tsc_adjust(self, value: int) -> None:
        """IA32_TSC_ADJUST, of which nobody is told, as by `loaded`: another CPU has been here meanwhile."""
        self._values[m.TSC_ADJUST] = self.hidden.tsc_adjust = value

    def efer(self) -> int:
        """EFER as the guest sees it."""
        return self._env.efer | self._sce

    def tsc(self) -> int:
        """The time-stamp counter now. A write to it moves IA32_TSC_ADJUST by as much (SDM vol. 3B, 18.17.3); so that
        register is what is kept, whether the model shows it or not."""
        return self._timestamp() + self._values[m.TSC_ADJUST] & MASK64

    # -- model-specific registers

    def msr_names(self) -> dict[str, int]:
        """The registers that the model has, by name."""
        return {msr.name: number for number, msr in self._msrs.items()}

    def read_msr(self, number: int) -> int | None:
        """What RDMSR would answer in ring 0, None for #GP(0)."""
        device = self._claimed.get(number)
        return self._read(number) if device is None else device.read_msr(number)

    def write_msr(self, number: int, value: int) -> bool:
        """WRMSR of ring 0; False for #GP(0), with nothing changed."""
        device = self._claimed.get(number)
        if device is not None:
            return device.write_msr(number, value)
        msr = self._msrs.get(number)
        kept = None if msr is None or msr.write is None else msr.write(value, self._read(number) or 0)
        return kept is not None and not self._store(number, kept)

    def _rdmsr(self, _operand: int) -> int:
        if not self._msrs:
            return UD
        value = self.read_msr(self._env.regs[RCX] & MASK32)
        if value is None:
            return GP
        self._answer(value)
        return 0

    def _read(self, number: int) -> int | None:
        """The value of an MSR; None when the model has none of that number."""
        if number not in self._msrs:
            return None
        env = self._env
        if number == m.TSC:
            return self.tsc()
        if number == m.EFER:
            return env.efer | self._sce
        if number in (m.FS_BASE, m.GS_BASE):
            return env.segs[FS if number == m.FS_BASE else GS].base
        if number in self._values:
            return self._values[number]
        if number in MSR_FIELDS:
            value: int = getattr(env, MSR_FIELDS[number])
            return value
        field, index = MSR_ARRAYS[number]
        value = getattr(env, field)[index]
        return value

    def _wrmsr(self, _operand: int) -> int:
        if not self._msrs:
            return UD
        regs = self._env.regs
        value = regs[RAX] & MASK32 | (regs[RDX] & MASK32) << 32
        return 0 if self.write_msr(regs[RCX] & MASK32, value) else GP

    def _store(self, number: int, value: int) -> int:
        env = self._env
        if number in (m.TSC, m.TSC_ADJUST) and self._callbacks.set_time is not None:
            self._callbacks.set_time()
        if number in (m.TSC, m.TSC_ADJUST):
            self._values[m.TSC_ADJUST] = value - self._timestamp() & MASK64 if number == m.TSC else value
            self._show()
            if self.tell_time_stamp is not None:
                self.tell_time_stamp()
        elif number == m.EFER:
            return self._store_efer(value)
        elif number in (m.FS_BASE, m.GS_BASE):
            env.segs[FS if number == m.FS_BASE else GS].base = value
        elif number in self._values:
            self._values[number] = value
            self._show()
        elif number in MSR_FIELDS:
            setattr(env, MSR_FIELDS[number], value)
        else:
            field, index = MSR_ARRAYS[number]
            getattr(env, field)[index] = value
        return 0

    def _store_efer(self, value: int) -> int:
        """LME is fixed while paging is on, LMA is the CPU's (SDM vol. 3A, 2.2.1 and 10.8.5)."""
        env = self._env
        if (value ^ env.efer) & EFER_LME and env.cr[0] & CR0_PG:
            return GP
        self._sce = self.hidden.sce = value & EFER_SCE
        value = value & ~(EFER_LMA | EFER_SCE) | env.efer & EFER_LMA
        if (value ^ env.efer) & EFER_NXE:
            self._ov.call.tlb_flush(self._ov.cpu)
        env.efer = value
        return 0

    # -- counters

    def _answer(self, value: int) -> None:
        regs = self._env.regs
        regs[RAX], regs[RDX] = value & MASK32, value >> 32 & MASK32

    def _rdtsc(self, _operand: int, operation: int = GET_TSC) -> int:
        """CR4.TSD denies it to rings 1 to 3 (SDM vol. 2B, RDTSC)."""
        env = self._env
        if not self.model.edx1 & TSC:
            return UD
        if env.cr[4] & CR4_TSD and env.hflags & HF_CPL:
            return GP
        now = self.tsc()
        self._answer(now)
        if self._callbacks.told_time is not None:
            self._callbacks.told_time(now, operation == GET_TSCP)
        return 0

    def _rdtscp(self, _operand: int) -> int:
        if not self.model.edx8 & RDTSCP:
            return UD
        answer = self._rdtsc(0, GET_TSCP)
        if not answer:
            self._env.regs[RCX] = self._env.tsc_aux & MASK32
        return answer

    def _rdpmc(self, _operand: int) -> int:
        """Two counters of 40 bits that always count: 0 retired instructions, 1 the clock of the TSC. CR4.PCE allows
        rings 1 to 3 to read them (SDM vol. 2B, RDPMC)."""
        env = self._env
        if not self.model.rdpmc:
            return UD
        if env.hflags & HF_CPL and not env.cr[4] & CR4_PCE:
            return GP
        number = env.regs[RCX] & MASK32
        if number > 1:
            return GP
        self._answer((self._timestamp() if number else self._retired()) & COUNTER_MASK)
        return 0

    def _before(self) -> Before:
        env = self._env
        cr, long_code = env.cr, bool(env.segs[CS].flags & FLAG_L)
        return Before(cr[0], cr[3], cr[4], env.efer, long_code, env.tr.flags >> 8 & 0xF)

    def _mov_cr0(self, value: int) -> int:
        """Only whether it is refused, as for the next two."""
        return GP if refuses_cr0(self._before(), value, self.model, self._read_physical) else 0

    def _mov_cr3(self, value: int) -> int:
        return GP if refuses_cr3(self._before(), value, self.model, self._read_physical) else 0

    def _mov_cr4(self, value: int) -> int:
        return GP if refuses_cr4(self._before(), value, self.model, self._read_physical) else 0

    def _mov_cr8(self, value: int) -> int:
        """Bits 63:4 are reserved (SDM vol. 3A, 2.5)."""
        if value >> 4:
            return GP
        if self.tell_task_priority is not None:
            self.tell_task_priority(value)
        return 0

    # -- fast system calls

    def _segments(self, code: int, stack: int, ring: int, *, long64: bool) -> None:
        """Load CS and SS with flat segments without looking at a descriptor table, and CPL."""
        env = self._env
        for index, selector, access, size in (
            (CS, code, CODE_ACCESS, FLAG_L if long64 else FLAG_D),
            (SS, stack, DATA_ACCESS, FLAG_D),
        ):
            segment = env.segs[index]
            segment.selector, segment.base, segment.limit = selector & 0xFFFF, 0, MASK32
            segment.flags = (access | ring << 5) << 8 | FLAG_G | size
        hflags = env.hflags & ~(HF_CPL | HF_CS64 | HF_CS32 | HF_SS32 | HF_ADDSEG) | ring | HF_CS32 | HF_SS32
        if long64:
            hflags |= HF_CS64
        elif not env.hflags & HF_PE or env.segs[0].base | env.segs[3].base:
            hflags |= HF_ADDSEG
        env.hflags = hflags

    def _set_flags(self, value: int) -> None:
        """All of RFLAGS, while Unicorn keeps the arithmetic flags and DF elsewhere."""
        env = self._env
        env.cc_src, env.cc_dst, env.cc_src2, env.cc_op = value & ARITHMETIC_FLAGS, 0, 0, CC_OP_EFLAGS
        env.df = -1 if value & RFLAGS_DF else 1
        env.eflags = value & ~(ARITHMETIC_FLAGS | RFLAGS_DF) | 2

    def _syscall(self, length: int) -> int:
        """SDM vol. 2B and APM vol. 3, SYSCALL. Intel's CPUs know it in 64-bit mode only. `length` in bytes."""
        env = self._env
        long64 = bool(env.hflags & HF_CS64)
        if not self._sce or (self.model.intel and not long64):
            return UD
        selector = env.star >> 32 & 0xFFFC
        if env.hflags & HF_LMA:
            flags = self._ov.call.read_eflags(self._ov.env_address)
            env.regs[RCX] = env.eip + length & (MASK64 if long64 else MASK32)
            env.regs[R11] = flags & ~RFLAGS_RF
            self._set_flags(flags & ~(env.fmask | RFLAGS_RF))
            self._segments(selector, selector + 8, 0, long64=True)
            env.eip = env.lstar if long64 else env.cstar
        else:
            env.regs[RCX] = env.eip + length & MASK32
            env.eflags &= ~(RFLAGS_IF | RFLAGS_VM | RFLAGS_RF)
            self._segments(selector, selector + 8, 0, long64=False)
            env.eip = env.star & MASK32
        return 0

    def _sysret(self, operand_size: int) -> int:
        """SDM vol. 2B and APM vol. 3, SYSRET. `operand_size`: 2 for 64 bits."""
        env = self._env
        if not self._sce or (self.model.intel and not env.hflags & HF_CS64):
            return UD
        if not env.hflags & HF_PE or env.hflags & HF_CPL:
            return GP
        to64 = operand_size == 2
        target = env.regs[RCX] if to64 else env.regs[RCX] & MASK32
        if self.model.intel and not m.canonical(target):
            return GP
        selector = env.star >> 48
        # APM: SS gets STAR's selector + 8 as it is; Intel forces RPL 3.
        stack = selector + 8 | (3 if self.model.intel else 0)
        if env.hflags & HF_LMA:
            self._set_flags(env.regs[R11] & SYSRET_FLAGS)
        else:
            env.eflags |= RFLAGS_IF
        self._segments(selector + (16 if to64 else 0) | 3, stack, 3, long64=to64)
        env.eip = target
        return 0

    def _sysenter_allowed(self) -> int:
        """What SYSENTER and SYSEXIT have in common. AMD's CPUs do not know them in long mode (APM vol. 3)."""
        env = self._env
        if not self.model.edx1 & SEP or (not self.model.intel and env.hflags & HF_LMA):
            return UD
        return GP if not env.hflags & HF_PE or not self._values[m.SYSENTER_CS] & 0xFFFC else 0

    def _sysenter(self, _length: int) -> int:
        """SDM vol. 2B, SYSENTER."""
        env = self._env
        answer = self._sysenter_allowed()
        if answer:
            return answer
        selector = self._values[m.SYSENTER_CS] & 0xFFFC
        long_mode = bool(env.hflags & HF_LMA)
        width = MASK64 if long_mode else MASK32
        env.eflags &= ~(RFLAGS_IF | RFLAGS_VM | RFLAGS_RF)
        self._segments(selector, selector + 8, 0, long64=long_mode)
        env.regs[RSP], env.eip = env.sysenter_esp & width, env.sysenter_eip & width
        return 0

    def _sysexit(self, operand_size: int) -> int:
        """SDM vol. 2B, SYSEXIT. `operand_size`: 2 for 64 bits."""
        env = self._env
        answer = self._sysenter_allowed()
        if answer:
            return answer
        to64 = operand_size == 2
        width = MASK64 if to64 else MASK32
        stack, target = env.regs[RCX] & width, env.regs[RDX] & width
        if env.hflags & HF_CPL or not (m.canonical(stack) and m.canonical(target)):
            return GP
        selector = (self._values[m.SYSENTER_CS] & 0xFFFC) + (32 if to64 else 16) | 3
        self._segments(selector, selector + 8, 3, long64=to64)
        env.regs[RSP], env.eip = stack, target
        return 0


def _in_unicorn(number: int) -> bool:
    """True for an MSR that is not kept here."""
    return number in MSR_FIELDS or number in MSR_ARRAYS or number in (m.TSC, m.EFER, m.FS_BASE, m.GS_BASE)
