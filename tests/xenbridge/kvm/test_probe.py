"""The probe, and the rules that follow from what it finds."""

from __future__ import annotations

import itertools

import pytest

from bare_cpu import flat_state, long_state, real_state
from emu.memory import PhysicalMemory
from emu.record import replace
from emu.vcpu import ExitCause
from emu.x86.state import CpuState, Segment
from native_cpu import Native
from xenbridge.kvm import probe_programs as programs
from xenbridge.kvm.backend import EVERYWHERE, PAGED, Backend, Kind, kind_of
from xenbridge.kvm.probe import PAGED as WITH_TABLES
from xenbridge.kvm.probe import probe

ALL = Backend(("kvm_intel",), frozenset(Kind), EVERYWHERE, EVERYWHERE, True, True, True, True, 1000, ())


def test_each_program_of_the_probe_begins_in_the_kind_that_it_is_for() -> None:
    for kind in Kind:
        assert kind_of(programs.state_of(kind, programs.memory())) is kind


def test_a_kvm_that_can_do_everything_breaks_no_rule() -> None:
    for kind in Kind:
        assert not list(ALL.check(programs.state_of(kind, programs.memory()))), kind


def test_a_kind_that_does_not_run_is_refused_with_its_name() -> None:
    backend = replace(ALL, runs=frozenset(Kind) - {Kind.BIG_REAL})
    state = real_state()
    assert not list(backend.check(state))
    state.ds = Segment(0, 0, 0xFFFFFFFF, 0x8093)
    (broken,) = backend.check(state)
    assert "big real mode does not run on this host's KVM (kvm_intel)" in broken.text


def test_where_paging_does_not_run_the_modes_that_lead_to_it_are_refused_too() -> None:
    backend = replace(ALL, runs=frozenset(Kind) - PAGED)
    (broken,) = backend.check(flat_state())
    assert "can turn on paging" in broken.text
    assert not list(backend.check(real_state()))
    assert not list(backend.check(long_state())), "that of IA-32e mode runs"


def test_what_is_the_emulators_is_said() -> None:
    for state, word in (
        (CpuState(smm=True), "system management"), (CpuState(nmi_pending=True), "NMI"), (CpuState(cr4=1 << 18), "XCR0"),
    ):  # fmt: skip
        (broken,) = ALL.check(state)
        assert word in broken.text


def test_the_findings_name_what_is_missing() -> None:
    poor = replace(ALL, runs=frozenset((Kind.REAL,)), watches=False, refuses=(("x87", frozenset((16,))),))
    texts = {name: (ok, text) for name, ok, text in poor.findings()}
    assert texts["kvm modes"][0] is None and "PAE paging" in texts["kvm modes"][1]
    assert texts["kvm modes"][1].split("not: ")[1].split("; ") == [k.value for k in Kind if k is not Kind.REAL]
    assert "x87 (in 16-bit code)" in texts["kvm instructions"][1]
    assert "not: data watchpoints" in texts["kvm has"][1]
    assert all(ok for ok, _ in {name: (ok, text) for name, ok, text in ALL.findings()}.values())


def test_two_looks_at_one_host_find_the_same(backend: Backend) -> None:
    again = probe()
    assert replace(again, exit_ns=backend.exit_ns) == backend
    assert backend.exit_ns > 0


def test_the_probes_tables_map_the_first_pages_to_themselves() -> None:
    for kind in (Kind.PAGED32, Kind.PAE, Kind.LONG):
        memory: PhysicalMemory = programs.memory()
        programs.state_of(kind, memory)
        at, size = programs.entry_of(kind)
        pages = [int.from_bytes(memory.read(at + n * size, size), "little") & ~0xFFF for n in range(3)]
        assert pages == [programs.MOVED + n * 0x1000 for n in range(3)]
        assert all(high - low == 0x1000 for low, high in itertools.pairwise(pages))


@pytest.mark.parametrize("kind", WITH_TABLES, ids=lambda kind: kind.value)
def test_page_tables_that_others_have_written_are_gone_by_at_the_next_entry(native: Native, kind: Kind) -> None:
    """KVM may keep what it has derived from the tables that were there before (`Backend.sees_tables`)."""
    if kind not in native.backend.runs:
        pytest.skip(f"{kind.value} does not run on this host's KVM")
    memory, other = native.memory, programs.MOVED + 0x1000
    memory.write(0, programs.memory().read(0, programs.CODE))
    state = programs.state_of(kind, memory)
    memory.write(programs.MOVED, b"\x11")
    memory.write(other, b"\x22")
    memory.write(programs.CODE, programs.LOOKS[programs.width_of(kind)])
    native.cpu.load(state)
    entry, size = programs.entry_of(kind)
    for page, value in ((programs.MOVED, 0x11), (other, 0x22), (programs.MOVED, 0x11)):
        memory.write(entry, (page | 7).to_bytes(size, "little"))
        exit = native.cpu.enter(1000, None, skip_breakpoint=False)
        assert exit.cause is ExitCause.PIO
        assert native.ports[-1] == (programs.PORT, 1, value)
