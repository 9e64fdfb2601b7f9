"""Loading a selector as the CPU does (SDM vol. 2: MOV Sreg, far JMP, LLDT, LTR)."""

from __future__ import annotations

import pytest

from emu.x86.descriptors import Descriptor, Gate, build_descriptor, build_gate, load_selector
from emu.x86.register_writes import RegisterError
from emu.x86.state import CpuState, Segment, Table

GDT = 0x1000
SLOTS = {
    0x08: Descriptor(0, 0xFFFFFFFF, 0xC09A),  # code32, ring 0
    0x10: Descriptor(0x5000, 0xFFFFFFFF, 0xC092),  # data32, ring 0
    0x18: Descriptor(0x20000, 0xFFFF, 0x00F2),  # data16, ring 3
    0x20: Descriptor(0, 0xFFFF, 0x0090),  # read-only
    0x28: Descriptor(0, 0xFFFF, 0x0098),  # execute-only
    0x30: Descriptor(0, 0xFFFF, 0x0012),  # data, not present
    0x38: Descriptor(0, 0xFFFF, 0x00FE),  # conforming code, DPL 3
    0x40: Descriptor(0x7000, 0x17, 0x0082),  # LDT
    0x48: Descriptor(0x8000, 0x67, 0x0089),  # available TSS
    0x50: Descriptor(0x8000, 0x67, 0x008B),  # busy TSS
    0x58: Descriptor(0, 0xFFFF, 0x009E),  # conforming code, DPL 0
    0x60: Descriptor(0, 0xFFFF, 0x001A),  # code, not present
    0x70: Descriptor(0x7000, 0x17, 0x0002),  # LDT, not present
    0x78: Descriptor(0, 0xFFFFF, 0x00FA),  # code, ring 3
}
LDT_ENTRY = Descriptor(0x99000, 0xFFF, 0x0092)


def protected(cpl: int = 0, efer: int = 0, code: int = 0xC09B) -> CpuState:
    return CpuState(
        cr0=0xE0000011 if efer else 0x60000011,
        cr4=0x20 if efer else 0,
        efer=efer,
        cs=Segment(0x08 | cpl, 0, 0xFFFFFFFF, code | cpl << 5),
        ss=Segment(0x10 | cpl, 0, 0xFFFFFFFF, 0xC093 | cpl << 5),
        gdtr=Table(GDT, 0x8F),
        ldtr=Segment(0x40, 0x7000, 0x17, 0x82),
    )


def memory(address: int, length: int) -> bytes | None:
    table = bytearray(0x90)
    for offset, descriptor in SLOTS.items():
        table[offset : offset + 8] = build_descriptor(descriptor)
    table[0x68:0x70] = build_gate(Gate(8, 0x1234, 0x8C))
    wide = build_descriptor(Descriptor(0xFFFF800000008000, 0x67, 0x89), wide=True)
    table[0x80:0x90] = wide
    image = {GDT: bytes(table), 0x7000: bytes(8) + build_descriptor(LDT_ENTRY) + bytes(8)}
    for start, data in image.items():
        if start <= address and address + length <= start + len(data):
            return data[address - start : address - start + length]
    return None


@pytest.mark.parametrize(
    ("name", "selector", "expected"),
    [
        ("ds", 0x10, Segment(0x10, 0x5000, 0xFFFFFFFF, 0xC093)),
        ("es", 0x1B, Segment(0x1B, 0x20000, 0xFFFF, 0xF3)),
        ("fs", 0x08, Segment(0x08, 0, 0xFFFFFFFF, 0xC09B)),
        ("gs", 0x3B, Segment(0x3B, 0, 0xFFFF, 0xFF)),
        ("ss", 0x10, Segment(0x10, 0x5000, 0xFFFFFFFF, 0xC093)),
        ("cs", 0x08, Segment(0x08, 0, 0xFFFFFFFF, 0xC09B)),
        ("cs", 0x5B, Segment(0x58, 0, 0xFFFF, 0x9F)),
        ("ds", 0x0C, Segment(0x0C, 0x99000, 0xFFF, 0x93)),
        ("ds", 0x03, Segment(0x03, 0, 0, 0x10000)),
        ("ldtr", 0x40, Segment(0x40, 0x7000, 0x17, 0x82)),
        ("ldtr", 0, Segment(0, 0, 0, 0x10000)),
        ("tr", 0x48, Segment(0x48, 0x8000, 0x67, 0x8B)),
    ],
)
def test_a_selector_loads_its_descriptor_into_the_cache(name: str, selector: int, expected: Segment) -> None:
    state = protected()
    load_selector(state, name, selector, memory)
    assert state.segment(name) == expected


