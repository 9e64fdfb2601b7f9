"""Control and inspection of a running machine."""

from __future__ import annotations

import pytest

from asm import assemble
from emu.debugger import BreakKind, Debugger, DebuggerError, Stop, StopKind
from emu.machine import MachineError
from emu.media import Disk
from emu.subject import MemoryUnavailable
from emu.until import parse_until
from machines import TIMER_100US, debugger, rom, seabios_debugger, timer

#: A PIT interrupt every 100 us; the handler counts at 600h. The main loop counts at 500h.
TICKING = rom(
    f"""
    mov ss, ax
    mov sp, 0x7000
    mov word [8*4], tick
    mov word [8*4+2], 0xf000
{TIMER_100US}
    sti
main:
    inc dword [0x500]
    nop
    jmp main
tick:
    push ax
    inc dword [0x600]
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
    """
)

#: The same at the PIT's slowest, 18.2 Hz, and the main loop sleeps.
TICKING_IDLE = rom(
    f"""
    mov ss, ax
    mov sp, 0x7000
    mov word [8*4], tick
    mov word [8*4+2], 0xf000
    {timer(0)}
    sti
main:
    hlt
    jmp main
tick:
    push ax
    inc dword [0x600]
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
    """
)


def cont(session: Debugger) -> Stop:
    session.begin_continue()
    return session.run()


def step(session: Debugger, count: int = 1) -> Stop:
    session.begin_step(count)
    return session.run()


def dword(session: Debugger, address: int) -> int:
    return int.from_bytes(session.read_linear(address, 4), "little")


def test_a_watchpoint_that_is_put_back_before_the_guest_runs_is_the_same_one() -> None:
    session = debugger(TICKING)
    session.add_breakpoint(BreakKind.WRITE, 0x600, 4)
    point = session.add_breakpoint(BreakKind.WRITE, 0x500, 4, owner="gdb")
    assert cont(session).breakpoints == (point.id,)
    session.remove_breakpoint(point.id)
    assert session.put_back(BreakKind.WRITE, 0x500, 4, "prompt") is None
    assert session.put_back(BreakKind.WRITE, 0x500, 4, "gdb") is point
    assert (cont(session).breakpoints, point.hits) == ((point.id,), 2)
    session.remove_breakpoint(point.id)
    step(session)
    assert session.put_back(BreakKind.WRITE, 0x500, 4, "gdb") is None


def test_a_machine_begins_at_the_reset_vector() -> None:
    session = debugger(rom("hlt"))
    assert session.last_stop.kind is StopKind.PAUSED
    assert session.cpu().linear_pc == 0xFFFFFFF0
    assert session.disassemble(count=1)[0].text.startswith("ljmp")


def test_halt_with_interrupts_off_is_a_deadlock_that_says_where() -> None:
    stop = cont(debugger(rom("hlt")))
    assert stop.kind is StopKind.DEADLOCK
    assert "HLT with interrupts off at f000:" in stop.text


def test_the_debug_exit_port_ends_the_run_with_its_code() -> None:
    stop = cont(debugger(rom("mov al, 42\nout 0xf4, al\nhlt")))
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 42)


def test_a_triple_fault_tells_the_chain_of_faults() -> None:
    session = debugger(rom("o32 lidt [cs:idt]\nmov eax, cr0\nor al, 1\nmov cr0, eax\nud2\nhlt", "idt: dw 0\ndd 0"))
    stop = cont(session)
    assert stop.kind is StopKind.SHUTDOWN
    assert [f.vector for f in stop.faults][:1] == [6]
    assert stop.text.startswith("triple fault: #UD at f000:")


def test_a_breakpoint_stops_before_its_instruction_and_continue_goes_past_it() -> None:
    session = debugger(rom("mov cx, 3\nl: inc word [0x500]\nloop l\nmov al, 0\nout 0xf4, al"))
    assert cont_to(session, "inc") == 0
    assert cont_to(session, "inc") == 1
    assert cont_to(session, "inc") == 2
    assert cont(session).kind is StopKind.EXIT


