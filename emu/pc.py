"""The chipset of `--machine pc`: PCI bus 0 with i440FX, PIIX3 and PIIX4 functions, what its registers put where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from emu import layout
from emu.bus import Mmio, Ports
from emu.busmaster import BusMaster, PciMaster
from emu.clock import Clock
from emu.devices.busmaster_ide import IdeFunction
from emu.devices.hpet import Hpet
from emu.devices.i440fx import HostBridge, Segment
from emu.devices.ide import IdeChannel
from emu.devices.pci import BAR0, COMMAND, IO_SPACE, MEMORY_SPACE, Bar, PciFunction, PciHost
from emu.devices.pic8259 import Pic8259Pair
from emu.devices.piix3 import PIRQRC, IsaBridge
from emu.devices.piix4_pm import PM_SIZE, PMBA, PMREGMISC, SMB_SIZE, PowerManagement
from emu.devices.shared_ports import SharedPorts
from emu.devices.syscontrol import ResetControl
from emu.devices.vga import Vga
from emu.devices.vga_pci import REGISTERS, VgaFunction
from emu.devices.virtio_blk import VirtioBlk
from emu.engine import Executor
from emu.firmware.acpi import acpi_files, e820_file
from emu.irq import IntrPin
from emu.keeper import Keeper
from emu.media import Disk
from emu.memory import Kind, Part, PhysicalMemory, Place, Region
from emu.smm import SystemManagement
from emu.x86.cpuid import LM, CpuModel

SHADOW, SMRAM, DISPLAY, ROM_LOW, OPTION = "shadow", "smram", "vga", "firmware-low", "option-rom"
VGA_ROM = "vga-rom"
FLOATING = "floating"  #: what an address gives that nobody answers, where only writes go somewhere

VGA_DEVICE, VIRTIO_FIRST = 2, 3  #: PCI device numbers of the VGA and of the first virtio disk
PIRQ_IRQS = (10, 10, 11, 11)  #: where `set_up` routes PIRQA# to PIRQD#


def pc_parts(memory: int, firmware: bytes, option_roms: bytes, vga_rom: bytes = b"") -> list[Part]:
    """RAM of `memory` bytes, the firmware (whole pages, if any) at the top and, its last 128 KiB, below 1 MiB, the
    option ROMs at C0000h; DRAM behind both for the PAM registers. The frame buffer and the VGA BIOS stand where BARs
    say."""
    low = firmware[-layout.BIOS_LOW_MAX :]
    options = option_roms + b"\xff" * (-len(option_roms) % 0x4000)
    return [
        Part(0, layout.CONVENTIONAL_END, "ram", "conventional"),
        Part(layout.VGA_WINDOW, layout.VGA_WINDOW_SIZE, "ram", SMRAM, mapped=False),
        Part(layout.SHADOW_BASE, layout.BIOS_LOW_END - layout.SHADOW_BASE, "ram", SHADOW, mapped=False),
        Part(layout.SHADOW_BASE, 0x10000, "rom", FLOATING, b"\xff" * 0x10000, mapped=False),
        *([Part(layout.OPTION_ROM_BASE, len(options), "rom", OPTION, options)] if options else []),
        *([Part(layout.BIOS_LOW_END - len(low), len(low), "rom", ROM_LOW, low)] if low else []),
        *([Part(1 << 20, memory - (1 << 20), "ram", "extended")] if memory > 1 << 20 else []),
        Part(layout.VGA_FRAME_BUFFER, layout.VGA_MEMORY, "ram", DISPLAY, mapped=False),
        *(
            [Part(layout.VGA_FRAME_BUFFER, _rom_size(vga_rom), "rom", VGA_ROM, vga_rom, mapped=False)]
            if vga_rom
            else []
        ),
        *([Part(layout.RESET_TOP - len(firmware), len(firmware), "rom", "firmware", firmware)] if firmware else []),
    ]


def _rom_size(rom: bytes) -> int:
    """A power of two of whole pages, for a BAR; 0 without a ROM."""
    return max(0x1000, 1 << (len(rom) - 1).bit_length()) if rom else 0


def pc_files(memory: int) -> dict[str, bytes]:
    """What fw_cfg has for a firmware: the memory map and the ACPI tables."""
    return {"etc/e820": e820_file(memory), **acpi_files()}


class PcChipset:
    """`isa_irq[n]` is what ISA devices drive IRQ n by; the local APIC is what drives the CPU's INTR."""

    def __init__(
        self,
        clock: Clock,
        ports: Ports,
        mmio: Mmio,
        memory: PhysicalMemory,
        executor: Executor,
        pin: IntrPin,
        pic: Pic8259Pair,
        reset_control: ResetControl,
        power_off: Callable[[], None],
        init: Callable[[], None],
        model: CpuModel,
        keeper: Keeper,
        shared: SharedPorts,
    ) -> None:
        """`init`: INIT for the CPU, which is a `model`. `keeper` makes the APICs. `shared` is what an engine may answer
        by."""
        self._ports, self._mmio, self._memory, self._executor, self._clock = ports, mmio, memory, executor, clock
        self._initial = memory.regions
        self._stale = False
        self._shown: list[tuple[int, Bar]] = []  # the BARs with memory behind them
        masters = BusMaster(memory, mmio)
        self.dma = PciMaster(masters)
        self.host = PciHost(reset_control)
        self.bridge = HostBridge(self._remap)
        self._keeper = keeper
        self.lapic = keeper.lapic(clock, pin, executor.time_stamp, model)
        for number in self.lapic.msrs:
            executor.claim_msr(number, self.lapic)
        executor.on_time_stamp(self.lapic.timer.time_set)
        self.ioapic = keeper.ioapic(pin, self.lapic.send)
        self.lapic.pic, self.lapic.on_eoi = pic, self.ioapic.end_of_interrupt
        self.lapic.io_extint = lambda: self.ioapic.extint
        self.lapic.on_base, self.lapic.on_init = self._decode, init
        self.lapic.on_nmi, pin.before_update = executor.raise_nmi, self.lapic.sample
        self.lapic.on_task_priority = executor.set_task_priority
        executor.on_task_priority(self.lapic.set_task_priority)
        self.smm = SystemManagement(executor, masters, self._smm, long_mode=bool(model.edx8 & LM))
        self._pic = pic
        self.isa = IsaBridge(self._irq)
        self.isa_irq = [self.isa.isa_line(n) for n in range(16)]
        self.lapic.on_smi = self.smm.smi
        self.hpet = Hpet(clock, self.ioapic.set_irq, (self.isa_irq[0], self.isa_irq[8]), shared, keeper.timer_replaced)
        self.isa_irq[0], self.isa_irq[8] = self.hpet.displaced(0), self.hpet.displaced(1)
        self.pm = PowerManagement(clock, self.isa_irq[layout.IRQ_SCI], power_off, self._decode, self.smm.smi)
        self.ide: IdeFunction | None = None
        self.functions: dict[str, PciFunction] = {}
        self.add(0, 0, self.bridge)
        self.add(1, 0, self.isa)
        self.add(1, 3, self.pm, wired=False)
        face = keeper.memory(layout.IOAPIC, self.ioapic)
        mmio.map(layout.IOAPIC, 0x20, face, "ioapic", kept=keeper.hypervisor)
        mmio.map(layout.HPET, 0x400, self.hpet, "hpet", width=8)
        self._decode()
        ports.map(layout.PCI_CONFIG, 8, self.host, "pci", width=4)
        ports.map(layout.APM_CONTROL, 2, self.pm.apm, "apm")

    def _irq(self, n: int, level: bool) -> None:
        """An ISA line, at both kinds of controllers: the 8254 is on input 2 of the I/O APIC (MP 1.4, table 5-1)."""
        self._pic.set_irq(n, level)
        if n != 2:
            self.ioapic.set_irq(n or 2, level)

    def unmaskable(self) -> bool:
        """An interrupt line may wake the CPU whatever IF says: an APIC makes it NMI, SMI or INIT."""
        return self.lapic.unmaskable or self.ioapic.unmaskable

    def deaf(self) -> bool:
        """No device's interrupt can reach the CPU through the APICs but by the 8259 until the guest unmasks one."""
        return self.ioapic.deaf and (self.lapic.deaf or not self.lapic.enabled)

    def holds_back(self, timer: str) -> bool:
        """See Board."""
        if timer == "lapic":
            return self.lapic.timer_held_back
        irq = layout.TICKING.get(timer)
        if irq is not None:
            n = irq or 2
        elif timer.startswith("hpet."):
            irq, n = self.hpet.line(int(timer[5:]))
        else:
            return False
        message = self.ioapic.ahead(n)
        if message is not None and not self.lapic.ignores(message):
            return False
        shut = self.lapic.shuts_lint0 and not self.ioapic.hands_through  # the 8259 is not heard
        return irq is None or shut or self._pic.holds_back(irq)

    def add(self, device: int, function: int, chip: PciFunction, *, wired: bool = True) -> None:
        """Put a function on the bus. `wired`: its INTx pin reaches the PIRQ lines."""
        self.host.add(device, function, chip)
        self.functions[chip.name] = chip
        chip.on_map = self._decode
        pin = chip.config[0x3D]
        if wired and pin:
            chip.on_intx = self.isa.pci_line(device, pin)

    def add_ide(self, channels: Sequence[IdeChannel | None]) -> IdeFunction:
        """The IDE function over the channels that are there."""
        self.ide = IdeFunction(self.dma, channels)
        self.add(1, 1, self.ide, wired=False)
        return self.ide

    def add_vga(self, vga: Vga) -> None:
        """The display's PCI function."""
        rom = len(self._memory.part(VGA_ROM)) if VGA_ROM in self._memory.parts else 0
        self.vga = VgaFunction(vga, DISPLAY, layout.VGA_MEMORY, VGA_ROM, rom)
        self.add(VGA_DEVICE, 0, self.vga)

    def add_virtio(self, disks: Sequence[Disk]) -> None:
        """A virtio block device for each, where QEMU's pc puts the first of its own without a network card."""
        for number, disk in enumerate(disks):
            self.add(VIRTIO_FIRST + number, 0, VirtioBlk(self._clock, self.dma, disk, number))

    @property
    def device_table(self) -> dict[str, Any]:
        """What is saved and shown, by name."""
        return {
            "lapic": self.lapic, "ioapic": self.ioapic, "hpet": self.hpet, "pci": self.host, "smm": self.smm,
            **self.functions,
        }  # fmt: skip

    def set_up(self) -> None:
        """The registers as a firmware leaves them to an operating system, where none runs: PM ports where the FADT
        has them, PIRQ lines at two level triggered IRQs, the 8259 and NMI by way of the local APIC (MultiProcessor
        Specification 1.4, 3.6.2.2, virtual wire mode)."""
        self.pm.config_write(PMBA, layout.ACPI_PM, 4)
        self.pm.config_write(PMREGMISC, 1, 1)
        for pirq, irq in enumerate(PIRQ_IRQS):
            self.isa.config_write(PIRQRC + pirq, irq, 1)
            self._pic.elcr.write(irq >> 3, self._pic.elcr.peek(irq >> 3, 1) | 1 << (irq & 7), 1)
        self.vga.config_write(BAR0, layout.VGA_FRAME_BUFFER, 4)
        self.vga.config_write(BAR0 + 4 * REGISTERS, layout.VGA_FRAME_BUFFER + layout.VGA_MEMORY, 4)
        self.vga.config_write(COMMAND, IO_SPACE | MEMORY_SPACE, 2)
        self.apply()
        self.lapic.virtual_wire()

    # -- what stands where

    def _remap(self) -> None:
        """PAM or SMRAM have changed: the map follows before the next instruction."""
        self._stale = True
        self._executor.request_stop()

    def _smm(self, inside: bool) -> None:
        """The CPU has entered or left system management mode, between two runs."""
        self.bridge.set_smm(inside)
        self.apply()

    def _decode(self) -> None:
        """A BAR has changed. Ports and MMIO follow at once, as no instruction fetches from there."""
        memory = [(window.base, window.bar) for window in self.host.windows() if window.bar.memory]
        if memory != self._shown:
            self._shown = memory
            self._remap()
        self._ports.release_claims()
        self._mmio.release_claims()
        if (apic := self.lapic.mmio_base) is not None:
            face = self._keeper.memory(apic, self.lapic)
            self._mmio.claim(apic, 0x1000, face, "lapic", kept=self._keeper.hypervisor)
        for window in self.host.windows():
            bar = window.bar
            if bar.face is not None:
                bus = self._ports if bar.io else self._mmio
                bus.claim(window.base, bar.size, bar.face, window.name, bar.width)
        if (base := self.pm.pm_base) is not None:
            self._ports.claim(base, PM_SIZE, self.pm.pm, "piix4-pm", width=4)
        if (base := self.pm.smbus_base) is not None:
            self._ports.claim(base, SMB_SIZE, self.pm.smbus, "piix4-smbus")

    def apply(self) -> None:
        """Put RAM and ROM where the registers say. Not while the engine runs."""
        if not self._stale:
            return
        self._stale = False
        before = self._memory.regions
        self._memory.place(self._places())
        if self._memory.regions != before:
            self._executor.remap(self._memory.regions)

    def _places(self) -> list[Place]:
        low, end = layout.VGA_WINDOW, layout.BIOS_LOW_END
        outside = [r for r in self._initial if not low <= r.base < end]
        roms = [r for r in self._initial if layout.SHADOW_BASE <= r.base < end]
        places = [Place(r.base, r.size, r.name, r.kind) for r in outside]
        if self.bridge.smram:
            places.append(Place(low, layout.VGA_WINDOW_SIZE, SMRAM, "ram"))
        for segment in self.bridge.segments():
            skip = segment.base - layout.SHADOW_BASE
            if segment.read:
                kind: Kind = "ram" if segment.write else "rom"
                places.append(Place(segment.base, segment.size, SHADOW, kind, skip))
            else:
                places += _rom_places(roms, segment)
        for base, bar in self._shown:
            for first, size in self._free(base, bar.size, places):
                places.append(Place(first, size, bar.memory, "rom" if bar.rom else "ram", first - base))
        return places

    def _free(self, base: int, size: int, places: Sequence[Place]) -> Iterator[tuple[int, int]]:
        """What of a range nothing else answers: RAM, ROM and the chipset's registers come first."""
        taken = [(p.base, p.base + p.size) for p in places]
        taken += [(r.first & ~0xFFF, -(-(r.first + r.count) // 0x1000) * 0x1000) for r in self._mmio.ranges]
        if (apic := self.lapic.mmio_base) is not None:
            taken.append((apic, apic + 0x1000))
        at, end = base, base + size
        for first, last in sorted(taken):
            if first < end and last > at:
                if first > at:
                    yield at, first - at
                at = max(at, last)
        if at < end:
            yield at, end - at


def _rom_places(roms: Sequence[Region], segment: Segment) -> list[Place]:
    """Where PCI answers the reads of a segment: the ROMs in it. Where there is none a read gives all ones. DRAM may
    take the writes."""
    found, at, end = [], segment.base, segment.base + segment.size
    for rom in [*(r for r in roms if r.base < end and r.base + r.size > at), None]:
        first = end if rom is None else max(at, rom.base)
        if segment.write and at < first:
            found.append(Place(at, first - at, FLOATING, "rom", 0, (SHADOW, at - layout.SHADOW_BASE)))
        if rom is not None:
            at = min(end, rom.base + rom.size)
            writes = (SHADOW, first - layout.SHADOW_BASE) if segment.write else None
            found.append(Place(first, at - first, rom.name, "rom", first - rom.base, writes))
    return found
