"""The debugger's actions on a real domain: steps, breakpoints, running on and being stopped."""

import time

import pytest

from emu.inspector import DebuggerError
from emu.stops import BreakKind, Condition, StopKind
from emu.worker import Worker
from machines import booted, sector, until, word
from xenbridge.xen.debugger import DomainDebugger
from xenbridge.xen.domain import TIMER_MODE_PARAM
from xenbridge.xen.guest import BOOT
from xenbridge.xen.running import RunningDomain

LOOP, BEHIND_LOOP, CALL, NEAR, THERE = BOOT + 11, BOOT + 13, BOOT + 15, BOOT + 23, BOOT + 32


@pytest.fixture
def opened(libraries):
    """Makes a debugger of a domain with a sector, or with code in the place of its first bytes."""
    made = []

    def open_(name: str, code: str = ""):
        guest, board = booted(libraries, name)
        if code:
            guest.domain.memory.write(BOOT, bytes.fromhex(code))
        debugger = DomainDebugger(RunningDomain(guest.domain), "a domain of the tests")
        made.append((guest, debugger))
        return guest, board, debugger

    yield open_
    for guest, debugger in made:
        debugger.domain.close()
        guest.close()


def stepped(debugger, count: int = 1):
    debugger.begin_step(count)
    return debugger.run()


def to_breakpoint(debugger):
    debugger.begin_continue()
    return debugger.run()


def test_a_breakpoint_stops_before_its_instruction_and_no_byte_of_memory_is_written(opened) -> None:
    guest, _, debugger = opened("g_steps")
    before = guest.domain.memory.read(BOOT, 512)
    point = debugger.add_breakpoint(BreakKind.EXECUTE, THERE)
    stop = to_breakpoint(debugger)
    assert (stop.kind, stop.linear_pc, stop.breakpoints) == (StopKind.BREAKPOINT, THERE, (point.id,))
    assert (debugger.cpu().cs.selector, debugger.cpu().cs.base, debugger.cpu().rip) == (0x7C0, 0x7C00, THERE - BOOT)
    assert debugger.cpu().regs[3] == 3 + 5
    assert guest.domain.memory.read(BOOT, 512) == before == sector("g_steps")
    assert not debugger.cpu().rflags & 0x100


def test_conditions_ignore_counts_and_temporary_breakpoints_are_those_of_every_machine(opened) -> None:
    _, _, debugger = opened("g_steps")
    held = Condition("cx == 2", lambda: debugger.live_cpu().regs[1] == 2)
    point = debugger.add_breakpoint(BreakKind.EXECUTE, LOOP, condition=held)
    behind = debugger.add_breakpoint(BreakKind.EXECUTE, BEHIND_LOOP, temporary=True)
    assert to_breakpoint(debugger).linear_pc == LOOP
    assert debugger.cpu().regs[1] == 2
    assert to_breakpoint(debugger).linear_pc == BEHIND_LOOP
    assert (point.hits, behind.hits, len(debugger.breakpoint_list())) == (1, 1, 1)


def test_next_takes_a_call_as_a_whole_and_until_runs_to_a_place(opened) -> None:
    _, _, debugger = opened("g_steps")
    debugger.begin_until(CALL)
    assert debugger.run().linear_pc == CALL
    debugger.begin_over()
    stop = debugger.run()
    assert (stop.kind, stop.linear_pc) == (StopKind.STEP, CALL + 3)
    assert debugger.cpu().regs[3] == 3 + 5


def test_a_guest_that_runs_is_stopped_and_goes_on_where_it_was(opened) -> None:
    guest, board, debugger = opened("ticks")
    worker = Worker(debugger)
    worker.start()
    stops = []
    worker.add_listener(stops.append)
    try:
        worker.resume(debugger.begin_continue)
        for _ in range(3):
            time.sleep(0.3)
            worker.interrupt()
            assert worker.wait(60).kind is StopKind.INTERRUPTED
            assert guest.domain.held
            worker.resume(debugger.begin_continue)
        assert until(lambda: worker.call(lambda: board.text.endswith(".")))
        worker.interrupt()
        worker.wait(60)
    finally:
        worker.close()
    assert board.text == "Atickkcit~."
    assert word(guest, 0x600) >= 20  # ticks that were missed while it was paused come one behind the other
    assert [stop.kind for stop in stops] == [StopKind.INTERRUPTED] * 4


def test_a_halted_vcpu_is_stepped_through_the_interrupt_that_wakes_it(opened) -> None:
    """The tick comes: behind HLT, delivered with the next step, whose handler is run to its end."""
    guest, _, debugger = opened("counts")
    guest.domain.set_param(TIMER_MODE_PARAM, 2)  # ticks that are missed in steps are dropped
    halts, ticked = sector("counts").index(b"\xf4\x66\xff") + BOOT, sector("counts").index(b"\x90" * 4) + BOOT
    guest.domain.memory.write(ticked, bytes.fromhex("fe060606"))  # count handlers too: the EOI is behind it
    debugger.begin_until(halts)
    debugger.run()
    assert word(guest, 0x606, 1) == 0
    assert stepped(debugger).linear_pc == halts + 1
    assert (word(guest, 0x606, 1), word(guest, 0x600)) == (0, 0)
    assert stepped(debugger).linear_pc == halts + 6
    assert (word(guest, 0x606, 1) > 0, word(guest, 0x600)) == (True, 1)
    debugger.add_breakpoint(BreakKind.EXECUTE, halts)
    for count in (1, 2):
        assert to_breakpoint(debugger).linear_pc == halts
        assert word(guest, 0x600) == count


