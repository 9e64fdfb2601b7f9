"""A machine of v2e's own whose native CPU is a domain's: the guest runs on Xen, devices and emulator are ours."""

import contextlib
import subprocess
import sys
import threading
import time

import pytest

from emu.debugger import Debugger
from emu.firmware.roms import tour_rom
from emu.firmware.tour import stops
from emu.ledger import Costs
from emu.machine import MachineConfig, build_machine
from emu.policies import policy_named
from emu.stops import BreakKind, StopKind
from emu.transitions import NativeConfig
from emu.until import parse_until
from emu.x86.state import CR4_OSXSAVE, CpuState, Segment
from machines import differences, run_until, sector
from xenbridge.xen.guest import BOOT
from xenbridge.xen.native_cpu import make_xen

MIB = 1 << 20


@pytest.fixture
def built():
    """Makes a debugger of a machine on Xen; `notices` are kept."""
    machines = []

    def build(policy: str = "native", **more):
        notices = []
        native = NativeConfig(make_xen(notices.append), policy_named(policy, Costs()), Costs())
        machine = build_machine(MachineConfig(memory=MIB, native=native, **more))
        machines.append(machine)
        return Debugger(machine), notices

    yield build
    for machine in machines:
        machine.close()


def booted(build, name: str, policy: str = "native", code: bytes = b""):
    """About to execute a sector, as a BIOS leaves it."""
    debugger, notices = build(policy, firmware=tour_rom(), shadow=False)
    debugger.machine.memory.write(BOOT, code or sector(name))
    state = CpuState(rip=BOOT, rflags=2, cr0=0x10)
    state.cs = Segment(0, 0, 0xFFFF, 0x9B)
    debugger.load_cpu(state)
    return debugger, notices


def run(debugger):
    debugger.begin_continue()
    return debugger.run()


@contextlib.contextmanager
def destroyed_amid(domain):
    """It is destroyed meanwhile, by another thread, a moment after its vCPU was entered first."""
    entered, resume = threading.Event(), domain.resume

    def resumed() -> None:
        resume()
        entered.set()

    def destroy() -> None:
        if entered.wait(60):
            time.sleep(0.2)
            domain.destroy()

    domain.resume = resumed
    thread = threading.Thread(target=destroy)
    thread.start()
    yield
    thread.join()


def test_a_boot_sector_counts_the_machines_ticks_natively_up_to_its_end(built) -> None:
    debugger, notices = booted(built, "g_rounds")
    stop = run(debugger)
    machine = debugger.machine
    assert (stop.kind, stop.exit_code, notices) == (StopKind.EXIT, 3, [])
    assert machine.serial_text() == "abcdefghijklmnopqrst."
    ledger = machine.transitions.ledger
    exits = {cause.value: count for cause, count in ledger.exits.items()}
    assert exits["hlt"] >= 1, exits  # a tick that is due before the handler of the last one has ended comes without HLT
    assert exits["pio"] >= 40, exits
    assert machine.native_ns > 0


def test_the_tours_real_mode_part_is_executed_by_the_domain(built) -> None:
    debugger, notices = built(firmware=tour_rom(), shadow=False)
    debugger.set_until(parse_until("serial:tick 1"))
    assert run(debugger).kind is StopKind.EVENT
    machine = debugger.machine
    assert machine.serial_text().startswith(stops()[0].line)
    assert (machine.transitions.ledger.emulated < 2000, notices) == (True, [])
    assert machine.transitions.ledger.hops_in >= 1


def test_round_trips_from_xen_to_the_emulator_and_back_change_nothing_of_the_guest(built) -> None:
    """Behind each access the next two instructions are the emulator's; then all of them, to compare with."""
    ends = []
    for policy in ("dwell:2", "emulated"):
        debugger, notices = booted(built, "g_rounds", policy)
        stop = run(debugger)
        machine = debugger.machine
        assert (stop.kind, stop.exit_code, notices) == (StopKind.EXIT, 3, [])
        assert machine.serial_text() == "abcdefghijklmnopqrst."
        ends.append((debugger.cpu().copy(), machine.memory.read(0x600, 2), machine.transitions.ledger))
        ends[-1][0].msrs.clear()
    (hopped, ticks, ledger), (emulated, expected, _) = ends
    assert min(ledger.hops_in, ledger.hops_out) >= 20, (ledger.hops_in, ledger.hops_out)
    assert (ticks, differences(hopped, emulated)) == (expected, {})


