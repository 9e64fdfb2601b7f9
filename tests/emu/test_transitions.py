"""Who executes is no part of the guest: moves between emulator and native CPU, at any place, change nothing."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from emu.catches import ENTRY_CLASSES, PLAIN_CLASSES, TABLES, Catch, CatchKind
from emu.debugger import BreakKind, Debugger, StopKind
from emu.engine import Access, ExitReason, Watch
from emu.firmware.roms import tour_rom
from emu.ledger import Costs, Ledger, parse_costs
from emu.machine import Machine, MachineConfig, MachineExit, MachineStop, build_machine
from emu.policies import policy_named
from emu.transitions import EntryRefused, NativeConfig, Transitions
from emu.vcpu import ExitCause, Site, VmExit
from emu.views import FingerprintView
from emu.x86.modes import Mode
from emu.x86.state import CpuState, Fpu, Segment
from emu.x86.vmentry import RULES, VTX2006, Rules
from machines import pic, protected, rom
from xenbridge.model import make_model

TABLE_CLASSES = sum(map(int, TABLES.values()))
POLICIES = ("emulated", "native", "dwell:1", "dwell:100", "dwell:10000", "learn")
#: Instructions of the tour, and more than it has.
TOUR_LENGTH, ENOUGH = 87_681, 200_000
#: Instructions in which it has been native in real mode, and in protected mode of both widths.
PART = 30_000
#: The tour's round trips are at as many places; `make soak` takes 1,000.
ROUND_TRIPS = 100


def tour(
    policy: str | None, *, slice: int | None = None, costs: Costs | None = None, rules: Rules = VTX2006
) -> Machine:
    native = (
        None
        if policy is None
        else NativeConfig(make_model(rules), policy_named(policy, costs or Costs()), costs or Costs())
    )
    return build_machine(MachineConfig(firmware=tour_rom(), shadow=False, slice=slice, native=native))


class Whole(NamedTuple):
    """The end of a run, the guest at that instant, and what it has cost."""

    exit: MachineExit
    fingerprint: FingerprintView
    ledger: Ledger


def transitions_of(machine: Machine) -> Transitions:
    assert machine.transitions is not None
    return machine.transitions


@pytest.fixture(scope="module")
def expected() -> tuple[FingerprintView, str]:
    """The tour without a hypervisor: its fingerprint, and its journal without what a hypervisor adds."""
    machine = tour(None)
    assert machine.run(ENOUGH).reason is MachineStop.EXIT
    found = machine.fingerprint(), _story(machine)
    machine.close()
    return found


def _story(machine: Machine) -> str:
    """What happened to the guest."""
    return "\n".join(f"{e.retired} {e.kind} {e.text}" for e in machine.journal if e.kind != "transition")


@pytest.fixture
def made() -> Iterator[Callable[..., Machine]]:
    """Makes machines that are closed."""
    machines: list[Machine] = []

    def make(*args: object, **more: object) -> Machine:
        machines.append(tour(*args, **more))  # type: ignore[arg-type]
        return machines[-1]

    yield make
    for machine in machines:
        machine.close()


@pytest.fixture(scope="module")
def whole() -> Callable[..., Whole]:
    """What became of the tour that ran in one piece, by policy and rules: such a run is made once."""

    @functools.cache
    def run(policy: str, rules: Rules) -> Whole:
        machine = tour(policy, rules=rules)
        found = Whole(machine.run(ENOUGH), machine.fingerprint(), transitions_of(machine).ledger)
        machine.close()
        return found

    return lambda policy, rules=VTX2006: run(policy, rules)


@pytest.mark.slow_variants
@pytest.mark.parametrize(
    "policy", [pytest.param(p, marks=pytest.mark.slow) if p in ("dwell:1", "learn") else p for p in POLICIES]
)
def test_the_tour_is_the_same_under_every_policy(
    policy: str, expected: tuple[FingerprintView, str], whole: Callable[..., Whole]
) -> None:
    exit, fingerprint, ledger = whole(policy)
    assert (exit.reason, exit.code) == (MachineStop.EXIT, 0)
    assert fingerprint == expected[0]
    assert ledger.native + ledger.emulated == TOUR_LENGTH
    assert bool(ledger.native) == (policy != "emulated")


@pytest.mark.slow_variants
@pytest.mark.parametrize("rules", RULES)
def test_later_cpus_enter_more_states(
    rules: str, expected: tuple[FingerprintView, str], whole: Callable[..., Whole]
) -> None:
    """Unrestricted guest and SVM run real mode as it is."""
    _, fingerprint, ledger = whole("native", RULES[rules])
    assert fingerprint == expected[0]
    before = whole("native").ledger
    real = (ExitCause.SOFTWARE_INTERRUPT, ExitCause.EXCEPTION, ExitCause.DESCRIPTOR)
    assert any(before.exits[cause] for cause in real)
    if rules != "vtx2006":
        assert not any(ledger.exits[cause] for cause in real)
        assert ledger.emulated < before.emulated


@pytest.mark.slow_variants
@pytest.mark.parametrize("slice", [pytest.param(1, marks=pytest.mark.slow), 7, 1000])
def test_slices_change_neither_the_guest_nor_the_ledger(
    slice: int, expected: tuple[FingerprintView, str], made: Callable[..., Machine], whole: Callable[..., Whole]
) -> None:
    pieces = made("dwell:100", slice=slice)
    pieces.run(ENOUGH)
    assert pieces.fingerprint() == expected[0]
    assert transitions_of(pieces).ledger == whole("dwell:100").ledger


def test_costs_change_the_ledger_and_nothing_else(
    expected: tuple[FingerprintView, str], made: Callable[..., Machine]
) -> None:
    machine = made("dwell:100", costs=parse_costs("exit=1,hop=2,emulated=3,native=4"))
    machine.run(ENOUGH)
    ledger = transitions_of(machine).ledger
    exits, hops = sum(ledger.exits.values()), ledger.hops_in + ledger.hops_out
    assert ledger.cycles == exits + 2 * hops + 3 * ledger.emulated + 4 * ledger.native
    assert machine.fingerprint() == expected[0]


def test_a_dwell_saves_exits(whole: Callable[..., Whole]) -> None:
    native, dwell = (sum(whole(policy).ledger.exits.values()) for policy in ("native", "dwell:100"))
    assert native > 100 * dwell


def round_trips(machine: Machine, places: list[int]) -> int:
    """Force a move each way at each of the places (instructions retired) where the state can be entered; how many
    were."""
    transitions, moved = transitions_of(machine), 0
    for place in places:
        if machine.run(place).reason is not MachineStop.LIMIT:
            break
        machine.service()
        state = transitions.state()
        if transitions.vcpu.refused(state):
            with pytest.raises(EntryRefused):
                transitions.force(True)
            continue
        transitions.force(True)
        assert transitions.state() == state
        machine.run(place + 1)
        transitions.force(False)
        moved += 1
    return moved


@pytest.mark.parametrize("count", [ROUND_TRIPS, pytest.param(1000, marks=pytest.mark.slow)])
def test_round_trips_at_any_place_change_nothing(
    count: int, expected: tuple[FingerprintView, str], made: Callable[..., Machine]
) -> None:
    machine = made("emulated")
    places = sorted(random.Random(count).sample(range(1, TOUR_LENGTH), count))
    assert round_trips(machine, places) > count // 3
    assert machine.run(ENOUGH).reason is MachineStop.EXIT
    assert machine.fingerprint() == expected[0]
    # the journal holds so many events, moves among them
    assert (story := _story(machine)) and expected[1].endswith(story)


def test_a_move_keeps_every_part_of_the_state(made: Callable[..., Machine]) -> None:
    """Of a state in which nothing is as RESET leaves it."""
    machine = made("emulated")
    transitions, numbers = transitions_of(machine), random.Random(6)
    state = _crowded(numbers)
    transitions.load(state)
    before = transitions.state()
    for native in (True, False, True):
        transitions.force(native)
        assert transitions.state() == before, "native" if native else "emulated"
    for name in ("regs", "dr", "fpu", "shadow", "nmi_blocked", "cr8", "cr2", "efer"):
        assert getattr(before, name) == getattr(state, name), name


def _crowded(numbers: random.Random) -> CpuState:
    """In 64-bit mode at ring 0, behind a MOV SS, with NMIs blocked."""
    state = CpuState(rip=0x7C00, rflags=0x202, cr0=0x80000011, cr4=0x620, efer=0x500)
    state.regs = [numbers.getrandbits(64) for _ in range(16)]
    state.cs, state.ss = Segment(8, 0, 0xFFFFFFFF, 0xA09B), Segment(16, 0, 0xFFFFFFFF, 0xC093)
    state.ds, state.es = Segment(16, 0, 0xFFFFFFFF, 0xC093), Segment(24, 0, 0xFFFFF, 0x4093)
    state.fs = Segment(0, numbers.getrandbits(47), 0xFFFFFFFF, 0xC093)
    state.tr = Segment(0x28, 0x5000, 0x67, 0x8B)
    state.cr2, state.cr3, state.cr8 = numbers.getrandbits(47), 0x1000, 9
    state.dr = [numbers.getrandbits(47) & ~7 for _ in range(4)] + [0, 0, 0xFFFF0FF1, 0x00000400]
    state.shadow, state.nmi_blocked = True, True
    state.fpu = Fpu(fcw=0x27F, fsw=0x3000, ftw=0xFF, mxcsr=0x1FA0)
    state.fpu.st = [numbers.getrandbits(80) for _ in range(8)]
    state.fpu.xmm = [numbers.getrandbits(128) for _ in range(16)]
    return state


@pytest.mark.slow
def test_a_saved_machine_does_not_know_who_executed(
    expected: tuple[FingerprintView, str], made: Callable[..., Machine]
) -> None:
    native, emulated = made("native"), made(None)
    native.run(40_000)
    emulated.run(40_000)
    assert transitions_of(native).native
    state = native.save()
    assert state.cpu == emulated.save().cpu
    emulated.restore(state)
    assert emulated.run(ENOUGH).reason is MachineStop.EXIT
    native.run(45_000)
    native.restore(state)
    assert native.run(ENOUGH).reason is MachineStop.EXIT
    assert native.fingerprint() == emulated.fingerprint() == expected[0]


@pytest.mark.slow
@pytest.mark.parametrize("length", [PART, 2 * PART])
def test_a_run_stops_at_the_same_breakpoints_and_watchpoints_on_either_side(
    length: int, made: Callable[..., Machine]
) -> None:
    stories = []
    for policy in (None, "native", "dwell:5"):
        machine, story = made(policy), []
        executor = machine.executor
        executor.set_watchpoints([Watch(0x500, 16, Access.WRITE)])
        machine.run(20_000)
        points = {executor.linear_pc}
        executor.set_breakpoints(points)
        while True:
            skip = bool(story) and story[-1][0] is MachineStop.BREAKPOINT
            exit = machine.run(length, skip_breakpoint=skip)
            hit = exit.exit.hit if exit.exit is not None else None
            story.append((exit.reason, executor.retired, executor.linear_pc, hit))
            if exit.reason not in (MachineStop.BREAKPOINT, MachineStop.WATCHPOINT):
                break
        stories.append(story)
    assert len(stories[0]) > 2
    assert stories[0] == stories[1] == stories[2]


def test_native_is_refused_with_every_reason_where_it_cannot_be(made: Callable[..., Machine]) -> None:
    machine = made("native")
    with pytest.raises(EntryRefused, match="CS base 0xffff0000 is not selector 0xf000 << 4"):
        transitions_of(machine).force(True)
    assert not transitions_of(machine).native


def test_an_entry_that_fails_says_why_and_changes_nothing(made: Callable[..., Machine]) -> None:
    machine = made("native")
    vcpu = transitions_of(machine).vcpu
    state = machine.executor.state()
    vcpu.load(state)
    exit = vcpu.enter(10, None, skip_breakpoint=False)
    assert exit.cause is ExitCause.ENTRY_FAILED
    assert "CS base 0xffff0000" in exit.detail
    assert vcpu.state() == state


@pytest.mark.slow
def test_forbidden_places_and_modes_are_never_native(
    expected: tuple[FingerprintView, str], made: Callable[..., Machine]
) -> None:
    machine = made("native")
    transitions, debugger = transitions_of(machine), Debugger(machine)
    debugger.steering.forbid([(0xF0100, 0xF01FF)], [Mode.PROTECTED32])
    for place in range(50, TOUR_LENGTH, 97):
        if machine.run(place).reason is not MachineStop.LIMIT:
            break
        if transitions.native:
            assert not 0xF0100 <= transitions.linear_pc <= 0xF01FF
            assert debugger.mode() is not Mode.PROTECTED32
    assert transitions.ledger.exits[ExitCause.FORBIDDEN] > 0
    machine.run(ENOUGH)
    assert machine.fingerprint() == expected[0]


def test_a_state_that_cannot_be_entered_for_long_is_looked_at_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes as long as some thousand instructions do. Yet 65,536 instructions after it can be, it is entered."""
    native = NativeConfig(make_model(), policy_named("native", Costs()), Costs())
    machine = build_machine(MachineConfig(firmware=rom("again: inc eax\njmp again"), shadow=False, native=native))
    looks: list[bool] = []
    can = False

    def enterable(state: CpuState) -> bool:
        looks.append(can)
        return can

    transitions = transitions_of(machine)
    monkeypatch.setattr(transitions.vcpu, "enterable", enterable)
    machine.run(2_000_000)
    assert not transitions.native and len(looks) <= 2_000_000 // 65_536 + 13
    can = True
    machine.run(2_000_000 + 65_536)
    assert transitions.native
    machine.close()


