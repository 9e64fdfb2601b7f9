"""x87 exceptions with CR0.NE clear: FERR#, IRQ 13, port F0h and IGNNE#, as an AT has them.

SDM vol. 1, 8.7.2; Intel 82371SB (PIIX3) data sheet, "Coprocessor Error Function".
"""

from __future__ import annotations

import pytest

from emu.debugger import Debugger
from emu.devices.coprocessor import FLOATING, IGNORE, WAIT, CoprocessorError
from emu.ledger import Costs
from emu.lockstep import LockstepMachine
from emu.machine import Machine, MachineConfig, MachineExit, MachineStop, build_machine
from emu.policies import policy_named
from emu.seconds import EMULATORS
from emu.stops import StopKind
from emu.transitions import NativeConfig
from emu.unicorn_helper import HELPER
from emu.x86.vmentry import VTX2006
from machines import rom
from xenbridge.model import make_model

needs_helper = pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")

COUNT, ADDRESS, STATUS = 0x600, 0x604, 0x608
IRQ13 = 0x2D
MASKS = {"open": (0xFB, 0xDF), "masked": (0xFF, 0xFF)}


def outs(*pairs: tuple[int, int]) -> str:
    return "".join(f"mov al, {value:#x}\nout {port:#x}, al\n" for port, value in pairs)


#: The local APIC is off (IA32_APIC_BASE), as a PC's firmware without a use for it leaves it.
NO_APIC = "mov ecx, 0x1b\nrdmsr\nand ah, 0xf7\nwrmsr\n"


def guest(
    body: str, handler: str, masks: tuple[int, int] = MASKS["open"], interrupts: str = "sti", first: str = ""
) -> bytes:
    """`body` with division by zero unmasked, and `handler` of IRQ 13, which is counted; its EOIs are sent behind it.
    Behind the body the guest ends by the debug-exit port."""
    return rom(
        f"""
        {first}
        xor ax, ax
        mov ss, ax
        mov sp, 0x7000
        mov dword [{COUNT}], 0
        mov word [{4 * IRQ13}], handler
        mov [{4 * IRQ13 + 2}], cs
        {outs((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0xA0, 0x11), (0xA1, 0x28), (0xA1, 2), (0xA1, 1))}
        {outs((0x21, masks[0]), (0xA1, masks[1]))}
        mov eax, cr0
        and al, 0xd1                    ; NE, EM, TS, MP
        mov cr0, eax
        fninit
        mov word [0x610], 0x37b
        fldcw [0x610]
        {interrupts}
        fld1
        fldz
{body}
        mov al, 0
        out 0xf4, al
handler:
        inc dword [{COUNT}]
        push ax
        push bp
        mov bp, sp
        mov ax, [bp + 4]
        mov [{ADDRESS}], ax
        pop bp
{handler}
        {outs((0xA0, 0x20), (0x20, 0x20))}
        pop ax
        iret
        """
    )


CLEARS = "out 0xf0, al\nfnstsw [0x608]\nfnclex"


def run(
    image: bytes, machine: str = "isapc", budget: int = 2_000_000, slice: int | None = None
) -> tuple[Machine, MachineExit]:
    built = build_machine(MachineConfig(memory=2 << 20, firmware=image, machine=machine, slice=slice))
    return built, built.run(budget)


def word(machine: Machine, address: int) -> int:
    return int.from_bytes(machine.memory.read(address, 2), "little")


@needs_helper
@pytest.mark.parametrize("kind", ["isapc", "pc"])
def test_the_next_instruction_that_waits_is_interrupted_by_irq_13(kind: str) -> None:
    machine, stop = run(guest("fdivp\nmov bx, 1\nfld1\nmov bx, 2", CLEARS, first=NO_APIC * (kind == "pc")), kind)
    assert stop.reason is MachineStop.EXIT
    assert word(machine, COUNT) == 1
    assert word(machine, STATUS) & 0x80FF == 0x8084, "ES and ZE"
    state = machine.executor.state()
    code = machine.memory.read(0xF0000 + word(machine, ADDRESS), 2)
    assert code == bytes.fromhex("d9e8"), "returns to the instruction that waits"
    assert (state.regs[3], state.fpu.fsw >> 11 & 7) == (2, 5), "which is executed then"
    machine.close()


@needs_helper
def test_a_handler_that_clears_nothing_but_port_f0_lets_it_go_on() -> None:
    """IGNNE# is asserted while FERR# is: instructions that wait go on, and no other IRQ 13 comes."""
    machine, stop = run(guest("fdivp\nfld1\nfld1\nfabs", "out 0xf0, al"))
    assert (stop.reason, word(machine, COUNT)) == (MachineStop.EXIT, 1)
    assert machine.executor.state().fpu.fsw & 0x80FF == 0x8084
    view = machine.board.coprocessor.view()
    assert [field.value for field in view.fields] == [True, True, False]
    machine.close()


@needs_helper
def test_the_next_exception_asks_again() -> None:
    machine, stop = run(guest("fdivp\nfld1\nfldz\nfdivp\nfwait\nfld1\nfldz\nfdivp\nfwait", CLEARS))
    assert (stop.reason, word(machine, COUNT)) == (MachineStop.EXIT, 3)
    assert [field.value for field in machine.board.coprocessor.view().fields] == [False, False, False]
    machine.close()


