"""A guest that gets nowhere is told with what it waits for; looking changes nothing; one that gets on is left alone.

What is expected is what a person finds in the nasm text of each guest.
"""

from __future__ import annotations

import pytest

from asm import assemble
from clock_guests import CLOCKS, COUNTED_TICKS
from emu.debugger import Debugger
from emu.ledger import Costs
from emu.machine import MachineConfig, build_machine
from emu.policies import policy_named
from emu.progress import Watch
from emu.stops import StopKind
from emu.transitions import NativeConfig
from emu.vcpu import ExitCause, VmExit
from emu.views import StuckView
from emu.x86.modes import mode_of
from emu.x86.polls import Loop
from emu.x86.rounds import Step
from emu.x86.state import CpuState, Segment
from emu.x86.vmentry import VTX2006
from machines import TIMER_100US, debugger, rom
from repl.render import view_lines
from repl.style import Style
from v86_monitor import MONITOR
from xenbridge.model import ModelVcpu, make_model

#: (name, nasm text, verdict, parts of the summary, parts of the details)
GUESTS: list[tuple[str, str, str, list[str], list[str]]] = [
    ("a jump to itself", "jmp $", "forever", ["no way out"], ["interrupts are off"]),
    ("a bit of a port", "mov dx, 0x3fd\nw: in al, dx\ntest al, 1\njz w", "waits",
     ["bit 0 of port 0x3fd (com1)", "reads 0x60", "must become 1"], ["the device com1 must change it"]),
    ("a bit that is shifted out", "w: in al, 0x64\nshl al, 3\njnc w", "waits",
     ["bit 5 of port 0x64 (kbc)", "must become 1"], []),
    ("a bit that must be clear", "w: in al, 0x64\ntest al, 0x10\njnz w", "waits",
     ["bit 4 of port 0x64 (kbc)", "must become 0"], []),
    ("a masked value", "w: in al, 0x64\nand al, 3\ncmp al, 1\njne w", "waits",
     ["bits 0, 1 of port 0x64 (kbc)", "must become 0x1"], []),
    ("a way out that jumps", "w: in al, 0x64\ntest al, 1\njnz out\njmp w\nout: hlt", "waits",
     ["bit 0 of port 0x64", "must become 1"], []),
    ("a port in a subroutine",
     "mov ss, ax\nmov sp, 0x7000\nw: call rd\ntest al, 1\njz w\nhlt\nrd: mov dx, 0x3fd\nin al, dx\nret", "waits",
     ["bit 0 of port 0x3fd (com1)"], []),
    ("a port where nothing is", "mov dx, 0x5678\nw: in al, dx\ntest al, 4\njnz w", "waits",
     ["port 0x5678 (no device)"], ["it never changes"]),
    ("the tick count", "sti\nmov ax, [0x46c]\nw: cmp ax, [0x46c]\nje w", "waits",
     ["the 2 bytes at linear 0x46c", "must become something but 0x0"],
     ["an interrupt's handler or a bus master", "interrupts are on", "master IMR"]),
    ("a byte by way of a register", "w: mov al, [0x501]\nor al, al\njz w", "waits",
     ["the byte at linear 0x501", "must become something but 0"], []),
    ("a bit of memory", "w: bt dword [0x500], 3\njnc w", "waits", ["bit 3 of the 4 bytes at linear 0x500"], []),
    ("the display's memory", "mov ax, 0xb800\nmov es, ax\nw: cmp byte [es:0], 0x55\njne w", "waits",
     ["linear 0xb8000", "must become 0x55"], []),
    ("a segment with a base", "mov ax, 0x1234\nmov ds, ax\nw: cmp byte [0x10], 7\njne w", "waits",
     ["the byte at linear 0x12350"], []),
    ("a delay", "mov cx, 0xffff\nw: nop\nloop w", "counts", [], ["the count in CX must reach 0"]),
    ("long strings", "l: mov cx, 0xffff\nrep lodsb\njmp l", "counts", ["no way out", "RSI"], ["interrupts are off"]),
    ("long strings that are compared", "l: mov cx, 0xffff\nxor di, di\nmov es, cx\nrepe scasb\nmov cx, 0xffff\n"
     "mov al, 1\nrepne scasb\njmp l", "forever", ["no way out, and nothing changes in it"], []),
    ("a long string that faults", "mov ss, ax\nmov sp, 0x7000\nmov word [13 * 4], h\nmov word [13 * 4 + 2], cs\n"
     "l: mov ecx, 0xfffff\nmov edi, 0xf000\na32 rep stosb\njmp l\nh: iret", "faults",
     ["#GP is raised at f000:20 in each round"], []),
    ("a fill before each look", "mov ax, 0xb800\nmov es, ax\nw: xor di, di\nmov cx, 16000\nrep stosw\nin al, 0x64\n"
     "test al, 0x40\njz w", "waits", ["bit 6 of port 0x64 (kbc)", "must become 1"], []),
    ("a poll with a delay in it", "w: in al, 0x64\nmov cx, 5000\nd: loop d\ntest al, 0x40\njz w", "waits",
     ["bit 6 of port 0x64 (kbc)", "must become 1"], ["only counts CX: it was stepped over", "interrupts are off"]),
    ("a poll with a delay that does something", "w: mov cx, 0\nd: in al, 0x61\nout 0x80, al\ndec cx\njnz d\n"
     "in al, 0x64\ntest al, 1\njz w", "waits", ["bit 0 of port 0x64 (kbc)"], ["only counts CX"]),
    ("a poll with a delay within a delay", "w: mov bx, 300\no: mov cx, 5000\nd: nop\nloop d\ndec bx\njnz o\n"
     "cmp byte [0x500], 1\njne w", "waits", ["the byte at linear 0x500"], ["counts CX", "counts BX"]),
    ("a poll with a delay that counts up", "w: mov edx, -90000\nd: inc edx\njnz d\nin al, 0x64\ntest al, 1\njz w",
     "waits", ["bit 0 of port 0x64 (kbc)"], ["only counts EDX"]),
    ("a delay with tries that are counted", "mov bx, 900\nw: mov cx, 5000\nd: loop d\nin al, 0x64\ntest al, 1\njnz o\n"
     "dec bx\njnz w\no: hlt", "counts", [], ["RBX from", "stepped over"]),
    ("a loop that counts two registers", "mov ecx, -1\nw: inc eax\ndec ecx\njnz w", "counts", [], ["RAX from"]),
    ("a poll with a time-out", "mov ecx, 0x10000000\nw: in al, 0x64\ntest al, 1\njnz o\ndec ecx\njnz w\no: hlt",
     "counts", [], ["bit 0", "port 0x64 (kbc)", "RCX from"]),
    ("work", "w: inc dword [0x500]\nadd eax, [0x500]\njmp w", "counts", ["RAX from", "memory in the page"], []),
    ("a count in memory", "mov dword [0x9000], 60000000\nw: sub dword [0x9000], 1\njnz w", "counts",
     ["ends by itself"], ["memory in the page at byte 0x9000", ": the loop itself writes it"]),
    ("a count in memory by way of a register", "w: mov eax, [0x9000]\ninc eax\nmov [0x9000], eax\n"
     "cmp dword [0x9000], 77000000\njb w", "counts", [], []),
    ("the upper half of a count in memory", "w: add word [0x9000], 1\nadc word [0x9002], 0\n"
     "cmp word [0x9002], 0x7fff\njb w", "counts", [], []),
    ("the upper half of a count in registers", "xor edx, edx\nw: add eax, 1\nadc edx, 0\ncmp edx, 5\njb w", "counts",
     [], ["RAX from"]),
    ("a poll of memory beside a count that ends nothing", "w: inc dword [0x9000]\ncmp byte [0x500], 1\njne w", "waits",
     ["the byte at linear 0x500"], ["memory in the page at byte 0x9000"]),
    ("a poll kept in memory", "w: in al, 0x64\nmov [0x500], al\ntest byte [0x500], 1\njz w", "waits",
     ["bit 0 of port 0x64 (kbc)"], []),
    ("a checksum by LODSB", "o: mov si, 0x100\nl: lodsb\nadd bl, al\ncmp si, 0xf000\njb l\njmp o", "counts", [],
     ["RSI from"]),
    ("a fill by STOSB", "mov ax, 0x900\nmov es, ax\nl: stosb\ncmp di, 0xf000\njne l", "counts", [], []),
    ("a byte with interrupts off", "cli\nw: cmp byte [0x500], 1\njne w", "waits", ["the byte at linear 0x500"],
     ["which holds 0x00: a bus master must write it", "interrupts are off"]),
    ("a byte by LODSB", "w: mov si, 0x501\nlodsb\ncmp al, 7\njne w", "waits",
     ["the byte at linear 0x501", "must become 0x7"], []),
    ("a lock by CMPXCHG", "mov byte [0x500], 1\nw: xor al, al\nmov cl, 1\nlock cmpxchg [0x500], cl\njnz w", "waits",
     ["the byte at linear 0x500, which holds 0x01, must become 0x0"], []),
    ("a lock by BTS", "mov byte [0x500], 1\nw: lock bts word [0x500], 0\njc w", "waits",
     ["bit 0 of the 2 bytes at linear 0x500", "must become 0"], []),
    ("a string that is compared", "mov es, ax\nmov byte [0x504], 1\nw: mov si, 0x500\nmov di, 0x504\nmov cx, 4\n"
     "repe cmpsb\njne w", "waits", ["`repe cmpsb", "must give 0", "linear 0x500"], ["linear 0x504"]),
    ("a byte that is searched for", "mov es, ax\nw: mov di, 0x9000\nmov cx, 16\nmov al, 0x55\nrepne scasb\njne w",
     "waits", ["linear 0x9000"], []),
    ("flags that an interrupt's handler gives",
     "mov word [0x58], h\nmov word [0x5a], 0xf000\nmov ss, ax\nmov sp, 0x7000\nw: mov ah, 1\nint 0x16\njz w\nhlt\n"
     "h: push bp\nmov bp, sp\nor word [bp+6], 0x40\npop bp\niret", "waits",
     ["ZF behind INT 16h (AH=01h) must become 0"], []),
    ("a control register", "w: mov eax, cr2\ncmp eax, 0x1234\njne w", "waits", ["CR2 = 0x0, must become 0x1234"], []),
    ("the FPU's status", "fninit\nw: fnstsw ax\ntest ax, 0x8000\njz w", "waits",
     ["bit 15 of the x87 status word", "must become 1"], []),
    *(
        (f"a poll with a delay and {n} NOPs", f"w: mov dx, 0x3fd\nin al, dx\ntest al, 1\njnz d\nmov cx, {cx}\n"
         f"k: loop k\ntimes {n} nop\njmp w\nd: hlt", "waits", ["bit 0 of port 0x3fd (com1)"], [])
        for n, cx in ((0, 100), (1, 100), (1, 65535), (2, 777), (3, 100), (4, 100), (6, 100), (7, 1000))
    ),
    *CLOCKS,
    ("HLT with every interrupt masked", TIMER_100US + "mov al, 0xff\nout 0x21, al\nout 0xa1, al\nsti\nhlt", "halted",
     ["waits for an interrupt"], ["every interrupt is masked"]),
    ("HLT with interrupts off", "hlt", "halted", ["f000:0006 with interrupts off"], ["no interrupt waits"]),
    ("HLT with a tick that waits", TIMER_100US + "mov cx, 12000\nd: loop d\nhlt", "halted", ["interrupts off"],
     ["vector 0x08 waits, and STI"]),
    ("a fault that is never removed",
     "mov word [0x18], h\nmov word [0x1a], 0xf000\nmov ss, ax\nmov sp, 0x7000\nud2\nh: iret", "faults",
     ["#UD is raised again and again at f000:"],
     ["without having removed the cause"]),
    *(
        (f"a fault {name}",
         f"mov word [0x18], h\nmov word [0x1a], 0xf000\nmov bx, 0x5000\nmov ss, bx\nmov sp, {sp}\n{rest}", "faults",
         ["#UD is raised again and again at f000:"], [why])
        for name, sp, rest, why in (
            ("that is its own handler", "0", "h: ud2\njmp h", "handler does not return before it is raised again"),
            ("within its handler", "0", "jmp g\nh: push ax\npush bx\nmov bx, [0x600]\ndb 0x0f, 0xff\npop bx\npop ax\n"
             "iret\ng: ud2\njmp g", "handler does not return before it is raised again"),
            ("whose handler drops the frame and jumps back", "0x7000", "b: ud2\njmp $\nh: add sp, 6\n"
             "inc word [0x600]\njmp b", "handler does not return before it is raised again"),
            ("whose handler drops the frame and counts", "0x7000", "b: ud2\njmp $\nh: add sp, 6\n"
             "mov cx, 3\nd: loop d\njmp b", "handler does not return before it is raised again"),
            ("whose handler returns to before it", "0x7000", "b: mov bx, 5\nud2\njmp $\nh: mov bp, sp\n"
             "mov word [bp], b\niret", "handler does not go on behind the instruction"),
        )
    ),
    ("a fault that is mended each time",
     "mov word [0], h\nmov word [2], 0xf000\nmov ss, ax\nmov sp, 0x7000\nw: xor cx, cx\nxor dx, dx\nmov ax, 5\ndiv cx\n"
     "jmp w\nh: mov cx, 1\niret", "forever", ["no way out"], ["#DE is raised at f000:", "lets it go on"]),
    ("a poll that a handler carries out",
     "mov word [0x18], h\nmov word [0x1a], 0xf000\nmov ss, ax\nmov sp, 0x7000\nw: ud2\ntest al, 1\njz w\nhlt\n"
     "h: push bp\nmov bp, sp\nadd word [bp+2], 2\npop bp\nin al, 0x64\niret", "waits",
     ["bit 0 of port 0x64 (kbc)", "must become 1"],
     ["#UD is raised at f000:16 in each round, whose handler lets it go on"]),
    ("a device that interrupts without end",
     "mov word [0x20], h\nmov word [0x22], 0xf000\nmov ss, ax\nmov sp, 0x7000\n" + TIMER_100US
     + "mov al, 0x14\nout 0x43, al\nmov al, 2\nout 0x40, al\nsti\nw: jmp w\nh: push ax\nmov al, 0x20\nout 0x20, al\n"
       "pop ax\niret", "interrupts", ["vector 0x08", "without end"], ["the tick (IRQ 0)", "each 2 pulses, 1.7 us"]),
]  # fmt: skip


