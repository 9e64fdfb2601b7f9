"""RAM costs the host only what the guest touches, up to the 3 GiB that a machine may have."""

from __future__ import annotations

import subprocess
import sys

import pytest

from asm import assemble
from machines import READING, reading_debugger, seabios_pc

#: Builds a machine, touches the first and the last page of its RAM, saves it, and prints the growth of the process in
#: KiB of resident memory, and how many bytes of RAM the guest sees.
GUEST = """
import sys
from emu.machine import MachineConfig, build_machine

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

def build(size):
    return build_machine(MachineConfig(machine=sys.argv[1], memory=size, firmware=b"\\xf4" * 0x10000))

build(1 << 20).close()
before = resident()
machine = build(3 << 30)
machine.run(1000)
machine.write_physical((3 << 30) - 4, b"last")
machine.save()
print(resident() - before, machine.read_physical((3 << 30) - 4, 4), machine.readable_physical((3 << 30) - 4, 8))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the resident memory")
@pytest.mark.parametrize("kind", ("isapc", "pc"))
def test_3_gib_take_a_few_mib(kind):
    done = subprocess.run([sys.executable, "-c", GUEST, kind], capture_output=True, text=True, check=True)
    grown, *rest = done.stdout.split()
    assert rest == ["b'last'", "4"]
    assert int(grown) < 24 << 10, grown


def test_seabios_boots_with_3_gib_on_both_machines():
    on_pc = seabios_pc(assemble(READING), memory=3 << 30)
    assert on_pc.run(200_000_000).code == 0x55
    assert "0000000000100000 - 00000000bffff000 = 1 RAM" in on_pc.debugcon_text()
    on_isapc = reading_debugger(memory=3 << 30).machine
    assert on_isapc.run(200_000_000).code == 0x55
