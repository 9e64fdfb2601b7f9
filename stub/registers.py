"""gdb's view of an x86 CPU's registers in each mode, made from emu's register table.

gdb 13's i386 code ignores the groups of a target description (all but floating point and vectors are "general" to it),
so `info registers system` is the helper's doing; only groups that gdb knows are given here, for other clients.

The features org.gnu.gdb.i386.* have the registers, order and widths that gdb requires ("Debugging with GDB", "Standard
Target Features", "i386 Features"); all else is in features of our own, org.v2e.x86.*.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from operator import itemgetter

from emu.record import dataclass, field
from emu.x86.flags import Flag
from emu.x86.registers import MSRS, REGISTERS
from emu.x86.state import GENERAL, CpuState
from stub.target import (
    Bits,
    Description,
    EnumType,
    Feature,
    FlagsType,
    Register,
    StructType,
    Type,
    UnionType,
    VectorType,
)

#: Code widths by the architecture that decodes them.
ARCHITECTURES = {16: "i8086", 32: "i386", 64: "i386:x86-64"}
#: gdb numbers the 64-bit registers otherwise than the CPU encodes them.
GENERAL_64 = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *GENERAL[8:])
SEGMENT_ORDER = ("cs", "ss", "ds", "es", "fs", "gs")
FPU_CONTROL = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
#: Sent with every stop reply, so that a step costs no further packet; those from `mode` on for the helper, which knows
#: no 64-bit code.
EXPEDITED = frozenset(
    ("eip", "rip", "esp", "rsp", "ebp", "rbp", "eflags", "cs", "ss", "ip", "mode",
     "eax", "ecx", "edx", "ebx", "esi", "edi", "cr0", "icount")
)  # fmt: skip
#: Where `CpuState.brief` has them, and behind it the instructions retired.
BRIEF = {
    "eip": 0, "rip": 0, "ip": 1, "esp": 2, "rsp": 2, "ebp": 3, "rbp": 3, "eflags": 4, "cs": 5, "ss": 6, "mode": 7,
    "eax": 8, "ecx": 9, "edx": 10, "ebx": 11, "esi": 12, "edi": 13, "cr0": 14, "icount": 15,
}  # fmt: skip
_QUADS = struct.Struct("<16Q")  #: all of it
#: Values of `engine`.
ENGINES = (("emulator", 0), ("native", 1))
#: Registers whose named bits are not all there is to see in them: shown as numbers.
NUMBERS = frozenset(("cr3", "apic_base"))


@dataclass(frozen=True, slots=True)
class Part:
    """`bits` bits at bit `low` of a register that gdb sees: those of `name` in REGISTERS."""

    name: str
    low: int
    bits: int

    def read(self, state: CpuState) -> int:
        """Its value, unshifted, at most `bits` wide."""
        return REGISTERS[self.name].get(state) & (1 << self.bits) - 1


@dataclass(frozen=True, slots=True)
class X86Register(Register):
    """A register made of registers of the table. `read` gives its value, at most `bits` wide. `is_pc`: shown as its
    target's convention says, where that is another than the linear address, which `read` gives. `is_engine`: none of
    the CPU's, but who executes; `is_count`: how many instructions have retired. Neither is to be written."""

    parts: tuple[Part, ...] = ()
    is_pc: bool = False
    read: Callable[[CpuState], int] = field(default=lambda state: 0, compare=False)
    is_engine: bool = False
    is_count: bool = False


class BriefTeller:
    """Tells a description's expedited registers, all of which are in BRIEF, by one look at the CPU."""

    __slots__ = ("_form", "_pieces", "description", "places")

    def __init__(self, description: Description) -> None:
        """Raises KeyError for a register that is not in BRIEF."""
        self.description, self._form = description, description.expedited_form
        #: where in it each is: the first byte and how many
        self.places = tuple((8 * BRIEF[r.name], r.size) for r in description.expedited)
        self._pieces = itemgetter(*(slice(2 * at, 2 * (at + size)) for at, size in self.places))

    def tell(self, state: CpuState, retired: int) -> str:
        """As a stop reply has them; `retired` instructions have."""
        pieces: tuple[str, ...] = self._pieces(_QUADS.pack(*state.brief(), retired).hex())  # what is cut off is high
        return self._form % pieces


