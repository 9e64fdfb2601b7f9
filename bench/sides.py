"""The two sides of each figure: v2e and QEMU, started the same way and stopped by the same hand."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

#: The end of a debug-exit write of 0, on both sides: (0 << 1) | 1.
GUEST_EXIT_STATUS = 1
#: What a guest sends to the debug console where what is timed begins, and where it ends.
MARKS = b"be"
START_SECONDS = 30.0
RUN_SECONDS = 300.0
MEMORY = "64M"
KERNEL_MEMORY = "128M"


#: The machine of each way to attach a disk: IDE of an isapc or a pc, or virtio-blk.
Bus = Literal["isa", "pci", "virtio"]
MACHINES: dict[Bus, str] = {"isa": "isapc", "pci": "pc", "virtio": "pc"}


class BenchError(Exception):
    """One sentence: what could not be measured and why."""


class FigureUnavailable(BenchError):
    """A figure cannot be measured for want of what it runs; the others can."""


@dataclass(frozen=True)
class Kernel:
    """A Linux kernel to enter, of 32 or 64 `bits`, its initrd and its command line, and the machine to do it on."""

    file: Path
    initrd: Path
    append: str
    machine: str = "isapc"
    bits: int = 32


@dataclass(frozen=True)
class Served:
    """A machine stopped at reset with a gdb port open: the address for `target remote`, the process id."""

    address: str
    pid: int


@dataclass(frozen=True)
class Side:
    """How one emulator is started. `firmware` is `seabios` or a ROM; `disk` a raw hard disk image or None."""

    name: str
    program: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """That of this process, less what would have Python compile its sources anew in every process."""
        return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def arguments(self, firmware: str, disk: Path | None, bus: Bus = "isa") -> list[str]:
        raise BenchError(f"{self.name} has no command line")

    def run(self, firmware: str, disk: Path | None, bus: Bus = "isa") -> float:
        """Seconds from the start of the process to its end by the guest's debug-exit write."""
        command = [*self.program, *self.arguments(firmware, disk, bus)]
        begin = time.perf_counter()
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self.environment,
            timeout=RUN_SECONDS,
            check=False,
        )
        seconds = time.perf_counter() - begin
        if done.returncode != GUEST_EXIT_STATUS:
            said = done.stderr.decode(errors="replace").strip() or "nothing"
            raise BenchError(f"{self.name} ended with status {done.returncode} and said: {said}")
        return seconds

    def debug_console(self) -> list[str]:
        """What shows on stdout at once what the guest sends to port E9h."""
        raise BenchError(f"{self.name} has no debug console")

    def timed(self, firmware: str, disk: Path | None, bus: Bus = "isa") -> float:
        """Seconds from the guest's first byte on the debug console to its second, behind which it ends as for `run`:
        the start and the end of the process are no part of it."""
        command = [*self.program, *self.arguments(firmware, disk, bus), *self.debug_console()]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=self.environment
            )
            assert process.stdout is not None
            alarm = threading.Timer(RUN_SECONDS, process.kill)
            alarm.start()
            said, times = b"", []
            try:
                while piece := os.read(process.stdout.fileno(), 1):
                    times.append(time.perf_counter())
                    said += piece
                process.wait()
            finally:
                alarm.cancel()
                process.kill()
                process.communicate()
            if process.returncode != GUEST_EXIT_STATUS or said != MARKS:
                errors.seek(0)
                complained = errors.read().decode(errors="replace").strip() or "nothing"
                status = f"{self.name} ended with status {process.returncode}"
                raise BenchError(f"{status}, its guest's marks are {said[:20]!r}, and said: {complained}")
        return times[1] - times[0]

    def kernel_program(self, kernel: Kernel) -> tuple[str, ...]:
        """The program that has a CPU for `kernel`."""
        return self.program

    def kernel_arguments(self, kernel: Kernel) -> list[str]:
        raise BenchError(f"{self.name} runs no kernels")

    def kernel_to(self, kernel: Kernel, text: bytes) -> float:
        """Seconds from the start of the process until the guest has sent `text` on its serial line. Raises
        FigureUnavailable when that takes too long, BenchError when the process ends before."""
        command = [*self.kernel_program(kernel), *self.kernel_arguments(kernel)]
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.environment
        )
        assert process.stdout is not None
        alarm = threading.Timer(RUN_SECONDS, process.kill)
        alarm.start()
        said = b""
        try:
            while text not in said:
                # a text may come in two pieces
                piece = os.read(process.stdout.fileno(), 1 << 16)
                if not piece and time.perf_counter() - begin >= RUN_SECONDS:
                    raise FigureUnavailable(f"{self.name}'s guest did not say {text!r} in {RUN_SECONDS:g} s")
                if not piece:
                    raise BenchError(f"{self.name}'s guest never said {text!r}; its last words: {said[-200:]!r}")
                said += piece
            return time.perf_counter() - begin
        finally:
            alarm.cancel()
            process.kill()
            process.communicate()

    def _serving(self, port: int) -> list[str]:
        raise BenchError(f"{self.name} has no gdb stub")

    @contextlib.contextmanager
    def serve(self, firmware: str, disk: Path | None) -> Iterator[Served]:
        """The machine under its gdb stub, stopped at reset."""
        with serving(self, lambda port: [*self.arguments(firmware, disk), *self._serving(port)]) as served:
            yield served


