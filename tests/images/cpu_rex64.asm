; 64-bit code: REX of every kind before opcodes that ignore a part of it (ModRM.reg that is no register, MMX and x87
; registers), before LAHF and SAHF, and where it does not count, as a prefix or another REX stands behind it (SDM vol. 2A,
; 2.2.1). ROM: QEMU -bios, v2e run --firmware. Output: a line a check: the bytes of the instruction, what a fault pushes as
; exc_frames64.inc says, and = with digests of the general registers, x87 and MMX, XMM, and the memory that it may write.
; Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames64.inc"

CODE            equ 0x20000             ; where each instruction is put
SAVED           equ 0x21000             ; RFLAGS and the general registers behind it
STATE           equ 0x21100             ; and what FXSAVE stores
OPERAND         equ 0x22000             ; what EBX and R11 point to
OPERAND_SIZE    equ 0x40
RSP_BEFORE      equ 0x700               ; dq
RETURN          equ 0x708               ; dq: where the check goes on
KIND            equ 0x710               ; dd: which REX it is
GO              equ 0x718               ; dq: CODE

; Bytes of an instruction: %1 how many stand before REX, the rest
%macro CODE_OF 2+
        db %1, %%end - %%begin
%%begin:
        db %2
%%end:
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
        mov rax, cr0
        or eax, 0x22                    ; MP, NE
        mov cr0, rax
        mov [RSP_BEFORE], rsp
        mov rax, F(behind)
        mov [RETURN], rax
        mov eax, CODE
        mov [GO], rax
        mov esi, F(table)
        mov dword [KIND], 0
checks:
        mov al, 10
        out 0xE9, al
        ; the instruction, and a jump back behind it
        movzx ecx, byte [rsi]
        movzx edx, byte [rsi + 1]
        sub edx, ecx
        lea ebp, [rsi + 2]
        mov edi, CODE
        jecxz .rex
.before:
        mov al, [rbp]
        call put
        inc ebp
        loop .before
.rex:   mov eax, [KIND]
        mov al, [F(kinds) + rax]
        call put
.bytes: mov al, [rbp]
        call put
        inc ebp
        dec edx
        jnz .bytes
        mov [RESUME], rdi
        mov dword [rdi], 0x2524FF       ; jmp [abs RETURN]
        mov dword [rdi + 3], RETURN
        push rsi
        mov [RSP_BEFORE], rsp
        ; the same state before each
        mov edi, OPERAND
        mov ecx, OPERAND_SIZE / 4
        mov eax, 0x01234567
.fill:  mov [rdi], eax
        add edi, 4
        imul eax, eax, 0x08088405
        inc eax
        loop .fill
        fxrstor64 [F(state)]
        mov rax, 0x1122334455667788
        mov rcx, 0x0000000A00000003
        mov rdx, 0x7766554433221107
        mov ebx, OPERAND
        mov rbp, 0x8899AABBCCDDEEFF
        mov rsi, 0x0123456789ABCDEF
        mov rdi, 0xFEDCBA9876543210
        mov r8, 0x0F1E2D3C4B5A6978
        mov r9, 0x1020304050607080
        mov r10, 0x1111111122222222
        mov r11d, OPERAND
        mov r12, 0x3333333344444444
        mov r13, 0x5555555566666666
        mov r14, 0x7777777788888888
        mov r15, 0x99999999AAAAAAAA
        push 0x46
        popfq
        mov esp, STACK - 0x100
        jmp [abs GO]

