"""`v2e inspect` as a person has it: what it prints, refuses, and how it ends."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import repl
from repl.cli import main
from xen_files import real_mode, several
from xen_samples import sample

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(repl.__file__).parent.parent)}


@pytest.fixture(params=["s_stream.bin", "s_hvmctx.bin", "s_dump.core"])
def any_file(request, tmp_path):
    path = tmp_path / request.param
    path.write_bytes(sample(request.param))
    return path


@pytest.fixture
def stream(tmp_path):
    path = tmp_path / "domain.save"
    path.write_bytes(sample("s_stream.bin"))
    return path


def inspect(*words):
    return main(["inspect", *map(str, words)])


def test_commands_show_the_file(stream, capsys):
    assert inspect(stream, "-c", "status", "-c", "sreg") == 0
    out = capsys.readouterr().out
    assert "Save stream of Xen 4.17\n0000:7c8f linear 00007c8f [real]  inc word ptr [0x610]\n" in out
    assert "es    d000   000d0000   0000ffff   0093    data16 rw- DPL 0 accessed" in out


def test_the_vcpus_of_a_context_are_listed_and_chosen(tmp_path, capsys):
    path = tmp_path / "context"
    path.write_bytes(several((0, real_mode(0x7C00)), (1, real_mode(0x9000))))
    assert inspect(path, "-c", "vcpus", "-c", "vcpu 1", "-c", "regs", "-c", "status") == 0
    out = capsys.readouterr().out
    first, _, rest = out.partition("\n* vCPU 1  ")
    assert first.splitlines()[0].startswith("* vCPU 0  0000:7c00  linear 00007c00  real")
    assert first.splitlines()[1].startswith("  vCPU 1  0000:9000  linear 00009000  real")
    assert "real, linear pc 00009000" in rest
    assert "2 vCPUs, of which 1 is shown" in rest
    assert inspect(path, "-c", "vcpu 2") == 2
    assert "no vCPU 2: there are 0, 1" in capsys.readouterr().err


def test_a_core_shows_question_marks(tmp_path, capsys):
    path = tmp_path / "core"
    path.write_bytes(sample("s_dump.core"))
    assert inspect(path, "-c", "regs", "-c", "sreg", "-c", "creg", "-c", "status") == 0
    out = capsys.readouterr().out
    assert "real, linear pc ????????" in out
    assert "cs    0000   ????????   ????????   ????    unknown" in out
    assert "cr8   ?         unknown" in out


def test_a_core_in_json_has_null_for_what_is_unknown(tmp_path, capsys):
    path = tmp_path / "core"
    path.write_bytes(sample("s_dump.core"))
    assert inspect(path, "--json", "-c", "regs", "-c", "sreg") == 0
    regs, sreg = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert regs["views"][0]["linear_pc"] is None
    assert sreg["views"][0][1]["unknown"] == ["base", "limit", "access"]


@pytest.mark.parametrize(
    "command",
    ["continue", "step", "next", "until 0x7c00", "set eax 1", "write 0x600 1", "break 0x7c00", "watch 0x600",
     "catch int", "in 0x60", "out 0x60 1", "type a", "key enter", "reset", "save", "msr pat 0", "fingerprint", "serial",
     "info pic"],
)  # fmt: skip
def test_what_would_run_or_write_is_refused_in_one_sentence(any_file, command, capsys):
    assert inspect(any_file, "-c", command) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "this is only looked at" in printed.err or "is unknown" in printed.err


#: Every command of the prompt that looks.
LOOKS = ["regs", "sreg", "creg", "dreg", "msr", "gdt", "ldt", "idt", "ivt", "page 0x1000", "x/4xb 0x7c00", "xp 0x7c00",
         "u 0x7c00", "u/2:16 0x7c00", "print 1+1", "print cs", "map", "dev", "irq", "journal", "status", "breaks",
         "why", "help", "info registers", "info mem", "info tlb", "screen", "bios", "symbols", "stop"]  # fmt: skip


@pytest.mark.parametrize("command", LOOKS)
def test_looking_says_something_or_one_sentence_why_not(any_file, command, capsys):
    status = inspect(any_file, "-c", command)
    printed = capsys.readouterr()
    assert (status == 0 and printed.out and not printed.err) or (status == 2 and printed.err.count("\n") == 1)
    assert "internal error" not in printed.err
    assert "Traceback" not in printed.err


def test_commands_come_by_a_pipe(stream):
    done = subprocess.run(
        [sys.executable, "-m", "repl.cli", "inspect", str(stream)], input="regs\nx/2xb 0x610\nquit\n",
        capture_output=True, text=True, timeout=60, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "00000610  2b 00" in done.stdout


def test_the_file_is_never_written(any_file):
    any_file.chmod(0o444)
    before = any_file.read_bytes()
    inspect(any_file, "-c", "regs")
    assert any_file.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "why"),
    [(["--vcpu", "3"], "vCPU 3"), (["--vcpu", "x"], "--vcpu 'x' is not a whole number"),
     (["--vcpu", "-1"], "--vcpu -1 is out of range: 0 to 2**62 - 1 is possible"),
     (["--headless"], "--headless needs --gdb ADDRESS"), (["--gdb", "stdio", "--json"], "cannot share stdout")],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(stream, words, why, capsys):
    assert inspect(stream, *words) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("name", ["s_stream.bin", "s_hvmctx.bin", "s_dump.core"])
def test_damaged_files_are_read_or_refused_in_one_sentence(tmp_path, name, capsys):
    path, dice = tmp_path / "damaged", random.Random(7)
    for _ in range(40):
        data = bytearray(sample(name))
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        for _ in range(dice.randrange(4)):
            if data:
                data[dice.randrange(min(len(data), 4096))] ^= 1 << dice.randrange(8)
        path.write_bytes(data)
        status = inspect(path, "-c", "regs", "-c", "x/4xb 0x7c00")
        err = capsys.readouterr().err
        assert status in (0, 2), err
        assert err.count("\n") == (status == 2)
