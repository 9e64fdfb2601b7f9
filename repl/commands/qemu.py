"""Commands that answer in the words of QEMU's monitor, for scripts and hands that know those."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repl import qemu_cpu, qemu_text
from repl.command import CommandError, Result, command

if TYPE_CHECKING:
    from emu.board import Board
    from repl.session import Session

Args = Mapping[str, Any]


def _board(session: Session) -> Board:
    machine = session.debugger.machine
    machine.devices()  # what the engine has delivered is told to the controllers first
    return machine.board


@command("info pic", "devices", "show the interrupt controllers as QEMU's monitor does",
         details="`irq` and `dev pic` show more.", looks=True)  # fmt: skip
def info_pic(session: Session, args: Args) -> Result:
    board = _board(session)
    text = qemu_text.pic_text(board.pic.chips)
    if board.chipset is not None:
        text = f"{qemu_text.ioapic_text(board.chipset.ioapic.save())}\n{text}"
    return Result(text=text)


@command(
    "info lapic", "devices", "show the local APIC as QEMU's monitor does", details="`dev lapic` shows more.", looks=True
)
def info_lapic(session: Session, args: Args) -> Result:
    chipset = _board(session).chipset
    if chipset is None:
        raise CommandError("this machine has no local APIC: --machine pc has one")
    apic = chipset.lapic
    return Result(text=qemu_text.lapic_text(apic.save(), apic.timer.current(), apic.timer.divisor, apic.ppr))


@command(
    "info irq",
    "devices",
    "show how often each interrupt line was raised since reset, as QEMU's monitor does",
    looks=True,
)
def info_irq(session: Session, args: Args) -> Result:
    board = _board(session)
    counts = [("isa-i8259", board.pic.raised)]
    if board.chipset is not None:
        counts.insert(0, ("ioapic", board.chipset.ioapic.save().raised))
    return Result(text=qemu_text.irq_text(counts))


@command("info mtree", "devices", "show the maps of memory and ports as QEMU's monitor does",
         details="`map` shows the same in columns.", looks=True)  # fmt: skip
def info_mtree(session: Session, args: Args) -> Result:
    machine = session.debugger.machine
    return Result(text=qemu_text.mtree_text(machine.memory_map(), machine.port_map()))


@command("info qtree", "devices", "show every device on its bus, with its registers, as QEMU's monitor does",
         details="`dev` lists the devices; `dev NAME` decodes one.", looks=True)  # fmt: skip
def info_qtree(session: Session, args: Args) -> Result:
    views, chipset = session.debugger.devices(), _board(session).chipset
    return Result(text=qemu_text.qtree_text(views, {} if chipset is None else chipset.host.functions))


@command("info registers", "segments", "show the CPU's registers as QEMU's monitor does",
         details="`regs`, `sreg` and `creg` show more.", looks=True)  # fmt: skip
def info_registers(session: Session, args: Args) -> Result:
    session.debugger.need(*sorted(session.debugger.unknown()))
    return Result(text=qemu_cpu.registers_text(session.debugger.cpu()))


@command("info mem", "segments", "show what the page tables map, as QEMU's monitor does",
         details="Ranges, lengths, rights; u: ring 3 may, w: written. `page ADDR` walks the tables.",
         looks=True)  # fmt: skip
def info_mem(session: Session, args: Args) -> Result:
    return Result(text=qemu_cpu.memory_text(session.debugger.cpu(), session.debugger.pages()))


@command("info tlb", "segments", "show each page that is mapped, as QEMU's monitor does",
         details="Linear: physical address, then the entry's XD, G, PS, D, A, PCD, PWT, U/S and R/W.",
         looks=True)  # fmt: skip
def info_tlb(session: Session, args: Args) -> Result:
    return Result(text=qemu_cpu.tlb_text(session.debugger.cpu(), session.debugger.pages()))
