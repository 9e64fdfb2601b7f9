"""Segment registers beside their tables."""

from __future__ import annotations

import pytest

from emu.views import SegmentView
from emu.x86.descriptors import Descriptor, Gate, build_descriptor, build_gate
from emu.x86.segviews import segment_views
from emu.x86.state import CpuState, Segment, Table

NO_MEMORY = b""


def views(state: CpuState, gdt: bytes = NO_MEMORY, unknown: frozenset[str] = frozenset()) -> dict[str, SegmentView]:
    def read(address: int, length: int) -> bytes | None:
        at = address - state.gdtr.base
        return gdt[at : at + length] if at >= 0 and at + length <= len(gdt) else None

    return {view.name: view for view in segment_views(state, read, unknown)}


def gdt_of(*descriptors: Descriptor) -> bytes:
    return bytes(8) + b"".join(build_descriptor(d) for d in descriptors)


def protected(gdt: bytes, **segments: Segment) -> CpuState:
    state = CpuState(cr0=0x60000011, gdtr=Table(0x800, len(gdt) - 1))
    for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"):
        setattr(state, name, segments.get(name, Segment(0, 0, 0, 0x10000)))
    return state


def test_the_order_is_that_of_the_encoding_then_ldtr_and_tr() -> None:
    assert list(views(CpuState())) == ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"]


def test_at_reset_only_cs_has_a_base_that_is_not_its_selector() -> None:
    found = views(CpuState())
    assert {name: view.differs for name, view in found.items() if view.differs} == {"cs": ("base",)}
    assert found["cs"].note == "base is not selector*16"
    assert (found["cs"].base, found["cs"].text) == (0xFFFF0000, "code16 r-x DPL 0 accessed")
    assert found["ds"].table_base is None
    assert found["tr"].note == "not used in real mode"


def test_big_real_mode_shows_its_limit_as_a_difference() -> None:
    found = views(CpuState(ds=Segment(0x10, 0x100, 0xFFFFFFFF, 0xC093), es=Segment(0x10, 0, 0xFFFFFFFF, 0xC093)))
    assert (found["ds"].differs, found["ds"].note) == (("limit",), "limit is not 64 KiB: big real mode")
    assert found["es"].differs == ("base", "limit")


def test_v86_is_compared_with_the_selector_and_its_tr_with_the_gdt() -> None:
    gdt = gdt_of(Descriptor(0x4000, 0x67, 0x89))
    state = protected(gdt, ds=Segment(0x100, 0x1000, 0xFFF, 0xF3), tr=Segment(8, 0x4000, 0x67, 0x8B))
    state.rflags |= 1 << 17
    found = views(state, gdt)
    assert (found["ds"].differs, found["ds"].note) == (("limit",), "limit is not 64 KiB")
    assert (found["tr"].table_base, found["tr"].differs) == (0x4000, ())


def test_a_cache_that_agrees_with_its_table_has_no_difference() -> None:
    gdt = gdt_of(Descriptor(0x5000, 0xFFFFFFFF, 0xC092))
    view = views(protected(gdt, ds=Segment(8, 0x5000, 0xFFFFFFFF, 0xC093)), gdt)["ds"]
    assert (view.table_base, view.table_limit, view.table_access) == (0x5000, 0xFFFFFFFF, 0xC092)
    assert (view.differs, view.note, view.text) == ((), "", "data32 rw- DPL 0 accessed")


@pytest.mark.parametrize(
    ("now", "differs"),
    [
        (Descriptor(0x6000, 0xFFFFFFFF, 0xC092), ("base",)),
        (Descriptor(0x5000, 0xFFFF, 0x4092), ("limit", "access")),
        (Descriptor(0x5000, 0xFFFFFFFF, 0xC0F2), ("access",)),
        (Descriptor(0x5000, 0xFFFFFFFF, 0xC012), ("access",)),
        (Descriptor(1, 0, 0x9A), ("base", "limit", "access")),
    ],
)
def test_a_table_rewritten_after_the_load_shows_what_differs(now: Descriptor, differs: tuple[str, ...]) -> None:
    gdt = gdt_of(now)
    assert views(protected(gdt, ds=Segment(8, 0x5000, 0xFFFFFFFF, 0xC093)), gdt)["ds"].differs == differs


def test_a_null_selector_is_said_to_be_null_and_an_old_cache_too() -> None:
    gdt = gdt_of()
    found = views(protected(gdt, ds=Segment(0, 0, 0xFFFF, 0x93)), gdt)
    assert found["ds"].note == "null selector; the cache is from an earlier load"
    assert (found["es"].note, found["es"].text, found["es"].differs) == ("null selector", "unusable", ())