class V2e(Side):
    """This project, by its command line."""

    def __init__(self) -> None:
        super().__init__("v2e", (sys.executable, "-m", "repl.cli", "run"))

    def arguments(self, firmware: str, disk: Path | None, bus: Bus = "isa") -> list[str]:
        drive = [] if disk is None else ["--virtio" if bus == "virtio" else "--disk", str(disk)]
        return ["--machine", MACHINES[bus], "--memory", MEMORY, "--firmware", firmware, *drive, "--headless"]

    def debug_console(self) -> list[str]:
        return ["--debugcon", "stdio"]

    def kernel_arguments(self, kernel: Kernel) -> list[str]:
        files = ["--kernel", str(kernel.file), "--initrd", str(kernel.initrd), "--append", kernel.append]
        return ["--machine", kernel.machine, "--memory", KERNEL_MEMORY, *files, "--serial", "stdio", "--headless"]

    def _serving(self, port: int) -> list[str]:
        return ["--wait", "--gdb", str(port)]


class Qemu(Side):
    """QEMU's i386 TCG, without the devices that v2e's isapc lacks; a 64-bit kernel has the x86_64 one."""

    def __init__(self, name: str = "QEMU", *options: str) -> None:
        super().__init__(name, ("qemu-system-i386", *options))

    def kernel_program(self, kernel: Kernel) -> tuple[str, ...]:
        return self.program if kernel.bits == 32 else ("qemu-system-x86_64", *self.program[1:])

    def debug_console(self) -> list[str]:
        return ["-debugcon", "stdio"]

    def kernel_arguments(self, kernel: Kernel) -> list[str]:
        files = ["-kernel", str(kernel.file), "-initrd", str(kernel.initrd), "-append", kernel.append]
        cpu = f"qemu{kernel.bits}"
        machine = ["-accel", "tcg", "-machine", kernel.machine, "-cpu", cpu, "-m", KERNEL_MEMORY, "-nodefaults"]
        return [*machine, *files, "-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]

    def arguments(self, firmware: str, disk: Path | None, bus: Bus = "isa") -> list[str]:
        interface = "none,id=disk" if bus == "virtio" else "ide"
        drive = [] if disk is None else ["-drive", f"file={disk},format=raw,if={interface},snapshot=on"]
        if bus == "virtio":
            drive += ["-device", "virtio-blk-pci,drive=disk,vectors=0"]
        rom = [] if firmware == "seabios" else ["-bios", firmware]
        devices = ["-nodefaults", "-device", "isa-vga", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        quiet = ["-display", "none", "-monitor", "none", "-serial", "none", "-no-reboot"]
        return ["-accel", "tcg", "-machine", MACHINES[bus], "-m", MEMORY, *rom, *drive, *devices, *quiet]

    def _serving(self, port: int) -> list[str]:
        return ["-S", "-gdb", f"tcp:127.0.0.1:{port}"]


@contextlib.contextmanager
def serving(side: Side, arguments: Callable[[int], list[str]]) -> Iterator[Served]:
    """The side's program with these arguments, which have it serve gdb at a port."""
    port = _free_port()
    with tempfile.TemporaryFile() as said:  # a pipe would be full some time
        process = subprocess.Popen(
            [*side.program, *arguments(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=side.environment,
        )
        try:
            _wait_listening(port, process, side.name, said)
            yield Served(f"127.0.0.1:{port}", process.pid)
        finally:
            process.kill()
            process.wait()


def resident(pid: int) -> float:
    """MiB of memory that a process holds resident (`VmRSS` of proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise BenchError(f"process {pid} has no VmRSS")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_listening(port: int, process: subprocess.Popen[bytes], name: str, errors: IO[bytes]) -> None:
    """Wait for the port without connecting to it: a stub may take its first client for the only one."""
    wanted = (f"0100007F:{port:04X}", f"00000000:{port:04X}")  # on the loopback interface, or on all
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        if any(fields[1] in wanted and fields[3] == "0A" for fields in map(str.split, lines)):
            return
        if process.poll() is not None:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            raise BenchError(f"{name} ended with status {process.returncode} before it served gdb: {said}")
        time.sleep(0.005)
    raise BenchError(f"{name} did not open port {port} in {START_SECONDS:g} s")


def sides(names: Sequence[str]) -> tuple[Side, ...]:
    """The sides of these names, in order."""
    known: dict[str, Callable[[], Side]] = {
        "v2e": V2e,
        "qemu": Qemu,
        "icount": lambda: Qemu("icount", "-icount", "shift=0"),
    }
    return tuple(known[name]() for name in names)
