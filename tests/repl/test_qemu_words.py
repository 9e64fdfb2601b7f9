"""`info pic`, `info lapic`, `info irq`, `info mtree` and `info qtree` are in the text form of QEMU's monitor.

The first two are compared, to the character, with QEMU's monitor on the same guest; the others, whose contents are each
machine's own, by the pattern of every line, with QEMU's as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

import oracles
import qemu_monitor
from emu.worker import Worker
from machines import debugger
from repl.command import CommandError
from repl.commands import all_commands
from repl.render import result_text
from repl.session import Session
from repl.style import Style

#: QEMU's I/O APIC says version 20h; the 82093AA has 11h (data sheet, 3.2.2).
VERSION = ("ver=0x20", "ver=0x11")
_HEX = "[0-9a-f]{16}"
FORMS = {
    "info irq": (r"IRQ statistics for [\w-]+:", r" ?\d+: \d+"),
    "info mtree": (
        r"address-space: .+", r"memory-region: .+", rf" +{_HEX}-{_HEX} \(prio -?\d+, (ram|rom|romd|i/o)\): .+",
    ),
    "info qtree": (
        r" *bus: \S+", r" *type \S+", r' *dev: [\w-]+, id ".*"', r' +gpio-(in|out) ".*" \d+',
        r' +[\w .:/-]+ = (true|false|-?\d+ \(0x[0-9a-f]+\)|\d+ \([\d.]+ \w+\)|".*"|<null>|[0-9a-f]{2}\.\d)',
        r" +class [\w ]+, addr \d\d:\d\d\.\d, pci id [0-9a-f]{4}:[0-9a-f]{4} \(sub [0-9a-f]{4}:[0-9a-f]{4}\)",
        r" +bar \d: (i/o|mem) at 0x[0-9a-f]+ \[0x[0-9a-f]+\]", rf" +mmio {_HEX}/{_HEX}",
        r" +[\w-]+ = [\w:.]+( \(.+\))?",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def pc() -> Iterator[Session]:
    target = debugger(oracles.assemble_image("monitor"), machine="pc", memory=16 << 20)
    target.machine.run(100_000)
    worker = Worker(target)
    worker.start()
    yield Session(target, worker, all_commands())
    worker.close()
    target.machine.close()


@pytest.fixture(scope="module")
def qemu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What its monitor answers, by command."""
    commands = ("info pic", "info lapic", *FORMS)
    # the last that the guest writes is the ICR
    return qemu_monitor.ask(oracles.assemble_image("monitor"), tmp_path_factory.mktemp("qemu"), commands,
                            ("info lapic", "0x000c4075"))  # fmt: skip


def said(session: Session, line: str) -> str:
    return result_text(session.execute(line), Style())


def timeless(text: str) -> str:
    """Without the request of IRQ 0: QEMU's 8254 goes by the host's clock, and has or has not pulsed yet."""
    return re.sub(r"(ic0: irr=.)[01]", r"\1.", text).rstrip("\n")


@pytest.mark.parametrize("command", ["info pic", "info lapic"])
def test_the_interrupt_controllers_read_as_in_qemu(command: str, pc: Session, qemu: dict[str, str]) -> None:
    assert timeless(said(pc, command)) == timeless(qemu[command].replace(*VERSION))


@pytest.mark.parametrize("command", FORMS)
def test_every_line_has_one_of_qemu_s_forms(command: str, pc: Session, qemu: dict[str, str]) -> None:
    for text in (said(pc, command), qemu[command]):
        lines = [line for line in text.splitlines() if line]
        assert lines
        strange = [line for line in lines if not any(re.fullmatch(form, line) for form in FORMS[command])]
        assert strange == []


def test_every_device_of_the_machine_is_in_the_tree_and_every_region_in_the_map(pc: Session) -> None:
    tree, map = said(pc, "info qtree"), said(pc, "info mtree")
    for view in pc.debugger.devices():
        assert f"dev: {view.name}, " in tree
    machine = pc.debugger.machine
    for region in (*machine.memory_map(), *machine.port_map()):
        assert f"{region.first:016x}-{region.last:016x} (prio 0, " in map


def test_lines_are_counted_as_they_rise(pc: Session) -> None:
    before = said(pc, "info irq")
    machine = pc.debugger.machine
    for level in (True, True, False, True):
        machine.board.pic.set_irq(5, level)
    assert " 5: 2" not in before
    assert " 5: 2" in said(pc, "info irq")


def test_an_isapc_has_no_local_apic(say: Callable[[str], str]) -> None:
    with pytest.raises(CommandError, match="this machine has no local APIC: --machine pc has one"):
        say("info lapic")
    assert say("info pic").startswith("pic1: ")
    assert "i440FX" not in say("info qtree")
