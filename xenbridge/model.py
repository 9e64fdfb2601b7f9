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
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ctypes import addressof, c_uint8
from typing import Final, cast

from emu.engine import Change, Exit, ExitReason, Fault
from emu.noted import NotedMemory, NotedPorts
from emu.unicorn_control import EMPTY
from emu.unicorn_engine import UnicornEngine
from emu.unicorn_fast import FastLoop
from emu.unicorn_layout import HF_CPL, HF_CS32, HF_CS64, HF_LMA, HF_PE
from emu.unicorn_live import LiveState
from emu.vcpu import ExitCause, Place, VmExit
from emu.x86.classes import classify
from emu.x86.modes import Mode, code_bits, mode_of
from emu.x86.state import CR0_PE, RFLAGS_VM, CpuState
from emu.x86.vmentry import VTX2006, Broken, Judged, Rules, real_code, unless_loaded
from xenbridge.model_exits import CLASSES, exits_for

BREAKPOINT, REQUEST = ExitReason.BREAKPOINT, ExitReason.REQUEST
#: Of hflags what a mode shows in; of big real mode, which these rules do not enter, that it is real.
MODE_FLAGS: Final = HF_PE | HF_LMA | HF_CS64 | HF_CS32
RCX: Final = 1
MASK32: Final = (1 << 32) - 1
#: Exits behind which the state may be one that cannot be entered again.
CHANGING: Final = frozenset((ExitCause.CR, ExitCause.MSR, ExitCause.DESCRIPTOR))
#: Exits that are none of them where they only read.
READING: Final = frozenset((ExitCause.CPUID, ExitCause.CR, ExitCause.MSR))
FAULTS: Final = frozenset((ExitCause.EXCEPTION, ExitCause.SOFTWARE_INTERRUPT))
REMEMBERED: Final = 4096  #: instructions that were classified
MISSING: Final = cast("tuple[ExitCause, bool, bool] | None", object())


