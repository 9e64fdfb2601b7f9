; System management mode, NMIs and CR8 on a pc: a 64 KiB ROM that prints a line for each finding to port E9h and ends by
; the debug-exit port. Flat 32-bit code; SMIs by port B2h; the handler is 16-bit code that is copied to SMRAM.
%include "flat32.inc"

bits 16
org 0

LAPIC   equ 0xfee00000
IDT     equ 0x1000
AREA    equ 0x2000              ; the save area as the handler found it
WORDS   equ 0x2300              ; FLAGS, CR0, CR4, DR7, CS, SS, entries: what the handler found
COUNT   equ 0x2340              ; SMIs
KEPT    equ 0x2380              ; what 64-bit mode found
RESULT  equ 0x2344              ; of interrupt handlers
PAGES   equ 0x10000

start:
    TO_FLAT

; Runs at SMBASE + 8000h. Position independent; DS is flat.
handler:
    mov eax, cr0
    mov [WORDS + 4], eax
    mov eax, cr4
    mov [WORDS + 8], eax
    mov eax, dr7
    mov [WORDS + 12], eax
    mov ax, cs
    movzx eax, ax
    mov [WORDS + 16], eax
    mov ax, ss
    movzx eax, ax
    mov [WORDS + 20], eax
    mov esp, 0x9000
    pushfd
    pop dword [WORDS]
    inc dword [COUNT]
    ; the area, of 512 bytes, to where everybody can read it
    xor esi, esi
.copy:
    mov eax, [cs:0xfe00 + esi]
    mov [AREA + esi], eax
    add esi, 4
    cmp esi, 0x200
    jb .copy
    ; the interrupted code waits in a jump to itself, as an SMI may come late: let it go on
    add dword [cs:0xff78], 2
    ; what the first SMI does: relocate, and change EAX of the interrupted code
    cmp dword [COUNT], 1
    jne .second
    mov dword [cs:0xff00], 0xa0000
    mov dword [cs:0xfff8], 0xcafe0001
    rsm
.second:
    cmp dword [COUNT], 3
    je .third
    rsm
.third:
    ; an NMI from within: it waits for RSM
    mov dword [dword LAPIC + 0x300], 0x4400
    nop
    mov eax, [RESULT]
    mov [WORDS + 24], eax
    rsm
handler_end:

bits 32
%define AT(x) ((x) + 0xf0000)

%macro show 1+                  ; text, then EAX, then a newline
    mov esi, AT(%%text)
    call line
    jmp %%over
%%text: db %1, 0
%%over:
%endmacro

%macro showat 2+
    mov eax, [%1]
    show %2
%endmacro

%macro gate 2                   ; vector, handler
    mov eax, %2
    mov edi, IDT + 8 * (%1)
    call setgate
%endmacro

setgate:
    mov [edi], ax
    mov word [edi + 2], 8
    mov word [edi + 4], 0x8e00
    shr eax, 16
    mov [edi + 6], ax
    ret

%include "line.inc"

undefined:                      ; skip RSM
    inc dword [RESULT]
    add dword [esp], 2
    iret

nmi:                            ; the first sends another, which must wait for IRET
    inc dword [RESULT]
    cmp dword [RESULT], 1
    jne .end
    mov dword [LAPIC + 0x300], 0x4400
    nop
    nop
    mov eax, [RESULT]
    mov [RESULT + 4], eax
.end:
    iret

general:                        ; #GP: note it, and skip the MOV to CR8 of four bytes
    inc dword [RESULT + 8]
    add esp, 4
    add dword [esp], 4
    iret

    FLAT_TABLES 0x00af9b000000ffff
idtr:
    dw 0x7ff
    dd IDT

flat:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov esp, 0x8000
    lidt [AT(idtr)]
    mov dword [COUNT], 0
    mov dword [RESULT], 0
    gate 6, AT(undefined)
    gate 2, AT(nmi)
    gate 13, AT(general)
    rsm
    showat RESULT, "#UD of RSM outside "

    ; -- SMRAM open; the handler to SMBASE + 8000h as after reset, and to A8000h
    mov eax, 0x80000070
    mov dx, 0xcf8
    out dx, eax
    mov dx, 0xcfe
    mov al, 0x4a
    out dx, al
    in al, dx
    movzx eax, al
    show "SMRAM "
    mov esi, AT(handler)
    mov edi, 0x38000
    mov ecx, handler_end - handler
    rep movsb
    mov esi, AT(handler)
    mov edi, 0xa8000
    mov ecx, handler_end - handler
    rep movsb
    mov dx, 0xcfe
    mov al, 0x0a
    out dx, al
    mov eax, [0xa8000]
    cmp eax, [0x38000]
    sete al
    movzx eax, al
    show "handler seen outside "

    ; -- APMC_EN of the PM function
    mov eax, 0x80000b58
    mov dx, 0xcf8
    out dx, eax
    mov dx, 0xcfc
    in eax, dx
    show "DEVACTB "
    or eax, 1 << 25
    out dx, eax

    ; -- the first SMI, with paging on
    mov edi, PAGES
    mov eax, 0x83
    mov ecx, 1024
