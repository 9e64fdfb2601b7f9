"""`v2e run --save-xen` and `--load-xen`, and the command save-xen, as a person has them."""

from __future__ import annotations

import random

import pytest

from repl.cli import main
from xen_samples import sample


@pytest.fixture
def domain(tmp_path):
    path = tmp_path / "domain.save"
    path.write_bytes(sample("s_stream.bin"))
    return path


def v2e(*words):
    return main([*map(str, words)])


def test_a_domain_of_xens_goes_on_where_it_was_and_is_saved_again(domain, tmp_path, capsys):
    again = tmp_path / "again.save"
    status = v2e("run", "--load-xen", domain, "--until", "insns:1000", "-c", "x/2xh 0x610", "--save-xen", again)
    printed = capsys.readouterr()
    assert status == 0
    assert printed.out.startswith("00000610  009b 0000")
    assert printed.err.count("Xen's records have no place for the display") == 2
    assert v2e("inspect", again, "-c", "status", "-c", "x/2xh 0x610") == 0
    assert "00000610  009b 0000" in capsys.readouterr().out


def test_a_stream_is_loaded_stopped_where_it_was_saved(domain, capsys):
    assert v2e("run", "--load-xen", domain, "-c", "status") == 0
    out = capsys.readouterr().out
    assert "Loaded from" in out
    assert "0000:7c8f linear 00007c8f [real]  inc word ptr [0x610]" in out


def test_the_prompt_saves_too(domain, tmp_path, capsys):
    path = tmp_path / "prompt.save"
    assert v2e("run", "--load-xen", domain, "-c", f"save-xen {path}") == 0
    assert f"written to {path}" in capsys.readouterr().out
    assert v2e("inspect", path, "-c", "print ip") == 0
    assert "0x7c8f" in capsys.readouterr().out


def test_the_tour_is_saved_in_the_middle_and_ends_with_its_own_status(tmp_path, capsys):
    path = tmp_path / "tour.save"
    assert v2e("run", "--until", "insns:20000", "--save-xen", path) == 0
    assert v2e("run", "tour", "--load-xen", path, "--headless") == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_file_that_is_there_is_replaced_as_a_whole(domain, tmp_path, capsys):
    path = tmp_path / "there.save"
    path.write_bytes(b"x" * 10_000_000)
    assert v2e("run", "--load-xen", domain, "--until", "insns:10", "--memory", "1M", "--save-xen", path) == 0
    assert path.stat().st_size < 10_000_000
    assert [p.name for p in tmp_path.iterdir()] == ["there.save"] or {p.name for p in tmp_path.iterdir()} == {
        "there.save", "domain.save",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "why"), [("no/such/folder/x", "there is no folder"), (".", "no regular file"), ("/dev/null", "no regular")]
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_runs(name, why, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert v2e("run", "--until", "insns:10", "--save-xen", name) == 2
    assert why in capsys.readouterr().err


def test_an_image_of_the_run_is_not_replaced(tmp_path, capsys):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    assert v2e("run", image, "--until", "insns:10", "--save-xen", image) == 2
    assert "is read by this run" in capsys.readouterr().err
    assert image.read_bytes() == bytes(1 << 20)


@pytest.fixture
def link(domain):
    """Another name of the domain."""
    link = domain.with_name("link.save")
    link.symlink_to(domain)
    return link


@pytest.mark.parametrize("option", ["--save-xen", "--screenshot", "--serial", "--debugcon", "--parallel"])
def test_the_loaded_domain_is_not_replaced(option, domain, link, capsys):
    data = domain.read_bytes()
    for name in (domain, link):
        assert v2e("run", "--load-xen", domain, "--until", "insns:10", option, name) == 2
        assert capsys.readouterr().err.count(f"v2e: {option} {str(name)!r} is read by this run: name another file") == 1
    assert domain.read_bytes() == data


@pytest.mark.parametrize("command", ["save-xen", "screen --png"])
def test_nor_is_it_at_the_prompt(command, domain, link, capsys):
    data = domain.read_bytes()
    for name in (domain, link):
        assert v2e("run", "--load-xen", domain, "-c", f"{command} {name}") == 2
        assert f"{str(name)!r} is read by this run: name another file" in capsys.readouterr().err
    assert domain.read_bytes() == data


def test_nor_an_image_at_the_prompt(tmp_path, capsys):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    assert v2e("run", image, "-c", f"save-xen {image}") == 2
    assert "is read by this run" in capsys.readouterr().err
    assert image.read_bytes() == bytes(1 << 20)


@pytest.mark.parametrize(
    ("name", "why"),
    [("s_hvmctx.bin", "only a save stream can be loaded"), ("s_dump.core", "only a save stream"),
     (None, "cannot be read")],
)  # fmt: skip
def test_what_is_no_stream_is_refused(name, why, tmp_path, capsys):
    path = tmp_path / "file"
    if name is not None:
        path.write_bytes(sample(name))
    assert v2e("run", "--load-xen", path, "-c", "status") == 2
    printed = capsys.readouterr()
    assert why in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.slow
def test_damaged_streams_are_loaded_or_refused_in_one_sentence(tmp_path, capsys):
    path, dice = tmp_path / "damaged", random.Random(3)
    whole = sample("s_stream.bin")
    for _ in range(25):
        data = bytearray(whole)
        for _ in range(1 + dice.randrange(3)):
            # the CPU and device records are behind the pages
            data[dice.randrange(len(whole) - 4300, len(whole))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
        status = v2e("run", "--load-xen", path, "--memory", "1M", "--limit", "2000", "--headless")
        err = capsys.readouterr().err
        assert status in (0, 2, 4, 6), err
        assert "Traceback" not in err
        assert "internal error" not in err
        assert "itself failed" not in err
