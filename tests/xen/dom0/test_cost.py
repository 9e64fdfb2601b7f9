"""What a request and an event of the bridge cost on a real Xen: a table among the results of `make test-xen`."""

from __future__ import annotations

import functools
import select
import statistics
import time
from collections.abc import Callable

from dom0_bridge import made_xen

from bridges import CURRENT, EOI, ICR, TPR, initialise
from xenbridge.bridge import MachineBridge
from xenbridge.ioreq import Ioreq, Type, read, write
from xenbridge.xen import bridge as xen

EACH = 12
SELF = 0x0004_0061  #: ICR: to itself, fixed, vector 61h
REQUESTS: dict[str, Ioreq] = {
    "PIO read, PIC's IMR (21h)": read(Type.PIO, 0x21, 1),
    "PIO read, PIT's counter (42h)": read(Type.PIO, 0x42, 1),
    "PIO write, PIC's IMR": write(Type.PIO, 0x21, 1, 0xFF),
    "MMIO read, LAPIC timer's count": read(Type.COPY, CURRENT, 4),
    "MMIO write, LAPIC TPR": write(Type.COPY, TPR, 4, 0),
    "MMIO write, LAPIC EOI": write(Type.COPY, EOI, 4, 0),
}


def medians(actions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Of EACH times, in ms. They take turns, so that a pace of the host's that changes is the same for all."""
    samples: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(EACH):
        for name, action in actions.items():
            begun = time.perf_counter()
            action()
            samples[name].append(time.perf_counter() - begun)
    return {name: statistics.median(times) * 1000 for name, times in samples.items()}


def event(bridge: MachineBridge) -> None:
    """From a self-IPI to its vector in hand, waited for at the descriptor."""
    bridge.exchange(write(Type.COPY, ICR, 4, SELF).pack())
    while bridge.take() is None:
        select.select([bridge.descriptor], [], [], 1)
    bridge.exchange(write(Type.COPY, EOI, 4, 0).pack())


def test_a_request_is_an_exit_and_what_xen_executes_for_it(table) -> None:
    """That is: it takes a small number of bare exits, whatever the host's pace is."""
    with made_xen() as bridge:
        initialise(bridge)

        def bare() -> None:
            bridge._do(xen._NOTHING)
            bridge._until_door()

        accesses = {name: functools.partial(bridge.exchange, one.pack()) for name, one in REQUESTS.items()}
        found = medians({"a bare exit for a port of ours": bare, **accesses})
        requests = [value for name, value in found.items() if name in REQUESTS]
        bridge.listen(True)
        raw = REQUESTS["PIO read, PIC's IMR (21h)"].pack()
        found |= medians({
            "a request while the vCPU waits for an interrupt": lambda: bridge.exchange(raw),
            "an event, self-IPI to vector, and its EOI": lambda: event(bridge),
        })  # fmt: skip
        bridge.listen(False)
        first = found["a bare exit for a port of ours"]
        table([f"{name:<50}{value:>8.2f} ms {value / first:>8.2f}" for name, value in found.items()])
    assert statistics.median(requests) < 4 * first
