"""Tells the host of each test: a line of JSON on the serial line that V2E_RESULTS names, see tools/dom0.py."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


class Results:
    """`told` maps a test to what its phases have come to: the first that did not pass decides."""

    def __init__(self, path: str) -> None:
        self.line = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOCTTY)
        self.told: dict[str, dict] = {}

    def say(self, **what: object) -> None:
        left = f"{json.dumps(what)}\n".encode()
        while left:  # a signal ends a write in its middle
            left = left[os.write(self.line, left) :]

    def pytest_collection_finish(self, session) -> None:
        self.say(tests=[item.nodeid for item in session.items])

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self.say(test=report.nodeid, outcome="failed", seconds=0, text=str(report.longrepr))

    def pytest_runtest_logreport(self, report) -> None:
        test = self.told.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0, "text": ""})
        test["seconds"] += report.duration
        if report.outcome != "passed" and test["outcome"] == "passed":
            text = report.longrepr[2] if report.skipped else str(report.longrepr)
            test.update(outcome=report.outcome, text=text)
        if report.when == "teardown":
            self.say(test=report.nodeid, **{**test, "seconds": round(test["seconds"], 2)})


def pytest_configure(config) -> None:
    if path := os.environ.get("V2E_RESULTS"):
        config.pluginmanager.register(Results(path), "results")


def pytest_collection_modifyitems(config, items) -> None:
    """V2E_ONLY names a file of those that are wanted; without one, all are."""
    path = os.environ.get("V2E_ONLY")
    if path and (wanted := Path(path).read_text().splitlines()):
        items[:] = [item for item in items if item.nodeid in wanted]


@pytest.fixture(autouse=True)
def _in_dom0() -> None:
    if not os.path.exists("/proc/xen/capabilities"):
        pytest.skip("this is no dom0: `make test-xen` boots one")


@pytest.fixture(scope="session")
def libraries():
    from xenbridge.xen.libraries import Libraries

    opened = Libraries()
    yield opened
    opened.close()


@pytest.fixture
def outside_gdb():
    """Has the host's gdb execute commands, connected to COM4 of this machine; what it prints. See tools/dom0_gdb.py."""
    path = os.environ.get("V2E_RESULTS")
    if not path:
        pytest.skip("no host listens that could run gdb")
    line = os.open(path, os.O_RDWR | os.O_NOCTTY)

    def run(*commands: str) -> str:
        os.write(line, f"{json.dumps({'gdb': commands})}\n".encode())
        said = b""
        while not said.endswith(b"\n"):
            said += os.read(line, 4096)
        text = json.loads(said)["gdb"]
        if text is None:
            pytest.skip("the host has no gdb")
        return text

    yield run
    os.close(line)


@pytest.fixture
def table(request):
    """Has lines printed by `make test-xen` among the results."""
    results = request.config.pluginmanager.get_plugin("results")
    return (lambda lines: None) if results is None else (lambda lines: results.say(table=lines))


@pytest.fixture
def ticks(libraries):
    """A domain with ticks.asm, and the board it sees."""
    from machines import booted

    guest, board = booted(libraries, "ticks")
    yield guest, board
    guest.close()


@pytest.fixture(scope="session")
def told_again(request):
    """Has `make test-xen` say, and count, that something was made again, and why."""
    results = request.config.pluginmanager.get_plugin("results")
    return print if results is None else (lambda why: results.say(again=why))
