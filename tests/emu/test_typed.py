"""What `emu.typed` leaves of the names of `typing` when a program runs."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable

import pytest

import emu.typed
from emu.subject import Several
from emu.typed import Any, ClassVar, Final, Generic, Literal, NoReturn, Protocol, TypeVar, cast, runtime_checkable

T = TypeVar("T", bound=int)


class Named(Protocol):
    """Derived from as from a protocol."""

    def name(self) -> str:
        return "a name"


class Place(Named, ABC):
    @abstractmethod
    def where(self) -> int: ...


class Here(Place):
    __slots__ = ()

    def where(self) -> int:
        return 5


class Box(Generic[T]):
    def __init__(self, thing: T) -> None:
        self.thing = thing


@runtime_checkable
class Sized(Protocol):
    def size(self) -> int: ...

    @property
    def about(self) -> str: ...


@runtime_checkable
class Shared(Sized, Protocol):
    def owner(self) -> str: ...


class Folder(Shared, ABC):
    """Of the protocol by name, and abstract."""

    about = "a folder"

    def size(self) -> int:
        return 0

    def owner(self) -> str:
        return "root"


class File:
    about = "a file"

    def size(self) -> int:
        return 3


def test_protocols_are_bases_beside_abstract_ones() -> None:
    assert (Here().name(), Here().where()) == ("a name", 5)
    with pytest.raises(TypeError, match="abstract"):
        Place()  # type: ignore[abstract]


def test_names_can_be_subscripted_and_be_part_of_unions_and_aliases() -> None:
    alias = Callable[[Any, T], Any | None]
    assert alias is not None
    assert Box[int](4).thing == 4
    for name in (ClassVar, Final, Literal, NoReturn, Any, TypeVar):
        assert name is not None
    assert cast("str", 5) == 5


def test_a_checkable_protocol_asks_for_its_members() -> None:
    assert isinstance(File(), Sized)
    assert not isinstance(Here(), Sized)
    assert not isinstance(File(), Several)
    assert not isinstance(File(), Shared)
    assert isinstance(Folder(), Shared)
    assert isinstance(Folder(), Sized)
    assert isinstance(Folder(), Folder)


def test_a_class_derived_from_a_checkable_protocol_is_no_protocol() -> None:
    class Drive:
        about = "a drive"

        def size(self) -> int:
            return 1

        def owner(self) -> str:
            return "nobody"

    assert isinstance(Drive(), Shared)
    assert not isinstance(Drive(), Folder)


def test_the_names_are_those_that_type_checkers_are_given() -> None:
    imported = {line.split()[-1] for line in inspect.getsource(emu.typed).splitlines() if "from typing import" in line}
    assert imported and all(hasattr(emu.typed, name) for name in imported)
