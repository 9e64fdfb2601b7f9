"""Xen's dump-core format: an ELF64 file of sections, without program headers.

Source: Xen 4.17, docs/misc/dump-core-format.txt; ELF: TIS Portable Formats Specification 1.2 in its 64-bit form;
vcpu_guest_context: xen/include/public/arch-x86/xen.h and arch-x86/xen-x86_64.h.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from construct import Array, Bytes, Int8ul, Int16ul, Int32ul, Int64ul

from xenbridge.wire.errors import WireError
from xenbridge.wire.schema import Buffer, Layout, Values

SOURCE = "Xen 4.17, docs/misc/dump-core-format.txt"
ELF = "ELF64"
CORE_TYPE, MACHINE = 4, 62
HVM_MAGIC, PV_MAGIC = 0xF00FEBEE, 0xF00FEBED
NONE_NOTE, HEADER_NOTE, VERSION_NOTE, FORMAT_NOTE = (0x2000000 + n for n in range(4))
PAGE = 4096
#: Notes that are read: Xen writes four.
MAX_NOTES = 1 << 12

ELF_HEADER = Layout(
    "ELF header",
    ELF,
    "e_ident" / Bytes(16) * "7Fh ELF, class 2, data 1",
    "e_type" / Int16ul * "4, core",
    "e_machine" / Int16ul * "62, x86-64",
    "e_version" / Int32ul,
    "e_entry" / Int64ul,
    "e_phoff" / Int64ul,
    "e_shoff" / Int64ul * "offset of the section headers",
    "e_flags" / Int32ul,
    "e_ehsize" / Int16ul,
    "e_phentsize" / Int16ul,
    "e_phnum" / Int16ul * "0",
    "e_shentsize" / Int16ul * "64",
    "e_shnum" / Int16ul,
    "e_shstrndx" / Int16ul * "the section of names",
)
SECTION = Layout(
    "section header",
    ELF,
    "sh_name" / Int32ul,
    "sh_type" / Int32ul,
    "sh_flags" / Int64ul,
    "sh_addr" / Int64ul,
    "sh_offset" / Int64ul,
    "sh_size" / Int64ul,
    "sh_link" / Int32ul,
    "sh_info" / Int32ul,
    "sh_addralign" / Int64ul,
    "sh_entsize" / Int64ul,
)
NOTE = Layout(
    "note", ELF + "; name and descriptor follow, each padded to 4 bytes", "namesz" / Int32ul, "descsz" / Int32ul,
    "type" / Int32ul,
)  # fmt: skip
HEADER = Layout(
    "note header",
    SOURCE + ", header note descriptor",
    "xch_magic" / Int64ul * "F00FEBEEh HVM, F00FEBEDh PV",
    "xch_nr_vcpus" / Int64ul,
    "xch_nr_pages" / Int64ul,
    "xch_page_size" / Int64ul,
)
VERSION = Layout(
    "note xen_version",
    SOURCE + ", xen_version descriptor",
    "major_version" / Int64ul,
    "minor_version" / Int64ul,
    "extra_version" / Bytes(16),
    "compile_info" / Bytes(144),
    "capabilities" / Bytes(1024),
    "changeset" / Bytes(64),
    "platform_parameters" / Int64ul,
    "pagesize" / Int64ul,
)
FORMAT = Layout("note format_version", SOURCE + ", format_version descriptor", "version" / Int64ul * "1")
_USER = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
)  # fmt: skip
CONTEXT = Layout(
    "vcpu_guest_context",
    "Xen 4.17, xen/include/public/arch-x86/xen.h, struct vcpu_guest_context",
    "fpu_ctxt" / Bytes(512) * "FXSAVE area",
    "flags" / Int64ul,
    *(name / Int64ul for name in _USER),
    "error_code" / Int32ul,
    "entry_vector" / Int32ul,
    "rip" / Int64ul,
    "cs" / Int16ul,
    "_pad0" / Int16ul,
    "saved_upcall_mask" / Int8ul,
    "_pad1" / Bytes(3),
    "rflags" / Int64ul,
    "rsp" / Int64ul,
    *(part for name in ("ss", "es", "ds", "fs", "gs") for part in (name / Int16ul, f"_pad_{name}" / Bytes(6))),
    "trap_ctxt" / Bytes(4096) * "of PV domains",
    "ldt_base" / Int64ul,
    "ldt_ents" / Int64ul,
    "gdt_frames" / Array(16, Int64ul) * "of PV domains",
    "gdt_ents" / Int64ul,
    "kernel_ss" / Int64ul,
    "kernel_sp" / Int64ul,
    "ctrlreg" / Array(8, Int64ul) * "CR0 to CR7",
    "debugreg" / Array(8, Int64ul) * "DR0 to DR7",
    "event_callback_eip" / Int64ul,
    "failsafe_callback_eip" / Int64ul,
    "syscall_callback_eip" / Int64ul,
    "vm_assist" / Int64ul,
    "fs_base" / Int64ul,
    "gs_base_kernel" / Int64ul,
    "gs_base_user" / Int64ul,
)


@dataclass(frozen=True)
class Section:
    """`offset` and `size` in the file, in bytes."""

    name: str
    type: int
    offset: int
    size: int
    head: Values = field(compare=False)


@dataclass
class Core:
    """`pages`: frame number to offset in the file; `vcpus`: a CONTEXT each."""

    header: Values
    sections: list[Section]
    info: Values
    version: Values | None
    vcpus: list[Values]
    pages: dict[int, int]


def is_elf(data: Buffer) -> bool:
    """True for a file that begins as an ELF file does."""
    return bytes(data[:4]) == b"\x7fELF"


def parse_core(data: Buffer) -> Core:
    """Raises WireError."""
    header = ELF_HEADER.parse(data)
    if header["e_ident"][:6] != b"\x7fELF\x02\x01":
        raise WireError(ELF_HEADER.name, "e_ident", 0, "not a little-endian ELF64 file")
    for name, at, known in (("e_type", 16, CORE_TYPE), ("e_machine", 18, MACHINE)):
        if header[name] != known:
            raise WireError(ELF_HEADER.name, name, at, f"{header[name]}, where Xen's cores have {known}")
    sections = _sections(data, header)
    _ends(data, header, sections)
    _apart(header, sections)
    named = {section.name: section for section in sections if section.type}
    notes = _notes(data, _need(named, ".note.Xen"))
    found = notes.get(HEADER_NOTE)
    if found is None:
        raise WireError(".note.Xen", "", named[".note.Xen"].offset, "it has no header note")
    info = HEADER.parse(data, *found)
    if info["xch_magic"] != HVM_MAGIC:
        raise WireError(HEADER.name, "xch_magic", found[0], f"{info['xch_magic']:#x}: only cores of HVM domains "
                        f"({HVM_MAGIC:#x}) are known")  # fmt: skip
    if info["xch_page_size"] != PAGE:
        raise WireError(HEADER.name, "xch_page_size", found[0] + 24, f"{info['xch_page_size']}: pages have {PAGE}")
    if FORMAT_NOTE in notes:
        form = FORMAT.parse(data, *notes[FORMAT_NOTE])["version"]
        if form >> 32:
            raise WireError(FORMAT.name, "version", notes[FORMAT_NOTE][0], f"{form >> 32}.{form & 0xFFFFFFFF}: only "
                            "0.1 is known, so a newer Xen wrote it")  # fmt: skip
    version = VERSION.parse(data, *notes[VERSION_NOTE]) if VERSION_NOTE in notes else None
    return Core(header, sections, info, version, _vcpus(data, named, info), _pages(data, named, info))


def _ends(data: Buffer, header: Values, sections: list[Section]) -> None:
    """Raises WireError for bytes behind all that the headers tell of."""
    ends = [section.offset + section.size for section in sections if section.type]
    end = max(header["e_shoff"] + header["e_shnum"] * SECTION.size, ELF_HEADER.size, *ends)
    if len(data) > end:
        raise WireError(ELF_HEADER.name, "", end, f"{len(data) - end} bytes follow the last section")


def _apart(header: Values, sections: list[Section]) -> None:
    """Raises WireError for sections that have bytes in common, with each other or with the headers."""
    first = header["e_shoff"]
    places = [(section.offset, section.offset + section.size, section.name or f"section {n}", n)
              for n, section in enumerate(sections) if section.type and section.size]  # fmt: skip
    places += [(0, ELF_HEADER.size, "the ELF header", 0), (first, first + len(sections) * SECTION.size,
                                                           "the section headers", 0)]  # fmt: skip
    places.sort()
    for (_, end, name, number), (start, _, other, later) in itertools.pairwise(places):
        if start < end:
            n = later or number
            raise WireError(SECTION.name, f"sh_offset of section {n}", first + n * SECTION.size + 24,
                            f"{name} and {other} overlap at {start:#x}")  # fmt: skip


def _need(named: dict[str, Section], name: str) -> Section:
    if name not in named:
        raise WireError("section headers", "", 0, f"there is no section {name}")
    return named[name]


def _sections(data: Buffer, header: Values) -> list[Section]:
    count, first = header["e_shnum"], header["e_shoff"]
    if header["e_shentsize"] != SECTION.size:
        raise WireError(ELF_HEADER.name, "e_shentsize", 58, f"{header['e_shentsize']}, not {SECTION.size}")
    if first + count * SECTION.size > len(data):
        raise WireError(ELF_HEADER.name, "e_shoff", 40, f"{count} section headers at {first:#x} are beyond the end")
    heads = [SECTION.parse(data, first + n * SECTION.size) for n in range(count)]
    for n, head in enumerate(heads):
        if head["sh_type"] and head["sh_offset"] + head["sh_size"] > len(data):
            raise WireError(SECTION.name, f"sh_size of section {n}", first + n * SECTION.size + 32,
                            f"{head['sh_size']} bytes at {head['sh_offset']:#x} are beyond the end")  # fmt: skip
    if not header["e_shstrndx"] < count:
        raise WireError(ELF_HEADER.name, "e_shstrndx", 62, f"there is no section {header['e_shstrndx']}")
    names = heads[header["e_shstrndx"]]
    start, end = names["sh_offset"], names["sh_offset"] + names["sh_size"]
    sections = []
    for head in heads:
        at = min(start + head["sh_name"], end)
        # no name of a section is longer, and a hostile table is not copied for each
        text = bytes(data[at : min(end, at + 64)]).partition(b"\0")[0]
        sections.append(Section(text.decode("latin-1"), head["sh_type"], head["sh_offset"], head["sh_size"], head))
    return sections


def _notes(data: Buffer, section: Section) -> dict[int, tuple[int, int]]:
    """Type to (start, end) of the descriptor."""
    at, end = section.offset, section.offset + section.size
    found: dict[int, tuple[int, int]] = {}
    read = 0
    while at < end:
        if (read := read + 1) > MAX_NOTES:
            raise WireError(NOTE.name, "", at, f"more than {MAX_NOTES} notes, where a core has four")
        head = NOTE.parse(data, at, end)
        start = at + NOTE.size + -(-head["namesz"] // 4) * 4
        if start > end:
            raise WireError(NOTE.name, "namesz", at, f"{head['namesz']} bytes are beyond the section's end")
        stop = start + head["descsz"]
        if stop > end:
            raise WireError(NOTE.name, "descsz", at + 4, f"{head['descsz']} bytes are beyond the section's end")
        found[head["type"]] = (start, stop)
        at = start + -(-head["descsz"] // 4) * 4
    return found


def _vcpus(data: Buffer, named: dict[str, Section], info: Values) -> list[Values]:
    section, count = _need(named, ".xen_prstatus"), info["xch_nr_vcpus"]
    if count * CONTEXT.size != section.size:
        raise WireError(".xen_prstatus", "", section.offset, f"{section.size} bytes, where {count} vCPUs of "
                        f"{CONTEXT.size} are said to be")  # fmt: skip
    return [CONTEXT.parse(data, section.offset + n * CONTEXT.size) for n in range(count)]


def _pages(data: Buffer, named: dict[str, Section], info: Values) -> dict[int, int]:
    frames, pages, count = _need(named, ".xen_pfn"), _need(named, ".xen_pages"), info["xch_nr_pages"]
    for section, size in ((frames, 8), (pages, PAGE)):
        if count * size != section.size:
            raise WireError(section.name, "", section.offset, f"{section.size} bytes, where {count} pages are said to "
                            f"be, of {size} bytes each here")  # fmt: skip
    found: dict[int, int] = {}
    numbers = memoryview(data[frames.offset : frames.offset + frames.size])
    for n in range(count):
        frame = int.from_bytes(numbers[8 * n : 8 * n + 8], "little")
        if frame != (1 << 64) - 1:
            found[frame] = pages.offset + n * PAGE
    return found


def rebuild(data: Buffer, core: Core) -> bytes:
    """The file again, from its parsed headers and vCPUs and the bytes of the other sections."""
    out = bytearray(data[:])  # what is between the sections is nobody's, and kept
    out[: ELF_HEADER.size] = ELF_HEADER.build(core.header)
    for n, section in enumerate(core.sections):
        at = core.header["e_shoff"] + n * SECTION.size
        out[at : at + SECTION.size] = SECTION.build(section.head)
        if section.type:
            body = bytes(data[section.offset : section.offset + section.size])
            if section.name == ".xen_prstatus":
                body = b"".join(CONTEXT.build(vcpu) for vcpu in core.vcpus)
            out[section.offset : section.offset + section.size] = body
    return bytes(out)
