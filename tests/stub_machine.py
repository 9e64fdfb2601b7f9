"""A session with the real machine behind it, without a socket; and what this process holds of memory."""

from __future__ import annotations

import os
from pathlib import Path

from emu.debugger import Debugger
from emu.machine import MachineConfig, build_machine
from emu.worker import Worker
from machines import rom
from stub.adapter import DebuggerTarget
from stub.session import RunCommand, Session
from stub_fakes import Client


def resident() -> int:
    """Bytes of this process that are in memory (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Asker:
    """A client of a machine whose guest counts in memory for ever; bytes are handled on the machine's thread."""

    def __init__(self) -> None:
        firmware = rom("cli\nl: inc eax\ninc dword [0x500]\njmp l")
        self.debugger = Debugger(build_machine(MachineConfig(memory=1 << 20, firmware=firmware, shadow=False)))
        self.worker = Worker(self.debugger)
        self.worker.start()
        self.errors: list[Exception] = []
        target = DebuggerTarget(self.debugger, self.worker)
        self.client = Client(Session(target, has_runner=True, on_error=self.errors.append))

    def feed(self, data: bytes) -> None:
        """What a server does with bytes, on the machine's thread."""
        session = self.client.session
        events = session.receive_data(data)
        while session.data_to_send():
            events += session.receive_data(b"")
        for event in events:
            if isinstance(event, RunCommand):
                session.command_finished("done")
                session.data_to_send()

    def close(self) -> None:
        self.worker.close()
        self.debugger.machine.close()
