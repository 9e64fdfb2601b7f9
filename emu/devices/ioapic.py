"""The Intel 82093AA I/O APIC: 24 inputs, a redirection entry each.

Source: Intel 82093AA data sheet 290566, 3.1 (IOREGSEL, IOWIN), 3.2.4 (redirection table, edges and levels).
"""

from __future__ import annotations

from collections.abc import Callable

from emu.devices.lapic import FIXED, LOWEST, MODE_NAMES, PINS, Message
from emu.irq import IntrPin
from emu.record import dataclass, field, replace
from emu.views import DeviceView, FieldView

INPUTS = 24
VERSION = 0x11 | INPUTS - 1 << 16
ID, VER, ARB, TABLE = 0x00, 0x01, 0x02, 0x10
# Redirection entry.
STATUS, LOW_ACTIVE, REMOTE_IRR, LEVEL, MASK, LOGICAL = 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16, 1 << 11
READ_ONLY = STATUS | REMOTE_IRR
ENTRY_BITS = 0xFF << 56 | 0x1FFFF
EXTINT = 7


@dataclass(slots=True)
class State:
    """`inputs` has a bit for each input that is high, `raised` counts how often each has become so."""

    select: int = 0
    id: int = 0
    inputs: int = 0
    entries: list[int] = field(default_factory=lambda: [MASK] * INPUTS)
    raised: list[int] = field(default_factory=lambda: [0] * INPUTS)


def _by_level(entry: int) -> bool:
    """SMI, NMI and INIT are edges always (3.2.4, bits 10:8)."""
    return bool(entry & LEVEL) and entry >> 8 & 7 in (FIXED, LOWEST)


