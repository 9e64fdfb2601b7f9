"""System control port A (92h), the reset control register (CF9h) and the A20 gate that 92h shares with the 8042.

Sources: port 92h: IBM PS/2 Hardware Interface Technical Reference, "System Control Port A", and Intel 82371SB (PIIX3)
data sheet 290550, section 2.5.4.3; CF9h: same data sheet, section 2.5.4.5 (RC, Reset Control Register); the 8042's
A20 gate: IBM PC/AT Technical Reference (6280070), "Keyboard Controller", output port bit 1.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.record import dataclass, replace
from emu.views import DeviceView, FieldView

#: What an injected `reset(kind)` is told: INIT of the CPU alone, or the reset of the whole board.
RESET_CPU = "cpu"
RESET_SYSTEM = "system"


@dataclass(slots=True)
class A20State:
    """Who asks for A20. The 8042's output port powers up with all bits 1, port 92h with 0."""

    keyboard: bool = True
    port92: bool = False


class A20Gate:
    """Address line 20 reaches the bus when the keyboard controller or port 92h asks for it; else it is forced to 0.

    `on_change(enabled)` is called when the result changes, and after `restore` in any case.
    """

    def __init__(self, on_change: Callable[[bool], None]) -> None:
        self._on_change = on_change
        self._state = A20State()

    @property
    def enabled(self) -> bool:
        """True: addresses pass whole."""
        return self._state.keyboard or self._state.port92

    def keyboard(self, level: bool) -> None:
        """The 8042's output port bit 1."""
        self._change(replace(self._state, keyboard=level))

    def port92(self, level: bool) -> None:
        """Port 92h bit 1."""
        self._change(replace(self._state, port92=level))

    def _change(self, state: A20State) -> None:
        before = self.enabled
        self._state = state
        if self.enabled != before:
            self._on_change(self.enabled)

    def reset(self) -> None:
        """Power-on."""
        self._change(A20State())

    def save(self) -> A20State:
        return replace(self._state)

    def restore(self, state: A20State) -> None:
        self._state = replace(state)
        self._on_change(self.enabled)

    def view(self) -> DeviceView:
        state = self._state
        return DeviceView(
            "a20",
            "A20 gate",
            "8042 output port bit 1, port 92h bit 1",
            (
                FieldView("A20", self.enabled, "enabled" if self.enabled else "masked: address bit 20 reads as 0"),
                FieldView("keyboard controller", state.keyboard),
                FieldView("port 92h", state.port92),
            ),
        )


#: Port 92h.
FAST_RESET = 0x01  #: "Alternate Hot Reset" / FAST_INIT: a change from 0 to 1 resets the CPU
FAST_A20 = 0x02  #: "Alternate Gate A20"
SECURITY_LOCK = 0x08  #: "Security Lock Latch": once 1, only a reset makes it 0
WATCHDOG = 0x10  #: "Watchdog Timer Status", read-only: there is no watchdog, it reads 0
DISK_LIGHT = 0xC0  #: "Fixed Disk Activity Light" A and B


@dataclass(slots=True)
class Port92State:
    """The register without FAST_A20, which the gate keeps."""

    value: int = 0


class Port92:
    """System control port A. A reset of the CPU does not change it, so that FAST_RESET must be cleared before it works
    again, and A20 stays as it was."""

    def __init__(self, gate: A20Gate, reset: Callable[[str], None]) -> None:
        self._gate = gate
        self._reset = reset
        self._state = Port92State()

    def reset(self) -> None:
        """Power-on and system reset."""
        self._state = Port92State()
        self._gate.port92(False)

    def read(self, offset: int, size: int) -> int:
        return self.peek(offset, size)

    def peek(self, offset: int, size: int) -> int:
        """A read of this port has no side effects."""
        return self._state.value | FAST_A20 * self._gate.save().port92

    def write(self, offset: int, value: int, size: int) -> None:
        """Bits 2, 4 and 5 are reserved or read-only."""
        before = self._state.value
        self._state.value = value & (FAST_RESET | SECURITY_LOCK | DISK_LIGHT) | before & SECURITY_LOCK
        self._gate.port92(bool(value & FAST_A20))
        if value & ~before & FAST_RESET:
            self._reset(RESET_CPU)

    def save(self) -> Port92State:
        return replace(self._state)

    def restore(self, state: Port92State) -> None:
        """The A20 bit comes back with the gate."""
        self._state = replace(state)

    def view(self) -> DeviceView:
        value = self.peek(0, 1)
        names = {FAST_RESET: "FAST_INIT", FAST_A20: "A20", SECURITY_LOCK: "security lock", DISK_LIGHT: "disk light"}
        on = " ".join(name for bit, name in names.items() if value & bit)
        return DeviceView("port92", "system control port A", "port 92h", (FieldView("value", value, on or "none"),))


#: Port CF9h.
SYSTEM_RESET = 0x02  #: SRST: RESET_CPU_BIT resets 1 the whole system, 0 the CPU alone
RESET_CPU_BIT = 0x04  #: RCPU: a change from 0 to 1 initiates the reset


@dataclass(slots=True)
class ResetControlState:
    """SRST and RCPU."""

    value: int = 0


class ResetControl:
    """Port CF9h of PCI machines, 8-bit accesses only. Bits 0 and 3-7 are reserved and read 0."""

    def __init__(self, reset: Callable[[str], None]) -> None:
        self._reset = reset
        self._state = ResetControlState()

    def reset(self) -> None:
        """Power-on and system reset."""
        self._state = ResetControlState()

    def read(self, offset: int, size: int) -> int:
        return self.peek(offset, size)

    def peek(self, offset: int, size: int) -> int:
        """A read of this port has no side effects."""
        return self._state.value

    def write(self, offset: int, value: int, size: int) -> None:
        """May reset, by the kind that SRST of the same byte says."""
        before = self._state.value
        self._state.value = value & (SYSTEM_RESET | RESET_CPU_BIT)
        if value & ~before & RESET_CPU_BIT:
            self._reset(RESET_SYSTEM if value & SYSTEM_RESET else RESET_CPU)

    def save(self) -> ResetControlState:
        return replace(self._state)

    def restore(self, state: ResetControlState) -> None:
        self._state = replace(state)

    def view(self) -> DeviceView:
        value = self._state.value
        text = "system reset" if value & SYSTEM_RESET else "CPU reset"
        return DeviceView("reset", "reset control (RST_CNT)", "port CF9h", (FieldView("RST_CNT", value, text),))


class ResetFace:
    """Ports CF8h to CFBh where no PCI bridge is: byte accesses to CF9h reach the reset control register. A dword at
    CF8h, as software looking for PCI writes it, is one cycle and reaches nothing (Intel 82371SB data sheet, "RC")."""

    def __init__(self, control: ResetControl) -> None:
        self._control = control

    def read(self, offset: int, size: int) -> int:
        return self.peek(offset, size)

    def peek(self, offset: int, size: int) -> int:
        if offset == 1 and size == 1:
            return self._control.peek(0, 1)
        return (1 << 8 * size) - 1

    def write(self, offset: int, value: int, size: int) -> None:
        if offset == 1 and size == 1:
            self._control.write(0, value, 1)
