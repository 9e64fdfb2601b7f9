"""What a fault leaves behind, which of two comes first, and single instructions whose result Unicorn has wrong: each
was found by random bytes (test_random_bytes.py), and stands here by itself.

Expectations: SDM vol. 3A, 6.5 (a fault leaves the state before the instruction) and table 6-2; vol. 1, 8.6; vol. 2, the
page of each instruction; vol. 3A, tables 12-1 and 12-2.
"""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import GDT, bare_cpu
from cpu.test_encodings import EM, GP, NM, TS, UD, Trier
from emu.unicorn_helper import HELPER
from emu.x86.state import CpuState, Segment
from run_loops import SLICES, outcome

pytestmark = pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")

PF, MF, XM = 14, 16, 19
OSXMMEXCPT = 0x400
DATA, ABSENT = 0x5000, 0x500000  # of 64-bit code's pages
VM, NT = 1 << 17, 1 << 14


def full_x87(trier: Trier, *, control: int = 0x37F, status: int = 3 << 11) -> None:
    """TOP is 3, and R3 and R4 are the only registers that are not empty."""
    fpu = trier.start.fpu
    fpu.fcw, fpu.fsw, fpu.ftw = control, status, 0x18
    fpu.st = [0x3FFF8000000000000000 + n for n in range(8)]


def pending(trier: Trier) -> None:
    full_x87(trier, control=0x37E, status=3 << 11 | 0x8081)
    trier.start.cr0 |= 0x20  # NE


def after(trier: Trier) -> CpuState:
    return trier.cpu.engine.state()


