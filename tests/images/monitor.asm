; Interrupt controllers of a pc in a state that is seen in every column of `info pic` and `info lapic`; then it loops
; with interrupts off. A ROM.
%include "guest.inc"

bits 16
org 0
rom:
start:  cli
        o32 lgdt [cs:gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 8:ROM + flat
gdt:    dq 0
        SEGMENT 0, 0xFFFFF, 0x9B, 0xC
        SEGMENT 0, 0xFFFFF, 0x93, 0xC
gdtr:   dw $ - gdt - 1
        dd ROM + gdt

%macro OUTB 2
        mov dx, %1
        mov al, %2
        out dx, al
%endmacro
%macro APIC 2                           ; register, value
        mov dword [0xFEE00000 + (%1)], %2
%endmacro
%macro ENTRY 3                          ; of the I/O APIC: input, high and low half
        mov dword [0xFEC00000], 0x11 + 2 * (%1)
        mov dword [0xFEC00010], %2
        mov dword [0xFEC00000], 0x10 + 2 * (%1)
        mov dword [0xFEC00010], %3
%endmacro

bits 32
flat:   mov ax, 16
        mov ds, ax
        OUTB 0x20, 0x11
        OUTB 0x21, 0x48
        OUTB 0x21, 4
        OUTB 0x21, 0x11                 ; special fully nested
        OUTB 0xA0, 0x11
        OUTB 0xA1, 0x50
        OUTB 0xA1, 2
        OUTB 0xA1, 1
        OUTB 0x21, 0x5B
        OUTB 0xA1, 0xA5
        OUTB 0x20, 0xC2                 ; IR2 lowest
        OUTB 0xA0, 0x0B                 ; reads ISR
        OUTB 0x4D0, 0x20
        OUTB 0x4D1, 0x0E
        ENTRY 1, 0x01000000, 0x00010931 ; lowest priority, logical
        ENTRY 4, 0x00000000, 0x00018045 ; level
        ENTRY 9, 0x00000000, 0x0001A052 ; level, low active
        ENTRY 14, 0x0F000000, 0x0001042E ; NMI
        ENTRY 23, 0x00000000, 0x00010700 ; ExtINT
        APIC 0xF0, 0x1EF
        APIC 0x80, 0x90
        APIC 0xD0, 0x02000000
        APIC 0x320, 0x00030061          ; periodic, masked
        APIC 0x3E0, 0x9
        APIC 0x340, 0x00010072
        APIC 0x350, 0x00008700
        APIC 0x360, 0x0001A400
        APIC 0x370, 0x00000083
        APIC 0x300, 0x00044061          ; itself
        APIC 0x300, 0x00044045
        APIC 0x310, 0
        APIC 0x300, 0x000C4075          ; nobody
.end:   jmp .end

        RESET_VECTOR start
