"""What is done with bad streams of Xen's beyond looking at them: each that is one is loaded into a machine, which runs,
as by `v2e run --load-xen`. The machines are used again and again.

Every other case is one of xen_fuzzing's; between them are streams of which only fields of the domain's context are
changed, so that they are read, and get as far as the machine. `python tests/xen_loading.py FIRST COUNT` loads some.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from functools import cache
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from emu.machine import Machine, MachineStop
from xen_fuzzing import NUMBERS, Finding, case, seeds
from xen_own import KINDS, machine_of
from xenbridge import convert
from xenbridge.convert_checks import ConvertError
from xenbridge.wire import hvm, stream
from xenbridge.wire.errors import WireError
from xenbridge.xen.files import parse_file

INSTRUCTIONS = 500  #: that a loaded machine executes
PATIENCE = 10.0  #: seconds of the process's time for a case: a thousand times what most take
MOST = 400  #: characters of a sentence


@cache
def fields() -> tuple[tuple[bytes, tuple[tuple[int, int], ...]], ...]:
    """Streams, and where the fields of their context are: offset and bytes, those of each record together as often as
    those of another, however large it is."""
    found = []
    for data in (seeds()[3], *seeds()[-2:]):
        context = stream.parse_stream(data).find(stream.HVM_CONTEXT)
        assert context is not None
        records = hvm.parse_context(data, context.offset, context.offset + context.length)
        of_records = [
            [(record.offset + field.offset, field.size) for field in record.layout.fields()]
            for record in records
            if record.layout is not None
        ]
        most = max(len(places) for places in of_records)
        found.append((data, tuple(place for places in of_records for place in places * (most // len(places)))))
    return tuple(found)


def bent(number: int) -> bytes:
    """A stream whose context says anything."""
    dice = random.Random(number)
    seed, places = dice.choice(fields())
    data = bytearray(seed)
    for _ in range(dice.choice((1, 1, 2, 3, 8))):
        at, size = dice.choice(places)
        size = min(size, dice.choice((1, 2, 4, 8)))
        at += dice.randrange(size)
        kind = dice.randrange(3)
        if kind == 0:
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            data[at] = dice.randrange(256)
        else:
            data[at : at + size] = (dice.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(data)


class Loader:
    """A machine of each kind, as it was when it was new behind each case."""

    def __init__(self) -> None:
        self.machines = {kind: machine_of(kind) for kind in KINDS}
        for machine in self.machines.values():
            machine.idle = lambda ns: False  # one that halts until an interrupt may do so for ever
        self._fresh = {kind: machine.save() for kind, machine in self.machines.items()}

    def load(self, data: bytes, kind: str) -> str:
        """`no stream`, `refused` or how a run ended. Raises Finding, or whatever must not be."""
        try:
            file = parse_file(data)
        except WireError:
            return "no stream"
        machine, fresh = self.machines[kind], self._fresh[kind]
        begun = time.process_time()
        try:
            notices = convert.load(machine, file)
        except (ConvertError, WireError) as error:
            sentence(str(error))
            if machine.save() != fresh:
                raise Finding("the machine is not as it was behind a refusal") from error
            return "refused"
        try:
            for text in notices:
                sentence(text)
            return run(machine)
        finally:
            machine.restore(fresh)
            if (took := time.process_time() - begun) > PATIENCE:
                raise Finding(f"{took:.1f} s for one case")

    def close(self) -> None:
        for machine in self.machines.values():
            machine.close()


def run(machine: Machine) -> str:
    """Execute some instructions, and look at the devices. A guest that goes where nothing is ends with a sentence."""
    end = machine.run(machine.executor.retired + INSTRUCTIONS)
    sentence(end.detail)
    if end.reason is MachineStop.FAILURE and not end.detail:
        raise Finding("the run ended without a word")
    machine.devices()
    return end.reason.name


def sentence(text: str) -> None:
    """Raises Finding for what is not one line of a bearable length."""
    if "\n" in text or len(text) > MOST:
        raise Finding(f"no sentence: {text}")


def load_cases(first: int, count: int) -> Counter[str]:
    """How many cases came to what, in machines of each kind. Raises Finding with the case's number."""
    loader, outcomes = Loader(), Counter[str]()
    try:
        for number in range(first, first + count):
            try:
                data = (case, bent)[number % 2](number)
                outcomes[loader.load(data, KINDS[number // 2 % len(KINDS)])] += 1
            except Exception as error:
                raise Finding(f"case {number}: {type(error).__name__}: {error}") from error
    finally:
        loader.close()
    return outcomes


if __name__ == "__main__":
    print(dict(load_cases(int(sys.argv[1]), int(sys.argv[2]))))
