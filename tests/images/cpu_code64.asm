; 64-bit code: addresses that are not canonical, of operands, near branches under EFLAGS.TF, far returns and tables; what
; MMX and x87 instructions leave that fault by them; IRET with VM, VIF and VIP in its frame; PUSHA and POPA, which are none
; (SDM vol. 1, 3.3.7.1; vol. 3A, 6.5; vol. 2, each instruction's 64-bit exceptions). ROM: QEMU -bios, v2e run --firmware.
; Output: a line a check, its name, what a fault pushes as exc_frames64.inc says, and = with what it left; ends with debug
; exit 0.
%include "guest.inc"
%include "exc_frames64.inc"

BEYOND          equ 0x8000000000000000  ; not canonical
EDGE            equ 0x0000800000000000  ; the first that is not
ABSENT          equ 0x100010
SAVED           equ 0x2000              ; what FXSAVE stores
TARGET          equ 0x708               ; dq: BEYOND
TABLE_OPERAND   equ 0x712
FAR16           equ 0x730               ; far pointers to THERE
FAR32           equ 0x738
FAR_COMPATIBLE  equ 0x740
FAR_BEYOND      equ 0x748               ; beyond its segment
FAR_USER        equ 0x750
THERE           equ 0x4000              ; UD2
HIGH            equ 0xFFFFFFFF80006000  ; 6000h, by another address
ABSENT_END      equ 0x100FFC

%macro SHOW 0
        call show
%endmacro

; %1 name, the rest a near branch to what is in RAX, or at [RSP], under TF
%macro TRACED 2+
        TEST 64, %1
        mov [HELD], rsp
        mov rax, [TARGET]
        sub rsp, 0x20
        mov [rsp + 8], rax
        mov qword [rsp], 0x102
        mov qword [RESUME], F(%%after)
        popfq
        %2
%%after:
        mov rsp, [HELD]
        mov qword [RESUME], 0
        push 2
        popfq
%endmacro
; With two registers of the x87 in use: %1 name, %2 an instruction whose operand is at RBX and RBP, not canonical, or RCX,
; absent
%macro LEAVES 2+
        TEST 64, %1
        fninit
        fldpi
        fld1
        fldl2e
        fincstp
        xor eax, eax
        mov cr2, rax
        mov rbx, BEYOND
        mov rbp, rbx
        mov ecx, ABSENT
        mov qword [RESUME], F(%%after)
        %2
%%after:
        mov qword [RESUME], 0
        call state
%endmacro
; The same with an exception that waits
%macro WAITING 2+
        TEST 64, %1
        fninit
        fld1
        mov word [SAVED], 0x340
        fldcw [SAVED]
        fldz
        fdivp
        mov eax, 0x1234
        mov cr2, rax
        mov rbx, BEYOND
        mov rbp, rbx
        mov ecx, ABSENT
        mov qword [RESUME], F(%%after)
        %2
%%after:
        mov qword [RESUME], 0
        call state
        fninit
%endmacro
; In ring 3 of the code segment %2, with the stack pointer %3: %1 name, the rest instructions, each in braces
%macro USER 4-*
        TEST 64, {%1}
        mov qword [GO_TO], F(%%next)
        push UDATA
        push USER_STACK
        push 2
        push %2
        push F(%%in)
        iretq
  %if %2 = UCODE32
        bits 32
  %endif
%%in:   mov ecx, esp
        mov ebx, %3
  %if %2 != UCODE32
        mov rsp, rbx
  %endif
  %rotate 3
  %rep %0 - 3
        %1
    %rotate 1
  %endrep
        ud2
        bits 64
%%next:
%endmacro
; IRET of ring 0 with %2 for RFLAGS: %1 name, %3 which
%macro RETURNS 3
        TEST 64, %1
        mov rbx, rsp
  %ifidn %3, iretq
        push DATA
        push rbx
        push %2
        push CODE64
        push F(%%next)
  %else
        sub rsp, 20
        mov dword [rsp], F(%%next)
        mov dword [rsp + 4], CODE64
        mov dword [rsp + 8], %2
        mov dword [rsp + 12], ebx
        mov dword [rsp + 16], DATA
  %endif
        mov qword [RESUME], F(%%next)
        %3
%%next: mov rsp, rbx
        mov qword [RESUME], 0
        pushfq
        pop rax
        SHOW
%endmacro

; In ring 0 with SS %3, and RSP and RBX %2: %1 name, the rest instructions, in braces, of which the last faults or leads to #UD
%macro FAR_CHECK 4-*
        TEST 64, {%1}
        mov qword [GO_TO], F(%%after)
        mov rbx, %2
        mov eax, %3
        mov ss, eax
        mov rsp, rbx
  %rotate 3
  %rep %0 - 3
        %1
    %rotate 1
  %endrep
        ud2
%%after:
        mov rax, [rbx - 8]              ; what a CALL has pushed
        SHOW
%endmacro

org 0
rom:
GUEST_SERVICES 16
GUEST_SERVICES 32
GUEST_SERVICES 64
FRAMES64
        align 16
GDT64
ABSENT_CODE     equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x1B, 0xA
SMALL_CODE      equ $ - gdt
        SEGMENT 0, THERE - 1, 0x9B, 0x4
DATA16          equ $ - gdt
        SEGMENT 0x10000, 0xFFFF, 0x93, 0
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
        dq 0
UCODE64         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xFB, 0xA
UCODE32         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xFB, 0xC
UDATA           equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xF3, 0xC
gdt_end:
TABLE_REGISTERS64

LONG_START
        mov rax, cr4
        or eax, 0x600                   ; OSFXSR, OSXMMEXCPT
        mov cr4, rax
        mov rax, cr0
        or eax, 0x22                    ; MP, NE
        mov cr0, rax
        mov rax, BEYOND + 0x1234
        mov [TARGET], rax

; ----- near branches under TF, and without
        TRACED 'tf-ret', ret
        TRACED 'tf-ret-8', ret 8
        TRACED 'tf-ret-7fff', ret 0x7fff
        TRACED 'tf-ret-rex', db 0x48, 0xC3
        TRACED 'tf-rep-ret', db 0xF3, 0xC3
        TRACED 'tf-jmp', jmp rax
        TRACED 'tf-jmp-memory', jmp [rsp]
        TRACED 'tf-jmp-absolute', jmp [TARGET]
        TRACED 'tf-call', call rax
        TRACED 'tf-call-memory', call [TARGET]
        TRACED 'tf-nop', nop
        TRACED 'tf-jmp-there', jmp short $ + 2
        CHECK 'jmp', {mov rax, [TARGET]}, {jmp rax}
        CHECK 'call', {mov rax, [TARGET]}, {call rax}
        CHECK 'ret', {push qword [TARGET]}, {ret}

; ----- what faults leave
        LEAVES 'paddb', paddb mm0, [rbx]
        LEAVES 'movq-load', movq mm1, [rbx]
        LEAVES 'movq-store', movq [rbx], mm0
        LEAVES 'movd-load', movd mm0, [rbx]
        LEAVES 'movd-store', movd [rbx], mm3
        LEAVES 'movntq', movntq [rbx], mm0
        LEAVES 'punpcklbw', punpcklbw mm0, [rbx]
        LEAVES 'psllw', psllw mm0, [rbx]
        LEAVES 'pshufw', pshufw mm2, [rbx], 1
        LEAVES 'pinsrw', pinsrw mm0, [rbx], 1
        LEAVES 'cvttps2pi', cvttps2pi mm0, [rbx]
        LEAVES 'pshufb', pshufb mm0, [rbx]
        LEAVES 'palignr', palignr mm0, [rbx], 3
        LEAVES 'fst-32', fst dword [rbx]
        LEAVES 'fst-64', fst qword [rbx]
        LEAVES 'fstp-32', fstp dword [rbx]
        LEAVES 'fist-16', fist word [rbx]
        LEAVES 'fist-32', fist dword [rbx]
        LEAVES 'fistp-64', fistp qword [rbx]
        LEAVES 'fisttp-32', fisttp dword [rbx]
        LEAVES 'fstp-80', fstp tword [rbx]
        LEAVES 'fbstp', fbstp [rbx]
        LEAVES 'fld-32', fld dword [rbx]
        LEAVES 'fadd', fadd qword [rbx]
        LEAVES 'fnsave', fnsave [rbx]
        LEAVES 'frstor', frstor [rbx]
        LEAVES 'fxsave', fxsave [rbx]
        LEAVES 'fst-stack', fst dword [rbp]
        LEAVES 'paddb-stack', paddb mm0, [rbp]
        LEAVES 'fst-absent', fst dword [rcx]
        LEAVES 'paddb-absent', paddb mm0, [rcx]

; ----- an exception of the x87 that waits
        WAITING 'waits-fadd', fadd qword [rbx]
        WAITING 'waits-fst', fst qword [rbx]
        WAITING 'waits-fld-80', fld tword [rbx]
        WAITING 'waits-fldcw', fldcw [rbx]
        WAITING 'waits-paddb', paddb mm0, [rbx]
        WAITING 'waits-movq', movq [rbx], mm0
        WAITING 'waits-pshufb', pshufb mm0, [rbx]
        WAITING 'waits-frstor', frstor [rbx]
        WAITING 'waits-not-fnstcw', fnstcw [rbx]
        WAITING 'waits-not-fnstsw', fnstsw [rbx]
        WAITING 'waits-not-mov', mov eax, [rbx]
        WAITING 'waits-fadd-absent', fadd qword [rcx]
        WAITING 'waits-fst-absent', fst qword [rcx]
        WAITING 'waits-fistp-absent', fistp word [rcx]
        WAITING 'waits-fld-80-absent', fld tword [rcx]
        WAITING 'waits-fldcw-absent', fldcw [rcx]
        WAITING 'waits-paddb-absent', paddb mm0, [rcx]
        WAITING 'waits-movq-absent', movq [rcx], mm0
        WAITING 'waits-not-fnstcw-absent', fnstcw [rcx]
        WAITING 'waits-not-mov-absent', mov [rcx], eax

; ----- operands that begin below the edge, with no page there
        mov rdi, EDGE - 1
        CHECK 'edge-byte', {mov al, [rdi]}
        CHECK 'edge-word', {mov ax, [rdi]}
        CHECK 'edge-dword', {mov eax, [rdi]}
        CHECK 'edge-store', {mov [rdi], rax}
        CHECK 'edge-add', {add [rdi], eax}
        CHECK 'edge-fits', {mov eax, [rdi - 3]}
        CHECK 'edge-fits-not', {mov eax, [rdi - 2]}
        CHECK 'edge-quadword', {mov rax, [rdi - 6]}
        CHECK 'edge-movups', {movups xmm0, [rdi - 8]}
        CHECK 'edge-movups-store', {movups [rdi - 8], xmm0}
        CHECK 'edge-fld-80', {fld tword [rdi - 8]}
        CHECK 'edge-stack', {mov rbp, EDGE - 1}, {mov eax, [rbp]}
        CHECK 'edge-push', {mov rsi, TARGET}, {push qword [rsi]}
        CHECK 'edge-movs', {mov rsi, EDGE - 2}, {mov edi, 0x700}, {movsd}
        CHECK 'edge-lods', {mov rsi, EDGE - 7}, {lodsq}

; ----- tables
        mov rax, BEYOND
        mov word [TABLE_OPERAND], 0x7F
        mov [TABLE_OPERAND + 2], rax
        CHECK 'lgdt', {lgdt [TABLE_OPERAND]}
        CHECK 'lidt', {lidt [TABLE_OPERAND]}
        mov rax, EDGE
        mov [TABLE_OPERAND + 2], rax
        CHECK 'lgdt-edge', {mov ebx, TABLE_OPERAND - 8}, {lgdt [rbx + 8]}
        CHECK 'lidt-edge', {mov r9d, TABLE_OPERAND}, {lidt [r9]}
        CHECK 'lidt-absent', {mov r9d, 0x100FFC - 0x1000}, {lidt [r9 + 2]}
        CHECK 'lidt-not-canonical', {mov r9, BEYOND}, {lidt [r9]}
        sidt [TABLE_OPERAND]
        CHECK 'lidt-same', {lidt [TABLE_OPERAND]}
        sgdt [TABLE_OPERAND]
        CHECK 'lgdt-same', {lgdt [TABLE_OPERAND]}
        USER 'lidt-ring-3', UCODE64, USER_STACK, {lidt [0x712]}
        USER 'lgdt-ring-3-absent', UCODE64, USER_STACK, {lgdt [ABSENT]}

; ----- far returns: what is wrong about the selector comes first
        mov rbx, BEYOND
        CHECK 'retf-code', {push CODE64}, {push rbx}, {o64 retf}
        CHECK 'retf-data', {push DATA}, {push rbx}, {o64 retf}
        CHECK 'retf-limit', {push 0x7FF8}, {push rbx}, {o64 retf}
        CHECK 'retf-null', {push 0}, {push rbx}, {o64 retf}
        CHECK 'retf-absent', {push ABSENT_CODE}, {push rbx}, {o64 retf}
        CHECK 'iretq-code', {push DATA}, {push rsp}, {push 2}, {push CODE64}, {push rbx}, {iretq}
        CHECK 'iretq-limit', {push DATA}, {push rsp}, {push 2}, {push 0x7FF8}, {push rbx}, {iretq}
        CHECK 'iretq-absent', {push DATA}, {push rsp}, {push 2}, {push ABSENT_CODE}, {push rbx}, {iretq}

; ----- IRET: VM is ignored, VIF and VIP are ring 0's
        RETURNS 'iretq-vif', 0x80002, iretq
        RETURNS 'iretq-vip', 0x100002, iretq
        RETURNS 'iretq-vif-vip', 0x180002, iretq
        RETURNS 'iretq-none', 2, iretq
        RETURNS 'iretq-vm', 0x20002, iretq
        RETURNS 'iretq-vm-vif', 0xA0002, iretq
        RETURNS 'iretd-vif', 0x80002, iretd
        RETURNS 'iretd-vm', 0x20002, iretd
        RETURNS 'iretd-vm-vip', 0x120002, iretd
        RETURNS 'iretd-none', 2, iretd
        RETURNS 'iretq-nt', 0x4002, iretq
        RETURNS 'iretq-in-nt', 2, iretq
        push 2
        popfq
        USER 'ring-3-iretd-vm', UCODE32, 0, {push dword 0x23002}, {push dword UCODE32}, {push dword F(.there_1)}, {iretd}, {.there_1: nop}
        USER 'ring-3-iretd-vif-vip', UCODE32, 0, {push dword 0x180002}, {push dword UCODE32}, {push dword F(.there_2)}, {iretd}, {.there_2: nop}
        USER 'ring-3-iretd-vm-frame', UCODE32, 0, {push dword 0}, {push dword 0}, {push dword 0x23002}, {push dword 0}, {push dword 0x500}, {iretd}
        USER 'ring-3-64-iretd-vm', UCODE64, USER_STACK - 20, {mov dword [rsp], F(.there_3)}, {mov dword [rsp + 4], UCODE64}, {mov dword [rsp + 8], 0x23002}, {mov [rsp + 12], ecx}, {mov dword [rsp + 16], UDATA}, {iretd}, {.there_3: nop}
        USER 'ring-3-64-iretq-vm', UCODE64, USER_STACK - 40, {mov qword [rsp], F(.there_4)}, {mov qword [rsp + 8], UCODE64}, {mov qword [rsp + 16], 0x1A3002}, {mov [rsp + 24], rcx}, {mov qword [rsp + 32], UDATA}, {iretq}, {.there_4: nop}

; ----- far CALL, RETF and IRET with operands of 32 and 16 bits, to #UD: RSP counts as a whole
        mov word [THERE], 0x0B0F        ; UD2
        mov word [FAR16], THERE
        mov word [FAR16 + 2], CODE64
        mov dword [FAR32], THERE
        mov word [FAR32 + 4], CODE64
        mov dword [FAR_COMPATIBLE], THERE
        mov word [FAR_COMPATIBLE + 4], CODE32
        mov dword [FAR_USER], THERE
        mov word [FAR_USER + 4], UCODE64
        mov dword [FAR_BEYOND], THERE
        mov word [FAR_BEYOND + 4], SMALL_CODE
; %1 suffix of the names, %2 RSP, %3 SS
%macro FAR 3
        FAR_CHECK {'retf-32-', %1}, %2, %3, {mov dword [rbx], THERE}, {mov dword [rbx + 4], CODE64}, {retf}
        FAR_CHECK {'retf-16-', %1}, %2, %3, {mov word [rbx], THERE}, {mov word [rbx + 2], CODE64}, {o16 retf}
        FAR_CHECK {'retf-32-10-', %1}, %2, %3, {mov dword [rbx], THERE}, {mov dword [rbx + 4], CODE64}, {retf 0x10}
        FAR_CHECK {'retf-32-data-', %1}, %2, %3, {mov dword [rbx], THERE}, {mov dword [rbx + 4], DATA}, {retf}
        FAR_CHECK {'retf-32-ring-3-', %1}, %2, %3, {mov dword [rbx], THERE}, {mov dword [rbx + 4], UCODE64}, \
            {mov dword [rbx + 8], 0x81234567}, {mov dword [rbx + 12], UDATA}, {retf}
        FAR_CHECK {'retf-32-8-ring-3-', %1}, %2, %3, {mov dword [rbx], THERE}, {mov dword [rbx + 4], UCODE64}, \
            {mov dword [rbx + 16], 0x5000}, {mov dword [rbx + 20], UDATA}, {retf 8}
        FAR_CHECK {'retf-16-ring-3-', %1}, %2, %3, {mov word [rbx], THERE}, {mov word [rbx + 2], UCODE64}, \
            {mov word [rbx + 4], 0x5000}, {mov word [rbx + 6], UDATA}, {o16 retf}
        FAR_CHECK {'iretd-', %1}, %2, %3, {mov dword [rbx], THERE}, {mov dword [rbx + 4], CODE64}, {mov dword [rbx + 8], 0x46}, \
            {mov dword [rbx + 12], 0x5100}, {mov dword [rbx + 16], DATA}, {iretd}
        FAR_CHECK {'iretd-ring-3-', %1}, %2, %3, {mov dword [rbx], THERE}, {mov dword [rbx + 4], UCODE64}, \
            {mov dword [rbx + 8], 0x240046}, {mov dword [rbx + 12], 0x81234567}, {mov dword [rbx + 16], UDATA}, {iretd}
        FAR_CHECK {'iret-16-ring-3-', %1}, %2, %3, {mov word [rbx], THERE}, {mov word [rbx + 2], UCODE64}, \
            {mov word [rbx + 4], 0x47}, {mov word [rbx + 6], 0x5100}, {mov word [rbx + 8], UDATA}, {push 0x240002}, {popfq}, {iretw}
        FAR_CHECK {'call-32-', %1}, %2, %3, {call far dword [FAR32]}
        FAR_CHECK {'call-16-', %1}, %2, %3, {db 0x66, 0xFF, 0x1C, 0x25, FAR16 & 0xFF, FAR16 >> 8, 0, 0}
%endmacro
        FAR 'low', 0x6000, DATA
        FAR 'high', HIGH, DATA
        FAR 'high-null', HIGH, 0
        FAR 'low-16', 0x16000, DATA16
        FAR_CHECK 'retf-32-compatible', 0x6000, DATA, {mov dword [rbx], THERE}, {mov dword [rbx + 4], CODE32}, {retf}
        FAR_CHECK 'call-32-compatible', 0x6000, DATA, {call far dword [FAR_COMPATIBLE]}
        FAR_CHECK 'call-32-beyond', 0x6000, DATA, {call far dword [FAR_BEYOND]}
        USER 'retf-32-absent', UCODE64, ABSENT_END, {retf}
        USER 'retf-16-absent', UCODE64, ABSENT_END + 2, {o16 retf}
        USER 'iretd-absent', UCODE64, ABSENT_END, {iretd}
        USER 'call-32-absent', UCODE64, ABSENT_END + 4, {call far dword [FAR32]}
        USER 'call-16-absent', UCODE64, ABSENT_END + 4, {db 0x66, 0xFF, 0x1C, 0x25, FAR16 & 0xFF, FAR16 >> 8, 0, 0}
        USER 'call-32-read-only', UCODE64, ABSENT_END + 12, {call far dword [FAR_USER]}
        USER 'call-32-user', UCODE64, USER_STACK, {call far dword [FAR_USER]}
        USER 'retf-32-not-canonical', UCODE64, EDGE, {retf}
        USER 'call-32-not-canonical', UCODE64, EDGE + 8, {call far dword [FAR_USER]}
        USER 'call-32-not-canonical-second', UCODE64, EDGE + 4, {call far dword [FAR_USER]}
        push 2
        popfq

; ----- no instructions of 64-bit code
%assign n 0
%rep 2
  %if n = 0
    %define STACK_AT ABSENT
    %define WHERE 'absent'
  %else
    %define STACK_AT USER_STACK
    %define WHERE 'there'
  %endif
        USER {'pusha-', WHERE}, UCODE64, STACK_AT, {db 0x60}
        USER {'popa-', WHERE}, UCODE64, STACK_AT, {db 0x61}
        USER {'pushaw-', WHERE}, UCODE64, STACK_AT, {db 0x66, 0x60}
        USER {'push-es-', WHERE}, UCODE64, STACK_AT, {db 0x06}
        USER {'pop-ds-', WHERE}, UCODE64, STACK_AT, {db 0x1F}
        USER {'call-far-', WHERE}, UCODE64, STACK_AT, {db 0x9A, 0, 0, 0, 0, 0, 0}
        USER {'bound-', WHERE}, UCODE64, STACK_AT, {db 0x62, 0x04, 0x24}
        USER {'into-', WHERE}, UCODE64, STACK_AT, {db 0xCE}
  %assign n n + 1
%endrep

; ----- control and debug registers, by REX.R from 8 on
%assign reg 0
%rep 8
  %assign modrm 0xC0 + reg * 8
  %define R '0' + reg
        CHECK {'mov-from-dr-8-', R}, {db 0x44, 0x0F, 0x21, modrm}
        CHECK {'mov-to-dr-8-', R}, {db 0x45, 0x0F, 0x23, modrm}
        USER {'mov-from-cr-8-', R, '-ring-3'}, UCODE64, USER_STACK, {db 0x44, 0x0F, 0x20, modrm}
        USER {'mov-to-cr-8-', R, '-ring-3'}, UCODE64, USER_STACK, {db 0x4D, 0x0F, 0x22, modrm}
        USER {'mov-from-cr-', R, '-ring-3'}, UCODE64, USER_STACK, {db 0x41, 0x0F, 0x20, modrm}
        USER {'mov-from-dr-', R, '-ring-3'}, UCODE64, USER_STACK, {db 0x0F, 0x21, modrm}
        USER {'mov-from-dr-8-', R, '-ring-3'}, UCODE64, USER_STACK, {db 0x4C, 0x0F, 0x21, modrm}
        USER {'mov-to-dr-8-', R, '-ring-3'}, UCODE64, USER_STACK, {db 0x44, 0x0F, 0x23, modrm}
  %assign reg reg + 1
%endrep
        CHECK 'mov-from-cr-8', {db 0x44, 0x0F, 0x20, 0xC0}
        CHECK 'mov-from-cr-10', {db 0x44, 0x0F, 0x20, 0xD0}
        TEST 64, 'end'
        mov al, 0
        jmp finish64

; Print the x87's control and status words, tags, exponents and CR2
state:
        fxsave [SAVED]
        mov eax, [SAVED]
        SHOW
        movzx eax, byte [SAVED + 4]
        SHOW
        xor eax, eax
        xor ebx, ebx
.next:  rol eax, 3
        add ax, [SAVED + 32 + 8 + rbx]
        add ebx, 16
        cmp ebx, 128
        jb .next
        SHOW
        mov rax, cr2
show:
        push rax
        mov al, ' '
        out 0xE9, al
        mov al, '='
        out 0xE9, al
        pop rax
        jmp hex16_64

RESET_VECTOR start
