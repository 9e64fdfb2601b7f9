"""The vCPU of KVM as the machine sees it: exits, stops, interrupts, memory. Skipped, with the reason, without KVM."""

from __future__ import annotations

import os
import threading
import time

import pytest

from bare_cpu import CODE, ROM, STACK, flat_state, long_state, real_state
from emu.engine import Access as Kind
from emu.engine import Change, ExitReason, Watch
from emu.record import replace
from emu.vcpu import ExitCause, VmExit
from emu.x86.state import RFLAGS_IF, CpuState, Segment
from native_cpu import Native
from xenbridge.kvm.vcpu import INTERRUPTED

BITS = {16: real_state, 32: flat_state, 64: long_state}


def enter(native: Native, budget: int = 1000, deadline: int | None = None, *, skip: bool = False) -> VmExit:
    return native.cpu.enter(budget, deadline, skip_breakpoint=skip)


def run_to_halt(native: Native) -> list[VmExit]:
    """Enter until HLT; the exits before it."""
    exits = []
    for _ in range(1000):
        exit = enter(native)
        if exit.cause is ExitCause.HLT:
            return exits
        exits.append(exit)
        assert exit.cause in (ExitCause.PIO, ExitCause.MMIO), exit
    raise AssertionError("the program did not halt")


@pytest.mark.parametrize("bits", BITS)
def test_port_accesses_reach_the_devices_and_their_values_the_guest(native: Native, bits: int) -> None:
    native.on_in = lambda port, size: 0x11223344 >> 8 * (4 - size)
    source = """
        mov al, 0x55
        out 0x10, al
        in al, 0x11
        mov bl, al
        mov dx, 0x3f8
        in ax, dx
        mov cx, ax
        in eax, dx
        out dx, eax
        hlt
    """
    native.program(source, BITS[bits](native.memory), bits)
    exits = run_to_halt(native)
    state = native.cpu.state()
    assert native.ports == [
        (0x10, 1, 0x55), (0x11, 1, None), (0x3F8, 2, None), (0x3F8, 4, None), (0x3F8, 4, 0x11223344),
    ]  # fmt: skip
    assert [(e.cause, e.address, e.write) for e in exits] == [
        (ExitCause.PIO, port, value is not None) for port, _, value in native.ports
    ]
    assert (state.regs[3] & 0xFF, state.regs[1] & 0xFFFF, state.regs[0] & 0xFFFFFFFF) == (0x11, 0x1122, 0x11223344)
    assert state.halted and native.cpu.halted


@pytest.mark.parametrize("bits", BITS)
def test_the_state_behind_an_input_has_its_value(native: Native, bits: int) -> None:
    """KVM completes an IN when it runs again: who looks before must see it completed all the same."""
    native.on_in = lambda port, size: 0x77
    native.program("in al, 0x11\nhlt", BITS[bits](native.memory), bits)
    assert enter(native).cause is ExitCause.PIO
    state = native.cpu.state()
    assert (state.regs[0] & 0xFF, state.rip) == (0x77, CODE + 2)
    assert enter(native).cause is ExitCause.HLT
    assert native.ports == [(0x11, 1, None)], "the access was made once"


@pytest.mark.parametrize("bits", BITS)
def test_string_input_fills_memory_and_string_output_takes_it(native: Native, bits: int) -> None:
    bytes_in = iter(range(1, 100))
    native.on_in = lambda port, size: next(bytes_in) | next(bytes_in) << 8
    source = """
        cld
        mov edi, 0x2000
        mov ecx, 5
        mov dx, 0x1f0
        rep insw
        mov esi, 0x2000
        mov ecx, 3
        rep outsw
        hlt
    """
    native.program(source, BITS[bits](native.memory), bits)
    run_to_halt(native)
    assert native.memory.read(0x2000, 11) == bytes(range(1, 11)) + b"\0"
    assert native.ports == [(0x1F0, 2, None)] * 5 + [(0x1F0, 2, 0x0201), (0x1F0, 2, 0x0403), (0x1F0, 2, 0x0605)]
    assert native.cpu.state().regs[1] & 0xFFFF == 0


