"""The results that come over dom0's serial line."""

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import assets
from bench.initramfs import DIRECTORY
from tools import dom0
from tools.dom0 import Dom0Error, Outcome
from tools.dom0_image import Tree, ours


def heard(*said) -> Outcome:
    outcome = Outcome()
    for what in said:
        outcome.take(what if isinstance(what, str) else json.dumps(what))
    return outcome


def result(name: str, outcome: str = "passed") -> dict:
    return {"test": name, "outcome": outcome, "seconds": 0.1, "text": ""}


def test_all_passed_is_good_and_counted() -> None:
    outcome = heard({"collected": 2}, result("a"), result("b"), "status 0")
    assert outcome.good
    assert outcome.summary(61.2) == "2 passed in dom0, 61 s from power-on to power-off"


@pytest.mark.parametrize(
    "said",
    [
        [{"collected": 2}, result("a"), "status 0"],  # one was never heard of
        [{"collected": 1}, result("a", "failed"), "status 1"],
        [{"collected": 1}, result("a")],  # dom0 died
        [{"collected": 0}, "status 5"],
    ],
)
def test_anything_less_is_not(said) -> None:
    assert not heard(*said).good


@pytest.mark.parametrize(
    ("ended", "why"),
    [("", "QEMU ended with status -9"), ("it had taken 9 s of CPU time", "it had taken 9 s of CPU time")],
)
def test_an_end_without_a_result_says_how_far_it_came(ended: str, why: str) -> None:
    outcome = heard({"collected": 3}, result("a"), result("b"))
    assert outcome.broken_off(-9, ended) == (
        f"dom0 did not come to the end of its tests: {why}; 2 of 3 tests had been heard of, the last of them b"
    )


def test_a_signal_that_ends_pytest_is_told_with_the_console(monkeypatch, capsys, tmp_path) -> None:
    """On which Python says where it was; what was cut off is known."""
    said = [
        json.dumps({"collected": 2, "tests": ["a", "b"]}),
        json.dumps(result("a")),
        f"status {128 + signal.SIGSEGV}",
    ]
    (tmp_path / "console").write_text("Fatal Python error: Segmentation fault\n")
    monkeypatch.setattr(dom0, "qemu_command", lambda qemu: ["printf", r"%s\n", *said])
    outcome = dom0.run(tmp_path, "")
    assert (outcome.good, outcome.crash, outcome.unheard) == (False, "signal 11 ended pytest", ["b"])
    assert "Fatal Python error" in capsys.readouterr().out


SLEEPS, WORKS = "import time; time.sleep(60)", "while True: pass"


@pytest.mark.parametrize(
    ("does", "patience", "still", "why"),
    [
        (WORKS, 0.2, 60, "it had taken 0.2 s of CPU time"),
        (SLEEPS, 60, 0.4, "it had taken no CPU time for 0.4 s"),
        ("pass", 60, 60, ""),
    ],
)
def test_a_process_that_hangs_is_ended_for_what_it_takes_of_the_host(
    monkeypatch, does: str, patience: float, still: float, why: str
) -> None:
    """Not for the time that has passed, of which others may have taken any part."""
    for name, value in (("PATIENCE", patience), ("STILL", still), ("LOOK", 0.05)):
        monkeypatch.setattr(dom0, name, value)
    process = subprocess.Popen([sys.executable, "-c", does], text=True)
    with dom0.Watchdog(process) as watchdog:
        status = process.wait()
    assert (watchdog.ended, status) == (why, -9 if why else 0)


def test_a_process_that_gets_little_of_the_host_is_let_go_on(monkeypatch) -> None:
    """It is stopped for longer than its patience, in which it takes nothing."""
    monkeypatch.setattr(dom0, "PATIENCE", 0.5)
    monkeypatch.setattr(dom0, "LOOK", 0.05)
    process = subprocess.Popen([sys.executable, "-c", SLEEPS], text=True)
    with dom0.Watchdog(process) as watchdog:
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        assert (watchdog.ended, process.poll()) == ("", None)
        process.kill()
        process.wait()


def test_a_table_is_shown_and_is_no_result() -> None:
    outcome = Outcome()
    assert outcome.take(json.dumps({"table": ["a request 1 ms", "an event 2 ms"]})) == "a request 1 ms\nan event 2 ms"
    assert sum(outcome.counts.values()) == 0


def test_what_is_no_result_is_an_error() -> None:
    with pytest.raises(Dom0Error, match=r"^dom0 said what is no result: 'Kernel panic'$"):
        heard("Kernel panic")


def test_folders_come_to_be_with_what_is_in_them() -> None:
    tree = Tree()
    tree.file("a/b/c", b"x")
    assert [(entry.name, entry.mode == DIRECTORY) for entry in tree.entries.values()] == [
        ("a", True), ("a/b", True), ("a/b/c", False),
    ]  # fmt: skip


