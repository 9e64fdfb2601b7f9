"""Contexts, streams and cores of CPUs in any state, built for the tests by xenbridge.wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from emu.x86.state import CpuState, Segment
from xen_samples import sample
from xenbridge.convert_cpu import cpu_values
from xenbridge.wire import core, hvm, stream


def context(state: CpuState, tsc: int = 0) -> bytes:
    """The sample's devices with the CPU in `state`."""
    records = [
        hvm.build_record("CPU", cpu_values(state, tsc)) if record.name == "CPU" else record
        for record in hvm.parse_context(sample("s_hvmctx.bin"))
    ]
    return hvm.build_context(records)


def save_stream(state: CpuState, pages: Mapping[int, bytes], params: Mapping[int, int] | None = None) -> bytes:
    """A stream with that context and `pages` by frame number."""
    out = stream.build_headers(4, 17) + stream.build_record(stream.STATIC_DATA_END)
    out += b"".join(stream.build_pages((frame, page.ljust(4096, b"\0")) for frame, page in pages.items()))
    if params:
        out += stream.build_record(stream.HVM_PARAMS, stream.build_params(dict(params)))
    return out + stream.build_record(stream.HVM_CONTEXT, context(state)) + stream.build_record(stream.END)


def several(*states: tuple[int, CpuState]) -> bytes:
    """A context of the sample's devices with these (number, CPU) instead of its one."""
    records = [record for record in hvm.parse_context(sample("s_hvmctx.bin")) if record.name != "CPU"]
    cpus = [hvm.build_record("CPU", cpu_values(state, 0), number) for number, state in states]
    return hvm.build_context([records[0], *cpus, *records[1:]])


def real_mode(rip: int) -> CpuState:
    """At 0:RIP."""
    state = CpuState(rip=rip)
    state.cs = Segment(0, 0, 0xFFFF, 0x9B)
    return state


def dump_core(**changes: Any) -> bytes:
    """The sample's core with other values in its vCPU."""
    data = sample("s_dump.core")
    parsed = core.parse_core(data)
    parsed.vcpus[0].update(changes)
    return core.rebuild(data, parsed)


def with_records(change: Callable[[tuple[hvm.Record, ...]], Iterable[hvm.Record]]) -> bytes:
    """The sample's stream, its context's records as `change` gives them."""
    data = sample("s_stream.bin")
    parsed = stream.parse_stream(data)
    out = stream.build_headers(4, 17)
    for record in parsed.records:
        body = record.body(data)
        if record.type == stream.HVM_CONTEXT:
            body = hvm.build_context(tuple(change(hvm.parse_context(body))))
        out += stream.build_record(record.type, body)
    return out
