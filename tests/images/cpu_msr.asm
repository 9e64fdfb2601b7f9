; Model-specific registers, MOV to CR4, RDPMC and SYSENTER in 32-bit protected mode: what is refused, what is kept.
; ROM: QEMU -bios, v2e run --firmware. Output as cpu_check32.inc says; ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"
%include "cpu_check32.inc"

IDT             equ 0x8000

; %1 name, %2 MSR, %3 low half, %4 high half: write, then read back
%macro WRITE 4
        CHECKS {%1}, {mov ecx, %2}, {mov eax, %3}, {mov edx, %4}, {wrmsr}, {xor eax, eax}, {xor edx, edx}, {rdmsr}
%endmacro
%macro READ 2
        CHECKS {%1}, {mov ecx, %2}, {rdmsr}
%endmacro

ROM32
CHECK_SERVICES
PROTECTED_START
; ----- unknown numbers
        READ 'read-unknown-low', 0x12345
        READ 'read-unknown-high', 0xC0012345
        READ 'read-unknown-ffffffff', 0xFFFFFFFF
        WRITE 'write-unknown', 0x12345, 0, 0
        WRITE 'write-unknown-high', 0xC0FF0000, 1, 0
; ----- SYSENTER
        WRITE 'sysenter-cs', 0x174, 0x1234, 0
        WRITE 'sysenter-esp', 0x175, 0x89ABCDEF, 0
        WRITE 'sysenter-eip', 0x176, 0x12345678, 0
        WRITE 'sysenter-esp-high', 0x175, 0x10, 0x7FFF
        WRITE 'sysenter-esp-not-canonical', 0x175, 0, 0x8000
        WRITE 'sysenter-eip-not-canonical', 0x176, 0, 0x12345678
; ----- EFER and the STAR family
        WRITE 'efer-sce', 0xC0000080, 1, 0
        WRITE 'efer-nxe', 0xC0000080, 0x801, 0
        WRITE 'efer-lme', 0xC0000080, 0x100, 0
        WRITE 'efer-bit-1', 0xC0000080, 2, 0
        WRITE 'efer-bit-9', 0xC0000080, 0x200, 0
        WRITE 'efer-bit-16', 0xC0000080, 0x10000, 0
        WRITE 'efer-high', 0xC0000080, 1, 1
        WRITE 'efer-0', 0xC0000080, 0, 0
        WRITE 'star', 0xC0000081, 0x89ABCDEF, 0x001B0008
        WRITE 'lstar', 0xC0000082, 0x12345678, 0xFFFF8000
        WRITE 'lstar-not-canonical', 0xC0000082, 0, 0x8000
        WRITE 'cstar', 0xC0000083, 0x12345678, 0x7FFF
        WRITE 'cstar-not-canonical', 0xC0000083, 0, 0x40000000
        WRITE 'fmask', 0xC0000084, 0x47700, 0
        WRITE 'fs-base', 0xC0000100, 0x1000, 0
        WRITE 'fs-base-not-canonical', 0xC0000100, 0, 0x8000
        WRITE 'fs-base-0', 0xC0000100, 0, 0
        WRITE 'gs-base-not-canonical', 0xC0000101, 0, 0xFFFF0000
        WRITE 'kernel-gs-base', 0xC0000102, 0x1000, 0xFFFFFFFF
        WRITE 'kernel-gs-base-not-canonical', 0xC0000102, 0, 0x8000
; ----- MTRRs
%assign type 0
%rep 9
        WRITE {'mtrr-physbase-type-', '0' + type}, 0x200, 0x80000 | type, 0
%assign type type + 1
%endrep
        WRITE 'mtrr-physbase-bit-8', 0x202, 0x100, 0
        WRITE 'mtrr-physbase-bit-11', 0x202, 0x800, 0
        WRITE 'mtrr-physbase-bit-63', 0x202, 0, 0x80000000
        WRITE 'mtrr-physmask', 0x201, 0xF8000800, 0xF
        WRITE 'mtrr-physmask-bit-0', 0x203, 1, 0
        WRITE 'mtrr-physmask-bit-10', 0x203, 0x400, 0
        WRITE 'mtrr-physmask-bit-63', 0x203, 0x800, 0x80000000
        WRITE 'mtrr-physbase7', 0x20E, 0x6, 0
        WRITE 'mtrr-physmask7', 0x20F, 0xFF000800, 0
