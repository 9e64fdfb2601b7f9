"""Which CPU states a hypervisor's CPU can enter natively, and each rule that a state breaks, in words with its values.

Section numbers are those of the SDM, vol. 3C, chapter 26 (27 in editions from 2022 on), and of AMD's APM, vol. 2. Rules
about what a hypervisor sets up itself (CR0.NE, CR4.VMXE, the I/O bitmaps) are not the guest's and are not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from emu.record import dataclass
from emu.x86.descriptors import parse_descriptor, same_rights
from emu.x86.modes import REAL_LIMIT, Mode
from emu.x86.paging import MAX_PHYSICAL_BITS, ReadPhysical, translate
from emu.x86.state import (
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    RFLAGS_VM,
    SEGMENTS,
    CpuState,
    Segment,
)
from emu.x86.vmentry_controls import CR4_RESERVED, control_rules, msr_rules
from emu.x86.vmentry_rule import Broken, canonical, usable

CR0_NW, CR0_CD = 1 << 29, 1 << 30
#: AMD's have none of VMXE, SMXE, KL, PKS and UINTR (APM vol. 2, figure 3-6).
CR4_RESERVED_AMD = CR4_RESERVED | 1 << 13 | 1 << 14 | 1 << 19 | 1 << 24 | 1 << 25
#: SCE, LME, LMA, NXE, SVME to TCE, MCOMMIT, INTWB, UAIE, AIBRSE (APM vol. 2, figure 3-9).
EFER_RESERVED_AMD = ~(1 << 0 | 1 << 8 | 1 << 10 | 0x1F << 11 | 1 << 17 | 1 << 18 | 1 << 20 | 1 << 21)
#: Access rights of each segment in virtual-8086 mode: read/write data, accessed, S, DPL 3, present (26.3.1.2).
V86_ACCESS = 0xF3
#: CS in the emulator's real mode, and where it is behind RESET.
REAL_CODE, RESET_CODE = 0x9B, (0xF000, 0xFFFF0000)
TYPE_CODE, TYPE_CONFORMING, TYPE_READABLE, TYPE_ACCESSED = 8, 4, 2, 1
TYPE_STACKS = (3, 7)  #: read/write data, accessed; up and down
TYPE_LDT = 2
TABLE_INDICATOR = 4  #: of a selector: it names an entry of the LDT
TYPE_BUSY16, TYPE_BUSY = 3, 11
#: The four entries at CR3 of PAE paging (SDM vol. 3A, tables 4-7 and 4-8): of a present one bits 1, 2 and 8 to 5, and
#: those above the physical addresses, are reserved.
PDPTES, PDPT_BASE = 4, 0xFFFFFFE0
PDPTE_RESERVED = 0x1E6 | (1 << 64) - (1 << MAX_PHYSICAL_BITS)
ACCESS_S, ACCESS_P, ACCESS_RESERVED, ACCESS_G = 0x10, 0x80, 0xF00, 0x8000
REMEMBERED: Final = 4096  #: states that were judged


@dataclass(frozen=True, slots=True)
class Rules:
    """What one kind of CPU demands of a state that it is to enter: `name` for commands, `title` for people."""

    name: str
    title: str
    check: Callable[[CpuState], Iterator[Broken]]
    pointers: bool = False  #: VM entry looks at the page-directory-pointer-table entries of PAE paging
    #: False: what keeps the CPU from being entered is nothing that the guest can change
    of_state: bool = True
    #: of modes no state of which can be entered: why, in words
    never: Mapping[Mode, str] = MappingProxyType({})

    def __hash__(self) -> int:
        return hash((self.name, self.title))

    def broken(self, state: CpuState, read: ReadPhysical | None = None) -> tuple[Broken, ...]:
        """Every rule that `state` breaks; empty: it can run natively. With `read`, which gives physical memory, rules
        about what is in memory are among them."""
        found = tuple(self.check(state))
        if read is None:
            return found
        found = unless_loaded(found, state, read)
        return (*found, *_pointers(state, read)) if self.pointers else found

    def enterable(self, state: CpuState, read: ReadPhysical | None = None) -> bool:
        """As not `broken`, at the first rule's cost where one is broken. Of memory, which `read` gives, only what
        `unless_loaded` asks for is looked at."""
        return all(read and broken.unloaded and _names_descriptor(state, read) for broken in self.check(state))


def unless_loaded(found: tuple[Broken, ...], state: CpuState, read: ReadPhysical) -> tuple[Broken, ...]:
    """Of the rules that `state` breaks those that stand when memory has been looked at. A CS that has all that real
    mode loads was loaded by a far transfer nevertheless where its selector names just such a descriptor."""
    return tuple(broken for broken in found if not (broken.unloaded and _names_descriptor(state, read)))


def _names_descriptor(state: CpuState, read: ReadPhysical) -> bool:
    """CS's selector names a descriptor that is what CS has in its cache, but for the accessed bit: the emulator's far
    transfers do not set it in memory (docs/fidelity.md)."""
    cs = state.cs
    table = state.ldtr if cs.selector & TABLE_INDICATOR else state.gdtr
    at = cs.selector & ~7
    if at + 7 > table.limit or not cs.selector & ~3 or (table is state.ldtr and not usable(state.ldtr)):
        return False
    raw = bytearray()
    for linear in range(table.base + at, table.base + at + 8):  # it may lie in two pages
        physical = translate(state, read, linear)
        byte = None if physical is None else read(physical, 1)
        if not byte:
            return False
        raw += byte
    found = parse_descriptor(bytes(raw))
    return (found.base, found.limit) == (cs.base, cs.limit) and same_rights(cs.access, found.access)


class Judged:
    """Which states `judge` finds enterable. Of a state in place, whose `entry_key` is all that rules ask for, it is
    remembered."""

    def __init__(self, judge: Callable[[CpuState], bool]) -> None:
        self._judge = judge
        self._known: dict[object, bool] = {}

    def enterable(self, state: CpuState) -> bool:
        """See Rules."""
        key_of = getattr(state, "entry_key", None)
        if key_of is None:
            return self._judge(state)
        key, known = key_of(), self._known
        found = known.get(key)
        if found is None:
            if len(known) >= REMEMBERED:
                known.clear()
            found = known[key] = self._judge(state)
        return found


# -- VT-x


def _vtx2006(state: CpuState) -> Iterator[Broken]:
    if not state.cr0 & CR0_PE or state.rflags & RFLAGS_VM:
        yield from _as_v86(state)
    else:
        yield from _protected(state, unrestricted=False)
    yield from control_rules(state)


def _vtx(state: CpuState) -> Iterator[Broken]:
    if state.cr0 & CR0_PE and state.rflags & RFLAGS_VM:
        yield from _as_v86(state)
    else:
        yield from _protected(state, unrestricted=True)
    yield from control_rules(state)
    yield from msr_rules(state)


def _as_v86(state: CpuState) -> Iterator[Broken]:
    """Virtual-8086 mode, and real mode where it can only run as that: there the hypervisor gives each segment DPL 3,
    CS a data segment's type, and a task of its own; everything else must be as real mode loads it."""
    real = not state.cr0 & CR0_PE
    source = "SDM 3C 26.3.1.2, virtual-8086"
    note = "real mode runs as virtual 8086 here: " if real else ""
    for name in SEGMENTS:
        s, upper = state.segment(name), name.upper()
        if not usable(s):
            yield Broken(name, f"{note}{upper} is unusable", source)
            continue
        if s.base != s.selector << 4:
            yield Broken(name, f"{note}{upper} base {s.base:#x} is not selector {s.selector:#x} << 4", source)
        if s.limit != REAL_LIMIT:
            big = ", big real mode" if real and s.limit > REAL_LIMIT else ""
            yield Broken(name, f"{note}{upper} limit {s.limit:#x} is not 0xffff{big}", source)
        access = s.access
        if real:
            access |= 0x60
            if name == "cs":
                access = access & ~0xF | 3
        if access != V86_ACCESS:
            but = " but for DPL" if real else ""
            yield Broken(name, f"{note}{upper} access rights {s.access:#x} are not {V86_ACCESS:#x}{but}", source)
    if not real:
        yield from _task(state, "SDM 3C 26.3.1.2")


