"""The answer to `g` that is cut out of a CPU's flat state, against one register after another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from any_states import any_state
from emu.debugger import Debugger
from emu.onlooker import Onlooker
from emu.packed import Flat
from emu.worker import Worker
from emu.x86.registers import REGISTERS
from machines import debugger as make_debugger
from machines import rom
from stub.adapter import DebuggerTarget
from stub.flat import FlatTeller
from stub.registers import describe
from stub.session import Session
from stub_fakes import Client

RETIRED = 0x1_2345_6789


@pytest.fixture(scope="module")
def debugger() -> Iterator[Debugger]:
    made = make_debugger(rom("jmp $"))
    if made.machine.executor.packing() is None:
        pytest.skip("the engine's loop here has no flat state")
    yield made
    made.machine.close()


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("seed", range(30))
def test_every_register_is_what_it_is_by_itself(debugger: Debugger, bits: int, seed: int) -> None:
    debugger.machine.executor.load(any_state(seed))
    debugger.forget()
    flat = debugger.flat_cpu()
    assert flat is not None
    state, description = debugger.cpu(), describe(bits)
    told = bytes.fromhex(FlatTeller(description).tell(flat, RETIRED).decode())
    at = 0
    for register in description.registers:
        value = told[at : at + register.size]
        read = RETIRED if register.name == "icount" else register.read(state)
        read &= (1 << register.bits) - 1  # bases of `any_state` are wider than any CPU's
        assert (register.name, int.from_bytes(value, "little")) == (register.name, read)
        at += register.size
    assert at == len(told)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_gdb_s_own_registers_alone_are_told_too(debugger: Debugger, bits: int) -> None:
    debugger.machine.executor.load(any_state(100))
    debugger.forget()
    flat = debugger.flat_cpu()
    assert flat is not None
    whole, standard = describe(bits), describe(bits).standard()
    size = sum(register.size for register in standard.registers)
    assert FlatTeller(whole).tell(flat, RETIRED)[: 2 * size] == FlatTeller(standard).tell(flat, RETIRED)


def test_who_executes_is_no_part_of_a_flat_state() -> None:
    with pytest.raises(KeyError, match="engine"):
        FlatTeller(describe(32, native=True))
    assert Flat().apic_base == 0


def test_what_is_only_looked_at_is_told_register_by_register(debugger: Debugger) -> None:
    onlooker = Onlooker(debugger.machine, "a machine that is looked at")
    target = DebuggerTarget(onlooker, Worker(onlooker))
    peer = Client(Session(target))
    for packet in ("qSupported:", "qXfer:features:read:target.xml:0,1ffff", "?", "?", "?"):
        peer.ask(packet)
    assert len(peer.one("g")) == 2 * sum(register.size for register in target.describe().registers)


def test_the_base_of_an_apic_is_the_apic_s() -> None:
    debugger = make_debugger(rom("jmp $"), machine="pc", memory=16 << 20)
    if debugger.machine.executor.packing() is None:
        pytest.skip("the engine's loop here has no flat state")
    for base in (0xFEE00900, 0xFED00900):
        debugger.write_register("apic_base", base)
        flat = debugger.flat_cpu()
        assert flat is not None
        assert (flat.apic_base, REGISTERS["apic_base"].get(debugger.cpu())) == (base, base)
    debugger.machine.close()
