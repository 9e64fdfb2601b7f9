"""The 8042's registers: their bits, the controller's state, and how a front end shows them."""

from __future__ import annotations

from emu.record import dataclass, field
from emu.views import DeviceView, FieldView

# status register (port 64h)
OBF, IBF, SYS, A2, UNLOCKED, AUXB, TIMEOUT, PARITY = (1 << i for i in range(8))
# command byte (RAM byte 0)
KBD_INT, AUX_INT, SYS_FLAG, KBD_OFF, AUX_OFF, TRANSLATE = 0x01, 0x02, 0x04, 0x10, 0x20, 0x40

#: Port 1 of the chip: keyboard and auxiliary data lines idle high, 512 KiB of RAM, jumper not installed, colour
#: display, keyboard not locked.
INPUT_PORT = 0xB3


@dataclass(slots=True)
class State:
    """`output` and `input` are the two data bus buffers; `pending` the controller's own bytes still to give; `sending`
    (byte, to aux) is on its way to a device, `arriving` says from which device a byte is being clocked in. `argument`
    is the command whose data byte is awaited. `poll` is C1h or C2h while the status shows the input port."""

    ram: list[int] = field(default_factory=lambda: [0] * 32)
    output: int = 0
    output_full: bool = False
    output_aux: bool = False
    input: int = 0
    input_full: bool = False
    a2: bool = False
    timeout: bool = False
    pending: list[int] = field(default_factory=list)
    argument: int | None = None
    poll: int | None = None
    sending: tuple[int, bool] | None = None
    arriving: str | None = None
    release: bool = False
    a20: bool = True
    pulse: int = 0
    password: list[int] = field(default_factory=list)
    loading: list[int] | None = None
    locked: bool = False
    matched: int = 0

    def status(self) -> int:
        """What port 64h reads."""
        value = (OBF if self.output_full else 0) | (IBF if self.input_full else 0) | (A2 if self.a2 else 0)
        value |= SYS if self.ram[0] & SYS_FLAG else 0
        if self.poll is not None:
            return value | (INPUT_PORT << 4 & 0xF0 if self.poll == 0xC1 else INPUT_PORT & 0xF0)
        return value | UNLOCKED | (AUXB if self.output_aux else 0) | (TIMEOUT if self.timeout else 0)

    def output_port(self) -> int:
        """Bit 7-0: keyboard data, keyboard clock, IRQ12, IRQ1, aux clock, aux data, A20, reset (low is active)."""
        value = 0x01 | 0x04 | 0x80
        value |= 0x02 if self.a20 and not self.pulse & 2 else 0
        value |= 0 if self.ram[0] & AUX_OFF else 0x08
        value |= 0x10 if self.output_full and not self.output_aux else 0
        value |= 0x20 if self.output_full and self.output_aux else 0
        return value | (0 if self.ram[0] & KBD_OFF else 0x40)


def view(s: State) -> DeviceView:
    """The controller, register by register."""
    status, command, port = s.status(), s.ram[0], s.output_port()
    names = ("OBF", "IBF", "SYS", "A2", "unlocked", "AUXB", "timeout", "parity")
    command_names = ("KBD int", "AUX int", "SYS", "", "KBD disabled", "AUX disabled", "translate", "")
    port_names = ("no reset", "A20", "aux data", "aux clock", "IRQ1", "IRQ12", "kbd clock", "kbd data")
    return DeviceView(
        "kbc",
        "Intel 8042 keyboard controller",
        "ports 60h, 64h; IRQ 1, 12",
        (
            FieldView("status", status, _bits(status, names)),
            FieldView("command byte", command, _bits(command, command_names)),
            FieldView("output buffer", s.output, "full" if s.output_full else "empty"),
            FieldView("input buffer", s.input, "full" if s.input_full else "empty"),
            FieldView("input port", INPUT_PORT),
            FieldView("output port", port, _bits(port, port_names)),
            FieldView("awaits data of", "" if s.argument is None else f"{s.argument:02X}h"),
            FieldView("password", "enabled" if s.locked else "loaded" if s.password else "none"),
            FieldView("RAM", bytes(s.ram).hex(" ")),
        ),
    )


def _bits(value: int, names: tuple[str, ...]) -> str:
    return " ".join(name for i, name in enumerate(names) if value >> i & 1 and name)
