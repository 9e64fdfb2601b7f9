"""Writes docs/packets.md, what gdb can ask and is told, from the tables that answer it: `python -m stub.reference`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path

from emu.debugger import Debugger
from emu.machine import MachineConfig, build_machine
from emu.worker import Worker
from stub import peers
from stub.adapter import DebuggerTarget
from stub.features import MEANINGS
from stub.handlers.breakpoints import KINDS
from stub.handlers.every import ALL_HANDLERS
from stub.handlers.monitor import COMMANDS
from stub.links import parse_address
from stub.packet import Decoder, Packet, frame
from stub.registers import ARCHITECTURES, describe
from stub.server import MAX_ONLOOKERS
from stub.session import Session
from stub.target import StopReason

TARGET = Path("docs") / "packets.md"
#: A client that knows everything.
_OFFERED = b"qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+;error-message+"
_HEAD = """# Packets of the gdb stub
Written by `python -m stub.reference` from the tables that answer the packets: change `stub/`, not this file.

The protocol is that of "Debugging with GDB", appendix "GDB Remote Serial Protocol". A packet that is not here gets the
empty answer. Numbers are hexadecimal; capital words stand for something. Addresses are linear, and so is the program
counter (`eip`, `rip`): CS base + offset.

The columns of other stubs: QEMU 7.2.22 and udbserver 0.3.0 were asked, the others were not run. `-` is no, `?` not
known, an empty cell was not compared; what is as basic as `g` is everywhere.
"""
#: Features of system registers, by the last part of their names, in words.
_SYSTEM = {
    "control": "CR, EFER",
    "debug": "DR",
    "msrs": "MSRs",
    "tables": "GDTR, IDTR, LDTR, TR",
    "segments": "caches of segments",
}
_STOPS = """Every stop reply is `T` with gdb's signal (05 SIGTRAP; 02 SIGINT after Ctrl-C; 06 SIGABRT where the guest
died), the thread, its CPU and the registers
{expedited};
`W` with the code when the guest has ended by itself. What there is to say in words comes before it as an `O` packet.
"""


def _advertised(session: Session) -> list[str]:
    """The real answer to such a client."""
    session.receive_data(frame(_OFFERED))
    decoder = Decoder(repeats=True)
    decoder.receive_data(session.data_to_send())
    while (event := decoder.next_event()) is not None:
        if isinstance(event, Packet):
            return event.payload.decode("ascii").split(";")
    return []


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


def _forms(session: Session) -> Iterator[tuple[str, str]]:
    """Those that this target answers."""
    for handler in ALL_HANDLERS:
        if handler.active(session.target):
            yield from handler.forms


def _features(session: Session) -> Iterator[tuple[str, ...]]:
    for feature in _advertised(session):
        yield f"`{feature}`", MEANINGS[feature.partition("=")[0].removesuffix("+")], *peers.row(feature)


def here(session: Session) -> dict[str, str]:
    """The cells of the properties that are no packets, found in the code."""
    offered = _advertised(session)
    names = {feature.name.rpartition(".")[2] for feature in describe(32).features}
    host = ip_address(parse_address("0").host)
    return {
        peers.ARCHITECTURE: "yes" if len({describe(bits).architecture for bits in ARCHITECTURES}) == 3 else "-",
        peers.SYSTEM: ", ".join(words for name, words in _SYSTEM.items() if name in names),
        peers.EXPEDITED: "yes" if all(describe(bits).expedited for bits in ARCHITECTURES) else "-",
        peers.REVERSE: "yes" if {"ReverseStep+", "ReverseContinue+"} <= set(offered) else "-",
        peers.CLIENTS: f"one acts, {MAX_ONLOOKERS} look on" if MAX_ONLOOKERS else "-",
        peers.LISTENS: "loopback" if host.is_loopback else str(host),
    }


def _properties(session: Session) -> Iterator[tuple[str, ...]]:
    cells = here(session)
    for what, row in peers.PROPERTIES.items():
        yield what, cells[what], *row


def _registers() -> Iterator[str]:
    descriptions = {bits: describe(bits) for bits in ARCHITECTURES}
    names = list(dict.fromkeys(f.name for d in descriptions.values() for f in d.features))
    for name in names:
        yield f"### {name}"
        for bits, description in descriptions.items():
            found = [f for f in description.features if f.name == name]
            same = [b for b in ARCHITECTURES if b < bits and _of(name, b) == _of(name, bits)]
            if found and not same:
                also = [str(b) for b in ARCHITECTURES if _of(name, b) == _of(name, bits)]
                yield f"{' and '.join(also)} bits: {_of(name, bits)}" if len(also) < 3 else _of(name, bits)
                yield ""


def _of(name: str, bits: int) -> str:
    registers = [r for f in describe(bits).features if f.name == name for r in f.registers]
    return ", ".join(f"`{r.name}`" for r in registers)


def reference(session: Session) -> str:
    """The whole page, for a session that nobody has spoken to."""
    lines = [_HEAD, "## Packets", ""]
    lines += _table(
        ("packet", "meaning", *peers.PEERS),
        ((f"`{form}`", what, *peers.row(form)) for form, what in _forms(session)),
    )
    lines += ["## What qSupported answers", "", *_table(("feature", "meaning", *peers.PEERS), _features(session))]
    lines += ["## What is no packet", "", *_table(("", "here", *peers.PEERS), _properties(session))]
    expedited = ", ".join(f"`{r.name}`" for r in describe(16).expedited)
    lines += ["## Stops", "", _STOPS.format(expedited=expedited)]
    reasons = {kind.reason: kind.what for kind in KINDS.values()}
    lines += _table(
        ("reason", "meaning"),
        ((f"`{r.value}`", reasons[r].partition(" of ")[0]) for r in StopReason if r.value),
    )
    lines += ["## monitor", "", "Besides the [commands of the prompt](repl.md) that do not run the guest:", ""]
    lines += _table(("command", "meaning"), ((f"`{c.usage}`", c.help) for c in COMMANDS.values()))
    architectures = ", ".join(f"`{name}` ({bits}-bit code)" for bits, name in ARCHITECTURES.items())
    lines += ["## Target description", ""]
    lines += [f"The architecture follows the CPU's mode: {architectures}.", "", *_registers()]
    return "\n".join(lines).rstrip("\n") + "\n"


def page() -> str:
    """The page for v2e's own target."""
    debugger = Debugger(build_machine(MachineConfig(memory=1 << 20, firmware=b"\xf4" * 0x1000)))
    return reference(Session(DebuggerTarget(debugger, Worker(debugger)), has_runner=True))


def main() -> None:
    """Write the page into the source tree that this module is in."""
    (Path(__file__).resolve().parent.parent / TARGET).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
