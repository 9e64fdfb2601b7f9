"""Images of random instructions, made to be run here and under Bochs: a line a block with a digest of registers and
defined flags, at the end of a pass one of memory.

A stream is straight-line code in blocks. Each block sets its stack pointer, executes its instructions and prints its
number, the vector of the exception that ended it early if one did, and the digest. The generator keeps track of the
flags that the last instructions left undefined (SDM vol. 1, appendix A): an instruction that reads one of those is not
chosen, and they are masked in the digest.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

CF, PF, AF, ZF, SF, OF = 1, 4, 0x10, 0x40, 0x80, 0x800
ARITHMETIC = CF | PF | AF | ZF | SF | OF
MODES = ("real", "protected16", "protected32")
R32 = ("eax", "ecx", "edx", "ebx", "ebp", "esi", "edi")
R16 = tuple(name[1:] for name in R32)
R8 = ("al", "cl", "dl", "bl", "ah", "ch", "dh", "bh")
#: cc of SETcc, Jcc, CMOVcc and the flags it reads.
CONDITIONS = {
    "o": OF, "no": OF, "c": CF, "nc": CF, "z": ZF, "nz": ZF, "be": CF | ZF, "a": CF | ZF, "s": SF, "ns": SF,
    "p": PF, "np": PF, "l": SF | OF, "ge": SF | OF, "le": SF | OF | ZF, "g": SF | OF | ZF,
}  # fmt: skip


@dataclass
class Stream:
    """A generator of one image. `undefined` holds the flags that are so at the present point."""

    mode: str
    seed: int
    blocks: int = 250
    length: int = 30
    passes: int = 7
    undefined: int = 0
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = random.Random()  # seeded when a text is made
        self.bits = 32 if self.mode == "protected32" else 16

    # -- operands

    def register(self, size: int) -> str:
        return self.source.choice({1: R8, 2: R16, 4: R32}[size])

    def immediate(self, size: int) -> int:
        edge = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
        value = self.source.choice(edge) if self.source.random() < 0.5 else self.source.getrandbits(32)
        return value & (1 << 8 * size) - 1

    def memory(self, size: int) -> str:
        word = {1: "byte", 2: "word", 4: "dword"}[size]
        segment = self.source.choice((*[""] * 10, *["es:"] * 5, *["ss:"] * 4, "fs:"))
        if self.source.random() < 0.03:  # about an end
            return f"{word} [{segment}{self.source.choice((0x7FFD, 0x7FFF, 0xFFFC, 0xFFFD, 0xFFFE, 0xFFFF)):#x}]"
        wide = (self.bits == 32) == (self.source.random() < 0.8)
        if not wide:
            form = self.source.choice(("bx+si", "bx+di", "bp+si", "bp+di", "si", "di", "bx", "bp"))
            return f"{word} [{segment}{form}{self.source.choice(('', '+5', '-7', '+0x1234'))}]"
        base = self.source.choice(("ebx", "esi", "edi", "ecx", "ebp"))
        self.emit(f"movzx {base}, {base[1:]}")
        if self.source.random() < 0.7:
            self.emit(f"shr {base}, 1")  # flags all defined, but OF is: shift by 1
            self.undefined = AF
        form = self.source.choice((base, f"{base}+0x10", f"{base}-3", f"{base}*1+0x20"))
        return f"{word} [{segment}{form}]"

    def place(self, size: int) -> str:
        return self.memory(size) if self.source.random() < 0.45 else self.register(size)

    # -- instructions

    def emit(self, text: str) -> None:
        self.lines.append("        " + text)

    def instruction(self) -> None:
        kinds = (
            (self.arithmetic, 22), (self.move, 14), (self.unary, 8), (self.shift, 10), (self.multiply, 5),
            (self.divide, 2), (self.bits_, 5), (self.stack, 8), (self.string, 7), (self.extend, 5), (self.condition, 7),
            (self.exchange, 5), (self.decimal, 3), (self.flags, 3), (self.address, 3),
        )  # fmt: skip
        kind = self.source.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
        kind()

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

    # -- the image

    def block_text(self, number: int) -> str:
        """The instructions of one block."""
        text = self.text()
        begin = text.index(f"        BLOCK {number}\n")
        return text[begin : text.index(f"\nend{number}:")]

    def lengths(self) -> list[int]:
        """How many instructions each block has."""
        bodies = self.text().split("        BLOCK ")[1:]
        return [body[: body.index("\nend")].count("\n") for body in bodies]

    def text(self) -> str:
        """The whole image as nasm source."""
        self.source = random.Random(f"{self.mode} {self.seed}")
        b = self.bits
        out = []
        for number in range(self.blocks):
            self.lines = []
            self.undefined = 0
            while len(self.lines) < self.length:
                self.instruction()
            body = "\n".join(self.lines)
            out.append(
                f"        BLOCK {number}\n{body}\nend{number}:\n"
                f"        DONE {number}, {ARITHMETIC & ~self.undefined:#x}"
            )
        return TEMPLATE.format(
            bits=b, passes=self.passes, real=int(self.mode == "real"), blocks="\n".join(out), seed=self.seed & 0xFFFF
        )


TEMPLATE = """
%include "guest.inc"
%assign BITS_ {bits}
%assign REAL {real}
org 0
rom:
GUEST_SERVICES 16
%if BITS_ == 32
GUEST_SERVICES 32
%endif
%macro BLOCK 1
        mov dword [gs:0x600], end%1
        mov esp, 0x8000
        cld
        mov byte [gs:0x61C], 0
        cmp esp, esp
