"""A session on a real machine with its worker, without a socket: what a client is told, packet by packet."""

from __future__ import annotations

import threading
from collections.abc import Callable

from emu.debugger import Debugger
from emu.worker import Worker
from machines import debugger as make_debugger
from stub.adapter import DebuggerTarget
from stub.session import Session
from stub_fakes import GDB_FEATURES, Client

PATIENCE = 60


class Rig:
    """A session on a machine with its worker; `ask` runs on the machine's thread, as a server does."""

    def __init__(self, firmware: bytes, **config: object) -> None:
        self.debugger: Debugger = make_debugger(firmware, **config)
        self.worker = Worker(self.debugger)
        self.worker.start()
        self.killed = threading.Event()
        self.target = DebuggerTarget(self.debugger, self.worker, on_kill=self.killed.set)
        self.ready = threading.Semaphore(0)
        self.errors: list[Exception] = []
        self.session = Session(self.target, on_error=self.errors.append, on_output=self.ready.release)
        self.client = Client(self.session)
        self.ask(GDB_FEATURES)
        self.ask("qXfer:features:read:target.xml:0,1ffff")
        self.names = [r.name for r in self.target.describe().registers]

    def on_machine(self, fn: Callable[[], list[bytes]]) -> list[bytes]:
        return self.worker.call(fn, PATIENCE)

    def ask(self, payload: str) -> list[bytes]:
        return self.on_machine(lambda: self.client.ask(payload))

    def one(self, payload: str) -> bytes:
        (answer,) = self.ask(payload)
        return answer

    def resume(self, payload: str = "vCont;c") -> list[bytes]:
        """Resume and wait for the stop: what the client is sent then."""
        return self.ask(payload) or self.wait()  # it may stop within the resuming packet

    def wait(self) -> list[bytes]:
        assert self.ready.acquire(timeout=PATIENCE)
        return self.on_machine(lambda: self.client.incoming(self.session.data_to_send()))

    def register(self, name: str) -> int:
        raw = bytes.fromhex(self.one(f"p{self.names.index(name):x}").decode())
        return int.from_bytes(raw, "little")

    def write(self, name: str, value: int) -> bytes:
        number = self.names.index(name)
        size = self.target.describe().registers[number].size
        return self.one(f"P{number:x}={value.to_bytes(size, 'little').hex()}")
