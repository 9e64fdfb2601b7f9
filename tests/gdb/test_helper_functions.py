"""$seg and $lin, the helper's functions for addresses, and registers that a script writes, in a real gdb."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from emu.firmware import tour
from gdb_batch import batch
from repl.harness import Gdb, GdbError, Server
from stub.gdb import helper_path


@pytest.mark.slow
def test_functions_give_linear_addresses_in_real_and_protected_mode(helped: Gdb) -> None:
    stops = {stop.name: stop.linear for stop in tour.stops()}
    assert helped.value("$seg(0xf000, 0xfff0)") == 0xFFFF0
    assert helped.value("$lin($ip)") == 0xFFFFFFF0  # what CS has cached at reset is not selector * 16
    assert helped.value('$lin("ds", 0x10)') == 0x10
    for setting in ("$bx = 0x8000", "$si = 0xfffe", "$es_base = 0x500"):  # $bx and $si are negative to gdb
        helped.cmd(f"set {setting}")
    assert helped.value("$seg(0, $bx)") == 0x8000
    assert helped.value('$lin("ds", $si)') == 0xFFFE
    assert helped.value("$seg(0xffff, $si)") == 0x10FFEE  # beyond 1 MiB: A20 is none of the CPU's sum
    assert helped.value('$lin("es", 0xffffffff)') == 0x4FF  # a sum of 32 bits
    helped.cmd("set $es_base = 0")
    for call in ("$seg()", "$seg(0x40)", "$seg(1, 2, 3)"):
        with pytest.raises(GdbError, match=r"\$seg takes a selector and an offset: \$seg\(0xf000, 0xe05b\)"):
            helped.cmd(f"print {call}")
    with pytest.raises(GdbError, match="integers, which a value of type `double' is not"):
        helped.cmd("print $seg(0, 1.5)")
    helped.cmd(f"break *{stops['pm16']:#x}")
    helped.cmd("continue")
    assert helped.value("$seg($cs, $ip)") == stops["pm16"] == helped.value("$lin($ip)")
    with pytest.raises(GdbError, match="selector fff8 names no present segment"):
        helped.cmd("print $seg(0xfff8, 0)")
    with pytest.raises(GdbError, match="is no segment register"):
        helped.cmd('print $lin("xs", 0)')


def test_functions_give_linear_addresses_in_64_bit_mode(helped: Gdb) -> None:
    """Bases of CS, DS, ES and SS are 0 there, those of FS and GS have 64 bits (SDM vol. 1, 3.4.2.1)."""
    (place,) = (stop.linear for stop in tour.stops() if stop.name == "long64")
    helped.cmd(f"hbreak *{place:#x}")
    helped.cmd("continue")
    for setting in ("$fs_base = 0xffff800000001000", "$gs_base = 0x7000", "$ds_base = 0x5000", "$bx = 0x8000"):
        helped.cmd(f"set {setting}")
    top = (1 << 64) - 1
    for call, address in (
        ("$seg(0, 0x123456789abc)", 0x123456789ABC),
        ("$seg($cs, $rip)", place),
        ("$seg($fs, 0x10)", 0x10),  # no selector says the base of FS
        ("$seg(0, $bx)", 0x8000),
        ("$lin($rip)", place),
        ('$lin("ds", 0xffffffff80000000)', 0xFFFFFFFF80000000),
        ('$lin("fs", 0x10)', 0xFFFF800000001010),
        ('$lin("fs", 0x8000000000000000)', 0x7FFF800000001000),  # a sum of 64 bits
        ('$lin("$gs", $bx)', 0xF000),
    ):
        assert helped.value(call) & top == address, call
    with pytest.raises(GdbError, match="a selector has 16 bits"):
        helped.cmd("print $seg(0x10000, 0)")


@pytest.mark.slow
def test_a_flags_register_of_64_bits_is_set_by_a_number_of_64_bits(helped: Gdb) -> None:
    """docs/gdb.md's ways round gdb's refusal; if the first assertion fails, a newer gdb has learned it."""
    with pytest.raises(GdbError, match="Invalid cast"):
        helped.cmd("set $efer = 0x100")
    helped.cmd("set $efer = 0x100ULL")
    assert helped.cmd("print $efer").endswith("[ LME ]\n")
    helped.cmd("set $efer = $efer | 1")
    assert helped.cmd("print $efer").endswith("[ SCE LME ]\n")
    helped.cmd("v2e msr efer 0x800")
    assert helped.cmd("print $efer").endswith("[ NXE ]\n")


def test_a_script_that_writes_registers_sees_what_moves_with_them_and_ends_well(
    v2e_server: Callable[..., Server],
) -> None:
    """`gdb -batch` has no event loop: what waits for one is never done, and gdb 13 faults over it as it ends."""
    text = batch(
        f"source {helper_path()}", f"target remote {v2e_server().address}",
        "set $cs = 0x1234", "output/x (int)$cs_base", "echo \\n",
        "print $cs = 0x4321", "output/x (int)$cs_base", "echo \\n", "kill",
    )  # fmt: skip
    assert re.findall("^0x.*$", text, re.MULTILINE)[-2:] == ["0x12340", "0x43210"]


@pytest.mark.slow
def test_seg_warns_once_of_an_offset_that_the_descriptor_s_limit_forbids(helped: Gdb) -> None:
    """A GDT by hand: 0008 of 1000h bytes, 0010 that expands down from there (SDM vol. 3A, 5.3), 0018 of 4 GiB."""
    stops = {stop.name: stop.linear for stop in tour.stops()}
    helped.cmd(f"break *{stops['pm16']:#x}")
    helped.cmd("continue")
    for number, descriptor in enumerate((0x0000930080000FFF, 0x0000970080000FFF, 0x00CF93000000FFFF), 1):
        helped.cmd(f"set {{long long}}($gdtr.base + {8 * number}) = {descriptor:#x}")

    def warned(selector: int, offset: int) -> str:
        text = helped.cmd(f"print/x $seg({selector:#x}, {offset:#x})")
        base = 0x8000 if selector < 0x18 else 0
        assert f"= {base + offset & 0xFFFFFFFF:#x}" in text
        return text.split("$")[0]

    assert "warning" not in warned(8, 0xFFF)
    assert "offset 0x1000 is outside the limit 0xfff of selector 0008" in warned(8, 0x1000)
    assert "warning" not in warned(8, 0x1001)  # once
    assert "warning" not in warned(0x10, 0x1000) + warned(0x10, 0xFFFF)
    assert "offset 0xfff is outside the limit 0xfff of selector 0010" in warned(0x10, 0xFFF)
    assert "warning" not in warned(0x18, 0xFFFFFFFF)
