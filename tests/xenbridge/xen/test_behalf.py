"""Instructions that are made in a domain's place do what the emulator's CPU does: registers, memory, accesses."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from asm import assemble
from bare_cpu import CODE, BareCpu, bare_cpu, flat_state, real_state
from emu.record import fields
from emu.x86.state import CpuState, Segment
from xenbridge.ioreq import Ioreq, Type
from xenbridge.xen.behalf import Behalf, concerns
from xenbridge.xen.libraries import XenError

WINDOW = 0x500000  #: no memory is there


class Domain:
    """As far as `Behalf` asks: a vCPU's state, and the memory of a bare CPU."""

    domid, servers = 1, ()

    def __init__(self, cpu: BareCpu, state: CpuState) -> None:
        self.state = state
        memory = cpu.memory
        self.memory = SimpleNamespace(readable=memory.available, read=memory.read, write=memory.write)

    def cpu_state(self) -> CpuState:
        return self.state.copy()

    def load_cpu(self, state: CpuState) -> None:
        self.state = state


class Borrowed:
    """In the bridge's place: accesses are the bare CPU's."""

    def __init__(self, cpu: BareCpu) -> None:
        self.cpu = cpu

    def submit_any(self, request: Ioreq) -> int:
        cpu, size = self.cpu, request.size
        if request.type is Type.PIO:
            if request.reads:
                return cpu.port_in(request.address, size)
            cpu.port_out(request.address, size, request.data)
        elif request.reads:
            return cpu.mmio_read(request.address, size)
        else:
            cpu.mmio_write(request.address, size, request.data)
        return 0


class MadeHere(Behalf):
    def __init__(self, domain: Domain, cpu: BareCpu) -> None:
        super().__init__(domain)
        self.borrowed = Borrowed(cpu)

    def _by_borrowed(self, work):
        return work(self.borrowed)


def prepared(bits: int) -> CpuState:
    state = real_state() if bits == 16 else flat_state()
    state.regs[:8] = [0x11223344, 0x3, 0x1F0, 0x55667788, 0x7000, 0x99AA, 0x2000, 0x3000]
    state.rflags = 0x246
    state.fs = Segment(0x40, WINDOW, 0xFFFFFFFF if bits == 32 else 0xFFFF, 0xC093 if bits == 32 else 0x93)
    return state


def cpu_with(source: str, bits: int, state: CpuState) -> BareCpu:
    cpu = bare_cpu(source, bits, state=state)
    cpu.write(0x2000, bytes(range(1, 17)))
    cpu.write(4 * 0x21, bytes.fromhex("34127856"))
    for vector in (1, 3, 4):
        cpu.write(4 * vector, bytes.fromhex("00050000"))
    cpu.on_in = lambda port, size: 0xA1B2C3D4 & (1 << 8 * size) - 1
    cpu.on_mmio_read = lambda address, size: 0x87654321 & (1 << 8 * size) - 1
    return cpu


def differences(one: CpuState, other: CpuState) -> dict[str, tuple]:
    names = [field.name for field in fields(one) if field.name not in ("fpu", "shadow", "msrs")]
    return {name: (getattr(one, name), getattr(other, name)) for name in names
            if getattr(one, name) != getattr(other, name)}  # fmt: skip


MADE = [
    "in al, 0x60", "in ax, dx", "in eax, dx", "out 0x61, al", "out dx, ax", "out dx, eax",
    "insb", "rep insw", "insd", "outsb", "rep outsw", "es outsd", "std\n outsb",
    "pushf", "o32 pushf", "sti", "clts", "mov eax, cr0", "mov cr3, eax", "smsw ax", "lmsw bx",
    "mov [fs:si], al", "mov [fs:esi + 4], eax", "mov cx, [fs:si]", "mov ah, [fs:esi]", "mov dword [fs:si], 0x1234",
    "mov byte [fs:si], 7", "mov al, [fs:0x20]", "mov [fs:0x20], ax", "fs lodsb", "fs lodsd",
]  # fmt: skip
REAL_MODE = ["int 0x21", "int3", "into"]


@pytest.mark.slow_variants(keep=20)
@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("source", MADE)
def test_what_is_made_is_what_the_emulator_executes(source: str, bits: int) -> None:
    check(source, bits)


@pytest.mark.parametrize("source", REAL_MODE)
def test_software_interrupts_of_real_mode_enter_their_handlers(source: str) -> None:
    check(source, 16)


def test_int1_enters_the_handler_of_vector_1() -> None:
    """SDM vol. 2A, INT n: as INT 1, one byte long."""
    here = cpu_with("int1", 16, prepared(16))
    domain = Domain(here, prepared(16))
    assert MadeHere(domain, here).make()
    assert (domain.state.cs.selector, domain.state.rip, domain.state.regs[4]) == (0, 0x500, 0x6FFA)
    assert here.read(0x6FFA, 6) == bytes.fromhex("011000004602")
    assert domain.state.rflags == 0x46


def check(source: str, bits: int) -> None:
    state = prepared(bits)
    if source == "into":
        state.rflags |= 1 << 11
    if source.startswith("std\n"):
        source, state.rflags = source[4:], state.rflags | 1 << 10
    emulated, here = cpu_with(source, bits, state.copy()), cpu_with(source, bits, state.copy())
    emulated.engine.run(1)
    domain = Domain(here, state.copy())
    code = assemble(f"bits {bits}\n{source}", CODE)
    assert concerns(code, False) or "fs" in source
    assert MadeHere(domain, here).make()
    assert differences(domain.state, emulated.engine.state()) == {}
    for one, other in ((here.ins, emulated.ins), (here.outs, emulated.outs), (here.mmio, emulated.mmio)):
        assert [access[1:] for access in one] == [access[1:] for access in other]
    for address in (0x2000, 0x3000, 0x6FE0):
        assert here.read(address, 32) == emulated.read(address, 32)


