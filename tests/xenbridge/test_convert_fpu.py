"""The FPU and SSE of a context with a CPU_XSAVE record are XRSTOR's (SDM vol. 1, 13.8), as Xen loads that record behind
CPU."""

from __future__ import annotations

import re

import pytest

from emu.firmware.roms import builtin_bios
from emu.machine import MachineConfig, build_machine
from emu.x86.state import CpuState, Fpu
from xen_files import with_records
from xenbridge import convert
from xenbridge.convert_checks import ConvertError
from xenbridge.convert_cpu import context_cpu, cpu_values
from xenbridge.convert_fpu import build_fxsave, check_xsave, xsave_record
from xenbridge.wire.errors import WireError
from xenbridge.wire.hvm import Record, build_record
from xenbridge.xen.files import parse_file

COMPACTED = 1 << 63
INIT = Fpu()
OF_CPU = Fpu(fcw=0x277, fsw=0x3800, ftw=0x80, mxcsr=0x1FA0, st=[7] * 8, xmm=[9] * 16)
OF_AREA = Fpu(fcw=0x27F, fsw=0x3000, ftw=0xC0, fop=0x123, fip=0x4567, fdp=0x89AB, mxcsr=0x3F80)
OF_AREA.st, OF_AREA.xmm = [0x4000_C90F_DAA2_2168_C235 + n for n in range(8)], [0x1122_3344 << 90 | n for n in range(16)]
VALUES = {
    "xfeature_mask": 7, "xcr0": 7, "xcr0_accum": 7, "fpu_sse": build_fxsave(OF_AREA), "xstate_bv": 3, "xcomp_bv": 0,
    "reserved": bytes(48), "rest": bytes(256),
}  # fmt: skip


def records(**xsave: int | bytes) -> tuple[Record, ...]:
    """CPU says one state and CPU_XSAVE, which has these fields changed, another."""
    cpu = build_record("CPU", cpu_values(CpuState(fpu=OF_CPU), 0))
    return (cpu, build_record("CPU_XSAVE", VALUES | xsave))


def x87(fpu: Fpu) -> tuple[object, ...]:
    return fpu.fcw, fpu.fsw, fpu.ftw, fpu.fop, fpu.fip, fpu.fdp, fpu.st


@pytest.mark.parametrize(
    ("xstate_bv", "xcomp_bv", "has_x87", "has_sse", "has_mxcsr"),
    [(3, 0, True, True, True), (7, 0, True, True, True), (2, 0, False, True, True), (1, 0, True, False, True),
     (0, 0, False, False, True), (4, 0, False, False, True), (3, COMPACTED | 7, True, True, True),
     (1, COMPACTED | 3, True, False, False), (0, COMPACTED | 3, False, False, False)],
)  # fmt: skip
def test_a_component_that_xstate_bv_leaves_out_is_in_its_initial_state(
    xstate_bv: int, xcomp_bv: int, has_x87: bool, has_sse: bool, has_mxcsr: bool
):
    """MXCSR is read in any case in the standard form, and in the compacted one belongs to SSE (13.8.1, 13.8.2)."""
    fpu = context_cpu(records(xstate_bv=xstate_bv, xcomp_bv=xcomp_bv)).fpu
    assert x87(fpu) == x87(OF_AREA if has_x87 else INIT)
    assert fpu.xmm == (OF_AREA if has_sse else INIT).xmm
    assert fpu.mxcsr == (OF_AREA if has_mxcsr else INIT).mxcsr


def test_a_context_without_the_record_has_that_of_cpu():
    cpu, xsave = records()
    assert context_cpu((cpu,)).fpu == OF_CPU
    assert context_cpu((cpu, Record(xsave.code, 1, xsave.data))).fpu == OF_CPU


def test_another_vcpus_record_is_not_this_ones():
    cpu, xsave = records(xcr0=1)
    found = (cpu, Record(cpu.code, 1, cpu.data), xsave, build_record("CPU_XSAVE", VALUES | {"xcr0": 3}, 1))
    assert [context_cpu(found, n).xcr0 for n in range(2)] == [1, 3]
    assert [context_cpu((*found[:2], found[3]), n).fpu for n in range(2)] == [OF_CPU, OF_AREA]


def test_it_counts_where_cpu_says_that_the_fpu_was_never_used():
    """Xen restores the area whatever that flag says (vcpu_restore_fpu_lazy and _nonlazy, xen/arch/x86/i387.c)."""
    cpu, xsave = records()
    never = build_record("CPU", cpu.values() | {"flags": 0})
    assert context_cpu((never, xsave)).fpu == OF_AREA


