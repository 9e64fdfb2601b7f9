"""A guest wholly in the emulator, whose PIC and PIT are a hypervisor's: its ticks come by SIGIO, each of them, and none
at a time when it could not take it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from bridges import MOST_SWITCHES, Driven, switches_in, until
from emu.engine import EngineError
from emu.foresight import foresee
from emu.ledger import Costs
from emu.loops import find_loop
from emu.machine import MachineStop
from emu.policies import policy_named
from emu.transitions import NativeConfig
from machines import rom
from repl.cli import run_parser
from repl.natively import keeper_of
from xenbridge.bridge import BridgeError
from xenbridge.kept import BridgeKeeper
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.bridge import KvmBridge
from xenbridge.kvm.probe import make_kvm
from xenbridge.signals import Signals

KINDS = ("model", "kvm")
PIT_HZ = 1_193_182
#: The 8259 at vectors 8 and 70h with IRQ 0 alone, and counter 0 in mode 2 with a period of {count} CLK pulses;
#: {wait} is executed between two ticks, of which there are {ticks}.
GUEST = """
    xor eax, eax
    mov [0x500], eax
    mov [0x504], eax
    mov word [8 * 4], tick
    mov word [8 * 4 + 2], 0xf000
    mov word [12 * 4], port
    mov word [12 * 4 + 2], 0xf000
    mov word [0x20 * 4], moved
    mov word [0x20 * 4 + 2], 0xf000
    mov sp, 0x7c00
    mov bl, 8
    call init
    mov al, 0x34
    out 0x43, al
    mov al, {count} & 0xff
    out 0x40, al
    mov al, {count} >> 8
    out 0x40, al
    {body}
    mov al, 7
    out 0xf4, al
    hlt
"""
HANDLERS = """
init:
    mov al, 0x11
    out 0x20, al
    mov al, bl
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    ret
tick:
    push eax
    inc dword [0x500]
    mov eax, [0x500]
    cmp eax, [0x518]
    jne counted
    mov al, 0xff
    out 0x21, al
counted:
    pop eax
    jmp eoi
port:
    inc dword [0x504]
    push ax
    push dx
    mov dx, 0x3fa
    in al, dx
    mov [0x508], al
    pop dx
    pop ax
    jmp eoi
moved:
    inc dword [0x50c]
eoi:
    push ax
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
"""
#: The handler masks IRQ 0 at the last tick, before its EOI: where the host is late another one would come before the
#: loop has looked, and another behind that one.
COUNTING = """
    mov dword [0x518], {ticks}
again:
    sti
    {wait}
    cli
    cmp dword [0x500], {ticks}
    jb again
"""
TICKS = 200


def guest(body: str, count: int = 1193, **words: object) -> bytes:
    return rom(GUEST.format(count=count, body=body.format(count=count, **words)), HANDLERS)


def _on_kvm(policy: str) -> NativeConfig:
    """A CPU of KVM's by this policy, on the host's clock. Skips the test where there is none."""
    costs = Costs()
    try:
        return NativeConfig(make_kvm(lambda notice: None), policy_named(policy, costs), costs, time.monotonic_ns)
    except (KvmError, EngineError) as error:
        pytest.skip(str(error))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals() as found:
        yield found


@pytest.mark.slow_variants
@pytest.mark.parametrize("wait", ["hlt", "nop"])
def test_200_of_200_ticks_arrive_without_polling(kind: str, wait: str, signals: Signals) -> None:
    """At 250 Hz, by signals alone. The time is the PIT's: none is made up, and few are lost on a busy host."""
    driven = Driven(kind, guest(COUNTING, 4773, wait=wait, ticks=TICKS), signals)
    begun = time.monotonic()
    driven.start()
    end = driven.end()
    took = time.monotonic() - begun
    assert (end.reason, end.code) == (MachineStop.EXIT, 7)
    counted, periods = driven.word(0x500), took * PIT_HZ / 4773
    assert counted == sum(event.kind == "interrupt" for event in driven.machine.journal)
    assert counted == TICKS
    assert 1 <= signals.count <= driven.keeper.bridge.events
    assert periods >= counted - 2
    driven.close()


