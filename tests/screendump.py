"""QEMU's pictures to compare ours with: what an image that ends in CLI and HLT shows on isa-vga, by `screendump`."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

#: Seconds for all of QEMU's run, a safety net.
TIMEOUT = 60.0
#: How often the guest is asked whether it has halted, and seconds from one question to the next.
ASKED, PAUSE = 1000, 0.02


def qemu_picture(rom: bytes | None = None, disk: bytes | None = None) -> tuple[int, int, bytes]:
    """Width, height and pixels (red, green, blue) of the display once `rom`, or SeaBIOS and what it boots from `disk`,
    has halted. Skips the test without QEMU."""
    program = shutil.which("qemu-system-x86_64")
    if program is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "-accel", "tcg", "-M", "isapc", "-cpu", "qemu64,-apic", "-m", "16", "-no-reboot"]
        command += ["-nodefaults", "-device", "isa-vga,vgamem_mb=16", "-display", "none", "-monitor", "stdio"]
        if rom is not None:
            Path(folder, "rom").write_bytes(rom)
            command += ["-bios", "rom"]
        if disk is not None:
            Path(folder, "disk").write_bytes(disk)
            command += ["-drive", "file=disk,format=raw,if=ide,index=0"]
        with subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            for _ in range(ASKED):
                process.stdin.write("info registers\n")
                process.stdin.flush()
                if _halted(process):
                    break
                time.sleep(PAUSE)
            else:
                process.kill()
                pytest.fail("the image did not halt under QEMU")
            process.stdin.write("screendump picture\nquit\n")
            process.stdin.close()
            process.wait(TIMEOUT)
        return parse_ppm(Path(folder, "picture").read_bytes())


def _halted(process: subprocess.Popen[str]) -> bool:
    """Reads one answer up to its HLT field, which comes with EFL. Halted for good means with interrupts off."""
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"EFL=([0-9a-f]+) .*HLT=(\d)", line)
        if found:
            return found[2] == "1" and not int(found[1], 16) & 0x200
    return False


def parse_ppm(data: bytes) -> tuple[int, int, bytes]:
    """A binary PPM (P6, 255 levels) as width, height and pixels."""
    found = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", data)
    assert found, data[:20]
    return int(found[1]), int(found[2]), data[found.end() :]