@pytest.mark.slow
def test_a_look_ahead_is_not_counted(made: Callable[..., Machine]) -> None:
    machine = made("native")
    debugger = Debugger(machine)
    machine.run(16_000)
    transitions = transitions_of(machine)
    transitions.forced = None
    before = machine.fingerprint(), transitions.native, transitions.ledger.emulated, transitions.ledger.native
    debugger.why(transitions.vcpu.rules)
    after = machine.fingerprint(), transitions.native, transitions.ledger.emulated, transitions.ledger.native
    assert after == before


def test_a_request_to_stop_ends_a_native_run(made: Callable[..., Machine]) -> None:
    machine = made("native")
    machine.run(40_000)
    assert transitions_of(machine).native
    machine.executor.request_stop()
    exit = machine.executor.run(1000)
    assert (exit.reason, exit.executed) == (ExitReason.REQUEST, 0)


@pytest.mark.parametrize("length", [PART, pytest.param(ENOUGH, marks=pytest.mark.slow)])
def test_stops_of_the_debugger_change_no_exits(length: int, made: Callable[..., Machine]) -> None:
    """A catch of control registers and table loads, which are exits as well, and of states that cannot be entered."""
    counts = []
    for catches in ((), (CatchKind.CR, CatchKind.TABLE), (CatchKind.UNENTERABLE,)):
        machine = made("native")
        debugger = Debugger(machine)
        debugger.set_limit(length)
        for kind in catches:
            classes = ENTRY_CLASSES if kind is CatchKind.UNENTERABLE else PLAIN_CLASSES.get(kind, TABLE_CLASSES)
            debugger.add_catch(Catch(kind, classes=classes, rules=VTX2006 if kind is CatchKind.UNENTERABLE else None))
        stops = 0
        while True:
            debugger.begin_continue()
            if debugger.run().kind in (StopKind.EXIT, StopKind.LIMIT):
                break
            stops += 1
        assert bool(stops) == bool(catches)
        assert transitions_of(machine).ledger.native
        counts.append(transitions_of(machine).ledger.exits)
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("native", [30, 2000])
def test_learn_never_goes_native_where_emulation_is_no_slower(native: int) -> None:
    """Not at the beginning either: no exit may ever come, and each native instruction costs as much or more."""
    machine = tour("learn", costs=parse_costs(f"emulated=30,native={native}"))
    machine.run(PART)
    transitions = transitions_of(machine)
    assert transitions.ledger.hops_in == transitions.ledger.native == 0
    assert transitions.policy.shown() == (
        f"everything is emulated: an instruction costs 30 cycles emulated and {native} native",
    )
    transitions.force(True)
    machine.run(PART + 10)
    assert transitions.ledger.native, "a person may have it native all the same"
    machine.close()


