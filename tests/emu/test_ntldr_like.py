"""The NTLDR-like loader prints and draws the same here, under QEMU and under Bochs, whoever executes.

Its sums of what it read from the disk are computed here from the image; that of what it drew has QEMU and Bochs, and
QEMU's picture, as oracles.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

import oracles
from emu.debugger import Debugger
from emu.firmware.roms import builtin_bios
from emu.ledger import Costs
from emu.lockstep import LockstepMachine
from emu.machine import Machine, MachineConfig, MachineStop, build_machine
from emu.media import Disk
from emu.policies import policy_named
from emu.seconds import second_named
from emu.stops import StopKind
from emu.transitions import NativeConfig
from emu.x86.msrs import TSC_ADJUST
from emu.x86.state import CR0_PE, RFLAGS_VM
from emu.x86.statediff import differences
from emu.x86.vmentry import VTX2006
from machines import seabios, seabios_pc
from memories import ram_differences
from screendump import qemu_picture
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.backend import Kind
from xenbridge.kvm.probe import make_kvm, probe
from xenbridge.model import make_model

#: Geometry that all BIOSes agree on.
SIZE = 20 * 16 * 63 * 512
DONE = 0x21
SLOWER = 20  #: than the host's is the guest's clock in native instructions
POLICIES = (*(pytest.param(policy, marks=pytest.mark.slow) for policy in ("emulated", "native", "learn")), "dwell:50")


@functools.cache
def disk(**symbols: int) -> bytes:
    return oracles.assemble_image("ntldr_like", **symbols).ljust(SIZE, b"\0")


def loader_sum(data: bytes) -> int:
    """As the loader sums: 32 bits rotated left by 5, then the byte added."""
    total = 0
    for byte in data:
        total = ((total << 5 | total >> 27) + byte) & 0xFFFFFFFF
    return total


def read_from_disk() -> list[str]:
    """The lines that name sums of sectors."""
    image, sector = disk(), 512
    parts = {
        "module": image[sector : sector + 0x100],
        "stage": image[9 * sector : 17 * sector],
        "data": image[17 * sector : 81 * sector],
    }
    return [f"ntldr: {name} {loader_sum(part):08X}" for name, part in parts.items()]


def expected_serial() -> str:
    return oracles.qemu(disk=disk()).serial


def config(machine: str = "isapc", firmware: str = "builtin", image: bytes | None = None) -> MachineConfig:
    made = MachineConfig(machine=machine, memory=16 << 20, disks=(Disk.from_bytes(image or disk()),))
    if firmware == "builtin":
        made.firmware, made.bios = builtin_bios(), True
    else:
        made.firmware, vga = seabios()
        made.fw_cfg = {"vgaroms/vgabios.bin": vga}
    return made


def native(policy: str) -> MachineConfig:
    made = config("pc")
    costs = Costs()
    made.native = NativeConfig(make_model(VTX2006), policy_named(policy, costs), costs)
    return made


def finish(machine: Machine) -> Machine:
    debugger = Debugger(machine)
    debugger.set_limit(50_000_000)
    debugger.begin_continue()
    stop = debugger.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, DONE), stop.text
    return machine


def test_the_sums_are_those_of_the_disks_sectors() -> None:
    lines = expected_serial().splitlines()
    assert [line for line in lines if line.split()[1] in ("module", "stage", "data")] == read_from_disk()
    assert lines[-1] == "ntldr: done"


def test_bochs_prints_what_qemu_prints() -> None:
    assert oracles.bochs(disk=disk()).debugcon == oracles.qemu(disk=disk()).debugcon


@pytest.mark.parametrize("firmware", ["builtin", "seabios"])
def test_it_prints_here_what_it_prints_under_qemu(firmware: str) -> None:
    machine = finish(build_machine(config(firmware=firmware)))
    assert machine.serial_text() == expected_serial()
    if firmware == "builtin":  # SeaBIOS writes to this console too
        assert machine.debugcon_text() == oracles.qemu(disk=disk()).debugcon
    # the progress bar's mode cleared the lines before
    assert machine.screen().text.split("\n")[:4] == expected_serial().splitlines()[3:]
    machine.close()


def test_it_runs_on_pc_by_seabios() -> None:
    machine = finish(seabios_pc(b"", disks=(Disk.from_bytes(disk()),)))
    assert machine.serial_text() == expected_serial()


def test_the_progress_bar_is_qemus_to_the_pixel() -> None:
    image = disk(PICTURE=1)
    machine = build_machine(config(firmware="seabios", image=image))
    debugger = Debugger(machine)
    debugger.set_limit(50_000_000)
    debugger.begin_continue()
    assert debugger.run().kind is StopKind.DEADLOCK
    picture = machine.picture()
    assert (picture.width, picture.height, picture.pixels) == qemu_picture(disk=image)


def test_its_16_bit_segments_are_not_where_their_selectors_say() -> None:
    """What the image is for: states that a debugger of selectors would get wrong are really visited."""
    machine = build_machine(config())
    seen: set[str] = set()
    while machine.run(machine.executor.retired + 61).reason is MachineStop.LIMIT:
        cpu = machine.executor.state()
        if cpu.cr0 & CR0_PE and not cpu.rflags & RFLAGS_VM and not cpu.cs.big:
            segments = ((name, cpu.segment(name)) for name in ("cs", "ds", "ss"))
            seen |= {name for name, segment in segments if segment.base not in (0, segment.selector << 4)}
        if cpu.rflags & RFLAGS_VM:
            seen.add("virtual 8086")
    assert seen == {"cs", "ds", "ss", "virtual 8086"}
    machine.close()


@pytest.fixture(scope="module")
def alone() -> Iterator[Machine]:
    """The image's run to its end without a hypervisor."""
    machine = finish(build_machine(config("pc")))
    yield machine
    machine.close()


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_it_is_the_same_to_the_byte_whoever_executes(policy: str, alone: Machine) -> None:
    hopping = finish(build_machine(native(policy)))
    assert hopping.fingerprint() == alone.fingerprint()
    assert hopping.serial_text() == alone.serial_text() == expected_serial()
    assert hopping.picture().pixels == alone.picture().pixels
    assert hopping.transitions is not None
    went = {transition.native for transition in hopping.transitions.history}
    if policy != "learn":  # which may find that it never pays
        assert went == (set() if policy == "emulated" else {False, True})
    hopping.close()


