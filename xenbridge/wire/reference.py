"""Writes docs/formats.md: every layout of this room as a table. `make docs` runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from xenbridge.wire import core, hvm, hvm_devices, ioreq, pages, stream, xl
from xenbridge.wire.schema import Layout

TARGET = "docs/formats.md"
_HEAD = (
    "# Xen's formats\nWritten by `make docs` from the schemas in `xenbridge/wire/`, by which v2e reads and writes "
    "them: offsets in hexadecimal, sizes in bytes, little-endian where nothing else is said. "
    "What v2e does with them: [inspect.md](inspect.md)."
)

_PARTS: tuple[tuple[str, str, tuple[Layout, ...]], ...] = (
    ("Migration stream", "What `xc_domain_save` writes: both headers, then records up to END.",
     (stream.IMAGE_HEADER, stream.DOMAIN_HEADER, stream.RECORD_HEADER, pages.PAGE_DATA_HEADER, stream.TSC_INFO,
      stream.PARAMS_HEADER, stream.PARAM, stream.CPUID_LEAF, stream.MSR_ENTRY, stream.V2E_LAYOUT)),
    ("Around it: xl and libxl", "`xl save` writes its header, libxl's, and libxl's records; the libxc stream follows "
     "the record LIBXC_CONTEXT.", (xl.XL_HEADER, xl.LIBXL_HEADER, xl.LIBXL_RECORD, xl.EMULATOR_HEADER)),
    ("Core", "`xl dump-core`: an ELF file of sections.",
     (core.ELF_HEADER, core.SECTION, core.NOTE, core.HEADER, core.VERSION, core.FORMAT, core.CONTEXT)),
    ("Requests", "The pages that a hypervisor shares with a device model.",
     (ioreq.IOREQ, ioreq.IOREQ_PAGE, ioreq.BUFFERED, ioreq.BUFFERED_PAGE)),
)  # fmt: skip


def _table(layout: Layout) -> Iterator[str]:
    yield f"### {layout.name}"
    yield f"{layout.size} bytes. Source: {layout.source}."
    yield ""
    yield "| offset | size | field | type | |"
    yield "|---|---|---|---|---|"
    for field in layout.fields():
        yield f"| {field.offset:x} | {field.size} | `{field.name}` | {field.type} | {field.text} |"
    yield ""


def _codes(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield "| code | record |"
    yield "|---|---|"
    for code, name in rows:
        yield f"| {code} | {name} |"
    yield ""


def page() -> str:
    """The whole page."""
    lines = [_HEAD, "", "## HVM save context", "What Xen itself holds of a domain: a header each record, HEADER first, "
             "END (code 0) last.", ""]  # fmt: skip
    codes = ((str(code), " or ".join(f"{a.name} ({a.size} bytes)" for a in of)) for code, of in hvm.LAYOUTS.items())
    lines += [*_codes(codes), *_table(hvm.DESCRIPTOR)]
    for layouts in hvm.LAYOUTS.values():
        lines += _table(layouts[-1])
    lines += _table(hvm_devices.MSR_ENTRY)
    for title, text, layouts in _PARTS:
        lines += [f"## {title}", text, ""]
        if layouts[0] is stream.IMAGE_HEADER:
            lines += _codes((f"{code:#x}", name) for code, name in stream.NAMES.items())
        if layouts[0] is xl.XL_HEADER:
            lines += _codes((str(code), name) for code, name in xl.NAMES.items())
        for layout in layouts:
            lines += _table(layout)
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> None:
    """Write the page into the source tree that this module is in."""
    (Path(__file__).resolve().parents[2] / TARGET).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
