"""Segment checks in the C helper: its decoder against emu.x86.operands, and what gets a check at all.

What the checks decide is compared with Bochs in tests/cpu/test_checks.py.
"""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bare_cpu import BareCpu, bare_cpu
from emu.engine import ExitReason
from emu.unicorn_engine import HELPER
from emu.unicorn_fast_checks import NONE, Instruction
from emu.unicorn_helper import Helper
from emu.x86 import disasm, operands
from emu.x86.operands import Branch
from emu.x86.state import Segment

pytestmark = pytest.mark.skipif(not isinstance(HELPER, Helper), reason=f"no C helper: {HELPER}")

READ, WRITE, XLAT, REPEATED = 1, 2, 4, 8
BRANCHES = (None, *Branch)
MASK32 = 0xFFFFFFFF
SMALL = Segment(0x18, 0x8000, 0xFFF, 0x4093)

prefixes = st.lists(st.sampled_from(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf2\xf3\xf0"), max_size=3).map(bytes)
opcodes = st.one_of(
    st.integers(0, 255).map(lambda b: bytes((b,))),
    st.integers(0, 255).map(lambda b: bytes((0x0F, b))),
    st.tuples(st.sampled_from((0x38, 0x3A)), st.integers(0, 255)).map(lambda p: bytes((0x0F, *p))),
)
codes = st.builds(lambda p, o, r: (p + o + r)[:18], prefixes, opcodes, st.binary(max_size=14))


def by_helper(code: bytes, bits: int, stack_bits: int) -> tuple[object, ...] | None:
    assert isinstance(HELPER, Helper)
    found = Instruction()
    if not HELPER.decode(code, len(code), bits, stack_bits, ctypes.byref(found)):
        return None
    references = [
        (r.segment, r.size, r.kind, r.mask, r.base, r.index, r.scale, r.bits, r.displacement & r.mask)
        for r in found.references[: found.count]
    ]
    return (found.length, found.operand_size, found.branch, found.condition, bool(found.repeat), references)


def by_tables(code: bytes, bits: int, stack_bits: int) -> tuple[object, ...] | None:
    found = operands.decode(code, bits, stack_bits)
    if found.length is None:
        return None
    references = [
        (
            r.segment, r.size,
            READ * r.read | WRITE * r.write | XLAT * r.xlat | REPEATED * r.repeated,
            r.mask,
            *(NONE if number is None else number for number in (r.base, r.index)),
            r.scale if r.index is not None else None,
            NONE if r.bits is None else r.bits,
            r.displacement & r.mask,
        )
        for r in found.references
    ]  # fmt: skip
    return (
        found.length, found.operand_size, BRANCHES.index(found.branch), found.condition, found.repeat, references
    )  # fmt: skip


def without_scale(found: tuple[object, ...] | None) -> tuple[object, ...] | None:
    """A scale means something only beside an index."""
    if found is None:
        return None
    references = [tuple(None if i == 6 and r[5] == NONE else x for i, x in enumerate(r)) for r in found[-1]]  # type: ignore[attr-defined]
    return (*found[:-1], references)


@pytest.mark.slow
@pytest.mark.hypothesis
@settings(max_examples=1500)
@given(codes, st.sampled_from((16, 32)), st.sampled_from((16, 32)))
@example(bytes.fromhex("c8100003"), 32, 32)
@example(bytes.fromhex("8f4424fc"), 32, 32)
@example(bytes.fromhex("f30fbd00"), 16, 16)
def test_the_helper_decodes_as_the_tables_say(code: bytes, bits: int, stack_bits: int) -> None:
    expected = by_tables(code, bits, stack_bits)
    if expected is not None and isinstance(expected[0], int) and expected[0] > operands.LONGEST:
        return  # #GP(0) by the engine, whatever it names
    assert without_scale(by_helper(code, bits, stack_bits)) == without_scale(expected)


#: Memory forms of each mod, a SIB byte and a register.
FORMS = (0x04, 0x06, 0x45, 0x84, 0xC1)


@pytest.mark.parametrize("turn", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 8))])
@pytest.mark.parametrize("bits", [16, 32])
def test_the_helper_decodes_every_opcode_as_the_tables_say(turn: int, bits: int) -> None:
    """Each turn has every opcode, prefix and form with one value of reg, and all turns together have every value."""
    for number in range(1024):
        reg = (number + turn) % 8 << 3
        lead = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")[number >> 8] + bytes((number & 0xFF,))
        for prefix in (b"", b"\x66", b"\x67", b"\xf2", b"\xf3"):
            for form in FORMS:
                code = prefix + lead + bytes((reg | form, 0x24, 1, 2, 3, 4, 5, 6, 7, 8))
                assert without_scale(by_helper(code, bits, bits)) == without_scale(by_tables(code, bits, bits)), code


