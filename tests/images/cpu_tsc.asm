; RDTSC by ring and CR4.TSD, a line a check (SDM vol. 2B, RDTSC): asked for the first time, and behind others of the same
; run, which are answered otherwise (emu/native/system.c). #UD comes from the UD2 behind an RDTSC that was allowed. ROM: v2e
; run --firmware. Output as exc_frames32.inc says; ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
TSS             equ 0xA000
USER_STACK      equ 0x6000
CR4_TSD         equ 4

; %1 name, %2 what ring 0 does before, in braces, %3 what ring 3 does
%macro RING3 3
        TEST 32, {%1}
        mov dword [GO_TO], F(%%next)
        %2
        push dword UDATA32
        push dword USER_STACK
        push dword 2
        push dword UCODE32
        push dword F(%%user)
        iretd
%%user: %3
        ud2
%%next:
%endmacro
%macro RING0 2
        TEST 32, {%1}
        mov dword [GO_TO], F(%%next)
        %2
        ud2
%%next:
%endmacro
%macro SET_TSD 0                        ; behind one that is allowed
        THRICE rdtsc
        mov eax, CR4_TSD
        mov cr4, eax
%endmacro
%macro THRICE 1
        %1
        %1
        %1
%endmacro

ROM32
PROTECTED_START
        FRESH_TSS TSS, 0x68, 0x6800, 0x68
        mov eax, TSS_SEL
        ltr ax

%macro ALL 1
        RING0 {%1, 'ring-0'}, rdtsc
        RING0 {%1, 'ring-0-again'}, THRICE rdtsc
        RING3 {%1, 'ring-3'}, nop, rdtsc
        RING3 {%1, 'ring-3-again'}, nop, THRICE rdtsc
        RING3 {%1, 'ring-3-after-ring-0'}, THRICE rdtsc, rdtsc
%endmacro
        ALL 'free-'
        mov eax, CR4_TSD
        mov cr4, eax
        ALL 'tsd-'
        ; allowed and known, then forbidden, in one run
        xor eax, eax
        mov cr4, eax
        RING3 'tsd-set-behind', SET_TSD, rdtsc
        TEST 32, 'end'
        mov al, 0
        jmp finish32

        align 8
GDT32
GDT32_USER
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