behind:
        mov [SAVED + 8], rax
        mov [SAVED + 16], rsp
        mov esp, STACK - 0x200
        pushfq
        pop qword [SAVED]
        and dword [SAVED], ~0x810       ; OF and AF, which shifts leave undefined
        mov [SAVED + 24], rcx
        mov [SAVED + 32], rdx
        mov [SAVED + 40], rbx
        mov [SAVED + 48], rbp
        mov [SAVED + 56], rsi
        mov [SAVED + 64], rdi
        mov [SAVED + 72], r8
        mov [SAVED + 80], r9
        mov [SAVED + 88], r10
        mov [SAVED + 96], r11
        mov [SAVED + 104], r12
        mov [SAVED + 112], r13
        mov [SAVED + 120], r14
        mov [SAVED + 128], r15
        fxsave64 [STATE]
        cld
        mov qword [RESUME], 0
        xor eax, eax                    ; FOP, FIP and FDP
        mov [STATE + 6], ax
        mov [STATE + 8], rax
        mov [STATE + 16], rax
        mov rsp, [RSP_BEFORE]
        call mark64
        db ' =', 0
        mov edi, SAVED
        mov ecx, 34
        call digest
        mov edi, STATE
        mov ecx, 40
        call digest
        mov edi, STATE + 160
        mov ecx, 64
        call digest
        mov edi, OPERAND
        mov ecx, OPERAND_SIZE / 4
        call digest
        mov edi, STACK - 0x140
        mov ecx, 32
        call digest
        ; what is below the stack again
        mov edi, STACK - 0x140
        mov ecx, 32
        mov eax, OPERAND + 8
.stack: mov [rdi], eax
        add edi, 4
        loop .stack
        pop rsi
        inc dword [KIND]
        cmp dword [KIND], kinds_end - kinds
        jb checks
        mov dword [KIND], 0
        movzx eax, byte [rsi + 1]
        lea esi, [rsi + rax + 2]
        cmp esi, F(table_end)
        jb checks
        TEST 64, 'end'
        mov al, 0
        jmp finish64

; Put AL to EDI, and print it
put:
        stosb
        jmp hex2_64

; Print the digest of the ECX dwords at EDI
digest:
        xor eax, eax
.next:  rol eax, 5
        add eax, [rdi]
        imul eax, eax, 0x08088405
        add edi, 4
        loop .next
        call hex8_64
        mov al, ':'
        out 0xE9, al
        ret

kinds:  db 0x40, 0x44, 0x45, 0x48, 0x4C, 0x4F
kinds_end:

%define M 0x43, 0x08                    ; [rbx + 8], [r11 + 8], and below with another ModRM.reg

table:
        CODE_OF 0, 0x9E
        CODE_OF 0, 0x9F
        CODE_OF 1, 0x66, 0x9E
        CODE_OF 1, 0x66, 0x9F
        CODE_OF 1, 0xF3, 0x9F
        ; a prefix, or another REX, behind REX
        CODE_OF 0, 0x66, 0x9F
        CODE_OF 0, 0x66, 0x89, 0xC8
        CODE_OF 0, 0x66, 0x01, M
        CODE_OF 0, 0x3E, 0x89, 0xC8
        CODE_OF 0, 0x64, 0x89, 0xC8
        CODE_OF 0, 0x67, 0x89, M
        CODE_OF 0, 0xF3, 0x90
        CODE_OF 0, 0xF2, 0x89, 0xD1
        CODE_OF 0, 0xF0, 0x01, M
        CODE_OF 0, 0x66, 0x88, 0xE0
        CODE_OF 0, 0x3E, 0x88, 0xE5
        CODE_OF 0, 0x40, 0x89, 0xC8
        CODE_OF 0, 0x41, 0x89, 0xC8
        CODE_OF 0, 0x44, 0x89, 0xC8
        CODE_OF 0, 0x48, 0x89, 0xC8
        CODE_OF 0, 0x40, 0x88, 0xE0
        CODE_OF 0, 0x40, 0x9F
        CODE_OF 0, 0x65, 0x9F
        CODE_OF 1, 0x64, 0x9E
        CODE_OF 0, 0x44, 0x0F, 0x38, 0x1D, 0xF2
        CODE_OF 0, 0x40, 0x66, 0x89, 0xC8
        CODE_OF 0, 0x66, 0x40, 0x89, 0xC8
        CODE_OF 0, 0x66, 0x48, 0x89, 0xC8
        CODE_OF 0, 0x66, 0x88, 0xE0
        CODE_OF 0, 0x66, 0x0F, 0xFC, 0xCA
        CODE_OF 0, 0x66, 0x0F, 0x38, 0x1C, 0xCA
        CODE_OF 0, 0xF3, 0x0F, 0x10, 0xCA
        CODE_OF 0, 0x66, 0xB8, 0x12, 0x34, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90
        CODE_OF 0, 0x66, 0x50
        CODE_OF 0, 0x66, 0x9C
        ; groups: ModRM.reg is no register
