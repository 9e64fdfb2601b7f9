"""The reference hypervisor on the host's clock: how far its time follows that."""

from __future__ import annotations

from bridges import CURRENT, DIVIDE, INITIAL, SVR, lapic
from xenbridge.model_bridge import MOST_BEHIND, ModelBridge


def test_the_models_time_makes_up_for_20_ms_and_no_more() -> None:
    """By its local APIC's timer, which counts ns. A host that stood still for seconds is not made up for: ticks
    would come in a bunch."""
    host = [1_000_000_000]
    bridge = ModelBridge(now=lambda: host[0])
    bridge.borrow()
    lapic(bridge, SVR, 0x1FF)
    lapic(bridge, DIVIDE, 0xB)
    lapic(bridge, INITIAL, 0xFFFF_FFFF)

    def passed(ns: int) -> int:
        """Of the timer's, while so many pass of the host's."""
        before = lapic(bridge, CURRENT)
        host[0] += ns
        return before - lapic(bridge, CURRENT)

    assert MOST_BEHIND == 20_000_000
    assert [passed(ns) for ns in (1_000_000, 19_999_990, 20_000_000)] == [1_000_000, 19_999_990, 20_000_000]
    assert [passed(ns) for ns in (20_000_010, 3_000_000_000, 1_000_000)] == [20_000_000, 20_000_000, 1_000_000]
    bridge.close()