def _reader(parts: tuple[Part, ...]) -> Callable[[CpuState], int]:
    """How to read the parts, put together; made once, since every stop reads many registers."""
    if len(parts) > 1:
        several = tuple((REGISTERS[part.name].get, (1 << part.bits) - 1, part.low) for part in parts)

        def read(state: CpuState) -> int:
            value = 0
            for get, mask, low in several:
                value |= (get(state) & mask) << low
            return value

        return read
    (part,) = parts
    return REGISTERS[part.name].get if REGISTERS[part.name].bits <= part.bits else part.read


def _plain(name: str, bits: int, type: str, *, source: str = "", group: str = "", ours: bool = False) -> X86Register:
    parts = (Part(source or name, 0, bits),)
    is_pc, mask = name in ("eip", "rip"), (1 << bits) - 1
    read = (lambda state: state.linear_pc & mask) if is_pc else _reader(parts)
    return X86Register(name, bits, type, group, name in EXPEDITED, not ours, parts, is_pc, read)


def _flags_type(id: str, size: int, flags: tuple[Flag, ...]) -> FlagsType:
    return FlagsType(id, size, tuple(Bits(f.name, f.low_bit, f.high_bit) for f in flags))


def _core(wide: bool) -> Feature:
    """org.gnu.gdb.i386.core, whole: gdb rejects it if a register is missing."""
    bits = 64 if wide else 32
    pointers = {"esp", "ebp", "rsp", "rbp"}
    names = GENERAL_64 if wide else tuple("e" + name[1:] for name in GENERAL[:8])
    registers = [_plain(n, bits, "data_ptr" if n in pointers else f"int{bits}") for n in names]
    registers.append(_plain("rip" if wide else "eip", bits, "code_ptr"))
    registers.append(_plain("eflags", 32, "x86_eflags"))
    registers += [_plain(name, 32, "int32") for name in SEGMENT_ORDER]
    registers += [_plain(f"st{i}", 80, "i387_ext") for i in range(8)]
    registers += [_plain(name, 32, "int", group="float") for name in FPU_CONTROL]
    return Feature(
        "org.gnu.gdb.i386.core", tuple(registers), (_flags_type("x86_eflags", 4, REGISTERS["eflags"].flags),)
    )


def _sse(wide: bool) -> Feature:
    vectors: tuple[tuple[str, str, int], ...] = (
        ("v4_float", "ieee_single", 4),
        ("v2_double", "ieee_double", 2),
        ("v16_int8", "int8", 16),
        ("v8_int16", "int16", 8),
        ("v4_int32", "int32", 4),
        ("v2_int64", "int64", 2),
    )
    types: tuple[Type, ...] = (
        *(VectorType(name, element, count) for name, element, count in vectors),
        UnionType("vec128", (*((name, name) for name, _, _ in vectors), ("uint128", "uint128"))),
        _flags_type("x86_mxcsr", 4, REGISTERS["mxcsr"].flags),
    )
    registers = tuple(_plain(f"xmm{i}", 128, "vec128") for i in range(16 if wide else 8))
    return Feature("org.gnu.gdb.i386.sse", (*registers, _plain("mxcsr", 32, "x86_mxcsr", group="vector")), types)


def _ours(name: str, registers: list[X86Register], types: tuple[Type, ...] = ()) -> Feature:
    return Feature(f"org.v2e.x86.{name}", tuple(registers), types)


