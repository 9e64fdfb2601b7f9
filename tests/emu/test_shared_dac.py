"""What is written to the VGA's DAC, taken by the helper as the device would take it."""

from __future__ import annotations

import random

import pytest

from emu.debugger import Debugger
from reaching import run_reaching
from run_loops import needs_helper

#: All 256 colours twice, as firmware sets a mode's palette, then the last one is read.
PALETTE = """
    mov bx, 2
palette:
    xor cx, cx
colour:
    mov dx, 0x3c8
    mov al, cl
    out dx, al
    inc dx
    mov al, cl
    out dx, al
    add al, bl
    out dx, al
    not al
    out dx, al
    inc cx
    cmp cx, 256
    jne colour
    dec bx
    jnz palette
"""
END = """
    mov al, 0
    out 0xf4, al
    hlt
"""
#: VBE: enable register, with DAC_8BIT or without.
VBE_ENABLE, EIGHT_BITS = 4, 0x21


def accesses(seed: int, count: int) -> str:
    """`count` accesses of ports of the DAC, most of them writes of its address and data, and what they depend on: the
    subsystem's enable and the width of a component. Bytes that are read are stored."""
    chosen = random.Random(seed)
    lines = ["mov di, 0x1000", "cld"]
    for _ in range(count):
        kind = chosen.random()
        port = chosen.choice((0x3C8, 0x3C9, 0x3C9, 0x3C9))
        value = chosen.choice((0, 0xFF, 0xFE, chosen.randrange(256)))
        if kind < 0.75:
            lines += [f"mov dx, {port}", f"mov al, {value}", "out dx, al"]
        elif kind < 0.87:
            lines += [f"mov dx, {chosen.choice((0x3C7, 0x3C8, 0x3C9))}", "in al, dx", "stosb"]
        elif kind < 0.91:
            lines += ["mov dx, 0x3c7", f"mov al, {value}", "out dx, al"]
        elif kind < 0.94:
            lines += ["mov dx, 0x3c8", f"mov ax, {value << 8 | value}", "out dx, ax"]
        elif kind < 0.96:
            lines += ["mov dx, 0x3c3", f"mov al, {chosen.randrange(2)}", "out dx, al"]
        else:
            enable = chosen.choice((0, EIGHT_BITS, 1))
            lines += [
                "mov dx, 0x1ce",
                f"mov ax, {VBE_ENABLE}",
                "out dx, ax",
                "inc dx",
                f"mov ax, {enable}",
                "out dx, ax",
            ]
    return "\n".join(lines) + END


def run(monkeypatch: pytest.MonkeyPatch, loop: str, body: str, **config: object) -> tuple[Debugger, list[int]]:
    return run_reaching(monkeypatch, loop, body, **config)


@needs_helper
@pytest.mark.parametrize("seed", range(6))
def test_both_loops_and_any_slice_give_the_same(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    body = accesses(seed, 400)
    gate, all_of_them = run(monkeypatch, "gate", body)
    for length in (None, 1, 13):
        fast, reached = run(monkeypatch, "fast", body, slice=length)
        assert fast.fingerprint() == gate.fingerprint()
        assert fast.machine.save().devices == gate.machine.save().devices
        assert len(reached) < len(all_of_them)


@needs_helper
def test_a_palette_reaches_python_at_no_access(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, reached = run(monkeypatch, "fast", PALETTE + END)
    assert reached.count(0x3C8) == reached.count(0x3C9) == 0
    dac = fast.machine.board.vga.state.dac
    assert dac[3:6] == [1, 2, ~2 & 0x3F]
    assert dac[3 * 255 :] == [0x3F, 0, 0x3F]
    _, all_of_them = run(monkeypatch, "gate", PALETTE + END)
    assert (all_of_them.count(0x3C8), all_of_them.count(0x3C9)) == (512, 1536)


@needs_helper
def test_traced_accesses_all_reach_python(monkeypatch: pytest.MonkeyPatch) -> None:
    traced, reached = run(monkeypatch, "fast", PALETTE + END, traced=True)
    assert reached.count(0x3C9) == 1536
    plain, _ = run(monkeypatch, "fast", PALETTE + END)
    assert traced.fingerprint() == plain.fingerprint()


@needs_helper
def test_a_palette_that_was_taken_is_saved_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = run(monkeypatch, "fast", "mov dx, 0x3c9\nmov al, 5\nout dx, al\n" * 4 + END)
    vga = made.machine.board.vga
    saved = vga.save()
    assert (saved.dac[:3], saved.dac_write_index, saved.dac_component, saved.dac_latch[0]) == ([5, 5, 5], 1, 1, 5)
    vga.reset()
    assert vga.save().dac == [0] * 768
    vga.restore(saved)
    assert vga.save() == saved
