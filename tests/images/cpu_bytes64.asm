; 64-bit code, what random bytes have found: 3DNow!, which is no instruction; MOV of control and debug registers that there
; are not; INS that is refused while the lower half of RCX is 0; several REX prefixes, of which the last counts; #SS of
; addresses with R12 as their index; far transfers beyond the limit of code that is not of 64 bits, and far CALLs beyond
; that of the stack (SDM vol. 2A, 2.2.1, CALL, IRET, JMP; vol. 2B, MOV, REP, RET; vol. 3A, 6.5 and 6.15). ROM: QEMU -bios,
; v2e run --firmware. Output: a line a check, its name, what a fault pushes as exc_frames64.inc says, and = with what it
; left; ends with debug exit 0.
%include "guest.inc"
%include "exc_frames64.inc"

BEYOND          equ 0x0000900000000000  ; not canonical
ABSENT          equ 0x100010
PLACE           equ 0x5000              ; dq
SAVED           equ 0x2000
POINTER         equ 0x730

; In ring 3, which begins with RDI at PLACE and EFLAGS %2: %1 name, the rest instructions, in braces. Shows PLACE.
%macro USER 3-*
        TEST 64, {%1}
        mov rax, 0x8877665544332211
        mov [PLACE], rax
        mov edi, PLACE
        mov edx, 0x80
        mov qword [GO_TO], F(%%next)
        push UDATA
        push USER_STACK
        push %2
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
%%next: mov rax, [PLACE]
        call show
%endmacro
; In 32-bit code of ring 3: %1 name, the rest instructions, in braces, the last of which faults
%macro COMPATIBLE 2-*
        TEST 64, {%1}
        mov qword [GO_TO], F(%%next)
        push UDATA
        push USER_STACK
        push 2
        push UCODE32
        push F(%%in)
        iretq
        bits 32
%%in:
  %rotate 1
  %rep %0 - 1
        %1
    %rotate 1
  %endrep
        ud2
        bits 64
%%next:
%endmacro

org 0
rom:
GUEST_SERVICES 16
GUEST_SERVICES 32
GUEST_SERVICES 64
FRAMES64
        align 16
GDT64
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
        dq 0
UCODE64         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xFB, 0xA
UDATA           equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xF3, 0xC
UCODE32         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xFB, 0xC
SHORT_CODE           equ $ - gdt
        SEGMENT 0, 0xFFF, 0x9B, 4
USHORT          equ ($ - gdt) | 3
        SEGMENT 0, 0xFFF, 0xFB, 4
USHORT_STACK    equ ($ - gdt) | 3
        SEGMENT 0, 0x5FFF, 0xF3, 4
gdt_end:
TABLE_REGISTERS64

LONG_START
        mov rax, cr4
        or eax, 0x600                   ; OSFXSR, OSXMMEXCPT
        mov cr4, rax
        mov rax, cr0
        or eax, 0x22                    ; MP, NE
        mov cr0, rax

; ----- 3DNow!: of registers, with a suffix that is one, with an operand that is absent, with REX, and in front of #NM
        CHECK '3dnow-registers', {db 0x0F, 0x0F, 0xC1, 0x9E}
        CHECK '3dnow-none', {db 0x0F, 0x0F, 0xC1, 0x00}
        mov ecx, ABSENT
        CHECK '3dnow-absent', {db 0x0F, 0x0F, 0x01, 0xBF}
        CHECK '3dnow-rex', {db 0x44, 0x0F, 0x0F, 0x01, 0xBF}
        CHECK 'femms', {db 0x0F, 0x0E}
        mov rax, cr0
        or eax, 8
        mov cr0, rax
        CHECK '3dnow-ts', {db 0x0F, 0x0F, 0xC1, 0x9E}
        clts
        fninit
        fld1
        mov word [SAVED], 0x340
        fldcw [SAVED]
        fldz
        fdivp
        CHECK '3dnow-waits', {db 0x0F, 0x0F, 0xC1, 0x9E}
        fnstenv [SAVED]
        mov rax, [SAVED + 4]
        call show
        fninit

