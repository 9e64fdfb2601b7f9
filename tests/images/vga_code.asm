; Code in display memory: run from the linear frame buffer, changed there and through the window. ROM: QEMU -bios, v2e
; run --firmware. A line a check on port E9h: name, then what the code returned. Ends with debug exit 0.
%include "guest.inc"

FRAME_BUFFER    equ 0xE0000000
WINDOW          equ 0xA0000
CODE            equ 0x1234              ; offset in both

bits 16
org 0
rom:
        GUEST_SERVICES 16
        GUEST_SERVICES 32
bits 16
%macro VBE 2
        mov dx, 0x1CE
        mov ax, %1
        out dx, ax
        inc dx
        mov ax, %2
        out dx, ax
%endmacro
%macro SET 3
        mov dx, %1
        mov ax, (%3) << 8 | (%2)
        out dx, ax
%endmacro
; at %1: mov al, %2; ret; nop
%macro ROUTINE 2
        mov dword [%1 + CODE], 0x90C300B0 | (%2) << 8
%endmacro
; call it through CS, whose base is ROM
%macro CALLED 1
        mov eax, %1 + CODE - ROM
        call eax
        call hex2_32
%endmacro

align 8
gdt:    dq 0
        SEGMENT ROM, 0xFFFFF, 0x9B, 0xC         ; labels begin at 0
        SEGMENT 0, 0xFFFFF, 0x93, 0xC
gdtr:   dw $ - gdt - 1
        dd ROM + gdt

start:  cli
        xor ax, ax
        mov ds, ax
        mov dx, 0x3C2
        mov al, 0x67
        out dx, al
        SET 0x3C4, 0, 3
        SET 0x3CE, 6, 5
        VBE 4, 0
        VBE 1, 640
        VBE 2, 480
        VBE 3, 8
        VBE 4, 0x41
        o32 lgdt [cs:gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp 8:flat
bits 32
flat:   mov ax, 0x10
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, 0x7000
        TEST 32, 'frame-buffer '
        ROUTINE FRAME_BUFFER, 1
        CALLED FRAME_BUFFER
        TEST 32, 'changed-there '
        mov byte [FRAME_BUFFER + CODE + 1], 2
        CALLED FRAME_BUFFER
        TEST 32, 'changed-by-window '           ; plain memory: the same bytes at another address
        mov byte [WINDOW + CODE + 1], 3
        CALLED FRAME_BUFFER
        TEST 32, 'changed-again '
        mov byte [WINDOW + CODE + 1], 4
        CALLED FRAME_BUFFER
        TEST 32, 'other-page '                  ; a page that holds no code
        mov byte [WINDOW + CODE + 0x5000], 5
        mov al, [FRAME_BUFFER + CODE + 0x5000]
        call hex2_32
        TEST 32, 'other-bank '
        VBE 5, 1
        mov byte [WINDOW + CODE + 1], 6
        CALLED FRAME_BUFFER
        mov al, [FRAME_BUFFER + 0x10000 + CODE + 1]
        call hex2_32
        VBE 5, 0
        TEST 32, 'chain-4 '                     ; by the functions, as one plane is not all of memory
        VBE 4, 0
        SET 0x3C4, 4, 0x0E
        SET 0x3C4, 2, 0x0F
        SET 0x3CE, 5, 0x40
        SET 0x3CE, 8, 0xFF
        SET 0x3CE, 3, 0
        SET 0x3CE, 1, 0
        mov byte [WINDOW + CODE + 1], 8
        CALLED FRAME_BUFFER
        SET 0x3C4, 2, 2
        mov byte [WINDOW + CODE], 0             ; not written
        mov byte [WINDOW + CODE + 1], 0x12
        CALLED FRAME_BUFFER
        TEST 32, 'done'
        mov al, 0
        call finish32
        RESET_VECTOR start
