; Debug registers in 64-bit code, a line a check: data breakpoints of eight bytes, addresses above 4 GiB and ones that are not
; canonical, in compatibility mode, single steps and breakpoints over SYSCALL and SYSRET, with a stack of the interrupt stack
; table (SDM vol. 3B, 17.2 and 17.3; vol. 2B, SYSCALL, SYSRET). ROM: QEMU -bios, v2e run --firmware. A check prints its name,
; what a fault pushes as exc_frames64.inc says, and =DR6. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames64.inc"

SPOT            equ 0x20040             ; what is watched
HIGH            equ 0xFFFFFFFF80020040  ; the same, by another address
WRITE           equ 1
ACCESS          equ 3
EIGHT           equ 2 << 18             ; LEN
STAR            equ 0xC0000081
LSTAR           equ 0xC0000082
FMASK           equ 0xC0000084

; %1 name, %2 the address in DR0, %3 DR7, the rest instructions in braces
%macro WATCH 4-*
        TEST 64, {%1}
        call preset
        mov rax, %2
        mov dr0, rax
        mov eax, %3
        mov dr7, rax
        mov rax, 0x1122334455667788
  %rotate 3
  %rep %0 - 3
        %1
    %rotate 1
  %endrep
        nop
        call outcome
%endmacro
; The same in ring 3 of the code segment %2, with RFLAGS %3; it ends with UD2
%macro USER 6-*
        TEST 64, {%1}
        call preset
        mov qword [GO_TO], F(%%next)
        push UDATA
        push USER_STACK
        push %3
        push %2
        push F(%%in)
        mov rax, %4
        mov dr0, rax
        mov eax, %5
        mov dr7, rax
        mov ebx, SPOT
        iretq
  %ifidn %2, UCODE32
        bits 32
  %endif
%%in:
  %rotate 5
  %rep %0 - 5
        %1
    %rotate 1
  %endrep
        ud2
        bits 64
%%next: call outcome
%endmacro
; In ring 0 under TF: %1 name, the rest instructions in braces
%macro STEPPED 2-*
        TEST 64, {%1}
        call preset
        push 0x102
        popfq
  %rep %0 - 1
    %rotate 1
        %1
  %endrep
        push 2
        popfq
        call outcome
%endmacro

org 0
rom:
GUEST_SERVICES 16
GUEST_SERVICES 32
GUEST_SERVICES 64
FRAMES64
LONG_START
        mov rax, cr4
        or eax, 0x600
        mov cr4, rax
        mov ecx, STAR
        xor eax, eax
        mov edx, CODE64 | (UBASE | 3) << 16
        wrmsr
        mov ecx, LSTAR
        mov eax, F(called)
        xor edx, edx
        wrmsr
        mov ecx, FMASK
        mov eax, 0x100
        wrmsr
; ----- eight bytes
        WATCH 'first', SPOT, 1 | WRITE << 16 | EIGHT, {mov [SPOT], al}
        WATCH 'last', SPOT, 1 | WRITE << 16 | EIGHT, {mov [SPOT + 7], al}
        WATCH 'above', SPOT, 1 | WRITE << 16 | EIGHT, {mov [SPOT + 8], al}
        WATCH 'below', SPOT, 1 | WRITE << 16 | EIGHT, {mov [SPOT - 1], al}
        WATCH 'over', SPOT, 1 | WRITE << 16 | EIGHT, {mov [SPOT - 7], rax}
        WATCH 'odd-address-first', SPOT + 5, 1 | WRITE << 16 | EIGHT, {mov [SPOT], al}
        WATCH 'odd-address-above', SPOT + 5, 1 | WRITE << 16 | EIGHT, {mov [SPOT + 9], al}
        WATCH 'read', SPOT, 1 | ACCESS << 16 | EIGHT, {mov rbx, [SPOT]}
        WATCH 'movups-low', SPOT, 1 | WRITE << 16 | EIGHT, {movups [SPOT - 8], xmm0}
        WATCH 'movups-below', SPOT, 1 | WRITE << 16 | EIGHT, {movups [SPOT - 16], xmm0}
        WATCH 'cmpxchg16b', SPOT, 1 | WRITE << 16 | EIGHT, {xor eax, eax}, {xor edx, edx}, {cmpxchg16b [SPOT]}
        WATCH 'cmpxchg16b-second', SPOT + 8, 1 | WRITE << 16 | EIGHT, {xor eax, eax}, {cmpxchg16b [SPOT]}
        WATCH 'rep-stosq', SPOT, 1 | WRITE << 16 | EIGHT, {mov edi, SPOT - 8}, {mov ecx, 3}, {rep stosq}
        WATCH 'rep-movsq', SPOT, 1 | ACCESS << 16 | EIGHT, {mov esi, SPOT - 8}, {mov edi, SPOT + 0x40}, {mov ecx, 3}, {rep movsq}
        WATCH 'fs-base', SPOT, 1 | WRITE << 16 | EIGHT, {mov [gs:SPOT], rax}
        WATCH 'fxsave64', SPOT + 0x1A0, 1 | WRITE << 16 | EIGHT, {fxsave64 [SPOT]}
        WATCH 'push-memory', SPOT, 1 | ACCESS << 16 | EIGHT, {push qword [SPOT]}, {nop}, {pop rbx}
        WATCH 'mov-ss', SPOT, 1 | ACCESS << 16, {mov ss, [SPOT]}, {nop}, {nop}
        WATCH 'lodsq-narrow', SPOT, 1 | ACCESS << 16 | EIGHT, {mov esi, SPOT}, {a32 lodsq}
