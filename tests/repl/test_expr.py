"""What people type as addresses and numbers."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repl.expr import ExpressionError, evaluate, parse_number


class FakeScope:
    """Real mode; CS's cached base is not selector * 16, as after reset."""

    def __init__(self):
        self.registers = {"eax": 0x1234, "ah": 0x12, "di": 0x10, "ip": 0xFFF0, "cs": 0xF000, "es": 0xB800}
        self.symbols = {"start": 0x7C00, "start.loop": 0x7C03, "FOO": 5, "di_table": 0x900}
        self.bases = {"cs": 0xFFFF0000, "es": 0xB8000}
        self.memory = bytes(range(256))
        self.width = 2

    def register(self, name):
        return self.registers.get(name)

    def symbol(self, name):
        return self.symbols.get(name)

    def segment_base(self, selector):
        if not 0 <= selector <= 0xFFFF:
            raise ExpressionError(f"segment {selector:#x} is out of range")
        return selector << 4

    def cached_base(self, register):
        return self.bases[register]

    def load(self, address, size):
        if address + size > len(self.memory):
            raise ExpressionError(f"cannot read {size} bytes at {address:#x}")
        return int.from_bytes(self.memory[address : address + size], "little")

    def word_size(self):
        return self.width


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("31744", 31744),
        ("0x7c00", 0x7C00),
        ("7c00h", 0x7C00),
        ("0FFh", 0xFF),
        ("0b101", 5),
        ("1_000", 1000),
        ("0b1h", 0xB1),  # the suffix wins, as in nasm
        ("'A'", 65),
        ("' '", 32),
        ("$eax", 0x1234),
        ("eax", 0x1234),
        ("EAX", 0x1234),
        ("ah", 0x12),
        ("start", 0x7C00),
        ("start.loop", 0x7C03),
        ("di_table", 0x900),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 2 - 3", 5),
        ("100 / 7", 14),
        ("100 % 7", 2),
        ("1 << 4 + 1", 32),  # C: + binds tighter
        ("256 >> 4", 16),
        ("6 | 1 & 3", 7),
        ("-1 + 2", 1),
        ("~0 & 0xff", 0xFF),
        ("--3", 3),
        ("0:7c00", 0x7C00),
        ("f000:fff0", 0xFFFF0),
        ("0000:00007c00", 0x7C00),
        ("0x7c0:0x10", 0x7C10),
        ("0x10 + 0x20:8", 0x308),
        ("cs:ip", 0xFFFFFFF0),
        ("$cs:$ip", 0xFFFFFFF0),
        ("es:di + 2", 0xB8012),
        ("0xffff:0x10", 0x100000),  # past 1 MiB: A20 is the machine's, not the expression's
        ("[0x10]", 0x1110),
        ("byte [0x10]", 0x10),
        ("word ptr [0x10]", 0x1110),
        ("dword [di]", 0x13121110),
        ("qword [0]", 0x0706050403020100),
        ("byte [0:0x20] + 1", 0x21),
        ("byte [byte [3]]", 3),
        ("(0:0x20)", 0x20),
        ("FOO", 5),
        ("6 ^ 3", 5),
        ("eax == 0x1234", 1),
        ("eax != 0x1234", 0),
        ("1 < 2", 1),
        ("2 <= 1", 0),
        ("3 > 2 == 1", 1),  # C: < binds tighter than ==
        ("6 & 3 == 2", 1),  # not as in C: & binds tighter
        ("1 << 1 < 3", 1),
        ("!5", 0),
        ("!0 + 1", 2),
        ("1 && 0 || 1", 1),
        ("0 && 1 / 0", 0),  # what does not matter is not evaluated
        ("1 || [0xffff]", 1),
        ("0 || 7", 1),
        ("(eax == 0x1234) && (ah == 0x12)", 1),
        ("es:di == 0xb8000 + di", 1),
        ("0:7c00 == start", 1),
    ],
)
def test_an_expression_has_the_value_people_expect(text, value):
    assert evaluate(text, FakeScope()) == value


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("", "missing"),
        ("7c00", "0x7c00"),  # the hint
        ("fffe0", "0xfffe0"),
        ("0x", "'0x'"),
        ("0xzz", "'0xzz'"),
        ("12q", "'12q'"),
        ("nothing", "'nothing'"),
        ("$nothing", "$nothing"),
        ("1 +", "'1 +'"),
        ("1 2", "'2'"),
        ("(1", "'('"),
        ("[1", "'['"),
        ("1)", "')'"),
        ("1 ; 2", "';'"),
        ("1 / 0", "division by zero"),
        ("1 % (2 - 2)", "division by zero"),
        ("1 << 100", "100"),
        ("1 << -1", "-1"),
        ("es:[di]", "[es:...]"),
        ("0x10000:0", "0x10000"),
        ("[0x1000]", "0x1000"),
        ("[0 - 1]", "-1"),
        ("1:2:3", "':'"),
        ("*", "'*'"),
    ],
)
def test_an_error_names_what_is_wrong(text, token):
    with pytest.raises(ExpressionError) as caught:
        evaluate(text, FakeScope())
    assert token in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_linear_address_wraps_at_4_gib_outside_64_bit_mode():
    """SDM vol. 3A, 3.4: linear addresses are 32 bits wide."""
    assert evaluate("cs:0x10010", FakeScope()) == 0x10
    wide = FakeScope()
    wide.width = 8
    assert evaluate("cs:0x10010", wide) == 0x1_0000_0010


def test_brackets_read_as_many_bytes_as_the_code_is_wide():
    scope = FakeScope()
    values = []
    for width in (2, 4, 8):
        scope.width = width
        values.append(evaluate("[0]", scope))
    assert values == [0x0100, 0x03020100, 0x0706050403020100]


@pytest.mark.parametrize("text", ["(" * 500 + "1" + ")" * 500, "-" * 1999, "1" * 5000])
def test_a_monstrous_expression_is_refused_not_followed_into_the_stack(text):
    if text.startswith("-"):
        text += "1"
    with pytest.raises(ExpressionError):
        evaluate(text, FakeScope())


@given(st.integers(0, 1 << 64))
def test_all_notations_of_a_number_agree(value):
    forms = (str(value), hex(value), f"0{value:x}h", bin(value))
    assert [parse_number(form) for form in forms] == [value] * 4


_LEAVES = st.integers(0, 1 << 40).map(lambda n: (str(n), n))
_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "&": operator.and_, "|": operator.or_}


def _combined(children):
    return st.tuples(st.sampled_from(sorted(_OPERATORS)), children, children).map(
        lambda t: (f"({t[1][0]}{t[0]}{t[2][0]})", _OPERATORS[t[0]](t[1][1], t[2][1]))
    )


@given(st.recursive(_LEAVES, _combined, max_leaves=12))
def test_arithmetic_agrees_with_pythons(pair):
    text, value = pair
    assert evaluate(text, FakeScope()) == value


@given(st.text(max_size=60) | st.text("0123456789abcdefx()[]:+-*/<>&|~$ 'hcsei", max_size=60))
def test_any_text_is_a_value_or_one_sentence(text):
    try:
        value = evaluate(text, FakeScope())
    except ExpressionError as error:
        assert str(error)
        assert "\n" not in str(error)
    else:
        assert isinstance(value, int)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_a_far_address_is_read_as_it_is_printed(segment, offset):
    assert evaluate(f"{segment:04x}:{offset:04x}", FakeScope()) == segment * 16 + offset
