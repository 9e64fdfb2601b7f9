"""External interrupts: the instruction before which they are taken is the architecture's, whatever the slices are."""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import CODE, BareCpu, bare_cpu
from emu.engine import Exit, ExitReason
from emu.unicorn_engine import HELPER
from emu.unicorn_transfers import KIND_INTERRUPT, Transfers
from emu.x86.state import Segment, Table
from run_loops import make

SLICES = (1, 2, 3, 7, 1000)

#: Real mode: the handler of vector 20h tells where it interrupted through port 21h, which also lowers the line.
HANDLER = """
    mov word [0x80], handler
    mov word [0x82], 0
    jmp start
handler:
    push bp
    mov bp, sp
    push ax
    mov ax, [bp+2]
    out 0x21, ax
    pop ax
    pop bp
    iret
start:
"""


def with_line(source: str, bits: int = 16, loop: str = "") -> tuple[BareCpu, list[tuple[int, int]]]:
    """A CPU whose INTR rises by a write to port 70h and falls by one to port 21h; and what is written there."""
    cpu = make(loop, source, bits) if loop else bare_cpu(source, bits)
    taken: list[tuple[int, int]] = []

    def out(port: int, _size: int, value: int) -> None:
        if port == 0x70:
            cpu.engine.set_interrupt(0x20)
        elif port == 0x21:
            assert cpu.engine.take_interrupt() == 0x20
            cpu.engine.set_interrupt(None)
            taken.append((cpu.engine.retired, value))

    cpu.on_out = out
    return cpu, taken


#: source after HANDLER; the label `here` is where the interrupt must be taken (SDM vol. 3A, 6.8.1 and 6.8.3), the label
#: `last` where the last of several must be.
SEQUENCES = {
    "sti delays by one instruction": "out 0x70, al\nsti\nnop\nhere: nop\nhlt",
    "sti; ret": "call f\nhere: nop\nhlt\nf: out 0x70, al\nsti\nret",
    "sti; jmp": "out 0x70, al\nsti\njmp here\nnop\nhere: inc ax\nhlt",
    "sti; call": "out 0x70, al\nsti\ncall here\nhlt\nhere: ret",
    "a second sti does not delay further": "out 0x70, al\nsti\nsti\nhere: nop\nhlt",
    "popf does not delay": "out 0x70, al\npush 0x202\npopf\nhere: nop\nhlt",
    "iret does not delay": "out 0x70, al\npush 0x202\npush cs\npush here\niret\nnop\nhere: nop\nhlt",
    "popf; mov ss": "xor ax, ax\nout 0x70, al\npush 0x202\npopf\nhere: mov ss, ax\nhlt",
    "mov ss shadow": "xor ax, ax\nsti\nnop\nmov ss, ax\nout 0x70, al\nhere: nop\nhlt",
    "raised with interrupts on": "sti\nnop\nout 0x70, al\nhere: inc ax\nhlt",
    "raised as the last instruction of a block": "sti\nnop\nout 0x70, al\nhere: jmp next\nnext: hlt",
    "sti; hlt": "out 0x70, al\nsti\nhlt\nhere: nop\nhlt",
    "between iterations": "sti\nmov dx, 0x70\nmov cx, 5\nmov si, 0\nhere: rep outsb\nlast: hlt",
}

