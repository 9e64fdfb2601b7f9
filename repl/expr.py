"""Expressions people type: numbers, seg:off, registers, symbols, arithmetic, memory in brackets.

Grammar, loosest first; C's precedence, but comparisons are looser than all arithmetic, as in Python::

    whole   := both ('||' both)*              0 or 1; what is behind is evaluated only where it matters
    both    := equal ('&&' equal)*
    equal   := order (('==' | '!=') order)*
    order   := address (('<' | '<=' | '>' | '>=') address)*
    address := or [':' or]                    seg:off gives a linear address
    or      := xor ('|' xor)*
    xor     := and ('^' and)*
    and     := shift ('&' shift)*
    shift   := sum (('<<' | '>>') sum)*
    sum     := product (('+' | '-') product)*
    product := unary (('*' | '/' | '%') unary)*
    unary   := ('-' | '+' | '~' | '!') unary | primary
    primary := number | 'c' | [$]register | symbol | '(' whole ')' | [size ['ptr']] '[' address ']'

Numbers are decimal, or hex with 0x in front or h behind, or binary with 0b. A far address of two bare numbers is hex,
as everybody writes and v2e prints it (`0:7c00`, `f000:fff0`). Names are registers first, then symbols.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

#: Sizes nasm gives memory operands, in bytes.
SIZES = {"byte": 1, "word": 2, "dword": 4, "qword": 8}
SEGMENT_REGISTERS = ("es", "cs", "ss", "ds", "fs", "gs")
_MAX_DEPTH = 40
_MAX_LENGTH = 2000
_MAX_SHIFT = 64


class ExpressionError(Exception):
    """One sentence that names the token."""


class Scope(Protocol):
    """What names and brackets mean."""

    def register(self, name: str) -> int | None:
        """The value of a register or a part of one (lower case), None when there is none of that name."""

    def symbol(self, name: str) -> int | None: ...

    def segment_base(self, selector: int) -> int:
        """Linear base of a selector, a segment in real and V86 mode. Raises ExpressionError."""

    def cached_base(self, register: str) -> int:
        """Base in the descriptor cache of a segment register."""

    def load(self, address: int, size: int) -> int:
        """`size` bytes at a linear address, little endian. Raises ExpressionError."""

    def word_size(self) -> int:
        """The current code segment's width in bytes: 2, 4 or 8."""


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


_TOKENS = re.compile(
    r"""(?P<space>\s+)
      | (?P<far>[0-9a-fA-F]{1,4}:[0-9a-fA-F]{1,16}(?![\w:]))
      | (?P<number>[0-9]\w*)
      | (?P<char>'[^']')
      | (?P<register>\$\w+)
      | (?P<name>[A-Za-z_.@?][\w.@?$]*)
      | (?P<op><<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~()\[\]:<>!])""",
    re.VERBOSE,
)


def parse_number(text: str) -> int:
    """A number as the grammar has it. Raises ExpressionError naming it."""
    digits = text.replace("_", "").lower()
    try:
        if digits.startswith("0x"):
            return int(digits[2:], 16)
        if digits.endswith("h"):
            return int(digits[:-1], 16)
        if digits.startswith("0b"):
            return int(digits[2:], 2)
        return int(digits, 10)
    except ValueError:
        hint = ""
        if re.fullmatch(r"[0-9a-f]+", digits):
            hint = f"; hex is 0x{digits} or {digits}h"
        raise ExpressionError(f"{text!r} is not a number{hint}") from None


def _tokens(text: str) -> list[_Token]:
    if len(text) > _MAX_LENGTH:
        raise ExpressionError(f"the expression has {len(text)} characters; at most {_MAX_LENGTH} are read")
    found, at = [], 0
    while at < len(text):
        match = _TOKENS.match(text, at)
        if match is None:
            raise ExpressionError(f"{text[at]!r} does not belong in an expression ({text.strip()!r})")
        kind = match.lastgroup or ""
        if kind != "space":
            found.append(_Token(kind, match.group(), at))
        at = match.end()
    found.append(_Token("end", "", at))
    return found


