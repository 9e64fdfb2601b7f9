; Long mode: each slot of the interrupt stack table, nested, used again, absent and not canonical; stacks and targets that
; are not canonical (SDM vol. 3A, 6.14.5; vol. 1, 3.3.7.1; vol. 2, each instruction's 64-bit exceptions). ROM: QEMU -bios,
; v2e run --firmware. Output as exc_frames64.inc says; ends with debug exit 0.
%include "guest.inc"
%include "exc_frames64.inc"

BEYOND          equ 0x0000800000000100  ; not canonical
STACKS          equ 0x20000             ; of the slots, 1000h each
%define IST(n) (TSS + 0x24 + ((n) - 1) * 8)
%define TOP(n) (STACKS + (n) * 0x1000 + (n))    ; not aligned: the CPU aligns it

; %1 name, %2 an instruction of ring 3 that uses the stack, which is at RDX and not canonical
%macro BAD_STACK 2+
        TEST 64, %1
        mov qword [RESUME], %%after + ROM
        mov rsp, rdx
        %2
%%after:
        mov rsp, USER_STACK
        mov qword [RESUME], 0
%endmacro
; %1 name, %2 a transfer of control that faults; the stack is put right behind it
%macro BAD_TARGET 2+
        TEST 64, %1
        mov qword [RESUME], %%after + ROM
        %2
%%after:
        mov rsp, USER_STACK
        mov qword [RESUME], 0
%endmacro

org 0
rom:
GUEST_SERVICES 16
GUEST_SERVICES 32
GUEST_SERVICES 64

LONG_START
%assign slot 1
%rep 7
        mov qword [IST(slot)], TOP(slot)
        SET_GATE 0x20 + slot, STUB(0x20 + slot), CODE64, 0xEE, slot
  %assign slot slot + 1
%endrep
%assign slot 1
%rep 7
        TEST 64, {'slot-', '0' + slot}
        int 0x20 + slot
  %assign slot slot + 1
%endrep
        TEST 64, 'slot-0-is-the-same-stack'
        SET_GATE 0x28, STUB(0x28), CODE64, 0xEE, 0
        int 0x28

; ----- nested: a handler on one slot takes events on others, and on its own
        SET_GATE 0x30, nested_2, CODE64, 0x8E, 1
        SET_GATE 0x31, nested_own, CODE64, 0x8E, 1
        SET_GATE 0x32, nested_deep, CODE64, 0x8E, 3
        SET_GATE 0x33, nested_fault, CODE64, 0x8E, 4
        SET_GATE 6, STUB(6), CODE64, 0x8E, 5
        TEST 64, 'nested'
        int 0x30
        TEST 64, 'nested-on-its-own-stack'      ; whose frame is overwritten
        int 0x31
        TEST 64, 'nested-three-deep'
        int 0x32
        TEST 64, 'nested-fault'
        int 0x33

; ----- slots that cannot be used: the fault has its own, then none
        mov qword [IST(6)], 0x100800            ; an absent page
        SET_GATE 14, STUB(14), CODE64, 0x8E, 2
        FAULTS 'slot-absent', int 0x26
        SET_GATE 14, STUB(14), CODE64, 0x8E, 0
        FAULTS 'slot-absent-0', int 0x26
        mov rax, BEYOND
        mov [IST(6)], rax
        SET_GATE 12, STUB(12), CODE64, 0x8E, 2
        SET_GATE 13, STUB(13), CODE64, 0x8E, 3
        FAULTS 'slot-not-canonical', int 0x26
        mov rax, 0x0000800000000008             ; aligned to what is not canonical; the first push is
        mov [IST(6)], rax
        FAULTS 'slot-at-the-edge', int 0x26
        SET_GATE 12, STUB(12), CODE64, 0x8E, 0
        SET_GATE 13, STUB(13), CODE64, 0x8E, 0
        SET_GATE 8, STUB(8), CODE64, 0x8E, 7
        SET_GATE 14, STUB(14), CODE64, 0x0E, 0  ; absent
        FAULTS 'double-fault', mov eax, [0x100000]
        SET_GATE 14, STUB(14), CODE64, 0x8E, 6  ; a slot that is not canonical
        mov rax, BEYOND
        mov [IST(6)], rax
        FAULTS 'double-fault-by-its-stack', mov eax, [0x100000]
        SET_GATE 14, STUB(14), CODE64, 0x8E, 0

; ----- from ring 3
        SET_GATE 6, STUB(6), CODE64, 0x8E, 0
        SET_GATE 0x35, STUB(0x35), CODE64, 0xEE, 0
        push qword UDATA
        push qword USER_STACK
        push qword 0x3002
        push qword UCODE64
        push qword F(user)
        iretq
user:
; ----- stacks that are not canonical: #SS(0)
        mov rdx, BEYOND
        BAD_STACK 'push', push rax
        BAD_STACK 'push-imm', push 5
        BAD_STACK 'push-mem', push qword [RESUME]
        BAD_STACK 'pushfq', pushfq
        BAD_STACK 'push-fs', push fs
        BAD_STACK 'pop', pop rax
        BAD_STACK 'pop-mem', pop qword [0x700]
        BAD_STACK 'popfq', popfq
        BAD_STACK 'call', call next_instruction
        BAD_STACK 'call-reg', call rax
        BAD_STACK 'ret', ret
        BAD_STACK 'ret-imm', ret 8
        BAD_STACK 'retf', o64 retf
        BAD_STACK 'iretq', iretq
        BAD_STACK 'enter', enter 8, 0
        mov rbp, rdx
        FAULTS 'leave', leave
        FAULTS 'mov-rbp', mov rax, [rbp]
        FAULTS 'mov-rbp-disp', mov [rbp + 8], al
        FAULTS 'mov-rbp-index', mov rax, [rbp + rcx * 2]
        FAULTS 'mov-r13', mov rax, [r13 + 0]
        mov r13, rdx
        mov r12, rdx
        FAULTS 'r13-is-ds', mov rax, [r13]
        FAULTS 'r12-is-ds', mov rax, [r12]
        BAD_STACK 'mov-rsp', mov rax, [rsp]
        BAD_STACK 'mov-rsp-index', mov rax, [rsp + rcx]
        FAULTS 'fs-rbp', mov rax, [fs:rbp]
        FAULTS 'ds-rbp', mov rax, [ds:rbp]      ; no override in 64-bit mode
        mov rsi, rdx
        FAULTS 'rsi', mov rax, [rsi]
        FAULTS 'rdi-index', mov rax, [rdi + rdx]
        FAULTS 'lodsb', lodsb
        mov rdi, rdx
        FAULTS 'stosb', stosb
        mov rbp, rdx
        FAULTS 'inc-rbp', inc dword [rbp]
        FAULTS 'bt-rbp', bt [rbp], eax
        FAULTS 'fld-rbp', fld dword [rbp]

; ----- targets that are not canonical: #GP(0), and nothing has happened
        mov rdx, BEYOND
        BAD_TARGET 'jmp-reg', jmp rdx
        mov [0x700], rdx
        BAD_TARGET 'jmp-mem', jmp [0x700]
        BAD_TARGET 'call-to', call rdx
        BAD_TARGET 'call-to-mem', call [0x700]
        push rdx
        BAD_TARGET 'ret-to', ret
        push rdx
        BAD_TARGET 'ret-imm-to', ret 0x10
        push qword UCODE64
        push rdx
        BAD_TARGET 'retf-to', o64 retf
        push qword UDATA
        push qword USER_STACK
        push qword 0x3002
        push qword UCODE64
        push rdx
        BAD_TARGET 'iretq-to', iretq

; ----- from ring 3: the slots, then RSP0
%assign slot 1
%rep 5
        TEST 64, {'user-slot-', '0' + slot}
        int 0x20 + slot
  %assign slot slot + 1
%endrep
        SET_GATE 12, STUB(12), CODE64, 0x8E, 2
        SET_GATE 13, STUB(13), CODE64, 0x8E, 3
        SET_GATE 14, STUB(14), CODE64, 0x8E, 4
        mov rax, BEYOND
        mov [TSS + 4], rax
        FAULTS 'user-rsp0-not-canonical', int 0x35
        mov dword [TSS + 4], 0x100800
        mov dword [TSS + 8], 0
        FAULTS 'user-rsp0-absent', int 0x35
        mov dword [TSS + 4], RING0_STACK
        TEST 64, 'user-leave'
        mov qword [GO_TO], F(.ring0)
        ud2
.ring0:
        SET_GATE 13, STUB(13), CODE64, 0x8E, 0
        mov dword [IDT + 0x34 * 16], (STUB(0x34) - rom) & 0xFFFF | CODE64 << 16
        mov dword [IDT + 0x34 * 16 + 4], 0x8E00
        mov dword [IDT + 0x34 * 16 + 8], 0x8000
        BAD_TARGET 'gate-to', int 0x34
        mov dword [IDT + 6 * 16 + 8], 0x8000
        BAD_TARGET 'gate-of-a-fault-to', ud2
        SET_GATE 6, STUB(6), CODE64, 0x8E, 0
        TEST 64, 'end'
        mov al, 0
        jmp finish64
next_instruction:
        nop

nested_2:
        int 0x22
        iretq
nested_own:                             ; keeps what the event on its own stack overwrites
        mov r8, [rsp]
        mov r9, [rsp + 16]
        mov r10, [rsp + 24]
        mov r11, [rsp + 32]
        int 0x21
        mov [rsp], r8
        mov [rsp + 16], r9
        mov [rsp + 24], r10
        mov [rsp + 32], r11
        iretq
nested_deep:
        int 0x30
        int 0x24
        iretq
nested_fault:
        mov qword [RESUME], F(.after)
        ud2
.after: iretq

FRAMES64

        align 8
GDT64
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
