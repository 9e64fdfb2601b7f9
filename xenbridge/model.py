"""The reference hypervisor: a vCPU as VT-x of 2006 has it, in this process, exact and deterministic.

Its CPU is a second engine over the guest's memory, with nothing answered ahead, so that each access to a device is an
exit. It enters what its rules allow, and no other state. Exits are those of a hypervisor like Xen's of 2006 (SDM vol.
3C, 25.1.2 and 25.1.3): I/O, HLT, CPUID, RDMSR and WRMSR, INVD and WBINVD, INVLPG, MOV to CR0 and CR4, to and from CR3
and CR8, CLTS, LMSW, MOV DR, RDPMC, task switches. Real mode runs as virtual 8086 with IOPL 3 and an empty IDT, so that
privileged instructions, software interrupts and faults are exits there too; by rules of later CPUs they are not.
Memory is mapped at its own addresses; shadow page tables cost nothing here.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Collection, Iterable, Sequence
from ctypes import addressof, c_uint8
from typing import Final

from emu.engine import Change, EngineError, Exit, ExitReason, Fault, MmioBus, PortIo
from emu.packed import Packing
from emu.unicorn_control import EMPTY
from emu.unicorn_engine import UnicornEngine
from emu.unicorn_layout import HF_CS32, HF_CS64, HF_LMA, HF_PE
from emu.vcpu import ExitCause, Place, VmExit
from emu.x86.classes import InstructionClass, classify, split
from emu.x86.modes import Mode, code_bits, mode_of
from emu.x86.state import CR0_PE, RFLAGS_VM, CpuState
from emu.x86.vmentry import VTX2006, Broken, Rules

BREAKPOINT, REQUEST = ExitReason.BREAKPOINT, ExitReason.REQUEST
#: Of hflags what a mode shows in; of big real mode, which these rules do not enter, that it is real.
MODE_FLAGS: Final = HF_PE | HF_LMA | HF_CS64 | HF_CS32
LONGEST: Final = 15  #: bytes of an instruction
RCX: Final = 1
MASK32: Final = (1 << 32) - 1
MOV_TO_CR: Final = 0x22  #: behind 0Fh
#: Those whose loads are exits: to CR2 is none, and of CRs that do not exist #UD comes first (SDM vol. 3C, 25.1.1).
LOADED: Final = frozenset((0, 3, 4, 8))
#: What each class of instructions is an exit for.
CAUSES: Final = {
    InstructionClass.HLT: ExitCause.HLT,
    InstructionClass.CPUID: ExitCause.CPUID,
    InstructionClass.RDMSR: ExitCause.MSR,
    InstructionClass.WRMSR: ExitCause.MSR,
    InstructionClass.CONTROL: ExitCause.CR,
    InstructionClass.READ_CR3: ExitCause.CR,
    InstructionClass.READ_CR: ExitCause.CR,
    InstructionClass.DEBUG: ExitCause.DR,
    InstructionClass.CACHE: ExitCause.CACHE,
    InstructionClass.INVLPG: ExitCause.CACHE,
    InstructionClass.RDPMC: ExitCause.RDPMC,
    InstructionClass.LGDT: ExitCause.DESCRIPTOR,
    InstructionClass.LIDT: ExitCause.DESCRIPTOR,
}
CLASSES: Final = sum(map(int, CAUSES))
#: Those that are exits in real mode alone, as virtual 8086 mode does not execute them.
REAL_ONLY: Final = InstructionClass.LGDT | InstructionClass.LIDT | InstructionClass.READ_CR
#: Those that any ring may execute; of the others a fault comes before the exit (SDM vol. 3C, 25.1.1).
ANY_RING: Final = InstructionClass.CPUID | InstructionClass.RDPMC


class ModelVcpu(UnicornEngine):
    """The vCPU of the hypervisor `model`. Raises EngineError as the engine does."""

    name = "model"
    title = "the reference hypervisor, VT-x as of 2006"
    counts = translates = True
    _loaded: CpuState | None = None  # not yet entered

    def __init__(self, place: Place, rules: Rules = VTX2006) -> None:
        self.rules = rules
        self.real_is_v86 = rules is VTX2006
        #: of the exit that a callback has met in this run: what, address, write, linear pc
        self._met: tuple[ExitCause, int, bool, int] | None = None
        self._modes: dict[tuple[int, int], Mode] = {}
        self._points: frozenset[int] = frozenset()
        self._classes, self._places, self._changes = 0, frozenset[int](), Change.NONE
        self._ranges: tuple[tuple[int, int], ...] = ()
        self._forbidden: frozenset[Mode] = frozenset()
        self._told: Callable[[Fault], None] | None = None
        self._written_pages: mmap.mmap | None = None
        self._tracing = False
        super().__init__(
            place.regions, _Ports(place.io, self._note), _Memory(place.mmio, self._note),
            timestamp=place.timestamp, checks=place.checks, model=place.model, tick=place.tick,
        )  # fmt: skip
        self._set_stops()
        super().on_fault(self._fault)
        self._transfers.switched = self._switched

    # -- entry

    def refused(self, state: CpuState) -> tuple[Broken, ...]:
        """See Vcpu."""
        broken = self.rules.broken(state)
        if state.smm:
            return (*broken, Broken("smm", "the CPU is in system management mode", "SDM 3C 26.3.1.5"))
        return broken

    def enterable(self, state: CpuState) -> bool:
        """See Vcpu."""
        return not state.smm and self.rules.enterable(state)

    def unable(self) -> str:
        """See Vcpu. It keeps all that the emulator does."""
        return ""

    def load(self, state: CpuState) -> None:
        """See Cpu."""
        self._loaded = state
        super().load(state)

    def forbid(self, ranges: Sequence[tuple[int, int]], modes: Collection[Mode]) -> None:
        """See Vcpu."""
        self._ranges, self._forbidden = tuple(ranges), frozenset(modes)
        if self._events.keep_out(self._ranges):
            self._loop.flush()
        self._set_stops()

    def enter(self, budget: int, deadline: int | None, *, skip_breakpoint: bool) -> VmExit:
        """See Vcpu."""
        if (state := self._loaded) is not None:
            if broken := self.refused(state):
                why = "; ".join(map(str, broken))
                return VmExit(ExitCause.ENTRY_FAILED, state.linear_pc, mode_of(state), before=True, detail=why)
            self._loaded = None
        if self._out_of_bounds():
            return self._made(ExitCause.FORBIDDEN, before=True)
        if skip_breakpoint and (exit := self._before()) is not None:
            return exit
        end, skip, over = self.retired + budget, skip_breakpoint, False
        while True:
            self._met = None
            done = self._pass() if over else self.run(end - self.retired, skip_breakpoint=skip)
            if (exit := self._ended(done)) is not None:
                return exit
            if self.retired >= end:
                return self._made(ExitCause.STOPPED, stop=Exit(ExitReason.BUDGET, budget))
            over, skip = done.reason is BREAKPOINT, False

    def _ended(self, exit: Exit) -> VmExit | None:
        """What the end of a run is; None: nothing, it goes on."""
        reason = exit.reason
        delivered = reason is REQUEST and bool(exit.detail)
        if self._met is not None:
            (cause, address, write, pc), self._met = self._met, None
            plain = reason is ExitReason.BUDGET or (reason is REQUEST and not delivered) or self._own_event(exit)
            return VmExit(cause, pc, self._mode(), address, write, stop=None if plain else exit)
        if reason is BREAKPOINT:
            if self._stops_here():
                return self._made(ExitCause.STOPPED, stop=exit)
            if self._control.skip != EMPTY:  # no breakpoint of the debugger's: what is to be passed is still ahead
                self.resume((self._control.skip, self._control.skip_rsp, False))
            return self._made(ExitCause.FORBIDDEN, before=True) if self._out_of_bounds() else self._before()
        if self._own_event(exit):
            return self._made(ExitCause.FORBIDDEN, before=True) if self._out_of_bounds() else None
        if delivered:
            return self._made(ExitCause.INTERRUPT, stop=exit)
        return self._made(ExitCause.STOPPED, stop=exit)

    def _made(self, cause: ExitCause, *, before: bool = False, stop: Exit | None = None) -> VmExit:
        return VmExit(cause, self.linear_pc, self._mode(), before=before, stop=stop)

    def _own_event(self, exit: Exit) -> bool:
        """It ended by a change that nobody but this class waits for."""
        return exit.reason is ExitReason.EVENT and not exit.change & self._changes

    def _out_of_bounds(self) -> bool:
        """Native execution is forbidden here."""
        if self._forbidden and self._mode() in self._forbidden:
            return True
        pc = self.linear_pc
        return any(first <= pc <= last for first, last in self._ranges)

    def _mode(self) -> Mode:
        """The mode, looked at again where its flags have changed."""
        key = self._env.hflags & MODE_FLAGS, self._env.eflags & RFLAGS_VM
        if not key[0] & HF_PE and self.rules is not VTX2006:
            return mode_of(self.live())  # it may be a big one
        if key not in self._modes:
            self._modes[key] = mode_of(self.live())
        return self._modes[key]

    def _pass(self) -> Exit:
        """Execute the next instruction, whatever is stopped at there. A breakpoint that is to be passed later stays."""
        kept = self.resuming
        done = self.run(1, skip_breakpoint=True)
        if kept is not None and done.executed:
            self.resume(kept)
        return done

    def complete(self, exit: VmExit) -> Exit:
        """See Vcpu."""
        done = self._pass()
        self._met = None
        return Exit(ExitReason.BUDGET, done.executed) if self._own_event(done) else done

    # -- instructions that are exits

    def _class_here(self) -> tuple[int, bytes]:
        code = self._events.code(self.linear_pc)
        return classify(code, code_bits(self.live())), code

    def _before(self) -> VmExit | None:
        """The exit that the next instruction makes, if it does."""
        found, code = self._class_here()
        state = self.live()
        real = self.real_is_v86 and not state.cr0 & CR0_PE
        if not found & CLASSES or (found & REAL_ONLY and not real):
            return None
        if not real and not found & ANY_RING and (state.rflags & RFLAGS_VM or state.cpl):
            return None
        cause = next(cause for one, cause in CAUSES.items() if found & one)
        if cause is ExitCause.CR and not real:
            _, op, rex = split(code, code_bits(state))
            if op[1] == MOV_TO_CR and (op[2] >> 3 & 7 | (rex & 4) << 1) not in LOADED:
                return None
        address = state.regs[RCX] & MASK32 if cause is ExitCause.MSR else 0
        write = bool(found & (InstructionClass.WRMSR | InstructionClass.CONTROL))
        return VmExit(cause, self.linear_pc, self._mode(), address, write, before=True)

    def _stops_here(self) -> bool:
        """The debugger has something at the next instruction."""
        pc = self.linear_pc
        if pc in self._points:
            return True
        if self._classes and self._class_here()[0] & self._classes:
            return True
        return bool(self._places) and self._events.physical_address(pc) in self._places

    def _note(self, cause: ExitCause, address: int, write: bool) -> None:
        """An instruction accesses a device: an exit behind it, and once."""
        if self._met is None:
            self._met = cause, address, write, self.instruction_pc
        self.request_stop()

    def _switched(self) -> None:
        if self._met is None:
            self._met = ExitCause.TASK_SWITCH, 0, False, self.linear_pc
        self.request_stop()

    def _fault(self, fault: Fault) -> None:
        if self.real_is_v86 and not self._env.cr[0] & CR0_PE and fault.interrupt is None:
            cause = ExitCause.SOFTWARE_INTERRUPT if fault.software else ExitCause.EXCEPTION
            self._met = cause, fault.vector, False, fault.linear
            self.request_stop()
        if self._told is not None:
            self._told(fault)

    def on_fault(self, callback: Callable[[Fault], None] | None) -> None:
        """See Cpu."""
        self._told = callback

    # -- the debugger's stops beside its own

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        """See Cpu."""
        self._points = frozenset(linear)
        super().set_breakpoints(self._points)

    def set_event_stops(self, classes: int, physical: Iterable[int], changes: Change) -> None:
        """See Cpu."""
        self._classes, self._places, self._changes = classes, frozenset(physical), changes
        self._set_stops()

    def _set_stops(self) -> None:
        changes = self._changes | (Change.MODE if self._forbidden else Change.NONE)
        super().set_event_stops(self._classes | CLASSES, self._places, changes)

    # -- memory

    def share(self, packing: Packing, rest: Callable[[], CpuState]) -> bool:
        """See Vcpu. Its own state is Unicorn's, too."""
        return False

    def take_over(self) -> None:
        """See Vcpu. Never, as nothing is shared."""
        raise EngineError("the model shares no packed state")

    def hand_over(self) -> int | None:
        """See Vcpu."""
        return None

    def trace_pages(self, host_address: int, pages: int) -> None:
        """See Vcpu."""
        self._written_pages = mmap.mmap(-1, pages)
        self._tracing = self.trace_writes(addressof(c_uint8.from_buffer(self._written_pages))) is not None

    def take_written(self) -> Iterable[int] | None:
        """See Vcpu."""
        traces, pages = self._written_pages, []
        if traces is None or not self._tracing:
            return None
        at = traces.find(b"\1")
        while at >= 0:
            pages.append(at)
            traces[at] = 0
            at = traces.find(b"\1", at + 1)
        return pages


class _Ports:
    """The guest's ports: each access is an exit."""

    def __init__(self, io: PortIo, note: Callable[[ExitCause, int, bool], None]) -> None:
        self._io, self._note = io, note

    def port_in(self, port: int, size: int) -> int:
        self._note(ExitCause.PIO, port, False)
        return self._io.port_in(port, size)

    def port_out(self, port: int, size: int, value: int) -> None:
        self._note(ExitCause.PIO, port, True)
        self._io.port_out(port, size, value)


class _Memory:
    """The guest's MMIO: each access is an exit."""

    def __init__(self, bus: MmioBus, note: Callable[[ExitCause, int, bool], None]) -> None:
        self._bus, self._note = bus, note

    def mmio_read(self, address: int, size: int) -> int:
        self._note(ExitCause.MMIO, address, False)
        return self._bus.mmio_read(address, size)

    def mmio_write(self, address: int, size: int, value: int) -> None:
        self._note(ExitCause.MMIO, address, True)
        self._bus.mmio_write(address, size, value)


def make_model(rules: Rules = VTX2006) -> Callable[[Place], ModelVcpu]:
    """What makes the vCPU of `model` that goes by `rules`."""
    return lambda place: ModelVcpu(place, rules)
