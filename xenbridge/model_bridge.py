"""The bridge to the reference hypervisor's devices on the host's clock: a hypervisor as asynchronous as a real one.

Its time goes on in a thread of its own, whether the emulator runs or not; an interrupt that the guest can take is told
by a byte in a pipe, which raises SIGIO. On the virtual clock the same devices are part of the machine's event queue
(xenbridge.model_devices), and nothing of this is needed.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Final

from emu import layout
from emu.clock import NS_PER_INSTRUCTION, Clock
from emu.devices.lapic import BASE_MSR, ENABLED, Lapic
from emu.devices.pic8259 import CASCADE
from emu.devices.pic8259_chip import ChipState
from emu.devices.pit8254 import pulses_at
from emu.irq import IntrPin
from emu.record import replace
from emu.x86.cpuid import MODELS, CpuModel
from xenbridge.bridge import TIMER_AND_LAPIC, BridgeError, Devices, Owned
from xenbridge.ioreq import Ioreq, Type, unpack
from xenbridge.model_devices import ModelDevices

OWNED: Final = (
    *TIMER_AND_LAPIC,
    Owned("pic0", Type.PIO, 0x20, 0x21),
    Owned("pic1", Type.PIO, 0xA0, 0xA1),
    Owned("elcr", Type.PIO, 0x4D0, 0x4D1),
    Owned("ioapic", Type.COPY, layout.IOAPIC, layout.IOAPIC + 0xFF),
)
LINES: Final = 24
MOST_BEHIND: Final = 20_000_000  #: ns of its own time that the hypervisor makes up for at once
IOAPIC_TIMER: Final = 2  #: the input that line 0 is wired to (MultiProcessor Specification 1.4, table 5-1)
_TOLD: Final = b"\1"
#: What an acknowledge has changed of a chip: bits that it set in ISR, latches of edges that it cleared, and the lowest
#: priority as it was.
_Chip = tuple[ChipState, int, int, int]


class _Door:
    """What the controllers' INTR leads to, in a CPU's place (emu.irq.IntrSink)."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self.taken: int | None = None

    def set_interrupt(self, vector: int | None, *, last: bool = False) -> None:
        """See IntrSink."""
        self.asked = vector

    def take_interrupt(self) -> int | None:
        """See IntrSink."""
        taken, self.taken = self.taken, None
        return taken


