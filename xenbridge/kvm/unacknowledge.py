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

CASCADE: Final = 1 << 2
_BASE, _LEVEL = 0xF8, 7
#: Offsets of ISR and IRR in the local APIC's page: 32 vectors each 16 bytes (SDM vol. 3A, table 11-1).
ISR, IRR = 0x100, 0x200


def put_back(vm: Vm, vcpu: int, vector: int) -> None:
    """`vector`, acknowledged last, is requested again. `vcpu` is a file descriptor. Raises KvmError."""
    for chip in (1, 0):
        pic = vm.pic(chip)
        bit = 1 << (vector & _LEVEL)
        if pic.irq_base == vector & _BASE and (pic.isr & bit or pic.auto_eoi) and not _in_lapic(vcpu, vector):
            # Of a level-triggered input the request is the level, which an acknowledge leaves (i8259.c: pic_intack).
            asks = not pic.elcr & bit or bool(pic.irr & bit)
            _request(vm, chip, pic, bit, asks)
            if chip:
                _request(vm, 0, vm.pic(0), CASCADE, asks)
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


def _request(vm: Vm, chip: int, pic: abi.PicState, bit: int, asks: bool) -> None:
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