class IoApic:
    """MMIO at FEC00000h. `send` hands a message to the local APICs: True when one accepts it."""

    def __init__(self, pin: IntrPin, send: Callable[[Message], bool]) -> None:
        self._pin, self._send = pin, send
        self._state = State()

    def set_irq(self, n: int, level: bool) -> None:
        """Drive input `n`."""
        s = self._state
        before = self._active(n)
        s.raised[n] += level and not s.inputs >> n & 1
        s.inputs = s.inputs & ~(1 << n) | level << n
        if self._active(n) == before:
            return
        self._pin.settle()
        entry = s.entries[n]
        # An edge at a masked input is lost (3.2.4, bit 16); a level waits.
        if not before and not entry & MASK and entry >> 8 & 7 != EXTINT and not _by_level(entry):
            self._deliver(n)
        elif _by_level(entry):
            self._service(n)
        self._pin.update()

    def _active(self, n: int) -> bool:
        return bool(self._state.inputs >> n & 1) != bool(self._state.entries[n] & LOW_ACTIVE)

    def _service(self, n: int) -> None:
        """A level triggered input is sent while it is active and no EOI is awaited."""
        entry = self._state.entries[n]
        ready = _by_level(entry) and not entry & (MASK | REMOTE_IRR)
        if ready and self._active(n) and self._deliver(n):
            self._state.entries[n] |= REMOTE_IRR

    def _message(self, n: int) -> Message:
        entry = self._state.entries[n]
        return Message(
            destination=entry >> 56,
            logical=bool(entry & LOGICAL),
            mode=entry >> 8 & 7,
            vector=entry & 0xFF,
            level=bool(entry & LEVEL),
        )

    def _deliver(self, n: int) -> bool:
        return self._send(self._message(n))

    def ahead(self, n: int) -> Message | None:
        """What input `n` would send when it becomes active; None: nothing until the guest accesses the APICs, as it is
        masked, awaits an EOI, or is none of the chip's."""
        if n >= INPUTS or self._state.entries[n] & MASK:
            return None
        entry = self._state.entries[n]
        return None if _by_level(entry) and entry & REMOTE_IRR else self._message(n)

    @property
    def extint(self) -> bool:
        """An unmasked input hands the 8259's INTR through; asked while INTR is high. Input 0 is INTR (MP 1.4, table
        5-2), of which ExtINT is all that is made."""
        entries = self._state.entries
        if not entries[0] & (MASK | LOW_ACTIVE) and entries[0] >> 8 & 7 == EXTINT:
            return True
        return any(e >> 8 & 7 == EXTINT and not e & MASK and self._active(n) for n, e in enumerate(entries) if n)

    @property
    def unmaskable(self) -> bool:
        """An unmasked input makes NMI, SMI or INIT of what comes."""
        return any(not entry & MASK and entry >> 8 & 7 in PINS for entry in self._state.entries)

    @property
    def deaf(self) -> bool:
        """Every input is masked, but for input 0, which is the 8259's INTR."""
        return all(entry & MASK for entry in self._state.entries[1:])

    @property
    def hands_through(self) -> bool:
        """The 8259's INTR may come by way of an unmasked input (`extint`)."""
        return any(entry >> 8 & 7 == EXTINT and not entry & MASK for entry in self._state.entries)

    def end_of_interrupt(self, vector: int) -> None:
        """The EOI message of a level triggered vector."""
        for n, entry in enumerate(self._state.entries):
            if entry & LEVEL and entry & 0xFF == vector and entry & REMOTE_IRR:
                self._state.entries[n] &= ~REMOTE_IRR
                self._service(n)

    # -- registers

    def _register(self, index: int) -> int:
        s = self._state
        if TABLE <= index < TABLE + 2 * INPUTS:
            return s.entries[index - TABLE >> 1] >> 32 * (index & 1) & 0xFFFFFFFF
        return {ID: s.id << 24, VER: VERSION, ARB: s.id << 24}.get(index, 0)

    def read(self, offset: int, size: int) -> int:
        return self.peek(offset, size)

    def peek(self, offset: int, size: int) -> int:
        """Offset 0 is IOREGSEL, 10h IOWIN."""
        self._pin.settle()
        register = offset & ~3
        value = self._state.select if register == 0 else self._register(self._state.select) if register == 0x10 else 0
        return value >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def write(self, offset: int, value: int, size: int) -> None:
        """IOWIN takes dwords (3.1.2); the selector is a byte."""
        s = self._state
        if offset == 0:
            s.select = value & 0xFF
            return
        if offset != 0x10 or size != 4:
            return
        self._pin.settle()
        if s.select == ID:
            s.id = value >> 24 & 15
        elif TABLE <= s.select < TABLE + 2 * INPUTS:
            n, shift = s.select - TABLE >> 1, 32 * (s.select & 1)
            old = s.entries[n]
            new = (old & ~(0xFFFFFFFF << shift) | value << shift) & ENTRY_BITS & ~READ_ONLY | old & READ_ONLY
            if not new & LEVEL:
                new &= ~REMOTE_IRR  # it has a meaning for level triggered interrupts only
            s.entries[n] = new
            self._service(n)
        self._pin.update()

    def reset(self) -> None:
        self._state = State(inputs=self._state.inputs)

    def forget_edges(self) -> None:
        """All devices are built or reset: what their lines did meanwhile is no request."""
        self.reset()

    def save(self) -> State:
        return _copied(self._state)

    def restore(self, state: State) -> None:
        self._state = _copied(state)

    def view(self) -> DeviceView:
        fields = [FieldView("ID", self._state.id, f"version {VERSION & 0xFF:02x}h, {INPUTS} inputs")]
        for n, entry in enumerate(self._state.entries):
            to = "logical" if entry & LOGICAL else "APIC"
            words = [
                f"vector {entry & 0xFF:02x}h {MODE_NAMES[entry >> 8 & 7]} to {to} {entry >> 56:02x}h,",
                f"{'level' if entry & LEVEL else 'edge'} {'low' if entry & LOW_ACTIVE else 'high'}",
            ]
            flags = ((MASK, "masked"), (REMOTE_IRR, "remote IRR"))
            text = " ".join(words) + "".join(f", {name}" for bit, name in flags if entry & bit)
            fields.append(FieldView(f"input {n}", entry, text + (", asserted" if self._active(n) else "")))
        return DeviceView("ioapic", "Intel 82093AA I/O APIC", "FEC00000h", tuple(fields))


def _copied(state: State) -> State:
    return replace(state, entries=list(state.entries), raised=list(state.raised))
