"""Sectors and frames moved by REP INSW, INSD, OUTSW and OUTSD: what the engine does of it by itself changes nothing."""

from __future__ import annotations

import functools
import struct
from typing import Any

import pytest

from emu.debugger import Debugger, StopKind
from emu.engine import Access, Watch
from emu.machine import Machine
from emu.media import Disk
from emu.unicorn_engine import UnicornEngine
from emu.views import FingerprintView
from machines import debugger, rom
from reproducible import (
    Guest,
    check_asynchronous_stops,
    check_breakpoints,
    check_flushes,
    check_saving,
    check_slices,
    check_watchpoints,
    run_to,
)
from run_loops import needs_helper

SECTORS = 64
#: Each word of the disk is another one: the number of it.
CONTENT = struct.pack(f"<{SECTORS * 256}H", *range(SECTORS * 256))

#: Reads sectors 1 to 4 under interrupts, whose times it notes at 600h, to 2000h; 8 to 15 in two blocks, in pieces of
#: every size and with other accesses in between, to 3000h; writes 24 sectors' worth of what it has read, in pieces, to
#: 32 and on; and reads one of these again, to 6000h.
GUEST = """
    mov es, ax
    mov ss, ax
    mov sp, 0x7000
    cld
    mov word [0x76 * 4], irq
    mov word [0x76 * 4 + 2], 0xf000
    mov al, 0x11
    out 0x20, al
    out 0xa0, al
    mov al, 8
    out 0x21, al
    mov al, 0x70
    out 0xa1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0x21, al
    out 0xa1, al
    mov al, 0xfb
    out 0x21, al
    mov al, 0xbf
    out 0xa1, al
    mov word [0x5fe], 0x600
    mov byte [0x5f0], 0

    mov di, 0x2000
    mov bx, 0x0104
    mov ah, 0x20
    call command
    mov bp, 4
.sector:
    cli
    cmp byte [0x5f0], 0
    jne .come
    sti
    hlt
    jmp .sector
.come:
    mov byte [0x5f0], 0
    sti
    mov cx, 256
    mov dx, 0x1f0
    rep insw
    dec bp
    jnz .sector

    mov dx, 0x3f6
    mov al, 2
    out dx, al
    mov bx, 0x0004
    mov ah, 0xc6
    call command
    call poll
    mov di, 0x3000
    mov bx, 0x0808
    mov ah, 0xc4
    call command
    mov bp, 2
.block:
    call poll
    mov dx, 0x1f0
    mov cx, 100
    rep insw
    mov cx, 30
    rep insd
    in ax, dx
    stosw
    in al, 0x61
    in eax, dx
    stosd
    mov dx, 0x3f6
    in al, dx
    mov dx, 0x1f0
    mov cx, 428
    rep insd
    mov cx, 5
    rep insw
    dec bp
    jnz .block

    mov si, 0x2000
    mov bx, 0x2008
    mov ah, 0x30
    call command
    mov bp, 8
.out:
    call poll
    mov dx, 0x1f0
    mov cx, 51
    rep outsw
    mov cx, 30
    rep outsd
    lodsw
    out dx, ax
    out 0x80, al
    lodsd
    out dx, eax
    mov cx, 70
    rep outsd
    mov cx, 2
    rep outsw
    dec bp
    jnz .out
    call poll

    mov di, 0x6000
    mov bx, 0x2501
    mov ah, 0x20
    call command
    call poll
    mov dx, 0x1f0
    mov cx, 128
    rep insd
    mov al, 0x55
    out 0xf4, al
    hlt

; AH: the command; BL sectors from BH on
command:
    mov dx, 0x1f2
    mov al, bl
    out dx, al
    inc dx
    mov al, bh
    out dx, al
    inc dx
    mov al, 0
    out dx, al
    inc dx
    out dx, al
    inc dx
    mov al, 0xe0
    out dx, al
    inc dx
    mov al, ah
    out dx, al
    ret

poll:
    mov dx, 0x1f7
.again:
    in al, dx
    test al, 0x80
    jnz .again
    ret

irq:
    push eax
    push ebx
    push edx
    rdtsc
    mov bx, [0x5fe]
    mov [bx], eax
    add word [0x5fe], 4
    mov dx, 0x1f7
    in al, dx
    mov [0x5f0], al
    mov al, 0x20
    out 0xa0, al
    out 0x20, al
    pop edx
    pop ebx
    pop eax
    iret
"""