def loaded(**xsave: int | bytes) -> tuple[list[str], CpuState]:
    machine = build_machine(MachineConfig(machine="pc", memory=2 << 20, firmware=builtin_bios(), bios=True))
    more = build_record("CPU_XSAVE", VALUES | xsave)
    said = convert.load(machine, parse_file(with_records(lambda found: [*found, more])))
    return said, machine.cpu_state()


def test_a_machine_is_loaded_with_it():
    said, state = loaded(xstate_bv=1, xcr0=3)
    assert (x87(state.fpu), state.fpu.xmm, state.fpu.mxcsr) == (x87(OF_AREA), INIT.xmm, OF_AREA.mxcsr)
    assert not [notice for notice in said if "XSAVE" in notice]


def test_inspect_shows_it():
    more = build_record("CPU_XSAVE", VALUES | {"xstate_bv": 2})
    state = parse_file(with_records(lambda found: [*found, more])).cpu_state()
    assert (x87(state.fpu), state.fpu.xmm) == (x87(INIT), OF_AREA.xmm)


@pytest.mark.parametrize("xcr0", [1, 3, 7])
def test_what_is_saved_is_what_is_loaded_and_taken_by_xen(xcr0: int):
    record = xsave_record(CpuState(fpu=OF_AREA, xcr0=xcr0))
    check_xsave(record)
    assert context_cpu((records()[0], record)).fpu == OF_AREA
    said, _ = loaded(**record.values())
    assert not [notice for notice in said if "XSAVE" in notice or "XCR0" in notice]


@pytest.mark.parametrize(
    ("values", "said"),
    [({"xstate_bv": 7, "xcr0_accum": 3, "xcr0": 3}, "CPU_XSAVE, xstate_bv at offset 0x{218:x}: 0x7 has 0x4, which "
      "xcr0_accum (0x3) does not have"),
     ({"xcr0": 7, "xcr0_accum": 3}, "CPU_XSAVE, xcr0 at offset 0x{8:x}: 0x7 has 0x4, which xcr0_accum (0x3) does not"),
     ({"rest": bytes(255)}, "CPU_XSAVE, xcr0_accum at offset 0x{10:x}: 0x7 is an area of 832 bytes, of which 831 are "
      "there"),
     ({"xcomp_bv": 7}, "CPU_XSAVE, xcomp_bv at offset 0x{220:x}: 0x7 is no compacted form, whose bit 63 is set"),
     ({"xcomp_bv": COMPACTED | 1}, "CPU_XSAVE, xstate_bv at offset 0x{218:x}: 0x3 has 0x2, which xcomp_bv "),
     ({"reserved": bytes(47) + b"\1"}, "CPU_XSAVE, reserved at offset 0x{257:x}: it is 0x1, where XRSTOR wants 0")],
)  # fmt: skip
def test_an_area_that_xrstor_or_xen_would_not_take_is_refused(values: dict[str, int | bytes], said: str):
    with pytest.raises(WireError) as refused:
        loaded(**values)
    data = with_records(lambda found: [*found, build_record("CPU_XSAVE", VALUES | values)])
    at = next(record.offset for record in parse_file(data).records if record.name == "CPU_XSAVE")
    expected = re.sub(r"\{(\w+):x\}", lambda found: f"{at + int(found[1], 16):x}", said)
    assert str(refused.value).startswith(expected)


@pytest.mark.parametrize(
    ("xcr0", "why"),
    [(0, "has no x87"), (6, "has no x87"), (5, "has AVX without SSE"), (0xE3, "has AVX-512 without AVX"),
     (0x27, "has not all of AVX-512"), (9, "has one half of MPX")],
)  # fmt: skip
def test_an_xcr0_that_no_cpu_can_have_is_refused(xcr0: int, why: str):
    """SDM vol. 1, 13.3."""
    accum = {"xcr0_accum": 0x2FF, "xfeature_mask": 0x2FF, "rest": bytes(4096)}
    with pytest.raises(ConvertError, match=rf"^XCR0 = {xcr0:#x} in the file {why}"):
        loaded(xcr0=xcr0, **accum)


def test_components_beyond_the_hosts_own_are_named():
    """Xen checks no more than its own mask, not that of the host that saved: xcr0_accum is to be within both."""
    said, _ = loaded(xfeature_mask=3, xcr0=3, xstate_bv=3)
    assert [notice for notice in said if "xfeature_mask" in notice] == [
        "XSAVE's components 0x4 are in xcr0_accum and not in xfeature_mask (0x3), what the host that saved it had"
    ]


def test_mxcsr_of_an_area_is_checked_as_any():
    bad = bytearray(VALUES["fpu_sse"])
    bad[26] = 1
    with pytest.raises(ConvertError, match=r"^MXCSR = 0x13f80 in the file has bits 0x10000, which are reserved"):
        loaded(xstate_bv=1, fpu_sse=bytes(bad))
