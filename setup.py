"""The C parts of the package; everything else about it stands in pyproject.toml."""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup

ENGINE, KVM, STUB = Path("emu", "native"), Path("xenbridge", "kvm", "native"), Path("stub", "native")


def extension(folder: Path, name: str, libraries: list[str]) -> Extension:
    """The library of all C sources of `folder`. Without a compiler, or where it cannot be built, the package installs
    without it and runs slower."""
    package: dict[str, object] = {"__file__": str(Path(folder, "__init__.py").absolute())}
    exec((folder / "__init__.py").read_text(), package)  # to import it would need the package
    return Extension(
        ".".join((*folder.parts, name)),
        sources=sorted(map(str, folder.glob("*.c"))),
        depends=sorted(map(str, ENGINE.glob("*.h"))),
        define_macros=[("V2E_SOURCES", f"{package['sources_checksum']()}u")],  # type: ignore[operator]
        extra_compile_args=["-O2", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wall", "-Wextra"],
        libraries=libraries,
        optional=True,
    )


setup(ext_modules=[extension(ENGINE, "_fast", ["dl"]), extension(KVM, "_hop", []), extension(STUB, "_known", [])])
