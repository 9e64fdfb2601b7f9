"""Frozen values that front ends show. They hold facts, not layout, which is the front ends' business."""

from __future__ import annotations

from emu.record import dataclass, field


@dataclass(frozen=True, slots=True)
class SegmentView:
    """A segment register: what the CPU has cached and what its selector's table says now.

    `table_*` are None in real and V86 mode (there the comparison is with selector*16, limit 0xffff), for a null
    selector, or when the table cannot be read; `note` says which. `differs` names the fields (base, limit, access)
    in which cache and table disagree. Fields named in `unknown` (a dump without hidden state) mean nothing.
    """

    name: str
    selector: int
    base: int
    limit: int
    access: int
    text: str  #: the decoded access rights: "code16 r-x DPL 0 accessed"
    table_base: int | None = None
    table_limit: int | None = None
    table_access: int | None = None
    differs: tuple[str, ...] = ()
    note: str = ""
    unknown: tuple[str, ...] = ()
    native: str = ""  #: "yes", or the first rule of an entry into native execution that it breaks; "" where not asked


@dataclass(frozen=True, slots=True)
class VcpuView:
    """A vCPU; `shown` is the one that all other views are of. `linear_pc` is None where CS's base is unknown."""

    number: int
    shown: bool
    mode: str
    selector: int
    offset: int
    linear_pc: int | None
    cr3: int


@dataclass(frozen=True, slots=True)
class TableEntryView:
    """One GDT, LDT, IDT or IVT entry. `selector` is its offset in the table (IDT, IVT: the vector)."""

    index: int
    selector: int
    raw: bytes
    kind: str  #: "code32", "data16", "tss32 busy", "ldt", "call gate 32", "interrupt gate 32", "null", ...
    base: int | None  #: linear; for gates and vectors the target offset
    limit: int | None  #: bytes
    access: int | None
    target: int | None  #: gates and vectors: the target's selector or segment
    text: str


@dataclass(frozen=True, slots=True)
class PageLevelView:
    """One step of a page walk: physical address of the entry, its value, decoded flags."""

    level: str  #: PML4E, PDPTE, PDE, PTE
    index: int
    address: int
    entry: int
    text: str


@dataclass(frozen=True, slots=True)
class PageWalkView:
    """`physical` is None where the walk ends in a not-present or reserved entry; `fault` says which and why."""

    linear: int
    physical: int | None
    page_size: int | None
    writable: bool
    user: bool
    executable: bool
    levels: tuple[PageLevelView, ...]
    fault: str = ""


@dataclass(frozen=True, slots=True)
class InstructionView:
    """A decoded instruction. `offset` is within CS when known."""

    linear: int
    offset: int
    raw: bytes
    text: str
    current: bool = False


@dataclass(frozen=True, slots=True)
class FieldView:
    """A named bit field in the chip's words: ("IMR", 0xb8, "masked: IRQ 3 4 5 7")."""

    name: str
    value: int | str | bool
    text: str = ""


@dataclass(frozen=True, slots=True)
class TransitionView:
    """A move of the CPU: to native execution or to the emulator, with `retired` instructions, at linear `pc`."""

    retired: int
    pc: int
    native: bool
    reason: str


@dataclass(frozen=True, slots=True)
class TransitionsView:
    """Who executes: `native` or not, by whose rule, what keeps the CPU emulated. `refused` are the rules that the
    present state breaks."""

    native: bool
    hypervisor: str
    rules: str
    policy: str
    policy_state: tuple[str, ...]
    forced: str  #: "native", "emulated" or ""
    forbidden: tuple[str, ...]
    obstacle: str
    refused: tuple[str, ...]
    last: tuple[TransitionView, ...]
    strayed: str = ""  #: how often the guest came natively to what the hypervisor runs wrongly, and when last
    totals: LedgerView | None = None
    noticed: str = ""  #: that hops take the larger share of the cost, under which policy, and what to do
    sites: tuple[str, ...] = ()  #: what the policy knows of exit sites


@dataclass(frozen=True, slots=True)
class LedgerView:
    """What native execution has cost, in cycles of a hypothetical host: see emu.ledger. `exits` by cause."""

    exits: tuple[tuple[str, int], ...]
    hops_in: int
    hops_out: int
    caught: int
    failed: int
    emulated: int
    native: int
    cycles: int
    costs: tuple[tuple[str, int], ...]
    inside: int = 0  #: accesses of a native CPU to devices of the hypervisor's
    requests: int = 0  #: the same of the emulator's, submitted on the guest's behalf
    counts: bool = True  #: the native CPU counts its instructions; else `native` and `cycles` leave them out


@dataclass(frozen=True, slots=True)
class EntryView:
    """Whether a CPU that goes by the rules `title` can enter the present state natively: `broken` is each rule that
    does not hold, in a sentence; without any it can. `ahead`: what will make it enterable, where that is near."""

    rules: str
    title: str
    broken: tuple[str, ...]
    ahead: str = ""


@dataclass(frozen=True, slots=True)
class DifferenceView:
    """A register, or bytes of memory from a physical address, that two CPUs leave unlike. Memory's values are little
    endian."""

    name: str
    first: int
    second: int
    bits: int


