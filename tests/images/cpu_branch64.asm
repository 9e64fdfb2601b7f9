; Near branches of 64-bit code to addresses that are not canonical, from the code at the edges of those that are, too: #GP(0) in
; the branch, before any effect of it, and before what is wrong with its stack; what of data breakpoints is met by a branch that
; faults (SDM vol. 2A, CALL, Jcc, JMP, LOOP; vol. 2B, RET; vol. 3A, 6.5). ROM: QEMU -bios, v2e run --firmware. Output: a line a
; check, its name, what a fault pushes as exc_frames64.inc says, and = with RCX, the quadword below its stack, and DR6; ends
; with debug exit 0.
%include "guest.inc"
%include "exc_frames64.inc"

EDGE            equ 0x0000800000000000  ; the first that is not canonical
UPPER           equ 0xFFFF800000000000  ; the first that is again
BEYOND          equ 0x8000000000000000
PAGE_AT         equ 0x200000            ; 2 MiB, which end at EDGE and begin at UPPER
TABLES          equ 0x20000             ; page-directory-pointer tables and page directories for both
TARGET          equ 0x708               ; dq: BEYOND
BELOW           equ 0x710               ; dq: what is below the stack of ring 3
WATCHED         equ 0x718               ; dq: DR7 of ring 3
ABSENT          equ 0x100010
READ_ONLY       equ 0x101010

; In ring 3 with the stack pointer %2 and RCX %3: %1 name, the rest instructions, each in braces
%macro USER 4-*
        TEST 64, {%1}
        mov rax, [BELOW]
        mov [USER_STACK - 8], rax
        mov qword [GO_TO], F(%%next)
        push UDATA
        push %2
        push 2
        push UCODE64
        push F(%%in)
        mov rax, BEYOND
        mov rcx, %3
        mov rdx, [WATCHED]
        mov dr7, rdx
        iretq
%%in:
  %rotate 3
  %rep %0 - 3
        %1
    %rotate 1
  %endrep
        ud2
%%next: call left
%endmacro
; In ring 3 with RCX %3, at linear %2: %1 name, the rest instructions in braces
%macro AT_EDGE 4-*
        TEST 64, {%1}
        mov rax, [BELOW]
        mov [USER_STACK - 8], rax
        mov esi, F(%%code)
        mov rdi, %2
        mov ecx, %%end - %%code
        mov rax, EDGE                   ; up to there
        sub rax, rdi
        cmp rcx, rax
        cmova rcx, rax
        rep movsb
        mov qword [GO_TO], F(%%next)
        push UDATA
        push USER_STACK
        push 2
        push UCODE64
        mov rax, %2
        push rax
        mov rax, BEYOND
        mov rcx, %3
        iretq
%%code:
  %rotate 3
  %rep %0 - 3
        %1
    %rotate 1
  %endrep
        ud2
%%end:
%%next: call left
%endmacro

%macro SHOW 0
        call show
%endmacro

org 0
rom:
GUEST_SERVICES 16
GUEST_SERVICES 32
GUEST_SERVICES 64
FRAMES64
LONG_START
        mov edi, TABLES
        xor eax, eax
        mov ecx, 0x4000 / 4
        rep stosd
        mov dword [PML4 + 255 * 8], TABLES | 7
        mov dword [PML4 + 256 * 8], (TABLES + 0x1000) | 7
        mov dword [TABLES + 511 * 8], (TABLES + 0x2000) | 7
        mov dword [TABLES + 0x1000], (TABLES + 0x3000) | 7
        mov dword [TABLES + 0x2000 + 511 * 8], PAGE_AT | 0x87
        mov dword [TABLES + 0x3000], PAGE_AT | 0x87
        mov rax, BEYOND
        mov [TARGET], rax
        mov qword [BELOW], 0x5678
        mov qword [WATCHED], 0

; ----- what a branch is to leave
        USER 'call', USER_STACK, 1, {call rax}
        USER 'call-memory', USER_STACK, 1, {call [TARGET]}
        USER 'call-index', USER_STACK, 1, {call [TARGET - 8 + rcx * 8]}
        USER 'call-rsp', USER_STACK, 1, {push rax}, {call [rsp]}
        USER 'call-66', USER_STACK, 1, {db 0x66, 0xFF, 0xD0}
        USER 'call-edge', USER_STACK, 1, {mov rax, EDGE}, {call rax}
        USER 'call-below-upper', USER_STACK, 1, {mov rax, UPPER - 1}, {call rax}
        USER 'call-good', USER_STACK, 1, {mov eax, F(user_ud)}, {call rax}
        USER 'call-upper', USER_STACK, 1, {mov rax, UPPER + 0x1FF000}, {call rax}
        USER 'jmp', USER_STACK, 1, {jmp rax}
        USER 'ret', USER_STACK, 1, {push rax}, {ret}
        USER 'ret-16', USER_STACK, 1, {push rax}, {ret 16}
