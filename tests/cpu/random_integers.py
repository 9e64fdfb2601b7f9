"""Random streams of the integer instructions: arithmetic, shifts, bits, stack, strings, decimals, exchanges, flags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cpu.random_streams import AF, ARITHMETIC, CF, CONDITIONS, OF, PF, SF, ZF, Stream


@dataclass
class Integers(Stream):
    kind: str = "integers"
    modes = ("real", "protected16", "protected32")

    def kinds(self) -> tuple[tuple[Callable[[], None], int], ...]:
        return (
            (self.arithmetic, 22), (self.move, 14), (self.unary, 8), (self.shift, 10), (self.multiply, 5),
            (self.divide, 2), (self.bits_, 5), (self.stack, 8), (self.string, 7), (self.extend, 5), (self.condition, 7),
            (self.exchange, 5), (self.decimal, 3), (self.flags, 3), (self.address, 3),
        )  # fmt: skip

    def opening(self) -> None:
        """Nothing: each instruction takes the registers as they are."""

    def arithmetic(self) -> None:
        names = ["add", "sub", "cmp", "and", "or", "xor", "test"] + ([] if self.undefined & CF else ["adc", "sbb"])
        name, size = self.source.choice(names), self.source.choice((1, 2, 4))
        target = self.place(size)
        if "[" in target or self.source.random() < 0.4:
            other = self.register(size) if self.source.random() < 0.5 else f"{self.immediate(size):#x}"
        else:
            other = self.memory(size) if name != "test" else self.register(size)
        if name in ("adc", "sbb") and self.undefined & CF:
            name = "add"
        self.emit(f"{name} {target}, {other}")
        self.undefined = AF if name in ("and", "or", "xor", "test") else 0

    def move(self) -> None:
        size = self.source.choice((1, 2, 4))
        choice = self.source.random()
        if choice < 0.3:
            self.emit(f"mov {self.register(size)}, {self.immediate(size):#x}")
        elif choice < 0.6:
            self.emit(f"mov {self.memory(size)}, {self.register(size)}")
        else:
            self.emit(f"mov {self.register(size)}, {self.memory(size)}")

    def unary(self) -> None:
        name, size = self.source.choice(("inc", "dec", "neg", "not")), self.source.choice((1, 2, 4))
        self.emit(f"{name} {self.place(size)}")
        if name == "neg":
            self.undefined = 0
        elif name != "not":
            self.undefined &= CF

    def shift(self) -> None:
        size = self.source.choice((1, 2, 4))
        names = ["shl", "shr", "sar", "rol", "ror"] + ([] if self.undefined & CF else ["rcl", "rcr"])
        name = self.source.choice(names)
        place = self.place(size)
        if name in ("rcl", "rcr") and self.undefined & CF:
            name = "rol"
        if self.source.random() < 0.15:
            double = self.source.choice(("shld", "shrd"))
            size = self.source.choice((2, 4))
            count = self.source.randrange(1, 8 * size)
            self.emit(f"{double} {self.place(size)}, {self.register(size)}, {count}")
            self.undefined = AF | (OF if count > 1 else 0)
            return
        count = self.source.randrange(1, 8 * size)
        self.emit(f"{name} {place}, {count}")
        if name in ("shl", "shr", "sar"):
            self.undefined = AF | (OF if count > 1 else 0)
        elif count > 1:
            self.undefined |= OF
        else:
            self.undefined &= ~(CF | OF)
        if name in ("rol", "ror", "rcl", "rcr"):
            self.undefined &= ~CF

    def multiply(self) -> None:
        size = self.source.choice((1, 2, 4))
        choice = self.source.random()
        if choice < 0.5 or size == 1:
            self.emit(f"{self.source.choice(('mul', 'imul'))} {self.place(size)}")
        elif choice < 0.75:
            self.emit(f"imul {self.register(size)}, {self.place(size)}")
        else:
            self.emit(f"imul {self.register(size)}, {self.place(size)}, {self.immediate(size):#x}")
        self.undefined = SF | ZF | AF | PF

    def divide(self) -> None:
        size = self.source.choice((1, 2, 4))
        if self.source.random() < 0.8:  # rarely an overflow
            self.emit({1: "movzx ax, al", 2: "xor dx, dx", 4: "xor edx, edx"}[size])
        self.emit(f"{self.source.choice(('div', 'idiv'))} {self.place(size)}")
        self.undefined = ARITHMETIC

    def bits_(self) -> None:
        size = self.source.choice((2, 4))
        name = self.source.choice(("bt", "bts", "btr", "btc"))
        if self.source.random() < 0.7:
            self.emit(f"{name} {self.place(size)}, {self.source.randrange(64)}")
        else:
            self.emit(f"{name} {self.register(size)}, {self.register(size)}")
        self.undefined = (self.undefined | OF | SF | AF | PF) & ~CF

    def stack(self) -> None:
        size = self.source.choice((2, 4))
        choice = self.source.randrange(8)
        if choice == 0:
            self.emit("pusha" if size == 2 else "pushad")
        elif choice == 1:
            self.emit(f"push {'word' if size == 2 else 'dword'} {self.immediate(1):#x}")
        elif choice == 2:
            self.emit(f"push {self.memory(size)}")
        elif choice == 3:
            self.emit(f"pop {self.memory(size)}")
        elif choice == 4:
            self.emit(f"enter {self.source.randrange(64)}, {self.source.randrange(3)}" if self.bits == 16 else "nop")
        elif choice == 5:
            self.emit(f"push {self.register(size)}")
        else:
            self.emit(f"pop {self.register(size)}")

    def string(self) -> None:
        name = self.source.choice(("movs", "stos", "lods", "cmps", "scas")) + self.source.choice("bwd")
        if self.bits == 32:
            self.emit("and esi, 0x7fff")
            self.emit("and edi, 0x7fff")
            self.undefined = AF
        prefix = ""
        if self.source.random() < 0.5:
            self.emit(f"mov {'ecx' if self.bits == 32 else 'cx'}, {self.source.randrange(1, 6)}")
            prefix = self.source.choice(("repe ", "repne ")) if name[:4] in ("cmps", "scas") else "rep "
        segment = self.source.choice(("", "", "es ", "fs ")) if name[:4] in ("movs", "lods", "cmps") else ""
        self.emit(f"{segment}{prefix}{name}")
        if name[:4] in ("cmps", "scas"):
            self.undefined = 0

    def extend(self) -> None:
        name = self.source.choice(("movzx", "movsx"))
        choice = self.source.random()
        if choice < 0.4:
            self.emit(f"{name} {self.register(4)}, {self.place(2)}")
        elif choice < 0.8:
            self.emit(f"{name} {self.register(self.source.choice((2, 4)))}, {self.place(1)}")
        else:
            self.emit(self.source.choice(("cbw", "cwde", "cwd", "cdq", "bswap eax", "bswap edx")))

    def condition(self) -> None:
        allowed = [name for name, reads in CONDITIONS.items() if not reads & self.undefined]
        if not allowed:
            return
        name = self.source.choice(allowed)
        choice = self.source.random()
        if choice < 0.4:
            self.emit(f"set{name} {self.register(1)}")
        elif choice < 0.7:
            size = self.source.choice((2, 4))
            self.emit(f"cmov{name} {self.register(size)}, {self.register(size)}")
        else:
            self.emit(f"j{name} $ + 2 + 2")
            self.emit("inc ax" if self.bits == 32 else "mov al, 5")

    def exchange(self) -> None:
        if self.source.random() < 0.15 and not self.sparse:  # the portable loop may lose AF (docs/fidelity.md)
            self.emit(f"cmpxchg8b {self.memory(8)}")
            self.undefined &= ~ZF
            return
        size = self.source.choice((1, 2, 4))
        name = self.source.choice(("xchg", "xadd", "cmpxchg"))
        self.emit(f"{name} {self.place(size)}, {self.register(size)}")
        if name != "xchg":
            self.undefined = 0

    def decimal(self) -> None:
        choice = self.source.randrange(4)
        if choice < 2 and not self.undefined & (AF | CF):
            self.emit(("daa", "das")[choice])
            self.undefined = OF
        elif choice == 2 and not self.undefined & AF:
            self.emit(self.source.choice(("aaa", "aas")))
            self.undefined = OF | SF | ZF | PF
        elif choice == 3:
            self.emit(self.source.choice(("aam", "aad")))
            self.undefined = OF | AF | CF

    def flags(self) -> None:
        name = self.source.choice(("stc", "clc", "cmc", "sahf", "lahf", "std", "cld", "salc"))
        if (name in ("cmc", "salc") and self.undefined & CF) or (name == "lahf" and self.undefined & ~OF):
            return
        self.emit(name)
        if name in ("stc", "clc"):
            self.undefined &= ~CF
        elif name == "sahf":
            self.undefined &= OF

    def address(self) -> None:
        size = self.source.choice((2, 4))
        form = self.source.choice(("bx+si+5", "bp+di", "eax+ecx*4+0x12345", "edx*8-1", "esp+8"))
        self.emit(f"lea {self.register(size)}, [{form}]")
