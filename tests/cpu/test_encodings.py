"""Encodings that are #UD, and operands of SSE that have to be aligned, in 16-, 32- and 64-bit code.

Expectations: SDM vol. 2A, "LOCK"; the table of exceptions of each instruction's class (vol. 2A, 2.4); vol. 2D, table
A-6. Bochs has its say in test_checks.py, by cpu_forms.
"""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import CODE, BareCpu, bare_cpu, used_cpu
from emu.engine import ExitReason
from emu.unicorn_helper import HELPER

pytestmark = pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")

UD, NM, GP = 6, 7, 13
OSFXSR = 0x200
EM, TS = 4, 8
DATA = 0x5000


class Trier:
    """Executes single instructions on one CPU, each from the same state."""

    def __init__(self, bits: int, model: str = "max", *, cr4: int = OSFXSR, cr0: int = 0, at: int = CODE) -> None:
        self.bits, self.at = bits, at
        self.cpu: BareCpu = used_cpu(bits=bits, model=model)
        self.start = self.cpu.engine.state()
        self.start.rip = at
        self.start.cr4 |= cr4
        self.start.cr0 |= cr0
        self.start.regs[3] = DATA  # EBX
        self.start.regs[1] = 0  # ECX
        self.start.rflags |= 0x202

    def vector(self, code: bytes | str, **registers: int) -> int | None:
        """The exception that the instruction raises, None if it is done."""
        if isinstance(code, str):
            code = assemble(f"bits {self.bits}\n{code}", self.at)
        cpu = self.cpu
        cpu.write(self.at, code + b"\xf4" * 16)
        cpu.faults.clear()
        cpu.engine.load(self.start)
        if registers:
            state = cpu.engine.state()
            for name, value in registers.items():
                state.regs[int(name[1:])] = value
            cpu.engine.load(state)
        exit = cpu.engine.run(1)
        assert cpu.faults or exit.reason is ExitReason.BUDGET or code[-1:] == b"\xf4"
        return cpu.faults[0].vector if cpu.faults else None


#: What may be locked (SDM vol. 2A, LOCK: "ADD, ADC, AND, BTC, BTR, BTS, CMPXCHG, CMPXCH8B, CMPXCHG16B, DEC, INC, NEG,
#: NOT, OR, SBB, SUB, XOR, XADD, and XCHG"), by opcode (0F00h added) and ModRM.reg.
LOCKABLE = frozenset(
    [(row + form, reg) for row in range(0, 0x38, 8) for form in (0, 1) for reg in range(8)]
    + [(opcode, reg) for opcode in (0x80, 0x81, 0x83) for reg in range(7)]
    + [(opcode, reg) for opcode in (0x86, 0x87, 0xFAB, 0xFB3, 0xFBB, 0xFB0, 0xFB1, 0xFC0, 0xFC1) for reg in range(8)]
    + [(opcode, reg) for opcode in (0xF6, 0xF7) for reg in (2, 3)]
    + [(opcode, reg) for opcode in (0xFE, 0xFF) for reg in (0, 1)]
    + [(0xFBA, reg) for reg in (5, 6, 7)]
    + [(0xFC7, 1)]
)
#: Opcodes that are another instruction for each ModRM.reg (vol. 2D, table A-6).
GROUPS = frozenset((
    *range(0x80, 0x84), 0x8F, 0xC0, 0xC1, 0xC6, 0xC7, *range(0xD0, 0xD4), 0xF6, 0xF7, 0xFE, 0xFF, 0xF00, 0xF01, 0xFBA,
    0xFC7, 0xFB9, 0xF71, 0xF72, 0xF73, 0xFAE, 0xF18, 0xF0D,
))  # fmt: skip
_PREFIXES = frozenset((0x0F, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))


def lockable(opcode: int, reg: int, bits: int) -> bool:
    return (opcode, reg) in LOCKABLE or (opcode == 0x82 and reg < 7 and bits != 64)