def test_a_ledger_is_cleared_with_its_prices_kept() -> None:
    ledger = Ledger(parse_costs("exit=5"))
    ledger.exits[ExitCause.PIO] += 3
    assert ledger.cycles == 15
    ledger.clear()
    assert (ledger.cycles, ledger.costs.exit) == (0, 5)


#: Counts at 500h, and is at `here` once a turn. The handler of IRQ 1 reads CR0 and writes to the 8259.
TICKING = f"""
    mov ss, ax
    mov sp, 0x7000
    mov word [9 * 4], tick
    mov word [9 * 4 + 2], 0xf000
    {pic(mask=0xFD)}
    sti
    jmp here
    times 0x80-($-$$) nop
here:
    inc word [0x500]
    jmp here
tick:
    push ax
    mov eax, cr0
    mov al, 0x20
    out 0x20, al
    times 40 nop
    pop ax
    iret
"""
HERE, TURNS = 0xF0080, 200


@pytest.mark.parametrize("policy", ["native", "dwell:20", "dwell:7"])
def test_a_breakpoint_is_met_once_a_turn_whoever_serves_the_interrupts(policy: str) -> None:
    """Each seventh time an interrupt comes before the instruction that is resumed from, and its handler hops."""
    stories = []
    for native in (None, NativeConfig(make_model(), policy_named(policy, Costs()), Costs())):
        target = Debugger(build_machine(MachineConfig(memory=1 << 20, firmware=rom(TICKING), native=native)))
        target.add_breakpoint(BreakKind.EXECUTE, HERE)
        story = []
        for turn in range(TURNS):
            if turn % 7 == 5:  # an interrupt comes before the instruction that stands here
                for level in (False, True):
                    target.machine.board.pic.set_irq(1, level)
            target.begin_continue()
            stop = target.run()
            story.append((stop.retired, stop.linear_pc, target.read_linear(0x500, 2)))
        stories.append(story)
        assert [int.from_bytes(count, "little") for _, _, count in story] == list(range(TURNS))
        target.machine.close()
    assert stories[0] == stories[1]