; ----- control and debug registers: %1 name, %2 REX, %3 opcode, %4 ModRM
%macro REGISTER 4
        CHECK {%1, '-0'}, {db %2, 0x0F, %3, %4}
        USER {%1, '-3'}, 0x2, {db %2, 0x0F, %3, %4}
%endmacro
        xor eax, eax
        REGISTER 'read-cr8', 0x44, 0x20, 0xC0
        REGISTER 'read-cr9', 0x44, 0x20, 0xC8
        REGISTER 'read-cr10', 0x44, 0x20, 0xD0
        REGISTER 'read-cr11', 0x4C, 0x20, 0xD8
        REGISTER 'read-cr12', 0x44, 0x20, 0xE0
        REGISTER 'read-cr15', 0x45, 0x20, 0xF8
        REGISTER 'read-dr8', 0x44, 0x21, 0xC0
        REGISTER 'read-dr14', 0x44, 0x21, 0xF0
        xor eax, eax
        REGISTER 'write-cr8', 0x44, 0x22, 0xC0
        REGISTER 'write-cr9', 0x44, 0x22, 0xC8
        REGISTER 'write-cr11', 0x44, 0x22, 0xD8
        REGISTER 'write-dr9', 0x4C, 0x23, 0xC8
        REGISTER 'write-dr15', 0x44, 0x23, 0xF8

; ----- INS of ring 3
        USER 'insb', 2, {insb}
        USER 'rep-insb', 2, {mov ecx, 1}, {rep insb}
        USER 'rep-insb-upper', 2, {mov rcx, 0x100000000}, {rep insb}
        USER 'rep-insb-highest', 2, {mov rcx, 0x8000000000000000}, {rep insb}
        USER 'rep-insd-upper', 2, {mov rcx, 0x700000000}, {rep insd}
        USER 'rep-insw-upper', 2, {mov rcx, 0x100000000}, {rep insw}
        USER 'rep-insb-upper-32', 0x3002, {mov rcx, 0x100000000}, {a32 rep insb}
        USER 'rep-outsb-upper', 2, {mov esi, PLACE}, {mov rcx, 0x100000000}, {rep outsb}

; ----- prefixes and R12
        mov rax, BEYOND
        mov r12, rax
        mov r9, rax
        mov ebp, PLACE
        mov ebx, PLACE
        CHECK 'rbp-r12', {mov eax, [rbp + r12]}
        CHECK 'rbp-r12-4', {mov eax, [rbp + r12 * 4 + 8]}
        CHECK 'rbp-r12-movups', {movups xmm0, [rbp + r12 + 0x1000]}
        CHECK 'rbp-r12-fist', {fild dword [rbp + r12]}
        CHECK 'rbp-r12-pshufb', {pshufb mm0, [rbp + r12]}
        CHECK 'rsp-r12', {mov [rsp + r12], al}
        CHECK 'rbx-r12', {mov eax, [rbx + r12]}
        CHECK 'rbp-rex-rex', {mov rbp, rax}, {db 0x41}, {mov rax, [rbp]}
        CHECK 'r13-rex-66', {mov r13, rax}, {mov ebp, PLACE}, {db 0x41, 0x66, 0x8B, 0x45, 0x00}
        CHECK 'rex-ret', {push BEYOND >> 40}, {mov [rsp], rax}, {db 0x48, 0x44}, {ret 8}
        CHECK 'rex-rex-ret-traced', {push rax}, {push 0x102}, {popfq}, {db 0x48, 0x44, 0xC2, 8, 0}
        push 2
        popfq

