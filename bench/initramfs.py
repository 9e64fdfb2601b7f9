"""A small userspace as an initramfs: busybox and a script, in the cpio format that Linux unpacks.

Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst ("newc" archives).
"""

from __future__ import annotations

from dataclasses import dataclass

DIRECTORY, FILE, CHARACTER_DEVICE = 0o040755, 0o100755, 0o020600
TRAILER = "TRAILER!!!"
#: Prints the machine's name and an md5; then comes one of ENDS.
INIT = b"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
echo userspace: $(/bin/busybox uname -m) $(/bin/busybox md5sum /bin/busybox)
"""
#: `exit` is code 0 at the debug-exit port (F4h is 244), `poweroff` ACPI's soft off.
ENDS = {
    "exit": b"/bin/busybox printf '\\000' | "
    b"/bin/busybox dd of=/dev/port bs=1 seek=244 count=1 conv=notrunc 2>/dev/null\n",
    "poweroff": b"/bin/busybox poweroff -f\n",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, directory or device of the archive; `device` is (major, minor)."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def archive(entries: list[Entry]) -> bytes:
    """The cpio archive of `entries`, all of them root's."""
    out = bytearray()
    for inode, entry in enumerate([*entries, Entry(TRAILER, 0)], 1):
        name = entry.name.encode() + b"\0"
        fields = (inode, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += bytes(-len(out) % 4) + entry.data
        out += bytes(-len(out) % 4)
    return bytes(out)


def userspace(busybox: bytes, end: str = "exit") -> bytes:
    """The initramfs: INIT as its first process, which ends as ENDS has it."""
    return archive(
        [
            Entry("dev", DIRECTORY),
            Entry("dev/console", CHARACTER_DEVICE, device=(5, 1)),
            Entry("bin", DIRECTORY),
            Entry("bin/busybox", FILE, busybox),
            Entry("init", FILE, INIT + ENDS[end]),
        ]
    )
