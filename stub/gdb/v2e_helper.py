"""What gdb loads by `gdb -x` or `source`: all that v2e has for gdb. Runs inside gdb and needs none of v2e's packages.

Each part is loaded by itself: a gdb that lacks what a part needs says so in one sentence, and has the others.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import gdb

#: The folder of this file under a name of its own, since `gdb` and `stub` may be other packages here.
PACKAGE = "v2e_gdb"
#: Module, and what is lost without it.
PARTS = (
    ("connection", "gdb warns when it connects that there is no executable file, which a machine does not need"),
    # before all that looks at frames when a stop is shown
    ("unwinder", "`bt`, `finish`, `up` and `nexti` over calls do not understand 16-bit code"),
    ("modes", "use `set architecture` yourself when the CPU's mode changes"),
    ("regions", "`delete mem' when paging is on, as gdb refuses what devices have had at these addresses before"),
    ("registers", "`info registers` knows no groups `segment` and `system`"),
    ("functions", "there are no functions $seg() and $lin()"),
    ("commands", "there is no command `v2e`: use `monitor COMMAND`"),
    ("disassembler", "`x/i` and `disassemble` decode by the architecture that gdb shows, whatever CS says"),
)


def load() -> None:
    """Load all parts, once: their listeners would answer twice."""
    if PACKAGE in sys.modules:
        return
    folder = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    guest = importlib.import_module(f"{PACKAGE}.guest").Guest()
    for name, lost in PARTS:
        try:
            importlib.import_module(f"{PACKAGE}.{name}").install(guest)
        except (ImportError, AttributeError, gdb.error) as error:
            gdb.write(f"v2e: this gdb ({gdb.VERSION}) lacks something ({error}): {lost}.\n")


load()
