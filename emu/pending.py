"""Which interrupts wait, and whether the one that a loop waits for is among them, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from emu.devices.pic8259 import CASCADE
from emu.devices.pit8254 import FREQUENCY
from emu.machine import Machine
from emu.x86.rounds import Source

#: The tick count of a PC's firmware and its midnight flag, linear, which INT 8 alone changes (IBM PC/AT Technical
#: Reference, BIOS data area 40:6C to 40:70); it is IRQ 0's handler.
TICKS = range(0x46C, 0x471)
TICK = 0


def is_tick(sources: Iterable[Source]) -> bool:
    """One of `sources` is what the tick's handler counts in real mode."""
    return any(s.kind == "memory" and s.place < TICKS.stop and s.place + s.size > TICKS.start for s in sources)


def waiting(machine: Machine, *, tick: bool) -> Iterator[str]:
    """What IF keeps from the CPU; with `tick` the loop waits for the tick's interrupt, which is told first in any
    case."""
    requested = list(_requested(machine))
    if tick:
        yield _tick(machine, TICK in requested, on=False)
    others = [n for n in requested if not (tick and n == TICK)]
    for n in others:
        but = ", but it is not what the loop waits for" if tick else ""
        yield f"the interrupt with vector {vector_of(machine, n):#04x} (IRQ {n}) waits for IF{but}"
    first = machine.controller.pending_vector()
    if first is not None and first not in {vector_of(machine, n) for n in requested}:
        yield f"the interrupt with vector {first:#04x} waits for IF"


def tick_rate(machine: Machine, vector: int) -> str | None:
    """How often the tick is asked for, if that is the interrupt with this vector."""
    counter = machine.board.pit.save().counters[0]
    if vector != vector_of(machine, TICK) or counter.mode not in (2, 3) or not counter.loaded:
        return None
    return (
        f"it is the tick (IRQ {TICK}), and the 8254's counter 0 asks for it each {counter.loaded} pulses,"
        f" {counter.loaded * 1_000_000 / FREQUENCY:.1f} us: a greater count makes it rarer"
    )


def late_tick(machine: Machine) -> str:
    """With interrupts on: what keeps the tick from coming, or that it is not due."""
    return _tick(machine, TICK in list(_requested(machine)), on=True)


def tick_comes(machine: Machine) -> bool:
    """The tick's interrupt is asked for again and again, and nothing but IF would keep it from the CPU."""
    counter, state = machine.board.pit.save().counters[0], machine.board.pic.chips[0].state
    kept = (state.imr | state.isr) >> TICK & 1
    return counter.mode in (2, 3) and (counter.counting or counter.load) and not kept


def _tick(machine: Machine, requested: bool, *, on: bool) -> str:
    state = machine.board.pic.chips[0].state
    what = f"the tick (IRQ {TICK}, vector {vector_of(machine, TICK):#04x}), whose handler counts there,"
    if state.imr >> TICK & 1:
        return f"{what} is masked at the 8259" + ("" if on else ", and waits for IF besides")
    if state.isr >> TICK & 1:
        return f"{what} is in service: without an end of interrupt there is no other"
    if requested:
        return f"{what} is requested" + ("" if on else " and waits for IF")
    return f"{what} is not due yet" + ("" if on else ", and will wait for IF")


def _requested(machine: Machine) -> Iterator[int]:
    """The IRQs that the 8259 pair has requests of, those that are masked left out."""
    master, slave = machine.board.pic.chips
    for n in range(8):
        if not (master.irr & ~master.state.imr) >> n & 1:
            continue
        if n != CASCADE:
            yield n
        else:
            yield from (8 + m for m in range(8) if (slave.irr & ~slave.state.imr) >> m & 1)


def vector_of(machine: Machine, irq: int) -> int:
    """What the 8259 pair answers an acknowledge of `irq` with."""
    return machine.board.pic.chips[irq >> 3].vector(irq & 7)
