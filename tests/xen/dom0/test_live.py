"""The views of the debugger over a live domain."""

import pytest

from emu.inspector import DebuggerError, Inspector
from emu.subject import MemoryUnavailable
from machines import booted
from xenbridge.xen.live import LiveDomain
from xenbridge.xen.stepper import Stepper


@pytest.fixture
def looked_at(libraries):
    guest, _ = booted(libraries, "g_steps")
    yield Inspector(LiveDomain(guest.domain)), guest.domain
    guest.close()


def test_hidden_segment_state_tables_and_code_are_shown(looked_at) -> None:
    pytest.importorskip("capstone")
    inspector, domain = looked_at
    assert [i.text for i in inspector.disassemble(count=3)] == ["xor ax, ax", "mov ss, ax", "mov sp, 0x7c00"]
    with Stepper(domain) as stepper:
        stepper.run(lambda place: place.rip > 0x7C00 and place.cs_base == 0 and domain.cpu_state().cs.big)
    inspector.forget()
    assert inspector.mode().label == "32-bit protected"
    entries = inspector.gdt()
    assert [(e.base, e.limit) for e in entries[1:]] == [(0, 0xFFFFFFFF)]
    code, data = inspector.segments()[1], inspector.segments()[3]
    assert (code.name, code.selector, code.limit, code.differs) == ("cs", 8, 0xFFFFFFFF, ())
    assert (data.name, data.selector, data.base) == ("ds", 0x7C0, 0x7C00)
    assert data.note or data.differs  # what the GDT says of 07c0 is not what the CPU has


def test_memory_and_registers_are_changed_and_the_domain_has_them(looked_at) -> None:
    inspector, domain = looked_at
    inspector.write_linear(0x500, b"written")
    inspector.write_register("eax", 0x1234)
    assert domain.memory.read(0x500, 7) == b"written"
    assert domain.cpu_state().regs[0] == 0x1234
    with pytest.raises(MemoryUnavailable, match="0xa0000"):
        inspector.read_linear(0x9FFFF, 2)


def test_devices_of_the_hypervisor_are_shown_and_marked_as_its_own(looked_at) -> None:
    inspector, _ = looked_at
    assert {view.name for view in inspector.devices()} == {"pic0", "pic1", "pit", "lapic"}
    lapic = {field.name: field.value for field in inspector.device("lapic").fields}
    assert lapic["LVT_LINT0"] == 0x700
    owners = {(region.name, region.owner) for region in inspector.subject.port_map()}
    assert {("pit", "hypervisor"), ("pic0", "hypervisor")} <= owners


def test_a_domain_that_has_gone_is_a_sentence(looked_at) -> None:
    inspector, domain = looked_at
    domain.destroy()
    with pytest.raises(DebuggerError, match=rf"^domain {domain.domid} has been destroyed$"):
        inspector.registers()
