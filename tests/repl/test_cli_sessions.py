"""`v2e` as a process: with gdb, at a terminal, and `v2e doctor`."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli_rig import EXITING, ROOT, SECONDS, SPINNING, V2E, refused, v2e


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_a_client_that_kills_the_guest_ends_a_headless_run(firmware):
    command = [*V2E, "run", "--firmware", firmware(SPINNING), "--headless", "--wait", "--gdb", "0"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    address = process.stderr.readline().removeprefix("gdb: target remote ").strip()
    gdb = ["gdb", "-nx", "-q", "-batch", "-ex", f"target remote {address}", "-ex", "monitor regs", "-ex",
           "monitor continue", "-ex", "kill"]  # fmt: skip
    done = subprocess.run(gdb, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert "real, linear pc fffffff0" in done.stdout + done.stderr
    assert "gdb runs and stops the guest" in done.stdout + done.stderr
    assert process.wait(SECONDS) == 0


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
@pytest.mark.parametrize(
    ("target", "until", "begins"),
    [("extended-remote", [], True), ("remote", [], False), ("extended-remote", ["--until", "exit"], False)],
)
def test_a_server_of_ones_own_outlives_the_guests_end_for_a_gdb_that_can_begin_it_again(
    target, until, begins, firmware, tmp_path
):
    command = [*V2E, "run", "--firmware", firmware(EXITING), "--headless", "--wait", "--gdb", "0", *until]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True, cwd=ROOT)  # fmt: skip
    assert process.stderr is not None
    address = process.stderr.readline().removeprefix("gdb: target remote ").strip()
    commands = ["set confirm off", f"target {target} {address}", "continue"]
    if not until:  # gdb 13 crashes on `starti` behind the end of its server
        commands += ["starti", "p/x $pc", "continue"]
    gdb = ["gdb", "-nx", "-q", "-batch", *(word for line in commands for word in ("-ex", line))]
    done = subprocess.run(gdb, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=tmp_path)
    assert done.stdout.count("exited with code 05") == (2 if begins else 1), done.stdout + done.stderr
    assert ("= 0xfffffff0" in done.stdout) == begins
    assert process.wait(SECONDS) == 11


#: Of gdb, behind a reset.
AT_600H = ["set $cs = 0", "set $pc = 0x600"]


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
@pytest.mark.parametrize(
    ("again", "options", "status", "said"),
    [([*AT_600H, "set {short}0x600 = 0x0b0f", "set $idtr.limit = 0", "continue"], [], 4, "died: triple fault"),
     ([*AT_600H, "set {short}0x600 = 0xfeeb", "continue"], ["--limit", "300000"], 6, "300000 instructions ran out"),
     (["kill"], [], 11, "")],
)  # fmt: skip
def test_the_status_of_a_guest_that_is_begun_again_is_that_of_its_last_end(
    again, options, status, said, firmware, tmp_path
):
    command = [*V2E, "run", "--firmware", firmware(EXITING), "--headless", "--wait", "--gdb", "0", *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, cwd=ROOT)  # fmt: skip
    assert process.stderr is not None
    address = process.stderr.readline().removeprefix("gdb: target remote ").strip()
    commands = ["set confirm off", f"target extended-remote {address}", "continue", "starti", *again]
    gdb = ["gdb", "-nx", "-q", "-batch", *(word for line in commands for word in ("-ex", line))]
    subprocess.run(gdb, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=tmp_path)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == status, errors
    assert said in errors


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
@pytest.mark.started
def test_v2e_gdb_attaches_at_reset_and_ends_with_gdb(firmware):
    done = v2e("gdb", "--firmware", firmware(EXITING), "--", "-nx", "-batch", "-ex", "p/x $pc", "-ex", "continue")
    assert "$1 = 0xfffffff0" in done.stdout
    assert "executable" not in done.stdout + done.stderr, "a machine has no file that gdb might miss"
    assert done.returncode == 11


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_v2e_gdb_begins_the_guest_again(firmware):
    """From power-on, in the middle of it, behind `kill` and behind its end; the exit status is that of the last end."""
    commands = ["stepi", "starti", "p/x $pc", "kill", "p $pc", "starti", "p/x $pc", "stepi", "p $pc != 0xfffffff0",
                "continue", "stepi", "starti", "p/x $pc"]  # fmt: skip
    words = [word for command in ("set confirm off", *commands) for word in ("-ex", command)]
    done = v2e("gdb", "--firmware", firmware(EXITING), "--", "-nx", "-batch", *words)
    values = re.findall(r"^\$\d+ = (.*)$", done.stdout, re.MULTILINE)
    assert values == ["0xfffffff0", "0xfffffff0", "1", "0xfffffff0"], done.stdout + done.stderr
    assert "killed" in done.stdout
    assert "exited with code 05" in done.stdout
    assert done.stderr.count("The program is not being run.") == 1
    assert done.returncode == 11


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_v2e_gdb_serves_others_at_the_address_that_it_is_given(tmp_path, firmware):
    place = tmp_path / "machine"
    second = f"gdb -nx -q -batch -ex 'target remote {place}' -ex 'p/x $pc' -ex 'set $eax = 1' -ex 'detach' 2>&1"
    words = ("-nx", "-batch", "-ex", f"shell {second}", "-ex", "stepi", "-ex", "kill")
    done = v2e("gdb", "--gdb", str(place), "--firmware", firmware(SPINNING), "--", *words)
    assert f"gdb: target remote {place}" in done.stderr
    assert "$1 = 0xfffffff0" in done.stdout
    assert "this one looks" in done.stdout
    assert done.returncode == 0


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_v2e_gdb_connects_a_gdb_that_cannot_load_the_helper(tmp_path, firmware):
    """As one without Python; it has gdb's own warning then."""
    env = fake_gdb(tmp_path, f'[ "$2" = -x ] && shift 3 && exec {shutil.which("gdb")} "$@"')
    done = v2e("gdb", "--firmware", firmware(EXITING), "--", "-nx", "-batch", "-ex", "p/x $pc", "-ex", "kill", env=env)
    assert "$1 = 0xfffffff0" in done.stdout
    assert "No executable has been specified" in done.stderr
    assert done.returncode == 0


