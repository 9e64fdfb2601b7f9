"""What a guest can be stopped at besides addresses: events, as values with the words for them."""

from __future__ import annotations

from emu.engine import Access
from emu.named import Enum
from emu.record import dataclass
from emu.typed import TYPE_CHECKING
from emu.x86.classes import InstructionClass

if TYPE_CHECKING:
    import re

    from emu.x86.vmentry import Rules


class CatchKind(Enum):
    """An event; the value is the prompt's word for it."""

    PHYSICAL = "physical"  #: before an instruction, or behind an access
    INT = "int"  #: in the handler of a software interrupt by INT n
    EXCEPTION = "exception"  #: in the handler of an exception, #BP by INT3 and #OF by INTO among them
    INTERRUPT = "interrupt"  #: in the handler of a hardware interrupt
    PORT = "port"  #: behind IN or OUT
    MSR = "msr"  #: before RDMSR or WRMSR
    CR = "cr"  #: before MOV to CRn, LMSW, CLTS
    MODE = "mode"  #: behind the change
    TABLE = "table"  #: before LGDT, LIDT, LLDT, LTR
    SEGMENT = "segment"  #: before the load
    IRET = "iret"  #: before it
    TASK = "task"  #: behind the switch
    MAGIC = "magic"  #: before XCHG BX,BX
    SCREEN = "screen"  #: when the text appears
    SERIAL = "serial"  #: behind the character that completes the text
    DEBUGCON = "debugcon"
    ENTERABLE = "enterable"  #: behind what makes the state one that a native CPU can enter
    UNENTERABLE = "unenterable"  #: behind what makes it one that it cannot
    COUNT = "insns"  #: behind so many instructions


@dataclass(frozen=True, slots=True)
class Catch:
    """One event to stop at. `first` to `last` are vectors, ports, MSRs or bytes of physical memory; `first` alone is
    the number of a control register, or of instructions retired since reset. None: any. `access` says which of reads
    and writes, and for PHYSICAL None means execution. `mask`: those bits of the control register have to change (0: any
    write). `classes` are the instructions that may be it. `text` is what people are shown."""

    kind: CatchKind
    first: int | None = None
    last: int | None = None
    access: Access | None = Access.BOTH
    mask: int = 0
    classes: int = 0
    pattern: re.Pattern[str] | None = None
    text: str = ""
    rules: Rules | None = None  #: by which a state can be entered

    def covers(self, number: int, length: int = 1) -> bool:
        """True when one of `length` numbers from `number` on is meant."""
        if self.first is None:
            return True
        last = self.first if self.last is None else self.last
        return number <= last and self.first < number + length


#: The classes of instructions by the register that they load.
TABLES = {
    "gdtr": InstructionClass.LGDT, "idtr": InstructionClass.LIDT, "ldtr": InstructionClass.LLDT,
    "tr": InstructionClass.LTR,
}  # fmt: skip
SEGMENTS = {name: InstructionClass.SEGMENT_ES << n for n, name in enumerate(("es", "cs", "ss", "ds", "fs", "gs"))}
#: What of them an instruction is, where that takes no more words.
PLAIN_CLASSES = {
    CatchKind.IRET: InstructionClass.IRET,
    CatchKind.MAGIC: InstructionClass.MAGIC,
    CatchKind.CR: InstructionClass.CONTROL,
}
#: What loads any part of the state that the rules for an entry look at.
ENTRY_CLASSES = sum(SEGMENTS.values()) | int(
    InstructionClass.IRET | InstructionClass.CONTROL | InstructionClass.WRMSR
    | InstructionClass.LGDT | InstructionClass.LIDT | InstructionClass.LLDT | InstructionClass.LTR
)  # fmt: skip
