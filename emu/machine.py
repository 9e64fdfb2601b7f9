"""The PC: builds memory, buses, devices and an engine, runs them together, saves and restores the whole."""

from __future__ import annotations

import ctypes
import enum
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from emu import layout
from emu.bus import Mmio, Ports
from emu.busmaster import BusMaster
from emu.clock import NS_PER_INSTRUCTION, Clock, ClockState
from emu.devices.debugports import DebugConsole, DebugExit, PostCode
from emu.devices.dma8237 import DmaPair
from emu.devices.fdc82077 import Fdc82077
from emu.devices.floppy_drive import LARGEST, format_of
from emu.devices.fwcfg import FwCfg
from emu.devices.i8042 import I8042
from emu.devices.ide import IdeChannel
from emu.devices.keyboard import Keyboard, UnknownKey
from emu.devices.lpt import ParallelPort
from emu.devices.mouse import Mouse, UnknownAction
from emu.devices.pic8259 import Pic8259Pair
from emu.devices.pit8254 import Pit8254, Port61, instant_of, pulses_at
from emu.devices.rtc146818 import Rtc, pc_nvram
from emu.devices.syscontrol import A20Gate, Port92, ResetControl, ResetFace
from emu.devices.uart16550 import Uart16550
from emu.devices.uart16550_registers import LSR, LSR_ERRORS
from emu.devices.vga import Vga
from emu.devices.vga_memory import DisplayMemory
from emu.engine import CheckLevel, Executor, Exit, ExitReason, Fault, SharedDisplay
from emu.firmware.payload import Payload
from emu.irq import IntrPin
from emu.journal import Journal
from emu.media import SECTOR, Disk
from emu.memory import Kind, Part, PhysicalMemory
from emu.pages import Pages
from emu.picture import picture
from emu.screen import screen_view
from emu.subject import MemoryUnavailable
from emu.views import DeviceView, FingerprintView, PictureView, RegionView, ScreenView
from emu.x86.cpuid import DEFAULT_MODEL, MODELS
from emu.x86.msrs import TSC_ADJUST
from emu.x86.state import CR0_CACHE, CpuState

COM1_LSR = layout.COM1 + LSR
#: Port B, RTC index (floating), keyboard status, port A, COM1's line status, fw_cfg's data, the VGA's status. A read
#: has no side effect but to advance fw_cfg's and to clear errors of the line, none at the second time, and what it
#: gives changes only by writes to ports, by reads of others that have effects, by timers and, that of port B and of
#: the VGA, with virtual time.
POLLED = frozenset(
    (
        layout.PORT_61, layout.RTC, layout.KBC_COMMAND, layout.SYSTEM_CONTROL_A, COM1_LSR, layout.FW_CFG + 1,
        layout.VGA_STATUS,
    )
)  # fmt: skip
#: Status and data ports of ATA channels, and the channel's base. The alternate status has no side effect; the status
#: none when INTRQ is clear.
IDE_STATUS = 7
IDE_POLLED = {
    port: base
    for base, control in (
        (layout.IDE_PRIMARY, layout.IDE_PRIMARY_CONTROL),
        (layout.IDE_SECONDARY, layout.IDE_SECONDARY_CONTROL),
    )
    for port in (base, base + IDE_STATUS, control)
}
#: Sizes of accesses to the data port that move words: Executor.stream_input.
WORDS = 2 | 4
#: Devices tick for ever while every interrupt is masked; only the alarm clock is slower than this.
IDLE_LIMIT_NS = 3600 * 1_000_000_000
MAX_DISKS = 4  #: drives of both IDE channels, CD-ROM drives included
MAX_FLOPPIES = 2
RDX = 2  #: in CpuState.regs
OUTPUT_KEPT = 1 << 20  #: characters of each console's output kept for views and matching


class MachineError(Exception):
    """One sentence: what cannot be built or restored, and why."""


