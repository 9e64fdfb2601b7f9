"""Agent expressions: the bytecode in which gdb sends conditions, commands and what to collect. Checked, then run.

"Debugging with GDB", appendix "The GDB Agent Expression Mechanism", section "Bytecode Descriptions", has the codes and
what each does to the stack, of which every element has 64 bits here. A program comes from outside: whatever its bytes
are, it ends, within STEPS instructions and STACK elements, with a value or with an AgentError. Floating point, which
gdb never emits, is refused when the program is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from emu.record import dataclass
from stub.agent_printf import FormatError, formatted
from stub.target import TargetError

STEPS = 10_000  #: instructions that one run may execute
STACK = 100  #: elements
LENGTH = 0x10000  #: bytes of the longest program: a jump's operand has 16 bits
MASK64 = (1 << 64) - 1
_SIGN = 1 << 63


class AgentError(TargetError):
    """The program is malformed, or cannot go on; one sentence says why."""


class World(Protocol):
    """What a program sees of the target. The methods may raise AgentError."""

    def register(self, number: int) -> int:
        """The value of a register by the number it has in the client's target description."""

    def load(self, address: int, size: int) -> bytes:
        """`size` bytes of memory."""

    def text(self, text: str) -> None:
        """The program prints `text`."""

    def collect(self, address: int, length: int) -> None:
        """The program wants the bytes recorded."""

    def variable(self, number: int) -> int:
        """The value of a trace state variable."""

    def set_variable(self, number: int, value: int) -> None:
        """It gets this value, of 64 bits."""

    def collect_variable(self, number: int) -> None:
        """The program wants its value recorded."""


_Stack = list[int]
#: Executes one instruction: gets the stack, the operand and the world; the result is 0, or 1 for a jump to be taken.
_Execute = Callable[[_Stack, int, World], int]


@dataclass(frozen=True, slots=True)
class _Code:
    """A bytecode: its name, the width of its operand in bytes, how many elements it pops and pushes."""

    name: str
    operand: int
    pops: int
    pushes: int
    execute: _Execute


def signed(value: int) -> int:
    """A stack element read as two's complement."""
    return value - (1 << 64) if value & _SIGN else value


def _binary(function: Callable[[int, int], int]) -> _Execute:
    def execute(stack: _Stack, operand: int, world: World) -> int:
        right = stack.pop()
        stack[-1] = function(stack[-1], right) & MASK64
        return 0

    return execute


def _unary(function: Callable[[int], int]) -> _Execute:
    def execute(stack: _Stack, operand: int, world: World) -> int:
        stack[-1] = function(stack[-1]) & MASK64
        return 0

    return execute


def _divided(a: int, b: int) -> tuple[int, int]:
    """Quotient and remainder as C has them: towards zero, the remainder with the dividend's sign."""
    if not b:
        raise AgentError("the expression divides by zero")
    quotient = abs(a) // abs(b)
    if (a < 0) != (b < 0):
        quotient = -quotient
    return quotient, a - quotient * b


def _shifted(a: int, count: int) -> int:
    return a << count if count < 64 else 0


def _push(stack: _Stack, operand: int, world: World) -> int:
    stack.append(operand)
    return 0


def _register(stack: _Stack, operand: int, world: World) -> int:
    stack.append(world.register(operand) & MASK64)
    return 0


def _load(size: int) -> _Execute:
    def execute(stack: _Stack, operand: int, world: World) -> int:
        stack[-1] = int.from_bytes(world.load(stack[-1], size), "little")
        return 0

    return execute


def _sign_extend(stack: _Stack, bits: int, world: World) -> int:
    value = stack[-1] & (1 << bits) - 1
    stack[-1] = (value - (1 << bits) if value >> bits - 1 else value) & MASK64
    return 0


def _zero_extend(stack: _Stack, bits: int, world: World) -> int:
    stack[-1] &= (1 << bits) - 1
    return 0


def _jump(stack: _Stack, operand: int, world: World) -> int:
    return 1


def _jump_if(stack: _Stack, operand: int, world: World) -> int:
    return 1 if stack.pop() else 0


