"""Programs of random accesses to ports that both run loops answer in their own way, with interrupts on and off between
them. All that is read goes into a digest; a handler of every vector adds up the 8259's mask and ends the interrupt."""

from __future__ import annotations

import random

from machines import rom_text

#: 8259s, 8254, 8042, port 61h, RTC, POST codes, A20, VGA status and DAC, ATA status and data, COM1, floppy controller,
#: debug consoles.
PORTS = (
    0x20, 0x21, 0xA0, 0xA1, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x84, 0x92, 0x3DA, 0x3C9, 0x3CE,
    0x1F7, 0x3F6, 0x1F0, 0x3F8, 0x3FA, 0x3FD, 0x3F4, 0xE9, 0x402,
)  # fmt: skip
#: What is written there; any byte elsewhere. The 8042 is not told to pulse the reset line, nor is port 92h.
VALUES = {
    0x20: (0x20, 0x20, 0x60, 0x61, 0x0A, 0x0B, 0x68, 0x48, 0xC0, 0xA0),
    0xA0: (0x20, 0x0A, 0x0B),
    0x21: (0xFE, 0xFE, 0xFF, 0xFC, 0xF8, 0xEE),
    0xA1: (0xFE, 0xFF, 0xEE),
    0x40: (0, 0, 20, 100, 255),
    0x43: (0, 0, 0, 0x30, 0x34, 0x34, 0x36, 0x10, 0x40, 0x80, 0xC2, 0xE2),
    0x61: (0, 1, 2, 3),
    0x64: (0xAD, 0xAE, 0x20, 0xAA, 0xC0, 0xD0),
    0x70: (0, 2, 4, 0x0A, 0x0B, 0x0C, 0x0E),
    0x92: (0, 2),
    0x1F7: (0xEC, 0x20, 0x91, 0x10),
    0x3F6: (0, 2, 8),
}
#: Strings are written to these alone.
STREAMS = (0x21, 0x80, 0x84, 0xE9, 0x402, 0x3F8)
WIDE = (0x43, 0x80, 0xE9, 0x402, 0x3F8, 0x3CE)


#: What is done, and how often of a hundred times.
KINDS = {
    "in": 38, "ins": 8, "outs": 9, "out": 22, "timer": 4, "unmask": 4, "if": 6, "delay": 2, "wait": 4, "tsc": 3
}  # fmt: skip


def program(seed: int, count: int = 400) -> str:
    """The source of a ROM; it ends with a 0 at port F4h."""
    source = random.Random(f"ports {seed}")
    lines = [line for _ in range(count) for line in (*_access(source), "rol ebx, 5", "add ebx, eax")]
    return rom_text(START + "\n".join(lines) + END, HANDLER)


def _access(source: random.Random) -> list[str]:
    port = source.choice(PORTS)
    match source.choices(tuple(KINDS), tuple(KINDS.values()))[0]:
        case "in":
            return [
                f"mov dx, {port}",
                source.choice(("in al, dx", "in al, dx", "in al, dx", "in ax, dx", "in eax, dx")),
            ]
        case "ins":
            what = source.choice(("rep insb", "rep insw", "rep insd", "insb", "a32 rep insb"))
            counted = f"mov ecx, {source.randrange(6)}"
            return [f"mov dx, {port}", "mov edi, 0x1000", counted, what, "mov eax, [0x1000]"]
        case "outs":
            port = source.choice(STREAMS)
            what = source.choice(("rep outsb", "rep outsb", "rep outsw", "outsb", "a32 rep outsb"))
            masks = [f"mov dword [0x1100], {source.choice((0xFEFEFEFE, 0xFEFFFEFF, 0xFFFEFFFE))}"]
            return [*masks, f"mov dx, {port}", "mov esi, 0x1100", f"mov ecx, {source.randrange(1, 5)}", what]
        case "out":
            value = source.choice(VALUES.get(port, (source.getrandbits(8),)))
            size = source.choice(("al", "al", "al", "ax")) if port in WIDE else "al"
            return [f"mov dx, {port}", f"mov eax, {value | source.getrandbits(8) << 8}", f"out dx, {size}"]
        case "timer":  # counter 0, once or again and again, and its interrupt let through
            out = [f"mov al, {source.choice((0x30, 0x34, 0x34, 0x36))}", "out 0x43, al"]
            out += [f"mov al, {source.randrange(2, 60)}", "out 0x40, al", "mov al, 0", "out 0x40, al"]
            return [*out, f"mov al, {source.choice((0xFE, 0xFE, 0xFA, 0xFF))}", "out 0x21, al"]
        case "unmask":  # a request that waits, mostly, is let through by an iteration of a string
            out = ["cli", "mov al, 0xff", "out 0x21, al", "mov al, 0x30", "out 0x43, al"]
            out += [f"mov al, {source.randrange(2, 20)}", "out 0x40, al", "mov al, 0", "out 0x40, al"]
            out += [f"mov cx, {source.randrange(500, 2500)}", "loop $", "mov dword [0x1100], 0xfefefefe"]
            out += ["mov dx, 0x21", "mov esi, 0x1100", f"mov ecx, {source.randrange(1, 4)}", "sti", "nop"]
            return [*out, source.choice(("rep outsb", "rep outsw", "outsb", "a32 rep outsb"))]
        case "if":
            return [source.choice(("sti", "sti", "cli"))]
        case "delay":
            return [f"mov cx, {source.randrange(1, 3000)}", "loop $"]
        case "wait":
            return ["sti", f"mov cx, {source.randrange(1, 300)}", "loop $"]
        case _:
            return ["rdtsc"]


START = """
    mov es, ax
    mov ss, ax
    mov sp, 0x7000
    cld
    mov eax, 1
    cpuid
    and edx, 0x220  ; MSRs and a local APIC, whose LINT0 masks INTR until it is switched off (SDM vol. 3A, 11.4.3)
    cmp edx, 0x220
    jne apic_off
    mov ecx, 0x1b
    rdmsr
    and ah, ~8
    wrmsr
apic_off:
    xor di, di
    mov cx, 256
fill:
    mov word [di], handler
    mov word [di + 2], 0xf000
    add di, 4
    loop fill
    mov al, 0x11
    out 0x20, al
    out 0xa0, al
    mov al, 8
    out 0x21, al
    mov al, 0x70
    out 0xa1, al
    mov al, 4
    out 0x21, al
    mov al, 2
    out 0xa1, al
    mov al, 1
    out 0x21, al
    out 0xa1, al
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    xor ebx, ebx
    mov bp, 4  ; rounds
again:
"""
END = """
    dec bp
    jnz near again
    cli
    mov [0x904], ebx
    mov al, 0
    out 0xf4, al
    hlt
"""
HANDLER = """
handler:
    push ax
    in al, 0x21
    add [0x908], al
    mov al, 0x20
    out 0xa0, al
    out 0x20, al
    inc dword [0x900]
    pop ax
    iret
"""
