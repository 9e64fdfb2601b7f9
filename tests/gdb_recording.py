"""What a real gdb and the stub say to each other, taken down by a proxy between them.

`python tests/gdb_recording.py` makes tests/stub/recorded/*.rsp anew: the bytes of the client alone, for tests that
mutate and cut them.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from asm import assemble
from repl.harness import Server

RECORDED = Path(__file__).parent / "stub" / "recorded"
SECONDS = 30
#: A boot ROM: counts at 500h for ever, in a function.
LOOP = """
    bits 16
    org 0
    start:
        cli
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x1000
    again:
        call work
        jmp again
    work:
        inc word [0x500]
        ret
    times 0xfff0-($-$$) db 0xf4
        jmp 0xf000:start
    times 0x10000-($-$$) db 0
    """
WORK = 0xF000F
#: Name of the session: how gdb connects, and what a person types.
SESSIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "look": ("remote", (
        f"hbreak *{WORK:#x}", "continue", "x/4i $pc", "p $eax", "p $gdtr", "find /b 0, 0xfff, 0x55, 0xaa",
        "set {short}0x500 = 7", "p $ecx = 5", "monitor pc", "delete", "detach",
    )),
    "step": ("remote", (
        f"hbreak *{WORK:#x} if *(short*)0x500 == 3", "continue", "stepi", "stepi", "watch *(short*)0x500", "continue",
        "info threads", "kill",
    )),
    "again": ("extended-remote", (
        f"hbreak *{WORK:#x}", "run", "continue", "kill", "run", "maintenance packet Qqemu.PhyMemMode:1", "x/x 0x500",
        "monitor detach stop", "detach",
    )),
}  # fmt: skip


class Proxy:
    """Listens for one client, passes bytes on to `address`, and keeps them: (from the client?, bytes), as they came."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._server = socket.create_connection((host, int(port)))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.said: list[tuple[bool, bytes]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        client, _ = self._listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, self._server as server:
            while True:
                for end in select.select([client, server], [], [])[0]:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    self.said.append((end is client, data))
                    (server if end is client else client).sendall(data)

    def wait(self) -> list[tuple[bool, bytes]]:
        """All that was said, when one of the two has closed."""
        self._thread.join(SECONDS)
        self._listener.close()
        return self.said


def record(rom: Path, how: str, commands: Sequence[str]) -> list[tuple[bool, bytes]]:
    """A session of gdb with a machine of its own."""
    server = Server(["--firmware", str(rom)])
    try:
        proxy = Proxy(server.address)
        lines = ["set pagination off", "set confirm off", f"target {how} {proxy.address}", *commands]
        arguments = [word for line in lines for word in ("-ex", line)]
        subprocess.run(["gdb", "-q", "-nx", "-batch", *arguments], capture_output=True, timeout=SECONDS, check=False)
        return proxy.wait()
    finally:
        server.close()


def main() -> None:
    """Record all sessions."""
    RECORDED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        rom = Path(folder, "rom")
        rom.write_bytes(assemble(LOOP))
        for name, (how, commands) in SESSIONS.items():
            said = record(rom, how, commands)
            (RECORDED / f"{name}.rsp").write_bytes(b"".join(data for from_client, data in said if from_client))


if __name__ == "__main__":
    main()
