; Fetches over the end of a page and of CS, a line a check: which of #GP(0) and #PF comes when the next page is absent or
; there and the limit is at the page's end, before it or behind it (SDM vol. 3A, table 6-2: the limit first). 32- and 16-bit
; code and V86 mode. ROM: QEMU -bios, v2e run --firmware. Output as exc_frames32.inc says; ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
TSS             equ 0xA000
PAGE_DIR        equ 0x10000
PAGE_TABLE      equ 0x11000
CODE            equ 0x30000             ; what CS begins with: a page of NOP, behind it the one in question
NEXT_ENTRY      equ PAGE_TABLE + ((CODE >> 12) + 1) * 4
V86_NEXT_ENTRY  equ PAGE_TABLE + ((CODE >> 12) + 16) * 4        ; behind the 64 KiB of V86's CS

; Go to offset %3 of the segment %2, with the bytes %4 there; the first exception ends it. %1 name
%macro FETCH 4+
        call mark32
        db 10, %1, 0
        call reset
        jmp short %%go
%%code: db %4
%%end:
%%go:   mov esi, F(%%code)
        mov edi, CODE + %3
        mov ecx, %%end - %%code
        rep movsb
        call next_page
        mov dword [GO_TO], F(%%next)
        jmp %2:(%3)
%%next:
%endmacro
%macro SEGMENTS 3+                      ; %1 name, %2 offset, %3 bytes
  %assign bits_ 32
  %rep 2
        FETCH {%1, '-', %str(bits_), '-end'}, LIMIT_FFF_ %+ bits_, %2, %3
        FETCH {%1, '-', %str(bits_), '-beyond'}, LIMIT_1FFF_ %+ bits_, %2, %3
        FETCH {%1, '-', %str(bits_), '-one-beyond'}, LIMIT_1000_ %+ bits_, %2, %3
        FETCH {%1, '-', %str(bits_), '-before'}, LIMIT_FFE_ %+ bits_, %2, %3
    %assign bits_ 16
  %endrep
%endmacro
; The same in V86 mode, at offset %2 of its 64 KiB
%macro FETCH_V86 3+
        call mark32
        db 10, %1, 0
        call reset
        jmp short %%go
%%code: db %3
%%end:
%%go:   mov esi, F(%%code)
        mov edi, CODE + (%2)
        mov ecx, %%end - %%code
        rep movsb
        call next_page
        mov dword [GO_TO], F(%%next)
        push dword 0
        push dword 0
        push dword 0
        push dword 0
        push dword 0
        push dword 0x6000
        push dword 0x20002
        push dword CODE >> 4
        push dword %2
        iretd
%%next:
%endmacro

ROM32
PROTECTED_START
        FRESH_TSS TSS, 0x68, 0x6800, 0x68
        mov eax, TSS_SEL
        ltr ax
        mov edi, PAGE_DIR
        mov ecx, 1024
        xor eax, eax
        rep stosd
        mov dword [PAGE_DIR], PAGE_TABLE | 7
        mov edi, PAGE_TABLE
        mov ecx, 1024
        mov eax, 7
.entry: stosd
        add eax, 0x1000
        loop .entry
        mov eax, PAGE_DIR
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax

        mov ebp, 0                      ; the entry of the next page: absent, then present
        TEST 32, 'absent'
checks:
        SEGMENTS 'runs', 0xFFE, 0x90, 0x90              ; NOP; NOP; the next page
        SEGMENTS 'runs-long', 0xFF0, 0x0F, 0x1F, 0x44, 0, 0, 0x8D, 0x80, 0, 0, 0, 0, 0x0F, 0x1F, 0x40, 0, 0x90
        SEGMENTS 'second-byte', 0xFFF, 0x31, 0xC0       ; XOR EAX, EAX
        SEGMENTS 'prefix', 0xFFF, 0x66, 0x90
        SEGMENTS 'immediate', 0xFFD, 0xB8, 0, 0, 0, 0   ; MOV EAX, 0; in 16-bit code its last byte is the page's
        SEGMENTS 'memory', 0xFFE, 0x8B, 0x05, 0, 0x10, 0, 0
        SEGMENTS 'branch', 0xFFC, 0xEB, 0x02
        SEGMENTS 'no-branch', 0xFFE, 0xEB, 0xF0
        FETCH_V86 'v86-second-byte', 0xFFFF, 0x31, 0xC0
        FETCH_V86 'v86-runs', 0xFFFE, 0x90, 0x90
        FETCH_V86 'v86-prefix', 0xFFFF, 0x66, 0x90
        cmp ebp, 0
        jne done
        mov ebp, 1
        TEST 32, 'present'
        jmp checks
done:
        TEST 32, 'end'
        mov al, 0
        jmp finish32

reset:                                  ; the pages of code
        mov dword [NEXT_ENTRY], (CODE + 0x1000) | 7
        mov dword [V86_NEXT_ENTRY], (CODE + 0x10000) | 7
        mov eax, cr3
        mov cr3, eax
        mov edi, CODE + 0xFC0
        mov ecx, 0x80
        mov al, 0x90
        rep stosb
        mov edi, CODE + 0xFFE0
        mov ecx, 0x40
        rep stosb
        mov word [CODE + 0xFF0], 0x0B0F         ; where the branch of `no-branch` goes: UD2
        mov word [CODE + 0x1010], 0x0B0F
        mov word [CODE + 0x10010], 0x0B0F
        ret
next_page:                              ; whether the next ones are there
        mov eax, (CODE + 0x1000) | 6
        or eax, ebp
        mov [NEXT_ENTRY], eax
        mov eax, (CODE + 0x10000) | 6
        or eax, ebp
        mov [V86_NEXT_ENTRY], eax
        mov eax, cr3
        mov cr3, eax
        xor eax, eax
        xor ebx, ebx
        xor edi, edi
        ret

        align 8
GDT32
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
LIMIT_FFF_32    equ $ - gdt
        SEGMENT CODE, 0xFFF, 0x9B, 4
LIMIT_FFF_16    equ $ - gdt
        SEGMENT CODE, 0xFFF, 0x9B, 0
LIMIT_1FFF_32   equ $ - gdt
        SEGMENT CODE, 0x1FFF, 0x9B, 4
LIMIT_1FFF_16   equ $ - gdt
        SEGMENT CODE, 0x1FFF, 0x9B, 0
LIMIT_1000_32   equ $ - gdt
        SEGMENT CODE, 0x1000, 0x9B, 4
LIMIT_1000_16   equ $ - gdt
        SEGMENT CODE, 0x1000, 0x9B, 0
LIMIT_FFE_32    equ $ - gdt
        SEGMENT CODE, 0xFFE, 0x9B, 4
LIMIT_FFE_16    equ $ - gdt
        SEGMENT CODE, 0xFFE, 0x9B, 0
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
