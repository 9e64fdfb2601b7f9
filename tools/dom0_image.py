"""The initramfs of `make test-xen`: a userspace from Debian's packages, pytest, and this checkout.

Two archives one behind the other, as Linux unpacks them: the first is the same for one set of packages and kept in the
user's cache, the second is what is being tested. Modules of Python are compiled here, where it is quick.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import py_compile
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.assets import AssetMissing
from bench.initramfs import CHARACTER_DEVICE, DIRECTORY, FILE, Entry, archive
from tools import dom0_xl

ROOT = Path(__file__).resolve().parent.parent
TESTS = "tests/xen/dom0"
OURS = ("emu", "stub", "xenbridge", "repl", TESTS)
#: Tests that hold for Xen as for other hypervisors, and what tests share; they go beside those of dom0.
SHARED = (
    "tests/bridges.py", "tests/pausing.py", "tests/starting.py", "tests/xenbridge/test_bridges.py",
    "tests/xenbridge/test_bridge_apics.py", "tests/xenbridge/test_bridge_put_back.py",
    "tests/xenbridge/test_bridge_signals.py",
)  # fmt: skip
#: Of this environment: the test runner, and what our own packages import.
SITE = (
    "pytest",
    "_pytest",
    "pluggy",
    "iniconfig",
    "packaging",
    "pygments",
    "py",
    "pytest_timeout",
    "construct",
    "capstone",
    "unicorn",
    "platformdirs",
)
#: Of folders with many modules, those that are needed.
CHOSEN = {"lexers": {"__init__.py", "_mapping.py", "diff.py", "python.py"}, "styles": {"__init__.py", "_mapping.py"}}
#: Of Python's library, and of packages, what no test needs and takes room.
LEFT_OUT = {
    "test",
    "include",
    "idlelib",
    "lib2to3",
    "distutils",
    "ensurepip",
    "tkinter",
    "pydoc_data",
    "__pycache__",
    "gconv",
    "libunicorn.a",
}
#: How many older archives of a cache stay: another checkout may be about to read its own.
KEPT = 2
#: Debian's Python, whose compiled modules ours are where this one is of the same release.
RELEASE = (3, 11)
SYMLINK = 0o120777
FOLDERS = ("dev", "proc", "sys", "tmp", "modules", "site", "v2e")
#: Folders of the packages that go into the archive as they are.
TREES = ("usr/bin", "usr/lib", "lib", "lib64", "bin")


class Tree:
    """Entries of an archive by path: folders come to be when something is put into them."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def folder(self, path: str) -> None:
        parent, _, _ = path.rpartition("/")
        if parent:
            self.folder(parent)
        self.entries.setdefault(path, Entry(path, DIRECTORY))

    def file(self, path: str, data: bytes, mode: int = FILE) -> None:
        parent, _, _ = path.rpartition("/")
        if parent:
            self.folder(parent)
        self.entries[path] = Entry(path, mode, data)

    def tree(self, source: Path, target: str) -> None:
        """All below `source`, with the compiled form of Python's modules."""
        for path in sorted(source.rglob("*")):
            name = path.relative_to(source)
            chosen = CHOSEN.get(path.parent.name)
            if (
                path.is_dir()
                or path.suffix == ".a"
                or not LEFT_OUT.isdisjoint(name.parts)
                or (chosen and path.name not in chosen)
            ):
                continue
            self.add(path, f"{target}/{name}")

    def add(self, path: Path, target: str) -> None:
        """One file or symbolic link; one that leads out of the packages is as what it names would be in dom0."""
        if path.is_symlink():
            self.file(target, os.readlink(path).encode(), SYMLINK)
        elif stat.S_ISREG(path.stat().st_mode):
            data = path.read_bytes()
            self.file(target, data)
            if path.suffix == ".py" and sys.version_info[:2] == RELEASE and (code := compiled(path, target)):
                parent, _, name = target.rpartition("/")
                self.file(f"{parent}/__pycache__/{name[:-3]}.cpython-{RELEASE[0]}{RELEASE[1]}.pyc", code)

    def archive(self) -> bytes:
        return archive([self.entries[path] for path in sorted(self.entries)])


