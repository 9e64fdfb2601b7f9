; Page faults of operands and stacks of 64-bit code of ring 3, a line a check: the page EDGE behind or below which they lie
; is absent, read-only and the supervisor's (SDM vol. 3A, 4.6 and 4.7). ROM: QEMU -bios, v2e run --firmware. A check prints
; its name behind that of the page, the frame of an exception, and =DIGEST of the memory around the page. Ends with debug
; exit 0.
%include "guest.inc"
%include "exc_frames64.inc"

BELOW           equ 0x110000            ; a page of the program's
EDGE            equ BELOW + 0x1000      ; the page in question
ABOVE           equ EDGE + 0x1000       ; a page of the program's
EDGE_ENTRY      equ PAGE_TABLE + (EDGE >> 12) * 8
KIND            equ 0x610               ; dd: which kind of page it is
FS_BASE         equ 0xC0000100
FS_AT           equ 0x10000

; In ring 3 with stack pointer %2, where a frame to return with stands: %1 name, the rest instructions, each in braces
%macro USER 3-*
        call name
        db %1, 0
        mov ebx, %2
        call preset
        mov qword [GO_TO], F(%%next)
        push UDATA
        push %2
        push 2
        push UCODE64
        push F(%%in)
        iretq
%%in:
  %rotate 2
  %rep %0 - 2
        %1
    %rotate 1
  %endrep
        ud2
%%next: call outcome
%endmacro

org 0
rom:
GUEST_SERVICES 16
GUEST_SERVICES 32
GUEST_SERVICES 64
FRAMES64
LONG_START
        mov rax, cr4
        or eax, 0x600                   ; OSFXSR, OSXMMEXCPT
        mov cr4, rax
        mov ecx, FS_BASE
        mov eax, FS_AT
        xor edx, edx
        wrmsr
        SET_GATE 0x31, user_ud, UCODE64 & 0xFFFC, 0xEE, 0
        mov dword [KIND], 0
checks:
%assign at 0
%rep 3
  %assign x EDGE - at
  %define D '0' + at
        USER {'load-', D}, STACK, {mov rax, [x]}
        USER {'store-', D}, STACK, {mov [x], rax}
        USER {'add-', D}, STACK, {add [x], rax}
        USER {'add-32-', D}, STACK, {add [x], eax}
        USER {'add-base-index-', D}, STACK, {add [r8 + rcx * 4 + 0x1000 - 8 - at], rax}
        USER {'add-below-', D}, STACK, {add [r9 - 0x1000 - at], rax}
        USER {'add-relative-', D}, STACK, {add [rel x - ROM], rax}
        USER {'add-relative-immediate-', D}, STACK, {add qword [rel x - ROM], 0x12345678}
        USER {'add-narrow-', D}, STACK, {add [r10d + x], eax}
        USER {'add-fs-', D}, STACK, {add [fs:x - FS_AT], eax}
        USER {'lock-xadd-', D}, STACK, {lock xadd [x], r11}
        USER {'xchg-', D}, STACK, {xchg [r8 + 0x1000 - at], r11}
        USER {'cmpxchg-', D}, STACK, {cmpxchg [r8 + 0x1000 - at], r11w}
        USER {'not-', D}, STACK, {not qword [r9 - 0x1000 - at]}
        USER {'push-', D, '-down'}, ABOVE + at, {push rax}
        USER {'enter-', D, '-down'}, ABOVE + at, {enter 0, 0}
        USER {'enter-frame-', D, '-down'}, ABOVE + 8 + at, {enter 0x20, 0}
        USER {'enter-1-', D, '-down'}, ABOVE + 16 + at, {enter 8, 1}
        USER {'enter-3-', D, '-down'}, ABOVE + 8 + at, {mov ebp, BELOW + 0x20}, {enter 0, 3}
        USER {'enter-16-', D, '-down'}, ABOVE + 2 + at, {o16 enter 4, 0}
        USER {'call-far-', D, '-down'}, ABOVE + 4 + at, {call far dword [F(pointer)]}
        USER {'call-far-64-', D, '-down'}, ABOVE + 8 + at, {o64 call far [F(pointer64)]}
        USER {'call-far-16-', D, '-down'}, ABOVE + 2 + at, {o16 call far [F(pointer16)]}
        USER {'sgdt-', D}, STACK, {sgdt [x - 8]}
        USER {'sidt-relative-', D}, STACK, {sidt [rel x - ROM]}
        USER {'movups-', D}, STACK, {movups [r8 + 0x1000 - 8 - at], xmm9}
        USER {'movdqu-relative-', D}, STACK, {movdqu [rel x - 8 - ROM], xmm1}
        USER {'fstp-80-', D}, STACK, {fld1}, {fstp tword [r9 - 0x1000 - at - 8]}
        USER {'clflush-', D}, STACK, {clflush [r8 + 0x1000 - at]}
  %assign at at + 1
