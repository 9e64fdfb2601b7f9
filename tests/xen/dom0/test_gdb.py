"""A real gdb outside, on the host, and our stub in dom0: a session into a domain over an emulated serial line."""

import os
import subprocess
import sys
import termios
import tty

import pytest

from machines import booted, sector, served, until, word
from xenbridge.xen.domain import TIMER_MODE_PARAM
from xenbridge.xen.guest import BOOT

COM4 = "/dev/ttyS3"
HALTS = BOOT + sector("counts").index(b"\xf4\x66\xff")
JUMPS = HALTS + 6


@pytest.fixture
def attached(libraries):
    """v2e on a domain that counts, with its stub at COM4."""
    guest, _ = booted(libraries, "counts")
    guest.domain.set_param(TIMER_MODE_PARAM, 2)  # ticks that are missed while it is paused are dropped
    guest.domain.resume()
    line = os.open(COM4, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(line, termios.TCSANOW)
    command = [sys.executable, "-m", "repl.cli", "attach", str(guest.domain.domid), "--gdb", "stdio"]
    stub = subprocess.Popen(command, stdin=line, stdout=line, stderr=subprocess.PIPE, text=True)
    with served(guest):
        yield guest, stub
    if stub.poll() is None:
        stub.terminate()
    stub.wait(30)
    os.close(line)
    guest.close()


@pytest.mark.timeout(0)  # gdb takes the host's time, of which dom0 knows nothing
def test_gdb_outside_breaks_steps_and_looks_into_a_domain_and_lets_it_go(attached, outside_gdb) -> None:
    guest, stub = attached
    said = outside_gdb(
        f"break *{JUMPS:#x}", "continue", "stepi", "stepi", "info registers eip cs_base cs_limit", "monitor sreg",
        "set var $esi = 0x1234", "print $esi", "print/x *(unsigned short *) 0x7dfe", "delete", "detach",
    )  # fmt: skip
    assert f"Breakpoint 1, {JUMPS:#010x}" in said, (said, guest.requests[-3:])
    assert f"{HALTS:#010x} in ?? ()" in said, said
    assert f"{HALTS + 1:#010x} in ?? ()" in said, said
    assert "cs_limit       0xffff" in said
    assert "$1 = 4660" in said
    assert "$2 = 0xaa55" in said
    assert stub.wait(60) == 0
    assert guest.domain.memory.read(BOOT, 512) == sector("counts")
    assert guest.domain.cpu_state().regs[6] == 0x1234
    seen = word(guest, 0x600, 4)
    assert until(lambda: word(guest, 0x600, 4) > seen)