def _duplicate(stack: _Stack, operand: int, world: World) -> int:
    stack.append(stack[-1])
    return 0


def _pick(stack: _Stack, depth: int, world: World) -> int:
    if depth >= len(stack):
        raise AgentError(f"the expression picks element {depth} of a stack of {len(stack)}")
    stack.append(stack[-1 - depth])
    return 0


def _pop(stack: _Stack, operand: int, world: World) -> int:
    stack.pop()
    return 0


def _swap(stack: _Stack, operand: int, world: World) -> int:
    stack[-1], stack[-2] = stack[-2], stack[-1]
    return 0


def _rotate(stack: _Stack, operand: int, world: World) -> int:
    """The top goes below the two elements under it: a b c becomes c a b."""
    stack.insert(-2, stack.pop())
    return 0


def _end(stack: _Stack, operand: int, world: World) -> int:
    raise AssertionError("the run ends before `end` is executed")


def _trace(stack: _Stack, operand: int, world: World) -> int:
    length = stack.pop()
    world.collect(stack.pop(), length)
    return 0


def _trace_text(stack: _Stack, operand: int, world: World) -> int:
    """tracenz: up to `length` bytes, or up to the first that is zero."""
    length = stack.pop()
    address = stack.pop()
    most = min(length, TEXT)
    world.collect(address, min(len(_text(world, address, most)) + 1, most))  # with the zero, where there is room
    return 0


def _trace_quick(stack: _Stack, length: int, world: World) -> int:
    world.collect(stack[-1], length)
    return 0


def _get_variable(stack: _Stack, number: int, world: World) -> int:
    stack.append(world.variable(number) & MASK64)
    return 0


def _set_variable(stack: _Stack, number: int, world: World) -> int:
    world.set_variable(number, stack[-1])
    return 0


def _trace_variable(stack: _Stack, number: int, world: World) -> int:
    world.collect_variable(number)
    return 0


_READ = 64  #: bytes of a text that are read at a time
TEXT = 4096  #: bytes of the longest text that is read from memory


def _text(world: World, address: int, most: int) -> bytes:
    out = b""
    while len(out) < most:
        at = address + len(out) & MASK64
        # Memory begins and ends with pages, so what is behind the text can be read as well as its end.
        data, zero, _ = world.load(at, _READ - at % _READ).partition(b"\0")
        out += data
        if zero:
            break
    return out[:most]


