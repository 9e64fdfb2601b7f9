"""Instructions whose operands Unicorn takes apart: at devices, across the end of memory, under watchpoints and data
breakpoints; all is the same at every slice size, down to one instruction, which is the oracle."""

from __future__ import annotations

import pytest

from bare_cpu import RAM, ROM, bare_cpu
from emu.engine import Access, ExitReason, Watch
from emu.unicorn_helper import HELPER

AT = 0x5000
DEVICE = 0x80_0000  #: no RAM or ROM is there
BYTES = {"fnsave": 108, "frstor": 108, "fnstenv": 28, "fldenv": 28, "fxsave": 512, "fxrstor": 512}
FORMS = (
    *(f"{name} [ebx]" for name in BYTES),
    "fstp tword [ebx]", "fld tword [ebx]", "fbstp [ebx]", "fbld [ebx]", "movups [ebx], xmm0", "movups xmm0, [ebx]",
    "pusha", "popa", "enter 8, 3", "maskmovdqu xmm0, xmm1", "cmpxchg8b [ebx]", "rep movsd", "rep stosb", "sgdt [ebx]",
    "bound eax, [ebx]", "les eax, [ebx]", "addps xmm0, [ebx]", "lock inc dword [ebx]", "bts [ebx], ecx",
    "push dword [ebx]", "pop dword [ebx]", "xchg [ebx], eax",
)  # fmt: skip

#: What it did, by when: (reason, instructions, EIP), and the faults.
Run = tuple[list[tuple[ExitReason, int, int]], list[tuple[int, int, int]], bytes]


def run(form: str, slice: int, watch: int, breakpoint: int) -> Run:
    """`form` between others in one block, with EBX and the like at AT; `watch` and `breakpoint` are offsets in what is
    there, or -1."""
    stack = f"mov esp, {AT + 0x40:#x}" if form in ("pusha", "enter 8, 3") else "nop"
    cpu = bare_cpu(
        f"""mov eax, 0x600
        mov cr4, eax
        fninit
        fld1
        mov ebx, {AT:#x}
        mov esi, ebx
        mov edi, ebx
        mov ecx, 4
        xor eax, eax
        {stack}
        {form}
        inc edx
        inc edx
        hlt""",
        32,
    )
    state = cpu.engine.state()
    if breakpoint >= 0:
        state.dr[0], state.dr[7] = AT + breakpoint, 0xF0403
    cpu.engine.load(state)
    cpu.write(AT, bytes(range(16)) + bytes(0x300))
    if watch >= 0:
        cpu.engine.set_watchpoints([Watch(AT + watch, 4, Access.BOTH)])
    ends = []
    while not ends or ends[-1][0] not in (ExitReason.HALT, ExitReason.SHUTDOWN, ExitReason.FAILURE):
        exit = cpu.engine.run(slice)
        if exit.reason not in (ExitReason.BUDGET, ExitReason.REQUEST):
            ends.append((exit.reason, cpu.engine.retired, cpu.engine.state().rip))
    return ends, [(f.vector, f.code or 0, f.rip) for f in cpu.faults], cpu.read(AT - 0x40, 0x200)


@pytest.mark.slow_variants
@pytest.mark.parametrize("form", FORMS)
def test_watchpoints_and_data_breakpoints_are_met_at_one_instant_in_every_slice(form: str) -> None:
    for watch, breakpoint in ((0, -1), (24, -1), (-1, 4), (-1, 24), (0, 4)):
        alone = run(form, 1, watch, breakpoint)
        assert run(form, 3, watch, breakpoint) == alone
        assert run(form, 1000, watch, breakpoint) == alone
    if form.split()[0] in BYTES:
        assert any(reason is ExitReason.WATCHPOINT for reason, *_ in run(form, 1000, 0, -1)[0])


@pytest.mark.parametrize("name", BYTES)
def test_an_operand_at_a_device_is_bytes_of_the_devices(name: str) -> None:
    cpu = bare_cpu(f"mov ebx, {DEVICE:#x}\nfninit\nnop\n{name} [ebx]\nnop\nhlt", 32)
    cpu.on_mmio_read = lambda address, size: 0  # MXCSR, of which reserved bits would be #GP
    assert cpu.run().reason is ExitReason.HALT
    touched = {byte for _, at, size, _ in cpu.mmio for byte in range(at, at + size)}
    assert DEVICE in touched
    end = DEVICE + -(-BYTES[name] // 8) * 8  # what is not aligned is had by what is around it
    assert touched <= set(range(DEVICE, end))
    assert {retired for retired, *_ in cpu.mmio} == {3}, "by one instruction, behind three"


@pytest.mark.parametrize("name", ["fnsave", "frstor", "fnstenv", "fldenv"])
@pytest.mark.parametrize("end", [RAM, ROM, ROM + 0x10000])
def test_an_operand_may_lie_across_the_end_of_memory(name: str, end: int) -> None:
    cpu = bare_cpu(f"mov ebx, {end - 6:#x}\nfninit\ncdq\n{name} [ebx]\ninc edx\nhlt", 32)
    assert cpu.run().reason is ExitReason.HALT
    assert (cpu.engine.state().regs[2], cpu.engine.retired) == (1, 6)


@pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")
@pytest.mark.parametrize(("loaded", "kept"), [(0, 0x40), (0xFFFF, 0x1F7F), (0x137F, 0x137F)])
@pytest.mark.parametrize("way", ["fldcw", "fldenv", "frstor", "fxrstor"])
def test_reserved_bits_of_a_control_word_are_not_loaded(way: str, loaded: int, kept: int) -> None:
    """SDM vol. 1, figure 8-6; Bochs 2.7, cpu/fpu/fpu.cc."""
    cpu = bare_cpu(f"fninit\nmov ebx, {AT:#x}\n{way} [ebx]\nfnstcw [0x6000]\nhlt", 32)
    cpu.write(AT, loaded.to_bytes(2, "little") + bytes(24) + (0x1F80).to_bytes(2, "little"))
    if way == "fxrstor":
        cpu.write(AT + 24, (0x1F80).to_bytes(4, "little"))
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.read32(0x6000) & 0xFFFF == kept
