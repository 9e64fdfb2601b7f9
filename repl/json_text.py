"""Views as JSON: one document a command."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from emu.named import Enum, IntFlag
from emu.views import PictureView
from repl.command import Result


def plain(value: object) -> Any:
    """`value` as JSON has it: dataclasses as objects, bytes as hex, enumerations by value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {name: plain(member) for name, member in members.items() if not callable(member)}
    if isinstance(value, re.Pattern):
        return value.pattern
    if isinstance(value, IntFlag):
        return [member.name.lower() for member in value if member.name]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value


def _tagged(view: object) -> Any:
    if isinstance(view, tuple):
        return [_tagged(item) for item in view]
    if isinstance(view, PictureView):  # the pixels are what `screen --png` is for
        return {"view": "screen", "mode": view.mode, "rows": [], "width": view.width, "height": view.height}
    name = type(view).__name__.removesuffix("View").lower()
    return {"view": name, **plain(view)}


def result_json(line: str, result: Result) -> str:
    """A command's result as one JSON document in one line: command, views (each says which it is), text."""
    document: dict[str, Any] = {"command": line.strip(), "views": [_tagged(view) for view in result.views]}
    if result.text:
        document["text"] = result.text
    return json.dumps(document)


def error_json(line: str, error: str) -> str:
    """A failed command as one JSON document in one line."""
    return json.dumps({"command": line.strip(), "error": error})
