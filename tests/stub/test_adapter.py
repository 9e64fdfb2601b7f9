"""A real machine behind the stub: the linear program counter, stop reasons, breakpoints, what the CPU refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu.debugger import BreakKind
from emu.firmware import tour
from machines import rom
from stub.restored import REMEMBERED, Restored
from stub.serve import serve_debugger
from stub_rig import Rig

#: F000:0100 is `inc word [0x500]`; then a far jump to the same code at another CS base, F010:0000.
LOOP = rom(
    """
    jmp place
    times 0x100-($-$$) nop
    place:
    inc word [0x500]
    mov ax, [0x500]
    jmp 0xf012:0
    times 0x120-($-$$) nop
    inc word [0x502]
    jmp 0xf000:0x100
    """
)


@pytest.fixture
def rig(rigs: Callable[..., Rig]) -> Rig:
    return rigs(LOOP)


def test_eip_is_linear_and_ip_the_offset(rig: Rig) -> None:
    # SDM vol. 3A, 10.1.4: the first instruction is at FFFFFFF0, CS base FFFF0000, EIP FFF0.
    assert rig.register("eip") == 0xFFFFFFF0
    assert rig.register("ip") == 0xFFF0
    assert rig.register("cs") == 0xF000
    rig.target.pc_is_offset = True
    assert rig.register("eip") == 0xFFF0


@pytest.mark.parametrize("linear", [0xF0100, 0xF0120])
@pytest.mark.parametrize(("kind", "word"), [(0, b"swbreak:;"), (1, b"hwbreak:;")])
def test_breakpoints_at_any_cs_base_stop_with_eip_on_their_address(
    rig: Rig, linear: int, kind: int, word: bytes
) -> None:
    assert rig.one(f"Z{kind},{linear:x},1") == b"OK"
    (stop,) = rig.resume()
    assert word in stop
    assert rig.register("eip") == linear
    before = rig.debugger.last_stop.retired
    rig.resume()
    assert rig.register("eip") == linear
    assert rig.debugger.last_stop.retired == before + 5  # once around


def test_memory_is_never_patched(rig: Rig) -> None:
    before = rig.one("mf0100,10")
    rig.ask("Z0,f0100,1")
    rig.resume()
    assert rig.one("mf0100,10") == before


@pytest.mark.parametrize(("kind", "word", "count"), [(2, "watch", 1), (3, "rwatch", 1), (4, "awatch", 1)])
def test_watchpoints_name_the_address(rig: Rig, kind: int, word: str, count: int) -> None:
    assert rig.one(f"Z{kind},500,2") == b"OK"
    (stop,) = rig.resume()
    assert f";{word}:500;".encode() in b";" + stop[3:]
    assert rig.one("m500,2") == b"0100"


def test_a_watchpoint_reports_an_address_inside_what_gdb_watches(rig: Rig) -> None:
    assert rig.one("Z2,501,1") == b"OK"  # the word written at 500h covers it
    (stop,) = rig.resume()
    assert stop.startswith(b"T05watch:501;")


def test_a_prompt_s_breakpoint_is_told_in_words_and_without_a_reason_gdb_would_pass_over(rig: Rig) -> None:
    rig.worker.call(lambda: rig.debugger.add_breakpoint(BreakKind.EXECUTE, 0xF0100))
    console, stop = rig.resume()
    assert bytes.fromhex(console[1:].decode()).decode().startswith("breakpoint 1 of the prompt at f000:0100")
    assert b"break" not in stop
    assert stop.startswith(b"T05")


def test_steps_and_ranges(rig: Rig) -> None:
    rig.resume("vCont;s:1;c")
    assert rig.register("eip") == 0xF0000
    rig.ask("Z1,f0100,1")
    rig.resume()
    rig.ask("z1,f0100,1")
    rig.resume("vCont;rf0100,f0107:1")
    assert rig.register("eip") == 0xF0107
    rig.resume("s")
    assert (rig.register("eip"), rig.register("ip"), rig.register("cs")) == (0xF0120, 0, 0xF012)


def test_ctrl_c_stops_a_guest_that_runs(rig: Rig) -> None:
    assert rig.ask("vCont;c") == []
    assert rig.one("m500,0") == b""  # it answers while it runs
    rig.on_machine(lambda: rig.client.incoming(rig.client.raw(b"\x03")))
    (stop,) = rig.wait()
    assert stop.startswith(b"T02")
    assert not rig.worker.running


def test_registers_cannot_be_written_while_it_runs(rig: Rig) -> None:
    rig.ask("vCont;c")
    assert rig.write("eax", 5) == b"E.the guest runs: interrupt it before writing registers"
    rig.worker.interrupt()
    rig.wait()
    assert rig.write("eax", 5) == b"OK"


def test_writing_eip_sets_the_offset_that_cs_makes_of_it(rig: Rig) -> None:
    rig.ask("Z1,f0120,1")
    rig.resume()  # CS base F0120h
    assert rig.write("eip", 0xF0130) == b"OK"
    assert rig.register("ip") == 0x10
    assert rig.register("eip") == 0xF0130


@pytest.mark.parametrize("linear", [0x7C00, 0xF011F, 0x100120, 0xFFFFFFF0])
def test_an_eip_that_cs_cannot_reach_is_refused(rig: Rig, linear: int) -> None:
    rig.ask("Z1,f0120,1")
    rig.resume()
    answer = rig.write("eip", linear).decode()
    assert answer.startswith(f"E.linear address {linear:#x} is out of reach of CS f012 (base 0xf0120, limit 0xffff")
    assert rig.register("eip") == 0xF0120


def test_writing_eip_as_an_offset(rig: Rig) -> None:
    rig.target.pc_is_offset = True
    assert rig.write("eip", 0x1234) == b"OK"
    assert rig.register("ip") == 0x1234
    assert rig.write("eip", 0x12345).startswith(b"E.offset 0x12345 is out of reach")


def test_an_ip_that_is_beyond_the_limit_of_cs_is_refused_as_eip_is(rig: Rig) -> None:
    rig.ask("Z1,f0120,1")
    rig.resume()
    for offset in (0x10000, 0x12345, 0xFFFFFFFF):
        assert (
            rig.write("ip", offset).decode().startswith(f"E.offset {offset:#x} is out of reach of CS f012 (base 0xf0")
        )
    assert rig.register("ip") == 0
    assert rig.write("ip", 0xFFFF) == b"OK"
    assert (rig.register("ip"), rig.register("eip")) == (0xFFFF, 0x10011F)


def test_resume_at_an_address(rig: Rig) -> None:
    rig.ask("Z1,f0100,1")
    rig.resume()
    rig.resume("sf0104")
    assert rig.register("eip") == 0xF0107


def test_a_segment_register_takes_its_cache_along(rig: Rig) -> None:
    assert rig.write("ds", 0x1234) == b"OK"
    assert rig.register("ds_base") == 0x12340


def test_members_of_a_struct_are_written_alone(rig: Rig) -> None:
    before = rig.register("tr")
    assert rig.write("gdtr", 0x0017_00012340) == b"OK"
    assert rig.debugger.cpu().gdtr.base == 0x12340
    assert rig.debugger.cpu().gdtr.limit == 0x17
    assert rig.register("tr") == before


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("cr0", 0x80000000, "sets PG without PE"),
        ("mode", 32, "derived"),
        ("cs_attr", 0x92000, "reserved"),
        ("efer", 1 << 40, "reserved bits"),
        ("ds", 0x12345, "does not fit"),
    ],
)
def test_what_the_cpu_does_not_allow_is_refused_in_words(rig: Rig, name: str, value: int, why: str) -> None:
    before = rig.one("g")
    answer = rig.write(name, value).decode()
    assert answer.startswith("E.")
    assert why in answer
    assert rig.one("g") == before


def test_writing_back_what_g_said_changes_nothing(rig: Rig) -> None:
    values = rig.one("g").decode()
    assert rig.one("G" + values) == b"OK"
    assert rig.one("g").decode() == values


def test_memory_reads_stop_before_the_first_unreadable_byte(rig: Rig) -> None:
    # 1 MiB of memory, ROM at its end, then nothing up to the ROM below 4 GiB.
    assert len(rig.one("mffff8,10")) == 2 * 8
    assert rig.one("m100000,1") == b"E01"
    assert rig.one("M100000,1:00").startswith(b"E.0x100000: no memory")
    # The linear address space ends at 4 GiB outside 64-bit mode.
    assert len(rig.one("mfffffff8,10")) == 2 * 8
    assert rig.one("m100000000,1") == b"E01"


def test_two_clients_of_the_debugger_do_not_share_breakpoints(rig: Rig) -> None:
    mine = rig.worker.call(lambda: rig.debugger.add_breakpoint(BreakKind.EXECUTE, 0xF0100))
    rig.ask("Z0,f0100,1")
    rig.ask("Z2,500,2")
    assert {p.owner for p in rig.debugger.breakpoint_list()} == {"prompt", "gdb"}
    rig.worker.call(rig.session.disconnected)
    assert [p.id for p in rig.debugger.breakpoint_list()] == [mine.id]


def test_a_breakpoint_that_the_prompt_has_deleted_can_still_be_removed(rig: Rig) -> None:
    rig.ask("Z0,f0100,1")
    (point,) = rig.debugger.breakpoint_list()
    rig.worker.call(lambda: rig.debugger.remove_breakpoint(point.id))
    assert rig.one("z0,f0100,1") == b"OK"


def test_exit_code_of_the_guest(rigs: Callable[..., Rig]) -> None:
    rig = rigs(rom("mov al, 0x2a\n out 0xf4, al\n hlt"))
    console, stop = rig.resume()
    assert console[:1] == b"O"
    assert stop == b"W2a"


def test_a_triple_fault_is_told_in_words_with_its_chain(rigs: Callable[..., Rig]) -> None:
    rig = rigs(rom("lidt [cs:none]\n ud2", "none: dw 0\n dd 0"))
    console, stop = rig.resume()
    assert stop.startswith(b"T06")
    text = bytes.fromhex(console[1:].decode()).decode()
    assert "triple fault" in text
    assert "UD" in text
    answers = rig.ask("vCont;c") or rig.wait()  # asked again, it answers again
    assert answers


def test_a_halt_that_nothing_ends_is_told_in_words(rigs: Callable[..., Rig]) -> None:
    rig = rigs(rom("cli\n hlt"))
    console, stop = rig.resume()
    assert stop.startswith(b"T06")
    assert bytes.fromhex(console[1:].decode()).startswith(b"HLT with interrupts off at f000:")


def test_restart_and_kill(rig: Rig) -> None:
    rig.ask("!")
    rig.resume("s")
    assert rig.one("vRun;").startswith(b"T05")
    assert rig.register("eip") == 0xFFFFFFF0
    rig.ask("vKill;1")
    assert not rig.killed.is_set()
    rig.worker.call(rig.session.disconnected)
    assert rig.killed.is_set()


def test_detach_lets_it_run(rig: Rig) -> None:
    assert rig.one("D") == b"OK"
    assert rig.worker.running


def test_the_description_follows_the_mode(rigs: Callable[..., Rig]) -> None:
    rig = rigs(tour.rom(), memory=16 << 20)
    for name, architecture, pc in (
        ("pm32", "i386", "eip"),
        ("long64", "i386:x86-64", "rip"),
        ("real-again", "i8086", "eip"),
    ):
        linear = next(s.linear for s in tour.stops() if s.name == name)
        rig.ask(f"Z1,{linear:x},1")
        rig.resume()
        xml = rig.one("qXfer:features:read:target.xml:0,1ffff").decode()
        assert f"<architecture>{architecture}</architecture>" in xml
        description = rig.target.describe()
        rig.names = [r.name for r in description.registers]
        assert rig.register(pc) == linear
        told = rig.worker.call(lambda: rig.target.expedite(1, description))  # noqa: B023 - called at once
        values = rig.worker.call(lambda: rig.target.read_registers(1, description.expedited))  # noqa: B023
        assert told == description.expedited_form % tuple(value.hex() for value in values if value is not None)


def test_the_whole_with_a_socket(rig: Rig) -> None:
    server = serve_debugger(rig.debugger, rig.worker, "0", run_command=lambda text: text.upper())
    rig.worker.call(rig.session.disconnected)
    try:
        assert server.start().startswith("127.0.0.1:")
        assert not server.connected
    finally:
        server.close()


def test_a_write_of_what_is_there_is_taken_whatever_the_register_and_loads_no_segment_anew(rig: Rig) -> None:
    for name, value in (("ds_base", 0x12340), ("ds_limit", 0xFFFFFFFF), ("es_limit", 0xFFF)):
        assert rig.write(name, value) == b"OK"  # a DS as no selector gives it
    before = rig.one("g")
    for name in rig.names:
        assert rig.write(name, rig.register(name)) == b"OK", name
    assert rig.one("g") == before


def test_icount_takes_back_what_it_was_when_registers_were_written_and_nothing_else(rig: Rig) -> None:
    rig.resume("vCont;s")
    began = rig.register("icount")
    assert rig.write("icount", began - 1).startswith(b"E.icount says how many")
    assert rig.write("esp", 0x7000) == b"OK"
    rig.resume("vCont;s")
    rig.resume("vCont;s")
    assert rig.write("esp", 0x7000) == b"OK"
    assert rig.write("icount", began) == b"OK"
    for wrong in (began + 1, began - 1, 1 << 40):
        assert rig.write("esp", 0x7000) == b"OK"
        assert rig.write("icount", wrong).startswith(b"E.icount says how many")
    assert rig.register("icount") == began + 2
    assert rig.write("icount", began).startswith(b"E.icount says how many")  # a person's, whatever it once was


def test_what_had_moved_with_another_register_before_it_was_saved_is_not_written_back(rig: Rig) -> None:
    """As gdb does: eip written, all saved, eip written to a function, run, all written back."""
    rig.ask("Mf0130,20:" + "90" * 0x20)
    rig.ask("Z1,f0120,1")
    rig.resume()
    stale, base = rig.register("ip"), rig.register("es_base")
    assert rig.write("eip", 0xF0130) == b"OK"
    assert rig.write("es", 0x2000) == b"OK"
    assert rig.write("eip", 0xF0140) == b"OK"
    rig.resume("vCont;s")
    for name, value in (("eip", 0xF0130), ("es", 0x2000), ("ip", stale), ("es_base", base)):
        assert rig.write(name, value) == b"OK"
    assert (rig.register("eip"), rig.register("es_base")) == (0xF0130, 0x20000)
    assert rig.write("eip", 0xF0150) == b"OK"
    assert rig.write("ip", stale) == b"OK"  # from elsewhere that is where somebody wants to go
    assert rig.register("ip") == stale
    rig.ask("Mf0130,3:90ebfd")
    assert rig.write("eip", 0xF0130) == b"OK"
    for _ in range(2):
        rig.resume("vCont;s")
    assert rig.register("eip") == 0xF0130
    assert rig.write("ip", stale) == b"OK"  # and where the guest has come to by itself
    assert rig.register("ip") == stale
    for name, value in (("es_base", base), ("ip", stale)):  # or each by itself, as persons write
        assert rig.write(name, value) == b"OK"
        assert rig.register(name) == value


def test_a_register_can_be_given_back_what_another_has_taken_from_it(rig: Rig) -> None:
    """A person's writes, between which gdb asks for registers."""
    rig.ask("QStartNoAckMode")
    for name, value in (("eip", 0xFFFF0130), ("ip", 0x140), ("eip", 0xFFFF0130), ("ds", 0x10), ("ds_base", 0)):
        assert rig.write(name, value) == b"OK"
        assert rig.register(name) == value
    assert rig.write("ds_base", 0x100) == b"OK"
    assert rig.write("ip", 0x140) == b"OK"  # a lower one: no row
    assert rig.register("ip") == 0x140


def test_what_is_remembered_of_writes_is_bounded() -> None:
    restored = Restored()
    for count in range(2 * REMEMBERED):
        now = {"esp": bytes([count & 1]), "icount": count.to_bytes(8, "little")}
        restored.wrote("esp", count, now, now)
    held = [restored.is_saved("icount", count.to_bytes(8, "little"), 0, {}) for count in range(2 * REMEMBERED)]
    assert held == [False] * REMEMBERED + [True] * REMEMBERED
