"""What of the bridge this host's KVM can do, found out by a few requests and an interrupt: for `v2e doctor`."""

from __future__ import annotations

import select
from typing import Final

from emu.layout import LAPIC
from xenbridge.bridge import BridgeError
from xenbridge.ioreq import Type, read, write
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.bridge import KvmBridge

TPR, SVR, ICR = LAPIC + 0x80, LAPIC + 0xF0, LAPIC + 0x300
SELF, VECTOR = 0x40000, 0x61
PATIENCE: Final = 2.0  #: seconds for an interrupt to arrive


def lacks() -> list[str]:
    """What does not work, in words. Raises KvmError, or BridgeError, where there is no bridge at all."""
    bridge = KvmBridge()
    try:
        bridge.borrow()
        return _lacks(bridge)
    finally:
        bridge.close()


def _lacks(bridge: KvmBridge) -> list[str]:
    missing = []
    bridge.submit(write(Type.COPY, TPR, 4, 0x50))
    if bridge.submit(read(Type.COPY, TPR, 4)) != 0x50:
        missing.append("the local APIC's task priority")
    bridge.submit(write(Type.COPY, TPR, 4, 0))
    for port, value in ((0x43, 0x34), (0x40, 0), (0x40, 0)):
        bridge.submit(write(Type.PIO, port, 1, value))
    counts = set()
    for _ in range(8):
        bridge.submit(write(Type.PIO, 0x43, 1, 0))
        counts.add(bridge.submit(read(Type.PIO, 0x40, 1)) | bridge.submit(read(Type.PIO, 0x40, 1)) << 8)
    if len(counts) < 2:
        missing.append("a PIT that counts")
    bridge.submit(write(Type.COPY, SVR, 4, 0x1FF))
    bridge.submit(write(Type.COPY, ICR, 4, SELF | VECTOR))
    bridge.listen(True)
    select.select([bridge.descriptor], [], [], PATIENCE)
    if bridge.take() != VECTOR:
        missing.append("interrupts that a borrowed vCPU takes")
    bridge.listen(False)
    return missing


def finding() -> tuple[str, bool | None, str]:
    """For `v2e doctor`: subject, whether all is there, a sentence."""
    try:
        missing = lacks()
    except (KvmError, BridgeError) as error:
        return "kvm bridge", None, str(error)
    if missing:
        return "kvm bridge", None, f"not of this host's: {', '.join(missing)}"
    return "kvm bridge", True, "interrupt controllers and timers of the kernel answer, and interrupt (docs/bridge.md)"
