"""What a machine is built from: the configuration, and what follows from it before any device is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emu import layout
from emu.devices.floppy_drive import LARGEST
from emu.engine import CheckLevel
from emu.keeper import Keeper
from emu.media import SECTOR, Disk
from emu.memory import Kind, Part
from emu.record import dataclass, field
from emu.typed import TYPE_CHECKING
from emu.x86.cpuid import DEFAULT_MODEL, MODELS, CpuModel

if TYPE_CHECKING:
    from emu.firmware.payload import Payload
    from emu.transitions import NativeConfig

MACHINES = ("isapc", "pc")
MAX_DISKS = 4  #: drives of both IDE channels, CD-ROM drives included
MAX_FLOPPIES = 2
MAX_VIRTIO = 16
MAX_VGA_ROM = 1 << 20


class MachineError(Exception):
    """One sentence: what cannot be built or restored, and why."""


@dataclass(slots=True)
class MachineConfig:
    """What a machine is built from. `memory` is RAM in bytes, whole MiB. `firmware` is a ROM image whose last byte is
    at 4 GiB - 1; with `shadow` its low copy (below 1 MiB) and the option ROMs are writable, as on QEMU's isapc.

    `option_roms` stand at C0000h from the start; `fw_cfg` files are handed to a firmware that asks for them
    (SeaBIOS clears C0000h and deploys "vgaroms/*" and "genroms/*" itself). Without any the device is absent.
    `payload` takes the firmware's place: it is in memory, and the CPU in its state, after each reset."""

    machine: str = "isapc"  #: or "pc": i440FX and PIIX3
    memory: int = 64 << 20
    firmware: bytes = b""
    bios: bool = False  #: `firmware` is the built-in BIOS, whose services are there
    payload: Payload | None = None
    shadow: bool = True
    option_roms: Sequence[bytes] = ()
    fw_cfg: dict[str, bytes] = field(default_factory=dict)
    disks: Sequence[Disk] = ()
    floppies: Sequence[Disk] = ()  #: A: and B:
    cdroms: Sequence[Disk] = ()
    virtio: Sequence[Disk] = ()  #: disks of a pc behind virtio-blk, a PCI device each
    vga_rom: bytes = b""  #: the VGA BIOS in the ROM BAR of a pc's VGA
    boot: str | Sequence[str] = "disk"  #: floppy, disk, cdrom: one, or the first choices in order
    serial_out: Callable[[bytes], None] | None = None
    debugcon_out: Callable[[bytes], None] | None = None
    parallel_out: Callable[[bytes], None] | None = None
    checks: CheckLevel = CheckLevel.AUTO
    cpu: str = DEFAULT_MODEL  #: a name of `emu.x86.cpuid.MODELS`
    native: NativeConfig | None = None  #: whose vCPU runs natively; None: all is emulated
    keeper: Callable[[], Keeper] = Keeper  #: makes who has the interrupt controllers and timers
    slice: int | None = None  #: how many instructions the engine is asked for at a time; must change nothing


def memory_parts(config: MachineConfig) -> list[Part]:
    """RAM and ROM as they are at power-on. Raises MachineError when the configuration cannot be built."""
    if config.memory < 1 << 20 or config.memory % (1 << 20):
        raise MachineError(f"memory of {config.memory} bytes: a whole number of MiB from 1M on is needed")
    if config.memory > 3 << 30:
        raise MachineError(f"memory of {config.memory} bytes: 3G is the most")
    if config.machine not in MACHINES:
        raise MachineError(f"machine {config.machine!r} is unknown: use {' or '.join(MACHINES)}")
    if (drives := len(config.disks) + len(config.cdroms)) > MAX_DISKS:
        raise MachineError(f"{drives} disks and CDs: the two IDE channels take {MAX_DISKS} drives")
    if config.virtio and config.machine != "pc":
        raise MachineError(f"virtio disks are PCI devices, which the machine {config.machine} has not: use pc")
    if len(config.virtio) > MAX_VIRTIO:
        raise MachineError(f"{len(config.virtio)} virtio disks: there is room for {MAX_VIRTIO}")
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
    if len(config.vga_rom) > MAX_VGA_ROM:
        raise MachineError(f"a VGA BIOS of {len(config.vga_rom)} bytes: {MAX_VGA_ROM} is the most")
    if config.machine == "pc" and len(options) <= room:
        from emu.pc import pc_parts  # it loads a chipset

        return _with_alias(pc_parts(config.memory, rom, options, config.vga_rom), rom)
    if len(options) > room:
        raise MachineError(f"the option ROMs have {len(options)} bytes, {room} fit between C0000h and the firmware")
    kind: Kind = "ram" if config.shadow and rom else "rom"
    parts = [
        Part(0, layout.CONVENTIONAL_END, "ram", "conventional"),
        Part(layout.OPTION_ROM_BASE, room, kind, "option-rom", options.ljust(room, b"\xff")),
        *([Part(top, len(low), kind, "firmware-low", low)] if low else []),
        *([Part(1 << 20, config.memory - (1 << 20), "ram", "extended")] if config.memory > 1 << 20 else []),
        Part(layout.VGA_FRAME_BUFFER, layout.VGA_MEMORY, "ram", "vga"),
        *([Part(layout.RESET_TOP - len(rom), len(rom), "rom", "firmware", rom)] if rom else []),
    ]
    return _with_alias(parts, rom)


def _with_alias(parts: list[Part], rom: bytes) -> list[Part]:
    """The last 128 KiB of the firmware answer 1 MiB below 4 GiB too: a CPU that is reset while A20 is masked fetches
    its first instruction there (Intel 82371SB data sheet 290550, "BIOS Memory": FFEE0000h to FFEFFFFFh). A firmware
    that reaches as far down has its own bytes there."""
    alias = rom[-layout.BIOS_LOW_MAX :]
    end = layout.RESET_TOP - layout.A20
    if not alias or layout.RESET_TOP - len(rom) < end:
        return parts
    at = next(i for i, part in enumerate(parts) if part.name == "firmware")
    return [*parts[:at], Part(end - len(alias), len(alias), "rom", "firmware-a20", alias), *parts[at:]]


ChannelMedia = tuple[tuple[Disk | None, Disk | None], tuple[bool, bool]]


def ide_places(config: MachineConfig) -> tuple[ChannelMedia, ChannelMedia]:
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


def cpu_model(config: MachineConfig) -> CpuModel:
    """The CPU of the machine. Raises MachineError when there is none of its name."""
    if config.cpu not in MODELS:
        raise MachineError(f"no CPU model is called {config.cpu!r}: use one of {', '.join(MODELS)}")
    model = MODELS[config.cpu]
    return model.with_apic() if config.machine == "pc" else model
