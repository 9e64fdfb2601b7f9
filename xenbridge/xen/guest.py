"""A domain of ours that boots a sector, with a device model of ours behind an ioreq server."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from emu.x86.state import CpuState, Segment
from xenbridge.ioreq import Ioreq, Type
from xenbridge.xen import context
from xenbridge.xen.channels import Channels
from xenbridge.xen.context import Record
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import Libraries, XenError
from xenbridge.xen.server import Device, IoreqServer, serve

BOOT: Final = 0x7C00
FIRST_DISK: Final = 0x80
_LVT0: Final = 0x350
#: ExtINT, not masked: what a BIOS writes so that the 8259's interrupts come in (SDM vol. 3A, 11.5.1).
_EXTINT: Final = 0x700


def boot_state() -> CpuState:
    """The registers with which a BIOS enters a boot sector of the first disk, interrupts off, no stack set up."""
    state = CpuState(rip=BOOT, rflags=2, cr0=0x10)
    state.regs[2] = FIRST_DISK
    state.cs = Segment(0, 0, 0xFFFF, 0x9B)
    return state


def virtual_wire(domain: Domain) -> None:
    """Have the 8259's interrupts come in by the LAPIC's LINT0. Raises XenError."""
    registers = bytearray(domain.record(context.LAPIC_REGS).data)
    struct.pack_into("<I", registers, _LVT0, _EXTINT)
    domain.load(domain.record(context.LAPIC), Record(context.LAPIC_REGS, 0, bytes(registers)))


class Guest:
    """One domain with its channels and its server. A context manager that destroys the domain."""

    def __init__(self, libraries: Libraries, device: Device, *, memory: int = 1 << 20) -> None:
        """A domain of `memory` bytes that has not been booted. Raises XenError."""
        self.domain = Domain.create(libraries, memory)
        self.device = device
        self.channels = Channels(libraries)
        self.requests: list[Ioreq] = []  #: what the guest has asked for, in order
        try:
            self.server = IoreqServer(self.domain, self.channels, self._serve)
        except XenError:
            self.domain.destroy()
            raise

    def boot(self, sector: bytes) -> None:
        """Load a boot sector and the registers that go with it; `domain.resume` starts it."""
        self.domain.memory.write(BOOT, sector)
        virtual_wire(self.domain)
        self.domain.load_cpu(boot_state())

    def _serve(self, request: Ioreq) -> None:
        self.requests.append(request)
        self.server.answer(serve(self.domain, self.device, request))

    def run(self, met: Callable[[], bool], seconds: float) -> bool:
        """Let it run and serve it until `met`; False when that took longer than `seconds`. It runs on afterwards."""
        self.domain.resume()
        return self.channels.wait(met, seconds)

    def close(self) -> None:
        self.server.close()
        self.channels.close()
        self.domain.destroy()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


__all__ = ["BOOT", "Device", "Guest", "Type", "boot_state", "virtual_wire"]
