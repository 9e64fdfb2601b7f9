"""gdb's view of the CPU: "Debugging with GDB", "i386 Features", and our own features beside it."""

from __future__ import annotations

import ast
import itertools
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from emu.x86.state import CpuState, Segment
from stub.features import target_xml
from stub.gdb import helper_path
from stub.registers import BriefTeller, X86Register, describe
from stub.target import Register

#: The registers that gdb requires, in its order (gdb 13, gdb/features/i386/32bit-core.xml and 64bit-core.xml).
FPU = [*(f"st{i}" for i in range(8)), "fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"]
CORE_32 = [
    "eax",
    "ecx",
    "edx",
    "ebx",
    "esp",
    "ebp",
    "esi",
    "edi",
    "eip",
    "eflags",
    "cs",
    "ss",
    "ds",
    "es",
    "fs",
    "gs",
    *FPU,
]
CORE_64 = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{i}" for i in range(8, 16)), "rip", "eflags",
    "cs", "ss", "ds", "es", "fs", "gs", *FPU,
]  # fmt: skip
PREDEFINED = {"int", "int32", "int64", "uint16", "uint32", "uint64", "code_ptr", "data_ptr", "i387_ext", "uint128",
              "int8", "int16", "ieee_single", "ieee_double"}  # fmt: skip


@pytest.mark.parametrize(("bits", "architecture", "core", "xmm"), [
    (16, "i8086", CORE_32, 8), (32, "i386", CORE_32, 8), (64, "i386:x86-64", CORE_64, 16),
])  # fmt: skip
def test_gdb_s_own_features_are_whole_and_first(bits: int, architecture: str, core: list[str], xmm: int) -> None:
    description = describe(bits)
    assert description.architecture == architecture
    names = [register.name for register in description.registers]
    assert names[: len(core)] == core
    assert names[len(core) : len(core) + xmm + 1] == [*(f"xmm{i}" for i in range(xmm)), "mxcsr"]
    assert description.features[0].name == "org.gnu.gdb.i386.core"
    assert description.features[1].name == "org.gnu.gdb.i386.sse"
    wide = [f.name for f in description.features if f.name == "org.gnu.gdb.i386.segments"]
    assert wide == (["org.gnu.gdb.i386.segments"] if bits == 64 else [])


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_every_name_is_given_once_and_every_type_is_known(bits: int) -> None:
    root = ET.fromstring(target_xml(describe(bits)))
    names = [r.get("name") for r in root.iter("reg")]
    assert len(names) == len(set(names))
    for feature in root.iter("feature"):
        known = set(PREDEFINED)
        for element in feature:
            if element.tag == "reg":
                assert element.get("type") in known, element.attrib
                continue
            for field in element.findall("field"):
                assert element.tag == "flags" or field.get("type") in known
            known.add(str(element.get("id")))


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_hidden_state_is_there(bits: int) -> None:
    names = {register.name for register in describe(bits).registers}
    for segment in ("es", "cs", "ss", "ds", "fs", "gs"):
        assert {segment, f"{segment}_base", f"{segment}_limit", f"{segment}_attr"} <= names
    assert {
        "gdtr",
        "idtr",
        "ldtr",
        "tr",
        "cr0",
        "cr2",
        "cr3",
        "cr4",
        "cr8",
        "dr0",
        "dr7",
        "efer",
        "mode",
        "ip",
    } <= names


def value(name: str, state: CpuState, bits: int) -> int:
    register = next(r for r in describe(bits).registers if r.name == name)
    assert isinstance(register, X86Register)
    return register.read(state)


def test_values() -> None:
    state = CpuState()
    state.regs[:] = range(0x1_0000_0000, 0x1_0000_0010)
    state.gdtr.base, state.gdtr.limit = 0x12345678, 0x2F
    state.tr = Segment(0x28, 0xABCDEF01, 0x67, 0x8B)
    assert value("ebx", state, 32) == 3
    assert value("rbx", state, 64) == 0x1_0000_0003
    assert value("ip", state, 16) == 0xFFF0
    assert value("gdtr", state, 32) == 0x002F_12345678
    assert value("gdtr", state, 64) == 0x002F_00000000_12345678
    # selector, base, limit, access rights, packed without gaps
    assert value("tr", state, 16) == 0x0000008B_00000067_ABCDEF01_0028
    assert value("mode", state, 16) == 16


@pytest.mark.parametrize("bits", [16, 64])
def test_every_register_fits_its_width(bits: int) -> None:
    state = CpuState()
    for register in describe(bits).registers:
        assert isinstance(register, X86Register)
        assert register.bits % 8 == 0
        register.read(state).to_bytes(register.size, "little")


def test_a_step_needs_no_more_than_the_stop_reply() -> None:
    names = {register.name for register in describe(32).expedited}
    general = {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"}  # for the helper, as the last four
    assert names == {*general, "eip", "eflags", "cs", "ss", "ip", "mode", "cr0", "icount"}


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_what_goes_with_a_stop_reply_is_what_each_register_reads(bits: int) -> None:
    state = CpuState()
    state.regs[:] = range(0x8765_4321_0FED_0000, 0x8765_4321_0FED_0010)
    state.cr0 = 0x6000_0011
    state.rip, state.rflags, state.efer = 0x8000_1234_5678_9ABC, 0x40246, 0x500 if bits == 64 else 0
    access = {16: 0x9B, 32: 0x409B, 64: 0x209B}[bits]
    state.cs, state.ss = Segment(0x1234, 0xFFF0_0000, 0xFFFF_FFFF, access), Segment(0x5678, 0x10, 0xFFFF, 0x93)
    description = describe(bits)
    expected = ""
    for number, register in enumerate(description.registers):
        assert isinstance(register, X86Register)
        if register.expedited:
            value = 0xABCD_0000_1234 if register.name == "icount" else register.read(state)
            expected += f"{number:x}:{(value & (1 << register.bits) - 1).to_bytes(register.size, 'little').hex()};"
    assert BriefTeller(description).tell(state, 0xABCD_0000_1234) == expected


def helper_groups() -> dict[str, set[str]]:
    """What the helper, which only gdb can import, has for groups."""
    tree = ast.parse((helper_path().parent / "registers.py").read_text("utf-8"))
    wanted = ("SEGMENTS", "GROUPS")
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in wanted:
            exec(ast.unparse(node), found)
    return {name: set(members) for name, members in found["GROUPS"].items()}


def test_the_helper_s_groups_are_those_of_the_description() -> None:
    features: dict[str, set[str]] = {}
    for bits, native in itertools.product((16, 32, 64), (False, True)):
        for feature in describe(bits, native=native).features:
            names = {r.name for r in feature.registers if not r.name.startswith(("st", "xmm", "f", "mxcsr"))}
            names |= {r.name for r in feature.registers if r.name in ("fs", "gs", "star", "fmask") or "fs_" in r.name}
            features.setdefault(feature.name.rpartition(".")[2], set()).update(names)
    ours, others = features["segments"] | features["tables"], {"engine", "icount"}
    assert helper_groups() == {
        "general": features["core"] | features["state"] - others,
        "segment": ours | {"cs", "ss", "ds", "es", "fs", "gs"},
        "system": features["tables"]
        | features["control"]
        | features["debug"]
        | features["msrs"]
        | {"engine", "icount"},
    }


def test_only_gdb_s_registers_are_saved_around_calls() -> None:
    saved: list[Register] = [r for r in describe(32).registers if r.saved]
    assert [r.name for r in saved] == [*CORE_32, *(f"xmm{i}" for i in range(8)), "mxcsr"]