_S, _U = signed, int
#: "Bytecode Descriptions", by code. Not here: 01h and 1Bh to 1Fh, floating point.
CODES: dict[int, _Code] = {
    0x02: _Code("add", 0, 2, 1, _binary(lambda a, b: a + b)),
    0x03: _Code("sub", 0, 2, 1, _binary(lambda a, b: a - b)),
    0x04: _Code("mul", 0, 2, 1, _binary(lambda a, b: a * b)),
    0x05: _Code("div_signed", 0, 2, 1, _binary(lambda a, b: _divided(_S(a), _S(b))[0])),
    0x06: _Code("div_unsigned", 0, 2, 1, _binary(lambda a, b: _divided(a, b)[0])),
    0x07: _Code("rem_signed", 0, 2, 1, _binary(lambda a, b: _divided(_S(a), _S(b))[1])),
    0x08: _Code("rem_unsigned", 0, 2, 1, _binary(lambda a, b: _divided(a, b)[1])),
    0x09: _Code("lsh", 0, 2, 1, _binary(_shifted)),
    0x0A: _Code("rsh_signed", 0, 2, 1, _binary(lambda a, b: _S(a) >> min(b, 63))),
    0x0B: _Code("rsh_unsigned", 0, 2, 1, _binary(lambda a, b: a >> min(b, 64))),
    0x0C: _Code("trace", 0, 2, 0, _trace),
    0x0D: _Code("trace_quick", 1, 1, 1, _trace_quick),
    0x0E: _Code("log_not", 0, 1, 1, _unary(lambda a: not a)),
    0x0F: _Code("bit_and", 0, 2, 1, _binary(lambda a, b: a & b)),
    0x10: _Code("bit_or", 0, 2, 1, _binary(lambda a, b: a | b)),
    0x11: _Code("bit_xor", 0, 2, 1, _binary(lambda a, b: a ^ b)),
    0x12: _Code("bit_not", 0, 1, 1, _unary(lambda a: ~a)),
    0x13: _Code("equal", 0, 2, 1, _binary(lambda a, b: a == b)),
    0x14: _Code("less_signed", 0, 2, 1, _binary(lambda a, b: _S(a) < _S(b))),
    0x15: _Code("less_unsigned", 0, 2, 1, _binary(lambda a, b: a < b)),
    0x16: _Code("ext", 1, 1, 1, _sign_extend),
    0x17: _Code("ref8", 0, 1, 1, _load(1)),
    0x18: _Code("ref16", 0, 1, 1, _load(2)),
    0x19: _Code("ref32", 0, 1, 1, _load(4)),
    0x1A: _Code("ref64", 0, 1, 1, _load(8)),
    0x20: _Code("if_goto", 2, 1, 0, _jump_if),
    0x21: _Code("goto", 2, 0, 0, _jump),
    0x22: _Code("const8", 1, 0, 1, _push),
    0x23: _Code("const16", 2, 0, 1, _push),
    0x24: _Code("const32", 4, 0, 1, _push),
    0x25: _Code("const64", 8, 0, 1, _push),
    0x26: _Code("reg", 2, 0, 1, _register),
    0x27: _Code("end", 0, 0, 0, _end),
    0x28: _Code("dup", 0, 1, 2, _duplicate),
    0x29: _Code("pop", 0, 1, 0, _pop),
    0x2A: _Code("zero_ext", 1, 1, 1, _zero_extend),
    0x2B: _Code("swap", 0, 2, 2, _swap),
    0x2C: _Code("getv", 2, 0, 1, _get_variable),
    0x2D: _Code("setv", 2, 1, 1, _set_variable),
    0x2E: _Code("tracev", 2, 0, 0, _trace_variable),
    0x2F: _Code("tracenz", 0, 2, 0, _trace_text),
    0x30: _Code("trace16", 2, 1, 1, _trace_quick),
    0x32: _Code("pick", 1, 1, 2, _pick),
    0x33: _Code("rot", 0, 3, 3, _rotate),
}
_IF_GOTO, _GOTO, _END, _PRINTF = 0x20, 0x21, 0x27, 0x34
_WIDTHS = frozenset((0x16, 0x2A))  #: ext and zero_ext: the operand is a number of bits
_REFUSED = {
    **dict.fromkeys((0x01, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F), "floating point"),
}


class Meter:
    """The steps that several programs may take together."""

    def __init__(self, steps: int) -> None:
        self._most = self._left = steps

    def spend(self, steps: int) -> None:
        """Raises AgentError where there are no more."""
        self._left -= steps
        if self._left < 0:
            raise AgentError(f"the expressions of one hit take more than {self._most} steps")


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction: `pops` elements have to be there, `grows` is by how many more there are behind it. `target` is
    the index that a taken jump leads to, -1 where the program ends."""

    execute: _Execute
    operand: int
    pops: int
    grows: int
    target: int


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was read. `registers` are the numbers of those it names. `straight` are its instructions where it
    has no jump, and none of them can find the stack too low or too high; else it is empty."""

    steps: tuple[_Step, ...]
    registers: frozenset[int]
    straight: tuple[tuple[_Execute, int], ...] = ()

    def run(self, world: World, meter: Meter | None = None) -> int:
        """Execute it; the top of the stack at its end, 0 where that is empty. `meter` counts the steps. Raises
        AgentError."""
        stack: _Stack = []
        if self.straight:
            if meter is not None:
                meter.spend(len(self.straight))
            for execute, operand in self.straight:
                execute(stack, operand, world)
            return stack[-1] if stack else 0
        steps, at = self.steps, 0
        for done in range(STEPS):
            step = steps[at]
            depth = len(stack)
            if step.target == -1:
                if meter is not None:
                    meter.spend(done)
                return stack[-1] if stack else 0
            if depth < step.pops:
                raise AgentError(f"the expression takes {step.pops} elements of a stack of {depth}")
            if depth + step.grows > STACK:
                raise AgentError(f"the expression needs a stack of more than {STACK} elements")
            at = step.target if step.execute(stack, step.operand, world) else at + 1
        raise AgentError(f"the expression does not end within {STEPS} steps")


