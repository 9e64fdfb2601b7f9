"""Whether a target implements a protocol of `stub.target`: asked some two hundred times as a client comes."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import TypeGuard, TypeVar, cast

P = TypeVar("P")


def offers(target: object, protocol: type[P]) -> TypeGuard[P]:
    """As `isinstance` of a protocol that can be checked at run time; that one collects the protocol's members anew each
    time, which takes as long as twenty packets."""
    return all(hasattr(target, name) for name in _members(cast(Hashable, protocol)))


@functools.cache
def _members(protocol: Hashable) -> tuple[str, ...]:
    """The public methods and variables that it and those it extends declare."""
    found: dict[str, None] = {}
    assert isinstance(protocol, type)
    for base in protocol.__mro__:
        if getattr(base, "_is_protocol", False):
            found.update(dict.fromkeys((*vars(base), *vars(base).get("__annotations__", ()))))
    return tuple(name for name in found if not name.startswith("_"))
