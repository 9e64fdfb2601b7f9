"""What the guest's CPU does not allow is not made in its place: the step brings the guest's own exception.

Its handlers are of ring 3 too: QEMU's CPU, on which this Xen runs, takes no stack from a busy TSS, as Xen has all of
them ("invalid tss type", target/i386/tcg/seg_helper.c)."""

import struct

import pytest

from emu.x86.state import Segment, Table
from machines import WINDOW, booted, word
from xenbridge.xen.libraries import XenError
from xenbridge.xen.stepper import Stepper

GDT, IDT, HANDLERS, COUNT, CODE, STACK = 0x8000, 0x8100, 0x8300, 0x8600, 0x8700, 0x9000
DIRECTORY, TABLE = 0x20000, 0x21000
USER_CODE, USER_DATA = 0x0B, 0x13
DESCRIPTORS = (0, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF)  #: flat segments of ring 3
PRESENT, WRITABLE, USER = 1, 2, 4


def handler(length: int) -> bytes:
    """inc dword [COUNT]; add dword [esp + 4], length; add esp, 4; iret: behind what has raised an exception."""
    return b"\xff\x05" + COUNT.to_bytes(4, "little") + bytes((0x83, 0x44, 0x24, 4, length, 0x83, 0xC4, 4, 0xCF))


@pytest.fixture
def stepped(libraries):
    guest, _ = booted(libraries, "g_steps")
    memory = guest.domain.memory
    memory.write(GDT, struct.pack("<3Q", *DESCRIPTORS))
    for vector, length in ((13, 3), (14, 5)):
        at = HANDLERS + 0x40 * (vector - 13)
        memory.write(at, handler(length))
        memory.write(IDT + 8 * vector, struct.pack("<HHHH", at, USER_CODE, 0x8E00, 0))
    memory.write(COUNT, bytes(4))
    with Stepper(guest.domain) as stepper:
        yield guest, stepper
    guest.close()


def enter(guest, code: str, *, virtual8086: bool = False, paging: bool = False) -> None:
    """About to execute `code` with CPL 3, IOPL 3 in virtual 8086 mode."""
    domain = guest.domain
    domain.memory.write(CODE, bytes.fromhex(code))
    state = domain.cpu_state()
    state.rip, state.rflags, state.cr0 = CODE, 2, 0x11 | paging << 31
    state.regs[0], state.regs[4] = 9, STACK
    state.gdtr, state.idtr = Table(GDT, 8 * len(DESCRIPTORS) - 1), Table(IDT, 8 * 16 - 1)
    code_segment, data_segment = (USER_CODE, 0, 0xFFFFFFFF, 0xC0FB), (USER_DATA, 0, 0xFFFFFFFF, 0xC0F3)
    if virtual8086:
        state.rflags |= 1 << 17 | 3 << 12
        code_segment = data_segment = (0, 0, 0xFFFF, 0xF3)
    state.cs = Segment(*code_segment)
    for name in ("es", "ss", "ds", "fs", "gs"):
        setattr(state, name, Segment(*data_segment))
    if paging:
        entry = PRESENT | WRITABLE | USER
        pages = [page << 12 | (entry if page << 12 != WINDOW else entry & ~USER) for page in range(256)]
        domain.memory.write(DIRECTORY, struct.pack("<I", TABLE | entry))
        domain.memory.write(TABLE, struct.pack("<256I", *pages))
        state.cr3 = DIRECTORY
    domain.load_cpu(state)


def test_lmsw_with_cpl_3_is_the_guests_general_protection_fault(stepped) -> None:
    """lmsw ax; nop. The step ends behind the instruction that follows the handler's IRET."""
    guest, stepper = stepped
    enter(guest, "0f01f0 90 90")
    assert stepper.step().linear == CODE + 4
    assert word(guest, COUNT) == 1
    assert guest.domain.cpu_state().cr0 & 0xFFFF == 0x11, "TS, which AX has, is not loaded"


def test_memory_of_a_device_that_is_the_supervisors_is_the_guests_page_fault(stepped) -> None:
    """mov al, [WINDOW]; nop."""
    guest, stepper = stepped
    enter(guest, "a000000d00 90 90", paging=True)
    assert stepper.step().linear == CODE + 6
    state = guest.domain.cpu_state()
    assert (word(guest, COUNT), state.regs[0]) == (1, 9)
    assert guest.requests == [], "the device was not asked"


def test_memory_of_a_device_that_is_the_users_is_read(stepped) -> None:
    """mov al, [WINDOW]."""
    guest, stepper = stepped
    enter(guest, "a000000d00 90 90", paging=True)
    guest.domain.memory.write(TABLE + 4 * (WINDOW >> 12), struct.pack("<I", WINDOW | PRESENT | WRITABLE | USER))
    assert stepper.step().linear == CODE + 5
    assert guest.domain.cpu_state().regs[0] == 0x0D  # of CAFEF00Dh
    assert (word(guest, COUNT), [request.address for request in guest.requests]) == (0, [WINDOW])


def test_a_port_in_virtual_8086_mode_depends_on_the_tss_whatever_iopl_is(stepped) -> None:
    """in al, 5Eh."""
    guest, stepper = stepped
    enter(guest, "e45e 90", virtual8086=True)
    with pytest.raises(XenError, match=rf"^the port access at {CODE:#x} depends on the TSS and cannot be stepped$"):
        stepper.step()
    assert guest.requests == []
    assert guest.domain.cpu_state().rip == CODE
