"""`v2e` as a process: scripts, and what goes to which output."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest
from PIL import Image

from cli_rig import EXITING, ROOT, SECONDS, V2E, refused, v2e

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
