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
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from asm import assemble
from machines import rom_text
from repl.harness import Server

RECORDED = Path(__file__).parent / "stub" / "recorded"
SECONDS = 60
PAUSE = 0.5  #: seconds between two lines of a live session
#: A boot ROM: counts at 500h for ever, in a function.
LOOP = rom_text("""
        mov ss, ax
        mov sp, 0x1000
    again:
        call work
        jmp again
    work:
        inc word [0x500]
        ret
""")
WORK = 0xF000F
AGAIN = 0xF000A


@dataclass(frozen=True, slots=True)
class Typed:
    """What a person does in a session. `{folder}` in a command is where `write_files` has written.

    `live`: the guest runs meanwhile and stops come by themselves, so no two recordings need be alike; the commands are
    typed one by one with a pause. `looks_on`: another client came first."""

    how: str
    commands: tuple[str, ...]
    live: bool = False
    looks_on: bool = False


#: Sessions by their names, which are those of the files.
SESSIONS: dict[str, Typed] = {
    "look": Typed("remote", (
        f"hbreak *{WORK:#x}", "continue", "x/4i $pc", "p $eax", "p $gdtr", "find /b 0, 0xfff, 0x55, 0xaa",
        "set {short}0x500 = 7", "p $ecx = 5", "monitor pc", "delete", "detach",
    )),
    "step": Typed("remote", (
        f"hbreak *{WORK:#x} if *(short*)0x500 == 3", "continue", "stepi", "stepi", "watch *(short*)0x500", "continue",
        "info threads", "kill",
    )),
    "again": Typed("extended-remote", (
        f"hbreak *{WORK:#x}", "run", "continue", "kill", "run", "maintenance packet Qqemu.PhyMemMode:1", "x/x 0x500",
        "monitor detach stop", "detach",
    )),
    "conditions": Typed("remote", (
        "set dprintf-style agent", "set disconnected-dprintf off",
        f'dprintf *{WORK:#x},"%d of %x\\n",*(short*)0x500,$esp',
        f"hbreak *{AGAIN:#x} if *(short*)0x500 == 2 || $eax == 7", f"break *{AGAIN:#x} if *(short*)0x500 % 4 == 3",
        "continue", "continue", "condition 2 $ip > 0xffff", "condition 3 *(short*)0x500 / ($ecx - $ecx)", "continue",
        "delete", "kill",
    )),
    "trace": Typed("remote", (
        "tvariable $calls = 5", "source {folder}/trace.gdb", "tstart", "tstatus", f"hbreak *{AGAIN:#x}", "continue",
        "ignore 3 5", "continue", "tstop", "tstatus", "tfind 0", "info registers eax ip", "x/hx 0x500", "tdump",
        "tfind", f"tfind pc {WORK:#x}", "tfind tracepoint 2", f"tfind outside {WORK:#x}, {WORK + 1:#x}", "p $calls",
        "tfind none", "tsave {folder}/saved", "delete", "kill",
    )),
    "memory": Typed("remote", (
        "file {folder}/part.o", "compare-sections", "restore {folder}/text binary 0", "compare-sections .text",
        "find 0, +0x1000, (char)0x5a, (char)0x7d, (char)0x24", "find /h /2 0x0, 0xffff, 0x5a5a", "x/8xb 0x1e",
        "dump binary memory {folder}/out 0 0x80", "info mem", "set {char}0xf0000 = 0x90", "x/2i 0xf0000",
        "x/x 0xa0000000", "detach",
    )),
    "onlooker": Typed("remote", (
        "x/3i $pc", "info registers eax cr0", "set {char}0x500 = 1", "p $eax = 1", f"hbreak *{WORK:#x}", "stepi",
        "delete", "x/xb 0x500", "tstatus", "find /b 0, 0xfff, 0x55, 0xaa", "detach",
    ), looks_on=True),
    "nonstop": Typed("remote", (
        f"hbreak *{WORK:#x}", "continue &", "info threads", "stepi", "p $eip", "delete", "continue &", "x/hx 0x500",
        f"hbreak *{AGAIN:#x} if *(short*)0x500 == 0", "info threads", "interrupt", "info registers eip", "detach",
    ), live=True),
}  # fmt: skip
#: Bytes that `compare-sections` finds in memory after `restore`, and not before: among them those that are escaped.
TEXT = b"\x5a\x5a\x7d\x24\x23\x2a\x00\xff" * 8


def write_files(folder: Path) -> None:
    """What the commands of sessions name, but for what they write themselves."""
    (folder / "text").write_bytes(TEXT)
    source, part = folder / "part.asm", folder / "part.o"
    source.write_text(f"section .text\ndb {', '.join(map(str, TEXT))}\n")
    subprocess.run(["nasm", "-f", "elf32", "-o", part, source], check=True)
    lines = (
        f"trace *{WORK:#x} if *(short*)0x500 % 2 == 0", "actions", "collect $regs", "collect *(short*)0x500@2",
        "teval $calls = $calls + 1", "collect $calls", "end", f"trace *{AGAIN:#x}", "actions", "collect $eax", "end",
        "passcount 6 2",
    )  # fmt: skip
    (folder / "trace.gdb").write_text("\n".join(lines) + "\n")


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
                    (server if end is client else client).sendall(self.passed(end is client, data))

    def passed(self, from_client: bool, data: bytes) -> bytes:
        """What goes on of `data` now."""
        return data

    def wait(self) -> list[tuple[bool, bytes]]:
        """All that was said, when one of the two has closed."""
        self._thread.join(SECONDS)
        self._listener.close()
        return self.said


def record(folder: Path, typed: Typed) -> list[tuple[bool, bytes]]:
    """A session of gdb with a machine of its own, whose files are written to `folder`."""
    write_files(folder)
    rom = folder / "rom"
    rom.write_bytes(assemble(LOOP))
    server = Server(["--firmware", str(rom)])
    first = None
    try:
        if typed.looks_on:
            first = first_client(server.address)
        proxy = Proxy(server.address)
        commands = [command.replace("{folder}", str(folder)) for command in typed.commands]
        lines = ["set pagination off", "set confirm off", f"target {typed.how} {proxy.address}", *commands]
        if typed.live:
            type_slowly(["set non-stop on", *lines, "quit"])
        else:
            arguments = [word for line in lines for word in ("-ex", line)]
            command = ["gdb", "-q", "-nx", "-batch", *arguments]
            subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
        return proxy.wait()
    finally:
        if first is not None:
            first.close()
        server.close()


def first_client(address: str) -> socket.socket:
    """Has the machine until it is closed."""
    host, _, port = address.rpartition(":")
    client = socket.create_connection((host, int(port)), SECONDS)
    client.sendall(b"$?#3f")
    assert client.recv(1) == b"+"
    return client


def type_slowly(lines: Sequence[str]) -> None:
    """At gdb's prompt, where it looks for stops between two commands."""
    with subprocess.Popen(
        ["gdb", "-q", "-nx"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    ) as gdb:
        assert gdb.stdin is not None
        for line in lines:
            gdb.stdin.write(f"{line}\n")
            gdb.stdin.flush()
            time.sleep(PAUSE)


def main() -> None:
    """Record all sessions."""
    RECORDED.mkdir(exist_ok=True)
    for name, typed in SESSIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            said = record(Path(folder), typed)
            (RECORDED / f"{name}.rsp").write_bytes(b"".join(data for from_client, data in said if from_client))


if __name__ == "__main__":
    main()
