"""The names of `typing` that modules of a run use, without that module: it brings `re` and `enum` along, and the three
take 11 ms of a start, in which nobody looks at a type.

Type checkers have the real ones. When the program runs, annotations are text, so what is left of a name is that it can
be subscripted, derived from or called. A module that looks at types when it runs takes them from `typing`.
"""

from __future__ import annotations

from abc import ABCMeta

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any as Any
    from typing import ClassVar as ClassVar
    from typing import Final as Final
    from typing import Generic as Generic
    from typing import Literal as Literal
    from typing import NoReturn as NoReturn
    from typing import Protocol as Protocol
    from typing import TypeVar as TypeVar
    from typing import cast as cast
    from typing import runtime_checkable as runtime_checkable
else:

    class _Form:
        """A class, so that `X | None` is one of the built-in unions; `X[...]` is X."""

        __slots__ = ()

        def __class_getitem__(cls, _parameters):
            return cls

    class Any(_Form):
        """See typing."""

        __slots__ = ()

    class Protocol(_Form):
        """See typing. There is no class of it that `isinstance` could look through."""

        __slots__ = ()

    class TypeVar(_Form):
        """See typing."""

        __slots__ = ()

        def __init__(self, *_constraints, **_bounds):
            pass

    ClassVar = Final = Generic = Literal = NoReturn = _Form

    def cast(_type, value):
        """See typing."""
        return value

    class _Checked(ABCMeta):
        """`isinstance` asks for the members of the protocol itself, and for the class of what is derived from it."""

        def __instancecheck__(cls, thing):
            if "_is_checked" not in cls.__dict__:
                return super().__instancecheck__(thing)
            names = [name for base in cls.__mro__[:-1] for name in base.__dict__ if not name.startswith("_")]
            return all(hasattr(thing, name) for name in names)

    def runtime_checkable(protocol):
        """See typing."""
        body = {n: v for n, v in protocol.__dict__.items() if n not in ("__dict__", "__weakref__")}
        return _Checked(protocol.__name__, protocol.__bases__, {**body, "_is_checked": True})