def cont_to(session: Debugger, mnemonic: str) -> int:
    if not session.breakpoint_list():
        address = next(i.linear for i in session.disassemble(0xF0000, 8) if i.text.startswith(mnemonic))
        session.add_breakpoint(BreakKind.EXECUTE, address)
    stop = cont(session)
    assert stop.kind is StopKind.BREAKPOINT
    return dword(session, 0x500)


def test_ignore_counts_are_used_up_before_a_stop() -> None:
    session = debugger(rom("l: inc word [0x500]\njmp l"))
    target = next(i.linear for i in session.disassemble(0xF0000, 8) if i.text.startswith("inc"))
    point = session.add_breakpoint(BreakKind.EXECUTE, target)
    point.ignore = 5
    cont(session)
    assert (dword(session, 0x500), point.hits) == (5, 6)


def test_a_temporary_breakpoint_is_gone_after_its_hit() -> None:
    session = debugger(rom("nop\nnop\nhlt"))
    session.add_breakpoint(BreakKind.EXECUTE, 0xF0003, temporary=True)
    cont(session)
    assert session.breakpoint_list() == ()


def test_a_disabled_breakpoint_does_not_stop() -> None:
    session = debugger(rom("nop\nnop\nmov al, 1\nout 0xf4, al"))
    point = session.add_breakpoint(BreakKind.EXECUTE, 0xF0005)
    session.enable_breakpoint(point.id, False)
    assert cont(session).kind is StopKind.EXIT


@pytest.mark.parametrize(
    ("kind", "code", "expected"),
    [
        (BreakKind.WRITE, "mov ax, [0x500]\nmov word [0x500], 0x1234", ("wrote", 0x1234)),
        (BreakKind.READ, "mov word [0x500], 7\nmov ax, [0x500]", ("read", 7)),
        (BreakKind.ACCESS, "mov word [0x500], 9", ("wrote", 9)),
    ],
)
def test_a_watchpoint_stops_after_the_access_it_watches(kind: BreakKind, code: str, expected: tuple[str, int]) -> None:
    session = debugger(rom(code + "\nhere: hlt"))
    session.add_breakpoint(kind, 0x500, 2)
    stop = cont(session)
    assert stop.kind is StopKind.WATCHPOINT
    assert stop.hit is not None
    assert (stop.text.split(": ")[1].split()[0], stop.hit.value) == expected


def test_a_watch_of_one_byte_sees_a_wider_access_that_covers_it() -> None:
    session = debugger(rom("mov dword [0x500], 0x11223344\nhlt"))
    session.add_breakpoint(BreakKind.WRITE, 0x503, 1)
    assert cont(session).kind is StopKind.WATCHPOINT


@pytest.mark.slow
def test_a_step_that_meets_an_interrupt_runs_through_its_handler() -> None:
    session = debugger(TICKING)
    main = next(i.linear for i in session.disassemble(0xF0000, 40) if i.text.startswith("inc"))
    session.add_breakpoint(BreakKind.EXECUTE, main)
    cont(session)
    session.remove_breakpoint(session.breakpoint_list()[0].id)
    pcs = set()
    while dword(session, 0x600) < 3:
        assert step(session).kind is StopKind.STEP
        pcs.add(session.cpu().linear_pc - main)
    assert pcs <= set(range(9))  # never inside the handler
    assert len(pcs) == 3


def test_stepping_inside_interrupts_when_asked() -> None:
    session = debugger(TICKING)
    session.step_into_interrupts = True
    step(session, 8)
    handler = int.from_bytes(session.read_linear(8 * 4, 2), "little")
    session.set_until(parse_until("insns:9900"))
    cont(session)
    seen = set()
    for _ in range(1000):
        step(session)
        seen.add(session.cpu().rip)
        if handler + 1 in seen:
            break
    assert handler + 1 in seen


