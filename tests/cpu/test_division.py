"""A division that the host's CPU would not survive is the guest's #DE, in both run loops, and the host lives.

Expectations: SDM vol. 2A, IDIV (#DE when the quotient does not fit), vol. 3A, table 6-2 (an operand's fault comes
first). Bochs has its say in test_checks.py, by cpu_divide. The C helper mends the function that both loops call; so
what the portable loop does without it is seen in an interpreter of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from asm import assemble
from bare_cpu import CODE, TABLES, bare_cpu
from emu.engine import ExitReason
from emu.x86.division import Divisor, lowest_divided
from run_loops import needs_helper

DE, GP, PF = 0, 13, 14
DATA = 0x5000
FAR = 0x8_0000_0000  #: linear, absent in the page tables of bare_cpu's long mode
LOWEST32 = "mov edx, 0x80000000\nxor eax, eax\n"

#: bits, what comes before, the division, and its exception; DATA has -1.
PROGRAMS: tuple[tuple[int, str, str, int | None], ...] = (
    (16, LOWEST32 + "or ecx, -1", "idiv ecx", DE),
    (16, LOWEST32, "idiv dword [0x5000]", DE),
    (16, LOWEST32 + "mov bx, 0x4ff0", "idiv dword [bx+16]", DE),
    (16, LOWEST32 + "mov ebx, 0x5000", "a32 idiv dword [ebx+eax*4]", DE),
    (16, LOWEST32 + "or ecx, -1", "idiv cx", None),
    (16, "mov dx, 0x8000\nxor ax, ax\nor ecx, -1", "idiv cx", DE),
    (16, "mov ax, 0x8000\nmov cl, -1", "idiv cl", DE),
    (32, LOWEST32 + "or ecx, -1", "idiv ecx", DE),
    (32, LOWEST32 + "or ecx, -1", "idiv cx", None),
    (32, LOWEST32 + "mov bx, 0x5000", "a16 idiv dword [bx]", DE),
    (32, LOWEST32 + "mov ebx, 0x2000", "idiv dword [ebx+edx*8+0x3000]", DE),
    (32, LOWEST32, "idiv dword [0x90000000]", DE),  # where nothing is, all ones are read
    (32, "mov edx, 0x80000000\nmov eax, 1\nor ecx, -1", "idiv ecx", DE),
    (32, "mov edx, -1\nmov eax, -5\nor ecx, -1", "idiv ecx", None),
    (64, LOWEST32 + "or ecx, -1", "idiv ecx", DE),
    (64, LOWEST32 + "or r9d, -1", "idiv r9d", DE),
    (64, "mov rdx, 0x1234567880000000\nmov rax, 0x1234567800000000\nor ecx, -1", "idiv ecx", DE),
    (64, LOWEST32 + "mov r13d, 0x5000", "idiv dword [r13]", DE),
    (64, LOWEST32 + "mov r12d, 0x4000\nmov r9d, 0x200", "idiv dword [r12+r9*8]", DE),
    (64, LOWEST32 + "mov ebx, 0x5000", "idiv dword [ebx]", DE),
    (64, LOWEST32, "idiv dword [rel $$+0x4000]", DE),
    (64, LOWEST32, f"idiv dword [abs {DATA}]", DE),
    (64, LOWEST32 + f"mov rbx, {FAR:#x}", "idiv dword [rbx]", PF),
    (64, LOWEST32 + f"mov r12, {FAR - 2:#x}", "idiv dword [r12]", PF),
    (64, LOWEST32 + "mov rbx, 1<<63", "idiv dword [rbx]", GP),
    (64, LOWEST32 + "or rcx, -1", "idiv rcx", DE),
    (64, "mov rdx, 1<<63\nxor eax, eax\nor rcx, -1", "idiv rcx", DE),
    (64, "mov rdx, 1<<63\nxor eax, eax\nmov rcx, rdx", "idiv rcx", DE),
)


def vectors(programs: tuple[tuple[int, str, str, int | None], ...] = PROGRAMS) -> list[list[object]]:
    """For each program the run loop, the vector raised, and whether the fault was that of its last instruction."""
    found: list[list[object]] = []
    for bits, before, division, _ in programs:
        cpu = bare_cpu(f"{before}\nhere: {division}\nhlt", bits)
        cpu.write(DATA, b"\xff" * 8)
        length = len(assemble(f"bits {bits}\n{before}", CODE))
        while not cpu.faults and cpu.engine.run(1).reason is ExitReason.BUDGET:
            pass
        vector = cpu.faults[0].vector if cpu.faults else None
        found.append([cpu.engine.run_loop, vector, not cpu.faults or cpu.faults[0].rip == CODE + length])
        cpu.engine.close()
    return found


def elsewhere(code: str) -> str:
    """What an interpreter without the C helper prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env=os.environ | {"V2E_ENGINE": "gate", "PYTHONPATH": ":".join([os.path.dirname(__file__), *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, f"it ended with {done.returncode}\n{done.stderr}"
    return done.stdout


def test_no_division_ends_the_process_in_the_portable_loop() -> None:
    printed = elsewhere("import json, test_division as t; print(json.dumps(t.vectors()))")
    assert json.loads(printed) == [["gate", vector, True] for *_, vector in PROGRAMS]


@needs_helper
def test_no_division_ends_the_process_in_the_fast_loop() -> None:
    assert vectors() == [["fast", vector, True] for *_, vector in PROGRAMS]


RING3 = f"mov eax, [{DATA}]\n{LOWEST32}idiv dword [{DATA}]"


def ring3_vectors(user: bool) -> list[tuple[int, int | None]]:
    """Of a program of ring 3 that reads DATA, whose page is the supervisor's or not, and divides by it."""
    found = []
    for source in (RING3.split("\n", 1)[1], RING3):
        cpu = bare_cpu(source, 64)
        for level in (TABLES, TABLES + 0x1000, TABLES + 0x2000, TABLES + 0x3000 + 8 * (CODE >> 12)):
            cpu.write(level, bytes((cpu.read(level, 1)[0] | 4,)))
        if user:
            entry = TABLES + 0x3000 + 8 * (DATA >> 12)
            cpu.write(entry, bytes((cpu.read(entry, 1)[0] | 4,)))
        cpu.write(DATA, b"\xff" * 4)
        state = cpu.engine.state()
        for name in ("cs", "ss"):
            segment = state.segment(name)
            segment.selector |= 3
            segment.access |= 3 << 5
        cpu.engine.load(state)
        while not cpu.faults and cpu.engine.run(1).reason is ExitReason.BUDGET:
            pass
        found.append((cpu.faults[0].vector, cpu.faults[0].code))
        cpu.engine.close()
    return found


#: By whether the page is a user's: a division alone, and behind a load of the same bytes.
RINGS = {True: [(DE, None), (DE, None)], False: [(PF, 5), (PF, 5)]}


def test_a_page_that_ring_3_may_not_read_comes_before_the_division_in_the_portable_loop() -> None:
    printed = elsewhere("import test_division as t; print([t.ring3_vectors(user) for user in t.RINGS])")
    assert printed.strip() == str(list(RINGS.values()))


@needs_helper
def test_a_page_that_ring_3_may_not_read_comes_before_the_division_in_the_fast_loop() -> None:
    assert [ring3_vectors(user) for user in RINGS] == list(RINGS.values())


REGS = [0, 0x11, 1 << 31, 0x3000, 0x7000, 0x5, 0x6, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF]
BASES = [0x10000, 0x20000, 0x30000, 0x40000, 0x50000, 0x60000]


@pytest.mark.parametrize(
    ("bits", "source", "linear"),
    [
        (16, "idiv ecx", None), (16, "idiv dword [bp+si]", 0x3000B), (16, "idiv dword [es:di]", 0x10077),
        (32, "idiv dword [ebx+ecx*2]", 0x43022), (32, "idiv dword [esp+4]", 0x37004),
        (32, "idiv dword [gs:8]", 0x60008), (32, "idiv dword [edx*2+1]", 0x40001),
        (64, "idiv dword [rbx+rcx*2]", 0x3022), (64, "idiv dword [rsp+4]", 0x7004),
        (64, "idiv dword [r12+r12*4]", 0xCC * 5), (64, "idiv dword [r13-1]", 0xDC),
        (64, "idiv dword [fs:rbx]", 0x53000),
        (64, "idiv dword [cs:rbx]", 0x3000), (64, "idiv dword [rbp+r8*8-0x10]", 0x435),
        (64, "idiv dword [edx*2+ecx]", 0x11), (64, "idiv dword [rel $+0x100]", CODE + 0x100), (64, "idiv r15d", None),
        (64, "idiv dword [abs 0xffffffff80000000]", 0xFFFF_FFFF_8000_0000),
    ],
)  # fmt: skip
def test_the_divisor_is_found(bits: int, source: str, linear: int | None) -> None:
    code = assemble(f"bits {bits}\n{source}", CODE)
    assert lowest_divided(code + b"\x90" * (15 - len(code)), bits, CODE, REGS, BASES) == Divisor(linear)
    for cut in range(len(code)):
        assert lowest_divided(code[:cut], bits, CODE, REGS, BASES) is None


@pytest.mark.parametrize(
    "source", ["div ecx", "idiv cx", "idiv cl", "imul ecx", "lock neg dword [ebx]", "mov eax, ecx"]
)
def test_other_instructions_are_left_alone(source: str) -> None:
    assert lowest_divided(assemble(f"bits 32\n{source}", CODE), 32, CODE, REGS, BASES) is None
    other = [REGS[0] + 1, *REGS[1:]]
    assert lowest_divided(assemble("bits 32\nidiv ecx", CODE), 32, CODE, other, BASES) is None