@pytest.mark.slow
def test_the_helper_decodes_vex_as_the_tables_say() -> None:
    for first in range(0xC0, 0x100):
        for second in (0x00, 0x01, 0x02, 0x03, 0x04, 0x78, 0x7B, 0xFA):
            for opcode in range(0xE8, 0x100):
                for form in (0x08, 0x14, 0x45, 0x84, 0xC1):
                    code = bytes((0xC4, first, second, opcode, form, 0x24, 1, 2, 3, 4, 5, 6))
                    assert without_scale(by_helper(code, 32, 32)) == without_scale(by_tables(code, 32, 32)), code.hex()


def guarded(source: str, bits: int = 32, **segments: Segment) -> BareCpu:
    cpu = bare_cpu(source, bits)
    state = cpu.engine.state()
    for name, segment in segments.items():
        setattr(state, name, segment)
    cpu.engine.load(state)
    assert cpu.run().reason is ExitReason.HALT
    return cpu


def counts(cpu: BareCpu) -> tuple[int, int]:
    statistics = cpu.engine.statistics
    assert statistics is not None
    return statistics.guarded, statistics.asked


def test_flat_code_gets_no_checks() -> None:
    cpu = guarded("push eax\nmov [0x9000], eax\nmov esi, 0x9000\nlodsd\ncs mov eax, [esi]\npop eax\nhlt")
    assert counts(cpu) == (0, 0)


def test_null_segments_beside_flat_ones_cost_nothing_until_they_are_used() -> None:
    cpu = guarded("mov [0x9000], eax\nmov eax, [0x9000]\nhlt", gs=Segment(0, 0, 0, 0x10000))
    assert counts(cpu) == (0, 0)


def test_only_accesses_through_the_limited_segment_are_checked() -> None:
    cpu = guarded("mov ecx, 100\nl: mov [0x9000], eax\nmov eax, [fs:16]\ndec ecx\njnz l\nhlt", fs=SMALL)
    assert counts(cpu)[1] == 100


def test_writing_through_flat_code_is_checked_and_reading_is_not() -> None:
    cpu = bare_cpu("cs mov eax, [0x9000]\ncs mov [0x9000], eax\nhlt", 32)
    assert cpu.run().reason is not ExitReason.HALT
    assert counts(cpu) == (1, 1)


def test_a_check_in_the_middle_of_a_block_leaves_what_came_before_it() -> None:
    cpu = bare_cpu("mov ecx, 7\ninc ebx\nadd ebx, ecx\nmov eax, [fs:0xffe]\ninc ebx\nhlt", 32)
    state = cpu.engine.state()
    state.fs = SMALL
    state.idtr.limit = 0
    cpu.engine.load(state)
    exit = cpu.run()
    assert exit.reason is ExitReason.SHUTDOWN
    assert (exit.faults[0].vector, exit.faults[0].retired) == (13, 3)
    assert cpu.engine.state().regs[3] & MASK32 == 8


def test_the_class_follows_a_segment_loaded_in_the_middle_of_a_block() -> None:
    """In 16-bit code a load of DS does not end Unicorn's block."""
    source = "mov ax, [8]\npush word 0x10\npop fs\nmov ax, [fs:0x2000]\nhlt"
    cpu = guarded(source, 32, fs=SMALL)
    assert cpu.engine.state().fs.limit == MASK32