def test_stepping_changes_nothing_of_the_run() -> None:
    count = 20_000
    ran, stepped = debugger(TICKING), debugger(TICKING)
    ran.set_until(parse_until(f"insns:{count}"))
    cont(ran)
    while stepped.machine.executor.retired < count - 200:
        step(stepped)
    stepped.set_until(parse_until(f"insns:{count}"))
    cont(stepped)
    assert stepped.fingerprint() == ran.fingerprint()


def test_next_steps_over_a_call_and_over_a_repeated_string() -> None:
    session = debugger(rom("mov ss, ax\nmov sp, 0x7000\ncall f\nmov cx, 5\nrep lodsb\nhlt\nf: inc word [0x500]\nret"))
    seen = []
    for _ in range(9):
        seen.append(session.disassemble(count=1)[0].text.split()[0])
        session.begin_over()
        session.run()
    assert seen == ["ljmp", "cli", "xor", "mov", "mov", "mov", "call", "mov", "rep"]
    assert session.disassemble(count=1)[0].text == "hlt"
    assert dword(session, 0x500) == 1


def test_next_over_a_call_stops_at_a_breakpoint_inside_it() -> None:
    session = debugger(rom("mov ss, ax\nmov sp, 0x7000\ncall f\nhlt\nf: inc word [0x500]\nret"))
    step(session, 6)
    assert session.disassemble(count=1)[0].text.startswith("call")
    target = next(i.linear for i in session.disassemble(count=8) if i.text.startswith("inc"))
    session.add_breakpoint(BreakKind.EXECUTE, target)
    session.begin_over()
    assert session.run().kind is StopKind.BREAKPOINT


def test_next_over_a_recursive_call_stops_in_the_same_frame() -> None:
    session = debugger(
        rom("mov ss, ax\nmov sp, 0x7000\nmov cx, 3\ncall f\nhlt\nf: dec cx\njz out\ncall f\nafter: nop\nout: ret")
    )
    step(session, 9)  # into f: dec, jz, then the inner call
    while not session.disassemble(count=1)[0].text.startswith("call"):
        step(session)
    before = session.cpu().regs[4]
    session.begin_over()
    session.run()
    assert session.cpu().regs[4] == before


def test_a_range_step_leaves_when_the_pc_does() -> None:
    session = debugger(rom("mov cx, 100\nl: loop l\nhlt"))
    step(session, 5)
    loop = session.cpu().linear_pc
    session.begin_range(loop, loop + 2)
    session.run()
    assert session.disassemble(count=1)[0].text == "hlt"
    assert session.cpu().regs[1] & 0xFFFF == 0


def test_a_budget_that_runs_out_is_a_limit_stop() -> None:
    session = debugger(rom("jmp $"))
    session.set_limit(1000)
    stop = cont(session)
    assert (stop.kind, stop.retired) == (StopKind.LIMIT, 1000)


@pytest.mark.parametrize(
    ("spec", "kind"), [("debugcon:^hi$", StopKind.EVENT), ("insns:77", StopKind.EVENT), ("pc:0xf0003", StopKind.EVENT)]
)
def test_events_end_a_run(spec: str, kind: StopKind) -> None:
    session = debugger(rom("nop\nnop\nmov al, 'h'\nout 0xe9, al\nmov al, 'i'\nout 0xe9, al\njmp $"))
    session.set_until(parse_until(spec))
    session.set_limit(100_000)
    assert cont(session).kind is kind


def test_a_console_event_stops_at_the_instruction_that_wrote_its_last_character() -> None:
    session = debugger(rom("mov al, 'h'\nout 0xe9, al\nmov al, 'i'\nout 0xe9, al\nmov al, '!'\nout 0xe9, al\njmp $"))
    session.set_until(parse_until("debugcon:hi"))
    cont(session)
    assert session.machine.debugcon_text() == "hi"


