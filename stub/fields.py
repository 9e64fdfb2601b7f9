"""The fields of packets: numbers, pairs, bytes, threads, agent expressions. Each raises MessageError for what is none.

All numbers are hexadecimal without prefix.
"""

from __future__ import annotations

import re

from stub.messages import PROCESS, MessageError

_NUMBER = re.compile(rb"[0-9a-fA-F]{1,16}")
_SPAN = re.compile(rb"([0-9a-fA-F]{1,16}),([0-9a-fA-F]{1,16})")
#: "Packets", thread-id: a hex number, -1 for all, 0 for any; in the multiprocess feature `pPROCESS.THREAD`, or
#: `pPROCESS` for all of its threads.
_THREAD = re.compile(rb"(?:p(-1|[0-9a-fA-F]{1,16})(?:\.|$))?(-1|[0-9a-fA-F]{1,16})?")


def number(text: bytes, what: str) -> int:
    """`what` names it in the error."""
    if not _NUMBER.fullmatch(text):
        raise MessageError(f"the {what} is not a hexadecimal number of at most 16 digits")
    return int(text, 16)


def thread_id(text: bytes) -> int:
    """0 is any thread, -1 all."""
    match = _THREAD.fullmatch(text)
    if match is None or not text or text.endswith(b"."):
        raise MessageError("the thread is not a hexadecimal number or -1")
    process, thread = match.groups()
    if process is not None and int(process, 16) not in (-1, 0, PROCESS):
        raise MessageError(f"there is no process {int(process, 16)}: the machine is process {PROCESS}")
    return -1 if thread is None else int(thread, 16)


def pair(text: bytes, first: str, second: str) -> tuple[int, int]:
    """Two numbers with a comma between them."""
    left, comma, right = text.partition(b",")
    if not comma:
        raise MessageError(f"there is no comma between {first} and {second}")
    return number(left, first), number(right, second)


def span(text: bytes) -> tuple[int, int]:
    """The `addr,length` of packets that come by the thousand."""
    match = _SPAN.fullmatch(text)
    if match is None:
        return pair(text, "address", "length")  # which says what is wrong
    return int(match[1], 16), int(match[2], 16)


def hexadecimal(text: bytes, what: str) -> bytes:
    """Bytes, of two digits each."""
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        raise MessageError(f"the {what} is not in hexadecimal digits, two for each byte") from None


def expressions(text: bytes) -> tuple[bytes, ...]:
    """`XLENGTH,HEX` one behind another, LENGTH in bytes."""
    found = []
    while text:
        head, comma, rest = text.partition(b",")
        if head[:1] != b"X" or not comma:
            raise MessageError("an agent expression is X, its length, a comma and its bytes")
        length = number(head[1:], "length of an agent expression")
        if 2 * length > len(rest):
            raise MessageError("an agent expression is shorter than its length says")
        found.append(hexadecimal(rest[: 2 * length], "agent expression"))
        text = rest[2 * length :]
    return tuple(found)
