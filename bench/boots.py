"""How long each boot of the table in tests/boots takes beside QEMU: `python -m bench.boots [NAME ...]`.

Both are whole processes, from their start until the row's event; a text on QEMU's screen is looked for in its memory,
every 20 ms. Nothing is asserted. Needs a checkout, as the table is the tests'.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.sides import BenchError

TESTS = Path(__file__).parents[1] / "tests"
SECONDS = 300.0  #: the longest that a boot may take
PAUSE = 0.02
TEXT_MEMORY, TEXT_BYTES, COLUMNS = 0xB8000, 4000, 80


def qemu_arguments(boot: Any, firmware: str, options: list[str]) -> list[str]:
    """QEMU's words for what `options` of `v2e run` ask for."""
    given = dict(zip(options[::2], options[1::2], strict=True))
    words = ["qemu-system-x86_64", "-accel", "tcg", "-M", boot.machine, "-m", boot.memory, "-no-reboot", "-net", "none"]
    words += ["-display", "none", "-monitor", "stdio", "-serial", "file:serial"]
    words += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
    if boot.machine == "isapc":
        words += ["-cpu", "qemu64,-apic"]
    if firmware not in ("seabios", "builtin", "none"):  # QEMU has SeaBIOS in place of ours
        words += ["-bios", given["--firmware"]]
    drives = {"--floppy": "if=floppy", "--disk": "if=ide", "--cdrom": "if=ide,media=cdrom"}
    for option, drive in drives.items():
        if option in given:
            words += ["-drive", f"{drive},file={given[option]},format=raw,snapshot=on"]
    for option in ("--kernel", "--initrd", "--append"):
        if option in given:
            words += [f"-{option[2:]}", given[option]]
    return words


def qemu_seconds(boot: Any, firmware: str, options: list[str], folder: Path) -> float:
    """Process start to the row's event. Raises BenchError."""
    kind, _, pattern = boot.event.partition(":")
    wanted = re.compile(pattern, re.MULTILINE)
    (folder / "serial").write_bytes(b"")
    begin = time.perf_counter()
    process = subprocess.Popen(
        qemu_arguments(boot, firmware, options), cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    try:
        while time.perf_counter() - begin < SECONDS:
            if process.poll() is not None:
                if kind != "exit" and not (kind != "text" and wanted.search(_said(kind, folder))):
                    raise BenchError(f"QEMU ended with status {process.returncode} before {boot.event}")
                return time.perf_counter() - begin
            if kind == "text":
                process.stdin.write(f"pmemsave {TEXT_MEMORY:#x} {TEXT_BYTES} screen\n".encode())
                process.stdin.flush()
            if kind != "exit" and wanted.search(_said(kind, folder)):
                return time.perf_counter() - begin
            time.sleep(PAUSE)
        raise BenchError(f"QEMU did not come to {boot.event} in {SECONDS:g} s")
    finally:
        process.kill()
        process.communicate()


def _said(kind: str, folder: Path) -> str:
    """The serial line's text, or the screen's rows as `--until` has them."""
    if kind == "serial":
        return (folder / "serial").read_text("latin-1")
    screen = folder / "screen"
    cells = screen.read_bytes()[::2] if screen.exists() else b""
    rows = [cells[at : at + COLUMNS].decode("latin-1").rstrip(" \0") for at in range(0, len(cells), COLUMNS)]
    return "\n".join(rows)


def v2e_seconds(boot: Any, options: list[str]) -> float:
    """The same of v2e's command line. Raises BenchError."""
    command = [sys.executable, "-m", "repl.cli", "run", *options, "--headless", "--until", boot.event]
    command += ["--limit", str(boot.budget * 1_000_000)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=SECONDS,
            env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BenchError(f"v2e did not come to {boot.event} in {SECONDS:g} s") from None
    if done.returncode not in (0, 1):
        raise BenchError(f"v2e ended with status {done.returncode}: {done.stderr.strip()}")
    return time.perf_counter() - begin


def tests() -> tuple[Any, Any, type[BaseException]] | None:
    """The table of boots, what the tests make machines with, and what they skip by; None where they are not, which
    has been said."""
    sys.path.insert(0, str(TESTS))
    try:
        table, machines = (importlib.import_module(name) for name in ("boots.table", "boots.machines"))
    except ModuleNotFoundError as missing:
        print(f"bench: the table of boots is not there ({missing}): run this in a checkout", file=sys.stderr)
        return None
    return table, machines, importlib.import_module("pytest").skip.Exception


def main(names: list[str]) -> int:
    """A line for each row that is named, without names for all: v2e's and QEMU's seconds, and their ratio."""
    if (found := tests()) is None:
        return 2
    table, machines, skipped = found
    unknown = set(names) - {boot.name for boot in table.BOOTS}
    if unknown:
        print(f"bench: no boot is called {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    print(f"{'boot':34}{'v2e, s':>9}{'QEMU, s':>9}{'ratio':>7}")
    for boot in table.BOOTS:
        for firmware in boot.firmwares if not names or boot.name in names else ():
            print(_line(boot, firmware, machines, skipped), flush=True)
    return 0


def _line(boot: Any, firmware: str, machines: Any, skipped: type[BaseException]) -> str:
    title = f"{boot.name} ({firmware})"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            options = machines.options_of(boot, firmware, folder)
            ours = v2e_seconds(boot, options)
            theirs = qemu_seconds(boot, firmware, machines.options_of(boot, firmware, folder), folder)
        except skipped as reason:
            return f"{title:34} {reason}"
        except BenchError as error:
            return f"{title:34} {error}"
    return f"{title:34}{ours:9.2f}{theirs:9.2f}{ours / theirs:7.2f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