def _straight(steps: tuple[_Step, ...]) -> tuple[tuple[_Execute, int], ...]:
    """See Program; what stands behind `end` is never executed."""
    depth, found = 0, []
    for step in steps:
        if step.target == -1:
            break
        if step.execute in (_jump, _jump_if) or depth < step.pops or depth + step.grows > STACK:
            return ()
        depth += step.grows
        found.append((step.execute, step.operand))
    return tuple(found) if len(found) <= STEPS else ()


def _print(count: int, text: str) -> _Execute:
    """printf: the function and the channel, on top, mean nothing here; below are the arguments, the first on top."""

    def execute(stack: _Stack, operand: int, world: World) -> int:
        del stack[-2:]
        arguments = [stack.pop() for _ in range(count)]
        try:
            world.text(formatted(text, arguments, lambda address, most: _text(world, address, min(most, TEXT))))
        except FormatError as error:
            raise AgentError(str(error)) from None
        return 0

    return execute


def parse(code: bytes) -> Program:
    """Read a program. Raises AgentError for one that cannot be executed whatever happens."""
    if len(code) > LENGTH:
        raise AgentError(f"the expression has {len(code)} bytes; at most {LENGTH} are read")
    found: list[tuple[_Execute, int, int, int, bool]] = []
    index_at: dict[int, int] = {}
    registers = set()
    at = 0
    while at < len(code):
        index_at[at] = len(found)
        number = code[at]
        if number == _PRINTF:
            execute, count, at = _read_printf(code, at + 1)
            found.append((execute, 0, count + 2, -count - 2, False))
            continue
        entry = CODES.get(number)
        if entry is None:
            what = f"{_REFUSED[number]}, which is not served" if number in _REFUSED else "no bytecode"
            raise AgentError(f"byte {at} of the expression, {number:#04x}, is {what}")
        operand = code[at + 1 : at + 1 + entry.operand]
        if len(operand) < entry.operand:
            raise AgentError(f"the expression ends within its instruction {entry.name}")
        value = int.from_bytes(operand, "big")
        if number in _WIDTHS and not 1 <= value <= 64:
            raise AgentError(f"{entry.name} of {value} bits: 1 to 64 are possible")
        if number == 0x26:
            registers.add(value)
        found.append((entry.execute, value, entry.pops, entry.pushes - entry.pops, number in (_IF_GOTO, _GOTO)))
        if number == _END:
            found[-1] = (entry.execute, -1, 0, 0, False)
        at += 1 + entry.operand
    steps = []
    for execute, value, pops, grows, jumps in found:
        if jumps and value not in index_at:
            raise AgentError(f"the expression jumps to byte {value}, where no instruction begins")
        target = index_at[value] if jumps else -1 if execute is _end else 0
        steps.append(_Step(execute, value, pops, grows, target))
    steps.append(_Step(_end, 0, 0, 0, -1))  # what does not say `end` ends behind its last instruction
    return Program(tuple(steps), frozenset(registers), _straight(tuple(steps)))


def _read_printf(code: bytes, at: int) -> tuple[_Execute, int, int]:
    """The operands of printf: the number of arguments, the format's length in two bytes, and the format with its
    final zero byte. Gives the executor, the number of arguments, and where the next instruction is."""
    head = code[at : at + 3]
    if len(head) < 3:
        raise AgentError("the expression ends within its instruction printf")
    count, length = head[0], head[1] << 8 | head[2]
    text = code[at + 3 : at + 3 + length]
    if len(text) < length or not text.endswith(b"\0"):
        raise AgentError("the format of printf has no end")
    if count + 2 > STACK:
        raise AgentError(f"printf with {count} arguments: at most {STACK - 2} are possible")
    return _print(count, text[:-1].decode("utf-8", "replace")), count, at + 3 + length
