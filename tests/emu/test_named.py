"""Classes made by `emu.named.NamedTuple` behave as those of `typing`, on the same definitions."""

from __future__ import annotations

import copy
import pickle
import typing
from collections.abc import Callable
from typing import Any

import pytest

import emu.named
from emu.media import Geometry


def kind_of(module: Any) -> Any:
    base: Any = module.NamedTuple

    class Point(base):  # type: ignore[misc]
        """Of a plane."""

        x: int
        y: int = 2
        name: str = "p"

        @property
        def both(self) -> int:
            return self.x + self.y

    return Point


THEIRS = kind_of(typing)

CASES: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}), ((1, 3), {}), ((1, 3, "q"), {}), ((1,), {"name": "q"}), ((), {"y": 1, "x": 0}), ((), {}),
    ((1, 2, "p", 4), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1}),
]  # fmt: skip


def outcome(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:
        return type(error), str(error).split("__new__()")[-1]


def facts(kind: Any, values: Any, named: Any) -> list[Any]:
    """What can be seen of a tuple made so, of the first ones of its class and of those behind."""
    seen: list[Any] = []
    for _ in range(emu.named.UNCOMPILED + 2):  # type: ignore[attr-defined]
        thing = outcome(lambda: kind(*values, **named))
        seen.append(thing)
        if not isinstance(thing, kind):
            continue
        seen += [
            repr(thing), thing.x, thing.y, thing.both, tuple(thing), hash(thing), thing == tuple(thing),
            thing._asdict(), thing._replace(y=5), outcome(lambda: thing._replace(q=5)),  # noqa: B023
            kind._make([7, 8, "9"]), kind._fields, kind._field_defaults, kind.__match_args__, kind.__doc__,
            copy.deepcopy(thing) == thing, type(copy.copy(thing)) is kind, isinstance(thing, tuple),
            type(outcome(lambda: setattr(thing, "x", 1))), hasattr(thing, "__dict__"),  # noqa: B023
        ]  # fmt: skip
    return seen


@pytest.mark.parametrize(("values", "named"), CASES)
def test_tuples_behave_as_the_standard_ones(values: Any, named: Any) -> None:
    assert facts(kind_of(emu.named), values, named) == facts(THEIRS, values, named)


def test_tuples_can_be_pickled_and_matched() -> None:
    geometry = Geometry(80, 2, heads_sectors := 18)
    assert pickle.loads(pickle.dumps(geometry)) == geometry
    match geometry:
        case Geometry(80, heads, sectors):
            assert (heads, sectors) == (2, heads_sectors)
        case _:
            pytest.fail("a class pattern does not match")


def test_a_field_without_a_default_behind_one_with_it_is_refused() -> None:
    for module in (emu.named, typing):
        base: Any = getattr(module, "NamedTuple")  # noqa: B009
        with pytest.raises(TypeError):

            class Wrong(base):  # type: ignore[misc]
                a: int = 1
                b: int
