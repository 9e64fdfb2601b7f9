; Stacks of gates, a line a check: INT, exceptions and call gates of 16 and 32 bits from ring 3 and V86 to ring 0, with
; each SS0 and ESP0 of the TSS good or bad (SDM vol. 2A, INT n and CALL, MORE-PRIVILEGE). #DF, #TS, #NP, #SS and #GP are
; task gates, as no other handler would have a stack. ROM: v2e run --firmware; ends with debug exit 0.
;
; A line: WAY-CASE, then either " in" with SS, ESP and a digest of the frame, or " VV:CODE" and where the fault was.
%include "guest.inc"
%include "exc_frames32.inc"
%include "cpu_tasks32.inc"

IDT             equ 0x8000
TSS_MAIN        equ 0xA000
TSS_FAULTS      equ 0xA200              ; 100h bytes each
index           equ 0x620
way             equ 0x624
AREA            equ 0x20000             ; base of the small stacks

ROM32
PROTECTED_START
        mov dword [way], 0
next_way:
        mov dword [index], 0
check:
        call reset
        mov al, 10
        out 0xE9, al
        mov ebx, [way]
        mov esi, [F(ways) + ebx * 8]
        call print_text
        mov al, '-'
        out 0xE9, al
        mov ebx, [index]
        shl ebx, 5
        lea esi, [F(cases) + ebx]
        call print_text
        mov eax, [F(cases) + ebx + 20]
        mov [TSS_MAIN + 8], eax
        mov eax, [F(cases) + ebx + 24]
        mov [TSS_MAIN + 4], eax
        mov eax, [way]
        cmp dword [F(ways) + eax * 8 + 4], F(by_v86)
        je .v86
        push dword UDATA32
        push dword 0x6000
        push dword 0x0002
        push dword UCODE32
        push dword [F(ways) + eax * 8 + 4]
        mov dword [0x6000], 0xAAAA1111
        mov dword [0x6004], 0xBBBB2222
        mov dword [0x6008], 0xCCCC3333
        iretd
.v86:   push dword 0x44
        push dword 0x33
        push dword 0x22
        push dword 0x11
        push dword 0x100
        push dword 0x5000
        push dword 0x23002              ; VM, IOPL 3
        push dword ROM >> 4
        push dword by_v86 - rom
        iretd

by_int: int 0x30
by_int16:
        int 0x31
by_ud:  ud2
by_call:
        call GATE:0
by_call16:
        call GATE16:0
bits 16
by_v86: int 0x30
bits 32

entered:
        mov esi, esp
        mov ebx, ss
        mov eax, DATA32
        mov ss, eax
        mov ds, eax
        mov esp, STACK
        call mark32
        db ' in ', 0
        mov eax, ebx
        call hex4_32
        mov al, ':'
        out 0xE9, al
        mov eax, esi
        call hex8_32
        cmp ebx, DATA32
        je .flat
        and esi, 0xFFFF
        add esi, AREA
.flat:  xor edx, edx
        mov ecx, 20
.sum:   rol edx, 5
        add edx, [esi]
        add esi, 2
        loop .sum
        mov al, '='
        out 0xE9, al
        mov eax, edx
        call hex8_32
        jmp back

; A fault's task: BX is the vector
task_fault:
        mov al, ' '
        out 0xE9, al
        mov al, bl
        call hex2_32
        mov al, ':'
        out 0xE9, al
        pop eax
        call hex8_32
        mov al, '@'
        out 0xE9, al
        mov eax, [TSS_MAIN + 0x4C]
        call hex4_32
        mov al, '.'
        out 0xE9, al
        mov eax, [TSS_MAIN + 0x20]
        call hex8_32
        mov al, '.'
        out 0xE9, al
        mov eax, [TSS_MAIN + 0x50]
        call hex4_32
        mov al, '.'
        out 0xE9, al
        mov eax, [TSS_MAIN + 0x38]
        call hex8_32
        mov al, '/'
        out 0xE9, al
        mov eax, [TSS_MAIN + 0x24]
        call hex8_32
        mov al, '='
        out 0xE9, al
        xor edx, edx
        mov esi, AREA                   ; nothing was pushed
        mov ecx, 64