def test_a_limited_segment_loaded_in_the_middle_of_a_block_is_checked_at_once() -> None:
    """32-bit code: a load of FS does not end Unicorn's block."""
    cpu = bare_cpu("push dword 0x28\npop fs\nmov eax, [fs:0xfffe]\nhlt", 32)
    assert cpu.run().reason is ExitReason.SHUTDOWN
    assert (cpu.faults[0].vector, cpu.faults[0].retired) == (13, 2)


def refused_behind_fs(source: str) -> BareCpu:
    """The CPU behind a fault that nothing handles, FS being the small segment."""
    cpu = bare_cpu(source, 32)
    state = cpu.engine.state()
    state.fs = SMALL
    cpu.engine.load(state)
    assert cpu.run().reason is ExitReason.SHUTDOWN
    return cpu


@pytest.mark.parametrize(
    "instruction",
    [
        *("andn eax, ebx, [fs:edi]", "blsi eax, [fs:edi]", "blsr eax, [fs:edi]", "blsmsk eax, [fs:edi]"),
        *("bextr eax, [fs:edi], ebx", "bzhi eax, [fs:edi], ebx", "mulx eax, ebx, [fs:edi]", "rorx eax, [fs:edi], 5"),
        *("sarx eax, [fs:edi], ebx", "shlx eax, [fs:edi], ebx", "shrx eax, [fs:edi], ebx"),
        *("pdep eax, ebx, [fs:edi]", "pext eax, ebx, [fs:edi]"),
    ],
)
def test_operands_behind_vex_are_checked(instruction: str) -> None:
    """BMI1 and BMI2: a doubleword, up to the limit and one byte beyond it (SDM vol. 2A, "Exceptions type 13"). The
    engine takes VEX.pp = 66 for a prefix of SSE, and SHLX is #UD without CR4.OSFXSR (docs/fidelity.md)."""
    source = f"mov eax, cr4\nor eax, 0x200\nmov cr4, eax\nmov edi, {{}}\n{instruction}\nhlt"
    assert guarded(source.format(0xFFC), fs=SMALL).faults == []
    cpu = refused_behind_fs(source.format(0xFFD))
    assert (cpu.faults[0].vector, cpu.faults[0].code, cpu.faults[0].retired) == (13, 0, 4)


@pytest.mark.parametrize("instruction", ["maskmovq mm0, mm1", "maskmovdqu xmm0, xmm1"])
def test_a_masked_store_is_checked_whatever_its_mask(instruction: str) -> None:
    """SDM vol. 2B, MASKMOVQ: the implicit operand at DS:EDI."""
    source = f"mov eax, cr4\nor eax, 0x200\nmov cr4, eax\nmov edi, {{}}\nfs {instruction}\nhlt"
    assert guarded(source.format(0xFF0), fs=SMALL).faults == []
    cpu = refused_behind_fs(source.format(0xFF9))
    assert cpu.faults[0].vector == 13


def test_clflush_is_checked_as_a_byte_and_may_name_code_that_cannot_be_read() -> None:
    """SDM vol. 2A, CLFLUSH."""
    execute_only = Segment(0x28, 0, 0xFFF, 0x4099)
    assert guarded("clflush [fs:0xfff]\nhlt", fs=execute_only).faults == []
    cpu = bare_cpu("clflush [fs:0x1000]\nhlt", 32)
    state = cpu.engine.state()
    state.fs = execute_only
    cpu.engine.load(state)
    assert cpu.run().reason is ExitReason.SHUTDOWN
    assert cpu.faults[0].vector == 13


