"""Bridges to a hypervisor's interrupt controllers and timers, for the tests that hold for all of them."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from emu.layout import LAPIC
from xenbridge.bridge import MachineBridge
from xenbridge.ioreq import Type, read, write
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.bridge import KvmBridge
from xenbridge.model_bridge import ModelBridge

TPR, EOI, SVR, ICR, LVT_TIMER, INITIAL, CURRENT, DIVIDE, ISR, IRR, LINT0 = (
    LAPIC + offset for offset in (0x80, 0xB0, 0xF0, 0x300, 0x320, 0x380, 0x390, 0x3E0, 0x100, 0x200, 0x350)
)
MASTER, SLAVE = 0x08, 0x70  #: vectors of `initialise`


@contextmanager
def made(kind: str, **more: bool) -> Iterator[MachineBridge]:
    """A borrowed bridge of this kind; skips the test where it cannot be had."""
    try:
        bridge: MachineBridge = KvmBridge(**more) if kind == "kvm" else ModelBridge()
    except KvmError as error:
        pytest.skip(str(error))
    bridge.borrow()
    try:
        yield bridge
    finally:
        bridge.close()


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


def taken(bridge: MachineBridge, seconds: float = 5.0) -> int | None:
    """The next vector; it is waited for at the descriptor alone."""
    end = time.monotonic() + seconds
    bridge.listen(True)
    while (vector := bridge.take()) is None and (left := end - time.monotonic()) > 0:
        select.select([bridge.descriptor], [], [], left)
    bridge.listen(False)
    return vector


def until(met: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not (held := met()) and time.monotonic() < end:
        time.sleep(0.0005)
    return held
