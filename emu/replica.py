"""A CPU with memory of its own that runs by a tape: it meets what another one has met, and reaches no device."""

from __future__ import annotations

from collections.abc import Callable

from emu.clock import NS_PER_INSTRUCTION
from emu.engine import Executor, ExitReason, MsrDevice
from emu.memory import Part, PhysicalMemory, Region
from emu.pages import Pages
from emu.tape import Access, Request, Tape
from emu.typed import Protocol
from emu.x86.msrs import APIC_BASE
from emu.x86.state import CpuState

#: Reasons for which a run ends before its budget while nothing is wrong.
_GOES_ON = frozenset((ExitReason.BUDGET, ExitReason.REQUEST))


class MakeExecutor(Protocol):
    """Makes the CPU of a replica, over `replica.memory`, with `replica` as its ports and MMIO and
    `replica.timestamp`. Its accesses must reach them, each by itself."""

    def __call__(self, replica: Replica) -> Executor: ...


class _Msr:
    """A claimed MSR as the tape has it; between two runs, that of the device itself, which is only read.
    IA32_APIC_BASE is read as a part of the CPU's state: it is what the replica has been told."""

    def __init__(self, device: MsrDevice, replica: Replica) -> None:
        self._device, self._replica = device, replica

    def read_msr(self, number: int) -> int | None:
        if number == APIC_BASE:
            return self._replica.base
        if not self._replica.playing:
            return self._device.read_msr(number)
        return self._replica.asked(Request("rdmsr", number, 8))

    def write_msr(self, number: int, value: int) -> bool:
        if not self._replica.playing:
            return True
        return self._replica.asked(Request("wrmsr", number, 8, value)) is not None


class Replica:
    """`mismatch` says, from the first on, what the CPU did that the tape has not; it does not go on behind that.

    `name` is the CPU's, for people; `slice` is how many instructions it is asked for at a time (None: as many as
    there are)."""

    def __init__(self, parts: list[Part], make: MakeExecutor, name: str = "", slice: int | None = None) -> None:
        self.name = name
        self.memory = PhysicalMemory(parts)
        self.mismatch = ""
        self.playing = False
        self.slice = slice or 1 << 62
        #: of a CPU that is single-stepped: has the next instruction, which is not to be stepped, run otherwise
        self.whole: Callable[[], bool] | None = None
        self.delivers: Callable[[], None] = lambda: None  #: called before an interrupt is delivered
        self.hidden = 0  #: bits of RFLAGS that are not the guest's
        self.hidden_msrs: frozenset[int] = frozenset()  #: MSRs that are not
        self._skipped = 0
        self.base: int | None = None  #: IA32_APIC_BASE, where a device has it
        self._tape = Tape()
        self._next = self._happened = 0  # the next access and happening of the tape
        self.executor = make(self)
        self.memory.on_write.append(self.executor.memory_changed)
        self.memory.add_writer(self.executor.mark_writes)

    def timestamp(self) -> int:
        """As of emu.machine.Machine."""
        return self.executor.retired * NS_PER_INSTRUCTION + self._skipped

    def claim(self, devices: dict[int, MsrDevice]) -> None:
        """These MSRs are answered by the tape."""
        for number, device in devices.items():
            self.executor.claim_msr(number, _Msr(device, self))

    # -- its state

    def match(self, state: CpuState, memory: Pages, regions: tuple[Region, ...], retired: int, skipped: int) -> None:
        """Be in this state, with no tape behind it."""
        self.base = state.msrs.get(APIC_BASE)
        self.memory.restore(memory)
        self.remap(regions)
        self.executor.set_retired(retired)
        self.executor.set_interrupt(None)
        self.executor.load(state.copy())
        self.executor.take_interrupt()
        self.executor.set_a20(state.a20)
        self._skipped, self.mismatch = skipped, ""
        self.rewind(Tape())

    def rewind(self, tape: Tape) -> None:
        """Play `tape` from its beginning on."""
        self._tape, self._next, self._happened = tape, 0, 0

    # -- playing

    def play(self, until: int) -> None:
        """Run until `until` instructions have retired, and all of the tape up to there has happened."""
        happenings = self._tape.happenings
        while True:
            due = self._happened < len(happenings) and happenings[self._happened].retired <= until
            self._run(happenings[self._happened].retired if due else until)
            if self.mismatch or not due:
                break
            self._happened += 1
            happenings[self._happened - 1].effect(self)
        left = self._tape.accesses[self._next : self._next + 1]
        if not self.mismatch and left and left[0].retired < until:
            self._differs(f"it did not make the access: {left[0].request}")

    def _run(self, until: int) -> None:
        executor = self.executor
        while (left := until - executor.retired) > 0 and not self.mismatch:
            before = executor.retired
            self.playing = True
            try:
                if self.whole is not None and self.whole():
                    continue
                exit = executor.run(min(left, self.slice))
            finally:
                self.playing = False
            if exit.reason not in _GOES_ON and executor.retired < until:
                # A halt or a shutdown is no difference where the other CPU has come to it too.
                said = f": {exit.detail}" if exit.detail else ""
                self._differs(f"it ended by {exit.reason.value} after {executor.retired} instructions{said}")
            elif executor.retired == before and executor.take_interrupt() is not None:
                self._differs("it took an interrupt that did not come")

    def _differs(self, what: str) -> None:
        if not self.mismatch:
            self.mismatch = what
            self.executor.request_stop()

    def asked(self, request: Request) -> int | None:
        """The CPU makes an access: its answer."""
        accesses, retired = self._tape.accesses, self.executor.retired
        access: Access | None = accesses[self._next] if self._next < len(accesses) else None
        if access is None or access.retired != retired or access.request != request:
            other = "no access" if access is None or access.retired > retired else str(access.request)
            self._differs(f"it made the access: {request}; the first made {other}")
            return None
        self._next += 1
        for effect in access.effects:
            effect(self)
        return access.answer

    # -- what the CPU reaches

    def port_in(self, port: int, size: int) -> int:
        answer = self.asked(Request("in", port, size))
        return (1 << 8 * size) - 1 if answer is None else answer

    def port_out(self, port: int, size: int, value: int) -> None:
        self.asked(Request("out", port, size, value))

    def mmio_read(self, address: int, size: int) -> int:
        answer = self.asked(Request("read", address, size))
        return (1 << 8 * size) - 1 if answer is None else answer

    def mmio_write(self, address: int, size: int, value: int) -> None:
        self.asked(Request("write", address, size, value))

    def answers(self, address: int) -> bool:
        """Where a device does the other one's run has ended."""
        return False

    # -- what happens to it: see emu.tape.Played

    def interrupt(self, vector: int) -> None:
        executor, before = self.executor, self.executor.retired
        self.delivers()
        executor.set_interrupt(vector)
        self.playing = True
        try:
            executor.run(1)
        finally:
            self.playing = False
        executor.set_interrupt(None)
        if executor.take_interrupt() != vector or executor.retired != before:
            self._differs(f"it did not take the interrupt {vector:#04x}")

    def write(self, physical: int, data: bytes) -> None:
        self.memory.write(physical, data)

    def write_part(self, name: str, at: int, data: bytes) -> None:
        self.memory.write_part(name, at, data)

    def remap(self, regions: tuple[Region, ...]) -> None:
        self.memory.follow(regions)
        self.executor.remap(self.memory.regions)

    def apic_base(self, value: int | None) -> None:
        self.base = value

    def skip(self, skipped: int) -> None:
        self._skipped = skipped
