"""Which states VT-x and SVM take: each rule, by the SDM's and the APM's words, broken alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu.x86.state import CpuState, Segment
from emu.x86.vmentry import RULES, SVM, VTX, VTX2006, Rules
from emu.x86.vmentry_controls import interruptibility, interruptibility_rules

Change = Callable[[CpuState], None]


def real(selector: int = 0x1200) -> CpuState:
    """Real mode as any loader runs in it."""
    state = CpuState(rip=0x7C00)
    state.cs = Segment(0, 0, 0xFFFF, 0x9B)
    for name in ("ss", "ds", "es", "fs", "gs"):
        setattr(state, name, Segment(selector, selector << 4, 0xFFFF, 0x93))
    return state


def flat() -> CpuState:
    """32-bit protected mode, ring 0, flat."""
    state = CpuState(rip=0x100000, cr0=0x60000011)
    state.cs = Segment(8, 0, 0xFFFFFFFF, 0xC09B)
    for name in ("ss", "ds", "es", "fs", "gs"):
        setattr(state, name, Segment(16, 0, 0xFFFFFFFF, 0xC093))
    return state


def long() -> CpuState:
    """64-bit mode, ring 0."""
    state = flat()
    state.cr0 |= 1 << 31
    state.cr4, state.efer = 0x20, 0x500
    state.cs = Segment(8, 0, 0xFFFFFFFF, 0xA09B)
    return state


def v86() -> CpuState:
    state = flat()
    state.rflags = 0x20002
    for name in ("cs", "ss", "ds", "es", "fs", "gs"):
        setattr(state, name, Segment(0x1200, 0x12000, 0xFFFF, 0xF3))
    return state


def debug(dr6: int = 0xFFFF0FF0, dr7: int = 0x400) -> Change:
    return put(dr=[0, 0, 0, 0, 0, 0, dr6, dr7])


def put(**parts: object) -> Change:
    """Set `cs_base=1`, `rip=...` in a state."""

    def change(state: CpuState) -> None:
        for name, value in parts.items():
            where, _, field = name.partition("_")
            if field:
                setattr(state.segment(where) if where not in ("gdtr", "idtr") else getattr(state, where), field, value)
            else:
                setattr(state, name, value)

    return change


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("made", [real, flat, long, v86])
def test_the_plain_states_of_each_mode_are_enterable_everywhere(rules: object, made: Callable[[], CpuState]) -> None:
    assert [str(b) for b in rules.broken(made())] == []
    assert rules.enterable(made())


#: A state, one change, and what each CPU says of it: "" where it takes the state.
CASES: list[tuple[str, Callable[[], CpuState], Change, str, str]] = [
    # 26.3.1.2, virtual-8086: base, limit, access rights of the six segments; of real mode only where that is its cloak
    ("big real", real, put(ds_limit=0xFFFFFFFF, ds_access=0x8093), "ds limit 0xffffffff big real", ""),
    ("real based", real, put(ss_base=0x12340), "ss base 0x12340 is not selector 0x1200 << 4", ""),
    ("real 32-bit code", real, put(cs_access=0x409B), "cs access rights 0x409b", ""),
    ("real unusable", real, put(es_access=0x10000), "es is unusable", ""),
    ("reset", real, put(cs_selector=0xF000, cs_base=0xFFFF0000), "cs base 0xffff0000", ""),
    ("v86 based", v86, put(cs_base=0), "cs base 0x0 is not selector 0x1200", "cs base 0x0 is not selector 0x1200"),
    ("v86 limit", v86, put(gs_limit=0xFFFFF), "gs limit 0xfffff", "gs limit 0xfffff"),
    ("v86 short limit", v86, put(gs_limit=0xFFF), "gs limit 0xfff is", "gs limit 0xfff is"),
    ("real short limit", real, put(fs_limit=0xFFF), "fs limit 0xfff is not 0xffff", ""),
    ("v86 dpl", v86, put(ds_access=0x93), "ds access rights 0x93 are not 0xf3 (", "ds access rights 0x93"),
    ("v86 code", v86, put(cs_access=0xFB), "cs access rights 0xfb are not 0xf3 (", "cs access rights 0xfb"),
    ("v86 no tss", v86, put(tr_access=0x10000), "tr is unusable", "tr is unusable"),
    ("v86 idle tss", v86, put(tr_access=0x89), "tr type 0x9 is not a busy tss", "tr type 0x9"),
    ("v86 ldt's type", v86, put(ldtr_access=0x8B), "ldtr type 0xb is not an ldt", "ldtr type 0xb"),
    ("real no tss", real, put(tr_access=0x10000), "", "tr is unusable"),
    ("real ring 3", real, put(ss_access=0xF3), "", "ss.dpl 3 is not 0 in real mode"),
    # protected: CS's type and DPL, SS's DPL and RPL
    ("no code", flat, put(cs_access=0x10000), "cs is unusable", "cs is unusable"),
    ("absent code", flat, put(cs_access=0xC01B), "cs is not present", "cs is not present"),
    ("pe just set", flat, put(cs_access=0x93, cs_limit=0xFFFF), "cs type 0x3 is not accessed code", ""),
    ("pe just set, read only", flat, put(cs_access=0x91), "cs type 0x1", "cs type 0x1"),
    ("unaccessed code", flat, put(cs_access=0xC09A), "cs type 0xa", "cs type 0xa"),
    ("stale ss", flat, put(ss_selector=0x1203), "ss.rpl 3 is not cs.rpl 0; ss.dpl 0 is not ss.rpl 3", ""),
    ("code's dpl", flat, put(cs_access=0xC0FB), "cs.dpl 3 is not ss.dpl 0", "cs.dpl 3 is not ss.dpl 0"),
    ("conforming above", flat, put(cs_access=0xC0FF), "conforming cs has dpl 3", "conforming cs has dpl 3"),
    ("code's dpl below", flat, put(ss_access=0xC0F3, ss_selector=0x13), "cs.dpl 0 is not ss", "cs.dpl 0 is not ss.dpl"),
    ("L and D outside IA-32e mode", flat, put(cs_access=0xE09B), "", ""),
    ("data as cs, ring 3", flat, put(cs_access=0xF3), "cs type 0x3", "cs is a data segment with dpl 3"),
    # type 3 in CS is for an unrestricted guest, with DPL 0 in CS and in SS (26.3.1.2: "DPL must be 0 either if the Type
    # in the access-rights field for CS is 3 or if bit 0 in the CR0 field is 0")
    ("data as cs, stack of ring 3", flat, put(cs_access=0xC093, ss_access=0xC0F3), "cs type 0x3", "ss.dpl 3 is not 0"),
    ("stack read only", flat, put(ss_access=0xC091), "ss type 0x1", "ss type 0x1"),
    ("stack absent", flat, put(ss_access=0xC013), "ss is not present", "ss is not present"),
    # data: accessed, readable, DPL, S, P
    ("data unaccessed", flat, put(ds_access=0xC092), "ds type 0x2 is not accessed", "ds type 0x2 is not accessed"),
    ("execute-only", flat, put(es_access=0xC099), "es type 0x9 is execute-only", "es type 0x9 is execute-only"),
    ("data's dpl", flat, put(ds_selector=0x1203), "ds.dpl 0 is below rpl 3", ""),
    ("conforming code's dpl", flat, put(ds_selector=0x1203, ds_access=0xC09F), "", ""),
    ("system data", flat, put(fs_access=0xC083), "fs is a system segment", "fs is a system segment"),
    ("absent data", flat, put(gs_access=0xC013), "gs is not present", "gs is not present"),
    ("reserved", flat, put(ds_access=0xC193), "ds access rights 0xc193 have reserved", "ds access rights 0xc193"),
    ("needs G", flat, put(ds_access=0x4093), "ds limit 0xffffffff needs g=1", "ds limit 0xffffffff needs g=1"),
    ("needs no G", flat, put(ds_limit=0x12345, ds_access=0xC093), "ds limit 0x12345 needs g=0", "needs g=0"),
    # task and local table
    ("idle tss", flat, put(tr_access=0x89), "tr type 0x9 is not a busy tss", "tr type 0x9 is not a busy tss"),
    ("no tss", flat, put(tr_access=0x10000), "tr is unusable", "tr is unusable"),
    ("tss in ldt", flat, put(tr_selector=0x2C), "tr selector 0x2c is in the ldt", "tr selector 0x2c"),
    ("16-bit tss", flat, put(tr_access=0x83), "", ""),
    ("16-bit tss in IA-32e", long, put(tr_access=0x83), "tr type 0x3", "tr type 0x3"),
    ("ldt's type", flat, put(ldtr_access=0x8B), "ldtr type 0xb is not an ldt", "ldtr type 0xb"),
    ("ldt in ldt", flat, put(ldtr_selector=0xC), "ldtr selector 0xc is in the ldt", "ldtr selector 0xc"),
    ("absent tss", flat, put(tr_access=0x0B), "tr is not present", "tr is not present"),
    ("absent ldt", flat, put(ldtr_access=0x02), "ldtr is not present", "ldtr is not present"),
    # bases
    ("cs above 4 GiB", long, put(cs_base=1 << 32), "cs base 0x100000000 has more", "cs base 0x100000000"),
    ("ss above 4 GiB", long, put(ss_base=1 << 32), "ss base 0x100000000 has more", "ss base 0x100000000"),
    ("ds above 4 GiB", long, put(ds_base=1 << 32), "ds base 0x100000000 has more", "ds base 0x100000000"),
    ("es above 4 GiB", long, put(es_base=1 << 32), "es base 0x100000000 has more", "es base 0x100000000"),
    ("unusable ds above", long, put(ds_base=1 << 32, ds_access=0x10000), "", ""),
    ("fs above 4 GiB", long, put(fs_base=0xFFFF8000_00000000, gs_base=1 << 46), "", ""),
    ("fs", long, put(fs_base=1 << 47), "fs base 0x800000000000 is not canonical", "fs base 0x800000000000"),
    ("unusable gs", long, put(gs_base=1 << 63, gs_access=0x10000), "gs base 0x8000000000000000", "gs base 0x8000"),
    ("tr", long, put(tr_base=1 << 47), "tr base 0x800000000000 is not canonical", "tr base 0x800000000000"),
    ("ldtr", long, put(ldtr_base=1 << 47), "ldtr base 0x800000000000 is not canonical", "ldtr base 0x80000"),
    ("unusable ldtr", long, put(ldtr_base=1 << 47, ldtr_access=0x10000), "", ""),
    # 26.3.1.1, .3, .4, .5
    ("cr3", long, put(cr3=1 << 52), "cr3 0x10000000000000 has more than 52 bits", "cr3 0x10000000000000"),
    ("high cr3", long, put(cr3=1 << 51), "", ""),
    ("cr4", flat, put(cr4=1 << 15), "cr4 0x8000 has reserved bits 0x8000", "cr4 0x8000"),
    ("pcide", flat, put(cr4=1 << 17), "cr4 0x20000 has pcide outside ia-32e mode", "cr4 0x20000 has pcide outside"),
    ("pcide in IA-32e", long, put(cr4=1 << 17 | 0x20), "", ""),
    ("cet", flat, put(cr4=1 << 23), "cr4 0x800000 has cet and cr0 0x60000011 no wp", "cr4 0x800000 has cet"),
    ("cet with WP", flat, put(cr4=1 << 23, cr0=0x60010011), "", ""),
    # with "load IA32_EFER" and "load IA32_PAT", which CPUs of 2006 had not
    ("efer", flat, put(efer=1 << 14), "", "efer 0x4000 has reserved bits 0x4000"),
    ("efer, bit 1", long, put(efer=0x502), "", "efer 0x502 has reserved bits 0x2"),
    ("efer, all it has", long, put(efer=0xD01), "", ""),
    ("pat", flat, put(msrs={0x277: 0x0007040600070402}), "", "pat 0x7040600070402: pa0 is 2, no memory type"),
    ("pat, the last", flat, put(msrs={0x277: 0x0807040600070406}), "", "pa7 is 8, no memory type"),
    ("pat, each type", flat, put(msrs={0x277: 0x0000070605040100}), "", ""),
    ("dr7", flat, debug(dr7=1 << 32 | 0x400), "dr7 0x100000400", "dr7 0x100000400"),
    ("sysenter's stack", flat, put(msrs={0x175: 1 << 47}), "sysenter_esp 0x800000000000", "sysenter_esp 0x8"),
    ("sysenter's target", flat, put(msrs={0x176: 1 << 63}), "sysenter_eip 0x8000000000000000", "sysenter_eip 0x8"),
    ("sysenter", flat, put(msrs={0x175: 0xFFFF8000_00000000, 0x176: 0x7FFF_FFFFFFFF}), "", ""),
    ("64-bit rip", long, put(rip=1 << 48), "rip 0x1000000000000 is not canonical", "rip 0x1000000000000"),
    ("rip's bit 47", long, put(rip=1 << 47), "", ""),  # 26.3.1.4: the address width's bits upward are looked at
    ("high rip", long, put(rip=0xFFFF8000_00000000), "", ""),
    ("VM in real mode", real, put(rflags=0x20002), "vm is set outside", "vm is set outside"),
    ("VM in IA-32e", long, put(rflags=0x20002), "vm is set outside", "vm is set outside"),
    ("paging without PE", real, put(cr0=0xE0000010), "cr0 0xe0000010 has pg without pe", "has pg without pe"),
    ("LMA alone", flat, put(efer=0x400), "has no pae; has no pg", "has no pae; has no pg"),
    ("LMA not LME", long, put(efer=0x400), "lma is not lme", "lma is not lme"),
    ("LA without PAE", long, put(cr4=0), "cr4 0x0 has no pae", "cr4 0x0 has no pae"),
    ("L and D", long, put(cs_access=0xE09B), "cs has both l and d", "cs has both l and d"),
    ("table's limit", flat, put(idtr_limit=0x10000), "idtr limit 0x10000", "idtr limit 0x10000"),
    ("table's base", long, put(gdtr_base=1 << 47), "gdtr base 0x800000000000", "gdtr base 0x800000000000"),
    ("rip", flat, put(rip=1 << 32), "rip 0x100000000", "rip 0x100000000"),
    ("flags", flat, put(rflags=0x8002), "rflags 0x8002", "rflags 0x8002"),
    ("bit 1", flat, put(rflags=0), "rflags 0x0", "rflags 0x0"),
    ("halted in ring 3", flat, put(halted=True, ss_access=0xC0F3), "halted with ss.dpl 3", "halted with ss.dpl 3"),
    ("shadow of STI", flat, put(shadow=True, rflags=0x202), "", ""),
    ("shadow with IF clear, MOV SS's", flat, put(shadow=True, rflags=2), "", ""),
    ("halted in shadow", flat, put(halted=True, shadow=True), "halted in the shadow", "halted in the shadow"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "change", "old", "new"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_each_rule_of_vt_x_is_told_with_its_values(
    made: Callable[[], CpuState], change: Change, old: str, new: str
) -> None:
    state = made()
    change(state)
    for rules, expected in ((VTX2006, old), (VTX, new)):
        said = "; ".join(str(b) for b in rules.broken(state)).lower()
        assert bool(said) == bool(expected) != rules.enterable(state), said
        for part in expected.split("; "):
            words = part.split(" big real")
            assert words[0] in said, (rules.name, said)
            assert len(words) == 1 or "big real mode" in said


#: SDM vol. 3C, 26.3.1.5, "Interruptibility state", by the bits of table 24-3: STI 0, MOV SS 1, SMI 2, NMI 3, enclave 4.
#: The field, RFLAGS, halted, and what is said of it.
BLOCKING: list[tuple[int, int, bool, str]] = [
    (0, 2, True, ""),
    (1, 0x202, False, ""),
    (1, 2, False, "interruptibility state 0x1 blocks by STI, and RFLAGS 0x2 has IF clear"),
    (2, 2, False, ""),
    (2, 0x202, False, ""),
    (3, 0x202, False, "interruptibility state 0x3 blocks by both STI and MOV SS"),
    (1, 0x202, True, "halted in the shadow of STI or MOV SS"),
    (2, 0x202, True, "halted in the shadow of STI or MOV SS"),
    (4, 2, False, "interruptibility state 0x4 blocks by SMI outside system management mode"),
    (8, 2, True, ""),
    (0x10, 2, False, "interruptibility state 0x10 is an enclave's, and there is none"),
    (0x20, 2, False, "interruptibility state 0x20 has reserved bits 0x20"),
    (1 << 31, 2, False, "interruptibility state 0x80000000 has reserved bits 0x80000000"),
]  # fmt: skip


@pytest.mark.parametrize(("blocking", "rflags", "halted", "said"), BLOCKING)
def test_an_interruptibility_state_is_told_by_the_sdms_table(
    blocking: int, rflags: int, halted: bool, said: str
) -> None:
    found = list(interruptibility_rules(blocking, rflags, halted))
    assert [(b.text, b.source) for b in found] == ([(said, "SDM 3C 26.3.1.5")] if said else [])


def test_a_shadow_is_given_as_what_can_have_made_it() -> None:
    """Behind STI IF is set (SDM vol. 2B, STI), so with IF clear a load of SS has made it."""
    state = flat()
    assert interruptibility(state) == 0
    state.shadow, state.nmi_blocked = True, True
    for state.rflags, blocking in ((2, 0b1010), (0x202, 0b1001)):
        assert interruptibility(state) == blocking


def test_each_broken_rule_names_the_register_to_load_and_its_section() -> None:
    state = real()
    put(ss_base=0x12340, ds_limit=0xFFFFFFFF)(state)
    broken = VTX2006.broken(state)
    assert [b.register for b in broken] == ["ss", "ds"]
    assert str(broken[0]) == (
        "real mode runs as virtual 8086 here: SS base 0x12340 is not selector 0x1200 << 4"
        " (SDM 3C 26.3.1.2, virtual-8086)"
    )


#: AMD's checks (APM vol. 2, 15.5.1): of the segments only L with D in long mode.
AMD: list[tuple[Callable[[], CpuState], Change, str]] = [
    (real, put(ss_base=0x12340, ds_limit=0xFFFFFFFF, ds_access=0x8093), ""),
    (real, put(cr0=0xE0000010), ""),  # paged real mode
    (flat, put(cs_access=0x93, tr_access=0x89), ""),
    (real, put(cr0=0x20000010), "cr0"),
    (long, put(cs_access=0xE09B), "cs"),
    (long, put(cr4=0), "cr4"),
    (long, put(cr0=0xE0000010), "cr0"),
    (flat, put(cr0=0x1_0000_0011), "cr0"),
    (flat, debug(dr6=0x1_FFFF_0FF0), "dr6"),
    (flat, debug(dr7=0x1_0000_0400), "dr7"),
    (long, put(cr3=1 << 52), "cr3"),
    (long, put(cr3=1 << 51), ""),
    *((long, put(cr4=0x20 | 1 << bit), "cr4") for bit in (13, 14, 19, 24, 25)),  # VMXE and its like are Intel's
    (flat, put(cr4=1 << 20), ""),
    (flat, put(efer=1 << 9), "efer"),
    (long, put(efer=0xD01 | 0xF000), ""),
    (v86, put(tr_access=0x10000, ds_access=0x93), ""),
]


@pytest.mark.parametrize(("made", "change", "register"), AMD)
def test_svm_checks_controls_and_hardly_any_segment(
    made: Callable[[], CpuState], change: Change, register: str
) -> None:
    state = made()
    change(state)
    assert [b.register for b in SVM.broken(state)] == ([register] if register else [])


# -- CR0.PE has just been set


@pytest.mark.parametrize(("selector", "base"), [(0, 0), (0x1200, 0x12000), (0xF000, 0xFFFF0000)])
def test_until_a_far_transfer_cs_is_what_real_mode_has_made_of_it(selector: int, base: int) -> None:
    """SDM vol. 3A, table 10-1: a CPU has read/write data in CS then, which only an unrestricted guest may have."""
    state = real(selector)
    state.cs.selector, state.cs.base = selector, base
    state.cr0 |= 1
    said = [b for b in VTX2006.broken(state) if b.register == "cs"]
    assert len(said) == 1 and said[0].source == "SDM 3C 26.3.1.2"
    assert said[0].text.startswith(f"CS {selector:#x} is as real mode has loaded it")
    assert said[0].text.endswith("no far transfer has loaded it yet")
    assert not [b for b in VTX.broken(state) if b.register == "cs"]


def test_behind_the_far_jump_it_is_code_whatever_its_base() -> None:
    state = flat()
    for cs in (Segment(8, 0, 0xFFFF, 0x9B), Segment(8, 0x12000, 0xFFFF, 0x9B), Segment(8, 0x80, 0xFFFFF, 0x9B)):
        state.cs = cs
        assert VTX2006.enterable(state), cs
    state.cs = Segment(8, 0x80, 0xFFFFFFFF, 0xC09B)  # 32-bit code no real mode has
    assert VTX2006.enterable(state)


#: 16-bit code of 64 KiB at 7C00h, present, DPL 0, accessed (SDM vol. 3A, figure 3-8), and the same at 7D00h.
CODE_AT_7C00, CODE_AT_7D00 = bytes.fromhex("ffff007c009b0000"), bytes.fromhex("ffff007d009b0000")


def paragraphs(selector: int = 0x7C0, **table: int) -> CpuState:
    """16-bit protected mode whose CS has the base that real mode gives its selector; the GDT is at 1000h."""
    state = flat()
    state.cs = Segment(selector, 0x7C00, 0xFFFF, 0x9B)
    state.gdtr.base, state.gdtr.limit = table.get("base", 0x1000), table.get("limit", 0x7C7)
    return state


def holding(entry: bytes, at: int = 0x17C0) -> Callable[[int, int], bytes | None]:
    """Physical memory of 64 KiB, zeros but for `entry`."""
    memory = bytes(at) + entry + bytes(0x10000 - at - len(entry))
    return lambda address, length: memory[address : address + length] if address + length <= len(memory) else None


def test_a_descriptor_may_have_given_cs_the_base_of_real_mode_and_memory_tells() -> None:
    assert VTX2006.broken(paragraphs(), holding(CODE_AT_7C00)) == ()
    assert VTX2006.broken(paragraphs()), "what memory has is not known"
    unaccessed = holding(CODE_AT_7C00[:5] + b"\x9a" + CODE_AT_7C00[6:])
    assert VTX2006.broken(paragraphs(), unaccessed) == (), "a far transfer of the emulator leaves that bit in memory"
    assert VTX2006.enterable(paragraphs(), unaccessed)
    for state, memory in (
        (paragraphs(), holding(bytes(8))),
        (paragraphs(), holding(CODE_AT_7D00)),
        (paragraphs(), holding(CODE_AT_7C00[:5] + b"\x99" + CODE_AT_7C00[6:])),  # not readable
        (paragraphs(limit=0x7C6), holding(CODE_AT_7C00)),
        (paragraphs(base=0xF900), holding(CODE_AT_7C00)),  # beyond memory
        (paragraphs(0x7C4), holding(CODE_AT_7C00)),  # of an LDT that there is not
    ):
        state.cs.base = state.cs.selector << 4
        (broken,) = VTX2006.broken(state, memory)
        assert broken.register == "cs" and "as real mode has loaded it" in broken.text


def test_a_null_selector_names_no_descriptor_whatever_stands_there() -> None:
    """SDM vol. 3A, 3.4.2: the first entry of the GDT is not used by the CPU."""
    state = paragraphs(0)
    state.cs.base = 0
    (broken,) = VTX2006.broken(state, holding(bytes.fromhex("ffff0000009b0000"), 0x1000))
    assert broken.register == "cs"


def test_the_descriptor_is_looked_for_through_page_tables_and_in_the_ldt() -> None:
    state = paragraphs(base=0x40_1000)
    state.cr0, state.cr3, state.cr4 = state.cr0 | 1 << 31, 0x2000, 0
    tables = bytearray(0x10000)
    tables[0x2004:0x2008] = (0x3003).to_bytes(4, "little")  # PDE 1
    tables[0x3004:0x3008] = (0x1003).to_bytes(4, "little")  # PTE 1: linear 401000h is physical 1000h
    tables[0x17C0:0x17C8] = CODE_AT_7C00
    read = lambda address, length: bytes(tables[address : address + length])  # noqa: E731
    assert VTX2006.broken(state, read) == ()
    tables[0x3004] = 0
    assert VTX2006.broken(state, read)
    state = paragraphs(0x7C4)
    state.cs.base = 0x7C40
    state.ldtr = Segment(0x18, 0x1000, 0x7C7, 0x82)
    entry = bytes.fromhex("ffff407c009b0000")
    assert VTX2006.broken(state, holding(entry)) == ()
    state.ldtr.access = 0x10082
    (broken,) = VTX2006.broken(state, holding(entry))
    assert broken.register == "cs", "what an unusable LDTR has left is no table"


# -- the page-directory-pointer table of PAE paging


def pae(cr3: int = 0x5020) -> CpuState:
    state = flat()
    state.cr0 |= 1 << 31
    state.cr4, state.cr3 = 0x20, cr3
    return state


def table(*entries: int) -> Callable[[int, int], bytes | None]:
    """Physical memory that is nothing but the four entries at 5020h."""
    data = b"".join(entry.to_bytes(8, "little") for entry in entries)
    return lambda address, length: data if (address, length) == (0x5020, 32) else None


@pytest.mark.parametrize("rules", [VTX2006, VTX], ids=lambda rules: rules.name)
def test_reserved_bits_of_present_pointers_are_told(rules: Rules) -> None:
    plain = table(0x6001, 0x7019, 0, 1)  # PWT and PCD may be set
    assert rules.broken(pae(), plain) == ()
    assert rules.broken(pae(), table(0x6001, 0x1E6, 0, 0)) == (), "one that is not present may have anything"
    (broken,) = rules.broken(pae(), table(0x6001, 0x7003, 0, 0))
    assert broken.register == "cr3" and broken.source == "SDM 3C 26.3.1.6"
    assert broken.text == "PDPTE1 at 0x5028 is 0x7003, with reserved bits 0x2"
    (broken,) = rules.broken(pae(), table(0, 0, 0, 1 << 63 | 1))
    assert "PDPTE3 at 0x5038" in broken.text and "0x8000000000000000" in broken.text


def test_pointers_are_looked_at_where_there_are_some_and_memory_is_known() -> None:
    bad = table(0x6003, 0, 0, 0)
    assert VTX.broken(pae(), bad) and not VTX.broken(pae())
    assert not VTX.broken(pae(0x9000), bad), "that memory cannot be read"
    assert not SVM.broken(pae(), bad), "VMRUN does not look at them (APM vol. 2, 15.5.1)"
    state = pae()
    state.cr4 = 0
    assert not VTX.broken(state, bad), "32-bit paging has none"
    state = long()
    state.cr3 = 0x5020
    assert not VTX.broken(state, bad), "nor has IA-32e mode"