def test_the_second_archive_has_our_modules_compiled_and_the_arguments() -> None:
    raw = gzip.decompress(ours(("xenbridge",), "-k some"))
    assert raw.count(b"v2e/xenbridge/ioreq.py\0") == 1
    assert b"v2e/arguments\0" in raw
    assert b"-k some\n" in raw


# -- a second time


def tried(monkeypatch, outcomes: list[Outcome | None], **options: bool) -> tuple[bool, list[list[str]]]:
    """Whether it is a success, and which tests each dom0 was given."""
    given: list[list[str]] = []

    def attempt(folder, qemu, arguments, only):
        given.append(list(only))
        return outcomes[len(given) - 1]

    monkeypatch.setattr(dom0, "attempt", attempt)
    return dom0.attempts(Path(), "qemu", "", **options), given


def one_of(*names: str) -> Outcome:
    """What dom0 says whose tests a, b, c and d are run, and these fail."""
    said = (result(name, "failed" if name in names else "passed") for name in "abcd")
    return heard({"collected": 4}, *said, f"status {1 if names else 0}")


def cut_off(*failed: str) -> Outcome:
    """The same where a signal ends pytest in the second of three tests."""
    said = result("a", "failed" if failed else "passed")
    return heard({"collected": 3, "tests": list("abc")}, said, "status 139")


@pytest.mark.parametrize(
    ("outcomes", "good", "given"),
    [
        ([one_of()], True, [[]]),
        ([one_of("b"), one_of()], True, [[], ["b"]]),
        ([one_of("b"), one_of("b")], False, [[], ["b"]]),
        ([one_of("b"), None], False, [[], ["b"]]),
        ([None, one_of()], True, [[], []]),
        ([one_of(*"abcd")], False, [[]]),
        ([cut_off(), one_of()], True, [[], ["b", "c"]]),
        ([cut_off("a"), one_of()], True, [[], ["a", "b", "c"]]),
        ([cut_off(), cut_off()], False, [[], ["b", "c"]]),
    ],
)
def test_what_failed_is_given_a_second_dom0_once(monkeypatch, capsys, outcomes, good, given) -> None:
    assert tried(monkeypatch, outcomes, again=True) == (good, given)
    assert ("passed the second time only" in capsys.readouterr().out) == (good and len(given) == 2)


def test_a_second_dom0_is_not_for_those_who_did_not_ask(monkeypatch) -> None:
    assert tried(monkeypatch, [one_of("b")], again=False) == (False, [[]])


# -- where it cannot be run


def said_last(monkeypatch, capsys, error: Exception | None) -> tuple[int, str]:
    """Status and last line of `make test-xen` where QEMU is not there, or what it boots cannot be had."""

    def lay_out(folder, arguments, only):
        raise error

    monkeypatch.setattr("sys.argv", ["dom0"])
    monkeypatch.setattr("shutil.which", lambda name: None if error is None else f"/usr/bin/{name}")
    monkeypatch.setattr(dom0, "lay_out", lay_out)
    status = dom0.main()
    return status, capsys.readouterr().out.splitlines()[-1]


def test_a_host_that_cannot_run_it_says_skipped_and_why_in_its_last_line(monkeypatch, capsys) -> None:
    for error, why in ((None, "qemu-system-x86_64 is not there"), (assets.AssetMissing("no apt"), "no apt")):
        status, last = said_last(monkeypatch, capsys, error)
        assert status == 0
        assert last.startswith(f"SKIPPED test-xen, not one test was run: {why}")


def test_a_package_that_the_archive_no_longer_has_is_a_failure(monkeypatch, capsys) -> None:
    status, last = said_last(monkeypatch, capsys, assets.AssetGone("Debian's amd64 packages xen were not fetched"))
    assert status == 1
    assert last == (
        "test-xen: Debian's amd64 packages xen were not fetched, although Debian's archive answers: bench/assets.py is "
        "to be mended"
    )


@pytest.mark.parametrize(("answers", "kind"), [(True, assets.AssetGone), (False, assets.AssetMissing)])
def test_whether_the_archive_answered_is_known_from_its_lists(monkeypatch, tmp_path, answers, kind) -> None:
    def run(command, folder, *, check=True):
        if "update" in command and answers:
            (tmp_path / "apt/lists/deb.debian.org_debian_dists_bookworm_main_binary-amd64_Packages.lz4").touch()
        if "download" in command:
            raise assets.AssetMissing("apt-get ended with status 100 and said: E: Unable to locate package")
        return ""

    monkeypatch.setattr(assets, "_run", run)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(assets.AssetMissing) as caught:
        assets._fetch(tmp_path, assets.Set("amd64", ("gone",)), ["gone"])
    assert type(caught.value) is kind
    monkeypatch.setattr(assets, "_fetched", lambda name: (tmp_path, answers))
    with pytest.raises(assets.AssetMissing, match=r"packages .*xen-hypervisor.* were not fetched") as caught:
        assets.whole("dom0")
    assert type(caught.value) is kind