@functools.cache
def firmware() -> bytes:
    return rom(GUEST)


def make(**config: Any) -> Debugger:
    return debugger(firmware(), disks=(Disk.from_bytes(CONTENT),), **config)


def finish(guest: Debugger) -> None:
    guest.set_until(None)
    guest.set_limit(10_000_000)
    guest.begin_continue()
    stop = guest.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0x55), stop.text


def sectors(first: int, count: int) -> bytes:
    return CONTENT[first * 512 : (first + count) * 512]


def check_data(machine: Machine) -> None:
    assert machine.memory.read(0x2000, 4 * 512) == sectors(1, 4)
    assert machine.memory.read(0x3000, 8 * 512) == sectors(8, 8)
    written = machine.memory.read(0x2000, 8 * 512)
    assert machine.config.disks[0].read(32, 8) == written
    assert machine.memory.read(0x6000, 512) == written[5 * 512 : 6 * 512]


def run(
    monkeypatch: pytest.MonkeyPatch, loop: str, trace: list[tuple[int, int, bool]] | None = None
) -> FingerprintView:
    monkeypatch.setenv("V2E_ENGINE", loop)
    guest = make()
    machine = guest.machine
    assert isinstance(machine.executor, UnicornEngine)
    assert machine.executor.run_loop == loop
    if trace is not None:
        machine.ports.trace = lambda port, size, value, is_write: trace.append((port, size, is_write))
    finish(guest)
    check_data(machine)
    fingerprint = guest.fingerprint()
    machine.close()
    return fingerprint


def test_words_arrive_in_order_in_the_portable_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "gate")


@needs_helper
def test_both_loops_and_a_traced_one_give_the_same_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    trace: list[tuple[int, int, bool]] = []
    fast = run(monkeypatch, "fast")
    assert fast == run(monkeypatch, "gate")
    assert fast == run(monkeypatch, "fast", trace)
    # a trace sees each access: so many words and double-words
    moved = [(size, is_write) for port, size, is_write in trace if port == 0x1F0]
    assert sum(size for size, is_write in moved if not is_write) == (4 + 8 + 1) * 512
    assert sum(size for size, is_write in moved if is_write) == 8 * 512


@needs_helper
def test_few_of_the_words_reach_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2E_ENGINE", "fast")
    guest = make()
    ports, calls = guest.machine.ports, [0]
    port_in, port_out = ports.port_in, ports.port_out

    def counting_in(port: int, size: int) -> int:
        calls[0] += port == 0x1F0
        return port_in(port, size)

    def counting_out(port: int, size: int, value: int) -> None:
        calls[0] += port == 0x1F0
        port_out(port, size, value)

    monkeypatch.setattr(ports, "port_in", counting_in)
    monkeypatch.setattr(ports, "port_out", counting_out)
    finish(guest)
    check_data(guest.machine)
    guest.machine.close()
    # 4 sectors, 2 blocks and 9 sectors; each with its last word, and one more behind each access in between
    assert calls[0] < 60


@pytest.fixture(scope="module")
def reading() -> Guest:
    return Guest(make, finish)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2E_ENGINE", "fast")


def in_fast_loop(test: Any) -> Any:
    return needs_helper(pytest.mark.usefixtures("fast")(test))


@in_fast_loop
@pytest.mark.parametrize("length", [1, 2, 13, 100, 257, 100_000])
def test_the_length_of_slices_changes_nothing(reading: Guest, length: int) -> None:
    check_slices(reading, length)


@in_fast_loop
def test_flushes_change_nothing(reading: Guest) -> None:
    check_flushes(reading, 100)


@pytest.mark.slow
@in_fast_loop
def test_states_taken_in_the_middle_of_a_block_go_on_as_the_run_did(reading: Guest) -> None:
    check_saving(reading, 200)


