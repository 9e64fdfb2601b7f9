"""The pytest plugin: fixtures and a marker for tests of boot code, and what a failing one shows.

Installed with the extra `pytest` it comes in by its entry point. Nothing of the emulator is imported until a fixture
is used, so that test suites which do not use it pay nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from emu.record import dataclass

if TYPE_CHECKING:
    from repl.boot_machine import BootMachine
    from repl.harness import Gdb, Server

#: Instructions a run may take when neither the test nor its marker says.
DEFAULT_LIMIT = 100_000_000
#: What `--firmware` knows by name; all else is a file or source text.
NAMED_FIRMWARE = ("builtin", "seabios")

MARKER = (
    "boot(image=None, firmware=None, until=None, limit=None, options=()): the machine of this test. image: nasm source "
    "text, an .asm file or a binary, beside the test file; firmware: the same for a ROM, or a name that `v2e run "
    "--firmware` knows; until, limit: what machine.run() waits for and its budget in instructions; options: more "
    "options of `v2e run`"
)

Section = tuple[str, str]
_reporters: pytest.StashKey[list[Callable[[], Sequence[Section]]]] = pytest.StashKey()


@dataclass(frozen=True)
class BootMarker:
    """The marker's arguments. `options` are words of `v2e run`'s command line."""

    image: str | Path | bytes | None = None
    firmware: str | Path | bytes | None = None
    until: str | None = None
    limit: int | None = None
    options: Sequence[str] = ()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares the ini options."""
    parser.addini("v2e_limit", "instructions a run may take unless its test says", default=str(DEFAULT_LIMIT))
    parser.addini(
        "v2e_missing_tools", "what a test does that needs nasm or gdb and has none: fail or skip", default="fail"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker."""
    config.addinivalue_line("markers", MARKER)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to a failure what its machines, servers and gdbs can say."""
    report = yield
    if report.failed and call.when in ("setup", "call"):
        for reporter in item.stash.get(_reporters, []):
            report.sections.extend(reporter())
    return report


def _report(request: pytest.FixtureRequest, reporter: Callable[[], Sequence[Section]]) -> None:
    item: pytest.Item = request.node
    item.stash.setdefault(_reporters, []).append(reporter)


def _refuse(request: pytest.FixtureRequest, error: Exception) -> NoReturn:
    """Turn a harness error into a failure of one sentence, or into a skip for a missing tool where that is wanted."""
    from repl.harness import MissingTool

    if isinstance(error, MissingTool) and request.config.getini("v2e_missing_tools") == "skip":
        raise pytest.skip.Exception(str(error)) from None
    raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture
def boot_marker(request: pytest.FixtureRequest) -> BootMarker:
    """The arguments of the test's `boot` marker, the nearest one."""
    marker = request.node.get_closest_marker("boot")
    if marker is None:
        return BootMarker()
    if marker.args:
        pytest.fail(f"the marker boot takes named arguments only, not {marker.args[0]!r}", pytrace=False)
    unknown = sorted(set(marker.kwargs) - set(BootMarker.__dataclass_fields__))
    if unknown:
        known = ", ".join(BootMarker.__dataclass_fields__)
        pytest.fail(f"the marker boot has no argument {unknown[0]!r}; it knows {known}", pytrace=False)
    return BootMarker(**marker.kwargs)


@pytest.fixture
def boot_image(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str | Path | bytes], Path]:
    """A function from nasm source text, a source file or a binary to the path of a bootable image.

    A file is looked for beside the test file first; its `%include`s are, too. Binaries are used where they are.
    """
    from repl.harness import HarnessError, assemble

    here = request.path.parent

    def make(image: str | Path | bytes) -> Path:
        if isinstance(image, bytes):
            path = tmp_path_factory.mktemp("boot") / "image.bin"
            path.write_bytes(image)
            return path
        if isinstance(image, str) and "\n" in image:
            source = tmp_path_factory.mktemp("boot") / "image.asm"
            source.write_text(textwrap.dedent(image))
        else:
            source = here / image if (here / image).exists() else Path(image)
            if not source.exists():
                pytest.fail(f"no image {image} beside {request.path.name} or in {Path.cwd()}", pytrace=False)
            if source.suffix not in (".asm", ".s", ".nasm"):
                return source
        try:
            return assemble(source, tmp_path_factory.mktemp("boot") / f"{source.stem}.bin", (here,))
        except HarnessError as error:
            _refuse(request, error)

    return make


@pytest.fixture
def boot_options(boot_marker: BootMarker, boot_image: Callable[[str | Path | bytes], Path]) -> list[str]:
    """The marker as the words of `v2e run`: what `machine` is built from and a failure's command repeats."""
    words = [] if boot_marker.image is None else [str(boot_image(boot_marker.image))]
    firmware = boot_marker.firmware
    if firmware is not None:
        words += ["--firmware", str(firmware if firmware in NAMED_FIRMWARE else boot_image(firmware))]
    return [*words, *map(str, boot_marker.options)]


@pytest.fixture
def machine(request: pytest.FixtureRequest, boot_marker: BootMarker, boot_options: list[str]) -> Iterator[BootMachine]:
    """The marker's machine in this process, stopped at reset; without a marker, the tour."""
    from repl.boot_machine import BootMachine
    from repl.harness import HarnessError

    limit = boot_marker.limit or int(request.config.getini("v2e_limit"))
    try:
        made = BootMachine(boot_options, until=boot_marker.until, limit=limit)
    except HarnessError as error:
        _refuse(request, error)
    _report(request, made.sections)
    yield made
    made.close()


@pytest.fixture
def v2e_server(request: pytest.FixtureRequest, boot_options: list[str]) -> Iterator[Callable[..., Server]]:
    """A function that starts `v2e run ... --headless --wait --gdb 0`: with the words given, or those of the marker.

    All servers end with the test.
    """
    from repl.harness import HarnessError, Server

    servers: list[Server] = []

    def start(*options: str | Path, wait: bool = True) -> Server:
        try:
            server = Server([str(o) for o in options] or boot_options, wait=wait)
        except HarnessError as error:
            _refuse(request, error)
        servers.append(server)
        _report(request, server.sections)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def start_gdb(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Gdb]]:
    """A function that starts a gdb, connected if it is given a server. All end with the test."""
    from repl.harness import Gdb, HarnessError

    started: list[Gdb] = []

    def start(server: Server | None = None, *, arguments: Sequence[str] = ()) -> Gdb:
        try:
            gdb = Gdb(tmp_path_factory.mktemp("gdb") / "packets.log", arguments=arguments)
            started.append(gdb)
            _report(request, gdb.sections)
            if server is not None:
                gdb.connect(server.address)
        except HarnessError as error:
            _refuse(request, error)
        return gdb

    yield start
    for gdb in started:
        gdb.close()


@pytest.fixture
def gdb(v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]) -> Gdb:
    """A real gdb connected to a server of the marker's machine, stopped at reset."""
    return start_gdb(v2e_server())
