"""`dataclass` for the classes of this program: those of `dataclasses`, made without compiling and without that module.

The standard decorator compiles up to seven functions from source for each class, and its module imports `inspect` with
half of Python's own compiler: together more than the rest of what a run does before its first instruction. Here
`__init__` is compiled when many instances are made, the others are closures, and what the standard module's own
functions look at is made when they do. For a type checker the two are one.
"""

from __future__ import annotations

from operator import attrgetter
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import fields as fields
    from dataclasses import replace as replace
else:

    def dataclass(cls: type | None = None, /, *, frozen: bool = False, slots: bool = False, eq: bool = True) -> Any:
        """`dataclasses.dataclass` of positional fields, with the options that are used here."""
        if cls is None:
            return lambda cls: _made(cls, frozen, slots, eq)
        return _made(cls, frozen, slots, eq)

    def field(
        *, default: Any = None, default_factory: Any = None, init: bool = True, repr: bool = True, compare: bool = True
    ) -> Any:
        """`dataclasses.field` of the options that are used here. A default is never None."""
        return Field(_MISSING if default is None else default, default_factory, init, repr, compare)

    def fields(thing: Any) -> tuple[Field, ...]:
        """The fields of an object or a class made by `dataclass`, in order."""
        return thing.__record_fields__

    def replace(thing: Any, /, **changes: Any) -> Any:
        """A copy of an object in which `changes` differ. Raises TypeError for what `__init__` does not take."""
        for f in thing.__record_fields__:
            if f.init:
                if f.name not in changes:
                    changes[f.name] = getattr(thing, f.name)
            elif f.name in changes:
                raise ValueError(f"field {f.name} is not one of __init__")
        return thing.__class__(**changes)


class _Missing:
    """The default of a field that has none."""


_MISSING: Final = _Missing()
#: Objects that are made of a class before its `__init__` is compiled.
UNCOMPILED: Final = 16


class Field:
    """A field: its name and type as they stand in the class, its default or what makes it."""

    __slots__ = ("compare", "default", "factory", "init", "name", "repr", "type")

    def __init__(self, default: Any, factory: Any, init: bool = True, repr: bool = True, compare: bool = True) -> None:
        self.name, self.type = "", ""
        self.default, self.factory, self.init, self.repr, self.compare = default, factory, init, repr, compare


class _StandardFields:
    """`__dataclass_fields__`, by which the functions of `dataclasses` know a class, made when it is looked at."""

    def __init__(self, own: tuple[Field, ...]) -> None:
        self._own = own
        self._made: Any = None

    def __get__(self, _thing: object, _cls: type) -> Any:
        if self._made is None:
            import dataclasses

            made = []
            for f in self._own:
                named: dict[str, Any] = {"init": f.init, "repr": f.repr, "compare": f.compare}
                if f.default is not _MISSING:
                    named["default"] = f.default
                elif f.factory is not None:
                    named["default_factory"] = f.factory
                made.append((f.name, f.type, dataclasses.field(**named)))
            known = dataclasses.make_dataclass("Known", made, init=False, repr=False, eq=False)
            self._made = getattr(known, "__dataclass_fields__")  # noqa: B009 - which is not of every type
        return self._made


def _made(cls: type, frozen: bool, slots: bool, eq: bool) -> type:
    every = {f.name: f for base in reversed(cls.__mro__[1:]) for f in base.__dict__.get("__record_fields__", ())}
    for name, kind in cls.__annotations__.items():
        given = cls.__dict__.get(name, _MISSING)
        if type(given).__module__ == "dataclasses":
            raise TypeError(f"{cls.__qualname__}.{name}: fields here are made by emu.record.field")
        f = given if isinstance(given, Field) else Field(given, None)
        f.name, f.type = name, kind
        every[name] = f
        if f is given and f.default is not _MISSING:
            setattr(cls, name, f.default)
        elif f is given:
            delattr(cls, name)
    own = tuple(every.values())
    made = _with_slots(cls, own) if slots else cls
    for name, value in (
        ("__record_fields__", own),
        ("__dataclass_fields__", _StandardFields(own)),
        ("__match_args__", tuple(f.name for f in own if f.init)),
    ):
        setattr(made, name, value)
    methods: dict[str, Any] = {
        "__init__": _initialiser(made, own, frozen),
        "__repr__": _shower([f.name for f in own if f.repr]),
    }
    written = made.__dict__
    compared = tuple(f.name for f in own if f.compare)
    if eq:
        methods["__eq__"] = _comparer(compared)
    if frozen:
        methods.update(_FROZEN)
        if eq:
            methods["__hash__"] = _hasher(compared)
        if slots:
            methods["__getstate__"], methods["__setstate__"] = _pickled(tuple(f.name for f in own))
    elif eq and "__eq__" not in written:
        methods["__hash__"] = None
    for name, method in methods.items():
        # A class with __eq__ and no __hash__ has been given None for it by Python.
        if name not in written or (name == "__hash__" and written[name] is None):
            setattr(made, name, method)
    return made


