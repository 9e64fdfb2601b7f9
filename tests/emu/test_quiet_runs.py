"""Quiet runs to watchpoints, and quiet stores: what C does for a debugger's client is what Python does."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial

import pytest

from asm import assemble
from emu.catches import Catch, CatchKind
from emu.debugger import BreakKind, Debugger, Stop
from emu.stops import Condition
from emu.unicorn_engine import HELPER
from emu.worker import Worker
from machines import TIMER_100US, debugger, rom, seabios_debugger, timer
from quietly import ANY, ENDED, MET, REFUSED, STEP, TAKE, begin, look, put, run_plainly, run_quietly, same, step_plainly

pytestmark = pytest.mark.skipif(isinstance(HELPER, str), reason="the helper was not built here")

#: Accesses of every kind to 500h to 50Fh and the stack at 6FF0h: single, across their edges, two in an instruction,
#: repeated, by a port's string instruction, in the delivery of faults and of a timer's interrupts; HLT; ports.
BUSY = rom(
    f"""
    mov es, ax
    mov ss, ax
    mov sp, 0x7000
    mov word [0*4], divided
    mov word [0*4+2], 0xf000
    mov word [8*4], tick
    mov word [8*4+2], 0xf000
    mov word [0x40*4], called
    mov word [0x40*4+2], 0xf000
{TIMER_100US}
    sti
main:
    inc dword [0x500]
    mov al, [0x503]
    mov [0x4ff], ax
    mov [0x50f], eax
    mov [0x510], eax
    mov [0x4fe], ax
    mov di, 0x502
    mov cx, 5
    rep stosw
    mov si, 0x500
    mov di, 0x501
    mov cx, 3
    rep movsb
    push word [0x504]
    pop word [0x506]
    lock xadd [0x508], eax
    in al, 0x61
    mov dx, 0x80
    mov si, 0x505
    outsb
    mov dx, 0x61
    mov di, 0x509
    insb
    int 0x40
    xor dx, dx
    mov bx, dx
    div bx
    test byte [0x600], 3
    inc word [0x600]
    jnz main
    hlt
    jmp main
divided:
    push bp
    mov bp, sp
    add word [bp+2], 2
    pop bp
    iret
called:
    enter 4, 2
    leave
    iret
