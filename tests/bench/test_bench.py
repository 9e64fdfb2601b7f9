"""The benchmark table: what is measured on which guest, and that both sides really run it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import figures, gdb_figures, guests, kernels, loops, raw_figures, requests, sides
from bench.__main__ import main, row
from bench.assets import Linux
from bench.figures import FIGURES, Figure
from bench.sides import BenchError, FigureUnavailable, Kernel, Qemu, Side, V2e
from bzimage import bzimage

ROOT = Path(__file__).resolve().parents[2]


def disassemble(code: bytes, address: int) -> list[tuple[int, str]]:
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_16)
    return [(i.address, f"{i.mnemonic} {i.op_str}".strip()) for i in decoder.disasm(code, address)]


def test_the_loop_jumps_to_the_address_that_the_breakpoint_figure_uses():
    code = disassemble(guests.LOOP_CODE, guests.BOOT_ADDRESS)
    assert code[-1][1] == f"jmp {guests.LOOP_ADDRESS:#x}"
    assert (guests.LOOP_ADDRESS, "inc ecx") in code
    assert code[0][1] == "cli"


def test_the_flat_loop_is_the_same_at_the_same_addresses():
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    code = {i.address: f"{i.mnemonic} {i.op_str}".strip() for i in decoder.disasm(guests.FLAT_LOOP_CODE, 0x7C00)}
    assert code[guests.LOOP_ADDRESS] == "inc ecx"
    assert f"jmp {guests.LOOP_ADDRESS:#x}" in code.values()
    assert f"mov dword ptr [{guests.COUNTER_ADDRESS:#x}], ecx" in code.values()


@pytest.mark.slow
def test_raw_figures_are_measured_of_a_stub_in_turns(monkeypatch, tmp_path):
    monkeypatch.setattr(raw_figures, "WINDOW", 0.01)
    found = dict(raw_figures.samples(raw_figures.FIGURES, (V2e(),), 1, tmp_path))
    assert [figure.name for figure in found] == [figure.name for figure in raw_figures.FIGURES]
    for samples in found.values():
        assert len(samples["v2e"]) == raw_figures.TURNS
        assert min(samples["v2e"]) > 0


def test_a_stub_that_refuses_a_packet_is_an_error_with_its_words(tmp_path):
    with V2e().serve("seabios", None) as served:
        client = raw_figures.Client(served.address)
        with pytest.raises(BenchError, match="answers b'mfeffff000,4' by b'E"):
            client.good(b"mfeffff000,4")
        client.close()


def test_a_kernel_that_does_not_come_to_its_text_in_time_leaves_out_one_figure(monkeypatch):
    class Slow(Side):
        def kernel_arguments(self, kernel):
            return ["60"]

    monkeypatch.setattr(sides, "RUN_SECONDS", 0.3)
    with pytest.raises(FigureUnavailable, match=r"^slow's guest did not say b'hello' in 0\.3 s$"):
        Slow("slow", ("sleep",)).kernel_to(Kernel(Path("k"), Path("i"), ""), b"hello")


def test_the_exit_guest_writes_0_to_the_debug_exit_port():
    assert [text for _, text in disassemble(guests.EXIT_CODE, 0)] == ["mov al, 0", "out 0xf4, al", "hlt"]


def test_the_rom_starts_at_the_reset_vector(tmp_path):
    rom = guests.exit_rom(tmp_path / "rom").read_bytes()
    assert len(rom) == 0x10000
    assert rom[-16:].startswith(guests.EXIT_CODE)


def test_a_disk_has_the_boot_signature_and_whole_cylinders(tmp_path):
    disk = guests.loop_disk(tmp_path / "disk").read_bytes()
    assert disk[510:512] == b"\x55\xaa"
    assert len(disk) % (16 * 63 * 512) == 0


def test_a_row_has_the_ratio_of_ours_to_theirs():
    figure = Figure("steps", "1/s", True, lambda side, folder: 0.0, "above QEMU's")
    line = row(figure, {"v2e": 300.0, "QEMU": 200.0})
    assert line.split()[:5] == ["steps", "1/s", "300", "200", "1.50x"]
    assert line.endswith("more is better; aim: above QEMU's")


@pytest.mark.parametrize("loop", loops.LOOPS, ids=lambda loop: loop.name)
def test_a_loop_makes_its_turns_and_counts_its_instructions(loop, tmp_path):
    from emu.machine import MachineConfig, MachineStop, build_machine

    retired = []
    for turns in (1, 101):
        rom = loops.rom(tmp_path / "rom", loop, turns).read_bytes()
        machine = build_machine(MachineConfig(memory=1 << 20, firmware=rom))
        assert machine.run(1_000_000).reason is MachineStop.EXIT
        retired.append(machine.executor.retired)
        assert machine.debugcon_text() == sides.MARKS.decode()
    assert retired[1] - retired[0] == 100 * loop.instructions


def test_the_reading_guest_reads_as_many_sectors_as_it_is_asked(tmp_path):
    from emu.machine import MachineConfig, MachineStop, build_machine
    from emu.media import Disk

    data = b"".join(n.to_bytes(4, "little") * 128 for n in range(600))
    rom = guests.read_rom(tmp_path / "rom", 2).read_bytes()
    machine = build_machine(MachineConfig(memory=1 << 20, firmware=rom, disks=(Disk.from_bytes(data),)))
    assert machine.run(10_000_000).reason is MachineStop.EXIT
    assert machine.memory.read(0x8000, 512) == (511).to_bytes(4, "little") * 128
    assert machine.debugcon_text() == sides.MARKS.decode()


@pytest.mark.parametrize("write_mode", (0, 2, None))
def test_the_guest_that_fills_the_screen_marks_where_it_begins_and_ends(write_mode, tmp_path):
    from emu.machine import MachineConfig, MachineStop, build_machine

    rom = guests.fill_rom(tmp_path / "rom", write_mode=write_mode, frames=1).read_bytes()
    machine = build_machine(MachineConfig(memory=1 << 20, firmware=rom))
    assert machine.run(10_000_000).reason is MachineStop.EXIT
    assert machine.debugcon_text() == sides.MARKS.decode()


def console(*script: str) -> Side:
    """A side whose debug console is that of a shell's script."""
    side = Side("shell", ("sh", "-c", "; ".join(script)))
    for name in ("arguments", "debug_console"):
        object.__setattr__(side, name, lambda *_: [])
    return side


