"""`dataclass` for the classes of this program: those of `dataclasses`, made without compiling.

The standard decorator compiles up to seven functions from source for each class: a third of the time that a run took
until its first instruction. Here `__init__` is compiled when the first instance is made, and the others are closures.
Fields, slots, `fields`, `replace` and `match` are the standard module's own. For a type checker the two are one.
"""

from __future__ import annotations

import dataclasses
from operator import attrgetter
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: type | None = None, /, *, frozen: bool = False, slots: bool = False) -> Any:
        """`dataclasses.dataclass` of positional fields, with the options that are used here."""
        if cls is None:
            return lambda cls: _made(cls, frozen, slots)
        return _made(cls, frozen, slots)


def _made(cls: type, frozen: bool, slots: bool) -> type:
    made: type = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
    fields = dataclasses.fields(made)
    methods: dict[str, Any] = {
        "__init__": _initialiser(made, fields, frozen),
        "__repr__": _shower([f.name for f in fields if f.repr]),
        "__eq__": _comparer(compared := tuple(f.name for f in fields if f.compare)),
    }
    own = made.__dict__
    if frozen:
        methods.update(_FROZEN)
        methods["__hash__"] = _hasher(compared)
        if slots:
            methods["__getstate__"], methods["__setstate__"] = _pickled(tuple(f.name for f in fields))
    elif "__eq__" not in own:
        methods["__hash__"] = None
    for name, method in methods.items():
        # A class with __eq__ and no __hash__ has been given None for it by Python.
        if name not in own or (name == "__hash__" and own[name] is None):
            setattr(made, name, method)
    return made


def _initialiser(cls: type, fields: tuple[dataclasses.Field[Any], ...], frozen: bool) -> Any:
    """__init__, which puts the compiled one in its place when it is called first."""

    def __init__(self: Any, /, *values: Any, **named: Any) -> None:
        compiled = _compiled_initialiser(cls, fields, frozen)
        cls.__init__ = compiled  # type: ignore[misc]
        compiled(self, *values, **named)

    return __init__


def _compiled_initialiser(cls: type, fields: tuple[dataclasses.Field[Any], ...], frozen: bool) -> Any:
    names: dict[str, Any] = {"_missing": dataclasses.MISSING, "_set": object.__setattr__}
    parameters, body = ["self"], []
    for f in fields:
        value = f.name
        if f.default is not dataclasses.MISSING:
            names[f"_default_{f.name}"] = f.default
            default = f"=_default_{f.name}"
        elif f.default_factory is not dataclasses.MISSING:
            names[f"_make_{f.name}"] = f.default_factory
            default = "=_missing"
            value = f"_make_{f.name}() if {f.name} is _missing else {f.name}" if f.init else f"_make_{f.name}()"
        else:
            default = ""
        if f.init:
            parameters.append(f.name + default)
        elif not default:
            continue
        elif f.default is not dataclasses.MISSING:
            value = f"_default_{f.name}"
        if not frozen:
            body.append(f"self.{f.name} = {value}")
        elif isinstance(slot := getattr(cls, f.name, None), MemberDescriptorType):
            names[f"_set_{f.name}"] = slot.__set__  # half of what object.__setattr__ takes
            body.append(f"_set_{f.name}(self, {value})")
        else:
            body.append(f"_set(self, {f.name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    source = f"def __init__({', '.join(parameters)}):\n " + "\n ".join(body or ["pass"])
    exec(source, names)
    made = names["__init__"]
    made.__qualname__, made.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    return made


def _shower(names: list[str]) -> Any:
    def __repr__(self: Any) -> str:
        shown = ", ".join([f"{name}={getattr(self, name)!r}" for name in names])
        return f"{self.__class__.__qualname__}({shown})"

    return __repr__


def _values(names: tuple[str, ...]) -> Any:
    """What gives an object's values of the names: alone, or as a tuple."""
    return attrgetter(*names) if names else lambda _: ()


def _comparer(names: tuple[str, ...]) -> Any:
    values = _values(names)

    def __eq__(self: Any, other: object) -> Any:
        if other.__class__ is self.__class__:
            return values(self) == values(other)
        return NotImplemented

    return __eq__


def _hasher(names: tuple[str, ...]) -> Any:
    values = _values(names)

    def __hash__(self: Any) -> int:
        return hash(values(self))

    return __hash__


def _set_frozen(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete_frozen(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


_FROZEN = {"__setattr__": _set_frozen, "__delattr__": _delete_frozen}


def _pickled(names: tuple[str, ...]) -> tuple[Any, Any]:
    """__getstate__ and __setstate__ of a frozen class with slots, which nothing else could fill."""

    def __getstate__(self: Any) -> list[Any]:
        return [getattr(self, name) for name in names]

    def __setstate__(self: Any, state: list[Any]) -> None:
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    return __getstate__, __setstate__
