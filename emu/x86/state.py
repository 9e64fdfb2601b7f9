"""The CPU's whole architectural state, hidden parts included, as plain values any engine can read and write."""

from __future__ import annotations

import functools
from collections.abc import Callable
from operator import attrgetter

from emu.record import dataclass, field, fields
from emu.typed import Any

#: Segment registers in the order of the SDM's encoding (vol. 2A, table 2-1: ES 0, CS 1, SS 2, DS 3, FS 4, GS 5).
SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
#: General registers in encoding order (SDM vol. 2A, table 3-1).
GENERAL = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip

CR0_PE = 1 << 0
CR0_WP = 1 << 16
CR0_AM = 1 << 18
CR0_CACHE = 3 << 29  #: NW and CD
CR0_PG = 1 << 31
CR4_VME = 1 << 0
CR4_PVI = 1 << 1
CR4_PSE = 1 << 4
CR4_PAE = 1 << 5
CR4_OSXSAVE = 1 << 18
EFER_LME = 1 << 8
EFER_LMA = 1 << 10
#: IA32_PAT after RESET (SDM vol. 3A, 12.12.4).
PAT_RESET = 0x0007040600070406
#: EDX after RESET of a state made for no model in particular: family 6, model 6, stepping 3 (SDM vol. 3A, 10.1.2).
RESET_SIGNATURE = 0x663
RFLAGS_TF = 1 << 8
RFLAGS_IF = 1 << 9
RFLAGS_DF = 1 << 10
RFLAGS_VM = 1 << 17
RFLAGS_AC = 1 << 18
RFLAGS_VIF = 1 << 19
RFLAGS_VIP = 1 << 20
#: Flags that are always 0 (SDM vol. 1, 3.4.3).
RFLAGS_ZERO = ~((1 << 22) - 1) | 1 << 15 | 1 << 5 | 1 << 3
#: Type of a descriptor (SDM vol. 3A, table 3-2).
TASK_GATE = 5
#: Exceptions that push an error code in protected mode (SDM vol. 3A, table 6-1).
WITH_CODE = frozenset((8, 10, 11, 12, 13, 14, 17, 21))


@dataclass(slots=True)
class Segment:
    """A segment register with its descriptor cache.

    `access` has the layout of VMX access rights (SDM vol. 3C, table 25-2): bits 3:0 type, 4 S, 6:5 DPL, 7 P,
    12 AVL, 13 L, 14 D/B, 15 G, 16 unusable. `limit` is in bytes, already scaled by G. `base` is linear.
    """

    selector: int = 0
    base: int = 0
    limit: int = 0xFFFF
    access: int = 0x93

    @property
    def type(self) -> int:
        return self.access & 0xF

    @property
    def dpl(self) -> int:
        return self.access >> 5 & 3

    @property
    def present(self) -> bool:
        return bool(self.access & 0x80)

    @property
    def big(self) -> bool:
        """D/B: 32-bit default operand size (CS) or stack pointer (SS)."""
        return bool(self.access & 0x4000)

    @property
    def long(self) -> bool:
        return bool(self.access & 0x2000)


@dataclass(slots=True)
class Table:
    """GDTR or IDTR: linear base, limit in bytes."""

    base: int = 0
    limit: int = 0xFFFF


@dataclass(slots=True)
class Fpu:
    """x87 and SSE state. `st` are the 80-bit values ST(0)..ST(7) as integers; `ftw` is the abridged tag byte of FXSAVE
    (SDM vol. 1, 10.5.1: bit set = not empty), by physical register; `xmm` are 128-bit integers."""

    fcw: int = 0x37F
    fsw: int = 0
    ftw: int = 0
    fop: int = 0
    fip: int = 0
    fcs: int = 0
    fdp: int = 0
    fds: int = 0
    mxcsr: int = 0x1F80
    st: list[int] = field(default_factory=lambda: [0] * 8)
    xmm: list[int] = field(default_factory=lambda: [0] * 16)


