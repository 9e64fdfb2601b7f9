; Loads of TR and LDTR, and far transfers to offsets beyond the new code segment, a line a check: what faults, with which
; code, and where (SDM vol. 2A and 2B: LTR, LLDT, JMP, CALL, RET, IRET, INT n). ROM: QEMU -bios, v2e run --firmware.
; A check prints its name, the frame of an exception, and =TR:LDTR. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
TSS             equ 0xA000
LDT             equ 0xB000
RING0_STACK     equ 0x6800
USER_STACK      equ 0x6000
CODE_AREA       equ 0x20000             ; INT3 up to the limits of the small code segments
BEYOND          equ 0x1000              ; the first offset beyond

; %1 name, %2 the instructions, in braces; the first exception ends them
%macro CHECK 2-*
        call mark32
        db 10, %1, 0
        mov dword [GO_TO], F(%%after)
  %rep %0 - 1
    %rotate 1
        %1
  %endrep
%%after:
        call outcome
%endmacro
; The same in ring 3; the UD2 behind it comes when it does not fault
%macro CHECK3 2-*
        call mark32
        db 10, %1, 0
        mov dword [GO_TO], F(%%after)
        push dword UDATA32
        push dword USER_STACK
        push dword 2
        push dword UCODE32
        push dword F(%%user)
        iretd
%%user:
  %rep %0 - 1
    %rotate 1
        %1
  %endrep
        ud2
%%after:
%endmacro

ROM32
PROTECTED_START
        mov edi, TSS
        mov ecx, 0x100 / 4
        xor eax, eax
        rep stosd
        mov edi, LDT
        mov ecx, 0x100 / 4
        rep stosd
        mov dword [TSS + 4], RING0_STACK
        mov dword [TSS + 8], DATA32
        mov word [TSS + 0x66], 0x68
        mov edi, CODE_AREA
        mov ecx, 0x8000
        mov eax, 0xCCCCCCCC
        rep stosd
        mov eax, TSS_SEL
        ltr ax

; ----- LTR
%macro LTR 2
        CHECK %1, {mov eax, %2}, {ltr ax}
%endmacro
        LTR 'ltr-null', 0
        LTR 'ltr-null-rpl', 3
        LTR 'ltr-data', DATA32
        LTR 'ltr-code', CODE32
        LTR 'ltr-ldt', LDT_SEL
        LTR 'ltr-busy', TSS_SEL
        LTR 'ltr-not-present', TSS_ABSENT
        LTR 'ltr-beyond', 0x1000
        LTR 'ltr-in-ldt', 4
        LTR 'ltr-gate', GATE_SEL
        LTR 'ltr-16', TSS16_SEL
        LTR 'ltr-rpl', TSS2_SEL | 3
        CHECK 'ltr-memory', {mov word [0x700], 0}, {ltr [0x700]}
        CHECK3 'ltr-ring-3', {mov eax, TSS2_SEL}, {ltr ax}
        CHECK3 'ltr-ring-3-null', {xor eax, eax}, {ltr ax}
        and byte [GDT + TSS_SEL + 5], ~2
        mov eax, TSS_SEL
        ltr ax

; ----- LLDT
%macro LLDT 2
        CHECK %1, {mov eax, %2}, {lldt ax}
%endmacro
        LLDT 'lldt-good', LDT_SEL
        LLDT 'lldt-null', 0
        LLDT 'lldt-null-rpl', 3
        LLDT 'lldt-data', DATA32
        LLDT 'lldt-tss', TSS2_SEL
        LLDT 'lldt-not-present', LDT_ABSENT
        LLDT 'lldt-beyond', 0x1000
        LLDT 'lldt-in-ldt', 4
        LLDT 'lldt-rpl', LDT_SEL | 3
        CHECK3 'lldt-ring-3', {mov eax, LDT_SEL}, {lldt ax}
        CHECK3 'lldt-ring-3-null', {xor eax, eax}, {lldt ax}
        xor eax, eax
        lldt ax
        CHECK 'without-ldt', {mov eax, 4}, {mov fs, ax}