#: Shadows one behind the other.
SEQUENCES |= {
    "sti; mov ss": "xor ax, ax\nout 0x70, al\nsti\nmov ss, ax\nmov sp, 0x7000\nhere: nop\nhlt",
    "sti; mov ss from memory": "out 0x70, al\nsti\nmov ss, [es:0x60]\nmov sp, 0x7000\nhere: nop\nhlt",
    "sti; pop ss": "push ss\nout 0x70, al\nsti\npop ss\nmov sp, 0x7000\nhere: nop\nhlt",
    "mov ss; sti": "xor ax, ax\nout 0x70, al\nmov ss, ax\nsti\nmov sp, 0x7000\nhere: nop\nhlt",
    "sti; mov ds": "xor ax, ax\nout 0x70, al\nsti\nmov ds, ax\nhere: mov sp, 0x7000\nhlt",
    "sti with if set": "sti\nnop\nout 0x70, al\nhere: sti\nnop\nhlt",
    "sti with if set, raised by the one before": "sti\nnop\nsti\nout 0x70, al\nhere: nop\nhlt",
    "sti; sti; sti": "out 0x70, al\nsti\nsti\nhere: sti\nnop\nhlt",
    "sti with if set; mov ss": "xor ax, ax\nsti\nnop\nsti\nmov ss, ax\nout 0x70, al\nhere: nop\nhlt",
    "mov ss; sti with if set": "xor ax, ax\nsti\nnop\nmov ss, ax\nsti\nout 0x70, al\nhere: nop\nhlt",
    "sti; mov ss; mov ss": "xor ax, ax\nout 0x70, al\nsti\nmov ss, ax\nmov ss, ax\nhere: nop\nhlt",
}
#: The run loops that there are here.
LOOPS = ("gate",) if isinstance(HELPER, str) else ("fast", "gate")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize(("before", "shadow"), [("nop", True), ("sti\nnop", False), ("sti", False)])
def test_sti_begins_a_shadow_where_if_was_clear_alone(bits: int, before: str, shadow: bool, loop: str) -> None:
    """SDM vol. 2B, STI: "If IF = 0, maskable hardware interrupts remain inhibited on the instruction boundary following
    an execution of STI"; by one step, and by a run that ends behind it."""
    for size in (1, 1000):
        cpu = make(loop, f"{before}\nsti\nnop\nnop\nhlt", bits)
        count = before.count("\n") + 2
        cpu.run(count, size)
        assert (cpu.engine.retired, cpu.engine.state().shadow, cpu.engine.interruptible()) == (
            count,
            shadow,
            not shadow,
        )


@pytest.mark.slow_variants(keep=8)
@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("loop", LOOPS)
def test_an_interrupt_is_taken_at_the_same_instruction_at_any_slice(name: str, loop: str) -> None:
    source = HANDLER + SEQUENCES[name]
    results = []
    for size in SLICES:
        cpu, taken = with_line(source + "\nmark: db 0", 16, loop)
        while True:
            exit = cpu.run(slice=size)
            assert exit.reason is ExitReason.HALT
            if not (cpu.engine.state().rflags & 0x200 and not taken):
                break
        results.append((cpu.engine.retired, tuple(taken), cpu.engine.state(), cpu.memory.save()))
    assert all(result == results[0] for result in results)
    assert results[0][1]
    # where the labels are: assemble once more with their addresses as data
    last = "last" if "last:" in source else "here"
    image = assemble(f"bits 16\n{source}\ndw here, {last}", CODE)
    *before, end = [at for _, at in results[0][1]]
    assert set(before) <= {int.from_bytes(image[-4:-2], "little")}
    assert end == int.from_bytes(image[-2:], "little")


def test_sti_cli_takes_nothing() -> None:
    cpu, taken = with_line(HANDLER + "out 0x70, al\nsti\ncli\nnop\nhlt")
    assert cpu.run().reason is ExitReason.HALT
    assert not taken


def test_a_lowered_line_is_not_taken() -> None:
    cpu = bare_cpu(HANDLER + "out 0x70, al\nout 0x71, al\nsti\nnop\nnop\nhlt")
    cpu.on_out = lambda port, size, value: cpu.engine.set_interrupt(0x20 if port == 0x70 else None)
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.take_interrupt() is None


def test_the_run_ends_at_the_first_instruction_of_the_handler() -> None:
    cpu, _ = with_line(HANDLER + "sti\nnop\nout 0x70, al\nnop\nhlt")
    exit = cpu.engine.run(1000)
    assert exit == Exit(ExitReason.REQUEST, 3 + 3, detail="interrupt delivered")
    assert cpu.engine.take_interrupt() == 0x20
    assert cpu.engine.take_interrupt() is None
    assert cpu.engine.state().regs[4] == 0x7000 - 6