@pytest.mark.slow_variants
@pytest.mark.parametrize("policy", ["native", "dwell:50", "learn"])
@pytest.mark.parametrize("wait", ["hlt", "nop"])
def test_ticks_of_the_kernels_timer_reach_a_guest_that_runs_natively(wait: str, policy: str, signals: Signals) -> None:
    """The signal ends KVM_RUN of the guest's own vCPU, which the interrupt is injected into. Each EOI is an exit, and
    then a request."""
    driven = Driven("kvm", guest(COUNTING, 4773, wait=wait, ticks=50), signals, native=_on_kvm(policy))
    driven.start()
    assert driven.end(60).code == 7
    assert driven.machine.transitions is not None
    ledger = driven.machine.transitions.ledger
    assert ledger.hops_in > 0 and sum(ledger.exits.values()) > (50 if policy == "native" else 0)
    assert driven.word(0x500) == 50 == sum(event.kind == "interrupt" for event in driven.machine.journal)
    assert driven.keeper.bridge.requests >= 50
    driven.close()


#: A handler as Linux has it: IRQ 0 is masked, acknowledged and unmasked, and counter 0 is latched and read, twice.
BURSTS = """
    mov word [8 * 4], burst
    mov dword [0x518], {ticks} + 1
    jmp again
burst:
    push ax
    in al, 0x21
    out 0x21, al
%rep 2
    mov al, 0
    out 0x43, al
    in al, 0x40
    in al, 0x40
%endrep
    in al, 0x21
    out 0x21, al
    pop ax
    jmp tick
again:
    sti
    {wait}
    cli
    cmp dword [0x500], {ticks}
    jb again
"""
ACCESSES = 11  #: a tick's
POLLING = """
    mov dword [0x518], {ticks}
    sti
again:
    {wait}
    cmp dword [0x500], {ticks}
    jb again
    cli
"""


@pytest.mark.parametrize("wait", ["hlt", "nop"])
def test_a_handlers_accesses_do_not_each_call_the_vcpu_back(wait: str, signals: Signals) -> None:
    """It waits for the next interrupt when the handler is through with the controllers, and for a higher one while one
    is in hand, and not between two accesses, each of which would have to wake a thread and wait for it."""
    driven = Driven("kvm", guest(BURSTS, 4773, wait=wait, ticks=50), signals)
    driven.start()
    assert driven.end(60).code == 7
    bridge = driven.keeper.bridge
    assert isinstance(bridge, KvmBridge)
    assert bridge.requests >= ACCESSES * 50
    assert bridge.calls <= 3 * 50
    driven.close()


@pytest.mark.parametrize("wait", ["in al, 0x40", "in al, 0x61"])
def test_a_guest_that_asks_its_timer_without_end_has_its_ticks(wait: str, signals: Signals) -> None:
    """Each access calls back a vCPU that waits for an interrupt, which has looked for one all the same, and one that it
    has acknowledged is not put back for an access to the timer: a third of the ticks and more come in their periods, of
    CPU time, as a busy host has others for the process."""
    driven = Driven("kvm", guest(POLLING, 4773, wait=wait, ticks=50), signals, native=_on_kvm("emulated"))
    begun = time.process_time()
    driven.start()
    assert driven.end(60).code == 7
    assert driven.word(0x500) == 50
    assert (time.process_time() - begun) * PIT_HZ / 4773 < 150
    driven.close()


def test_a_higher_interrupt_at_the_delivery_of_a_lower_has_it_come_once(kind: str, signals: Signals) -> None:
    """The engine has delivered IRQ 4 when IRQ 0 comes, and the bridge has not been told yet: IRQ 4 is served, once."""
    body = """
    mov al, 0xee
    out 0x21, al
    mov dword [0x510], 0x600D
    sti
wait_both:
    cmp dword [0x504], 1
    jb wait_both
    cmp dword [0x500], 2
    jb wait_both
    cli
    """
    driven = Driven(kind, guest(body, 0), signals)
    bridge, acknowledge, met = driven.keeper.bridge, driven.keeper.acknowledge, list[int]()

    def beaten() -> int:
        if driven.keeper.pending_vector() == 12 and not met:
            for level in (True, False):
                bridge.set_line(0, level)
            time.sleep(0.02)
        met.append(acknowledge())
        return met[-1]

    driven.keeper.acknowledge = beaten  # type: ignore[method-assign]
    driven.start()
    assert until(lambda: driven.word(0x510) == 0x600D)
    for level in (True, False):
        bridge.set_line(4, level)
    assert driven.end(60).code == 7
    assert (driven.word(0x504), met.count(12)) == (1, 1)
    driven.close()


