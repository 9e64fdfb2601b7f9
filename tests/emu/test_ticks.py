"""IRQ 0 from counter 0 of the 8254 in runs of the helper, which passes the edges of OUT by itself: the same as by
Python's timer, which the portable loop has, to the instruction."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from emu.debugger import Debugger
from emu.machine import Machine
from emu.stops import BreakKind, StopKind
from machines import debugger, rom
from run_loops import needs_helper

#: Both 8259 from 20h on, IRQ 0's handler at `timer`, COM1's at `serial`, all others at `other`, each of which ends its
#: interrupt. What is seen goes from 1000h on.
BEGIN = """
    mov es, ax
    mov ss, ax
    mov sp, 0x7000
    mov cx, 256
    xor di, di
vector:
    mov word [di], other
    mov [di+2], cs
    add di, 4
    loop vector
    mov word [0x20*4], timer
    mov word [0x24*4], serial
    mov di, 0x1000
    cld
    call program
    mov al, 0x34
    out 0x43, al
    mov al, COUNT & 255
    out 0x40, al
    mov al, COUNT >> 8
    out 0x40, al
    mov dx, 0x3FC
    mov al, 8
    out dx, al
    mov word [0x500], TURNS
    sti
turn:
"""
END = """
    dec word [0x500]
    jnz near turn
    cli
    mov al, 0
    out 0xf4, al
    hlt
program:
    mov al, 0x11
    out 0x20, al
    out 0xA0, al
    mov al, 0x20
    out 0x21, al
    mov al, 0x28
    out 0xA1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xA1, al
    mov al, 1
    out 0x21, al
    out 0xA1, al
    mov al, 0
    out 0x21, al
    out 0xA1, al
    ret
serial:
    push ax
    push dx
    mov dx, 0x3FA
    in al, dx
    stosb
    mov al, 0x64
    out 0x20, al
    pop dx
    pop ax
    iret
other:
    push ax
    inc byte [0x504]
    mov al, 0x20
    out 0xA0, al
    out 0x20, al
    pop ax
    iret
timer:
    push ax
    inc word [0x502]
