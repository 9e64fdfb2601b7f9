; A probe of the local APIC, the I/O APIC, PCI, PAM, the PM timer and the HPET: a 64 KiB ROM that prints a line for each
; finding to port E9h and ends by the debug-exit port. Flat 32-bit code, ring 0; polls with interrupts off, or takes
; them into a log of vectors.
%include "guest.inc"
%include "flat32.inc"

bits 16
org 0

LAPIC   equ 0xfee00000
IOAPIC  equ 0xfec00000
HPETB   equ 0xfed00000
LOGP    equ 0x4000              ; pointer into the log
LOG     equ 0x4010
IDT     equ 0x1000

start:
    TO_FLAT

bits 32
%define AT(x) ((x) + 0xf0000)

%macro say 1+
    mov esi, AT(%%text)
    call print
    jmp %%over
%%text: db %1, 0
%%over:
%endmacro

%macro show 1+                  ; text, then EAX, then a newline
    push eax
    say %1
    pop eax
    call hex
    call newline
%endmacro

%macro apicw 2
    mov dword [LAPIC + %1], %2
%endmacro

%macro apicr 1
    mov eax, [LAPIC + %1]
%endmacro

%macro ioapicw 2
    mov dword [IOAPIC], %1
    mov dword [IOAPIC + 0x10], %2
%endmacro

%macro ioapicr 1
    mov dword [IOAPIC], %1
    mov eax, [IOAPIC + 0x10]
%endmacro

%macro pcir 2                   ; function, register: EAX
    mov eax, 0x80000000 | (%1 << 8) | %2
    mov dx, 0xcf8
    out dx, eax
    mov dx, 0xcfc
    in eax, dx
%endmacro

%macro pciw 3
    mov eax, 0x80000000 | (%1 << 8) | %2
    mov dx, 0xcf8
    out dx, eax
    mov dx, 0xcfc
    mov eax, %3
    out dx, eax
%endmacro

print:
    lodsb
    test al, al
    jz .end
    out 0xe9, al
    jmp print
.end:
    ret

newline:
    mov al, 10
    out 0xe9, al
    ret

hex:
    push ecx
    push eax
    mov ecx, 8
.next:
    rol eax, 4
    push eax
    and al, 15
    cmp al, 10
    sbb al, 0x69
    das
    out 0xe9, al
    pop eax
    loop .next
    pop eax
    pop ecx
    ret

; "LOG" and the vectors taken since the last time
showlog:
    call print
    mov esi, LOG
.next:
    cmp esi, [LOGP]
    jae .end
    mov al, ' '
    out 0xe9, al
    movzx eax, byte [esi]
    call hex
    inc esi
    jmp .next
.end:
    mov dword [LOGP], LOG
    jmp newline

%macro logged 1+
    mov esi, AT(%%text)
    call showlog
    jmp %%over
%%text: db %1, 0
%%over:
%endmacro

%assign v 0
%rep 16
handler_ %+ v:                  ; vectors 30h, 40h ... of each class: log, EOI
    push byte v
    jmp near taken
%assign v v + 1
%endrep
taken:
    push edi
    push eax
    mov eax, [esp + 8]
    shl eax, 4
    add eax, [VLOW]
    mov edi, [LOGP]
    mov [edi], al
    inc dword [LOGP]
    cmp dword [LOGP], LOG + 2
    jb .more
    push edx
    mov dx, 0x3f9
    mov al, 0
    out dx, al
    pop edx
.more:
    mov dword [LAPIC + 0xb0], 0
    pop eax
    pop edi
    add esp, 4
    iret
VLOW equ 0x4004
spurious:
    push edi
    mov edi, [LOGP]
    mov byte [edi], 0xff
    inc dword [LOGP]
    pop edi
    iret

    FLAT_TABLES
idtr:
    dw 0x7ff
    dd IDT

flat:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x8000
    mov dword [LOGP], LOG
    mov dword [VLOW], 5
    ; each vector n5h has the handler of its class n; FFh the spurious one
    xor ecx, ecx
.gate:
    mov eax, ecx
    shr eax, 4
    mov ebx, handler_1 - handler_0
    mul ebx
    add eax, AT(handler_0)
    cmp cl, 0xff
    jne .usual
    mov eax, AT(spurious)
