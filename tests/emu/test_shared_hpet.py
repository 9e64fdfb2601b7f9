"""The HPET's main counter read as a clock, answered by the helper as the device would answer it, and comparators of
timers that are off, which it takes."""

from __future__ import annotations

import pytest

from emu.debugger import Debugger
from emu.devices.hpet import Hpet
from emu.devices.shared_ports import SharedPorts
from emu.layout import HPET
from emu.record import replace
from emu.stops import StopKind
from machines import debugger, rom
from reaching import run_reaching
from run_loops import needs_helper
from virtual_time import VirtualTime

TURNS = 200
#: The counter is read whole and by halves, words and bytes, while it stands, is set, and counts; between the turns a
#: timer's comparator is written, and an interrupt's time passes in HLT. All that is read is stored.
BODY = f"""
    o32 lgdt [cs:gr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 8:p
    gr: dw 23
    dd 0xf0000 + g
    align 8
    g: dq 0, 0x00409a0f0000ffff, 0x00cf92000000ffff
    bits 32
    p: mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x9000
    mov ebx, 0xfed00000
    mov edi, 0x1000
    cld
    mov eax, [ebx+0xf0]     ; it stands
    stosd
    mov dword [ebx+0xf4], 0x12345
    mov dword [ebx+0xf0], 0xfffffc00
    mov dword [ebx+0x10], 1 ; and counts, soon into its high half
    mov ecx, {TURNS}
    turn:
    mov eax, [ebx+0xf0]
    stosd
    mov edx, eax
    add edx, 5000
    mov [ebx+0x108], edx
    mov eax, [ebx+0xf4]
    stosd
    mov al, [ebx+0xf1]
    stosb
    mov ax, [ebx+0xf6]
    stosw
    movq mm0, [ebx+0xf0]
    movq [edi], mm0
    add edi, 8
    rep nop
    dec ecx
    jnz turn
    mov dword [ebx+0x10], 0
    mov eax, [ebx+0xf0]
    stosd
    mov al, 0
    out 0xf4, al
    hlt
"""


#: Comparators of all three timers, whole and by halves, in each turn read back; their timers are off, on (32 bits too),
#: periodic, with the value set and without, by turns; accesses of two bytes and such that are not aligned do nothing.
#: The interrupts have nowhere to go.
COMPARATORS = (
    BODY[: BODY.index("mov eax, [ebx+0xf0]")]
    + f"""
    mov dword [ebx+0x10], 1
    mov ecx, {TURNS}
    turn:
    mov edx, ecx
    imul edx, 0x9e3779b1
    mov ebp, ecx
    and ebp, 3
    cmp ebp, 3
    je other
    shl ebp, 5
    add ebp, ebx
    mov eax, ecx
    and eax, 0x1c
    mov eax, [cs:configs+eax]
    mov [ebp+0x100], eax
    mov [ebp+0x108], edx
    mov [ebp+0x10c], ecx
    mov eax, [ebp+0x108]
    stosd
    mov eax, [ebp+0x10c]
    stosd
    ror edx, 7
    mov [ebp+0x108], dx
    mov [ebp+0x10a], edx
    movd mm0, edx
    movq [ebp+0x108], mm0
    mov ax, [ebp+0x10a]
    stosw
    mov eax, [ebp+0x100]
    stosd
    other:
    mov [ebx+0x148], edx        ; of the third timer, on or off
    mov [ebx+0x14c], ecx
    mov [ebx+0x168], edx        ; there is no fourth one
    dec ecx
    jnz turn
    mov al, 0
    out 0xf4, al
    hlt
    align 4
    configs: dd 0x40, 0, 4, 0x48, 0x4c, 0x100, 0x104, 0
"""
)


def run(monkeypatch: pytest.MonkeyPatch, loop: str, **config: object) -> tuple[Debugger, list[int]]:
    """The machine behind BODY, and the addresses of the HPET that were read from Python."""
    made, reached = run_reaching(monkeypatch, loop, BODY, machine="pc", memory=4 << 20, **config)
    return made, [address for address in reached if address >= HPET]


