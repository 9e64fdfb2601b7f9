"""XCR0 is part of the state: what goes back or elsewhere has the one that the guest had there. SDM vol. 1, 13.3."""

from __future__ import annotations

from bare_cpu import BareCpu, bare_cpu

OSXSAVE = 1 << 18
RAX = 0
#: Sets it to 7, to 3, and reads it.
SOURCE = "xor ecx, ecx\nxor edx, edx\nmov eax, 7\nxsetbv\nmov eax, 3\nxsetbv\nxgetbv\nhlt"


def prepared() -> BareCpu:
    cpu = bare_cpu(SOURCE, 64)
    state = cpu.engine.state()
    state.cr4 |= OSXSAVE
    cpu.engine.load(state)
    return cpu


def read(cpu: BareCpu) -> int:
    """By the XGETBV of SOURCE."""
    state = cpu.engine.state()
    state.rip = XGETBV
    cpu.engine.load(state)
    cpu.engine.run(1)
    return cpu.engine.state().regs[RAX]


def at_xgetbv() -> int:
    cpu = prepared()
    cpu.engine.run(6)
    return cpu.engine.state().rip


XGETBV = at_xgetbv()


def test_at_reset_x87_alone_is_enabled() -> None:
    cpu = prepared()
    assert (cpu.engine.state().xcr0, read(cpu)) == (1, 1)


def test_what_xsetbv_has_set_is_in_the_state_and_xgetbv_reads_it() -> None:
    cpu = prepared()
    cpu.engine.run(4)
    assert (cpu.engine.state().xcr0, cpu.engine.live().xcr0) == (7, 7)
    cpu.engine.run(2)
    assert (cpu.engine.state().xcr0, read(cpu)) == (3, 3)


def test_a_state_that_is_loaded_again_has_the_one_that_it_had() -> None:
    cpu = prepared()
    cpu.engine.run(4)
    before = cpu.engine.state()
    cpu.engine.run(2)
    cpu.engine.load(before)
    assert read(cpu) == 7


def test_another_engine_that_goes_on_has_it() -> None:
    cpu, other = prepared(), prepared()
    cpu.engine.run(4)
    other.engine.adopt(cpu.engine)
    assert (other.engine.state().xcr0, read(other)) == (7, 7)
