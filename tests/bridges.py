"""Bridges to a hypervisor's interrupt controllers and timers, for the tests that hold for all of them."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emu.layout import IOAPIC, LAPIC
from emu.machine import MachineConfig, MachineExit, build_machine
from emu.transitions import NativeConfig
from emu.x86.cpuid import MODELS
from xenbridge.bridge import MachineBridge
from xenbridge.ioreq import Type, read, write
from xenbridge.kept import BridgeKeeper
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.bridge import KvmBridge
from xenbridge.model_bridge import ModelBridge
from xenbridge.signals import Signals
from xenbridge.xen.libraries import CAPABILITIES

TPR, EOI, SVR, ICR, LVT_TIMER, INITIAL, CURRENT, DIVIDE, ISR, IRR, LINT0 = (
    LAPIC + offset for offset in (0x80, 0xB0, 0xF0, 0x300, 0x320, 0x380, 0x390, 0x3E0, 0x100, 0x200, 0x350)
)
#: Wakes of all threads in a second that are let pass: half of what a poll of 50 ms would make.
MOST_SWITCHES = 10
SELF = 0x0004_0000  #: ICR: to itself, fixed
PIT_HZ = 1_193_182
MASTER, SLAVE = 0x08, 0x70  #: vectors of `initialise`
#: Seconds for what has to come, on any host: what does not come in them is a defect, and nothing slow.
PATIENCE = 60.0


@contextmanager
def made(kind: str, **more: bool) -> Iterator[MachineBridge]:
    """A borrowed bridge of this kind; skips the test where it cannot be had."""
    if kind == "xen":
        from dom0_bridge import made_xen  # tests/xen/dom0

        with made_xen() as bridge:
            yield bridge
        return
    try:
        bridge: MachineBridge = KvmBridge(**more) if kind == "kvm" else ModelBridge()
    except KvmError as error:
        pytest.skip(str(error))
    bridge.borrow()
    try:
        yield bridge
    finally:
        bridge.close()


def kinds() -> tuple[str, ...]:
    """In a dom0 of Xen its own, else those that are everywhere."""
    try:
        return ("xen",) if "control_d" in CAPABILITIES.read_text() else ("model", "kvm")
    except OSError:
        return "model", "kvm"


def port(bridge: MachineBridge, address: int, value: int | None = None) -> int:
    return bridge.submit(read(Type.PIO, address, 1) if value is None else write(Type.PIO, address, 1, value))


def lapic(bridge: MachineBridge, address: int, value: int | None = None) -> int:
    return bridge.submit(read(Type.COPY, address, 4) if value is None else write(Type.COPY, address, 4, value))


def initialise(bridge: MachineBridge, mask: int = 0xFF) -> None:
    """Both 8259 as a BIOS leaves them, with the master's IMR `mask`, and the local APIC enabled by
    software, with the 8259 at LINT0."""
    for address, value in (
        (0x20, 0x11), (0x21, MASTER), (0x21, 4), (0x21, 1), (0xA0, 0x11), (0xA1, SLAVE), (0xA1, 2), (0xA1, 1),
        (0xA1, 0xFF), (0x21, mask),
    ):  # fmt: skip
        port(bridge, address, value)
    lapic(bridge, SVR, 0x1FF)
    lapic(bridge, LINT0, 0x700)


def start_pit(bridge: MachineBridge, count: int, mode: int = 2) -> None:
    """Counter 0, both bytes of `count`, binary."""
    for address, value in ((0x43, 0x30 | mode << 1), (0x40, count & 0xFF), (0x40, count >> 8)):
        port(bridge, address, value)


def redirect(bridge: MachineBridge, number: int, entry: int) -> None:
    """The low half of an entry of the I/O APIC's redirection table."""
    lapic(bridge, IOAPIC, 0x10 + 2 * number)
    lapic(bridge, IOAPIC + 0x10, entry)


def in_service(bridge: MachineBridge) -> int:
    """The master's ISR (8259A, OCW3)."""
    port(bridge, 0x20, 0x0B)
    return port(bridge, 0x20)


def requested(bridge: MachineBridge) -> int:
    """The master's IRR."""
    port(bridge, 0x20, 0x0A)
    return port(bridge, 0x20)


def in_service_of_lapic(bridge: MachineBridge, vector: int) -> bool:
    """By its state, without an access, before which an interrupt in hand would be put back."""
    return bool(bridge.devices(0).lapic.isr >> vector & 1)


def taken(bridge: MachineBridge, seconds: float = PATIENCE) -> int | None:
    """The next vector; it is waited for at the descriptor alone."""
    end = time.monotonic() + seconds
    bridge.listen(True)
    while (vector := bridge.take()) is None and (left := end - time.monotonic()) > 0:
        select.select([bridge.descriptor], [], [], left)
    bridge.listen(False)
    return vector


def until(met: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    end = time.monotonic() + seconds
    while not (held := met()) and time.monotonic() < end:
        time.sleep(0.0005)
    return held


def switches() -> int:
    """How often threads of this process have given the CPU up by themselves, to wait for something (proc(5)): each look
    of a poll is one, however little time it takes."""
    found = 0
    for status in Path("/proc/self/task").glob("*/status"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
            found += int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return found


def switches_in(seconds: float) -> int:
    """How often they do in so many seconds, but for this thread's own sleep."""
    time.sleep(0.2)  # what went before comes to rest
    before = switches()
    time.sleep(seconds)
    return switches() - before - 1


class Driven:
    """A machine whose interrupt controllers and timers a bridge has, run on a thread of its own."""

    def __init__(
        self,
        kind: str,
        firmware: bytes,
        signals: Signals,
        keeper: BridgeKeeper | None = None,
        native: NativeConfig | None = None,
    ) -> None:
        """`keeper`: one that is there already; else it is made, of `kind`. `native`: a CPU that it runs on too."""
        try:
            # An isapc has no local APIC, and neither has its CPU.
            bridge: MachineBridge = keeper.bridge if keeper is not None else (
                KvmBridge(wired=True) if kind == "kvm" else ModelBridge(MODELS["max"])
            )  # fmt: skip
        except KvmError as error:
            pytest.skip(str(error))
        self.keeper = keeper or BridgeKeeper(bridge)
        self.machine = build_machine(
            MachineConfig(firmware=firmware, shadow=False, memory=1 << 20, keeper=lambda: self.keeper, native=native)
        )
        self.machine.idle = self._idle
        self._awake = threading.Event()
        self.keeper.wake = self._awake.set
        self._signals = signals
        signals.add(bridge.descriptor, self.keeper.ring, self.keeper.flags)

    def _idle(self, left: int | None) -> bool:
        self._awake.wait(None if left is None else left / 1e9)
        self._awake.clear()
        return True

    def word(self, address: int) -> int:
        return int.from_bytes(self.machine.memory.read(address, 4), "little")

    def start(self) -> None:
        self._ends: list[MachineExit] = []
        self._thread = threading.Thread(target=lambda: self._ends.append(self.machine.run(1 << 60)))
        self._thread.start()

    def end(self, seconds: float = 30.0) -> MachineExit:
        """Wait for the guest's end; after `seconds` it is stopped."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.machine.request_stop()
            self._awake.set()
            self._thread.join()
        return self._ends[0]

    def close(self) -> None:
        self._signals.remove(self.keeper.bridge.descriptor)
        self.machine.close()