def test_a_tick_that_finds_the_guest_late_comes_once(kind: str, signals: Signals) -> None:
    """The machine's thread is not given the CPU for more than a period behind each look at the bridge, as on a busy
    host: the next tick is in hand before the handler has returned. Each is delivered, and none twice."""
    driven = Driven(kind, guest(COUNTING, 4773, wait="nop", ticks=30), signals)
    look = driven.keeper._look

    def late() -> None:
        time.sleep(0.006)
        look()

    driven.keeper._look = late  # type: ignore[method-assign]
    driven.start()
    assert driven.end().code == 7
    assert driven.word(0x500) == 30 == sum(event.kind == "interrupt" for event in driven.machine.journal)
    driven.close()


@pytest.mark.slow_variants
@pytest.mark.parametrize("wait", ["hlt", "nop"])
def test_a_machine_whose_devices_say_nothing_wakes_nobody(kind: str, wait: str, signals: Signals) -> None:
    """Whether its guest waits or works: no thread of the process looks at anything now and then."""
    driven = Driven(kind, rom(f"sti\nagain:\n{wait}\njmp again"), signals)
    driven.start()
    woken = switches_in(1.0)
    assert driven.end(0.0).reason is MachineStop.REQUEST
    assert (woken <= MOST_SWITCHES, signals.count) == (True, 0)
    driven.close()


#: How SeaBIOS finds the rate of the time-stamp counter: counter 2 in mode 0, and port 61h is asked until its output
#: rises. The counts meanwhile are left at 510h. No interrupt comes, which would end the emulator's run.
CALIBRATING = """
    mov al, 0xff
    out 0x21, al
    in al, 0x61
    and al, 0xfc
    or al, 1
    out 0x61, al
    mov al, 0xb0
    out 0x43, al
    mov al, {count} & 0xff
    out 0x42, al
    mov al, {count} >> 8
    out 0x42, al
    rdtsc
    mov ecx, eax
again:
    in al, 0x61
    test al, 0x20
    jz again
    rdtsc
    sub eax, ecx
    mov [0x510], eax
"""


@pytest.mark.parametrize("policy", ["emulated", "dwell:100000"])
def test_an_emulated_cpu_and_the_kernels_timer_go_by_one_clock(policy: str, signals: Signals) -> None:
    """A request takes thousands of times an instruction's time, and the guest's clock does not stand still meanwhile:
    a firmware that finds its counter's rate so would take some microseconds for 30 seconds."""
    driven = Driven("kvm", guest(CALIBRATING, count=4773), signals, native=_on_kvm(policy))
    driven.start()
    assert driven.end().code == 7
    # One count is a nanosecond. The counter is behind by the request before it.
    assert driven.word(0x510) >= 0.8 * 4773 / PIT_HZ * 1e9
    driven.close()


#: Interrupts off for ten periods of 37 ms or more, then 16 ticks with them on.
LATE = """
    mov ecx, 320000000
    cli
wait_off:
    dec ecx
    jnz wait_off
    mov dword [0x500], 0
    mov dword [0x518], 16
    sti
wait_on:
    cmp dword [0x500], 16
    jb wait_on
    cli
"""


def late_ticks(signals: Signals, fate: str) -> tuple[float, float]:
    """When a late guest has its first tick, and when its last of 16, in periods of its PIT."""
    options = run_parser().parse_args(
        ["--machine", "isapc", "--hypervisor", "kvm", "--devices-in", "hypervisor", "--clock", "host",
         "--missed-ticks", fate]
    )  # fmt: skip
    make = keeper_of(options, None)
    assert make is not None
    try:
        keeper = make()
    except EngineError as error:
        pytest.skip(str(error))
    assert isinstance(keeper, BridgeKeeper)
    driven, times = Driven("kvm", guest(LATE, 44240), signals, keeper), []
    acknowledge = keeper.acknowledge

    def acknowledged() -> int:
        times.append(time.monotonic())
        return acknowledge()

    keeper.acknowledge = acknowledged  # type: ignore[method-assign]
    begun = time.monotonic()
    driven.start()
    assert driven.end(60).code == 7
    driven.close()
    assert len(times) >= 16
    first, last = ((at - begun) * PIT_HZ / 44240 for at in (times[0], times[-1]))
    assert first > 8
    return first, last