@pytest.mark.slow_variants
@pytest.mark.parametrize("form", [0x03, 0xC3], ids=["memory", "register"])
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_lock_is_undefined_before_what_cannot_be_locked(bits: int, form: int) -> None:
    """Every opcode of the one- and two-byte maps, groups with every ModRM.reg, the operand in memory or a register."""
    trier = Trier(bits)
    for opcode in (*range(0x100), *range(0xF00, 0x1000)):
        if opcode in _PREFIXES or (bits == 64 and 0x40 <= opcode <= 0x4F) or opcode in (0xF38, 0xF3A):
            continue
        for reg in range(8) if opcode in GROUPS else (opcode % 8,):
            code = bytes((opcode,)) if opcode < 0x100 else bytes((0x0F, opcode & 0xFF))
            found = trier.vector(b"\xf0" + code + bytes((form | reg << 3, 1, 0, 0, 0, 0, 0, 0)))
            expected = None if form == 0x03 and lockable(opcode, reg, bits) else UD
            assert found == expected, f"{opcode:#x} /{reg}"


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("code", ["0f38f0", "0f38f1", "0f3a0f", "0f380b", "c5f877", "c4e278f2", "909090"])
def test_lock_is_undefined_before_the_other_maps(bits: int, code: str) -> None:
    assert Trier(bits).vector(b"\xf0" + bytes.fromhex(code) + b"\x03\0\0\0\0") == UD


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("opcode", [0x8F, 0xC6, 0xC7])
@pytest.mark.parametrize("form", [0x03, 0xC3], ids=["memory", "register"])
def test_groups_of_one_instruction_have_no_other(bits: int, opcode: int, form: int) -> None:
    """Groups 1A and 11 (vol. 2D, table A-6): POP, MOV."""
    trier = Trier(bits)
    found = [trier.vector(bytes((opcode, form | reg << 3, 1, 0, 0, 0))) for reg in range(8)]
    assert found == [None, *[UD] * 7]


def test_a_locked_instruction_on_two_pages_is_refused_too() -> None:
    for bits in (16, 32, 64):
        trier = Trier(bits, at=0x1FFF)
        assert trier.vector("lock mov [0x5000], eax") == UD
        assert trier.vector("lock add [0x5000], eax") is None


def test_locked_movs_from_and_to_cr0_do_not_name_cr8() -> None:
    """AMD64 APM vol. 3, MOV CRn: with CPUID 80000001h:ECX bit 4, which no model has."""
    for bits in (32, 64):
        assert Trier(bits).vector(bytes.fromhex("f00f20c0")) == UD
        assert Trier(bits, "qemu64").vector(bytes.fromhex("f00f20c0")) == UD


@pytest.mark.parametrize(
    "code",
    ["660f78c00800", "660f79c1", "f20f78c10800", "f20f79c1", "f30f2b03", "f20f2b03"],
)
@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("model", ["max", "qemu64"])
def test_no_model_has_sse4a(code: str, bits: int, model: str) -> None:
    assert Trier(bits, model).vector(bytes.fromhex(code)) == UD


@pytest.mark.parametrize(
    ("model", "vector"),
    [("486", UD), ("pentium", UD), ("pentium2", UD), ("pentium3", UD), ("qemu64", None), ("max", None)],
)
@pytest.mark.parametrize("bits", [16, 32])
def test_prefetchw_came_with_long_mode(model: str, vector: int | None, bits: int) -> None:
    """AMD64 APM vol. 3, PREFETCH: 3DNow!, PREFETCHW or LM of CPUID 80000001h."""
    assert Trier(bits, model).vector(bytes.fromhex("0f0d0b")) == vector