def _protected(state: CpuState, *, unrestricted: bool) -> Iterator[Broken]:
    source = "SDM 3C 26.3.1.2"
    cs, ss = state.cs, state.ss
    if not unrestricted and (cs.selector ^ ss.selector) & 3:
        yield Broken("ss", f"SS.RPL {ss.selector & 3} is not CS.RPL {cs.selector & 3}", source)
    yield from _code(state, unrestricted, source)
    yield from _stack(state, unrestricted, source)
    for name in ("ds", "es", "fs", "gs"):
        yield from _data(name, state.segment(name), unrestricted, source)
    yield from _task(state, source)


def _code(state: CpuState, unrestricted: bool, source: str) -> Iterator[Broken]:
    cs, ss = state.cs, state.ss
    if not usable(cs):
        yield Broken("cs", "CS is unusable", source)
        return
    if unrestricted and cs.type == TYPE_STACKS[0]:
        if cs.dpl:
            yield Broken("cs", f"CS is a data segment with DPL {cs.dpl}, not 0", source)
    elif not cs.type & TYPE_CODE or not cs.type & TYPE_ACCESSED:
        what = "accessed code" if not unrestricted else "accessed code or data of a real mode"
        yield Broken("cs", f"CS type {cs.type:#x} is not {what}: no far transfer has loaded it yet", source)
    elif cs.type & TYPE_CONFORMING:
        if cs.dpl > ss.dpl:
            yield Broken("cs", f"conforming CS has DPL {cs.dpl}, above SS.DPL {ss.dpl}", source)
    elif cs.dpl != ss.dpl:
        yield Broken("cs", f"CS.DPL {cs.dpl} is not SS.DPL {ss.dpl}", source)
    if not unrestricted and real_code(cs):
        what = "is as real mode has loaded it, and to VT-x read/write data, type 0x3"
        yield Broken("cs", f"CS {cs.selector:#x} {what}: no far transfer has loaded it yet", source, unloaded=True)
    if state.efer & EFER_LMA and cs.long and cs.big:
        yield Broken("cs", "CS has both L and D in IA-32e mode", source)
    yield from _cache("cs", cs, source)