@pytest.mark.slow_variants
@needs_helper
@pytest.mark.parametrize("length", [None, 1, 13, 1000])
def test_both_loops_and_any_slice_read_the_same(monkeypatch: pytest.MonkeyPatch, length: int | None) -> None:
    fast, _ = run(monkeypatch, "fast", slice=length)
    gate, _ = run(monkeypatch, "gate")
    one, other = (replace(made.fingerprint(), cpu="") for made in (fast, gate))
    assert one == other
    ours, its = (made.machine.cpu_state() for made in (fast, gate))
    # only the helper has MMX write ones above its registers (docs/fidelity.md): of these MM0 alone is used
    assert ours.fpu.st[0] == its.fpu.st[0] | 0xFFFF << 64
    its.fpu.st[0] = ours.fpu.st[0]
    assert ours == its
    low = int.from_bytes(fast.machine.memory.read(0x1004, 4), "little")
    assert low > 0xFFFFFC00  # it was set there, and counts a tick of 10 ns an instruction
    assert int.from_bytes(fast.machine.memory.read(0x1000 + 4 + 19 * (TURNS - 1) + 4, 4), "little") == 0x12346


@needs_helper
def test_few_reads_reach_python(monkeypatch: pytest.MonkeyPatch) -> None:
    _, reached = run(monkeypatch, "fast")
    assert len(reached) == 2  # those of the counter that stands
    _, all_of_them = run(monkeypatch, "gate")
    assert len(all_of_them) >= 5 * TURNS


@pytest.mark.slow_variants
@needs_helper
@pytest.mark.parametrize("length", [None, 13])
def test_comparators_are_what_the_device_makes_of_them(monkeypatch: pytest.MonkeyPatch, length: int | None) -> None:
    def end(loop: str, length: int | None = None) -> tuple[object, ...]:
        made, _ = run_reaching(monkeypatch, loop, COMPARATORS, machine="pc", memory=4 << 20, slice=length)
        machine = made.machine
        state = machine.board.chipset.hpet.save()
        return machine.memory.read(0x1000, 14 * TURNS), state, machine.save().clock, machine.executor.retired

    expected = end("gate")
    assert end("fast", length) == expected
    assert len({expected[0][at : at + 4] for at in range(0, 14 * TURNS, 4)}) > TURNS


@needs_helper
def test_no_write_to_a_comparator_of_an_idle_timer_reaches_python(monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    for loop in ("fast", "gate"):
        monkeypatch.setenv("V2E_ENGINE", loop)
        made = debugger(rom(BODY), machine="pc", memory=4 << 20)
        places = written[loop] = []
        write = made.machine.mmio.mmio_write
        monkeypatch.setattr(
            made.machine.mmio, "mmio_write", lambda at, *rest, w=write, p=places: p.append(at) or w(at, *rest)
        )
        made.set_limit(10_000_000)
        made.begin_continue()
        assert made.run().kind is StopKind.EXIT
    assert written["gate"].count(HPET + 0x108) == TURNS
    assert HPET + 0x108 not in written["fast"]


def shared_hpet() -> tuple[VirtualTime, SharedPorts, Hpet]:
    time, shared = VirtualTime(), SharedPorts()
    return time, shared, Hpet(time.clock, lambda n, level: None, (lambda level: None, lambda level: None), shared)


def test_a_counter_that_stands_is_the_devices() -> None:
    time, shared, hpet = shared_hpet()
    assert not shared.hpet_tick
    hpet.write(0xF0, 1000, 8)
    time.advance(5000)
    hpet.write(0x10, 1, 8)
    assert (shared.hpet_tick, shared.hpet_origin) == (10, 5000 - 1000 * 10)
    hpet.write(0x10, 0, 8)
    assert not shared.hpet_tick


def test_a_counter_beyond_what_an_engine_counts_is_the_devices() -> None:
    _, shared, hpet = shared_hpet()
    hpet.write(0xF0, 1 << 63, 8)
    hpet.write(0x10, 1, 8)
    assert not shared.hpet_tick


def test_what_is_restored_is_shared_and_what_is_reset_is_not() -> None:
    time, shared, hpet = shared_hpet()
    hpet.write(0x10, 1, 8)
    saved = hpet.save()
    hpet.reset()
    assert not shared.hpet_tick
    time.advance(700)
    hpet.restore(saved)
    assert (shared.hpet_tick, shared.hpet_origin) == (10, 0)