#: Operands of 16 bytes that are to be aligned (SDM vol. 2A to 2C).
ALIGNED = (
    *("movaps xmm0, {}", "movaps {}, xmm0", "movntps {}, xmm0", "addps xmm0, {}", "andps xmm0, {}"),
    "cmpps xmm0, {}, 0",
    *("shufps xmm0, {}, 0", "unpcklps xmm0, {}", "rsqrtps xmm0, {}", "rcpps xmm0, {}", "sqrtps xmm0, {}"),
    *("movapd xmm0, {}", "movapd {}, xmm0", "movntpd {}, xmm0", "movdqa xmm0, {}", "movdqa {}, xmm0", "addpd xmm0, {}"),
    *("movntdq {}, xmm0", "paddb xmm0, {}", "punpcklbw xmm0, {}", "punpcklqdq xmm0, {}", "pxor xmm0, {}"),
    *("pshufd xmm0, {}, 0", "pshufhw xmm0, {}, 0", "pshuflw xmm0, {}, 0", "psllw xmm0, {}", "pmuludq xmm0, {}"),
    *("cvtdq2ps xmm0, {}", "cvtps2dq xmm0, {}", "cvttps2dq xmm0, {}", "cvtpd2ps xmm0, {}", "cvtpd2dq xmm0, {}"),
    *("cvttpd2dq xmm0, {}", "cvtpd2pi mm0, {}", "cvttpd2pi mm0, {}", "unpckhpd xmm0, {}", "shufpd xmm0, {}, 0"),
    *("haddps xmm0, {}", "haddpd xmm0, {}", "addsubps xmm0, {}", "addsubpd xmm0, {}", "movsldup xmm0, {}"),
    "movshdup xmm0, {}",
    *("pshufb xmm0, {}", "pabsd xmm0, {}", "palignr xmm0, {}, 1", "pmulhrsw xmm0, {}", "blendvps xmm0, {}, xmm0"),
    *("pblendvb xmm0, {}, xmm0", "ptest xmm0, {}", "pmuldq xmm0, {}", "movntdqa xmm0, {}", "pcmpgtq xmm0, {}"),
    *("pminsb xmm0, {}", "pmulld xmm0, {}", "phminposuw xmm0, {}", "roundps xmm0, {}, 0", "roundpd xmm0, {}, 0"),
    *("blendps xmm0, {}, 0", "pblendw xmm0, {}, 0", "dpps xmm0, {}, 0", "dppd xmm0, {}, 0", "mpsadbw xmm0, {}, 0"),
    *("aesenc xmm0, {}", "aesimc xmm0, {}", "aeskeygenassist xmm0, {}, 0", "pclmulqdq xmm0, {}, 0"),
    "packusdw xmm0, {}",
    *("fxsave {}", "fxrstor {}"),
)
#: Those that may be anywhere.
ANYWHERE = (
    *("movups xmm0, {}", "movups {}, xmm0", "movupd xmm0, {}", "movdqu xmm0, {}", "movdqu {}, xmm0", "lddqu xmm0, {}"),
    *("movss xmm0, {}", "addss xmm0, {}", "movsd xmm0, {}", "addsd xmm0, {}", "movlps xmm0, {}", "movhpd {}, xmm0"),
    *("movq xmm0, {}", "movd xmm0, {}", "movq {}, xmm0", "movddup xmm0, {}", "cvtps2pd xmm0, {}", "cvtdq2pd xmm0, {}"),
    *("cvtpi2ps xmm0, {}", "cvtpi2pd xmm0, {}", "cvtps2pi mm0, {}", "ucomiss xmm0, {}", "comisd xmm0, {}"),
    *("pinsrw xmm0, {}, 0", "paddb mm0, {}", "movq mm0, {}", "movntq {}, mm0", "pshufw mm0, {}, 0", "pabsd mm0, {}"),
    *("palignr mm0, {}, 1", "pmovsxbw xmm0, {}", "pmovzxdq xmm0, {}", "pcmpestri xmm0, {}, 0", "pcmpistrm xmm0, {}, 0"),
    *("insertps xmm0, {}, 0", "pinsrd xmm0, {}, 0", "pextrb {}, xmm0, 0", "roundss xmm0, {}, 0", "movbe ax, {}"),
    *("prefetchnta {}", "mov eax, {}", "ldmxcsr {}", "cvtsi2ss xmm0, dword {}"),
)
_SETUP = 0x1F80


