"""Disassembly by width, branch targets in CS, and what `next` steps over."""

from __future__ import annotations

import pytest

from emu.x86.disasm import decode, is_call_like, is_rep_string, length


def texts(code: str, bits: int, offset: int = 0, linear: int | None = None) -> list[str]:
    raw = bytes.fromhex(code)
    return [view.text for view in decode(raw, offset if linear is None else linear, bits, offset, 16)]


def test_the_reset_vector_reads_as_the_far_jump_that_it_is() -> None:
    (view,) = decode(bytes.fromhex("ea5be000f0"), 0xFFFFFFF0, 16, 0xFFF0, 1, current=0xFFFFFFF0)
    assert (view.linear, view.offset, view.raw) == (0xFFFFFFF0, 0xFFF0, bytes.fromhex("ea5be000f0"))
    assert (view.text, view.current) == ("ljmp 0xf000:0xe05b", True)


@pytest.mark.parametrize(
    ("code", "bits", "offset", "text"),
    [
        ("e90010", 16, 0xFFF0, "jmp 0xff3"),  # IP wraps at 64 KiB (SDM vol. 2A, JMP: EIP AND 0000FFFFH)
        ("eb80", 16, 0x10, "jmp 0xff92"),
        ("e800f0", 16, 0x10, "call 0xf013"),
        ("e2f0", 16, 0, "loop 0xfff2"),
        ("0f84fdff", 16, 0, "je 0x1"),
        ("74f0", 16, 2, "je 0xfff4"),
        ("66e900000100", 16, 0xFFF0, "jmp 0x1fff6"),
        ("eb80", 32, 0x10, "jmp 0xffffff92"),
        ("66e90010", 32, 0xFFF0, "jmp 0xff4"),
        ("0f8500000080", 32, 0x1000, "jne 0x80001006"),
        ("e9fbffffff", 64, 0xFFFFFFFF80000000, "jmp 0xffffffff80000000"),
        ("0f8500000000", 64, 0x1000, "jne 0x1006"),
        ("9a341200f0", 16, 5, "lcall 0xf000:0x1234"),
        ("66ea5be000000800", 16, 5, "ljmp 0x8:0xe05b"),
        ("9a785634120800", 32, 5, "lcall 0x8:0x12345678"),
        ("66ea34120800", 32, 5, "ljmp 0x8:0x1234"),
        ("eb06", 16, 0x00, "jmp 0x8"),
        ("eb06", 16, 0x10000, "jmp 0x8"),
        ("eb06", 32, 0x00, "jmp 0x8"),
        ("eb06", 64, 0x00, "jmp 0x8"),
    ],
)
def test_branch_targets_are_offsets_in_cs_wrapped_to_the_operand_size(
    code: str, bits: int, offset: int, text: str
) -> None:
    assert texts(code, bits, offset, linear=0x123450) == [text]


def test_the_same_bytes_decode_by_the_width_of_the_code_segment() -> None:
    code = "b8010000004889c8"
    assert texts(code, 16)[0] == "mov ax, 1"
    assert texts(code, 32)[:2] == ["mov eax, 1", "dec eax"]
    assert texts(code, 64) == ["mov eax, 1", "mov rax, rcx"]


def test_bytes_that_begin_no_instruction_become_db() -> None:
    assert texts("f090fa", 16) == ["db 0xf0", "nop", "cli"]
    views = decode(bytes.fromhex("fae8"), 0x7C00, 16, 0x7C00, 8)
    assert [(view.linear, view.raw, view.text) for view in views] == [
        (0x7C00, b"\xfa", "cli"),
        (0x7C01, b"\xe8", "db 0xe8"),
    ]


def test_count_bounds_the_listing_and_only_the_current_instruction_is_marked() -> None:
    views = decode(b"\x90" * 8, 0x100, 32, 0x10, 3, current=0x101)
    assert [(view.linear, view.offset, view.current) for view in views] == [
        (0x100, 0x10, False),
        (0x101, 0x11, True),
        (0x102, 0x12, False),
    ]
    assert decode(b"", 0, 16, 0, 4) == ()


def test_linear_addresses_wrap_at_4_gib_outside_64_bit_code() -> None:
    views = decode(b"\x90\x90", 0xFFFFFFFF, 16, 0xFFFF, 2)
    assert [view.linear for view in views] == [0xFFFFFFFF, 0]
    views = decode(b"\x90\x90", 0xFFFFFFFF, 64, 0xFFFFFFFF, 2)
    assert [view.linear for view in views] == [0xFFFFFFFF, 0x100000000]


