"""What a domain that runs answers to what only machines of v2e's own have."""

from __future__ import annotations

import pytest

from emu.inspector import DebuggerError
from emu.subject import Several
from xenbridge.xen.running import RunningDomain


def test_it_is_refused_in_a_sentence_and_is_not_there_for_whoever_asks() -> None:
    domain = RunningDomain.__new__(RunningDomain)
    with pytest.raises(DebuggerError, match=r"^that is for machines of v2e's own: this is a domain of Xen$"):
        _ = domain.keeper
    assert not isinstance(domain, Several)
