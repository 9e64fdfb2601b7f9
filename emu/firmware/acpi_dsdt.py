r"""The DSDT of `--machine pc`: \_SB.PCI0 with its ISA devices, interrupt links and routing, and \_S5.

Source: ACPI 1.0b: 5.4 (namespace), 6.2 (_PRT, _CRS, _PRS, _SRS, _DIS), 7.5.2 (\_S5); Intel 82371SB data sheet,
PIRQRC registers at 60h-63h of the ISA bridge.
"""

from __future__ import annotations

from emu import layout
from emu.firmware import aml

#: IRQs that PCI interrupts may be routed to.
LINK_IRQS = (5, 10, 11)
#: Where a machine of at most 3 GiB has its PCI memory.
PCI_HOLE = (0xC0000000, 0xFEBFFFFF)


def _routing() -> bytes:
    """_PRT: INTA# to INTD# of each device by the board's rotation."""
    entries = []
    for slot in range(32):
        for pin in range(4):
            link = aml.name_string(f"LNK{'ABCD'[(slot - 1 + pin) & 3]}")
            entries.append(aml.package(aml.integer(slot << 16 | 0xFFFF), aml.integer(pin), link, aml.integer(0)))
    return b"\x12" + aml.package_length(bytes((len(entries),)) + b"".join(entries))


def _link(index: int) -> bytes:
    """The interrupt link device of one PIRQ: its register is PRQA to PRQD of the ISA bridge."""
    register = aml.name_string(f"\\_SB.PCI0.ISA.PRQ{'ABCD'[index]}")
    irq = aml.resources(aml.interrupt(0))
    return aml.device(
        f"LNK{'ABCD'[index]}",
        aml.name("_HID", aml.eisa_id("PNP0C0F")),
        aml.name("_UID", aml.integer(index)),
        aml.name("_PRS", aml.resources(aml.interrupt(*LINK_IRQS))),
        aml.method(
            "_STA", 0,
            aml.if_(aml.bit_and(register, aml.integer(0x80), aml.NOWHERE), aml.returns(aml.integer(9))),
            aml.returns(aml.integer(0x0B)),
        ),
        aml.method("_DIS", 0, aml.bit_or(register, aml.integer(0x80), register)),
        aml.method(
            "_CRS", 0,
            aml.store(irq, aml.LOCAL0),
            aml.create_dword_field(aml.LOCAL0, 5, "IRQN"),
            aml.store(aml.bit_and(register, aml.integer(15), aml.NOWHERE), aml.name_string("IRQN")),
            aml.returns(aml.LOCAL0),
        ),
        aml.method(
            "_SRS", 1,
            aml.create_dword_field(aml.ARG0, 5, "IRQN"),
            aml.store(aml.name_string("IRQN"), register),
        ),
    )  # fmt: skip


def _isa() -> bytes:
    """Function 1.0 and what is behind it."""

    def part(name: str, pnp: str, *resources: bytes) -> bytes:
        return aml.device(
            name, aml.name("_HID", aml.eisa_id(pnp)), aml.name("_CRS", aml.resources(*resources)),
            aml.name("_STA", aml.integer(15)),
        )  # fmt: skip

    return aml.device(
        "ISA",
        aml.name("_ADR", aml.integer(0x10000)),
        aml.pci_region("PIRQ", 0x60, 4),
        aml.byte_fields("PIRQ", ["PRQA", "PRQB", "PRQC", "PRQD"]),
        part("RTC", "PNP0B00", aml.io(0x70, 2), aml.irq(8)),
        part("KBD", "PNP0303", aml.io(0x60, 1), aml.io(0x64, 1), aml.irq(1)),
        part("COM1", "PNP0501", aml.io(0x3F8, 8), aml.irq(4)),
    )


def dsdt_body() -> bytes:
    """Without the table header."""
    low, high = PCI_HOLE
    root = aml.resources(
        aml.bus_numbers(0, 255),
        aml.io(0xCF8, 8),
        aml.ports(0x0000, 0x0CF7),
        aml.ports(0x0D00, 0xFFFF),
        aml.memory(0xA0000, 0xBFFFF, cacheable=True),
        aml.memory(low, high),
    )
    pci = aml.device(
        "PCI0",
        aml.name("_HID", aml.eisa_id("PNP0A03")),
        aml.name("_UID", aml.integer(0)),
        aml.name("_CRS", root),
        aml.name("_PRT", _routing()),
        _isa(),
    )
    hpet = aml.device(
        "HPET",
        aml.name("_HID", aml.eisa_id("PNP0103")),
        aml.name("_CRS", aml.resources(aml.fixed_memory(layout.HPET, 0x400))),
    )
    links = b"".join(_link(i) for i in range(4))
    zero = aml.integer(0)
    return aml.scope("\\_SB", pci, hpet, links) + aml.name("\\_S5", aml.package(zero, zero, zero, zero))
