"""The results that come over dom0's serial line."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

from asm import assemble
from bench import assets
from bench.initramfs import DIRECTORY
from tools import dom0
from tools.dom0 import Dom0Error, Outcome
from tools.dom0_image import Tree, ours

ROOT = Path(__file__).parents[2]


def heard(*said) -> Outcome:
    outcome = Outcome()
    for what in said:
        outcome.take(what if isinstance(what, str) else json.dumps(what))
    return outcome


def result(name: str, outcome: str = "passed") -> dict:
    return {"test": name, "outcome": outcome, "seconds": 0.1, "text": ""}


def collected(names: str) -> dict:
    return {"tests": list(names)}


def test_all_passed_is_good_and_counted() -> None:
    outcome = heard(collected("ab"), result("a"), result("b"), "status 0")
    assert outcome.good
    assert outcome.counted() == "2 passed"


def test_what_did_not_pass_is_counted_too() -> None:
    said = (result("a", "failed"), result("b", "skipped"), {"again": "start 1"})
    assert heard(collected("abcd"), *said, "status 1").counted() == (
        "0 passed, 1 failed, 1 skipped, 2 not heard of, 1 start of a domain made once more"
    )


def test_a_start_that_is_made_again_is_shown_with_its_reason_and_is_no_result() -> None:
    outcome = heard(collected("a"))
    assert outcome.take(json.dumps({"again": "start 1 of a domain: why"})) == "ONCE MORE start 1 of a domain: why"
    outcome.take(json.dumps({"again": "start 2 of a domain: why"}))
    assert outcome.results == {}
    outcome.take(json.dumps(result("a")))
    outcome.take("status 0")
    assert outcome.good
    assert outcome.counted() == "1 passed, 2 starts of a domain made once more"


@pytest.mark.parametrize(
    "said",
    [
        [collected("ab"), result("a"), "status 0"],  # one was never heard of
        [collected("a"), result("a", "failed"), "status 1"],
        [collected("a"), result("a")],  # dom0 died
        [collected(""), "status 5"],
    ],
)
def test_anything_less_is_not(said) -> None:
    assert not heard(*said).good


@pytest.mark.parametrize(
    ("ended", "why"),
    [("", "QEMU ended with status -9"), ("it had taken 9 s of CPU time", "it had taken 9 s of CPU time")],
)
@pytest.mark.parametrize("last", ["none", "b"])
def test_an_end_without_a_result_says_how_far_it_came(ended: str, why: str, last: str) -> None:
    outcome = heard(collected("abc"), *(result(name) for name in "ab" if last == "b"))
    count = 2 if last == "b" else 0
    assert outcome.broken_off(-9, ended) == (
        f"dom0 did not come to the end of its tests: {why}; {count} of 3 tests had been heard of, the last of them "
        f"{last}"
    )


def says(monkeypatch, *lines: str) -> None:
    """QEMU is a program that says these lines on the serial line."""
    monkeypatch.setattr(dom0, "qemu_command", lambda qemu: ["printf", r"%s\n", *lines])


def test_a_signal_that_ends_pytest_is_told_with_the_console(monkeypatch, capsys, tmp_path) -> None:
    """On which Python says where it was; what was cut off is known."""
    (tmp_path / "console").write_text("Fatal Python error: Segmentation fault\n")
    says(monkeypatch, json.dumps(collected("ab")), json.dumps(result("a")), f"status {128 + signal.SIGSEGV}")
    outcome = Outcome()
    dom0.run(tmp_path, "", outcome)
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
    assert outcome.results == {}


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


def tried(monkeypatch, outcomes: list[Outcome], **options: bool) -> tuple[Outcome, list[str], list[list[str]]]:
    """What it comes to, what passed the second time only, and which tests each dom0 was given."""
    given: list[list[str]] = []

    def attempt(folder, qemu, arguments, only):
        given.append(list(only))
        return outcomes[len(given) - 1]

    monkeypatch.setattr(dom0, "attempt", attempt)
    return *dom0.attempts(Path(), "qemu", "", **options), given


def one_of(*names: str, tests: str = "abcd") -> Outcome:
    """What dom0 says whose tests are run, and these fail."""
    said = (result(name, "failed" if name in names else "passed") for name in tests)
    return heard(collected(tests), *said, f"status {1 if names else 0}")


def cut_off(*failed: str, tests: str = "abc") -> Outcome:
    """The same where a signal ends pytest in the second of the tests."""
    said = result(tests[0], "failed" if failed else "passed")
    return heard(collected(tests), said, "status 139")


def broken_off() -> Outcome:
    """The same where dom0 dies in the second of its tests."""
    return heard(collected("abcd"), result("a"))


@pytest.mark.parametrize(
    ("outcomes", "good", "given"),
    [
        ([one_of()], True, [[]]),
        ([one_of("b"), one_of(tests="b")], True, [[], ["b"]]),
        ([one_of("b"), one_of("b", tests="b")], False, [[], ["b"]]),
        ([one_of("b"), heard()], False, [[], ["b"]]),
        ([broken_off(), one_of()], True, [[], []]),
        ([heard(), one_of()], True, [[], []]),
        ([broken_off(), broken_off()], False, [[], []]),
        ([one_of(*"abcd")], False, [[]]),
        ([cut_off(), one_of(tests="bc")], True, [[], ["b", "c"]]),
        ([cut_off("a"), one_of()], True, [[], ["a", "b", "c"]]),
        ([cut_off(), cut_off(tests="bc")], False, [[], ["b", "c"]]),
    ],
)
def test_what_failed_is_given_a_second_dom0_once(monkeypatch, capsys, outcomes, good, given) -> None:
    outcome, late, asked = tried(monkeypatch, outcomes, again=True)
    assert (outcome.good, asked) == (good, given)
    twice = good and len(given) == 2
    assert ("passed the second time only" in capsys.readouterr().out) == twice
    assert late == ((given[1] or ["all tests"]) if twice else [])
    assert outcome.counted().startswith(f"{len(outcome.tests)} passed") == good


def test_a_second_dom0_is_not_for_those_who_did_not_ask(monkeypatch) -> None:
    outcome, late, asked = tried(monkeypatch, [one_of("b")], again=False)
    assert (outcome.good, late, asked) == (False, [], [[]])


# -- sessions


def names_of_dom0(folder: Path) -> list[str]:
    """What pytest collects of tests/xen/dom0 as dom0 does, in a copy that has the sectors, too."""
    copied = folder / "dom0"
    shutil.copytree(ROOT / "tests/xen/dom0", copied, ignore=shutil.ignore_patterns("__pycache__"))
    for source in copied.glob("*.asm"):
        source.with_suffix(".bin").write_bytes(assemble(source.read_text()))
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", ".", "-p", "no:cacheprovider", "-q",
               "--import-mode", "importlib", "-o", "pythonpath=.", "--color", "no", "--collect-only", "."]  # fmt: skip
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=copied, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_each_test_is_of_one_session_and_each_word_is_of_a_test(tmp_path: Path) -> None:
    """By pytest's own reading of the two expressions, of the tests that there are: a word that a renamed test no longer
    has would leave it to the other session."""
    names = names_of_dom0(tmp_path)
    expressions = [Expression.compile(one) for one in dom0.SESSIONS]
    for name in names:
        assert sum(each.evaluate(lambda word, name=name, **_: word in name.lower()) for each in expressions) == 1, name
    for word in dom0.APART.split(" or "):
        assert any(word in name for name in names), word
    assert not all(expressions[1].evaluate(lambda word, name=name, **_: word in name) for name in names)


def whole(monkeypatch, capsys, *outcomes: Outcome, words: tuple[str, ...] = ()) -> tuple[int, list[str], list[str]]:
    """Status and lines of `make test-xen` whose dom0s come to these, and the arguments of each."""
    given: list[str] = []

    def attempt(folder, qemu, arguments, only):
        given.append(arguments)
        return outcomes[len(given) - 1]

    monkeypatch.setattr("sys.argv", ["dom0", *words])
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(dom0, "attempt", attempt)
    status = dom0.main()
    return status, capsys.readouterr().out.splitlines(), given


@pytest.mark.parametrize(
    ("outcomes", "status", "line"),
    [
        ((one_of(), one_of(tests="ef")), 0, "6 passed in 2 dom0s (4 and 2 passed), 0 s in all"),
        ((one_of("b"), one_of(tests="ef")), 1, "5 passed, 1 failed in 2 dom0s (3 and 2 passed), 0 s in all"),
        ((one_of(), one_of("e", tests="ef")), 1, "5 passed, 1 failed in 2 dom0s (4 and 1 passed), 0 s in all"),
        ((broken_off(), one_of(tests="ef")), 1,
         "3 passed, 3 not heard of in 2 dom0s (1 and 2 passed), 0 s in all; without an end: dom0 1"),
        ((heard(), heard()), 1, "0 passed in 2 dom0s (0 and 0 passed), 0 s in all; without an end: dom0 1, 2"),
        ((one_of(), cut_off(tests="efg")), 1,
         "5 passed, 2 not heard of in 2 dom0s (4 and 1 passed), 0 s in all"),
    ],
)  # fmt: skip
def test_all_tests_are_run_in_two_dom0s_whatever_becomes_of_the_first(
    monkeypatch, capsys, outcomes, status: int, line: str
) -> None:
    said = whole(monkeypatch, capsys, *outcomes)
    assert (said[0], said[1][-1]) == (status, line)
    assert said[2] == [f"-k '{expression}'" for expression in dom0.SESSIONS]


def test_what_passed_the_second_time_is_in_the_last_line(monkeypatch, capsys) -> None:
    outcomes = (one_of("b"), one_of(tests="b"), one_of("e", tests="ef"), one_of(tests="e"))
    status, lines, _ = whole(monkeypatch, capsys, *outcomes, words=("--again",))
    assert (status, lines[-1]) == (
        0, "6 passed in 2 dom0s (4 and 2 passed), 0 s in all; passed the second time only: b, e",
    )  # fmt: skip


def test_what_is_asked_for_by_name_has_one_dom0(monkeypatch, capsys) -> None:
    assert whole(monkeypatch, capsys, one_of(), words=("-k", "some")) == (0, [], ["-k some"])


@pytest.mark.parametrize("session", [1, 2])
def test_a_dom0_that_dies_is_told_with_its_console_and_the_other_is_run(
    monkeypatch, capsys, tmp_path, session: int
) -> None:
    """QEMU ends in the midst of its tests."""
    ends = [json.dumps(collected("ab")), json.dumps(result("a"))]
    booted: list[list[str]] = []

    def command(qemu: str) -> list[str]:
        booted.append(
            ends if len(booted) + 1 == session else [json.dumps(collected("c")), json.dumps(result("c")), "status 0"]
        )
        return ["printf", r"%s\n", *booted[-1]]

    monkeypatch.setattr("sys.argv", ["dom0", "--console", str(tmp_path / "kept")])
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(dom0, "qemu_command", command)
    monkeypatch.setattr(
        dom0, "lay_out", lambda folder, arguments, only: (folder / "console").write_text(f"of {len(booted) + 1}\n")
    )
    assert (dom0.main(), len(booted)) == (1, 2)
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("of ")] == [f"of {session}"]
    assert "1 of 2 tests had been heard of, the last of them a" in said
    assert said.splitlines()[-1].startswith("2 passed, 1 not heard of in 2 dom0s (1 and 1 passed), ")
    assert said.splitlines()[-1].endswith(f"; without an end: dom0 {session}")
    assert (tmp_path / "kept").read_text() == "of 1\nof 2\n"


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


def test_what_is_missing_behind_the_first_dom0_is_no_reason_to_say_that_nothing_was_run(monkeypatch, capsys) -> None:
    def attempt(folder, qemu, arguments, only):
        if arguments == f"-k '{dom0.APART}'":
            raise assets.AssetMissing("no nasm")
        return one_of("b")

    monkeypatch.setattr("sys.argv", ["dom0"])
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(dom0, "attempt", attempt)
    assert dom0.main() == 1
    assert capsys.readouterr().out.splitlines()[-1] == "test-xen: no nasm"


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
