"""What only reads is no write: to the code of a page fault (SDM vol. 3A, 4.7), and to a read-only segment (3A, 5.5)."""

from __future__ import annotations

import struct

import pytest

from bare_cpu import CODE, bare_cpu
from emu.x86.state import Segment
from run_loops import needs_helper

TABLES, ABSENT = 0x10000, 0x5000
#: Group 1 with its immediates, of which CMP alone reads only; INC and SHL write.
FORMS = (
    *((f"cmp {size} [{ABSENT}], {value}", 0) for size, value in (("byte", 5), ("dword", 5), ("dword", 0x12345678))),
    *((f"{name} {size} [{ABSENT}], 5", 2) for name in ("add", "or", "xor", "sub") for size in ("byte", "dword")),
    (f"test byte [{ABSENT}], 5", 0),
    (f"inc dword [{ABSENT}]", 2),
    (f"shl dword [{ABSENT}], 4", 2),
    (f"bt dword [{ABSENT}], 3", 0),
    (f"bts dword [{ABSENT}], 3", 2),
)


@needs_helper
@pytest.mark.parametrize(("form", "code"), FORMS)
def test_only_what_writes_faults_as_a_write(form: str, code: int) -> None:
    cpu = bare_cpu(form, 32)
    cpu.memory.write(TABLES, struct.pack("<I", TABLES + 0x1000 | 3))
    entries = (0 if page == ABSENT >> 12 else page << 12 | 3 for page in range(1024))
    cpu.memory.write(TABLES + 0x1000, struct.pack("<1024I", *entries))
    state = cpu.engine.state()
    state.cr3, state.cr0 = TABLES, state.cr0 | 1 << 31
    cpu.engine.load(state)
    cpu.engine.run(1)
    (fault, *_) = cpu.faults
    assert (fault.vector, fault.code, fault.rip) == (14, code, CODE)


@pytest.mark.usefixtures("run_loop")
@pytest.mark.parametrize(("form", "code"), FORMS)
def test_a_read_only_segment_refuses_only_what_writes(form: str, code: int) -> None:
    cpu = bare_cpu(form, 32)
    state = cpu.engine.state()
    state.ds = Segment(16, 0, 0xFFFF, 0x4091)
    cpu.engine.load(state)
    cpu.engine.run(1)
    assert [(fault.vector, fault.code) for fault in cpu.faults[:1]] == ([(13, 0)] if code else [])
