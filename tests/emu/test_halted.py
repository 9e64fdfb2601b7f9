"""A halted CPU that nothing can wake ends the run at once, whatever ticks; one that something can wake goes on."""

from __future__ import annotations

import pytest

from emu import machine as machines
from emu.machine import MachineConfig, MachineExit, MachineStop, build_machine
from machines import rom
from oracles import qemu

AN_HOUR = "HLT, and no interrupt for an hour of virtual time"
NOTHING = "HLT, and all that ticks is masked or waits for an EOI"
COUNT, MASKED = 0x600, 0x602
#: ns from power-on on until every device has come to rest: the keyboard tests itself.
QUIET = 3_000_000


def outs(*pairs: tuple[int, int]) -> str:
    """Bytes to ports."""
    return "".join(f"mov al, {value}\nout {port}, al\n" for port, value in pairs)


def initialised(last: int) -> str:
    """The 8259s as on a PC, vectors 20h and 28h; `last` is ICW4 (2: automatic EOI)."""
    master = outs((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, last))
    return master + outs((0xA0, 0x11), (0xA1, 0x28), (0xA1, 2), (0xA1, last))


#: The 8254 ticks each 100 us, and the RTC 1,024 times a second.
PIT = outs((0x43, 0x34), (0x40, 119), (0x40, 0))
RTC = outs((0x70, 0x0B), (0x71, 0x42), (0x70, 0x0C)) + "in al, 0x71\n"


#: The local APIC is off (IA32_APIC_BASE), as a PC's firmware without a use for it leaves it.
NO_APIC = "mov ecx, 0x1b\nrdmsr\nand ah, 0xf7\nwrmsr\n"


def halt(ticking: str, before: str = "", icw4: int = 1, first: str = "") -> bytes:
    """Halts with interrupts on behind the two masks at MASKED while `ticking`. Its handler counts at COUNT and sends no
    EOI; what `before` does is not counted."""
    return rom(
        "mov ss, ax\nmov sp, 0x7000\nmov cx, 16\nmov di, 0x80\n"
        "vectors: mov word [di], handler\nmov word [di + 2], cs\nadd di, 4\nloop vectors\n"
        + first + initialised(icw4) + ticking + before + f"mov byte [{COUNT}], 0\n"
        f"mov al, [{MASKED}]\nout 0x21, al\nmov al, [{MASKED + 1}]\nout 0xa1, al\n"
        "sti\nhlt\ncli\nhlt\n",
        f"handler: inc byte [{COUNT}]\niret\n",
    )  # fmt: skip


#: An IRQ 0 is taken, and is in service from then on.
SERVED = outs((0x21, 0xFE), (0xA1, 0xFF)) + "sti\nhlt\ncli\n"
#: Special mask mode: what is in service and masked holds nothing back.
SPECIAL = SERVED + outs((0x20, 0x68))
#: IRQ 0 is the lowest, so that in service it lets all others through.
ROTATED = outs((0x20, 0xC0)) + SERVED

MASKS = ((0xFE, 0xFF), (0xF7, 0xFF), (0xFB, 0xFE), (0xFA, 0xFE), (0xF7, 0xFE))
#: What comes before the masks are set, and ICW4.
BEFORE = {
    "fresh": ("", 1), "in service": (SERVED, 1), "automatic EOI": (SERVED, 3), "special mask": (SPECIAL, 1),
    "rotated": (ROTATED, 1),
}  # fmt: skip


class Halting:
    """A machine that begins anew for each pair of masks."""

    def __init__(self, firmware: bytes, kind: str) -> None:
        self.machine = build_machine(MachineConfig(machine=kind, memory=1 << 20, firmware=firmware, shadow=False))
        self._reset = self.machine.save()
        self._holds_back = self.machine.board.holds_back

    def run(self, masks: tuple[int, int], *, foreseen: bool) -> tuple[MachineExit, int, int]:
        """How it ends, the interrupts it had, and virtual time in ns. Without `foreseen` the hour of idling decides."""
        machine = self.machine
        machine.restore(self._reset)
        machine.memory.write(MASKED, bytes(masks))
        machine.board.holds_back = self._holds_back if foreseen else lambda timer: False  # type: ignore[method-assign]
        return machine.run(10_000), machine.memory.read(COUNT, 1)[0], machine.clock.now