@dataclass(frozen=True, slots=True)
class DivergenceView:
    """Where the CPUs `first` and `second` part: behind `retired` instructions from reset, at the instruction at
    `selector`:`offset`, `linear`. `what` is a sentence where it is more than values. The instruction is not known
    (None) where its bytes cannot be read."""

    first: str
    second: str
    retired: int
    selector: int
    offset: int
    linear: int
    instruction: InstructionView | None
    differences: tuple[DifferenceView, ...]
    what: str = ""

    @property
    def text(self) -> str:
        """In one line."""
        values = "; ".join(f"{d.name} {d.first:#x} and {d.second:#x}" for d in self.differences[:4])
        more = f" and {len(self.differences) - 4} more" if len(self.differences) > 4 else ""
        code = f"`{self.instruction.text}`" if self.instruction is not None else "the instruction"
        said = "; ".join(part for part in (self.what, values + more) if part)
        return (
            f"{self.first} and {self.second} part behind {code} at {self.selector:04x}:{self.offset:04x} "
            f"(linear {self.linear:#x}), {self.retired} instructions from reset: {said}"
        )


@dataclass(frozen=True, slots=True)
class LockstepView:
    """How far two CPUs were compared: `compared` instructions, of them `masked` behind which only flags differed that
    are undefined there. `ended` says in a sentence why it is over."""

    first: str
    second: str
    compared: int
    masked: int
    divergence: DivergenceView | None
    ended: str


@dataclass(frozen=True, slots=True)
class LastingView:
    """A step waits for the handler of interrupt `vector` (None: the CPU slept, and whichever came), which begins at
    `handler` ("" where the tables do not say) and has not come back to `back`; the guest is at `here`. Places are CS:IP
    in hex. `instructions` have retired since, and `ns` of virtual time have passed."""

    vector: int | None
    handler: str
    back: str
    here: str
    instructions: int
    ns: int

    @property
    def summary(self) -> str:
        """All of it, as a sentence."""
        who = "no handler" if self.vector is None else f"the handler of interrupt {self.vector:#04x}"
        at = f" at {self.handler}" if self.handler else ""
        has = "has" if self.vector is None else "has not"
        return (
            f"{who}{at} {has} come back to {self.back} in {self.instructions} instructions "
            f"({self.ns / 1e9:.3g} s of virtual time); the guest is at {self.here}"
        )


@dataclass(frozen=True, slots=True)
class StuckView:
    """Whether the guest gets anywhere. `verdict` is one word: halted, idle (for an interrupt), forever (a loop without
    a way out), waits (a loop that something else must end), counts (a loop that ends by itself), faults, interrupts
    (a storm of them), clock (a loop that a clock ends, which runs, or the
    handler of an interrupt that comes again and again), entries (the hypervisor's CPU fails to enter again
    and again, though its rules let it in), zeros (the CPU has run off into memory of zeros),
    ended (it has, or is about to), or moves. `summary` is a sentence, `details` more of them, `code` the loop.
    `awaited` are the (physical address, length) of memory that it waits for, with interrupts on: as these change, the
    guest gets on."""

    verdict: str
    summary: str
    details: tuple[str, ...] = ()
    code: tuple[InstructionView, ...] = ()
    awaited: tuple[tuple[int, int], ...] = ()

    @property
    def stuck(self) -> bool:
        """Nothing that the CPU does by itself will change what is described."""
        return self.verdict not in ("moves", "counts", "clock", "idle")


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A device: its chip, where it is, its registers decoded."""

    name: str
    chip: str
    where: str
    fields: tuple[FieldView, ...]


@dataclass(frozen=True, slots=True)
class ScreenView:
    """What the display shows. `rows` is text (trailing blanks kept), `attributes` one byte a cell, row by row.
    `cursor` is (row, column) or None when hidden or off screen. `mode` says "text 80x25", "off" or what it is."""

    mode: str
    rows: tuple[str, ...]
    attributes: tuple[bytes, ...] = ()
    cursor: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        """The rows, right-stripped, joined by newlines: what `--until text:` is matched on."""
        return "\n".join(row.rstrip() for row in self.rows)


@dataclass(frozen=True, slots=True)
class PictureView:
    """What the display shows, as a picture: `pixels` is 3 bytes a pixel, red, green, blue, row by row from the top.
    `mode` as that of ScreenView. Size 0 by 0 when the screen is off."""

    mode: str
    width: int
    height: int
    pixels: bytes


@dataclass(frozen=True, slots=True)
class RegionView:
    """A range of the physical memory or port map."""

    first: int
    last: int
    kind: str  #: ram, rom, mmio, port, hole
    name: str
    owner: str = ""  #: `hypervisor` or `userspace`, has this device; empty of memory and of files


@dataclass(frozen=True, slots=True)
class FingerprintView:
    """Two equal runs print the same. Hashes are hex."""

    retired: int
    virtual_ns: int
    ram: str
    cpu: str
    devices: str


@dataclass(frozen=True, slots=True)
class RegisterView:
    """A register: its width in bits, its value (None: unknown), its flags in words."""

    name: str
    bits: int
    value: int | None
    text: str = ""  #: decoded flags where the register has any: "PE ET NE PG"


@dataclass(frozen=True, slots=True)
class RegistersView:
    """The general view: mode word, the registers in the mode's width, flags decoded. `linear_pc` None: unknown."""

    mode: str
    linear_pc: int | None
    registers: tuple[RegisterView, ...]
    flags: str = ""
    extra: dict[str, int] = field(default_factory=dict)