; ----- before what is wrong with the stack, or behind that
        USER 'call-stack-absent', ABSENT, 1, {call rax}
        USER 'call-memory-stack-absent', ABSENT, 1, {call [TARGET]}
        USER 'call-stack-read-only', READ_ONLY, 1, {call rax}
        USER 'call-stack-not-canonical', USER_STACK, 1, {mov rsp, rax}, {call rax}
        USER 'call-memory-absent', ABSENT, 1, {call [ABSENT]}
        USER 'ret-absent', ABSENT, 1, {ret}
; ----- with a data breakpoint on the stack
        mov eax, USER_STACK - 8
        mov dr0, rax
        mov qword [WATCHED], 0x000B0002
        mov rax, BEYOND
        mov [BELOW], rax
        USER 'breakpoint-ret', USER_STACK, 1, {mov rsp, USER_STACK - 8}, {ret}
        USER 'breakpoint-call', USER_STACK, 1, {call rax}
        USER 'breakpoint-call-good', USER_STACK, 1, {mov eax, F(user_ud)}, {call rax}
        USER 'breakpoint-call-then', USER_STACK, 1, {mov rbx, [USER_STACK - 8]}
        mov qword [WATCHED], 0
        mov qword [BELOW], 0x5678
; ----- from the edges
%define LAST EDGE - 0x20
        AT_EDGE 'jmp-short', LAST, 2, {jmp short $ + 0x30}
        AT_EDGE 'jmp-near', LAST, 2, {jmp near $ + 0x3000}
        AT_EDGE 'call-near', LAST, 2, {call $ + 0x3000}
        AT_EDGE 'je-short', LAST, 2, {cmp eax, eax}, {je short $ + 0x30}
        AT_EDGE 'je-near', LAST, 2, {cmp eax, eax}, {je near $ + 0x3000}
        AT_EDGE 'jne-short', LAST, 2, {cmp eax, eax}, {jne short $ + 0x30}
        AT_EDGE 'loop', LAST, 2, {loop $ + 0x30}
        AT_EDGE 'loop-ends', LAST, 1, {loop $ + 0x30}
        AT_EDGE 'loop-32', LAST, 2, {a32 loop $ + 0x30}
        AT_EDGE 'loope', LAST, 2, {cmp eax, eax}, {loope $ + 0x30}
        AT_EDGE 'jrcxz', LAST, 0, {jrcxz $ + 0x30}
        AT_EDGE 'jrcxz-not', LAST, 1, {jrcxz $ + 0x30}
        AT_EDGE 'behind-nop', EDGE - 1, 1, {nop}
        AT_EDGE 'behind-jne', EDGE - 2, 1, {jne short $ + 2}
        AT_EDGE 'je-to-edge', EDGE - 4, 1, {cmp eax, eax}, {je short $ + 2}
        AT_EDGE 'cut-by-edge', EDGE - 2, 1, {mov eax, 1}
        AT_EDGE 'upper-jmp-short', UPPER, 2, {jmp short $ - 0x30}
        AT_EDGE 'upper-call', UPPER, 2, {call $ - 0x30}
        AT_EDGE 'upper-loop', UPPER, 2, {loop $ - 0x30}
        TEST 64, 'end'
        mov al, 0
        jmp finish64

user_ud:
        ud2

; Print RCX, what is below the stack of ring 3, and DR6, which is cleared
left:
        xor eax, eax
        mov dr7, rax
        mov rax, [RING0_STACK - 0x58]
        SHOW
        mov rax, [USER_STACK - 8]
        SHOW
        mov rax, dr6
        SHOW
        mov eax, 0xFFFF0FF0
        mov dr6, rax
        ret
show:
        push rax
        mov al, ' '
        out 0xE9, al
        mov al, '='
        out 0xE9, al
        pop rax
        jmp hex16_64

        align 8
GDT64
UCODE64         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xFB, 0xA
UDATA           equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xF3, 0xC
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
        dq 0
gdt_end:
TABLE_REGISTERS64
RESET_VECTOR start