def test_more_classes_than_numbers_begin_anew() -> None:
    """Six registers of three kinds make 729 combinations; hflags has room for 31."""
    cpu = bare_cpu("l: mov al, [0x100]\nmov al, [es:0x100]\nmov al, [fs:0x100]\nmov al, [gs:0x100]\nhlt", 32)
    start = cpu.engine.state()
    kinds = [Segment(0x10, 0, limit, 0x4093) for limit in (0xFFF, 0xFFFF, MASK32)]
    for n in range(81):
        state = cpu.engine.state()
        state.rip, state.halted = start.rip, False
        for i, name in enumerate(("ds", "es", "fs", "gs")):
            setattr(state, name, kinds[n // 3**i % 3])
        cpu.engine.load(state)
        assert cpu.run().reason is ExitReason.HALT
    statistics = cpu.engine.statistics
    assert statistics is not None
    assert statistics.flushes >= 2


@pytest.mark.slow
def test_more_checks_than_the_area_holds_begin_anew_and_are_checks_yet() -> None:
    """A block that changes itself is translated each time, with the records of its 400 checks: more in all than the
    64 MiB that there are. The last of them is beyond the limit."""
    source = """
        mov ecx, 1300
again:  inc byte [here + 1]
here:   mov al, 0
        %rep 400
        mov bl, [fs:esi]
        %endrep
        dec ecx
        jnz again
        mov esi, 0x1000
        mov bl, [fs:esi]
        hlt"""
    cpu = bare_cpu(source, 32)
    state = cpu.engine.state()
    state.fs = SMALL
    cpu.engine.load(state)
    cpu.engine.run(1)
    statistics = cpu.engine.statistics
    assert statistics is not None
    before = statistics.flushes
    assert cpu.run().reason is ExitReason.SHUTDOWN
    assert cpu.faults[0].vector == 13
    assert (cpu.engine.state().regs[0] & 0xFF, cpu.engine.state().regs[1]) == (1300 & 0xFF, 0)
    assert (after := cpu.engine.statistics) is not None
    assert after.flushes > before
    assert after.guarded >= 1300 * 400


# -- 64-bit code: lengths only

codes64 = st.builds(
    lambda p, o, r: (p + o + r)[:18],
    st.lists(st.sampled_from(b"\x66\x67\xf2\xf3\x64\x2e\x40\x41\x48\x4f"), max_size=3).map(bytes),
    opcodes,
    st.binary(min_size=14, max_size=14),
)


def decoded64(code: bytes) -> Instruction | None:
    assert isinstance(HELPER, Helper)
    found = Instruction()
    return found if HELPER.decode(code, len(code), 64, 32, ctypes.byref(found)) else None


@settings(max_examples=3 * settings.default.max_examples)
@given(codes64)
@example(bytes.fromhex("48b81122334455667788"))
@example(bytes.fromhex("48a11122334455667788"))
@example(bytes.fromhex("6748a111223344"))
@example(bytes.fromhex("66b81122"))
@example(bytes.fromhex("6648c7001122334455"))
@example(bytes.fromhex("488d0511223344"))
@example(bytes.fromhex("4066f390"))
@example(bytes.fromhex("f6040901"))
def test_lengths_of_64_bit_code_are_those_of_the_disassembler(code: bytes) -> None:
    """Where both know one. capstone takes RET n with an operand size prefix for longer than it is."""
    ours, theirs = decoded64(code), disasm.length(code, 64)
    if ours is not None and theirs and ours.opcode != 0xC2:
        assert ours.length == theirs


@pytest.mark.parametrize(
    "code", ["c5f877", "c4e27918c0", "62f17c4810c0", "9a1122334455667788", "66e811223344", "660f8411223344"]
)
def test_what_has_no_sure_length_has_none(code: str) -> None:
    assert decoded64(bytes.fromhex(code)) is None


def test_blocks_of_64_bit_code_go_on_to_the_end_of_their_page() -> None:
    """255 bytes of NOP at the end of a page, then 255 in the next: one translation a page and not one each 15 bytes."""
    source = "jmp there\ntimes 0xf01-($-$$) nop\nthere: times 510 nop\nhlt"
    cpu = bare_cpu(source, 64)
    before = cpu.engine.statistics
    assert cpu.run().reason is ExitReason.HALT
    after = cpu.engine.statistics
    assert before is not None
    assert after is not None
    assert after.translations - before.translations <= 4
