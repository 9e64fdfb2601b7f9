"""Bad files of Xen by number, and what is done with each: whatever a file holds, it is looked at, or refused in place.

A case is a file of a real Xen, one that xl wrote round it, or a stream of v2e's own, that was cut off, changed in bits,
numbers or records, or made longer. The same number is the same case everywhere.
`python tests/xen_fuzzing.py FIRST COUNT` runs some.
"""

from __future__ import annotations

import random
import resource
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from emu.inspector import DebuggerError
from emu.onlooker import Onlooker
from emu.subject import MemoryUnavailable
from xen_own import own_streams, with_pages
from xen_samples import sample
from xenbridge.wire import hvm, stream, xl
from xenbridge.wire.errors import WireError
from xenbridge.xen.files import parse_file

#: What a person does first with a file.
LOOKS = ("registers", "segments", "control", "gdt", "ivt", "devices", "disassemble", "msrs")
#: Numbers that lengths, counts and offsets are wrong by.
NUMBERS = (0, 1, 7, 8, 0x7F, 0xFF, 0x100, 0xFFF, 0x1000, 0x7FFF, 0xFFFF, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
           1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
#: MiB that all cases of a process together may add to what it has at most: a case costs no more than its file.
MEMORY = 64


class Finding(Exception):
    """What must not be."""


@cache
def seeds() -> tuple[bytes, ...]:
    """Whole files. The stream is there once with all its pages, and more often with one, so that what is changed is
    more often what is parsed."""
    context, core, whole = (sample(name) for name in ("s_hvmctx.bin", "s_dump.core", "s_stream.bin"))
    small = with_pages(whole, {next(iter(stream.parse_stream(whole).pages))})
    wrapped = xl.build_xl(b'{"c_info":{}}', small, ((2, bytes(8) + b"device"),))
    return context, core, whole, small, small, small, wrapped, *own_streams()


def in_records(records: Iterable[hvm.Record]) -> Iterator[int]:
    """The heads of the records of a context, and where their fields are."""
    for record in records:
        yield from range(record.offset - 8, record.offset, 2)
        for field in record.layout.fields() if record.layout is not None else ():
            first = record.offset + field.offset
            yield from range(first, first + min(field.size, 64), 4)


@cache
def places(seed: int) -> tuple[int, ...]:
    """Offsets in a seed at which something is parsed: headers of records, their lengths and counts."""
    data = seeds()[seed]
    found = list(range(0, min(len(data), 128), 4))
    if data[:2] == b"\1\0":
        found += in_records(hvm.parse_context(data))
    elif data[:4] == b"\x7fELF":
        headers = int.from_bytes(data[40:48], "little")
        found += [*range(0, 64, 2), *range(headers, len(data), 4)]
    else:
        parsed = xl.parse_xl(data).stream if xl.is_xl(data) else stream.parse_stream(data)
        for record in parsed.records:
            found += range(record.offset - 8, min(record.offset + 24, len(data)), 4)
        context = parsed.find(stream.HVM_CONTEXT)
        assert context is not None
        found += in_records(hvm.parse_context(data, context.offset, context.offset + context.length))
    return tuple(at for at in found if at < len(data))


def case(number: int) -> bytes:
    """The file of that number."""
    dice = random.Random(number)
    seed = dice.randrange(len(seeds()))
    data, at = bytearray(seeds()[seed]), places(seed)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 12))):
        kind = dice.randrange(7)
        where = dice.choice(at) if dice.randrange(4) else dice.randrange(len(data) or 1)
        if kind == 0:
            del data[where:]
        elif kind <= 2 and where < len(data):
            data[where] ^= 1 << dice.randrange(8)
        elif kind == 3:
            size = dice.choice((1, 2, 4, 8))
            wrong = (dice.choice(NUMBERS) + dice.randrange(-2, 3)) % (1 << 8 * size)
            data[where : where + size] = wrong.to_bytes(size, dice.choice(("little", "big")))
        elif kind == 4:  # something of the file once more, at another place
            part = data[(begin := dice.choice(at)) : begin + dice.choice((4, 8, 40, 400))]
            data[where:where] = part
        elif kind == 5:
            del data[where : where + dice.choice((1, 4, 8, 40, 1032))]
        else:
            data += dice.randbytes(dice.choice((1, 8, 600)))
    return bytes(data)


def look(data: bytes, looks: Sequence[str] = LOOKS) -> str:
    """Read it as `v2e inspect` does, and look at it; "read" or "refused". Raises Finding, or whatever must not be."""
    try:
        file = parse_file(data)
        debugger = Onlooker(file, file.about)
        file.memory_map()
    except WireError as error:
        if not 0 <= error.offset <= len(data):
            raise Finding(f"the offset is none of the file's {len(data)} bytes: {error}") from error
        if "\n" in str(error) or len(str(error)) > 400:
            raise Finding(f"no sentence: {error}") from error
        return "refused"
    for name in looks:
        try:
            getattr(debugger, name)()
        except (DebuggerError, MemoryUnavailable, WireError):
            continue
    return "read"


def peak() -> int:
    """What the process has had of memory at most, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def run(first: int, count: int) -> Counter[str]:
    """How many cases were read and how many refused. Each is looked at in one way: tables of 64 KiB take most of
    the time. Raises Finding with the case's number."""
    for seed in seeds():
        look(seed)
    before, outcomes = peak(), Counter[str]()
    for number in range(first, first + count):
        try:
            outcomes[look(case(number), (LOOKS[number % len(LOOKS)],))] += 1
        except Exception as error:
            raise Finding(f"case {number}: {type(error).__name__}: {error}") from error
        if (grown := peak() - before) > MEMORY:
            raise Finding(f"case {number}: the process has grown by {grown} MiB")
    return outcomes


if __name__ == "__main__":
    print(dict(run(int(sys.argv[1]), int(sys.argv[2]))))
