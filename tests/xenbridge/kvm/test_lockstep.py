"""KVM's CPU in lockstep with the emulator, a step at a time: the tour's last part, long mode and back to real mode."""

from __future__ import annotations

from emu.debugger import Debugger
from emu.firmware.roms import tour_rom
from emu.ledger import Costs
from emu.lockstep import LockstepMachine
from emu.machine import MachineConfig, build_machine
from emu.policies import policy_named
from emu.seconds import second_named
from emu.stops import StopKind
from emu.transitions import NativeConfig
from xenbridge.kvm.backend import Backend
from xenbridge.kvm.probe import make_kvm

#: Instructions of the tour that are emulated before.
BEGIN = 85_000


def test_the_end_of_the_tour_finds_no_difference(backend: Backend) -> None:
    config = MachineConfig(machine="pc", firmware=tour_rom(), shadow=False)
    alone = build_machine(config)
    alone.run(BEGIN)
    state = alone.save()
    costs = Costs()
    config.native = NativeConfig(make_kvm(lambda text: None), policy_named("native", costs), costs)
    compared = LockstepMachine(config, second_named(config), 2000)
    compared.restore(state)
    debugger = Debugger(compared)
    debugger.begin_continue()
    stop = debugger.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    assert compared.compared == stop.retired - BEGIN
    alone.close()
    compared.close()