def test_a_selector_outside_its_table_says_so() -> None:
    gdt = gdt_of(Descriptor(0, 0xFFFF, 0x9A))
    view = views(protected(gdt, cs=Segment(0xF000, 0xF0000, 0xFFFF, 0x9B)), gdt)["cs"]
    assert (view.table_base, view.differs) == (None, ())
    assert view.note == "selector 0xf000 is beyond the GDT's limit 0xf"


def test_an_unreadable_table_says_so() -> None:
    state = protected(gdt_of(Descriptor(0, 0xFFFF, 0x9A)), cs=Segment(8, 0, 0xFFFF, 0x9B))
    assert views(state)["cs"].note == "the GDT cannot be read at 0x808"


def test_a_gate_or_system_segment_in_the_place_of_a_segment_says_so() -> None:
    gdt = bytes(8) + build_gate(Gate(8, 0x10, 0x8C)) + build_descriptor(Descriptor(0x10, 0x67, 0x89)) + bytes(8)
    segments = {"ds": Segment(8, 0, 0xFFFF, 0x93), "es": Segment(0x10, 0, 0xFFFF, 0x93)}
    found = views(protected(gdt, **segments, fs=Segment(0x18, 0, 0, 0x93)), gdt)
    assert (found["ds"].note, found["ds"].differs) == ("the table holds a call gate 32 there now", ("access",))
    assert found["ds"].table_base is None
    assert found["es"].note == "the table holds a tss32 available there now"
    assert (found["fs"].note, found["fs"].differs) == ("the table's entry is empty now", ("access",))


def test_64_bit_mode_ignores_base_and_limit() -> None:
    gdt = gdt_of(Descriptor(0, 0xFFFFFFFF, 0xA09A), Descriptor(0x1000, 0xFFFF, 0x92))
    state = protected(
        gdt,
        cs=Segment(8, 0, 0xFFFFFFFF, 0xA09B),
        ds=Segment(16, 0, 0xFFFFFFFF, 0x93),
        fs=Segment(16, 0xFFFF800000000000, 0xFFFFFFFF, 0x93),
    )
    state.efer, state.cr0 = 0xD00, 0xE0000011
    found = views(state, gdt)
    assert found["cs"].text == "code64 r-x DPL 0 accessed"
    assert (found["ds"].differs, found["ds"].note) == ((), "base and limit are ignored in 64-bit mode")
    assert (found["fs"].differs, found["fs"].note) == ((), "64-bit mode: base is the FS base MSR's, limit is ignored")


def test_ia32e_mode_reads_a_16_byte_tss_descriptor() -> None:
    base = 0xFFFF800000004000
    gdt = bytes(8) + build_descriptor(Descriptor(base, 0x67, 0x8B), wide=True)
    state = protected(gdt, cs=Segment(0, 0, 0, 0xA09B), tr=Segment(8, base, 0x67, 0x8B))
    state.efer, state.cr0 = 0xD00, 0xE0000011
    view = views(state, gdt)["tr"]
    assert (view.table_base, view.differs, view.text) == (base, (), "tss64 busy DPL 0")


def test_unknown_fields_are_named_and_never_differ() -> None:
    gdt = gdt_of(Descriptor(0x5000, 0xFFFFFFFF, 0xC092))
    state = protected(gdt, ds=Segment(8, 0, 0, 0), es=Segment(8, 0, 0, 0))
    found = views(state, gdt, frozenset({"ds.base", "ds.limit", "ds.access", "es.access", "fs"}))
    assert (found["ds"].unknown, found["ds"].differs, found["ds"].text) == (("base", "limit", "access"), (), "unknown")
    assert (found["es"].unknown, found["es"].differs) == (("access",), ("base", "limit"))
    assert (found["fs"].unknown, found["fs"].note) == (("selector", "base", "limit", "access"), "selector is unknown")


def test_an_unknown_gdtr_cannot_be_consulted() -> None:
    gdt = gdt_of(Descriptor(0, 0xFFFF, 0x92))
    view = views(protected(gdt, ds=Segment(8, 0x5000, 0xFFFF, 0x93)), gdt, frozenset({"gdtr"}))["ds"]
    assert (view.table_base, view.differs, view.note) == (None, (), "GDTR is unknown")


def test_real_mode_fields_that_are_unknown_are_not_compared() -> None:
    found = views(CpuState(), unknown=frozenset({"cs.base"}))
    assert (found["cs"].differs, found["cs"].unknown) == ((), ("base",))