@pytest.mark.slow_variants
@pytest.mark.parametrize("policy", ["native", "dwell:50"])
def test_under_kvm_memory_differs_in_the_accessed_bit_of_code_descriptors_alone(policy: str, alone: Machine) -> None:
    """See `ram_differences`. The guest sees a part of the time that native instructions take, so that it is over before
    the first tick, which would be a difference."""
    try:
        found = probe()
    except KvmError as error:
        pytest.skip(str(error))
    if not found.runs >= {Kind.REAL, Kind.BIG_REAL}:
        pytest.skip(f"{found.name} does not run real mode, in which this loader comes to everything else")
    made, costs = config("pc"), Costs()
    made.native = NativeConfig(make_kvm(), policy_named(policy, costs), costs)
    hopping = build_machine(made)
    assert hopping.transitions is not None
    hopping.native_limit = 120_000_000_000
    spent = hopping.transitions.spent
    hopping.transitions.spent = lambda ns: spent(ns // SLOWER)
    finish(hopping)
    assert hopping.transitions.ledger.hops_in > 1
    assert hopping.serial_text() == alone.serial_text() == expected_serial()
    assert hopping.screen() == alone.screen() and hopping.picture().pixels == alone.picture().pixels
    assert ram_differences(alone, hopping) == []
    one, two = alone.executor.state(), hopping.executor.state()
    assert {name for name, _, _ in differences(one, two)} <= {f"msr {TSC_ADJUST:#x}"}, "time alone"
    hopping.close()


@pytest.mark.slow
def test_the_models_cpu_in_lockstep_finds_no_difference() -> None:
    made = native("native")
    machine = LockstepMachine(made, second_named(made))
    finish(machine)
    assert machine.divergence is None
    assert machine.compared == machine.executor.retired
    machine.close()