def fake_gdb(tmp_path, script):
    path = tmp_path / "gdb"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_v2e_gdb_gives_the_persons_arguments_last(tmp_path):
    env = fake_gdb(tmp_path, 'for a in "$@"; do echo "$a"; done; cat "$5"')
    done = v2e("gdb", "tour", "--", "-ex", "continue", env=env)
    lines = done.stdout.splitlines()
    assert [lines[n] for n in (0, 1, 3, 5, 6)] == ["-q", "-x", "-x", "-ex", "continue"]
    assert Path(lines[2]).is_file()
    assert any(line.startswith("target extended-remote /") for line in lines[7:])
    assert done.returncode == 0


def test_a_gdb_that_fails_is_status_2(tmp_path):
    text = refused(v2e("gdb", "tour", env=fake_gdb(tmp_path, "exit 3")))
    assert "status 3" in text


def test_without_gdb_v2e_gdb_says_what_to_install(tmp_path):
    assert "gdb is not installed" in refused(v2e("gdb", "tour", env={"PATH": str(tmp_path)}))


def test_doctor_finds_a_working_engine():
    done = v2e("doctor", "--json")
    assert done.returncode == 0
    findings = {f["name"]: f for f in json.loads(done.stdout)["views"][0]}
    assert findings["engine"]["ok"] is True
    assert {"gdb", "nasm", "SeaBIOS", "kvm", "terminal"} <= set(findings)


@pytest.mark.slow_variants
@pytest.mark.parametrize("loop", ["fast", "gate"])
def test_doctor_says_which_checks_are_not_made(loop: str) -> None:
    environment = {"V2E_ENGINE": "gate"} if loop == "gate" else {}
    done = v2e("doctor", "--json", env=environment)
    gaps = [f["text"] for f in json.loads(done.stdout)["views"][0] if f["name"] == "not kept"]
    assert "the type of CS in real mode, read/write data" in gaps
    assert ("DR7.GD" in gaps) is (loop == "gate")
    assert all(len(gap) < 100 for gap in gaps)


def test_a_run_loop_that_does_not_exist_is_refused() -> None:
    said = refused(v2e("run", "tour", env={"V2E_ENGINE": "quick"}))
    assert "V2E_ENGINE is 'quick'" in said
    assert "`fast` or `gate`" in said


