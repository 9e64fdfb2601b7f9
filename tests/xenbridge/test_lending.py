"""A vCPU whose hypervisor keeps the interrupt controllers hears when the emulator has the guest (emu.vcpu.Lending)."""

from __future__ import annotations

from emu.ledger import Costs
from emu.machine import MachineConfig, MachineStop, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig
from emu.vcpu import Lending, Place
from emu.x86.vmentry import RULES
from xenbridge.model import ModelVcpu

#: Eight times OUT 80h and five instructions more; then the debug exit.
GUEST = bytes.fromhex("b90800 e680 90 90 90 90 49 75f7 30c0 e6f4 f4")


class LentVcpu(ModelVcpu):
    """Keeps who was active, and whether the state had been taken, at each call."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, RULES["svm"])
        self.calls: list[int] = []

    def lend(self) -> None:
        """See Lending."""
        self.calls.append(self.retired)


def test_each_move_to_the_emulator_is_told_and_no_other() -> None:
    firmware = GUEST.ljust(0xFFF0, b"\xf4") + b"\xea\x00\x00\x00\xf0".ljust(16, b"\xf4")
    native = NativeConfig(LentVcpu, policy_named("dwell:2", Costs()), Costs())
    machine = build_machine(MachineConfig(firmware=firmware, shadow=False, memory=1 << 20, native=native))
    assert machine.transitions is not None
    vcpu, ledger = machine.transitions.vcpu, machine.transitions.ledger
    assert isinstance(vcpu, LentVcpu) and isinstance(vcpu, Lending)
    assert machine.run(1000).reason is MachineStop.EXIT
    assert len(vcpu.calls) == ledger.hops_out >= 8
    assert vcpu.calls == sorted(vcpu.calls)
    machine.close()