@dataclass(slots=True)
class MachineConfig:
    """What a machine is built from. `memory` is RAM in bytes, whole MiB. `firmware` is a ROM image whose last byte is
    at 4 GiB - 1; with `shadow` its low copy (below 1 MiB) and the option ROMs are writable, as on QEMU's isapc.

    `option_roms` stand at C0000h from the start; `fw_cfg` files are handed to a firmware that asks for them
    (SeaBIOS clears C0000h and deploys "vgaroms/*" and "genroms/*" itself). Without any the device is absent.
    `payload` takes the firmware's place: it is in memory, and the CPU in its state, after each reset."""

    memory: int = 64 << 20
    firmware: bytes = b""
    payload: Payload | None = None
    shadow: bool = True
    option_roms: Sequence[bytes] = ()
    fw_cfg: dict[str, bytes] = field(default_factory=dict)
    disks: Sequence[Disk] = ()
    floppies: Sequence[Disk] = ()  #: A: and B:
    cdroms: Sequence[Disk] = ()
    boot: str | Sequence[str] = "disk"  #: floppy, disk, cdrom: one, or the first choices in order
    serial_out: Callable[[bytes], None] | None = None
    debugcon_out: Callable[[bytes], None] | None = None
    parallel_out: Callable[[bytes], None] | None = None
    checks: CheckLevel = CheckLevel.AUTO
    cpu: str = DEFAULT_MODEL  #: a name of `emu.x86.cpuid.MODELS`
    slice: int | None = None  #: how many instructions the engine is asked for at a time; must change nothing


class MachineStop(enum.Enum):
    """Why `Machine.run` came back."""

    LIMIT = "limit"
    REQUEST = "request"
    BREAKPOINT = "breakpoint"
    WATCHPOINT = "watchpoint"
    SHUTDOWN = "shutdown"
    DEADLOCK = "deadlock"  #: halted, and nothing can wake the CPU
    EXIT = "exit"  #: the debug-exit port was written
    POWEROFF = "poweroff"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class MachineExit:
    """`exit` is the engine's part of the story where it had one; `code` what the debug-exit port was given."""

    reason: MachineStop
    exit: Exit | None = None
    code: int | None = None
    detail: str = ""


@dataclass(slots=True)
class MachineState:
    """The whole machine as one value: equal states continue equally."""

    retired: int
    cpu: CpuState
    clock: ClockState
    memory: Pages
    devices: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InputRecord:
    """A person's input, stamped with the virtual time (ns) at which the guest could first see it."""

    virtual_ns: int
    kind: str  #: "keys" (names), "text", "mouse" (an action) or "serial"
    data: str


class Device(Protocol):
    """What the machine needs of each device besides its bus face."""

    def save(self) -> Any: ...
    def restore(self, state: Any) -> None: ...
    def view(self) -> DeviceView: ...
    def reset(self) -> None: ...


_EXIT_STOPS = {
    ExitReason.BREAKPOINT: MachineStop.BREAKPOINT,
    ExitReason.WATCHPOINT: MachineStop.WATCHPOINT,
    ExitReason.SHUTDOWN: MachineStop.SHUTDOWN,
    ExitReason.FAILURE: MachineStop.FAILURE,
}


def _parts(config: MachineConfig) -> list[Part]:
    if config.memory < 1 << 20 or config.memory % (1 << 20):
        raise MachineError(f"memory of {config.memory} bytes: a whole number of MiB from 1M on is needed")
    if config.memory > 3 << 30:
        raise MachineError(f"memory of {config.memory} bytes: 3G is the most")
    if (drives := len(config.disks) + len(config.cdroms)) > MAX_DISKS:
        raise MachineError(f"{drives} disks and CDs: the two IDE channels take {MAX_DISKS} drives")
    if len(config.floppies) > MAX_FLOPPIES:
        raise MachineError(f"{len(config.floppies)} floppy disks: there are {MAX_FLOPPIES} drives")
    for disk in config.floppies:
        if disk.sectors * SECTOR > LARGEST:
            raise MachineError(f"{disk.name} has {disk.sectors * SECTOR} bytes: the largest floppy disk has {LARGEST}")
    if config.payload is not None and config.firmware:
        raise MachineError("a firmware and a payload: the CPU can start in one of them")
    if not config.firmware and config.payload is None:
        raise MachineError("no firmware: the CPU would have nothing to execute at its reset vector")
    rom = config.firmware
    rom = b"\xff" * (-len(rom) % 0x1000) + rom
    low = rom[-layout.BIOS_LOW_MAX :]
    options = b"".join(r + b"\xff" * (-len(r) % 2048) for r in config.option_roms)
    top = layout.BIOS_LOW_END - len(low)
    room = top - layout.OPTION_ROM_BASE
    if len(options) > room:
        raise MachineError(f"the option ROMs have {len(options)} bytes, {room} fit between C0000h and the firmware")
    kind: Kind = "ram" if config.shadow and rom else "rom"
    return [
        Part(0, layout.CONVENTIONAL_END, "ram", "conventional"),
        Part(layout.OPTION_ROM_BASE, room, kind, "option-rom", options.ljust(room, b"\xff")),
        *([Part(top, len(low), kind, "firmware-low", low)] if low else []),
        *([Part(1 << 20, config.memory - (1 << 20), "ram", "extended")] if config.memory > 1 << 20 else []),
        Part(layout.VGA_FRAME_BUFFER, layout.VGA_MEMORY, "ram", "vga"),
        *([Part(layout.RESET_TOP - len(rom), len(rom), "rom", "firmware", rom)] if rom else []),
    ]