tick:
    push ax
    inc dword [0x504]
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
    """
)


#: Of the page at 5000h.
ENTRY = (BreakKind.WRITE, 0x3014, 4)


def watched(firmware: bytes, *points: tuple[BreakKind, int, int], **config: object) -> Debugger:
    session = debugger(firmware, **config)
    for kind, address, length in points:
        session.add_breakpoint(kind, address, length)
    run_plainly(session)  # they are placed
    return session


WATCHES = {
    "one": ((BreakKind.WRITE, 0x500, 4),),
    "reads": ((BreakKind.READ, 0x504, 2),),
    "three": ((BreakKind.WRITE, 0x500, 4), (BreakKind.ACCESS, 0x502, 8), (BreakKind.READ, 0x503, 1)),
    "twice": ((BreakKind.ACCESS, 0x500, 16), (BreakKind.ACCESS, 0x500, 16)),
    "stack": ((BreakKind.WRITE, 0x6FF0, 16),),
    "all": ((BreakKind.ACCESS, 0, 0x8000),),
    "edge": ((BreakKind.ACCESS, 0, 1), (BreakKind.WRITE, 0x1000, 0x1000), (BreakKind.WRITE, 0xFFFF, 2)),
}


@pytest.mark.parametrize("points", WATCHES)
@pytest.mark.parametrize(("piece", "config"), [(1, {}), (7, {"slice": 5}), (256, {})])
def test_quiet_runs_leave_what_plain_runs_leave(points: str, piece: int, config: dict[str, object]) -> None:
    plain, quiet = (watched(BUSY, *WATCHES[points], **config) for _ in range(2))
    came = run_quietly(quiet, 0, piece)
    for _ in range(4):
        run_plainly(plain, 150)
        came += run_quietly(quiet, 150, piece)
        same(plain, quiet)
    # A slice of five instructions ends most runs before a hit.
    assert came[MET] + (came[ENDED] if config else 0) > (20 if points == "edge" else 200)


@pytest.mark.parametrize("run", [1, 2, 3, 12])
def test_so_they_do_however_short_the_first_piece_is(run: int) -> None:
    plain, quiet = (watched(BUSY, *WATCHES["three"]) for _ in range(2))
    run_plainly(plain, 300)
    came = run_quietly(quiet, 300, 50, run=run)
    same(plain, quiet)
    assert came[ENDED] > 0


def test_so_they_do_in_seabios() -> None:
    plain, quiet = (seabios_debugger(assemble("hlt")) for _ in range(2))
    for session in (plain, quiet):
        session.add_breakpoint(BreakKind.ACCESS, 0x413, 2)
        session.add_breakpoint(BreakKind.WRITE, 0x400, 0x100)
        run_plainly(session)
    run_plainly(plain, 120)
    came = run_quietly(quiet, 120, 40)
    same(plain, quiet)
    assert came[MET] > 50


def test_a_breakpoint_ends_a_run_as_it_does_a_plain_one_and_is_passed_at_the_next() -> None:
    plain, quiet = (watched(BUSY, (BreakKind.WRITE, 0x500, 4)) for _ in range(2))
    for session in (plain, quiet):
        session.add_breakpoint(BreakKind.EXECUTE, session.cpu().linear_pc + 3)
        session.add_breakpoint(BreakKind.EXECUTE, session.cpu().linear_pc + 6, temporary=True)
        run_plainly(session)
    run_plainly(plain, 60)
    came = run_quietly(quiet, 60, 5)
    same(plain, quiet)
    assert came[ENDED] > 2
    assert came[MET] > 10


def test_a_breakpoint_that_is_ignored_or_has_a_condition_is_passed_over() -> None:
    plain, quiet = (watched(BUSY, (BreakKind.WRITE, 0x500, 4)) for _ in range(2))
    for session in (plain, quiet):
        point = session.add_breakpoint(
            BreakKind.EXECUTE, session.cpu().linear_pc + 3,
            condition=Condition("odd", lambda session=session: session.retired % 2 == 1),
        )  # fmt: skip
        point.ignore = 3
        run_plainly(session)
    run_plainly(plain, 60)
    came = run_quietly(quiet, 60, 5)
    same(plain, quiet)
    assert came[ENDED] > 2


def test_the_guests_own_breakpoint_is_an_exception_still() -> None:
    body = """
        mov ss, ax
        mov sp, 0x7000
        mov word [1*4], debug
        mov word [1*4+2], 0xf000
        mov eax, 0x502
        mov dr0, eax
        mov eax, 0xd0002
        mov dr7, eax
    main:
        inc dword [0x500]
        inc word [0x502]
        inc word [0x508]
        jmp main
    debug:
        inc word [0x504]
        iret
    """
    plain, quiet = (
        watched(rom(body), (BreakKind.WRITE, 0x502, 1), (BreakKind.WRITE, 0x508, 1), (BreakKind.READ, 0x504, 1))
        for _ in range(2)
    )
    run_plainly(plain, 60)
    came = run_quietly(quiet, 60, 60)
    same(plain, quiet)
    assert plain.read_linear(0x504, 2) != bytes(2)
    assert came[MET] > 20


def test_the_guests_own_breakpoint_is_not_met_by_an_instruction_that_faults_behind_a_hit() -> None:
    """DIV reads what both watch, which is 0 (SDM vol. 3B, 17.3.1.2: a data breakpoint is a trap behind its
    instruction)."""
    body = """
        mov ss, ax
        mov sp, 0x7000
        mov word [0*4], divided
        mov word [0*4+2], 0xf000
        mov word [1*4], debug
        mov word [1*4+2], 0xf000
        mov eax, 0x502
        mov dr0, eax
        mov eax, 0x70002
        mov dr7, eax
    main:
        div word [0x502]
        inc word [0x506]
        jmp main
    debug:
        inc word [0x504]
        iret
    divided:
        push bp
        mov bp, sp
        add word [bp+2], 4
        pop bp
        iret
    """
    plain, quiet = (watched(rom(body), (BreakKind.READ, 0x502, 2), (BreakKind.WRITE, 0x506, 2)) for _ in range(2))
    run_plainly(plain, 60)
    came = run_quietly(quiet, 60, 60)
    same(plain, quiet)
    assert plain.read_linear(0x504, 2) == bytes(2)
    assert came[MET] > 20


@pytest.mark.parametrize("points", [((BreakKind.WRITE, 0x5000, 4),), ((BreakKind.WRITE, 0x5000, 4), ENTRY)])
def test_a_guest_that_pages_is_watched_where_its_pages_are(points: tuple[tuple[BreakKind, int, int], ...]) -> None:
    """Behind each write of a page-table entry, which may be watched as well, watchpoints are placed anew."""
    body = """
        lgdt [cs:table]
        mov dword [0x2000], 0x3007
        mov eax, 7
        xor di, di
        mov bx, 0x300
        mov es, bx
        mov cx, 1024
        cld
    fill:
        stosd
        add eax, 0x1000
        loop fill
        mov eax, 0x2000
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000001
        mov cr0, eax
        jmp 8:wide
        bits 32
    wide:
        mov dx, 16
        mov ds, edx
    main:
        inc dword [0x5000]
        nop
        xor dword [0x3000+5*4], 0x3000
        invlpg [0x5000]
        inc dword [0x5000]
        inc dword [0x5000]
        jmp main
    table:
        dw 23
        dd 0xf0000 + gdt
    gdt:
        dq 0
        dw 0xffff, 0, 0x9a0f, 0xcf
        dw 0xffff, 0, 0x9200, 0xcf
    """
    plain, quiet = (watched(rom(body), *points) for _ in range(2))
    run_plainly(plain, 40)
    came = run_quietly(quiet, 40, 40)
    same(plain, quiet)
    assert came[MET] > 10
    assert came[ENDED] > 3


@pytest.mark.parametrize(("port", "values"), [(0x92, (0, 2)), (0x40, (16, 1)), (0x43, (0x34, 0x34)), (0xF4, (0, 7))])
def test_a_device_that_wants_the_run_to_end_too_is_heard(port: int, values: tuple[int, int]) -> None:
    """What is read of watched memory goes to a port: A20, the timer, debug-exit."""
    body = f"""
{TIMER_100US}
        mov byte [0x500], {values[0]}
        mov byte [0x501], {values[1]}
        mov byte [0x502], {values[0]}
        mov dx, {port}
    main:
        mov si, 0x500
        inc word [0x510]
        outsb
        inc word [0x510]
        outsb
        inc word [0x510]
        jmp main
    """
    points = (BreakKind.READ, 0x500, 4), (BreakKind.WRITE, 0x510, 2)
    plain, quiet = (watched(rom(body), *points) for _ in range(2))
    run_plainly(plain, 30)
    run_quietly(quiet, 30, 30)
    same(plain, quiet)


def test_a_device_that_fails_is_heard() -> None:
    plain, quiet = (
        watched(rom("mov si, 0x500\nmov dx, 0x71\nmain:\noutsb\ndec si\njmp main"), (BreakKind.READ, 0x500, 1))
        for _ in range(2)
    )
    for session, run in ((plain, run_plainly), (quiet, partial(run_quietly, piece=30))):
        run(session, 5)
        io = session.machine.cpu_ports
        before, left = io.port_out, [7]

        def fails(port: int, size: int, value: int, *, before=before, left=left) -> None:  # type: ignore[no-untyped-def]
            left[0] -= 1
            if not left[0]:
                raise RuntimeError("broken")
            before(port, size, value)

        io.port_out = fails  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="broken"):
            run(session, 30)
        assert left == [0]


def test_an_interrupt_that_is_taken_in_a_run_is_told_before_the_hit_in_its_delivery() -> None:
    """It has waited for IF."""
    body = f"""
        mov ss, ax
        mov sp, 0x7000
        mov word [8*4], tick
        mov word [8*4+2], 0xf000
{timer(12)}
    main:
        cli
        mov cx, 300
    spin:
        loop spin
        inc word [0x500]
        sti
        nop
        nop
        jmp main
    tick:
        push ax
        mov al, 0x20
        out 0x20, al
        pop ax
        iret
    """
    points = (BreakKind.WRITE, 0x6FF0, 16), (BreakKind.WRITE, 0x500, 2)
    plain, quiet = (watched(rom(body), *points) for _ in range(2))
    run_plainly(plain, 300)
    came = run_quietly(quiet, 300, 30)
    same(plain, quiet)
    assert came[MET] > 50
    assert came[ENDED] > 20


def test_an_interrupt_that_is_due_behind_a_hit_is_taken_first_in_the_next_run() -> None:
    """It has waited for IF, and the hit is in STI's shadow."""
    body = f"""
        mov ss, ax
        mov sp, 0x7000
        mov word [8*4], tick
        mov word [8*4+2], 0xf000
{timer(12)}
    main:
        cli
        mov cx, 300
    spin:
        loop spin
        inc word [0x500]
        sti
        inc word [0x500]
        inc word [0x502]
        jmp main
    tick:
        push ax
        mov al, 0x20
        out 0x20, al
        pop ax
        iret
    """
    hit = (BreakKind.WRITE, 0x500, 2)
    for points in ((hit,), (hit, (BreakKind.WRITE, 0x6FF0, 16)), (hit, (BreakKind.WRITE, 0x502, 2))):
        plain, quiet = (watched(rom(body), *points) for _ in range(2))
        run_plainly(plain, 200)
        came = run_quietly(quiet, 200, 30)
        same(plain, quiet)
        assert came[MET] > 50
        assert came[ENDED] > 20


