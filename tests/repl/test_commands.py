"""Commands on a running machine: what they do and what they say."""

from __future__ import annotations

import pytest

from emu.stops import StopKind
from repl.render import result_text
from repl.session import FAILURES
from repl.style import Style

#: Protected mode through a GDT at F000:0100; CS 8 based at F0000h, DS 10h flat. Then it spins at `there`, and `back`.
PROTECTED = """
    lgdt [cs:gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 8:there
there:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    hlt
    times 0x100-($-$$) nop
gdt:
    dq 0
    dw 0xffff, 0x0000, 0x9b0f, 0x0000
    dw 0xffff, 0x0000, 0x9300, 0x008f
gdtr:
    dw gdtr - gdt - 1
    dd 0xf0000 + gdt
"""


def failure(session, line):
    with pytest.raises(FAILURES) as caught:
        session.execute(line)
    text = str(caught.value)
    assert text and "\n" not in text
    return text


def test_step_shows_where_the_cpu_is_and_repeats_on_enter(session, say):
    assert say("step") == "f000:0000 linear 000f0000 [real]  cli"
    assert session.execute("step 3").again == "step 3"
    assert session.debugger.last_stop.retired == 4


def test_next_steps_over_a_call_and_step_steps_into_it(session, say):
    say("until f000:000a")
    assert "call 0x20" in say("status")
    assert say("next") == "f000:000d linear 000f000d [real]  jmp 0xa"
    say("next")
    assert say("step").startswith("f000:0020")


def test_a_breakpoint_stops_before_its_instruction_and_is_listed_with_its_hits(session, say):
    assert say("break f000:0020") == "1  break  000f0020  (f000:0020)"
    assert say("continue").splitlines()[0] == "Breakpoint 1 at f000:0020"
    say("c")
    assert say("breaks") == "1  break  000f0020  (f000:0020)  2 hits"
    assert say("x/uh 0x500") == "00000500  1"


def test_a_temporary_breakpoint_is_gone_after_its_hit(session, say):
    say("tbreak f000:0020")
    say("continue")
    assert say("info breakpoints") == "no breakpoints"


def test_a_disabled_breakpoint_does_not_stop(session, say):
    say("break f000:0020")
    say("break f000:000a")
    say("disable 1")
    assert [say("c").splitlines()[0] for _ in range(2)] == ["Breakpoint 2 at f000:000a"] * 2
    say("enable 1")
    assert say("c").splitlines()[0] == "Breakpoint 1 at f000:0020"


def test_delete_without_numbers_leaves_gdbs_breakpoints(session, say):
    from emu.stops import BreakKind

    session.call(lambda: session.debugger.add_breakpoint(BreakKind.EXECUTE, 0x100, owner="gdb"))
    say("break 0x200")
    say("delete")
    assert say("breaks") == "1  break  00000100  by gdb, which has another number for it"
    assert "belongs to gdb" in failure(session, "delete 1")


def test_deleting_a_breakpoint_that_is_not_there_names_those_that_are(session, say):
    say("break 0x200")
    assert failure(session, "delete 7") == "there is no breakpoint 7; there is: 1"


def test_a_watchpoint_says_what_was_written(session, say):
    say("watch 0x500 2")
    assert say("c").splitlines()[0] == "Watchpoint 1: wrote 0x1 (2 bytes) at 0x500, now at f000:0024"
    say("delete")
    say("rwatch 0x501")
    assert "read" in say("c").splitlines()[0]


def test_writing_memory_and_looking_at_it_in_every_format(session, say):
    say('write 0x600 "Hi\\n\\0" 0xff -1')
    say("write/h 0x610 0x1234 0xabcd")
    assert say("x/6xb 0x600") == "00000600  48 69 0a 00 ff ff                                Hi...."
    assert say("x/2xh 0x610").startswith("00000610  1234 abcd")
    assert say("x/2db 0x603") == "00000603   0 -1"
    assert say("x/2ub 0x603") == "00000603    0 255"
    assert say("x/1xw 0x610").startswith("00000610  abcd1234")
    assert say("x/1xg 0x610").startswith("00000610  00000000abcd1234")
    assert say("x/1ob 0x600") == "00000600  0110"
    assert say("x/2tb 0x600") == "00000600  01001000 01101001"
    assert say("x/2c 0x600") == "00000600   72 'H' 105 'i'"
    assert say("x/s 0x600") == '00000600  "Hi\\x0a"'


