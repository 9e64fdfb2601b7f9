"""INT n of real mode is noted by the engine and told of later. The journal, the instants at which a guest is looked at,
and all of the machine are as where each is told of at once, which is the oracle here."""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import CODE, long_state
from emu.debugger import Debugger
from emu.journal import Event
from emu.machine import Machine
from emu.progress import Watch
from emu.stops import StopKind
from emu.unicorn_engine import HELPER, UnicornEngine
from emu.x86.state import Segment, Table
from machines import TIMER_100US, debugger, rom

pytestmark = pytest.mark.skipif(isinstance(HELPER, str), reason="it is the C helper that notes")

VECTORS = "".join(
    f"mov word [{n} * 4], {label}\nmov word [{n} * 4 + 2], 0xf000\n"
    for n, label in ((8, "tick"), (0x60, "h"), (6, "ud"), (13, "gp"), (1, "one"), (3, "one"), (4, "one"))
)
HANDLERS = """
    h: push bp
    inc word [0x500]
    pop bp
    iret
    one: inc word [0x502]
    iret
    ud: push bp
    mov bp, sp
    add word [bp + 2], 2
    pop bp
    iret
    gp: jmp gp
    tick: push ax
    int 0x60
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
"""
START = f"{VECTORS}mov ss, ax\nmov sp, 0x7000\n"
#: Programs that call, with all that comes between.
PROGRAMS = {
    "calls alone": "w: int 0x60\njmp w",
    "calls and ticks": TIMER_100US + "sti\nw: int 0x60\ninc dx\njmp w",
    "calls and frequent ticks": TIMER_100US + "mov al, 0x14\nout 0x43, al\nmov al, 60\nout 0x40, al\nsti\n"
    "w: int 0x60\ninc dx\njmp w",
    "calls and exceptions": "w: int 0x60\nud2\nint 0x60\nint 0x60\njmp w",
    "calls of other kinds": "w: int 0x60\nint3\nint 1\nint 3\nint 4\nmov al, 0x7f\nadd al, 1\ninto\nint 6\nnop\nnop\n"
    "jmp w",
    "calls and devices": "w: int 0x60\nin al, 0x64\nout 0x80, al\nint 0x60\nmov al, 'x'\nout 0xe9, al\njmp w",
    "an odd stack": "mov sp, 0x7001\nw: int 0x60\njmp w",
    "a stack that goes round": "mov sp, 4\nw: int 0x60\njmp w",
    "calls with HLT": TIMER_100US + "sti\nw: int 0x60\nint 0x60\nhlt\njmp w",
    "calls that a stack of one byte refuses": "times 50 int 0x60\nmov sp, 3\nint 0x60\nhlt",
    "calls without a vector": "times 50 int 0x60\nlidt [cs:i]\nint 0x60\nhlt\ni: dw 0x17f\ndd 0",
}


def run(source: str, instructions: int, noting: bool, monkeypatch: pytest.MonkeyPatch, piece: int | None) -> Debugger:
    if not noting:
        monkeypatch.setattr(UnicornEngine, "call_notes", lambda self: None)
    started = debugger(rom(f"{START}{source}\n{HANDLERS}"), slice=piece)
    started.set_limit(instructions)
    started.begin_continue()
    started.run()
    monkeypatch.undo()
    return started


def told(of: Debugger) -> tuple[list[Event], int, str, object]:
    machine = of.machine
    return list(machine.journal), machine.journal.added, of.last_stop.text, of.fingerprint()


