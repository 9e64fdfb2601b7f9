"""Two CPUs in lockstep: equal emulators never part, a CPU that does one instruction wrongly is found at it.

The CPU that is wrong is that of tests/wrong_cpu.py. The address is the independent oracle: nothing tells it to the
comparison.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asm import assemble
from emu.debugger import Debugger
from emu.engine import Exit, ExitReason
from emu.firmware.roms import tour_rom
from emu.ledger import Costs
from emu.lockstep import LockstepMachine
from emu.machine import MachineConfig, build_machine
from emu.policies import policy_named
from emu.replica import MakeExecutor, Replica
from emu.seconds import EMULATORS, Second, second_named
from emu.stops import Stop, StopKind
from emu.transitions import NativeConfig, Transitions
from emu.unicorn_engine import HELPER, UnicornEngine
from emu.vcpu import Place
from emu.x86.state import CpuState
from emu.x86.vmentry import VTX2006
from kernels import payload, state_at
from machines import READING, rom, seabios
from wrong_cpu import wrong
from xenbridge.model import ModelVcpu, make_model

AF, CF = 1 << 4, 1 << 0
#: Instructions that no guest here comes to.
ALL = 50_000_000


def finish(machine: LockstepMachine, limit: int = ALL) -> Stop:
    debugger = Debugger(machine)
    debugger.set_limit(limit)
    debugger.begin_continue()
    return debugger.run()


LOOP = """
    mov cx, 300
    mov di, 0x2000
    mov es, ax
again:
    mov al, cl
    and al, 0x3c
    stosb
    add dl, al
    loop again
    mov al, 3
    out 0xf4, al
"""


def offset(text: str, code: bytes) -> int:
    """Where in the ROM of LOOP the bytes of an instruction are, as a linear address."""
    at = rom(LOOP).find(code)
    assert at >= 0, text
    return 0xF0000 + at


def on_loop(second: Second, block: int = 500) -> LockstepMachine:
    return LockstepMachine(MachineConfig(memory=1 << 20, firmware=rom(LOOP), shadow=False), second, block)


@pytest.mark.slow
@pytest.mark.parametrize("second", ["emulator", "hooked"])
@pytest.mark.parametrize("machine", ["pc", "isapc"])
def test_the_tour_on_two_emulators_in_other_settings_never_parts(machine: str, second: str) -> None:
    config = MachineConfig(machine=machine, firmware=tour_rom(), shadow=False)
    plain = build_machine(config)
    compared = LockstepMachine(config, EMULATORS[second], 20_000)
    stop = finish(compared)
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    assert compared.compared == stop.retired
    assert not compared.masked
    run = Debugger(plain)
    run.begin_continue()
    run.run()
    assert compared.fingerprint() == plain.fingerprint()


@pytest.mark.skipif(isinstance(HELPER, str), reason="both would be the portable loop")
@pytest.mark.parametrize("length", [20_000, pytest.param(ALL, marks=pytest.mark.slow)])
def test_the_portable_loop_does_what_the_fast_one_does(length: int) -> None:
    """In one process, with the helper's functions in place of Unicorn's. By 20,000 instructions the tour has been in
    real mode and in 16-bit and 32-bit protected mode."""
    config = MachineConfig(machine="pc", firmware=tour_rom(), shadow=False, memory=16 << 20)
    compared = LockstepMachine(config, EMULATORS["portable"], 40_000)
    stop = finish(compared, length)
    if length == ALL:
        assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    else:
        assert (stop.kind, compared.compared) == (StopKind.LIMIT, length), stop.text


@pytest.mark.slow
def test_the_bios_and_a_boot_sector_with_dma_and_interrupts_never_part() -> None:
    from emu.media import Disk

    bios, vga = seabios()
    disk = Disk.from_bytes(assemble(READING).ljust(1 << 20, b"\0"))
    config = MachineConfig(memory=16 << 20, firmware=bios, fw_cfg={"vgaroms/vgabios.bin": vga}, disks=(disk,))
    compared = LockstepMachine(config, EMULATORS["emulator"])
    stop = finish(compared)
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0x55), stop.text


def test_a_wrong_register_is_found_at_its_instruction() -> None:
    address = offset("add dl, al", b"\x00\xc2")

    def break_it(replica: Replica, state: CpuState) -> None:
        if state.regs[1] & 0xFFFF == 57:
            state.regs[2] ^= 0x10

    machine = on_loop(wrong(address, break_it))
    stop = finish(machine)
    found = machine.divergence
    assert stop.kind is StopKind.FAILURE
    assert found is not None and found.linear == address
    assert [(d.name, d.first ^ d.second) for d in found.differences] == [("rdx", 0x10)]
    assert found.instruction is not None and found.instruction.text == "add dl, al"
    # CX is 57, and the guest stands before the instruction, with its own devices and memory of that instant
    assert machine.executor.linear_pc == address
    assert machine.executor.state().regs[1] & 0xFFFF == 57
    assert machine.executor.retired == found.retired
    assert "rdx" in stop.text and f"{address:#x}" in stop.text


class WrongVcpu(ModelVcpu):
    """The reference hypervisor's CPU, with DL changed behind the instruction at linear `address` where CX is 57."""

    address = -1

    def run(self, budget: int, *, skip_breakpoint: bool = False) -> Exit:
        if self.address < 0:
            return super().run(budget, skip_breakpoint=skip_breakpoint)
        if not self._points:
            self.set_breakpoints((self.address,))
        start = self.retired
        exit = super().run(budget, skip_breakpoint=skip_breakpoint)
        if exit.reason is not ExitReason.BREAKPOINT or self.linear_pc != self.address:
            return exit
        if super().run(1, skip_breakpoint=True).executed and (state := self.state()).regs[1] & 0xFFFF == 57:
            state.regs[2] ^= 0x10
            self.load(state)
        return Exit(ExitReason.REQUEST, self.retired - start)


