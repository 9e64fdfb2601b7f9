"""The sessions of docs/gdb.md: runs them with a real `v2e gdb` and writes what they print into the page.

python tools/gdb_guide.py            rewrite the blocks of docs/gdb.md
python tools/gdb_guide.py --check    exit status 1 if a block is not what its session prints, addresses apart
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "gdb.md"
IMAGES = ROOT / "tests" / "images" / "guide"
#: A block of the page: its session's name in a comment, then a fence.
BLOCK = re.compile(r"(<!-- session: (\S+) -->\n```text\n)(.*?)(```)", re.DOTALL)
SECONDS = 120

ELF_SECTOR = (
    "nasm -f elf32 -g -F dwarf -o boot.o boot.asm",
    "ld -m elf_i386 -Ttext 0x7c00 -e start -o boot.elf boot.o",
    "objcopy -O binary -j .text boot.elf boot.img",
)
ELF_KERNEL = (
    "gcc -m32 -ffreestanding -fno-pic -fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables -Og -g -c kernel.c",
    "ld -m elf_i386 -n -Ttext 0x100000 -e _start -o kernel.elf kernel.o",
)


@dataclass(frozen=True)
class Session:
    """Commands that make the files, the words behind `v2e gdb`, and what is typed to gdb."""

    build: tuple[str, ...]
    options: str
    typed: tuple[str, ...]


SESSIONS = {
    "first": Session(
        ELF_SECTOR,
        "--firmware seabios boot.img",
        ("break *0x7c00", "continue", "x/6i $pc", "info registers general", "v2e sreg", "nexti 6", "p/x $seg($es, $bx)",
         "x/s 0x8000", "kill"),
    ),
    "symbols": Session(
        ELF_SECTOR,
        "--firmware seabios boot.img",
        ("tbreak *0x7c00", "continue", "add-symbol-file boot.elf 0x7c00", "break load", "continue", "next 4",
         "tbreak *$seg(*(short *)0x4e & 0xffff, *(short *)0x4c & 0xffff)", "continue", "backtrace", "delete",
         "watch *(char *)0x8000", "continue", "backtrace", "up 6", "delete", "tbreak loaded", "continue", "finish",
         "kill"),
    ),
    "restart": Session(
        ELF_SECTOR,
        "--firmware seabios boot.img",
        ("break *0x7c00", "continue", "stepi 3", "run", "kill", "starti", "continue", "kill"),
    ),
    "kernel": Session(
        ELF_KERNEL,
        "--kernel kernel.elf --serial serial.txt",
        ("symbol-file kernel.elf", "break strike_out if prime == 5", "continue", "backtrace", "finish", "info locals",
         "print s->found", "watch sieve.found", "continue", "delete", "break print_number", "continue", "continue",
         "backtrace", "delete", "continue"),
    ),
}  # fmt: skip


def run(session: Session, folder: Path) -> str:
    """What the session prints, each command behind gdb's prompt as a person sees it. Raises CalledProcessError."""
    for source in IMAGES.iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    for command in session.build:
        subprocess.run(shlex.split(command), cwd=folder, check=True, capture_output=True)
    lines = ["set confirm off", "set pagination off", "set width 0", "set style enabled off"]
    for command in session.typed:
        lines += [f"echo (gdb) {command.replace(chr(92), chr(92) * 2)}\\n", command]
    (folder / "typed.gdb").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "repl.cli", "gdb", *shlex.split(session.options), "--", "-nx", "-batch",
         "-x", "typed.gdb"],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    text = done.stdout.replace(str(folder) + "/", "")
    shown = [line.rstrip() for line in text.splitlines()]
    return "\n".join([f"$ {command}" for command in session.build] + [f"$ v2e gdb {session.options}", *shown]) + "\n"


def blocks() -> dict[str, str]:
    """What the page has, by session."""
    return {name: text for _, name, text, _ in BLOCK.findall(PAGE.read_text())}


def masked(text: str) -> str:
    """Without what another compiler, assembler or BIOS places elsewhere: addresses and numbers in hex."""
    return re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{4}:[0-9a-f]{4,}\b|<\+\d+>", "#", text)


def transcript(name: str) -> str:
    """The session, run now."""
    with tempfile.TemporaryDirectory(prefix="v2e-guide-") as folder:
        return run(SESSIONS[name], Path(folder).resolve())


def main(arguments: list[str]) -> int:
    """Returns an exit status."""
    made = {name: transcript(name) for name in SESSIONS}
    if arguments == ["--check"]:
        stale = [name for name, text in blocks().items() if masked(made[name]) != masked(text)]
        for name in stale:
            print(f"docs/gdb.md: the session {name!r} prints something else now", file=sys.stderr)
        return 1 if stale else 0
    PAGE.write_text(BLOCK.sub(lambda match: match[1] + made[match[2]] + match[4], PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
