"""Between emulator and native CPU: who executes and why, how that is decided, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emu.x86.modes import Mode
from repl.command import Argument, CommandError, Result, command
from repl.kinds import COUNT, FORCE, LEDGER, POLICY, RULES, SPAN
from repl.rules import chosen_rules

if TYPE_CHECKING:
    from emu.x86.vmentry import Rules
    from repl.session import Session

Args = Mapping[str, Any]


@command(
    "why", "transitions", "say whether a CPU's virtualisation can run the present state natively, and if not why",
    Argument("rules", RULES, optional=True), aliases=("info why",),
    details=(
        "RULES: vtx2006 is VT-x without unrestricted guest, where real mode must look like virtual 8086 mode; vtx has\n"
        "unrestricted guest; svm is AMD's; kvm is this host's KVM, as probed. Without RULES the first three\n"
        "are asked, and the machine's own. Every rule that is broken is said with its values and its section, and\n"
        "which of the next instructions will make the state enterable, if one does. The look ahead changes nothing of\n"
        "the guest and stops before the first access to a device."
    ), looks=True,
)  # fmt: skip
def why(session: Session, args: Args) -> Result:
    from emu.x86 import vmentry

    name = args["rules"]
    own = session.debugger.steering.rules
    if name is not None:
        # the machine's own are known even where the hypervisor cannot be had, and asked no second time
        chosen: tuple[Rules, ...] = (own if own is not None and own.name == name else chosen_rules(name),)
    else:
        chosen = tuple(vmentry.RULES.values())
        chosen += (own,) if own is not None and own.name not in vmentry.RULES else ()
    return Result((tuple(session.debugger.why(rules) for rules in chosen),))


@command(
    "transitions", "transitions", "say who executes, by which policy, and show the last moves with their reasons",
    aliases=("info transitions",),
    details=(
        "Needs --hypervisor. First what has been counted in all; where the CPU is emulated, every rule that keeps it\n"
        "from being entered, and what else keeps it; the last moves; and what `policy learn` knows of exit sites.\n"
        "Where hops take the larger share of the cost that is said, with what to do; stderr had it once.\n"
        "`events transition` shows more of the moves; `ledger` what they cost."
    ), looks=True,
)  # fmt: skip
def transitions(session: Session, args: Args) -> Result:
    return Result((session.debugger.steering.view(),))


@command(
    "policy", "transitions", "show or choose how it is decided who executes; what was learned, saved and loaded",
    Argument("policy", POLICY, optional=True, form="NAME|why SITE|save FILE|load FILE"), aliases=("info policy",),
    details=(
        "emulated: never native. native, or auto: native wherever the state can be entered. dwell:N: emulated for N\n"
        "instructions behind each exit, or access that would have been one. learn: for as long as what was learned of\n"
        "the place says (docs/policies.md). What is forced stays forced.\n"
        "`why SITE` explains the dwell that learn has at the exit sites whose words, as `policy` shows them, contain\n"
        "SITE: a port, a mode, an address. `save FILE` writes what is known, `load FILE` begins with that."
    ), looks=0,
)  # fmt: skip
def policy(session: Session, args: Args) -> Result:
    steering = session.debugger.steering
    word, _, rest = (args["policy"] or "").strip().partition(" ")
    rest = rest.strip()
    if word in ("why", "save", "load"):
        if not rest:
            raise CommandError(f"policy {word} what? Give {'a site' if word == 'why' else 'a file'}")
        if word == "why":
            return Result(text="\n\n".join("\n".join(lines) for lines in steering.explain(rest)))
        count = (steering.save_learned if word == "save" else steering.load_learned)(Path(rest))
        return Result(text=f"{count} exit sites {'saved' if word == 'save' else 'loaded'}")
    if word:
        steering.set_policy(steering.named_policy(args["policy"].strip()))
    view = steering.view()
    return Result(text="\n".join((view.policy, *(f"  {line}" for line in (*view.policy_state, *view.sites)))))


@command(
    "force", "transitions", "force native execution or emulation, whatever the policy says",
    Argument("who", FORCE, form="native|emulated|off"),
    details=(
        "`native` is refused, with every reason, where the state cannot be entered. Where it becomes such a one\n"
        "later, the emulator runs until it can be entered again. `off`: the policy decides again."
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
    details="Addresses are linear. A native CPU that comes there exits and is emulated until it has left.", looks=0,
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
    ), looks=0,
)  # fmt: skip
def ledger(session: Session, args: Args) -> Result:
    if args["clear"] is not None:
        session.debugger.steering.clear_ledger()
        return Result()
    return Result((session.debugger.steering.ledger(),))
