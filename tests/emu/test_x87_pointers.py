"""What a handler of an x87 exception looks for: the last instruction, its operand and its opcode (SDM vol. 1, 8.1.8 and
8.1.9). The offsets and the bytes that NASM assembles are the oracle."""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import CODE, bare_cpu
from emu.engine import ExitReason
from emu.unicorn_helper import HELPER
from emu.x86.state import Segment

pytestmark = pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")

ZERO, DENORMAL, SNAN = 0x7000, 0x7010, 0x7020
#: What raises, what has to be in the stack before, and the offset of its operand, None for one in registers.
FORMS = [
    ("fdiv dword [0x7000]", "fld1", ZERO),
    ("fadd dword [0x7010]", "fld1", DENORMAL),
    ("fld dword [0x7020]", "", SNAN),
    ("fcom dword [0x7020]", "fld1", SNAN),
    ("fdiv dword [ebx + 4 * ecx - 0x10]", "fld1", ZERO),
    ("fadd st0, st1", "", None),
    ("fxch", "", None),
    ("fsqrt", "fld1\nfchs", None),
    ("o16 fidiv word [0x7000]", "fld1", ZERO),
]


@pytest.mark.parametrize(("form", "before", "operand"), FORMS)
@pytest.mark.parametrize("slice", [1, 1000])
def test_what_is_not_masked_is_pointed_to(form: str, before: str, operand: int | None, slice: int) -> None:
    head = f"fninit\nmov word [0x6000], 0x340\nfldcw [0x6000]\nmov ebx, 0x7000\nmov ecx, 4\n{before}\n"
    cpu = bare_cpu(f"{head}{form}\nhlt", 32)
    cpu.write(DENORMAL, bytes.fromhex("01000000"))
    cpu.write(SNAN, bytes.fromhex("0100807f"))
    assert cpu.run(slice=slice).reason is ExitReason.HALT
    code = assemble(f"bits 32\n{form}", CODE)
    escape = next(index for index, byte in enumerate(code) if byte & 0xF8 == 0xD8)
    fpu = cpu.engine.state().fpu
    assert fpu.fsw & 0x8080 == 0x8080
    assert (fpu.fip, fpu.fcs) == (CODE + len(assemble(f"bits 32\n{head}", CODE)), 8)
    assert fpu.fop == (code[escape] & 7) << 8 | code[escape + 1]
    assert (fpu.fdp, fpu.fds) == ((0, 0) if operand is None else (operand, 0x10))


def test_the_offset_is_without_the_base_of_the_segment() -> None:
    """In FS, and in a handler's FNSTENV as in the registers."""
    cpu = bare_cpu(
        "fninit\nmov word [0x6000], 0x340\nfldcw [0x6000]\nfld1\nfdiv dword [fs:0x10]\nfnstenv [0x5000]\nhlt", 32
    )
    state = cpu.engine.state()
    state.fs = Segment(0x28, 0x8000, 0xFFFF, 0x4093)
    cpu.engine.load(state)
    assert cpu.run().reason is ExitReason.HALT
    assert (cpu.read32(0x5014), cpu.read32(0x5018) & 0xFFFF) == (0x10, 0x28)
