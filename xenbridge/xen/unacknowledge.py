"""Takes back an acknowledge in Xen's interrupt controllers: what is in service is requested again.

Xen acknowledges an interrupt when the vCPU takes it. Where that is a borrowed one, and the guest it was taken for has
turned its interrupts off meanwhile, nothing of it has happened to the guest. A PIC's record can be loaded without other
effects (vpic_load, xen/arch/x86/hvm/vpic.c of 4.17). A LAPIC's cannot: its timer would begin anew (lapic_load_regs,
vlapic.c). There the service is ended by EOI, and the vector requested by a message as a device sends it.
"""

from __future__ import annotations

from collections.abc import Callable

from emu.layout import LAPIC
from xenbridge.ioreq import Ioreq, Type, write
from xenbridge.xen import context
from xenbridge.xen.context import Record
from xenbridge.xen.domain import Domain

#: Bytes of struct hvm_hw_vpic; bit 2 of `mode` is automatic EOI, bit 4 special fully nested mode.
_IRR, _ISR, _BASE, _MODE, _ELCR, _OUTPUT = 0, 2, 3, 5, 6, 7
_AEOI, _SFNM, _CASCADE = 4, 16, 1 << 2
#: Offsets in the LAPIC's page: 32 vectors each 16 bytes (SDM vol. 3A, table 11-1).
_IN_SERVICE, _REQUESTED, _EOI = 0x100, 0x200, 0xB0


def put_back(
    domain: Domain, access: Callable[[Ioreq], int], load: Callable[..., None], vector: int
) -> None:  # fmt: skip
    """`vector`, acknowledged last, is requested again. `access` makes one as the guest does, `load` loads records.
    Raises XenError."""
    records = {(record.code, record.instance): record.data for record in domain.records()}
    if _in_lapic(records[context.LAPIC_REGS, 0], _IN_SERVICE, vector):
        access(write(Type.COPY, LAPIC + _EOI, 4, 0))
        # A level that is held requests it again by itself, and has to go on being known for one.
        if not _in_lapic(domain.record(context.LAPIC_REGS).data, _REQUESTED, vector):
            domain.libraries.device_model["inject_msi"](domain.domid, LAPIC, vector)
        return
    bit = 1 << (vector & 7)
    for chip in (1, 0):
        pic = records[context.PIC, chip]
        if pic[_BASE] == vector & 0xF8 and (pic[_ISR] & bit or pic[_MODE] & _AEOI):
            # Of a level-triggered input the request is the level, which an acknowledge leaves.
            asks = not pic[_ELCR] & bit or bool(pic[_IRR] & bit)
            changed = [Record(context.PIC, chip, _requested(pic, bit, asks))]
            if chip:
                master = records[context.PIC, 0]
                # In special fully nested mode it may have been in service before, for another of the slave's.
                ends = not (master[_MODE] & _SFNM and pic[_ISR] & ~bit)
                changed.append(Record(context.PIC, 0, _requested(master, _CASCADE, asks, ends=ends)))
            load(*changed)
            return


def _requested(pic: bytes, bit: int, asks: bool, *, ends: bool = True) -> bytes:
    """The record without the service where that `ends`, and with the request if it still `asks`; INT driven."""
    out = bytearray(pic)
    if ends:
        out[_ISR] &= ~bit & 0xFF
    if asks:
        out[_IRR] |= bit
    out[_OUTPUT] = 1 if out[_IRR] else pic[_OUTPUT]
    return bytes(out)


def _in_lapic(page: bytes, at: int, vector: int) -> bool:
    return bool(page[at + (vector >> 5 << 4) + (vector >> 3 & 3)] >> (vector & 7) & 1)