def test_hlt_ends_the_run_and_an_interrupt_ends_the_halt() -> None:
    cpu, taken = with_line(HANDLER + "sti\nhlt\ninc ax\ncli\nhlt")
    assert cpu.engine.run(1000).reason is ExitReason.HALT
    assert cpu.engine.halted
    assert cpu.engine.run(1000) == Exit(ExitReason.HALT, 0)
    cpu.engine.set_interrupt(0x20)
    assert cpu.run().reason is ExitReason.HALT
    assert len(taken) == 1
    assert cpu.engine.state().regs[0] == 1
    cpu.engine.set_interrupt(0x20)
    assert cpu.engine.run(1000) == Exit(ExitReason.HALT, 0)  # interrupts are off now
    assert not cpu.engine.interruptible()


def test_a_halted_state_that_is_loaded_is_halted() -> None:
    cpu, taken = with_line(HANDLER + "sti\nhlt\ninc ax\ncli\nhlt")
    cpu.run()
    state = cpu.engine.state()
    assert state.halted
    other, taken = with_line(HANDLER + "sti\nhlt\ninc ax\ncli\nhlt")
    other.write(0, cpu.read(0, 0x400))
    other.engine.load(state)
    assert other.engine.run(10) == Exit(ExitReason.HALT, 0)
    other.engine.set_interrupt(0x20)
    assert other.run().reason is ExitReason.HALT
    assert len(taken) == 1


def test_interruptible_says_whether_the_next_instruction_would_be_preceded_by_one() -> None:
    cpu = bare_cpu("nop\nsti\nnop\nnop\nhlt")
    seen = []
    for _ in range(4):
        seen.append(cpu.engine.interruptible())
        cpu.engine.run(1)
    assert seen == [False, False, False, True]


def test_the_shadow_survives_save_and_load() -> None:
    cpu, _ = with_line(HANDLER + "out 0x70, al\nsti\nret_: nop\nnop\nhlt")
    cpu.engine.run(3 + 2)
    state = cpu.engine.state()
    assert state.shadow
    cpu.engine.load(state)
    assert not cpu.engine.interruptible()
    cpu.engine.run(1)
    assert not cpu.engine.state().shadow
    assert cpu.engine.interruptible()


def test_an_interrupt_comes_before_a_breakpoint_on_the_same_instruction() -> None:
    # SDM vol. 3A, table 6-2: external interrupts have priority over faults from fetching the next instruction.
    cpu, taken = with_line(HANDLER + "sti\nnop\nout 0x70, al\nhere: nop\nhlt")
    at = CODE + len(_assembled(HANDLER + "sti\nnop\nout 0x70, al\n"))
    cpu.engine.set_breakpoints([at])
    exit = cpu.run()
    assert exit.reason is ExitReason.BREAKPOINT
    assert len(taken) == 1
    assert cpu.engine.linear_pc == at


@pytest.mark.parametrize("size", SLICES)
def test_a_breakpoint_resumed_from_is_not_met_again_behind_an_interrupt(size: int) -> None:
    cpu, taken = with_line(HANDLER + "sti\nnop\nhere: nop\ncli\nhlt")
    at = CODE + len(_assembled(HANDLER + "sti\nnop\n"))
    cpu.engine.set_breakpoints([at])
    assert cpu.run().reason is ExitReason.BREAKPOINT
    cpu.engine.set_interrupt(0x20)
    assert cpu.engine.run(size, skip_breakpoint=True) == Exit(ExitReason.REQUEST, 0, detail="interrupt delivered")
    # who resumes has executed nothing yet and asks for the skip again
    assert cpu.engine.run(1, skip_breakpoint=True) == Exit(ExitReason.BUDGET, 1)
    assert cpu.run(slice=size).reason is ExitReason.HALT
    assert len(taken) == 1


