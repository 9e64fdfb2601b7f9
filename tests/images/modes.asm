; The modes with nothing else: no devices, no interrupts, no checks. In each it executes `mark: nop`, at known places
; for debuggers, with EBX counting the modes from 1, and says the count on debug port E9h. Ends with debug exit 0.
;   1 real   2 big real   3 16-bit protected, CS base F0007, no multiple of 16   4 32-bit   5 paging, linear C00Fxxxx
;   6 64-bit   7 compatibility   8 real again
; A table at F000:FF00 holds the linear address of each mark, doublewords, ended by 0.
; ROM: v2e run --firmware modes.bin; QEMU -bios with -cpu qemu64.
ROM     equ 0xF0000
BASE16  equ 7                           ; of the 16-bit segment, from ROM
ALIAS   equ 0xC0000000
PD      equ 0x10000
PML4    equ 0x11000
%macro MARK 0
        inc ebx
        mov al, bl
        add al, '0'
        out 0xE9, al
%endmacro
org 0
bits 16
rom:    times 16 db 0
start:
        cli
        xor ebx, ebx
        MARK
mark1:  nop
        o32 lgdt [cs:gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        mov cx, DATA32
        mov ds, cx
        mov es, cx
        mov ss, cx
        and al, 0xFE
        mov cr0, eax
        xor cx, cx
        mov ds, cx
        mov es, cx
        mov ss, cx
        mov esp, 0x7000
        MARK
mark2:  nop
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp CODE16:(pm16 - rom - BASE16)
pm16:   MARK
mark3:  nop
        jmp dword CODE32:ROM + pm32
bits 32
pm32:
        mov eax, DATA32
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov esp, 0x7000
        MARK
mark4:  nop
        mov edi, PD
        mov ecx, 0x5000 / 4
        xor eax, eax
        rep stosd
        mov dword [PD], 0x83
        mov dword [PD + (ALIAS >> 22) * 4], 0x83
        mov eax, PD
        mov cr3, eax
        mov eax, 0x10
        mov cr4, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        mov eax, ALIAS + ROM + high_half
        jmp eax
high_half:
        MARK
mark5:  nop
        mov eax, ROM + paging_off
        jmp eax
paging_off:
        mov eax, cr0
        and eax, 0x7FFFFFFF
        mov cr0, eax
        mov dword [PML4], (PML4 + 0x1000) | 3
        mov dword [PML4 + 0x1000], (PML4 + 0x2000) | 3
        mov dword [PML4 + 0x2000], 0x83
        mov eax, PML4
        mov cr3, eax
        mov eax, 0x20
        mov cr4, eax
        mov ecx, 0xC0000080
        rdmsr
        or eax, 0x100
        wrmsr
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        jmp CODE64:ROM + lm64
bits 64
lm64:   MARK
mark6:  nop
        push qword CODE32
        push qword ROM + compat
        o64 retf
bits 32
compat: MARK
mark7:  nop
        mov eax, cr0
        and eax, 0x7FFFFFFF
        mov cr0, eax
        mov ecx, 0xC0000080
        rdmsr
        and eax, ~0x100
        wrmsr
        jmp CODE16:(leave - rom - BASE16)
bits 16
leave:
        mov ax, DATA16
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov eax, cr0
        and al, 0xFE
        mov cr0, eax
        jmp 0xF000:real_again
real_again:
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7000
        MARK
mark8:  nop
        mov al, 10
        out 0xE9, al
        mov al, 0
        out 0xF4, al
        mov dx, 0x8900                  ; for Bochs
        mov si, word_
        mov cx, 8
        cs rep outsb
.stop:  hlt
        jmp .stop
word_:  db 'Shutdown'
%macro SEGMENT 4
        dw (%2) & 0xFFFF, (%1) & 0xFFFF
        db ((%1) >> 16) & 0xFF, %3, ((%4) << 4) | (((%2) >> 16) & 0xF), (%1) >> 24
%endmacro
        align 8
gdt:    dq 0
CODE32  equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x9B, 0xC
DATA32  equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x93, 0xC
CODE16  equ $ - gdt
        SEGMENT ROM + BASE16, 0xFFFF, 0x9B, 0
CODE64  equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x9B, 0xA
DATA16  equ $ - gdt
        SEGMENT 0, 0xFFFF, 0x93, 0
gdtr:   dw $ - gdt - 1
        dd ROM + gdt
        times 0xFF00 - ($ - $$) db 0xF4
        dd ROM + mark1, ROM + mark2, ROM + mark3, ROM + mark4, ALIAS + ROM + mark5
        dd ROM + mark6, ROM + mark7, ROM + mark8, 0
        times 0xFFF0 - ($ - $$) db 0
        jmp 0xF000:start
        times 0x10000 - ($ - $$) db 0
