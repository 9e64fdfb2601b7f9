"""The benchmark table: what is measured on which guest, and that both sides really run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import guests, kernels, loops, raw_figures, requests, sides
from bench.__main__ import main, row
from bench.figures import FIGURES, Figure
from bench.sides import BenchError, FigureUnavailable, Kernel, Qemu, Side, V2e

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
def test_raw_figures_are_measured_of_a_stub_in_turns(tmp_path):
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
    assert retired[1] - retired[0] == 100 * loop.instructions


def test_the_reading_guest_reads_as_many_sectors_as_it_is_asked(tmp_path):
    from emu.machine import MachineConfig, MachineStop, build_machine
    from emu.media import Disk

    data = b"".join(n.to_bytes(4, "little") * 128 for n in range(600))
    rom = guests.read_rom(tmp_path / "rom", 2).read_bytes()
    machine = build_machine(MachineConfig(memory=1 << 20, firmware=rom, disks=(Disk.from_bytes(data),)))
    assert machine.run(10_000_000).reason is MachineStop.EXIT
    assert machine.memory.read(0x8000, 512) == (511).to_bytes(4, "little") * 128


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
    try:
        assert Qemu().run(rom, None) > 0
    except FileNotFoundError:
        pytest.skip("QEMU is not installed (Debian: apt-get install qemu-system-x86)")


@pytest.mark.slow
@pytest.mark.started
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("whole", (False, pytest.param(True, marks=pytest.mark.soak)), ids=("short", "whole"))
def test_every_figure_can_be_measured(whole, monkeypatch, capfd):
    """The boots to a userspace on three sides take two minutes, and are the same up to another text: short, all of them
    end where the kernel is decompressed. The table of boots comes to that userspace."""
    if not whole:
        monkeypatch.setattr(kernels, "USERSPACE_TEXT", kernels.FIRST_TEXT)
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
    # one that is the difference of two runs may be below nothing, where the host was busy in one of them
    assert [sample for sample in sampled if not all(sample[2])] == []


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