def prepared(bits: int, **options: int) -> Trier:
    trier = Trier(bits, **options)
    for address in range(DATA, DATA + 0x40, 4):
        trier.cpu.write(address, _SETUP.to_bytes(4, "little"))
    return trier


def reset_area(trier: Trier, offset: int) -> None:
    area = bytearray(0x240)
    area[24 + offset : 28 + offset] = _SETUP.to_bytes(4, "little")  # MXCSR for FXRSTOR
    area[offset : offset + 2] = b"\x80\x1f"  # and LDMXCSR
    trier.cpu.write(DATA, bytes(area))


@pytest.mark.slow_variants
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_operands_of_16_bytes_are_to_be_aligned(bits: int) -> None:
    trier = prepared(bits)
    register = "rbx" if bits == 64 else "ebx" if bits == 32 else "bx"
    for source in ALIGNED:
        for offset in range(17):
            reset_area(trier, offset)
            found = trier.vector(source.format(f"[{register}]"), r3=DATA + offset)
            assert found == (GP if offset % 16 else None), f"{source} {offset}"


@pytest.mark.slow_variants
@pytest.mark.parametrize("bits", [16, 32, 64])
def test_others_may_be_anywhere(bits: int) -> None:
    trier = prepared(bits)
    register = "rbx" if bits == 64 else "ebx" if bits == 32 else "bx"
    for source in ANYWHERE:
        for offset in (0, 1, 8, 15):
            reset_area(trier, offset)
            assert trier.vector(source.format(f"[{register}]"), r3=DATA + offset) is None, f"{source} {offset}"


