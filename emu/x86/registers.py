"""The one table of registers, which gdb, the prompt and JSON share: name, width, group, how to read and write each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from emu.record import dataclass
from emu.x86 import flags as bits_of
from emu.x86 import register_writes as writes
from emu.x86.flags import Flag
from emu.x86.modes import code_bits
from emu.x86.register_writes import RegisterError, fits
from emu.x86.state import GENERAL, SEGMENTS, CpuState, Fpu

__all__ = ["GROUPS", "MSRS", "REGISTERS", "Flag", "Register", "RegisterError", "flag_names", "full_tag_word"]

GROUPS = ("general", "pointer", "flags", "segment", "system", "debug", "fpu", "sse", "derived")


@dataclass(frozen=True, slots=True)
class Register:
    """A register, a part of one, or a field of a segment's cache. `bits` is its width.

    `set` changes the given state as the CPU would, or raises RegisterError (one sentence) and changes nothing; it
    takes negative numbers in two's complement. None: the value is derived and cannot be written.
    """

    name: str
    bits: int
    group: str
    get: Callable[[CpuState], int]
    set: Callable[[CpuState, int], None] | None
    doc: str
    flags: tuple[Flag, ...] = ()


#: Registers kept in `CpuState.msrs`: MSR number and value after RESET (SDM vol. 4, table 2-2; vol. 3A, table 10-1).
MSRS = MappingProxyType(
    {
        "apic_base": (0x1B, 0xFEE00900),
        "sysenter_cs": (0x174, 0),
        "sysenter_esp": (0x175, 0),
        "sysenter_eip": (0x176, 0),
        "pat": (0x277, 0x0007040600070406),
        "star": (0xC0000081, 0),
        "lstar": (0xC0000082, 0),
        "cstar": (0xC0000083, 0),
        "fmask": (0xC0000084, 0),
        "kernel_gs_base": (0xC0000102, 0),
    }
)

_Get = Callable[[CpuState], int]
_Set = Callable[[CpuState, int], None]


def _register(
    name: str, bits: int, group: str, get: _Get, put: _Set | None, doc: str, flags: tuple[Flag, ...] = ()
) -> Register:
    """A register whose writer sees only values that fit its width."""
    if put is None:
        return Register(name, bits, group, get, None, doc, flags)

    def checked(state: CpuState, value: int) -> None:
        put(state, fits(name, value, bits))

    return Register(name, bits, group, get, checked, doc, flags)


def _part(name: str, number: int, low: int, bits: int) -> Register:
    """`bits` bits from bit `low` of a general register. A 32-bit write clears bits 63:32 (SDM vol. 1, 3.4.1.1)."""
    mask = (1 << bits) - 1

    def get(state: CpuState) -> int:
        return state.regs[number] >> low & mask

    def put(state: CpuState, value: int) -> None:
        state.regs[number] = value if bits >= 32 else state.regs[number] & ~(mask << low) | value << low

    place = "" if bits == 64 else f", bits {low + bits - 1}:{low} of {GENERAL[number]}"
    return _register(name, bits, "general", get, put, f"general register{place}")


def _general() -> Iterator[Register]:
    for number, name in enumerate(GENERAL):
        yield _part(name, number, 0, 64)
    legacy = [name[1:] for name in GENERAL[:8]]
    for number, name in enumerate(legacy):
        yield _part(f"e{name}", number, 0, 32)
    for number, name in enumerate(legacy):
        yield _part(name, number, 0, 16)
    for number, letter in enumerate("acdb"):
        yield _part(f"{letter}l", number, 0, 8)
        yield _part(f"{letter}h", number, 8, 8)
    for number in range(4, 8):
        yield _part(f"{legacy[number]}l", number, 0, 8)
    for number in range(8, 16):
        yield _part(f"r{number}d", number, 0, 32)
        yield _part(f"r{number}w", number, 0, 16)
        yield _part(f"r{number}b", number, 0, 8)


def _low(value: Callable[[CpuState], int], bits: int) -> _Get:
    mask = (1 << bits) - 1
    return lambda state: value(state) & mask


def _pointers_and_flags() -> Iterator[Register]:
    def rip(state: CpuState) -> int:
        return state.rip

    def rflags(state: CpuState) -> int:
        return state.rflags

    def put_flags(state: CpuState, value: int) -> None:
        writes.write_rflags(state, state.rflags & ~0xFFFF | value)

    yield _register("rip", 64, "pointer", rip, writes.write_rip, "instruction pointer, offset in CS")
    yield _register(
        "eip", 32, "pointer", _low(rip, 32), writes.write_rip, "low 32 bits of rip; a write clears the rest"
    )
    yield _register("ip", 16, "pointer", _low(rip, 16), writes.write_rip, "low 16 bits of rip; a write clears the rest")
    yield _register("rflags", 64, "flags", rflags, writes.write_rflags, "flags", bits_of.EFLAGS)
    yield _register("eflags", 32, "flags", _low(rflags, 32), writes.write_rflags, "flags", bits_of.EFLAGS)
    low = tuple(flag for flag in bits_of.EFLAGS if flag.high_bit < 16)
    yield _register("flags", 16, "flags", _low(rflags, 16), put_flags, "low 16 bits of rflags", low)


def _segment(name: str) -> Iterator[Register]:
    upper = name.upper()

    def put(write: Callable[[CpuState, str, int], None]) -> _Set:
        return lambda state, value: write(state, name, value)

    selector, base, limit, access = (
        lambda state: state.segment(name).selector,
        lambda state: state.segment(name).base,
        lambda state: state.segment(name).limit,
        lambda state: state.segment(name).access,
    )
    how = "loads the cache too" if name in SEGMENTS else "loaded from the GDT"
    base_bits = 64 if name in ("fs", "gs", "ldtr", "tr") else 32
    yield _register(name, 16, "segment", selector, put(writes.write_selector), f"{upper} selector; a write {how}")
    yield _register(f"{name}_base", base_bits, "segment", base, put(writes.write_base), f"cached base of {upper}")
    yield _register(f"{name}_limit", 32, "segment", limit, put(writes.write_limit), f"cached limit of {upper}, bytes")
    yield _register(
        f"{name}_attr", 32, "segment", access, put(writes.write_access), f"cached access rights of {upper}, VMX layout",
        bits_of.ACCESS,
    )  # fmt: skip


def _tables() -> Iterator[Register]:
    def gdtr_base(state: CpuState, value: int) -> None:
        state.gdtr.base = writes.linear_address("gdtr_base", value, state)

    def idtr_base(state: CpuState, value: int) -> None:
        state.idtr.base = writes.linear_address("idtr_base", value, state)

    def gdtr_limit(state: CpuState, value: int) -> None:
        state.gdtr.limit = value

    def idtr_limit(state: CpuState, value: int) -> None:
        state.idtr.limit = value

    yield _register("gdtr_base", 64, "system", lambda s: s.gdtr.base, gdtr_base, "linear base of the GDT")
    yield _register("gdtr_limit", 16, "system", lambda s: s.gdtr.limit, gdtr_limit, "limit of the GDT, bytes")
    yield _register("idtr_base", 64, "system", lambda s: s.idtr.base, idtr_base, "linear base of the IDT or IVT")
    yield _register("idtr_limit", 16, "system", lambda s: s.idtr.limit, idtr_limit, "limit of the IDT or IVT, bytes")


def _system() -> Iterator[Register]:
    def put_cr2(state: CpuState, value: int) -> None:
        state.cr2 = value

    def put_cr8(state: CpuState, value: int) -> None:
        state.cr8 = value

    def cr8(state: CpuState) -> int:
        return state.cr8

    yield _register("cr0", 64, "system", lambda s: s.cr0, writes.write_cr0, "control register 0", bits_of.CR0)
    yield _register("cr2", 64, "system", lambda s: s.cr2, put_cr2, "linear address of the last page fault")
    yield _register(
        "cr3", 64, "system", lambda s: s.cr3, writes.write_cr3, "base of the paging structures", bits_of.CR3
    )
    yield _register("cr4", 64, "system", lambda s: s.cr4, writes.write_cr4, "control register 4", bits_of.CR4)
    yield _register("cr8", 4, "system", cr8, put_cr8, "task priority, bits 7:4 of the TPR")
    yield _register("efer", 64, "system", lambda s: s.efer, writes.write_efer, "IA32_EFER", bits_of.EFER)


def _debug() -> Iterator[Register]:
    for number in (0, 1, 2, 3, 6, 7):

        def get(state: CpuState, number: int = number) -> int:
            return state.dr[number]

        def put(state: CpuState, value: int, number: int = number) -> None:
            writes.write_dr(state, number, value)

        flags = {6: bits_of.DR6, 7: bits_of.DR7}.get(number, ())
        doc = {6: "debug status", 7: "debug control"}.get(number, f"linear address of debug breakpoint {number}")
        yield _register(f"dr{number}", 64, "debug", get, put, doc, flags)


def _msr(name: str, bits: int, doc: str, write: Callable[[CpuState, int, int], None] | None = None) -> Register:
    number, reset = MSRS[name]

    def get(state: CpuState) -> int:
        return state.msrs.get(number, reset)

    def put(state: CpuState, value: int) -> None:
        if write is None:
            state.msrs[number] = value
        else:
            write(state, number, value)

    flags = bits_of.APIC_BASE if name == "apic_base" else ()
    return _register(name, bits, "system", get, put, f"{doc} (MSR {number:#x})", flags)


def _msrs() -> Iterator[Register]:
    def address(name: str) -> Callable[[CpuState, int, int], None]:
        def write(state: CpuState, number: int, value: int) -> None:
            state.msrs[number] = writes.canonical(name, value, state)

        return write

    yield _msr("star", 64, "selectors of SYSCALL and SYSRET")
    yield _msr("lstar", 64, "target of SYSCALL in 64-bit mode", address("lstar"))
    yield _msr("cstar", 64, "target of SYSCALL in compatibility mode", address("cstar"))
    yield _msr("fmask", 32, "flags that SYSCALL clears")
    yield _msr("kernel_gs_base", 64, "base that SWAPGS exchanges with GS", address("kernel_gs_base"))
    yield _msr("sysenter_cs", 32, "selector of SYSENTER")
    yield _msr("sysenter_esp", 64, "stack pointer of SYSENTER", address("sysenter_esp"))
    yield _msr("sysenter_eip", 64, "target of SYSENTER", address("sysenter_eip"))
    yield _msr("pat", 64, "page attribute table", writes.write_pat)
    yield _msr("apic_base", 64, "physical base and state of the local APIC", writes.write_apic_base)


def full_tag_word(fpu: Fpu) -> int:
    """The 16-bit x87 tag word, two bits for each physical register (SDM vol. 1, 8.1.7), from the abridged one.

    0 valid, 1 zero, 2 special (NaN, infinity, denormal, unsupported), 3 empty; as FXSAVE's description rebuilds it
    (vol. 2A, FXSAVE, recreating the tag word).
    """
    top = fpu.fsw >> 11 & 7
    word = 0
    for physical in range(8):
        tag = _tag(fpu.st[(physical - top) & 7]) if fpu.ftw >> physical & 1 else 3
        word |= tag << 2 * physical
    return word


def _tag(value: int) -> int:
    exponent, significand = value >> 64 & 0x7FFF, value & (1 << 64) - 1
    if exponent == 0:
        return 1 if significand == 0 else 2
    return 0 if exponent != 0x7FFF and significand >> 63 else 2


def _fpu() -> Iterator[Register]:
    def st(index: int) -> Register:
        def get(state: CpuState) -> int:
            return state.fpu.st[index]

        def put(state: CpuState, value: int) -> None:
            state.fpu.st[index] = value

        return _register(f"st{index}", 80, "fpu", get, put, f"ST({index}), 80-bit extended precision")

    def plain(name: str, field: str, bits: int, doc: str, flags: tuple[Flag, ...] = ()) -> Register:
        low = (1 << bits) - 1

        def get(state: CpuState) -> int:
            value: int = getattr(state.fpu, field)
            return value & low

        def put(state: CpuState, value: int) -> None:
            setattr(state.fpu, field, value)

        return _register(name, bits, "fpu", get, put, doc, flags)

    def put_tag(state: CpuState, value: int) -> None:
        state.fpu.ftw = sum(1 << i for i in range(8) if value >> 2 * i & 3 != 3)

    yield from (st(index) for index in range(8))
    yield plain("fctrl", "fcw", 16, "x87 control word", bits_of.FCTRL)
    yield plain("fstat", "fsw", 16, "x87 status word; a new TOP renumbers the tags only", bits_of.FSTAT)
    yield _register("ftag", 16, "fpu", lambda s: full_tag_word(s.fpu), put_tag, "x87 tag word, two bits a register")
    yield plain("fiseg", "fcs", 16, "selector of the last x87 instruction")
    yield plain("fioff", "fip", 32, "offset of the last x87 instruction")
    yield plain("foseg", "fds", 16, "selector of the last x87 operand")
    yield plain("fooff", "fdp", 32, "offset of the last x87 operand")
    yield plain("fop", "fop", 11, "opcode of the last x87 instruction, 11 bits")


def _sse() -> Iterator[Register]:
    def xmm(index: int) -> Register:
        def get(state: CpuState) -> int:
            return state.fpu.xmm[index]

        def put(state: CpuState, value: int) -> None:
            state.fpu.xmm[index] = value

        return _register(f"xmm{index}", 128, "sse", get, put, f"SSE register {index}")

    yield from (xmm(index) for index in range(16))
    doc = "SSE control and status"
    yield _register("mxcsr", 32, "sse", lambda s: s.fpu.mxcsr, writes.write_mxcsr, doc, bits_of.MXCSR)


def _derived() -> Iterator[Register]:
    yield _register("pc", 64, "derived", lambda s: s.linear_pc, None, "linear address of the next instruction")
    yield _register("mode", 32, "derived", code_bits, None, "width of the next instruction: 16, 32 or 64")
    yield _register("smm", 1, "derived", lambda s: int(s.smm), None, "1 in system management mode")
    yield _register("smbase", 32, "derived", lambda s: s.smbase, None, "where RSM and the next SMI find SMRAM")
    yield _register("cpl", 2, "derived", lambda s: s.cpl, None, "current privilege level")


def _all() -> Iterator[Register]:
    yield from _general()
    yield from _pointers_and_flags()
    for name in (*SEGMENTS, "ldtr", "tr"):
        yield from _segment(name)
    yield from _tables()
    yield from _system()
    yield from _msrs()
    yield from _debug()
    yield from _fpu()
    yield from _sse()
    yield from _derived()


#: Every register by name, in the order of the SDM's encodings within each group.
REGISTERS: Mapping[str, Register] = MappingProxyType({register.name: register for register in _all()})


def flag_names(register: Register | str, value: int) -> str:
    """The set flags of `value`: cr0 as "PE ET NE PG", eflags highest first as is usual: "IOPL=3 IF ZF PF".

    "" for a register without named bits. KeyError for an unknown name.
    """
    entry = REGISTERS[register] if isinstance(register, str) else register
    return bits_of.decode(reversed(entry.flags) if entry.group == "flags" else entry.flags, value)
