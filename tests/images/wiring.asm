; How the 8254, the HPET and the local APIC reach the CPU beside the two 8259: a 64 KiB ROM that prints a line for each
; finding to port E9h and ends by the debug-exit port. Flat 32-bit code, ring 0. Of what comes by a clock it says
; whether two came in three times 20 ms of the 8254's counter 2, or fewer, and where some are to come in more, as a busy
; host is late; what is asked for once is counted.
%include "guest.inc"
%include "flat32.inc"

bits 16
org 0

LAPIC   equ 0xfee00000
IOAPIC  equ 0xfec00000
HPETB   equ 0xfed00000
IDT     equ 0x1000
COUNTS  equ 0x2000              ; a dword for each vector
PATIENT equ 0x1ffc              ; how many times 20 ms are waited for at most
TICK    equ 0x40                ; the vector of the I/O APIC's inputs
PERIOD  equ 2386                ; CLK pulses of the 8254, 2 ms

start:
    TO_FLAT

bits 32
%define AT(x) ((x) + 0xf0000)

%macro outb 2
    mov al, %2
    out %1, al
%endmacro

%macro lapicw 2
    mov dword [LAPIC + %1], %2
%endmacro

%macro ioapicw 2
    mov dword [IOAPIC], %1
    mov dword [IOAPIC + 0x10], %2
%endmacro

%macro hpetw 2
    mov dword [HPETB + %1], %2
%endmacro

%macro say 1
    call mark32
    db %1, 0
%endmacro

%macro came 2-3 200             ; text, vector, how many times 20 ms at most: whether two came
    mov dword [PATIENT], %3
    say %1
    mov ebx, COUNTS + 4 * %2
    mov edx, 2
    mov dword [ebx], 0
    call await
    call verdict
%endmacro

%macro asked 2                  ; text, vector: how many of three IPIs to itself arrive
    say %1
    mov ebx, COUNTS + 4 * %2
    mov esi, 0x40000 + %2
    call ipis
    mov eax, [COUNTS + 4 * %2]
    call hex2_32
    call newline
%endmacro

flat:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x8000
    xor ecx, ecx                ; a gate for each vector, whose handlers are 8 bytes apart
.gate:
    mov dword [COUNTS + 4 * ecx], 0
    lea eax, [AT(handlers) + 8 * ecx]
    mov [IDT + 8 * ecx], ax
    mov word [IDT + 8 * ecx + 2], 8
    mov word [IDT + 8 * ecx + 4], 0x8e00
    shr eax, 16
    mov [IDT + 8 * ecx + 6], ax
    inc ecx
    cmp ecx, 256
    jb .gate
    lidt [AT(idtr)]
    outb 0x20, 0x11
    outb 0x21, 0x20
    outb 0x21, 4
    outb 0x21, 1
    outb 0xa0, 0x11
    outb 0xa1, 0x28
    outb 0xa1, 2
    outb 0xa1, 1
    outb 0x21, 0xff
    outb 0xa1, 0xff
    lapicw 0xf0, 0x1ff
    lapicw 0x350, 0x700

    ; vectors that would be the 8259's, were these not masked
    asked "26h of the local APIC ", 0x26
    asked "27h of the local APIC ", 0x27
    asked "2eh of the local APIC ", 0x2e
    asked "2fh of the local APIC ", 0x2f

    ; the 8254 at the I/O APIC
    lapicw 0x350, 0x10700
    outb 0x43, 0x34
    outb 0x40, PERIOD & 0xff
    outb 0x40, PERIOD >> 8
    ioapicw 0x10, TICK
    came "8254 at input 0 ", TICK, 3
    ioapicw 0x10, 0x10000 + TICK
    ioapicw 0x14, TICK
    came "8254 at input 2 ", TICK
    ioapicw 0x14, 0x10000 + TICK
    came "8254 at input 2, masked ", TICK, 3
    ioapicw 0x14, TICK
    came "8254 at input 2 again ", TICK
    ioapicw 0x14, 0x10000 + TICK

    ; the 8254 and the HPET at the 8259
    lapicw 0x350, 0x700
    outb 0x21, 0xfe
    came "8254 at the 8259 ", 0x20
    sti
    hpetw 0x10, 3
    nop
    cli
    came "legacy replacement without a timer ", 0x20, 3
    hpetw 0x10, 2
    hpetw 0xf0, 0
    hpetw 0xf4, 0
    hpetw 0x100, 0x14c          ; 32 bits, periodic, its value set, interrupts on
    hpetw 0x108, 200000
    hpetw 0x108, 200000
    hpetw 0x10, 3
    came "legacy replacement by timer 0 ", 0x20
    outb 0x21, 0xff
    lapicw 0x350, 0x10700
    ioapicw 0x14, TICK
    came "timer 0 at input 2 ", TICK
    ioapicw 0x14, 0x10000 + TICK
    hpetw 0x100, 0x100
    lapicw 0x350, 0x700
    outb 0x21, 0xfe
    sti
    nop
    cli
    came "timer 0 off ", 0x20, 3
    outb 0x43, 0x34             ; the 8254 is programmed anew meanwhile
    outb 0x40, PERIOD & 0xff
    outb 0x40, PERIOD >> 8
    came "the 8254 programmed meanwhile ", 0x20, 3
    call counts
    hpetw 0x10, 1
    came "the 8254 again ", 0x20
    call counts
    outb 0x21, 0xff
    lapicw 0x350, 0x10700
    ioapicw 0x14, TICK
    came "and at input 2 ", TICK
    say "done"
    mov al, 1
    call finish32

