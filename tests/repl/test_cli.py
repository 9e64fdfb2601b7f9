"""`v2e` as a process: what it refuses, and with which status it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess

import pytest

from cli_rig import DEADLOCK, EXITING, ROOT, SECONDS, SPINNING, TRIPLE, V2E, XEN_INSIDE, refused, v2e
from repl.cli import main

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