def test_the_journal_hears_of_a_hit_before_of_what_happens_in_the_next_run() -> None:
    plain, quiet = (watched(BUSY, (BreakKind.WRITE, 0x500, 4)) for _ in range(2))
    run_plainly(plain, 30)
    run_quietly(quiet, 30, 30)
    kinds = [event.kind for event in quiet.events()]
    assert kinds == [event.kind for event in plain.events()]
    assert "stop" in kinds[: kinds.index("exception") + 5]
    retired = [event.retired for event in quiet.events()]
    assert retired == sorted(retired)


def refuses(session: Debugger) -> bool:
    """No run is made quietly now."""
    quiet = session.begin_quiet(2000, ANY)
    assert quiet is not None
    left = quiet.left
    session.end_quiet(False)
    return left <= 0


def test_where_a_hit_is_more_than_a_stop_no_run_is_made() -> None:
    session = watched(BUSY, (BreakKind.WRITE, 0x500, 4))
    (point,) = session.breakpoint_list()
    assert not refuses(session)

    def unset(name: str) -> None:
        setattr(point, name, {"ignore": 0, "temporary": False}.get(name))

    changes: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (lambda: setattr(point, "ignore", 1), lambda: unset("ignore")),
        (lambda: setattr(point, "temporary", True), lambda: unset("temporary")),
        (lambda: setattr(point, "condition", Condition("", lambda: True)), lambda: unset("condition")),
        (lambda: setattr(point, "action", lambda: None), lambda: unset("action")),
        (lambda: session.set_limit(10**9), lambda: session.set_limit(None)),
        (lambda: session.enable_breakpoint(point.id, False), lambda: session.enable_breakpoint(point.id, True)),
    ]
    for change, back in changes:
        change()
        assert refuses(session)
        back()
        run_plainly(session)
        assert not refuses(session)
    quiet = session.begin_quiet(2000, {point.id + 1})
    assert quiet is not None
    assert quiet.left <= 0  # it is somebody else's
    session.end_quiet(False)