@pytest.mark.parametrize("dwell", [20, 100, 1000])
def test_a_dwell_behind_a_failed_entry_is_not_begun_twice(dwell: int) -> None:
    """The state at RESET cannot be entered, and is looked at again behind 16 instructions. The OUT, the fifth of the
    run, comes before, where it can be: the CPU is native as soon as the dwell behind it has ended."""
    config = NativeConfig(make_model(VTX2006), policy_named(f"dwell:{dwell}", Costs()), Costs())
    machine = build_machine(
        MachineConfig(firmware=rom("out 0x70, al\nw: jmp w"), memory=1 << 20, shadow=False, native=config)
    )
    machine.run(5000)
    transitions = transitions_of(machine)
    assert [(move.retired, move.native) for move in transitions.history] == [(5 + dwell, True)]
    assert (transitions.ledger.failed, transitions.ledger.caught) == (1, 1)
    machine.close()


#: In a segment of 16 bits, and back in real mode with ES left from there for some instructions; then three accesses.
LEAVING = """
    bits 16
switched:
    mov bx, 0x10
    mov es, bx
    mov cx, 1000
spin:
    loop spin
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    jmp 0xf000:left
left:
    mov es, cx
    mov cx, 20
hold:
    loop hold
    out 0x70, al
    out 0x70, al
    out 0x70, al
done:
    jmp done
"""
DESCRIPTORS = "dq 0x00009b0f0000ffff\n dq 0x000093000000ffff"