def test_widths_other_than_16_32_and_64_are_refused() -> None:
    with pytest.raises(ValueError, match="code has 16, 32 or 64 bits, not 8"):
        decode(b"\x90", 0, 8, 0, 1)


@pytest.mark.parametrize(
    ("code", "bits", "expected"),
    [("e80000", 16, 3), ("e800000000", 32, 5), ("f3a4", 16, 2), ("e800", 16, 0), ("", 16, 0), ("f090", 32, 0)],
)
def test_length_is_that_of_the_first_instruction_or_0(code: str, bits: int, expected: int) -> None:
    assert length(bytes.fromhex(code), bits) == expected


@pytest.mark.parametrize(
    ("code", "bits"),
    [
        ("e80000", 16),  # CALL rel
        ("9a00000000", 16),  # CALL far
        ("ffd0", 32),  # CALL r
        ("ff5602", 16),  # CALL m
        ("ff1e0010", 16),  # CALL far m
        ("41ffd2", 64),  # CALL r10
        ("2eff15000000", 32),  # CALL with a segment prefix
        ("cd10", 16),  # INT 10h
        ("cc", 16),  # INT3
        ("ce", 32),  # INTO
        ("e2fe", 16),  # LOOP
        ("e1fe", 16),  # LOOPE
        ("e0fe", 16),  # LOOPNE
        ("f3a4", 16),  # REP MOVSB
        ("f366ab", 16),  # REP STOSD
        ("67f2ae", 32),  # REPNE SCASB
        ("f36d", 16),  # REP INSW
        ("f348ab", 64),  # REP STOSQ
        ("0f05", 64),  # SYSCALL
    ],
)
def test_next_steps_over_calls_interrupts_loops_and_repeated_strings(code: str, bits: int) -> None:
    assert is_call_like(bytes.fromhex(code), bits)


@pytest.mark.parametrize(
    ("code", "bits"),
    [
        ("e90000", 16),  # JMP
        ("ffe0", 32),  # JMP r
        ("ff2e0010", 16),  # JMP far m
        ("ffd8", 32),  # FF /3 with a register: #UD
        ("ff06", 16),  # INC m
        ("a4", 16),  # MOVSB alone
        ("f390", 32),  # PAUSE
        ("f30f6f00", 32),  # MOVDQU
        ("c3", 16),  # RET
        ("cf", 16),  # IRET
        ("e3fe", 16),  # JCXZ
        ("9a", 64),  # #UD in 64-bit mode
        ("ce", 64),  # #UD in 64-bit mode
        ("0f05", 16),
        ("40e8", 32),  # INC EAX, not REX
        ("f3", 16),
        ("f3", 64),
        ("0f", 64),
        ("f36b0000", 16),  # IMUL
        ("f3a0", 16),  # MOV AL, moffs
        ("f3a8", 16),  # TEST
        ("f3b0", 16),  # MOV AL, imm8
        ("f370", 16),  # JO
        ("ff", 16),
        ("", 16),
    ],
)
def test_next_steps_into_everything_else(code: str, bits: int) -> None:
    assert not is_call_like(bytes.fromhex(code), bits)


@pytest.mark.parametrize("opcode", ["6c", "6d", "6e", "6f", "a4", "a5", "a6", "a7", "aa", "ab", "ac", "ad", "ae", "af"])
def test_every_string_instruction_can_be_repeated(opcode: str) -> None:
    assert is_rep_string(bytes.fromhex("f3" + opcode), 16)
    assert is_rep_string(bytes.fromhex("f2" + opcode), 16)


@pytest.mark.parametrize("prefix", ["26", "2e", "36", "3e", "64", "65", "66", "67", "f0"])
def test_every_prefix_may_stand_before_a_call(prefix: str) -> None:
    assert is_call_like(bytes.fromhex(prefix + "e80000"), 16)


@pytest.mark.parametrize("opcode", ["68", "69", "6b", "a3", "a8", "a9", "b0"])
def test_the_neighbours_of_the_string_instructions_are_none(opcode: str) -> None:
    assert not is_rep_string(bytes.fromhex("f3" + opcode), 16)


def test_only_a_string_instruction_with_a_prefix_is_a_repeated_one() -> None:
    assert is_rep_string(bytes.fromhex("2ef3a5"), 16)
    assert is_rep_string(bytes.fromhex("f348a5"), 64)
    assert not is_rep_string(bytes.fromhex("f348a5"), 32)  # 48 is DEC EAX there
    assert not is_rep_string(bytes.fromhex("a5"), 16)
    assert not is_rep_string(bytes.fromhex("66a5"), 16)
    assert not is_rep_string(bytes.fromhex("e2fe"), 16)
    assert not is_rep_string(b"\xf3", 16)