; ebx: where they are counted; esi: the ICR
ipis:
    mov dword [PATIENT], 200
    xor edx, edx
    mov [ebx], edx
.next:
    inc edx
    mov [LAPIC + 0x300], esi
    call await
    cmp edx, 3
    jb .next
    ret

; ebx: where they are counted; edx: how many are enough; flags of comparing with that
await:
    mov ecx, [PATIENT]
.next:
    call wait20
    cmp [ebx], edx
    jae .end
    loop .next
    cmp [ebx], edx
.end:
    ret

; below: fewer than two came
verdict:
    jb .none
    say "some"
    jmp newline
.none:
    say "none"
    jmp newline

; whether counter 0 counts
counts:
    say "counter 0 "
    mov ecx, 1000
    call latched
    mov edx, eax
.next:
    call latched
    cmp eax, edx
    jne .does
    loop .next
    say "stands"
    jmp newline
.does:
    say "counts"
    jmp newline

latched:
    outb 0x43, 0
    in al, 0x40
    mov ah, al
    in al, 0x40
    ret

wait20:
    in al, 0x61
    and al, 0xfc
    out 0x61, al
    outb 0x43, 0xb0
    outb 0x42, 23864 & 0xff
    outb 0x42, 23864 >> 8
    in al, 0x61
    or al, 1
    out 0x61, al
    sti
.next:
    cmp [ebx], edx
    jae .end
    in al, 0x61
    test al, 0x20
    jz .next
.end:
    cli
    ret

newline:
    outb 0xe9, 10
    ret

align 8
handlers:
%assign v 0
%rep 256
    db 0x6a, v                  ; PUSH imm8, which extends the sign
    jmp near taken
    nop
%assign v v + 1
%endrep

taken:                          ; counts its vector; an EOI at the 8259 that it may be of, and at the local APIC
    push eax
    movzx eax, byte [esp + 4]
    inc dword [COUNTS + 4 * eax]
    cmp eax, 0x20
    jne .lapic
    outb 0x20, 0x20
    jmp .end
.lapic:
    mov dword [LAPIC + 0xb0], 0
.end:
    pop eax
    add esp, 4
    iret

    FLAT_TABLES
idtr:
    dw 0x7ff
    dd IDT

rom equ $$
    GUEST_SERVICES 32
    RESET_VECTOR start