%assign type 0
%rep 9
        WRITE {'mtrr-fixed-type-', '0' + type}, 0x250, 0x06060600 | type, 0x06060606
%assign type type + 1
%endrep
        WRITE 'mtrr-fixed-16k', 0x258, 0x06060606, 0x06060606
        WRITE 'mtrr-fixed-last-byte', 0x259, 0, 0x02000000
        WRITE 'mtrr-fixed-4k', 0x26F, 0x05050505, 0x04040404
        WRITE 'mtrr-fixed-4k-wrong', 0x268, 0x03000000, 0
        WRITE 'mtrr-def-type', 0x2FF, 0xC06, 0
        WRITE 'mtrr-def-type-2', 0x2FF, 2, 0
        WRITE 'mtrr-def-type-7', 0x2FF, 7, 0
        WRITE 'mtrr-def-type-bit-8', 0x2FF, 0x106, 0
        WRITE 'mtrr-def-type-bit-12', 0x2FF, 0x1006, 0
        WRITE 'mtrr-def-type-high', 0x2FF, 6, 1
        WRITE 'mtrr-def-type-0', 0x2FF, 0, 0
        WRITE 'mtrrcap-write', 0xFE, 0x508, 0
; ----- PAT
        READ 'pat', 0x277
%assign type 0
%rep 9
        WRITE {'pat-type-', '0' + type}, 0x277, 0x00070400 | type, 0x00070406
%assign type type + 1
%endrep
        WRITE 'pat-high-2', 0x277, 0x00070406, 0x02070406
        WRITE 'pat-reset', 0x277, 0x00070406, 0x00070406
; ----- CR4
%assign bit 11
%rep 21
  %if bit = 12 || bit = 15 || bit = 19 || bit > 23
        CHECKS {'cr4-bit-', '0' + bit / 10, '0' + bit % 10}, {mov eax, 1 << bit}, {mov cr4, eax}
  %endif
%assign bit bit + 1
%endrep
        CHECKS {'cr4-pae-pge'}, {mov eax, 0xA0}, {mov cr4, eax}, {mov eax, cr4}
        CHECKS {'cr4-osfxsr'}, {mov eax, 0x600}, {mov cr4, eax}, {mov eax, cr4}
        CHECKS {'cr4-0'}, {xor eax, eax}, {mov cr4, eax}, {mov eax, cr4}
; ----- counters
        CHECKS {'tsc-runs'}, {rdtsc}, {mov ebx, eax}, {rdtsc}, {cmp eax, ebx}, {mov eax, 0}, {mov ebx, 0}, {mov edx, 0}
        CHECKS {'rdpmc-unknown'}, {mov ecx, 0x1234}, {rdpmc}
; ----- SYSENTER and SYSEXIT
        WRITE 'sysenter-cs-0', 0x174, 0, 0
        CHECK 'sysenter-null', sysenter
        CHECK 'sysexit-null', sysexit
        WRITE 'sysenter-cs-3', 0x174, 3, 0
        CHECK 'sysenter-null-3', sysenter
        CHECK 'sysexit-null-3', sysexit
        CHECK 'sysret-no-sce', db 0x0F, 0x07
        CHECK 'syscall-no-sce', db 0x0F, 0x05
        CHECKS {'sysenter-segments'}, {mov ecx, 0x174}, {mov eax, CODE32 | 3}, {xor edx, edx}, {wrmsr}, \
                {mov ecx, 0x175}, {mov eax, STACK}, {wrmsr}, {mov ecx, 0x176}, {mov eax, F(entered)}, {wrmsr}, \
                {sti}, {sysenter}, {entered: mov eax, cs}, {mov ebx, ss}, {pushfd}, {pop ecx}, {and ecx, 0x200}
        call mark32
        db 10, 'end', 0
        mov al, 0
        jmp finish32

bits 16
TABLE_REGISTERS32
        align 8
GDT32
gdt_end:
RESET_VECTOR start
