"""The coupling of an interrupt controller to an engine that takes interrupts by itself."""

from __future__ import annotations

from typing import Any

from emu.irq import IntrPin, Line


class Controller:
    def __init__(self, *vectors: int) -> None:
        self.vectors = list(vectors)
        self.acknowledged: list[int] = []

    def pending_vector(self) -> int | None:
        return self.vectors[0] if self.vectors else None

    def acknowledge(self) -> int:
        self.acknowledged.append(self.vectors.pop(0))
        return self.acknowledged[-1]


class Cpu:
    def __init__(self) -> None:
        self.driven: int | None = None
        self.taken: int | None = None

    def set_interrupt(self, vector: int | None) -> None:
        self.driven = vector

    def take_interrupt(self) -> int | None:
        taken, self.taken = self.taken, None
        return taken


def coupled(*vectors: int) -> tuple[IntrPin, Controller, Cpu]:
    pin, controller, cpu = IntrPin(), Controller(*vectors), Cpu()
    engine: Any = cpu
    pin.connect(controller, engine)
    return pin, controller, cpu


def test_update_drives_what_the_controller_asks_for() -> None:
    pin, controller, cpu = coupled(8)
    pin.update()
    assert cpu.driven == 8
    controller.vectors.clear()
    pin.update()
    assert cpu.driven is None


def test_settle_acknowledges_what_was_delivered_and_drives_the_next() -> None:
    pin, controller, cpu = coupled(8, 9)
    delivered: list[int] = []
    pin.on_delivery = delivered.append
    cpu.taken = 8
    pin.settle()
    assert controller.acknowledged == delivered == [8]
    assert cpu.driven == 9


def test_settle_without_a_delivery_leaves_the_controller_alone() -> None:
    pin, controller, _cpu = coupled(8)
    pin.settle()
    assert controller.acknowledged == []


def test_a_line_tells_changes_only() -> None:
    seen: list[bool] = []
    line = Line(seen.append)
    line.set(True)
    line.set(True)
    line.set(False)
    assert seen == [True, False]