def test_a_breakpoint_on_the_handler_is_met_when_an_interrupt_precedes_the_resumed_instruction() -> None:
    cpu, _ = with_line(HANDLER + "sti\nnop\nhere: nop\ncli\nhlt")
    at = CODE + len(_assembled(HANDLER + "sti\nnop\n"))
    cpu.engine.set_breakpoints([at])
    assert cpu.run().reason is ExitReason.BREAKPOINT
    handler = int.from_bytes(cpu.read(0x80, 2), "little")
    cpu.engine.set_breakpoints([at, handler])
    cpu.engine.set_interrupt(0x20)
    assert cpu.engine.run(9, skip_breakpoint=True).executed == 0
    assert cpu.engine.run(9, skip_breakpoint=True) == Exit(ExitReason.BREAKPOINT, 0)
    assert cpu.engine.linear_pc == handler
    assert cpu.engine.run(1, skip_breakpoint=True) == Exit(ExitReason.BUDGET, 1)


def test_a_skip_whose_breakpoint_is_gone_does_not_let_a_later_arrival_pass() -> None:
    cpu = bare_cpu("l: inc ax\njmp l")
    assert cpu.engine.run(2, skip_breakpoint=True) == Exit(ExitReason.BUDGET, 2)
    cpu.engine.set_breakpoints([CODE])
    assert cpu.engine.run(9) == Exit(ExitReason.BREAKPOINT, 0)


def test_an_interrupt_whose_delivery_faults_is_not_taken_twice() -> None:
    # Protected mode without any IDT entry: the delivery raises #GP, that #DF, that shutdown.
    cpu, _ = with_line("out 0x70, al\nsti\nnop\nnop\nhlt", 32)
    exit = cpu.run()
    assert exit.reason is ExitReason.SHUTDOWN
    assert cpu.engine.take_interrupt() == 0x20
    assert cpu.engine.run(10).reason is ExitReason.SHUTDOWN
    assert cpu.engine.run(10).executed == 0


@pytest.mark.parametrize(("bits", "gate"), [(32, 8), (64, 16)])
@pytest.mark.parametrize("size", SLICES)
def test_interrupts_are_taken_through_the_idt(bits: int, gate: int, size: int) -> None:
    selector = {32: 8, 64: 0x18}[bits]
    source = f"""
        lidt [idtr]
        out 0x70, al
        sti
        nop
        here: nop
        cli
        hlt
        handler:
        mov eax, [{"esp" if bits == 32 else "rsp"}]
        out 0x21, eax
        iret{"d" if bits == 32 else "q"}
        idtr: dw 0x20 * {gate} + {gate} - 1
        dd 0x2000
    """
    cpu, taken = with_line(source, bits)
    image = _assembled(f"{source}\ndd handler, here", bits)
    handler, here = (int.from_bytes(image[i : i + 4], "little") for i in (len(image) - 8, len(image) - 4))
    entry = handler & 0xFFFF | selector << 16 | 0x8E00 << 32 | handler >> 16 << 48
    cpu.write(0x2000 + 0x20 * gate, entry.to_bytes(8, "little"))
    assert cpu.run(slice=size).reason is ExitReason.HALT
    assert taken == [(5, here)]


@pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")
@pytest.mark.parametrize(("vector", "high", "slot"), [(13, 0x8000, 0), (12, 0, 1)], ids=["its gate", "its stack"])
@pytest.mark.parametrize("size", SLICES)
def test_an_interrupt_to_an_address_that_is_not_canonical_faults_once(
    vector: int, high: int, slot: int, size: int
) -> None:
    # SDM vol. 2A, INT n: #GP(EXT) and #SS(EXT). The first slot of the interrupt stack table is not canonical.
    source = """
        lidt [idtr]
        out 0x70, al
        sti
        nop
        here: nop
        hlt
        handler:
        pop rax
        mov rbx, [rsp]
        sti
        nop
        nop
        hlt
        idtr: dw 0x20 * 16 + 15
        dd 0x2000
    """
    cpu, taken = with_line(source, 64)
    image = _assembled(f"{source}\ndd handler, here", 64)
    handler, here = (int.from_bytes(image[i : i + 4], "little") for i in (len(image) - 8, len(image) - 4))
    entry = handler & 0xFFFF | 0x18 << 16 | 0x8E00 << 32 | handler >> 16 << 48
    cpu.write(0x2000 + vector * 16, entry.to_bytes(16, "little"))
    cpu.write(0x2000 + 0x20 * 16, (entry | slot << 32 | high << 64).to_bytes(16, "little"))
    cpu.write(0x3000 + 36, (1 << 47).to_bytes(8, "little"))
    state = cpu.engine.state()
    state.tr = Segment(0x30, 0x3000, 0x67, 0x8B)
    cpu.engine.load(state)
    assert cpu.run(slice=size).reason is ExitReason.HALT
    assert (cpu.engine.state().regs[0], cpu.engine.state().regs[3]) == (1, here)
    assert [(fault.vector, fault.code, fault.interrupt) for fault in cpu.faults] == [(vector, 1, 0x20)]
    assert cpu.engine.take_interrupt() == 0x20
    assert taken == []


