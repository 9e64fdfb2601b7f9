"""The register table: parts, widths, and what the CPU refuses (SDM vol. 1, 3.4; vol. 2B, MOV CR; vol. 3A, 2.5)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.x86.modes import Mode, mode_of
from emu.x86.registers import GROUPS, MSRS, REGISTERS, RegisterError, flag_names, full_tag_word
from emu.x86.state import GENERAL, CpuState, Fpu, Segment

LONG = {"cr0": 0xE0000011, "cr4": 0x20, "efer": 0xD00, "cs": Segment(8, 0, 0xFFFFFFFF, 0xA09B)}
COMPAT = {**LONG, "cs": Segment(8, 0, 0xFFFFFFFF, 0xC09B)}
PROTECTED = {"cr0": 0x60000011, "cs": Segment(8, 0, 0xFFFFFFFF, 0xC09B)}
V86 = {"cr0": 0xE0000011, "rflags": 0x20002}


def cpu(base: Mapping[str, object] | None = None, **rest: object) -> CpuState:
    return CpuState(**{**(base or {}), **rest}).copy()  # type: ignore[arg-type]


def write(state: CpuState, name: str, value: int) -> CpuState:
    put = REGISTERS[name].set
    assert put is not None
    put(state, value)
    return state


def read(state: CpuState, name: str) -> int:
    return REGISTERS[name].get(state)


def test_every_register_is_named_grouped_documented_and_fits_its_width_at_reset() -> None:
    state = CpuState()
    for name, register in REGISTERS.items():
        assert register.name == name
        assert register.group in GROUPS
        assert register.doc
        assert 0 <= register.get(state) < 1 << register.bits, name
        assert all(flag.high_bit < register.bits for flag in register.flags), name


def test_every_writable_register_takes_back_what_it_reads_at_reset() -> None:
    for name, register in REGISTERS.items():
        if register.set is None or name in ("ldtr", "tr", "cs"):
            continue
        state = CpuState()
        register.set(state, register.get(state))
        expected = CpuState()
        expected.msrs = state.msrs
        assert state == expected, name
        assert state.msrs in ({}, {MSRS[name][0]: MSRS[name][1]} if name in MSRS else {})


@given(name=st.sampled_from([n for n, r in REGISTERS.items() if r.set is not None]), value=st.integers(0, 1 << 130))
def test_a_refused_write_changes_nothing_and_an_accepted_one_keeps_the_width(name: str, value: int) -> None:
    state = CpuState()
    register = REGISTERS[name]
    assert register.set is not None
    try:
        register.set(state, value)
    except RegisterError as error:
        assert state == CpuState()
        assert name in str(error) or name.split("_")[0] in str(error) or "flags" in str(error) or "rip" in str(error)
    else:
        assert 0 <= register.get(state) < 1 << register.bits


@pytest.mark.parametrize("name", ["pc", "mode", "cpl"])
def test_derived_registers_are_read_only(name: str) -> None:
    assert REGISTERS[name].set is None


def test_general_registers_have_the_parts_of_the_sdm() -> None:
    state = CpuState(regs=[0x1122334455667788 + n for n in range(16)])
    assert [read(state, name) for name in GENERAL] == state.regs
    assert (read(state, "eax"), read(state, "ax"), read(state, "al"), read(state, "ah")) == (
        0x55667788,
        0x7788,
        0x88,
        0x77,
    )
    assert (read(state, "cl"), read(state, "dh"), read(state, "bl")) == (0x89, 0x77, 0x8B)
    assert (read(state, "sp"), read(state, "dil"), read(state, "spl")) == (0x778C, 0x8F, 0x8C)
    assert (read(state, "r8d"), read(state, "r15w"), read(state, "r9b")) == (0x55667790, 0x7797, 0x91)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rax", 0x1, 0x1),
        ("eax", 0xAABBCCDD, 0xAABBCCDD),
        ("ax", 0xAABB, 0x112233445566AABB),
        ("al", 0xAA, 0x11223344556677AA),
        ("ah", 0xAA, 0x112233445566AA88),
    ],
)
def test_a_32_bit_write_clears_the_upper_half_and_smaller_ones_keep_the_rest(
    name: str, value: int, expected: int
) -> None:
    state = CpuState(regs=[0x1122334455667788] + [0] * 15)
    assert write(state, name, value).regs == [expected] + [0] * 15


def test_values_outside_the_width_are_refused_and_negative_ones_wrap() -> None:
    assert write(CpuState(), "ax", -1).regs[0] == 0xFFFF
    assert write(CpuState(), "al", -0x80).regs[0] == 0x80
    for name, value in (("al", 0x100), ("al", -0x81), ("eax", 1 << 32), ("cs_limit", 1 << 32), ("st0", 1 << 80)):
        with pytest.raises(RegisterError, match=f"{name} has {REGISTERS[name].bits} bits: {value:#x} does not fit"):
            write(CpuState(), name, value)


def test_rip_is_the_offset_and_pc_the_linear_address() -> None:
    state = CpuState()
    assert (read(state, "rip"), read(state, "eip"), read(state, "ip")) == (0xFFF0, 0xFFF0, 0xFFF0)
    assert (read(state, "pc"), read(state, "mode"), read(state, "cpl")) == (0xFFFFFFF0, 16, 0)
    assert write(cpu(PROTECTED, rip=0x12345678), "ip", 0x10).rip == 0x10
    assert read(cpu(LONG), "mode") == 64


def test_rip_has_32_bits_outside_64_bit_mode_and_is_canonical_in_it() -> None:
    with pytest.raises(RegisterError, match="rip = 0x100000000 needs 64-bit mode"):
        write(cpu(COMPAT), "rip", 1 << 32)
    assert write(cpu(LONG), "rip", 0xFFFF800000000000).rip == 0xFFFF800000000000
    with pytest.raises(RegisterError, match="rip = 0x800000000000 is not canonical: bits 63 to 47 must be equal"):
        write(cpu(LONG), "rip", 0x800000000000)
    assert write(cpu(LONG, cr4=0x1020), "rip", 0x800000000000).rip == 0x800000000000


def test_flags_keep_bit_1_and_refuse_reserved_bits_and_a_lone_vm() -> None:
    assert write(CpuState(), "eflags", 0).rflags == 2
    assert write(CpuState(), "eflags", 0x246).rflags == 0x246
    assert write(CpuState(rflags=0x200002), "flags", 0x46).rflags == 0x200046
    for bit in (3, 5, 15, 22, 31):
        with pytest.raises(RegisterError, match=f"rflags = .* sets reserved bits {1 << bit:#x}:"):
            write(CpuState(), "eflags", 1 << bit)
    with pytest.raises(RegisterError, match="VM in rflags cannot be changed alone"):
        write(cpu(PROTECTED), "eflags", 0x20002)


@pytest.mark.parametrize("name", ["es", "cs", "ss", "ds", "fs", "gs"])
def test_a_selector_write_in_real_mode_sets_the_base_and_keeps_big_limits(name: str) -> None:
    state = CpuState()
    setattr(state, name, Segment(0, 0, 0xFFFFFFFF, 0xC093))
    write(state, name, 0xF123)
    assert state.segment(name) == Segment(0xF123, 0xF1230, 0xFFFFFFFF, 0xC093)
    assert mode_of(state) is Mode.BIG_REAL


def test_a_selector_write_in_v86_loads_limit_and_rights_too() -> None:
    state = write(cpu(V86, ds=Segment(0, 0, 0xFFFFFFFF, 0xC093)), "ds", 0x40)
    assert state.ds == Segment(0x40, 0x400, 0xFFFF, 0xF3)


def test_a_selector_write_in_protected_mode_needs_the_table() -> None:
    for name in ("cs", "ds", "ldtr", "tr"):
        with pytest.raises(RegisterError, match=f"{name} is loaded from .*load_selector does it"):
            write(cpu(PROTECTED), name, 0x10)


def test_bases_are_32_bit_or_canonical() -> None:
    assert write(CpuState(), "ds_base", 0xFFFFFFFF).ds.base == 0xFFFFFFFF
    with pytest.raises(RegisterError, match="ds_base has 32 bits"):
        write(CpuState(), "ds_base", 1 << 32)
    assert write(cpu(LONG), "fs_base", 0xFFFF800000000000).fs.base == 0xFFFF800000000000
    with pytest.raises(RegisterError, match="gs_base = 0x800000000000 is not canonical"):
        write(cpu(LONG), "gs_base", 0x800000000000)


def test_g_follows_the_limit_where_the_limit_leaves_no_choice() -> None:
    state = write(CpuState(), "ds_limit", 0xFFFFFFFF)
    assert (state.ds.limit, state.ds.access) == (0xFFFFFFFF, 0x8093)
    write(state, "ds_limit", 0x1FFF)
    assert (state.ds.limit, state.ds.access) == (0x1FFF, 0x8093)
    write(state, "ds_limit", 0x1234)
    assert (state.ds.limit, state.ds.access) == (0x1234, 0x0093)
    with pytest.raises(RegisterError, match="ds_limit = 0x123456 cannot exist"):
        write(state, "ds_limit", 0x123456)


@pytest.mark.parametrize(
    ("base", "name", "value", "sentence"),
    [
        (None, "ds_attr", 0x293, "sets reserved bits 0x200"),
        (None, "ds_attr", 0x20093, "sets reserved bits 0x20000"),
        (None, "ds_attr", 0x83, "DS holds only code and data segments"),
        (None, "es_attr", 0x99, "ES cannot hold execute-only code"),
        (None, "ss_attr", 0x91, "SS holds only writable data"),
        (None, "ss_attr", 0x9B, "SS holds only writable data"),
        (PROTECTED, "cs_attr", 0xC093, "CS holds only code"),
        (None, "cs_attr", 0x91, "CS holds only code"),
        (None, "ldtr_attr", 0x8B, "LDTR holds only an LDT"),
        (None, "tr_attr", 0x82, "TR holds only a TSS"),
        (None, "tr_attr", 0x9B, "TR holds only a TSS"),
        (PROTECTED, "cs_attr", 0x409B, "clears G, but the limit 0xffffffff needs it"),
    ],
)
def test_access_rights_that_the_register_cannot_hold_are_refused(
    base: Mapping[str, object] | None, name: str, value: int, sentence: str
) -> None:
    with pytest.raises(RegisterError, match=sentence):
        write(cpu(base), name, value)


def test_g_needs_a_limit_that_ends_in_fff() -> None:
    with pytest.raises(RegisterError, match="sets G, but the limit 0x1234 does not end in fff"):
        write(CpuState(ds=Segment(0, 0, 0x1234, 0x93)), "ds_attr", 0x8093)
    assert write(CpuState(ds=Segment(0, 0, 0x1FFF, 0x93)), "ds_attr", 0x8093).ds.access == 0x8093


@pytest.mark.parametrize(
    ("name", "value"),
    [("cs_attr", 0x93), ("ds_attr", 0x9B), ("ss_attr", 0x97), ("ds_attr", 0x10000), ("tr_attr", 0x83)],
)
def test_access_rights_that_the_register_can_hold_are_taken(name: str, value: int) -> None:
    assert read(write(CpuState(), name, value), name) == value


CR0_REFUSED = [
    (None, {}, 0x80000010, "cr0 = 0x80000010 sets PG without PE"),
    (None, {}, 0x20000010, "cr0 = 0x20000010 sets NW without CD"),
    (None, {}, 0x100000010, "cr0 = 0x100000010 sets reserved bits 0x100000000"),
    (V86, {}, 0x60000010, "PE in cr0 cannot be cleared in virtual-8086 mode"),
    (PROTECTED, {"efer": 0x100}, 0xE0000011, "PG in cr0 with LME in efer needs PAE in cr4"),
    (LONG, {"cr0": 0x60000011, "efer": 0x100}, 0xE0000011, "cannot be set while CS.L is set"),
    (
        PROTECTED, {"efer": 0x100, "cr4": 0x20, "tr": Segment(8, 0, 0x2B, 0x83)}, 0xE0000011,
        "cannot be set with a 16-bit TSS in TR",
    ),
    (LONG, {}, 0x60000011, "PG in cr0 cannot be cleared in 64-bit mode"),
    (COMPAT, {"cr4": 0x20020}, 0x60000011, "PG in cr0 cannot be cleared while PCIDE in cr4 is set"),
    (PROTECTED, {"cr4": 1 << 23}, 0x60000011, "WP in cr0 cannot be cleared while CET in cr4 is set"),
]  # fmt: skip


@pytest.mark.parametrize(("base", "rest", "value", "sentence"), CR0_REFUSED)
def test_cr0_refuses_what_mov_to_cr0_faults_on(
    base: Mapping[str, object] | None, rest: Mapping[str, object], value: int, sentence: str
) -> None:
    state = cpu(base, **rest)
    before = state.copy()
    with pytest.raises(RegisterError, match=sentence):
        write(state, "cr0", value)
    assert state == before


def test_cr0_keeps_et_and_drops_undefined_bits() -> None:
    assert write(CpuState(), "cr0", 0x1FFAFFC1).cr0 == 0x11


def test_paging_enables_and_disables_ia32e_mode_when_lme_is_set() -> None:
    state = cpu(PROTECTED, efer=0x100, cr4=0x20, tr=Segment(8, 0, 0x67, 0x8B))
    assert write(state, "cr0", 0xE0000011).efer == 0x500
    assert mode_of(state) is Mode.COMPAT32
    assert write(state, "cr0", 0x60000011).efer == 0x100
    assert write(cpu(PROTECTED), "cr0", 0xE0000011).efer == 0


@pytest.mark.parametrize(
    ("base", "rest", "name", "value", "sentence"),
    [
        (None, {}, "cr4", 1 << 15, "cr4 = 0x8000 sets reserved bits 0x8000"),
        (None, {}, "cr4", 1 << 26, "sets reserved bits 0x4000000"),
        (LONG, {}, "cr4", 0, "PAE in cr4 cannot be cleared in IA-32e mode"),
        (LONG, {}, "cr4", 0x1020, "LA57 in cr4 cannot be changed in IA-32e mode"),
        (None, {}, "cr4", 1 << 17, "PCIDE in cr4 needs IA-32e mode"),
        (LONG, {"cr3": 0x1018}, "cr4", 0x20020, "PCIDE in cr4 needs IA-32e mode and bits 11:0 of cr3 clear"),
        (LONG, {"cr3": 0x1008}, "cr4", 0x20020, "PCIDE in cr4 needs IA-32e mode and bits 11:0 of cr3 clear"),
        (None, {}, "cr4", 1 << 23, "CET in cr4 needs WP in cr0"),
        (None, {}, "cr3", 1 << 32, "cr3 = 0x100000000 needs IA-32e mode"),
        (LONG, {}, "cr3", 1 << 52, "cr3 = 0x10000000000000 sets reserved bits"),
        (None, {}, "cr8", 0x10, "cr8 has 4 bits"),
        (None, {}, "efer", 2, "efer = 0x2 sets reserved bits 0x2"),
        (LONG, {}, "efer", 0xC00, "LME in efer cannot be changed while PG in cr0 is set"),
        (None, {}, "efer", 0x400, "LMA in efer cannot be written"),
        (None, {}, "dr7", 1 << 32, "dr7 = 0x100000000 sets reserved bits"),
        (None, {}, "dr6", 1 << 32, "dr6 = 0x100000000 sets reserved bits"),
        (None, {}, "dr0", 1 << 32, "dr0 = 0x100000000 needs IA-32e mode"),
        (None, {}, "gdtr_base", 1 << 32, "gdtr_base = 0x100000000 needs IA-32e mode"),
        (LONG, {}, "idtr_base", 1 << 47, "idtr_base = 0x800000000000 is not canonical"),
        (None, {}, "gdtr_limit", 0x10000, "gdtr_limit has 16 bits"),
        (None, {}, "lstar", 1 << 47, "lstar = 0x800000000000 is not canonical"),
        (None, {}, "kernel_gs_base", 1 << 63, "kernel_gs_base = 0x8000000000000000 is not canonical"),
        (None, {}, "sysenter_eip", 1 << 47, "sysenter_eip = 0x800000000000 is not canonical"),
        (None, {}, "pat", 0x0200, "PA1 is 2, not a memory type"),
        (None, {}, "pat", 0x10, "PA0 is 16, not a memory type"),
        (None, {}, "apic_base", 0xFEE00200, "sets reserved bits 0x200"),
        (None, {}, "apic_base", 0xFEE00400, "sets EXTD without EN"),
        (None, {}, "mxcsr", 0x10000, "mxcsr = 0x10000 sets reserved bits 0x10000"),
        (None, {}, "fop", 0x800, "fop has 11 bits"),
    ],
)
def test_system_registers_refuse_what_the_cpu_faults_on(
    base: Mapping[str, object] | None, rest: Mapping[str, object], name: str, value: int, sentence: str
) -> None:
    state = cpu(base, **rest)
    before = state.copy()
    with pytest.raises(RegisterError, match=sentence):
        write(state, name, value)
    assert state == before


@pytest.mark.parametrize(
    ("base", "name", "value"),
    [
        (None, "cr4", 0x6F8), (None, "cr2", (1 << 64) - 1), (LONG, "cr3", (1 << 52) - 1), (None, "efer", 0x901),
        (LONG, "cr4", 0x20020), (LONG, "dr0", 0xFFFF800000000000), (LONG, "gdtr_base", 0xFFFF800000000000),
        (None, "pat", 0x0706050401000604), (None, "apic_base", 0xFEE00C00), (None, "star", (1 << 64) - 1),
        (None, "mxcsr", 0xFFFF), (None, "xmm15", (1 << 128) - 1), (None, "st7", (1 << 80) - 1), (None, "cr8", 15),
        (None, "fctrl", 0x27F), (None, "fioff", 0xFFFFFFFF), (None, "fop", 0x7FF), (None, "idtr_limit", 0x3FF),
    ],
)  # fmt: skip
def test_system_registers_take_what_the_cpu_takes(base: Mapping[str, object] | None, name: str, value: int) -> None:
    assert read(write(cpu(base), name, value), name) == value


def test_debug_registers_keep_their_fixed_bits() -> None:
    assert write(CpuState(), "dr6", 0).dr[6] == 0xFFFF0FF0
    assert write(CpuState(), "dr6", 0xFFFFFFFF).dr[6] == 0xFFFFEFFF
    assert write(CpuState(), "dr7", 0).dr[7] == 0x400
    assert write(CpuState(), "dr7", 0xFFFFFFFF).dr[7] == 0xFFFF27FF


# SDM vol. 4, table 2-2.
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("apic_base", 0x1B), ("sysenter_cs", 0x174), ("sysenter_esp", 0x175), ("sysenter_eip", 0x176), ("pat", 0x277),
        ("star", 0xC0000081), ("lstar", 0xC0000082), ("cstar", 0xC0000083), ("fmask", 0xC0000084),
        ("kernel_gs_base", 0xC0000102),
    ],
)  # fmt: skip
def test_msrs_have_the_numbers_of_the_sdm(name: str, number: int) -> None:
    assert read(CpuState(msrs={number: 0x1234}), name) == 0x1234


def test_msrs_are_kept_by_their_number() -> None:
    state = write(CpuState(), "lstar", 0xFFFFFFFF81000000)
    assert state.msrs == {0xC0000082: 0xFFFFFFFF81000000}
    assert read(CpuState(), "pat") == 0x0007040600070406
    assert flag_names("apic_base", read(CpuState(), "apic_base")) == "BSP EN"


# Values of an 80-bit register and their tag (SDM vol. 2A, FXSAVE, "Recreating FSAVE format").
TAGS = [
    (0x3FFF8000000000000000, 0),  # 1.0
    (0x00000000000000000000, 1),  # +0
    (0x80000000000000000000, 1),  # -0
    (0x7FFF8000000000000000, 2),  # infinity
    (0x7FFFC000000000000000, 2),  # NaN
    (0x00000000000000000001, 2),  # denormal
    (0x00008000000000000000, 2),  # pseudo-denormal
    (0x3FFF0000000000000001, 2),  # unnormal
]


@pytest.mark.parametrize(("value", "tag"), TAGS)
def test_the_full_tag_word_is_made_from_the_contents(value: int, tag: int) -> None:
    fpu = Fpu(ftw=0x01, st=[value] + [0] * 7)
    assert full_tag_word(fpu) == 0xFFFC | tag


def test_tags_belong_to_physical_registers_and_st_to_the_stack() -> None:
    # TOP = 6: ST(0) is R6, ST(1) is R7, ST(2) is R0.
    fpu = Fpu(fsw=6 << 11, ftw=0b11000001, st=[0x3FFF8000000000000000, 0, 0x7FFF8000000000000000, 0, 0, 0, 0, 0])
    assert full_tag_word(fpu) == 0b01_00_11_11_11_11_11_10


def test_writing_ftag_sets_what_is_not_empty() -> None:
    assert read(CpuState(), "ftag") == 0x5555  # after RESET every register holds zero (SDM vol. 3A, table 10-1)
    assert write(CpuState(), "ftag", 0b00_01_10_11_11_11_11_00).fpu.ftw == 0b11100001


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("cr0", 0xE0000031, "PE ET NE NW CD PG"),
        ("cr0", 0x80000031, "PE ET NE PG"),
        ("cr4", 0x6B0, "PSE PAE PGE OSFXSR OSXMMEXCPT"),
        ("efer", 0xD01, "SCE LME LMA NXE"),
        ("eflags", 0x246, "IF ZF PF"),
        ("eflags", 0x3202, "IOPL=3 IF"),
        ("rflags", 0x20ED7, "VM OF DF IF SF ZF AF PF CF"),
        ("eflags", 0x2, ""),
        ("dr6", 0xFFFF4FF1, "B0 BS"),
        ("dr7", 0xD0402, "G0 RW0=1 LEN0=3"),
        ("ds_attr", 0xC093, "type=3 S P DB G"),
        ("rax", 0xFFFF, ""),
    ],
)
def test_flags_are_named_in_the_usual_order(name: str, value: int, text: str) -> None:
    assert flag_names(name, value) == text
    assert flag_names(REGISTERS[name], value) == text