@pytest.mark.slow
def test_missed_ticks_that_are_kept_come_in_a_bunch(signals: Signals) -> None:
    """`--missed-ticks kept`: what a late guest has not taken comes behind the acknowledge of the one before, faster
    than the PIT counts, at 27 Hz. A busy host takes its time over them, so one of five guests has to show it: at
    the PIT's pace none could."""
    assert any(last - first < 10 for first, last in (late_ticks(signals, "kept") for _ in range(5)))


@pytest.mark.slow
def test_missed_ticks_that_are_dropped_never_come(signals: Signals) -> None:
    """All but two come at the PIT's pace."""
    first, last = late_ticks(signals, "dropped")
    assert last - first > 16 - 4


@pytest.mark.slow
def test_ticks_do_not_come_in_a_bunch_behind_a_stretch_without_interrupts(kind: str, signals: Signals) -> None:
    """The PIT counts on for some 100 periods with IF clear. The PIC keeps one request of them, and one may have been
    acknowledged before: what comes behind that comes at the PIT's pace."""
    body = """
    mov ecx, 40000000
    cli
wait_off:
    dec ecx
    jnz wait_off
    mov dword [0x500], 0
    sti
wait_on:
    cmp dword [0x500], 20
    jb wait_on
    cli
    """
    driven, times = Driven(kind, guest(body), signals), []
    acknowledge = driven.keeper.acknowledge

    def acknowledged() -> int:
        times.append(time.monotonic())
        return acknowledge()

    driven.keeper.acknowledge = acknowledged  # type: ignore[method-assign]
    begun = time.monotonic()
    driven.start()
    assert driven.end(60).code == 7
    assert (times[-1] - begun) * PIT_HZ / 1193 > 40
    for number, at in enumerate(times[-20:]):
        assert (at - times[-20]) * PIT_HZ / 1193 > number - 2
    driven.close()


@pytest.mark.slow_variants
def test_an_interrupt_acknowledged_while_the_guest_turned_them_off_has_the_vector_of_its_delivery(
    kind: str, signals: Signals
) -> None:
    """With IF clear the controller is programmed anew: what had been acknowledged for the old vector comes by the new
    one, never by the old."""
    body = """
    sti
    cli
    mov ecx, 20000000
wait_off:
    dec ecx
    jnz wait_off
    xor eax, eax
    mov [0x500], eax
    mov [0x50c], eax
    mov bl, 0x20
    call init
    sti
wait_moved:
    cmp dword [0x50c], 3
    jb wait_moved
    cli
    """
    driven = Driven(kind, guest(body), signals)
    driven.start()
    assert driven.end(60).code == 7
    assert (driven.word(0x500), driven.word(0x50C) >= 3) == (0, True)
    driven.close()


#: Interrupts off until the word at 514h is set; then the order in which two handlers are is left at 520h, a digit each:
#: 1 and 3 the begin and the end of IRQ 1's, 2 that of IRQ 6, which is lower, and held back by it until its EOI.
BOTH_LATE = """
    mov word [9 * 4], keyboard
    mov word [9 * 4 + 2], 0xf000
    mov word [14 * 4], diskette
    mov word [14 * 4 + 2], 0xf000
    xor eax, eax
    mov [0x514], eax
    mov [0x520], eax
    mov al, 0xbd
    out 0x21, al
    mov dword [0x510], 0x1234
late:
    cmp dword [0x514], 0
    je late
    sti
both:
    cmp dword [0x520], 0xff
    jbe both
    mov ecx, 100000
behind:
    dec ecx
    jnz behind
    cli
    jmp done
keyboard:
    shl dword [0x520], 4
    or byte [0x520], 1
    sti
    mov ecx, 100000
in_handler:
    dec ecx
    jnz in_handler
    cli
    shl dword [0x520], 4
    or byte [0x520], 3
    jmp eoi
diskette:
    shl dword [0x520], 4
    or byte [0x520], 2
    jmp eoi
done:
"""