@pytest.mark.parametrize("source", ["nop", "mov ax, [si]", "push ax", "int 0x80", "iret", "popf", "cli"])
def test_what_tf_steps_is_left_to_it(source: str) -> None:
    bits = 32
    here = cpu_with(source, bits, prepared(bits))
    domain = Domain(here, prepared(bits))
    assert not MadeHere(domain, here).make()
    assert differences(domain.state, prepared(bits)) == {}


@pytest.mark.parametrize(
    ("source", "name"),
    [("rdmsr", "RDMSR"), ("wbinvd", "WBINVD"), ("add [fs:si], al", "the access to 0x502000"),
     ("fs movsb", "the access to 0x502000")],
)  # fmt: skip
def test_what_is_neither_is_refused_by_name(source: str, name: str) -> None:
    here = cpu_with(source, 16, prepared(16))
    with pytest.raises(XenError, match=rf"^{name} at 0x1000 is executed by Xen and cannot be stepped: run past it$"):
        MadeHere(Domain(here, prepared(16)), here).make()


def test_halting_for_good_is_refused() -> None:
    state = prepared(16)
    state.rflags = 0x46
    here = cpu_with("hlt", 16, state)
    with pytest.raises(XenError, match=r"^HLT at 0x1000 with interrupts off: nothing wakes the vCPU$"):
        MadeHere(Domain(here, state), here).make()


def v86(iopl: int) -> CpuState:
    """The state of a task of virtual 8086 mode, whose monitor allows it so much."""
    state = prepared(16)
    state.cr0 |= 1
    state.rflags |= 1 << 17 | iopl << 12
    for name in ("es", "cs", "ss", "ds", "fs", "gs"):
        state.segment(name).access = 0xF3
    return state


PORTS = ["in al, 0x60", "in ax, dx", "out 0x61, al", "out dx, eax", "insb", "rep outsw"]


@pytest.mark.parametrize("iopl", [0, 3])
@pytest.mark.parametrize("source", PORTS)
def test_a_port_access_of_virtual_8086_mode_is_refused_whatever_iopl_is(source: str, iopl: int) -> None:
    """The TSS's bitmap is asked in any case: a monitor may have it trap there (SDM vol. 1, 19.5.2)."""
    here = cpu_with(source, 16, v86(iopl))
    with pytest.raises(XenError, match=r"depends on the TSS and cannot be stepped$"):
        MadeHere(Domain(here, v86(iopl)), here).make()
    assert (here.ins, here.outs) == ([], [])


@pytest.mark.parametrize(("iopl", "may"), [(0, False), (2, False), (3, True)])
def test_a_port_access_of_cpl_3_in_protected_mode_goes_by_iopl(iopl: int, may: bool) -> None:
    state = at_cpl_3(iopl)
    here = cpu_with("out 0x61, al", 32, state)
    if may:
        assert MadeHere(Domain(here, state), here).make()
    else:
        with pytest.raises(XenError, match=r"depends on the TSS"):
            MadeHere(Domain(here, state), here).make()
    assert len(here.outs) == may


def at_cpl_3(iopl: int = 0) -> CpuState:
    state = prepared(32)
    state.rflags |= iopl << 12
    state.cs.access |= 0x60
    state.ss.access |= 0x60
    return state


@pytest.mark.parametrize(("source", "cr4", "made"), [
    ("lmsw bx", 0, False), ("smsw ax", 0, True), ("smsw ax", 1 << 11, False), ("clts", 0, False), ("hlt", 0, False),
    ("mov eax, cr0", 0, False),
])  # fmt: skip
@pytest.mark.parametrize("monitored", [False, True])
def test_what_is_for_cpl_0_is_left_to_tf_above_it(source: str, cr4: int, made: bool, monitored: bool) -> None:
    """TF shows the guest's own exception. SMSW is for CPL 0 where CR4.UMIP says so (SDM vol. 2B, SMSW)."""
    state = v86(3) if monitored else at_cpl_3()
    state.cr4 |= cr4
    here = cpu_with(source, 16 if monitored else 32, state)
    domain = Domain(here, state.copy())
    assert MadeHere(domain, here).make() == made
    if not made:
        assert differences(domain.state, state) == {}


TABLES = 0x8000  #: a directory, and behind it the table of the first 4 MiB


@pytest.mark.parametrize(("source", "rights", "cpl", "made"), [
    ("mov [0x300000], al", 3, 0, True), ("mov [0x300000], al", 3, 3, False), ("mov [0x300000], al", 7, 3, True),
    ("mov [0x300000], al", 5, 3, False), ("mov al, [0x300000]", 5, 3, True), ("mov al, [0x300000]", 1, 3, False),
    ("mov al, [0x300000]", 1, 0, True),
])  # fmt: skip
def test_memory_of_a_device_is_reached_where_the_guests_pages_allow_it(
    source: str, rights: int, cpl: int, made: bool
) -> None:
    """Elsewhere TF shows its page fault. `rights` are P, R/W and U/S of the page at 300000h, which is the device's."""
    state = at_cpl_3() if cpl else prepared(32)
    here = cpu_with(source, 32, state)
    here.write(TABLES, (TABLES + 0x1000 | 7).to_bytes(4, "little"))
    for page in range(16):
        here.write(TABLES + 0x1000 + 4 * page, (page << 12 | 7).to_bytes(4, "little"))
    here.write(TABLES + 0x1000 + 4 * 0x300, (WINDOW | rights).to_bytes(4, "little"))
    state.cr0, state.cr3 = state.cr0 | 1 << 31, TABLES
    assert MadeHere(Domain(here, state), here).make() == made
    assert len(here.mmio) == made
