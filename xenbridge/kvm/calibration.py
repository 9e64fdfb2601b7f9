"""What native execution costs on this host: exits, hops and instructions, timed on a small machine of their own.

What is measured is the time that this thread has the CPU for, so that others who want it do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ctypes import addressof, c_uint8
from typing import Final

from emu.engine import CheckLevel, Executor, MmioBus, PortIo
from emu.ledger import MOST, Costs
from emu.memory import Part, PhysicalMemory
from emu.policies import policy_named
from emu.transitions import NativeConfig, Transitions
from emu.unicorn_engine import UnicornEngine
from emu.vcpu import PAGE, Place
from emu.x86.cpuid import CpuModel
from emu.x86.state import CpuState, Segment
from xenbridge.kvm.backend import Backend, Kind
from xenbridge.kvm.cpu import KvmVcpu

RAM: Final = 0x10000
CODE: Final = 0x1000
COUNTER: Final = 0x500
RSP: Final = 4
#: again: inc dword [COUNTER]; add ax, [504h]; push ax; pop bx; mov [508h], bx; call f; dec cx; jmp again; f: ret
WORK: Final = bytes.fromhex("66ff060005 03060405 50 5b 891e0805 e80300 49 ebeb c3")
WORK_INSTRUCTIONS: Final = 9  #: each round of it
#: again: out 80h, al; inc ax, four times; jmp again
ACCESSES: Final = bytes.fromhex("e680 40404040 ebf8")
WARM, TIMED = 20, 100  #: exits
FAR: Final = 1 << 40  #: instructions: more than come
EMULATED: Final = 200_000  #: instructions
NATIVE_NS: Final = 3_000_000  #: of native execution


class _Ports:
    """Counts accesses, and stops the run at the last."""

    def __init__(self) -> None:
        self.left = 0
        self.stop: Callable[[], object] = bool

    def port_in(self, port: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def port_out(self, port: int, size: int, value: int) -> None:
        self.left -= 1
        if not self.left:
            self.stop()

    def mmio_read(self, address: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def mmio_write(self, address: int, size: int, value: int) -> None:
        pass

    def answers(self, address: int) -> bool:
        return False


class Calibration:
    """A machine with a CPU by KVM, whose parts are timed. Raises EngineError where there is none."""

    def __init__(self, backend: Backend, model: CpuModel) -> None:
        self._memory = PhysicalMemory([Part(0, RAM, "ram", "ram")])
        self._ports = _Ports()
        place = Place(self._memory.regions, self._ports, self._ports, lambda: 0, 10, CheckLevel.AUTO, model)

        def emulator(io: PortIo, mmio: MmioBus) -> Executor:
            return UnicornEngine(place.regions, io, mmio, timestamp=lambda: 0, model=model)

        costs = Costs()
        config = NativeConfig(lambda place: KvmVcpu(place, backend), policy_named("native", costs), costs)
        self._cpu = Transitions(emulator, place, config, lambda: ())
        self._ports.stop = self._cpu.request_stop
        start = self._memory.regions[0].host_address
        self._marks = (c_uint8 * (self._memory.size // PAGE))()
        self._cpu.mark_writes(start, len(self._marks), addressof(self._marks))

    def close(self) -> None:
        """Give the machine back."""
        self._cpu.close()

    def _begin(self, policy: str, code: bytes) -> None:
        state = CpuState(rip=CODE)
        state.cs = Segment(0, 0, 0xFFFF, 0x9B)
        state.regs[RSP] = 0x7000
        self._memory.write(CODE, code)
        self._memory.write(COUNTER, bytes(4))
        self._cpu.memory_changed(CODE, len(code))
        self._cpu.set_policy(policy_named(policy, Costs()))
        self._cpu.load(state)

    def _accesses(self, policy: str) -> float:
        """ns from one access to the next."""
        self._begin(policy, ACCESSES)
        for count in (WARM, TIMED):
            self._ports.left = count
            begun = time.thread_time_ns()
            while self._ports.left > 0:  # a stop may be heard of by both CPUs, one run after the other
                self._cpu.run(FAR)
            spent = time.thread_time_ns() - begun
        return spent / TIMED

    def exit(self) -> float:
        """ns of a port access, its way to the device and back into the guest."""
        return self._accesses("native")

    def hop(self, exit: float) -> float:
        """ns of a hop, the mean of both ways, with what is told of it; `exit` is an exit's."""
        return max(0.0, (self._accesses("dwell:1") - exit) / 2)

    def emulated(self) -> float:
        """ns of an emulated instruction."""
        self._begin("emulated", WORK)
        for _ in range(2):  # the first translates
            begun = time.thread_time_ns()
            self._cpu.run(EMULATED)
            spent = time.thread_time_ns() - begun
        return spent / EMULATED

    def native(self) -> float:
        """ns of a native instruction, in real mode."""
        self._begin("native", WORK)
        self._cpu.deadline = lambda: NATIVE_NS
        begun = time.thread_time_ns()
        while time.thread_time_ns() - begun < NATIVE_NS:
            self._cpu.run(FAR)
        spent = time.thread_time_ns() - begun
        self._cpu.deadline = lambda: None
        rounds = int.from_bytes(self._memory.read(COUNTER, 4), "little")
        return spent / max(1, rounds * WORK_INSTRUCTIONS)


def host_ghz(path: str = "/proc/cpuinfo") -> float:
    """The clock of this host's CPU now, in GHz; 1 where it is not told, so that a cycle is a nanosecond."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            told = [line.partition(":")[2] for line in file if line.startswith("cpu MHz")]
        return float(told[0]) / 1000 if told else 1.0
    except (OSError, ValueError):
        return 1.0


def measured_costs(backend: Backend, model: CpuModel) -> Costs | None:
    """The costs of this host, in cycles of its CPU; None where real mode, in which they are taken, does not run by
    `backend`. Takes some 50 ms. Raises EngineError where KVM cannot be had."""
    if Kind.REAL not in backend.runs:
        return None
    look = Calibration(backend, model)
    try:
        exit = look.exit()
        times = exit, look.hop(exit), look.emulated(), look.native()
    finally:
        look.close()
    ghz = host_ghz()
    exit, hop, emulated, native = (min(MOST, max(1, round(ns * ghz))) for ns in times)
    return Costs(exit, hop, emulated, native, native_ns=max(0.01, times[3]))
