"""The options that say what machine it is, as the configuration that it is built from."""

from __future__ import annotations

import os

from emu.engine import CheckLevel, EngineError
from emu.firmware.payload import KernelError
from emu.firmware.roms import FirmwareError, builtin_bios, find_firmware, find_vga_rom, read_rom, tour_rom
from emu.machine import MACHINES, MachineConfig, MachineError
from emu.media import MediaError
from emu.typed import TYPE_CHECKING
from emu.until import UntilError
from emu.x86.cpuid import MODELS
from repl.media import open_media
from repl.natively import HOSTS, keeper_of, native_config
from repl.options import UsageError, choose, parse_count, parse_memory
from repl.outcome import notice

if TYPE_CHECKING:
    import argparse

#: What building a machine may fail with: each is one sentence.
BUILD_FAILURES = (MachineError, EngineError, FirmwareError, KernelError, MediaError, UntilError)
#: The name of the built-in image.
TOUR = "tour"


def check_choices(options: argparse.Namespace) -> None:
    """Values that this version does not have. Raises UsageError."""
    choose("--machine", options.machine, MACHINES)
    if choose("--clock", options.clock, ("virtual", "host")) == "host" and options.hypervisor not in HOSTS:
        raise UsageError(
            f"--clock host needs --hypervisor {' or '.join(HOSTS)}, whose CPU counts no instructions: with all others "
            "time is virtual"
        )
    choose("--cpus", options.cpus, ("1",))
    if options.kernel is None:
        for name, given in (("--initrd", bool(options.initrd)), ("--append", options.append is not None)):
            if given:
                raise UsageError(f"{name} belongs to a kernel: name one with --kernel FILE")
    choose("--cpu", options.cpu, tuple(MODELS))


def machine_config(options: argparse.Namespace) -> MachineConfig:
    """The machine the options ask for, without its outputs. Raises UsageError, or one of the builders' errors."""
    check_choices(options)
    memory = parse_memory(options.memory)
    piece = None if options.slice is None else parse_count("--slice", options.slice)
    image = options.image
    if image == TOUR and not os.path.exists(image):
        if options.firmware is not None:
            raise UsageError(f"--firmware {options.firmware}: the tour is a ROM of its own and takes no firmware")
        options.image, tour = None, True
    else:
        media = (*options.floppy, *options.disk, *options.cdrom, *options.virtio)
        tour = image is None and not media and options.firmware is None and options.kernel is None
        tour = tour and options.load_xen is None
    checks = CheckLevel(choose("--checks", options.checks, [level.value for level in CheckLevel]))
    config = MachineConfig(machine=options.machine, memory=memory, slice=piece, checks=checks, cpu=options.cpu)
    config.native = native_config(options, notice)
    config.keeper = keeper_of(options, config.native) or config.keeper
    open_media(options, config)
    roms = [(os.path.basename(path), read_rom(path, "option ROM")) for path in options.option_rom]
    if tour:
        if options.kernel is not None:
            raise UsageError("the tour and --kernel: the machine can start in one of them")
        config.firmware, config.shadow = tour_rom(), False
    elif options.kernel is not None and options.firmware is not None:
        from pathlib import Path

        from emu.firmware import kernelrom
        from emu.firmware.kernels import load_kernel_after_post

        kernel = load_kernel_after_post(Path(options.kernel), map(Path, options.initrd), options.append or "", memory)
        # the last ROM's bootstrap is the one that counts
        _firmware(options.firmware, config, [*roms, ("kernel.rom", kernelrom.rom())])
        config.fw_cfg[kernelrom.FILE] = kernel.file()
    elif options.kernel is not None:
        if roms:
            raise UsageError(
                "--option-rom and --kernel: no firmware runs that would call the ROM: name one with --firmware"
            )
        from pathlib import Path

        from emu.firmware.kernels import load_kernel

        config.payload = load_kernel(
            Path(options.kernel), map(Path, options.initrd), options.append or "", memory, acpi=options.machine == "pc"
        )
    else:
        _firmware(options.firmware, config, roms)
    return config


def _firmware(name: str | None, config: MachineConfig, roms: list[tuple[str, bytes]]) -> None:
    """Put the firmware in place, the built-in BIOS unless another is named. SeaBIOS finds its VGA BIOS in the ROM BAR
    of a pc's VGA, else as the option ROMs in fw_cfg, and deploys them itself; any other firmware finds the option ROMs
    at C0000h."""
    if name in (None, "builtin"):
        config.firmware, config.bios = builtin_bios(), True
        config.option_roms = [data for _, data in roms]
        return
    config.firmware = read_rom(find_firmware(name, config.machine), "firmware")
    if name == "seabios":
        vga_rom = read_rom(find_vga_rom(config.machine), "VGA BIOS")
        if config.machine == "pc":
            config.vga_rom = vga_rom
        else:
            config.fw_cfg = {"vgaroms/vgabios.bin": vga_rom}
        config.fw_cfg.update((f"genroms/{file}"[:55], data) for file, data in roms)
    else:
        config.option_roms = [data for _, data in roms]


def input_files(options: argparse.Namespace) -> list[str]:
    """The files that a run reads."""
    names = [
        options.image, *options.floppy, *options.disk, *options.cdrom, *options.virtio, *options.option_rom,
        options.firmware, options.kernel, *options.initrd, options.load_xen,
    ]  # fmt: skip
    return [name for name in names if name is not None]
