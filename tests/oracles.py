"""Independent PCs to compare with: runs an image headless under QEMU's TCG or Bochs and returns what it printed.

Images end a run themselves: by the debug-exit port F4h (QEMU), by the word "Shutdown" at port 8900h (Bochs, which
has no debug exit), or by a triple fault. Results are cached by image and program in the temporary directory, so that
test processes share them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from asm import IMAGES, assemble

#: Seconds after which a run is killed and the test fails. Only a safety net: the images end in well under one.
TIMEOUT = 60.0

_QEMU = "qemu-system-x86_64"
_BOCHS = "bochs"


class OracleMissing(Exception):
    """The program is not installed; the text says so."""


class OracleFailed(Exception):
    """The program did not run the image to its end; the text says what it said."""


@dataclass(frozen=True, slots=True)
class OracleResult:
    """What a run printed. `status` is QEMU's exit status: (code << 1) | 1 after a write of code to the debug-exit
    port, 0 after a triple fault; None under Bochs, where `shutdown` tells them apart."""

    serial: str  #: COM1
    debugcon: str  #: port E9h
    status: int | None
    shutdown: bool  #: ended by a triple fault

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of `debugcon` without empty ones."""
        return tuple(line for line in self.debugcon.splitlines() if line)


class Media(NamedTuple):
    """What a run is given; `write` puts it into its folder, in files of these names."""

    rom: bytes | None
    disk: bytes | None
    floppy: bytes | None

    def write(self, folder: Path) -> None:
        for name, data in self._asdict().items():
            if data is not None:
                (folder / name).write_bytes(data)


def assemble_image(name: str, **symbols: int) -> bytes:
    """The bytes of tests/images/<name>.asm, with `symbols` defined. Skips the test when nasm is not installed."""
    defined = "".join(f"%define {symbol} {value}\n" for symbol, value in symbols.items())
    return assemble(defined + (IMAGES / f"{name}.asm").read_text())


def run_qemu(
    rom: bytes | None = None,
    disk: bytes | None = None,
    *,
    floppy: bytes | None = None,
    machine: str = "isapc",
    cpu: str = "qemu64,-apic",
    arguments: Sequence[str] = (),
    drive: str = "if=ide,index=0",
    complaint: str = "",
    timeout: float = TIMEOUT,
) -> OracleResult:
    """Run `rom` (in place of SeaBIOS) or boot `disk` (first hard disk) under QEMU's TCG until it ends. `drive`: how the
    disk is attached; `complaint`: what QEMU is expected to say of the guest.

    `-apic`: TCG hands the 8259's INTR to LINT0 even of an APIC that is switched off, and LINT0 is masked at reset.
    Raises OracleMissing, OracleFailed.
    """
    program = _find(_QEMU)
    options = ["-accel", "tcg", "-M", machine, "-cpu", cpu, "-m", "16", "-no-reboot", *arguments]
    key = [*options, drive] if drive != "if=ide,index=0" else options
    media = Media(rom, disk, floppy)
    return _cached(
        program, media, key, lambda folder: _qemu(program, options, media, drive, complaint, folder, timeout)
    )


def run_bochs(
    rom: bytes | None = None,
    disk: bytes | None = None,
    *,
    floppy: bytes | None = None,
    cpu: str = "bx_generic",
    timeout: float = TIMEOUT,
) -> OracleResult:
    """Run `rom` (in place of the BIOS) or boot `disk` (first hard disk) under Bochs until it ends. `cpu`: one of the
    models that `bochs --help cpu` lists.

    Raises OracleMissing, OracleFailed.
    """
    program = _find(_BOCHS)
    media = Media(rom, disk, floppy)
    key = ["1"] if cpu == "bx_generic" else ["1", cpu]
    return _cached(program, media, key, lambda folder: _bochs(program, media, cpu, folder, timeout))


def qemu(rom: bytes | None = None, disk: bytes | None = None) -> OracleResult:
    """`run_qemu`, for tests: skips with the reason when QEMU is missing."""
    try:
        return run_qemu(rom, disk)
    except OracleMissing as missing:
        pytest.skip(str(missing))


def bochs(rom: bytes | None = None, disk: bytes | None = None, cpu: str = "bx_generic") -> OracleResult:
    """`run_bochs`, for tests: skips with the reason when Bochs is missing."""
    try:
        return run_bochs(rom, disk, cpu=cpu)
    except OracleMissing as missing:
        pytest.skip(str(missing))


def _find(name: str) -> Path:
    path = shutil.which(name)
    if path is None:
        raise OracleMissing(f"{name} is not installed")
    return Path(path)


