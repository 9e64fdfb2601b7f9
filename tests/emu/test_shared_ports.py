"""Counter 0 of the 8254 read as a clock and POST codes, answered by the helper as the devices would answer them."""

from __future__ import annotations

import pytest

from emu.debugger import Debugger
from emu.devices.pit8254 import Pit8254
from emu.devices.shared_ports import SharedPorts
from emu.stops import StopKind
from machines import debugger, rom
from reaching import run_reaching
from run_loops import needs_helper
from virtual_time import VirtualTime

#: Counter 0 in mode 2 with count 1000; 500 turns that latch it, write POST codes as kernels do for a delay, and store
#: what is read. Every seventh turn latches twice, every eighth leaves the MSB unread while counter 2 is touched, which
#: the helper does not know.
BODY = """
    mov al, 0x34
    out 0x43, al
    mov al, 1000 & 255
    out 0x40, al
    mov al, 1000 >> 8
    out 0x40, al
    mov di, 0x1000
    mov cx, 500
    mov bl, 0
    cld
turn:
    mov al, 0
    out 0x43, al
    mov al, cl
    out 0x80, al
    inc bl
    cmp bl, 7
    jne once
    mov bl, 0
    mov al, 0
    out 0x43, al
once:
    in al, 0x40
    stosb
    test cl, 7
    jnz whole
    mov al, 0x80
    out 0x43, al
    in al, 0x42
    stosb
whole:
    in al, 0x40
    stosb
    out 0x80, al
    loop turn
    in al, 0x80
    stosb
    mov al, 0
    out 0x43, al
    in al, 0x40
    mov al, 0
    out 0xf4, al
    hlt
"""


def run(monkeypatch: pytest.MonkeyPatch, loop: str, **config: object) -> tuple[Debugger, list[int]]:
    """The machine behind BODY, and the ports whose accesses reached Python."""
    return run_reaching(monkeypatch, loop, BODY, **config)


@pytest.mark.slow_variants
@needs_helper
@pytest.mark.parametrize("length", [None, 1, 13, 1000])
def test_both_loops_and_any_slice_give_the_same(monkeypatch: pytest.MonkeyPatch, length: int | None) -> None:
    fast, _ = run(monkeypatch, "fast", slice=length)
    gate, _ = run(monkeypatch, "gate")
    assert fast.fingerprint() == gate.fingerprint()
    assert fast.machine.save().devices == gate.machine.save().devices  # the last latch is half read


@needs_helper
def test_few_accesses_reach_python(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, reached = run(monkeypatch, "fast")
    assert fast.machine.executor.retired > 6000
    assert reached.count(0x80) == 1  # its read
    assert reached.count(0x40) < 80
    _, all_of_them = run(monkeypatch, "gate")
    assert all_of_them.count(0x80) == 1001
    assert all_of_them.count(0x40) == 1003


@needs_helper
def test_traced_accesses_all_reach_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2E_ENGINE", "fast")
    made, seen = debugger(rom(BODY)), []
    made.machine.ports.trace = lambda port, size, value, is_write: seen.append(port)
    made.set_limit(10_000_000)
    made.begin_continue()
    assert made.run().kind is StopKind.EXIT
    assert seen.count(0x80) == 1001
    assert made.fingerprint() == run(monkeypatch, "gate")[0].fingerprint()


def shared_pit(count: int = 1000) -> tuple[VirtualTime, SharedPorts, Pit8254]:
    time, shared = VirtualTime(), SharedPorts()
    pit = Pit8254(time.clock, lambda level: None, shared)
    for port, value in ((3, 0x34), (0, count & 0xFF), (0, count >> 8)):
        pit.write(port, value, 1)
    time.advance(10_000)
    pit.write(3, 0, 1)
    return time, shared, pit


def test_a_latch_half_read_by_an_engine_is_seen_by_the_device() -> None:
    _, shared, pit = shared_pit()
    assert (shared.ready, shared.left) == (1, 2)
    count = shared.latch
    shared.left = 1
    latched = pit.save().counters[0]
    assert (latched.latch, latched.latch_left, latched.read_high) == (count, 1, True)
    assert pit.read(0, 1) == count >> 8
    assert pit.save().counters[0].latch is None


@pytest.mark.parametrize("control", [0x30, 0x36, 0x14, 0x24, 0x35])
def test_only_a_binary_rate_generator_of_two_bytes_is_shared(control: int) -> None:
    time, shared, pit = shared_pit()
    assert shared.ready
    pit.write(3, control, 1)
    for _ in range(2):
        pit.write(0, 0x12, 1)
    time.advance(10_000)
    pit.read(0, 1)
    assert not shared.ready


def test_a_count_not_loaded_yet_and_a_latched_status_are_the_devices() -> None:
    time, shared, pit = shared_pit()
    pit.write(0, 5, 1)
    pit.write(0, 0, 1)
    assert not shared.ready  # NULL COUNT
    time.advance(2_000_000)
    pit.write(3, 0xE2, 1)  # read-back: status of counter 0
    assert not shared.ready
    pit.read(0, 1)
    pit.read(0, 1)
    pit.read(0, 1)
    assert shared.ready


def test_skipped_time_is_told() -> None:
    made = debugger(rom(BODY)).machine
    clock, shared = made.clock, made.board.shared_ports
    clock.skip_to(clock.now + 12_345)
    assert shared.skipped == clock.skipped == 12_345
    clock.restore(type(clock.save())(skipped=77))
    assert shared.skipped == 77
    made.close()


#: IRQ 0 is requested while IF is clear, and masked at the 8259 before STI: INTR is low by then, nobody is interrupted.
#: Behind CLI again it is unmasked, and taken behind the next STI. Its handler counts in DI.
MASKED = """
    mov ss, ax
    mov sp, 0x7000
    mov word [8 * 4], handler
    mov word [8 * 4 + 2], 0xf000
    mov di, 0
    mov al, 0x11
    out 0x20, al
    mov al, 8
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    mov al, 0x30
    out 0x43, al
    mov al, 20
    out 0x40, al
    mov al, 0
    out 0x40, al
    mov cx, 2000
    loop $
    mov al, 0xff
    out 0x21, al
    mov cx, 10
    loop $
    sti
    nop
    nop
    mov cx, 200
    loop $
    cli
    mov [0x900], di
    mov al, 0xfe
    out 0x21, al
    sti
    nop
    nop
    cli
    mov [0x902], di
    mov al, 0
    out 0xf4, al
    hlt
handler:
    inc di
    mov al, 0x20
    out 0x20, al
    iret
"""


@needs_helper
@pytest.mark.parametrize("length", [None, 1, 13])
def test_a_request_that_is_masked_before_sti_interrupts_nobody(
    monkeypatch: pytest.MonkeyPatch, length: int | None
) -> None:
    """As on QEMU's and Bochs's PC: INTR follows the mask at once (8259A data sheet, interrupt mask register)."""
    fast, _ = run_reaching(monkeypatch, "fast", MASKED, slice=length)
    assert fast.machine.memory.read(0x900, 4) == b"\0\0\1\0"
    gate, _ = run_reaching(monkeypatch, "gate", MASKED)
    assert fast.fingerprint() == gate.fingerprint()
