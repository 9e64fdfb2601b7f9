"""Stores to pages that hold code: what they change is executed as it stands then, and one that changes no code costs no
translation. The portable loop, which looks at each instruction by itself, is the oracle."""

from __future__ import annotations

import random

import pytest

from bare_cpu import BareCpu, bare_cpu
from emu.engine import Access, ExitReason, Watch
from emu.unicorn_engine import HELPER

pytestmark = pytest.mark.skipif(
    isinstance(HELPER, str), reason=f"there is no helper: {HELPER if isinstance(HELPER, str) else ''}"
)

SLICES = (1, 5, 1_000_000)
REGISTERS = {1: "al", 2: "ax", 4: "eax", 8: "rax"}


def make(monkeypatch: pytest.MonkeyPatch, name: str, source: str, bits: int = 64) -> BareCpu:
    monkeypatch.setenv("V2E_ENGINE", name)
    cpu = bare_cpu(source, bits)
    assert cpu.engine.run_loop == name
    return cpu


def outcome(cpu: BareCpu, size: int) -> tuple[object, ...]:
    exit = cpu.run(2_000_000, slice=size)
    found = exit.reason, cpu.engine.retired, cpu.engine.state(), cpu.memory.save()
    cpu.engine.close()
    return found


def translations(cpu: BareCpu) -> int:
    statistics = cpu.engine.statistics
    assert statistics is not None
    return statistics.translations


def stores_at_random(seed: int) -> str:
    """Functions that add a constant of eight bytes, into which and beside which numbers of every size are stored, often
    what stands there already; all are called in between. The bytes before a constant are stored as they are."""
    rng = random.Random(seed)
    lines = ["mov ecx, 20", "again:"]
    for _ in range(40):
        size = rng.choice(tuple(REGISTERS))
        where = rng.randrange(6)
        value = rng.choice((0, 0, 1, 0x7F, rng.getrandbits(8 * size)))
        # the constant stands behind two bytes of MOV, eight bytes of data behind the function
        at = f"f{where}+2+{rng.randrange(9 - size)}" if rng.random() < 0.6 else f"d{where}+{rng.randrange(9 - size)}"
        lines += [f"mov rax, {value:#x}", f"mov [{at}], {REGISTERS[size]}"]
        if rng.random() < 0.3:
            lines += [f"mov rax, [f{where}]", f"mov [f{where}], rax"]
        if rng.random() < 0.5:
            lines += [f"call f{n}" for n in range(6)]
    lines += ["dec ecx", "jnz near again", "hlt", "align 4096"]
    for n in range(6):
        lines += [f"f{n}: db 0x49, 0xB8  ; MOV R8, imm64", "dq 0", "add r9, r8", "rol r9, 3", "ret", f"d{n}: dq 0"]
    return "\n".join(lines)


@pytest.mark.slow_variants(keep=1)
@pytest.mark.parametrize("seed", range(6))
def test_stores_of_any_size_into_and_beside_code_act_alike_in_both_loops(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = stores_at_random(seed)
    expected = outcome(make(monkeypatch, "gate", source), 1_000_000)
    assert expected[0] is ExitReason.HALT
    for size in SLICES:
        assert outcome(make(monkeypatch, "fast", source), size) == expected


@pytest.mark.parametrize("size", REGISTERS)
def test_a_store_that_leaves_its_code_as_it_is_costs_no_translation(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    register = REGISTERS[size]
    source = f"mov ecx, 1000\nl: mov {register}, [f]\nmov [f], {register}\n"
    source += "call f\ndec ecx\njnz l\nhlt\nf: mov r8d, 12345678\nadd r9, r8\nret"
    cpu = make(monkeypatch, "fast", source)
    before = translations(cpu)
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.state().regs[9] == 1000 * 12345678
    assert translations(cpu) - before < 20
    cpu.engine.close()


@pytest.mark.parametrize("size", REGISTERS)
def test_data_between_functions_is_written_without_a_translation(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    register = REGISTERS[size]
    source = (
        f"mov ecx, 1000\nl: add [d], {register}\ninc rax\ncall f\ndec ecx\njnz l\nhlt\nret\nd: dq 0\nf: add r9, 2\nret"
    )
    cpu = make(monkeypatch, "fast", source)
    before = translations(cpu)
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.state().regs[9] == 2000
    assert translations(cpu) - before < 20
    cpu.engine.close()


def test_a_store_whose_last_byte_alone_is_code_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        mov ecx, 100
        l: call f
        mov eax, 0xf8000000     ; CLC, F8h, in the place of STC, F9h
        mov [f-3], eax
        call f
        mov eax, 0xf9000000
        mov [f-3], eax
        dec ecx
        jnz l
        hlt
        dd 0
        f: stc
        adc r9, 0
        ret
    """
    cpu = make(monkeypatch, "fast", source)
    assert cpu.run().reason is ExitReason.HALT
    assert cpu.engine.state().regs[9] == 100
    cpu.engine.close()


def test_a_watched_store_that_changes_nothing_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "mov ecx, 10\nl: mov al, [f]\nmov [f], al\ncall f\ndec ecx\njnz l\nhlt\nf: mov r8d, 1\nret"
    met = []
    for name in ("gate", "fast"):
        cpu = make(monkeypatch, name, source)
        cpu.engine.run(20)  # translated and stored to before anything is watched
        address = cpu.memory.read(0x1000, 64).index(b"\x41\xb8\x01\0\0\0") + 0x1000
        cpu.engine.set_watchpoints([Watch(address, 1, Access.WRITE)])
        places = []
        while (exit := cpu.run()).reason is ExitReason.WATCHPOINT:
            places.append(cpu.engine.retired)
        assert exit.reason is ExitReason.HALT
        met.append(places)
        cpu.engine.close()
    assert met[0] == met[1]
    assert len(met[0]) >= 6
