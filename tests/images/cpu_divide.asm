; Divisions whose quotient does not fit, and TEST by its second encoding, in 32-bit protected mode. ROM: QEMU -bios, v2e run
; --firmware. Output as cpu_check32.inc says; a check's last instruction moves the status flags to AH where those are
; defined. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"
%include "cpu_check32.inc"

IDT             equ 0x8000
SPOT            equ AREA + EDGE - 0x20

; %1 name, %2 DX and %3 AX of a dividend of 32 bits, %4 divisor: by a register, by memory, of CX's width
%macro DIVIDES16 4
        CHECKS {%1, '-div16'}, {mov dx, %2}, {mov ax, %3}, {mov cx, %4}, {div cx}
        CHECKS {%1, '-idiv16'}, {mov dx, %2}, {mov ax, %3}, {mov cx, %4}, {idiv cx}
        CHECKS {%1, '-idiv16-memory'}, {mov edx, ~0xFFFF | %2}, {mov ax, %3}, {mov word [SPOT], %4}, {idiv word [SPOT]}
%endmacro
%macro DIVIDES32 4
        CHECKS {%1, '-div32'}, {mov edx, %2}, {mov eax, %3}, {mov ecx, %4}, {div ecx}
        CHECKS {%1, '-idiv32'}, {mov edx, %2}, {mov eax, %3}, {mov ecx, %4}, {idiv ecx}
        CHECKS {%1, '-idiv32-memory'}, {mov edx, %2}, {mov eax, %3}, {mov dword [SPOT], %4}, {idiv dword [SPOT]}
        CHECKS {%1, '-idiv32-short'}, {mov edx, %2}, {mov eax, %3}, {mov dword [SPOT], %4}, {mov bx, SPOT & 0xFFFF}, \
                {push es}, {mov si, HIGH_AREA}, {mov es, si}, {a16 idiv dword [es:bx]}, {pop es}
        CHECKS {%1, '-idiv32-index'}, {mov edx, %2}, {mov eax, %3}, {mov dword [SPOT], %4}, {idiv dword [eax+edx*2+SPOT]}
%endmacro
%macro DIVIDES8 3
        CHECKS {%1, '-div8'}, {mov ax, %2}, {mov cl, %3}, {div cl}
        CHECKS {%1, '-idiv8'}, {mov ax, %2}, {mov cl, %3}, {idiv cl}
        CHECKS {%1, '-idiv8-memory'}, {mov ax, %2}, {mov byte [SPOT], %3}, {idiv byte [SPOT]}
%endmacro

ROM32
CHECK_SERVICES
PROTECTED_START
; ----- the lowest dividend, and those beside it
%macro DIVISORS 1
        DIVIDES8 {'lowest-', %1}, 0x8000, DIVISOR
        DIVIDES8 {'second-', %1}, 0x8001, DIVISOR
        DIVIDES8 {'highest-', %1}, 0x7FFF, DIVISOR
        DIVIDES8 {'just-', %1}, -0x80, DIVISOR
        DIVIDES16 {'lowest-', %1}, 0x8000, 0, DIVISOR
        DIVIDES16 {'second-', %1}, 0x8000, 1, DIVISOR
        DIVIDES16 {'highest-', %1}, 0x7FFF, 0xFFFF, DIVISOR
        DIVIDES16 {'just-', %1}, 0xFFFF, 0x8000, DIVISOR
        DIVIDES32 {'lowest-', %1}, 0x80000000, 0, DIVISOR
        DIVIDES32 {'second-', %1}, 0x80000000, 1, DIVISOR
        DIVIDES32 {'highest-', %1}, 0x7FFFFFFF, 0xFFFFFFFF, DIVISOR
        DIVIDES32 {'just-', %1}, 0xFFFFFFFF, 0x80000000, DIVISOR
%endmacro
%define DIVISOR -1
        DIVISORS 'minus-1'
%define DIVISOR 0
        DIVISORS '0'
%define DIVISOR 1
        DIVISORS '1'
%define DIVISOR -2
        DIVISORS 'minus-2'
%define DIVISOR 0x7F
        DIVISORS '7f'
%define DIVISOR -0x80
        DIVISORS 'minus-80'
        DIVIDES16 'lowest-most', 0x8000, 0, 0x7FFF
        DIVIDES16 'lowest-lowest', 0x8000, 0, 0x8000
        DIVIDES32 'lowest-most', 0x80000000, 0, 0x7FFFFFFF
        DIVIDES32 'lowest-lowest', 0x80000000, 0, 0x80000000
        CHECKS {'idiv-eax'}, {mov edx, 0x80000000}, {xor eax, eax}, {idiv eax}
        CHECKS {'idiv-edx'}, {mov edx, 0x80000000}, {xor eax, eax}, {idiv edx}
        CHECKS {'idiv-locked'}, {mov edx, 0x80000000}, {xor eax, eax}, {db 0xF0}, {idiv ecx}
        CHECKS {'idiv-stack'}, {mov edx, 0x80000000}, {xor eax, eax}, {push dword -1}, {idiv dword [esp]}