@pytest.mark.parametrize("bits", (32, 64))
def test_memory_of_devices_is_read_and_written(native: Native, bits: int) -> None:
    native.on_read = lambda address, size: 0x8877665544332211 & (1 << 8 * size) - 1
    state = BITS[bits](native.memory)
    at = 0x300000 if bits == 64 else 0xD0000000
    if bits == 64:
        native.memory.write(0x100000 + 0x3000 + 8 * (at >> 12), (0xD0000003).to_bytes(8, "little"))
    source = f"""
        mov ebx, {at:#x}
        mov eax, [ebx + 4]
        mov [ebx], al
        mov word [ebx + 8], 0x1234
        add dword [ebx + 12], 1
        hlt
    """
    native.program(source, state, bits)
    exits = run_to_halt(native)
    assert native.mmio == [
        (0xD0000004, 4, None), (0xD0000000, 1, 0x11), (0xD0000008, 2, 0x1234), (0xD000000C, 4, None),
        (0xD000000C, 4, 0x44332212),
    ]  # fmt: skip
    assert {e.cause for e in exits} == {ExitCause.MMIO}
    assert native.cpu.state().regs[0] & 0xFFFFFFFF == 0x44332211


def test_rom_is_read_and_keeps_what_it_has(native: Native) -> None:
    native.program(f"mov dword [{ROM:#x}], 0\nmov eax, [{ROM:#x}]\nhlt", flat_state(native.memory), 32)
    run_to_halt(native)
    assert native.cpu.state().regs[0] == int.from_bytes(b"ROM!", "little")
    assert native.memory.read(ROM, 4) == b"ROM!" and not native.mmio


@pytest.mark.parametrize("bits", BITS)
def test_an_msr_is_the_emulators_and_nothing_of_the_instruction_has_happened(native: Native, bits: int) -> None:
    if not native.backend.msr_exits:
        pytest.skip("this KVM does not exit for MSRs")
    native.program("mov ecx, 0x1b\nrdmsr\nhlt", BITS[bits](native.memory), bits)
    exit = enter(native)
    state = native.cpu.state()
    assert exit.cause is ExitCause.REFUSED and exit.before and "RDMSR of 0x1b" in exit.detail
    assert native.memory.read(state.rip, 2) == b"\x0f\x32" and state.regs[1] == 0x1B and state.regs[0] == 0
    # Who goes on behind it is not met by what KVM had to complete.
    state.rip += 2
    state.regs[0] = 0xFEE00900
    native.cpu.load(state)
    assert enter(native).cause is ExitCause.HLT
    assert native.cpu.state().regs[0] == 0xFEE00900


def test_an_instruction_that_kvm_cannot_execute_is_left_untouched(native: Native) -> None:
    if 16 not in dict(native.backend.refuses).get("x87", ()):
        pytest.skip("this KVM executes x87 instructions")
    native.program("mov ax, 1\nfld1\nhlt", real_state(), 16)
    exit = enter(native)
    assert exit.cause is ExitCause.REFUSED and exit.before and exit.detail.startswith("the instruction d9 e8")
    assert native.cpu.linear_pc == CODE + 3 and native.cpu.state().regs[0] == 1


def test_a_triple_fault_is_left_to_the_emulator_which_knows_its_faults(native: Native) -> None:
    state = flat_state(native.memory)
    state.idtr.limit = 0
    native.program("mov ax, 1\nud2", state, 32)
    exit = enter(native)
    if exit.stop is not None:
        assert exit.stop.reason is ExitReason.SHUTDOWN  # SVM has lost the state
    else:
        assert exit.cause is ExitCause.REFUSED and exit.before
        assert native.cpu.linear_pc == CODE + 4


# -- stops


@pytest.mark.parametrize("bits", BITS)
def test_a_step_executes_one_instruction_and_is_counted(native: Native, bits: int) -> None:
    if bits not in native.backend.steps:
        pytest.skip("this KVM does not single-step here")
    native.program("mov eax, 1\nmov ebx, 2\nout 0x10, al\nhlt", BITS[bits](native.memory), bits)
    length = 6 if bits == 16 else 5
    for n in (1, 2):
        exit = enter(native, 1)
        assert exit.stop is not None and exit.stop.reason is ExitReason.BUDGET
        assert native.cpu.linear_pc == CODE + n * length and native.cpu.retired == n
    assert enter(native, 1).cause is ExitCause.PIO
    assert native.cpu.state().rip == CODE + 2 * length + 2 and native.cpu.retired == 3