def real_code(cs: Segment) -> bool:
    """CS is as real mode left it when CR0.PE was set. The emulator's real mode has code in its cache; a CPU has data
    there (SDM vol. 3A, table 10-1: read/write, accessed), and keeps it until a far transfer loads CS. A descriptor may
    give CS the base of real mode too: only a look at memory tells the two apart (`unless_loaded`)."""
    if cs.access != REAL_CODE or cs.limit != REAL_LIMIT:
        return False
    return cs.base == cs.selector << 4 or (cs.selector, cs.base) == RESET_CODE


def _stack(state: CpuState, unrestricted: bool, source: str) -> Iterator[Broken]:
    ss = state.ss
    if not unrestricted and ss.dpl != ss.selector & 3:
        yield Broken("ss", f"SS.DPL {ss.dpl} is not SS.RPL {ss.selector & 3} of selector {ss.selector:#x}", source)
    if unrestricted and ss.dpl and not state.cr0 & CR0_PE:
        yield Broken("ss", f"SS.DPL {ss.dpl} is not 0 in real mode", source)
    elif unrestricted and ss.dpl and state.cs.type == TYPE_STACKS[0]:
        yield Broken("ss", f"SS.DPL {ss.dpl} is not 0 with a data segment in CS", source)
    if usable(ss):
        if ss.type not in TYPE_STACKS:
            yield Broken("ss", f"SS type {ss.type:#x} is not accessed read/write data", source)
        yield from _cache("ss", ss, source)


def _data(name: str, s: Segment, unrestricted: bool, source: str) -> Iterator[Broken]:
    if not usable(s):
        if s.base >> 32 and name in ("fs", "gs"):  # which hold without a descriptor too
            yield from _base(name, s.base, source)
        return
    upper = name.upper()
    if not s.type & TYPE_ACCESSED:
        yield Broken(name, f"{upper} type {s.type:#x} is not accessed", source)
    if s.type & TYPE_CODE and not s.type & TYPE_READABLE:
        yield Broken(name, f"{upper} type {s.type:#x} is execute-only code", source)
    rpl = s.selector & 3
    if not unrestricted and s.type <= TYPE_BUSY and s.dpl < rpl:
        yield Broken(name, f"{upper}.DPL {s.dpl} is below RPL {rpl} of selector {s.selector:#x}", source)
    yield from _cache(name, s, source)


def _cache(name: str, s: Segment, source: str, *, system: bool = False) -> Iterator[Broken]:
    """What holds for each usable cache: S, P, reserved rights, a limit that G can express, and the base's width."""
    upper, access, limit = name.upper(), s.access, s.limit
    if bool(access & ACCESS_S) == system:
        yield Broken(name, f"{upper} is {'no' if system else 'a'} system segment", source)
    if not access & ACCESS_P:
        yield Broken(name, f"{upper} is not present", source)
    if access & ACCESS_RESERVED:
        yield Broken(name, f"{upper} access rights {access:#x} have reserved bits", source)
    if limit >> 20 and not access & ACCESS_G:
        yield Broken(name, f"{upper} limit {limit:#x} needs G=1", source)
    if limit & 0xFFF != 0xFFF and access & ACCESS_G:
        yield Broken(name, f"{upper} limit {limit:#x} needs G=0", source)
    if s.base >> 32:
        yield from _base(name, s.base, source)


def _base(name: str, base: int, source: str) -> Iterator[Broken]:
    """Of a base above 32 bits."""
    if name in ("cs", "ss", "ds", "es"):
        yield Broken(name, f"{name.upper()} base {base:#x} has more than 32 bits", source)
    elif not canonical(base):
        yield Broken(name, f"{name.upper()} base {base:#x} is not canonical", source)


