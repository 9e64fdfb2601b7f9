"""Takes back an acknowledge in KVM's interrupt controllers: what is in service is requested again.

KVM acknowledges an interrupt when its vCPU takes it. Where the vCPU is a borrowed one, and the guest it was taken for
has turned its interrupts off meanwhile, nothing of it has happened to the guest. Writing the state of a controller has
no other side effects (Linux, arch/x86/kvm/irq.c: kvm_vm_ioctl_set_irqchip; lapic.c: kvm_apic_set_state).
"""

from __future__ import annotations

from typing import Final

from xenbridge.kvm import abi
from xenbridge.kvm.abi import ioctl
from xenbridge.kvm.vm import Vm
from xenbridge.service import Service

CASCADE: Final = 1 << 2
_BASE, _LEVEL = 0xF8, 7
#: Offsets of ISR and IRR in the local APIC's page: 32 vectors each 16 bytes (SDM vol. 3A, table 11-1).
ISR, IRR = 0x100, 0x200


def service_of(vm: Vm, vcpu: int, vector: int) -> Service:
    """Of `vector`, acknowledged last. NONE: its end was automatic, or in special mask mode lower ones pass it. Raises
    KvmError."""
    if _in_lapic(vcpu, vector):
        return Service.LAPIC
    chips = vm.pic(0), vm.pic(1)
    if any(pic.special_mask for pic in chips):
        return Service.NONE
    bit = 1 << (vector & _LEVEL)
    return Service.PIC if any(pic.irq_base == vector & _BASE and pic.isr & bit for pic in chips) else Service.NONE


def slave_asks(vm: Vm, vector: int) -> bool:
    """The slave has `vector`, acknowledged last, in service, and a higher request, which does not pass the master while
    its cascade is in service. Raises KvmError."""
    slave = vm.pic(1)
    if slave.irq_base != vector & _BASE or not slave.isr >> (vector & _LEVEL) & 1:
        return False
    requests = slave.irr & ~slave.imr
    for place in range(8):
        bit = 1 << (place + slave.priority_add & 7)
        if (requests | slave.isr) & bit:
            return not slave.isr & bit
    return False


def put_back(vm: Vm, vcpu: int, vector: int) -> None:
    """`vector`, acknowledged last, is requested again. `vcpu` is a file descriptor. A rotation of priorities by an
    automatic EOI stays. Raises KvmError."""
    for chip in (1, 0):
        pic = vm.pic(chip)
        bit = 1 << (vector & _LEVEL)
        if pic.irq_base == vector & _BASE and (pic.isr & bit or pic.auto_eoi) and not _in_lapic(vcpu, vector):
            # Of a level-triggered input the request is the level, which an acknowledge leaves (i8259.c: pic_intack).
            asks = not pic.elcr & bit or bool(pic.irr & bit)
            _request(vm, chip, pic, bit, asks)
            if chip:
                master = vm.pic(0)
                # In special fully nested mode it may have been in service before, for another of the slave's.
                ends = not (master.special_fully_nested_mode and pic.isr)
                _request(vm, 0, master, CASCADE, asks, ends=ends)
            return
    state = _lapic(vcpu)
    at, bit = vector >> 5 << 4 | vector >> 3 & 3, 1 << (vector & 7)
    state.regs[ISR + at] &= ~bit & 0xFF
    state.regs[IRR + at] |= bit
    ioctl(vcpu, "SET_LAPIC", state)


def drop_spurious(vm: Vm, vcpu: int, vector: int) -> bool:
    """True: `vector`, acknowledged last, is an 8259's IRQ 7 for nothing (8259A, "interrupt request lines": the request
    had gone), and nothing of it is left.

    The guest has not caused it where it had its interrupts off: KVM keeps INT of a controller high whose requests ICW1
    has dropped, until that is accessed again (arch/x86/kvm/i8259.c: kvm_pic_reset). Raises KvmError."""
    if vector & _LEVEL != _LEVEL or _in_lapic(vcpu, vector):
        return False
    master, slave = vm.pic(0), vm.pic(1)
    found = [pic for pic in (master, slave) if pic.irq_base == vector & _BASE]
    if not found or any(pic.isr >> _LEVEL or pic.auto_eoi for pic in found):
        return False
    if slave in found and not slave.isr and master.isr & CASCADE:
        master.isr &= ~CASCADE & 0xFF
        vm.set_pic(0, master)
    return True


def _request(vm: Vm, chip: int, pic: abi.PicState, bit: int, asks: bool, *, ends: bool = True) -> None:
    if ends:
        pic.isr &= ~bit & 0xFF
    if asks:
        pic.irr |= bit
    vm.set_pic(chip, pic)


def _lapic(vcpu: int) -> abi.LapicState:
    state = abi.LapicState()
    ioctl(vcpu, "GET_LAPIC", state)
    return state


def _in_lapic(vcpu: int, vector: int) -> bool:
    """The local APIC has it in service."""
    at = vector >> 5 << 4 | vector >> 3 & 3
    return bool(_lapic(vcpu).regs[ISR + at] >> (vector & 7) & 1)
