"""The interrupt controllers, maps and devices in the text form of QEMU's monitor, for scripts that read that.

The forms are those of QEMU 7.2: `info pic`, `info lapic`, `info irq`, `info mtree` and `info qtree`. The tests compare
them with a running QEMU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from emu.devices import ioapic, lapic
from emu.devices.pci import CLASS, DEVICE, VENDOR, PciFunction
from emu.devices.pic8259_chip import ICW4_SFNM, Chip
from emu.views import DeviceView, FieldView, RegionView

_LVT = (
    ("LVT0", lapic.LINT0),
    ("LVT1", lapic.LINT1),
    ("LVTPC", lapic.PERFORMANCE),
    ("LVTERR", lapic.ERROR),
    ("LVTTHMR", lapic.THERMAL),
    ("LVTT", lapic.TIMER),
)
_MODES = ("Fixed", "...", "SMI", "...", "NMI", "INIT", "...", "ExtINT")
_PIN_MODES = ("fixed", "lowest", "SMI", "...", "NMI", "INIT", "...", "extINT")
_TIMER_MODES = ("one-shot", "periodic", "tsc-deadline", "one-shot")
_SHORTHANDS = ("no-shorthand", "self", "all-self", "all")
_CLASSES = {
    0x0100: "SCSI controller",
    0x0101: "IDE controller",
    0x0300: "VGA controller",
    0x0600: "Host bridge",
    0x0601: "ISA bridge",
    0x0680: "Bridge",
}
#: Bits of an LVT entry, the ICR and a redirection entry.
_PENDING, _ASSERT, _LOW, _LEVEL, _MASKED, _LOGICAL = 1 << 12, 1 << 14, 1 << 13, 1 << 15, 1 << 16, 1 << 11
_ALL = (1 << 64) - 1


def pic_text(pair: Sequence[Chip]) -> str:
    """The slave, then the master."""
    lines = []
    for name, chip in (("pic1", pair[1]), ("pic0", pair[0])):
        s = chip.state
        lines.append(
            f"{name}: irr={chip.irr:02x} imr={s.imr:02x} isr={s.isr:02x} hprio={s.lowest + 1 & 7} "
            f"irq_base={s.icw2 & 0xF8:02x} rr_sel={s.read_isr:d} elcr={s.elcr:02x} "
            f"fnm={bool(s.icw4 & ICW4_SFNM):d}"
        )
    return "\n".join(lines)


def ioapic_text(state: ioapic.State) -> str:
    """The redirection table, and which inputs ask or wait for an EOI."""
    select = f"0x{state.select:02x}"
    if state.select >= ioapic.TABLE:
        select += f" (redir[{state.select - ioapic.TABLE >> 1}])"
    lines = [f"ioapic0: ver=0x{ioapic.VERSION & 0xFF:x} id=0x{state.id:02x} sel={select}"]
    for n, entry in enumerate(state.entries):
        logical = bool(entry & _LOGICAL)
        lines.append(
            f"  pin {n:<2} 0x{entry:016x} dest={entry >> 56 & (0xFF if logical else 0xF):x} vec={entry & 0xFF:<3} "
            f"{_polarity(entry)} {_trigger(entry):<5} {'masked' if entry & _MASKED else '':<6} "
            f"{_PIN_MODES[entry >> 8 & 7]:<6} {'logical' if logical else 'physical'}"
        )
    waiting = [n for n, entry in enumerate(state.entries) if state.inputs >> n & 1 and entry & _LEVEL]
    remote = [n for n, entry in enumerate(state.entries) if entry & ioapic.REMOTE_IRR]
    return "\n".join((*lines, f"  IRR      {_numbers(waiting)}", f"  Remote IRR {_numbers(remote)}"))


def lapic_text(state: lapic.State, current: int, divisor: int, ppr: int) -> str:
    """`current`, `divisor` and `ppr` are the timer's count and divisor, and the processor priority now."""
    s = state
    lines = ["dumping local APIC state for CPU 0 ", ""]
    for name, which in _LVT:
        entry = s.lvt[which]
        mode = entry >> 8 & 7
        timer = _TIMER_MODES[entry >> 17 & 3] if which == lapic.TIMER else ""
        line = (
            f"{name}\t 0x{entry:08x} {_polarity(entry)} {_trigger(entry):<5} {'masked' if entry & _MASKED else '':<6} "
            f"{'pending' if entry & _PENDING else '':<7} {timer:<12} {_MODES[mode]:<6}"
        )
        lines.append(line if mode == lapic.NMI else f"{line} (vec {entry & 0xFF})")
    enabled = "enabled" if s.svr & lapic.SOFTWARE_ENABLE else "disabled"
    icr, shorthand = s.icr & 0xFFFFFFFF, s.icr >> 18 & 3
    lines += [
        f"Timer\t DCR=0x{s.timer.divide:x} (divide by {divisor}) initial_count = {s.timer.initial} "
        f"current_count = {current}",
        f"SPIV\t 0x{s.svr:08x} APIC {enabled}, focus={'on' if s.svr & 0x200 else 'off'}, spurious vec {s.svr & 0xFF}",
        f"ICR\t 0x{icr:08x} {'logical' if icr & _LOGICAL else 'physical'} {_trigger(icr)} "
        f"{'assert' if icr & _ASSERT else 'de-assert'} {_SHORTHANDS[shorthand]}",
        f"ICR2\t 0x{s.icr >> 32:08x}{'' if shorthand else _destination(s)}",
        f"ESR\t 0x{s.esr:08x}",
        f"ISR\t {_vectors(s.isr, s.tmr)}",
        f"IRR\t {_vectors(s.irr, s.tmr)}",
        "",
        f"APR 0x00 TPR 0x{s.tpr:02x} DFR 0x{s.dfr >> 28:02x} LDR 0x{s.ldr >> 24:02x}{_cluster(s)} PPR 0x{ppr:02x}",
    ]
    return "\n".join(lines)


