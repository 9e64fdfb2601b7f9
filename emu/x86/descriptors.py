"""Segment, system and gate descriptors: parsing, building, naming, loading a selector (SDM vol. 3A, 3.4.5, 3.5)."""

from __future__ import annotations

from collections.abc import Callable

from emu.record import dataclass
from emu.views import TableEntryView
from emu.x86.modes import mode_of
from emu.x86.register_writes import ACCESS_G, ACCESS_UNUSABLE, RegisterError, null_segment, write_selector
from emu.x86.state import EFER_LMA, SEGMENTS, CpuState, Segment

#: Reads `length` bytes at a linear address as the debugger sees them, or None where there is no memory.
ReadLinear = Callable[[int, int], "bytes | None"]

ACCESS_S, ACCESS_P, ACCESS_AVL, ACCESS_L, ACCESS_DB = 1 << 4, 1 << 7, 1 << 12, 1 << 13, 1 << 14
#: The access bits a descriptor holds: type, S, DPL, P in bits 7:0, AVL, L, D/B, G in bits 15:12.
ACCESS_MASK = 0xF0FF

#: System types by S = 0 type (SDM vol. 3A, table 3-2).
SYSTEM_KINDS = {
    1: "tss16 available", 2: "ldt", 3: "tss16 busy", 4: "call gate 16", 5: "task gate", 6: "interrupt gate 16",
    7: "trap gate 16", 9: "tss32 available", 11: "tss32 busy", 12: "call gate 32", 14: "interrupt gate 32",
    15: "trap gate 32",
}  # fmt: skip
SYSTEM_KINDS_LONG = {
    2: "ldt", 9: "tss64 available", 11: "tss64 busy", 12: "call gate 64", 14: "interrupt gate 64", 15: "trap gate 64",
}  # fmt: skip
_GATES = frozenset((4, 5, 6, 7, 12, 14, 15))
_CALL_GATES = frozenset((4, 12))
_TSS_TYPES = frozenset((1, 3, 9, 11))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A segment or system-segment descriptor. `limit` is in bytes, `access` in VMX layout (SDM vol. 3C, table 25-2)."""

    base: int
    limit: int
    access: int


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate. `access` holds type, S, DPL, P; `count` is a call gate's parameter count, `ist` a 64-bit gate's IST."""

    selector: int
    offset: int
    access: int
    count: int = 0
    ist: int = 0


def descriptor_access(raw: bytes) -> int:
    """The access rights of a descriptor or gate in VMX layout, from its first 8 bytes."""
    return int.from_bytes(raw[4:8], "little") >> 8 & ACCESS_MASK


def parse_descriptor(raw: bytes) -> Descriptor:
    """An 8-byte descriptor, or a 16-byte one of IA-32e mode with a 64-bit base (SDM vol. 3A, figures 3-8 and 8-4)."""
    if len(raw) not in (8, 16):
        raise ValueError(f"a descriptor has 8 or 16 bytes, not {len(raw)}")
    low, high = int.from_bytes(raw[0:4], "little"), int.from_bytes(raw[4:8], "little")
    base = low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000
    if len(raw) == 16:
        base |= int.from_bytes(raw[8:12], "little") << 32
    limit = low & 0xFFFF | high & 0xF0000
    access = descriptor_access(raw)
    if access & ACCESS_G:
        limit = limit << 12 | 0xFFF
    return Descriptor(base, limit, access)


def build_descriptor(descriptor: Descriptor, wide: bool = False) -> bytes:
    """The 8 bytes of a descriptor (16 if `wide`, for a system segment of IA-32e mode). ValueError if it has no form."""
    base, limit, access = descriptor.base, descriptor.limit, descriptor.access
    if access & ~ACCESS_MASK:
        raise ValueError(f"access rights {access:#x} have bits {access & ~ACCESS_MASK:#x} that no descriptor holds")
    if base >> (64 if wide else 32):
        raise ValueError(f"base {base:#x} does not fit a descriptor of {16 if wide else 8} bytes")
    if access & ACCESS_G:
        if limit & 0xFFF != 0xFFF or limit >> 32:
            raise ValueError(f"limit {limit:#x} does not end in fff within 4 GiB, as G asks")
        limit >>= 12
    elif limit >> 20:
        raise ValueError(f"limit {limit:#x} is above 0xfffff and needs G")
    low = limit & 0xFFFF | (base & 0xFFFF) << 16
    high = base >> 16 & 0xFF | access << 8 | limit & 0xF0000 | base & 0xFF000000
    raw = low.to_bytes(4, "little") + high.to_bytes(4, "little")
    return raw + (base >> 32).to_bytes(8, "little") if wide else raw