def test_what_is_timed_is_between_the_marks():
    begin = time.perf_counter()
    found = console("sleep 0.3", "printf b", "sleep 0.2", "printf e", "sleep 0.3", "exit 1").timed("", None)
    assert 0.2 <= found <= time.perf_counter() - begin - 0.6


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (("printf be", "echo oh >&2", "exit 2"), r"status 2, its guest's marks are b'be', and said: oh"),
        (("printf b", "exit 1"), r"status 1, its guest's marks are b'b', and said: nothing"),
        (("printf bee", "exit 1"), r"status 1, its guest's marks are b'bee'"),
        (("printf eb", "exit 1"), r"status 1, its guest's marks are b'eb'"),
    ],
)
def test_a_guest_without_its_marks_or_with_another_end_is_an_error(script, said):
    with pytest.raises(BenchError, match=said):
        console(*script).timed("", None)


def test_a_guest_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(sides, "RUN_SECONDS", 0.3)
    with pytest.raises(BenchError, match="status -9, its guest's marks are b'b'"):
        console("printf b", "exec sleep 60").timed("", None)


def test_a_row_of_three_sides_tells_the_third_behind_the_ratio():
    figure = Figure("boot", "s", False, lambda side, folder: 0.0, icount=True)
    line = row(figure, {"v2e": 3.0, "QEMU": 2.0, "icount": 5.0})
    assert line.split("  ")[-1] == "less is better"
    assert "1.50x (QEMU -icount shift=0: 5 s)" in line


def test_a_row_tells_udbserver_behind_the_ratio():
    line = row(raw_figures.FIGURES[0], {"v2e": 3.0, "QEMU": 2.0, "udbserver": 1.0})
    assert "1.50x (udbserver: 1 1/s)" in line


def test_a_guest_that_never_says_the_text_is_an_error_with_its_last_words(tmp_path):
    side = Side("echo", ("echo", "nothing of it"))
    object.__setattr__(side, "kernel_arguments", lambda kernel: [])
    with pytest.raises(BenchError, match=r"never said b'userspace'; its last words: b'nothing of it"):
        side.kernel_to(Kernel(tmp_path, tmp_path, ""), b"userspace")


def test_a_64_bit_kernel_runs_on_a_64_bit_cpu_of_qemu(tmp_path):
    side = Qemu("icount", "-icount", "shift=0")
    for bits, program in ((32, "qemu-system-i386"), (64, "qemu-system-x86_64")):
        kernel = Kernel(tmp_path, tmp_path, "", "pc", bits=bits)
        assert side.kernel_program(kernel) == (program, "-icount", "shift=0")
        arguments = side.kernel_arguments(kernel)
        assert arguments[arguments.index("-cpu") + 1] == f"qemu{bits}"


def test_figures_have_names_of_their_own():
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


