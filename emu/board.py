"""The devices of a machine: built, wired to their interrupt lines, and put on the buses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from emu import layout
from emu.bus import BusDevice, Mmio, Ports
from emu.busmaster import BusMaster
from emu.clock import Clock
from emu.configuration import MachineConfig, cpu_model, ide_places
from emu.devices.coprocessor import CoprocessorError
from emu.devices.debugports import DebugConsole, DebugExit, PostCode
from emu.devices.dma8237 import DmaPair
from emu.devices.fdc82077 import Fdc82077
from emu.devices.floppy_drive import format_of
from emu.devices.fwcfg import FwCfg
from emu.devices.i8042 import I8042
from emu.devices.ide import IdeChannel
from emu.devices.keyboard import Keyboard
from emu.devices.lpt import ParallelPort
from emu.devices.mouse import Mouse
from emu.devices.rtc146818 import Rtc, pc_nvram
from emu.devices.shared_ports import SharedPorts
from emu.devices.syscontrol import A20Gate, Port92, ResetControl, ResetFace
from emu.devices.uart16550 import Uart16550
from emu.devices.vga import Vga
from emu.devices.vga_memory import DisplayMemory
from emu.engine import Executor
from emu.irq import InterruptController, IntrPin
from emu.keeper import Keeper
from emu.memory import PhysicalMemory
from emu.outputs import Outputs
from emu.typed import TYPE_CHECKING, Any, Protocol
from emu.views import DeviceView

if TYPE_CHECKING:
    from emu.pc import PcChipset


class Device(Protocol):
    """What the machine needs of each device besides its bus face."""

    def save(self) -> Any: ...
    def restore(self, state: Any) -> None: ...
    def view(self) -> DeviceView: ...
    def reset(self) -> None: ...


class Orders(Protocol):
    """What devices ask of the machine that they are in."""

    def request_reset(self, kind: str) -> None: ...
    def power_off(self) -> None: ...
    def exit(self, code: int) -> None: ...


class Board:
    """An isapc's devices, or those of a pc with its `chipset`; `device_table` is what is saved and shown, by name."""

    def __init__(
        self,
        config: MachineConfig,
        clock: Clock,
        ports: Ports,
        mmio: Mmio,
        memory: PhysicalMemory,
        executor: Executor,
        pin: IntrPin,
        display: DisplayMemory,
        outputs: Outputs,
        orders: Orders,
        note: Callable[[str, Callable[[], str]], None],
        keeper: Keeper,
    ) -> None:
        """`note`: an event of a kind, and what makes its text. `keeper` makes interrupt controllers and timers."""
        self.shared_ports = SharedPorts(skipped=clock.skipped)
        clock.on_skip = self._skipped
        #: that of a pc reaches the CPU by way of the local APIC
        self.keeper = keeper
        self.pic = keeper.pic(pin, self.shared_ports if config.machine != "pc" else None)
        self.reset_control = ResetControl(orders.request_reset)
        irq: list[Callable[[bool], None]] = [partial(self.pic.set_irq, n) for n in range(16)]
        self.chipset: PcChipset | None = None
        if config.machine == "pc":
            from emu.pc import PcChipset  # a dozen modules that an isapc starts without

            self.chipset = PcChipset(
                clock, ports, mmio, memory, executor, pin, self.pic, self.reset_control, orders.power_off,
                partial(orders.request_reset, "cpu"), cpu_model(config), keeper, self.shared_ports,
            )  # fmt: skip
            irq = self.chipset.isa_irq
        bus = BusMaster(memory, mmio)
        self.dma = DmaPair(bus.read, bus.write)
        self.pit = keeper.pit(clock, irq[layout.IRQ_PIT], self.shared_ports)
        self.port61 = keeper.port61(self.pit, clock)
        nvram = pc_nvram(
            config.memory, disks=[d.sectors for d in config.disks[:2]], boot=config.boot,
            floppies=[format_of(disk).drive for disk in config.floppies],
        )  # fmt: skip
        self.rtc = Rtc(clock, irq[layout.IRQ_RTC], nvram)
        self.a20 = A20Gate(executor.set_a20)
        self.keyboard = Keyboard(clock)
        self.mouse = Mouse(clock)
        self.kbc = I8042(
            clock, irq[layout.IRQ_KEYBOARD], irq[layout.IRQ_MOUSE], self.a20.keyboard,
            partial(orders.request_reset, "cpu"), self.keyboard, self.mouse,
        )  # fmt: skip
        self.port92 = Port92(self.a20, orders.request_reset)
        self.coprocessor = CoprocessorError(irq[layout.IRQ_COPROCESSOR])

        def sends(name: str, sink: Callable[[bytes], None] | None) -> Callable[[int], None]:
            return lambda byte: outputs.sent(name, sink, bytes((byte,)))

        self.com1 = Uart16550(clock, irq[layout.IRQ_COM1], sends("serial", config.serial_out))
        # A kernel that waits for each of its messages to leave at 9600 baud would be busy with that for most of a boot.
        self.com1.immediate = True
        self.com1.transmit_all = partial(outputs.sent, "serial", config.serial_out)
        display.written = partial(memory.changed, "vga")
        self.vga = Vga(clock, display)
        mmio.map(layout.VGA_WINDOW, layout.VGA_WINDOW_SIZE, display, "vga", width=8, masters=True)
        self.com2 = Uart16550(clock, irq[layout.IRQ_COM2], sends("serial2", None), "com2")
        self.lpt1 = ParallelPort(clock, irq[layout.IRQ_LPT1], sends("parallel", config.parallel_out))
        (disks0, packet0), (disks1, packet1) = ide_places(config)
        self.ide = IdeChannel(clock, irq[layout.IRQ_IDE_PRIMARY], disks0, "ide0", packet0)
        self.ide1 = IdeChannel(clock, irq[layout.IRQ_IDE_SECONDARY], disks1, "ide1", packet1)
        self.fdc = Fdc82077(clock, irq[layout.IRQ_FDC], self.dma, config.floppies)
        self.debugcon = DebugConsole(partial(outputs.sent, "debugcon", config.debugcon_out))
        self.post = PostCode(self.shared_ports)
        self.debug_exit = DebugExit(orders.exit)
        #: the ATA channels by their first port
        self.channels = {layout.IDE_PRIMARY: self.ide, layout.IDE_SECONDARY: self.ide1}
        self._map(ports)
        if self.chipset is None:
            for first, count, face, name in keeper.besides():
                mmio.map(first, count, face, name, kept=True)
        self.device_table: dict[str, Device] = {
            "mouse": self.mouse, "com2": self.com2, "lpt1": self.lpt1, "dma": self.dma, "fdc": self.fdc,
            "ide1": self.ide1,
            "pic": self.pic, "pit": self.pit, "port61": self.port61, "rtc": self.rtc, "keyboard": self.keyboard,
            "kbc": self.kbc, "a20": self.a20, "port92": self.port92, "reset": self.reset_control, "com1": self.com1,
            "vga": self.vga, "ide0": self.ide, "debugcon": self.debugcon, "post": self.post,
            "debug-exit": self.debug_exit, "coprocessor": self.coprocessor,
        }  # fmt: skip
        self.fw_cfg = self._add_fw_cfg(config, ports)
        if (chipset := self.chipset) is not None:
            chipset.add_ide((self.ide, self.ide1))
            chipset.add_vga(self.vga)
            chipset.add_virtio(config.virtio)
            ports.map(layout.ELCR, 2, keeper.ports(layout.ELCR, self.pic.elcr), "elcr", kept=keeper.hypervisor)
            self.device_table.update(chipset.device_table)
        #: what the built-in BIOS waits for at a linear address (BiosServices.awaits)
        self.awaits: Callable[[int], str | None] = lambda linear: None
        if config.bios:
            self._add_bios(config, clock, ports, bus, BusMaster(memory, mmio, registers=True), partial(note, "bios"))
        self._forget_edges()

    def reset(self) -> None:
        """RESET for all devices."""
        for device in self.device_table.values():
            device.reset()
        self._forget_edges()

    def power_on(self) -> None:
        """All devices as built, what RESET leaves alone among it."""
        kept = self.rtc, self.com1, self.com2
        for device in self.device_table.values():
            if device not in kept:
                device.reset()
        for one in kept:
            one.power_on()
        self._forget_edges()

    def _forget_edges(self) -> None:
        """Behind all devices: that a line comes to its level at power-on is nothing that anybody has asked for."""
        self.pic.forget_edges()
        if self.chipset is not None:
            self.chipset.ioapic.forget_edges()

    def _skipped(self, skipped: int) -> None:
        self.shared_ports.skipped = skipped

    def _map(self, ports: Ports) -> None:
        """Put the devices' ports on the bus: first port, how many, the device's face, its name, the widest access."""
        faces: list[tuple[int, int, BusDevice, str, int]] = [
            (layout.DMA_LOW, 16, self.dma.low, "dma", 1),
            (layout.DMA_PAGES, 15, self.dma.pages, "dma", 1),
            (layout.DMA_HIGH, 32, self.dma.high, "dma", 1),
            (layout.KBC_DATA, 1, self.kbc.data, "kbc", 1),
            (layout.KBC_COMMAND, 1, self.kbc.command, "kbc", 1),
            (layout.SYSTEM_CONTROL_A, 1, self.port92, "port92", 1),
            (layout.COPROCESSOR_ERROR, 1, self.coprocessor, "coprocessor", 1),
            (layout.FERR, 1, self.coprocessor.cpu, "coprocessor", 1),
            (layout.COM1, 8, self.com1, "com1", 1),
            (layout.COM2, 8, self.com2, "com2", 1),
            (layout.LPT1, 3, self.lpt1, "lpt1", 1),
            (layout.VGA_MONO_CRTC, 0x3E0 - layout.VGA_MONO_CRTC, self.vga, "vga", 1),
            (layout.VBE_PORTS, 4, self.vga.vbe, "vbe", 2),
            (layout.IDE_PRIMARY, 8, self.ide, "ide0", 4),
            (layout.IDE_PRIMARY_CONTROL, 1, self.ide.control, "ide0", 1),
            (layout.IDE_SECONDARY, 8, self.ide1, "ide1", 4),
            (layout.IDE_SECONDARY_CONTROL, 1, self.ide1.control, "ide1", 1),
            (layout.FDC, 4, self.fdc.registers, "fdc", 1),
            (layout.FDC_CHANGE, 1, self.fdc.change, "fdc", 1),
            (layout.DEBUGCON_BOCHS, 1, self.debugcon, "debugcon", 1),
            (layout.DEBUGCON_SEABIOS, 1, self.debugcon, "debugcon", 1),
            (layout.POST_CODE, 1, self.post, "post", 1),
            (layout.DEBUG_EXIT, 1, self.debug_exit, "debug-exit", 4),
        ]
        for first, count, face, name, width in faces:
            ports.map(first, count, face, name, width=width)
        kept: list[tuple[int, int, BusDevice, str]] = [
            (layout.PIC_MASTER, 2, self.pic.master, "pic"),
            (layout.PIC_SLAVE, 2, self.pic.slave, "pic"),
            (layout.PIT, 4, self.pit, "pit"),
            (layout.PORT_61, 1, self.port61, "port61"),
        ]
        for first, count, face, name in kept:
            ports.map(first, count, self.keeper.ports(first, face), name, kept=self.keeper.hypervisor)
        ports.map(layout.RTC, 2, self.keeper.rtc(self.rtc), "rtc", kept=self.keeper.has_rtc)
        if self.chipset is None:
            ports.map(layout.RESET_CONTROL - 1, 4, ResetFace(self.reset_control), "reset", width=4)

    def _add_fw_cfg(self, config: MachineConfig, ports: Ports) -> FwCfg | None:
        """A pc has it always, an isapc where there are files for its firmware."""
        if self.chipset is not None:
            from emu.pc import pc_files

            fw_cfg = FwCfg({**pc_files(config.memory), **config.fw_cfg}, memory=self.chipset.dma)
        elif config.fw_cfg:
            fw_cfg = FwCfg(config.fw_cfg)
        else:
            return None
        self.device_table["fw_cfg"] = fw_cfg
        ports.map(layout.FW_CFG, 2, fw_cfg, "fw_cfg", width=2)
        if fw_cfg.dma is not None:
            ports.map(layout.FW_CFG_DMA, 8, fw_cfg.dma, "fw_cfg-dma", width=4)
        return fw_cfg

    def _add_bios(
        self,
        config: MachineConfig,
        clock: Clock,
        ports: Ports,
        bus: BusMaster,
        cpu: BusMaster,
        note: Callable[[Callable[[], str]], None],
    ) -> None:
        # Most of the machines that tests build have another firmware.
        from emu.firmware.bios.device import BiosServices
        from emu.firmware.bios.hardware import Hardware

        hardware = Hardware(
            bus.read, bus.write, cpu.read, cpu.write, lambda: self.a20.enabled, ports.port_in, ports.port_out,
            lambda: clock.now, note, self.vga.memory, self.fdc.drives, [*config.disks, *config.virtio],
            [(2 * n + cd.index, cd) for n, channel in enumerate((self.ide, self.ide1)) for cd in channel.cdroms],
            config.memory, self.chipset is not None, len(config.disks),
        )  # fmt: skip
        bios = self.device_table["bios"] = BiosServices(hardware)
        self.awaits = bios.awaits
        ports.map(layout.BIOS_SERVICE, 4, bios, "bios", width=4)

    @property
    def controller(self) -> InterruptController:
        """What drives the CPU's INTR."""
        return self.keeper.controller(self.pic if self.chipset is None else self.chipset.lapic)

    @property
    def deaf(self) -> bool:
        """Every interrupt is masked at the controllers, so that no device can ever wake a halted CPU. False where a
        hypervisor has them whose time is not the machine's."""
        if not self.keeper.foreseen:
            return False
        return self.pic.deaf and (self.chipset is None or self.chipset.deaf())

    def holds_back(self, timer: str) -> bool:
        """`timer`, by its name on the clock, ticks for ever, and no tick can wake a halted CPU: until the guest
        accesses the interrupt controllers, its interrupt is held back there: by a mask, by what is in service, or by
        the local APIC's priority. False where a hypervisor has them whose time is not the machine's."""
        if not self.keeper.foreseen:
            return False
        if self.chipset is not None:
            return self.chipset.holds_back(timer)
        irq = layout.TICKING.get(timer)
        return irq is not None and self.pic.holds_back(irq)

    @property
    def priority(self) -> str:
        """Which priority of the local APIC holds interrupts back, in words; empty: none does, or it is not known."""
        if self.chipset is None or not self.keeper.foreseen:
            return ""
        return self.chipset.lapic.priority_words
