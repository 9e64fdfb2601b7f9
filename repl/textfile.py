"""Text that a person names, a file or a pipe: what is none is refused before much of it is read."""

from __future__ import annotations

from pathlib import Path

#: Bytes that are looked at for a NUL, which binary files and devices have, and the most that is read.
FIRST, MOST = 1 << 16, 64 << 20


class NotText(Exception):
    """The file holds no text, or more than anybody writes."""


def read_text(path: Path, errors: str = "strict") -> str:
    """The text of `path`, UTF-8; `errors` as for `bytes.decode`. Raises OSError, and NotText."""
    with path.open("rb") as file:
        data = file.read(FIRST)
        if b"\0" in data:
            raise NotText
        data += file.read(MOST + 1 - len(data))
    if len(data) > MOST:
        raise NotText
    try:
        return data.decode("utf-8", errors)
    except UnicodeDecodeError:
        raise NotText from None