def test_a_wait_for_an_interrupt_that_does_not_come_is_ended_by_whoever_waits(opened) -> None:
    """sti; hlt; jmp $: nothing interrupts."""
    _, _, debugger = opened("g_steps", "fb f4 ebfe")
    stepped(debugger)
    worker = Worker(debugger)
    worker.start()
    try:
        worker.add_listener(lambda stop: None)
        worker.resume(debugger.begin_step)
        assert worker.wait(1.0) is None
        worker.interrupt()
        stop = worker.wait(60)
    finally:
        worker.close()
    assert stop.kind is StopKind.INTERRUPTED
    assert debugger.cpu().rip == BOOT + 2
    assert debugger.cpu().halted
    assert not debugger.cpu().rflags & 0x100


def test_strings_and_ports_reach_the_device_model_element_by_element(opened) -> None:
    """ticks.asm up to where it sets up the 8259: REP OUTSB, and backwards."""
    guest, board, debugger = opened("ticks")
    source = sector("ticks")
    debugger.begin_until(BOOT + source.index(b"\xf3\x6e") + 2)
    debugger.run()
    assert board.text == "Atick"
    debugger.begin_until(BOOT + source.index(b"\xfd") + 9)
    assert debugger.run().kind is StopKind.STEP
    assert board.text == "Atickkcit"
    assert [request.count for request in guest.requests if request.address == 0x3F8] == [1] * 9


def test_flags_that_code_pushes_are_the_guests_own(opened) -> None:
    """mov sp, 7000h; pushf; int 40h; ...: the handler at 0:500h is stepped into, and gives back with IRET."""
    guest, _, debugger = opened("g_steps", "bc0070 9c cd40 90")
    guest.domain.memory.write(4 * 0x40, bytes.fromhex("00050000"))
    guest.domain.memory.write(0x500, bytes.fromhex("40 cf"))
    places = [stepped(debugger).linear_pc for _ in range(5)]
    assert places == [BOOT + 3, BOOT + 4, 0x500, 0x501, BOOT + 6]
    assert word(guest, 0x6FFE) & 0x100 == 0
    assert (word(guest, 0x6FFC) & 0x100, word(guest, 0x6FF8)) == (0, BOOT + 6)
    assert debugger.cpu().regs[4] & 0xFFFF == 0x6FFE
    assert not debugger.cpu().rflags & 0x100


def test_cpuid_is_answered_as_the_guest_itself_is_answered(opened) -> None:
    """xor eax, eax; cpuid; mov [600h], ebx; mov [604h], edx; mov [608h], ecx; mov [60ch], eax; jmp $."""
    code = "6631c0 0fa2 66891e0006 6689160406 66890e0806 66a30c06 ebfe"
    answers = []
    for steps in (True, False):
        guest, _, debugger = opened("g_steps", code)
        if steps:
            stepped(debugger, 6)
        else:
            guest.domain.resume()
            assert until(lambda guest=guest: word(guest, 0x60C, 4))
        answers.append(guest.domain.memory.read(0x600, 16))
    assert answers[0] == answers[1]
    assert any(answers[0])


def test_what_cannot_be_stepped_ends_the_run_in_front_of_it_with_a_sentence(opened) -> None:
    _, _, debugger = opened("g_steps", "90 0f32 90")
    debugger.add_breakpoint(BreakKind.EXECUTE, BOOT + 3)
    stop = to_breakpoint(debugger)
    assert (stop.kind, stop.linear_pc) == (StopKind.LIMIT, BOOT + 1)
    assert stop.text == "RDMSR at 0x7c01 is executed by Xen and cannot be stepped: run past it"


@pytest.mark.parametrize(
    ("does", "sentence"),
    [
        (lambda d: d.add_breakpoint(BreakKind.WRITE, 0x600, 2), r"^Xen tells of no accesses to memory"),
        (lambda d: d.reset(), r"^that is for machines of v2e's own: this is a domain of Xen$"),
        (lambda d: d.save(), r"^that is for machines of v2e's own"),
        (lambda d: d.why_stuck(), r"^what a domain waits for is not looked for"),
    ],
)
def test_what_xen_cannot_do_is_refused_in_a_sentence(opened, does, sentence) -> None:
    _, _, debugger = opened("g_steps")
    with pytest.raises(DebuggerError, match=sentence):
        does(debugger)


def test_a_domain_destroyed_while_it_runs_ends_the_run_in_a_sentence(opened) -> None:
    guest, _, debugger = opened("g_steps")
    worker = Worker(debugger)
    worker.start()
    try:
        worker.resume(debugger.begin_continue)
        time.sleep(0.3)
        guest.domain.destroy()
        stop = worker.wait(60)
    finally:
        worker.close()
    assert (stop.kind, stop.text) == (StopKind.FAILURE, f"domain {guest.domain.domid} has been destroyed")