@dataclass(slots=True)
class CpuState:
    """Everything an engine must carry to continue a CPU elsewhere, to the instruction.

    The default value is the state after RESET (SDM vol. 3A, table 10-1). Integers are unsigned.
    """

    regs: list[int] = field(default_factory=lambda: [0, 0, RESET_SIGNATURE, *[0] * 13])  #: GENERAL order, 64-bit
    rip: int = 0xFFF0
    rflags: int = 2
    es: Segment = field(default_factory=Segment)
    cs: Segment = field(default_factory=lambda: Segment(0xF000, 0xFFFF0000, 0xFFFF, 0x9B))
    ss: Segment = field(default_factory=Segment)
    ds: Segment = field(default_factory=Segment)
    fs: Segment = field(default_factory=Segment)
    gs: Segment = field(default_factory=Segment)
    ldtr: Segment = field(default_factory=lambda: Segment(0, 0, 0xFFFF, 0x82))
    tr: Segment = field(default_factory=lambda: Segment(0, 0, 0xFFFF, 0x8B))
    gdtr: Table = field(default_factory=Table)
    idtr: Table = field(default_factory=Table)
    cr0: int = 0x60000010
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    cr8: int = 0
    dr: list[int] = field(default_factory=lambda: [0, 0, 0, 0, 0, 0, 0xFFFF0FF0, 0x400])  #: DR0-3, DR6 and DR7 used
    efer: int = 0
    msrs: dict[int, int] = field(default_factory=dict)  #: MSR number to value, those the engine keeps beside the above
    fpu: Fpu = field(default_factory=lambda: Fpu(fcw=0x40, ftw=0xFF))
    halted: bool = False
    shadow: bool = False  #: STI or MOV SS interrupt shadow covers the next instruction
    nmi_blocked: bool = False
    nmi_pending: bool = False  #: an NMI has come, and waits for the next boundary or for IRET
    smm: bool = False  #: system management mode
    smm_nmi: bool = False  #: NMIs were blocked when it was entered
    smbase: int = 0x30000
    a20: bool = True  #: address line 20 enabled (gate outside the CPU, carried here because engines mask by it)
    xcr0: int = 1  #: which components XSAVE has (SDM vol. 1, 13.3); of a CPU without XSAVE as after RESET

    @property
    def linear_pc(self) -> int:
        """CS base + RIP, wrapped to 32 bits outside 64-bit mode."""
        return self.rip if self.long64 else (self.cs.base + self.rip) & 0xFFFFFFFF

    @property
    def long64(self) -> bool:
        return bool(self.efer & EFER_LMA and self.cs.long)

    def brief(self) -> tuple[int, ...]:
        """Where the CPU is, in one look: the linear PC, RIP, RSP, RBP, RFLAGS, the selectors of CS and SS, the width of
        code (`emu.x86.modes.code_bits`), RAX, RCX, RDX, RBX, RSI, RDI and CR0."""
        bits = 64 if self.long64 else 32 if self.cs.big else 16
        regs, cs = self.regs, self.cs.selector
        where = self.linear_pc, self.rip, regs[4], regs[5], self.rflags, cs, self.ss.selector, bits
        return *where, *regs[:4], *regs[6:8], self.cr0

    @property
    def sysenter(self) -> tuple[int, int]:
        """IA32_SYSENTER_ESP and IA32_SYSENTER_EIP; 0 of a CPU without them."""
        return self.msrs.get(0x175, 0), self.msrs.get(0x176, 0)

    @property
    def pat(self) -> int:
        """IA32_PAT; what it is after RESET of a CPU without it."""
        return self.msrs.get(0x277, PAT_RESET)

    @property
    def cpl(self) -> int:
        """Current privilege level: 0 in real mode, 3 in V86, else SS.DPL (SDM vol. 3A, 5.5)."""
        if not self.cr0 & CR0_PE:
            return 0
        if self.rflags & RFLAGS_VM:
            return 3
        return self.ss.dpl

    def segment(self, name: str) -> Segment:
        """The segment register `name` (es cs ss ds fs gs ldtr tr)."""
        value: Segment = getattr(self, name)
        return value

    def copy(self) -> CpuState:
        """A deep copy."""
        twin: CpuState = _copy(self)
        return twin


@functools.cache
def _parts(kind: Any) -> Callable[[Any], tuple[Any, ...]]:
    """What a class's objects are made of, in its constructor's order."""
    return attrgetter(*(f.name for f in fields(kind)))


def _copy(value: Any) -> Any:
    if type(value) is int:
        return value
    if isinstance(value, CpuState | Segment | Table | Fpu):
        kind: Any = type(value)
        return kind(*map(_copy, _parts(kind)(value)))
    if isinstance(value, list):
        return list(value)
    if isinstance(value, dict):
        return dict(value)
    return value
