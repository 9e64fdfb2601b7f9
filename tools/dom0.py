"""`make test-xen`: boots a real Xen under QEMU with a dom0 whose first process is our tests, and tells what they say.

Nothing is installed: hypervisor, kernel, Python and Xen's libraries are Debian's packages, unpacked into an initramfs.
The results come on the second serial line, a line of JSON a test (tests/xen/dom0/conftest.py), then `status N`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
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
from collections import Counter
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
#: Tests that have a dom0 of their own, behind that of the others, unless tests are asked for by name
#: (`ONLY=EXPRESSION`). QEMU may deliver an interrupt twice, which SeaBIOS does not bear (docs/xen.md, Tests). With
#: these before it test_xl met that in one of four runs, without them in none of twelve: it depends on the instants at
#: which timers meet, not on what those tests do.
APART = "xcr0 or xsave or step_checks or comes_before_a_lower or what_xen_has_and_the_tick"
SESSIONS = (f"not ({APART})", APART)
#: Above it, a shell's status is that of a process which a signal has ended.
SIGNALLED = 128


class Dom0Error(Exception):
    """One sentence: why the tests have no result."""


@dataclass
class Outcome:
    """What has come over the serial line."""

    tests: list[str] = field(default_factory=list)  #: that were collected
    results: dict[str, str] = field(default_factory=dict)  #: by test, in the order of their ends
    again: int = 0  #: starts of a domain that were made once more
    status: int | None = None  #: pytest's; None: dom0 has not come to the end of its tests

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
        if "again" in said:
            self.again += 1
            return f"ONCE MORE {said['again']}"
        if "tests" in said:
            self.tests = [str(test) for test in said["tests"]]
            return f"{len(self.tests)} tests in dom0"
        self.results[str(said["test"])] = said["outcome"]
        text = f"{said['outcome'].upper()} {said['test']} ({said['seconds']} s)"
        return f"{text}\n{said['text']}" if said["text"] else text

    def counted(self) -> str:
        """As in pytest's last line."""
        numbers = Counter(self.results.values())
        parts = [
            f"{numbers[name]} {name}" for name in ("passed", "failed", "skipped") if numbers[name] or name == "passed"
        ]
        if self.unheard:
            parts.append(f"{len(self.unheard)} not heard of")
        if self.again:
            parts.append(f"{self.again} start{'s' * (self.again > 1)} of a domain made once more")
        return ", ".join(parts)

    def broken_off(self, status: int, ended: str) -> str:
        """Why there is no result, where QEMU ended with `status` before dom0 had said one, or was `ended` for that."""
        why = ended or f"QEMU ended with status {status}"
        heard, last = f"{len(self.results)} of {len(self.tests)} tests", next(reversed(self.results), "none")
        return f"dom0 did not come to the end of its tests: {why}; {heard} had been heard of, the last of them {last}"

    @property
    def failed(self) -> list[str]:
        """Tests that did."""
        return [test for test, outcome in self.results.items() if outcome == "failed"]

    @property
    def unheard(self) -> list[str]:
        """Tests that were collected, and of which nothing has come."""
        return [test for test in self.tests if test not in self.results]

    @property
    def crash(self) -> str:
        """That a signal has ended pytest: where it was stands on the console; "" if none has."""
        number = (self.status or 0) - SIGNALLED
        return f"signal {number} ended pytest" if number > 0 else ""

    @property
    def good(self) -> bool:
        """All that was collected has been heard of, and nothing failed."""
        return self.status == 0 and not self.failed and bool(self.tests) and not self.unheard

    def beside(self, other: Outcome) -> Outcome:
        """All that came in this dom0 and in a later one, whose status it has, and whose result of a test in both."""
        tests = list(dict.fromkeys((*self.tests, *other.tests)))
        return Outcome(tests, self.results | other.results, self.again + other.again, other.status)


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