def _task(state: CpuState, source: str) -> Iterator[Broken]:
    tr, ldtr = state.tr, state.ldtr
    if not usable(tr):
        yield Broken("tr", "TR is unusable", source)
    else:
        if tr.selector & 4:
            yield Broken("tr", f"TR selector {tr.selector:#x} is in the LDT", source)
        if tr.type != TYPE_BUSY and (tr.type != TYPE_BUSY16 or state.efer & EFER_LMA):
            yield Broken("tr", f"TR type {tr.type:#x} is not a busy TSS", source)
        yield from _cache("tr", tr, source, system=True)
    if usable(ldtr):
        if ldtr.selector & 4:
            yield Broken("ldtr", f"LDTR selector {ldtr.selector:#x} is in the LDT", source)
        if ldtr.type != TYPE_LDT:
            yield Broken("ldtr", f"LDTR type {ldtr.type:#x} is not an LDT", source)
        yield from _cache("ldtr", ldtr, source, system=True)


def _pointers(state: CpuState, read: ReadPhysical) -> Iterator[Broken]:
    """The page-directory-pointer-table entries, which PAE paging outside IA-32e mode loads with CR3. Without EPT those
    in memory are looked at; with it those that the hypervisor has loaded, from the same place."""
    if not state.cr0 & CR0_PG or not state.cr4 & CR4_PAE or state.efer & EFER_LMA:
        return
    base = state.cr3 & PDPT_BASE
    table = read(base, PDPTES * 8)
    if table is None or len(table) < PDPTES * 8:
        return
    for number in range(PDPTES):
        entry = int.from_bytes(table[8 * number : 8 * number + 8], "little")
        if entry & 1 and (reserved := entry & PDPTE_RESERVED):
            text = f"PDPTE{number} at {base + 8 * number:#x} is {entry:#x}, with reserved bits {reserved:#x}"
            yield Broken("cr3", text, "SDM 3C 26.3.1.6")


# -- SVM


def _svm(state: CpuState) -> Iterator[Broken]:
    """VMRUN's consistency checks: AMD takes segments as they are, big real mode and paged real mode too."""
    source = "APM 2, 15.5.1"
    if state.cr0 & CR0_NW and not state.cr0 & CR0_CD:
        yield Broken("cr0", f"CR0 {state.cr0:#x} has NW without CD", source)
    for name, value in (("cr0", state.cr0), ("dr6", state.dr[6]), ("dr7", state.dr[7])):
        if value >> 32:
            yield Broken(name, f"{name.upper()} {value:#x} has more than 32 bits", source)
    for name, value, reserved in (
        ("cr3", state.cr3, state.cr3 >> MAX_PHYSICAL_BITS << MAX_PHYSICAL_BITS),
        ("cr4", state.cr4, state.cr4 & CR4_RESERVED_AMD),
        ("efer", state.efer, state.efer & EFER_RESERVED_AMD),
    ):
        if reserved:
            yield Broken(name, f"{name.upper()} {value:#x} has reserved bits {reserved:#x}", source)
    if state.efer & EFER_LME and state.cr0 & CR0_PG:
        if not state.cr4 & CR4_PAE:
            yield Broken("cr4", f"EFER.LME and CR0.PG are set, and CR4 {state.cr4:#x} has no PAE", source)
        if not state.cr0 & CR0_PE:
            yield Broken("cr0", f"EFER.LME and CR0.PG are set, and CR0 {state.cr0:#x} has no PE", source)
        if state.cr4 & CR4_PAE and state.cs.long and state.cs.big:
            yield Broken("cs", "CS has both L and D in long mode", source)


#: Big real mode is one by a limit or a D/B bit that virtual-8086 mode does not have.
VTX2006 = Rules(
    "vtx2006", "VT-x of 2006, without unrestricted guest", _vtx2006, True,
    never=MappingProxyType({
        Mode.BIG_REAL: "big real mode is not entered: real mode runs as virtual 8086, with limits of 0xffff"
        " (SDM 3C 26.3.1.2)"
    }),
)  # fmt: skip
VTX = Rules("vtx", "VT-x with unrestricted guest", _vtx, True)
SVM = Rules("svm", "AMD SVM", _svm)
#: The CPUs whose rules are known from their documents, by name.
RULES: Mapping[str, Rules] = MappingProxyType({rules.name: rules for rules in (VTX2006, VTX, SVM)})
__all__ = ["RULES", "SVM", "VTX", "VTX2006", "Broken", "Rules", "real_code", "unless_loaded", "usable"]