@needs_helper
@pytest.mark.parametrize(("masks", "interrupts"), [("masked", "sti"), ("open", "cli")])
def test_without_an_interrupt_the_cpu_waits_for_ever(masks: str, interrupts: str) -> None:
    machine, stop = run(guest("fdivp\nmov bx, 1\nfld1\nmov bx, 2", CLEARS, MASKS[masks], interrupts), budget=50_000)
    assert stop.reason is not MachineStop.EXIT
    state = machine.executor.state()
    assert state.regs[3] & 0xFFFF == 1
    assert machine.memory.read(0xF0000 + state.rip, 2) == bytes.fromhex("d9e8")
    machine.close()


@needs_helper
def test_what_does_not_wait_asks_for_nothing() -> None:
    machine, stop = run(guest("fdivp\nfnstsw ax\nfnclex\nfld1", CLEARS))
    assert (stop.reason, word(machine, COUNT)) == (MachineStop.EXIT, 0)
    machine.close()


@needs_helper
def test_slices_leave_no_trace() -> None:
    image = guest("fdivp\nfld1\nfldz\nfdivp\nfwait", CLEARS)
    prints = []
    for size in (1, 7, None):
        machine, _ = run(image, slice=size)
        prints.append((machine.fingerprint(), machine.executor.retired))
        machine.close()
    assert prints[0] == prints[1] == prints[2]


@needs_helper
def test_a_state_saved_between_error_and_port_f0_goes_on() -> None:
    image = guest("fdivp\nfld1\nfld1", "nop\nnop\nnop\nnop\nout 0xf0, al")
    machine = build_machine(MachineConfig(memory=2 << 20, firmware=image, machine="isapc"))
    while not machine.board.coprocessor.save().requested:
        assert machine.run(machine.executor.retired + 1).reason is MachineStop.LIMIT
    saved = machine.save()
    first = machine.run(100_000)
    end = machine.fingerprint()
    machine.restore(saved)
    assert machine.board.coprocessor.save().requested
    assert (machine.run(100_000), machine.fingerprint()) == (first, end)
    machine.close()


@needs_helper
@pytest.mark.parametrize("second", ["emulator", "hooked"])
@pytest.mark.parametrize("handler", [CLEARS, "out 0xf0, al"])
def test_two_emulators_in_lockstep_take_it_at_one_instant(second: str, handler: str) -> None:
    """The second is told by the first's machine: it asks no device itself."""
    image = guest("fdivp\nmov bx, 1\nfld1\nfldz\nfdivp\nfwait\nmov bx, 2", handler)
    config = MachineConfig(memory=2 << 20, firmware=image, machine="isapc")
    compared = LockstepMachine(config, EMULATORS[second], 40)
    debugger = Debugger(compared)
    debugger.set_limit(100_000)
    debugger.begin_continue()
    stop = debugger.run()
    plain, _ = run(image)
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    assert compared.compared == stop.retired == plain.executor.retired
    assert compared.fingerprint() == plain.fingerprint()
    plain.close()


@needs_helper
@pytest.mark.parametrize("policy", ["native", "dwell:3"])
def test_a_cpu_that_hops_to_a_hypervisor_takes_it_as_one_that_stays(policy: str) -> None:
    """The guest is V86 code to the rules of 2006, which runs natively: FERR# is the emulator's there too."""
    image = guest("fdivp\nmov bx, 1\nfld1\nfldz\nfdivp\nfwait\nmov bx, 2", CLEARS)
    plain, _ = run(image)
    native = NativeConfig(make_model(VTX2006), policy_named(policy, Costs()), Costs())
    hopping = build_machine(MachineConfig(memory=2 << 20, firmware=image, machine="isapc", native=native))
    assert hopping.run(100_000).reason is MachineStop.EXIT
    assert hopping.transitions is not None and hopping.transitions.ledger.native > 20
    assert word(hopping, COUNT) == word(plain, COUNT) == 2
    assert hopping.memory.read(0, 0x1000) == plain.memory.read(0, 0x1000)
    assert hopping.executor.state() == plain.executor.state()
    hopping.close()
    plain.close()


def test_ignne_needs_ferr() -> None:
    levels: list[bool] = []
    logic = CoprocessorError(levels.append)
    logic.write(0, 0, 1)
    assert (logic.cpu.peek(0, 1), logic.cpu.read(0, 1), levels) == (WAIT, WAIT, [True])
    assert logic.cpu.read(0, 1) == WAIT
    logic.write(0, 0, 1)
    assert (logic.cpu.read(0, 1), levels) == (IGNORE, [True, False])
    logic.cpu.write(0, 0, 1)
    assert (logic.cpu.peek(0, 1), logic.read(0, 1), logic.peek(0, 1), levels) == (
        WAIT,
        FLOATING,
        FLOATING,
        [True, False],
    )
    logic.error()
    logic.reset()
    assert levels == [True, False, True, False]
