"""What an author of boot code gets from the pytest plugin, shown by test suites that run inside these tests."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

#: ROMs that print one line on the debug console and then do what `end` says.
ROM = r'''
ROM = """
        bits 16
        org 0
start:  xor ax, ax
        mov ds, ax
        mov ax, 0xb800
        mov es, ax
        mov si, text
.next:  mov al, [cs:si]
        inc si
        test al, al
        jz .done
        out 0xe9, al
        jmp .next
.done:  mov bx, 0x1234
        {end}
text:   db "hello", 10, 0
        times 0xfff0 - ($ - $$) db 0xf4
        jmp 0xf000:start
        times 0x10000 - ($ - $$) db 0
"""
FOREVER = ROM.format(end="jmp $")
# an IDT without room for any gate: the first exception ends in a triple fault
TRIPLE_FAULT = ROM.format(end="lidt [cs:empty]\n ud2\nempty: dw 0, 0, 0")
EXIT = ROM.format(end="mov al, 3\n out 0xf4, al\n hlt")
'''


@pytest.fixture
def suite(pytester):
    """A function that runs a test file written of the ROMs above and `body`."""

    def run(body: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(test_boot="import pytest\n" + ROM + body)
        # the modules to be rewritten are loaded already, by the run around this one
        quiet = "ignore::pytest.PytestAssertRewriteWarning"
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", "-W", quiet, *arguments)

    return run


@pytest.mark.boot(until="serial:tour: real, tick 1", limit=1_000_000)
def test_without_an_image_the_machine_is_the_tour(machine):
    stop = machine.run()
    assert stop.kind.value == "event"
    assert "tour: real" in machine.serial
    assert "tour: real" in machine.screen
    assert machine.retired == stop.retired


def test_a_machine_is_run_to_an_event_and_asked_by_name(suite):
    result = suite(
        """
@pytest.mark.boot(firmware=FOREVER, until="debugcon:hello\\n", limit=10_000)
def test_it(machine):
    assert machine.registers["cs"] == 0xF000 and machine.registers["cs_base"] == 0xFFFF0000
    machine.run()
    assert machine.debugcon == "hello\\n"
    machine.step(6)
    assert machine.registers["bx"] == 0x1234
    assert machine.segments["es"].base == 0xB8000
    machine.memory[0x500:0x503] = b"abc"
    assert machine.memory[0x501] == ord("b") and machine.memory.word(0x500) == 0x6261
    assert "real" in machine.mode
"""
    )
    result.assert_outcomes(passed=1)


def test_a_failure_shows_screen_segments_events_and_the_command_that_replays_it(suite):
    result = suite(
        """
@pytest.mark.boot(until="serial:big real, tick 2", limit=1_000_000)
def test_it(machine):
    machine.run()
    assert machine.segments["ds"].limit == 0xFFFF
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- v2e screen -*",
            "tour: real, tick 1",
            "tour: big real, tick",  # a character goes to the port, where the run ends, before the screen
            "*- v2e segments -*",
            "ds *[*]ffffffff*",
            "*- v2e last events -*",
            "*interrupt*vector 0x20*",
            "*- v2e serial -*",
            "tour: real, tick 1",
            "tour: big real, tick 2",
            "*- v2e position -*",
            "*linear 0x*",
            "*- v2e replay -*",
            "v2e run --until 'serial:big real, tick 2' --limit *",
        ]
    )


