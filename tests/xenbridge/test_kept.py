"""A guest wholly in the emulator, whose PIC and PIT are a hypervisor's: its ticks come by SIGIO, each of them, and none
at a time when it could not take it."""

from __future__ import annotations

import time

import pytest

from bridges import MOST_SWITCHES, PIT_HZ, Driven, switches_in, until
from emu.machine import MachineStop
from kept_guests import COUNTING, TICKS, guest, on_kvm
from machines import rom
from xenbridge.bridge import BridgeError
from xenbridge.kvm.bridge import KvmBridge
from xenbridge.signals import Signals


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
    driven = Driven("kvm", guest(COUNTING, 4773, wait=wait, ticks=50), signals, native=on_kvm(policy))
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
    driven = Driven("kvm", guest(POLLING, 4773, wait=wait, ticks=50), signals, native=on_kvm("emulated"))
    begun = time.process_time()
    driven.start()
    assert driven.end(60).code == 7
    assert driven.word(0x500) == 50
    assert (time.process_time() - begun) * PIT_HZ / 4773 < 150
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
    driven = Driven("kvm", guest(CALIBRATING, count=4773), signals, native=on_kvm(policy))
    driven.start()
    assert driven.end().code == 7
    # One count is a nanosecond. The counter is behind by the request before it.
    assert driven.word(0x510) >= 0.8 * 4773 / PIT_HZ * 1e9
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