; ----- far transfers: the last offset of the segment, and the first beyond
%macro FAR 2                            ; %1 name of the segment, %2 selector
        CHECK {%1, '-jmp-last'}, {jmp %2:BEYOND - 1}
        CHECK {%1, '-jmp-beyond'}, {jmp %2:BEYOND}
        CHECK {%1, '-jmp-top'}, {jmp %2:0xFFFFFFFF}
        CHECK {%1, '-jmp16-beyond'}, {jmp word %2:BEYOND}
        CHECK {%1, '-jmp-memory-beyond'}, {mov dword [0x700], BEYOND}, {mov word [0x704], %2}, {jmp far dword [0x700]}
        CHECK {%1, '-call-last'}, {call %2:BEYOND - 1}
        CHECK {%1, '-call-beyond'}, {call %2:BEYOND}
        CHECK {%1, '-call16-beyond'}, {call word %2:BEYOND}
        CHECK {%1, '-retf-last'}, {push dword %2}, {push dword BEYOND - 1}, {retf}
        CHECK {%1, '-retf-beyond'}, {push dword %2}, {push dword BEYOND}, {retf}
        CHECK {%1, '-retf-4-beyond'}, {push dword %2}, {push dword BEYOND}, {retf 4}
        CHECK {%1, '-retf16-beyond'}, {push word %2}, {push word BEYOND}, {o16 retf}
        CHECK {%1, '-iret-last'}, {push dword 2}, {push dword %2}, {push dword BEYOND - 1}, {iretd}
        CHECK {%1, '-iret-beyond'}, {push dword 2}, {push dword %2}, {push dword BEYOND}, {iretd}
        CHECK {%1, '-iret16-beyond'}, {push word 2}, {push word %2}, {push word BEYOND}, {o16 iret}
%endmacro
        FAR 'small', SMALL
        FAR 'conforming', CONFORMING
        FAR 'small16', SMALL16

; ----- to ring 3
        CHECK 'retf-outer-last', {push dword UDATA32}, {push dword USER_STACK}, {push dword USMALL}, {push dword BEYOND - 1}, {retf}
        CHECK 'retf-outer-beyond', {push dword UDATA32}, {push dword USER_STACK}, {push dword USMALL}, {push dword BEYOND}, {retf}
        CHECK 'iret-outer-last', {push dword UDATA32}, {push dword USER_STACK}, {push dword 2}, {push dword USMALL}, {push dword BEYOND - 1}, {iretd}
        CHECK 'iret-outer-beyond', {push dword UDATA32}, {push dword USER_STACK}, {push dword 2}, {push dword USMALL}, {push dword BEYOND}, {iretd}

; ----- the frame of a return outwards, at the end of a stack with a limit: %2 and on what is pushed
%macro OUTER 2-*
        call mark32
        db 10, %1, 0
        mov dword [GO_TO], F(%%after)
        mov eax, SMALL_STACK
        mov ss, eax
        mov esp, 0x1000
  %rep %0 - 2
    %rotate 1
        push dword %1
  %endrep
  %rotate 1
        %1
%%after:
        call outcome
%endmacro
        OUTER 'retf-outer-whole', UDATA32, USER_STACK, UCODE32, F(user), retf
        OUTER 'retf-outer-no-ss', USER_STACK, UCODE32, F(user), retf
        OUTER 'retf-outer-half', UCODE32, F(user), retf
        OUTER 'retf-outer-4-no-room', UDATA32, UCODE32, F(user), retf 4
        OUTER 'retf-outer-half-data', UDATA32, F(user), retf
        OUTER 'retf-outer-half-beyond', 0xFFF3, F(user), retf
        OUTER 'retf-outer-half-ring-0', CODE32 | 3, F(user), retf
        OUTER 'retf-half-first', F(user), retf
        OUTER 'iret-outer-whole', UDATA32, USER_STACK, 2, UCODE32, F(user), iretd
        OUTER 'iret-outer-no-ss', USER_STACK, 2, UCODE32, F(user), iretd
        OUTER 'iret-outer-half', 2, UCODE32, F(user), iretd
        OUTER 'iret-outer-half-data', 2, UDATA32, F(user), iretd
        OUTER 'iret-outer-half-beyond', 2, 0xFFF3, F(user), iretd
        OUTER 'iret-half-first', UCODE32, F(user), iretd
        OUTER 'iret-v86-whole', 0, 0, 0, 0, 0x500, 0xFFE, 0x23002, CODE_AREA >> 4, 0x100, iretd
        OUTER 'iret-v86-no-gs', 0, 0, 0, 0x500, 0xFFE, 0x23002, CODE_AREA >> 4, 0x100, iretd
        OUTER 'iret-v86-half', 0x23002, CODE_AREA >> 4, 0x100, iretd