REFUSED = [
    ("ds", 0x90, 0, "beyond the GDT's limit 0x8f"),
    ("ds", 0x1C, 0, "beyond the LDT's limit 0x17"),
    ("ds", 0x28, 0, r"code16 is not readable \(#GP\(0x28\)\)"),
    ("ds", 0x30, 0, r"not present \(#NP\(0x30\)\)"),
    ("ds", 0x10, 3, r"DPL 0 is below RPL 0 or CPL 3"),
    ("ds", 0x13, 0, "DPL 0 is below RPL 3 or CPL 0"),
    ("ds", 0x48, 0, "tss32 available is not a code or data segment"),
    ("ss", 0x00, 0, "ss cannot hold the null selector 0x0000: only in 64-bit mode"),
    ("ss", 0x20, 0, "data16 is not writable data"),
    ("ss", 0x08, 0, "code32 is not writable data"),
    ("ss", 0x11, 0, "RPL 1 and DPL 0 must equal CPL 0"),
    ("ss", 0x1B, 0, "RPL 3 and DPL 3 must equal CPL 0"),
    ("ss", 0x30, 0, r"not present \(#SS\(0x30\)\)"),
    ("cs", 0x00, 0, "cs cannot hold the null selector"),
    ("cs", 0x10, 0, "data32 is not code"),
    ("cs", 0x68, 0, "call gate 32 is not a code or data segment"),
    ("cs", 0x78, 0, "code of DPL 3 with RPL 0 cannot be entered from CPL 0"),
    ("cs", 0x0B, 0, "code of DPL 0 with RPL 3 cannot be entered from CPL 0"),
    ("cs", 0x38, 0, "conforming code of DPL 3 is above CPL 0"),
    ("cs", 0x60, 0, r"not present \(#NP\(0x60\)\)"),
    ("ldtr", 0x44, 0, "it must name the GDT"),
    ("ldtr", 0x48, 0, "tss32 available is not an LDT"),
    ("ldtr", 0x10, 0, "data32 rw- DPL 0 is not an LDT"),
    ("ldtr", 0x70, 0, r"not present \(#NP\(0x70\)\)"),
    ("tr", 0x00, 0, "tr cannot hold the null selector"),
    ("tr", 0x50, 0, "tss32 busy is not an available TSS"),
    ("tr", 0x40, 0, "ldt is not an available TSS"),
    ("ds", 0x10000, 0, "ds has 16 bits"),
    ("cr0", 0x10, 0, "no segment register cr0"),
]


@pytest.mark.parametrize(("name", "selector", "cpl", "sentence"), REFUSED)
def test_a_load_that_the_cpu_faults_on_is_refused_and_changes_nothing(
    name: str, selector: int, cpl: int, sentence: str
) -> None:
    state = protected(cpl)
    with pytest.raises(RegisterError, match=sentence):
        load_selector(state, name, selector, memory)
    assert state == protected(cpl)


def test_code_is_entered_at_the_present_privilege_only() -> None:
    state = protected(3)
    load_selector(state, "cs", 0x78, memory)
    assert (state.cs.selector, state.cs.access) == (0x7B, 0xFB)


def test_without_an_ldt_a_local_selector_is_refused() -> None:
    state = protected()
    state.ldtr = Segment(0, 0, 0, 0x10000)
    with pytest.raises(RegisterError, match="selector 0x000c names the LDT, and none is loaded"):
        load_selector(state, "ds", 0x0C, memory)


def test_an_unreadable_table_is_named_with_its_address() -> None:
    state = protected()
    state.gdtr.base = 0x500000
    with pytest.raises(RegisterError, match="the GDT cannot be read at 0x500010"):
        load_selector(state, "ds", 0x10, memory)


def test_ia32e_mode_loads_a_tss_of_16_bytes() -> None:
    state = protected(efer=0xD00, code=0xA09B)
    load_selector(state, "tr", 0x80, memory)
    assert state.tr == Segment(0x80, 0xFFFF800000008000, 0x67, 0x8B)


def test_64_bit_mode_allows_a_null_ss_below_cpl_3_with_rpl_equal_cpl() -> None:
    state = protected(cpl=1, efer=0xD00, code=0xA09B)
    load_selector(state, "ss", 1, memory)
    assert state.ss == Segment(1, 0, 0, 0x10020)
    assert state.cpl == 1
    with pytest.raises(RegisterError, match="only in 64-bit mode below CPL 3 with RPL = CPL"):
        load_selector(state, "ss", 0, memory)
    compat = protected(efer=0xD00)
    with pytest.raises(RegisterError, match="null selector"):
        load_selector(compat, "ss", 0, memory)


def test_l_and_d_together_are_refused_in_ia32e_mode() -> None:
    raw = build_descriptor(Descriptor(0, 0xFFFFFFFF, 0xE09A))
    state = protected(efer=0xD00, code=0xA09B)
    with pytest.raises(RegisterError, match="L and D are both set"):
        load_selector(state, "cs", 0x08, lambda address, length: raw)


def test_l_and_d_together_are_just_32_bit_code_in_legacy_mode() -> None:
    raw = build_descriptor(Descriptor(0, 0xFFFFFFFF, 0xE09A))
    state = protected()
    load_selector(state, "cs", 0x08, lambda address, length: raw)
    assert state.cs.access == 0xE09B


def test_ia32e_mode_changes_between_its_sub_modes_by_the_code_segment() -> None:
    state = protected(efer=0xD00, code=0xA09B)
    load_selector(state, "cs", 0x08, memory)
    assert (state.cs.access, state.long64) == (0xC09B, False)


def test_big_real_limits_survive_a_selector_load_in_real_mode() -> None:
    state = CpuState(ds=Segment(8, 0, 0xFFFFFFFF, 0xC093))
    load_selector(state, "ds", 0x1234, lambda address, length: None)
    assert state.ds == Segment(0x1234, 0x12340, 0xFFFFFFFF, 0xC093)


def test_v86_loads_a_64_kib_segment_of_dpl_3() -> None:
    state = CpuState(cr0=0xE0000011, rflags=0x20002)
    load_selector(state, "ds", 0x1234, lambda address, length: None)
    assert state.ds == Segment(0x1234, 0x12340, 0xFFFF, 0xF3)


@pytest.mark.parametrize("name", ["ldtr", "tr"])
def test_system_registers_cannot_be_loaded_in_real_mode(name: str) -> None:
    with pytest.raises(RegisterError, match=f"{name} cannot be loaded: the CPU raises #UD in real mode"):
        load_selector(CpuState(), name, 0x48, memory)
