"""Streams that v2e writes itself, of a guest in the middle of its work: seeds for bad ones (tests/xen_fuzzing.py)."""

from __future__ import annotations

from functools import cache

from asm import assemble
from emu.firmware.roms import builtin_bios
from emu.machine import Machine, MachineConfig, build_machine
from emu.x86.state import Segment
from xenbridge import convert
from xenbridge.wire import stream

KINDS = ("pc", "isapc")
CODE = 0x7C00
#: A guest with interrupts, a timer and the FPU in use.
BUSY = """
    mov word [8 * 4], tick
    mov word [8 * 4 + 2], 0
    mov al, 0x11
    out 0x20, al
    mov al, 8
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    mov al, 0x34
    out 0x43, al
    mov al, 0x20
    out 0x40, al
    xor al, al
    out 0x40, al
    fninit
    fldpi
again:
    sti
    hlt
    jmp again
tick:
    push ax
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
"""


def machine_of(kind: str) -> Machine:
    """A small one, for streams to be loaded into."""
    return build_machine(MachineConfig(machine=kind, memory=1 << 20, firmware=builtin_bios(), bios=True))


@cache
def own_streams() -> tuple[bytes, ...]:
    """One of each kind of machine, with the page of its code alone."""
    found = []
    for kind in KINDS:
        machine = machine_of(kind)
        machine.memory.write(CODE, assemble(f"bits 16\n{BUSY}", CODE))
        state = machine.cpu_state()
        state.cs, state.rip = Segment(0, 0, 0xFFFF, 0x9B), CODE
        machine.load_cpu(state)
        machine.run(100_000)
        pieces: list[bytes] = []
        convert.save_stream(machine, pieces.append)
        machine.close()
        found.append(with_pages(b"".join(pieces), {CODE // 4096}))
    return tuple(found)


def with_pages(data: bytes, frames: set[int]) -> bytes:
    """The stream with these of its pages alone."""
    parsed = stream.parse_stream(data)
    out = stream.build_headers(4, 17) + stream.build_record(stream.STATIC_DATA_END)
    out += b"".join(
        stream.build_pages([(frame, data[at : at + 4096]) for frame, at in parsed.pages.items() if frame in frames])
    )
    for record in parsed.records:
        if record.type not in (stream.STATIC_DATA_END, stream.PAGE_DATA):
            out += stream.build_record(record.type, record.body(data))
    return out