def stand(source: str, instructions: int = 20_000) -> Debugger:
    run = debugger(rom(source))
    run.set_limit(instructions)
    run.begin_continue()
    run.run()
    return run


@pytest.mark.parametrize(
    ("source", "verdict", "summary", "details"), [g[1:] for g in GUESTS], ids=[g[0] for g in GUESTS]
)
def test_what_the_guest_waits_for_is_told(source: str, verdict: str, summary: list[str], details: list[str]) -> None:
    run = stand(source, 2_000 if verdict == "faults" else 20_000)  # a fault takes the host as long as 10,000 of these
    before = run.fingerprint()
    events = tuple(run.machine.journal)
    view = run.why_stuck()
    assert run.fingerprint() == before
    assert tuple(run.machine.journal) == events
    assert view.verdict == verdict, view
    for part in summary:
        assert part in view.summary
    for part in details:
        assert any(part in text for text in view.details), (part, view.details)
    assert view_lines(view, Style())
    run.machine.close()


def test_a_fault_within_its_handler_is_told_before_it_is_a_storm() -> None:
    view = stand(
        "mov word [0x18], h\nmov word [0x1a], 0xf000\nmov bx, 0x5000\nmov ss, bx\nh: push ax\nud2", 60
    ).why_stuck()
    assert view.verdict == "faults" and "in each round of the loop" in view.summary, view
    assert view.details == ("its handler does not return before it is raised again",)


