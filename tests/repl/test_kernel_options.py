"""`v2e run --kernel`: what is refused, in one sentence with status 2, and a run from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

import oracles
from repl.cli import main, run_parser
from repl.machine_options import machine_config


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["run", "--headless", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("v2e: ")
    assert err.count("\n") == 1
    return err


@pytest.fixture
def image(tmp_path: Path) -> str:
    (tmp_path / "image").write_bytes(oracles.assemble_image("multiboot"))
    return str(tmp_path / "image")


def test_what_a_kernel_would_need_is_refused_without_one(capsys: pytest.CaptureFixture[str]):
    assert "--append belongs to a kernel" in refusal(capsys, "--append", "quiet")
    assert "--initrd belongs to a kernel" in refusal(capsys, "--initrd", "x")


def test_files_that_cannot_be_used_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path, image: str):
    missing = str(tmp_path / "missing")
    assert f"kernel {missing} cannot be read: No such file" in refusal(capsys, "--kernel", missing)
    assert f"kernel {tmp_path} is a directory" in refusal(capsys, "--kernel", str(tmp_path))
    assert f"initrd {missing} cannot be read" in refusal(capsys, "--kernel", image, "--initrd", missing)
    assert "kernel /dev/null is not a regular file" in refusal(capsys, "--kernel", "/dev/null")


def test_a_kernel_and_something_else_to_start_in_are_refused(capsys: pytest.CaptureFixture[str], image: str):
    assert "the tour and --kernel" in refusal(capsys, "--kernel", image, "tour")
    assert "name one with --firmware" in refusal(capsys, "--kernel", image, "--option-rom", oracles.__file__)


def test_memory_too_small_for_the_kernel_is_refused(capsys: pytest.CaptureFixture[str], image: str):
    assert "is not free RAM: 1 MiB are there" in refusal(capsys, "--kernel", image, "--memory", "1M")


def test_several_initrds_are_modules_in_order(image: str, tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode())
    options = run_parser().parse_args(
        ["--kernel", image, "--initrd", str(tmp_path / "one"), "--initrd", str(tmp_path / "two")]
    )
    payload = machine_config(options).payload
    assert payload is not None
    assert [data for _, data in payload.pieces if data in (b"one", b"two")] == [b"one", b"two"]


def test_an_image_runs_to_its_exit_code(capfd: pytest.CaptureFixture[str], image: str):
    assert main(["run", "--headless", "--kernel", image, "--append", "last", "--debugcon", "stdio"]) == 1
    assert " last " in capfd.readouterr().out
