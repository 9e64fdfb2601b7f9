"""Packets that come and are answered without anybody being asked: the loop in Python (stub/known.py has it in C)."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from emu.quiet import Quiet

_ENTRY = struct.Struct("=3I")
#: Watchpoints that one talk has.
MOST_TOGGLES = 32


class Known(NamedTuple):
    """What is said to a packet: `payload` is that of the answer, `framed` all of it, `entry` its line in C's table.
    `stays`: see `known`."""

    payload: bytes
    framed: bytes
    stays: bool
    entry: bytes


def known(packet: bytes, payload: bytes, framed: bytes, *, stays: bool = False) -> Known:
    """For `packet`, as it comes. `stays`: it is the same behind a step that leaves the CPU's mode."""
    return Known(payload, framed, stays, _ENTRY.pack(len(packet), len(framed), stays) + packet + framed)


class Piece(NamedTuple):
    """A value in a stop reply, in hex from the reply's byte `at` on: the `bytes` bytes from the byte `start` on of what
    `CpuState.brief` has, as little-endian 64-bit words."""

    at: int
    start: int
    bytes: int


class Watched(NamedTuple):
    """A watchpoint that a run may end by: `length` bytes from linear `address` on, `accesses` (1: reads, 2: writes, 3:
    both). A stop reply begins by `head`, then the address in hex, `;` and what stands behind `T05` in that to a
    step."""

    address: int
    length: int
    accesses: int
    head: bytes


class Talk(NamedTuple):
    """What C may do for a client besides, by `quiet` (`emu.quiet.Quiet`, which is good for one exchange): steps, runs,
    looks and stores. `step` is the packet that is a step, b"" where there is none, as it comes; `reply` its answer,
    framed, with any values; `go` is likewise one that runs until one of `watches` is met. `looks`: packets that read
    and write memory are answered, too. `toggles`: of each watchpoint the packets that take it out and put it in again,
    which are answered until the first that is not known. `same`: the packet that asks whether memory is still `spans`,
    (linear, bytes there) of each, as it comes; b"" where there is none. It is not answered where that is not so."""

    quiet: Quiet
    step: bytes
    reply: bytes
    pieces: tuple[Piece, ...]
    looks: bool
    toggles: tuple[tuple[bytes, bytes], ...] = ()
    go: bytes = b""
    watches: tuple[Watched, ...] = ()
    same: bytes = b""
    spans: tuple[tuple[int, bytes], ...] = ()


class Exchanged(NamedTuple):
    """What came of it: the packets that were `answered`, in their order, and the payloads of the answers; `data` that
    came and is not known; bytes of the last answer for which there was no room, `unsent`; `ended`: the client is gone.
    `stepped` of them were steps, `met` runs, `written` stores; with `begun` the packet in `data` is a step or run that
    has begun. `out`: those of `Talk.toggles` that are out now, as far as the client knows."""

    answered: list[tuple[bytes, bytes]]
    data: bytes = b""
    unsent: bytes = b""
    ended: bool = False
    stepped: int = 0
    begun: bool = False
    out: tuple[int, ...] = ()
    met: int = 0
    written: int = 0


class Stream(Protocol):
    """What it is done with: see `stub.links.Link`."""

    def linger(self) -> bytes: ...

    def send(self, data: bytes) -> int: ...


def exchange(stream: Stream, answers: Mapping[bytes, Known], until: float) -> Exchanged:
    """Wait for packets (as `linger` does) and answer those that are in `answers`, until none comes, another one does,
    or the time is `until` (`time.monotonic`, s)."""
    answered: list[tuple[bytes, bytes]] = []
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
        answered.append((data, answer.payload))
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
