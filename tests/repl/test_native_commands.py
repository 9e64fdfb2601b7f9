"""The commands of native execution: who executes is shown, forced, forbidden and priced in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from emu.debugger import Debugger
from emu.firmware.roms import tour_rom
from emu.ledger import Costs
from emu.machine import MachineConfig, build_machine
from emu.policies import policy_named
from emu.record import replace
from emu.transitions import NativeConfig
from emu.worker import Worker
from emu.x86.vmentry import Broken, Rules
from machines import rom
from repl.command import Result
from repl.commands import all_commands
from repl.render import result_text, view_lines
from repl.session import FAILURES, Session
from repl.style import Style
from xenbridge.model import make_model

#: Counts at 500h for ever, and says so to the debug console.
COUNTING = """
    mov ss, ax
    mov ds, ax
    mov sp, 0x7000
    mov al, "x"
main:
    call count
    out 0xe9, al
    jmp main
    times 0x20-($-$$) nop
count:
    inc word [0x500]
    ret
"""
Say = Callable[[str], str]


@pytest.fixture
def session() -> Iterator[Session]:
    native = NativeConfig(make_model(), policy_named("auto", Costs()), Costs())
    target = Debugger(build_machine(MachineConfig(memory=1 << 20, firmware=rom(COUNTING), native=native)))
    worker = Worker(target)
    worker.start()
    yield Session(target, worker, all_commands())
    worker.close()
    target.machine.close()


@pytest.fixture
def say(session: Session) -> Say:
    return lambda line: result_text(session.execute(line), Style())


def refusal(session: Session, line: str) -> str:
    with pytest.raises(FAILURES) as caught:
        session.execute(line)
    return str(caught.value)


def test_at_reset_the_rule_that_keeps_the_cpu_emulated_is_said(say: Say) -> None:
    lines = say("transitions").splitlines()
    assert lines[0] == "the CPU is emulated; rules vtx2006"
    assert lines[1] == "policy auto"
    assert "CS base 0xffff0000 is not selector 0xf000 << 4" in lines[-1]


def test_moves_are_shown_with_their_reasons_and_are_events(say: Say) -> None:
    say("step 100")
    assert say("transitions").startswith("the CPU is native, on model")
    assert "native  000f" in say("transitions")
    assert "enterable" in say("journal 9 transition")
    assert say("emulate") == "the CPU is emulated; emulated is forced"
    assert "forced" in say("transitions").splitlines()[-1]


def test_native_is_refused_with_its_reasons_and_allowed_later(session: Session, say: Say) -> None:
    assert refusal(session, "native").startswith("native execution is refused: real mode runs as virtual 8086 here: CS")
    say("step 5")
    assert say("native") == "the CPU is native, on model; native is forced"
    assert say("force off") == "the CPU is native, on model; policy auto"
    assert say("force emulated") == "the CPU is emulated; emulated is forced"
    assert "'sideways' is none of native, emulated, off" in refusal(session, "force sideways")


def test_emulation_for_some_instructions_ends_by_itself(session: Session, say: Say) -> None:
    say("step 100")
    assert say("emulate 50") == "the CPU is emulated; policy auto"
    say("step 49")
    assert not session.debugger.steering.native
    say("step 10")
    assert session.debugger.steering.native


def test_a_policy_is_chosen_by_name(session: Session, say: Say) -> None:
    assert say("policy dwell:7") == "dwell:7\n  emulated for 7 instructions behind each exit"
    assert say("policy").startswith("dwell:7")
    assert say("policy learn").startswith("learn")
    assert "no policy is called 'fast'" in refusal(session, "policy fast")
    assert "a dwell of 0 instructions" in refusal(session, "policy dwell:0")


def test_where_native_execution_is_forbidden_it_is_not(session: Session, say: Say) -> None:
    assert say("forbid") == "nothing is forbidden"
    assert say("forbid f000:0020-f000:0030") == "0xf0020-0xf0030"
    assert say("forbid big real") == "0xf0020-0xf0030, big real"
    assert "ends before it begins" in refusal(session, "forbid 5-4")
    assert refusal(session, "forbid 5-").startswith("'5-' has no end: give both")
    assert refusal(session, "forbid -5").startswith("'-5' has no beginning")
    assert "nor a mode" in refusal(session, "forbid sideways")
    say("step 100")
    for _ in range(20):
        say("step")
        if 0xF0020 <= session.debugger.machine.executor.linear_pc <= 0xF0030:
            assert not session.debugger.steering.native or "forbidden" in say("transitions")
    assert say("forbid off") == "nothing is forbidden"


def test_the_ledger_adds_up_and_is_cleared(session: Session, say: Say) -> None:
    say("step 200")
    view = session.debugger.steering.ledger()
    prices = dict(view.costs)
    assert view.cycles == (
        sum(count for _, count in view.exits) * prices["exit"] + (view.hops_in + view.hops_out) * prices["hop"]
        + view.native * prices["native"] + view.emulated * prices["emulated"]
    )  # fmt: skip
    assert view.native + view.emulated == 200
    assert f"{view.cycles}" in say("ledger")
    assert "pio" in say("ledger")
    say("ledger clear")
    assert session.debugger.steering.ledger().cycles == 0
    assert "'all' is not `clear`" in refusal(session, "ledger all")


def test_the_segments_say_which_of_them_keeps_the_state_out(say: Say) -> None:
    lines = {line.split()[0]: line for line in say("sreg").splitlines()[1:]}
    assert "CS base 0xffff0000 is not selector" in lines["cs"]
    assert lines["ds"].split()[-1] == "yes"
    assert "CS base" not in say("sreg svm")


def test_catches_of_entry_stop_where_the_state_changes(session: Session, say: Say) -> None:
    assert say("catch enterable") == "1  catch  enterable vtx2006"
    assert "the state can be entered by vtx2006; now at f000:0000" in say("continue")
    assert say("tcatch unenterable svm") == "2  catch  unenterable svm  once"
    assert "no rules are called 'vmx'" in refusal(session, "catch enterable vmx")


def test_without_a_hypervisor_that_is_said() -> None:
    target = Debugger(build_machine(MachineConfig(memory=1 << 20, firmware=rom(COUNTING))))
    worker = Worker(target)
    worker.start()
    try:
        session = Session(target, worker, all_commands())
        for line in ("transitions", "policy", "native", "emulate", "forbid", "ledger", "force off"):
            assert "--hypervisor" in refusal(session, line)
    finally:
        worker.close()
        target.machine.close()


def test_no_segment_is_said_to_be_native_where_a_control_register_is_refused(session: Session, say: Say) -> None:
    assert " yes" in say("sreg vtx2006")
    rules = Rules("strict", "a rule of CR0", lambda state: iter((Broken("cr0", "CR0 is refused", "here"),)))
    rows = session.debugger.native_segments(rules)
    assert {row.native for row in rows} == {"no, for cr0: see why"}


def test_a_ledger_of_a_cpu_that_does_not_count_says_so(session: Session, say: Say) -> None:
    view = session.debugger.steering.ledger()
    assert view.counts and "not counted" not in say("ledger")
    text = result_text(Result((replace(view, counts=False),)), Style())
    (row,) = [line for line in text.splitlines() if line.startswith("instructions native")]
    assert row.split() == ["instructions", "native", "not", "counted", "1", "-"]
    assert "in all is without native instructions" in text


def test_transitions_have_totals_first_then_reasons_then_moves_then_sites() -> None:
    native = NativeConfig(make_model(), policy_named("learn", Costs()), Costs())
    machine = build_machine(MachineConfig(firmware=tour_rom(), shadow=False, native=native))
    machine.run(16_000)
    run = Debugger(machine)
    run.steering.forbid([(0x1000, 0x1FFF)], [])
    lines = view_lines(run.steering.view(), Style())
    heads = ("the CPU is ", "policy learn", "in all: ", "forbidden: ", "the state cannot be entered:", "exit sites:")
    places = [next(n for n, line in enumerate(lines) if line.startswith(head)) for head in heads]
    assert places == sorted(places)
    ledger = run.steering.ledger()
    exits = sum(count for _, count in ledger.exits)
    assert lines[places[2]] == (
        f"in all: {ledger.native} instructions native, {ledger.emulated} emulated; {exits} exits,"
        f" {ledger.hops_in + ledger.hops_out} hops; {ledger.cycles} cycles"
    )
    machine.close()