def test_a_wrong_instruction_of_the_hypervisors_cpu_is_found_at_its_address() -> None:
    address = offset("add dl, al", b"\x00\xc2")
    made: list[WrongVcpu] = []

    def make(place: Place) -> WrongVcpu:
        made.append(WrongVcpu(place))
        made[0].address = address
        return made[0]

    config = MachineConfig(memory=1 << 20, firmware=rom(LOOP), shadow=False)
    config.native = NativeConfig(make, policy_named("native", Costs()), Costs())
    machine = LockstepMachine(config, second_named(config), 500)
    stop = finish(machine)
    found = machine.divergence
    assert stop.kind is StopKind.FAILURE
    assert found is not None and found.linear == address
    assert [(d.name, d.first ^ d.second) for d in found.differences] == [("rdx", 0x10)]
    assert machine.executor.state().regs[1] & 0xFFFF == 57


def test_a_wrong_byte_of_memory_is_found_at_the_instruction_that_stored_it() -> None:
    address = offset("stosb", b"\xaa")

    def break_it(replica: Replica, state: CpuState) -> None:
        if state.regs[1] & 0xFFFF == 200:
            replica.memory.write(0x2000 + 100, b"\xee")

    machine = on_loop(wrong(address, break_it))
    finish(machine)
    found = machine.divergence
    assert found is not None and found.linear == address
    assert [(d.name, d.second) for d in found.differences] == [("memory 0x2064", 0xEE)]


def test_a_wrong_descriptor_cache_is_found_though_no_register_shows_it() -> None:
    address = offset("stosb", b"\xaa")

    def break_it(replica: Replica, state: CpuState) -> None:
        if state.regs[1] & 0xFFFF == 200:
            state.ds.limit = 0xFFFF_FFFF

    machine = on_loop(wrong(address, break_it))
    finish(machine)
    found = machine.divergence
    assert found is not None and found.linear == address
    assert ("ds.limit", 0xFFFF, 0xFFFF_FFFF) in [(d.name, d.first, d.second) for d in found.differences]


def test_flags_are_masked_where_they_are_undefined_and_nowhere_else() -> None:
    """AF behind AND is undefined, CF is not (SDM vol. 2A, AND)."""
    address = offset("and al, 0x3c", b"\x24\x3c")

    def flip(flag: int) -> Callable[[Replica, CpuState], None]:
        def break_it(replica: Replica, state: CpuState) -> None:
            if state.regs[1] & 0xFFFF == 290:
                state.rflags ^= flag

        return break_it

    machine = on_loop(wrong(address, flip(AF)), 100)
    stop = finish(machine)
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 3), stop.text
    assert sum(machine.masked.values()) <= 1  # an ADD behind it may have hidden the flag before it was looked at
    machine = on_loop(wrong(address, flip(CF)), 1)
    finish(machine)
    assert machine.divergence is not None and machine.divergence.linear == address


