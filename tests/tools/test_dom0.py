"""The results that come over dom0's serial line."""

import gzip
import json

import pytest

from bench.initramfs import DIRECTORY
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
