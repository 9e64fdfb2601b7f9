"""`python -m bench.kvm_hops`: what moving the CPU between emulator and KVM takes, and the system calls it needs.

A hop in is the emulator's state into KVM and the first entry; a hop out is what KVM has into the emulator, with the
pages it has written. The system calls are timed by themselves, in the same process, as many of each as a hop makes.
"""

from __future__ import annotations

import ctypes
import statistics
import struct
import sys
import time
from collections.abc import Callable
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


def median(action: Callable[[], object]) -> float:
    """Microseconds of `action`."""
    samples = []
    for _ in range(SAMPLES):
        begin = time.perf_counter_ns()
        action()
        samples.append(time.perf_counter_ns() - begin)
    return statistics.median(samples) / 1000


def machine() -> Machine:
    """A machine whose CPU may be KVM's. Raises EngineError where there is none."""
    config = MachineConfig(memory=MEMORY, firmware=FIRMWARE, shadow=False)
    config.native = NativeConfig(make_kvm(), policy_named("native", Costs()), Costs())
    return build_machine(config)


def system_calls(vcpu: KvmVcpu) -> dict[str, float]:
    """Of each request that a hop may make, its time by itself, called as directly as Python can."""
    cpu, vm = vcpu._cpu, vcpu._vm
    msrs = (ctypes.c_uint8 * 40).from_buffer_copy(struct.pack("<Q IIQ IIQ", 2, KERNEL_GS_BASE, 0, 0, TSC, 0, 0))
    times = {}
    for name, buffer in (
        ("GET_XSAVE", (ctypes.c_uint8 * abi.XSAVE_SIZE)()), ("GET_DEBUGREGS", abi.DebugRegs()), ("GET_MSRS", msrs),
    ):  # fmt: skip
        number, address = abi.REQUESTS[name], ctypes.addressof(buffer)
        times[name] = median(lambda n=number, at=address: abi.call(cpu.fd, n, at))  # type: ignore[misc]
    # A KVM_RUN that ends at once: the entry and the exit are what the hop needs, not what the guest does in between.
    cpu.immediate_exit.value = 1
    times["RUN"] = median(lambda: abi.call(cpu.fd, abi.RUN, 0))
    # The same with registers and segments to take from the page.
    dirty = ctypes.c_uint64.from_buffer(cpu._map, abi.RUN_DIRTY)
    times["RUN given a state"] = median(lambda: run_given(cpu.fd, dirty))
    cpu.immediate_exit.value = 0
    times["GET_DIRTY_LOG"] = sum(
        median(lambda at=log.address: abi.call(vm.fd, abi.REQUESTS["GET_DIRTY_LOG"], at))  # type: ignore[misc]
        for log in vm.logs
    )
    return times


def run_given(fd: int, dirty: ctypes.c_uint64) -> None:
    """KVM_RUN that takes registers and segments from the page."""
    dirty.value = abi.SYNC_REGS | abi.SYNC_SREGS
    abi.call(fd, abi.RUN, 0)


def measure(built: Machine) -> tuple[Hop, Hop]:
    """A hop in and a hop out, each many times, between two accesses of the guest's loop."""
    transitions = built.transitions
    assert isinstance(transitions, Transitions) and isinstance(transitions.vcpu, KvmVcpu)
    vcpu, emulator = transitions.vcpu, transitions.emulator
    transitions.force(False)
    built.run(1000)
    transitions.force(True)
    into, out = [], []
    for _ in range(SAMPLES):
        vcpu.enter(1 << 30, None, skip_breakpoint=False)
        begin = time.perf_counter_ns()
        transitions._activate(emulator)
        out.append(time.perf_counter_ns() - begin)
        emulator.run(3)
        begin = time.perf_counter_ns()
        transitions._activate(vcpu)
        vcpu._cpu.finish(lambda reason: None)
        into.append(time.perf_counter_ns() - begin)
    times = system_calls(vcpu)
    read = ("RUN", "GET_XSAVE", "GET_DEBUGREGS", "GET_MSRS", "GET_DIRTY_LOG")
    given = "RUN given a state"
    return (
        Hop("in", statistics.median(into) / 1000, times[given], given),
        Hop("out", statistics.median(out) / 1000, sum(times[name] for name in read), " ".join(read)),
    )


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
