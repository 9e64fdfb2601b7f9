"""Watchpoints on what far transfers and their neighbours read and write: a run that goes on behind each hit ends as one
without."""

from __future__ import annotations

import pytest

from bare_cpu import CODE, STACK, BareCpu, bare_cpu
from emu.engine import Access, ExitReason, Watch

#: Each line is a body that comes back with the stack as it was; W is the width of a word of the stack, bytes.
BODIES = {
    "iret": "pushf\n push cs\n call f\n jmp e\nf: push ax\n push ds\n nop\n pop ds\n pop ax\n iret\ne:",
    "retf": "push cs\n call f\n jmp e\nf: push ax\n push bx\n nop\n xchg bx, bx\n pop bx\n pop ax\n retf\ne:",
    "retf n": "push ax\n push cs\n call f\n jmp e\nf: push ax\n pop ax\n retf W\ne:",
    "retf of dwords": "push dword CSEL\n push dword e\n xchg bx, bx\n o32 retf\ne:",
    "far call": "push ax\n push bx\n call CS:f\n pop bx\n pop ax\n jmp e\nf: push cx\n pop cx\n retf\ne:",
    "popf": "push ax\n pushf\n pop dx\n push dx\n nop\n popf\n pop ax\ne:",
    "segment": "push es\n push ax\n pop ax\n pop es\n push ds\n pop es\n mov ax, ss\n push ax\n pop ss\n nop\ne:",
    "enter": "push ax\n push bx\n enter W, 1\n push cx\n pop cx\n leave\n pop bx\n pop ax\ne:",
    "pusha": "push ax\n pusha\n push bx\n pop bx\n popa\n pop ax\ne:",
    "ret": "push ax\n call f\n pop ax\n jmp e\nf: push bx\n pop bx\n ret\ne:",
}
TIMES = 3


def machine(body: str, bits: int) -> BareCpu:
    word = bits // 8
    source = BODIES[body].replace("W", str(word)).replace("CS:", "0:" if bits == 16 else "8:")
    source = source.replace("CSEL", "0" if bits == 16 else "8")
    return bare_cpu(f"mov si, {TIMES}\nl: {source}\ndec si\njnz l\nhlt", bits)


class Again:
    """A machine that begins anew for each watch: memory, CPU and count as at first, the code translated again."""

    def __init__(self, body: str, bits: int) -> None:
        self.cpu = machine(body, bits)
        self._state, self._memory = self.cpu.engine.state(), self.cpu.memory.save()
        self._code = self.cpu.read(CODE, 0x1000)

    def watching(self, watch: Watch) -> BareCpu:
        cpu = self.cpu
        cpu.memory.restore(self._memory)
        cpu.write(CODE, self._code)
        cpu.engine.load(self._state)
        cpu.engine.set_retired(0)
        cpu.engine.set_watchpoints((watch,))
        return cpu


def accesses(cpu: BareCpu) -> list[int]:
    """Behind which instructions (retired) the watch is hit when each runs alone."""
    found = []
    while (exit := cpu.engine.run(1)).reason is not ExitReason.HALT:
        if exit.reason is ExitReason.WATCHPOINT:
            found.append(cpu.engine.retired)
    return found


@pytest.mark.slow_variants
@pytest.mark.usefixtures("run_loop")
@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("access", [Access.READ, Access.WRITE])
@pytest.mark.parametrize("body", BODIES)
def test_a_run_with_a_watched_stack_ends_as_one_without(body, access, bits):
    plain, watched, stepped = machine(body, bits), Again(body, bits), Again(body, bits)
    assert plain.run(1000).reason is ExitReason.HALT
    hits = 0
    for below in range(1, 6 * bits // 8 + 1):
        watch = Watch(STACK - below, 1, access)
        cpu, stops = watched.watching(watch), []
        while (exit := cpu.run(1000)).reason is ExitReason.WATCHPOINT:
            stops.append(cpu.engine.retired)
        assert exit.reason is ExitReason.HALT
        assert cpu.engine.retired == plain.engine.retired
        assert cpu.engine.state() == plain.engine.state()
        assert cpu.read(CODE, STACK - CODE) == plain.read(CODE, STACK - CODE)
        assert stops == accesses(stepped.watching(watch))
        hits += len(stops)
    assert hits >= 2 * TIMES
    for cpu in (plain, watched.cpu, stepped.cpu):
        cpu.engine.close()