@pytest.mark.parametrize("arguments", [["--runs", "0"], ["--only", "no such figure"], ["--frobnicate"]])
def test_wrong_usage_ends_with_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_without_gdb_it_says_so(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert main([]) == 2
    assert "gdb is not installed" in capsys.readouterr().err


def test_a_side_that_does_not_run_the_guest_is_an_error_with_its_words(tmp_path):
    with pytest.raises(BenchError, match=r"v2e ended with status 2 and said: .*absent"):
        V2e().run("absent.rom", None)


@pytest.mark.slow
def test_both_sides_run_the_rom_to_the_guests_exit(tmp_path):
    rom = str(guests.exit_rom(tmp_path / "rom"))
    assert V2e().run(rom, None) > 0
    if shutil.which("qemu-system-i386") is None:
        pytest.skip("QEMU is not installed (Debian: apt-get install qemu-system-x86)")
    assert Qemu().run(rom, None) > 0


def talking_kernel() -> bytes:
    """A kernel that says what Linux and its userspace would say on COM1, in its real-mode setup, which QEMU enters, and
    in its 32-bit code."""

    def says(dx: str) -> bytes:
        code = bytes.fromhex(f"{dx}fb03 b003 ee")  # eight bits
        for byte in kernels.FIRST_TEXT + b"\n" + kernels.USERSPACE_TEXT + b"\n":
            # mov dx, 3fdh; again: in al, dx; test al, 20h; jz again; mov dx, 3f8h; mov al, byte; out dx, al
            code += bytes.fromhex(f"{dx}fd03 ec a820 74fb {dx}f803 b0{byte:02x} ee")
        return code + bytes.fromhex("f4 ebfd")

    image = bytearray(bzimage(code=says("66ba").ljust(4096, b"\xf4")))
    setup = says("ba")
    begin = 0x202 + image[0x201]  # where the jump at its head goes
    assert begin + len(setup) < 0x500
    image[begin : begin + len(setup)] = setup
    return bytes(image)


#: A small amount of each figure's work.
SHORT = (
    *((gdb_figures, name, 30) for name in ("STEPS", "SINGLE_STEPS", "HITS", "WATCH_HITS", "CONDITION_HITS")),
    (gdb_figures, "FAST_CONDITION_HITS", 2000),
    *((gdb_figures, name, 2 << 20) for name in ("DUMP_BYTES", "RESTORED_BYTES", "FIND_BYTES")),
    *((figures, name, 10) for name in ("PLANAR_FRAMES", "CHAINED_FRAMES", "READ_COMMANDS")),
    *((raw_figures, name, value) for name, value in (("WINDOW", 0.01), ("TURNS", 2))),
    (loops, "LOOPS", tuple(dataclasses.replace(loop, turns=loop.turns // 50) for loop in loops.LOOPS)),
    (guests, "COUNT_TURNS", 100),
    (requests, "REQUESTS", 1000),
)


@pytest.mark.slow
@pytest.mark.started
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("whole", (False, pytest.param(True, marks=pytest.mark.soak)), ids=("short", "whole"))
def test_every_figure_can_be_measured(whole, monkeypatch, tmp_path, capfd):
    """Short, each figure is measured of a tenth of its work or less, and of a kernel that says at once what is waited
    for: Linux takes minutes on three sides."""
    if not whole:
        for place, name, value in SHORT:
            monkeypatch.setattr(place, name, value)
        (tmp_path / "kernel").write_bytes(talking_kernel())
        (tmp_path / "busybox").write_bytes(b"none")
        monkeypatch.setattr(kernels, "linux", lambda *_: Linux(tmp_path / "kernel", tmp_path / "busybox"))
    status = main(["--runs", "1", "--json"])
    out, err = capfd.readouterr()
    if "is not installed" in err:
        pytest.skip(err.strip())
    assert status == 0, err
    assert "v2e's guest did not say" not in err, "only QEMU may be too slow for a figure"
    results = json.loads(out)
    names = [figure.name for figure in FIGURES if f"{figure.name} is left out" not in err]
    names += [figure.name for figure in (*raw_figures.FIGURES, *loops.LOOPS)]
    assert [result["name"] for result in results] == [*names, requests.NAME]
    sampled = [(result["name"], side, values) for result in results for side, values in result["samples"].items()]
    assert [sample for sample in sampled if min(sample[2]) <= 0] == []


def test_the_table_is_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--runs", "1", "--json", "--only", requests.NAME],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "is not installed" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert result["name"] == requests.NAME and min(result["samples"]["v2e"]) > 0


@pytest.mark.parametrize("virtio", (False, True))
def test_the_roms_that_read_a_disk_of_a_pc_read_what_is_there(virtio, tmp_path):
    from emu.machine import MachineConfig, MachineStop, build_machine
    from emu.media import Disk

    rom = guests.pc_disk_rom(tmp_path / "read.rom", 2, virtio=virtio).read_bytes()
    content = b"".join(n.to_bytes(4, "little") * 128 for n in range(2 * guests.COMMAND_SECTORS))
    disk = (Disk.from_bytes(content),)
    config = MachineConfig(machine="pc", memory=2 << 20, firmware=rom)
    config.virtio, config.disks = (disk, ()) if virtio else ((), disk)
    machine = build_machine(config)
    end = machine.run(10_000_000)
    assert (end.reason, end.code) == (MachineStop.EXIT, 0)
    half = len(content) // 2
    assert machine.read_physical(0x20000 if virtio else 0x10000, half) == content[half:]
    assert machine.debugcon_text() == sides.MARKS.decode()
