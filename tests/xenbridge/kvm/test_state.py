"""CpuState and KVM's structures: what goes in comes back, without a KVM."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from emu.x86.register_writes import ACCESS_UNUSABLE
from emu.x86.state import CpuState, Fpu, Segment
from xenbridge.kvm import abi, state
from xenbridge.kvm.vm import MIB, Slot, bit_runs, slots_of

_u16, _u32, _u64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
#: P set unless unusable, as KVM has it.
_access = st.one_of(
    st.integers(0, 0x7F).map(lambda a: a | ACCESS_UNUSABLE), st.integers(0, 0xF07F).map(lambda a: a & 0xF07F | 0x80)
)
segments = st.builds(Segment, _u16, _u64, _u32, _access)


@given(segments)
def test_a_descriptor_cache_comes_back_whole(segment: Segment) -> None:
    assert state.unpack_segment(state.pack_segment(segment)) == segment


@given(segments)
def test_a_descriptor_cache_is_where_the_headers_structure_has_it(segment: Segment) -> None:
    seen = abi.Segment.from_buffer_copy(state.pack_segment(segment))
    assert (seen.base, seen.limit, seen.selector, seen.type, seen.dpl) == (
        segment.base, segment.limit, segment.selector, segment.type, segment.dpl,
    )  # fmt: skip
    assert (seen.present, seen.db, seen.l) == (segment.present, segment.big, segment.long)
    assert seen.unusable == bool(segment.access & ACCESS_UNUSABLE)


@given(st.lists(_u64, min_size=16, max_size=16), _u64, _u64)
def test_general_registers_come_back_and_stand_under_their_names(regs: list[int], rip: int, rflags: int) -> None:
    before = CpuState(regs=regs, rip=rip, rflags=rflags)
    packed = state.pack_regs(before)
    seen = abi.Regs.from_buffer_copy(packed)
    names = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
    assert [getattr(seen, name) for name in names] == regs and (seen.rip, seen.rflags) == (rip, rflags)
    assert state.unpack_regs(packed) == (regs, rip, rflags)


def test_control_registers_and_tables_stand_under_their_names() -> None:
    before = CpuState(cr0=0x80000011, cr2=0x1234, cr3=0x5000, cr4=0x20, cr8=3, efer=0x500)
    before.gdtr.base, before.idtr.limit = 0xABCDE000, 0x7FF
    packed = state.pack_sregs(before)
    seen = abi.Sregs.from_buffer_copy(packed)
    assert (seen.cr0, seen.cr2, seen.cr3, seen.cr4, seen.cr8, seen.efer) == (0x80000011, 0x1234, 0x5000, 0x20, 3, 0x500)
    assert (seen.gdt.base, seen.idt.limit) == (0xABCDE000, 0x7FF) and not any(seen.interrupt_bitmap)
    es, cs, ss, ds, fs, gs, ldtr, tr, gdtr, idtr, *control = state.unpack_sregs(packed)
    names = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
    assert [es, cs, ss, ds, fs, gs, ldtr, tr] == [before.segment(name) for name in names]
    assert (gdtr, idtr) == (before.gdtr, before.idtr)
    assert control == [before.cr0, before.cr2, before.cr3, before.cr4, before.cr8, before.efer]


@given(
    st.lists(st.integers(0, (1 << 80) - 1), min_size=8, max_size=8),
    st.lists(st.integers(0, (1 << 128) - 1), min_size=16, max_size=16),
    st.integers(0, 0xFF),
)
def test_the_fpu_comes_back_whole(registers: list[int], xmm: list[int], ftw: int) -> None:
    before = Fpu(0x27F, 0x3800, ftw, 0x123, 0x1000, 8, 0x2000, 16, 0x1FA0, registers, xmm)
    area = bytearray(abi.XSAVE_SIZE)
    state.pack_fpu(before, area)
    assert state.unpack_fpu(bytes(area), before) == before


def test_selectors_of_the_fpu_are_unknown_behind_an_x87_instruction() -> None:
    before = Fpu(fip=0x1000, fcs=8, fds=16)
    area = bytearray(abi.XSAVE_SIZE)
    state.pack_fpu(before, area)
    area[8:16] = (0x1004).to_bytes(8, "little")
    after = state.unpack_fpu(bytes(area), before)
    assert (after.fip, after.fcs, after.fds) == (0x1004, 0, 0)


def test_pointers_that_amds_cpus_do_not_save_stay() -> None:
    before = Fpu(0x37F, 0x3800, 1, 0x123, 0x1000, 8, 0x2000, 16)
    area = bytearray(abi.XSAVE_SIZE)
    state.pack_fpu(before, area)
    area[6:8], area[8:24] = bytes(2), bytes(16)
    assert state.unpack_fpu(bytes(area), before) == before
    area[2:5] = bytes(3)  # FNINIT clears them
    after = state.unpack_fpu(bytes(area), before)
    assert (after.fop, after.fip, after.fcs, after.fdp, after.fds) == (0, 0, 0, 0, 0)


def test_a_component_that_xsave_leaves_out_is_in_its_initial_state() -> None:
    area = bytearray(abi.XSAVE_SIZE)
    state.pack_fpu(Fpu(0x27F, 0, 0xFF, st=[1] * 8, xmm=[1] * 16, mxcsr=0x1FA0), area)
    area[state.XSTATE_BV] = 0
    assert state.unpack_fpu(bytes(area), Fpu()) == Fpu(mxcsr=0x1FA0)


def test_a_shadow_and_blocked_nmis_come_back() -> None:
    for shadow in (False, True):
        for blocked in (False, True):
            packed = state.pack_events(CpuState(shadow=shadow, nmi_blocked=blocked))
            assert state.unpack_events(packed) == (shadow, False, blocked)


def test_a_shadow_is_given_to_kvm_as_one_that_vt_x_enters() -> None:
    """SDM vol. 3C, 26.3.1.5: blocking by STI with IF clear fails the entry."""
    for rflags, kind in ((0x202, abi.SHADOW_STI), (2, abi.SHADOW_MOV_SS)):
        events = abi.VcpuEvents.from_buffer_copy(state.pack_events(CpuState(shadow=True, rflags=rflags)))
        assert events.interrupt_shadow == kind


def test_something_half_delivered_is_noticed() -> None:
    events = abi.VcpuEvents()
    assert not state.injected(bytes(events))
    for name in ("exception_injected", "exception_pending", "interrupt_injected", "nmi_injected"):
        events = abi.VcpuEvents(**{name: 1})
        assert state.injected(bytes(events)), name


@given(st.binary(max_size=64))
def test_runs_of_bits_are_those_of_the_bitmap(data: bytes) -> None:
    whole = data.ljust(-(-len(data) // 8) * 8, b"\0")
    bits = {8 * i + bit for i, byte in enumerate(whole) for bit in range(8) if byte >> bit & 1}
    runs = list(bit_runs(whole))
    assert {at for first, count in runs for at in range(first, first + count)} == bits
    assert all(first + count < later for (first, count), (later, _) in pairwise(runs))


class _Region:
    def __init__(self, base: int, size: int, kind: str, host: int) -> None:
        self.base, self.size, self.kind, self.host_address = base, size, kind, host
        self.name, self.offset, self.written = kind, 0, None


@given(st.integers(0, 5 * MIB // 4096), st.integers(1, 4 * MIB // 4096), st.integers(0, 9 * MIB // 4096))
def test_with_a20_masked_an_address_reaches_what_it_reaches_without_bit_20(base: int, size: int, page: int) -> None:
    regions = [_Region(base * 4096, size * 4096, "ram", 1 << 40)]

    def host(slots: tuple[Slot, ...], address: int) -> int | None:
        found = [s.host + address - s.guest for s in slots if s.guest <= address < s.guest + s.size]
        assert len(found) <= 1
        return found[0] if found else None

    plain, masked = (slots_of(regions, a20=a20) for a20 in (True, False))
    address = page * 4096
    assert host(masked, address) == host(plain, address & ~MIB)
