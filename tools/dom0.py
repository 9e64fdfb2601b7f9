"""`make test-xen`: boots a real Xen under QEMU with a dom0 whose first process is our tests, and tells what they say.

Nothing is installed: hypervisor, kernel, Python and Xen's libraries are Debian's packages, unpacked into an initramfs.
The results come on the second serial line, a line of JSON a test (tests/xen/dom0/conftest.py), then `status N`.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import assets
from tools import dom0_gdb
from tools.dom0_image import initramfs

#: Seconds of the host's CPU that QEMU takes from power-on to power-off, some times over: more is a hang. Seconds by a
#: clock are no measure, as nobody knows what else the host does meanwhile.
PATIENCE = 1000
#: Seconds by the clock without a bit of CPU time, and between two looks at that.
STILL, LOOK = 900, 2
#: An instruction takes 2 ** SHIFT ns of the machine's time, and a machine that only waits has its next timer's instant
#: at once. So its time is one of its work alone: a host that is slow, busy or asleep makes it no different, and no wait
#: in dom0, of our tests or of Xen's tools, meets an end of its patience for that.
SHIFT = 3
#: MiB of the whole machine and of dom0; what is left is Xen's and the domains'. Of 640 some 190 were left beside the
#: last tests, a device model and a second Python among them.
MEMORY, DOM0_MEMORY = 2048, 1408
#: QEMU emulates SVM with nested paging, which is what Xen needs for HVM domains. Xen 4.17 does not start with SMAP
#: as QEMU emulates it.
CPU = "max,-smap"
#: More failures than so many are not looked at once more: they are no matter of one instant.
FEW = 3
#: Lines of the console that are shown when the tests did not come to their end.
TAIL = 40
#: What is run unless others are asked for (`ONLY=EXPRESSION`). QEMU may deliver an interrupt twice, which SeaBIOS does
#: not bear (docs/xen.md, Tests). With the tests that are left out here before it test_xl met that in one of four runs,
#: without them in none of twelve: it depends on the instants at which timers meet, not on what those tests do.
USUAL = "not xcr0 and not xsave and not step_checks and not comes_before_a_lower and not what_xen_has_and_the_tick"
#: Above it, a shell's status is that of a process which a signal has ended.
SIGNALLED = 128


class Dom0Error(Exception):
    """One sentence: why the tests have no result."""


@dataclass
class Outcome:
    """What has come over the serial line."""

    collected: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {"passed": 0, "failed": 0, "skipped": 0})
    status: int | None = None
    last: str = ""  #: the test that was heard of last
    failed: list[str] = field(default_factory=list)
    unheard: list[str] = field(default_factory=list)  #: tests that were collected, and of which nothing has come yet

    def take(self, line: str) -> str:
        """One line of the protocol; returns what people are shown of it. Raises Dom0Error for a line that is none."""
        if line.startswith("status "):
            self.status = int(line.split()[1])
            return ""
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:
            raise Dom0Error(f"dom0 said what is no result: {line!r}") from None
        if "table" in said:
            return "\n".join(map(str, said["table"]))
        if "collected" in said:
            self.collected, self.unheard = int(said["collected"]), [str(test) for test in said.get("tests", ())]
            return f"{self.collected} tests in dom0"
        self.counts[said["outcome"]] += 1
        self.last = str(said["test"])
        if self.last in self.unheard:
            self.unheard.remove(self.last)
        if said["outcome"] == "failed":
            self.failed.append(self.last)
        text = f"{said['outcome'].upper()} {said['test']} ({said['seconds']} s)"
        return f"{text}\n{said['text']}" if said["text"] else text

    def summary(self, seconds: float) -> str:
        """As pytest's last line."""
        parts = [f"{count} {name}" for name, count in self.counts.items() if count or name == "passed"]
        return f"{', '.join(parts)} in dom0, {seconds:.0f} s from power-on to power-off"

    def broken_off(self, status: int, ended: str) -> str:
        """Why there is no result, where QEMU ended with `status` before dom0 had said one, or was `ended` for that."""
        why = ended or f"QEMU ended with status {status}"
        heard = f"{sum(self.counts.values())} of {self.collected} tests had been heard of"
        return f"dom0 did not come to the end of its tests: {why}; {heard}, the last of them {self.last or 'none'}"

    @property
    def crash(self) -> str:
        """That a signal has ended pytest: where it was stands on the console; "" if none has."""
        number = (self.status or 0) - SIGNALLED
        return f"signal {number} ended pytest" if number > 0 else ""

    @property
    def good(self) -> bool:
        """All that was collected has been heard of, and nothing failed."""
        return self.status == 0 and not self.counts["failed"] and sum(self.counts.values()) == self.collected > 0


def qemu_command(qemu: str, append: str = "") -> list[str]:
    """QEMU's command line in a folder that holds `xen`, `vmlinuz` and `initrd`; the second serial line is stdout."""
    return [
        qemu, "-accel", "tcg", "-machine", "q35", "-cpu", CPU, "-smp", "1", "-m", str(MEMORY), "-display", "none",
        "-no-reboot", "-net", "none", "-monitor", "none", "-serial", "file:console", "-serial", "stdio",
        "-icount", f"shift={SHIFT},sleep=off", "-rtc", "base=2026-01-01,clock=vm",
        *dom0_gdb.serial_lines(),
        "-kernel", "xen",
        "-append", f"console=com1 com1=115200,8n1 dom0_mem={DOM0_MEMORY}M,max:{DOM0_MEMORY}M {append}".strip(),
        "-initrd", "vmlinuz console=hvc0 quiet,initrd",
    ]  # fmt: skip


