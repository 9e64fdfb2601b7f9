"""Code on Unicorn under udbserver, flat, stopped before its first instruction: `udbserver_guest.py PORT ADDRESS CODE`,
address and code in hexadecimal digits.

Run by the Python of an environment of its own, which has udbserver and none of our packages.
"""

import sys

from udbserver import udbserver  # type: ignore[import-not-found]  # in its own environment only
from unicorn import UC_ARCH_X86, UC_MODE_32, Uc

MEMORY = 64 << 20
#: A jump to the code, so that a breakpoint at its beginning is met.
JUMP_AT = 0x7000
JUMP = b"\xe9"

address, code = int(sys.argv[2], 16), bytes.fromhex(sys.argv[3])
machine = Uc(UC_ARCH_X86, UC_MODE_32)
machine.mem_map(0, MEMORY)
machine.mem_write(JUMP_AT, JUMP + (address - JUMP_AT - 5).to_bytes(4, "little", signed=True))
machine.mem_write(address, code)
udbserver(machine, int(sys.argv[1]), JUMP_AT)
machine.emu_start(JUMP_AT, MEMORY)