%assign reg 0
%rep 8
  %assign mem 0x43 + reg * 8
  %assign two 0xC1 + reg * 8
        CODE_OF 0, 0x80, mem, 8, 0x55
        CODE_OF 0, 0x81, two, 1, 2, 3, 4
        CODE_OF 0, 0x83, mem, 8, 0xFE
        CODE_OF 0, 0xC0, two, 3
        CODE_OF 0, 0xC1, mem, 8, 5
        CODE_OF 0, 0xD0, two
        CODE_OF 0, 0xD1, mem, 8
        CODE_OF 0, 0xD2, mem, 8
        CODE_OF 0, 0xD3, two
        CODE_OF 0, 0x0F, 0xBA, mem, 8, 3
        CODE_OF 0, 0x0F, 0x18, mem, 8
        CODE_OF 0, 0x0F, 0x1F, mem, 8
        CODE_OF 0, 0xC6, mem, 8, 0x55
        CODE_OF 0, 0xC6, two, 9
        CODE_OF 0, 0xC7, mem, 8, 1, 2, 3, 4
        CODE_OF 0, 0xC7, two, 1, 2, 3, 4
        CODE_OF 0, 0x8F, two
        CODE_OF 0, 0x8C, two
        CODE_OF 0, 0xFE, two
        CODE_OF 0, 0x0F, 0x71, two, 3
        CODE_OF 0, 0x0F, 0x72, two, 3
        CODE_OF 0, 0x0F, 0x73, two, 3
        CODE_OF 1, 0x66, 0x0F, 0x71, two, 3
        CODE_OF 1, 0x66, 0x0F, 0x72, two, 3
        CODE_OF 1, 0x66, 0x0F, 0x73, two, 3
  %assign reg reg + 1
%endrep
        CODE_OF 1, 0x66, 0xC7, 0x43, 8, 1, 2, 0x90, 0x90
        CODE_OF 1, 0x66, 0xC7, 0xC1, 1, 2, 0x90, 0x90
        CODE_OF 0, 0x8F, 0x03
        CODE_OF 0, 0xF6, 0x43, 8, 0x55
        CODE_OF 0, 0xF6, 0xCB, 0x55
        CODE_OF 0, 0xF7, 0x53, 8
        CODE_OF 0, 0xF7, 0xD9
        CODE_OF 0, 0xF6, 0xE1
        CODE_OF 0, 0xF6, 0xE9
        CODE_OF 0, 0xF7, 0xE1
        CODE_OF 0, 0xF7, 0x6B, 8
        CODE_OF 0, 0xF6, 0xF1
        CODE_OF 0, 0xF6, 0xF9
        CODE_OF 0, 0xFE, 0x43, 8
        CODE_OF 0, 0xFF, 0x4B, 8
        CODE_OF 0, 0xFF, 0x73, 8
        CODE_OF 0, 0x0F, 0xC7, 0x4B, 8
        CODE_OF 0, 0x0F, 0xAE, 0x5B, 8
        CODE_OF 0, 0x0F, 0xAE, 0xE8
        CODE_OF 0, 0x0F, 0xAE, 0xF0
        CODE_OF 0, 0x0F, 0x00, 0x43, 8
        CODE_OF 0, 0x0F, 0x00, 0xC1
        CODE_OF 0, 0x0F, 0x01, 0x43, 8
        CODE_OF 0, 0x0F, 0x01, 0x63, 8
        CODE_OF 0, 0x0F, 0x01, 0xE1
        CODE_OF 0, 0x0F, 0xB9, 0xC1
        CODE_OF 0, 0x8C, 0x43, 8
        CODE_OF 0, 0xD9, 0x7B, 8
        CODE_OF 0, 0xD9, 0xC1
        CODE_OF 0, 0xDD, 0x53, 8
        CODE_OF 0, 0xDB, 0x43, 8
        CODE_OF 0, 0xDF, 0xE0
        CODE_OF 0, 0xDE, 0xC1
        CODE_OF 0, 0x0F, 0x20, 0xC1
        CODE_OF 0, 0x0F, 0x20, 0xD1
        CODE_OF 0, 0x0F, 0x21, 0xC1
        CODE_OF 0, 0x0F, 0x94, 0xC4
        CODE_OF 0, 0x0F, 0x94, 0x63, 8
        ; MMX registers: of both operands, with memory, with others
