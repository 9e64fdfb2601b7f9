"""Xen's own tools in dom0: the daemons that `xl` needs, domains made by it, and what its other programs say of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

PROGRAMS = Path("/usr/lib/xen-4.17/bin")
#: Folders that Debian's packages and scripts make where Xen is installed.
FOLDERS = ("/var/lib/xen", "/var/lib/xenstored", "/var/log/xen", "/run/xen", "/run/xenstored", "/run/lock", "/etc/xen",
           "/dev/pts")  # fmt: skip
#: Seconds for one command: making a domain takes about ten where nobody else wants the processor.
PATIENCE = 100


class ToolError(Exception):
    """A program of Xen's failed; what it said."""


def program(name: str, *arguments: str) -> str:
    """Run it; its output."""
    command = [str(PROGRAMS / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if done.returncode:
        raise ToolError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def start() -> None:
    """The store, consoles, and dom0's own entries, as Debian's init script does. Once is enough."""
    if Path("/run/xenstored.pid").exists():
        return
    for folder in FOLDERS:
        os.makedirs(folder, exist_ok=True)
    for link, target in (("/var/run", "/run"), ("/var/lock", "/run/lock")):
        if not os.path.lexists(link):
            os.symlink(target, link)
    Path("/etc/xen/xl.conf").touch()
    subprocess.run(["mount", "-t", "devpts", "devpts", "/dev/pts"], check=True)
    program("xenstored", "--pid-file", "/run/xenstored.pid")
    program("xen-init-dom0")
    program("xenconsoled", "--pid-file", "/run/xenconsoled.pid")


class XlDomain:
    """An HVM domain that xl has made, with QEMU as its device model. COM1 goes to a file."""

    def __init__(self, name: str, folder: Path, disk: Path | None = None) -> None:
        """hvmloader, then SeaBIOS, which boots `disk`, a raw image. Raises ToolError."""
        self.name, self._serial = name, folder / f"{name}.serial"
        lines = [
            f"name='{name}'", "type='hvm'", "memory=16", "vcpus=1", "vga='none'", "vnc=0",
            f"serial='file:{self._serial}'",
        ]  # fmt: skip
        if disk is not None:
            lines.append(f"disk=['format=raw,vdev=hda,access=rw,backendtype=qdisk,target={disk}']")
        config = folder / f"{name}.cfg"
        config.write_text("\n".join(lines) + "\n")
        try:
            program("xl", "create", str(config))
        except ToolError as error:
            log = Path(f"/var/log/xen/qemu-dm-{name}.log")
            raise ToolError(f"{error}{log.read_text() if log.exists() else ''}") from None
        self.domid = int(program("xl", "domid", name))

    def serial(self) -> str:
        """What the guest has sent to COM1."""
        return self._serial.read_text(errors="replace") if self._serial.exists() else ""

    def save(self, path: Path) -> None:
        """The stream, with all that xl puts around it; the domain is gone then."""
        program("xl", "save", self.name, str(path))

    def destroy(self) -> None:
        """One that is gone is no error."""
        subprocess.run([str(PROGRAMS / "xl"), "destroy", self.name], capture_output=True, check=False)