class _Parser:
    """Evaluates while it parses; nothing is kept."""

    def __init__(self, text: str, tokens: list[_Token], scope: Scope, *, idle: bool = False) -> None:
        self._text, self._scope = text.strip(), scope
        self._tokens = tokens
        self._next = 0
        self._depth = 0
        self._idle = int(idle)  #: above 0: what is read does not matter, so it is not looked up

    def whole(self) -> int:
        value = self._either()
        token = self._peek()
        if token.kind != "end":
            raise ExpressionError(f"unexpected {token.text!r} in {self._text!r}")
        return value

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _accept(self, *operators: str) -> str | None:
        token = self._peek()
        if token.kind == "op" and token.text in operators:
            self._next += 1
            return token.text
        return None

    def _either(self) -> int:
        value = self._both()
        while self._accept("||"):
            value = self._second(self._both, value != 0, 1)
        return value

    def _both(self) -> int:
        value = self._equal()
        while self._accept("&&"):
            value = self._second(self._equal, value == 0, 0)
        return value

    def _second(self, operand: Callable[[], int], decided: bool, value: int) -> int:
        """The right side of a logical operator whose left one may have decided."""
        self._idle += decided
        right = operand()
        self._idle -= decided
        return value if decided else int(right != 0)

    def _address(self) -> int:
        first = self._peek()
        start = self._next
        value = self._or()
        if self._accept(":") is None:
            return value
        if self._peek().kind == "far":
            raise ExpressionError(f"unexpected ':' in {self._text!r}: an address has one segment and one offset")
        register = first.text.lstrip("$").lower()
        if self._next - start != 2 or register not in SEGMENT_REGISTERS:
            return self._linear(0 if self._idle else self._scope.segment_base(value), self._or())
        if self._peek().text == "[":
            raise ExpressionError(f"write [{register}:...] for memory relative to {register.upper()}")
        return self._linear(self._scope.cached_base(register), self._or())

    def _linear(self, base: int, offset: int) -> int:
        # Outside 64-bit mode linear addresses wrap at 4 GiB (SDM vol. 3A, 3.4).
        mask = 0xFFFFFFFFFFFFFFFF if self._scope.word_size() == 8 else 0xFFFFFFFF
        return base + offset & mask

    def _or(self) -> int:
        value = self._xor()
        while self._accept("|"):
            value |= self._xor()
        return value

    def _xor(self) -> int:
        value = self._and()
        while self._accept("^"):
            value ^= self._and()
        return value

    def _and(self) -> int:
        value = self._shift()
        while self._accept("&"):
            value &= self._shift()
        return value

    def _equal(self) -> int:
        value = self._order()
        while operator := self._accept("==", "!="):
            value = int((value == self._order()) == (operator == "=="))
        return value

    def _order(self) -> int:
        value = self._address()
        while operator := self._accept("<", "<=", ">", ">="):
            right = self._address()
            value = int({"<": value < right, "<=": value <= right, ">": value > right, ">=": value >= right}[operator])
        return value

    def _shift(self) -> int:
        value = self._sum()
        while operator := self._accept("<<", ">>"):
            count = self._sum()
            if not 0 <= count <= _MAX_SHIFT:
                raise ExpressionError(f"cannot shift by {count}; 0 to {_MAX_SHIFT} is possible")
            value = value << count if operator == "<<" else value >> count
        return value

    def _sum(self) -> int:
        value = self._product()
        while operator := self._accept("+", "-"):
            term = self._product()
            value = value + term if operator == "+" else value - term
        return value

    def _product(self) -> int:
        value = self._unary()
        while operator := self._accept("*", "/", "%"):
            factor = self._unary()
            if operator == "*":
                value *= factor
            elif factor == 0 and self._idle:
                value = 0
            elif factor == 0:
                raise ExpressionError(f"division by zero in {self._text!r}")
            else:
                value = value // factor if operator == "/" else value % factor
        return value

    def _unary(self) -> int:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ExpressionError(f"the expression is nested deeper than {_MAX_DEPTH} levels")
        try:
            if operator := self._accept("-", "+", "~", "!"):
                value = self._unary()
                return {"-": -value, "+": value, "~": ~value, "!": int(not value)}[operator]
            return self._primary()
        finally:
            self._depth -= 1

    def _primary(self) -> int:
        token = self._take()
        if token.kind == "number":
            return parse_number(token.text)
        if token.kind == "far":
            segment, offset = token.text.split(":")
            return self._linear(self._scope.segment_base(int(segment, 16)), int(offset, 16))
        if token.kind == "char":
            return ord(token.text[1])
        if token.kind == "register":
            value = self._scope.register(token.text[1:].lower())
            if value is None:
                raise ExpressionError(f"there is no register {token.text}")
            return value
        if token.kind == "name":
            return self._name(token)
        if token.text == "(":
            value = self._either()
            self._expect(")", token)
            return value
        if token.text == "[":
            return self._memory(token, self._scope.word_size())
        if token.kind == "end":
            where = f"{self._text!r} ends where a value is expected" if self._text else "a value is missing"
            raise ExpressionError(where)
        raise ExpressionError(f"unexpected {token.text!r} in {self._text!r}")

    def _name(self, token: _Token) -> int:
        lower = token.text.lower()
        if lower in SIZES:
            after = self._peek()
            if after.text.lower() == "ptr":
                self._take()
                after = self._peek()
            if after.text == "[":
                return self._memory(self._take(), SIZES[lower])
        value = self._scope.register(lower)
        if value is None:
            value = self._scope.symbol(token.text)
        if value is None:
            hint = f"; as a hex number write 0x{token.text}" if re.fullmatch(r"[0-9a-fA-F]+", token.text) else ""
            raise ExpressionError(f"{token.text!r} is neither a register nor a symbol{hint}")
        return value

    def _memory(self, opening: _Token, size: int) -> int:
        address = self._address()
        self._expect("]", opening)
        if self._idle:
            return 0
        if address < 0:
            raise ExpressionError(f"[{address}] is below address 0")
        return self._scope.load(address, size)

    def _expect(self, closing: str, opening: _Token) -> None:
        if self._accept(closing) is None:
            raise ExpressionError(f"{opening.text!r} in {self._text!r} has no {closing!r}")


class Expression:
    """An expression to be evaluated many times. Raises ExpressionError for what is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = _tokens(text)

    def check(self, scope: Scope) -> None:
        """Raises ExpressionError for what is no expression or names nothing there is; memory is not looked at."""
        _Parser(self.text, self._tokens, scope, idle=True).whole()

    def value(self, scope: Scope) -> int:
        """Its value now. Raises ExpressionError."""
        return _Parser(self.text, self._tokens, scope).whole()


def evaluate(text: str, scope: Scope) -> int:
    """The value of `text`; seg:off gives the linear address. Raises ExpressionError with one sentence."""
    return Expression(text).value(scope)