def test_an_undefined_flag_that_lasts_is_masked_and_counted() -> None:
    source = "mov bl, 5\nand bl, 4\nmov cx, 3\nmov dx, 4\nmov al, 3\nout 0xf4, al\n"
    code = rom(source)
    address = 0xF0000 + code.find(b"\x80\xe3\x04")

    def break_it(replica: Replica, state: CpuState) -> None:
        state.rflags ^= AF

    config = MachineConfig(memory=1 << 20, firmware=code, shadow=False)
    machine = LockstepMachine(config, wrong(address, break_it), 1000)
    stop = finish(machine)
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 3), stop.text
    assert machine.masked == {"and bl, 4": 1}


def test_an_access_to_a_device_that_only_one_makes_is_told() -> None:
    source = "mov al, 0x41\nout 0xe9, al\nmov al, 3\nout 0xf4, al\n"
    code = rom(source)
    address = 0xF0000 + code.find(b"\xb0\x41")

    def break_it(replica: Replica, state: CpuState) -> None:
        state.rip += 2  # past the OUT

    config = MachineConfig(memory=1 << 20, firmware=code, shadow=False)
    machine = LockstepMachine(config, wrong(address, break_it), 1000)
    finish(machine)
    found = machine.divergence
    assert found is not None and found.linear == address
    assert "rip" in [d.name for d in found.differences]
    assert machine.debugcon_text() in ("", "A")  # sent once, if at all, however often the block was run


class Mute(Replica):
    """Keeps from its tape what goes to port E9h."""

    def port_out(self, port: int, size: int, value: int) -> None:
        if port != 0xE9:
            super().port_out(port, size, value)


def test_an_access_to_a_device_that_only_the_first_makes_is_told() -> None:
    """Registers and memory are the same: nothing else shows it."""
    source = "mov al, 0x41\nout 0xe9, al\nmov cx, 300\nagain:\nloop again\nmov al, 3\nout 0xf4, al\n"
    code = rom(source)

    def mute(config: MachineConfig) -> MakeExecutor:
        def make(replica: Replica) -> UnicornEngine:
            replica.__class__ = Mute
            return UnicornEngine(replica.memory.regions, replica, replica, timestamp=replica.timestamp)

        return make

    machine = LockstepMachine(MachineConfig(memory=1 << 20, firmware=code, shadow=False), Second("mute", mute), 100)
    finish(machine)
    found = machine.divergence
    assert found is not None and found.linear == 0xF0000 + code.find(b"\xe6\xe9")
    assert "did not make the access" in found.text and "0xe9" in found.text
    assert not found.differences


def test_what_a_person_changes_is_changed_for_both() -> None:
    machine = on_loop(EMULATORS["emulator"])
    debugger = Debugger(machine)
    debugger.begin_step(20)
    debugger.run()
    debugger.write_linear(0x3000, b"changed")
    debugger.write_register("rdx", 0x77)
    debugger.begin_step(5)
    assert debugger.run().kind is StopKind.STEP
    saved = debugger.save()
    debugger.begin_continue()
    assert debugger.run().exit_code == 3
    debugger.restore(saved)
    debugger.begin_continue()
    assert debugger.run().exit_code == 3
    debugger.reset()
    debugger.begin_continue()
    assert debugger.run().exit_code == 3


#: Instructions at which the kernel has been decompressed and works with paging and interrupts.
KERNEL_WORKS = 2_480_000_000


@pytest.mark.slow
def test_ten_million_instructions_of_a_linux_boot_never_part(tmp_path_factory: pytest.TempPathFactory) -> None:
    """From there on, with each second CPU in turn, the reference hypervisor's among them."""
    state, _ = state_at(KERNEL_WORKS, tmp_path_factory)
    config = MachineConfig(memory=128 << 20, payload=payload())
    costs = Costs()
    config.native = NativeConfig(make_model(VTX2006), policy_named("native", costs), costs)
    for second in ("emulator", "hooked", None):
        machine = LockstepMachine(config, second_named(config, second))
        machine.restore(state)
        debugger = Debugger(machine)
        debugger.set_limit(state.retired + 10_000_000)
        debugger.begin_continue()
        stop = debugger.run()
        assert stop.kind is StopKind.LIMIT, stop.text
        assert (machine.compared, machine.masked) == (10_000_000, {})
        assert any(event.kind == "interrupt" for event in machine.journal)
        if second is None:
            assert isinstance(machine.replica.executor, Transitions)
            assert machine.replica.executor.ledger.native == 10_000_000
        machine.close()