def _with_slots(cls: type, own: tuple[Field, ...]) -> type:
    """The class anew, with its fields in slots but for those that a base has there."""
    inherited = {name for base in cls.__mro__[1:] for name in base.__dict__.get("__slots__", ())}
    names = tuple(f.name for f in own)
    kept = {
        name: value
        for name, value in cls.__dict__.items()
        if name not in names and name not in ("__dict__", "__weakref__")
    }
    kept["__slots__"] = tuple(name for name in names if name not in inherited)
    made = type(cls)(cls.__name__, cls.__bases__, kept)
    made.__qualname__ = cls.__qualname__
    return made


def _initialiser(cls: type, own: tuple[Field, ...], frozen: bool) -> Any:
    """__init__, which puts the compiled one in its place when it has been called a few times: to compile takes as long
    as a hundred objects, and of most classes a program makes one or two."""
    names = tuple(f.name for f in own if f.init)
    wanted = {f.name for f in own if f.init and f.default is _MISSING and f.factory is None}
    after = hasattr(cls, "__post_init__")
    store = object.__setattr__ if frozen else setattr
    left = [UNCOMPILED]

    def compiled(self: Any, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        cls.__init__ = made = _compiled_initialiser(cls, own, frozen)  # type: ignore[misc]
        made(self, *values, **named)

    def __init__(self: Any, /, *values: Any, **named: Any) -> None:
        left[0] -= 1
        given = dict(zip(names, values, strict=False), **named)
        fits = len(given) == len(values) + len(named) and wanted <= given.keys() and given.keys() <= set(names)
        if left[0] < 0 or not fits:
            compiled(self, values, named)  # which says what is wrong with the arguments, if that is it
            return
        for f in own:
            if f.name in given:
                store(self, f.name, given[f.name])
            elif f.factory is not None:
                store(self, f.name, f.factory())
            elif f.default is not _MISSING:
                store(self, f.name, f.default)
        if after:
            self.__post_init__()

    return __init__


def _compiled_initialiser(cls: type, own: tuple[Field, ...], frozen: bool) -> Any:
    names: dict[str, Any] = {"_missing": _MISSING, "_set": object.__setattr__}
    parameters, body = ["self"], []
    for f in own:
        value = f.name
        if f.default is not _MISSING:
            names[f"_default_{f.name}"] = f.default
            default = f"=_default_{f.name}"
        elif f.factory is not None:
            names[f"_make_{f.name}"] = f.factory
            default = "=_missing"
            value = f"_make_{f.name}() if {f.name} is _missing else {f.name}" if f.init else f"_make_{f.name}()"
        else:
            default = ""
        if f.init:
            parameters.append(f.name + default)
        elif not default:
            continue
        elif f.default is not _MISSING:
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
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete_frozen(self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


_FROZEN = {"__setattr__": _set_frozen, "__delattr__": _delete_frozen}


def _pickled(names: tuple[str, ...]) -> tuple[Any, Any]:
    """__getstate__ and __setstate__ of a frozen class with slots, which nothing else could fill."""

    def __getstate__(self: Any) -> list[Any]:
        return [getattr(self, name) for name in names]

    def __setstate__(self: Any, state: list[Any]) -> None:
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    return __getstate__, __setstate__