@pytest.mark.parametrize("piece", [None, 777, 64])
@pytest.mark.parametrize("source", PROGRAMS.values(), ids=PROGRAMS)
def test_the_journal_is_as_where_each_is_told_of(
    source: str, piece: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for instructions in (150, 1_003, 5_000):
        noted = run(source, instructions, True, monkeypatch, piece)
        each = run(source, instructions, False, monkeypatch, piece)
        assert told(noted) == told(each), instructions
        for one in (noted, each):
            one.machine.close()


@pytest.mark.parametrize("name", ["calls alone", "calls and frequent ticks"])
def test_a_guest_is_looked_at_at_the_same_instants(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "CALLS", 4)
    instants = []
    looks = Watch._look
    for noting in (True, False):
        for piece in (None, 1979):
            at: list[int] = []

            def look(self: Watch, at: list[int] = at) -> object:
                at.append(self._machine.executor.retired)
                return looks(self)

            with monkeypatch.context() as patched:
                patched.setattr(Watch, "EVENTS", 300)
                patched.setattr(Watch, "CALLS", 4)
                patched.setattr(Watch, "_look", look)
                if not noting:
                    patched.setattr(UnicornEngine, "call_notes", lambda self: None)
                one = debugger(rom(f"{START}{PROGRAMS[name]}\n{HANDLERS}"), slice=piece)
                one.set_limit(40_000)
                one.begin_continue()
                one.run()
                instants.append(at)
                one.machine.close()
    assert instants[0] and instants[1:] == instants[:1] * 3


def test_most_calls_are_no_call_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    before = Machine._on_fault

    def count(self: Machine, fault: object) -> None:
        told.append(1)
        before(self, fault)  # type: ignore[arg-type]

    monkeypatch.setattr(Machine, "_on_fault", count)
    started = run(PROGRAMS["calls alone"], 60_000, True, monkeypatch, None)
    assert started.machine.journal.added > 9_990 and len(told) < 200
    started.machine.close()


def test_a_triple_fault_by_a_call_names_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = [run("lidt [cs:i]\nint 0x60\ni: dw 0\ndd 0", 500, noting, monkeypatch, None) for noting in (True, False)]
    assert dead[0].last_stop.kind is StopKind.SHUTDOWN and "vector 0x60" in dead[0].last_stop.text
    assert dead[0].last_stop == dead[1].last_stop


def test_who_catches_calls_is_told_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    started = run(PROGRAMS["calls alone"], 100, True, monkeypatch, None)
    caught: list[int] = []
    started.machine.caught_fault = lambda fault: caught.append(fault.retired)
    started.machine.run(1_100)
    assert len(caught) == 1_000 // 6, "six instructions a round"
    started.machine.close()


#: In 64-bit code, of ring 0 with the IDT at 2000h; INT 41h has no gate, and INT 42h one whose stack is not canonical.
LONG = {
    "calls": "w: int 0x40\njmp w",
    "calls and exceptions": "w: int 0x40\nud2\nint 0x40\nint 0x40\njmp w",
    "a gate that is not there": "times 50 int 0x40\nint 0x41\nhlt",
    "a stack that is not canonical": "times 50 int 0x40\nint 0x42\nhlt",
}


@pytest.mark.parametrize("source", LONG.values(), ids=LONG)
def test_in_64_bit_code_too(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = {0x40: "inc dword [0x9000]\niretq", 6: "add qword [rsp], 2\niretq", 0x42: "iretq"}
    seen = []
    for noting in (True, False):
        for piece in (None, 97):
            with monkeypatch.context() as patched:
                if not noting:
                    patched.setattr(UnicornEngine, "call_notes", lambda self: None)
                started = debugger(rom("hlt"), slice=piece, memory=8 << 20)
            machine = started.machine
            state = long_state(machine.memory)
            machine.memory.write(CODE, assemble(f"bits 64\norg {CODE:#x}\n{source}"))
            for n, (vector, text) in enumerate(handlers.items()):
                at = CODE + 0x400 + 0x20 * n
                gate = bytearray((at & 0xFFFF).to_bytes(2, "little") + b"\x18\0\0\x8e" + bytes(10))
                gate[4] = 1 if vector == 0x42 else 0  # the interrupt stack table's first slot
                machine.memory.write(0x2000 + 16 * vector, bytes(gate))
                machine.memory.write(at, assemble(f"bits 64\norg {at:#x}\n{text}"))
            state.idtr = Table(0x2000, 0xFFF)
            state.tr = Segment(0x30, 0x3000, 0x67, 0x8B)
            machine.memory.write(0x3000 + 36, (1 << 55).to_bytes(8, "little"))
            machine.load_cpu(state)
            started.set_limit(3_001)
            started.begin_continue()
            started.run()
            seen.append(told(started))
            assert any(event.kind == "int" for event in seen[-1][0])
            machine.close()
    assert seen[1:] == seen[:1] * 3
