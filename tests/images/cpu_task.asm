; Task switches, a line a check: every way into a task, to a 32-bit and to a 16-bit TSS, with each field of the new TSS
; good or bad (SDM vol. 3A, chapter 7, table 7-1). #DF, #TS, #NP, #SS, #GP and #DB are task gates themselves, so that
; what the failed switch left is looked at from another task. ROM: v2e run --firmware; ends with debug exit 0.
;
; A line: WAY-TSS-CASE, then either " in" from the new task or " VV:CODE" from a fault's, and TR, its back link, NT, TS,
; LDTR, DR6.BT, types of the descriptors of the main and the new task, and a digest of those two TSSs.
%include "guest.inc"
%include "exc_frames32.inc"
%include "cpu_tasks32.inc"

IDT             equ 0x8000
TSS_MAIN        equ 0xA000
TSS_NEW         equ 0xA100
TSS_FAULTS      equ 0xA200              ; 100h bytes each
index           equ 0x620
way             equ 0x624
kind            equ 0x628               ; 0: 32-bit TSS, 1: 16-bit

ROM32
PROTECTED_START
        mov dword [way], 0
next_way:
        mov dword [kind], 0
next_kind:
        mov dword [index], 0
check:
        call reset
        mov al, 10
        out 0xE9, al
        mov ebx, [way]
        mov esi, [F(ways) + ebx * 8]
        call print_text
        mov ebx, [kind]
        mov esi, [F(kinds) + ebx * 4]
        call print_text
        mov ebx, [index]
        shl ebx, 5
        lea esi, [F(cases) + ebx]
        call print_text
        mov ecx, [kind]
        movzx edi, word [F(cases) + ebx + 20 + ecx * 2]
        mov eax, [F(cases) + ebx + 24]
        test edi, edi
        jz .whole
        cmp edi, 0x200
        jae .descriptor
        mov [TSS_NEW + edi], ax
        shr eax, 16
        jz .whole
        mov [TSS_NEW + edi + 2], ax
        jmp .whole
.descriptor:                            ; a byte of the new TSS's descriptor
        mov [GDT + TASK_NEW + edi - 0x200], al
.whole: fninit
        mov eax, 0x11111111
        mov ecx, 0x22222222
        mov ebp, 0x55555555
        mov esi, 0x66666666
        mov edi, 0x77777777
        mov edx, [way]
        mov edx, [F(ways) + edx * 8 + 4]
        jmp edx

by_call:
        call TASK_NEW:0
        jmp back
by_jmp: jmp TASK_NEW:0
        jmp back
by_gate:
        call TASK_GATE:0
        jmp back
by_jmp_gate:
        jmp TASK_GATE:0
        jmp back
by_int: int 0x31
        jmp back
by_de:  xor edx, edx
        xor ecx, ecx
        div ecx
        jmp back
by_iret:
        or byte [GDT + TASK_NEW + 5], 2
        mov word [TSS_MAIN], TASK_NEW
        push dword 0x4002
        popfd
        iretd
        jmp back

; The new task; its CS has base ROM, for a 16-bit IP
task_new:
        jmp CODE32:F(.in)
.in:    push eax                        ; one push: the error code shows if there is one below
        call mark32
        db ' in', 0
        mov eax, esp
        call hex4_32
        mov al, '.'
        out 0xE9, al
        pop eax
        xor eax, ecx
        xor eax, ebp
        xor eax, edi
        call hex4_32
        call print_state
        jmp back

; A fault's task: BX is the vector
task_fault:
        mov al, ' '
        out 0xE9, al
        mov al, bl
        call hex2_32
        cmp bl, 1
        je .none
        mov al, ':'
        out 0xE9, al
        pop eax
        call hex8_32
.none:  call print_state
        mov ebx, [TSS_NEW + 0x20]       ; where the new task is to go on, if it began
        mov eax, ebx
        mov al, '@'
        out 0xE9, al
        mov eax, ebx
        call hex8_32
        jmp back

; On with the next check, from whatever task
NEXT_CHECK
        inc dword [kind]
        cmp dword [kind], 2
        jb next_kind
NEXT_WAY

PRINT_TEXT