def test_reading_what_is_not_there_names_the_address() -> None:
    session = debugger(rom("hlt"))
    with pytest.raises(MemoryUnavailable) as caught:
        session.read_linear(0xFFFF0, 0x20000)
    assert caught.value.address == 0x100000
    assert session.readable(0xFFFF0, 0x20000) == 0x10


def test_a_debugger_may_write_rom_and_the_guest_may_not() -> None:
    session = debugger(rom("mov bx, 0xf000\nmov ds, bx\nmov byte [0x8000], 0x55\nmov al, [0x8000]\nout 0xf4, al"))
    stop = cont(session)
    assert stop.exit_code == 0xF4  # what the image has there
    session.write_linear(0xF8000, b"\xaa")
    assert session.read_linear(0xF8000, 1) == b"\xaa"


def test_code_written_by_the_debugger_is_executed() -> None:
    session = debugger(rom("mov ax, 0\njmp 0:0x600"))
    session.write_linear(0x600, assemble("bits 16\nmov al, 1\nout 0xf4, al\njmp $"))
    step(session, 5)
    session.write_linear(0x600, assemble("bits 16\nmov al, 9\nout 0xf4, al\njmp $"))
    assert cont(session).exit_code == 9


def test_registers_are_written_as_the_cpu_would_load_them() -> None:
    session = debugger(rom("hlt"))
    session.write_register("ax", 0x1234)
    session.write_register("ds", 0x40)
    assert session.cpu().regs[0] & 0xFFFF == 0x1234
    assert session.cpu().ds.base == 0x400
    with pytest.raises(DebuggerError, match="no register is called 'zork'"):
        session.write_register("zork", 1)


def test_big_real_mode_shows_in_the_segment_table() -> None:
    session = debugger(
        rom(
            "o32 lgdt [cs:gdtr]\nmov eax, cr0\nor al, 1\nmov cr0, eax\nmov bx, 8\nmov ds, bx\n"
            "and al, 0xfe\nmov cr0, eax\nxor bx, bx\nmov ds, bx\nhlt",
            "gdt: dq 0, 0x00cf93000000ffff\ngdtr: dw 15\ndd 0xf0000+gdt",
        )
    )
    cont(session)
    views = {v.name: v for v in session.segments()}
    assert views["ds"].limit == 0xFFFFFFFF
    assert "limit" in views["ds"].differs
    assert views["es"].differs == ()
    assert session.mode().label == "big real"


def test_a_reset_keeps_breakpoints_and_starts_anew() -> None:
    session = debugger(rom("inc word [0x500]\nhlt"))
    session.add_breakpoint(BreakKind.EXECUTE, 0xF0003)
    cont(session)
    session.reset()
    assert session.machine.executor.retired == 0
    assert session.cpu().linear_pc == 0xFFFFFFF0
    assert cont(session).kind is StopKind.BREAKPOINT
    assert dword(session, 0x500) == 0


def test_a_cpu_reset_by_port_92_keeps_memory_and_comes_back_to_the_reset_vector() -> None:
    session = debugger(
        rom(
            "inc word [0x500]\ncmp word [0x500], 2\nje done\nmov al, 1\nout 0x92, al\nhlt\n"
            "done: mov al, 5\nout 0xf4, al"
        )
    )
    assert cont(session).exit_code == 5


def test_a_saved_machine_continues_to_the_same_end() -> None:
    session = debugger(TICKING)
    session.set_until(parse_until("insns:5000"))
    cont(session)
    saved = session.save()
    ends = []
    for _ in range(2):
        session.set_until(parse_until("insns:20000"))
        cont(session)
        ends.append(session.fingerprint())
        session.restore(saved)
    assert ends[0] == ends[1]