def _cached(
    program: Path,
    media: Media,
    options: Sequence[str],
    run: Callable[[Path], OracleResult],
) -> OracleResult:
    stat = program.resolve().stat()
    key = hashlib.sha256(repr((program.name, stat.st_size, stat.st_mtime_ns, options)).encode())
    key.update(Path(__file__).read_bytes())
    for image in media:
        key.update(b"-" if image is None else hashlib.sha256(image).digest())
    cache = Path(tempfile.gettempdir(), f"v2e-oracles-{os.getuid()}")
    cache.mkdir(mode=0o700, exist_ok=True)
    path = cache / f"{key.hexdigest()}.json"
    if cache.stat().st_uid == os.getuid() and path.exists():
        return OracleResult(**json.loads(path.read_text()))
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder))
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(asdict(result)))
    part.replace(path)
    return result


def _text(path: Path) -> str:
    return path.read_bytes().decode("ascii", "replace") if path.exists() else ""


def _run(command: Sequence[str | Path], folder: Path, typed: str, timeout: float) -> tuple[int, str]:
    """The exit status, and what the program wrote to stdout and stderr together."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            input=typed.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        said = (expired.stdout or b"")[-2000:].decode("ascii", "replace")
        raise OracleFailed(f"{Path(command[0]).name} did not end within {timeout:g} s; it said: {said}") from None
    return done.returncode, done.stdout.decode("ascii", "replace")


def _qemu(
    program: Path,
    options: Sequence[str],
    media: Media,
    drive: str,
    complaint: str,
    folder: Path,
    timeout: float,
) -> OracleResult:
    command: list[str | Path] = [program, *options, "-display", "none", "-monitor", "none", "-net", "none"]
    command += ["-serial", "file:serial", "-chardev", "file,id=debug,path=debug"]
    command += ["-device", "isa-debugcon,iobase=0xe9,chardev=debug"]
    command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
    media.write(folder)
    if media.rom is not None:
        command += ["-bios", "rom"]
    if media.disk is not None:
        command += ["-drive", f"file=disk,format=raw,{drive}"]
    if media.floppy is not None:
        command += ["-drive", "file=floppy,format=raw,if=floppy,index=0"]
    status, said = _run(command, folder, "", timeout)
    if not (status & 1 or status == 0) or "qemu-system" in said.replace(f"qemu-system-x86_64: {complaint}", ""):
        raise OracleFailed(f"QEMU ended with status {status}: {said}")
    return OracleResult(_text(folder / "serial"), _text(folder / "debug"), status, status == 0)


_BOCHSRC = """\
config_interface: textconfig
display_library: rfb, options="timeout=0"
megs: 16
cpu: model={cpu}, reset_on_triple_fault=0, ips=50000000
port_e9_hack: enabled=1
com1: enabled=1, mode=file, dev=serial
log: log
panic: action=fatal
error: action=report
info: action=report
debug: action=ignore
sound: driver=dummy
"""


def _bochs(program: Path, media: Media, cpu: str, folder: Path, timeout: float) -> OracleResult:
    settings = _BOCHSRC.format(cpu=cpu)
    media.write(folder)
    if media.rom is not None:
        settings += "romimage: file=rom\n"
    if media.disk is not None:
        cylinders = len(media.disk) // (16 * 63 * 512)
        if media.rom is None:
            settings += "romimage: file=$BXSHARE/BIOS-bochs-latest\nvgaromimage: file=$BXSHARE/VGABIOS-lgpl-latest\n"
        settings += "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\nboot: disk\n"
        settings += f"ata0-master: type=disk, path=disk, mode=flat, cylinders={cylinders}, heads=16, spt=63\n"
    if media.floppy is not None:
        settings += "floppya: 1_44=floppy, status=inserted\n"
    (folder / "bochsrc").write_text(settings)
    # Debian's build has the debugger in it: it waits for a command at reset, and at the end.
    _, said = _run([program, "-q", "-f", "bochsrc"], folder, "c\nq\n", timeout)
    _, started, text = said.partition("<bochs:1> ")
    text = text.removeprefix("c\n")  # the echo of the command
    text, ended, why = text.partition("=" * 72)
    shutdown = "exception with no resolution" in why
    # the debugger's last word, about the instruction at which it stopped, comes before or behind that line
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("(0)"))
    if not (started and ended and (shutdown or "shutdown requested" in why)):
        raise OracleFailed(f"Bochs did not run the image to its end: {said[-2000:]} {_text(folder / 'log')[-2000:]}")
    return OracleResult(_text(folder / "serial"), text, None, shutdown)