; ----- the operand's fault comes first
        CHECKS {'idiv-in'}, {mov bx, LIMITED}, {mov fs, bx}, {mov edx, 0x80000000}, {xor eax, eax}, {idiv dword [fs:EDGE - 4]}
        CHECKS {'idiv-out'}, {mov bx, LIMITED}, {mov fs, bx}, {mov edx, 0x80000000}, {xor eax, eax}, {idiv dword [fs:EDGE - 3]}
        CHECKS {'idiv-null'}, {xor ebx, ebx}, {mov fs, bx}, {mov edx, 0x80000000}, {xor eax, eax}, {idiv dword [fs:EDGE - 3]}
; ----- AAM and AAD
%assign base 0
%rep 12
        CHECKS {'aam-', '0' + base}, {mov eax, 0x12345678}, {db 0xD4, base}
        CHECKS {'aad-', '0' + base}, {mov eax, 0x12345678}, {db 0xD5, base}
  %assign base base + 1
%endrep
        CHECKS {'aam-ff'}, {mov eax, 0x123456FF}, {db 0xD4, 0xFF}
; ----- TEST, F6 and F7 with 0 or 1 in ModRM.reg; LAHF shows SF, ZF, PF and CF, SETO the last one
%assign reg 0
%rep 2
  %define REG reg << 3
        CHECKS {'test-al-', '0' + reg}, {db 0xF6, 0xC0 | REG, 0x44}, {lahf}, {seto al}
        CHECKS {'test-ah-', '0' + reg}, {mov ah, 0x80}, {db 0xF6, 0xC4 | REG, 0xFF}, {lahf}, {seto al}
        CHECKS {'test-cl-zero-', '0' + reg}, {db 0xF6, 0xC1 | REG, 0}, {lahf}, {seto al}
        CHECKS {'test-16-', '0' + reg}, {db 0x66, 0xF7, 0xC0 | REG, 0, 0x33}, {lahf}, {seto al}
        CHECKS {'test-32-', '0' + reg}, {db 0xF7, 0xC0 | REG, 0, 0, 0, 0x11}, {lahf}, {seto al}
        CHECKS {'test-32-sign-', '0' + reg}, {mov eax, 0x80000000}, {db 0xF7, 0xC0 | REG, 0, 0, 0, 0x80}, {lahf}, {seto al}
        CHECKS {'test-carry-', '0' + reg}, {stc}, {db 0xF7, 0xC2 | REG, 1, 0, 0, 0x80}, {lahf}, {seto al}
        CHECKS {'test-memory-8-', '0' + reg}, {db 0xF6, 0x05 | REG}, {dd SPOT}, {db 0x81}, {lahf}, {seto al}
        CHECKS {'test-memory-32-', '0' + reg}, {mov ebx, SPOT}, {db 0xF7, 0x43 | REG, 4, 1, 2, 3, 4}, {lahf}, {seto al}
        CHECKS {'test-memory-sib-', '0' + reg}, {mov ebx, SPOT}, {db 0xF7, 0x44 | REG, 0x4B, 4, 1, 2, 3, 4}, {lahf}
        CHECKS {'test-memory-a16-', '0' + reg}, {db 0x67, 0xF6, 0x47 | REG, 4, 0xFF}, {lahf}
        CHECKS {'test-fs-', '0' + reg}, {mov bx, LIMITED}, {mov fs, bx}, {db 0x64, 0xF7, 0x05 | REG}, {dd EDGE - 4, 1 << 31}, \
                {lahf}
        CHECKS {'test-fs-out-', '0' + reg}, {mov bx, LIMITED}, {mov fs, bx}, {db 0x64, 0xF7, 0x05 | REG}, \
                {dd EDGE - 3, 1 << 31}, {lahf}
        CHECKS {'test-locked-', '0' + reg}, {db 0xF0, 0xF6, 0xC0 | REG, 0x44}
        CHECKS {'test-locked-memory-', '0' + reg}, {db 0xF0, 0xF6, 0x05 | REG}, {dd SPOT}, {db 0x44}
        CHECKS {'test-repeated-', '0' + reg}, {db 0xF3, 0xF6, 0xC0 | REG, 0x44}, {lahf}
        CHECKS {'test-twice-', '0' + reg}, {db 0xF6, 0xC0 | REG, 0xF6}, {db 0xF6, 0xC8, 0xF6}, {lahf}
  %assign reg reg + 1
%endrep
        call mark32
        db 10, 'end', 0
        mov al, 0
        jmp finish32

bits 16
TABLE_REGISTERS32
        align 8
GDT32
LIMITED         equ $ - gdt
        SEGMENT AREA, EDGE - 1, 0x93, 0x4
HIGH_AREA       equ $ - gdt             ; where 16-bit addresses reach SPOT
        SEGMENT SPOT & ~0xFFFF, 0xFFFF, 0x93, 0x4
gdt_end:
RESET_VECTOR start
