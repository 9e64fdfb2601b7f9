"""Text in XML documents: what the standard library has for it brings its URL client, its e-mail and OpenSSL along."""

from __future__ import annotations

#: XML 1.0, 2.4, and 3.3.3 for what else an attribute's value would not keep.
_TEXT = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;"}
_VALUE = {**_TEXT, ord('"'): "&quot;", ord("\n"): "&#10;", ord("\r"): "&#13;", ord("\t"): "&#9;"}


def content(words: str) -> str:
    """`words` as the content of an element."""
    return words.translate(_TEXT)


def attribute(words: str) -> str:
    """`words` as the value of an attribute, in its quotes."""
    return f'"{words.translate(_VALUE)}"'