class ModelVcpu(UnicornEngine):
    """The vCPU of the hypervisor `model`. Raises EngineError as the engine does."""

    name = "model"
    title = "the reference hypervisor, VT-x as of 2006"
    counts = translates = True
    exiting = CLASSES
    _unentered = True  # it has been given another state since it was entered last

    def __init__(self, place: Place, rules: Rules = VTX2006) -> None:
        self.rules = rules
        self._kept, self._inside = place.kept, place.inside
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
        self._bounded = False  # something is forbidden
        self._passing = False  # the next instruction is one that is stopped at, and nothing comes of it
        self._doing: ExitCause | None = None  # of the next instruction, an exit that the next run begins with
        self._ahead = False  # when the run began there was an instruction to be passed over
        self._remains, self._served = False, cast("int | None", None)
        self._counted: Counter[ExitCause] = Counter()
        self._counted_at, self._counted_cause = -1, ExitCause.PIO  # the exit of this run that was counted last
        self._judged = Judged(lambda state: not state.smm and rules.enterable(state))
        self._exits: dict[tuple[bytes, int, bool], tuple[ExitCause, bool, bool] | None] = {}
        super().__init__(
            place.regions, NotedPorts(place.io, self._note), NotedMemory(place.mmio, self._note),
            timestamp=place.timestamp, checks=place.checks, model=place.model, tick=place.tick,
        )  # fmt: skip
        self._set_stops()
        super().on_fault(self._fault)
        self._transfers.switched = self._switched

    # -- entry

    def refused(self, state: CpuState) -> tuple[Broken, ...]:
        """See Vcpu."""
        broken = unless_loaded(self.rules.broken(state), state, self._memory.read)
        if state.smm:
            return (*broken, Broken("smm", "the CPU is in system management mode", "SDM 3C 26.3.1.5"))
        return broken

    def enterable(self, state: CpuState) -> bool:
        """See Vcpu. Of a state in place the answers are remembered, by all that rules ask for."""
        live = cast("CpuState | LiveState", state)
        if not isinstance(live, LiveState):
            return not state.smm and self.rules.enterable(state, self._memory.read)
        found = self._judged.enterable(state)
        if not found and live.cr0 & CR0_PE and real_code(state.cs):
            # memory decides, which is not to be remembered
            return not state.smm and self.rules.enterable(state, self._memory.read)
        return found

    def unable(self) -> str:
        """See Vcpu. It keeps all that the emulator does."""
        return ""

    def load(self, state: CpuState) -> None:
        """See Cpu."""
        self._unentered = True
        super().load(state)

    def adopt(self, source: UnicornEngine, unmarked: Sequence[tuple[int, int]] | None = None) -> bool:
        """See UnicornEngine. Who moves the CPU here has found its state enterable."""
        self._unentered = False
        return super().adopt(source, unmarked)

    def forbid(self, ranges: Sequence[tuple[int, int]], modes: Collection[Mode]) -> None:
        """See Vcpu."""
        self._ranges, self._forbidden = tuple(ranges), frozenset(modes)
        self._bounded = bool(self._ranges or self._forbidden)
        if self._events.keep_out(self._ranges):
            self._loop.flush()
        self._set_stops()

    def enter(self, budget: int, deadline: int | None, *, skip_breakpoint: bool) -> VmExit:
        """See Vcpu."""
        if self._unentered:
            if not self.enterable(self.live()) and (broken := self.refused(state := self.state())):
                why = "; ".join(map(str, broken))
                return VmExit(ExitCause.ENTRY_FAILED, state.linear_pc, mode_of(state), before=True, detail=why)
            self._unentered = False
        if self._bounded and self._out_of_bounds():
            return self._made(ExitCause.FORBIDDEN, before=True)
        end, over, self._counted_at = self.retired + budget, False, -1
        if self._remains and isinstance(self._loop, FastLoop):
            self._loop.note_instructions()
        if skip_breakpoint and (found := self._exits_here(self._events.code(self.linear_pc))) is not None:
            if (exit := self._exit_before(found)) is not None:
                return exit
            skip_breakpoint = False
        while (left := end - self.retired) > 0:
            self._met = None
            self._passing, self._ahead = False, self._returning
            if self._doing is not None:
                exit = self._do_and_go_on(self._doing, left)
            else:
                exit = self._ended(self._pass() if over else self.run(left, skip_breakpoint=skip_breakpoint))
            if exit is not None:
                return exit
            over, skip_breakpoint = self._passing, False
        self._doing = None  # it will be an exit again
        return self._made(ExitCause.STOPPED, stop=Exit(ExitReason.BUDGET, budget))

    def _ended(self, exit: Exit) -> VmExit | None:
        """What the end of a run is; None: nothing, it goes on."""
        reason = exit.reason
        delivered = reason is REQUEST and bool(exit.detail)
        if self._met is not None:
            (cause, address, write, pc), self._met = self._met, None
            plain = reason is ExitReason.BUDGET or (reason is REQUEST and not delivered) or self._own_event(exit)
            return VmExit(cause, pc, self._mode(), address, write, stop=None if plain else exit)
        if reason is BREAKPOINT:
            code = self._stopped_code()
            if self._stops_here(code):
                return self._made(ExitCause.STOPPED, stop=exit)
            if self._ahead and self._control.skip != EMPTY:
                # No breakpoint of the debugger's: what is to be passed is still ahead.
                self.resume((self._control.skip, self._control.skip_rsp, False))
            if self._bounded and self._out_of_bounds():
                return self._made(ExitCause.FORBIDDEN, before=True)
            if (found := self._exits_here(code)) is not None:
                return self._exit_before(found)
            self._passing = True
            return None
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

    def complete(self, exit: VmExit | None) -> Exit:
        """See Vcpu."""
        done = self._pass()
        self._met = None
        return Exit(ExitReason.BUDGET, done.executed) if self._own_event(done) else done

    # -- instructions that are exits

    def _stopped_code(self) -> bytes:
        """Of the instruction before which a run has ended just now: the helper has it without a walk of page tables."""
        code = self._loop.stopped_code() if isinstance(self._loop, FastLoop) else b""
        return code or self._events.code(self.linear_pc)

    def _exits_here(self, code: bytes) -> tuple[ExitCause, bool] | None:
        """What the next instruction, which begins `code`, exits for, and whether it writes; None: it does not."""
        env = self._env
        hflags = env.hflags
        bits = 64 if hflags & HF_CS64 else 32 if hflags & HF_CS32 else 16
        real = self.real_is_v86 and not hflags & HF_PE
        if (found := self._exits_for(code, bits, real)) is None:
            return None
        cause, write, any_ring = found
        if not real and not any_ring and (env.eflags & RFLAGS_VM or hflags & HF_CPL):
            return None
        return cause, write

    def _exits_for(self, code: bytes, bits: int, real: bool) -> tuple[ExitCause, bool, bool] | None:
        """`exits_for`, remembered."""
        if (found := self._exits.get((code, bits, real), MISSING)) is MISSING:
            if len(self._exits) >= REMEMBERED:
                self._exits.clear()
            found = self._exits[code, bits, real] = exits_for(code, bits, real)
        return found

    def exits_at(self, code: bytes, state: CpuState) -> tuple[ExitCause, int, bool] | None:
        """See Vcpu."""
        real = self.real_is_v86 and not state.cr0 & CR0_PE
        found = self._exits_for(code, code_bits(state), real)
        if found is None or (not real and not found[2] and state.cpl):
            return None
        cause, write, _ = found
        return cause, state.regs[RCX] & MASK32 if cause is ExitCause.MSR else 0, write

    def _exit_before(self, found: tuple[ExitCause, bool]) -> VmExit | None:
        """The exit that the next instruction makes; None where the hypervisor has done it and goes on."""
        cause, write = found
        if self._remains:
            if not write and cause in READING and not self._bounded and not self._returning:
                self._doing = cause
                return None
            return self._do(cause)
        address = self._env.regs[RCX] & MASK32 if cause is ExitCause.MSR else 0
        return VmExit(cause, self.linear_pc, self._mode(), address, write, before=True)

    def _do_and_go_on(self, cause: ExitCause, budget: int) -> VmExit | None:
        """As `_do`, of an instruction behind which the state can be entered as before it: in one run with those that
        follow."""
        before, self._doing = self.retired, None
        done = self.run(budget, skip_breakpoint=True)
        if self.retired == before and done.reason is REQUEST:
            self._met = None
            return self._made(ExitCause.STOPPED, stop=done)  # it will be an exit again
        self._counted[cause] += 1
        return self._ended(done)

    def _do(self, cause: ExitCause) -> VmExit | None:
        """As `remain` has it: execute the next instruction, which exits, and remain native where that can be."""
        pc, before = self.linear_pc, self.retired
        done = self.complete(None)
        if self.retired == before and done.reason is REQUEST:
            return VmExit(ExitCause.STOPPED, pc, self._mode(), stop=done)  # it will be an exit again
        self._counted[cause] += 1
        stop = None if done.reason is ExitReason.BUDGET else done
        if cause in CHANGING and not self.enterable(self.live()):
            return VmExit(cause, pc, self._mode(), done=True, stop=stop)
        if stop is not None:
            return VmExit(ExitCause.STOPPED, pc, self._mode(), stop=stop)
        return self._made(ExitCause.FORBIDDEN, before=True) if self._bounded and self._out_of_bounds() else None

    def _stops_here(self, code: bytes) -> bool:
        """The debugger has something at the next instruction."""
        pc = self.linear_pc
        if pc in self._points:
            return True
        if self._classes and classify(code, code_bits(self.live())) & self._classes:
            return True
        return bool(self._places) and self._events.physical_address(pc) in self._places

    # -- exits that do not end the run

    def remain(self, on: bool, ports: int | None) -> None:
        """See Resident."""
        if on is self._remains and ports == self._served:
            return
        self._remains, self._served = on, ports
        self.serve_ports(ports if on else None)

    def take_exits(self) -> Mapping[ExitCause, int]:
        """See Resident."""
        answered, _ = self.take_answered()
        if answered:
            self._counted[ExitCause.PIO] += answered
        counted = self._counted
        if counted:
            self._counted = Counter()
        return counted

    def _counts(self, cause: ExitCause) -> None:
        """One exit, of the instruction that is executing: the first cause, unless a fault comes behind an access."""
        at = self.retired
        known = isinstance(self._loop, FastLoop) and self._loop.noted(at)
        if at == self._counted_at:
            if cause not in FAULTS:
                return
            self._counted[self._counted_cause] -= 1
        elif known and isinstance(self._loop, FastLoop):
            if cause not in FAULTS:
                return
            self._loop.uncount()
        self._counted[cause] += 1
        self._counted_at, self._counted_cause = at, cause

    def _note(self, cause: ExitCause, address: int, write: bool) -> None:
        """An instruction accesses a device: an exit behind it, and once. A device of the hypervisor's is none."""
        if self._kept is not None and self._kept(cause, address):
            self._inside()
            return
        if self._remains:
            self._counts(cause)
            return
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
            if self._remains:
                self._counts(cause)
            else:
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


def make_model(rules: Rules = VTX2006) -> Callable[[Place], ModelVcpu]:
    """What makes the vCPU of `model` that goes by `rules`."""
    return lambda place: ModelVcpu(place, rules)