def parse_gate(raw: bytes) -> Gate:
    """A gate of 8 bytes, or of 16 in IA-32e mode (SDM vol. 3A, figures 5-8, 5-9, 6-2 and 6-8)."""
    if len(raw) not in (8, 16):
        raise ValueError(f"a gate has 8 or 16 bytes, not {len(raw)}")
    access = raw[5]
    offset = int.from_bytes(raw[0:2], "little")
    if access & 8:
        offset |= int.from_bytes(raw[6:8], "little") << 16
    selector = int.from_bytes(raw[2:4], "little")
    if len(raw) == 16:
        offset |= int.from_bytes(raw[8:12], "little") << 32
        return Gate(selector, offset, access, ist=raw[4] & 7)
    if access & 0xF == 5:
        return Gate(selector, 0, access)
    return Gate(selector, offset, access, count=raw[4] & 0x1F if access & 0xF in _CALL_GATES else 0)


def build_gate(gate: Gate, wide: bool = False) -> bytes:
    """The 8 bytes of a gate (16 if `wide`). ValueError if the offset does not fit the gate's type."""
    bits = 64 if wide else 32 if gate.access & 8 else 16
    if gate.offset >> bits:
        raise ValueError(f"offset {gate.offset:#x} does not fit a gate of {bits} bits")
    raw = (
        (gate.offset & 0xFFFF).to_bytes(2, "little")
        + gate.selector.to_bytes(2, "little")
        + bytes((gate.ist if wide else gate.count, gate.access))
        + (gate.offset >> 16 & 0xFFFF).to_bytes(2, "little")
    )
    return raw + (gate.offset >> 32).to_bytes(8, "little") if wide else raw


def kind_of(access: int, long_mode: bool = False) -> str:
    """What a descriptor with these access rights is: "code32", "data16", "tss32 busy", "interrupt gate 64"."""
    if access & ACCESS_S:
        if access & 8:
            return "code64" if access & ACCESS_L else "code32" if access & ACCESS_DB else "code16"
        return "data32" if access & ACCESS_DB else "data16"
    kinds = SYSTEM_KINDS_LONG if long_mode else SYSTEM_KINDS
    return kinds.get(access & 0xF, f"reserved type {access & 0xF}")


def access_text(access: int, long_mode: bool = False) -> str:
    """Access rights in words: "code32 r-x DPL 0 accessed", "data16 rw- expand-down DPL 3", "ldt DPL 0", "unusable"."""
    if access & ACCESS_UNUSABLE:
        return "unusable"
    words = [kind_of(access, long_mode)]
    if access & ACCESS_S:
        if access & 8:
            words.append("r-x" if access & 2 else "--x")
            if access & 4:
                words.append("conforming")
        else:
            words.append("rw-" if access & 2 else "r--")
            if access & 4:
                words.append("expand-down")
    words.append(f"DPL {access >> 5 & 3}")
    if access & ACCESS_S and access & 1:
        words.append("accessed")
    if not access & ACCESS_P:
        words.append("not present")
    if access & (ACCESS_S | 8) == ACCESS_S | 8 and access & ACCESS_L and access & ACCESS_DB:
        words.append("L and D both set")
    return " ".join(words)


def is_gate(access: int) -> bool:
    """True for call, task, interrupt and trap gates."""
    return not access & ACCESS_S and access & 0xF in _GATES