def lay_out(folder: Path, arguments: str, only: Sequence[str] = ()) -> None:
    """What QEMU boots, into `folder`, for the tests that `arguments` of pytest's leave, or `only` these. Raises
    AssetMissing."""
    packages, xl = assets.whole("dom0"), assets.whole("xl")
    xen = assets.file("dom0", assets.XEN, "boot/xen-*-amd64.gz")
    # A multiboot loader wants the ELF file itself.
    (folder / "xen").write_bytes(gzip.decompress(xen.read_bytes()))
    shutil.copy(assets.file("dom0", assets.LINUX["amd64"], "boot/vmlinuz-*"), folder / "vmlinuz")
    (folder / "initrd").write_bytes(initramfs(packages, xl, arguments, only))


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process has had, its own and the kernel's for it (proc(5)). Raises OSError without one."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watchdog:
    """Ends a process that hangs: one that takes more than PATIENCE, or for STILL nothing at all. A context manager."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.ended = ""  #: why it was ended
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="v2e-dom0-watchdog", daemon=True)

    def _watch(self) -> None:
        had, since = -1.0, time.monotonic()
        while not self.ended and not self._over.wait(LOOK):
            try:
                has = cpu_seconds(self._process.pid)
            except OSError:
                return  # it has ended
            if has != had:
                had, since = has, time.monotonic()
            if has > PATIENCE:
                self.ended = f"it had taken {PATIENCE} s of CPU time"
            elif time.monotonic() - since > STILL:
                self.ended = f"it had taken no CPU time for {STILL} s"
        if self.ended:
            self._process.kill()

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """The lines of the second serial line, until QEMU ends."""
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.strip():
                yield line.strip()
    finally:
        process.kill()
        process.wait()


def run(folder: Path, qemu: str) -> Outcome:
    """Boot what `folder` holds and hear its tests out. Raises Dom0Error."""
    outcome = Outcome()
    process = subprocess.Popen(
        qemu_command(qemu), cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace"
    )
    assert process.stdin is not None
    with Watchdog(process) as watchdog:
        for line in lines(process):
            if (commands := dom0_gdb.wanted(line)) is not None:
                with contextlib.suppress(BrokenPipeError):  # QEMU has ended meanwhile, which is said below
                    process.stdin.write(dom0_gdb.answer(folder, commands))
                    process.stdin.flush()
            elif text := outcome.take(line):
                print(text, flush=True)
    if outcome.status is None or outcome.crash:
        console = (folder / "console").read_text(errors="replace").splitlines()
        print("\n".join(console[-TAIL:]))
    if outcome.status is None:
        raise Dom0Error(outcome.broken_off(process.returncode, watchdog.ended))
    return outcome


def attempt(folder: Path, qemu: str, arguments: str, only: Sequence[str]) -> Outcome | None:
    """One dom0 and what it comes to, which is printed; None where there is no result. Raises AssetMissing."""
    lay_out(folder, arguments, only)
    began = time.monotonic()
    try:
        outcome = run(folder, qemu)
    except Dom0Error as error:
        print(f"test-xen: {error}")
        return None
    if not outcome.good:
        print(f"test-xen: {outcome.crash or f'pytest in dom0 ended with status {outcome.status}'}")
    print(outcome.summary(time.monotonic() - began))
    return outcome


def attempts(folder: Path, qemu: str, arguments: str, *, again: bool) -> bool:
    """True when all passed, or, with `again`, what failed, or was cut off, passed in a second dom0. Raises
    AssetMissing."""
    outcome = attempt(folder, qemu, arguments, ())
    if outcome is not None and outcome.good:
        return True
    failed: list[str] = []
    if outcome is not None:
        failed = outcome.failed + (outcome.unheard if outcome.crash else [])
    if not again or (outcome is not None and not (failed and len(outcome.failed) <= FEW)):
        return False
    print(f"test-xen: once more, in a second dom0: {', '.join(failed) or 'all tests'}", flush=True)
    second = attempt(folder, qemu, arguments, failed)
    if second is None or not second.good:
        return False
    print(f"test-xen: passed the second time only, see above: {', '.join(failed) or 'all tests'}")
    return True


def skipped(why: str) -> int:
    """Say so in the last line; returns the exit status."""
    print(f"SKIPPED test-xen, not one test was run: {why}")
    return 0


def main() -> int:
    """0: all passed, or SKIPPED with the reason where this host cannot run it at all; 1: some failed, or there is no
    result, or Debian's archive answers and no longer has what is needed, which would else be skipped for ever."""
    parser = argparse.ArgumentParser(prog="make test-xen", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-k", metavar="EXPRESSION", help="only these tests, as pytest's -k")
    parser.add_argument("--console", metavar="FILE", help="keep what the console said")
    parser.add_argument("--again", action="store_true", help="what fails once more, in a second dom0; both are told")
    options = parser.parse_args()
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        return skipped("qemu-system-x86_64 is not there (Debian package qemu-system-x86)")
    with tempfile.TemporaryDirectory(prefix="v2e-dom0-") as name:
        folder = Path(name)
        try:
            good = attempts(folder, qemu, f"-k {shlex.quote(options.k or USUAL)}", again=options.again)
        except assets.AssetGone as gone:
            print(f"test-xen: {gone}, although Debian's archive answers: bench/assets.py is to be mended")
            return 1
        except assets.AssetMissing as missing:
            return skipped(str(missing))
        finally:
            if options.console and (folder / "console").exists():
                shutil.copy(folder / "console", options.console)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