def test_at_a_terminal_there_is_a_prompt_and_ctrl_d_leaves(firmware, tmp_path):
    path = firmware(SPINNING)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", HOME=str(tmp_path), PYTHONPATH=str(ROOT))
        for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
            os.environ.pop(name, None)
        os.execv(sys.executable, [*V2E, "run", "--firmware", str(path), "--gdb", "off"])
    seen = b""

    def expect(text):
        nonlocal seen
        end = time.monotonic() + SECONDS
        while text not in seen and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    seen += os.read(terminal, 65536)
        assert text in seen

    expect(b"v2e>")
    os.write(terminal, b"status\r")
    expect(b"the guest runs: real")
    os.write(terminal, b"\x03")
    expect(b"nterrupted")
    ended, status, deadline = 0, 0, time.monotonic() + SECONDS
    while not ended and time.monotonic() < deadline:
        # A key pressed while the line editor is being set up again may go to nobody: a person presses it again.
        with contextlib.suppress(OSError):
            os.write(terminal, b"\x04")
            if select.select([terminal], [], [], 0.5)[0]:
                seen += os.read(terminal, 65536)
        ended, status = os.waitpid(pid, os.WNOHANG)
    assert ended == pid, seen
    assert os.waitstatus_to_exitcode(status) == 0
    os.close(terminal)
    assert "status" in (tmp_path / ".local" / "state" / "v2e" / "history").read_text()


def test_a_fifth_disk_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "d.img").write_bytes(bytes(512))
    disk = ("--disk", str(tmp_path / "d.img"))
    done = v2e("run", "--firmware", "seabios", *disk, *disk, *disk, *disk, *disk, "--headless")
    assert (done.returncode, done.stdout) == (2, "")
    assert "5 images are disk images: 4 can be there" in done.stderr


@pytest.mark.parametrize("option", ["--serial", "--debugcon"])
def test_an_output_that_is_an_image_of_the_run_is_refused_and_untouched(option, tmp_path):
    image = tmp_path / "d.img"
    image.write_bytes(b"x" * 512)
    done = v2e("run", "--firmware", "seabios", str(image), option, str(image), "-c", "quit")
    assert done.returncode == 2
    assert "is read by this run" in done.stderr
    assert image.read_bytes() == b"x" * 512


def test_an_output_is_not_emptied_by_a_run_that_does_not_begin(tmp_path):
    output = tmp_path / "serial.txt"
    output.write_text("precious")
    assert v2e("run", "--memory", "nonsense", "--serial", str(output), "-c", "quit").returncode == 2
    assert v2e("run", "--firmware", str(tmp_path / "none"), "--serial", str(output), "-c", "quit").returncode == 2
    assert output.read_text() == "precious"


@pytest.mark.parametrize("typo", ["set cr80", "set eax", "set cr01"])
def test_a_register_run_together_with_its_value_is_refused(typo):
    done = v2e("run", "-c", typo)
    assert done.returncode == 2
    assert "does not name a register and a value" in done.stderr


def test_a_step_can_be_told_to_go_into_handlers():
    done = v2e("run", "-c", "handlers", "-c", "handlers into", "-c", "handlers")
    assert done.stdout.split() == ["over", "into", "into"]


#: Writes beyond the 64 KiB of a real-mode segment: #GP to a handler that tells it by code 1; code 2 if nothing faulted.
PAST_64K = """
    mov ss, ax
    mov sp, 0x7000
    mov word [13*4], fault
    mov word [13*4+2], 0xf000
    mov word [0xffff], ax
    mov al, 2
    out 0xf4, al
fault:
    mov al, 1
    out 0xf4, al
"""


@pytest.mark.parametrize(("level", "code"), [("full", 1), ("off", 2)])
def test_the_level_of_checks_decides_whether_a_limit_faults(level, code, firmware):
    assert v2e("run", "--firmware", firmware(PAST_64K), "--checks", level, "--headless").returncode == code << 1 | 1


def test_an_unknown_level_of_checks_is_refused():
    assert "--checks 'most' is unknown: use off, auto or full" in refused(v2e("run", "--checks", "most"))
