"""All packets that are answered, each with its handler."""

from __future__ import annotations

from stub.handlers import (
    base,
    breakpoints,
    memory,
    monitor,
    nonstop,
    qemu,
    qxfer,
    registers,
    resume,
    reverse,
    search,
    trace,
    traceframes,
)
from stub.handlers.base import Handler

#: In the order of qSupported's answer.
ALL_HANDLERS: tuple[Handler, ...] = (
    *base.HANDLERS,
    *registers.HANDLERS,
    *memory.HANDLERS,
    *search.HANDLERS,
    *resume.HANDLERS,
    *nonstop.HANDLERS,
    *reverse.HANDLERS,
    *breakpoints.HANDLERS,
    *qxfer.HANDLERS,
    *monitor.HANDLERS,
    *qemu.HANDLERS,
    *trace.HANDLERS,
    *traceframes.HANDLERS,
)