.usual:
    mov [IDT + ecx * 8], ax
    mov word [IDT + ecx * 8 + 2], 8
    mov word [IDT + ecx * 8 + 4], 0x8e00
    shr eax, 16
    mov [IDT + ecx * 8 + 6], ax
    inc ecx
    cmp ecx, 256
    jb .gate
    lidt [AT(idtr)]
    mov al, 0xff
    out 0x21, al
    out 0xa1, al

; ---- PCI and PAM
    pcir 0, 0
    show "host bridge "
    pcir 8, 0
    show "isa bridge "
    pcir 9, 0
    show "ide "
    pcir 11, 0
    show "pm "
    pcir 9, 8
    show "ide class "
    pciw 9, 0x20, 0xffffffff
    pcir 9, 0x20
    show "bmiba size "
    pcir 0xf8, 0
    show "absent "
    pciw 0, 0x58, 0x30330010    ; PAM1: C0000h-C7FFFh, PAM2: no, PAM3: D0000h
    mov dword [0xc0000], 0x12345678
    mov dword [0xd4000], 0x87654321
    mov eax, [0xc0000]
    show "pam rw "
    pciw 0, 0x58, 0x10110010
    mov dword [0xc0000], 0
    mov eax, [0xc0000]
    show "pam ro "
    pciw 0, 0x58, 0x20220010
    mov dword [0xc0000], 0xabcdef01
    pciw 0, 0x58, 0x30330010
    mov eax, [0xc0000]
    show "pam wo then rw "
    mov eax, [0xd4000]
    show "pam other segment "

; ---- local APIC
    apicr 0x30
    show "lapic version "
    apicr 0xf0
    and eax, 0x1ff
    show "svr at reset "
    apicr 0x320
    show "lvt timer at reset "
    apicr 0x360
    show "lint1 at reset "
    apicr 0xe0
    show "dfr "
    apicw 0xf0, 0x1ff
    apicr 0xf0
    show "svr "
    ; priorities: three IPIs to self with interrupts off, then on
    apicw 0x300, 0x44035
    apicw 0x300, 0x44065
    apicw 0x300, 0x44045
    apicr 0x210
    show "irr 1 "
    apicr 0x220
    show "irr 2 "
    apicr 0x230
    show "irr 3 "
    sti
    nop
    nop
    cli
    logged "order"
    apicw 0x80, 0x40
    apicw 0x300, 0x44035
    apicw 0x300, 0x44045
    apicw 0x300, 0x44055
    sti
    nop
    nop
    cli
    logged "tpr 40"
    apicr 0xa0
    show "ppr "
    apicw 0x80, 0
    sti
    nop
    nop
    cli
    logged "tpr 0"
    ; logical destination, flat and cluster
    apicw 0xd0, 0x02000000
    apicw 0x310, 0x02000000
    apicw 0x300, 0x4835
    apicw 0x310, 0x04000000
    apicw 0x300, 0x4845
    apicw 0xe0, 0x0fffffff
    apicw 0xd0, 0x12000000
    apicw 0x310, 0x13000000
    apicw 0x300, 0x4855
    apicw 0x310, 0x23000000
    apicw 0x300, 0x4865
    sti
    nop
    nop
    cli
    logged "logical"
    apicw 0xe0, 0xffffffff
    apicw 0xd0, 0
    apicw 0x310, 0xff000000
    apicw 0x300, 0x4075
    apicw 0x310, 0
    apicw 0x300, 0x4085
    apicw 0x300, 0xc4095         ; all but self
    sti
    nop
    nop
    cli
    logged "physical"
    ; timer
    apicw 0x3e0, 0xb
    apicw 0x320, 0x35
    apicw 0x380, 2000
.wait1:
    apicr 0x210
    test eax, 1 << 21
    jz .wait1
    apicr 0x390
    show "one-shot left "
    sti
    nop
    nop
    cli
    logged "one-shot"
    apicw 0x320, 0x20045
    apicw 0x380, 20000000
    mov ecx, 3
.periods:
    sti
    hlt
    cli
    loop .periods
    apicw 0x320, 0x10045
    sti
    nop
    nop
    cli
    logged "periodic"
    apicw 0x320, 0x10035
    apicw 0x3e0, 0x3
    apicr 0x3e0
    show "divide "
    apicw 0x380, 100000
    mov ecx, 50
