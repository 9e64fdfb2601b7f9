"""The 8237A's registers: their bits, one controller's state, and how a front end shows it."""

from __future__ import annotations

from emu.record import dataclass, field
from emu.views import FieldView

# command register
MEM_TO_MEM, HOLD_0, DISABLE, COMPRESSED, ROTATE, EXTENDED, DREQ_LOW, DACK_HIGH = (1 << i for i in range(8))
# mode register; bits 1-0 of the byte written say which channel it is for
VERIFY, WRITE, READ = 0x00, 0x04, 0x08  #: bits 3-2: a write transfer goes to memory
TRANSFER = 0x0C
AUTOINIT, DECREMENT = 0x10, 0x20
DEMAND, SINGLE, BLOCK, CASCADE = 0x00, 0x40, 0x80, 0xC0
KIND = 0xC0

_COMMAND_NAMES = (
    "memory-to-memory", "channel 0 address hold", "disabled", "compressed timing", "rotating priority",
    "extended write", "DREQ active low", "DACK active high",
)  # fmt: skip
_KIND_NAMES = {DEMAND: "demand", SINGLE: "single", BLOCK: "block", CASCADE: "cascade"}
_TRANSFER_NAMES = {VERIFY: "verify", WRITE: "write to memory", READ: "read from memory", TRANSFER: "illegal"}


@dataclass(slots=True)
class Channel:
    """`mode` as written, bits 7-2. `requested` is the software request, `line` the DREQ pin's level, `done` the status
    bit for a terminal count."""

    base_address: int = 0
    base_count: int = 0
    address: int = 0
    count: int = 0
    mode: int = 0
    masked: bool = True
    requested: bool = False
    line: bool = False
    done: bool = False


@dataclass(slots=True)
class State:
    """One controller. `flip_flop` False: the next access to an address or count register is its low byte. `last` is
    the channel with the lowest priority while priorities rotate."""

    channels: list[Channel] = field(default_factory=lambda: [Channel() for _ in range(4)])
    command: int = 0
    flip_flop: bool = False
    temporary: int = 0
    last: int = 3


@dataclass(slots=True)
class PairState:
    """`pages`: the sixteen bytes of the page register file at 80h; 80h itself is the POST code port's."""

    low: State = field(default_factory=State)
    high: State = field(default_factory=State)
    pages: list[int] = field(default_factory=lambda: [0] * 16)


def controller_fields(state: State, first: int, pages: list[int]) -> list[FieldView]:
    """`first`: the number of the controller's channel 0 in the PC; `pages` the page bytes of its four channels."""
    word = 2 if first else 1
    command = ", ".join(name for i, name in enumerate(_COMMAND_NAMES) if state.command >> i & 1)
    name = f"controller {2 if first else 1}"
    byte = "high" if state.flip_flop else "low"
    fields = [
        FieldView(f"{name} command", state.command, command or "enabled, fixed priority"),
        FieldView(f"{name} flip-flop", state.flip_flop, f"the {byte} byte is next"),
        FieldView(f"{name} temporary", state.temporary),
    ]
    for i, ch in enumerate(state.channels):
        flags = [_KIND_NAMES[ch.mode & KIND], _TRANSFER_NAMES[ch.mode & TRANSFER]]
        flags += ["autoinitialize"] if ch.mode & AUTOINIT else []
        flags += ["decrement"] if ch.mode & DECREMENT else []
        flags += [text for on, text in ((ch.masked, "masked"), (ch.line, "DREQ"), (ch.requested, "software request"),
                                        (ch.done, "terminal count")) if on]  # fmt: skip
        fields.append(FieldView(f"channel {first + i}", ch.mode, ", ".join(flags)))
        if ch.mode & KIND != CASCADE:
            at = (pages[i] & ~(word - 1)) << 16 | ch.address * word
            fields.append(FieldView(f"{first + i}.address", at, f"{ch.count + 1} transfers of {word} left"))
            fields.append(FieldView(f"{first + i}.base", ch.base_address, f"count {ch.base_count:04x}"))
    return fields
