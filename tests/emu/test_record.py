"""Classes made by `emu.record.dataclass` behave as those of the standard decorator, on the same definitions."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import emu.record
from emu.engine import Access, Watch


def classes(module: Any) -> dict[str, type]:
    decorator, field = module.dataclass, module.field

    @decorator
    class Plain:
        a: int
        b: str = "x"

    @decorator(slots=True)
    class Slotted:
        a: int = 1
        b: list[int] = field(default_factory=list)
        c: int = field(default=5, repr=False, compare=False)

    @decorator(frozen=True, slots=True)
    class Frozen:
        a: int
        b: tuple[int, ...] = ()

    @decorator(slots=True)
    class Derived(Slotted):
        d: int = 9
        e: int = field(init=False, default=3)

        def __post_init__(self) -> None:
            self.e = self.d + 1

    @decorator(frozen=True)
    class Own:
        a: int

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

        def __repr__(self) -> str:
            return "own"

    @decorator(slots=True)
    class Empty:
        pass

    made: tuple[type, ...] = (Plain, Slotted, Frozen, Derived, Own, Empty)
    return {c.__name__: c for c in made}


OURS, THEIRS = classes(emu.record), classes(dataclasses)

CASES = [
    ("Plain", (1,), {}), ("Plain", (1, "y"), {}), ("Plain", (), {"a": 2, "b": "z"}), ("Plain", (), {}),
    ("Plain", (1, 2, 3), {}), ("Plain", (1,), {"q": 1}), ("Slotted", (), {}), ("Slotted", (2, [3]), {"c": 4}),
    ("Frozen", (1,), {}), ("Frozen", (1, (2, 3)), {}), ("Derived", (), {}), ("Derived", (1, [2], 3, 4), {}),
    ("Derived", (), {"e": 1}), ("Own", (1,), {}), ("Empty", (), {}), ("Empty", (1,), {}),
]  # fmt: skip


def outcome(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:
        return type(error)


def facts(module: Any, kinds: dict[str, type], name: str, values: Any, named: Any) -> list[Any]:
    """What can be seen of an object made so, of the first ones of its class and of those behind, when its __init__ has
    been compiled."""
    kind: Any = kinds[name]
    seen: list[Any] = []
    for _ in range(emu.record.UNCOMPILED):
        thing = outcome(lambda: kind(*values, **named))
        if isinstance(thing, type):
            seen.append(thing)
            continue
        names = [f.name for f in dataclasses.fields(thing)]
        first = names[0] if names else "none"
        seen += [
            repr(thing),
            [getattr(thing, n) for n in names],
            dataclasses.asdict(thing),
            kind.__match_args__,
            thing == kind(*values, **named),
            (thing == 1, thing != 1),
            outcome(lambda: hash(thing)),  # noqa: B023
            outcome(lambda: dataclasses.replace(thing, **{first: 8})),  # noqa: B023
            outcome(lambda: module.replace(thing, **{first: 8})),  # noqa: B023
            outcome(lambda: module.replace(thing, e=8)),  # noqa: B023
            [(f.name, f.type, f.init, f.repr, f.compare) for f in module.fields(thing)],
            outcome(lambda: setattr(thing, first, 8)),  # noqa: B023
            outcome(lambda: delattr(thing, first)),  # noqa: B023
            hasattr(kind(*values, **named), "__dict__"),
            copy.deepcopy(kind(*values, **named)) == kind(*values, **named),
        ]
    return [repr(s) if name in repr(s) else s for s in seen]


@pytest.mark.parametrize(("name", "values", "named"), CASES)
def test_objects_behave_as_the_standard_ones(name: str, values: Any, named: Any) -> None:
    assert facts(emu.record, classes(emu.record), name, values, named) == facts(
        dataclasses, THEIRS, name, values, named
    )


@pytest.mark.parametrize(("values", "named"), [((), {}), ((1, 2, 3), {}), ((1,), {"q": 1}), ((1,), {"a": 2})])
def test_the_first_object_of_a_class_is_refused_with_the_standard_words(values: Any, named: Any) -> None:
    words = []
    for kinds in (classes(emu.record), classes(dataclasses)):
        with pytest.raises(TypeError) as refused:
            kinds["Plain"](*values, **named)
        words.append(str(refused.value).split("Plain.")[-1])
    assert words[0] == words[1]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("module", [emu.record, dataclasses])
def test_without_eq_an_object_equals_itself_alone_and_can_be_a_key(module: Any, frozen: bool) -> None:
    @module.dataclass(frozen=frozen, slots=True, eq=False)
    class Same:
        a: int

    one, other = Same(1), Same(1)
    assert one != other
    assert {one: "one", other: "other"}[one] == "one"
    assert repr(one) == repr(other)
    with pytest.raises(dataclasses.FrozenInstanceError) if frozen else contextlib.nullcontext():
        one.a = 2


def test_a_standard_field_is_refused() -> None:
    class Mixed:
        a: list[int] = dataclasses.field(default_factory=list)

    with pytest.raises(TypeError, match=r"Mixed\.a: fields here are made by emu\.record\.field"):
        emu.record.dataclass(Mixed)


def test_each_object_has_its_own_default_values() -> None:
    one, other = OURS["Slotted"](), OURS["Slotted"]()
    one.b.append(1)
    assert other.b == []


def test_frozen_objects_with_slots_can_be_pickled() -> None:
    watch = Watch(0x1000, 4, Access.READ)
    assert pickle.loads(pickle.dumps(watch)) == watch


def test_objects_of_other_values_differ() -> None:
    for kinds in (OURS, THEIRS):
        assert kinds["Plain"](1) != kinds["Plain"](2)
        assert kinds["Slotted"](c=1) == kinds["Slotted"](c=2)
        assert kinds["Slotted"]() != kinds["Derived"]()