"""
HANDLERS = (
    "mov al, 0x20\nout 0x20, al\npop ax\niret",
    "mov al, 0x60\nout 0x20, al\npop ax\niret",
    # as Linux: masked, ended, unmasked, with the counter read for a clock
    "in al, 0x21\npush ax\nor al, 1\nout 0x21, al\nmov al, 0x20\nout 0x20, al\nmov al, 0\nout 0x43, al\nin al, 0x40\n"
    "stosb\nin al, 0x40\nstosb\npop ax\nout 0x21, al\npop ax\niret",
    # long, and what comes meanwhile comes in it
    "push cx\nmov al, 0x20\nout 0x20, al\nsti\nmov cx, 30\nloop $\npop cx\npop ax\niret",
    # so long that IR0 rises, or rises and falls, before it ends
    "push cx\nmov cx, 3000\nloop $\nmov al, 0x20\nout 0x20, al\npop cx\npop ax\niret",
    "rdtsc\nstosb\nmov al, 0x0A\nout 0x20, al\nin al, 0x20\nstosb\nmov al, 0x20\nout 0x20, al\npop ax\niret",
)


def operation(chance: random.Random) -> str:
    """What a turn may do: what is plain more often than what takes the edges away from the helper."""
    number = chance.randrange

    def out(port: int, value: int) -> str:
        return f"mov al, {value}\nout {port}, al\n"

    plain: list[Callable[[], str]] = [
        lambda: f"mov cx, {number(1, 1200)}\nloop $\n",
        lambda: f"mov cx, {number(1, 120)}\nloop $\n",
        lambda: out(0x43, 0) + "in al, 0x40\nstosb\nin al, 0x40\nstosb\n",
        lambda: "in al, 0x40\nstosb\n",
        lambda: out(0x21, number(2)) + f"mov cx, {number(1, 600)}\nloop $\n" + out(0x21, 0),
        lambda: f"cli\nmov cx, {number(1, 600)}\nloop $\nsti\n",
        lambda: "in al, 0x21\nstosb\n",
        lambda: out(0x20, chance.choice((0x0A, 0x0B))) + "in al, 0x20\nstosb\n",
        lambda: "in al, 0x61\nstosb\n",
        lambda: "rdtsc\nstosw\n",
        lambda: "int3\n",
        lambda: "mov dx, 0x3F8\nmov al, 'v'\nout dx, al\n",
        lambda: "mov dx, 0x3F9\nmov al, 2\nout dx, al\nmov al, 0\nout dx, al\n",
        lambda: out(0x43, chance.choice((0xC2, 0xE2, 0xD2))) + "in al, 0x40\nstosb\nin al, 0x40\nstosb\n",
        lambda: out(0x61, number(4)),
        lambda: out(0x21, 0) + "sti\nhlt\n",
    ]
    rare: list[Callable[[], str]] = [
        lambda: out(0x40, number(2, 200)) + out(0x40, 0),
        lambda: out(0x43, chance.choice((0x34, 0x34, 0x34, 0x36, 0x30, 0x38, 0x14, 0x35)))
        + out(0x40, number(4, 120)) + out(0x40, 0),
        lambda: out(0x43, 0x34) + out(0x40, number(2, 60)) + out(0x40, 0),
        lambda: "call program\n",
        lambda: "cli\n" + out(0x20, chance.choice((0x11, 0x19))) + out(0x21, chance.choice((0x20, 0x40))) + out(0x21, 4)
        + out(0x21, chance.choice((1, 1, 3, 0x11))) + out(0x21, 0) + "sti\n",
        lambda: out(0x20, chance.choice((0x20, 0x60, 0x68, 0x48, 0xC3, 0xC7, 0xA0, 0x0C))),
        lambda: "in al, 0x20\nstosb\n",
        lambda: out(0x43, number(256)),
        lambda: out(0x21, number(256)) + f"mov cx, {number(1, 600)}\nloop $\n" + out(0x21, 0),
    ]  # fmt: skip
    return chance.choice(rare)() if number(8) == 0 else chance.choice(plain)()


def program(seed: int) -> str:
    chance = random.Random(seed)
    count = chance.choice((2, 3, 4, 9, 13, 30, 61, 300))
    turns = "".join(operation(chance) for _ in range(25))
    # mode 2 again: what a turn has done is not to be the end of all ticks
    again = "mov al, 0x34\nout 0x43, al\nmov al, COUNT & 255\nout 0x40, al\nmov al, COUNT >> 8\nout 0x40, al\n"
    defined = f"%define COUNT {count}\n%define TURNS 6\n"
    return defined + BEGIN + turns + chance.choice(("", again)) + END + chance.choice(HANDLERS) + "\n"


def begun(
    monkeypatch: pytest.MonkeyPatch, loop: str, body: str, *, limit: int = 1_000_000, **config: object
) -> Debugger:
    monkeypatch.setenv("V2E_ENGINE", loop)
    made = debugger(rom(body), **config)
    assert made.machine.executor.run_loop == loop
    made.set_limit(limit)
    return made


def story(made: Debugger, *, run: bool = True) -> tuple[object, ...]:
    """How the machine ends, and all that it and the journal then hold."""
    end: object = None
    if run:
        made.begin_continue()
        stop = made.run()
        end = stop.kind, stop.text
    machine = made.machine
    # when a storm is noticed, which no guest sees, depends on when the journal hears of interrupts
    told = [(e.retired * (e.kind != "stuck"), e.kind, e.text) for e in machine.journal]
    seen = end, made.fingerprint(), machine.save().devices, told
    machine.close()
    return seen


#: The beginning of `timer`.
COUNTS = bytes.fromhex("50 ff060205")
SEEDS = [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 40))]
#: Of programs that tick each few instructions: what they do is seen by then.
LIMIT = 60_000


@needs_helper
@pytest.mark.parametrize("seed", SEEDS)
def test_any_program_sees_the_same_ticks_in_both_loops_and_any_slices(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    body = program(seed)
    expected = story(begun(monkeypatch, "gate", body, limit=LIMIT))
    for length in (None, 13, 1009):
        assert story(begun(monkeypatch, "fast", body, limit=LIMIT, slice=length)) == expected, f"slice {length}"


@needs_helper
@pytest.mark.parametrize("seed", [3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (5, 8, 21))])
def test_saved_and_restored_anywhere_they_go_on_alike(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    body = program(seed)
    whole = begun(monkeypatch, "fast", body)
    expected = story(whole)
    one, other = begun(monkeypatch, "fast", body), begun(monkeypatch, "fast", body)
    for at in range(317, whole.machine.executor.retired, 317):
        one.machine.run(at)
        other.machine.restore(one.machine.save())
        one, other = other, one
    assert story(one)[:3] == expected[:3]
    other.machine.close()


def plain(count: int, turns: int, handler: str = HANDLERS[0], turn: str = "mov cx, 1000\nloop $\n") -> str:
    return f"%define COUNT {count}\n%define TURNS {turns}\n{BEGIN}{turn}{END}{handler}\n"


def runs_of(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> list[int]:
    """The budgets that the engine is given, as they come."""
    budgets: list[int] = []
    run = machine.executor.run

    def counted(budget: int, *, skip_breakpoint: bool = False) -> object:
        budgets.append(budget)
        return run(budget, skip_breakpoint=skip_breakpoint)

    monkeypatch.setattr(machine.executor, "run", counted)
    return budgets


@needs_helper
def test_a_run_goes_on_behind_many_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = begun(monkeypatch, "fast", plain(30, 900))
    budgets = runs_of(monkeypatch, made.machine)
    made.begin_continue()
    assert made.run().kind is StopKind.EXIT
    ticks = int.from_bytes(made.machine.memory.read(0x502, 2), "little")
    assert ticks > 300
    assert len(budgets) < ticks / 20
    assert made.machine.board.pic.raised[0] == ticks


@needs_helper
def test_all_interrupts_of_a_run_are_in_the_journal_at_their_instants(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the helper has room for, with an exception's event in each turn."""
    body = plain(30, 90, turn="mov cx, 1000\nloop $\nint3\n")
    fast, gate = begun(monkeypatch, "fast", body), begun(monkeypatch, "gate", body)
    told = story(fast)
    assert told == story(gate)
    kinds = {event.kind for event in fast.machine.journal}
    assert {"interrupt", "int"} <= kinds


