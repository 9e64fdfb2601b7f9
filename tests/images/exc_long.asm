; Exceptions and interrupts in long mode: 64-bit gates, interrupt stack table, stack alignment, ring 3, compatibility
; mode, 64-bit error codes and CR2. ROM: QEMU -bios, v2e run --firmware. Ends with debug exit 0.
;
; A line a test on port E9h: its name, then for each exception or interrupt taken in it, as the CPU pushed it
;   vector:code@CS.RIP/fRFLAGS/hHHHH/sSS:RSP/uSS:RSP[/cCR2]
; code is "-" where the vector pushes none; h: NT, IF and TF in the handler; s: SS in the handler and RSP on entry;
; u: the interrupted stack, which long mode always pushes.
%include "guest.inc"

RESUME          equ 0x600               ; dq: where a handler returns to instead of the pushed RIP, once
GO_TO           equ 0x608               ; dq: where a handler goes to in ring 0 instead of returning, once
GDT             equ 0x1000
IDT             equ 0x8000
TSS             equ 0xA000
STACK           equ 0x7000
RING0_STACK     equ 0x6800
USER_STACK      equ 0x6000
IST1            equ 0x5805              ; not aligned: the CPU aligns it
IST2            equ 0x5400
PML4            equ 0x10000
PDPT            equ 0x11000
PAGE_DIR             equ 0x12000
PAGE_TABLE           equ 0x13000
VECTORS         equ 0x40

%define F(label) (ROM + (label - rom))

%macro FAULTS 2+
        TEST 64, %1
        mov qword [RESUME], %%after + ROM
        %2
%%after:
        mov qword [RESUME], 0
%endmacro
%macro FAULTS_32 2+
        TEST 32, %1
        mov dword [RESUME], %%after + ROM
        %2
%%after:
        mov dword [RESUME], 0
%endmacro
; Gate %1: %2 label, %3 selector, %4 type byte, %5 IST
%macro SET_GATE 5
        mov dword [IDT + (%1) * 16], ((%2 - rom) & 0xFFFF) | ((%3) << 16)
        mov dword [IDT + (%1) * 16 + 4], ((%4) << 8) | (ROM & 0xFFFF0000) | (%5)
%endmacro
%define STUB(v) (stubs + (v) * 16)

org 0
rom:
GUEST_SERVICES 16
GUEST_SERVICES 32
GUEST_SERVICES 64

bits 16
start:
        cli
        cld
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, STACK
        SETUP_PIC
        mov si, gdt
        mov di, GDT
        mov cx, gdt_end - gdt
