"""`python -m bench.transitions`: what exits and moves take besides the guest's instructions, under `model` and `kvm`.

A guest of a few instructions makes one exit in each round of its loop; the CPU time of the thread is told for each
round. Behind it in the policy `native` are the exit and the hypervisor's answer, in `dwell:` a move to the emulator and
one back as well. The least of several is told, as the host has other things to do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from bench.checkpoints import MEMORY
from emu.engine import EngineError
from emu.ledger import Costs
from emu.machine import Machine, MachineConfig, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig, Transitions
from emu.vcpu import MakeVcpu
from xenbridge.kvm.probe import make_kvm
from xenbridge.model import make_model

TIMES: Final = 7  #: of which the fastest is told
ROUNDS: Final = 400
WARM: Final = 50
FAR: Final = 1 << 40  #: instructions: more than come
#: Loops at the reset vector: their names, their bytes, the instructions of a round.
LOOPS: Final = {
    "OUT": ("e680 40404040 ebf8", 6),  # again: out 0x80, al; inc ax, four times; jmp again
    "CPUID": ("31c0 0fa2 40404040 ebf6", 7),  # again: xor ax, ax; cpuid; inc ax, four times; jmp again
    "MOV from CR0": ("0f20c0 40404040 ebf7", 6),  # again: mov eax, cr0; inc ax, four times; jmp again
}
#: jmp 0xf000:0xffe0, behind which CS's base is one that VT-x of 2006 can enter.
FAR_JUMP: Final = bytes.fromhex("eae0ff00f0")


class Row(NamedTuple):
    """CPU time in us of a round, and the exits and moves in it."""

    hypervisor: str
    loop: str
    policy: str
    us: float
    exits: float
    moves: float


def machine(make: MakeVcpu, policy: str, loop: str) -> Machine:
    """A machine that executes the loop. Raises EngineError where there is no such hypervisor."""
    code = bytes.fromhex(LOOPS[loop][0])
    firmware = bytes(0xFFE0) + code.ljust(16, b"\0") + FAR_JUMP.ljust(16, b"\0")
    config = MachineConfig(memory=MEMORY, firmware=firmware, shadow=False)
    config.native = NativeConfig(make, policy_named(policy, Costs()), Costs())
    return build_machine(config)


def rounds(transitions: Transitions, count: int, each: int) -> int:
    """Run for `count` rounds of `each` instructions; how many they were. A vCPU that does not count its instructions
    says by its exits how many rounds there were, and is stopped by what tells its time, once an exit."""
    end = transitions.retired + count * each
    if transitions.vcpu.counts:
        while (left := end - transitions.retired) > 0:
            transitions.run(left)
        return count
    exits, left = transitions.ledger.exits, count
    before = exits.total()

    def told(ns: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            transitions.request_stop()

    transitions.spent = told
    while left > 0:  # it is told at the ends of stretches that are no exits too, but seldom
        transitions.run(FAR)
    return exits.total() - before


def measure(name: str, make: MakeVcpu, policy: str, loop: str) -> Row:
    """One row."""
    built = machine(make, policy, loop)
    try:
        transitions = built.transitions
        assert transitions is not None
        ledger, each = transitions.ledger, LOOPS[loop][1]
        rounds(transitions, WARM, each)
        best = Row(name, loop, policy, float("inf"), 0, 0)
        for _ in range(TIMES):
            ledger.clear()
            begun = time.thread_time_ns()
            done = rounds(transitions, ROUNDS, each)
            spent = (time.thread_time_ns() - begun) / 1000
            exits, moves = sum(ledger.exits.values()), ledger.hops_in + ledger.hops_out
            best = min(best, Row(name, loop, policy, spent / done, exits / done, moves / done), key=_us)
        return best
    finally:
        built.close()


def _us(row: Row) -> float:
    return row.us


def hypervisors() -> dict[str, Callable[[], MakeVcpu]]:
    """What makes the maker of each one's vCPU."""
    return {"model": make_model, "kvm": make_kvm}


def main() -> int:
    """Returns an exit status."""
    print(f"{'':<8}{'a round has':<14}{'policy':<10}{'us':>8}{'exits':>8}{'moves':>8}")
    for name, maker in hypervisors().items():
        try:
            make = maker()
            for loop in LOOPS if name == "model" else ("OUT",):
                for policy in ("native", "dwell:3"):
                    row = measure(name, make, policy, loop)
                    print(f"{name:<8}{loop:<14}{policy:<10}{row.us:>8.1f}{row.exits:>8.2f}{row.moves:>8.2f}")
        except EngineError as error:
            print(f"{name} was not measured: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
