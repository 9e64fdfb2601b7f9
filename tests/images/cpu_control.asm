; MOV to CR0, CR3, CR4, DR6 and DR7, LMSW and ICEBP in 32-bit protected mode: what is refused, what is kept.
; ROM: QEMU -bios, v2e run --firmware. Output as cpu_check32.inc says; ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"
%include "cpu_check32.inc"

IDT             equ 0x8000
PDPT            equ 0x40000             ; and two page directories of large pages behind it, for the first and last GiB
PDPT_WRONG      equ 0x40100
DIRECTORY       equ 0x41000
DIRECTORY_TOP   equ 0x42000

PG              equ 0x80000000
CD              equ 0x40000000
NW              equ 0x20000000

; %1 name, %2 control register, %3 value: write it, then read it back
%macro SET 3
        CHECKS {%1}, {mov eax, %3}, {mov %2, eax}, {mov eax, %2}
%endmacro

ROM32
CHECK_SERVICES
PROTECTED_START
; ----- combinations of CR0
        SET 'cr0-pg-without-pe', cr0, PG
        SET 'cr0-clear-pe-set-pg', cr0, PG | 0x10
        SET 'cr0-nw-without-cd', cr0, NW | 0x11
        SET 'cr0-cd', cr0, CD | 0x11
        SET 'cr0-cd-nw', cr0, CD | NW | 0x11
        SET 'cr0-neither', cr0, 0x11
        SET 'cr0-reserved', cr0, 0x1FFAFFC1
        SET 'cr0-et', cr0, 1
        CHECKS {'cr0-ts'}, {mov eax, 0x19}, {mov cr0, eax}, {mov eax, cr0}, {clts}, {mov ebx, cr0}
        SET 'cr0-wp-am-ne', cr0, 0x50031
        SET 'cr0-as-it-was', cr0, 0x11
; ----- LMSW cannot clear PE
        CHECKS {'lmsw-0'}, {xor eax, eax}, {lmsw ax}, {mov eax, cr0}
        CHECKS {'lmsw-f'}, {mov eax, 0xF}, {lmsw ax}, {mov ebx, cr0}, {mov eax, 1}, {lmsw ax}
        CHECKS {'lmsw-1'}, {mov eax, 1}, {lmsw ax}, {mov eax, cr0}
; ----- PAE paging: reserved bits of the PDPTEs
        mov edi, PDPT
        xor eax, eax
        mov ecx, 0x3000 / 4
        rep stosd
        mov dword [PDPT], DIRECTORY | 1
        mov dword [PDPT + 24], DIRECTORY_TOP | 1
        mov dword [PDPT_WRONG], DIRECTORY | 1
        mov dword [PDPT_WRONG + 24], DIRECTORY_TOP | 1
        mov ecx, 512
        mov edi, DIRECTORY
        mov eax, 0x83
        call directory
        mov ecx, 512
        mov eax, 0xC0000083
        call directory
        SET 'cr3-without-paging', cr3, PDPT_WRONG
        SET 'cr4-pae', cr4, 0x20
; %1 name, %2 low half of the second entry, %3 high half: set PG, and clear it again
%macro ENTRY 3
        mov dword [PDPT_WRONG + 8], %2
        mov dword [PDPT_WRONG + 12], %3
        CHECKS {%1, '-pg'}, {mov eax, PDPT_WRONG}, {mov cr3, eax}, {mov eax, PG | 0x11}, {mov cr0, eax}, {mov eax, cr0}
        CHECKS {%1, '-leave'}, {mov eax, 0x11}, {mov cr0, eax}, {mov eax, cr0}
        CHECKS {%1, '-cr3'}, {mov eax, PDPT}, {mov cr3, eax}, {mov eax, PG | 0x11}, {mov cr0, eax}, \
                {mov eax, PDPT_WRONG}, {mov cr3, eax}, {mov eax, cr3}
        CHECKS {%1, '-still'}, {mov eax, cr3}, {mov ebx, cr0}
        mov eax, 0x11
        mov cr0, eax
        mov dword [PDPT_WRONG + 8], 0
        mov dword [PDPT_WRONG + 12], 0
        mov eax, PDPT_WRONG
        mov cr3, eax
        mov eax, PG | 0x11
        mov cr0, eax
        mov dword [PDPT_WRONG + 8], %2
        mov dword [PDPT_WRONG + 12], %3
        SET {%1, '-pge'}, cr4, 0xA0
        SET {%1, '-pse'}, cr4, 0x30
        SET {%1, '-pce'}, cr4, 0x120
        SET {%1, '-cd'}, cr0, PG | CD | 0x11
        SET {%1, '-wp'}, cr0, PG | 0x10011
        SET {%1, '-out'}, cr0, 0x11
        SET {%1, '-as-before'}, cr4, 0x20
%endmacro
        ENTRY 'pdpte-absent', 0x1FE, 0xFFFFFFFF
        ENTRY 'pdpte-present', DIRECTORY | 1, 0
        ENTRY 'pdpte-ignored', DIRECTORY | 0xE19, 0
        ENTRY 'pdpte-bit-1', DIRECTORY | 3, 0
        ENTRY 'pdpte-bit-2', DIRECTORY | 5, 0
        ENTRY 'pdpte-bit-5', DIRECTORY | 0x21, 0
        ENTRY 'pdpte-bit-8', DIRECTORY | 0x101, 0
        ENTRY 'pdpte-bit-63', DIRECTORY | 1, 0x80000000
        SET 'cr4-0', cr4, 0
; ----- long mode without PAE
        CHECKS {'lme'}, {mov ecx, 0xC0000080}, {mov eax, 0x100}, {xor edx, edx}, {wrmsr}, {rdmsr}
        SET 'cr0-pg-lme-without-pae', cr0, PG | 0x11
        CHECKS {'no-lme'}, {mov ecx, 0xC0000080}, {xor eax, eax}, {xor edx, edx}, {wrmsr}, {rdmsr}
; ----- debug registers: bits with fixed values
        SET 'dr6-ones', dr6, 0xFFFFFFFF
        SET 'dr6-0', dr6, 0
        SET 'dr6-bs', dr6, 0x4000
        SET 'dr7-fixed', dr7, 0xD000
        SET 'dr7-bit-10', dr7, 0
        SET 'dr7-conditions', dr7, 0xFFFF0300
        SET 'dr7-0', dr7, 0x400
; ----- ICEBP: #DB behind it, DR6 as it was
        CHECK 'icebp', db 0xF1
        CHECKS {'icebp-dr6'}, {mov eax, dr6}
        CHECK 'icebp-prefixes', db 0x66, 0x3E, 0xF1
        CHECKS {'icebp-ends'}, {db 0xF1}, {mov eax, 0}
        call mark32
        db 10, 'end', 0
        mov al, 0
        jmp finish32

directory:                              ; pages of 2 MiB from EAX on, present and writable
        mov [edi], eax
        add edi, 8
        add eax, 0x200000
        loop directory
        ret

bits 16
TABLE_REGISTERS32
        align 8
GDT32
gdt_end:
RESET_VECTOR start