print_state:
        pushfd
        call mark32
        db ' tr=', 0
        str eax
        call hex4_32
        mov ebx, [GDT + eax + 2]
        and ebx, 0xFFFF
        mov al, '<'
        out 0xE9, al
        mov ax, [ebx]
        call hex4_32
        mov al, '/'
        out 0xE9, al
        pop eax
        shr eax, 8
        and al, 0x40
        call hex2_32
        mov eax, cr0
        and al, 8
        call hex2_32
        mov al, '/'
        out 0xE9, al
        sldt eax
        call hex4_32
        mov eax, dr6
        mov al, ah
        and al, 0x80
        call hex2_32
        mov al, '/'
        out 0xE9, al
        mov al, [GDT + MAIN + 5]
        call hex2_32
        mov al, [GDT + TASK_NEW + 5]
        call hex2_32
        mov al, '='
        out 0xE9, al
        xor edx, edx
        mov esi, TSS_MAIN
        mov ecx, 0x68 / 4
        call sum
        mov esi, TSS_NEW
        mov ecx, 0x68 / 4
        call sum
        mov eax, edx
        call hex8_32
        ret
sum:    rol edx, 5
        add edx, [esi]
        add esi, 4
        loop sum
        ret

; The main task runs, everything is as at the beginning
FRESH_TASKS
        SET_GATE 0x31, rom, TASK_NEW, 0x85
        SET_GATE 0, rom, TASK_NEW, 0x85
        cmp dword [kind], 0
        jne .small
        mov dword [TSS_NEW + 0x20], task_new - rom
        mov dword [TSS_NEW + 0x24], 2
        mov dword [TSS_NEW + 0x28], 0xA0A0A0A0
        mov dword [TSS_NEW + 0x2C], 0xB0B0B0B0
        mov dword [TSS_NEW + 0x38], 0x5000
        mov dword [TSS_NEW + 0x48], DATA32
        mov dword [TSS_NEW + 0x4C], CODE_ROM
        mov dword [TSS_NEW + 0x50], DATA32
        mov dword [TSS_NEW + 0x54], DATA32
        mov dword [TSS_NEW + 0x58], DATA32
        mov dword [TSS_NEW + 0x5C], DATA32
        jmp .load
.small: mov dword [TSS_NEW + 0x0E], (2 << 16) | (task_new - rom)
        mov dword [TSS_NEW + 0x12], 0xB0B0A0A0
        mov word [TSS_NEW + 0x1A], 0x5000
        mov dword [TSS_NEW + 0x22], (CODE_ROM << 16) | DATA32
        mov dword [TSS_NEW + 0x26], (DATA32 << 16) | DATA16
        mov word [GDT + TASK_NEW], 0x2B
        mov byte [GDT + TASK_NEW + 5], 0x81
.load:  mov eax, MAIN
        ltr ax
        clts
        ret

vectors:        db 1, 8, 10, 11, 12, 13
vectors_end:
        align 4
ways:
%macro WAY 2
        dd F(name_%2), F(%2)
%endmacro
        WAY 'call', by_call
        WAY 'jmp', by_jmp
        WAY 'call-gate', by_gate
        WAY 'jmp-gate', by_jmp_gate
        WAY 'int', by_int
        WAY 'de', by_de
        WAY 'iret', by_iret
ways_end:
name_by_call: db 'call', 0
name_by_jmp: db 'jmp', 0
name_by_gate: db 'call-gate', 0
name_by_jmp_gate: db 'jmp-gate', 0
name_by_int: db 'int', 0
name_by_de: db 'de', 0
name_by_iret: db 'iret', 0
        align 4
kinds:  dd F(kind32), F(kind16)
kind32: db '-32-', 0
kind16: db '-16-', 0
        align 4
; name, offset of the field in a 32-bit and in a 16-bit TSS (200h + n: byte n of its descriptor; 0: none), value
%macro CASE 4
%%name: db %1, 0
        times 20 - ($ - %%name) db 0
        dw %2, %3
        dd %4, 0
%endmacro
%macro SELECTORS 3                      ; name, offsets: of a data segment register
        CASE {%1, '-null'}, %2, %3, 0
        CASE {%1, '-beyond'}, %2, %3, 0x1238
        CASE {%1, '-no-ldt'}, %2, %3, DATA32 | 4
        CASE {%1, '-absent'}, %2, %3, DATA_ABSENT
        CASE {%1, '-execute-only'}, %2, %3, CODE_ONLY
        CASE {%1, '-system'}, %2, %3, MAIN
        CASE {%1, '-rpl-3'}, %2, %3, DATA32 | 3
        CASE {%1, '-conforming'}, %2, %3, CODE_CONFORMING | 3
        CASE {%1, '-code-readable'}, %2, %3, CODE32
