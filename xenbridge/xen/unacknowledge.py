"""Takes back an acknowledge in Xen's interrupt controllers: what is in service is requested again.

Xen acknowledges an interrupt when the vCPU takes it. Where that is a borrowed one, and the guest it was taken for has
turned its interrupts off meanwhile, nothing of it has happened to the guest. A PIC's record can be loaded without other
effects (vpic_load, xen/arch/x86/hvm/vpic.c of 4.17). A LAPIC's cannot: its timer would begin anew (lapic_load_regs,
vlapic.c). There the service is ended by EOI, and the vector requested by a message as a device sends it.

Xen takes INT from the record as it is and dies where that is high for no request (vpic_intack, BUG_ON): what the record
says of it follows from the rest, as the 8259A has it ("Priority Resolver").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emu.layout import LAPIC
from xenbridge.ioreq import Ioreq, Type, write
from xenbridge.service import Service
from xenbridge.xen import context
from xenbridge.xen.context import Record
from xenbridge.xen.domain import Domain

#: Bytes of struct hvm_hw_vpic (public/arch-x86/hvm/save.h). In `init`, bits 7:4 are the input of the highest priority;
#: bit 2 of `mode` is automatic EOI, bit 4 special fully nested mode, bit 5 special mask mode.
_IRR, _IMR, _ISR, _BASE, _INIT, _MODE, _ELCR, _OUTPUT = range(8)
_AEOI, _SFNM, _SPECIAL_MASK = 4, 16, 32
_CASCADE_INPUT = 2  #: of the master, where the slave's INT is
_CASCADE = 1 << _CASCADE_INPUT
#: Offsets in the LAPIC's page: 32 vectors each 16 bytes (SDM vol. 3A, table 11-1).
_IN_SERVICE, _REQUESTED, _EOI, _PAGE = 0x100, 0x200, 0xB0, 0x400


def _first(mask: int, highest: int) -> int | None:
    """The input of `mask` that comes first where `highest` has the highest priority."""
    return next((at for place in range(8) if mask >> (at := place + highest & 7) & 1), None)


def _request(pic: bytes, master: bool) -> int | None:
    """The input that this 8259's INT is high for."""
    highest = pic[_INIT] >> 4 & 7
    if (asked := _first(pic[_IRR] & ~pic[_IMR], highest)) is None:
        return None
    served = pic[_ISR] & (~pic[_IMR] if pic[_MODE] & _SPECIAL_MASK else 0xFF)
    if master and pic[_MODE] & _SFNM and 1 << asked == _CASCADE:
        served &= ~_CASCADE
    return asked if _first(served | 1 << asked, highest) == asked and not served >> asked & 1 else None


def _of(records: Sequence[Record], code: int, instance: int = 0) -> bytes:
    """Zeros where the domain has no such device."""
    found = (record.data for record in records if (record.code, record.instance) == (code, instance))
    return next(found, bytes(_PAGE))


def service_of(records: Sequence[Record], vector: int) -> Service:
    """Of `vector`, acknowledged last, in a domain of these records."""
    if _in_lapic(_of(records, context.LAPIC_REGS), _IN_SERVICE, vector):
        return Service.LAPIC
    pics = [_of(records, context.PIC, chip) for chip in (0, 1)]
    if any(pic[_MODE] & _SPECIAL_MASK for pic in pics):
        return Service.NONE
    serves = any(pic[_BASE] == vector & 0xF8 and pic[_ISR] >> (vector & 7) & 1 for pic in pics)
    return Service.PIC if serves else Service.NONE


def behind_cascade(records: Sequence[Record], vector: int) -> bool:
    """`vector`, acknowledged last, is in service at the slave, and a higher request of the slave's, which would come
    first if it were requested again, is held back by the cascade's service."""
    master, slave = _of(records, context.PIC, 0), _of(records, context.PIC, 1)
    served = slave[_BASE] == vector & 0xF8 and bool(slave[_ISR] >> (vector & 7) & 1)
    highest = vector & 7 == slave[_INIT] >> 4 & 7
    return served and not highest and bool(master[_ISR] & _CASCADE) and not master[_MODE] & _SFNM


def gives_way(records: Sequence[Record], vector: int) -> bool:
    """`vector`, acknowledged last, is an 8259's, and another request would come first if it were requested again. Where
    it is in service it holds lower ones back, and the slave's further ones by the cascade."""
    if _in_lapic(_of(records, context.LAPIC_REGS), _IN_SERVICE, vector):
        return False
    changed = {record.instance: record.data for record in _put_back(records, vector)}
    if not changed:
        return False
    master, slave = changed[0], changed.get(1)
    first = _request(master, master=True)
    if slave is None or first != _CASCADE_INPUT:
        return first != (vector & 7 if slave is None else _CASCADE_INPUT)
    return _request(slave, master=False) != vector & 7


def put_back(
    domain: Domain, access: Callable[[Ioreq], int], load: Callable[..., None], vector: int
) -> None:  # fmt: skip
    """`vector`, acknowledged last, is requested again. `access` makes one as the guest does, `load` loads records.
    Raises XenError."""
    records = domain.records()
    if _in_lapic(_of(records, context.LAPIC_REGS), _IN_SERVICE, vector):
        access(write(Type.COPY, LAPIC + _EOI, 4, 0))
        # A level that is held requests it again by itself, and has to go on being known for one.
        if not _in_lapic(domain.record(context.LAPIC_REGS).data, _REQUESTED, vector):
            domain.libraries.device_model["inject_msi"](domain.domid, LAPIC, vector)
    elif changed := _put_back(records, vector):
        load(*changed)


def _put_back(records: Sequence[Record], vector: int) -> list[Record]:
    """Those of the 8259 as they are when `vector` is requested again; none where it is not theirs."""
    bit = 1 << (vector & 7)
    for chip in (1, 0):
        pic = _of(records, context.PIC, chip)
        if pic[_BASE] == vector & 0xF8 and (pic[_ISR] & bit or pic[_MODE] & _AEOI):
            # Of a level-triggered input the request is the level, which an acknowledge leaves.
            asks = not pic[_ELCR] & bit or bool(pic[_IRR] & bit)
            changed = [Record(context.PIC, chip, _requested(pic, bit, asks, master=not chip))]
            if chip:
                master = _of(records, context.PIC, 0)
                # In special fully nested mode it may have been in service before, for another of the slave's.
                ends = not (master[_MODE] & _SFNM and pic[_ISR] & ~bit)
                line = bool(changed[0].data[_OUTPUT])
                changed.append(Record(context.PIC, 0, _requested(master, _CASCADE, line, master=True, ends=ends)))
            return changed
    return []


def _requested(pic: bytes, bit: int, asks: bool, *, master: bool, ends: bool = True) -> bytes:
    """The record without the service where that `ends`, with the request as it `asks`, and INT that follows."""
    out = bytearray(pic)
    if ends:
        out[_ISR] &= ~bit & 0xFF
    out[_IRR] = out[_IRR] & ~bit & 0xFF | bit * asks
    out[_OUTPUT] = _request(bytes(out), master) is not None
    return bytes(out)


def _in_lapic(page: bytes, at: int, vector: int) -> bool:
    return bool(page[at + (vector >> 5 << 4) + (vector >> 3 & 3)] >> (vector & 7) & 1)