@pytest.mark.parametrize(
    "point",
    [
        lambda session: session.add_breakpoint(BreakKind.EXECUTE, 0xF0100),
        lambda session: session.add_breakpoint(BreakKind.WRITE, 0x600, 2),
        lambda session: session.add_breakpoint(BreakKind.EXECUTE, 0xF0100, action=lambda: None, passes=True),
        lambda session: session.add_catch(Catch(CatchKind.COUNT, first=1 << 40, text="")),
        lambda session: session.follow(lambda: True),
    ],
)
def test_what_the_engine_does_not_have_yet_is_for_python_to_place(point: Callable[[Debugger], object]) -> None:
    session = watched(BUSY, (BreakKind.WRITE, 0x500, 4))
    assert not refuses(session)
    point(session)
    assert refuses(session)


def test_close_to_a_look_for_a_storm_no_run_is_made() -> None:
    session = watched(BUSY, (BreakKind.WRITE, 0x500, 4))
    journal = session.machine.journal
    while session.progress.rests(256):
        assert not refuses(session)
        for _ in range(200):
            journal.add(session.retired, "input", "")
    assert refuses(session)


@pytest.mark.slow
def test_storms_are_noticed_behind_quiet_hits_where_they_are_behind_plain_ones() -> None:
    body = """
        mov ss, ax
        mov sp, 0x7000
        mov word [0*4], divided
        mov word [0*4+2], 0xf000
    main:
        xor bx, bx
        div bx
        mov [0x500], ax
        jmp main
    divided:
        add word [0x6ffa], 2
        iret
    """
    plain, quiet = (watched(rom(body), (BreakKind.WRITE, 0x500, 2)) for _ in range(2))
    run_plainly(plain, 50_000)
    came = run_quietly(quiet, 50_000, 256)
    same(plain, quiet)
    assert came[MET] > 45_000


