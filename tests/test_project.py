"""The project as a whole: version, change log, arrows, and what must not stand in a file."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("emu", "stub", "xenbridge", "repl", "bench")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def project_files() -> list[Path]:
    """What git tracks or would: everything that .gitignore does not name."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git cannot list the files: {error}")
    return [path for path in (ROOT / name for name in listed) if path.is_file()]


def imports(path: Path) -> set[str]:
    """Top-level names of the modules a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def test_installed_version_is_the_one_of_pyproject():
    assert importlib.metadata.version("v2e") == PROJECT["project"]["version"]


def test_change_log_begins_with_unreleased_then_this_version_or_nothing_released():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    released = [heading.split()[0] for heading in headings[1:]]
    assert not released or released[0] == PROJECT["project"]["version"]


def test_unicorn_is_pinned_to_one_release():
    assert [d for d in PROJECT["project"]["dependencies"] if d.startswith("unicorn")] == ["unicorn==2.1.4"]


def test_licence_text_is_the_gpl_2_whole():
    text = (ROOT / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE\n                       Version 2, June 1991" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.slow
def test_arrows_hold():
    checked = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "0 broken" in checked.stdout


@pytest.mark.parametrize("package", ["emu", "repl"])
def test_every_module_has_a_row_in_the_layers(package):
    layers = next(c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["id"] == "layers")["layers"]
    placed = set(re.findall(r"[\w.]+", " ".join(layers)))
    modules = {f"{package}.{p.stem}" for p in (ROOT / package).glob("*.py") if p.stem != "__init__"}
    rooms = {f"{package}.{p.parent.name}" for p in (ROOT / package).glob("*/__init__.py")}
    assert (modules | rooms) - placed == set()


def test_code_that_runs_inside_gdb_imports_nothing_of_ours():
    scripts = list((ROOT / "stub" / "gdb").glob("*.py"))
    assert scripts
    assert {name for script in scripts for name in imports(script)} & set(PACKAGES) == set()


@pytest.mark.parametrize("module", ["stub/packet.py", "stub/messages.py"])
def test_packet_layer_imports_nothing_of_another_room_but_the_decorator_of_its_records(module):
    assert imports(ROOT / module) & set(PACKAGES) <= {"stub", "emu"}
    assert re.findall(r"(?:from|import) +(emu[.\w]*)", (ROOT / module).read_text()) == ["emu.record"]


def test_first_line_of_every_file_states_its_duty():
    first = {path: (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0] for path in SOURCES}
    assert [str(path.relative_to(ROOT)) for path, line in first.items() if not line.strip()] == []


def test_no_file_names_a_path_of_one_machine():
    pattern = re.compile(rb"(?<![\w.~*-])/(?:work|root|home|farm|tmp)/\w")
    found = []
    for path in project_files():
        if path.suffix in (".bin", ".gz", ".png"):
            continue
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.decode(errors='replace').strip()}")
    assert found == []


def test_no_hollow_code():
    hollow = re.compile(r"NotImplementedError|\bTODO\b|\bFIXME\b|except:|except (Base)?Exception:\s*pass")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (*SOURCES, *(ROOT / "tests").rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if hollow.search(line) and path != Path(__file__)
    ]
    assert found == []