@pytest.mark.slow_variants
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("kind", ["isapc", "pc", "pc without APIC"])
def test_a_run_ends_at_once_exactly_where_waiting_would_wake_nobody(
    kind: str, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "IDLE_LIMIT_NS", 10_000_000)
    kind, _, without = kind.partition(" ")
    wakes = set()
    for ticking in (PIT, PIT + RTC):
        halting = Halting(halt(ticking, *BEFORE[before], first=NO_APIC if without else ""), kind)
        for masks in MASKS:
            exit, woken, waited = halting.run(masks, foreseen=False)
            assert exit == MachineExit(MachineStop.DEADLOCK, detail="HLT with interrupts off" if woken else AN_HOUR)
            ours, count, ended = halting.run(masks, foreseen=True)
            assert count == woken
            assert ended == waited if woken else (ours.detail, ended <= QUIET < waited) == (NOTHING, True)
            wakes.add(woken)
        halting.machine.close()
    # in service, IRQ 0 holds back all others; after a reset, LINT0 is masked
    assert wakes == ({0} if before == "in service" or (kind == "pc" and not without) else {0, 1})


@pytest.mark.parametrize("kind", ["isapc", "pc"])
def test_a_fast_timer_behind_the_mask_costs_nothing_while_another_input_is_open(kind: str) -> None:
    """At a count of 2 it ticks 2,000,000,000 times in the hour for which a guest may idle."""
    exit, woken, ended = Halting(halt(PIT.replace("119", "2")), kind).run((0xEF, 0xFF), foreseen=True)
    assert (exit.reason, exit.detail, woken) == (MachineStop.DEADLOCK, NOTHING, 0)
    assert ended <= QUIET


WRITTEN = "full: in al, 0x64\ntest al, 2\njnz full\n"


@pytest.mark.parametrize("machine", ["isapc", "pc"])
@pytest.mark.parametrize("halted", ["cli\nhlt", "mov al, 0xff\nout 0x21, al\nout 0xa1, al\nsti\nhlt"])
@pytest.mark.parametrize(
    ("asked", "resets"),
    [("mov al, 0xfe\nout 0x64, al\n", True), ("mov al, 0xf0\nout 0x64, al\n", True),
     ("mov al, 0xd1\nout 0x64, al\n" + WRITTEN + "mov al, 2\nout 0x60, al\n", True),
     ("mov al, 0xff\nout 0x64, al\n", False), ("mov al, 0xaa\nout 0x64, al\n", False),
     ("mov al, 0xd1\nout 0x64, al\n" + WRITTEN + "mov al, 3\nout 0x60, al\n", False)],
)  # fmt: skip
def test_a_reset_by_the_keyboard_controller_finds_the_cpu_halted(
    asked: str, resets: bool, halted: str, machine: str
) -> None:
    """The usual end of a reboot: the controller has yet to look at the command when the CPU halts."""
    code = (
        f"cmp byte [{COUNT}], 0x5a\nje again\nmov byte [{COUNT}], 0x5a\n{asked}{halted}\nagain: mov al, 3\nout 0xf4, al"
    )
    built = build_machine(MachineConfig(firmware=rom(code), machine=machine))
    exit = built.run(10_000_000)
    built.close()
    if resets:
        assert (exit.reason, exit.code) == (MachineStop.EXIT, 3), exit
    else:
        assert exit.reason is MachineStop.DEADLOCK


#: Bytes to the keyboard controller that pulse the CPU's reset line: FEh, and the output port without bit 0.
RESETS = {"pulse": ((0x64, 0xFE),), "output port": ((0x64, 0xD1), (0x60, 0xDE))}


@pytest.mark.parametrize("before", ["", "sti\n"], ids=["interrupts off", "all masked"])
@pytest.mark.parametrize("kind", RESETS)
@pytest.mark.parametrize("machine", ["isapc", "pc"])
def test_a_reset_that_the_keyboard_controller_is_about_to_make_is_waited_for(
    machine: str, kind: str, before: str
) -> None:
    """As in QEMU, whose controller is faster."""
    waits = "full:\nin al, 0x64\ntest al, 2\njnz full\n" if kind == "output port" else ""
    first, *second = RESETS[kind]
    body = f"""
    cmp byte [0x700], 0x5a
    je again
    mov byte [0x700], 0x5a
    {outs((0x21, 0xFF), (0xA1, 0xFF), first)}
    {waits}
    {outs(*second)}
    {before}
    hlt
    hlt
again:
    mov al, 0x11
    out 0xf4, al
    cli
    hlt
    """
    firmware = rom(body)
    end = build_machine(MachineConfig(machine=machine, firmware=firmware)).run(1_000_000)
    assert (end.reason, end.code) == (MachineStop.EXIT, 0x11), end
    assert qemu(firmware).shutdown  # its run ends with the reset


@pytest.mark.parametrize("command", [0xAD, 0xC0])
def test_a_command_that_resets_nothing_is_waited_for_and_not_longer(command: int) -> None:
    """Disable the keyboard; read the input port, whose answer's interrupt is masked."""
    made = build_machine(MachineConfig(firmware=rom(outs((0x21, 0xFF), (0xA1, 0xFF), (0x64, command)) + "hlt\n")))
    end = made.run(1_000_000)
    assert end.reason is MachineStop.DEADLOCK and made.clock.now < QUIET