%endmacro
%macro DONE 2
        mov [gs:0x608], esp
        mov dword [gs:0x60C], %2
        mov esp, 0x7000
        call digest
%endmacro
bits 16
start:  cli
        cld
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, 0x7000
        mov di, 0
        mov cx, 16
        mov ax, stubs
.ivt:   mov [di], ax
        mov word [di + 2], ROM >> 4
        add ax, 16
        add di, 4
        loop .ivt
        mov edi, 0x8000
        mov cx, 16
        mov ax, stubs
.idt:   mov [edi], ax
        mov word [edi + 2], 8           ; gates of 16 bits, whose frames hold no RF
        mov word [edi + 4], 0x8600
        mov word [edi + 6], 0
        add ax, 16
        add edi, 8
        loop .idt
        mov ax, 0x2000
        call fill
        mov ax, 0x3000
        call fill
        mov ax, 0x4000
        call fill
        mov ax, 0x5000
        call fill
%if REAL
        mov ax, 0x2000
        mov ds, ax
        mov ax, 0x3000
        mov es, ax
        mov ax, 0x4000
        mov ss, ax
        mov ax, 0x5000
        mov fs, ax
        xor ax, ax
        mov gs, ax
%else
        o32 lgdt [cs:gdtr]
        o32 lidt [cs:idtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp 8:protected
        bits BITS_
protected:
        mov ax, 0x10
        mov ds, ax
        mov ax, 0x18
        mov es, ax
        mov ax, 0x20
        mov ss, ax
        mov ax, 0x28
        mov fs, ax
        mov ax, 0x30
        mov gs, ax
%endif
        mov dword [gs:0x610], {passes}
        mov eax, {seed}
        mov ebx, 0x1234
        mov ecx, 0x89ABCDEF
        mov edx, 0x0F1E2D3C
        mov esi, 0x100
        mov edi, 0x4321
        mov ebp, 0x2000
again:
{blocks}
        dec dword [gs:0x610]
        jnz near again
        mov esp, 0x8000
        call memory
        mov al, 0
        jmp finish{bits}

digest:                                 ; 32-bit values in either size of code; keeps every register but ESP
        pushfd
        pushad
        mov bp, sp
        movzx ebp, bp
        xor edx, edx
        mov ecx, 8
.next:  rol edx, 5
        add edx, [ss:ebp]
        add ebp, 4
        dec ecx
        jnz .next
        mov eax, [ss:ebp]
        and eax, [gs:0x60C]
        cmp byte [gs:0x61C], 0
        je .whole
        xor eax, eax                    ; which flags are defined is not known behind an exception
.whole: mov [ss:ebp], eax               ; undefined flags are not to stay in memory
        rol edx, 5
        add edx, eax
        rol edx, 5
        add edx, [gs:0x608]
        mov eax, edx
        call hex8_{bits}
        mov al, 10
        out 0xE9, al
        popad
        popfd
        ret

memory: mov ax, ds
        call .sum
        mov ax, es
        call .sum
        mov ax, ss
        call .sum
        mov ax, fs
; not pushed: a selector may be pushed as 16 bits or 32
.sum:   mov [gs:0x628], ds
        mov ds, ax
        xor edx, edx
        xor ebx, ebx
.dword: rol edx, 5
        add edx, [ebx]
        add ebx, 4
        cmp ebx, 0x8000
        jb .dword
        mov eax, edx
        call hex8_{bits}
        mov al, 10
        out 0xE9, al
        mov ds, [gs:0x628]
        ret

bits 16
fill:   mov es, ax
        mov eax, 0x9E3779B9
        xor edi, edi
.next:  mov [es:di], eax
        imul eax, eax, 1664525
        add eax, 1013904223
        add di, 4
        jnz .next
        ret

bits BITS_
        align 16
stubs:                                  ; 16 bytes each, flags kept
%assign vector 0
%rep 16
        mov byte [gs:0x618], vector
        jmp near taken
        align 16
%assign vector vector + 1
%endrep
taken:                                  ; the pushed flags may be undefined ones: not to stay in memory
        mov [gs:0x620], ebp
        mov ebp, esp
        movzx ebp, bp
        mov dword [ss:ebp + 4], 0
        mov ebp, [gs:0x620]
        mov [gs:0x624], esp
        mov esp, 0x7000
        pushad
        mov byte [gs:0x61C], 1
        mov al, 'V'
        out 0xE9, al
        mov al, [gs:0x618]
        call hex2_{bits}
        mov al, ' '
        out 0xE9, al
        popad
        mov esp, [gs:0x624]
%if BITS_ == 32
        jmp [gs:0x600]
%else
        jmp word [gs:0x600]
%endif

        align 8
gdt:    dq 0
        SEGMENT ROM, 0xFFFF, 0x9B, (BITS_ / 32) * 4
        SEGMENT 0x20000, 0xFFFF, 0x93, 0
        SEGMENT 0x30000, 0xFFFF, 0x93, 0
        SEGMENT 0x40000, 0xFFFF, 0x93, (BITS_ / 32) * 4
        SEGMENT 0x50000, 0x7FFF, 0x93, 0
        SEGMENT 0, 0xFFFFF, 0x93, 0xC
gdtr:   dw $ - gdt - 1
        dd ROM + (gdt - rom)
idtr:   dw 16 * 8 - 1
        dd 0x8000
RESET_VECTOR start
"""