; ----- POPCNT with a prefix 66 and REX.W, which comes before it; XSETBV without CR4.OSXSAVE
        USER 'popcnt-66', 2, {mov rax, -1}, {db 0x66, 0xF3, 0x0F, 0xB8, 0xC0}, {mov [rdi], rax}
        USER 'popcnt-66-wide', 2, {mov rax, -1}, {db 0x66, 0xF3, 0x48, 0x0F, 0xB8, 0xC0}, {mov [rdi], rax}
        USER 'popcnt-66-wide-high', 2, {mov r8, -1}, {db 0x66, 0xF3, 0x4D, 0x0F, 0xB8, 0xC0}, {mov [rdi], r8}
        USER 'popcnt-66-narrow', 2, {mov rax, -1}, {db 0x66, 0xF3, 0x40, 0x0F, 0xB8, 0xC0}, {mov [rdi], rax}
        USER 'xsetbv', 2, {xor ecx, ecx}, {mov eax, 1}, {xor edx, edx}, {xsetbv}
        USER 'xsetbv-rex', 2, {xor ecx, ecx}, {mov eax, 1}, {xor edx, edx}, {db 0x4A, 0x0F, 0x01, 0xD1}
        CHECK 'xsetbv-ring-0', {xor ecx, ecx}, {mov eax, 1}, {xor edx, edx}, {xsetbv}
        COMPATIBLE 'compatible-xsetbv', {xor ecx, ecx}, {mov eax, 1}, {xor edx, edx}, {xsetbv}
        mov rax, cr4
        or eax, 0x40000                 ; OSXSAVE
        mov cr4, rax
        USER 'xsetbv-enabled', 2, {xor ecx, ecx}, {mov eax, 1}, {xor edx, edx}, {xsetbv}
        mov rax, cr4
        and eax, ~0x40000
        mov cr4, rax

; ----- far transfers beyond the limit of code that is not of 64 bits
        mov dword [POINTER], 0x1000
        mov dword [POINTER + 4], SHORT_CODE
        CHECK 'jmp-beyond', {jmp far [POINTER]}
        CHECK 'call-beyond', {call far [POINTER]}
        CHECK 'retf-beyond', {push SHORT_CODE}, {push 0x1000}, {o64 retf}
        CHECK 'retf-beyond-32', {sub rsp, 8}, {mov dword [rsp], 0x1000}, {mov dword [rsp + 4], SHORT_CODE}, {retf}
        CHECK 'retf-outer-beyond', {push UDATA}, {push USER_STACK}, {push USHORT}, {push 0x1000}, {o64 retf}
        CHECK 'retf-outer-upper', {push UDATA}, {push USER_STACK}, {push USHORT}, {push 0x7FFFFFFF}, {o64 retf}
        CHECK 'iretq-beyond', {push DATA}, {push rsp}, {push 2}, {push SHORT_CODE}, {push 0x1000}, {iretq}
        CHECK 'iretq-outer-beyond', {push UDATA}, {push USER_STACK}, {push 2}, {push USHORT}, {push 0x1000}, {iretq}
        USER 'retf-64-beyond', 2, {push USHORT}, {push 0x1000}, {o64 retf}
        USER 'iretq-64-beyond', 2, {push UDATA}, {push USER_STACK}, {push 2}, {push USHORT}, {push 0x1000}, {iretq}
        COMPATIBLE 'compatible-jmp-beyond', {jmp USHORT:0x1000}
        COMPATIBLE 'compatible-call-beyond', {call USHORT:0x1000}
        COMPATIBLE 'compatible-retf-beyond', {push USHORT}, {push dword 0x1000}, {retf}
        COMPATIBLE 'compatible-retf-16-beyond', {push word USHORT}, {push word 0x1000}, {o16 retf}
        COMPATIBLE 'compatible-iretd-beyond', {push dword 2}, {push USHORT}, {push dword 0x1000}, {iretd}
        COMPATIBLE 'compatible-call-stack', {mov eax, USHORT_STACK}, {mov ss, eax}, {mov esp, 0x6008}, {call UCODE32:0x1000}
        COMPATIBLE 'compatible-call-stack-2', {mov eax, USHORT_STACK}, {mov ss, eax}, {mov esp, 2}, {call UCODE32:0x1000}
        COMPATIBLE 'compatible-retf-stack', {mov eax, USHORT_STACK}, {mov ss, eax}, {mov esp, 0x5FFC}, {retf}
        TEST 64, 'end'
        mov al, 0
        jmp finish64

show:   push rax
        mov al, ' '
        out 0xE9, al
        mov al, '='
        out 0xE9, al
        pop rax
        jmp hex16_64

RESET_VECTOR start
