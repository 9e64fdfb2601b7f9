"""The engine refuses what it does not know, by a sentence; and shows a CPU without what nothing provides."""

from __future__ import annotations

import pytest

import emu.unicorn_gate
import emu.unicorn_overlay
import emu.unicorn_parts
from bare_cpu import CODE, RAM, TABLES, bare_cpu
from emu.engine import EngineError, Exit, ExitReason
from emu.memory import Part, PhysicalMemory
from emu.unicorn_engine import UnicornEngine
from emu.unicorn_layout import HIDDEN_PAGE, PHYSICAL_END


class Nothing:
    def port_in(self, port: int, size: int) -> int:
        return 0

    def port_out(self, port: int, size: int, value: int) -> None:
        pass


def engine(*parts: Part) -> UnicornEngine:
    memory = PhysicalMemory(parts or (Part(0, 0x1000, "ram", "ram"),))
    made = UnicornEngine(memory.regions, Nothing(), None, timestamp=lambda: 0)
    made.keep = memory  # type: ignore[attr-defined]
    return made


def test_another_release_of_unicorn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emu.unicorn_parts.Library, "version", "2.2.0")
    with pytest.raises(
        EngineError, match=r"unicorn 2\.2\.0 is installed and only 2\.1\.4 is known; install it with pip"
    ):
        engine()


@pytest.mark.parametrize(
    "offset", ["UC_CPU", "CPU_ENV", "CPU_UC", "CPU_ENV_POINTER", "CPU_HALTED", "CPU_CFLAGS_NEXT", "CPU_EXCEPTION_INDEX"]
)
def test_a_structure_that_lies_elsewhere_is_refused(offset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emu.unicorn_overlay, offset, getattr(emu.unicorn_overlay, offset) + 8)
    with pytest.raises(EngineError, match=r"keeps its CPU elsewhere than release 2\.1\.4 .* pip install"):
        engine()


def test_a_register_that_lies_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(emu.unicorn_overlay.MSR_FIELDS, 0xC0000082, "cstar")
    with pytest.raises(EngineError, match="MSR 0xc0000082"):
        engine()


def test_a_missing_function_is_refused() -> None:
    with pytest.raises(EngineError, match="does not export no_such_function"):
        emu.unicorn_overlay._function(emu.unicorn_parts.LIBRARY.functions, "no_such_function", None)


def test_an_engine_that_does_not_count_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2E_ENGINE", "gate")
    monkeypatch.setattr(emu.unicorn_gate, "gate", lambda **_: b"\xc3")
    with pytest.raises(EngineError, match="does not count and stop as it should"):
        engine()


def test_regions_that_overlap_are_refused() -> None:
    one, two = (PhysicalMemory([Part(base, 0x2000, "ram", "ram")]) for base in (0, 0x1000))
    with pytest.raises(EngineError, match=r"cannot map ram at 0x1000\+0x2000"):
        UnicornEngine((*one.regions, *two.regions), Nothing(), None, timestamp=lambda: 0)


def test_memory_past_the_cpus_reach_is_refused() -> None:
    with pytest.raises(EngineError, match="past the 0x10000000000 bytes"):
        engine(Part(PHYSICAL_END, 0x1000, "ram", "high"))


def test_without_mmio_holes_read_all_ones() -> None:
    made = engine(Part(0xFFFF0000, 0x10000, "rom", "rom", bytes(0xFFF0) + bytes.fromhex("66a10001f4")))
    # 66 a1 00 01: mov eax, [100h], in the hole at 0
    assert made.run(9) == Exit(ExitReason.HALT, 2)
    assert made.state().regs[0] == 0xFFFFFFFF


def test_cpuid_names_neither_rdrand_nor_a_local_apic() -> None:
    cpu = bare_cpu("mov eax, 1\ncpuid\nhlt", 32)
    cpu.run()
    regs = cpu.engine.state().regs
    assert regs[1] & 1 << 30 == 0
    assert regs[2] & 1 << 9 == 0
    assert regs[2] & 1 == 1


def test_rdrand_is_an_invalid_opcode() -> None:
    cpu = bare_cpu("mov word [24], h\nmov word [26], 0\nrdrand eax\nhlt\nh: hlt")
    assert cpu.run().reason is ExitReason.HALT
    assert [fault.vector for fault in cpu.faults] == [6]


def test_the_hidden_page_is_out_of_the_guests_reach() -> None:
    # An entry with address bits past 40 is reserved: #PF with RSVD (SDM vol. 3A, 4.7), here up to a triple fault.
    cpu = bare_cpu("mov eax, [0x5000]\nhlt", 64)
    cpu.write(TABLES + 0x3000 + 8 * 5, (HIDDEN_PAGE | 3).to_bytes(8, "little"))
    assert cpu.run().reason is ExitReason.SHUTDOWN
    assert (cpu.faults[0].vector, cpu.faults[0].code) == (14, 9)


def test_fetches_from_a_device_fail_with_the_address_again_and_again() -> None:
    cpu = bare_cpu(f"jmp {RAM:#x}", 32)
    cpu.devices = True
    exit = cpu.engine.run(10)
    assert exit.reason is ExitReason.FAILURE
    assert exit.executed == 1
    assert exit.detail == f"the instruction at linear {RAM:#x} cannot be fetched: no RAM or ROM is there"
    assert cpu.engine.run(10).executed == 0


def test_a_closed_engine_leaves_others_alone() -> None:
    one, two = bare_cpu("l: inc ax\njmp l"), bare_cpu("l: inc ax\njmp l")
    one.engine.run(2)
    one.engine.close()
    assert two.engine.run(2) == Exit(ExitReason.BUDGET, 2)
    assert two.engine.linear_pc == CODE