def test_no_run_is_made_where_there_is_no_room_for_its_hit() -> None:
    session = watched(BUSY, (BreakKind.WRITE, 0x500, 4))
    quiet = session.begin_quiet(2000, ANY)
    assert quiet is not None
    at, came = ctypes.addressof(quiet), []
    quiet.hit_room = 3
    for _ in range(5):
        came.append(STEP(quiet.go)(at))
        if came[-1] == MET:
            TAKE(quiet.take)(at)
    assert came == [MET] * 3 + [REFUSED] * 2
    assert quiet.hit_count == 3
    session.end_quiet(False)


def test_a_mode_that_a_run_has_led_to_is_told_with_its_hit() -> None:
    """In protected mode, where the limit of ES is another at every third write."""
    body = """
        lgdt [cs:table]
        mov eax, cr0
        or al, 1
        mov cr0, eax
    main:
        mov bx, 8
        mov es, bx
        inc word [0x500]
        inc word [0x500]
        mov bx, 16
        mov es, bx
        inc word [0x500]
        jmp main
    table:
        dw 23
        dd 0xf0000 + gdt
    gdt:
        dq 0
        dw 0xffff, 0, 0x9200, 0xcf
        dw 0xffff, 0, 0x9200, 0
    """
    session = watched(rom(body), (BreakKind.WRITE, 0x500, 2))
    session.begin_quiet(2000, ANY)  # it has seen the mode
    session.end_quiet(False)
    quiet = session.begin_quiet(2000, ANY)
    assert quiet is not None
    at, told = ctypes.addressof(quiet), []
    for _ in range(2):
        assert STEP(quiet.go)(at) == MET
        TAKE(quiet.take)(at)
        told.append(bool(quiet.moded))
    assert told == [False, True]
    session.end_quiet(False)


# -- stores


