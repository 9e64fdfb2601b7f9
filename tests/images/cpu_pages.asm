; Forms of paging in ring 0, a line a check: large pages, reserved bits, INVLPG, PAE and NX (SDM vol. 3A, 4.3 to 4.8 and
; 4.10.4). ROM: QEMU -bios, v2e run --firmware. A check prints its name, the frame of an exception, and =EAX:BYTE, the low
; byte of the entry of its page. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
PAGE_DIR        equ 0x10000
PAGE_TABLE      equ 0x11000
PDPT            equ 0x14000
PAE_DIR         equ 0x15000
PAE_TABLE       equ 0x16000
DATA_PAGE       equ 0x30000
OTHER_PAGE      equ 0x31000
LARGE           equ 0x400000            ; what PDE 1 maps, of 4 MiB; with PAE PDE 2, of 2 MiB
LARGE_PDE       equ PAGE_DIR + 4
ENTRY           equ PAGE_TABLE + (DATA_PAGE >> 12) * 4
PAE_LARGE_PDE   equ PAE_DIR + 2 * 8
PAE_ENTRY       equ PAE_TABLE + (DATA_PAGE >> 12) * 8
EFER            equ 0xC0000080
CR4_PSE_PAE     equ 0x30

; %1 name, %2 where the entry is, %3 and %4 its value, the rest instructions, each in braces
%macro PAGED 5-*
        TEST 32, %1
        mov dword [%2], %3
  %if %2 >= PDPT
        mov dword [%2 + 4], %4
  %endif
        mov eax, cr3
        mov cr3, eax
        mov eax, 0x11223344
        mov dword [RESUME], F(%%after)
  %rotate 4
  %rep %0 - 4
        %1
    %rotate 1
  %endrep
%%after:
  %rotate 0 - (%0 - 4) - 4
        mov ebx, %2
        call outcome
%endmacro

ROM32
PROTECTED_START
        mov edi, PAGE_DIR
        mov ecx, 0x8000 / 4
        xor eax, eax
        rep stosd
        mov dword [PAGE_DIR], PAGE_TABLE | 7
        mov edi, PAGE_TABLE
        mov ecx, 1024
        mov eax, 7
.entry: stosd
        add eax, 0x1000
        loop .entry
        mov dword [DATA_PAGE], 0xC3C3C3C3        ; RET
        mov dword [OTHER_PAGE], 0xB0B0B0B0
        mov eax, PAGE_DIR
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80010000              ; PG, WP
        mov cr0, eax

        PAGED 'table-not-large', LARGE_PDE, PAGE_TABLE | 0x87, 0, {mov eax, [LARGE + DATA_PAGE]}
        mov eax, cr4
        or eax, 0x10                    ; PSE
        mov cr4, eax
        PAGED 'large-read', LARGE_PDE, 0x83, 0, {mov eax, [LARGE + DATA_PAGE]}
        PAGED 'large-write', LARGE_PDE, 0x83, 0, {mov [LARGE + DATA_PAGE + 0x20], eax}
        PAGED 'large-read-only', LARGE_PDE, 0x81, 0, {mov [LARGE + DATA_PAGE + 0x20], eax}
        PAGED 'large-read-only-add', LARGE_PDE, 0x81, 0, {add [LARGE + DATA_PAGE + 0x20], eax}
        PAGED 'large-absent', LARGE_PDE, 0x82, 0, {mov [LARGE + DATA_PAGE + 0x20], eax}
        PAGED 'large-absent-add', LARGE_PDE, 0x82, 0, {add [LARGE + DATA_PAGE + 0x20], eax}
        PAGED 'large-reserved', LARGE_PDE, 0x200083, 0, {mov eax, [LARGE + DATA_PAGE]}
        PAGED 'large-reserved-write', LARGE_PDE, 0x200083, 0, {mov [LARGE + DATA_PAGE], eax}
        PAGED 'large-reserved-add', LARGE_PDE, 0x200083, 0, {add [LARGE + DATA_PAGE], eax}
        PAGED 'large-reserved-fetch', LARGE_PDE, 0x200083, 0, {call LARGE + DATA_PAGE - ROM}
        PAGED 'read', ENTRY, DATA_PAGE | 3, 0, {mov eax, [DATA_PAGE]}
        PAGED 'write', ENTRY, DATA_PAGE | 3, 0, {mov [DATA_PAGE + 0x20], eax}
        PAGED 'invlpg', ENTRY, DATA_PAGE | 3, 0, {mov eax, [DATA_PAGE]}, {mov dword [ENTRY], OTHER_PAGE | 3}, \
            {invlpg [DATA_PAGE + 0x123]}, {mov eax, [DATA_PAGE]}
        PAGED 'mov-cr3', ENTRY, DATA_PAGE | 3, 0, {mov eax, [DATA_PAGE]}, {mov dword [ENTRY], OTHER_PAGE | 3}, \
            {mov eax, cr3}, {mov cr3, eax}, {mov eax, [DATA_PAGE]}
        PAGED 'invlpg-absent', ENTRY, DATA_PAGE | 3, 0, {mov eax, [DATA_PAGE]}, {mov dword [ENTRY], 0}, \
            {invlpg [DATA_PAGE]}, {mov eax, [DATA_PAGE]}
        PAGED 'invlpg-read-only', ENTRY, DATA_PAGE | 3, 0, {mov [DATA_PAGE + 0x20], eax}, \
            {mov dword [ENTRY], DATA_PAGE | 1}, {invlpg [DATA_PAGE]}, {mov [DATA_PAGE + 0x20], eax}
        PAGED 'made-present', ENTRY, DATA_PAGE | 2, 0, {or dword [ENTRY], 1}, {mov eax, [DATA_PAGE]}