%macro BOTH 1+
        CODE_OF 0, 0x0F, %1, 0xCA
        CODE_OF 0, 0x0F, %1, 0x63, 8
%endmacro
%assign op 0x60
%rep 12
        BOTH op
  %assign op op + 1
%endrep
%assign op 0xD1
%rep 0x2E
  %if op != 0xD6 && op != 0xD7 && op != 0xE6 && op != 0xE7 && op != 0xF0 && op != 0xF7
        BOTH op
  %endif
  %assign op op + 1
%endrep
        BOTH 0x6E
        BOTH 0x6F
        BOTH 0x74
        BOTH 0x75
        BOTH 0x76
        BOTH 0x7E
        BOTH 0x7F
        CODE_OF 0, 0x0F, 0x70, 0xCA, 0x1B
        CODE_OF 0, 0x0F, 0xC4, 0xCA, 1
        CODE_OF 0, 0x0F, 0xC4, 0x4B, 8, 2
        CODE_OF 0, 0x0F, 0xC5, 0xCA, 1
        CODE_OF 0, 0x0F, 0xD7, 0xCA
        CODE_OF 0, 0x0F, 0xE7, 0x4B, 8
        CODE_OF 0, 0x0F, 0x2A, 0xCA
        CODE_OF 0, 0x0F, 0x2A, 0x4B, 8
        CODE_OF 0, 0x0F, 0x2C, 0xCA
        CODE_OF 0, 0x0F, 0x2D, 0x4B, 8
        CODE_OF 1, 0x66, 0x0F, 0x2A, 0xCA
        CODE_OF 1, 0x66, 0x0F, 0x2C, 0xCA
        CODE_OF 1, 0x66, 0x0F, 0x2D, 0xCA
        CODE_OF 1, 0xF3, 0x0F, 0xD6, 0xCA
        CODE_OF 1, 0xF2, 0x0F, 0xD6, 0xCA
        CODE_OF 0, 0x0F, 0x77
%assign op 0
%rep 0x1F
  %if op < 0x0C || op > 0x1B
        BOTH 0x38, op
        CODE_OF 1, 0x66, 0x0F, 0x38, op, 0xCA
  %endif
  %assign op op + 1
%endrep
        CODE_OF 0, 0x0F, 0x3A, 0x0F, 0xCA, 3
        CODE_OF 0, 0x0F, 0x3A, 0x0F, 0x63, 8, 5
        CODE_OF 1, 0x3E, 0x0F, 0x38, 0x1D, 0xF2
        CODE_OF 1, 0x67, 0x0F, 0x38, 0x1D, 0x63, 8
        CODE_OF 1, 0x66, 0x0F, 0x3A, 0x0F, 0xCA, 3
        CODE_OF 0, 0x0F, 0x38, 0xF0, 0x4B, 8
        CODE_OF 0, 0x0F, 0x38, 0xF1, 0x4B, 8
        CODE_OF 1, 0xF2, 0x0F, 0x38, 0xF1, 0xCA
        CODE_OF 1, 0x66, 0x0F, 0x3A, 0x16, 0xCA, 1
        CODE_OF 1, 0x66, 0x0F, 0x3A, 0x14, 0xCA, 1
table_end:

        align 16
; What FXRSTOR loads: one x87 register is empty, XMM are small numbers
state:  dw 0x037F, 0x0800, 0, 0
        dq 0, 0
        dd 0x1F80, 0xFFFF
%assign n 0
%rep 8
        dq 0x8000000000000000 + 0x0102030405060708 * (n + 1), 0x3FFF + n
  %assign n n + 1
%endrep
%assign n 0
%rep 16
        dd 0x3F800000 + n * 0x100000, 0x40000000 + n * 0x100000, 0x41000000 + n * 0x10000, 0x42000000 + n
  %assign n n + 1
%endrep
        times 96 db 0

        align 16
GDT64
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
        dq 0
gdt_end:
TABLE_REGISTERS64

RESET_VECTOR start
