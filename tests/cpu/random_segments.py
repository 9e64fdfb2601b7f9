"""Random streams that load segments in protected mode: of all types, present or not, of each DPL, null, beyond a
table, by MOV, POP and LxS, with accesses by way of them; VERR, VERW, LAR and LSL of the same selectors.

GS stays what the image needs it for. SS is given stacks of another limit, size or none at all: the refused ones leave
it as it was. What an exception pushes, code included, is printed; which descriptors were accessed is summed up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from cpu.random_integers import Integers
from cpu.random_streams import AF, ZF

#: Behind the eight descriptors of every image: name -> base, limit field, access byte, G, D/B (SDM vol. 3A, 3.4.5).
DESCRIPTORS = {
    "data": (0x20000, 0xFFFF, 0x92, 0), "small": (0x20000, 0x0FF0, 0x92, 0), "read-only": (0x30000, 0xFFFF, 0x90, 0),
    "down": (0x20000, 0x0FFF, 0x96, 0), "down, big": (0x20000, 0x0FFF, 0x96, 4), "pages": (0x50000, 0x7, 0x92, 8),
    "ring 3": (0x30000, 0xFFFF, 0xF2, 0), "ring 1": (0x30000, 0xFFFF, 0xB2, 0), "absent": (0x20000, 0xFFFF, 0x12, 0),
    "code": (0x20000, 0xFFFF, 0x9A, 0), "execute-only": (0x20000, 0xFFFF, 0x98, 0),
    "conforming": (0x20000, 0xFFFF, 0x9E, 0), "conforming, execute-only": (0x20000, 0xFFFF, 0x9C, 0),
    "absent code": (0x20000, 0xFFFF, 0x1A, 0), "TSS": (0x9600, 0x67, 0x89, 0), "16-bit TSS": (0x9600, 0x2B, 0x81, 0),
    "LDT": (0x9400, 0x3F, 0x82, 0), "call gate": (8, 0, 0x8C, 0), "interrupt gate": (8, 0, 0x8E, 0),
    "task gate": (0, 0, 0x85, 0), "type 0": (0, 0xFFFF, 0x80, 0), "type 8": (0, 0xFFFF, 0x88, 0),
    "stack": (0x40000, 0xFFFF, 0x92, 0), "big stack": (0x40000, 0xFFFF, 0x92, 4),
    "down stack": (0x40000, 0xFFF, 0x96, 0),
}  # fmt: skip
NAMES = tuple(DESCRIPTORS)
#: In the LDT: a data segment of each ring, an absent one, code.
LOCAL = [(0x30000, 0x7FFF, access, 0) for access in (0x92, 0xB2, 0xD2, 0xF2, 0x12, 0x9A, 0x90, 0x96)]
FIRST = 8
GOOD = ("data", "small", "read-only", "down", "down, big", "pages", "ring 3", "code", "conforming")
STACKS = ("stack", "big stack", "down stack")


def selector(name: str, rpl: int = 0) -> int:
    return (FIRST + NAMES.index(name)) * 8 | rpl


@dataclass
class Segments(Integers):
    kind: str = "segments"
    blocks: int = 240
    length: int = 20
    modes = ("protected16", "protected32")
    symbols = ("SEGMENTS",)
    sums: ClassVar[int] = 5

    def kinds(self) -> tuple[tuple[Callable[[], None], int], ...]:
        return (
            (self.load, 14), (self.load_stack, 3), (self.asked, 14), (self.access, 8), (self.store_selector, 8),
            (self.arithmetic_, 14), (self.condition, 8), (self.immediate_, 8), (self.extend_, 6), (self.adjust, 3),
        )  # fmt: skip

    def macros(self) -> str:
        def table(name: str, entries: list[tuple[int, int, int, int]]) -> str:
            lines = [
                f"        SEGMENT {base:#x}, {limit:#x}, {access:#x}, {more}" for base, limit, access, more in entries
            ]
            return "\n".join([f"%macro {name} 0", *lines, "%endmacro"])

        count = f"%define DESCRIPTORS {FIRST + len(NAMES)}"
        return "\n".join([count, table("SEGMENTS_GDT", list(DESCRIPTORS.values())), table("SEGMENTS_LDT", LOCAL)])

    def any_selector(self, good: float) -> int:
        """One that a data segment can be loaded with, as often as `good` says; else any at all."""
        if self.source.random() < good:
            if self.source.random() < 0.2:
                return 4 | 8 * self.source.choice((0, 1, 2, 3, 6, 7))
            name = self.source.choice(GOOD)
            return selector(
                name, 3 if name == "conforming" else self.source.choice((0, 0, 0, DESCRIPTORS[name][2] >> 5 & 3))
            )
        rpl = self.source.choice((0, 0, 0, 1, 2, 3))
        choice = self.source.random()
        if choice < 0.15:
            return rpl  # null
        if choice < 0.3:  # beyond the end of the GDT or LDT
            return self.source.choice((0x7FF8, FIRST * 8 + 8 * len(NAMES), 0x44, 0xFFFC)) | rpl
        if choice < 0.45:
            return 4 | 8 * self.source.randrange(8) | rpl
        return selector(self.source.choice(NAMES), rpl)

    def load(self) -> None:
        register, value = self.source.choice(("ds", "es", "fs")), self.any_selector(0.93)
        choice = self.source.random()
        if choice < 0.35:
            self.emit(f"mov ax, {value:#x}")
            self.emit(f"mov {register}, ax")
        elif choice < 0.5:
            self.emit(f"mov word [gs:0x662], {value:#x}")
            self.emit(f"mov {register}, [gs:0x662]")
        elif choice < 0.75:
            self.emit(f"push word {value:#x}")
            self.emit(f"o16 pop {register}")
        else:
            size = self.source.choice((2, 4))
            self.emit(f"mov word [gs:{0x660 + size:#x}], {value:#x}")
            self.emit(f"mov dword [gs:0x660], {value << 16 | self.source.getrandbits(16):#x}" if size == 2 else "nop")
            self.emit(f"l{register} {self.register(size)}, [gs:0x660]")

    def load_stack(self) -> None:
        """A stack of which nothing is used here, or one that cannot be."""
        value = selector(self.source.choice(STACKS)) if self.source.random() < 0.8 else self.any_selector(0.1)
        if value & ~3 and self.usable(value):
            return
        self.emit(f"mov ax, {value:#x}")
        self.emit("mov ss, ax")
        self.emit("nop")

    def usable(self, value: int) -> bool:
        """It is taken as a stack, but is no memory of this stream's stack."""
        local = value & 4
        entry = LOCAL[value >> 3] if local and value >> 3 < len(LOCAL) else None
        if not local and FIRST <= value >> 3 < FIRST + len(NAMES):
            name = NAMES[(value >> 3) - FIRST]
            if name in STACKS:
                return False
            entry = DESCRIPTORS[name]
        return entry is not None and not value & 3 and entry[2] & 0xFA == 0x92

    def asked(self) -> None:
        value = self.any_selector(0.3)
        name, size = self.source.choice(("verr", "verw", "lar", "lsl")), self.source.choice((2, 4))
        self.emit(f"mov {'cx' if self.source.random() < 0.5 else 'word [gs:0x662]'}, {value:#x}")
        place = "cx" if " cx" in self.lines[-1] else "[gs:0x662]"
        if name in ("verr", "verw"):
            self.emit(f"{name} {'word ' if place[0] == '[' else ''}{place}")
        else:
            place = "ecx" if place == "cx" and size == 4 else place
            self.emit(f"{name} {self.register(size)}, {place}")
        self.undefined &= ~ZF

    def access(self) -> None:
        size = self.source.choice((1, 2, 4))
        segment = self.source.choice(("ds", "es", "fs"))
        offset = self.source.choice(
            (0x0FEE, 0x0FF0, 0x0FFE, 0x1000, *[self.source.randrange(0x1100, 0x7000) & ~3] * 3, 0x200)
        )
        place = f"{ {1: 'byte', 2: 'word', 4: 'dword'}[size] } [{segment}:{offset:#x}]"
        self.emit(
            f"mov {self.register(size)}, {place}"
            if self.source.random() < 0.75
            else f"mov {place}, {self.register(size)}"
        )

    def store_selector(self) -> None:
        register = self.source.choice(("ds", "es", "fs", "ss", "cs"))
        self.emit(f"mov {self.register(self.source.choice((2, 4)))}, {register}")

    def adjust(self) -> None:
        self.emit(f"arpl {self.register(2)}, {self.register(2)}")
        self.undefined &= ~ZF

    def immediate_(self) -> None:
        size = self.source.choice((1, 2, 4))
        self.emit(f"{self.source.choice(('mov', 'add', 'sub'))} {self.register(size)}, {self.immediate(size):#x}")
        self.undefined = 0 if "mov" not in self.lines[-1] else self.undefined

    def extend_(self) -> None:
        name, size = self.source.choice(("movzx", "movsx")), self.source.choice((1, 2))
        self.emit(f"{name} {self.register(4)}, {self.register(size)}")

    def arithmetic_(self) -> None:
        size = self.source.choice((1, 2, 4))
        name = self.source.choice(("add", "sub", "cmp", "xor", "or"))
        self.emit(f"{name} {self.register(size)}, {self.register(size)}")
        self.undefined = AF if name in ("xor", "or") else 0
