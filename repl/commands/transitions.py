"""Between emulator and native CPU: who executes and why, how that is decided, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from emu.x86.modes import Mode
from repl.command import Argument, Result, command
from repl.kinds import COUNT, FORCE, LEDGER, POLICY, RULES, SPAN, chosen_rules

if TYPE_CHECKING:
    from repl.session import Session

Args = Mapping[str, Any]


@command(
    "why", "transitions", "say whether a CPU's virtualisation can run the present state natively, and if not why",
    Argument("rules", RULES, optional=True), aliases=("info why",),
    details=(
        "RULES: vtx2006 is VT-x without unrestricted guest, where real mode must look like virtual 8086 mode; vtx has\n"
        "unrestricted guest; svm is AMD's. Without RULES each is asked. Every rule that is broken is said with its\n"
        "values and its section, and which of the next instructions will make the state enterable, if one does.\n"
        "The look ahead changes nothing of the guest and stops before the first access to a device."
    ),
)  # fmt: skip
def why(session: Session, args: Args) -> Result:
    from emu.x86 import vmentry

    name = args["rules"]
    chosen = tuple(vmentry.RULES.values()) if name is None else (chosen_rules(name),)
    return Result((tuple(session.debugger.why(rules) for rules in chosen),))


@command(
    "transitions", "transitions", "say who executes, by which policy, and show the last moves with their reasons",
    aliases=("info transitions",),
    details=(
        "Needs --hypervisor. Where the CPU is emulated, every rule that keeps it from being entered is said, and what\n"
        "else keeps it. `events transition` shows more of the moves; `ledger` what they cost."
    ),
)  # fmt: skip
def transitions(session: Session, args: Args) -> Result:
    return Result((session.debugger.steering.view(),))


@command(
    "policy", "transitions", "show or choose how it is decided who executes",
    Argument("policy", POLICY, optional=True, form="NAME"), aliases=("info policy",),
    details=(
        "emulated: never native. native, or auto: native wherever the state can be entered. dwell:N: emulated for N\n"
        "instructions behind each exit, or access that would have been one. learn: for as long as what was learned of\n"
        "the place says. What is forced stays forced."
    ),
)  # fmt: skip
def policy(session: Session, args: Args) -> Result:
    steering = session.debugger.steering
    if args["policy"] is not None:
        steering.set_policy(steering.named_policy(args["policy"].strip()))
    view = steering.view()
    return Result(text="\n".join((view.policy, *(f"  {line}" for line in view.policy_state))))


@command(
    "force", "transitions", "force native execution or emulation, whatever the policy says",
    Argument("who", FORCE, form="native|emulated|off"),
    details=(
        "`native` is refused, with every reason, where the state cannot be entered. Where it becomes such a one later,\n"
        "the emulator runs until it can be entered again. `off`: the policy decides again."
    ),
)  # fmt: skip
def force(session: Session, args: Args) -> Result:
    who = args["who"]
    session.debugger.steering.force(None if who == "off" else who == "native")
    return _moved(session)


@command("native", "transitions", "force native execution: `force native`")
def native(session: Session, args: Args) -> Result:
    session.debugger.steering.force(True)
    return _moved(session)


@command("emulate", "transitions", "force emulation; with COUNT for so many instructions, then as the policy says",
         Argument("count", COUNT, optional=True))  # fmt: skip
def emulate(session: Session, args: Args) -> Result:
    if args["count"] is None:
        session.debugger.steering.force(False)
    else:
        session.debugger.steering.emulate(args["count"])
    return _moved(session)


def _moved(session: Session) -> Result:
    view = session.debugger.steering.view()
    who = f"native, on {view.hypervisor}" if view.native else "emulated"
    return Result(text=f"the CPU is {who}; " + (f"{view.forced} is forced" if view.forced else f"policy {view.policy}"))


@command(
    "forbid", "transitions", "show where native execution is forbidden, or forbid it at addresses or in a mode too",
    Argument("span", SPAN, optional=True, form="ADDRESS[-ADDRESS]|MODE|off"),
    details="Addresses are linear. A native CPU that comes there exits and is emulated until it has left.",
)  # fmt: skip
def forbid(session: Session, args: Args) -> Result:
    steering = session.debugger.steering
    span = args["span"]
    if span == "off":
        steering.allow_all()
    elif isinstance(span, Mode):
        steering.forbid((), (span,))
    elif span is not None:
        steering.forbid((span,), ())
    return Result(text=", ".join(steering.view().forbidden) or "nothing is forbidden")


@command(
    "ledger", "transitions", "show what exits, hops and instructions have cost, or `clear` it",
    Argument("clear", LEDGER, optional=True), aliases=("info ledger",),
    details=(
        "Cycles of a hypothetical host, whose prices --costs sets. The ledger never changes the guest's time: a run\n"
        "that costs more or less is the same run."
    ),
)  # fmt: skip
def ledger(session: Session, args: Args) -> Result:
    if args["clear"] is not None:
        session.debugger.steering.clear_ledger()
        return Result()
    return Result((session.debugger.steering.ledger(),))
