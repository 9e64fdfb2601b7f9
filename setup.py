"""The C helper of the engine; everything else about the package stands in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("emu", "native")
checksum: dict[str, object] = {"__file__": str(NATIVE / "__init__.py")}
exec((NATIVE / "__init__.py").read_text(), checksum)  # to import it would need the package

setup(
    ext_modules=[
        # Without a compiler, or where it cannot be built, the package installs without it and runs slower.
        Extension(
            "emu.native._fast",
            sources=sorted(map(str, NATIVE.glob("*.c"))),
            depends=sorted(map(str, NATIVE.glob("*.h"))),
            define_macros=[("V2E_SOURCES", f"{checksum['sources_checksum']()}u")],
            extra_compile_args=["-O2", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wall", "-Wextra"],
            libraries=["dl"],
            optional=True,
        )
    ]
)
