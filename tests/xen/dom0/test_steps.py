"""Single steps of a real domain by TF."""

import pytest

from machines import PROBE, booted, differences, sector
from xenbridge.xen.domain import Domain
from xenbridge.xen.guest import BOOT
from xenbridge.xen.libraries import XenError
from xenbridge.xen.stepper import Stepper


@pytest.fixture
def stepped(libraries):
    guest, _ = booted(libraries, "g_steps")
    with Stepper(guest.domain) as stepper:
        yield guest.domain, stepper
    guest.close()


def decoded(start: int, length: int, bits: int) -> set[int]:
    """Where capstone sees instructions begin."""
    capstone = pytest.importorskip("capstone")
    reader = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_16 if bits == 16 else capstone.CS_MODE_32)
    code = sector("g_steps")[start - BOOT : start - BOOT + length]
    return {instruction.address for instruction in reader.disasm(code, start)}


def test_each_step_is_one_instruction_through_modes_and_segments(stepped) -> None:
    domain, stepper = stepped
    places = [stepper.step() for _ in range(30)]
    lines = [place.linear for place in places]
    # the load of SS takes the next instruction along; then a loop of three rounds
    assert lines[:3] == [BOOT + 2, BOOT + 7, BOOT + 10]
    again, loop = BOOT + 10, BOOT + 11
    assert lines[3:9] == [loop, again, loop, again, loop, BOOT + 13]
    state = domain.cpu_state()
    assert (state.cs.selector, state.cs.base, state.cs.big) == (8, 0, True)
    assert state.regs[0] == (0xFFFFFFFF + 0x12345678) & 0xFFFFFFFF
    assert state.regs[3] & 0xFFFF == 3 + 5
    assert lines[-1] == lines[-2]  # jmp $
    assert {place.cs_base for place in places} == {0, 0x7C00}
    assert not state.rflags & 0x100


def test_instructions_that_xen_executes_are_steps_as_others(stepped) -> None:
    """MOV to CR0 is intercepted; IN and OUT go to Xen's devices or to ours."""
    domain, stepper = stepped
    domain.memory.write(BOOT, bytes.fromhex("0f20c0 0f22c0 e421 e643 ed 90 0f32"))
    state = domain.cpu_state()
    state.regs[2] = PROBE
    domain.load_cpu(state)
    offsets = [stepper.step().linear - BOOT for _ in range(6)]
    assert offsets == [3, 6, 8, 10, 11, 12]
    assert domain.cpu_state().regs[0] & 0xFFFF == 0xBEEF
    assert domain.memory.read(0x7BFA - 0x10, 0x10) == bytes(16)  # nothing was pushed for a handler
    with pytest.raises(XenError, match=r"^RDMSR at 0x7c0c is executed by Xen and cannot be stepped: run past it$"):
        stepper.step()


def test_steps_stand_on_the_instructions_that_a_disassembler_sees(stepped) -> None:
    _, stepper = stepped
    lines = [stepper.step().linear for _ in range(10)]
    assert set(lines) <= decoded(BOOT, 32, 16)


def test_registers_written_between_two_steps_are_used(stepped) -> None:
    domain, stepper = stepped
    for _ in range(3):
        stepper.step()
    state = domain.cpu_state()
    state.regs[0], state.regs[1] = 0x100, 1
    domain.load_cpu(state)
    for _ in range(2):
        stepper.step()
    after = domain.cpu_state()
    assert (after.regs[0], after.regs[1], after.rip) == (0x101, 0, BOOT + 13)
    changed = differences(state, after)
    assert set(changed) <= {"regs", "rip", "rflags", "dr"}


def test_a_second_stepper_is_refused(stepped) -> None:
    domain, _ = stepped
    with pytest.raises(XenError, match=rf"^domain {domain.domid} cannot be stepped: "):
        Stepper(Domain(domain.libraries, domain.domid))


def test_a_breakpoint_is_met_by_steps(stepped) -> None:
    domain, stepper = stepped
    assert stepper.run(lambda place: place.linear == BOOT + 13).linear == BOOT + 13
    assert domain.cpu_state().regs[0] == 3


def test_let_go_and_taken_again(libraries) -> None:
    guest, _ = booted(libraries, "g_steps")
    for expected in (BOOT + 2, BOOT + 7):
        with Stepper(guest.domain) as stepper:
            assert stepper.step().linear == expected
    guest.close()
