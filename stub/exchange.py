"""Packets that come and are answered without anybody being asked: the loop in Python (stub/known.py has it in C)."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from typing import NamedTuple, Protocol

_LENGTHS = struct.Struct("=2I")


class Known(NamedTuple):
    """What is said to a packet: `payload` is that of the answer, `framed` all of it, `entry` its line in C's table."""

    payload: bytes
    framed: bytes
    entry: bytes


def known(packet: bytes, payload: bytes, framed: bytes) -> Known:
    """For `packet`, as it comes."""
    return Known(payload, framed, _LENGTHS.pack(len(packet), len(framed)) + packet + framed)


class Exchanged(NamedTuple):
    """What came of it: the packets that were `answered`, in their order; `data` that came and is not known; bytes of
    the last answer for which there was no room, `unsent`; `ended`: the client is gone."""

    answered: list[bytes]
    data: bytes = b""
    unsent: bytes = b""
    ended: bool = False


class Stream(Protocol):
    """What it is done with: see `stub.links.Link`."""

    def linger(self) -> bytes: ...

    def send(self, data: bytes) -> int: ...


def exchange(stream: Stream, answers: Mapping[bytes, Known], until: float) -> Exchanged:
    """Wait for packets (as `linger` does) and answer those that are in `answers`, until none comes, another one does,
    or the time is `until` (`time.monotonic`, s)."""
    answered: list[bytes] = []
    while True:
        try:
            data = stream.linger()
        except BlockingIOError:
            return Exchanged(answered)
        except OSError:
            return Exchanged(answered, ended=True)
        answer = answers.get(data)
        if answer is None:
            return Exchanged(answered, data, ended=not data)
        answered.append(data)
        try:
            sent = stream.send(answer.framed)
        except BlockingIOError:
            sent = 0
        except OSError:
            return Exchanged(answered, ended=True)
        if sent != len(answer.framed):
            return Exchanged(answered, unsent=answer.framed[sent:])
        if time.monotonic() >= until:
            return Exchanged(answered)