def test_a_higher_interrupt_comes_before_one_that_a_guest_has_kept_waiting(kind: str, signals: Signals) -> None:
    """The owner decides at the delivery, whatever it had acknowledged while the guest's interrupts were off."""
    driven = Driven(kind, guest(BOTH_LATE, 0), signals)
    bridge = driven.keeper.bridge
    driven.start()
    assert until(lambda: driven.word(0x510) == 0x1234, 20)
    for line, vector in ((6, 14), (1, 9)):
        bridge.set_line(line, True)
        assert until(lambda vector=vector: driven.keeper.pending_vector() == vector)  # type: ignore[misc]
    driven.machine.memory.write(0x514, b"\1")
    assert driven.end().code == 7
    assert driven.word(0x520) == 0x132
    assert sum(event.kind == "interrupt" for event in driven.machine.journal) == 2
    driven.close()


#: Handlers of IRQ 1, 6, 8 and 14 count at 520h, 524h, 528h and 52Ch, and the guest has its interrupts off and on.
ON_AND_OFF = """
    mov bl, 8
    call init
    mov al, 0x11
    out 0xa0, al
    mov al, 0x70
    out 0xa1, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0xa1, al
    mov al, 0xbe
    out 0xa1, al
    mov al, 0xb9
    out 0x21, al
    mov si, 0x520
    xor eax, eax
    mov [0x520], eax
    mov [0x524], eax
    mov [0x528], eax
    mov [0x52c], eax
    mov [0x514], eax
    mov word [9 * 4], irq1
    mov word [9 * 4 + 2], 0xf000
    mov word [14 * 4], irq6
    mov word [14 * 4 + 2], 0xf000
    mov word [0x70 * 4], irq8
    mov word [0x70 * 4 + 2], 0xf000
    mov word [0x76 * 4], irq14
    mov word [0x76 * 4 + 2], 0xf000
    mov dword [0x510], 0x1234
on_and_off:
    sti
    nop
    nop
    cli
    mov ecx, 3000
off:
    dec ecx
    jnz off
    cmp dword [0x514], 0
    je on_and_off
    jmp ended
irq1:
    inc dword [0x520]
    jmp eoi
irq6:
    inc dword [0x524]
    jmp eoi
irq8:
    inc dword [0x528]
    jmp of_slave
irq14:
    inc dword [0x52c]
of_slave:
    push ax
    mov al, 0x20
    out 0xa0, al
    pop ax
    jmp eoi
ended:
"""


@pytest.mark.slow_variants
def test_lines_that_rise_together_are_each_handled_once_by_a_guest_that_turns_interrupts_off_and_on(
    kind: str, signals: Signals
) -> None:
    """Whichever is in hand when another comes: none is lost, and none comes twice."""
    driven, dice = Driven(kind, guest(ON_AND_OFF, 0), signals), random.Random(7)
    bridge, counters = driven.keeper.bridge, {1: 0x520, 6: 0x524, 8: 0x528, 14: 0x52C}
    driven.start()
    assert until(lambda: driven.word(0x510) == 0x1234, 20)
    risen = dict.fromkeys(counters, 0)
    for _ in range(100):
        lines = dice.sample(sorted(counters), dice.randrange(1, 5))
        for line in lines:
            bridge.set_line(line, True)
            risen[line] += 1
            time.sleep(dice.choice((0, 0, 0.0002, 0.001)))
        if not until(lambda: all(driven.word(at) >= risen[line] for line, at in counters.items()), 10):
            break
        for line in lines:
            bridge.set_line(line, False)
    time.sleep(0.05)
    driven.machine.memory.write(0x514, b"\1")
    assert driven.end().code == 7
    assert {line: driven.word(at) for line, at in counters.items()} == risen
    driven.close()