def test_an_iret_that_faults_returns_nowhere() -> None:
    """Not behind itself either, where its fault's handler is."""
    frame = "mov word [0x30], h\nmov word [0x32], 0xf000\nmov ss, ax\nmov sp, 0xffff\n"
    view = stand(frame + "w: iret\nh: mov sp, 0xffff\njmp w", 2_000).why_stuck()
    assert view.verdict == "faults" and "#SS is raised again and again" in view.summary, view
    assert view.details == ("its handler does not return before it is raised again",)


def test_a_poll_with_a_fault_whose_handler_jumps_is_told_as_the_poll() -> None:
    """As long as it is no storm. The fault is not what keeps it."""
    faults = "mov word [0x18], h\nmov word [0x1a], 0xf000\nmov ss, ax\nmov sp, 0x7000\n"
    view = stand(faults + "w: in al, 0x64\ntest al, 1\njnz o\nud2\nh: add sp, 6\njmp w\no: hlt", 60).why_stuck()
    assert view.verdict == "waits" and "bit 0 of port 0x64" in view.summary, view
    assert any("its handler does not return before it is raised again" in text for text in view.details), view


#: Protected mode with an IDT at 600h that holds null entries alone; {limit} is its limit, {dies} what is executed.
PROTECTED = """
    o32 lgdt [cs:gr]
    o32 lidt [cs:ir]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 8:p
    gr: dw 23
    dd 0xf0000 + g
    ir: dw {limit}
    dd 0x600
    align 8
    g: dq 0, 0x00409a0f0000ffff, 0x00cf92000000ffff
    bits 32
    p: mov ax, 16
    mov ss, ax
    mov esp, 0x7000
    {dies}
"""