; ----- addresses
        WATCH 'high', HIGH, 1 | WRITE << 16 | EIGHT, {mov rbx, HIGH}, {mov [rbx], rax}
        WATCH 'high-not-low', HIGH, 1 | WRITE << 16 | EIGHT, {mov [SPOT], rax}
        WATCH 'low-not-high', SPOT, 1 | WRITE << 16 | EIGHT, {mov rbx, HIGH}, {mov [rbx], rax}
        WATCH 'above-4-gib', SPOT | 1 << 32, 1 | WRITE << 16 | EIGHT, {mov [SPOT], rax}
        WATCH 'not-canonical', SPOT | 1 << 60, 1 | WRITE << 16 | EIGHT, {mov [SPOT], rax}
; ----- rings and modes
        USER 'user-write', UCODE64, 2, SPOT, 1 | WRITE << 16 | EIGHT, {mov [rbx], rax}
        USER 'user-compatibility', UCODE32, 2, SPOT, 1 | WRITE << 16 | EIGHT, {mov [ebx + 4], eax}
        USER 'user-compatibility-above', UCODE32, 2, SPOT | 1 << 32, 1 | WRITE << 16 | EIGHT, {mov [ebx], eax}
        USER 'user-step', UCODE64, 0x102, SPOT, 0, {nop}
        USER 'user-read-dr', UCODE64, 2, SPOT, 0, {mov rax, dr7}
        USER 'user-syscall', UCODE64, 2, SPOT, 0, {mov edx, F(.back_1)}, {syscall}, {.back_1: nop}
        USER 'user-syscall-step', UCODE64, 0x102, SPOT, 0, {syscall}
        USER 'user-sysret-step', UCODE64, 2, SPOT, 0, {mov edx, 0x102}, {syscall}, {nop}
        USER 'user-pushed', UCODE64, 2, USER_STACK - 8, 1 | WRITE << 16 | EIGHT, {push rax}
        USER 'user-int-frame', UCODE64, 2, RING0_STACK - 8, 1 | WRITE << 16 | EIGHT, {nop}
; ----- single steps
        STEPPED 'step-rep', {mov ecx, 2}, {mov esi, SPOT}, {mov edi, SPOT}, {rep movsq}
        STEPPED 'step-mov-ss', {mov eax, DATA}, {mov ss, eax}, {nop}, {nop}
        STEPPED 'step-popfq', {pushfq}, {popfq}, {nop}
        STEPPED 'step-swapgs', {swapgs}, {swapgs}
        STEPPED 'step-int', {int 0x30}, {nop}
        SET_GATE 1, STUB(1), CODE64, 0x8E, 1
        STEPPED 'step-ist', {nop}, {nop}
        WATCH 'watch-ist', SPOT, 1 | WRITE << 16 | EIGHT, {mov [SPOT], al}
        TEST 64, 'end'
        mov al, 0
        jmp finish64

; SYSCALL: R11's TF and the rest as EDX says, then back
called: test edx, 0x100
        jz .back
        mov r11d, edx
.back:  o64 sysret

preset:
        mov rax, DATA
        mov [SPOT], rax
        mov qword [SPOT + 8], 0
        mov edx, 0
        mov eax, 0xFFFF0FF0
        mov dr6, rax
        ret
outcome:
        xor eax, eax
        mov dr7, rax
        mov qword [RESUME], 0
        call mark64
        db ' =', 0
        mov rax, dr6
        jmp hex16_64

        align 8
GDT64
UBASE           equ $ - gdt
UCODE32         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xFB, 0xC
UDATA           equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xF3, 0xC
UCODE64         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xFB, 0xA
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
        dq 0
gdt_end:
TABLE_REGISTERS64
RESET_VECTOR start
