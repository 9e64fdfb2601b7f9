"""Shared set-up of this project's own tests. The fixtures `machine`, `gdb` and so on come from repl.pytest_plugin."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import defaultdict

import pytest
from hypothesis import HealthCheck, settings

from forked import Nursery, popen_of

# Examples are judged by their number, never by their time: machines differ.
settings.register_profile("v2e", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("quick", parent=settings.get_profile("v2e"), max_examples=25)
settings.register_profile("soak", parent=settings.get_profile("v2e"), max_examples=10_000)
settings.load_profile("v2e")


NURSERY = pytest.StashKey[Nursery]()
#: What is here runs alike each time: a failure there is one, whatever a second run would say.
ALIKE = ("cpu", "emu", "images", "data")
#: More failures than so many are no matter of an instant at which the host was busy.
FEW = 3


def pytest_addoption(parser):
    parser.addoption(
        "--streams", type=int, default=2, metavar="N", help="seeds of random instruction streams, beyond the first two"
    )

    parser.addoption("--forked", action="store_true", help="fork v2e's processes from one that has it loaded")
    parser.addoption(
        "--second-look", action="store_true", help="with --lf: refuse where a second run could tell nothing"
    )
    parser.addoption("--soak", action="store_true", help="the tests marked `soak` too, which take minutes each")


def _slow_variants(items):
    """Of a test with this mark all variants are `slow` but the first, or but as many as its `keep` says, which are
    spread over all that are not slow by themselves."""
    variants = defaultdict(list)
    for item in items:
        if item.get_closest_marker("slow_variants") and not item.get_closest_marker("slow"):
            variants[item.nodeid.partition("[")[0]].append(item)
    for found in variants.values():
        keep = min(found[0].get_closest_marker("slow_variants").kwargs.get("keep", 1), len(found))
        quick = {len(found) * n // keep for n in range(keep)}
        for number, item in enumerate(found):
            if number not in quick:
                item.add_marker(pytest.mark.slow)


def _slow_files_first(items):
    """Files with a test that is `slow` come before the others, so that what xdist's workers take from each other in the
    end is short: one that begins its last minute-long test late has the others wait for it."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    _slow_variants(items)
    if not config.getoption("--soak"):
        soak = {item for item in items if item.get_closest_marker("soak")}
        if soak:
            config.hook.pytest_deselected(items=list(soak))
            items[:] = [item for item in items if item not in soak]
    if hasattr(config, "workerinput"):
        _slow_files_first(items)


def pytest_collection_finish(session):
    """What `.ci/run` looks at once more goes by the host's clock or another program: gdb, QEMU, KVM, a terminal."""
    if not session.config.getoption("--second-look"):
        return
    tests = session.config.rootpath / "tests"
    alike = [item.nodeid for item in session.items if item.path.relative_to(tests).parts[0] in ALIKE]
    if alike:
        raise pytest.UsageError(f"these run alike each time, and failed: {', '.join(alike)}")
    if not 0 < len(session.items) <= FEW:
        raise pytest.UsageError(f"{len(session.items)} tests failed last: 1 to {FEW} are looked at once more")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if (nursery := item.config.stash.get(NURSERY, None)) is not None:
        nursery.aside = item.get_closest_marker("started") is not None


def pytest_terminal_summary(terminalreporter):
    if said := os.environ.get("V2E_SAID_BEFORE"):  # by .ci/run: what would else have scrolled away
        terminalreporter.write_line(said)


def pytest_configure(config):
    # A job in the background of a shell inherits an ignored SIGINT and hands it on to what the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--forked"):
        nursery = config.stash[NURSERY] = Nursery()
        patch = pytest.MonkeyPatch()
        patch.setattr(subprocess, "Popen", popen_of(nursery))
        config.add_cleanup(nursery.close)
        config.add_cleanup(patch.undo)
    # The entry point registers the plugin as `v2e`; a checkout that is not installed registers it here.
    if not config.pluginmanager.has_plugin("v2e"):
        from repl import pytest_plugin

        config.pluginmanager.register(pytest_plugin, "v2e")


@pytest.fixture(params=["gate", "fast"])
def run_loop(request, monkeypatch):
    """The run loop of the engines that the test makes; the test runs once with each."""
    from emu.unicorn_engine import HELPER

    if request.param == "fast" and isinstance(HELPER, str):
        pytest.skip(f"there is no helper: {HELPER}")
    monkeypatch.setenv("V2E_ENGINE", request.param)
    return request.param