def table_entries(raw: bytes, base: int, long_mode: bool) -> tuple[TableEntryView, ...]:
    """The entries of a GDT or LDT of `raw` bytes at linear `base`; `long_mode` is EFER.LMA.

    In IA-32e mode LDT, TSS and call-gate descriptors take two slots and are one entry (SDM vol. 3A, 3.5.2).
    """
    entries = []
    at = 0
    while at < len(raw):
        piece = raw[at : at + 8]
        size = 16 if len(piece) == 8 and long_mode and _takes_two_slots(descriptor_access(piece)) else 8
        piece = raw[at : at + size]
        if len(piece) < size:
            entries.append(_truncated(at // 8, at, piece, base + at, size))
            break
        entries.append(_segment_entry(at, piece, long_mode))
        at += len(piece)
    return tuple(entries)


def _takes_two_slots(access: int) -> bool:
    return not access & ACCESS_S and access & 0xF in SYSTEM_KINDS_LONG


def _segment_entry(at: int, raw: bytes, long_mode: bool) -> TableEntryView:
    if not any(raw):
        return TableEntryView(at // 8, at, raw, "null", None, None, None, None, "null")
    access = descriptor_access(raw)
    if is_gate(access):
        return _gate_entry(at // 8, at, raw, long_mode)
    descriptor = parse_descriptor(raw)
    return TableEntryView(
        at // 8, at, raw, kind_of(access, long_mode), descriptor.base, descriptor.limit, access, None,
        access_text(access, long_mode),
    )  # fmt: skip


def _gate_entry(index: int, selector: int, raw: bytes, long_mode: bool) -> TableEntryView:
    gate = parse_gate(raw)
    text = access_text(gate.access, long_mode)
    if gate.count:
        text += f", {gate.count} parameters"
    if gate.ist:
        text += f", IST {gate.ist}"
    offset = None if kind_of(gate.access, long_mode) == "task gate" else gate.offset
    return TableEntryView(
        index, selector, raw, kind_of(gate.access, long_mode), offset, None, gate.access, gate.selector, text
    )


def _truncated(index: int, selector: int, raw: bytes, address: int, size: int) -> TableEntryView:
    text = f"cut short by the table's limit: {len(raw)} of {size} bytes at {address:#x}"
    return TableEntryView(index, selector, raw, "truncated", None, None, None, None, text)


def idt_entries(raw: bytes, long_mode: bool, base: int = 0) -> tuple[TableEntryView, ...]:
    """The entries of a protected-mode IDT at linear `base`: 8 bytes, 16 in IA-32e mode (SDM vol. 3A, 6.11, 6.14.1).

    `index` and `selector` are the vector. What is not a gate an IDT may hold is shown as what it is.
    """
    size = 16 if long_mode else 8
    entries = []
    for at in range(0, len(raw), size):
        vector, piece = at // size, raw[at : at + size]
        if len(piece) < size:
            entries.append(_truncated(vector, vector, piece, base + at, size))
        elif not any(piece):
            entries.append(TableEntryView(vector, vector, piece, "null", None, None, None, None, "null"))
        elif is_gate(descriptor_access(piece)):
            entries.append(_gate_entry(vector, vector, piece, long_mode))
        else:
            access = descriptor_access(piece)
            text = f"{access_text(access, long_mode)}: not a gate"
            kind = kind_of(access, long_mode)
            entries.append(TableEntryView(vector, vector, piece, kind, None, None, access, None, text))
    return tuple(entries)


def ivt_entries(raw: bytes, base: int = 0) -> tuple[TableEntryView, ...]:
    """The real-mode vectors at linear `base`: offset and segment, 4 bytes each (SDM vol. 3A, 21.1.4)."""
    entries = []
    for at in range(0, len(raw), 4):
        vector, piece = at // 4, raw[at : at + 4]
        if len(piece) < 4:
            entries.append(_truncated(vector, vector, piece, base + at, 4))
            continue
        offset, segment = int.from_bytes(piece[:2], "little"), int.from_bytes(piece[2:], "little")
        text = f"{segment:04x}:{offset:04x}"
        entries.append(TableEntryView(vector, vector, piece, "vector", offset, None, None, segment, text))
    return tuple(entries)


def read_descriptor(state: CpuState, selector: int, read_linear: ReadLinear, system: bool = False) -> bytes:
    """The bytes of the descriptor that `selector` names in the GDT or LDT: 8, or 16 where `system` in IA-32e mode.

    Raises RegisterError for a null selector, one outside its table, and an unreadable table.
    """
    if not selector & 0xFFFC:
        raise RegisterError(f"selector {selector:#06x} is null")
    if selector & 4:
        if not state.ldtr.present or state.ldtr.access & ACCESS_UNUSABLE:
            raise RegisterError(f"selector {selector:#06x} names the LDT, and none is loaded")
        name, base, limit = "LDT", state.ldtr.base, state.ldtr.limit
    else:
        name, base, limit = "GDT", state.gdtr.base, state.gdtr.limit
    long_mode = bool(state.efer & EFER_LMA)
    size = 16 if system and long_mode else 8
    offset = selector & 0xFFF8
    if offset + size - 1 > limit:
        raise RegisterError(f"selector {selector:#06x} is beyond the {name}'s limit {limit:#x}")
    address = base + offset & (0xFFFFFFFFFFFFFFFF if long_mode else 0xFFFFFFFF)
    raw = read_linear(address, size)
    if raw is None or len(raw) < size:
        raise RegisterError(f"the {name} cannot be read at {address:#x}")
    return raw


def load_selector(state: CpuState, name: str, selector: int, read_linear: ReadLinear) -> None:
    """Load segment register `name` (es cs ss ds fs gs ldtr tr) with `selector` as the CPU would, cache included.

    Real and V86 mode: base = selector * 16 (`register_writes.write_selector`). Protected mode: the checks of MOV Sreg
    (SDM vol. 2B), far JMP for CS (vol. 2A), LLDT and LTR, at the present CPL. The cache is marked accessed (TR: busy);
    the descriptor in memory is not written. RegisterError says which check fails; `state` is then unchanged.
    """
    if not 0 <= selector <= 0xFFFF:
        raise RegisterError(f"{name} has 16 bits: {selector:#x} does not fit")
    if name not in (*SEGMENTS, "ldtr", "tr"):
        raise RegisterError(f"no segment register {name}: es, cs, ss, ds, fs, gs, ldtr or tr")
    mode = mode_of(state)
    if mode.real_addressing:
        if name in ("ldtr", "tr"):
            why = f"the CPU raises #UD in {mode.label} mode"
            raise RegisterError(f"{name} cannot be loaded: {why}; write {name}_base, {name}_limit and {name}_attr")
        write_selector(state, name, selector)
        return
    if selector & 0xFFFC:
        load = _load_system if name in ("ldtr", "tr") else _load_segment
        segment = load(state, name, selector, read_linear)
    else:
        segment = _load_null(state, name, selector)
    setattr(state, name, segment)


def _load_null(state: CpuState, name: str, selector: int) -> Segment:
    if name in ("cs", "tr"):
        raise RegisterError(f"{name} cannot hold the null selector {selector:#06x}: the CPU would raise #GP(0)")
    if name == "ss" and not (state.long64 and state.cpl < 3 and selector == state.cpl):
        allowed = "only in 64-bit mode below CPL 3 with RPL = CPL"
        raise RegisterError(f"ss cannot hold the null selector {selector:#06x}: {allowed}")
    return null_segment(selector, state.cpl if name == "ss" else 0)


def _refuse(name: str, selector: int, why: str, fault: str = "#GP") -> RegisterError:
    return RegisterError(f"{name} cannot hold {selector:#06x}: {why} ({fault}({selector & 0xFFFC:#x}))")


def _load_segment(state: CpuState, name: str, selector: int, read_linear: ReadLinear) -> Segment:
    descriptor = parse_descriptor(read_descriptor(state, selector, read_linear))
    access, cpl, rpl = descriptor.access, state.cpl, selector & 3
    dpl, kind = access >> 5 & 3, kind_of(access, bool(state.efer & EFER_LMA))
    code = access & (ACCESS_S | 8) == ACCESS_S | 8
    conforming = code and bool(access & 4)
    if not access & ACCESS_S:
        raise _refuse(name, selector, f"{kind} is not a code or data segment")
    if name == "cs":
        if not code:
            raise _refuse(name, selector, f"{kind} is not code")
        if conforming and dpl > cpl:
            raise _refuse(name, selector, f"conforming code of DPL {dpl} is above CPL {cpl}")
        if not conforming and (rpl > cpl or dpl != cpl):
            raise _refuse(name, selector, f"code of DPL {dpl} with RPL {rpl} cannot be entered from CPL {cpl}")
        if access & ACCESS_L and access & ACCESS_DB and state.efer & EFER_LMA:
            raise _refuse(name, selector, "L and D are both set")
        selector = selector & 0xFFFC | cpl
    elif name == "ss":
        if code or not access & 2:
            raise _refuse(name, selector, f"{kind} is not writable data")
        if rpl != cpl or dpl != cpl:
            raise _refuse(name, selector, f"RPL {rpl} and DPL {dpl} must equal CPL {cpl}")
    else:
        if code and not access & 2:
            raise _refuse(name, selector, f"{kind} is not readable")
        if not conforming and max(rpl, cpl) > dpl:
            raise _refuse(name, selector, f"DPL {dpl} is below RPL {rpl} or CPL {cpl}")
    if not access & ACCESS_P:
        raise _refuse(name, selector, f"{kind} is not present", "#SS" if name == "ss" else "#NP")
    return Segment(selector, descriptor.base, descriptor.limit, access | 1)


def _load_system(state: CpuState, name: str, selector: int, read_linear: ReadLinear) -> Segment:
    long_mode = bool(state.efer & EFER_LMA)
    if selector & 4:
        raise _refuse(name, selector, "it must name the GDT")
    descriptor = parse_descriptor(read_descriptor(state, selector, read_linear, system=True))
    access = descriptor.access
    kind = access_text(access, long_mode) if access & ACCESS_S else kind_of(access, long_mode)
    if name == "ldtr" and kind != "ldt":
        raise _refuse(name, selector, f"{kind} is not an LDT")
    if name == "tr":
        if not kind.startswith("tss") or not kind.endswith("available"):
            raise _refuse(name, selector, f"{kind} is not an available TSS")
        access |= 2
    if not access & ACCESS_P:
        raise _refuse(name, selector, f"{kind} is not present", "#NP")
    return Segment(selector, descriptor.base, descriptor.limit, access)


def same_rights(cached: int, table: int) -> bool:
    """True if access rights agree but for the bits the CPU itself sets: accessed of a segment, busy of a TSS."""
    if cached & ACCESS_S and table & ACCESS_S:
        return not (cached ^ table) & ~1
    if not (cached | table) & ACCESS_S and cached & 0xF in _TSS_TYPES and table & 0xF in _TSS_TYPES:
        return not (cached ^ table) & ~2
    return cached == table
