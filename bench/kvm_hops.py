"""`python -m bench.kvm_hops`: what moving the CPU between emulator and KVM takes, and the system calls it needs.

A hop in is the emulator's state into KVM and the first entry; a hop out is what KVM has into the emulator, with the
pages it has written. The system calls are timed by themselves, in turns with hops, as many of each as a hop makes.
"""

from __future__ import annotations

import ctypes
import statistics
import struct
import sys
import time
from typing import NamedTuple

from bench.checkpoints import MEMORY
from emu.engine import EngineError
from emu.ledger import Costs
from emu.machine import Machine, MachineConfig, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig, Transitions
from emu.x86.msrs import KERNEL_GS_BASE, TSC
from xenbridge.kvm import abi
from xenbridge.kvm.cpu import KvmVcpu
from xenbridge.kvm.probe import make_kvm

#: At the reset vector: a loop that writes memory and a port, so that each hop has registers, a page and an access to
#: move. inc word [0x500]; out 0x80, al; jmp back.
FIRMWARE = bytes(0xFFE0) + bytes.fromhex("ff060005 e680 ebf8").ljust(16, b"\0") + b"\xeb\xee" + bytes(14)
SAMPLES = 300


class Hop(NamedTuple):
    """Medians in microseconds: the whole hop, and the system calls that it needs by themselves."""

    name: str
    whole: float
    calls: float
    needed: str

    @property
    def ratio(self) -> float:
        return self.whole / self.calls


def machine() -> Machine:
    """A machine whose CPU may be KVM's. Raises EngineError where there is none."""
    config = MachineConfig(memory=MEMORY, firmware=FIRMWARE, shadow=False)
    config.native = NativeConfig(make_kvm(), policy_named("native", Costs()), Costs())
    return build_machine(config)


class Calls:
    """The system calls that hops need, each called as directly as Python can, with buffers of their own."""

    def __init__(self, vcpu: KvmVcpu) -> None:
        self._vcpu, self._cpu = vcpu, vcpu._cpu
        msrs = struct.pack("<Q IIQ IIQ", 2, KERNEL_GS_BASE, 0, 0, TSC, 0, 0)
        self._buffers = {
            "GET_XSAVE": (ctypes.c_uint8 * abi.XSAVE_SIZE)(),
            "GET_DEBUGREGS": abi.DebugRegs(),
            "GET_MSRS": (ctypes.c_uint8 * len(msrs)).from_buffer_copy(msrs),
        }

    def _run(self) -> int:
        """KVM_RUN that ends at once: a hop needs the entry and the exit, not what the guest does in between."""
        self._cpu.immediate_exit.value = 1
        begin = time.perf_counter_ns()
        abi.call(self._cpu.fd, abi.RUN, 0)
        spent = time.perf_counter_ns() - begin
        self._cpu.immediate_exit.value = 0
        return spent

    def give(self) -> dict[str, int]:
        """ns of KVM_RUN that takes from the page what it has been given there."""
        return {"RUN given a state": self._run()}

    def take(self) -> dict[str, int]:
        """ns of each that a hop out makes."""
        spent = {"RUN": self._run()}
        self._vcpu._unfinished = False
        for name, buffer in self._buffers.items():
            number, address = abi.REQUESTS[name], ctypes.addressof(buffer)
            begin = time.perf_counter_ns()
            abi.call(self._cpu.fd, number, address)
            spent[name] = time.perf_counter_ns() - begin
        spent["GET_DIRTY_LOG"] = 0
        for log in self._vcpu._vm.logs:
            begin = time.perf_counter_ns()
            abi.call(self._vcpu._vm.fd, abi.REQUESTS["GET_DIRTY_LOG"], log.address)
            spent["GET_DIRTY_LOG"] += time.perf_counter_ns() - begin
        return spent


def measure(built: Machine) -> tuple[Hop, Hop]:
    """Hops in and out between two accesses of the guest's loop, in turns with the system calls by themselves, which so
    find caches and KVM as hops find them."""
    transitions = built.transitions
    assert isinstance(transitions, Transitions) and isinstance(transitions.vcpu, KvmVcpu)
    vcpu, emulator = transitions.vcpu, transitions.emulator
    transitions.force(False)
    built.run(1000)
    transitions.force(True)
    calls = Calls(vcpu)
    into, out, given, taken = [], [], [], []
    for sample in range(2 * SAMPLES):
        vcpu.enter(1 << 30, None, skip_breakpoint=False)
        if sample % 2:
            taken.append(calls.take())
        retired = vcpu.retired
        begin = time.perf_counter_ns()
        transitions._activate(emulator, retired)
        end = time.perf_counter_ns()
        emulator.run(3)
        retired = emulator.retired
        begin_in = time.perf_counter_ns()
        transitions._activate(vcpu, retired)
        end_in = time.perf_counter_ns()
        run = calls.give()
        if sample % 2:
            given.append(run)
        else:
            into.append(end_in - begin_in + sum(run.values()))
            out.append(end - begin)
    return _hop("in", into, given), _hop("out", out, taken)


def _hop(name: str, whole: list[int], calls: list[dict[str, int]]) -> Hop:
    sums = [sum(each.values()) for each in calls]
    return Hop(name, statistics.median(whole) / 1000, statistics.median(sums) / 1000, " ".join(calls[0]))


def main() -> int:
    """Returns an exit status."""
    try:
        built = machine()
    except EngineError as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 2
    print(f"{'hop':<6}{'us':>8}{'calls':>8}{'ratio':>8}  system calls")
    for hop in measure(built):
        print(f"{hop.name:<6}{hop.whole:>8.1f}{hop.calls:>8.1f}{hop.ratio:>8.2f}  {hop.needed}")
    built.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
