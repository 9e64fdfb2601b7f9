"""Two CPUs in lockstep: the machine's own, and a second one on memory of its own that is given the same instructions.

Devices are asked once, by the first CPU; the second meets what it has met, by a tape. Both run a block of instructions,
then their states and the pages they have written are compared. Where something differs the block is halved again and
again, from the last point where they agreed, until one instruction is left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from emu.clock import NS_PER_INSTRUCTION
from emu.configuration import MachineConfig, cpu_model, memory_parts
from emu.engine import Executor
from emu.machine import Machine, MachineState
from emu.machine_exits import LIMIT, MachineExit, MachineStop
from emu.pages import PAGE, Pages
from emu.record import replace
from emu.recording import RecordingEngine
from emu.replica import Replica
from emu.seconds import Second, code_here
from emu.views import DifferenceView, DivergenceView, InstructionView, LockstepView
from emu.x86.disasm import decode
from emu.x86.modes import code_bits
from emu.x86.state import CpuState
from emu.x86.statediff import differences
from emu.x86.undefined import undefined_flags

if TYPE_CHECKING:
    from emu.quiet import Quiet

#: Instructions that both run between two comparisons.
BLOCK = 1_000_000
#: Differing runs of memory that are told, and bytes of each.
TOLD, TOLD_BYTES = 8, 8
RCX = 1
_DEAD = (MachineStop.SHUTDOWN, MachineStop.FAILURE, MachineStop.DEADLOCK, MachineStop.STANDSTILL)


class LockstepMachine(Machine):
    """A machine whose runs are compared. `divergence` is what was found; with it every run ends at once, the CPU
    before the instruction behind which the two part. `compared` counts instructions, `masked` those behind which only
    flags differed that are undefined there, by their text; the second CPU was then given the first one's flags."""

    def __init__(self, config: MachineConfig, second: Second, block: int = BLOCK) -> None:
        self.divergence: DivergenceView | None = None
        self.compared = 0
        self.masked: dict[str, int] = {}
        self.second, self.block = second, block
        self._matched = False
        self._start: MachineState | None = None
        self._engine: RecordingEngine
        super().__init__(replace(config, native=None), lambda machine: self._make(config, machine))
        self.replica = Replica(memory_parts(config), second.make(config), second.name, second.slice)
        self.replica.claim(self._engine.claimed)
        written = self.display.written

        def shown(at: int, count: int) -> None:
            """The display's memory is a part that may stand nowhere, of which no address could be told."""
            data = bytes(self.display.memory[at : at + count])
            tape = self._engine.tape
            tape.note(self._engine.retired, lambda played: played.write_part("vga", at, data))
            recording, tape.recording = tape.recording, False
            written(at, count)
            tape.recording = recording

        self.display.written = shown

    def _make(self, config: MachineConfig, machine: Machine) -> Executor:
        self._engine = RecordingEngine(
            machine.memory, machine.cpu_ports, machine.mmio, skipped=lambda: machine.clock.skipped,
            timestamp=machine.timestamp, checks=config.checks, model=cpu_model(config), tick=NS_PER_INSTRUCTION,
        )  # fmt: skip
        return self._engine

    def summary(self, ended: str) -> LockstepView:
        """What was compared so far."""
        masked = sum(self.masked.values())
        return LockstepView(self.executor.name, self.replica.name, self.compared, masked, self.divergence, ended)

    # -- as a machine

    def run(
        self, until: int, *, skip_breakpoint: bool = False, passed: Callable[[], bool] | None = None
    ) -> MachineExit:
        """See Machine."""
        while True:
            if self.divergence is not None:
                return MachineExit(MachineStop.FAILURE, detail=f"lockstep: {self.divergence.text}; the guest stands")
            self._begin()
            edge = min(until, self.executor.retired + self.block)
            exit = super().run(edge, skip_breakpoint=skip_breakpoint, passed=passed)
            skip_breakpoint = False
            if self._check() and not (exit is LIMIT and self.executor.retired < until):
                return exit

    def step(self) -> MachineExit | None:
        """See Machine: every step is one for `run`."""
        return None

    def begin_quiet(self, steps: bool, run: int = 0) -> Quiet | None:
        """See Machine."""
        return None

    def reset(self) -> None:
        """See Machine."""
        self._apart()
        super().reset()

    def restore(self, state: MachineState) -> None:
        """See Machine."""
        self._apart()
        super().restore(state)

    def _apart(self) -> None:
        """The second CPU will be given all of the first one's state."""
        self._matched, self.divergence = False, None
        self._engine.tape.recording = False

    def close(self) -> None:
        super().close()
        self.replica.executor.close()

    # -- blocks

    def _begin(self) -> None:
        """Both are in the state from which the next block runs."""
        self._start = super().save()
        if self._matched:
            self.replica.play(self.executor.retired)  # what was done to a stopped guest
            self.replica.memory.agree(self._start.memory)
        else:
            self._match(self._start)
            self._matched = True
        self._record()

    def _match(self, state: MachineState) -> None:
        self.replica.match(state.cpu, state.memory, self.memory.regions, state.retired, state.clock.skipped)
        self.replica.memory.agree(state.memory)

    def _record(self) -> None:
        """From here on."""
        tape = self._engine.tape
        tape.clear()
        tape.recording = True
        self.replica.rewind(tape)

    def _check(self) -> bool:
        """True when the second CPU has come to the same as the first since `_begin`."""
        assert self._start is not None
        self.replica.play(self.executor.retired)
        if self._alike(self._start.memory) or (divergence := self._find(self._start)) is None:
            self.compared += self.executor.retired - self._start.retired
            self._record()
            return True
        self.compared += divergence.retired - self._start.retired
        self.divergence = divergence
        return False

    def _alike(self, base: Pages) -> bool:
        """Both were alike with `base` in memory; are they now?"""
        if self.replica.mismatch:
            return False
        ours, theirs = self._states()
        if ours != theirs:
            return False
        return next(self._unlike_pages(base), None) is None

    def _states(self) -> tuple[CpuState, CpuState]:
        """Those of both, but for what is hidden."""
        ours, theirs = self.executor.state(), self.replica.executor.state()
        theirs.rflags = theirs.rflags & ~self.replica.hidden | ours.rflags & self.replica.hidden
        for number in self.replica.hidden_msrs:
            theirs.msrs.pop(number, None)
            if number in ours.msrs:
                theirs.msrs[number] = ours.msrs[number]
        return ours, theirs

    def _unlike_pages(self, base: Pages) -> Iterator[int]:
        ours, theirs = self.memory.save(), self.replica.memory.save()
        for index in sorted({*ours.unlike(base), *theirs.unlike(base)}):
            if ours.page(index) != theirs.page(index):
                yield index

    # -- what differs

    def _find(self, base: MachineState) -> DivergenceView | None:
        """Both were alike at `base` and are not now: where do they part? None: only in undefined flags."""
        end = self.executor.retired
        with self._aside():
            while True:
                low, high = base.retired, end
                while high - low > 1:
                    middle = (low + high) // 2
                    self._rewind(base)
                    self._forward(middle)
                    if self._alike(base.memory):
                        base, low = super().save(), middle
                    else:
                        high = middle
                self._rewind(base)
                found, masked = self._instruction(base, high)
                if not masked:
                    self._rewind(base)
                    return found
                self.masked[masked] = self.masked.get(masked, 0) + 1
                self.replica.executor.load(self.executor.state())
                base = super().save()
                self.replica.memory.agree(base.memory)
                if base.retired >= end:
                    return None
                self._record()
                self._forward(end)
                if self._alike(base.memory):
                    return None

    def _rewind(self, base: MachineState) -> None:
        """Both are as they were at `base`."""
        self._engine.tape.recording = False
        super().restore(base)
        self._match(base)
        self._record()

    def _forward(self, until: int) -> None:
        """Both run on."""
        while self.executor.retired < until:
            exit = super().run(until, passed=lambda: True)
            if exit.reason in _DEAD:
                break
        self.replica.play(self.executor.retired)

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """What happens has happened before: nobody is told of it again, nor waits."""
        events, idle, faults, interrupts = tuple(self.journal), self.idle, self.caught_fault, self.caught_interrupt
        stop = self._stop
        self.idle = self.caught_fault = self.caught_interrupt = None
        self.outputs.muted = True
        try:
            yield
        finally:
            self.outputs.muted = False
            self.idle, self.caught_fault, self.caught_interrupt = idle, faults, interrupts
            self._stop = self._stop or stop
            self.journal.put(events)

    def _instruction(self, base: MachineState, end: int) -> tuple[DivergenceView, str]:
        """Both run the one instruction up to `end`: how they differ, and its text where only undefined flags do."""
        what = ""
        self.service()
        if self.interrupt_due:
            self.executor.run(1)
            self.pin.settle()
            self.replica.play(self.executor.retired)
            what = "in the delivery of an interrupt"
        if not what or self._alike(base.memory):
            what = ""
            before = self.executor.state()
            code = code_here(self.memory, before)
            self._forward(end)
        else:
            before, code = base.cpu, b""
        after, other = self._states()
        found = [_difference(*difference) for difference in differences(after, other)]
        bits, text = code_bits(before), None
        if code:
            (text,) = decode(code, before.linear_pc, bits, before.rip, 1)
        pages = list(self._unlike_pages(base.memory))
        if not found and not pages and not self.replica.mismatch:
            what = f"they part only where the {end - base.retired} instructions are run in one go with those before"
        unsaid = undefined_flags(code, bits, before.regs[RCX] & 0xFF)
        if (
            text is not None
            and not pages
            and not self.replica.mismatch
            and [d.name for d in found] == ["rflags"]
            and not (found[0].first ^ found[0].second) & ~unsaid
        ):
            return self._divergence(before, text, found, ""), text.text
        for page in pages:
            found += self._in_page(page)
        if self.replica.mismatch:
            what = f"{self.replica.name}: {self.replica.mismatch}"
        return self._divergence(before, text, found[: 64 + TOLD], what), ""

    def _divergence(
        self, at: CpuState, text: InstructionView | None, found: list[DifferenceView], what: str
    ) -> DivergenceView:
        retired = self.executor.retired - 1
        return DivergenceView(
            self.executor.name, self.replica.name, retired, at.cs.selector, at.rip, at.linear_pc, text, tuple(found),
            what,
        )  # fmt: skip

    def _in_page(self, index: int) -> Iterator[DifferenceView]:
        """Runs of bytes that differ."""
        ours, theirs = self.memory.save().page(index), self.replica.memory.save().page(index)
        at, told = 0, 0
        while at < PAGE and told < TOLD:
            if ours[at] == theirs[at]:
                at += 1
                continue
            end = next((n for n in range(at, min(at + TOLD_BYTES, PAGE)) if ours[n] == theirs[n]), at + TOLD_BYTES)
            end = min(end, PAGE)
            yield DifferenceView(
                self._place_of(index * PAGE + at), int.from_bytes(ours[at:end], "little"),
                int.from_bytes(theirs[at:end], "little"), 8 * (end - at),
            )  # fmt: skip
            at, told = end, told + 1

    def _place_of(self, offset: int) -> str:
        for region in self.memory.regions:
            if region.offset <= offset < region.offset + region.size:
                return f"memory {region.base + offset - region.offset:#x}"
        return f"byte {offset:#x} of memory that is not mapped"


def _difference(name: str, first: int, second: int) -> DifferenceView:
    return DifferenceView(name, first, second, 128 if "xmm" in name else 80 if ".st" in name else 64)