@needs_helper
@pytest.mark.parametrize("where", ["handler", "watched", "caught"])
def test_whoever_stops_at_ticks_is_stopped_at_each(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """At the handler, where it counts, and where each interrupt is told of: the same counts of instructions."""
    body, seen = plain(30, 20), {}
    for loop in ("fast", "gate"):
        made = begun(monkeypatch, loop, body)
        machine, counts = made.machine, []
        if where == "caught":
            machine.caught_interrupt = lambda vector, m=machine, c=counts: c.append((vector, m.executor.retired))
            story(made)
        else:
            if where == "handler":
                made.add_breakpoint(BreakKind.EXECUTE, 0xF0000 + rom(body).index(COUNTS))
            else:
                made.add_breakpoint(BreakKind.WRITE, 0x502, 2)
            made.begin_continue()
            while (stop := made.run()).kind is not StopKind.EXIT:
                counts.append((stop.kind, machine.executor.retired))
                made.begin_continue()
        seen[loop] = counts
    assert len(seen["fast"]) > 5
    assert seen["fast"] == seen["gate"]


@needs_helper
def test_a_stop_that_is_asked_for_between_ticks_shows_the_devices_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind any number of instructions, in one run from the beginning: OUT, the counter, the requests, the timers."""
    body = plain(9, 30)
    for at in range(20_000, 20_900, 53):
        states = []
        for loop in ("fast", "gate"):
            made = begun(monkeypatch, loop, body)
            made.machine.run(at)
            saved = made.machine.save()
            states.append((saved.devices, saved.clock, list(made.machine.journal), made.machine.clock.next_deadline()))
            made.machine.close()
        assert states[0] == states[1], at