.spin:
    loop .spin
    apicr 0x390
    cmp eax, 100000
    setb al
    movzx eax, al
    show "masked counts "
    apicw 0x380, 0
    apicr 0x390
    show "stopped "

; ---- I/O APIC
    ioapicr 0x10
    show "entry 0 low "
    ioapicw 0x14, 0x35          ; input 2: the 8254, edge
    mov al, 0x30
    out 0x43, al
    mov al, 100
    out 0x40, al
    mov al, 0
    out 0x40, al
    sti
    hlt
    cli
    logged "edge"
    ioapicw 0x14, 0x10035
    ; level: the UART's interrupt for an empty transmitter, input 4
    ioapicw 0x18, 0x8045
    mov dx, 0x3fc
    mov al, 8
    out dx, al
    mov dx, 0x3f9
    mov al, 2
    out dx, al
    ioapicr 0x18
    show "level sent "
    apicr 0x1a0
    show "tmr 2 "
    apicr 0x220
    show "irr 2 "
    ; each EOI with the line still high sends it again; the handler lowers it the second time
    sti
    nop
    nop
    cli
    logged "level twice"
    ioapicr 0x18
    show "level ended "
    ; masked level: waits for the mask
    ioapicw 0x18, 0x18045
    mov dx, 0x3f9
    mov al, 2
    out dx, al
    ioapicr 0x18
    show "masked level "
    ioapicw 0x18, 0x8045
    ioapicr 0x18
    show "unmasked level "
    mov dx, 0x3f9
    mov al, 0
    out dx, al
    sti
    nop
    nop
    cli
    ioapicw 0x18, 0x10045
    logged "level"

; ---- PM timer: 24 bits, and as fast as the 8254 says
    pciw 11, 0x40, 0x601
    pciw 11, 0x80, 1
    mov dx, 0x608
    in eax, dx
    mov ebx, eax
    mov al, 0x30
    out 0x43, al
    mov al, 0
    out 0x40, al
    mov al, 0x40
    out 0x40, al                ; 16384 counts, of 3 PM clocks each
.pit:
    mov al, 0xe2
    out 0x43, al
    in al, 0x40
    test al, 0x80
    jz .pit
    mov dx, 0x608
    in eax, dx
    sub eax, ebx
    and eax, 0xffffff
    shr eax, 14
    cmp eax, 3                  ; QEMU's clock runs on while we look
    setae al
    movzx eax, al
    show "pm clocks a count are 3 at least "

; ---- HPET
    mov eax, [HPETB]
    show "hpet id "
    mov eax, [HPETB + 4]
    show "hpet period "
    mov dword [HPETB + 0x10], 0
    mov dword [HPETB + 0xf0], 0
    mov dword [HPETB + 0xf4], 0
    mov dword [HPETB + 0x108], 1000
    mov dword [HPETB + 0x100], 6 | 0x100
    mov dword [HPETB + 0x10], 1
.hpet:
    test dword [HPETB + 0x20], 1
    jz .hpet
    mov eax, [HPETB + 0x20]
    show "hpet status "
    mov dword [HPETB + 0x20], 1
    mov eax, [HPETB + 0x20]
    show "hpet cleared "
    mov dword [HPETB + 0x10], 0
    mov eax, [HPETB + 0xf0]
    mov ebx, [HPETB + 0xf0]
    cmp eax, ebx
    sete al
    movzx eax, al
    show "hpet stopped "
    ; legacy replacement: timer 0 is the interrupt of the 8254
    mov dword [HPETB + 0xf0], 0
    mov dword [HPETB + 0x100], 0x104
    mov dword [HPETB + 0x108], 1000
    ioapicw 0x14, 0x55
    mov dword [HPETB + 0x10], 3
    sti
    hlt
    cli
    logged "hpet legacy"

    ; errors
    apicw 0x280, 0
    apicw 0x300, 0x44005
    apicw 0x280, 0
    apicr 0x280
    show "esr send vector "
    apicw 0x280, 0
    apicr 0x280
    show "esr again "

    say "done"
    mov al, 1
    call finish32

rom equ $$
    GUEST_SERVICES 32
    RESET_VECTOR start