.page:
    stosd
    add eax, 0x400000
    loop .page
    mov eax, cr4
    or al, 0x10
    mov cr4, eax
    mov eax, PAGES
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    mov ebx, 0x11111111
    mov ecx, 0x22222222
    mov esi, 0x33333333
    mov edi, 0x44444444
    mov ebp, 0x55555555
    mov edx, 0xb2
    xor eax, eax
    stc
    out dx, al
    jmp $
    pushfd
    push eax
    mov eax, [esp + 4]
    and eax, 0x8d5
    show "flags behind RSM "
    pop eax
    add esp, 4
    show "EAX behind RSM "
    mov eax, ebx
    show "EBX behind RSM "
    mov eax, cr0
    show "CR0 behind RSM "
    mov eax, cr4
    show "CR4 behind RSM "
    showat COUNT, "SMIs "
    showat WORDS, "handler: flags "
    showat WORDS + 4, "handler: CR0 "
    showat WORDS + 8, "handler: CR4 "
    showat WORDS + 12, "handler: DR7 "
    showat WORDS + 16, "handler: CS "
    showat WORDS + 20, "handler: SS "
    showat AREA + 0x0fc, "area: revision "
    showat AREA + 0x100, "area: SMBASE "
    showat AREA + 0x1f8, "area: RAX "
    showat AREA + 0x1f0, "area: RCX "
    showat AREA + 0x1e8, "area: RDX "
    showat AREA + 0x1e0, "area: RBX "
    showat AREA + 0x1d8, "area: RSP "
    showat AREA + 0x1d0, "area: RBP "
    showat AREA + 0x1c8, "area: RSI "
    showat AREA + 0x1c0, "area: RDI "
    showat AREA + 0x178, "area: RIP "
    showat AREA + 0x170, "area: RFLAGS "
    showat AREA + 0x168, "area: DR6 "
    showat AREA + 0x160, "area: DR7 "
    showat AREA + 0x158, "area: CR0 "
    showat AREA + 0x150, "area: CR3 "
    showat AREA + 0x148, "area: CR4 "
    showat AREA + 0x0d0, "area: EFER "
    showat AREA + 0x000, "area: ES "
    showat AREA + 0x010, "area: CS "
    showat AREA + 0x014, "area: CS limit "
    showat AREA + 0x018, "area: CS base "
    showat AREA + 0x020, "area: SS "
    showat AREA + 0x064, "area: GDTR limit "
    showat AREA + 0x068, "area: GDTR base "
    showat AREA + 0x070, "area: LDTR "
    showat AREA + 0x084, "area: IDTR limit "
    showat AREA + 0x088, "area: IDTR base "
    showat AREA + 0x090, "area: TR "
    showat AREA + 0x094, "area: TR limit "

    ; -- the second, where it was relocated to
    xor eax, eax
    mov edx, 0xb2
    out dx, al
    jmp $
    showat COUNT, "SMIs "
    showat WORDS + 16, "handler: CS "
    showat AREA + 0x100, "area: SMBASE "
    mov eax, [0xa8000]
    cmp eax, [0x38000]
    sete al
    movzx eax, al
    show "handler seen outside "
    ; the commands of the ACPI tables switch SCI_EN, and make no SMI
    mov al, 0xf1
    out 0xb2, al
    nop
    showat COUNT, "SMIs "

    ; -- NMIs, by the interrupt command register
    mov dword [LAPIC + 0xf0], 0x1ff
    mov dword [RESULT], 0
    mov dword [RESULT + 4], 0xff
    mov dword [LAPIC + 0x300], 0x4400
    nop
    nop
    showat RESULT + 4, "NMIs within the first handler "
    showat RESULT, "NMIs behind it "
    ; in SMM they wait, whatever was asked for there
    mov dword [RESULT], 0x10
    xor eax, eax
    mov edx, 0xb2
    out dx, al
    jmp $
    showat WORDS + 24, "NMIs within SMM "
    showat RESULT, "NMIs behind it "
    ; SMI by the interrupt command register
    mov dword [LAPIC + 0x300], 0x4200
    jmp $
    showat COUNT, "SMIs "
    showat RESULT, "NMIs "

    ; -- CR8 and the TPR, in 64-bit mode: flat again without paging, then long mode with 2 MiB pages
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov edi, PAGES
    xor eax, eax
    mov ecx, 0x1800
    rep stosd
    mov dword [PAGES], PAGES + 0x1003
    mov dword [PAGES + 0x1000], PAGES + 0x2003
    mov dword [PAGES + 0x1018], PAGES + 0x3003
    mov dword [PAGES + 0x2000], 0x83
    mov dword [PAGES + 0x3fb8], 0xfee00083
    mov eax, cr4
    or al, 0x20
    mov cr4, eax
    mov eax, PAGES
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or ah, 1
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp 24:AT(wide)
bits 64
wide:
    mov edi, LAPIC
    mov dword [rdi + 0x80], 0x53
    mov rax, cr8
    mov [abs KEPT], eax
    mov eax, 7
    mov cr8, rax
    mov eax, [rdi + 0x80]
    mov [abs KEPT + 4], eax
    ; a request of a class that CR8 holds back, and which it lets through
    mov dword [rdi + 0x300], 0x4061
    mov eax, [rdi + 0x230]
    mov [abs KEPT + 8], eax
    xor eax, eax
    out 0xb2, al                ; an SMI from 64-bit mode
    jmp $
    mov rax, cr8
    mov [abs KEPT + 12], eax
    mov r9, 0x1122334455667788
    out 0xb2, al
    jmp $
    mov rax, r9
    shr rax, 32
    mov [abs KEPT + 16], eax
    mov eax, [abs AREA + 0x0d0]
    mov [abs KEPT + 20], eax
    jmp dword far [abs AT(back)]
back:
    dd AT(compatible)
    dw 8
bits 32
compatible:
    showat KEPT, "CR8 of TPR 53 "
    showat KEPT + 4, "TPR of CR8 7 "
    showat KEPT + 8, "request held back "
    showat KEPT + 12, "CR8 behind RSM "
    showat KEPT + 16, "high half of R9 behind RSM "
    showat KEPT + 20, "area: EFER "
    showat COUNT, "SMIs "
    mov al, 0x10
    out 0xf4, al
    hlt

times 0xfff0-($-$$) db 0xf4
bits 16
    jmp 0xf000:start
times 0x10000-($-$$) db 0
