"""`v2e` as a process: what it prints, where, and with which status it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import repl
from machines import rom
from repl.cli import main

V2E = (sys.executable, "-m", "repl.cli")
ROOT = Path(repl.__file__).parent.parent
SECONDS = 120

#: Sends 'ok' on COM1 in characters of 8 bits, waits until the line is idle, and ends by writing the code 5 to port F4h.
EXITING = """
    mov ss, ax
    mov sp, 0x7000
    mov dx, 0x3fb
    mov al, 3
    out dx, al
    mov dx, 0x3f8
    mov al, 'o'
    call send
    mov al, 'k'
    call send
    mov al, 5
    out 0xf4, al
    hlt
send:
    out dx, al
    add dx, 5
wait_idle:
    in al, dx
    test al, 0x40
    jz wait_idle
    sub dx, 5
    ret
"""
SPINNING = "jmp $"
#: INT 3 with an IDT limit of 0: #BP cannot be delivered, nor #DF (SDM vol. 3A, 6.15, interrupt 8).
TRIPLE = "lidt [cs:empty]\nint3\nempty: dw 0\ndd 0"
DEADLOCK = "hlt"
XEN_INSIDE = ["run", "--hypervisor", "xen", "--machine", "isapc", "--devices-in", "hypervisor", "--clock", "host"]


def v2e(*arguments, stdin="", cwd=None, env=None):
    """Run `v2e` to its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    return subprocess.run(
        [*V2E, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False,
        cwd=cwd, env=environment,
    )  # fmt: skip


def refused(done):
    """The one sentence of a refusal: status 2, one line on stderr, nothing on stdout."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("v2e: ")
    assert "Traceback" not in lines[0]
    return lines[0]


@pytest.fixture
def firmware(tmp_path):
    """Makes a firmware file of nasm text."""

    def make(source):
        path = tmp_path / "firmware.bin"
        path.write_bytes(rom(source))
        return path

    return make


# -- wrong usage and unusable files


def test_an_image_that_is_not_there_is_named(tmp_path):
    assert str(tmp_path / "missing.img") in refused(v2e("run", tmp_path / "missing.img"))


def test_an_empty_image_is_named(tmp_path):
    (tmp_path / "empty.img").touch()
    assert "is empty" in refused(v2e("run", "--disk", tmp_path / "empty.img"))


def test_a_directory_is_no_image(tmp_path):
    assert "is a directory" in refused(v2e("run", tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_image_is_named(tmp_path):
    path = tmp_path / "secret.img"
    path.write_bytes(bytes(512))
    path.chmod(0)
    assert "secret.img" in refused(v2e("run", path))


def test_a_file_that_cannot_be_read_is_named_even_to_root(tmp_path):
    """A FIFO is no image either, and must not be waited for."""
    os.mkfifo(tmp_path / "pipe")
    assert "pipe" in refused(v2e("run", tmp_path / "pipe"))


def test_a_port_in_use_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = refused(v2e("run", "tour", "--headless", "--gdb", port))
    assert str(port) in text
    assert "in use" in text


def test_an_unknown_option_is_named():
    assert "--nonsense" in refused(v2e("run", "--nonsense"))


@pytest.mark.parametrize("size", ["0", "12X", "-5M", "100G", "64"])
def test_a_nonsense_size_is_named(size, capsys):
    assert main(["run", f"--memory={size}"]) == 2
    assert capsys.readouterr().err.startswith(f"v2e: --memory {size}" if size == "100G" else f"v2e: --memory '{size}'")


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("nonsense", "'nonsense'"),
        ("x 0x100000000", "out of range"),
        ("break 7c00", "0x7c00"),
        ("x 0xd0000000", "0xd0000000"),
        ("symbols /dev/zero", "'/dev/zero' is not text"),
        ("symbols ~nobody-of-this-name/a", "there is no such user"),
        ("n" * 100_000, f"no command '{'n' * 60}...'"),
    ],
)
def test_an_error_at_the_prompt_of_a_script_ends_it(command, named):
    done = v2e("run", "tour", "-c", command, "-c", "print 1")
    assert named in refused(done)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "run, gdb, inspect, attach, doctor, bench"),
        (["inspect", "file"], "'file'"),
        (["attach"], "DOMAIN"),
        (["attatch"], "'attatch'"),
        (["run", "a", "b"], "b"),
        (["run", "--memory"], "--memory"),
        (["run", "--mem", "64M"], "--mem"),  # no abbreviations: they would become promises
        (["run", "--floppy", "/nonexistent/a"], "/nonexistent/a: no such image"),
        (["run", "--machine", "amiga"], "'amiga' is unknown"),
        (["run", "--boot", "cdrom"], "--boot cdrom: no cdrom image is given"),
        (["run", "--boot", "usb"], "'usb' is unknown"),
        (["run", "--cpu", "8086"], "--cpu"),
        (["run", "--cpus", "2"], "--cpus"),
        (["run", "--hypervisor", "xen"], "--hypervisor xen needs --machine isapc"),
        (["run", "--hypervisor", "xen", "--machine", "isapc"], "--hypervisor xen: this is no dom0 of Xen"),
        (["run", "--hypervisor", "xen", "--rules", "vtx"], "xen goes by what the host can do"),
        (["run", "--hypervisor", "kvm", "--until", "insns:5"], "kvm does not count instructions"),
        (["run", "--hypervisor", "kvm", "--rules", "vtx"], "--rules vtx"),
        (["run", "--devices-in", "hypervisor"], "needs a hypervisor that has them"),
        (["run", "--hypervisor", "model", "--devices-in", "xen"], "'xen'"),
        (["run", "--hypervisor", "kvm", "--devices-in", "hypervisor"], "add --clock host"),
        (["run", "--hypervisor", "xen", "--machine", "isapc", "--devices-in", "hypervisor"], "add --clock host"),
        (
            ["run", "--hypervisor", "xen", "--machine", "isapc", "--devices-in", "hypervisor", "--clock", "host"],
            "--hypervisor xen: this is no dom0 of Xen",
        ),
        (
            ["run", "--hypervisor", "kvm", "--devices-in", "hypervisor", "--clock", "host", "--load-xen", "f"],
            "--load-xen and --devices-in hypervisor",
        ),
        (["run", "--missed-ticks", "kept"], "--missed-ticks kept is for a PIT that goes by the host's clock"),
        (["run", "--missed-ticks", "lost"], "'lost' is unknown"),
        ([*XEN_INSIDE, "--missed-ticks", "dropped"], "--missed-ticks dropped is not for xen"),
        ([*XEN_INSIDE, "--missed-ticks", "kept"], "--hypervisor xen: this is no dom0 of Xen"),
        (["run", "--hypervisor", "model", "--devices-in", "hypervisor", "--missed-ticks", "kept"], "--hypervisor kvm"),
        (["run", "--policy", "dwell:8"], "--policy dwell:8"),
        (["run", "--costs", "exit=5"], "--costs exit=5"),
        # What is wrong comes before what has no use.
        (["run", "--costs", "exit=x"], "'exit=x' is no cost"),
        (["run", "--rules", "vmx"], "'vmx'"),
        (["run", "--policy", "fast"], "'fast'"),
        (["run", "--hypervisor", "model", "--policy", "fast"], "'fast'"),
        (["run", "--hypervisor", "model", "--policy", "dwell:0"], "dwell of 0"),
        (["run", "--hypervisor", "model", "--rules", "vmx"], "'vmx'"),
        (["run", "--hypervisor", "model", "--costs", "exit=-1"], "'exit=-1'"),
        (["run", "--clock", "host"], "--clock host needs --hypervisor kvm"),
        (["run", "--hypervisor", "model", "--clock", "host"], "--clock host needs --hypervisor kvm"),
        (["run", "--clock", "mine"], "'mine' is unknown: use virtual or host"),
        (["run", "--limit", "0"], "--limit"),
        (["run", "--limit", "many"], "'many'"),
        (["run", "--slice", "-1"], "--slice"),
        (["run", "--until", "nonsense"], "'nonsense'"),
        (["run", "--until", "text:("], "("),
        (["run", "--until", "pc:zz"], "zz"),
        (["run", "-x", "/nonexistent/file"], "/nonexistent/file"),
        (["run", "-x", "/dev/zero"], "'/dev/zero' is not text"),
        (["run", "--serial", "/nonexistent/log"], "/nonexistent/log"),
        (["run", "--firmware", "/nonexistent/bios"], "/nonexistent/bios"),
        (["run", "--option-rom", "/nonexistent/rom"], "/nonexistent/rom"),
        (["run", "tour", "--firmware", "seabios"], "tour"),
        (["run", "--gdb", "nonsense", "--headless"], "nonsense"),
        (["run", "--gdb", "99999", "--headless"], "99999"),
        (["run", "--gdb", "", "--headless"], "'' is no address"),
        (["run", "--gdb", "/nonexistent/socket", "--headless"], "/nonexistent/socket"),
        (["run", "--wait", "--headless"], "--gdb"),
        (["run", "--json", "--serial", "stdio"], "stdout"),
        (["run", "--gdb", "stdio", "-c", "regs"], "stdout"),
        (["run", "--gdb", "stdio", "--debugcon", "stdio"], "stdout"),
        (["gdb", "--serial", "stdio"], "--serial"),
        (["gdb", "--headless"], "--headless"),
        (["gdb", "--gdb", "stdio"], "--gdb"),
        (["gdb", "--gdb", "nowhere"], "--gdb"),
        (["doctor", "more"], "more"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(arguments, named, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("v2e: ")
    assert named in captured.err


def test_a_script_opens_no_port_unless_asked(firmware):
    done = v2e("run", "--firmware", firmware(EXITING), "-c", "continue")
    assert (done.returncode, done.stderr) == (11, "")
    done = v2e("run", "--firmware", firmware(EXITING), "--gdb", "0", "-c", "continue")
    assert re.fullmatch(r"gdb: target remote 127\.0\.0\.1:\d+\n", done.stderr)


def test_help_goes_to_stdout_and_is_no_error(capsys):
    assert main(["--help"]) == 0
    captured = capsys.readouterr()
    assert "v2e doctor" in captured.out
    assert captured.err == ""
    with pytest.raises(SystemExit) as ended:
        main(["run", "--help"])
    assert ended.value.code == 0
    assert "--until EVENT" in capsys.readouterr().out


# -- exit statuses


def test_the_guests_own_code_is_odd(firmware):
    done = v2e("run", "--firmware", firmware(EXITING), "--headless")
    assert (done.returncode, done.stdout, done.stderr) == (5 << 1 | 1, "", "")


def test_the_guests_code_wins_over_an_event_and_a_failed_command(firmware):
    path = firmware(EXITING)
    assert v2e("run", "--firmware", path, "--until", "insns:1", "-c", "continue").returncode == 11
    done = v2e("run", "--firmware", path, "-c", "continue", "-c", "nonsense")
    assert done.returncode == 11
    assert "nonsense" in done.stderr


def test_a_reached_event_is_0_and_then_the_commands_run(firmware):
    done = v2e("run", "--firmware", firmware(EXITING), "--until", "serial:ok", "-c", "serial", "-c", "print dx")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["ok", "0x3f8 = 1016"]
    assert done.stderr == ""


def test_a_triple_fault_is_4_and_says_the_chain(firmware):
    done = v2e("run", "--firmware", firmware(TRIPLE), "--headless")
    assert done.returncode == 4
    assert re.search(r"triple fault: #BP at f000:\w+, then #GP\S* at f000:\w+, then #DF", done.stderr)
    assert done.stderr.count("\n") == 1


def test_hlt_with_interrupts_off_is_4(firmware):
    done = v2e("run", "--firmware", firmware(DEADLOCK), "--until", "text:never", "-c", "print 1")
    assert done.returncode == 4
    assert "HLT with interrupts off at f000:" in done.stderr
    assert "no interrupt waits either" in done.stderr
    assert done.stdout == "0x1 = 1\n"  # the commands look at the dead guest


def test_a_spent_budget_is_6(firmware):
    path = firmware(SPINNING)
    done = v2e("run", "--firmware", path, "--until", "text:never", "--limit", "1000", "-c", "fingerprint")
    assert done.returncode == 6
    assert "1000 instructions" in done.stderr
    assert re.search(r"the loop at 0xf\w+ has no way out, and nothing changes in it$", done.stderr)
    assert done.stdout.startswith("retired     1000\n")
    assert v2e("run", "--firmware", path, "--limit", "1000", "-c", "continue").returncode == 6


@pytest.mark.started
def test_ctrl_c_ends_a_headless_run_by_the_signal(firmware):
    command = [*V2E, "run", "--firmware", firmware(SPINNING), "--headless", "--gdb", "0"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("gdb: target remote 127.0.0.1:")
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(SECONDS) == -signal.SIGINT
        assert process.stderr.read() == ""
    finally:
        process.kill()


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen([*V2E, "run", "tour", "-c", "help", "-c", "help"], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(SECONDS) == 0
    assert process.stderr.read() == ""


# -- scripts and outputs


def test_without_until_commands_run_at_reset_on_a_stopped_machine():
    done = v2e("run", "-c", "status")
    first, second = done.stdout.splitlines()
    assert first == "Not started"
    assert second.startswith("f000:fff0 linear fffffff0 [real]  ljmp 0xf000:")
    assert done.returncode == 0


def test_c_and_x_run_in_their_order(tmp_path):
    (tmp_path / "file").write_text("print 2\n")
    done = v2e("run", "tour", "-c", "print 1", "-x", tmp_path / "file", "-c", "print 3")
    assert done.stdout.splitlines() == ["0x1 = 1", "0x2 = 2", "0x3 = 3"]


@pytest.mark.started
def test_a_pipe_is_a_plain_line_loop_without_prompts():
    done = v2e("run", "tour", stdin="print 1\nstep\nquit\nprint 2\n")
    assert done.stdout.splitlines()[0] == "0x1 = 1"
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""


def test_without_commands_and_without_a_terminal_the_guest_just_runs(firmware):
    assert v2e("run", "--firmware", firmware(EXITING)).returncode == 11


@pytest.mark.started
def test_with_json_stdout_is_json_only():
    done = v2e("run", "tour", "--json", "--until", "insns:10", "-c", "regs", "-c", "sreg", "-c", "nonsense")
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert [d["command"] for d in documents] == ["regs", "sreg", "nonsense"]
    assert "error" in documents[2]
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_the_serial_line_goes_to_stdout_or_a_file(firmware, tmp_path):
    path = firmware(EXITING)
    assert v2e("run", "--firmware", path, "--headless", "--serial", "stdio").stdout == "ok"
    log = tmp_path / "log"
    assert v2e("run", "--firmware", path, "--headless", "--serial", log).stdout == ""
    assert log.read_text() == "ok"


@pytest.mark.started
def test_what_comes_on_stdin_goes_to_the_serial_line(firmware):
    """The guest sends back each character that it receives, one higher, and ends at '!'."""
    guest = """
        mov dx, 0x3fb
        mov al, 3
        out dx, al
    next:
        mov dx, 0x3fd
    wait_data:
        in al, dx
        test al, 1
        jz wait_data
        mov dx, 0x3f8
        in al, dx
        cmp al, '!'
        je end
        inc al
        out dx, al
        mov dx, 0x3fd
    wait_idle:
        in al, dx
        test al, 0x40
        jz wait_idle
        jmp next
    end:
        xor al, al
        out 0xf4, al
        hlt
    """
    done = v2e("run", "--firmware", firmware(guest), "--headless", "--serial", "stdio", stdin="HAL!")
    assert (done.stdout, done.returncode) == ("IBM", 1)


def test_closed_standard_streams_are_borne():
    command = f"{shlex.join(V2E)} run tour --until insns:1 -c regs <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=ROOT, timeout=SECONDS, check=False).returncode == 0


@pytest.mark.parametrize(
    "words", ["run tour --until insns:1 -c regs", "run tour --until insns:1 -c regs --json", "--help"]
)
def test_an_output_without_room_is_said(words):
    command = f"{shlex.join(V2E)} {words} >/dev/full"
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, timeout=SECONDS, check=False, stderr=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stderr) == (2, "v2e: the output cannot be written: No space left on device\n")


def test_debug_shows_the_traceback():
    done = v2e("run", "tour", "--debug", "--memory", "12X")
    assert "Traceback" in done.stderr
    assert "UsageError" in done.stderr
    assert done.returncode == 2  # an uncaught exception's 1 would be the guest's


@pytest.mark.slow
def test_slices_change_nothing():
    arguments = ("run", "tour", "--until", "insns:60000", "-c", "fingerprint")
    prints = {v2e(*arguments, *more).stdout for more in ((), ("--slice", "137"))}
    assert len(prints) == 1
    assert "retired     60000" in prints.pop()


def test_no_image_is_the_tour():
    done = v2e("run", "--until", "insns:10", "-c", "x/s 0xf0000")
    assert "tour" in done.stdout


def test_a_file_called_tour_is_that_file(tmp_path):
    (tmp_path / "tour").touch()
    assert "tour is empty" in refused(v2e("run", "tour", cwd=tmp_path))


def test_a_headless_run_loads_neither_prompt_nor_socket_nor_picture_code(firmware):
    """They would cost half of the start-up time."""
    code = (
        "import sys; from repl.cli import main; status = main(sys.argv[1:]); "
        "print(sorted({'prompt_toolkit', 'capstone', 'PIL', 'construct', 'socket', 'asyncio'} & set(sys.modules)));"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, "run", "tour", "--until", "insns:1", "--headless"],
                          capture_output=True, text=True, timeout=SECONDS, check=False, cwd=ROOT)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[]\n")


# -- gdb, doctor, the terminal


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


# -- pictures


def test_a_screenshot_is_written_at_the_end_whatever_the_status(tmp_path):
    path = tmp_path / "tour.png"
    done = v2e("run", "tour", "--headless", "--screenshot", path)
    assert (done.returncode, done.stderr) == (1, "")
    with Image.open(path) as image:
        assert image.size == (720, 400)
        assert image.getcolors(2)  # letters on black


def test_a_screenshot_without_a_picture_is_said(tmp_path):
    done = v2e("run", "tour", "--screenshot", tmp_path / "a.png", "-c", "step")
    assert (done.returncode, done.stderr) == (2, "v2e: --screenshot: there is no picture: the screen is off\n")


@pytest.mark.parametrize("name", ["none/a.png", "."])
def test_a_screenshot_that_could_not_be_written_is_refused_before_anything_runs(name, tmp_path):
    text = refused(v2e("run", "tour", "--headless", "--debugcon", "stdio", "--screenshot", tmp_path / name))
    assert "--screenshot" in text
    assert ("is a directory" in text) == (name == ".")


def test_the_command_screen_writes_a_picture_too(tmp_path):
    done = v2e("run", "tour", "--until", "exit", "-c", f"screen --png {tmp_path}/a b.png")
    assert (done.returncode, done.stdout) == (1, "")
    with Image.open(tmp_path / "a b.png") as image:
        assert image.size == (720, 400)
    assert "--png FILE" in refused(v2e("run", "tour", "-c", "screen --gif a"))
