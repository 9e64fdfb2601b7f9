"""What other stubs answer, for docs/packets.md: their columns. Data for a document and nothing else.

QEMU 7.2.22 and udbserver 0.3.0 were asked; the others were not run, and a question mark is what is not known of them.
"""

from __future__ import annotations

PEERS = ("QEMU 7.2", "gdbstub", "udbserver", "rr", "gdbserver", "86Box")
_Row = tuple[str, str, str, str, str, str]
_ALL: _Row = ("yes",) * 6
#: By what a packet's form or a feature begins with, the longest that fits. Forms that are not here were not compared.
PACKETS: dict[str, _Row] = {
    "qXfer:features:read": ("yes", "yes", "architecture only", "yes", "yes", "yes"),
    "qXfer:memory-map:read": ("-", "yes", "-", "-", "-", "-"),
    "qXfer:threads:read": ("-", "-", "-", "-", "yes", "-"),
    "PacketSize": ("4 K", "4 K", "4 K", "1 M", "-", "16 K"),
    "QStartNoAckMode": ("-", "yes", "yes", "yes", "yes", "-"),
    "x ADDR": ("-", "yes", "-", "yes", "yes", "-"),
    "binary-upload": ("-", "yes", "-", "yes", "yes", "-"),
    "X ADDR": ("-", "yes", "yes", "yes", "yes", "yes"),
    "vCont;r": ("-", "yes", "-", "-", "yes", "-"),
    "Z": _ALL,
    "z": _ALL,
    "Z0,ADDR,KIND;EXPR": ("-", "parsed", "-", "yes", "yes", "-"),
    "ConditionalBreakpoints": ("-", "parsed", "-", "yes", "yes", "-"),
    "swbreak": ("-", "yes", "yes", "yes", "yes", "yes"),
    "hwbreak": ("-", "yes", "yes", "yes", "yes", "yes"),
    "qRcmd": ("yes", "yes", "-", "own", "yes", "ports"),
    "qSearch:memory": ("-", "-", "-", "yes", "yes", "-"),
    "qCRC": ("-", "-", "-", "yes", "yes", "-"),
    "qv2e.": ("-",) * 6,
    "qqemu.": ("yes", "-", "-", "-", "-", "-"),
    "Qqemu.": ("yes", "-", "-", "-", "-", "-"),
    "error-message": ("-", "-", "-", "-", "yes", "-"),
}
#: What is no packet, and what the peers have; what it is here is for `stub.reference` to find out.
ARCHITECTURE = "architecture follows 16-bit code"
SYSTEM = "system registers"
EXPEDITED = "registers in stop replies"
REVERSE = "reverse execution (`bs`, `bc`)"
CLIENTS = "several clients"
LISTENS = "where it listens if nothing is said"
PROPERTIES: dict[str, _Row] = {
    ARCHITECTURE: ("-", "-", "-", "-", "-", "i8086 always"),
    SYSTEM: ("CR, EFER, bases of FS and GS", "as its user says", "-", "-", "-", "CR, EFER"),
    EXPEDITED: ("-", "yes", "-", "?", "yes", "?"),
    REVERSE: ("in a replay", "a hook", "-", "yes", "-", "-"),
    CLIENTS: ("-", "-", "-", "?", "?", "yes"),
    LISTENS: ("everywhere", "as its user says", "everywhere", "loopback", "as its user says", "?"),
}


def row(form: str) -> _Row:
    """The peers' cells of a packet's form or a feature; empty ones where they were not compared."""
    fitting = [key for key in PACKETS if form.startswith(key)]
    return PACKETS[max(fitting, key=len)] if fitting else ("",) * 6
