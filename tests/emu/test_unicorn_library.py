"""Unicorn's library is called with the numbers of its own Python binding, which nothing else here imports."""

from __future__ import annotations

import subprocess
import sys

import emu.unicorn_parts  # before the binding: it loads the C helper
from emu import unicorn_library as ours
from emu.unicorn_layout import VERSION


def test_registers_have_the_bindings_numbers() -> None:
    from unicorn import x86_const

    theirs = {name: getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in ours.REGISTERS}
    assert theirs == ours.REGISTERS
    assert x86_const.UC_X86_REG_MSR == ours.REGISTER_MSR


def test_constants_are_the_bindings() -> None:
    from unicorn import unicorn_const as theirs

    assert (theirs.UC_ARCH_X86, theirs.UC_MODE_64) == (ours.ARCH_X86, ours.MODE_64)
    assert (theirs.UC_HOOK_INTR, theirs.UC_HOOK_INSN_INVALID) == (ours.HOOK_INTR, ours.HOOK_INSN_INVALID)
    assert (theirs.UC_ERR_FETCH_UNMAPPED, theirs.UC_ERR_FETCH_PROT) == (ours.ERR_FETCH_UNMAPPED, ours.ERR_FETCH_PROT)
    settings = ("UC_USE_EXITS", "UC_EXITS", "CPU_MODEL", "TCG_BUFFER_SIZE")
    assert [getattr(theirs, f"UC_CTL_{name}") for name in settings] == [
        ours.CTL_USE_EXITS, ours.CTL_EXITS, ours.CTL_CPU_MODEL, ours.CTL_TCG_BUFFER_SIZE,
    ]  # fmt: skip


def test_the_version_is_the_librarys() -> None:
    import unicorn

    assert emu.unicorn_parts.LIBRARY.version == unicorn.__version__ == VERSION


def test_a_machine_is_built_without_the_binding_and_without_inspecting() -> None:
    program = (
        "import sys, emu.unicorn_engine, emu.machine\n"
        "print([m for m in ('unicorn', 'dataclasses', 'inspect', 'emu.pc', 'emu.picture') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