%endmacro
cases:
        CASE 'good', 0, 0, 0
        CASE 'short', 0x200, 0x200, 0x2A
        CASE 'absent', 0x205, 0x205, 0x09
        CASE 'busy', 0x205, 0x205, 0x8B
        CASE 'not-tss', 0x205, 0x205, 0x92
        CASE 'not-busy', 0x205, 0x205, 0x89
        CASE 'dpl-3', 0x205, 0x205, 0xE9
        CASE 'trap-bit', 0x64, 0, 1
        CASE 'nt-set', 0x24, 0x10, 0x4002
        CASE 'eip-beyond', 0x20, 0, 0x10000
        CASE 'cs-null', 0x4C, 0x24, 0
        CASE 'cs-beyond', 0x4C, 0x24, 0x1238
        CASE 'cs-no-ldt', 0x4C, 0x24, CODE32 | 4
        CASE 'cs-data', 0x4C, 0x24, DATA32
        CASE 'cs-absent', 0x4C, 0x24, CODE_ABSENT
        CASE 'cs-rpl-3', 0x4C, 0x24, CODE_ROM | 3
        CASE 'cs-dpl-3', 0x4C, 0x24, UCODE32 & ~3
        CASE 'cs-conforming', 0x4C, 0x24, CODE_CONFORMING
        CASE 'cs-system', 0x4C, 0x24, MAIN
        CASE 'ss-null', 0x50, 0x26, 0
        CASE 'ss-beyond', 0x50, 0x26, 0x1238
        CASE 'ss-no-ldt', 0x50, 0x26, DATA32 | 4
        CASE 'ss-code', 0x50, 0x26, CODE32
        CASE 'ss-read-only', 0x50, 0x26, DATA_READ
        CASE 'ss-absent', 0x50, 0x26, DATA_ABSENT
        CASE 'ss-rpl-3', 0x50, 0x26, DATA32 | 3
        CASE 'ss-dpl-3', 0x50, 0x26, UDATA32 & ~3
        CASE 'ss-short', 0x50, 0x26, DATA_SHORT
        CASE 'ldt-good', 0x60, 0x2A, LDT_GOOD
        CASE 'ldt-beyond', 0x60, 0x2A, 0x1238
        CASE 'ldt-ti', 0x60, 0x2A, LDT_GOOD | 4
        CASE 'ldt-data', 0x60, 0x2A, DATA32
        CASE 'ldt-absent', 0x60, 0x2A, LDT_ABSENT
        SELECTORS 'ds', 0x54, 0x28
        SELECTORS 'es', 0x48, 0x22
        SELECTORS 'fs', 0x58, 0
        SELECTORS 'gs', 0x5C, 0
cases_end:
        align 8
GDT32
GDT32_USER
DATA16          equ $ - gdt
        SEGMENT 0, 0xFFFF, 0x93, 0x0
CODE_ROM        equ $ - gdt
        SEGMENT ROM, 0xFFFF, 0x9A, 0x4
CODE_ABSENT     equ $ - gdt
        SEGMENT ROM, 0xFFFF, 0x1B, 0x4
CODE_ONLY       equ $ - gdt
        SEGMENT ROM, 0xFFFF, 0x99, 0x4
CODE_CONFORMING equ $ - gdt
        SEGMENT ROM, 0xFFFF, 0x9F, 0x4
DATA_ABSENT     equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x13, 0xC
DATA_READ       equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x91, 0xC
DATA_SHORT      equ $ - gdt
        SEGMENT 0, 0xFF, 0x93, 0x4
LDT_GOOD        equ $ - gdt
        SEGMENT GDT, 0x2F, 0x82, 0
LDT_ABSENT      equ $ - gdt
        SEGMENT GDT, 0x2F, 0x02, 0
MAIN            equ $ - gdt
        SEGMENT TSS_MAIN, 0x67, 0x89, 0
TASK_NEW        equ $ - gdt
        SEGMENT TSS_NEW, 0x67, 0x89, 0
TASK_GATE       equ $ - gdt
        dw 0, TASK_NEW, 0x8500, 0
FAULT_TASKS     equ $ - gdt
%assign n 0
%rep 6
        SEGMENT TSS_FAULTS + n * 0x100, 0x67, 0x89, 0
  %assign n n + 1
%endrep
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