%endrep
        USER {'bts-far'}, STACK, {mov r14d, 0x8000}, {bts [r8], r14}
        USER {'bts-below'}, STACK, {mov r14, -1}, {bts [r9], r14}
        USER {'bts-32-below'}, STACK, {mov r14d, -1}, {bts [r9], r14d}
        USER {'cmpxchg8b'}, STACK, {cmpxchg8b [EDGE - 4]}
        USER {'cmpxchg16b'}, STACK, {cmpxchg16b [EDGE]}
        USER {'maskmovdqu'}, STACK, {pcmpeqb xmm1, xmm1}, {mov edi, EDGE - 4}, {maskmovdqu xmm9, xmm1}
        USER {'fxsave'}, STACK, {fxsave [EDGE - 0x100]}
        USER {'fxsave-in-xmm-15'}, STACK, {fxsave64 [EDGE - 0x190]}
        USER {'fxrstor'}, STACK, {fxrstor [EDGE - 0x10]}
        USER {'retf'}, EDGE - 4, {retf}
        USER {'retf-64'}, EDGE - 8, {o64 retf}
        USER {'iretq-ss'}, EDGE - 32, {iretq}
        USER {'iretq-all'}, EDGE, {iretq}
        USER {'int-same-ring'}, ABOVE + 8, {int 0x31}
        USER {'call-gate-same-ring'}, ABOVE + 8, {call far dword [F(gate_pointer)]}

        inc dword [KIND]
        cmp dword [KIND], 3
        jb checks
        TEST 64, 'end'
        mov al, 0
        jmp finish64

user_ud:
        ud2

; A new line, and the page's kind before the name that follows the CALL
name:
        mov al, 10
        out 0xE9, al
        mov eax, [KIND]
        mov edi, [F(kinds) + rax * 4]
.next:  mov al, [rdi]
        inc edi
        test al, al
        jz .name
        out 0xE9, al
        jmp .next
.name:  jmp mark64

kinds:  dd F(absent), F(read_only), F(supervisor)
absent: db 'absent-', 0
read_only: db 'read-only-', 0
supervisor: db 'supervisor-', 0
entries: dd 0, EDGE | 5, EDGE | 3

; Registers as checks begin with; R10 has only bits that narrow addresses drop
preset:
        cld
        mov dword [EDGE_ENTRY], EDGE | 7
        mov rax, cr3
        mov cr3, rax
        mov esi, F(stubs)
        mov edi, BELOW
        mov ecx, 0x20 / 8
        rep movsq
        mov edi, EDGE - 0x1A0
        mov ecx, 0x340 / 8
        rep movsq
        mov edi, ABOVE - 0x80
        mov ecx, 0xC0 / 8
        rep movsq
        mov dword [rbx], F(user_ud)
        mov dword [rbx + 4], 0
        mov dword [rbx + 8], UCODE64
        mov dword [rbx + 12], 0
        mov qword [rbx + 16], 2
        mov qword [rbx + 24], STACK
        mov qword [rbx + 32], UDATA
        fninit
        mov eax, [KIND]
        mov eax, [F(entries) + rax * 4]
        mov [EDGE_ENTRY], eax
        mov rax, cr3
        mov cr3, rax
        mov eax, 0x11223344
        mov ecx, 2
        mov edx, 0x55667788
        mov ebx, 0x99AABBCC
        mov r8d, BELOW
        mov r9d, ABOVE
        mov r10, 0x7FFF00000000
        mov r11, 0x0123456789ABCDEF
        mov ebp, EDGE + 0x40
        cmp ecx, ecx
        ret

outcome:
        cld
        mov dword [EDGE_ENTRY], EDGE | 7
        mov rax, cr3
        mov cr3, rax
        call mark64
        db ' =', 0
        xor edx, edx
        mov esi, BELOW
        mov ecx, 0x20 / 4
        call sum
        mov esi, EDGE - 0x1A0
        mov ecx, 0x340 / 4
        call sum
        mov esi, ABOVE - 0x80
        mov ecx, 0xC0 / 4
        call sum
        mov eax, edx
        jmp hex8_64
sum:    rol edx, 5
        add edx, [rsi]
        add esi, 4
        loop sum
        ret

        align 8
pointer: dd F(user_ud)
        dw UCODE64
pointer16: dw 0, UCODE64
        align 8
pointer64: dq F(user_ud)
        dw UCODE64
gate_pointer: dd 0
        dw GATE3
        align 8
GDT64
UCODE64         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xFB, 0xA
UDATA           equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xF3, 0xC
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
        dq 0
GATE3           equ ($ - gdt) | 3
        dw (user_ud - rom) & 0xFFFF, UCODE64 & 0xFFFC, 0xEC00, ROM >> 16
        dq 0
gdt_end:
TABLE_REGISTERS64
RESET_VECTOR start
