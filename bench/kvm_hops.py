"""`python -m bench.kvm_hops`: what moving the CPU between emulator and KVM takes, and the system calls it needs.

A hop in is the emulator's state into KVM and the first entry; a hop out is what KVM has into the emulator, with the
pages it has written. The system calls are timed by themselves, in turns with hops, as many of each as a hop makes: by
ctypes, and less what as many calls take by it that the kernel refuses at once, which is the kernel's part alone.
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
WHOLE, CALLS, REFUSED = range(3)

Call = tuple[int, int, int]  #: of ioctl(2): descriptor, request, argument


class Hop(NamedTuple):
    """Medians in microseconds: the whole hop, the system calls that it needs by themselves, and these but for what is
    not the kernel's."""

    name: str
    whole: float
    calls: float
    kernel: float
    needed: str


def machine() -> Machine:
    """A machine whose CPU may be KVM's. Raises EngineError where there is none."""
    config = MachineConfig(memory=MEMORY, firmware=FIRMWARE, shadow=False)
    config.native = NativeConfig(make_kvm(), policy_named("native", Costs()), Costs())
    return build_machine(config)


class Calls:
    """The system calls that hops need, each called as directly as ctypes can, with buffers of their own."""

    def __init__(self, vcpu: KvmVcpu) -> None:
        self._vcpu, self._cpu = vcpu, vcpu._cpu
        msrs = struct.pack("<Q IIQ IIQ", 2, KERNEL_GS_BASE, 0, 0, TSC, 0, 0)
        self._buffers = {
            "GET_XSAVE": (ctypes.c_uint8 * abi.XSAVE_SIZE)(),
            "GET_DEBUGREGS": abi.DebugRegs(),
            "GET_MSRS": (ctypes.c_uint8 * len(msrs)).from_buffer_copy(msrs),
        }
        fd = vcpu._cpu.fd
        self.run: Call = fd, abi.RUN, 0
        self._asked: list[Call] = [
            (fd, abi.REQUESTS[name], ctypes.addressof(buffer)) for name, buffer in self._buffers.items()
        ]

    def ends_at_once(self, on: bool) -> None:
        """Whether KVM_RUN does: a hop needs the entry and the exit, not what the guest does in between."""
        self._cpu.immediate_exit.value = on

    def into(self) -> tuple[Call, ...]:
        """Those of a hop in: KVM_RUN that takes from the page what it has been given there."""
        return (self.run,)

    def out(self) -> tuple[Call, ...]:
        """Those of a hop out, of a vCPU that has answered an access."""
        vm = self._vcpu._vm
        return self.run, *self._asked, *((vm.fd, abi.REQUESTS["GET_DIRTY_LOG"], log.address) for log in vm.logs)


def spent(calls: tuple[Call, ...]) -> int:
    """ns of all of them, one after the other."""
    call = abi.call
    begin = time.perf_counter_ns()
    for fd, number, argument in calls:
        call(fd, number, argument)
    return time.perf_counter_ns() - begin


def refused(calls: tuple[Call, ...]) -> tuple[Call, ...]:
    """As many that the kernel refuses: they are of no descriptor."""
    return tuple((-1, number, argument) for _, number, argument in calls)


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
    run = vcpu._cpu.run
    into: tuple[list[int], ...] = ([], [], [])  # whole hops, their calls, and calls that are refused
    out: tuple[list[int], ...] = ([], [], [])
    for sample in range(3 * SAMPLES):
        kind = sample % 3
        vcpu.enter(1 << 30, None, skip_breakpoint=False)
        needed, first = calls.out(), calls.into()
        if kind == REFUSED:
            needed, first = refused(needed), refused(first)
        if kind != WHOLE:
            calls.ends_at_once(True)
            out[kind].append(spent(needed))
            calls.ends_at_once(False)
            vcpu._unfinished = kind == REFUSED
        retired = vcpu.retired
        begin = time.perf_counter_ns()
        transitions._activate(emulator, retired)
        end = time.perf_counter_ns()
        emulator.run(3)
        retired = emulator.retired
        calls.ends_at_once(True)
        begin_in = time.perf_counter_ns()
        transitions._activate(vcpu, retired)
        if kind == WHOLE:
            run()
            into[kind].append(time.perf_counter_ns() - begin_in)
            out[kind].append(end - begin)
        else:
            into[kind].append(spent(first))
        calls.ends_at_once(False)
    asked = "RUN GET_XSAVE GET_DEBUGREGS GET_MSRS GET_DIRTY_LOG"
    return _hop("in", into, "RUN given a state"), _hop("out", out, asked)


def _hop(name: str, samples: tuple[list[int], ...], needed: str) -> Hop:
    whole, calls, refused = (statistics.median(each) / 1000 for each in samples)
    return Hop(name, whole, calls, calls - refused, needed)


def main() -> int:
    """Returns an exit status."""
    try:
        built = machine()
    except EngineError as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 2
    print(f"{'hop':<6}{'us':>8}{'calls':>8}{'ratio':>8}{'kernel':>8}{'ratio':>8}  system calls")
    into, out = measure(built)
    both = Hop("both", into.whole + out.whole, into.calls + out.calls, into.kernel + out.kernel, "all of these")
    for hop in (into, out, both):
        ratios = f"{hop.calls:>8.1f}{hop.whole / hop.calls:>8.2f}{hop.kernel:>8.1f}{hop.whole / hop.kernel:>8.2f}"
        print(f"{hop.name:<6}{hop.whole:>8.1f}{ratios}  {hop.needed}")
    built.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