def test_typed_keys_reach_the_guest_and_a_replay_repeats_them() -> None:
    code = "mov al, 0xae\nout 0x64, al\nl: in al, 0x64\ntest al, 1\njz l\nin al, 0x60\nout 0xe9, al\njmp l"
    ends = []
    session = debugger(rom(code))
    session.set_until(parse_until("insns:30000"))
    cont(session)
    session.type_text("a")
    session.set_until(parse_until("insns:3000000"))
    cont(session)
    ends.append(session.fingerprint())
    assert session.machine.debugcon_text() != ""
    again = debugger(rom(code))
    again.machine.inputs.replay(session.machine.inputs.records)
    again.set_until(parse_until("insns:3000000"))
    cont(again)
    assert again.fingerprint() == ends[0]


def test_a_step_with_no_breakpoint_set_does_not_let_a_later_one_pass() -> None:
    # What gdb does at each hit: remove, step, set again, continue.
    session = debugger(rom("l: inc word [0x500]\njmp l"))
    target = next(i.linear for i in session.disassemble(0xF0000, 8) if i.text.startswith("inc"))
    for expected in range(4):
        point = session.add_breakpoint(BreakKind.EXECUTE, target)
        assert cont(session).kind is StopKind.BREAKPOINT
        assert dword(session, 0x500) == expected
        session.remove_breakpoint(point.id)
        step(session)


@pytest.mark.parametrize(("kind", "data"), [("keys", "a zork"), ("text", "a\x01")])
def test_keys_that_do_not_exist_are_refused_and_nothing_is_typed(kind: str, data: str) -> None:
    session = debugger(rom("jmp $"))
    before = session.machine.board.keyboard.save()
    with pytest.raises(DebuggerError, match="no key is called"):
        session.press(data) if kind == "keys" else session.type_text(data)
    assert session.machine.board.keyboard.save() == before
    assert session.machine.inputs.records == []


def test_a_loaded_task_register_is_busy_in_the_cache() -> None:
    session = debugger(
        rom(
            "o32 lgdt [cs:gdtr]\nmov eax, cr0\nor al, 1\nmov cr0, eax\nmov bx, 8\nltr bx\nhlt",
            "gdt: dq 0, 0x0000890006000067\ngdtr: dw 15\ndd 0x700",
        )
    )
    session.write_linear(0x708, bytes.fromhex("6700000600890000"))
    cont(session)
    assert (session.cpu().tr.selector, session.cpu().tr.access, session.cpu().tr.base) == (8, 0x8B, 0x600)


def test_next_over_a_call_of_the_next_instruction_stops_there() -> None:
    session = debugger(rom("mov ss, ax\nmov sp, 0x7000\ncall .n\n.n: pop si\nhlt"))
    step(session, 6)
    assert session.disassemble(count=1)[0].text.startswith("call")
    session.begin_over()
    session.run()
    assert session.disassemble(count=1)[0].text == "pop si"


def test_next_over_an_int_whose_service_leaves_the_flags_on_the_stack_comes_back() -> None:
    # INT 25h and 26h of DOS return by RETF.
    session = debugger(
        rom(
            "mov ss, ax\nmov sp, 0x7000\nmov word [0x25*4], service\nmov word [0x25*4+2], 0xf000\nint 0x25\npopf\nhlt",
            "service: retf",
        )
    )
    step(session, 8)
    assert session.disassemble(count=1)[0].text.startswith("int")
    session.begin_over()
    session.run()
    assert session.disassemble(count=1)[0].text == "popf"


MASKED = "mov al, 0xff\nout 0x21, al\nmov al, 0x34\nout 0x43, al\nmov al, 0\nout 0x40, al\nout 0x40, al\nsti\nhlt\n"


@pytest.mark.parametrize("divisor", [0, 2])
def test_a_cpu_that_only_masked_interrupts_could_wake_is_a_deadlock_at_once(divisor: int) -> None:
    session = debugger(rom(MASKED.replace("mov al, 0\nout 0x40", f"mov al, {divisor}\nout 0x40", 1)))
    session.set_limit(1000)
    stop = cont(session)
    assert stop.kind is StopKind.DEADLOCK
    assert "every interrupt is masked" in stop.text
    assert session.machine.clock.now < 1_000_000