def test_a_device_of_the_machine_interrupts_by_the_hypervisors_lines(kind: str, signals: Signals) -> None:
    """The transmitter of COM1 is empty: the port is userspace's, IRQ 4 the hypervisor's."""
    body = """
    mov al, 0xef
    out 0x21, al
    mov dx, 0x3fc
    mov al, 8
    out dx, al
    mov dx, 0x3f9
    mov al, 2
    out dx, al
wait_port:
    sti
    hlt
    cli
    cmp dword [0x504], 1
    jb wait_port
    """
    driven = Driven(kind, guest(body, 0), signals)
    driven.start()
    assert driven.end().code == 7
    assert driven.word(0x508) & 0xFF == 0x02  # IIR: transmitter holding register empty
    driven.close()


def test_the_signal_stops_the_machine_that_the_descriptor_belongs_to(kind: str, signals: Signals) -> None:
    """Two machines in one process; only one of them has a timer that ticks."""
    ticking = Driven(kind, guest(COUNTING, 4773, wait="nop", ticks=50), signals)
    silent = Driven(kind, rom("sti\nagain:\ninc dword [0x500]\ncmp dword [0x510], 0\nje again\nhlt"), signals)
    silent.machine.memory.write(0x510, bytes(4))
    silent.start()
    ticking.start()
    assert ticking.end().code == 7
    assert silent.keeper.bridge.events == 0 and not silent.keeper.due
    assert until(lambda: silent.word(0x500) > 1000)
    assert silent.end(0.0).reason is MachineStop.REQUEST
    silent.close()
    ticking.close()


@pytest.mark.slow
def test_a_look_ahead_reaches_no_device_of_the_hypervisors_and_the_run_goes_on(kind: str, signals: Signals) -> None:
    """A guest that polls for long is looked at to say whether it gets anywhere."""
    driven = Driven(kind, rom("again: in al, 0x61\njmp again"), signals)
    driven.start()
    assert driven.end(0.2).reason is MachineStop.REQUEST
    before, pic = driven.machine.cpu_state(), driven.machine.board.pic.save()
    found = find_loop(driven.machine).round
    assert found is not None and len(found.steps) == 2
    foresee(driven.machine, lambda state: False)
    assert (driven.machine.cpu_state(), driven.machine.board.pic.save()) == (before, pic)
    driven.start()
    assert driven.end(0.2).reason is MachineStop.REQUEST
    driven.close()


def test_a_look_ahead_tells_the_hypervisor_of_no_line(kind: str, signals: Signals) -> None:
    """Behind it the devices are put back, and say their levels again: IRQ 4 has not risen again by that, and IRQ 12,
    which the mouse does not ask for, is left as the hypervisor has it."""
    body = """
    mov dx, 0x3fc
    mov al, 8
    out dx, al
    mov dx, 0x3f9
    mov al, 2
    out dx, al
    jmp $
    """
    driven = Driven(kind, guest(body, 0), signals)
    driven.start()
    assert driven.end(0.2).reason is MachineStop.REQUEST
    pic, bridge, told = driven.machine.board.pic, driven.keeper.bridge, []
    assert pic.raised[4] == 1
    bridge.set_line(12, True)
    before, set_line = pic.save().slave, bridge.set_line
    assert before.edges >> 4 & 1

    def tell(irq: int, level: bool) -> None:
        told.append((irq, level))
        set_line(irq, level)

    bridge.set_line = tell  # type: ignore[method-assign]
    assert find_loop(driven.machine).round is not None
    assert (told, pic.raised[4], pic.save().slave) == ([], 1, before)
    driven.close()


def test_a_hypervisor_that_is_lost_ends_the_machine_in_a_sentence(kind: str, signals: Signals) -> None:
    driven = Driven(kind, guest(COUNTING, 4773, wait="hlt", ticks=1 << 30), signals)
    driven.start()
    assert until(lambda: driven.word(0x500) > 3, 20)

    def lost(raw: bytes) -> bytes:
        raise BridgeError("KVM_RUN failed: No such device")

    driven.keeper.bridge.exchange = lost  # type: ignore[method-assign]
    end = driven.end()
    assert (end.reason, end.detail) == (
        MachineStop.FAILURE, "the devices in the hypervisor are lost: KVM_RUN failed: No such device",
    )  # fmt: skip
    driven.close()
