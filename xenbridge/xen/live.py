"""A live domain as a subject: what front ends look at and change while it is paused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeVar

from emu.inspector import DebuggerError
from emu.subject import MemoryUnavailable
from emu.views import DeviceView, FieldView, PictureView, RegionView, ScreenView
from emu.x86.state import CpuState
from xenbridge.bridge import Owner
from xenbridge.ioreq import Type
from xenbridge.xen import context
from xenbridge.xen.bridge import OWNED
from xenbridge.xen.context import ContextError
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import XenError
from xenbridge.xen.memory import PAGE

T = TypeVar("T")
_LOADED: Final = "as loaded; how far it has counted is not in the record"
_NO_DISPLAY: Final = "the display belongs to the domain's device model: Xen does not know what it shows"
#: Of the LAPIC's page, those registers that the interrupt logic is about (SDM vol. 3A, table 11-1).
_LAPIC_WORDS: Final = {
    "ID": 0x20, "VERSION": 0x30, "TPR": 0x80, "PPR": 0xA0, "LDR": 0xD0, "DFR": 0xE0, "SVR": 0xF0, "LVT_TIMER": 0x320,
    "LVT_LINT0": 0x350, "LVT_LINT1": 0x360, "INITIAL_COUNT": 0x380, "DIVIDE": 0x3E0,
}  # fmt: skip


class LiveDomain:
    """A `Subject` over a domain that is paused while it is looked at; every call asks Xen.

    The interrupt shadow, and NMI blocking, are not in Xen's CPU record. A domain that is gone is a DebuggerError."""

    read_only = False

    def __init__(self, domain: Domain, cpu: int = 0) -> None:
        """`cpu` is the vCPU that is shown as the one there is."""
        self.domain, self._cpu = domain, cpu

    def cpu_count(self) -> int:
        return self._asked(self.domain.vcpus)

    def cpu_state(self, cpu: int = 0) -> CpuState:
        return self._asked(lambda: self.domain.cpu_state(self._cpu + cpu))

    def load_cpu(self, state: CpuState, cpu: int = 0) -> None:
        self._asked(lambda: self.domain.load_cpu(state, self._cpu + cpu))

    def unknown(self, cpu: int = 0) -> frozenset[str]:
        return frozenset({"shadow", "nmi_blocked"})

    def read_physical(self, address: int, length: int) -> bytes:
        return self._asked(lambda: self.domain.memory.read(address, length))

    def readable_physical(self, address: int, length: int) -> int:
        return self._asked(lambda: self.domain.memory.readable(address, length))

    def write_physical(self, address: int, data: bytes) -> None:
        self._asked(lambda: self.domain.memory.write(address, data))

    def check_write(self, address: int, data: bytes) -> None:
        have = self.readable_physical(address, len(data))
        if have < len(data):
            raise MemoryUnavailable(address + have, "no memory of the domain's")

    def memory_map(self) -> tuple[RegionView, ...]:
        """RAM up to the last frame that has memory, which may have holes, and Xen's own devices."""
        top = self._asked(self.domain.last_frame)
        ram = RegionView(0, (top + 1) * PAGE - 1, "ram", "memory of the domain, with holes")
        return (ram, *self._regions(Type.COPY, "mmio"))

    def port_map(self) -> tuple[RegionView, ...]:
        """Ports of Xen's own devices: all others are the device model's."""
        return self._regions(Type.PIO, "port")

    @staticmethod
    def _regions(type: Type, kind: str) -> tuple[RegionView, ...]:
        owned = (device for device in OWNED if device.type is type and device.owner is Owner.HYPERVISOR)
        return tuple(RegionView(device.first, device.last, kind, device.name, device.owner.value) for device in owned)

    def devices(self) -> tuple[DeviceView, ...]:
        """Xen's interrupt controllers and timer, from their records: looking has no side effects."""
        records = {(record.code, record.instance): record.data for record in self._asked(self.domain.records)}
        views = []
        for instance, where in enumerate(("ports 20h, 21h", "ports A0h, A1h")):
            if (pic := records.get((context.PIC, instance))) is not None:
                fields = tuple(FieldView(name, value) for name, value in zip(("IRR", "IMR", "ISR"), pic, strict=False))
                views.append(DeviceView(f"pic{instance}", "8259A (Xen)", where, fields))
        if (pit := records.get((context.PIT, 0))) is not None:
            counts = struct.unpack_from("<I12xI12xI", pit)
            views.append(DeviceView("pit", "8254 (Xen)", "ports 40h to 43h", tuple(
                FieldView(f"COUNTER{index}", count, _LOADED) for index, count in enumerate(counts))))  # fmt: skip
        if (lapic := records.get((context.LAPIC_REGS, self._cpu))) is not None:
            fields = tuple(
                FieldView(name, struct.unpack_from("<I", lapic, offset)[0]) for name, offset in _LAPIC_WORDS.items()
            )
            views.append(DeviceView("lapic", "local APIC (Xen)", "FEE00000h", fields))
        return tuple(views)

    def screen(self) -> ScreenView:
        raise DebuggerError(_NO_DISPLAY)

    def picture(self) -> PictureView:
        raise DebuggerError(_NO_DISPLAY)

    @staticmethod
    def _asked(call: Callable[[], T]) -> T:
        try:
            return call()
        except (XenError, ContextError) as error:
            raise DebuggerError(str(error)) from None
