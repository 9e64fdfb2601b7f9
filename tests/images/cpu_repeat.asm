; Events behind iterations of repeated string instructions, a line a check: an interrupt, a single step, a data breakpoint.
; Where EIP is then, and whether RF is pushed, is for tests/cpu/test_repeats.py (SDM vol. 3B, 17.3.1.1; vol. 2B, REP). ROM:
; QEMU -bios, v2e run --firmware. A check prints its name, @ with the address of its instruction, the frame of each event,
; and =ESI:EDI:ECX. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
SOURCE          equ 0x20000             ; bytes 11h, more than any check reads
TARGET          equ 0x60000
MANY            equ 0x2000              ; iterations: the timer ends long before them, and long after the NOP
LOCAL_WRITE     equ 1 | 1 << 16         ; DR7: DR0, on writes of a byte

%macro BEGIN_CHECK 3                    ; %1 name, %2 EDI, %3 label of the instruction
        call mark32
        db 10, %1, ' @', 0
        mov eax, F(%3)
        call hex8_32
        mov esi, SOURCE
        mov edi, %2
        mov edx, 0x84                   ; a register of the DMA page chip that no channel uses
%endmacro
; The instruction %4 with ECX = %2 and EDI = %3, by the name %1. An interrupt comes in its middle
%macro INTERRUPTED 4+
        BEGIN_CHECK {%1}, %3, %%at
        mov al, 0xFE
        out 0x21, al
        mov al, 0x30                    ; counter 0, mode 0
        out 0x43, al
        mov al, 40
        out 0x40, al
        mov al, 0
        out 0x40, al
        mov ecx, %2
        mov eax, 0x5A5A5A5A
        sti
        nop
%%at:
        %4
        nop
        call outcome
%endmacro
; The same; the interrupt is pending, and STI lets it come behind the instruction
%macro PENDING 4+
        BEGIN_CHECK {%1}, %3, %%at
        PEND_TIMER
        mov ecx, %2
        mov eax, 0x5A5A5A5A
        sti
%%at:
        %4
        nop
        call outcome
%endmacro
%macro STEPPED 4+
        BEGIN_CHECK {%1}, %3, %%at
        mov ecx, %2
        mov eax, 0x5A5A5A5A
        push dword 0x102
        popfd
%%at:
        %4
        push dword 2
        popfd
        call outcome
%endmacro
; A data breakpoint on the byte at %3 of the target
%macro WATCHED 4+
        BEGIN_CHECK {%1}, TARGET, %%at
        mov eax, TARGET + %3
        mov dr0, eax
        mov eax, LOCAL_WRITE
        mov dr7, eax
        mov ecx, %2
        mov eax, 0x5A5A5A5A
%%at:
        %4
        nop
        call outcome
%endmacro
%macro FORMS 3+                         ; in the middle; behind the only iteration; without any
        INTERRUPTED {'middle-', %1}, MANY, %2, %3
        PENDING {'one-', %1}, 1, %2, %3
        PENDING {'none-', %1}, 0, %2, %3
%endmacro

ROM32
PROTECTED_START

        mov edi, SOURCE
        mov ecx, 0x4000
        mov eax, 0x11111111
        rep stosd

        FORMS 'movsb', TARGET, rep movsb
        FORMS 'movsw', TARGET, rep movsw
        FORMS 'movsd', TARGET, rep movsd
        FORMS 'stosb', TARGET, rep stosb
        FORMS 'stosd', TARGET, rep stosd
        FORMS 'lodsb', TARGET, rep lodsb
        FORMS 'repne-prefix', TARGET, repne movsb
        FORMS 'insb', TARGET, rep insb
        FORMS 'outsb', TARGET, rep outsb
        FORMS 'repe-cmpsb', SOURCE + 0x40, repe cmpsb
        FORMS 'repne-scasb', SOURCE, repne scasb
        FORMS 'o16-stosd', TARGET, {db 0x66, 0xF3, 0xAB}
        FORMS 'a16-stosb', 0xC000, a16 rep stosb
        FORMS 'es-movsb', TARGET, es rep movsb
        PENDING 'one-repne-cmpsb', 2, SOURCE + 0x40, repne cmpsb        ; ends behind the first iteration
        PENDING 'one-repe-scasb', 2, SOURCE, repe scasb
        PENDING 'none-a16-stosb-high', 0x10000, 0xC000, a16 rep stosb        ; CX = 0
        PENDING 'one-a16-stosb-high', 0x10001, 0xC000, a16 rep stosb
        PENDING 'one-no-repeat', 3, TARGET, stosb

        STEPPED 'step-stosb-3', 3, TARGET, rep stosb
        STEPPED 'step-stosb-1', 1, TARGET, rep stosb
        STEPPED 'step-stosb-0', 0, TARGET, rep stosb
        STEPPED 'step-movsd-2', 2, TARGET, rep movsd
        STEPPED 'step-repe-cmpsb-3', 3, SOURCE + 0x40, repe cmpsb
        STEPPED 'step-repe-scasb-3', 3, SOURCE, repe scasb
        STEPPED 'step-no-repeat', 3, TARGET, stosb

        WATCHED 'watch-first', 3, 0, rep stosb
        WATCHED 'watch-middle', 3, 1, rep stosb
        WATCHED 'watch-last', 3, 2, rep stosb
        WATCHED 'watch-only', 1, 0, rep stosb
        WATCHED 'watch-movsb', 2, 0, rep movsb

        TEST 32, 'end'
        mov al, 0
        jmp finish32

outcome:
        pushad
        cli
        xor eax, eax
        mov dr7, eax
        mov al, 0xFF
        out 0x21, al
        mov al, ' '
        out 0xE9, al
        mov al, '='
        out 0xE9, al
        mov eax, [esp + 4]
        call hex8_32
        mov al, ':'
        out 0xE9, al
        mov eax, [esp]
        call hex8_32
        mov al, ':'
        out 0xE9, al
        mov eax, [esp + 24]
        call hex8_32
        popad
        ret

        align 8
GDT32
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
