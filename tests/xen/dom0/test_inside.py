"""A machine whose CPU is now a domain's and now the emulator's, with Xen's interrupt controllers and timers."""

from __future__ import annotations

import threading
import time

import pytest

from emu.debugger import Debugger
from emu.firmware.roms import tour_rom
from emu.ledger import Costs
from emu.machine import MachineConfig, build_machine
from emu.policies import policy_named
from emu.stops import StopKind
from emu.transitions import NativeConfig
from emu.x86.state import CR4_OSXSAVE, CpuState, Segment
from machines import run_until, sector
from xenbridge.signals import Signals
from xenbridge.xen.files import open_file
from xenbridge.xen.guest import BOOT
from xenbridge.xen.inside import Joined
from xenbridge.xen.stream_files import load_file, save_file

MIB = 1 << 20
TOLD = "abcdefghij."
#: xor ax, ax; mov ds, ax; xor ecx, ecx; xgetbv; mov [600h], eax; out F4h, al; jmp to the XOR ECX
XGETBV = bytes.fromhex("31c0 8ed8 6631c9 0f01d0 66a30006 e6f4 ebf2")
COUNT, LATE, GO, LOG, TICK = 0x500, 0x510, 0x514, 0x520, 8  #: of kept.asm and kept_low.asm
ICW4 = 0x7DFD  #: of kept_low.asm
MOST = 100_000_000


class Joint:
    """A machine about to execute a sector, its devices' events led to it."""

    def __init__(self, name: str, policy: str) -> None:
        self.notices: list[str] = []
        joined = Joined(self.notices.append)
        native = NativeConfig(joined, policy_named(policy, Costs()), Costs(), time.monotonic_ns)
        config = MachineConfig(memory=MIB, firmware=tour_rom(), shadow=False, native=native, keeper=joined.keeper)
        self.machine = build_machine(config)
        self.debugger = Debugger(self.machine)
        self._awake = threading.Event()
        self.machine.idle = self._idle
        self.machine.keeper.wake = self._awake.set
        self.signals = Signals()
        self.signals.add(self.machine.keeper.descriptor, self.machine.keeper.ring, self.machine.keeper.flags)
        self.machine.memory.write(BOOT, sector(name))
        state = CpuState(rip=BOOT, rflags=2, cr0=0x10)
        state.cs = Segment(0, 0, 0xFFFF, 0x9B)
        self.debugger.load_cpu(state)

    def _idle(self, left: int | None) -> bool:
        self._awake.wait(None if left is None else left / 1e9)
        self._awake.clear()
        return True

    def run(self):
        self.debugger.begin_continue()
        return self.debugger.run()

    def word(self, address: int, size: int = 4) -> int:
        return int.from_bytes(self.machine.memory.read(address, size), "little")

    def close(self) -> None:
        self.signals.remove(self.machine.keeper.descriptor)
        self.signals.close()
        self.machine.close()


@pytest.fixture
def joint():
    made = []

    def build(name: str, policy: str) -> Joint:
        made.append(Joint(name, policy))
        return made[-1]

    yield build
    for one in made:
        one.close()


@pytest.mark.parametrize("policy", ["native", "dwell:8", "emulated"])
def test_a_boot_sector_counts_xens_ticks_up_to_its_end_wherever_its_cpu_is(joint, policy) -> None:
    """By the local APIC's timer, then by the 8254; what it reads of devices is the same."""
    found = joint("g_inside", policy)
    begun = time.monotonic()
    stop = found.run()
    assert (stop.kind, stop.exit_code, found.notices) == (StopKind.EXIT, 3, []), stop.text
    assert found.machine.serial_text() == TOLD
    assert time.monotonic() - begun > 0.3 * 0.9, "ten ticks of 30 ms"
    assert found.word(0x600) == 0x20
    assert found.word(0x604, 1) == 0x58  # what it has written before
    assert found.word(0x608, 1) == found.machine.board.rtc.save().ram[0x10]
    assert found.word(0x60C, 1) == 0x26  # 32768 Hz, 1024 Hz: as the clock is at power-on
    ledger, bridge = found.machine.transitions.ledger, found.machine.keeper.bridge
    pio = {cause.value: count for cause, count in ledger.exits.items()}.get("pio", 0)
    if policy == "emulated":
        assert (ledger.native, ledger.hops_in, pio) == (0, 0, 0)
        assert ledger.requests >= 30
        assert bridge.events >= 10
        assert found.signals.count >= 10
    elif policy == "native":
        assert ledger.requests == 0, "its accesses to Xen's devices are nobody's business"
        assert bridge.events == 0
        assert pio >= 12
    else:
        assert min(ledger.hops_in, ledger.hops_out) >= 10, (ledger.hops_in, ledger.hops_out)
        assert ledger.requests >= 8, "the end of each interrupt"