@pytest.mark.parametrize(
    ("source", "chain", "details"),
    [
        ("o32 lidt [cs:i]\nint 0x80\ni: dw 0\ndd 0x1234", "vector 0x80 at f000:",
         ["IDTR (base 0x1234, limit 0x0) has no vector 0x80: that needs 0x203",
          "IDTR (base 0x1234, limit 0x0) has no vector 0x0d: that needs 0x37"]),
        (PROTECTED.format(limit="0x3ff", dies="int 0x80"), "vector 0x80 at 0008:",
         ["IDTR (base 0x600, limit 0x3ff) has no gate for vector 0x80: that needs 0x407",
          "the IDT's entry for vector 0x0d at linear 0x668 is null"]),
        (PROTECTED.format(limit="0xff", dies="mov word [ss:0x632], 0x18\nmov word [ss:0x634], 0x8e00\nud2"),
         "#UD at 0008:",
         ["entry for vector 0x06 at linear 0x630: selector 0x0018 is beyond the GDT's limit 0x17"]),
        (PROTECTED.format(limit="0xff", dies="mov word [ss:0x632], 8\nmov word [ss:0x634], 0x0e00\nud2"),
         "#UD at 0008:",
         ["entry for vector 0x06 at linear 0x630 is not present"]),
        (PROTECTED.format(limit="0xff", dies="mov word [ss:0x632], 16\nmov word [ss:0x634], 0x8e00\nud2"),
         "#UD at 0008:",
         ["entry for vector 0x06 at linear 0x630 names 0x0010, which is no code segment"]),
    ],
)  # fmt: skip
def test_a_guest_that_has_died_is_told_with_what_is_wrong(source: str, chain: str, details: list[str]) -> None:
    run = stand(source)
    assert run.last_stop.kind is StopKind.SHUTDOWN
    view = run.why_stuck()
    assert (view.verdict, view.stuck) == ("ended", True), view
    assert view.summary.startswith(f"it has ended: a triple fault: {chain}")
    for part in details:
        assert any(part in text for text in view.details), (part, view.details)
    run.machine.close()


