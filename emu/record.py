"""`dataclass` for the classes of this program: those of `dataclasses`, made without compiling and without that module.

The standard decorator compiles up to seven functions from source for each class, and its module imports `inspect` with
half of Python's own compiler: together more than the rest of what a run does before its first instruction. Here
`__init__` is compiled when many instances are made, the others are closures, and what a class's fields are is worked
out when it is asked for: most classes of a run are made and never used. For a type checker the two are one.
"""

from __future__ import annotations

from functools import cached_property
from operator import attrgetter
from types import MemberDescriptorType

from emu.typed import TYPE_CHECKING, Any, Final

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
        return thing.__record__.fields

    def replace(thing: Any, /, **changes: Any) -> Any:
        """A copy of an object in which `changes` differ. Raises TypeError for what `__init__` does not take."""
        for f in thing.__record__.fields:
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


class _Recipe:
    """A class's own fields as its body has them, and what follows from them when it is asked for."""

    def __init__(self, names: dict[str, Any], given: dict[str, Any], frozen: bool) -> None:
        self._names, self._given, self._frozen = names, given, frozen
        self.cls: Any = None  #: the class that was made
        self._left = UNCOMPILED

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Those of the bases too."""
        bases = [base.__dict__["__record__"] for base in self.cls.__mro__[1:] if "__record__" in base.__dict__]
        every = {f.name: f for recipe in reversed(bases) for f in recipe.fields}
        for name, kind in self._names.items():
            given = self._given.get(name, _MISSING)
            f = given if isinstance(given, Field) else Field(given, None)
            f.name, f.type = name, kind
            every[name] = f
        return tuple(every.values())

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple([f.name for f in self.fields])

    @cached_property
    def taken(self) -> tuple[str, ...]:
        """What __init__ takes: `__match_args__`."""
        return tuple([f.name for f in self.fields if f.init])

    @cached_property
    def _wanted(self) -> set[str]:
        return {f.name for f in self.fields if f.init and f.default is _MISSING and f.factory is None}

    @cached_property
    def shown(self) -> tuple[str, ...]:
        return tuple([f.name for f in self.fields if f.repr])

    @cached_property
    def values(self) -> Any:
        """What gives an object's values that are compared: one alone, or a tuple."""
        names = [f.name for f in self.fields if f.compare]
        return attrgetter(*names) if names else lambda _: ()

    @cached_property
    def standard(self) -> Any:
        """`__dataclass_fields__`, by which the functions of `dataclasses` know a class."""
        import dataclasses

        made = []
        for f in self.fields:
            named: dict[str, Any] = {"init": f.init, "repr": f.repr, "compare": f.compare}
            if f.default is not _MISSING:
                named["default"] = f.default
            elif f.factory is not None:
                named["default_factory"] = f.factory
            made.append((f.name, f.type, dataclasses.field(**named)))
        known = dataclasses.make_dataclass("Known", made, init=False, repr=False, eq=False)
        return getattr(known, "__dataclass_fields__")  # noqa: B009 - which is not of every type

    def fill(self, thing: Any, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Be __init__, and put a compiled one in its place when that was asked a few times: to compile takes as long as
        a hundred objects, and of most classes a program makes one or two."""
        self._left -= 1
        names = self.taken
        given = dict(zip(names, values, strict=False), **named)
        fits = len(given) == len(values) + len(named) and self._wanted <= given.keys() and given.keys() <= set(names)
        if self._left < 0 or not fits:
            self.cls.__init__ = made = _compiled_initialiser(self.cls, self.fields, self._frozen)
            made(thing, *values, **named)  # which says what is wrong with the arguments, if that is it
            return
        store = object.__setattr__ if self._frozen else setattr
        for f in self.fields:
            if f.name in given:
                store(thing, f.name, given[f.name])
            elif f.factory is not None:
                store(thing, f.name, f.factory())
            elif f.default is not _MISSING:
                store(thing, f.name, f.default)
        if hasattr(thing, "__post_init__"):
            thing.__post_init__()


class _Asked:
    """An attribute of a class that its recipe has."""

    def __init__(self, recipe: _Recipe, name: str) -> None:
        self._recipe, self._name = recipe, name

    def __get__(self, _thing: object, _cls: type) -> Any:
        return getattr(self._recipe, self._name)


def _made(cls: type, frozen: bool, slots: bool, eq: bool) -> type:
    body, names = cls.__dict__, cls.__annotations__
    given = {name: body[name] for name in names if name in body}
    for name, value in given.items():
        if type(value).__module__ == "dataclasses":
            raise TypeError(f"{cls.__qualname__}.{name}: fields here are made by emu.record.field")
    recipe = _Recipe(names, given, frozen)
    methods = _methods(recipe)
    if not eq:  # objects are equal where they are the same one
        del methods["__eq__"], methods["__hash__"]
    if frozen:
        methods.update(_FROZEN)
        if slots:
            methods["__getstate__"], methods["__setstate__"] = _pickled(recipe)
    elif eq and "__eq__" not in body:
        methods["__hash__"] = None
    elif eq:
        del methods["__hash__"]
    # A class with __eq__ and no __hash__ has been given None for it by Python.
    written = {
        name: value
        for name, value in body.items()
        if not (name == "__hash__" and value is None and name in methods) and name not in ("__dict__", "__weakref__")
    }
    if slots:
        recipe.cls = made = _with_slots(cls, names, methods, written)
        return made
    recipe.cls = cls
    for name, value in given.items():
        if isinstance(value, Field):
            if value.default is not _MISSING:
                setattr(cls, name, value.default)
            else:
                delattr(cls, name)
    for name, method in methods.items():
        if name not in written:
            setattr(cls, name, method)
    return cls


def _with_slots(cls: type, names: dict[str, Any], methods: dict[str, Any], written: dict[str, Any]) -> type:
    """The class anew, with its fields in slots but for those that a base has there."""
    members = methods | written
    for name in names:
        members.pop(name, None)
    inherited = {name for base in cls.__mro__[1:-1] for name in base.__dict__.get("__slots__", ())}
    members["__slots__"] = tuple([name for name in names if name not in inherited])
    members["__qualname__"] = cls.__qualname__
    return type(cls)(cls.__name__, cls.__bases__, members)


def _methods(recipe: _Recipe) -> dict[str, Any]:
    def __init__(self: Any, /, *values: Any, **named: Any) -> None:
        recipe.fill(self, values, named)

    def __repr__(self: Any) -> str:
        shown = ", ".join([f"{name}={getattr(self, name)!r}" for name in recipe.shown])
        return f"{self.__class__.__qualname__}({shown})"

    def __eq__(self: Any, other: object) -> Any:
        if other.__class__ is self.__class__:
            values = recipe.values
            return values(self) == values(other)
        return NotImplemented

    def __hash__(self: Any) -> int:
        return hash(recipe.values(self))

    return {
        "__record__": recipe,
        "__dataclass_fields__": _Asked(recipe, "standard"),
        "__match_args__": _Asked(recipe, "taken"),
        "__init__": __init__,
        "__repr__": __repr__,
        "__eq__": __eq__,
        "__hash__": __hash__,
    }


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


def _set_frozen(self: Any, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete_frozen(self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


_FROZEN = {"__setattr__": _set_frozen, "__delattr__": _delete_frozen}


def _pickled(recipe: _Recipe) -> tuple[Any, Any]:
    """__getstate__ and __setstate__ of a frozen class with slots, which nothing else could fill."""

    def __getstate__(self: Any) -> list[Any]:
        return [getattr(self, name) for name in recipe.names]

    def __setstate__(self: Any, state: list[Any]) -> None:
        for name, value in zip(recipe.names, state, strict=True):
            object.__setattr__(self, name, value)

    return __getstate__, __setstate__
