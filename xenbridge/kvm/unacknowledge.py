"""Takes back an acknowledge in KVM's interrupt controllers: what is in service is requested again.

KVM acknowledges an interrupt when its vCPU takes it. Where the vCPU is a borrowed one, and the guest it was taken for
has turned its interrupts off meanwhile, nothing of it has happened to the guest. Writing the state of a controller has
no other side effects (Linux, arch/x86/kvm/irq.c: kvm_vm_ioctl_set_irqchip; lapic.c: kvm_apic_set_state).
"""

from __future__ import annotations

from typing import Final

from emu.x86.state import RFLAGS_IF
from xenbridge.ioreq import Type
from xenbridge.kvm import abi, parked
from xenbridge.kvm.abi import ioctl
from xenbridge.kvm.vcpu import INTERRUPTED, Vcpu
from xenbridge.kvm.vm import Vm
from xenbridge.service import Service

CASCADE: Final = 1 << 2
_BASE, _LEVEL = 0xF8, 7
#: A vector to try, and SVR (SDM vol. 3A, table 11-1) with bit 8, "APIC software enable".
_TRIED, _SVR, _ENABLED = 0x61, 0xF0, (0xFF, 1)
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
        taken = pic.isr & bit or (pic.auto_eoi and not pic.imr & bit)
        if pic.irq_base == vector & _BASE and taken and not _in_lapic(vcpu, vector):
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
    at, bit = _place(vector)
    state.regs[ISR + at] &= ~bit & 0xFF
    state.regs[IRR + at] |= bit
    ioctl(vcpu, "SET_LAPIC", state)


def shows_in_service(cpu: Vcpu) -> bool:
    """Whether this KVM's local APIC has in its ISR what its vCPU has taken, which `kvm_pvm`'s has not. For a vCPU with
    the registers of xenbridge.kvm.parked, before anything interrupts it; its local APIC is as before behind this.
    Raises KvmError."""
    before, asking = _lapic(cpu.fd), _lapic(cpu.fd)
    at, bit = _place(_TRIED)
    asking.regs[_SVR : _SVR + 2] = _ENABLED
    asking.regs[IRR + at] |= bit
    ioctl(cpu.fd, "SET_LAPIC", asking)
    state = cpu.state()
    # At an access, not at HLT, so that it comes back whether it is interrupted or not.
    state.rip, state.rflags = parked.ENTRIES[Type.PIO, True, 1], RFLAGS_IF | 2
    state.regs[2] = parked.DOOR
    cpu.load(state)
    while cpu.run() == INTERRUPTED:
        pass
    cpu.finish(lambda reason: None)
    shown = _in_lapic(cpu.fd, _TRIED)
    ioctl(cpu.fd, "SET_LAPIC", before)
    return shown


def drop_spurious(vm: Vm, vcpu: int, vector: int, served: int | None) -> bool:
    """True: `vector`, acknowledged last, is an 8259's IRQ 7 for nothing (8259A, "interrupt request lines": the request
    had gone), and nothing of it is left. `served`: None, or where the local APIC does not show what is in service the
    master's ISR as it was before, by whose cascade the slave's are told from the local APIC's; what might be the
    master's is taken for the local APIC's there.

    The guest has not caused it where it had its interrupts off: KVM keeps the master's request for a slave's that has
    gone (arch/x86/kvm/i8259.c: pic_update_irq). Raises KvmError."""
    if vector & _LEVEL != _LEVEL or _in_lapic(vcpu, vector):
        return False
    master, slave = vm.pic(0), vm.pic(1)
    found = [pic for pic in (master, slave) if pic.irq_base == vector & _BASE]
    if not found or any(pic.isr >> _LEVEL or pic.auto_eoi for pic in found):
        return False
    slaves = slave in found and not slave.isr and bool(master.isr & CASCADE)
    if served is not None and not (slaves and not served & CASCADE):
        return False
    if slaves:
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


def _place(vector: int) -> tuple[int, int]:
    """Offset to ISR or IRR, and bit."""
    return vector >> 5 << 4 | vector >> 3 & 3, 1 << (vector & 7)


def _in_lapic(vcpu: int, vector: int) -> bool:
    """The local APIC has it in service."""
    at, bit = _place(vector)
    return bool(_lapic(vcpu).regs[ISR + at] & bit)