@pytest.mark.parametrize(("address", "length"), [(0x500, 4), (0xFFF, 2), (0xF8000, 64), (0xFFFFFFF0, 16), (0, 1)])
def test_a_store_is_one_of_pythons(address: int, length: int) -> None:
    plain, quiet = debugger(BUSY), debugger(BUSY)
    for session in (plain, quiet):
        step_plainly(session, 100)
        session.save()  # from here on writes are marked
    data = bytes(range(1, length + 1))
    plain.write_linear(address, data)
    asked = begin(quiet)
    assert put(asked, address, data)
    assert look(asked, address, length) == data
    quiet.end_quiet(False)
    assert plain.machine.memory.written == quiet.machine.memory.written > 0
    assert plain.save().memory == quiet.save().memory
    same(plain, quiet)


@pytest.mark.parametrize(
    ("address", "length"),
    [(0xA0000, 1), (0x9FFFF, 2), (0xFFFFFFF0, 17), (0xFEE00000, 4), (1 << 32, 1), ((1 << 64) - 1, 1), (0x500, 0)],
)
def test_no_store_is_made_where_it_takes_more_than_memory(address: int, length: int) -> None:
    session = debugger(BUSY)
    before = session.fingerprint()
    quiet = begin(session)
    assert not put(quiet, address, b"x" * length)
    session.end_quiet(False)
    assert session.fingerprint() == before


def test_with_paging_or_without_address_bit_20_no_store_is_made() -> None:
    session = debugger(rom("in al, 0x92\nand al, 0xfd\nout 0x92, al\nhlt"))
    before = session.cpu().copy()
    for change in ({}, {"a20": False}, {"cr0": before.cr0 | 0x80000001}):
        state = before.copy()
        for name, value in change.items():
            setattr(state, name, value)
        session.load_cpu(state)
        quiet = begin(session)
        assert put(quiet, 0x500, b"x") is not bool(change)
        session.end_quiet(False)


def test_a_loop_that_a_store_changes_runs_as_changed() -> None:
    """INC AX becomes INC BX."""
    body = """
        mov byte [0x600], 0x40
        mov dword [0x601], 0x050006ff
        mov word [0x605], 0xf9eb
        jmp 0:0x600
    """
    plain, quiet = (watched(rom(body), (BreakKind.WRITE, 0x500, 2)) for _ in range(2))
    for session in (plain, quiet):
        run_plainly(session, 300)
        count = session.cpu().regs[0]
        if session is plain:
            session.write_linear(0x600, b"\x43")
        else:
            asked = begin(session)
            assert put(asked, 0x600, b"\x43")
            session.end_quiet(False)
        run_plainly(session, 10)
        assert session.cpu().regs[0] == count
        assert session.cpu().regs[3] == 10
    same(plain, quiet)


def test_an_interrupt_before_what_a_quiet_run_has_come_to_is_told_loses_nothing() -> None:
    """One that comes from another thread just as the run is taken over from C."""
    session = debugger(BUSY)
    session.add_breakpoint(BreakKind.WRITE, 0x500, 4)
    run_plainly(session)
    worker = Worker(session)
    worker.start()

    def begun_by_c() -> None:
        quiet = session.begin_quiet(1, ANY)
        assert quiet is not None
        assert STEP(quiet.go)(ctypes.addressof(quiet)) == ENDED
        session.end_quiet(True)

    worker.call(begun_by_c)
    begun = session.retired

    def interrupted(instructions: int, piece: Callable[[int], Stop | None] = worker._piece) -> Stop | None:
        worker._interrupt, worker._piece = True, piece  # type: ignore[method-assign]
        return piece(instructions)

    worker._piece = interrupted  # type: ignore[method-assign]
    try:
        worker.resume(session.begin_continue)
        worker.wait(10)
        assert not session.running
        before = session.retired
        assert before >= begun
        worker.call(worker.step)
        assert session.retired == before + 1
    finally:
        worker.close()
