"""Whether the guest gets anywhere, and if not what it waits for: a loop without effect, faults, a storm of interrupts.

It is asked by a person, and by `emu.progress` while the guest runs. Nothing of it changes the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from emu.awaited import firmware_word
from emu.engine import Fault
from emu.handlers import writer_of
from emu.inspector import PHYSICAL_BITS
from emu.loops import Ahead, Round, find_loop, reasons
from emu.machine import Machine
from emu.pending import is_tick, late_tick, waiting
from emu.record import replace
from emu.runaway import zeros
from emu.stops import VECTOR_NAMES, Stop, StopKind
from emu.storms import masked, storm
from emu.timekeepers import clock_of
from emu.views import InstructionView, StuckView
from emu.x86 import disasm, paging
from emu.x86.polls import Loop, WayOut
from emu.x86.rounds import Source, Step
from emu.x86.state import CR0_PE, GENERAL, RFLAGS_IF

#: Native entries that failed, with none between them that did not, before they are spoken of: by rules, which are asked
#: every 65,536 instructions in the end, and by the vCPU itself.
REFUSED, ENTRIES = 50, 1000
#: Instructions of a loop that are shown.
SHOWN = 24
_COMES_BACK = "its handler returns to the instruction without having removed the cause"
#: Stops behind which there is no guest, whatever its CPU would go on to do.
_ENDED = (StopKind.EXIT, StopKind.POWEROFF)


def explain(machine: Machine, stop: Stop | None = None) -> StuckView:
    """Look at the guest, which stands still, since `stop` if that is known. Nothing of it changes."""
    machine.service()
    if stop is not None and stop.retired == machine.executor.retired and stop.kind in _ENDED:
        return StuckView("ended", f"it has ended: {stop.text}")
    if machine.executor.halted and not machine.interrupt_due:
        return _halted(machine)
    if stop is not None and stop.retired == machine.executor.retired and stop.kind is StopKind.SHUTDOWN:
        ahead = find_loop(machine)
        if ahead.death:
            return StuckView("ended", f"it has ended: {ahead.death}", ahead.why)
        if any(fault.interrupt is not None for fault in stop.faults):  # a look ahead has no interrupts
            return StuckView("ended", f"it has ended: {stop.text}", reasons(machine, stop.faults))
    view = _entries(machine, _storm(machine) or _zeros(machine) or _ahead(machine))
    return view if machine.executor.retired or machine.clock.now else _unstarted(machine, view)


def _unstarted(machine: Machine, view: StuckView) -> StuckView:
    """`view` is what is seen ahead of a guest that stands before its first instruction."""
    nothing = f"nothing has run yet: the CPU stands at {_far(machine)}, before its first instruction"
    if view.stuck:
        return replace(view, details=(nothing, *view.details))
    return StuckView("moves", nothing, (f"ahead of it: {view.summary}",))


def _storm(machine: Machine) -> StuckView | None:
    """What keeps the CPU from anything else. Faults do not where their handler does what the instruction would, as a
    monitor of virtual-8086 mode, and goes on behind it."""
    if (view := storm(machine)) is None or view.verdict != "faults":
        return view
    ahead = find_loop(machine)
    if ahead.round is None:
        return view if ahead.death else _of(machine, ahead)
    fault = _hardware(ahead.round)
    if fault is None:
        return view  # a loop within the handler
    if _goes_on(ahead.round, fault):
        return _of_round(machine, ahead.round)
    return replace(view, details=(_cause(ahead.round, fault),))


# -- without a look ahead


def _halted(machine: Machine) -> StuckView:
    where = _far(machine)
    vector = machine.controller.pending_vector()
    if machine.board.kbc.resets_ahead:
        return StuckView("idle", f"the CPU is halted before {where} until the keyboard controller resets it")
    if not machine.executor.interruptible():
        waits = (
            "no interrupt waits either"
            if vector is None
            else f"the interrupt with vector {vector:#04x} waits, and STI before the HLT would have let it in"
        )
        return StuckView(
            "halted", f"the CPU is halted before {where} with interrupts off",
            (waits, "only an NMI, a system management interrupt or a reset can wake it"),
        )  # fmt: skip
    deaf = machine.board.deaf
    if deaf or not machine.clock.can_wake(machine.board.holds_back):
        why = "every interrupt is masked" if deaf else "no device has anything ahead that would interrupt"
        details = (why, *_priority(machine), *masked(machine))
        return StuckView("halted", f"the CPU is halted before {where} and waits for an interrupt", details)
    details = (*_priority(machine), *masked(machine))
    return StuckView("idle", f"the CPU is halted before {where} until an interrupt comes", details)


def _priority(machine: Machine) -> Iterator[str]:
    """What the local APIC holds back though nothing masks it."""
    if priority := machine.board.priority:
        yield priority


def _entries(machine: Machine, view: StuckView) -> StuckView:
    """`view`, with what keeps the guest from being native all the while. The emulator goes on meanwhile, so that this
    alone holds nobody up; it is the verdict where nothing else is and the vCPU itself fails, which no rule explains."""
    transitions = machine.transitions
    if transitions is None or transitions.failing < REFUSED:
        return view
    times = f"native entry has failed {transitions.failing} times since the CPU was native last"
    if transitions.rejected < ENTRIES:
        broken = tuple(f"  {rule}" for rule in transitions.vcpu.refused(machine.executor.state()))
        return replace(view, details=(*view.details, f"{times}, and the emulator goes on meanwhile:", *broken))
    why = f"  {transitions.vcpu.title}: {transitions.rejection}"
    if view.stuck or view.verdict == "idle":
        return replace(view, details=(*view.details, f"{times}, and the emulator goes on meanwhile:", why))
    rest = ("the emulator goes on meanwhile, slowly; `policy emulated` ends the attempts", view.summary)
    return StuckView("entries", times, (why, *rest, *view.details), view.code)


def _zeros(machine: Machine) -> StuckView | None:
    if (found := zeros(machine)) is None:
        return None
    first, last = found
    return StuckView(
        "zeros", f"the CPU executes zeros (memory that nobody wrote) from {first:#x} on",
        (f"it stands at {_far(machine)}, and up to {last:#x} there is nothing else",
         "it came here by a jump, call or return to a place that holds no code, or ran past the end of its own"),
    )  # fmt: skip


# -- by a look ahead


def _ahead(machine: Machine) -> StuckView:
    return _of(machine, find_loop(machine))


def _of(machine: Machine, ahead: Ahead) -> StuckView:
    if ahead.death:
        when = f"after {ahead.gone} more instructions" if ahead.gone else "at the next instruction"
        return StuckView("ended", f"it ends {when}: {ahead.death}", ahead.why)
    if ahead.round is None:
        return StuckView("moves", f"as far as can be seen it gets on: {ahead.ended}")
    return _of_round(machine, ahead.round)


def _of_round(machine: Machine, found: Round) -> StuckView:
    steps, code = found.steps, tuple(_code(found))
    low = min(step.linear for step in steps)
    high = max(step.linear for step in steps)
    where = f"the loop at {low:#x}" if low == high else f"the loop from {low:#x} to {high:#x}"
    loop = Loop(steps)
    ways = loop.ways_out()
    running = _running(found)
    counters = loop.moved_on()
    own = [w for w in ways if w.counted or _moved_by(w, running) or _stored_by(machine, w, found, counters)]
    known = [(way, clock) for way in ways for s in way.sources if (clock := clock_of(machine, found, way, s))]
    clocks = [(way, clock.name) for way, clock in known if clock.runs]
    fault = _hardware(found)
    raised = "" if fault is None else f"{_raised(fault)} in each round"
    cause = "" if fault is None or _goes_on(found, fault) else _cause(found, fault)
    if cause and not own and not clocks and (not ways or cause is _COMES_BACK):
        return StuckView("faults", f"{raised} of {where}", (cause,), code)
    details = [f"{raised}, {cause or 'whose handler lets it go on'}"] if raised else []
    details += [
        f"the loop that ends at {count.branch:#x} only counts {count.name.upper()}: it was stepped over"
        for count in found.counted
    ]
    on = any(step.state.rflags & RFLAGS_IF and not step.state.shadow for step in steps)
    if not ways:
        details += _interrupts(machine, on=on, leaves=True)
        if running or found.stored:
            return StuckView("counts", f"{where} has no way out but does something: {_changes(found)}",
                             tuple(details), code)  # fmt: skip
        verdict = "idle" if found.halts and on else "forever"
        return StuckView(verdict, f"{where} has no way out, and nothing changes in it", tuple(details), code)
    through = {way.past for way in ways}
    for way in ways:
        if way.branch not in through:
            details += _told(machine, found, way, on, counters)
    if own or running or found.stored:
        details.append(f"each round changes {_changes(found)}")
    if clocks:
        way, name = clocks[0]
        which = f"{way.which} {way.must}" if way.which else f"it {way.must}"
        return StuckView("clock", f"{where} waits for a clock, {name}: {which}", tuple(details), code)
    if own:
        return StuckView("counts", f"{where} counts or works: it ends by itself", tuple(details), code)
    tick = not steps[0].state.cr0 & CR0_PE and any(is_tick(way.sources) for way in ways)
    details += _interrupts(machine, on=on, leaves=False, tick=tick)
    # what a handler keeps for itself may change with each call
    own_ways = [way for way in ways if not way.within] or ways
    memory = [(s.place, s.size) for way in own_ways for s in way.sources if s.kind == "memory"] if on else []
    awaited = tuple(
        (at, size)
        for linear, size in memory
        if (at := _physical(machine, linear)) is not None and machine.readable_physical(at, size) == size
    )
    if awaited and (writer := writer_of(machine, awaited)) is not None:
        who = f"the handler of the interrupt with vector {writer.vector:#04x}"
        times = "when it comes next" if writer.times == 1 else f"within {writer.times} more interrupts"
        details.append(f"{who} comes again and again, and changes what is waited for {times}")
        return StuckView("clock", f"{where} waits for {who}: {_first(machine, ways)}", tuple(details), code)
    return StuckView("waits", f"{where} waits: {_first(machine, ways)}", tuple(details), code, awaited)


def _hardware(found: Round) -> Fault | None:
    """The exception that a round has most often, but for those that software raises."""
    faults = [f for f in found.faults if not f.software]
    places = Counter((f.vector, f.linear) for f in faults)
    return max(faults, key=lambda f: places[f.vector, f.linear], default=None)


def _goes_on(found: Round, fault: Fault) -> bool:
    """The guest gets over the instruction that faults: it is carried out in the end, or a return leads behind it, or to
    an outer ring and not back to it."""
    place = fault.linear
    if sum(step.linear == place for step in found.steps) > sum(f.linear == place for f in found.faults):
        return True
    return any(
        0 < step.following - place <= disasm.MAX_INSTRUCTION or (outward and step.following != place)
        for step, outward in _returns(found)
    )


def _returns(found: Round) -> Iterator[tuple[Step, bool]]:
    """Each IRET and RETF that is carried out, and whether it leads to an outer ring."""
    steps, refused = found.steps, {fault.linear for fault in found.faults}
    for step, after in zip(steps, (*steps[1:], steps[0]), strict=True):
        if step.linear not in refused and step.code.lstrip(b"\x66\x48")[:1] in (b"\xcf", b"\xcb", b"\xca"):
            yield step, after.state.cpl > step.state.cpl


def _cause(found: Round, fault: Fault) -> str:
    """Why a fault is raised again, of one that the guest does not get over."""
    places = [step.following for step, _ in _returns(found)]
    if fault.linear in places:
        return _COMES_BACK
    if not places:
        return "its handler does not return before it is raised again"
    return "its handler does not go on behind the instruction"


def _raised(fault: Fault) -> str:
    name = VECTOR_NAMES[fault.vector] if fault.vector < len(VECTOR_NAMES) else f"vector {fault.vector:#x}"
    error = "" if fault.code is None else f"({fault.code:#x})"
    hint = f" ({fault.hint})" if fault.hint else ""
    return f"{name}{error} is raised at {fault.cs:04x}:{fault.rip:x}{hint}"


def _first(machine: Machine, ways: Sequence[WayOut]) -> str:
    """The way out that depends on something outside, in words."""
    way = next((w for w in ways if any(s.kind != "register" for s in w.sources)), ways[0])
    outside = [source for source in way.sources if source.kind != "register"]
    names = [_named(machine, source) for source in outside or way.sources]
    if not names:
        return f"{way.which} {way.must}"
    if way.past is not None:
        which, must = way.instead
        return f"{way.which or 'it'} {way.must}: {f'{which} of ' if which else ''}{names[0]}, {must}"
    if way.called:
        return f"{way.which} {way.must}: it comes from {names[0]}"
    return f"{way.which} of {names[0]}, {way.must}" if way.which else f"{names[0]}, {way.must}"


def _told(machine: Machine, found: Round, way: WayOut, on: bool, counters: Sequence[tuple[int, int]]) -> Iterator[str]:
    """`on`: interrupts come within the loop."""
    at = found.steps[way.branch].linear
    by = "" if way.by is None else f" (decided at {found.steps[way.by].linear:#x})"
    if way.past is None:
        yield f"way out at {at:#x}{by}: {way.which or 'it'} {way.must}"
    else:
        which, must = way.instead
        yield f"way out at {at:#x}: {way.which or 'it'} {way.must}"
        yield f"  that goes by the branch at {found.steps[way.past].linear:#x}{by}: {which or 'it'} {must}"
    for source in way.sources:
        clock = clock_of(machine, found, way, source)
        if source.kind == "stamp" and clock is not None:
            yield f"  {clock.told}"
        elif clock is None and _stored(machine, source, found, counters):
            yield f"  {_named(machine, source)}: the loop itself writes it"
        else:
            yield f"  {_named(machine, source)}{_owner(machine, source, on) if clock is None else ': ' + clock.told}"


def _named(machine: Machine, source: Source) -> str:
    value = f", which reads {source.value:#0{2 + 2 * source.size}x}"
    if source.kind == "stamp":
        return "the time-stamp counter"
    if source.kind == "status":
        return f"{source.name}, which is {source.value:#06x}"
    if source.kind == "msr":
        reads = machine.executor.read_msr(source.place)
        return f"MSR {source.place:#x}" + ("" if reads is None else f", which reads {reads:#x}")
    if source.kind == "port":
        return f"port {source.place:#x} ({source.name or 'no device'}){value}"
    if source.kind == "device":
        return f"physical {source.place:#x} ({source.name or 'no device'}){value}"
    if source.kind == "memory":
        data = _memory(machine, source.place, source.size)
        held = "" if data is None else f", which holds {int.from_bytes(data, 'little'):#0{2 + 2 * source.size}x}"
        size = "the byte" if source.size == 1 else f"the {source.size} bytes"
        known = firmware_word(machine, source.place, source.size)
        return f"{size} at linear {source.place:#x}{f' ({known[0]})' if known else ''}{held}"
    return f"{source.name.upper()} = {source.value:#x}"


def _owner(machine: Machine, source: Source, on: bool) -> str:
    if source.kind in ("port", "device"):
        if not source.name:
            return ": nothing answers there, so it never changes"
        return f": the device {source.name} must change it (`dev {source.name}`)"
    if source.kind == "memory" and _memory(machine, source.place, source.size) is None:
        return ": no memory is there"
    if source.kind == "memory":
        known = firmware_word(machine, source.place, source.size)
        who = "an interrupt's handler or a bus master" if on else "a bus master"
        return ": " + (known[1] if known else f"{who} must write it")
    return ""


def _memory(machine: Machine, linear: int, length: int) -> bytes | None:
    physical = _physical(machine, linear)
    if physical is None or machine.readable_physical(physical, length) < length:
        return None
    return machine.read_physical(physical, length)


def _running(found: Round) -> set[str]:
    """The general registers that a round changes."""
    return {name for name, _, _ in found.changed if name in GENERAL}


def _moved_by(way: WayOut, running: set[str]) -> bool:
    """What the way depends on changes with each round."""
    return any(s.kind == "register" and (s.name in running or s.name == "cx") for s in way.sources)


def _stored_by(machine: Machine, way: WayOut, found: Round, counters: Sequence[tuple[int, int]]) -> bool:
    """A round itself changes the memory that the way depends on, or counts there."""
    return any(_stored(machine, source, found, counters) for source in way.sources)


def _stored(machine: Machine, source: Source, found: Round, counters: Sequence[tuple[int, int]]) -> bool:
    if source.kind != "memory":
        return False
    first = _physical(machine, source.place)
    if first is not None and any(first + n in found.written for n in range(source.size)):
        return True
    return any(at < source.place + source.size and source.place < at + size for at, size in counters)


def _physical(machine: Machine, linear: int) -> int | None:
    return paging.translate(machine.executor.state(), machine.memory.try_read, linear, PHYSICAL_BITS)


def _changes(found: Round) -> str:
    words = [f"{name.upper()} from {one:#x} to {other:#x}" for name, one, other in found.changed if name != "rflags"]
    words += [f"memory in the page at byte {page << 12:#x}" for page in found.stored]
    return ", ".join(words[:6]) or "nothing"


def _interrupts(machine: Machine, *, on: bool, leaves: bool, tick: bool = False) -> Iterator[str]:
    if not on:
        yield "interrupts are off (IF is 0)" + (": only an NMI or a reset ends it" if leaves else "")
        yield from waiting(machine, tick=tick)
        return
    yield "interrupts are on (IF is 1), and their handlers run meanwhile"
    if tick:
        yield late_tick(machine)
    yield from masked(machine)


def _far(machine: Machine) -> str:
    selector, offset = machine.executor.cs_ip
    return f"{selector:04x}:{offset:04x}"


def _code(found: Round) -> Iterator[InstructionView]:
    seen: set[int] = set()
    for step in sorted(found.steps, key=lambda s: s.linear):
        if step.linear in seen or len(seen) == SHOWN or not step.code:  # no memory is there
            continue
        seen.add(step.linear)
        current = step.linear == found.steps[0].linear
        (view,) = disasm.decode(
            step.code, step.linear, step.bits, step.state.rip, 1, current=step.linear if current else None
        )
        yield view
