; A task switch to a 16-bit TSS and back, by CALL and IRET (SDM vol. 3A, 8.2.1 and 8.6). ROM: QEMU -bios, v2e run
; --firmware. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
TSS             equ 0xA000
TSS16           equ 0xA100

ROM32
PROTECTED_START
        mov edi, TSS
        mov ecx, 0x200 / 4
        xor eax, eax
        rep stosd
        mov word [TSS16 + 14], task16 - rom             ; IP, FLAGS, AX..DI, ES, CS, SS, DS
        mov word [TSS16 + 16], 2
        mov word [TSS16 + 18], 0x1111
        mov word [TSS16 + 20], 0x2222
        mov word [TSS16 + 26], 0x5000                   ; SP
        mov word [TSS16 + 34], DATA32
        mov word [TSS16 + 36], CODE16
        mov word [TSS16 + 38], STACK16
        mov word [TSS16 + 40], DATA32
        mov eax, TSS_SEL
        ltr ax
        TEST 32, 'call-task16'
        mov ebx, 0x33334444
        call TASK16:0
        call mark32
        db ' back tr=', 0
        str eax
        call hex4_32
        call mark32
        db ' ebx=', 0
        mov eax, ebx                    ; the first task's registers are its own
        call hex8_32
        TEST 32, 'end'
        mov al, 0
        jmp finish32

bits 16
task16:                                 ; AX, CX, SP and segments are the TSS's; upper halves are not compared
        call print
        iret
        jmp task16
print:
        push ax
        call mark16
        db ' task16 tr=', 0
        str ax
        call hex4_16
        call mark16
        db ' ax=', 0
        pop ax
        call hex4_16
        call mark16
        db ' cx=', 0
        mov ax, cx
        call hex4_16
        call mark16
        db ' sp=', 0
        mov ax, sp
        call hex4_16
        call mark16
        db ' es.cs.ss.ds.fs.gs=', 0
%macro SELECTOR 1
        mov ax, %1
        call hex4_16
        mov al, '.'
        out 0xE9, al
%endmacro
        SELECTOR es
        SELECTOR cs
        SELECTOR ss
        SELECTOR ds
        SELECTOR fs                     ; a 16-bit TSS has none: null
        SELECTOR gs
        call mark16
        db ' link=', 0
        mov ax, [TSS16]
        call hex4_16
        ret

        align 8
GDT32
CODE16          equ $ - gdt
        SEGMENT ROM, 0xFFFF, 0x9B, 0x0
STACK16         equ $ - gdt
        SEGMENT 0, 0xFFFF, 0x93, 0x0
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
TASK16          equ $ - gdt
        SEGMENT TSS16, 0x2B, 0x81, 0
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