def test_x_keeps_its_format_and_enter_goes_on_behind(session, say):
    say("write 0x600 1 2 3 4 5 6 7 8")
    again = session.execute("x/4xb 0x600").again
    assert again == "x/4xb 0x604"
    assert say("x 0x607").startswith("00000607  08")
    assert say(again).startswith("00000604  05 06 07 08")


def test_u_decodes_by_cs_and_by_a_width_asked_for(session, say):
    say("write 0x600 0x66 0xb8 1 0 0 0")
    assert say("u/1 0x600").endswith("mov eax, 1")
    assert say("u/1:32 0x600").endswith("mov ax, 1")
    assert say("u/1").startswith("=>")


def test_memory_that_is_not_there_is_named_and_what_is_there_is_shown(session, say):
    assert failure(session, "x 0xf0000000") == "0xf0000000: no memory behind this address"
    assert failure(session, "xp 0x100000000") == "0x100000000: no memory at this physical address"
    lines = say("x/16xb 0xffff8").splitlines()
    assert lines[-1] == "00100000: cannot be read"
    assert "out of range" in failure(session, "x 0x100000000")
    assert "out of range" in failure(session, "break -1")
    assert "out of range" in failure(session, "page 1 << 40")


@pytest.mark.parametrize(
    "line",
    ["x/0xb 0", "x/4q 0", "x/9999999g 0", "x", "u/0", "u/x", "u/99999", "write/q 0 1", "write 0 256", "write 0 -129",
     "watch 0 0", "watch 0 99999999", "step 0", "step -1", "in 0x10000", "in/q 0", "out 0x80 256", "gdt 9999",
     "set nothing 1", "set al 256", "set eax", "set cr0 0x80000000", "dev nothing", "restore nothing",
     "key nothing", "type \\q", "symbols /nonexistent", "journal x"],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_changes_nothing(lasting_session, line):
    before = lasting_session.debugger.fingerprint()
    failure(lasting_session, line)
    assert lasting_session.debugger.fingerprint() == before


def test_a_part_of_a_register_is_set_alone_and_a_32_bit_one_clears_the_upper_half(session, say):
    say("set rax = 0x1122334455667788")
    say("set ah 0xaa")
    assert say("print $rax") == f"0x112233445566aa88 = {0x112233445566AA88}"
    say("set eax 5")
    assert say("p rax").startswith("0x5 ")


def test_real_mode_shows_a_base_that_is_not_selector_times_16(say):
    """At reset CS is F000 with base FFFF0000 (SDM vol. 3A, table 10-1)."""
    row = next(line for line in say("sreg").splitlines() if line.startswith("cs"))
    assert row.split()[1:3] == ["f000", "*ffff0000"]
    assert "not selector*16" in row


def test_protected_mode_shows_cache_and_table_side_by_side(session_for):
    session = session_for(PROTECTED)
    session.execute("c")
    assert session.debugger.last_stop.kind is StopKind.DEADLOCK
    text = result_text(session.execute("sreg"), Style())
    rows = {line.split()[0]: line.split() for line in text.splitlines()[1:]}
    assert rows["cs"][1:4] == ["0008", "000f0000", "0000ffff"]
    assert "*" not in text
    # The table is changed behind the CPU's back: base F0000h becomes 0, and only then differs.
    session.execute("write/h 0xf0100 + 8 + 2 0 0x9b00")
    text = result_text(session.execute("sreg"), Style())
    row = next(line for line in text.splitlines() if line.startswith("cs"))
    assert "*000f0000" in row
    assert "00000000" in row


def test_gdt_and_seg_off_agree_in_protected_mode(session_for):
    session = session_for(PROTECTED)
    session.execute("c")
    gdt = result_text(session.execute("gdt"), Style())
    assert "code16" in gdt and "data16" in gdt
    assert session.call(lambda: session.address("8:0x100")) == 0xF0100
    assert session.call(lambda: session.address("cs:0x100")) == 0xF0100
    assert session.call(lambda: session.address("0x10:0x100")) == 0x100
    assert "0x0018 names no segment in the GDT" in failure(session, "x 0x18:0")
    assert "names no segment" in failure(session, "x 0:0")


def test_folded_table_rows_say_how_many_they_stand_for(say):
    lines = say("ivt").splitlines()
    assert lines[-1].endswith("... 255 more like it")


def test_save_and_restore_bring_back_the_same_machine(session, say):
    say("step 20")
    before = say("fingerprint")
    assert say("save here") == "saved 'here' at 20 instructions"
    say("step 50")
    assert say("fingerprint") != before
    say("restore here")
    assert say("fingerprint") == before


def test_reset_starts_from_the_reset_vector_and_keeps_breakpoints(session, say):
    say("break f000:0020")
    say("c")
    assert say("reset").startswith("f000:fff0 linear fffffff0")
    assert session.debugger.last_stop.retired == 0
    say("c")
    assert say("x/uh 0x500") == "00000500  0"


def test_ports_are_really_accessed_and_dev_and_irq_show_it(session, say):
    say("out 0x21 0xab")  # the 8259's OCW1
    assert say("in 0x21") == "port 0x21 = 0xab = 171"
    assert "0xab" in say("dev pic")
    assert say("irq").startswith("pic: ")
    assert "ffff = 65535" in say("in/w 0x5000")


def test_the_maps_name_ram_rom_and_ports(say):
    text = say("map")
    assert "00000000-0009ffff  ram" in text
    assert "ffff0000-ffffffff  rom" in text
    assert "00f4-00f4  port  debug-exit" in text


def test_symbols_name_addresses_everywhere(session, say, tmp_path):
    (tmp_path / "nm").write_text("000f000a T main\n000f0020 t count\n")
    assert say(f"symbols {tmp_path / 'nm'}").startswith("2 symbols")
    say("break count")
    assert "<count>" in say("c")
    assert "<main+0x3>" in say("u/1 main + 3")


def test_the_journal_shows_stops_and_input(say):
    say("step")
    say("key a")
    assert [line.split()[1] for line in say("journal").splitlines()] == ["stop", "input"]
    assert say("journal 5 input").endswith("keys 'a'")


def test_help_lists_every_command_and_explains_one(session, say):
    text = say("help")
    assert all(f"  {entry.usage}" in text for entry in session.table.commands)
    assert "8 instructions" in say("help u")
    assert "there is no command" in failure(session, "help nonsense")


def test_status_says_why_the_guest_stands_still(say):
    assert say("status").splitlines()[0] == "Not started"
    say("break f000:0020")
    say("c")
    assert say("status").splitlines()[0] == "Breakpoint 1 at f000:0020"


def test_a_session_for_gdbs_monitor_may_look_but_not_run(session):
    monitor = session.shared(may_resume=False, resumed_by="gdb")
    assert monitor.execute("regs").views
    for line in ("lockstep 5", "continue", "step", "next", "until 0", "quit"):
        assert "gdb" in failure(monitor, line)
    assert "`detach` leaves" in failure(monitor, "quit") and "`kill` ends the machine" in failure(monitor, "exit")
    monitor.execute("save shared")
    assert session.execute("restore shared").views


#: Arguments of the commands that need some, where they look.
LOOKING_AT = {"page": "0x7c00", "xp": "0x7c00", "x": "0x7c00", "print": "1 + 1", "complete": "re", "u": "0xf0000"}
#: The same, and what needs no argument, where they change something.
CHANGING = (
    "set eax 1", "write 500 1", "break 0", "tbreak 0", "watch 500", "rwatch 500", "awatch 500", "catch int",
    "tcatch int", "delete", "enable", "disable", "reset", "restore", "save", "type a", "key a", "mouse move 1 1",
    "in 60", "out 60 1", "stop", "msr 10 1", "handlers into", "repeats whole", "forbid 0", "policy native",
    "screen --png nowhere.png", "symbols nowhere", "ledger clear", "force native", "native", "emulate",
    "lockstep 5", "save-xen nowhere", "continue", "step", "next", "until 0", "quit",
    "vcpu 0",
)  # fmt: skip


def test_a_session_that_may_only_look_has_all_commands_that_do_and_no_others(session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    looker = session.shared(may_resume=False, may_change=False, resumed_by="another client")
    session.execute("break 0x7c00")
    session.execute("handlers over")

    def state():
        points = [str(p) for p in session.debugger.breakpoint_list()]
        return session.call(session.debugger.fingerprint), points, session.debugger.step_into_interrupts

    before = state()
    names = {command.name for command in session.table.commands}
    assert names == {c.name for c in session.table.commands if c.looks is not False} | {
        line.split()[0] for line in CHANGING
    }
    for command in session.table.commands:
        if command.looks is not False:
            line = f"{command.name} {LOOKING_AT.get(command.name, '')}"
            try:
                looker.execute(line)
            except FAILURES as error:
                assert "another client" not in str(error), line  # what this machine does not have
    for line in CHANGING:
        assert "another client" in failure(looker, line), line
    for line in ("screen --png nowhere.png", "save-xen nowhere"):
        assert "writes a file where v2e runs: another client came first" in failure(looker, line)
    assert state() == before
    assert list(tmp_path.iterdir()) == []


def test_a_command_while_the_guest_runs_is_answered_and_a_second_run_refused(session):
    session.waits = False
    session.execute("continue")
    assert result_text(session.execute("status"), Style()).startswith("the guest runs: real")
    assert "the guest runs already" in failure(session, "step")
    session.execute("stop")
    stop = session.worker.wait(60)
    assert stop is not None and stop.kind is StopKind.INTERRUPTED


def test_msr_reads_and_writes_by_name_and_by_number(session, say):
    assert say("msr pat").startswith("pat = 0x0007040600070406")
    assert say("msr IA32_PAT") == say("msr 0x277") == say("msr pat")
    say("msr sysenter_cs 0x1234")
    assert session.debugger.cpu().msrs[0x174] == 0x1234
    say("msr efer 0x100")
    assert session.debugger.cpu().efer == 0x100
    listed = say("msr")
    assert "sysenter_cs" in listed and "0000000000001234" in listed.replace("_", "")


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("msr 0x12345", "no MSR 0x12345"),
        ("msr pat 0xff", "does not take 0xff"),
        ("msr mtrrcap 1", "does not take 0x1"),
        ("msr pat 0x10000000000000000", "64 bits"),
        ("msr 0x100000000", "out of range"),
        ("msr nonsense", "nonsense"),
    ],
)
def test_msr_refuses_what_would_fault(session, line, part):
    before = session.debugger.cpu().copy()
    assert part in failure(session, line)
    assert session.debugger.cpu() == before


def test_msr_completes_the_names_of_the_model(session):
    assert {"efer", "pat", "tsc_aux"} <= set(session.table.complete(session, "msr ")[1])


def test_why_names_each_broken_rule_and_what_ends_it(session_for):
    said = session_for(PROTECTED)
    text = result_text(said.execute("why"), Style())
    assert "vtx2006 (VT-x of 2006, without unrestricted guest): no" in text
    assert "CS base 0xffff0000 is not selector 0xf000 << 4 (SDM 3C 26.3.1.2, virtual-8086)" in text
    assert "ahead: `ljmp 0xf000:0x0` at 0xfffffff0 loads CS" in text
    assert "svm (AMD SVM): yes" in text
    assert failure(said, "why vmx") == "no rules are called 'vmx': use one of vtx2006, vtx, svm, kvm"
