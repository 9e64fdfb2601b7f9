"""The local APIC of the one CPU: priorities, in-service and request registers, local vector table, IPIs; xAPIC and
x2APIC register access. The timer is in lapic_timer.

Source: Intel SDM vol. 3A chapter 11 (2023 numbering): 11.4 (local APIC), 11.5 (LVT), 11.6 (IPIs), 11.8 (handling
interrupts: priorities, EOI, task priority), 11.9 (spurious), 11.12 (x2APIC). After reset every LVT entry is masked, so
the 8259's INTR waits for a firmware to open LINT0.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from emu.clock import Clock
from emu.devices.lapic_timer import LapicTimer, TimerState
from emu.irq import InterruptController, IntrPin
from emu.record import dataclass, field
from emu.views import DeviceView, FieldView
from emu.x86.cpuid import TSC_DEADLINE, CpuModel
from emu.x86.cpuid import X2APIC as X2APIC_FEATURE

# Delivery modes (figure 11-12).
FIXED, LOWEST, SMI, NMI, INIT, STARTUP, EXTINT = 0, 1, 2, 4, 5, 6, 7
#: Those that reach a pin of the CPU of their own.
PINS = frozenset((SMI, NMI, INIT))
MODE_NAMES = ("fixed", "lowest", "SMI", "reserved", "NMI", "INIT", "SIPI", "ExtINT")
# Registers, by offset / 10h (table 11-1).
R_ID, R_VERSION, R_TPR, R_APR, R_PPR, R_EOI, R_LDR, R_DFR, R_SVR = 0x02, 0x03, 0x08, 0x09, 0x0A, 0x0B, 0x0D, 0x0E, 0x0F
R_ISR, R_TMR, R_IRR, R_ESR, R_ICR_LOW, R_ICR_HIGH = 0x10, 0x18, 0x20, 0x28, 0x30, 0x31
R_LVT_TIMER, R_LVT_ERROR, R_INITIAL, R_CURRENT, R_DIVIDE, R_SELF_IPI = 0x32, 0x37, 0x38, 0x39, 0x3E, 0x3F
TIMER, THERMAL, PERFORMANCE, LINT0, LINT1, ERROR = range(6)
LVT_NAMES = ("timer", "thermal", "performance", "LINT0", "LINT1", "error")
#: What of each LVT entry can be written: vector, mask, and delivery mode, trigger and polarity where there are any.
LVT_BITS = (0x700FF, 0x107FF, 0x107FF, 0x1A7FF, 0x1A7FF, 0x100FF)
MASKED = 1 << 16
#: Of the entries of LINT0 and LINT1.
LOW_ACTIVE, REMOTE_IRR, LEVEL = 1 << 13, 1 << 14, 1 << 15
SOFTWARE_ENABLE = 0x100
#: Version 14h, LVT entries 0-5 (11.4.8).
VERSION = 0x14 | 5 << 16
# IA32_APIC_BASE (11.4.4).
BASE_MSR, BSP, X2APIC, ENABLED = 0x1B, 1 << 8, 1 << 10, 1 << 11
DEADLINE_MSR, X2APIC_FIRST, X2APIC_LAST = 0x6E0, 0x800, 0x8FF
DEFAULT_BASE = 0xFEE00000
#: Bits of registers that x2APIC lets software set, but for those of the LVT.
X2_BITS = {
    R_TPR: 0xFF, R_SVR: 0x1FF, R_ICR_LOW: 0xFFFFFFFF << 32 | 0xCCFFF, R_INITIAL: 0xFFFFFFFF, R_DIVIDE: 0x0B,
    R_SELF_IPI: 0xFF,
}  # fmt: skip
# Error status register (11.5.3).
SEND_VECTOR, RECEIVE_VECTOR, ILLEGAL_REGISTER = 0x20, 0x40, 0x80


@dataclass(frozen=True, slots=True)
class Message:
    """An interrupt on its way to local APICs."""

    destination: int
    logical: bool
    mode: int
    vector: int
    level: bool = False


@dataclass(slots=True)
class State:
    """ISR, TMR and IRR are 256-bit masks; `errors` are those that the next write of ESR shows. `waiting`: INIT has
    come, and the CPU waits for a SIPI (never the bootstrap processor's state after reset)."""

    base: int
    id: int = 0
    tpr: int = 0
    ldr: int = 0
    dfr: int = 0xFFFFFFFF
    svr: int = 0xFF
    isr: int = 0
    tmr: int = 0
    irr: int = 0
    esr: int = 0
    errors: int = 0
    icr: int = 0
    lvt: list[int] = field(default_factory=lambda: [MASKED] * 6)
    timer: TimerState = field(default_factory=TimerState)
    lint0: bool = False  #: the 8259's INTR, as it was last seen


class Lapic:
    """Drives INTR in the 8259's place: its own vectors first, then the 8259's where LINT0 or the I/O APIC lets it
    through. `tsc()` is the time stamp counter; of the CPU `model` is taken whether there is a local APIC (else it is
    never enabled), and which modes it has. Set what begins with `on_`, and `io_extint`, after making it."""

    def __init__(self, clock: Clock, pin: IntrPin, tsc: Callable[[], int], model: CpuModel) -> None:
        self._pin, self._model = pin, model
        self._base = DEFAULT_BASE | BSP | (ENABLED if model.has_apic else 0)  # after a reset
        self._state = State(self._base)
        self.pic: InterruptController | None = None
        self.on_eoi: Callable[[int], None] = lambda vector: None  #: EOI of a level triggered vector, to the I/O APIC
        self.on_base: Callable[[], None] = lambda: None  #: `mmio_base` has changed
        self.on_init: Callable[[], None] = lambda: None  #: INIT for this CPU
        self.on_nmi: Callable[[], None] = lambda: None  #: the same of NMI
        self.on_smi: Callable[[], None] = lambda: None  #: the same of SMI
        self.on_task_priority: Callable[[int], None] = lambda value: None  #: what CR8 shows has changed
        self.io_extint: Callable[[], bool] = lambda: False
        self.timer = LapicTimer(clock, tsc, self._timer_fired)
        self.timer.state = self._state.timer

    @property
    def msrs(self) -> tuple[int, ...]:
        """The numbers of the model-specific registers that it answers. IA32_APIC_BASE came with the P6 (11.4.4)."""
        if not self._model.has_apic or self._model.family < 6:
            return ()
        deadline = (DEADLINE_MSR,) if self._model.ecx1 & TSC_DEADLINE else ()
        x2apic = range(X2APIC_FIRST, X2APIC_LAST + 1) if self._model.ecx1 & X2APIC_FEATURE else ()
        return (BASE_MSR, *deadline, *x2apic)

    # -- where it is

    @property
    def enabled(self) -> bool:
        return bool(self._state.base & ENABLED)

    @property
    def x2apic(self) -> bool:
        return self._state.base & (ENABLED | X2APIC) == ENABLED | X2APIC

    @property
    def mmio_base(self) -> int | None:
        """Physical address of the register page; None while there is none."""
        return self._state.base & ~0xFFF if self.enabled and not self.x2apic else None

    # -- priorities

    @property
    def ppr(self) -> int:
        """11.8.3.1."""
        s = self._state
        in_service = s.isr.bit_length() - 1 if s.isr else 0
        return s.tpr if s.tpr >> 4 >= in_service >> 4 else in_service & 0xF0

    def _deliverable(self) -> int | None:
        s = self._state
        if not s.irr or not s.svr & SOFTWARE_ENABLE or not self.enabled:
            return None
        vector = s.irr.bit_length() - 1
        return vector if vector >> 4 > self.ppr >> 4 else None

    def _external(self) -> bool:
        """INTR of the 8259 reaches the CPU."""
        if not self.enabled:
            return True
        entry = self._state.lvt[LINT0]
        return (not entry & MASKED and entry >> 8 & 7 == EXTINT) or self.io_extint()

    def pending_vector(self) -> int | None:
        """See InterruptController."""
        vector = self._deliverable()
        if vector is not None or self.pic is None or (external := self.pic.pending_vector()) is None:
            return vector
        return external if self._external() else None

    def last_for_now(self) -> bool:
        """See InterruptController. A vector in service holds back its class and all below; but not the 8259."""
        if self.pic is None or not self._external():
            return True
        if self._deliverable() is None:
            return self.pic.last_for_now()
        return self.pic.pending_vector() is None

    def acknowledge(self) -> int:
        """See InterruptController."""
        s = self._state
        vector = self._deliverable()
        if vector is not None:
            s.irr &= ~(1 << vector)
            s.isr |= 1 << vector
            return vector
        if self.pic is not None and self._external():
            return self.pic.acknowledge()
        return s.svr & 0xFF

    # -- messages

    def addressed(self, message: Message) -> bool:
        """This APIC is meant (11.6.2)."""
        s, to = self._state, message.destination
        if not message.logical:
            return to in (s.id, 0xFFFFFFFF if self.x2apic else 0xFF)
        if self.x2apic:
            ldr = self._x2_ldr()
            return (to >> 16 == ldr >> 16 and bool(to & ldr & 0xFFFF)) or to == 0xFFFFFFFF
        ldr = s.ldr >> 24
        if s.dfr >> 28 == 0xF:
            return bool(ldr & to)
        return to >> 4 in (ldr >> 4, 15) and bool(ldr & to & 15)

    def send(self, message: Message) -> bool:
        """From the I/O APIC: True when it is accepted."""
        if not self.enabled or not self.addressed(message):
            return False
        return self._accept(message.mode, message.vector, message.level)

    def _accept(self, mode: int, vector: int, level: bool) -> bool:
        s = self._state
        if mode in (FIXED, LOWEST):
            if not s.svr & SOFTWARE_ENABLE:
                return False
            if vector < 16:
                self._error(RECEIVE_VECTOR)
                return False
            s.irr |= 1 << vector
            s.tmr = s.tmr | 1 << vector if level else s.tmr & ~(1 << vector)
        elif mode == INIT:
            self.on_init()
        elif mode == NMI:
            self.on_nmi()
        elif mode == SMI:
            self.on_smi()
        return True  # a SIPI means nothing to a CPU that waits for none

    def sample(self) -> None:
        """LINT0, which the 8259's INTR drives, in the modes that latch it: to be called when that may have changed."""
        s = self._state
        if self.pic is None:
            return
        level, before = self.pic.pending_vector() is not None, s.lint0
        s.lint0 = level
        entry = s.lvt[LINT0]
        mode = entry >> 8 & 7
        if not self.enabled or entry & MASKED or mode == EXTINT:
            return
        low = bool(entry & LOW_ACTIVE)
        if mode == FIXED and entry & LEVEL:
            if level != low and not entry & REMOTE_IRR and self._accept(FIXED, entry & 0xFF, True):
                s.lvt[LINT0] |= REMOTE_IRR
        elif level != low and before == low:
            self._accept(mode, entry & 0xFF, False)

    @property
    def unmaskable(self) -> bool:
        """LINT0 makes NMI, SMI or INIT of what comes."""
        entry = self._state.lvt[LINT0]
        return self.enabled and not entry & MASKED and entry >> 8 & 7 in PINS

    @property
    def deaf(self) -> bool:
        """The timer is masked: of the local vector table no other entry fires by itself, as LINT0 is the 8259's INTR,
        and errors are answers to accesses. What comes by messages is not looked at."""
        return bool(self._state.lvt[TIMER] & MASKED)

    def holds_back(self, vector: int) -> bool:
        """A fixed interrupt with this vector cannot interrupt the CPU until the guest accesses the APIC or CR8: it is
        off, or the vector's class is not above that of the processor priority (11.8.3.1)."""
        s = self._state
        if not self.enabled or not s.svr & SOFTWARE_ENABLE:
            return True
        if vector < 16:  # an error, which may be an interrupt of its own
            return bool(s.lvt[ERROR] & MASKED)
        return vector >> 4 <= self.ppr >> 4

    def ignores(self, message: Message) -> bool:
        """As `holds_back`, of what the I/O APIC sends."""
        if not self.enabled or not self.addressed(message):
            return True
        return message.mode in (FIXED, LOWEST) and self.holds_back(message.vector)

    @property
    def timer_held_back(self) -> bool:
        """The same of the timer's interrupt."""
        entry = self._state.lvt[TIMER]
        return bool(entry & MASKED) or self.holds_back(entry & 0xFF)

    @property
    def shuts_lint0(self) -> bool:
        """What is at LINT0, the 8259's INTR, is masked here, as after a reset, or is a vector that is held back."""
        entry = self._state.lvt[LINT0]
        held = entry >> 8 & 7 == FIXED and self.holds_back(entry & 0xFF)
        return self.enabled and (bool(entry & MASKED) or held)

    @property
    def priority_words(self) -> str:
        """What the processor priority holds back and by what, in words; empty: it lets every class through."""
        s, ppr = self._state, self.ppr
        if not self.enabled or not s.svr & SOFTWARE_ENABLE or not ppr >> 4:
            return ""
        by = "TPR" if ppr == s.tpr else f"vector {s.isr.bit_length() - 1:#04x} is in service"
        if not s.irr or self._deliverable() is not None:
            return f"the local APIC's priority is {ppr:#04x} ({by})"
        return f"vector {s.irr.bit_length() - 1:#04x} waits behind the local APIC's priority {ppr:#04x} ({by})"

    def set_task_priority(self, value: int) -> None:
        """CR8 was written: 0 to 15, bits 7:4 of the TPR (11.8.6)."""
        s = self._state
        if s.tpr >> 4 != value:
            self._pin.settle()
            s.tpr = value << 4
            self._pin.update()

    def _local(self, which: int, mode: int | None = None) -> None:
        """An entry of the local vector table is triggered."""
        entry = self._state.lvt[which]
        if not entry & MASKED:
            self._accept(entry >> 8 & 7 if mode is None else mode, entry & 0xFF, False)

    def _error(self, bit: int) -> None:
        s = self._state
        first = not s.errors & bit
        s.errors |= bit
        entry = s.lvt[ERROR]
        if first and not entry & MASKED and entry & 0xFF >= 16 and s.svr & SOFTWARE_ENABLE:
            s.irr |= 1 << (entry & 0xFF)
            s.tmr &= ~(1 << (entry & 0xFF))

    def _timer_fired(self) -> None:
        self._pin.settle()
        self._local(TIMER, FIXED)
        self._pin.update()

    def _command(self, icr: int, destination: int) -> None:
        """The interrupt command register was written (11.6.1)."""
        mode, vector, shorthand = icr >> 8 & 7, icr & 0xFF, icr >> 18 & 3
        level = bool(icr & 1 << 15)
        if mode == INIT and level and not icr & 1 << 14:
            return  # INIT level de-assert: not supported since the Pentium 4
        if mode in (FIXED, LOWEST) and vector < 16:
            self._error(SEND_VECTOR)
            return
        message = Message(destination, bool(icr & 1 << 11), mode, vector)
        if shorthand in (1, 2) or (shorthand == 0 and self.addressed(message)):
            self._accept(mode, vector, False)

    def _end_of_interrupt(self) -> None:
        s = self._state
        if not s.isr:
            return
        vector = s.isr.bit_length() - 1
        s.isr &= ~(1 << vector)
        if s.tmr >> vector & 1:
            if s.lvt[LINT0] & 0xFF == vector:
                s.lvt[LINT0] &= ~REMOTE_IRR
            self.on_eoi(vector)

    # -- registers

    def _x2_ldr(self) -> int:
        return self._state.id >> 4 << 16 | 1 << (self._state.id & 15)

    def _get(self, register: int) -> int | None:
        """A 32-bit register by offset / 10h, without side effects; None when there is none."""
        s = self._state
        if register in (R_ID, R_LDR) and self.x2apic:
            return s.id if register == R_ID else self._x2_ldr()
        for first, mask in ((R_ISR, s.isr), (R_TMR, s.tmr), (R_IRR, s.irr)):
            if first <= register < first + 8:
                return mask >> 32 * (register - first) & 0xFFFFFFFF
        if R_LVT_TIMER <= register <= R_LVT_ERROR:
            return s.lvt[register - R_LVT_TIMER]
        values = {
            R_ID: s.id << 24, R_VERSION: VERSION, R_TPR: s.tpr, R_APR: 0, R_PPR: self.ppr, R_EOI: 0, R_LDR: s.ldr,
            R_DFR: s.dfr, R_SVR: s.svr, R_ESR: s.esr, R_ICR_LOW: s.icr & 0xFFFFFFFF, R_ICR_HIGH: s.icr >> 32,
            R_INITIAL: s.timer.initial, R_DIVIDE: s.timer.divide,
        }  # fmt: skip
        if register == R_CURRENT:
            return self.timer.current()
        return values.get(register)

    def _set(self, register: int, value: int) -> bool:
        """False: no such register can be written."""
        s = self._state
        if register == R_TPR:
            s.tpr = value & 0xFF
            self.on_task_priority(s.tpr >> 4)
        elif register == R_EOI:
            self._end_of_interrupt()
        elif register == R_SVR:
            s.svr = value & 0x1FF
            if not value & SOFTWARE_ENABLE:
                s.lvt = [entry | MASKED for entry in s.lvt]  # 11.4.7.2
                self.timer.replan(masked=True)
        elif register == R_ESR:
            s.esr, s.errors = s.errors, 0
        elif R_LVT_TIMER <= register <= R_LVT_ERROR:
            which = register - R_LVT_TIMER
            kept = s.lvt[which] & REMOTE_IRR if value & LEVEL else 0
            s.lvt[which] = value & self._lvt_bits(which) | kept | (0 if s.svr & SOFTWARE_ENABLE else MASKED)
            if which == TIMER:
                self.timer.set_mode(s.lvt[TIMER] >> 17 & 3, masked=bool(s.lvt[TIMER] & MASKED))
        elif register == R_INITIAL:
            self.timer.set_initial(value)
        elif register == R_DIVIDE:
            self.timer.set_divide(value & 0x0B)
        else:
            return False
        return True

    def _lvt_bits(self, which: int) -> int:
        deadline = 1 << 18 if which == TIMER and not self._model.ecx1 & TSC_DEADLINE else 0
        return LVT_BITS[which] & ~deadline

    def read(self, offset: int, size: int) -> int:
        self._pin.settle()
        register = offset >> 4
        if offset & 15 == 0 and size == 4 and self._get(register) is None:
            self._error(ILLEGAL_REGISTER)
            self._pin.update()
        return self.peek(offset, size)

    def peek(self, offset: int, size: int) -> int:
        """Only aligned dwords are defined (11.4.1); others read the bytes of the register they are in."""
        self._pin.settle()
        value = self._get(offset >> 4) or 0
        return value >> 8 * (offset & 15) & (1 << 8 * size) - 1

    def write(self, offset: int, value: int, size: int) -> None:
        """Aligned dwords; anything else is ignored."""
        if offset & 15 or size != 4:
            return
        self._pin.settle()
        s, register = self._state, offset >> 4
        if register == R_ICR_LOW:
            s.icr = s.icr & ~0xFFFFFFFF | value & 0xCCFFF
            self._command(s.icr, s.icr >> 56)
        elif register == R_ICR_HIGH:
            s.icr = s.icr & 0xFFFFFFFF | (value & 0xFF000000) << 32
        elif register == R_ID:
            s.id = value >> 24
        elif register == R_LDR:
            s.ldr = value & 0xFF000000
        elif register == R_DFR:
            s.dfr = value | 0x0FFFFFFF
        elif not self._set(register, value) and self._get(register) is None:
            self._error(ILLEGAL_REGISTER)
        self._pin.update()

    # -- model-specific registers

    def read_msr(self, number: int) -> int | None:
        """The 64-bit value; None: #GP(0)."""
        self._pin.settle()
        if number == BASE_MSR:
            return self._state.base
        if number == DEADLINE_MSR:
            return self.timer.deadline_value()
        register = number - X2APIC_FIRST
        if not self.x2apic or register in (R_EOI, R_APR, R_DFR, R_ICR_HIGH, R_SELF_IPI):
            return None
        return self._state.icr if register == R_ICR_LOW else self._get(register)

    def write_msr(self, number: int, value: int) -> bool:
        """False: #GP(0)."""
        self._pin.settle()
        done = self._write_msr(number, value)
        self._pin.update()
        return done

    def _write_msr(self, number: int, value: int) -> bool:
        s = self._state
        if number == BASE_MSR:
            return self._write_base(value)
        if number == DEADLINE_MSR:
            self.timer.set_deadline(value)
            return True
        register = number - X2APIC_FIRST
        if not self.x2apic or value & ~self._x2_bits(register):
            return False
        if register == R_ICR_LOW:
            s.icr = value & (0xFFFFFFFF << 32 | 0xCCFFF)
            self._command(s.icr, s.icr >> 32)
        elif register == R_SELF_IPI:
            self._command(value & 0xFF | 1 << 18, 0)
        else:
            return self._set(register, value)
        return True

    def _x2_bits(self, register: int) -> int:
        """What may be set in a write of a register's MSR; other bits are reserved (11.12.1.2, 11.12.9, 11.12.11)."""
        if R_LVT_TIMER <= register <= R_LVT_ERROR:
            return self._lvt_bits(register - R_LVT_TIMER)
        return X2_BITS.get(register, 0)

    def _write_base(self, value: int) -> bool:
        """Reserved bits, x2APIC without the APIC, and x2APIC back to xAPIC directly are refused (11.12.5)."""
        s = self._state
        if value >> self._model.physical_bits or value & 0x2FF or value & (X2APIC | ENABLED) == X2APIC:
            return False
        if value & X2APIC and not self._model.ecx1 & X2APIC_FEATURE:
            return False
        if self.x2apic and value & ENABLED and not value & X2APIC:
            return False
        if not value & ENABLED and self.enabled:
            self._initialise(keep_id=True)
        self._state.base = value & ~BSP | s.base & BSP
        self.on_base()
        return True

    def virtual_wire(self) -> None:
        """As a firmware leaves it: on, LINT0 the 8259's INTR, LINT1 NMI."""
        if self.enabled:
            self._set(R_SVR, 0x1FF)
            self._set(R_LVT_TIMER + LINT0, EXTINT << 8)
            self._set(R_LVT_TIMER + LINT1, NMI << 8)

    # -- state

    def _initialise(self, *, keep_id: bool) -> None:
        old = self._state
        self._state = State(base=old.base, id=old.id if keep_id else 0, timer=TimerState(tick=old.timer.tick))
        self.timer.attach(self._state.timer)

    def init(self) -> None:
        """INIT resets all but the ID and the base (11.4.7.3)."""
        self._pin.settle()
        self._initialise(keep_id=True)
        self._pin.update()

    def reset(self) -> None:
        self._state = State(self._base, timer=TimerState(tick=self._state.timer.tick))
        self.timer.attach(self._state.timer)
        self.on_base()

    def save(self) -> State:
        self._pin.settle()
        return copy.deepcopy(self._state)

    def restore(self, state: State) -> None:
        """Its timer comes back with the clock."""
        self._state = copy.deepcopy(state)
        self.timer.state = self._state.timer
        self.on_base()

    def view(self) -> DeviceView:
        self._pin.settle()
        s = self._state
        mode = "x2APIC" if self.x2apic else "xAPIC" if self.enabled else "disabled"
        on = "enabled" if s.svr & SOFTWARE_ENABLE else "disabled by software"
        fields = [
            FieldView("APIC_BASE", s.base, f"{mode}{', BSP' if s.base & BSP else ''}"),
            FieldView("ID", s.id, f"version {VERSION & 0xFF:02x}h"),
            FieldView("SVR", s.svr, f"{on}, spurious vector {s.svr & 0xFF:02x}h"),
            FieldView("TPR", s.tpr), FieldView("PPR", self.ppr),
            FieldView("LDR", s.ldr, "flat" if s.dfr >> 28 == 15 else "cluster"),
            FieldView("ISR", _vectors(s.isr)), FieldView("IRR", _vectors(s.irr)), FieldView("TMR", _vectors(s.tmr)),
            FieldView("ESR", s.esr), FieldView("ICR", s.icr),
        ]  # fmt: skip
        for name, entry in zip(LVT_NAMES, s.lvt, strict=True):
            text = f"vector {entry & 0xFF:02x}h {MODE_NAMES[entry >> 8 & 7]}{', masked' if entry & MASKED else ''}"
            fields.append(FieldView(f"LVT {name}", entry, text))
        fields += self.timer.fields()
        return DeviceView("lapic", "local APIC", "FEE00000h" if self.mmio_base else mode, tuple(fields))


def _vectors(mask: int) -> str:
    return " ".join(f"{n:02x}h" for n in range(256) if mask >> n & 1) or "none"