def run(folder: Path, qemu: str, outcome: Outcome) -> None:
    """Boot what `folder` holds and hear its tests out. Raises Dom0Error."""
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


def attempt(folder: Path, qemu: str, arguments: str, only: Sequence[str]) -> Outcome:
    """One dom0 and what it comes to, which is printed. Raises AssetMissing."""
    lay_out(folder, arguments, only)
    outcome, began = Outcome(), time.monotonic()
    try:
        run(folder, qemu, outcome)
    except Dom0Error as error:
        outcome.status = None
        print(f"test-xen: {error}")
        return outcome
    if not outcome.good:
        print(f"test-xen: {outcome.crash or f'pytest in dom0 ended with status {outcome.status}'}")
    print(f"{outcome.counted()} in dom0, {time.monotonic() - began:.0f} s from power-on to power-off", flush=True)
    return outcome


def attempts(folder: Path, qemu: str, arguments: str, *, again: bool) -> tuple[Outcome, list[str]]:
    """What the tests of one session come to. With `again`, what failed, or was cut off, is run in another dom0, whose
    results count; and which tests passed there only. Raises AssetMissing."""
    first = attempt(folder, qemu, arguments, ())
    if first.good or not again:
        return first, []
    failed = first.failed + (first.unheard if first.crash else [])
    if first.status is None:
        failed = []
    elif not failed or len(first.failed) > FEW:
        return first, []
    names = ", ".join(failed) or "all tests"
    print(f"test-xen: once more, in another dom0: {names}", flush=True)
    second = attempt(folder, qemu, arguments, failed)
    if second.good:
        print(f"test-xen: passed the second time only, see above: {names}")
    return first.beside(second), (failed or ["all tests"]) if second.good else []


def total(outcomes: Sequence[Outcome], late: Sequence[str], seconds: float) -> str:
    """What all sessions come to, in a line. `late`: tests that passed the second time only."""
    each = " and ".join(str(Counter(outcome.results.values())["passed"]) for outcome in outcomes)
    broken = [str(number) for number, outcome in enumerate(outcomes, 1) if outcome.status is None]
    all_of_them = functools.reduce(Outcome.beside, outcomes)
    parts = [f"{all_of_them.counted()} in {len(outcomes)} dom0s ({each} passed), {seconds:.0f} s in all"]
    if broken:
        parts.append(f"without an end: dom0 {', '.join(broken)}")
    if late:
        parts.append(f"passed the second time only: {', '.join(late)}")
    return "; ".join(parts)


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
    parser.add_argument("--again", action="store_true", help="what fails once more, in another dom0; both are told")
    options = parser.parse_args()
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        return skipped("qemu-system-x86_64 is not there (Debian package qemu-system-x86)")
    sessions = SESSIONS if options.k is None else (options.k,)
    outcomes: list[Outcome] = []
    late: list[str] = []
    began = time.monotonic()
    for number, expression in enumerate(sessions, 1):
        if len(sessions) > 1:
            print(f"test-xen: dom0 {number} of {len(sessions)}", flush=True)
        with tempfile.TemporaryDirectory(prefix="v2e-dom0-") as name:
            folder = Path(name)
            try:
                outcome, second_time = attempts(folder, qemu, f"-k {shlex.quote(expression)}", again=options.again)
            except assets.AssetGone as gone:
                print(f"test-xen: {gone}, although Debian's archive answers: bench/assets.py is to be mended")
                return 1
            except assets.AssetMissing as missing:
                if outcomes:  # which is no reason to say that nothing was run
                    print(f"test-xen: {missing}")
                    return 1
                return skipped(str(missing))
            finally:
                if options.console and (folder / "console").exists():
                    with open(options.console, "ab" if number > 1 else "wb") as file:
                        file.write((folder / "console").read_bytes())
        outcomes.append(outcome)
        late += second_time
    if len(outcomes) > 1:
        print(total(outcomes, late, time.monotonic() - began))
    return 0 if all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
