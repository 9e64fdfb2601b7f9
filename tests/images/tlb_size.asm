; A guest that has no right to be the same twice, and is: it clears the accessed bit of a page's entry without INVLPG, as
; kernels do that look for old pages, reads other pages, reads the page, and counts how often the bit is set then, which
; depends on what the TLB still has. Between rounds CR3 is written. ROM: v2e run --firmware.
; Prints the count. Ends with debug exit 0.
%include "guest.inc"
org 0
%define F(x) (ROM + (x) - rom)
rom:
PAGES           equ 0x81000             ; the page table, of the first 8 MiB
LOOKED_AT       equ 0x250000
ENTRY           equ PAGES + LOOKED_AT / 0x1000 * 4
ACCESSED        equ 0x20
ROUNDS          equ 400

GUEST_SERVICES 32
bits 16
start:  cli
        lgdt [cs:gdtr - rom]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 8:F(pm)
gdtr:   dw 0x17
        dd F(gdt)
        align 8
gdt:    dq 0
        SEGMENT 0, 0xFFFFF, 0x9B, 0xC
        SEGMENT 0, 0xFFFFF, 0x93, 0xC
bits 32
pm:     mov ax, 0x10
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, 0x20000
        cld
        mov edi, PAGES - 0x1000         ; the directory
        xor eax, eax
        mov ecx, 1024
        rep stosd
        mov dword [PAGES - 0x1000], PAGES + 3
        mov dword [PAGES - 0xFFC], PAGES + 0x1003
        mov edi, PAGES
        mov eax, 3
        mov ecx, 2048
.entry: stosd
        add eax, 0x1000
        loop .entry
        mov eax, PAGES - 0x1000
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        mov ebp, 12                     ; much memory at first, so that the TLB is large
.large: mov esi, 0x100000
        mov ecx, 1700
.read:  mov eax, [esi]
        add esi, 0x1000
        loop .read
        mov eax, cr3
        mov cr3, eax
        dec ebp
        jnz .large
        xor ebx, ebx
        mov ebp, ROUNDS
.round: mov eax, [LOOKED_AT]
        and dword [ENTRY], ~ACCESSED
        mov esi, 0x110000
        mov ecx, 27
.other: cmp esi, LOOKED_AT
        je .next
        mov eax, [esi]
.next:  add esi, 0x40000
        loop .other
        mov eax, [LOOKED_AT]
        mov eax, [ENTRY]
        shr eax, 6
        adc ebx, 0
        mov ecx, 3000
.wait:  loop .wait
        mov eax, cr3
        mov cr3, eax
        dec ebp
        jnz .round
        mov eax, ebx
        call hex8_32
        mov al, 0
        jmp finish32
RESET_VECTOR start