@pytest.mark.parametrize("spec", ["text:foo", "serial:foo"])
def test_watching_for_text_keeps_no_dead_guest_alive(spec: str) -> None:
    # Without the PIT's power-on count nothing at all would tick: RTC and PIT are silent.
    session = debugger(rom("mov al, 0x30\nout 0x43, al\nsti\nhlt"))
    session.set_until(parse_until(spec))
    assert cont(session).kind is StopKind.DEADLOCK


def test_text_on_the_screen_is_seen_even_if_the_guest_dies_at_once() -> None:
    session = seabios_text()
    session.set_until(parse_until("text:hello"))
    session.set_limit(50_000_000)
    assert cont(session).kind is StopKind.EVENT


def seabios_text() -> Debugger:
    code = """
        bits 16
        org 0x7c00
        mov ax, 0xb800
        mov es, ax
        mov si, text
        mov di, 160
        mov cx, 5
        next: cs lodsb
        stosb
        inc di
        loop next
        cli
        hlt
        text: db 'hello'
        times 510-($-$$) db 0
        dw 0xaa55
    """
    return seabios_debugger(assemble(code))


@pytest.mark.parametrize("length", [0, (1 << 20) + 1, 1 << 40])
def test_a_watch_too_long_to_follow_is_refused(length: int) -> None:
    session = debugger(rom("hlt"))
    with pytest.raises(DebuggerError, match="cannot be watched: use 1 to 1048576"):
        session.add_breakpoint(BreakKind.WRITE, 0x1000, length)


def test_there_is_nothing_above_4_gib_outside_64_bit_mode() -> None:
    session = debugger(rom("hlt"))
    assert session.readable(0x100000000, 4) == 0
    assert session.readable(0xFFFFFFFC, 8) == 4


def test_reset_tells_the_processor_and_init_keeps_its_fpu() -> None:
    session = debugger(
        rom("cmp word [0x500], 0\njne again\ninc word [0x500]\nfninit\nfld1\nmov al, 1\nout 0x92, al\nhlt\nagain: hlt")
    )
    assert session.cpu().regs[2] == 0x306C4
    assert session.cpu().fpu.fcw == 0x40
    cont(session)
    assert session.cpu().fpu.fcw == 0x37F
    assert session.cpu().fpu.st[0] == 0x3FFF << 64 | 1 << 63


def test_five_disks_are_one_too_many() -> None:
    with pytest.raises(MachineError, match="5 disks and CDs: the two IDE channels take 4 drives"):
        debugger(rom("hlt"), disks=[Disk.from_bytes(bytes(512))] * 5)


def test_an_interrupt_without_an_idt_tells_the_whole_chain() -> None:
    session = debugger(
        rom(
            f"""
            o32 lgdt [cs:gdtr]
            {timer(0)}
            mov eax, cr0
            or al, 1
            mov cr0, eax
            jmp dword 8:0xf0000+pm
            bits 32
            pm: mov bx, 16
            mov ss, bx
            mov ds, bx
            mov esp, 0x7000
            sti
            jmp $
            """,
            "gdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\ngdtr: dw 23\ndd 0xf0000+gdt",
        )
    )
    stop = cont(session)
    assert stop.kind is StopKind.SHUTDOWN
    # The gate of vector 8 is no gate: #GP with IDT and EXT set (SDM vol. 3A, 6.13), whose gate is none either.
    assert [(f.vector, f.code, f.interrupt) for f in stop.faults] == [(13, 8 * 8 + 3, 8), (8, 0, None)]
    assert stop.text.startswith("triple fault: #GP(0x43) in delivering interrupt 0x08 at 0008:")


