"""Classes made by `emu.named` behave as those of `typing` and `enum`, on the same definitions."""

from __future__ import annotations

import copy
import enum
import json
import pickle
import typing
from collections.abc import Callable
from typing import Any

import pytest

import emu.named
from emu.engine import Access, Change, ExitReason
from emu.media import Geometry
from repl.json_text import plain


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


def enumeration(base: Any) -> Any:
    class Colour(base):  # type: ignore[misc]
        """Of light."""

        RED = "red"
        GREEN = 2

        @property
        def warm(self) -> bool:
            return self is Colour.RED

    return Colour


def enumeration_facts(kind: Any) -> list[Any]:
    red = kind.RED
    return [
        repr(red), str(red), f"{red}", red.name, red.value, red.warm, kind.GREEN.warm,
        [m.name for m in kind], len(kind),
        kind("red") is red, kind["GREEN"] is kind.GREEN, list(kind.__members__), red == "red", red == kind("red"),
        kind.RED in {red}, kind.GREEN in {red}, copy.copy(red) is red, copy.deepcopy([red])[0] is red,
        isinstance(red, kind), red.GREEN is kind.GREEN if hasattr(red, "GREEN") else True, kind.__doc__,
        outcome(lambda: kind(3)), outcome(lambda: kind["BLUE"]), outcome(lambda: kind.BLUE)[0],
    ]  # fmt: skip


def test_enumerations_behave_as_the_standard_ones() -> None:
    assert enumeration_facts(enumeration(emu.named.Enum)) == enumeration_facts(enumeration(enum.Enum))


def test_members_survive_pickling_and_are_shown_by_their_value() -> None:
    assert pickle.loads(pickle.dumps(ExitReason.HALT)) is ExitReason.HALT
    assert json.loads(json.dumps(plain({"reason": ExitReason.HALT}))) == {"reason": "halt"}


def test_two_members_of_one_value_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Twice\.B has the value of another member"):

        class Twice(emu.named.Enum):
            A = 1
            B = 1


def flags(base: Any, *, strict: bool) -> Any:
    """`strict` for the standard one's boundary: other bits are refused."""

    class Kinds(base, **({"boundary": enum.STRICT} if strict else {})):  # type: ignore[misc]
        NONE = 0
        A = 1
        B = 2
        BOTH = 3
        D = 8

        @property
        def odd(self) -> bool:
            return bool(self & Kinds.A)

    return Kinds


def flag_facts(kind: Any) -> list[Any]:
    a, b, d = kind.A, kind.B, kind.D
    return [
        a | b is kind.BOTH, (a | d).name, (a | d).value, a & d is kind.NONE, kind.BOTH & b is b, bool(a & b),
        bool(a | b),
        kind(9) == a | d, kind(9) is a | d, kind(2) is b, kind["B"] is b, a | 2 is kind.BOTH, 2 | a is kind.BOTH, a & 1,
        [m.name for m in kind.BOTH], [m.name for m in a | d], [m.name for m in kind.NONE], a == 1, a + 1, {a: 5}[1],
        d.odd, (a | d).odd, hash(a) == hash(kind(1)), copy.copy(a) is a, copy.deepcopy([a])[0] is a, isinstance(a, int),
        outcome(lambda: kind(4))[0], outcome(lambda: kind["C"])[0], list(kind.__members__),
    ]  # fmt: skip


def test_flags_behave_as_the_standard_ones() -> None:
    mine, standard = flags(emu.named.IntFlag, strict=False), flags(enum.IntFlag, strict=True)
    assert flag_facts(mine) == flag_facts(standard)
    shown = flags(enum.Flag, strict=False)
    for value in (0, 1, 3, 9):
        assert (repr(mine(value)), str(mine(value))) == (repr(shown(value)), str(shown(value)))


def test_flags_survive_pickling_and_are_shown_by_their_names() -> None:
    assert pickle.loads(pickle.dumps(Change.MODE | Change.TASK)) is Change.MODE | Change.TASK
    assert plain({"access": Access.BOTH}) == {"access": ["read", "write"]}
