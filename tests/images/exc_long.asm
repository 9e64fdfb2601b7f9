; Exceptions and interrupts in long mode: 64-bit gates, interrupt stack table, stack alignment, ring 3, compatibility
; mode, 64-bit error codes and CR2. ROM: QEMU -bios, v2e run --firmware. Ends with debug exit 0.
; Output as exc_frames64.inc says.
%include "guest.inc"
%include "exc_frames64.inc"

org 0
rom:
GUEST_SERVICES 16
GUEST_SERVICES 32
GUEST_SERVICES 64

LONG_START
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

FRAMES64

        align 8
GDT64
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
TABLE_REGISTERS64
RESET_VECTOR start
