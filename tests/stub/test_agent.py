"""Agent expressions: every bytecode, by the effects on the stack that gdb's manual gives, and whatever bytes come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stub.agent import STACK, STEPS, AgentError, parse
from stub.agent_printf import FormatError, formatted

MASK = (1 << 64) - 1


@dataclass
class Scene:
    """A target with 256 bytes of memory from 1000h, each its own low address byte, and registers 3n + 1."""

    texts: list[str] = field(default_factory=list)
    collected: list[tuple[int, int]] = field(default_factory=list)
    variables: dict[int, int] = field(default_factory=lambda: {1: -5, 0x102: 7})

    def register(self, number: int) -> int:
        return 3 * number + 1

    def load(self, address: int, size: int) -> bytes:
        if not 0x1000 <= address <= 0x1100 - size:
            raise AgentError(f"nothing at {address:#x}")
        return bytes(i & 0xFF for i in range(address, address + size))

    def text(self, text: str) -> None:
        self.texts.append(text)

    def collect(self, address: int, length: int) -> None:
        self.collected.append((address, length))

    def variable(self, number: int) -> int:
        if number not in self.variables:
            raise AgentError(f"there is no variable {number}")
        return self.variables[number]

    def set_variable(self, number: int, value: int) -> None:
        self.variables[number] = value

    def collect_variable(self, number: int) -> None:
        self.collected.append((number, self.variable(number)))


def run(code: bytes, scene: Scene | None = None) -> int:
    return parse(code).run(scene or Scene())


def constant(value: int) -> bytes:
    return b"\x25" + (value & MASK).to_bytes(8, "big")


#: "Bytecode Descriptions": what is on the stack before, the code, what is on top behind it.
ROWS: tuple[tuple[Sequence[int], str, int], ...] = (
    ((7, 5), "02", 12),
    ((MASK, 2), "02", 1),
    ((5, 7), "03", -2),
    ((1 << 40, 1 << 30), "04", (1 << 70) & MASK),
    ((-7, 2), "05", -3),
    ((7, -2), "05", -3),
    ((-7, 2), "06", (MASK - 6) // 2),
    ((-7, 2), "07", -1),
    ((7, -2), "07", 1),
    ((-7, 2), "08", 1),
    ((1, 63), "09", 1 << 63),
    ((1, 64), "09", 0),
    ((-8, 1), "0a", -4),
    ((-8, 200), "0a", -1),
    ((-8, 1), "0b", (MASK - 7) >> 1),
    ((0,), "0e", 1),
    ((5,), "0e", 0),
    ((0b1100, 0b1010), "0f", 0b1000),
    ((0b1100, 0b1010), "10", 0b1110),
    ((0b1100, 0b1010), "11", 0b0110),
    ((0,), "12", -1),
    ((5, 5), "13", 1),
    ((5, 6), "13", 0),
    ((-1, 0), "14", 1),
    ((-1, 0), "15", 0),
    ((0x1FF,), "16 08", -1),
    ((0x17F,), "16 08", 0x7F),
    ((5,), "16 40", 5),
    ((0x1010,), "17", 0x10),
    ((0x1010,), "18", 0x1110),
    ((0x1010,), "19", 0x13121110),
    ((0x1010,), "1a", 0x1716151413121110),
    ((), "22 ff", 0xFF),
    ((), "23 ff fe", 0xFFFE),
    ((), "24 01 02 03 04", 0x01020304),
    ((), "25 01 02 03 04 05 06 07 08", 0x0102030405060708),
    ((), "26 00 05", 16),
    ((4,), "28 02", 8),
    ((4, 9), "29", 4),
    ((0x1FF,), "2a 08", 0xFF),
    ((3, 10), "2b 03", 7),
    ((1, 2, 3), "32 02", 1),
    ((1, 2, 3), "32 00", 3),
    # a b c becomes c a b
    ((1, 2, 3), "33", 2),
    ((1, 2, 3), "33 29", 1),
    ((1, 2, 3), "33 29 29", 3),
    # if_goto over a constant: byte 9 + 3 + 2 is where the `end` stands
    ((1,), "20 00 0e 22 63 27", 0),
    ((0,), "20 00 0e 22 63 27", 0x63),
    ((), "21 00 05 22 63 27", 0),
    # what stands behind `end` is never executed
    ((3,), "27 22 63", 3),
)


@pytest.mark.parametrize(("before", "code", "top"), ROWS)
def test_each_bytecode_does_what_the_manual_says(before: Sequence[int], code: str, top: int) -> None:
    assert run(b"".join(map(constant, before)) + bytes.fromhex(code)) == top & MASK


def test_traces_are_collected() -> None:
    scene = Scene()
    run(constant(0x1000) + b"\x0d\x08" + b"\x30\x01\x02" + constant(4) + b"\x0c", scene)
    assert scene.collected == [(0x1000, 8), (0x1000, 0x102), (0x1000, 4)]
    # a zero at 1100h - 100h = 1000h only: at 1010h the text is longer than each limit, which counts its zero too
    scene = Scene()
    for length in (0, 1, 4):
        run(constant(0x1010) + constant(length) + b"\x2f", scene)
    run(constant(0x1000) + constant(4) + b"\x2f", scene)
    assert scene.collected == [(0x1010, 0), (0x1010, 1), (0x1010, 4), (0x1000, 1)]
    with pytest.raises(AgentError):  # a text that ends nowhere
        run(constant(0x10FD) + constant(10) + b"\x2f")


def test_printf_takes_its_arguments_from_under_the_function_and_the_channel() -> None:
    scene = Scene()
    text = b"%d and %x\n\0"
    code = constant(0xAB) + constant(-5) + constant(0) * 2 + b"\x34\x02" + len(text).to_bytes(2, "big") + text
    assert run(code + b"\x27", scene) == 0
    assert scene.texts == ["-5 and ab\n"]


def test_trace_state_variables_are_read_set_and_collected() -> None:
    scene = Scene()
    # getv 102h; const8 1; add; setv 102h; tracev 102h; getv 1
    assert run(bytes.fromhex("2c0102 2201 02 2d0102 2e0102 2c0001 27"), scene) == -5 & MASK
    assert scene.variables[0x102] == 8
    assert scene.collected == [(0x102, 8)]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("01", "floating point"),
        ("31", "no bytecode"),
        ("ff", "no bytecode"),
        ("22", "ends within its instruction const8"),
        ("25 01 02", "const64"),
        ("22 01 16 00", "0 bits"),
        ("22 01 2a 41", "65 bits"),
        ("21 00 02", "no instruction begins"),
        ("34 01", "printf"),
        ("34 00 00 02 41 42", "no end"),
        ("34 ff 00 01 00", "at most"),
    ],
)
def test_a_malformed_program_is_refused_when_it_is_read(code: str, words: str) -> None:
    with pytest.raises(AgentError, match=words):
        parse(bytes.fromhex(code))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("02", "takes 2 elements of a stack of 0"),
        ("22 01 22 00 05", "divides by zero"),
        ("22 01 22 00 08", "divides by zero"),
        ("22 01 32 05", "picks element 5"),
        ("21 00 00", f"within {STEPS} steps"),
        ("22 01 21 00 00", f"more than {STACK} elements"),
        ("22 01 17", "nothing at 0x1"),
    ],
)
def test_a_program_that_cannot_go_on_says_why(code: str, words: str) -> None:
    with pytest.raises(AgentError, match=words):
        run(bytes.fromhex(code))


@given(st.binary(max_size=60))
@settings(max_examples=4 * settings.default.max_examples, deadline=None)
def test_any_bytes_end_with_a_value_or_a_sentence(code: bytes) -> None:
    try:
        value = run(code)
    except AgentError as error:
        assert str(error)
    else:
        assert 0 <= value <= MASK


Expression = tuple[bytes, int]
_INTEGERS = st.one_of(st.integers(-300, 300), st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([0, 1, 63, 64]))


def _signed(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _leaf(value: int) -> Expression:
    return constant(value), _signed(value)


def _both(args: tuple[Expression, Expression, tuple[str, int]]) -> Expression:
    (left, a), (right, b), (operator, code) = args
    # Python's own arithmetic on C's terms: the shortest statement of what the code must give.
    value = {"+": a + b, "-": a - b, "*": a * b, "&": a & b, "|": a | b, "^": a ^ b,
             "<": int(a < b), "==": int(a == b), "u<": int((a & MASK) < (b & MASK))}[operator]  # fmt: skip
    return left + right + bytes((code,)), _signed(value)


_OPERATORS = (("+", 2), ("-", 3), ("*", 4), ("&", 15), ("|", 16), ("^", 17), ("==", 19), ("<", 20), ("u<", 21))
_EXPRESSIONS = st.recursive(
    _INTEGERS.map(_leaf), lambda inner: st.tuples(inner, inner, st.sampled_from(_OPERATORS)).map(_both), max_leaves=25
)


@given(_EXPRESSIONS)
@settings(max_examples=3 * settings.default.max_examples // 2, deadline=None)
def test_expressions_have_the_value_that_c_gives_them(expression: Expression) -> None:
    code, value = expression
    assert run(code) == value & MASK


#: (format, arguments, what the C library prints)
PRINTED = (
    ("plain 100%%", (), "plain 100%"),
    (r"a\tb\n\101\"\\%%", (), 'a\tb\nA"\\%'),
    ("%d %i %u", (-1, 7, -1), "-1 7 4294967295"),
    ("%ld|%lld|%lu", (-1, 1 << 62, -1), f"-1|{1 << 62}|{MASK}"),
    ("%hhd %hd", (0x1FF, 0x18000), "-1 -32768"),
    ("%x %X %#x %#o %o", (0xAB, 0xAB, 0xAB, 8, 8), "ab AB 0xab 010 10"),
    ("[%5d|%-5d|%05d|%+d|% d]", (42, 42, -42, 42, 42), "[   42|42   |-0042|+42| 42]"),
    ("%.3d %8.3x %.0d", (5, 0xA, 0), "005      00a "),
    ("%c%3c", (65, 66), "A  B"),
    ("%p", (0x7C00,), "0x7c00"),
    ("<%s|%6s|%-6s|%.2s>", (0, 0, 0, 0), "<text|  text|text  |te>"),
)


@pytest.mark.parametrize(("format", "arguments", "expected"), PRINTED)
def test_formats_print_as_the_c_library_does(format: str, arguments: Sequence[int], expected: str) -> None:
    assert formatted(format, arguments, lambda address, most: b"text"[:most]) == expected


@pytest.mark.parametrize("format", ["%d", "%f", "%n", "%9999d", "%.9999d", "%*d", "%", "%ls%", r"\q", "\\"])
def test_a_format_that_cannot_be_served_is_refused(format: str) -> None:
    with pytest.raises(FormatError):
        formatted(format, [] if format == "%d" else [1], lambda address, most: b"")


@given(st.text(alphabet="%dxslh.0-+# 9c", max_size=12), st.lists(st.integers(0, MASK), max_size=4))
@settings(max_examples=2 * settings.default.max_examples, deadline=None)
def test_any_format_prints_or_is_refused(format: str, arguments: list[int]) -> None:
    try:
        text = formatted(format, arguments, lambda address, most: b"x" * min(most, 10))
    except FormatError:
        return
    assert len(text) < 20_000