.sum:   add edx, [esi]
        add esi, 4
        loop .sum
        mov eax, edx
        call hex8_32
        jmp back

; On with the next check, from whatever task
NEXT_CHECK
NEXT_WAY

PRINT_TEXT

; The main task runs, everything is as at the beginning
FRESH_TASKS
        SET_GATE 0x30, entered, CODE32, 0xEE
        SET_GATE 0x31, entered16, CODE_ROM, 0xE6
        mov dword [IDT + 0x31 * 8 + 4], 0xE600
        SET_GATE 6, entered, CODE32, 0xEE
        mov edi, AREA
        mov ecx, 64
        xor eax, eax
        rep stosd
.load:  mov eax, MAIN
        ltr ax
        clts
        ret

entered16:
        jmp CODE32:F(entered)

vectors:        db 8, 10, 11, 12, 13
vectors_end:
        align 4
ways:   dd F(name_int), F(by_int), F(name_int16), F(by_int16), F(name_ud), F(by_ud)
        dd F(name_call), F(by_call), F(name_call16), F(by_call16), F(name_v86), F(by_v86)
ways_end:
name_int:       db 'int', 0
name_int16:     db 'int16', 0
name_ud:        db 'ud', 0
name_call:      db 'call', 0
name_call16:    db 'call16', 0
name_v86:       db 'v86', 0
        align 4
; name, SS0, ESP0
%macro CASE 3
%%name: db %1, 0
        times 20 - ($ - %%name) db 0
        dd %2, %3, 0
%endmacro
cases:
        CASE 'good', DATA32, 0x6800
        CASE 'null', 0, 0x6800
        CASE 'beyond', 0x1238, 0x6800
        CASE 'no-ldt', DATA32 | 4, 0x6800
        CASE 'rpl-3', DATA32 | 3, 0x6800
        CASE 'dpl-3', UDATA32, 0x6800
        CASE 'dpl-3-rpl-0', UDATA32 & ~3, 0x6800
        CASE 'code', CODE32, 0x6800
        CASE 'system', MAIN, 0x6800
        CASE 'read-only', DATA_READ, 0x6800
        CASE 'absent', DATA_ABSENT, 0x6800
        CASE 'small', SMALL, 0x80
        CASE 'small-beyond', SMALL, 0x101
        CASE 'small-over', SMALL, 0x102
        CASE 'small-top', SMALL, 0x100
        CASE 'down', DOWN, 0xF0
        CASE 'down-low', DOWN, 0x42
        CASE '16', SMALL16, 0x80
        CASE '16-high', SMALL16, 0x12340080
%assign n 0
%rep 33
  %defstr number n
        CASE {'esp-', number}, SMALL, n
        CASE {'sp-', number}, SMALL16, n
        CASE {'down-', number}, DOWN, 0x20 + n
  %assign n n + 2
%endrep
cases_end:

        align 8
GDT32
GDT32_USER
CODE_ROM        equ $ - gdt
        SEGMENT ROM, 0xFFFF, 0x9A, 0x4
DATA_ABSENT     equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x13, 0xC
DATA_READ       equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x91, 0xC
SMALL           equ $ - gdt
        SEGMENT AREA, 0xFF, 0x92, 0x4
SMALL16         equ $ - gdt
        SEGMENT AREA, 0xFF, 0x92, 0x0
DOWN            equ $ - gdt
        SEGMENT AREA, 0x1F, 0x96, 0x4
MAIN            equ $ - gdt
        SEGMENT TSS_MAIN, 0x67, 0x89, 0
GATE            equ ($ - gdt) | 3
        dw (entered - rom) & 0xFFFF, CODE32, 0xEC02, ROM >> 16
GATE16          equ ($ - gdt) | 3
        dw entered16 - rom, CODE_ROM, 0xE403, 0
FAULT_TASKS     equ $ - gdt
%assign n 0
%rep 5
        SEGMENT TSS_FAULTS + n * 0x100, 0x67, 0x89, 0
  %assign n n + 1
%endrep
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