@pytest.mark.parametrize("policy", ["native", "dwell:2"])
def test_what_the_vcpu_had_no_time_to_take_is_taken_later(built, policy) -> None:
    """Twenty reads of the display's memory, FFh each; a busy host lets the vCPU run at every third attempt only."""
    code = bytes.fromhex("31c0 31d2 b800b8 8ee8 b91400 31db 658a1e0000 01da e2f5 faf4")
    debugger, _ = booted(built, "", policy, code)
    vcpu = debugger.machine.transitions.vcpu
    resume, attempts = vcpu.domain.resume, []

    def seldom() -> None:
        attempts.append(vcpu._server.busy)
        if len(attempts) % 3 == 0:
            resume()

    vcpu.domain.resume = seldom
    assert run(debugger).kind is StopKind.DEADLOCK
    assert (debugger.cpu().regs[2], debugger.cpu().regs[1]) == (20 * 0xFF, 0)
    assert attempts.count(True) >= 40


def test_registers_and_memory_are_the_same_on_both_sides(built) -> None:
    """Loop: inc dword [600h], 1000 times; mov bx, 1234h; fld1; mov dr0, ebx; cli; hlt. Natively, then looked at by the
    emulator's debugger: the vCPU is down, and its guest context is what there is."""
    code = bytes.fromhex("31c0 8ed8 b9e803 66ff060006 e2f9 bb3412 d9e8 0f23c3 faf4")
    debugger, _ = booted(built, "", code=code)
    machine = debugger.machine
    assert not machine.transitions.native
    machine.memory.write(0x600, (5).to_bytes(4, "little"))
    stop = run(debugger)
    assert stop.kind is StopKind.DEADLOCK
    assert int.from_bytes(machine.memory.read(0x600, 4), "little") == 1005
    cpu = debugger.cpu()
    assert (cpu.regs[3], cpu.rip, cpu.dr[0]) == (0x1234, BOOT + len(code), 0x1234)
    assert (cpu.fpu.fsw >> 11 & 7, cpu.fpu.st[0]) == (7, 0x3FFF_8000_0000_0000_0000)


def test_a_domain_that_is_destroyed_ends_the_run_in_a_sentence_and_the_machine_can_be_reset(built) -> None:
    """Its registers are gone with it; the memory is the machine's still."""
    debugger, notices = booted(built, "", code=bytes.fromhex("ebfe"))
    domain = debugger.machine.transitions.vcpu.domain
    with destroyed_amid(domain):
        stop = run(debugger)
    gone = f"Xen's domain is gone: domain {domain.domid} has been destroyed"
    assert stop.kind is StopKind.FAILURE
    assert stop.text.startswith(gone)
    assert notices == [gone]
    debugger.reset()
    assert debugger.machine.memory.read(BOOT, 2) == bytes(2)
    debugger.begin_step(10)
    assert debugger.run().kind is StopKind.STEP


@pytest.mark.timeout(60)
def test_a_domain_whose_end_a_look_at_its_registers_finds_ends_the_run_too(built) -> None:
    """Between a stretch and the next, where nothing asks Xen but who wants to know where the CPU is."""
    debugger, notices = booted(built, "", code=bytes.fromhex("ebfe"))
    domain = debugger.machine.transitions.vcpu.domain
    looked, states = [], domain.states

    def last_look():
        looked.append(states())
        if len(looked) == 3:
            domain.destroy()
        return looked[-1]

    domain.states = last_look
    gone = f"Xen's domain is gone: domain {domain.domid} has been destroyed"
    for _ in range(2):  # asked again, it has not forgotten
        stop = run(debugger)
        assert (stop.kind, stop.text.startswith(gone), notices) == (StopKind.FAILURE, True, [gone])