def test_an_interrupt_that_kills_the_guest_is_told_with_what_is_wrong() -> None:
    """It comes from outside, and a look ahead has no interrupts."""
    run = stand(TIMER_100US + PROTECTED.format(limit="0x3f", dies="sti\nw: jmp w"))
    assert run.last_stop.kind is StopKind.SHUTDOWN
    view = run.why_stuck()
    assert view.verdict == "ended", view
    assert view.details[0].startswith("IDTR (base 0x600, limit 0x3f) has no gate for vector 0x08: that needs 0x47")


def test_a_death_that_is_near_is_told() -> None:
    # ten instructions: the jump from the reset vector, three of the ROM's, LIDT, and five NOPs
    view = stand("lidt [cs:i]\ntimes 20 nop\nint 0x80\ni: dw 0, 0, 0", 10).why_stuck()
    assert view.verdict == "ended"
    assert view.summary.startswith("it ends after 15 more instructions: a triple fault")
    view = stand("times 20 nop\nhlt", 10).why_stuck()
    assert view.verdict == "ended"
    assert "HLT before 0xf001a with interrupts off, where nothing wakes the CPU" in view.summary


def test_whether_interrupts_come_does_not_go_by_where_the_look_begins() -> None:
    """They do where the caller has them on, though not in the handler that it calls; not between STI and CLI."""
    called = (
        "mov ss, ax\nmov sp, 0x7000\nmov word [0x180], h\nmov word [0x182], cs\nsti\nw: int 0x60\njmp w\nh: nop\niret"
    )
    for source, said, round in ((called, "interrupts are on", 4), ("w: sti\ncli\njmp w", "interrupts are off", 3)):
        for more in range(round):
            run = stand(source, 1000 + more)
            assert any(said in text for text in run.why_stuck().details), (source, more)
            run.machine.close()


@pytest.mark.parametrize(
    ("guest", "verdict", "told"),
    [
        ("mov cx, 0xffff\nw: hlt\nloop w", "counts", "counts or works"),
        ("w: hlt\ncmp byte [es:0x1234], 7\njne w", "waits", "the byte at linear 0x11234, which holds"),
        ("w: hlt\njmp w", "forever", "no way out"),
        ("w: cmp byte [es:0x1234], 7\njne w", "waits", "the byte at linear 0x11234, which holds"),
        ("jmp $", "forever", "no way out"),
    ],
)
def test_virtual_8086_code_under_a_monitor_is_told_as_what_it_does(guest: str, verdict: str, told: str) -> None:
    """HLT is privileged there, and the monitor goes on behind it."""
    before, after = MONITOR.split("guest:", 1)
    run = debugger(assemble(f"{before}guest:\n{guest}\njmp guest\nold:{after.replace('jmp guest', 'jmp old', 1)}"))
    run.set_limit(3_000)
    run.begin_continue()
    run.run()
    view = run.why_stuck()
    assert view.verdict == verdict and told in view.summary, view
    run.machine.close()


def test_a_guest_that_has_ended_by_itself_is_said_to_have() -> None:
    view = stand("mov al, 42\nout 0xf4, al\nnop").why_stuck()
    assert (view.verdict, view.summary) == ("ended", "it has ended: the guest ended with code 42")


#: At the segment's end IP does not go round, but #GP pushes it as 0; its handler, as that of most firmware, returns.
RUN_OFF = "mov ss, ax\nmov sp, 0x7000\nmov word [0x34], h\nmov word [0x36], 0xf000\njmp 0x5000:0\nh: iret"