def test_a_step_is_not_counted_before_it_is_made(native: Native, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy host the signal that has KVM_RUN look around may come first, and this process be away for long."""
    if 16 not in native.backend.steps:
        pytest.skip("this KVM does not single-step here")
    native.program("nop\nnop\nhlt", real_state(native.memory), 16)
    monotonic, run, away, left = time.monotonic_ns, native.cpu._cpu.run, 0, 3

    def interrupted() -> int:
        nonlocal away, left
        if left:
            away, left = away + 1_000_000_000, left - 1
            return INTERRUPTED
        return run()

    monkeypatch.setattr(time, "monotonic_ns", lambda: monotonic() + away)
    monkeypatch.setattr(native.cpu._cpu, "run", interrupted)
    for n in (1, 2):
        exit = enter(native, 1)
        assert exit.stop is not None and exit.stop.reason is ExitReason.BUDGET
        assert (native.cpu.linear_pc, native.cpu.retired) == (CODE + n, n)


@pytest.mark.parametrize("bits", BITS)
def test_breakpoints_stop_before_their_instruction(native: Native, bits: int) -> None:
    if bits not in native.backend.breaks:
        pytest.skip("this KVM does not stop at hardware breakpoints here")
    native.program("nop\nnop\nagain: inc ecx\nnop\njmp again", BITS[bits](native.memory), bits)
    native.cpu.set_breakpoints((CODE + 1, CODE + 2))
    for at, count in ((1, 0), (2, 0), (2, 1), (2, 2)):
        exit = enter(native, skip=True)
        assert exit.stop is not None and exit.stop.reason is ExitReason.BREAKPOINT
        assert native.cpu.linear_pc == CODE + at and native.cpu.state().regs[1] == count


def test_stops_that_the_cpu_has_no_means_for_keep_it_emulated(native: Native) -> None:
    cpu = native.cpu
    cpu.set_breakpoints(range(4))
    assert cpu.unable() == "" or not native.backend.breaks_everywhere
    cpu.set_breakpoints(range(5))
    assert cpu.unable() == "5 breakpoints are set and the CPU has 4"
    cpu.set_breakpoints(())
    cpu.set_watchpoints((Watch(0, 1, Kind.WRITE),))
    assert "watchpoints" in cpu.unable()
    cpu.set_watchpoints(())
    cpu.set_event_stops(0, (), Change.MODE)
    assert "modes" in cpu.unable()
    cpu.set_event_stops(0, (), Change.NONE)
    assert cpu.unable() == ""


def test_a_stop_asked_for_by_another_thread_ends_a_loop(native: Native) -> None:
    native.program("again: inc ecx\njmp again", real_state(), 16)
    threading.Timer(0.05, native.cpu.request_stop).start()
    begun = time.monotonic()
    exit = enter(native)
    assert exit.stop is not None and exit.stop.reason is ExitReason.REQUEST
    assert time.monotonic() - begun < 5
    assert native.cpu.state().regs[1] > 0, "it ran until then"
    # and the request is spent
    exit = enter(native, deadline=2_000_000)
    assert exit.stop is not None and exit.stop.reason is ExitReason.BUDGET


def test_a_stop_asked_for_before_ends_the_next_run_at_once(native: Native) -> None:
    native.program("again: inc ecx\njmp again", real_state(), 16)
    native.cpu.request_stop()
    exit = enter(native)
    assert exit.stop is not None and exit.stop.reason is ExitReason.REQUEST
    assert native.cpu.state().regs[1] == 0


def test_a_deadline_ends_a_loop_and_the_time_is_told(native: Native) -> None:
    native.program("again: inc ecx\njmp again", real_state(), 16)
    exit = enter(native, deadline=30_000_000)
    assert exit.stop is not None and exit.stop.reason is ExitReason.BUDGET
    assert 30_000_000 <= exit.elapsed < 5_000_000_000


# -- interrupts


@pytest.mark.parametrize("bits", BITS)
def test_an_interrupt_waits_for_if_and_is_delivered_once(native: Native, bits: int) -> None:
    handler = 0x1800
    vector = 0x20
    size = 16 if bits == 64 else 8
    gate = handler | {32: 8, 64: 0x18}.get(bits, 0) << 16 | (0x8E00 << 32 if bits > 16 else 0)
    at = 4 * vector if bits == 16 else 0x4000 + size * vector
    native.memory.write(at, gate.to_bytes(4 if bits == 16 else size, "little"))
    state = BITS[bits](native.memory)
    if bits > 16:
        state.idtr.base, state.idtr.limit = 0x4000, 0xFFF
    native.program("cli\nnop\nout 0x10, al\nsti\nnop\nagain: jmp again", state, bits)
    native.memory.write(handler, b"\xe6\x20\xf4")  # out 0x20, al; hlt
    native.cpu.set_interrupt(vector)
    assert enter(native).address == 0x10
    assert native.cpu.take_interrupt() is None, "IF was clear"
    exit = enter(native)
    assert exit.address == 0x20 and exit.stop is not None, "the controller is to be told"
    assert native.cpu.take_interrupt() == vector and native.cpu.take_interrupt() is None
    state = native.cpu.state()
    assert not state.rflags & RFLAGS_IF
    returns = native.memory.read(state.ss.base + state.regs[4] & 0xFFFFFFFF, 2)
    assert int.from_bytes(returns, "little") in range(CODE + 3, CODE + 8)
    assert enter(native).cause is ExitCause.HLT


def test_an_interrupt_wakes_a_halted_cpu(native: Native) -> None:
    native.memory.write(4 * 0x20, (0x1800).to_bytes(4, "little"))
    native.program("sti\nhlt\nout 0x10, al", real_state(), 16)
    native.memory.write(0x1800, b"\xcf")
    assert enter(native).cause is ExitCause.HLT and native.cpu.halted
    exit = enter(native)
    assert exit.stop is not None and exit.stop.reason is ExitReason.HALT, "nothing wakes it"
    native.cpu.set_interrupt(0x20)
    exit = enter(native)
    assert exit.address == 0x10 and native.cpu.take_interrupt() == 0x20 and not native.cpu.halted


def test_an_interrupt_that_was_not_delivered_yet_is_still_asked_for(native: Native) -> None:
    """Who takes the state between injection and delivery gets one in which nothing of it has happened."""
    state = real_state()
    state.rflags |= RFLAGS_IF
    native.program("again: jmp again", state, 16)
    native.cpu.set_interrupt(0x20)
    assert native.cpu._inject()
    taken = native.cpu.state()
    assert (taken.rip, taken.regs[4]) == (CODE, STACK) and native.cpu.take_interrupt() is None
    assert native.cpu._vector == 0x20
    native.cpu._cpu.finish(lambda reason: None)
    assert not native.cpu._cpu.injected


@pytest.mark.parametrize("before", [{"shadow": True}, {"nmi_blocked": True}], ids=str)
def test_an_interrupt_comes_to_its_handler_whatever_the_state_before_had(
    native: Native, before: dict[str, bool]
) -> None:
    """Pending events are given to KVM with what is injected into it: an order in which one undoes the other loses an
    interrupt that the controller has acknowledged."""
    state = real_state()
    native.program("nop\nout 0x10, al\nhlt", replace(state, **before), 16)
    if "shadow" not in before:
        assert enter(native).address == 0x10
    state.rflags |= RFLAGS_IF
    native.memory.write(4 * 0x20, (0x1800).to_bytes(4, "little"))
    native.memory.write(0x1800, b"\xe6\x20")  # out 0x20, al
    native.cpu.load(state)
    native.cpu.set_interrupt(0x20)
    exit = enter(native)
    assert (exit.address, native.cpu.take_interrupt()) == (0x20, 0x20)


def test_an_interrupt_that_takes_the_place_of_another_comes_to_its_handler(native: Native) -> None:
    state = real_state()
    state.rflags |= RFLAGS_IF
    for vector in (0x20, 0x21):
        native.memory.write(4 * vector, (0x1800 + vector).to_bytes(4, "little"))
        native.memory.write(0x1800 + vector, b"\xe6" + bytes((vector,)) + b"\xf4")  # out vector, al; hlt
    native.program("out 0x10, al\nhlt", state, 16)
    native.cpu.set_interrupt(0x20)
    assert native.cpu._inject()
    native.cpu.set_interrupt(0x21)
    exit = enter(native)
    assert (exit.address, native.cpu.take_interrupt()) == (0x21, 0x21)


def test_an_interrupt_that_is_withdrawn_before_kvm_has_run_never_comes(native: Native) -> None:
    state = real_state()
    state.rflags |= RFLAGS_IF
    native.memory.write(4 * 0x20, (0x1800).to_bytes(4, "little"))
    native.memory.write(0x1800, b"\xe6\x20")
    native.program("out 0x10, al\nhlt", state, 16)
    native.cpu.set_interrupt(0x20)
    assert native.cpu._inject()
    native.cpu.set_interrupt(None)
    native.cpu.load(native.cpu.state())
    assert enter(native).address == 0x10 and native.cpu.take_interrupt() is None


HANDLER = 0x1800


def interrupted_loop(native: Native) -> None:
    """CX counts the rounds of a loop at CODE, BX the interrupts; one is asked for, a breakpoint is at CODE."""
    if 16 not in native.backend.breaks:
        pytest.skip("this KVM does not stop at hardware breakpoints here")
    native.memory.write(4 * 0x20, HANDLER.to_bytes(4, "little"))
    native.memory.write(HANDLER, b"\x43\xcf")  # inc bx; iret
    state = real_state()
    state.rflags |= RFLAGS_IF
    native.program("again: inc cx\nnop\njmp again", state, 16)
    native.cpu.set_breakpoints((CODE,))
    native.cpu.set_interrupt(0x20)


def met(native: Native, exit: VmExit) -> tuple[int, int, int]:
    """The breakpoint at which it stopped, and how many rounds and interrupts there have been."""
    if exit.cause is ExitCause.INTERRUPT:  # the look at its state came between the interrupt and the breakpoint
        exit = enter(native)
    assert exit.stop is not None and exit.stop.reason is ExitReason.BREAKPOINT, exit
    state = native.cpu.state()
    return native.cpu.linear_pc, state.regs[1], state.regs[3]


def test_a_breakpoint_that_is_resumed_from_is_not_met_again_behind_an_interrupt(native: Native) -> None:
    interrupted_loop(native)
    assert met(native, enter(native, skip=True)) == (CODE, 1, 1), "it has come round"
    assert native.cpu.take_interrupt() == 0x20
    # An interrupt before any other instruction than that comes first, and then the breakpoint is arrived at.
    native.cpu.set_interrupt(0x20)
    assert met(native, enter(native)) == (CODE, 1, 2)
    assert native.cpu.take_interrupt() == 0x20


def test_a_breakpoint_in_the_handler_is_met_on_the_way(native: Native) -> None:
    interrupted_loop(native)
    native.cpu.set_breakpoints((CODE, HANDLER + 1))
    assert met(native, enter(native, skip=True)) == (HANDLER + 1, 1, 1)
    assert native.cpu.take_interrupt() == 0x20
    assert met(native, enter(native, skip=True)) == (CODE, 1, 1)


def test_one_that_the_emulator_was_interrupted_before_is_passed_once(native: Native) -> None:
    interrupted_loop(native)
    cpu = native.cpu
    cpu.set_interrupt(None)
    state = cpu.state()
    state.rip, state.regs[4] = HANDLER, STACK - 6
    native.memory.write(STACK - 6, CODE.to_bytes(2, "little") + bytes(2) + b"\x02\x02")
    cpu.load(state)
    cpu.resume((CODE, STACK, False))
    assert cpu.resuming == (CODE, STACK, False)
    assert met(native, enter(native)) == (CODE, 1, 1), "passed behind IRET, and met a round later"
    assert cpu.resuming is None
    cpu.load(state)
    cpu.resume((CODE, STACK - 2, False))
    assert met(native, enter(native)) == (CODE, 0, 1), "with another stack it is another arrival"


def test_an_nmi_is_the_emulators(native: Native) -> None:
    native.program("again: jmp again", real_state(), 16)
    native.cpu.raise_nmi()
    exit = enter(native)
    assert exit.cause is ExitCause.REFUSED and native.cpu.state().nmi_pending


# -- memory


def test_with_a20_masked_the_second_mebibyte_is_the_first(native: Native) -> None:
    state = real_state()
    state.ds = Segment(0xFFFF, 0xFFFF0, 0xFFFF, 0x93)
    native.memory.write(0x500, b"\x11\x22")
    native.memory.write(0x100500, b"\x33\x44")
    native.program("mov ax, [0x510]\nmov [0x512], ax\nout 0x10, ax\njmp $$", state, 16)
    for a20, read in ((True, 0x4433), (False, 0x2211), (True, 0x4433)):
        native.cpu.set_a20(a20)
        assert enter(native).address == 0x10
        assert native.ports[-1] == (0x10, 2, read)
        at = 0x100502 if a20 else 0x502
        assert native.memory.read(at, 2) == read.to_bytes(2, "little")


def test_pages_written_natively_are_told_and_others_are_not(native: Native) -> None:
    native.program("mov byte [0x5123], 1\nmov byte [0x9000], 2\nmov al, [0xa000]\nhlt", real_state(), 16)
    assert tuple(native.cpu.take_written() or ()) == ()
    run_to_halt(native)
    assert native.cpu.take_written() == [5, 9]
    assert tuple(native.cpu.take_written() or ()) == ()


def test_page_tables_written_by_others_take_effect(native: Native) -> None:
    native.memory.write(0x200000, b"\x11")
    native.memory.write(0x201000, b"\x22")
    native.program("again: mov al, [0x200000]\nout 0x10, al\njmp again", long_state(native.memory), 64)
    for page, value in ((0x200000, 0x11), (0x201000, 0x22), (0x200000, 0x11)):
        native.memory.write(0x100000 + 0x3000 + 8 * 0x200, (page | 3).to_bytes(8, "little"))
        assert enter(native).address == 0x10 and native.ports[-1] == (0x10, 1, value)


def test_the_time_stamp_counter_goes_on_from_the_machines_where_it_can_be_set(
    native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(native.cpu._cpu, "try_msr", lambda number, value: given.append((number, value)))
    native.cpu.backend = replace(native.backend, sets_tsc=True)
    native.time = 5000
    state = real_state()
    state.msrs[0x3B] = 100
    native.cpu.load(state)
    assert given == [(0x10, 5100)] and native.cpu.time_stamp() == 5100


@pytest.mark.parametrize("bits", BITS)
def test_a_counter_that_cannot_be_set_is_counted_on_from(native: Native, bits: int) -> None:
    """What the guest read natively is never above what the emulator gives next."""
    native.cpu.backend = replace(native.backend, sets_tsc=False)
    native.program("rdtsc\nhlt", BITS[bits](native.memory), bits)
    assert enter(native).cause is ExitCause.HLT
    native.time = 12345
    state = native.cpu.state()
    seen = state.regs[0] & 0xFFFFFFFF | (state.regs[2] & 0xFFFFFFFF) << 32
    given = native.time + state.msrs[0x3B] & (1 << 64) - 1
    assert seen <= given < seen + (1 << 40)
    assert given <= native.cpu.time_stamp()


# -- an end


def test_a_kvm_that_vanishes_leaves_the_state_and_says_so_once(native: Native) -> None:
    native.program("mov al, 7\nout 0x10, al\nagain: jmp again", real_state(), 16)
    assert enter(native).cause is ExitCause.PIO
    native.cpu.state()
    os.close(native.cpu._cpu.fd)
    native.cpu._cpu.fd = os.open("/dev/null", os.O_RDWR)
    exit = enter(native)
    assert exit.cause is ExitCause.ENTRY_FAILED and "KVM is gone" in exit.detail
    state = native.cpu.state()
    assert state.regs[0] & 0xFF == 7 and state.rip == CODE + 4
    assert native.cpu.unable() and native.cpu.refused(CpuState()) and not native.cpu.enterable(CpuState())