@pytest.mark.parametrize(
    ("bits", "operand", "registers"),
    [
        (16, "[bx+si]", {"r6": 1}), (16, "[bp+di+0x10]", {"r5": DATA, "r7": 8}), (16, "[0x5001]", {}),
        (32, "[ebx+esi*4]", {"r6": 1}), (32, "[esi*8+0x5000]", {"r6": 1}), (32, "[0x5001]", {}),
        (32, "[esp+4]", {"r4": 0x6000}), (32, "[bx+si]", {"r6": 3}), (32, "[fs:ebx+2]", {}),
        (64, "[rbx+rsi*4]", {"r6": 1}), (64, "[r12+r13*2]", {"r12": DATA, "r13": 5}), (64, "[r12]", {"r12": DATA + 1}),
        (64, "[r13+0]", {"r13": DATA + 8}), (64, "[rbx+r12]", {"r12": 1}), (64, "[rel 0x5002]", {}),
        (64, "[abs 0x5001]", {}), (64, "[ebx+esi]", {"r6": 1 << 32 | 1}), (64, "[r15*8]", {"r15": DATA // 8 + 1}),
    ],
)  # fmt: skip
def test_every_form_of_address_is_looked_at(bits: int, operand: str, registers: dict[str, int]) -> None:
    """The same with the operand moved to the next multiple of 16 is done."""
    trier = Trier(bits)
    assert trier.vector(f"movaps xmm1, {operand}", **registers) == GP
    base = {"r3": DATA, "r4": 0x7000} | registers
    moves = {f"r{n}" for n in range(16)} & base.keys()
    done = 0
    for name in moves:
        for step in range(16):
            if trier.vector(f"movaps xmm1, {operand}", **(registers | {name: base[name] + step})) is None:
                done += 1
    assert done or "0x500" in operand


@pytest.mark.parametrize("bits", [32, 64])
def test_a_segment_whose_base_is_odd_moves_the_operand(bits: int) -> None:
    trier = Trier(bits)
    trier.start.fs.base = 0x5008
    assert trier.vector("movaps xmm0, [fs:0]") == GP
    assert trier.vector("movaps xmm0, [fs:8]") is None
    if bits == 32:
        trier.start.ds.base = 4
        assert trier.vector("movaps xmm0, [0x5000]") == GP
        assert trier.vector("movaps xmm0, [0x500c]") is None


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("shown", [(0, OSFXSR, GP), (EM, OSFXSR, UD), (TS, OSFXSR, NM), (0, 0, UD)])
def test_what_comes_with_the_opcode_comes_before_alignment(bits: int, shown: tuple[int, int, int]) -> None:
    """SDM vol. 3A, table 6-2: faults from decoding come before those of the operand."""
    cr0, cr4, vector = shown
    assert Trier(bits, cr0=cr0, cr4=cr4).vector("movaps xmm0, [0x5001]") == vector


@pytest.mark.parametrize("code", ["pshufb xmm0, [0x5001]", "ptest xmm0, [0x5001]", "aesenc xmm0, [0x5001]"])
def test_what_the_model_lacks_is_undefined_wherever_its_operand_is(code: str) -> None:
    assert Trier(32, "qemu64").vector(code) == UD


def test_an_operand_in_an_instruction_on_two_pages_is_looked_at() -> None:
    for bits in (16, 32, 64):
        trier = Trier(bits, at=0x1FFE)
        assert trier.vector("movaps xmm0, [0x5001]") == GP
        assert trier.vector("movaps xmm0, [0x5010]") is None


def test_a_fault_of_alignment_leaves_what_came_before_it() -> None:
    source = f"mov eax, cr4\nor eax, {OSFXSR}\nmov cr4, eax\nmov ebx, {DATA}\ninc ebx\nl: movaps [ebx], xmm0\nhlt"
    cpu = bare_cpu(source, 32)
    cpu.write(DATA, b"\x55" * 32)
    assert cpu.run().reason is ExitReason.SHUTDOWN
    fault = cpu.faults[0]
    assert (fault.vector, fault.code, fault.retired, cpu.engine.state().regs[3]) == (GP, 0, 5, DATA + 1)
    assert cpu.read(DATA, 32) == b"\x55" * 32


def test_aligned_operands_are_not_asked_about() -> None:
    source = f"mov eax, cr4\nor eax, {OSFXSR}\nmov cr4, eax\nmov ebx, {DATA}\nmov ecx, 50\nl: movaps xmm0, [ebx]\n"
    cpu = bare_cpu(f"{source}paddb xmm0, [ebx+16]\nmovaps [ebx+32], xmm0\nadd ebx, 16\nloop l\nhlt", 32)
    assert cpu.run().reason is ExitReason.HALT
    statistics = cpu.engine.statistics
    assert statistics is not None
    assert statistics.asked == 0


@pytest.mark.parametrize(
    ("between", "vector"),
    [
        ("movaps xmm1, [ebx+16]\naddps xmm1, xmm0", None), ("movups [ebx+1], xmm1", None), ("inc ebx", GP),
        ("pextrw ebx, xmm0, 0\nadd ebx, 1", GP), ("movd ebx, xmm3", GP), ("cvttss2si ebx, xmm4", GP),
        ("movmskps ebx, xmm3", GP), ("pmovmskb ebx, xmm3", GP), ("pextrd ebx, xmm3, 0", GP), ("jmp $+2\ninc ebx", GP),
    ],
)  # fmt: skip
def test_what_is_known_to_be_aligned_is_forgotten_when_a_register_is_written(between: str, vector: int | None) -> None:
    """XMM3 is all ones, and XMM4 1.0."""
    source = f"mov ebx, {DATA}\npcmpeqd xmm3, xmm3\nmovss xmm4, [one]\nmovaps xmm0, [ebx]\n{between}\n"
    trier = Trier(32)
    trier.cpu.write(CODE, assemble(f"bits 32\n{source}movaps xmm2, [ebx]\nhlt\none: dd 1.0", CODE))
    trier.cpu.engine.load(trier.start)
    trier.cpu.run()
    assert [fault.vector for fault in trier.cpu.faults[:1]] == ([] if vector is None else [vector])


def guarded(bits: int, source: str) -> int:
    """How many checks were emitted for the program."""
    trier = Trier(bits)
    statistics = trier.cpu.engine.statistics
    assert statistics is not None
    before = statistics.guarded
    trier.cpu.write(CODE, assemble(f"bits {bits}\n{source}hlt", CODE))
    trier.cpu.engine.load(trier.start)
    assert trier.cpu.run().reason is ExitReason.HALT
    statistics = trier.cpu.engine.statistics
    assert statistics is not None
    return statistics.guarded - before


@pytest.mark.parametrize("bits", [32, 64])
def test_constant_addresses_and_those_just_asked_about_get_no_check(bits: int) -> None:
    register = "rbx" if bits == 64 else "ebx"
    constant = f"movaps xmm0, [{DATA:#x}]\n"
    constant += "jmp next\nalign 16\nthere: times 16 db 0\nnext: movaps xmm0, [rel there]\n" if bits == 64 else ""
    assert guarded(bits, constant) == guarded(bits, "nop\n")
    rows = [f"movaps xmm1, [{register}+{16 * i}]\n" for i in range(8)]
    assert guarded(bits, "".join(rows)) == guarded(bits, rows[0]) > 0


#: Instructions of general registers behind 0F 38, 0F 3A or VEX; `max` has all but ADX.
INTEGERS = (
    "movbe eax, [ebx]", "movbe ax, [ebx]", "movbe [ebx], eax", "crc32 eax, ecx", "crc32 eax, cx", "crc32 eax, cl",
    "andn eax, ebx, ecx", "blsr eax, ecx", "bzhi eax, ecx, edx", "pext eax, ecx, edx", "pdep eax, ecx, edx",
    "mulx eax, ecx, edx", "bextr eax, ecx, edx", "shlx eax, ecx, edx", "sarx eax, ecx, edx", "rorx eax, ecx, 3",
)  # fmt: skip


@pytest.mark.parametrize(("cr4", "cr0"), [(OSFXSR, 0), (0, 0), (OSFXSR, TS), (OSFXSR, EM), (0, EM | TS)])
@pytest.mark.parametrize("bits", [32, 64])
def test_integers_behind_the_maps_of_sse_are_not_sse(bits: int, cr4: int, cr0: int) -> None:
    """SDM vol. 2A to 2C: their tables of exceptions name none of CR0.TS, CR0.EM and CR4.OSFXSR."""
    trier = Trier(bits, cr4=cr4, cr0=cr0)
    for instruction in INTEGERS:
        text = instruction.replace("[ebx]", "[rbx]") if bits == 64 else instruction
        assert trier.vector(text) is None, instruction
    sse = UD if cr0 & EM or not cr4 else NM if cr0 & TS else None
    for instruction in ("pxor xmm0, xmm1", "pshufb xmm0, xmm1", "pabsd xmm0, xmm1"):
        assert cr0 == EM | TS or trier.vector(instruction) == sse, instruction


@pytest.mark.parametrize("cr0", [0, TS, EM])
def test_they_are_executed_among_others_as_often_as_they_stand_there(cr0: int) -> None:
    body = "inc esi\nshlx edi, esi, edx\nmovbe [0x5000], edi\ninc esi\nandn ebp, edx, esi\n" * 5
    cpu = bare_cpu(
        f"mov eax, cr0\nor eax, {cr0}\nmov cr0, eax\nmov edx, 1\nmov ecx, 3\nagain: {body}dec ecx\njnz again\nhlt", 32
    )
    assert (cpu.run().reason, cpu.faults) == (ExitReason.HALT, [])
    state = cpu.engine.state()
    assert (state.regs[6], state.regs[7], state.regs[5]) == (30, 58, 30)
    assert cpu.engine.retired == 5 + 3 * (25 + 2) + 1


# -- mandatory prefixes, where Bochs cannot be asked (test_checks.py has the rest, by cpu_prefixes)

XMM = bytes(range(0x10, 0x20))


def low_of_xmm(code: str, bits: int, at: int = CODE) -> bytes | None:
    """XMM0 behind an instruction with `XMM` in memory at DATA, from zeros; None: it is #UD."""
    trier = Trier(bits, at=at)
    trier.cpu.write(DATA, XMM)
    trier.start.fpu.xmm[0] = 0
    found = trier.vector(bytes.fromhex(code))
    assert found in (None, UD)
    return None if found else trier.cpu.engine.state().fpu.xmm[0].to_bytes(16, "little")


#: Code of 32 and 64 bits with the operand at EBX or RBX -> what is in XMM0 behind it.
CHOSEN = {
    "66f30f1003": XMM[:4].ljust(16, b"\0"),  # MOVSS
    "f3660f1003": XMM[:4].ljust(16, b"\0"),
    "66f20f1003": XMM[:8].ljust(16, b"\0"),  # MOVSD
    "f2660f1003": XMM[:8].ljust(16, b"\0"),
    "f2f30f1003": XMM[:4].ljust(16, b"\0"),
    "f3f20f1003": XMM[:8].ljust(16, b"\0"),
    "66f20f1203": XMM[:8] * 2,  # MOVDDUP, of SSE3
    "66f30f1203": XMM[:4] * 2 + XMM[8:12] * 2,  # MOVSLDUP
    "f3660f1603": XMM[4:8] * 2 + XMM[12:] * 2,  # MOVSHDUP
    "66f20ff003": XMM,  # LDDQU
    "66f30f6f03": XMM,  # MOVDQU
    "66f20f1603": None,
    "66f30f380003": None,  # PSHUFB has no form of F3
    "66f20f3a0f0301": None,  # PALIGNR none of F2
    "66f30fc303": None,  # MOVNTI none of any
}


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("code", CHOSEN)
def test_f2_and_f3_come_before_66_and_the_last_of_them_counts(code: str, bits: int) -> None:
    """SDM vol. 2A, 2.1.1 and 2.1.2; vol. 2D, A.2.1; AMD64 APM vol. 3, 1.2.1."""
    assert low_of_xmm(code, bits) == CHOSEN[code]


@pytest.mark.parametrize("before", range(1, 6))
def test_so_they_do_where_the_instruction_lies_on_two_pages(before: int) -> None:
    for code in ("66f30f1003", "f3660f1003", "f2f30f1003", "66f20f1203", "66f30f380003"):
        assert low_of_xmm(code, 32, at=0x2000 - before) == CHOSEN[code]


def test_nothing_is_read_for_them_behind_the_longest_instruction() -> None:
    """#GP(0) of 17 prefixes (SDM vol. 2A, 2.3.11), not #PF of the absent page behind them."""
    trier = Trier(64, at=0x2000 - 17)
    trier.cpu.write(0x100000 + 0x3000 + 8 * 2, bytes(8))
    assert trier.vector(b"\x2e" * 4 + b"\x66" + b"\x2e" * 12) == GP
    trier.cpu.write(0x100000 + 0x3000 + 8 * 2, (0x2003).to_bytes(8, "little"))


@pytest.mark.parametrize(("code", "size"), [("66f20f38f003", 1), ("66f20f38f103", 2), ("f20f38f103", 4)])
def test_66_is_the_operand_size_of_crc32_all_the_same(code: str, size: int) -> None:
    """SDM vol. 2A, CRC32: of a byte, a word and a double-word, by CRC-32C bit by bit."""
    crc = 0
    for byte in XMM[:size]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    trier = Trier(32)
    trier.cpu.write(DATA, XMM)
    assert trier.vector(bytes.fromhex(code), r0=0) is None
    assert trier.cpu.engine.state().regs[0] == crc


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("before", range(1, 10))
def test_the_predicate_of_cmpps_is_of_three_bits_on_two_pages_too(bits: int, before: int) -> None:
    """SDM vol. 2A, CMPPS: bits 7 to 3 of the immediate are reserved without VEX. 18h is "equal", 1Ch "not equal"."""
    for predicate, filled in ((0x18, b"\xff" * 16), (0xFC, bytes(16))):
        modrm = "07" if bits == 16 else "03"
        trier = Trier(bits, at=0x2000 - before)
        trier.cpu.write(DATA, bytes(16))
        trier.start.fpu.xmm[0] = 0
        assert trier.vector(bytes.fromhex(f"0fc2{modrm}{predicate:02x}")) is None
        assert trier.cpu.engine.state().fpu.xmm[0].to_bytes(16, "little") == filled


def test_cmpps_relative_to_rip_has_its_predicate_behind_the_displacement() -> None:
    trier = Trier(64)
    trier.cpu.write(DATA, bytes(16))
    trier.start.fpu.xmm[0] = 0
    displacement = (DATA - CODE - 8).to_bytes(4, "little")
    assert trier.vector(b"\x0f\xc2\x05" + displacement + b"\xf8") is None
    assert trier.cpu.engine.state().fpu.xmm[0] == (1 << 128) - 1


# -- instructions of general registers that Unicorn takes for SSE, on two pages

ON_TWO_PAGES = ("movbe eax, [ebx]", "o16 movbe ax, [ebx]", "crc32 eax, ecx", "andn eax, ecx, edx", "shlx eax, ecx, edx")


@pytest.mark.parametrize("source", (*ON_TWO_PAGES, "rorx eax, ecx, 3", "blsi eax, ecx"))
@pytest.mark.parametrize("bits", [32, 64])
def test_on_two_pages_ts_em_and_osfxsr_do_not_concern_integers(source: str, bits: int) -> None:
    """SDM vol. 2A to 2C, their tables of exceptions."""
    code = assemble(f"bits {bits}\n{source.replace('[ebx]', '[rbx]') if bits == 64 else source}", CODE)
    for before in range(1, len(code)):
        for trier in (Trier(bits, cr0=TS, at=0x2000 - before), Trier(bits, cr0=EM, at=0x2000 - before),
                      Trier(bits, cr4=0, at=0x2000 - before)):  # fmt: skip
            assert trier.vector(code) is None, before


@pytest.mark.parametrize(
    "source",
    ["movaps xmm0, xmm1", "pshufb xmm0, xmm1", "pshufb mm0, mm1", "roundps xmm0, xmm1, 0", "movmskps eax, xmm0"],
)
def test_on_two_pages_they_concern_the_rest(source: str) -> None:
    code = assemble(f"bits 32\n{source}", CODE)
    for before in range(1, len(code)):
        assert Trier(32, cr0=TS, at=0x2000 - before).vector(code) == NM
        assert Trier(32, cr0=EM, at=0x2000 - before).vector(code) == UD


def test_reading_on_meets_the_page_that_is_not_there() -> None:
    """#PF of the fetch, as of any other: MOVBE with TS, whose last bytes are on an absent page."""
    trier = Trier(64, cr0=TS, at=0x1FFE)
    code = assemble("bits 64\nmovbe eax, [rbx]", CODE)
    trier.cpu.write(0x100000 + 0x3000 + 8 * 2, bytes(8))
    assert trier.vector(code) == 14
    assert (trier.cpu.faults[0].cr2, trier.cpu.faults[0].rip) == (0x2000, 0x1FFE)
    trier.cpu.write(0x100000 + 0x3000 + 8 * 2, (0x2003).to_bytes(8, "little"))


def test_so_it_does_where_unicorn_does_not_read_on() -> None:
    """ROUNDPS with TS, of which Unicorn looks at no byte behind 3A: each time that it is executed."""
    trier = Trier(64, cr0=TS, at=0x1FFD)
    trier.cpu.write(0x100000 + 0x3000 + 8 * 2, bytes(8))
    assert trier.vector("roundps xmm0, xmm1, 0") == 14
    first, retired = trier.cpu.faults[0], trier.cpu.engine.retired
    assert (first.cr2, first.rip, first.retired) == (0x2000, 0x1FFD, 0)
    trier.cpu.faults.clear()
    trier.cpu.engine.load(trier.start)
    trier.cpu.engine.run(1)
    again = trier.cpu.faults[0]
    assert (again.vector, again.cr2, again.rip, again.retired) == (14, 0x2000, 0x1FFD, retired)
    trier.cpu.write(0x100000 + 0x3000 + 8 * 2, (0x2003).to_bytes(8, "little"))