; ----- PAE
        mov dword [ENTRY], DATA_PAGE | 3
        mov eax, cr0
        and eax, 0x7FFFFFFF
        mov cr0, eax
        mov dword [PDPT], PAE_DIR | 1
        mov dword [PAE_DIR], PAE_TABLE | 3
        mov edi, PAE_TABLE
        mov ecx, 512
        mov eax, 3
.pae:   mov [edi], eax
        add edi, 8
        add eax, 0x1000
        loop .pae
        mov eax, PDPT
        mov cr3, eax
        mov eax, cr4
        or eax, 0x20
        mov cr4, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        PAGED 'pae-read', PAE_ENTRY, DATA_PAGE | 3, 0, {mov eax, [DATA_PAGE]}
        PAGED 'pae-write', PAE_ENTRY, DATA_PAGE | 3, 0, {mov [DATA_PAGE + 0x20], eax}
        PAGED 'pae-read-only', PAE_ENTRY, DATA_PAGE | 1, 0, {mov [DATA_PAGE + 0x20], eax}
        PAGED 'pae-absent', PAE_ENTRY, DATA_PAGE | 2, 0, {mov eax, [DATA_PAGE]}
        PAGED 'pae-absent-add', PAE_ENTRY, DATA_PAGE | 2, 0, {add [DATA_PAGE], eax}
        PAGED 'pae-no-nxe', PAE_ENTRY, DATA_PAGE | 3, 0x80000000, {mov eax, [DATA_PAGE]}
        PAGED 'pae-no-nxe-add', PAE_ENTRY, DATA_PAGE | 3, 0x80000000, {add [DATA_PAGE], eax}
        PAGED 'pae-reserved', PAE_ENTRY, DATA_PAGE | 3, 0x80000, {mov eax, [DATA_PAGE]}
        PAGED 'pae-large', PAE_LARGE_PDE, 0x83, 0, {mov eax, [LARGE + DATA_PAGE]}
        PAGED 'pae-large-write', PAE_LARGE_PDE, 0x83, 0, {mov [LARGE + DATA_PAGE + 0x20], eax}
        PAGED 'pae-large-reserved', PAE_LARGE_PDE, 0x2083, 0, {mov eax, [LARGE + DATA_PAGE]}
        PAGED 'pae-no-directory', PAE_ENTRY, DATA_PAGE | 3, 0, {mov eax, [0x40000000 + DATA_PAGE]}
        mov ecx, EFER
        rdmsr
        or eax, 0x800                   ; NXE
        wrmsr
        PAGED 'nx-read', PAE_ENTRY, DATA_PAGE | 3, 0x80000000, {mov eax, [DATA_PAGE]}
        PAGED 'nx-add', PAE_ENTRY, DATA_PAGE | 1, 0x80000000, {add [DATA_PAGE], eax}
        PAGED 'nx-fetch', PAE_ENTRY, DATA_PAGE | 3, 0x80000000, {call DATA_PAGE - ROM}
        PAGED 'x-fetch', PAE_ENTRY, DATA_PAGE | 3, 0, {call DATA_PAGE - ROM}
        PAGED 'nx-large-fetch', PAE_LARGE_PDE, 0x83, 0x80000000, {call LARGE + DATA_PAGE - ROM}
        PAGED 'absent-fetch', PAE_ENTRY, DATA_PAGE | 2, 0, {call DATA_PAGE - ROM}
        TEST 32, 'end'
        mov al, 0
        jmp finish32

outcome:                                ; ESP may be that of a CALL whose target faulted
        pop edx
        mov dword [RESUME], 0
        mov esp, STACK
        push eax
        call mark32
        db ' =', 0
        pop eax
        call hex8_32
        mov al, ':'
        out 0xE9, al
        mov al, [ebx]
        call hex2_32
        jmp edx

        align 8
GDT32
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