class _Behind:
    """Native behind each exit; behind an access in the emulator it keeps the CPU for 300 instructions."""

    name, enters, learns, sees_all, fixed = "behind", True, True, False, None

    def __init__(self) -> None:
        self.asked: list[tuple[ExitCause, bool]] = []
        self.gaps: list[int] = []

    def dwell(self, exit: VmExit, native: bool) -> int:
        self.asked.append((exit.cause, native))
        return 0 if native else 300

    def hit(self, site: Site, gap: int) -> None:
        self.gaps.append(gap)

    def missed(self, site: Site, gap: int, emulated: int, counted: bool) -> None: ...
    def moved(self) -> None: ...

    def shown(self) -> tuple[str, ...]:
        return ()


def test_behind_an_exit_that_leaves_a_state_not_to_be_entered_the_policy_says_how_long_to_emulate() -> None:
    """It wants to remain native behind the write to CR0, and cannot: the accesses some 30 instructions later, in a
    state that has long been one to be entered again, are within the dwell that it wants in the emulator."""
    policy = _Behind()
    config = NativeConfig(make_model(VTX2006), policy, Costs())
    firmware = rom(protected("8:switched", DESCRIPTORS), LEAVING)
    machine = build_machine(MachineConfig(firmware=firmware, memory=1 << 20, shadow=False, native=config))
    machine.run(5000)
    ledger = transitions_of(machine).ledger
    (move,) = (move for move in transitions_of(machine).history if "cannot be entered again" in move.reason)
    assert not move.native
    assert (ledger.exits[ExitCause.PIO], ledger.caught) == (0, 3)
    behind = policy.asked.index((ExitCause.CR, True))
    assert policy.asked[behind : behind + 3] == [
        (ExitCause.CR, True), (ExitCause.CR, False), (ExitCause.PIO, False)
    ]  # fmt: skip
    assert policy.gaps == [24, 1, 1]  # JMP, MOV, MOV, 20 turns, OUT
    machine.close()