; ----- gates: their offset is checked as well
        CHECK 'call-gate-last', {call GATE_LAST:0}
        CHECK 'call-gate-beyond', {call GATE_BEYOND:0}
        CHECK 'jmp-gate-beyond', {jmp GATE_BEYOND:0}
        CHECK3 'ring-3-call-gate-last', {call GATE_LAST:0}
        CHECK3 'ring-3-call-gate-beyond', {call GATE_BEYOND:0}
        mov dword [IDT + 0x30 * 8], BEYOND - 1 | SMALL << 16
        mov dword [IDT + 0x30 * 8 + 4], 0xEE00
        mov dword [IDT + 0x31 * 8], BEYOND | SMALL << 16
        mov dword [IDT + 0x31 * 8 + 4], 0xEE00
        CHECK 'int-last', {int 0x30}
        CHECK 'int-beyond', {int 0x31}
        CHECK3 'ring-3-int-last', {int 0x30}
        CHECK3 'ring-3-int-beyond', {int 0x31}

; ----- IRET to V86: only 16 bits of EIP count against the limit, ESP is loaded whole
%macro V86 3                            ; %1 name, %2 EIP, %3 ESP
        call mark32
        db 10, %1, 0
        mov dword [GO_TO], F(%%after)
        push dword 0
        push dword 0
        push dword 0
        push dword 0
        push dword 0x500
        push dword %3
        push dword 0x23002
        push dword CODE_AREA >> 4
        push dword %2
        iretd
%%after:
%endmacro
        V86 'v86-low', 0x100, 0xFFE
        V86 'v86-high-esp', 0x100, 0x12340FFE
        V86 'v86-high-eip', 0x10100, 0xFFE
        V86 'v86-top-eip', 0xFFFF0100, 0xFFE

; ----- INT by a gate whose last word is not 0: it is a part of the offset in one of 32 bits alone
%macro HIGH 2                           ; %1 type of the gate, %2 its name
        mov dword [IDT + 0x3E * 8], 0x100 | SMALL << 16
        mov dword [IDT + 0x3E * 8 + 4], 0x00030000 | %1 << 8
        CHECK {%2, '-high-word'}, {int 0x3E}
        CHECK3 {%2, '-high-word-ring-3'}, {int 0x3E}
%endmacro
        HIGH 0xE6, 'interrupt-16'
        HIGH 0xE7, 'trap-16'
        HIGH 0xEE, 'interrupt-32'
        HIGH 0x66, 'absent-16'
        TEST 32, 'end'
        mov al, 0
        jmp finish32

outcome:
        pushfd
        pushad
        mov dword [GO_TO], 0
        mov al, ' '
        out 0xE9, al
        mov al, '='
        out 0xE9, al
        str eax
        call hex4_32
        mov al, ':'
        out 0xE9, al
        sldt eax
        call hex4_32
        popad
        popfd
        ret

user:   ud2

        align 8
GDT32
GDT32_USER
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
TSS2_SEL        equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
TSS16_SEL       equ $ - gdt
        SEGMENT TSS, 0x67, 0x81, 0
TSS_ABSENT      equ $ - gdt
        SEGMENT TSS, 0x67, 0x09, 0
LDT_SEL         equ $ - gdt
        SEGMENT LDT, 0xFF, 0x82, 0
LDT_ABSENT      equ $ - gdt
        SEGMENT LDT, 0xFF, 0x02, 0
GATE_SEL        equ $ - gdt
        SEGMENT 0, 0, 0x8C, 0
SMALL           equ $ - gdt
        SEGMENT CODE_AREA, BEYOND - 1, 0x9A, 4
CONFORMING      equ $ - gdt
        SEGMENT CODE_AREA, BEYOND - 1, 0x9E, 4
SMALL16         equ $ - gdt
        SEGMENT CODE_AREA, BEYOND - 1, 0x9A, 0
USMALL          equ ($ - gdt) | 3
        SEGMENT CODE_AREA, BEYOND - 1, 0xFA, 4
SMALL_STACK     equ $ - gdt
        SEGMENT 0x30000, 0xFFF, 0x93, 4
GATE_LAST       equ $ - gdt
        dw BEYOND - 1, SMALL
        db 0, 0xEC
        dw 0
GATE_BEYOND     equ $ - gdt
        dw BEYOND, SMALL
        db 0, 0xEC
        dw 0
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