def test_a_cpu_that_has_run_off_into_zeros_is_told() -> None:
    view = stand(RUN_OFF).why_stuck()
    assert (view.verdict, view.stuck) == ("zeros", True), view
    # all of low memory is zeros, of which the segment has 64 KiB
    assert view.summary == "the CPU executes zeros (memory that nobody wrote) from 0x50000 on"
    assert "up to 0x5ffff" in view.details[0]
    code = "mov dword [0x504f0], 0x90909090\n"
    some = "mov ds, ax\nxor eax, eax\n" + code + "jmp 8:0x504f4"
    view = stand(PROTECTED.format(limit=0, dies=some.replace("[", "[ss:")).replace("00409a0f", "00cf9a00").replace(
        "jmp 8:p", "jmp dword 8:0xf0000 + p"), 2000).why_stuck()  # fmt: skip
    assert view.summary.endswith("from 0x504f4 on"), view


def test_a_few_zeros_are_no_runaway() -> None:
    assert stand("jmp 0xf000:z\nz: times 100 dw 0\ntimes 5000 nop", 10).why_stuck().verdict == "moves"


def test_a_cpu_that_runs_off_into_zeros_is_noticed_once() -> None:
    run = run_for(RUN_OFF, 7_000_000)
    events = [e for e in run.machine.journal if e.kind == "stuck"]
    assert [e.text for e in events] == ["the CPU executes zeros (memory that nobody wrote) from 0x50000 on"]
    assert run.progress.samples > run.progress.looks == 1


@pytest.mark.parametrize("count", ["0xffff", "0xffffffff"])
def test_long_strings_where_no_memory_is_are_looked_at_in_time_and_space(count: str) -> None:
    """Each iteration is told of: one string of them all is given up, a loop of shorter ones is found."""
    into = f"mov es, ax\nl: mov edi, 0x40000000\nmov ecx, {count}\nrep stosd\njmp l"
    view = stand(PROTECTED.format(limit="0", dies=into)).why_stuck()
    assert view.verdict == ("forever" if count == "0xffff" else "moves"), view


def test_a_loop_over_seven_pages_is_noticed() -> None:
    hops = "".join(f"mov byte [{0x1000 * n:#x}], 0xe9\nmov word [{0x1000 * n + 1:#x}], 0xffd\n" for n in range(1, 7))
    run = run_for(f"{hops}mov byte [0x7000], 0xe9\nmov word [0x7001], 0x9ffd\njmp 0:0x1000", 120_000_000)
    (event,) = [e for e in run.machine.journal if e.kind == "stuck"]
    assert event.text == "the loop from 0x1000 to 0x7000 has no way out, and nothing changes in it"


def test_a_guest_that_gets_on_is_said_to() -> None:
    view = stand("times 5000 nop", 1000).why_stuck()
    assert (view.verdict, view.stuck) == ("moves", False)


def test_the_loop_is_shown_by_its_code() -> None:
    view = stand("mov dx, 0x3fd\nw: in al, dx\ntest al, 1\njz w").why_stuck()
    assert [line.text for line in view.code] == ["in al, dx", "test al, 1", "je 0x8"]


#: The 8259 with vectors from 8 on, without the timer; and a byte in the keyboard controller's output buffer, by its
#: command D2h, which requests IRQ 1 where the command byte says so (8042).
PIC = TIMER_100US.split("mov al, 0x34")[0]
KEYBOARD = "mov al, 0xfc\nout 0x21, al\n" + "".join(
    f"mov al, {value:#x}\nout {port:#x}, al\nw{n}: in al, 0x64\ntest al, 2\njnz w{n}\n{more}"
    for n, (port, value, more) in enumerate(
        ((0x64, 0xAA, "t: in al, 0x64\ntest al, 1\njz t\nin al, 0x60\n"), (0x64, 0x60, ""), (0x60, 1, ""),
         (0x64, 0xD2, ""), (0x60, 0x1C, "mov cx, 30000\nd: loop d\n"))
    )
)  # fmt: skip
TICKS = "mov ax, [0x46c]\nw: cmp ax, [0x46c]\nje w"
BUT = "the interrupt with vector 0x09 (IRQ 1) waits for IF, but it is not what the loop waits for"
HANDLER = "mov ss, ax\nmov sp, 0x7000\nmov word [0x20], h\nmov word [0x22], 0xf000\n"