@pytest.mark.slow
def test_the_replay_command_stops_at_the_same_instruction(suite):
    result = suite(
        """
@pytest.mark.boot(firmware=FOREVER, until="debugcon:never", limit=5000)
def test_it(machine):
    machine.run()
"""
    )
    line = next(line for line in result.outlines if line.startswith("v2e run "))
    words = shlex.split(line)[1:]
    done = subprocess.run(
        [sys.executable, "-m", "repl.cli", *words, "-c", "fingerprint"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 6, done.stderr
    assert re.search(r"retired\s+5000$", done.stdout, re.MULTILINE)


def test_an_exhausted_budget_is_a_failure_that_says_where_the_guest_stands(suite):
    result = suite(
        """
@pytest.mark.boot(firmware=FOREVER, until="debugcon:goodbye", limit=2_000)
def test_it(machine):
    machine.run()
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*budget exhausted: debugcon:goodbye did not come within 2,000 instructions; it stands at f000:*",
            "*v2e stuck*",
            "The loop at 0xf* has no way out*",
        ]
    )


def test_the_default_budget_is_an_ini_option(suite, pytester):
    pytester.makeini("[pytest]\nv2e_limit = 777\n")
    result = suite(
        """
@pytest.mark.boot(firmware=FOREVER)
def test_it(machine):
    machine.run()
"""
    )
    result.stdout.fnmatch_lines(["*budget exhausted: nothing stopped the guest within 777 instructions*"])


def test_a_triple_fault_fails_the_test_with_its_chain(suite):
    result = suite(
        """
@pytest.mark.boot(firmware=TRIPLE_FAULT, until="exit", limit=10_000)
def test_it(machine):
    machine.run()
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*the guest died: triple fault: #UD*#DF*; exit did not come*"])


def test_an_unwanted_end_is_a_failure_and_a_wanted_one_is_returned(suite):
    result = suite(
        """
@pytest.mark.boot(firmware=EXIT, limit=10_000)
def test_wanted(machine):
    assert machine.run(until="exit").exit_code == 3

@pytest.mark.boot(firmware=EXIT, limit=10_000)
def test_unwanted(machine):
    machine.run(until="debugcon:goodbye")

@pytest.mark.boot(firmware=EXIT, limit=10_000)
def test_unchecked(machine):
    assert machine.run(until="debugcon:goodbye", check=False).exit_code == 3
"""
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*the guest ended with code 3, but debugcon:goodbye did not come*"])


def test_a_breakpoint_ends_a_run_that_waits_for_something_else(suite):
    result = suite(
        """
@pytest.mark.boot(firmware=FOREVER, until="debugcon:goodbye", limit=10_000)
def test_it(machine):
    point = machine.break_at(0xF0000)
    stop = machine.run()
    assert stop.breakpoints == (point.id,) and stop.linear_pc == 0xF0000
"""
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("marker", "sentence"),
    [
        ("boot(imgae='x')", "the marker boot has no argument 'imgae'; it knows image, firmware, until, limit, options"),
        ("boot('x')", "the marker boot takes named arguments only, not 'x'"),
        ("boot(image='absent.img')", "no image absent.img beside test_boot.py"),
        ("boot(options=['--memory', 'much'])", "--memory 'much' is not a size"),
        ("boot(options=['--frobnicate'])", "--frobnicate"),
    ],
)
def test_a_bad_marker_is_one_sentence(suite, marker, sentence):
    result = suite(f"@pytest.mark.{marker}\ndef test_it(machine): pass\n")
    result.assert_outcomes(errors=1)
    assert sentence in result.stdout.str()
    assert "Traceback" not in result.stdout.str()


def test_a_bad_until_is_one_sentence(suite):
    result = suite(
        """
@pytest.mark.boot(firmware=FOREVER, until="serail:x")
def test_it(machine):
    machine.run()
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*'serail:x' is no event: use text:REGEX*"])


def test_boot_image_assembles_text_and_files_with_their_includes(suite, pytester):
    (pytester.path / "letter.inc").write_text("db 'Z'\n")
    (pytester.path / "loader.asm").write_text('%include "letter.inc"\n')
    (pytester.path / "ready.img").write_bytes(b"as it is")
    result = suite(
        """
def test_text(boot_image):
    assert boot_image("db 1, 2\\n db 3").read_bytes() == bytes((1, 2, 3))

def test_file(boot_image):
    assert boot_image("loader.asm").read_bytes() == b"Z"

def test_binary(boot_image):
    assert boot_image("ready.img").read_bytes() == b"as it is"

def test_bytes(boot_image):
    assert boot_image(b"raw").read_bytes() == b"raw"
"""
    )
    result.assert_outcomes(passed=4)


def test_a_nasm_error_is_shown_in_nasms_words(suite):
    result = suite('def test_it(boot_image):\n    boot_image("mov ax\\n")\n')
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*nasm refuses image.asm:*", "*image.asm:1: error:*"])


@pytest.mark.parametrize(("setting", "outcome"), [("fail", "failed"), ("skip", "skipped")])
def test_a_missing_nasm_fails_or_skips_as_the_ini_option_says(suite, pytester, monkeypatch, setting, outcome):
    monkeypatch.setenv("PATH", str(pytester.path))
    pytester.makeini(f"[pytest]\nv2e_missing_tools = {setting}\n")
    result = suite('def test_it(boot_image):\n    boot_image("nop\\n")\n', "-rs")
    result.assert_outcomes(**{outcome: 1})
    assert "nasm is not installed (Debian: apt-get install nasm)" in result.stdout.str()


def test_the_plugin_imports_nothing_of_the_emulator_but_what_replaces_dataclass_and_typing():
    check = (
        "import sys, repl.pytest_plugin\n"
        "rooms = ('unicorn', 'pygdbmi', 'emu', 'stub')\n"
        "print(sorted(m for m in sys.modules if m.partition('.')[0] in rooms))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "['emu', 'emu.record', 'emu.typed']\n"


def test_suites_without_the_fixtures_run_as_before(pytester):
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest_inprocess("-p", "no:xdist", "--strict-markers").assert_outcomes(passed=1)


@pytest.mark.started
def test_the_server_waits_at_reset_for_a_real_gdb(gdb):
    assert gdb.value("$pc") == 0xFFFFFFF0
    assert "jmp" in gdb.cmd("x/i $pc")


def test_a_failure_with_gdb_shows_the_servers_command_the_guest_and_the_packets(suite):
    result = suite(
        """
@pytest.mark.boot(firmware=FOREVER)
def test_it(gdb):
    gdb.cmd("stepi 2")
    assert gdb.value("$pc") == 0
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*v2e server*",
            "v2e run --firmware *image.bin --headless --wait --gdb 0",
            "*gdb: target remote *",
            "*v2e screen*",
            "*v2e segments*",
            "*cs*f000*",
            "*v2e last packets*",
            "w $*",
            "r *$*",
        ]
    )


def test_servers_end_with_their_test(suite, pytester):
    result = suite(
        """
def test_it(v2e_server):
    server = v2e_server()
    open("pid", "w").write(str(server.process.pid))
"""
    )
    result.assert_outcomes(passed=1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((pytester.path / "pid").read_text()), 0)