@pytest.mark.parametrize("policy", ["emulated", "native"])
def test_a_stream_has_what_xen_has_and_the_tick_that_is_kept_goes_on_in_the_emulator(joint, policy, tmp_path) -> None:
    """Wherever the CPU is when it is saved, the tick is a request in the stream; the clock's registers are Xen's."""
    found, path = joint("kept", policy), tmp_path / "kept.save"
    machine, keeper = found.machine, found.machine.keeper
    run_until(found.debugger, lambda: found.word(LATE) and (policy == "native" or keeper.pending_vector() == TICK))
    save_file(machine, path)
    file = open_file(path)
    fields = {field.name: field.value for view in file.devices() if view.name == "pic" for field in view.fields}
    assert (fields["master ISR"], fields["master IRR"]) == (0, 1)
    rtc = next(record for record in file.records if record.name == "RTC").values()
    assert rtc["cmos_data"][0xB] == 2
    there = emulated(path)
    there.memory.write(GO, b"\1")
    assert there.run(there.executor.retired + MOST).code == 7
    machine.memory.write(GO, b"\1")
    assert found.run().exit_code == 7
    assert found.word(COUNT) >= 15  # what was missed meanwhile comes one behind the other


@pytest.mark.parametrize("icw4", [1, 3], ids=["in service", "automatic EOI"])
def test_xens_clock_comes_before_a_lower_vector_that_waits_though_nobody_tells_of_it(joint, icw4) -> None:
    """IRQ 8 beside IRQ 12, which is acknowledged while the guest's interrupts are off: the cascade's service holds
    IRQ 8 back, and with automatic EOI the vCPU does not listen."""
    found = joint("kept_low", "emulated")
    machine, keeper = found.machine, found.machine.keeper
    machine.memory.write(ICW4, bytes((icw4,)))
    run_until(found.debugger, lambda: found.word(LATE, 2) == 1)
    keeper.bridge.set_line(12, True)
    run_until(found.debugger, lambda: keeper.pending_vector() == 0x74)
    machine.memory.write(GO, b"\1")
    run_until(found.debugger, lambda: found.word(LATE, 2) == 2 and keeper.pending_vector() == 0x70)
    assert found.word(LOG, 1) == 0, "the guest's interrupts have been off all the time"
    machine.memory.write(GO, b"\2")
    assert found.run().exit_code == 7
    assert machine.memory.read(LOG, 3) == bytes((2, 0x70, 0x74))


def emulated(path):
    machine = build_machine(MachineConfig(memory=MIB, firmware=tour_rom(), shadow=False))
    load_file(machine, path)
    return machine


@pytest.mark.parametrize("policy", ["native", "emulated"])
def test_xcr0_is_the_guests_wherever_its_cpu_is(joint, policy) -> None:
    """As it is loaded: QEMU's CPU does not let Xen have a guest's XSETBV."""
    found = joint("keys", policy)
    found.machine.memory.write(BOOT, XGETBV)
    for value in (3, 1):
        state = found.debugger.cpu()
        state.cr4, state.xcr0 = state.cr4 | CR4_OSXSAVE, value
        found.debugger.load_cpu(state)
        assert found.run().kind is StopKind.EXIT
        assert (found.word(0x600), found.debugger.cpu().xcr0) == (value, value)


def test_the_map_says_whose_devices_are(joint) -> None:
    machine = joint("g_inside", "emulated").machine
    owners = {(r.kind, r.first): r.owner for r in (*machine.memory_map(), *machine.port_map())}
    for port in (0x20, 0x40, 0x61, 0x70, 0xA0):
        assert owners["port", port] == "hypervisor"
    assert (owners["mmio", 0xFEE00000], owners["mmio", 0xFEC00000]) == ("hypervisor", "hypervisor")
    assert owners["port", 0x3F8] == "userspace"


def test_what_the_8254_has_counted_is_unknown_as_no_record_of_xens_tells(joint) -> None:
    found = joint("g_inside", "emulated")
    assert found.run().exit_code == 3
    for name in ("pit", "port61"):
        assert found.debugger.device(name).fields
    pit = {field.name: field for field in found.debugger.device("pit").fields}
    assert (pit["counter 0 CE"].value, pit["counter 0 CE"].text) == ("unknown", "not in the record")
    assert pit["counter 0 pins"].value == "GATE=1 OUT unknown"
    assert pit["counter 0 CR"].value == 0xFFFF & found.machine.board.pit.save().counters[0].initial_count


def test_a_machine_is_reset_with_xens_devices(joint) -> None:
    found = joint("g_inside", "native")
    assert found.run().exit_code == 3
    assert found.machine.board.pic.save().master.imr == 0xFF
    found.debugger.reset()
    assert found.machine.board.pic.save().master.imr == 0
    assert found.debugger.cpu().rip == 0xFFF0


def test_a_domain_that_is_destroyed_ends_the_run_in_a_sentence(joint) -> None:
    found = joint("clock", "native")
    domain = found.machine.keeper.domain
    timer = threading.Timer(0.5, domain.destroy)
    timer.start()
    stop = found.run()
    timer.join()
    assert stop.kind is StopKind.FAILURE
    assert f"domain {domain.domid} has been destroyed" in stop.text
