"""The CPU record and the framing of a context, by the offsets of Xen 4.17's save.h."""

import struct

import pytest

from emu.x86.state import CpuState, Fpu, Segment
from xenbridge.convert_cpu import context_cpu
from xenbridge.wire import hvm
from xenbridge.wire.hvm import build_record
from xenbridge.xen.context import (
    CPU,
    CPU_LENGTH,
    CPU_XSAVE,
    ContextError,
    Record,
    agreed,
    cpu_state,
    join,
    restored,
    split,
    with_cpu_state,
    with_xcr0,
    xcr0,
)


def test_registers_stand_at_the_headers_offsets() -> None:
    state = CpuState(rip=0x7C00, rflags=0x202, cr0=0x11, cr3=0x5000, efer=0x500)
    state.regs[:] = range(100, 116)
    state.es, state.tr = Segment(0x10, 0x1234, 0xFFFFFFFF, 0xC093), Segment(0x28, 0x9000, 0x67, 0x8B)
    state.gdtr.base, state.idtr.limit = 0x7777, 0x3FF
    record = with_cpu_state(bytes(CPU_LENGTH), state)
    assert struct.unpack_from("<8Q", record, 512) == (100, 103, 101, 102, 105, 106, 107, 104)  # ax bx cx dx bp si di sp
    assert struct.unpack_from("<2Q", record, 640) == (0x7C00, 0x202)
    assert struct.unpack_from("<Q", record, 656 + 16)[0] == 0x5000
    assert struct.unpack_from("<I", record, 736 + 8)[0] == 0x10
    assert struct.unpack_from("<I", record, 768 + 8)[0] == 0xFFFFFFFF
    assert struct.unpack_from("<Q", record, 808 + 16)[0] == 0x1234
    assert struct.unpack_from("<I", record, 888 + 8)[0] == 0xC93  # 12 bits: G, D/B, L, AVL above the descriptor's byte
    assert struct.unpack_from("<I", record, 768 + 32)[0] == 0x3FF  # idtr
    assert struct.unpack_from("<Q", record, 808 + 72)[0] == 0x7777  # gdtr
    assert struct.unpack_from("<Q", record, 992)[0] == 0x500


def test_a_state_comes_back_from_its_record() -> None:
    state = CpuState(rip=0xFFF0)
    state.fpu.st[2], state.fpu.xmm[15], state.fpu.mxcsr = 0x3FFF_8000_0000_0000_0000, 5, 0x1F80
    state.ds = Segment(0, 0, 0, 0x10000)
    state.msrs = cpu_state(bytes(CPU_LENGTH)).msrs
    assert cpu_state(with_cpu_state(bytes(CPU_LENGTH), state)) == state


def test_what_is_no_register_stays() -> None:
    record = bytearray(CPU_LENGTH)
    struct.pack_into("<QI", record, 1008, 0x123456789A, 0x80000020)
    assert with_cpu_state(bytes(record), CpuState())[1008:1020] == bytes(record[1008:1020])


def test_records_are_split_and_joined() -> None:
    records = [Record(1, 0, b"head"), Record(2, 0, b"cpu"), Record(99, 7, b"")]
    assert split(join(records)) == records
    raw = join(records)
    with pytest.raises(ContextError, match=r"^record 2 at 0xc has 3 bytes, 2 are there$"):
        split(raw[: 12 + 8 + 2])
    with pytest.raises(ContextError, match=r"without its last record$"):
        split(raw[: 12 + 8 + 3])


def test_the_fpu_of_both_records_is_that_of_the_cpus() -> None:
    """By the layout of the streams' room."""
    cpu = bytes(range(256)) * 4 + bytes(8)
    fields = {"xfeature_mask": 7, "xcr0": 7, "xcr0_accum": 7, "fpu_sse": b"\xff" * 512, "xstate_bv": 4, "xcomp_bv": 0,
              "reserved": bytes(48), "rest": b"ymm" * 20}  # fmt: skip
    xsave = build_record("CPU_XSAVE", fields)
    _, changed = agreed([Record(CPU, 0, cpu), Record(CPU_XSAVE, 0, xsave.data)])
    expected = build_record("CPU_XSAVE", fields | {"fpu_sse": cpu[:512], "xstate_bv": 7})
    assert changed.data == expected.data


@pytest.mark.parametrize(("value", "kept"), [(1, 1), (3, 3), (7, 7), (0x207, 7)])
def test_another_xcr0_is_one_that_xen_takes(value: int, kept: int) -> None:
    """As far as the host has it; XCR0_ACCUM has all that XCR0 and the area have, which is as long as it says."""
    fields = {"xfeature_mask": 7, "xcr0": 1, "xcr0_accum": 3, "fpu_sse": bytes(range(256)) * 2, "xstate_bv": 3,
              "xcomp_bv": 0, "reserved": bytes(48), "rest": b""}  # fmt: skip
    had = build_record("CPU_XSAVE", fields).data
    rest = bytes(256) if kept & 4 else b""
    expected = build_record("CPU_XSAVE", fields | {"xcr0": kept, "xcr0_accum": kept | 3, "rest": rest}).data
    assert with_xcr0(had, value) == expected
    assert xcr0(expected) == kept


def test_a_record_of_a_vcpu_that_had_none_is_made() -> None:
    made = hvm.Record(CPU_XSAVE, 0, with_xcr0(b"", 3)).values()
    assert [made[name] for name in ("xfeature_mask", "xcr0", "xcr0_accum", "xstate_bv", "rest")] == [3, 3, 3, 0, b""]


@pytest.mark.parametrize("xstate_bv", range(8))
def test_a_component_that_xstate_bv_leaves_out_is_in_its_initial_state(xstate_bv: int) -> None:
    """By the streams' room, which goes by the SDM; the bytes that Xen has in both records are stale."""
    state = CpuState(fpu=Fpu(0x27F, 0x3800, 0x80, 0x12, 0x34, 0, 0x56, 0, 0x3F80, [1 << 70] * 8, [1 << 100] * 16))
    record = with_cpu_state(bytes(CPU_LENGTH), state)
    fields = {"xfeature_mask": 7, "xcr0": 7, "xcr0_accum": 7, "fpu_sse": record[:512], "xstate_bv": xstate_bv,
              "xcomp_bv": 0, "reserved": bytes(48), "rest": bytes(256)}  # fmt: skip
    xsave = build_record("CPU_XSAVE", fields, 1)
    found = [Record(CPU, 0, record), Record(CPU, 1, record), Record(CPU_XSAVE, 1, xsave.data)]
    first, second, same = restored(found)
    assert (first, same) == (found[0], found[2])
    assert cpu_state(second.data).fpu == context_cpu((hvm.Record(CPU, 1, record), xsave), 1).fpu
    assert second.data[512:] == record[512:]