def compiled(path: Path, target: str) -> bytes | None:
    """The module's .pyc, which is taken without a look at the source's time; None where it does not compile."""
    with tempfile.TemporaryDirectory(prefix="v2e-pyc-") as folder:
        try:
            out = py_compile.compile(
                str(path), f"{folder}/out", f"/{target}", True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )  # fmt: skip
        except py_compile.PyCompileError:
            return None
        assert out is not None
        return Path(out).read_bytes()


def assembled(source: Path) -> bytes:
    """What nasm makes of it. Raises AssetMissing without nasm, CalledProcessError where it refuses the source."""
    if shutil.which("nasm") is None:
        raise AssetMissing("nasm is not there to assemble the guests with")
    with tempfile.TemporaryDirectory(prefix="v2e-asm-") as folder:
        out = Path(folder) / "out"
        subprocess.run(["nasm", "-f", "bin", "-Werror", "-o", str(out), str(source)], check=True)
        return out.read_bytes()


def _packages(tree: Tree, packages: Path) -> None:
    for package in sorted(path for path in packages.iterdir() if path.is_dir()):
        for part in TREES:
            if (package / part).is_dir() and not (package / "boot").is_dir():
                tree.tree(package / part, part)
        for module in (package / "modules").rglob("*.ko"):
            tree.add(module, f"modules/{module.name}")
    tree.file("usr/bin/python3", b"python3.11", SYMLINK)


def _site(tree: Tree) -> None:
    for name in SITE:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None, f"{name} is not in this environment: tools/setup"
        origin = Path(spec.origin)
        if origin.name == "__init__.py":
            tree.tree(origin.parent, f"site/{name}")
        else:
            tree.add(origin, f"site/{origin.name}")


def base(packages: Path, xl: Path) -> bytes:
    """The archive of what is not ours, compressed; made once for these sets of packages and this environment."""
    cache = packages.parent
    folders = [path for name in (packages, xl) for path in name.iterdir() if path.is_dir()]
    sources = [Path(__file__), Path(dom0_xl.__file__), *folders]
    versions = [str(importlib.util.find_spec(name)) for name in SITE]
    key = hashlib.sha256(repr((sorted((str(p), p.stat().st_mtime_ns) for p in sources), versions)).encode())
    kept = cache / f"base-{key.hexdigest()[:16]}.cpio.gz"
    if not kept.exists():
        tree = Tree()
        for folder in FOLDERS:
            tree.folder(folder)
        tree.folder("dev")
        tree.entries["dev/console"] = Entry("dev/console", CHARACTER_DEVICE, device=(5, 1))
        _packages(tree, packages)
        for path, target in dom0_xl.chosen(xl):
            tree.add(path, target)
        _site(tree)
        for old in sorted(cache.glob("base-*.cpio.gz"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink()
        part = kept.with_suffix(".part")
        part.write_bytes(gzip.compress(tree.archive(), 1))
        os.replace(part, kept)
    return kept.read_bytes()


def ours(paths: Iterable[str], arguments: str, only: Sequence[str] = ()) -> bytes:
    """The archive of this checkout's packages and tests; `arguments` are pytest's, `only` these tests are run, if any
    is named."""
    tree = Tree()
    for path in paths:
        tree.tree(ROOT / path, f"v2e/{path}")
    for path in SHARED:
        tree.add(ROOT / path, f"v2e/{TESTS}/{Path(path).name}")
    for source in sorted((ROOT / TESTS).glob("*.asm")):
        tree.file(f"v2e/{TESTS}/{source.stem}.bin", assembled(source))
    tree.file("v2e/arguments", arguments.encode() + b"\n")
    tree.file("v2e/only", "\n".join(only).encode())
    tree.file("init", (ROOT / "tools/dom0_init.sh").read_bytes())
    return gzip.compress(tree.archive(), 1)


def initramfs(packages: Path, xl: Path, arguments: str = "", only: Sequence[str] = ()) -> bytes:
    """Both, as the kernel unpacks them."""
    return base(packages, xl) + ours(OURS, arguments, only)
