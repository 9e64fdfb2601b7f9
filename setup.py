"""The C helper of the engine; everything else about the package stands in pyproject.toml."""

from __future__ import annotations

from setuptools import Extension, setup

setup(
    ext_modules=[
        # Without a compiler, or where it cannot be built, the package installs without it and runs slower.
        Extension(
            "emu.native._fast",
            sources=[f"emu/native/{name}.c" for name in ("count", "engines", "ports", "translate", "vga")],
            depends=["emu/native/fast.h", "emu/native/vga.h"],
            extra_compile_args=["-O2", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wall", "-Wextra"],
            libraries=["dl"],
            optional=True,
        )
    ]
)
