"""What of Debian's packages is needed in dom0 to make a domain with `xl` and its own device model, and no more.

Shared libraries are those that `readelf -d` names, one behind the other; the larger packages have many more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from bench.assets import AssetMissing

_LIBRARIES: Final = "usr/lib/x86_64-linux-gnu"
_XEN: Final = "usr/lib/xen-4.17"
#: Patterns of paths by package. hvmloader is the domain's first code and loads SeaBIOS, which runs the VGA BIOS that
#: QEMU shows it as a PCI ROM. libxl-save-helper is what makes and reads the libxc stream for xl.
CHOSEN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({
    "xen-utils-4.17": (
        f"{_XEN}/boot/hvmloader", *(f"{_XEN}/bin/{name}" for name in (
            "xl", "xenstored", "xenconsoled", "xen-init-dom0", "libxl-save-helper", "xen-hvmctx", "verify-stream-v2",
        )),
        f"{_XEN}/lib/python/xen/*.py", f"{_XEN}/lib/python/xen/migration/*.py",
    ),
    "qemu-system-xen": ("usr/libexec/xen-qemu-system-i386",),
    # QEMU reads its keyboard's map even where no display asks for it.
    "qemu-system-data": ("usr/share/qemu/keymaps/en-us",),
    "seabios": ("usr/share/seabios/bios-256k.bin", "usr/share/seabios/vgabios-stdvga.bin"),
    "libglib2.0-0": tuple(f"{_LIBRARIES}/lib{name}-2.0.so.*" for name in ("glib", "gobject", "gmodule")),
    "libgstreamer1.0-0": tuple(f"{_LIBRARIES}/libgst{name}-1.0.so.*" for name in ("reamer", "base")),
    "libgstreamer-plugins-base1.0-0": (f"{_LIBRARIES}/libgstapp-1.0.so.*",),
    "liborc-0.4-0": (f"{_LIBRARIES}/liborc-0.4.so.*",),
    "libunwind8": (f"{_LIBRARIES}/libunwind.so.*",),
})  # fmt: skip
#: Of all other packages of the set.
_ALL_LIBRARIES: Final = (f"{_LIBRARIES}/lib*.so*", "lib/x86_64-linux-gnu/lib*.so*")


def chosen(packages: Path) -> Iterator[tuple[Path, str]]:
    """(file, its path in dom0) of the set's folder. Raises AssetMissing for a pattern that nothing matches."""
    for package in sorted(path for path in packages.iterdir() if path.is_dir()):
        patterns = CHOSEN.get(package.name)
        found = [path for pattern in patterns or _ALL_LIBRARIES for path in sorted(package.glob(pattern))]
        if len(found) < len(patterns or (package,)):
            raise AssetMissing(f"the package {package.name} has not all that dom0 needs of it")
        yield from ((path, str(path.relative_to(package))) for path in found)
