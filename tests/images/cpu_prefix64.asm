; 64-bit code: prefixes of ES, CS, SS and DS, whose registers have bases, are ignored; those of FS and GS are not, whatever
; stands behind them (SDM vol. 1, 3.4.2.1; vol. 2A, 2.1.1; AMD64 APM vol. 3, 1.2.4). ROM: QEMU -bios, v2e run --firmware.
; Output: a line a check, name, what a fault pushes as exc_frames64.inc says, and = with RAX; ends with debug exit 0.
%include "guest.inc"
%include "exc_frames64.inc"

LOW             equ 0x2000              ; where operands are without a base
BASE            equ 0x1008              ; of ES, SS and DS: no multiple of 16
FS_BASE         equ 0x20000
GS_BASE         equ 0x30000
SHOWN           equ 0x708               ; dq: RAX before an instruction
MSR_FS          equ 0xC0000100
MSR_GS          equ 0xC0000101

; %1 name, %2 the prefixes as bytes, %3 the instruction
%macro WITH 3+
        TEST 64, {%1}
        mov qword [RESUME], %%after + ROM
        mov rax, [SHOWN]
        db %2
        %3
%%after:
        mov qword [RESUME], 0
        call show
%endmacro

; %1 suffix of the names, %2 the prefixes
%macro FORMS 2
        call fresh
        WITH {'load-', %1}, {%2}, mov eax, [abs LOW]
        WITH {'load-rbx-', %1}, {%2}, mov rax, [rbx]
        WITH {'load-rbp-', %1}, {%2}, mov rax, [rbp + 8]
        WITH {'load-rsp-', %1}, {%2}, mov rax, [rsp + rcx - STACK + LOW]
        WITH {'load-r13-', %1}, {%2}, mov rax, [r13 + rcx * 4]
        WITH {'load-32-', %1}, {%2}, mov rax, [ebx]
        WITH {'load-32-rbp-', %1}, {%2}, mov rax, [ebp + ecx * 2]
        WITH {'load-moffs-', %1}, {%2}, mov al, [qword LOW]
        WITH {'store-', %1}, {%2}, mov [rbx + 16], rcx
        call fresh
        WITH {'add-', %1}, {%2}, add qword [rbx], 5
        call fresh
        WITH {'lea-', %1}, {%2}, lea rax, [rbx + 3]
        mov rsi, LOW
        WITH {'lods-', %1}, {%2}, lodsq
        mov rsi, LOW
        mov rdi, LOW + 16
        mov ecx, 2
        WITH {'rep-movs-', %1}, {%2}, rep movsb
        call fresh
        WITH {'xlat-', %1}, {%2}, xlatb
        WITH {'push-', %1}, {%2}, push qword [rbx]
        pop rax
        call show
        WITH {'bt-', %1}, {%2}, bts [rbx], rcx
        call fresh
        WITH {'cmpxchg-', %1}, {%2}, cmpxchg [rbx], rcx
        call fresh
        WITH {'aligned-', %1}, {%2}, movaps xmm0, [rbx]
        movq rax, xmm0
        call show
        WITH {'unaligned-', %1}, {%2}, movaps xmm0, [rbx + 8]
        WITH {'fild-', %1}, {%2}, fild qword [rbx]
        fistp qword [0x700]
        mov rax, [0x700]
        call show
        WITH {'nop-', %1}, {%2}, nop
        WITH {'jump-', %1}, {%2}, jmp short $ + 2
        WITH {'hint-', %1}, {%2}, jnz short $ + 2
        WITH {'jump-table-', %1}, {%2}, jmp [rbx + rcx * 8 + 0x100]
        WITH {'call-table-', %1}, {%2}, call [rbx + rcx * 8 + 0x140]
        mov rbp, 0x0000800000000100     ; not canonical
        WITH {'rbp-beyond-', %1}, {%2}, mov rax, [rbp]
        mov rbp, LOW
        mov rbx, 0x0000800000000100
        WITH {'rbx-beyond-', %1}, {%2}, mov rax, [rbx]
        call fresh
%endmacro

org 0
rom:
GUEST_SERVICES 16
GUEST_SERVICES 32
GUEST_SERVICES 64

LONG_START
        mov eax, BASED
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov ecx, MSR_FS
        mov eax, FS_BASE
        xor edx, edx
        wrmsr
        mov ecx, MSR_GS
        mov eax, GS_BASE
        wrmsr
        mov rax, cr4
        or eax, 0x200                   ; OSFXSR
        mov cr4, rax
        fninit
        jmp checks

; What stands at LOW, and where it would be with each base: another number in each place; tables of jumps behind it. RBX,
; RBP, R13 and RCX for operands there.
fresh:
%assign place 0
%rep 4
  %if place = 0
        mov ebx, LOW
  %elif place = 1
        mov ebx, LOW + BASE
  %elif place = 2
        mov ebx, LOW + FS_BASE
  %else
        mov ebx, LOW + GS_BASE
  %endif
        mov rax, 0x0101010101010000 * (place + 1)
        mov ecx, 8
fill%[place]:
        mov [rbx], rax
        inc rax
        add rbx, 8
        loop fill%[place]
        mov qword [rbx + 0xC0 + 16], F(jumped%[place])
        mov qword [rbx + 0x100 + 16], F(called%[place])
  %assign place place + 1
%endrep
        mov ebx, LOW
        mov ebp, LOW
        mov r13d, LOW
        mov ecx, 2
        mov qword [SHOWN], 0
        ret
%assign place 0
%rep 4
jumped%[place]:
        mov eax, 0xA0 + place
        jmp [RESUME]
called%[place]:
        mov eax, 0xB0 + place
        ret
  %assign place place + 1
%endrep

show:   push rax
        mov al, ' '
        out 0xE9, al
        mov al, '='
        out 0xE9, al
        mov rax, [rsp]
        call hex16_64
        mov al, '+'
        out 0xE9, al
        mov rax, [abs LOW]
        add rax, [abs LOW + 16]
        call hex16_64
        pop rax
        ret

checks: FORMS 'es', 0x26
        FORMS 'cs', 0x2E
        FORMS 'ss', 0x36
        FORMS 'ds', 0x3E
        FORMS 'fs', 0x64
        FORMS 'gs', 0x65
        FORMS 'fs-ds', {0x64, 0x3E}
        FORMS 'ds-fs', {0x3E, 0x64}
        FORMS 'gs-es-cs', {0x65, 0x26, 0x2E}
        FORMS 'fs-gs', {0x64, 0x65}
; ----- 66h and REX among them: a REX that is not the last prefix is ignored (SDM vol. 2A, 2.2.1)
        WITH 'load-gs-66-ss', {0x65, 0x66, 0x36}, mov rax, [rbx]
        WITH 'load-w-ds', {0x48, 0x3E}, mov eax, [rbx]
        WITH 'load-b-ds', {0x41, 0x3E}, mov eax, [rbx + rcx]
        WITH 'load-w-66', {0x48, 0x66}, mov eax, [rbx]
        WITH 'load-fs-w-ds', {0x64, 0x48, 0x3E}, mov eax, [rbx]
        WITH 'add-gs-66-ss', {0x65, 0x66, 0x36}, add [rbx], ecx
        mov al, 0
        jmp finish64

FRAMES64
        align 16
GDT64
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
        dq 0
BASED           equ $ - gdt
        SEGMENT BASE, 0xFFFFF, 0x93, 0xC
gdt_end:
TABLE_REGISTERS64

RESET_VECTOR start