_ChannelMedia = tuple[tuple[Disk | None, Disk | None], tuple[bool, bool]]


def _ide_places(config: MachineConfig) -> tuple[_ChannelMedia, _ChannelMedia]:
    """The media of each channel's devices 0 and 1, and which are CDs: these take the second channel first."""
    places: list[Disk | None] = [*config.disks, None, None, None, None][:4]
    packet = [False] * 4
    for disk in config.cdroms:
        at = next(place for place in (2, 3, 1, 0) if places[place] is None)
        places[at], packet[at] = disk, True
    return (
        ((places[0], places[1]), (packet[0], packet[1])),
        ((places[2], places[3]), (packet[2], packet[3])),
    )


class Machine:
    """An isapc. Everything but `request_stop` belongs to one thread. Implements `emu.subject.Subject`."""

    read_only = False

    def __init__(self, config: MachineConfig, make_executor: Callable[[Machine], Executor]) -> None:
        self.config = config
        self.memory = PhysicalMemory(_parts(config))
        self.ports = Ports()
        self.mmio = Mmio()
        self.journal = Journal()
        self.pin = IntrPin()
        self.on_text: Callable[[str], None] | None = None  #: told "serial", "debugcon" and so on after each byte sent
        #: asked to let the host's time pass while the CPU is idle: (ns of virtual time, None: until something happens)
        #: -> True when it passed. Without it idle time is skipped.
        self.idle: Callable[[int | None], bool] | None = None
        self.inputs: list[InputRecord] = []
        self._replay: deque[InputRecord] = deque()
        self._output: dict[str, bytearray] = {
            name: bytearray() for name in ("serial", "serial2", "parallel", "debugcon")
        }
        self._stop = False
        self._ended: MachineExit | None = None
        self._reset: str | None = None
        self._last: MachineState | None = None  # saved last or restored from
        self._awake_at = 0  # virtual ns at which the CPU last executed
        self.display = DisplayMemory(self.memory.window(layout.VGA_FRAME_BUFFER))
        self.executor = make_executor(self)
        self.display.remapped = self.executor.display_changed
        self.clock = Clock(lambda: self.executor.retired)
        self.clock.on_replan = self.executor.request_stop
        self.memory.on_write.append(self.executor.memory_changed)
        self.memory.add_writer(self.executor.mark_writes)
        self._replay_timer = self.clock.timer("host.replay", self._replay_due, host=True)
        self._build_devices()
        self.pin.connect(self.pic, self.executor)
        self.pin.on_delivery = lambda v: self.journal.add(self.executor.retired, "interrupt", f"vector {v:#04x}")
        self.executor.on_fault(self._on_fault)
        if config.payload is not None:
            self.executor.load(self._place(config.payload))

    # -- building

    def _place(self, payload: Payload) -> CpuState:
        for address, data in payload.pieces:
            self.memory.write(address, data)
        return payload.state.copy()

    def _build_devices(self) -> None:
        clock, config, ports = self.clock, self.config, self.ports
        self.pic = Pic8259Pair(self.pin)
        irq = [partial(self.pic.set_irq, n) for n in range(16)]
        bus = BusMaster(self.memory, self.mmio)
        self.dma = DmaPair(bus.read, bus.write)
        self.pit = Pit8254(clock, irq[layout.IRQ_PIT])
        self.port61 = Port61(self.pit, clock)
        nvram = pc_nvram(
            config.memory, disks=[d.sectors for d in config.disks[:2]], boot=config.boot,
            floppies=[format_of(disk).drive for disk in config.floppies],
        )  # fmt: skip
        self.rtc = Rtc(clock, irq[layout.IRQ_RTC], nvram)
        self.a20 = A20Gate(self.executor.set_a20)
        self.keyboard = Keyboard(clock)
        self.mouse = Mouse(clock)
        self.kbc = I8042(
            clock, irq[layout.IRQ_KEYBOARD], irq[layout.IRQ_MOUSE], self.a20.keyboard,
            partial(self.request_reset, "cpu"), self.keyboard, self.mouse,
        )  # fmt: skip
        self.port92 = Port92(self.a20, self.request_reset)
        self.reset_control = ResetControl(self.request_reset)
        self.com1 = Uart16550(clock, irq[layout.IRQ_COM1], partial(self._sent, "serial", config.serial_out))
        # A kernel that waits for each of its messages to leave at 9600 baud would be busy with that for most of a boot.
        self.com1.immediate = True
        self.display.written = lambda at, count: self.executor.memory_changed(layout.VGA_FRAME_BUFFER + at, count)
        self.vga = Vga(clock, self.display)
        self.mmio.map(layout.VGA_WINDOW, layout.VGA_WINDOW_SIZE, self.display, "vga", width=8)
        self.com2 = Uart16550(clock, irq[layout.IRQ_COM2], partial(self._sent, "serial2", None), "com2")
        self.lpt1 = ParallelPort(
            clock, irq[layout.IRQ_LPT1], partial(self._sent, "parallel", config.parallel_out)
        )  # fmt: skip
        (disks0, packet0), (disks1, packet1) = _ide_places(config)
        self.ide = IdeChannel(clock, irq[layout.IRQ_IDE_PRIMARY], disks0, "ide0", packet0)
        self.ide1 = IdeChannel(clock, irq[layout.IRQ_IDE_SECONDARY], disks1, "ide1", packet1)
        self.fdc = Fdc82077(clock, irq[layout.IRQ_FDC], self.dma, config.floppies)
        self.debugcon = DebugConsole(partial(self._sent, "debugcon", config.debugcon_out))
        self.post = PostCode()
        self.debug_exit = DebugExit(self._exit)
        ports.map(layout.DMA_LOW, 16, self.dma.low, "dma")
        ports.map(layout.DMA_PAGES, 15, self.dma.pages, "dma")
        ports.map(layout.DMA_HIGH, 32, self.dma.high, "dma")
        ports.map(layout.PIC_MASTER, 2, self.pic.master, "pic")
        ports.map(layout.PIC_SLAVE, 2, self.pic.slave, "pic")
        ports.map(layout.PIT, 4, self.pit, "pit")
        ports.map(layout.PORT_61, 1, self.port61, "port61")
        ports.map(layout.KBC_DATA, 1, self.kbc.data, "kbc")
        ports.map(layout.KBC_COMMAND, 1, self.kbc.command, "kbc")
        ports.map(layout.RTC, 2, self.rtc, "rtc")
        ports.map(layout.SYSTEM_CONTROL_A, 1, self.port92, "port92")
        ports.map(layout.RESET_CONTROL - 1, 4, ResetFace(self.reset_control), "reset", width=4)
        ports.map(layout.COM1, 8, self.com1, "com1")
        ports.map(layout.COM2, 8, self.com2, "com2")
        ports.map(layout.LPT1, 3, self.lpt1, "lpt1")
        ports.map(layout.VGA_MONO_CRTC, 0x3E0 - layout.VGA_MONO_CRTC, self.vga, "vga")
        ports.map(layout.VBE_PORTS, 4, self.vga.vbe, "vbe", width=2)
        ports.map(layout.IDE_PRIMARY, 8, self.ide, "ide0", width=4)
        ports.map(layout.IDE_PRIMARY_CONTROL, 1, self.ide.control, "ide0")
        ports.map(layout.IDE_SECONDARY, 8, self.ide1, "ide1", width=4)
        ports.map(layout.IDE_SECONDARY_CONTROL, 1, self.ide1.control, "ide1")
        ports.map(layout.FDC, 4, self.fdc.registers, "fdc")
        ports.map(layout.FDC_CHANGE, 1, self.fdc.change, "fdc")
        #: the ATA channels by their first port
        self._channels = {layout.IDE_PRIMARY: self.ide, layout.IDE_SECONDARY: self.ide1}
        ports.map(layout.DEBUGCON_BOCHS, 1, self.debugcon, "debugcon")
        ports.map(layout.DEBUGCON_SEABIOS, 1, self.debugcon, "debugcon")
        ports.map(layout.POST_CODE, 1, self.post, "post")
        ports.map(layout.DEBUG_EXIT, 1, self.debug_exit, "debug-exit", width=4)
        self.device_table: dict[str, Device] = {
            "mouse": self.mouse, "com2": self.com2, "lpt1": self.lpt1, "dma": self.dma, "fdc": self.fdc,
            "ide1": self.ide1,
            "pic": self.pic, "pit": self.pit, "port61": self.port61, "rtc": self.rtc, "keyboard": self.keyboard,
            "kbc": self.kbc, "a20": self.a20, "port92": self.port92, "reset": self.reset_control, "com1": self.com1,
            "vga": self.vga, "ide0": self.ide, "debugcon": self.debugcon, "post": self.post,
            "debug-exit": self.debug_exit,
        }  # fmt: skip
        self._fw_cfg: FwCfg | None = None
        if config.fw_cfg:
            fw_cfg = self._fw_cfg = self.device_table["fw_cfg"] = FwCfg(config.fw_cfg)
            ports.map(layout.FW_CFG, 2, fw_cfg, "fw_cfg", width=2)

    # -- what the CPU reaches

    def port_in(self, port: int, size: int) -> int:
        value = self.ports.port_in(port, size)
        if self.ports.trace is None:
            if port in POLLED and size == 1:
                self._answer_ahead(port, value)
            elif port in IDE_POLLED:
                self._answer_ide_ahead(port, size, value)
        return value

    def _answer_ide_ahead(self, port: int, size: int, value: int) -> None:
        """Let the engine move data words, and answer polls of a status that stays until a timer's event."""
        base = IDE_POLLED[port]
        channel = self._channels[base]
        if port != base and size == 1 and not (port == base + IDE_STATUS and channel.acknowledged):
            self.executor.hold_input(port, value, None)
        self._offer_data(base)

    def _offer_data(self, base: int) -> None:
        """In a PIO data phase of the channel at `base` the engine may move all words of the block but the last."""
        channel = self._channels[base]
        if data := channel.readable():
            self.executor.stream_input(base, data, channel.taken, WORDS)
        elif room := channel.room():
            self.executor.stream_output(base, room, channel.written, WORDS)

    def _answer_ahead(self, port: int, value: int) -> None:
        """Let the engine answer the next reads of a port that firmware polls or copies from."""
        if port == layout.FW_CFG + 1:
            if self._fw_cfg is not None and (rest := self._fw_cfg.rest()):
                self.executor.stream_input(port, rest, self._fw_cfg.skip)
        elif port == layout.PORT_61:
            # Its pins change with the timer's clock pulses, but for those that only decrement.
            now = self.clock.now
            self._hold(port, value, instant_of(pulses_at(now) + self.port61.quiet_pulses() + 1) - now)
        elif port == layout.VGA_STATUS:
            self._hold(port, value, self.vga.steady())
        elif port != COM1_LSR or not value & LSR_ERRORS:
            self.executor.hold_input(port, value, None)

    def _hold(self, port: int, value: int, left: int) -> None:
        """The port gives `value` for `left` ns more."""
        self.executor.hold_input(port, value, self.executor.retired - (-left // NS_PER_INSTRUCTION))

    def port_out(self, port: int, size: int, value: int) -> None:
        self.ports.port_out(port, size, value)
        if port in self._channels and self.ports.trace is None:
            self._offer_data(port)

    def timestamp(self) -> int:
        """The TSC: one count a virtual nanosecond."""
        return self.clock.now

    def _on_fault(self, fault: Fault) -> None:
        kind = "int" if fault.software else "exception"
        code = "" if fault.code is None else f" error {fault.code:#x}"
        cr2 = f" cr2 {fault.cr2:#x}" if fault.vector == 14 and not fault.software else ""
        during = "" if fault.interrupt is None else f" in delivering interrupt {fault.interrupt:#04x}"
        where = f"{fault.cs:04x}:{fault.rip:x}"
        self.journal.add(fault.retired, kind, f"{fault.vector:#04x}{code}{cr2}{during} at {where}")

    # -- what devices ask of the machine

    def request_reset(self, kind: str) -> None:
        """`cpu` (INIT-like) or `system`, after the running instruction."""
        self._reset = "system" if "system" in (kind, self._reset) else "cpu"
        self.executor.request_stop()

    def _exit(self, code: int) -> None:
        self._ended = MachineExit(MachineStop.EXIT, code=code)
        self.executor.request_stop()

    def power_off(self) -> None:
        self._ended = MachineExit(MachineStop.POWEROFF)
        self.executor.request_stop()

    def _sent(self, name: str, sink: Callable[[bytes], None] | None, byte: int) -> None:
        kept = self._output[name]
        kept.append(byte)
        if len(kept) > OUTPUT_KEPT:
            del kept[: OUTPUT_KEPT // 2]
        if sink is not None:
            sink(bytes((byte,)))
        if self.on_text is not None:
            self.on_text(name)

    # -- running

    def request_stop(self) -> None:
        """From any thread or signal handler: `run` returns REQUEST before the next instruction."""
        self._stop = True
        self.executor.request_stop()

    def service(self) -> None:
        """Bring the devices to this instant: interrupts taken are acknowledged, due timers fire, resets happen."""
        self.pin.settle()
        self.clock.run_due()
        if self._reset is not None:
            kind, self._reset = self._reset, None
            self._do_reset(kind)

    @property
    def interrupt_due(self) -> bool:
        """True when an interrupt will be delivered before the next instruction. Call `service` first."""
        return self.pic.pending_vector() is not None and self.executor.interruptible()

    def run(self, until: int, *, skip_breakpoint: bool = False) -> MachineExit:
        """Run until `until` instructions have retired in all, or something stops it. With `skip_breakpoint` a
        breakpoint on the first instruction executed is passed over."""
        executor, clock = self.executor, self.clock
        cap = self.config.slice or (1 << 62)
        while True:
            self.service()
            if self._ended is not None:
                ended, self._ended = self._ended, None
                return ended
            if self._stop:
                self._stop = False
                return MachineExit(MachineStop.REQUEST)
            budget = min(until - executor.retired, cap)
            if budget <= 0:
                return MachineExit(MachineStop.LIMIT)
            deadline = clock.next_deadline()
            if executor.halted and not self.interrupt_due:
                if (blocked := self._idle(deadline)) is not None:
                    return blocked
                continue
            if deadline is not None:
                budget = min(budget, -((clock.now - deadline) // NS_PER_INSTRUCTION))
            clock.horizon = deadline
            before = executor.retired
            self._awake_at = clock.now
            exit = executor.run(budget, skip_breakpoint=skip_breakpoint)
            if executor.retired != before:
                skip_breakpoint = False
            if exit.reason in _EXIT_STOPS:
                self.pin.settle()
                return MachineExit(_EXIT_STOPS[exit.reason], exit, detail=exit.detail)

    def _idle(self, deadline: int | None) -> MachineExit | None:
        """The CPU is halted. Carry it to `deadline` (ns), or say why it will sleep for ever."""
        if not self.executor.interruptible():
            return MachineExit(MachineStop.DEADLOCK, detail="HLT with interrupts off")
        if self.idle is not None:
            wait = None if deadline is None else deadline - self.clock.now
            if not self.idle(wait):
                self._stop = False
                return MachineExit(MachineStop.REQUEST)
        elif not self.clock.can_wake():
            return MachineExit(MachineStop.DEADLOCK, detail="HLT, and no device will ever interrupt")
        elif self.clock.now - self._awake_at > IDLE_LIMIT_NS and not self.rtc.alarm_enabled:
            return MachineExit(MachineStop.DEADLOCK, detail="HLT, and no interrupt for an hour of virtual time")
        if deadline is not None:
            self.clock.skip_to(deadline)
        return None

    def _do_reset(self, kind: str) -> None:
        self.journal.add(self.executor.retired, "reset", kind)
        state, before = CpuState(), self.executor.state()
        state.a20 = before.a20
        payload = self.config.payload
        if payload is not None:
            # No firmware is there to tell an INIT from a reset: both start the payload anew.
            kind = "system"
        state.regs[RDX] = MODELS[self.config.cpu].signature
        if kind == "cpu":
            # INIT leaves the FPU, the MSRs and the cache bits of CR0 as they are (SDM vol. 3A, table 10-1).
            state.fpu, state.msrs = before.fpu, before.msrs
            state.cr0 = state.cr0 & ~CR0_CACHE | before.cr0 & CR0_CACHE
        else:
            state.a20 = True
            state.msrs[TSC_ADJUST] = -self.clock.now % (1 << 64)  # RESET clears the TSC
            for device in self.device_table.values():
                device.reset()
            for part in _parts(self.config):
                if part.content:
                    self.memory.write(part.base, part.content)
            if payload is not None:
                state = self._place(payload)
        self.executor.load(state)
        self.pin.update()

    def reset(self) -> None:
        """Power-on: memory cleared, devices and CPU reset, counters at zero."""
        self._ended = self._reset = None
        self._stop = False
        self.memory.clear(_parts(self.config))
        self.executor.set_retired(0)
        self.clock.restore(ClockState())
        self._awake_at = 0
        self._do_reset("system")
        self.journal.clear()
        for kept in self._output.values():
            kept.clear()

    # -- input

    def feed(self, kind: str, data: str) -> None:
        """A person's input now: `keys` (names joined by '+', strokes by blanks), `text` typed on the keyboard,
        `mouse` (see Mouse.do), or `serial`. Recorded. Raises MachineError for a key that does not exist."""
        record = InputRecord(self.clock.now, kind, data)
        self._apply(record)
        self.inputs.append(record)
        self.journal.add(self.executor.retired, "input", f"{kind} {data!r}")

    def replay(self, records: Sequence[InputRecord]) -> None:
        """Feed recorded inputs at their instants."""
        self._replay = deque(sorted(records, key=lambda r: r.virtual_ns))
        if self._replay:
            self._replay_timer.arm(self._replay[0].virtual_ns)

    def _replay_due(self, _deadline: int) -> None:
        while self._replay and self._replay[0].virtual_ns <= self.clock.now:
            self._apply(self._replay.popleft())
        if self._replay:
            self._replay_timer.arm(self._replay[0].virtual_ns)

    def _apply(self, record: InputRecord) -> None:
        try:
            if record.kind == "serial":
                self.com1.receive(record.data.encode("latin-1", "replace"))
            elif record.kind == "text":
                self.keyboard.type_text(record.data)
            elif record.kind == "mouse":
                self.mouse.do(record.data)
            else:
                strokes = [stroke.split("+") for stroke in record.data.split()]
                for keys in strokes:
                    self.keyboard.check(keys)
                for keys in strokes:
                    self.keyboard.chord(keys)
        except UnknownKey as error:
            raise MachineError(f"no key is called {error.args[0]!r}, so nothing was typed") from None
        except UnknownAction as error:
            raise MachineError(str(error)) from None

    # -- the whole as a value

    def _media(self) -> list[tuple[str, Disk]]:
        """Every medium under the name that its state has."""
        config = self.config
        return (
            [(f"disk{i}", disk) for i, disk in enumerate(config.disks)]
            + [(f"floppy{i}", disk) for i, disk in enumerate(config.floppies)]
            + [(f"cdrom{i}", disk) for i, disk in enumerate(config.cdroms)]
        )

    def save(self) -> MachineState:
        """Everything that decides how the run goes on. Parts that did not change since the last state are the same
        objects in both, so a state is to be kept and looked at, not changed."""
        self.service()
        devices = {name: device.save() for name, device in self.device_table.items()}
        devices.update({name: disk.save() for name, disk in self._media()})
        cpu, clock = self.executor.state(), self.clock.save()
        if (last := self._last) is not None:
            cpu = last.cpu if cpu == last.cpu else cpu
            clock = last.clock if clock == last.clock else clock
            for name, old in last.devices.items():
                if devices[name] == old:
                    devices[name] = old
            if all(devices[name] is old for name, old in last.devices.items()):
                devices = last.devices
        self._last = MachineState(self.executor.retired, cpu, clock, self.memory.save(), devices)
        return self._last

    def restore(self, state: MachineState) -> None:
        """Continue from `state`. Raises ValueError or KeyError when it is of a differently built machine."""
        self.memory.restore(state.memory)
        self.executor.set_retired(state.retired)
        self.executor.load(state.cpu)
        self.executor.take_interrupt()
        self.clock.restore(state.clock)
        self._awake_at = self.clock.now
        for name, device in self.device_table.items():
            device.restore(state.devices[name])
        for name, disk in self._media():
            disk.restore(state.devices[name])
        self._ended = self._reset = None
        self._last = state
        self.pin.update()

    def fingerprint(self) -> FingerprintView:
        """Hashes of RAM, CPU and devices, BLAKE2b-128."""
        self.service()
        ram = hashlib.blake2b(digest_size=16)
        for region in self.memory.regions:
            if region.kind == "ram":
                ram.update(self.memory.view[region.offset : region.offset + region.size])
        states = [(name, device.save()) for name, device in sorted(self.device_table.items())]
        states += [(name, disk.save()) for name, disk in self._media()]
        return FingerprintView(
            self.executor.retired, self.clock.now, ram.hexdigest(), _digest(self.executor.state()), _digest(states)
        )

    # -- Subject

    def cpu_count(self) -> int:
        return 1

    def cpu_state(self, cpu: int = 0) -> CpuState:
        self.service()
        return self.executor.state()

    def unknown(self, cpu: int = 0) -> frozenset[str]:
        return frozenset()

    def read_physical(self, address: int, length: int) -> bytes:
        """What the CPU would read, without side effects; of the VGA's window too."""
        if not _meets_window(address, length):
            return self.memory.read(address, length)
        return b"".join(
            bytes(self.display.peek(at - layout.VGA_WINDOW + i, 1) for i in range(count))
            if _meets_window(at, 1)
            else self.memory.read(at, count)
            for at, count in _split(address, length)
        )

    def readable_physical(self, address: int, length: int) -> int:
        readable = 0
        for at, count in _split(address, length):
            part = count if _meets_window(at, 1) else self.memory.available(at, count)
            readable += part
            if part < count:
                break
        return readable

    def write_physical(self, address: int, data: bytes) -> None:
        """As the CPU would write to the VGA's window, as the host writes elsewhere."""
        have = self.readable_physical(address, len(data))
        if have < len(data):
            raise MemoryUnavailable(address + have, "no memory at this physical address")
        for at, count in _split(address, len(data)):
            part = data[at - address : at - address + count]
            if _meets_window(at, 1):
                for i, byte in enumerate(part):
                    self.display.write(at - layout.VGA_WINDOW + i, byte, 1)
            else:
                self.memory.write(at, part)

    def load_cpu(self, state: CpuState, cpu: int = 0) -> None:
        self.executor.load(state)
        self.pin.update()

    def memory_map(self) -> tuple[RegionView, ...]:
        memory = [RegionView(r.base, r.base + r.size - 1, r.kind, r.name) for r in self.memory.regions]
        memory += [RegionView(r.first, r.first + r.count - 1, "mmio", r.name) for r in self.mmio.ranges]
        return tuple(sorted(memory, key=lambda r: r.first))

    def port_map(self) -> tuple[RegionView, ...]:
        return tuple(RegionView(r.first, r.first + r.count - 1, "port", r.name) for r in self.ports.ranges)

    def devices(self) -> tuple[DeviceView, ...]:
        self.service()
        return tuple(device.view() for device in self.device_table.values())

    def screen(self) -> ScreenView:
        return screen_view(self.vga.state, self.display.memory)

    def picture(self) -> PictureView:
        return picture(self.vga.state, self.display.memory)

    def output(self, name: str) -> str:
        """What `serial` or `debugcon` has sent, as Latin-1 text."""
        return self._output[name].decode("latin-1")

    def serial_text(self) -> str:
        return self.output("serial")

    def debugcon_text(self) -> str:
        return self.output("debugcon")

    def close(self) -> None:
        self.executor.close()


def _meets_window(address: int, length: int) -> bool:
    return address < layout.VGA_WINDOW + layout.VGA_WINDOW_SIZE and address + length > layout.VGA_WINDOW


def _split(address: int, length: int) -> Iterator[tuple[int, int]]:
    """(address, bytes) of the parts of a physical range before, in and behind the VGA's window."""
    end = address + length
    for edge in (layout.VGA_WINDOW, layout.VGA_WINDOW + layout.VGA_WINDOW_SIZE, end):
        if address < min(edge, end):
            yield address, min(edge, end) - address
            address = min(edge, end)


def _digest(value: object) -> str:
    return hashlib.blake2b(repr(value).encode(), digest_size=16).hexdigest()


def build_machine(config: MachineConfig) -> Machine:
    """A machine on the emulator. Raises MachineError, or EngineError when Unicorn is not the build v2e knows."""
    from emu.unicorn_engine import UnicornEngine

    if config.cpu not in MODELS:
        raise MachineError(f"no CPU model is called {config.cpu!r}: use one of {', '.join(MODELS)}")

    def make(machine: Machine) -> Executor:
        return UnicornEngine(
            machine.memory.regions,
            machine,
            machine.mmio,
            timestamp=machine.timestamp,
            checks=config.checks,
            model=MODELS[config.cpu],
            display=SharedDisplay(
                layout.VGA_WINDOW,
                layout.VGA_WINDOW_SIZE,
                ctypes.addressof(machine.display.shared),
                layout.VGA_FRAME_BUFFER,
            ),
            tick=NS_PER_INSTRUCTION,
        )

    return Machine(config, make)


__all__ = [
    "InputRecord",
    "Machine",
    "MachineConfig",
    "MachineError",
    "MachineExit",
    "MachineState",
    "MachineStop",
    "MemoryUnavailable",
    "build_machine",
]