def test_a_domain_destroyed_while_the_cpu_is_emulated_costs_the_guest_nothing(built) -> None:
    debugger, notices = booted(built, "", code=bytes.fromhex("43ebfd"))  # INC BX, and so on
    domain = debugger.machine.transitions.vcpu.domain
    run_until(debugger, lambda: debugger.machine.transitions.native and debugger.cpu().regs[3])
    debugger.steering.force(False)
    before = debugger.cpu()
    domain.destroy()
    debugger.steering.force(None)
    debugger.begin_step(10)
    assert debugger.run().kind is StopKind.STEP
    after = debugger.cpu()
    assert (after.regs[3], after.rip) == (before.regs[3] + 5 & 0xFFFF, before.rip)
    assert notices == [
        f"Xen's domain is gone: domain {domain.domid} has been destroyed; the guest goes on in the emulator"
    ]


def test_an_nmi_that_comes_natively_is_delivered_by_the_emulator(built) -> None:
    """Xen's CPU record does not know of one that waits."""
    debugger, _ = booted(built, "", code=bytes.fromhex("ebfe"))
    memory = debugger.machine.memory
    memory.write(8, bytes.fromhex("00060000"))
    memory.write(0x600, bytes.fromhex("43ebfd"))  # INC BX, and so on
    run_until(debugger, lambda: debugger.machine.transitions.native)
    debugger.machine.executor.raise_nmi()
    run_until(debugger, lambda: debugger.cpu().regs[3])


def test_breakpoints_are_kept_by_the_emulator_and_said_to_be_the_obstacle(built) -> None:
    debugger, _ = booted(built, "g_rounds")
    tick = BOOT + sector("g_rounds").index(b"\x50\x52\xff\x06")
    debugger.add_breakpoint(BreakKind.EXECUTE, tick)
    stop = run(debugger)
    assert (stop.kind, stop.linear_pc) == (StopKind.BREAKPOINT, tick)
    assert debugger.steering.view().obstacle == "breakpoints are set, at which Xen does not stop a domain"
    assert debugger.machine.transitions.ledger.native == 0


@pytest.mark.timeout(300)
def test_the_command_line_boots_an_image_on_xen_to_its_last_tick(tmp_path) -> None:
    """With Xen's interrupt controllers and timers, which is all that v2e has on Xen."""
    image = tmp_path / "ticks.img"
    image.write_bytes(sector("g_inside") + bytes(1440 * 1024 - 512))
    command = [
        sys.executable, "-m", "repl.cli", "run", "--hypervisor", "xen", "--machine", "isapc", "--memory", "1M",
        "--devices-in", "hypervisor", "--clock", "host", "--floppy", str(image), "--serial", "stdio", "--headless",
        "--policy", "dwell:1000",
    ]  # fmt: skip
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280, check=False)
    assert (said.stdout, said.stderr, said.returncode) == ("abcdefghij.", "", 3 << 1 | 1)


#: xor ax, ax; mov ds, ax; xor ecx, ecx; xgetbv; mov [600h], eax; out F4h, al; jmp to the XOR ECX
XGETBV = bytes.fromhex("31c0 8ed8 6631c9 0f01d0 66a30006 e6f4 ebf2")


def test_xcr0_goes_along_to_xen_and_back(built) -> None:
    """As it is loaded: QEMU's CPU does not let Xen have a guest's XSETBV."""
    debugger, _ = booted(built, "", code=XGETBV)
    for value in (3, 1, 3):
        state = debugger.cpu()
        state.cr4, state.xcr0 = state.cr4 | CR4_OSXSAVE, value
        debugger.load_cpu(state)
        assert run(debugger).kind is StopKind.EXIT
        assert int.from_bytes(debugger.machine.memory.read(0x600, 4), "little") == value
        assert debugger.cpu().xcr0 == value
    assert debugger.machine.transitions.ledger.exits
