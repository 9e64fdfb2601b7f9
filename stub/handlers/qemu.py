"""qqemu., Qqemu.: the modes of QEMU's stub, for scripts that know those (QEMU's docs/system/gdb.rst)."""

from __future__ import annotations

from stub import messages
from stub.handlers.base import OK, UNSUPPORTED, Answer, Context, Handler
from stub.offers import offers
from stub.target import HasPhysicalMemory, StepsIntoInterrupts, TargetError

#: QEMU's bits of a single step: it is one; interrupts do not arrive in it; no time passes for timers.
ENABLE, NO_IRQ, NO_TIMER = 1, 2, 4
BITS = f"ENABLE={ENABLE:x},NOIRQ={NO_IRQ:x},NOTIMER={NO_TIMER:x}"


def query(context: Context, message: messages.QemuQuery) -> Answer:
    target = context.target
    match message.name:
        case "Supported":
            return b"sstepbits;sstep;PhyMemMode"
        case "sstepbits":
            return BITS.encode("ascii")
        case "sstep":
            assert offers(target, StepsIntoInterrupts)
            return b"0x%x" % (ENABLE | NO_TIMER | (0 if target.steps_into_interrupts else NO_IRQ))
        case "PhyMemMode":
            return b"%d" % context.physical
    return UNSUPPORTED


def change(context: Context, message: messages.QemuSet) -> Answer:
    match message.name:
        case "sstep":
            _step(context, message.value)
        case "PhyMemMode":
            if message.value not in (0, 1):
                raise TargetError(f"PhyMemMode is 0 or 1, not {message.value:x}")
            context.physical = message.value == 1
        case _:
            return UNSUPPORTED
    return OK


def _step(context: Context, bits: int) -> None:
    """NOIRQ: a step that meets an interrupt runs through its handler. Time passes by instructions alone, so that a step
    without NOTIMER is none that could be had."""
    target = context.target
    assert offers(target, StepsIntoInterrupts)
    if bits & ~NO_IRQ != ENABLE | NO_TIMER:
        raise TargetError(
            f"{bits:#x} is no way to step here: {ENABLE | NO_TIMER:#x} stops in an interrupt's handler, "
            f"{ENABLE | NO_IRQ | NO_TIMER:#x} runs through it"
        )
    target.steps_into_interrupts = not bits & NO_IRQ


HANDLERS = (
    Handler(
        (
            ("qqemu.Supported", "the three that follow"),
            ("qqemu.sstepbits", f"what the bits of `sstep` mean: {BITS}"),
            ("qqemu.sstep", "7: a step runs through an interrupt's handler; 5: it stops in it"),
            ("qqemu.PhyMemMode", "1: this client's addresses of memory are physical"),
        ),
        messages.QemuQuery,
        query,
        (HasPhysicalMemory, StepsIntoInterrupts),
    ),
    Handler(
        (
            ("Qqemu.sstep=BITS", "5 or 7; as `monitor handlers` does"),
            ("Qqemu.PhyMemMode:FLAG", "as `monitor phys on` and `off` do"),
        ),
        messages.QemuSet,
        change,
        (HasPhysicalMemory, StepsIntoInterrupts),
    ),
)