def test_waiting_for_text_of_an_idle_guest_ends_by_its_budget_and_not_by_patience() -> None:
    looks = 0
    session = debugger(TICKING_IDLE)
    screen = session.machine.screen

    def counted() -> object:
        nonlocal looks
        looks += 1
        return screen()

    session.machine.screen = counted  # type: ignore[method-assign,assignment]
    session.set_until(parse_until("text:never"))
    session.set_limit(2000)
    assert cont(session).kind is StopKind.LIMIT
    ticks = dword(session, 0x600)
    assert ticks > 100
    assert looks <= 2 * ticks


def test_a_watchpoint_set_and_taken_away_between_steps_is_heeded() -> None:
    session = debugger(rom("l: inc dword [0x500]\n jmp l"))
    point = session.add_breakpoint(BreakKind.WRITE, 0x500, 4)
    assert (cont(session).kind, dword(session, 0x500)) == (StopKind.WATCHPOINT, 1)
    session.remove_breakpoint(point.id)
    assert step(session, 4).kind is StopKind.STEP
    point = session.add_breakpoint(BreakKind.WRITE, 0x500, 4)
    assert (cont(session).kind, dword(session, 0x500)) == (StopKind.WATCHPOINT, 4)
    session.enable_breakpoint(point.id, False)
    assert step(session, 2).kind is StopKind.STEP
    session.enable_breakpoint(point.id, True)
    assert (step(session, 2).kind, dword(session, 0x500)) == (StopKind.WATCHPOINT, 6)


def test_watchpoints_change_no_count_of_a_run() -> None:
    plain, watched = debugger(TICKING), debugger(TICKING)
    watched.add_breakpoint(BreakKind.WRITE, 0x900, 4)
    for session in (plain, watched):
        session.set_limit(50_000)
        assert cont(session).kind is StopKind.LIMIT
    assert plain.fingerprint() == watched.fingerprint()


def test_the_cpu_in_place_is_the_one_that_stands_there_after_steps_and_writes() -> None:
    session = debugger(rom("mov eax, 0x11223344\n l: inc eax\n jmp l"))
    for _ in range(4):
        step(session)
        seen = session.cpu_in_place()
        now = (seen.regs[0], seen.linear_pc, seen.cs.selector, seen.cs.limit, seen.halted)
        copy = session.cpu()
        assert now == (copy.regs[0], copy.linear_pc, copy.cs.selector, copy.cs.limit, copy.halted)
    session.write_register("eax", 7)
    assert session.cpu_in_place().regs[0] == 7


def test_reads_and_writes_that_cross_pages_or_leave_memory_are_as_before() -> None:
    session = debugger(rom("jmp $"))
    session.write_linear(0xFFE, b"\1\2\3\4")
    assert session.read_linear(0xFFE, 4) == session.read_linear(0xFFE, 2) + session.read_linear(0x1000, 2)
    end = 1 << 20
    with pytest.raises(MemoryUnavailable) as missing:
        session.write_linear(end + 0x100000 - 2, b"\1\2\3\4")
    assert missing.value.address >= end + 0x100000 - 2


@pytest.mark.parametrize("address", [0x1FFE, 0x9F800, 0xA0800, 0xBF800, 0xEF123, 0xFF800])
@pytest.mark.parametrize("a20", [True, False])
def test_a_write_of_many_pages_is_one_of_each_of_its_bytes(address: int, a20: bool) -> None:
    """With A20 masked what begins below 1 MiB goes on at 0."""
    data = bytes(n % 251 for n in range(0x3001))
    whole, single = debugger(rom("jmp $")), debugger(rom("jmp $"))
    for session in (whole, single):
        state = session.cpu().copy()
        state.a20 = a20
        session.load_cpu(state)
    failed: list[int] = []
    try:
        whole.write_linear(address, data)
    except MemoryUnavailable as missing:
        failed.append(missing.address)
    if not failed:
        for n, byte in enumerate(data):
            single.write_linear(address + n, bytes((byte,)))
    else:
        with pytest.raises(MemoryUnavailable):
            single.write_linear(failed[0], b"\0")
        single.read_linear(failed[0] - 1, 1)
    assert whole.fingerprint() == single.fingerprint()
