"""What a target can do is what `isinstance` says of the protocols, without its price."""

from __future__ import annotations

from typing import Any

import pytest

from emu.debugger import Debugger
from emu.machine import MachineConfig, build_machine
from emu.worker import Worker
from machines import rom
from stub import target, trace_target
from stub.adapter import DebuggerTarget
from stub.handlers import trace
from stub.offers import offers
from stub_fakes import BareTarget, FakeTarget

PROTOCOLS = sorted(
    {
        value
        for module in (target, trace_target)
        for value in vars(module).values()
        if isinstance(value, type) and getattr(value, "_is_runtime_protocol", False)
    },
    key=lambda protocol: protocol.__name__,
)


@pytest.fixture
def machine_s() -> DebuggerTarget:
    debugger = Debugger(build_machine(MachineConfig(memory=1 << 20, firmware=rom("jmp $"))))
    return DebuggerTarget(debugger, Worker(debugger))


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=[protocol.__name__ for protocol in PROTOCOLS])
def test_a_protocol_is_offered_where_isinstance_says_so(protocol: type[Any], machine_s: DebuggerTarget) -> None:
    for candidate in (BareTarget(), FakeTarget(), machine_s, object()):
        assert offers(candidate, protocol) == isinstance(candidate, protocol), candidate


def test_every_protocol_is_asked_for_all_its_members() -> None:
    assert len(PROTOCOLS) > 20
    for protocol in PROTOCOLS:
        names = [name for name in dir(protocol) if not name.startswith("_")]
        whole = type("Whole", (), dict.fromkeys((*names, *protocol.__annotations__)))
        assert offers(whole(), protocol)
        for name in names:
            assert not offers(type("Less", (), dict.fromkeys(n for n in names if n != name))(), protocol), name


def test_what_extends_two_protocols_wants_the_members_of_both() -> None:
    assert offers(FakeTarget(), trace._Target)
    assert not offers(BareTarget(), trace._Target)