@in_fast_loop
def test_stops_from_a_thread_change_nothing(reading: Guest) -> None:
    check_asynchronous_stops(reading, 20)


@in_fast_loop
@pytest.mark.parametrize("start", [200, 3000])
def test_breakpoints_stop_where_single_steps_pass(reading: Guest, start: int) -> None:
    check_breakpoints(reading, start, steps=2500, count=20)


@in_fast_loop
def test_watchpoints_on_the_buffers_stop_at_each_word(reading: Guest) -> None:
    watches = (Watch(0x2100, 64, Access.BOTH), Watch(0x3300, 64, Access.WRITE))
    check_watchpoints(reading, 100, watches, count=60)


@in_fast_loop
def test_the_view_in_the_middle_of_a_block_has_what_is_left_of_it(reading: Guest) -> None:
    guest = make()
    machine = guest.machine
    while machine.board.ide._active is None or not 0 < machine.board.ide._active.state.position < 500:
        run_to(guest, machine.executor.retired + 50)
    moved = machine.board.ide._active.state.position
    assert machine.memory.read(0x2000, moved) == sectors(1, 1)[:moved]
    assert machine.executor.state().regs[7] == 0x2000 + moved
    machine.close()


# -- a CD-ROM drive on the second channel

#: TEST UNIT READY, which is told of the reset; READ(10) of frames 5 to 7 in blocks of 1,000 bytes at most to 2000h,
#: INQUIRY, whose answer the byte count splits into 4 and 1, to 5000h. The lengths of the blocks go to 600h.
CD_GUEST = """
    mov es, ax
    mov ss, ax
    mov sp, 0x7000
    cld
    push cs
    pop ds
    mov bx, 0x600
    mov di, 0x2000
    mov si, packet
    mov cx, 1000
    call send
    mov cx, 1000
    call send
    mov di, 0x5000
    mov cx, 4
    call send
    mov al, 0x55
    out 0xf4, al
    hlt

send:
    mov dx, 0x174
    mov al, cl
    out dx, al
    inc dx
    mov al, ch
    out dx, al
    inc dx
    mov al, 0xa0
    out dx, al
    inc dx
    out dx, al
    call poll
    mov dx, 0x170
    mov cx, 6
    rep outsw
.block:
    call poll
    test al, 8
    jz .done
    mov dx, 0x174
    in al, dx
    mov cl, al
    inc dx
    in al, dx
    mov ch, al
    mov [es:bx], cx
    add bx, 2
    inc cx
    shr cx, 1
    mov dx, 0x170
    rep insw
    jmp .block
.done:
    ret

poll:
    mov dx, 0x177
.again:
    in al, dx
    test al, 0x80
    jnz .again
    ret

packet:
    db 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    db 0x28, 0, 0, 0, 0, 5, 0, 0, 3, 0, 0, 0
    db 0x12, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0
"""
FRAMES = struct.pack("<16384H", *range(16384))


def finished_cd(trace: bool = False, **config: Any) -> FingerprintView:
    guest = debugger(rom(CD_GUEST), cdroms=(Disk.from_bytes(FRAMES),), **config)
    machine = guest.machine
    if trace:
        machine.ports.trace = lambda port, size, value, is_write: None
    finish(guest)
    assert machine.memory.read(0x2000, 3 * 2048) == FRAMES[5 * 2048 : 8 * 2048]
    blocks = struct.unpack("<16H", machine.memory.read(0x600, 32))
    assert [length for length in blocks if length] == [1000] * 6 + [144, 4, 1]
    fingerprint = guest.fingerprint()
    machine.close()
    return fingerprint


@needs_helper
def test_packets_and_blocks_of_a_cd_are_the_same_in_both_loops_and_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2E_ENGINE", "gate")
    gate = finished_cd()
    monkeypatch.setenv("V2E_ENGINE", "fast")
    assert [finished_cd(), finished_cd(trace=True), finished_cd(slice=1), finished_cd(slice=97)] == [gate] * 4