class ModelBridge:
    """See `xenbridge.bridge.MachineBridge`. `now` gives the host's clock in ns."""

    def __init__(self, model: CpuModel | None = None, now: Callable[[], int] = time.monotonic_ns) -> None:
        self._host = now
        self._start, self._now = now(), 0  # the instant on the host's clock that is 0 here, and ours, ns
        self.requests = self.events = 0
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._clock = clock = Clock(lambda: self._now // NS_PER_INSTRUCTION)
        self._devices, self._door, self._pin = ModelDevices(), _Door(), IntrPin()
        keeper, pin = self._devices, self._pin
        self._pic = keeper.pic(pin, None)
        self._lapic: Lapic = keeper.lapic(clock, pin, lambda: clock.now, model or MODELS["max"].with_apic())
        self._ioapic = keeper.ioapic(pin, self._lapic.send)
        lapic, pic = self._lapic, self._pic
        lapic.pic, lapic.on_eoi, lapic.io_extint = pic, self._ioapic.end_of_interrupt, lambda: self._ioapic.extint
        pin.before_update = lapic.sample
        self._ticks = self._replaced = False  # what counter 0 drives, and whether that is cut off line 0
        pit = self._pit = keeper.pit(clock, self._tick, None)
        self._port61 = keeper.port61(pit, clock)
        for first, face in (
            (layout.PIC_MASTER, pic.master), (layout.PIC_SLAVE, pic.slave), (layout.ELCR, pic.elcr),
            (layout.PIT, pit), (layout.PORT_61, self._port61),
        ):  # fmt: skip
            keeper.ports(first, face)
        keeper.memory(layout.IOAPIC, self._ioapic)
        keeper.memory(layout.LAPIC, lapic)
        pin.connect(lapic, self._door)
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._vector: int | None = None
        self._before: tuple[list[_Chip], int] | None = None
        self._heard: int | None = None  # what INTR asked for beside the vector in hand when it was last looked at
        self._borrowed = self._wanted = self._ends = False
        self._rests = False  # behind a put-back nothing is acknowledged until it is asked for something
        self._halted = False
        clock.on_replan = self._changed_if_held
        self._thread = threading.Thread(target=self._time, name="v2e-model-bridge", daemon=True)
        self._thread.start()

    @property
    def owned(self) -> tuple[Owned, ...]:
        return OWNED

    @property
    def descriptor(self) -> int:
        return self._reader

    @property
    def lines(self) -> int:
        return LINES

    @property
    def borrowed(self) -> bool:
        return self._borrowed

    # -- time

    def _changed_if_held(self) -> None:
        """A timer was armed earlier than the thread waits for."""
        self._changed.notify()

    def _time(self) -> None:
        """The hypervisor's own time: it sleeps until the next timer, and does nothing between two."""
        with self._lock:
            while not self._ends:
                self._catch_up()
                deadline = self._clock.next_deadline()
                left = None if deadline is None else max(0, deadline + self._start - self._host()) / 1e9
                self._changed.wait(left)

    def _run_due(self) -> None:
        """Bring the devices to this instant, which stands still meanwhile. Timers that are due faster than they can be
        served make our time fall behind the host's: ticks are lost then, and never come in a bunch."""
        late = self._host() - self._start - self._now
        if late > MOST_BEHIND:
            self._start += late - MOST_BEHIND
        self._now = self._host() - self._start
        self._clock.run_due()

    def _catch_up(self) -> None:
        """Bring the devices to this instant, and tell of what came."""
        self._run_due()
        self._hear()

    # -- lines

    def _drive(self, irq: int, level: bool) -> None:
        if irq < 16:
            self._pic.set_irq(irq, level)
        if irq != IOAPIC_TIMER:
            self._ioapic.set_irq(irq or IOAPIC_TIMER, level)

    def _tick(self, level: bool) -> None:
        self._ticks = level
        if not self._replaced:
            self._drive(0, level)

    def replace_timer(self, on: bool) -> None:
        """See PcBridge."""
        with self._lock:
            self.put_back()
            self._run_due()
            if on != self._replaced:
                self._replaced = on
                self._drive(0, self._ticks and not on)
            self._wake()

    def init_lapic(self, *, off: bool = False) -> None:
        """See PcBridge."""
        with self._lock:
            self.put_back()
            self._lapic.init()
            base = self._lapic.save().base
            self._lapic.write_msr(BASE_MSR, base & ~ENABLED if off else base | ENABLED)
            self._wake()

    def set_line(self, irq: int, level: bool) -> None:
        """See MachineBridge. From any thread."""
        if not 0 <= irq < LINES:
            raise BridgeError(f"interrupt line {irq} does not exist: there are 0 to {LINES - 1}")
        with self._lock:
            self._run_due()
            self._drive(irq, level)
            self._hear()

    # -- requests

    def borrow(self) -> None:
        """See Bridge."""
        with self._lock:
            if self._borrowed:
                raise BridgeError("the vCPU has been borrowed already")
            self._borrowed, self._wanted, self._rests = True, False, False

    def give_back(self, *, halted: bool | None = None) -> None:
        """See Bridge. This hypervisor's CPU is not here: an interrupt that is not taken is put back."""
        with self._lock:
            self.put_back()
            self._borrowed = self._wanted = False

    def submit(self, request: Ioreq) -> int:
        """See Bridge."""
        if request.size not in (1, 2, 4) or request.indirect or request.count != 1:
            raise BridgeError("a request is for one element of 1, 2 or 4 bytes")
        return unpack(self.exchange(request.pack())).data if request.reads else self._write(request)

    def _write(self, request: Ioreq) -> int:
        self.exchange(request.pack())
        return 0

    def exchange(self, raw: bytes) -> bytes:
        """As `submit`, of the 32 bytes of a request; those of its answer."""
        with self._lock:
            if not self._borrowed:
                raise BridgeError("the vCPU is the guest's: nothing can be requested now")
            self._run_due()
            answer = self._devices.exchange(raw)
            self.requests += 1
            self._rests = False
            self._hear()
        return answer

    # -- as a whole

    def devices(self, now: int) -> Devices:
        """See MachineBridge."""
        with self._lock:
            self._run_due()
            pic, lapic, pit = self._pic.save(), self._lapic.save(), self._pit.save()
            shift = now - self._clock.now
            lapic.timer.started += shift
            for counter in pit.counters:
                counter.pulse = pulses_at(now)
            self._hear()
            return Devices(pic, lapic, self._ioapic.save(), pit, self._port61.save())

    def reset(self) -> None:
        """See MachineBridge."""
        with self._lock:
            self.put_back()
            for device in (self._pic, self._lapic, self._ioapic, self._pit, self._port61):
                device.reset()

    # -- events

    def listen(self, on: bool) -> None:
        """See Bridge."""
        with self._lock:
            self._wanted, self._rests = on, False
            self._catch_up()

    def _hear(self) -> None:
        """Acknowledge what is asked for, where that is wanted and nothing waits to be taken. Where something does, what
        INTR asks for beside it may have come meanwhile and come first, which the next look decides."""
        if self._rests or not (self._borrowed and self._wanted):
            return
        asked = self._door.asked if self._vector is None else self._beside()
        if self._vector is None:
            if asked is None:
                return
            self._acknowledge(asked)
            self.events += 1
        else:
            if asked == self._heard:
                return
            self._heard = asked
            if asked is None:
                return
        os.write(self._writer, _TOLD)

    def _acknowledge(self, vector: int) -> None:
        """Take what INTR asks for, and keep what that changes. What is asked for behind it waits for its turn."""
        before = [(s.isr, s.edges, s.lowest) for s in (chip.state for chip in self._pic.chips)]
        isr = self._lapic.save().isr
        self._vector = self._door.taken = vector
        self._pin.settle()
        states = [chip.state for chip in self._pic.chips]
        chips = [
            (s, s.isr & ~served, edges & ~s.edges, lowest)
            for s, (served, edges, lowest) in zip(states, before, strict=True)
        ]
        self._before = chips, self._lapic.save().isr & ~isr
        self._heard = self._beside()

    def _beside(self) -> int | None:
        """What is asked for beside the vector in hand: by INTR, or by the slave where the cascade of that vector's own
        acknowledge holds it back."""
        if self._door.asked is not None or self._before is None:
            return self._door.asked
        (_, master, *_), (_, slave, *_) = self._before[0]
        return self._pic.chips[1].request() if master and slave else None

    def _wake(self) -> None:
        """What has come since a put-back is heard now."""
        if self._rests:
            self._rests = False
            self._hear()

    def look(self) -> int | None:
        """See MachineBridge."""
        with self._lock:
            self._wake()
            if self._vector is not None and self._beside() is not None:
                self._unacknowledge()
                if self._door.asked is not None:
                    self._acknowledge(self._door.asked)
            return self._vector

    def take(self) -> int | None:
        """See Bridge."""
        with self._lock:
            self._rests = False
            self._catch_up()
            vector = self._vector
            if vector is not None:
                self._forget()
                self._hear()
            return vector

    def _forget(self) -> None:
        self._vector = None
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 64)

    def put_back(self) -> None:
        """See MachineBridge. Nor is another acknowledged before the access that it is for, in whose place an EOI would
        end that."""
        with self._lock:
            self._rests = True
            if self._vector is not None:
                self._unacknowledge()
                self._forget()

    def _unacknowledge(self) -> None:
        """What was acknowledged last is requested again; INTR asks for it, or for what comes before it."""
        assert self._before is not None
        self._vector = None
        chips, vectors = self._before
        for state, in_service, edges, lowest in chips:
            state.isr &= ~in_service
            state.edges |= edges
            state.lowest = lowest
        if vectors:
            lapic = self._lapic.save()
            self._lapic.restore(replace(lapic, isr=lapic.isr & ~vectors, irr=lapic.irr | vectors))
        self._pic.set_irq(CASCADE, False)  # the slave's INT is looked at anew, and INTR driven

    def close(self) -> None:
        """See MachineBridge."""
        with self._lock:
            if self._ends:
                return
            self._ends = True
            self._changed.notify()
        self._thread.join()
        for end in (self._reader, self._writer):
            os.close(end)