def x87_of(state: CpuState) -> tuple[int, int]:
    return state.fpu.fsw, state.fpu.ftw


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    "code", ["c5f85803", "c5fa2cc0", "c5d04f03", "c4e2711803", "c4e37b0f03", "c4e378f00301", "c5f877", "66c4e278f203"]
)
def test_there_is_no_avx(code: str, bits: int) -> None:
    """SDM vol. 2A, 2.4: without CR4.OSXSAVE. Unicorn takes what is behind VEX for SSE."""
    assert Trier(bits).vector(bytes.fromhex(code)) == UD


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("code", ["c4e278f203", "c4e27bf603", "c4e37bf00301", "c4e2f8f203"])
def test_vex_of_bmi_is_known(code: str, bits: int) -> None:
    assert Trier(bits).vector(bytes.fromhex(code)) is None


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("value", [0, 1, 0x80000000, 0x12345670, 1 << 32, 1 << 63, (1 << 64) - 8])
def test_blsi_clears_the_carry_of_zero_alone(bits: int, value: int) -> None:
    """Vol. 2A, BLSI, of registers and memory. Unicorn has CF the other way round."""
    for size in (32, 64)[: bits // 32]:
        number = value & (1 << size) - 1
        lowest = number & -number
        name = {32: "e", 64: "r"}[size]
        for operand in (f"{name}cx", f"[{DATA:#x}]", *((f"[rel {DATA:#x}]", "[rcx + r9*2]") if bits == 64 else ())):
            trier = Trier(bits)
            trier.cpu.write(DATA, number.to_bytes(8, "little"))
            base = {"r1": DATA - 8, "r9": 4} if "r9" in operand else {"r1": number}
            before = "bits 64\ndefault abs\n" if bits == 64 else "bits 32\n"
            code = assemble(f"{before}blsi {name}dx, {operand}", trier.at)
            assert trier.vector(code, **base) is None
            state = after(trier)
            assert (state.regs[2], state.rip) == (lowest, trier.at + len(code)), operand
            flags = (1 if number else 0) | (0 if lowest else 0x40) | (0x80 if lowest >> size - 1 else 0)
            assert state.rflags & 0x8C1 == flags


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", ["bzhi", "bextr"])
@pytest.mark.parametrize("count", [0, 1, 5, 30, 31, 32, 33, 62, 63, 64, 65, 255])
def test_bzhi_and_bextr_of_all_bits(bits: int, name: str, count: int) -> None:
    """Vol. 2A, BEXTR and BZHI: beyond the operand there is nothing to clear, and BZHI says so by CF."""
    for size in (32, 64)[: bits // 32]:
        a, c, d = (f"{'e' if size == 32 else 'r'}{letter}x" for letter in "acd")
        number = 0xF123456789ABCDEF & (1 << size) - 1
        for start in (0,) if name == "bzhi" else (0, 1, 31, 63, 64, 255):
            trier = Trier(bits)
            control = count if name == "bzhi" else count << 8 | start
            assert trier.vector(f"{name} {d}, {c}, {a}", r1=number, r0=control | 0x120000) is None
            result = number >> start & (1 << count) - 1
            state = after(trier)
            assert state.regs[2] == result, start
            assert bool(state.rflags & 1) == (name == "bzhi" and count >= size)
            assert bool(state.rflags & 0x40) == (result == 0)
            assert not state.rflags & 0x800


def test_blsi_of_the_upper_registers() -> None:
    trier = Trier(64)
    assert trier.vector("blsi r14, r11", r11=0x50) is None
    assert after(trier).regs[14] == 0x10
    assert trier.vector("blsi r9d, [r13 + r12*8 + 0x10]", r13=DATA - 0x30, r12=4) is None


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize(
    "code",
    ["0f384303", "0f3a1303", "0f381003", "0f38f003", "660f52c0", "660fc303", "0fb803", "0fba03", "660fae13", "0f1303"],
)
def test_what_is_undefined_does_not_look_at_its_operand(code: str, bits: int) -> None:
    trier = Trier(bits)
    trier.start.ds = Segment(0x10, 0, 0xFFF, 0xC093 if bits == 32 else 0x93)  # DATA is beyond
    instruction = bytes.fromhex(code)
    if bits == 16:
        instruction = instruction[:-1] + bytes((instruction[-1] & 0xF8 | 7,))  # [bx]
    expected = GP if code == "0f38f003" else UD  # MOVBE is one
    if code == "0f1303":
        expected = GP  # MOVLPS
    assert trier.vector(instruction + b"\0\0\0\0") == expected
    trier.start.cr0 |= TS
    expected = NM if code == "0f1303" else expected
    assert trier.vector(instruction + b"\0\0\0\0") == expected


@pytest.mark.parametrize(
    "code", ["0f17c0", "0f2bc0", "0fe7c0", "660f12c0", "f20ff0c0", "0fc3c0", "0f38f0c0", "f20fb8c0"]
)
def test_what_is_of_memory_alone_is_undefined_of_registers(code: str) -> None:
    for bits in (16, 32, 64):
        assert Trier(bits, cr0=TS).vector(bytes.fromhex(code)) == UD


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_of_f2_and_f3_the_last_counts(bits: int) -> None:
    """LDDQU has F2, POPCNT F3. Unicorn takes F2 of both for strings, and F3 for SSE."""
    trier = Trier(bits)
    operand = "05" if bits == 16 else "06"  # [di], [esi]
    assert trier.vector(bytes.fromhex("f3f20ff0" + operand), r7=DATA, r6=DATA) is None
    assert trier.vector(bytes.fromhex("f2f30ff0" + operand), r7=DATA, r6=DATA) == UD
    assert trier.vector(bytes.fromhex("f2f30fb8c1"), r1=7) is None
    assert after(trier).regs[0] & 0xFFFF == 3
    for code, flags in (("f2f3a6", 0x44), ("f3f2a6", 0)):  # REPE goes on while equal, REPNE while not
        trier.cpu.write(DATA, b"abcdabcx")
        trier.cpu.write(trier.at, bytes.fromhex(code) + b"\xf4")
        trier.cpu.engine.load(trier.start)
        state = trier.cpu.engine.state()
        state.regs[1], state.regs[6], state.regs[7] = 3, DATA, DATA + 4
        trier.cpu.engine.load(state)
        trier.cpu.run()
        assert after(trier).regs[1] == (0 if flags else 2)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("size", [2, 4])
def test_popcnt_movbe_and_crc32_have_the_operand_size_of_their_code(bits: int, size: int) -> None:
    """Vol. 2A, CRC32; vol. 2B, MOVBE, POPCNT. CRC32C by the polynomial 11EDC6F41h, bits reversed."""

    def crc(value: int, number: int) -> int:
        value ^= number
        for _ in range(8 * number_bits // 8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        return value

    trier = Trier(bits)
    prefix, number_bits = "" if size == bits // 8 else "66", 8 * size
    operand = "5f00" if bits == 16 else "6700"  # BX, [bx+0], ESP, [edi+0]: DATA is in EBX and EDI
    number, mask = 0x8A5501F7, (1 << 8 * size) - 1
    trier.cpu.write(DATA, number.to_bytes(4, "little"))

    def run(code: str) -> CpuState:
        state = trier.cpu.engine.state()
        assert trier.vector(bytes.fromhex(prefix + code), r3=DATA, r7=DATA, r0=0xFFFFFFFF) is None, code
        state = after(trier)
        assert state.rip == trier.at + len(bytes.fromhex(prefix + code))
        return state

    low = operand.replace("5f", "47").replace("67", "47")  # the same with AX
    assert run("f30fb8" + low).regs[0] == 0xFFFFFFFF & ~mask | (number & mask).bit_count()
    assert run("f30fb8c3").regs[0] & mask == DATA.bit_count()
    assert run("f30fb8c1").rflags & 0x8D5 == 0x40
    swapped = int.from_bytes((number & mask).to_bytes(size, "little"), "big")
    assert run("0f38f0" + low).regs[0] == 0xFFFFFFFF & ~mask | swapped
    run("0f38f1" + low)
    assert trier.cpu.read(DATA, 4) == b"\xff" * size + number.to_bytes(4, "little")[size:]
    trier.cpu.write(DATA, number.to_bytes(4, "little"))
    assert run("f20f38f1" + low).regs[0] == crc(0xFFFFFFFF, number & mask)
    assert run("f20f38f1c3").regs[0] == crc(0xFFFFFFFF, DATA)


@pytest.mark.parametrize(
    ("code", "model"), [("f30fb8c1", "pentium3"), ("0f38f007", "qemu64"), ("f20f38f1c1", "qemu64")]
)
def test_models_without_popcnt_movbe_and_crc32(code: str, model: str) -> None:
    for bits in (16, 32, 64):
        assert Trier(bits, model).vector(bytes.fromhex(code)) == UD
        assert Trier(bits).vector(bytes.fromhex(code), r7=DATA) is None


@pytest.mark.parametrize("code", ["0f20c8", "0f22e8", "0f20f0", "0f22f8"])
def test_control_registers_that_there_are_not(code: str) -> None:
    """Vol. 2B, MOV: #UD, for rings other than 0 too."""
    trier = Trier(32)
    trier.start.cs.access |= 0x60
    trier.start.ss.access |= 0x60
    trier.start.cs.selector |= 3
    trier.start.ss.selector |= 3
    assert trier.vector(bytes.fromhex(code)) == UD
    assert trier.vector(bytes.fromhex("0f20c0")) == GP


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("code", ["paddb mm0, mm1", "addps xmm0, xmm1", "emms", "pshufb mm0, mm1", "ldmxcsr [0x5000]"])
def test_em_comes_before_ts(code: str, bits: int) -> None:
    """Vol. 3A, table 12-1."""
    assert Trier(bits, cr0=EM | TS).vector(code) == UD
    assert Trier(bits, cr0=EM).vector(code) == UD
    assert Trier(bits, cr0=TS).vector(code) == NM


@pytest.mark.parametrize("code", ["0f0dc8", "0f18c1", "0f18ff"])
def test_hints_about_registers_are_nops(code: str) -> None:
    for bits in (16, 32, 64):
        trier = Trier(bits)
        assert trier.vector(bytes.fromhex(code)) is None
        assert after(trier).rip == trier.at + 3


@pytest.mark.parametrize(
    "code", ["fadd dword [{}]", "fild word [{}]", "paddb mm0, [{}]", "pshufb mm0, [{}]", "fldcw [{}]"]
)
def test_a_pending_exception_of_the_x87_comes_before_the_operand(code: str) -> None:
    """Vol. 1, 8.6, and 9.6.3 for MMX."""
    trier = Trier(32)
    pending(trier)
    trier.start.ds = Segment(0x10, 0, 0xFFF, 0xC093)
    assert trier.vector(code.format("0x5000")) == MF
    trier = Trier(64)
    pending(trier)
    assert trier.vector(code.format(ABSENT)) == MF


@pytest.mark.parametrize("code", ["fnstcw [{}]", "fnstsw [{}]", "mov [{}], eax", "addps xmm0, [{}]", "movd xmm0, [{}]"])
def test_what_does_not_wait_faults_at_its_operand(code: str) -> None:
    trier = Trier(64)
    pending(trier)
    assert trier.vector(code.format(ABSENT)) == PF


@pytest.mark.parametrize("code", ["paddb mm0, [{}]", "movd [{}], mm0", "cvtps2pi mm0, [{}]", "pshufb mm0, [{}]"])
def test_mmx_that_faults_leaves_the_x87(code: str) -> None:
    trier = Trier(64)
    full_x87(trier)
    assert trier.vector(code.format(ABSENT)) == PF
    assert x87_of(after(trier)) == (3 << 11, 0x18)


def test_an_sse_exception_leaves_the_x87() -> None:
    trier = Trier(32, cr4=0x200 | OSXMMEXCPT)
    full_x87(trier)
    trier.start.fpu.mxcsr = 0  # nothing masked
    trier.start.fpu.xmm[0] = 0x7F800001  # a signalling NaN
    assert trier.vector("cvtps2pi mm0, xmm0") == XM
    assert x87_of(after(trier)) == (3 << 11, 0x18)


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("code", ["pshufb mm0, mm1", "phaddw mm3, mm4", "pabsd mm1, [0x5000]", "palignr mm0, mm1, 3"])
def test_ssse3_of_mmx_is_mmx(code: str, bits: int) -> None:
    """Vol. 3A, 12.2: all registers become valid, and TOP 0."""
    trier = Trier(bits)
    full_x87(trier)
    assert trier.vector(code) is None
    assert x87_of(after(trier)) == (0, 0xFF)
    pending(trier)
    assert trier.vector(code) == MF


@pytest.mark.parametrize("before", [8, *range(1, 4)])
@pytest.mark.parametrize("bits", [32, 64])
def test_ssse3_of_mmx_writes_ones_above_its_register(bits: int, before: int) -> None:
    """Vol. 1, 9.2; of an instruction on two pages too, and not of one that faults (vol. 3A, 6.5)."""
    trier = Trier(bits, at=0x2000 - before)
    full_x87(trier)
    assert trier.vector("pshufb mm5, mm1") is None
    assert [value >> 64 for value in after(trier).fpu.st] == [0x3FFF] * 5 + [0xFFFF] + [0x3FFF] * 2
    if bits == 64:
        assert trier.vector(f"pshufb mm5, [{ABSENT}]") == PF
        assert {value >> 64 for value in after(trier).fpu.st} == {0x3FFF}
    assert trier.vector("pshufb xmm5, xmm1") is None
    assert {value >> 64 for value in after(trier).fpu.st} == {0x3FFF}


def test_emms_makes_top_0() -> None:
    """Vol. 3A, table 12-2."""
    trier = Trier(32)
    full_x87(trier)
    assert trier.vector("emms") is None
    assert x87_of(after(trier)) == (0, 0)


@pytest.mark.parametrize("code", ["fst dword [{}]", "fstp qword [{}]", "fist word [{}]", "fistp qword [{}]"])
@pytest.mark.parametrize("tags", [0, 0x18])
def test_a_store_of_the_x87_that_faults_leaves_its_flags(code: str, tags: int) -> None:
    """The value is inexact in each; without tags the register is empty."""
    trier = Trier(64)
    full_x87(trier)
    trier.start.fpu.ftw = tags
    trier.start.fpu.st = [0x3FFF8000000000000001] * 8
    assert trier.vector(code.format(ABSENT)) == PF
    assert x87_of(after(trier)) == (3 << 11, tags)


def outer_ring_64() -> Trier:
    """Ring 3 of 64-bit code: the page of its code is its own, and that of DATA to be read alone."""
    trier = Trier(64)
    for name in ("cs", "ss"):
        segment = getattr(trier.start, name)
        segment.access |= 0x60
        segment.selector |= 3
    for table in (0x100000, 0x101000, 0x102000):
        entry = int.from_bytes(trier.cpu.read(table, 8), "little")
        trier.cpu.write(table, (entry | 4).to_bytes(8, "little"))
    for page in (trier.at, DATA):
        trier.cpu.write(0x103000 + (page >> 12 << 3), (page | 5).to_bytes(8, "little"))
    return trier


@pytest.mark.parametrize("code", ["rcl byte [{}], 1", "rcr word [{}], cl", "rcl dword [{}], 3"])
def test_a_rotation_through_carry_that_faults_leaves_flags(code: str) -> None:
    trier = outer_ring_64()
    trier.cpu.write(DATA, b"\xff" * 8)
    assert trier.vector(code.format(DATA), r1=5) == PF
    assert trier.cpu.faults[0].code == 7
    assert after(trier).rflags & 0x8D5 == 0


def test_the_port_of_outs_is_denied_before_its_operand_is_read() -> None:
    """Vol. 2B, OUTS. Without a bitmap in the TSS."""
    trier = outer_ring_64()
    trier.start.tr = Segment(0x28, 0x3000, 0x67, 0x8B)
    assert trier.vector("outsb", r6=ABSENT) == GP
    trier.start.rflags |= 3 << 12
    assert trier.vector("outsb", r6=ABSENT) == PF


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("value", [0, 1, 0x80, 0x7F81, 0x8000, 0x12345678, 0x80000000])
def test_neg_has_its_flags_with_lock(size: int, value: int) -> None:
    word = {1: "byte", 2: "word", 4: "dword"}[size]
    for bits in (16, 32, 64):
        flags = []
        for lock in ("", "lock "):
            trier = Trier(bits)
            trier.cpu.write(DATA, value.to_bytes(4, "little"))
            assert trier.vector(f"{lock}neg {word} [{DATA:#x}]") is None
            flags.append((after(trier).rflags, trier.cpu.read(DATA, 4)))
        assert flags[0] == flags[1]


@pytest.mark.parametrize(("bits", "size"), [(32, 4), (64, 8)])
def test_the_operand_of_ret_is_unsigned(bits: int, size: int) -> None:
    for dropped in (8, 0x7FFF, 0x8000, 0xFFF0):
        trier = Trier(bits)
        trier.cpu.write(0x6000, b"\0\x20" + bytes(6))
        assert trier.vector(f"ret {dropped}", r4=0x6000) is None
        assert after(trier).regs[4] == 0x6000 + size + dropped


def test_the_operand_of_retf_is_unsigned() -> None:
    trier = Trier(32)
    trier.cpu.write(0x6000, b"\0\x20\0\0\x08\0\0\0")
    assert trier.vector("retf 0x9000", r4=0x6000) is None
    assert after(trier).regs[4] == 0x6000 + 8 + 0x9000


@pytest.mark.parametrize(
    ("name", "elements"),
    [("phaddw", 2), ("phaddd", 4), ("phaddsw", 2), ("phsubw", 2), ("phsubd", 4), ("phsubsw", 2)],
)
def test_horizontal_sums_of_a_register_with_itself(name: str, elements: int) -> None:
    """As of two registers with the same in them."""
    value = bytes((0x11 * n + 3) & 0xFF for n in range(16))
    trier = Trier(32)
    trier.start.fpu.xmm[0] = trier.start.fpu.xmm[1] = int.from_bytes(value, "little")
    assert trier.vector(f"{name} xmm0, xmm1") is None
    expected = after(trier).fpu.xmm[0]
    assert trier.vector(f"{name} xmm0, xmm0") is None
    assert after(trier).fpu.xmm[0] == expected != 0
    trier.start.fpu.ftw = 0xFF
    trier.start.fpu.st = [0xFFFF << 64 | int.from_bytes(value[:8], "little")] * 8
    assert trier.vector(f"{name} mm0, mm1") is None
    expected = after(trier).fpu.st[0]
    assert trier.vector(f"{name} mm0, mm0") is None
    assert after(trier).fpu.st[0] == expected


def test_packusdw_of_a_register_with_itself() -> None:
    trier = Trier(32)
    trier.start.fpu.xmm[0] = 0x00000001_00012345_FFFFFFFF_00001234
    assert trier.vector("packusdw xmm0, xmm0") is None
    assert after(trier).fpu.xmm[0] == 0x0001FFFF00001234_0001FFFF00001234


@pytest.mark.parametrize(
    ("code", "size"),
    [
        ("pmovsxbw xmm0, [{}]", 8), ("pmovsxbd xmm0, [{}]", 4), ("pmovzxbq xmm0, [{}]", 2), ("pmovzxdq xmm0, [{}]", 8),
        ("roundss xmm0, [{}], 0", 4), ("roundsd xmm0, [{}], 0", 8), ("insertps xmm0, [{}], 0", 4),
        ("pinsrb xmm0, [{}], 0", 1), ("pinsrd xmm0, [{}], 0", 4), ("pextrb [{}], xmm0, 0", 1),
        ("pextrw [{}], xmm0, 0", 2), ("extractps [{}], xmm0, 0", 4), ("crc32 eax, byte [{}]", 1),
        ("crc32 eax, dword [{}]", 4), ("movbe eax, [{}]", 4), ("pshufb xmm0, [{}]", 16), ("movups xmm0, [{}]", 16),
    ],
)  # fmt: skip
def test_an_operand_may_end_with_its_segment(code: str, size: int) -> None:
    trier = Trier(32)
    trier.start.ds = Segment(0x10, 0, 0x5FFF, 0x4093)
    assert trier.vector(code.format(hex(0x6000 - size))) is None
    assert trier.vector(code.format(hex(0x6000 - size + (16 if size == 16 else 1)))) == GP


@pytest.mark.parametrize("code", ["pextrb [0x5000], xmm0, 0", "extractps [0x5000], xmm0, 0", "movbe [0x5000], eax"])
def test_what_is_stored_is_not_stored_in_a_segment_to_be_read(code: str) -> None:
    trier = Trier(32)
    trier.start.ds = Segment(0x10, 0, 0xFFFFFFFF, 0xC091)
    assert trier.vector(code) == GP


def outer_ring() -> Trier:
    """Ring 3 of 32-bit code, with selectors of the GDT."""
    trier = Trier(32)
    for selector, access in ((0x18, 0xFB), (0x20, 0xF3)):
        trier.cpu.write(GDT + selector, bytes.fromhex(f"ffff000000{access:02x}cf00"))
    trier.start.cs = Segment(0x1B, 0, 0xFFFFFFFF, 0xC0FB)
    for name in ("ss", "ds", "es", "fs", "gs"):
        setattr(trier.start, name, Segment(0x23, 0, 0xFFFFFFFF, 0xC0F3))
    return trier


@pytest.mark.parametrize("limit", [0xFFFFFFFF, 0xFFFF])
def test_iret_of_an_outer_ring_does_not_return_to_v86_mode(limit: int) -> None:
    """Vol. 2A, IRET: VM in the frame counts in ring 0 alone; V86 mode has other privileges than ring 3."""
    trier = outer_ring()
    trier.start.ss.limit = limit
    words = (0x2000, 0x1B, VM | 0x246, 0x6100, 0x23, 0, 0, 0, 0)
    trier.cpu.write(0x6000, b"".join(word.to_bytes(4, "little") for word in words))
    assert trier.vector("iretd", r4=0x6000) is None
    state = after(trier)
    assert (state.rip, state.cs.selector, state.regs[4]) == (0x2000, 0x1B, 0x600C)
    assert not state.rflags & VM
    # what is read there by another instruction is whole
    assert trier.vector("mov eax, [0x6008]") is None
    assert after(trier).regs[0] & 0xFFFFFFFF == VM | 0x246


def test_iret_that_faults_before_its_flags_hides_nothing_of_the_next() -> None:
    trier = outer_ring()
    words = (0x2000, 0x7F8, VM | 0x246)  # no such selector
    trier.cpu.write(0x6000, b"".join(word.to_bytes(4, "little") for word in words))
    assert trier.vector("iretd", r4=0x6000) == GP
    inner = Trier(32)
    words = (0x2000, 0x100, VM | 0x246, 0x6100, 0x200, 0, 0, 0, 0)
    inner.cpu.write(0x6000, b"".join(word.to_bytes(4, "little") for word in words))
    assert inner.vector("iretd", r4=0x6000) is None
    assert after(inner).rflags & VM
    assert after(inner).cs.selector == 0x100
    assert assemble("bits 32\niretd") == b"\xcf"


@pytest.mark.parametrize("scattered", [False, True])
def test_what_has_faulted_is_found_on_two_pages(scattered: bool) -> None:
    """ICEBP behind a prefix: Unicorn has #UD of it, and its bytes say what it is, on pages that may be apart."""
    trier = Trier(64, at=0x1FFF)
    if scattered:
        trier.cpu.write(0x103000 + 8 * 2, (0x9000 | 3).to_bytes(8, "little"))
        trier.cpu.write(0x9000, b"\xf1")
    assert trier.vector(b"\x66\xf1") == 1
    assert trier.cpu.faults[0].rip == 0x2001


@pytest.mark.parametrize(("second", "flags"), [(0x27000000, 0x10), (0x27000001, 0x30)])
def test_an_underflow_that_is_not_masked_is_inexact_by_its_own_result(second: int, flags: int) -> None:
    """Vol. 1, 4.9.1.5: 1.5 * 2^-100 by 2^-49 is tiny and has all its bits, which a denormal would not."""
    trier = Trier(32, cr4=0x200 | OSXMMEXCPT)
    trier.start.fpu.mxcsr = 0x1F80 & ~0x800
    trier.start.fpu.xmm[0], trier.start.fpu.xmm[1] = 0x0DC00000, second
    assert trier.vector("mulss xmm0, xmm1") == XM
    assert after(trier).fpu.mxcsr & 0x3F == flags


def test_what_is_executed_apart_is_the_same_however_the_run_is_sliced() -> None:
    """Of 16-bit code, in the middle of blocks, with MMX that Unicorn does not announce beside it."""
    source = """
        mov cx, 60
        mov eax, cr4
        or ax, 0x200
        mov cr4, eax
    l:  popcnt dx, cx
        jz e
        add ax, dx
        movbe [0x5000], ax
        o32 crc32 ebx, word [0x5000]
        pshufb mm0, mm1
        movbe bp, [0x5001]
        lock neg word [0x5000]
        push dx
        loop l
    e:  hlt
    """
    results = []
    for size in SLICES:
        cpu = bare_cpu(source, 16)
        results.append(outcome(cpu, size))
        cpu.engine.close()
    assert all(result == results[0] for result in results)
    assert results[0][1] == 4 + 60 * 10 + 1