.copy:  mov al, [cs:si]
        stosb
        inc si
        loop .copy
        o32 lgdt [cs:gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword CODE32:F(protected)
bits 32
protected:
        mov eax, DATA
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov esp, STACK
        xor eax, eax
        mov edi, RESUME
        mov ecx, 4
        rep stosd
        mov edi, PML4
        mov ecx, 0x4000 / 4
        rep stosd
        mov edi, TSS
        mov ecx, 0x80 / 4
        rep stosd
        mov dword [PML4], PDPT | 7
        mov dword [PML4 + 511 * 8], PDPT | 7
        mov dword [PDPT], PAGE_DIR | 7
        mov dword [PDPT + 510 * 8], PAGE_DIR | 7
        mov dword [PAGE_DIR], PAGE_TABLE | 7
        mov dword [PAGE_DIR + 8], 0x402087   ; 2 MiB page with a reserved bit set (13)
        mov edi, PAGE_TABLE
        mov eax, 7
        mov ecx, 512
.pte:   mov [edi], eax
        add edi, 8
        add eax, 0x1000
        loop .pte
        mov dword [PAGE_TABLE + 0x100 * 8], 0                ; not present
        mov dword [PAGE_TABLE + 0x101 * 8], 0x101005         ; read-only
        mov dword [PAGE_TABLE + 0x102 * 8], 0x102003         ; supervisor
        mov dword [PAGE_TABLE + 0x103 * 8 + 4], 0x80000000   ; NX
        mov edi, IDT
        mov ecx, VECTORS
        mov eax, F(stubs)
.gate:  mov [edi], ax
        mov word [edi + 2], CODE64
        mov word [edi + 4], 0x8E00
        mov edx, eax
        shr edx, 16
        mov [edi + 6], dx
        mov dword [edi + 8], 0
        mov dword [edi + 12], 0
        add edi, 16
        add eax, 16
        loop .gate
        mov dword [TSS + 4], RING0_STACK
        mov dword [TSS + 0x24], IST1
        mov dword [TSS + 0x2C], IST2
        mov word [TSS + 0x66], 0x68
        mov eax, PML4
        mov cr3, eax
        mov eax, cr4
        or eax, 0x20
        mov cr4, eax
        mov ecx, 0xC0000080
        rdmsr
        or eax, 0x901                   ; NXE, LME, SCE
        wrmsr
        mov eax, cr0
        or eax, 0x80010000
        mov cr0, eax
        lidt [F(idtr)]
        jmp CODE64:F(long64)
bits 64
long64:
        mov eax, TSS_SEL
        ltr ax
        TEST 64, 'int3'
        int3
        TEST 64, 'int-n'
        int 0x21
        SET_GATE 0x22, STUB(0x22), CODE64, 0x8F, 0
        sti
        TEST 64, 'interrupt-gate-clears-if'
        int 0x21
        TEST 64, 'trap-gate-keeps-if'
        int 0x22
        cli
        TEST 64, 'stack-alignment'
        push rax
        int 0x21
        sub rsp, 3
        int 0x21
        add rsp, 11
        SET_GATE 0x23, STUB(0x23), CODE64, 0x8E, 1
        TEST 64, 'ist1'
        int 0x23
        SET_GATE 0x24, STUB(0x24), CODE64, 0x8E, 2
        TEST 64, 'ist2'
        int 0x24
        mov eax, 0x1238
        SET_GATE 13, STUB(13), CODE64, 0x8E, 2
        FAULTS 'ist2-code', mov ds, eax
        SET_GATE 13, STUB(13), CODE64, 0x8E, 0
        SET_GATE 0x31, STUB(0x31), CODE64, 0x0E, 0
        SET_GATE 0x32, STUB(0x32), CODE32, 0x8E, 0
        SET_GATE 0x33, STUB(0x33), DATA, 0x8E, 0
        SET_GATE 0x34, STUB(0x34), CODE_ABSENT, 0x8E, 0
        SET_GATE 0x35, STUB(0x35), CODE64, 0x86, 0
        SET_GATE 0x36, STUB(0x36), CODE64, 0x85, 0
        SET_GATE 0x37, STUB(0x37), 0, 0x8E, 0
        FAULTS 'int-gate-absent', int 0x31
        FAULTS 'int-gate-code32', int 0x32
        FAULTS 'int-gate-data', int 0x33
        FAULTS 'int-gate-code-absent', int 0x34
        FAULTS 'int-gate-16-bit-type', int 0x35
        FAULTS 'int-gate-task', int 0x36
        FAULTS 'int-gate-null', int 0x37
        FAULTS 'int-beyond-idt', int 0x50
        xor ecx, ecx
        FAULTS 'de', div rcx
        FAULTS 'ud2', ud2
        FAULTS 'ud-into', db 0xCE
        FAULTS 'ud-push-cs', db 0x0E
        FAULTS 'ud-pusha', db 0x60
        FAULTS 'ud-aam', db 0xD4, 0x0A
        FAULTS 'ud-les', db 0xC4, 0x00
        FAULTS 'ud-jmp-far-direct', db 0xEA, 0, 0, 0, 0, 8, 0
        FAULTS 'ud-cr1', db 0x0F, 0x20, 0xC8
        FAULTS 'gp-16-bytes', db 15 dup (0x66), 0x90
        mov rbx, 0x8000000000000000
        FAULTS 'gp-non-canonical', mov eax, [rbx]
        mov rbx, 0x0000800000000000
        FAULTS 'gp-non-canonical-write', mov [rbx], eax
        mov rbp, rbx
        FAULTS 'ss-non-canonical', mov eax, [rbp]
        mov eax, DATA_ABSENT
        FAULTS 'np-ds', mov ds, eax
        FAULTS 'ss-absent', mov ss, eax
        xor eax, eax
        TEST 64, 'null-ss-in-ring-0'
        mov ss, eax
        int 0x21
        mov eax, DATA
        mov ss, eax

; paging
        FAULTS 'pf-read', mov eax, [0x100123]
        FAULTS 'pf-write', mov [0x100124], eax
        FAULTS 'pf-write-read-only', mov [0x101000], eax
        mov rbx, 0xFFFFFFFF80100010
        FAULTS 'pf-high', mov eax, [rbx]
        mov rbx, 0x0000123456789ABC
        FAULTS 'pf-pml4', mov eax, [rbx]
        mov rbx, 0xFFFF800000000000
        FAULTS 'pf-lowest-high', inc qword [rbx]
        FAULTS 'pf-reserved-bit', mov eax, [0x200000]
        mov eax, 0x103000
        FAULTS 'pf-nx', jmp rax
        mov eax, 0x100000
        FAULTS 'pf-fetch', jmp rax
        mov rax, 0xFFFFFFFF80000000 + F(high_half)
        TEST 64, 'high-half'
        jmp rax
high_half:   int3
        mov eax, F(.low)
        jmp rax
.low:
; single step and debug registers
        TEST 64, 'tf'
        pushfq
        or qword [rsp], 0x100
        popfq
        nop
        mov eax, ss
        mov ss, eax
        nop
        pushfq
        and qword [rsp], ~0x100
        popfq
        mov eax, F(.bp)
        mov dr0, rax
        mov eax, 0x401
        mov dr7, rax
        TEST 64, 'dr-execute'
        mov qword [RESUME], F(.bp2)
.bp:    nop
.bp2:   mov qword [RESUME], 0
        xor eax, eax
        mov dr7, rax

; the timer
        PEND_TIMER
        TEST 64, 'timer-sti-shadow'
        sti
        nop
        nop
        cli
        TEST 64, 'timer-hlt'
        mov al, 0x30
        out 0x43, al
        mov al, 0xF0
        out 0x40, al
        mov al, 0
        out 0x40, al
        sti
        hlt
        cli
        SET_GATE 0x20, STUB(0x20), CODE64, 0x8E, 1
        PEND_TIMER
        TEST 64, 'timer-ist1'
        sti
        nop
        nop
        cli
        SET_GATE 0x20, STUB(0x20), CODE64, 0x8E, 0
        mov al, 0xFF
        out 0x21, al

; ring 3
        SET_GATE 3, STUB(3), CODE64, 0xEE, 0
        SET_GATE 0x30, STUB(0x30), CODE64, 0xEE, 0
        SET_GATE 0x38, STUB(0x38), CODE64, 0xEE, 1
        push qword UDATA
        push qword USER_STACK
        push qword 0x3002
        push qword UCODE64
        push qword F(user)
        iretq
user:
        TEST 64, 'user-int'
        int 0x30
        TEST 64, 'user-int3'
        int3
        TEST 64, 'user-ist1'
        int 0x38
        FAULTS 'user-int-dpl-0', int 0x21
        FAULTS 'user-hlt', hlt
        FAULTS 'user-pf', mov eax, [0x102000]
        FAULTS 'user-pf-write', mov [0x102008], eax
        FAULTS 'user-rdmsr', rdmsr
        FAULTS 'user-mov-cr3', mov rax, cr3
        FAULTS 'user-non-canonical', mov eax, [rbp]
        TEST 64, 'user-leave'
        mov qword [GO_TO], F(.ring0)
        ud2
.ring0:
; IRETQ with something wrong
        push qword UDATA
        push qword USER_STACK
        push qword 2
        push qword CODE_ABSENT
        push qword 0
        FAULTS 'np-iretq', iretq
        mov qword [rsp + 8], UCODE64
        mov qword [rsp + 32], DATA
        FAULTS 'gp-iretq-ss', iretq
        mov qword [rsp + 8], 0
        FAULTS 'gp-iretq-null', iretq
        add rsp, 40

; compatibility mode, ring 0 and ring 3
        push qword CODE32
        push qword F(compat)
        o64 retf
bits 32
compat:
        TEST 32, 'compat-int3'
        int3
        TEST 32, 'compat-int'
        int 0x21
        xor ecx, ecx
        FAULTS_32 'compat-de', div ecx
        FAULTS_32 'compat-pf', mov eax, [0x100020]
        FAULTS_32 'compat-pf-high', mov eax, [0xFFFFFFF0]
        FAULTS_32 'compat-ud', ud2
        mov eax, 0x1238
        FAULTS_32 'compat-gp', mov ds, eax
        TEST 32, 'compat-into'
        mov al, 0x7F
        add al, 1
        into
        TEST 32, 'compat-tf'
        pushfd
        or dword [esp], 0x100
        popfd
        nop
        pushfd
        and dword [esp], ~0x100
        popfd
        push dword UDATA
        push dword USER_STACK
        push dword 0x3002
        push dword UCODE32
        push dword F(compat_user)
        iretd
compat_user:
        mov eax, UDATA
        mov ds, eax
        TEST 32, 'compat-user-int'
        int 0x30
        FAULTS_32 'compat-user-hlt', hlt
        FAULTS_32 'compat-user-pf', mov eax, [0x102010]
        TEST 32, 'compat-user-leave'
        mov dword [GO_TO], F(compat_done)
        ud2
bits 64
compat_done:
        TEST 64, 'end'
        mov al, 0
        jmp finish64

%assign vector 0
        align 16
stubs:
%rep VECTORS
  %if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17
        nop
        nop
  %else
        push byte -1
  %endif
        push byte vector
        jmp near taken
        align 16
%assign vector vector + 1
%endrep

taken:
        pushfq
        push rax
        push rbx
        push rcx
        push rdi
                                        ; [rsp] RDI, RCX, RBX, RAX, +32 own RFLAGS, +40 vector, +48 code, +56 RIP,
                                        ; +64 CS, +72 RFLAGS, +80 RSP, +88 SS
        mov al, ' '
        out 0xE9, al
        mov al, [rsp + 40]
        call hex2_64
        mov al, ':'
        out 0xE9, al
        mov rax, [rsp + 48]
        cmp rax, -1
        je .none
        call hex4_64
        jmp .code
.none:  mov al, '-'
        out 0xE9, al
.code:  mov al, '@'
        out 0xE9, al
        mov rax, [rsp + 64]
        call hex4_64
        mov al, '.'
        out 0xE9, al
        mov rax, [rsp + 56]
        call hex16_64
        call mark64
        db '/f', 0
        mov rax, [rsp + 72]
        call hex8_64
        call mark64
        db '/h', 0
        mov rax, [rsp + 32]
        and eax, 0x4300
        call hex4_64
        call mark64
        db '/s', 0
        mov eax, ss
        call hex4_64
        mov al, ':'
        out 0xE9, al
        lea rax, [rsp + 56]
        cmp qword [rsp + 48], -1
        je .entry
        sub rax, 8
.entry: call hex16_64
        call mark64
        db '/u', 0
        mov rax, [rsp + 88]
        call hex4_64
        mov al, ':'
        out 0xE9, al
        mov rax, [rsp + 80]
        call hex16_64
        cmp byte [rsp + 40], 14
        jne .end
        call mark64
        db '/c', 0
        mov rax, cr2
        call hex16_64
.end:   cmp byte [rsp + 40], 0x20       ; the timer
        jne .resume
        mov al, 0x20
        out 0x20, al
.resume:
        xor eax, eax
        xchg rax, [GO_TO]
        test rax, rax
        jnz .ring0
        xchg rax, [RESUME]
        test rax, rax
        jz .back
        mov [rsp + 56], rax
.back:  pop rdi
        pop rcx
        pop rbx
        pop rax
        popfq
        lea rsp, [rsp + 16]
        iretq
.ring0: mov ecx, DATA
        mov ds, ecx
        mov es, ecx
        mov ss, ecx
        mov esp, STACK
        jmp rax

        align 8
gdt:            dq 0
CODE64          equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x9B, 0xA
DATA            equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x93, 0xC
CODE32          equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x9B, 0xC
UCODE32         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xFB, 0xC
UDATA           equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xF3, 0xC
UCODE64         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xFB, 0xA
CODE_ABSENT     equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x1B, 0xA
DATA_ABSENT     equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x13, 0xC
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
        dq 0
gdt_end:
gdtr:           dw gdt_end - gdt - 1
                dd GDT
idtr:           dw VECTORS * 16 - 1
                dd IDT
RESET_VECTOR start