def _state(bits: int, native: bool) -> Feature:
    """Where the CPU is: `ip` is the offset in CS, `mode` the width of the next instruction; `engine` is who executes,
    where there is a CPU that runs natively, and where all instructions are counted `icount` is how many have retired
    since reset."""
    ip = _plain("ip", bits, f"uint{bits}", source="rip", ours=True)
    registers = [ip, *(_plain(name, 32, "int", group="system", ours=True) for name in ("mode", "cpl"))]
    if not native:
        count = X86Register("icount", 64, "uint64", "system", "icount" in EXPEDITED, False, (), is_count=True)
        return _ours("state", [*registers, count])
    engine = X86Register("engine", 32, "x86_engine", "system", False, False, (), is_engine=True)
    return _ours("state", [*registers, engine], (EnumType("x86_engine", 4, ENGINES),))


def _access() -> FlagsType:
    return _flags_type("x86_access", 4, REGISTERS["cs_attr"].flags)


def _segments(bits: int) -> Feature:
    """The descriptor caches. In 64-bit mode gdb has fs_base and gs_base in a feature of its own."""
    registers = []
    for name in SEGMENT_ORDER:
        if bits == 32 or name not in ("fs", "gs"):
            registers.append(_plain(f"{name}_base", bits, "data_ptr", ours=True))
        registers.append(_plain(f"{name}_limit", 32, "uint32", ours=True))
        registers.append(_plain(f"{name}_attr", 32, "x86_access", ours=True))
    return _ours("segments", registers, (_access(),))


def _struct(name: str, id: str, fields: list[tuple[str, str, str, int]]) -> tuple[X86Register, StructType]:
    """A register of packed members: (member, its type, its source in the table, bits)."""
    low, parts = 0, []
    for _, _, source, bits in fields:
        parts.append(Part(source, low, bits))
        low += bits
    register = X86Register(name, low, id, "system", False, False, tuple(parts), False, _reader(tuple(parts)))
    return register, StructType(id, tuple((member, type) for member, type, _, _ in fields))


def _tables(bits: int) -> Feature:
    registers, types = [], {}
    for name in ("gdtr", "idtr"):
        register, struct = _struct(
            name, "x86_table", [("base", "data_ptr", f"{name}_base", bits), ("limit", "uint16", f"{name}_limit", 16)]
        )
        registers.append(register)
        types[struct.id] = struct
    for name in ("ldtr", "tr"):
        register, struct = _struct(
            name,
            "x86_system_segment",
            [
                ("selector", "uint16", name, 16),
                ("base", "data_ptr", f"{name}_base", bits),
                ("limit", "uint32", f"{name}_limit", 32),
                ("attr", "x86_access", f"{name}_attr", 32),
            ],
        )
        registers.append(register)
        types[struct.id] = struct
    return _ours("tables", registers, (_access(), *types.values()))


def _system(feature: str, names: tuple[str, ...], bits: int) -> Feature:
    registers, types = [], []
    for name in names:
        entry = REGISTERS[name]
        # EFER and the other MSRs have 64 bits in every mode; control and debug registers follow the mode.
        width = bits if feature in ("control", "debug") and name != "efer" else 64 if entry.bits > 32 else 32
        type = f"uint{width}"
        if entry.flags and name not in NUMBERS:
            type = f"x86_{name}"
            types.append(_flags_type(type, width // 8, entry.flags))
        registers.append(_plain(name, width, type, group="system", ours=True))
    return _ours(feature, registers, tuple(types))


def describe(code_bits: int, *, native: bool = False) -> Description:
    """The registers as gdb is to see them while the CPU's next instruction is `code_bits` (16, 32 or 64) wide, and with
    `native` who executes it."""
    wide = code_bits == 64
    bits = 64 if wide else 32
    features = [_core(wide), _sse(wide)]
    if wide:
        bases = tuple(_plain(name, 64, "data_ptr") for name in ("fs_base", "gs_base"))
        features.append(Feature("org.gnu.gdb.i386.segments", bases))
    features += [
        _state(bits, native),
        _segments(bits),
        _tables(bits),
        _system("control", ("cr0", "cr2", "cr3", "cr4", "cr8", "efer"), bits),
        _system("debug", ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7"), bits),
        _system("msrs", tuple(MSRS), bits),
    ]
    return Description(ARCHITECTURES[code_bits], tuple(features))