@pytest.mark.parametrize(
    ("source", "tick", "others"),
    [
        (PIC + KEYBOARD + TICKS, "is not due yet, and will wait for IF", [BUT]),
        (TIMER_100US + KEYBOARD + TICKS, "is requested and waits for IF", [BUT]),
        (TIMER_100US + TICKS, "is requested and waits for IF", []),
        (PIC + "mov al, 0xff\nout 0x21, al\n" + TICKS, "is masked at the 8259, and waits for IF besides", []),
        (PIC + "mov al, 0xff\nout 0x21, al\nsti\n" + TICKS, "is masked at the 8259", []),
        (HANDLER + TIMER_100US + "sti\n" + TICKS + "\nh: sti\nv: cmp ax, [0x46c]\nje v",
         "is in service: without an end of interrupt there is no other", []),
    ],
    ids=["not due", "both", "requested", "masked", "masked with IF", "in service"],
)  # fmt: skip
def test_a_wait_for_the_tick_names_the_tick(source: str, tick: str, others: list[str]) -> None:
    """Whatever else the 8259 has a request of, which it would answer with."""
    view = stand(source, 3_000_000).why_stuck()
    told = [text for text in view.details if "vector" in text]
    assert told == [f"the tick (IRQ 0, vector 0x08), whose handler counts there, {tick}", *others]


def test_another_wait_names_all_that_waits() -> None:
    view = stand(TIMER_100US + KEYBOARD + "w: in al, 0x64\ntest al, 0x40\njz w", 3_000_000).why_stuck()
    assert [text for text in view.details if "vector" in text] == [
        "the interrupt with vector 0x08 (IRQ 0) waits for IF",
        "the interrupt with vector 0x09 (IRQ 1) waits for IF",
    ]


#: Polls for the keyboard; TICKS of the timer come meanwhile.
POLLING = (
    "mov word [0x20], h\nmov word [0x22], 0xf000\nmov ss, ax\nmov sp, 0x7000\n"
    + TIMER_100US
    + "sti\nw: in al, 0x64\ntest al, 1\njz w\nh: push ax\nmov al, 0x20\nout 0x20, al\npop ax\niret"
)


def run_for(source: str, instructions: int) -> Debugger:
    run = debugger(rom(source))
    run.set_limit(instructions)
    run.begin_continue()
    run.run()
    return run


