"""An emulator that writes a tape of all that it meets from outside, for another CPU to run by.

It reaches every device by Python: no port is answered ahead, the display's window is not served in C, and a run ends
where an interrupt has been delivered. What the guest sees is the same in every other respect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from emu.engine import Exit, MemoryRegion, MmioBus, MsrDevice, PortIo
from emu.memory import PhysicalMemory
from emu.tape import Effect, Played, Request, Tape, loaded
from emu.unicorn_engine import UnicornEngine
from emu.x86.msrs import APIC_BASE
from emu.x86.state import CpuState


def _written(number: int, value: int) -> Effect:
    """A debugger has written an MSR."""

    def effect(played: Played) -> None:
        played.executor.write_msr(number, value)

    return effect


class _Ports:
    """The ports, each access on tape. `retired` counts up to the instruction that makes it."""

    def __init__(self, io: PortIo, tape: Tape, retired: Callable[[], int]) -> None:
        self._io, self._tape, self._retired = io, tape, retired

    def port_in(self, port: int, size: int) -> int:
        self._tape.begin(self._retired(), Request("in", port, size))
        value = self._io.port_in(port, size)
        self._tape.end(value)
        return value

    def port_out(self, port: int, size: int, value: int) -> None:
        self._tape.begin(self._retired(), Request("out", port, size, value))
        self._io.port_out(port, size, value)
        self._tape.end()


class _Mmio:
    """The memory of devices, each access on tape."""

    def __init__(self, bus: MmioBus, tape: Tape, retired: Callable[[], int]) -> None:
        self._bus, self._tape, self._retired = bus, tape, retired

    def mmio_read(self, address: int, size: int) -> int:
        self._tape.begin(self._retired(), Request("read", address, size))
        value = self._bus.mmio_read(address, size)
        self._tape.end(value)
        return value

    def mmio_write(self, address: int, size: int, value: int) -> None:
        self._tape.begin(self._retired(), Request("write", address, size, value))
        self._bus.mmio_write(address, size, value)
        self._tape.end()

    def answers(self, address: int) -> bool:
        return self._bus.answers(address)


class _Msr:
    """A claimed MSR. Accesses are on tape while the CPU executes; those of a debugger between two runs are not.
    IA32_APIC_BASE is part of the CPU's state, which an engine may read at any time: of it the tape has the changes."""

    def __init__(self, device: MsrDevice, number: int, engine: RecordingEngine) -> None:
        self._device, self._number, self._engine = device, number, engine

    def read_msr(self, number: int) -> int | None:
        if number == APIC_BASE or not self._engine.executing:
            return self._device.read_msr(number)
        self._engine.tape.begin(self._engine.retired, Request("rdmsr", number, 8))
        value = self._device.read_msr(number)
        self._engine.tape.end(value)
        return value

    def write_msr(self, number: int, value: int) -> bool:
        if not self._engine.executing:
            return self._device.write_msr(number, value)
        self._engine.tape.begin(self._engine.retired, Request("wrmsr", number, 8, value))
        taken = self._device.write_msr(number, value)
        self._engine.note_base()
        self._engine.tape.end(0 if taken else None)
        return taken


class RecordingEngine(UnicornEngine):
    """An Executor as `UnicornEngine` is. `memory` is what `memory_changed` speaks of, `skipped` gives the idle time
    that has passed, in ns. Nothing is recorded until `tape.recording` is set."""

    def __init__(
        self,
        memory: PhysicalMemory,
        io: PortIo,
        mmio: MmioBus,
        *,
        skipped: Callable[[], int],
        **options: Any,
    ) -> None:
        self.tape = Tape()
        self.tape.recording = False
        self._physical, self._idle, self._idled = memory, skipped, -1
        self._base_noted: int | None = None
        self.claimed: dict[int, MsrDevice] = {}
        ports = _Ports(io, self.tape, lambda: self.retired)
        bus = _Mmio(mmio, self.tape, lambda: self.retired)
        super().__init__(memory.regions, ports, bus, **options)

    @property
    def executing(self) -> bool:
        """An instruction is being executed."""
        return bool(self._live)

    def _met(self, effect: Effect) -> None:
        self.tape.note(self.retired, effect)

    def run(self, budget: int, *, skip_breakpoint: bool = False) -> Exit:
        """See Executor."""
        if self.tape.recording and (skipped := self._idle()) != self._idled:
            self._idled = skipped
            self._met(lambda played: played.skip(skipped))
        self.note_base()
        return super().run(budget, skip_breakpoint=skip_breakpoint)

    def note_base(self) -> None:
        """Have IA32_APIC_BASE on tape if it has changed."""
        device = self.claimed.get(APIC_BASE)
        if device is not None and (base := device.read_msr(APIC_BASE)) != self._base_noted:
            self._base_noted = base
            self._met(lambda played: played.apic_base(base))

    # -- what happens to it

    def load(self, state: CpuState) -> None:
        """See Executor."""
        self._met(loaded(state))
        super().load(state)

    def set_interrupt(self, vector: int | None, *, last: bool = False) -> None:
        """See Executor."""
        super().set_interrupt(vector)

    def take_interrupt(self) -> int | None:
        """See Executor."""
        vector = super().take_interrupt()
        if vector is not None:
            self.tape.note(self.interrupt_taken_at, lambda played: played.interrupt(vector))
        return vector

    def set_a20(self, enabled: bool) -> None:
        """See Executor."""
        self._met(lambda played: played.executor.set_a20(enabled))
        super().set_a20(enabled)

    def memory_changed(self, physical: int, length: int) -> None:
        """See Executor."""
        if self.tape.recording and (data := self._physical.try_read(physical, length)) is not None:
            self._met(lambda played: played.write(physical, data))
        super().memory_changed(physical, length)

    def remap(self, regions: Sequence[MemoryRegion]) -> None:
        """See Executor."""
        placed = self._physical.regions
        self._met(lambda played: played.remap(placed))
        super().remap(regions)

    def raise_nmi(self) -> None:
        """See Executor."""
        self._met(lambda played: played.executor.raise_nmi())
        super().raise_nmi()

    def set_task_priority(self, value: int) -> None:
        """See Executor."""
        self._met(lambda played: played.executor.set_task_priority(value))
        super().set_task_priority(value)

    def write_msr(self, number: int, value: int) -> bool:
        """See Executor."""
        if number not in self.claimed:
            self._met(_written(number, value))
        return super().write_msr(number, value)

    def claim_msr(self, number: int, device: MsrDevice) -> None:
        """See Executor."""
        self.claimed[number] = device
        super().claim_msr(number, _Msr(device, number, self))

    # -- what would keep accesses off the tape

    def hold_input(
        self, port: int, value: int, until: int | None, *, answered: bool = True, kept: bool = False
    ) -> None:
        """See Executor: it may answer, and does not."""

    def serve_ports(self, address: int | None) -> None:
        """See Executor: it may answer, and does not."""

    def stream_input(self, port: int, data: bytes, taken: Callable[[int], None], sizes: int = 1) -> None:
        """See Executor: it may answer, and does not."""

    def stream_output(self, port: int, room: int, written: Callable[[bytes], None], sizes: int = 1) -> None:
        """See Executor: it may collect, and does not."""