def _assembled(source: str, bits: int = 16) -> bytes:
    return assemble(f"bits {bits}\n{source}", CODE)


#: null, code and data of ring 0, code and data of ring 3, at 3000h; the TSS at 3800h.
RINGS = (0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF)


@pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")
@pytest.mark.parametrize("ring", [0, 3])
@pytest.mark.parametrize("gate", [0x8E, 0x8F])
@pytest.mark.parametrize(
    ("odd", "asked"), [("", 2), ("the stack's limit", 40), ("the gate's width", 40)], ids=["plain", "limit", "width"]
)
def test_python_is_asked_about_unusual_interrupts_alone(
    monkeypatch: pytest.MonkeyPatch, ring: int, gate: int, odd: str, asked: int
) -> None:
    source = """
        mov ecx, 40
        again:
        out 0x70, al
        nop
        loop again
        mov al, 1
        out 0x99, al
        jmp $
        handler:
        inc ebx
        out 0x21, eax
        iret{}
    """.format("w" if odd == "the gate's width" else "d")
    calls: list[int] = []
    real = Transfers._answer
    monkeypatch.setattr(Transfers, "_answer", lambda self, kind, a, b: calls.append(kind) or real(self, kind, a, b))
    cpu, taken = with_line(source, 32)
    handler = int.from_bytes(_assembled(f"{source}\ndd handler", 32)[-4:], "little")
    limited = odd == "the stack's limit"
    narrow = 8 if odd == "the gate's width" else 0
    cpu.write(0x2100, (handler & 0xFFFF | 8 << 16 | gate - narrow << 40 | handler >> 16 << 48).to_bytes(8, "little"))
    cpu.write(0x3000, b"".join(word.to_bytes(8, "little") for word in RINGS))
    if limited:
        cpu.write(0x3010, 0x004F93000000FFFF.to_bytes(8, "little"))
    cpu.write(0x3804, (0x6F00 | 0x10 << 32).to_bytes(8, "little"))
    state = cpu.engine.state()
    state.gdtr, state.idtr = Table(0x3000, 0x27), Table(0x2000, 0x107)
    state.cs = Segment(0x18 + ring, 0, 0xFFFFFFFF, 0xC0FB) if ring else Segment(8, 0, 0xFFFFFFFF, 0xC09B)
    for name in ("es", "ss", "ds"):
        selector, access = (0x20 + ring, 0xC0F3) if ring else (0x10, 0xC093)
        setattr(state, name, Segment(selector, 0, 0xFFFFF if limited and not ring else 0xFFFFFFFF, access))
    state.tr = Segment(0x28, 0x3800, 0x67, 0x8B)
    state.rflags |= 0x3202  # IOPL 3, IF
    cpu.engine.load(state)
    ended: list[int] = []
    out = cpu.on_out

    def ends(port: int, size: int, value: int) -> None:
        if port == 0x99:
            ended.append(value)
            cpu.engine.request_stop()
        else:
            out(port, size, value)

    cpu.on_out = ends
    for _ in range(200):
        if ended:
            break
        cpu.engine.run(100)
    assert (ended, len(taken), cpu.engine.state().regs[3]) == ([1], 40, 40)
    assert cpu.faults == []
    assert (calls.count(KIND_INTERRUPT) <= asked) if asked < 40 else calls.count(KIND_INTERRUPT) == 40