@pytest.fixture(params=[100, pytest.param(1000, marks=pytest.mark.slow)])
def period(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Instructions after which a guest that seems to get nowhere is looked at: a tenth of what they are without tests,
    and as they are."""
    monkeypatch.setattr(Watch, "PERIOD", request.param * 1_000_000)
    return request.param * 100_000


@pytest.mark.slow
def test_it_is_noticed_while_the_guest_runs_and_that_changes_nothing(
    period: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noticed = run_for(POLLING, 3 * period // 2)
    assert noticed.progress.noticed is not None
    assert "bit 0 of port 0x64" in noticed.progress.noticed.summary
    assert noticed.progress.looks == 1
    monkeypatch.setattr(Watch, "sample", lambda self: None)
    unnoticed = run_for(POLLING, 3 * period // 2)
    assert noticed.fingerprint() == unnoticed.fingerprint()
    assert [e for e in noticed.machine.journal if e.kind != "stuck"] == list(unnoticed.machine.journal)


def test_a_guest_that_works_is_looked_at_ever_more_rarely(period: int) -> None:
    run = run_for("w: inc dword [0x500]\nadd eax, [0x500]\njmp w", 5 * period)
    assert run.progress.noticed is None
    # after one, two and four periods
    assert run.progress.looks == 3
    run.machine.close()


def test_a_guest_that_fills_memory_is_not_looked_at(period: int) -> None:
    fills = "mov esi, 0x8000\nw: mov ecx, 500000\nd: dec ecx\njnz d\nadd esi, 0x1000\nmov [ss:esi], eax\njmp w"
    run = run_for(PROTECTED.format(limit=0, dies=fills), 12 * period // 10)
    assert run.machine.memory.written >= 12 * period // 10_000_000 - 1
    assert run.progress.looks == 0
    run.machine.close()


def test_a_guest_that_sends_text_is_not_looked_at(period: int) -> None:
    run = run_for("mov cx, 0\nw: mov al, '.'\nout 0xe9, al\nd: loop d\njmp w", 3 * period // 2)
    assert run.progress.looks == 0
    run.machine.close()


def test_loops_that_no_flag_decides_have_no_source() -> None:
    assert Loop([]).ways_out() == []


def test_64_bit_addresses_are_relative_to_rip() -> None:
    state = CpuState(cr0=0x80000011, efer=0x500, rip=0x1000)
    state.cs = Segment(8, 0, 0xFFFFFFFF, 0xA09B)
    code = bytes.fromhex("8b051000000085c074f6")  # mov eax, [rip + 10h]; test eax, eax; je back
    steps, at = [], 0
    for length in (6, 2, 2):
        step = Step(0x1000 + at, code[at:], 64, state)
        at += length
        step.following = 0x1000 + at % len(code)
        steps.append(step)
    (way,) = Loop(steps).ways_out()
    assert [(s.kind, s.place, s.size) for s in way.sources] == [("memory", 0x1016, 4)]
    assert (way.branch, way.must) == (2, "must become something but 0")


def test_a_view_says_whether_it_is_stuck() -> None:
    assert [StuckView(word, "").stuck for word in ("waits", "forever", "halted", "counts", "idle", "moves")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


#: Big real mode is entered {rounds} times, the last time for good. Its segments break the rules of VT-x of 2006.
BIG_REAL = """
    mov bp, {rounds}
    cs lgdt [register]
    again:
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 8
    mov ds, bx
    and al, 0xfe
    mov cr0, eax
    dec bp
    jz over
    mov cx, 40
    x: loop x
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 16
    mov ds, bx
    and al, 0xfe
    mov cr0, eax
    xor bx, bx
    mov ds, bx
    mov cx, 40
    y: loop y
    jmp again
    over:
    {then}
    align 8
    gdt: dq 0, 0x00cf93000000ffff, 0x000093000000ffff
    register: dw 23
    dd 0xf0000 + gdt
"""
POLL = "mov dx, 0x3fd\nw: in al, dx\ntest al, 1\njz w"


def with_model(source: str, limit: int) -> Debugger:
    costs = Costs()
    config = MachineConfig(memory=1 << 20, firmware=rom(source), shadow=False)
    config.native = NativeConfig(make_model(VTX2006), policy_named("native", costs), costs)
    run = Debugger(build_machine(config))
    run.set_limit(limit)
    run.begin_continue()
    run.run()
    assert run.machine.transitions is not None
    return run


def test_a_state_that_cannot_be_entered_for_long_is_told_beside_the_loop() -> None:
    run = with_model(BIG_REAL.format(rounds=1, then=POLL), 5_000_000)
    view = run.why_stuck()
    assert view.verdict == "waits" and "bit 0 of port 0x3fd (com1)" in view.summary, view
    assert any(text.startswith("native entry has failed ") for text in view.details), view
    assert any("DS limit" in text for text in view.details), view
    run.machine.close()


def test_good_transitions_are_no_failing_entry() -> None:
    """However often the guest goes to and fro, what counts are failures since the last entry that did not fail."""
    run = with_model(BIG_REAL.format(rounds=1500, then=POLL), 400_000)
    ledger = run.machine.transitions.ledger if run.machine.transitions else None
    assert ledger is not None and ledger.failed > 1000 and ledger.hops_in > 1000
    view = run.why_stuck()
    assert view.verdict == "waits" and "bit 0 of port 0x3fd (com1)" in view.summary, view
    assert not any("native entry" in text for text in view.details), view
    run.machine.close()


def test_a_vcpu_that_fails_to_enter_again_and_again_is_told_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """As hardware may where the rules let it in."""

    def fails(self: ModelVcpu, budget: int, deadline: int | None, *, skip_breakpoint: bool) -> VmExit:
        state = self.state()
        return VmExit(
            ExitCause.ENTRY_FAILED, state.linear_pc, mode_of(state), before=True, detail="error 7 (this test)"
        )

    monkeypatch.setattr(ModelVcpu, "enter", fails)
    run = with_model("w: inc dword [0x500]\nadd eax, [0x500]\njmp w", 40_000)
    view = run.why_stuck()
    assert (view.verdict, view.stuck) == ("entries", True), view
    assert view.summary == "native entry has failed 2500 times since the CPU was native last"
    assert any("error 7 (this test)" in text for text in view.details), view
    monkeypatch.undo()
    run.set_limit(60_000)
    run.begin_continue()
    run.run()
    assert run.why_stuck().verdict == "counts"
    run.machine.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest is looked at after 200,000 instructions."""
    monkeypatch.setattr("emu.debugger.PIECE", 200_000)
    monkeypatch.setattr(Watch, "INTERVAL", 100_000)
    monkeypatch.setattr(Watch, "PERIOD", 2_000_000)


@pytest.mark.parametrize(
    "source",
    [g[1] for g in CLOCKS if g[2] == "clock"] + ["mov dword [0x9000], -1\nw: sub dword [0x9000], 1\njnz w"]
    + [COUNTED_TICKS.format(0x7100)],
    ids=[g[0] for g in CLOCKS if g[2] == "clock"] + ["a count in memory", "a count of the guest's own tick"],
)  # fmt: skip
def test_no_alarm_comes_of_a_guest_that_waits_for_a_clock(source: str, impatient: None) -> None:
    run = run_for(source, 500_000)
    assert run.progress.looks > 0 or run.progress.noticed is None
    assert [e.text for e in run.machine.journal if e.kind == "stuck"] == []
    run.machine.close()


def test_an_alarm_comes_as_soon_of_a_guest_that_waits_for_a_key(impatient: None) -> None:
    """Within what those that wait for a clock are given."""
    run = run_for("w: in al, 0x64\ntest al, 1\njz w", 500_000)
    assert run.progress.noticed is not None
    run.machine.close()