def irq_text(counts: Iterable[tuple[str, Sequence[int]]]) -> str:
    """How often each line of each controller was raised since reset; lines that never were are left out."""
    lines = []
    for name, raised in counts:
        lines.append(f"IRQ statistics for {name}:")
        lines += [f"{n:2}: {count}" for n, count in enumerate(raised) if count]
    return "\n".join(lines)


def mtree_text(memory: Iterable[RegionView], ports: Iterable[RegionView]) -> str:
    """The two address spaces; what is mapped over something else is listed behind it."""
    lines = ["address-space: memory", f"  {0:016x}-{_ALL:016x} (prio 0, i/o): system"]
    lines += [f"    {_range(r)} (prio 0, {r.kind if r.kind in ('ram', 'rom') else 'i/o'}): {r.name}" for r in memory]
    lines += ["", "address-space: I/O", f"  {0:016x}-{0xFFFF:016x} (prio 0, i/o): io"]
    lines += [f"    {_range(r)} (prio 0, i/o): {r.name}" for r in ports]
    return "\n".join((*lines, ""))


def qtree_text(devices: Sequence[DeviceView], pci: Mapping[tuple[int, int], PciFunction]) -> str:
    """All devices: those of PCI bus 0 by their (device, function), the rest on the ISA bus. Each register is a
    property."""
    functions = {chip.name for chip in pci.values()}
    views = {view.name: view for view in devices}
    isa = [view for view in devices if view.name not in functions]
    lines = ["bus: main-system-bus", "  type System"]
    depth = 2
    if pci:
        lines += ['  dev: i440FX-pcihost, id ""', "    bus: pci.0", "      type PCI"]
        for (device, function), chip in sorted(pci.items()):
            lines += [*_device(views[chip.name], 6, f"addr = {device:02x}.{function}")]
            lines += [f"{' ' * 8}{line}" for line in _pci_lines(chip, f"00:{device:02x}.{function}")]
        depth = 6
    lines += [
        f'{" " * depth}dev: isabus-bridge, id ""',
        f"{' ' * depth}  bus: isa.0",
        f"{' ' * depth}    type ISA",
    ]
    for view in isa:
        lines += _device(view, depth + 4)
    return "\n".join(lines)


def _pci_lines(chip: PciFunction, address: str) -> list[str]:
    """Class and IDs, and the BARs that are decoded now."""
    kind = chip.word(CLASS + 1)
    ids = f"{chip.word(VENDOR):04x}:{chip.word(DEVICE):04x} (sub {chip.word(0x2C):04x}:{chip.word(0x2E):04x})"
    lines = [f"class {_CLASSES.get(kind, f'Class {kind:04x}')}, addr {address}, pci id {ids}"]
    bases = {window.bar: window.base for window in chip.windows()}
    for index, bar in chip.bars.items():
        if bar in bases:
            space, base = "i/o" if bar.io else "mem", bases[bar]
            lines.append(f"bar {index}: {space} at 0x{base:x} [0x{base + bar.size - 1:x}]")
    return lines


def _device(view: DeviceView, depth: int, *more: str) -> list[str]:
    indent = " " * depth
    lines = [f'{indent}dev: {view.name}, id ""', *(f"{indent}  {line}" for line in more)]
    return lines + [f"{indent}  {field.name} = {_property(field)}" for field in view.fields]


def _property(field: FieldView) -> str:
    """As QEMU's properties are printed: true and false, numbers with their hexadecimal, text in quotes."""
    value = field.value
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value} (0x{value:x})" if isinstance(value, int) else f'"{value}"'


def _range(region: RegionView) -> str:
    return f"{region.first:016x}-{region.last:016x}"


def _polarity(entry: int) -> str:
    return "active-lo" if entry & _LOW else "active-hi"


def _trigger(entry: int) -> str:
    return "level" if entry & _LEVEL else "edge"


def _numbers(found: Sequence[int]) -> str:
    return " ".join(map(str, found)) or "(none)"


def _vectors(mask: int, level: int) -> str:
    """Vectors of a 256-bit mask; those that are level triggered say so."""
    return "".join(f"{n}{'(level)' if level >> n & 1 else ''} " for n in range(256) if mask >> n & 1) or "(none)"


def _destination(s: lapic.State) -> str:
    """Of an ICR without shorthand."""
    to = s.icr >> 56
    if not s.icr & _LOGICAL:
        return f" cpu {to} (X2APIC ID)" if s.base & lapic.X2APIC else f" cpu {to} (APIC ID)"
    if s.dfr >> 28 == 15:
        return f" mask {to:08b} (APIC ID)"
    return f" cluster {to >> 4} mask {to & 15:04b} (APIC ID)"


def _cluster(s: lapic.State) -> str:
    ldr = s.ldr >> 24
    return f" (cluster {ldr >> 4}: id {ldr & 15})" if s.dfr >> 28 == 0 else ""
