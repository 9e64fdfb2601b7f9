"""CPU, segments and tables: what the CPU has cached, and what memory says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repl.command import Argument, CommandError, Result, command
from repl.kinds import ADDRESS, ASSIGNMENT, MSR, NUMBER, RULES
from repl.rules import chosen_rules
from repl.shown import ValueView

if TYPE_CHECKING:
    from repl.session import Session

Args = Mapping[str, Any]


@command(
    "regs", "segments", "show the general registers, in the current mode's width",
    aliases=("r", "registers", "info cpu"), looks=True,
)  # fmt: skip
def regs(session: Session, args: Args) -> Result:
    return Result((session.debugger.registers(),))


@command(
    "sreg", "segments", "show the segment registers: what the CPU has cached, and what the table says now",
    Argument("rules", RULES, optional=True), aliases=("segments", "info segments", "info sreg"),
    details=(
        "For each register: the selector; base, limit and access rights in the descriptor cache; beside them what a\n"
        "reload of the same selector would give: selector * 16 and 64 KiB in real and V86 mode, else the descriptor.\n"
        "What differs is marked with *: that is how big real mode, bases that are no selector * 16, and tables that\n"
        "were changed behind the CPU's back show.\n"
        "RULES, as of `why`, adds the column native: the first of the rules for entering native execution that the\n"
        "register breaks, or yes. With --hypervisor it is there by that CPU's rules."
    ), looks=True,
)  # fmt: skip
def sreg(session: Session, args: Args) -> Result:
    rules = chosen_rules(args["rules"]) if args["rules"] is not None else session.debugger.steering.rules
    if rules is None:
        return Result((session.debugger.segments(),))
    return Result((session.debugger.native_segments(rules),))


@command(
    "vcpus", "segments", "list the vCPUs, and say which one is looked at", aliases=("info cpus",),
    details="A file of Xen may have several; `*` is the one that all other commands show.", looks=True,
)  # fmt: skip
def vcpus(session: Session, args: Args) -> Result:
    return Result((session.debugger.vcpus(),))


@command(
    "vcpu", "segments", "look at another vCPU from now on", Argument("number", NUMBER),
    details=(
        "In gdb each vCPU is a thread: `thread N` looks at vCPU N - 1, and changes nothing for `monitor` and the\n"
        "prompt."
    ),
)  # fmt: skip
def vcpu(session: Session, args: Args) -> Result:
    session.debugger.show_vcpu(args["number"])
    return Result((session.debugger.vcpus(),))


@command(
    "creg",
    "segments",
    "show the control registers and EFER, decoded",
    aliases=("info creg", "info control"),
    looks=True,
)
def creg(session: Session, args: Args) -> Result:
    return Result((session.debugger.control(),))


@command("dreg", "segments", "show the debug registers, decoded", aliases=("info dreg",), looks=True)
def dreg(session: Session, args: Args) -> Result:
    return Result((session.debugger.debug_registers(),))


@command(
    "msr", "segments", "show all model-specific registers, or read or write one by its name or number",
    Argument("msr", MSR, optional=True, form="NAME|NUMBER"), Argument("value", NUMBER, optional=True),
    aliases=("info msr",),
    details="As RDMSR and WRMSR in ring 0: what would raise #GP(0) is refused.", looks=1,
)  # fmt: skip
def msr(session: Session, args: Args) -> Result:
    number, value = args["msr"], args["value"]
    if number is None:
        found = session.debugger.msrs()
        return Result((found,)) if found else Result(text="this CPU model has no model-specific registers")
    if value is not None:
        if not -(1 << 63) <= value < 1 << 64:
            raise CommandError(f"an MSR has 64 bits: {value:#x} does not fit")
        session.debugger.write_msr(number, value & (1 << 64) - 1)
        return Result()
    names = {n: name for name, n in session.debugger.msr_names().items()}
    return Result((ValueView(names.get(number, f"msr {number:#x}"), session.debugger.msr(number), 64),))


def _table(entries: tuple[Any, ...], name: str, index: int | None) -> Result:
    if not entries:
        return Result(text=f"the {name} is empty, or its memory cannot be read")
    if index is None:
        return Result((entries,))
    chosen = tuple(e for e in entries if e.index == index)
    if not chosen:
        raise CommandError(f"the {name} has no entry {index}: its last one is {entries[-1].index}")
    return Result((chosen,))


_INDEX = Argument("index", NUMBER, optional=True)


@command("gdt", "segments", "show the global descriptor table, decoded", _INDEX, aliases=("info gdt",), looks=True)
def gdt(session: Session, args: Args) -> Result:
    return _table(session.debugger.gdt(), "GDT", args["index"])


@command("ldt", "segments", "show the local descriptor table, decoded", _INDEX, aliases=("info ldt",), looks=True)
def ldt(session: Session, args: Args) -> Result:
    return _table(session.debugger.ldt(), "LDT", args["index"])


@command("idt", "segments", "show the interrupt descriptor table (in real mode the vectors)", _INDEX,
         aliases=("info idt",), looks=True)  # fmt: skip
def idt(session: Session, args: Args) -> Result:
    return _table(session.debugger.idt(), "IDT", args["index"])


@command("ivt", "segments", "show the real-mode interrupt vectors", _INDEX, aliases=("info ivt",), looks=True)
def ivt(session: Session, args: Args) -> Result:
    return _table(session.debugger.ivt(), "IVT", args["index"])


@command(
    "page", "segments", "walk the page tables for ADDRESS: every level's entry, decoded", Argument("address", ADDRESS),
    aliases=("info page", "gva2gpa"), looks=True,
)  # fmt: skip
def page(session: Session, args: Args) -> Result:
    return Result((session.debugger.page_walk(args["address"]),))


@command(
    "set", "segments", "set REGISTER to VALUE, as the CPU would be loaded",
    Argument("register value", ASSIGNMENT),
    details=(
        "`set eax 5` and `set $eax = 5` mean the same. Loading a selector in protected mode takes base, limit and\n"
        "access rights from the descriptor table, and is refused where the CPU would fault."
    ),
)  # fmt: skip
def set_register(session: Session, args: Args) -> Result:
    session.write_register(*args["register value"])
    return Result()
