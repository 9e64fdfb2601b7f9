"""What of 64-bit instructions is by way of the stack segment, and what a near branch leaves to undo.

SDM vol. 1, 3.3.7.1; vol. 2, the 64-bit mode exceptions of each instruction.
"""

from __future__ import annotations

import pytest

from asm import assemble
from emu.x86.canonical import by_stack_segment, taken_back

BAD, GOOD = 0x0000_8000_0000_0100, 0x1000
REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))


@pytest.mark.parametrize(
    ("instruction", "bad", "by_stack"),
    [
        ("push rax", "rsp", True), ("push r12", "rsp", True), ("pop qword [rbx]", "rsp", True), ("ret", "rsp", True),
        ("push qword [rbx]", "rbx", False), ("push qword [rbx]", "rsp", True), ("leave", "rbp", True),
        ("mov rax, [rbp]", "rbp", True), ("mov rax, [r13]", "r13", False), ("mov rax, [r12]", "r12", False),
        ("mov rax, [rsp + 8]", "rsp", True), ("mov rax, [rsp + r9 * 2]", "r9", True),
        ("mov rax, [rbx + rbp]", "rbp", False), ("mov rax, [fs:rbp]", "rbp", False),
        ("db 0x3e\nmov rax, [rbp]", "rbp", True),
        ("mov eax, [ebp]", "rbp", False), ("movsb", "rsi", False), ("movaps xmm0, [rbp]", "rbp", True),
        ("lock xadd [rbp - 4], ecx", "rbp", True), ("mov rax, rbp", "rbp", False), ("nop", "rsp", False),
        ("mov rax, [rel $]", "rbp", False), ("mov rax, [rbp + r12]", "r12", True),
        ("mov rax, [rbx + r12 * 2]", "r12", False),
        ("pshufb xmm0, [rbp + r12 * 4]", "r12", True), ("db 0x41\ncmp r9, [rbp]", "rbp", True),
        ("db 0x41, 0x66\nmov eax, [rbp]", "rbp", True), ("db 0x43, 0x65\ncmp [rbp + rcx], rax", "rcx", False),
        ("db 0x44, 0x4d, 0x46\npush rax", "rsp", True),
        ("db 0x49, 0x66\nmov [rbp], ecx", "rbp", True), ("db 0x48\nmov [r13], ecx", "rbp", False),
    ],
)  # fmt: skip
def test_the_segment_of_the_address_decides(instruction: str, bad: str, by_stack: bool) -> None:
    regs = [BAD if name == bad else GOOD for name in REGISTERS]
    assert by_stack_segment(assemble(f"bits 64\n{instruction}", 0x1000), regs, (0,) * 6) is by_stack


@pytest.mark.parametrize(
    ("instruction", "register", "beyond"),
    [
        ("mov eax, [rbp]", "rbp", 3), ("movups [rbp], xmm0", "rbp", 15), ("push rax", "rsp", -1), ("pop rax", "rsp", 7),
        ("fld tword [rsp]", "rsp", 9), ("ret", "rsp", 7),
    ],
)  # fmt: skip
def test_the_last_byte_of_an_item_counts_too(instruction: str, register: str, beyond: int) -> None:
    """`beyond`: how far before the first address that is not canonical the register may be."""
    edge, code = 0x0000_8000_0000_0000, assemble(f"bits 64\n{instruction}", 0x1000)
    for place, by_stack in ((edge - beyond, True), (edge - beyond - 1, False)):
        regs = [place if name == register else GOOD for name in REGISTERS]
        assert by_stack_segment(code, regs, (0,) * 6) is by_stack


def test_the_bases_of_fs_and_gs_count() -> None:
    code = assemble("bits 64\nmov rax, [gs:rbp]", 0)
    assert not by_stack_segment(code, [GOOD] * 16, (0, 0, 0, 0, 0, BAD))


@pytest.mark.parametrize(
    ("instruction", "add"),
    [
        ("jmp rax", 0), ("jmp [r9]", 0), ("call rax", 8), ("call [rbx]", 8), ("call $ + 0x1000", 8), ("ret", -8),
        ("ret 16", -24), ("jmp $ + 0x1000", 0), ("jmp short $", 0), ("jne $ + 0x1000", 0), ("db 0xf2\nret", -8),
        ("db 0x48, 0x44\nret 8", -16), ("db 0x41, 0x66, 0x48\njmp rax", 0), ("jns short $", 0),
        ("retf", None), ("iretq", None), ("int 3", None), ("push rax", None), ("inc dword [rax]", None),
        ("je $ + 0x1000", None), ("je short $", None), ("setne al", None),
    ],
)  # fmt: skip
def test_a_near_branch_is_undone_by_what_it_pushed_or_popped(instruction: str, add: int | None) -> None:
    found = taken_back(assemble(f"bits 64\n{instruction}", 0x1000), 2, 5)
    assert found == (None if add is None else (add, 5))


@pytest.mark.parametrize(
    ("instruction", "zero", "left", "before"),
    [
        ("loop $", False, 5, 6), ("loop $", True, 0, None), ("loop $", False, (1 << 64) - 1, 0),
        ("loope $", True, 1, 2), ("loope $", False, 1, None), ("loopne $", False, 1, 2), ("loopne $", True, 1, None),
        ("a32 loop $", False, 7, 8), ("a32 loop $", False, (1 << 32) - 1, 0), ("a32 loop $", False, 1 << 32, None),
        ("jrcxz $", False, 0, 0), ("jrcxz $", False, 1 << 32, None), ("jecxz $", False, 1 << 32, 1 << 32),
    ],
)  # fmt: skip
def test_a_loop_is_undone_by_its_count(instruction: str, zero: bool, left: int, before: int | None) -> None:
    found = taken_back(assemble(f"bits 64\n{instruction}", 0x1000), 2 | zero << 6, left)
    assert found == (None if before is None else (0, before))
