"""`NamedTuple`, `Enum` and `IntFlag` without their cost at start-up.

The standard tuple compiles `__new__` from source and makes each class twice, 0.4 ms each; here `__new__` is compiled
when many are made. A standard enumeration takes 0.3 ms, and its members' values are looked up by functions of Python.
For a type checker these and the standard ones are the same.
"""

from __future__ import annotations

from emu.typed import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from enum import Enum as Enum
    from enum import IntFlag as IntFlag
    from typing import NamedTuple as NamedTuple
else:
    # CPython's own accessor of an item, of half a property's time; `collections` has it from there too.
    from _collections import _tuplegetter

    #: Tuples that are made of a class before its `__new__` is compiled.
    UNCOMPILED: Final = 16

    class _Named(tuple):
        """What the classes have in common."""

        __slots__ = ()

        @classmethod
        def _make(cls, values: Any) -> Any:
            return cls(*values)

        def _replace(self, /, **changes: Any) -> Any:
            made = self.__class__(*map(changes.pop, self._fields, self))
            if changes:
                raise ValueError(f"Got unexpected field names: {list(changes)!r}")
            return made

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self) -> str:
            shown = ", ".join([f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True)])
            return f"{self.__class__.__name__}({shown})"

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

    class _Maker(type):
        """Makes plain classes of tuples from bodies as `typing.NamedTuple` takes them."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
            if not bases:
                return type.__new__(cls, name, bases, body)
            names = tuple(body.get("__annotations__", ()))
            defaults = {n: body[n] for n in names if n in body}
            if tuple(defaults) != names[len(names) - len(defaults) :]:
                raise TypeError(f"{name}: a field without a default behind one that has it")
            members = {**body, "__slots__": (), "__match_args__": names, "_fields": names, "_field_defaults": defaults}
            for place, n in enumerate(names):
                members[n] = _tuplegetter(place, f"field {place}")
            made = type(name, (_Named,), members)
            made.__new__ = _first_new(made, names, defaults)
            return made

    def _first_new(made: type, names: tuple[str, ...], defaults: dict[str, Any]) -> Any:
        """__new__ of a class's first tuples."""
        left = [UNCOMPILED]

        def __new__(cls: type, /, *values: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] >= 0 and len(values) == len(names) and not named:
                return tuple.__new__(cls, values)
            if left[0] >= 0:
                given = {**defaults, **dict(zip(names, values, strict=False)), **named}
                if len(given) == len(names) >= len(values) and not named.keys() & set(names[: len(values)]):
                    return tuple.__new__(cls, [given[name] for name in names if name in given])
            made.__new__ = compiled = _compiled_new(made, names, defaults)
            return compiled(cls, *values, **named)  # which says what is wrong with them, if that is it

        return __new__

    def _compiled_new(made: type, names: tuple[str, ...], defaults: dict[str, Any]) -> Any:
        known = {"_new": tuple.__new__, **{f"_default_{name}": value for name, value in defaults.items()}}
        parameters = ", ".join([f"{n}=_default_{n}" if n in defaults else n for n in names])
        values = "".join([f"{name}, " for name in names])
        exec(f"def __new__(_cls, {parameters}):\n return _new(_cls, ({values}))", known)
        new = known["__new__"]
        new.__qualname__, new.__module__ = f"{made.__qualname__}.__new__", made.__module__
        return new

    class NamedTuple(metaclass=_Maker):
        """`typing.NamedTuple`."""

    class _Enumeration(type):
        """Makes classes whose public names, but for functions and the like, are the members."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
            values = {n: v for n, v in body.items() if bases and not n.startswith("_") and not hasattr(v, "__get__")}
            made = super().__new__(cls, name, bases, {n: v for n, v in body.items() if n not in values})
            made.__members__, made._by_value = {}, {}
            for n, value in values.items():
                if value in made._by_value:
                    raise ValueError(f"{name}.{n} has the value of another member: give it one of its own")
                member = object.__new__(made)
                member.name, member.value = n, value
                made.__members__[n] = made._by_value[value] = member
                setattr(made, n, member)
            return made

        def __call__(cls, value: Any) -> Any:
            try:
                return cls._by_value[value]
            except KeyError:
                raise ValueError(f"{value!r} is not a valid {cls.__qualname__}") from None

        def __getitem__(cls, name: str) -> Any:
            return cls.__members__[name]

        def __iter__(cls) -> Any:
            return iter(cls.__members__.values())

        def __len__(cls) -> int:
            return len(cls.__members__)

    class Enum(metaclass=_Enumeration):
        """`enum.Enum` of plain values, no two alike."""

        __slots__ = ("name", "value")

        def __repr__(self) -> str:
            return f"<{self.__class__.__name__}.{self.name}: {self.value!r}>"

        def __str__(self) -> str:
            return f"{self.__class__.__name__}.{self.name}"

        def __reduce_ex__(self, _protocol: object) -> tuple[type, tuple[Any]]:
            return self.__class__, (self.value,)

        def __copy__(self) -> Any:
            return self

        def __deepcopy__(self, _memo: object) -> Any:
            return self

    class _Flags(_Enumeration):
        """The same of flags: what they are combined to is made when it is asked for."""

        def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
            values = {n: v for n, v in body.items() if not n.startswith("_") and not hasattr(v, "__get__")}
            made = type.__new__(cls, name, bases, {n: v for n, v in body.items() if n not in values})
            made.__members__, made._by_value = {}, {}
            for n, value in values.items():
                made.__members__[n] = made._of(value, n)
                setattr(made, n, made.__members__[n])
            return made

        def _of(cls, value: int, name: str | None) -> Any:
            member = int.__new__(cls, value)
            member.name, member.value = name, value
            cls._by_value[value] = member
            return member

        def __call__(cls, value: int) -> Any:
            known = cls._by_value.get(value)
            if known is not None:
                return known
            within = [m for m in cls if m.value and m.value & value == m.value and not m.value & m.value - 1]
            if sum(within) != value:
                raise ValueError(f"{value!r} is not a valid {cls.__qualname__}")
            return cls._of(value, "|".join([m.name for m in within]) or None)

    class IntFlag(int, metaclass=_Flags):
        """`enum.IntFlag` of positive values; each bit of one that is combined of others has a name. It is shown as
        `enum.Flag` is, and a value with other bits is refused, as there."""

        def __iter__(self) -> Any:
            return iter([m for m in self.__class__ if m & m - 1 == 0 != m and m & self])

        def __or__(self, other: int) -> Any:
            return self.__class__(int(self) | int(other))

        def __and__(self, other: int) -> Any:
            return self.__class__(int(self) & int(other))

        __ror__, __rand__ = __or__, __and__

        def __repr__(self) -> str:
            return f"<{self}: {self.value}>"

        def __str__(self) -> str:
            return f"{self.__class__.__name__}.{self.name or self.value}"

        __reduce_ex__, __copy__, __deepcopy__ = Enum.__reduce_ex__, Enum.__copy__, Enum.__deepcopy__
