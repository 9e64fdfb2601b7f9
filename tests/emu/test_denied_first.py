"""What a CPU model lacks is #UD before anything is asked about its operand: segment, page, alignment, or an exception
of the x87 for which it would wait.

SDM vol. 3A, table 6-2: an instruction is decoded before its operand is reached. The rule needs no other oracle: what is
#UD with a good operand is #UD with any.
"""

from __future__ import annotations

from copy import deepcopy

import pytest

from asm import assemble
from bare_cpu import CODE, GDT, TABLES, BareCpu, bare_cpu
from emu.engine import CheckLevel
from emu.x86.state import Segment
from run_loops import needs_helper

UD, MF, AC = 6, 16, 17
CR0_AM, CR0_NE, EFLAGS_AC, CR4_OSFXSR = 1 << 18, 1 << 5, 1 << 18, 1 << 9
CODE3, DATA3, GOOD, ABSENT = 0x33, 0x3B, 0x5000, 0x9000
#: How an operand of EBX or RBX may be wrong, by the number of bits of the code.
WRONG = {32: ("alignment", "limit"), 64: ("alignment", "page")}


def ring_3(bits: int, model: str) -> BareCpu:
    cpu = bare_cpu("", bits, model=model, checks=CheckLevel.FULL)
    for selector, access, flags in ((CODE3 & ~3, 0xFB, 0xAF if bits == 64 else 0xCF), (DATA3 & ~3, 0xF3, 0xCF)):
        cpu.write(GDT + selector, bytes.fromhex(f"ffff000000{access:02x}{flags:02x}00"))
    if bits == 64:
        for table, count in ((TABLES, 1), (TABLES + 0x1000, 1), (TABLES + 0x2000, 2), (TABLES + 0x3000, 1024)):
            for at in range(table, table + 8 * count, 8):
                cpu.write(at, (int.from_bytes(cpu.read(at, 8), "little") | 4).to_bytes(8, "little"))
        cpu.write(TABLES + 0x3000 + 8 * (ABSENT >> 12), bytes(8))
    state = cpu.engine.state()
    state.cs = Segment(CODE3, 0, 0xFFFFFFFF, 0xA0FB if bits == 64 else 0xC0FB)
    for segment in ("ss", "ds", "es", "fs", "gs"):
        setattr(state, segment, Segment(DATA3, 0, 0xFFFFFFFF, 0xC0F3))
    state.cr4 |= CR4_OSFXSR if model not in ("486", "pentium") else 0
    state.cr0 |= CR0_NE
    cpu.engine.load(state)
    return cpu


def vector(cpu: BareCpu, code: bytes, wrong: str) -> int | None:
    """That of the fault of `code`, whose operand is at EBX; the CPU is as before behind it."""
    before = cpu.engine.state()
    state = deepcopy(before)
    state.regs[3] = {"alignment": GOOD + 1, "page": ABSENT}.get(wrong, GOOD)
    if wrong == "alignment":
        state.cr0 |= CR0_AM
        state.rflags |= EFLAGS_AC
    elif wrong == "limit":
        state.ds = Segment(DATA3, 0, GOOD - 1, 0x40F3)
    cpu.write(CODE, code + b"\xf4" * 8)
    cpu.faults.clear()
    cpu.engine.load(state)
    cpu.engine.run(1)
    cpu.engine.load(before)
    return cpu.faults[0].vector if cpu.faults else None


#: Bytes of an instruction whose operand EBX or RBX points to, and a model that lacks it.
DENIED = (
    ("0f4403", 32, "486"), ("660f4f03", 32, "pentium"), ("0fc70b", 32, "486"), ("f00fc70b", 32, "486"),
    ("0fae03", 32, "486"), ("0fae0b", 32, "pentium"), ("0fae3b", 32, "pentium3"), ("660f38f603", 32, "max"),
    ("f30f38f603", 64, "max"), ("66480f38f603", 64, "qemu64"), ("0f38f003", 64, "qemu64"), ("f30fb803", 32, "pentium3"),
    ("db0b", 32, "pentium3"), ("0f6f03", 32, "486"), ("0f5803", 32, "pentium2"), ("0fae13", 32, "pentium2"),
)  # fmt: skip


@needs_helper
@pytest.mark.parametrize(("code", "bits", "model"), DENIED)
def test_what_a_model_lacks_is_undefined_whatever_its_operand_is(code: str, bits: int, model: str) -> None:
    cpu = ring_3(bits, model)
    found = {wrong: vector(cpu, bytes.fromhex(code), wrong) for wrong in ("nothing", *WRONG[bits])}
    assert found == dict.fromkeys(found, UD)
    cpu.engine.close()


@needs_helper
@pytest.mark.parametrize(("bits", "model"), [(32, "486"), (32, "pentium3"), (64, "qemu64")])
def test_no_opcode_is_undefined_for_a_good_operand_alone(bits: int, model: str) -> None:
    """All of 0Fh with memory, by three of the groups' numbers; but for those that have none."""
    cpu = ring_3(bits, model)
    different = {}
    for opcode in range(0x100):
        for reg in (0, 1, 7):
            code = bytes((0x0F, opcode, reg << 3 | 3))
            if vector(cpu, code, "nothing") == UD:
                found = {wrong: vector(cpu, code, wrong) for wrong in WRONG[bits]}
                different |= {code.hex(): found} if set(found.values()) != {UD} else {}
    assert different == {}
    cpu.engine.close()


@needs_helper
@pytest.mark.parametrize("instruction", ["fcmove st1", "fcmovnu st3", "fcomi st2", "fucomip st1", "fucomi st1"])
@pytest.mark.parametrize(("model", "expected"), [("486", UD), ("pentium", UD), ("pentium2", MF)])
def test_it_waits_for_no_exception_of_the_x87(instruction: str, model: str, expected: int) -> None:
    cpu = ring_3(32, model)
    cpu.write(GOOD, (0x340).to_bytes(2, "little"))  # exceptions are not masked
    setup = assemble("bits 32\nfninit\nfldcw [0x5000]\nfld1\nfldz\nfdivp\n", CODE)
    cpu.write(CODE, setup + assemble(f"bits 32\n{instruction}\nhlt", CODE))
    cpu.run(10)
    assert cpu.faults[0].vector == expected
    cpu.engine.close()


@needs_helper
def test_what_a_model_has_is_checked() -> None:
    """The same instructions where they are there."""
    cpu = ring_3(64, "max")
    for code in ("0f4403", "0fc70b", "0f38f003", "f30fb803"):
        assert vector(cpu, bytes.fromhex(code), "nothing") is None
        assert vector(cpu, bytes.fromhex(code), "alignment") == AC
        assert vector(cpu, bytes.fromhex(code), "page") == 14
    cpu.engine.close()
